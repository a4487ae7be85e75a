//! Durable state: ordered tables of bytes, changed in atomic batches.
//!
//! [`Store`] is the interface; [`disk`] is the embedded engine, [`memory`] a store in memory for
//! tests. [`Writer`] groups the writes of many connections. The rest of the program reads and writes
//! through [`Tables`].

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::pool::{OverShare, Pool, Whose};
use base::{Code, Failure};

pub mod disk;
mod disk_shares;
pub mod memory;
mod report;
mod room;
pub mod rows;
#[cfg(test)]
mod suite;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod watched;
mod writer;

pub use disk_shares::DiskShares;
pub use report::report;
pub use room::{Condition, Room};
pub use tables::{Exclusive, Tables};
pub use writer::{Durability, Receipt, WriteError, Writer};

/// Under which name the store logs: a filter for `tr50d` shows its lines too.
const LOG_TARGET: &str = "tr50d::store";

/// The longest value among the messages of MQTT sessions that is not a message: how far a client has
/// read, and that it has released one.
const MARK_BYTES_MAX: usize = 8;

/// The version of the tables' layout that this program writes. Version 1 knew no more of things
/// than that they exist, version 2 no sessions and messages of ordinary MQTT, version 3 no events; their
/// tables are read as they are.
pub const SCHEMA_VERSION: u32 = 4;

/// Names in [`Store::disk_bytes`] beside those of [`Table::ALL`]: all months of telemetry, all of
/// connections, and what the engine has yet to bring into tables.
pub const MORE_DISK_BYTES: [&str; 3] = ["telemetry", "connections", "journal"];

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
    /// Definitions of things: organisation id (12 bytes), then definition id.
    ThingDefs,
    /// Things: organisation id (12 bytes), then key.
    Things,
    /// Keys of things: organisation id (12 bytes), then thing id (12 bytes).
    ThingIds,
    /// Keys of things by their modems' identifiers: organisation id (12 bytes), the kind of
    /// identifier (1 byte), then the identifier.
    ThingAliases,
    /// Keys of bound things: id of the thing that they are bound to (12 bytes), then their own id.
    Children,
    /// Keys of things by their definition: id of the definition (12 bytes), then of the thing.
    ThingsOfDef,
    /// When things whose sessions have ended were last seen: thing id (12 bytes).
    Seen,
    /// Series of telemetry with their newest point: id of the owner (12 bytes), the kind (1 byte),
    /// then the name.
    Series,
    /// Points of telemetry of one month: series number (8 bytes), time, arrival.
    Telemetry(Month),
    /// Messages to things.
    Mails,
    /// Files of things and organisations: organisation id (12 bytes), thing id (12 bytes, zero for
    /// the organisation's own), then the name.
    Files,
    /// Files with an end: its time (8 bytes, big-endian milliseconds), then the key in `Files`.
    FileEnds,
    /// Live sessions, by ref.
    Sessions,
    /// Ended sessions that are in memory: time of the end (8 bytes, big-endian milliseconds), then
    /// ref. Without a value the record is in `Connections`.
    History,
    /// The connection history of one month: sessions that ended in it, and figures of its hours and
    /// days.
    Connections(Month),
    /// Retained messages: organisation id (12 bytes), then the topic.
    Retained,
    /// Retained messages with an end: its time (8 bytes, big-endian milliseconds), then the key in
    /// `Retained`.
    RetainedEnds,
    /// MQTT sessions that outlive their connections, by number (8 bytes).
    MqttSessions,
    /// What waits in them: the session's number (8 bytes), then the message's (8 bytes).
    MqttMessages,
    /// Packet ids of messages with QoS 2 that they have taken and not released: the session's number
    /// (8 bytes), then the id (2 bytes).
    MqttReceived,
    /// Events: the class (1 byte), organisation id (12 bytes, zero for the server's own), then the
    /// number (8 bytes).
    Events,
    /// Their bytes by class and organisation, with which their keys begin; with a class of 0 what was
    /// above an organisation that was deleted.
    EventSums,
}

/// A calendar month in UTC, counted from January 1970; the partitions of telemetry and connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Month(pub u16);

