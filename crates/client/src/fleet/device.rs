//! One simulated device: its login, its connection, and the commands it sends.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::files::{self, FileLoad};
use super::flow::{Flow, Pace};
use super::methods::{self, Exchange};
use super::ordinary::Ordinary;
use super::report::{Board, Reason};
use crate::{
    Client, ClientError, Connection, HttpConnection, Incoming, Link, Options, Reply, Target, Url,
    request_text,
};

/// Time for the answers on their way when a run is ended early.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A logged-in device.
pub struct Device {
    number: usize,
    client: DeviceClient,
    options: Options,
    next_id: u32,
}

enum DeviceClient {
    Own(Client),
    Rumqttc(Ordinary),
}

/// What all devices share while they send.
pub(super) struct Work<'a> {
    pub pace: Pace,
    /// A JSON text in one line; `None` to hold the connection only.
    pub request: Option<&'a str>,
    /// What is shared where devices have others execute methods.
    pub exchange: Option<&'a Exchange>,
    pub files: Option<&'a FileLoad>,
    pub board: &'a Board,
    pub stop: &'a CancellationToken,
}

impl Device {
    pub(super) async fn open(
        number: usize,
        target: &Target,
        url: &Url,
        ordinary: bool,
        options: Options,
    ) -> Result<Self, ClientError> {
        let client = if ordinary {
            let open = timeout(options.timeout, Ordinary::open(url, &options)).await;
            DeviceClient::Rumqttc(open.unwrap_or(Err(ClientError::Timeout(options.timeout)))?)
        } else {
            DeviceClient::Own(Client::connect_to(target, url, &options).await?)
        };
        Ok(Self { number, client, options, next_id: 0 })
    }

