//! Bodies over HTTP, of TR50 and of the dialects, to a whole server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Target;
use crate::replies::OPERATOR_LOGIN;
use crate::{SOON, TestServer};

/// Inputs before the server is made anew: what it keeps grows.
const INPUTS_MAX: usize = 5000;

/// Inputs before the operator logs in again: the last may have logged out.
const LOGIN_EVERY: usize = 16;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const BASIC: &str = "Basic b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTpkZW1vLW9wZXJhdG9yLXBhc3N3b3Jk";

/// Where bodies go.
const PATHS: [(&str, &str); 14] = [
    ("/api", JSON),
    ("/rest/auth", FORM),
    ("/rest/_/session.list", FORM),
    ("/rest/_/property.publish", FORM),
    ("/rest/_/thing.list", FORM),
    ("/rest/_/file.put", FORM),
    ("/json-rpc/12.3", JSON),
    ("/json-rpc/7.0", JSON),
    ("/api/v1/orgs/basic-org/principals/byids", JSON),
    ("/api/v1/orgs/basic-org/principals/5cf885f41c5bd771c8065bf2/sessions/revoke", JSON),
    ("/api/v1/orgs/basic-org/principals/5cf885f41c5bd771c8065c01/sessions/revoke", JSON),
    ("/api/v1/token/inspect", JSON),
    ("/api", "text/plain"),
    ("/rest/_/org.list", FORM),
];

/// A server, and a connection that is used for one request after the other. The first byte chooses the
/// path, the second whether the body is said to be compressed (1), comes in chunks (2), and is
/// somebody's (4: nobody's).
pub struct HttpBodies {
    web: Web,
    inputs: usize,
}

impl Target for HttpBodies {
    const NAME: &'static str = "http_bodies";

    fn new() -> Self {
        Self { web: Web::start(), inputs: 0 }
    }

    fn check(&mut self, data: &[u8]) {
        let [path, how, body @ ..] = data else { return };
        let (path, kind) = PATHS[usize::from(*path) % PATHS.len()];
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n");
        if how & 0x01 != 0 {
            head += "Content-Encoding: gzip\r\n";
        }
        if how & 0x04 == 0 {
            head += &self.web.credentials(path);
        }
        let mut request = head.into_bytes();
        if how & 0x02 != 0 && !body.is_empty() {
            let length = body.len();
            request.extend(format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n").as_bytes());
            request.extend_from_slice(body);
            request.extend_from_slice(b"\r\n0\r\n\r\n");
        } else {
            request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            request.extend_from_slice(body);
        }
        self.web.ask(&request);
        self.inputs += 1;
        if self.inputs.is_multiple_of(LOGIN_EVERY) {
            self.web.session = None;
        }
        if self.inputs == INPUTS_MAX {
            *self = Self::new();
        }
    }
}

/// An HTTP answer.
pub(super) struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A server and a connection to it.
pub(super) struct Web {
    server: TestServer,
    connection: Option<BufReader<TcpStream>>,
    session: Option<String>,
}

impl Web {
    /// A fresh server.
    pub(super) fn start() -> Self {
        Self { server: TestServer::start(), connection: None, session: None }
    }

    /// The headers of BasicOrg's administrator.
    pub(super) fn credentials(&mut self, path: &str) -> String {
        if path.starts_with("/json-rpc") {
            return format!("Authorization: {BASIC}\r\n");
        }
        let session = self.session();
        match path.starts_with("/api/v1") {
            true => format!("Authorization: Bearer {session}\r\n"),
            false => format!("sessionId: {session}\r\n"),
        }
    }

    fn session(&mut self) -> String {
        if let Some(session) = &self.session {
            return session.clone();
        }
        let length = OPERATOR_LOGIN.len();
        let login = format!(
            "POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{OPERATOR_LOGIN}"
        );
        let reply: Value = serde_json::from_slice(&self.ask(login.as_bytes()).body).expect("JSON");
        let Some(id) = reply["auth"]["params"]["sessionId"].as_str() else {
            // Someone has changed the password, or removed the user.
            *self = Self::start();
            return self.session();
        };
        self.session = Some(id.to_owned());
        id.to_owned()
    }

    /// Sends a request and a second one behind it, so that it shows where the first ends; the answer
    /// to the first.
    pub(super) fn ask(&mut self, request: &[u8]) -> Answer {
        const NEXT: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut connection = self.connection.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.server.address("http")).expect("a connection");
            stream.set_read_timeout(Some(SOON)).expect("a socket");
            BufReader::new(stream)
        });
        let both = [request, NEXT].concat();
        // Who is refused is not listened to.
        let _ = connection.get_mut().write_all(&both);
        let (answer, closes) = read_answer(&mut connection);
        if !closes {
            let (next, _) = read_answer(&mut connection);
            assert_eq!((next.status, &*next.body), (200, &b"ok\n"[..]), "the next request");
            self.connection = Some(connection);
        }
        answer
    }
}

/// Reads an answer, and whether the connection closes behind it.
fn read_answer(connection: &mut BufReader<TcpStream>) -> (Answer, bool) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let count = connection.read_line(&mut head).expect("a head in time");
        assert!(count > 0, "no answer but {head:?}");
    }
    let status: u16 = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let length = header("content-length").map_or(0, |length| length.parse().expect("a length"));
    assert!(header("transfer-encoding").is_none(), "{head}");
    let mut body = vec![0; length];
    connection.read_exact(&mut body).expect("the body");
    assert_ne!(status, 500, "{head}{}", String::from_utf8_lossy(&body));
    if header("content-type").is_some_and(|kind| kind.starts_with(JSON)) && !body.is_empty() {
        let json = serde_json::from_slice::<Value>(&body);
        json.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    }
    let closes = header("connection").is_some_and(|what| what.eq_ignore_ascii_case("close"));
    (Answer { status, body }, closes)
}
