//! The embedded engine: fjall, one keyspace for each table, in one directory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::RwLock;

use super::{
    Batch, Change, Month, Row, SCHEMA_VERSION, Store, StoreError, Table, check_keys, is_empty_range,
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

/// Files kept open.
const OPEN_FILES: usize = 256;

/// Where the schema version is, in [`Table::Meta`]: 4 bytes, big-endian.
const SCHEMA_KEY: &[u8] = b"schema";

/// What the engine keeps in every directory of a store.
const VERSION_FILE: &str = "version";

/// The names of telemetry's partitions, before the number of the month.
const MONTH_PREFIX: &str = "telemetry_";

/// Durable state in a directory.
pub struct DiskStore {
    database: Database,
    keyspaces: HashMap<Table, Keyspace>,
    /// The partitions of telemetry; they come with the first point of a month.
    months: RwLock<BTreeMap<Month, Keyspace>>,
}

impl DiskStore {
    /// Opens the store in `dir`, or makes one there, readable by this user only.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Newer`] when a newer
    /// program wrote it, [`StoreError::Engine`] for everything else.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        make_private(dir).map_err(|source| failed("make its directory", source))?;
        let opened = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(ENGINE_THREADS)
            .open();
        let database = opened.map_err(|error| match error {
            fjall::Error::Locked => StoreError::InUse(dir.to_path_buf()),
            other => failed("open its files", other),
        })?;
        check_schema(&database)?;
        let mut keyspaces = HashMap::new();
        for table in Table::ALL {
            keyspaces.insert(table, keyspace(&database, table.name())?);
        }
        let mut months = BTreeMap::new();
        for name in database.list_keyspace_names() {
            if let Some(month) = name.strip_prefix(MONTH_PREFIX).and_then(|m| m.parse().ok()) {
                months.insert(Month(month), keyspace(&database, &name)?);
            }
        }
        Ok(Self { database, keyspaces, months: RwLock::new(months) })
    }

    /// The keyspace of a table; none for a month without telemetry.
    fn keyspace(&self, table: Table) -> Option<Keyspace> {
        match table {
            Table::Telemetry(month) => self.months.read().get(&month).cloned(),
            table => self.keyspaces.get(&table).cloned(),
        }
    }

    /// The keyspace of a table, made if it is a month's first.
    fn keyspace_for_writing(&self, table: Table) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.keyspace(table) {
            return Ok(keyspace);
        }
        let name = match table {
            Table::Telemetry(Month(month)) => format!("{MONTH_PREFIX}{month}"),
            table => table.name().to_owned(),
        };
        let made = keyspace(&self.database, &name)?;
        if let Table::Telemetry(month) = table {
            self.months.write().insert(month, made.clone());
        }
        Ok(made)
    }

    /// The store as it is now, whatever is written meanwhile. To be let go soon: the engine keeps
    /// what was replaced since.
    pub fn moment(&self) -> Moment<'_> {
        Moment { store: self, snapshot: self.database.snapshot() }
    }

    /// Whether there is a store in `dir`.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(VERSION_FILE).exists()
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
        Some(self.keyspace(table)?.range::<&[u8], _>((from, to)))
    }
}

/// One moment of a store.
pub struct Moment<'a> {
    store: &'a DiskStore,
    snapshot: Snapshot,
}

impl Moment<'_> {
    /// All tables, the months of telemetry among them.
    pub fn tables(&self) -> Vec<Table> {
        let months = self.store.months().into_iter().map(Table::Telemetry);
        Table::ALL.into_iter().chain(months).collect()
    }

    /// The rows of a table, in the order of their keys. A month that was dropped meanwhile has none.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = Result<Row, StoreError>> {
        let keyspace = self.store.keyspace(table);
        let rows = keyspace.map(|keyspace| self.snapshot.iter(&keyspace));
        rows.into_iter().flatten().map(row)
    }
}

/// Opens a keyspace, or makes it.
fn keyspace(database: &Database, name: &str) -> Result<Keyspace, StoreError> {
    let is_month = name.starts_with(MONTH_PREFIX);
    let bytes = if is_month { MONTH_MEMTABLE_BYTES } else { MEMTABLE_BYTES };
    let options = || KeyspaceCreateOptions::default().max_memtable_size(bytes);
    database.keyspace(name, options).map_err(|source| failed("open a table", source))
}

/// Writes the schema version into a store that is new or of an older program; refuses a store of a
/// newer one, before any other table is touched.
fn check_schema(database: &Database) -> Result<(), StoreError> {
    let meta = keyspace(database, Table::Meta.name())?;
    let read = |e| failed("read its schema version", e);
    if let Some(value) = meta.get(SCHEMA_KEY).map_err(|e| failed("read its schema version", e))? {
        let found = u32::from_be_bytes(<[u8; 4]>::try_from(&*value).map_err(read)?);
        match found.cmp(&SCHEMA_VERSION) {
            Ordering::Greater => {
                return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
            }
            Ordering::Equal => return Ok(()),
            Ordering::Less => {}
        }
    }
    let wrote = meta.insert(SCHEMA_KEY, SCHEMA_VERSION.to_be_bytes());
    wrote.and_then(|()| database.persist(PersistMode::SyncAll)).map_err(|e| failed("write", e))
}

