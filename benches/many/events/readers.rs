//! Those who follow events: over HTTP, as MQTT topics, and by asking again and again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use client::{Client, Version};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use support::Endpoints;
use support::mqtt::{Connect, frame, frame_length, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::TOKEN;
use crate::Outcome;
use crate::worker_process::{self, WorkerProcess};

/// How long who asks waits behind an answer.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// What the process is told at its start.
#[derive(Args)]
pub(crate) struct ReadersArgs {
    http: usize,
    mqtt: usize,
    asking: usize,
    /// The listeners, such as `mqtt=127.0.0.1:1883`
    at: Vec<String>,
}

/// What a reader got since it was first asked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Got {
    /// Events.
    pub(crate) events: u64,
    /// The number of the last.
    pub(crate) last: u64,
    /// How often it was told that something is gone.
    pub(crate) resyncs: u64,
    /// Whether its connection has ended.
    pub(crate) ended: bool,
}

#[derive(Default)]
struct Tally {
    events: AtomicU64,
    last: AtomicU64,
    resyncs: AtomicU64,
    ended: AtomicBool,
}

impl Tally {
    fn count(&self, events: usize, last: Option<u64>) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        if let Some(last) = last {
            self.last.store(last, Ordering::Relaxed);
        }
    }

    fn got(&self) -> Got {
        Got {
            events: self.events.load(Ordering::Relaxed),
            last: self.last.load(Ordering::Relaxed),
            resyncs: self.resyncs.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}

/// The readers' side: answers when all follow, and, at each order, what they got. What they got
/// before the first one is not counted.
pub(crate) async fn run(args: ReadersArgs) -> Outcome<()> {
    let server = endpoints(&args.at)?;
    let mut tallies = Vec::new();
    let mut tally = || {
        let tally = Arc::<Tally>::default();
        tallies.push(tally.clone());
        tally
    };
    for _ in 0..args.http {
        let (stream, tally) = (follow_http(&server).await?, tally());
        tokio::spawn(ending(tally.clone(), count_http(stream, tally)));
    }
    for number in 0..args.mqtt {
        let (stream, tally) = (subscribe(&server, number).await?, tally());
        tokio::spawn(ending(tally.clone(), count_messages(stream, tally)));
    }
    for number in 0..args.asking {
        let url = server.url("tcp", &format!("asks-{number}"), TOKEN);
        let (client, tally) = (Client::connect(&url).await?, tally());
        tokio::spawn(ending(tally.clone(), ask(client, tally)));
    }
    worker_process::answer(&())?;
    let mut orders = worker_process::orders();
    let mut begun = false;
    while orders.recv().await.is_some() {
        if !std::mem::replace(&mut begun, true) {
            for tally in &tallies {
                tally.events.store(0, Ordering::Relaxed);
            }
        }
        worker_process::answer(&tallies.iter().map(|tally| tally.got()).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The listeners that a process was told of.
pub(crate) fn endpoints(at: &[String]) -> Outcome<Endpoints> {
    let mut addresses = BTreeMap::new();
    for at in at {
        let (name, address) = at.split_once('=').ok_or("no listener")?;
        addresses.insert(name.to_owned(), address.parse()?);
    }
    Ok(Endpoints::new(addresses, PathBuf::new()))
}

async fn ending(tally: Arc<Tally>, follows: impl Future<Output = Outcome<()>>) {
    if let Err(error) = follows.await {
        eprintln!("a reader: {error}");
    }
    tally.ended.store(true, Ordering::Relaxed);
}

/// A stream of events. HTTP 1.0 has no chunks, which would have to be taken apart.
async fn follow_http(server: &Endpoints) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(server.address("http")).await?;
    let head =
        format!("GET /events HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    match answer.ends_with(b"200") {
        true => Ok(stream),
        false => Err(format!("no events: {}", String::from_utf8_lossy(&answer)).into()),
    }
}

async fn count_http(mut stream: TcpStream, tally: Arc<Tally>) -> Outcome<()> {
    let (event, resync) =
        (memmem::Finder::new("\nevent: "), memmem::Finder::new("\nevent: resync"));
    let id = memmem::FinderRev::new("id: ");
    let mut input = Vec::with_capacity(2 * READ_BYTES);
    while stream.read_buf(&mut input).await? > 0 {
        // What is behind the last whole event is looked at with the rest of it.
        let Some(end) = memmem::rfind(&input, b"\n\n") else { continue };
        let whole = &input[..end + 1];
        let resyncs = resync.find_iter(whole).count();
        let last = id.rfind(whole).and_then(|at| number_at(&whole[at + 4..]));
        tally.resyncs.fetch_add(resyncs as u64, Ordering::Relaxed);
        tally.count(event.find_iter(whole).count() - resyncs, last);
        input.drain(..end + 1);
    }
    Ok(())
}

/// A connection that has subscribed to all events.
async fn subscribe(server: &Endpoints, number: usize) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(server.address("mqtt")).await?;
    let key = format!("reads-{number}");
    let connect = Connect::login(Version::V311, &key, &key, TOKEN);
    let connect = Connect { keep_alive_s: 0, ..connect }.frame();
    let subscribe = frame(0x82, &[&[0, 7], &text("$events/#"), &[0]]);
    stream.write_all(&[connect, subscribe].concat()).await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    match answer {
        [0x20, 2, _, 0, 0x90, 3, 0, 7, 0] => Ok(stream),
        other => Err(format!("no subscription: {other:02x?}").into()),
    }
}

async fn count_messages(mut stream: TcpStream, tally: Arc<Tally>) -> Outcome<()> {
    let mut input = Vec::with_capacity(2 * READ_BYTES);
    while stream.read_buf(&mut input).await? > 0 {
        let (mut at, mut messages, mut last) = (0, 0, 0..0);
        while let Some(length) = frame_length(&input[at..]) {
            last = at..at + length;
            at += length;
            messages += 1;
        }
        tally.count(messages, number_in(&input[last]));
        input.drain(..at);
    }
    Ok(())
}

async fn ask(mut client: Client, tally: Arc<Tally>) -> Outcome<()> {
    let event = memmem::Finder::new(r#"{"number":"#);
    let resync = memmem::Finder::new(r#""resync":true"#);
    let last = memmem::FinderRev::new(r#""last":"#);
    let mut after = None::<u64>;
    loop {
        let params = match after {
            Some(after) => format!(r#"{{"after":{after},"limit":5000}}"#),
            None => r#"{"limit":1}"#.to_owned(),
        };
        let reply = client.call("event.list", Some(&params)).await?.succeeded()?;
        let text = reply.as_json().as_bytes();
        let number = last.rfind(text).and_then(|at| number_at(&text[at + 7..]));
        let number = number.ok_or("a list without its end")?;
        if after.replace(number).is_some() {
            tally.count(event.find_iter(text).count(), Some(number));
            let resyncs = resync.find_iter(text).count();
            tally.resyncs.fetch_add(resyncs as u64, Ordering::Relaxed);
        }
        sleep(ASKED_EVERY).await;
    }
}

/// The number of an event in what says it.
fn number_in(text: &[u8]) -> Option<u64> {
    const NAME: &[u8] = br#"{"number":"#;
    let at = memmem::find(text, NAME)?;
    number_at(text.get(at + NAME.len()..)?)
}

fn number_at(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// A process that follows events.
pub(crate) struct Readers(WorkerProcess);

impl Readers {
    /// Starts it; all follow then.
    pub(crate) async fn start(readers: &[usize], at: &[String]) -> Outcome<Self> {
        let [http, mqtt, asking] = readers else { return Err("three numbers of readers".into()) };
        let (http, mqtt, asking) = (http.to_string(), mqtt.to_string(), asking.to_string());
        let mut args = vec!["readers", &http, &mqtt, &asking];
        args.extend(at.iter().map(String::as_str));
        let mut process = WorkerProcess::spawn(&args)?;
        process.answer::<()>().await?;
        Ok(Self(process))
    }

    /// What each got since it was first asked.
    pub(crate) async fn report(&mut self) -> Outcome<Vec<Got>> {
        self.0.order(&"report")?;
        self.0.answer().await
    }
}
