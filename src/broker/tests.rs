//! Sessions, what waits in them and retained messages, where threads, connections and the store
//! meet.

use std::sync::{Arc, mpsc};

use base::{OrgId, Timestamp, UserId};
use mqtt::{PublishProperties, QoS};
use rules::directory::{Outbox, Principal};
use store::watched::Watched;
use store::{Batch, Durability, Store as _, Table, Tables};

use super::*;

pub(super) const ORG: OrgId = OrgId::from_bytes([1; 12]);
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_000_000);
pub(super) const CONFIG: BrokerConfig = BrokerConfig {
    filters_max: 1_000_000,
    sessions_max: 10_000,
    subscriptions_max: 1_000_000,
    waiting_bytes_max: 1 << 30,
    retained_max: 1_000_000,
    retained_bytes_max: 1 << 30,
};
const BY: Publisher<'_> = Publisher::server();
const IDENTITY: Identity = Identity { thing: None, application: None, token: None };

/// A broker on a store that outlives it.
pub(super) struct Rig {
    pub store: Arc<Watched>,
    pub broker: Broker,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::on(Arc::default())
    }

    pub(super) fn on(store: Arc<Watched>) -> Self {
        Self::with(store, &CONFIG)
    }

    fn with(store: Arc<Watched>, config: &BrokerConfig) -> Self {
        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        let broker = Broker::open(tables, config, &Arc::default(), NOW).expect("the store works");
        broker.count_stored().expect("the store works");
        Self { store, broker }
    }

    /// Holds up all commits until what is returned is dropped.
    fn close_gate(&self) -> mpsc::Sender<()> {
        let (store, (open, opened)) = (self.store.clone(), mpsc::channel());
        let (closed, is_closed) = mpsc::channel();
        std::thread::spawn(move || {
            let _gate = store.gate.lock();
            drop(closed);
            let _ = opened.recv();
        });
        let _ = is_closed.recv() as Result<(), _>;
        open
    }

    /// All that was submitted is committed.
    pub(super) async fn settle(&self) {
        self.broker.0.tables.writer().barrier().expect("room").await.expect("committed");
    }

    /// What is held of sessions, subscriptions and bytes that wait.
    pub(super) fn held(&self) -> [u64; 3] {
        self.broker.0.shares.held()
    }

    fn rows(&self) -> usize {
        let tables = [Table::MqttSessions, Table::MqttMessages, Table::MqttReceived];
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = |table| self.store.scan(table, all.0, all.1, 1000).expect("rows").len();
        tables.into_iter().map(rows).sum()
    }

    pub(super) fn begin(&self, name: &str) -> Link {
        let outbox = Arc::new(Outbox::new(true));
        let link = self.broker.begin(&owner(name), (ORG, IDENTITY), 1000, (&outbox, &|| true));
        link.expect("room")
    }

    pub(super) fn resume(&self, name: &str) -> Option<Link> {
        let outbox = Arc::new(Outbox::new(true));
        self.broker.resume(&owner(name), (ORG, IDENTITY), 1000, (&outbox, &|| true), NOW)
    }

    /// Subscribes.
    fn granted(&self, link: &Link, filter: &str, qos: u8) {
        let (filter, place) = (filter.into(), Place::Filter);
        let subscription = Subscription {
            filter,
            place,
            qos,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        self.broker.subscribe(&link.session, subscription).expect("granted");
    }

    /// Subscribes; it is stored when this returns.
    pub(super) async fn subscribe(&self, link: &Link, filter: &str, qos: u8) {
        self.granted(link, filter, qos);
        self.broker.store_session(&link.session).expect("room").await.expect("stored");
    }

    /// So many that have subscribed to `t` with QoS 1.
    async fn subscribers(&self, count: usize) -> Vec<Link> {
        let mut links = Vec::new();
        for number in 0..count {
            let link = self.begin(&number.to_string());
            self.subscribe(&link, "t", 1).await;
            links.push(link);
        }
        links
    }

    /// Publishes; the acknowledgement may be sent when the receipt resolves.
    pub(super) async fn publish(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let properties = PublishProperties::default();
        let message = Message::new(topic, payload, (qos, retain), &properties, NOW);
        let fan_out = self.broker.publish(ORG, message, BY, Batch::default());
        let published = match fan_out.expect("a topic").expect("stored") {
            FanOut::Published(published) => published,
            FanOut::More(publishing) => {
                publishing.finish(bounds::WITHHELD_WAIT).await.expect("stored")
            }
        };
        assert_eq!(published.unretained, None);
        published.receipt.await.expect("stored");
    }

    /// Takes all that comes without an acknowledgement, up to `window`.
    pub(super) async fn take(&self, link: &Link, mut window: usize) -> Vec<Queued> {
        let mut all = Vec::new();
        loop {
            let mut queued = Vec::new();
            let taken = self.broker.take(link, (window, &|_| false), usize::MAX, &mut queued);
            let counts = |queued: &&Queued| delivery(queued).is_some_and(|d| d.seq > 0);
            window -= queued.iter().filter(counts).count();
            all.extend(queued);
            if !taken.stored {
                return all;
            }
            self.broker.load_more(link.clone()).await.expect("read");
        }
    }
}

