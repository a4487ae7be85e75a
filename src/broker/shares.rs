//! What there is a bounded amount of in the broker for all together, and who has how much of it
//! (`docs/limits.md`).

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{OverShare, Pool};
use base::shares::Shares;
use base::{ApplicationId, OrgId, limits};
use parking_lot::Mutex;
use rules::directory::{Principal, PrincipalId};
use store::DiskShares;

use super::BrokerConfig;
use super::session::{Identity, Owner};

/// The disk, which others share, too.
pub(super) type Disk = DiskShares<Option<PrincipalId>>;

/// For whom something is counted: a principal in an organisation.
pub(super) type Holder = (OrgId, PrincipalId);

/// For whom what nobody was noted with is counted, in its organisation: what an earlier program has
/// stored, and what the server publishes itself.
pub(super) const NOBODY: PrincipalId = PrincipalId::Application(ApplicationId::from_bytes([0; 12]));

/// The unit in which what waits in a session is counted: most messages change nothing of it, and so
/// take no lock that all share.
const BLOCK_BYTES: u64 = 4096;

/// What the row of a message that waits takes in the store beside itself, roughly.
const ROW_BYTES: u64 = 64;

/// All but what is retained.
#[derive(Debug)]
pub(super) struct BrokerShares {
    /// Sessions.
    pub sessions: Mutex<Shares<PrincipalId>>,
    /// Their subscriptions.
    pub subscriptions: Mutex<Shares<PrincipalId>>,
    /// Bytes that wait in those that outlive their connections.
    pub waiting: Mutex<Shares<PrincipalId>>,
    /// Bytes of messages that are on their way to many.
    fan_outs: Mutex<Shares<PrincipalId>>,
    filters: Mutex<Filters>,
}

/// Room for a message that is on its way to many; it is given back when this is dropped.
pub(super) struct FanOutPlace {
    shares: Arc<BrokerShares>,
    holder: Holder,
    bytes: u64,
}

impl Drop for FanOutPlace {
    fn drop(&mut self) {
        let (org, who) = self.holder;
        self.shares.fan_outs.lock().give_back(org, who, self.bytes);
    }
}

#[derive(Debug)]
struct Filters {
    filters: Shares<PrincipalId>,
    levels: Shares<PrincipalId>,
}

/// How many filters, or subscriptions, one of this text counts as.
pub(super) const fn places(filter: &str) -> u64 {
    (filter.len() as u64).div_ceil(limits::FILTER_PLACE_BYTES)
}

/// Different filters, and levels of those with wildcards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct InTree {
    pub filters: u64,
    pub levels: u64,
}

/// Where it is counted what a tree has.
pub(super) trait Ledger {
    /// Takes it, if there is room.
    fn take(&mut self, holder: Holder, amount: InTree) -> Result<(), OverShare>;
    /// Notes it, whatever the bound.
    fn hold(&mut self, holder: Holder, amount: InTree);
    /// Gives it back.
    fn give_back(&mut self, holder: Holder, amount: InTree);
}

impl BrokerShares {
    pub(super) fn new(config: &BrokerConfig, disk: &Arc<Disk>) -> Self {
        let shares = |pool, max| Shares::new(pool, max, disk.pools());
        let levels = shares(Pool::WildcardLevels, limits::WILDCARD_LEVELS_MAX);
        Self {
            sessions: Mutex::new(shares(Pool::MqttSessions, config.sessions_max as u64)),
            subscriptions: Mutex::new(shares(Pool::Subscriptions, config.subscriptions_max)),
            waiting: Mutex::new(
                shares(Pool::KeptBytes, config.waiting_bytes_max).within(disk.clone()),
            ),
            fan_outs: Mutex::new(shares(Pool::FanOuts, limits::FAN_OUTS_BYTES_MAX)),
            filters: Mutex::new(Filters {
                filters: shares(Pool::TopicFilters, config.filters_max as u64),
                levels: levels.with_org_max(limits::ORG_WILDCARD_LEVELS_MAX),
            }),
        }
    }

    /// Whether there is room for another session of somebody, with a subscription that takes so many
    /// places.
    pub(super) fn has_room(&self, (org, who): Holder, places: u64) -> bool {
        let has_room =
            |shares: &Shares<PrincipalId>, amount| shares.has_room(org, who, amount).is_ok();
        let Filters { filters, levels } = &*self.filters.lock();
        has_room(&self.sessions.lock(), 1)
            && has_room(&self.subscriptions.lock(), places)
            && has_room(filters, places)
            && has_room(levels, 1)
    }

