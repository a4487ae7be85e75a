//! MQTT over WebSocket (RFC 6455; `docs/protocol/tr50.md` 1.1; MQTT 3.1.1 and 5, section 6): the
//! handshake, and the stream of bytes inside the binary frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base::{ConnInfo, Protocol, limits};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::{ByteStream, HeldStream, Stream};
use super::stream::{Counted, HeldBytes, Replay, take_into};
use crate::app::Lease;

/// The sub-protocols of MQTT 3.1.1 and later, and of MQTT 3.1.
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why a request can't become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// None of the offered sub-protocols is MQTT's.
    #[error("the sub-protocol must be mqtt or mqttv3.1")]
    SubProtocol,
    /// The request breaks RFC 6455.
    #[error("not a WebSocket handshake: {0}")]
    Handshake(#[from] Error),
}

/// The answer to a request for a WebSocket: status 101, with the first sub-protocol that was
/// offered and is known.
pub(super) fn handshake<B, T: Default>(
    request: &Request<B>,
) -> Result<hyper::Response<T>, Refused> {
    let sub_protocol = sub_protocol(request.headers()).ok_or(Refused::SubProtocol)?;
    let mut answer = create_response_with_body(&with_one_line_each(request), T::default)?;
    let sub_protocol = HeaderValue::from_static(sub_protocol);
    answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, sub_protocol);
    Ok(answer)
}

/// The details of the MQTT connection inside.
pub(super) fn conn_info(info: ConnInfo) -> ConnInfo {
    let protocol = match info.protocol {
        Protocol::Https => Protocol::Wss,
        _ => Protocol::Ws,
    };
    ConnInfo { protocol, ..info }
}

/// The bytes inside the WebSocket on `stream`, of which `unread` was read already.
pub(super) async fn byte_stream(
    stream: Replay<Stream>,
    unread: Bytes,
    frame_bytes_max: usize,
    lease: Lease,
) -> Stream {
    let message_bytes_max = frame_bytes_max.saturating_add(limits::WEBSOCKET_EXTRA_BYTES);
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::WEBSOCKET_READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::UNSENT_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let held = Arc::<HeldBytes>::default();
    held.add(unread.len());
    let stream = Counted::new(stream, held, lease).in_turns();
    let socket =
        WebSocketStream::from_partially_read(stream, unread.into(), Role::Server, Some(config))
            .await;
    Stream::Held(Box::new(Payloads { socket, received: Bytes::new(), unsent: 0 }))
}

/// The request without its body, in which the lists `Connection` and `Upgrade` are one word each, if
/// that is among theirs: a list may have several words, on several lines (RFC 9110, 5.3), for which
/// the library does not look.
fn with_one_line_each<B>(request: &Request<B>) -> Request<()> {
    let mut plain = Request::new(());
    *plain.method_mut() = request.method().clone();
    *plain.version_mut() = request.version();
    *plain.headers_mut() = request.headers().clone();
    for (name, word) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
        plain.headers_mut().remove(&name);
        if has_word(request.headers(), &name, word) {
            plain.headers_mut().insert(name, HeaderValue::from_static(word));
        }
    }
    plain
}

/// Whether a list header has this word, on any of its lines. Old clients put blanks for commas.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let mut words = values.flat_map(|value| value.split([',', ' ', '\t']));
    words.any(|listed| listed.eq_ignore_ascii_case(word))
}

fn sub_protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|offer| SUB_PROTOCOLS.into_iter().find(|known| *known == offer.trim()))
}

/// The payloads of a WebSocket's binary messages as one stream of bytes; packets need not end where
/// messages do (MQTT 3.1.1, [MQTT-6.0.0-2]).
struct Payloads<T> {
    socket: WebSocketStream<Counted<T>>,
    received: Bytes,
    /// Bytes of frames (pongs too) that may wait in the socket's own buffer.
    unsent: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Payloads<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent > 0 {
            ready!(self.socket.poll_flush_unpin(cx)).map_err(into_io)?;
            self.unsent = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: ByteStream> ByteStream for Payloads<T> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.socket.get_ref().tcp()
    }
}

impl<T: ByteStream> HeldStream for Payloads<T> {
    fn note_login(&mut self) {
        self.socket.get_mut().note_login();
    }