pub(super) fn owner(name: &str) -> Owner {
    let principal = Principal::User(UserId::from_bytes([1; 12]));
    Owner { principal, client_id: name.into() }
}

pub(super) fn delivery(queued: &Queued) -> Option<&Delivery> {
    match queued {
        Queued::Delivery(delivery) => Some(delivery),
        Queued::Release(_) => None,
    }
}

fn payloads(queued: &[Queued]) -> Vec<&[u8]> {
    queued.iter().filter_map(delivery).map(|delivery| delivery.message.payload()).collect()
}

#[tokio::test]
async fn a_message_with_qos_2_is_sent_to_a_kept_session_when_it_is_durable() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 2).await;
    let closed_gate = rig.close_gate();
    let properties = PublishProperties::default();
    let message = Message::new("t", b"x", (QoS::ExactlyOnce, false), &properties, NOW);
    let published = rig.broker.publish(ORG, message, BY, Batch::default());
    // A crash now would give its number, and with it its packet id, to another message, which the
    // client would take for the same.
    let mut queued = Vec::new();
    let taken = rig.broker.take(&link, (10, &|_| false), usize::MAX, &mut queued);
    assert!(queued.is_empty() && taken.stored);
    drop(closed_gate);
    assert_eq!(payloads(&rig.take(&link, 10).await), [b"x"]);
    drop(published);
}

#[tokio::test]
async fn what_waits_for_a_session_that_was_not_stored_comes_to_nobody_else() {
    let rig = Rig::new();
    let link = rig.begin("a");
    let subscription = Subscription {
        filter: "t".into(),
        place: Place::Filter,
        qos: 1,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    assert_eq!(rig.broker.subscribe(&link.session, subscription), Ok(true));
    for _ in 0..2 {
        rig.publish("t", b"x", QoS::AtLeastOnce, false).await;
    }
    // The program ends before the SUBACK.
    let rig = Rig::on(rig.store);
    let other = rig.begin("b");
    rig.subscribe(&other, "t", 1).await;
    rig.broker.leave(other, 1000, Vec::new(), NOW);
    rig.publish("t", b"y", QoS::AtLeastOnce, false).await;
    let other = rig.resume("b").expect("kept");
    assert_eq!(payloads(&rig.take(&other, 10).await), [b"y"]);
}

#[tokio::test]
async fn nothing_is_left_of_a_session_that_has_nothing() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    rig.broker.leave(link, 1000, Vec::new(), NOW);
    rig.publish("t", b"x", QoS::AtLeastOnce, false).await;
    let link = rig.resume("a").expect("kept");
    for queued in rig.take(&link, 10).await {
        let delivery = delivery(&queued).expect("a message");
        rig.broker.acknowledged(&link, delivery.seq, delivery.row_len());
    }
    assert!(rig.broker.unsubscribe(&link.session, "t"));
    rig.broker.store_session(&link.session).expect("room").await.expect("stored");
    rig.broker.leave(link, 1000, Vec::new(), NOW);
    rig.settle().await;
    assert_eq!((rig.rows(), rig.broker.load().kept_sessions), (0, 0));
}

