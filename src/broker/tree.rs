//! The subscriptions of an organisation: who gets a message, by its topic.
//!
//! Filters without wildcards are a look-up. Those with wildcards are a tree of levels, of which a
//! publish visits what its topic passes: it costs what it matches, not what there is.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::pool::OverShare;
use base::topic;
use mqtt::QoS;
use smallvec::SmallVec;

use super::limits;
use super::message::{Message, SubscriptionIds};
use super::session::Session;
use super::shares::{Holder, InTree, Ledger, places};

/// The options of a subscription that a publish asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<NonZeroU32>,
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

/// The subscriptions of an organisation.
#[derive(Default)]
pub(super) struct Tree {
    exact: HashMap<Box<str>, Subscribers>,
    wild: Node,
    /// Levels of filters with wildcards.
    levels: usize,
    /// How many subscriptions came in all.
    changes: u64,
}

/// For whom it is counted that a filter is there: for the session that has it longest.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Payers {
    /// The filter itself; none if it is only shared: of that each member counts.
    filter: Option<Holder>,
    /// Its levels, if it has wildcards.
    levels: Option<Holder>,
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
    /// By name.
    groups: BTreeMap<Box<str>, Group>,
}

/// One subscriber mostly, or as many as there are devices.
#[derive(Default)]
enum Members {
    #[default]
    None,
    One(Member),
    /// By the number of the session.
    Many(BTreeMap<u64, Member>),
}

struct Member {
    session: Arc<Session>,
    options: Options,
    /// The change of the tree with which it came.
    since: u64,
}

struct Group {
    shared: Arc<Shared>,
    /// By the number of the session.
    members: BTreeMap<u64, (Arc<Session>, Options)>,
    /// The number at which the next one is looked for.
    next: AtomicU64,
    /// One that was connected when it was looked at last.
    connected: AtomicU64,
}

impl Tree {
    /// Adds a subscription, or changes its options.
    ///
    /// # Errors
    /// There is no room for another filter; nothing has changed.
    pub(super) fn insert(
        &mut self,
        filter: &str,
        session: &Arc<Session>,
        options: Options,
        ledger: &mut impl Ledger,
    ) -> Result<(), OverShare> {
        let shared = topic::parse_shared(filter);
        let inner = shared.map_or(filter, |shared| shared.filter);
        let there = self.at(inner);
        let before = there.map(Subscribers::payers).unwrap_or_default();
        let is_new = match shared {
            Some(shared) => !there.is_some_and(|there| there.has_member(shared.group, session)),
            None => before.filter.is_none(),
        };
        let new_levels = if before.levels.is_none() { wild_levels(inner) } else { 0 };
        let new_filters = if is_new { places(inner) } else { 0 };
        let new = InTree { filters: new_filters, levels: new_levels };
        if new != InTree::default() {
            ledger.take(session.holder(), new)?;
        }
        let subscribers = if is_wild(inner) {
            self.wild.at_or_made(inner, &mut self.levels)
        } else {
            self.exact.entry(inner.into()).or_default()
        };
        match shared {
            Some(shared) => subscribers.join(shared, session, options),
            None => {
                self.changes += 1;
                let (session, since) = (session.clone(), self.changes);
                subscribers.members.insert(Member { session, options, since });
            }
        }
        let after = subscribers.payers();
        // Who has it longer pays from now on.
        let filter = before.filter.map(|before| (Some(before), after.filter));
        let levels = before.levels.map(|before| (Some(before), after.levels));
        pass_on(inner, filter.unwrap_or_default(), levels.unwrap_or_default(), ledger);
        Ok(())
    }

