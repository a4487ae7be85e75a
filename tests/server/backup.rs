//! `tr50d backup` and `tr50d restore`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use support::process::run;
use support::{Endpoints, TestServer, call, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::files::{files_below, get, get_id, noise, post, put_id};

/// The program with a data directory, its arguments divided by blanks.
fn tr50d(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tr50d"));
    command.env("TR50D_SERVER__DATA_DIR", data_dir).args(args);
    command
}

/// What the command prints, which has to do well.
async fn succeeds(data_dir: &Path, args: &[&str]) -> String {
    let command = tr50d(data_dir, args);
    let done = tokio::task::spawn_blocking(|| run(command)).await.expect("run");
    assert_eq!((done.0.code(), done.2.as_str()), (Some(0), ""), "{args:?}");
    done.1
}

/// What has to be refused in one sentence.
fn refused(data_dir: &Path, args: &[&str], sentence: &str) {
    let (status, out, err) = run(tr50d(data_dir, args));
    assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{args:?}");
    assert!(err.starts_with("tr50d: ") && err.lines().count() == 1, "{args:?}: {err}");
    assert!(err.contains(sentence), "{args:?}: not {sentence:?} but {err}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Stores files and registers things until it is stopped; names what was acknowledged.
async fn write(server: &Endpoints, number: usize, done: &Mutex<Vec<(String, u32)>>) {
    let mut operator = server.operator("mqtt").await;
    for count in 0.. {
        let name = format!("{number}-{count}");
        let bytes = noise(1 + 977 * (count % 50));
        let id = put_id(&mut operator, json!({"fileName": name, "global": true})).await;
        assert_eq!(post(server, &id, &bytes).await.status, 200);
        let mut thing = server.thing("tcp", &name).await;
        let point = json!({"key": "count", "value": count});
        call(&mut thing, "property.publish", &point.to_string()).await;
        thing.close().await;
        done.lock().push((name, crc32fast::hash(&bytes)));
    }
}

fn count_of(name: &str) -> usize {
    name.split('-').nth(1).expect("a number").parse().expect("a number")
}

#[tokio::test]
async fn a_backup_under_load_has_all_that_was_acknowledged_and_nothing_half() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data_dir, copy) = (dir.path().join("data"), dir.path().join("deep/copy"));
    let server = Arc::new(TestServer::in_dir(&data_dir, &[]));
    let done = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let (server, done) = (server.clone(), done.clone());
            tokio::spawn(async move { write(&server, number, &done).await })
        })
        .collect();
    eventually("something is there", async || done.lock().len() > 30).await;
    let before = done.lock().clone();
    let said = succeeds(&data_dir, &["backup", text(&copy)]).await;
    assert!(said.starts_with("backed up ") && said.ends_with("copy\n"), "{said}");
    eventually("the server goes on", async || done.lock().len() > before.len() + 3).await;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(writers);

    let restored = dir.path().join("restored");
    succeeds(&restored, &["restore", text(&copy)]).await;
    let server = TestServer::in_dir(&restored, &[]);
    let mut operator = server.operator("tcp").await;
    for (name, crc32) in &before {
        let found = call(&mut operator, "thing.find", &json!({ "key": name }).to_string()).await;
        assert_eq!(found["name"], format!("auto:{name}"));
        let property = json!({"thingKey": name, "key": "count"}).to_string();
        let value = &call(&mut operator, "property.current", &property).await["value"];
        assert_eq!(value.as_f64(), Some(count_of(name) as f64), "{name}");
        let file = json!({"fileName": name, "global": true}).to_string();
        assert_eq!(call(&mut operator, "file.get", &file).await["crc32"], *crc32);
    }
    let listed = call(&mut operator, "file.list", r#"{"global":true}"#).await;
    let listed = listed["result"].as_array().expect("files").clone();
    assert!(listed.len() >= before.len());
    for file in listed {
        let name = file["fileName"].as_str().expect("a name");
        let id = get_id(&mut operator, json!({"fileName": name, "global": true})).await;
        let bytes = noise(1 + 977 * (count_of(name) % 50));
        assert!(get(&server, &id, "").await.body == bytes, "{name}");
    }
    let things = call(&mut operator, "thing.list", r#"{"limit":1}"#).await;
    assert!(things["count"].as_u64().expect("a number") >= before.len() as u64);
}

#[tokio::test]
async fn a_backup_needs_no_server_and_leaves_the_original_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let [data_dir, copy, back] = ["data", "copy", "back"].map(|name| dir.path().join(name));
    let server = TestServer::in_dir(&data_dir, &[]);
    let mut mower = server.thing("mqtt", "mower-1").await;
    let id = put_id(&mut mower, json!({"fileName": "a", "tags": ["t"]})).await;
    assert_eq!(post(&server, &id, b"first").await.status, 200);
    server.stop().await;
    assert!(!data_dir.join("control").exists(), "a server that stops takes its socket along");
    std::fs::create_dir(&copy).expect("made");
    succeeds(&data_dir, &["backup", text(&copy)]).await;

    // What happens to the original does not reach the copy.
    let server = TestServer::in_dir(&data_dir, &[]);
    let mut mower = server.thing("mqtt", "mower-1").await;
    let id = put_id(&mut mower, json!({"fileName": "a"})).await;
    assert_eq!(post(&server, &id, b"second").await.status, 200);
    succeeds(&back, &["restore", text(&copy)]).await;
    let restored = TestServer::in_dir(&back, &[]);
    let mut operator = restored.operator("mqtt").await;
    let listed = call(&mut operator, "file.list", r#"{"thingKey":"mower-1"}"#).await;
    assert_eq!((&listed["count"], &listed["result"][0]["tags"]), (&json!(1), &json!(["t"])));
    let id = get_id(&mut operator, json!({"fileName": "a", "thingKey": "mower-1"})).await;
    assert_eq!(get(&restored, &id, "").await.body, b"first");
}

#[tokio::test]
async fn whoever_asks_wrongly_is_told_why_and_nothing_is_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let [data_dir, copy, other] = ["data", "copy", "other"].map(|name| dir.path().join(name));
    refused(&data_dir, &["backup", text(&copy)], "there is no store in ");
    assert!(!data_dir.exists() && !copy.exists());
    let server = TestServer::in_dir(&data_dir, &[]);
    refused(&data_dir, &["backup", text(&data_dir.join("copy"))], "is inside the data directory");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("note"), "mine").expect("written");
    refused(&data_dir, &["backup", text(&other)], "is not an empty directory");
    refused(&data_dir, &["backup", "/dev/null/x"], "can't make /dev/null/x");
    succeeds(&data_dir, &["backup", text(&copy)]).await;

    let back = dir.path().join("back");
    refused(&back, &["restore", text(&other)], "there is no backup in ");
    refused(&back, &["restore", text(&dir.path().join("nowhere"))], "there is no backup in ");
    refused(&other, &["restore", text(&copy)], "is not an empty directory");
    refused(&data_dir, &["restore", text(&copy)], "is not an empty directory");
    assert_eq!(files_below(&other), [other.join("note")]);
    drop(server);

    let manifest = copy.join("backup.json");
    let good = std::fs::read_to_string(&manifest).expect("read");
    let with = |member: &str, value: Value| {
        let mut changed: Value = serde_json::from_str(&good).expect("JSON");
        changed[member] = value;
        std::fs::write(&manifest, changed.to_string()).expect("written");
    };
    with("schema", json!(1));
    refused(&back, &["restore", text(&copy)], "has schema version 1, this program restores");
    with("schema", json!(99));
    refused(&back, &["restore", text(&copy)], "has schema version 99, this program knows");
    with("format", json!(2));
    refused(&back, &["restore", text(&copy)], "has format 2");
    with("rows", json!(7));
    refused(&back, &["restore", text(&copy)], "the backup is damaged: it has ");
    std::fs::write(&manifest, "{").expect("written");
    refused(&back, &["restore", text(&copy)], "the backup is damaged: ");
    std::fs::write(&manifest, good).expect("written");
    std::fs::write(copy.join("INCOMPLETE"), "").expect("written");
    refused(&back, &["restore", text(&copy)], "was not completed");
    assert!(!back.exists(), "nothing half stays");
    std::fs::remove_file(copy.join("INCOMPLETE")).expect("there");
    succeeds(&back, &["restore", text(&copy)]).await;
    std::fs::write(back.join("RESTORE_INCOMPLETE"), "").expect("written");
    refused(&back, &["serve", "--demo"], "was not completely restored");
}

