//! Devices in processes of their own: one process has too few file descriptors for all.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use clap::Args;
use client::Url;
use client::fleet::{Fleet, Plan};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::worker_process::{self, WorkerProcess};

/// The token of all of them, not of those that measure.
const DEVICES_TOKEN: &str = "demo-basicorg-16";

/// Its application.
pub(crate) const DEVICES_APP: &str = "5cf885f41c5bd771c8065c03";

/// Devices of one process: it has descriptors for them and its own.
const DEVICES_MAX: usize = 10_000;

/// Devices that connect from one address, which has some 28,000 ports. Those of a connection that
/// the device closed can't be used again for a minute.
const DEVICES_PER_SOURCE: usize = 1000;

/// What a process of devices is told at its start.
#[derive(Args)]
pub(crate) struct DevicesArgs {
    url: Url,
    /// Its number
    number: usize,
    devices: usize,
}

/// What the parent says.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Connect, so many a second; earlier connections close.
    Connect(u32),
    /// Send one command on each connection.
    Touch,
    /// Wait until the server has closed all connections.
    Closed,
}

/// What became of an order.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Connections, or commands, that succeeded.
    pub done: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// 99 of 100 connected within so many milliseconds.
    pub p99_ms: f64,
    /// Why some did not, if some did not.
    pub errors: String,
}

/// The devices' side.
pub(crate) async fn run(args: DevicesArgs) -> Outcome<()> {
    let mut orders = worker_process::orders();
    let mut fleet = None;
    while let Some(line) = orders.recv().await {
        let start = Instant::now();
        let answer = match serde_json::from_str(&line)? {
            Order::Connect(per_second) => {
                drop(fleet.take());
                let (connected, answer) = connect(&args, per_second).await?;
                fleet = Some(connected);
                answer
            }
            Order::Touch => touch(fleet.as_mut().ok_or("no devices")?).await,
            Order::Closed => closed(fleet.as_mut().ok_or("no devices")?).await,
        };
        let answer = Answer { seconds: start.elapsed().as_secs_f64(), ..answer };
        worker_process::answer(&answer)?;
    }
    Ok(())
}

async fn connect(args: &DevicesArgs, per_second: u32) -> Outcome<(Fleet, Answer)> {
    let sources = args.devices.div_ceil(DEVICES_PER_SOURCE);
    let address = |source| IpAddr::V4(Ipv4Addr::new(127, 1, args.number as u8, source as u8 + 1));
    let plan = Plan {
        token: Some(DEVICES_TOKEN.to_owned()),
        key_prefix: format!("devices-{}-", args.number),
        connect_rate: per_second,
        sources: (0..sources).map(address).collect(),
        ..Plan::new(args.url.clone(), args.devices)
    };
    let fleet = Fleet::connect(&plan).await?;
    let report = fleet.report(Duration::ZERO);
    let errors: Vec<_> =
        report.errors.into_iter().map(|(text, n)| format!("{n} × {text}")).collect();
    let p99_ms = report.connections.p99_ms;
    let answer = Answer { done: fleet.len(), p99_ms, errors: errors.join(", "), seconds: 0.0 };
    Ok((fleet, answer))
}

async fn touch(fleet: &mut Fleet) -> Answer {
    let replies = fleet.call_all("diag.ping", None).await;
    let done = replies.iter().filter(|reply| reply.as_ref().is_ok_and(|r| r.success())).count();
    Answer { done, ..Answer::default() }
}

async fn closed(fleet: &mut Fleet) -> Answer {
    for device in fleet.devices_mut() {
        device.closed().await;
    }
    Answer { done: fleet.len(), ..Answer::default() }
}

/// All devices.
pub(crate) struct Devices {
    parts: Vec<WorkerProcess>,
    /// How many there are.
    pub count: usize,
}

impl Devices {
    /// Starts the processes; nothing connects yet.
    pub(crate) fn spawn(url: &Url, count: usize) -> Outcome<Self> {
        let processes = count.div_ceil(DEVICES_MAX);
        let share = |number| count / processes + usize::from(number < count % processes);
        let url = url.to_string();
        let part = |number: usize| {
            WorkerProcess::spawn(&[
                "devices",
                &url,
                &number.to_string(),
                &share(number).to_string(),
            ])
        };
        let parts = (0..processes).map(part);
        Ok(Self { parts: parts.collect::<Outcome<_>>()?, count })
    }

    /// Connects all, so many a second (0: as fast as the server takes them).
    pub(crate) async fn connect(&mut self, per_second: usize) -> Outcome<Answer> {
        let share = per_second.div_ceil(self.parts.len());
        let answer = self.all(&Order::Connect(u32::try_from(share)?)).await?;
        if answer.done < self.count {
            let missing = self.count - answer.done;
            return Err(format!("{missing} could not connect: {}", answer.errors).into());
        }
        Ok(answer)
    }

    /// Sends one command on each connection.
    pub(crate) async fn touch(&mut self) -> Outcome<Answer> {
        self.all(&Order::Touch).await
    }

    /// Waits until the server has closed all connections.
    pub(crate) async fn closed(&mut self) -> Outcome<Answer> {
        self.all(&Order::Closed).await
    }

    async fn all(&mut self, order: &Order) -> Outcome<Answer> {
        for part in &mut self.parts {
            part.order(order)?;
        }
        let mut all = Answer::default();
        for part in &mut self.parts {
            let answer: Answer = part.answer().await?;
            all.done += answer.done;
            all.seconds = all.seconds.max(answer.seconds);
            all.p99_ms = all.p99_ms.max(answer.p99_ms);
            all.errors.push_str(&answer.errors);
        }
        Ok(all)
    }
}
