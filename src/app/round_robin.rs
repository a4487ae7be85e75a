//! A few turns at once, for whoever waits one after the other, however much of each does: one that has just
//! come waits for no more than one turn of each of the others.

use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many turns there are, and who waits for one.
pub struct RoundRobin<K: Copy + Eq + Hash> {
    free: Semaphore,
    all: Mutex<HashMap<K, Queue>>,
}

/// What waits of one.
struct Queue {
    waiting: usize,
    /// Of those, one is in the queue for a free turn; the others are in the queue to be that one.
    first: Arc<Semaphore>,
}

/// One that waits.
struct Waiting<'t, K: Copy + Eq + Hash> {
    turns: &'t RoundRobin<K>,
    whose: K,
    first: Arc<Semaphore>,
}

impl<K: Copy + Eq + Hash> RoundRobin<K> {
    /// So many turns at once.
    pub fn new(count: usize) -> Self {
        Self { free: Semaphore::new(count), all: Mutex::default() }
    }

    /// Waits for a turn; none is never the case, for nobody closes the queues.
    pub async fn next(&self, whose: K) -> Option<SemaphorePermit<'_>> {
        self.first(whose, self.free.acquire()).await.ok()
    }

    /// Waits for something else, such as a turn of those of which this one is a part: of each, one at a
    /// time does.
    pub async fn first<F: Future>(&self, whose: K, turn: F) -> F::Output {
        let waiting = self.wait(whose);
        let _first = waiting.first.acquire().await.ok();
        turn.await
    }

    fn wait(&self, whose: K) -> Waiting<'_, K> {
        let mut all = self.all.lock();
        let new = || Queue { waiting: 0, first: Arc::new(Semaphore::new(1)) };
        let own = all.entry(whose).or_insert_with(new);
        own.waiting += 1;
        Waiting { turns: self, whose, first: own.first.clone() }
    }
}

impl<K: Copy + Eq + Hash> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut own) = self.turns.all.lock().entry(self.whose) {
            own.get_mut().waiting -= 1;
            if own.get().waiting == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn they_have_turns_one_after_the_other() {
        let turns = RoundRobin::new(1);
        let turn = turns.next(1).await;
        let mut waiting = Vec::new();
        for number in [1, 1, 1, 1, 2, 2, 2, 3] {
            let mut next = Box::pin(turns.next(number));
            assert!(futures_util::poll!(&mut next).is_pending());
            waiting.push((number, next));
        }
        // Who has gone meanwhile is passed over.
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
            // Who is the first of its own now is in the queue before the turn is free.
            for (_, next) in &mut waiting {
                assert!(futures_util::poll!(next).is_pending());
            }
            drop(turn);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 2]);
        assert!(turns.all.lock().is_empty());
    }
}
