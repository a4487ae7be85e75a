//! The server in this process, and connections in memory: everything but the kernel's sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ConnInfo, Protocol};
use client::Url;
use rules::directory::query::Query;
use support::TOKEN;
use support::process::{cpu_of, resident_of};
use tempfile::TempDir;
use tr50d::app::App;
use tr50d::config::Config;
use tr50d::edge::Stream;
use tr50d::serve::Server;

use crate::probe::{DEVICES, Probe};
use crate::table::{Table, each, rate, thousands};
use crate::wire::{Far, Near, pair};
use crate::{Outcome, parts};

/// Seconds after which a session that is not touched expires; long enough for every step.
const TTL_S: u64 = 15;

/// Longer than any step takes.
const STEP_MAX: Duration = Duration::from_secs(120);

/// Sessions in a page of a listing.
const PAGE: usize = 5000;

/// Connects, lists, expires, loses and stops `count` connections; then what one takes, by part.
pub(crate) async fn run(count: usize) -> Outcome<()> {
    let mut table = Table::new();
    let mut server = InMemory::start(&[("TR50D_SESSIONS__TTL_S", &TTL_S.to_string())]).await?;
    let before = resident_of("self")?;
    server.come(&mut table, "connect new devices, which register", count).await?;
    let bytes = resident_of("self")?.saturating_sub(before) / count;
    table.row("resident memory of one, without a socket", &thousands(bytes), None);
    server.list(&mut table)?;
    server.expire(&mut table).await?;
    server.come(&mut table, "all again, known by now", count).await?;
    server.lose(&mut table).await?;
    server.come(&mut table, "all again", count).await?;
    let (start, cpu) = (Instant::now(), cpu_of("self")?);
    let dir = server.stop().await;
    let measured =
        format!("{:.2} s, {}", start.elapsed().as_secs_f64(), each(cpu_of("self")? - cpu, count));
    table.row("stop with all connected", &measured, None);
    let start = Instant::now();
    let server = InMemory::start_in(dir, &[]).await?;
    let measured = format!("{:.2} s", start.elapsed().as_secs_f64());
    table.row("start with as many things", &measured, None);
    server.stop().await;
    parts::add_to(&mut table, count).await?;
    table.print();
    Ok(())
}

/// A server, and the devices' ends of its connections.
pub(crate) struct InMemory {
    server: Server,
    devices: Vec<Near>,
    dir: TempDir,
}

