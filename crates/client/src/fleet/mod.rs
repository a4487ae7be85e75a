//! The simulated fleet: many devices at once, for tests, benchmarks and users.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::fleet::{Fleet, Plan};
//!
//! let url = "mqtt://:demo-token-basicorg@127.0.0.1:1883".parse()?;
//! let mut fleet = Fleet::connect(&Plan::new(url, 500)).await?;
//! assert_eq!(fleet.len(), 500);
//! let replies = fleet.call_all("session.info", None).await;
//! assert!(replies.iter().all(|reply| reply.as_ref().is_ok_and(|reply| reply.success())));
//! fleet.close().await;
//! # Ok(())
//! # }
//! ```

mod device;
mod files;
mod flow;
mod histogram;
mod methods;
mod ordinary;
mod plan;
mod report;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use device::Device;
pub use histogram::Histogram;
pub use plan::{
    ClientKind, DEVICES_MAX, FILE_BYTES_MAX, Load, Plan, PlanError, ROWS_MAX, Versions, WINDOW_MAX,
};
pub use report::{Board, Commands, Connections, Failures, Files, Latency, Mail, Report, Rows};

use device::Work;
use flow::Pace;
use methods::Exchange;

use crate::{ClientError, Options, Reply, Target};

/// Logins on their way at once: enough to keep a server busy, and short of its listen backlog.
const LOGINS_MAX: usize = 200;

/// Devices that log in, stay connected, and all send what the caller says.
pub struct Fleet {
    devices: Vec<Device>,
    board: Arc<Board>,
    stop: CancellationToken,
    key_prefix: String,
    /// How many devices the plan has.
    planned: usize,
}

impl Fleet {
    /// Connects the plan's devices. Those that could not are missing from [`Self::len`] and
    /// counted in the report.
    pub async fn connect(plan: &Plan) -> Result<Self, PlanError> {
        Self::connect_watched(plan, Arc::default(), CancellationToken::new()).await
    }

