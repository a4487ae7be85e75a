//! Answers compressed for those who take it.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use support::TestServer;
use support::http::{Answer, dial, log_in, read_to_end, send};
use tokio::io::AsyncWriteExt;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const TAKES: &str = "\r\nAccept-Encoding: gzip, deflate";

fn inflated(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), Some("gzip"), "{}", answer.head);
    let mut text = Vec::new();
    GzDecoder::new(&*answer.body).read_to_end(&mut text).expect("gzip");
    text
}

fn varies(answer: &Answer) -> bool {
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    lines
        .into_iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("vary") && value.contains("Accept-Encoding"))
}

#[tokio::test]
async fn long_replies_are_compressed_for_those_who_take_it() {
    let server = TestServer::start();
    let id = log_in(&server, OPERATOR.0, OPERATOR.1).await;
    let api = async |lines: &str, text: &str| {
        let body = format!(
            r#"{{"1":{{"command":"diag.echo","params":{{"a":"{text}"}}}},"2":{{"command":"diag.ping"}}}}"#
        );
        send(&server, &format!("POST /api HTTP/1.1\r\nsessionId: {id}{lines}"), body.as_bytes())
            .await
    };
    // At once, and on another thread.
    for length in [2000, 300_000] {
        let text = "abcdefgh".repeat(length / 8);
        let plain = api("", &text).await;
        assert!(plain.header("content-encoding").is_none() && !varies(&plain), "{}", plain.head);
        let zipped = api(TAKES, &text).await;
        assert_eq!(inflated(&zipped), plain.body, "{length}");
        assert!(zipped.body.len() < plain.body.len() / 10 && varies(&zipped), "{}", zipped.head);
        let told = zipped.header("content-length").map(str::to_owned);
        assert_eq!(told, Some(zipped.body.len().to_string()));
        for lines in ["\r\nAccept-Encoding: gzip;q=0", "\r\nAccept-Encoding: br"] {
            assert_eq!(api(lines, &text).await.body, plain.body, "{lines}");
        }
    }
    let short = api(TAKES, "x").await;
    assert!(short.header("content-encoding").is_none() && !varies(&short), "{}", short.head);
    assert_eq!(short.json()["1"]["params"]["a"], "x");
}

#[tokio::test]
async fn what_shows_a_secret_is_not_compressed() {
    let server = TestServer::start();
    let login = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"username":"{}","password":"{}"}}}},
            "1":{{"command":"diag.echo","params":{{"a":"{}"}}}}}}"#,
        OPERATOR.0,
        OPERATOR.1,
        "a".repeat(5000)
    );
    let answer = send(&server, &format!("POST /api HTTP/1.1{TAKES}"), login.as_bytes()).await;
    assert_eq!(answer.header("content-encoding"), None, "{}", answer.head);
    let reply: Value = answer.json();
    assert_eq!(reply["auth"]["params"]["sessionId"].as_str().map(str::len), Some(24));
    // The id of the session in its own words.
    let id = &reply["auth"]["params"]["sessionId"];
    let info = format!(
        r#"{{"1":{{"command":"session.info"}},"2":{{"command":"diag.echo","params":{{"a":"{}"}}}}}}"#,
        "a".repeat(5000)
    );
    let head = format!("POST /api HTTP/1.1\r\nsessionId: {}{TAKES}", id.as_str().expect("an id"));
    let answer = send(&server, &head, info.as_bytes()).await;
    assert_eq!(answer.header("content-encoding"), None, "{}", answer.head);
    assert_eq!(&answer.json()["1"]["params"]["id"], id);
}

#[tokio::test]
async fn every_text_of_the_server_is_compressed_and_no_file() {
    let server = TestServer::start();
    let id = log_in(&server, OPERATOR.0, OPERATOR.1).await;
    let get = async |method: &str, path: &str, lines: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nsessionId: {id}{lines}");
        send(&server, &head, b"").await
    };
    for path in ["/openapi.json", "/metrics"] {
        let plain = get("GET", path, "").await;
        assert!(plain.body.len() > 1024 && varies(&plain), "{path}: {}", plain.head);
        let zipped = get("GET", path, TAKES).await;
        assert!(!inflated(&zipped).is_empty(), "{path}");
        if path == "/openapi.json" {
            assert_eq!(inflated(&zipped), plain.body);
            // HEAD says what GET would.
            let head = get("HEAD", path, TAKES).await;
            assert_eq!(head.header("content-encoding"), Some("gzip"), "{}", head.head);
            assert_eq!(head.header("content-length"), zipped.header("content-length"));
            assert!(head.body.is_empty());
        }
    }
    let mower = log_in(&server, "mower-1", "demo-token-basicorg").await;
    let form = format!("sessionId={mower}&fileName=f");
    let put = send(&server, "POST /rest/_/file.put HTTP/1.1", form.as_bytes()).await.json();
    let put = put["params"]["fileId"].as_str().expect("a ticket").to_owned();
    let bytes = "text ".repeat(1000);
    let head = format!("POST /file/{put} HTTP/1.1\r\nContent-Type: text/plain");
    assert_eq!(send(&server, &head, bytes.as_bytes()).await.status, 200);
    let ask = format!("sessionId={mower}&fileName=f");
    let got = send(&server, "POST /rest/_/file.get HTTP/1.1", ask.as_bytes()).await.json();
    let got = got["params"]["fileId"].as_str().expect("a ticket").to_owned();
    let file = get("GET", &format!("/file/{got}"), TAKES).await;
    assert_eq!((file.header("content-encoding"), file.text()), (None, bytes.as_str()));
}

#[tokio::test]
async fn a_connection_goes_on_behind_a_compressed_reply() {
    let server = TestServer::start();
    let request = format!("GET /openapi.json HTTP/1.1\r\nHost: x{TAKES}\r\n");
    let mut stream = dial(&server).await;
    let both = format!("{request}\r\n{request}Connection: close\r\n\r\n");
    stream.write_all(both.as_bytes()).await.expect("written");
    let bytes = read_to_end(&mut stream).await;
    let first = Answer::read(&bytes);
    let length: usize = first.header("content-length").expect("a length").parse().expect("it");
    let (one, second) = first.body.split_at(length);
    let second = Answer::read(second);
    assert_eq!(second.body, one);
    assert!(!inflated(&second).is_empty());
}
