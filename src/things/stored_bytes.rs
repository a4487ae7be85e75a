//! What the data of things takes on the disk, by whose share it is, without reading it at every
//! start.
//!
//! The counts are rows that are stored from time to time: a server that is killed has forgotten the
//! changes of some seconds. What was stored before there were counts is in none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::pool::{OverShare, Pools};
use parking_lot::Mutex;
use smallvec::SmallVec;
use store::{Batch, DiskShares, Month, Receipt, StoreError, Table, Tables};

use super::tally::{bytes_of, payer_of};
use super::{Maker, Payer};

/// The counts of a store.
#[derive(Default)]
pub struct StoredBytes {
    disk: Arc<DiskShares<Maker>>,
    counts: Mutex<Counts>,
}

/// Whose bytes, and of which month's telemetry, with which they go; those of none go one by one.
type Key = (Payer, Option<Month>);

#[derive(Default)]
struct Counts {
    bytes: HashMap<Key, u64>,
    /// Those that are not stored as they are now.
    unsaved: HashSet<Key>,
}

/// How many bytes a change adds or, below zero, removes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Difference {
    /// To each month's points.
    months: SmallVec<[(Month, i64); 1]>,
    /// To what goes with no month.
    rest: i64,
}

impl Difference {
    /// One that goes with no month.
    pub(super) fn new(before: usize, after: usize) -> Self {
        let mut difference = Self::default();
        difference.note(before, after);
        difference
    }

    /// So many bytes take the place of others, which go with no month.
    pub(super) fn note(&mut self, before: usize, after: usize) {
        self.rest += after as i64 - before as i64;
    }

    /// A point of so many bytes is added.
    pub(super) fn add_point(&mut self, month: Month, bytes: usize) {
        self.note_points(month, bytes as i64);
    }

    /// One is removed.
    pub(super) fn remove_point(&mut self, month: Month, bytes: usize) {
        self.note_points(month, -(bytes as i64));
    }

    fn note_points(&mut self, month: Month, bytes: i64) {
        match self.months.iter_mut().find(|(of, _)| *of == month) {
            Some((_, sum)) => *sum += bytes,
            None => self.months.push((month, bytes)),
        }
    }

    fn parts(&self) -> impl Iterator<Item = (Option<Month>, i64)> {
        let months = self.months.iter().map(|(month, bytes)| (Some(*month), *bytes));
        months.chain([(None, self.rest)]).filter(|(_, bytes)| *bytes != 0)
    }

    fn total(&self) -> i64 {
        self.parts().map(|(_, bytes)| bytes).sum()
    }
}

impl StoredBytes {
    /// The counts of a store, on the disk that all share.
    pub fn open(tables: &Tables, disk: Arc<DiskShares<Maker>>) -> Result<Self, StoreError> {
        let mut counts = Counts::default();
        for (row, bytes) in tables.scan_prefix(Table::Meta, PREFIX, None, usize::MAX)? {
            if let (Some(key), Some(bytes)) = (key_of(&row), bytes.first_chunk()) {
                let ((org, maker), bytes) = (key.0, u64::from_be_bytes(*bytes));
                disk.hold(org, maker, bytes);
                counts.bytes.insert(key, bytes);
            }
        }
        Ok(Self { disk, counts: Mutex::new(counts) })
    }

    /// The disk.
    pub const fn disk(&self) -> &Arc<DiskShares<Maker>> {
        &self.disk
    }

    /// All pools.
    pub fn pools(&self) -> &Arc<Pools> {
        self.disk.pools()
    }

    /// Counts a change; who does not make it after all undoes that.
    ///
    /// # Errors
    /// It adds more than there is room for; nothing was counted.
    pub(super) fn change(&self, payer: Payer, difference: &Difference) -> Result<(), OverShare> {
        let more = difference.total().max(0);
        let mut counts = self.counts.lock();
        if more > 0 {
            self.disk.take(payer.0, payer.1, more.unsigned_abs())?;
        }
        let changed = counts.change(payer, difference.parts());
        self.settle(payer, changed - more);
        Ok(())
    }

    /// Counts a change that is not refused.
    pub(super) fn note(&self, payer: Payer, difference: &Difference) {
        let mut counts = self.counts.lock();
        let changed = counts.change(payer, difference.parts());
        self.settle(payer, changed);
    }

    /// Takes back what was counted and did not happen.
    pub(super) fn undo(&self, payer: Payer, difference: &Difference) {
        let parts = difference.parts().map(|(month, bytes)| (month, -bytes));
        let mut counts = self.counts.lock();
        let changed = counts.change(payer, parts);
        self.settle(payer, changed);
    }

    fn settle(&self, (org, maker): Payer, changed: i64) {
        match changed {
            0.. => self.disk.hold(org, maker, changed.unsigned_abs()),
            _ => self.disk.give_back(org, maker, changed.unsigned_abs()),
        }
    }

    /// The points of a month are gone.
    pub(super) fn drop_month(&self, month: Month) {
        let mut counts = self.counts.lock();
        let of_month = |key: &&Key| key.1 == Some(month);
        let gone: Vec<Key> = counts.bytes.keys().filter(of_month).copied().collect();
        for key in gone {
            let bytes = counts.bytes.remove(&key).unwrap_or_default();
            counts.unsaved.insert(key);
            let (org, maker) = key.0;
            self.disk.give_back(org, maker, bytes);
        }
    }

