//! How many connections there is room for.

use std::fs::{self, File};
use std::process::Command;

use client::fleet::{Fleet, Plan};
use client::{Client, ClientError};
use support::{ServerProcess, eventually};

use crate::TR50D;

/// Descriptors that the server may have: three quarters of them are for connections.
const DESCRIPTORS: usize = 200;

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_what_does_not_fit_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let serve = TR50D.command(&dir.path().join("data"), &[]);
    let mut limited = Command::new("sh");
    let script = format!("ulimit -Sn 60; ulimit -Hn {DESCRIPTORS}; exec \"$0\" \"$@\"");
    limited.args(["-c", &script]).arg(serve.get_program()).args(serve.get_args());
    limited.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.stderr(File::create(&log).expect("a file"));
    let server = ServerProcess::spawn(limited);

    // Of these, nine tenths for one address.
    let room = DESCRIPTORS * 3 / 4 * 9 / 10;
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
