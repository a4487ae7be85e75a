//! Ordinary MQTT topics, through the broker.

use client::Version::{V5, V31, V311};
use support::mqtt::{ALL, ASK, Connect, DISCONNECT, DONE, Wire, frame, text};
use support::{Endpoints, TestServer, call, end_reason, eventually};

const YORK: &str = "demo-token-yorkorg";
const QUOTA_EXCEEDED: u8 = 0x97;
const FAILURE: u8 = 0x80;

async fn thing(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V311, key).open(server).await
}

#[tokio::test]
async fn nobody_sees_another_organisations_topics() {
    let server = TestServer::start();
    let mut basic = thing(&server, "device").await;
    let mut york = Connect::login(V311, "device", "device", YORK).open(&server).await;
    for wire in [&mut basic, &mut york] {
        for filter in ["#", "+/+", "plant/#", "plant/7", "$share/g/plant/+"] {
            assert!(wire.subscribe(filter, 1).await < FAILURE, "{filter}");
        }
    }
    // The organisation's own subscriber sees a message once, and once more for the share.
    let mut got = Vec::new();
    basic.tell("plant/7", "of basic").await;
    for _ in 0..2 {
        got.push(basic.message().await);
    }
    assert!(got.iter().all(|m| m.texts() == ("plant/7", "of basic") && !m.retain), "{got:?}");
    drop(Connect::thing(V311, "mortal").will("plant/8", "of basic").open(&server).await);
    // `#` is told of the thing's connection, and of its end, as well.
    let mut heard = Vec::new();
    for _ in 0..4 {
        let message = basic.message().await;
        let (topic, payload) = message.texts();
        heard.push((topic.to_owned(), payload.to_owned()));
    }
    heard.sort_unstable();
    let (wills, connected) = heard.split_at(2);
    assert!(
        wills.iter().all(|(topic, text)| topic == "plant/8" && text == "of basic"),
        "{heard:?}"
    );
    let connection = |payload: &str| ("thing/mortal/connected".to_owned(), payload.to_owned());
    assert_eq!(connected, [connection("false"), connection("true")]);
    let mut keeper = thing(&server, "device-2").await;
    assert_eq!(basic.message().await.texts(), ("thing/device-2/connected", "true"));
    keeper.retain("plant/kept", "of basic").await;
    for _ in 0..2 {
        assert_eq!(basic.message().await.texts(), ("plant/kept", "of basic"));
    }
    let mut later = Connect::login(V311, "later", "later", YORK).open(&server).await;
    assert_eq!(york.message().await.texts(), ("thing/later/connected", "true"));
    assert_eq!(later.subscribe("#", 1).await, 1);
    later.expect_quiet().await;
    // The first that comes to the others is their own.
    york.tell("plant/7", "of york").await;
    for _ in 0..2 {
        assert_eq!(york.message().await.texts(), ("plant/7", "of york"));
    }
    york.expect_quiet().await;
    assert_eq!(later.message().await.texts(), ("plant/7", "of york"));
    basic.tell("other", "of basic").await;
    assert_eq!(basic.message().await.texts(), ("other", "of basic"));
    basic.expect_quiet().await;
    // An organisation's id in a topic is a topic like any other.
    later.tell("5cf885f41c5bd771c8065be8/plant/7", "of york").await;
    assert_eq!(later.message().await.topic, "5cf885f41c5bd771c8065be8/plant/7");
    basic.expect_quiet().await;
}

