//! The thread that looks after a store: it measures the room on the disk, opens the engine anew when
//! it has failed, and notices when the directory is gone.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::{chain, limits};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::engine::Engine;
use super::journals::Journals;
use super::{Inner, LOCK_FILE, TABLES_DIR, failed};
use crate::{Condition, LOG_TARGET, StoreError};

/// The file whose bytes are for deletions.
const RESERVE_FILE: &str = "reserve";

/// What the largest request that adds may take, and an eighth of a small mark.
const NEAR_BYTES: u64 = 4 * 1024 * 1024;

/// The least that an engine has to have for its files when it is opened, and for the changes that
/// wait: with less it would fail again at once.
const REOPEN_BYTES: u64 = 512 * 1024;

/// For how long readers may hold an engine that is to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// The pause until the engine is asked again to write out what it has in memory.
const WRITE_OUT_PAUSE: Duration = Duration::from_secs(5);

/// After so long without a failure, the next one is a new one.
const CALM: Duration = Duration::from_secs(60);

/// Looks after a store.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    /// Device and inode of the directory, of the engine's lock, and of its tables' directory.
    identity: [(u64, u64); 3],
    /// The mark.
    min_free: u64,
    journals: Journals,
    /// When the engine may be opened anew, and the pause after that.
    next_try: Instant,
    pause: Duration,
    /// When it may be asked again to write out its memory.
    next_write_out: Instant,
}

impl Keeper {
    pub(super) fn new(
        inner: Arc<Inner>,
        min_free: Option<u64>,
        journals: Journals,
    ) -> Result<Self, StoreError> {
        let disk = measure(&inner.dir).map_err(|source| failed("measure its disk", source))?;
        let min_free = min_free
            .unwrap_or_else(|| limits::MIN_FREE_BYTES.min(disk.total / limits::MIN_FREE_PART));
        inner.room.set_mark(min_free, signed(near(min_free)));
        let above = disk.total.saturating_sub(min_free);
        inner.room.set_reserve((above / 16).min(limits::DISK_RESERVE_BYTES_MAX));
        let identity = identity(&inner.dir).map_err(|s| failed("look at its directory", s))?;
        *inner.reserve.lock() = Reserve {
            path: inner.dir.join(RESERVE_FILE),
            bytes: limits::STORE_RESERVE_BYTES.min(min_free / 8),
            mark: min_free,
        };
        let (first, _) = limits::STORE_REOPEN_PAUSE;
        // On a disk without room for it, there are no words about a later loss.
        let _ = journals.make_file();
        let (next_try, next_write_out) = (Instant::now(), Instant::now());
        Ok(Self { inner, identity, min_free, journals, next_try, pause: first, next_write_out })
    }

    /// Checks from time to time, and when it is woken, until the store is dropped.
    pub(super) fn run(mut self, woken: &Receiver<()>) {
        while let Ok(()) | Err(RecvTimeoutError::Timeout) =
            woken.recv_timeout(limits::STORE_CHECK_EVERY)
        {
            self.check();
        }
        self.journals.mark();
    }

    /// Looks at everything once.
    pub(super) fn check(&mut self) {
        if self.inner.lost.load(Ordering::Relaxed) {
            return;
        }
        match identity(&self.inner.dir) {
            Ok(found) if found == self.identity => {}
            _ => {
                let dir = self.inner.dir.display();
                return self.lose(format!("the data directory {dir} was deleted or replaced"));
            }
        }
        let Ok(mut disk) = measure(&self.inner.dir) else { return };
        if self.inner.reserve.lock().set_aside(disk.free) {
            disk = measure(&self.inner.dir).unwrap_or(disk);
        }
        if let Ok(engine) = self.inner.engine()
            && let Err(error) = engine.probe()
        {
            self.inner.fail(&chain(&error));
        }
        let failure = self.inner.failure.lock().clone();
        let Some(failure) = failure else { return self.note(&disk) };
        self.inner.room.set(Condition::Failing(failure));
        if disk.free >= REOPEN_BYTES && Instant::now() >= self.next_try {
            self.reopen();
        }
    }

    /// Notes the room of a store that works.
    fn note(&mut self, disk: &Disk) {
        let unwritten = self.inner.engine().map_or(0, |engine| engine.unwritten());
        let room = self.inner.room.clone();
        // So near the mark, a burst is refused already. And not back and forth there.
        let near = near(self.min_free);
        let margin = match room.condition() {
            Condition::Good => near,
            _ => 2 * near,
        };
        let left = signed(disk.free) - signed(unwritten) - signed(self.min_free);
        if left < signed(margin) && left + signed(unwritten) >= signed(margin) {
            self.write_out();
        }
        let condition = match self.min_free > 0 && left < signed(margin) {
            true => Condition::Full { free: disk.free, unwritten, mark: self.min_free },
            false => Condition::Good,
        };
        let budget = if self.min_free > 0 { left } else { i64::MAX / 2 };
        room.note(condition, disk.free, budget);
        self.journals.mark();
    }