    /// Stores the counts that have changed.
    ///
    /// # Errors
    /// The store does not take them; they are stored with the next.
    pub fn store(&self, tables: &Tables) -> Result<Receipt, StoreError> {
        let mut counts = self.counts.lock();
        let unsaved = std::mem::take(&mut counts.unsaved);
        let mut batch = Batch::default();
        for key in &unsaved {
            match counts.bytes.get(key) {
                Some(bytes) => batch.put(Table::Meta, row_of(*key), bytes.to_be_bytes()),
                None => batch.delete(Table::Meta, row_of(*key)),
            }
        }
        // A full disk must not make them wrong.
        tables.submit_removal(batch).inspect_err(|_| counts.unsaved = unsaved)
    }
}

impl Counts {
    /// Changes the counts of a payer; what that comes to. Of what is in no count, nothing goes.
    fn change(&mut self, payer: Payer, parts: impl Iterator<Item = (Option<Month>, i64)>) -> i64 {
        let mut sum = 0;
        for (month, bytes) in parts {
            let key = (payer, month);
            let before = self.bytes.get(&key).copied().unwrap_or(0);
            let now = before.saturating_add_signed(bytes);
            match now {
                0 => self.bytes.remove(&key),
                now => self.bytes.insert(key, now),
            };
            self.unsaved.insert(key);
            sum += now as i64 - before as i64;
        }
        sum
    }
}

/// What the keys of the counts begin with, in [`Table::Meta`].
const PREFIX: &[u8] = b"bytes/";

/// The key of a count: the month (2 bytes; 0 for none), then the payer.
fn row_of((payer, month): Key) -> Vec<u8> {
    let month = month.map_or(0, |month| month.0);
    [PREFIX, &month.to_be_bytes(), &bytes_of(payer)].concat()
}

fn key_of(row: &[u8]) -> Option<Key> {
    let (month, payer) = row.strip_prefix(PREFIX)?.split_first_chunk()?;
    let month = Some(u16::from_be_bytes(*month)).filter(|month| *month != 0).map(Month);
    Some((payer_of(payer)?, month))
}

#[cfg(test)]
mod tests {
    use base::OrgId;
    use base::pool::Pool;
    use store::{Condition, Durability, memory::MemoryStore};

    use super::*;

    const JUNE: Month = Month(617);
    const JULY: Month = Month(618);

    fn payers() -> [Payer; 2] {
        [1, 2].map(|number| (OrgId::from_bytes([number; 12]), None))
    }

    fn open(store: &Arc<MemoryStore>) -> (StoredBytes, Tables) {
        let tables = Tables::new(store.clone(), Durability::Os);
        let disk = Arc::new(DiskShares::new(tables.store().room(), &Arc::default()));
        (StoredBytes::open(&tables, disk).expect("read"), tables)
    }

    fn used(bytes: &StoredBytes) -> u64 {
        bytes.pools().usage(Pool::Disk).used()
    }

    fn points(month: Month, bytes: usize) -> Difference {
        let mut difference = Difference::new(10, 15);
        difference.add_point(month, bytes);
        difference.add_point(month, bytes);
        difference
    }

    #[tokio::test]
    async fn counts_outlive_the_server_and_months_go_as_a_whole() {
        let store = Arc::<MemoryStore>::default();
        let (bytes, tables) = open(&store);
        let [one, other] = payers();
        bytes.change(one, &points(JUNE, 100)).expect("room");
        bytes.change(one, &points(JULY, 1)).expect("room");
        bytes.change(other, &points(JUNE, 1000)).expect("room");
        let undone = points(JULY, 7777);
        bytes.change(other, &undone).expect("room");
        bytes.undo(other, &undone);
        assert_eq!(used(&bytes), 205 + 7 + 2005);
        bytes.store(&tables).expect("room").await.expect("stored");
        let (bytes, tables) = open(&store);
        assert_eq!(used(&bytes), 205 + 7 + 2005);
        bytes.drop_month(JUNE);
        assert_eq!(used(&bytes), 5 + 7 + 5);
        bytes.note(one, &Difference::new(10, 0));
        // Of what an older program stored, nothing was counted.
        let mut more = Difference::new(500, 0);
        more.remove_point(JULY, 500);
        bytes.note(other, &more);
        assert_eq!(used(&bytes), 2);
        bytes.store(&tables).expect("room").await.expect("stored");
        let (bytes, tables) = open(&store);
        assert_eq!(used(&bytes), 2);
        bytes.drop_month(JULY);
        bytes.store(&tables).expect("room").await.expect("stored");
        let left = tables.scan_prefix(Table::Meta, PREFIX, None, 9).expect("read");
        assert_eq!(left, [], "nothing is left of counts that are zero");
    }

    #[tokio::test]
    async fn counts_are_stored_on_a_full_disk_and_again_if_they_were_not() {
        let store = Arc::<MemoryStore>::default();
        let (bytes, tables) = open(&store);
        let [one, _] = payers();
        bytes.change(one, &points(JUNE, 100)).expect("room");
        let room = tables.store().room();
        room.set(Condition::Failing("it is gone".into()));
        assert!(bytes.store(&tables).is_err());
        room.note(Condition::Full { free: 1, unwritten: 0, mark: 2 }, 1, -1);
        bytes.store(&tables).expect("it is taken").await.expect("stored");
        assert_eq!(used(&open(&store).0), 205);
    }
}
