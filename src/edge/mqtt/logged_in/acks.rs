//! Acknowledgements in the order of their PUBLISHes (MQTT 4.6): those that wait for a command hold
//! back those behind them.

use std::collections::VecDeque;

use ::mqtt::QoS;

/// As many as there are packet ids: more can't be in flight.
const WAITING_MAX: usize = 65_536;

/// What was not written yet; empty most of the time.
#[derive(Default)]
pub(super) struct Acks(VecDeque<Ack>);

struct Ack {
    qos: QoS,
    pkid: u16,
    /// The reason code; none while the command goes on.
    code: Option<u8>,
}

impl Acks {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one behind all others; false when there are too many.
    pub(super) fn push(&mut self, qos: QoS, pkid: u16, code: Option<u8>) -> bool {
        let room = self.0.len() < WAITING_MAX;
        if room {
            self.0.push_back(Ack { qos, pkid, code });
        }
        room
    }

    /// Whether one waits for this packet.
    pub(super) fn waits(&self, qos: QoS, pkid: u16) -> bool {
        self.0.iter().any(|ack| ack.qos == qos && ack.pkid == pkid)
    }

    /// Notes what became of the command of a packet.
    pub(super) fn keep(&mut self, qos: QoS, pkid: u16, code: u8) {
        let is = |ack: &&mut Ack| ack.qos == qos && ack.pkid == pkid && ack.code.is_none();
        if let Some(ack) = self.0.iter_mut().find(is) {
            ack.code = Some(code);
        }
    }

    /// Takes the next one that may be written.
    pub(super) fn next(&mut self) -> Option<(QoS, u16, u8)> {
        let code = self.0.front()?.code?;
        self.0.pop_front().map(|ack| (ack.qos, ack.pkid, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_overtakes() {
        let mut acks = Acks::default();
        let (one, two) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
        assert!(acks.push(one, 1, None));
        assert!(acks.push(one, 2, Some(0)));
        assert!(acks.push(two, 1, None));
        assert_eq!(acks.next(), None);
        acks.keep(two, 1, 7);
        assert_eq!(acks.next(), None);
        assert!(acks.waits(two, 1) && !acks.waits(two, 2));
        acks.keep(one, 1, 3);
        assert_eq!(acks.next(), Some((one, 1, 3)));
        assert_eq!(acks.next(), Some((one, 2, 0)));
        assert_eq!(acks.next(), Some((two, 1, 7)));
        assert!(acks.next().is_none() && acks.is_empty());
    }
}