fn row(guard: fjall::Guard) -> Result<Row, StoreError> {
    let (key, value) = guard.into_inner().map_err(|e| failed("read rows", e))?;
    Ok((key.to_vec(), value.to_vec()))
}

impl Store for DiskStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(keyspace) = self.keyspace(table) else { return Ok(None) };
        let value = keyspace.get(key).map_err(|e| failed("read a row", e))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.rows(table, from, to).into_iter().flatten().take(limit).map(row).collect()
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows(table, from, to).into_iter();
        rows.flat_map(Iterator::rev).take(limit).map(row).collect()
    }

    fn months(&self) -> Vec<Month> {
        self.months.read().keys().copied().collect()
    }

    fn drop_month(&self, month: Month) -> Result<(), StoreError> {
        let Some(keyspace) = self.months.write().remove(&month) else { return Ok(()) };
        self.database.delete_keyspace(keyspace).map_err(|e| failed("drop a month", e))
    }

    /// All batches go into one record of the engine's journal: one write for the group. That makes
    /// the group atomic as a whole, which is more than asked.
    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
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
                        month = Some((*table, self.keyspace_for_writing(*table)?));
                    }
                    if let Some((_, keyspace)) = &month {
                        record.insert(keyspace, &key[..], &value[..]);
                    }
                }
                Change::Put(table, key, value) => {
                    changes.insert((*table, key), Some(value));
                }
                Change::Delete(table, key) => {
                    changes.insert((*table, key), None);
                }
            }
        }
        for ((table, key), value) in changes {
            match (value, self.keyspace(table)) {
                (Some(value), Some(keyspace)) => record.insert(&keyspace, &key[..], &value[..]),
                (None, Some(keyspace)) => record.remove(&keyspace, &key[..]),
                // A month without telemetry has nothing to delete.
                (_, None) => {}
            }
        }
        record.commit().map_err(|e| failed("write its journal", e))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| failed("sync its journal", e))
    }
}

fn failed_to<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl Fn(E) -> StoreError {
    move |source| failed(doing, source)
}

fn failed(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Engine { doing, source: Box::new(source) }
}

/// Makes the directory, if need be, for this user only: it holds password hashes and sessions.
fn make_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    fn fresh() -> (tempfile::TempDir, DiskStore) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = DiskStore::open(&dir.path().join("data")).expect("a new store");
        (dir, store)
    }

    #[test]
    fn behaves_as_a_store() {
        let (_dir, store) = fresh();
        suite::check_store(&store);
    }

    #[test]
    fn agrees_with_the_model() {
        let (_dir, store) = fresh();
        suite::check_against_model(64, &store);
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let (dir, store) = fresh();
        let mut batch = Batch::default();
        batch.put(Table::Sessions, "a", "1");
        batch.put(Table::Sessions, "b", "2");
        batch.delete(Table::Sessions, "a");
        store.commit(&[batch]).expect("commit");
        drop(store);
        let store = DiskStore::open(&dir.path().join("data")).expect("the same store");
        assert_eq!(store.read(Table::Sessions, b"a").expect("read"), None);
        assert_eq!(store.read(Table::Sessions, b"b").expect("read"), Some(b"2".to_vec()));
    }

    /// Runs itself a second time, as a process that commits and is gone without a word.
    #[test]
    fn a_commit_survives_the_end_of_the_process() {
        const DIR: &str = "STORE_DIR_OF_TEST";
        if let Some(dir) = std::env::var_os(DIR) {
            let store = DiskStore::open(Path::new(&dir)).expect("a new store");
            let mut batch = Batch::default();
            batch.put(Table::Sessions, "a", "1");
            store.commit(&[batch]).expect("commit");
            std::process::abort();
        }
        let dir = tempfile::tempdir().expect("a directory");
        let child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "disk::tests::a_commit_survives_the_end_of_the_process"])
            .env(DIR, dir.path())
            .output()
            .expect("a process");
        assert!(!child.status.success(), "it aborts");
        let store = DiskStore::open(dir.path()).expect("the same store");
        let found = store.read(Table::Sessions, b"a").expect("read");
        assert_eq!(found, Some(b"1".to_vec()));
    }

    #[test]
    fn a_directory_has_one_owner() {
        let (dir, _store) = fresh();
        let path = dir.path().join("data");
        let second = DiskStore::open(&path).err().expect("refused");
        assert!(matches!(&second, StoreError::InUse(dir) if *dir == path), "{second:?}");
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let (dir, store) = fresh();
        let write = |store: &DiskStore, value: &[u8]| {
            let mut batch = Batch::default();
            batch.put(Table::Meta, SCHEMA_KEY, value);
            store.commit(&[batch]).expect("commit");
        };
        let path = dir.path().join("data");
        write(&store, &(SCHEMA_VERSION + 1).to_be_bytes());
        drop(store);
        let newer = DiskStore::open(&path).err().expect("refused");
        let expected = SCHEMA_VERSION + 1;
        assert!(matches!(newer, StoreError::Newer { found, .. } if found == expected));
    }
}
