//! Transfers of files between the network, which is asynchronous, and the disk, which blocks. The
//! disk's part runs on threads that serve no connection; no more than one buffer of a transfer is
//! in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use base::pool::OverShare;
use base::{FileId, OrgId, TicketId, Timestamp, current_asker, limits, working_for};
use bytes::Bytes;
use rules::directory::PrincipalId;
use store::StoreError;

use super::blobs::Incoming;
use super::space::Reserved;
use super::ticket::{Purpose, TicketError};
use super::{FileRecord, Files, Owner, Put};
use crate::random::{NoRandom, random};

/// Why a file can't be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The ticket says no.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The ticket is for an upload.
    #[error("this file id is for an upload")]
    OnlyUpload,
    /// The ticket is for a download.
    #[error("this file id is for a download")]
    OnlyDownload,
    /// The upload is larger than a file may be.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// The organisation has all the room that one may have.
    #[error("the files of the organisation take all the room that it has (files.org_max_bytes)")]
    Full,
    /// There is no room, or somebody's share of it is used up.
    #[error(transparent)]
    OverShare(#[from] OverShare),
    /// The disk has no room.
    #[error("the server's disk is nearly full; nothing more is stored, only deleted")]
    DiskFull,
    /// The bytes are not those that were announced.
    #[error("the file's crc32 is {found}, not {expected} as announced; it was not stored")]
    Checksum {
        /// What `file.put` said.
        expected: u32,
        /// What the bytes have.
        found: u32,
    },
    /// The disk failed.
    #[error("the server can't read or write its files")]
    Disk(#[source] io::Error),
    /// The store failed.
    #[error("the server can't read or write its store")]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// A transfer under way; when it is dropped, the transfer is over.
struct Move {
    files: Arc<Files>,
    ticket: TicketId,
    asker: (OrgId, PrincipalId),
}

impl Move {
    fn begin(
        files: &Arc<Files>,
        ticket: TicketId,
        rest: bool,
        now: Timestamp,
    ) -> Result<Self, TransferError> {
        let asker = files.tickets.begin(ticket, rest, now)?;
        Ok(Self { files: files.clone(), ticket, asker })
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.files.tickets.end(self.ticket, self.asker, self.files.clock.now());
    }
}

/// Runs what blocks on a thread that serves no connection.
async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let asker = current_asker();
    let done = tokio::task::spawn_blocking(move || working_for(asker, work)).await;
    done.unwrap_or_else(|error| Err(TransferError::Disk(io::Error::other(error))))
}

/// What of an upload is on the disk.
enum Written {
    /// Nothing: who begins an upload and sends nothing has no file made. This will be its id.
    Nothing(FileId),
    Some(Incoming),
    /// Its bytes are with a thread that writes, or that has failed to.
    Elsewhere,
}

/// A file that comes in. What has come goes when this is dropped before it is finished.
pub struct Upload {
    moved: Move,
    owner: Owner,
    put: Arc<Put>,
    written: Written,
    received: u64,
    /// The room that it takes.
    reserved: Reserved,
    /// Bytes for which there was room when it began.
    room: u64,
    /// What is not written yet.
    waiting: Vec<Bytes>,
    /// The memory that it takes.
    waiting_bytes: usize,
}

impl Upload {
    /// Begins an upload of `length` bytes, if that is known.
    ///
    /// # Errors
    /// The ticket is not good for it, or there is no room.
    pub fn begin(
        files: &Arc<Files>,
        ticket: TicketId,
        length: Option<u64>,
        now: Timestamp,
    ) -> Result<Self, TransferError> {
        let (owner, put) = match files.tickets.look_up(ticket, now)? {
            (owner, Purpose::Upload(put)) => (owner, put),
            (_, Purpose::Download(_)) => return Err(TransferError::OnlyDownload),
        };
        let moved = Move::begin(files, ticket, false, now)?;
        let maker = Some(moved.asker.1);
        let room = files.room(owner, &put.name, maker)?;
        let reserved = files.reserve(owner, &put.name, maker)?;
        check_size(files, &reserved, room, length.unwrap_or(0))?;
        files.check_disk(length.unwrap_or(0))?;
        let written = Written::Nothing(FileId::from_bytes(random()?));
        Ok(Self {
            moved,
            owner,
            put,
            written,
            received: 0,
            reserved,
            room,
            waiting: Vec::new(),
            waiting_bytes: 0,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// There are too many, or the disk fails.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), TransferError> {
        self.received += bytes.len() as u64;
        check_size(&self.moved.files, &self.reserved, self.room, self.received)?;
        // A piece takes room itself, and a peer may send its bytes one by one.
        self.waiting_bytes += bytes.len() + size_of::<Bytes>();
        self.waiting.push(bytes);
        if self.waiting_bytes >= limits::FILE_WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Bytes that have come so far.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of memory that hold what is not written yet.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        let written = std::mem::replace(&mut self.written, Written::Elsewhere);
        self.moved.files.tickets.check(self.moved.ticket)?;
        self.reserved.grow(self.received)?;
        let bytes = std::mem::take(&mut self.waiting);
        self.moved.files.take_disk(std::mem::take(&mut self.waiting_bytes))?;
        let (files, with_sha256) = (self.moved.files.clone(), self.put.with_sha256);
        let written = offload(move || {
            let mut incoming = match written {
                Written::Nothing(id) => files.blobs.create(id, with_sha256)?,
                Written::Some(incoming) => incoming,
                Written::Elsewhere => {
                    let broken = "an earlier write of the same file failed";
                    return Err(TransferError::Disk(io::Error::other(broken)));
                }
            };
            incoming.append(&bytes)?;
            Ok(incoming)
        });
        self.written = Written::Some(written.await?);
        Ok(())
    }

    /// Stores the file, all of whose bytes have come. When this returns, it is as durable as the
    /// configuration promises; until then, the file that it replaces is there.
    ///
    /// # Errors
    /// The checksum is wrong, the disk or the store fails, or another upload with the same ticket
    /// was faster.
    pub async fn finish(mut self, now: Timestamp) -> Result<Stored, TransferError> {
        self.flush().await?;
        let Self { moved, owner, put, written, reserved, .. } = self;
        let stored = Stored { owner, put: put.clone() };
        let receipt = offload(move || match written {
            Written::Some(incoming) => {
                moved.files.store(moved.ticket, (owner, &put), &incoming, reserved, now)
            }
            Written::Nothing(_) | Written::Elsewhere => Err(TicketError::Unknown.into()),
        });
        receipt.await?.await?;
        Ok(stored)
    }
}

/// A file that was stored.
pub struct Stored {
    /// Whose it is.
    pub owner: Owner,
    /// As it was announced.
    pub put: Arc<Put>,
}

fn check_size(
    files: &Files,
    reserved: &Reserved,
    room: u64,
    bytes: u64,
) -> Result<(), TransferError> {
    match files.bytes_max() {
        most if bytes > most => Err(TransferError::TooLarge(most)),
        _ if bytes > room => Err(reserved.refuse(bytes)),
        _ => Ok(()),
    }
}

/// The file that can be downloaded with a ticket.
///
/// # Errors
/// The ticket is not good for a download.
pub fn offered(
    files: &Files,
    ticket: TicketId,
    now: Timestamp,
) -> Result<Arc<FileRecord>, TransferError> {
    match files.tickets.look_up(ticket, now)? {
        (_, Purpose::Download(record)) => Ok(record),
        (_, Purpose::Upload(_)) => Err(TransferError::OnlyUpload),
    }
}

/// A file that goes out, or a part of it. The file is open: whatever becomes of its name, these are
/// its bytes.
pub struct Download {
    moved: Move,
    file: Arc<File>,
    length: u64,
    position: u64,
    end: u64,
}

impl Download {
    /// Begins a download of the bytes from `start` to before `end`.
    ///
    /// # Errors
    /// The ticket is not good for it, or the disk fails.
    pub async fn begin(
        files: &Arc<Files>,
        ticket: TicketId,
        record: &FileRecord,
        (start, end): (u64, u64),
        now: Timestamp,
    ) -> Result<Self, TransferError> {
        let moved = Move::begin(files, ticket, start > 0, now)?;
        let (files, id) = (files.clone(), record.id);
        let file = Arc::new(offload(move || Ok(files.blobs.open(id)?)).await?);
        Ok(Self { moved, file, length: record.length, position: start, end })
    }

    /// Whether all bytes were given. It counts as a download when more are asked for.
    pub const fn is_at_end(&self) -> bool {
        self.position >= self.end
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The disk fails, or the file is shorter than its record says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.is_at_end() {
            if self.end == self.length {
                let files = &self.moved.files;
                files.tickets.downloaded(self.moved.ticket, files.clock.now());
            }
            return Ok(None);
        }
        self.moved.files.tickets.check(self.moved.ticket)?;
        let most = limits::FILE_READ_BYTES as u64;
        let count = (self.end - self.position).min(most) as usize;
        let (file, position) = (self.file.clone(), self.position);
        let bytes = offload(move || {
            let mut bytes = vec![0; count];
            file.read_exact_at(&mut bytes, position)?;
            Ok(Bytes::from(bytes))
        });
        let bytes = bytes.await?;
        self.position += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use base::{Clock, OrgId, UserId};
    use rules::directory::Principal;
    use store::{Durability, Tables, memory::MemoryStore};

    use super::super::ticket::Asker;
    use super::super::{FileName, FilesConfig};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

    fn files(dir: PathBuf) -> Arc<Files> {
        let tables = Tables::new(Arc::new(MemoryStore::default()), Durability::Os, &Arc::default());
        let (bytes_max, total_bytes_max) = (1 << 30, 1 << 30);
        let config = FilesConfig { dir, sync: false, bytes_max, total_bytes_max, org_bytes_max: 0 };
        let clock = Clock::start(Some(Arc::new(NOW)), None);
        Arc::new(Files::new(tables, config, clock, &Arc::default()))
    }

    #[tokio::test]
    async fn bytes_that_come_one_by_one_take_no_more_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = files(dir.path().to_owned());
        files.recover().expect("an empty directory");
        let put = Put {
            name: FileName::parse("a").expect("a name"),
            crc32: None,
            public: false,
            tags: Vec::new(),
            sec_tags: Vec::new(),
            ttl_s: None,
            with_sha256: false,
            log_complete: false,
            basic_auth: None,
        };
        let (ticket, asker) = (TicketId::from_random([1; 12]), UserId::from_bytes([2; 12]));
        let owner = Owner { org: OrgId::from_bytes([3; 12]), thing: None };
        let asker = Asker::new(Principal::User(asker), PrincipalId::User(asker), || true);
        files.announce(ticket, asker, owner, put, NOW).expect("room");
        let mut upload = Upload::begin(&files, ticket, None, NOW).expect("valid");
        for _ in 0..limits::FILE_WRITE_BYTES / 2 {
            upload.write(Bytes::from_static(b"x")).await.expect("written");
            let taken = upload.waiting.len() * size_of::<Bytes>();
            assert!(taken <= limits::FILE_WRITE_BYTES, "{taken}");
        }
        upload.finish(NOW).await.expect("stored");
        assert_eq!(files.load(), (0, limits::FILE_WRITE_BYTES as u64 / 2));
    }
}
