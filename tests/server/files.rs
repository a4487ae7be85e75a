//! Files: `/file/<id>` through raw sockets, as devices with habits of their own use it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use client::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::http::{Answer, dial, read_to_end};
use support::{Endpoints, SOON, Signal, TestServer, call, connect, eventually, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TR50D;

/// Bytes that do not repeat soon.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Sends a request and reads until the server closes.
async fn send(server: &Endpoints, head: &str, body: &[u8]) -> Answer {
    let mut stream = dial(server).await;
    stream
        .write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    // Who is refused may not get rid of it all.
    let _ = stream.write_all(body).await;
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> Answer {
    Answer::read(&read_to_end(stream).await)
}

pub(crate) async fn get(server: &Endpoints, id: &str, headers: &str) -> Answer {
    send(server, &format!("GET /file/{id} HTTP/1.1\r\nHost: x{headers}"), b"").await
}

pub(crate) async fn post(server: &Endpoints, id: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}");
    send(server, &head, body).await
}

/// The id for an upload.
pub(crate) async fn put_id(client: &mut Client, params: Value) -> String {
    let params = call(client, "file.put", &params.to_string()).await;
    params["fileId"].as_str().expect("an id").to_owned()
}

/// The id for a download.
pub(crate) async fn get_id(client: &mut Client, params: Value) -> String {
    let params = call(client, "file.get", &params.to_string()).await;
    params["fileId"].as_str().expect("an id").to_owned()
}

/// Stores a file of the client's own thing.
async fn store(server: &Endpoints, client: &mut Client, name: &str, bytes: &[u8]) {
    let id = put_id(client, json!({ "fileName": name })).await;
    let answer = post(server, &id, bytes).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
}

/// The files below a directory, the empty directories not counted.
pub(crate) fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_file_goes_there_and_back_chunked_and_counted() {
    let server = TestServer::start();
    let mut mower = server.thing("mqtt", "mower-1").await;
    let bytes = noise(700_000);

    // libtr50's way: chunks, and port 80 in the header.
    let id = put_id(&mut mower, json!({"fileName": "a", "calculateSha256": true})).await;
    let mut body = Vec::new();
    for chunk in bytes.chunks(33_333) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x:80\r\nTransfer-Encoding: chunked");
    let answer = send(&server, &head, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    // The one length that is the same in hexadecimal.
    assert!(answer.head.contains("\r\nContent-Length: 0"), "{}", answer.head);

    let offer = call(&mut mower, "file.get", r#"{"fileName":"a"}"#).await;
    assert_eq!(offer["fileSize"], bytes.len());
    assert_eq!(offer["crc32"], crc32fast::hash(&bytes));
    assert_eq!(offer["sha256"].as_str().map(str::len), Some(64));
    let id = offer["fileId"].as_str().expect("an id");
    let head = send(&server, &format!("HEAD /file/{id} HTTP/1.1\r\nHost: x"), b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0), "and does not count");
    let answer = get(&server, id, "").await;
    assert!(answer.status == 200 && answer.body == bytes, "{}", answer.head);
    assert!(answer.head.contains("\r\nTransfer-Encoding: chunked"), "{}", answer.head);
    assert!(!answer.head.contains("Content-Length"), "{}", answer.head);
    assert_eq!(get(&server, id, "").await.status, 404);

    // HTTP/1.0 knows no chunks: there is a length.
    let id = get_id(&mut mower, json!({"fileName": "a"})).await;
    let answer = send(&server, &format!("GET /file/{id} HTTP/1.0"), b"").await;
    assert!(answer.status == 200 && answer.body == bytes, "{}", answer.head);
    assert_eq!(get(&server, &id, "").await.status, 404);

    // An empty file is one, too; and a PUT is as good.
    let id = put_id(&mut mower, json!({"fileName": "empty", "crc32": "0"})).await;
    let head = format!("PUT /file/{id}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0");
    assert_eq!(send(&server, &head, b"").await.status, 200);
    let id = get_id(&mut mower, json!({"fileName": "empty"})).await;
    let answer = get(&server, &id, "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn a_broken_download_is_resumed_with_the_same_id() {
    let server = TestServer::start();
    let mut mower = server.thing("tcp", "mower-1").await;
    let bytes = noise(20_000_000);
    store(&server, &mut mower, "big", &bytes).await;
    let id = get_id(&mut mower, json!({"fileName": "big"})).await;
    let mut broken = dial(&server).await;
    broken
        .write_all(format!("GET /file/{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    let mut start = vec![0; 100_000];
    broken.read_exact(&mut start).await.expect("the beginning");
    drop(broken);
    let part = get(&server, &id, "\r\nRange: bytes=100-199").await;
    assert_eq!(part.status, 206);
    assert_eq!(part.body, &bytes[100..200]);
    let answer = get(&server, &id, "\r\nRange: bytes=12345678-").await;
    assert_eq!(answer.status, 206);
    let range = "\r\nContent-Range: bytes 12345678-19999999/20000000\r\n";
    assert!(answer.head.contains(range), "{}", answer.head);
    assert!(answer.head.contains("\r\nTransfer-Encoding: chunked"), "{}", answer.head);
    assert_eq!(answer.body, &bytes[12_345_678..]);
    assert_eq!(get(&server, &id, "").await.status, 404, "used up by its last byte");

    let id = get_id(&mut mower, json!({"fileName": "big"})).await;
    let behind = get(&server, &id, "\r\nRange: bytes=20000000-").await;
    assert_eq!(behind.status, 416);
    assert!(behind.head.contains("\r\nContent-Range: bytes */20000000"), "{}", behind.head);
    assert_eq!(get(&server, &id, "\r\nRange: bytes=0-1,4-5").await.status, 200, "as without");
}

#[tokio::test]
async fn an_upload_that_breaks_leaves_nothing_and_may_be_tried_again() {
    let server = TestServer::with(&[("TR50D_FILES__MAX_BYTES", "1000000")]);
    let mut mower = server.thing("mqtt", "mower-1").await;
    store(&server, &mut mower, "a", b"old").await;
    let bytes = noise(900_000);
    let crc32 = crc32fast::hash(&bytes);
    let id = put_id(&mut mower, json!({"fileName": "a", "crc32": crc32})).await;
    let incoming = server.data_dir().join("files/incoming");

    let mut broken = dial(&server).await;
    let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n");
    broken.write_all(head.as_bytes()).await.expect("sent");
    broken.write_all(&bytes[..600_000]).await.expect("sent");
    eventually("something arrives", async || {
        let sizes = files_below(&incoming).into_iter().map(|path| path.metadata().map(|m| m.len()));
        sizes.flatten().sum::<u64>() > 0
    })
    .await;
    drop(broken);
    eventually("it goes again", async || files_below(&incoming).is_empty()).await;

    let mut wrong = bytes.clone();
    wrong[450_000] ^= 1;
    let answer = post(&server, &id, &wrong).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let large = noise(1_000_001);
    assert_eq!(post(&server, &id, &large).await.status, 413);
    let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked");
    let chunk = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(send(&server, &head, &chunk).await.status, 413);
    let old = get_id(&mut mower, json!({"fileName": "a"})).await;
    assert_eq!(get(&server, &old, "").await.body, b"old");

    assert_eq!(post(&server, &id, &bytes).await.status, 200);
    assert_eq!(post(&server, &id, &bytes).await.status, 404);
    let new = get_id(&mut mower, json!({"fileName": "a"})).await;
    assert_eq!(get(&server, &new, "").await.body, bytes);
    eventually("nothing is left", async || files_below(&incoming).is_empty()).await;
    let data = server.data_dir().join("files");
    // The old bytes stay for those who hold a ticket that may fetch a lost rest.
    eventually("only the new bytes", async || files_below(&data).len() <= 2).await;
}

#[tokio::test]
async fn a_download_goes_on_while_its_file_is_replaced_and_deleted() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let global = json!({"fileName": "big", "global": true});
    let bytes = noise(20_000_000);
    let id = put_id(&mut operator, global.clone()).await;
    assert_eq!(post(&server, &id, &bytes).await.status, 200);
    let id = get_id(&mut operator, global.clone()).await;
    let later = get_id(&mut operator, global.clone()).await;
    let mut download = dial(&server).await;
    let head = format!("GET /file/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    download.write_all(head.as_bytes()).await.expect("sent");
    let mut all = vec![0; 1000];
    download.read_exact(&mut all).await.expect("the beginning");

    let id = put_id(&mut operator, global.clone()).await;
    assert_eq!(post(&server, &id, b"new").await.status, 200);
    call(&mut operator, "file.delete", &global.to_string()).await;
    let gone = reply(&mut operator, "file.get", &global.to_string()).await;
    assert_eq!(gone["errorMessages"][0], "File big not found");
    let files = server.data_dir().join("files");
    eventually("the bytes without a ticket go", async || files_below(&files).len() == 1).await;
    timeout(SOON, download.read_to_end(&mut all)).await.expect("in time").expect("read");
    assert!(Answer::read(&all).body == bytes);
    assert!(get(&server, &later, "").await.body == bytes, "what was offered is kept for a while");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_will_be_taken() {
    let server = TestServer::with(&[("TR50D_FILES__MAX_BYTES", "10")]);
    let mut mower = server.thing("mqtt", "mower-1").await;
    let id = put_id(&mut mower, json!({"fileName": "a"})).await;
    let head = |length: usize, id: &str| {
        format!(
            "POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let ask = async |head: String| {
        let mut stream = dial(&server).await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    };
    assert_eq!(rest(&mut ask(head(11, &id)).await).await.status, 413);
    assert_eq!(rest(&mut ask(head(3, &"0".repeat(24))).await).await.status, 404);
    let mut stream = ask(head(3, &id)).await;
    let mut go_on = [0; 25];
    timeout(SOON, stream.read_exact(&mut go_on)).await.expect("in time").expect("read");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.expect("sent");
    assert_eq!(rest(&mut stream).await.status, 200);
}

#[tokio::test]
async fn an_id_is_for_one_way_and_one_form() {
    let server = TestServer::start();
    let mut mower = server.thing("mqtt", "mower-1").await;
    let id = put_id(&mut mower, json!({"fileName": "../../etc/passwd"})).await;
    let check = async |request: &str, status: u16, allowed: &str| {
        let answer = send(&server, &format!("{request} HTTP/1.1\r\nHost: x"), b"").await;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.head.contains(allowed), "{request}: {}", answer.head);
    };
    check(&format!("GET /file/{id}"), 405, "\r\nAllow: POST, PUT").await;
    check(&format!("DELETE /file/{id}"), 405, "\r\nAllow: GET, HEAD, POST, PUT").await;
    for unknown in ["", "x", "../data", &"0".repeat(24), &id[..23], &format!("{id}0")] {
        check(&format!("GET /file/{unknown}"), 404, "application/json").await;
    }
    assert_eq!(post(&server, &id, b"mine").await.status, 200);
    let below = files_below(&server.data_dir().join("files"));
    let name = below[0].file_name().and_then(|name| name.to_str()).expect("text");
    assert_eq!((below.len(), name.len()), (1, 24), "no name of a client's is a path");
    // Things see their own files, and those of their organisation only by name.
    let mut other = server.thing("mqtt", "mower-2").await;
    let own = json!({"fileName": "../../etc/passwd"}).to_string();
    assert_eq!(reply(&mut other, "file.get", &own).await["errorCodes"][0], -90008);
    let mut york = connect(&server.url("mqtt", "mower-1", "demo-token-yorkorg")).await;
    assert_eq!(reply(&mut york, "file.get", &own).await["errorCodes"][0], -90008);
}

#[tokio::test]
async fn files_and_their_ends_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    for durability in ["os", "disk"] {
        let settings = [("TR50D_SERVER__DURABILITY", durability)];
        let mut server = TR50D.serve(&data_dir, &settings);
        let mut mower = server.thing("mqtt", "mower-1").await;
        store(&server, &mut mower, "kept", durability.as_bytes()).await;
        let id = put_id(&mut mower, json!({"fileName": "short", "ttl": "1"})).await;
        assert_eq!(post(&server, &id, b"x").await.status, 200);
        let unused = put_id(&mut mower, json!({"fileName": "unused"})).await;
        server.end(Signal::KILL).await;

        // What an upload left behind, what lost its record, and what is not ours.
        let files = data_dir.join("files");
        std::fs::write(files.join("incoming/00000000000000000000000a"), "part").expect("written");
        std::fs::create_dir_all(files.join("00")).expect("made");
        std::fs::write(files.join("00/00000000000000000000000b"), "orphan").expect("written");
        std::fs::write(files.join("00/note"), "of the operator").expect("written");
        let server = TestServer::in_dir(&data_dir, &settings);
        let mut mower = server.thing("mqtt", "mower-1").await;
        let id = get_id(&mut mower, json!({"fileName": "kept"})).await;
        assert_eq!(get(&server, &id, "").await.body, durability.as_bytes());
        assert_eq!(post(&server, &unused, b"x").await.status, 404);
        let mut operator = server.operator("mqtt").await;
        eventually("the short one ends", async || {
            let listed = call(&mut operator, "file.list", r#"{"thingKey":"mower-1"}"#).await;
            listed["count"] == 1
        })
        .await;
        eventually("its bytes go", async || files_below(&files).len() == 2).await;
        std::fs::remove_file(files.join("00/note")).expect("there");
    }
}

#[tokio::test]
async fn a_file_can_have_a_password_and_its_end_can_be_logged() {
    let server = TestServer::start();
    let mut mower = server.thing("mqtt", "mower-1").await;
    let auth = json!({"username": "Aladdin", "password": "open sesame"});
    let announced = json!({"fileName": "a", "basicAuth": auth, "logComplete": true});
    let id = put_id(&mut mower, announced).await;
    assert_eq!(post(&server, &id, b"secret").await.status, 200);
    let mut operator = server.operator("tcp").await;
    eventually("it is logged", async || {
        let logged = call(&mut operator, "log.list", r#"{"thingKey":"mower-1"}"#).await;
        logged["result"][0]["msg"] == "File a was uploaded."
    })
    .await;

    let id = get_id(&mut mower, json!({"fileName": "a"})).await;
    for wrong in ["", "\r\nAuthorization: Basic eDp5", "\r\nAuthorization: Bearer x"] {
        let refused = get(&server, &id, wrong).await;
        assert_eq!(refused.status, 401);
        assert!(refused.head.contains("\r\nWww-Authenticate: Basic realm="), "{}", refused.head);
    }
    // The example of RFC 7617.
    let right = "\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert_eq!(get(&server, &id, right).await.body, b"secret");
    let half = json!({"fileName": "b", "basicAuth": {"username": "x"}});
    let id = put_id(&mut mower, half).await;
    assert_eq!(post(&server, &id, b"open").await.status, 200);
    let id = get_id(&mut mower, json!({"fileName": "b"})).await;
    assert_eq!(get(&server, &id, "").await.body, b"open");
}

#[tokio::test]
async fn a_thing_takes_its_files_along() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut mower = server.thing("mqtt", "mower-1").await;
    for name in ["a", "b"] {
        store(&server, &mut mower, name, b"mine").await;
    }
    let open = put_id(&mut mower, json!({"fileName": "c"})).await;
    mower.close().await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-1"}"#).await;
    assert_eq!(post(&server, &open, b"too late").await.status, 404);
    let files = server.data_dir().join("files");
    eventually("the bytes go", async || files_below(&files).is_empty()).await;
    let mut again = server.thing("mqtt", "mower-1").await;
    assert_eq!(reply(&mut again, "file.get", r#"{"fileName":"a"}"#).await["errorCodes"][0], -90008);
}

#[tokio::test]
async fn a_restricted_token_reads_the_organisations_files_and_changes_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
    let demo = std::fs::read_to_string(demo).expect("the demo's file");
    let restricted = "auto_register = true\nrestrict_access_to_self = true";
    let bootstrap = dir.path().join("bootstrap.toml");
    let restricted = demo.replacen("auto_register = true", restricted, 1);
    std::fs::write(&bootstrap, restricted).expect("written");
    let bootstrap = bootstrap.to_str().expect("text");
    let server = TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", bootstrap)]);
    let mut operator = server.operator("tcp").await;
    let mut other = server.thing("mqtt", "mower-2").await;
    store(&server, &mut other, "a", b"of another").await;
    let firmware = json!({"fileName": "firmware", "global": true});
    let id = put_id(&mut operator, firmware.clone()).await;
    assert_eq!(post(&server, &id, b"new").await.status, 200);

    let mut mower = server.thing("mqtt", "mower-1").await;
    let id = get_id(&mut mower, firmware.clone()).await;
    assert_eq!(get(&server, &id, "").await.body, b"new");
    let refused = reply(&mut mower, "file.put", &firmware.to_string()).await;
    assert_eq!(refused["errorCodes"][0], -95006);
    let others = r#"{"fileName":"a","thingKey":"mower-2"}"#;
    assert_eq!(reply(&mut mower, "file.get", others).await["errorCodes"][0], -95006);
    assert_eq!(reply(&mut mower, "file.put", others).await["errorCodes"][0], -95006);
}

/// Stores files, over and over the same few names; what was acknowledged is noted before and after:
/// a name may have what was sent last as well.
async fn keep_storing(server: &Endpoints, number: usize, sent: &Mutex<BTreeMap<String, Sent>>) {
    let mut mower = server.thing("mqtt", &format!("mower-{number}")).await;
    for count in 0_usize.. {
        let name = format!("{number}-{}", count % 5);
        let bytes = noise(1 + count * 7919 % 300_000);
        let id = put_id(&mut mower, json!({"fileName": name})).await;
        let crc32 = crc32fast::hash(&bytes);
        sent.lock().entry(name.clone()).or_default().maybe.push(crc32);
        assert_eq!(post(server, &id, &bytes).await.status, 200);
        sent.lock().insert(name, Sent { maybe: vec![crc32], sure: true });
    }
}

#[derive(Default, Clone)]
struct Sent {
    /// The checksums that the file may have.
    maybe: Vec<u32>,
    /// Whether it has to be there.
    sure: bool,
}

#[tokio::test]
async fn what_was_acknowledged_is_whole_after_every_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let sent = Arc::new(Mutex::new(BTreeMap::<String, Sent>::new()));
    for round in 1..=8_usize {
        let server = Arc::new(TR50D.serve(&data_dir, &[]));
        let mut operator = server.operator("tcp").await;
        let mut count = 0;
        for number in 0..3 {
            let params = json!({"thingKey": format!("mower-{number}")}).to_string();
            let listed = reply(&mut operator, "file.list", &params).await;
            count += listed["params"]["count"].as_u64().unwrap_or(0);
        }
        let whole = files_below(&data_dir.join("files"));
        assert_eq!(whole.len() as u64, count, "round {round}: no bytes without a record");
        let before = sent.lock().clone();
        for (name, Sent { maybe, sure }) in before {
            let key = format!("mower-{}", &name[..1]);
            let file = json!({"thingKey": key, "fileName": name});
            let offer = reply(&mut operator, "file.get", &file.to_string()).await;
            if !sure && offer["success"] == false {
                continue;
            }
            let crc32 = offer["params"]["crc32"].as_u64().expect("a number") as u32;
            assert!(maybe.contains(&crc32), "round {round}, {name}: {offer}");
            let id = offer["params"]["fileId"].as_str().expect("an id");
            let bytes = get(&server, id, "").await.body;
            assert_eq!(crc32fast::hash(&bytes), crc32, "round {round}, {name}");
            sent.lock().insert(name, Sent { maybe: vec![crc32], sure: true });
        }
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (server, sent) = (server.clone(), sent.clone());
                tokio::spawn(async move { keep_storing(&server, number, &sent).await })
            })
            .collect();
        // A moment that no clock picks: when so many bytes of some upload are on the disk.
        let incoming = data_dir.join("files/incoming");
        eventually("an upload is under way", async || {
            std::fs::read_dir(&incoming).expect("a directory").count() > 0
                && sent.lock().len() >= round.min(10)
        })
        .await;
        server.signal(Signal::KILL);
        for writer in writers {
            assert!(writer.await.is_err(), "no server, no answer");
        }
    }
    assert!(sent.lock().values().any(|sent| sent.sure));
}
