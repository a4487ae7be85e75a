//! What those who have not logged in can take of the server.

use std::net::SocketAddr;

use support::http::{metrics, post};
use support::process::resident_of;
use support::{Endpoints, SOON, ServerProcess, TestServer, call, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
        // Meanwhile, a request of the largest kind gets its turn.
        let reply = timeout(SOON, post(&server, &body_of(MEBIBYTE))).await.expect("in time");
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
