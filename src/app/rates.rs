//! Commands a second: of a session, of a login, of an organisation.

use base::{Code, Failure, OrgId, Timestamp, limits};
use dashmap::DashMap;
use rules::directory::{PrincipalId, RateOf, Session, Window};
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

/// Whose limit it is, in metrics.
const fn name(of: RateOf) -> &'static str {
    match of {
        RateOf::Session => "session",
        RateOf::Login => "principal",
        RateOf::Org => "org",
    }
}

impl App {
    /// Counts a command of a session, or work that costs as much.
    ///
    /// # Errors
    ///
    /// The session, all of its login, or all in its organisation sent too many in this second.
    pub fn charge(&self, session: &Session, now: Timestamp) -> Result<(), Failure> {
        let org = session.org_id();
        let over = if !session.admit(now, self.rate_limit(RateOf::Session)) {
            RateOf::Session
        } else if !session.admit_login(now, self.rate_limit(RateOf::Login)) {
            RateOf::Login
        } else if !self.org_rates.admit(org, now, self.rate_limit(RateOf::Org)) {
            RateOf::Org
        } else {
            return Ok(());
        };
        // For who asks why a device does nothing.
        session.failures_kept().note_over_rate(over);
        Err(self.over(over, org))
    }

    /// Counts a request of somebody who has no session for it.
    ///
    /// # Errors
    ///
    /// As [`App::charge`].
    pub fn charge_login(
        &self,
        principal: PrincipalId,
        org: OrgId,
        now: Timestamp,
    ) -> Result<(), Failure> {
        if !self.sessions.admit_login(principal, now, self.rate_limit(RateOf::Login)) {
            return Err(self.over(RateOf::Login, org));
        }
        match self.org_rates.admit(org, now, self.rate_limit(RateOf::Org)) {
            true => Ok(()),
            false => Err(self.over(RateOf::Org, org)),
        }
    }

    /// How many commands may come in a second; 0: there is no limit.
    pub fn rate_limit(&self, of: RateOf) -> u32 {
        let limits = &self.config.limits;
        match of {
            RateOf::Session => limits.commands_per_s,
            RateOf::Login => limits.principal_commands_per_s(),
            RateOf::Org => limits.org_commands_per_s,
        }
    }

    fn over(&self, of: RateOf, org: OrgId) -> Failure {
        self.metrics.over_rate(name(of));
        self.org_rates.note_over(of, org);
        let whose = match of {
            RateOf::Session => "The session",
            RateOf::Login => "All sessions of this login together",
            RateOf::Org => "All sessions in this organisation together",
        };
        let (limit, key) = (self.rate_limit(of), of.key());
        let sentence = format!("{whose} sent more than {limit} commands in a second ({key}).");
        Failure::new(Code::RATE_LIMITED, sentence).after(1)
    }

    /// How much is left in this second of the limits that hold for a session; of those that are 0
    /// nothing is said.
    pub fn rates(&self, session: &Session, now: Timestamp) -> SmallVec<[Rate; 3]> {
        let left_of_org = |limit| {
            let window = self.org_rates.windows.get(&session.org_id());
            window.map_or(limit, |window| window.left(now, limit))
        };
        let rate = |of| {
            let limit = self.rate_limit(of);
            let left = match of {
                RateOf::Session => session.left(now, limit),
                RateOf::Login => session.left_of_login(now, limit),
                RateOf::Org => left_of_org(limit),
            };
            Rate { name: name(of), limit, left }
        };
        RateOf::ALL.into_iter().map(rate).filter(|rate| rate.limit > 0).collect()
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
