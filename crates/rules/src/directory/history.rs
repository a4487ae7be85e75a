//! The history of ended sessions, bounded by age and number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{OrgId, SessionUuid, Timestamp};

use super::session::{Principal, PrincipalId, Session};
use super::siblings::Siblings;

/// Ended sessions, oldest end first. When there are too many, who has most of them loses the oldest:
/// one that logs in without end pushes out nobody else's.
pub struct History {
    ended: BTreeMap<u64, (Owner, Arc<Session>)>,
    next: u64,
    shares: Shares<PrincipalId>,
    /// Where each one's are in `ended`.
    by_owner: HashMap<Owner, VecDeque<u64>>,
    by_uuid: HashMap<SessionUuid, Arc<Session>>,
    by_principal: HashMap<Principal, Siblings>,
    age_s: u64,
}

/// Whose share a session is: the organisation in which it ended, and its principal.
type Owner = (OrgId, PrincipalId);

impl History {
    /// An empty history of at most `max` sessions that ended at most `age_s` seconds ago.
    pub fn new(max: usize, age_s: u64, pools: &Arc<Pools>) -> Self {
        Self {
            ended: BTreeMap::new(),
            next: 0,
            shares: Shares::new(Pool::EndedSessions, max as u64, pools),
            by_owner: HashMap::new(),
            by_uuid: HashMap::new(),
            by_principal: HashMap::new(),
            age_s,
        }
    }

    /// Adds a session that has just ended in this organisation; returns those that have to go for
    /// it.
    pub fn push(&mut self, session: Arc<Session>, org: OrgId) -> Vec<Arc<Session>> {
        let (org, principal) = (org, session.who.principal_id());
        self.by_uuid.insert(session.uuid(), session.clone());
        self.by_principal.entry(session.who.principal()).or_default().insert(session.clone());
        let mut forgotten = Vec::new();
        if self.shares.take(org, principal, 1).is_err() {
            let most = self.shares.makes_way(org, principal, 1).unwrap_or((org, principal));
            forgotten.extend(self.oldest_of(most).and_then(|number| self.take(number)));
            self.shares.hold(org, principal, 1);
        }
        self.by_owner.entry((org, principal)).or_default().push_back(self.next);
        self.ended.insert(self.next, ((org, principal), session));
        self.next += 1;
        // If nobody may have any, not this one either.
        if self.shares.held() > self.shares.max() {
            forgotten.extend(self.oldest_of((org, principal)).and_then(|number| self.take(number)));
        }
        forgotten
    }

    /// Takes out what is too old.
    pub fn prune(&mut self, now: Timestamp) -> Vec<Arc<Session>> {
        let old = |session: &Arc<Session>| {
            session.end().is_some_and(|end| end.at.plus_seconds(self.age_s) <= now)
        };
        let numbers = self.ended.iter().take_while(|(_, (_, session))| old(session));
        let numbers: Vec<_> = numbers.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// All of them, the last that ended first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ended.values().rev().map(|(_, session)| session)
    }

    /// The session with this UUID.
    pub fn get(&self, uuid: SessionUuid) -> Option<&Arc<Session>> {
        self.by_uuid.get(&uuid)
    }

    /// Those of one login.
    pub fn of_principal(&self, principal: &Principal) -> Option<&Siblings> {
        self.by_principal.get(principal)
    }

    fn oldest_of(&self, owner: Owner) -> Option<u64> {
        self.by_owner.get(&owner)?.front().copied()
    }

    /// Takes one out: its owner's oldest.
    fn take(&mut self, number: u64) -> Option<Arc<Session>> {
        let (owner, session) = self.ended.remove(&number)?;
        self.shares.give_back(owner.0, owner.1, 1);
        if let Some(numbers) = self.by_owner.get_mut(&owner) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        self.by_uuid.remove(&session.uuid());
        let principal = session.who.principal();
        if let Some(siblings) = self.by_principal.get_mut(&principal) {
            siblings.remove(&session);
            if siblings.is_empty() {
                self.by_principal.remove(&principal);
            }
        }
        Some(session)
    }
}
