//! Work of connections that takes the time of a core in pieces, such as a handshake: a few at once,
//! and each piece behind all that is ready by then. Eight handshakes together would keep an answer
//! that takes microseconds waiting for milliseconds.
//!
//! The networks that wait have turns one after the other, however many connections each has: one that
//! has just come waits for no more than one turn of each of the others.

use std::collections::hash_map::{Entry, HashMap};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// How many work at once, and who waits for that.
pub(super) struct Turns {
    free: Semaphore,
    networks: Mutex<HashMap<IpAddr, Network>>,
}

/// A network of which somebody waits.
struct Network {
    waiting: usize,
    /// Of those, one is in the queue for a free turn; the others are in the queue to be that one.
    first: Arc<Semaphore>,
}

/// One that waits, of a network.
struct Waiting<'t> {
    turns: &'t Turns,
    network: IpAddr,
    first: Arc<Semaphore>,
}

impl Turns {
    /// So many at once.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Semaphore::new(count), networks: Mutex::default() }
    }

    /// Waits for a turn; none is never the case, for nobody closes the queues.
    async fn next(&self, network: IpAddr) -> Option<SemaphorePermit<'_>> {
        let waiting = self.wait(network);
        let _first = waiting.first.acquire().await.ok();
        self.free.acquire().await.ok()
    }

    fn wait(&self, network: IpAddr) -> Waiting<'_> {
        let mut networks = self.networks.lock();
        let new = || Network { waiting: 0, first: Arc::new(Semaphore::new(1)) };
        let of = networks.entry(network).or_insert_with(new);
        of.waiting += 1;
        Waiting { turns: self, network, first: of.first.clone() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut of) = self.turns.networks.lock().entry(self.network) {
            of.get_mut().waiting -= 1;
            if of.get().waiting == 0 {
                of.remove();
            }
        }
    }
}

/// Polls a future of this network in turn. While it waits for its peer, it has none.
pub(super) async fn in_turn<F: Future>(work: F, network: IpAddr, turns: &Turns) -> F::Output {
    let mut work = Box::pin(work);
    loop {
        let turn = turns.next(network).await;
        // Whoever gets a turn would come next, before what the sockets have by now.
        yield_now().await;
        let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        drop(turn);
        if let Poll::Ready(done) = polled {
            return done;
        }
        woken().await;
    }
}

/// Waits until the task is woken, by whatever it waits for.
async fn woken() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    fn network(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[tokio::test]
    async fn pieces_are_done_one_at_a_time_and_others_go_between() {
        let (turns, others) = (Arc::new(Turns::new(1)), Arc::new(AtomicUsize::new(0)));
        let mut working = JoinSet::new();
        for _ in 0..8 {
            let (turns, others) = (turns.clone(), others.clone());
            let work = async move {
                let mut seen = Vec::new();
                for _ in 0..3 {
                    seen.push(others.load(Ordering::Relaxed));
                    yield_now().await;
                }
                seen
            };
            working.spawn(async move { in_turn(work, network(1), &turns).await });
        }
        let counting = tokio::spawn(async move {
            loop {
                others.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let mut seen: Vec<usize> = Vec::new();
        while let Some(done) = working.join_next().await {
            seen.extend(done.expect("it does not panic"));
        }
        counting.abort();
        seen.sort_unstable();
        seen.dedup();
        // The first two may come before the others have begun.
        assert!(seen.len() >= 23, "{seen:?}");
    }

    #[tokio::test]
    async fn who_waits_for_its_peer_holds_up_nobody() {
        let turns = Arc::new(Turns::new(1));
        let for_stalled = turns.clone();
        let stalled = std::future::pending::<()>();
        let stalled = tokio::spawn(async move { in_turn(stalled, network(1), &for_stalled).await });
        for number in 0..3 {
            assert_eq!(in_turn(async move { number }, network(1), &turns).await, number);
        }
        stalled.abort();
    }

    #[tokio::test]
    async fn the_networks_have_turns_one_after_the_other() {
        let turns = Turns::new(1);
        let turn = turns.next(network(1)).await;
        let mut waiting = Vec::new();
        for number in [1, 1, 1, 1, 2, 2, 2, 3] {
            let mut next = Box::pin(turns.next(network(number)));
            assert!(futures_util::poll!(&mut next).is_pending());
            waiting.push((number, next));
        }
        // One that has gone meanwhile is passed over.
        drop(waiting.remove(1));
        drop(turn);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let mut has_had = None;
            for (index, (_, next)) in waiting.iter_mut().enumerate() {
                if let Poll::Ready(turn) = futures_util::poll!(next) {
                    has_had = Some((index, turn));
                    break;
                }
            }
            let (index, turn) = has_had.expect("somebody has a turn");
            order.push(waiting.remove(index).0);
            // Who is the first of its network now is in the queue before the turn is free.
            for (_, next) in &mut waiting {
                assert!(futures_util::poll!(next).is_pending());
            }
            drop(turn);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 2]);
        assert!(turns.networks.lock().is_empty());
    }
}
