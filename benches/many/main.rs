//! Many connections to one server: how fast they come, what they cost, and whether others notice.
//!
//! `cargo bench --bench many` starts the server as a process of its own and connects as many idle
//! MQTT devices as the limit of open files lets have, 50,000 at most, from processes of their own
//! and over several loopback addresses. `cargo bench --bench many -- --in-memory` has 50,000 of them
//! in any case, as streams in memory that the real MQTT edge serves in this process, and measures
//! what a connection takes, part by part. `-- --start 1000000` connects nobody: it measures a start
//! with so many things, sessions over HTTP and retained messages in the store. `-- hostile` has one
//! principal take all that it can get, in each of many ways, and says what others notice. `-- events`
//! has a hundred readers follow ten thousand events a second, and says the same. `-- viewers` has a
//! hundred people look at the console's list of 100,000 sessions, of which 1,000 a second start or end.
//!
//! Fifty other devices send commands all the time; what they wait tells what a step costs others.
//! Server and load are pinned to cores of their own where there are two and `taskset` is installed.

mod cpu_affinity;
mod devices;
mod events;
mod hostile;
mod in_memory;
mod login_flood;
mod parts;
mod priority;
mod probe;
mod server;
mod sockets;
mod start;
mod table;
mod viewers;
mod wire;
mod worker_process;

use std::process::ExitCode;

use cap::Cap;
use clap::{Parser, Subcommand, ValueEnum};
use devices::DevicesArgs;
use events::{EventsArgs, MakersArgs, ReadersArgs};
use hostile::{HandsArgs, HostileArgs};
use probe::ProbeArgs;
use tr50d::descriptors::{self, Shares};
use viewers::{ViewersArgs, WatchersArgs};

/// Says how much the program holds; the server in its own process has another one.
#[global_allocator]
static ALLOCATOR: Cap<mimalloc::MiMalloc> = Cap::new(mimalloc::MiMalloc, usize::MAX);

/// As many as the figures in `docs/performance.md` are for.
const CONNECTIONS: usize = 50_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Many connections to one server.
#[derive(Parser)]
struct Args {
    /// How many; otherwise 50,000, or as many as the limit of open files lets have
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Streams in memory, and the server in this process: what a connection takes, by part
    #[arg(long, conflicts_with = "step")]
    in_memory: bool,
    /// No connections: a start with so many things, sessions over HTTP and retained messages
    #[arg(long, value_name = "N", conflicts_with_all = ["in_memory", "step", "connections"])]
    start: Option<usize>,
    /// Only this step, and what it needs
    #[arg(long)]
    step: Option<Step>,
    /// What cargo says to every bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What is done with the connections, in this order.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Page by page through all sessions
    List,
    /// All devices are killed at once, and come back
    Lose,
    /// The server is told to stop, and all come back
    Stop,
    /// The server is killed, and all come back
    Kill,
    /// All sessions are due in the same second
    Expire,
    /// One command ends all sessions
    End,
    /// People log in by password
    LoginFlood,
}

#[derive(Subcommand)]
enum Part {
    /// What others notice of a principal that takes all it can get
    Hostile(HostileArgs),
    /// What others notice of those who follow a flood of events
    Events(EventsArgs),
    /// What people who look at the console cost, and what others notice of them
    Viewers(ViewersArgs),
    /// Somebody who does one thing all the time
    #[command(hide = true)]
    Hands(HandsArgs),
    /// Those who make events, told over standard input for how long
    #[command(hide = true)]
    Makers(MakersArgs),
    /// Those who follow events, and say how many they got
    #[command(hide = true)]
    Readers(ReadersArgs),
    /// Those who look at a list of the console, told over standard input when
    #[command(hide = true)]
    Watchers(WatchersArgs),
    /// A part of the devices, told over standard input what to do
    #[command(hide = true)]
    Devices(DevicesArgs),
    /// Devices that send commands, and say how long the answers took
    #[command(hide = true)]
    Probe(ProbeArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    descriptors::raise();
    let cores = match &args.part {
        Some(Part::Probe(_) | Part::Hands(_)) => None,
        Some(Part::Devices(_) | Part::Makers(_) | Part::Readers(_) | Part::Watchers(_)) => {
            // These must not keep those from the core that measure. Where it is not allowed, the
            // figures are a little worse.
            let _ = rustix::process::nice(10);
            None
        }
        None if args.in_memory => None,
        Some(Part::Hostile(_) | Part::Events(_) | Part::Viewers(_)) | None => {
            cpu_affinity::pin_load()
        }
    };
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = runtime.block_on(async {
        match args.part {
            Some(Part::Devices(args)) => devices::run(args).await,
            Some(Part::Probe(args)) => probe::run(args).await,
            Some(Part::Hands(args)) => hostile::act(args).await,
            Some(Part::Hostile(args)) => hostile::run(args, cores.as_ref()).await,
            Some(Part::Events(args)) => events::run(args, cores.as_ref()).await,
            Some(Part::Makers(args)) => events::make(args).await,
            Some(Part::Readers(args)) => events::read(args).await,
            Some(Part::Viewers(args)) => viewers::run(args, cores.as_ref()).await,
            Some(Part::Watchers(args)) => viewers::watch(args).await,
            None if args.start.is_some() => {
                start::run(args.start.unwrap_or_default(), cores.as_ref()).await
            }
            None if args.in_memory => in_memory::run(args.connections.unwrap_or(CONNECTIONS)).await,
            None => {
                let count = args.connections.unwrap_or_else(most);
                sockets::run(count, args.step, cores.as_ref()).await
            }
        }
    });
    runtime.shutdown_background();
    done.map_or_else(|error| fail(&*error), |()| ExitCode::SUCCESS)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("many: {error}");
    ExitCode::FAILURE
}

/// As many as the server can have beside those that measure.
fn most() -> usize {
    let others = 2 * probe::DEVICES;
    Shares::of_process(CONNECTIONS + others).connections.saturating_sub(others)
}
