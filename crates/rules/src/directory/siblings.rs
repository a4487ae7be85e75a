//! The sessions of one principal, in the order in which they started.

use std::sync::Arc;

use base::{SessionUuid, Timestamp};
use smallvec::SmallVec;

use super::session::{Lifetime, Session};
use super::window::Window;

/// A place in the order of one login's sessions. It stays the same over restarts of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// When the session started.
    pub started: Timestamp,
    /// Tells those of the same millisecond apart.
    pub uuid: SessionUuid,
}

/// Sessions of one login, oldest first. Most logins have one.
#[derive(Default)]
pub struct Siblings {
    all: SmallVec<[Arc<Session>; 1]>,
    /// How many of them are bound to connections.
    bound: u32,
}

impl Siblings {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// How many of them are bound to connections.
    pub const fn bound(&self) -> usize {
        self.bound as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Counts the commands of all of them together.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.all.first()?.login_window.get()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Session>> {
        self.all.iter()
    }

    /// Adds a session.
    pub fn insert(&mut self, session: Arc<Session>) {
        let position = self.before(session.mark());
        self.bound += u32::from(session.lifetime == Lifetime::Connection);
        self.all.insert(position, session);
    }

    /// Takes a session out, if it is there.
    pub fn remove(&mut self, session: &Arc<Session>) {
        let position = self.before(session.mark());
        if self.all.get(position).is_some_and(|other| Arc::ptr_eq(other, session)) {
            self.all.remove(position);
            self.bound -= u32::from(session.lifetime == Lifetime::Connection);
        }
    }

    /// How many started then or later.
    pub fn since(&self, time: Timestamp) -> usize {
        self.all.len() - self.all.partition_point(|other| other.started < time)
    }

    /// Those that started before the mark, the newest of them first; without one, all.
    pub fn older_than(&self, mark: Option<Mark>) -> impl Iterator<Item = &Arc<Session>> {
        let end = mark.map_or(self.all.len(), |mark| self.before(mark));
        self.all[..end].iter().rev()
    }

    fn before(&self, mark: Mark) -> usize {
        self.all.partition_point(|other| other.mark() < mark)
    }
}
