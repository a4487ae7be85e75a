//! The edges: MQTT, TCP and HTTP. Each frames bytes and knows the peer, and never looks into a
//! command.

mod certificate;
pub mod driver;
pub mod http;
mod in_turn;
pub mod mqtt;
pub mod pending;
pub mod proxy;
pub mod tcp;
pub mod tls;
mod traced;
pub mod wrong_door;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use base::limits;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, Interest, ReadBuf,
};
use tokio::net::TcpStream;

/// Closes the sending side, then reads on for a while: input that is not read when a socket closes
/// resets the connection, and what was sent last is lost on its way.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = stream.take(limits::LINGER_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Nobody is left who wants to know of a failure.
    let _ = tokio::time::timeout(limits::LINGER_WAIT, drained).await;
}

/// The byte stream of a connection.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// Anything else that is boxed already: an HTTP tunnel.
    Boxed(Box<dyn ByteStream>),
    /// One that holds bytes of its own, such as a WebSocket.
    Held(Box<dyn HeldStream>),
}

impl Stream {
    /// Bytes that it holds.
    fn held(&self) -> usize {
        match self {
            Self::Held(stream) => stream.held(),
            // It does not say how much.
            Self::Tls(stream) if stream.get_ref().1.wants_write() => limits::TLS_UNSENT_BYTES_MAX,
            _ => 0,
        }
    }

    /// Whether the peer has gone and nothing of it is left to be read, as far as that shows. The task is
    /// woken when it goes.
    pub(crate) fn has_gone(&self, cx: &mut Context<'_>) -> bool {
        let Some(tcp) = self.tcp() else { return false };
        let mut byte = [0];
        match tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(peeked) => !matches!(peeked, Ok(1..)),
            Poll::Pending => false,
        }
    }

    /// Whether nothing that is written arrives any more, as far as that shows, whatever is left to be
    /// read. Who waits for room to write is woken for it.
    pub(crate) fn is_broken(&self) -> bool {
        let Some(tcp) = self.tcp() else { return false };
        let ready = pin!(tcp.ready(Interest::WRITABLE));
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_write_closed())
    }

    /// Notes that the peer has logged in: what is held for it needs no room of strangers.
    pub(crate) fn note_login(&mut self) {
        if let Self::Held(stream) = self {
            stream.note_login();
        }
    }
}

/// A byte stream that holds parts of what comes until they are complete.
pub trait HeldStream: ByteStream {
    /// Notes that the peer has logged in.
    fn note_login(&mut self);

    /// Bytes that it holds.
    fn held(&self) -> usize;
}

/// A byte stream that can be boxed.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket at the bottom; none in memory.
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl ByteStream for DuplexStream {}

impl ByteStream for Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Boxed(stream) => stream.tcp(),
            Self::Held(stream) => stream.tcp(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Boxed(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Held(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Boxed(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Held(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_flush(cx),
            Self::Held(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Held(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
