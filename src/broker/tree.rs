//! The subscriptions of an organisation: who gets a message, by its topic.
//!
//! Filters without wildcards are a look-up. Those with wildcards are a tree of levels, of which a
//! publish visits what its topic passes: it costs what it matches, not what there is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::topic;
use mqtt::QoS;
use smallvec::SmallVec;

use super::limits;
use super::message::SubscriptionIds;
use super::session::Session;

/// The options of a subscription that a publish asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<u32>,
}

/// A shared subscription: the name of the group, and the filter behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    /// The name.
    pub group: Box<str>,
    /// The filter.
    pub filter: Box<str>,
}

/// Somebody who gets a message.
pub(super) struct Match {
    pub session: Arc<Session>,
    pub qos: QoS,
    pub retain_as_published: bool,
    pub ids: SubscriptionIds,
    pub shared: Option<Arc<Shared>>,
}

/// Everybody who gets a message; mostly one.
pub(super) type Matches = SmallVec<[Match; 2]>;

/// The filters are not granted: there is no room in the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooWild;

/// The subscriptions of an organisation.
#[derive(Default)]
pub(super) struct Tree {
    exact: HashMap<Box<str>, Subscribers>,
    wild: Node,
    /// Levels of filters with wildcards.
    levels: usize,
    /// Different filters; each member of a group counts.
    filters: usize,
}

/// The filters that begin with the levels that lead here.
#[derive(Default)]
struct Node {
    levels: HashMap<Box<str>, Node>,
    plus: Option<Box<Node>>,
    /// Of the filter that ends here.
    here: Subscribers,
    /// Of the filter that ends with `#` behind this.
    below: Subscribers,
}

/// Those of one filter.
#[derive(Default)]
struct Subscribers {
    members: Members,
    groups: Vec<Group>,
}

/// One subscriber mostly, or as many as there are devices.
#[derive(Default)]
enum Members {
    #[default]
    None,
    One(Arc<Session>, Options),
    Many(BTreeMap<u64, (Arc<Session>, Options)>),
}

struct Group {
    shared: Arc<Shared>,
    members: Vec<(Arc<Session>, Options)>,
    next: AtomicUsize,
}

impl Tree {
    /// How many different filters there are.
    pub(super) const fn filters(&self) -> usize {
        self.filters
    }

    /// Adds a subscription, or changes its options.
    pub(super) fn insert(
        &mut self,
        filter: &str,
        session: &Arc<Session>,
        options: Options,
    ) -> Result<(), TooWild> {
        let shared = topic::parse_shared(filter);
        let inner = shared.map_or(filter, |shared| shared.filter);
        let subscribers = if !is_wild(inner) {
            self.exact.entry(inner.into()).or_default()
        } else {
            let mut made = 0;
            let room = limits::WILDCARD_LEVELS_MAX.saturating_sub(self.levels);
            if inner.split('/').count() > room {
                return Err(TooWild);
            }
            let subscribers = self.wild.at_or_made(inner, &mut made);
            self.levels += made;
            subscribers
        };
        self.filters += match shared {
            Some(shared) => subscribers.join(shared, session, options),
            None => subscribers.members.insert(session, options),
        };
        Ok(())
    }

    /// Removes a subscription, if it is there.
    pub(super) fn remove(&mut self, filter: &str, session: &Session) {
        let shared = topic::parse_shared(filter);
        let inner = shared.map_or(filter, |shared| shared.filter);
        let leave = |subscribers: &mut Subscribers| match shared {
            Some(shared) => subscribers.leave(shared.group, session),
            None => subscribers.members.remove(session.number()),
        };
        self.filters -= if !is_wild(inner) {
            let Some(subscribers) = self.exact.get_mut(inner) else { return };
            let gone = leave(subscribers);
            if subscribers.is_empty() {
                self.exact.remove(inner);
            }
            gone
        } else {
            let mut levels = inner.split('/');
            self.wild.remove(&mut levels, &mut self.levels, leave)
        };
    }

    /// Collects everybody who gets a message with this topic; each once, and once more for each
    /// shared subscription. `from`: the session of the publisher, for No Local. Returns how many
    /// levels of filters with wildcards it had to look at.
    pub(super) fn collect(&self, name: &str, from: Option<u64>, matches: &mut Matches) -> usize {
        let mut visit = Visit { from, filters: 0, levels: 0 };
        if let Some(subscribers) = self.exact.get(name) {
            subscribers.collect(from, matches);
            visit.filters += 1;
        }
        if self.levels > 0 && !name.starts_with('$') {
            self.wild.collect(name, matches, &mut visit);
        }
        if visit.filters > 1 && matches.len() > 1 {
            merge(matches);
        }
        visit.levels
    }

