//! Work of connections that takes the time of a core in pieces, such as a handshake: a few at once,
//! and each piece behind all that is ready by then. Eight handshakes together would keep an answer
//! that takes microseconds waiting for milliseconds.
//!
//! The networks that wait have turns one after the other, however many connections each has.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::task::Poll;

use tokio::task::yield_now;

use crate::app::RoundRobin;

/// Polls a future of this network in turn. While it waits for its peer, it has none.
pub(super) async fn in_turn<F: Future>(
    work: F,
    network: IpAddr,
    turns: &RoundRobin<IpAddr>,
) -> F::Output {
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
        let (turns, others) = (Arc::new(RoundRobin::new(1)), Arc::new(AtomicUsize::new(0)));
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
        let turns = Arc::new(RoundRobin::new(1));
        let for_stalled = turns.clone();
        let stalled = std::future::pending::<()>();
        let stalled = tokio::spawn(async move { in_turn(stalled, network(1), &for_stalled).await });
        for number in 0..3 {
            assert_eq!(in_turn(async move { number }, network(1), &turns).await, number);
        }
        stalled.abort();
    }
}
