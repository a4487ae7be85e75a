//! A client's stream through the real MQTT edge, cut anywhere.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use mqtt::packet::Connect;
use mqtt::{ConnectProperties, Packet, Version, decode, encode};
use tr50d::edge::driver::{Pass, Peer as _};
use tr50d::edge::mqtt::client::{Client, Closing, Owed};

use super::{Target, cut, pieces};
use crate::micro::{NOW, Setup, conn};

/// Inputs before the servers are made anew: what they keep grows.
const INPUTS_MAX: usize = 500;

/// Longer than anything takes that waits for no device.
const DONE: Duration = Duration::from_secs(20);

/// Two servers that get the same streams: one as a whole, the other in pieces. The first byte chooses
/// the version of a login that goes before, or none (3), and whether replies are awaited between the
/// pieces (4); then `cut`.
pub struct MqttStream {
    servers: [Setup; 2],
    inputs: usize,
}

impl Target for MqttStream {
    const NAME: &'static str = "mqtt_stream";

    fn new() -> Self {
        Self { servers: [(); 2].map(|()| Setup::with_sessions(0)), inputs: 0 }
    }

    fn check(&mut self, data: &[u8]) {
        let Some((choice, rest)) = data.split_first() else { return };
        let (sizes, bytes) = cut(rest);
        let version = [Some(Version::V31), Some(Version::V311), Some(Version::V5), None];
        let login = version[usize::from(choice % 4)].map(login).unwrap_or_default();
        let version =
            match decode(if login.is_empty() { bytes } else { &login }, Version::V311, 1 << 20) {
                Ok(Some((Packet::Connect(connect), _))) => connect.version,
                _ => Version::V311,
            };
        let waits = choice & 0x04 != 0;
        let pieces = pieces(bytes, &sizes);
        let [whole, cut] = self.both(&login, bytes, &pieces, waits, version);
        if !waits && whole != cut {
            // A will of an earlier stream that was delayed may have come to one of them.
            *self = Self::new();
            let [whole, cut] = self.both(&login, bytes, &pieces, waits, version);
            assert_eq!(whole, cut, "as a whole, and in pieces");
        }
        self.inputs += 1;
        if self.inputs == INPUTS_MAX {
            *self = Self::new();
        }
    }
}

impl MqttStream {
    /// What comes of the stream as a whole, and in pieces.
    fn both(
        &self,
        login: &[u8],
        bytes: &[u8],
        pieces: &[&[u8]],
        waits: bool,
        version: Version,
    ) -> [Vec<(u8, usize)>; 2] {
        let [whole, cut] = &self.servers;
        let cut = converse(cut, login, pieces, waits);
        // Who names a version that there is not is answered as in MQTT 5.
        let version = if cut.starts_with(&[0x20, 3]) { Version::V5 } else { version };
        check_frames(&cut, version);
        // Both get each stream, for what is retained comes to later ones.
        let whole = converse(whole, login, &[bytes], false);
        [kinds(&whole, version), kinds(&cut, version)]
    }
}

/// The CONNECT of a device that the server knows.
fn login(version: Version) -> Vec<u8> {
    let packet = Connect {
        version,
        bridge: false,
        clean: true,
        keep_alive: 60,
        client_id: "fuzz",
        will: None,
        username: Some("device-fuzz"),
        password: Some(b"the-token-of-org-0"),
        properties: ConnectProperties::default(),
    };
    let mut frame = Vec::new();
    encode::connect(&mut frame, &packet).expect("it is short");
    frame
}

/// What the server answers to the pieces until the client goes.
fn converse(server: &Setup, login: &[u8], pieces: &[&[u8]], waits: bool) -> Vec<u8> {
    let sessions = server.app.directory().len();
    let entered = server.runtime.enter();
    let peer = Client::new(server.server.clone(), conn(0), false);
    let mut line = Line { server, peer, owed: Owed::default(), kept: Vec::new(), out: Vec::new() };
    let mut talk = || {
        line.receive(login)?;
        for piece in pieces {
            line.receive(piece)?;
            if waits {
                line.drain()?;
                line.pushed()?;
            }
        }
        line.drain()
    };
    let closing = talk().err();
    let mut out = std::mem::take(&mut line.out);
    let closing = closing.or_else(|| line.pushed().err()).unwrap_or_else(Closing::lost);
    line.peer.farewell(&closing, &mut out);
    drop(entered);
    server.runtime.block_on(line.peer.end(closing, line.owed));
    assert_eq!(server.app.directory().len(), sessions, "its session ends with it");
    out
}

/// A connection without its socket.
struct Line<'a> {
    server: &'a Setup,
    peer: Client,
    owed: Owed,
    kept: Vec<u8>,
    out: Vec<u8>,
}

impl Line<'_> {
    /// Bytes come, as the driver hands them over.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Closing> {
        self.kept.extend_from_slice(bytes);
        loop {
            let mut out = Vec::new();
            let used = self.peer.receive(&self.kept, NOW, &mut out, &mut self.owed);
            self.out.append(&mut out);
            let used = used?;
            assert!(used <= self.kept.len());
            self.kept.drain(..used);
            if self.owed.is_blocked() {
                self.work()?;
            } else if used == 0 || self.kept.is_empty() {
                return Ok(());
            }
        }
    }

    fn work(&mut self) -> Result<(), Closing> {
        let done = tokio::time::timeout;
        let done = self.server.runtime.block_on(async { done(DONE, self.owed.worked()).await });
        match done.expect("work comes to its end") {
            Some(done) => self.peer.finish(done, &mut self.out, &mut self.owed),
            None => Ok(()),
        }
    }

    /// Waits for all replies that wait for no device.
    fn drain(&mut self) -> Result<(), Closing> {
        loop {
            while self.owed.is_blocked() {
                self.work()?;
            }
            let next = self
                .server
                .runtime
                .block_on(async { tokio::time::timeout(DONE, self.owed.next(false)).await });
            let Some(done) = next.expect("replies come") else { return Ok(()) };
            self.peer.finish(done, &mut self.out, &mut self.owed)?;
            self.receive(&[])?;
        }
    }

    /// What others have sent meanwhile, as far as it is there at once.
    fn pushed(&mut self) -> Result<(), Closing> {
        let (peer, out) = (&mut self.peer, &mut self.out);
        let pushed = poll_fn(|cx| Poll::Ready(peer.poll_pushed(cx, &mut Pass::default(), 0, out)));
        self.server.runtime.block_on(pushed).map(drop)
    }
}

/// All that goes out is MQTT of the client's version.
fn check_frames(mut bytes: &[u8], version: Version) {
    while !bytes.is_empty() {
        match decode(bytes, version, usize::MAX) {
            Ok(Some((_, length))) => bytes = &bytes[length..],
            other => panic!("{other:?} in {bytes:02x?}"),
        }
    }
}

/// The packets, without what is random in them, in any order: what is looked up on another thread
/// comes when it is there.
fn kinds(mut bytes: &[u8], version: Version) -> Vec<(u8, usize)> {
    let mut kinds = Vec::new();
    while let Ok(Some((_, length))) = decode(bytes, version, usize::MAX) {
        kinds.push((bytes[0], length));
        bytes = &bytes[length..];
    }
    kinds.sort_unstable();
    kinds
}