    /// Another member of a shared subscription.
    pub(super) fn other_member(&self, shared: &Shared, than: u64) -> Option<Match> {
        let subscribers = match is_wild(&shared.filter) {
            false => self.exact.get(&*shared.filter),
            true => self.wild.at(&shared.filter),
        };
        let groups = &subscribers?.groups;
        groups.iter().find(|group| group.shared.group == shared.group)?.choose(Some(than))
    }
}

/// A walk through the filters for one message.
struct Visit {
    from: Option<u64>,
    /// Filters that matched.
    filters: usize,
    /// Levels that were looked at.
    levels: usize,
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// A client whose subscriptions overlap gets a message once, with the highest QoS and all
/// identifiers ([MQTT-3.3.4-2], [MQTT-3.3.4-3]).
fn merge(matches: &mut Matches) {
    matches.sort_by_key(|found| (found.session.number(), found.shared.is_some()));
    matches.dedup_by(|next, first| {
        let same = first.session.number() == next.session.number()
            && first.shared.is_none()
            && next.shared.is_none();
        if same {
            first.qos = first.qos.max(next.qos);
            first.retain_as_published |= next.retain_as_published;
            first.ids.append(&mut next.ids);
        }
        same
    });
}

impl Node {
    fn at_or_made(&mut self, filter: &str, made: &mut usize) -> &mut Subscribers {
        let mut node = self;
        for level in filter.split('/') {
            match level {
                "#" => {
                    // It counts like a level, so that there is an end of them.
                    *made += usize::from(node.below.is_empty());
                    return &mut node.below;
                }
                "+" => {
                    *made += usize::from(node.plus.is_none());
                    node = node.plus.get_or_insert_default();
                }
                level => {
                    if !node.levels.contains_key(level) {
                        *made += 1;
                        node.levels.insert(level.into(), Self::default());
                    }
                    node = node.levels.entry(level.into()).or_default();
                }
            }
        }
        &mut node.here
    }

    fn at(&self, filter: &str) -> Option<&Subscribers> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return Some(&node.below),
                "+" => node.plus.as_deref()?,
                level => node.levels.get(level)?,
            };
        }
        Some(&node.here)
    }

    /// Has a subscriber leave the filter, and forgets the levels that nobody needs then. The depth
    /// is that of the longest filter.
    fn remove<'f>(
        &mut self,
        levels: &mut impl Iterator<Item = &'f str>,
        count: &mut usize,
        leave: impl FnOnce(&mut Subscribers) -> usize,
    ) -> usize {
        match levels.next() {
            None => leave(&mut self.here),
            Some("#") => {
                let gone = leave(&mut self.below);
                if gone > 0 && self.below.is_empty() {
                    *count -= 1;
                }
                gone
            }
            Some("+") => {
                let Some(node) = &mut self.plus else { return 0 };
                let gone = node.remove(levels, count, leave);
                if node.is_empty() {
                    self.plus = None;
                    *count -= 1;
                }
                gone
            }
            Some(level) => {
                let Some(node) = self.levels.get_mut(level) else { return 0 };
                let gone = node.remove(levels, count, leave);
                if node.is_empty() {
                    self.levels.remove(level);
                    *count -= 1;
                }
                gone
            }
        }
    }

    /// `rest`: the levels of the topic that are not passed yet.
    fn collect(&self, rest: &str, matches: &mut Matches, visit: &mut Visit) {
        visit.levels += 1;
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let mut found = |subscribers: &Subscribers| {
            if !subscribers.is_empty() {
                subscribers.collect(visit.from, matches);
                visit.filters += 1;
            }
        };
        found(&self.below);
        let next = [self.levels.get(level), self.plus.as_deref()];
        if rest.is_none() {
            for node in next.iter().flatten() {
                found(&node.here);
                // `a/#` matches `a` too.
                found(&node.below);
            }
            return;
        }
        for node in next.into_iter().flatten() {
            node.collect(rest.unwrap_or_default(), matches, visit);
        }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        matches!(self.members, Members::None) && self.groups.is_empty()
    }

    /// How many filters are new with it.
    fn join(
        &mut self,
        shared: topic::Shared<'_>,
        session: &Arc<Session>,
        options: Options,
    ) -> usize {
        let known = self.groups.iter().position(|group| *group.shared.group == *shared.group);
        let index = known.unwrap_or_else(|| {
            let shared =
                Arc::new(Shared { group: shared.group.into(), filter: shared.filter.into() });
            self.groups.push(Group { shared, members: Vec::new(), next: AtomicUsize::new(0) });
            self.groups.len() - 1
        });
        let Some(group) = self.groups.get_mut(index) else { return 0 };
        match group.members.iter_mut().find(|(member, _)| Arc::ptr_eq(member, session)) {
            Some(member) => {
                member.1 = options;
                0
            }
            None => {
                group.members.push((session.clone(), options));
                1
            }
        }
    }

    fn leave(&mut self, group: &str, session: &Session) -> usize {
        let Some(index) = self.groups.iter().position(|known| *known.shared.group == *group) else {
            return 0;
        };
        let Some(group) = self.groups.get_mut(index) else { return 0 };
        let before = group.members.len();
        group.members.retain(|(member, _)| member.number() != session.number());
        let gone = before - group.members.len();
        if group.members.is_empty() {
            self.groups.swap_remove(index);
        }
        gone
    }

    fn collect(&self, from: Option<u64>, matches: &mut Matches) {
        match &self.members {
            Members::None => {}
            Members::One(session, options) => matches.extend(found(session, *options, from)),
            Members::Many(members) => {
                let members = members.values();
                matches.extend(
                    members.filter_map(|(session, options)| found(session, *options, from)),
                );
            }
        }
        matches.extend(self.groups.iter().filter_map(|group| group.choose(None)));
    }
}

