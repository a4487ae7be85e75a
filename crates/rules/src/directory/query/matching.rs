//! Which sessions of a source match: chunk by chunk, and of each chunk one column after the other.

use std::sync::Arc;

use base::{Timestamp, yield_point};

use super::super::chunks::{Chunks, Item, Part};
use super::super::hot::Hot;
use super::super::marks::Marks;
use super::super::roster::{Entry, Found, HasStarts as _, Named};
use super::super::session::Session;
use super::super::text::Pattern;
use super::search::{Search, Source};
use super::{ENDED, LIVE};

/// A part of a source, and which of its entries match.
pub(super) struct Matches<'s, T: Item> {
    pub(super) part: Part<'s, T>,
    /// None: all do.
    marks: Option<Box<Marks>>,
    pub(super) count: usize,
}

/// All that match of one source.
pub(super) enum Matching<'s> {
    Ordered(Vec<Matches<'s, Entry>>),
    Named(Vec<Matches<'s, Named>>),
    List(Vec<&'s Arc<Session>>),
}

impl<'s, T: Item> Matches<'s, T> {
    fn all(part: Part<'s, T>) -> Self {
        Self { count: part.len(), marks: None, part }
    }

    fn of(part: Part<'s, T>, marks: Marks) -> Self {
        let count = marks.count();
        let marks = (count < part.len()).then(|| Box::new(marks));
        Self { part, marks, count }
    }

    #[inline]
    fn has(&self, at: usize) -> bool {
        self.marks.as_ref().is_none_or(|marks| marks.has(at))
    }

    /// Visits where those are that match, in their order or from the last on.
    #[inline]
    pub(super) fn visit(&self, forward: bool, visit: impl FnMut(usize)) {
        match &self.marks {
            Some(marks) => marks.visit(forward, visit),
            None if forward => (0..self.part.len()).for_each(visit),
            None => (0..self.part.len()).rev().for_each(visit),
        }
    }

    /// Where those are that match, from the last on.
    pub(super) fn backwards(&self) -> impl Iterator<Item = usize> {
        (0..self.part.len()).rev().filter(|at| self.has(*at))
    }

    /// Where those of one in `step` are that match.
    pub(super) fn sample(&self, step: usize) -> impl Iterator<Item = usize> {
        (0..self.part.len()).step_by(step).filter(|at| self.has(*at))
    }

    /// Visits those whose start is wanted, or all if starts do not stand beside them, from the last
    /// on.
    pub(super) fn visit_started(
        &self,
        started: Option<&[Timestamp]>,
        is_wanted: impl Fn(Timestamp) -> bool,
        mut visit: impl FnMut(usize),
    ) {
        let Some(started) = started else { return self.visit(false, visit) };
        let mut marks = Marks::all(self.part.len());
        marks.keep(started, is_wanted);
        marks.visit(false, |at| {
            if self.has(at) {
                visit(at);
            }
        });
    }
}

impl<'s> Matches<'s, Named> {
    /// An entry that matches.
    pub(super) fn named(&self, at: usize) -> (&'s Named, Timestamp) {
        let named = &self.part.items()[at];
        let started = self.part.started().and_then(|started| started.get(at));
        (named, started.copied().unwrap_or(named.session.started))
    }
}

impl Search<'_> {
    /// All that match of a source.
    pub(super) fn matching<'s>(&'s self, source: &'s Source) -> Matching<'s> {
        match source {
            Source::Ordered { entries, ended } => {
                let parts = self.parts(entries, *ended);
                let all = parts.map(|part| self.matches(part, *ended));
                Matching::Ordered(all.filter(|matches| matches.count > 0).collect())
            }
            Source::Named { names, ended } => {
                let all = self.names_matching(names, *ended);
                Matching::Named(all.filter(|matches| matches.count > 0).collect())
            }
            Source::List(sessions) => {
                let matches = |session: &&Arc<Session>| {
                    self.wanted.admits(session.facets())
                        && session.org_id() == self.org
                        && self.filter.matches(session)
                };
                Matching::List(sessions.iter().rev().filter(matches).collect())
            }
        }
    }

    /// The parts of the names that begin as it is asked.
    pub(super) fn names<'s>(
        &'s self,
        names: &'s Chunks<Named>,
    ) -> impl DoubleEndedIterator<Item = Part<'s, Named>> {
        names.with_prefix(self.filter.prefix().unwrap_or_default())
    }

    /// What matches of them.
    pub(super) fn names_matching<'s>(
        &'s self,
        names: &'s Chunks<Named>,
        ended: bool,
    ) -> impl DoubleEndedIterator<Item = Matches<'s, Named>> {
        let all = self.takes_all_named(ended);
        self.names(names).map(move |part| {
            yield_point::pass();
            if all {
                return Matches::all(part);
            }
            let mut marks = Marks::all(part.len());
            let items = part.items();
            marks.keep_marked(|at| {
                let session = &items[at].session;
                self.wanted.admits(session.facets()) && self.filter.matches(session)
            });
            Matches::of(part, marks)
        })
    }

    /// The parts of an ordered source that the times of the filter leave.
    pub(super) fn parts<'s>(
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

    /// How many of these have the facets that are asked for.
    pub(super) fn count_wanted(&self, part: &Part<'_, Entry>, ended: bool) -> usize {
        self.wanted.count(part.facets(), if ended { ENDED } else { LIVE })
    }

    /// Which of these match.
    pub(super) fn matches<'s>(&self, part: Part<'s, Entry>, ended: bool) -> Matches<'s, Entry> {
        yield_point::pass();
        // Mostly all have the facets, or none.
        let wanted = self.count_wanted(&part, ended);
        let has_all = wanted == part.len();
        if wanted == 0 {
            let none = part.range.start..part.range.start;
            return Matches::all(Part { range: none, ..part });
        }
        let starts = || !ended || self.wants_all_starts(&part);
        if has_all && (self.is_plain(ended) || self.asks_starts_only(ended) && starts()) {
            return Matches::all(part);
        }
        let mut marks = Marks::all(part.len());
        if !has_all {
            self.wanted.keep(&mut marks, part.facets(), if ended { ENDED } else { LIVE });
        }
        if !starts() {
            self.keep_started(&mut marks, &part);
        }
        self.keep_addresses(&mut marks, &part);
        self.keep_client_ids(&mut marks, &part);
        if self.filter.asks_of_life() {
            marks.keep(part.hot(), |number| {
                // All are in the array: it was looked at behind them.
                self.hot.get(number).is_some_and(|hot| self.life.has(hot))
            });
        }
        if self.is_deep {
            marks.keep_marked(|at| self.filter.matches(part.found(at).session()));
        }
        if ended && self.ended_meanwhile.is_some() {
            marks.keep_marked(|at| !self.is_listed_live(part.found(at)));
        }
        Matches::of(part, marks)
    }

    /// Which starts are asked for of those that ended.
    fn is_start_wanted(&self) -> impl Fn(Timestamp) -> bool + use<> {
        let filter = self.filter;
        let after = filter.started_after.unwrap_or(Timestamp::from_millis(i64::MIN));
        let upto = filter.started_before.map(|before| before.plus_millis(-1));
        let upto = upto.into_iter().chain(filter.lived_at).min().unwrap_or(Timestamp::NEVER);
        move |started| (started > after) & (started <= upto)
    }

    fn wants_all_starts(&self, part: &Part<'_, Entry>) -> bool {
        let is_wanted = self.is_start_wanted();
        part.span().is_some_and(|(first, last)| is_wanted(first) && is_wanted(last))
    }

    fn keep_started(&self, marks: &mut Marks, part: &Part<'_, Entry>) {
        if let Some(started) = part.started() {
            marks.keep(started, self.is_start_wanted());
        }
    }

    fn keep_addresses(&self, marks: &mut Marks, part: &Part<'_, Entry>) {
        let Some(prefix) = &self.filter.remote_addr else { return };
        let (ips, ports) = part.addresses();
        let is_other = |ip, port| (ip == 0) & (port == 0);
        marks
            .keep_by_both((ips, ports), |ip, port| prefix.begins_v4(ip, port) | is_other(ip, port));
        if ips.contains(&0) {
            marks.keep_marked(|at| {
                !is_other(ips[at], ports[at])
                    || prefix.begins(part.found(at).session().conn.remote_addr)
            });
        }
    }

    fn keep_client_ids(&self, marks: &mut Marks, part: &Part<'_, Entry>) {
        let Some((id, hash, sharing)) = &self.client_id else { return };
        let facets = part.facets();
        marks.keep_by_both((facets, part.client_ids()), |facets, known| {
            let shares = facets.shares_client_id();
            shares & sharing.contains(facets.application()) | !shares & (known == *hash)
        });
        if !facets.iter().fold(true, |all, facets| all & facets.shares_client_id()) {
            marks.keep_marked(|at| {
                facets[at].shares_client_id() || *part.found(at).session().client_id == **id
            });
        }
    }

    /// Whether of a session of an ordered source, beside its time, nothing is asked but its facets.
    pub(super) fn is_plain(&self, ended: bool) -> bool {
        let filter = self.filter;
        let times = [filter.lived_at, filter.started_after, filter.started_before];
        self.asks_starts_only(ended) && !(ended && times.iter().any(Option::is_some))
    }

    /// Whether nothing is asked but these and its start.
    fn asks_starts_only(&self, ended: bool) -> bool {
        !self.is_deep
            && self.filter.remote_addr.is_none()
            && self.client_id.is_none()
            && !self.filter.asks_of_life()
            && !(ended && self.ended_meanwhile.is_some())
    }

    #[inline]
    pub(super) fn hot_of<'s>(&'s self, found: Found<'s>) -> &'s Hot {
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
}
