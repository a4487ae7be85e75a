//! Subscriptions: which topic filters there are in an organisation, and which a publish matches.
//!
//! Every filter has a slot, and the router knows slots only. It keeps a log for each name it ever
//! heard and an entry for each topic ever published, and tries every new topic against every
//! filter; slots are few and used again, and a publish is tried only against the wildcard filters
//! of its own organisation. A member of a shared subscription has a slot of its own, so that the
//! choice of the member is made here.

use std::collections::HashMap;

use base::{
    OrgId,
    topic::{self, Shared},
};

use super::limits;

/// A log of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(pub usize);

/// A session of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionKey(pub u64);

/// No slot is free for this organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The subscribed filters.
pub(super) struct Filters {
    orgs: HashMap<OrgId, Index>,
    /// Slots that were used and are free again.
    free: Vec<Slot>,
    used: usize,
    max: usize,
}

/// The filters of an organisation.
#[derive(Default)]
struct Index {
    /// Filters without wildcards.
    exact: HashMap<Box<str>, Entry>,
    /// Filters with wildcards.
    wild: HashMap<Box<str>, Entry>,
    /// Shared subscriptions, by group and filter.
    groups: HashMap<(Box<str>, Box<str>), Group>,
    /// Slots that all these have.
    slots: usize,
}

struct Entry {
    slot: Slot,
    subscribers: usize,
}

#[derive(Default)]
struct Group {
    members: Vec<(SessionKey, Slot)>,
    next: usize,
}

impl Filters {
    /// No filters, and room for `max`.
    pub(super) fn new(max: usize) -> Self {
        Self { orgs: HashMap::new(), free: Vec::new(), used: 0, max }
    }

    /// Adds a subscription of a session that is not subscribed to this filter yet.
    pub(super) fn subscribe(
        &mut self,
        org: OrgId,
        filter: &str,
        session: SessionKey,
    ) -> Result<Slot, Full> {
        let alone = self.orgs.keys().all(|other| *other == org);
        let share = limits::org_filters_max(self.max, alone);
        let index = self.orgs.entry(org).or_default();
        if let Some(entry) = index.entries(filter).get_mut(filter) {
            entry.subscribers += 1;
            return Ok(entry.slot);
        }
        let free = if index.slots < share { self.free.pop() } else { None };
        let slot = match free {
            Some(slot) => slot,
            None if index.slots < share && self.used < self.max => {
                self.used += 1;
                Slot(self.used - 1)
            }
            None => {
                self.forget_empty(org);
                return Err(Full);
            }
        };
        index.slots += 1;
        if let Some(shared) = topic::parse_shared(filter) {
            index.groups.entry(key(shared)).or_default().members.push((session, slot));
        } else {
            index.entries(filter).insert(filter.into(), Entry { slot, subscribers: 1 });
        }
        Ok(slot)
    }

    /// Removes a subscription that [`Filters::subscribe`] gave this slot.
    pub(super) fn unsubscribe(&mut self, org: OrgId, filter: &str, session: SessionKey) {
        let Some(index) = self.orgs.get_mut(&org) else {
            return;
        };
        if let Some(shared) = topic::parse_shared(filter) {
            let key = key(shared);
            if let Some(group) = index.groups.get_mut(&key) {
                let gone = group.members.iter().position(|member| member.0 == session);
                if let Some(position) = gone {
                    self.free.push(group.members.remove(position).1);
                    index.slots -= 1;
                }
                if group.members.is_empty() {
                    index.groups.remove(&key);
                }
            }
        } else if let Some(entry) = index.entries(filter).get_mut(filter) {
            entry.subscribers -= 1;
            if entry.subscribers == 0 {
                self.free.push(entry.slot);
                index.slots -= 1;
                index.entries(filter).remove(filter);
            }
        }
        self.forget_empty(org);
    }

    /// Collects the slots that a message goes to. Of a group, the next member that is not `away`
    /// gets it, or the next one if all are.
    pub(super) fn matching(
        &mut self,
        org: OrgId,
        name: &str,
        away: impl Fn(SessionKey) -> bool,
        slots: &mut Vec<Slot>,
    ) {
        let Some(index) = self.orgs.get_mut(&org) else {
            return;
        };
        slots.extend(index.exact.get(name).map(|entry| entry.slot));
        let wild = index.wild.iter().filter(|(filter, _)| topic::matches(filter, name));
        slots.extend(wild.map(|(_, entry)| entry.slot));
        for ((_, filter), group) in &mut index.groups {
            if topic::matches(filter, name) {
                slots.extend(group.choose(&away));
            }
        }
    }

    fn forget_empty(&mut self, org: OrgId) {
        if self.orgs.get(&org).is_some_and(Index::is_empty) {
            self.orgs.remove(&org);
        }
    }
}

impl Index {
    /// The map that has the filter if it is subscribed to and not shared.
    fn entries(&mut self, filter: &str) -> &mut HashMap<Box<str>, Entry> {
        if filter.contains(['+', '#']) { &mut self.wild } else { &mut self.exact }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty() && self.groups.is_empty()
    }
}

