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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<Payer, Account>,
    /// Those of whom something is not stored as it is now.
    unsaved: HashSet<Payer>,
}

/// What is of one payer.
#[derive(Default)]
struct Account {
    /// Bytes that were taken from the disk: those that there are, and up to two steps more.
    held: u64,
    /// Bytes that there are.
    bytes: u64,
    parts: SmallVec<[Part; 2]>,
}

/// Bytes of one month's points, with which they go; those of none go one by one.
struct Part {
    month: Option<Month>,
    bytes: u64,
    is_saved: bool,
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
        let mut state = State::default();
        for (row, bytes) in tables.scan_prefix(Table::Meta, PREFIX, None, usize::MAX)? {
            if let (Some((payer, month)), Some(bytes)) = (read_key(&row), bytes.first_chunk()) {
                let bytes = u64::from_be_bytes(*bytes);
                let account = state.accounts.entry(payer).or_default();
                account.parts.push(Part { month, bytes, is_saved: true });
                account.bytes += bytes;
            }
        }
        for ((org, maker), account) in &mut state.accounts {
            disk.hold(*org, *maker, account.bytes);
            account.held = account.bytes;
        }
        Ok(Self { disk, state: Mutex::new(state) })
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
        let state = &mut *self.state.lock();
        let account = state.accounts.entry(payer).or_default();
        let bytes = account.bytes.saturating_add_signed(difference.total());
        if let Some(more @ 1..) = bytes.checked_sub(account.held) {
            account.held += self.take(payer, more)?;
        }
        self.count(payer, state, difference.parts());
        Ok(())
    }

    /// Takes so much, or, to be asked less often, a step.
    fn take(&self, (org, maker): Payer, more: u64) -> Result<u64, OverShare> {
        if more < STEP_BYTES && self.disk.has_room(org, maker, STEP_BYTES) {
            self.disk.hold(org, maker, STEP_BYTES);
            return Ok(STEP_BYTES);
        }
        self.disk.take(org, maker, more).map(|()| more)
    }

    /// Counts a change that is not refused.
    pub(super) fn note(&self, payer: Payer, difference: &Difference) {
        self.count(payer, &mut self.state.lock(), difference.parts());
    }

    /// Takes back what was counted and did not happen.
    pub(super) fn undo(&self, payer: Payer, difference: &Difference) {
        let parts = difference.parts().map(|(month, bytes)| (month, -bytes));
        self.count(payer, &mut self.state.lock(), parts);
    }

    /// The points of a month are gone.
    pub(super) fn drop_month(&self, month: Month) {
        let state = &mut *self.state.lock();
        let payers: Vec<Payer> = state.accounts.keys().copied().collect();
        for payer in payers {
            self.count(payer, state, [(Some(month), i64::MIN)].into_iter());
        }
    }

    /// Changes the counts of a payer. Of what is in no count, nothing goes.
    fn count(
        &self,
        payer: Payer,
        state: &mut State,
        differences: impl Iterator<Item = (Option<Month>, i64)>,
    ) {
        let account = state.accounts.entry(payer).or_default();
        for (month, difference) in differences {
            if account.change(month, difference) {
                state.unsaved.insert(payer);
            }
        }
        let (org, maker) = payer;
        let kept = if account.bytes == 0 { 0 } else { STEP_BYTES };
        if account.bytes > account.held {
            self.disk.hold(org, maker, account.bytes - account.held);
            account.held = account.bytes;
        } else if account.held - account.bytes > 2 * kept {
            self.disk.give_back(org, maker, account.held - account.bytes - kept);
            account.held = account.bytes + kept;
        }
    }

    /// Stores the counts that have changed.
    ///
    /// # Errors
    /// The store does not take them; they are stored with the next.
    pub fn store(&self, tables: &Tables) -> Result<Receipt, StoreError> {
        let State { accounts, unsaved } = &mut *self.state.lock();
        let mut batch = Batch::default();
        for payer in unsaved.iter() {
            let parts = accounts.get(payer).into_iter().flat_map(|account| &account.parts);
            for part in parts.filter(|part| !part.is_saved) {
                let key = key(*payer, part.month);
                match part.bytes {
                    0 => batch.delete(Table::Meta, key),
                    bytes => batch.put(Table::Meta, key, bytes.to_be_bytes()),
                }
            }
        }
        // A full disk must not make them wrong.
        let receipt = tables.submit_removal(batch)?;
        for payer in unsaved.drain() {
            let Some(account) = accounts.get_mut(&payer) else { continue };
            account.parts.retain(|part| part.bytes > 0);
            account.parts.iter_mut().for_each(|part| part.is_saved = true);
            if account.parts.is_empty() {
                accounts.remove(&payer);
            }
        }
        Ok(receipt)
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.state.lock().accounts.values().map(|account| account.bytes).sum()
    }
}

impl Account {
    /// Whether the part of a month was changed.
    fn change(&mut self, month: Option<Month>, difference: i64) -> bool {
        let at = match self.parts.iter().position(|part| part.month == month) {
            Some(at) => at,
            None if difference <= 0 => return false,
            None => {
                self.parts.push(Part { month, bytes: 0, is_saved: false });
                self.parts.len() - 1
            }
        };
        let part = &mut self.parts[at];
        self.bytes -= part.bytes;
        part.bytes = part.bytes.saturating_add_signed(difference);
        part.is_saved = false;
        self.bytes += part.bytes;
        true
    }
}

/// What is taken from the disk at once: a point is some bytes, and to ask whether there is room for it
/// would take longer than it takes to count it.
const STEP_BYTES: u64 = 16 * 1024;

/// What the keys of the counts begin with, in [`Table::Meta`].
const PREFIX: &[u8] = b"bytes/";

/// The key of a count: the month (2 bytes; 0 for none), then the payer.
fn key(payer: Payer, month: Option<Month>) -> Vec<u8> {
    let month = month.map_or(0, |month| month.0);
    [PREFIX, &month.to_be_bytes(), &bytes_of(payer)].concat()
}

fn read_key(row: &[u8]) -> Option<(Payer, Option<Month>)> {
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

    /// What is counted, of which up to two steps of each payer are taken before.
    fn used(bytes: &StoredBytes) -> u64 {
        let (counted, held) = (bytes.total(), bytes.pools().usage(Pool::Disk).used());
        let payers = bytes.state.lock().accounts.len() as u64;
        assert!((counted..=counted + payers * 2 * STEP_BYTES).contains(&held), "{held}: {counted}");
        counted
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
        assert_eq!(bytes.pools().usage(Pool::Disk).used(), 0);
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
