//! The broker through its public interface.

use std::num::NonZeroU16;

use mqtt::PublishProperties;

use super::*;

const ORG: OrgId = OrgId::from_bytes([1; 12]);
const OTHER: OrgId = OrgId::from_bytes([2; 12]);
const LIMITS: BrokerLimits = BrokerLimits { filters_max: 20, links_max: 20 };
const WAIT: Duration = Duration::from_secs(10);

/// A subscriber with its deliveries.
struct Subscriber {
    link: Link,
    deliveries: mpsc::Receiver<Delivery>,
}

impl Subscriber {
    async fn open(broker: &Broker, org: OrgId, number: u64) -> Self {
        let options = OpenOptions { clean: true, keep: Duration::ZERO, publisher: number };
        Self::open_with(broker, org, &number.to_string(), options, 100).await.expect("room")
    }

    async fn open_with(
        broker: &Broker,
        org: OrgId,
        name: &str,
        options: OpenOptions,
        room: usize,
    ) -> Result<Self, BrokerError> {
        let (sender, deliveries) = mpsc::channel(room);
        let link = broker.open(org, LinkName::new("p", name), options, sender).await?;
        Ok(Self { link, deliveries })
    }

    async fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), Refusal> {
        let results = self.link.subscribe(vec![wish(filter, qos)]).await.expect("open");
        results.into_iter().next().expect("a result")
    }

    /// The next delivery; it has to come.
    async fn next(&mut self) -> Delivery {
        tokio::time::timeout(WAIT, self.deliveries.recv()).await.expect("in time").expect("open")
    }

    /// The next delivery as topic, payload, QoS and retain flag.
    async fn next_text(&mut self) -> String {
        let delivery = self.next().await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let flag = if delivery.retain { " retained" } else { "" };
        let (topic, payload) = (text(&delivery.topic), text(&delivery.payload));
        format!("{topic} {payload} {}{flag}", delivery.qos as u8)
    }
}

fn wish(filter: &str, qos: QoS) -> Subscription {
    Subscription {
        filter: filter.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
        subscription_id: None,
    }
}

fn message<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    const NONE: &PublishProperties<'static> = &PublishProperties {
        payload_is_text: None,
        expiry: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        topic_alias: None,
        repeated: mqtt::properties::Repeated::NONE,
    };
    let (payload, qos) = (payload.as_bytes(), QoS::AtLeastOnce);
    Message { topic, payload, qos, retain: false, properties: NONE, publisher: 0 }
}

fn retained<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    Message { retain: true, ..message(topic, payload) }
}

async fn publish(broker: &Broker, message: Message<'_>) {
    publish_in(broker, ORG, message).await;
}

async fn publish_in(broker: &Broker, org: OrgId, message: Message<'_>) {
    let packed = broker.pack(&message).expect("a topic");
    if let Err(packed) = broker.try_publish(org, packed) {
        broker.publish(org, packed).await.expect("accepted");
    }
}

