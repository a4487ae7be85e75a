//! Rights on ordinary MQTT topics: what roles give, and what follows when they give less.

use std::sync::atomic::{AtomicUsize, Ordering};

use client::Version::{V5, V311};
use serde_json::Value;
use support::http::{log_in, metrics, post_with};
use support::mqtt::{ALL, Connect, Wire, frame};
use support::{Endpoints, TestServer, call, eventually, reply};

const REFUSED: u8 = 0x80;
const NOT_AUTHORIZED: u8 = 0x87;
const OPERATOR: &str = "operator@basicorg.example";
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

/// What the demo has not: roles with some topics, and those who hold them.
const MORE: &str = r##"
[[role]]
key = "narrow"
org = "BasicOrg"
permissions = ["topic", "role", "app", "user.org.update", "session.find"]
topic_publish = ["%thingKey%/#", "%user%/+", "plant/+/report"]
topic_subscribe = ["%thingKey%/#", "%user%/+", "plant/#"]

[[role]]
key = "silent"
org = "BasicOrg"
permissions = ["thing.list"]
topic_publish = ["#"]
topic_subscribe = ["#"]

[[role]]
key = "bare"
org = "BasicOrg"
permissions = ["topic.publish", "topic.subscribe"]

[[user]]
email = "narrow@basicorg.example"
password = "demo-narrow-password"
home = "BasicOrg"

[[user.membership]]
org = "BasicOrg"
roles = ["narrow"]

[[user]]
email = "watch@basicorg.example"
password = "demo-watch-password"
home = "BasicOrg"
super_ops = true

[[application]]
name = "narrow"
org = "BasicOrg"
token = "narrow-token-0001"
token_name = "narrow"
roles = ["narrow"]
auto_register = true

[[application]]
name = "silent"
org = "BasicOrg"
token = "silent-token-0001"
token_name = "silent"
roles = ["silent"]
auto_register = true

[[application]]
name = "bare"
org = "BasicOrg"
token = "bare-token-000001"
token_name = "bare"
roles = ["bare"]
auto_register = true

[[application]]
name = "restricted"
org = "BasicOrg"
token = "restricted-token-1"
token_name = "restricted"
roles = ["device"]
auto_register = true
restrict_access_to_self = true
"##;

fn server_with_more() -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
    let demo = std::fs::read_to_string(demo).expect("the demo's file");
    let file = dir.path().join("more.toml");
    std::fs::write(&file, demo + MORE).expect("written");
    let file = file.to_str().expect("UTF-8");
    (TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", file)]), dir)
}

/// The demo's device, which may everything here.
async fn device(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V311, key).open(server).await
}

async fn narrow(server: &Endpoints, key: &str) -> Wire {
    Connect::login(V5, key, key, "narrow-token-0001").open(server).await
}

async fn user(server: &Endpoints, login: (&str, &str)) -> Wire {
    static CLIENTS: AtomicUsize = AtomicUsize::new(0);
    let id = CLIENTS.fetch_add(1, Ordering::Relaxed).to_string();
    Connect::login(V5, &id, login.0, login.1).open(server).await
}

/// Publishes with QoS 1 and 2; the reason codes.
async fn publish(wire: &mut Wire, topic: &str) -> [u8; 2] {
    let mut codes = [0; 2];
    for qos in [1, 2] {
        wire.send(&wire.publish(qos << 1, 9, topic, "x")).await;
        let ack = wire.frame().await.expect("an acknowledgement");
        assert_eq!((ack[0], &ack[2..4]), (0x30 + 0x10 * qos, &[0, 9][..]), "{ack:x?}");
        codes[usize::from(qos) - 1] = ack.get(4).copied().unwrap_or(0);
        if qos == 2 && codes[1] < REFUSED {
            wire.send(&frame(0x62, &[&[0, 9]])).await;
            wire.expect(&[0x70, 2, 0, 9]).await;
        }
    }
    codes
}

async fn update(server: &Endpoints, command: &str, params: &str) {
    let mut operator = server.operator("http").await;
    let reply = reply(&mut operator, command, params).await;
    assert_eq!(reply["success"], true, "{command} {params} {reply}");
}

