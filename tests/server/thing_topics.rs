//! Topics of things: publishes that are commands, and subscriptions to changes.

use client::Version::{self, V5, V311};
use serde_json::Value;
use support::mqtt::{ALL, Connect, DISCONNECT, Wire, frame};
use support::{Endpoints, TestServer, call, connect, eventually, reply};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const ADMIN: (&str, &str) = ("admin@devicewise.com", "demo-admin-password");
const REFUSED: u8 = 0x80;
const NOT_AUTHORIZED: u8 = 0x87;
const TOPIC_INVALID: u8 = 0x90;
const QUOTA_EXCEEDED: u8 = 0x97;
const PAYLOAD_INVALID: u8 = 0x99;

/// What the demo has not: a token that is restricted to its own thing, a user who may read
/// properties only, and one who may read nothing of things.
const MORE: &str = r##"
[[role]]
key = "narrow"
org = "BasicOrg"
permissions = ["property.current", "thing.list", "topic.subscribe"]
topic_subscribe = ["#"]

[[role]]
key = "ordinary"
org = "BasicOrg"
permissions = ["topic.subscribe"]
topic_subscribe = ["#"]

[[user]]
email = "ordinary@basicorg.example"
password = "demo-ordinary-password"
home = "BasicOrg"

[[user.membership]]
org = "BasicOrg"
roles = ["ordinary"]

[[user]]
email = "narrow@basicorg.example"
password = "demo-narrow-password"
home = "BasicOrg"

[[user.membership]]
org = "BasicOrg"
roles = ["narrow"]

[[application]]
name = "restricted"
org = "BasicOrg"
token = "restricted-token"
token_name = "restricted"
roles = ["device"]
auto_register = true
restrict_access_to_self = true
"##;

/// A server that knows more than the demo's.
fn server_with_more() -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
    let demo = std::fs::read_to_string(demo).expect("the demo's file");
    let file = dir.path().join("more.toml");
    std::fs::write(&file, demo + MORE).expect("written");
    let file = file.to_str().expect("UTF-8");
    (TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", file)]), dir)
}

async fn user(server: &Endpoints, version: Version, login: (&str, &str), id: &str) -> Wire {
    Connect::login(version, id, login.0, login.1).open(server).await
}