    /// Removes a subscription, if it is there.
    pub(super) fn remove(&mut self, filter: &str, session: &Session, ledger: &mut impl Ledger) {
        let shared = topic::parse_shared(filter);
        let inner = shared.map_or(filter, |shared| shared.filter);
        let mut leave = |subscribers: &mut Subscribers| {
            let before = subscribers.payers();
            match shared {
                Some(shared) if subscribers.leave(shared.group, session) => {
                    let gone = InTree { filters: places(inner), levels: 0 };
                    ledger.give_back(session.holder(), gone);
                }
                Some(_) => {}
                None => subscribers.members.remove(session.number()),
            }
            let after = subscribers.payers();
            let (filter, levels) = ((before.filter, after.filter), (before.levels, after.levels));
            pass_on(inner, filter, levels, ledger);
        };
        if is_wild(inner) {
            let mut levels = inner.split('/');
            self.wild.remove(&mut levels, &mut self.levels, leave);
        } else if let Some(subscribers) = self.exact.get_mut(inner) {
            leave(subscribers);
            if subscribers.is_empty() {
                self.exact.remove(inner);
            }
        }
    }

    /// Those of a filter, if there are any.
    fn at(&self, filter: &str) -> Option<&Subscribers> {
        if is_wild(filter) { self.wild.at(filter) } else { self.exact.get(filter) }
    }

    /// Collects who gets a message with this topic; each once, and once more for each shared
    /// subscription.
    pub(super) fn collect(&self, name: &str, page: &Page, matches: &mut Matches) -> Collected {
        let mut visit = Visit { page, next: None, filters: 0, levels: 0 };
        if let Some(subscribers) = self.exact.get(name) {
            subscribers.collect(&mut visit, matches);
        }
        if self.levels > 0 {
            match name.split_once('/') {
                // No wildcard stands for such a first level ([MQTT-4.7.2-1]).
                Some((first, rest)) if first.starts_with('$') => {
                    if let Some(node) = self.wild.levels.get(first) {
                        node.collect(rest, matches, &mut visit);
                    }
                }
                None if name.starts_with('$') => {}
                _ => self.wild.collect(name, matches, &mut visit),
            }
        }
        let next = visit.next;
        if let Some(next) = next {
            // Those behind it may be in the next page of another filter, too.
            matches.retain(|found| found.shared.is_some() || found.session.number() < next);
        }
        if visit.filters > 1 && matches.len() > 1 {
            merge(matches);
        }
        Collected { next, levels: visit.levels }
    }

    /// Whether a topic that does not begin with `$` falls under any filter.
    pub(super) fn has(&self, name: &str) -> bool {
        self.exact.contains_key(name) || self.wild.has(name)
    }

    /// A page of those who are subscribed now.
    pub(super) const fn first_page(&self, from: Option<u64>) -> Page {
        Page { from, first: 0, has_shared: true, at: self.changes }
    }

    /// Whether a session may have another shared subscription, if it is one.
    pub(super) fn may_join(&self, filter: &str) -> bool {
        let Some(shared) = topic::parse_shared(filter) else { return true };
        self.at(shared.filter).is_none_or(|subscribers| {
            subscribers.groups.len() < limits::GROUPS_MAX
                || subscribers.groups.contains_key(shared.group)
        })
    }

    /// Another member of a shared subscription.
    pub(super) fn other_member(&self, shared: &Shared, than: u64) -> Option<Match> {
        let groups = &self.at(&shared.filter)?.groups;
        groups.get(&shared.group)?.choose(Some(than))
    }
}

/// Which of those who get a message are collected: [`limits::FAN_OUT_STEP`] of each filter, in the
/// order of their sessions, so that the list of a message for many takes little memory.
#[derive(Clone, Copy, Default)]
pub(super) struct Page {
    /// The session of the publisher, for No Local.
    from: Option<u64>,
    /// The number of the first session.
    first: u64,
    /// Whether shared subscriptions are in the page, too.
    has_shared: bool,
    /// Who subscribed later does not get it.
    at: u64,
}

impl Page {
    /// Another page, from a session on.
    pub(super) const fn at_session(self, first: u64) -> Self {
        Self { first, has_shared: false, ..self }
    }
}

