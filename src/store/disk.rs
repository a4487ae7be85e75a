//! The embedded engine: fjall, one keyspace for each table, in one directory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    Batch, Change, Row, SCHEMA_VERSION, Store, StoreError, Table, check_keys, is_empty_range,
};

/// Blocks of the tables' files kept in memory. What is hot (sessions, identity) is held by the
/// program itself; this serves the reading of things.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Changes of one table kept in memory before they are written to a file of the table.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Journals on disk, read again at the start: two of the engine's 64 MB.
const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;

/// One thread flushes while the other compacts; with a single one a long compaction would hold up
/// the flushes and with them the writers.
const ENGINE_THREADS: usize = 2;

/// Files kept open.
const OPEN_FILES: usize = 256;

/// Where the schema version is, in [`Table::Meta`]: 4 bytes, big-endian.
const SCHEMA_KEY: &[u8] = b"schema";

/// Durable state in a directory.
pub struct DiskStore {
    database: Database,
    keyspaces: [Keyspace; Table::ALL.len()],
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
        let mut keyspaces = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            let keyspace = database.keyspace(table.name(), options);
            keyspaces.push(keyspace.map_err(|source| failed("open a table", source))?);
        }
        let Ok(keyspaces) = keyspaces.try_into() else {
            unreachable!("one keyspace was opened for each table");
        };
        let store = Self { database, keyspaces };
        store.check_schema()?;
        Ok(store)
    }

    /// Writes the schema version into a new store; refuses a store of a newer program.
    fn check_schema(&self) -> Result<(), StoreError> {
        let Some(value) = self.read(Table::Meta, SCHEMA_KEY)? else {
            let mut batch = Batch::default();
            batch.put(Table::Meta, SCHEMA_KEY, SCHEMA_VERSION.to_be_bytes());
            self.commit(&[batch])?;
            return self.sync();
        };
        let bytes = <[u8; 4]>::try_from(value.as_slice());
        let found = u32::from_be_bytes(bytes.map_err(|e| failed("read its schema version", e))?);
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
        }
        Ok(())
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        &self.keyspaces[table as usize]
    }
}

impl Store for DiskStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.keyspace(table).get(key).map_err(|e| failed("read a row", e))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        let rows = self.keyspace(table).range::<&[u8], _>((from, to)).take(limit);
        rows.map(|row| {
            let (key, value) = row.into_inner().map_err(|e| failed("read rows", e))?;
            Ok((key.to_vec(), value.to_vec()))
        })
        .collect()
    }

    /// All batches go into one record of the engine's journal: one write for the group. That makes
    /// the group atomic as a whole, which is more than asked.
    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        check_keys(batches)?;
        // Everything in one record has one sequence number, so a key may occur in it only once:
        // the last change of a key is the one that counts.
        let mut changes = BTreeMap::new();
        for change in batches.iter().flat_map(|batch| &batch.0) {
            match change {
                Change::Put(table, key, value) => changes.insert((*table, key), Some(value)),
                Change::Delete(table, key) => changes.insert((*table, key), None),
            };
        }
        let mut record = self.database.batch().durability(Some(PersistMode::Buffer));
        for ((table, key), value) in changes {
            match value {
                Some(value) => record.insert(self.keyspace(table), &key[..], &value[..]),
                None => record.remove(self.keyspace(table), &key[..]),
            }
        }
        record.commit().map_err(|e| failed("write its journal", e))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| failed("sync its journal", e))
    }
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
    use crate::store::suite;

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
        const DIR: &str = "TR50D_TEST_STORE_DIR";
        if let Some(dir) = std::env::var_os(DIR) {
            let store = DiskStore::open(Path::new(&dir)).expect("a new store");
            let mut batch = Batch::default();
            batch.put(Table::Sessions, "a", "1");
            store.commit(&[batch]).expect("commit");
            std::process::abort();
        }
        let dir = tempfile::tempdir().expect("a directory");
        let child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "store::disk::tests::a_commit_survives_the_end_of_the_process"])
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
        assert!(matches!(newer, StoreError::Newer { found: 2, known: SCHEMA_VERSION }));
    }
}
