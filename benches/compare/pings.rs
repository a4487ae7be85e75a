//! Clients that ask something at a rate and remember how long each answer took, and when.

use std::time::Duration;

use client::Client;
use mqtt::QoS;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Result;
use super::broker::{self, Broker, PAYLOAD};
use super::process::Server;
use super::round_trips::CLIENTS;

/// All clients together.
const PINGS_PER_S: u32 = 2000;

/// Who asks.
enum Asker {
    /// A client that sends diag.ping.
    Command(Client),
    /// A client of a broker, and its topic, to which it has subscribed.
    Echo(broker::Client, String),
}

/// Clients that ask until they are told to stop.
pub(crate) struct Pings {
    working: JoinSet<std::result::Result<Vec<Ping>, String>>,
    stop: CancellationToken,
}

/// One question.
#[derive(Clone, Copy)]
struct Ping {
    due: Instant,
    took: Duration,
}

/// All that were answered.
pub(crate) struct Pinged(Vec<Ping>);

impl Pings {
    /// Connects clients over MQTT and lets them send diag.ping.
    pub(crate) async fn start(server: &Server, token: &str) -> Result<Self> {
        let mut askers = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let url = server.url_of("mqtt", &format!("pinging-{number}"), token)?;
            askers.push(Asker::Command(Client::connect(&url).await?));
        }
        Ok(Self::begin(askers))
    }

    /// Connects clients of a broker and lets them publish what they get back, with QoS 0.
    pub(crate) async fn start_echoes(broker: Broker) -> Result<Self> {
        let mut askers = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let mut client = broker::Client::connect(broker, &format!("echoing-{number}")).await?;
            // Deep enough for patterns to come into question.
            let topic = format!("echo/{number}/value/now");
            client.subscribe(std::slice::from_ref(&topic), QoS::AtMostOnce).await?;
            askers.push(Asker::Echo(client, topic));
        }
        Ok(Self::begin(askers))
    }

    fn begin(askers: Vec<Asker>) -> Self {
        let (mut working, stop) = (JoinSet::new(), CancellationToken::new());
        let interval = Duration::from_secs(1) * CLIENTS as u32 / PINGS_PER_S;
        for (number, asker) in askers.into_iter().enumerate() {
            // Spread over one interval, or they would all send at the same moment.
            let first = Instant::now() + interval.mul_f64(number as f64 / CLIENTS as f64);
            working.spawn(ping(asker, first, interval, stop.clone()));
        }
        Self { working, stop }
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<Pinged> {
        self.stop.cancel();
        let mut all = Vec::new();
        while let Some(done) = self.working.join_next().await {
            all.extend(done??);
        }
        Ok(Pinged(all))
    }
}

async fn ping(
    mut asker: Asker,
    first: Instant,
    interval: Duration,
    stop: CancellationToken,
) -> std::result::Result<Vec<Ping>, String> {
    let (mut pings, mut due) = (Vec::new(), first);
    while !stop.is_cancelled() {
        let late = Instant::now() > due;
        sleep_until(due).await;
        // One that waited for its forerunner counts from when it was due: a server that stalls must
        // not look fast because it was asked less. One that waited for the timer counts from now.
        let begin = if late { due } else { Instant::now() };
        asker.ask().await.map_err(|error| error.to_string())?;
        pings.push(Ping { due, took: begin.elapsed() });
        due += interval;
    }
    if let Asker::Command(client) = asker {
        client.close().await;
    }
    Ok(pings)
}

impl Asker {
    async fn ask(&mut self) -> Result<()> {
        match self {
            Self::Echo(client, topic) => client.echo(topic, PAYLOAD).await,
            Self::Command(client) => {
                let reply = client.call("diag.ping", None).await?;
                match reply.success() {
                    true => Ok(()),
                    false => Err(format!("a diag.ping failed: {}", reply.as_json()).into()),
                }
            }
        }
    }
}

impl Pinged {
    /// The time in milliseconds within which 99 % of those were answered that were due in a span;
    /// none if there were none.
    pub(crate) fn p99_ms(&self, from: Instant, until: Instant) -> Option<f64> {
        let within = |ping: &&Ping| (from..until).contains(&ping.due);
        let mut took: Vec<_> = self.0.iter().filter(within).map(|ping| ping.took).collect();
        took.sort_unstable();
        let rank = (took.len() * 99).div_ceil(100).checked_sub(1)?;
        took.get(rank).map(|took| took.as_secs_f64() * 1000.0)
    }
}
