//! Durable state in a directory: the embedded engine, which is opened anew when it has failed, and
//! what is looked at around it: the room on the disk, the directory itself, the journals.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::{Batch, Condition, Room, Row, Store, StoreError, Table};
use engine::Engine;
use journals::Journals;
use keeper::{Keeper, Reserve};

mod engine;
mod journals;
mod keeper;
mod private;
#[cfg(test)]
mod tests;

pub use engine::Moment;
pub use private::make_private;

/// What the engine keeps in every directory of a store.
const VERSION_FILE: &str = "version";

/// The engine's lock, by which a directory is known again.
const LOCK_FILE: &str = "lock";

/// How often, and in which distance, the lock of a directory is tried.
const LOCK_TRIES: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where the engine keeps its tables, each in a directory with its number.
const TABLES_DIR: &str = "keyspaces";

/// What says which files of a table are in force.
const CURRENT_FILE: &str = "current";

/// Durable state in a directory.
pub struct DiskStore {
    inner: Arc<Inner>,
    /// The thread that looks after it.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the store and its keeper share.
struct Inner {
    dir: PathBuf,
    /// None while it is being opened anew.
    engine: RwLock<Option<Arc<Engine>>>,
    /// The partitions by month that there were when it was closed.
    months: Mutex<Vec<Table>>,
    room: Arc<Room>,
    /// What is set aside on the disk.
    reserve: Mutex<Reserve>,
    /// Why the engine takes no changes, if it does not; notified when it does again.
    failure: Mutex<Option<String>>,
    recovered: Condvar,
    lost: AtomicBool,
    /// Wakes the keeper; when it is dropped, the keeper ends. None: there is no keeper.
    wake: Mutex<Option<SyncSender<()>>>,
}

impl DiskStore {
    /// Opens the store in `dir`, or makes one there, readable by this user only. Nobody looks after
    /// it: when its engine has failed, it stays so.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Newer`] when a newer
    /// program wrote it, [`StoreError::Damaged`], and [`StoreError::Engine`] for everything else.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_journals(dir).map(|(store, _)| store)
    }

    /// As [`DiskStore::open`], for a server: with a keeper, who opens the engine anew when it has
    /// failed, refuses what adds while the disk has less than `min_free` bytes (none: a tenth of the
    /// disk, at most [`base::limits::MIN_FREE_BYTES`]; 0: never), and notices when the directory goes.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_kept(dir: &Path, min_free: Option<u64>) -> Result<Self, StoreError> {
        let (store, journals) = Self::open_with_journals(dir)?;
        let (wake, woken) = sync_channel(1);
        *store.inner.wake.lock() = Some(wake);
        let mut keeper = Keeper::new(store.inner.clone(), min_free, journals)?;
        keeper.check();
        let thread = std::thread::Builder::new()
            .name("store-keeper".into())
            .spawn(move || keeper.run(&woken))
            .map_err(|source| failed("start its keeper", source))?;
        *store.keeper.lock() = Some(thread);
        Ok(store)
    }

    fn open_with_journals(dir: &Path) -> Result<(Self, Journals), StoreError> {
        private::make_dir(dir).map_err(|source| failed("make its directory", source))?;
        if Self::is_in(dir) {
            // Not made anew: a process that runs may have it, whatever became of the name.
            let lock = dir.join(LOCK_FILE);
            let remedy = "if no process works on this directory, make an empty file of that name";
            if !lock.exists() {
                let what = format!("{} is missing ({remedy})", lock.display());
                return Err(StoreError::Damaged { what });
            }
        }
        // Of a store that another process has open, nothing is what it looks like.
        let locked = is_locked(dir).map_err(|source| failed("look at its lock", source))?;
        if locked {
            return Err(StoreError::InUse(dir.to_path_buf()));
        }
        check_tables(dir)?;
        let journals = Journals::inspect(dir)?;
        let inner = Inner {
            engine: RwLock::new(Some(Arc::new(Engine::open(dir)?))),
            dir: dir.to_path_buf(),
            months: Mutex::default(),
            room: Arc::default(),
            reserve: Mutex::default(),
            failure: Mutex::default(),
            recovered: Condvar::new(),
            lost: AtomicBool::new(false),
            wake: Mutex::default(),
        };
        Ok((Self { inner: Arc::new(inner), keeper: Mutex::default() }, journals))
    }

    /// Whether there is a store in `dir`.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(VERSION_FILE).exists()
    }

    /// The store as it is now, whatever is written meanwhile. To be let go soon: the engine keeps
    /// what was replaced since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; so do its rows end when the engine has to be opened anew.
    pub fn moment(&self) -> Result<Moment, StoreError> {
        Ok(self.inner.engine()?.moment())
    }

    /// Puts a few rows into a table.
    ///
    /// # Errors
    /// What the engine reports, or the rows bring.
    pub fn put_all(
        &self,
        table: Table,
        rows: impl Iterator<Item = Result<Row, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put(table, key, value);
        }
        self.commit(&[batch])?;
        self.sync()
    }

    /// Fills an empty table with rows in the order of their keys, past the journal: durable when all
    /// of them are there, and not before.
    ///
    /// # Errors
    /// What the engine reports, or the rows bring.
    pub fn fill(
        &self,
        table: Table,
        rows: impl Iterator<Item = Result<Row, StoreError>>,
    ) -> Result<(), StoreError> {
        self.inner.engine()?.fill(table, rows)
    }

    /// Ends the keeper, who notes how long the journals are.
    fn end_keeper(&self) {
        *self.inner.wake.lock() = None;
        if let Some(keeper) = self.keeper.lock().take() {
            // One that panicked has nothing to let go of.
            let _ = keeper.join();
        }
    }

    /// Has the engine fail as it does when its disk is full, for tests of what comes then.
    #[cfg(any(test, feature = "testing"))]
    pub fn break_engine(&self) {
        self.inner.fail("broken by a test");
    }
}

