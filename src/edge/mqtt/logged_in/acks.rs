//! Acknowledgements in the order of their PUBLISHes (MQTT 4.6): those that wait for a command hold
//! back those behind them.

use std::collections::VecDeque;

use ::mqtt::{QoS, reason};
use base::pool::OverShare;

/// As many as there are packet ids: more can't be in flight.
const WAITING_MAX: usize = 65_536;

/// How a packet is acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckReason {
    /// The reason code.
    pub code: u8,
    /// What a client of MQTT 5 is told in words; none of most.
    pub why: Option<Box<str>>,
}

impl From<u8> for AckReason {
    fn from(code: u8) -> Self {
        Self { code, why: None }
    }
}

impl From<OverShare> for AckReason {
    fn from(over: OverShare) -> Self {
        Self::quota(&over.to_string())
    }
}

impl AckReason {
    /// A limit is reached: which one, and whose.
    pub fn quota(why: &str) -> Self {
        Self { code: reason::QUOTA_EXCEEDED, why: Some(why.into()) }
    }

    /// Whether something was refused.
    pub const fn refuses(&self) -> bool {
        self.code >= reason::UNSPECIFIED
    }
}

/// What was not written yet; empty most of the time.
#[derive(Default)]
pub(super) struct Acks(VecDeque<Ack>);

struct Ack {
    qos: QoS,
    pkid: u16,
    /// None while the command goes on.
    reason: Option<AckReason>,
}

impl Acks {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one behind all others; false when there are too many.
    pub(super) fn push(&mut self, qos: QoS, pkid: u16, reason: Option<AckReason>) -> bool {
        let room = self.0.len() < WAITING_MAX;
        if room {
            self.0.push_back(Ack { qos, pkid, reason });
        }
        room
    }

    /// How many wait of this quality of service.
    pub(super) fn count(&self, qos: QoS) -> usize {
        self.0.iter().filter(|ack| ack.qos == qos).count()
    }

    /// Whether one waits for this packet.
    pub(super) fn waits(&self, qos: QoS, pkid: u16) -> bool {
        self.0.iter().any(|ack| ack.qos == qos && ack.pkid == pkid)
    }

    /// Notes what became of the command of a packet.
    pub(super) fn keep(&mut self, qos: QoS, pkid: u16, reason: AckReason) {
        let is = |ack: &&mut Ack| ack.qos == qos && ack.pkid == pkid && ack.reason.is_none();
        if let Some(ack) = self.0.iter_mut().find(is) {
            ack.reason = Some(reason);
        }
    }

    /// Takes the next one that may be written.
    pub(super) fn next(&mut self) -> Option<(QoS, u16, AckReason)> {
        let reason = self.0.front_mut()?.reason.take()?;
        self.0.pop_front().map(|ack| (ack.qos, ack.pkid, reason))
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
        assert!(acks.push(one, 2, Some(0.into())));
        assert!(acks.push(two, 1, None));
        assert_eq!(acks.next(), None);
        acks.keep(two, 1, 7.into());
        assert_eq!(acks.next(), None);
        assert!(acks.waits(two, 1) && !acks.waits(two, 2));
        acks.keep(one, 1, 3.into());
        assert_eq!(acks.next(), Some((one, 1, 3.into())));
        assert_eq!(acks.next(), Some((one, 2, 0.into())));
        assert_eq!(acks.next(), Some((two, 1, 7.into())));
        assert!(acks.next().is_none() && acks.is_empty());
    }
}
