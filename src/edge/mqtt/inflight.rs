//! Messages with QoS 1 and 2 that the client has not acknowledged (MQTT 4.3.2, 4.3.3, 4.9).

use std::collections::{HashMap, VecDeque};

use ::mqtt::QoS;
use base::{Timestamp, limits};
use rules::directory::details::{InFlightMessage, MessageHead, Packets};

use super::reply::Reply;
use crate::broker::{Delivery, Message};

/// Packet ids in use, and what waits for one.
#[derive(Debug)]
pub struct Inflight {
    /// How many the client takes at once: its receive maximum.
    max: usize,
    sent: HashMap<u16, Sent>,
    /// Those of `sent` that are deliveries of the broker.
    deliveries: usize,
    waiting: VecDeque<Reply>,
    /// Bytes of those.
    waiting_bytes: usize,
    /// Bytes of topics, and of the messages that are kept because they may go to others.
    kept_bytes: usize,
}

/// What was sent under a packet id.
#[derive(Debug)]
pub enum Sent {
    /// A reply of the dispatcher, or another message of the server's own.
    Reply,
    /// A message of the broker.
    Delivery {
        /// Its number in the session.
        seq: u64,
        /// The bytes that it takes there.
        bytes: usize,
        /// With QoS 2: whether the client has it, so that only its release is on its way.
        released: bool,
        /// Its quality of service.
        qos: QoS,
        /// When it was sent.
        at: Timestamp,
        /// What it is about; none if an earlier connection has sent it.
        about: Option<About>,
        /// The message itself, if it may go to another member of a shared subscription.
        shared: Option<Box<Delivery>>,
    },
}

/// What is kept of a message to tell of it.
#[derive(Debug)]
pub struct About {
    topic: Box<str>,
    payload_len: usize,
}

impl About {
    pub fn of(message: &Message) -> Self {
        Self { topic: message.shown_topic().into(), payload_len: message.payload().len() }
    }
}

impl Sent {
    /// Bytes that are kept of it.
    fn kept_bytes(&self) -> usize {
        let Self::Delivery { about, shared, .. } = self else { return 0 };
        about.as_ref().map_or(0, |about| about.topic.len())
            + shared.as_ref().map_or(0, |shared| shared.message.len())
    }

    /// What there is to tell of it, and its place in the order of all.
    fn told(&self, packet_id: u16) -> (u64, InFlightMessage) {
        match self {
            Self::Reply => {
                (u64::MAX, InFlightMessage { packet_id, qos: 1, released: false, about: None })
            }
            Self::Delivery { seq, released, qos, at, about, .. } => {
                let about = about.as_ref().map(|about| MessageHead {
                    topic: about.topic.clone(),
                    bytes: about.payload_len,
                    since: *at,
                });
                (*seq, InFlightMessage { packet_id, qos: *qos as u8, released: *released, about })
            }
        }
    }
}

impl Inflight {
    /// Nothing in flight, `max` at once.
    pub fn new(max: u16) -> Self {
        let (sent, waiting) = (HashMap::new(), VecDeque::new());
        Self {
            max: usize::from(max),
            sent,
            deliveries: 0,
            waiting,
            waiting_bytes: 0,
            kept_bytes: 0,
        }
    }

    /// Bytes of what is kept.
    pub const fn held(&self) -> usize {
        self.waiting_bytes + self.kept_bytes
    }

    /// Whether one more may be sent.
    pub fn has_room(&self) -> bool {
        self.sent.len() < self.max
    }

    /// How many more deliveries of the broker may be sent.
    pub fn window(&self) -> usize {
        let few = limits::INFLIGHT_MAX.saturating_sub(self.deliveries);
        self.max.saturating_sub(self.sent.len()).min(few)
    }

    /// Notes what is sent under a packet id; false if that is in use.
    pub fn begin(&mut self, pkid: u16, sent: Sent) -> bool {
        if self.sent.contains_key(&pkid) {
            return false;
        }
        self.deliveries += usize::from(matches!(sent, Sent::Delivery { .. }));
        self.kept_bytes += sent.kept_bytes();
        self.sent.insert(pkid, sent);
        true
    }

