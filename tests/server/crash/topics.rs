//! A writer and two readers of ordinary MQTT topics, whose sessions outlive their connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Version::{V5, V311};
use parking_lot::Mutex;
use support::mqtt::{Connect, Wire};
use support::{Endpoints, SOON};
use tokio::time::timeout;

/// A message that is not acknowledged to the end.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    qos: u8,
    /// Whether the server has it: then it is to be released, and not to be sent again.
    received: bool,
}

/// What the writer remembers, as the client's half of an MQTT session does.
#[derive(Default)]
struct Sent {
    last: u64,
    flight: Option<Flight>,
    /// Messages that were acknowledged since the last kill, by their QoS.
    acknowledged: BTreeMap<u64, u8>,
    /// The message that is retained.
    retained: u64,
}

/// What outlives a kill.
#[derive(Default)]
pub(super) struct Writer(Mutex<Sent>);

impl Writer {
    /// Connects, and says how a message that was in flight goes on.
    pub(super) async fn connect(&self, server: &Endpoints) -> Wire {
        let wire = Connect::thing(V5, "crash-writer").resuming().open(server).await;
        let mut sent = self.0.lock();
        if let Some(flight) = sent.flight.filter(|flight| flight.received && !wire.present()) {
            // Nothing was left to be released: it is done.
            sent.acknowledged.insert(flight.number, flight.qos);
            sent.flight = None;
        }
        drop(sent);
        wire
    }

    /// Publishes until the server is gone.
    pub(super) async fn work(self: Arc<Self>, mut wire: Wire) {
        let flight = self.0.lock().flight;
        if let Some(flight) = flight
            && self.publish(&mut wire, flight, true).await.is_none()
        {
            return;
        }
        loop {
            let flight = {
                let mut sent = self.0.lock();
                sent.last += 1;
                let flight =
                    Flight { number: sent.last, qos: 1 + (sent.last % 2) as u8, received: false };
                sent.flight = Some(flight);
                flight
            };
            if self.publish(&mut wire, flight, false).await.is_none() {
                return;
            }
        }
    }

    /// Publishes a message to the end; none when the server is gone.
    async fn publish(&self, wire: &mut Wire, flight: Flight, again: bool) -> Option<()> {
        let Flight { number, qos, received } = flight;
        let [high, low] = packet_id(number);
        if !received {
            // Every fourth is retained, too: they have QoS 1.
            let retained = u8::from(number.is_multiple_of(4));
            let flags = qos << 1 | retained | u8::from(again) << 3;
            let topic = if retained == 1 { "crash/retained" } else { "crash/live" };
            let id = u16::from_be_bytes([high, low]);
            wire.send(&wire.publish(flags, id, topic, number.to_string())).await;
            let kind = if qos == 1 { 0x40 } else { 0x50 };
            answer(wire, [kind, high, low]).await?;
        }
        if qos == 2 {
            self.0.lock().flight = Some(Flight { received: true, ..flight });
            wire.send(&[0x62, 2, high, low]).await;
            answer(wire, [0x70, high, low]).await?;
        }
        let mut sent = self.0.lock();
        sent.flight = None;
        sent.acknowledged.insert(number, qos);
        if number.is_multiple_of(4) {
            sent.retained = number;
        }
        Some(())
    }

    /// The message that was acknowledged last is retained, or the one that was on its way.
    pub(super) async fn verify_retained(&self, server: &Endpoints) {
        let (retained, flight) = {
            let sent = self.0.lock();
            (sent.retained, sent.flight.map(|flight| flight.number))
        };
        let mut reader = Connect::thing(V5, "crash-fresh").open(server).await;
        assert_eq!(reader.subscribe("crash/retained", 1).await, 1);
        if retained == 0 {
            return;
        }
        let found = number_of(&reader.message().await.payload);
        assert!(found == retained || Some(found) == flight, "{found}, and not {retained}");
    }