/// Tells the first whatever a topic has to say, and sees that the other hears nothing.
async fn nothing_comes(server: &Endpoints, wire: &mut Wire, topics: &[&str]) {
    let mut writer = device(server, "a-writer").await;
    for topic in topics {
        writer.tell(topic, "not for everybody").await;
    }
    wire.expect_quiet().await;
}

#[tokio::test]
async fn a_subscription_is_not_wider_than_the_role() {
    let (server, _dir) = server_with_more();
    let mut wire = narrow(&server, "m1").await;
    let granted = ["m1/#", "m1", "m1/+/x", "plant/#", "plant/+", "plant", "$share/g/plant/a/+"];
    for filter in granted {
        assert_eq!(wire.subscribe(filter, 1).await, 1, "{filter}");
    }
    let refused =
        ["#", "+", "+/#", "m2/#", "m1x/#", "+/a", "plants", "$share/g/#", "/plant", "m10"];
    for filter in refused {
        assert_eq!(wire.subscribe(filter, 1).await, NOT_AUTHORIZED, "{filter}");
    }
    // What nobody may has its own code, and topics of things their own rights.
    assert_eq!(wire.subscribe("$SYS/#", 1).await, REFUSED);
    assert_eq!(wire.subscribe("thing/m1/property/+", 1).await, NOT_AUTHORIZED);
    assert!(wire.subscribe("reply/#", 1).await < REFUSED);
    // Keys that look like wildcards, or like what stands for them, make nothing wider.
    for key in ["%user%", "%thingKey%", "$share"] {
        let mut wire = narrow(&server, key).await;
        for filter in ["#", "m1/#", "+/x", "5cf885f41c5bd771c8065bf2/x"] {
            assert_eq!(wire.subscribe(filter, 1).await, NOT_AUTHORIZED, "{key} {filter}");
        }
    }
    for (token, filters) in [
        ("silent-token-0001", ["#", "s", "plant/a"]),
        ("bare-token-000001", ["#", "b", "plant/a"]),
        ("restricted-token-1", ["#", "other/a", "+/a"]),
    ] {
        let mut wire = Connect::login(V311, "s", "s", token).open(&server).await;
        for filter in filters {
            assert_eq!(wire.subscribe(filter, 1).await, REFUSED, "{token} {filter}");
        }
    }
    let mut restricted = Connect::login(V5, "r", "r", "restricted-token-1").open(&server).await;
    assert_eq!(restricted.subscribe("r/b/#", 1).await, 1);
    assert_eq!(publish(&mut restricted, "r/a").await, [0, 0]);
    assert_eq!(publish(&mut restricted, "q/a").await, [NOT_AUTHORIZED; 2]);
}

#[tokio::test]
async fn users_have_what_their_roles_say() {
    let (server, _dir) = server_with_more();
    let login = ("narrow@basicorg.example", "demo-narrow-password");
    let mut wire = user(&server, login).await;
    let session = log_in(&server, login.0, login.1).await;
    let body = r#"{"1":{"command":"session.info"}}"#;
    let info = post_with(&server, &format!("sessionId: {session}\r\n"), body).await;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let id = info["1"]["params"]["userId"].as_str().unwrap_or_default().to_owned();
    assert_eq!(id.len(), 24, "{info}");
    for name in [login.0, &id] {
        assert_eq!(wire.subscribe(&format!("{name}/+"), 1).await, 1);
        assert_eq!(wire.subscribe(&format!("{name}/#"), 1).await, NOT_AUTHORIZED);
        let mut writer = user(&server, login).await;
        assert_eq!(publish(&mut writer, &format!("{name}/a")).await, [0, 0]);
        for _ in 0..2 {
            assert_eq!(wire.message().await.topic, format!("{name}/a"));
        }
        assert_eq!(publish(&mut wire, &format!("{name}/a/b")).await, [NOT_AUTHORIZED; 2]);
    }
    // Without a role there is nothing; administrators have everything, operators read it.
    let mut viewer = user(&server, VIEWER).await;
    assert_eq!(viewer.subscribe("#", 0).await, NOT_AUTHORIZED);
    assert_eq!(viewer.subscribe("a", 0).await, NOT_AUTHORIZED);
    assert_eq!(publish(&mut viewer, "a").await, [NOT_AUTHORIZED; 2]);
    let mut operator = user(&server, (OPERATOR, "demo-operator-password")).await;
    assert_eq!(operator.subscribe("#", 0).await, 0);
    let mut watch = user(&server, ("watch@basicorg.example", "demo-watch-password")).await;
    assert_eq!(watch.subscribe("#", 0).await, 0);
    assert_eq!(publish(&mut watch, "a").await, [NOT_AUTHORIZED; 2]);
}

