//! Turns to send large replies. One look can answer everybody who asked the same, and each of its
//! replies is copied and written: a hundred at once would be tens of milliseconds, in which what
//! comes from others meanwhile stands behind them in the queues of the threads.
//! Tenants have them one after the other, and in each its principals.

use std::sync::Arc;

use base::pool::Pools;
use base::{OrgId, STRANGERS, limits};
use tokio::task::yield_now;

use super::round_robin::RoundRobin;
use super::turns::Worker;

/// As many turns as there are threads.
pub struct LargeReplies {
    tenants: RoundRobin<OrgId>,
    /// Of these, any number are the first of their own.
    workers: RoundRobin<Worker>,
    pools: Arc<Pools>,
}

impl LargeReplies {
    pub(super) fn new(threads: usize, pools: &Arc<Pools>) -> Self {
        let (tenants, workers) = (RoundRobin::new(threads.max(1)), RoundRobin::new(0));
        Self { tenants, workers, pools: pools.clone() }
    }

    /// Waits for a turn to send somebody a reply of so many bytes, if that is large. It is to be sent
    /// before anything else is waited for.
    pub(crate) async fn wait(&self, bytes: usize, worker: Worker) {
        if bytes < limits::LARGE_REPLY_BYTES {
            return;
        }
        let org = worker.asker().map_or(STRANGERS, |(org, _)| org);
        let of_tenant = self.tenants.next(self.pools.tenant_of(org));
        let turn = self.workers.first(worker, of_tenant).await;
        // Whoever gets a turn would come next, before what the sockets have by now.
        yield_now().await;
        drop(turn);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base::{PrincipalId, UserId};
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn others_come_between_large_replies() {
        let replies = Arc::new(LargeReplies::new(1, &Arc::default()));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (replies, sent) = (replies.clone(), sent.clone());
            sending.spawn(async move {
                replies.wait(limits::LARGE_REPLY_BYTES, Worker::Server).await;
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
        let replies = LargeReplies::new(1, &Arc::default());
        let _all = replies.tenants.next(STRANGERS).await.expect("a turn");
        let wait = |bytes| replies.wait(bytes, Worker::Server);
        assert!(futures_util::poll!(std::pin::pin!(wait(1000))).is_ready());
        assert!(futures_util::poll!(std::pin::pin!(wait(limits::LARGE_REPLY_BYTES))).is_pending());
    }

    #[tokio::test]
    async fn tenants_and_their_principals_come_one_after_the_other() {
        let replies = LargeReplies::new(1, &Arc::default());
        let busy = replies.tenants.next(STRANGERS).await.expect("a turn");
        let worker = |org, who| {
            let principal = PrincipalId::User(UserId::from_bytes([who; 12]));
            Worker::Principal(OrgId::from_bytes([org; 12]), principal)
        };
        let sent = RefCell::new(Vec::new());
        let send = async |org, who| {
            replies.wait(limits::LARGE_REPLY_BYTES, worker(org, who)).await;
            sent.borrow_mut().push((org, who));
        };
        let asked = [(1, 1), (1, 1), (1, 1), (1, 2), (2, 1)];
        let all = join_all(asked.map(|(org, who)| send(org, who)));
        let mut all = std::pin::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        drop(busy);
        all.await;
        assert_eq!(*sent.borrow(), [(1, 1), (2, 1), (1, 2), (1, 1), (1, 1)]);
    }
}
