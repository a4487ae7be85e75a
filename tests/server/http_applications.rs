//! HTTP as applications use it: bearer tokens, JSON parameters, statuses and rates.

use serde_json::{Value, json};
use support::TestServer;
use support::http::{Answer, log_in, send};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const JSON: &str = "Content-Type: application/json";

/// A command at `/rest/_/`, with JSON as its parameters and these header lines.
async fn rest(server: &TestServer, target: &str, headers: &[&str], params: &Value) -> Answer {
    let lines: String = headers.iter().map(|line| format!("\r\n{line}")).collect();
    let head = format!("POST /rest/_/{target} HTTP/1.1\r\n{JSON}{lines}");
    send(server, &head, params.to_string().as_bytes()).await
}

async fn api(server: &TestServer, target: &str, headers: &[&str], body: &Value) -> Answer {
    let lines: String = headers.iter().map(|line| format!("\r\n{line}")).collect();
    let head = format!("POST /api{target} HTTP/1.1{lines}");
    send(server, &head, body.to_string().as_bytes()).await
}

async fn operator(server: &TestServer) -> String {
    log_in(server, OPERATOR.0, OPERATOR.1).await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn code(answer: &Answer) -> i64 {
    answer.json()["errorCodes"][0].as_i64().unwrap_or(0)
}

#[tokio::test]
async fn a_session_is_shown_as_a_bearer_token() {
    let server = TestServer::start();
    let id = operator(&server).await;
    let ping = json!({"1": {"command": "diag.ping"}});
    for line in [bearer(&id), format!("authorization: bearer  {id}"), format!("sessionId: {id}")] {
        let answer = api(&server, "", &[&line], &ping).await;
        assert_eq!((answer.status, answer.text()), (200, r#"{"1":{"success":true}}"#), "{line}");
        let answer = rest(&server, "diag.ping", &[&line], &json!({})).await;
        assert_eq!((answer.status, answer.text()), (200, r#"{"success":true}"#), "{line}");
        let head = format!("POST /rest/_/diag.echo HTTP/1.1\r\n{line}");
        let answer = send(&server, &head, b"a=1").await;
        assert_eq!(answer.json()["params"], json!({"a": "1"}), "{line}");
    }
    // The same twice is one.
    let (one, auth) =
        (bearer(&id), json!({"auth": {"sessionId": id}, "1": {"command": "diag.ping"}}));
    let answer = api(&server, "", &[&one, &one, &format!("sessionId: {id}")], &auth).await;
    assert_eq!(answer.json()["1"]["success"], true, "{answer:?}");
    // Basic is not looked at here.
    let basic = "Authorization: Basic eDp5";
    assert_eq!(code(&api(&server, "", &[basic], &ping).await), -99999);
    let with_basic = [basic, &format!("sessionId: {id}")];
    assert_eq!(api(&server, "", &with_basic, &ping).await.json()["1"]["success"], true);
}

#[tokio::test]
async fn nobody_is_two_at_once() {
    let server = TestServer::start();
    let (id, other) = (operator(&server).await, operator(&server).await);
    let ping = json!({"1": {"command": "diag.ping"}});
    let login = json!({"auth": {"command": "api.authenticate", "params":
        {"username": OPERATOR.0, "password": OPERATOR.1}}});
    let named = json!({"auth": {"sessionId": other}, "1": {"command": "diag.ping"}});
    let (bearer, header) = (bearer(&id), format!("sessionId: {other}"));
    let second = format!("Authorization: Bearer {other}");
    for answer in [
        api(&server, "", &[&bearer, &header], &ping).await,
        api(&server, "", &[&bearer, &second], &ping).await,
        api(&server, "", &[&bearer], &named).await,
        api(&server, "", &[&bearer], &login).await,
        rest(&server, "diag.ping", &[&bearer, &header], &json!({})).await,
        send(
            &server,
            &format!("POST /rest/_/diag.ping HTTP/1.1\r\n{bearer}"),
            format!("sessionId={other}").as_bytes(),
        )
        .await,
    ] {
        assert_eq!((answer.status, code(&answer)), (200, -95001), "{answer:?}");
        assert!(answer.text().contains("says in two ways who asks"), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_session_is_refused_as_a_bearer_token() {
    let server = TestServer::start();
    let ping = json!({"1": {"command": "diag.ping"}});
    let check = async |token: &str, expected: i64| {
        let answer = api(&server, "?status=http", &[&bearer(token)], &ping).await;
        assert_eq!((answer.status, code(&answer)), (401, expected), "{token}: {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
    };
    check("000000000000000000000000", -90000).await;
    check("nonsense", -90000).await;
    // Of a thing nobody can tell the key.
    check("demo-token-basicorg", -99999).await;
    // Going on with an old session for long guesses no token of the same network.
    for _ in 0..300 {
        check("000000000000000000000001", -90000).await;
    }
    check("nonsense", -90000).await;
    let id = operator(&server).await;
    let end = rest(&server, "session.end", &[&bearer(&id)], &json!({"sessionId": id})).await;
    assert_eq!(end.json()["success"], true, "{end:?}");
    check(&id, -90000).await;
}

#[tokio::test]
async fn parameters_are_json_where_the_type_says_so() {
    let server = TestServer::start();
    let id = operator(&server).await;
    let line = bearer(&id);
    let echo = async |kind: &str, body: &[u8]| {
        let head = format!("POST /rest/_/diag.echo HTTP/1.1\r\n{line}\r\nContent-Type: {kind}");
        send(&server, &head, body).await
    };
    let params = json!({"a": [1, {"b": null}], "c": "ö", "d": 1.5, "sessionId": "x"});
    for kind in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/problem+json",
        "text/json",
    ] {
        let answer = echo(kind, params.to_string().as_bytes()).await;
        assert_eq!(answer.json()["params"], params, "{kind}");
        for nothing in ["", " ", "null", "{}", "[]"] {
            assert_eq!(echo(kind, nothing.as_bytes()).await.json()["success"], true, "{nothing:?}");
        }
        for bad in ["{", "a=1", "{} x"] {
            assert_eq!(code(&echo(kind, bad.as_bytes()).await), -95001, "{bad}");
        }
    }
    let mended = echo("application/json", b"{\"a\":\"23\xb0C\"}").await;
    assert_eq!(mended.json()["params"]["a"], "23\u{fffd}C");
    for kind in [
        "multipart/form-data; boundary=x",
        "application/xml",
        "text/xml",
        "application/json; charset=utf-16",
    ] {
        let answer = echo(kind, b"{}").await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_u64()), (415, Some(415)));
    }
    for kind in ["application/x-www-form-urlencoded; charset=UTF-8", "text/plain", "*/*", ""] {
        assert_eq!(echo(kind, b"a=1").await.json()["params"], json!({"a": "1"}), "{kind}");
    }
    let head = format!("POST /rest/_/thing.find HTTP/1.1\r\n{line}\r\n{JSON}");
    assert_eq!(code(&send(&server, &head, b"7").await), -95005);
    // Who shows nobody otherwise may be named among the parameters.
    let named = rest(&server, "diag.ping", &[], &json!({"sessionId": id})).await;
    assert_eq!(named.json()["success"], true);
    let login = json!({"username": OPERATOR.0, "password": OPERATOR.1});
    let head = format!("POST /rest/auth HTTP/1.1\r\n{JSON}");
    let answer = send(&server, &head, login.to_string().as_bytes()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 24), "{answer:?}");
    let answer = rest(&server, "api.authenticate", &[], &login).await;
    assert_eq!(answer.json()["params"]["orgKey"], "BasicOrg");
}

#[tokio::test]
async fn failures_have_a_status_for_those_who_ask() {
    let server = TestServer::with(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "3000")]);
    let line = bearer(&operator(&server).await);
    let thing = bearer(&log_in(&server, "mower-1", "demo-token-basicorg").await);
    let check = async |command: &str, line: &str, params: Value, status: u16, code_: i64| {
        for (query, header) in
            [("?status=http", "X: y"), ("", "Prefer: respond-async, status=http")]
        {
            let answer =
                rest(&server, &format!("{command}{query}"), &[line, header], &params).await;
            assert_eq!((answer.status, code(&answer)), (status, code_), "{command}: {answer:?}");
            let applied = answer.header("preference-applied");
            assert_eq!(applied, query.is_empty().then_some("status=http"));
            let envelope = json!({"1": {"command": command, "params": params}});
            let answer = api(&server, query, &[line, header], &envelope).await;
            assert_eq!(answer.status, status, "{command}: {answer:?}");
        }
        // Who does not ask is answered as devices are.
        for query in ["", "?status=https", "?Status=http", "?x=status=http"] {
            let answer = rest(&server, &format!("{command}{query}"), &[line], &params).await;
            assert_eq!((answer.status, code(&answer)), (200, code_), "{command}: {answer:?}");
        }
    };
    check("diag.ping", &line, json!({}), 200, 0).await;
    check("thing.find", &line, json!({"key": "no-such"}), 404, -90008).await;
    check("no.such", &line, json!({}), 404, -95003).await;
    check("twilio.sms.send", &line, json!({}), 404, -95014).await;
    check("property.publish", &line, json!({"value": 1}), 400, -95004).await;
    check("diag.ping", "sessionId: x", json!({}), 401, -90000).await;
    check("diag.ping", "X: y", json!({}), 401, -99999).await;
    check("session.org.switch", &thing, json!({}), 403, -95009).await;
    let viewer = log_in(&server, "viewer@basicorg.example", "demo-viewer-password").await;
    check("session.list", &bearer(&viewer), json!({}), 403, -95006).await;
    check("diag.echo", &line, json!({"a": "x".repeat(4000)}), 413, -95002).await;
    let refused = json!({"username": OPERATOR.0, "password": "wrong"});
    check("api.authenticate", "X: y", refused, 401, -95007).await;
    let taken = json!({"key": "taken", "name": "a"});
    let made = rest(&server, "thing.create", &[&line], &taken).await;
    assert_eq!(made.json()["success"], true, "{made:?}");
    check("thing.create", &line, taken, 409, -95015).await;
    let form =
        send(&server, "POST /rest/auth?status=http HTTP/1.1", b"username=x&password=y").await;
    assert_eq!(form.status, 401);
    let bad = send(&server, "POST /api?status=http HTTP/1.1", b"{").await;
    assert_eq!((bad.status, code(&bad)), (400, -95001));
}

#[tokio::test]
async fn the_first_failure_of_several_is_the_status() {
    let server = TestServer::start();
    let line = bearer(&operator(&server).await);
    let find = json!({"command": "thing.find", "params": {"key": "no-such"}});
    let bad = json!({"command": "property.publish", "params": {"value": 1}});
    let ping = json!({"command": "diag.ping"});
    // What comes behind a command that takes time is carried out later.
    let slow = json!({"command": "thing.create", "params": {"key": "k", "name": "k"}});
    let body = |commands: &[&Value]| {
        let texts: Vec<_> = commands
            .iter()
            .enumerate()
            .map(|(at, command)| format!("\"{at}\":{command}"))
            .collect();
        serde_json::from_str::<Value>(&format!("{{{}}}", texts.join(","))).expect("JSON")
    };
    let check = async |commands: &[&Value], status: u16| {
        let answer = api(&server, "?status=http", &[&line], &body(commands)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let reply = answer.json();
        assert_eq!(reply.as_object().map(serde_json::Map::len), Some(commands.len()), "{reply}");
    };
    check(&[&ping, &ping], 200).await;
    check(&[&ping, &find, &bad], 404).await;
    check(&[&bad, &ping, &find], 400).await;
    check(&[&ping, &slow, &find, &bad], 404).await;
    check(&[&slow, &bad], 409).await;
    check(&[], 200).await;
}

#[tokio::test]
async fn who_sends_too_much_is_told_when_to_go_on() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__COMMANDS_PER_S", "5"),
        ("TR50D_LIMITS__ORG_COMMANDS_PER_S", "50"),
    ]);
    let id = operator(&server).await;
    let ping = json!({"1": {"command": "diag.ping"}});
    // Devices have small buffers.
    let plain = api(&server, "", &[&format!("sessionId: {id}")], &ping).await;
    assert!(!plain.head.to_ascii_lowercase().contains("ratelimit"), "{plain:?}");
    let pings: Vec<_> =
        (0..9).map(|at| format!("\"{at}\":{{\"command\":\"diag.ping\"}}")).collect();
    let nine: Value = serde_json::from_str(&format!("{{{}}}", pings.join(","))).expect("JSON");
    let answer = api(&server, "?status=http", &[&bearer(&id)], &nine).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("ratelimit-limit"), Some("5"));
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    assert_eq!(answer.header("ratelimit-reset"), Some("1"));
    let policy = answer.header("ratelimit-policy").expect("the policies");
    assert!(
        policy.starts_with("\"session\";q=5;w=1, ") && policy.ends_with("\"org\";q=50;w=1"),
        "{policy}"
    );
    let left = answer.header("ratelimit").expect("what is left");
    assert!(left.starts_with("\"session\";r=0;t=1, "), "{left}");
    // Without the wish the status stays, and nobody is told to wait.
    let answer = api(&server, "", &[&bearer(&id)], &nine).await;
    assert_eq!((answer.status, answer.header("retry-after")), (200, None), "{answer:?}");
    assert!(answer.header("ratelimit").is_some(), "{answer:?}");
}

#[tokio::test]
async fn a_locked_login_says_for_how_long() {
    let server = TestServer::start();
    let wrong = json!({"username": OPERATOR.0, "password": "wrong"});
    let mut locked = None;
    for _ in 0..30 {
        let answer = rest(&server, "api.authenticate?status=http", &[], &wrong).await;
        if answer.status == 429 {
            locked = Some(answer);
            break;
        }
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let locked = locked.expect("locked at last");
    let seconds: u64 = locked.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert_eq!(code(&locked), -95008);
    assert!(locked.text().contains(&format!("in {seconds} seconds")), "{locked:?}");
}