#[tokio::test]
async fn a_publish_elsewhere_is_refused_and_reaches_nobody() {
    let (server, _dir) = server_with_more();
    let mut reader = device(&server, "reader").await;
    assert_eq!(reader.subscribe("plant/#", 2).await, 2);
    let mut wire = narrow(&server, "m1").await;
    for refused in ["plant/a", "plant/a/reports", "plant/a/b/report", "m2/a", "x"] {
        assert_eq!(publish(&mut wire, refused).await, [NOT_AUTHORIZED; 2], "{refused}");
        wire.send(&wire.publish(1, 0, refused, "retained, without an acknowledgement")).await;
    }
    // A response goes only where the asker may publish.
    let ask = |topic: &str| {
        let properties = [&[8][..], &support::mqtt::text(topic)].concat();
        wire.publish_with(0, 0, "api/1", &properties, support::mqtt::ASK)
    };
    let (refused, granted) = (ask("plant/a"), ask("plant/a/report"));
    wire.send(&refused).await;
    let failure = wire.message().await;
    assert!(failure.texts().1.contains("-95006"), "{failure:?}");
    wire.send(&granted).await;
    assert_eq!(reader.message().await.topic, "plant/a/report");
    // Before MQTT 5 it is acknowledged all the same, and counted.
    for version in ALL {
        let silent = Connect::login(version, "silent", "silent", "silent-token-0001");
        let mut silent = silent.open(&server).await;
        for qos in [0, 1, 2] {
            silent.send(&silent.publish(qos << 1 | 1, 7, "plant/b", "x")).await;
            if qos > 0 {
                let ack = silent.frame().await.expect("an acknowledgement");
                assert_eq!((ack[0], &ack[2..4]), (0x30 + 0x10 * qos, &[0, 7][..]));
            }
        }
    }
    reader.expect_quiet().await;
    let mut later = device(&server, "later").await;
    assert_eq!(later.subscribe("#", 0).await, 0);
    later.expect_quiet().await;
    let counted = metrics(&server).await;
    for line in [
        r#"tr50d_mqtt_publishes_refused_total{qos="0",reason="not_authorized"} 8"#,
        r#"tr50d_mqtt_publishes_refused_total{qos="1",reason="not_authorized"} 8"#,
    ] {
        assert!(counted.contains(line), "{counted}");
    }
}

