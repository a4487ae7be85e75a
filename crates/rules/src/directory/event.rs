//! Events: what happened to sessions. Journal, history, connections, metrics and live views all
//! follow these events; there is no other way to learn of a change.

use std::ops::Deref;
use std::sync::Arc;

use super::session::{Reason, Session, Stay};

/// A change of the directory.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session started.
    Started(Arc<Session>),
    /// A session went to another organisation; none: to the one where it is.
    Switched(Arc<Session>, Option<Stay>),
    /// The rights of a session changed where it is.
    RightsChanged(Arc<Session>),
    /// The thing of a session has another definition.
    Redefined(Arc<Session>),
    /// A session ended.
    Ended(Arc<Session>, Reason),
    /// A session was revoked that had ended already, maybe in the same way.
    Revoked(Arc<Session>),
    /// An ended session left the history.
    Forgotten(Arc<Session>),
}

/// Changes of the directory, in the order in which they happened.
#[derive(Default, Debug)]
#[must_use = "what happened to sessions has to be stored and told"]
pub struct Events(Vec<Event>);

impl Events {
    /// Adds later ones.
    pub fn append(&mut self, mut later: Self) {
        if self.0.is_empty() {
            self.0 = later.0;
        } else {
            self.0.append(&mut later.0);
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.0.push(event);
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0
    }
}

impl From<Event> for Events {
    fn from(event: Event) -> Self {
        Self(vec![event])
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<T: IntoIterator<Item = Event>>(events: T) -> Self {
        Self(events.into_iter().collect())
    }
}
