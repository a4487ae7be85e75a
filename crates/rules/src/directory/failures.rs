//! What failed in a session: how often each code was answered, for who asks why a device does
//! nothing. Most sessions have none, and keep nothing.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use base::{CODES, Code, Timestamp};

/// Whose limit of commands a second was reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RateOf {
    /// The session's.
    Session,
    /// That of all sessions of its login.
    Login,
    /// That of all sessions in its organisation.
    Org,
}

impl RateOf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Session, Self::Login, Self::Org];

    /// The limit's key in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Session => "limits.commands_per_s",
            Self::Login => "limits.principal_commands_per_s",
            Self::Org => "limits.org_commands_per_s",
        }
    }
}

/// The failures of a session that has some.
#[derive(Debug)]
pub struct Failures {
    counts: [AtomicU32; CODES.len()],
    /// A bit for each code of which somebody was told.
    told: AtomicU64,
    last: AtomicI64,
    withheld: AtomicU32,
    /// How often each limit of commands a second was reached.
    over_rate: [AtomicU32; RateOf::ALL.len()],
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; CODES.len()],
            told: AtomicU64::new(0),
            last: AtomicI64::new(0),
            withheld: AtomicU32::new(0),
            over_rate: [const { AtomicU32::new(0) }; RateOf::ALL.len()],
        }
    }
}

impl Failures {
    /// Counts a command that failed so.
    pub(super) fn note(&self, code: Code, now: Timestamp) {
        if let Some(count) = code.index().and_then(|index| self.counts.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.last.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Whether nobody was told of this code yet.
    pub fn is_news(&self, code: Code) -> bool {
        bit(code).is_some_and(|bit| self.told.load(Ordering::Relaxed) & bit == 0)
    }

    /// Somebody was told of this code.
    pub fn told(&self, code: Code) {
        self.told.fetch_or(bit(code).unwrap_or(0), Ordering::Relaxed);
    }

    /// A publish began to wait until it can be carried out, or ended that.
    pub fn withhold(&self, waits: bool) {
        match waits {
            true => self.withheld.fetch_add(1, Ordering::Relaxed),
            false => self.withheld.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Publishes that wait until they can be carried out.
    pub fn withheld(&self) -> u32 {
        self.withheld.load(Ordering::Relaxed)
    }

    /// A command was over this limit of commands a second.
    pub fn note_over_rate(&self, of: RateOf) {
        self.over_rate[of as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were over this limit of commands a second.
    pub fn over_rate(&self, of: RateOf) -> u32 {
        self.over_rate[of as usize].load(Ordering::Relaxed)
    }

    /// When the last one was; none if there was none.
    pub fn last(&self) -> Option<Timestamp> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| Timestamp::from_millis(last))
    }

    /// The codes that were answered, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (Code, u32)> + '_ {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let of = CODES.iter().map(|info| info.code).zip(counts);
        of.filter(|(_, count)| *count > 0)
    }
}

fn bit(code: Code) -> Option<u64> {
    code.index().and_then(|index| 1_u64.checked_shl(index as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_and_told_of_once() {
        assert!(CODES.len() <= 64, "a bit for each");
        let failures = Failures::default();
        assert_eq!((failures.last(), failures.counts().count()), (None, 0));
        let now = Timestamp::from_millis(7);
        failures.note(Code::NOT_FOUND, now);
        failures.note(Code::RATE_LIMITED, now);
        failures.note(Code::RATE_LIMITED, now);
        failures.note(Code(1), now);
        let counts: Vec<_> = failures.counts().collect();
        assert_eq!(counts, [(Code::NOT_FOUND, 1), (Code::RATE_LIMITED, 2)]);
        assert_eq!(failures.last(), Some(now));
        assert!(failures.is_news(Code::NOT_FOUND) && !failures.is_news(Code(1)));
        failures.told(Code::NOT_FOUND);
        assert!(!failures.is_news(Code::NOT_FOUND) && failures.is_news(Code::BUSY));
        failures.withhold(true);
        assert_eq!(failures.withheld(), 1);
        failures.withhold(false);
        assert_eq!(failures.withheld(), 0);
        failures.note_over_rate(RateOf::Login);
        let over = RateOf::ALL.map(|of| failures.over_rate(of));
        assert_eq!(over, [0, 1, 0]);
    }
}
