//! The body of an answer that is in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::limits;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that is given away piece by piece: hyper copies what it is given, and a peer that does
/// not read would have it hold the whole body, which nobody counts there.
#[derive(Default)]
pub(super) struct Whole(pub(super) Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let count = self.0.len().min(limits::READ_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(count)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
