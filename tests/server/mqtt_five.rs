//! What only MQTT 5 has: properties, reason codes, request and response.

use std::time::Duration;

use client::Version::{V5, V311};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::Value;
use support::mqtt::{ASK, Connect, DISCONNECT, DONE, Wire, frame, text};
use support::{Endpoints, SOON, TOKEN, TestServer, call, end_reason, eventually, sessions};

const PERMISSION_DENIED: i64 = -95006;
const REPLY_TOO_LARGE: i64 = -95013;
/// Subscription options.
const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const IF_NEW: u8 = 0x10;
const NEVER: u8 = 0x20;

async fn thing(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V5, key).open(server).await
}

/// A property that is a text or binary data.
fn property(id: u8, value: &str) -> Vec<u8> {
    [&[id], &*text(value)].concat()
}

fn response_topic(topic: &str) -> Vec<u8> {
    property(0x08, topic)
}

fn correlation(data: &str) -> Vec<u8> {
    property(0x09, data)
}

fn error_code(payload: &[u8]) -> i64 {
    let reply: Value = serde_json::from_slice(payload).expect("JSON");
    reply["errorCodes"][0].as_i64().expect("a failure of the whole request")
}

#[tokio::test]
async fn connack_says_what_the_server_takes() {
    let server = TestServer::start();
    let wire = thing(&server, "mower").await;
    let packet_max = [0x27, 0, 0x10, 0, 0];
    assert!(wire.connack.windows(5).any(|bytes| bytes == packet_max), "{:x?}", wire.connack);
    // Two without a client id get one each.
    let mut ids = Vec::new();
    for _ in 0..2 {
        let wire = Connect::thing(V5, "mower").id("").open(&server).await;
        let at =
            wire.connack.windows(8).position(|bytes| bytes == b"\x12\0\x1dauto-").expect("an id");
        ids.push(wire.connack[at + 3..at + 32].to_vec());
    }
    assert_ne!(ids[0], ids[1]);
    // No authentication but name and password.
    let mut wire = Wire::open(&server, V5).await;
    let method = Connect::thing(V5, "mower").properties(&property(0x15, "SCRAM-SHA-1"));
    wire.send(&method.frame()).await;
    wire.expect(&[0x20, 3, 0, 0x8c, 0]).await;
    wire.expect_end().await;
}

#[tokio::test]
async fn messages_with_qos_2_that_are_not_released_are_as_many_as_connack_says() {
    let server = TestServer::start();
    let mut wire = thing(&server, "hoarder").await;
    let at = wire.connack.windows(1).position(|id| id == [0x21]).expect("a receive maximum");
    let most = u16::from_be_bytes([wire.connack[at + 1], wire.connack[at + 2]]);
    for pkid in 1..=most {
        wire.send(&wire.publish(4, pkid, "hoard", "x")).await;
        let [high, low] = pkid.to_be_bytes();
        wire.expect(&[0x50, 2, high, low]).await;
    }
    wire.expect_quiet().await;
    wire.send(&wire.publish(4, most + 1, "hoard", "x")).await;
    wire.expect(&[0xe0, 1, 0x93]).await;
    wire.expect_end().await;
}

