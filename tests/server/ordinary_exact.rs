//! Ordinary MQTT, statement by statement of the specification: the numbers are those of MQTT 5 unless
//! marked. What outlives the server is in [`ordinary_durable`].
//!
//! [`ordinary_durable`]: super::ordinary_durable

use std::collections::BTreeSet;

use client::Version::{V5, V31, V311};
use support::mqtt::{ALL, ASK, Connect, DISCONNECT, DONE, Message, PING, Wire, frame, text};
use support::{Endpoints, TestServer, call, eventually};
use tokio::task::JoinSet;

const FAILURE: u8 = 0x80;
/// Properties of MQTT 5.
const EXPIRY: u8 = 0x02;
const SUBSCRIPTION_ID: u8 = 0x0b;
const KEEP_ALIVE: u8 = 0x13;
const RESPONSE_INFO: u8 = 0x1a;
const RECEIVE_MAX: u8 = 0x21;
const ALIAS_MAX: u8 = 0x22;
const ALIAS: u8 = 0x23;

async fn thing(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V5, key).open(server).await
}

/// A session of this version that is kept.
async fn kept(server: &Endpoints, version: client::Version, key: &str) -> Wire {
    Connect::thing(version, key).resuming().open(server).await
}

/// PUBREC, PUBREL or PUBCOMP.
fn ack(first: u8, pkid: u16) -> [u8; 4] {
    let [high, low] = pkid.to_be_bytes();
    [first, 2, high, low]
}

fn u16_of(value: Option<Vec<u8>>) -> u16 {
    value.map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().expect("two bytes")))
}

fn numbers(messages: &[Message]) -> Vec<(&str, u16, bool)> {
    messages.iter().map(|m| (m.texts().1, m.pkid, m.dup)).collect()
}

async fn unacknowledged<const N: usize>(wire: &mut Wire) -> Vec<Message> {
    let mut messages = Vec::new();
    for _ in 0..N {
        messages.push(wire.unacknowledged().await);
    }
    messages
}

#[tokio::test]
async fn qos_2_reaches_subscribers_in_four_packets() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for version in ALL {
        let mut reader = Connect::thing(version, "reader").open(&server).await;
        // [MQTT-3.8.4-8] the granted QoS may be the requested.
        assert_eq!(reader.subscribe("once", 2).await, 2, "{version:?}");
        writer.tell_once(3, "once", "a").await;
        let message = reader.unacknowledged().await;
        assert_eq!((message.texts(), message.qos, message.dup), (("once", "a"), 2, false));
        // [MQTT-2.2.1-4] an id other than 0; [MQTT-4.3.3-4] PUBREL behind PUBREC, not before.
        assert_ne!(message.pkid, 0);
        reader.expect_quiet().await;
        for _ in 0..2 {
            reader.send(&ack(0x50, message.pkid)).await;
            // [MQTT-3.6.1-1] its flags are 0x02.
            reader.expect(&ack(0x62, message.pkid)).await;
        }
        reader.send(&ack(0x70, message.pkid)).await;
        reader.expect_quiet().await;
        // The lower QoS of both sides (MQTT 3.8.4), and order from QoS 2 to 0 to one reader.
        writer.tell("once", "b").await;
        writer.tell_once(4, "once", "c").await;
        assert_eq!(reader.message().await.qos, 1);
        assert_eq!(reader.message().await.qos, 2);
        assert_eq!(reader.subscribe("once", 1).await, 1);
        writer.tell_once(4, "once", "d").await;
        assert_eq!(reader.message().await.qos, 1);
        // Retained, with the QoS it came with.
        writer.send(&writer.publish(0x05, 6, "kept", "e")).await;
        writer.expect(&ack(0x50, 6)).await;
        writer.send(&ack(0x62, 6)).await;
        writer.expect(&ack(0x70, 6)).await;
        assert_eq!(reader.subscribe("kept", 2).await, 2);
        let message = reader.message().await;
        assert_eq!((message.texts(), message.qos, message.retain), (("kept", "e"), 2, true));
        reader.leave().await;
    }
}

