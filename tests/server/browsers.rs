//! What browsers are told, what pages of other sites can't do in somebody's name, and listeners
//! that are for few.

use support::http::{Answer, metrics};
use support::{Endpoints, SOON, TestServer, call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::TR50D;

/// Base64 of "operator@basicorg.example:demo-operator-password", and of the viewer's.
const OPERATOR: &str =
    "Authorization: Basic b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTpkZW1vLW9wZXJhdG9yLXBhc3N3b3Jk";
const VIEWER: &str =
    "Authorization: Basic dmlld2VyQGJhc2ljb3JnLmV4YW1wbGU6ZGVtby12aWV3ZXItcGFzc3dvcmQ=";

async fn ask_at(
    server: &Endpoints,
    listener: &str,
    head: &str,
    lines: &[&str],
    body: &str,
) -> Answer {
    let stream = TcpStream::connect(server.address(listener)).await.expect("a connection");
    ask_on(stream, head, lines, body).await
}

async fn ask_on(mut stream: TcpStream, head: &str, lines: &[&str], body: &str) -> Answer {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let ends = format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let request = format!("{head} HTTP/1.1\r\nHost: t.example:8080\r\n{lines}{ends}");
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    timeout(SOON, asked).await.expect("in time").expect("an answer");
    Answer::read(&answer)
}

#[tokio::test]
async fn pages_of_other_sites_send_nothing_with_credentials_of_the_browser() {
    const RPC: &str = r#"{"method":"ListActiveAuthSessions","params":{}}"#;
    let origins = [("TR50D_HTTP__CORS_ORIGINS", "https://app.example,*")];
    for (settings, listed) in [(&[][..], false), (&origins[..], true)] {
        let server = TestServer::with(settings);
        let check = async |lines: &[&str], status: u16| {
            let lines = [&[OPERATOR], lines].concat();
            let answer = ask_at(&server, "http", "POST /json-rpc/12.5", &lines, RPC).await;
            assert_eq!(answer.status, status, "{lines:?}: {}", answer.text());
            assert_eq!(answer.text().contains("\"result\""), status == 200);
        };
        check(&[], 200).await;
        check(&["Content-Type: text/plain"], 200).await;
        check(&["Sec-Fetch-Site: same-origin", "Origin: http://t.example:8080"], 200).await;
        check(&["Sec-Fetch-Site: none"], 200).await;
        check(&["Origin: http://t.example:8080"], 200).await;
        check(&["Sec-Fetch-Site: cross-site"], 403).await;
        check(&["Sec-Fetch-Site: same-site", "Origin: http://other.t.example"], 403).await;
        check(&["Origin: https://evil.example"], 403).await;
        check(&["Origin: null", "Content-Type: text/plain"], 403).await;
        let app = ["Sec-Fetch-Site: cross-site", "Origin: https://app.example"];
        check(&app, if listed { 200 } else { 403 }).await;
        check(&app[1..], if listed { 200 } else { 403 }).await;
    }
}

#[tokio::test]
async fn what_a_browser_may_show_is_shown_alone_and_as_it_says_it_is() {
    let server = TestServer::start();
    let is_guarded = |answer: &Answer| {
        let policy = answer.header("content-security-policy").unwrap_or_default();
        let headers = [
            answer.header("x-content-type-options") == Some("nosniff"),
            answer.header("x-frame-options") == Some("DENY"),
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        ];
        assert!(headers == [headers[0]; 3], "{headers:?}");
        headers[0]
    };
    // The console loads what is its own.
    let console = ask_at(&server, "http", "GET /", &[], "").await;
    let policy = console.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(console.header("x-frame-options"), Some("DENY"));
    let paths = [
        "/docs",
        "/docs/session.list",
        "/metrics",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/nothing",
        "/api/v1/x",
    ];
    for path in paths {
        let answer = ask_at(&server, "http", &format!("GET {path}"), &[], "").await;
        assert!(is_guarded(&answer), "{path}");
    }
    let answer = ask_at(&server, "http", "POST /json-rpc/12.5", &[], "{}").await;
    assert!(is_guarded(&answer));
    // Of what devices ask for, when a browser asks.
    let ping = r#"{"p":{"command":"api.ping"}}"#;
    for path in ["POST /api", "POST /rest/_/api.ping", "GET /file/000000000000000000000000"] {
        let answer = ask_at(&server, "http", path, &[], ping).await;
        assert!(!is_guarded(&answer), "{path}");
        for line in ["User-Agent: Mozilla/5.0", "Accept: text/html", "Origin: https://x.example"] {
            let answer = ask_at(&server, "http", path, &[line], ping).await;
            assert!(is_guarded(&answer), "{path} {line}");
        }
    }
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_those_who_may() {
    let server = TestServer::with(&[("TR50D_PROXY__TRUSTED", "127.0.0.7")]);
    let status = async |lines: &[&str]| {
        let answer = ask_at(&server, "http", "GET /metrics", lines, "").await;
        assert_eq!(answer.text().contains("tr50d_build"), answer.status == 200);
        answer.status
    };
    assert_eq!(status(&[]).await, 200);
    let session =
        support::http::log_in(&server, "operator@basicorg.example", "demo-operator-password");
    let session = session.await;
    let (header, bearer) =
        (format!("sessionId: {session}"), format!("Authorization: Bearer {session}"));
    // Through a proxy, even one that nobody trusts.
    for proxy in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 p"] {
        assert_eq!(status(&[proxy]).await, 401, "{proxy}");
        assert_eq!(status(&[proxy, VIEWER]).await, 401, "{proxy}");
        assert_eq!(status(&[proxy, "sessionId: 000000000000000000000000"]).await, 401);
        for login in [OPERATOR, &header, &bearer] {
            assert_eq!(status(&[proxy, login]).await, 200, "{proxy} {login}");
        }
    }
    // A token of a device may not; one of an application that may, may.
    let token = "Authorization: Bearer demo-token-basicorg";
    assert_eq!(status(&["Via: 1.1 p", token]).await, 401);
    let mut operator = server.operator("tcp").await;
    let role = r#"{"key":"watch","name":"watch","perms":["metrics"]}"#;
    call(&mut operator, "role.create", role).await;
    let app = r#"{"name":"watcher","token":"watcher-token-016","roles":["watch"]}"#;
    let made = support::reply(&mut operator, "app.create", app).await;
    assert_eq!(made["success"], true, "{made}");
    assert_eq!(status(&["Via: 1.1 p", "Authorization: Bearer watcher-token-016"]).await, 200);
    // The PROXY protocol says that somebody else asks.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.7:0".parse().expect("an address")).expect("loopback");
    let mut stream = socket.connect(server.address("http")).await.expect("a connection");
    stream.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 80\r\n").await.expect("sent");
    assert_eq!(ask_on(stream, "GET /metrics", &[], "").await.status, 401);
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own_where_one_is_set() {
    let server = TR50D.start(&[("TR50D_METRICS__LISTEN", "127.0.0.1:0")]);
    let listening = format!("listening metrics {}", server.address("metrics"));
    assert!(server.lines().contains(&listening), "{:?}", server.lines());
    let ask = async |listener, head: &str, lines: &[&str]| {
        ask_at(&server, listener, head, lines, "").await
    };
    assert_eq!(ask("http", "GET /metrics", &[]).await.status, 404);
    assert_eq!(ask("http", "GET /metrics", &[OPERATOR]).await.status, 404);
    let answer = ask("metrics", "GET /metrics", &["X-Forwarded-For: 192.0.2.1"]).await;
    assert!(answer.status == 200 && answer.text().contains("tr50d_build"));
    assert_eq!(ask("metrics", "GET /healthz", &[]).await.status, 200);
    for head in ["GET /", "POST /api", "GET /openapi.json", "POST /json-rpc/1", "GET /mqtt"] {
        assert_eq!(ask("metrics", head, &["Upgrade: websocket"]).await.status, 404, "{head}");
    }
    // Nor is libtr50's tunnel there.
    let mut stream = TcpStream::connect(server.address("metrics")).await.expect("a connection");
    stream.write_all(b"GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sent");
    let mut answer = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 404");
}

#[tokio::test]
async fn administrators_have_a_listener_of_their_own_where_one_is_set() {
    let server = TR50D.start(&[("TR50D_HTTP__ADMIN_LISTEN", "127.0.0.1:0")]);
    let listening = format!("listening admin {}", server.address("admin"));
    assert!(server.lines().contains(&listening), "{:?}", server.lines());
    let login = |name: &str, password: &str| {
        let params = format!(r#"{{"username":"{name}","password":"{password}"}}"#);
        format!(
            r#"{{"auth":{{"command":"api.authenticate","params":{params}}},
                "i":{{"command":"session.info"}}}}"#
        )
    };
    let people = [
        ("admin@devicewise.com", "demo-admin-password", true),
        ("operator@basicorg.example", "demo-operator-password", true),
        ("viewer@basicorg.example", "demo-viewer-password", false),
    ];
    for (name, password, is_admin) in people {
        for listener in ["http", "admin"] {
            let body = login(name, password);
            let answer = ask_at(&server, listener, "POST /api", &[], &body).await;
            let welcome = !is_admin || listener == "admin";
            assert_eq!(answer.text().contains(r#""i":{"success":true"#), welcome, "{name}");
            if let Some(id) = answer.json()["auth"]["params"]["sessionId"].as_str() {
                // The session is good where its login would be.
                let header = format!("sessionId: {id}");
                for (listener, good) in [("admin", true), ("http", !is_admin)] {
                    let info = r#"{"i":{"command":"session.info"}}"#;
                    let answer = ask_at(&server, listener, "POST /api", &[&header], info).await;
                    assert_eq!(answer.text().contains(r#""success":true"#), good, "{listener}");
                    let form = format!("sessionId={id}");
                    let path = "POST /rest/_/session.info";
                    let answer = ask_at(&server, listener, path, &[], &form).await;
                    assert_eq!(answer.text().contains(r#""success":true"#), good, "{listener}");
                }
            }
        }
        // Other doors are as ever.
        let mut other = support::connect(&server.url("tcp", name, password)).await;
        call(&mut other, "diag.ping", "").await;
        let mut websocket = server.url("http", name, password);
        websocket.protocol = base::Protocol::Ws;
        assert_eq!(client::Client::connect(&websocket).await.is_ok(), !is_admin, "{name}");
    }
    let rpc = r#"{"method":"ListActiveAuthSessions","params":{}}"#;
    for (listener, good) in [("http", false), ("admin", true)] {
        let answer = ask_at(&server, listener, "POST /json-rpc/12.5", &[OPERATOR], rpc).await;
        assert_eq!(answer.text().contains("\"result\""), good, "{}", answer.text());
    }
    assert!(metrics(&server).await.contains("tr50d_build"));
}
