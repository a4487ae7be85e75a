//! Wrappers of streams: one that returns bytes which were read too early, and one that gives up on
//! a peer that does not read.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::limits;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{self, Sleep};

use crate::app::Lease;
use crate::edge::ByteStream;

/// A stream with bytes to be read before its own.
pub(super) struct Replay<T> {
    inner: T,
    first: Bytes,
}

impl<T> Replay<T> {
    /// `inner`, with `first` before it.
    pub(super) fn new(inner: T, first: Bytes) -> Self {
        Self { inner, first }
    }
}

impl<T: ByteStream> ByteStream for Replay<T> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.inner.tcp()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Replay<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        take_into(&mut self.first, buf);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Replay<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Moves as much of `bytes` into `buf` as fits; gives the memory back when all of it is gone.
pub(super) fn take_into(bytes: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let count = bytes.len().min(buf.remaining());
    buf.put_slice(&bytes.split_to(count));
    if !bytes.has_remaining() {
        *bytes = Bytes::new();
    }
}

/// For how long the peer of a connection may take nothing of what is written to it.
#[derive(Debug)]
pub(super) struct WriteWait {
    usual: Duration,
    download: Duration,
    has_downloads: AtomicBool,
}

impl WriteWait {
    /// The usual wait, and the one from the first download on.
    pub(super) const fn new(usual: Duration, download: Duration) -> Self {
        Self { usual, download, has_downloads: AtomicBool::new(false) }
    }

    /// Notes that a file goes out.
    pub(super) fn note_download(&self) {
        self.has_downloads.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        match self.has_downloads.load(Ordering::Relaxed) {
            true => self.download,
            false => self.usual,
        }
    }
}

/// A stream whose writes fail when the peer takes nothing for a while.
pub(super) struct WriteClock<T> {
    inner: T,
    wait: Arc<WriteWait>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteClock<T> {
    /// `inner`, whose peer may take nothing for as long as `wait` says.
    pub(super) fn new(inner: T, wait: Arc<WriteWait>) -> Self {
        Self { inner, wait, stalled: None }
    }

    /// The stream without the clock.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let wait = self.wait.get();
        let clock = self.stalled.get_or_insert_with(|| Box::pin(time::sleep(wait)));
        clock.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteClock<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteClock<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, progress)
    }
}

/// How many bytes of a stream came that nobody has used yet.
#[derive(Default)]
pub(super) struct HeldBytes(AtomicUsize);

impl HeldBytes {
    /// Notes bytes that came.
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many there are.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that all of them are used.
    pub(super) fn note_used(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A stream below something that holds what comes until it is complete, for which a peer that has
/// not logged in needs room.
pub(super) struct Counted<T> {
    inner: T,
    held: Arc<HeldBytes>,
    lease: Option<Lease>,
    /// Reads until others have their turn; none: whoever reads sees to that.
    reads: Option<usize>,
}

impl<T> Counted<T> {
    /// `inner`, of which so much is held, in this room.
    pub(super) fn new(inner: T, held: Arc<HeldBytes>, lease: Lease) -> Self {
        Self { inner, held, lease: Some(lease), reads: None }
    }

    /// The same for who reads until something is complete, as long as more comes.
    pub(super) fn in_turns(self) -> Self {
        Self { reads: Some(limits::WEBSOCKET_READS_AT_ONCE), ..self }
    }

    /// Bytes that came and are not used.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// Notes that what came is used.
    pub(super) fn note_used(&self) {
        self.held.note_used();
    }

    /// Notes that the peer has logged in.
    pub(super) fn note_login(&mut self) {
        self.lease = None;
    }

    /// The stream alone.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: ByteStream> ByteStream for Counted<T> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.inner.tcp()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(lease) = &mut this.lease
            && let Err(error) = ready!(lease.poll_hold(cx, this.held.get()))
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
        }
        if this.reads == Some(0) {
            this.reads = Some(limits::WEBSOCKET_READS_AT_ONCE);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.reads = this.reads.map(|reads| match read {
            Poll::Ready(_) => reads - 1,
            Poll::Pending => limits::WEBSOCKET_READS_AT_ONCE,
        });
        ready!(read)?;
        this.held.add(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_again() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b" world").await.expect("writing");
        near.shutdown().await.expect("closing");
        let mut text = String::new();
        let mut replay = Replay::new(far, Bytes::from_static(b"hello"));
        replay.read_to_string(&mut text).await.expect("reading");
        assert_eq!(text, "hello world");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let check = async |usual, download, downloads: bool| {
            let (_near, far) = tokio::io::duplex(4);
            let wait = Arc::new(WriteWait::new(usual, download));
            if downloads {
                wait.note_download();
            }
            let mut stream = WriteClock::new(far, wait);
            let error = stream.write_all(b"12345").await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        };
        // Each time, only the wait in question is shorter than a test may take.
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(86_400));
        check(short, long, false).await;
        check(long, short, true).await;
    }
}
