//! The server as its own process, the devices in others, over loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::Client;
use serde::Deserialize;
use tempfile::TempDir;

use crate::cpu_affinity::Cores;
use crate::devices::{DEVICES_APP, Devices};
use crate::probe::{self, Probe, Waited};
use crate::server::Server;
use crate::table::{Table, each, rate, thousands};
use crate::{Outcome, Step, login_flood};

/// Connections a second, at least, that a server is to take while others notice nothing.
const RATE: usize = 2500;

/// Sessions in a page of `session.list`, the most that the configuration allows by default.
const PAGE: usize = 5000;

/// For how long others are watched when nothing else happens.
const QUIET: Duration = Duration::from_secs(3);

/// Longer than the end of all sessions takes, once it has begun.
const ENDED_MAX: Duration = Duration::from_secs(60);

/// What a run goes on with from step to step.
struct Run<'a> {
    table: Table,
    data_dir: TempDir,
    cores: Option<&'a Cores>,
    server: Server,
    devices: Devices,
    /// Those of the first server: the others have the same.
    addresses: BTreeMap<String, SocketAddr>,
}

/// Connects `count` devices, takes the steps (or only one) with them, and prints the table.
pub(crate) async fn run(count: usize, step: Option<Step>, cores: Option<&Cores>) -> Outcome<()> {
    let mut table = Table::new();
    if step != Some(Step::LoginFlood) {
        let data_dir = tempfile::tempdir()?;
        let (server, _) = Server::start(&data_dir.path().join("data"), cores, &[], None).await?;
        let devices = Devices::spawn(&server.devices()?, count)?;
        let addresses = server.addresses().clone();
        let mut run = Run { table, data_dir, cores, server, devices, addresses };
        run.begin().await?;
        for next in [Step::List, Step::Lose, Step::Stop, Step::Kill, Step::Expire, Step::End] {
            if step.is_none_or(|step| step == next) {
                run.take(next).await?;
            }
        }
        table = run.table;
    }
    if step.is_none_or(|step| step == Step::LoginFlood) {
        login_flood::add_to(&mut table, cores).await?;
    }
    table.print();
    Ok(())
}

