//! What those who have not logged in can take of the server.

use std::net::SocketAddr;

use client::{Client, ClientError};
use support::http::{metrics, post};
use support::process::resident_of;
use support::{Endpoints, SOON, ServerProcess, TestServer, call, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::TR50D;

const MEBIBYTE: usize = 1024 * 1024;

/// The room for half requests in these tests.
const POOL: usize = 8 * MEBIBYTE;

const LOGIN: &str = r#""appToken":"demo-token-basicorg","thingKey":"mower-1""#;

fn pool() -> (&'static str, String) {
    ("TR50D_LIMITS__UNAUTHENTICATED_BYTES", POOL.to_string())
}

/// A body of so many bytes, with its login inside.
fn body_of(bytes: usize) -> String {
    let auth = format!(r#""auth":{{"command":"api.authenticate","params":{{{LOGIN}}}}}"#);
    let start = format!(r#"{{{auth},"p":{{"command":"diag.echo","params":{{"text":""#);
    let end = r#""}}}"#;
    let rest = bytes - start.len() - end.len();
    format!("{start}{}{end}", "x".repeat(rest))
}

fn half_post(bytes: usize) -> Vec<u8> {
    let head = format!("POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", bytes + 1);
    [head.as_bytes(), &vec![b' '; bytes]].concat()
}

/// A WebSocket that has begun a frame.
fn half_frame(bytes: usize) -> Vec<u8> {
    let head = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    let mut frame = vec![0x82, 0xff];
    frame.extend(u64::to_be_bytes(bytes as u64 + 1));
    frame.extend([0; 4]);
    [head.as_bytes(), &frame, &vec![0x10; bytes]].concat()
}

/// Sends as much as the server takes, and keeps the connection.
struct Strangers(Vec<tokio::task::JoinHandle<TcpStream>>);

impl Strangers {
    async fn send(address: SocketAddr, count: usize, bytes: &[u8]) -> Self {
        let mut strangers = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let bytes = bytes.to_vec();
            strangers.push(tokio::spawn(async move {
                // Who is cut off can't send the rest.
                let _ = stream.write_all(&bytes).await;
                stream
            }));
        }
        Self(strangers)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A figure of `/metrics`.
async fn figure(server: &Endpoints, name: &str) -> usize {
    let text = metrics(server).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
    line.trim().parse().expect("a number")
}

async fn half_requests(server: &Endpoints) -> usize {
    figure(server, "tr50d_connections_refused_total{reason=\"half_request\"} ").await
}

fn start() -> ServerProcess {
    let (name, bytes) = pool();
    TR50D.start(&[(name, &bytes)])
}

#[tokio::test]
async fn half_requests_of_a_megabyte_take_no_more_than_their_room() {
    for half in [half_post(MEBIBYTE - 1), half_frame(MEBIBYTE)] {
        let server = start();
        let pid = server.pid().to_string();
        let before = resident_of(&pid).expect("a process");
        let strangers = Strangers::send(server.address("http"), 300, &half).await;
        // The pool is full, and those who waited longest make room for others.
        eventually("some are cut off", async || half_requests(&server).await > 20).await;
        let held = figure(&server, "tr50d_unauthenticated_bytes ").await;
        assert!(held <= POOL, "{held} bytes are held");
        // Buffers that were freed a moment ago may still count.
        let grown = resident_of(&pid).expect("a process").saturating_sub(before);
        assert!(grown < 150 * MEBIBYTE, "{grown} bytes more");
        // Meanwhile, a request of the largest kind of another address gets its turn.
        let mut other = silent(&server, "127.0.0.2", "http").await;
        let body = body_of(MEBIBYTE);
        let head = format!("POST /api HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        let asked = async {
            other.write_all(head.as_bytes()).await?;
            other.write_all(body.as_bytes()).await?;
            let mut answer = String::new();
            other.read_to_string(&mut answer).await.map(|_| answer)
        };
        let reply = timeout(SOON, asked).await.expect("in time").expect("an answer");
        assert!(reply.contains(r#""p":{"success":true"#), "{}", &reply[..200.min(reply.len())]);
        drop(strangers);
        eventually("all is given back", async || {
            figure(&server, "tr50d_unauthenticated_bytes ").await == 0
        })
        .await;
    }
}

#[tokio::test]
async fn half_lines_and_half_connects_make_room_for_others() {
    let (name, bytes) = pool();
    let server = TestServer::with(&[(name, &bytes)]);
    // Of 48 kB each: a buffer of 64 KiB.
    let line = [b"{\"auth\":\"".as_slice(), &vec![b'x'; 48 * 1024]].concat();
    let connect = [b"\x10\xf0\xff\x03\0\x04MQTT\x04\xc2\0\0".as_slice(), &vec![b'x'; 48 * 1024]];
    for (listener, half) in [("tcp", line), ("mqtt", connect.concat())] {
        let before = half_requests(&server).await;
        let mut strangers = Vec::new();
        for _ in 0..200 {
            let mut stream =
                TcpStream::connect(server.address(listener)).await.expect("a connection");
            stream.write_all(&half).await.expect("sent");
            strangers.push(stream);
        }
        eventually("the oldest are cut off", async || half_requests(&server).await > before + 20)
            .await;
        let mut end = Vec::new();
        let first = timeout(SOON, strangers[0].read_to_end(&mut end)).await;
        let _ = first.expect("the first one is closed");
        assert!(figure(&server, "tr50d_unauthenticated_bytes ").await <= POOL);
        let mut thing = server.thing(listener, "mower-1").await;
        call(&mut thing, "diag.ping", "").await;
    }
}

/// A connection that says nothing, from this address.
async fn silent(server: &Endpoints, from: &str, listener: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("loopback");
    socket.connect(server.address(listener)).await.expect("a connection")
}

/// Whether the server has closed this connection, which has sent nothing.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => panic!("nothing was asked"),
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[tokio::test]
async fn when_all_places_are_taken_strangers_go_first_and_the_oldest_of_who_has_most() {
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", "20")]);
    let mut things = Vec::new();
    for listener in ["mqtt", "tcp"] {
        for number in 0..4 {
            things.push(server.thing(listener, &format!("{listener}-{number}")).await);
        }
    }
    // An HTTP connection that has nothing to do any more is as a stranger, but the only one.
    let mut idle = silent(&server, "127.0.0.9", "http").await;
    asked(&mut idle, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut strangers = Vec::new();
    for number in 0..60 {
        let listener = ["mqtt", "tcp", "http"][number % 3];
        // From several addresses: no one has more than it may.
        strangers.push(silent(&server, &format!("127.0.0.{}", 2 + number % 7), listener).await);
        let first = number.checked_sub(20).map(|first| &strangers[first]);
        eventually("the oldest is closed", async || first.is_none_or(is_closed)).await;
    }
    let open = || strangers.iter().filter(|stream| !is_closed(stream)).count();
    eventually("there are as many as there is room for", async || open() <= 11).await;
    assert!(!is_closed(strangers.last().expect("some")), "the youngest stays");
    asked(&mut idle, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    for thing in &mut things {
        call(thing, "diag.ping", "").await;
    }
    // Who logs in gets a place as long as there are strangers.
    for number in 0..8 {
        things.push(server.thing("tcp", &format!("late-{number}")).await);
    }
    for thing in &mut things {
        call(thing, "diag.ping", "").await;
    }
}

/// Sends a request over HTTP, and reads the answer.
async fn asked(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let read = async {
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            answer.push(char::from(stream.read_u8().await?));
        }
        let length = |line: &str| line.strip_prefix("Content-Length: ")?.parse().ok();
        let mut body = vec![0; answer.lines().find_map(length).unwrap_or_default()];
        stream.read_exact(&mut body).await?;
        std::io::Result::Ok(answer + &String::from_utf8_lossy(&body))
    };
    timeout(SOON, read).await.expect("in time").expect("an answer")
}

#[tokio::test]
async fn half_requests_of_others_cost_nobody_an_honest_one() {
    // There is room for a large request and a little more.
    let settings =
        [("TR50D_LIMITS__CONNECTIONS", "40"), ("TR50D_LIMITS__UNAUTHENTICATED_BYTES", "1")];
    let server = TestServer::with(&settings);
    let auth = format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{LOGIN}}}}},"#);
    let ping = format!(r#"{auth}"p":{{"command":"diag.ping"}}}}"#);
    let request =
        format!("POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{ping}", ping.len());
    let mut between = silent(&server, "127.0.0.9", "http").await;
    let reply = asked(&mut between, &request).await;
    assert!(reply.contains(r#""p":{"success":true"#), "{reply}");
    // One that has said a part of its head, and one a part of its body.
    let mut halves = Vec::new();
    for cut in [20, request.len() - 20] {
        let mut half = silent(&server, "127.0.0.9", "http").await;
        half.write_all(&request.as_bytes()[..cut]).await.expect("sent");
        halves.push((half, &request[cut..]));
    }
    let mut flood = Vec::new();
    for number in 0..200 {
        let mut stream = silent(&server, &format!("127.0.1.{}", 1 + number % 7), "http").await;
        let _ = stream.write_all(&half_post(48 * 1024)).await;
        flood.push(stream);
    }
    eventually("some are cut off", async || half_requests(&server).await > 20).await;
    for (half, rest) in &mut halves {
        let reply = asked(half, rest).await;
        assert!(reply.contains(r#""p":{"success":true"#), "{reply}");
    }
    let reply = asked(&mut between, &request).await;
    assert!(reply.contains(r#""p":{"success":true"#), "{reply}");
}

#[tokio::test]
async fn those_that_are_refused_and_stay_keep_nobody_out() {
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", "10")]);
    let mut refused = Vec::new();
    // Many more than get as far as their login without a place, and than leave in the time for
    // which their rest is read.
    for number in 0..300 {
        let mut stream = silent(&server, &format!("127.0.0.{}", 2 + number % 7), "http").await;
        let request = "POST /file/nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\nx";
        let answer = asked(&mut stream, request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        refused.push(stream);
    }
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    for (settings, most) in [
        (vec![("TR50D_LIMITS__CONNECTIONS_PER_ADDRESS", "5")], 5),
        (vec![("TR50D_LIMITS__CONNECTIONS", "10")], 9),
    ] {
        let server = TestServer::with(&settings);
        let mut things = Vec::new();
        for number in 0..most {
            things.push(server.thing("mqtt", &format!("thing-{number}")).await);
        }
        let late = Client::connect(&server.thing_url("mqtt", "late")).await;
        assert!(matches!(late, Err(ClientError::Refused(_))), "{:?}", late.err());
        // Somebody else comes in, as soon as who was refused is gone.
        eventually("another address has a place", async || {
            let mut other = silent(&server, "127.0.0.9", "tcp").await;
            let ping = b"{\"p\":{\"command\":\"api.ping\"}}\n";
            other.write_all(ping).await.expect("sent");
            let mut reply = vec![0; 23];
            let read = timeout(SOON, other.read_exact(&mut reply)).await.expect("in time");
            read.is_ok() && reply == b"{\"p\":{\"success\":true}}\n"
        })
        .await;
        things.pop().expect("some").close().await;
        eventually("there is room again", async || {
            Client::connect(&server.thing_url("mqtt", "late")).await.is_ok()
        })
        .await;
        let refused = "tr50d_connections_refused_total{reason=\"address\"} ";
        things.clear();
        assert!(figure(&server, refused).await >= 1);
    }
}

#[tokio::test]
async fn who_is_logged_in_needs_no_room_of_strangers() {
    let (name, _) = pool();
    let server = TestServer::with(&[(name, "1")]);
    let text = "x".repeat(900_000);
    for scheme in ["mqtt", "ws", "tcp", "http"] {
        let listener = if scheme == "ws" { "http" } else { scheme };
        let mut url = server.thing_url(listener, "mower-1");
        if scheme == "ws" {
            url.protocol = base::Protocol::Ws;
        }
        let mut thing = support::connect(&url).await;
        let echoed = call(&mut thing, "diag.echo", &format!(r#"{{"x":"{text}"}}"#)).await;
        assert_eq!(echoed["x"], text, "{scheme}");
    }
    // The largest request still has its login inside.
    let reply = post(&server, &body_of(MEBIBYTE)).await;
    assert!(reply.contains(r#""p":{"success":true"#));
    eventually("all is given back", async || {
        figure(&server, "tr50d_unauthenticated_bytes ").await == 0
    })
    .await;
}
