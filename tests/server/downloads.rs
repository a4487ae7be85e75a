//! Downloads: one chunk of the full size, for every kind of client.

use std::path::Path;

use serde_json::json;
use support::http::dial;
use support::{SOON, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::files::{files_below, get_id, noise, post, put_id};
use crate::outside_clients;
use crate::tls::{Tls, raw_tls};

const CHUNKED: &str = "\r\nTransfer-Encoding: chunked\r\n";

/// A server with files of the organisation, and ids to fetch them.
struct Shelf {
    server: TestServer,
    operator: client::Client,
}

impl Shelf {
    async fn with(server: TestServer, files: &[(&str, &[u8])]) -> Self {
        let mut operator = server.operator("tcp").await;
        for (name, bytes) in files {
            let id = put_id(&mut operator, json!({"fileName": name, "global": true})).await;
            assert_eq!(post(&server, &id, bytes).await.status, 200);
        }
        Self { server, operator }
    }

    async fn id(&mut self, name: &str) -> String {
        get_id(&mut self.operator, json!({"fileName": name, "global": true})).await
    }

    /// All that comes for these bytes, until the server closes.
    async fn answers(&self, requests: &str) -> Vec<u8> {
        exchange(dial(&self.server).await, requests).await
    }
}

async fn exchange(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    requests: &str,
) -> Vec<u8> {
    stream.write_all(requests.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("in time").expect("closed");
    bytes
}

fn get(id: &str) -> String {
    format!("GET /file/{id} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// The last request of a connection, and what its answer ends with.
const LAST: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const LAST_END: &[u8] = b"\r\n\r\nok\n";

/// Takes an answer off: its head, and what follows it.
fn head(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    (std::str::from_utf8(&bytes[..end]).expect("text"), &bytes[end..])
}

/// Takes a download off that is one chunk of these bytes.
fn one_chunk<'a>(answers: &'a [u8], file: &[u8]) -> &'a [u8] {
    let (head, body) = head(answers);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(CHUNKED), "{head}");
    assert!(!head.contains("Content-Length"), "{head}");
    let line = format!("{:X}\r\n", file.len());
    let body = body.strip_prefix(line.as_bytes()).expect("a chunk of all bytes");
    assert!(body[..file.len()] == *file, "the bytes of the file");
    body[file.len()..].strip_prefix(b"\r\n0\r\n\r\n").expect("the end of the chunk, and the last")
}

#[tokio::test]
async fn a_whole_file_is_one_chunk_and_the_connection_goes_on() {
    let (small, large) = (noise(70_000), noise(3_000_000));
    let files = [("small", &small[..]), ("large", &large), ("one", b"x")];
    let mut shelf = Shelf::with(TestServer::start(), &files).await;
    assert_eq!(format!("{:X}", small.len()), "11170");
    for (name, bytes) in files {
        let request = get(&shelf.id(name).await) + LAST;
        let answers = shelf.answers(&request).await;
        let rest = one_chunk(&answers, bytes);
        assert!(rest.starts_with(b"HTTP/1.1 200 OK") && rest.ends_with(LAST_END), "{name}");
    }
    // Requests that did not wait for their answers, among answers of other kinds.
    let mut requests = LAST.replace("\r\nConnection: close", "");
    for name in ["large", "small", "large", "one"] {
        requests += &get(&shelf.id(name).await);
    }
    let answers = shelf.answers(&(requests + LAST)).await;
    let rest = head(&answers).1.strip_prefix(b"ok\n").expect("health");
    let rest = one_chunk(one_chunk(rest, &large), &small);
    let rest = one_chunk(one_chunk(rest, &large), b"x");
    assert!(rest.ends_with(LAST_END));
    // One that is the last, and one with a body of its own.
    let close = get(&shelf.id("small").await).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(one_chunk(&shelf.answers(&close).await, &small), b"");
    let with_body = "\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let with_body = get(&shelf.id("small").await).replace("\r\n\r\n", with_body);
    assert_eq!(one_chunk(&shelf.answers(&with_body).await, &small), b"");
}

#[tokio::test]
async fn a_whole_file_is_one_chunk_over_tls() {
    let tls = Tls::start(false);
    let file = noise(200_000);
    let mut operator = tls.server.operator("tcp").await;
    let name = json!({"fileName": "a", "global": true});
    let id = put_id(&mut operator, name.clone()).await;
    assert_eq!(post(&tls.server, &id, &file).await.status, 200);
    let id = get_id(&mut operator, name).await;
    let stream = raw_tls(&tls, None).await.expect("a handshake");
    let answers = exchange(stream, &(get(&id) + LAST)).await;
    assert!(one_chunk(&answers, &file).ends_with(LAST_END));
}

#[tokio::test]
async fn heads_parts_old_clients_and_empty_files_have_no_such_chunk() {
    let file = noise(70_000);
    let files = [("a", &file[..]), ("empty", b"")];
    let mut shelf = Shelf::with(TestServer::start(), &files).await;
    let id = shelf.id("a").await;

    let request = get(&id).replace("GET", "HEAD") + LAST;
    let answers = shelf.answers(&request).await;
    let (first, rest) = head(&answers);
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"), "no body");

    let range = get(&id).replace("\r\n\r\n", "\r\nRange: bytes=10-19\r\n\r\n") + LAST;
    let answers = shelf.answers(&range).await;
    let (first, rest) = head(&answers);
    assert!(first.starts_with("HTTP/1.1 206 ") && first.contains(CHUNKED), "{first}");
    let chunks = [b"A\r\n", &file[10..20], b"\r\n0\r\n\r\n"].concat();
    assert!(rest.starts_with(&chunks), "{}", rest.escape_ascii());

    let old = format!("GET /file/{id} HTTP/1.0\r\nRange: bytes=69990-\r\n\r\n");
    let answers = shelf.answers(&old).await;
    let (first, rest) = head(&answers);
    assert!(first.contains("\r\nContent-Length: 10\r\n"), "{first}");
    assert!(rest == &file[69_990..], "a part, with its length");

    let old = format!("GET /file/{} HTTP/1.0\r\n\r\n", shelf.id("a").await);
    let answers = shelf.answers(&old).await;
    let (first, rest) = head(&answers);
    assert!(first.contains("\r\nContent-Length: 70000\r\n"), "{first}");
    assert!(!first.contains("chunked") && rest == file, "{first}");

    let request = get(&shelf.id("empty").await) + LAST;
    let answers = shelf.answers(&request).await;
    let (first, rest) = head(&answers);
    assert!(first.contains(CHUNKED), "{first}");
    assert!(rest.starts_with(b"0\r\n\r\nHTTP/1.1 200 OK"), "{}", rest.escape_ascii());
}

/// Cuts the only file of a server short, behind its back.
fn cut_short(data_dir: &Path, length: u64) {
    let files = files_below(&data_dir.join("files"));
    let [file] = &files[..] else { panic!("{files:?}") };
    let file = std::fs::OpenOptions::new().write(true).open(file).expect("the file");
    file.set_len(length).expect("cut");
}

#[tokio::test]
async fn a_file_that_ends_early_is_never_a_complete_answer() {
    let file = noise(300_000);
    let mut shelf = Shelf::with(TestServer::start(), &[("a", &file)]).await;
    let (new, old) = (shelf.id("a").await, shelf.id("a").await);
    cut_short(shelf.server.data_dir(), 200_000);
    let answers = shelf.answers(&(get(&new) + LAST)).await;
    let (first, rest) = head(&answers);
    assert!(first.contains(CHUNKED), "{first}");
    let rest = rest.strip_prefix(b"493E0\r\n").expect("a chunk of all bytes");
    assert!(rest.len() < 300_000 && file.starts_with(rest), "{} bytes, no end", rest.len());

    let answers = shelf.answers(&format!("GET /file/{old} HTTP/1.0\r\n\r\n")).await;
    let (first, rest) = head(&answers);
    assert!(first.contains("\r\nContent-Length: 300000\r\n"), "{first}");
    assert!(rest.len() < 300_000 && file.starts_with(rest), "{} bytes", rest.len());
}

#[tokio::test]
async fn a_reader_of_single_bytes_gets_it_all() {
    let file = noise(70_000);
    let mut shelf = Shelf::with(TestServer::start(), &[("a", &file)]).await;
    let id = shelf.id("a").await;
    let mut stream = dial(&shelf.server).await;
    stream.write_all((get(&id) + LAST).as_bytes()).await.expect("sent");
    let mut answers = Vec::new();
    while let Ok(byte) = timeout(SOON, stream.read_u8()).await.expect("in time") {
        answers.push(byte);
    }
    assert!(one_chunk(&answers, &file).ends_with(LAST_END));
}

#[tokio::test]
async fn curl_takes_whole_files_and_notices_those_that_end_early() {
    if !outside_clients::wanted() {
        return;
    }
    let file = noise(3_000_000);
    let mut shelf = Shelf::with(TestServer::start(), &[("a", &file)]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let saved = dir.path().join("saved");
    let curl = async |shelf: &mut Shelf, version: &str| {
        let id = shelf.id("a").await;
        let url = format!("http://{}/file/{id}", shelf.server.address("http"));
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", version, "-o"]).arg(&saved).arg(url);
        let ended = tokio::task::spawn_blocking(move || curl.status()).await.expect("no panic");
        ended.expect("curl").code()
    };
    for version in ["--http1.1", "--http1.0"] {
        assert_eq!(curl(&mut shelf, version).await, Some(0), "{version}");
        assert!(std::fs::read(&saved).expect("saved") == file, "{version}");
    }
    cut_short(shelf.server.data_dir(), 1_000_000);
    for version in ["--http1.1", "--http1.0"] {
        // "Partial file": the transfer was shorter than announced.
        assert_eq!(curl(&mut shelf, version).await, Some(18), "{version}");
    }
}