    /// The messages that were acknowledged since this was asked last.
    pub(super) fn take_acknowledged(&self) -> BTreeMap<u64, u8> {
        std::mem::take(&mut self.0.lock().acknowledged)
    }
}

/// The next frame has to be this acknowledgement; none when the server is gone.
async fn answer(wire: &mut Wire, [kind, high, low]: [u8; 3]) -> Option<()> {
    let frame = wire.frame().await?;
    assert_eq!((frame[0], frame[2], frame[3]), (kind, high, low), "{frame:x?}");
    // With a reason, it has to be a good one; who releases again what was released is told so.
    let is_good = |reason: &u8| *reason < 0x80 || (kind == 0x70 && *reason == 0x92);
    assert!(frame.get(4).is_none_or(is_good), "{frame:x?}");
    Some(())
}

fn packet_id(number: u64) -> [u8; 2] {
    ((number % 65_535) as u16 + 1).to_be_bytes()
}

fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).expect("text").parse().expect("a number")
}

/// What a reader remembers.
#[derive(Default)]
struct Got {
    numbers: BTreeSet<u64>,
    /// Packet ids of messages with QoS 2 that it has and that are not released.
    open: BTreeSet<u16>,
}

/// A reader of everything, with QoS 2 over MQTT 5 or QoS 1 over 3.1.1.
pub(super) struct Reader {
    qos: u8,
    got: Mutex<Got>,
}

impl Reader {
    pub(super) fn new(qos: u8) -> Arc<Self> {
        Arc::new(Self { qos, got: Mutex::default() })
    }

    /// Connects; the first time it subscribes.
    pub(super) async fn connect(&self, server: &Endpoints, first: bool) -> Wire {
        let version = if self.qos == 2 { V5 } else { V311 };
        let key = format!("crash-reader-{}", self.qos);
        let mut wire = Connect::thing(version, &key).resuming().open(server).await;
        assert_eq!(wire.present(), !first, "its session is lost");
        if first {
            assert_eq!(wire.subscribe("crash/#", self.qos).await, self.qos);
        }
        wire
    }

    /// Reads until the server is gone.
    pub(super) async fn work(self: Arc<Self>, mut wire: Wire) {
        while self.read(&mut wire).await.is_some() {}
    }

    /// Reads until all of these are there; each comes once with QoS 2.
    pub(super) async fn verify(&self, wire: &mut Wire, acknowledged: &BTreeMap<u64, u8>) {
        loop {
            let missing = {
                let got = self.got.lock();
                acknowledged.keys().find(|number| !got.numbers.contains(number)).copied()
            };
            let Some(missing) = missing else { return };
            let read = timeout(SOON, self.read(wire)).await;
            let read = read.unwrap_or_else(|_| panic!("message {missing} is lost"));
            read.expect("the server lives");
        }
    }

    async fn read(&self, wire: &mut Wire) -> Option<()> {
        // What does not come in time is said by who waits for it.
        let frame = wire.frame().await?;
        let id = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        match frame[0] >> 4 {
            3 => {
                let topic = usize::from(id(2));
                let (pkid, body) = (id(4 + topic), &frame[6 + topic..]);
                // MQTT 5 has properties, of which there are none.
                let payload = if self.qos == 2 { &body[1..] } else { body };
                let (number, qos) = (number_of(payload), frame[0] >> 1 & 3);
                let [high, low] = pkid.to_be_bytes();
                if qos == 2 {
                    let mut got = self.got.lock();
                    let is_new = !got.open.insert(pkid) || got.numbers.insert(number);
                    assert!(is_new, "message {number} came twice");
                }
                self.got.lock().numbers.insert(number);
                let kind = if qos == 2 { 0x50 } else { 0x40 };
                wire.send(&[kind, 2, high, low]).await;
            }
            6 => {
                self.got.lock().open.remove(&id(2));
                wire.send(&[0x70, 2, frame[2], frame[3]]).await;
            }
            _ => panic!("{frame:x?}"),
        }
        Some(())
    }
}
