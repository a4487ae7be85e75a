//! Listings of an organisation's sessions: which ones, in which order, which page of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base::{Protocol, ThingDefId, ThingId, Timestamp, limits};

use super::facets::Wanted;
use super::hot::{Hot, HotView};
use super::roster::{Chunks, Entry, Named, Roster, short_hash};
use super::session::{Kind, Lifetime, Principal, Reason, Session, Status, Who};
use super::siblings::Siblings;
use super::text::{AddressPrefix, Pattern, Words};
use super::{Directory, OrgId};

#[cfg(test)]
mod tests;

/// What a listing is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SortKey {
    /// The start, which is the order of the directory.
    #[default]
    StartTime,
    /// The last command.
    LastAccessed,
    /// The last sign of life.
    LastSeen,
    /// The number of commands.
    CommandCount,
    /// E-mail address or thing key.
    WhoAmI,
    /// The end; those that live come behind all others.
    EndTime,
}

/// A question to the directory about one organisation.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Sessions to leave out at the beginning.
    pub offset: usize,
    /// Sessions to return at most.
    pub limit: usize,
    /// What to sort by.
    pub sort: SortKey,
    /// Smallest first; otherwise greatest (newest) first.
    pub ascending: bool,
    /// Which ones.
    pub filter: Filter,
}

/// Which sessions a listing shows; what is none is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this login.
    pub principal: Option<Principal>,
    /// Of users or of applications.
    pub kind: Option<Kind>,
    /// Of applications with this name, without regard to case.
    pub app_name: Option<String>,
    /// That arrive by this protocol.
    pub protocol: Option<Protocol>,
    /// Whose peer's `ip:port` begins so.
    pub remote_addr: Option<AddressPrefix>,
    /// That started after this time.
    pub started_after: Option<Timestamp>,
    /// That started before this time.
    pub started_before: Option<Timestamp>,
    /// With one of these statuses; none means the live ones.
    pub status: Option<Vec<Status>>,
    /// That ended for one of these reasons.
    pub end_reasons: Option<Vec<Reason>>,
    /// That ended after this time.
    pub ended_after: Option<Timestamp>,
    /// That ended before this time.
    pub ended_before: Option<Timestamp>,
    /// Whether a connection that is open holds it.
    pub connected: Option<bool>,
    /// Whose e-mail address or thing key is so.
    pub who: Vec<Pattern>,
    /// In whose names and address these words occur.
    pub words: Words,
    /// With this client id or application id.
    pub client_id: Option<String>,
    /// Of things with this definition.
    pub definition: Option<ThingDefId>,
    /// Of these things.
    pub things: Option<HashSet<ThingId>>,
    /// With a sign of life after this time.
    pub seen_after: Option<Timestamp>,
    /// Without a sign of life since this time.
    pub seen_before: Option<Timestamp>,
    /// Without a command since this time.
    pub idle_since: Option<Timestamp>,
    /// That lived at this time, whatever became of them: right if [`Directory::remembers`] it.
    pub lived_at: Option<Timestamp>,
}

/// The answer to a [`Query`].
#[derive(Debug)]
pub struct Listing {
    /// How many sessions there are in all pages together.
    pub count: usize,
    /// The page.
    pub sessions: Vec<Arc<Session>>,
}

impl Query {
    /// Whether it asks for a page in the directory's own order, which costs the page and not the
    /// organisation.
    pub fn is_page(&self) -> bool {
        self.filter.is_empty() && self.sort == SortKey::StartTime
    }
}

/// Those that live, among the reasons for an end.
const LIVE: u16 = 1;

/// All reasons for an end.
const ENDED: u16 = ((1 << Reason::ALL.len()) - 1) << 1;

impl Filter {
    fn is_empty(&self) -> bool {
        self.principal.is_none()
            && self.kind.is_none()
            && self.app_name.is_none()
            && self.protocol.is_none()
            && self.started_after.is_none()
            && self.started_before.is_none()
            && self.connected.is_none()
            && self.definition.is_none()
            && self.reasons() == LIVE
            && self.remote_addr.is_none()
            && self.client_id.is_none()
            && self.lived_at.is_none()
            && !self.asks_of_life()
            && !self.is_deep()
    }

