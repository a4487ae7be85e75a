//! What others put into a connection: replies that took time, notices, and the order to close.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::codec::QoS;
use super::reply::Reply;
use crate::directory::{Outlet, Pushed, Reason};
use crate::limits;

/// What others put into a connection.
#[derive(Clone, Debug)]
pub enum Item {
    /// A reply.
    Reply(Reply),
    /// A message on one of the server's own topics.
    Message(Pushed),
    /// The acknowledgement of a PUBLISH that was to be stored first.
    Ack {
        /// Its quality of service.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// The reason code.
        code: u8,
    },
}

/// The way into a connection's task.
#[derive(Default)]
pub struct Outbox {
    waker: AtomicWaker,
    /// Whether `inner` has something for the connection; spares it the lock.
    filled: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Replies and acknowledgements that somebody is working on.
    promised: usize,
    close: Option<Reason>,
    /// The connection is gone.
    shut: bool,
}

impl Outbox {
    /// Has the task woken when something comes.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Announces a reply or an acknowledgement that will take time. False when too many are announced already: a client
    /// that sends faster than it is served must wait.
    pub fn promise(&self) -> bool {
        let mut inner = self.inner.lock();
        let room = inner.promised < limits::OUTBOX_MESSAGES_MAX;
        inner.promised += usize::from(room);
        room
    }

    /// Puts in what was announced.
    ///
    /// # Errors
    ///
    /// The item itself, when the connection is gone.
    pub fn keep_promise(&self, item: Item) -> Result<(), Item> {
        let mut inner = self.inner.lock();
        inner.promised -= 1;
        self.put(inner, item, 2 * limits::OUTBOX_MESSAGES_MAX)
    }

    /// Puts something in that nobody announced; room for what was announced is left.
    ///
    /// # Errors
    ///
    /// The item itself, when the connection is gone or does not read.
    pub fn put_in(&self, item: Item) -> Result<(), Item> {
        self.put(self.inner.lock(), item, limits::OUTBOX_MESSAGES_MAX)
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, item: Item, max: usize) -> Result<(), Item> {
        if inner.shut || inner.items.len() >= max {
            return Err(item);
        }
        inner.items.push_back(item);
        drop(inner);
        self.wake();
        Ok(())
    }

    /// The order to close a connection that has no room for what has come.
    pub fn closing(&self) -> Option<Reason> {
        self.filled.load(Ordering::Acquire).then(|| self.inner.lock().close).flatten()
    }

    /// Takes what has come, and the order to close after it. When the server stops, what is
    /// promised comes first.
    pub fn take(&self) -> Option<(VecDeque<Item>, Option<Reason>)> {
        if !self.filled.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut inner = self.inner.lock();
        let waits = |reason: &Reason| *reason == Reason::ServerStopped && inner.promised > 0;
        let close = inner.close.filter(|reason| !waits(reason));
        Some((std::mem::take(&mut inner.items), close))
    }

    /// Takes nothing more; returns the replies that nobody will read.
    pub fn shut(&self) -> VecDeque<Reply> {
        let mut inner = self.inner.lock();
        inner.shut = true;
        let reply = |item| match item {
            Item::Reply(reply) => Some(reply),
            Item::Message(_) | Item::Ack { .. } => None,
        };
        std::mem::take(&mut inner.items).into_iter().filter_map(reply).collect()
    }

    fn wake(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Outlet for Outbox {
    fn close(&self, reason: Reason) {
        self.inner.lock().close.get_or_insert(reason);
        self.wake();
    }

    fn push(&self, message: Pushed) {
        if self.put_in(Item::Message(message)).is_err() {
            tracing::debug!("a message for a slow or closing client was dropped");
        }
    }
}
