//! A bound that is shared max-min: between organisations, and in each between its principals.
//!
//! Nothing is first come, first served. Who is alone may hold nearly everything; as soon as others
//! come, each gets what it asks for up to its equal part, and what one does not use is the others'.
//! Of what can make way (work not begun, tickets, history) the pool may be full, and
//! [`Shares::makes_way`] says who loses some of it. What can't (durable data) is never taken from
//! anybody: there a reserve stays, which only those below their part may use.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;

use crate::OrgId;

/// Of a bound that nobody makes way for, this part is for those below their share: an eighth.
const RESERVED: u64 = 8;

/// A bound, and who holds how much of it. `P` is a principal, or whoever acts in an organisation.
#[derive(Debug)]
pub struct Shares<P> {
    max: u64,
    reserved: bool,
    orgs: Level<OrgId>,
    principals: HashMap<OrgId, Level<P>>,
}

/// Why somebody gets no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverShare {
    /// The organisation has its share.
    Org,
    /// The organisation has room, and the principal its share of that.
    Principal,
    /// All is taken. This one is below its share: somebody makes way, or nobody can.
    Full,
}

impl fmt::Display for OverShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Org => "your organisation has its share of it",
            Self::Principal => "you have your share of what your organisation may have",
            Self::Full => "all of it is taken",
        })
    }
}

/// Holders of one kind.
#[derive(Debug)]
struct Level<K> {
    held: u64,
    of: HashMap<K, u64>,
    /// The same in order.
    by_held: BTreeSet<(u64, K)>,
}

impl<P: Copy + Ord + Hash> Shares<P> {
    /// A bound of which holders make way when it is reached.
    pub fn that_make_way(max: u64) -> Self {
        Self { max, reserved: false, orgs: Level::default(), principals: HashMap::new() }
    }

    /// A bound of which nothing is taken away from anybody.
    pub fn that_stay(max: u64) -> Self {
        Self { reserved: true, ..Self::that_make_way(max) }
    }

    /// Takes so much.
    ///
    /// # Errors
    ///
    /// There is no room for it; nothing was taken.
    pub fn take(&mut self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        self.check(org, who, amount)?;
        self.hold(org, who, amount);
        Ok(())
    }

    /// Notes what is held already, whatever the bound: found in the store, or allowed before.
    pub fn hold(&mut self, org: OrgId, who: P, amount: u64) {
        self.orgs.add(org, amount);
        self.principals.entry(org).or_default().add(who, amount);
    }

    /// Gives so much back.
    pub fn give_back(&mut self, org: OrgId, who: P, amount: u64) {
        let Some(principals) = self.principals.get_mut(&org) else { return };
        let amount = principals.remove(who, amount);
        self.orgs.remove(org, amount);
        if self.orgs.of(&org) == 0 {
            self.principals.remove(&org);
        }
    }

    /// All that is held.
    pub const fn held(&self) -> u64 {
        self.orgs.held
    }

    /// The bound.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// What an organisation holds.
    pub fn held_by(&self, org: OrgId) -> u64 {
        self.orgs.of(&org)
    }

    /// Who loses some, so that this principal gets it: one of the organisation that holds most, or
    /// of its own if no other holds more. None if everybody else has no more than it would have.
    pub fn makes_way(&self, org: OrgId, who: P, amount: u64) -> Option<(OrgId, P)> {
        let own = self.orgs.of(&org).saturating_add(amount);
        let most = self.orgs.most().filter(|(held, most)| *most != org && *held > own);
        if let Some((_, most)) = most {
            let (_, principal) = self.principals.get(&most)?.most()?;
            return Some((most, principal));
        }
        let principals = self.principals.get(&org)?;
        let own = principals.of(&who).saturating_add(amount);
        let (_, most) = principals.most().filter(|(held, most)| *most != who && *held > own)?;
        Some((org, most))
    }