/// Refuses a store of which a table is gone: the engine would begin it anew, empty. The table that
/// came last may be one that was being made when the process was killed.
///
/// # Errors
/// [`StoreError::Damaged`].
fn check_tables(dir: &Path) -> Result<(), StoreError> {
    if !DiskStore::is_in(dir) {
        return Ok(());
    }
    let tables = dir.join(TABLES_DIR);
    let gone = |table: &Path| {
        let what = format!("{} is gone or has no file \"{CURRENT_FILE}\"", table.display());
        StoreError::Damaged { what }
    };
    let entries = std::fs::read_dir(&tables).map_err(|_| gone(&tables))?;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
    let mut numbers: Vec<_> = entries.flatten().filter_map(number).collect();
    numbers.sort_unstable();
    let last = numbers.pop().unwrap_or(0);
    for number in std::iter::once(0).chain(numbers).chain((last == 0).then_some(0)) {
        let table = tables.join(number.to_string());
        if !table.join(CURRENT_FILE).exists() {
            return Err(gone(&table));
        }
    }
    Ok(())
}

/// Whether another process, or another part of this one, has the store of a directory open.
fn is_locked(dir: &Path) -> std::io::Result<bool> {
    let lock = match std::fs::File::open(dir.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for _ in 0..LOCK_TRIES {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(false),
            // One that was killed lets go of it a moment later.
            Err(std::fs::TryLockError::WouldBlock) => super::pause(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(true)
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.end_keeper();
    }
}

impl Inner {
    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        self.engine.read().clone().ok_or(StoreError::Unavailable)
    }

    /// Notes that the engine takes no more changes, and wakes who opens it anew.
    fn fail(&self, why: &str) {
        let mut failure = self.failure.lock();
        let wake = self.wake.lock();
        let (None, Some(wake)) = (&*failure, &*wake) else { return };
        *failure = Some(why.to_owned());
        self.room.set(Condition::Failing(why.to_owned()));
        // Full: it is being woken.
        let _ = wake.try_send(());
    }

    /// Lets go of what is set aside if the disk has nothing else: others may have filled it since it
    /// was measured last, and an engine that meets a full disk takes nothing more.
    fn let_go_of_reserve(&self) {
        if let Ok(disk) = keeper::measure(&self.dir) {
            self.reserve.lock().let_go(disk.free);
        }
    }

    fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Engine { .. }) = &result {
            self.fail(&base::chain(error));
        }
        result
    }
}

impl Store for DiskStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.engine()?.read(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.engine()?.scan(table, from, to, limit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.engine()?.scan_back(table, from, to, limit)
    }

    fn months(&self) -> Vec<Table> {
        match self.inner.engine() {
            Ok(engine) => engine.months(),
            Err(_) => self.inner.months.lock().clone(),
        }
    }

    fn drop_month(&self, partition: Table) -> Result<(), StoreError> {
        self.inner.engine()?.drop_month(partition)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let engine = self.inner.engine()?;
        if self.inner.room.is_full() {
            self.inner.let_go_of_reserve();
        }
        self.inner.noting(engine.commit(batches))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let engine = self.inner.engine()?;
        self.inner.noting(engine.sync())
    }

    fn finish(&self) -> Result<(), StoreError> {
        let synced = self.sync();
        self.end_keeper();
        synced
    }

    fn disk_bytes(&self) -> Vec<(&'static str, u64)> {
        // What is being opened anew is asked the next time.
        self.inner.engine().map_or_else(|_| Vec::new(), |engine| engine.disk_bytes())
    }

    fn room(&self) -> &Arc<Room> {
        &self.inner.room
    }

    fn recovers(&self, wait: Duration) -> bool {
        let mut failure = self.inner.failure.lock();
        if failure.is_some() {
            self.inner.recovered.wait_for(&mut failure, wait);
        }
        self.inner.wake.lock().is_some() && !self.inner.lost.load(Ordering::Relaxed)
    }
}

fn failed(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Engine { doing, source: Box::new(source) }
}
