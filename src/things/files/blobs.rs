//! The bytes of files on disk: `files/ab/ab…` below the data directory, named by the file's id. No
//! name that a client chose becomes a path.
//!
//! Errors of the functions here are the operating system's.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use base::FileId;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

/// Where uploads are put together.
const INCOMING: &str = "incoming";

/// The directory with the bytes of all files.
pub struct Blobs {
    root: PathBuf,
    /// Whether what is placed has to survive the loss of power.
    sync: bool,
    /// Held by who removes bytes, and by who needs that nothing is removed.
    removal: Mutex<()>,
}

impl Blobs {
    /// The bytes below `root`; nothing is touched yet.
    pub const fn new(root: PathBuf, sync: bool) -> Self {
        Self { root, sync, removal: Mutex::new(()) }
    }

    /// Makes the directories, and removes what was being put together when the program ended.
    pub fn clear_incoming(&self) -> io::Result<()> {
        let incoming = self.root.join(INCOMING);
        make_private(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Removes the bytes of all files but these; the known ones that have no bytes are returned.
    pub fn keep_only(&self, mut known: HashSet<FileId>) -> io::Result<HashSet<FileId>> {
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if folder.file_name() == INCOMING || !folder.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| FileId::from_str(name).ok());
                // What we did not make is not ours to remove.
                if id.is_some_and(|id| !known.remove(&id)) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(known)
    }

    /// Where the bytes of a file are.
    pub fn path(&self, id: FileId) -> PathBuf {
        self.root.join(relative_path(id))
    }

    /// Opens the bytes of a file.
    pub fn open(&self, id: FileId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Begins to put the bytes of a file together.
    pub fn create(&self, id: FileId, with_sha256: bool) -> io::Result<Incoming> {
        let path = self.root.join(INCOMING).join(id.to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Incoming {
            id,
            path,
            file,
            placed: AtomicBool::new(false),
            length: 0,
            crc32: crc32fast::Hasher::new(),
            sha256: with_sha256.then(Sha256::new),
        })
    }

    /// Puts complete bytes in their place.
    pub fn place(&self, incoming: &Incoming) -> io::Result<()> {
        let path = self.path(incoming.id);
        let folder = path.parent().unwrap_or(&self.root);
        make_private(folder)?;
        if self.sync {
            incoming.file.sync_all()?;
        }
        fs::rename(&incoming.path, &path)?;
        incoming.placed.store(true, Ordering::Relaxed);
        if self.sync {
            File::open(folder)?.sync_all()?;
            File::open(&self.root)?.sync_all()?;
        }
        Ok(())
    }

    /// Removes bytes; true when they are gone.
    pub fn remove(&self, id: FileId) -> bool {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, file = %id, "the bytes of a file can't be removed");
                false
            }
            _ => true,
        }
    }

    /// The right to remove bytes, if nobody needs them all.
    pub fn may_remove(&self) -> Option<MutexGuard<'_, ()>> {
        self.removal.try_lock()
    }

    /// Keeps everybody from removing bytes.
    pub fn keep_all(&self) -> MutexGuard<'_, ()> {
        self.removal.lock()
    }
}

/// Where the bytes of a file are below the directory of all.
pub fn relative_path(id: FileId) -> PathBuf {
    let name = id.to_string();
    let folder = name.get(..2).unwrap_or_default();
    Path::new(folder).join(&name)
}

/// Makes a directory, if need be, for this user only.
pub fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Bytes that are being put together. They go when this is dropped before they are placed.
pub struct Incoming {
    /// The id of the file to be.
    pub id: FileId,
    path: PathBuf,
    file: File,
    /// Whether there is nothing under this path any more.
    placed: AtomicBool,
    length: u64,
    crc32: crc32fast::Hasher,
    sha256: Option<Sha256>,
}

/// What is known of complete bytes.
pub struct Digests {
    /// How many.
    pub length: u64,
    /// CRC-32 of IEEE 802.3.
    pub crc32: u32,
    /// SHA-256 in hexadecimal, if it was asked for.
    pub sha256: Option<String>,
}

impl Incoming {
    /// Appends bytes.
    pub fn append(&mut self, bytes: &[Bytes]) -> io::Result<()> {
        for bytes in bytes {
            self.file.write_all(bytes)?;
            self.length += bytes.len() as u64;
            self.crc32.update(bytes);
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(bytes);
            }
        }
        Ok(())
    }

    /// What is known of the bytes so far.
    pub fn digests(&self) -> Digests {
        Digests {
            length: self.length,
            crc32: self.crc32.clone().finalize(),
            sha256: self.sha256.clone().map(|sha256| HEXLOWER.encode(&sha256.finalize())),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if *self.placed.get_mut() {
            return;
        }
        let path = std::mem::take(&mut self.path);
        let remove = move || drop(fs::remove_file(path));
        // Where connections are served, others would wait for the disk. What a stop leaves is removed
        // at the next start.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
