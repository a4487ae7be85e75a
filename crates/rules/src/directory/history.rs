//! The history of ended sessions, bounded by age and number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use base::{SessionUuid, Timestamp};

use super::session::{Principal, Session};
use super::siblings::Siblings;

/// Ended sessions, oldest end first.
pub struct History {
    ended: VecDeque<Arc<Session>>,
    by_uuid: HashMap<SessionUuid, Arc<Session>>,
    by_principal: HashMap<Principal, Siblings>,
    max: usize,
    age_s: u64,
}

impl History {
    /// An empty history of at most `max` sessions that ended at most `age_s` seconds ago.
    pub fn new(max: usize, age_s: u64) -> Self {
        let (by_uuid, by_principal) = (HashMap::new(), HashMap::new());
        Self { ended: VecDeque::new(), by_uuid, by_principal, max, age_s }
    }

    /// Adds a session that has just ended; returns those that have to go for it.
    pub fn push(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        self.by_uuid.insert(session.uuid(), session.clone());
        self.by_principal.entry(session.who.principal()).or_default().insert(session.clone());
        self.ended.push_back(session);
        self.take(self.ended.len().saturating_sub(self.max))
    }

    /// Takes out what is too old.
    pub fn prune(&mut self, now: Timestamp) -> Vec<Arc<Session>> {
        let old = |session: &Arc<Session>| {
            session.end().is_some_and(|end| end.at.plus_seconds(self.age_s) <= now)
        };
        self.take(self.ended.iter().take_while(|session| old(session)).count())
    }

    /// All of them, the last that ended first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ended.iter().rev()
    }

    /// The session with this UUID.
    pub fn get(&self, uuid: SessionUuid) -> Option<&Arc<Session>> {
        self.by_uuid.get(&uuid)
    }

    /// Those of one login.
    pub fn of_principal(&self, principal: &Principal) -> Option<&Siblings> {
        self.by_principal.get(principal)
    }

    /// Takes the `count` oldest out.
    fn take(&mut self, count: usize) -> Vec<Arc<Session>> {
        let taken: Vec<_> = self.ended.drain(..count).collect();
        for session in &taken {
            self.by_uuid.remove(&session.uuid());
            let principal = session.who.principal();
            if let Some(siblings) = self.by_principal.get_mut(&principal) {
                siblings.remove(session);
                if siblings.is_empty() {
                    self.by_principal.remove(&principal);
                }
            }
        }
        taken
    }
}