#[tokio::test]
async fn sessions_that_are_over_together_end_in_steps_and_are_removed_by_one_task() {
    const STEP: usize = 16;
    let rig = Rig::new();
    let count = 2 * STEP + 8;
    for number in 0..count {
        let link = rig.begin(&number.to_string());
        rig.subscribe(&link, "t", 1).await;
        rig.broker.leave(link, 1000, Vec::new(), NOW);
    }
    rig.publish("t", b"x", QoS::AtLeastOnce, false).await;
    rig.settle().await;
    assert!(rig.rows() >= 2 * count);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (before, over) = (tasks(), NOW.plus_seconds(1001));
    let mut left = count;
    while rig.broker.expire_sessions(over, STEP) {
        left -= STEP;
        assert_eq!(rig.broker.load().kept_sessions, left);
    }
    assert_eq!((left, rig.broker.load().kept_sessions), (8, 0));
    assert_eq!(tasks(), before + 1);
    while rig.broker.0.erasing.lock().goes_on {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(rig.rows(), 0);
}

/// So many sessions of others that have subscribed to so much each, and are over at the time returned.
fn over(rig: &Rig, sessions: usize, subscriptions: usize) -> Timestamp {
    for number in 0..sessions {
        let link = rig.begin(&format!("over-{number}"));
        for filter in 0..subscriptions {
            rig.granted(&link, &format!("t/{number}/{filter}"), 1);
        }
        rig.broker.leave(link, 1000, Vec::new(), NOW);
    }
    NOW.plus_seconds(1001)
}

#[tokio::test]
async fn few_sessions_with_many_subscriptions_are_a_step() {
    const EACH: usize = limits::ENDED_WORK_STEP / 4;
    let rig = Rig::new();
    let now = over(&rig, 10, EACH);
    for left in [6, 2] {
        assert!(rig.broker.expire_sessions(now, 16));
        assert_eq!(rig.held()[..2], [left, left * EACH as u64]);
    }
    assert!(!rig.broker.expire_sessions(now, 16));
    assert_eq!(rig.held()[..2], [0, 0]);
    // However much one has, it ends.
    let now = over(&rig, 2, 2 * limits::ENDED_WORK_STEP);
    assert!(rig.broker.expire_sessions(now, 16));
    assert_eq!(rig.held()[0], 1);
}

/// The login of another user, in another organisation.
fn stranger() -> (Owner, (OrgId, PrincipalId)) {
    let user = UserId::from_bytes([2; 12]);
    let owner = Owner { principal: Principal::User(user), client_id: "b".into() };
    (owner, (OrgId::from_bytes([2; 12]), PrincipalId::User(user)))
}

#[tokio::test]
async fn who_needs_room_has_it_from_others_that_are_over_and_ends_no_more_than_that() {
    let full = BrokerConfig { subscriptions_max: 1000, ..CONFIG };
    let rig = Rig::with(Arc::default(), &full);
    let now = over(&rig, 11, 72);
    let (owner, holder) = stranger();
    rig.broker.make_room(&owner, holder, "t", now);
    assert_eq!(rig.held()[0], 11, "there is room");
    let left = full.subscriptions_max - rig.held()[1];
    rig.broker.0.shares.subscriptions.lock().hold(holder.0, holder.1, left);
    rig.broker.make_room(&owner, holder, "t", NOW);
    assert_eq!(rig.held()[0], 11, "nothing is over");
    rig.broker.make_room(&owner, holder, "t", now);
    assert_eq!(rig.held()[0], 10);
    assert!(rig.broker.0.shares.has_room(holder, 1));
}

#[tokio::test]
async fn what_does_not_help_does_not_hold_up_the_others_for_long() {
    const EACH: usize = limits::ENDED_WORK_STEP / 4;
    let rig = Rig::new();
    let now = over(&rig, 10, EACH);
    let (owner, holder) = stranger();
    // What takes all of another pool is not over.
    rig.broker.0.shares.sessions.lock().hold(holder.0, holder.1, 2 * CONFIG.sessions_max as u64);
    rig.broker.make_room(&owner, holder, "t", now);
    assert_eq!(rig.broker.load().kept_sessions, 6);
}

#[tokio::test]
async fn a_login_that_has_its_hundred_ends_its_own() {
    let rig = Rig::new();
    let (owner, holder) = stranger();
    // Those of the others are over first.
    let now = over(&rig, 3, 1);
    let kept: Vec<_> = (0..limits::LOGIN_KEPT_SESSIONS_MAX)
        .map(|number| {
            let outbox = Arc::new(Outbox::new(true));
            let owner = Owner { client_id: number.to_string().into(), ..owner.clone() };
            let link = rig.broker.begin(&owner, (holder.0, IDENTITY), 1000, (&outbox, &|| true));
            link.expect("room")
        })
        .collect();
    rig.granted(&kept[5], "t", 1);
    rig.broker.leave(kept[5].clone(), 1000, Vec::new(), NOW.plus_seconds(2));
    let of_login = || rig.broker.kept_sessions_of(&owner.principal).len();
    rig.broker.make_room(&owner, holder, "t", now);
    assert_eq!((of_login(), rig.broker.load().kept_sessions), (100, 103), "none is over");
    rig.broker.make_room(&owner, holder, "t", now.plus_seconds(1));
    assert_eq!((of_login(), rig.broker.load().kept_sessions), (99, 102));
}

#[tokio::test]
async fn a_session_has_the_room_of_released_messages_again() {
    let rig = Rig::new();
    let mut link = rig.begin("a");
    rig.subscribe(&link, "t", 2).await;
    let payload = vec![0; limits::KEPT_BYTES_MAX / 3];
    for round in 0..5 {
        rig.publish("t", &payload, QoS::ExactlyOnce, false).await;
        let queued = rig.take(&link, 10).await;
        let [Queued::Delivery(delivery)] = &*queued else { panic!("{round}: {queued:?}") };
        let taken = rig.broker.taken(&link, delivery.seq, delivery.row_len());
        taken.expect("room").await.expect("stored");
        rig.broker.leave(link, 1000, Vec::new(), NOW);
        link = rig.resume("a").expect("kept");
        let queued = rig.take(&link, 10).await;
        let [Queued::Release(seq)] = &*queued else { panic!("{round}: {queued:?}") };
        rig.broker.acknowledged(&link, *seq, 1);
    }
}

#[tokio::test]
async fn an_acknowledgement_on_a_former_connection_takes_nothing_from_the_next() {
    let rig = Rig::new();
    let former = rig.begin("a");
    rig.subscribe(&former, "t", 1).await;
    for payload in [b"1", b"2"] {
        rig.publish("t", payload, QoS::AtLeastOnce, false).await;
    }
    assert_eq!(rig.take(&former, 10).await.len(), 2);
    let next = rig.resume("a").expect("kept");
    let queued = rig.take(&next, 10).await;
    let first = delivery(&queued[0]).expect("a message");
    for link in [&former, &next] {
        rig.broker.acknowledged(link, first.seq, first.row_len());
    }
    rig.broker.leave(next, 1000, Vec::new(), NOW);
    let last = rig.resume("a").expect("kept");
    assert_eq!(payloads(&rig.take(&last, 10).await), [b"2"]);
}

#[tokio::test]
async fn a_large_message_for_many_kept_sessions_is_stored_in_steps() {
    let rig = Arc::new(Rig::new());
    let links = rig.subscribers(60).await;
    let closed_gate = rig.close_gate();
    let mut before = Batch::default();
    before.put(Table::Meta, "before", "");
    drop(rig.broker.submit(before).expect("room"));
    let payload = vec![0; bounds::STORE_QUEUE_BYTES_MAX / 50];
    let publishing = tokio::spawn({
        let rig = rig.clone();
        async move { rig.publish("t", &payload, QoS::AtLeastOnce, false).await }
    });
    tokio::task::yield_now().await;
    drop(closed_gate);
    publishing.await.expect("published");
    for link in &links {
        assert_eq!(rig.take(link, 10).await.len(), 1);
    }
}

#[tokio::test]
async fn whoever_has_a_message_kept_gets_it_however_little_room_the_store_has_left() {
    const MEBIBYTE: usize = 1024 * 1024;
    let mut batch = Batch::default();
    batch.put(Table::Meta, "large", vec![0; MEBIBYTE]);
    let full = {
        let rig = Rig::new();
        let _closed_gate = rig.close_gate();
        (0..).find(|_| rig.broker.submit(batch.clone()).is_err()).expect("a bound")
    };
    for left in 0..9 {
        let rig = Arc::new(Rig::new());
        let links = rig.subscribers(4).await;
        let closed_gate = rig.close_gate();
        (left..full).for_each(|_| drop(rig.broker.submit(batch.clone()).expect("room")));
        let publishing = tokio::spawn({
            let rig = rig.clone();
            async move { rig.publish("t", &[0; MEBIBYTE], QoS::AtLeastOnce, true).await }
        });
        tokio::task::yield_now().await;
        drop(closed_gate);
        publishing.await.expect("published");
        for link in &links {
            assert_eq!(rig.take(link, 10).await.len(), 1, "{left}");
        }
    }
}

#[tokio::test]
async fn who_comes_while_the_store_is_behind_gets_what_waits() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    rig.broker.leave(link, 1000, Vec::new(), NOW);
    rig.publish("t", b"x", QoS::AtLeastOnce, false).await;
    let closed_gate = rig.close_gate();
    let mut batch = Batch::default();
    batch.put(Table::Meta, "a", "");
    while rig.broker.submit(batch.clone()).is_ok() {}
    let link = rig.resume("a").expect("kept");
    let mut queued = Vec::new();
    assert!(rig.broker.take(&link, (10, &|_| false), usize::MAX, &mut queued).stored);
    let mut reading = std::pin::pin!(rig.broker.load_more(link.clone()));
    tokio::select! {
        biased;
        _ = &mut reading => panic!("the store takes nothing"),
        () = tokio::time::sleep(bounds::STORE_ROOM_POLL) => {}
    }
    drop(closed_gate);
    reading.await.expect("read");
    assert_eq!(payloads(&rig.take(&link, 10).await), [b"x"]);
}

