//! HTTP by hand: requests on connections of their own, as devices with habits of their own send
//! them.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Endpoints, SOON};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Its first line and its headers.
    pub head: String,
    /// Its body, without chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer in all that came until the end of the connection.
    ///
    /// # Panics
    ///
    /// If that is none.
    pub fn read(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no head: {:?}", String::from_utf8_lossy(bytes));
        });
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let mut body = bytes[end + 4..].to_vec();
        if head.contains("\r\nTransfer-Encoding: chunked") {
            body = unchunked(&body);
        }
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head, body }
    }

    /// The body.
    ///
    /// # Panics
    ///
    /// If it is no text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The value of a header, whose name may be written in any case; none if it is not there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body, which has to be JSON and to say so.
    ///
    /// # Panics
    ///
    /// If it is not, or does not.
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The body inside complete chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = find(bytes, b"\r\n").expect("a chunk's head");
        let size = std::str::from_utf8(&bytes[..end]).expect("text");
        let size = usize::from_str_radix(size, 16).expect("hexadecimal");
        bytes = &bytes[end + 2..];
        if size == 0 {
            assert_eq!(bytes, b"\r\n", "nothing behind the last chunk");
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = bytes[size..].strip_prefix(b"\r\n").expect("a chunk's end");
    }
}

/// A connection to the HTTP listener.
///
/// # Panics
///
/// If there is none.
pub async fn dial(server: &Endpoints) -> TcpStream {
    TcpStream::connect(server.address("http")).await.expect("a connection")
}

/// Everything that comes until the server closes.
///
/// # Panics
///
/// If it does not close [`SOON`].
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("in time").expect("closed");
    bytes
}

/// Writes bytes and reads until the server closes.
///
/// # Panics
///
/// If what comes is no text.
pub async fn exchange(server: &Endpoints, request: &[u8]) -> String {
    let mut stream = dial(server).await;
    stream.write_all(request).await.expect("written");
    String::from_utf8(read_to_end(&mut stream).await).expect("text")
}

/// Sends a request. `head` is its first line and its headers, each but the last with its end;
/// `Host`, `Connection: close` and the length of the body are added.
pub async fn send(server: &Endpoints, head: &str, body: &[u8]) -> Answer {
    let is_bare = body.is_empty() && (head.starts_with("GET ") || head.starts_with("HEAD "));
    let length = match is_bare {
        true => String::new(),
        false => format!("\r\nContent-Length: {}", body.len()),
    };
    let head = format!("{head}\r\nHost: x\r\nConnection: close{length}\r\n\r\n");
    let mut stream = dial(server).await;
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("written");
    Answer::read(&read_to_end(&mut stream).await)
}

/// The metrics, as a page.
pub async fn metrics(server: &Endpoints) -> String {
    exchange(server, b"GET /metrics HTTP/1.0\r\n\r\n").await
}

/// Posts one body to `/api`; the body of the answer, whose head has to be TR50's.
pub async fn post(server: &Endpoints, body: &str) -> String {
    post_with(server, "", body).await
}

/// As [`post`], with more header lines, each with its end.
pub async fn post_with(server: &Endpoints, headers: &str, body: &str) -> String {
    let length = body.len();
    let head = "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let request = format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}");
    tr50_body(&exchange(server, request.as_bytes()).await).to_owned()
}

/// The body of an answer, after a look at its head.
///
/// # Panics
///
/// If the head is not TR50's.
pub fn tr50_body(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.lines().next().expect("a status line");
    assert!(matches!(status, "HTTP/1.1 200 OK" | "HTTP/1.0 200 OK"), "{answer}");
    assert!(head.contains("\r\nContent-Type: application/json"), "{answer}");
    // libtr50 wants the header spelled exactly so.
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{answer}");
    body
}

/// The session id of a login over HTTP: of a user, or with a token of a thing.
///
/// # Panics
///
/// If the login is refused.
pub async fn log_in(server: &Endpoints, user: &str, password: &str) -> String {
    let params = match user.contains('@') {
        true => format!(r#"{{"username":"{user}","password":"{password}"}}"#),
        false => format!(r#"{{"thingKey":"{user}","appToken":"{password}","appId":""}}"#),
    };
    let body = format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#);
    crate::replies::session_id(&post(server, &body).await)
}