#[tokio::test]
async fn filters_match_what_they_say() {
    let server = TestServer::start();
    let topics = ["a", "a/", "a/b", "a/b/c", "/a", "/", "b/a", "A", "ä/ö"];
    let cases: [(&str, &[&str]); 11] = [
        ("a", &["a"]),
        ("a/", &["a/"]),
        ("a/+", &["a/", "a/b"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c"]),
        ("+", &["a", "A"]),
        ("+/+", &["a/", "a/b", "/a", "/", "b/a", "ä/ö"]),
        ("/+", &["/a", "/"]),
        ("+/a", &["/a", "b/a"]),
        ("a/+/c", &["a/b/c"]),
        ("ä/#", &["ä/ö"]),
        ("#", &topics),
    ];
    let mut writer = thing(&server, "writer").await;
    for (filter, expected) in cases {
        let mut reader = thing(&server, "reader").await;
        assert_eq!(reader.subscribe(filter, 0).await, 0);
        for topic in topics {
            writer.tell(topic, topic).await;
        }
        let mut got = Vec::new();
        for _ in expected {
            got.push(reader.message().await.topic);
        }
        assert_eq!(got, expected, "{filter}");
        // Neither what was asked of the server nor what it answered goes to anybody else.
        writer.send(&writer.publish(0, 0, "api/1", ASK)).await;
        assert_eq!(writer.message().await.texts(), ("reply/1", DONE));
        reader.unsubscribe(filter).await;
        assert_eq!(reader.subscribe("marker", 0).await, 0);
        writer.tell("marker", "").await;
        assert_eq!(reader.message().await.topic, "marker", "{filter}");
    }
}

#[tokio::test]
async fn messages_come_with_the_lower_quality_of_service_and_in_order() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for (version, granted) in [(V31, 0), (V311, 1), (V5, 1)] {
        let mut reader = Connect::thing(version, "reader").open(&server).await;
        assert_eq!(reader.subscribe("news", granted).await, granted);
        for qos in 0..=2_u8 {
            writer.send(&writer.publish(qos << 1, 5, "news", "x")).await;
            match qos {
                0 => {}
                1 => writer.expect(&[0x40, 2, 0, 5]).await,
                _ => {
                    // Sent again before it is released: delivered once.
                    writer.send(&writer.publish(0x0c, 5, "news", "x")).await;
                    writer.expect(&[0x50, 2, 0, 5]).await;
                    writer.expect(&[0x50, 2, 0, 5]).await;
                    writer.send(&[0x62, 2, 0, 5]).await;
                    writer.expect(&[0x70, 2, 0, 5]).await;
                }
            }
            let message = reader.message().await;
            assert_eq!(message.texts(), ("news", "x"));
            assert_eq!(message.qos, granted.min(qos), "{version:?} {qos}");
            assert!(!message.dup && !message.retain);
        }
        let many: Vec<u8> =
            (0..500).flat_map(|number| writer.publish(0, 0, "news", number.to_string())).collect();
        writer.send(&many).await;
        for number in 0..500 {
            assert_eq!(reader.message().await.texts().1, number.to_string());
        }
        reader.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_client_gets_its_own_messages_too() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "self").open(&server).await;
        assert_eq!(wire.subscribe("thoughts/#", 1).await, 1);
        wire.send(&wire.publish(2, 5, "thoughts/1", "x")).await;
        wire.expect(&[0x40, 2, 0, 5]).await;
        assert_eq!(wire.message().await.texts(), ("thoughts/1", "x"));
        wire.unsubscribe("thoughts/#").await;
        wire.tell("thoughts/1", "y").await;
        wire.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_retained_message_waits_for_subscribers_until_it_is_cleared() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    writer.retain("kept/1", "old").await;
    writer.retain("kept/1", "new").await;
    writer.retain("kept/2", "second").await;
    for version in ALL {
        let mut reader = Connect::thing(version, "reader").open(&server).await;
        // With every SUBSCRIBE.
        for _ in 0..2 {
            assert_eq!(reader.subscribe("kept/#", 1).await, 1);
            let mut got = [reader.message().await, reader.message().await];
            got.sort_by(|a, b| a.topic.cmp(&b.topic));
            assert_eq!(got[0].texts(), ("kept/1", "new"));
            assert_eq!(got[1].texts(), ("kept/2", "second"));
            assert!(got.iter().all(|message| message.retain && message.qos == 1));
        }
        reader.expect_quiet().await;
    }
    let mut reader = thing(&server, "reader").await;
    writer.retain("kept/1", "").await;
    assert_eq!(reader.subscribe("kept/#", 1).await, 1);
    assert_eq!(reader.message().await.texts(), ("kept/2", "second"));
    // The clearing itself is a message like any other.
    writer.retain("kept/2", "").await;
    let message = reader.message().await;
    assert_eq!((message.texts(), message.retain), (("kept/2", ""), false));
    // Nothing is retained where the server speaks.
    writer.retain("reply/1", "forged").await;
    assert_eq!(reader.subscribe("reply/1", 1).await, 1);
    reader.expect_quiet().await;
}

#[tokio::test]
async fn nobody_speaks_for_the_server() {
    let server = TestServer::start();
    let mut forger = thing(&server, "forger").await;
    let mut victim = thing(&server, "victim").await;
    let mut twin = Connect::thing(V311, "victim").id("twin").open(&server).await;
    for filter in ["#", "reply/#", "notify/#", "replyz/#", "$share/g/#"] {
        assert!(victim.subscribe(filter, 1).await < FAILURE);
    }
    for wire in [&mut forger, &mut twin] {
        for topic in ["reply/1", "reply", "replyz/1", "notify/mailbox_activity", "$SYS/x", "$x"] {
            wire.tell(topic, DONE).await;
        }
        wire.tell("marker", "").await;
        assert_eq!(victim.message().await.topic, "marker");
        assert_eq!(victim.message().await.topic, "marker");
    }
    // Nor does a will, whose CONNECT is refused.
    for topic in ["api", "reply/1", "notify/x"] {
        let mut wire = Wire::open(&server, V311).await;
        wire.send(&Connect::thing(V311, "forger").will(topic, ASK).frame()).await;
        wire.expect(&[0x20, 2, 0, 5]).await;
        wire.expect_end().await;
    }
    victim.expect_quiet().await;
}

#[tokio::test]
async fn filters_that_are_not_for_clients_are_refused_one_by_one() {
    let server = TestServer::start();
    for version in [V31, V311] {
        let mut wire = Connect::thing(version, "curious").open(&server).await;
        let filters = [
            ("api/#", FAILURE),
            ("plant/#", 1),
            ("$SYS/#", FAILURE),
            ("apiz", FAILURE),
            ("a/#/b", FAILURE),
            ("reply/#", 0),
            ("$share/g/$SYS/#", FAILURE),
            ("", FAILURE),
            ("b/+", 1),
        ];
        let wishes: Vec<u8> =
            filters.iter().flat_map(|(f, code)| [text(f), vec![code & 1]].concat()).collect();
        wire.send(&frame(0x82, &[b"\0\x05", &wishes])).await;
        let codes: Vec<u8> = filters.iter().map(|(_, code)| *code).collect();
        wire.expect(&frame(0x90, &[b"\0\x05", &codes])).await;
        wire.tell("plant/7", "x").await;
        assert_eq!(wire.message().await.texts(), ("plant/7", "x"));
        wire.expect_quiet().await;
    }
}

#[tokio::test]
async fn filters_above_the_quota_are_refused_and_nothing_else_suffers() {
    let server = TestServer::with(&[("TR50D_LIMITS__BROKER_FILTERS", "2")]);
    let mut first = thing(&server, "first").await;
    let mut second = Connect::thing(V5, "second").open(&server).await;
    assert_eq!(first.subscribe("a", 1).await, 1);
    assert_eq!(first.subscribe("b/#", 1).await, 1);
    assert_eq!(first.subscribe("c", 1).await, FAILURE);
    assert_eq!(second.subscribe("c", 1).await, QUOTA_EXCEEDED);
    assert_eq!(second.subscribe("$share/g/a", 1).await, QUOTA_EXCEEDED);
    // A filter that is there already, and those that need no broker, are not counted.
    assert_eq!(second.subscribe("a", 1).await, 1);
    assert_eq!(second.subscribe("reply/#", 1).await, 1);
    first.tell("a", "x").await;
    assert_eq!(second.message().await.texts(), ("a", "x"));
    assert_eq!(first.message().await.texts(), ("a", "x"));
    second.send(&second.publish(0, 0, "api/1", ASK)).await;
    assert_eq!(second.message().await.texts(), ("reply/1", DONE));
    // Subscribing again to one's own filter is no second filter.
    assert_eq!(first.subscribe("b/#", 0).await, 0);
    // What is given up is room for others, at once or when the connection ends.
    first.unsubscribe("b/#").await;
    assert_eq!(second.subscribe("c", 1).await, 1);
    assert_eq!(second.subscribe("d", 1).await, QUOTA_EXCEEDED);
    drop(first);
    second.unsubscribe("a").await;
    eventually("there is room again", async || second.subscribe("d", 1).await == 1).await;
    second.expect_quiet().await;
}

#[tokio::test]
async fn a_will_comes_when_the_client_is_lost() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut reader = thing(&server, "reader").await;
    assert_eq!(reader.subscribe("wills/#", 1).await, 1);
    for version in ALL {
        let mortal = |payload| Connect::thing(version, "mortal").will("wills/1", payload);
        let mut wire = mortal("never").open(&server).await;
        wire.send(DISCONNECT).await;
        wire.expect_end().await;
        assert_eq!(end_reason(&mut operator, "mortal").await, "logged_out");
        drop(mortal("lost").open(&server).await);
        assert_eq!(reader.message().await.texts(), ("wills/1", "lost"));
        let mut wire = mortal("broken").open(&server).await;
        wire.send(&[0x20, 2, 0, 0]).await;
        assert_eq!(reader.message().await.texts(), ("wills/1", "broken"));
        let _older = mortal("taken over").open(&server).await;
        let newer = mortal("lost again").open(&server).await;
        assert_eq!(reader.message().await.texts(), ("wills/1", "taken over"));
        drop(newer);
        assert_eq!(reader.message().await.texts(), ("wills/1", "lost again"));
    }
    let silent = Connect::thing(V5, "mortal").will("wills/1", "silent");
    let _silent = Connect { keep_alive_s: 1, ..silent }.open(&server).await;
    assert_eq!(reader.message().await.texts(), ("wills/1", "silent"));
    // Retained, if the client wants that.
    let mut connect = Connect::thing(V311, "mortal");
    connect.will = Some(("wills/2", "kept", b"", true));
    drop(connect.open(&server).await);
    let message = reader.message().await;
    assert_eq!((message.texts(), message.retain), (("wills/2", "kept"), false));
    assert_eq!(reader.subscribe("wills/2", 1).await, 1);
    let message = reader.message().await;
    assert_eq!((message.texts(), message.retain), (("wills/2", "kept"), true));
}