#[tokio::test]
async fn what_waits_comes_a_mebibyte_at_a_time() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    rig.broker.leave(link, 1000, Vec::new(), NOW);
    let payload = vec![0; limits::PAGE_BYTES / 2];
    for _ in 0..8 {
        rig.publish("t", &payload, QoS::AtLeastOnce, false).await;
    }
    let link = rig.resume("a").expect("kept");
    let mut pages = Vec::new();
    while rig.broker.take(&link, (100, &|_| false), usize::MAX, &mut Vec::new()).stored {
        rig.broker.load_more(link.clone()).await.expect("read");
        let mut queued = Vec::new();
        rig.broker.take(&link, (100, &|_| false), usize::MAX, &mut queued);
        pages.push(queued.len());
    }
    assert_eq!((pages.iter().sum::<usize>(), pages.iter().max()), (8, Some(&2)));
}

#[tokio::test]
async fn a_message_for_many_reaches_each_of_them_once() {
    let rig = Rig::new();
    let mut links = Vec::new();
    for number in 0..2 * limits::FAN_OUT_STEP + 10 {
        // Of one login there are a hundred at most.
        let principal = Principal::User(UserId::from_bytes([(number / 50) as u8; 12]));
        let owner = Owner { principal, client_id: number.to_string().into() };
        let (outbox, expiry_s) =
            (Arc::new(Outbox::new(true)), if number % 3 == 0 { 0 } else { 1000 });
        let begun = rig.broker.begin(&owner, (ORG, IDENTITY), expiry_s, (&outbox, &|| true));
        let link = begun.expect("room");
        rig.subscribe(&link, "t", (number % 2) as u8).await;
        if number % 5 == 0 {
            rig.subscribe(&link, "+", 1).await;
        }
        links.push(link);
    }
    for (payload, retain) in [(&b"1"[..], false), (b"2", true)] {
        rig.publish("t", payload, QoS::AtLeastOnce, retain).await;
        for (number, link) in links.iter().enumerate() {
            let queued = rig.take(link, 10).await;
            let got = queued.iter().filter_map(delivery).map(|d| (d.qos, d.message.payload()));
            let qos =
                if number % 2 == 1 || number % 5 == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            assert_eq!(got.collect::<Vec<_>>(), [(qos, payload)], "{number}");
            for seq in queued.iter().filter_map(delivery).map(|d| d.seq).filter(|seq| *seq > 0) {
                rig.broker.acknowledged(link, seq, 1);
            }
        }
    }
}

