//! Files of things and organisations (`docs/protocol/tr50.md` 4.3). Their records are rows of the
//! store, their bytes are files beside it.
//!
//! A file exists when its record does: the bytes are complete and in their place before. The bytes
//! of a replaced or deleted file go later, when the change is committed and nobody holds a ticket
//! to fetch them.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

pub mod blobs;
mod space;
pub mod ticket;
pub mod transfer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use base::{Clock, FileId, OrgId, ThingId, TicketId, Timestamp, limits};
use blobs::{Blobs, Incoming};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use space::{Reserved, Space, room_of};
use store::{
    Batch, DiskShares, Receipt, StoreError, Table, Tables,
    rows::{decode, encode},
};
use subtle::ConstantTimeEq;
use ticket::{Asker, Purpose, TicketError, Tickets};
use transfer::TransferError;

use super::Maker;

/// Whose file it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// The organisation.
    pub org: OrgId,
    /// The thing; none for a file of the organisation itself (`global`).
    pub thing: Option<ThingId>,
}

impl Owner {
    /// What the keys of all its rows begin with.
    fn prefix(&self) -> Vec<u8> {
        let thing = self.thing.unwrap_or(ThingId::from_bytes([0; 12]));
        [*self.org.as_bytes(), *thing.as_bytes()].concat()
    }

    fn row(&self, name: &FileName) -> Vec<u8> {
        [&self.prefix(), name.0.as_bytes()].concat()
    }
}

/// The name of a file: what a device calls it, flat, unique for its owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FileName(String);

impl FileName {
    /// The longest name in bytes, as in file systems.
    pub const BYTES_MAX: usize = 255;

    /// Reads a name. It may have any character but control characters: a `/` means nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file to be, as `file.put` announced it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Its name.
    pub name: FileName,
    /// The CRC-32 that its bytes must have.
    pub crc32: Option<u32>,
    /// Whether other organisations may see it.
    pub public: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its security tags.
    pub sec_tags: Vec<String>,
    /// Seconds for which it is kept; none: for ever.
    pub ttl_s: Option<u64>,
    /// Whether its SHA-256 is wanted.
    pub with_sha256: bool,
    /// Whether the owner's log is to say when it is complete.
    pub log_complete: bool,
    /// What its downloads have to be authenticated with.
    pub basic_auth: Option<Credentials>,
}

/// User name and password of a protected file (`basicAuth`), joined by a colon as HTTP sends them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub String);

/// Without the password, which has no place in a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

impl Credentials {
    /// What is kept of them: SHA-256 of the file's id and them, in hexadecimal.
    fn hash(&self, file: FileId) -> String {
        let hash = Sha256::new().chain_update(file.as_bytes()).chain_update(&self.0);
        HEXLOWER.encode(&hash.finalize())
    }
}

/// What is known of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its id, under which its bytes are kept. A file that is replaced gets a new one.
    pub id: FileId,
    /// Its name.
    pub name: FileName,
    /// How many bytes it has.
    pub length: u64,
    /// Their CRC-32 (IEEE 802.3).
    pub crc32: u32,
    /// Their SHA-256 in hexadecimal, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whose share it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Maker,
    /// When it was complete.
    pub upload_date: Timestamp,
    /// Whether other organisations may see it.
    pub public: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its security tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sec_tags: Vec<String>,
    /// The hash of what its downloads have to be authenticated with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_hash: Option<String>,
    /// When it goes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl FileRecord {
    fn lives(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether a download that brings these credentials is allowed.
    pub fn opens_with(&self, credentials: Option<&Credentials>) -> bool {
        let Some(wanted) = &self.credentials_hash else { return true };
        let hash = credentials.map(|credentials| credentials.hash(self.id));
        hash.is_some_and(|hash| hash.as_bytes().ct_eq(wanted.as_bytes()).into())
    }

    #[cfg(test)]
    fn example(name: &str) -> Self {
        Self {
            id: FileId::from_bytes([7; 12]),
            name: FileName::parse(name).expect("a name"),
            length: 3,
            crc32: 0,
            sha256: None,
            maker: None,
            upload_date: Timestamp::default(),
            public: false,
            tags: Vec::new(),
            sec_tags: Vec::new(),
            credentials_hash: None,
            expires: None,
        }
    }
}

