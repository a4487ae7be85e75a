//! Deliveries with QoS 1 that the client has not acknowledged (MQTT 4.3.2, 4.9).

use std::collections::{HashMap, VecDeque};

use ::mqtt::QoS;
use base::limits;

use super::reply::Reply;
use crate::broker::AckToken;

/// Packet ids in use, and what waits for one.
#[derive(Debug)]
pub struct Inflight {
    /// How many the client takes at once: its receive maximum.
    max: usize,
    next: u16,
    sent: HashMap<u16, Source>,
    waiting: VecDeque<Reply>,
}

/// Who wants to know of an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nobody: a reply of the dispatcher.
    Reply,
    /// The broker, which calls the delivery so.
    Broker(AckToken),
}

impl Inflight {
    /// Nothing in flight, `max` at once.
    pub fn new(max: u16) -> Self {
        let (sent, waiting) = (HashMap::new(), VecDeque::new());
        Self { max: usize::from(max), next: 0, sent, waiting }
    }

    /// Whether one more may be sent.
    pub fn has_room(&self) -> bool {
        self.sent.len() < self.max
    }

    /// Takes a packet id for a delivery; call only when there is room.
    pub fn begin(&mut self, source: Source) -> u16 {
        loop {
            self.next = self.next.wrapping_add(1);
            if self.next != 0 && !self.sent.contains_key(&self.next) {
                self.sent.insert(self.next, source);
                return self.next;
            }
        }
    }

    /// Notes an acknowledgement; none for an id that is not in flight.
    pub fn end(&mut self, pkid: u16) -> Option<Source> {
        self.sent.remove(&pkid)
    }

    /// Keeps a reply until there is room. False when too many wait.
    pub fn wait(&mut self, reply: Reply) -> bool {
        let bytes: usize = self.waiting.iter().map(|reply| reply.body.len()).sum();
        let room = self.waiting.len() < limits::OUTBOX_MESSAGES_MAX
            && bytes + reply.body.len() <= limits::OUTBOX_BYTES_MAX;
        if room {
            self.waiting.push_back(reply);
        }
        room
    }

    /// The next reply that waits, when there is room for it.
    pub fn next_waiting(&mut self) -> Option<Reply> {
        if self.has_room() { self.waiting.pop_front() } else { None }
    }
}

/// The lower of two qualities of service, at most 1: what a delivery gets.
pub(super) fn delivered(a: QoS, b: QoS) -> QoS {
    if a == QoS::AtMostOnce || b == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_zero_and_never_twice_in_flight() {
        let mut inflight = Inflight::new(u16::MAX);
        let first = inflight.begin(Source::Reply);
        assert_eq!(first, 1);
        for _ in 0..65_533 {
            let id = inflight.begin(Source::Reply);
            assert_ne!(id, 0);
            assert_eq!(inflight.end(id), Some(Source::Reply));
        }
        assert_eq!(inflight.begin(Source::Reply), 65_535);
        // Round the corner: 0 is no id, 1 is still in flight.
        assert_eq!(inflight.begin(Source::Reply), 2);
        assert_eq!(inflight.end(first), Some(Source::Reply));
        assert_eq!(inflight.end(first), None);
    }

    #[test]
    fn no_more_than_the_receive_maximum_is_in_flight() {
        let mut inflight = Inflight::new(2);
        let ids = [inflight.begin(Source::Reply), inflight.begin(Source::Reply)];
        assert!(!inflight.has_room());
        assert!(inflight.end(ids[0]).is_some());
        assert!(inflight.has_room());
    }
}
