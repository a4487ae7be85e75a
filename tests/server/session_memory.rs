//! What a session takes of the memory, whatever its login and the records say: sessions are counted,
//! and a million of them may be there.

use serde_json::json;
use support::http::{log_in, metrics, post};
use support::process::resident_of;
use support::{ServerProcess, call, connect, eventually};

use crate::TR50D;

const MEBIBYTE: usize = 1024 * 1024;

/// What so many sessions, and what was needed for a moment, may add to the memory.
const SLACK: usize = 32 * MEBIBYTE;

fn start() -> (ServerProcess, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = [
        ("TR50D_LIMITS__LOGINS_PER_S", "0"),
        ("TR50D_LIMITS__COMMANDS_PER_S", "0"),
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "0"),
    ];
    (TR50D.serve_logging(&dir.path().join("log"), &limits), dir)
}

fn resident(server: &ServerProcess) -> usize {
    resident_of(&server.pid().to_string()).expect("a process")
}

async fn records(server: &ServerProcess) -> u64 {
    let page = metrics(server).await;
    let of = "tr50d_pool_used{pool=\"records\"} ";
    let line = page.lines().find_map(|line| line.strip_prefix(of));
    line.expect("a figure").parse().expect("a number")
}

#[tokio::test]
async fn names_of_applications_are_cut() {
    let (server, _dir) = start();
    let before = resident(&server);
    let params = |bytes| json!({ "thingKey": "long", "appToken": "demo-token-basicorg", "appId": "a".repeat(bytes) });
    let login = json!({ "auth": { "command": "api.authenticate", "params": params(500_000) } });
    for _ in 0..150 {
        assert!(post(&server, &login.to_string()).await.contains("sessionId"));
    }
    // Over a connection that is logged in.
    let mut operator = server.operator("tcp").await;
    for _ in 0..150 {
        call(&mut operator, "api.authenticate", &params(500_000).to_string()).await;
    }
    eventually("they take little", async || resident(&server) < before + SLACK).await;
}

#[tokio::test]
async fn filters_of_roles_are_there_once() {
    let (server, _dir) = start();
    let mut operator = server.operator("http").await;
    let levels = vec!["a"; 60].join("/");
    let deep: Vec<_> = (0..400).map(|number| format!("{number}/{levels}")).collect();
    let long: Vec<_> = (0..400).map(|number| format!("{number}{}", "a".repeat(1000))).collect();
    let (at_first, mut size) = (records(&server).await, 0);
    for (key, filters) in [("deep", &deep), ("long", &long)] {
        let role = json!({ "key": key, "name": key, "perms": ["topic.publish", "topic.subscribe"],
            "topicPublish": filters, "topicSubscribe": filters });
        size += filters.iter().map(|filter| filter.len() as u64).sum::<u64>();
        call(&mut operator, "role.create", &role.to_string()).await;
    }
    // A level that is one letter takes more than that.
    assert!(records(&server).await > at_first + 2 * size + 2 * 400 * 60 * 100);
    let email = "many@basicorg.example";
    let user = json!({ "emailAddress": email, "password": "their-password" });
    call(&mut operator, "user.create", &user.to_string()).await;
    let member = json!({ "emailAddress": email, "roles": ["deep", "long"] });
    call(&mut operator, "user.org.add", &member.to_string()).await;
    let mut own = connect(&server.url("http", email, "their-password")).await;
    let token = call(&mut own, "user.token.create", r#"{"name":"t"}"#).await;
    let token = token["token"].as_str().expect("a token");
    let before = resident(&server);
    for _ in 0..50 {
        log_in(&server, email, token).await;
    }
    eventually("they take little", async || resident(&server) < before + SLACK).await;
    // Those that have ended keep nothing of what roles were then.
    for number in 0..10 {
        let session = log_in(&server, email, token).await;
        let changed = json!({ "key": "deep", "topicPublish": [format!("{number}/{}", deep[0])] });
        call(&mut operator, "role.update", &changed.to_string()).await;
        let changed = json!({ "key": "deep", "topicPublish": deep });
        call(&mut operator, "role.update", &changed.to_string()).await;
        let end =
            format!(r#"{{"auth":{{"sessionId":"{session}"}},"1":{{"command":"session.end"}}}}"#);
        assert!(post(&server, &end).await.contains(r#""1":{"success":true}"#));
    }
    eventually("they take little", async || resident(&server) < before + SLACK).await;
}

#[tokio::test]
async fn records_that_change_are_not_kept_by_sessions() {
    let (server, _dir) = start();
    let mut operator = server.operator("http").await;
    let token = "token-of-changing-app";
    let app =
        json!({ "name": "changing", "token": token, "autoRegister": true, "roles": ["device"] });
    let id = call(&mut operator, "app.create", &app.to_string()).await["id"].clone();
    let mut numbers = 0..;
    let mut change = async || {
        let number = numbers.next().expect("a number");
        let tag = |tag| format!("{number}-{tag}{}", "t".repeat(1000));
        let changed = json!({ "id": id, "autoRegTags": (0..400).map(tag).collect::<Vec<_>>() });
        call(&mut operator, "app.update", &changed.to_string()).await;
    };
    // The store's part of the memory.
    for _ in 0..60 {
        change().await;
    }
    let before = resident(&server);
    for _ in 0..150 {
        change().await;
        log_in(&server, "thing", token).await;
    }
    eventually("they take little", async || resident(&server) < before + SLACK).await;
}
