//! MQTT session state that outlives a connection (MQTT 3.1.2.4): its subscriptions. The messages
//! wait in the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::codec::{QoS, Subscription};
use crate::directory::Principal;
use crate::limits;
use crate::timestamp::Timestamp;

/// Whose state: the login and the client id.
pub type Owner = (Principal, Arc<str>);

/// A subscription that a connection holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The filter.
    pub filter: Box<str>,
    /// The quality of service granted.
    pub qos: QoS,
    /// Not what the connection published itself.
    pub no_local: bool,
    /// Keep the publisher's retain flag.
    pub retain_as_published: bool,
    /// Its identifier.
    pub id: Option<u32>,
}

impl Held {
    /// What is kept of a subscription when it is granted.
    pub fn new(subscription: &Subscription<'_>, id: Option<u32>) -> Self {
        Self {
            filter: subscription.filter.into(),
            qos: subscription.qos.min(QoS::AtLeastOnce),
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            id,
        }
    }
}

/// The states of clients that are away, or may go away and come back.
#[derive(Default)]
pub struct Saved(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    states: BTreeMap<Owner, State>,
    /// The order in which states were last used: the least used one goes first.
    order: BTreeMap<u64, Owner>,
    next: u64,
}

struct State {
    held: Vec<Held>,
    /// When it is over; none while the client is connected or for ever.
    until: Option<Timestamp>,
    turn: u64,
}

impl Saved {
    /// The subscriptions of a client that comes back; none when there is no state, or it is over.
    pub fn find(&self, owner: &Owner, now: Timestamp) -> Option<Vec<Held>> {
        let mut inner = self.0.lock();
        let state = inner.states.get_mut(owner)?;
        if state.until.is_some_and(|until| until <= now) {
            inner.remove(owner);
            return None;
        }
        state.until = None;
        Some(state.held.clone())
    }

    /// Keeps a client's subscriptions, until a time or for ever.
    pub fn keep(&self, owner: &Owner, held: &[Held], until: Option<Timestamp>) {
        let mut inner = self.0.lock();
        inner.remove(owner);
        if inner.states.len() >= limits::SAVED_STATES_MAX
            && let Some((_, oldest)) = inner.order.first_key_value()
        {
            let oldest = oldest.clone();
            inner.remove(&oldest);
        }
        inner.next += 1;
        let turn = inner.next;
        inner.order.insert(turn, owner.clone());
        inner.states.insert(owner.clone(), State { held: held.to_vec(), until, turn });
    }

    /// Forgets a client; whether there was something to forget.
    pub fn forget(&self, owner: &Owner) -> bool {
        self.0.lock().remove(owner)
    }

    /// Forgets and returns those whose time is over.
    pub fn expire(&self, now: Timestamp) -> Vec<Owner> {
        let mut inner = self.0.lock();
        let over = |state: &State| state.until.is_some_and(|until| until <= now);
        let due: Vec<Owner> =
            inner.states.iter().filter(|(_, s)| over(s)).map(|(owner, _)| owner.clone()).collect();
        for owner in &due {
            inner.remove(owner);
        }
        due
    }
}

impl Inner {
    fn remove(&mut self, owner: &Owner) -> bool {
        let Some(state) = self.states.remove(owner) else { return false };
        self.order.remove(&state.turn);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserId;

    fn owner(name: &str) -> Owner {
        (Principal::User(UserId::from_bytes([1; 12])), name.into())
    }

    #[test]
    fn state_lives_until_its_time() {
        let saved = Saved::default();
        let at = Timestamp::from_millis;
        assert_eq!(saved.find(&owner("a"), at(0)), None);
        saved.keep(&owner("a"), &[], Some(at(10)));
        saved.keep(&owner("b"), &[], None);
        saved.keep(&owner("c"), &[], Some(at(10)));
        assert!(saved.find(&owner("a"), at(9)).is_some());
        // Found again: it is in use and has no end.
        assert_eq!(saved.expire(at(10)), [owner("c")]);
        assert!(saved.find(&owner("a"), at(1000)).is_some());
        assert!(saved.forget(&owner("b")));
        assert!(!saved.forget(&owner("b")));
    }
}