/// What the configuration says about files.
#[derive(Clone, Debug)]
pub struct FilesConfig {
    /// The directory of their bytes.
    pub dir: PathBuf,
    /// Whether a stored file has to survive the loss of power.
    pub sync: bool,
    /// Bytes of one file.
    pub bytes_max: u64,
    /// Bytes of all files.
    pub total_bytes_max: u64,
    /// Those of an organisation at the most; 0 is no limit.
    pub org_bytes_max: u64,
}

/// Bytes that are to be removed once their record is gone.
struct Doomed {
    row: Vec<u8>,
    id: FileId,
}

/// The files of all things and organisations.
pub struct Files {
    tables: Tables,
    blobs: Blobs,
    tickets: Tickets,
    config: FilesConfig,
    clock: Clock,
    space: Space,
    doomed: Mutex<Vec<Doomed>>,
}

/// Rows read at once when all files are looked at: some hundred kilobytes.
const PAGE_ROWS: usize = 1000;

impl Files {
    /// The files in these tables. Nothing is touched before [`Files::recover`].
    pub fn new(
        tables: Tables,
        config: FilesConfig,
        clock: Clock,
        disk: &Arc<DiskShares<Maker>>,
    ) -> Self {
        Self {
            space: Space::new((config.total_bytes_max, config.org_bytes_max), disk),
            tickets: Tickets::new(disk.pools()),
            clock,
            tables,
            blobs: Blobs::new(config.dir.clone(), config.sync),
            config,
            doomed: Mutex::default(),
        }
    }

