//! What is known of a session beside who and where: what its client over HTTP calls itself, what an
//! MQTT connection tells, how often its login starts.

use base::{SessionId, SessionRef};
use client::Client;
use client::Version::V5;
use serde_json::{Value, json};
use support::http::{Answer, log_in, send};
use support::mqtt::{ALL, Connect, frame};
use support::{Endpoints, Signal, TestServer, call};

use crate::TR50D;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

/// Posts JSON with these header lines.
async fn post(server: &Endpoints, target: &str, headers: &[&str], body: &Value) -> Answer {
    let lines: String = headers.iter().map(|line| format!("\r\n{line}")).collect();
    let head = format!("POST {target} HTTP/1.1\r\nContent-Type: application/json{lines}");
    send(server, &head, body.to_string().as_bytes()).await
}

/// The public handle of the session with this id.
fn handle(id: &str) -> String {
    SessionRef::of(&SessionId::parse(id).expect("an id")).to_string()
}

fn login((user, password): (&str, &str)) -> Value {
    json!({"username": user, "password": password})
}

/// The session whose id this is, as its organisation's administrator sees it.
async fn row(server: &Endpoints, id: &str) -> Value {
    let mut operator = server.operator("tcp").await;
    let reference = handle(id);
    let listed = call(&mut operator, "session.list", r#"{"status":"ALL"}"#).await;
    let rows = listed["result"].as_array().expect("rows");
    rows.iter().find(|row| row["ref"] == reference).expect("it is listed").clone()
}

#[tokio::test]
async fn every_door_of_http_notes_what_its_client_calls_itself() {
    let server = TestServer::start();
    let agent = |name: &str| format!("User-Agent: {name}");
    let login = login(VIEWER);

    let body = json!({"auth": {"command": "api.authenticate", "params": login}});
    let answer = post(&server, "/api", &[&agent("envelope/1")], &body).await.json();
    let envelope = answer["auth"]["params"]["sessionId"].clone();
    let body = json!({"cmd": {"command": "api.authenticate", "params": login}});
    let answer = post(&server, "/api", &[&agent("command/1")], &body).await.json();
    let command = answer["cmd"]["params"]["sessionId"].clone();
    let answer = post(&server, "/rest/_/api.authenticate", &[&agent("portal/1")], &login).await;
    let portal = answer.json()["params"]["sessionId"].clone();
    let answer = post(&server, "/rest/auth", &[&agent("rest/1")], &login).await;
    let rest = json!(answer.text());

    let all = [(&envelope, "envelope/1"), (&command, "command/1"), (&portal, "portal/1")];
    for (id, name) in all.into_iter().chain([(&rest, "rest/1")]) {
        let id = id.as_str().expect("an id");
        assert_eq!(row(&server, id).await["userAgent"], name);
        // Each of the session's own looks, whatever the request calls itself that takes it.
        let session = format!("sessionId: {id}");
        let own = async |command: &str| {
            let target = format!("/rest/_/{command}");
            post(&server, &target, &[&session, "User-Agent: other"], &json!({})).await.json()
        };
        assert_eq!(own("session.info").await["params"]["userAgent"], name);
        let mine = own("session.mine").await["params"]["result"].clone();
        let current = mine.as_array().expect("rows").iter().find(|row| row["current"] == true);
        assert_eq!(current.expect("the own")["userAgent"], name);
        let mut operator = server.operator("tcp").await;
        let params = json!({"ref": handle(id)}).to_string();
        assert_eq!(call(&mut operator, "session.find", &params).await["userAgent"], name);
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_nothing_where_nothing_is_said() {
    let server = TestServer::start();
    let long = format!("User-Agent: {}", "x".repeat(5000));
    let expected = "x".repeat(200);
    for (line, kept) in [
        (long.as_str(), Some(expected.as_str())),
        ("User-Agent: <b>\"M\u{f6}wer\"</b>\t1", Some("<b>\"M\u{f6}wer\"</b>1")),
        ("User-Agent:   ", None),
        ("X-Nothing: said", None),
    ] {
        let answer = post(&server, "/rest/auth", &[line], &login(VIEWER)).await;
        let shown = row(&server, answer.text()).await;
        assert_eq!(shown.get("userAgent").and_then(Value::as_str), kept, "{line}");
    }
    // Nobody says it where there is no head.
    let _mower = server.thing("mqtt", "mower-1").await;
    let mut operator = server.operator("tcp").await;
    for row in support::sessions(&mut operator, r#"{"connected":true}"#).await {
        assert!(row.get("userAgent").is_none(), "{row}");
    }
}

#[tokio::test]
async fn it_survives_a_restart_and_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = TR50D.serve(dir.path(), &[]);
    let agent = "User-Agent: Console/2 (X11)";
    let answer = post(&server, "/rest/auth", &[agent], &login(VIEWER)).await;
    let id = answer.text().to_owned();
    let plain = log_in(&server, OPERATOR.0, OPERATOR.1).await;
    server.end(Signal::KILL).await;
    server = TR50D.serve(dir.path(), &[]);
    assert_eq!(row(&server, &id).await["userAgent"], "Console/2 (X11)");
    assert!(row(&server, &plain).await.get("userAgent").is_none());

    let session = format!("sessionId: {id}");
    let ended = post(&server, "/rest/_/session.end", &[&session], &json!({})).await;
    assert_eq!(ended.json()["success"], true);
    for _ in 0..2 {
        let row = row(&server, &id).await;
        assert_eq!(
            (&row["userAgent"], &row["status"]),
            (&json!("Console/2 (X11)"), &json!("LOGGED_OUT"))
        );
        server.end(Signal::TERM).await;
        server = TR50D.serve(dir.path(), &[]);
    }
}

/// What `session.find` with these parameters says of the only session of a thing.
async fn found(client: &mut Client, key: &str, params: Value) -> Value {
    let rows = support::sessions(client, &json!({"thingKey": key}).to_string()).await;
    let mut asked = json!({"ref": rows[0]["ref"]});
    for (name, value) in params.as_object().expect("parameters") {
        asked[name] = value.clone();
    }
    call(client, "session.find", &asked.to_string()).await
}

#[tokio::test]
async fn a_connection_tells_what_it_subscribed_to_and_what_is_in_flight() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let plain = json!({"subscriptionCount": 0, "subscriptions": [], "waiting": 0,
        "inFlight": {"out": {"qos1": 0, "qos2": 0}, "in": {"qos1": 0, "qos2": 0}}});
    let names = ["subscriptionCount", "subscriptions", "inFlight", "waiting", "keptSession"];
    for version in ALL {
        let key = format!("plain-{version:?}");
        let _wire = Connect::thing(version, &key).open(&server).await;
        assert_eq!(found(&mut operator, &key, json!({"show": names})).await, plain, "{version:?}");
    }

    let mut wire = Connect::thing(V5, "mower").resuming().open(&server).await;
    assert_eq!(wire.subscribe_with("plant/+", 1, &[0x0b, 7]).await, 1);
    assert_eq!(wire.subscribe("hall/#", 2 | 4 | 8).await, 2);
    let mut other = Connect::thing(V5, "other").open(&server).await;
    other.tell("plant/a", "1").await;
    other.tell_once(1, "hall/a", "2").await;
    wire.unacknowledged().await;
    wire.unacknowledged().await;
    wire.send(&wire.publish(4, 9, "yard/a", "x")).await;
    wire.expect(&frame(0x50, &[&[0, 9]])).await;
    let shown = found(&mut operator, "mower", json!({"show": names})).await;
    assert_eq!(shown["subscriptionCount"], 2);
    let expected = json!([
        {"filter": "plant/+", "qos": 1, "noLocal": false, "retainAsPublished": false, "id": 7},
        {"filter": "hall/#", "qos": 2, "noLocal": true, "retainAsPublished": true},
    ]);
    assert_eq!(shown["subscriptions"], expected);
    let flight = &shown["inFlight"];
    assert_eq!(flight["out"], json!({"qos1": 1, "qos2": 1}));
    assert_eq!(flight["in"], json!({"qos1": 0, "qos2": 1}));
    assert!(flight["oldestMs"].is_u64(), "{flight}");
    assert_eq!(shown["keptSession"], json!({"expiryS": 3600}));

    // All of it beside the row, by `*`; what the vendor shows without.
    let all = found(&mut operator, "mower", json!({"show": ["*"]})).await;
    for name in ["whoAmI", "connInfo", "clientId", "lastSeen", "startsLastHour", "inFlight"] {
        assert!(all.get(name).is_some(), "{name}: {all}");
    }
    let usual = found(&mut operator, "mower", json!({})).await;
    assert!(usual.get("connInfo").is_some() && usual.get("clientId").is_none(), "{usual}");
    // The client of the same login sees its own; so does who may find it, but for the filters.
    let mut own = server.thing("http", "mower").await;
    let mine = found(&mut own, "mower", json!({"show": ["subscriptionCount"]})).await;
    assert!(mine.get("subscriptionCount").is_none(), "the newest is that over HTTP: {mine}");
}

/// The members of each message but its time, which has to be one.
fn without_times(messages: &Value) -> Vec<Value> {
    let without = |message: &Value| {
        let mut message = message.clone();
        if let Some(since) = message.as_object_mut().and_then(|members| members.remove("since")) {
            let since = base::Timestamp::parse(since.as_str().expect("a text"));
            assert!(since.is_some_and(|since| since.as_millis() > 1_700_000_000_000), "{since:?}");
        }
        message
    };
    messages.as_array().expect("messages").iter().map(without).collect()
}

#[tokio::test]
async fn messages_in_flight_and_those_that_wait_are_told_without_payloads() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let names = ["inFlightMessages", "waiting", "waitingBytes", "waitingMessages"];
    let mut other = Connect::thing(V5, "other").open(&server).await;
    for is_kept in [false, true] {
        let key = format!("slow-{is_kept}");
        // It takes two at a time.
        let connect = Connect::thing(V5, &key).properties(&[0x21, 0, 2]);
        let connect = if is_kept { connect.resuming() } else { connect };
        let mut slow = connect.open(&server).await;
        slow.subscribe(&format!("{key}/#"), 2).await;
        let long = format!("{key}/{}é", "x".repeat(255 - key.len() - 1));
        for (pkid, topic) in [(1, "a"), (2, "b"), (3, "c")] {
            other.tell_once(pkid, &format!("{key}/{topic}"), "secret").await;
        }
        other.tell(&long, "secret").await;
        let first = slow.unacknowledged().await.pkid;
        let second = slow.unacknowledged().await.pkid;
        // It has the first one, whose release is on its way.
        let [high, low] = first.to_be_bytes();
        slow.send(&[0x50, 2, high, low]).await;
        slow.expect(&[0x62, 2, high, low]).await;
        let shown = found(&mut operator, &key, json!({"show": names})).await;
        let text = shown.to_string();
        assert!(!text.contains("secret"), "{text}");
        let sent = json!([
            {"packetId": first, "qos": 2, "released": true, "topic": format!("{key}/a"), "bytes": 6},
            {"packetId": second, "qos": 2, "topic": format!("{key}/b"), "bytes": 6},
        ]);
        assert_eq!(json!(without_times(&shown["inFlightMessages"])), sent, "{text}");
        // Of a long topic the beginning, up to a whole character.
        let waits = json!([
            {"qos": 2, "topic": format!("{key}/c"), "bytes": 6},
            {"qos": 1, "topic": long.trim_end_matches('é'), "bytes": 6},
        ]);
        assert_eq!(json!(without_times(&shown["waitingMessages"])), waits, "{text}");
        assert!(shown["waitingBytes"].as_u64() > Some(12), "{text}");
        assert!(shown["waiting"].as_u64() >= Some(2), "{text}");
    }
}