#[tokio::test]
async fn a_message_with_qos_2_is_delivered_once_over_resets() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for version in ALL {
        let key = format!("reader-{version:?}");
        let mut reader = kept(&server, version, &key).await;
        assert_eq!(reader.subscribe("once", 2).await, 2);
        writer.tell_once(3, "once", "a").await;
        writer.tell_once(4, "once", "b").await;
        let first = unacknowledged::<2>(&mut reader).await;
        drop(reader);
        // [MQTT-4.4.0-1], [MQTT-3.3.1-1]: again under their ids, with DUP, in order.
        let mut reader = kept(&server, version, &key).await;
        let [a, b] = [first[0].pkid, first[1].pkid];
        let again = unacknowledged::<2>(&mut reader).await;
        assert_eq!(numbers(&again), [("a", a, true), ("b", b, true)], "{version:?}");
        reader.send(&ack(0x50, a)).await;
        reader.expect(&ack(0x62, a)).await;
        drop(reader);
        // [MQTT-4.3.3-6] no PUBLISH once PUBREL was sent, which comes again itself.
        let mut reader = kept(&server, version, &key).await;
        let mut came = BTreeSet::new();
        for _ in 0..2 {
            came.insert(reader.frame().await.expect("a packet")[0] & 0xf0);
        }
        assert_eq!(came, BTreeSet::from([0x30, 0x60]), "{version:?}");
        reader.send(&ack(0x70, a)).await;
        reader.complete(b).await;
        reader.expect_quiet().await;
        drop(reader);
        let mut reader = kept(&server, version, &key).await;
        reader.expect_quiet().await;
        writer.tell_once(3, "once", "c").await;
        let message = reader.message().await;
        assert_eq!((message.texts().1, message.dup), ("c", false));
        reader.leave().await;
        Connect::thing(version, &key).open(&server).await.leave().await;
    }
}

#[tokio::test]
async fn an_id_that_was_not_released_is_known_after_a_reset() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("once", 1).await, 1);
    for version in ALL {
        let key = format!("writer-{version:?}");
        let publish = "thing/self/property/count";
        for (topic, payload) in [("once", "x"), (publish, "7")] {
            let mut writer = kept(&server, version, &key).await;
            writer.send(&writer.publish(0x04, 5, topic, payload)).await;
            writer.expect(&ack(0x50, 5)).await;
            drop(writer);
            // [MQTT-4.3.3-10]: session state, so there is a session.
            let mut writer = kept(&server, version, &key).await;
            assert_eq!(writer.present(), version != V31, "{version:?} {topic}");
            writer.send(&writer.publish(0x0c, 5, topic, payload)).await;
            writer.expect(&ack(0x50, 5)).await;
            writer.send(&ack(0x62, 5)).await;
            writer.expect(&ack(0x70, 5)).await;
            // Released, it is free for another message.
            writer.tell_once(5, topic, payload).await;
            writer.leave().await;
        }
        for _ in 0..2 {
            assert_eq!(reader.message().await.texts(), ("once", "x"), "{version:?}");
        }
        reader.expect_quiet().await;
        let params = format!(r#"{{"thingKey":"{key}","key":"count","records":10}}"#);
        let history = call(&mut operator, "property.history", &params).await;
        assert_eq!(history["values"].as_array().map(Vec::len), Some(2), "{version:?} {history}");
        // A clean session knows nothing of it ([MQTT-3.1.2-4]).
        let mut writer = kept(&server, version, &key).await;
        writer.send(&writer.publish(0x04, 5, "once", "y")).await;
        writer.expect(&ack(0x50, 5)).await;
        drop(writer);
        let mut writer = Connect::thing(version, &key).open(&server).await;
        assert!(!writer.present());
        writer.tell_once(5, "once", "z").await;
        assert_eq!(reader.message().await.texts(), ("once", "y"));
        assert_eq!(reader.message().await.texts(), ("once", "z"));
    }
}

