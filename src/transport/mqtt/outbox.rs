//! What others put into a connection: replies that took time, notices, and the order to close.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::reply::Reply;
use crate::directory::{Outlet, Reason};
use crate::limits;

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
    replies: VecDeque<Reply>,
    /// Replies that somebody is working on.
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

    /// Announces a reply that will take time. False when too many are announced already: a client
    /// that sends faster than it is served must wait.
    pub fn promise(&self) -> bool {
        let mut inner = self.inner.lock();
        let room = inner.promised < limits::OUTBOX_MESSAGES_MAX;
        inner.promised += usize::from(room);
        room
    }

    /// Puts in the reply that was announced.
    ///
    /// # Errors
    ///
    /// The reply itself, when the connection is gone.
    pub fn keep_promise(&self, reply: Reply) -> Result<(), Reply> {
        let mut inner = self.inner.lock();
        inner.promised -= 1;
        self.put(inner, reply)
    }

    /// Puts a reply in.
    ///
    /// # Errors
    ///
    /// The reply itself, when the connection is gone or does not read.
    pub fn push(&self, reply: Reply) -> Result<(), Reply> {
        self.put(self.inner.lock(), reply)
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, reply: Reply) -> Result<(), Reply> {
        if inner.shut || inner.replies.len() >= 2 * limits::OUTBOX_MESSAGES_MAX {
            return Err(reply);
        }
        inner.replies.push_back(reply);
        drop(inner);
        self.wake();
        Ok(())
    }

    /// Takes what has come: replies, and the order to close after them. When the server stops, the
    /// replies that are promised come first.
    pub fn take(&self) -> Option<(VecDeque<Reply>, Option<Reason>)> {
        if !self.filled.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut inner = self.inner.lock();
        let waits = |reason: &Reason| *reason == Reason::ServerStopped && inner.promised > 0;
        let close = inner.close.filter(|reason| !waits(reason));
        Some((std::mem::take(&mut inner.replies), close))
    }

    /// Takes nothing more; returns what nobody will read.
    pub fn shut(&self) -> VecDeque<Reply> {
        let mut inner = self.inner.lock();
        inner.shut = true;
        std::mem::take(&mut inner.replies)
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
}
