//! A pool that is shared max-min: between tenants, in each between its organisations, and in each
//! of those between its principals.
//!
//! Nothing is first come, first served. Who is alone may hold nearly everything; as soon as others
//! come, each gets what it asks for up to its equal part, and what one does not use is the others'.
//! Of what can make way (work not begun, tickets, history) the pool may be full, and
//! [`Shares::makes_way`] says who loses some of it. What can't (durable data) is never taken from
//! anybody: there a reserve stays, which only those below their part may use.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::OrgId;
use crate::pool::{MakesWay, OverShare, Pool, Pools, Usage, Whose};

/// A pool, and who holds how much of it. `P` is a principal, or whoever acts in an organisation.
#[derive(Debug)]
pub struct Shares<P> {
    pool: Pool,
    max: u64,
    /// Of that, what one organisation may have.
    org_max: u64,
    /// What is kept for those below their part, if that is not a part of the bound.
    reserve: Option<u64>,
    whole: Option<Arc<dyn Whole<P>>>,
    pools: Arc<Pools>,
    usage: Arc<Usage>,
    /// Whether what is held is all that is used of the pool.
    is_all: bool,
    tenants: Level<OrgId>,
    orgs: HashMap<OrgId, Level<OrgId>>,
    principals: HashMap<OrgId, Level<P>>,
    /// The tenant of each organisation that holds something: it stays the same until all is given
    /// back.
    tenant_of: HashMap<OrgId, OrgId>,
}

/// A pool of which others are parts: what is held in one of those is held in this, too.
pub trait Whole<P>: fmt::Debug + Send + Sync {
    /// Whether so much more could be held now.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    fn check(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare>;
    /// Notes that so much more is held, whatever the bound.
    fn hold(&self, org: OrgId, who: P, amount: u64);
    /// Notes that so much less is held.
    fn give_back(&self, org: OrgId, who: P, amount: u64);
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
    /// Nobody holds any of the pool's `max`, of which there may be no more than its part of the memory.
    pub fn new(pool: Pool, max: u64, pools: &Arc<Pools>) -> Self {
        let max = pools.bound_by_memory(pool).map_or(max, |most| max.min(most));
        let usage = pools.usage(pool).clone();
        usage.set_max(max);
        Self {
            pool,
            max,
            org_max: u64::MAX,
            reserve: None,
            whole: None,
            pools: pools.clone(),
            usage,
            is_all: true,
            tenants: Level::default(),
            orgs: HashMap::new(),
            principals: HashMap::new(),
            tenant_of: HashMap::new(),
        }
    }

    /// One organisation may have so much of it, and no more: what it has costs the organisation's own
    /// people something. They share it as they share their organisation's part.
    #[must_use]
    pub fn with_org_max(self, org_max: u64) -> Self {
        Self { org_max, ..self }
    }

    /// So much is kept for those below their part, whatever the bound.
    #[must_use]
    pub fn with_reserve(self, reserve: u64) -> Self {
        Self { reserve: Some(reserve), ..self }
    }

    /// What is held of it is held of another pool, too.
    #[must_use]
    pub fn within(self, whole: Arc<dyn Whole<P>>) -> Self {
        Self { whole: Some(whole), ..self }
    }

    /// More is used of the pool than is held by somebody; who knows of it says how much.
    #[must_use]
    pub fn of_a_part(self) -> Self {
        Self { is_all: false, ..self }
    }

    fn note_used(&self) {
        if self.is_all {
            self.usage.set_used(self.tenants.held);
        }
    }

    /// Takes so much.
    ///
    /// # Errors
    ///
    /// There is no room for it; nothing was taken.
    pub fn take(&mut self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        if amount == 0 {
            return Ok(());
        }
        self.check(org, who, amount).inspect_err(|over| self.count_over(org, *over))?;
        self.hold(org, who, amount);
        Ok(())
    }

