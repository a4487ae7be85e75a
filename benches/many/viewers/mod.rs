//! What people who look at the console cost the server, and what others notice of them.
//!
//! There are 100,000 sessions over HTTP; things connect, stay a while and go. A hundred people who have
//! logged in look at the list of sessions, in rounds with and without them, while things of another
//! organisation send diag.ping all the time. `--browser` has a browser look besides, and says what
//! that costs its main thread and its heap.

mod fill;
mod watchers;

use std::process::Command;
use std::time::Duration;

use clap::Args;
use support::TOKEN;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::cpu_affinity::Cores;
use crate::events::{GOAL, Made, Makers, Making, RATES, Spread};
use crate::probe::{Probe, Waited};
use crate::server::Server;
use crate::table::thousands;
use watchers::{Seen, Watchers};
pub(crate) use watchers::{WatchersArgs, run as watch};

/// The token of the others, who are in an organisation beside.
const OTHERS_TOKEN: &str = "demo-token-yorkorg";

/// How long things that connect and go are away.
const AWAY_MS: u64 = 200;

/// Longer than what comes of a login, or of the first look at a list.
const SETTLED: Duration = Duration::from_secs(1);

/// Of a core, at most so much for a viewer.
const CORE_GOAL: f64 = 0.001;

/// What is asked for.
#[derive(Args)]
pub(crate) struct ViewersArgs {
    /// Rounds, each without and with viewers
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// How long each part of a round takes
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// Session starts and ends a second
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u32,
    /// How long those that start stay, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    stay: u64,
    /// Sessions that stay all the time
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    sessions: usize,
    /// Who looks
    #[arg(long, value_name = "N", default_value_t = 100)]
    viewers: usize,
    /// Parts of the list: viewers of the same one share it
    #[arg(long, value_name = "N", default_value_t = 1)]
    parts: usize,
    /// Behind the rounds, a browser for so many seconds
    #[arg(long, value_name = "SECONDS")]
    browser: Option<u64>,
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
    made: Made,
}

struct Bench<'a> {
    args: &'a ViewersArgs,
    server: Server,
    makers: Makers,
    watchers: Watchers,
}

/// Runs the rounds and prints the table.
pub(crate) async fn run(args: ViewersArgs, cores: Option<&Cores>) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let mut settings = vec![("TR50D_LIMITS__SESSIONS", "2000000".to_owned())];
    settings.extend(RATES.map(|rate| (rate, "0".to_owned())));
    for setting in &args.setting {
        let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
        settings.push((name, value.to_owned()));
    }
    let program = args.program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tr50d"));
    let (server, _) = Server::start_program(program, dir.path(), cores, &settings, None).await?;
    let at: Vec<_> =
        server.addresses().iter().map(|(name, address)| format!("{name}={address}")).collect();
    let http = *server.addresses().get("http").ok_or("the server does not listen")?;
    fill::log_in(http, args.sessions).await?;
    let visitors = u64::from(args.rate / 2) * (args.stay + AWAY_MS) / 1000;
    let making = Making {
        token: TOKEN,
        sessions: args.rate,
        visitors: u32::try_from(visitors)?.max(1),
        stay: Duration::from_millis(args.stay),
        alarms: 0,
    };
    let makers = Makers::start(&making, &at).await?;
    let watchers = Watchers::start(args.viewers, args.parts, &at).await?;
    let mut bench = Bench { args: &args, server, makers, watchers };
    let pinned = cores.map_or("not pinned".to_owned(), ToString::to_string);
    let stay = thousands(args.sessions);
    println!("{pinned}; {stay} sessions stay all the time, others {} ms\n", args.stay);
    if args.rounds > 0 {
        bench.rounds().await?;
    }
    match args.browser {
        Some(seconds) => bench.browse(seconds).await,
        None => Ok(()),
    }
}

