//! What the tests and benches of the whole server share: servers to talk to, clients, and what is
//! said to them byte by byte.
//!
//! A [`TestServer`] runs in the process of its test. What needs a process (signals, `kill -9`, the
//! environment, standard output, the log) has a [`ServerProcess`]. Both are [`Endpoints`].

pub mod bootstrap;
pub mod browser;
mod clock;
mod endpoints;
pub mod fuzz;
pub mod http;
pub mod micro;
pub mod mqtt;
pub mod process;
pub mod replies;
mod server;
pub mod tcp;
pub mod totp;

use std::time::{Duration, Instant};

use client::{Client, Url};
pub use clock::Hands;
pub use endpoints::{Endpoints, settings};
pub use process::{Program, ServerProcess};
pub use rustix::process::Signal;
use serde_json::Value;
pub use server::TestServer;

/// Long enough for anything that happens at once on a slow machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The token of the demo's devices, which are things of BasicOrg.
pub const TOKEN: &str = "demo-token-basicorg";

/// A connected client.
///
/// # Panics
///
/// If the server does not take it.
pub async fn connect(url: &Url) -> Client {
    Client::connect(url).await.expect("a connection")
}

/// The reply to a command, which has to succeed: its `params`.
///
/// # Panics
///
/// If it fails.
pub async fn call(client: &mut Client, command: &str, params: &str) -> Value {
    let reply = reply(client, command, params).await;
    assert_eq!(reply["success"], true, "{command} {params}: {reply}");
    reply["params"].clone()
}

/// The reply to a command, whatever it is.
///
/// # Panics
///
/// If none comes.
pub async fn reply(client: &mut Client, command: &str, params: &str) -> Value {
    let params = if params.is_empty() { None } else { Some(params) };
    let reply = client.call(command, params).await.expect("a reply");
    serde_json::from_str(reply.as_json()).expect("JSON")
}

/// Waits until a condition holds.
///
/// # Panics
///
/// If it does not hold [`SOON`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What `session.list` shows for these parameters.
///
/// # Panics
///
/// If it shows nothing.
pub async fn sessions(client: &mut Client, params: &str) -> Vec<Value> {
    let listed = call(client, "session.list", params).await;
    listed["result"].as_array().expect("a list").clone()
}

/// Waits until the last session of a thing has ended, and says why it did.
///
/// # Panics
///
/// If it does not end [`SOON`].
pub async fn end_reason(operator: &mut Client, thing_key: &str) -> String {
    let params = format!(r#"{{"thingKey":"{thing_key}","status":"ALL"}}"#);
    let mut reason = None;
    eventually(&format!("the session of {thing_key} ends"), async || {
        let listed = sessions(operator, &params).await;
        reason = listed[0]["endReason"].as_str().map(str::to_owned);
        reason.is_some()
    })
    .await;
    reason.expect("it has ended")
}
