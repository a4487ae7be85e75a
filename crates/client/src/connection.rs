//! One connection over MQTT or TCP: requests are queued, written together, and answered in any
//! order.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::dial::Target;
use super::frame::{self, Connect, Version};
use super::reply::Reply;
use super::url::{Login, Url};
use super::{ClientError, Options, REPLY_BYTES_MAX, login_text};
use crate::stream::Stream;

/// Bytes read at once. The buffer is on the stack: a waiting connection holds none.
const READ_BYTES: usize = 16 * 1024;

/// Bytes of buffer that a connection keeps once they are read or written.
const KEPT_BYTES: usize = 64 * 1024;

/// The topic of the notice that mail waits.
const MAIL_TOPIC: &[u8] = b"notify/mailbox_activity";

/// How requests and replies are framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    /// PUBLISH to `api/<id>`, answer on `reply/<id>`.
    Mqtt { version: Version, qos1: bool },
    /// One JSON value a line, answered in order.
    Lines,
}

/// A logged-in connection.
pub struct Connection {
    stream: Stream,
    wire: Wire,
    /// Requests that the server lets wait at QoS 1 (MQTT 5, Receive Maximum).
    receive_max: u16,
    input: Vec<u8>,
    /// Bytes of `input` that were handed out.
    taken: usize,
    /// Bytes after `taken` that hold no line end.
    searched: usize,
    output: Vec<u8>,
    /// Bytes of `output` that are written.
    written: usize,
}

/// What the server sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// An answer, under the request's id; without one where answers come in order (TCP).
    Reply {
        /// The id that [`Connection::queue`] was given.
        id: Option<u32>,
        /// The JSON text.
        text: &'a [u8],
    },
    /// The notice that mail waits (`notify/mailbox_activity`).
    Notice,
    /// An acknowledgement, a PINGRESP: nothing that a request waits for.
    Other,
}

impl Connection {
    /// Connects to `target` from `options.source` and logs in as `url` says.
    pub async fn open(target: &Target, url: &Url, options: &Options) -> Result<Self, ClientError> {
        let wire = match url.protocol {
            Protocol::Tcp | Protocol::Tcps => Wire::Lines,
            _ => Wire::Mqtt { version: url.version, qos1: options.qos1 },
        };
        let mut connection = Self::over(target.dial(options.source).await?, wire);
        match wire {
            Wire::Mqtt { version, .. } => {
                connection.login_mqtt(url, version, options.keep_alive_s).await?;
            }
            Wire::Lines => connection.login_tcp(url).await?,
        }
        Ok(connection)
    }

    fn over(stream: Stream, wire: Wire) -> Self {
        Self {
            stream,
            wire,
            receive_max: u16::MAX,
            input: Vec::new(),
            taken: 0,
            searched: 0,
            output: Vec::new(),
            written: 0,
        }
    }

    async fn login_mqtt(
        &mut self,
        url: &Url,
        version: Version,
        keep_alive_s: u16,
    ) -> Result<(), ClientError> {
        let client_id = url.client_id();
        let login = match &url.login {
            Login::None => None,
            Login::User { email, password } => Some((email.as_str(), password.as_str())),
            Login::Thing { key, token } => Some((key.as_str(), token.as_str())),
        };
        let connect = Connect { version, client_id: &client_id, login, keep_alive_s };
        connect.put(&mut self.output)?;
        loop {
            self.exchange().await?;
            if let Some((frame, length)) = frame::scan(&self.input)? {
                let connack = frame.connack(version)?;
                let connack = connack.ok_or(frame::NotMqtt("another frame before the CONNACK"))?;
                if connack.code != 0 {
                    let reason = format!("{} (code {})", connack.meaning(), connack.code);
                    return Err(ClientError::Refused(reason));
                }
                self.receive_max = connack.receive_max;
                self.taken = length;
                return Ok(());
            }
        }
    }

    async fn login_tcp(&mut self, url: &Url) -> Result<(), ClientError> {
        let Some(login) = login_text(url) else {
            return Ok(());
        };
        let reply = self.ask_for("auth", 0, login.as_bytes()).await?;
        if reply.success() { Ok(()) } else { Err(ClientError::Refused(reply.failure())) }
    }

    /// How many requests may wait for their answer: fewer than the caller's `window` if the
    /// server says so.
    pub fn window(&self, window: usize) -> usize {
        match self.wire {
            Wire::Mqtt { qos1: true, .. } => window.min(usize::from(self.receive_max)),
            _ => window,
        }
    }

    /// Whether answers come without an id, in the order of their requests.
    pub fn answers_in_order(&self) -> bool {
        self.wire == Wire::Lines
    }

