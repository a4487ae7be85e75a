//! Clocks: what is due goes by the time that passes, whatever happens to the wall clock; what is
//! shown follows the wall clock.

use std::path::Path;
use std::sync::Arc;

use base::Timestamp;
use client::{Client, Version::V5};
use serde_json::Value;
use support::http::{log_in, post_with};
use support::mqtt::Connect;
use support::{Hands, TOKEN, TestServer, call, eventually, reply};

use crate::files;

const START_MS: i64 = 1_900_000_000_000;
const DAYS_40_MS: i64 = 40 * 86_400_000;

const VIEWER: &str = "viewer@basicorg.example";

/// Sessions live for ten minutes, idle, and for an hour.
const SETTINGS: &[(&str, &str)] =
    &[("TR50D_SESSIONS__TTL_S", "600"), ("TR50D_SESSIONS__MAX_AGE_S", "3600")];

fn server(dir: &Path, hands: &Arc<Hands>) -> TestServer {
    TestServer::by_clock(dir, SETTINGS, hands.clone())
}

/// What the server takes for the time, in milliseconds.
async fn shown(client: &mut Client) -> i64 {
    call(client, "diag.time", "").await["time"].as_i64().expect("a time")
}

/// The wall clock is set, and the server has noticed.
async fn set_wall(hands: &Hands, client: &mut Client, by_ms: i64) {
    let before = shown(client).await;
    hands.set_wall(by_ms);
    eventually("the clock that is shown follows", async || shown(client).await == before + by_ms)
        .await;
}

fn time(value: &Value) -> i64 {
    Timestamp::parse(value.as_str().expect("a time")).expect("RFC 3339").as_millis()
}

/// `session.info` of a session over HTTP; none if there is no such session any more.
async fn info(server: &TestServer, session: &str) -> Option<Value> {
    let body = r#"{"cmd":{"command":"session.info"}}"#;
    let reply = post_with(server, &format!("sessionId: {session}\r\n"), body).await;
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    (reply["cmd"]["success"] == true).then(|| reply["cmd"]["params"].clone())
}

