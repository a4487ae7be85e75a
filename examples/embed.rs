//! A program with a server inside: a configuration of its own, free ports, who is connected, a stop.
//!
//! ```sh
//! cargo run --example embed
//! ```

use std::net::SocketAddr;
use std::path::Path;

use client::{Client, Url};
use tr50d::config::Config;
use tr50d::serve::{Server, StartError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let state = tempfile::tempdir()?;
    let server = start(state.path()).await?;
    // Devices come from elsewhere; this one is here only to be seen.
    let url: Url = url(&server, "mqtt", "mower-1:demo-token-basicorg").parse()?;
    let device = Client::connect(&url).await?;
    for line in connected(&server) {
        println!("{line}");
    }
    device.close().await;
    // The last replies go out, and everything is on disk when it returns.
    server.stop().await;
    Ok(())
}

/// Starts a server with MQTT and HTTP on ports that the system chooses, and its state in `dir`.
pub(crate) async fn start(dir: &Path) -> Result<Server, StartError> {
    let any_port = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut config = Config::default();
    config.server.data_dir = dir.join("data");
    // Who there is at the first start. The demo's passwords are public: loopback only.
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
    config.server.bootstrap = Some(demo);
    config.mqtt.listen = any_port;
    config.http.listen = any_port;
    config.tcp.listen = None;
    Server::start(config).await
}

/// The URL of a listener with a login, for [`Client::connect`] and `tr50d call`.
pub(crate) fn url(server: &Server, protocol: &str, login: &str) -> String {
    let listening = server.listening().iter().find(|one| one.protocol.as_str() == protocol);
    let address = listening.expect("start() has this listener").address;
    format!("{protocol}://{login}@{address}")
}

/// A line for each session, whatever its organisation.
pub(crate) fn connected(server: &Server) -> Vec<String> {
    let sessions = server.app().directory().all();
    let lines = sessions.iter().map(|session| {
        let (who, org, conn) = (session.who(), &session.access().org.key, session.conn());
        let (protocol, address) = (conn.protocol.as_str(), conn.remote_addr);
        format!("{} of {org} over {protocol} from {address}", who.name())
    });
    lines.collect()
}
