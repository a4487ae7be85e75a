//! Points that are sent again: each is taken once, over every door, and the reply is success.

use client::Client;
use serde_json::{Value, json};
use support::http::{log_in, post_with};
use support::{Endpoints, Signal, TestServer, call, reply};

use crate::TR50D;

const TS: &str = "2021-08-10T14:16:10.976Z";

/// How many points a thing has of each kind: what lists them, and under which name.
const LISTED: [(&str, &str); 5] = [
    ("property.history", "values"),
    ("alarm.history", "values"),
    ("attribute.history", "values"),
    ("location.history", "values"),
    ("log.list", "result"),
];

/// Each command that publishes, and how often its point is in it.
fn commands(word: &str) -> Vec<(&'static str, Value)> {
    let with = |mut params: Value| {
        params["ts"] = TS.into();
        params["corrId"] = word.into();
        params
    };
    let twice = |item: Value| json!([item, item]);
    vec![
        ("property.publish", with(json!({"key": "p", "value": 1.5}))),
        ("property.batch", json!({"key": "p", "data": twice(with(json!({"value": "1.5"})))})),
        ("property.batch", with(json!({"data": twice(json!({"key": "p", "value": 1.5}))}))),
        ("alarm.publish", with(json!({"key": "p", "state": 2, "republish": true}))),
        (
            "alarm.batch",
            json!({"data": twice(with(json!({"key": "p", "state": 2, "republish": true})))}),
        ),
        ("attribute.publish", with(json!({"key": "p", "value": "x", "republish": true}))),
        (
            "attribute.batch",
            json!({"data": twice(with(json!({"key": "p", "value": "x", "republish": true})))}),
        ),
        ("location.publish", with(json!({"lat": 1, "lng": 2}))),
        ("location.batch", json!({"data": twice(with(json!({"lat": 1, "lng": 2})))})),
        ("log.publish", with(json!({"msg": "Started."}))),
    ]
}

async fn publish(client: &mut Client, thing: &str, word: &str) {
    for (command, mut params) in commands(word) {
        params["thingKey"] = thing.into();
        let reply = reply(client, command, &params.to_string()).await;
        assert_eq!(reply, json!({"success": true}), "{command} {params}");
    }
}

async fn counts(server: &Endpoints, thing: &str) -> Vec<usize> {
    let mut operator = server.operator("mqtt").await;
    let mut counts = Vec::new();
    for (command, name) in LISTED {
        let params = json!({"thingKey": thing, "key": "p", "start": "2021-01-01T00:00:00Z"});
        let listed = call(&mut operator, command, &params.to_string()).await;
        counts.push(listed[name].as_array().map_or(0, Vec::len));
    }
    counts
}

#[tokio::test]
async fn a_point_is_taken_once_over_every_door_and_after_a_kill() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = TR50D.serve(&home.path().join("data"), &[]);
    for door in ["mqtt", "tcp", "http", "mqtt"] {
        let mut thing = server.thing(door, "mower-1").await;
        publish(&mut thing, "mower-1", "c-1").await;
        publish(&mut thing, "mower-1", "c-1").await;
        assert_eq!(counts(&server, "mower-1").await, [1; 5], "{door}");
        server.end(Signal::KILL).await;
        server = TR50D.serve(&home.path().join("data"), &[]);
    }
    // Another word, another thing, and whoever says no word.
    let mut operator = server.operator("http").await;
    publish(&mut operator, "mower-1", "c-2").await;
    assert_eq!(counts(&server, "mower-1").await, [2; 5]);
    call(&mut operator, "thing.create", r#"{"key":"mower-2","name":"mower-2"}"#).await;
    publish(&mut operator, "mower-2", "c-1").await;
    assert_eq!(counts(&server, "mower-2").await, [1; 5]);
    publish(&mut operator, "mower-2", "").await;
    assert_eq!(counts(&server, "mower-2").await, [6, 4, 4, 4, 2]);
}

#[tokio::test]
async fn the_first_value_stays_and_is_told_once() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut point = json!({"key": "p", "value": 1, "ts": TS, "corrId": "c"});
    // All are on their way at once.
    let mut many = Vec::new();
    for at in 0..20 {
        point["value"] = (at + 1).into();
        many.push(format!(r#""{at}":{{"command":"property.publish","params":{point}}}"#));
    }
    let id = log_in(&server, "mower-1", "demo-token-basicorg").await;
    let body = format!("{{{}}}", many.join(","));
    let reply = post_with(&server, &format!("sessionId: {id}\r\n"), &body).await;
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert!((0..20).all(|at| reply[at.to_string()]["success"] == true), "{reply}");
    point["value"] = 2.into();
    call(&mut thing, "property.publish", &point.to_string()).await;
    let current = call(&mut thing, "property.current", r#"{"key":"p"}"#).await;
    assert_eq!(current, json!({"value": 1, "ts": TS, "corrId": "c"}));
    assert_eq!(counts(&server, "mower-1").await[0], 1);
}
