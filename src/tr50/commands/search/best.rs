//! The best of what is found, by type: how many there are, and no more of them than may be shown.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use base::ThingKey;
use rules::directory::Session;
use rules::identity::ThingDef;
use rules::identity::model::{Application, Org, User};
use rules::search::Match;

use super::Type;

/// One result.
pub(super) struct Hit {
    pub(super) field: &'static str,
    pub(super) found: Match,
    /// Where it was found.
    pub(super) org: Arc<Org>,
    pub(super) what: What,
    /// What tells it from others that match as well, by which they are ordered.
    order: Vec<u8>,
}

/// What was found.
pub(super) enum What {
    Thing(ThingKey),
    Session(Arc<Session>),
    User(Arc<User>),
    /// A user who is invited, of whom only the address is known.
    Pending(Arc<User>),
    Org,
    App(Arc<Application>),
    ThingDef(Arc<ThingDef>),
}

impl What {
    pub(super) const fn kind(&self) -> Type {
        match self {
            Self::Thing(_) => Type::Thing,
            Self::Session(_) => Type::Session,
            Self::User(_) | Self::Pending(_) => Type::User,
            Self::Org => Type::Org,
            Self::App(_) => Type::App,
            Self::ThingDef(_) => Type::ThingDef,
        }
    }
}

impl Hit {
    /// A result; `name` is folded, and `rest` tells those with the same apart.
    pub(super) fn new(
        (found, field): (Match, &'static str),
        org: &Arc<Org>,
        what: What,
        (name, rest): (&[u8], &[u8]),
    ) -> Self {
        let order = [name, &[0], rest, org.id.as_bytes()].concat();
        Self { field, found, org: org.clone(), what, order }
    }

    fn rank(&self) -> (rules::search::Class, Type, u8, &[u8]) {
        (self.found.class, self.what.kind(), self.found.field, &self.order)
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// The first of many, the worst on top.
pub(super) struct First<T>(BinaryHeap<T>, usize);

impl<T: Ord> First<T> {
    pub(super) fn new(most: usize) -> Self {
        Self(BinaryHeap::new(), most)
    }

    pub(super) fn add(&mut self, item: T) {
        if self.0.len() < self.1 {
            self.0.push(item);
        } else if let Some(mut worst) = self.0.peek_mut()
            && item < *worst
        {
            *worst = item;
        }
    }

    /// The worst, if there is no room for more.
    pub(super) fn worst(&self) -> Option<&T> {
        self.0.peek().filter(|_| self.0.len() >= self.1)
    }

    pub(super) fn into_sorted(self) -> Vec<T> {
        self.0.into_sorted_vec()
    }
}

/// The best of each type.
pub(super) struct Best {
    hits: [First<Hit>; Type::ALL.len()],
    counts: [usize; Type::ALL.len()],
}

impl Best {
    /// So many of each.
    pub(super) fn new(most: usize) -> Self {
        Self { hits: Type::ALL.map(|_| First::new(most)), counts: [0; Type::ALL.len()] }
    }

    /// Counts a result, and keeps it if it is among the best.
    pub(super) fn add(&mut self, hit: Hit) {
        self.note(hit.what.kind(), 1);
        self.keep(hit);
    }

    /// Keeps a result, which is counted already, if it is among the best.
    pub(super) fn keep(&mut self, hit: Hit) {
        self.hits[hit.what.kind() as usize].add(hit);
    }

    /// Counts results.
    pub(super) fn note(&mut self, kind: Type, count: usize) {
        self.counts[kind as usize] += count;
    }

    /// Whether one may be among the best that matches so and has this name.
    pub(super) fn admits(&self, kind: Type, found: Match, name: &[u8]) -> bool {
        let worst = self.hits[kind as usize].worst();
        worst.is_none_or(|worst| (found, name) < (worst.found, &worst.order[..]))
    }

    pub(super) fn count(&self, kind: Type) -> usize {
        self.counts[kind as usize]
    }

    /// All of them, the best first.
    pub(super) fn into_sorted(self) -> Vec<Hit> {
        let mut all: Vec<_> = self.hits.into_iter().flat_map(First::into_sorted).collect();
        all.sort_unstable();
        all
    }
}
