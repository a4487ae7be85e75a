//! Two servers in one process, which share nothing that a client could notice.

use client::Version::V311;
use serde_json::json;
use support::http::{log_in, metrics, post};
use support::mqtt::Connect;
use support::{Endpoints, TOKEN, TestServer, call};

/// The value of a row of the metrics, which is not there before its first event.
async fn count(server: &Endpoints, row: &str) -> u64 {
    let page = metrics(server).await;
    let value = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn each_counts_what_it_did_itself() {
    let servers = [TestServer::start(), TestServer::start()];
    let mut thing = servers[0].thing("mqtt", "mower-1").await;
    for _ in 0..7 {
        call(&mut thing, "diag.ping", "").await;
    }
    for (row, counts) in [
        (r#"tr50d_commands_total{command="diag.ping",outcome="success"}"#, [7, 0]),
        (r#"tr50d_sessions{kind="application"}"#, [1, 0]),
    ] {
        for (server, expected) in servers.iter().zip(counts) {
            assert_eq!(count(server, row).await, expected, "{row}");
        }
    }
}

#[tokio::test]
async fn each_has_its_own_sessions_things_and_topics() {
    let servers = [TestServer::start(), TestServer::start()];
    let id = log_in(&servers[0], "mower-1", TOKEN).await;
    let ping = json!({ "auth": { "sessionId": id }, "p": { "command": "diag.ping" } }).to_string();
    assert_eq!(post(&servers[0], &ping).await, r#"{"p":{"success":true}}"#);
    assert!(post(&servers[1], &ping).await.contains("[-90000]"));
    let mut readers = Vec::new();
    for (server, count) in servers.iter().zip([1, 0]) {
        let things = call(&mut server.operator("tcp").await, "thing.list", "").await;
        assert_eq!(things["count"], count);
        let mut reader = Connect::thing(V311, "reader").open(server).await;
        assert_eq!(reader.subscribe("ordinary/#", 0).await, 0);
        readers.push(reader);
    }
    let mut writer = Connect::thing(V311, "writer").open(&servers[1]).await;
    writer.tell("ordinary/topic", "1").await;
    assert_eq!(readers[1].message().await.texts(), ("ordinary/topic", "1"));
    readers[0].expect_quiet().await;
}
