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
    /// Those of `items` that were promised.
    kept: usize,
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
        let room = inner.promised + inner.kept < limits::OUTBOX_MESSAGES_MAX;
        inner.promised += usize::from(room);
        room
    }

    /// Puts in what was announced; there is room for it.
    ///
    /// # Errors
    ///
    /// The item itself, when the connection is gone.
    pub fn keep_promise(&self, item: Item) -> Result<(), Item> {
        let mut inner = self.inner.lock();
        inner.promised -= 1;
        if inner.shut {
            return Err(item);
        }
        inner.kept += 1;
        self.put(inner, item);
        Ok(())
    }

    /// Puts something in that nobody announced.
    ///
    /// # Errors
    ///
    /// The item itself, when the connection is gone or does not read.
    pub fn put_in(&self, item: Item) -> Result<(), Item> {
        let inner = self.inner.lock();
        if inner.shut || inner.items.len() - inner.kept >= limits::OUTBOX_MESSAGES_MAX {
            return Err(item);
        }
        self.put(inner, item);
        Ok(())
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, item: Item) {
        inner.items.push_back(item);
        drop(inner);
        self.wake();
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
        inner.kept = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promised_finds_room_and_what_was_not_takes_none_from_it() {
        let outbox = Outbox::default();
        let ack = || Item::Ack { qos: QoS::AtLeastOnce, pkid: 1, code: 0 };
        let message = || Item::Message(Pushed { topic: "a".into(), payload: "b".into() });
        while outbox.put_in(message()).is_ok() {}
        let mut promised = 0;
        while outbox.promise() {
            // Some are kept before the connection looks.
            if promised % 2 == 0 {
                outbox.keep_promise(ack()).expect("room");
            }
            promised += 1;
        }
        assert_eq!(promised, limits::OUTBOX_MESSAGES_MAX);
        let (items, _) = outbox.take().expect("filled");
        assert_eq!(items.len(), limits::OUTBOX_MESSAGES_MAX * 3 / 2);
        assert!(outbox.take().is_none() && outbox.put_in(message()).is_ok());
        for _ in 0..limits::OUTBOX_MESSAGES_MAX / 2 {
            assert!(outbox.promise());
            outbox.keep_promise(ack()).expect("room");
        }
        assert!(!outbox.promise());
        outbox.shut();
        assert!(outbox.keep_promise(ack()).is_err() && outbox.put_in(message()).is_err());
    }
}
