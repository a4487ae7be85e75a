//! The history of ended sessions, bounded by age and number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{OrgId, SessionUuid, Timestamp};

use super::PrincipalId;
use super::roster::Roster;
use super::session::{Principal, Reason, Session};
use super::siblings::Siblings;

/// Ended sessions, oldest end first. When there are too many, who has most of them loses the oldest:
/// one that logs in without end pushes out nobody else's. Those that ended with the server's stop
/// push out nobody's at all: they are here as long as there is room.
pub struct History {
    ended: BTreeMap<u64, Ended>,
    next: u64,
    shares: Shares<PrincipalId>,
    /// Where each one's are in `ended`.
    by_owner: HashMap<Owner, VecDeque<u64>>,
    /// Where those are that ended with the server's stop.
    stopped: VecDeque<u64>,
    by_uuid: HashMap<SessionUuid, Arc<Session>>,
    by_principal: HashMap<Principal, Siblings>,
    by_org: HashMap<OrgId, Roster>,
    age_s: u64,
    /// What was forgotten earlier is not known.
    since: Timestamp,
    /// Of each organisation, until when something lived in it that is not here: the last end of
    /// what was forgotten, and the last time that a session came from elsewhere or went there.
    unknown_until: HashMap<OrgId, Timestamp>,
}

struct Ended {
    owner: Owner,
    session: Arc<Session>,
}

/// Whose share a session is: the organisation in which it ended, and its principal.
type Owner = (OrgId, PrincipalId);

impl History {
    /// An empty history, from now on, of at most `max` sessions that ended at most `age_s` seconds
    /// ago.
    pub fn new((max, age_s): (usize, u64), pools: &Arc<Pools>, now: Timestamp) -> Self {
        Self {
            ended: BTreeMap::new(),
            next: 0,
            shares: Shares::new(Pool::EndedSessions, max as u64, pools),
            by_owner: HashMap::new(),
            stopped: VecDeque::new(),
            by_uuid: HashMap::new(),
            by_principal: HashMap::new(),
            by_org: HashMap::new(),
            age_s,
            since: now,
            unknown_until: HashMap::new(),
        }
    }

    /// Whether everything that was in an organisation at a time lives or is here, and was nowhere
    /// else since.
    pub fn remembers(&self, org: OrgId, at: Timestamp) -> bool {
        at >= self.since && self.unknown_until.get(&org).is_none_or(|until| at >= *until)
    }

    /// Notes that a session came to an organisation or left it for another one.
    pub fn note_switch(&mut self, org: OrgId, now: Timestamp) {
        let until = self.unknown_until.entry(org).or_insert(now);
        *until = now.max(*until);
    }

    fn note_forgotten(&mut self, org: OrgId, session: &Session) {
        self.note_switch(org, ended_at(session));
    }

    /// Adds a session that has just ended in this organisation; returns those that have to go for
    /// it.
    pub fn push(&mut self, session: Arc<Session>, org: OrgId) -> Vec<Arc<Session>> {
        let is_full = self.ended.len() as u64 >= self.shares.max();
        if is_stopped(&session) {
            if is_full {
                self.note_forgotten(org, &session);
                return vec![session];
            }
            self.stopped.push_back(self.next);
            self.add(session, org);
            return Vec::new();
        }
        let mut forgotten = Vec::new();
        if is_full && let Some(number) = self.stopped.front().copied() {
            forgotten.extend(self.take(number));
        }
        let principal = session.who.principal_id();
        let mut evicted = Vec::new();
        let Self { shares, by_owner, .. } = self;
        let taken = shares.take_from_most_or_own((org, principal), 1, |org, principal| {
            let numbers = by_owner.get_mut(&(org, principal));
            let Some(number) = numbers.and_then(VecDeque::pop_front) else { return 0 };
            evicted.push(number);
            1
        });
        forgotten.extend(evicted.into_iter().filter_map(|number| self.remove(number)));
        // If nobody may have any, not this one either.
        if taken.is_err() {
            self.note_forgotten(org, &session);
            forgotten.push(session);
            return forgotten;
        }
        self.by_owner.entry((org, principal)).or_default().push_back(self.next);
        self.add(session, org);
        forgotten
    }

