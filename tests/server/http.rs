//! The HTTP edge: TR50 at `/api` and in the portal's style, MQTT through HTTP, operators' pages.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use support::http::{exchange, metrics, post, tr50_body};
use support::replies::{
    LOGIN_REFUSED, OPERATOR_LOGIN, SESSION_GONE, SESSION_MISSING, assert_reply, login_refused,
    session_id,
};
use support::{Endpoints, SOON, TestServer, call, failure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

/// The member `auth` of a login.
const LOGIN: &str = OPERATOR_LOGIN.split_at(1).1.split_at(OPERATOR_LOGIN.len() - 2).0;
const PONG: &str = r#"{"p":{"success":true}}"#;
/// The id of a new session of the operator.
async fn session(server: &Endpoints) -> String {
    session_id(&post(server, &format!("{{{LOGIN}}}")).await)
}

/// A connection that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    async fn connect(server: &Endpoints) -> Self {
        let stream = TcpStream::connect(server.address("http")).await.expect("a connection");
        Self(BufReader::new(stream))
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.expect("written");
    }

    /// The next answer: head and body.
    async fn answer(&mut self) -> (String, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = timeout(SOON, self.0.read_line(&mut head)).await.expect("a line in time");
            assert_ne!(read.expect("a line"), 0, "closed after {head:?}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
        timeout(SOON, self.0.read_exact(&mut body)).await.expect("in time").expect("a body");
        (head, String::from_utf8(body).expect("UTF-8"))
    }
}

