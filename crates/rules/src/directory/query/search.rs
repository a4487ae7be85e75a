//! The look through an organisation's sessions: which ones match, and a page of them in some order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base::{OrgId, Timestamp};

use super::super::chunks::{Chunks, Part};
use super::super::facets::Wanted;
use super::super::hot::{Hot, HotView};
use super::super::roster::{Entry, Found, Named};
use super::super::session::Session;
use super::super::text::Pattern;
use super::pages::{First, Page, Started, compare};
use super::{ENDED, Filter, LIVE, Listing, Query, SortKey};

/// Where sessions are looked for.
pub(super) enum Source {
    /// In their order: of starts, or of ends.
    Ordered { entries: Chunks<Entry>, ended: bool },
    /// By name.
    Named { names: Chunks<Named>, ended: bool },
    /// These.
    List(Vec<Arc<Session>>),
}

/// A question with all that is looked up for it once.
pub(super) struct Search<'a> {
    pub(super) org: OrgId,
    pub(super) filter: &'a Filter,
    pub(super) wanted: Wanted,
    pub(super) is_deep: bool,
    pub(super) sources: Vec<Source>,
    pub(super) hot: HotView,
    /// The client id that is asked for: its hash, and the applications whose sessions share it.
    pub(super) client_id: Option<(&'a str, u16, Vec<u32>)>,
    /// Ended sessions from this number on may be among the live ones, too; none: there are no such.
    pub(super) ended_meanwhile: Option<u64>,
}

/// Where a session was found, and what stands beside it there.
#[derive(Clone, Copy)]
pub(super) enum Place<'s> {
    /// In its order.
    Ordered(Found<'s>),
    /// By its name; when it started.
    Named(Timestamp),
    /// By itself.
    Alone,
}

impl Place<'_> {
    fn started(self, session: &Session) -> Timestamp {
        match self {
            Self::Ordered(found) => found.started(),
            Self::Named(started) => started,
            Self::Alone => session.started,
        }
    }
}

