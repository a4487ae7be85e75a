//! Groups of what makes way for others when there is no room: first what has been there longest, of
//! the group that has most, so that nobody loses anything who has no more than others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// The groups. Each thing in them has a number, the older the lower.
pub(super) struct Crowds<K> {
    of: HashMap<K, Crowd>,
    /// By what they have; of those that have as much, the one whose oldest came first is the last.
    by_size: BTreeMap<Size, K>,
}

/// What a group has, and the number of its oldest, which is in no other group.
type Size = (usize, Reverse<u64>);

#[derive(Default)]
struct Crowd {
    amount: usize,
    numbers: BTreeSet<u64>,
}

impl Crowd {
    fn size(&self) -> Option<Size> {
        self.numbers.first().map(|oldest| (self.amount, Reverse(*oldest)))
    }
}

impl<K> Default for Crowds<K> {
    fn default() -> Self {
        Self { of: HashMap::new(), by_size: BTreeMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Crowds<K> {
    /// The thing with this number, of this group, counts for `now` and no longer for `before`. What
    /// counts for nothing is not there.
    pub(super) fn change(&mut self, group: K, number: u64, before: usize, now: usize) {
        let crowd = self.of.entry(group).or_default();
        if let Some(size) = crowd.size() {
            self.by_size.remove(&size);
        }
        crowd.amount = crowd.amount - before + now;
        if now > 0 {
            crowd.numbers.insert(number);
        } else {
            crowd.numbers.remove(&number);
        }
        match crowd.size() {
            Some(size) => drop(self.by_size.insert(size, group)),
            None => drop(self.of.remove(&group)),
        }
    }

    /// The oldest of the group that has most.
    pub(super) fn first(&self) -> Option<u64> {
        self.by_size.last_key_value().map(|((_, Reverse(oldest)), _)| *oldest)
    }

    /// Whether a group would still have less than the one that has most, with so much more.
    pub(super) fn has_less(&self, group: K, more: usize) -> bool {
        let has = self.of.get(&group).map_or(0, |crowd| crowd.amount);
        self.by_size.last_key_value().is_some_and(|((most, _), _)| has + more < *most)
    }

    /// Whether nothing is there.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty() && self.by_size.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_who_has_most_is_the_first() {
        let mut crowds = Crowds::default();
        for (number, group) in [(1, 'a'), (2, 'b'), (3, 'b'), (4, 'c'), (5, 'c'), (6, 'c')] {
            crowds.change(group, number, 0, 10);
        }
        let mut order = Vec::new();
        while let Some(first) = crowds.first() {
            let group = ['a', 'b', 'b', 'c', 'c', 'c'][first as usize - 1];
            crowds.change(group, first, 10, 0);
            order.push(first);
        }
        assert_eq!(order, [4, 2, 5, 1, 3, 6]);
        assert!(crowds.is_empty());
    }

    #[test]
    fn what_grows_counts_for_more() {
        let mut crowds = Crowds::default();
        crowds.change('a', 1, 0, 10);
        crowds.change('b', 2, 0, 11);
        assert_eq!(crowds.first(), Some(2));
        crowds.change('a', 1, 10, 12);
        assert_eq!(crowds.first(), Some(1));
        assert!(crowds.has_less('b', 0) && !crowds.has_less('b', 1));
        assert!(crowds.has_less('c', 11) && !crowds.has_less('a', 0));
        crowds.change('a', 3, 0, 0);
        crowds.change('a', 1, 12, 0);
        assert_eq!(crowds.first(), Some(2));
    }
}
