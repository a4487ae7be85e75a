//! Bans: what is disabled loses its connections at once, over every door, and is refused with a cause
//! that operators see; what it has stays; and it is welcome again when the ban is lifted or over.

use base::Timestamp;
use client::Client;
use client::Version::{V5, V31, V311};
use serde_json::{Value, json};
use support::http::{Answer, log_in, post, post_with, send};
use support::mqtt::{Connect, Wire};
use support::tcp::Lines;
use support::{Endpoints, Hands, TOKEN, TestServer, call, end_reason, eventually, reply, sessions};

const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

const IN_USE: i64 = -95030;
const DENIED: i64 = -95006;
const INVALID: i64 = -95005;
const REFUSED: i64 = -95007;
const THING_DISABLED: i64 = -95023;

fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or_else(|| panic!("no failure: {reply}"))
}

async fn change(client: &mut Client, command: &str, params: Value) -> Value {
    reply(client, command, &params.to_string()).await
}

/// Disables a thing, or ends that.
async fn ban(client: &mut Client, key: &str, disabled: bool) {
    call(client, "thing.update", &json!({"key": key, "disabled": disabled}).to_string()).await;
}

/// The return code of a CONNACK that refuses.
async fn refusal(server: &Endpoints, connect: &Connect) -> u8 {
    let mut wire = Wire::open(server, connect.version).await;
    wire.send(&connect.frame()).await;
    let connack = wire.frame().await.expect("a CONNACK");
    assert_eq!(connack[0], 0x20, "{connack:x?}");
    connack[3]
}

fn tcp_login(key: &str) -> String {
    json!({"auth": {"command": "api.authenticate",
        "params": {"thingKey": key, "appToken": TOKEN, "appId": "a"}}})
    .to_string()
}

async fn http_login(server: &Endpoints, user: &str, password: &str) -> Value {
    let params = match user.contains('@') {
        true => json!({"username": user, "password": password}),
        false => json!({"thingKey": user, "appToken": password, "appId": ""}),
    };
    let body = json!({"auth": {"command": "api.authenticate", "params": params}}).to_string();
    serde_json::from_str(&post(server, &body).await).expect("JSON")
}

/// What `session.info` says to who shows this id.
async fn info(server: &Endpoints, session: &str) -> Value {
    let body = r#"{"1":{"command":"session.info"}}"#;
    let answer = post_with(server, &format!("sessionId: {session}\r\n"), body).await;
    serde_json::from_str(&answer).expect("JSON")
}

