//! One connection over MQTT or TCP: requests are queued, written together, and answered in any
//! order.

use std::future::poll_fn;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::Protocol;
use mqtt::encode::{self, PublishHead, TooLong};
use mqtt::packet::Connect;
use mqtt::{ConnectProperties, Frame, Packet, PublishProperties, QoS, Version, reason};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::dial::{Stream, Target};
use super::reply::Reply;
use super::url::{Login, Url};
use super::{ClientError, Options, REPLY_BYTES_MAX, login_text};

/// Bytes read at once. The buffer is on the stack: a waiting connection holds none.
const READ_BYTES: usize = 16 * 1024;

/// Bytes of buffer that a connection keeps once they are read or written.
const KEPT_BYTES: usize = 64 * 1024;

/// The topic of the notice that mail waits.
const MAIL_TOPIC: &str = "notify/mailbox_activity";

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
    /// Whether a notice of mail came while something else was waited for.
    noticed: bool,
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
            noticed: false,
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
        put_connect(&mut self.output, version, &client_id, login, keep_alive_s)?;
        let (packet, length) = loop {
            self.exchange().await?;
            // The bound of what is read is that of `exchange`.
            if let Some(found) = mqtt::decode(&self.input, version, usize::MAX)? {
                break found;
            }
        };
        let Packet::ConnAck(connack) = packet else {
            return Err(ClientError::NoConnAck);
        };
        if connack.code != reason::SUCCESS {
            let reason = format!("{} (code {})", refusal(connack.code), connack.code);
            return Err(ClientError::Refused(reason));
        }
        self.receive_max = connack.properties.receive_max.map_or(u16::MAX, NonZeroU16::get);
        self.taken = length;
        Ok(())
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
    pub fn queue(&mut self, id: u32, request: &[u8]) -> Result<(), ClientError> {
        match self.wire {
            Wire::Mqtt { version, qos1 } => {
                // Packet ids 1 to 65535, in turn.
                let pkid = qos1.then_some((id % 0xffff) as u16 + 1);
                put_request(&mut self.output, version, pkid, id, request)?;
            }
            Wire::Lines => {
                self.output.extend_from_slice(request);
                self.output.push(b'\n');
            }
        }
        Ok(())
    }

    /// Queues what keeps an idle connection alive: a PINGREQ over MQTT, nothing over TCP.
    pub fn queue_ping(&mut self) {
        if let Wire::Mqtt { .. } = self.wire {
            encode::pingreq(&mut self.output);
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
        // TLS and WebSocket keep bytes of their own.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// What came next; `None` when [`Self::exchange`] must bring more.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming<'_>>, ClientError> {
        let rest = self.input.get(self.taken..).unwrap_or_default();
        match self.wire {
            Wire::Mqtt { version, .. } => {
                let Some(frame) = Frame::find(rest, version, usize::MAX)? else {
                    return Ok(None);
                };
                self.taken += frame.length;
                let Some(publish) = frame.publish(version)? else {
                    return match frame.packet(version)? {
                        Packet::Disconnect(_) => Err(ClientError::Closed),
                        _ => Ok(Some(Incoming::Other)),
                    };
                };
                if publish.qos != QoS::AtMostOnce {
                    encode::puback(&mut self.output, version, publish.pkid, reason::SUCCESS);
                }
                Ok(Some(match reply_id(publish.topic) {
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
        self.queue(id, request)?;
        loop {
            while let Some(incoming) = self.next_incoming()? {
                match incoming {
                    Incoming::Reply { id: found, text }
                        if found.is_none_or(|found| found == id) =>
                    {
                        return Reply::parse(text, key);
                    }
                    Incoming::Notice => self.noticed = true,
                    Incoming::Reply { .. } | Incoming::Other => {}
                }
            }
            self.exchange().await?;
        }
    }

    /// Waits for a notice of mail, unless one came since the last that was waited for.
    pub(super) async fn mail_waits(&mut self) -> Result<(), ClientError> {
        loop {
            while let Some(incoming) = self.next_incoming()? {
                if incoming == Incoming::Notice {
                    self.noticed = true;
                }
            }
            if std::mem::take(&mut self.noticed) {
                return Ok(());
            }
            self.exchange().await?;
        }
    }

    /// Says goodbye (DISCONNECT over MQTT) and closes.
    pub async fn close(mut self) {
        if let Wire::Mqtt { version, .. } = self.wire {
            encode::disconnect(&mut self.output, version, reason::SUCCESS);
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

/// Appends a CONNECT with a clean session and without a will.
fn put_connect(
    out: &mut Vec<u8>,
    version: Version,
    client_id: &str,
    login: Option<(&str, &str)>,
    keep_alive: u16,
) -> Result<(), TooLong> {
    let connect = Connect {
        version,
        bridge: false,
        clean: true,
        keep_alive,
        client_id,
        will: None,
        username: login.map(|(user, _)| user),
        password: login.map(|(_, password)| password.as_bytes()),
        properties: ConnectProperties::default(),
    };
    encode::connect(out, &connect)
}

/// Appends a PUBLISH to `api/<id>`, with QoS 1 if it has a packet id.
fn put_request(
    out: &mut Vec<u8>,
    version: Version,
    pkid: Option<u16>,
    id: u32,
    request: &[u8],
) -> Result<(), TooLong> {
    let mut topic = [0; "api/4294967295".len()];
    let mut rest = topic.as_mut_slice();
    // There is room for every id.
    let _ = write!(rest, "api/{id}");
    let unused = rest.len();
    let topic = topic.get(..topic.len() - unused).unwrap_or_default();
    let head = PublishHead {
        dup: false,
        qos: if pkid.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: false,
        pkid: pkid.unwrap_or_default(),
        topic: &[topic],
        properties: &PublishProperties::default(),
        subscription_ids: &[],
    };
    encode::publish(out, version, &head, request)
}

/// The number in a topic `reply/<number>`, as the topic of the request had it.
pub(crate) fn reply_id(topic: &str) -> Option<u32> {
    topic.strip_prefix("reply/")?.parse().ok()
}

/// What the code of a CONNACK that refuses means.
fn refusal(code: u8) -> &'static str {
    match code {
        0x01 | 0x84 => "this version of MQTT is not served",
        0x02 | 0x85 => "client id refused",
        0x03 | 0x88 => "server unavailable",
        0x04 | 0x86 => "bad user name or password",
        0x05 | 0x87 => "not authorised",
        0x89 => "server busy",
        0x8a => "banned",
        0x97 => "quota exceeded",
        0x9f => "connection rate exceeded",
        _ => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_are_as_the_real_clients_send_them() {
        let check = |version, login, expected: &[u8]| {
            let mut out = Vec::new();
            put_connect(&mut out, version, "c", login, 60).expect("short texts");
            assert_eq!(out, expected, "{version:?}");
        };
        check(Version::V31, None, b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01c");
        let login = Some(("u", "pw"));
        check(Version::V311, login, b"\x10\x14\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x01u\0\x02pw");
        check(Version::V5, login, b"\x10\x15\0\x04MQTT\x05\xc2\0\x3c\0\0\x01c\0\x01u\0\x02pw");
    }

    #[test]
    fn requests_carry_their_number_in_the_topic() {
        let check = |version, pkid, id, expected: &[u8]| {
            let mut out = Vec::new();
            put_request(&mut out, version, pkid, id, b"{}").expect("it is short");
            assert_eq!(out, expected);
        };
        check(Version::V311, None, 0, b"\x30\x09\0\x05api/0{}");
        check(Version::V31, Some(258), 42, b"\x32\x0c\0\x06api/42\x01\x02{}");
        check(Version::V5, None, u32::MAX, b"\x30\x13\0\x0eapi/4294967295\0{}");
    }

    #[test]
    fn answers_to_connect_are_read() {
        let check = |version, bytes: &[u8], code, receive_max| {
            let (packet, length) = mqtt::decode(bytes, version, 64).expect("MQTT").expect("whole");
            assert_eq!(length, bytes.len());
            let Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
            let found = connack.properties.receive_max.map(NonZeroU16::get);
            assert_eq!((connack.code, found), (code, receive_max));
        };
        check(Version::V311, b"\x20\x02\0\x05", 5, None);
        check(Version::V5, b"\x20\x02\0\x01", 1, None);
        check(Version::V5, b"\x20\x03\0\0\0", 0, None);
        check(Version::V5, b"\x20\x0c\0\0\x09\x24\x01\x1f\0\x01x\x21\0\x14", 0, Some(20));
    }

    #[test]
    fn replies_are_found_by_their_number() {
        let check = |topic: &str, id| assert_eq!(reply_id(topic), id, "{topic}");
        check("reply/0", Some(0));
        check("reply/4294967295", Some(u32::MAX));
        check("reply/4294967296", None);
        check("reply/", None);
        check("reply", None);
        check("reply/1x", None);
        check("replyz/1", None);
        check("notify/mailbox_activity", None);
    }
}
