//! Bodies as a whole: half a body of somebody who has not logged in needs room.

use base::ConnInfo;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::stream::HeldBytes;
use super::{HttpService, in_turns};

/// What a piece of a body takes at least.
const PIECE_BYTES: usize = 8 * 1024;

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// The connection or the framing broke.
    Broken,
    /// It came too slowly, and others needed the room.
    CutOff,
}

/// Reads a body of at most so many bytes, which comes on this connection.
pub(super) async fn read<S: HttpService>(
    mut body: Incoming,
    bytes_max: usize,
    (service, conn): (&S, &ConnInfo),
    held: &HeldBytes,
) -> Result<Bytes, Unread> {
    let mut lease = service.lease(conn.network());
    // Refused by its announced length, a body behind `Expect: 100-continue` is never sent.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Unread::TooLarge);
    }
    let announced = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
    let whole_max = announced.unwrap_or(bytes_max);
    // Most bodies are one piece, which need not be copied.
    let (mut first, mut rest) = (Bytes::new(), Vec::new());
    loop {
        let frame = tokio::select! {
            biased;
            frame = in_turns(service, conn, body.frame()) => frame,
            _ = lease.cut_off() => return Err(Unread::CutOff),
        };
        let Some(frame) = frame else { break };
        held.note_used();
        // What is no data is trailers, which mean nothing here.
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        let length = first.len().max(rest.len()) + data.len();
        if length > bytes_max {
            return Err(Unread::TooLarge);
        }
        if length == data.len() {
            first = data;
        } else {
            if length > rest.capacity() {
                let capacity = (2 * rest.capacity()).min(whole_max).max(length);
                rest.reserve_exact(capacity - rest.len());
            }
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
        // A small piece keeps the whole buffer into which it was read.
        let room = rest.capacity().max(first.len()).max(PIECE_BYTES);
        lease.hold(room).await.map_err(|_| Unread::CutOff)?;
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}