    /// Whether so much could be taken now.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn has_room(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        self.check(org, who, amount)
    }

    /// The most that could be taken now.
    pub fn room(&self, org: OrgId, who: P) -> u64 {
        let (mut fits, mut least_refused) = (0, self.max.saturating_add(1));
        while least_refused - fits > 1 {
            let middle = fits + (least_refused - fits) / 2;
            match self.check(org, who, middle) {
                Ok(()) => fits = middle,
                Err(_) => least_refused = middle,
            }
        }
        fits
    }

    /// Takes so much of a pool whose holders make way: who has most loses some of it first, as
    /// `evict` does, which returns how much went.
    ///
    /// # Errors
    ///
    /// Nobody has more than this one would have; nothing was taken.
    pub fn take_from_most(
        &mut self,
        owner: (OrgId, P),
        amount: u64,
        evict: impl FnMut(OrgId, P) -> u64,
    ) -> Result<(), OverShare> {
        self.take_evicting(owner, amount, false, evict)
    }

    /// The same of a pool in which what is new counts more than what is old: if nobody has more than
    /// this one would have, it loses some of its own.
    ///
    /// # Errors
    ///
    /// Nothing of it can go; nothing was taken.
    pub fn take_from_most_or_own(
        &mut self,
        owner: (OrgId, P),
        amount: u64,
        evict: impl FnMut(OrgId, P) -> u64,
    ) -> Result<(), OverShare> {
        self.take_evicting(owner, amount, true, evict)
    }

    fn take_evicting(
        &mut self,
        (org, who): (OrgId, P),
        amount: u64,
        or_own: bool,
        mut evict: impl FnMut(OrgId, P) -> u64,
    ) -> Result<(), OverShare> {
        while let Err(over) = self.check(org, who, amount) {
            let refused = || self.count_refused(org);
            let most = self.makes_way(org, who, amount).or(or_own.then_some((org, who)));
            let (loser, principal) = most.ok_or(over).inspect_err(|_| refused())?;
            let gone = evict(loser, principal);
            if gone == 0 {
                refused();
                return Err(over);
            }
            self.evict(loser, principal, gone);
        }
        self.hold(org, who, amount);
        Ok(())
    }

    /// Counts that somebody got no more: by [`Shares::has_room`], or for a bound of the caller's.
    pub fn count_refused(&self, org: OrgId) {
        self.pools.note_refused(self.pool, org);
    }

    /// The same, of this pool or of the one that it is a part of.
    pub fn count_over(&self, org: OrgId, over: OverShare) {
        self.pools.note_refused(over.pool, org);
    }

    /// Notes what is held already, whatever the bound: found in the store, or allowed before.
    pub fn hold(&mut self, org: OrgId, who: P, amount: u64) {
        if amount == 0 {
            return;
        }
        let tenant = self.tenant(org);
        self.tenant_of.insert(org, tenant);
        self.tenants.add(tenant, amount);
        self.orgs.entry(tenant).or_default().add(org, amount);
        self.principals.entry(org).or_default().add(who, amount);
        self.note_used();
        if let Some(whole) = &self.whole {
            whole.hold(org, who, amount);
        }
    }

    /// Takes so much from somebody who makes way for others.
    pub fn evict(&mut self, org: OrgId, who: P, amount: u64) {
        self.give_back(org, who, amount);
        self.usage.count_evicted();
    }

    /// Who holds most: of the tenant that holds most, there of the organisation that does, and there
    /// the principal. None if nobody holds anything.
    pub fn most(&self) -> Option<(OrgId, P)> {
        let (_, tenant) = self.tenants.most()?;
        let (_, org) = self.orgs.get(&tenant)?.most()?;
        let (_, principal) = self.principals.get(&org)?.most()?;
        Some((org, principal))
    }

    /// Gives so much back.
    pub fn give_back(&mut self, org: OrgId, who: P, amount: u64) {
        let Some(principals) = self.principals.get_mut(&org) else { return };
        let amount = principals.remove(who, amount);
        if principals.held == 0 {
            self.principals.remove(&org);
        }
        let Some(tenant) = self.tenant_of.get(&org).copied() else { return };
        self.tenants.remove(tenant, amount);
        if let Some(orgs) = self.orgs.get_mut(&tenant) {
            orgs.remove(org, amount);
            if orgs.of(&org) == 0 {
                self.tenant_of.remove(&org);
            }
            if orgs.held == 0 {
                self.orgs.remove(&tenant);
            }
        }
        self.note_used();
        if let Some(whole) = &self.whole {
            whole.give_back(org, who, amount);
        }
    }

    /// All that is held.
    pub const fn held(&self) -> u64 {
        self.tenants.held
    }

    /// The bound.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Sets the bound. Who has more than it allows keeps it.
    pub fn set_max(&mut self, max: u64) {
        self.max = max;
        self.usage.set_max(max);
    }

    /// What an organisation holds.
    pub fn held_by(&self, org: OrgId) -> u64 {
        self.principals.get(&org).map_or(0, |principals| principals.held)
    }

    /// What a principal holds in an organisation.
    pub fn held_by_principal(&self, org: OrgId, who: P) -> u64 {
        self.principals.get(&org).map_or(0, |principals| principals.of(&who))
    }

    /// Who loses some, so that this principal gets it: one of the tenant that holds most, or of its
    /// own if no other holds more; there and in the organisation it is found in the same way. None
    /// if everybody else has no more than it would have.
    pub fn makes_way(&self, org: OrgId, who: P, amount: u64) -> Option<(OrgId, P)> {
        let tenant = self.tenant(org);
        if self.tenants.above(&tenant, amount).is_some() {
            return self.most();
        }
        if let Some(most) = self.orgs.get(&tenant)?.above(&org, amount) {
            let (_, principal) = self.principals.get(&most)?.most()?;
            return Some((most, principal));
        }
        Some((org, self.principals.get(&org)?.above(&who, amount)?))
    }

    fn tenant(&self, org: OrgId) -> OrgId {
        self.tenant_of.get(&org).copied().unwrap_or_else(|| self.pools.tenant_of(org))
    }

    fn check(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        self.check_own(org, who, amount)?;
        self.whole.as_ref().map_or(Ok(()), |whole| whole.check(org, who, amount))
    }

    fn reserve(&self, max: u64) -> u64 {
        self.reserve.map_or_else(|| reserve(max), |reserve| reserve.min(max))
    }

    fn check_own(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        let over = |whose| Err(OverShare { pool: self.pool, whose });
        let stays = self.pool.info().makes_way == MakesWay::Nobody;
        let usable = |max| max - if stays { self.reserve(max) } else { 0 };
        let tenant = self.tenant(org);
        let Some(max) = self.tenants.may_have(&tenant, amount, self.max, usable) else {
            return over(Whose::Org);
        };
        if self.tenants.held.saturating_add(amount) > self.max {
            return over(Whose::Everybody);
        }
        if !stays {
            return Ok(());
        }
        let nobody = Level::default();
        let orgs = self.orgs.get(&tenant).unwrap_or(&nobody);
        let Some(max) = orgs.may_have(&org, amount, max, usable) else {
            return over(Whose::Org);
        };
        let nobody = Level::default();
        let principals = self.principals.get(&org).unwrap_or(&nobody);
        if principals.held.saturating_add(amount) > self.org_max {
            return over(Whose::Org);
        }
        let max = max.min(self.org_max);
        match principals.may_have(&who, amount, max, usable) {
            Some(_) => Ok(()),
            None => over(Whose::Principal),
        }
    }
}

