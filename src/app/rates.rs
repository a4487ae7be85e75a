//! Commands a second: of a session, of a login, of an organisation.

use base::{Code, Failure, OrgId, Timestamp, limits};
use dashmap::DashMap;
use rules::directory::{Principal, RateOf, Session, Window};
use smallvec::SmallVec;

use super::App;

/// What the organisations sent in the current second.
#[derive(Default)]
pub(super) struct OrgRates(DashMap<OrgId, Window>);

impl OrgRates {
    fn admit(&self, org: OrgId, now: Timestamp, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        if let Some(window) = self.0.get(&org) {
            return window.admit(now, limit);
        }
        if self.0.len() >= limits::WINDOWS_KEPT_MAX {
            // Those of earlier seconds, and of organisations that are gone.
            self.0.retain(|_, window| window.is_used(now));
        }
        self.0.entry(org).or_default().admit(now, limit)
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
        let charged = if !session.admit(now, limit) {
            Err((RateOf::Session, self.over(Over::Session(limit))))
        } else if !session.admit_login(now, of_login) {
            Err((RateOf::Login, self.over(Over::Login(of_login))))
        } else if limits.org_commands_per_s > 0 {
            self.charge_org(session.org_id(), now).map_err(|over| (RateOf::Org, over))
        } else {
            Ok(())
        };
        charged.map_err(|(of, over)| {
            // For who asks why a device does nothing.
            session.failures_kept().note_over_rate(of);
            over
        })
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
            return Err(self.over(Over::Login(limit)));
        }
        self.charge_org(org, now)
    }

    fn charge_org(&self, org: OrgId, now: Timestamp) -> Result<(), Failure> {
        let limit = self.config.limits.org_commands_per_s;
        match self.org_rates.admit(org, now, limit) {
            true => Ok(()),
            false => Err(self.over(Over::Org(limit))),
        }
    }

    fn over(&self, over: Over) -> Failure {
        self.metrics.over_rate(over.name());
        Failure::new(Code::RATE_LIMITED, over.sentence()).after(1)
    }

    /// How much is left in this second of the limits that hold for a session; of those that are 0
    /// nothing is said.
    pub fn rates(&self, session: &Session, now: Timestamp) -> SmallVec<[Rate; 3]> {
        let limits = &self.config.limits;
        let (limit, of_login) = (limits.commands_per_s, limits.principal_commands_per_s());
        let of_org = limits.org_commands_per_s;
        let left_of_org = || {
            let window = self.org_rates.0.get(&session.org_id());
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
        assert_eq!(rates.0.len(), 2);
    }
}
