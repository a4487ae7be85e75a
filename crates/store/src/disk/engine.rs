//! The embedded engine: fjall, one keyspace for each table, in one directory. After certain errors it
//! takes no more changes until it is opened anew.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::Duration;

use base::yield_point;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::RwLock;

use crate::{
    Batch, Change, MORE_DISK_BYTES, Month, Row, SCHEMA_VERSION, StoreError, Table, check_keys,
    is_empty_range,
};

/// Blocks of the tables' files kept in memory. What is hot (sessions, identity) is held by the
/// program itself; this serves the reading of things.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Changes of one table kept in memory before they are written to a file of the table.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// The same of a month of telemetry. Four times as much is written to a file at once, and merged
/// with others a third as often: 0.6 µs of the engine's threads for each point instead of 1.6 µs.
/// The journals' bound holds for all months together, so there are never many full ones.
const MONTH_MEMTABLE_BYTES: u64 = 64 * 1024 * 1024;

/// Journals on disk, read again at the start: two of the engine's 64 MB.
const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;

/// One thread flushes while the other compacts; with a single one a long compaction would hold up
/// the flushes and with them the writers.
const ENGINE_THREADS: usize = 2;

/// Files kept open, if the process may have eight times as many; a backup has another store open.
const OPEN_FILES: usize = 256;

fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let part = limit.map_or(OPEN_FILES, |limit| usize::try_from(limit / 8).unwrap_or(OPEN_FILES));
    part.clamp(16, OPEN_FILES)
}

/// Where the schema version is, in [`Table::Meta`]: 4 bytes, big-endian.
pub(super) const SCHEMA_KEY: &[u8] = b"schema";

/// Tables of one keyspace that wait to be written to files, beyond which a commit waits. The engine
/// itself waits for ever at four, even when the threads that write them have failed.
const UNWRITTEN_MAX: usize = 2;

/// The engine, opened. Nothing of it may live on when it is to be opened anew.
pub(super) struct Engine {
    database: Database,
    keyspaces: HashMap<Table, Keyspace>,
    /// The partitions by month; they come with the first row of a month.
    months: RwLock<BTreeMap<Table, Keyspace>>,
    /// Whether everybody is to let go of it.
    closing: AtomicBool,
}

