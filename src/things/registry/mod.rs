//! The registry of things, by organisation: names, identifiers, definitions, bindings, and when
//! they were last seen.
//!
//! A fleet may have a million of them, so they stay in the store and are read when they are asked
//! for; in memory are their number, by whose share they are, and the texts by which people look
//! for them.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::sync::Arc;

use base::OrgId;
use base::pool::Pool;
use parking_lot::Mutex;
use store::{StoreError, Tables};

use super::stored_bytes::StoredBytes;
use super::tally::Tally;
use texts::Texts;

mod change;
mod login;
mod rows;
mod seen;
mod texts;
mod thing;

pub use change::{NotAdded, ThingConflict};
pub use login::Found;
pub use seen::Seen;
pub use texts::{FoundText, OrgTexts, thing_query};
pub use thing::{Alias, Thing};

/// The things of a store.
pub struct Things {
    tables: Tables,
    /// How many there are.
    tally: Tally,
    bytes: Arc<StoredBytes>,
    /// By what people look for them.
    texts: Texts,
    /// Held, behind the lock of a thing, while it claims identifiers that no other may have.
    aliases: Mutex<()>,
}

impl Things {
    /// The things of a store, which may have `max`.
    pub fn open(tables: Tables, max: u64, bytes: &Arc<StoredBytes>) -> Result<Self, StoreError> {
        let count = |found: &mut dyn FnMut(_)| rows::for_each_payer(tables.store(), found);
        let tally = Tally::open(&tables, (Pool::Things, max), bytes.pools(), count)?;
        let texts = Texts::open(&tables)?;
        Ok(Self { tables, tally, bytes: bytes.clone(), texts, aliases: Mutex::default() })
    }

    /// What is searched of the things of an organisation. It does not touch the disk.
    pub fn texts(&self, org: OrgId) -> OrgTexts {
        self.texts.of(org)
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
        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        (Things::open(tables, 1000, &Arc::default()).expect("empty"), store)
    }
}
