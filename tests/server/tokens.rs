//! Tokens of applications beside the first, and API tokens of users, over every door.

use base::TimeSource;
use client::{Client, Version};
use data_encoding::BASE64;
use serde_json::{Value, json};
use support::http::send;
use support::mqtt::{Connect, Wire};
use support::{Endpoints, Hands, TestServer, call, connect, eventually, reply, totp};

const VIEWER: &str = "viewer@basicorg.example";
const PASSWORD: &str = "demo-viewer-password";
const OPERATOR: &str = "operator@basicorg.example";
const DENIED: i64 = -95006;

fn failure(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A further token of the demo's application: its id, and itself.
async fn further(operator: &mut Client, more: Value) -> (String, String) {
    let mut params = json!({ "appName": "demo-app" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = call(operator, "app.token.create", &params.to_string()).await;
    (text(&made["tokenId"]), text(&made["token"]))
}

async fn rows(client: &mut Client, command: &str, params: Value) -> Vec<Value> {
    let listed = call(client, command, &params.to_string()).await;
    listed["result"].as_array().expect("a list").clone()
}

/// Whether a thing of the demo's application may log in so.
async fn logs_in(server: &Endpoints, door: &str, token: &str) -> bool {
    Client::connect(&server.url(door, "mower-1", token)).await.is_ok()
}

#[tokio::test]
async fn a_token_is_rotated_without_an_outage() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut old = Vec::new();
    for door in ["mqtt", "tcp", "http"] {
        old.push(connect(&server.thing_url(door, &format!("old-{door}"))).await);
    }
    let (new_id, new) = further(&mut operator, json!({ "name": "2027" })).await;
    let tokens = rows(&mut operator, "app.token.list", json!({ "appName": "demo-app" })).await;
    assert_eq!(tokens.len(), 2);
    assert_eq!((&tokens[0]["useCount"], &tokens[1]["useCount"]), (&json!(3), &json!(0)));
    assert!(!json!(tokens).to_string().contains(&new));
    let mut moved = Vec::new();
    for door in ["mqtt", "tcp", "http"] {
        let mut thing = connect(&server.url(door, "mower-1", &new)).await;
        let info = call(&mut thing, "session.info", "").await;
        assert_eq!((&info["tokenName"], &info["appName"]), (&json!("2027"), &json!("demo-app")));
        moved.push(thing);
    }
    let tokens = rows(&mut operator, "app.token.list", json!({ "appName": "demo-app" })).await;
    assert_eq!(tokens[1]["useCount"], 3);
    assert_eq!(tokens[1]["lastUsedFrom"], "127.0.0.1");
    // Who shows the old one is listed, then it goes, and with it who still has it.
    let sessions = rows(&mut operator, "session.list", json!({ "appName": "demo-app" })).await;
    let by_old = |row: &&Value| row["tokenId"] == tokens[0]["tokenId"];
    assert_eq!(sessions.iter().filter(by_old).count(), 3, "{sessions:?}");
    let gone = json!({ "tokenId": tokens[0]["tokenId"] }).to_string();
    call(&mut operator, "app.token.delete", &gone).await;
    for thing in &mut moved {
        call(thing, "diag.ping", "").await;
    }
    for thing in &mut old {
        assert!(thing.call("diag.ping", None).await.map_or(true, |reply| !reply.success()));
    }
    assert!(!logs_in(&server, "mqtt", "demo-token-basicorg").await);
    assert!(logs_in(&server, "mqtt", &new).await);
    // The new one is the first now, and the last one stays.
    let found = call(&mut operator, "app.find", r#"{"name":"demo-app"}"#).await;
    assert_eq!(found["tokenId"], json!(new_id));
    let last = json!({ "tokenId": new_id }).to_string();
    assert_eq!(failure(&reply(&mut operator, "app.token.delete", &last).await), -95030);
    let trail = call(&mut operator, "audit.list", "").await.to_string();
    assert!(trail.contains("app.token.create") && !trail.contains("hash"), "{trail}");
}

#[tokio::test]
async fn a_token_ends_at_its_time_or_when_it_is_disabled() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    let expires = "2023-11-14T22:14:20.000Z";
    let (id, ending) = further(&mut operator, json!({ "name": "t", "expires": expires })).await;
    let past = json!({"appName": "demo-app", "name": "u", "expires": "2020-01-01T00:00:00Z"});
    let past = reply(&mut operator, "app.token.create", &past.to_string()).await;
    assert_eq!(failure(&past), -95005);
    let twice = json!({ "appName": "demo-app", "name": "T" }).to_string();
    let twice = reply(&mut operator, "app.token.create", &twice).await;
    assert_eq!(failure(&twice), -95015);
    let mut wire = Connect::login(Version::V311, "c", "mower-9", &ending).open(&server).await;
    let mut over_http = connect(&server.url("http", "mower-8", &ending)).await;
    hands.pass(60);
    wire.expect_end().await;
    let ended = async || failure(&reply(&mut over_http, "diag.ping", "").await) == -90000;
    eventually("the session has ended", ended).await;
    assert!(!logs_in(&server, "tcp", &ending).await);
    let list = json!({ "appName": "demo-app" });
    let tokens = rows(&mut operator, "app.token.list", list.clone()).await;
    assert_eq!((&tokens[1]["expired"], &tokens[1]["expires"]), (&json!(true), &json!(expires)));
    let again = json!({ "tokenId": id, "expires": "" }).to_string();
    call(&mut operator, "app.token.update", &again).await;
    let mut thing = connect(&server.url("http", "mower-1", &ending)).await;
    let off = json!({ "tokenId": id, "disabled": true }).to_string();
    call(&mut operator, "app.token.update", &off).await;
    assert_eq!(failure(&reply(&mut thing, "diag.ping", "").await), -90000);
    assert!(!logs_in(&server, "http", &ending).await);
    let failures = call(&mut operator, "login.failures", "").await.to_string();
    for cause in ["token_expired", "token_disabled"] {
        assert!(failures.contains(cause), "{cause}: {failures}");
    }
    let diagnosed = call(&mut operator, "thing.diagnose", r#"{"key":"mower-1"}"#).await;
    assert!(diagnosed.to_string().contains("token_disabled"), "{diagnosed}");
    // The first token, too; and all of it outlives a restart, with the uses.
    let first = json!({ "tokenId": tokens[0]["tokenId"], "disabled": true }).to_string();
    call(&mut operator, "app.token.update", &first).await;
    assert!(!logs_in(&server, "mqtt", "demo-token-basicorg").await);
    let before = rows(&mut operator, "app.token.list", list.clone()).await;
    server.stop().await;
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    assert_eq!(rows(&mut operator, "app.token.list", list).await, before);
    assert!(!logs_in(&server, "mqtt", "demo-token-basicorg").await);
}

/// An API token of the session's user.
async fn api_token(user: &mut Client, params: Value) -> (String, String) {
    let made = call(user, "user.token.create", &params.to_string()).await;
    (text(&made["tokenId"]), text(&made["token"]))
}

async fn basic(server: &Endpoints, name: &str, token: &str) -> u16 {
    let header = BASE64.encode(format!("{name}:{token}").as_bytes());
    let head = format!("POST /json-rpc/12.5 HTTP/1.1\r\nAuthorization: Basic {header}");
    let body = br#"{"method":"ListActiveAuthSessions","params":{},"id":1}"#;
    send(server, &head, body).await.status
}

#[tokio::test]
async fn a_user_with_a_second_factor_logs_in_by_a_token_where_nobody_types_a_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    let proof = json!({ "password": "demo-operator-password" }).to_string();
    let secret = text(&call(&mut operator, "user.mfa.enrol", &proof).await["secret"]);
    let code = json!({ "code": totp::code(&secret, hands.wall_ms()) }).to_string();
    call(&mut operator, "user.mfa.confirm", &code).await;
    let (id, token) = api_token(&mut operator, json!({ "name": "backup script" })).await;
    for door in ["mqtt", "tcp", "http"] {
        let mut script = connect(&server.url(door, OPERATOR, &token)).await;
        let info = call(&mut script, "session.info", "").await;
        assert_eq!(
            (&info["tokenName"], &info["userName"]),
            (&json!("backup script"), &json!(OPERATOR))
        );
        call(&mut script, "user.list", "").await;
        // A token makes no token, and sets up no second factor.
        for command in ["user.token.list", "user.mfa.remove"] {
            let denied = reply(&mut script, command, "{}").await;
            assert_eq!(failure(&denied), DENIED, "{denied}");
        }
    }
    assert_eq!(basic(&server, OPERATOR, &token).await, 200);
    assert_eq!(basic(&server, OPERATOR, "demo-operator-password").await, 401);
    // A token is its user's alone.
    assert_eq!(basic(&server, VIEWER, &token).await, 401);
    let orgs = "GET /api/v1/orgs/basic-org/principals HTTP/1.1\r\nAuthorization: Bearer ";
    assert_eq!(send(&server, &format!("{orgs}{token}"), b"").await.status, 200);
    assert_eq!(send(&server, &format!("{orgs}{token}x"), b"").await.status, 401);
    let used = rows(&mut operator, "user.token.list", json!({})).await;
    assert_eq!((&used[0]["useCount"], &used[0]["tokenId"]), (&json!(5), &json!(id)));
    let mut wire = Connect::login(Version::V5, "c", OPERATOR, &token).open(&server).await;
    let disable = json!({ "tokenId": id, "disabled": true }).to_string();
    call(&mut operator, "user.token.update", &disable).await;
    assert!(wire.frame().await.is_none_or(|frame| frame[0] == 0xe0));
    let mut refused = Wire::open(&server, Version::V311).await;
    refused.send(&Connect::login(Version::V311, "c", OPERATOR, &token).frame()).await;
    assert_eq!(refused.frame().await.expect("a CONNACK")[3], 4);
    assert_eq!(basic(&server, OPERATOR, &token).await, 401);
    call(&mut operator, "user.token.delete", &json!({ "tokenId": id }).to_string()).await;
    assert!(rows(&mut operator, "user.token.list", json!({})).await.is_empty());
}

#[tokio::test]
async fn a_token_gives_no_more_than_its_user_has() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let unknown = json!({ "name": "x", "perms": ["thing.lst"] }).to_string();
    assert_eq!(failure(&reply(&mut operator, "user.token.create", &unknown).await), -95005);
    let perms = json!({ "name": "narrow", "perms": ["thing.list", "user.create"] });
    let (_, narrow) = api_token(&mut operator, perms).await;
    let mut script = connect(&server.url("mqtt", OPERATOR, &narrow)).await;
    call(&mut script, "thing.list", "").await;
    assert_eq!(failure(&reply(&mut script, "user.list", "").await), DENIED);
    assert_eq!(call(&mut script, "session.info", "").await["hasOrgAdmin"], false);
    // What an administrator could grant, the token can't.
    let granted = json!({ "emailAddress": "x@basicorg.example", "password": "a-good-password",
                          "isSuperAdmin": true });
    assert_eq!(failure(&reply(&mut script, "user.create", &granted.to_string()).await), DENIED);
    // In Element's words it sees nobody else; nor in Cognite's.
    let orgs = "GET /api/v1/orgs/basic-org/principals HTTP/1.1\r\nAuthorization: Bearer ";
    assert_ne!(send(&server, &format!("{orgs}{narrow}"), b"").await.status, 200);
    // What the user loses, the token loses at once; who is deleted has none.
    let mut viewer = connect(&server.url("http", VIEWER, PASSWORD)).await;
    let (id, wide) = api_token(&mut viewer, json!({ "name": "w", "perms": ["thing"] })).await;
    let mut by_token = connect(&server.url("mqtt", VIEWER, &wide)).await;
    assert_eq!(failure(&reply(&mut by_token, "thing.list", "").await), DENIED);
    let grant = json!({ "emailAddress": VIEWER, "roles": ["developer"] }).to_string();
    call(&mut operator, "user.org.update", &grant).await;
    call(&mut by_token, "thing.list", "").await;
    assert_eq!(failure(&reply(&mut by_token, "session.list", "").await), DENIED);
    let revoke = json!({ "emailAddress": VIEWER, "roles": [] }).to_string();
    call(&mut operator, "user.org.update", &revoke).await;
    assert_eq!(failure(&reply(&mut by_token, "thing.list", "").await), DENIED);
    // Administrators see and end tokens of their users.
    let which = json!({ "emailAddress": VIEWER });
    assert_eq!(rows(&mut operator, "user.token.list", which).await[0]["tokenId"], json!(id));
    let delete = json!({ "emailAddress": VIEWER, "tokenId": id }).to_string();
    call(&mut operator, "user.token.delete", &delete).await;
    assert!(by_token.call("diag.ping", None).await.map_or(true, |reply| !reply.success()));
    assert!(Client::connect(&server.url("mqtt", VIEWER, &wide)).await.is_err());
}

#[tokio::test]
async fn sessions_by_tokens_outlive_a_restart_with_the_rights_of_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    let perms = json!({ "name": "narrow", "perms": ["thing.list"] });
    let (_, narrow) = api_token(&mut operator, perms).await;
    let mut script = connect(&server.url("http", OPERATOR, &narrow)).await;
    let session = text(&call(&mut script, "session.info", "").await["id"]);
    server.stop().await;
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let ask = async |command: &str| {
        let asked = json!({ "auth": { "sessionId": session }, "1": { "command": command } });
        let answer = support::http::post(&server, &asked.to_string()).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["1"].clone()
    };
    assert_eq!(failure(&ask("user.list").await), DENIED);
    assert_eq!(ask("thing.list").await["success"], true);
    assert_eq!(ask("session.info").await["params"]["tokenName"], "narrow");
}
