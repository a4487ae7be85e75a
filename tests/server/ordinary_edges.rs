//! Ordinary MQTT where two things meet: a full window, a refusal, another organisation.

use client::Version::V5;
use support::mqtt::{Connect, Wire, frame, text};
use support::{Endpoints, ServerProcess, Signal, TestServer};

use crate::TR50D;

async fn thing(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V5, key).open(server).await
}

async fn kept(server: &Endpoints, key: &str) -> Wire {
    Connect::thing(V5, key).resuming().open(server).await
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
fn ack(first: u8, pkid: u16) -> [u8; 4] {
    let [high, low] = pkid.to_be_bytes();
    [first, 2, high, low]
}

#[tokio::test]
async fn a_full_window_beside_retained_messages_stalls_nobody() {
    let server = TestServer::start();
    let mut writer = thing(&server, "writer").await;
    // So many that looking through them takes a while.
    let all: Vec<_> =
        (0..5000).flat_map(|n| writer.publish(1, 0, &format!("r/{n}/a"), "x")).collect();
    writer.send(&all).await;
    writer.retain("r/b/b", "x").await;
    let mut readers = Vec::new();
    for number in 0..8 {
        let client = Connect::thing(V5, &format!("reader-{number}")).properties(&[0x21, 0, 1]);
        let mut reader = client.open(&server).await;
        assert_eq!(reader.subscribe("x", 1).await, 1);
        readers.push(reader);
    }
    writer.tell("x", "").await;
    let mut last = 0;
    for _ in 0..20 {
        for reader in &mut readers {
            last = reader.unacknowledged().await.pkid;
            assert_eq!(reader.subscribe("r/+/c", 1).await, 1);
        }
        // It waits for the window of each, which looks through what is retained, or waits for that.
        writer.tell("x", "").await;
        for reader in &mut readers {
            reader.expect_quiet().await;
            reader.acknowledge(last).await;
        }
    }
}

#[tokio::test]
async fn the_id_of_a_refused_message_is_free_for_another() {
    let server = TestServer::start();
    let mut client = kept(&server, "client").await;
    assert_eq!(client.subscribe("a", 0).await, 0);
    // Too long to be retained.
    let topic = "t".repeat(65_510);
    client.send(&client.publish(0x05, 5, &topic, "x")).await;
    client.expect(&[0x50, 3, 0, 5, 0x97]).await;
    drop(client);
    let mut client = kept(&server, "client").await;
    assert!(client.present());
    client.send(&client.publish(0x04, 5, "a", "taken")).await;
    let mut came = [client.frame().await, client.frame().await].map(|frame| frame.expect("two"));
    came.sort();
    assert_eq!(came[0], frame(0x30, &[&text("a"), b"\0", b"taken"]));
    assert_eq!(came[1], ack(0x50, 5));
}

#[tokio::test]
async fn what_is_in_flight_in_one_organisation_is_not_acknowledged_in_the_next() {
    let server = TestServer::start();
    let admin = Connect::login(V5, "a", "admin@devicewise.com", "demo-admin-password").resuming();
    let mut wire = admin.open(&server).await;
    assert_eq!(wire.subscribe("reply/1", 0).await, 0);
    assert_eq!(wire.subscribe("here", 1).await, 1);
    wire.send(&wire.publish(0x02, 1, "here", "first")).await;
    let mut first = 0;
    for _ in 0..2 {
        let frame = wire.frame().await.expect("a packet");
        if frame[0] & 0xf0 == 0x30 {
            first = u16::from_be_bytes([frame[8], frame[9]]);
        }
    }
    assert_ne!(first, 0);
    let switch = r#"{"1":{"command":"session.org.switch","params":{"key":"YorkOrg"}}}"#;
    wire.send(&wire.publish(0, 0, "api/1", switch)).await;
    assert_eq!(wire.unacknowledged().await.topic, "reply/1");
    assert_eq!(wire.subscribe("there", 1).await, 1);
    let mut york = Connect::login(V5, "york", "york", "demo-token-yorkorg").open(&server).await;
    york.tell("there", "second").await;
    let second = wire.unacknowledged().await;
    assert_eq!(second.texts(), ("there", "second"));
    assert_ne!(second.pkid, first, "the client has not acknowledged the first one");
    wire.acknowledge(first).await;
    wire.expect_quiet().await;
}

#[tokio::test]
async fn what_was_read_from_the_store_has_dup_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server: ServerProcess = TR50D.serve(dir.path(), &[]);
    for signal in [Signal::TERM, Signal::KILL] {
        let mut reader = kept(&server, "reader").await;
        assert_eq!(reader.subscribe("a", 1).await, 1);
        reader.leave().await;
        let mut writer = thing(&server, "writer").await;
        writer.tell("a", "1").await;
        writer.tell("a", "2").await;
        let mut reader = kept(&server, "reader").await;
        for payload in ["1", "2"] {
            let message = reader.unacknowledged().await;
            assert_eq!((message.texts().1, message.dup), (payload, false));
        }
        // What is acknowledged now is behind the note of what was sent.
        writer.retain("b", "x").await;
        server.end(signal).await;
        server = TR50D.serve(dir.path(), &[]);
        let mut reader = kept(&server, "reader").await;
        for payload in ["1", "2"] {
            // [MQTT-3.3.1-1]
            let message = reader.message().await;
            assert_eq!((message.texts().1, message.dup), (payload, true), "{signal:?}");
        }
        reader.leave().await;
    }
}