#[tokio::test]
async fn qos_1_comes_again_under_the_ids_it_had() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for version in ALL {
        let key = format!("reader-{version:?}");
        let mut reader = kept(&server, version, &key).await;
        assert_eq!(reader.subscribe("news", 1).await, 1);
        for payload in ["1", "2", "3", "4"] {
            writer.tell("news", payload).await;
        }
        let first = unacknowledged::<4>(&mut reader).await;
        reader.acknowledge(first[1].pkid).await;
        reader.expect_quiet().await;
        reader.leave().await;
        writer.tell("news", "5").await;
        // [MQTT-4.4.0-1], [MQTT-3.3.1-1], [MQTT-4.6.0-1]; a new one gets an id that is not taken.
        let mut reader = kept(&server, version, &key).await;
        let again = unacknowledged::<4>(&mut reader).await;
        let id = |at: usize| first[at].pkid;
        let new = again[3].pkid;
        let expected = [("1", id(0), true), ("3", id(2), true), ("4", id(3), true)];
        assert_eq!(numbers(&again[..3]), expected, "{version:?}");
        assert_eq!(numbers(&again[3..]), [("5", new, false)]);
        assert!(new != 0 && ![id(0), id(2), id(3)].contains(&new), "{version:?}");
        for message in again {
            reader.acknowledge(message.pkid).await;
        }
        reader.expect_quiet().await;
    }
}

/// [MQTT-3.3.2-6]: what was received minus the seconds that it waited, whole ones.
#[tokio::test]
async fn the_time_left_is_counted_in_whole_seconds() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let mut reader = thing(&server, "reader").await;
    let mut away = kept(&server, V5, "away").await;
    assert_eq!(away.subscribe("waits", 1).await, 1);
    away.leave().await;
    let expiring = |seconds: u32| [&[EXPIRY][..], &seconds.to_be_bytes()].concat();
    let left = |message: &Message| {
        let value = message.property(EXPIRY).pop().expect("an expiry");
        u32::from_be_bytes(value.try_into().expect("four bytes"))
    };
    assert_eq!(reader.subscribe("live", 1).await, 1);
    for seconds in [60, 2, u32::MAX] {
        writer.send(&writer.publish_with(3, 5, "live", &expiring(seconds), "x")).await;
        writer.expect(&[0x40, 2, 0, 5]).await;
        assert_eq!(left(&reader.message().await), seconds);
    }
    // Retained, and read at once.
    assert_eq!(reader.subscribe("live", 1).await, 1);
    let at_once = left(&reader.message().await);
    assert!(at_once > u32::MAX - 20, "{at_once}");
    // One that waits until another, published later, has run out: one second at least.
    for (flags, topic, seconds) in [(2, "waits", 1), (2, "waits", 60), (3, "mark", 1)] {
        writer.send(&writer.publish_with(flags, 5, topic, &expiring(seconds), "x")).await;
        writer.expect(&[0x40, 2, 0, 5]).await;
    }
    eventually("a second is over", async || {
        assert_eq!(reader.subscribe("mark", 1).await, 1);
        writer.tell("mark", "live").await;
        let is_over = reader.message().await.texts().1 == "live";
        if !is_over {
            assert_eq!(reader.message().await.texts().1, "live");
        }
        is_over
    })
    .await;
    let mut away = kept(&server, V5, "away").await;
    let waited = left(&away.message().await);
    assert!((30..60).contains(&waited), "{waited}");
    writer.tell("waits", "live").await;
    assert_eq!(away.message().await.texts().1, "live");
}

/// [MQTT-3.1.3-9], and a will that fires while its client comes back.
#[tokio::test]
async fn a_delayed_will_is_published_once_at_most() {
    const CLIENTS: usize = 40;
    let server = TestServer::start();
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/+", 1).await, 1);
    let mortal = |number: usize| {
        let mut connect = Connect::thing(V5, &format!("mortal-{number}")).resuming();
        let topic: &'static str = format!("wills/{number}").leak();
        connect.will = Some((topic, "", b"\x18\0\0\0\x01", false));
        connect
    };
    for number in 0..CLIENTS {
        drop(mortal(number).open(&server).await);
    }
    // The first has fired; the others are about to.
    let mut fired = vec![reader.message().await.topic];
    let mut back = JoinSet::new();
    for number in 0..CLIENTS {
        let (connect, server) = (mortal(number), Endpoints::clone(&server));
        back.spawn(async move { connect.open(&server).await.leave().await });
    }
    while let Some(done) = back.join_next().await {
        done.expect("it came back");
    }
    thing(&server, "writer").await.tell("wills/end", "").await;
    while fired.last().is_none_or(|topic| topic != "wills/end") {
        fired.push(reader.message().await.topic);
    }
    let distinct: BTreeSet<&String> = fired.iter().collect();
    assert_eq!(distinct.len(), fired.len(), "{fired:?}");
}