    /// The device's number in its fleet, from 0; its thing key ends with it.
    pub fn number(&self) -> usize {
        self.number
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Sends one command and waits for its answer. `params` is a JSON text.
    pub async fn call(
        &mut self,
        command: &str,
        params: Option<&str>,
    ) -> Result<Reply, ClientError> {
        match &mut self.client {
            DeviceClient::Own(client) => client.call(command, params).await,
            DeviceClient::Rumqttc(ordinary) => {
                let id = self.next_id;
                self.next_id = id.wrapping_add(1);
                let ask = async {
                    ordinary.send(id, &request_text(command, params)?).await?;
                    loop {
                        let (found, text) = ordinary.receive().await?;
                        if found == id {
                            return Reply::of_command(&text);
                        }
                    }
                };
                let wait = self.options.timeout;
                timeout(wait, ask).await.unwrap_or(Err(ClientError::Timeout(wait)))
            }
        }
    }

    /// Waits until the server closes the connection; what it sends until then is dropped.
    pub async fn closed(&mut self) {
        match &mut self.client {
            DeviceClient::Own(client) => client.closed().await,
            DeviceClient::Rumqttc(ordinary) => while ordinary.receive().await.is_ok() {},
        }
    }

    /// Logs out and closes.
    pub async fn close(self) {
        match self.client {
            DeviceClient::Own(client) => client.close().await,
            DeviceClient::Rumqttc(ordinary) => {
                // A server that does not take the goodbye sees the connection end.
                let _ = timeout(self.options.timeout, ordinary.close()).await;
            }
        }
    }

    /// Sends commands until the pace's end or `stop`; an error if the connection does not last.
    pub(super) async fn work(&mut self, work: Work<'_>) -> Result<(), ClientError> {
        if let Some(load) = work.files {
            return files::work(self, load, work).await;
        }
        match &mut self.client {
            DeviceClient::Rumqttc(ordinary) => work_ordinary(ordinary, work).await,
            DeviceClient::Own(client) => match client.link_mut() {
                Link::Connection(connection) => {
                    let keep_alive_s = self.options.keep_alive_s;
                    match work.exchange.filter(|exchange| !exchange.calls(self.number)) {
                        Some(exchange) => {
                            let shared = (work.board, work.stop);
                            methods::answer(connection, keep_alive_s, exchange, shared).await
                        }
                        None => work_connection(connection, self.number, keep_alive_s, work).await,
                    }
                }
                Link::Http(http) => work_http(http, work).await,
            },
        }
    }
}

async fn work_connection(
    connection: &mut Connection,
    number: usize,
    keep_alive_s: u16,
    work: Work<'_>,
) -> Result<(), ClientError> {
    let window = connection.window(work.pace.window);
    let request = work.request.unwrap_or_default().as_bytes();
    let mut flow = Flow::new(Pace { window, ..work.pace }, work.board);
    // Three quarters of the keep-alive: in time even if the timer and the network are slow.
    let ping_every = (keep_alive_s > 0).then(|| Duration::from_secs(keep_alive_s.into()) * 3 / 4);
    let mut now = Instant::now();
    let mut ping_at = ping_every.map(|every| now + every);
    let mut timer = pin!(sleep_until(now));
    let mut stopped = pin!(work.stop.cancelled());
    let mut stopping = false;
    loop {
        while let Some(id) = flow.next(now) {
            match work.exchange {
                Some(exchange) => {
                    let request = exchange.request(number, id, now, work.pace.timeout);
                    connection.queue(id, request.as_bytes())?;
                }
                None => connection.queue(id, request)?,
            }
        }
        if flow.is_over(now) {
            return Ok(());
        }
        let wake = ping_at.map_or(flow.wake(now), |ping_at| ping_at.min(flow.wake(now)));
        // Re-armed late rather than at each answer: a timer costs more than a spurious wake-up.
        if timer.is_elapsed() || wake < timer.deadline() {
            timer.as_mut().reset(wake);
        }
        tokio::select! {
            biased;
            exchanged = connection.exchange() => {
                exchanged?;
                now = Instant::now();
                while let Some(incoming) = connection.next_incoming()? {
                    if let Incoming::Reply { id, text } = incoming {
                        flow.answered(id, outcome(text), now);
                    }
                }
            }
            () = timer.as_mut() => now = Instant::now(),
            () = stopped.as_mut(), if !stopping => {
                stopping = true;
                now = Instant::now();
                flow.stop(now, STOP_PATIENCE);
            }
        }
        if timer.is_elapsed() && flow.expire(now) > 0 && connection.answers_in_order() {
            // A late answer would be taken for the next command's.
            return Err(ClientError::Timeout(work.pace.timeout));
        }
        if ping_at.is_some_and(|ping_at| ping_at <= now) {
            connection.queue_ping();
            ping_at = ping_every.map(|every| now + every);
        }
    }
}

async fn work_ordinary(ordinary: &mut Ordinary, work: Work<'_>) -> Result<(), ClientError> {
    let request = work.request.unwrap_or_default();
    let mut flow = Flow::new(work.pace, work.board);
    let mut stopped = pin!(work.stop.cancelled());
    let mut stopping = false;
    loop {
        let now = Instant::now();
        flow.expire(now);
        while let Some(id) = flow.next(now) {
            ordinary.send(id, request).await?;
        }
        if flow.is_over(now) {
            return Ok(());
        }
        tokio::select! {
            answer = ordinary.receive() => {
                let (id, text) = answer?;
                flow.answered(Some(id), outcome(&text), Instant::now());
            }
            () = sleep_until(flow.wake(now)) => {}
            () = stopped.as_mut(), if !stopping => {
                stopping = true;
                flow.stop(Instant::now(), STOP_PATIENCE);
            }
        }
    }
}

async fn work_http(http: &mut HttpConnection, work: Work<'_>) -> Result<(), ClientError> {
    let request = Bytes::copy_from_slice(work.request.unwrap_or_default().as_bytes());
    let mut flow = Flow::new(Pace { window: work.pace.window.min(1), ..work.pace }, work.board);
    loop {
        let now = Instant::now();
        if work.stop.is_cancelled() {
            flow.stop(now, STOP_PATIENCE);
        }
        if flow.next(now).is_some() {
            let late = Err(ClientError::Timeout(work.pace.timeout));
            let post = http.post(request.clone());
            let text = timeout(work.pace.timeout, post).await.unwrap_or(late)?;
            flow.answered(None, outcome(&text), Instant::now());
            continue;
        }
        if flow.is_over(now) {
            return Ok(());
        }
        tokio::select! {
            () = http.closed() => return Err(ClientError::Closed),
            () = sleep_until(flow.wake(now)) => {}
            () = work.stop.cancelled() => {}
        }
    }
}

/// What a reply to one command says, with the reason if it failed.
pub(super) fn outcome(text: &[u8]) -> Result<(), Reason> {
    if succeeded(text) { Ok(()) } else { Err(Reason::of(&Reply::of_command(text))) }
}

/// Whether a reply to one command says `"success":true`: found as text, because reading JSON would
/// cost the load generator more than its server.
fn succeeded(text: &[u8]) -> bool {
    const USUAL: &[u8] = br#"{"cmd":{"success":true"#;
    const MEMBER: &[u8] = br#""success":true"#;
    text.starts_with(USUAL) || text.windows(MEMBER.len()).any(|window| window == MEMBER)
}