    /// Has the engine write out what it has in memory, if there is room but for that: nothing else
    /// would make it while what adds is refused.
    fn write_out(&mut self) {
        if Instant::now() >= self.next_write_out
            && let Ok(engine) = self.inner.engine()
        {
            engine.write_out();
            self.next_write_out = Instant::now() + WRITE_OUT_PAUSE;
        }
    }

    /// Closes the engine and opens it anew.
    fn reopen(&mut self) {
        let (first, longest) = limits::STORE_REOPEN_PAUSE;
        if self.next_try.elapsed() > CALM {
            self.pause = first;
        }
        let opened = self.close().and_then(|()| Engine::open(&self.inner.dir));
        match opened {
            Ok(engine) => {
                *self.inner.engine.write() = Some(Arc::new(engine));
                self.inner.failure.lock().take();
                self.inner.recovered.notify_all();
                if let Ok(disk) = measure(&self.inner.dir) {
                    self.note(&disk);
                }
            }
            Err(error @ (StoreError::Engine { .. } | StoreError::Unavailable)) => {
                *self.inner.failure.lock() = Some(chain(&error));
            }
            // What another try does not change.
            Err(error) => return self.lose(chain(&error)),
        }
        self.next_try = Instant::now() + self.pause;
        self.pause = longest.min(self.pause * 2);
    }

    /// Closes the engine, and waits until nothing of it is left: what it still has to write must not
    /// get into a journal that was opened anew.
    fn close(&self) -> Result<(), StoreError> {
        let Some(engine) = self.inner.engine.write().take() else { return Ok(()) };
        *self.inner.months.lock() = engine.months();
        engine.begin_to_close();
        let since = Instant::now();
        let mut engine = Some(engine);
        while let Some(held) = engine.take() {
            match Arc::try_unwrap(held) {
                Ok(only) => drop(only),
                Err(_) if since.elapsed() > CLOSE_WAIT => {
                    // Whoever has it keeps the lock of the directory.
                    return Err(StoreError::InUse(self.inner.dir.clone()));
                }
                Err(shared) => {
                    engine = Some(shared);
                    crate::pause(Duration::from_millis(5));
                }
            }
        }
        while has_open_journals(&self.inner.dir) && since.elapsed() < CLOSE_WAIT {
            crate::pause(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Gives up: only a new process can help.
    fn lose(&self, why: String) {
        self.inner.lost.store(true, Ordering::Relaxed);
        self.inner.recovered.notify_all();
        self.inner.room.set(Condition::Lost(why));
    }
}

/// Bytes that are set aside for deletions.
#[derive(Default)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// They are taken where the disk has more room than this without them.
    mark: u64,
}

impl Reserve {
    /// Takes the bytes where there is room for them; whether it did.
    fn set_aside(&mut self, free: u64) -> bool {
        let has_room = self.bytes > 0 && free >= self.mark + self.bytes;
        // Where the file system can't, the mark alone has to do.
        has_room && !self.path.exists() && set_aside(&self.path, self.bytes).is_ok()
    }

    /// Lets go of them where there is no other room. Only for changes that are to be written at once:
    /// whoever has filled the disk would fill these bytes, too.
    pub(super) fn let_go(&self, free: u64) {
        if self.bytes > 0 && free < self.bytes && fs::remove_file(&self.path).is_ok() {
            tracing::warn!(target: LOG_TARGET, "the reserve is let go of, to delete with");
        }
    }
}

fn set_aside(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    Ok(())
}

/// The disk of a directory, in bytes.
pub(super) struct Disk {
    pub(super) free: u64,
    total: u64,
}

pub(super) fn measure(dir: &Path) -> std::io::Result<Disk> {
    let found = statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Disk { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// So near the mark, the disk counts as full.
fn near(min_free: u64) -> u64 {
    NEAR_BYTES.min(min_free / 8)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// What tells a directory and its store from others at the same place.
fn identity(dir: &Path) -> std::io::Result<[(u64, u64); 3]> {
    let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    Ok([of(dir)?, of(&dir.join(LOCK_FILE))?, of(&dir.join(TABLES_DIR))?])
}

/// Whether this process has a journal of the directory open.
fn has_open_journals(dir: &Path) -> bool {
    let Ok(dir) = dir.canonicalize() else { return false };
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return false };
    open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| {
        path.parent() == Some(&*dir) && path.extension().is_some_and(|extension| extension == "jnl")
    })
}
