//! What a session's row says beside who and where: what its client over HTTP calls itself.

use base::{SessionId, SessionRef};
use serde_json::{Value, json};
use support::http::{Answer, log_in, send};
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