/// [MQTT-3.3.4-9], [MQTT-4.13.1-1]: the reason is there to be read, however much the server did not
/// read any more.
#[tokio::test]
async fn the_reason_reaches_who_has_sent_too_much() {
    let server = TestServer::start();
    let mut wire = thing(&server, "hoarder").await;
    let most = u16_of(wire.told(RECEIVE_MAX));
    let mut flood: Vec<u8> =
        (1..=most + 1).flat_map(|pkid| wire.publish(4, pkid, "hoard", "x")).collect();
    flood.extend(wire.publish(0, 0, "hoard", "x".repeat(500_000)));
    wire.send(&flood).await;
    for pkid in 1..=most {
        wire.expect(&ack(0x50, pkid)).await;
    }
    wire.expect(&[0xe0, 1, 0x93]).await;
    // To clients that answer one by one what they read it is no broken connection.
    for pkid in 1..=most {
        wire.try_send(&ack(0x62, pkid)).await.expect("the server takes what is on its way");
    }
    wire.expect_end().await;
}

#[tokio::test]
async fn a_client_may_give_topics_a_number() {
    let server = TestServer::start();
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("long/#", 1).await, 1);
    let alias = |number: u16| [&[ALIAS][..], &number.to_be_bytes()].concat();
    let mut wire = thing(&server, "brief").await;
    let max = u16_of(wire.told(ALIAS_MAX));
    assert!(max > 0, "{:x?}", wire.connack);
    let mut tell = async |wire: &mut Wire, topic: &str, number, payload: &str, expected: &str| {
        wire.send(&wire.publish_with(2, 5, topic, &alias(number), payload)).await;
        wire.expect(&[0x40, 2, 0, 5]).await;
        let message = reader.message().await;
        assert_eq!(message.texts(), (expected, payload));
        // [MQTT-3.3.2-8], [MQTT-3.3.2-11]: the reader has not said that it takes any.
        assert!(message.property(ALIAS).is_empty());
    };
    tell(&mut wire, "long/1", 1, "a", "long/1").await;
    tell(&mut wire, "", 1, "b", "long/1").await;
    tell(&mut wire, "long/2", max, "c", "long/2").await;
    tell(&mut wire, "", 1, "d", "long/1").await;
    tell(&mut wire, "long/3", 1, "e", "long/3").await;
    tell(&mut wire, "", 1, "f", "long/3").await;
    tell(&mut wire, "", max, "g", "long/2").await;
    // TR50's own topics as well.
    wire.send(&wire.publish_with(0, 0, "api/1", &alias(1), ASK)).await;
    assert_eq!(wire.message().await.texts(), ("reply/1", DONE));
    wire.send(&wire.publish_with(0, 0, "", &alias(1), ASK)).await;
    assert_eq!(wire.message().await.texts(), ("reply/1", DONE));
    // [MQTT-3.3.2-7] not longer than the connection; 3.3.2.3.4: without a topic a protocol error.
    // [MQTT-3.3.2-9] none above the maximum.
    let above = max.checked_add(1).map(|number| ("long/1", number, 0x94));
    for (topic, number, reason) in [("", 1, 0x82)].into_iter().chain(above) {
        let mut wire = thing(&server, "brief").await;
        wire.send(&wire.publish_with(2, 5, topic, &alias(number), "x")).await;
        wire.expect(&[0xe0, 1, reason]).await;
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_topic_numbers_gets_them() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let two = Connect::thing(V5, "reader").resuming().properties(b"\x11\0\0\x0e\x10\x22\0\x02");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut reader = two.open(&server).await;
        assert_eq!(reader.subscribe("long/#", 2).await, 2);
        let mut next = async |topic: &str| {
            writer.tell_once(7, topic, "x").await;
            let message = reader.message().await;
            let number = message.property(ALIAS).pop().map(|value| u16_of(Some(value)));
            (message.topic, number)
        };
        // [MQTT-3.3.2-12] nothing above 2; each connection begins anew ([MQTT-3.3.2-7]).
        let (topic, first) = next("long/1").await;
        assert_eq!(topic, "long/1");
        let (topic, second) = next("long/2").await;
        assert_eq!(topic, "long/2");
        assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([Some(1), Some(2)]));
        assert_eq!(next("long/1").await, (String::new(), first));
        assert_eq!(next("long/2").await, (String::new(), second));
        seen.push(next("long/3").await);
        reader.leave().await;
    }
    // A third topic has no number, or takes over one of the two; its name is there.
    for (topic, number) in seen {
        assert!(topic == "long/3" && number.is_none_or(|number| (1..=2).contains(&number)));
    }
    // What is redelivered on a new connection has its topic.
    let mut reader = two.open(&server).await;
    writer.tell("long/1", "a").await;
    writer.tell("long/1", "b").await;
    unacknowledged::<2>(&mut reader).await;
    drop(reader);
    let mut reader = two.clone().properties(b"\x11\0\0\x0e\x10").open(&server).await;
    for message in unacknowledged::<2>(&mut reader).await {
        assert_eq!((&*message.topic, message.property(ALIAS).len()), ("long/1", 0));
    }
}

