//! Bytes that are held for peers that have not logged in: half a body, half a line, half a frame.
//!
//! They come from one pool. A little is given to everybody, if need be at the cost of the network
//! that holds most, and there of the one that has waited longest; whoever needs more is read on only
//! while there is room.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use base::limits;
use base::pool::{Pool, Pools, Usage};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, Sleep};

use super::crowds::Crowds;

/// The pool.
pub struct Unauthenticated {
    bytes_max: usize,
    /// Those that were cut off.
    cut: Counter,
    usage: Arc<Usage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    /// By their networks, and there by their age.
    of: Crowds<IpAddr>,
    held: HashMap<u64, Held>,
    next: u64,
    /// Who waits for room, and for how much in all. They get it in this order, and the first looks from
    /// time to time whether somebody has waited for too long: if all looked, thousands would at once.
    waiting: BTreeMap<u64, usize>,
    /// The first, once it has been told that it is.
    first: Option<u64>,
}

/// What is held for one peer.
struct Held {
    network: IpAddr,
    bytes: usize,
    since: Instant,
    cut: Arc<Cut>,
}

/// Tells a peer that its bytes are given to others.
#[derive(Default)]
struct Cut {
    off: AtomicBool,
    waker: AtomicWaker,
}

/// The peer waited too long with half a request, and others need the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("half a request waited too long, and there was no room for others")]
pub struct CutOff;

/// What one peer holds of the pool; given back when this is dropped.
pub struct Lease {
    pool: Arc<Unauthenticated>,
    network: IpAddr,
    /// None while it holds nothing.
    held: Option<(u64, Arc<Cut>)>,
    /// When the first of those without room looks again: somebody may have waited for too long by then.
    again: Option<Pin<Box<Sleep>>>,
}

impl Unauthenticated {
    /// A pool of so many bytes, of which one request of `request_max` can always be had. `cut`
    /// counts those that had to go.
    pub fn new(bytes_max: usize, request_max: usize, cut: Counter, pools: &Pools) -> Self {
        let bytes_max = bytes_max.max(request_max + limits::READ_BYTES);
        let usage = pools.usage(Pool::UnauthenticatedBytes).clone();
        usage.set_max(bytes_max as u64);
        Self { bytes_max, cut, usage, state: Mutex::default() }
    }

    /// What a peer in this network will hold, which is nothing yet.
    pub fn lease(self: &Arc<Self>, network: IpAddr) -> Lease {
        Lease { pool: self.clone(), network, held: None, again: None }
    }

    /// The bytes that are held now.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl State {
    /// One holds so many bytes from now on. Room that it gives back goes to those who wait.
    fn change(&mut self, number: u64, bytes: usize, pool: &Unauthenticated) {
        self.set(number, bytes, pool);
        self.give_room(pool);
    }

    fn set(&mut self, number: u64, bytes: usize, pool: &Unauthenticated) {
        let Some(held) = self.held.get_mut(&number) else { return };
        self.of.change(held.network, number, held.bytes, bytes);
        self.bytes = self.bytes - held.bytes + bytes;
        pool.usage.set_used(self.bytes as u64);
        held.bytes = bytes;
        self.waiting.remove(&number);
        if bytes == 0 {
            self.held.remove(&number);
        }
    }

    fn give_room(&mut self, pool: &Unauthenticated) {
        while let Some((&number, &bytes)) = self.waiting.first_key_value() {
            let Some(held) = self.held.get(&number) else { return };
            let fits = self.bytes + bytes.saturating_sub(held.bytes) <= pool.bytes_max;
            if fits || self.first != Some(number) {
                held.cut.waker.wake();
                self.first = Some(number);
            }
            if !fits {
                return;
            }
            self.set(number, bytes, pool);
        }
    }

    /// Whether nobody waits who began before.
    fn is_next(&self, number: u64) -> bool {
        self.waiting.first_key_value().is_none_or(|(first, _)| number <= *first)
    }

    /// Cuts off those of the network that holds most which have waited longest, and for so long at
    /// least, until there is room for so many bytes: whoever floods, and from however many addresses,
    /// does not cost others their requests.
    fn make_room(&mut self, bytes: usize, pool: &Unauthenticated, oldest: Option<Instant>) {
        while self.bytes + bytes > pool.bytes_max {
            let Some(number) = self.of.first() else { return };
            let is_old = |held: &Held| oldest.is_none_or(|oldest| held.since <= oldest);
            if !self.held.get(&number).is_some_and(is_old) {
                return;
            }
            pool.cut.inc();
            pool.usage.count_evicted();
            if let Some(held) = self.held.get(&number) {
                held.cut.off.store(true, Ordering::Release);
                held.cut.waker.wake();
            }
            self.set(number, 0, pool);
        }
    }
}

