//! Who was connected at a time, and how many were in each hour and day.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use base::Timestamp;
use client::Client;
use client::Version::V311;
use serde_json::{Value, json};
use support::http::metrics;
use support::mqtt::Connect;
use support::{Hands, Signal, TestServer, call, end_reason, eventually, reply};

use crate::TR50D;

/// Ten minutes after an hour began, which is the eighteenth of its day.
const START_MS: i64 = 1_900_000_000_000 - 1_900_000_000_000 % 3_600_000 + 600_000;
const OPERATOR: &str = "operator@basicorg.example";
const ADMIN: &str = "admin@devicewise.com";

fn server(dir: &Path, hands: &Arc<Hands>) -> TestServer {
    TestServer::by_clock(dir, &[], hands.clone())
}

/// What the server takes for the time.
async fn time(client: &mut Client) -> String {
    let now = call(client, "diag.time", "").await["time"].as_i64().expect("a time");
    Timestamp::from_millis(now).to_string()
}

async fn as_of(client: &mut Client, at: &str, more: &str) -> Value {
    call(client, "session.list", &format!(r#"{{"asOf":"{at}"{more}}}"#)).await
}

/// Checks who was connected at a time; the history is whole then.
async fn check(client: &mut Client, at: &str, more: &str, expected: &[&str]) {
    let listed = as_of(client, at, more).await;
    let rows = listed["result"].as_array().expect("rows").iter();
    let names: BTreeSet<_> = rows.map(|row| row["whoAmI"].as_str().expect("a name")).collect();
    assert_eq!(names, expected.iter().copied().collect(), "{at} {more}: {listed}");
    assert_eq!((&listed["asOf"], &listed["truncated"]), (&json!(at), &json!(false)));
    assert_eq!(listed["count"], expected.len(), "{more}");
}

async fn refuse(client: &mut Client, command: &str, params: &str) {
    let refused = reply(client, command, params).await;
    assert_eq!(refused["errorCodes"], json!([-95005]), "{command} {params}: {refused}");
}

#[tokio::test]
async fn who_was_connected_at_a_time_is_found_by_all_that_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let server = server(dir.path(), &hands);
    let mut operator = server.operator("http").await;
    let started = time(&mut operator).await;
    hands.pass(10);
    let gone = server.thing("mqtt", "mower-1").await;
    let short = server.thing("tcp", "mower-2").await;
    let _stays = Connect::thing(V311, "pump-1").open(&server).await;
    hands.pass(60);
    let then = time(&mut operator).await;
    hands.pass(60);
    short.close().await;
    end_reason(&mut operator, "mower-2").await;
    let _later = server.thing("mqtt", "mower-3").await;
    let later = time(&mut operator).await;
    // Long enough for another class of the rows, and for what is in memory only.
    hands.pass(5 * 3600);
    gone.close().await;
    end_reason(&mut operator, "mower-1").await;
    for seconds in [0, 3600] {
        hands.pass(seconds);
        check(&mut operator, &started, "", &[OPERATOR]).await;
        let all = ["mower-1", "mower-2", "pump-1", OPERATOR];
        check(&mut operator, &then, "", &all).await;
        check(&mut operator, &later, "", &["mower-1", "mower-3", "pump-1", OPERATOR]).await;
        for (more, expected) in [
            (r#","kind":"application""#, &["mower-1", "mower-2", "pump-1"][..]),
            (r#","kind":"user""#, &[OPERATOR]),
            (r#","prefix":"mower-""#, &["mower-1", "mower-2"]),
            (r#","whoAmI":"*-1""#, &["mower-1", "pump-1"]),
            (r#","query":"MOWER demo-app""#, &["mower-1", "mower-2"]),
            (r#","thingKey":"mower-2""#, &["mower-2"]),
            (r#","thingKey":"mower-9""#, &[]),
            (r#","userName":"nobody@basicorg.example""#, &[]),
            (r#","protocol":"tcp""#, &["mower-2"]),
            (r#","protocol":"mqtt","remoteAddr":"127.0.0.""#, &["mower-1", "pump-1"]),
            (r#","remoteAddr":"128.""#, &[]),
            (r#","connected":true"#, &["mower-1", "mower-2", "pump-1"]),
            (r#","connected":false"#, &[OPERATOR]),
            (r#","endReason":"logged_out""#, &["mower-1"]),
            (r#","status":"ACTIVE""#, &all),
            (r#","status":["all"]"#, &all),
            (r#","appName":"DEMO-APP""#, &["mower-1", "mower-2", "pump-1"]),
            (r#","appId":"nothing""#, &[]),
            (r#","sort":"whoAmI""#, &all),
            (r#","sort":"-endTime""#, &all),
        ] {
            check(&mut operator, &then, more, expected).await;
        }
    }
    let one = as_of(&mut operator, &then, r#","limit":1,"offset":1,"sort":"whoAmI""#).await;
    assert_eq!((&one["count"], &one["result"][0]["whoAmI"]), (&json!(4), &json!("mower-2")));
    let newest = as_of(&mut operator, &then, r#","limit":3"#).await;
    assert_eq!((&newest["count"], newest["result"].as_array().map(Vec::len)), (&json!(4), Some(3)));
    let row = &as_of(&mut operator, &then, r#","thingKey":"mower-1""#).await["result"][0];
    assert_eq!(row["connInfo"]["protocol"], "mqtt");
    assert_eq!((&row["endReason"], &row["status"]), (&json!("logged_out"), &json!("LOGGED_OUT")));
    assert!(row["endTime"].as_str() > Some(&later), "{row}");
    assert!(row["bytesIn"].as_u64() > Some(0), "{row}");
    let row = &as_of(&mut operator, &then, r#","thingKey":"pump-1""#).await["result"][0];
    assert_eq!((&row["status"], &row["endTime"]), (&Value::Null, &Value::Null), "{row}");
    let groups = as_of(&mut operator, &then, r#","groupBy":"protocol","connected":true"#).await;
    let expected = json!([{"protocol":"mqtt","count":2},{"protocol":"tcp","count":1}]);
    assert_eq!((&groups["result"], &groups["count"]), (&expected, &json!(3)));
    let groups = as_of(&mut operator, &then, r#","groupBy":"reason","connected":true"#).await;
    assert_eq!(groups["truncated"], false);
    assert_eq!(groups["result"].as_array().map(Vec::len), Some(3), "{groups}");
}

#[tokio::test]
async fn what_can_not_be_said_of_a_time_is_refused_or_truncated() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let server = server(dir.path(), &hands);
    let mut operator = server.operator("tcp").await;
    let now = time(&mut operator).await;
    let to_come = Timestamp::from_millis(START_MS + 86_400_000).to_string();
    for at in [&*to_come, "03:12", "yesterday", "2021-02-30T00:00:00Z", "", "-1"] {
        refuse(&mut operator, "session.list", &json!({ "asOf": at }).to_string()).await;
    }
    for at in ["true", "[]", "{}", "-5.5"] {
        refuse(&mut operator, "session.list", &format!(r#"{{"asOf":{at}}}"#)).await;
    }
    for more in [
        r#""status":"ENDED""#,
        r#""status":["ACTIVE","REVOKED"]"#,
        r#""idleLongerThan":5"#,
        r#""lastSeenAfter":"2001-01-01T00:00:00Z""#,
        r#""lastSeenBefore":"2001-01-01T00:00:00Z""#,
        r#""groupBy":"colour""#,
        r#""sort":"colour""#,
    ] {
        refuse(&mut operator, "session.list", &format!(r#"{{"asOf":"{now}",{more}}}"#)).await;
    }
    for past in ["2001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        let listed = as_of(&mut operator, past, "").await;
        assert_eq!((&listed["count"], &listed["truncated"]), (&json!(0), &json!(true)));
    }
    for params in [
        r#"{"series":"minute"}"#,
        r#"{"last":"24h","start":"2030-01-01T00:00:00Z"}"#,
        r#"{"last":"24h","end":"2030-01-01T00:00:00Z"}"#,
        r#"{"start":"2030-01-02T00:00:00Z","end":"2030-01-01T00:00:00Z"}"#,
        r#"{"last":0}"#,
        r#"{"last":"0h"}"#,
        r#"{"last":"never"}"#,
        r#"{"last":"9999d"}"#,
        r#"{"start":"1990-01-01T00:00:00Z"}"#,
        r#"{"start":"nowhere"}"#,
        r#"{"start":"2999-01-01T00:00:00Z"}"#,
        r#"{"includeSubOrgs":"maybe"}"#,
    ] {
        refuse(&mut operator, "usage.thing.history", params).await;
        refuse(&mut operator, "usage.connection.history", params).await;
    }
}

#[tokio::test]
async fn a_session_was_in_the_organisation_where_it_was_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let server = server(dir.path(), &hands);
    let mut moves = server.admin("tcp").await;
    let mut operator = server.operator("tcp").await;
    hands.pass(10);
    let before = time(&mut moves).await;
    hands.pass(10);
    call(&mut moves, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    hands.pass(10);
    let between = time(&mut moves).await;
    hands.pass(10);
    call(&mut moves, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    hands.pass(10);
    call(&mut moves, "session.org.switch", r#"{"key":"SYSTEM"}"#).await;
    hands.pass(10);
    let after = time(&mut moves).await;
    let mut root = server.admin("tcp").await;
    check(&mut operator, &before, "", &[OPERATOR]).await;
    check(&mut root, &before, r#","startedBefore":"2100-01-01T00:00:00Z""#, &[ADMIN]).await;
    moves.close().await;
    for seconds in [0, 3600] {
        hands.pass(seconds);
        check(&mut operator, &before, "", &[OPERATOR]).await;
        check(&mut operator, &between, "", &[ADMIN, OPERATOR]).await;
        check(&mut operator, &after, "", &[OPERATOR]).await;
        check(&mut root, &before, "", &[ADMIN]).await;
        check(&mut root, &between, "", &[]).await;
        check(&mut root, &after, "", &[ADMIN]).await;
    }
    let row =
        &as_of(&mut operator, &between, r#","userName":"admin@devicewise.com""#).await["result"][0];
    assert_eq!(
        (&row["orgKey"], &row["endReason"]),
        (&json!("BasicOrg"), &json!("connection_lost"))
    );
}

#[tokio::test]
async fn of_those_that_are_gone_the_history_remains() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let running = server(dir.path(), &hands);
    let mut admin = running.admin("http").await;
    call(&mut admin, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let made = call(
        &mut admin,
        "user.create",
        r#"{"emailAddress":"temp@basicorg.example","password":"a-long-password-1"}"#,
    );
    let id = made.await["id"].as_str().expect("an id").to_owned();
    let url = running.url("tcp", "temp@basicorg.example", "a-long-password-1");
    let temp = support::connect(&url).await;
    hands.pass(10);
    let then = time(&mut admin).await;
    hands.pass(10);
    drop(temp);
    call(&mut admin, "user.delete", &json!({ "id": id }).to_string()).await;
    hands.pass(7200);
    let is_there = async |server: &TestServer| {
        let mut operator = server.operator("tcp").await;
        let more = r#","prefix":"temp@""#;
        check(&mut operator, &then, more, &["temp@basicorg.example"]).await;
        let row = &as_of(&mut operator, &then, more).await["result"][0];
        assert_eq!((&row["userId"], &row["hasOrgAdmin"]), (&json!(id), &json!(false)), "{row}");
        assert!(row["endTime"].is_string(), "{row}");
    };
    is_there(&running).await;
    running.stop().await;
    is_there(&server(dir.path(), &hands)).await;
}

#[tokio::test]
async fn the_history_survives_restarts_and_who_lived_then_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let running = server(dir.path(), &hands);
    let mut operator = running.operator("http").await;
    server_thing_leaves(&running, &mut operator, "mower-1").await;
    let _stays = running.thing("mqtt", "mower-2").await;
    hands.pass(10);
    let then = time(&mut operator).await;
    hands.pass(10);
    running.stop().await;
    hands.pass(1000);
    let running = server(dir.path(), &hands);
    let mut operator = running.operator("http").await;
    check(&mut operator, &then, r#","kind":"application""#, &["mower-2"]).await;
    let row = &as_of(&mut operator, &then, r#","thingKey":"mower-2""#).await["result"][0];
    assert_eq!(row["endReason"], "server_stopped");
    let between = Timestamp::from_millis(START_MS + 500_000).to_string();
    check(&mut operator, &between, r#","kind":"application""#, &[]).await;
    let ended = call(&mut operator, "session.list", r#"{"status":"ENDED","sort":"endTime"}"#).await;
    let names: Vec<_> =
        ended["result"].as_array().expect("rows").iter().map(|r| &r["whoAmI"]).collect();
    assert_eq!(names, ["mower-1", "mower-2"], "what is in memory comes back, too");
}

async fn server_thing_leaves(server: &TestServer, operator: &mut Client, key: &str) {
    server.thing("mqtt", key).await.close().await;
    end_reason(operator, key).await;
}

#[tokio::test]
async fn who_was_connected_when_the_server_was_killed_was_connected_until_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut process = TR50D.serve(&data, &[]);
    let mut operator = process.operator("tcp").await;
    let _mqtt = Connect::thing(V311, "mower-1").open(&process).await;
    let _tcp = process.thing("tcp", "mower-2").await;
    let then = time(&mut operator).await;
    // What is acknowledged is durable, and what came before it, too: a later sign of life.
    call(&mut operator, "thing.create", r#"{"key":"other"}"#).await;
    let _later = process.thing("tcp", "later").await;
    call(&mut operator, "thing.create", r#"{"key":"another"}"#).await;
    process.end(Signal::KILL).await;
    let process = TR50D.serve(&data, &[]);
    let mut operator = process.operator("tcp").await;
    check(&mut operator, &then, r#","kind":"application""#, &["mower-1", "mower-2"]).await;
    let rows = as_of(&mut operator, &then, r#","kind":"application""#).await;
    for row in rows["result"].as_array().expect("rows") {
        assert_eq!(row["endReason"], "server_stopped");
        assert!(row["endTime"].as_str() >= Some(&then), "{row}");
    }
    let usage = call(&mut operator, "usage.thing.history", r#"{"series":"day","last":2}"#).await;
    let connected: u64 =
        usage["connected"].as_array().expect("days").iter().filter_map(Value::as_u64).sum();
    assert_eq!(connected, 3, "those that were killed count: {usage}");
}

#[tokio::test]
async fn who_fills_the_history_loses_the_own_oldest() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let settings = [("TR50D_SESSIONS__CONNECTION_HISTORY_MAX", "16")];
    let server = TestServer::by_clock(dir.path(), &settings, hands.clone());
    let mut root = server.admin("http").await;
    drop(server.admin("tcp").await);
    let mut operator = server.operator("http").await;
    server_thing_leaves(&server, &mut operator, "first").await;
    let early = time(&mut operator).await;
    hands.pass(10);
    for _ in 0..60 {
        server.thing("tcp", "flapper").await.close().await;
        hands.pass(1);
    }
    let late = time(&mut operator).await;
    hands.pass(3600);
    eventually("those that are too many go", async || {
        let text = metrics(&server).await;
        let used = text
            .lines()
            .find(|line| line.starts_with(r#"tr50d_pool_used{pool="connection_history"}"#));
        used.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .is_some_and(|used: u64| used <= 16)
    })
    .await;
    assert_eq!(as_of(&mut operator, &early, "").await["truncated"], true);
    assert_eq!(as_of(&mut operator, &late, "").await["truncated"], false);
    assert_eq!(as_of(&mut root, &early, "").await["truncated"], false);
}

#[tokio::test]
async fn a_history_of_no_days_says_that_it_has_nothing() {
    let settings = [("TR50D_SESSIONS__CONNECTION_HISTORY_DAYS", "0")];
    let server = TestServer::with(&settings);
    let mut operator = server.operator("tcp").await;
    server_thing_leaves(&server, &mut operator, "mower-1").await;
    let now = time(&mut operator).await;
    let listed = as_of(&mut operator, &now, "").await;
    assert_eq!((&listed["count"], &listed["truncated"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn hours_and_days_have_the_sums_of_those_that_were_connected() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(START_MS);
    let running = server(dir.path(), &hands);
    let mut operator = running.operator("http").await;
    for key in ["mower-1", "mower-1", "mower-2"] {
        server_thing_leaves(&running, &mut operator, key).await;
    }
    let stays = running.thing("mqtt", "mower-3").await;
    let things =
        async |client: &mut Client, params: &str| call(client, "usage.thing.history", params).await;
    let usage = things(&mut operator, r#"{"last":"2h"}"#).await;
    let hour =
        |index: i64| Timestamp::from_millis(START_MS - 600_000 + index * 3_600_000).to_string();
    let expected = json!({"connected":[0, 3], "total":[0, 3], "ts":[hour(-1), hour(0)]});
    assert_eq!(usage, expected);
    let sessions = call(&mut operator, "usage.connection.history", r#"{"last":1}"#).await;
    assert_eq!((&sessions["connected"], &sessions["total"]), (&json!([4]), &json!([5])));
    // A restart in the same hour: who comes again is counted once, but the session anew.
    running.stop().await;
    drop(stays);
    let running = server(dir.path(), &hands);
    let mut operator = running.operator("http").await;
    server_thing_leaves(&running, &mut operator, "mower-3").await;
    let usage = things(&mut operator, r#"{"last":1,"series":"HOUR","showAll":true}"#).await;
    assert_eq!((&usage["connected"], &usage["total"]), (&json!([3]), &json!([3])));
    let _stays = running.thing("tcp", "mower-1").await;
    hands.pass(2 * 3600);
    let usage = things(&mut operator, &format!(r#"{{"start":"{}"}}"#, hour(0))).await;
    assert_eq!((&usage["connected"], &usage["total"]), (&json!([3, 1, 1]), &json!([3, 3, 3])));
    let days = things(&mut operator, r#"{"series":"day","last":"2d"}"#).await;
    assert_eq!((&days["connected"], &days["total"]), (&json!([0, 3]), &json!([0, 3])));
    assert!(days["ts"][1].as_str().is_some_and(|ts| ts.ends_with("T00:00:00.000Z")), "{days}");
    let default = things(&mut operator, "{}").await;
    assert_eq!(default["ts"].as_array().map(Vec::len), Some(24));
    let default = things(&mut operator, r#"{"series":"day"}"#).await;
    assert_eq!(default["ts"].as_array().map(Vec::len), Some(30));
    // The organisation above has none of its own.
    let mut admin = running.admin("http").await;
    assert_eq!(things(&mut admin, r#"{"last":1}"#).await["connected"], json!([0]));
    let all = things(&mut admin, r#"{"last":1,"includeSubOrgs":true}"#).await;
    assert_eq!((&all["connected"], &all["total"]), (&json!([1]), &json!([3])));
}
