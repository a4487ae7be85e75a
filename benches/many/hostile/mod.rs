//! What others notice of one who takes all that it can get: each flood against a fresh server.
//!
//! A principal of one organisation floods. Another principal of the same organisation, and one of
//! another organisation, send diag.ping all the time, and a few times a second do what the flood does.
//! The flood is bounded by its time and by what one process can hold open.

mod flood;
mod hands;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base::Timestamp;
use clap::{Args, ValueEnum};
use client::{Client, Url};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::cpu_affinity::Cores;
use crate::probe::{Probe, Waited};
use crate::server::Server;
use flood::{Flood, THINGS};
pub(crate) use hands::HandsArgs;
use hands::{Acts, Hands};

pub(crate) use hands::run as act;

/// Who organisations and users are.
pub(crate) const BOOTSTRAP: &str = include_str!("bootstrap.toml");

/// Who floods, and who notices.
const LOUD: &str = "flood";
const OTHERS: [(&str, &str); 2] =
    [("other", "another organisation"), ("beside", "another principal of the same")];

/// Workers of a flood.
const WORKERS: usize = 64;

/// Acts a second of those who notice.
const PACE: f64 = 10.0;

/// How long others are watched without a flood.
const QUIET: Duration = Duration::from_secs(3);

/// How long after a flood memory is looked at.
const AFTER: Duration = Duration::from_secs(5);

/// At most so many times as long as without the flood.
const GOAL: f64 = 2.0;

/// What is asked for.
#[derive(Args)]
pub(crate) struct HostileArgs {
    /// Which floods; all by default
    floods: Vec<Flood>,
    /// How long each takes
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// Settings of the server, such as TR50D_LIMITS__LOGINS_PER_S=0
    #[arg(long, value_name = "NAME=VALUE")]
    setting: Vec<String>,
    /// Puts the table into docs/performance.md
    #[arg(long)]
    write: bool,
}

/// Runs the floods and prints the table.
pub(crate) async fn run(args: HostileArgs, cores: Option<&Cores>) -> Outcome<()> {
    let floods = match args.floods.is_empty() {
        true => Flood::value_variants(),
        false => &args.floods,
    };
    let pinned = cores.map_or("not pinned".to_owned(), ToString::to_string);
    let mut table = format!(
        "{pinned}\n\n\
         | flood; who notices | diag.ping p99: quiet, during | ratio | the same act p99: quiet, \
         during | refused | resident: before, peak, after | the flood got; was refused |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for flood in floods {
        let rows = one(*flood, &args, cores).await?;
        eprint!("{rows}");
        table += &rows;
    }
    println!("\n{table}");
    if args.write { write(&table) } else { Ok(()) }
}

/// Between these lines of the page is what the program writes.
const BEGIN: &str = "<!-- cargo bench --bench many -- hostile --write: from here -->";
const END: &str = "<!-- to here -->";

/// Puts the table into `docs/performance.md`.
fn write(table: &str) -> Outcome<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = fs::read_to_string(&path)?;
    let parts = page.split_once(BEGIN);
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or("docs/performance.md has no place for it")?;
    let now = Timestamp::now().to_string();
    let date = now.get(..16).unwrap_or_default().replace('T', " ");
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    let head = format!("{date} UTC, load average at the end {load}, ");
    Ok(fs::write(&path, format!("{before}{BEGIN}\n{head}{table}{END}{after}"))?)
}

/// Others, who ping and act.
struct Watched {
    url: Url,
    hands: Hands,
}

impl Watched {
    async fn during(&mut self, wait: Duration) -> Outcome<(Waited, Acts)> {
        self.hands.report().await?;
        let waited = Probe::during(&self.url, wait).await?;
        Ok((waited, self.hands.report().await?))
    }
}