/// Of what nobody makes way for, this part is for those below their share: a sixteenth, and of a
/// few at least one.
const fn reserve(max: u64) -> u64 {
    match max {
        0..8 => 0,
        8..16 => 1,
        _ => max / 16,
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

    /// How much of `max` is this one's to use if it may have so much more: what is `usable` beside the
    /// reserve, or its equal part. None if it may not.
    fn may_have(&self, key: &K, amount: u64, max: u64, usable: impl Fn(u64) -> u64) -> Option<u64> {
        let usable = usable(max);
        if self.held.saturating_add(amount) <= usable {
            return Some(usable);
        }
        let share = max / self.parts_with(key);
        (self.of(key).saturating_add(amount) <= share).then_some(share)
    }

    /// Who holds most, if that is more than this one would.
    fn above(&self, key: &K, amount: u64) -> Option<K> {
        let own = self.of(key).saturating_add(amount);
        let (held, most) = self.most()?;
        (most != *key && held > own).then_some(most)
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

/// The level up to which each gets what it wants, if `room` is shared max-min; above all wishes, if
/// there is room for them.
pub fn level(wanted: &[u64], mut room: u64) -> u64 {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    let mut left = wanted.len() as u64;
    for want in wanted {
        if want > room / left {
            return room / left;
        }
        (room, left) = (room - want, left - 1);
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::POOLS;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 12])
    }

    /// A pool of which nothing is taken away.
    fn that_stay(max: u64) -> Shares<u8> {
        Shares::new(Pool::Sessions, max, &Arc::default())
    }

    /// A pool of which holders make way.
    fn that_make_way(max: u64) -> Shares<u8> {
        Shares::new(Pool::LongWork, max, &Arc::default())
    }

    /// Takes one after the other until it is refused.
    fn fill(shares: &mut Shares<u8>, org: OrgId, who: u8) -> (u64, Whose) {
        for taken in 0.. {
            if let Err(over) = shares.take(org, who, 1) {
                return (taken, over.whose);
            }
        }
        unreachable!("there is a bound")
    }

    #[test]
    fn who_is_alone_may_hold_nearly_all_and_others_find_room() {
        let mut shares = that_stay(4096);
        // A sixteenth is left for other tenants, for other organisations, and for their people.
        assert_eq!(fill(&mut shares, org(1), 1), (3375, Whose::Principal));
        assert_eq!(fill(&mut shares, org(1), 2), (225, Whose::Org));
        assert_eq!(fill(&mut shares, org(2), 1), (496, Whose::Everybody));
        assert_eq!(shares.take(org(1), 1, 1).map_err(|over| over.whose), Err(Whose::Org));
        shares.give_back(org(1), 1, 3375);
        assert!(shares.take(org(1), 2, 1).is_ok(), "there is room again");
        assert_eq!((shares.held(), shares.held_by(org(2))), (722, 496));
    }

    #[test]
    fn pools_have_no_more_than_their_parts_of_the_memory() {
        let pools = Arc::<Pools>::default();
        let max = |pool, max| Shares::<u8>::new(pool, max, &pools).max();
        assert_eq!(max(Pool::EndedSessions, 100_000), 100_000);
        pools.set_memory_bytes(8 * 1024 * 1024);
        assert_eq!((max(Pool::EndedSessions, 100_000), max(Pool::EndedSessions, 5)), (256, 5));
        assert_eq!(max(Pool::Series, 100_000_000), 100_000_000, "they take none");
        let mut mails = Shares::new(Pool::MailBytes, u64::MAX, &pools);
        let mut ended = Shares::new(Pool::EndedSessions, 100, &pools);
        mails.hold(org(1), 1, 77);
        ended.hold(org(1), 1, 2);
        assert_eq!(pools.memory_taken(), 77 + 2 * 1024);
        let parts = POOLS.iter().filter_map(|(_, info)| info.memory);
        let all: f64 = parts.map(|takes| 1.0 / takes.part as f64).sum();
        assert!((0.9..1.1).contains(&all), "{all}");
    }

    #[test]
    fn an_organisation_has_no_more_than_it_may() {
        let mut shares = that_stay(4096).with_org_max(64);
        assert_eq!(fill(&mut shares, org(1), 1), (60, Whose::Principal));
        assert_eq!(fill(&mut shares, org(1), 2), (4, Whose::Org));
        assert_eq!(shares.take(org(1), 1, 0), Ok(()), "nothing is always there");
        assert_eq!(fill(&mut shares, org(2), 1), (60, Whose::Principal));
    }

    #[test]
    fn who_makes_organisations_below_gets_no_more() {
        let pools = Arc::<Pools>::default();
        pools.add_org(org(1), Some(org(0)));
        pools.add_org(org(2), Some(org(0)));
        pools.add_org(org(0), Some(org(9)));
        (10..30).for_each(|below| pools.add_org(org(below), Some(org(1))));
        pools.add_org(org(1), Some(org(9)));
        let mut shares = Shares::new(Pool::LongWork, 100, &pools);
        for below in 10..30 {
            (0..5).for_each(|_| shares.take(org(below), 0_u8, 1).expect("room"));
        }
        // The other tenant has its half against all twenty.
        for _ in 0..50 {
            let (loser, who) = shares.makes_way(org(2), 0, 1).expect("those have more");
            shares.give_back(loser, who, 1);
            shares.take(org(2), 0, 1).expect("room was made");
        }
        assert_eq!(shares.makes_way(org(2), 0, 1), None);
        let (loser, _) = shares.makes_way(org(1), 0, 1).expect("of its own tenant's");
        assert!((10..30).any(|below| org(below) == loser));
    }

    #[test]
    fn who_holds_most_is_found_in_the_tenant_that_does() {
        let pools = Arc::<Pools>::default();
        pools.add_org(org(0), Some(org(9)));
        (1..4).for_each(|below| pools.add_org(org(below), Some(org(0))));
        pools.add_org(org(4), Some(org(9)));
        pools.add_org(org(9), None);
        let mut shares = Shares::new(Pool::Memory, 100, &pools);
        assert_eq!(shares.most(), None);
        (1..4).for_each(|below| shares.hold(org(below), below, 20 + u64::from(below)));
        shares.hold(org(4), 1, 50);
        assert_eq!(shares.most(), Some((org(3), 3)));
        shares.evict(org(3), 3, 23);
        assert_eq!(shares.most(), Some((org(4), 1)));
    }

    #[test]
    fn room_is_made_until_it_suffices() {
        let mut shares = that_make_way(10);
        shares.hold(org(1), 1, 10);
        let mut gone = 0;
        let evict = |_, _| {
            gone += 3;
            3
        };
        assert_eq!(shares.take_from_most((org(2), 1), 5, evict), Ok(()));
        assert_eq!((gone, shares.held_by(org(1)), shares.held()), (6, 4, 9));
        assert!(shares.take_from_most((org(2), 1), 2, |_, _| 1).is_err());
    }

    #[test]
    fn what_is_new_may_take_the_place_of_ones_own() {
        let mut shares = that_make_way(3);
        shares.hold(org(1), 1, 3);
        assert!(shares.take_from_most((org(1), 1), 1, |_, _| 1).is_err());
        let mut gone = Vec::new();
        let evict = |org, who| {
            gone.push((org, who));
            1
        };
        assert_eq!(shares.take_from_most_or_own((org(1), 1), 1, evict), Ok(()));
        assert_eq!((gone, shares.held()), (vec![(org(1), 1)], 3));
        assert!(shares.take_from_most_or_own((org(1), 1), 1, |_, _| 0).is_err(), "none can go");
    }

    #[test]
    fn who_holds_most_makes_way() {
        let mut shares = that_make_way(10);
        assert_eq!(fill(&mut shares, org(1), 1), (10, Whose::Org));
        assert_eq!(shares.take(org(2), 1, 1).map_err(|over| over.whose), Err(Whose::Everybody));
        assert_eq!(shares.makes_way(org(1), 1, 1), None, "nobody loses for himself");
        assert_eq!(shares.makes_way(org(1), 2, 1), Some((org(1), 1)));
        assert_eq!(shares.makes_way(org(2), 1, 1), Some((org(1), 1)));
        assert_eq!(shares.makes_way(org(2), 1, 10), None);
    }

    #[test]
    fn nothing_is_left_of_who_gave_all_back() {
        let mut shares = that_stay(10);
        shares.hold(org(1), 1, 100);
        assert!(shares.take(org(1), 1, 1).is_err());
        shares.give_back(org(1), 1, 1000);
        shares.give_back(org(2), 1, 1);
        assert_eq!(shares.held(), 0);
        assert!(shares.principals.is_empty() && shares.orgs.is_empty());
        assert!(shares.tenants.by_held.is_empty() && shares.tenant_of.is_empty());
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
        /// What each gets up to the level fills the room, unless all get what they want.
        #[test]
        fn the_level_is_max_min(
            wanted in proptest::collection::vec(0u64..1_000_000, 1..20),
            room in 0u64..5_000_000,
        ) {
            let level = level(&wanted, room);
            let got: u64 = wanted.iter().map(|want| *want.min(&level)).sum();
            let above = wanted.iter().filter(|want| **want > level).count() as u64;
            prop_assert!(got <= room);
            prop_assert!(level == u64::MAX || room - got < above, "{level} {got}");
            prop_assert_eq!(level == u64::MAX, wanted.iter().sum::<u64>() <= room);
        }

        /// Whoever comes in whatever order, all end up with what is fair, to within one.
        #[test]
        fn what_makes_way_is_shared_max_min(
            wanted in proptest::collection::vec(0u64..40, 1..6),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..400),
        ) {
            let mut shares = that_make_way(60);
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
            let mut shares = that_stay(200);
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
                let room = shares.room(org(number), who);
                prop_assert!(room == 0 || shares.has_room(org(number), who, room).is_ok());
                prop_assert!(shares.has_room(org(number), who, room + 1).is_err());
                prop_assert!(shares.held() <= 200);
            }
        }
    }

    fn prop_assert_ok(taken: Result<(), OverShare>) {
        assert_eq!(taken, Ok(()), "room was made");
    }
}
