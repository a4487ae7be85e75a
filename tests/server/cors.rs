//! What web pages of other origins may do, by `http.cors_origins`.

use support::http::{dial, exchange};
use support::{SOON, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";

/// The paths that pages may use, and a method of each.
const PATHS: [(&str, &str); 6] = [
    ("POST", "/api"),
    ("POST", "/rest/auth"),
    ("POST", "/rest/_/diag.ping"),
    ("GET", "/file/000000000000000000000000"),
    ("POST", "/json-rpc/12.3"),
    ("GET", "/api/v1/orgs/basic-org/principals"),
];

fn start(origins: &str) -> TestServer {
    TestServer::with(&[("TR50D_HTTP__CORS_ORIGINS", origins)])
}

/// The answer's head, in small letters.
async fn ask(server: &TestServer, method: &str, path: &str, headers: &[&str]) -> String {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let ends = "Connection: close\r\nContent-Length: 0\r\n\r\n";
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}{ends}");
    let answer = exchange(server, request.as_bytes()).await;
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    head.to_ascii_lowercase()
}

/// The value of a header of an answer.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
}

fn allowed(head: &str) -> Option<&str> {
    header(head, "access-control-allow-origin")
}

async fn preflight(server: &TestServer, origin: &str, path: &str, headers: &str) -> String {
    let origin = format!("Origin: {origin}");
    let headers = format!("Access-Control-Request-Headers: {headers}");
    let asked = [&*origin, "Access-Control-Request-Method: POST", &headers];
    ask(server, "OPTIONS", path, &asked).await
}

#[tokio::test]
async fn without_a_list_nothing_is_said() {
    let server = TestServer::start();
    for (method, path) in PATHS {
        let head = ask(&server, method, path, &[&format!("Origin: {APP}")]).await;
        assert!(!head.contains("access-control") && header(&head, "vary").is_none(), "{head}");
        let head = preflight(&server, APP, path, "content-type").await;
        assert!(!head.contains("access-control"), "{head}");
        assert!(["405", "404"].contains(&&head[9..12]), "{head}");
    }
}

