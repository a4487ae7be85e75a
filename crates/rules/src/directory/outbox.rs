//! The outbox of a connection: messages that others want sent on it, and the order to close it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use base::limits;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::details::Question;
use super::session::Reason;

/// A message that a connection did not ask for.
#[derive(Clone, Debug)]
pub struct Push {
    /// The topic, such as `notify/mailbox_activity`.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// Set if it is the reply to a request of somebody with the same login, who is gone.
    pub reply: Option<Box<Replied>>,
}

/// What MQTT wants to know of a request when its reply is sent.
#[derive(Clone, Debug)]
pub struct Replied {
    /// The quality of service of the request.
    pub qos: u8,
    /// What MQTT 5 wants back with the response.
    pub correlation_data: Option<Box<[u8]>>,
}

impl Push {
    /// A message on one of the server's own topics.
    pub const fn message(topic: Arc<str>, payload: Bytes) -> Self {
        Self { topic, payload, reply: None }
    }

    /// The bytes that it takes.
    fn bytes(&self) -> usize {
        let replied = self.reply.as_ref().and_then(|reply| reply.correlation_data.as_ref());
        self.topic.len() + self.payload.len() + replied.map_or(0, |data| data.len())
    }

    /// The bytes that it takes if it is a reply; messages are small.
    fn reply_bytes(&self) -> usize {
        if self.reply.is_some() { self.bytes() } else { 0 }
    }
}

/// What has come and gone on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes that came, in the clear.
    pub bytes_in: u64,
    /// Bytes that went, in the clear.
    pub bytes_out: u64,
    /// Messages that came: PUBLISH packets, or JSON values.
    pub messages_in: u64,
    /// Messages that went.
    pub messages_out: u64,
}

/// The same while it grows. Only the task of the connection writes it, so that an addition is an
/// ordinary one.
#[derive(Default, Debug)]
pub struct Counters {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, more: usize) {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(more as u64);
        counter.store(sum, Ordering::Relaxed);
    }

    /// So many bytes came.
    pub fn add_bytes_in(&self, bytes: usize) {
        Self::add(&self.bytes_in, bytes);
    }

    /// So many bytes went.
    pub fn add_bytes_out(&self, bytes: usize) {
        Self::add(&self.bytes_out, bytes);
    }

    /// A message came.
    pub fn add_message_in(&self) {
        Self::add(&self.messages_in, 1);
    }

    /// A message went.
    pub fn add_message_out(&self) {
        Self::add(&self.messages_out, 1);
    }

    /// How it stands.
    pub fn read(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            messages_in: read(&self.messages_in),
            messages_out: read(&self.messages_out),
        }
    }
}

/// What others put into a connection. Its task empties it.
#[derive(Debug)]
pub struct Outbox {
    waker: AtomicWaker,
    counters: Counters,
    /// Whether messages are taken.
    open: AtomicBool,
    /// Whether `inner` has something for the connection; spares it the lock.
    filled: AtomicBool,
    /// Whether the connection is gone.
    gone: AtomicBool,
    /// Bytes that wait for the connection, here and elsewhere.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default, Debug)]
struct Inner {
    pushes: VecDeque<Push>,
    /// Their bytes.
    bytes: usize,
    /// Those of the replies among them.
    replies: usize,
    close: Option<Reason>,
    questions: Vec<Question>,
}

impl Outbox {
    /// An empty one. `open`: whether it takes messages.
    pub fn new(open: bool) -> Self {
        Self {
            waker: AtomicWaker::new(),
            counters: Counters::default(),
            open: AtomicBool::new(open),
            filled: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            inner: Mutex::default(),
        }
    }

    /// What has come and gone.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many messages wait for the connection's task.
    pub fn messages_waiting(&self) -> usize {
        if self.is_filled() { self.inner.lock().pushes.len() } else { 0 }
    }

    /// Has the task woken when something comes.
    pub fn set_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether messages are taken.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Says whether messages are taken from now on.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// Closes the connection; its session has ended for this reason. What was put in before comes
    /// first.
    pub fn close(&self, reason: Reason) {
        self.inner.lock().close.get_or_insert(reason);
        self.wake();
    }

    /// Puts a message in; false when none are taken, or the client does not read them.
    pub fn push(&self, push: Push) -> bool {
        let mut inner = self.inner.lock();
        let many = inner.pushes.len() >= limits::OUTBOX_MESSAGES_MAX;
        let bytes = push.reply_bytes();
        let large = bytes > 0 && inner.replies + bytes > limits::OUTBOX_BYTES_MAX;
        if many || large || !self.is_open() {
            return false;
        }
        inner.replies += bytes;
        inner.bytes += push.bytes();
        self.waiting.fetch_add(push.bytes(), Ordering::Relaxed);
        inner.pushes.push_back(push);
        drop(inner);
        self.wake();
        true
    }

