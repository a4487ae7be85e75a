//! The server as a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use client::Url;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::cpu_affinity::Cores;

/// Longer than any stop takes.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Ticks of /proc/PID/stat in a second, on every Linux.
const TICKS_PER_S: u64 = 100;

/// The token of the demo's devices.
pub(crate) const DEVICE_TOKEN: &str = "demo-token-basicorg";

/// The login of the demo's administrator of the devices' organisation.
const OPERATOR: &str = "operator%40basicorg.example:demo-operator-password";

/// A running server with the demo's organisations. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Starts it; how long it took until it was ready. With the addresses of an earlier one it has
    /// the same.
    pub(crate) async fn start(
        data_dir: &Path,
        cores: Option<&Cores>,
        settings: &[(&str, String)],
        addresses: Option<&BTreeMap<String, SocketAddr>>,
    ) -> Outcome<(Self, Duration)> {
        let mut command = Cores::command(cores, env!("CARGO_BIN_EXE_tr50d"));
        let address = |protocol: &str| {
            let known = addresses.and_then(|addresses| addresses.get(protocol));
            known.map_or("127.0.0.1:0".to_owned(), SocketAddr::to_string)
        };
        command
            .args(["serve", "--demo"])
            .env("TR50D_SERVER__DATA_DIR", data_dir)
            .env("TR50D_MQTT__LISTEN", address("mqtt"))
            .env("TR50D_TCP__LISTEN", address("tcp"))
            .env("TR50D_HTTP__LISTEN", address("http"))
            .env("TR50D_LIMITS__COMMANDS_PER_S", "0")
            .env("RUST_LOG", "error")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        // Held from now on: whatever happens, the process ends with it.
        let mut server = Self { child, addresses: BTreeMap::new() };
        let read = tokio::task::spawn_blocking(move || read_addresses(BufReader::new(output)));
        server.addresses = read.await??;
        Ok((server, start.elapsed()))
    }

    /// Where it listens.
    pub(crate) const fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// A URL with the token of the demo's devices.
    pub(crate) fn devices(&self) -> Outcome<Url> {
        self.url("mqtt", &format!(":{DEVICE_TOKEN}"))
    }

    /// A URL with the login of the organisation's administrator.
    pub(crate) fn operator(&self, protocol: &str) -> Outcome<Url> {
        self.url(protocol, OPERATOR)
    }

    fn url(&self, protocol: &str, login: &str) -> Outcome<Url> {
        let address = self.addresses.get(protocol).ok_or("the server does not listen")?;
        Ok(format!("{protocol}://{login}@{address}").parse()?)
    }

    /// CPU time that it has used.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// Bytes of its resident memory.
    pub(crate) fn resident(&self) -> Outcome<usize> {
        resident_of(&self.child.id().to_string())
    }

    /// Sends SIGTERM, or SIGKILL, and waits for the end; how long it took.
    pub(crate) async fn end(&mut self, kindly: bool) -> Outcome<Duration> {
        let signal = if kindly { Signal::TERM } else { Signal::KILL };
        let start = Instant::now();
        kill_process(Pid::from_child(&self.child), signal)?;
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > STOP_MAX {
                return Err("the server does not stop".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_addresses(output: impl BufRead) -> Outcome<BTreeMap<String, SocketAddr>> {
    let mut addresses = BTreeMap::new();
    for line in output.lines() {
        let line = line?;
        if line == "ready" {
            return Ok(addresses);
        }
        let listening = line.strip_prefix("listening ").and_then(|rest| rest.split_once(' '));
        if let Some((protocol, address)) = listening {
            addresses.insert(protocol.to_owned(), address.parse()?);
        }
    }
    Err("the server ended before it was ready".into())
}

/// CPU time that a process has used.
pub(crate) fn cpu_of(pid: &str) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which is in brackets: the times are fields 14 and 15 of all.
    let (_, fields) = stat.rsplit_once(')').ok_or("not a process's figures")?;
    let ticks: Result<Vec<u64>, _> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(Duration::from_millis(ticks?.iter().sum::<u64>() * 1000 / TICKS_PER_S))
}

/// Bytes of a process's resident memory.
pub(crate) fn resident_of(pid: &str) -> Outcome<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no memory")?;
    Ok(kilobytes.parse::<usize>()? * 1024)
}
