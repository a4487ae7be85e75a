//! Shares of what is stored: one token fills what it may have, and others lose nothing by it; what is
//! removed is given back to the last piece.

use client::Client;
use client::Version::{V5, V31, V311};
use serde_json::{Value, json};
use support::http::metrics;
use support::mqtt::{Connect, Wire};
use support::{Endpoints, TestServer, call, connect, eventually, reply};

use crate::files::{post, put_id};

/// Tokens of two applications of BasicOrg, and of one of YorkOrg.
const BASIC: &str = "demo-token-basicorg";
const BASIC_TOO: &str = "demo-basicorg-16";
const YORK: &str = "demo-token-yorkorg";

/// What is used of a pool, or its other metrics; none before they are counted for the first time.
async fn pool(server: &Endpoints, metric: &str, name: &str) -> Option<u64> {
    let text = metrics(server).await;
    let line = format!("tr50d_pool_{metric}{{pool=\"{name}\"}} ");
    let value = text.lines().find_map(|text| text.strip_prefix(&line));
    value.map(|value| value.parse().expect("a number"))
}

async fn used_becomes(server: &Endpoints, name: &str, expected: u64) {
    let is = async || pool(server, "used", name).await == Some(expected);
    eventually(&format!("{expected} are used of {name}"), is).await;
}

/// A device that logs in over TCP, if it is let in.
async fn device(server: &Endpoints, token: &str, key: &str) -> Option<Client> {
    Client::connect(&server.url("tcp", key, token)).await.ok()
}

/// Registers things until one is refused; how many there are.
async fn register_all(server: &Endpoints, token: &str, prefix: &str) -> u64 {
    for number in 0..200 {
        if device(server, token, &format!("{prefix}-{number}")).await.is_none() {
            return number;
        }
    }
    panic!("there is a bound");
}

fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

/// A client over MQTT, if it is let in.
async fn mqtt(server: &Endpoints, connect: Connect) -> Option<Wire> {
    let mut wire = Wire::open(server, connect.version).await;
    wire.send(&connect.frame()).await;
    let connack = wire.frame().await.expect("a CONNACK");
    (connack[3] == 0).then_some(wire)
}

#[tokio::test]
async fn a_client_that_comes_anew_has_the_place_of_its_old_connection() {
    let server = TestServer::with(&[("TR50D_LIMITS__SESSIONS", "32")]);
    let thing = |key: &str, version| Connect::thing(version, key);
    let mut there = Vec::new();
    while let Some(wire) = mqtt(&server, thing(&format!("a-{}", there.len()), V311)).await {
        there.push(wire);
    }
    let (count, refused) = (there.len(), pool(&server, "refused_total", "sessions").await);
    assert!((20..32).contains(&count), "{count}");
    // The network has dropped its connection, and the server does not know it yet.
    for version in [V31, V311, V5] {
        let again = mqtt(&server, thing("a-3", version)).await;
        there.push(again.expect("there are not more than before"));
    }
    used_becomes(&server, "sessions", count as u64).await;
    assert_eq!(pool(&server, "refused_total", "sessions").await, refused);
    let one_more = mqtt(&server, thing("a-3", V311).id("another")).await;
    assert!(one_more.is_none(), "with another client id it is one more");
    there.clear();
    used_becomes(&server, "sessions", 0).await;
}

#[tokio::test]
async fn whoever_moves_to_another_organisation_needs_room_there() {
    let server = TestServer::with(&[("TR50D_LIMITS__SESSIONS", "24")]);
    let mut admin = server.admin("http").await;
    let place = r#"{"userId":"5cf885f41c5bd771c8065bf2","orgId":"533ef300310046187700007f"}"#;
    call(&mut admin, "user.org.add", place).await;
    let login = r#"{"auth":{"command":"api.authenticate","params":{"username":"viewer@basicorg.example","password":"demo-viewer-password"}}}"#;
    let log_in = async || {
        let mut ids = Vec::new();
        loop {
            let reply: Value =
                serde_json::from_str(&support::http::post(&server, login).await).expect("JSON");
            match reply["auth"]["params"]["sessionId"].as_str() {
                Some(id) => ids.push(id.to_owned()),
                None => return ids,
            }
        }
    };
    let switch = async |id: &str| {
        let request = json!({
            "auth": { "sessionId": id },
            "1": { "command": "session.org.switch", "params": { "key": "YorkOrg" } },
        });
        let reply = support::http::post(&server, &request.to_string()).await;
        serde_json::from_str::<Value>(&reply).expect("JSON")
    };
    let first = log_in().await;
    assert!((12..24).contains(&first.len()), "{first:?}");
    for id in &first {
        assert_eq!(switch(id).await["1"]["success"], true, "as many as here");
    }
    let second = log_in().await;
    let id = second.last().expect("there is room for others, here");
    let refused = switch(id).await;
    assert_eq!(code(&refused["1"]), -95018, "{refused}");
    let text = refused["1"]["errorMessages"][0].as_str().expect("a text");
    assert!(text.contains("limits.sessions") && text.contains("share"), "{refused}");
    // Who has to end some of them gets in.
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
}

