//! Commands a second: of a session, of a login, of an organisation.

use base::{Code, Failure, OrgId, Timestamp, limits};
use dashmap::DashMap;
use rules::directory::{Principal, RateOf, Session, Window};
use smallvec::SmallVec;

use super::App;

/// What the organisations sent in the current second.
#[derive(Default)]
pub(super) struct OrgRates {
    windows: DashMap<OrgId, Window>,
    /// How often each limit was reached in an organisation since that was asked.
    over: DashMap<(RateOf, OrgId), u64>,
}

impl OrgRates {
    fn admit(&self, org: OrgId, now: Timestamp, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        if let Some(window) = self.windows.get(&org) {
            return window.admit(now, limit);
        }
        if self.windows.len() >= limits::WINDOWS_KEPT_MAX {
            // Those of earlier seconds, and of organisations that are gone.
            self.windows.retain(|_, window| window.is_used(now));
        }
        self.windows.entry(org).or_default().admit(now, limit)
    }

    fn note_over(&self, of: RateOf, org: OrgId) {
        if let Some(mut count) = self.over.get_mut(&(of, org)) {
            *count += 1;
            return;
        }
        if self.over.len() < limits::LIMITS_NOTED_MAX {
            *self.over.entry((of, org)).or_default() += 1;
        }
    }

    /// Which limits were reached in which organisations since the last time, and how often.
    pub(super) fn take_over(&self) -> Vec<((RateOf, OrgId), u64)> {
        let reached: Vec<_> = self.over.iter().map(|one| *one.key()).collect();
        reached.iter().filter_map(|of| self.over.remove(of)).collect()
    }
}

/// A limit of commands a second that is reached.
#[derive(Clone, Copy)]
enum Over {
    Session(u32),
    Login(u32),
    Org(u32),
}

impl Over {
    /// Its name in metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Login(_) => "principal",
            Self::Org(_) => "org",
        }
    }

    const fn of(self) -> RateOf {
        match self {
            Self::Session(_) => RateOf::Session,
            Self::Login(_) => RateOf::Login,
            Self::Org(_) => RateOf::Org,
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::Session(limit) => {
                format!(
                    "The session sent more than {limit} commands in a second \
                     (limits.commands_per_s)."
                )
            }
            Self::Login(limit) => format!(
                "All sessions of this login together sent more than {limit} commands in a second \
                 (limits.principal_commands_per_s)."
            ),
            Self::Org(limit) => format!(
                "All sessions in this organisation together sent more than {limit} commands in a \
                 second (limits.org_commands_per_s)."
            ),
        }
    }
}

impl App {
    /// Counts a command of a session, or work that costs as much.
    ///
    /// # Errors
    ///
    /// The session, all of its login, or all in its organisation sent too many in this second.
    pub fn charge(&self, session: &Session, now: Timestamp) -> Result<(), Failure> {
        let limits = &self.config.limits;
        let (limit, of_login) = (limits.commands_per_s, limits.principal_commands_per_s());
        let org = session.org_id();
        let over = if !session.admit(now, limit) {
            Over::Session(limit)
        } else if !session.admit_login(now, of_login) {
            Over::Login(of_login)
        } else if !self.org_rates.admit(org, now, limits.org_commands_per_s) {
            Over::Org(limits.org_commands_per_s)
        } else {
            return Ok(());
        };
        // For who asks why a device does nothing.
        session.failures_kept().note_over_rate(over.of());
        Err(self.over(over, org))
    }

    /// Counts a request of somebody who has no session for it.
    ///
    /// # Errors
    ///
    /// As [`App::charge`].
    pub fn charge_login(
        &self,
        principal: Principal,
        org: OrgId,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let limit = self.config.limits.principal_commands_per_s();
        if !self.sessions.admit_login(principal, now, limit) {
            return Err(self.over(Over::Login(limit), org));
        }
        let limit = self.config.limits.org_commands_per_s;
        match self.org_rates.admit(org, now, limit) {
            true => Ok(()),
            false => Err(self.over(Over::Org(limit), org)),
        }
    }

    fn over(&self, over: Over, org: OrgId) -> Failure {
        self.metrics.over_rate(over.name());
        self.org_rates.note_over(over.of(), org);
        Failure::new(Code::RATE_LIMITED, over.sentence()).after(1)
    }

    /// How much is left in this second of the limits that hold for a session; of those that are 0
    /// nothing is said.
    pub fn rates(&self, session: &Session, now: Timestamp) -> SmallVec<[Rate; 3]> {
        let limits = &self.config.limits;
        let (limit, of_login) = (limits.commands_per_s, limits.principal_commands_per_s());
        let of_org = limits.org_commands_per_s;
        let left_of_org = || {
            let window = self.org_rates.windows.get(&session.org_id());
            window.map_or(of_org, |window| window.left(now, of_org))
        };
        let rate = |over: Over, limit, left| Rate { name: over.name(), limit, left };
        [
            rate(Over::Session(limit), limit, session.left(now, limit)),
            rate(Over::Login(of_login), of_login, session.left_of_login(now, of_login)),
            rate(Over::Org(of_org), of_org, left_of_org()),
        ]
        .into_iter()
        .filter(|rate| rate.limit > 0)
        .collect()
    }
}

/// Commands that may come in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Whose, as in metrics.
    pub name: &'static str,
    /// In a whole second.
    pub limit: u32,
    /// In the rest of this one.
    pub left: u32,
}

#[cfg(test)]
mod tests {
    use super::super::tests::NOW;
    use super::*;

    #[test]
    fn what_is_remembered_of_organisations_has_a_bound() {
        let rates = OrgRates::default();
        let org = |number: u32| {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&number.to_be_bytes());
            OrgId::from_bytes(id)
        };
        for number in 0..limits::WINDOWS_KEPT_MAX as u32 {
            assert!(rates.admit(org(number), NOW, 1));
        }
        assert!(!rates.admit(org(0), NOW, 1));
        assert!(rates.admit(org(0), NOW.plus_seconds(1), 1));
        assert!(rates.admit(org(u32::MAX), NOW.plus_seconds(1), 1));
        assert_eq!(rates.windows.len(), 2);
        for number in 0..2 * limits::LIMITS_NOTED_MAX as u32 {
            rates.note_over(RateOf::Org, org(number));
        }
        rates.note_over(RateOf::Org, org(0));
        let reached = rates.take_over();
        assert_eq!(reached.len(), limits::LIMITS_NOTED_MAX);
        assert!(reached.contains(&((RateOf::Org, org(0)), 2)));
        assert!(rates.take_over().is_empty());
    }
}
