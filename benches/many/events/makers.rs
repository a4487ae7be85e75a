//! Those who make events: things that connect and go, and things whose alarms change.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use client::{Client, Options, Target};
use serde::{Deserialize, Serialize};
use support::Endpoints;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::readers::endpoints;
use crate::Outcome;
use crate::worker_process::{self, WorkerProcess};

/// Things with an alarm, the other events.
const ALARMED: u32 = 20;

/// What the process is told at its start.
#[derive(Args)]
pub(crate) struct MakersArgs {
    /// Whose token all log in with
    token: String,
    /// Session starts and ends a second
    sessions: u32,
    /// Things that connect and go, one session after the other
    visitors: u32,
    /// How long each stays, in milliseconds
    stay_ms: u64,
    /// Changes of alarms a second
    alarms: u32,
    /// The listeners, such as `mqtt=127.0.0.1:1883`
    at: Vec<String>,
}

/// What was made.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Events.
    pub(crate) events: u64,
    /// Logins and commands that failed.
    pub(crate) failed: u64,
    /// In this time.
    pub(crate) seconds: f64,
}

#[derive(Default)]
struct Tally {
    events: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count(&self, done: bool, events: u64) {
        match done {
            true => self.events.fetch_add(events, Ordering::Relaxed),
            false => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// The makers' side: each order says for how many seconds.
pub(crate) async fn run(args: MakersArgs) -> Outcome<()> {
    let server = endpoints(&args.at)?;
    let mut alarmed = Vec::new();
    let alarmed_things = if args.alarms > 0 { ALARMED } else { 0 };
    for number in 0..alarmed_things {
        let url = server.url("mqtt", &format!("a{number}"), &args.token);
        alarmed.push(Client::connect(&url).await?);
    }
    // Whoever visits is known by then.
    let mut visits = Vec::new();
    for number in 0..args.visitors {
        let mut visitor = Visitor::new(&server, number, &args.token).await?;
        visitor.visit(Duration::ZERO).await?;
        visits.push(visitor);
    }
    let visit_pace = pace_of(args.visitors, f64::from(args.sessions) / 2.0);
    let alarm_pace = pace_of(ALARMED, f64::from(args.alarms));
    let stay = Duration::from_millis(args.stay_ms);
    worker_process::answer(&())?;
    let mut orders = worker_process::orders();
    while let Some(line) = orders.recv().await {
        let length = Duration::from_secs_f64(serde_json::from_str(&line)?);
        let tally = Arc::<Tally>::default();
        let start = Instant::now();
        let (mut visiting, mut alarming) = (JoinSet::new(), JoinSet::new());
        for mut visitor in visits.drain(..) {
            let (tally, pace) = (tally.clone(), visit_pace);
            let share = f64::from(visitor.number) / f64::from(args.visitors);
            visiting.spawn(async move {
                let mut due = start + pace.mul_f64(share);
                while due < start + length {
                    sleep_until(due).await;
                    tally.count(visitor.visit(stay).await.is_ok(), 2);
                    due += pace;
                }
                visitor
            });
        }
        for (number, mut client) in (0_u32..).zip(alarmed.drain(..)) {
            let (tally, pace) = (tally.clone(), alarm_pace);
            alarming.spawn(async move {
                let mut due = start + pace.mul_f64(f64::from(number) / f64::from(ALARMED));
                let mut state = 0;
                while due < start + length {
                    sleep_until(due).await;
                    state += 1;
                    let params = format!(r#"{{"key":"heat","state":{state},"msg":"it is warm"}}"#);
                    let reply = client.call("alarm.publish", Some(&params)).await;
                    tally.count(reply.is_ok_and(|reply| reply.success()), 1);
                    due += pace;
                }
                client
            });
        }
        visits = visiting.join_all().await;
        alarmed = alarming.join_all().await;
        let seconds = start.elapsed().as_secs_f64();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (events, failed) = (read(&tally.events), read(&tally.failed));
        worker_process::answer(&Made { events, failed, seconds })?;
    }
    Ok(())
}

/// How often each acts if all together act so many times a second, or hardly ever.
fn pace_of(makers: u32, per_second: f64) -> Duration {
    Duration::from_secs_f64(f64::from(makers) / per_second.max(0.001))
}

/// A thing that connects and goes again and again.
struct Visitor {
    url: client::Url,
    target: Target,
    number: u32,
    visits: u32,
}

impl Visitor {
    async fn new(server: &Endpoints, number: u32, token: &str) -> Outcome<Self> {
        let url = server.url("mqtt", &format!("v{number}"), token);
        Ok(Self { target: Target::resolve(&url).await?, url, number, visits: 0 })
    }

    async fn visit(&mut self, stay: Duration) -> Outcome<()> {
        self.visits += 1;
        // A port that was used can't be used again for a minute.
        let [_, _, high, low] = (self.visits / 400).to_be_bytes();
        let block = 20 + (self.number % 200) as u8;
        let source = IpAddr::V4(Ipv4Addr::new(127, block, high, low.max(1)));
        let options = Options { source: Some(source), ..Options::default() };
        let client = Client::connect_to(&self.target, &self.url, &options).await?;
        sleep(stay).await;
        client.close().await;
        Ok(())
    }
}

/// What is made, as the process is told.
pub(crate) struct Making<'a> {
    /// Whose token all log in with.
    pub(crate) token: &'a str,
    /// Session starts and ends a second.
    pub(crate) sessions: u32,
    /// Things that connect and go.
    pub(crate) visitors: u32,
    /// How long each stays.
    pub(crate) stay: Duration,
    /// Changes of alarms a second.
    pub(crate) alarms: u32,
}

/// A process that makes events.
pub(crate) struct Makers(WorkerProcess);

impl Makers {
    /// Starts it; nothing happens yet.
    pub(crate) async fn start(making: &Making<'_>, at: &[String]) -> Outcome<Self> {
        let numbers = [
            making.sessions.to_string(),
            making.visitors.to_string(),
            making.stay.as_millis().to_string(),
            making.alarms.to_string(),
        ];
        let mut args = vec!["makers", making.token];
        args.extend(numbers.iter().chain(at).map(String::as_str));
        let mut process = WorkerProcess::spawn(&args)?;
        process.answer::<()>().await?;
        Ok(Self(process))
    }

    /// Has events made for so long.
    pub(crate) async fn make(&mut self, length: Duration) -> Outcome<Made> {
        self.0.order(&length.as_secs_f64())?;
        self.0.answer().await
    }
}
