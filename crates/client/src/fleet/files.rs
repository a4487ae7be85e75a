//! File transfers of the fleet: every device stores a file, fetches it again and compares.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use base::Protocol;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::device::{Device, STOP_PATIENCE, Work};
use super::flow::{Flow, Pace};
use super::report::Reason;
use crate::{ClientError, HttpConnection, Login, Options, Reply, Target, Url};

/// What the devices move, and where to.
pub(super) struct FileLoad {
    pub target: Target,
    url: Url,
    bytes: Bytes,
    crc32: u32,
}

/// What of the replies to `file.put` and `file.get` is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    file_id: String,
}

impl fmt::Debug for FileLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileLoad({} bytes to {})", self.bytes.len(), self.target.authority())
    }
}

impl FileLoad {
    /// Files of so many bytes, moved over HTTP at this URL; none if that is not its scheme.
    ///
    /// # Errors
    /// The URL's host has no address.
    pub(super) async fn new(bytes: usize, url: &Url) -> Result<Option<Self>, ClientError> {
        if !matches!(url.protocol, Protocol::Http | Protocol::Https) {
            return Ok(None);
        }
        // The id of a file is all that is needed.
        let url = Url { login: Login::None, ..url.clone() };
        let target = Target::resolve(&url).await?;
        let bytes: Bytes = (0..bytes).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect();
        let crc32 = crc32fast::hash(&bytes);
        Ok(Some(Self { target, url, bytes, crc32 }))
    }

    /// How large the files are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    async fn connect(&self, options: &Options) -> Result<HttpConnection, ClientError> {
        HttpConnection::open(&self.target, &self.url, options).await
    }

    /// Stores the file and fetches it again; the reason if the server or the bytes say no.
    async fn there_and_back(
        &self,
        device: &mut Device,
        http: &mut HttpConnection,
    ) -> Result<Result<(), Reason>, ClientError> {
        let crc32 = self.crc32;
        let params = format!(r#"{{"fileName":"fleet.bin","crc32":{crc32}}}"#);
        let put = device.call("file.put", Some(&params)).await?;
        let Some(id) = ticket(&put) else { return Ok(Err(Reason::of(&Ok(put)))) };
        http.store_file(&id, self.bytes.clone()).await?;
        let get = device.call("file.get", Some(r#"{"fileName":"fleet.bin"}"#)).await?;
        let Some(id) = ticket(&get) else { return Ok(Err(Reason::of(&Ok(get)))) };
        let same = http.fetch_file(&id, self.bytes.len()).await? == self.bytes;
        Ok(if same { Ok(()) } else { Err(Reason::own("a file came back as another")) })
    }
}

fn ticket(reply: &Reply) -> Option<String> {
    let ticket: Ticket = reply.success().then(|| reply.params().ok())??;
    Some(ticket.file_id)
}

/// Moves files until the pace's end; a round there and back counts as one command.
pub(super) async fn work(
    device: &mut Device,
    files: &FileLoad,
    work: Work<'_>,
) -> Result<(), ClientError> {
    let Pace { window, timeout: patience, .. } = work.pace;
    let mut http = files.connect(device.options()).await?;
    let mut flow = Flow::new(Pace { window: window.min(1), ..work.pace }, work.board);
    let keep_alive = Duration::from_secs(device.options().keep_alive_s.into());
    let mut stopped = pin!(work.stop.cancelled());
    let mut stopping = false;
    loop {
        let now = Instant::now();
        if flow.next(now).is_some() {
            let round = timeout(patience, files.there_and_back(device, &mut http));
            let moved = round.await.unwrap_or(Err(ClientError::Timeout(patience)))?;
            flow.answered(None, moved, Instant::now());
            continue;
        }
        if flow.is_over(now) {
            return Ok(());
        }
        let ping = (!keep_alive.is_zero()).then(|| now + keep_alive * 3 / 4);
        let wake = ping.map_or(flow.wake(now), |ping| ping.min(flow.wake(now)));
        tokio::select! {
            () = sleep_until(wake) => if ping == Some(wake) {
                device.call("diag.ping", None).await?;
            },
            () = stopped.as_mut(), if !stopping => {
                stopping = true;
                flow.stop(Instant::now(), STOP_PATIENCE);
            }
        }
    }
}
