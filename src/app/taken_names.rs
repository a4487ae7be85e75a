//! Names that are taken by somebody whom the caller can't see: who asks for many is slowed.
//!
//! E-mail addresses, keys and slugs of organisations, and tokens are unique on the server, so that
//! who makes one learns when it is taken elsewhere. That can't be hidden; but whoever has found a few
//! gets no answer at all for a while, whether a name is taken or not.

use std::collections::HashMap;

use base::{Code, Failure, OrgId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{Principal, Session};

use super::App;

/// How many each has found lately.
#[derive(Default)]
pub(super) struct TakenNames(Mutex<HashMap<Asker, Found>>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Asker {
    Principal(Principal),
    /// All who ask there, together.
    Org(OrgId),
}

struct Found {
    count: u32,
    since: Timestamp,
}

impl Asker {
    fn both(session: &Session) -> [Self; 2] {
        [Self::Principal(session.who().principal()), Self::Org(session.org_id())]
    }

    const fn most(&self) -> u32 {
        match self {
            Self::Principal(_) => limits::TAKEN_NAMES_PER_PRINCIPAL_MAX,
            Self::Org(_) => limits::TAKEN_NAMES_PER_ORG_MAX,
        }
    }
}

impl Found {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.millis_since(self.since) < limits::TAKEN_NAMES_WITHIN_MS
    }
}

impl TakenNames {
    /// For how many seconds these get no answer; none if they do.
    fn closed_s(&self, askers: &[Asker], now: Timestamp) -> Option<u64> {
        let mut found = self.0.lock();
        let known = |found: &HashMap<_, _>| askers.iter().all(|asker| found.contains_key(asker));
        let is_full = |found: &HashMap<_, _>| {
            found.len() + askers.len() > limits::TAKEN_NAMES_ASKERS_MAX && !known(found)
        };
        if is_full(&found) {
            found.retain(|_, found| found.is_recent(now));
        }
        let closed = askers.iter().filter_map(|asker| {
            let of_asker = found.get(asker)?;
            let left = limits::TAKEN_NAMES_WITHIN_MS.checked_sub(now.millis_since(of_asker.since));
            left.filter(|left| *left > 0 && of_asker.count >= asker.most())
        });
        let longest = closed.max().map(|left| left.div_ceil(1000));
        // Whoever can't be counted finds nothing.
        longest.or(is_full(&found).then_some(limits::TAKEN_NAMES_WITHIN_MS / 1000))
    }

    fn count(&self, askers: [Asker; 2], now: Timestamp) {
        let mut found = self.0.lock();
        for asker in askers {
            let of_asker = found.entry(asker).or_insert(Found { count: 0, since: now });
            if !of_asker.is_recent(now) {
                *of_asker = Found { count: 0, since: now };
            }
            of_asker.count += 1;
        }
    }
}

impl App {
    /// Fails when the caller has found too many names lately that are taken by those whom they
    /// can't see. To be asked before any answer that depends on one. Super administrators see all.
    pub fn check_taken_names(&self, session: &Session, now: Timestamp) -> Result<(), Failure> {
        if session.access().super_admin {
            return Ok(());
        }
        match self.taken_names.closed_s(&Asker::both(session), now) {
            None => Ok(()),
            Some(seconds) => {
                let sentence = format!(
                    "Too many names were asked for that are taken elsewhere; again in {seconds} s."
                );
                Err(Failure::new(Code::RATE_LIMITED, sentence))
            }
        }
    }

    /// Notes that the caller has found such a name.
    pub fn note_taken_name(&self, session: &Session, now: Timestamp) {
        if !session.access().super_admin {
            self.taken_names.count(Asker::both(session), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::super::tests::NOW;
    use super::*;

    fn askers(user: u8, org: u8) -> [Asker; 2] {
        let user = Principal::User(UserId::from_bytes([user; 12]));
        [Asker::Principal(user), Asker::Org(OrgId::from_bytes([org; 12]))]
    }

    #[test]
    fn who_has_found_some_waits_and_so_does_the_organisation() {
        let names = TakenNames::default();
        for _ in 0..limits::TAKEN_NAMES_PER_PRINCIPAL_MAX {
            assert_eq!(names.closed_s(&askers(1, 1), NOW), None);
            names.count(askers(1, 1), NOW);
        }
        assert_eq!(names.closed_s(&askers(1, 1), NOW), Some(60));
        assert_eq!(names.closed_s(&askers(1, 2), NOW.plus_millis(500)), Some(60));
        assert_eq!(names.closed_s(&askers(2, 1), NOW), None);
        for _ in limits::TAKEN_NAMES_PER_PRINCIPAL_MAX..limits::TAKEN_NAMES_PER_ORG_MAX {
            names.count(askers(2, 1), NOW);
        }
        assert_eq!(names.closed_s(&askers(3, 1), NOW), Some(60));
        assert_eq!(names.closed_s(&askers(3, 2), NOW), None);
        let later = NOW.plus_millis(60_000);
        assert_eq!(names.closed_s(&askers(1, 1), later), None);
        names.count(askers(1, 1), later);
        assert_eq!(names.closed_s(&askers(1, 1), later), None);
    }

    #[test]
    fn those_who_are_counted_are_bounded() {
        let names = TakenNames::default();
        let most = limits::TAKEN_NAMES_ASKERS_MAX;
        for number in 0..most / 2 {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let user = Asker::Principal(Principal::User(UserId::from_bytes(id)));
            let askers = [user, Asker::Org(OrgId::from_bytes(id))];
            assert_eq!(names.closed_s(&askers, NOW), None);
            names.count(askers, NOW);
        }
        assert_eq!(names.closed_s(&askers(0xff, 0xff), NOW), Some(60));
        let later = NOW.plus_millis(60_000);
        assert_eq!(names.closed_s(&askers(0xff, 0xff), later), None);
        assert!(names.0.lock().is_empty());
    }
}
