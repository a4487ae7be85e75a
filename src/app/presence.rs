//! Presence: subscribers are notified when a thing connects or disconnects (`docs/protocol/tr50.md`
//! 5, the connection-state topic), and for things without a connection the time they were last seen
//! is kept.
//!
//! A thing is connected while its own connection, or that of the thing it is bound to, is there
//! (`docs/protocol/tr50.md` 0, fact 28). Sessions over HTTP are no connections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Instant;

use base::{OrgId, SessionRef, ThingId, ThingKey, limits};
use parking_lot::Mutex;
use rules::directory::{Event, Lifetime, Principal, Session, Who};
use store::{Batch, StoreError};

use super::App;
use crate::things::feed::Topic;
use crate::things::registry::{Seen, Thing};

/// How many turns there are: so many that two organisations seldom have the same.
const TURNS: usize = 1024;

/// Turns to notify subscribers of things' connections, for [`limits::PASS_TIME`] each: threads that
/// serve connections wait for them.
pub(super) struct Turns(Box<[Mutex<Families>]>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    /// That of an organisation.
    fn of(&self, org: OrgId) -> &Mutex<Families> {
        let mixed = |sum: usize, byte: &u8| sum.wrapping_mul(31).wrapping_add(usize::from(*byte));
        &self.0[org.as_bytes().iter().fold(0, mixed) % TURNS]
    }
}

/// Gateways of which it is being told, turn by turn, that they have come or gone: the number of the
/// last who began with each. Whoever began before leaves the rest to it.
#[derive(Default)]
struct Families {
    told: HashMap<ThingId, u64>,
    last: u64,
}

impl Families {
    fn begin(&mut self, gateway: ThingId) -> u64 {
        self.last += 1;
        self.told.insert(gateway, self.last);
        self.last
    }

    /// Whether the subscribers of things that are bound to this one may not know yet that it has come
    /// or gone.
    fn is_being_told(&self, gateway: Option<ThingId>) -> bool {
        gateway.is_some_and(|gateway| self.told.contains_key(&gateway))
    }
}

/// The things that are bound to one that has come or gone, as far as their subscribers were not told.
struct Family {
    org: OrgId,
    gateway: ThingId,
    connected: bool,
    /// Among those who tell of it.
    number: u64,
    /// The last thing that was told of.
    after: Option<ThingId>,
}

impl App {
    /// Whether a thing has a connection of its own.
    pub fn has_connection(&self, org: OrgId, thing: &ThingKey) -> bool {
        let sessions = self.sessions.of_principal(&Principal::Thing(org, thing.clone()));
        sessions.iter().any(|session| session.lifetime() == Lifetime::Connection)
    }

    /// Notifies subscribers of things whose first connection has come, or whose last one has gone.
    pub(super) fn publish_presence(&self, events: &[Event]) {
        let begun = Instant::now();
        for event in events {
            let (session, came) = match event {
                Event::Started(session) => (session, true),
                Event::Ended(session, _) => (session, false),
                Event::Switched(..)
                | Event::RightsChanged(_)
                | Event::Redefined(_)
                | Event::Revoked(_)
                | Event::Forgotten(_) => continue,
            };
            let Some((org, id, key)) = connection_of(session) else { continue };
            if !self.feed.is_watched(org) || is_replaced(events, session, came) {
                continue;
            }
            // One at a time, and with the state of that moment: so the last message is right.
            let mut turn = self.presence_turns.of(org).lock();
            let principal = Principal::Thing(org, key.clone());
            let sessions = self.sessions.of_principal(&principal);
            let connections = sessions.iter().filter(|other| connection_of(other).is_some());
            let first = connections.min_by_key(|other| other.number());
            // Of several that came in the same moment, the first notifies.
            let is_turn = first.map_or(!came, |first| came && first.number() == session.number());
            if !is_turn {
                continue;
            }
            if let Err(error) = self.publish_own(&turn, org, key, came) {
                report(&error);
            }
            let number = turn.begin(id);
            let mut rest = Family { org, gateway: id, connected: came, number, after: None };
            let mut more = self.publish_some(&mut turn, &mut rest, begun);
            // When the server stops, nothing goes on behind this.
            let app = self.this.get().and_then(Weak::upgrade).filter(|_| !self.pace.is_stopping());
            while more && app.is_none() {
                more = self.publish_some(&mut turn, &mut rest, Instant::now());
            }
            drop(turn);
            if let Some(app) = app.filter(|_| more) {
                tokio::spawn(app.publish_rest(rest));
            }
        }
    }

    /// Notifies of a thing whose own connection came or went, unless it is connected by another one
    /// and all know that.
    fn publish_own(
        &self,
        turn: &Families,
        org: OrgId,
        key: &ThingKey,
        connected: bool,
    ) -> Result<(), StoreError> {
        let parent = self.things.get(org, key)?.and_then(|thing| thing.bound_to);
        let by_parent = self.is_parent_connected(org, parent)?;
        if !by_parent || turn.is_being_told(parent) {
            let connected = connected || by_parent;
            self.feed.publish(org, key, Topic::Connected, || connected.to_string());
        }
        Ok(())
    }