    /// Packet ids in use, and when the oldest delivery among them was sent.
    pub fn packets(&self) -> (Packets, Option<Timestamp>) {
        let (mut packets, mut oldest) = (Packets::default(), None);
        for sent in self.sent.values() {
            match sent {
                Sent::Delivery { qos: QoS::ExactlyOnce, .. } => packets.qos2 += 1,
                Sent::Delivery { .. } | Sent::Reply => packets.qos1 += 1,
            }
            if let Sent::Delivery { at, .. } = sent {
                oldest = oldest.map_or(Some(*at), |oldest: Timestamp| Some(oldest.min(*at)));
            }
        }
        (packets, oldest)
    }

    /// The first of what is in flight, in the order in which it was sent; messages of the server's
    /// own come last.
    pub fn first(&self, count: usize) -> Vec<InFlightMessage> {
        let mut all: Vec<_> = self.sent.iter().map(|(pkid, sent)| sent.told(*pkid)).collect();
        all.sort_by_key(|(seq, message)| (*seq, message.packet_id));
        all.into_iter().take(count).map(|(_, message)| message).collect()
    }

    /// Whether something was sent under a packet id.
    pub fn is_used(&self, pkid: u16) -> bool {
        self.sent.contains_key(&pkid)
    }

    /// What was sent under a packet id.
    pub fn get_mut(&mut self, pkid: u16) -> Option<&mut Sent> {
        self.sent.get_mut(&pkid)
    }

    /// Notes that it is acknowledged; none for an id that is not in flight.
    pub fn end(&mut self, pkid: u16) -> Option<Sent> {
        let sent = self.sent.remove(&pkid)?;
        self.deliveries -= usize::from(matches!(sent, Sent::Delivery { .. }));
        self.kept_bytes -= sent.kept_bytes();
        Some(sent)
    }

    /// Messages that may go to other members of shared subscriptions: those with QoS 1, for with
    /// QoS 2 nobody knows whether the client has them.
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        let shared = |sent: Sent| match sent {
            Sent::Delivery { shared, qos: QoS::AtLeastOnce, .. } => shared.map(|shared| *shared),
            _ => None,
        };
        (self.deliveries, self.kept_bytes) = (0, 0);
        let mut shared: Vec<_> = self.sent.drain().filter_map(|(_, sent)| shared(sent)).collect();
        shared.sort_by_key(|delivery| delivery.seq);
        shared
    }

    /// Has the acknowledgements of deliveries mean nothing but that their packet ids are free.
    pub fn forget_deliveries(&mut self) {
        self.sent.values_mut().for_each(|sent| *sent = Sent::Reply);
        (self.deliveries, self.kept_bytes) = (0, 0);
    }

    /// Keeps a reply until there is room. False when too many wait.
    pub fn wait(&mut self, reply: Reply) -> bool {
        let bytes = self.waiting_bytes + reply.bytes();
        let room =
            self.waiting.len() < limits::OUTBOX_MESSAGES_MAX && bytes <= limits::OUTBOX_BYTES_MAX;
        if room {
            self.waiting_bytes = bytes;
            self.waiting.push_back(reply);
        }
        room
    }

    /// The next reply that waits, when there is room for it.
    pub fn next_waiting(&mut self) -> Option<Reply> {
        let reply = if self.has_room() { self.waiting.pop_front() } else { None }?;
        self.waiting_bytes -= reply.bytes();
        Some(reply)
    }
}

/// The lower of two qualities of service, at most 1: what a reply gets.
pub(super) fn delivered(a: QoS, b: QoS) -> QoS {
    a.min(b).min(QoS::AtLeastOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_twice_in_flight() {
        let mut inflight = Inflight::new(u16::MAX);
        assert!(inflight.begin(1, Sent::Reply));
        assert!(!inflight.begin(1, Sent::Reply));
        assert!(inflight.end(1).is_some() && inflight.end(1).is_none());
        assert!(inflight.begin(1, Sent::Reply));
    }

    #[test]
    fn no_more_than_the_receive_maximum_is_in_flight() {
        let mut inflight = Inflight::new(2);
        assert!(inflight.begin(1, Sent::Reply) && inflight.begin(2, Sent::Reply));
        assert!(!inflight.has_room());
        assert_eq!(inflight.window(), 0);
        assert!(inflight.end(1).is_some());
        assert!(inflight.has_room());
        assert_eq!(inflight.window(), 1);
    }
}
