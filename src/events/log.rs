//! The events as lines of JSON in a file (`events.log`), for those who collect logs.
//!
//! A thread of its own writes: a disk that is slow or full costs lines here, never the server.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use base::limits;

/// The file. What is written is on its way when it returns.
pub(super) struct EventLog {
    work: SyncSender<Work>,
    lost: Arc<AtomicU64>,
}

enum Work {
    Line(Vec<u8>),
    Reopen,
    Flush(mpsc::Sender<()>),
}

impl EventLog {
    /// Opens the file, which only this user can read, and goes on behind what is in it.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let (work, orders) = sync_channel(limits::EVENT_LOG_LINES_MAX);
        let lost = Arc::<AtomicU64>::default();
        let (path, counted) = (path.to_owned(), lost.clone());
        let run = move || write(file, &path, &orders, &counted);
        std::thread::Builder::new().name("event-log".to_owned()).spawn(run)?;
        Ok(Self { work, lost })
    }

    /// Has a line written; it is lost when too many wait.
    pub(super) fn line(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if let Err(TrySendError::Full(_)) = self.work.try_send(Work::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the file opened again by its name: it was moved away to be rotated.
    pub(super) fn reopen(&self) {
        let _ = self.work.try_send(Work::Reopen);
    }

    /// Waits until what came before is written, but not for long.
    pub(super) fn flush(&self) {
        let (done, written) = mpsc::channel();
        if self.work.try_send(Work::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // One that was there before may have been for others, too.
    if file.metadata()?.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

fn write(mut file: File, path: &PathBuf, orders: &Receiver<Work>, lost: &AtomicU64) {
    let mut failing = false;
    for order in orders {
        match order {
            Work::Line(line) => {
                let written = file.write_all(&line);
                match &written {
                    Err(error) if !failing => {
                        tracing::error!(%error, ?path, "events are not written to their log");
                    }
                    Ok(()) if failing => tracing::info!(?path, "events are written again"),
                    _ => {}
                }
                failing = written.is_err();
                lost.fetch_add(u64::from(failing), Ordering::Relaxed);
            }
            Work::Reopen => match open(path) {
                Ok(opened) => file = opened,
                Err(error) => tracing::error!(%error, ?path, "the log of events stays as it is"),
            },
            Work::Flush(done) => drop(done.send(())),
        }
        let lines = if failing { 0 } else { lost.swap(0, Ordering::Relaxed) };
        if lines > 0 {
            tracing::warn!(lines, ?path, "lines of the log of events are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_go_to_a_new_file_after_it_was_moved() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.log");
        std::fs::write(&path, "before\n").expect("written");
        let log = EventLog::open(&path).expect("opened");
        log.line(b"first".to_vec());
        log.flush();
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::rename(&path, dir.path().join("old")).expect("moved");
        log.line(b"second".to_vec());
        log.reopen();
        log.line(b"third".to_vec());
        log.flush();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("there");
        assert_eq!((&*read("old"), &*read("events.log")), ("before\nfirst\nsecond\n", "third\n"));
    }

    #[test]
    fn a_full_disk_stops_nobody() {
        let log = EventLog::open(Path::new("/dev/full")).expect("opened");
        for _ in 0..3 {
            log.line(b"{}".to_vec());
        }
        log.flush();
        assert_eq!(log.lost.load(Ordering::Relaxed), 3);
    }
}