    /// Whether it asks for more than what stands beside each session.
    fn is_deep(&self) -> bool {
        !self.who.is_empty() || !self.words.is_empty() || self.things.is_some()
    }

    /// Whether it asks for what changes with every command.
    const fn asks_of_life(&self) -> bool {
        self.seen_after.is_some() || self.seen_before.is_some() || self.idle_since.is_some()
    }

    fn matches_life(&self, hot: &Hot) -> bool {
        let (seen, used) = (hot.last_active.load(Relaxed), hot.last_accessed.load(Relaxed));
        self.seen_after.is_none_or(|after| seen > after.as_millis())
            && self.seen_before.is_none_or(|before| seen < before.as_millis())
            && self.idle_since.is_none_or(|since| used < since.as_millis())
    }

    /// Which ends it wants, bit by bit as the facets number them.
    fn reasons(&self) -> u16 {
        let of_status = |status: &Status| match status {
            Status::Active => LIVE,
            ended => {
                let has = |reason: &(usize, Reason)| reason.1.status() == *ended;
                let found = Reason::ALL.into_iter().enumerate().filter(has);
                found.fold(0, |bits, (index, _)| bits | 2 << index)
            }
        };
        let asks_of_end =
            self.end_reasons.is_some() || self.ended_after.is_some() || self.ended_before.is_some();
        let of_statuses = match &self.status {
            Some(statuses) => statuses.iter().fold(0, |bits, status| bits | of_status(status)),
            None if asks_of_end => ENDED,
            None if self.lived_at.is_some() => LIVE | ENDED,
            None => LIVE,
        };
        let of_reasons = match &self.end_reasons {
            Some(reasons) => reasons.iter().fold(0, |bits, reason| bits | 2 << *reason as u16),
            None if asks_of_end => ENDED,
            None => LIVE | ENDED,
        };
        let of_connections = match self.connected {
            // No connection of an ended session is open.
            Some(true) if self.lived_at.is_none() => LIVE,
            _ => LIVE | ENDED,
        };
        of_statuses & of_reasons & of_connections
    }

    /// Whether a session passes that lived at some time and is in no index. All of those were
    /// active: the statuses that are asked for say nothing.
    pub fn admits(&self, session: &Session) -> bool {
        let end = session.end();
        let connected = session.lifetime() == Lifetime::Connection;
        let application = || match session.who() {
            Who::Application { application, .. } => Some(&application.name),
            Who::User(_) => None,
        };
        let reasons = self.end_reasons.as_deref();
        reasons.is_none_or(|reasons| end.is_some_and(|end| reasons.contains(&end.reason)))
            && self.kind.is_none_or(|kind| session.kind() == kind)
            && self.protocol.is_none_or(|protocol| session.conn().protocol == protocol)
            && self.connected.is_none_or(|wanted| wanted == connected)
            && self.definition.is_none_or(|id| session.with_context(|c| c.definition) == Some(id))
            && self.app_name.as_ref().is_none_or(|name| {
                application().is_some_and(|known| known.eq_ignore_ascii_case(name))
            })
            && self.matches_but_connected(session)
    }

    /// Whether a session passes what its facets do not say.
    fn matches(&self, session: &Session) -> bool {
        let connected = || match self.lived_at {
            Some(_) => session.lifetime() == Lifetime::Connection,
            None => session.is_connected(),
        };
        self.connected.is_none_or(|wanted| connected() == wanted)
            && self.matches_but_connected(session)
    }

    fn matches_but_connected(&self, session: &Session) -> bool {
        let started = session.started();
        let end = session.end.get().map(|end| end.at);
        self.started_after.is_none_or(|after| started > after)
            && self.started_before.is_none_or(|before| started < before)
            && self.ended_after.is_none_or(|after| end.is_some_and(|end| end > after))
            && self.ended_before.is_none_or(|before| end.is_some_and(|end| end < before))
            && self.lived_at.is_none_or(|at| started <= at && end.is_none_or(|end| end > at))
            && self.matches_life(session.hot.hot())
            && self
                .remote_addr
                .as_ref()
                .is_none_or(|prefix| prefix.begins(session.conn().remote_addr))
            && self.client_id.as_ref().is_none_or(|id| session.client_id() == id)
            && self.matches_who(session)
    }

