//! Durable state: ordered tables of bytes, changed in atomic batches.
//!
//! [`Store`] is what the rest of the program sees. [`memory`] keeps it in memory for tests; the
//! embedded engine is in [`disk`]. Writes of many connections are grouped by [`writer`].

use std::ops::Bound;
use std::path::PathBuf;

pub mod disk;
pub mod memory;
#[cfg(test)]
mod suite;
pub mod writer;

/// The version of the tables' layout that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The longest key in bytes; the engine's own bound.
pub const KEY_BYTES_MAX: usize = 65_535;

/// A table of the store. Keys are ordered bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Facts about the store itself, such as its schema version.
    Meta,
    /// Organisations, by id.
    Orgs,
    /// Users, by id.
    Users,
    /// Roles, by id.
    Roles,
    /// Application definitions with their tokens' hashes, by id.
    Applications,
    /// Things: organisation id (12 bytes), then key.
    Things,
    /// Keys of things: organisation id (12 bytes), then thing id (12 bytes).
    ThingIds,
    /// Live sessions, by ref.
    Sessions,
    /// Ended sessions: time of the end (8 bytes, big-endian milliseconds), then ref.
    History,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Orgs,
        Self::Users,
        Self::Roles,
        Self::Applications,
        Self::Things,
        Self::ThingIds,
        Self::Sessions,
        Self::History,
    ];

    /// The name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Orgs => "orgs",
            Self::Users => "users",
            Self::Roles => "roles",
            Self::Applications => "applications",
            Self::Things => "things",
            Self::ThingIds => "thing_ids",
            Self::Sessions => "sessions",
            Self::History => "history",
        }
    }
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Sets the key's value.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes the key, which need not be there.
    Delete(Table, Vec<u8>),
}

/// Changes that happen together or not at all, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    /// Adds a value.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push(Change::Put(table, key.into(), value.into()));
    }

    /// Adds a removal.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.0.push(Change::Delete(table, key.into()));
    }
}

/// What can go wrong with durable state.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error("the store can't {doing}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record does not read back: written by a newer program, or damaged.
    #[error("the record {key} in table {table} can't be read")]
    Record {
        /// The table's name.
        table: &'static str,
        /// The key in hexadecimal.
        key: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The store was written by a newer program.
    #[error("the store has schema version {found}, this program knows versions up to {known}")]
    Newer {
        /// The store's version.
        found: u32,
        /// This program's version.
        known: u32,
    },
    /// Another process works on this directory.
    #[error("the directory {0} is in use by another process")]
    InUse(PathBuf),
    /// A key is empty or longer than [`KEY_BYTES_MAX`].
    #[error("a key of {bytes} bytes can't be kept in table {table}")]
    KeyLength {
        /// The table's name.
        table: &'static str,
        /// The key's length.
        bytes: usize,
    },
    /// The writer has stopped: no further change is taken.
    #[error("the store is closed")]
    Closed,
    /// Too many changes wait for the writer.
    #[error("the store is behind with its work")]
    Busy,
}

/// A row of a table: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Durable state. All methods block for the time of a disk access and may be called from any
/// thread.
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` rows with keys in the range, in ascending order of keys.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// Applies several batches, each atomically; when it returns they survive the end of this
    /// process (`kill -9`).
    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError>;

    /// Makes all commits so far survive the loss of power.
    fn sync(&self) -> Result<(), StoreError>;
}

/// Refuses what no engine can keep, before anything is written.
fn check_keys(batches: &[Batch]) -> Result<(), StoreError> {
    for change in batches.iter().flat_map(|batch| &batch.0) {
        let (Change::Put(table, key, _) | Change::Delete(table, key)) = change;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(StoreError::KeyLength { table: table.name(), bytes: key.len() });
        }
    }
    Ok(())
}

/// Whether no key can be in the range. Ordered maps panic when asked for a range that ends before
/// it begins, so this is asked first.
fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
