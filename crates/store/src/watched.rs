//! A store for tests: it reports what is committed, and can hold commits back or make them fail.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::memory::MemoryStore;
use super::{Batch, Room, Row, Store, StoreError, Table};

/// A step of storing at which a disk can be full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Before anything of a group is written.
    Begin,
    /// Behind its first batch.
    Halfway,
    /// When all is written, before the engine says so.
    End,
    /// When it is made to survive the loss of power.
    Sync,
}

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
    /// Whether commits fail for good.
    pub failing: AtomicBool,
    /// Where its disk is full until this is taken back: it recovers from that.
    pub full: Mutex<Option<Step>>,
    /// The changes of the largest batch.
    pub largest: AtomicUsize,
}

impl Watched {
    fn fail_at(&self, step: Step) -> Result<(), StoreError> {
        if *self.full.lock() != Some(step) {
            return Ok(());
        }
        let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
        Err(StoreError::Engine { doing: "write", source })
    }
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

    fn months(&self) -> Vec<Table> {
        self.inner.months()
    }

    fn drop_month(&self, partition: Table) -> Result<(), StoreError> {
        self.inner.drop_month(partition)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.lock();
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        let largest = batches.iter().map(|batch| batch.0.len()).max().unwrap_or(0);
        self.largest.fetch_max(largest, Ordering::SeqCst);
        self.fail_at(Step::Begin)?;
        if let Some((first, rest)) = batches.split_first() {
            self.inner.commit(std::slice::from_ref(first))?;
            self.fail_at(Step::Halfway)?;
            self.inner.commit(rest)?;
        }
        self.fail_at(Step::End)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.fail_at(Step::Sync)
    }

    fn recovers(&self, wait: Duration) -> bool {
        crate::pause(wait / 100);
        true
    }

    fn room(&self) -> &Arc<Room> {
        self.inner.room()
    }
}