#[tokio::test]
async fn a_disabled_thing_is_out_over_every_door_and_keeps_what_it_has() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut kept = Connect::thing(V5, "mower").id("kept").resuming().open(&server).await;
    assert_eq!(kept.subscribe("things/mower/orders", 1).await, 1);
    kept.tell("thing/mower/property/speed", "7").await;
    let mut old = Connect::thing(V311, "mower").id("old").open(&server).await;
    let mut oldest = Connect::thing(V31, "mower").id("oldest").open(&server).await;
    let mut lines = Lines::logged_in(&server, &tcp_login("mower")).await;
    let session = log_in(&server, "mower", TOKEN).await;

    let params = json!({"key": "mower", "disabled": true, "reason": "stolen"});
    call(&mut operator, "thing.update", &params.to_string()).await;
    assert_eq!(kept.frame().await.expect("a DISCONNECT")[..3], [0xe0, 1, 0x98]);
    kept.expect_end().await;
    old.expect_end().await;
    oldest.expect_end().await;
    assert_eq!(lines.rest().await, [] as [&str; 0]);
    assert_eq!(code(&info(&server, &session).await), -90000);
    let ended = sessions(&mut operator, r#"{"thingKey":"mower","status":"ENDED"}"#).await;
    assert_eq!(ended.len(), 5);
    for session in &ended {
        assert_eq!(
            (&session["status"], &session["endReason"]),
            (&json!("REVOKED"), &json!("banned"))
        );
    }

    // Refused everywhere, also by another application of the organisation.
    for (version, expected) in [(V31, 5), (V311, 5), (V5, 0x8a)] {
        for token in [TOKEN, "demo-basicorg-16"] {
            let connect = Connect::login(version, "mower", "mower", token);
            assert_eq!(refusal(&server, &connect).await, expected);
        }
    }
    let refused = Lines::connect(&server).await.ask(&tcp_login("mower")).await;
    assert!(refused.contains("this thing is disabled") && !refused.contains("stolen"), "{refused}");
    assert_eq!(code(&http_login(&server, "mower", TOKEN).await["auth"]), REFUSED);
    // A wrong token says no more than it ever did.
    let wrong = http_login(&server, "mower", "no-such-token-000").await;
    assert_eq!(wrong, http_login(&server, "other", "no-such-token-000").await);
    assert!(!wrong.to_string().contains("disabled"), "{wrong}");

    // Operators see it, and why.
    let found = call(&mut operator, "thing.find", r#"{"key":"mower"}"#).await;
    assert_eq!((&found["disabled"], &found["reason"]), (&json!(true), &json!("stolen")));
    assert_eq!(found["properties"]["speed"]["value"], 7);
    let told = call(&mut operator, "thing.diagnose", r#"{"key":"mower"}"#).await;
    assert!(
        told["summary"].as_str().is_some_and(|text| text.contains("disabled (stolen)")),
        "{told}"
    );
    let logins = told["refused"]["logins"].as_array().expect("a list").clone();
    assert!(logins.iter().any(|login| login["cause"] == "banned"), "{told}");
    assert_eq!(told["connected"], false);
    let failures = call(&mut operator, "login.failures", r#"{"name":"mower"}"#).await;
    assert!(failures.to_string().contains(r#""cause":"banned""#), "{failures}");
    let metrics = support::http::metrics(&server).await;
    assert!(metrics.contains(r#"cause="banned""#));
    let trail = call(&mut operator, "audit.list", r#"{"limit":10}"#).await.to_string();
    assert!(trail.contains(r#""command":"thing.update""#) && trail.contains("stolen"), "{trail}");

    // A message that comes meanwhile waits in its session, an order in its mailbox.
    let mut other = Connect::thing(V311, "other").open(&server).await;
    other.tell("things/mower/orders", "come back").await;
    let order = r#"{"thingKey":"mower","command":"blades_off","ackTimeout":0}"#;
    call(&mut operator, "mailbox.send", order).await;

    ban(&mut operator, "mower", false).await;
    let found = call(&mut operator, "thing.find", r#"{"key":"mower"}"#).await;
    assert_eq!((found.get("disabled"), found.get("reason")), (None, None));
    let mut back = Connect::thing(V5, "mower").id("kept").resuming().open(&server).await;
    assert!(back.present());
    let mut topics = vec![back.unacknowledged().await.topic, back.unacknowledged().await.topic];
    topics.sort_unstable();
    assert_eq!(topics, ["notify/mailbox_activity", "things/mower/orders"]);
}

#[tokio::test]
async fn a_disabled_thing_is_silent_by_others_too() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut gateway = server.thing("tcp", "gateway").await;
    for key in ["sensor", "valve"] {
        call(&mut operator, "thing.create", &json!({"key": key}).to_string()).await;
        call(&mut gateway, "thing.bind", &json!({"key": key}).to_string()).await;
    }
    ban(&mut operator, "sensor", true).await;
    let commands = [
        ("property.publish", json!({"key": "t", "value": 1})),
        ("property.batch", json!({"key": "t", "data": [{"value": 1}]})),
        ("attribute.publish", json!({"key": "a", "value": "x"})),
        ("alarm.publish", json!({"key": "a", "state": 1})),
        ("location.publish", json!({"lat": 1, "lng": 2})),
        ("log.publish", json!({"msg": "x"})),
        ("file.put", json!({"fileName": "x"})),
    ];
    for (command, mut params) in commands {
        params["thingKey"] = "sensor".into();
        let told = change(&mut gateway, command, params.clone()).await;
        assert_eq!(code(&told), THING_DISABLED, "{command}: {told}");
        params["thingKey"] = "valve".into();
        let told = change(&mut gateway, command, params).await;
        assert!(told.get("errorCodes").is_none_or(|codes| codes[0] != THING_DISABLED), "{told}");
    }
    // As for one that is not connected: the order waits, nobody gets it.
    call(&mut operator, "mailbox.send", r#"{"thingKey":"sensor","command":"on","ackTimeout":0}"#)
        .await;
    let mail = call(&mut gateway, "mailbox.check", "{}").await;
    assert_eq!(mail["messages"], json!([]), "{mail}");
    let exec = r#"{"thingKey":"sensor","method":"on","ackTimeout":1}"#;
    assert_eq!(code(&reply(&mut operator, "method.exec", exec).await), -95020);
}

#[tokio::test]
async fn a_deleted_thing_that_was_disabled_does_not_register_anew() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut wire = Connect::thing(V311, "mower").open(&server).await;
    wire.tell("thing/mower/property/speed", "7").await;
    ban(&mut operator, "mower", true).await;
    wire.expect_end().await;
    let deleted = call(&mut operator, "thing.delete", r#"{"key":"mower"}"#).await;
    assert_eq!(deleted, json!({"disabled": true}));
    assert_eq!(refusal(&server, &Connect::thing(V311, "mower")).await, 5);
    let found = call(&mut operator, "thing.find", r#"{"key":"mower"}"#).await;
    assert_eq!((&found["disabled"], &found["properties"]), (&json!(true), &json!({})));
    assert_eq!(call(&mut operator, "thing.list", r#"{"disabled":true}"#).await["count"], 1);
    assert_eq!(call(&mut operator, "thing.list", r#"{"disabled":false}"#).await["count"], 0);
    ban(&mut operator, "mower", false).await;
    let deleted = reply(&mut operator, "thing.delete", r#"{"key":"mower"}"#).await;
    assert_eq!(deleted, json!({"success": true}));
    assert_eq!(call(&mut operator, "thing.list", "{}").await["count"], 0);
    let mut back = Connect::thing(V311, "mower").open(&server).await;
    back.tell("thing/mower/property/speed", "8").await;
    let current = r#"{"thingKey":"mower","key":"speed"}"#;
    assert_eq!(call(&mut operator, "property.current", current).await["value"], 8);
}

fn basic(user: &str, password: &str) -> String {
    use data_encoding::BASE64;
    format!("Authorization: Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// A request of a dialect, with these credentials.
async fn dialect(server: &Endpoints, head: &str, credentials: &str, body: &str) -> Answer {
    let head = format!("{head} HTTP/1.1\r\n{credentials}");
    send(server, &head, body.as_bytes()).await
}

#[tokio::test]
async fn a_disabled_user_is_out_and_wrong_passwords_tell_nothing() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let (user, password) = VIEWER;
    let session = log_in(&server, user, password).await;
    let mut wire = Connect::login(V5, "v", user, password).open(&server).await;
    let wrong_before = http_login(&server, user, "wrong-password").await;
    let params = json!({"emailAddress": user, "disabled": true, "reason": "left us"});
    call(&mut admin, "user.update", &params.to_string()).await;
    assert_eq!(wire.frame().await.expect("a DISCONNECT")[..3], [0xe0, 1, 0x98]);
    assert_eq!(code(&info(&server, &session).await), -90000);
    assert_eq!(http_login(&server, user, "wrong-password").await, wrong_before);
    let right = http_login(&server, user, password).await;
    let message = right["auth"]["errorMessages"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(&right["auth"]), REFUSED);
    assert_eq!(message, "Login refused: this user is disabled: left us.");
    assert_eq!(refusal(&server, &Connect::login(V311, "v", user, password)).await, 5);
    assert_eq!(refusal(&server, &Connect::login(V5, "v", user, password)).await, 0x8a);
    assert_eq!(refusal(&server, &Connect::login(V5, "v", user, "wrong-password")).await, 0x86);
    let element = r#"{"method":"ListAuthSessionsByUsername","params":{},"id":1}"#;
    let element = dialect(&server, "POST /json-rpc/12.3", &basic(user, password), element).await;
    assert_eq!(element.status, 401);
    let found = call(&mut admin, "user.find", &json!({"emailAddress": user}).to_string()).await;
    assert_eq!((&found["disabled"], &found["reason"]), (&json!(true), &json!("left us")));
    call(&mut admin, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let listed = call(&mut admin, "user.list", "{}").await;
    let row =
        listed["result"].as_array().expect("a list").iter().find(|r| r["emailAddress"] == user);
    assert_eq!(row.expect("the user")["disabled"], true);
    let lift = json!({"emailAddress": user, "unset": ["disabled"]});
    call(&mut admin, "user.update", &lift.to_string()).await;
    assert_eq!(http_login(&server, user, password).await["auth"]["success"], true);
}

#[tokio::test]
async fn a_disabled_application_is_out_with_all_its_things() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut lost = Connect::thing(V5, "mower-1").open(&server).await;
    let mut stays = Connect::login(V311, "m", "mower-2", "demo-basicorg-16").open(&server).await;
    let params = json!({"name": "demo-app", "disabled": true});
    call(&mut operator, "app.update", &params.to_string()).await;
    assert_eq!(lost.frame().await.expect("a DISCONNECT")[..3], [0xe0, 1, 0x98]);
    assert_eq!(end_reason(&mut operator, "mower-1").await, "banned");
    for key in ["mower-1", "unknown"] {
        assert_eq!(refusal(&server, &Connect::thing(V5, key)).await, 0x8a);
    }
    // No thing was made by the second.
    assert_eq!(call(&mut operator, "thing.list", r#"{"keys":["unknown"]}"#).await["count"], 0);
    let cognite = "GET /api/v1/orgs/basic-org/principals";
    let asked = dialect(&server, cognite, &format!("Authorization: Bearer {TOKEN}"), "").await;
    assert_eq!(asked.status, 401);
    stays.tell("thing/mower-2/property/speed", "7").await;
    let found = call(&mut operator, "app.find", r#"{"name":"demo-app"}"#).await;
    assert_eq!(found["disabled"], true);
    // The thing itself is welcome by the other application.
    drop(Connect::login(V311, "m", "mower-1", "demo-basicorg-16").open(&server).await);
    call(&mut operator, "app.update", r#"{"name":"demo-app","disabled":false}"#).await;
    drop(Connect::thing(V5, "mower-1").open(&server).await);
}

#[tokio::test]
async fn nobody_is_disabled_by_themselves_or_without_the_right() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let mut operator = server.operator("tcp").await;
    let own = json!({"disabled": true});
    assert_eq!(code(&change(&mut operator, "user.update", own.clone()).await), IN_USE);
    let admins = json!({"emailAddress": "admin@devicewise.com", "disabled": true});
    assert_eq!(code(&change(&mut admin, "user.update", admins.clone()).await), IN_USE);
    assert!(change(&mut operator, "user.update", admins.clone()).await["success"] == false);
    let mut viewer = support::connect(&server.url("tcp", VIEWER.0, VIEWER.1)).await;
    let other = json!({"emailAddress": "operator@basicorg.example", "disabled": true});
    assert_eq!(code(&change(&mut viewer, "user.update", other).await), DENIED);
    // Not the last super administrator either, by an application that may do everything.
    let root = json!({"name": "root", "token": "token-of-root-0001", "isSuperAdmin": true,
        "autoRegister": true});
    call(&mut admin, "app.create", &root.to_string()).await;
    let mut root = support::connect(&server.url("tcp", "root-thing", "token-of-root-0001")).await;
    assert_eq!(code(&change(&mut root, "user.update", admins).await), IN_USE);
    assert_eq!(
        code(&change(&mut root, "app.update", json!({"name": "root", "disabled": true})).await),
        IN_USE
    );
    let own = json!({"key": "root-thing", "disabled": true});
    assert_eq!(code(&change(&mut root, "thing.update", own).await), IN_USE);
    // A token that is restricted to its own thing.
    let bound = json!({"name": "bound", "token": "token-of-bound-001", "autoRegister": true,
        "restrictAccessToSelf": true, "roles": ["developer"]});
    call(&mut operator, "app.create", &bound.to_string()).await;
    let mut bound = support::connect(&server.url("tcp", "bound-1", "token-of-bound-001")).await;
    let told =
        change(&mut bound, "thing.update", json!({"disabledUntil": "2100-01-01T00:00:00Z"})).await;
    assert_eq!(code(&told), DENIED, "{told}");
    // What can't be meant is refused, not ignored.
    for params in [
        json!({"disabled": true, "disabledUntil": "2001-01-01T00:00:00Z"}),
        json!({"disabled": false, "reason": "x"}),
        json!({"reason": "x"}),
        json!({"disabled": "perhaps"}),
        json!({"disabled": true, "reason": "a\u{7}b"}),
    ] {
        let mut params = params;
        params["key"] = "bound-1".into();
        let told = change(&mut operator, "thing.update", params.clone()).await;
        assert_eq!(code(&told), INVALID, "{params}");
    }
}

#[tokio::test]
async fn a_ban_ends_at_its_time_whatever_the_wall_clock_says_and_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_900_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("tcp").await;
    drop(Connect::thing(V311, "mower").open(&server).await);
    let until = Timestamp::from_millis(1_900_000_000_000 + 3_600_000).to_string();
    let params = json!({"key": "mower", "disabledUntil": until, "reason": "an hour"});
    call(&mut operator, "thing.update", &params.to_string()).await;
    call(
        &mut operator,
        "user.update",
        &json!({"emailAddress": VIEWER.0, "disabled": true}).to_string(),
    )
    .await;
    let found = call(&mut operator, "thing.find", r#"{"key":"mower"}"#).await;
    assert_eq!(found["disabledUntil"], until.as_str());
    // A wall clock that jumps ends nothing.
    hands.set_wall(40 * 86_400_000);
    eventually("the jump is noticed", async || {
        let time = call(&mut operator, "diag.time", "").await["time"].as_i64();
        time.is_some_and(|time| time > 1_903_000_000_000)
    })
    .await;
    assert_eq!(refusal(&server, &Connect::thing(V5, "mower")).await, 0x8a);
    drop(operator);
    server.stop().await;

    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    assert_eq!(refusal(&server, &Connect::thing(V5, "mower")).await, 0x8a);
    assert_eq!(code(&http_login(&server, VIEWER.0, VIEWER.1).await["auth"]), REFUSED);
    hands.pass(3600);
    drop(Connect::thing(V5, "mower").open(&server).await);
    assert_eq!(code(&http_login(&server, VIEWER.0, VIEWER.1).await["auth"]), REFUSED);
    let mut operator = server.operator("tcp").await;
    let found = call(&mut operator, "thing.find", r#"{"key":"mower"}"#).await;
    assert_eq!((found.get("disabled"), found.get("disabledUntil")), (None, None));
    server.stop().await;
}

#[tokio::test]
async fn disabled_true_is_a_ban_without_end() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    call(&mut operator, "thing.create", r#"{"key":"m"}"#).await;
    let update = async |operator: &mut Client, mut params: Value| {
        params["key"] = "m".into();
        call(operator, "thing.update", &params.to_string()).await;
        let found = call(operator, "thing.find", r#"{"key":"m"}"#).await;
        [&found["reason"], &found["disabledUntil"]].map(|v| v.as_str().unwrap_or("").to_owned())
    };
    let later = "2100-01-01T00:00:00.000Z";
    let found = update(&mut operator, json!({"disabledUntil": later, "reason": "a"})).await;
    assert_eq!(found, ["a", later]);
    assert_eq!(update(&mut operator, json!({"reason": "b"})).await, ["b", later]);
    assert_eq!(update(&mut operator, json!({"disabled": true})).await, ["b", ""]);
    let unset = json!({"disabledUntil": later, "unset": ["reason"]});
    assert_eq!(update(&mut operator, unset).await, ["", later]);
    assert_eq!(update(&mut operator, json!({"unset": ["disabledUntil"]})).await, ["", ""]);
}
