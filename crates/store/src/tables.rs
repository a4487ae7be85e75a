//! The store and its writer as one, so that a reader sees what was submitted a moment ago and is
//! not committed yet.
//!
//! Errors of the functions here are the store's.

use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use base::pool::Pools;
use base::yield_point::{self, Paused};
use parking_lot::{Mutex, MutexGuard};

use super::writer::{Durability, Receipt, Writer};
use super::{Batch, Month, Row, Store, StoreError, Table};

/// Locks for changes of records that are read first; an owner has one of them. A batch of points holds
/// one for as long as a tenth of a second, for which so few others wait.
const LOCKS: usize = 1024;

/// The tables. A clone is a second handle of the same ones.
#[derive(Clone)]
pub struct Tables {
    store: Arc<dyn Store>,
    writer: Writer,
    locks: Arc<[Mutex<()>; LOCKS]>,
    /// Nobody can tell which owners have the same lock, and choose theirs for that.
    hasher: RandomState,
}

impl Tables {
    /// The tables of a store, whose writer starts now.
    pub fn new(store: Arc<dyn Store>, durability: Durability, pools: &Arc<Pools>) -> Self {
        let writer = Writer::spawn(store.clone(), durability, pools);
        let locks = Arc::new(std::array::from_fn(|_| Mutex::new(())));
        Self { store, writer, locks, hasher: RandomState::new() }
    }

    /// The store itself: what is committed.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The writer.
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The value of a key, as it will be when all that was submitted is committed.
    pub fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writer.waiting_value(table, key) {
            Some(value) => Ok(value),
            None => self.store.read(table, key),
        }
    }

    /// At most `limit` committed rows, in ascending order of keys.
    pub fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.scan(table, from, to, limit)
    }

    /// At most `limit` committed rows whose keys begin so, in ascending order, after `after` if it
    /// is given.
    pub fn scan_prefix(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let end = end_of(prefix);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.store.scan(table, from, to, limit)
    }

    /// At most `limit` committed rows, in descending order of keys.
    pub fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.scan_back(table, from, to, limit)
    }

    /// The months that have telemetry, in order.
    pub fn months(&self) -> Vec<Month> {
        let months = self.store.months().into_iter();
        months
            .filter_map(|table| if let Table::Telemetry(m) = table { Some(m) } else { None })
            .collect()
    }

    /// The months of the connection history, in order.
    pub fn connection_months(&self) -> Vec<Month> {
        let months = self.store.months().into_iter();
        months
            .filter_map(|table| if let Table::Connections(m) = table { Some(m) } else { None })
            .collect()
    }

    /// Submits changes, as [`Writer::submit`] says.
    ///
    /// # Errors
    /// There is no room, or the store is closed.
    pub fn submit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        self.writer.submit(batch)
    }

    /// Submits a change that takes something away, as [`Writer::submit_removal`] says.
    ///
    /// # Errors
    /// The store is closed.
    pub fn submit_removal(&self, batch: Batch) -> Result<Receipt, StoreError> {
        self.writer.submit_removal(batch)
    }

    /// Submits changes that were found to have room, as [`Writer::submit_admitted`] says.
    ///
    /// # Errors
    /// There is no room on the disk, or the store is closed.
    pub fn submit_admitted(&self, batch: Batch) -> Result<Receipt, StoreError> {
        self.writer.submit_admitted(batch)
    }

    /// Keeps others from changing what belongs to this owner: to be held from the reading of a
    /// record to the handing over of its change, never across an await, and only one at a time.
    pub fn exclusive(&self, owner: &[u8]) -> Exclusive<'_> {
        let lock = self.locks[self.lock_of(owner)].lock();
        Exclusive { _lock: lock, _paused: yield_point::pause() }
    }

    fn lock_of(&self, owner: &[u8]) -> usize {
        self.hasher.hash_one(owner) as usize % LOCKS
    }
}

/// Nobody else changes what belongs to an owner until this is dropped. Others wait for it, so that
/// long work yields nowhere meanwhile.
pub struct Exclusive<'t> {
    _lock: MutexGuard<'t, ()>,
    _paused: Paused,
}

/// The first key behind all keys that begin so; none if there is no such key.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[test]
    fn which_owners_share_a_lock_is_another_matter_in_each_server() {
        let tables = || Tables::new(Arc::new(MemoryStore::new()), Durability::Os, &Arc::default());
        let locks = |tables: &Tables| -> Vec<_> {
            (0..64_u8).map(|owner| tables.lock_of(&[owner])).collect()
        };
        let (one, other) = (tables(), tables());
        assert_ne!(locks(&one), locks(&other));
        assert_eq!(locks(&one), locks(&one.clone()));
    }

    #[tokio::test]
    async fn rows_with_a_prefix_come_in_pages() {
        let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os, &Arc::default());
        let mut batch = Batch::default();
        for key in [&[1, 0xff][..], &[1, 0xff, 0], &[1, 0xff, 0xff], &[2], &[0xff, 0xff]] {
            batch.put(Table::Mails, key, "");
        }
        tables.submit(batch).expect("room").await.expect("committed");
        let keys = |prefix: &[u8], after, limit| -> Vec<Vec<u8>> {
            let rows = tables.scan_prefix(Table::Mails, prefix, after, limit).expect("scan");
            rows.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&[1, 0xff], None, 2), [vec![1, 0xff], vec![1, 0xff, 0]]);
        assert_eq!(keys(&[1, 0xff], Some(&[1, 0xff, 0]), 9), [vec![1, 0xff, 0xff]]);
        assert_eq!(keys(&[0xff], None, 9), [vec![0xff, 0xff]]);
        assert_eq!(keys(&[], None, 9).len(), 5);
        assert_eq!(tables.read(Table::Mails, &[2]).expect("read"), Some(Vec::new()));
    }
}