#[tokio::test]
async fn filters_are_shown_to_administrators_and_to_the_same_login() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V5, "mower").open(&server).await;
    assert_eq!(wire.subscribe("plant/+", 0).await, 0);
    let mut operator = server.operator("tcp").await;
    let rows = support::sessions(&mut operator, r#"{"thingKey":"mower"}"#).await;
    let show = ["subscriptions", "subscriptionCount", "inFlightMessages", "waitingMessages"];
    let asked = json!({"ref": rows[0]["ref"], "show": show});
    let mut own = server.thing("tcp", "mower").await;
    for client in [&mut operator, &mut own] {
        let shown = call(client, "session.find", &asked.to_string()).await;
        assert_eq!(shown["subscriptions"][0]["filter"], "plant/+");
        assert_eq!(shown["inFlightMessages"], json!([]));
    }
    let mut other = server.thing("tcp", "other").await;
    let shown = call(&mut other, "session.find", &asked.to_string()).await;
    assert_eq!(shown, json!({"subscriptionCount": 1}));
}

#[tokio::test]
async fn ended_sessions_are_found_by_who_asks_for_them_and_starts_are_counted() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut references = Vec::new();
    for _ in 0..3 {
        let wire = Connect::thing(V5, "mower").open(&server).await;
        let rows = support::sessions(&mut operator, r#"{"thingKey":"mower"}"#).await;
        references.push(rows[0]["ref"].as_str().expect("a ref").to_owned());
        wire.leave().await;
        support::end_reason(&mut operator, "mower").await;
    }
    let _other = Connect::thing(V5, "other").open(&server).await;
    for reference in &references {
        let asked = json!({"ref": reference}).to_string();
        let missing = support::reply(&mut operator, "session.find", &asked).await;
        assert_eq!(missing["errorCodes"], json!([-90008]));
        let asked = json!({"ref": reference, "ended": true, "show": ["*"]}).to_string();
        let shown = call(&mut operator, "session.find", &asked).await;
        assert_eq!((&shown["status"], &shown["whoAmI"]), (&json!("LOGGED_OUT"), &json!("mower")));
        assert_eq!(shown["startsLastHour"], 3);
        assert!(shown.get("inFlight").is_none() && shown.get("outbox").is_none(), "{shown}");
    }
    // Those of another organisation are not there at all.
    let mut york = support::connect(&server.url("tcp", "y", "demo-token-yorkorg")).await;
    let asked = json!({"ref": references[0], "ended": true}).to_string();
    let missing = support::reply(&mut york, "session.find", &asked).await;
    assert_eq!(missing["success"], false);

    let params = json!({"show": ["whoAmI", "startsLastHour", "all"], "sort": "whoAmI"});
    let listed = call(&mut operator, "session.list", &params.to_string()).await;
    assert_eq!(listed["fields"], json!(["whoAmI", "startsLastHour"]));
    let starts = |who: &str| -> Vec<Value> {
        let rows = listed["result"].as_array().expect("rows").iter();
        rows.filter(|row| row["whoAmI"] == who).map(|row| row["startsLastHour"].clone()).collect()
    };
    assert_eq!(starts("mower"), [json!(3), json!(3), json!(3)]);
    assert_eq!(starts("other"), [json!(1)]);
    let starred = call(&mut operator, "session.list", r#"{"show":["*"]}"#).await;
    assert!(starred["result"][0].get("startsLastHour").is_none());
}

#[tokio::test]
async fn a_connection_is_told_of_itself() {
    let server = TestServer::start();
    let mut mower = server.thing("mqtt", "mower").await;
    let own = call(&mut mower, "session.info", "").await["ref"].clone();
    let asked = json!({"ref": own, "show": ["whoAmI", "inFlight", "waiting"]}).to_string();
    let shown = call(&mut mower, "session.find", &asked).await;
    assert_eq!((&shown["whoAmI"], &shown["waiting"]), (&json!("mower"), &json!(0)));
    assert!(shown["inFlight"]["out"]["qos1"].is_u64(), "{shown}");
}
