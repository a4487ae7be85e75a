//! Pending replies of a connection: what is not ready yet, in order or out of order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use base::limits;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// What takes memory until it is sent.
pub trait Held {
    /// Its bytes.
    fn bytes(&self) -> usize;
}

/// Something that takes time and has to be finished before the next bytes are looked at.
pub type Work<D> = Pin<Box<dyn Future<Output = D> + Send>>;

/// The replies of a connection that take time, in order or aside, with a bound on how many and how
/// much. `F` is one of them; an idle connection has none and holds no memory for them.
pub struct Pending<F: Future> {
    /// What the next bytes wait for.
    work: Option<Work<F::Output>>,
    /// Bytes that it holds.
    work_bytes: u32,
    others: Option<Box<Others<F>>>,
}

struct Others<F: Future> {
    /// Those that are there, for which there was no room: with the bytes of both.
    ready: VecDeque<(usize, F::Output)>,
    /// How many of those aside have begun.
    begun: usize,
    /// In the order in which they were promised: the store answers in that order, so that only the
    /// first need be looked at.
    in_order: VecDeque<Promised<F>>,
    /// When they are there; few of them are begun at once, for each can hold a large reply that the
    /// peer does not read.
    aside: VecDeque<Promised<F>>,
    /// When a device has answered, maybe in minutes.
    from_devices: Option<FuturesUnordered<Promised<F>>>,
    bytes: usize,
}

/// A reply, and the bytes that are held for it.
struct Promised<F> {
    bytes: usize,
    reply: F,
}

impl<F: Future + Unpin> Future for Promised<F> {
    type Output = (usize, F::Output);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bytes = self.bytes;
        Pin::new(&mut self.reply).poll(cx).map(|done| (bytes, done))
    }
}

impl<F: Future> Default for Others<F> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            begun: 0,
            in_order: VecDeque::new(),
            aside: VecDeque::new(),
            from_devices: None,
            bytes: 0,
        }
    }
}

impl<F: Future + Unpin> Others<F> {
    fn len(&self) -> usize {
        let from_devices = self.from_devices.as_ref().map_or(0, FuturesUnordered::len);
        self.ready.len() + self.in_order.len() + self.aside.len() + from_devices
    }

    /// What the next reply is, and the bytes that were held for it; none if none is promised.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        devices: bool,
    ) -> Poll<Option<(usize, F::Output)>> {
        if let Some(done) = self.ready.pop_front() {
            return Poll::Ready(Some(done));
        }
        let mut waits = false;
        if let Some(first) = self.in_order.front_mut() {
            if let Poll::Ready(done) = Pin::new(first).poll(cx) {
                self.in_order.pop_front();
                return Poll::Ready(Some(done));
            }
            waits = true;
        }
        self.begun = self.aside.len().min(limits::BEGUN_ASIDE_MAX);
        if let Some(done) = self.poll_begun(cx) {
            return Poll::Ready(Some(done));
        }
        waits |= self.begun > 0;
        if let Some(replies) = self.from_devices.as_mut().filter(|replies| !replies.is_empty())
            && devices
        {
            if let Poll::Ready(Some(done)) = replies.poll_next_unpin(cx) {
                return Poll::Ready(Some(done));
            }
            waits = true;
        }
        if waits { Poll::Pending } else { Poll::Ready(None) }
    }

    /// One of those aside that have begun, if it is there.
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Option<(usize, F::Output)> {
        for index in 0..self.begun {
            let reply = self.aside.get_mut(index)?;
            if let Poll::Ready(done) = Pin::new(reply).poll(cx) {
                self.aside.remove(index);
                self.begun -= 1;
                return Some(done);
            }
        }
        None
    }
}

impl<F: Future<Output: Held> + Unpin> Others<F> {
    /// Takes what is there of what has begun, so that it counts.
    fn settle(&mut self, cx: &mut Context<'_>) {
        while let Some((bytes, done)) = self.poll_begun(cx).or_else(|| self.poll_devices(cx)) {
            self.bytes += done.bytes();
            self.ready.push_back((bytes + done.bytes(), done));
        }
    }

    fn poll_devices(&mut self, cx: &mut Context<'_>) -> Option<(usize, F::Output)> {
        match self.from_devices.as_mut().map(|replies| replies.poll_next_unpin(cx)) {
            Some(Poll::Ready(done)) => done,
            Some(Poll::Pending) | None => None,
        }
    }
}

impl<F: Future> Default for Pending<F> {
    fn default() -> Self {
        Self { work: None, work_bytes: 0, others: None }
    }
}

impl<F: Future + Unpin> Pending<F> {
    /// Whether the next bytes have to wait.
    pub const fn is_blocked(&self) -> bool {
        self.work.is_some()
    }

    /// Lets the next bytes wait for this.
    pub fn block(&mut self, work: Work<F::Output>) {
        debug_assert!(self.work.is_none(), "nothing is looked at meanwhile");
        self.work = Some(work);
    }