#[tokio::test]
async fn members_of_a_share_get_each_message_once() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    let mut members = [
        Connect::thing(V311, "one").open(&server).await,
        Connect::thing(V5, "two").open(&server).await,
    ];
    let mut alone = thing(&server, "alone").await;
    for member in &mut members {
        assert_eq!(member.subscribe("$share/workers/jobs/+", 1).await, 1);
    }
    assert_eq!(alone.subscribe("$share/others/jobs/#", 1).await, 1);
    for number in 0..10 {
        writer.tell("jobs/1", &number.to_string()).await;
    }
    let mut got = Vec::new();
    for member in &mut members {
        for _ in 0..5 {
            got.push(member.message().await.texts().1.parse::<u8>().expect("a number"));
        }
        member.expect_quiet().await;
    }
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    for number in 0..10 {
        assert_eq!(alone.message().await.texts().1, number.to_string());
    }
    // One leaves: the other does the work.
    let [mut one, mut two] = members;
    one.unsubscribe("$share/workers/jobs/+").await;
    for number in 0..3 {
        writer.tell("jobs/1", &number.to_string()).await;
        assert_eq!(two.message().await.texts().1, number.to_string());
    }
    one.expect_quiet().await;
}

#[tokio::test]
async fn a_client_that_comes_back_finds_its_subscriptions_and_what_it_missed() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    for version in ALL {
        let connect = Connect::thing(version, &format!("reader-{version:?}")).resuming();
        let present = |wire: &Wire| wire.connack[2] == 1;
        let mut reader = connect.open(&server).await;
        assert!(!present(&reader));
        assert_eq!(reader.subscribe("news/#", 1).await, 1);
        assert_eq!(reader.subscribe("quick", 0).await, 0);
        assert_eq!(reader.subscribe("reply/#", 1).await, 1);
        // One is delivered and not acknowledged, two come while the client is away.
        writer.tell("news/0", "0").await;
        assert_eq!(reader.unacknowledged().await.texts(), ("news/0", "0"));
        reader.send(DISCONNECT).await;
        reader.expect_end().await;
        writer.tell("news/1", "1").await;
        writer.tell("news/2", "2").await;
        let mut reader = connect.open(&server).await;
        assert_eq!(present(&reader), version != V31);
        for number in 0..3 {
            let message = reader.message().await;
            assert_eq!(message.texts().1, number.to_string(), "{version:?}");
            assert_eq!((message.qos, message.dup), (1, number == 0));
        }
        // The subscriptions go on, those to replies as well.
        writer.tell("news/3", "3").await;
        assert_eq!(reader.message().await.texts(), ("news/3", "3"));
        writer.tell("quick", "4").await;
        assert_eq!(reader.message().await.texts(), ("quick", "4"));
        reader.send(&reader.publish(2, 5, "api/1", ASK)).await;
        reader.expect(&[0x40, 2, 0, 5]).await;
        let reply = reader.message().await;
        assert_eq!((reply.texts(), reply.qos), (("reply/1", DONE), 1));
        reader.expect_quiet().await;
        // A take-over keeps them, too.
        let mut newer = connect.open(&server).await;
        assert_eq!(present(&newer), version != V31);
        writer.tell("news/4", "4").await;
        assert_eq!(newer.message().await.texts(), ("news/4", "4"));
        // A clean session ends it.
        let clean = Connect { clean: true, ..connect.clone() };
        let mut clean = clean.open(&server).await;
        assert!(!present(&clean));
        writer.tell("news/5", "5").await;
        clean.expect_quiet().await;
        clean.send(DISCONNECT).await;
        clean.expect_end().await;
    }
}