    fn matches_who(&self, session: &Session) -> bool {
        let who = session.who();
        self.who.iter().all(|pattern| pattern.matches(who.name()))
            && self.things.as_ref().is_none_or(|things| match who {
                Who::Application { thing_id, .. } => things.contains(thing_id),
                Who::User(_) => false,
            })
            && self.principal.as_ref().is_none_or(|wanted| who.principal() == *wanted)
            && (self.words.is_empty() || self.words_occur(session))
    }

    fn words_occur(&self, session: &Session) -> bool {
        let address = session.conn().remote_addr.to_string();
        let application = match session.who() {
            Who::Application { application, .. } => application.name.as_str(),
            Who::User(_) => "",
        };
        self.words.occur_in(&[session.who().name(), application, &address])
    }

    /// The longest text with which every name begins.
    fn prefix(&self) -> Option<&str> {
        self.who.iter().map(Pattern::prefix).max_by_key(|prefix| prefix.len())
    }
}

/// Where sessions are looked for.
enum Source {
    /// In their order: of starts, or of ends.
    Ordered { entries: Chunks<Entry>, ended: bool },
    /// By name.
    Named { names: Chunks<Named>, ended: bool },
    /// These.
    List(Vec<Arc<Session>>),
}

/// A question with all that is looked up for it once.
struct Search<'a> {
    org: OrgId,
    filter: &'a Filter,
    wanted: Wanted,
    is_deep: bool,
    sources: Vec<Source>,
    hot: HotView,
    /// The client id that is asked for: its hash, and the applications whose sessions share it.
    client_id: Option<(&'a str, u16, Vec<u32>)>,
    /// Ended sessions from this number on may be among the live ones, too.
    ended_meanwhile: u64,
}