#[tokio::test]
async fn a_listed_origin_may_do_everything() {
    let server = start("https://APP.example:443, http://localhost:3000");
    for (method, path) in PATHS {
        for origin in [APP, "http://localhost:3000"] {
            let head = preflight(&server, origin, path, "content-type, sessionid,X-Own").await;
            assert!(head.starts_with("http/1.1 204 "), "{path}: {head}");
            assert_eq!(allowed(&head), Some(origin), "{path}");
            assert_eq!(header(&head, "access-control-allow-credentials"), Some("true"));
            let methods = header(&head, "access-control-allow-methods").expect("methods");
            assert!(methods.to_uppercase().split(", ").any(|m| m == method), "{path}: {methods}");
            let names = header(&head, "access-control-allow-headers").expect("headers");
            for name in ["content-type", "sessionid", "authorization", "range", "x-own"] {
                assert_eq!(names.split(", ").filter(|n| *n == name).count(), 1, "{names}");
            }
            assert!(head.contains("\r\nvary: origin"), "{head}");
            assert!(header(&head, "access-control-max-age").is_some(), "{head}");

            // Also with all that shows somebody, and whatever the status.
            let origin_line = format!("Origin: {origin}");
            for more in ["Cookie: a=b", "Authorization: Basic eDp5", "X: y"] {
                let head = ask(&server, method, path, &[&origin_line, more]).await;
                assert_eq!(allowed(&head), Some(origin), "{path}: {head}");
                assert_eq!(header(&head, "access-control-allow-credentials"), Some("true"));
                let exposed = header(&head, "access-control-expose-headers").expect("headers");
                assert!(exposed.contains("content-disposition"), "{exposed}");
                assert!(head.contains("\r\nvary: origin"), "{head}");
            }
        }
        for origin in [OTHER, "http://app.example", "https://app.example.evil.example", "null"] {
            let head = preflight(&server, origin, path, "content-type").await;
            assert!(head.starts_with("http/1.1 403 ") && allowed(&head).is_none(), "{head}");
            let head = ask(&server, method, path, &[&format!("Origin: {origin}")]).await;
            assert!(!head.contains("access-control"), "{path}: {head}");
            assert!(head.contains("\r\nvary: origin"), "a cache has to know: {head}");
        }
        let head = ask(&server, method, path, &[]).await;
        assert!(allowed(&head).is_none() && head.contains("\r\nvary: origin"), "{head}");
    }
    let origin = format!("Origin: {APP}");
    // Two origins are none, and OPTIONS without the question is no preflight.
    let two = ask(&server, "POST", "/api", &[&origin, &origin]).await;
    assert!(allowed(&two).is_none(), "{two}");
    let options = ask(&server, "OPTIONS", "/api", &[&origin]).await;
    assert!(options.starts_with("http/1.1 405 "), "{options}");
    for path in ["/metrics", "/healthz", "/", "/nothing"] {
        let head = ask(&server, "GET", path, &[&origin]).await;
        assert!(!head.contains("access-control"), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_star_is_for_requests_that_show_nobody() {
    let server = start("*");
    let origin = format!("Origin: {OTHER}");
    for (method, path) in PATHS {
        let head = preflight(&server, OTHER, path, "authorization, content-type").await;
        if path.starts_with("/json-rpc") {
            assert!(head.starts_with("http/1.1 403 ") && allowed(&head).is_none(), "{head}");
            let head = ask(&server, method, path, &[&origin]).await;
            assert!(allowed(&head).is_none(), "{head}");
            continue;
        }
        assert!(head.starts_with("http/1.1 204 "), "{head}");
        assert_eq!(allowed(&head), Some("*"), "{path}");
        assert!(!head.contains("allow-credentials"), "{head}");
        // A token is no Basic credentials; files have tickets instead.
        let names = header(&head, "access-control-allow-headers").expect("headers");
        let takes_token = !path.starts_with("/file/");
        assert_eq!(names.split(", ").any(|name| name == "authorization"), takes_token, "{path}");

        let head = ask(&server, method, path, &[&origin]).await;
        assert_eq!(allowed(&head), Some("*"), "{path}");
        assert!(!head.contains("allow-credentials"), "{head}");
        let head = ask(&server, method, path, &[&origin, "Authorization: Bearer x"]).await;
        assert_eq!(allowed(&head), Some("*"), "{path}");
        for shows in ["Cookie: a=b", "Authorization: Basic eDp5", "AUTHORIZATION: basic eDp5"] {
            let head = ask(&server, method, path, &[&origin, shows]).await;
            assert!(allowed(&head).is_none(), "{path} {shows}: {head}");
        }
    }
    // Beside the star, what is listed is listed.
    let server = start(&format!("*,{APP}"));
    let basic = "Authorization: Basic eDp5";
    let listed = ask(&server, "POST", "/json-rpc/12.3", &[&format!("Origin: {APP}"), basic]).await;
    assert_eq!(allowed(&listed), Some(APP));
    let other = ask(&server, "POST", "/json-rpc/12.3", &[&origin, basic]).await;
    assert!(allowed(&other).is_none(), "{other}");
}

/// The status of a request for a WebSocket.
async fn websocket(server: &TestServer, more: &[&str]) -> String {
    let mut lines = vec![
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: mqtt",
    ];
    lines.extend(more);
    upgrade(server, &lines).await
}

/// The status of a request with these lines; nothing is sent behind it.
async fn upgrade(server: &TestServer, lines: &[&str]) -> String {
    let mut stream = dial(server).await;
    let lines = lines.join("\r\n");
    let request = format!("GET /mqtt HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    let read = timeout(SOON, stream.read_exact(&mut status)).await;
    read.expect("in time").expect("a status line");
    String::from_utf8_lossy(&status[9..]).into_owned()
}

#[tokio::test]
async fn a_websocket_obeys_the_same_list() {
    let origin = |origin: &str| format!("Origin: {origin}");
    let server = TestServer::start();
    assert_eq!(websocket(&server, &[&origin(OTHER)]).await, "101", "no list");
    let server = start(APP);
    assert_eq!(websocket(&server, &[]).await, "101", "no browser");
    assert_eq!(websocket(&server, &[&origin(APP)]).await, "101");
    assert_eq!(websocket(&server, &[&origin(APP), "Cookie: a=b"]).await, "101");
    for refused in [OTHER, "null", ""] {
        assert_eq!(websocket(&server, &[&origin(refused)]).await, "403", "{refused}");
    }
    assert_eq!(websocket(&server, &[&origin(APP), &origin(OTHER)]).await, "403");
    let server = start("*");
    assert_eq!(websocket(&server, &[&origin(OTHER)]).await, "101");
    assert_eq!(websocket(&server, &[&origin(OTHER), "Cookie: a=b"]).await, "403");
}

#[tokio::test]
async fn lists_in_headers_may_be_on_several_lines() {
    let server = TestServer::start();
    let rest = [
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: soap",
        "Sec-WebSocket-Protocol: x,\tmqttv3.1",
    ];
    let check = async |lines: &[&str], expected: &str| {
        let lines = [lines, &rest].concat();
        assert_eq!(upgrade(&server, &lines).await, expected, "{lines:?}");
    };
    let plain = "Upgrade: websocket";
    check(&["Connection: keep-alive", "Connection: Upgrade", plain], "101").await;
    check(&["Connection: upgrade", "Connection: keep-alive", plain], "101").await;
    check(&["Connection: keep-alive, Upgrade", plain], "101").await;
    check(&["Connection: keep-alive,\tUPGRADE ,x", plain], "101").await;
    check(&["Connection: Upgrade", "Upgrade: h2c, WebSocket"], "101").await;
    check(&["Connection: Upgrade", "Upgrade: h2c", plain], "101").await;
    check(&["Connection: Upgrade", plain, "Upgrade: h2c"], "101").await;
    check(&["Connection: keep-alive", plain], "400").await;
    check(&["Connection: Upgraded", plain], "400").await;
    check(&["Connection: Upgrade", "Upgrade: h2c, websockets"], "400").await;
}