    /// Takes room for a message of so many bytes that is on its way to many; none if there is none.
    pub(super) fn fan_out(self: &Arc<Self>, holder: Holder, bytes: usize) -> Option<FanOutPlace> {
        let ((org, who), bytes) = (holder, bytes as u64);
        self.fan_outs.lock().take(org, who, bytes).ok()?;
        Some(FanOutPlace { shares: self.clone(), holder, bytes })
    }

    /// Of sessions, subscriptions and bytes that wait, so much is held.
    #[cfg(test)]
    pub(super) fn held(&self) -> [u64; 3] {
        [&self.sessions, &self.subscriptions, &self.waiting].map(|shares| shares.lock().held())
    }

    #[cfg(test)]
    pub(super) fn in_trees_of(&self, (org, who): Holder) -> InTree {
        let held = self.filters.lock();
        let of = |shares: &Shares<PrincipalId>| shares.held_by_principal(org, who);
        InTree { filters: of(&held.filters), levels: of(&held.levels) }
    }

    #[cfg(test)]
    pub(super) fn in_trees(&self) -> InTree {
        let filters = self.filters.lock();
        InTree { filters: filters.filters.held(), levels: filters.levels.held() }
    }
}

/// The one of a running server.
impl Ledger for &BrokerShares {
    fn take(&mut self, (org, who): Holder, amount: InTree) -> Result<(), OverShare> {
        let Filters { filters, levels } = &mut *self.filters.lock();
        filters.take(org, who, amount.filters)?;
        levels
            .take(org, who, amount.levels)
            .inspect_err(|_| filters.give_back(org, who, amount.filters))
    }

    fn hold(&mut self, (org, who): Holder, amount: InTree) {
        let mut held = self.filters.lock();
        held.filters.hold(org, who, amount.filters);
        held.levels.hold(org, who, amount.levels);
    }

    fn give_back(&mut self, (org, who): Holder, amount: InTree) {
        let mut held = self.filters.lock();
        held.filters.give_back(org, who, amount.filters);
        held.levels.give_back(org, who, amount.levels);
    }
}

/// What is found in the store, summed up: there may be a million sessions.
#[derive(Default)]
pub(super) struct Found {
    in_trees: HashMap<Holder, InTree>,
    sessions: HashMap<Holder, (u64, u64)>,
}

impl Found {
    /// A session whose subscriptions take so many places.
    pub(super) fn session(&mut self, holder: Holder, subscribed: u64) {
        let (sessions, subscriptions) = self.sessions.entry(holder).or_default();
        *sessions += 1;
        *subscriptions += subscribed;
    }

    /// Notes all of it.
    pub(super) fn note(self, mut shares: &BrokerShares) {
        for (holder, amount) in self.in_trees {
            shares.hold(holder, amount);
        }
        for ((org, who), (sessions, subscriptions)) in self.sessions {
            shares.sessions.lock().hold(org, who, sessions);
            shares.subscriptions.lock().hold(org, who, subscriptions);
        }
    }
}

impl Ledger for Found {
    /// There was room when it was granted.
    fn take(&mut self, holder: Holder, amount: InTree) -> Result<(), OverShare> {
        self.hold(holder, amount);
        Ok(())
    }

    fn hold(&mut self, holder: Holder, amount: InTree) {
        let held = self.in_trees.entry(holder).or_default();
        held.filters += amount.filters;
        held.levels += amount.levels;
    }

    fn give_back(&mut self, holder: Holder, amount: InTree) {
        let held = self.in_trees.entry(holder).or_default();
        held.filters = held.filters.saturating_sub(amount.filters);
        held.levels = held.levels.saturating_sub(amount.levels);
    }
}

/// For whom a session is counted.
pub(super) fn principal_of(owner: &Owner, identity: Identity) -> PrincipalId {
    match &owner.principal {
        Principal::User(id) => PrincipalId::User(*id),
        Principal::Thing(..) => identity.application.map_or(NOBODY, PrincipalId::Application),
    }
}

/// What so many messages of so many bytes that wait in a session count.
pub(super) const fn waiting_bytes((messages, bytes): (usize, usize)) -> u64 {
    let bytes = bytes as u64 + messages as u64 * ROW_BYTES;
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

#[cfg(test)]
impl Default for BrokerShares {
    fn default() -> Self {
        Self::new(&super::tests::CONFIG, &Arc::default())
    }
}