async fn one(flood: Flood, args: &HostileArgs, cores: Option<&Cores>) -> Outcome<String> {
    let dir = tempfile::tempdir()?;
    let server = start(flood, args, &dir, cores).await?;
    let at: Vec<_> =
        server.addresses().iter().map(|(name, address)| format!("{name}={address}")).collect();
    if flood.needs_things() {
        make_things(&server).await?;
    }
    let mut watched = Vec::new();
    for (who, _) in OTHERS {
        let url = server.thing_url("", &format!("the-token-of-{who}"))?;
        let hands = Hands::start((flood, who), flood.watchers(), PACE, &at).await?;
        watched.push(Watched { url, hands });
    }
    // Whoever acts has connected by then.
    sleep(Duration::from_millis(500)).await;
    let (other, beside) = watched.split_at_mut(1);
    let quiet = tokio::try_join!(other[0].during(QUIET), beside[0].during(QUIET))?;
    let before = server.resident()?;
    // They are connected before the flood begins; what they do besides is not.
    let probes = (Probe::start(&other[0].url).await?, Probe::start(&beside[0].url).await?);
    other[0].hands.report().await?;
    beside[0].hands.report().await?;
    let mut loud = Hands::start((flood, LOUD), WORKERS, 0.0, &at).await?;
    let peak = peak_of(&server, Duration::from_secs(args.seconds)).await?;
    let waited = (probes.0.stop().await?, probes.1.stop().await?);
    let acts = (other[0].hands.report().await?, beside[0].hands.report().await?);
    let got = loud.report().await?;
    drop(loud);
    let peak = peak.max(peak_of(&server, AFTER).await?);
    let memory = [before, peak, server.resident()?];
    let name = flood.to_possible_value().ok_or("no name")?;
    let mut rows = String::new();
    let all = [(quiet.0, (waited.0, acts.0)), (quiet.1, (waited.1, acts.1))];
    for ((_, whose), (quiet, during)) in OTHERS.iter().zip(all) {
        let what = format!("{}; {whose}", name.get_name());
        write_row(&mut rows, &what, (quiet, during), (memory, &got))?;
    }
    Ok(rows)
}

async fn start(
    flood: Flood,
    args: &HostileArgs,
    dir: &TempDir,
    cores: Option<&Cores>,
) -> Outcome<Server> {
    let bootstrap = dir.path().join("bootstrap.toml");
    fs::write(&bootstrap, BOOTSTRAP)?;
    let mut settings = flood.settings();
    settings.push(("TR50D_SERVER__BOOTSTRAP", bootstrap.display().to_string()));
    // As by default; a session's own rate is not set, for those that measure catch up when they were
    // kept waiting.
    settings.push(("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "1000".to_owned()));
    settings.push(("TR50D_LIMITS__LOGINS_PER_S", "20".to_owned()));
    for setting in &args.setting {
        let (name, value) = setting.split_once('=').ok_or("a setting is NAME=VALUE")?;
        settings.push((name, value.to_owned()));
    }
    Ok(Server::start(&dir.path().join("data"), cores, &settings, None).await?.0)
}

/// Has the organisation of the flood many things.
async fn make_things(server: &Server) -> Outcome<()> {
    let token = format!("the-token-of-{LOUD}");
    let makers = (0..WORKERS).map(|maker| {
        let url = server.thing_url(&format!("maker-{maker}"), &token);
        tokio::spawn(async move {
            let mut client = Client::connect(&url?).await?;
            for number in 0..THINGS / WORKERS {
                let params = format!(r#"{{"key":"many-{maker}-{number}","name":"x"}}"#);
                client.call("thing.create", Some(&params)).await?.succeeded()?;
            }
            Outcome::Ok(())
        })
    });
    for maker in makers.collect::<Vec<_>>() {
        maker.await??;
    }
    Ok(())
}

/// The most memory in use during this time.
async fn peak_of(server: &Server, wait: Duration) -> Outcome<usize> {
    let (end, mut peak) = (Instant::now() + wait, 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        peak = peak.max(server.resident()?);
    }
    Ok(peak)
}

type Noticed = (Waited, Acts);

fn write_row(
    rows: &mut String,
    what: &str,
    ((quiet, quiet_acts), (waited, acts)): (Noticed, Noticed),
    ([before, peak, after], got): ([usize; 3], &Acts),
) -> Outcome<()> {
    let ratio = waited.p99_ms / quiet.p99_ms;
    let refused = waited.refused + waited.lost + acts.refusals();
    let missed = if ratio > GOAL || refused > 0 { " **missed**" } else { "" };
    let why = acts.refused.keys().next().map(|why| format!(" ({why})")).unwrap_or_default();
    let [before, peak, after] = [before, peak, after].map(|bytes| bytes / 1_000_000);
    let told = got.refused.iter().max_by_key(|(_, count)| **count);
    let told = told.map(|(why, _)| format!(" ({why})")).unwrap_or_default();
    writeln!(
        rows,
        "| {what} | {:.2}, {:.2} ms | {ratio:.1} ×{missed} | {:.1}, {:.1} ms | {refused}{why} | {before}, \
         {peak}, {after} MB | {}; {}{told} |",
        quiet.p99_ms,
        waited.p99_ms,
        quiet_acts.p99_ms,
        acts.p99_ms,
        got.done,
        got.refusals(),
    )?;
    Ok(())
}