impl Search<'_> {
    /// Visits all that match, in the order of each source: the newest first, or by name the last,
    /// unless `forward`.
    pub(super) fn visit<'s>(
        &'s self,
        forward: bool,
        mut visit: impl FnMut(&'s Arc<Session>, Place<'s>),
    ) {
        for source in &self.sources {
            self.visit_source(source, forward, &mut visit);
        }
    }

    fn visit_source<'s>(
        &'s self,
        source: &'s Source,
        forward: bool,
        visit: &mut impl FnMut(&'s Arc<Session>, Place<'s>),
    ) {
        match source {
            Source::Ordered { entries, ended } => {
                let look = |part| {
                    self.visit_part(part, *ended, forward, |found| {
                        visit(found.session(), Place::Ordered(found));
                    });
                };
                let parts = self.parts(entries, *ended);
                if forward { parts.for_each(look) } else { parts.rev().for_each(look) }
            }
            Source::Named { names, ended } => {
                let all = self.takes_all_named(*ended);
                let mut visit = |(named, started): (&'s Named, &'s Timestamp)| {
                    let session = &named.session;
                    let admits = || self.wanted.admits(session.facets());
                    if all || admits() && self.filter.matches(session) {
                        visit(session, Place::Named(*started));
                    }
                    true
                };
                let mut found = self.named(names).flat_map(Named::each);
                if forward {
                    found.all(visit);
                } else {
                    backwards(found, &mut visit);
                }
            }
            Source::List(sessions) => {
                let matches = |session: &&Arc<Session>| {
                    self.wanted.admits(session.facets())
                        && session.org_id() == self.org
                        && self.filter.matches(session)
                };
                let found = sessions.iter().rev().filter(matches);
                found.for_each(|session| visit(session, Place::Alone));
            }
        }
    }

    /// The parts of the names that begin as it is asked.
    fn named<'s>(
        &'s self,
        names: &'s Chunks<Named>,
    ) -> impl DoubleEndedIterator<Item = Part<'s, Named>> {
        names.with_prefix(self.filter.prefix().unwrap_or_default())
    }

    /// The parts of an ordered source that the times of the filter leave.
    fn parts<'s>(
        &self,
        entries: &'s Chunks<Entry>,
        ended: bool,
    ) -> impl DoubleEndedIterator<Item = Part<'s, Entry>> + use<'s> {
        let filter = self.filter;
        let at = filter.lived_at;
        let (after, before) = match ended {
            true => (filter.ended_after.max(at), filter.ended_before),
            false => {
                let upto = at.map(|at| at.plus_millis(1));
                let before = filter.started_before.into_iter().chain(upto).min();
                (filter.started_after, before)
            }
        };
        entries.between(after, before)
    }

    fn visit_part<'s>(
        &self,
        part: Part<'s, Entry>,
        ended: bool,
        forward: bool,
        mut visit: impl FnMut(Found<'s>),
    ) {
        let is_plain = self.is_plain(ended);
        // Several are looked at in one step, and mostly all are wanted, or none.
        let wanted = self.count_wanted(&part, ended);
        if wanted == 0 {
            return;
        }
        let all = wanted == part.len();
        let look = |found: Found<'s>| {
            let admits = all || self.wanted.admits(found.facets());
            if admits && (is_plain || self.admits_rest(found, ended)) {
                visit(found);
            }
        };
        let found = Found::each(part);
        if forward { found.for_each(look) } else { found.rev().for_each(look) }
    }

    /// How many of these have the facets that are asked for.
    fn count_wanted(&self, part: &Part<'_, Entry>, ended: bool) -> usize {
        let facets = part.chunk.beside.facets.get(part.range.clone());
        self.wanted.count(facets.unwrap_or_default(), if ended { ENDED } else { LIVE })
    }

    /// Whether of a session of an ordered source, beside its time, nothing is asked but its facets.
    fn is_plain(&self, ended: bool) -> bool {
        let filter = self.filter;
        !self.is_deep_in(ended)
            && filter.remote_addr.is_none()
            && self.client_id.is_none()
            && !filter.asks_of_life()
            && !(ended && (filter.lived_at.is_some() || self.ended_meanwhile.is_some()))
    }

    fn is_deep_in(&self, ended: bool) -> bool {
        let filter = self.filter;
        self.is_deep || ended && (filter.started_after.is_some() || filter.started_before.is_some())
    }

    /// Whether it is what is asked for beside its facets.
    fn admits_rest(&self, found: Found<'_>, ended: bool) -> bool {
        let at = self.filter.lived_at.filter(|_| ended);
        at.is_none_or(|at| found.started() <= at)
            && self.admits_beside(found)
            && (!self.is_deep_in(ended) || self.filter.matches(found.session()))
            && !(ended && self.is_listed_live(found))
    }

    /// Whether what stands beside a session is what is asked for.
    #[inline]
    fn admits_beside(&self, found: Found<'_>) -> bool {
        let filter = self.filter;
        filter.remote_addr.as_ref().is_none_or(|prefix| found.comes_from(prefix))
            && self.client_id.as_ref().is_none_or(|(id, hash, sharing)| {
                match found.facets().shares_client_id() {
                    true => sharing.contains(&found.facets().application()),
                    false => found.has_client_id(id, *hash),
                }
            })
            && (!filter.asks_of_life() || filter.matches_life(self.hot_of(found)))
    }

    #[inline]
    fn hot_of<'s>(&'s self, found: Found<'s>) -> &'s Hot {
        self.hot.get(found.hot()).unwrap_or_else(|| found.session().hot.hot())
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
    fn is_listed_live(&self, found: Found<'_>) -> bool {
        let live = |source: &Source| match source {
            Source::Ordered { entries, ended: false } => entries.has_at(found.session().order()),
            _ => false,
        };
        self.ended_meanwhile.is_some_and(|number| found.order().1 >= number)
            && self.sources.iter().any(live)
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

    /// A page of a source that is in order already.
    fn page<'s>(
        &'s self,
        source: &'s Source,
        ascending: bool,
        (offset, limit): (usize, usize),
    ) -> Page<'s> {
        let mut page = Page::new(offset, limit);
        match source {
            Source::Ordered { entries, ended } => {
                let is_plain = self.is_plain(*ended);
                let add = |part: Part<'s, Entry>| {
                    // What is on another page need only be counted.
                    if !is_plain || !page.pass(self.count_wanted(&part, *ended)) {
                        let add = |found: Found<'s>| page.add(found.session());
                        self.visit_part(part, *ended, ascending, add);
                    }
                };
                let parts = self.parts(entries, *ended);
                if ascending { parts.for_each(add) } else { parts.rev().for_each(add) }
            }
            Source::Named { names, ended } if self.takes_all_named(*ended) => {
                if ascending {
                    for part in self.named(names) {
                        if !page.pass(part.len()) {
                            part.items().iter().for_each(|named| page.add(&named.session));
                        }
                    }
                } else {
                    let mut add = |(named, _): (&'s Named, &'s Timestamp)| {
                        page.add(&named.session);
                        !page.is_full()
                    };
                    backwards(self.named(names).flat_map(Named::each), &mut add);
                    page.count = self.named(names).map(|part| part.len()).sum();
                }
            }
            _ => self.visit_source(source, ascending, &mut |session, _| page.add(session)),
        }
        page
    }

    /// A page of what has to be sorted. The counters go on changing: each is read once.
    fn sorted<'s, K: Ord + Copy>(
        &'s self,
        query: &Query,
        key: impl Fn(&'s Arc<Session>, Place<'s>) -> K,
    ) -> Listing {
        let end = query.offset.saturating_add(query.limit);
        let bound = self.bound(end, query, &key);
        let mut first = self.first(query, bound, &key);
        if bound.is_some() && first.is_short() {
            // The counters of those by which the bound was found have changed since.
            first = self.first(query, None, &key);
        }
        let (count, found) = first.into_sorted();
        let sessions = found.into_iter().skip(query.offset).cloned().collect();
        Listing { count, sessions }
    }

    fn first<'s, K: Ord + Copy>(
        &'s self,
        query: &Query,
        bound: Option<K>,
        key: &impl Fn(&'s Arc<Session>, Place<'s>) -> K,
    ) -> First<'s, K> {
        let end = query.offset.saturating_add(query.limit);
        let mut first = First::new(end, query.ascending, bound);
        for source in &self.sources {
            // Of those that live, none but the first few can be among the first of all: they are in
            // the order of their starts, and none of them has an end.
            let ascending = match (source, query.sort) {
                (Source::Ordered { ended: false, .. }, SortKey::StartTime) => Some(query.ascending),
                (Source::Ordered { ended: false, .. }, SortKey::EndTime) => Some(false),
                _ => None,
            };
            if let Some(ascending) = ascending {
                let page = self.page(source, ascending, (0, end));
                let mut add = |session| first.add(key(session, Place::Alone), session);
                page.sessions.iter().for_each(|session| add(*session));
                first.count += page.count - page.sessions.len();
            } else {
                let mut add = |session, place| first.add(key(session, place), session);
                self.visit_source(source, false, &mut add);
            }
        }
        first
    }

    /// What of many sessions is not before this is not among the first `end`: the last of the first
    /// ones of a sample. Without it, each session would come before those looked at so far where
    /// they are in the opposite order.
    fn bound<'s, K: Ord + Copy>(
        &'s self,
        end: usize,
        query: &Query,
        key: &impl Fn(&'s Arc<Session>, Place<'s>) -> K,
    ) -> Option<K> {
        let mut keys = Vec::new();
        for source in &self.sources {
            match source {
                Source::Ordered { entries, ended } => {
                    let is_plain = self.is_plain(*ended);
                    for part in self.parts(entries, *ended) {
                        let found = Found::each(part).step_by(SAMPLED);
                        let found = found.filter(|found| {
                            self.wanted.admits(found.facets())
                                && (is_plain || self.admits_rest(*found, *ended))
                        });
                        keys.extend(found.map(|f| key(f.session(), Place::Ordered(f))));
                    }
                }
                Source::Named { names, ended } if self.takes_all_named(*ended) => {
                    let found =
                        self.named(names).flat_map(|part| Named::each(part).step_by(SAMPLED));
                    let key = |(named, started): (&'s Named, &'s Timestamp)| {
                        key(&named.session, Place::Named(*started))
                    };
                    keys.extend(found.map(key));
                }
                _ => {}
            }
        }
        let last = end.checked_sub(1).filter(|last| *last < keys.len())?;
        keys.select_nth_unstable_by(last, |a, b| compare(query.ascending, a, b));
        keys.get(last).copied()
    }

    /// The same, sorted by what changes with every command.
    fn sorted_by_life<'s, K: Ord + Copy>(
        &'s self,
        query: &Query,
        key: impl Fn(&'s Hot) -> K,
    ) -> Listing {
        self.sorted(query, |session, place| {
            key(match place {
                Place::Ordered(found) => self.hot_of(found),
                _ => session.hot.hot(),
            })
        })
    }

    pub(super) fn listing(&self, query: &Query) -> Listing {
        if let [source] = &self.sources[..]
            && self.is_in_order(query.sort)
        {
            let page = self.page(source, query.ascending, (query.offset, query.limit));
            let sessions = page.sessions.into_iter().cloned().collect();
            return Listing { count: page.count, sessions };
        }
        let end = |session: &Arc<Session>| session.end.get().map_or(Timestamp::NEVER, |e| e.at);
        match query.sort {
            SortKey::StartTime => {
                self.sorted(query, |session, place| Started(place.started(session), session))
            }
            SortKey::LastAccessed => {
                self.sorted_by_life(query, |hot| hot.last_accessed.load(Relaxed))
            }
            SortKey::LastSeen => self.sorted_by_life(query, |hot| hot.last_active.load(Relaxed)),
            SortKey::CommandCount => {
                self.sorted_by_life(query, |hot| hot.command_count.load(Relaxed))
            }
            SortKey::EndTime => self.sorted(query, |session, place| match place {
                Place::Ordered(found) if found.facets().reason() == 0 => Timestamp::NEVER,
                Place::Ordered(found) => found.order().0,
                _ => end(session),
            }),
            SortKey::WhoAmI => self.sorted(query, |session, _| session.who().name()),
        }
    }
}

/// One in so many sessions is in the sample by which others are left out.
const SAMPLED: usize = if cfg!(test) { 4 } else { 64 };

/// Visits sessions by name, the last first; of those with the same name, the newest first. It goes
/// on as long as `visit` says so.
fn backwards<'a>(
    names: impl DoubleEndedIterator<Item = (&'a Named, &'a Timestamp)>,
    visit: &mut impl FnMut((&'a Named, &'a Timestamp)) -> bool,
) {
    let mut same: Vec<(&Named, &Timestamp)> = Vec::new();
    for (named, started) in names.rev() {
        if same.first().is_some_and(|(first, _)| !first.has_name_of(named))
            && !same.drain(..).rev().all(&mut *visit)
        {
            return;
        }
        same.push((named, started));
    }
    same.into_iter().rev().all(visit);
}