#[tokio::test]
async fn every_way_to_send_a_request_is_served() {
    let server = TestServer::start();
    let id = session(&server).await;
    let auth = format!(r#""auth":{{"sessionId":"{id}"}}"#);
    let ping = r#""p":{"command":"diag.ping"}"#;
    let body = format!("{{{ping},{auth}}}");
    let length = body.len();
    let check = async |head: &str, body: &str| {
        let request = format!("{head}\r\n\r\n{body}");
        let request = request.replace("LENGTH", &body.len().to_string()).replace("{ID}", &id);
        let answer = exchange(&server, request.as_bytes()).await;
        assert_eq!(tr50_body(&answer), PONG, "{request}");
    };
    // The firmwares' way: no blank after the colon, two bytes too many, and the server closes.
    let firmware = format!("POST /api HTTP/1.0\r\nHost: x\r\nContent-Length:{length}");
    check(&firmware, &format!("{body}\r\n")).await;
    check("POST /api HTTP/1.0\r\nContent-Length:LENGTH", &body).await;
    let one_one = "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: LENGTH";
    check(one_one, &body).await;
    check(&one_one.replace("/api", "/api/"), &body).await;
    check(&one_one.replace("/api", "/api?x=1"), &body).await;
    check(&one_one.replace("/api", "http://x/api"), &body).await;
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "nonsense",
        "",
    ] {
        check(&format!("{one_one}\r\nContent-Type: {content_type}"), &body).await;
    }
    // What follows the first value is ignored, a closing brace too many in particular.
    for tail in ["}", "\r\n", "\0", "}}} and {more", "\u{feff}"] {
        check(one_one, &format!("{body}{tail}")).await;
    }
    check(one_one, &format!("\u{feff}\r\n {body}")).await;
    for name in ["sessionId", "SESSIONID", "sessionid", "SessionID"] {
        check(&format!("{one_one}\r\n{name}: {{ID}}"), &format!("{{{ping}}}")).await;
        check(&format!("{one_one}\r\n{name}: {{ID}}"), &format!("{{\"auth\":null,{ping}}}")).await;
    }
    // The body wins over the header.
    check(&format!("{one_one}\r\nsessionId: wrong"), &body).await;
    for params in ["[]", "null", "{}", "[ ]"] {
        let ping = format!(r#""p":{{"command":"diag.ping","params":{params}}}"#);
        check(one_one, &format!("{{{auth},{ping}}}")).await;
        check(one_one, &format!("{{{ping},{auth}}}")).await;
    }
    let chunked =
        format!("{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", 9, &body[..9], length - 9, &body[9..]);
    let head = "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked";
    check(head, &chunked).await;
}

#[tokio::test]
async fn a_kept_connection_answers_in_order() {
    let server = TestServer::start();
    let mut kept = Kept::connect(&server).await;
    let request = |body: &str| {
        format!("POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for number in 0..3 {
        kept.write(request(&format!(r#"{{"{number}":{{"command":"api.ping"}}}}"#)).as_bytes())
            .await;
        assert_eq!(kept.answer().await.1, format!(r#"{{"{number}":{{"success":true}}}}"#));
    }
    // Pipelined; the login takes longest and comes first.
    let login = format!("{{{LOGIN}}}");
    let ping = r#"{"p":{"command":"api.ping"}}"#;
    kept.write(format!("{}{}{}", request(&login), request("{"), request(ping)).as_bytes()).await;
    assert!(kept.answer().await.1.starts_with(r#"{"auth":{"success":true,"params":{"sessionId":"#));
    assert!(kept.answer().await.1.contains("[-95001]"));
    assert_eq!(kept.answer().await.1, PONG);
    // HTTP/1.0 keeps a connection only when asked to.
    let old = request(ping).replace("HTTP/1.1", "HTTP/1.0");
    kept.write(old.replace("Host: x", "Connection: keep-alive").as_bytes()).await;
    assert!(kept.answer().await.0.to_ascii_lowercase().contains("\r\nconnection: keep-alive\r\n"));
    kept.write(old.as_bytes()).await;
    assert_eq!(kept.answer().await.1, PONG);
    let mut rest = String::new();
    timeout(SOON, kept.0.read_to_string(&mut rest)).await.expect("in time").expect("closed");
    assert_eq!(rest, "");
}

#[tokio::test]
async fn a_body_that_is_sent_after_100_continue_is_served() {
    let server = TestServer::start();
    let mut kept = Kept::connect(&server).await;
    let body = r#"{"p":{"command":"api.ping"}}"#;
    let length = body.len();
    let head = format!(
        "POST /api HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    kept.write(head.as_bytes()).await;
    let (interim, _) = kept.answer().await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    kept.write(body.as_bytes()).await;
    assert_eq!(kept.answer().await.1, PONG);
}

#[tokio::test]
async fn commands_run_in_the_order_of_the_text_whatever_they_are_called() {
    let server = TestServer::start();
    let names = [
        "z",
        "1",
        "00001",
        "256",
        "cmd",
        "",
        " ",
        "ö",
        "\\\"",
        "\\\\",
        "\\n",
        "\\u0000",
        "a/b",
        "\\ud83d\\ude00",
        "success",
        "command",
        "params",
        "errorCodes",
        "errorMessages",
        "null",
    ];
    let command = |name: &&str| format!(r#""{name}":{{"command":"session.info"}}"#);
    let commands: Vec<String> = names.iter().map(command).collect();
    for body in [
        format!("{{{LOGIN},{}}}", commands.join(",")),
        format!("{{{},{LOGIN}}}", commands.join(",")),
    ] {
        let reply = post(&server, &body).await;
        assert!(reply.starts_with(r#"{"auth":{"success":true,"#), "{reply}");
        let mut position = 0;
        for name in names {
            let escaped: String = serde_json::from_str(&format!("\"{name}\"")).expect("a string");
            let key = serde_json::to_string(&escaped).expect("a string");
            let answered = reply[position..].find(&format!(r#",{key}:{{"success":true"#));
            position += answered.unwrap_or_else(|| panic!("{key} after {position} in {reply}"));
        }
        let parsed: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(parsed.as_object().map(|reply| reply.len()), Some(names.len() + 1));
        let new = &parsed["auth"]["params"]["sessionId"];
        assert_eq!(&parsed["z"]["params"]["id"], new, "the commands run in the new session");
    }
    let thousand: Vec<String> =
        (0..1000).map(|number| format!(r#""{number}":{{"command":"api.ping"}}"#)).collect();
    let reply = post(&server, &format!("{{{}}}", thousand.join(","))).await;
    assert_eq!(reply.matches("{\"success\":true}").count(), 1000);
    let more = format!(r#"{{"x":{{"command":"api.ping"}},{}}}"#, thousand.join(","));
    let expected = failure!(-95002, "The request has more than 1000 commands.");
    assert_eq!(post(&server, &more).await, expected);
}

#[tokio::test]
async fn what_a_whole_request_lacks_is_told_at_the_root() {
    let server = TestServer::start();
    let ping = r#""p":{"command":"diag.ping"}"#;
    let check = async |body: &str, expected: &str| {
        assert_reply(&post(&server, body).await, expected);
    };
    for auth in ["", r#","auth":{}"#, r#","auth":{"sessionId":null}"#] {
        check(&format!("{{{ping}{auth}}}"), SESSION_MISSING).await;
    }
    // The form of 2012.
    let with_message = concat!(
        r#"{"success":false,"errorCodes":[-99999],…],"errorMessage":""#,
        "Authentication session is invalid: Error: Session id is missing; ",
        r#"send `auth` or the sessionId header."}"#
    );
    check(&format!("{{{ping},\"auth\":null}}"), with_message).await;
    check("{}", SESSION_MISSING).await;
    let wrong = ["", "x", "000000000000000000000000", "DEADBEEFDEADBEEFDEADBEEF", "öööööööööööö"];
    for id in wrong {
        check(&format!(r#"{{{ping},"auth":{{"sessionId":"{id}"}}}}"#), SESSION_GONE).await;
    }
    let not_json = failure!(-95001, "The request is not a JSON object: …");
    for body in ["", "{", "[]", "7", "hello", "{\"p\":}", "\u{1}", "a=b&c=d"] {
        check(body, not_json).await;
    }
    let hybrid = login_refused();
    let bad = LOGIN.replace("demo-operator-password", "wrong");
    check(&format!("{{{bad}}}"), &hybrid).await;
    // Nothing else of the request is executed.
    check(&format!("{{{ping},{bad}}}"), &hybrid).await;
    // A command that logs in is answered under its own name.
    let command = LOGIN.replacen("\"auth\"", "\"data\"", 1);
    check(
        &format!(r#"{{"auth":null,{command}}}"#),
        r#"{"data":{"success":true,"params":{"sessionId":"…"#,
    )
    .await;
    let command = command.replace("demo-operator-password", "wrong");
    check(&format!("{{{command}}}"), &format!(r#"{{"data":{LOGIN_REFUSED}}}"#)).await;
    // A missing parameter of the login names itself.
    let body = r#"{"auth":{"command":"api.authenticate","params":{"username":"x"}}}"#;
    check(body, failure!(-95004, "Parameter \\\"password\\\" is missing.")).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_the_same_form() {
    let server = TestServer::with(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "2000")]);
    let expected = failure!(-95002, "The request is larger than 2000 bytes.");
    let body = |bytes: usize| {
        let ping = r#"{"p":{"command":"api.ping"}}"#;
        format!("{ping}{}", " ".repeat(bytes - ping.len()))
    };
    assert_eq!(post(&server, &body(2000)).await, PONG);
    assert_eq!(post(&server, &body(2001)).await, expected);
    // Larger than what fits into any buffer: the answer arrives all the same.
    assert_eq!(post(&server, &body(3_000_000)).await, expected);
    let head = "POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let answer = exchange(&server, format!("{head}{chunk}").as_bytes()).await;
    assert_eq!(tr50_body(&answer), expected);
}

#[tokio::test]
async fn the_portals_rest_style_is_served() {
    let server = TestServer::start();
    let form = async |path: &str, headers: &str, form: &str| {
        let length = form.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}");
        let request = format!("{head}Content-Length: {length}\r\n\r\n{form}");
        let answer = exchange(&server, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    };
    let login = "username=operator%40basicorg.example&password=demo-operator-password";
    let mut ids = Vec::new();
    for path in ["/rest/auth", "/rest/auth/"] {
        let id = form(path, "", login).await;
        assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
        ids.push(id);
    }
    let thing = form("/rest/auth", "", "thingKey=rest-1&appToken=demo-token-basicorg").await;
    assert_eq!(thing.len(), 24, "{thing}");
    let wrong = login.replace("demo", "no");
    assert_eq!(form("/rest/auth", "", &wrong).await, LOGIN_REFUSED);
    let missing = failure!(-95004, "Parameter \\\"username\\\" is missing.");
    assert_eq!(form("/rest/auth", "", "").await, missing);
    let id = &ids[0];
    let ping = r#"{"success":true}"#;
    for path in ["/rest/_/diag.ping", "/rest/_/diag.ping/", "/rest/_/DIAG.Ping"] {
        assert_eq!(form(path, "", &format!("sessionId={id}")).await, ping);
        assert_eq!(form(path, &format!("sessionId: {id}\r\n"), "").await, ping);
    }
    // Parameters are texts, numbers too.
    let list = format!("sessionId={id}&limit=1&kind=USER");
    let listed: Value =
        serde_json::from_str(&form("/rest/_/session.list/", "", &list).await).expect("JSON");
    assert_eq!(listed["params"]["count"], 2, "{listed}");
    assert_eq!(listed["params"]["result"].as_array().map(Vec::len), Some(1));
    // Of a hundred thousand fields most are not looked at.
    let many: String = (0..100_000).map(|number| format!("&a{number}")).collect();
    let many = form("/rest/_/session.list", "", &format!("sessionId={id}{many}")).await;
    assert_eq!(many, failure!(-95005, "\\\"params\\\" must be an object."));
    let gone = form("/rest/_/session.list/", "", "sessionId=000000000000000000000000").await;
    assert_eq!(gone, SESSION_GONE);
    assert_eq!(form("/rest/_/diag.ping", "", "").await, SESSION_MISSING);
    let unknown = form("/rest/_/no.such/", "", &format!("sessionId={id}")).await;
    assert!(unknown.starts_with(r#"{"success":false,"errorCodes":[-95003],"#), "{unknown}");
    // What there is without a session is told to nobody.
    assert_eq!(form("/rest/_/no.such/", "", "").await, SESSION_MISSING);
    assert_eq!(form("/rest/_/api.ping", "", "").await, ping);
    assert_eq!(form("/rest/_/api.ping", "", "sessionId=").await, SESSION_GONE);
    // The session in the form wins over that in the header.
    let header = format!("sessionId: {id}\r\n");
    assert_eq!(form("/rest/_/diag.ping", &header, "sessionId=x").await, SESSION_GONE);
    let echo = async |fields: &str, params: &str| {
        let expected = format!(r#"{{"success":true,"params":{params}}}"#);
        assert_eq!(form("/rest/_/diag.echo", &header, fields).await, expected, "{fields}");
    };
    echo("", "{}").await;
    echo("b=1&a=null&B=%5B%5D&b=2", r#"{"B":"[]","a":"null","b":"2"}"#).await;
    echo("%zz=%&a=%ff%00%22", "{\"%zz\":\"%\",\"a\":\"\u{fffd}\\u0000\\\"\"}").await;
}

#[tokio::test]
async fn operators_pages_and_wrong_paths() {
    let server = TestServer::start();
    let check = async |method: &str, path: &str, status: &str, parts: &[&str]| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = exchange(&server, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}{answer}");
        for part in parts {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }
    };
    let _thing = server.thing("mqtt", "counted").await;
    session(&server).await;
    check("GET", "/healthz", "200 OK", &["\r\n\r\nok\n"]).await;
    check("GET", "/readyz", "200 OK", &["\r\n\r\nready\n"]).await;
    check("GET", "/", "200 OK", &["text/html"]).await;
    check("HEAD", "/metrics", "200 OK", &["version=0.0.4"]).await;
    check("GET", "/metrics", "200 OK", &["version=0.0.4", "tr50d_"]).await;
    for path in ["/nothing", "/api/v2", "/rest", "/rest/_/", "/API", "/mqttx", "/..", "/%2fapi"] {
        check("GET", path, "404 Not Found", &["application/json", r#""code":404"#]).await;
        check("POST", path, "404 Not Found", &["application/json"]).await;
    }
    for path in ["/api", "/rest/auth", "/rest/_/diag.ping"] {
        check("GET", path, "405 Method Not Allowed", &["Allow: POST"]).await;
        check("DELETE", path, "405 Method Not Allowed", &["Allow: POST"]).await;
    }
    check("DELETE", "/healthz", "405 Method Not Allowed", &["Allow: GET, HEAD"]).await;
    let answer = exchange(&server, b"GET /mqtt HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 426 "), "{answer}");
    check("POST", "/mqtt", "405 Method Not Allowed", &["Allow: GET"]).await;
    // What is no HTTP ends the connection and nothing else.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET /\xff\r\n\r\n", b"hello\r\n\r\n"] {
        exchange(&server, bytes).await;
    }
    check("GET", "/healthz", "200 OK", &["\r\n\r\nok\n"]).await;
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let server = TestServer::start();
    let _thing = server.thing("tcp", "counted").await;
    let id = session(&server).await;
    post(&server, &format!("{{{}}}", LOGIN.replace("demo-operator-password", "wrong"))).await;
    let find = r#""b":{"command":"user.find"}"#;
    let body = format!(r#"{{"a":{{"command":"diag.ping"}},{find},"auth":{{"sessionId":"{id}"}}}}"#);
    post(&server, &body).await;
    let metrics = metrics(&server).await;
    let value = |name: &str, labels: &[&str]| {
        let line = metrics.lines().find(|line| {
            let named = line.starts_with(&format!("{name}{{"));
            named && labels.iter().all(|label| line.contains(label))
        });
        let line = line.unwrap_or_else(|| panic!("no {name} {labels:?} in {metrics}"));
        line.rsplit(' ').next().expect("a value").to_owned()
    };
    assert_eq!(value("tr50d_sessions", &["application"]), "1");
    assert_eq!(value("tr50d_sessions", &["user"]), "1");
    assert_eq!(value("tr50d_logins_total", &["success", "\"tcp\""]), "1");
    assert_eq!(value("tr50d_logins_total", &["success", "\"http\""]), "1");
    assert_eq!(value("tr50d_logins_total", &["wrong_password", "\"http\""]), "1");
    assert_eq!(value("tr50d_commands_total", &["diag.ping", "success"]), "1");
    assert!(!metrics.contains(&id));
}

/// A CONNECT of MQTT 3.1 as a thing of BasicOrg, with the client id `web`.
fn connect_31(thing_key: &str) -> Vec<u8> {
    let mut body = b"\x00\x06MQIsdp\x03\xc2\x00\x3c".to_vec();
    for text in ["web", thing_key, "demo-token-basicorg"] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

/// A PUBLISH with QoS 0.
fn publish(topic: &str, payload: &str) -> Vec<u8> {
    let length = 2 + topic.len() + payload.len();
    assert!(length < 128);
    let head = [0x30, length as u8, 0, topic.len() as u8];
    [&head, topic.as_bytes(), payload.as_bytes()].concat()
}

/// Opens a WebSocket with these sub-protocols; the answer to the request comes with it.
pub(crate) async fn websocket(
    server: &Endpoints,
    path: &str,
    offered: Option<&str>,
) -> Result<(WebSocketStream<TcpStream>, Response), WebSocketError> {
    let address = server.address("http");
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    if let Some(offered) = offered {
        let offered = offered.parse().expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered);
    }
    let stream = TcpStream::connect(address).await?;
    tokio_tungstenite::client_async(request, stream).await
}

const CONNACK: &[u8] = b"\x20\x02\x00\x00";

#[tokio::test]
async fn mqtt_runs_over_websocket_with_both_sub_protocols_on_both_paths() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut number = 0;
    for path in ["/mqtt", "/mqtt-ssl"] {
        for (offered, chosen) in [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("x, mqtt", "mqtt")] {
            let (mut socket, answer) =
                websocket(&server, path, Some(offered)).await.expect("a WebSocket");
            assert_eq!(answer.headers()["sec-websocket-protocol"], chosen);
            number += 1;
            let key = format!("web-{number}");
            let ping = publish("api/0001", r#"{"p":{"command":"diag.ping"}}"#);
            // Packets need not end where messages do.
            let bytes = [connect_31(&key), ping].concat();
            let (head, tail) = bytes.split_at(20);
            for piece in [head, tail] {
                socket.send(Message::Binary(piece.to_vec().into())).await.expect("sent");
            }
            let mut received = Vec::new();
            let expected = [CONNACK, &publish("reply/0001", PONG)].concat();
            while received.len() < expected.len() {
                let message = timeout(SOON, socket.next()).await.expect("a message in time");
                received.extend_from_slice(&message.expect("open").expect("a message").into_data());
            }
            assert_eq!(received, expected);
            let params = format!(r#"{{"thingKey":"{key}"}}"#);
            let listed = call(&mut operator, "session.list", &params).await;
            assert_eq!(listed["result"][0]["connInfo"]["protocol"], "ws");
        }
    }
    for offered in [None, Some("soap")] {
        match websocket(&server, "/mqtt", offered).await {
            Err(WebSocketError::Http(answer)) => assert_eq!(answer.status(), 400),
            other => panic!("{other:?}"),
        }
    }
    match websocket(&server, "/api", Some("mqtt")).await {
        Err(WebSocketError::Http(answer)) => assert_eq!(answer.status(), 405),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_websocket_closes_with_its_session_and_on_text() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let open = async |key: &str| {
        let (mut socket, _) = websocket(&server, "/mqtt", Some("mqtt")).await.expect("a WebSocket");
        socket.send(Message::Binary(connect_31(key).into())).await.expect("sent");
        let connack = timeout(SOON, socket.next()).await.expect("in time").expect("open");
        assert_eq!(connack.expect("a message").into_data(), CONNACK);
        socket
    };
    let mut ended = open("ended").await;
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"ended"}"#).await;
    let reference = listed["result"][0]["ref"].as_str().expect("a session");
    call(&mut operator, "session.end", &format!(r#"{{"ref":"{reference}"}}"#)).await;
    let mut text = open("text").await;
    text.send(Message::Text("hello".into())).await.expect("sent");
    for socket in [&mut ended, &mut text] {
        let closed = async {
            while let Some(Ok(message)) = socket.next().await {
                assert!(message.is_close(), "{message:?}");
            }
        };
        timeout(Duration::from_secs(10), closed).await.expect("closed in time");
    }
}

#[tokio::test]
async fn mqtt_runs_through_the_tunnel_of_libtr50() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut stream = TcpStream::connect(server.address("http")).await.expect("a connection");
    stream.write_all(b"GET /mqtt HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let mut answer = vec![0; head.len()];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("a head");
    assert_eq!(answer, head);
    let ping = publish("api/1", r#"{"p":{"command":"diag.ping"}}"#);
    stream.write_all(&[connect_31("tunnel"), ping].concat()).await.expect("written");
    let expected = [CONNACK, &publish("reply/1", PONG)].concat();
    let mut answer = vec![0; expected.len()];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("packets");
    assert_eq!(answer, expected);
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"tunnel"}"#).await;
    assert_eq!(listed["result"][0]["connInfo"]["protocol"], "mqtt");
    let local = stream.local_addr().expect("an address").to_string();
    assert_eq!(listed["result"][0]["connInfo"]["remoteAddr"], local);
}

#[tokio::test]
async fn forwarded_addresses_are_believed_only_from_named_proxies() {
    let check = async |settings: &[(&str, &str)], expected: &str| {
        let server = TestServer::with(settings);
        let body = format!(r#"{{{LOGIN},"i":{{"command":"session.info"}}}}"#);
        let head = "POST /api HTTP/1.0\r\nX-Forwarded-For: 203.0.113.9\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let reply: Value =
            serde_json::from_str(tr50_body(&exchange(&server, request.as_bytes()).await))
                .expect("JSON");
        let info = &reply["i"]["params"];
        assert_eq!(info["ipAddress"], expected, "{info}");
    };
    check(&[], "127.0.0.1").await;
    check(&[("TR50D_PROXY__TRUSTED", "127.0.0.0/8")], "203.0.113.9").await;
}
