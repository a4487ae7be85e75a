//! Names that are taken by somebody whom the caller can't see: who asks for many is slowed.
//!
//! E-mail addresses, keys and slugs of organisations, and tokens are unique on the server, so that
//! who makes one learns when it is taken elsewhere. That can't be hidden; but whoever has found a few
//! gets no answer at all for a while, whether a name is taken or not.

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{Code, Failure, OrgId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{Principal, PrincipalId, Session};

use super::App;

/// How many each has found lately.
pub(super) struct TakenNames(Mutex<State>);

struct State {
    found: HashMap<Asker, Found>,
    shares: Shares<PrincipalId>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Asker {
    Principal(Principal),
    /// All who ask there, together.
    Org(OrgId),
}

struct Found {
    count: u32,
    since: Timestamp,
    /// Whose share it is.
    payer: Payer,
}

/// In which organisation somebody asks, and who.
type Payer = (OrgId, PrincipalId);

impl Asker {
    fn both(session: &Session) -> ([Self; 2], Payer) {
        let (org, who) = (session.org_id(), session.who());
        ([Self::Principal(who.principal()), Self::Org(org)], (org, who.principal_id()))
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

impl State {
    /// Whether those of them can be counted who are not yet.
    fn has_room(&self, (askers, payer): &([Asker; 2], Payer)) -> bool {
        let unknown = askers.iter().filter(|asker| !self.found.contains_key(*asker)).count();
        unknown == 0 || self.shares.has_room(payer.0, payer.1, unknown as u64).is_ok()
    }

    fn forget_old(&mut self, now: Timestamp) {
        let Self { found, shares } = self;
        found.retain(|_, found| {
            let recent = found.is_recent(now);
            if !recent {
                shares.give_back(found.payer.0, found.payer.1, 1);
            }
            recent
        });
    }
}

impl TakenNames {
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::TakenNames, limits::TAKEN_NAMES_ASKERS_MAX, pools);
        Self(Mutex::new(State { found: HashMap::new(), shares }))
    }

    /// For how many seconds these get no answer; none if they do.
    fn closed_s(&self, asking: &([Asker; 2], Payer), now: Timestamp) -> Option<u64> {
        let state = &mut *self.0.lock();
        if !state.has_room(asking) {
            state.forget_old(now);
        }
        let (askers, found) = (&asking.0, &state.found);
        let closed = askers.iter().filter_map(|asker| {
            let of_asker = found.get(asker)?;
            let left = limits::TAKEN_NAMES_WITHIN_MS.checked_sub(now.millis_since(of_asker.since));
            left.filter(|left| *left > 0 && of_asker.count >= asker.most())
        });
        let longest = closed.max().map(|left| left.div_ceil(1000));
        // Whoever can't be counted finds nothing.
        longest.or((!state.has_room(asking)).then_some(limits::TAKEN_NAMES_WITHIN_MS / 1000))
    }

    fn count(&self, (askers, payer): ([Asker; 2], Payer), now: Timestamp) {
        let state = &mut *self.0.lock();
        state.forget_old(now);
        for asker in askers {
            let shares = &mut state.shares;
            let of_asker = state.found.entry(asker).or_insert_with(|| {
                shares.hold(payer.0, payer.1, 1);
                Found { count: 0, since: now, payer }
            });
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
                Err(Failure::new(Code::RATE_LIMITED, sentence).after(seconds))
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

    fn askers(user: u8, org: u8) -> ([Asker; 2], Payer) {
        asking(UserId::from_bytes([user; 12]), OrgId::from_bytes([org; 12]))
    }

    fn asking(user: UserId, org: OrgId) -> ([Asker; 2], Payer) {
        let askers = [Asker::Principal(Principal::User(user)), Asker::Org(org)];
        (askers, (org, PrincipalId::User(user)))
    }

    fn names() -> TakenNames {
        TakenNames::new(&Arc::default())
    }

    #[test]
    fn who_has_found_some_waits_and_so_does_the_organisation() {
        let names = names();
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
    fn those_who_are_counted_are_bounded_and_others_are_counted_all_the_same() {
        let names = names();
        let org = OrgId::from_bytes([1; 12]);
        let mut counted = 0;
        for number in 0..limits::TAKEN_NAMES_ASKERS_MAX {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_be_bytes());
            // Below one that has them made.
            let asking = asking(UserId::from_bytes(id), org);
            if names.closed_s(&asking, NOW).is_none() {
                names.0.lock().found.remove(&asking.0[1]);
                names.count(asking, NOW);
                counted += 1;
            }
        }
        assert!(counted < limits::TAKEN_NAMES_ASKERS_MAX);
        assert_eq!(names.closed_s(&askers(0xfe, 1), NOW), Some(60));
        assert_eq!(names.closed_s(&askers(0xff, 0xff), NOW), None, "of another organisation");
        let later = NOW.plus_millis(60_000);
        assert_eq!(names.closed_s(&askers(0xfe, 1), later), None);
        assert!(names.0.lock().found.is_empty());
    }
}