const KEPT: OpenOptions = OpenOptions { clean: false, keep: Duration::MAX, publisher: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_what_their_filters_say_in_their_organisation() {
    let broker = Broker::spawn(LIMITS);
    let mut exact = Subscriber::open(&broker, ORG, 1).await;
    let mut wild = Subscriber::open(&broker, ORG, 2).await;
    let mut other = Subscriber::open(&broker, OTHER, 3).await;
    assert_eq!(exact.subscribe("a/b", QoS::AtMostOnce).await, Ok(()));
    assert_eq!(wild.subscribe("a/#", QoS::AtLeastOnce).await, Ok(()));
    assert_eq!(other.subscribe("#", QoS::AtLeastOnce).await, Ok(()));
    publish(&broker, message("b/a", "0")).await;
    publish(&broker, message("a", "1")).await;
    publish(&broker, message("a/b", "2")).await;
    publish(&broker, Message { qos: QoS::AtMostOnce, ..message("a/c", "") }).await;
    assert_eq!(exact.next_text().await, "a/b 2 0");
    assert_eq!(wild.next_text().await, "a 1 1");
    assert_eq!(wild.next_text().await, "a/b 2 1");
    assert_eq!(wild.next_text().await, "a/c  0");
    publish_in(&broker, OTHER, message("x", "own")).await;
    assert_eq!(other.next_text().await, "x own 1");
    assert!(exact.deliveries.try_recv().is_err());

    let gone = exact.link.unsubscribe(vec!["a/b".into(), "never".into()]).await;
    assert_eq!(gone, Ok(vec![true, false]));
    publish(&broker, message("a/b", "3")).await;
    assert_eq!(wild.next_text().await, "a/b 3 1");
    assert!(exact.deliveries.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_topic_or_filter_is_refused() {
    let broker = Broker::spawn(LIMITS);
    let subscriber = Subscriber::open(&broker, ORG, 1).await;
    for topic in ["", "$SYS/x", "a/+", "#"] {
        assert_eq!(broker.pack(&message(topic, "")).err(), Some(BrokerError::Topic));
    }
    for filter in ["", "$SYS/#", "a/#/b", "$share/g/$SYS/#", "$share/g"] {
        let result = subscriber.subscribe(filter, QoS::AtMostOnce).await;
        assert_eq!(result, Err(Refusal::Filter), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_come_with_every_subscription_until_they_are_cleared() {
    let broker = Broker::spawn(LIMITS);
    let mut subscriber = Subscriber::open(&broker, ORG, 1).await;
    publish(&broker, retained("a/1", "one")).await;
    publish(&broker, retained("a/2", "two")).await;
    publish(&broker, message("a/2", "")).await;
    for _ in 0..2 {
        assert_eq!(subscriber.subscribe("a/+", QoS::AtMostOnce).await, Ok(()));
        assert_eq!(subscriber.next_text().await, "a/1 one 0 retained");
        assert_eq!(subscriber.next_text().await, "a/2 two 0 retained");
    }
    publish(&broker, retained("a/1", "")).await;
    assert_eq!(subscriber.next_text().await, "a/1  0");
    assert_eq!(subscriber.subscribe("a/+", QoS::AtMostOnce).await, Ok(()));
    assert_eq!(subscriber.next_text().await, "a/2 two 0 retained");

    // Retain handling: not for what is known, and never.
    let mut other = Subscriber::open(&broker, ORG, 2).await;
    let handling = |retain_handling, filter: &str| Subscription {
        retain_handling,
        retain_as_published: true,
        subscription_id: Some(7),
        ..wish(filter, QoS::AtLeastOnce)
    };
    let wishes = vec![
        handling(RetainHandling::Never, "a/2"),
        handling(RetainHandling::IfNew, "+/2"),
        handling(RetainHandling::IfNew, "+/2"),
    ];
    assert_eq!(other.link.subscribe(wishes).await, Ok(vec![Ok(()); 3]));
    let delivery = other.next().await;
    assert_eq!((delivery.retain, delivery.subscription_id), (true, Some(7)));
    publish(&broker, retained("a/2", "new")).await;
    assert_eq!(other.next_text().await, "a/2 new 1 retained");
    assert_eq!(other.next_text().await, "a/2 new 1 retained");
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_travel_and_expired_messages_do_not() {
    let broker = Broker::spawn(LIMITS);
    let mut subscriber = Subscriber::open(&broker, ORG, 1).await;
    let block = b"\x26\x00\x01k\x00\x01v\x0b\x05";
    let repeated = PublishProperties::parse(block).expect("a block").repeated;
    let properties = PublishProperties {
        expiry: Some(100),
        content_type: Some("text/plain"),
        topic_alias: NonZeroU16::new(3),
        repeated,
        ..Default::default()
    };
    publish(&broker, Message { properties: &properties, ..retained("a", "x") }).await;
    let expired = PublishProperties { expiry: Some(0), ..Default::default() };
    publish(&broker, Message { properties: &expired, ..retained("a/b", "x") }).await;
    assert_eq!(subscriber.subscribe("#", QoS::AtLeastOnce).await, Ok(()));
    let delivery = subscriber.next().await;
    let read = delivery.properties(Instant::now());
    assert!(read.expiry.is_some_and(|left| (90..=100).contains(&left)), "{read:?}");
    assert_eq!((read.content_type, read.topic_alias), (Some("text/plain"), None));
    assert!(read.repeated.user_properties().eq([("k", "v")]));
    assert_eq!(read.repeated.subscription_ids().count(), 0);
    publish(&broker, message("b", "last")).await;
    assert_eq!(subscriber.next_text().await, "b last 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_local_keeps_own_messages_away() {
    let broker = Broker::spawn(LIMITS);
    let mut subscriber = Subscriber::open(&broker, ORG, 5).await;
    let mut wanted = wish("a", QoS::AtLeastOnce);
    wanted.no_local = true;
    assert_eq!(subscriber.link.subscribe(vec![wanted]).await, Ok(vec![Ok(())]));
    publish(&broker, Message { publisher: 5, ..message("a", "own") }).await;
    publish(&broker, Message { publisher: 6, ..message("a", "foreign") }).await;
    assert_eq!(subscriber.next_text().await, "a foreign 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_messages() {
    let broker = Broker::spawn(LIMITS);
    let mut one = Subscriber::open(&broker, ORG, 1).await;
    let mut two = Subscriber::open(&broker, ORG, 2).await;
    let mut alone = Subscriber::open(&broker, ORG, 3).await;
    publish(&broker, retained("a/0", "before")).await;
    for member in [&one, &two] {
        assert_eq!(member.subscribe("$share/g/a/+", QoS::AtLeastOnce).await, Ok(()));
    }
    assert_eq!(alone.subscribe("$share/h/a/+", QoS::AtLeastOnce).await, Ok(()));
    for number in 0..10 {
        publish(&broker, message("a/1", &number.to_string())).await;
        assert_eq!(alone.next_text().await, format!("a/1 {number} 1"));
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let text = tokio::select! {
            text = one.next_text() => text,
            text = two.next_text() => text,
        };
        seen.push(text);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10);
    // Who leaves leaves everything to the others, an ordinary subscription stays.
    assert_eq!(two.subscribe("b", QoS::AtMostOnce).await, Ok(()));
    assert_eq!(two.link.unsubscribe(vec!["$share/g/a/+".into()]).await, Ok(vec![true]));
    for number in 0..3 {
        publish(&broker, message("a/1", &number.to_string())).await;
        assert_eq!(one.next_text().await, format!("a/1 {number} 1"));
    }
    publish(&broker, message("b", "x")).await;
    assert_eq!(two.next_text().await, "b x 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_gets_what_it_missed() {
    let broker = Broker::spawn(LIMITS);
    let name = LinkName::new("p", "kept");
    let mut first = Subscriber::open_with(&broker, ORG, "kept", KEPT, 1).await.expect("room");
    assert!(!first.link.session_present);
    assert!(broker.has_session(ORG, name) && !broker.has_session(OTHER, name));
    assert_eq!(first.subscribe("a", QoS::AtLeastOnce).await, Ok(()));
    publish(&broker, message("a", "1")).await;
    publish(&broker, message("a", "2")).await;
    let (one, two) = (first.next().await, first.next().await);
    assert!(one.ack < two.ack);
    first.link.ack(one.ack.expect("QoS 1"));
    first.link.close(Duration::MAX).await;
    drop(first.deliveries);
    publish(&broker, message("a", "3")).await;
    publish(&broker, Message { qos: QoS::AtMostOnce, ..message("a", "lost") }).await;
    publish(&broker, message("a", "4")).await;

    let mut second = Subscriber::open_with(&broker, ORG, "kept", KEPT, 10).await.expect("room");
    assert!(second.link.session_present);
    // Whether QoS 0 was lost depends on when the router forwarded it.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivery = second.next().await;
        if let Some(token) = delivery.ack {
            second.link.ack(token);
            seen.push((String::from_utf8_lossy(&delivery.payload).into_owned(), delivery.dup));
        }
    }
    assert_eq!(seen, [("2".into(), true), ("3".into(), false), ("4".into(), false)]);

    // A third connection takes over; the second learns it from the end of its deliveries.
    let third = Subscriber::open_with(&broker, ORG, "kept", KEPT, 10).await.expect("room");
    let end = tokio::time::timeout(WAIT, second.deliveries.recv()).await.expect("in time");
    assert!(end.is_none() && third.link.session_present);
    second.link.close(Duration::ZERO).await;
    assert!(broker.has_session(ORG, name));

    // A clean start forgets.
    let clean = OpenOptions { clean: true, ..KEPT };
    let mut fourth = Subscriber::open_with(&broker, ORG, "kept", clean, 10).await.expect("room");
    assert!(!fourth.link.session_present);
    assert_eq!(fourth.subscribe("b", QoS::AtMostOnce).await, Ok(()));
    publish(&broker, message("a", "5")).await;
    publish(&broker, message("b", "6")).await;
    assert_eq!(fourth.next_text().await, "b 6 0");
    broker.forget(ORG, name).await.expect("running");
    let end = tokio::time::timeout(WAIT, fourth.deliveries.recv()).await.expect("in time");
    assert!(end.is_none());
    assert!(!broker.has_session(ORG, name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_resumed_in_time_is_gone() {
    let broker = Broker::spawn(LIMITS);
    let name = LinkName::new("p", "short");
    let subscriber = Subscriber::open_with(&broker, ORG, "short", KEPT, 1).await.expect("room");
    assert!(broker.has_session(ORG, name));
    subscriber.link.close(Duration::from_millis(20)).await;
    tokio::time::timeout(WAIT, async {
        while broker.has_session(ORG, name) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_sessions_are_counted_and_refused_above_the_cap() {
    let broker = Broker::spawn(BrokerLimits { filters_max: 2, links_max: 2 });
    let one = Subscriber::open(&broker, ORG, 1).await;
    let two = Subscriber::open_with(&broker, OTHER, "2", KEPT, 1).await.expect("room");
    assert_eq!(one.subscribe("a", QoS::AtMostOnce).await, Ok(()));
    assert_eq!(two.subscribe("a", QoS::AtMostOnce).await, Ok(()));
    assert_eq!(one.subscribe("b", QoS::AtMostOnce).await, Err(Refusal::Quota));
    assert_eq!(one.subscribe("a", QoS::AtLeastOnce).await, Ok(()));
    assert_eq!(two.link.unsubscribe(vec!["a".into()]).await, Ok(vec![true]));
    let results = one.link.subscribe(vec![
        wish("b", QoS::AtMostOnce),
        wish("+/+/#/", QoS::AtMostOnce),
        wish("c", QoS::AtMostOnce),
    ]);
    assert_eq!(results.await, Ok(vec![Ok(()), Err(Refusal::Filter), Err(Refusal::Quota)]));
    let full = Subscriber::open_with(&broker, ORG, "3", KEPT, 1).await;
    assert_eq!(full.err(), Some(BrokerError::Full));
    // A session without connection makes room.
    two.link.close(Duration::MAX).await;
    let taken = tokio::time::timeout(WAIT, async {
        loop {
            if let Ok(new) = Subscriber::open_with(&broker, ORG, "3", KEPT, 1).await {
                return new;
            }
        }
    })
    .await;
    assert!(!taken.expect("in time").link.session_present);
    assert!(!broker.has_session(OTHER, LinkName::new("p", "2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_its_share_of_the_filters() {
    let broker = Broker::spawn(LIMITS);
    let greedy = Subscriber::open(&broker, ORG, 1).await;
    for number in 0..10 {
        assert_eq!(greedy.subscribe(&format!("a/{number}"), QoS::AtMostOnce).await, Ok(()));
    }
    assert_eq!(greedy.subscribe("b", QoS::AtMostOnce).await, Err(Refusal::Quota));
    assert_eq!(greedy.subscribe("a/1", QoS::AtLeastOnce).await, Ok(()));
    let other = Subscriber::open(&broker, ORG, 2).await;
    assert_eq!(other.subscribe("b", QoS::AtMostOnce).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_costs_itself_only() {
    const COUNT: usize = 20_000;
    let broker = Broker::spawn(LIMITS);
    let slow = OpenOptions { clean: true, keep: Duration::ZERO, publisher: 1 };
    let mut slow = Subscriber::open_with(&broker, ORG, "slow", slow, 1).await.expect("room");
    let mut fast = Subscriber::open(&broker, ORG, 2).await;
    assert_eq!(slow.subscribe("a", QoS::AtLeastOnce).await, Ok(()));
    assert_eq!(fast.subscribe("a", QoS::AtLeastOnce).await, Ok(()));
    let payload = "x".repeat(100);
    let publisher = async {
        for number in 0..COUNT {
            let text = format!("{number} {payload}");
            publish(&broker, message("a", &text)).await;
        }
    };
    let reader = async {
        let mut last = None;
        while last != Some(COUNT - 1) {
            let delivery = fast.next().await;
            fast.link.ack(delivery.ack.expect("QoS 1"));
            let text = String::from_utf8_lossy(&delivery.payload).into_owned();
            last = text.split(' ').next().and_then(|number| number.parse().ok());
        }
    };
    tokio::join!(publisher, reader);
    // The slow one gets the beginning, and what the router still holds.
    let first = slow.next().await;
    assert!(first.payload.starts_with(b"0 "));
    let mut token = first.ack;
    let mut seen = 1;
    loop {
        slow.link.ack(token.expect("QoS 1"));
        let delivery = slow.next().await;
        token = delivery.ack;
        seen += 1;
        if delivery.payload.starts_with(format!("{} ", COUNT - 1).as_bytes()) {
            break;
        }
    }
    assert!((1000..COUNT).contains(&seen), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_deliveries_hold_up_the_next_ones() {
    let broker = Broker::spawn(LIMITS);
    let options = OpenOptions { clean: true, keep: Duration::ZERO, publisher: 1 };
    let mut subscriber =
        Subscriber::open_with(&broker, ORG, "x", options, 500).await.expect("room");
    assert_eq!(subscriber.subscribe("a", QoS::AtLeastOnce).await, Ok(()));
    for number in 0..limits::UNACKED_MAX + 1 {
        publish(&broker, message("a", &number.to_string())).await;
    }
    let mut tokens = Vec::new();
    for _ in 0..limits::UNACKED_MAX {
        tokens.push(subscriber.next().await.ack.expect("QoS 1"));
    }
    assert!(subscriber.deliveries.try_recv().is_err());
    // Any order will do.
    subscriber.link.ack(*tokens.last().expect("some"));
    assert_eq!(subscriber.next_text().await, format!("a {} 1", limits::UNACKED_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_router_is_replaced_and_subscriptions_stay() {
    let broker = Broker::spawn(LIMITS);
    let mut subscriber = Subscriber::open(&broker, ORG, 1).await;
    let mut kept = Subscriber::open_with(&broker, ORG, "kept", KEPT, 10).await.expect("room");
    publish(&broker, retained("r", "still here")).await;
    assert_eq!(subscriber.subscribe("a/#", QoS::AtLeastOnce).await, Ok(()));
    assert_eq!(kept.subscribe("$share/g/a/b", QoS::AtLeastOnce).await, Ok(()));
    for round in 0..3 {
        broker.commands.send(Command::KillRouter).await.expect("running");
        // What meets a dying router may be lost; soon nothing is any more.
        let expected = format!("a/b {round} 1");
        tokio::time::timeout(WAIT, async {
            loop {
                publish(&broker, message("a/b", &round.to_string())).await;
                let pause = tokio::time::sleep(Duration::from_millis(10));
                tokio::select! {
                    text = subscriber.next_text() => if text == expected { break },
                    () = pause => {}
                }
            }
        })
        .await
        .expect("in time");
        while kept.next_text().await != expected {}
    }
    let mut late = Subscriber::open(&broker, ORG, 2).await;
    assert_eq!(late.subscribe("r", QoS::AtLeastOnce).await, Ok(()));
    assert_eq!(late.next_text().await, "r still here 1 retained");
}