impl Bench<'_> {
    async fn rounds(&mut self) -> Outcome<()> {
        println!("{HEAD}");
        let mut rounds = Vec::new();
        for number in 0..self.args.rounds {
            // In turn: what comes second finds more on the disk.
            let (without, (with, seen)) = match number % 2 {
                0 => (self.without().await?, self.with().await?),
                _ => {
                    let with = self.with().await?;
                    (self.without().await?, with)
                }
            };
            let each = (with.cores - without.cores) / self.args.viewers as f64;
            println!("{}", row_of(number + 1, &without, &with, each, &seen, self.args));
            rounds.push((without.others.p99_ms, with.others.p99_ms, each));
        }
        println!("\n{}", summary(&rounds));
        Ok(())
    }

    /// Sessions start and end; others are watched.
    async fn part(&mut self) -> Outcome<Part> {
        let probe = Probe::start(&self.server.thing_url("", OTHERS_TOKEN)?).await?;
        sleep(SETTLED).await;
        let (start, cpu) = (Instant::now(), self.server.cpu()?);
        let made = self.makers.make(Duration::from_secs(self.args.seconds)).await?;
        let cores = (self.server.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(Part { others: probe.stop().await?, cores, made })
    }

    /// Nobody looks.
    async fn without(&mut self) -> Outcome<Part> {
        self.part().await
    }

    /// All look.
    async fn with(&mut self) -> Outcome<(Part, Vec<Seen>)> {
        self.watchers.open().await?;
        let part = self.part().await?;
        Ok((part, self.watchers.close().await?))
    }

    /// A browser looks, while sessions start and end.
    async fn browse(&mut self, seconds: u64) -> Outcome<()> {
        let address = |protocol| {
            let address = self.server.addresses().get(protocol);
            address.map(ToString::to_string).ok_or("the server does not listen")
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/console/measure.mjs");
        let mut node = Command::new("node");
        node.args([script, &format!("http://{}", address("http")?), &address("tcp")?]);
        let mut node = node.arg(seconds.to_string()).spawn()?;
        // It ends by itself in any case.
        let ended = tokio::task::spawn_blocking(move || node.wait());
        let making = async {
            loop {
                let made = self.makers.make(Duration::from_secs(self.args.seconds)).await;
                if let Err(error) = made {
                    break error;
                }
            }
        };
        tokio::select! {
            status = ended => match status??.success() {
                true => Ok(()),
                false => Err("the browser failed".into()),
            },
            error = making => Err(error),
        }
    }
}

const HEAD: &str = "| round | diag.ping of others without viewers: p50, p99; cores | with viewers | \
     p99 with to without | of a core, a viewer | windows a second of each, kB of each; ended | \
     starts and ends a second |\n| --- | --- | --- | --- | --- | --- | --- |";

fn row_of(
    number: usize,
    without: &Part,
    with: &Part,
    each: f64,
    seen: &[Seen],
    args: &ViewersArgs,
) -> String {
    let waited = |part: &Part| {
        let Waited { p50_ms, p99_ms, lost, refused, .. } = part.others;
        let missing = match lost + refused {
            0 => String::new(),
            missing => format!("; {missing} not answered"),
        };
        format!("{p50_ms:.2}, {p99_ms:.2} ms; {:.3}{missing}", part.cores)
    };
    let windows: u64 = seen.iter().map(|seen| seen.windows).sum();
    let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
    let ended = seen.iter().filter(|seen| seen.ended).count();
    let watched = with.made.seconds * args.viewers as f64;
    let failed = match with.made.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    format!(
        "| {number} | {} | {} | {:.2} × | {:.3} % | {:.1}, {:.1}; {ended} | {}{failed} |",
        waited(without),
        waited(with),
        with.others.p99_ms / without.others.p99_ms,
        each * 100.0,
        windows as f64 / watched,
        bytes as f64 / 1000.0 / (windows as f64).max(1.0),
        thousands((with.made.events as f64 / with.made.seconds) as usize),
    )
}

/// What all rounds together say.
fn summary(rounds: &[(f64, f64, f64)]) -> String {
    let of = |of: fn(&(f64, f64, f64)) -> f64| Spread::of(rounds.iter().map(of));
    let (without, with, each) = (of(|round| round.0), of(|round| round.1), of(|round| round.2));
    let said = |met| if met { "met" } else { "**missed**" };
    format!(
        "| of {} rounds | without viewers | with viewers | ratio of the medians | goal |\n\
         | --- | --- | --- | --- | --- |\n\
         | p99 of diag.ping of others | {} | {} | {:.2} × | within the spread without viewers, or ≤ \
         {GOAL:.2} ×: {} |\n\
         | of a core, a viewer | | {:.3} % ({:.3} to {:.3}) | | ≤ {:.1} %: {} |",
        rounds.len(),
        without.ms(),
        with.ms(),
        with.median / without.median,
        said(with.is_within(&without)),
        each.median * 100.0,
        each.least * 100.0,
        each.most * 100.0,
        CORE_GOAL * 100.0,
        said(each.median <= CORE_GOAL),
    )
}