impl Search<'_> {
    /// Visits all that match, in the order of each source: the newest first, or by name the last,
    /// unless `forward`. What stands beside a session comes along where it is at hand.
    fn visit<'s>(
        &'s self,
        forward: bool,
        mut visit: impl FnMut(&'s Arc<Session>, Option<&'s Entry>),
    ) {
        for source in &self.sources {
            match source {
                Source::Ordered { entries, ended } => {
                    self.visit_ordered(entries, *ended, forward, &mut visit);
                }
                Source::Named { names, ended } => {
                    let all = self.takes_all_named(*ended);
                    let visit = |session: &'s Arc<Session>| {
                        let admits = || self.wanted.admits(session.facets());
                        if all || admits() && self.filter.matches(session) {
                            visit(session, None);
                        }
                    };
                    let found = names.with_prefix(self.filter.prefix().unwrap_or_default());
                    match forward {
                        true => found.map(|named| &named.session).for_each(visit),
                        false => backwards(found, visit),
                    }
                }
                Source::List(sessions) => {
                    let matches = |session: &&Arc<Session>| {
                        self.wanted.admits(session.facets())
                            && session.org_id() == self.org
                            && self.filter.matches(session)
                    };
                    let found = sessions.iter().rev().filter(matches);
                    found.for_each(|session| visit(session, None));
                }
            }
        }
    }

    fn visit_ordered<'s>(
        &self,
        entries: &'s Chunks<Entry>,
        ended: bool,
        forward: bool,
        mut visit: impl FnMut(&'s Arc<Session>, Option<&'s Entry>),
    ) {
        let filter = self.filter;
        let by_start = filter.started_after.is_some() || filter.started_before.is_some();
        let is_deep = self.is_deep || ended && by_start;
        let at = filter.lived_at;
        let (after, before) = match ended {
            true => (filter.ended_after.max(at), filter.ended_before),
            false => {
                let upto = at.map(|at| at.plus_millis(1));
                let before = filter.started_before.into_iter().chain(upto).min();
                (filter.started_after, before)
            }
        };
        let was_there =
            |entry: &Entry| at.is_none_or(|at| !ended || self.hot_of(entry).started() <= at);
        let look = |entry: &'s Entry| {
            if self.wanted.admits(entry.facets)
                && was_there(entry)
                && self.admits_beside(entry)
                && (!is_deep || filter.matches(&entry.session))
                && !(ended && self.is_listed_live(entry))
            {
                visit(&entry.session, Some(entry));
            }
        };
        let found = entries.between(after, before);
        if forward { found.for_each(look) } else { found.rev().for_each(look) }
    }

    /// Whether what stands beside a session is what is asked for.
    #[inline]
    fn admits_beside(&self, entry: &Entry) -> bool {
        let filter = self.filter;
        filter.remote_addr.as_ref().is_none_or(|prefix| entry.comes_from(prefix))
            && self.client_id.as_ref().is_none_or(|(id, hash, sharing)| {
                match entry.facets.shares_client_id() {
                    true => sharing.binary_search(&entry.facets.application()).is_ok(),
                    false => entry.has_client_id(id, *hash),
                }
            })
            && (!filter.asks_of_life() || filter.matches_life(self.hot_of(entry)))
    }

    #[inline]
    fn hot_of<'s>(&'s self, entry: &'s Entry) -> &'s Hot {
        self.hot.get(entry.hot).unwrap_or_else(|| entry.session.hot.hot())
    }

    /// Whether of a session that is found by its name nothing else is asked.
    fn takes_all_named(&self, ended: bool) -> bool {
        let filter = self.filter;
        let times = [filter.started_after, filter.started_before, filter.seen_after];
        let more = [filter.seen_before, filter.idle_since, filter.ended_after, filter.ended_before];
        self.wanted.is_all(if ended { ENDED } else { LIVE })
            && filter.who.len() < 2
            && filter.who.iter().all(Pattern::is_prefix)
            && times.iter().chain(&more).chain(&[filter.lived_at]).all(Option::is_none)
            && filter.remote_addr.is_none()
            && filter.client_id.is_none()
            && filter.things.is_none()
            && filter.words.is_empty()
    }

    /// Whether an ended session was taken among the live ones, too, having ended in between.
    fn is_listed_live(&self, entry: &Entry) -> bool {
        let live = |source: &Source| match source {
            Source::Ordered { entries, ended: false } => entries.has(entry.session.order()),
            _ => false,
        };
        entry.order.1 >= self.ended_meanwhile && self.sources.iter().any(live)
    }

    /// Whether the one source is in this order already.
    fn is_in_order(&self, sort: SortKey) -> bool {
        match (&self.sources[..], sort) {
            ([Source::Ordered { ended, .. }], SortKey::StartTime) => !ended,
            ([Source::Ordered { ended, .. }], SortKey::EndTime) => *ended,
            ([Source::Named { .. }], SortKey::WhoAmI) => true,
            _ => false,
        }
    }

    /// A page of what is in order already.
    fn page(&self, query: &Query) -> Listing {
        let end = query.offset.saturating_add(query.limit);
        let (mut count, mut sessions) = (0, Vec::new());
        self.visit(query.ascending, |session, _| {
            if (query.offset..end).contains(&count) {
                sessions.push(session.clone());
            }
            count += 1;
        });
        Listing { count, sessions }
    }

    /// A page of what has to be sorted. The counters go on changing: each is read once.
    fn sorted<'s, K: Ord + Copy>(
        &'s self,
        query: &Query,
        key: impl Fn(&'s Arc<Session>, Option<&'s Entry>) -> K,
    ) -> Listing {
        let mut first = First::new(query.offset.saturating_add(query.limit), query.ascending);
        self.visit(false, |session, entry| first.add(key(session, entry), session));
        let (count, found) = first.into_sorted();
        let sessions = found.into_iter().skip(query.offset).cloned().collect();
        Listing { count, sessions }
    }

    /// The same, sorted by what changes with every command.
    fn sorted_by_life<'s, K: Ord + Copy>(
        &'s self,
        query: &Query,
        key: impl Fn(&'s Hot) -> K,
    ) -> Listing {
        self.sorted(query, |session, entry| {
            key(entry.map_or_else(|| session.hot.hot(), |entry| self.hot_of(entry)))
        })
    }

    fn listing(&self, query: &Query) -> Listing {
        if self.is_in_order(query.sort) {
            return self.page(query);
        }
        let end = |session: &Arc<Session>| session.end.get().map_or(Timestamp::NEVER, |e| e.at);
        match query.sort {
            SortKey::StartTime => self.sorted(query, |session, entry| {
                let hot = entry.map_or_else(|| session.hot.hot(), |entry| self.hot_of(entry));
                Started(hot.started(), session)
            }),
            SortKey::LastAccessed => {
                self.sorted_by_life(query, |hot| hot.last_accessed.load(Relaxed))
            }
            SortKey::LastSeen => self.sorted_by_life(query, |hot| hot.last_active.load(Relaxed)),
            SortKey::CommandCount => {
                self.sorted_by_life(query, |hot| hot.command_count.load(Relaxed))
            }
            SortKey::EndTime => self.sorted(query, |session, entry| match entry {
                Some(entry) if entry.facets.reason() == 0 => Timestamp::NEVER,
                Some(entry) => entry.order.0,
                None => end(session),
            }),
            SortKey::WhoAmI => self.sorted(query, |session, _| session.who().name()),
        }
    }
}

