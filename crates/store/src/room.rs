//! Whether the store takes changes: the room on its disk, and whether its engine works.
//!
//! Below a mark whatever adds is refused before the engine sees it, since an engine that meets a full
//! disk has to be opened anew. What removes goes on: the mark is the room that it needs. The keeper of
//! a store measures ([`Room::note`]); in between, what is added is counted, so that no burst gets past
//! the mark.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use tokio::sync::watch;

use super::{Batch, StoreError};

/// What a byte of a change takes until it has its place: one in the journal, one in a table.
const COST: i64 = 2;

/// How a store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It takes all changes.
    Good,
    /// Its disk has less room than the mark: it takes what removes.
    Full {
        /// Free bytes.
        free: u64,
        /// Of these, what the engine has in memory and has yet to write.
        unwritten: u64,
        /// The mark.
        mark: u64,
    },
    /// Its engine has failed and is being opened again.
    Failing(String),
    /// It can't be opened again by this process.
    Lost(String),
}

impl Condition {
    const fn state(&self) -> u8 {
        match self {
            Self::Good => GOOD,
            Self::Full { .. } => FULL,
            Self::Failing(_) | Self::Lost(_) => FAILING,
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good => f.write_str("the store takes all changes"),
            Self::Full { free, unwritten, mark } => write!(
                f,
                "the disk has {free} free bytes, {unwritten} of which the store needs for what it \
                 has in memory, and server.min_free_bytes is {mark}"
            ),
            Self::Failing(why) => {
                write!(f, "the store has failed and is being opened again: {why}")
            }
            Self::Lost(why) => write!(f, "the store is lost: {why}"),
        }
    }
}

const GOOD: u8 = 0;
const FULL: u8 = 1;
const FAILING: u8 = 2;

/// The room of a store, and its condition.
#[derive(Debug)]
pub struct Room {
    state: AtomicU8,
    /// Bytes that may be added before the mark, as it was measured last.
    budget: AtomicI64,
    /// Bytes added since.
    added: AtomicI64,
    free: AtomicU64,
    mark: AtomicU64,
    /// Bytes before the mark from which on it counts as reached.
    near: AtomicI64,
    reserve: AtomicU64,
    condition: watch::Sender<Condition>,
}

impl Default for Room {
    /// Room without end.
    fn default() -> Self {
        Self {
            state: AtomicU8::new(GOOD),
            budget: AtomicI64::new(i64::MAX / 2),
            added: AtomicI64::new(0),
            free: AtomicU64::new(u64::MAX),
            mark: AtomicU64::new(0),
            near: AtomicI64::new(0),
            reserve: AtomicU64::new(0),
            condition: watch::Sender::new(Condition::Good),
        }
    }
}

impl Room {
    /// Whether a batch is taken now, behind `waiting` bytes that were taken and are not written.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] below the mark, [`StoreError::Unavailable`] without an engine.
    pub fn admit(&self, batch: &Batch, waiting: usize) -> Result<(), StoreError> {
        self.admit_bytes(|| batch.adds(), batch.bytes() + waiting)
    }

    /// The same for so many bytes.
    pub(crate) fn admit_bytes(
        &self,
        adds: impl Fn() -> bool,
        bytes: usize,
    ) -> Result<(), StoreError> {
        match self.state.load(Ordering::Relaxed) {
            FAILING => return Err(StoreError::Unavailable),
            FULL if adds() => return Err(StoreError::NoRoom),
            FULL => return Ok(()),
            _ => {}
        }
        let left = self.budget.load(Ordering::Relaxed) - self.added.load(Ordering::Relaxed);
        if left < COST * bytes as i64 && adds() { Err(StoreError::NoRoom) } else { Ok(()) }
    }

