//! What the data of things takes on the disk, by whose share it is, without reading it at every
//! start.
//!
//! The counts are rows that are stored from time to time: a server that is killed has forgotten the
//! changes of some seconds. What was stored before there were counts is in none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

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
    /// Bytes that may be written before it is asked again whether there is room.
    permitted: u64,
    /// Bytes that are held of the disk: those that there are, but for two steps.
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

/// What a change writes, and how many bytes it adds or, below zero, removes.
#[derive(Default, Debug)]
pub(super) struct Difference {
    written: u64,
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
        self.written += after as u64;
    }

    /// A point of so many bytes is added.
    pub(super) fn add_point(&mut self, month: Month, bytes: usize) {
        self.note_points(month, bytes as i64);
        self.written += bytes as u64;
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
}

/// By how much the counts of somebody have changed.
type Changed = SmallVec<[(Option<Month>, i64); 2]>;

/// A change that was counted and is about to be made; without it that is undone.
#[must_use = "it counts when it is made"]
pub(super) struct Counted<'a> {
    bytes: &'a StoredBytes,
    payer: Payer,
    changed: Changed,
}

impl Counted<'_> {
    /// The change was made.
    pub(super) fn made(mut self) {
        self.changed.clear();
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.changed.is_empty() {
            let parts = self.changed.drain(..).map(|(month, bytes)| (month, -bytes));
            self.bytes.count(self.payer, &mut self.bytes.state.lock(), parts);
        }
    }
}