/// [MQTT-3.3.4-2] to [MQTT-3.3.4-5] of MQTT 5, [MQTT-3.3.5-1] of 3.1.1.
#[tokio::test]
async fn a_message_comes_once_with_all_that_it_falls_under() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for version in ALL {
        let mut reader = Connect::thing(version, "reader").open(&server).await;
        let id = |number: u8| if version == V5 { vec![SUBSCRIPTION_ID, number] } else { vec![] };
        assert_eq!(reader.subscribe_with("a/+", 1, &id(7)).await, 1);
        assert_eq!(reader.subscribe_with("a/#", 2, &id(8)).await, 2);
        assert_eq!(reader.subscribe("a/b", 0).await, 0);
        assert_eq!(reader.subscribe_with("+/b", 0, &id(7)).await, 0);
        writer.tell_once(3, "a/b", "x").await;
        let message = reader.message().await;
        assert_eq!((message.texts(), message.qos), (("a/b", "x"), 2), "{version:?}");
        let mut ids: Vec<u8> = message.property(SUBSCRIPTION_ID).concat();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, if version == V5 { vec![7, 8] } else { vec![] });
        reader.expect_quiet().await;
        // What still matches still brings it.
        reader.unsubscribe("a/#").await;
        writer.tell_once(3, "a/b", "y").await;
        let message = reader.message().await;
        assert_eq!((message.texts(), message.qos), (("a/b", "y"), 1));
        reader.expect_quiet().await;
    }
    // A share is a subscription of its own.
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe_with("$share/g/a/b", 1, &[SUBSCRIPTION_ID, 9]).await, 1);
    assert_eq!(reader.subscribe_with("a/b", 1 | 0x04, &[SUBSCRIPTION_ID, 5]).await, 1);
    writer.tell("a/b", "z").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.extend(reader.message().await.property(SUBSCRIPTION_ID).concat());
    }
    ids.sort_unstable();
    assert_eq!(ids, [5, 9]);
    // No Local is one filter's: the other one brings what the client says itself.
    assert_eq!(reader.subscribe_with("a/+", 1, &[SUBSCRIPTION_ID, 6]).await, 1);
    reader.unsubscribe("$share/g/a/b").await;
    reader.tell("a/b", "own").await;
    assert_eq!(reader.message().await.property(SUBSCRIPTION_ID), [[6]]);
    reader.expect_quiet().await;
}

/// [MQTT-3.1.2-21], [MQTT-3.1.2-22].
#[tokio::test]
async fn the_server_says_how_long_a_client_may_be_silent() {
    let server = TestServer::with(&[("TR50D_MQTT__KEEP_ALIVE_MAX_S", "1")]);
    for asked in [0, 2, 60, u16::MAX] {
        let connect = Connect { keep_alive_s: asked, ..Connect::thing(V5, "silent") };
        let mut wire = connect.open(&server).await;
        assert_eq!(wire.told(KEEP_ALIVE), Some(vec![0, 1]), "{asked}");
        // It is what the server keeps to.
        if asked == 60 {
            wire.expect(&[0xe0, 1, 0x8d]).await;
            wire.expect_end().await;
        }
    }
    let connect = Connect { keep_alive_s: 1, ..Connect::thing(V5, "silent") };
    assert_eq!(connect.open(&server).await.told(KEEP_ALIVE), None);
    // Before MQTT 5 nobody is told, so that what the client said holds; CONNACK has four bytes.
    for version in [V31, V311] {
        assert_eq!(Connect::thing(version, "silent").open(&server).await.connack.len(), 4);
    }
    let server = TestServer::start();
    assert_eq!(thing(&server, "silent").await.told(KEEP_ALIVE), None);
}

