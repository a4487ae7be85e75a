//! How many connections there is room for.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use client::fleet::{Fleet, Plan};
use client::{Client, ClientError};
use serde_json::json;
use support::{ServerProcess, call, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::TR50D;
use crate::files::put_id;

/// Descriptors that the server may have.
const DESCRIPTORS: usize = 200;

/// Those of them that are for connections.
const CONNECTIONS: usize = 64;

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_what_does_not_fit_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let limits = format!("ulimit -Sn 60; ulimit -Hn {DESCRIPTORS}");
    let server = limited(&dir.path().join("data"), &log, &limits);

    // Of these, nine tenths for one address.
    let room = CONNECTIONS - CONNECTIONS / 10;
    let plan = Plan::new(server.thing_url("mqtt", "x"), room);
    let mut fleet = Fleet::connect(&plan).await.expect("a plan that works");
    assert_eq!(fleet.len(), room);
    let refused = Client::connect(&server.thing_url("mqtt", "late")).await;
    assert!(matches!(refused, Err(ClientError::Refused(_))), "{:?}", refused.err());
    // What needs files goes on.
    let publish = r#"{"key":"t","value":1}"#;
    let replies = fleet.call_all("property.publish", Some(publish)).await;
    assert!(replies.iter().all(|reply| reply.as_ref().is_ok_and(|reply| reply.success())));
    fleet.close().await;
    eventually("there is room again", async || {
        Client::connect(&server.thing_url("mqtt", "late")).await.is_ok()
    })
    .await;
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("limits.connections does not fit"), "{log}");
}

#[tokio::test]
async fn no_huge_page_is_held_for_a_small_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = ServerProcess::spawn(TR50D.command(&dir.path().join("data"), &[]));
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a status");
    // A kernel that does not say has none to give.
    let line = status.lines().find(|line| line.starts_with("THP_enabled:"));
    assert!(line.is_none_or(|line| line.ends_with('0')), "{status}");
}

/// A server with limits of the shell.
fn limited(data_dir: &Path, log: &Path, limits: &str) -> ServerProcess {
    let serve = TR50D.command(data_dir, &[]);
    let mut limited = Command::new("sh");
    let script = format!("{limits}; exec \"$0\" \"$@\"");
    limited.args(["-c", &script]).arg(serve.get_program()).args(serve.get_args());
    limited.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.stderr(File::create(log).expect("a file"));
    ServerProcess::spawn(limited)
}

#[tokio::test]
async fn slow_uploads_and_strangers_leave_the_store_its_descriptors() {
    for descriptors in [300, 1024] {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let limits = format!("ulimit -n {descriptors}");
        let server = limited(&dir.path().join("data"), &log, &limits);
        let mut thing = server.thing("mqtt", "uploader").await;
        let mut uploads = Vec::new();
        for number in 0..descriptors / 4 {
            let id = put_id(&mut thing, json!({ "fileName": format!("{number}") })).await;
            let Ok(mut stream) = TcpStream::connect(server.address("http")).await else { break };
            let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1");
            let _ = stream.write_all(head.as_bytes()).await;
            uploads.push(stream);
        }
        let mut strangers = Vec::new();
        for listener in ["mqtt", "tcp", "http"].into_iter().cycle().take(2 * descriptors) {
            strangers.extend(TcpStream::connect(server.address(listener)).await);
        }
        // New tables, months and files need descriptors.
        for month in 1..=12 {
            let ts = format!("2020-{month:02}-01T00:00:00Z");
            let params = json!({ "key": "t", "value": month, "ts": ts }).to_string();
            call(&mut thing, "property.publish", &params).await;
        }
        let log = fs::read_to_string(&log).expect("a log");
        let says = |words: &str| log.contains(words);
        assert!(!says("too many open files") && !says("Too many open files"), "{log}");
        assert!(!says("the store has failed"), "{log}");
        drop((uploads, strangers));
        let mut late = None;
        eventually("there is room again", async || {
            late = Client::connect(&server.thing_url("mqtt", "late")).await.ok();
            late.is_some()
        })
        .await;
        call(&mut late.expect("connected"), "log.publish", r#"{"msg":"still here"}"#).await;
    }
}
