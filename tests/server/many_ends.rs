//! Sessions that end all at once: each end has its turn, and all of them end.

use client::Client;
use client::Version::V5;
use serde_json::json;
use support::mqtt::{Connect, Wire};
use support::{TestServer, call, end_reason, eventually, sessions};

/// More than may end at once without a turn, and than one command changes on its own thread.
const MANY: usize = 300;

/// The session of the operator who watches.
const WATCHERS: usize = 1;

/// Many things, with keys that begin with this.
async fn things(server: &TestServer, prefix: &str) -> Vec<Wire> {
    let mut wires = Vec::with_capacity(MANY);
    for number in 0..MANY {
        wires.push(Connect::thing(V5, &format!("{prefix}-{number}")).open(server).await);
    }
    wires
}

async fn live(operator: &mut Client) -> usize {
    sessions(operator, r#"{"limit":1000}"#).await.len()
}

#[tokio::test]
async fn all_whom_one_command_ends_are_told_so_and_closed() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let wires = things(&server, "ended").await;
    assert_eq!(live(&mut operator).await, MANY + WATCHERS);
    call(&mut operator, "app.delete", &json!({"name": "demo-app"}).to_string()).await;
    // The sessions have ended when the command is answered; the connections close behind it.
    assert_eq!(live(&mut operator).await, WATCHERS);
    for mut wire in wires {
        // DISCONNECT, "Administrative action".
        wire.expect(&[0xE0, 1, 0x98]).await;
        wire.expect_end().await;
    }
}

#[tokio::test]
async fn all_that_are_lost_end_and_who_comes_back_does_not_wait_for_it() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    drop(things(&server, "lost").await);
    // The last of them is back while others wait for their turns.
    let key = format!("lost-{}", MANY - 1);
    let _back = Connect::thing(V5, &key).open(&server).await;
    eventually("the others have ended", async || live(&mut operator).await == 1 + WATCHERS).await;
    assert_eq!(end_reason(&mut operator, "lost-0").await, "connection_lost");
}

#[tokio::test]
async fn all_that_expire_at_once_end_and_close() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "2")]);
    let wires = things(&server, "idle").await;
    for mut wire in wires {
        assert_eq!(wire.frame().await.map(|frame| frame[0]), Some(0xE0), "DISCONNECT");
        wire.expect_end().await;
    }
    let mut operator = server.operator("tcp").await;
    assert_eq!(live(&mut operator).await, WATCHERS);
}
