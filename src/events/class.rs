//! Classes of events: what is kept for the same time, and goes together when there is no room.

/// A kind of event: what is kept for the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// What administrators do.
    Administration,
    /// Logins and administrators' commands that were refused, counted.
    Refusals,
    /// Sessions that start, end, or go elsewhere.
    Sessions,
    /// Things that come and go.
    Things,
    /// Alarms that change.
    Alarms,
    /// Methods that are called and answered.
    Methods,
    /// Limits that are reached.
    Limits,
}

impl Class {
    /// All, in the order of their bytes in keys.
    pub const ALL: [Self; 7] = [
        Self::Administration,
        Self::Refusals,
        Self::Sessions,
        Self::Things,
        Self::Alarms,
        Self::Methods,
        Self::Limits,
    ];

    /// Those that `audit.list` shows.
    pub const TRAIL: [Self; 2] = [Self::Administration, Self::Refusals];

    /// What goes first when there is no room.
    pub(super) const LEAST_PRECIOUS_FIRST: [Self; 7] = [
        Self::Methods,
        Self::Alarms,
        Self::Sessions,
        Self::Things,
        Self::Limits,
        Self::Refusals,
        Self::Administration,
    ];

    /// Its name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administration => "administration",
            Self::Refusals => "refusals",
            Self::Sessions => "sessions",
            Self::Things => "things",
            Self::Alarms => "alarms",
            Self::Methods => "methods",
            Self::Limits => "limits",
        }
    }

    /// The permissions that whoever sees its events holds, beside that to see any.
    pub const fn permission(self) -> Option<&'static str> {
        match self {
            Self::Administration | Self::Refusals => Some("audit.list"),
            Self::Sessions => Some("session.list"),
            Self::Things => Some("thing.list"),
            Self::Alarms => Some("alarm.current"),
            Self::Methods => Some("mailbox.list"),
            Self::Limits => None,
        }
    }

    /// Its byte in keys, which stays the same for ever.
    pub(super) const fn byte(self) -> u8 {
        self.index() as u8 + 1
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    pub(super) fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.byte() == byte)
    }

    /// For how many days it is kept when others are kept for `days`.
    pub(super) const fn keep_days(self, days: u32) -> u32 {
        match self {
            Self::Administration => days.saturating_mul(ADMINISTRATION_KEPT_TIMES),
            _ => days,
        }
    }
}

/// How much longer than others the acts of administrators are kept: who gave a right away is asked
/// years later.
const ADMINISTRATION_KEPT_TIMES: u32 = 10;
