//! Clients at the wrong listener, and topics that are nearly right: what the log says.

use std::path::{Path, PathBuf};

use ::mqtt::Version;
use support::mqtt::Connect;
use support::{Endpoints, SOON, ServerProcess, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TR50D;

const MQTT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd";
const TLS: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
const POST: &[u8] = b"POST /api HTTP/1.1\r\n";
const JSON: &[u8] = b"{\"auth\":";
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";

/// A server that writes its log to a file.
struct Logging {
    server: ServerProcess,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Logging {
    fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let server = TR50D.serve_logging(&log, settings);
        Self { server, log, _dir: dir }
    }

    async fn expect_line(&self, parts: &[&str]) {
        let has = |log: &Path| {
            let text = std::fs::read_to_string(log).expect("the log");
            text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
        };
        eventually(&format!("{parts:?} in the log"), async || has(&self.log)).await;
    }

    /// Lines with this part, those aside on the sessions themselves.
    fn lines_with(&self, part: &str) -> usize {
        let text = std::fs::read_to_string(&self.log).expect("the log");
        let is_of_session = |line: &str| line.contains(": a session ");
        text.lines().filter(|line| line.contains(part) && !is_of_session(line)).count()
    }
}

/// What a listener answers before it closes; the client waits and sends nothing more.
async fn answered(server: &Endpoints, listener: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address(listener)).await.expect("a connection");
    stream.set_nodelay(true).expect("set");
    for piece in pieces {
        stream.write_all(piece).await.expect("sent");
    }
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed by itself");
    answer
}

#[tokio::test]
async fn who_comes_to_the_wrong_listener_is_told_or_closed_and_the_log_says_what_came() {
    let logging = Logging::start(&[]);
    let server = &logging.server;
    for (bytes, met) in
        [(POST, "HTTP"), (TLS, "TLS"), (JSON, "JSON"), (PROXY, "the PROXY protocol")]
    {
        let answer = answered(server, "mqtt", &[bytes]).await;
        assert_eq!(answer.escape_ascii().to_string(), "", "{met}");
        logging.expect_line(&["listener=\"mqtt\"", &format!("met=\"{met}\"")]).await;
    }
    for (bytes, met) in
        [(POST, "HTTP"), (TLS, "TLS"), (MQTT, "MQTT"), (PROXY, "the PROXY protocol")]
    {
        let answer = answered(server, "tcp", &[bytes]).await;
        let text = String::from_utf8(answer).expect("text");
        let told = text.starts_with("{\"success\":false,\"errorCodes\":[-95001],")
            && text.ends_with("}\n");
        assert!(told && text.contains(&format!("what came is {met}: ")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        logging.expect_line(&["listener=\"tcp\"", &format!("met=\"{met}\"")]).await;
    }
    for (bytes, met) in [(TLS, "TLS"), (MQTT, "MQTT"), (JSON, "JSON")] {
        let answer = answered(server, "http", &[bytes]).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{met}: {}", answer.escape_ascii());
        logging.expect_line(&["listener=\"http\"", &format!("met=\"{met}\"")]).await;
    }
    // What is no CONNECT is no packet to wait for, even if it could become one.
    for bytes in [&b"\xc0"[..], b"P", b"\x30\x7f", b"\x40\x02"] {
        assert_eq!(answered(server, "mqtt", &[bytes]).await, b"");
    }
    assert_eq!(answered(server, "tcp", &[b" \r\n", b"GET / HTTP/1.1\r\n"]).await[..2], *b"{\"");
    for listener in ["mqtt", "tcp", "http"] {
        server.thing(listener, "right").await;
    }
}

#[tokio::test]
async fn who_comes_without_tls_to_a_listener_with_it_is_closed_and_the_log_says_what_came() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let cert = write("cert.pem", own.cert.pem());
    let key = write("key.pem", own.signing_key.serialize_pem());
    let logging = Logging::start(&[
        ("TR50D_TLS__CERT", &cert),
        ("TR50D_TLS__KEY", &key),
        ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
        ("TR50D_TCP__TLS_LISTEN", "127.0.0.1:0"),
        ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
    ]);
    for listener in ["mqtts", "tcps", "https"] {
        for (bytes, met) in [(POST, "HTTP"), (&MQTT[..1], "MQTT"), (&JSON[..1], "JSON")] {
            answered(&logging.server, listener, &[bytes]).await;
            let (listener, met) = (format!("listener=\"{listener}\""), format!("met=\"{met}\""));
            logging.expect_line(&[&listener, &met]).await;
        }
    }
}

#[tokio::test]
async fn a_slip_in_a_topic_is_logged_once_a_session() {
    let logging = Logging::start(&[]);
    let ask = r#"{"1":{"command":"diag.ping"}}"#;
    let slips = [
        ("ap/1", "api/1"),
        ("API/1", "api/1"),
        ("/api/1", "api/1"),
        ("thing/self/propertie/t", "thing/self/property/t"),
        ("thing/self/nothing/t", "thing/<key>/property/<name>"),
    ];
    for (number, (topic, meant)) in slips.into_iter().enumerate() {
        let key = format!("slip-{number}");
        let mut thing = Connect::thing(Version::V311, &key).open(&logging.server).await;
        for _ in 0..3 {
            thing.tell(topic, ask).await;
        }
        thing.tell("app/1", ask).await;
        thing.expect_quiet().await;
        let topic = format!("topic=\"{topic}\"");
        logging.expect_line(&[&format!("who=\"{key}\""), &topic, meant]).await;
        assert_eq!(logging.lines_with(&format!("who=\"{key}\"")), 1, "{key}");
    }
    let mut thing = Connect::thing(Version::V5, "reader").open(&logging.server).await;
    thing.subscribe("repl/#", 0).await;
    logging.expect_line(&["who=\"reader\"", "reply/#", "subscribed to"]).await;
    let mut thing = Connect::thing(Version::V5, "quiet").open(&logging.server).await;
    for topic in ["sensors/1", "app/1", "thing/self/property/t"] {
        thing.tell(topic, "1").await;
    }
    thing.subscribe("reply/#", 0).await;
    thing.subscribe("thing/self/location", 0).await;
    thing.subscribe("thing/+/property/#", 0).await;
    assert_eq!(logging.lines_with("who=\"quiet\""), 0);
}
