//! `tr50d replay`: what a thing sent, sent again to a test server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use client::replay::{Recording, ReplayOptions, Replayed, Step, replay};
use client::{Target, Url};

/// With `--strict`: something came that did not come then, or the other way round.
const DIFFERS: u8 = 1;

/// The frames could not be sent.
const NOT_DONE: u8 = 2;

/// Bytes of a recording: several times what `thing.trace` keeps, as JSON.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Characters of a frame that are shown.
const SHOWN_MAX: usize = 2000;

/// Sends what a thing sent, as `thing.trace` has kept it, to a test server.
///
/// The client's frames go out in their order, with the login of the URL in place of the one that is not
/// in the recording. Each answer is shown beside the one of then; other times and ids of things and
/// sessions are no difference. The exit status is 0 when all was sent, 1 with --strict if something
/// differs, 2 if it could not be done.
#[derive(Args, Debug)]
#[command(after_long_help = "\
What is printed:
  > a frame that was sent          < an answer, the same as then
  - what came then and not now     + what came now and not then
  ! a frame that was not sent, and why

Make a recording and send it:
  tr50d call thing.trace '{\"key\":\"mower-42\",\"seconds\":300}' --url \"$URL\"
  tr50d call thing.trace '{\"key\":\"mower-42\",\"read\":true}' --url \"$URL\" > mower-42.json
  tr50d replay mower-42.json --url mqtt://mower-42:demo-token-basicorg@127.0.0.1

The URL is as for `tr50d call`; its scheme says which frames are sent: those over MQTT (and WebSocket),
over TCP, or over HTTP.")]
pub struct ReplayArgs {
    /// The recording: replies of thing.trace with "read":true; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The test server and the login
    #[arg(long, value_name = "URL")]
    url: Url,
    /// How many times as fast as then; 0: without pauses
    #[arg(long, value_name = "N", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Seconds to wait for the connection, and for each answer
    #[arg(long, value_name = "S", default_value = "5", value_parser = super::seconds)]
    timeout: Duration,
    /// Exit with status 1 if an answer differs from that of then
    #[arg(long)]
    strict: bool,
    /// Send it to a server that is not on this machine
    #[arg(long)]
    yes: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let possible = |speed: &f64| (0.0..=1e6).contains(speed);
    text.parse().ok().filter(possible).ok_or_else(|| "not a number from 0 to 1000000".to_owned())
}

/// Runs `tr50d replay`.
pub async fn run(args: ReplayArgs) -> ExitCode {
    match send(&args).await {
        Ok(done) => {
            let Replayed { sent, same, differing, missing, extra } = done;
            let came = same + differing;
            println!(
                "sent {sent}, came {came}: {same} the same, {differing} other, {missing} missing, \
                 {extra} more"
            );
            let differs = differing + missing + extra > 0;
            if args.strict && differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS }
        }
        Err(why) => {
            eprintln!("tr50d replay: {why}");
            ExitCode::from(NOT_DONE)
        }
    }
}

async fn send(args: &ReplayArgs) -> Result<Replayed, String> {
    let name = args.file.display();
    let text = read(&args.file).map_err(|error| format!("can't read {name}: {error}"))?;
    let recording = Recording::read(&text).map_err(|error| format!("can't use {name}: {error}"))?;
    let url = &args.url;
    if !recording.has(url.protocol) {
        let doors = recording.doors().join(", ");
        let scheme = url.protocol.as_str();
        return Err(format!("{name} has no frames for {scheme}://; it has those of {doors}"));
    }
    let sentence = |error: client::ClientError| error.to_string();
    let target = Target::resolve(url).await.map_err(sentence)?;
    if !target.is_loopback() && !args.yes {
        return Err(format!(
            "{} is not on this machine: a recording is for a test server; --yes sends it there",
            target.authority()
        ));
    }
    let options = ReplayOptions { speed: args.speed, timeout: args.timeout };
    let mut failed = None;
    let done = replay(&recording, (&target, url), options, |step| {
        failed = failed.take().or_else(|| print(&step).err());
    });
    let done = done.await.map_err(sentence)?;
    failed.map_or(Ok(done), |error| Err(format!("can't write: {error}")))
}

fn read(file: &Path) -> io::Result<String> {
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(file)?),
    };
    let mut text = String::new();
    if source.take(BYTES_MAX + 1).read_to_string(&mut text)? as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn print(step: &Step) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match step {
        Step::Sent(text) => writeln!(out, "> {}", shown(text)),
        Step::Same(text) => writeln!(out, "< {}", shown(text)),
        Step::Differs(then, now) => writeln!(out, "- {}\n+ {}", shown(then), shown(now)),
        Step::Missing(then) => writeln!(out, "- {}", shown(then)),
        Step::Extra(now) => writeln!(out, "+ {}", shown(now)),
        Step::Skipped(why) => writeln!(out, "! {why}"),
    }
}

/// A text on one line, of which a terminal makes nothing else.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(plain).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
