//! The registry of things, by organisation: names, identifiers, definitions, bindings, and when
//! they were last seen.
//!
//! A fleet may have a million of them, so they stay in the store and are read when they are asked
//! for; only their number is in memory.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::collections::HashMap;

use base::OrgId;
use parking_lot::Mutex;
use store::{StoreError, Tables};

mod change;
mod login;
mod rows;
mod seen;
mod thing;

pub use change::ThingConflict;
pub use seen::Seen;
pub use thing::{Alias, Thing};

/// The things of a store.
pub struct Things {
    tables: Tables,
    /// How many things each organisation has.
    counts: Mutex<HashMap<OrgId, u64>>,
    /// Held, behind the lock of a thing, while it claims identifiers that no other may have.
    aliases: Mutex<()>,
}

impl Things {
    /// Counts the things of the store.
    pub fn open(tables: Tables) -> Result<Self, StoreError> {
        let counts = Mutex::new(rows::count_all(tables.store())?);
        Ok(Self { tables, counts, aliases: Mutex::default() })
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
        (Things::open(tables).expect("empty"), store)
    }
}
