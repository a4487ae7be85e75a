//! MQTT frames made by hand, and the sockets that they go through.

use std::io;

use client::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Endpoints, SOON, TOKEN};

/// The versions of MQTT that there are.
pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];
/// A PINGREQ.
pub const PING: &[u8] = &[0xc0, 0];
/// A DISCONNECT, which takes back the will.
pub const DISCONNECT: &[u8] = &[0xe0, 0];
/// A request that every session may make.
pub const ASK: &str = r#"{"1":{"command":"diag.ping"}}"#;
/// The answer to [`ASK`].
pub const DONE: &str = r#"{"1":{"success":true}}"#;

/// What a CONNECT says.
#[derive(Clone)]
pub struct Connect {
    /// The version.
    pub version: Version,
    /// Whether the protocol level has the bit of mosquitto's bridges.
    pub bridge: bool,
    /// Whether the session begins anew.
    pub clean: bool,
    /// Seconds of silence after which the server closes the connection; 0 is no limit.
    pub keep_alive_s: u16,
    /// The client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Topic, payload, properties and the retain flag of a will, with QoS 1.
    pub will: Option<(&'static str, &'static str, &'static [u8], bool)>,
    /// Properties of MQTT 5.
    pub properties: Vec<u8>,
}

impl Connect {
    /// A thing of BasicOrg that begins anew; its client id is its key.
    pub fn thing(version: Version, key: &str) -> Self {
        Self::login(version, key, key, TOKEN)
    }

    /// Any login.
    pub fn login(version: Version, client_id: &str, user: &str, password: &str) -> Self {
        Self {
            version,
            bridge: false,
            clean: true,
            keep_alive_s: 60,
            client_id: client_id.to_owned(),
            login: Some((user.to_owned(), password.to_owned())),
            will: None,
            properties: Vec::new(),
        }
    }

    /// With this client id.
    pub fn id(mut self, client_id: &str) -> Self {
        self.client_id = client_id.to_owned();
        self
    }

    /// With this will.
    pub fn will(mut self, topic: &'static str, payload: &'static str) -> Self {
        self.will = Some((topic, payload, b"", false));
        self
    }

    /// As a bridge of mosquitto.
    pub fn bridge(mut self) -> Self {
        self.bridge = true;
        self
    }

    /// With these properties of MQTT 5.
    pub fn properties(mut self, properties: &[u8]) -> Self {
        self.properties = properties.to_vec();
        self
    }

    /// Takes up what was left: without a clean session; in MQTT 5 with a state that outlives the
    /// connection for an hour.
    pub fn resuming(mut self) -> Self {
        self.clean = false;
        self.properties.extend([0x11, 0, 0, 0x0e, 0x10]);
        self
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        flags |= self.login.as_ref().map_or(0, |_| 0xc0);
        flags |= self.will.map_or(0, |(_, _, _, retain)| 0x0c | u8::from(retain) << 5);
        let (name, level) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let level = level | u8::from(self.bridge) << 7;
        let keep_alive = self.keep_alive_s.to_be_bytes();
        let properties = block(self.version, &self.properties);
        let mut rest = text(&self.client_id);
        if let Some((topic, payload, properties, _)) = self.will {
            rest.extend(block(self.version, properties));
            rest.extend([text(topic), text(payload)].concat());
        }
        if let Some((user, password)) = &self.login {
            rest.extend([text(user), text(password)].concat());
        }
        frame(0x10, &[&text(name), &[level, flags], &keep_alive, &properties, &rest])
    }

    /// Connects and logs in.
    pub async fn open(&self, server: &Endpoints) -> Wire {
        let mut wire = Wire::open(server, self.version).await;
        wire.send(&self.frame()).await;
        wire.connack = wire.frame().await.expect("a CONNACK");
        assert_eq!((wire.connack[0], wire.connack[3]), (0x20, 0), "{:x?}", wire.connack);
        wire
    }
}

/// A frame: its first byte, its length, its parts.
pub fn frame(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        frame.push(length as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    [frame, body].concat()
}

/// A text, or anything else that has two bytes of length before it.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let length = u16::try_from(text.as_ref().len()).expect("short");
    [&length.to_be_bytes(), text.as_ref()].concat()
}

/// Properties with their length (of one byte), which other versions than 5 don't have.
fn block(version: Version, properties: &[u8]) -> Vec<u8> {
    match version {
        Version::V5 => [&[u8::try_from(properties.len()).expect("short")], properties].concat(),
        _ => Vec::new(),
    }
}

/// A connection.
pub struct Wire {
    /// The version that it speaks.
    pub version: Version,
    /// The answer to CONNECT.
    pub connack: Vec<u8>,
    stream: TcpStream,
    input: Vec<u8>,
}

/// A PUBLISH from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// Its QoS.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The DUP flag.
    pub dup: bool,
    /// The packet id; 0 with QoS 0.
    pub pkid: u16,
    /// Properties of MQTT 5, without their length.
    pub properties: Vec<u8>,
}

impl Message {
    /// Topic and payload.
    pub fn texts(&self) -> (&str, &str) {
        (&self.topic, std::str::from_utf8(&self.payload).expect("UTF-8"))
    }