impl StoredBytes {
    /// The counts of a store, on the disk that all share.
    pub fn open(tables: &Tables, disk: Arc<DiskShares<Maker>>) -> Result<Self, StoreError> {
        let mut state = State::default();
        // Of a month that was dropped just before the last run ended nothing is there.
        let months = tables.months();
        let is_there = |month: Option<Month>| month.is_none_or(|month| months.contains(&month));
        for (row, bytes) in tables.scan_prefix(Table::Meta, PREFIX, None, usize::MAX)? {
            if let (Some((payer, month)), Some(bytes)) = (read_key(&row), bytes.first_chunk()) {
                let bytes = u64::from_be_bytes(*bytes);
                let account = state.accounts.entry(payer).or_default();
                let is_saved = is_there(month);
                let bytes = if is_saved { bytes } else { 0 };
                account.parts.push(Part { month, bytes, is_saved });
                account.bytes += bytes;
                if !is_saved {
                    state.unsaved.insert(payer);
                }
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

    /// Counts a change that is about to be made.
    ///
    /// # Errors
    /// There is no room for what it writes; nothing was counted.
    pub(super) fn change(
        &self,
        payer: Payer,
        difference: &Difference,
    ) -> Result<Counted<'_>, OverShare> {
        let state = &mut *self.state.lock();
        let account = state.accounts.entry(payer).or_default();
        self.permit(payer, account, difference.written)?;
        let changed = self.count(payer, state, difference.parts());
        Ok(Counted { bytes: self, payer, changed })
    }

    /// Whether so much may be written for somebody; then it is.
    pub(super) fn may_write(&self, payer: Payer, bytes: usize) -> bool {
        let state = &mut *self.state.lock();
        let account = state.accounts.entry(payer).or_default();
        self.permit(payer, account, bytes as u64).is_ok()
    }

    /// Asks the disk, though not for each point: that takes longer than to count it. What takes the
    /// place of something is written, too, before that goes.
    fn permit(
        &self,
        (org, maker): Payer,
        account: &mut Account,
        written: u64,
    ) -> Result<(), OverShare> {
        if written > account.permitted {
            let step = STEP_BYTES.max(written);
            account.permitted = match self.disk.check(org, maker, step) {
                Ok(()) => step,
                Err(_) => {
                    let check = self.disk.check(org, maker, written);
                    check.inspect_err(|over| self.pools().note_refused(over.pool, org))?;
                    written
                }
            };
        }
        account.permitted -= written;
        Ok(())
    }

    /// Counts a change that was made and is not refused.
    pub(super) fn note(&self, payer: Payer, difference: &Difference) {
        self.count(payer, &mut self.state.lock(), difference.parts());
    }

    /// The points of a month are gone.
    pub(super) fn drop_month(&self, month: Month) {
        let state = &mut *self.state.lock();
        let payers: Vec<Payer> = state.accounts.keys().copied().collect();
        for payer in payers {
            self.count(payer, state, [(Some(month), i64::MIN)].into_iter());
        }
    }

    /// Changes the counts of somebody. Of what is in no count, nothing goes.
    fn count(
        &self,
        payer: Payer,
        state: &mut State,
        differences: impl Iterator<Item = (Option<Month>, i64)>,
    ) -> Changed {
        let account = state.accounts.entry(payer).or_default();
        let (mut all, mut is_new) = (Changed::default(), false);
        for (month, difference) in differences {
            let (changed, was_saved) = account.change(month, difference);
            all.push((month, changed));
            is_new |= was_saved;
        }
        if is_new {
            state.unsaved.insert(payer);
        }
        let (org, maker) = payer;
        let kept = if account.bytes == 0 { 0 } else { STEP_BYTES };
        if account.bytes > account.held {
            let more = account.bytes - account.held + kept;
            self.disk.hold(org, maker, more);
            account.held += more;
        } else if account.held - account.bytes > 2 * kept {
            self.disk.give_back(org, maker, account.held - account.bytes - kept);
            account.held = account.bytes + kept;
        }
        all
    }

    /// Stores the counts that have changed; to be called every few seconds.
    ///
    /// # Errors
    /// The store does not take them; they are stored with the next.
    pub fn store(&self, tables: &Tables) -> Result<Receipt, StoreError> {
        self.disk.keep(Instant::now());
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
    /// By how much the part of a month has changed, and whether it was stored as it was.
    fn change(&mut self, month: Option<Month>, difference: i64) -> (i64, bool) {
        let at = match self.parts.iter().position(|part| part.month == month) {
            Some(at) => at,
            None if difference <= 0 => return (0, false),
            None => {
                self.parts.push(Part { month, bytes: 0, is_saved: true });
                self.parts.len() - 1
            }
        };
        let part = &mut self.parts[at];
        let before = part.bytes;
        part.bytes = before.saturating_add_signed(difference);
        self.bytes = self.bytes - before + part.bytes;
        (part.bytes as i64 - before as i64, std::mem::replace(&mut part.is_saved, false))
    }
}

/// What may be written before the disk is asked again, and what is held of it more than there is: a
/// point has some bytes.
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
    use base::pool::Pool;
    use std::sync::atomic::{AtomicU32, Ordering};

    use base::{OrgId, limits};
    use store::{Condition, Durability, Store as _, memory::MemoryStore};

    use super::*;

    const JUNE: Month = Month(617);
    const JULY: Month = Month(618);

    fn payers() -> [Payer; 2] {
        [1, 2].map(|number| (OrgId::from_bytes([number; 12]), None))
    }

    /// The counts of a store that has points of June and July.
    fn open(store: &Arc<MemoryStore>) -> (StoredBytes, Tables) {
        let mut batch = Batch::default();
        for month in [JUNE, JULY] {
            batch.put(Table::Telemetry(month), "a", "point");
        }
        store.commit(&[batch]).expect("committed");
        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        let disk = Arc::new(DiskShares::new(tables.store().room(), &Arc::default()));
        (StoredBytes::open(&tables, disk).expect("read"), tables)
    }

    /// What is counted, of which up to two steps of each payer are taken before.
    fn used(bytes: &StoredBytes) -> u64 {
        static WAITS: AtomicU32 = AtomicU32::new(1);
        for _ in 0..2 {
            let waits = WAITS.fetch_add(1, Ordering::Relaxed);
            bytes.disk.keep(Instant::now() + limits::DISK_GOING_WAIT * waits);
        }
        let (counted, held) = (bytes.total(), bytes.pools().usage(Pool::Disk).used());
        let payers = bytes.state.lock().accounts.len() as u64;
        assert!((counted..=counted + payers * 2 * STEP_BYTES).contains(&held), "{held}: {counted}");
        assert!(counted > 0 || held == 0, "{held}");
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
        bytes.change(one, &points(JUNE, 100)).expect("room").made();
        bytes.change(one, &points(JULY, 1)).expect("room").made();
        bytes.change(other, &points(JUNE, 1000)).expect("room").made();
        drop(bytes.change(other, &points(JULY, 7777)).expect("room"));
        // Nor does what was not counted come into being.
        drop(bytes.change(other, &Difference::new(50_000, 1)).expect("room"));
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
        assert_eq!(used(&bytes), 0);
        bytes.store(&tables).expect("room").await.expect("stored");
        let left = tables.scan_prefix(Table::Meta, PREFIX, None, 9).expect("read");
        assert_eq!(left, [], "nothing is left of counts that are zero");
    }

    #[tokio::test]
    async fn a_month_that_has_gone_is_not_counted_after_a_sudden_end() {
        let store = Arc::<MemoryStore>::default();
        let (bytes, tables) = open(&store);
        let [one, _] = payers();
        bytes.change(one, &points(JUNE, 1000)).expect("room").made();
        bytes.change(one, &points(Month(600), 1000)).expect("room").made();
        bytes.store(&tables).expect("room").await.expect("stored");
        for _ in 0..2 {
            let (bytes, tables) = open(&store);
            assert_eq!(used(&bytes), 2010);
            bytes.store(&tables).expect("room").await.expect("stored");
            assert_eq!(tables.scan_prefix(Table::Meta, PREFIX, None, 9).expect("read").len(), 2);
        }
    }

    #[test]
    fn what_is_written_in_place_of_something_needs_room_too() {
        let (bytes, tables) = open(&Arc::default());
        let [one, other] = payers();
        let room = tables.store().room();
        room.set_reserve(10_000);
        let disk = Arc::new(DiskShares::new(room, bytes.pools()));
        let bytes = StoredBytes { disk, ..StoredBytes::default() };
        bytes.note(one, &Difference::new(0, 100_000));
        room.note(Condition::Good, 30_000, 30_000);
        assert!(bytes.change(one, &Difference::new(500, 500)).is_err());
        assert!(!bytes.may_write(one, 1) && bytes.may_write(other, 500));
        bytes.change(other, &Difference::new(0, 500)).expect("below its share").made();
        room.note(Condition::Good, 60_000, 60_000);
        bytes.change(one, &Difference::new(500, 500)).expect("room").made();
    }

    #[tokio::test]
    async fn counts_are_stored_on_a_full_disk_and_again_if_they_were_not() {
        let store = Arc::<MemoryStore>::default();
        let (bytes, tables) = open(&store);
        let [one, _] = payers();
        bytes.change(one, &points(JUNE, 100)).expect("room").made();
        let room = tables.store().room();
        room.set(Condition::Failing("it is gone".into()));
        assert!(bytes.store(&tables).is_err());
        room.note(Condition::Full { free: 1, unwritten: 0, mark: 2 }, 1, -1);
        bytes.store(&tables).expect("it is taken").await.expect("stored");
        assert_eq!(used(&open(&store).0), 205);
    }
}