#[tokio::test]
async fn who_registers_things_without_end_leaves_room_for_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_LIMITS__THINGS", "64")];
    let server = TestServer::in_dir(dir.path(), &settings);
    let first = register_all(&server, BASIC, "a").await;
    assert!((50..60).contains(&first), "alone it may have nearly all: {first}");
    let same = device(&server, BASIC, "a-0").await;
    assert!(same.is_some(), "a thing that is there logs in");
    let second = register_all(&server, BASIC_TOO, "b").await;
    assert!(second >= 1, "the other application of the organisation");
    let other = register_all(&server, YORK, "c").await;
    assert!(other >= 4, "the other organisation: {other}");

    let mut operator = server.operator("http").await;
    let refused = reply(&mut operator, "thing.create", r#"{"key":"d"}"#).await;
    assert_eq!(code(&refused), -95018, "{refused}");
    let text = refused["errorMessages"][0].as_str().expect("a text");
    assert!(text.contains("limits.things") && text.contains("your organisation"), "{text}");
    let asked = r#"{"class":"refusals"}"#;
    let seen = call(&mut operator, "audit.list", asked).await.to_string();
    assert!(seen.contains(r#""cause":"full""#), "{seen}");

    let all = first + second + other;
    used_becomes(&server, "things", all).await;
    for number in 0..20 {
        let thing = json!({ "key": format!("a-{number}") }).to_string();
        call(&mut operator, "thing.delete", &thing).await;
    }
    used_becomes(&server, "things", all - 20).await;
    drop((same, operator));
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &settings);
    used_becomes(&server, "things", all - 20).await;
    let again = register_all(&server, BASIC, "a").await;
    assert!((1..first).contains(&again), "there is room again, and not more than before: {again}");
}

#[tokio::test]
async fn organisations_below_one_get_no_more_together() {
    let server = TestServer::with(&[("TR50D_LIMITS__THINGS", "64")]);
    let mut operator = server.operator("tcp").await;
    let mut made = 0;
    for number in 0..20 {
        let key = format!("Below{number}");
        call(&mut operator, "org.create", &json!({ "key": key }).to_string()).await;
        call(&mut operator, "session.org.switch", &json!({ "key": key }).to_string()).await;
        for thing in 0..20 {
            let thing = json!({ "key": thing.to_string() }).to_string();
            if reply(&mut operator, "thing.create", &thing).await["success"] != true {
                break;
            }
            made += 1;
        }
        call(&mut operator, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    }
    assert!((40..=60).contains(&made), "{made}");
    let other = register_all(&server, YORK, "c").await;
    assert!(other >= 4, "the other organisation: {other}");
}

fn points(names: std::ops::Range<u32>, value: u32) -> String {
    let point = |name| json!({ "key": format!("p{name}"), "value": value });
    json!({ "data": names.map(point).collect::<Vec<_>>() }).to_string()
}

async fn current(client: &mut Client, name: &str) -> Value {
    call(client, "property.current", &json!({ "key": name }).to_string()).await["value"].clone()
}

#[tokio::test]
async fn who_names_properties_without_end_leaves_series_for_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_LIMITS__SERIES", "64")];
    let server = TestServer::in_dir(dir.path(), &settings);
    let mut flood = device(&server, BASIC, "a").await.expect("welcome");
    let refused = reply(&mut flood, "property.batch", &points(0..100, 1)).await;
    assert_eq!(code(&refused), -95018, "{refused}");
    let text = refused["errorMessages"][0].as_str().expect("a text").to_owned();
    assert!(text.starts_with("data[5") && text.contains("limits.series"), "{text}");
    let first: u64 = text["data[".len()..text.find(']').expect("a place")].parse().expect("it");
    used_becomes(&server, "series", first).await;

    // What is there goes on, in the batch of what is refused, too.
    let mixed = r#"{"data":[{"key":"new","value":2},{"key":"p0","value":2}]}"#;
    assert_eq!(code(&reply(&mut flood, "property.batch", mixed).await), -95018);
    assert_eq!(current(&mut flood, "p0").await, 2);
    let one = r#"{"key":"new","value":2}"#;
    assert_eq!(code(&reply(&mut flood, "property.publish", one).await), -95018);
    call(&mut flood, "property.publish", r#"{"key":"p1","value":3}"#).await;
    let mut colleague = device(&server, BASIC_TOO, "b").await.expect("welcome");
    call(&mut colleague, "property.publish", one).await;
    let mut other = device(&server, YORK, "c").await.expect("welcome");
    call(&mut other, "property.batch", &points(0..4, 7)).await;
    assert_eq!(current(&mut other, "p3").await, 7);
    used_becomes(&server, "series", first + 5).await;
    drop((flood, colleague, other));
    server.stop().await;

    let server = TestServer::in_dir(dir.path(), &settings);
    used_becomes(&server, "series", first + 5).await;
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.delete", r#"{"key":"a"}"#).await;
    used_becomes(&server, "series", 5).await;
    let mut again = device(&server, BASIC, "a").await.expect("welcome");
    call(&mut again, "property.publish", one).await;
}

#[tokio::test]
async fn who_stores_files_without_end_leaves_room_for_others() {
    let total = 64 * 4096;
    let server = TestServer::with(&[("TR50D_FILES__TOTAL_MAX_BYTES", &total.to_string())]);
    let store = async |client: &mut Client, name: String, bytes: usize| {
        let put = json!({ "fileName": name }).to_string();
        let ticket = reply(client, "file.put", &put).await;
        match ticket["params"]["fileId"].as_str() {
            Some(id) => i64::from(post(&server, id, &vec![b'x'; bytes]).await.status),
            None => code(&ticket),
        }
    };
    let mut flood = device(&server, BASIC, "a").await.expect("welcome");
    assert_eq!(store(&mut flood, "too large".into(), total).await, 507);
    used_becomes(&server, "file_bytes", 0).await;
    assert_eq!(pool(&server, "refused_total", "file_bytes").await, Some(1));
    let mut stored = 0;
    let refused = loop {
        match store(&mut flood, format!("f{stored}"), 4 * 4096).await {
            200 => stored += 1,
            status => break status,
        }
    };
    assert!((11..15).contains(&stored), "{stored}");
    assert!(matches!(refused, 507 | -95016), "{refused}");
    assert_eq!(pool(&server, "refused_total", "file_bytes").await, Some(2));
    // A file is replaced all the same, and by one upload at a time.
    assert_eq!(store(&mut flood, "f0".into(), 4 * 4096).await, 200);
    let mut colleague = device(&server, BASIC_TOO, "b").await.expect("welcome");
    assert_eq!(store(&mut colleague, "one".into(), 1).await, 200);
    let mut other = device(&server, YORK, "c").await.expect("welcome");
    assert_eq!(store(&mut other, "some".into(), 4 * 4096).await, 200);
    used_becomes(&server, "file_bytes", (4 * stored + 1 + 4) * 4096).await;
    let mut operator = server.operator("http").await;
    for thing in ["a", "b"] {
        call(&mut operator, "thing.delete", &json!({ "key": thing }).to_string()).await;
    }
    used_becomes(&server, "file_bytes", 4 * 4096).await;
}

#[tokio::test]
async fn one_login_has_so_many_tickets_and_is_told() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "0")]);
    let mut flood = device(&server, BASIC, "a").await.expect("welcome");
    for number in 0..1000 {
        put_id(&mut flood, json!({ "fileName": number.to_string() })).await;
    }
    let refused = reply(&mut flood, "file.put", r#"{"fileName":"x"}"#).await;
    assert_eq!(code(&refused), -95011);
    let text = refused.to_string();
    assert!(text.contains("you have 1000 tickets") && text.contains("file_tickets"), "{text}");
    assert_eq!(pool(&server, "refused_total", "file_tickets").await, Some(1));
    let mut colleague = device(&server, BASIC_TOO, "b").await.expect("welcome");
    put_id(&mut colleague, json!({ "fileName": "x" })).await;
}