    /// The values of a property, in order, without the length that stands before a text.
    pub fn property(&self, id: u8) -> Vec<Vec<u8>> {
        values(&self.properties, id)
    }
}

impl Wire {
    /// A connection on which nothing was said.
    pub async fn open(server: &Endpoints, version: Version) -> Self {
        let stream = TcpStream::connect(server.address("mqtt")).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self { version, connack: Vec::new(), stream, input: Vec::new() }
    }

    /// Whether the CONNACK says that there was a session.
    pub fn present(&self) -> bool {
        self.connack[2] == 1
    }

    /// The value of a property of the CONNACK of MQTT 5, without the length before a text.
    pub fn told(&self, id: u8) -> Option<Vec<u8>> {
        let mut rest = &self.connack[1..];
        variable(&mut rest);
        let mut rest = &rest[2..];
        let length = variable(&mut rest);
        values(&rest[..length], id).pop()
    }

    /// The connection's own address, as the server sees it.
    pub fn address(&self) -> String {
        self.stream.local_addr().expect("a socket").to_string()
    }

    /// Writes bytes. A connection that the server has closed takes them in silence.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes).await;
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// A connection that is closed.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that nothing more will be sent, without DISCONNECT.
    pub async fn shut(&mut self) {
        self.stream.shutdown().await.expect("a connection");
    }

    /// The next frame; none when the server has closed the connection.
    pub async fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = frame_length(&self.input) {
                return Some(self.input.drain(..length).collect());
            }
            let read = timeout(SOON, self.stream.read_buf(&mut self.input)).await;
            match read.expect("the server says nothing") {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(self.input, b"", "half a frame");
        None
    }

    /// The next frame has to be this one.
    pub async fn expect(&mut self, bytes: &[u8]) {
        let frame = self.frame().await;
        assert_eq!(frame.as_deref(), Some(bytes), "{:?}", self.version);
    }