impl Engine {
    /// Opens the engine's files, or makes them.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has them open, [`StoreError::Newer`] when a newer
    /// program wrote them, [`StoreError::Damaged`], and [`StoreError::Engine`] for everything else.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        // It takes some of what it reads for granted.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_files(dir)));
        opened.unwrap_or_else(|_| {
            let what = format!("the engine can't make sense of {}", dir.display());
            Err(StoreError::Damaged { what })
        })
    }

    fn open_files(dir: &Path) -> Result<Self, StoreError> {
        let opened = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(open_files()))
            .worker_threads(ENGINE_THREADS)
            .open();
        let database = opened.map_err(|error| match error {
            fjall::Error::Locked => StoreError::InUse(dir.to_path_buf()),
            other => match is_incomplete(&other) {
                true => StoreError::Damaged { what: format!("{}: {other}", dir.display()) },
                false => failed("open its files", other),
            },
        })?;
        let gone = |table: &Table| {
            let what = format!("{}: the table {} is gone", dir.display(), table.name());
            Err(StoreError::Damaged { what })
        };
        let is_there = |table: &Table| database.keyspace_exists(table.name());
        // It is made before all others.
        if !is_there(&Table::Meta) && !database.list_keyspace_names().is_empty() {
            return gone(&Table::Meta);
        }
        let is_current = check_schema(&database)?;
        if let Some(table) = Table::ALL.iter().find(|table| is_current && !is_there(table)) {
            return gone(table);
        }
        let mut keyspaces = HashMap::new();
        for table in Table::ALL {
            keyspaces.insert(table, keyspace(&database, table.name())?);
        }
        let mut months = BTreeMap::new();
        for name in database.list_keyspace_names() {
            if let Some(partition) = Table::of_month(&name) {
                months.insert(partition, keyspace(&database, &name)?);
            }
        }
        let (months, closing) = (RwLock::new(months), AtomicBool::new(false));
        Ok(Self { database, keyspaces, months, closing })
    }

    /// Has everybody let go of it who reads for long.
    pub(super) fn begin_to_close(&self) {
        self.closing.store(true, atomic::Ordering::Relaxed);
    }

    /// Whether it takes changes.
    ///
    /// # Errors
    /// What it said when it stopped to.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::Buffer).map_err(|e| failed("write its journal", e))
    }

    /// Begins to write to tables what it has in memory.
    pub(super) fn write_out(&self) {
        let months: Vec<_> = self.months.read().values().cloned().collect();
        for keyspace in self.keyspaces.values().chain(&months) {
            // One that has failed says so where changes are written.
            let _ = keyspace.rotate_memtable();
        }
    }

    /// Bytes in memory that it has yet to write to tables.
    pub(super) fn unwritten(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// The bytes on the disk of each table and of the journals.
    pub(super) fn disk_bytes(&self) -> Vec<(&'static str, u64)> {
        let of_table =
            |(table, keyspace): (&Table, &Keyspace)| (table.name(), keyspace.disk_space());
        let mut bytes: Vec<_> = self.keyspaces.iter().map(of_table).collect();
        let journals = self.database.journal_disk_space().unwrap_or(0);
        let mut of_months = HashMap::from([("journal", journals)]);
        for (table, keyspace) in self.months.read().iter() {
            *of_months.entry(table.name()).or_default() += keyspace.disk_space();
        }
        let of = |name| (name, of_months.get(name).copied().unwrap_or(0));
        bytes.extend(MORE_DISK_BYTES.into_iter().map(of));
        bytes
    }

    /// Waits until a keyspace has room in memory.
    fn await_room(&self, keyspace: &Keyspace) -> Result<(), StoreError> {
        while keyspace.sealed_memtable_count() > UNWRITTEN_MAX {
            self.probe()?;
            crate::pause(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The keyspace of a table; none for a month without rows.
    fn keyspace(&self, table: Table) -> Option<Keyspace> {
        match table.month() {
            Some(_) => self.months.read().get(&table).cloned(),
            None => self.keyspaces.get(&table).cloned(),
        }
    }

    /// The keyspace of a table, made if it is a month's first.
    fn keyspace_for_writing(&self, table: Table) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.keyspace(table) {
            return Ok(keyspace);
        }
        let Some((prefix, Month(month))) = table.month() else {
            return keyspace(&self.database, table.name());
        };
        let made = keyspace(&self.database, &format!("{prefix}{month}"))?;
        self.months.write().insert(table, made.clone());
        Ok(made)
    }

    /// As [`super::DiskStore::moment`] says.
    pub(super) fn moment(self: Arc<Self>) -> Moment {
        let snapshot = self.database.snapshot();
        Moment { engine: self, snapshot }
    }

    /// As [`super::DiskStore::fill`] says.
    pub(super) fn fill(
        &self,
        table: Table,
        rows: impl Iterator<Item = Result<Row, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let keyspace = self.keyspace_for_writing(table)?;
        let bulk = || failed_to("fill a table");
        let mut ingestion = keyspace.start_ingestion().map_err(bulk())?;
        for row in rows {
            let (key, value) = row?;
            ingestion.write(key, value).map_err(bulk())?;
        }
        ingestion.finish().map_err(bulk())
    }

    fn rows<'a>(
        &self,
        table: Table,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
    ) -> Option<fjall::Iter> {
        if is_empty_range(from, to) {
            return None;
        }
        yield_point::pass();
        Some(self.keyspace(table)?.range::<&[u8], _>((from, to)))
    }
}

/// One moment of a store.
pub struct Moment {
    snapshot: Snapshot,
    engine: Arc<Engine>,
}

impl Moment {
    /// All tables, the partitions by month among them.
    pub fn tables(&self) -> Vec<Table> {
        Table::ALL.into_iter().chain(self.engine.months()).collect()
    }

    /// The rows of a table, in the order of their keys. A month that was dropped meanwhile has none.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = Result<Row, StoreError>> {
        let keyspace = self.engine.keyspace(table);
        let rows = keyspace.map(|keyspace| self.snapshot.iter(&keyspace));
        rows.into_iter().flatten().map(|guard| {
            if self.engine.closing.load(atomic::Ordering::Relaxed) {
                return Err(StoreError::Unavailable);
            }
            row(guard)
        })
    }
}

/// Opens a keyspace, or makes it.
fn keyspace(database: &Database, name: &str) -> Result<Keyspace, StoreError> {
    let has_points = matches!(Table::of_month(name), Some(Table::Telemetry(_)));
    let bytes = if has_points { MONTH_MEMTABLE_BYTES } else { MEMTABLE_BYTES };
    let options = || KeyspaceCreateOptions::default().max_memtable_size(bytes);
    database.keyspace(name, options).map_err(|source| failed("open a table", source))
}

/// Writes the schema version into a store that is new or of an older program; refuses a store of a
/// newer one, before any other table is touched. Whether it was this version before.
fn check_schema(database: &Database) -> Result<bool, StoreError> {
    let meta = keyspace(database, Table::Meta.name())?;
    let read = |e| failed("read its schema version", e);
    if let Some(value) = meta.get(SCHEMA_KEY).map_err(|e| failed("read its schema version", e))? {
        let found = u32::from_be_bytes(<[u8; 4]>::try_from(&*value).map_err(read)?);
        match found.cmp(&SCHEMA_VERSION) {
            Ordering::Greater => {
                return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
            }
            Ordering::Equal => return Ok(true),
            Ordering::Less => {}
        }
    }
    let wrote = meta.insert(SCHEMA_KEY, SCHEMA_VERSION.to_be_bytes());
    let synced = wrote.and_then(|()| database.persist(PersistMode::SyncAll));
    synced.map(|()| false).map_err(|e| failed("write", e))
}

