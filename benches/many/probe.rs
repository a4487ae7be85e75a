//! Others, who send commands all the time, from a process of their own.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use client::fleet::{Board, Fleet, Load, Plan};
use client::{Login, Url};
use serde::{Deserialize, Serialize};
use support::TOKEN;
use tokio_util::sync::CancellationToken;

use crate::Outcome;
use crate::priority;
use crate::worker_process::{WorkerProcess, answer, orders};

/// How many.
pub(crate) const DEVICES: usize = 50;

/// Commands a second of all together.
const RATE: f64 = 2000.0;

/// Longer than any step.
const LONGEST: Duration = Duration::from_secs(600);

/// What the process is told at its start.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    url: Url,
    /// The token of the devices
    token: String,
}

/// How long the answers took, in milliseconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Waited {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
    /// So many never came.
    pub lost: u64,
    /// So many were refused.
    pub refused: u64,
}

impl Waited {
    /// How much longer they took than before.
    pub(crate) fn beside(&self, before: &Self) -> String {
        let ratio = self.p99_ms / before.p99_ms;
        format!("p99 {ratio:.1} x that of {:.2} ms just before", before.p99_ms)
    }
}

/// The devices' side: answers when they have connected, and, at the next order, how it was.
pub(crate) async fn run(args: ProbeArgs) -> Outcome<()> {
    priority::first();
    let mut orders = orders();
    let plan = Plan {
        token: Some(args.token),
        key_prefix: "probe-".to_owned(),
        ..Plan::new(args.url, DEVICES)
    };
    let stop = CancellationToken::new();
    let board = Arc::<Board>::default();
    let mut fleet = Fleet::connect_watched(&plan, board, stop.clone()).await?;
    let errors = fleet.report(Duration::ZERO).errors;
    answer(&(fleet.len(), errors.into_keys().collect::<Vec<_>>().join(", ")))?;
    let mut load = Load::command("diag.ping", None, LONGEST)?;
    load.rate = RATE;
    let load = tokio::spawn(async move {
        let report = fleet.run(&load).await;
        fleet.close().await;
        report
    });
    let _ = orders.recv().await;
    stop.cancel();
    let report = load.await?;
    let (latency, commands) = (report.latency, report.commands);
    answer(&Waited {
        p50_ms: latency.p50_ms,
        p99_ms: latency.p99_ms,
        max_ms: latency.max_ms,
        lost: commands.sent - commands.answered,
        refused: commands.failed,
    })
}

/// Devices that send diag.ping until they are asked how it was.
pub(crate) struct Probe(WorkerProcess);

impl Probe {
    /// Connects them and lets them send.
    pub(crate) async fn start(mqtt: &Url) -> Outcome<Self> {
        let token = match &mqtt.login {
            Login::Thing { token, .. } => token,
            _ => TOKEN,
        };
        // The URL's text is without it.
        let mut process = WorkerProcess::spawn(&["probe", &mqtt.to_string(), token])?;
        let (connected, errors): (usize, String) = process.answer().await?;
        if connected < DEVICES {
            let missing = DEVICES - connected;
            return Err(format!("{missing} that measure could not connect: {errors}").into());
        }
        Ok(Self(process))
    }

    /// Lets them stop, and reports.
    pub(crate) async fn stop(mut self) -> Outcome<Waited> {
        self.0.order(&"stop")?;
        self.0.answer().await
    }

    /// Has them send for a while.
    pub(crate) async fn during(mqtt: &Url, wait: Duration) -> Outcome<Waited> {
        let probe = Self::start(mqtt).await?;
        tokio::time::sleep(wait).await;
        probe.stop().await
    }
}