impl Lease {
    /// Holds so many bytes in all. Up to [`limits::READ_BYTES`] there is room; whoever holds more
    /// waits for it.
    ///
    /// # Errors
    ///
    /// The peer has waited too long, and has to go.
    pub fn poll_hold(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<(), CutOff>> {
        if bytes == 0 && self.held.is_none() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.pool.state.lock();
        let (number, cut) = self.held.get_or_insert_with(|| {
            let (number, cut) = (state.next, Arc::<Cut>::default());
            state.next += 1;
            let since = Instant::now();
            let held = Held { network: self.network, bytes: 0, since, cut: cut.clone() };
            state.held.insert(number, held);
            (number, cut)
        });
        cut.waker.register(cx.waker());
        if cut.off.load(Ordering::Acquire) {
            return Poll::Ready(Err(CutOff));
        }
        let before = state.held.get(number).map_or(0, |held| held.bytes);
        let more = bytes.saturating_sub(before);
        let small = bytes <= limits::READ_BYTES;
        // Who has less than another even when that has made room need not wait until it has waited.
        let lacking = (state.bytes + more).saturating_sub(self.pool.bytes_max);
        let at_once = small || state.of.has_less(self.network, more + lacking);
        let is_next = state.is_next(*number);
        let oldest = match at_once {
            true => None,
            false => Instant::now().checked_sub(limits::UNAUTHENTICATED_WAIT),
        };
        if at_once || (is_next && oldest.is_some()) {
            state.make_room(more, &self.pool, oldest);
        }
        if cut.off.load(Ordering::Acquire) {
            state.give_room(&self.pool);
            return Poll::Ready(Err(CutOff));
        }
        let is_room = state.bytes + more <= self.pool.bytes_max;
        if small || more == 0 || (is_room && (at_once || is_next)) {
            state.change(*number, bytes, &self.pool);
            if bytes == 0 {
                self.held = None;
            }
            self.again = None;
            return Poll::Ready(Ok(()));
        }
        state.waiting.insert(*number, bytes);
        // What was not enough for this one may be for the first.
        state.give_room(&self.pool);
        let is_first = state.first == Some(*number);
        drop(state);
        if !is_first {
            self.again = None;
            return Poll::Pending;
        }
        let due = Instant::now() + limits::UNAUTHENTICATED_AGAIN;
        let again = self.again.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if again.as_mut().poll(cx).is_ready() {
            again.as_mut().reset(due);
            let _ = again.as_mut().poll(cx);
        }
        Poll::Pending
    }

    /// Holds so many bytes in all, as [`Lease::poll_hold`].
    ///
    /// # Errors
    ///
    /// The peer has waited too long, and has to go.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), CutOff> {
        poll_fn(|cx| self.poll_hold(cx, bytes)).await
    }

