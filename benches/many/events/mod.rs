//! What others notice of those who follow the stream of events: a hundred readers of ten thousand
//! events a second, in rounds with and without them.
//!
//! Things of one organisation connect and go, and their alarms change. Readers of the same
//! organisation follow that over HTTP, as MQTT topics, and by asking again and again. A principal of
//! another organisation sends diag.ping all the time. Each part of a round lasts some seconds.

mod makers;
mod readers;

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use client::Client;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::cpu_affinity::Cores;
use crate::hostile::BOOTSTRAP;
use crate::probe::{Probe, Waited};
use crate::server::Server;
use crate::table::thousands;
pub(crate) use makers::{Made, Makers, MakersArgs, Making, run as make};
use readers::{Got, Readers};
pub(crate) use readers::{ReadersArgs, endpoints, run as read};

/// The token of those who make and follow events.
const TOKEN: &str = "the-token-of-flood";

/// The token of the others.
const OTHERS_TOKEN: &str = "the-token-of-other";

/// Things that connect and go: three of ten events are theirs.
const VISITORS: u32 = 24;

/// At most so many times as long as without readers, if not within the spread without them.
pub(crate) const GOAL: f64 = 1.1;

/// How long readers may take for what they have not read when no more events come.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// Rates that are none of what is measured.
pub(crate) const RATES: [&str; 4] = [
    "TR50D_LIMITS__COMMANDS_PER_S",
    "TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S",
    "TR50D_LIMITS__ORG_COMMANDS_PER_S",
    "TR50D_LIMITS__LOGINS_PER_S",
];

/// What is asked for.
#[derive(Args)]
pub(crate) struct EventsArgs {
    /// Rounds, each without and with readers
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// How long each part of a round takes
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    /// Events a second, of sessions and of alarms together
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rate: u32,
    /// Readers: over HTTP, by MQTT, by asking
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "34,33,33")]
    readers: Vec<usize>,
    /// Another server's program, to compare
    #[arg(long, value_name = "FILE")]
    program: Option<String>,
    /// Settings of the server, such as TR50D_LIMITS__LOGINS_PER_S=0
    #[arg(long, value_name = "NAME=VALUE")]
    setting: Vec<String>,
}

/// A part of a round.
struct Part {
    others: Waited,
    /// Of a core, what the server used.
    cores: f64,
}

/// What readers did in a round.
struct Followed {
    part: Part,
    made: Made,
    got: Vec<Got>,
    /// How many events the last of them was behind when the last was made.
    behind: u64,
}

struct Bench<'a> {
    args: &'a EventsArgs,
    server: Server,
    at: Vec<String>,
    makers: Makers,
    length: Duration,
}

/// Runs the rounds and prints the table.
pub(crate) async fn run(args: EventsArgs, cores: Option<&Cores>) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let bootstrap = dir.path().join("bootstrap.toml");
    std::fs::write(&bootstrap, BOOTSTRAP)?;
    let mut settings = vec![("TR50D_SERVER__BOOTSTRAP", bootstrap.display().to_string())];
    for rate in RATES {
        settings.push((rate, "0".to_owned()));
    }
    for setting in &args.setting {
        let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
        settings.push((name, value.to_owned()));
    }
    let program = args.program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tr50d"));
    let data = dir.path().join("data");
    let (server, _) = Server::start_program(program, &data, cores, &settings, None).await?;
    let at: Vec<_> =
        server.addresses().iter().map(|(name, address)| format!("{name}={address}")).collect();
    let sessions = args.rate * 3 / 10;
    let (visitors, alarms) = (VISITORS, args.rate - sessions);
    let making = Making { token: TOKEN, sessions, visitors, stay: Duration::ZERO, alarms };
    let makers = Makers::start(&making, &at).await?;
    let length = Duration::from_secs(args.seconds);
    let mut bench = Bench { args: &args, server, at, makers, length };
    let mut rounds = Vec::new();
    let pinned = cores.map_or("not pinned".to_owned(), ToString::to_string);
    println!("{pinned}\n\n{HEAD}");
    for number in 0..args.rounds {
        let quiet = bench.quiet().await?;
        // In turn: what comes second finds more on the disk.
        let (without, with) = match number % 2 {
            0 => (bench.without().await?, bench.with().await?),
            _ => {
                let with = bench.with().await?;
                (bench.without().await?, with)
            }
        };
        print!("{}", row_of(number + 1, &args.readers, (&quiet, &without, &with))?);
        rounds.push((quiet.others.p99_ms, without.0.others.p99_ms, with.part.others.p99_ms));
    }
    println!("\n{}", summary(&rounds));
    Ok(())
}

