//! Compressed answers over HTTP. Long ones are compressed on other threads, on half of the cores at
//! most: an answer that is not compressed is as good.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::limits;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use tokio::sync::Semaphore;

use super::{App, Asker};

/// How many long answers may be compressed at once: half of the cores stay for others.
pub(super) fn places(cores: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((cores / 2).max(1)))
}

impl App {
    /// An answer compressed with gzip, for this asker. None if it is to stay as it is:
    /// as many long ones are being compressed as may, or it would not become shorter.
    pub async fn gzip(&self, text: Bytes, asker: Option<Asker>) -> Option<Bytes> {
        let (gzipped, used) = if text.len() <= limits::DEFLATE_AT_ONCE_BYTES {
            timed(&text)
        } else {
            let place = self.gzips.clone().try_acquire_owned().ok()?;
            let work = move || {
                let _place = place;
                timed(&text)
            };
            // It does not panic; when the server stops, nobody waits for the answer.
            tokio::task::spawn_blocking(work).await.ok()?
        };
        if let Some(asker) = asker {
            self.cores.note(asker, used);
        }
        gzipped
    }
}

fn timed(text: &[u8]) -> (Option<Bytes>, Duration) {
    let begun = Instant::now();
    let mut gzipped = Vec::with_capacity(text.len() / 4 + 64);
    // Reading from memory does not fail.
    let _ = GzEncoder::new(text, Compression::fast()).read_to_end(&mut gzipped);
    let shorter = (gzipped.len() < text.len()).then(|| gzipped.into());
    (shorter, begun.elapsed())
}