impl Run<'_> {
    async fn take(&mut self, step: Step) -> Outcome<()> {
        match step {
            Step::List => self.list().await,
            Step::Lose => self.lose().await,
            Step::Stop => self.restart(true).await,
            Step::Kill => self.restart(false).await,
            Step::Expire => self.expire().await,
            Step::End => self.end().await,
            Step::LoginFlood => Ok(()),
        }
    }

    /// New devices, at a steady rate.
    async fn begin(&mut self) -> Outcome<()> {
        let pinned = self.cores.map_or("not pinned".to_owned(), ToString::to_string);
        let what = format!("nobody else; {pinned}");
        let quiet = self.watch(QUIET).await?;
        self.table.row(&what, "", Some(&quiet));
        let before = self.server.resident()?;
        self.reconnect("connect new devices, which register", RATE).await?;
        let after = self.server.resident()?;
        let bytes = after.saturating_sub(before) / self.devices.count;
        let measured = format!("{} bytes each; {} MB in all", thousands(bytes), after / 1_000_000);
        let cpu = self.server.cpu()?;
        tokio::time::sleep(QUIET).await;
        let idle = (self.server.cpu()? - cpu).as_secs_f64() / QUIET.as_secs_f64();
        let quiet = self.watch(QUIET).await?;
        self.table.row("resident memory of an idle connection", &measured, None);
        let measured = format!("{:.1} % of a core", idle * 100.0);
        self.table.row("all are idle", &measured, Some(&quiet));
        Ok(())
    }

    /// Connects all, `per_second` (0: as fast as they can).
    async fn reconnect(&mut self, what: &str, per_second: usize) -> Outcome<()> {
        let probe = Probe::start(&self.server.devices()?).await?;
        let cpu = self.server.cpu()?;
        let answer = self.devices.connect(per_second).await?;
        // What the others used of it meanwhile is a few hundredths.
        let cpu = self.server.cpu()? - cpu;
        let report = probe.stop().await?;
        let count = self.devices.count;
        let rate = rate(count, Duration::from_secs_f64(answer.seconds));
        let cpu = each(cpu, count);
        let measured =
            format!("{} at {rate}, p99 {:.0} ms, {cpu}", thousands(count), answer.p99_ms);
        self.table.row(what, &measured, Some(&report));
        Ok(())
    }

    /// All pages of all sessions, one after the other.
    async fn list(&mut self) -> Outcome<()> {
        let probe = Probe::start(&self.server.devices()?).await?;
        let mut operator = Client::connect(&self.server.operator("tcp")?).await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let (mut listed, mut pages) = (0, 0);
        loop {
            let page = page(&mut operator, listed, PAGE).await?;
            if page.result.is_empty() {
                break;
            }
            listed += page.result.len();
            pages += 1;
        }
        let (elapsed, cpu) = (start.elapsed(), self.server.cpu()? - cpu);
        let report = probe.stop().await?;
        if listed < self.devices.count {
            return Err(format!("only {listed} sessions are listed").into());
        }
        let measured = format!(
            "{} in {pages} pages of {PAGE}: {:.0} ms a page, {:.1} ms CPU",
            thousands(listed),
            elapsed.as_secs_f64() * 1000.0 / f64::from(pages),
            cpu.as_secs_f64() * 1000.0 / f64::from(pages),
        );
        self.table.row("list all, by pages", &measured, Some(&report));
        Ok(())
    }

    /// An operator ends all sessions by one command.
    async fn end(&mut self) -> Outcome<()> {
        self.reconnect("all again", 0).await?;
        let mut operator = Client::connect(&self.server.operator("tcp")?).await?;
        let before = self.watch(QUIET).await?;
        let probe = Probe::start(&self.server.devices()?).await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let app = format!(r#"{{"id":"{DEVICES_APP}"}}"#);
        operator.call("app.delete", Some(&app)).await?;
        let answered = start.elapsed().as_secs_f64();
        self.devices.closed().await?;
        let (elapsed, cpu) = (start.elapsed(), self.server.cpu()? - cpu);
        let report = probe.stop().await?;
        let (each, seconds) = (each(cpu, self.devices.count), elapsed.as_secs_f64());
        let measured = format!(
            "{} ended, answered after {answered:.2} s, all closed after {seconds:.2} s, {each}; {}",
            thousands(self.devices.count),
            report.beside(&before),
        );
        self.table.row("one command ends all", &measured, Some(&report));
        Ok(())
    }

    /// All devices go at once, without a word.
    async fn lose(&mut self) -> Outcome<()> {
        let before = self.watch(QUIET).await?;
        let mut operator = Client::connect(&self.server.operator("tcp")?).await?;
        let probe = Probe::start(&self.server.devices()?).await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let count = self.devices.count;
        self.devices = Devices::spawn(&self.server.devices()?, count)?;
        wait_for_few(&mut operator).await?;
        let (elapsed, cpu) = (start.elapsed(), self.server.cpu()? - cpu);
        let report = probe.stop().await?;
        let (each, seconds) = (each(cpu, count), elapsed.as_secs_f64());
        let measured = format!(
            "{} ended in {seconds:.2} s, {each}; {}",
            thousands(count),
            report.beside(&before),
        );
        self.table.row("all are killed at once", &measured, Some(&report));
        self.reconnect("all again, known by now", 0).await
    }

    /// Ends the server, starts it again, and has all come back.
    async fn restart(&mut self, kindly: bool) -> Outcome<()> {
        let signal = if kindly { "SIGTERM" } else { "kill -9" };
        let (ended, ready) = self.replace(kindly, &[]).await?;
        let measured = format!(
            "ended in {:.2} s, ready after {:.2} s",
            ended.as_secs_f64(),
            ready.as_secs_f64()
        );
        self.table.row(&format!("{signal} with all connected, then a start"), &measured, None);
        self.reconnect(&format!("all come back after {signal}"), 0).await
    }

    /// The end of the server, and how long it took; the next, and how long until it was ready.
    async fn replace(
        &mut self,
        kindly: bool,
        settings: &[(&str, String)],
    ) -> Outcome<(Duration, Duration)> {
        let data_dir = self.data_dir.path().join("data");
        let ended = self.server.end(kindly).await?;
        let next = Server::start(&data_dir, self.cores, settings, Some(&self.addresses)).await?;
        self.server = next.0;
        self.devices.closed().await?;
        Ok((ended, next.1))
    }

    /// All sessions are due in the same second.
    async fn expire(&mut self) -> Outcome<()> {
        // Long enough for all to connect before the first is due.
        let ttl_s = 20;
        self.replace(true, &[("TR50D_SESSIONS__TTL_S", ttl_s.to_string())]).await?;
        self.devices.connect(0).await?;
        let touched = self.devices.touch().await?;
        let (start, mqtt) = (Instant::now(), self.server.devices()?);
        let before = self.watch(QUIET).await?;
        let due = Duration::from_secs(ttl_s).saturating_sub(Duration::from_secs(2));
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
        let probe = Probe::start(&mqtt).await?;
        let mut operator = Client::connect(&self.server.operator("tcp")?).await?;
        wait_for_few(&mut operator).await?;
        let late = start.elapsed().saturating_sub(Duration::from_secs(ttl_s));
        let report = probe.stop().await?;
        let measured = format!(
            "{}, touched within {:.1} s, ended {:.1} s after the last was due; {}",
            thousands(self.devices.count),
            touched.seconds,
            late.as_secs_f64(),
            report.beside(&before),
        );
        self.table.row("all expire at once", &measured, Some(&report));
        Ok(())
    }

    async fn watch(&self, wait: Duration) -> Outcome<Waited> {
        Probe::during(&self.server.devices()?, wait).await
    }
}

/// A page of sessions; of each, nothing is looked at.
#[derive(Deserialize)]
struct Page {
    count: usize,
    result: Vec<serde::de::IgnoredAny>,
}

async fn page(operator: &mut Client, offset: usize, limit: usize) -> Outcome<Page> {
    let params = format!(r#"{{"offset":{offset},"limit":{limit}}}"#);
    Ok(operator.call("session.list", Some(&params)).await?.params()?)
}

/// Waits until only those live that measure.
async fn wait_for_few(operator: &mut Client) -> Outcome<()> {
    let start = Instant::now();
    while page(operator, 0, 1).await?.count > 2 * probe::DEVICES {
        if start.elapsed() > ENDED_MAX {
            return Err("the sessions do not end".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