impl Group {
    fn choose(&mut self, away: impl Fn(SessionKey) -> bool) -> Option<Slot> {
        let count = self.members.len();
        let turns = (0..count).map(|turn| (self.next + turn) % count);
        let present = turns.clone().find(|&at| self.members.get(at).is_some_and(|m| !away(m.0)));
        let chosen = present.or_else(|| turns.into_iter().next())?;
        self.next = chosen + 1;
        self.members.get(chosen).map(|member| member.1)
    }
}

fn key(shared: Shared<'_>) -> (Box<str>, Box<str>) {
    (shared.group.into(), shared.filter.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);

    fn matching(filters: &mut Filters, org: OrgId, name: &str, away: &[u64]) -> Vec<usize> {
        let mut slots = Vec::new();
        filters.matching(org, name, |session| away.contains(&session.0), &mut slots);
        let mut slots: Vec<usize> = slots.into_iter().map(|slot| slot.0).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_filter_has_one_slot_and_frees_it_with_its_last_subscriber() {
        let mut filters = Filters::new(2);
        let (one, two) = (SessionKey(1), SessionKey(2));
        assert_eq!(filters.subscribe(ORG, "a", one), Ok(Slot(0)));
        assert_eq!(filters.subscribe(ORG, "a", two), Ok(Slot(0)));
        assert_eq!(filters.subscribe(OTHER, "a", two), Ok(Slot(1)));
        assert_eq!(filters.subscribe(ORG, "b", one), Err(Full));
        filters.unsubscribe(ORG, "a", one);
        assert_eq!(filters.subscribe(ORG, "b", one), Err(Full));
        filters.unsubscribe(ORG, "a", two);
        assert_eq!(filters.subscribe(ORG, "b", one), Ok(Slot(0)));
        filters.unsubscribe(ORG, "b", one);
        filters.unsubscribe(OTHER, "a", two);
        assert!(filters.orgs.is_empty());
    }

    #[test]
    fn an_organisation_leaves_room_for_others() {
        let mut filters = Filters::new(20);
        let one = SessionKey(1);
        let granted = |filters: &mut Filters, org| {
            (0..30).filter(|n| filters.subscribe(org, &format!("{n}"), one).is_ok()).count()
        };
        assert_eq!(granted(&mut filters, ORG), 18);
        assert_eq!(granted(&mut filters, OTHER), 2);
        for number in 0..18 {
            filters.unsubscribe(ORG, &number.to_string(), one);
        }
        filters.unsubscribe(OTHER, "0", one);
        assert_eq!(filters.subscribe(ORG, "a", one), Ok(Slot(18)));
        assert_eq!(granted(&mut filters, OTHER), 10);
        assert_eq!(granted(&mut filters, ORG), 9);
        assert_eq!(filters.subscribe(ORG, "#", one), Err(Full));
    }

    #[test]
    fn members_of_a_group_take_turns_and_the_absent_are_passed_over() {
        let mut filters = Filters::new(10);
        for session in 0..3 {
            let slot = filters.subscribe(ORG, "$share/g/a/+", SessionKey(session));
            assert_eq!(slot, Ok(Slot(session as usize)));
        }
        let turns: Vec<_> = (0..4).flat_map(|_| matching(&mut filters, ORG, "a/b", &[])).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        assert_eq!(matching(&mut filters, ORG, "a/b", &[1, 2]), [0]);
        assert_eq!(matching(&mut filters, ORG, "a/b", &[0, 1, 2]).len(), 1);
        assert!(matching(&mut filters, OTHER, "a/b", &[]).is_empty());
        for session in 0..3 {
            filters.unsubscribe(ORG, "$share/g/a/+", SessionKey(session));
        }
        assert!(filters.orgs.is_empty());
    }

    proptest! {
        #[test]
        fn matching_is_what_the_filters_say(
            steps in prop::collection::vec(("[ab+]/[ab+]|#|a/#|a", 0_u64..3, any::<bool>()), 0..40),
            name in "[ab]/[ab]|a",
        ) {
            let mut filters = Filters::new(5);
            let mut model: Vec<(String, u64, usize)> = Vec::new();
            for (filter, session, add) in steps {
                let known = model.iter().position(|(f, s, _)| *f == filter && *s == session);
                match (add, known) {
                    (true, None) => {
                        if let Ok(slot) = filters.subscribe(ORG, &filter, SessionKey(session)) {
                            model.push((filter, session, slot.0));
                        }
                    }
                    (false, Some(position)) => {
                        filters.unsubscribe(ORG, &filter, SessionKey(session));
                        model.remove(position);
                    }
                    _ => {}
                }
            }
            let mut expected: Vec<usize> = model
                .iter()
                .filter(|(filter, _, _)| topic::matches(filter, &name))
                .map(|(_, _, slot)| *slot)
                .collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(matching(&mut filters, ORG, &name, &[]), expected);
        }
    }
}
