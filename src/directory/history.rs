//! Sessions that have ended, bounded by age and number.

use std::collections::VecDeque;
use std::sync::Arc;

use super::session::Session;
use crate::timestamp::Timestamp;

/// Ended sessions, oldest end first.
pub struct History {
    ended: VecDeque<Arc<Session>>,
    max: usize,
    age_s: u64,
}

impl History {
    /// An empty history of at most `max` sessions that ended at most `age_s` seconds ago.
    pub const fn new(max: usize, age_s: u64) -> Self {
        Self { ended: VecDeque::new(), max, age_s }
    }

    /// Adds a session that has just ended; returns those that have to go for it.
    pub fn push(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        self.ended.push_back(session);
        let surplus = self.ended.len().saturating_sub(self.max);
        self.ended.drain(..surplus).collect()
    }

    /// Takes out what is too old.
    pub fn prune(&mut self, now: Timestamp) -> Vec<Arc<Session>> {
        let old = |session: &Arc<Session>| {
            session.end().is_some_and(|end| end.at.plus_seconds(self.age_s) <= now)
        };
        let count = self.ended.iter().take_while(|session| old(session)).count();
        self.ended.drain(..count).collect()
    }

    /// All of them, the last that ended first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ended.iter().rev()
    }
}