    fn held(&self) -> usize {
        self.socket.get_ref().held() + self.received.len() + self.unsent
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Payloads<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut empty = 0;
        while self.received.is_empty() {
            if empty == limits::WEBSOCKET_EMPTY_AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            empty += 1;
            // A stalled peer does not keep its own messages from being read.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            let next = ready!(self.socket.poll_next_unpin(cx));
            self.socket.get_mut().note_used();
            match next {
                None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Binary(payload))) => self.received = payload,
                // [MQTT-6.0.0-1]: any other kind of data closes the connection.
                Some(Ok(Message::Text(_))) => {
                    let text = io::Error::new(io::ErrorKind::InvalidData, "text, not MQTT");
                    return Poll::Ready(Err(text));
                }
                Some(Ok(message)) => self.unsent += message.len().max(1),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        take_into(&mut self.received, buf);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Payloads<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(into_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(buf));
        self.socket.start_send_unpin(message).map_err(into_io)?;
        self.unsent = buf.len();
        // On a TCP stream a write needs no flush to leave; the edges rely on it.
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(cx).map_err(into_io)
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::app::Unauthenticated;

    /// Counts how often it is told to poll again.
    #[derive(Default)]
    struct Turns(AtomicUsize);

    impl Wake for Turns {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A frame of a client, whose mask changes nothing.
    fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
        [&[head, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    /// Reads what is there until it says that more may come; how often others had their turn first,
    /// and what came.
    async fn read_all(bytes: &[u8]) -> (usize, Vec<u8>) {
        let (mut far, near) = tokio::io::duplex(bytes.len());
        far.write_all(bytes).await.expect("writing");
        let pool = Unauthenticated::new(1 << 20, 1 << 20, Counter::default(), &Default::default());
        let lease = Arc::new(pool).lease(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let near = Counted::new(near, Arc::default(), lease).in_turns();
        let config = WebSocketConfig::default().read_buffer_size(limits::WEBSOCKET_READ_BYTES);
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, Some(config)).await;
        let mut payloads = Payloads { socket, received: Bytes::new(), unsent: 0 };
        let turns = Arc::<Turns>::default();
        let waker = Waker::from(turns.clone());
        let mut came = Vec::new();
        let mut polls = 0;
        loop {
            let (mut room, woken) = ([0; 1024], turns.0.load(Ordering::Relaxed));
            let mut buf = ReadBuf::new(&mut room);
            let read =
                Pin::new(&mut payloads).poll_read(&mut Context::from_waker(&waker), &mut buf);
            if let Poll::Ready(read) = read {
                read.expect("reading");
                came.extend_from_slice(buf.filled());
                continue;
            }
            // The runtime, too, has others in between, and wakes after them.
            tokio::task::yield_now().await;
            if turns.0.load(Ordering::Relaxed) == woken {
                return (polls, came);
            }
            polls += 1;
        }
    }

    #[tokio::test]
    async fn what_brings_nothing_leaves_others_their_turn() {
        const COUNT: usize = 5_000;
        let (binary, ping) = (frame(0x82, b""), frame(0x89, b""));
        let last = frame(0x82, b"x");
        for empty in [&binary, &ping] {
            let (turns, came) = read_all(&[&empty.repeat(COUNT), &*last].concat()).await;
            assert_eq!(came, b"x");
            assert!(turns >= COUNT / limits::WEBSOCKET_EMPTY_AT_ONCE, "{turns}");
        }
        // One message that goes on and on.
        let bytes = [frame(0x02, b""), frame(0, b"").repeat(COUNT), frame(0x80, b"x")].concat();
        let at_once = limits::WEBSOCKET_READS_AT_ONCE * limits::WEBSOCKET_READ_BYTES;
        let (turns, came) = read_all(&bytes).await;
        assert_eq!(came, b"x");
        assert!(turns >= bytes.len() / at_once, "{turns}");
    }

    #[tokio::test]
    async fn packets_come_without_waiting() {
        let packet = frame(0x82, &[7; 100]);
        let (turns, came) = read_all(&packet.repeat(3)).await;
        assert_eq!((turns, came.len()), (0, 300));
    }
}