    /// Puts the directory in order when the program starts: what an upload or a removal left behind
    /// when the last run ended goes.
    ///
    /// # Errors
    /// What the store or the system reports.
    pub fn recover(&self) -> Result<(), TransferError> {
        self.blobs.clear_incoming()?;
        let mut known = HashSet::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.tables.scan_prefix(Table::Files, &[], after.as_deref(), PAGE_ROWS)?;
            for (row, value) in &page {
                let record: FileRecord = decode(Table::Files, row, value)?;
                if let Some(org) = row.first_chunk::<12>() {
                    let payer = (OrgId::from_bytes(*org), record.maker);
                    self.space.hold(payer, room_of(record.length));
                }
                known.insert(record.id);
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        let missing = self.blobs.keep_only(known)?.len();
        if missing > 0 {
            tracing::error!(missing, "files have lost their bytes; they can't be downloaded");
        }
        Ok(())
    }

    /// Sets how many transfers may be under way at once.
    pub fn set_transfers_max(&self, most: usize) {
        self.tickets.set_transfers_max(most);
    }

    /// The clock that tickets and files with an end go by.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bytes of all files.
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// How many transfers are under way, and how many bytes are stored or have come, in blocks.
    pub fn load(&self) -> (u64, u64) {
        (self.tickets.moving(), self.space.held())
    }

    /// Bytes that one file may have.
    pub const fn bytes_max(&self) -> u64 {
        self.config.bytes_max
    }

    /// Bytes that a file with this name may have before the maker's room is full.
    ///
    /// # Errors
    /// [`TransferError::Full`] or [`TransferError::OverShare`] if it is so already,
    /// [`TransferError::DiskFull`]; what the store reports.
    pub fn room(&self, owner: Owner, name: &FileName, maker: Maker) -> Result<u64, TransferError> {
        self.check_disk(0)?;
        let freed = self.record(&owner.row(name))?.map_or(0, |record| room_of(record.length));
        self.space.room((owner.org, maker), freed)
    }

    /// Room for an upload, which takes none yet.
    fn reserve(
        self: &Arc<Self>,
        owner: Owner,
        name: &FileName,
        maker: Maker,
    ) -> Result<Reserved, TransferError> {
        let row = owner.row(name);
        let freed = self.record(&row)?.map_or(0, |record| room_of(record.length));
        Ok(Reserved::new(self, (owner.org, maker), row, freed))
    }

    /// Whether the disk has room for so many bytes.
    fn check_disk(&self, bytes: u64) -> Result<(), TransferError> {
        let fits = self.tables.store().room().fits(bytes);
        if fits { Ok(()) } else { Err(TransferError::DiskFull) }
    }

    /// Takes room on the disk for bytes that are about to be written.
    fn take_disk(&self, bytes: usize) -> Result<(), TransferError> {
        self.check_disk(bytes as u64)?;
        self.tables.store().room().take(bytes as u64);
        Ok(())
    }

    /// What is known of a file.
    pub fn find(
        &self,
        owner: Owner,
        name: &FileName,
        now: Timestamp,
    ) -> Result<Option<FileRecord>, StoreError> {
        Ok(self.record(&owner.row(name))?.filter(|record| record.lives(now)))
    }

    fn record(&self, row: &[u8]) -> Result<Option<FileRecord>, StoreError> {
        let value = self.tables.read(Table::Files, row)?;
        value.map(|value| decode(Table::Files, row, &value)).transpose()
    }

    /// The files of an owner, ordered by name, at most [`limits::FILES_SEARCHED_MAX`].
    pub fn list(&self, owner: Owner, now: Timestamp) -> Result<Vec<FileRecord>, StoreError> {
        let most = limits::FILES_SEARCHED_MAX;
        let rows = self.tables.scan_prefix(Table::Files, &owner.prefix(), None, most)?;
        let records = rows.iter().map(|(row, value)| decode(Table::Files, row, value));
        records
            .filter(|r: &Result<FileRecord, _>| r.as_ref().map_or(true, |r| r.lives(now)))
            .collect()
    }

    /// Issues the ticket for an upload.
    ///
    /// # Errors
    /// As [`Tickets::issue`].
    pub fn announce(
        &self,
        id: TicketId,
        asker: Asker,
        owner: Owner,
        put: Put,
        now: Timestamp,
    ) -> Result<(), TicketError> {
        self.tickets.issue(id, asker, owner, Purpose::Upload(Arc::new(put)), now)
    }

    /// Issues the ticket for a download.
    ///
    /// # Errors
    /// As [`Tickets::issue`].
    pub fn lend(
        &self,
        id: TicketId,
        asker: Asker,
        owner: Owner,
        record: FileRecord,
        now: Timestamp,
    ) -> Result<(), TicketError> {
        self.tickets.issue(id, asker, owner, Purpose::Download(Arc::new(record)), now)
    }

    /// Stores a file all of whose bytes have come. The ticket is used up, and only then.
    fn store(
        &self,
        ticket: TicketId,
        (owner, put): (Owner, &Put),
        incoming: &Incoming,
        mut reserved: Reserved,
        now: Timestamp,
    ) -> Result<Receipt, TransferError> {
        let digests = incoming.digests();
        if let Some(expected) = put.crc32.filter(|expected| *expected != digests.crc32) {
            return Err(TransferError::Checksum { expected, found: digests.crc32 });
        }
        let record = FileRecord {
            id: incoming.id,
            name: put.name.clone(),
            length: digests.length,
            crc32: digests.crc32,
            sha256: digests.sha256,
            maker: reserved.payer().1,
            upload_date: now,
            public: put.public,
            tags: put.tags.clone(),
            sec_tags: put.sec_tags.clone(),
            credentials_hash: put.basic_auth.as_ref().map(|auth| auth.hash(incoming.id)),
            expires: put.ttl_s.map(|ttl_s| now.plus_seconds(ttl_s)),
        };
        self.tickets.check(ticket)?;
        self.tickets.take(ticket)?;
        let placed = self.blobs.place(incoming).map_err(TransferError::from);
        let stored = placed.and_then(|()| self.put(owner, &record, &mut reserved));
        if stored.is_err() {
            self.blobs.remove(incoming.id);
            self.tickets.give_back(ticket);
        }
        stored
    }

    /// Submits a file's record, in place of the one with its name.
    fn put(
        &self,
        owner: Owner,
        record: &FileRecord,
        reserved: &mut Reserved,
    ) -> Result<Receipt, TransferError> {
        let row = owner.row(&record.name);
        let _changing = self.tables.exclusive(&row);
        let before = self.record(&row)?;
        let mut batch = Batch::default();
        if let Some(expires) = before.as_ref().and_then(|before| before.expires) {
            batch.delete(Table::FileEnds, end_row(expires, &row));
        }
        if let Some(expires) = record.expires {
            batch.put(Table::FileEnds, end_row(expires, &row), "");
        }
        batch.put(Table::Files, &*row, encode(record));
        let submit = || Ok(self.tables.submit(batch)?);
        let receipt = reserved.store(record, before.as_ref(), submit)?;
        if let Some(before) = before {
            self.doomed.lock().push(Doomed { row, id: before.id });
        }
        Ok(receipt)
    }

    /// Deletes a file, with what `also` adds to the batch; none when there is no such file.
    pub fn delete(
        &self,
        owner: Owner,
        name: &FileName,
        now: Timestamp,
        also: impl FnOnce(&FileRecord, &mut Batch),
    ) -> Result<Option<Receipt>, StoreError> {
        self.delete_row(owner.row(name), |record| record.lives(now), also)
    }

    fn delete_row(
        &self,
        row: Vec<u8>,
        is_wanted: impl FnOnce(&FileRecord) -> bool,
        also: impl FnOnce(&FileRecord, &mut Batch),
    ) -> Result<Option<Receipt>, StoreError> {
        let _changing = self.tables.exclusive(&row);
        let Some(record) = self.record(&row)?.filter(is_wanted) else { return Ok(None) };
        let mut batch = Batch::default();
        batch.delete(Table::Files, &*row);
        if let Some(expires) = record.expires {
            batch.delete(Table::FileEnds, end_row(expires, &row));
        }
        also(&record, &mut batch);
        let receipt = self.tables.submit(batch)?;
        if let Some(org) = row.first_chunk::<12>() {
            let payer = (OrgId::from_bytes(*org), record.maker);
            self.space.give_back(payer, room_of(record.length));
        }
        self.doomed.lock().push(Doomed { row, id: record.id });
        Ok(Some(receipt))
    }

    /// Deletes all files of an owner, which is being deleted itself, and ends the tickets for them.
    /// Who waits for a change that is submitted later waits for this, too.
    pub fn forget(&self, owner: Owner) -> Result<(), StoreError> {
        self.tickets.forget(owner);
        let (prefix, mut after) = (owner.prefix(), None);
        loop {
            let page =
                self.tables.scan_prefix(Table::Files, &prefix, after.as_deref(), PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (row, _) in page {
                let _ = self.delete_row(row, |_| true, |_, _| ())?;
            }
        }
    }

    /// Ends tickets and files that are over, and removes bytes that nobody needs.
    pub fn housekeeping(&self, now: Timestamp) -> Result<(), StoreError> {
        self.tickets.sweep(now);
        let end = end_row(now.plus_millis(1), &[]);
        let bounds = (std::ops::Bound::Unbounded, std::ops::Bound::Excluded(&end[..]));
        let due = self.tables.scan(Table::FileEnds, bounds.0, bounds.1, PAGE_ROWS)?;
        for (end, _) in due {
            let row = end.get(8..).unwrap_or_default().to_vec();
            if self.delete_row(row, |record| !record.lives(now), |_, _| ())?.is_none() {
                // An end without its file would be looked at for ever.
                let mut batch = Batch::default();
                batch.delete(Table::FileEnds, end);
                drop(self.tables.submit(batch)?);
            }
        }
        self.remove_doomed()
    }

    fn remove_doomed(&self) -> Result<(), StoreError> {
        let Some(_removing) = self.blobs.may_remove() else { return Ok(()) };
        let doomed = std::mem::take(&mut *self.doomed.lock());
        if doomed.is_empty() {
            return Ok(());
        }
        let (lent, mut kept) = (self.tickets.downloads(), Vec::new());
        for doomed in doomed {
            let committed = self.tables.store().read(Table::Files, &doomed.row)?;
            let committed = committed.map(|v| decode::<FileRecord>(Table::Files, &doomed.row, &v));
            let stands = committed.transpose()?.is_some_and(|record| record.id == doomed.id);
            if stands || lent.contains(&doomed.id) || !self.blobs.remove(doomed.id) {
                kept.push(doomed);
            }
        }
        self.doomed.lock().append(&mut kept);
        Ok(())
    }
}

fn end_row(expires: Timestamp, row: &[u8]) -> Vec<u8> {
    [&expires.as_millis().max(0).to_be_bytes(), row].concat()
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk(error),
        }
    }
}