impl Table {
    /// All tables but the partitions by month, of which there are as many as there is data.
    pub const ALL: [Self; 25] = [
        Self::Meta,
        Self::Orgs,
        Self::Users,
        Self::Roles,
        Self::Applications,
        Self::ThingDefs,
        Self::Things,
        Self::ThingIds,
        Self::ThingAliases,
        Self::Children,
        Self::ThingsOfDef,
        Self::Seen,
        Self::Series,
        Self::Mails,
        Self::Files,
        Self::FileEnds,
        Self::Sessions,
        Self::History,
        Self::Retained,
        Self::RetainedEnds,
        Self::MqttSessions,
        Self::MqttMessages,
        Self::MqttReceived,
        Self::Events,
        Self::EventSums,
    ];

    /// The name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Orgs => "orgs",
            Self::Users => "users",
            Self::Roles => "roles",
            Self::Applications => "applications",
            Self::ThingDefs => "thing_defs",
            Self::Things => "things",
            Self::ThingIds => "thing_ids",
            Self::ThingAliases => "thing_aliases",
            Self::Children => "children",
            Self::ThingsOfDef => "things_of_def",
            Self::Seen => "seen",
            Self::Series => "series",
            Self::Telemetry(_) => "telemetry",
            Self::Connections(_) => "connections",
            Self::Mails => "mails",
            Self::Files => "files",
            Self::FileEnds => "file_ends",
            Self::Sessions => "sessions",
            Self::History => "history",
            Self::Retained => "retained",
            Self::RetainedEnds => "retained_ends",
            Self::MqttSessions => "mqtt_sessions",
            Self::MqttMessages => "mqtt_messages",
            Self::MqttReceived => "mqtt_received",
            Self::Events => "events",
            Self::EventSums => "event_sums",
        }
    }

    /// The name on disk before the number of the month, of a partition by month.
    const fn month(self) -> Option<(&'static str, Month)> {
        match self {
            Self::Telemetry(month) => Some(("telemetry_", month)),
            Self::Connections(month) => Some(("connections_", month)),
            _ => None,
        }
    }

    /// The partition by month with this name on disk.
    fn of_month(name: &str) -> Option<Self> {
        let (kind, month) = name.rsplit_once('_')?;
        let month = Month(month.parse().ok()?);
        match kind {
            "telemetry" => Some(Self::Telemetry(month)),
            "connections" => Some(Self::Connections(month)),
            _ => None,
        }
    }

    /// Whether it has rows of what has ended or goes elsewhere, which come with the removal of others:
    /// the outcome of a mail, when a thing was seen last, that the telemetry of a thing is to go.
    const fn keeps_ends(self) -> bool {
        matches!(
            self,
            Self::History
                | Self::Connections(_)
                | Self::Seen
                | Self::Mails
                | Self::MqttMessages
                | Self::Meta
                | Self::Events
                | Self::EventSums
        )
    }

    /// Whether a read by key sees what waits for the writer. Nobody reads a session, what waits in
    /// one, or a point of telemetry by key, so they are spared the cost; but a point that its sender
    /// has named (the highest bit of the last four bytes of its key) is looked for when it comes again.
    fn shows_waiting(self, key: &[u8]) -> bool {
        if let Self::Telemetry(_) = self {
            return key.len() >= 4 && key[key.len() - 4] & 0x80 != 0;
        }
        !matches!(
            self,
            Self::Connections(_)
                | Self::Sessions
                | Self::History
                | Self::RetainedEnds
                | Self::MqttSessions
                | Self::MqttMessages
                | Self::MqttReceived
                | Self::Events
                | Self::EventSums
        )
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

    /// The memory that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let heap = |change: &Change| match change {
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
        };
        self.0.iter().map(|change| size_of::<Change>() + heap(change)).sum()
    }

    /// Whether it takes more room than it gives back. Whatever only removes does not, with what is
    /// kept of what it ends; nor does what replaces a few bytes.
    pub fn adds(&self) -> bool {
        let (mut removes, mut keeps) = (false, false);
        for change in &self.0 {
            match change {
                Change::Delete(..) => removes = true,
                Change::Put(Table::MqttMessages, _, value) if value.len() <= MARK_BYTES_MAX => {}
                Change::Put(table, ..) if table.keeps_ends() => keeps = true,
                Change::Put(..) => return true,
            }
        }
        keeps && !removes
    }

    /// The value that the change at this place puts.
    pub fn value_at(&self, index: usize) -> Option<&[u8]> {
        match self.0.get(index)? {
            Change::Put(_, _, value) => Some(value),
            Change::Delete(..) => None,
        }
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
    /// Too many changes wait for the writer, and of this one's more than of others.
    #[error("the store is behind with its work: {0}")]
    Busy(OverShare),
    /// The disk has less room than `server.min_free_bytes`, and the change adds something.
    #[error("the disk of the store has no room")]
    NoRoom,
    /// Whoever would own what the change adds has all the room that it may have.
    #[error(transparent)]
    OverShare(OverShare),
    /// A record would be larger than one may be; the sentence says which.
    #[error("{0}")]
    TooLarge(String),
    /// The engine has failed and is being opened again: nothing was taken.
    #[error("the store has failed and is being opened again")]
    Unavailable,
    /// The engine failed over a change that was taken. It is kept and stored as soon as that works;
    /// it is lost if the process ends before.
    #[error("the store has failed; the change waits until it works again")]
    Held,
    /// The files are damaged.
    #[error(
        "the store is damaged: {what}. Restore a backup: stop the server, move the data directory \
         away, and run `tr50d restore` with a directory that `tr50d backup` made"
    )]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
    /// A file or directory is not this user's alone, and can't be made so.
    #[error("others can read {}, and that can't be changed: {why}", path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl StoreError {
    /// So much waits that nobody's changes are taken.
    pub const BUSY: Self =
        Self::Busy(OverShare { pool: Pool::StoreQueue, whose: Whose::Everybody });

    /// Whether the same may work later: the operator is told by the condition of the store, and each
    /// caller by its own failure.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::NoRoom | Self::Unavailable | Self::Held)
    }
}

