//! A store for tests: it reports what is committed, and can hold commits back or make them fail.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::memory::MemoryStore;
use super::{Batch, Month, Room, Row, Store, StoreError, Table};

/// A store in memory whose commits wait for the gate, and fail on demand.
#[derive(Default)]
pub struct Watched {
    inner: MemoryStore,
    /// Whoever locks it holds up all commits.
    pub gate: Mutex<()>,
    /// Commits that were asked for.
    pub commits: AtomicUsize,
    /// Syncs.
    pub syncs: AtomicUsize,
    /// Whether commits fail.
    pub failing: AtomicBool,
    /// The changes of the largest batch.
    pub largest: AtomicUsize,
}

impl Store for Watched {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.read(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.scan(table, from, to, limit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.scan_back(table, from, to, limit)
    }

    fn months(&self) -> Vec<Month> {
        self.inner.months()
    }

    fn drop_month(&self, month: Month) -> Result<(), StoreError> {
        self.inner.drop_month(month)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.lock();
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        let largest = batches.iter().map(|batch| batch.0.len()).max().unwrap_or(0);
        self.largest.fetch_max(largest, Ordering::SeqCst);
        self.inner.commit(batches)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync()
    }

    fn room(&self) -> &Arc<Room> {
        self.inner.room()
    }
}