    /// The server has to close the connection without another frame.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.frame().await, None, "{:?}", self.version);
    }

    /// Nothing is on the way from the server but the answer to a PINGREQ.
    pub async fn expect_quiet(&mut self) {
        self.send(PING).await;
        self.expect(&[0xd0, 0]).await;
    }

    /// The next frame has to be a PUBLISH; it is not acknowledged.
    pub async fn unacknowledged(&mut self) -> Message {
        let frame = self.frame().await.expect("a PUBLISH");
        assert_eq!(frame[0] & 0xf0, 0x30, "no PUBLISH: {frame:x?}");
        let (first, mut rest) = (frame[0], &frame[1..]);
        variable(&mut rest);
        let topic = String::from_utf8(take_text(&mut rest).to_vec()).expect("UTF-8");
        let qos = first >> 1 & 3;
        let pkid = if qos > 0 { take(&mut rest, 2) } else { &[0, 0] };
        let pkid = u16::from_be_bytes([pkid[0], pkid[1]]);
        let properties = match self.version {
            Version::V5 => {
                let length = variable(&mut rest);
                take(&mut rest, length).to_vec()
            }
            _ => Vec::new(),
        };
        let (dup, retain, payload) = (first & 8 != 0, first & 1 != 0, rest.to_vec());
        Message { topic, payload, qos, retain, dup, pkid, properties }
    }

    /// The next frame has to be a PUBLISH; it is acknowledged, with QoS 2 to the end.
    pub async fn message(&mut self) -> Message {
        let message = self.unacknowledged().await;
        match message.qos {
            0 => {}
            1 => self.acknowledge(message.pkid).await,
            _ => self.complete(message.pkid).await,
        }
        message
    }

    /// Sends the PUBREC of a packet, and the PUBCOMP behind its PUBREL. What comes before that is
    /// still to be read.
    pub async fn complete(&mut self, pkid: u16) {
        let [high, low] = pkid.to_be_bytes();
        self.send(&[0x50, 2, high, low]).await;
        let mut between = Vec::new();
        loop {
            let frame = self.frame().await.expect("a PUBREL");
            if frame == [0x62, 2, high, low] {
                break;
            }
            between.extend(frame);
        }
        self.input.splice(..0, between);
        self.send(&[0x70, 2, high, low]).await;
    }

    /// Publishes with QoS 2 under this packet id, to the end.
    pub async fn tell_once(&mut self, pkid: u16, topic: &str, payload: &str) {
        let [high, low] = pkid.to_be_bytes();
        self.send(&self.publish(0x04, pkid, topic, payload)).await;
        self.expect(&[0x50, 2, high, low]).await;
        self.send(&[0x62, 2, high, low]).await;
        self.expect(&[0x70, 2, high, low]).await;
    }

    /// Sends DISCONNECT and waits for the end of the connection.
    pub async fn leave(mut self) {
        self.send(DISCONNECT).await;
        self.expect_end().await;
    }

    /// Sends the PUBACK of a packet.
    pub async fn acknowledge(&mut self, pkid: u16) {
        self.send(&frame(0x40, &[&pkid.to_be_bytes()])).await;
    }

    /// The bytes of a PUBLISH: its flags, its packet id if the flags ask for one.
    pub fn publish(&self, flags: u8, pkid: u16, topic: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
        self.publish_with(flags, pkid, topic, b"", payload)
    }

    /// As [`Wire::publish`], with properties of MQTT 5.
    pub fn publish_with(
        &self,
        flags: u8,
        pkid: u16,
        topic: &str,
        properties: &[u8],
        payload: impl AsRef<[u8]>,
    ) -> Vec<u8> {
        let pkid = if flags & 6 == 0 { Vec::new() } else { pkid.to_be_bytes().to_vec() };
        let properties = block(self.version, properties);
        frame(0x30 | flags, &[&text(topic), &pkid, &properties, payload.as_ref()])
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    pub async fn tell(&mut self, topic: &str, payload: &str) {
        self.send(&self.publish(0x02, 9, topic, payload)).await;
        self.expect(&[0x40, 2, 0, 9]).await;
    }

    /// Publishes a retained message with QoS 1 and waits for the PUBACK.
    pub async fn retain(&mut self, topic: &str, payload: &str) {
        self.send(&self.publish(0x03, 9, topic, payload)).await;
        self.expect(&[0x40, 2, 0, 9]).await;
    }

    /// Subscribes with these options; the code of the SUBACK.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, b"").await
    }

    /// As [`Wire::subscribe`], with properties of MQTT 5.
    pub async fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let (codes, _) = self.subscribe_to([filter], options, properties).await;
        codes[0]
    }

    /// Subscribes to filters with these options; the codes of the SUBACK, and what it says of those
    /// that are refused.
    pub async fn subscribe_to<F: AsRef<[u8]>>(
        &mut self,
        filters: impl IntoIterator<Item = F>,
        options: u8,
        properties: &[u8],
    ) -> (Vec<u8>, String) {
        let filters = filters.into_iter().flat_map(|filter| [text(filter), vec![options]].concat());
        let parts = [vec![0, 7], block(self.version, properties), filters.collect()];
        self.send(&frame(0x82, &[&parts[0], &parts[1], &parts[2]])).await;
        let suback = self.frame().await.expect("a SUBACK");
        assert_eq!(suback[0], 0x90, "{suback:x?}");
        let mut rest = &suback[1..];
        variable(&mut rest);
        assert_eq!(take(&mut rest, 2), [0, 7]);
        let why = if self.version == Version::V5 { take_why(&mut rest) } else { String::new() };
        (rest.to_vec(), why)
    }

    /// The next frame has to be a PUBACK or PUBREC: its code, and what it says of a refusal.
    pub async fn acknowledgement(&mut self) -> (u8, String) {
        let ack = self.frame().await.expect("an acknowledgement");
        assert!(matches!(ack[0], 0x40 | 0x50), "{ack:x?}");
        let mut rest = &ack[1..];
        variable(&mut rest);
        take(&mut rest, 2);
        if rest.is_empty() {
            return (0, String::new());
        }
        let code = take(&mut rest, 1)[0];
        (code, if rest.is_empty() { String::new() } else { take_why(&mut rest) })
    }

    /// Unsubscribes.
    pub async fn unsubscribe(&mut self, filter: &str) {
        let properties = block(self.version, b"");
        self.send(&frame(0xa2, &[&[0, 8], &properties, &text(filter)])).await;
        let unsuback: &[u8] = match self.version {
            Version::V5 => &[0xb0, 4, 0, 8, 0, 0],
            _ => &[0xb0, 2, 0, 8],
        };
        self.expect(unsuback).await;
    }
}

/// The length of the frame that `input` begins with, if all of it is there.
pub fn frame_length(input: &[u8]) -> Option<usize> {
    let digits = input.get(1..)?.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let length = 1 + digits + variable(&mut &input[1..]);
    (input.len() >= length).then_some(length)
}

fn variable(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(rest, 1)[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The values of a property in a block (MQTT 2.2.2.2), in order.
fn values(block: &[u8], wanted: u8) -> Vec<Vec<u8>> {
    let (mut rest, mut found) = (block, Vec::new());
    while !rest.is_empty() {
        let id = take(&mut rest, 1)[0];
        let before = rest;
        let value = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => take(&mut rest, 1),
            0x13 | 0x21..=0x23 => take(&mut rest, 2),
            0x02 | 0x11 | 0x18 | 0x27 => take(&mut rest, 4),
            0x0b => {
                variable(&mut rest);
                &before[..before.len() - rest.len()]
            }
            0x26 => {
                take_text(&mut rest);
                take_text(&mut rest);
                &before[..before.len() - rest.len()]
            }
            _ => take_text(&mut rest),
        };
        if id == wanted {
            found.push(value.to_vec());
        }
    }
    found
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}

/// The reason string of a property block.
fn take_why(rest: &mut &[u8]) -> String {
    let length = variable(rest);
    let why = values(take(rest, length), 0x1f).pop().unwrap_or_default();
    String::from_utf8(why).expect("UTF-8")
}

fn take_text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take(rest, 2);
    take(rest, usize::from(u16::from_be_bytes([length[0], length[1]])))
}
