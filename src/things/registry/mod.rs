//! The registry of things, by organisation: names, identifiers, definitions, bindings, and when
//! they were last seen.
//!
//! A fleet may have a million of them, so they stay in the store and are read when they are asked
//! for; only their number is in memory, by whose share they are.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::sync::Arc;

use base::pool::{Pool, Pools};
use parking_lot::Mutex;
use store::{StoreError, Tables};

use super::tally::Tally;

mod change;
mod login;
mod rows;
mod seen;
mod thing;

pub use change::{NotAdded, ThingConflict};
pub use login::Found;
pub use seen::Seen;
pub use thing::{Alias, Thing};

/// The things of a store.
pub struct Things {
    tables: Tables,
    /// How many there are.
    tally: Tally,
    /// Held, behind the lock of a thing, while it claims identifiers that no other may have.
    aliases: Mutex<()>,
}

impl Things {
    /// The things of a store, which may have `max`.
    pub fn open(tables: Tables, max: u64, pools: &Arc<Pools>) -> Result<Self, StoreError> {
        let count = |found: &mut dyn FnMut(_)| rows::for_each_payer(tables.store(), found);
        let tally = Tally::open(&tables, (Pool::Things, max), pools, count)?;
        Ok(Self { tables, tally, aliases: Mutex::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::Timestamp;
    use store::{Durability, memory::MemoryStore};

    use super::*;

    pub(super) const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

    /// The things of an empty store, and that store.
    pub(super) fn things() -> (Things, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let tables = Tables::new(store.clone(), Durability::Os);
        (Things::open(tables, 1000, &Arc::default()).expect("empty"), store)
    }
}
