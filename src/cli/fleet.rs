//! `tr50d fleet`: many simulated devices from a terminal.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base::{Protocol, Timestamp};
use clap::{ArgAction, Args};
use client::fleet::{
    Board, ClientKind, DEVICES_MAX, FILE_BYTES_MAX, Fleet, Load, Plan, PlanError, ROWS_MAX, Report,
    Versions, WINDOW_MAX,
};
use client::{Url, mqtt_version};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Something failed, was lost or dropped.
const NOT_CLEAN: u8 = 1;

/// The fleet could not start.
const NOT_STARTED: u8 = 2;

/// The longest run: a day.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// Connects simulated devices, lets them send commands, and reports.
///
/// Every device logs in with its own thing key and the token; when all are connected they send
/// until the duration is over or Ctrl-C. A progress line a second goes to standard error, the
/// report to standard output; it ends with why commands failed and why connections did, if any. The
/// exit status is 0 if nothing failed, 1 if something did, 2 if the fleet could not start.
#[derive(Args, Debug)]
#[command(after_long_help = "\
URLs are as in `tr50d call --help`. The password is the application token; the user name is only
used when it is an e-mail address: then all devices log in as that user.

Examples:
  tr50d fleet --url mqtt://:demo-token-basicorg@127.0.0.1 --devices 50 --rate 1000
  tr50d fleet --url mqtt://127.0.0.1 --url tcp://127.0.0.1 --token demo-token-basicorg \\
      --devices 500 --rate 1000 --mqtt-version mix --client mix
  tr50d fleet --url mqtt://:demo-token-basicorg@127.0.0.1 --telemetry 100 --rate 500
  tr50d fleet --url mqtt://:demo-token-basicorg@127.0.0.1 --devices 1000 --methods 2 --rate 100
  tr50d fleet --url mqtt://:demo-token-basicorg@127.0.0.1 --files 1000000 --rate 20 \\
      --files-url http://127.0.0.1:8080
  tr50d fleet --url mqtt://:demo-token-basicorg@127.0.0.1 --devices 100000 --idle \\
      --source-addresses 127.0.0.2-127.0.0.5

A server bounds the commands of one session (limits.commands_per_s, 100 a second if not set
otherwise) and refuses those beyond, as it does logins of one token that come again and again
(limits.logins_per_s); the report says so. Without --rate devices send as fast as they
are answered, which is for a server without that bound (TR50D_LIMITS__COMMANDS_PER_S=0).
Many connections need many file descriptors (`ulimit -n`).")]
pub struct FleetArgs {
    /// The server; several are taken in turn by the devices
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<Url>,
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = devices)]
    devices: usize,
    /// Commands a second over all devices; 0 for as many as the window lets through
    #[arg(long, value_name = "R", default_value_t = 0.0, value_parser = rate)]
    rate: f64,
    /// Commands that one device may have on their way; HTTP always has one
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = window)]
    window: usize,
    /// Seconds to send for
    #[arg(long, value_name = "S", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// The command that the devices send
    #[arg(long, value_name = "NAME", default_value = "diag.ping")]
    command: String,
    /// Its parameters, a JSON text
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
    /// Publish telemetry instead: batches of so many rows
    #[arg(long, value_name = "ROWS", value_parser = rows, conflicts_with_all = ["command", "params", "idle"])]
    telemetry: Option<usize>,
    /// Methods instead: the first N devices have the others execute them; the others answer
    #[arg(long, value_name = "N", value_parser = devices, conflicts_with_all = ["command", "params", "idle", "telemetry"])]
    methods: Option<usize>,
    /// Files instead: every device stores one of so many bytes, fetches it again and compares
    #[arg(long, value_name = "BYTES", value_parser = file_bytes, conflicts_with_all = ["command", "params", "idle", "telemetry", "methods"])]
    files: Option<usize>,
    /// Where files move, if no --url is of HTTP
    #[arg(long, value_name = "URL", requires = "files")]
    files_url: Option<Url>,
    /// Send nothing, only hold the connections
    #[arg(long)]
    idle: bool,
    /// New connections a second; 0 for as many as the server takes
    #[arg(long, value_name = "N", default_value_t = 0)]
    connect_rate: u32,
    /// The first part of the thing keys; a number follows
    #[arg(long, value_name = "TEXT", default_value = "fleet-")]
    key_prefix: String,
    /// The application token, where the URL has no password
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The MQTT client: this program's own frames, the library rumqttc, or both in turn
    #[arg(long, value_enum, default_value = "own")]
    client: ClientKind,
    /// The version of MQTT, instead of the URL's: 3.1, 3.1.1, 5, or mix
    #[arg(long, value_name = "VERSION", value_parser = versions)]
    mqtt_version: Option<Versions>,
    /// QoS of MQTT requests, 0 or 1
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// MQTT keep-alive in seconds; 0 for none
    #[arg(long, value_name = "S", default_value_t = 60)]
    keep_alive: u16,
    /// Local addresses to connect from, FIRST-LAST; one has some 28,000 ports
    #[arg(long, value_name = "RANGE", value_parser = addresses, action = ArgAction::Set)]
    source_addresses: Option<Sources>,
    /// Seconds after which a login has failed
    #[arg(long, value_name = "S", default_value = "30", value_parser = super::seconds)]
    connect_timeout: Duration,
    /// Seconds after which a command without an answer is lost
    #[arg(long, value_name = "S", default_value = "10", value_parser = super::seconds)]
    timeout: Duration,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
    /// Load a server that is not on this machine's loopback
    #[arg(long)]
    yes_this_is_my_server: bool,
}