    /// Notes that the work that the next bytes wait for holds so many bytes more.
    pub(super) fn note_blocked(&mut self, bytes: usize) {
        if self.is_blocked() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.work_bytes = self.work_bytes.saturating_add(bytes);
        }
    }

    /// Bytes that are held by what the next bytes wait for, and for those that are promised, and for the
    /// promises themselves.
    pub fn bytes(&self) -> usize {
        let held = |others: &Others<F>| {
            let aside = others.aside.len();
            let promises = (others.len() - aside) * limits::PROMISE_BYTES;
            others.bytes + promises + aside * limits::PROMISE_ASIDE_BYTES
        };
        self.work_bytes as usize + self.others.as_deref().map_or(0, held)
    }

    /// Whether one more may be promised that holds so many bytes: a client that sends faster than
    /// it is served must wait.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.others.as_ref().is_none_or(|others| {
            let few = others.len() < limits::PENDING_MAX;
            // One that is larger than that goes alone.
            few && (others.bytes == 0 || others.bytes + bytes <= limits::OUTBOX_BYTES_MAX)
        })
    }

    /// Whether so many replies that take work are promised that who is above the share of full cores
    /// waits with more.
    pub fn has_many_aside(&self) -> bool {
        let aside = self.others.as_ref().map_or(0, |others| others.aside.len());
        aside >= limits::ASIDE_IN_TURN_MAX
    }

    /// Promises a reply that comes behind those promised so before.
    pub fn push(&mut self, bytes: usize, reply: F) {
        self.others_for(bytes).in_order.push_back(Promised { bytes, reply });
    }

    /// Promises a reply that comes when it is there.
    pub fn push_aside(&mut self, bytes: usize, reply: F) {
        self.others_for(bytes).aside.push_back(Promised { bytes, reply });
    }

    /// Promises a reply that comes when a device has answered.
    pub fn push_from_device(&mut self, bytes: usize, reply: F) {
        let from_devices = self.others_for(bytes).from_devices.get_or_insert_default();
        from_devices.push(Promised { bytes, reply });
    }

    fn others_for(&mut self, bytes: usize) -> &mut Others<F> {
        let others = self.others.get_or_insert_with(Box::default);
        others.bytes += bytes;
        others
    }

    /// What came of the work that the next bytes wait for; none if they wait for nothing.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        let polled = work.as_mut().poll(cx).map(Some);
        if polled.is_ready() {
            (self.work, self.work_bytes) = (None, 0);
        }
        polled
    }

    /// The next reply that is there; none if none is promised. `devices`: whether those count that
    /// wait for devices.
    pub(super) fn poll_reply(
        &mut self,
        cx: &mut Context<'_>,
        devices: bool,
    ) -> Poll<Option<F::Output>> {
        let Some(others) = &mut self.others else { return Poll::Ready(None) };
        let Poll::Ready(done) = others.poll_next(cx, devices) else { return Poll::Pending };
        let Some((bytes, done)) = done else { return Poll::Ready(None) };
        others.bytes -= bytes;
        if others.len() == 0 {
            self.others = None;
        }
        Poll::Ready(Some(done))
    }

    /// Takes replies that are there while there is no room for them: until then nobody knows how
    /// much they are. No more are begun.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>)
    where
        F::Output: Held,
    {
        if let Some(others) = &mut self.others {
            others.settle(cx);
        }
    }

    /// Forgets replies that take work and that nobody needs any more.
    pub fn forget_aside(&mut self, is_needless: impl Fn(&F) -> bool) {
        let Some(others) = &mut self.others else { return };
        let before: usize = others.aside.iter().map(|promised| promised.bytes).sum();
        others.aside.retain(|promised| !is_needless(&promised.reply));
        let after: usize = others.aside.iter().map(|promised| promised.bytes).sum();
        others.bytes -= before - after;
        // Which of them have begun is found out when they are looked at next.
        others.begun = 0;
        if others.len() == 0 {
            self.others = None;
        }
    }

    /// Waits for the next reply; none if none is promised.
    pub async fn next(&mut self, devices: bool) -> Option<F::Output> {
        poll_fn(|cx| self.poll_reply(cx, devices)).await
    }

    /// Waits for the work that the next bytes wait for; none if they wait for nothing.
    pub async fn worked(&mut self) -> Option<F::Output> {
        poll_fn(|cx| self.poll_work(cx)).await
    }

    /// Whether no reply is promised.
    pub const fn is_empty(&self) -> bool {
        self.others.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_promised_has_a_bound_and_comes_in_order_or_aside() {
        let mut pending = Pending::<BoxFuture<'static, u32>>::default();
        let promise = |number: u32| {
            let (answer, answered) = oneshot::channel::<()>();
            let reply: BoxFuture<'static, u32> = Box::pin(async move {
                let _ = answered.await;
                number
            });
            (answer, reply)
        };
        let half = limits::OUTBOX_BYTES_MAX / 2;
        assert!(pending.has_room(10 * half), "one goes alone");
        let (first, reply) = promise(1);
        pending.push(half, reply);
        let (second, reply) = promise(2);
        pending.push(half - 1, reply);
        assert!(pending.has_room(1) && !pending.has_room(2));
        let (third, reply) = promise(3);
        pending.push_aside(1, reply);
        drop(second);
        let next = poll_fn(|cx| Poll::Ready(pending.poll_reply(cx, true))).await;
        assert!(next.is_pending(), "the second comes behind the first");
        drop(third);
        assert_eq!(pending.next(true).await, Some(3));
        let (_fourth, reply) = promise(4);
        pending.push_aside(7, reply);
        pending.forget_aside(|_| false);
        let before = pending.bytes();
        pending.forget_aside(|_| true);
        assert_eq!(before - pending.bytes(), 7 + limits::PROMISE_ASIDE_BYTES);
        drop(first);
        assert_eq!((pending.next(false).await, pending.next(false).await), (Some(1), Some(2)));
        assert!(pending.is_empty() && pending.next(true).await.is_none());
        let mut many = Vec::new();
        for number in 0..limits::PENDING_MAX as u32 {
            assert!(pending.has_room(1));
            let (answer, reply) = promise(number);
            many.push(answer);
            pending.push_aside(0, reply);
        }
        assert!(!pending.has_room(0));
    }
}