/// What there was to collect.
pub(super) struct Collected {
    /// The first session of the next page, if there is one.
    pub(super) next: Option<u64>,
    /// Levels of filters with wildcards that had to be looked at.
    pub(super) levels: usize,
}

/// A walk through the filters for one page.
struct Visit<'p> {
    page: &'p Page,
    /// The first session that is in no filter's page.
    next: Option<u64>,
    /// Filters that matched.
    filters: usize,
    /// Levels that were looked at.
    levels: usize,
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// What the levels of a filter count: each of them, even if others begin in the same way. Who has
/// which is the same then whatever others do.
fn wild_levels(filter: &str) -> u64 {
    if is_wild(filter) { filter.split('/').count() as u64 } else { 0 }
}

/// Counts a filter, and its levels, for another one than before, or for nobody any more.
fn pass_on(
    filter: &str,
    (before, after): (Option<Holder>, Option<Holder>),
    (levels_before, levels_after): (Option<Holder>, Option<Holder>),
    ledger: &mut impl Ledger,
) {
    let one = InTree { filters: places(filter), levels: 0 };
    let levels = InTree { filters: 0, levels: wild_levels(filter) };
    for (before, after, amount) in [(before, after, one), (levels_before, levels_after, levels)] {
        if before != after && amount != InTree::default() {
            before.inspect(|before| ledger.give_back(*before, amount));
            after.inspect(|after| ledger.hold(*after, amount));
        }
    }
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
        mut leave: impl FnMut(&mut Subscribers),
    ) {
        match levels.next() {
            None => leave(&mut self.here),
            Some("#") => {
                let was_empty = self.below.is_empty();
                leave(&mut self.below);
                *count -= usize::from(!was_empty && self.below.is_empty());
            }
            Some("+") => {
                let Some(node) = &mut self.plus else { return };
                node.remove(levels, count, leave);
                if node.is_empty() {
                    self.plus = None;
                    *count -= 1;
                }
            }
            Some(level) => {
                let Some(node) = self.levels.get_mut(level) else { return };
                node.remove(levels, count, leave);
                if node.is_empty() {
                    self.levels.remove(level);
                    *count -= 1;
                }
            }
        }
    }

    /// `rest`: the levels of the topic that are not passed yet.
    fn has(&self, rest: &str) -> bool {
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let is_in = |node: &Self| match rest {
            None => !node.here.is_empty() || !node.below.is_empty(),
            Some(rest) => node.has(rest),
        };
        let next = [self.levels.get(level), self.plus.as_deref()];
        !self.below.is_empty() || next.into_iter().flatten().any(is_in)
    }

    /// `rest`: the levels of the topic that are not passed yet.
    fn collect(&self, rest: &str, matches: &mut Matches, visit: &mut Visit<'_>) {
        visit.levels += 1;
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let mut found = |subscribers: &Subscribers| {
            if !subscribers.is_empty() {
                subscribers.collect(visit, matches);
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

    /// For whom it is counted that they are there.
    fn payers(&self) -> Payers {
        let filter = self.members.first().map(|session| session.holder());
        let of_group = || {
            let (_, group) = self.groups.first_key_value()?;
            group.members.first_key_value().map(|(_, (session, _))| session.holder())
        };
        Payers { filter, levels: filter.or_else(of_group) }
    }

    fn has_member(&self, group: &str, session: &Session) -> bool {
        self.groups.get(group).is_some_and(|group| group.members.contains_key(&session.number()))
    }

    fn join(&mut self, shared: topic::Shared<'_>, session: &Arc<Session>, options: Options) {
        let made = || {
            let shared = Shared { group: shared.group.into(), filter: shared.filter.into() };
            let (shared, [next, connected]) = (Arc::new(shared), [0, 0].map(AtomicU64::new));
            Group { shared, members: BTreeMap::new(), next, connected }
        };
        let group = self.groups.entry(shared.group.into()).or_insert_with(made);
        group.members.insert(session.number(), (session.clone(), options));
    }

    /// Whether it was a member.
    fn leave(&mut self, group: &str, session: &Session) -> bool {
        let Some(of_name) = self.groups.get_mut(group) else { return false };
        let gone = of_name.members.remove(&session.number()).is_some();
        if of_name.members.is_empty() {
            self.groups.remove(group);
        }
        gone
    }

    fn collect(&self, visit: &mut Visit<'_>, matches: &mut Matches) {
        visit.filters += 1;
        let page = visit.page;
        match &self.members {
            Members::None => {}
            Members::One(member) => matches.extend(member.found(page)),
            Members::Many(members) => {
                let mut members = members.range(page.first..);
                let some = members.by_ref().take(limits::FAN_OUT_STEP);
                matches.extend(some.filter_map(|(_, member)| member.found(page)));
                if let Some((next, _)) = members.next() {
                    visit.next = Some(visit.next.map_or(*next, |first| first.min(*next)));
                }
            }
        }
        if page.has_shared {
            matches.extend(self.groups.values().filter_map(|group| group.choose(None)));
        }
    }
}

impl Member {
    /// In the place of what the session had. With another QoS it begins anew: a message that is on its
    /// way may have come by the one, and would come by the other again.
    fn after(self, held: &Self) -> Self {
        let is_like = self.options.qos == held.options.qos;
        Self { since: if is_like { held.since } else { self.since }, ..self }
    }

    fn found(&self, page: &Page) -> Option<Match> {
        let Self { session, options, .. } = self;
        let own = options.no_local && page.from == Some(session.number());
        let is_in = session.number() >= page.first && self.since <= page.at;
        (is_in && !own).then(|| Match::new(session, *options, None))
    }
}

impl Match {
    /// Whether this message is kept for it.
    pub(super) fn is_kept(&self, message: &Message) -> bool {
        self.session.is_kept() && self.qos.min(message.qos) > QoS::AtMostOnce
    }

    fn new(session: &Arc<Session>, options: Options, shared: Option<Arc<Shared>>) -> Self {
        Self {
            session: session.clone(),
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            ids: options.id.map(NonZeroU32::get).into_iter().collect(),
            shared,
        }
    }
}

impl Members {
    /// The one that is there longest.
    fn first(&self) -> Option<&Arc<Session>> {
        match self {
            Self::None => None,
            Self::One(member) => Some(&member.session),
            Self::Many(members) => members.values().next().map(|member| &member.session),
        }
    }

    /// Adds one, or changes its options.
    fn insert(&mut self, new: Member) {
        match std::mem::take(self) {
            Self::None => *self = Self::One(new),
            Self::One(held) if Arc::ptr_eq(&held.session, &new.session) => {
                *self = Self::One(new.after(&held));
            }
            Self::One(held) => {
                let by_number = |member: Member| (member.session.number(), member);
                *self = Self::Many([held, new].map(by_number).into());
            }
            Self::Many(mut members) => {
                let new = match members.get(&new.session.number()) {
                    Some(held) => new.after(held),
                    None => new,
                };
                members.insert(new.session.number(), new);
                *self = Self::Many(members);
            }
        }
    }

    fn remove(&mut self, number: u64) {
        match self {
            Self::One(member) if member.session.number() == number => *self = Self::None,
            Self::Many(members) => {
                members.remove(&number);
                if members.is_empty() {
                    *self = Self::None;
                }
            }
            Self::None | Self::One(_) => {}
        }
    }
}

impl Group {
    /// The next member that is connected and keeps up, else one that is connected, else any. Of many
    /// that are away only some are looked at, the next time those behind them.
    fn choose(&self, not: Option<u64>) -> Option<Match> {
        let is_other = |(number, _): &(&u64, _)| not != Some(**number);
        let first = self.next.load(Ordering::Relaxed);
        let turns = self.members.range(first..).chain(self.members.range(..first));
        let (mut connected, mut any, mut last) = (None, None, first);
        for (number, member) in turns.filter(is_other).take(limits::MEMBERS_LOOKED_AT) {
            last = *number + 1;
            match (member.0.is_connected(), member.0.is_crowded()) {
                (true, false) => {
                    connected = Some(member);
                    break;
                }
                (true, true) => connected = connected.or(Some(member)),
                (false, _) => any = any.or(Some(member)),
            }
        }
        if let Some((session, _)) = connected.or(any)
            && self.members.len() <= limits::MEMBERS_LOOKED_AT
        {
            // All of them were looked at.
            last = session.number() + 1;
        }
        self.next.store(last, Ordering::Relaxed);
        let known = || {
            let number = self.connected.load(Ordering::Relaxed);
            let known = self.members.get_key_value(&number).filter(is_other);
            known.map(|(_, member)| member).filter(|member| member.0.is_connected())
        };
        connected = connected.or_else(known);
        if let Some((session, _)) = connected {
            self.connected.store(session.number(), Ordering::Relaxed);
        }
        connected.or(any).map(|member| self.found(member))
    }

    fn found(&self, (session, options): &(Arc<Session>, Options)) -> Match {
        Match::new(session, *options, Some(self.shared.clone()))
    }
}

#[cfg(test)]
mod tests {
    use base::limits as bounds;
    use base::pool::{Pool, Whose};
    use proptest::prelude::*;
    use rules::directory::Outbox;

    use super::super::shares::BrokerShares;
    use super::*;

    const OPTIONS: Options =
        Options { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, id: None };

    fn matching(tree: &Tree, name: &str, from: Option<u64>) -> Vec<(u64, Vec<u32>)> {
        let mut matches = Matches::new();
        let page = tree.first_page(from);
        assert_eq!(tree.collect(name, &page, &mut matches).next, None);
        let mut found: Vec<_> =
            matches.iter().map(|found| (found.session.number(), found.ids.to_vec())).collect();
        found.sort();
        found
    }

    /// Of a user each, and where it is counted what they have.
    fn sessions(count: u64) -> (Vec<Arc<Session>>, Arc<BrokerShares>) {
        let shares = Arc::default();
        let session = |number| Arc::new(Session::for_tests(number, number as u8, &shares));
        ((0..count).map(session).collect(), shares)
    }

    #[test]
    fn who_subscribed_twice_gets_a_message_once_with_all_identifiers() {
        let mut tree = Tree::default();
        let (sessions, shares) = sessions(2);
        for (id, filter) in [(1, "a/b"), (2, "a/+"), (3, "#"), (4, "a/b/#"), (5, "a/c")] {
            let options = Options { id: NonZeroU32::new(id), ..OPTIONS };
            assert_eq!(tree.insert(filter, &sessions[0], options, &mut &*shares), Ok(()));
        }
        assert_eq!(tree.insert("$share/g/a/#", &sessions[0], OPTIONS, &mut &*shares), Ok(()));
        let own = Options { no_local: true, ..OPTIONS };
        assert_eq!(tree.insert("a/b", &sessions[1], own, &mut &*shares), Ok(()));
        let mut found = matching(&tree, "a/b", None);
        found.iter_mut().for_each(|(_, ids)| ids.sort_unstable());
        assert_eq!(found, [(0, vec![]), (0, vec![1, 2, 3, 4]), (1, vec![])]);
        assert_eq!(matching(&tree, "a/b", Some(1)).len(), 2);
        assert_eq!(matching(&tree, "$x/b", None), []);
        assert_eq!(shares.in_trees().filters, 6);
    }

    #[test]
    fn members_of_a_group_take_turns() {
        let mut tree = Tree::default();
        let (sessions, shares) = sessions(3);
        for session in &sessions {
            assert_eq!(tree.insert("$share/g/a/+", session, OPTIONS, &mut &*shares), Ok(()));
        }
        let turns: Vec<_> = (0..4).flat_map(|_| matching(&tree, "a/b", None)).collect();
        assert_eq!(turns.iter().map(|turn| turn.0).collect::<Vec<_>>(), [0, 1, 2, 0]);
        let mut matches = Matches::new();
        tree.collect("a/b", &tree.first_page(None), &mut matches);
        let shared = matches[0].shared.clone().expect("a group");
        for _ in 0..3 {
            let other = tree.other_member(&shared, 1).expect("there are others");
            assert_ne!(other.session.number(), 1);
        }
        for session in &sessions {
            tree.remove("$share/g/a/+", session, &mut &*shares);
        }
        assert!(tree.wild.is_empty() && tree.other_member(&shared, 1).is_none());
    }

    #[test]
    fn of_many_only_some_are_collected_at_once_and_each_once() {
        let mut tree = Tree::default();
        let count = 3 * limits::FAN_OUT_STEP as u64;
        let (sessions, shares) = sessions(count + 1);
        let (later, there) = sessions.split_last().expect("more than one");
        let add = |tree: &mut Tree, filter: &str, session| {
            assert_eq!(tree.insert(filter, session, OPTIONS, &mut &*shares), Ok(()));
        };
        for session in there {
            add(&mut tree, "a/+", session);
            // Of another filter the page reaches further.
            if session.number() % 2 == 0 {
                add(&mut tree, "a/b", session);
            }
        }
        add(&mut tree, "$share/g/a/b", &sessions[0]);
        let mut page = tree.first_page(Some(1));
        add(&mut tree, "a/+", later);
        let (mut found, mut shared) = (Vec::new(), 0);
        loop {
            let mut matches = Matches::new();
            let collected = tree.collect("a/b", &page, &mut matches);
            assert!(matches.len() <= limits::FAN_OUT_STEP + 1, "{}", matches.len());
            shared += matches.iter().filter(|found| found.shared.is_some()).count();
            let own = matches.iter().filter(|found| found.shared.is_none());
            found.extend(own.map(|found| found.session.number()));
            let Some(next) = collected.next else { break };
            page = page.at_session(next);
        }
        assert_eq!((found, shared), ((0..count).collect(), 1));
    }

    #[test]
    fn of_a_group_whose_members_are_away_one_that_is_there_is_found() {
        let mut tree = Tree::default();
        let count = 4 * limits::MEMBERS_LOOKED_AT as u64;
        let (sessions, shares) = sessions(count);
        for session in &sessions {
            assert_eq!(tree.insert("$share/g/a", session, OPTIONS, &mut &*shares), Ok(()));
        }
        let there = sessions.last().expect("one");
        drop(there.attach(Arc::new(Outbox::new(true)), 1));
        let chosen: Vec<_> = (0..8).map(|_| matching(&tree, "a", None)[0].0).collect();
        // Until it is met.
        assert_eq!(chosen.iter().filter(|number| **number == there.number()).count(), 5);
        for session in sessions.iter().take(3) {
            assert_eq!(tree.insert("$share/g/b", session, OPTIONS, &mut &*shares), Ok(()));
            drop(session.attach(Arc::new(Outbox::new(true)), 1));
            session.crowd_for_tests();
        }
        let few = [(); 4].map(|()| matching(&tree, "b", None)[0].0);
        assert_eq!(few, [0, 1, 2, 0], "none of them keeps up");
        let shared = Shared { group: "g".into(), filter: "a".into() };
        assert!(tree.other_member(&shared, there.number()).is_some());
    }

    #[test]
    fn wildcards_have_a_bound_and_nobody_takes_all_of_them() {
        let mut tree = Tree::default();
        let (sessions, shares) = sessions(2);
        let mut fill = |session: &Arc<Session>, prefix: &str| {
            let filter = |number| format!("{prefix}/+/{number}{}", "/x".repeat(97));
            (0..).find_map(|number| {
                let ledger = &mut &*shares;
                tree.insert(&filter(number), session, OPTIONS, ledger)
                    .err()
                    .map(|over| (number, over))
            })
        };
        let over = |whose| OverShare { pool: Pool::WildcardLevels, whose };
        let max = bounds::ORG_WILDCARD_LEVELS_MAX;
        let first = fill(&sessions[0], "a").expect("a bound");
        assert_eq!(first, ((max - max / 16) / 100, over(Whose::Principal)));
        let second = fill(&sessions[1], "b").expect("a bound");
        assert_eq!((second.0 > 90, second.1), (true, over(Whose::Org)));
        assert_eq!(tree.insert("a", &sessions[0], OPTIONS, &mut &*shares), Ok(()));
    }

    #[test]
    fn who_has_a_filter_longest_pays_for_it() {
        let mut tree = Tree::default();
        let (sessions, shares) = sessions(3);
        let check = |held: &[(u64, u64)]| {
            let of = |session: &Arc<Session>| shares.in_trees_of(session.holder());
            let found: Vec<_> = sessions.iter().map(|s| (of(s).filters, of(s).levels)).collect();
            assert_eq!(found, held);
        };
        let steps = [
            ("a/+", 1, true, [(0, 0), (1, 2), (0, 0)]),
            ("a/+", 2, true, [(0, 0), (1, 2), (0, 0)]),
            ("a/+", 0, true, [(1, 2), (0, 0), (0, 0)]),
            ("$share/g/a/+", 2, true, [(1, 2), (0, 0), (1, 0)]),
            ("a/+", 0, false, [(0, 0), (1, 2), (1, 0)]),
            ("a/+", 1, false, [(0, 0), (0, 0), (2, 2)]),
            ("a/+", 2, false, [(0, 0), (0, 0), (1, 2)]),
            ("a/+", 2, false, [(0, 0), (0, 0), (1, 2)]),
            ("$share/g/a/+", 2, false, [(0, 0), (0, 0), (0, 0)]),
        ];
        for (filter, session, adds, expected) in steps {
            let session = &sessions[session];
            if adds {
                assert_eq!(tree.insert(filter, session, OPTIONS, &mut &*shares), Ok(()));
            } else {
                tree.remove(filter, session, &mut &*shares);
            }
            check(&expected);
        }
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
            let (sessions, shares) = sessions(3);
            let mut tree = Tree::default();
            let mut model: Vec<(String, u64)> = Vec::new();
            for (filter, session, add) in steps {
                let known = model.iter().position(|(f, s)| *f == filter && *s == session);
                let subscriber = &sessions[session as usize];
                if add {
                    let inserted = tree.insert(&filter, subscriber, OPTIONS, &mut &*shares);
                    prop_assert_eq!(inserted, Ok(()));
                    if known.is_none() {
                        model.push((filter, session));
                    }
                } else {
                    tree.remove(&filter, subscriber, &mut &*shares);
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
            prop_assert_eq!(tree.has(&name), !expected.is_empty());
            let found: Vec<_> =
                matching(&tree, &name, None).into_iter().map(|(number, _)| number).collect();
            prop_assert_eq!(found, expected);
            let mut filters: Vec<_> = model.iter().map(|(filter, _)| filter).collect();
            filters.sort();
            filters.dedup();
            let levels = filters.iter().map(|filter| wild_levels(filter)).sum();
            prop_assert_eq!(shares.in_trees(), InTree { filters: filters.len() as u64, levels });
            for (filter, session) in &model {
                tree.remove(filter, &sessions[*session as usize], &mut &*shares);
            }
            prop_assert!(tree.wild.is_empty() && tree.exact.is_empty());
            prop_assert_eq!((shares.in_trees(), tree.levels), (InTree::default(), 0));
        }
    }
}
