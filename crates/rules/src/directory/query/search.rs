//! The look through an organisation's sessions: which ones match, and a page of them in some order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base::{OrgId, Timestamp};

use super::super::chunks::{Chunks, Item, Part};
use super::super::facets::{NumberSet, Wanted};
use super::super::hot::{Hot, HotView};
use super::super::roster::{Entry, Found, HasStarts, Named};
use super::super::session::Session;
use super::matching::{Matches, Matching};
use super::pages::{First, Page, SortValue, Started, compare};
use super::{Filter, Life, Listing, Query, SortKey};

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
    pub(super) client_id: Option<(&'a str, u16, NumberSet)>,
    /// What is asked of the counters.
    pub(super) life: Life,
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
    /// Visits all that match, in the order of each source: the newest first, or by name the last.
    pub(super) fn visit<'s>(&'s self, mut visit: impl FnMut(&'s Arc<Session>, Place<'s>)) {
        self.sources.iter().for_each(|source| self.visit_source(source, &mut visit));
    }

    fn visit_source<'s>(
        &'s self,
        source: &'s Source,
        visit: &mut impl FnMut(&'s Arc<Session>, Place<'s>),
    ) {
        match self.matching(source) {
            Matching::Ordered(all) => all.iter().rev().for_each(|matches| {
                matches.visit(false, |at| {
                    let found = matches.part.found(at);
                    visit(found.session(), Place::Ordered(found));
                });
            }),
            Matching::Named(all) => all.iter().rev().for_each(|matches| {
                matches.visit(false, |at| {
                    let (named, started) = matches.named(at);
                    visit(&named.session, Place::Named(started));
                });
            }),
            Matching::List(all) => {
                all.into_iter().for_each(|session| visit(session, Place::Alone));
            }
        }
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
                    if is_plain && page.pass(self.count_wanted(&part, *ended)) {
                        return;
                    }
                    let matches = self.matches(part, *ended);
                    if page.pass(matches.count) {
                        return;
                    }
                    matches.visit(ascending, |at| page.add(matches.part.found(at).session()));
                };
                let parts = self.parts(entries, *ended);
                if ascending { parts.for_each(add) } else { parts.rev().for_each(add) }
            }
            Source::Named { names, ended } if ascending => {
                for matches in self.names_matching(names, *ended) {
                    if !page.pass(matches.count) {
                        let named = |at: usize| &matches.part.items()[at].session;
                        matches.visit(true, |at| page.add(named(at)));
                    }
                }
            }
            Source::Named { names, ended } => {
                let all: Vec<_> = self.names_matching(names, *ended).collect();
                let mut add = |named: &'s Named| {
                    page.add(&named.session);
                    !page.is_full()
                };
                backwards(&all, &mut add);
                page.count = all.iter().map(|matches| matches.count).sum();
            }
            Source::List(_) => self.visit_source(source, &mut |session, _| page.add(session)),
        }
        page
    }

    /// A page of what has to be sorted. The counters go on changing: each is read once.
    fn sorted<'s, K: SortValue>(
        &'s self,
        query: &Query,
        key: impl Fn(&'s Arc<Session>, Place<'s>) -> K,
    ) -> Listing {
        let end = query.offset.saturating_add(query.limit);
        let first_of = |in_order: &[(bool, &'s Source)]| {
            let mut first = First::new(end, query.ascending);
            for (ascending, source) in in_order {
                let page = self.page(source, *ascending, (0, end));
                page.sessions.iter().for_each(|s| first.add(key(s, Place::Alone), s));
                first.pass(page.count - page.sessions.len());
            }
            first.cut();
            first
        };
        // Of those that live, none but the first few can be among the first of all: they are in the
        // order of their starts, and none of them has an end. Those that ended are in that order.
        let (mut in_order, mut others) = (Vec::new(), Vec::new());
        for source in &self.sources {
            match (source, query.sort) {
                (Source::Ordered { ended: false, .. }, SortKey::StartTime) => {
                    in_order.push((query.ascending, source));
                }
                (Source::Ordered { ended: false, .. }, SortKey::EndTime) => {
                    in_order.push((false, source));
                }
                (Source::Ordered { ended: true, .. }, SortKey::EndTime) => {
                    in_order.push((query.ascending, source));
                }
                _ => others.push(self.matching(source)),
            }
        }
        let mut first = first_of(&in_order);
        let is_bound = first.is_bound()
            || match bound(end, query.ascending, &others, &key) {
                Some(bound) => {
                    first.set_bound(bound);
                    true
                }
                None => false,
            };
        others.iter().for_each(|matching| add_matching(&mut first, matching, &key));
        if is_bound && first.is_short() {
            // The counters of those by which the bound was found have changed since.
            first = first_of(&in_order);
            others.iter().for_each(|matching| add_matching(&mut first, matching, &key));
        }
        let (count, found) = first.into_sorted();
        let sessions = found.into_iter().skip(query.offset).cloned().collect();
        Listing { count, sessions }
    }

    /// The same, sorted by what changes with every command.
    fn sorted_by_life<'s, K: SortValue>(
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

/// What of many sessions is not before this is not among the first `end`: the last of the first
/// ones of a sample. Without it, each session would come before those looked at so far where they
/// are in the opposite order.
fn bound<'s, K: SortValue>(
    end: usize,
    ascending: bool,
    all: &[Matching<'s>],
    key: impl Fn(&'s Arc<Session>, Place<'s>) -> K,
) -> Option<K> {
    let mut keys = Vec::new();
    for matching in all {
        match matching {
            Matching::Ordered(all) => keys.extend(all.iter().flat_map(|matches| {
                let found = matches.sample(SAMPLED).map(|at| matches.part.found(at));
                found.map(|found| key(found.session(), Place::Ordered(found)))
            })),
            Matching::Named(all) => keys.extend(all.iter().flat_map(|matches| {
                let found = matches.sample(SAMPLED).map(|at| matches.named(at));
                found.map(|(named, started)| key(&named.session, Place::Named(started)))
            })),
            Matching::List(_) => {}
        }
    }
    let last = end.checked_sub(1).filter(|last| *last < keys.len())?;
    keys.select_nth_unstable_by(last, |a, b| compare(ascending, a, b));
    keys.get(last).copied()
}

fn add_matching<'s, K: SortValue>(
    first: &mut First<'s, K>,
    matching: &Matching<'s>,
    key: impl Fn(&'s Arc<Session>, Place<'s>) -> K,
) {
    match matching {
        Matching::Ordered(all) => {
            for matches in all.iter().rev() {
                add_matches(first, matches, |at| {
                    let found = matches.part.found(at);
                    let session = found.session();
                    (key(session, Place::Ordered(found)), session)
                });
            }
        }
        Matching::Named(all) => {
            for matches in all.iter().rev() {
                add_matches(first, matches, |at| {
                    let (named, started) = matches.named(at);
                    (key(&named.session, Place::Named(started)), &named.session)
                });
            }
        }
        Matching::List(all) => {
            all.iter().for_each(|session| first.add(key(session, Place::Alone), session));
        }
    }
}