    /// Whether the disk has less room than the mark, as it was measured last.
    pub(crate) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FULL
    }

    /// Whether so many bytes may be written beside the store.
    pub fn fits(&self, bytes: u64) -> bool {
        let left = self.budget.load(Ordering::Relaxed) - self.added.load(Ordering::Relaxed);
        self.state.load(Ordering::Relaxed) != FULL && u64::try_from(left).is_ok_and(|l| bytes <= l)
    }

    /// Counts bytes that are written beside the store.
    pub fn take(&self, bytes: u64) {
        self.added.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX / 4), Ordering::Relaxed);
    }

    /// Counts what was written.
    pub(crate) fn wrote(&self, batches: &[Batch]) {
        let bytes: usize = batches.iter().map(Batch::bytes).sum();
        self.added.fetch_add(COST * bytes as i64, Ordering::Relaxed);
    }

    /// How the store is.
    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// A receiver that is told of every change of the condition.
    pub fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Free bytes of the disk, as they were measured last.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// The free bytes below which only what removes is taken.
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Sets them, and how near before them the disk counts as full.
    pub(crate) fn set_mark(&self, mark: u64, near: i64) {
        self.mark.store(mark, Ordering::Relaxed);
        self.near.store(near, Ordering::Relaxed);
    }

    /// Sets what is for those below their share of the disk.
    pub fn set_reserve(&self, reserve: u64) {
        self.reserve.store(reserve, Ordering::Relaxed);
    }

    /// What is for those below their share of the disk.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve.load(Ordering::Relaxed)
    }

    /// Bytes that may be added until the disk counts as full.
    pub(crate) fn left(&self) -> u64 {
        let left = self.budget.load(Ordering::Relaxed)
            - self.added.load(Ordering::Relaxed)
            - self.near.load(Ordering::Relaxed);
        u64::try_from(left).unwrap_or(0).min(self.free())
    }

    /// Notes what was measured: the condition, the free bytes, and how many of them may be used up.
    /// A change of the condition is one line in the log.
    pub fn note(&self, condition: Condition, free: u64, budget: i64) {
        self.free.store(free, Ordering::Relaxed);
        self.added.store(0, Ordering::Relaxed);
        self.budget.store(budget, Ordering::Relaxed);
        self.set(condition);
    }

    /// Notes a condition that needed no measuring.
    pub fn set(&self, condition: Condition) {
        self.state.store(condition.state(), Ordering::Relaxed);
        self.condition.send_if_modified(|before| {
            let changed = std::mem::discriminant(before) != std::mem::discriminant(&condition);
            if changed {
                log(before, &condition);
            }
            *before = condition;
            changed
        });
    }
}

fn log(before: &Condition, now: &Condition) {
    match now {
        Condition::Good => {
            tracing::info!(target: super::LOG_TARGET, was = %before, "the store takes all again");
        }
        Condition::Full { .. } => tracing::error!(
            target: super::LOG_TARGET,
            "there is no room: what adds is refused, what removes works ({now})"
        ),
        now => tracing::error!(target: super::LOG_TARGET, "{now}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    fn adding(bytes: usize) -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::Things, "a", vec![0; bytes]);
        batch
    }

    fn removing() -> Batch {
        let mut batch = Batch::default();
        batch.delete(Table::Sessions, "a");
        batch.put(Table::History, "a", "ended");
        batch
    }

    #[test]
    fn a_burst_between_two_measurements_ends_at_the_mark() {
        let room = Room::default();
        room.note(Condition::Good, 100_000, 50_000);
        let batch = adding(1000);
        let mut taken = 0;
        while room.admit(&batch, 0).is_ok() {
            room.wrote(std::slice::from_ref(&batch));
            taken += batch.bytes();
        }
        assert!((20_000..=25_000).contains(&taken), "{taken}");
        assert!(room.admit(&removing(), 0).is_ok());
        assert!(!room.fits(10_000));
        room.note(Condition::Good, 100_000, 50_000);
        assert!(room.admit(&batch, 0).is_ok());
        assert!(room.admit(&batch, 25_000).is_err(), "what waits counts, too");
    }

    #[test]
    fn below_the_mark_only_what_removes_is_taken() {
        let room = Room::default();
        room.note(Condition::Full { free: 1, unwritten: 0, mark: 2 }, 1, -1);
        assert!(matches!(room.admit(&adding(1), 0), Err(StoreError::NoRoom)));
        assert!(room.admit(&removing(), 0).is_ok());
        assert!(room.admit(&Batch::default(), 0).is_ok());
        room.set(Condition::Failing("it is gone".into()));
        assert!(matches!(room.admit(&removing(), 0), Err(StoreError::Unavailable)));
        room.note(Condition::Good, 9, 9000);
        assert!(room.admit(&adding(1), 0).is_ok());
    }
}
