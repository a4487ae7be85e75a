//! Compressed answers. Long ones are compressed on other threads. Over HTTP that is on half of the
//! cores at most: an answer that is not compressed is as good. Over MQTT the client has asked for it:
//! that is long work, and has turns, as it is to inflate a long request.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base::{Failure, limits, yield_point};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use rules::directory::Session;
use rustix::time::ClockId;
use tokio::sync::Semaphore;

use super::long_work::LongWork;
use super::{App, Asker, Worker, asker};

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
            timed(|| gzipped(&text))
        } else {
            let place = self.gzips.places.clone().try_acquire_owned().ok()?;
            let threads = self.gzips.threads.clone();
            let work = move || {
                let _place = place;
                timed(|| gzipped(&text))
            };
            // It does not panic; when the server stops, nobody waits for the answer.
            tokio::task::spawn_blocking(move || threads.run(work)).await.ok()?.ok()?
        };
        if let Some(asker) = asker {
            self.cores.note(asker, used);
        }
        gzipped
    }

    /// A long reply as a zlib stream, for who has this session.
    pub async fn deflate(&self, text: Vec<u8>, session: &Session) -> Vec<u8> {
        let text = Arc::new(text);
        let asked = Arc::downgrade(&text);
        // When nobody waits for it any more, the text is gone.
        let work = move || asked.upgrade().map(|text| deflated(&text));
        // It does not panic; when the server stops, nobody waits for the reply.
        let done = self.offload_timed(Worker::of(session).for_the_rest(), session, work).await;
        done.ok().flatten().unwrap_or_default()
    }

    /// What comes of this, which is a request to inflate, of who has this session.
    ///
    /// # Errors
    ///
    /// As [`App::offload`], or what comes of it.
    pub async fn inflate(
        &self,
        session: &Session,
        inflate: impl FnOnce() -> Result<Vec<u8>, Failure> + Send + 'static,
    ) -> Result<Vec<u8>, Failure> {
        self.offload_timed(Worker::of(session), session, inflate).await?
    }

    /// As [`App::offload`]; its time counts for who has the session.
    async fn offload_timed<T: Send + 'static>(
        &self,
        worker: Worker,
        session: &Session,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, used) = self.offload(worker, move || timed(work)).await?;
        self.cores.note(asker(session), used);
        Ok(done)
    }
}

fn gzipped(text: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4 + 64), Compression::fast());
    write(text, &mut encoder);
    let gzipped = encoder.finish().ok().filter(|gzipped| gzipped.len() < text.len());
    gzipped.map(Bytes::from)
}

/// A text as a zlib stream.
pub fn deflated(text: &[u8]) -> Vec<u8> {
    let deflated = Vec::with_capacity(text.len() / 4 + 64);
    let mut encoder = ZlibEncoder::new(deflated, Compression::default());
    write(text, &mut encoder);
    encoder.finish().unwrap_or_default()
}

fn write(text: &[u8], encoder: &mut impl Write) {
    for part in text.chunks(limits::READ_BYTES) {
        yield_point::pass();
        // Writing to memory does not fail.
        let _ = encoder.write_all(part);
    }
}

/// What comes of this, and for how long this thread has had a core meanwhile: where cores are full,
/// it waits for one most of the time.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = thread_time();
    let done = work();
    (done, thread_time().saturating_sub(begun))
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{demo, login};
    use super::*;

    #[tokio::test]
    async fn long_replies_are_deflated_in_turns() {
        let (app, _) = demo();
        let session = login(&app).await.expect("welcome");
        let text = vec![b'x'; 2 * limits::DEFLATE_AT_ONCE_BYTES];
        let mut turns = Vec::new();
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            turns.push(app.turns.take(Worker::Server).await.expect("a turn"));
        }
        let mut deflate = Box::pin(app.deflate(text.clone(), &session));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut deflate).await;
        assert!(early.is_err(), "others have all turns");
        drop(turns);
        assert_eq!(deflate.await, deflated(&text));
    }
}