impl InMemory {
    /// Starts one with the demo's organisations in a fresh directory.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::start_in(tempfile::tempdir()?, settings).await
    }

    async fn start_in(dir: TempDir, settings: &[(&str, &str)]) -> Outcome<Self> {
        let config = config(dir.path(), settings)?;
        Ok(Self { server: Server::start(config).await?, devices: Vec::new(), dir })
    }

    /// What it serves from.
    pub(crate) fn app(&self) -> &Arc<App> {
        self.server.app()
    }

    /// Whether the server has closed all connections.
    fn all_are_closed(&self) -> bool {
        self.devices.iter().all(Near::is_alone)
    }

    /// Whether the server waits for the words of all devices.
    pub(crate) fn all_are_awaited(&self) -> bool {
        self.devices.iter().all(Near::is_awaited)
    }

    /// Makes connections, of which the server knows nothing yet.
    pub(crate) fn prepare(&mut self, count: usize) -> Vec<Far> {
        let (near, far) = (0..count).map(|_| pair()).unzip();
        self.devices = near;
        far
    }

    /// Has the server serve them.
    pub(crate) fn accept(&self, far: Vec<Far>) {
        let info = ConnInfo::new(Protocol::Mqtt, here());
        for stream in far {
            self.server.serve_mqtt(Stream::Boxed(Box::new(stream)), info);
        }
    }

    /// Logs all devices in, and waits until they are.
    pub(crate) async fn login(&self, key_prefix: &str) -> Outcome<()> {
        let wanted = self.app().directory().len() + self.devices.len();
        for (number, device) in self.devices.iter().enumerate() {
            device.connect(&format!("{key_prefix}{number}"), TOKEN);
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        until("all are logged in", || self.app().directory().len() >= wanted).await
    }

    async fn come(&mut self, table: &mut Table, what: &str, count: usize) -> Outcome<()> {
        let far = self.prepare(count);
        let probe = Probe::start(&self.mqtt()?).await?;
        let (start, cpu) = (Instant::now(), cpu_of("self")?);
        self.accept(far);
        self.login("in-memory-").await?;
        let (elapsed, cpu) = (start.elapsed(), cpu_of("self")? - cpu);
        let waited = probe.stop().await?;
        let measured =
            format!("{} at {}, {}", thousands(count), rate(count, elapsed), each(cpu, count));
        table.row(what, &measured, Some(&waited));
        Ok(())
    }

    /// The first page of sessions, and the last.
    fn list(&self, table: &mut Table) -> Outcome<()> {
        let directory = self.app().directory();
        let session = directory.all().into_iter().next().ok_or("nobody is there")?;
        let org = session.org_id();
        for offset in [0, directory.len() - PAGE.min(directory.len())] {
            let start = Instant::now();
            let query = Query { offset, limit: PAGE, ..Query::default() };
            let found = directory.list(org, &query).sessions.len();
            let took = start.elapsed().as_secs_f64() * 1000.0;
            let what =
                format!("find {} sessions from the {}th on", thousands(found), thousands(offset));
            table.row(&what, &format!("{took:.2} ms"), None);
        }
        Ok(())
    }

    /// All are due in the same second.
    async fn expire(&mut self, table: &mut Table) -> Outcome<()> {
        self.devices.iter().for_each(Near::ping);
        let touched = Instant::now();
        tokio::time::sleep(Duration::from_secs(TTL_S - 1)).await;
        let probe = Probe::start(&self.mqtt()?).await?;
        let cpu = cpu_of("self")?;
        until("all have expired", || self.app().directory().len() <= DEVICES).await?;
        until("all are closed", || self.all_are_closed()).await?;
        let cpu = cpu_of("self")? - cpu;
        let late = touched.elapsed().saturating_sub(Duration::from_secs(TTL_S));
        let waited = probe.stop().await?;
        let count = self.devices.len();
        let measured =
            format!("{:.2} s after they were due, {}", late.as_secs_f64(), each(cpu, count));
        table.row("all expire at once", &measured, Some(&waited));
        Ok(())
    }

    /// All devices go at once, without a word.
    async fn lose(&mut self, table: &mut Table) -> Outcome<()> {
        let probe = Probe::start(&self.mqtt()?).await?;
        let (start, cpu, count) = (Instant::now(), cpu_of("self")?, self.devices.len());
        self.devices.iter().for_each(Near::hang_up);
        until("all are closed", || self.all_are_closed()).await?;
        let (elapsed, cpu) = (start.elapsed(), cpu_of("self")? - cpu);
        let waited = probe.stop().await?;
        let measured = format!("{:.2} s, {}", elapsed.as_secs_f64(), each(cpu, count));
        table.row("all are gone at once", &measured, Some(&waited));
        Ok(())
    }

    /// Stops the server; its directory, for the next.
    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.dir
    }

    fn mqtt(&self) -> Outcome<Url> {
        let mut listening = self.server.listening().iter();
        let found = listening.find(|listening| listening.protocol == Protocol::Mqtt);
        let address = found.ok_or("the server does not listen")?.address;
        Ok(format!("mqtt://{address}").parse()?)
    }
}

fn config(dir: &Path, more: &[(&str, &str)]) -> Outcome<Config> {
    let bootstrap = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
    let fixed = [
        ("TR50D_SERVER__BOOTSTRAP", bootstrap),
        ("TR50D_TCP__LISTEN", "none"),
        ("TR50D_HTTP__LISTEN", "none"),
    ];
    let all = [&fixed, more].concat();
    Ok(Config::demo(None, support::settings(&dir.join("data"), &all))?)
}

/// An address for connections that have none.
pub(crate) fn here() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) -> Outcome<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > STEP_MAX {
            return Err(format!("never: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