    fn check(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        let reserve = if self.reserved { self.max / RESERVED } else { 0 };
        let free = self.orgs.held.saturating_add(amount) <= self.max - reserve;
        let share = self.max / self.orgs.parts_with(&org);
        if !free && self.orgs.of(&org).saturating_add(amount) > share {
            return Err(OverShare::Org);
        }
        if self.orgs.held.saturating_add(amount) > self.max {
            return Err(OverShare::Full);
        }
        if !self.reserved {
            return Ok(());
        }
        let org_max = if free { self.max - reserve } else { share };
        let nobody = Level::default();
        let principals = self.principals.get(&org).unwrap_or(&nobody);
        let free = principals.held.saturating_add(amount) <= org_max - org_max / RESERVED;
        let share = org_max / principals.parts_with(&who);
        match free || principals.of(&who).saturating_add(amount) <= share {
            true => Ok(()),
            false => Err(OverShare::Principal),
        }
    }
}

impl<K> Default for Level<K> {
    fn default() -> Self {
        Self { held: 0, of: HashMap::new(), by_held: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Level<K> {
    fn of(&self, key: &K) -> u64 {
        self.of.get(key).copied().unwrap_or(0)
    }

    /// Into how many equal parts it is shared: for all who hold something, for this one, and for the
    /// next that comes.
    fn parts_with(&self, key: &K) -> u64 {
        self.of.len() as u64 + u64::from(!self.of.contains_key(key)) + 1
    }

    fn most(&self) -> Option<(u64, K)> {
        self.by_held.last().copied()
    }

    fn add(&mut self, key: K, amount: u64) {
        self.set(key, self.of(&key).saturating_add(amount));
    }

    /// Returns what was removed, which is no more than was there.
    fn remove(&mut self, key: K, amount: u64) -> u64 {
        let held = self.of(&key);
        let amount = amount.min(held);
        self.set(key, held - amount);
        amount
    }

    fn set(&mut self, key: K, held: u64) {
        let before = if held == 0 { self.of.remove(&key) } else { self.of.insert(key, held) };
        let before = before.unwrap_or(0);
        if before > 0 {
            self.by_held.remove(&(before, key));
        }
        if held > 0 {
            self.by_held.insert((held, key));
        }
        self.held = self.held - before + held;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 12])
    }

    /// Takes one after the other until it is refused.
    fn fill(shares: &mut Shares<u8>, org: OrgId, who: u8) -> (u64, OverShare) {
        for taken in 0.. {
            if let Err(over) = shares.take(org, who, 1) {
                return (taken, over);
            }
        }
        unreachable!("there is a bound")
    }

    #[test]
    fn who_is_alone_may_hold_nearly_all_and_others_find_room() {
        let mut shares = Shares::that_stay(6400);
        // An eighth is left for other organisations, an eighth of the rest for its own people.
        assert_eq!(fill(&mut shares, org(1), 1), (4900, OverShare::Principal));
        assert_eq!(fill(&mut shares, org(1), 2), (700, OverShare::Org));
        assert_eq!(fill(&mut shares, org(2), 1), (800, OverShare::Full));
        assert_eq!(shares.take(org(1), 1, 1), Err(OverShare::Org));
        shares.give_back(org(1), 1, 4900);
        assert!(shares.take(org(1), 2, 1).is_ok(), "there is room again");
        assert_eq!((shares.held(), shares.held_by(org(2))), (1501, 800));
    }

    #[test]
    fn who_holds_most_makes_way() {
        let mut shares = Shares::that_make_way(10);
        assert_eq!(fill(&mut shares, org(1), 1), (10, OverShare::Org));
        assert_eq!(shares.take(org(2), 1, 1), Err(OverShare::Full));
        assert_eq!(shares.makes_way(org(1), 1, 1), None, "nobody loses for himself");
        assert_eq!(shares.makes_way(org(1), 2, 1), Some((org(1), 1)));
        assert_eq!(shares.makes_way(org(2), 1, 1), Some((org(1), 1)));
        assert_eq!(shares.makes_way(org(2), 1, 10), None);
    }

    #[test]
    fn nothing_is_left_of_who_gave_all_back() {
        let mut shares = Shares::that_stay(10);
        shares.hold(org(1), 1, 100);
        assert_eq!(shares.take(org(1), 1, 1), Err(OverShare::Org));
        shares.give_back(org(1), 1, 1000);
        shares.give_back(org(2), 1, 1);
        assert_eq!(shares.held(), 0);
        assert!(shares.principals.is_empty() && shares.orgs.by_held.is_empty());
    }

    /// What everybody gets of `max` who wants so much, shared max-min.
    fn fair(mut wanted: Vec<u64>, mut max: u64) -> Vec<u64> {
        let mut got = vec![0; wanted.len()];
        while max > 0 && wanted.iter().any(|more| *more > 0) {
            for (got, more) in got.iter_mut().zip(&mut wanted) {
                let one = u64::from(*more > 0 && max > 0);
                (*got, *more, max) = (*got + one, *more - one, max - one);
            }
        }
        got
    }

    proptest! {
        /// Whoever comes in whatever order, all end up with what is fair, to within one.
        #[test]
        fn what_makes_way_is_shared_max_min(
            wanted in proptest::collection::vec(0u64..40, 1..6),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..400),
        ) {
            let mut shares = Shares::that_make_way(60);
            let mut missing = wanted.clone();
            let ask = |index: usize, shares: &mut Shares<u8>, missing: &mut Vec<u64>| {
                let (org, who) = (org(index as u8), 0);
                if missing[index] == 0 {
                    return;
                }
                if shares.take(org, who, 1).is_err() {
                    let Some((loser, principal)) = shares.makes_way(org, who, 1) else { return };
                    shares.give_back(loser, principal, 1);
                    let loser = (0..wanted.len()).find(|i| super::tests::org(*i as u8) == loser);
                    missing[loser.expect("one of them")] += 1;
                    prop_assert_ok(shares.take(org, who, 1));
                }
                missing[index] -= 1;
            };
            for index in order {
                ask(index.index(wanted.len()), &mut shares, &mut missing);
            }
            for _ in 0..100 {
                (0..wanted.len()).for_each(|index| ask(index, &mut shares, &mut missing));
            }
            let got = (0..wanted.len()).map(|index| shares.held_by(org(index as u8)));
            for (got, fair) in got.zip(fair(wanted.clone(), 60)) {
                prop_assert!(got.abs_diff(fair) <= 1, "{got} instead of {fair} of {wanted:?}");
            }
        }

        /// Of what stays, nobody who is below his part is refused while something is left.
        #[test]
        fn who_is_below_the_share_gets_what_is_left(
            steps in proptest::collection::vec((0u8..4, 0u8..3, 1u64..30, any::<bool>()), 0..200),
        ) {
            let mut shares = Shares::that_stay(200);
            let mut model: HashMap<(u8, u8), u64> = HashMap::new();
            for (number, who, amount, takes) in steps {
                let held = model.entry((number, who)).or_default();
                if !takes {
                    *held -= amount.min(*held);
                    shares.give_back(org(number), who, amount);
                } else if shares.take(org(number), who, amount).is_ok() {
                    *held += amount;
                } else {
                    let all: u64 = model.values().sum();
                    let of_org = |(holder, _): &(&(u8, u8), _)| holder.0 == number;
                    let own: u64 = model.iter().filter(of_org).map(|(_, held)| held).sum();
                    let below = own + amount <= 200 / 5 - 200 / 5 / 8;
                    prop_assert!(!below || all + amount > 200, "{own} + {amount} of {all}");
                }
                prop_assert_eq!(shares.held(), model.values().sum::<u64>());
                prop_assert!(shares.held() <= 200);
            }
        }
    }

    fn prop_assert_ok(taken: Result<(), OverShare>) {
        assert_eq!(taken, Ok(()), "room was made");
    }
}
