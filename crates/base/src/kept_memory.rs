//! The memory that what is held of pools takes, such as sessions, subscriptions and mails: of all pools
//! together there is a bound, which is shared as each of them is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::{OverShare, Pool, Usage};
use crate::shares::{Bounds, Holders};
use crate::{OrgId, PrincipalId};

/// The memory, and who holds how much of it; of whom it isn't known which principal it is, an
/// organisation has one.
#[derive(Debug)]
pub(crate) struct KeptMemory {
    /// Of the pool; without a bound it has a limit of 0.
    usage: Arc<Usage>,
    holders: Mutex<Holders<Option<PrincipalId>>>,
}

impl KeptMemory {
    pub(crate) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, holders: Mutex::default() }
    }

    /// Whether so much more could be held.
    pub(crate) fn check(
        &self,
        tenant: OrgId,
        holder: (OrgId, Option<PrincipalId>),
        bytes: u64,
    ) -> Result<(), OverShare> {
        let max = self.usage.max();
        if bytes == 0 || max == 0 {
            return Ok(());
        }
        let bounds = Bounds { max, org_max: u64::MAX, reserve: None, stays: true };
        let checked = self.lock().check(tenant, holder, bytes, &bounds);
        checked.map_err(|whose| OverShare { pool: Pool::KeptMemory, whose })
    }

    pub(crate) fn hold(&self, tenant: OrgId, (org, who): (OrgId, Option<PrincipalId>), bytes: u64) {
        if bytes > 0 {
            let mut holders = self.lock();
            let tenant = holders.tenant(org).unwrap_or(tenant);
            holders.hold(tenant, org, who, bytes);
            self.usage.set_used(holders.held());
        }
    }

    pub(crate) fn give_back(&self, (org, who): (OrgId, Option<PrincipalId>), bytes: u64) {
        if bytes > 0 {
            let mut holders = self.lock();
            holders.give_back(org, who, bytes);
            self.usage.set_used(holders.held());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders<Option<PrincipalId>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
