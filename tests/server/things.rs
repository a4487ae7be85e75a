//! Things: making, binding, finding and deleting them, from the outside.

use client::Version::V311;
use serde_json::json;
use support::mqtt::{Connect, DISCONNECT};
use support::{Signal, TestServer, call, connect, end_reason, eventually, reply};

use crate::TR50D;

const NOT_FOUND: i64 = -90008;

#[tokio::test]
async fn organisations_never_see_each_others_things() {
    let server = TestServer::start();
    let mut basic = server.operator("http").await;
    let mut york = connect(&server.url("http", "york-1", "demo-token-yorkorg")).await;
    let made = r#"{"key":"pump","name":"Secret","imei":"35","tags":["red"]}"#;
    let id = call(&mut basic, "thing.create", made).await["id"].clone();
    // The same key and the same identifier are another organisation's to use.
    call(&mut york, "thing.create", r#"{"key":"valve","imei":"35"}"#).await;
    for params in [r#"{"key":"pump"}"#, &format!(r#"{{"id":{id}}}"#)] {
        for command in ["thing.find", "thing.update", "thing.bind"] {
            let params = params
                .replace("\"id\"", if command == "thing.bind" { "\"key\"" } else { "\"id\"" });
            if command == "thing.bind" {
                // Binding makes one of its own.
                continue;
            }
            let failure = reply(&mut york, command, &params).await;
            assert_eq!(failure["errorCodes"], json!([NOT_FOUND]), "{command} {params}");
        }
    }
    let listed = call(&mut york, "thing.list", r#"{"show":["key"],"iterator":"new"}"#).await;
    assert_eq!(listed["result"], json!([{"key":"valve"},{"key":"york-1"}]));
    let found = call(&mut york, "thing.find", r#"{"imei":"35"}"#).await;
    assert_eq!(found["key"], "valve");
    let found = call(&mut basic, "thing.find", r#"{"imei":"35"}"#).await;
    assert_eq!(found["key"], "pump");
    // Nor does a listing that was begun elsewhere go on in another organisation.
    let page = call(&mut basic, "thing.list", r#"{"iterator":"new","limit":1}"#).await;
    let next = format!(r#"{{"iterator":{}}}"#, page["iterator"]);
    let listed = reply(&mut york, "thing.list", &next).await;
    assert!(!listed.to_string().contains("Secret"), "{listed}");
}

#[tokio::test]
async fn a_bound_thing_follows_its_parent() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut connected = async |key: &str| {
        let found = call(&mut operator, "thing.find", &format!(r#"{{"key":"{key}"}}"#)).await;
        found["connected"] == true
    };
    let mut gateway = server.thing("mqtt", "gateway").await;
    call(&mut gateway, "thing.bind", r#"{"key":"sensor"}"#).await;
    assert!(connected("gateway").await && connected("sensor").await);
    call(&mut gateway, "thing.unbind", r#"{"key":"sensor"}"#).await;
    assert!(!connected("sensor").await);
    call(&mut gateway, "thing.bind", r#"{"key":"sensor"}"#).await;
    drop(gateway);
    eventually("the parent is gone", async || !connected("sensor").await).await;
    // A connection of its own counts as well.
    let _own = server.thing("tcp", "sensor").await;
    assert!(connected("sensor").await && !connected("gateway").await);
}

#[tokio::test]
async fn who_deletes_a_thing_ends_its_sessions() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    let find = r#"{"key":"mower"}"#;
    let before = call(&mut operator, "thing.find", find).await;
    call(&mut operator, "thing.delete", find).await;
    mower.expect_end().await;
    assert_eq!(end_reason(&mut operator, "mower").await, "revoked");
    let failure = reply(&mut operator, "thing.find", find).await;
    assert_eq!(failure["errorCodes"], json!([NOT_FOUND]));
    // Whoever comes back is a new thing.
    Connect::thing(V311, "mower").open(&server).await;
    let after = call(&mut operator, "thing.find", find).await;
    assert_ne!(before["id"], after["id"]);
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let mut server = TR50D.start(&[]);
    let mut operator = server.operator("tcp").await;
    for number in 0..20 {
        let made = format!(r#"{{"key":"pump-{number:02}","imei":"{number}"}}"#);
        call(&mut operator, "thing.create", &made).await;
    }
    call(&mut operator, "thing.tag.add", r#"{"thingAll":true,"tags":["all"]}"#).await;
    call(&mut operator, "thing.delete", r#"{"key":"pump-07"}"#).await;
    call(&mut operator, "thing.update", r#"{"key":"pump-08","imei":"new"}"#).await;
    server.end(Signal::KILL).await;
    let again = TestServer::in_dir(server.data_dir(), &[]);
    let mut operator = again.operator("tcp").await;
    let listed = call(&mut operator, "thing.list", r#"{"tags":["all"],"show":"key"}"#).await;
    assert_eq!(listed["count"], 19);
    assert_eq!(call(&mut operator, "thing.list", "").await["count"], 19);
    let found = call(&mut operator, "thing.find", r#"{"imei":"new"}"#).await;
    assert_eq!(found["key"], "pump-08");
    for gone in ["7", "8"] {
        let params = format!(r#"{{"imei":"{gone}"}}"#);
        let failure = reply(&mut operator, "thing.find", &params).await;
        assert_eq!(failure["errorCodes"], json!([NOT_FOUND]));
    }
}

#[tokio::test]
async fn a_listing_in_pages_shows_each_thing_once() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    for number in 0..25 {
        let made = format!(r#"{{"key":"k{number:02}","name":"{}"}}"#, number % 2);
        call(&mut operator, "thing.create", &made).await;
    }
    let mut check = async |command: &str, filter: &str, limit: usize, expected: usize| {
        let mut params = format!(r#"{{{filter}"iterator":"new","limit":{limit},"show":"key"}}"#);
        let mut keys: Vec<String> = Vec::new();
        loop {
            let page = reply(&mut operator, command, &params).await;
            if page["success"] == false {
                assert_eq!(page["errorCodes"], json!([-90058]));
                break;
            }
            assert_eq!(page["params"]["count"], expected, "{command} {filter}");
            let result = page["params"]["result"].as_array().expect("a list");
            assert!(result.len() <= limit);
            keys.extend(result.iter().map(|row| row["key"].as_str().expect("a key").to_owned()));
            let iterator = &page["params"]["iterator"];
            params = format!(r#"{{{filter}"iterator":{iterator},"limit":{limit},"show":"key"}}"#);
        }
        assert_eq!(keys.len(), expected, "{command} {filter} {limit}: {keys:?}");
        assert!(keys.is_sorted());
    };
    for limit in [1, 5, 12, 25, 26, 2000] {
        check("thing.list", "", limit, 25).await;
        check("thing.search", r#""query":"name:1","#, limit, 12).await;
        check("thing.list", r#""keys":["k24","k03","k11","none"],"#, limit, 3).await;
    }
}

#[tokio::test]
async fn when_a_thing_was_last_seen_outlives_its_sessions_and_a_restart() {
    let mut server = TR50D.start(&[]);
    let mut operator = server.operator("tcp").await;
    let seen = async |operator: &mut client::Client, key: &str| {
        let found = call(operator, "thing.find", &format!(r#"{{"key":"{key}"}}"#)).await;
        let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
        (text("lastSeen"), text("lastCommunication"))
    };
    let never = ["0001-01-01T00:00:00.000Z"; 2].map(str::to_owned).into();
    call(&mut operator, "thing.create", r#"{"key":"never"}"#).await;
    assert_eq!(seen(&mut operator, "never").await, never);
    let mut mower = Connect::thing(V311, "mower").open(&server).await;
    mower.tell("thing/self/property/temp", "1").await;
    mower.expect_quiet().await;
    let live = seen(&mut operator, "mower").await;
    assert!(live.0 >= live.1 && !live.1.is_empty(), "{live:?}");
    mower.send(DISCONNECT).await;
    mower.expect_end().await;
    assert_eq!(end_reason(&mut operator, "mower").await, "logged_out");
    let ended = seen(&mut operator, "mower").await;
    assert!(ended.0 >= live.0 && ended.1 == live.1, "{live:?} {ended:?}");
    // One that was connected when the server was killed was seen when it came at least.
    let _alive = Connect::thing(V311, "alive").open(&server).await;
    let alive = seen(&mut operator, "alive").await;
    call(&mut operator, "thing.create", r#"{"key":"barrier"}"#).await;
    server.end(Signal::KILL).await;
    let again = TestServer::in_dir(server.data_dir(), &[]);
    let mut operator = again.operator("tcp").await;
    assert_eq!(seen(&mut operator, "mower").await, ended);
    assert_eq!(seen(&mut operator, "alive").await.1, alive.1);
    call(&mut operator, "thing.delete", r#"{"key":"mower"}"#).await;
    call(&mut operator, "thing.create", r#"{"key":"mower"}"#).await;
    assert_eq!(seen(&mut operator, "mower").await, never);
}

#[tokio::test]
async fn mail_that_waits_for_a_bound_thing_is_announced() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.create", r#"{"key":"sensor"}"#).await;
    let mail = r#"{"thingKey":"sensor","method":"measure","ackTimeout":0,"ttl":-1}"#;
    call(&mut operator, "method.exec", mail).await;
    let mut gateway = Connect::thing(V311, "gateway").open(&server).await;
    gateway.expect_quiet().await;
    let bind = r#"{"b":{"command":"thing.bind","params":{"key":"sensor"}}}"#;
    gateway.send(&gateway.publish(0, 0, "api", bind)).await;
    let mut got = [gateway.message().await, gateway.message().await];
    got.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert_eq!(got[0].topic, "notify/mailbox_activity");
    assert!(got[0].texts().1.contains(r#""thingKey":"sensor""#));
    assert_eq!(got[1].texts(), ("reply", r#"{"b":{"success":true}}"#));
    let check = r#"{"c":{"command":"mailbox.check"}}"#;
    gateway.send(&gateway.publish(0, 0, "api", check)).await;
    let mails = gateway.message().await;
    assert!(mails.texts().1.contains(r#""thingKey":"sensor""#), "{:?}", mails.texts());
}