fn add_matches<'s, K: SortValue, T: Item>(
    first: &mut First<'s, K>,
    matches: &Matches<'s, T>,
    of: impl Fn(usize) -> (K, &'s Arc<Session>),
) where
    Part<'s, T>: HasStarts,
{
    first.pass(matches.count);
    let add = |first: &mut First<'s, K>, at| {
        let (key, session) = of(at);
        first.keep(key, session);
    };
    let Some(last) = first.last_start() else {
        return matches.visit(false, |at| add(first, at));
    };
    // Of most chunks none started so that it is among the first, and of the others few did.
    let ascending = first.is_ascending();
    let may_be = |started| compare(ascending, &started, &last).is_le();
    if matches.part.span().is_some_and(|(oldest, newest)| !may_be(oldest) && !may_be(newest)) {
        return;
    }
    matches.visit_started(matches.part.started(), may_be, |at| add(first, at));
}

/// Visits sessions by name, the last first; of those with the same name, the newest first. It goes
/// on as long as `visit` says so.
fn backwards<'s>(all: &[Matches<'s, Named>], visit: &mut impl FnMut(&'s Named) -> bool) {
    let mut same: Vec<&Named> = Vec::new();
    for matches in all.iter().rev() {
        for named in matches.backwards().map(|at| &matches.part.items()[at]) {
            if same.first().is_some_and(|first| !first.has_name_of(named))
                && !same.drain(..).rev().all(&mut *visit)
            {
                return;
            }
            same.push(named);
        }
    }
    same.into_iter().rev().all(visit);
}
