//! Listings of an organisation's sessions: which ones, in which order, which page of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base::{Protocol, ThingDefId, ThingId, Timestamp, limits};

use super::facets::Wanted;
use super::hot::Hot;
use super::roster::{Roster, short_hash};
use super::session::{Kind, Lifetime, Principal, Reason, Session, Status, Who};
use super::siblings::Siblings;
use super::text::{AddressPrefix, Pattern, Words};
use super::{Directory, OrgId};

mod matching;
mod pages;
mod search;
#[cfg(test)]
mod tests;

use search::{Place, Search, Source};

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

    fn life(&self) -> Life {
        let before = |time: Option<Timestamp>| time.unwrap_or(Timestamp::NEVER).as_millis();
        Life {
            seen_after: self.seen_after.map_or(i64::MIN, Timestamp::as_millis),
            seen_before: before(self.seen_before),
            idle_since: before(self.idle_since),
        }
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
            && self.life().has(session.hot.hot())
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

/// What a filter asks of the counters.
#[derive(Clone, Copy)]
struct Life {
    seen_after: i64,
    seen_before: i64,
    idle_since: i64,
}

impl Life {
    /// Whether these are so: many are looked at, so all are compared.
    #[inline]
    fn has(&self, hot: &Hot) -> bool {
        let (seen, used) = (hot.last_active.load(Relaxed), hot.last_accessed.load(Relaxed));
        (seen > self.seen_after) & (seen < self.seen_before) & (used < self.idle_since)
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
        // By number: those that are given out are the smallest that are free.
        let (mut all, mut counts) = (0, Vec::<usize>::new());
        if let Some(search) = self.search(org, filter, SortKey::StartTime) {
            search.visit(|session, place| {
                let facets = match place {
                    Place::Ordered(found) => found.facets(),
                    _ => session.facets(),
                };
                let number = match by {
                    GroupBy::Protocol => facets.protocol(),
                    GroupBy::Reason => facets.reason(),
                    GroupBy::Application => facets.application() as usize,
                    GroupBy::Definition => facets.definition() as usize,
                };
                all += 1;
                if number >= counts.len() {
                    counts.resize(number + 1, 0);
                }
                counts[number] += 1;
            });
        }
        let mut groups = BTreeMap::<Common, usize>::new();
        for (number, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            *groups.entry(self.common(by, number as u32)).or_default() += count;
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
        let before = self.history.lock().next_number();
        let mut ended_meanwhile = None;
        if let (true, Some(principal)) = (live, &filter.principal) {
            sources.push(Source::List(self.of_principal(principal)));
        } else if live && let Some(roster) = self.by_org.get(&org).map(|r| r.value().clone()) {
            sources.push(source(&roster.read(), false));
        }
        if ended {
            let history = self.history.lock();
            ended_meanwhile = (live && history.next_number() > before).then_some(before);
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
        let life = filter.life();
        Some(Search {
            org,
            filter,
            wanted,
            is_deep,
            sources,
            hot,
            client_id,
            life,
            ended_meanwhile,
        })
    }
}

impl Session {
    /// Whether a connection that is open holds it.
    pub fn is_connected(&self) -> bool {
        self.lifetime() == Lifetime::Connection && self.end.get().is_none()
    }
}