/// [MQTT-3.9.3-2] of 3.1.1 knows one refusal. In MQTT 5 (3.9.3) 0x80 is for what is no matter of
/// rights: nobody may subscribe there.
#[tokio::test]
async fn a_refused_filter_has_a_code_that_clients_know() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "curious").open(&server).await;
        for filter in ["api/#", "api", "$SYS/#", "$share/g/$SYS/#", "$share/g/api/#"] {
            assert_eq!(wire.subscribe(filter, 2).await, FAILURE, "{version:?} {filter}");
        }
        let expected = if version == V5 { 0x8f } else { FAILURE };
        assert_eq!(wire.subscribe("a/#/b", 2).await, expected, "{version:?}");
    }
}

/// [MQTT-3.1.2-24].
#[tokio::test]
async fn no_packet_is_larger_than_the_client_takes() {
    let server = TestServer::start();
    for max in [4_u8, 5, 8, 12, 16, 20, 30, 40, 64] {
        let mut wire = Wire::open(&server, V5).await;
        let connect = Connect::thing(V5, "small").id("").properties(&[0x27, 0, 0, 0, max]);
        wire.send(&connect.frame()).await;
        let Some(connack) = wire.frame().await else {
            assert!(max < 64);
            continue;
        };
        assert!(connack.len() <= usize::from(max), "{max}: {connack:x?}");
        assert!(max < 64 || connack[3] == 0, "{max}: {connack:x?}");
    }
    // A SUBACK with a code for each of 100 filters.
    let small = Connect::thing(V5, "small").properties(&[0x27, 0, 0, 0, 64]);
    let mut wire = small.open(&server).await;
    let filters: Vec<u8> =
        (0..100).flat_map(|n| [text(format!("f/{n}")), vec![0]].concat()).collect();
    wire.send(&[frame(0x82, &[b"\0\x05\0", &filters]), PING.to_vec()].concat()).await;
    while let Some(frame) = wire.frame().await {
        assert!(frame.len() <= 64, "{frame:x?}");
        if frame == [0xd0, 0] {
            break;
        }
    }
    // What fits is answered.
    let mut wire = small.open(&server).await;
    assert_eq!(wire.subscribe("f/1", 1).await, 1);
}

/// [MQTT-2.2.1-3], [MQTT-4.7.3-1]; libtr50, which speaks 3.1, begins with identifier 0.
#[tokio::test]
async fn identifier_0_and_filters_of_length_0_are_errors_in_mqtt_5() {
    let server = TestServer::start();
    let cases: [&[u8]; 9] = [
        b"\x32\x06\0\x01a\0\0\0",
        b"\x34\x06\0\x01a\0\0\0",
        b"\x82\x07\0\0\0\0\x01a\0",
        b"\xa2\x06\0\0\0\0\x01a",
        b"\x40\x02\0\0",
        b"\x62\x02\0\0",
        b"\x82\x06\0\x01\0\0\0\0",
        b"\x82\x0a\0\x01\0\0\x01a\0\0\0\0",
        b"\xa2\x05\0\x01\0\0\0",
    ];
    for bytes in cases {
        let mut wire = thing(&server, "rough").await;
        wire.send(bytes).await;
        assert_eq!(wire.frame().await, Some(vec![0xe0, 1, 0x82]), "{bytes:x?}");
        wire.expect_end().await;
    }
    for version in [V31, V311] {
        let mut wire = Connect::thing(version, "libtr50").open(&server).await;
        wire.send(b"\x82\x09\0\0\0\x01a\x01\0\0\x01\xa2\x04\0\0\0\0").await;
        wire.expect(&[0x90, 4, 0, 0, 1, FAILURE]).await;
        wire.expect(&[0xb0, 2, 0, 0]).await;
        wire.send(&wire.publish(2, 0, "b", "x")).await;
        wire.expect(&[0x40, 2, 0, 0]).await;
        wire.tell_once(0, "b", "x").await;
        wire.expect_quiet().await;
    }
}