/// Local addresses; a type of its own because clap takes a plain list for a repeated option.
#[derive(Clone, Debug)]
struct Sources(Vec<IpAddr>);

/// Runs `tr50d fleet`.
pub async fn run(args: FleetArgs) -> ExitCode {
    let json = args.json;
    match drive(args).await {
        Err(error) => {
            eprintln!("tr50d fleet: {error}");
            ExitCode::from(NOT_STARTED)
        }
        Ok(report) => {
            let text = match json {
                true => serde_json::to_string(&report).unwrap_or_default(),
                false => report.to_string(),
            };
            let written = writeln!(std::io::stdout(), "{text}");
            if written.is_ok() && report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(NOT_CLEAN)
            }
        }
    }
}

async fn drive(args: FleetArgs) -> Result<Report, Box<dyn std::error::Error>> {
    let over_http = |url: &&Url| matches!(url.protocol, Protocol::Http | Protocol::Https);
    let mut load = match (args.files, args.telemetry, args.methods) {
        (Some(bytes), ..) => {
            let url = args.files_url.as_ref().or_else(|| args.urls.iter().find(over_http));
            Load::files(bytes, url.ok_or(PlanError::Files)?, args.duration).await?
        }
        (_, Some(rows), _) => Load::telemetry(rows, args.duration, Timestamp::now())?,
        (_, _, Some(callers)) => Load::methods(callers, args.duration),
        _ if args.idle => Load::idle(args.duration),
        _ => Load::command(&args.command, args.params.as_deref(), args.duration)?,
    };
    (load.rate, load.window, load.timeout) = (args.rate, args.window, args.timeout);
    let plan = Plan {
        urls: args.urls,
        token: args.token,
        devices: args.devices,
        key_prefix: args.key_prefix,
        client: args.client,
        versions: args.mqtt_version,
        qos1: args.qos == 1,
        keep_alive_s: args.keep_alive,
        connect_rate: args.connect_rate,
        sources: args.source_addresses.map_or_else(Vec::new, |sources| sources.0),
        connect_timeout: args.connect_timeout,
        beyond_loopback: args.yes_this_is_my_server,
    };
    plan.check_load(&load)?;
    let board = Arc::new(Board::default());
    let stop = CancellationToken::new();
    let progress = AbortOnDropHandle::new(tokio::spawn(watch(board.clone(), stop.clone())));
    let mut fleet = Fleet::connect_watched(&plan, board, stop).await?;
    let report = fleet.run(&load).await;
    drop(progress);
    fleet.close().await;
    Ok(report)
}

