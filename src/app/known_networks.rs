//! The networks from which somebody has logged in, which tell them from strangers who guess there. They
//! are shared: with no room for another, whoever has most loses the one that came first.

use std::collections::hash_map::HashMap;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use base::OrgId;
use base::pool::{Pool, Pools};
use base::shares::Shares;

/// The networks of each `P`, of the organisation whose share they are.
pub(super) struct KnownNetworks<P> {
    known: HashSet<(IpAddr, P)>,
    oldest_first: HashMap<(OrgId, P), VecDeque<IpAddr>>,
    shares: Shares<P>,
}

impl<P: Copy + Ord + Hash> KnownNetworks<P> {
    /// None yet, and at most so many.
    pub(super) fn new(pool: Pool, max: usize, pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(pool, max as u64, pools);
        Self { known: HashSet::new(), oldest_first: HashMap::new(), shares }
    }

    /// Whether this one has logged in from there.
    pub(super) fn knows(&self, network: IpAddr, who: P) -> bool {
        self.known.contains(&(network, who))
    }

    /// Notes that this one has.
    pub(super) fn know(&mut self, network: IpAddr, payer: (OrgId, P)) {
        if self.knows(network, payer.1) {
            return;
        }
        let Self { known, oldest_first, shares } = self;
        let taken = shares.take_from_most_or_own(payer, 1, |org, who| {
            let Some(order) = oldest_first.get_mut(&(org, who)) else { return 0 };
            let oldest = order.pop_front();
            if order.is_empty() {
                oldest_first.remove(&(org, who));
            }
            oldest.map_or(0, |oldest| u64::from(known.remove(&(oldest, who))))
        });
        if taken.is_ok() {
            known.insert((network, payer.1));
            oldest_first.entry(payer).or_default().push_back(network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_loses_the_oldest_and_others_stay_known() {
        const MAX: u32 = 100;
        let pool = Pool::KnownUsers;
        let mut networks = KnownNetworks::new(pool, MAX as usize, &Arc::default());
        let network = |number: u32| IpAddr::from(number.to_be_bytes());
        let payer = |number: u8| (OrgId::from_bytes([number / 10; 12]), number);
        networks.know(network(0), payer(10));
        // One of many networks, and many in one organisation.
        (1..2 * MAX).for_each(|number| networks.know(network(number), payer(20)));
        (21..30).for_each(|who| networks.know(network(0), payer(who)));
        assert_eq!((networks.known.len(), networks.shares.held()), (MAX as usize, MAX.into()));
        assert!(networks.knows(network(0), 10) && !networks.knows(network(0), 11));
        assert!((21..30).all(|who| networks.knows(network(0), who)));
        let left = (1..2 * MAX).filter(|number| networks.knows(network(*number), 20));
        assert!(left.eq(2 * MAX - (MAX - 10)..2 * MAX), "the oldest have gone");
    }
}