#[tokio::test]
async fn many_messages_of_a_group_go_to_another_member_with_who_leaves() {
    let rig = Rig::new();
    let (first, second) = (rig.begin("a"), rig.begin("b"));
    rig.subscribe(&first, "$share/g/t", 1).await;
    let count = 2 * limits::FAN_OUT_STEP + 1;
    for _ in 0..count {
        rig.publish("t", b"1", QoS::AtLeastOnce, false).await;
    }
    rig.subscribe(&second, "$share/g/t", 1).await;
    rig.broker.leave(first, 0, Vec::new(), NOW);
    let mut got = 0;
    while got < count {
        tokio::task::yield_now().await;
        rig.settle().await;
        got += rig.take(&second, count).await.len();
    }
    assert_eq!(got, count);
}

#[tokio::test]
async fn who_takes_another_qos_while_a_message_is_on_its_way_gets_it_once() {
    let rig = Rig::new();
    let mut links = Vec::new();
    for number in 0..2 * limits::FAN_OUT_STEP {
        // Of one login there are a hundred at most.
        let principal = Principal::User(UserId::from_bytes([(number / 50) as u8; 12]));
        let owner = Owner { principal, client_id: number.to_string().into() };
        let outbox = Arc::new(Outbox::new(true));
        let link = rig.broker.begin(&owner, (ORG, IDENTITY), 1000, (&outbox, &|| true));
        let link = link.expect("room");
        rig.subscribe(&link, "t", (number % 2) as u8).await;
        links.push(link);
    }
    let properties = PublishProperties::default();
    let message = Message::new("t", b"1", (QoS::AtLeastOnce, false), &properties, NOW);
    let begun = rig.broker.publish(ORG, message, BY, Batch::default());
    let Some(Ok(FanOut::More(publishing))) = begun else { panic!("there are many") };
    // The first page has gone to those that do not have it kept.
    assert_eq!(rig.take(&links[0], 10).await.len(), 1);
    rig.subscribe(&links[0], "t", 1).await;
    publishing.finish(bounds::WITHHELD_WAIT).await.expect("stored");
    assert_eq!(rig.take(&links[0], 10).await.len(), 0);
    for link in links.iter().skip(1) {
        assert_eq!(rig.take(link, 10).await.len(), 1);
    }
}

