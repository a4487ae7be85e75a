//! The end of a connection: its last replies, for as long as the memory that they take is not needed by
//! others.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::limits;
use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, LastReplies, Offered, Peer};

impl<P: Peer> Connection<P> {
    /// Sends what is still to be sent and ends everything that hangs on the connection.
    pub(super) async fn close(mut self, closing: P::Closing) {
        // The rest of a frame does not come any more, and a turn is for others who work.
        (self.partial, self.turn) = (Vec::new(), None);
        let is_broken = self.stream.is_broken();
        if is_broken {
            self.drop_unsent();
        }
        let mut made_way = self.wait_for_turn().await;
        self.peer.give_up();
        let mut stop = self.before_login.take().map(|before| before.stop);
        let is_stopped = stop.as_mut().is_some_and(|stop| stop.now_or_never().is_some());
        let last = match is_broken {
            true => LastReplies::None,
            false => self.peer.last_replies(&closing, self.at_end),
        };
        made_way = made_way || self.keep_last(last).await;
        if !made_way {
            let mut farewell = Vec::new();
            self.peer.farewell(&closing, &mut farewell);
            self.peer.note_out(&farewell);
            self.keep_whole(farewell);
            made_way = self.send_last().await;
        }
        // The peer does not read it, and others need the room.
        self.drop_unsent();
        // A login may have started a session, and a SUBSCRIBE has the subscriptions with it: what is
        // given up half-way would never end.
        poll_fn(|cx| {
            let _ = self.poll_account(cx);
            self.poll_last_work(cx)
        })
        .await;
        self.drop_unsent();
        self.peer.end(closing, self.owed).await;
        drop(self.account);
        if made_way {
            return;
        }
        // The end of the stream says that all of it is over: who connects again now begins anew.
        // Nobody waits for that when the server stops, or when others need the place.
        if self.at_end || last == LastReplies::All || is_stopped {
            let _ = timeout(limits::LAST_WORDS_WAIT, self.stream.shutdown()).await;
            return;
        }
        let linger = crate::edge::linger(self.stream);
        match stop {
            Some(stop) => tokio::select! {
                () = linger => {}
                () = stop => {}
            },
            None => linger.await,
        }
    }

    /// Waits until the connection may end. Not when somebody else ends its session meanwhile: one
    /// that comes back, the server's stop. True if it has to make room for others.
    async fn wait_for_turn(&mut self) -> bool {
        if !self.peer.has_session() {
            return false;
        }
        let Some(turn) = self.peer.turn() else { return false };
        let poll_ended = |connection: &mut Self, cx: &mut Context<'_>| {
            connection.peer.set_waker(cx.waker());
            if connection.peer.has_session() { Poll::Pending } else { Poll::Ready(()) }
        };
        self.until_over(turn, poll_ended).await
    }

    /// Waits for the last replies. True if the connection has to make room for others.
    async fn keep_last(&mut self, last: LastReplies) -> bool {
        // What was begun is answered, for better or worse: the connection closes anyway.
        let until = Instant::now() + limits::LAST_WORK_WAIT;
        if self.until_over(until, Self::poll_last_work).await {
            return true;
        }
        if last == LastReplies::None {
            return false;
        }
        let slow = last == LastReplies::All && self.at_end;
        let until = if slow { until + limits::SLOW_READER_WAIT } else { until };
        let devices = last == LastReplies::All;
        let poll =
            |connection: &mut Self, cx: &mut Context<'_>| connection.poll_last_replies(cx, devices);
        self.until_over(until, poll).await
    }

    /// Sends the last replies and words. True if the connection has to make room for others before
    /// the peer has read them.
    async fn send_last(&mut self) -> bool {
        // Who has only ended its own side (`nc -N`) is reading still, maybe over a slow link. A peer
        // that does not read the last words does without.
        let wait = if self.at_end { limits::SLOW_READER_WAIT } else { limits::LAST_WORDS_WAIT };
        let poll =
            |connection: &mut Self, cx: &mut Context<'_>| connection.poll_last_write(cx).map(drop);
        self.until_over(Instant::now() + wait, poll).await
    }

    /// Polls this until then, and counts what the connection holds meanwhile. True if it has to make
    /// room for others, which it does at once.
    async fn until_over(
        &mut self,
        until: Instant,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<()> + Send,
    ) -> bool {
        let over = poll_fn(|cx| {
            let polled = poll(self, cx);
            if self.poll_account(cx).is_ready() {
                return Poll::Ready(true);
            }
            polled.map(|()| false)
        });
        timeout_at(until, over).await.unwrap_or(false)
    }

    /// Keeps what comes of the work that was begun.
    fn poll_last_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(done) = ready!(self.owed.poll_work(cx)) {
            self.finish_last(done);
        }
        Poll::Ready(())
    }

    /// Keeps the replies that are promised.
    fn poll_last_replies(&mut self, cx: &mut Context<'_>, devices: bool) -> Poll<()> {
        while let Some(done) = ready!(self.owed.poll_reply(cx, devices)) {
            self.finish_last(done);
        }
        Poll::Ready(())
    }

    fn finish_last(&mut self, done: P::Done) {
        let mut output = Vec::new();
        let _ = self.peer.finish(done, &mut output, &mut self.owed);
        self.peer.note_out(&output);
        self.keep_whole(output);
    }

    /// Ready when everything has left.
    fn poll_last_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unsent = std::mem::take(&mut self.unsent);
        let (written, offered) = self.write_some(cx, &unsent)?;
        unsent.advance(written);
        self.unsent = unsent;
        if offered == Offered::All {
            self.shrink_unsent();
        }
        if !self.unsent.is_empty() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    pub(super) fn drop_unsent(&mut self) {
        (self.unsent, self.unsent_room) = (BytesMut::new(), 0);
    }
}
