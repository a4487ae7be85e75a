//! MQTT session state that outlives a connection (MQTT 3.1.2.4): its subscriptions. The messages
//! wait in the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::mqtt::QoS;
use base::{OrgId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::Principal;

/// Whose state: the login and the client id.
pub(super) type Owner = (Principal, Arc<str>);

/// A subscription that a connection holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
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

impl Subscription {
    /// What is kept of a subscription when it is granted.
    pub fn new(subscription: &::mqtt::Subscription<'_>, id: Option<u32>) -> Self {
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
pub(super) struct SessionStates(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    states: BTreeMap<Owner, State>,
    /// The order in which states were last used: the least used one goes first.
    order: BTreeMap<u64, Owner>,
    /// The states that have an end, by it and their turn.
    due: BTreeMap<(Timestamp, u64), Owner>,
    next: u64,
}

struct State {
    /// The organisation whose topics the subscriptions are to.
    org: OrgId,
    subscriptions: Vec<Subscription>,
    /// When it is over; none while the client is connected or for ever.
    until: Option<Timestamp>,
    turn: u64,
}

impl SessionStates {
    /// The subscriptions of a client that comes back; none when there is no state, it is over, or
    /// it is of another organisation.
    pub(super) fn find(
        &self,
        owner: &Owner,
        org: OrgId,
        now: Timestamp,
    ) -> Option<Vec<Subscription>> {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        let state = inner.states.get_mut(owner).filter(|state| state.org == org)?;
        if let Some(until) = state.until.take() {
            inner.due.remove(&(until, state.turn));
            if until <= now {
                inner.remove(owner);
                return None;
            }
        }
        Some(state.subscriptions.clone())
    }

    /// Keeps a client's subscriptions in an organisation, until a time or for ever.
    pub(super) fn keep(
        &self,
        owner: &Owner,
        org: OrgId,
        subscriptions: Vec<Subscription>,
        until: Option<Timestamp>,
    ) {
        let mut inner = self.0.lock();
        inner.remove(owner);
        inner.make_room(&owner.0);
        inner.next += 1;
        let turn = inner.next;
        inner.order.insert(turn, owner.clone());
        if let Some(until) = until {
            inner.due.insert((until, turn), owner.clone());
        }
        inner.states.insert(owner.clone(), State { org, subscriptions, until, turn });
    }

    /// Forgets a client; whether there was something to forget.
    pub(super) fn forget(&self, owner: &Owner) -> bool {
        self.0.lock().remove(owner)
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&self, now: Timestamp) {
        let mut inner = self.0.lock();
        while let Some((&(until, _), owner)) = inner.due.first_key_value()
            && until <= now
        {
            let owner = owner.clone();
            inner.remove(&owner);
        }
    }
}

impl Inner {
    /// Makes room for one more state, at the cost of the least used one, of this principal if it
    /// has its share already.
    fn make_room(&mut self, principal: &Principal) {
        let from = (principal.clone(), Arc::from(""));
        let own = self.states.range(from..).take_while(|((other, _), _)| other == principal);
        let (mut count, mut oldest) = (0, u64::MAX);
        for (_, state) in own {
            count += 1;
            oldest = oldest.min(state.turn);
        }
        let least_used = if count >= limits::PRINCIPAL_SAVED_STATES_MAX {
            self.order.get(&oldest)
        } else if self.states.len() >= limits::SAVED_STATES_MAX {
            self.order.values().next()
        } else {
            None
        };
        if let Some(owner) = least_used.cloned() {
            self.remove(&owner);
        }
    }

    fn remove(&mut self, owner: &Owner) -> bool {
        let Some(state) = self.states.remove(owner) else { return false };
        self.order.remove(&state.turn);
        if let Some(until) = state.until {
            self.due.remove(&(until, state.turn));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);

    fn owner(name: &str) -> Owner {
        (Principal::User(UserId::from_bytes([1; 12])), name.into())
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn state_lives_until_its_time() {
        let states = SessionStates::default();
        assert_eq!(states.find(&owner("a"), ORG, at(0)), None);
        states.keep(&owner("a"), ORG, Vec::new(), Some(at(10)));
        states.keep(&owner("b"), ORG, Vec::new(), None);
        states.keep(&owner("c"), ORG, Vec::new(), Some(at(10)));
        states.keep(&owner("d"), ORG, Vec::new(), Some(at(11)));
        assert!(states.find(&owner("a"), ORG, at(9)).is_some());
        // Found again: it is in use and has no end.
        states.expire(at(10));
        assert!(!states.forget(&owner("c")));
        assert!(states.find(&owner("a"), ORG, at(1000)).is_some());
        assert!(states.forget(&owner("b")));
        assert!(!states.forget(&owner("b")));
        assert_eq!(states.find(&owner("d"), ORG, at(11)), None);
        assert!(!states.forget(&owner("d")));
        assert!(states.0.lock().due.is_empty());
    }

    #[test]
    fn state_is_of_one_organisation() {
        let states = SessionStates::default();
        states.keep(&owner("a"), ORG, Vec::new(), None);
        assert_eq!(states.find(&owner("a"), OTHER, at(0)), None);
        assert!(states.find(&owner("a"), ORG, at(0)).is_some());
    }

    #[test]
    fn a_principal_with_many_clients_loses_its_own_states() {
        let states = SessionStates::default();
        let other = (Principal::User(UserId::from_bytes([2; 12])), "".into());
        states.keep(&other, ORG, Vec::new(), None);
        for number in 0..=limits::PRINCIPAL_SAVED_STATES_MAX {
            states.keep(&owner(&number.to_string()), ORG, Vec::new(), None);
        }
        let found = |owner: &Owner| states.find(owner, ORG, at(0)).is_some();
        assert!(!found(&owner("0")) && found(&owner("1")) && found(&other));
        assert_eq!(states.0.lock().states.len(), limits::PRINCIPAL_SAVED_STATES_MAX + 1);
    }
}