impl Bench<'_> {
    async fn probe(&self) -> Outcome<Probe> {
        Probe::start(&self.server.thing_url("", OTHERS_TOKEN)?).await
    }

    /// Nobody makes events.
    async fn quiet(&self) -> Outcome<Part> {
        let probe = self.probe().await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        sleep(self.length).await;
        self.part(probe, start, cpu).await
    }

    async fn part(&self, probe: Probe, start: Instant, cpu: Duration) -> Outcome<Part> {
        let cores = (self.server.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(Part { others: probe.stop().await?, cores })
    }

    /// Events that nobody follows.
    async fn without(&mut self) -> Outcome<(Part, Made)> {
        let probe = self.probe().await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let made = self.makers.make(self.length).await?;
        Ok((self.part(probe, start, cpu).await?, made))
    }

    /// Events that all readers follow.
    async fn with(&mut self) -> Outcome<Followed> {
        let mut readers = Readers::start(&self.args.readers, &self.at).await?;
        let probe = self.probe().await?;
        // What came of the logins is not counted.
        sleep(SETTLED).await;
        readers.report().await?;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let made = self.makers.make(self.length).await?;
        let part = self.part(probe, start, cpu).await?;
        let last = self.last().await?;
        let mut got = readers.report().await?;
        let behind = got.iter().map(|got| last.saturating_sub(got.last)).max().unwrap_or(0);
        let end = Instant::now() + CATCH_UP_MAX;
        let has_all = |got: &[Got]| got.iter().all(|got| got.events >= made.events);
        let (mut before, mut unchanged) = (0, 0);
        while !has_all(&got) && Instant::now() < end {
            sleep(SETTLED).await;
            got = readers.report().await?;
            let sum = got.iter().map(|got| got.events).sum();
            unchanged = if std::mem::replace(&mut before, sum) == sum { unchanged + 1 } else { 0 };
            if unchanged == 4 {
                break;
            }
        }
        Ok(Followed { part, made, got, behind })
    }

    /// The number of the last event.
    async fn last(&self) -> Outcome<u64> {
        #[derive(Deserialize)]
        struct Listed {
            last: u64,
        }
        let mut client = Client::connect(&self.server.thing_url("asks", TOKEN)?).await?;
        let listed = client.call("event.list", Some(r#"{"limit":1}"#)).await?;
        let last = listed.succeeded()?.params::<Listed>()?.last;
        client.close().await;
        Ok(last)
    }
}

/// Longer than what was asked of the server before takes.
const SETTLED: Duration = Duration::from_millis(500);

const HEAD: &str = "| round | nobody makes events: p50, p99; cores | events, no readers | with readers | p99 \
     with to without | made a second | the least that a reader over HTTP, by MQTT, by \
     asking got of those made | behind at the end | lost, \
     resyncs, ended |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |";

fn row_of(
    number: usize,
    readers: &[usize],
    (quiet, (without, _), with): (&Part, &(Part, Made), &Followed),
) -> Outcome<String> {
    let mut row = String::new();
    let waited = |part: &Part| {
        let Waited { p50_ms, p99_ms, lost, refused, .. } = part.others;
        let missing = match lost + refused {
            0 => String::new(),
            missing => format!("; {missing} not answered"),
        };
        format!("{p50_ms:.2}, {p99_ms:.2} ms; {:.2}{missing}", part.cores)
    };
    let made = with.made.events;
    let (mut rest, mut least) = (&with.got[..], Vec::new());
    for count in readers {
        let (these, others) = rest.split_at((*count).min(rest.len()));
        let fewest = these.iter().map(|got| got.events).min();
        least.push(fewest.map_or("-".to_owned(), |fewest| thousands(fewest as usize)));
        rest = others;
    }
    let lost: u64 = with.got.iter().map(|got| made.saturating_sub(got.events)).sum();
    let resyncs: u64 = with.got.iter().map(|got| got.resyncs).sum();
    let ended = with.got.iter().filter(|got| got.ended).count();
    let failed = match with.made.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    writeln!(
        row,
        "| {number} | {} | {} | {} | {:.2} × | {}{failed} | {} of {} | {} | {}, {resyncs}, {ended} |",
        waited(quiet),
        waited(without),
        waited(&with.part),
        with.part.others.p99_ms / without.others.p99_ms,
        thousands((made as f64 / with.made.seconds) as usize),
        least.join("; "),
        thousands(made as usize),
        thousands(with.behind as usize),
        thousands(lost as usize),
    )?;
    Ok(row)
}

/// What all rounds together say.
fn summary(rounds: &[(f64, f64, f64)]) -> String {
    let of = |of: fn(&(f64, f64, f64)) -> f64| Spread::of(rounds.iter().map(of));
    let (quiet, without, with) = (of(|round| round.0), of(|round| round.1), of(|round| round.2));
    let ratio = with.median / without.median;
    let met = if with.is_within(&without) { "met" } else { "**missed**" };
    format!(
        "| p99 of diag.ping of others, of {} rounds | nobody makes events | events, no readers | with \
         readers | ratio of the medians | goal |\n| --- | --- | --- | --- | --- | --- |\n| | {} | {} | \
         {} | {ratio:.2} × | within the spread without readers, or ≤ {GOAL:.2} ×: {met} |",
        rounds.len(),
        quiet.ms(),
        without.ms(),
        with.ms(),
    )
}

/// What is the same in all rounds, more or less.
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these.
    pub(crate) fn of(all: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<_> = all.collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(0.0);
        Self { least: at(0), median: at(all.len() / 2), most: at(all.len().saturating_sub(1)) }
    }

    /// Whether it reaches the goal beside what is without.
    pub(crate) fn is_within(&self, without: &Self) -> bool {
        self.median / without.median <= GOAL || self.median <= without.most
    }

    /// As milliseconds.
    pub(crate) fn ms(&self) -> String {
        let Self { least, median, most } = self;
        format!("{median:.2} ms ({least:.2} to {most:.2})")
    }
}
