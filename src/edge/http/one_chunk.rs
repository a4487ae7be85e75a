//! An answer of known length as one chunk, whatever its size.
//!
//! libtr50 takes the first chunk of a download for the whole file, and reads `Content-Length` as
//! hexadecimal (`docs/protocol/tr50.md` 0, fact 19). hyper can stream an answer that has a length,
//! but makes a chunk of each piece of one that has chunks. So a download is given to hyper with its
//! length, and this stream, below hyper, writes the head with `Transfer-Encoding: chunked` and sets
//! the body into one chunk. What is hyper's stays so: it paces the body, and breaks the connection
//! off when the body ends too early, before the end of the chunk.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use base::limits;
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LENGTH: &[u8] = b"\r\ncontent-length: ";
const CHUNKED: &[u8] = b"\r\nTransfer-Encoding: chunked";
const HEAD_END: &[u8] = b"\r\n\r\n";
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Says which answer of a connection is to be one chunk.
#[derive(Debug)]
pub(super) struct Switch {
    /// Whether all that hyper has written is flushed, so that it holds nothing back.
    flushed: AtomicBool,
    on: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Switch {
    fn default() -> Self {
        Self {
            flushed: AtomicBool::new(true),
            on: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }
}

impl Switch {
    /// Makes the next answer one chunk. To be called by the handler of the request, and followed by
    /// an answer with a `Content-Length` that is not 0.
    ///
    /// Waits for earlier answers to be written (pipelined requests may find them in hyper's
    /// buffer): then the next byte that hyper writes is the first of this answer.
    pub(super) async fn turn_on(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            match self.flushed.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        self.on.store(true, Ordering::Release);
    }
}

/// How far the answer that becomes one chunk has got.
#[derive(Debug)]
enum State {
    /// There is none.
    Off,
    /// Its head, as far as it has come.
    Head(Vec<u8>),
    /// So many bytes of its body are to come.
    Body(u64),
}

/// The stream that hyper writes to.
pub(super) struct OneChunk<T> {
    inner: T,
    switch: Arc<Switch>,
    state: State,
    /// What is to be written before anything else.
    first: Bytes,
}

impl<T> OneChunk<T> {
    pub(super) fn new(inner: T, switch: Arc<Switch>) -> Self {
        Self { inner, switch, state: State::Off, first: Bytes::new() }
    }

    /// The stream below.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Takes bytes of the head; how many. With its last one, what goes out in its place is known.
    fn take_head(&mut self, buf: &[u8]) -> io::Result<usize> {
        let State::Head(head) = &mut self.state else { return Ok(0) };
        let old = head.len();
        head.extend_from_slice(buf);
        let from = old.saturating_sub(HEAD_END.len() - 1);
        let Some(end) = find(head.get(from..).unwrap_or_default(), HEAD_END) else {
            return match head.len() {
                ..=limits::HTTP_HEAD_BYTES_MAX => Ok(buf.len()),
                _ => Err(io::Error::other("the head of an answer is too long")),
            };
        };
        let end = from + end + HEAD_END.len();
        head.truncate(end);
        let (head, length) = with_one_chunk(head)
            .ok_or_else(|| io::Error::other("an answer that is to be one chunk has no length"))?;
        self.first = head.into();
        self.state = State::Body(length);
        Ok(end - old)
    }
}

impl<T: AsyncWrite + Unpin> OneChunk<T> {
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.first.has_remaining() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.first))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.first.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get(..most).unwrap_or_default();
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, part))?;
        self.state = match left.saturating_sub(count as u64) {
            0 => {
                self.first = Bytes::from_static(LAST_CHUNK);
                State::Off
            }
            left => State::Body(left),
        };
        Poll::Ready(Ok(count))
    }
}

/// A head that has a length as one that has chunks, with the line of the first chunk behind it; and
/// the length. None if it has no length, or 0, which would be the last chunk.
fn with_one_chunk(head: &[u8]) -> Option<(Vec<u8>, u64)> {
    let start = head.windows(LENGTH.len()).position(|part| part.eq_ignore_ascii_case(LENGTH))?;
    let (before, rest) = head.split_at_checked(start)?;
    let value = rest.get(LENGTH.len()..)?;
    let (value, after) = value.split_at_checked(find(value, b"\r\n")?)?;
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    let line = format!("{length:X}\r\n");
    (length > 0).then(|| ([before, CHUNKED, after, line.as_bytes()].concat(), length))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

impl<T: AsyncRead + Unpin> AsyncRead for OneChunk<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for OneChunk<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Also when nothing can be written now: hyper has something to write.
        self.switch.flushed.store(false, Ordering::Release);
        ready!(self.poll_first(cx))?;
        if matches!(self.state, State::Off) && self.switch.on.swap(false, Ordering::AcqRel) {
            self.state = State::Head(Vec::new());
        }
        match self.state {
            State::Off => Pin::new(&mut self.inner).poll_write(cx, buf),
            State::Head(_) => Poll::Ready(self.take_head(buf)),
            State::Body(left) => self.poll_body(cx, buf, left),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        // hyper flushes when it holds nothing any more.
        self.switch.flushed.store(true, Ordering::Release);
        self.switch.waker.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 26\r\nC: d\r\n\r\n";
    const BODY: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

    /// What the peer gets of an answer that is written in pieces of this size.
    async fn written(pieces: usize, body: &[u8]) -> String {
        let (near, mut far) = tokio::io::duplex(1024);
        let switch = Arc::new(Switch::default());
        let mut stream = OneChunk::new(near, switch.clone());
        stream.write_all(HEAD).await.expect("writing");
        stream.flush().await.expect("flushing");
        switch.turn_on().await;
        let answer = [HEAD, body].concat();
        for piece in answer.chunks(pieces) {
            stream.write_all(piece).await.expect("writing");
        }
        if body.len() == BODY.len() {
            stream.write_all(HEAD).await.expect("writing");
        }
        stream.shutdown().await.expect("closing");
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("reading");
        text
    }

    #[tokio::test]
    async fn one_answer_is_one_chunk_and_the_others_stay_as_they_are() {
        let head = std::str::from_utf8(HEAD).expect("text");
        let chunk = "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nC: d\r\n\r\n1A\r\n";
        let body = std::str::from_utf8(BODY).expect("text");
        for pieces in 1..=HEAD.len() + BODY.len() {
            let whole = format!("{head}{chunk}{body}\r\n0\r\n\r\n{head}");
            assert_eq!(written(pieces, BODY).await, whole, "{pieces}");
            let broken = format!("{head}{chunk}{}", &body[..25]);
            assert_eq!(written(pieces, &BODY[..25]).await, broken, "{pieces}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_length_breaks() {
        for head in ["A: b", "Content-Length: 0", "Content-Length: x"] {
            let (near, _far) = tokio::io::duplex(1024);
            let switch = Arc::new(Switch::default());
            let mut stream = OneChunk::new(near, switch.clone());
            switch.turn_on().await;
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect_err(&head);
        }
    }

    #[tokio::test]
    async fn the_switch_waits_for_what_was_written_before() {
        let (near, mut far) = tokio::io::duplex(4);
        let switch = Arc::new(Switch::default());
        let mut stream = OneChunk::new(near, switch.clone());
        stream.write_all(b"1234").await.expect("writing");
        let on = switch.turn_on();
        tokio::pin!(on);
        assert!(futures_util::poll!(on.as_mut()).is_pending());
        far.read_exact(&mut [0; 4]).await.expect("reading");
        stream.flush().await.expect("flushing");
        assert!(futures_util::poll!(on.as_mut()).is_ready());
    }
}
