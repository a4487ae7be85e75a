//! Compressed answers over HTTP. Long ones are compressed on other threads, on half of the cores at
//! most: an answer that is not compressed is as good.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base::{limits, yield_point};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::time::ClockId;
use tokio::sync::Semaphore;

use super::long_work::LongWork;
use super::{App, Asker};

/// Where long answers are compressed.
pub(super) struct Gzips {
    /// One for each thread: nobody waits for one.
    places: Arc<Semaphore>,
    threads: LongWork,
}

impl Gzips {
    /// On half of these cores.
    pub(super) fn new(cores: usize) -> Self {
        let most = (cores / 2).max(1);
        Self { places: Arc::new(Semaphore::new(most)), threads: LongWork::new(most) }
    }
}

impl App {
    /// An answer compressed with gzip, for this asker. None if it is to stay as it is:
    /// as many long ones are being compressed as may, or it would not become shorter.
    pub async fn gzip(&self, text: Bytes, asker: Option<Asker>) -> Option<Bytes> {
        let (gzipped, used) = if text.len() <= limits::DEFLATE_AT_ONCE_BYTES {
            timed(&text)
        } else {
            let place = self.gzips.places.clone().try_acquire_owned().ok()?;
            let threads = self.gzips.threads.clone();
            let work = move || {
                let _place = place;
                timed(&text)
            };
            // It does not panic; when the server stops, nobody waits for the answer.
            tokio::task::spawn_blocking(move || threads.run(work)).await.ok()?.ok()?
        };
        if let Some(asker) = asker {
            self.cores.note(asker, used);
        }
        gzipped
    }
}

fn timed(text: &[u8]) -> (Option<Bytes>, Duration) {
    let begun = thread_time();
    let gzipped = Vec::with_capacity(text.len() / 4 + 64);
    let mut encoder = GzEncoder::new(gzipped, Compression::fast());
    for part in text.chunks(limits::READ_BYTES) {
        yield_point::pass();
        // Writing to memory does not fail.
        let _ = encoder.write_all(part);
    }
    let gzipped = encoder.finish().ok().filter(|gzipped| gzipped.len() < text.len());
    (gzipped.map(Bytes::from), thread_time().saturating_sub(begun))
}

/// For how long this thread has had a core: where cores are full, it waits for one most of the time.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}