impl StoreError {
    /// What the caller of a command is told.
    pub fn as_failure(&self) -> Failure {
        let unavailable = |why| Failure::new(Code::STORE_UNAVAILABLE, why);
        match self {
            Self::Busy(over) => Failure::new(
                Code::BUSY,
                format!("The store is behind with its work: {over}; try again."),
            ),
            Self::OverShare(over) => (*over).into(),
            Self::TooLarge(sentence) => Failure::new(Code::LIMIT_REACHED, sentence.clone()),
            Self::NoRoom => unavailable(
                "The server's disk is nearly full: nothing more is stored, only deleted.",
            ),
            Self::Unavailable => {
                unavailable("The server's store has failed and is being opened again; try again.")
            }
            Self::Held => unavailable(
                "The server's store has failed; the change is stored when it works again, if the \
                 server does not end before.",
            ),
            error => {
                report(error, "a command failed");
                Failure::new(Code::INTERNAL, "The server could not read or write its store.")
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        error.as_failure()
    }
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

    /// At most `limit` rows with keys in the range, in descending order of keys.
    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// The partitions by month that there are, in order.
    fn months(&self) -> Vec<Table>;

    /// Drops a partition by month with all that is in it.
    fn drop_month(&self, partition: Table) -> Result<(), StoreError>;

    /// Applies several batches, each atomically; when it returns they survive the end of this
    /// process (`kill -9`).
    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError>;

    /// Makes all commits so far survive the loss of power.
    fn sync(&self) -> Result<(), StoreError>;

    /// Makes all commits survive the loss of power; no more will come.
    fn finish(&self) -> Result<(), StoreError> {
        self.sync()
    }

    /// The bytes that each table takes on the disk, all months of telemetry as one, and what the
    /// engine has for all of them. None where there is no disk.
    fn disk_bytes(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Its room and condition.
    fn room(&self) -> &Arc<Room>;

    /// Waits at most so long for a commit that failed to be worth another try; false if that will
    /// never be.
    fn recovers(&self, _wait: Duration) -> bool {
        false
    }
}

/// Waits, on a thread that serves no connection.
#[expect(clippy::disallowed_methods, reason = "the store has threads of its own for what waits")]
fn pause(time: Duration) {
    std::thread::sleep(time);
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
