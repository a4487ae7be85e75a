//! Those who look at the console's list of sessions, each with a session of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use support::Endpoints;
use support::http::log_in;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::events::endpoints;
use crate::worker_process::{self, WorkerProcess};

/// The demo's administrator of the organisation whose sessions are looked at.
const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");

/// Rows of a part of the list.
const PAGE: usize = 60;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// What the process is told at its start.
#[derive(Args)]
pub(crate) struct WatchersArgs {
    /// How many
    count: usize,
    /// Parts of the list: so many look at others
    parts: usize,
    /// The listeners, such as `http=127.0.0.1:8080`
    at: Vec<String>,
}

/// What the parent says.
#[derive(Serialize, Deserialize)]
enum Order {
    /// All look.
    Open,
    /// Nobody does any more.
    Close,
}

/// What one has seen.
#[derive(Serialize, Deserialize)]
pub(crate) struct Seen {
    /// How often something changed.
    pub(crate) windows: u64,
    pub(crate) bytes: u64,
    /// Whether the stream has ended before.
    pub(crate) ended: bool,
}

#[derive(Default)]
struct Tally {
    windows: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicBool,
}

/// The watchers' side: answers when all have logged in, and to each order.
pub(crate) async fn run(args: WatchersArgs) -> Outcome<()> {
    let server = endpoints(&args.at)?;
    let mut sessions = Vec::new();
    for _ in 0..args.count {
        sessions.push(log_in(&server, OPERATOR.0, OPERATOR.1).await);
    }
    worker_process::answer(&())?;
    let mut orders = worker_process::orders();
    let (mut tallies, mut watching) = (Vec::new(), JoinSet::new());
    while let Some(line) = orders.recv().await {
        match serde_json::from_str(&line)? {
            Order::Open => {
                for (number, session) in sessions.iter().enumerate() {
                    let offset = number % args.parts.max(1) * PAGE;
                    let stream = follow(&server, session, offset).await?;
                    let tally = Arc::<Tally>::default();
                    tallies.push(tally.clone());
                    watching.spawn(async move {
                        if let Err(error) = count(stream, &tally).await {
                            eprintln!("a viewer: {error}");
                        }
                        tally.ended.store(true, Ordering::Relaxed);
                    });
                }
                worker_process::answer(&())?;
            }
            Order::Close => {
                let seen: Vec<_> =
                    tallies.drain(..).map(|tally: Arc<Tally>| tally.seen()).collect();
                watching.shutdown().await;
                worker_process::answer(&seen)?;
            }
        }
    }
    Ok(())
}

impl Tally {
    fn seen(&self) -> Seen {
        Seen {
            windows: self.windows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}

/// A stream of windows. HTTP 1.0 has no chunks, which would have to be taken apart.
async fn follow(server: &Endpoints, session: &str, offset: usize) -> Outcome<TcpStream> {
    let query = if offset == 0 { String::new() } else { format!("offset%3D{offset}") };
    let mut stream = TcpStream::connect(server.address("http")).await?;
    let head = format!(
        "GET /events?view=/o/basic-org/sessions%3F{query} HTTP/1.0\r\nHost: localhost\r\n\
         Cookie: tr50d={session}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    match answer.ends_with(b"200") {
        true => Ok(stream),
        false => Err(format!("no windows: {}", String::from_utf8_lossy(&answer)).into()),
    }
}

async fn count(mut stream: TcpStream, tally: &Tally) -> Outcome<()> {
    let window = memmem::Finder::new("event: window");
    let mut input = Vec::with_capacity(READ_BYTES);
    loop {
        let read = stream.read_buf(&mut input).await?;
        if read == 0 {
            return Ok(());
        }
        tally.bytes.fetch_add(read as u64, Ordering::Relaxed);
        // What is behind the last whole window is looked at with the rest of it.
        if let Some(end) = memmem::rfind(&input, b"\n\n") {
            let windows = window.find_iter(&input[..end]).count() as u64;
            tally.windows.fetch_add(windows, Ordering::Relaxed);
            input.drain(..end + 1);
        }
    }
}

/// A process of people who look.
pub(crate) struct Watchers(WorkerProcess);

impl Watchers {
    /// Has so many log in, who will look at so many parts of the list.
    pub(crate) async fn start(count: usize, parts: usize, at: &[String]) -> Outcome<Self> {
        let numbers = [count.to_string(), parts.to_string()];
        let mut args = vec!["watchers"];
        args.extend(numbers.iter().chain(at).map(String::as_str));
        let mut process = WorkerProcess::spawn(&args)?;
        process.answer::<()>().await?;
        Ok(Self(process))
    }

    /// Has all look.
    pub(crate) async fn open(&mut self) -> Outcome<()> {
        self.0.order(&Order::Open)?;
        self.0.answer().await
    }

    /// Has nobody look any more; what they have seen.
    pub(crate) async fn close(&mut self) -> Outcome<Vec<Seen>> {
        self.0.order(&Order::Close)?;
        self.0.answer().await
    }
}