/// The session of the thing ends. A command in it before the server looks would keep it alive.
async fn expect_end(server: &TestServer, session: &str) {
    let mut client = server.operator("tcp").await;
    eventually("the session ends", async || {
        call(&mut client, "session.list", r#"{"thingKey":"mower-1"}"#).await["count"] == 0
    })
    .await;
    assert_eq!(info(server, session).await, None);
}

async fn log_in_fails(server: &TestServer, password: &str) -> String {
    let params = format!(r#"{{"username":"{VIEWER}","password":"{password}"}}"#);
    let body = format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#);
    post_with(server, "", &body).await
}

async fn mail(client: &mut Client, id: &str) -> String {
    let found = call(client, "mailbox.find", &format!(r#"{{"id":"{id}"}}"#)).await;
    found["status"].as_str().expect("a status").to_owned()
}

/// A thing's MQTT session that is left for a minute, with a message in it that lives for a minute.
fn keeper() -> Connect {
    let connect = Connect::thing(V5, "keeper").properties(b"\x11\0\0\0\x3c");
    Connect { clean: false, ..connect }
}

/// Everything that is due some time, and who looks at it.
struct Due {
    session: String,
    uploads: Vec<String>,
    mail: String,
}

async fn prepare(server: &TestServer, client: &mut Client) -> Due {
    call(client, "thing.create", r#"{"key":"asleep","name":"x"}"#).await;
    let sent = call(
        client,
        "mailbox.send",
        r#"{"thingKey":"asleep","command":"x","ackTimeout":0,"ttl":60}"#,
    );
    let mail = sent.await["id"].as_str().expect("an id").to_owned();
    let mut kept = keeper().open(server).await;
    assert_eq!(kept.subscribe("kept/#", 1).await, 1);
    kept.leave().await;
    let mut writer = Connect::thing(V5, "writer").open(server).await;
    for (flags, topic) in [(2, "kept/1"), (3, "retained/1")] {
        writer.send(&writer.publish_with(flags, 1, topic, b"\x02\0\0\0\x3c", "x")).await;
        writer.expect(&[0x40, 2, 0, 1]).await;
    }
    while !log_in_fails(server, "wrong").await.contains("Too many failed logins") {}
    let mut uploads = Vec::new();
    for number in 0..2 {
        let put = serde_json::json!({"fileName": format!("file-{number}"), "global": true});
        uploads.push(files::put_id(client, put).await);
    }
    let session = log_in(server, "mower-1", TOKEN).await;
    Due { session, uploads, mail }
}

/// Nothing of it is over.
async fn check_all(server: &TestServer, client: &mut Client, due: &mut Due, shown_ms: i64) {
    let info = info(server, &due.session).await.expect("the session lives");
    assert_eq!((time(&info["startTime"]), time(&info["lastAccessed"])), (shown_ms, shown_ms));
    let upload = due.uploads.pop().expect("a ticket");
    assert_eq!(files::post(server, &upload, b"x").await.status, 200);
    let listed = call(client, "file.list", r#"{"global":true}"#).await;
    assert_eq!(time(&listed["result"][0]["uploadDate"]), shown_ms);
    assert_eq!(mail(client, &due.mail).await, "new");
    assert!(log_in_fails(server, "demo-viewer-password").await.contains("Too many failed"));
    let mut reader = Connect::thing(V5, "reader").open(server).await;
    assert_eq!(reader.subscribe("retained/#", 1).await, 1);
    assert_eq!(reader.message().await.texts(), ("retained/1", "x"));
    let mut kept = keeper().open(server).await;
    assert!(kept.present());
    let message = kept.unacknowledged().await;
    assert_eq!((message.texts(), message.property(2)), (("kept/1", "x"), vec![vec![0, 0, 0, 60]]));
    kept.leave().await;
    call(client, "property.publish", r#"{"thingKey":"asleep","key":"p","value":1}"#).await;
    let current = r#"{"thingKey":"asleep","key":"p"}"#;
    let current = call(client, "property.current", current).await;
    assert_eq!(time(&current["ts"]), shown_ms);
}

#[tokio::test]
async fn a_wall_clock_that_is_set_moves_nothing_that_is_due() {
    for by_ms in [DAYS_40_MS, -DAYS_40_MS, 30_000, -30_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let hands = Hands::at(START_MS);
        let server = server(dir.path(), &hands);
        let mut client = server.operator("tcp").await;
        let mut due = prepare(&server, &mut client).await;
        set_wall(&hands, &mut client, by_ms).await;
        check_all(&server, &mut client, &mut due, START_MS + by_ms).await;
        hands.pass(61);
        eventually("the mail expires", async || mail(&mut client, &due.mail).await == "expired")
            .await;
        let mut reader = Connect::thing(V5, "reader").open(&server).await;
        assert_eq!(reader.subscribe("retained/#", 1).await, 1);
        reader.expect_quiet().await;
        assert!(!keeper().open(&server).await.present());
        hands.pass(300 - 61);
        let upload = due.uploads.pop().expect("a ticket");
        assert_eq!(files::post(&server, &upload, b"x").await.status, 404);
        log_in(&server, VIEWER, "demo-viewer-password").await;
        hands.pass(601);
        expect_end(&server, &due.session).await;
        let mut client = server.operator("tcp").await;
        let ended = r#"{"thingKey":"mower-1","status":["EXPIRED"]}"#;
        let ended = call(&mut client, "session.list", ended).await;
        assert_eq!(time(&ended["result"][0]["endTime"]), START_MS + by_ms + 901_000);
    }
}

#[tokio::test]
async fn filters_by_time_mean_what_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let server = server(dir.path(), &hands);
    let mut client = server.operator("tcp").await;
    set_wall(&hands, &mut client, DAYS_40_MS).await;
    hands.pass(10);
    let _late = server.thing("tcp", "late").await;
    let middle = Timestamp::from_millis(START_MS + DAYS_40_MS + 5000);
    for (filter, expected) in [("startedAfter", 1), ("startedBefore", 1)] {
        let params = format!(r#"{{"{filter}":"{middle}"}}"#);
        let listed = call(&mut client, "session.list", &params).await;
        assert_eq!(listed["count"], expected, "{filter}");
    }
}

#[tokio::test]
async fn what_is_asked_of_the_past_goes_by_the_wall_clock_after_a_jump() {
    for by_ms in [DAYS_40_MS, -DAYS_40_MS] {
        let dir = tempfile::tempdir().expect("a directory");
        let hands = Hands::at(START_MS);
        let server = server(dir.path(), &hands);
        let mut client = server.operator("tcp").await;
        set_wall(&hands, &mut client, by_ms).await;
        hands.pass(10);
        let _device = server.thing("tcp", "mower-1").await;
        hands.pass(10);
        let now = START_MS + by_ms + 20_000;
        let as_of = |ms: i64| {
            let at = Timestamp::from_millis(ms);
            format!(r#"{{"asOf":"{at}","thingKey":"mower-1"}}"#)
        };
        for (at, expected) in [(now - 5000, 1), (now - 15_000, 0)] {
            assert_eq!(call(&mut client, "session.list", &as_of(at)).await["count"], expected);
        }
        let to_come = reply(&mut client, "session.list", &as_of(now + 60_000)).await;
        assert_eq!(to_come["success"], false, "{to_come}");
        let hours = call(&mut client, "usage.thing.history", r#"{"last":2}"#).await;
        let ts = hours["ts"].as_array().and_then(|ts| ts.last()).expect("hours");
        assert_eq!(time(ts), now - now.rem_euclid(3_600_000));
        assert_eq!(hours["connected"][1], 1, "{hours}");
    }
}

/// A server that is stopped at one reading of the clocks and started at another.
async fn restart(server: TestServer, dir: &Path, wall_ms: i64) -> (TestServer, Arc<Hands>) {
    server.stop().await;
    let hands = Hands::at(wall_ms);
    let server = self::server(dir, &hands);
    (server, hands)
}

#[tokio::test]
async fn a_restart_with_a_clock_that_is_late_goes_on_from_the_last_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let first = server(dir.path(), &hands);
    let session = log_in(&first, "mower-1", TOKEN).await;
    hands.pass(100);
    let (server, hands) = restart(first, dir.path(), START_MS - DAYS_40_MS).await;
    hands.pass(499);
    let mut client = server.operator("tcp").await;
    assert_eq!(shown(&mut client).await, START_MS + 599_000);
    assert!(info(&server, &session).await.is_some(), "its time is not over");
    hands.pass(601);
    expect_end(&server, &session).await;
}

#[tokio::test]
async fn a_restart_goes_by_the_wall_clock() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let first = server(dir.path(), &hands);
    let session = log_in(&first, "mower-1", TOKEN).await;
    let (second, _) = restart(first, dir.path(), START_MS + 500_000).await;
    assert!(info(&second, &session).await.is_some());
    let (third, _) = restart(second, dir.path(), START_MS + DAYS_40_MS).await;
    expect_end(&third, &session).await;
}

#[tokio::test]
async fn a_jump_is_no_time_between_two_runs() {
    for by_ms in [DAYS_40_MS, -DAYS_40_MS] {
        let dir = tempfile::tempdir().expect("a directory");
        let hands = Hands::at(START_MS);
        let first = server(dir.path(), &hands);
        let session = log_in(&first, "mower-1", TOKEN).await;
        set_wall(&hands, &mut first.operator("tcp").await, by_ms).await;
        let (second, _) = restart(first, dir.path(), START_MS + by_ms + 100_000).await;
        let info = info(&second, &session).await.expect("it lives");
        assert_eq!(time(&info["startTime"]), START_MS + by_ms);
        assert_eq!(time(&info["lastAccessed"]), START_MS + by_ms + 100_000);
        // Somebody sets it right while nothing runs.
        let (third, hands) = restart(second, dir.path(), START_MS + 200_000).await;
        let info = self::info(&third, &session).await.expect("it lives");
        assert_eq!(time(&info["startTime"]), START_MS);
        hands.pass(601);
        expect_end(&third, &session).await;
    }
}