    /// Asks the connection what it knows of itself; false if it is gone, or too many have asked. Who
    /// drops the question has not answered.
    pub fn ask(&self, question: Question) -> bool {
        let mut inner = self.inner.lock();
        if self.is_gone() || inner.questions.len() >= limits::QUESTIONS_MAX {
            return false;
        }
        inner.questions.push(question);
        drop(inner);
        self.wake();
        true
    }

    /// Takes the questions that were asked, to be looked for when something has come.
    pub fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut self.inner.lock().questions)
    }

    /// Has the task look at what waits for its client elsewhere.
    pub fn wake_reader(&self) {
        self.waker.wake();
    }

    /// Bytes that wait for the connection: what was put in, and what [`Outbox::note_waiting`] told.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Notes that so many bytes wait for the client elsewhere, and no longer as many as before.
    pub fn note_waiting(&self, before: usize, now: usize) {
        self.waiting.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Has the task look at its session, whose rights have changed.
    pub fn note_rights(&self) {
        self.wake();
    }

    /// Whether something has come, or may have. Mostly there is nothing: a look costs less than
    /// [`Outbox::take`].
    #[inline]
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Takes what has come, if there is `room` for it, and the order to close behind it, which
    /// stays.
    pub fn take(&self, room: bool) -> (VecDeque<Push>, Option<Reason>) {
        let mut inner = self.inner.lock();
        let pushes = if room { std::mem::take(&mut inner.pushes) } else { VecDeque::new() };
        if room {
            inner.replies = 0;
            self.waiting.fetch_sub(std::mem::take(&mut inner.bytes), Ordering::Relaxed);
        }
        let more = !inner.pushes.is_empty() || inner.close.is_some() || !inner.questions.is_empty();
        self.filled.store(more, Ordering::Release);
        (pushes, inner.close)
    }

    /// Takes nothing more; returns what nobody will read.
    pub fn shut(&self) -> VecDeque<Push> {
        let mut inner = self.inner.lock();
        self.set_open(false);
        inner.questions.clear();
        std::mem::take(&mut inner.pushes)
    }

    /// Notes that the connection is gone, but for the end of its stream.
    pub fn note_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the connection is gone.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Push {
        Push::message("a".into(), "b".into())
    }

    #[test]
    fn who_does_not_read_gets_no_more_and_the_order_to_close_comes_last() {
        let outbox = Outbox::new(true);
        let put = (0..2 * limits::OUTBOX_MESSAGES_MAX).filter(|_| outbox.push(message())).count();
        assert_eq!(put, limits::OUTBOX_MESSAGES_MAX);
        outbox.close(Reason::Revoked);
        outbox.close(Reason::Idle);
        let (pushes, close) = outbox.take(false);
        assert_eq!((pushes.len(), close), (0, Some(Reason::Revoked)));
        let (pushes, close) = outbox.take(true);
        assert_eq!((pushes.len(), close), (limits::OUTBOX_MESSAGES_MAX, Some(Reason::Revoked)));
        assert!(outbox.push(message()), "what was read makes room");
        assert_eq!(outbox.shut().len(), 1);
        assert!(!outbox.push(message()));
    }

    #[test]
    fn replies_have_a_bound_of_bytes() {
        let outbox = Outbox::new(true);
        let reply = || Push {
            topic: "reply".into(),
            payload: vec![b' '; limits::OUTBOX_BYTES_MAX / 8 - 5].into(),
            reply: Some(Box::new(Replied {
                qos: 0,
                correlation_data: Some(vec![b' '; limits::OUTBOX_BYTES_MAX / 8].into()),
            })),
        };
        assert_eq!((0..10).filter(|_| outbox.push(reply())).count(), 4);
        assert!(outbox.push(message()), "messages are small");
        assert_eq!(outbox.take(true).0.len(), 5);
        assert!(outbox.push(reply()));
    }

    #[test]
    fn what_waits_here_and_elsewhere_is_counted() {
        let outbox = Outbox::new(true);
        outbox.push(message());
        outbox.note_waiting(0, 10);
        assert_eq!(outbox.waiting(), 12);
        outbox.take(true);
        outbox.note_waiting(10, 4);
        assert_eq!(outbox.waiting(), 4);
        outbox.note_waiting(4, 0);
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn messages_are_taken_only_where_they_are_wanted() {
        let outbox = Outbox::new(false);
        assert!(!outbox.push(message()));
        outbox.set_open(true);
        assert!(outbox.push(message()));
    }
}