    fn add(&mut self, session: Arc<Session>, org: OrgId) {
        let owner = (org, session.who.principal_id());
        self.by_uuid.insert(session.uuid(), session.clone());
        self.by_principal.entry(session.who.principal()).or_default().insert(session.clone());
        let order = (ended_at(&session), self.next);
        self.by_org.entry(org).or_insert_with(Roster::by_end).insert(order, session.clone());
        self.ended.insert(self.next, Ended { owner, session });
        self.next += 1;
    }

    /// Takes out at most `max` of what is too old.
    pub fn prune(&mut self, now: Timestamp, max: usize) -> Vec<Arc<Session>> {
        let old = |ended: &Ended| ended_at(&ended.session).plus_seconds(self.age_s) <= now;
        let numbers = self.ended.iter().take_while(|(_, ended)| old(ended)).take(max);
        let numbers: Vec<_> = numbers.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// The number that the next one gets.
    pub const fn next_number(&self) -> u64 {
        self.next
    }

    /// Those that ended in an organisation, in the order of their ends.
    pub fn of_org(&self, org: OrgId) -> Option<&Roster> {
        self.by_org.get(&org)
    }

    /// All of them, in the order of their ends.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ended.values().map(|ended| &ended.session)
    }

    /// How many ended in an organisation.
    pub fn count(&self, org: OrgId) -> usize {
        self.by_org.get(&org).map_or(0, Roster::len)
    }

    /// The session with this UUID.
    pub fn get(&self, uuid: SessionUuid) -> Option<&Arc<Session>> {
        self.by_uuid.get(&uuid)
    }

    /// Notes that a session is revoked that had ended otherwise; false if it is not here.
    pub(super) fn revoke(&mut self, session: &Session) -> bool {
        if !self.by_uuid.contains_key(&session.uuid()) {
            return false;
        }
        session.revoked.store(true, Ordering::Relaxed);
        let facets = session.facets().with_reason(Some(Reason::Revoked));
        session.set_facets(facets);
        if let Some(roster) = self.by_org.get_mut(&session.org_id()) {
            roster.set_facets_of(ended_at(session), session, facets);
        }
        true
    }

    /// Those of one login.
    pub fn of_principal(&self, principal: &Principal) -> Option<&Siblings> {
        self.by_principal.get(principal)
    }

    /// Takes one out: its owner's oldest, or the oldest of those that ended with the server's stop.
    fn take(&mut self, number: u64) -> Option<Arc<Session>> {
        let owner = self.ended.get(&number)?.owner;
        if self.stopped.front() == Some(&number) {
            self.stopped.pop_front();
        } else {
            self.shares.give_back(owner.0, owner.1, 1);
            if let Some(numbers) = self.by_owner.get_mut(&owner) {
                numbers.pop_front();
            }
        }
        self.remove(number)
    }

    /// Takes out one for which its owner pays no more.
    fn remove(&mut self, number: u64) -> Option<Arc<Session>> {
        let Ended { owner, session } = self.ended.remove(&number)?;
        self.note_forgotten(owner.0, &session);
        if self.by_owner.get(&owner).is_some_and(VecDeque::is_empty) {
            self.by_owner.remove(&owner);
        }
        self.by_uuid.remove(&session.uuid());
        let principal = session.who.principal();
        if let Some(siblings) = self.by_principal.get_mut(&principal) {
            siblings.remove(&session);
            if siblings.is_empty() {
                self.by_principal.remove(&principal);
            }
        }
        if let Some(roster) = self.by_org.get_mut(&owner.0) {
            roster.remove((ended_at(&session), number), &session);
            if roster.is_empty() {
                self.by_org.remove(&owner.0);
            }
        }
        Some(session)
    }
}

fn ended_at(session: &Session) -> Timestamp {
    session.end.get().map_or(Timestamp::NEVER, |end| end.at)
}

fn is_stopped(session: &Session) -> bool {
    session.end.get().is_some_and(|end| end.reason == Reason::ServerStopped)
}