#[tokio::test]
async fn a_filter_has_a_thousand_groups() {
    let rig = Rig::new();
    let link = rig.begin("a");
    for number in 0..limits::GROUPS_MAX {
        rig.subscribe(&link, &format!("$share/{number}/t"), 0).await;
    }
    let like = link.session.with_subscriptions(|held| held[0].clone());
    let subscribe = |filter: &str| {
        let subscription = Subscription { filter: filter.into(), ..like.clone() };
        rig.broker.subscribe(&link.session, subscription)
    };
    assert_eq!(subscribe("$share/one more/t"), Err(Refusal::Groups));
    assert_eq!(subscribe("$share/7/t"), Ok(false));
    assert_eq!(subscribe("$share/one more/u"), Ok(true));
}

#[tokio::test]
async fn of_retained_messages_only_some_are_read_at_once() {
    let rig = Rig::new();
    let names: Vec<_> = (0..5).map(|number| format!("r/{number}")).collect();
    let link = rig.begin("a");
    for name in &names {
        rig.publish(name, &[b'x'; 30_000], QoS::AtMostOnce, true).await;
        rig.subscribe(&link, name, 0).await;
    }
    let held = link.session.with_subscriptions(<[_]>::to_vec);
    let (mut at_once, mut later) = (RETAINED_AT_ONCE_BYTES, Vec::new());
    for subscription in &held {
        let replay = rig.broker.replay(&link.session, subscription, &mut at_once, NOW);
        later.extend(replay.expect("read"));
    }
    assert_eq!((at_once, later.len(), rig.take(&link, 0).await.len()), (0, 2, 3));
    for replay in later {
        assert!(rig.broker.replay_page(&link.session, replay, NOW).expect("read").is_none());
    }
    assert_eq!(rig.take(&link, 0).await.len(), 2);
}