#[tokio::test]
async fn responses_go_where_the_asker_wants_them() {
    let server = TestServer::start();
    let mut wire = thing(&server, "asker").await;
    let mut other = thing(&server, "other").await;
    assert_eq!(wire.subscribe("my/answers", 1).await, 1);
    assert_eq!(other.subscribe("my/#", 1).await, 1);
    let cases: [(&[u8], &str, &[u8]); 4] = [
        (&correlation("c-1"), "reply/7", &correlation("c-1")),
        (&response_topic("reply/else"), "reply/else", b""),
        (
            &[response_topic("my/answers"), correlation("\0\u{7f}")].concat(),
            "my/answers",
            &correlation("\0\u{7f}"),
        ),
        (&correlation(""), "reply/7", &correlation("")),
    ];
    for (properties, topic, expected) in cases {
        wire.send(&wire.publish_with(2, 5, "api/7", properties, ASK)).await;
        wire.expect(&[0x40, 2, 0, 5]).await;
        let reply = wire.message().await;
        assert_eq!((reply.texts(), &*reply.properties), ((topic, DONE), expected));
        if topic.starts_with("my/") {
            let reply = other.message().await;
            assert_eq!((reply.texts(), &*reply.properties), ((topic, DONE), expected));
        }
        wire.expect_quiet().await;
        other.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_response_topic_stays_inside_what_the_caller_may_publish_to() {
    let server = TestServer::start();
    let mut wire = thing(&server, "asker").await;
    let count = r#"{"1":{"command":"session.info"}}"#;
    for topic in
        ["api", "api/7", "apiz/7", "notify/mailbox_activity", "notify", "$SYS/x", "$share/a/b"]
    {
        let properties = [response_topic(topic), correlation("c")].concat();
        wire.send(&wire.publish_with(0, 0, "api/7", &properties, count)).await;
        let reply = wire.message().await;
        assert_eq!((&*reply.topic, reply.properties), ("reply/7", correlation("c")), "{topic}");
        assert_eq!(error_code(&reply.payload), PERMISSION_DENIED, "{topic}");
    }
    // None of them was executed.
    wire.send(&wire.publish(0, 0, "api/7", count)).await;
    let reply: Value = serde_json::from_slice(&wire.message().await.payload).expect("JSON");
    assert_eq!(reply["1"]["params"]["commandCount"], 1);
    // What is no topic at all is a protocol error.
    for topic in ["a/#", "+", ""] {
        let mut wire = thing(&server, "asker").await;
        wire.send(&wire.publish_with(0, 0, "api/7", &response_topic(topic), ASK)).await;
        wire.expect(&[0xe0, 1, 0x82]).await;
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn responses_never_leave_the_organisation() {
    let server = TestServer::start();
    let york = Connect::login(V5, "york", "york", "demo-token-yorkorg");
    let mut york = york.open(&server).await;
    assert_eq!(york.subscribe("#", 1).await, 1);
    let mut basic = thing(&server, "basic").await;
    assert_eq!(basic.subscribe("answers", 1).await, 1);
    basic.send(&basic.publish_with(0, 0, "api", &response_topic("answers"), ASK)).await;
    assert_eq!(basic.message().await.texts(), ("answers", DONE));
    york.tell("answers", "of york").await;
    assert_eq!(york.message().await.texts(), ("answers", "of york"));
    york.expect_quiet().await;
    basic.expect_quiet().await;
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let server = TestServer::start();
    let mut wire = thing(&server, "curious").await;
    for (filter, code) in [
        ("api", 0x80),
        ("api/#", 0x80),
        ("apiz/+", 0x80),
        ("$SYS/#", 0x80),
        ("$internal", 0x80),
        ("$share/g/$SYS/#", 0x80),
        ("$share/g/api/#", 0x80),
        ("$share/g/reply/#", 0x80),
        ("a/#/b", 0x8f),
        ("a+", 0x8f),
        ("$share/g", 0x8f),
        ("$share//a", 0x8f),
        ("plant/#", 0x02),
        ("notify/#", 0x01),
    ] {
        assert_eq!(wire.subscribe(filter, 2).await, code, "{filter:?}");
    }
    for (topic, code) in [("reply/1", 0x87), ("notify/x", 0x87), ("$SYS/x", 0x87), ("replyz", 0x87)]
    {
        wire.send(&wire.publish(2, 5, topic, "x")).await;
        wire.expect(&[0x40, 3, 0, 5, code]).await;
        wire.send(&wire.publish(4, 6, topic, "x")).await;
        wire.expect(&[0x50, 3, 0, 6, code]).await;
        // A refused id is free at once.
        wire.send(&wire.publish(4, 6, "ok", "x")).await;
        wire.expect(&[0x50, 2, 0, 6]).await;
        wire.send(&[0x62, 2, 0, 6]).await;
        wire.expect(&[0x70, 2, 0, 6]).await;
        wire.send(&wire.publish(0, 0, topic, "x")).await;
        wire.expect_quiet().await;
    }
    wire.send(&frame(0xa2, &[&[0, 9, 0], &text("plant/#"), &text("plant/#")])).await;
    wire.expect(&[0xb0, 5, 0, 9, 0, 0, 0x11]).await;
}

#[tokio::test]
async fn rules_of_the_protocol_are_kept() {
    let server = TestServer::start();
    let publish = |properties: &[u8]| {
        let length = [properties.len() as u8];
        frame(0x30, &[&text("a"), &length, properties, b"x"])
    };
    let cases: [(&str, Vec<u8>, u8); 10] = [
        ("a topic alias above those that were offered", publish(b"\x23\0\x11"), 0x94),
        ("a topic alias that was not set", b"\x30\x06\0\0\x03\x23\0\x01".to_vec(), 0x82),
        ("a filter of no length", b"\x82\x06\0\x01\0\0\0\0".to_vec(), 0x82),
        ("topic alias 0", publish(b"\x23\0\0"), 0x94),
        ("a subscription identifier from a client", publish(b"\x0b\x05"), 0x82),
        ("a property of another packet", publish(b"\x11\0\0\0\x01"), 0x81),
        ("a property twice", publish(b"\x01\x01\x01\x01"), 0x82),
        ("subscription identifier 0", b"\x82\x08\0\x01\x02\x0b\0\0\x01a\0".to_vec(), 0x82),
        ("No Local on a share", frame(0x82, &[b"\0\x01\0", &text("$share/g/a"), b"\x04"]), 0x82),
        ("an expiry where none was", b"\xe0\x07\0\x05\x11\0\0\0\x3c".to_vec(), 0x82),
    ];
    for (what, bytes, code) in cases {
        let mut wire = thing(&server, "rough").await;
        wire.send(&bytes).await;
        assert_eq!(wire.frame().await, Some(vec![0xe0, 1, code]), "{what}");
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn properties_travel_with_a_message() {
    let server = TestServer::start();
    let mut old = Connect::thing(V311, "old").open(&server).await;
    let mut reader = thing(&server, "reader").await;
    let mut writer = thing(&server, "writer").await;
    assert_eq!(old.subscribe("plant/#", 1).await, 1);
    assert_eq!(reader.subscribe_with("plant/#", 1, &[0x0b, 0x85, 0x02]).await, 1);
    let user = |name: &str, value: &str| [&[0x26], &*text(name), &*text(value)].concat();
    let properties = [
        vec![0x01, 1],
        property(0x03, "text/plain"),
        response_topic("answers"),
        correlation("c"),
        user("a", "1"),
        user("a", "2"),
    ]
    .concat();
    writer.send(&writer.publish_with(2, 5, "plant/7", &properties, "21.5")).await;
    writer.expect(&[0x40, 2, 0, 5]).await;
    let message = reader.message().await;
    assert_eq!(message.texts(), ("plant/7", "21.5"));
    // And the identifier of the subscription.
    assert_eq!(message.properties, [properties, vec![0x0b, 0x85, 0x02]].concat());
    assert_eq!(old.message().await.texts(), ("plant/7", "21.5"));
}

#[tokio::test]
async fn replies_carry_the_identifiers_of_the_subscriptions_that_they_fall_under() {
    let server = TestServer::start();
    let mut wire = thing(&server, "asker").await;
    let ask = async |wire: &mut Wire| {
        wire.send(&wire.publish(0, 0, "api/1", ASK)).await;
        let reply = wire.message().await;
        assert_eq!(reply.texts(), ("reply/1", DONE));
        wire.expect_quiet().await;
        reply.properties
    };
    assert_eq!(wire.subscribe_with("replyz/#", 0, &[0x0b, 9]).await, 0);
    assert_eq!(ask(&mut wire).await, b"");
    assert_eq!(wire.subscribe_with("reply/#", 0, &[0x0b, 7]).await, 0);
    assert_eq!(ask(&mut wire).await, [0x0b, 7]);
    assert_eq!(wire.subscribe("reply/+", 0).await, 0);
    assert_eq!(wire.subscribe_with("#", 0, &[0x0b, 8]).await, 0);
    assert_eq!(ask(&mut wire).await, [0x0b, 7, 0x0b, 8]);
}

#[tokio::test]
async fn subscription_options_are_kept() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    writer.retain("kept/1", "old").await;
    let mut wire = thing(&server, "reader").await;
    // No Local.
    assert_eq!(wire.subscribe("own", 1 | NO_LOCAL).await, 1);
    wire.tell("own", "mine").await;
    writer.tell("own", "theirs").await;
    assert_eq!(wire.message().await.texts(), ("own", "theirs"));
    // Retain handling.
    assert_eq!(wire.subscribe("kept/#", 1 | IF_NEW).await, 1);
    let message = wire.message().await;
    assert_eq!((message.texts(), message.retain), (("kept/1", "old"), true));
    assert_eq!(wire.subscribe("kept/#", 1 | IF_NEW).await, 1);
    writer.tell("kept/2", "not kept").await;
    assert_eq!(wire.message().await.texts(), ("kept/2", "not kept"));
    assert_eq!(wire.subscribe("kept/1", 1 | NEVER).await, 1);
    writer.tell("kept/2", "again").await;
    assert_eq!(wire.message().await.texts(), ("kept/2", "again"));
    wire.unsubscribe("kept/1").await;
    // Retain as published, or not.
    writer.retain("kept/1", "new").await;
    let message = wire.message().await;
    assert_eq!((message.texts(), message.retain), (("kept/1", "new"), false));
    assert_eq!(wire.subscribe("kept/#", 1 | NEVER | RETAIN_AS_PUBLISHED).await, 1);
    writer.retain("kept/1", "newer").await;
    let message = wire.message().await;
    assert_eq!((message.texts(), message.retain), (("kept/1", "newer"), true));
    wire.expect_quiet().await;
}

#[tokio::test]
async fn a_message_is_not_delivered_after_its_time() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let expiring = |seconds: u8| [0x02, 0, 0, 0, seconds];
    writer.send(&writer.publish_with(3, 5, "news/today", &expiring(1), "old")).await;
    writer.expect(&[0x40, 2, 0, 5]).await;
    writer.send(&writer.publish_with(3, 5, "news/week", &expiring(200), "new")).await;
    writer.expect(&[0x40, 2, 0, 5]).await;
    eventually("the message expires", async || {
        let mut reader = thing(&server, "reader").await;
        assert_eq!(reader.subscribe("news/today", 1).await, 1);
        writer.tell("news/today", "live").await;
        reader.message().await.texts().1 == "live"
    })
    .await;
    // What is delivered says how much time is left.
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("news/#", 1).await, 1);
    let message = reader.message().await;
    assert_eq!(message.texts(), ("news/week", "new"));
    assert!((100..200).contains(&message.properties[4]), "{:?}", message.properties);
}

#[tokio::test]
async fn a_client_gets_no_packet_that_is_larger_than_it_takes() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let small = Connect::thing(V5, "small").properties(&[0x27, 0, 0, 1, 0]);
    let mut small = small.open(&server).await;
    assert_eq!(small.subscribe("news", 1).await, 1);
    writer.tell("news", &"x".repeat(300)).await;
    writer.tell("news", "short").await;
    assert_eq!(small.message().await.texts(), ("news", "short"));
    let echo = |length| {
        let text = "x".repeat(length);
        format!(r#"{{"1":{{"command":"diag.echo","params":{{"text":"{text}"}}}}}}"#)
    };
    small.send(&small.publish(0, 0, "api/1", echo(10))).await;
    assert!(small.message().await.texts().1.contains(r#""text":"xxxxxxxxxx""#));
    small.send(&small.publish(0, 0, "api/2", echo(300))).await;
    let reply = small.message().await;
    assert_eq!((&*reply.topic, error_code(&reply.payload)), ("reply/2", REPLY_TOO_LARGE));
    // One that is too small for that, too, gets nothing.
    let tiny = Connect::thing(V5, "tiny").properties(&[0x27, 0, 0, 0, 40]);
    let mut tiny = tiny.open(&server).await;
    tiny.send(&tiny.publish(0, 0, "api/2", echo(300))).await;
    tiny.expect_quiet().await;
    tiny.send(&tiny.publish(0, 0, "api/3", ASK)).await;
    assert_eq!(tiny.message().await.texts(), ("reply/3", DONE));
}

#[tokio::test]
async fn a_client_gets_no_more_at_once_than_it_takes() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let mut reader = Connect::thing(V5, "reader").properties(&[0x21, 0, 2]).open(&server).await;
    assert_eq!(reader.subscribe("news", 1).await, 1);
    assert_eq!(reader.subscribe("reply/#", 1).await, 1);
    for number in 0..4 {
        writer.tell("news", &number.to_string()).await;
    }
    let first = reader.unacknowledged().await;
    let second = reader.unacknowledged().await;
    assert_eq!((first.texts(), second.texts()), (("news", "0"), ("news", "1")));
    reader.expect_quiet().await;
    // A reply with QoS 1 waits as well, one with QoS 0 does not.
    reader.send(&reader.publish(2, 3, "api/1", ASK)).await;
    reader.expect(&[0x40, 2, 0, 3]).await;
    reader.expect_quiet().await;
    reader.send(&reader.publish(0, 0, "api/2", ASK)).await;
    assert_eq!(reader.message().await.texts(), ("reply/2", DONE));
    // Out of order, and an id that nobody uses.
    reader.acknowledge(second.pkid).await;
    reader.acknowledge(999).await;
    let third = reader.unacknowledged().await;
    reader.expect_quiet().await;
    reader.acknowledge(first.pkid).await;
    let fourth = reader.unacknowledged().await;
    reader.expect_quiet().await;
    reader.acknowledge(third.pkid).await;
    let fifth = reader.unacknowledged().await;
    reader.acknowledge(fourth.pkid).await;
    reader.acknowledge(fifth.pkid).await;
    let mut texts = [third.texts(), fourth.texts(), fifth.texts()];
    texts.sort_unstable();
    assert_eq!(texts, [("news", "2"), ("news", "3"), ("reply/1", DONE)]);
    reader.expect_quiet().await;
}

#[tokio::test]
async fn a_state_outlives_its_connection_as_long_as_the_client_wants() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let present = |wire: &Wire| wire.connack[2] == 1;
    let connect = Connect::thing(V5, "reader").resuming();
    let mut reader = connect.open(&server).await;
    assert!(!present(&reader));
    assert_eq!(reader.subscribe_with("news", 1, &[0x0b, 7]).await, 1);
    reader.send(DISCONNECT).await;
    reader.expect_end().await;
    writer.tell("news", "missed").await;
    // Back: with its subscriptions, their identifiers, and what it missed.
    let mut reader = connect.open(&server).await;
    assert!(present(&reader));
    let message = reader.message().await;
    assert_eq!((message.texts(), &*message.properties), (("news", "missed"), &[0x0b, 7][..]));
    // Expiry 0 with DISCONNECT: it is over.
    reader.send(b"\xe0\x07\0\x05\x11\0\0\0\0").await;
    reader.expect_end().await;
    writer.tell("news", "missed again").await;
    let mut reader = connect.open(&server).await;
    assert!(!present(&reader));
    assert_eq!(reader.subscribe("news", 1).await, 1);
    writer.tell("news", "live").await;
    assert_eq!(reader.message().await.texts(), ("news", "live"));
    // Clean start: what was is gone.
    drop(reader);
    let mut anew = connect.clone();
    anew.clean = true;
    let mut reader = anew.open(&server).await;
    assert!(!present(&reader));
    writer.tell("news", "not subscribed").await;
    assert_eq!(reader.subscribe("marker", 1).await, 1);
    writer.tell("marker", "").await;
    assert_eq!(reader.message().await.texts(), ("marker", ""));
    // Another login with the same client id has a state of its own.
    let other =
        Connect { client_id: "reader".to_owned(), ..Connect::thing(V5, "other").resuming() };
    assert!(!present(&other.open(&server).await));
}

#[tokio::test]
async fn a_will_comes_when_the_client_is_lost_or_says_so() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/#", 1 | RETAIN_AS_PUBLISHED).await, 1);
    let mortal = |payload| Connect::thing(V5, "mortal").will("wills/mortal", payload);
    // Not with an ordinary DISCONNECT.
    let mut wire = mortal("never").open(&server).await;
    wire.send(DISCONNECT).await;
    wire.expect_end().await;
    assert_eq!(end_reason(&mut operator, "mortal").await, "logged_out");
    // DISCONNECT with will.
    let mut wire = mortal("wanted").open(&server).await;
    wire.send(&[0xe0, 1, 4]).await;
    wire.expect_end().await;
    assert_eq!(reader.message().await.texts(), ("wills/mortal", "wanted"));
    // Lost, with properties and retained.
    let mut wire = mortal("lost");
    wire.will = Some(("wills/mortal", "lost", b"\x03\0\x01t\x09\0\x01c", true));
    drop(wire.open(&server).await);
    let message = reader.message().await;
    assert_eq!((message.texts(), message.retain), (("wills/mortal", "lost"), true));
    assert_eq!(message.properties, b"\x03\0\x01t\x09\0\x01c");
    // Taken over, broken, ended by an administrator.
    let taken = mortal("taken").open(&server).await;
    let mut wire = mortal("broken").open(&server).await;
    assert_eq!(reader.message().await.texts(), ("wills/mortal", "taken"));
    wire.send(&[0, 0]).await;
    assert_eq!(reader.message().await.texts(), ("wills/mortal", "broken"));
    drop(taken);
    let mut wire = mortal("ended").open(&server).await;
    let session = &sessions(&mut operator, r#"{"thingKey":"mortal"}"#).await[0];
    call(&mut operator, "session.end", &format!(r#"{{"ref":{}}}"#, session["ref"])).await;
    wire.expect(&[0xe0, 1, 0x98]).await;
    wire.expect_end().await;
    assert_eq!(reader.message().await.texts(), ("wills/mortal", "ended"));
    reader.expect_quiet().await;
}

#[tokio::test]
async fn a_will_with_a_delay_waits_for_the_client() {
    let server = TestServer::start();
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/#", 1).await, 1);
    let mortal = |key: &str, topic, delay: &'static [u8]| {
        let mut connect = Connect::thing(V5, key).resuming();
        connect.will = Some((topic, "", delay, false));
        connect
    };
    let one_second = b"\x18\0\0\0\x01";
    let back = mortal("back", "wills/back", one_second);
    let gone = mortal("gone", "wills/gone", one_second);
    drop(back.open(&server).await);
    let mut wire = back.open(&server).await;
    // Later than the other's, which would have come before.
    drop(gone.open(&server).await);
    assert_eq!(reader.message().await.topic, "wills/gone");
    wire.expect_quiet().await;
    // Who comes back to begin anew ends what was, and its will does not wait.
    let hour = mortal("anew", "wills/anew", b"\x18\0\0\x0e\x10");
    let mut wire = hour.open(&server).await;
    wire.send(&[0xe0, 1, 4]).await;
    wire.expect_end().await;
    drop(Connect { clean: true, will: None, ..hour }.open(&server).await);
    assert_eq!(reader.message().await.topic, "wills/anew");
    // It comes with the end of the state at the latest.
    let mut short = mortal("short", "wills/short", b"\x18\0\0\x0e\x10");
    short.properties.clear();
    drop(short.open(&server).await);
    assert_eq!(reader.message().await.topic, "wills/short");
    reader.expect_quiet().await;
}

#[tokio::test]
async fn a_take_over_decides_on_the_will() {
    let server = TestServer::start();
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/#", 1).await, 1);
    let hour: &[u8] = b"\x18\0\0\x0e\x10";
    // Whether the newcomer begins anew, the will's delay, whether the state outlives the connection.
    let cases = [
        ("wills/1", true, hour, true, true),
        ("wills/2", false, hour, true, false),
        ("wills/3", true, b"", true, true),
        ("wills/4", false, b"", true, true),
        ("wills/5", false, hour, false, true),
    ];
    for (topic, clean, delay, outlives, published) in cases {
        let mut connect = Connect::thing(V5, "mortal").resuming();
        if !outlives {
            connect.properties.clear();
        }
        connect.will = Some((topic, "", delay, false));
        let mut old = connect.open(&server).await;
        let mut new = Connect { clean, will: None, ..connect }.open(&server).await;
        old.expect(&[0xe0, 1, 0x8e]).await;
        old.expect_end().await;
        if published {
            assert_eq!(reader.message().await.topic, topic);
        }
        new.send(DISCONNECT).await;
        new.expect_end().await;
        reader.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = TestServer::start();
    let mut wire = thing(&server, "mower").await;
    wire.send(&wire.publish(0, 0, "api/1", ASK)).await;
    assert_eq!(wire.message().await.texts(), ("reply/1", DONE));
    let goodbye = async {
        wire.expect(&[0xe0, 1, 0x8b]).await;
        wire.expect_end().await;
    };
    tokio::join!(server.stop(), goodbye);
}

#[tokio::test]
async fn an_ordinary_client_asks_and_is_answered() {
    let server = TestServer::start();
    let address = server.address("mqtt");
    let mut options = MqttOptions::new("rumqttc", address.ip().to_string(), address.port());
    options.set_credentials("ordinary", TOKEN).set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("answers/+", QoS::AtLeastOnce).await.expect("room");
    let properties = PublishProperties {
        response_topic: Some("answers/1".to_owned()),
        correlation_data: Some("c".into()),
        ..PublishProperties::default()
    };
    let (once, ask) = (QoS::ExactlyOnce, ASK.to_owned());
    client.publish_with_properties("api/1", once, false, ask, properties).await.expect("room");
    loop {
        let event = tokio::time::timeout(SOON, events.poll()).await.expect("an event");
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("a connection") {
            assert_eq!((&*publish.topic, &*publish.payload), (&b"answers/1"[..], DONE.as_bytes()));
            let properties = publish.properties.expect("properties");
            assert_eq!(properties.correlation_data.as_deref(), Some(&b"c"[..]));
            break;
        }
    }
}
