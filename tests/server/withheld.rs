//! Acknowledgements are honest: a client before MQTT 5, which learns nothing else, gets one for what
//! was carried out and for what never can be, and waits for what can be later.

use client::Version::{V5, V311};
use support::http::metrics;
use support::mqtt::{ALL, Connect, PING, Wire, frame};
use support::{Endpoints, TestServer, call};

const QUOTA_EXCEEDED: u8 = 0x97;

/// Commands of a session in a second; a test publishes more.
const RATE: usize = 20;

fn server() -> TestServer {
    TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "20")])
}

/// Three times as many publishes as a second has room for, in one piece.
fn burst(wire: &Wire, qos: u8) -> Vec<u8> {
    let publish = |count: usize| {
        let pkid = if qos == 0 { 0 } else { count as u16 };
        wire.publish(qos << 1, pkid, "thing/self/property/count", count.to_string())
    };
    (1..=3 * RATE).flat_map(publish).collect()
}

/// How many values the thing's property has had.
async fn stored(server: &Endpoints, thing: &str) -> usize {
    let mut operator = server.operator("http").await;
    let params = format!(r#"{{"thingKey":"{thing}","key":"count","last":"1h","records":1000}}"#);
    let history = call(&mut operator, "property.history", &params).await;
    history["values"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn what_is_over_the_rate_is_acknowledged_when_it_is_done() {
    let server = server();
    for version in ALL.into_iter().filter(|version| *version != V5) {
        for qos in [1, 2] {
            let key = format!("{version:?}-{qos}");
            let mut wire = Connect::thing(version, &key).open(&server).await;
            wire.send(&burst(&wire, qos)).await;
            // Who waits for acknowledgements before it sends more is still told that it is heard.
            wire.send(PING).await;
            let (mut acks, mut completed, mut behind) = (0, 0, None);
            while acks < 3 * RATE || (qos == 2 && completed < 3 * RATE) {
                let answer = wire.frame().await.expect("an acknowledgement");
                match answer[0] {
                    0xd0 => assert_eq!(behind.replace(acks), None, "one answer"),
                    0x70 => completed += 1,
                    kind => {
                        acks += 1;
                        assert_eq!((kind, answer[3]), (0x30 + 0x10 * qos, acks as u8), "{key}");
                    }
                }
                if answer[0] == 0x50 {
                    wire.send(&frame(0x62, &[&answer[2..4]])).await;
                }
            }
            assert!(behind.is_some_and(|behind| behind < 3 * RATE), "{behind:?}");
            assert_eq!(stored(&server, &key).await, 3 * RATE, "{key}");
        }
    }
    let counted = metrics(&server).await;
    assert!(!counted.contains("tr50d_mqtt_publishes_withheld_total 0"), "{counted}");
    let refused = r#"tr50d_mqtt_publishes_refused_total{qos="1""#;
    let mut refused = counted.lines().filter(|line| line.starts_with(refused));
    assert!(refused.all(|line| line.ends_with(" 0")), "{counted}");
}

#[tokio::test]
async fn mqtt_5_says_what_is_over_the_rate() {
    let server = server();
    let mut wire = Connect::thing(V5, "five").open(&server).await;
    wire.send(&burst(&wire, 1)).await;
    let mut done = 0;
    for count in 1..=3 * RATE {
        let ack = wire.frame().await.expect("an acknowledgement");
        assert_eq!((ack[0], ack[3]), (0x40, count as u8));
        match ack.get(4).copied().unwrap_or(0) {
            0 => done += 1,
            code => assert_eq!(code, QUOTA_EXCEEDED),
        }
    }
    assert!((RATE..3 * RATE).contains(&done), "{done}");
    assert_eq!(stored(&server, "five").await, done);
}

#[tokio::test]
async fn what_is_dropped_without_a_word_is_counted() {
    let server = server();
    let mut wire = Connect::thing(V311, "zero").open(&server).await;
    wire.send(&burst(&wire, 0)).await;
    wire.send(&wire.publish(0, 0, "thing/zero/location", "1")).await;
    wire.send(PING).await;
    wire.expect(&[0xd0, 0]).await;
    let done = stored(&server, "zero").await;
    let counted = metrics(&server).await;
    let count = |reason: &str| -> usize {
        let start = format!(r#"tr50d_mqtt_publishes_refused_total{{qos="0",reason="{reason}"}} "#);
        let line = counted.lines().find_map(|line| line.strip_prefix(start.as_str()));
        line.map_or(0, |count| count.parse().expect("a number"))
    };
    assert!(done < 3 * RATE);
    assert_eq!((count("rate"), count("not_authorized")), (3 * RATE - done, 1), "{counted}");
}

#[tokio::test]
async fn what_can_never_succeed_is_acknowledged_at_once() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V311, "never").open(&server).await;
    for (count, (topic, payload)) in [
        ("thing/self/property/count", "warm"),
        ("thing/unknown/property/count", "1"),
        ("thing/self/location", "1"),
    ]
    .into_iter()
    .enumerate()
    {
        wire.send(&wire.publish(2, count as u16 + 1, topic, payload)).await;
        wire.expect(&[0x40, 2, 0, count as u8 + 1]).await;
    }
    let counted = metrics(&server).await;
    for reason in ["payload", "topic", "not_authorized"] {
        let line = format!(r#"tr50d_mqtt_publishes_refused_total{{qos="1",reason="{reason}"}} 1"#);
        assert!(counted.contains(&line), "{counted}");
    }
}

#[tokio::test]
async fn who_is_thrown_out_while_waiting_has_nothing_more_done() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "1")]);
    let mut wire = Connect::thing(V311, "out").open(&server).await;
    wire.send(&burst(&wire, 1)).await;
    wire.expect(&[0x40, 2, 0, 1]).await;
    // It has a login of its own, and so a second of its own.
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.delete", r#"{"key":"out"}"#).await;
    let mut more = 0;
    while wire.frame().await.is_some() {
        more += 1;
    }
    assert!(more < 3 * RATE - 1, "{more}");
}