#[tokio::test]
async fn a_user_who_switches_the_organisation_leaves_its_topics_behind() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    let mut york = Connect::login(V311, "york", "york", YORK).open(&server).await;
    let mut basic = thing(&server, "basic").await;
    let user = Connect::login(V311, "console", "admin@devicewise.com", "demo-admin-password");
    let mut user = user.open(&server).await;
    let switch = async |user: &mut Wire, key: &str| {
        let body =
            format!(r#"{{"1":{{"command":"session.org.switch","params":{{"key":"{key}"}}}}}}"#);
        user.send(&user.publish(0, 0, "api", body)).await;
        assert_eq!(user.message().await.texts(), ("reply", DONE));
    };
    switch(&mut user, "BasicOrg").await;
    assert_eq!(user.subscribe("plant/#", 1).await, 1);
    basic.tell("plant/7", "of basic").await;
    assert_eq!(user.message().await.texts(), ("plant/7", "of basic"));
    switch(&mut user, "YorkOrg").await;
    basic.tell("plant/7", "of basic").await;
    york.tell("plant/7", "of york").await;
    user.expect_quiet().await;
    assert_eq!(user.subscribe("plant/#", 1).await, 1);
    basic.tell("plant/7", "of basic").await;
    york.tell("plant/7", "of york").await;
    assert_eq!(user.message().await.texts(), ("plant/7", "of york"));
    // What the user publishes goes to where the user is.
    assert_eq!(york.subscribe("orders", 1).await, 1);
    assert_eq!(basic.subscribe("orders", 1).await, 1);
    user.tell("orders", "go").await;
    assert_eq!(york.message().await.texts(), ("orders", "go"));
    basic.expect_quiet().await;
}