#[tokio::test]
async fn no_retained_message_comes_behind_the_one_that_took_its_place() {
    let rig = Rig::new();
    for number in 0..2 * limits::PAGE_ROWS {
        rig.publish(&format!("r/{number:03}"), b"old", QoS::AtMostOnce, true).await;
    }
    let last = format!("r/{:03}", 2 * limits::PAGE_ROWS - 1);
    let link = rig.begin("a");
    rig.subscribe(&link, "r/+", 0).await;
    let subscription = link.session.with_subscriptions(|held| held[0].clone());
    let replay = rig.broker.replay(&link.session, &subscription, &mut 1, NOW).expect("read");
    let replay = replay.expect("wildcards");
    rig.broker.before_replay(&replay).await.expect("room");
    let rest = rig.broker.replay_page(&link.session, replay, NOW).expect("read");
    let closed_gate = rig.close_gate();
    let properties = PublishProperties::default();
    let message = Message::new(&last, b"new", (QoS::AtMostOnce, true), &properties, NOW);
    let published = rig.broker.publish(ORG, message, BY, Batch::default());
    let rest = rest.expect("another page");
    rig.broker.replay_page(&link.session, rest, NOW).expect("read");
    drop(closed_gate);
    let queued = rig.take(&link, 0).await;
    let mut of_last = queued.iter().filter_map(delivery).filter(|d| d.message.topic() == last);
    assert_eq!(of_last.next_back().map(|d| d.message.payload()), Some(&b"new"[..]));
    drop(published);
}

#[tokio::test]
async fn who_was_taken_over_takes_nothing_from_its_successor() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    let outbox = Arc::new(Outbox::new(true));
    let former = (&outbox, &(|| false) as &dyn Fn() -> bool);
    let place = (ORG, IDENTITY);
    assert_eq!(rig.broker.begin(&owner("a"), place, 10, former).err(), Some(Refusal::Gone));
    assert!(rig.broker.resume(&owner("a"), place, 10, former, NOW).is_none());
    rig.broker.forget(&owner("a"), &|| false);
    assert!(rig.broker.has(&link));
}

#[tokio::test]
async fn what_waited_for_a_former_connection_is_not_dropped_while_all_sessions_wait() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    for _ in 0..3 {
        rig.publish("t", b"x", QoS::AtLeastOnce, false).await;
    }
    // As with the lock of all kept sessions held: it is the caller who drops them.
    let unsent = link.session.attach(Arc::new(Outbox::new(true)), link.epoch + 1);
    assert_eq!(payloads(&Vec::from(unsent)), [b"x"; 3]);
    // The next connection gets them from the store.
    let again = rig.resume("a").expect("it is kept");
    assert_eq!(payloads(&rig.take(&again, 10).await), [b"x"; 3]);
}

