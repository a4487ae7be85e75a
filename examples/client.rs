//! An operator's program: it logs in, lists the sessions of its organisation and logs out.
//!
//! With `tr50d serve --demo` running:
//!
//! ```sh
//! cargo run --example client -- \
//!     http://operator@basicorg.example:demo-operator-password@127.0.0.1:8080
//! ```
//!
//! `mqtt://`, `tcp://` and `ws://` do as well, each with its port.

use client::{Client, Url};
use serde::Deserialize;

/// What `session.list` answers (docs/commands.md), as far as it is of interest here.
#[derive(Deserialize)]
struct Listing {
    /// All that there are; `result` is a page of them.
    count: usize,
    result: Vec<Session>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    /// E-mail address or thing key.
    who_am_i: String,
    conn_info: ConnInfo,
    start_time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnInfo {
    protocol: String,
    remote_addr: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url: Url = std::env::args().nth(1).ok_or("usage: client URL")?.parse()?;
    for line in sessions(&url).await? {
        println!("{line}");
    }
    Ok(())
}

/// A line for each session, the oldest first, and one that says how many there are.
pub(crate) async fn sessions(url: &Url) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut client = Client::connect(url).await?;
    let reply = client.call("session.list", Some(r#"{"sort":"startTime","limit":100}"#)).await;
    // Over HTTP a session outlives its connection: end it, whatever came back.
    client.close().await;
    let listing: Listing = reply?.succeeded()?.params()?;
    let line = |session: &Session| {
        let Session { who_am_i, conn_info, start_time } = session;
        let ConnInfo { protocol, remote_addr } = conn_info;
        format!("{who_am_i} over {protocol} from {remote_addr} since {start_time}")
    };
    let mut lines: Vec<String> = listing.result.iter().map(line).collect();
    lines.push(format!("{} sessions", listing.count));
    Ok(lines)
}