    /// Queues a request: a JSON text without line ends. It is written by [`Self::exchange`].
    pub fn queue(&mut self, id: u32, request: &[u8]) {
        match self.wire {
            Wire::Mqtt { version, qos1 } => {
                // Packet ids 1 to 65535, in turn.
                let packet_id = qos1.then_some((id % 0xffff) as u16 + 1);
                frame::put_request(version, packet_id, id, request, &mut self.output);
            }
            Wire::Lines => {
                self.output.extend_from_slice(request);
                self.output.push(b'\n');
            }
        }
    }

    /// Queues what keeps an idle connection alive: a PINGREQ over MQTT, nothing over TCP.
    pub fn queue_ping(&mut self) {
        if let Wire::Mqtt { .. } = self.wire {
            self.output.extend_from_slice(frame::PINGREQ);
        }
    }

    /// Writes what is queued and waits until something has come. Cancel safe.
    pub async fn exchange(&mut self) -> Result<(), ClientError> {
        self.input.drain(..self.taken.min(self.input.len()));
        self.taken = 0;
        if self.input.is_empty() {
            shed(&mut self.input);
        }
        if self.input.len() > REPLY_BYTES_MAX {
            return Err(ClientError::ReplyTooLong);
        }
        poll_fn(|cx| self.poll_exchange(cx)).await.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ClientError::Closed,
            _ => ClientError::Broken(source),
        })
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Writing may have to wait until the server has got rid of its answers: read all the same.
        if let Poll::Ready(written) = self.poll_write_out(cx) {
            written?;
        }
        let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
        if scratch.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.input.extend_from_slice(scratch.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        shed(&mut self.output);
        self.written = 0;
        match &mut self.stream {
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            // TLS and WebSocket keep bytes of their own.
            buffered => Pin::new(buffered).poll_flush(cx),
        }
    }

    /// What came next; `None` when [`Self::exchange`] must bring more.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<'_>>, ClientError> {
        let rest = self.input.get(self.taken..).unwrap_or_default();
        match self.wire {
            Wire::Mqtt { version, .. } => {
                let Some((frame, length)) = frame::scan(rest)? else {
                    return Ok(None);
                };
                self.taken += length;
                if frame.first >> 4 == 0x0e {
                    return Err(ClientError::Closed);
                }
                let Some(publish) = frame.publish(version)? else {
                    return Ok(Some(Incoming::Other));
                };
                if let Some(packet_id) = publish.packet_id {
                    frame::put_puback(packet_id, &mut self.output);
                }
                Ok(Some(match frame::reply_id(publish.topic) {
                    Some(id) => Incoming::Reply { id: Some(id), text: publish.payload },
                    None if publish.topic == MAIL_TOPIC => Incoming::Notice,
                    None => Incoming::Other,
                }))
            }
            Wire::Lines => {
                let unsearched = rest.get(self.searched..).unwrap_or_default();
                let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                    self.searched = rest.len();
                    return Ok(None);
                };
                let length = self.searched + end;
                self.searched = 0;
                self.taken += length + 1;
                let text = rest.get(..length).unwrap_or_default();
                let notice = text.starts_with(b"{\"notify\":") || text.trim_ascii().is_empty();
                let reply = Incoming::Reply { id: None, text };
                Ok(Some(if notice { Incoming::Other } else { reply }))
            }
        }
    }

    /// Sends one request and waits for its answer; others' answers that are still due are dropped.
    pub(super) async fn ask(&mut self, id: u32, request: &[u8]) -> Result<Reply, ClientError> {
        self.ask_for(super::COMMAND_KEY, id, request).await
    }

    async fn ask_for(&mut self, key: &str, id: u32, request: &[u8]) -> Result<Reply, ClientError> {
        self.queue(id, request);
        loop {
            while let Some(incoming) = self.next_incoming()? {
                if let Incoming::Reply { id: found, text } = incoming
                    && found.is_none_or(|found| found == id)
                {
                    return Reply::parse(text, key);
                }
            }
            self.exchange().await?;
        }
    }

    /// Says goodbye (DISCONNECT over MQTT) and closes.
    pub async fn close(mut self) {
        if let Wire::Mqtt { .. } = self.wire {
            self.output.extend_from_slice(frame::DISCONNECT);
        }
        // The connection ends here either way.
        let _ = poll_fn(|cx| self.poll_write_out(cx)).await;
        let _ = self.stream.shutdown().await;
    }
}

/// Empties a buffer, and gives back what one large answer made it grow to.
fn shed(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        buffer.shrink_to(0);
    }
}