/// A start; of those in the same millisecond, the session tells which was first.
#[derive(Clone, Copy)]
struct Started<'s>(Timestamp, &'s Session);

impl PartialEq for Started<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Started<'_> {}

impl PartialOrd for Started<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Started<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0).then_with(|| self.1.serial.cmp(&other.1.serial))
    }
}

/// Visits sessions by name, the last first; of those with the same name, the newest first.
fn backwards<'a>(
    names: impl DoubleEndedIterator<Item = &'a Named>,
    mut visit: impl FnMut(&'a Arc<Session>),
) {
    let mut same: Vec<&Named> = Vec::new();
    for named in names.rev() {
        if same.first().is_some_and(|first| !first.has_name_of(named)) {
            same.drain(..).rev().for_each(|named| visit(&named.session));
        }
        same.push(named);
    }
    same.into_iter().rev().for_each(|named| visit(&named.session));
}

/// The first few of many in some order: no more of them are kept than twice as many.
struct First<'s, K> {
    max: usize,
    ascending: bool,
    count: usize,
    /// With the number in which each was added: of equals, the first come first.
    kept: Vec<(K, usize, &'s Arc<Session>)>,
    /// What is not in front of this is not among the first.
    last: Option<K>,
}

impl<'s, K: Ord + Copy> First<'s, K> {
    const fn new(max: usize, ascending: bool) -> Self {
        Self { max, ascending, count: 0, kept: Vec::new(), last: None }
    }

    fn compare(ascending: bool, a: &K, b: &K) -> Ordering {
        if ascending { a.cmp(b) } else { b.cmp(a) }
    }

    fn add(&mut self, key: K, session: &'s Arc<Session>) {
        let number = self.count;
        self.count += 1;
        let is_behind = |last: &K| Self::compare(self.ascending, &key, last).is_ge();
        if self.max == 0 || self.last.as_ref().is_some_and(is_behind) {
            return;
        }
        self.kept.push((key, number, session));
        if self.kept.len() >= self.max.saturating_mul(2).saturating_add(64) {
            self.cut();
        }
    }

    /// Lets go of all but the first.
    fn cut(&mut self) {
        let (ascending, max) = (self.ascending, self.max);
        if self.kept.len() > max && max > 0 {
            self.kept.select_nth_unstable_by(max - 1, |a, b| {
                Self::compare(ascending, &a.0, &b.0).then(a.1.cmp(&b.1))
            });
            self.kept.truncate(max);
            self.last = self.kept.last().map(|(key, ..)| *key);
        }
    }

    fn into_sorted(mut self) -> (usize, Vec<&'s Arc<Session>>) {
        self.cut();
        let ascending = self.ascending;
        self.kept.sort_unstable_by(|a, b| Self::compare(ascending, &a.0, &b.0).then(a.1.cmp(&b.1)));
        (self.count, self.kept.into_iter().map(|(.., session)| session).collect())
    }
}