#[tokio::test]
async fn a_state_is_not_taken_to_another_organisation() {
    let server = TestServer::start();
    let mut basic = thing(&server, "basic").await;
    let user = Connect::login(V311, "console", "admin@devicewise.com", "demo-admin-password");
    let user = user.resuming();
    for subscribe_first in [false, true] {
        let mut wire = user.open(&server).await;
        let subscribe = async |wire: &mut Wire| {
            assert_eq!(wire.subscribe("plant/#", 1).await, 1);
            assert_eq!(wire.subscribe("reply/#", 1).await, 1);
        };
        if subscribe_first {
            subscribe(&mut wire).await;
        }
        let body = r#"{"1":{"command":"session.org.switch","params":{"key":"BasicOrg"}}}"#;
        wire.send(&wire.publish(0, 0, "api", body)).await;
        assert_eq!(wire.message().await.texts(), ("reply", DONE));
        if !subscribe_first {
            subscribe(&mut wire).await;
        }
        wire.send(DISCONNECT).await;
        wire.expect_end().await;
        basic.tell("plant/7", "of basic").await;
        // Back, in the user's own organisation.
        let mut wire = user.open(&server).await;
        assert_eq!(wire.connack[2], 0, "{subscribe_first}");
        wire.expect_quiet().await;
        wire.send(DISCONNECT).await;
        wire.expect_end().await;
        drop(Connect { clean: true, ..user.clone() }.open(&server).await);
    }
}

#[tokio::test]
async fn a_filter_has_a_length() {
    let server = TestServer::start();
    for version in ALL {
        let mut wire = Connect::thing(version, "talker").open(&server).await;
        let code = if version == V5 { 0x8f } else { FAILURE };
        for stem in ["reply", "plant"] {
            let filter = format!("{stem}/{}", "x".repeat(1018));
            assert_eq!(wire.subscribe(&filter, 1).await, 1);
            assert_eq!(wire.subscribe(&format!("{filter}x"), 1).await, code);
        }
    }
}