fn row(guard: fjall::Guard) -> Result<Row, StoreError> {
    let (key, value) = guard.into_inner().map_err(|e| failed("read rows", e))?;
    yield_point::pass();
    Ok((key.to_vec(), value.to_vec()))
}

impl Engine {
    pub(super) fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        yield_point::pass();
        let Some(keyspace) = self.keyspace(table) else { return Ok(None) };
        let value = keyspace.get(key).map_err(|e| failed("read a row", e))?;
        Ok(value.map(|value| value.to_vec()))
    }

    pub(super) fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.rows(table, from, to).into_iter().flatten().take(limit).map(row).collect()
    }

    pub(super) fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows(table, from, to).into_iter();
        rows.flat_map(Iterator::rev).take(limit).map(row).collect()
    }

    pub(super) fn months(&self) -> Vec<Table> {
        self.months.read().keys().copied().collect()
    }

    pub(super) fn drop_month(&self, partition: Table) -> Result<(), StoreError> {
        let Some(keyspace) = self.months.write().remove(&partition) else { return Ok(()) };
        self.database.delete_keyspace(keyspace).map_err(|e| failed("drop a month", e))
    }

    /// All batches go into one record of the engine's journal: one write for the group. That makes
    /// the group atomic as a whole, which is more than asked.
    pub(super) fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        check_keys(batches)?;
        // Everything in one record has one sequence number, so a key may occur in it only once:
        // the last change of a key is the one that counts. Points of telemetry have keys of their
        // own and go in as they come.
        let mut changes = BTreeMap::new();
        let mut record = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut month: Option<(Table, Keyspace)> = None;
        for change in batches.iter().flat_map(|batch| &batch.0) {
            match change {
                Change::Put(table @ Table::Telemetry(_), key, value) => {
                    if month.as_ref().is_none_or(|(last, _)| last != table) {
                        let keyspace = self.keyspace_for_writing(*table)?;
                        self.await_room(&keyspace)?;
                        month = Some((*table, keyspace));
                    }
                    if let Some((_, keyspace)) = &month {
                        record.insert(keyspace, &key[..], &value[..]);
                    }
                }
                Change::Put(table, key, value) => {
                    if table.month().is_some() {
                        self.keyspace_for_writing(*table)?;
                    }
                    changes.insert((*table, key), Some(value));
                }
                Change::Delete(table, key) => {
                    changes.insert((*table, key), None);
                }
            }
        }
        let mut table_before = None;
        for ((table, key), value) in changes {
            if table_before != Some(table)
                && let Some(keyspace) = self.keyspace(table)
            {
                self.await_room(&keyspace)?;
                table_before = Some(table);
            }
            match (value, self.keyspace(table)) {
                (Some(value), Some(keyspace)) => record.insert(&keyspace, &key[..], &value[..]),
                (None, Some(keyspace)) => record.remove(&keyspace, &key[..]),
                // A month without rows has nothing to delete.
                (_, None) => {}
            }
        }
        record.commit().map_err(|e| failed("write its journal", e))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| failed("sync its journal", e))
    }
}

fn failed_to<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl Fn(E) -> StoreError {
    move |source| failed(doing, source)
}

/// An error of the engine. What its files say wrong is damage, not a failure.
fn failed(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    let source: Box<dyn std::error::Error + Send + Sync> = Box::new(source);
    match source.downcast_ref::<fjall::Error>() {
        Some(error) if is_damage(error) => StoreError::Damaged { what: error.to_string() },
        _ => StoreError::Engine { doing, source },
    }
}

fn is_damage(error: &fjall::Error) -> bool {
    use fjall::Error;
    match error {
        // The only ones with a cause of their own are the system's.
        Error::Storage(inner) => std::error::Error::source(inner).is_none(),
        Error::JournalRecovery(_)
        | Error::Decompress(_)
        | Error::InvalidTrailer
        | Error::InvalidTag(_)
        | Error::InvalidVersion(_)
        | Error::Unrecoverable => true,
        _ => false,
    }
}

/// Whether files, or parts of them, are missing.
fn is_incomplete(error: &fjall::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
            // Invalid: a position before the beginning of a file that is too short.
            return matches!(error.kind(), NotFound | UnexpectedEof | InvalidData | InvalidInput);
        }
        cause = error.source();
    }
    false
}
