//! Processes that act: those of a flood as fast as they can, others a few times a second.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use support::Endpoints;

use super::flood::{Actor, Flood};
use crate::Outcome;
use crate::priority;
use crate::worker_process::{self, WorkerProcess};

/// What the process is told at its start.
#[derive(Args)]
pub(crate) struct HandsArgs {
    flood: Flood,
    /// `flood`, `beside` or `other`
    who: String,
    workers: usize,
    /// Acts a second of all together; 0: as many as go
    per_second: f64,
    /// The listeners, such as `mqtt=127.0.0.1:1883`
    at: Vec<String>,
}

/// How it went since the last time it was asked.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Acts {
    /// Acts that succeeded.
    pub done: u64,
    /// Acts that were refused, and for what.
    pub refused: BTreeMap<String, u64>,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
}

impl Acts {
    /// How many were refused.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// What the workers have counted.
struct Tally {
    took: Histogram<u64>,
    refused: BTreeMap<String, u64>,
}

impl Tally {
    fn new() -> Self {
        let took = Histogram::new(3).expect("three digits are few");
        Self { took, refused: BTreeMap::new() }
    }

    /// Counts an act that was due then.
    fn count(&mut self, done: Result<(), String>, due: Instant) {
        match done {
            // It grows as it has to.
            Ok(()) => drop(self.took.record(due.elapsed().as_micros() as u64)),
            Err(why) => {
                let known = self.refused.len() < REASONS_MAX || self.refused.contains_key(&why);
                let why = if known { why } else { "others".to_owned() };
                *self.refused.entry(why).or_default() += 1;
            }
        }
    }
}

/// Different reasons that are kept.
const REASONS_MAX: usize = 8;

/// The actors' side.
pub(crate) async fn run(args: HandsArgs) -> Outcome<()> {
    if args.per_second == 0.0 {
        // These must not keep those from the core that measure.
        priority::last();
    }
    let mut addresses = BTreeMap::new();
    for at in &args.at {
        let (name, address) = at.split_once('=').ok_or("no listener")?;
        addresses.insert(name.to_owned(), address.parse()?);
    }
    let server = Endpoints::new(addresses, PathBuf::new());
    let (tally, goes) = (Arc::new(Mutex::new(Tally::new())), Arc::new(AtomicBool::new(true)));
    let mut orders = worker_process::orders();
    let mut begun = false;
    while orders.recv().await.is_some() {
        if begun {
            let tally = std::mem::replace(&mut *tally.lock(), Tally::new());
            let done = tally.took.len();
            let p99_ms = tally.took.value_at_quantile(0.99) as f64 / 1000.0;
            worker_process::answer(&Acts { done, refused: tally.refused, p99_ms })?;
            continue;
        }
        begun = true;
        for index in 0..args.workers {
            let actor = Actor::new(args.flood, server.clone(), &args.who, index);
            let pace = (args.per_second > 0.0)
                .then(|| Duration::from_secs_f64(args.workers as f64 / args.per_second));
            tokio::spawn(work(actor, pace, tally.clone(), goes.clone()));
        }
        worker_process::answer(&())?;
    }
    goes.store(false, Ordering::Relaxed);
    Ok(())
}

async fn work(
    mut actor: Actor,
    pace: Option<Duration>,
    tally: Arc<Mutex<Tally>>,
    goes: Arc<AtomicBool>,
) {
    let mut due = Instant::now();
    while goes.load(Ordering::Relaxed) {
        match pace {
            None => due = Instant::now(),
            Some(pace) => {
                due += pace;
                tokio::time::sleep_until(due.into()).await;
            }
        }
        let done = actor.act().await;
        tally.lock().count(done, due);
        tokio::task::yield_now().await;
    }
}

/// A process that acts.
pub(crate) struct Hands(WorkerProcess);

impl Hands {
    /// Starts it, and has it begin.
    pub(crate) async fn start(
        (flood, who): (Flood, &str),
        workers: usize,
        per_second: f64,
        at: &[String],
    ) -> Outcome<Self> {
        let flood = clap::ValueEnum::to_possible_value(&flood).ok_or("no name")?;
        let (workers, per_second) = (workers.to_string(), per_second.to_string());
        let mut args = vec!["hands", flood.get_name(), who, &workers, &per_second];
        args.extend(at.iter().map(String::as_str));
        let mut process = WorkerProcess::spawn(&args)?;
        process.order(&"go")?;
        process.answer::<()>().await?;
        Ok(Self(process))
    }

    /// How it went since the last time.
    pub(crate) async fn report(&mut self) -> Outcome<Acts> {
        self.0.order(&"report")?;
        self.0.answer().await
    }
}
