//! Presence: subscribers are notified when a thing connects or disconnects (`docs/protocol/tr50.md`
//! 5, the connection-state topic), and for things without a connection the time they were last seen
//! is kept.
//!
//! A thing is connected while its own connection, or that of the thing it is bound to, is there
//! (`docs/protocol/tr50.md` 0, fact 28). Sessions over HTTP are no connections.

use std::collections::{BTreeMap, HashSet};

use base::{OrgId, SessionRef, ThingId, ThingKey, limits};
use parking_lot::Mutex;
use rules::directory::{Event, Lifetime, Principal, Session, Who};
use store::{Batch, StoreError};

use super::App;
use crate::things::feed::Topic;
use crate::things::registry::{Seen, Thing};

/// How many turns there are: so many that two organisations seldom have the same.
const TURNS: usize = 1024;

/// Turns to notify subscribers of a thing's connection: a gateway has thousands of others, for which
/// other organisations do not wait.
pub(super) struct Turns(Box<[Mutex<()>]>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    /// That of an organisation.
    fn of(&self, org: OrgId) -> &Mutex<()> {
        let mixed = |sum: usize, byte: &u8| sum.wrapping_mul(31).wrapping_add(usize::from(*byte));
        &self.0[org.as_bytes().iter().fold(0, mixed) % TURNS]
    }
}

impl App {
    /// Whether a thing has a connection of its own.
    pub fn has_connection(&self, org: OrgId, thing: &ThingKey) -> bool {
        let sessions = self.sessions.of_principal(&Principal::Thing(org, thing.clone()));
        sessions.iter().any(|session| session.lifetime() == Lifetime::Connection)
    }

    /// Notifies subscribers of things whose first connection has come, or whose last one has gone.
    pub(super) fn publish_presence(&self, events: &[Event]) {
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
            let _turn = self.presence_turns.of(org).lock();
            let principal = Principal::Thing(org, key.clone());
            let sessions = self.sessions.of_principal(&principal);
            let connections = sessions.iter().filter(|other| connection_of(other).is_some());
            let first = connections.min_by_key(|other| other.number());
            // Of several that came in the same moment, the first notifies.
            let is_turn = first.map_or(!came, |first| came && first.number() == session.number());
            if !is_turn {
                continue;
            }
            if let Err(error) = self.publish_family(org, id, key, came) {
                store::report(&error, "a thing's connection can't be told of");
            }
        }
    }

    /// Notifies of a thing whose own connection came or went, unless it is connected by another
    /// one, and of the things that are bound to it, as far as they have no connection of their own.
    fn publish_family(
        &self,
        org: OrgId,
        id: ThingId,
        key: &ThingKey,
        connected: bool,
    ) -> Result<(), StoreError> {
        let parent = self.things.get(org, key)?.and_then(|thing| thing.bound_to);
        if !self.is_parent_connected(org, parent)? {
            self.feed.publish(org, key, Topic::Connected, || connected.to_string());
        }
        for (_, child) in self.things.children(id, limits::CHILDREN_MAX)? {
            self.publish_bound(org, &child, connected);
        }
        Ok(())
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
        let _turn = self.presence_turns.of(thing.org).lock();
        let now = self.is_parent_connected(thing.org, thing.bound_to)?;
        if now != self.is_parent_connected(thing.org, before)? {
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
