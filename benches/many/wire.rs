//! A connection in memory: MQTT without the kernel.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use client::Version;
use parking_lot::Mutex;
use support::mqtt::{Connect, PING};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tr50d::edge::ByteStream;

/// The device's end.
pub(crate) struct Near(Arc<Mutex<Inner>>);

/// The server's end.
pub(crate) struct Far(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// What the device has said and the server has not read.
    input: Vec<u8>,
    /// Whether the device is gone.
    closed: bool,
    reader: Option<Waker>,
}

/// Both ends of a connection.
pub(crate) fn pair() -> (Near, Far) {
    let inner = Arc::<Mutex<Inner>>::default();
    (Near(inner.clone()), Far(inner))
}

impl Near {
    /// Logs in, by MQTT 3.1.1 and with a clean session, without keep-alive.
    pub(crate) fn connect(&self, thing_key: &str, token: &str) {
        let login = Connect::login(Version::V311, thing_key, thing_key, token);
        self.say(&Connect { keep_alive_s: 0, ..login }.frame());
    }

    /// Gives a sign of life.
    pub(crate) fn ping(&self) {
        self.say(PING);
    }

    /// Whether the server waits for what the device says.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.lock().reader.is_some()
    }

    /// Goes without a word.
    pub(crate) fn hang_up(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        wake(inner.reader.take());
    }

    /// Whether the server has closed its end.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn say(&self, bytes: &[u8]) {
        let mut inner = self.0.lock();
        inner.input.extend_from_slice(bytes);
        wake(inner.reader.take());
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl ByteStream for Far {}

impl AsyncRead for Far {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.input.is_empty() && !inner.closed {
            inner.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // The server reads more at once than is ever said.
        buf.put_slice(&std::mem::take(&mut inner.input));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Far {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