    /// Waits until the peer has to go.
    pub async fn cut_off(&self) -> CutOff {
        poll_fn(|cx| {
            let Some((_, cut)) = &self.held else { return Poll::Pending };
            cut.waker.register(cx.waker());
            match cut.off.load(Ordering::Acquire) {
                true => Poll::Ready(CutOff),
                false => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((number, _)) = &self.held {
            self.pool.state.lock().change(*number, 0, &self.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const SMALL: usize = limits::READ_BYTES;
    const REQUEST: usize = 10 * SMALL;

    fn pool(requests: usize) -> Arc<Unauthenticated> {
        Arc::new(Unauthenticated::new(
            requests * REQUEST,
            REQUEST,
            Counter::default(),
            &Pools::default(),
        ))
    }

    fn network(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    /// What becomes of the wish now; none if it waits.
    fn now(lease: &mut Lease, bytes: usize) -> Option<Result<(), CutOff>> {
        let mut cx = Context::from_waker(Waker::noop());
        match lease.poll_hold(&mut cx, bytes) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn whoever_needs_much_waits_for_room_and_the_oldest_makes_it() {
        let pool = pool(2);
        let mut leases: Vec<_> = (0..3).map(|_| pool.lease(network(1))).collect();
        assert_eq!(now(&mut leases[0], REQUEST), Some(Ok(())));
        assert_eq!(now(&mut leases[1], REQUEST), Some(Ok(())));
        assert_eq!(now(&mut leases[2], SMALL + 1), None, "nobody has waited for long");
        // Room that is given back is had at once.
        assert_eq!(now(&mut leases[1], 0), Some(Ok(())));
        assert_eq!(now(&mut leases[2], REQUEST), Some(Ok(())));
        let mut late = pool.lease(network(1));
        let waiting = tokio::spawn(async move { late.hold(REQUEST).await.map(|()| late) });
        leases[0].cut_off().await;
        let late = waiting.await.expect("no panic");
        assert!(late.is_ok());
        assert_eq!(now(&mut leases[0], REQUEST), Some(Err(CutOff)));
        assert_eq!(now(&mut leases[2], REQUEST), Some(Ok(())));
        drop((leases, late));
        assert_eq!(pool.bytes(), 0);
        assert!(pool.state.lock().of.is_empty() && pool.state.lock().held.is_empty());
    }

    #[tokio::test]
    async fn a_little_is_given_at_once_at_the_cost_of_who_holds_most() {
        let pool = pool(1);
        let mut other = pool.lease(network(2));
        assert_eq!(now(&mut other, SMALL), Some(Ok(())));
        let mut many: Vec<_> = (0..30).map(|_| pool.lease(network(1))).collect();
        for lease in &mut many {
            assert_eq!(now(lease, SMALL), Some(Ok(())));
            assert!(pool.bytes() <= pool.bytes_max);
        }
        // The one that has waited longest of all is not the one that holds most.
        assert_eq!(now(&mut other, SMALL), Some(Ok(())));
        let cut: Vec<_> =
            many.iter_mut().map(|lease| now(lease, SMALL).is_some_and(|o| o.is_err())).collect();
        assert_eq!(cut.iter().filter(|cut| **cut).count(), 20);
        assert!(cut[..20].iter().all(|cut| *cut), "the oldest go first");
    }

    #[tokio::test]
    async fn who_holds_less_than_others_is_not_cut_off_and_has_room_at_once() {
        let pool = pool(10);
        let mut early = pool.lease(network(1000));
        assert_eq!(now(&mut early, 100), Some(Ok(())));
        // A flood of which no address holds much.
        let mut flood: Vec<_> = (0..500).map(|number| pool.lease(network(number / 2))).collect();
        for lease in &mut flood {
            assert_eq!(now(lease, SMALL), Some(Ok(())));
        }
        assert_eq!(now(&mut early, 200), Some(Ok(())), "it holds less than each of them");
        assert!(pool.bytes() <= pool.bytes_max);
        drop(flood);
        let mut crowd: Vec<_> = (0..100).map(|_| pool.lease(network(2000))).collect();
        for lease in &mut crowd {
            assert_eq!(now(lease, SMALL), Some(Ok(())));
        }
        let mut large = pool.lease(network(1001));
        assert_eq!(now(&mut large, 3 * SMALL), Some(Ok(())), "nobody has waited for long");
        assert_eq!(now(&mut large, 60 * SMALL), None, "it would have more than all others");
        assert_eq!(now(&mut early, 300), Some(Ok(())));
        assert!(pool.bytes() <= pool.bytes_max);
    }

    #[tokio::test]
    async fn many_who_hold_little_go_by_their_age() {
        let pool = pool(1);
        let mut many: Vec<_> = (0..12).map(|number| pool.lease(network(number))).collect();
        for lease in &mut many {
            assert_eq!(now(lease, SMALL), Some(Ok(())));
        }
        assert_eq!(now(&mut many[0], SMALL), Some(Err(CutOff)));
        assert_eq!(now(&mut many[11], SMALL), Some(Ok(())));
    }

    #[tokio::test]
    async fn who_has_gone_is_not_woken_in_the_place_of_others() {
        let pool = pool(1);
        let mut holder = pool.lease(network(1));
        assert_eq!(now(&mut holder, REQUEST), Some(Ok(())));
        let fills = 2 * SMALL;
        let mut gone: Vec<_> = (0..12).map(|_| pool.lease(network(1))).collect();
        assert!(gone.iter_mut().all(|lease| now(lease, fills).is_none()));
        let (woken, mut waits) = (Arc::new(Woken::default()), pool.lease(network(1)));
        let waker = Waker::from(woken.clone());
        assert!(waits.poll_hold(&mut Context::from_waker(&waker), fills).is_pending());
        drop(gone);
        drop(holder);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(now(&mut waits, fills), Some(Ok(())));
        assert!(pool.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn those_who_wait_have_what_is_given_back_before_they_ask_again() {
        let pool = pool(2);
        let mut holder = pool.lease(network(1));
        assert_eq!(now(&mut holder, 2 * REQUEST), Some(Ok(())));
        let mut waiting: Vec<_> = (0..3).map(|_| pool.lease(network(1))).collect();
        assert!(waiting.iter_mut().all(|lease| now(lease, REQUEST).is_none()));
        drop(holder);
        assert_eq!(pool.bytes(), 2 * REQUEST);
        assert_eq!(now(&mut waiting[2], REQUEST), None, "the others were first");
        assert_eq!(now(&mut waiting[0], REQUEST), Some(Ok(())));
        assert_eq!(now(&mut waiting[1], 0), Some(Ok(())));
        assert_eq!(now(&mut waiting[2], REQUEST), Some(Ok(())));
        drop(waiting);
        assert!(pool.bytes() == 0 && pool.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn those_who_grow_side_by_side_do_not_keep_each_other_from_room() {
        let pool = pool(2);
        let grow = |mut lease: Lease| async move {
            for bytes in (1..=REQUEST / SMALL).map(|pieces| pieces * SMALL) {
                lease.hold(bytes).await?;
            }
            Ok::<_, CutOff>(lease)
        };
        let grown = (0..60).map(|_| tokio::spawn(grow(pool.lease(network(1)))));
        for one in grown.collect::<Vec<_>>() {
            // Whoever is not cut off has its room, and gives it back.
            drop(one.await.expect("no panic"));
        }
        assert!(pool.bytes() == 0 && pool.state.lock().waiting.is_empty());
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn the_largest_request_fits_into_the_smallest_pool() {
        let pool =
            Arc::new(Unauthenticated::new(0, REQUEST, Counter::default(), &Pools::default()));
        assert_eq!(now(&mut pool.lease(network(1)), REQUEST), Some(Ok(())));
    }
}
