//! Servers in processes of their own, and what the system says of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::Url;
use rustix::process::{Pid, Signal, kill_process};
use support::process::{Announced, cpu_of, resident_of};
use support::{Program, TOKEN};
use tokio::time::{Instant, sleep};

use super::broker::Broker;
use super::tls::{Handshakes, Pair};
use super::{Bench, Result};

/// Time for a server to start and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    /// What the clients of a broker log in with, where they have to.
    token: Option<&'static str>,
    /// How they do their handshakes, with TLS.
    tls: Option<&'static Handshakes>,
}

impl Server {
    /// `tr50d serve --demo` without a limit of commands a second, with its state in this folder,
    /// and with more settings, such as `("TR50D_SESSIONS__TTL_S", "1")`.
    pub(crate) fn ours(bench: &Bench, data_dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let program = Program(env!("CARGO_BIN_EXE_tr50d"));
        let mut server = Self::announced(bench, program.command(data_dir, settings))?;
        server.token = Some(TOKEN);
        Ok(server)
    }

    /// The same with its state in a new folder, and room for all filters of the rows.
    pub(crate) fn ours_as_broker(bench: &Bench) -> Result<Self> {
        Self::ours(bench, &bench.folder()?, &[("TR50D_LIMITS__BROKER_FILTERS", "1000000")])
    }

    /// A broker that takes connections with TLS, too, with this pair.
    pub(crate) fn ours_with_tls(bench: &Bench, pair: &Pair) -> Result<Self> {
        let path = |path: &Path| path.display().to_string();
        let (cert, key) = (path(&pair.cert), path(&pair.key));
        let settings = [
            ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_TLS__CERT", &cert),
            ("TR50D_TLS__KEY", &key),
        ];
        let mut server = Self::ours(bench, &bench.folder()?, &settings)?;
        server.tls = Some(pair.handshakes()?);
        Ok(server)
    }

    /// The floor, over `mqtt` or `tcp`; over MQTT with a prepared payload in all answers, if any.
    pub(crate) fn floor(bench: &Bench, speech: &str, prepared: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([super::SERVE_FLOOR, speech]).args(prepared);
        Self::announced(bench, command)
    }

    /// The worker that answers requests through this broker.
    pub(crate) fn worker(bench: &Bench, broker: SocketAddr) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([super::SERVE_WORKER, &broker.to_string()]);
        Self::announced(bench, command)
    }

    /// mosquitto, as fast as its configuration lets it be; none if it is not installed.
    pub(crate) async fn mosquitto(bench: &Bench) -> Result<Option<Self>> {
        Self::mosquitto_with(bench, None).await
    }

    /// The same with TLS, and this pair.
    pub(crate) async fn mosquitto_with_tls(bench: &Bench, pair: &Pair) -> Result<Option<Self>> {
        Self::mosquitto_with(bench, Some(pair)).await
    }

    async fn mosquitto_with(bench: &Bench, pair: Option<&Pair>) -> Result<Option<Self>> {
        let Some(program) = find_mosquitto() else { return Ok(None) };
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = bench.folder()?.join("mosquitto.conf");
        let mut lines = vec![
            format!("listener {} 127.0.0.1", address.port()),
            "allow_anonymous true".to_owned(),
            "set_tcp_nodelay true".to_owned(),
            "persistence false".to_owned(),
            // None is dropped, however many are on their way.
            "max_inflight_messages 0".to_owned(),
            "max_queued_messages 0".to_owned(),
            "log_dest none".to_owned(),
        ];
        if let Some(Pair { cert, key }) = pair {
            lines.push(format!("certfile {}", cert.display()));
            lines.push(format!("keyfile {}", key.display()));
        }
        fs::write(&file, lines.join("\n"))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut addresses = BTreeMap::new();
        addresses.insert(if pair.is_some() { "mqtts" } else { "mqtt" }.to_owned(), address);
        let tls = pair.map(Pair::handshakes).transpose()?;
        let server = Self { child: spawn(bench, command)?, addresses, token: None, tls };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > PATIENCE {
                return Err("mosquitto does not listen".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(server))
    }

    /// A server that says where it listens (`listening NAME ADDRESS`), then `ready`.
    fn announced(bench: &Bench, mut command: Command) -> Result<Self> {
        let log = bench.folder()?.join("log");
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut child = spawn(bench, command)?;
        let output = child.stdout.take().ok_or("a server has no output")?;
        let mut server = Self { child, addresses: BTreeMap::new(), token: None, tls: None };
        match Announced::read(output) {
            Ok(announced) => server.addresses = announced.addresses,
            Err(why) => {
                let log = fs::read_to_string(log)?;
                return Err(format!("a server {why}: {}", log.trim()).into());
            }
        }
        Ok(server)
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: &str) -> Result<SocketAddr> {
        let address = self.addresses.get(listener).copied();
        address.ok_or_else(|| format!("no listener for {listener}").into())
    }

    /// Where clients of ordinary MQTT connect to, and how.
    pub(crate) fn broker(&self) -> Result<Broker> {
        let listener = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        Ok(Broker { address: self.address(listener)?, token: self.token, tls: self.tls })
    }

    /// A URL with this token; each device of a fleet logs in with its own thing key.
    pub(crate) fn url(&self, listener: &str, token: &str) -> Result<Url> {
        self.url_of(listener, "", token)
    }

    /// A URL with the login of one thing.
    pub(crate) fn url_of(&self, listener: &str, key: &str, token: &str) -> Result<Url> {
        Ok(format!("{listener}://{key}:{token}@{}", self.address(listener)?).parse()?)
    }

    /// What its threads have used of the cores, in user mode and in the system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(cpu_of(&self.child.id().to_string())?)
    }

    /// Bytes of its memory that are in use.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        Ok(resident_of(&self.child.id().to_string())? as u64)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err("a server does not end".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process where servers run.
fn spawn(bench: &Bench, mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null());
    // A process has the cores of the thread that starts it.
    bench.cores.take_server(bench.pinning)?;
    let child = command.spawn();
    bench.cores.take_load(bench.pinning)?;
    let program = command.get_program().to_string_lossy();
    child.map_err(|error| format!("can't start {program}: {error}").into())
}

fn find_mosquitto() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let usual = ["/usr/sbin".into(), "/usr/local/sbin".into()];
    let folders = std::env::split_paths(&path).chain(usual);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}
