//! MQTT over WebSocket, client side: binary messages as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream as MessageStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::ClientError;
use super::dial::Stream;

/// Shakes hands at `path` with sub-protocol `mqtt` (`docs/protocol/tr50.md` 1.1, "MQTT over
/// WebSocket").
pub(super) async fn open(
    authority: &str,
    path: &str,
    stream: Stream,
) -> Result<Stream, ClientError> {
    let failed = |error: Error| ClientError::Dial {
        step: "WebSocket handshake",
        authority: authority.to_owned(),
        source: io::Error::other(error),
    };
    let mut request = format!("ws://{authority}{path}").into_client_request().map_err(failed)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(failed)?;
    Ok(Box::new(Messages { socket, unread: Bytes::new() }))
}

/// The payloads of the binary messages, one after the other.
struct Messages {
    socket: WebSocketStream<Stream>,
    unread: Bytes,
}

impl AsyncRead for Messages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = buf.remaining().min(self.unread.len());
        buf.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io::Error::other)?;
        let message = Message::Binary(buf.to_vec().into());
        socket.as_mut().start_send(message).map_err(io::Error::other)?;
        // A caller that writes and then reads does not flush: start that here, finish it there.
        let _ = socket.poll_flush(cx).map_err(io::Error::other)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}