/// Publishes and returns the reason code of the acknowledgement, 0 if it has none.
async fn publish(wire: &mut Wire, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> u8 {
    wire.send(&wire.publish(qos << 1, 5, topic, payload)).await;
    let ack = wire.frame().await.expect("an acknowledgement");
    assert_eq!((ack[0], &ack[2..4]), (if qos == 1 { 0x40 } else { 0x50 }, &[0, 5][..]), "{ack:x?}");
    let code = ack.get(4).copied().unwrap_or(0);
    if qos == 2 && code < REFUSED {
        wire.send(&frame(0x62, &[&[0, 5]])).await;
        wire.expect(&[0x70, 2, 0, 5]).await;
    }
    code
}

async fn current(server: &Endpoints, command: &str, thing: &str, key: &str) -> Value {
    let mut operator = server.operator("http").await;
    let params = format!(r#"{{"thingKey":"{thing}","key":"{key}"}}"#);
    reply(&mut operator, command, &params).await["params"].clone()
}

#[tokio::test]
async fn publishes_are_commands() {
    let server = TestServer::start();
    for version in ALL {
        let mut mower = Connect::thing(version, "mower").open(&server).await;
        // As an Android client sends them, with exponents and all.
        for (qos, text, value) in [(1, "23.0", 23.0), (2, "1.0E-4", 1e-4), (1, " -7\n", -7.0)] {
            assert_eq!(publish(&mut mower, qos, "thing/self/property/temp", text).await, 0);
            let read = current(&server, "property.current", "mower", "temp").await;
            assert_eq!(read["value"], value, "{version:?}");
        }
        assert_eq!(publish(&mut mower, 1, "thing/mower/alarm/door/left", "2").await, 0);
        let read = current(&server, "alarm.current", "mower", "door/left").await;
        assert_eq!(read["state"], 2);
        assert_eq!(publish(&mut mower, 1, "thing/mower/attribute/note", " blue ").await, 0);
        let read = current(&server, "attribute.current", "mower", "note").await;
        assert_eq!(read["value"], " blue ");
        // QoS 0 has no answer; the next command of the connection comes after it. The retain flag
        // means nothing.
        mower.send(&mower.publish(1, 0, "thing/mower/property/temp", "99")).await;
        mower.send(&mower.publish(2, 1, "thing/mower/property/other", "1")).await;
        mower.expect(&[0x40, 2, 0, 1]).await;
        let read = current(&server, "property.current", "mower", "temp").await;
        assert_eq!(read["value"], 99);
        mower.expect_quiet().await;
    }
    // A user names the thing.
    let mut operator = user(&server, V5, OPERATOR, "operator").await;
    assert_eq!(publish(&mut operator, 1, "thing/mower/property/temp", "1").await, 0);
    assert_eq!(publish(&mut operator, 1, "thing/self/property/temp", "1").await, TOPIC_INVALID);
}

#[tokio::test]
async fn a_command_that_fails_is_acknowledged_with_the_reason() {
    let (server, _dir) = server_with_more();
    let mut mower = Connect::thing(V5, "mower").open(&server).await;
    let mut narrow =
        user(&server, V5, ("narrow@basicorg.example", "demo-narrow-password"), "narrow").await;
    let restricted = Connect::login(V5, "r", "restricted", "restricted-token");
    let mut restricted = restricted.open(&server).await;
    for qos in [1, 2] {
        let own = "thing/self/property/temp";
        assert_eq!(publish(&mut mower, qos, own, "warm").await, PAYLOAD_INVALID);
        assert_eq!(publish(&mut mower, qos, own, "").await, PAYLOAD_INVALID);
        assert_eq!(publish(&mut mower, qos, own, [0xff, 0xfe]).await, PAYLOAD_INVALID);
        assert_eq!(publish(&mut mower, qos, "thing/self/alarm/a", "1.5").await, PAYLOAD_INVALID);
        let unknown = "thing/unknown/property/temp";
        assert_eq!(publish(&mut mower, qos, unknown, "1").await, TOPIC_INVALID);
        for reserved in ["thing/self/location", "thing/self/connected", "thing/self", "thing/x/y/z"]
        {
            assert_eq!(publish(&mut mower, qos, reserved, "1").await, NOT_AUTHORIZED, "{reserved}");
        }
        let other = "thing/mower/property/temp";
        assert_eq!(publish(&mut narrow, qos, other, "1").await, NOT_AUTHORIZED);
        assert_eq!(publish(&mut restricted, qos, other, "1").await, NOT_AUTHORIZED);
        assert_eq!(publish(&mut restricted, qos, own, "1").await, 0);
    }
    // Before MQTT 5 it is acknowledged all the same.
    let mut old = Connect::thing(V311, "old").open(&server).await;
    old.tell("thing/self/property/temp", "warm").await;
    old.expect_quiet().await;
    let read = current(&server, "property.current", "old", "temp").await;
    assert!(read.is_null());
}

#[tokio::test]
async fn commands_by_topics_count_against_the_limit() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    let mut mower = Connect::thing(V5, "mower").open(&server).await;
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(publish(&mut mower, 1, "thing/self/property/temp", "1").await);
    }
    assert!(codes[..5].iter().all(|code| *code == 0), "{codes:?}");
    assert!(codes.contains(&QUOTA_EXCEEDED), "{codes:?}");
}

