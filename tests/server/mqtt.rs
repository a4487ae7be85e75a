//! MQTT 3.1 and 3.1.1, and what all versions share: logins, TR50 requests and their replies.

use std::io::Read;
use std::time::{Duration, Instant};

use client::Version::{self, V5, V31, V311};
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use support::mqtt::{ALL, ASK, Connect, DISCONNECT, DONE, PING, Wire, frame, text};
use support::{SOON, TOKEN, TestServer, end_reason, eventually, sessions};

fn deflate(text: &str) -> Vec<u8> {
    let mut deflated = Vec::new();
    ZlibEncoder::new(text.as_bytes(), Compression::best())
        .read_to_end(&mut deflated)
        .expect("zlib");
    deflated
}

fn inflate(bytes: &[u8]) -> String {
    let mut text = String::new();
    ZlibDecoder::new(bytes).read_to_string(&mut text).expect("zlib");
    text
}

/// The first error code of a reply that failed as a whole.
fn root_failure(payload: &[u8]) -> i64 {
    let reply: Value = serde_json::from_slice(payload).expect("JSON");
    assert_eq!(reply["success"], false, "{reply}");
    assert_eq!(reply["errorMessages"].as_array().map(Vec::len), Some(1), "{reply}");
    reply["errorCodes"][0].as_i64().expect("a code")
}