fn found(session: &Arc<Session>, options: Options, from: Option<u64>) -> Option<Match> {
    let own = options.no_local && from == Some(session.number());
    (!own).then(|| Match::new(session, options, None))
}

impl Match {
    fn new(session: &Arc<Session>, options: Options, shared: Option<Arc<Shared>>) -> Self {
        Self {
            session: session.clone(),
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            ids: options.id.into_iter().collect(),
            shared,
        }
    }
}

impl Members {
    /// How many filters are new with it.
    fn insert(&mut self, session: &Arc<Session>, options: Options) -> usize {
        match self {
            Self::None => {
                *self = Self::One(session.clone(), options);
                return 1;
            }
            Self::One(first, held) if Arc::ptr_eq(first, session) => *held = options,
            Self::One(first, held) => {
                let first = (first.number(), (first.clone(), *held));
                let second = (session.number(), (session.clone(), options));
                *self = Self::Many([first, second].into());
            }
            Self::Many(members) => {
                members.insert(session.number(), (session.clone(), options));
            }
        }
        0
    }

    /// How many filters are gone with it.
    fn remove(&mut self, number: u64) -> usize {
        match self {
            Self::One(session, _) if session.number() == number => {
                *self = Self::None;
                1
            }
            Self::Many(members) => {
                members.remove(&number);
                let gone = members.is_empty();
                if gone {
                    *self = Self::None;
                }
                usize::from(gone)
            }
            Self::None | Self::One(..) => 0,
        }
    }
}