/// By what sessions are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GroupBy {
    /// The protocol.
    Protocol,
    /// The application, by its name.
    Application,
    /// Why they ended.
    Reason,
    /// The definition of their things.
    Definition,
}

/// What the sessions of a group have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Common {
    /// A protocol, or why they ended, in the words of the wire.
    Word(&'static str),
    /// The name of their application.
    Application(Box<str>),
    /// The definition of their things.
    Definition(ThingDefId),
    /// That they have nothing of this.
    Nothing,
}

const PROTOCOLS: [Protocol; 8] = {
    use Protocol::{Http, Https, Mqtt, Mqtts, Tcp, Tcps, Ws, Wss};
    [Mqtt, Mqtts, Ws, Wss, Tcp, Tcps, Http, Https]
};

impl Directory {
    /// Lists sessions whose current organisation is `org`.
    ///
    /// Without filter and sort it costs the page, not the organisation. A filter by principal
    /// costs that principal's sessions. Any other question looks through the organisation, without
    /// a lock: [`Directory::is_long`] says whether that is much.
    pub fn list(&self, org: OrgId, query: &Query) -> Listing {
        if query.is_page() {
            return self.page(org, query);
        }
        match self.search(org, &query.filter, query.sort) {
            Some(search) => search.listing(query),
            None => Listing { count: 0, sessions: Vec::new() },
        }
    }