#[tokio::test]
async fn libtr50_is_served_frame_by_frame() {
    let server = TestServer::start();
    // Without a clean session, twice: CONNACK of 3.1 has four bytes and no session present.
    for _ in 0..2 {
        let mut connect = Connect::thing(V31, "mower").id("libtr50");
        connect.clean = false;
        let bytes = connect.frame();
        assert_eq!(bytes.get(2..14), Some(&b"\0\x06MQIsdp\x03\xc0\0\x3c"[..]));
        let mut wire = Wire::open(&server, V31).await;
        wire.send(&bytes).await;
        wire.expect(b"\x20\x02\0\0").await;
        wire.send(&wire.publish(0, 0, "api/1", ASK)).await;
        wire.expect(b"\x30\x1f\0\x07reply/1{\"1\":{\"success\":true}}").await;
        // Its first packet id is 0.
        wire.send(&frame(0x82, &[b"\0\0", &text("reply/#"), b"\x01"])).await;
        wire.expect(b"\x90\x03\0\0\x01").await;
        wire.send(&wire.publish(2, 0, "api/2", ASK)).await;
        wire.expect(b"\x40\x02\0\0").await;
        assert_eq!(wire.message().await.texts(), ("reply/2", DONE));
        wire.send(&frame(0xa2, &[b"\0\0", &text("reply/#")])).await;
        wire.expect(b"\xb0\x02\0\0").await;
        wire.send(&wire.publish(4, 0, "api/3", ASK)).await;
        wire.expect(b"\x50\x02\0\0").await;
        assert_eq!(wire.message().await.texts(), ("reply/3", DONE));
        wire.send(b"\x62\x02\0\0").await;
        wire.expect(b"\x70\x02\0\0").await;
        // 3.1 gave flags to more packets than later versions allow.
        wire.send(&frame(0x8a, &[b"\0\x05", &text("reply"), b"\0"])).await;
        wire.expect(b"\x90\x03\0\x05\0").await;
        wire.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_reply_comes_exactly_once_whatever_is_subscribed() {
    let server = TestServer::start();
    let topics = [
        ("api", "reply"),
        ("api/1", "reply/1"),
        ("api/0001", "reply/0001"),
        ("api/", "reply/"),
        ("api/a/b//c", "reply/a/b//c"),
        ("api/Größe 7", "reply/Größe 7"),
        ("apiz", "replyz"),
        ("apiz/0001", "replyz/0001"),
    ];
    let everything = ["reply/#", "reply/+", "reply", "reply/1", "replyz/#", "#", "+", "+/#"];
    let subscriptions: [&[&str]; 5] = [&[], &["reply/#"], &["reply/+"], &["#"], &everything];
    for version in ALL {
        for filters in subscriptions {
            for qos in 0..=2 {
                let mut wire = Connect::thing(version, "asker").open(&server).await;
                for filter in filters {
                    assert_eq!(wire.subscribe(filter, 1).await, 1, "{filter}");
                }
                for (request, reply) in topics {
                    let compressed = request.starts_with("apiz");
                    let body = if compressed { deflate(ASK) } else { ASK.into() };
                    wire.send(&wire.publish(qos << 1, 3, request, body)).await;
                    match qos {
                        0 => {}
                        1 => wire.expect(&[0x40, 2, 0, 3]).await,
                        _ => wire.expect(&[0x50, 2, 0, 3]).await,
                    }
                    let message = wire.message().await;
                    let body = if compressed { inflate(&message.payload) } else { DONE.into() };
                    assert_eq!((&*message.topic, &*body), (reply, DONE), "{version:?} {filters:?}");
                    assert!(compressed || message.payload == DONE.as_bytes());
                    assert!(!message.retain && !message.dup && message.properties.is_empty());
                    if qos == 2 {
                        wire.send(&[0x62, 2, 0, 3]).await;
                        wire.expect(&[0x70, 2, 0, 3]).await;
                    }
                    wire.expect_quiet().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn replies_have_the_lower_quality_of_request_and_subscription() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V311, "asker").open(&server).await;
    let mut check = async |subscription: Option<u8>, request: u8, expected: u8| {
        wire.unsubscribe("reply/#").await;
        if let Some(qos) = subscription {
            assert_eq!(wire.subscribe("reply/#", qos).await, qos.min(1));
        }
        wire.send(&wire.publish(request << 1, 3, "api/1", ASK)).await;
        if request == 1 {
            wire.expect(&[0x40, 2, 0, 3]).await;
        }
        let message = wire.message().await;
        assert_eq!(message.qos, expected, "{subscription:?} {request}");
        assert_eq!(message.pkid > 0, expected > 0);
    };
    check(None, 1, 0).await;
    check(Some(0), 1, 0).await;
    check(Some(1), 0, 0).await;
    check(Some(1), 1, 1).await;
    check(Some(2), 1, 1).await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_connection_goes_on() {
    const MALFORMED: i64 = -95001;
    const TOO_LARGE: i64 = -95002;
    let server = TestServer::start();
    let bomb = deflate(&" ".repeat(5 << 20));
    assert!(bomb.len() < 1 << 16);
    let long = deflate(&numbers());
    let broken = long.get(..long.len() / 2).expect("half of it");
    let cases: [(&str, &[u8], i64); 10] = [
        ("api/1", b"", MALFORMED),
        ("api/1", b"{", MALFORMED),
        ("api/1", b"[]", MALFORMED),
        ("api/1", b"\xff\xfe", MALFORMED),
        ("api/1", b"{\"1\":{\"command\":\"diag.ping\"\xff}}", MALFORMED),
        ("apiz/1", b"", MALFORMED),
        ("apiz/1", ASK.as_bytes(), MALFORMED),
        ("apiz/1", b"\x78\xda\x00", MALFORMED),
        ("apiz/1", broken, MALFORMED),
        ("apiz/1", &bomb, TOO_LARGE),
    ];
    for version in ALL {
        let mut wire = Connect::thing(version, "stammerer").open(&server).await;
        for (topic, payload, code) in &cases {
            wire.send(&wire.publish(0, 0, topic, payload)).await;
            let reply = wire.message().await;
            let compressed = topic.starts_with("apiz");
            assert_eq!(reply.topic, if compressed { "replyz/1" } else { "reply/1" });
            let body = if compressed { inflate(&reply.payload).into() } else { reply.payload };
            assert_eq!(root_failure(&body), *code, "{topic} {payload:?}");
        }
        wire.send(&wire.publish(0, 0, "api/2", ASK)).await;
        assert_eq!(wire.message().await.texts(), ("reply/2", DONE));
    }
}

#[tokio::test]
async fn who_sends_what_inflates_to_nothing_good_is_slowed_down() {
    const RATE_LIMITED: i64 = -95010;
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    let mut wire = Connect::thing(V311, "bomber").open(&server).await;
    let bomb = deflate(&" ".repeat(1 << 20));
    let bombs = wire.publish(0, 0, "apiz/1", bomb).repeat(50);
    wire.send(&bombs).await;
    let mut refused = 0;
    for _ in 0..50 {
        let reply = inflate(&wire.message().await.payload);
        refused += usize::from(root_failure(reply.as_bytes()) == RATE_LIMITED);
    }
    // The fifty may take more than a second.
    assert!((1..=45).contains(&refused), "{refused}");
}

/// A text of two megabytes that becomes no smaller than a third of that.
fn numbers() -> String {
    (0..300_000).map(|number| format!("{number:07}")).collect()
}

#[tokio::test]
async fn a_long_compressed_request_keeps_its_place_and_outlives_its_connection() {
    let server = TestServer::start();
    let long = |params: &str| {
        let command = format!(r#""command":"attribute.publish","params":{params}"#);
        deflate(&format!(r#"{{"1":{{"pad":"{}",{command}}}}}"#, numbers()))
    };
    let current = async |wire: &mut Wire| {
        let params = r#"{"thingKey":"gateway","key":"k"}"#;
        let get = format!(r#"{{"1":{{"command":"attribute.current","params":{params}}}}}"#);
        wire.send(&wire.publish(0, 0, "api/4", get)).await;
        let reply = wire.message().await.payload;
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        reply["1"]["params"]["value"].as_str().expect("a text").to_owned()
    };
    for version in ALL {
        let mut wire = Connect::thing(version, "gateway").open(&server).await;
        let first = wire.publish(2, 9, "apiz/1", long(r#"{"key":"k","value":"1"}"#));
        let second = r#"{"1":{"command":"attribute.publish","params":{"key":"k","value":"2"}}}"#;
        wire.send(&[first, wire.publish(0, 0, "api/2", second)].concat()).await;
        wire.expect(&[0x40, 2, 0, 9]).await;
        let mut replies = [wire.message().await.topic, wire.message().await.topic];
        replies.sort();
        assert_eq!(replies, ["reply/2", "replyz/1"]);
        assert_eq!(current(&mut wire).await, "2");
        // With the end of its connection right behind it.
        let value = format!("{version:?}");
        let request = long(&format!(r#"{{"key":"k","value":"{value}"}}"#));
        wire.send(&wire.publish(0, 0, "apiz/3", request)).await;
        drop(wire);
        // Another one's: a session of its own would take the place of this.
        let (user, password) = ("operator@basicorg.example", "demo-operator-password");
        let reader = Connect::login(version, "reader", user, password);
        let mut reader = reader.open(&server).await;
        eventually("it is carried out", async || current(&mut reader).await == value).await;
    }
}

#[tokio::test]
async fn requests_and_replies_are_as_large_as_a_frame_may_be() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V311, "talker").open(&server).await;
    let echo = |length: usize| {
        let text = "x".repeat(length);
        format!(r#"{{"1":{{"command":"diag.echo","params":{{"text":"{text}"}}}}}}"#)
    };
    let overhead = wire.publish(0, 0, "api/1", echo(1 << 19)).len() - (1 << 19);
    let largest = (1 << 20) - overhead;
    wire.send(&wire.publish(0, 0, "api/1", echo(largest))).await;
    let reply: Value = serde_json::from_slice(&wire.message().await.payload).expect("JSON");
    assert_eq!(reply["1"]["params"]["text"].as_str().map(str::len), Some(largest));
    // Inflated, a request may be larger than its frame.
    let numbers = numbers();
    let request = echo(0).replace(r#""text":"""#, &format!(r#""text":"{numbers}""#));
    wire.send(&wire.publish(0, 0, "apiz/1", deflate(&request))).await;
    let reply: Value = serde_json::from_str(&inflate(&wire.message().await.payload)).expect("JSON");
    assert_eq!(reply["1"]["params"]["text"], numbers);
    // But not out of all proportion.
    wire.send(&wire.publish(0, 0, "apiz/1", deflate(&echo(2 << 20)))).await;
    let reply = inflate(&wire.message().await.payload);
    assert_eq!(root_failure(reply.as_bytes()), -95002);
    // One byte more: its header is enough.
    let over = wire.publish(0, 0, "api/1", echo(largest + 1));
    wire.send(over.get(..4).expect("a header")).await;
    wire.expect_end().await;
}

#[tokio::test]
async fn frames_may_come_byte_by_byte_or_all_at_once() {
    let server = TestServer::start();
    for version in ALL {
        let connect = Connect::thing(version, "modem").frame();
        let mut wire = Wire::open(&server, version).await;
        let publish = wire.publish(2, 77, "api/0001", ASK);
        let big = wire.publish(0, 0, "api/2", format!("{ASK}{}", " ".repeat(300)));
        for byte in [&connect, &publish, PING, &big].concat() {
            wire.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        wire.connack = wire.frame().await.expect("a CONNACK");
        wire.expect(&[0x40, 2, 0, 77]).await;
        assert_eq!(wire.message().await.texts(), ("reply/0001", DONE));
        wire.expect(&[0xd0, 0]).await;
        assert_eq!(wire.message().await.texts(), ("reply/2", DONE));

        let mut wire = Wire::open(&server, version).await;
        wire.send(&[&connect, &publish, PING, &big, DISCONNECT, &publish].concat()).await;
        wire.connack = wire.frame().await.expect("a CONNACK");
        wire.expect(&[0x40, 2, 0, 77]).await;
        assert_eq!(wire.message().await.texts(), ("reply/0001", DONE));
        wire.expect(&[0xd0, 0]).await;
        assert_eq!(wire.message().await.texts(), ("reply/2", DONE));
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn what_comes_behind_a_long_request_stays_behind_it() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V311, "busy").open(&server).await;
    let asked = |number| format!(r#""{number}":{{"command":"diag.ping"}}"#);
    let long = format!("{{{}}}", (0..1000).map(asked).collect::<Vec<_>>().join(","));
    let answered = |number| format!(r#""{number}":{{"success":true}}"#);
    let done = format!("{{{}}}", (0..1000).map(answered).collect::<Vec<_>>().join(","));
    let sent = ["1", "2", "3"].map(|number| {
        let text = if number == "2" { ASK } else { &long };
        wire.publish(0, 0, &format!("api/{number}"), text)
    });
    wire.send(&[sent.concat().as_slice(), PING].concat()).await;
    assert_eq!(wire.message().await.texts(), ("reply/1", &*done));
    assert_eq!(wire.message().await.texts(), ("reply/2", DONE));
    assert_eq!(wire.message().await.texts(), ("reply/3", &*done));
    wire.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn who_shuts_its_side_still_gets_its_answers() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for (index, version) in ALL.into_iter().enumerate() {
        let key = format!("brief-{index}");
        let mut wire = Wire::open(&server, version).await;
        let connect = Connect::thing(version, &key).frame();
        wire.send(&[connect, wire.publish(2, 1, "api", ASK)].concat()).await;
        wire.shut().await;
        wire.connack = wire.frame().await.expect("a CONNACK");
        wire.expect(&[0x40, 2, 0, 1]).await;
        assert_eq!(wire.message().await.texts(), ("reply", DONE));
        wire.expect_end().await;
        assert_eq!(end_reason(&mut operator, &key).await, "connection_lost");
    }
}

#[tokio::test]
async fn who_is_not_welcome_learns_why() {
    let server = TestServer::start();
    let check = async |connect: Vec<u8>, answer: &[u8]| {
        let mut wire = Wire::open(&server, V311).await;
        wire.send(&connect).await;
        let refusal = wire.frame().await;
        assert_eq!(refusal.as_deref(), Some(answer), "{connect:x?}");
        wire.expect_end().await;
    };
    let both = async |connect: &dyn Fn(Version) -> Connect, three: u8, five: u8| {
        check(connect(V31).frame(), &[0x20, 2, 0, three]).await;
        check(connect(V311).frame(), &[0x20, 2, 0, three]).await;
        check(connect(V5).frame(), &[0x20, 3, 0, five, 0]).await;
    };
    let login = |user: &str, password: &str| {
        let (user, password) = (user.to_owned(), password.to_owned());
        move |version| Connect::login(version, "c", &user, &password)
    };
    // Bad logins.
    both(&login("mower", "wrong"), 4, 0x86).await;
    both(&login("mower", ""), 4, 0x86).await;
    both(&login("", TOKEN), 4, 0x86).await;
    both(&login(&"k".repeat(129), TOKEN), 4, 0x86).await;
    both(&login("plant/7", TOKEN), 4, 0x86).await;
    both(&login("operator@basicorg.example", "wrong"), 4, 0x86).await;
    both(&login("nobody@basicorg.example", "demo-operator-password"), 4, 0x86).await;
    // No login.
    let anonymous = |version| Connect { login: None, ..Connect::thing(version, "mower") };
    both(&anonymous, 5, 0x87).await;
    // Client ids.
    let long = "c".repeat(257);
    both(&|version| Connect::thing(version, "mower").id(&long), 2, 0x85).await;
    both(&|version| Connect::thing(version, "mower").id("a\u{7}b"), 2, 0x85).await;
    let nameless = |version| Connect::thing(version, "mower").id("");
    check(nameless(V31).frame(), &[0x20, 2, 0, 2]).await;
    check(nameless(V311).resuming().frame(), &[0x20, 2, 0, 2]).await;
    nameless(V311).open(&server).await.expect_quiet().await;
    // Wills where only the server speaks.
    both(&|version| Connect::thing(version, "mower").will("reply/1", ""), 5, 0x90).await;
    // Protocol levels.
    let level = |name: &str, level: u8| frame(0x10, &[&text(name), &[level, 2, 0, 60, 0, 1, 99]]);
    check(level("MQTT", 3), &[0x20, 2, 0, 1]).await;
    check(level("MQIsdp", 4), &[0x20, 2, 0, 1]).await;
    check(level("MQTT", 0), &[0x20, 2, 0, 1]).await;
    check(level("MQTT", 6), &[0x20, 3, 0, 0x84, 0]).await;
    check(level("MQTT", 255), &[0x20, 3, 0, 0x84, 0]).await;
    // Bridges of mosquitto, 3.1 and 3.1.1 with a bit more, lack nothing but a login.
    check(level("MQIsdp", 0x83), &[0x20, 2, 0, 5]).await;
    check(level("MQTT", 0x84), &[0x20, 2, 0, 5]).await;
}

#[tokio::test]
async fn a_password_that_is_no_text_is_a_bad_password() {
    let server = TestServer::start();
    for (version, refusal) in [(V311, &[0x20, 2, 0, 4][..]), (V5, &[0x20, 3, 0, 0x86, 0])] {
        let mut connect = Connect::login(version, "c", "mower", "xx").frame();
        let end = connect.len() - 2;
        connect.splice(end.., [0xff, 0xfe]);
        let mut wire = Wire::open(&server, version).await;
        wire.send(&connect).await;
        wire.expect(refusal).await;
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", "1")]);
    let mut first = Connect::thing(V311, "first").open(&server).await;
    for version in [V31, V311, V5] {
        let mut wire = Wire::open(&server, version).await;
        wire.send(&Connect::thing(version, "second").frame()).await;
        let refusal = wire.frame().await.expect("a CONNACK");
        if version == V5 {
            // What it says is the packet's last property.
            let text = "The server is full for your address: limits.connections_per_address, or nine \
                        tenths of limits.connections, is reached; try again.";
            assert!(refusal.ends_with(text.as_bytes()), "{refusal:?}");
            assert_eq!(refusal[3..5], [0, 0x89], "{refusal:?}");
        } else {
            assert_eq!(refusal, [0x20, 2, 0, 3]);
        }
        wire.expect_end().await;
    }
    // It takes no packet that is as long as those words.
    let small = Connect::thing(V5, "second").properties(&[0x27, 0, 0, 0, 64]);
    let mut wire = Wire::open(&server, V5).await;
    wire.send(&small.frame()).await;
    wire.expect(&[0x20, 3, 0, 0x89, 0]).await;
    first.send(&first.publish(0, 0, "api", ASK)).await;
    assert_eq!(first.message().await.texts(), ("reply", DONE));
    first.send(DISCONNECT).await;
    first.expect_end().await;
    eventually("there is room again", async || {
        let mut wire = Wire::open(&server, V311).await;
        wire.send(&Connect::thing(V311, "second").frame()).await;
        wire.frame().await.is_some_and(|connack| connack == [0x20, 2, 0, 0])
    })
    .await;
}

#[tokio::test]
async fn who_does_not_begin_with_a_good_connect_is_dropped_without_a_word() {
    let server = TestServer::start();
    let good = Connect::thing(V311, "mower").frame();
    let flags = |flags: u8| {
        let mut frame = good.clone();
        frame[9] = flags;
        frame
    };
    let body = |body: &[u8]| frame(0x10, &[body]);
    let mut bad_text = Connect::thing(V311, "mower").id("xx").frame();
    bad_text.splice(14..16, [0xc3, 0x28]);
    let mut nul = bad_text.clone();
    nul.splice(14..16, [b'a', 0]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("PINGREQ", PING.to_vec()),
        ("DISCONNECT", DISCONNECT.to_vec()),
        ("PUBLISH", frame(0x30, &[&text("api"), ASK.as_bytes()])),
        ("SUBSCRIBE", frame(0x82, &[b"\0\x01", &text("a"), b"\0"])),
        ("CONNACK", vec![0x20, 2, 0, 0]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        ("type 0", vec![0, 0]),
        ("type 15", vec![0xf0, 0]),
        ("a length of five bytes", vec![0x10, 0xff, 0xff, 0xff, 0xff, 1]),
        ("a CONNECT of 256 MB", vec![0x10, 0xff, 0xff, 0xff, 0x7f]),
        ("a CONNECT of 64 KiB", vec![0x10, 0x80, 0x80, 0x04]),
        ("flags in the header", [&[0x11], &good[1..]].concat()),
        ("nothing in it", body(b"")),
        ("another protocol", body(b"\0\x04AMQP\x04\x02\0\x3c\0\x01c")),
        ("cut off", body(&good[2..good.len() - 1])),
        ("bytes after its end", body(&[&good[2..], b"x"].concat())),
        ("the reserved flag", flags(0xc3)),
        ("will QoS without will", flags(0xca)),
        ("will retain without will", flags(0xe2)),
        ("password alone", flags(0x42)),
        ("a client id that is not UTF-8", bad_text),
        ("a client id with U+0000", nul),
    ];
    for (what, bytes) in cases {
        let mut wire = Wire::open(&server, V311).await;
        wire.send(&bytes).await;
        assert_eq!(wire.frame().await, None, "{what}");
    }
    Connect::thing(V311, "mower").open(&server).await.expect_quiet().await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_dropped_alone() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut bystander = Connect::thing(V311, "bystander").open(&server).await;
    let connect = Connect::thing(V311, "rough").frame();
    // The frame in 3.1.1, and the reason code of MQTT 5 if it is the same frame there.
    let cases: &[(&str, &[u8], Option<u8>)] = &[
        ("a second CONNECT", &connect, Some(0x82)),
        ("CONNACK", b"\x20\x02\0\0", None),
        ("SUBACK", b"\x90\x03\0\x01\0", None),
        ("PINGRESP", b"\xd0\0", Some(0x82)),
        ("type 0", b"\0\0", Some(0x81)),
        ("AUTH", b"\xf0\0", Some(0x82)),
        ("QoS 3", b"\x36\x05\0\x01a\0\x01", Some(0x81)),
        ("DUP with QoS 0", b"\x38\x03\0\x01a", Some(0x81)),
        ("a topic with #", b"\x30\x05\0\x03a/#", None),
        ("a topic with +", b"\x30\x06\0\x03a/+\0", Some(0x90)),
        ("no topic", b"\x30\x03\0\0\0", Some(0x82)),
        ("a topic that is not UTF-8", b"\x30\x06\0\x02\xc3\x28\0x", Some(0x81)),
        ("a surrogate in a topic", b"\x30\x06\0\x03\xed\xa0\x80\0", Some(0x81)),
        ("U+0000 in a topic", b"\x30\x04\0\x01\0\0", Some(0x81)),
        ("a topic beyond the frame", b"\x30\x03\0\xffa", Some(0x81)),
        ("no packet id", b"\x32\x04\0\x01a\x01", Some(0x81)),
        ("SUBSCRIBE with other flags", b"\x80\x06\0\x01\0\x01a\0", Some(0x81)),
        ("SUBSCRIBE without filter", b"\x82\x02\0\x01", None),
        ("SUBSCRIBE with QoS 3", b"\x82\x06\0\x01\0\x01a\x03", None),
        ("a filter that is not UTF-8", b"\x82\x06\0\x01\0\x01\xff\0", None),
        ("UNSUBSCRIBE without filter", b"\xa2\x02\0\x01", None),
        ("PUBREL with other flags", b"\x60\x02\0\x01", Some(0x81)),
        ("PINGREQ with a body", b"\xc0\x01\0", Some(0x81)),
        ("a length of five bytes", b"\x30\xff\xff\xff\xff\x01", Some(0x81)),
        ("more than the limit", b"\x30\x81\x80\x40", Some(0x95)),
    ];
    for (what, bytes, code) in cases {
        for version in [V311, V5] {
            if version == V5 && code.is_none() {
                continue;
            }
            let mut wire = Connect::thing(version, "rough").open(&server).await;
            wire.send(bytes).await;
            let answer = wire.frame().await;
            let expected = code.filter(|_| version == V5).map(|code| vec![0xe0, 1, code]);
            assert_eq!(answer, expected, "{what} {version:?}");
            if expected.is_some() {
                wire.expect_end().await;
            }
            assert_eq!(end_reason(&mut operator, "rough").await, "protocol_error", "{what}");
        }
    }
    bystander.expect_quiet().await;
}

#[tokio::test]
async fn things_may_share_a_client_id() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut wires = Vec::new();
    for version in ALL {
        for number in 0..2 {
            let key = format!("device-{version:?}-{number}");
            wires.push(Connect::thing(version, &key).id("telemetry-app").open(&server).await);
        }
    }
    // The same key in another organisation is another thing.
    let york = Connect::login(V311, "telemetry-app", "device-V31-0", "demo-token-yorkorg");
    wires.push(york.open(&server).await);
    for wire in &mut wires {
        wire.send(&wire.publish(0, 0, "api/1", ASK)).await;
        assert_eq!(wire.message().await.texts(), ("reply/1", DONE));
        wire.expect_quiet().await;
    }
    assert_eq!(sessions(&mut operator, r#"{"kind":"application"}"#).await.len(), 6);
}

#[tokio::test]
async fn the_same_login_takes_its_client_id_over_and_another_client_id_is_served_beside_it() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for (index, version) in ALL.into_iter().enumerate() {
        let key = format!("mower-{index}");
        let connect = Connect::thing(version, &key);
        let mut beside = connect.clone().id("beside").open(&server).await;
        let mut older = connect.open(&server).await;
        let mut newer = connect.open(&server).await;
        if version == V5 {
            older.expect(&[0xe0, 1, 0x8e]).await;
        }
        older.expect_end().await;
        newer.expect_quiet().await;
        beside.expect_quiet().await;
        let active = sessions(&mut operator, &format!(r#"{{"thingKey":"{key}"}}"#)).await;
        let addresses: Vec<_> =
            active.iter().map(|s| s["connInfo"]["remoteAddr"].clone()).collect();
        assert_eq!(addresses, [newer.address(), beside.address()]);
        let ended = format!(r#"{{"thingKey":"{key}","status":"ENDED"}}"#);
        let ended = sessions(&mut operator, &ended).await;
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0]["endReason"], "replaced");
        assert_eq!(ended[0]["status"], "LOGGED_OUT");
        assert_eq!(ended[0]["connInfo"]["remoteAddr"], older.address());
        assert_eq!(ended[0]["connInfo"]["protocol"], "mqtt");
    }
    // Users, too.
    let user = Connect::login(V311, "console", "viewer@basicorg.example", "demo-viewer-password");
    let mut older = user.open(&server).await;
    let mut newer = user.open(&server).await;
    older.expect_end().await;
    newer.expect_quiet().await;
    // Without a client id nobody is taken over.
    let nameless = Connect::thing(V311, "nameless").id("");
    let (mut one, mut two) = (nameless.open(&server).await, nameless.open(&server).await);
    one.expect_quiet().await;
    two.expect_quiet().await;
}

#[tokio::test]
async fn silence_ends_a_connection_after_twice_its_keep_alive_or_once_and_a_half_in_mqtt_5() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut never = Connect { keep_alive_s: 0, ..Connect::thing(V31, "never") }.open(&server).await;
    let check = async |version: Version, patience_ms: u64| {
        let connect =
            Connect { keep_alive_s: 1, ..Connect::thing(version, &format!("{version:?}")) };
        let mut wire = connect.open(&server).await;
        // A packet starts the time anew.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let last = Instant::now();
        wire.expect_quiet().await;
        if version == V5 {
            wire.expect(&[0xe0, 1, 0x8d]).await;
        }
        wire.expect_end().await;
        assert!(last.elapsed() >= Duration::from_millis(patience_ms), "{version:?}");
    };
    tokio::join!(check(V31, 2000), check(V311, 2000), check(V5, 1500));
    for version in ALL {
        assert_eq!(end_reason(&mut operator, &format!("{version:?}")).await, "keep_alive");
    }
    never.expect_quiet().await;
}

#[tokio::test]
async fn a_session_shows_the_connection_and_ends_with_it() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let listed = r#"{"thingKey":"mower"}"#;
    for (version, last, reason) in [
        (V31, DISCONNECT, "logged_out"),
        (V311, DISCONNECT, "logged_out"),
        (V5, DISCONNECT, "logged_out"),
    ] {
        let mut wire = Connect::thing(version, "mower").open(&server).await;
        wire.send(&wire.publish(0, 0, "api", ASK)).await;
        wire.message().await;
        let session = &sessions(&mut operator, listed).await[0];
        assert_eq!(session["connInfo"]["protocol"], "mqtt");
        assert_eq!(session["connInfo"]["remoteAddr"], wire.address());
        assert_eq!(session["commandCount"], 1);
        wire.send(last).await;
        wire.expect_end().await;
        assert_eq!(end_reason(&mut operator, "mower").await, reason);
    }
    let wire = Connect::thing(V311, "mower").open(&server).await;
    drop(wire);
    assert_eq!(end_reason(&mut operator, "mower").await, "connection_lost");
}

#[tokio::test]
async fn an_ended_session_closes_its_connection_after_the_answer() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "leaver").open(&server).await;
        let request = r#"{"1":{"command":"session.info"},"2":{"command":"session.end"}}"#;
        wire.send(&wire.publish(2, 5, "api/1", request)).await;
        wire.expect(&[0x40, 2, 0, 5]).await;
        let reply = wire.message().await;
        assert!(reply.texts().1.ends_with(r#""2":{"success":true}}"#), "{reply:?}");
        if version == V5 {
            wire.expect(DISCONNECT).await;
        }
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn a_message_that_must_come_once_is_executed_once() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "once").open(&server).await;
        let count = async |wire: &mut Wire| {
            wire.send(&wire.publish(0, 0, "api", r#"{"1":{"command":"session.info"}}"#)).await;
            let reply: Value = serde_json::from_slice(&wire.message().await.payload).expect("JSON");
            reply["1"]["params"]["commandCount"].as_u64().expect("a count")
        };
        let before = count(&mut wire).await;
        wire.send(&wire.publish(4, 5, "api/1", ASK)).await;
        wire.expect(&[0x50, 2, 0, 5]).await;
        assert_eq!(wire.message().await.texts(), ("reply/1", DONE));
        // Sent again, with and without DUP.
        for flags in [0x0c, 4] {
            wire.send(&wire.publish(flags, 5, "api/1", ASK)).await;
            wire.expect(&[0x50, 2, 0, 5]).await;
        }
        wire.expect_quiet().await;
        wire.send(&[0x62, 2, 0, 5]).await;
        wire.expect(&[0x70, 2, 0, 5]).await;
        // PUBREL again: it is answered, with a code in MQTT 5.
        wire.send(&[0x62, 2, 0, 5]).await;
        match version {
            V5 => wire.expect(&[0x70, 3, 0, 5, 0x92]).await,
            _ => wire.expect(&[0x70, 2, 0, 5]).await,
        }
        // The id is free for the next message.
        wire.send(&wire.publish(4, 5, "api/2", ASK)).await;
        wire.expect(&[0x50, 2, 0, 5]).await;
        assert_eq!(wire.message().await.texts(), ("reply/2", DONE));
        assert_eq!(count(&mut wire).await, before + 3);
    }
}

#[tokio::test]
async fn a_subscriber_with_the_same_login_sees_the_replies_of_who_has_gone() {
    let server = TestServer::start();
    for (version, end) in [(V31, true), (V311, false), (V5, true)] {
        let listener = Connect::thing(version, "shop");
        let mut listener = listener.id("mosquitto_sub").open(&server).await;
        let mut other = Connect::thing(version, "other-shop").open(&server).await;
        assert_eq!(listener.subscribe("reply/#", 1).await, 1);
        assert_eq!(other.subscribe("reply/#", 1).await, 1);
        let publisher = Connect::thing(version, "shop").id("mosquitto_pub");
        // One that stays gets its reply itself.
        let mut staying = publisher.clone().id("staying").open(&server).await;
        staying.send(&staying.publish(2, 1, "api/stays", ASK)).await;
        staying.expect(&[0x40, 2, 0, 1]).await;
        assert_eq!(staying.message().await.texts(), ("reply/stays", DONE));
        staying.expect_quiet().await;
        staying.send(DISCONNECT).await;
        staying.expect_end().await;
        // One that subscribed itself does, too.
        let mut subscribed = publisher.clone().id("subscribed").open(&server).await;
        assert_eq!(subscribed.subscribe("reply/#", 0).await, 0);
        let request = subscribed.publish(0, 0, "api/subscribed", ASK);
        subscribed.send(&[&request, DISCONNECT].concat()).await;
        assert_eq!(subscribed.message().await.texts(), ("reply/subscribed", DONE));
        subscribed.expect_end().await;
        // One that is gone does not: with DISCONNECT at once, or with the end of its connection.
        let mut gone = Wire::open(&server, version).await;
        let request = gone.publish(2, 1, "api/gone", ASK);
        let last = if end { DISCONNECT } else { b"" };
        gone.send(&[&publisher.frame(), &request, last].concat()).await;
        gone.shut().await;
        assert_eq!(listener.message().await.texts(), ("reply/gone", DONE), "{version:?}");
        listener.expect_quiet().await;
        other.expect_quiet().await;
        // As mosquitto_pub does: DISCONNECT after PUBACK, reply or not.
        let mut gone = publisher.open(&server).await;
        gone.send(&gone.publish(2, 1, "apiz/later", deflate(ASK))).await;
        gone.expect(&[0x40, 2, 0, 1]).await;
        gone.send(DISCONNECT).await;
        gone.message().await;
        gone.expect_end().await;
        // Not subscribed to: replyz.
        listener.expect_quiet().await;
        assert_eq!(listener.subscribe("#", 1).await, 1);
        let mut gone = Wire::open(&server, version).await;
        let connect = Connect::thing(version, "shop").id("third").frame();
        let request = gone.publish(0, 0, "apiz/third", deflate(ASK));
        gone.send(&[&connect, &request, DISCONNECT].concat()).await;
        let reply = listener.message().await;
        assert_eq!((&*reply.topic, &*inflate(&reply.payload)), ("replyz/third", DONE));
        listener.expect_quiet().await;
        other.expect_quiet().await;
    }
}

#[tokio::test]
async fn an_ordinary_client_asks_and_is_answered() {
    let server = TestServer::start();
    let address = server.address("mqtt");
    let mut options = MqttOptions::new("rumqttc", address.ip().to_string(), address.port());
    options.set_credentials("ordinary", TOKEN).set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("reply/#", QoS::AtLeastOnce).await.expect("room");
    client.subscribe("plant/+", QoS::ExactlyOnce).await.expect("room");
    for (index, qos) in
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate()
    {
        client.publish(format!("api/000{index}"), qos, false, ASK).await.expect("room");
        client.publish(format!("plant/{index}"), qos, false, "21.5").await.expect("room");
    }
    let mut got = Vec::new();
    while got.len() < 6 {
        let event = tokio::time::timeout(SOON, events.poll()).await.expect("an event");
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("a connection") {
            let payload = String::from_utf8(publish.payload.to_vec()).expect("text");
            got.push((publish.topic, payload));
        }
    }
    got.sort();
    let expected = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
    for index in 0..3 {
        assert_eq!(got[index], expected(&format!("plant/{index}"), "21.5"));
        assert_eq!(got[index + 3], expected(&format!("reply/000{index}"), DONE));
    }
}