/// [MQTT-4.3.3-4]; MQTT 3.6.2.1 has a reason for it.
#[tokio::test]
async fn a_pubrec_that_nobody_waits_for_is_answered() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "confused").open(&server).await;
        wire.send(&ack(0x50, 99)).await;
        match version {
            V5 => wire.expect(&[0x62, 3, 0, 99, 0x92]).await,
            _ => wire.expect(&ack(0x62, 99)).await,
        }
        wire.send(&ack(0x70, 99)).await;
        wire.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_will_has_as_many_bytes_as_its_length_can_say() {
    let server = TestServer::start();
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/+", 1).await, 1);
    let payload: &'static str = "w".repeat(65_535).leak();
    for version in ALL {
        drop(Connect::thing(version, "mortal").will("wills/1", payload).open(&server).await);
        let message = reader.message().await;
        assert_eq!((&*message.topic, message.payload.len()), ("wills/1", 65_535), "{version:?}");
        assert!(message.payload == payload.as_bytes());
    }
}

/// MQTT 4.8.2: with QoS 1 another member takes over; [MQTT-4.8.2-5]: with QoS 2 nobody does, once the
/// delivery has begun.
#[tokio::test]
async fn what_a_member_left_goes_to_another() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    // Takes one at a time; the others wait in it.
    let slow = Connect::thing(V5, "slow").properties(&[RECEIVE_MAX, 0, 1]);
    let mut slow = slow.open(&server).await;
    assert_eq!(slow.subscribe("$share/workers/jobs", 1).await, 1);
    for number in 0..5 {
        writer.tell("jobs", &number.to_string()).await;
    }
    assert_eq!(slow.unacknowledged().await.texts().1, "0");
    let mut fresh = thing(&server, "fresh").await;
    assert_eq!(fresh.subscribe("$share/workers/jobs", 1).await, 1);
    drop(slow);
    let mut done = BTreeSet::new();
    for _ in 0..5 {
        done.insert(fresh.message().await.texts().1.to_owned());
    }
    assert_eq!(done.len(), 5, "{done:?}");
    fresh.expect_quiet().await;
    // One whose session is kept keeps what it has, and so what it has begun.
    let mut away = kept(&server, V5, "away").await;
    assert_eq!(away.subscribe("$share/others/once", 2).await, 2);
    writer.tell_once(3, "once", "begun").await;
    assert_eq!(away.unacknowledged().await.texts().1, "begun");
    assert_eq!(fresh.subscribe("$share/others/once", 2).await, 2);
    drop(away);
    fresh.expect_quiet().await;
    let mut away = kept(&server, V5, "away").await;
    assert_eq!(away.unacknowledged().await.texts().1, "begun");
    away.expect_quiet().await;
    drop(away);
    // Its session ends with the delivery under way.
    Connect::thing(V5, "away").open(&server).await.leave().await;
    fresh.expect_quiet().await;
    writer.tell_once(3, "once", "next").await;
    assert_eq!(fresh.message().await.texts().1, "next");
}

/// [MQTT-3.1.2-28] and MQTT 3.2.2.3.15.
#[tokio::test]
async fn response_information_is_for_who_asks() {
    let server = TestServer::start();
    assert_eq!(thing(&server, "mower").await.told(RESPONSE_INFO), None);
    let asks = Connect::thing(V5, "mower").properties(&[0x19, 0]);
    assert_eq!(asks.open(&server).await.told(RESPONSE_INFO), None);
    let asks = Connect::thing(V5, "mower").properties(&[0x19, 1]);
    let mut wire = asks.open(&server).await;
    let info = String::from_utf8(wire.told(RESPONSE_INFO).expect("a text")).expect("UTF-8");
    assert!(!info.is_empty() && !info.contains(['+', '#', '\0']), "{info}");
    // What begins with it is the client's to subscribe to, and to be answered at.
    let topic = format!("{info}1");
    assert_eq!(wire.subscribe(&topic, 1).await, 1);
    let properties = [&[0x08][..], &text(&topic)].concat();
    wire.send(&wire.publish_with(0, 0, "api", &properties, ASK)).await;
    assert_eq!(wire.message().await.texts(), (&*topic, DONE));
}

