//! Where a server is reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use client::{Client, Url};
use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::{TOKEN, connect};

/// A running demo server, as its clients and its operator see it.
#[derive(Clone, Debug)]
pub struct Endpoints {
    pub(crate) addresses: BTreeMap<String, SocketAddr>,
    pub(crate) data_dir: PathBuf,
}

impl Endpoints {
    /// A server with these listeners.
    pub const fn new(addresses: BTreeMap<String, SocketAddr>, data_dir: PathBuf) -> Self {
        Self { addresses, data_dir }
    }

    /// The address of a listener: `mqtt`, `mqtts`, `tcp`, `tcps`, `http`, `https`.
    ///
    /// # Panics
    ///
    /// If the server has no such listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// The same with another MQTT server, such as one that is bridged to this.
    pub fn with_mqtt(&self, address: SocketAddr) -> Self {
        let mut other = self.clone();
        other.addresses.insert("mqtt".to_owned(), address);
        other
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A URL with a login.
    ///
    /// # Panics
    ///
    /// If user or password can't stand in a URL.
    pub fn url(&self, listener: &str, user: &str, password: &str) -> Url {
        let user = user.replace('@', "%40");
        let url = format!("{listener}://{user}:{password}@{}", self.address(listener));
        url.parse().expect("a URL")
    }

    /// A URL with a login of the demo: a thing of BasicOrg.
    pub fn thing_url(&self, listener: &str, thing_key: &str) -> Url {
        self.url(listener, thing_key, TOKEN)
    }

    /// A connected client of BasicOrg's administrator.
    pub async fn operator(&self, listener: &str) -> Client {
        connect(&self.url(listener, "operator@basicorg.example", "demo-operator-password")).await
    }

    /// A connected client of the super administrator.
    pub async fn admin(&self, listener: &str) -> Client {
        connect(&self.url(listener, "admin@devicewise.com", "demo-admin-password")).await
    }

    /// A connected client of a thing of BasicOrg.
    pub async fn thing(&self, listener: &str, thing_key: &str) -> Client {
        connect(&self.thing_url(listener, thing_key)).await
    }
}

/// Memory that is used as a disk, on Linux.
const MEMORY: &str = "/dev/shm";

/// Bytes that must be free there: a server has some megabytes, and a few run at once.
const MEMORY_FREE_MIN: u64 = 2 << 30;

/// A directory for the state of a server of which no test says that it outlives anything: in memory
/// where there is enough, for most of a start is to wait for the disk. `TMPDIR` says otherwise.
pub(crate) fn fresh_dir() -> TempDir {
    let is_chosen = std::env::var_os("TMPDIR").is_some();
    let free = statvfs(MEMORY).map_or(0, |found| found.f_bavail * found.f_frsize);
    let in_memory = !is_chosen && free >= MEMORY_FREE_MIN;
    let dir = if in_memory { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

/// The settings of every test's server: state in this directory, however little room there is, ports
/// that the system chooses, no limit of commands a second; then more of them.
pub fn settings<'a>(
    data_dir: &Path,
    more: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (String, String)> + use<'a> {
    let all = [
        ("TR50D_SERVER__DATA_DIR", data_dir.display().to_string()),
        ("TR50D_SERVER__MIN_FREE_BYTES", "0".to_owned()),
        ("TR50D_MQTT__LISTEN", "127.0.0.1:0".to_owned()),
        ("TR50D_TCP__LISTEN", "127.0.0.1:0".to_owned()),
        ("TR50D_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("TR50D_LIMITS__COMMANDS_PER_S", "0".to_owned()),
    ];
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    all.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value))
}