    /// Connects as [`Self::connect`] does, counting on a board that somebody watches; `stop` ends
    /// connecting, and later the loads, early.
    pub async fn connect_watched(
        plan: &Plan,
        board: Arc<Board>,
        stop: CancellationToken,
    ) -> Result<Self, PlanError> {
        plan.check()?;
        let targets = resolve(plan).await?;
        let permits = Arc::new(Semaphore::new(LOGINS_MAX));
        let mut logins = JoinSet::new();
        let start = Instant::now();
        for number in 0..plan.devices {
            let Some((target, url, ordinary)) = plan.device(number) else {
                break;
            };
            let Some(target) = targets.get(target).cloned() else {
                break;
            };
            if plan.connect_rate > 0 {
                let due = Duration::from_secs_f64(number as f64 / f64::from(plan.connect_rate));
                sleep_until(start + due).await;
            }
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = permits.clone().acquire_owned() => permit,
            };
            let options = Options {
                qos1: plan.qos1,
                keep_alive_s: plan.keep_alive_s,
                source: plan.source(number),
                timeout: plan.connect_timeout,
            };
            let board = board.clone();
            logins.spawn(async move {
                let _permit = permit;
                let begin = Instant::now();
                let device = Device::open(number, &target, &url, ordinary, options).await;
                board.count_login(begin.elapsed(), device)
            });
        }
        let mut devices = Vec::with_capacity(logins.len());
        let mut stopped = false;
        loop {
            tokio::select! {
                login = logins.join_next() => match login {
                    Some(login) => devices.extend(login.ok().flatten()),
                    None => break,
                },
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    logins.abort_all();
                }
            }
        }
        devices.sort_unstable_by_key(Device::number);
        let (key_prefix, planned) = (plan.key_prefix.clone(), plan.devices);
        Ok(Self { devices, board, stop, key_prefix, planned })
    }

    /// How many devices are in the fleet.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether no device is in the fleet.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The devices, in the order of their numbers.
    pub fn devices_mut(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    /// Sends one command from every device at once and returns the answers in the order of the
    /// devices' numbers. `params` is a JSON text.
    pub async fn call_all(
        &mut self,
        command: &str,
        params: Option<&str>,
    ) -> Vec<Result<Reply, ClientError>> {
        let (command, params): (Arc<str>, Option<Arc<str>>) =
            (command.into(), params.map(Into::into));
        let mut calls = JoinSet::new();
        for mut device in self.devices.drain(..) {
            let (command, params) = (command.clone(), params.clone());
            calls.spawn(async move {
                let reply = device.call(&command, params.as_deref()).await;
                (device, reply)
            });
        }
        let mut done: Vec<_> = calls.join_all().await;
        done.sort_unstable_by_key(|(device, _)| device.number());
        let (devices, replies) = done.into_iter().unzip();
        self.devices = devices;
        replies
    }

    /// Lets every device send as `load` says, and reports. A device whose connection does not last
    /// leaves the fleet.
    pub async fn run(&mut self, load: &Load) -> Report {
        let (rows, file_bytes) = (load.rows, load.files.as_ref().map(|files| files.bytes()));
        let load = Arc::new(load.clone());
        let exchange = (load.callers > 0).then(|| Arc::new(self.exchange(load.callers)));
        let senders = exchange.as_ref().map_or(self.devices.len(), |_| load.callers);
        let count = senders as f64;
        let interval = (load.rate > 0.0).then(|| Duration::from_secs_f64(count / load.rate));
        let start = Instant::now();
        let end = start + load.duration;
        let mut workers = JoinSet::new();
        for (index, mut device) in self.devices.drain(..).enumerate() {
            let (load, board, stop) = (load.clone(), self.board.clone(), self.stop.clone());
            // Spread over one interval, or the devices would all send at the same moment.
            let offset = interval.map_or(Duration::ZERO, |i| i.mul_f64(index as f64 / count));
            let window = if load.request.is_some() { load.window.clamp(1, WINDOW_MAX) } else { 0 };
            let start = start + offset;
            let exchange = exchange.clone();
            let pace = Pace { window, start, interval, end, timeout: load.timeout };
            workers.spawn(async move {
                let request = load.request.as_deref();
                let exchange = exchange.as_deref();
                let files = load.files.as_deref();
                let work = Work { pace, request, exchange, files, board: &board, stop: &stop };
                let worked = device.work(work).await;
                if let Some(exchange) = exchange.filter(|exchange| exchange.calls(device.number()))
                {
                    exchange.called();
                }
                match worked {
                    Ok(()) => Some(device),
                    Err(error) => {
                        board.count_dropped(error);
                        None
                    }
                }
            });
        }
        let stop = self.stop.clone();
        let ended = tokio::spawn(async move {
            tokio::select! {
                () = sleep_until(end) => {}
                () = stop.cancelled() => {}
            }
            start.elapsed()
        });
        let devices = workers.join_all().await;
        self.devices = devices.into_iter().flatten().collect();
        self.devices.sort_unstable_by_key(Device::number);
        // When every device has dropped, the load is over before its time.
        let elapsed = if self.devices.is_empty() {
            ended.abort();
            start.elapsed()
        } else {
            ended.await.unwrap_or(load.duration)
        };
        let report = self.board.report(elapsed);
        let files = file_bytes.map(|bytes| Files::of(&report, bytes));
        Report { rows: (rows > 0).then(|| Rows::of(&report, rows)), files, ..report }
    }

    /// What devices share of which the first `callers` have the others execute methods.
    fn exchange(&self, callers: usize) -> Exchange {
        let calling = self.devices.iter().filter(|device| device.number() < callers).count();
        let done = CancellationToken::new();
        if calling == 0 {
            done.cancel();
        }
        Exchange {
            callers,
            devices: self.planned,
            key_prefix: self.key_prefix.clone(),
            epoch: Instant::now(),
            calling: calling.into(),
            done,
        }
    }

    /// What was counted so far, as a run of `elapsed`.
    pub fn report(&self, elapsed: Duration) -> Report {
        self.board.report(elapsed)
    }

    /// Logs every device out and closes the connections.
    pub async fn close(self) {
        let mut closing = JoinSet::new();
        for device in self.devices {
            closing.spawn(device.close());
        }
        closing.join_all().await;
    }
}

/// The servers of a plan, in the order of its URLs.
async fn resolve(plan: &Plan) -> Result<Vec<Target>, PlanError> {
    let mut targets = Vec::with_capacity(plan.urls.len());
    for url in &plan.urls {
        let target = Target::resolve(url).await?;
        if !plan.beyond_loopback && !target.is_loopback() {
            return Err(PlanError::NotLoopback(url.to_string()));
        }
        targets.push(target);
    }
    Ok(targets)
}

#[cfg(test)]
mod tests;