/// Prints how it goes, and stops the fleet at Ctrl-C.
async fn watch(board: Arc<Board>, stop: CancellationToken) {
    const SECOND: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let mut seconds = interval_at(start + SECOND, SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut last_answered) = (start, 0);
    loop {
        tokio::select! {
            now = seconds.tick() => {
                let answered = board.answered();
                let rate = (answered - last_answered) as f64 / (now - last).as_secs_f64();
                eprintln!("{}", board.progress(now - start, rate));
                (last, last_answered) = (now, answered);
            }
            // Without a handler for it, Ctrl-C simply ends the process.
            Ok(()) = tokio::signal::ctrl_c() => stop.cancel(),
        }
    }
}

fn devices(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=DEVICES_MAX).contains(count));
    count.ok_or_else(|| format!("not a number from 1 to {DEVICES_MAX}"))
}

fn rows(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=ROWS_MAX).contains(count));
    count.ok_or_else(|| format!("not a number from 1 to {ROWS_MAX}"))
}

fn file_bytes(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=FILE_BYTES_MAX).contains(count));
    count.ok_or_else(|| format!("not a number from 1 to {FILE_BYTES_MAX}"))
}

fn window(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=WINDOW_MAX).contains(count));
    count.ok_or_else(|| format!("not a number from 1 to {WINDOW_MAX}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let possible = |rate: &f64| *rate == 0.0 || (0.001..=1e9).contains(rate);
    text.parse().ok().filter(possible).ok_or_else(|| "not 0 or a rate from 0.001".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = super::seconds(text)?;
    if duration <= DURATION_MAX { Ok(duration) } else { Err("longer than a day".to_owned()) }
}

fn versions(text: &str) -> Result<Versions, String> {
    match text {
        "mix" => Ok(Versions::Mix),
        one => {
            mqtt_version(one).map(Versions::One).ok_or_else(|| "not 3.1, 3.1.1, 5 or mix".into())
        }
    }
}

/// Reads `FIRST-LAST`, or one address.
fn addresses(text: &str) -> Result<Sources, String> {
    let bad = || "not an address or a range FIRST-LAST of at most 1000".to_owned();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let read = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| bad());
    let range: Vec<IpAddr> = match (read(first)?, read(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let bits = first.to_bits()..=last.to_bits();
            bits.take(1001).map(|bits| IpAddr::V4(bits.into())).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let bits = first.to_bits()..=last.to_bits();
            bits.take(1001).map(|bits| IpAddr::V6(bits.into())).collect()
        }
        _ => return Err(bad()),
    };
    if (1..=1000).contains(&range.len()) { Ok(Sources(range)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses_are_read() {
        let check = |text: &str, count: Option<usize>| {
            assert_eq!(addresses(text).ok().map(|sources| sources.0.len()), count, "{text}");
        };
        check("127.0.0.1-127.0.0.20", Some(20));
        check("127.0.0.1", Some(1));
        check("127.0.0.255-127.0.1.1", Some(3));
        check("::1-::3", Some(3));
        check("127.0.0.2-127.0.0.1", None);
        check("127.0.0.1-::1", None);
        check("0.0.0.0-255.255.255.255", None);
        check("localhost", None);
    }

    #[test]
    fn numbers_have_bounds() {
        assert!(devices("0").is_err() && devices("1000001").is_err() && devices("5").is_ok());
        assert!(rows("0").is_err() && rows("10001").is_err() && rows("100").is_ok());
        assert!(window("0").is_err() && window("10001").is_err() && window("20").is_ok());
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("inf").is_err());
        assert_eq!((rate("0"), rate("2.5")), (Ok(0.0), Ok(2.5)));
        assert!(duration("86401").is_err() && duration("0").is_err() && duration("0.5").is_ok());
        assert!(versions("4").is_err() && versions("mix").is_ok() && versions("3.1").is_ok());
    }
}
