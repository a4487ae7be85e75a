//! Turns to send large replies. One look can answer everybody who asked the same, and each of its
//! replies is copied and written: a hundred at once would be tens of milliseconds, in which what
//! comes from others meanwhile stands behind them in the queues of the threads.

use base::limits;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// As many turns as there are threads.
pub struct LargeReplies(Semaphore);

impl LargeReplies {
    pub(super) fn new(threads: usize) -> Self {
        Self(Semaphore::new(threads.max(1)))
    }

    /// Waits for a turn to send a reply of so many bytes, if that is large. It is to be sent before
    /// anything else is waited for.
    pub(crate) async fn wait(&self, bytes: usize) {
        if bytes < limits::LARGE_REPLY_BYTES {
            return;
        }
        // None: nobody closes it.
        let turn = self.0.acquire().await.ok();
        // Whoever gets a turn would come next, before what the sockets have by now.
        yield_now().await;
        drop(turn);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn others_come_between_large_replies() {
        let replies = Arc::new(LargeReplies::new(1));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (replies, sent) = (replies.clone(), sent.clone());
            sending.spawn(async move {
                replies.wait(limits::LARGE_REPLY_BYTES).await;
                sent.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut most = 0;
        while let before = sent.load(Ordering::Relaxed)
            && before < 100
        {
            yield_now().await;
            most = most.max(sent.load(Ordering::Relaxed) - before);
        }
        assert!(most <= 2, "{most} between two turns of another task");
        while sending.join_next().await.is_some() {}
    }

    #[tokio::test]
    async fn small_ones_wait_for_nothing() {
        let replies = LargeReplies::new(1);
        let _all = replies.0.acquire().await.expect("a turn");
        assert!(futures_util::poll!(std::pin::pin!(replies.wait(1000))).is_ready());
        let large = limits::LARGE_REPLY_BYTES;
        assert!(futures_util::poll!(std::pin::pin!(replies.wait(large))).is_pending());
    }
}