#[tokio::test]
async fn acknowledgements_come_in_order() {
    let server = TestServer::start();
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let mut burst = Vec::new();
    // More than may be under way at once.
    for pkid in 1..=9000_u16 {
        let topic = if pkid % 3 == 0 { "ordinary" } else { "thing/self/property/temp" };
        burst.extend(mower.publish(2, pkid, topic, pkid.to_string()));
    }
    mower.send(&burst).await;
    for pkid in 1..=9000_u16 {
        let [high, low] = pkid.to_be_bytes();
        mower.expect(&[0x40, 2, high, low]).await;
    }
    let read = current(&server, "property.current", "mower", "temp").await;
    assert_eq!(read["value"], 8999);
}

#[tokio::test]
async fn changes_are_told_to_those_who_subscribed_to_them() {
    let server = TestServer::start();
    for version in ALL {
        let mut mower = Connect::thing(version, "mower").open(&server).await;
        let mut reader = user(&server, version, OPERATOR, "reader").await;
        for (kind, key, command, value, told) in [
            ("property", "temp", "property.publish", r#""value":21.50"#, "21.5"),
            ("property", "temp", "property.publish", r#""value":-4"#, "-4"),
            ("alarm", "door", "alarm.publish", r#""state":3.0"#, "3"),
            ("attribute", "note", "attribute.publish", r#""value":"a \"b\"""#, "a \"b\""),
        ] {
            let topic = format!("thing/mower/{kind}/{key}");
            // Twice is once; other names are others'.
            assert_eq!(reader.subscribe(&topic, 0).await, 0);
            assert_eq!(reader.subscribe(&topic, 1).await, 1);
            let mut device = server.thing("tcp", "mower").await;
            let params = format!(r#"{{"key":"{key}",{value},"republish":true}}"#);
            call(&mut device, command, &params).await;
            let other = params.replace(key, "other");
            call(&mut device, command, &other).await;
            let message = reader.message().await;
            assert_eq!((message.texts(), message.qos), ((topic.as_str(), told), 1));
            assert!(!message.retain && !message.dup);
            reader.expect_quiet().await;
            reader.unsubscribe(&topic).await;
            call(&mut device, command, &params).await;
            reader.expect_quiet().await;
        }
        assert_eq!(reader.subscribe("thing/mower/location", 0).await, 0);
        let mut device = server.thing("tcp", "mower").await;
        let place = r#"{"lat":52.5,"lng":-13.25,"speed":3,"fixType":"gps"}"#;
        call(&mut device, "location.publish", place).await;
        assert_eq!(reader.message().await.texts(), ("thing/mower/location", "52.5,-13.25,,3,,gps"));
        // The one who publishes may subscribe as well; with `self` it reads `self`.
        for topic in ["thing/self/property/own", "thing/mower/property/own"] {
            assert_eq!(mower.subscribe(topic, 1).await, 1);
            mower.send(&mower.publish(0, 0, "thing/self/property/own", "5")).await;
            assert_eq!(mower.message().await.texts(), (topic, "5"));
            mower.unsubscribe(topic).await;
        }
        mower.expect_quiet().await;
        mower.send(DISCONNECT).await;
        reader.send(DISCONNECT).await;
    }
}

#[tokio::test]
async fn filters_with_wildcards_bring_changes_as_well() {
    let server = TestServer::start();
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    for filter in [
        "#",
        "+/+/+/+",
        "thing/#",
        "thing/+/property/#",
        "thing/mower/+/temp",
        "$share/g/thing/mower/property/temp",
    ] {
        let mut reader = user(&server, V311, OPERATOR, "reader").await;
        assert_eq!(reader.subscribe(filter, 1).await, 1, "{filter}");
        mower.tell("thing/self/property/temp", "5").await;
        let message = reader.message().await;
        assert_eq!((message.texts(), message.qos), (("thing/mower/property/temp", "5"), 1));
        mower.tell("thing/self/property/temp", "6").await;
        assert_eq!(reader.message().await.texts(), ("thing/mower/property/temp", "6"));
        reader.unsubscribe(filter).await;
        mower.tell("thing/self/property/temp", "7").await;
        reader.expect_quiet().await;
        reader.send(DISCONNECT).await;
    }
    // What a client also subscribed to by name comes once.
    let mut reader = user(&server, V311, OPERATOR, "reader").await;
    assert_eq!(reader.subscribe("thing/+/property/+", 1).await, 1);
    assert_eq!(reader.subscribe("thing/mower/property/temp", 0).await, 0);
    mower.tell("thing/self/property/temp", "8").await;
    mower.tell("thing/self/property/other", "9").await;
    let message = reader.message().await;
    assert_eq!((message.texts(), message.qos), (("thing/mower/property/temp", "8"), 1));
    assert_eq!(reader.message().await.texts(), ("thing/mower/property/other", "9"));
    reader.expect_quiet().await;
    // A device's own, by `self`.
    assert_eq!(mower.subscribe("thing/self/#", 0).await, 0);
    let mut other = Connect::thing(V311, "other").open(&server).await;
    other.tell("thing/self/property/temp", "1").await;
    mower.send(&mower.publish(0, 0, "thing/mower/property/temp", "2")).await;
    assert_eq!(mower.message().await.texts(), ("thing/self/property/temp", "2"));
    mower.expect_quiet().await;
}

#[tokio::test]
async fn nobody_reads_what_its_rights_do_not_say() {
    let (server, _dir) = server_with_more();
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let login = ("narrow@basicorg.example", "demo-narrow-password");
    let mut narrow = user(&server, V5, login, "narrow").await;
    let mut york = Connect::login(V311, "york", "york", "demo-token-yorkorg").open(&server).await;
    assert_eq!(narrow.subscribe("thing/mower/property/temp", 1).await, 1);
    for refused in [
        "thing/mower/alarm/a",
        "thing/mower/attribute/a",
        "thing/mower/location",
        "thing/mower/connected",
        "thing/+/alarm/#",
        "thing/self/property/temp",
        "thing/self/#",
        "thing/mower",
        "thing/mower/secret/x",
    ] {
        assert_eq!(narrow.subscribe(refused, 1).await, NOT_AUTHORIZED, "{refused}");
    }
    let login = ("ordinary@basicorg.example", "demo-ordinary-password");
    let mut viewer = user(&server, V311, login, "v").await;
    assert_eq!(viewer.subscribe("thing/mower/property/temp", 1).await, REFUSED);
    assert_eq!(viewer.subscribe("thing/#", 1).await, REFUSED);
    assert_eq!(viewer.subscribe("#", 1).await, 1);
    assert_eq!(narrow.subscribe("#", 1).await, 1);
    for filter in ["thing/mower/property/temp", "thing/#", "#"] {
        assert_eq!(york.subscribe(filter, 1).await, 1);
    }
    mower.tell("thing/self/alarm/a", "1").await;
    mower.tell("thing/self/property/temp", "5").await;
    mower.tell("ordinary", "6").await;
    // By its name, and once, although `#` matches too.
    assert_eq!(narrow.message().await.texts(), ("thing/mower/property/temp", "5"));
    assert_eq!(narrow.message().await.texts(), ("ordinary", "6"));
    assert_eq!(viewer.message().await.texts(), ("ordinary", "6"));
    for wire in [&mut narrow, &mut viewer, &mut york] {
        wire.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_restricted_token_reads_its_own_thing_and_those_bound_to_it() {
    let (server, _dir) = server_with_more();
    let mut gateway = connect(&server.url("http", "gateway", "restricted-token")).await;
    call(&mut gateway, "thing.bind", r#"{"key":"sensor"}"#).await;
    let mut wire = Connect::login(V5, "g", "gateway", "restricted-token").open(&server).await;
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let mut sensor = Connect::thing(V311, "sensor").open(&server).await;
    assert_eq!(wire.subscribe("thing/mower/property/t", 0).await, NOT_AUTHORIZED);
    assert_eq!(wire.subscribe("thing/sensor/property/t", 0).await, 0);
    assert_eq!(wire.subscribe("thing/gateway/property/t", 0).await, 0);
    assert_eq!(wire.subscribe("thing/+/property/u", 0).await, 0);
    for key in ["t", "u"] {
        let topic = format!("thing/self/property/{key}");
        mower.tell(&topic, "1").await;
        sensor.tell(&topic, "2").await;
        assert_eq!(wire.message().await.texts(), (&*format!("thing/sensor/property/{key}"), "2"));
    }
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.unbind", r#"{"key":"sensor"}"#).await;
    sensor.tell("thing/self/property/t", "3").await;
    sensor.tell("thing/self/property/u", "3").await;
    wire.expect_quiet().await;
    assert_eq!(wire.subscribe("thing/sensor/property/t", 0).await, NOT_AUTHORIZED);
}

#[tokio::test]
async fn who_switches_the_organisation_leaves_its_topics() {
    let server = TestServer::start();
    let mut admin = user(&server, V311, ADMIN, "admin").await;
    let switch = async |admin: &mut Wire, org: &str| {
        let request =
            format!(r#"{{"s":{{"command":"session.org.switch","params":{{"key":"{org}"}}}}}}"#);
        admin.send(&admin.publish(0, 0, "api", request)).await;
        assert_eq!(admin.message().await.texts(), ("reply", r#"{"s":{"success":true}}"#));
    };
    switch(&mut admin, "BasicOrg").await;
    for filter in ["thing/mower/property/t", "thing/+/property/u"] {
        assert_eq!(admin.subscribe(filter, 0).await, 0);
    }
    let mut basic = Connect::thing(V311, "mower").open(&server).await;
    let york = Connect::login(V311, "mower", "mower", "demo-token-yorkorg");
    let mut york = york.open(&server).await;
    for key in ["t", "u"] {
        let topic = format!("thing/self/property/{key}");
        york.tell(&topic, "1").await;
        basic.tell(&topic, "2").await;
        assert_eq!(admin.message().await.payload, b"2");
    }
    switch(&mut admin, "YorkOrg").await;
    for key in ["t", "u"] {
        basic.tell(&format!("thing/self/property/{key}"), "3").await;
        york.tell(&format!("thing/self/property/{key}"), "4").await;
    }
    admin.expect_quiet().await;
    assert_eq!(admin.subscribe("thing/mower/property/t", 0).await, 0);
    york.tell("thing/self/property/t", "5").await;
    assert_eq!(admin.message().await.payload, b"5");
    basic.tell("thing/self/property/t", "6").await;
    admin.expect_quiet().await;
}

#[tokio::test]
async fn kept_subscriptions_hold_when_the_client_comes_back() {
    let server = TestServer::start();
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    for version in [V311, V5] {
        let login = Connect::login(version, "kept", OPERATOR.0, OPERATOR.1).resuming();
        let mut reader = login.open(&server).await;
        for filter in ["thing/mower/property/t", "thing/+/property/u"] {
            assert_eq!(reader.subscribe(filter, 1).await, 1);
        }
        reader.send(DISCONNECT).await;
        reader.expect_end().await;
        // Nobody keeps what changes meanwhile.
        mower.tell("thing/self/property/t", "1").await;
        let mut reader = login.open(&server).await;
        for key in ["t", "u"] {
            mower.tell(&format!("thing/self/property/{key}"), "2").await;
            let topic = format!("thing/mower/property/{key}");
            assert_eq!(reader.message().await.texts(), (&*topic, "2"));
        }
        // The acknowledgements have arrived: otherwise the messages would come again.
        reader.expect_quiet().await;
        // Nor does a connection that was taken over get anything.
        let mut again = login.open(&server).await;
        mower.tell("thing/self/property/t", "3").await;
        assert_eq!(again.message().await.payload, b"3");
        again.expect_quiet().await;
        again.unsubscribe("thing/mower/property/t").await;
        again.unsubscribe("thing/+/property/u").await;
        mower.tell("thing/self/property/t", "4").await;
        again.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_will_on_a_topic_of_a_thing_is_a_command() {
    let server = TestServer::start();
    let will = Connect::thing(V311, "mortal").will("thing/self/property/alive", "0");
    let mut reader = user(&server, V311, OPERATOR, "reader").await;
    assert_eq!(reader.subscribe("thing/mortal/property/alive", 0).await, 0);
    drop(will.open(&server).await);
    assert_eq!(reader.message().await.texts(), ("thing/mortal/property/alive", "0"));
    let read = current(&server, "property.current", "mortal", "alive").await;
    assert_eq!(read["value"], 0);
    // After DISCONNECT there is none; nor for a topic that nobody publishes to.
    let mut wire = will.open(&server).await;
    wire.send(DISCONNECT).await;
    wire.expect_end().await;
    reader.expect_quiet().await;
    let mut wire = Wire::open(&server, V5).await;
    wire.send(&Connect::thing(V5, "mortal").will("thing/self/location", "0").frame()).await;
    let connack = wire.frame().await.expect("a CONNACK");
    assert_eq!(connack[3], TOPIC_INVALID);
}

#[tokio::test]
async fn a_will_that_waited_has_the_rights_of_its_time() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let token = r#"{"name":"brief","token":"a-brief-token-123","autoRegister":true,
        "roles":["device"]}"#;
    call(&mut operator, "app.create", token).await;
    let mut reader = user(&server, V311, OPERATOR, "reader").await;
    assert_eq!(reader.subscribe("thing/+/property/alive", 0).await, 0);
    for (key, token) in [("brief", "a-brief-token-123"), ("mower", "demo-token-basicorg")] {
        let mut connect = Connect::login(V5, key, key, token).resuming();
        connect.will = Some(("thing/self/property/alive", "0", b"\x18\0\0\0\x02", false));
        drop(connect.open(&server).await);
    }
    eventually("the connection is gone", async || {
        call(&mut operator, "thing.find", r#"{"key":"brief"}"#).await["connected"] == false
    })
    .await;
    call(&mut operator, "app.delete", r#"{"name":"brief"}"#).await;
    assert_eq!(reader.message().await.texts(), ("thing/mower/property/alive", "0"));
    reader.expect_quiet().await;
    let params = r#"{"thingKey":"brief","key":"alive"}"#;
    assert_eq!(reply(&mut operator, "property.current", params).await["errorCodes"][0], -90008);
}

#[tokio::test]
async fn a_slow_subscriber_loses_messages_and_delays_nobody() {
    let server = TestServer::start();
    let mut slow = user(&server, V311, OPERATOR, "slow").await;
    assert_eq!(slow.subscribe("thing/mower/attribute/a", 0).await, 0);
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let big = "x".repeat(16_000);
    for round in 0..60 {
        let mut burst = Vec::new();
        for pkid in 1..=100_u16 {
            let value = format!("{round} {pkid} {big}");
            burst.extend(mower.publish(2, pkid, "thing/self/attribute/a", value));
        }
        mower.send(&burst).await;
        for pkid in 1..=100_u16 {
            let [high, low] = pkid.to_be_bytes();
            mower.expect(&[0x40, 2, high, low]).await;
        }
    }
    // 96 MB were published; the subscriber gets what fits, and lives.
    let mut seen = 0;
    slow.send(&[0xc0, 0]).await;
    loop {
        let frame = slow.frame().await.expect("the connection lives");
        if frame[0] == 0xd0 {
            break;
        }
        seen += 1;
    }
    assert!(seen > 0 && seen < 6000, "{seen}");
    eventually("it gets messages again", async || {
        mower.tell("thing/self/attribute/a", &format!("{:?}", std::time::Instant::now())).await;
        slow.send(&[0xc0, 0]).await;
        let mut got = false;
        while slow.frame().await.expect("the connection lives")[0] != 0xd0 {
            got = true;
        }
        got
    })
    .await;
}

#[tokio::test]
async fn connections_are_told_when_the_first_comes_and_the_last_goes() {
    let server = TestServer::start();
    let mut reader = user(&server, V311, OPERATOR, "reader").await;
    for key in ["gateway", "sensor"] {
        let filter = format!("thing/{key}/connected");
        assert_eq!(reader.subscribe(&filter, 0).await, 0);
    }
    let mut gateway = Connect::thing(V311, "gateway").open(&server).await;
    assert_eq!(reader.message().await.texts(), ("thing/gateway/connected", "true"));
    // A bound thing follows its parent.
    let mut over_http = server.thing("http", "gateway").await;
    call(&mut over_http, "thing.bind", r#"{"key":"sensor"}"#).await;
    assert_eq!(reader.message().await.texts(), ("thing/sensor/connected", "true"));
    // A second connection, one that takes over, and one of the bound thing itself change nothing.
    let second = server.thing("tcp", "gateway").await;
    let mut again = Connect::thing(V311, "gateway").open(&server).await;
    gateway.expect_end().await;
    drop(second);
    let own = server.thing("tcp", "sensor").await;
    call(&mut over_http, "thing.unbind", r#"{"key":"sensor"}"#).await;
    call(&mut over_http, "thing.bind", r#"{"key":"sensor"}"#).await;
    drop(own);
    let mut operator = server.operator("http").await;
    let live = r#"{"protocol":"tcp"}"#;
    eventually("the connections over TCP end", async || {
        call(&mut operator, "session.list", live).await["count"] == 0
    })
    .await;
    reader.expect_quiet().await;
    again.send(DISCONNECT).await;
    assert_eq!(reader.message().await.texts(), ("thing/gateway/connected", "false"));
    assert_eq!(reader.message().await.texts(), ("thing/sensor/connected", "false"));
    // Wildcards bring it as well.
    assert_eq!(reader.subscribe("thing/+/connected", 0).await, 0);
    let _other = server.thing("tcp", "other").await;
    assert_eq!(reader.message().await.texts(), ("thing/other/connected", "true"));
    reader.expect_quiet().await;
}

#[tokio::test]
async fn a_change_of_rights_holds_at_once() {
    let (server, _dir) = server_with_more();
    let mut operator = server.operator("http").await;
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let login = ("narrow@basicorg.example", "demo-narrow-password");
    let mut narrow = user(&server, V311, login, "narrow").await;
    for filter in ["thing/mower/property/t", "thing/+/property/u"] {
        assert_eq!(narrow.subscribe(filter, 0).await, 0);
    }
    let tell = async |mower: &mut Wire, value: &str| {
        for key in ["t", "u"] {
            mower.tell(&format!("thing/self/property/{key}"), value).await;
        }
    };
    tell(&mut mower, "1").await;
    for key in ["t", "u"] {
        let topic = format!("thing/mower/property/{key}");
        assert_eq!(narrow.message().await.texts(), (&*topic, "1"));
    }
    call(&mut operator, "role.update", r#"{"key":"narrow","perms":["thing.list"]}"#).await;
    tell(&mut mower, "2").await;
    narrow.expect_quiet().await;
    assert_eq!(narrow.subscribe("thing/mower/property/v", 0).await, REFUSED);
    call(&mut operator, "role.update", r#"{"key":"narrow","perms":["property.current"]}"#).await;
    tell(&mut mower, "3").await;
    for _ in ["t", "u"] {
        let mut message = narrow.message().await;
        if message.texts() == ("thing/mower/property/u", "2") {
            // The broker brings it only now, when it may be read again.
            message = narrow.message().await;
        }
        assert_eq!(message.payload, b"3");
    }
}