#[tokio::test]
async fn what_came_last_of_an_organisation_that_is_gone_is_forgotten_too() {
    let rig = Rig::new();
    let closed_gate = rig.close_gate();
    let properties = PublishProperties::default();
    let message = Message::new("r", b"x", (QoS::AtMostOnce, true), &properties, NOW);
    drop(rig.broker.publish(ORG, message, BY, Batch::default()));
    rig.broker.forget_retained(ORG).expect("removed");
    assert_eq!(rig.broker.load().retained, 1, "it is not committed");
    drop(closed_gate);
    while rig.broker.load().retained > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_is_above_the_share_keeps_what_waits_and_gets_no_more() {
    let config = BrokerConfig { waiting_bytes_max: 64 * 4096, ..CONFIG };
    let rig = Rig::with(Arc::default(), &config);
    let kept = |name: &str, user: u8| {
        let principal = Principal::User(UserId::from_bytes([user; 12]));
        let owner = Owner { principal, client_id: name.into() };
        let outbox = Arc::new(Outbox::new(true));
        rig.broker.begin(&owner, (ORG, IDENTITY), 1000, (&outbox, &|| true)).expect("room")
    };
    let (greedy, other) = (kept("greedy", 1), kept("other", 2));
    rig.subscribe(&greedy, "greedy", 1).await;
    rig.subscribe(&other, "other", 1).await;
    rig.broker.leave(greedy.clone(), 1000, Vec::new(), NOW);
    rig.broker.leave(other.clone(), 1000, Vec::new(), NOW);
    let payload = vec![0; 4096 - 128];
    for _ in 0..80 {
        rig.publish("greedy", &payload, QoS::AtLeastOnce, false).await;
    }
    let dropped = rig.broker.load().dropped;
    assert!((20..40).contains(&dropped), "{dropped}");
    rig.publish("other", &payload, QoS::AtLeastOnce, false).await;
    assert_eq!(rig.broker.load().dropped, dropped, "the other one has room");
    // After a restart it is as before, and what goes is room again.
    let held = rig.held();
    rig.settle().await;
    let rig = Rig::with(rig.store, &config);
    assert_eq!(rig.held(), held);
    let link = rig.resume("greedy").expect("kept");
    let queued = rig.take(&link, usize::MAX).await;
    assert_eq!(queued.len() as u64, 80 - dropped);
    for delivery in queued.iter().filter_map(delivery) {
        rig.broker.acknowledged(&link, delivery.seq, delivery.row_len());
    }
    assert_eq!(rig.held(), [2, 2, 4096]);
    rig.publish("greedy", &payload, QoS::AtLeastOnce, false).await;
    assert_eq!(rig.broker.load().dropped, 0);
}

#[tokio::test]
async fn retained_messages_of_an_organisation_that_is_gone_are_counted_once() {
    let rig = Rig::new();
    for number in 0..1200 {
        rig.publish(&format!("r/{number}"), b"x", QoS::AtMostOnce, true).await;
    }
    let other = OrgId::from_bytes([2; 12]);
    let properties = PublishProperties::default();
    let message = Message::new("r", b"x", (QoS::AtMostOnce, true), &properties, NOW);
    drop(rig.broker.publish(other, message, BY, Batch::default()));
    rig.settle().await;
    let closed_gate = rig.close_gate();
    rig.broker.forget_retained(ORG).expect("removed");
    assert_eq!(rig.broker.load().retained, 1);
    drop(closed_gate);
}

#[tokio::test]
async fn an_id_that_came_round_waits_for_its_acknowledgement() {
    let rig = Rig::new();
    let link = rig.begin("a");
    rig.subscribe(&link, "t", 1).await;
    for payload in [b"1", b"2"] {
        rig.publish("t", payload, QoS::AtLeastOnce, false).await;
    }
    let mut queued = Vec::new();
    for (used, expected) in [(2, 1), (2, 1), (1, 2)] {
        let taken = rig.broker.take(&link, (10, &|pkid| pkid == used), usize::MAX, &mut queued);
        assert!(!taken.gone && queued.len() == expected);
        assert_eq!(link.session.is_ready(), expected == 1);
    }
}

#[tokio::test]
async fn an_id_of_a_refused_message_is_free_and_one_that_is_released_waits_while_the_store_is_full()
{
    let rig = Rig::new();
    let link = rig.begin("a");
    let mut batch = Batch::default();
    for pkid in [1, 2] {
        rig.broker.receive(&link.session, pkid, &mut batch);
    }
    rig.broker.submit(batch).expect("room").await.expect("stored");
    let gate = rig.close_gate();
    let mut last = None;
    for bytes in [bounds::STORE_QUEUE_BYTES_MAX / 64, 1] {
        let mut batch = Batch::default();
        batch.put(Table::Meta, "large", vec![0; bytes]);
        while let Ok(receipt) = rig.broker.submit(batch.clone()) {
            last = Some(receipt);
        }
    }
    assert!(matches!(rig.broker.release(&link.session, 1), Err(StoreError::Busy(_))));
    assert_eq!(rig.broker.received(&link.session), [1, 2], "nothing has changed");
    drop(rig.broker.give_back(&link.session, 2));
    assert_eq!(rig.broker.received(&link.session), [1]);
    drop(gate);
    last.expect("room for some").await.expect("stored");
    rig.broker.release(&link.session, 1).expect("room").await.expect("stored");
    assert!(rig.broker.received(&link.session).is_empty());
}