#[tokio::test]
async fn a_bridge_comes_with_its_will_and_does_not_hear_itself() {
    let server = TestServer::start();
    let mut plant = thing(&server, "plant").await;
    let mut writer = thing(&server, "writer").await;
    assert_eq!(plant.subscribe("both/#", 0).await, 0);
    for version in [V31, V311] {
        let mut bridge = Connect::thing(version, "bridge").resuming().bridge();
        bridge.will = Some(("$SYS/broker/connection/x/state", "0", b"", true));
        let mut wire = bridge.open(&server).await;
        assert_eq!(wire.subscribe("both/#", 1).await, 1, "{version:?}");
        wire.tell("both/1", "from there").await;
        writer.tell("both/1", "from here").await;
        assert_eq!(wire.message().await.texts(), ("both/1", "from here"), "{version:?}");
        wire.expect_quiet().await;
        // Nor after it was away.
        drop(wire);
        let mut wire = bridge.open(&server).await;
        assert_eq!(wire.present(), version != V31);
        wire.tell("both/2", "again").await;
        writer.tell("both/1", "last").await;
        assert_eq!(wire.message().await.texts(), ("both/1", "last"), "{version:?}");
        wire.leave().await;
        for expected in ["from there", "from here", "again", "last"] {
            assert_eq!(plant.message().await.texts().1, expected, "{version:?}");
        }
        Connect::thing(version, "bridge").open(&server).await.leave().await;
    }
    // Who is no bridge hears itself.
    let mut late = Connect::thing(V311, "late").open(&server).await;
    assert_eq!(late.subscribe("both/#", 1).await, 1);
    late.tell("both/3", "own").await;
    assert_eq!(late.message().await.texts(), ("both/3", "own"));
    late.expect_quiet().await;
}

#[tokio::test]
async fn thousands_of_devices_have_a_topic_each() {
    const DEVICES: usize = 2000;
    let server = TestServer::start();
    let mut ready = JoinSet::new();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(50));
    for number in 0..DEVICES {
        let (server, gate) = (Endpoints::clone(&server), gate.clone());
        ready.spawn(async move {
            let _turn = gate.acquire().await.expect("open");
            let mut wire = Connect::thing(V311, &format!("device-{number}")).open(&server).await;
            let code = wire.subscribe(&format!("device-{number}/orders"), 1).await;
            (number, code, wire)
        });
    }
    let mut devices = Vec::new();
    while let Some(device) = ready.join_next().await {
        devices.push(device.expect("no panic"));
    }
    let refused = devices.iter().filter(|(_, code, _)| *code != 1).count();
    assert_eq!(refused, 0);
    let mut writer = thing(&server, "writer").await;
    for (number, _, wire) in devices.iter_mut().step_by(97) {
        let topic = format!("device-{number}/orders");
        writer.tell(&topic, "go").await;
        assert_eq!(wire.message().await.texts(), (&*topic, "go"));
        wire.expect_quiet().await;
    }
}

/// [MQTT-3.1.2-4], [MQTT-3.2.2-2]: a client need not wait for SUBACK to leave, nor for CONNACK to say
/// what it has to say.
#[tokio::test]
async fn who_subscribes_and_leaves_at_once_is_subscribed() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for round in 0..10 {
        for version in ALL {
            let connect = Connect::thing(version, &format!("hasty-{round}-{version:?}")).resuming();
            let mut wire = Wire::open(&server, version).await;
            let properties: &[u8] = if version == V5 { &[0] } else { &[] };
            let subscribe = frame(0x82, &[&[0, 7], properties, &text("news"), &[1]]);
            wire.send(&[&*connect.frame(), &subscribe, DISCONNECT].concat()).await;
            while wire.frame().await.is_some() {}
            writer.tell("news", "missed").await;
            let mut wire = connect.open(&server).await;
            assert_eq!(wire.present(), version != V31, "{version:?}");
            assert_eq!(wire.message().await.texts(), ("news", "missed"));
            Connect { clean: true, ..connect }.open(&server).await.leave().await;
        }
    }
}