    /// Counts the sessions that match, by what they have in common; the largest group first.
    pub fn groups(
        &self,
        org: OrgId,
        filter: &Filter,
        by: GroupBy,
    ) -> (usize, Vec<(Common, usize)>) {
        let (mut all, mut counts) = (0, HashMap::<u32, usize>::new());
        if let Some(search) = self.search(org, filter, SortKey::StartTime) {
            // Mostly the same as the last one.
            let mut last = (0, 0);
            search.visit(false, |session, entry| {
                let facets = entry.map_or_else(|| session.facets(), |entry| entry.facets);
                let number = match by {
                    GroupBy::Protocol => facets.protocol() as u32,
                    GroupBy::Reason => facets.reason() as u32,
                    GroupBy::Application => facets.application(),
                    GroupBy::Definition => facets.definition(),
                };
                all += 1;
                if last.0 != number {
                    *counts.entry(last.0).or_default() += last.1;
                    last = (number, 0);
                }
                last.1 += 1;
            });
            *counts.entry(last.0).or_default() += last.1;
        }
        let mut groups = BTreeMap::<Common, usize>::new();
        for (number, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            *groups.entry(self.common(by, number)).or_default() += count;
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by(|(a, more), (b, fewer)| fewer.cmp(more).then(a.cmp(b)));
        (all, groups)
    }

    fn common(&self, by: GroupBy, number: u32) -> Common {
        let index = number as usize;
        match by {
            GroupBy::Protocol => PROTOCOLS.get(index).map(|found| Common::Word(found.as_str())),
            GroupBy::Reason => {
                let found = index.checked_sub(1).and_then(|index| Reason::ALL.get(index));
                found.map(|found| Common::Word(found.as_str()))
            }
            GroupBy::Application => {
                self.numbers.application_of(number).map(|(_, name)| Common::Application(name))
            }
            GroupBy::Definition => self.numbers.definition_of(number).map(Common::Definition),
        }
        .unwrap_or(Common::Nothing)
    }

    /// Whether everything that was in an organisation at a time is in memory still, and where it
    /// was: asked again behind a search, for what is there is forgotten meanwhile.
    pub fn remembers(&self, org: OrgId, at: Timestamp) -> bool {
        self.history.lock().remembers(org, at)
    }

    /// Whether an answer takes so long that it is looked for apart from connections.
    pub fn is_long(&self, org: OrgId, query: &Query) -> bool {
        let filter = &query.filter;
        if query.is_page() || filter.principal.is_some() {
            return false;
        }
        let reasons = filter.reasons();
        let live = if reasons & LIVE != 0 { self.count(org) } else { 0 };
        let ended = if reasons & ENDED != 0 { self.history.lock().count(org) } else { 0 };
        let by_prefix = filter.words.is_empty()
            && filter.things.is_none()
            && filter.who.iter().all(Pattern::is_prefix)
            && !filter.who.is_empty();
        let in_order = match query.sort {
            SortKey::StartTime | SortKey::WhoAmI => ended == 0,
            SortKey::EndTime => live == 0,
            _ => false,
        };
        let max = match in_order && (by_prefix || !filter.is_deep()) {
            true => limits::LISTED_FACETS_AT_ONCE_MAX,
            false => limits::LISTED_AT_ONCE_MAX,
        };
        live + ended > max
    }

    fn page(&self, org: OrgId, query: &Query) -> Listing {
        let Some(roster) = self.by_org.get(&org).map(|roster| roster.value().clone()) else {
            return Listing { count: 0, sessions: Vec::new() };
        };
        let roster = roster.read();
        let sessions = roster.page(!query.ascending, query.offset, query.limit);
        Listing { count: roster.len(), sessions }
    }

    /// What a filter asks of the facets; none if no session can pass.
    fn wanted(&self, filter: &Filter) -> Option<Wanted> {
        let mut wanted = Wanted::all();
        wanted.reasons(filter.reasons());
        filter.kind.into_iter().for_each(|kind| wanted.kind(kind));
        filter.protocol.into_iter().for_each(|protocol| wanted.protocol(protocol));
        match filter.connected {
            Some(bound) if filter.lived_at.is_some() => wanted.bound(bound),
            Some(true) => wanted.bound(true),
            // Those that have ended have no connection, whatever they had.
            Some(false) if filter.reasons() & ENDED == 0 => wanted.bound(false),
            _ => {}
        }
        if let Some(definition) = filter.definition {
            wanted.definition(self.numbers.definition(definition)?);
        }
        if let Some(name) = &filter.app_name {
            wanted.applications(self.numbers.applications(name));
        }
        Some(wanted)
    }

    fn search<'a>(&self, org: OrgId, filter: &'a Filter, sort: SortKey) -> Option<Search<'a>> {
        let wanted = self.wanted(filter)?;
        let (live, ended) = (wanted.has_reason(LIVE), wanted.has_reason(ENDED));
        let has_prefix = filter.prefix().is_some_and(|prefix| !prefix.is_empty());
        let by_name = live != ended && (has_prefix || sort == SortKey::WhoAmI);
        let source = |roster: &Roster, ended: bool| match by_name {
            true => Source::Named { names: roster.names(), ended },
            false => Source::Ordered { entries: roster.entries(), ended },
        };
        let mut sources = Vec::new();
        // In this order: what ends meanwhile is in both rather than in none.
        let ended_meanwhile = self.history.lock().next_number();
        if let (true, Some(principal)) = (live, &filter.principal) {
            sources.push(Source::List(self.of_principal(principal)));
        } else if live && let Some(roster) = self.by_org.get(&org).map(|r| r.value().clone()) {
            sources.push(source(&roster.read(), false));
        }
        if ended {
            let history = self.history.lock();
            if let Some(principal) = &filter.principal {
                let is_new = |session: &&Arc<Session>| match sources.first() {
                    Some(Source::List(live)) => !live.iter().any(|l| Arc::ptr_eq(l, session)),
                    _ => true,
                };
                let found = history.of_principal(principal).into_iter().flat_map(Siblings::iter);
                let found = found.filter(is_new).cloned().collect();
                sources.push(Source::List(found));
            } else if let Some(roster) = history.of_org(org) {
                sources.push(source(roster, true));
            }
        }
        let is_deep = filter.is_deep()
            || filter.connected == Some(false) && ended && filter.lived_at.is_none()
            || filter.principal.is_some();
        let hot = self.hot.view();
        let client_id = filter.client_id.as_deref();
        let client_id = client_id.map(|id| (id, short_hash(id), self.numbers.sharing(id)));
        Some(Search { org, filter, wanted, is_deep, sources, hot, client_id, ended_meanwhile })
    }
}

impl Session {
    /// Whether a connection that is open holds it.
    pub fn is_connected(&self) -> bool {
        self.lifetime() == Lifetime::Connection && self.end.get().is_none()
    }
}
