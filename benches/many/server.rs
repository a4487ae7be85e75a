//! The server as a process of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use client::Url;
use rustix::process::{Pid, Signal, kill_process};
use support::TOKEN;
use support::process::{Announced, cpu_of, resident_of, serve_demo};

use crate::Outcome;
use crate::cpu_affinity::Cores;

/// Longer than any stop takes.
const STOP_MAX: Duration = Duration::from_secs(60);

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
        let program = env!("CARGO_BIN_EXE_tr50d");
        Self::start_program(program, data_dir, cores, settings, addresses).await
    }

    /// The same with a program that may be another one.
    pub(crate) async fn start_program(
        program: &str,
        data_dir: &Path,
        cores: Option<&Cores>,
        settings: &[(&str, String)],
        addresses: Option<&BTreeMap<String, SocketAddr>>,
    ) -> Outcome<(Self, Duration)> {
        let mut command = Cores::command(cores, program);
        let address = |protocol: &str| {
            let known = addresses.and_then(|addresses| addresses.get(protocol));
            known.map_or("127.0.0.1:0".to_owned(), SocketAddr::to_string)
        };
        serve_demo(&mut command, data_dir, &[]);
        command
            .env("TR50D_MQTT__LISTEN", address("mqtt"))
            .env("TR50D_TCP__LISTEN", address("tcp"))
            .env("TR50D_HTTP__LISTEN", address("http"))
            .env("RUST_LOG", "error")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        // Held from now on: whatever happens, the process ends with it.
        let mut server = Self { child, addresses: BTreeMap::new() };
        let read = tokio::task::spawn_blocking(move || Announced::read(output));
        server.addresses = read.await??.addresses;
        Ok((server, start.elapsed()))
    }

    /// Where it listens.
    pub(crate) const fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// A URL with the token of the demo's devices.
    pub(crate) fn devices(&self) -> Outcome<Url> {
        self.thing_url("", TOKEN)
    }

    /// A URL with this token, of a thing or of those that whoever uses it names.
    pub(crate) fn thing_url(&self, key: &str, token: &str) -> Outcome<Url> {
        self.url("mqtt", &format!("{key}:{token}"))
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
        Ok(cpu_of(&self.child.id().to_string())?)
    }

    /// Bytes of its resident memory.
    pub(crate) fn resident(&self) -> Outcome<usize> {
        Ok(resident_of(&self.child.id().to_string())?)
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