impl Group {
    /// The next member that is connected and keeps up, else one that is connected, else any.
    fn choose(&self, not: Option<u64>) -> Option<Match> {
        let count = self.members.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..count).filter_map(|turn| self.members.get((first + turn) % count));
        let turns = turns.filter(|(session, _)| not != Some(session.number()));
        let (mut connected, mut any) = (None, None);
        for member in turns {
            match (member.0.is_connected(), member.0.is_crowded()) {
                (true, false) => return Some(self.found(member)),
                (true, true) => connected = connected.or(Some(member)),
                (false, _) => any = any.or(Some(member)),
            }
        }
        connected.or(any).map(|member| self.found(member))
    }

    fn found(&self, (session, options): &(Arc<Session>, Options)) -> Match {
        Match::new(session, *options, Some(self.shared.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: Options =
        Options { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, id: None };

    fn matching(tree: &Tree, name: &str, from: Option<u64>) -> Vec<(u64, Vec<u32>)> {
        let mut matches = Matches::new();
        tree.collect(name, from, &mut matches);
        let mut found: Vec<_> =
            matches.iter().map(|found| (found.session.number(), found.ids.to_vec())).collect();
        found.sort();
        found
    }

    fn sessions(count: u64) -> Vec<Arc<Session>> {
        (0..count).map(|number| Arc::new(Session::for_tests(number))).collect()
    }

    #[test]
    fn who_subscribed_twice_gets_a_message_once_with_all_identifiers() {
        let mut tree = Tree::default();
        let sessions = sessions(2);
        for (id, filter) in [(1, "a/b"), (2, "a/+"), (3, "#"), (4, "a/b/#"), (5, "a/c")] {
            let options = Options { id: Some(id), ..OPTIONS };
            assert_eq!(tree.insert(filter, &sessions[0], options), Ok(()));
        }
        assert_eq!(tree.insert("$share/g/a/#", &sessions[0], OPTIONS), Ok(()));
        let own = Options { no_local: true, ..OPTIONS };
        assert_eq!(tree.insert("a/b", &sessions[1], own), Ok(()));
        let mut found = matching(&tree, "a/b", None);
        found.iter_mut().for_each(|(_, ids)| ids.sort_unstable());
        assert_eq!(found, [(0, vec![]), (0, vec![1, 2, 3, 4]), (1, vec![])]);
        assert_eq!(matching(&tree, "a/b", Some(1)).len(), 2);
        assert_eq!(matching(&tree, "$x/b", None), []);
        assert_eq!(tree.filters(), 6);
    }

    #[test]
    fn members_of_a_group_take_turns() {
        let mut tree = Tree::default();
        let sessions = sessions(3);
        for session in &sessions {
            assert_eq!(tree.insert("$share/g/a/+", session, OPTIONS), Ok(()));
        }
        let turns: Vec<_> = (0..4).flat_map(|_| matching(&tree, "a/b", None)).collect();
        assert_eq!(turns.iter().map(|turn| turn.0).collect::<Vec<_>>(), [0, 1, 2, 0]);
        let mut matches = Matches::new();
        tree.collect("a/b", None, &mut matches);
        let shared = matches[0].shared.clone().expect("a group");
        for _ in 0..3 {
            let other = tree.other_member(&shared, 1).expect("there are others");
            assert_ne!(other.session.number(), 1);
        }
        for session in &sessions {
            tree.remove("$share/g/a/+", session);
        }
        assert!(tree.wild.is_empty() && tree.other_member(&shared, 1).is_none());
    }

    #[test]
    fn wildcards_have_a_bound() {
        let mut tree = Tree::default();
        let session = &sessions(1)[0];
        let mut granted = 0;
        for number in 0.. {
            match tree.insert(&format!("+/{number}{}", "/x".repeat(98)), session, OPTIONS) {
                Ok(()) => granted += 1,
                Err(TooWild) => break,
            }
        }
        assert_eq!(granted, limits::WILDCARD_LEVELS_MAX / 99);
        assert_eq!(tree.insert("a", session, OPTIONS), Ok(()));
    }

    proptest! {
        #[test]
        fn matching_is_what_the_filters_say(
            steps in prop::collection::vec(
                ("([ab+]|)/[ab+]|#|a/#|a|\\+|a/b/\\+/#|\\+/\\+/#", 0_u64..3, any::<bool>()),
                0..40,
            ),
            name in "([ab]|)/[ab]|a|a/b/a|a/b/b/b",
        ) {
            let sessions = sessions(3);
            let mut tree = Tree::default();
            let mut model: Vec<(String, u64)> = Vec::new();
            for (filter, session, add) in steps {
                let known = model.iter().position(|(f, s)| *f == filter && *s == session);
                let subscriber = &sessions[session as usize];
                if add {
                    prop_assert_eq!(tree.insert(&filter, subscriber, OPTIONS), Ok(()));
                    if known.is_none() {
                        model.push((filter, session));
                    }
                } else {
                    tree.remove(&filter, subscriber);
                    known.map(|position| model.remove(position));
                }
            }
            let mut expected: Vec<u64> = model
                .iter()
                .filter(|(filter, _)| topic::matches(filter, &name))
                .map(|(_, session)| *session)
                .collect();
            expected.sort_unstable();
            expected.dedup();
            let found: Vec<_> =
                matching(&tree, &name, None).into_iter().map(|(number, _)| number).collect();
            prop_assert_eq!(found, expected);
            let mut filters: Vec<_> = model.iter().map(|(filter, _)| filter).collect();
            filters.sort();
            filters.dedup();
            prop_assert_eq!(tree.filters(), filters.len());
            for (filter, session) in &model {
                tree.remove(filter, &sessions[*session as usize]);
            }
            prop_assert!(tree.wild.is_empty() && tree.exact.is_empty());
            prop_assert_eq!((tree.filters(), tree.levels), (0, 0));
        }
    }
}
