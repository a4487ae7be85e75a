//! The sessions of a page: those at some places in an order, of many that come one by one.

use std::cmp::Ordering;
use std::sync::Arc;

use base::Timestamp;

use super::super::session::Session;

/// A page of sessions that come in order.
pub(super) struct Page<'s> {
    offset: usize,
    limit: usize,
    pub(super) count: usize,
    pub(super) sessions: Vec<&'s Arc<Session>>,
}

impl<'s> Page<'s> {
    pub(super) const fn new(offset: usize, limit: usize) -> Self {
        Self { offset, limit, count: 0, sessions: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.sessions.len() >= self.limit
    }

    /// Counts so many at once, if none of them is on the page.
    pub(super) fn pass(&mut self, count: usize) -> bool {
        let passes = self.count + count <= self.offset || self.is_full();
        if passes {
            self.count += count;
        }
        passes
    }

    pub(super) fn add(&mut self, session: &'s Arc<Session>) {
        if self.count >= self.offset && !self.is_full() {
            self.sessions.push(session);
        }
        self.count += 1;
    }
}

/// A start; of those in the same millisecond, the session tells which was first.
#[derive(Clone, Copy)]
pub(super) struct Started<'s>(pub(super) Timestamp, pub(super) &'s Session);

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

/// By what sessions are sorted.
pub(super) trait SortValue: Ord + Copy {
    /// The start, where it is what decides first.
    fn start(&self) -> Option<Timestamp> {
        None
    }
}

impl SortValue for i64 {}
impl SortValue for u64 {}
impl SortValue for &str {}
impl SortValue for Timestamp {}

impl SortValue for Started<'_> {
    fn start(&self) -> Option<Timestamp> {
        Some(self.0)
    }
}

pub(super) fn compare<K: Ord>(ascending: bool, a: &K, b: &K) -> Ordering {
    if ascending { a.cmp(b) } else { b.cmp(a) }
}

/// The first few of many in some order: no more of them are kept than twice as many.
pub(super) struct First<'s, K> {
    max: usize,
    ascending: bool,
    pub(super) count: usize,
    /// With the number in which each was added: of equals, the first come first.
    kept: Vec<(K, usize, &'s Arc<Session>)>,
    next: usize,
    /// What is behind this is not among the first.
    last: Option<K>,
    /// Nor is what equals it: as many are kept as there may be.
    is_last_kept: bool,
}

impl<'s, K: SortValue> First<'s, K> {
    pub(super) const fn new(max: usize, ascending: bool) -> Self {
        Self {
            max,
            ascending,
            count: 0,
            kept: Vec::new(),
            next: 0,
            last: None,
            is_last_kept: false,
        }
    }

    pub(super) const fn is_ascending(&self) -> bool {
        self.ascending
    }

    /// Whether it is known behind what nothing is among the first.
    pub(super) const fn is_bound(&self) -> bool {
        self.last.is_some()
    }

    /// What is behind this is not among the first.
    pub(super) const fn set_bound(&mut self, bound: K) {
        (self.last, self.is_last_kept) = (Some(bound), false);
    }

    /// What started behind this is not among the first; none: it is not known, or does not decide.
    pub(super) fn last_start(&self) -> Option<Timestamp> {
        self.last.as_ref()?.start()
    }

    /// Counts so many.
    pub(super) const fn pass(&mut self, count: usize) {
        self.count += count;
    }

    /// Whether there are fewer than there should be.
    pub(super) fn is_short(&self) -> bool {
        self.kept.len() < self.max.min(self.count)
    }

    #[inline]
    pub(super) fn add(&mut self, key: K, session: &'s Arc<Session>) {
        self.pass(1);
        self.keep(key, session);
    }

    /// Keeps one that is counted already, if it may be among the first.
    #[inline]
    pub(super) fn keep(&mut self, key: K, session: &'s Arc<Session>) {
        let is_behind = |last: &K| match compare(self.ascending, &key, last) {
            Ordering::Less => false,
            Ordering::Equal => self.is_last_kept,
            Ordering::Greater => true,
        };
        if self.max == 0 || self.last.as_ref().is_some_and(is_behind) {
            return;
        }
        self.kept.push((key, self.next, session));
        self.next += 1;
        if self.kept.len() >= self.max.saturating_mul(2).saturating_add(64) {
            self.cut();
        }
    }

    /// Lets go of all but the first.
    pub(super) fn cut(&mut self) {
        let (ascending, max) = (self.ascending, self.max);
        if self.kept.len() >= max && max > 0 {
            self.kept.select_nth_unstable_by(max - 1, |a, b| {
                compare(ascending, &a.0, &b.0).then(a.1.cmp(&b.1))
            });
            self.kept.truncate(max);
            self.last = self.kept.last().map(|(key, ..)| *key);
            self.is_last_kept = true;
        }
    }

    pub(super) fn into_sorted(mut self) -> (usize, Vec<&'s Arc<Session>>) {
        self.cut();
        let ascending = self.ascending;
        self.kept.sort_unstable_by(|a, b| compare(ascending, &a.0, &b.0).then(a.1.cmp(&b.1)));
        (self.count, self.kept.into_iter().map(|(.., session)| session).collect())
    }
}
