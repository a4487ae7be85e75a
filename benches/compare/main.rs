//! tr50d beside the floor (`benches/floor`) and mosquitto, in one run: every row of the table in
//! `docs/performance.md`.
//!
//! `cargo bench --bench compare` runs all rows; `-- --help` has the options. Servers run in
//! processes of their own, on loopback, one after the other in each round. Without `--bench`, as
//! `cargo test` calls it, every row is run once with the least of everything, to see that it works.

mod broker;
mod cores;
mod echo;
mod expiry;
mod fan;
mod filters;
#[path = "../floor/mod.rs"]
mod floor;
mod idle;
mod listing;
mod memory;
mod patterns;
mod pings;
mod process;
mod questions;
mod report;
mod round_trips;
mod sessions;
mod table;
mod tls;
mod worker;
mod writes;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use cores::{Cores, Pinning};
use table::Row;

/// What a measurement comes to.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The first argument of a process that serves as the floor.
const SERVE_FLOOR: &str = "serve-floor";

/// The first argument of a process that serves as the worker behind a broker.
const SERVE_WORKER: &str = "serve-worker";

/// Measures tr50d beside the least that a server can do, and beside mosquitto where it is installed.
#[derive(Parser)]
struct Options {
    /// Only these kinds of rows
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Seconds a step
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// How often each server has its turn
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: usize,
    /// Idle MQTT connections
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    connections: usize,
    /// Sessions that are listed and that expire
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    sessions: usize,
    /// Subscribers of one topic, and publishers to one subscriber
    #[arg(long, value_name = "N", default_value_t = 1000)]
    fan: usize,
    /// Distinct topic filters; a hundredth of them is what they are compared with
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    filters: usize,
    /// List out of 1,000,000 sessions too; two minutes more
    #[arg(long)]
    million: bool,
    /// Seconds that sessions last which are to expire; all of them must be able to log in meanwhile
    #[arg(long, value_name = "S", default_value_t = 60)]
    ttl: u64,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write: bool,
    /// Given by `cargo bench`; without it, the least of everything
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// From the command line. Without `--bench`, what is enough to see that everything works, and
    /// the arguments are those of `cargo test`: parts of names.
    fn read() -> Self {
        if std::env::args().any(|arg| arg == "--bench") {
            return Self::parse();
        }
        let wanted = |kind: &Kind| {
            let name = format!("{kind:?}").to_lowercase();
            let mut parts = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
            parts.peek().is_none() || parts.any(|part| name.contains(&part))
        };
        Self {
            kinds: Kind::value_variants().iter().copied().filter(wanted).collect(),
            seconds: 0.1,
            rounds: 1,
            connections: 50,
            sessions: 200,
            fan: 20,
            filters: 2000,
            million: false,
            ttl: 5,
            write: false,
            bench: false,
        }
    }
}

/// The kinds of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// diag.ping over MQTT
    Mqtt,
    /// diag.ping over TCP
    Tcp,
    /// Ordinary MQTT: clients publish what they get back
    Echo,
    /// Ordinary MQTT: one publishes to many, many publish to one
    Fan,
    /// Ordinary MQTT: a message to one of many distinct filters
    Filters,
    /// Ordinary MQTT: others' time while an organisation subscribes to useless patterns
    Patterns,
    /// Ordinary MQTT: memory of a subscription, and of a kept session
    Memory,
    /// CPU of handshakes and echoes over TLS
    Tls,
    /// Others' time while handshakes are stalled, or come without end
    Handshakes,
    /// Request and reply through a broker to a worker
    Worker,
    /// Memory of an idle connection, and what its CONNECT costs
    Idle,
    /// session.list
    List,
    /// Lists with filters, orders and groups, and searches
    Questions,
    /// Telemetry in batches
    Batches,
    /// Durable publishes, one value each
    Singles,
    /// Many sessions that expire at once
    Expiry,
    /// The same with the server, its store included, on one core
    ExpiryApart,
}

impl Kind {
    /// Where server and load run. What is counted by CPU has a core each; what is counted by the
    /// clock has all cores for the server's threads, as it would have in use.
    const fn pinning(self) -> Pinning {
        match self {
            Self::Batches | Self::Singles | Self::Expiry | Self::Handshakes => Pinning::Shared,
            _ => Pinning::Apart,
        }
    }