#[tokio::test]
async fn who_fills_a_mailbox_leaves_room_for_others() {
    let server = TestServer::with(&[("TR50D_MAILBOX__WAITING_MAX", "16")]);
    let mut flood = device(&server, BASIC, "a").await.expect("welcome");
    let send = r#"{"thingKey":"a","command":"c","ackTimeout":0,"ttl":-1}"#;
    for _ in 0..14 {
        call(&mut flood, "mailbox.send", send).await;
    }
    let refused = reply(&mut flood, "mailbox.send", send).await;
    assert_eq!(code(&refused), -95021);
    let text = refused.to_string();
    assert!(text.contains("your share") && text.contains("mailbox.waiting_max"), "{text}");
    let mut operator = server.operator("http").await;
    for _ in 0..2 {
        call(&mut operator, "mailbox.send", send).await;
    }
    let full = reply(&mut operator, "mailbox.send", send).await.to_string();
    assert!(full.contains("as many as may (mailbox.waiting_max)"), "{full}");
    // What is done makes room.
    call(&mut flood, "mailbox.check", r#"{"limit":3,"autoComplete":true}"#).await;
    call(&mut operator, "mailbox.send", send).await;
}

#[tokio::test]
async fn ended_sessions_that_make_way_are_not_refused() {
    let server = TestServer::with(&[("TR50D_SESSIONS__HISTORY_MAX", "4")]);
    for number in 0..6 {
        drop(device(&server, BASIC, &format!("a-{number}")).await.expect("welcome"));
    }
    let evicted = async || pool(&server, "evicted_total", "ended_sessions").await == Some(2);
    eventually("two have made way", evicted).await;
    assert_eq!(pool(&server, "refused_total", "ended_sessions").await, Some(0));
}

#[tokio::test]
async fn what_is_used_up_or_taken_back_is_given_back() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut mower = device(&server, BASIC, "mower").await.expect("welcome");
    for number in 0..4 {
        let id = put_id(&mut mower, json!({ "fileName": number.to_string() })).await;
        if number == 0 {
            assert_eq!(post(&server, &id, b"x").await.status, 200);
        }
    }
    used_becomes(&server, "file_tickets", 3).await;
    used_becomes(&server, "file_transfers", 0).await;

    let send = r#"{"thingKey":"mower","command":"c","ackTimeout":0,"ttl":300}"#;
    for _ in 0..3 {
        call(&mut operator, "mailbox.send", send).await;
    }
    let mut caller = server.operator("tcp").await;
    let wait = tokio::spawn(async move {
        reply(&mut caller, "method.exec", r#"{"thingKey":"mower","method":"m"}"#).await
    });
    used_becomes(&server, "callers", 1).await;
    let fetched = call(&mut mower, "mailbox.check", r#"{"limit":10}"#).await;
    assert_eq!(fetched["messages"].as_array().map(Vec::len), Some(4), "{fetched}");
    let mail_bytes = async || pool(&server, "used", "mail_bytes").await > Some(0);
    eventually("mails take room", mail_bytes).await;
    call(&mut operator, "thing.delete", r#"{"key":"mower"}"#).await;
    assert_eq!(code(&wait.await.expect("an answer")), -95020);
    for name in ["file_tickets", "mail_bytes", "callers", "file_bytes", "things"] {
        used_becomes(&server, name, 0).await;
    }
}

#[tokio::test]
async fn each_pool_has_its_metrics() {
    let server = TestServer::start();
    let mut subscriber = connect(&server.thing_url("mqtt", "mower")).await;
    call(&mut subscriber, "diag.ping", "").await;
    used_becomes(&server, "things", 1).await;
    let is_summed = |max| !matches!(max, base::pool::Max::Each(..));
    for (_, info) in base::pool::POOLS.iter().filter(|(_, info)| is_summed(info.max)) {
        for metric in ["used", "refused_total", "evicted_total"] {
            assert!(pool(&server, metric, info.name).await.is_some(), "{} {metric}", info.name);
        }
        assert!(pool(&server, "limit", info.name).await > Some(0), "{}", info.name);
    }
}
