//! The records of identity in the store: a row each, by id, and where they come from at the start.

use std::path::{Path, PathBuf};

use base::timestamp::Timestamp;
use rules::identity::bootstrap::{self, Problem};
use rules::identity::{Record, RecordChange, RecordChanges, Records};
use store::rows::{encode, load_table};
use store::{Batch, Store, StoreError, Table};

/// Why there are no records. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nobody to log in, and nothing to read them from.
    #[error("the store is empty, and the configuration names no bootstrap file (server.bootstrap)")]
    NoBootstrap,
    /// The bootstrap file can't be read.
    #[error("the bootstrap file {path} can't be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The bootstrap file says something that can't be.
    #[error("the bootstrap file {path}: {problem}")]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// The records of a store. One without organisations is first filled from the bootstrap file; any
/// other store ignores the file. `random` fills its argument with random bytes, for salts and for
/// the ids that the file leaves out.
///
/// # Errors
///
/// The store failed, or the bootstrap file is needed and is missing or wrong.
pub fn load(
    store: &dyn Store,
    bootstrap: Option<&Path>,
    now: Timestamp,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Records, IdentityError> {
    let stored = read_all(store)?;
    if !stored.orgs.is_empty() {
        return Ok(stored);
    }
    let path = bootstrap.ok_or(IdentityError::NoBootstrap)?;
    let records = read_file(path, now, random)?;
    let mut batch = Batch::default();
    records.iter().for_each(|record| put(&mut batch, &record));
    store.commit(&[batch])?;
    store.sync()?;
    Ok(records)
}

/// Whether a bootstrap file could be read into an empty store.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_bootstrap(path: &Path, now: Timestamp) -> Result<(), IdentityError> {
    // Ids and salts that are forgotten at once need no randomness.
    read_file(path, now, &mut |bytes| bytes.fill(0)).map(drop)
}

fn read_file(
    path: &Path,
    now: Timestamp,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Records, IdentityError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| IdentityError::Unreadable { path: path.into(), source })?;
    bootstrap::read(&text, now, random)
        .map_err(|problem| IdentityError::Bootstrap { path: path.into(), problem })
}

/// The rows of changes.
pub fn batch_of(changes: &RecordChanges) -> Batch {
    let mut batch = Batch::default();
    for change in changes.iter() {
        match change {
            RecordChange::Put(record) => put(&mut batch, record),
            RecordChange::Delete(record) => {
                let (table, key) = row(record);
                batch.delete(table, key);
            }
        }
    }
    batch
}

fn read_all(store: &dyn Store) -> Result<Records, StoreError> {
    Ok(Records {
        orgs: load_table(store, Table::Orgs)?,
        roles: load_table(store, Table::Roles)?,
        users: load_table(store, Table::Users)?,
        applications: load_table(store, Table::Applications)?,
        thing_defs: load_table(store, Table::ThingDefs)?,
    })
}

fn put(batch: &mut Batch, record: &Record) {
    let (table, key) = row(record);
    let value = match record {
        Record::Org(record) => encode(record),
        Record::Role(record) => encode(record),
        Record::User(record) => encode(record),
        Record::Application(record) => encode(record),
        Record::ThingDef(record) => encode(record),
    };
    batch.put(table, key, value);
}

fn row(record: &Record) -> (Table, Vec<u8>) {
    match record {
        Record::Org(org) => (Table::Orgs, org.id.as_bytes().to_vec()),
        Record::Role(role) => (Table::Roles, role.id.as_bytes().to_vec()),
        Record::User(user) => (Table::Users, user.id.as_bytes().to_vec()),
        Record::Application(application) => {
            (Table::Applications, application.id.as_bytes().to_vec())
        }
        Record::ThingDef(def) => {
            (Table::ThingDefs, [*def.org.as_bytes(), *def.id.as_bytes()].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use rules::identity::tests::NOW;
    use store::memory::MemoryStore;

    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml")
    }

    #[test]
    fn the_file_is_read_once_into_an_empty_store() {
        let store = MemoryStore::new();
        let first = load(&store, Some(&demo()), NOW, &mut |bytes| bytes.fill(7));
        let first = first.expect("the demo's file is right");
        let again = load(&store, Some(Path::new("/nowhere/at/all.toml")), NOW, &mut |_| ());
        let again = again.expect("needs no file");
        let sorted = |records: &Records| {
            let mut all: Vec<_> = records.iter().map(|record| format!("{record:?}")).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&again), sorted(&first));
        assert_eq!(again.orgs.len(), 3);
    }

    #[test]
    fn an_empty_store_needs_a_file() {
        let open = |file: Option<&Path>| {
            let store = MemoryStore::new();
            let opened = load(&store, file, NOW, &mut |_| ());
            assert!(read_all(&store).expect("readable").orgs.is_empty());
            opened.err().expect("refused").to_string()
        };
        assert!(open(None).contains("server.bootstrap"));
        let missing = open(Some(Path::new("/nowhere/at/all.toml")));
        assert_eq!(missing, "the bootstrap file /nowhere/at/all.toml can't be read");
    }

    #[test]
    fn a_damaged_record_is_named() {
        let store = MemoryStore::new();
        let mut batch = Batch::default();
        batch.put(Table::Roles, [0xab; 12], "{");
        store.commit(&[batch]).expect("commit");
        let error = read_all(&store).expect_err("damaged");
        let expected = "the record abababababababababababab in table roles can't be read";
        assert_eq!(error.to_string(), expected);
    }
}