    async fn rows(self, bench: &Bench) -> Result<Vec<Row>> {
        match self {
            Self::Mqtt => round_trips::over_mqtt(bench).await,
            Self::Tcp => round_trips::over_tcp(bench).await,
            Self::Echo => echo::rows(bench).await,
            Self::Fan => fan::rows(bench).await,
            Self::Filters => filters::rows(bench).await,
            Self::Patterns => patterns::rows(bench).await,
            Self::Memory => memory::rows(bench).await,
            Self::Tls => tls::rows(bench).await,
            Self::Handshakes => tls::others(bench).await,
            Self::Worker => worker::rows(bench).await,
            Self::Idle => idle::rows(bench).await,
            Self::List => listing::rows(bench).await,
            Self::Questions => questions::rows(bench).await,
            Self::Batches => writes::batches(bench).await,
            Self::Singles => writes::singles(bench).await,
            Self::Expiry | Self::ExpiryApart => expiry::rows(bench).await,
        }
    }
}

/// What the rows of one kind share.
struct Bench {
    cores: Cores,
    pinning: Pinning,
    /// Length of a step.
    step: Duration,
    rounds: usize,
    connections: usize,
    sessions: usize,
    fan: usize,
    filters: usize,
    million: bool,
    ttl: Duration,
    /// Folders for what servers store; on the disk that the program was built on.
    root: tempfile::TempDir,
    folders: Cell<usize>,
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        Ok(Self {
            cores: Cores::divide()?,
            pinning: Pinning::Apart,
            step: Duration::from_secs_f64(options.seconds),
            rounds: options.rounds,
            connections: options.connections,
            sessions: options.sessions,
            fan: options.fan,
            filters: options.filters,
            million: options.million,
            ttl: Duration::from_secs(options.ttl),
            root: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
            folders: Cell::new(0),
        })
    }

    /// What a server does after logins that nobody waits for (counters, the store) is over by then.
    fn settling(&self) -> Duration {
        self.step.min(Duration::from_secs(1))
    }

    /// A new folder.
    fn folder(&self) -> Result<PathBuf> {
        let number = self.folders.replace(self.folders.get() + 1);
        let folder = self.root.path().join(number.to_string());
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next().as_deref(), args.next(), args.next()) {
        (Some(SERVE_FLOOR), Some(speech), prepared) => serve_floor(&speech, prepared.as_deref()),
        (Some(SERVE_WORKER), Some(broker), _) => serve_worker(&broker),
        _ => compare(&Options::read()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_floor(speech: &str, prepared: Option<&str>) -> Result<()> {
    let prepared = prepared.map(std::fs::read).transpose()?.map(|bytes| &*bytes.leak());
    Ok(runtime()?.block_on(floor::serve(speech, prepared))?)
}

fn serve_worker(broker: &str) -> Result<()> {
    runtime()?.block_on(worker::serve(broker.parse()?))
}

/// A runtime with a thread for each core that this thread may use.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Runs the rows that are wanted. What fails is told, and the others go on.
fn compare(options: &Options) -> Result<()> {
    raise_file_limit();
    let mut bench = Bench::new(options)?;
    let start = Instant::now();
    let (mut rows, mut failed) = (Vec::new(), 0);
    let all = options.kinds.is_empty() && options.bench;
    for kind in Kind::value_variants() {
        if !all && !options.kinds.contains(kind) {
            continue;
        }
        bench.pinning = kind.pinning();
        bench.cores.take_load(bench.pinning)?;
        match runtime()?.block_on(unless_interrupted(kind.rows(&bench))) {
            None => return Err("interrupted".into()),
            Some(Ok(measured)) => rows.extend(measured),
            Some(Err(error)) => {
                eprintln!("{kind:?} failed: {error}");
                failed += 1;
            }
        }
        eprintln!("{kind:?} done after {:.0} s", start.elapsed().as_secs_f64());
    }
    // Without `--bench` figures mean nothing.
    if options.bench {
        let report = report::text(&bench, &rows)?;
        println!("{report}");
        if options.write {
            report::write(&report)?;
        }
    }
    if failed > 0 { Err(format!("{failed} kinds of rows failed").into()) } else { Ok(()) }
}

/// Ends early at Ctrl-C, so that servers and folders go.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = tokio::signal::ctrl_c() => None,
    }
}

/// Asks for as many open files as this user may have: thousands of connections are tens of
/// thousands of files. What is refused shows when it is needed.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