    /// Notifies of the things that are bound to a gateway, in turns between which others have theirs.
    async fn publish_rest(self: Arc<Self>, mut rest: Family) {
        let tenant = self.pools.tenant_of(rest.org);
        let mut took = limits::PASS_TIME;
        loop {
            self.pace.wait(tenant, took).await;
            let begun = Instant::now();
            if !self.publish_more(&mut rest, begun) {
                return;
            }
            took = begun.elapsed();
        }
    }

    /// Goes on, unless somebody else has begun; whether there is more.
    fn publish_more(&self, rest: &mut Family, begun: Instant) -> bool {
        let mut turn = self.presence_turns.of(rest.org).lock();
        let is_last = turn.told.get(&rest.gateway) == Some(&rest.number);
        is_last && self.publish_some(&mut turn, rest, begun)
    }

    /// Notifies of some of the things, as far as they have no connection of their own; whether there
    /// are more. `begun`: when this thread has begun with this, and maybe others.
    fn publish_some(&self, turn: &mut Families, rest: &mut Family, begun: Instant) -> bool {
        let more = self.try_publish_some(rest, begun).unwrap_or_else(|error| {
            report(&error);
            false
        });
        if !more {
            turn.told.remove(&rest.gateway);
        }
        more
    }

    fn try_publish_some(&self, rest: &mut Family, begun: Instant) -> Result<bool, StoreError> {
        let mut left = limits::THINGS_AT_ONCE_MAX;
        while left > 0 {
            let some = self.things.children_after(rest.gateway, rest.after, left)?;
            if some.is_empty() {
                return Ok(false);
            }
            for (id, child) in some {
                self.publish_bound(rest.org, &child, rest.connected);
                rest.after = Some(id);
                left -= 1;
                if begun.elapsed() > limits::PASS_TIME {
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    fn is_parent_connected(&self, org: OrgId, parent: Option<ThingId>) -> Result<bool, StoreError> {
        let Some(parent) = parent else { return Ok(false) };
        let found = self.things.by_id(org, parent)?;
        Ok(found.is_some_and(|parent| self.has_connection(org, &parent.key)))
    }

    /// Notifies of a thing that is connected, or not, by the one that it is bound to.
    fn publish_bound(&self, org: OrgId, child: &ThingKey, connected: bool) {
        if !self.has_connection(org, child) {
            self.feed.publish(org, child, Topic::Connected, || connected.to_string());
        }
    }

    /// Notifies of a thing that was bound to another one than before, or to none.
    pub fn publish_binding(
        &self,
        thing: &Thing,
        before: Option<ThingId>,
    ) -> Result<(), StoreError> {
        if !self.feed.is_watched(thing.org) || before == thing.bound_to {
            return Ok(());
        }
        let turn = self.presence_turns.of(thing.org).lock();
        let now = self.is_parent_connected(thing.org, thing.bound_to)?;
        if now != self.is_parent_connected(thing.org, before)? || turn.is_being_told(before) {
            self.publish_bound(thing.org, &thing.key, now);
        }
        Ok(())
    }

    /// Adds to the batch when the things whose sessions have ended were last seen.
    /// Those of `unsaved` sessions are left out, as these are.
    pub(super) fn keep_seen(
        &self,
        batch: &mut Batch,
        events: &[Event],
        unsaved: &HashSet<SessionRef>,
    ) -> Result<(), StoreError> {
        let mut last: BTreeMap<(OrgId, ThingId), Seen> = BTreeMap::new();
        for event in events {
            if let Event::Ended(session, _) = event
                && let Who::Application { application, thing_id, .. } = session.who()
                && !unsaved.contains(&session.reference())
            {
                let seen = Seen::of(session);
                let entry = last.entry((application.org, *thing_id)).or_insert(seen);
                *entry = entry.latest(seen);
            }
        }
        let mut last = last.into_iter();
        last.try_for_each(|((org, thing), seen)| self.things.put_seen(batch, org, thing, seen))
    }
}

fn report(error: &StoreError) {
    store::report(error, "a thing's connection can't be told of");
}

/// The thing whose connection a session is, if it is one.
fn connection_of(session: &Session) -> Option<(OrgId, ThingId, &ThingKey)> {
    match session.who() {
        Who::Application { application, thing_id, thing_key }
            if session.lifetime() == Lifetime::Connection =>
        {
            Some((application.org, *thing_id, thing_key))
        }
        _ => None,
    }
}

/// Whether, in the same moment, another connection of the thing came as this one went, or the other
/// way round.
fn is_replaced(events: &[Event], session: &Session, came: bool) -> bool {
    let Some((org, _, key)) = connection_of(session) else { return false };
    let same = |other: &Session| connection_of(other).is_some_and(|o| (o.0, o.2) == (org, key));
    events.iter().any(|event| match event {
        Event::Started(other) => !came && same(other),
        Event::Ended(other, _) => came && same(other),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organisations_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let [one, other] = [1, 2].map(|org| OrgId::from_bytes([org; 12]));
        let _held = turns.of(one).lock();
        assert!(turns.of(one).try_lock().is_none());
        assert!(turns.of(other).try_lock().is_some());
    }
}