#[tokio::test]
async fn a_long_path_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("long".repeat(40)).join("data");
    let _server = TestServer::in_dir(&data_dir, &[]);
    let socket = data_dir.join("control").metadata().expect("a socket");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
    let copy = dir.path().join("copy");
    succeeds(&data_dir, &["backup", text(&copy)]).await;
    assert!(copy.join("backup.json").exists());
}

#[tokio::test]
async fn the_control_socket_explains_what_it_does_not_know_and_drops_what_nobody_waits_for() {
    let server = TestServer::start();
    let socket = server.data_dir().join("control");
    let answer = async |order: &str| {
        let mut stream = UnixStream::connect(&socket).await.expect("a connection");
        stream.write_all(order.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    for order in ["hello\n", "{\"dance\":1}\n", "\n", "[]\n"] {
        let said = answer(order).await;
        assert!(said.starts_with(r#"{"failed":"the server does not know this order: "#), "{said}");
    }
    for (to, why) in [("", "does not begin with /"), ("copy", "does not begin with /")] {
        let said = answer(&format!("{}\n", json!({ "backup": to }))).await;
        assert!(said.contains(why), "{said}");
    }
    for to in ["copy", "store/copy", "files"] {
        let to = server.data_dir().join(to);
        let said = answer(&format!("{}\n", json!({ "backup": to }))).await;
        assert!(said.contains("is inside the data directory"), "{said}");
    }
    assert!(!Path::new("store").exists() && !server.data_dir().join("copy").exists());
    // Whether it is done before the one who asked has gone is open; half of it never stays.
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..5 {
        let copy = dir.path().join(round.to_string());
        let mut stream = UnixStream::connect(&socket).await.expect("a connection");
        let order = json!({ "backup": copy }).to_string();
        stream.write_all(format!("{order}\n").as_bytes()).await.expect("written");
        drop(stream);
        let another = dir.path().join(format!("{round}-later"));
        eventually("there is a turn again", async || {
            let said = answer(&format!("{}\n", json!({ "backup": another }))).await;
            said.starts_with(r#"{"done":"#)
        })
        .await;
        assert_eq!(copy.exists(), copy.join("backup.json").exists());
        assert!(!copy.join("INCOMPLETE").exists());
    }
}