#[tokio::test]
async fn a_will_is_judged_when_it_is_sent() {
    let (server, _dir) = server_with_more();
    let mut reader = device(&server, "reader").await;
    assert_eq!(reader.subscribe("plant/#", 1).await, 1);
    let login = |key: &str| Connect::login(V311, key, key, "narrow-token-0001");
    drop(login("m1").will("plant/m1", "not mine").open(&server).await);
    drop(login("m2").will("plant/m2/report", "mine").open(&server).await);
    assert_eq!(reader.message().await.texts(), ("plant/m2/report", "mine"));
    let lost = login("m3").will("plant/m3/report", "mine no longer").open(&server).await;
    update(&server, "role.update", r#"{"key":"narrow","topicPublish":["%thingKey%/#"]}"#).await;
    drop(lost);
    let mut operator = server.operator("http").await;
    support::end_reason(&mut operator, "m3").await;
    reader.expect_quiet().await;
}

#[tokio::test]
async fn subscriptions_follow_a_change_of_rights() {
    let (server, _dir) = server_with_more();
    let mut live = narrow(&server, "m1").await;
    let kept = |key: &str| Connect::login(V311, key, key, "narrow-token-0001").resuming();
    let mut here = kept("m2").open(&server).await;
    let mut away = kept("m3").open(&server).await;
    for wire in [&mut live, &mut here, &mut away] {
        for filter in ["plant/#", "plant/a"] {
            assert_eq!(wire.subscribe(filter, 1).await, 1);
        }
    }
    away.leave().await;
    let mut writer = device(&server, "writer").await;
    writer.tell("plant/b/c", "waits").await;
    writer.tell("plant/a", "waits").await;
    for wire in [&mut live, &mut here] {
        for _ in 0..2 {
            wire.unacknowledged().await;
        }
        wire.acknowledge(1).await;
        wire.acknowledge(2).await;
    }
    let less = r#"{"key":"narrow","topicSubscribe":["plant/a"]}"#;
    update(&server, "role.update", less).await;
    writer.tell("plant/b/c", "not for them").await;
    writer.tell("plant/c", "nor this").await;
    writer.tell("plant/a", "for all").await;
    for wire in [&mut live, &mut here] {
        assert_eq!(wire.message().await.texts(), ("plant/a", "for all"));
        wire.expect_quiet().await;
    }
    // More rights do not bring back what was lost.
    update(&server, "role.update", r#"{"key":"narrow","topicSubscribe":["plant/#"]}"#).await;
    writer.tell("plant/c", "still not").await;
    let mut away = kept("m3").open(&server).await;
    assert!(away.present());
    for payload in ["waits", "for all"] {
        assert_eq!(away.message().await.texts(), ("plant/a", payload));
    }
    for wire in [&mut live, &mut here, &mut away] {
        wire.expect_quiet().await;
        assert_eq!(wire.subscribe("plant/c", 1).await, 1);
    }
    // The role itself, the application and the permission.
    for (command, params) in [
        ("role.update", r#"{"key":"narrow","perms":["topic.publish"]}"#),
        ("role.update", r#"{"key":"narrow","perms":["topic"]}"#),
        ("app.update", r#"{"name":"narrow","roles":["bare"]}"#),
    ] {
        update(&server, command, params).await;
        nothing_comes(&server, &mut live, &["plant/a", "plant/c"]).await;
        let granted = params.contains("[\"topic\"]");
        let code = if granted { 1 } else { NOT_AUTHORIZED };
        assert_eq!(live.subscribe("plant/c", 1).await, code, "{params}");
    }
}

#[tokio::test]
async fn a_member_of_a_group_leaves_it_with_the_right() {
    let (server, _dir) = server_with_more();
    let mut member = narrow(&server, "m1").await;
    let mut other = device(&server, "other").await;
    for wire in [&mut member, &mut other] {
        assert_eq!(wire.subscribe("$share/g/plant/+", 1).await, 1);
    }
    update(&server, "role.update", r#"{"key":"narrow","topicSubscribe":[]}"#).await;
    // Until its connection has noticed, some go to who has left.
    let left = "tr50d_pool_used{pool=\"subscriptions\"} 1\n";
    eventually("it has left", async || metrics(&server).await.contains(left)).await;
    let mut writer = device(&server, "writer").await;
    for count in 0..4 {
        writer.tell("plant/a", &count.to_string()).await;
    }
    for _ in 0..4 {
        assert_eq!(other.message().await.topic, "plant/a");
    }
    member.expect_quiet().await;
}

#[tokio::test]
async fn what_waits_is_not_delivered_when_the_right_is_gone() {
    let (server, _dir) = server_with_more();
    let kept = Connect::login(V5, "n", "narrow@basicorg.example", "demo-narrow-password");
    let kept = kept.resuming();
    let mut wire = kept.open(&server).await;
    assert_eq!(wire.subscribe("plant/#", 1).await, 1);
    wire.leave().await;
    let mut writer = device(&server, "writer").await;
    writer.tell("plant/a", "waits").await;
    let params = r#"{"emailAddress":"narrow@basicorg.example","roles":["bare"]}"#;
    update(&server, "user.org.update", params).await;
    writer.tell("plant/a", "comes too late").await;
    let mut wire = kept.open(&server).await;
    wire.expect_quiet().await;
    assert_eq!(wire.subscribe("plant/#", 1).await, NOT_AUTHORIZED);
}

#[tokio::test]
async fn nobody_gives_topics_that_they_do_not_have() {
    let (server, _dir) = server_with_more();
    let session = log_in(&server, "narrow@basicorg.example", "demo-narrow-password").await;
    let ask = async |command: &str, params: &str| {
        let body = format!(r#"{{"1":{{"command":"{command}","params":{params}}}}}"#);
        let answer = post_with(&server, &format!("sessionId: {session}\r\n"), &body).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["1"].clone()
    };
    let lists = |publish: &str, subscribe: &str| {
        format!(r#"{{"key":"made","topicPublish":{publish},"topicSubscribe":{subscribe}}}"#)
    };
    for (publish, subscribe) in [
        (r##"["#"]"##, "[]"),
        ("[]", r##"["#"]"##),
        ("[]", r##"["plant/#","%thingKey%/#"]"##),
        (r##"["plant/%thingKey%"]"##, "[]"),
        (r##"["plant/#"]"##, "[]"),
    ] {
        let refused = ask("role.create", &lists(publish, subscribe)).await;
        assert_eq!(refused["errorCodes"][0], -95006, "{publish} {subscribe} {refused}");
    }
    let good = lists(r#"["plant/%thingKey%/report"]"#, r#"["plant/%thingKey%/#","plant/+"]"#);
    let answer = ask("role.create", &good).await;
    assert_eq!(answer["success"], true, "{answer}");
    // An administrator has set what the caller may not switch on.
    update(&server, "role.update", r##"{"key":"made","topicPublish":["#"]}"##).await;
    let answer = ask("role.update", r#"{"key":"made","perms":["topic.publish"]}"#).await;
    assert_eq!(answer["errorCodes"][0], -95006, "{answer}");
    let answer = ask("role.update", r#"{"key":"made","perms":["topic.subscribe"]}"#).await;
    assert_eq!(answer["success"], true, "{answer}");
    update(&server, "role.update", r#"{"key":"made","perms":["topic"]}"#).await;
    let answer = ask("app.create", r#"{"name":"a","roles":["made"]}"#).await;
    assert_eq!(answer["errorCodes"][0], -95006, "{answer}");
    let answer = ask("app.create", r#"{"name":"a","roles":["silent"]}"#).await;
    assert_eq!(answer["errorCodes"][0], -95006, "it has a permission more: {answer}");
    let answer = ask("app.create", r#"{"name":"a","roles":["bare"]}"#).await;
    assert_eq!(answer["success"], true, "{answer}");
    let mut operator = server.operator("http").await;
    let role = call(&mut operator, "role.find", r#"{"key":"made"}"#).await;
    assert_eq!(role["topicPublish"][0], "#");
    assert_eq!(role["topicSubscribe"].as_array().map(Vec::len), Some(2));
    let deep = format!(r#"["{}a"]"#, "a/".repeat(64));
    for bad in [r#"["a/#/b"]"#, r#"["$SYS/#"]"#, r#"["$share/g/a"]"#, r#"["%thing%/#"]"#, &deep] {
        let params = format!(r#"{{"key":"made","topicSubscribe":{bad}}}"#);
        let refused = reply(&mut operator, "role.update", &params).await;
        assert_eq!(refused["errorCodes"][0], -95005, "{bad} {refused}");
    }
    let unset = r#"{"key":"made","unset":["topicPublish","topicSubscribe"]}"#;
    update(&server, "role.update", unset).await;
    eventually("nothing is left", async || {
        let role = call(&mut operator, "role.find", r#"{"key":"made"}"#).await;
        role["topicPublish"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
}
