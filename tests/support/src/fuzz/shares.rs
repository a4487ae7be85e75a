//! Steps on a shared pool, and on a plain map of who holds what.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::OrgId;
use base::pool::{Pool, Pools};
use base::shares::Shares;

use super::Target;

/// The tenant of each organisation; all are below the topmost, which is none of them.
const TENANTS: [u8; 6] = [0, 1, 2, 0, 0, 1];

/// What is above each of those that are no tenants.
const ABOVE: [(u8, u8); 3] = [(3, 0), (4, 3), (5, 1)];

const TOPMOST: u8 = 100;

/// Steps of one input.
const STEPS_MAX: usize = 200;

/// A pool, made anew for each input: the first byte says how much there is, and whether holders make
/// way. Each three bytes are a step: what it is, by whom, and how much.
pub struct SharesSteps;

impl Target for SharesSteps {
    const NAME: &'static str = "shares";

    fn new() -> Self {
        Self
    }

    fn check(&mut self, data: &[u8]) {
        let Some((size, steps)) = data.split_first() else { return };
        let mut model = Model::new(*size);
        for step in steps.chunks_exact(3).take(STEPS_MAX) {
            let who = (step[1] % TENANTS.len() as u8, step[1] / TENANTS.len() as u8 % 3);
            model.step(step[0], who, u64::from(step[2] % 40) + 1);
            model.compare();
        }
    }
}

/// An organisation and a principal in it.
type Holder = (u8, u8);

struct Model {
    shares: Shares<u8>,
    pools: Arc<Pools>,
    max: u64,
    stays: bool,
    held: BTreeMap<Holder, u64>,
}

impl Model {
    fn new(size: u8) -> Self {
        let pools = Arc::<Pools>::default();
        pools.add_org(org(TOPMOST), None);
        for tenant in 0..3 {
            pools.add_org(org(tenant), Some(org(TOPMOST)));
        }
        ABOVE.iter().for_each(|(below, above)| pools.add_org(org(*below), Some(org(*above))));
        let (max, stays) = (u64::from(size >> 1) * 3, size & 1 == 0);
        let pool = if stays { Pool::Sessions } else { Pool::LongWork };
        let shares = Shares::new(pool, max, &pools);
        Self { shares, pools, max, stays, held: BTreeMap::new() }
    }

    fn step(&mut self, what: u8, who: Holder, amount: u64) {
        let before = self.total();
        match what % 8 {
            0..=2 => {
                let entitled = self.is_entitled(who, amount);
                match self.shares.take(org(who.0), who.1, amount) {
                    Ok(()) => {
                        *self.held.entry(who).or_default() += amount;
                        assert!(before + amount <= self.max, "more than there is");
                    }
                    Err(over) => {
                        assert!(!entitled, "{who:?} is below its share: {over}");
                        assert!(self.stays || before + amount > self.max, "there was room");
                    }
                }
            }
            3 | 4 => {
                let held = self.held.entry(who).or_default();
                *held -= amount.min(*held);
                self.shares.give_back(org(who.0), who.1, amount);
            }
            5 => {
                *self.held.entry(who).or_default() += amount;
                self.shares.hold(org(who.0), who.1, amount);
            }
            6 => self.take_from_most(who, amount),
            _ => {
                if let Some(most) = self.shares.makes_way(org(who.0), who.1, amount) {
                    self.check_loser(who, amount, most);
                }
            }
        }
        self.held.retain(|_, held| *held > 0);
    }

    fn take_from_most(&mut self, who: Holder, amount: u64) {
        if self.stays {
            return;
        }
        let mut lost = Vec::new();
        let taken = self.shares.take_from_most((org(who.0), who.1), amount, |org, principal| {
            lost.push((org, principal));
            1
        });
        for (org, principal) in lost {
            self.check_loser(who, amount, (org, principal));
            let loser = (org.as_bytes()[0], principal);
            *self.held.get_mut(&loser).expect("it held some") -= 1;
        }
        match taken {
            Ok(()) => {
                *self.held.entry(who).or_default() += amount;
                assert!(self.total() <= self.max, "more than there is");
            }
            Err(over) => assert!(!self.is_entitled(who, amount), "{who:?}: {over}"),
        }
    }

    /// Who makes way has more, there where the two part.
    fn check_loser(&self, who: Holder, amount: u64, (loser, principal): (OrgId, u8)) {
        let loser = (loser.as_bytes()[0], principal);
        let tenant = |holder: Holder| TENANTS[usize::from(holder.0)];
        let level = |of: &dyn Fn(Holder) -> bool| -> u64 {
            self.held.iter().filter(|(holder, _)| of(**holder)).map(|(_, held)| held).sum()
        };
        let (more, own) = if tenant(who) != tenant(loser) {
            (level(&|h| tenant(h) == tenant(loser)), level(&|h| tenant(h) == tenant(who)))
        } else if who.0 != loser.0 {
            (level(&|h| h.0 == loser.0), level(&|h| h.0 == who.0))
        } else {
            assert_ne!(who, loser, "nobody makes way for himself");
            (level(&|h| h == loser), level(&|h| h == who))
        };
        assert!(more > own + amount, "{loser:?} has {more}, {who:?} has {own} and wants {amount}");
    }

    /// Whether this much is at most an equal part at each level, and there is room.
    fn is_entitled(&self, who: Holder, amount: u64) -> bool {
        let tenant = |holder: &Holder| TENANTS[usize::from(holder.0)];
        let below = |part: u64, key: &dyn Fn(&Holder) -> Option<u8>| {
            let mut all: BTreeMap<u8, u64> = BTreeMap::new();
            for (holder, held) in &self.held {
                if let Some(key) = key(holder) {
                    *all.entry(key).or_default() += held;
                }
            }
            let own = key(&who).expect("its own level");
            let parts = all.len() as u64 + u64::from(!all.contains_key(&own)) + 1;
            let part = part / parts;
            (part, all.get(&own).copied().unwrap_or(0) + amount <= part)
        };
        let (part, of_tenant) = below(self.max, &|h| Some(tenant(h)));
        let own_tenant = tenant(&who);
        let (part, of_org) = below(part, &|h| (tenant(h) == own_tenant).then_some(h.0));
        let (_, of_principal) = below(part, &|h| (h.0 == who.0).then_some(h.1));
        let room = self.total() + amount <= self.max;
        of_tenant && of_org && of_principal && room
    }

    fn total(&self) -> u64 {
        self.held.values().sum()
    }

    fn compare(&self) {
        assert_eq!(self.shares.held(), self.total());
        for number in 0..TENANTS.len() as u8 {
            let own = self.held.iter().filter(|(holder, _)| holder.0 == number);
            assert_eq!(self.shares.held_by(org(number)), own.map(|(_, held)| held).sum::<u64>());
        }
        let pool = if self.stays { Pool::Sessions } else { Pool::LongWork };
        assert_eq!(self.pools.usage(pool).used(), self.total());
    }
}

fn org(number: u8) -> OrgId {
    OrgId::from_bytes([number; 12])
}
