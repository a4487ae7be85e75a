//! What others put into a connection: replies that took time, notices, and the order to close.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::codec::QoS;
use super::compress;
use super::reply::Reply;
use crate::directory::{Outlet, Pushed, Reason};
use crate::limits;
use crate::tr50::error::{Code, Failure};

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

impl Item {
    /// The bytes that it takes if it is a reply; the others are small.
    fn reply_bytes(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.body.len(),
            Self::Message(_) | Self::Ack { .. } => 0,
        }
    }
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
    /// Bytes of the requests whose replies and acknowledgements are promised.
    requests: usize,
    /// Bytes of the replies in `items`.
    replies: usize,
    close: Option<Reason>,
    /// The connection is gone.
    shut: bool,
}

impl Outbox {
    /// Has the task woken when something comes.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Announces a reply or an acknowledgement that will take time, to a request of so many bytes.
    /// False when too many are announced already, or their requests are too large together: a
    /// client that sends faster than it is served must wait.
    pub fn promise(&self, request: usize) -> bool {
        let mut inner = self.inner.lock();
        let few = inner.promised + inner.kept < limits::OUTBOX_MESSAGES_MAX;
        let small = inner.requests + request <= limits::OUTBOX_BYTES_MAX;
        // One that is larger than that goes alone.
        let room = few && (small || inner.requests == 0);
        if room {
            inner.promised += 1;
            inner.requests += request;
        }
        room
    }

    /// Puts in what was announced with a request of so many bytes. There is room for it, unless it
    /// is a long reply to a client that does not read those before it: a failure takes its place.
    ///
    /// # Errors
    ///
    /// The item itself, when the connection is gone.
    pub fn keep_promise(&self, request: usize, mut item: Item) -> Result<(), Item> {
        let mut inner = self.inner.lock();
        inner.promised -= 1;
        inner.requests -= request;
        if inner.shut {
            return Err(item);
        }
        if let Item::Reply(reply) = &mut item
            && reply.body.len() > limits::OUTBOX_SHARE_BYTES
            && inner.replies + reply.body.len() > limits::OUTBOX_BYTES_MAX
        {
            let sentence = "Too many replies wait to be read; this one was dropped.";
            let failure = Failure::new(Code::REPLY_TOO_LARGE, sentence).to_json();
            reply.body = compress::deflate_if(reply.to.compressed, failure);
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
        let many = inner.items.len() - inner.kept >= limits::OUTBOX_MESSAGES_MAX;
        let bytes = item.reply_bytes();
        let large = bytes > 0 && inner.replies + bytes > limits::OUTBOX_BYTES_MAX;
        if inner.shut || many || large {
            return Err(item);
        }
        self.put(inner, item);
        Ok(())
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, item: Item) {
        inner.replies += item.reply_bytes();
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
        // Mostly there is nothing: a look costs less than an exchange.
        if !self.filled.load(Ordering::Acquire) || !self.filled.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut inner = self.inner.lock();
        let waits = |reason: &Reason| *reason == Reason::ServerStopped && inner.promised > 0;
        let close = inner.close.filter(|reason| !waits(reason));
        (inner.kept, inner.replies) = (0, 0);
        Some((std::mem::take(&mut inner.items), close))
    }

    /// Takes nothing more; returns the replies that nobody will read.
    pub fn shut(&self) -> VecDeque<Reply> {
        let mut inner = self.inner.lock();
        inner.shut = true;
        (inner.kept, inner.replies) = (0, 0);
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
    use crate::edge::mqtt::reply::ReplyTo;

    #[test]
    fn what_was_promised_finds_room_and_what_was_not_takes_none_from_it() {
        let outbox = Outbox::default();
        let ack = || Item::Ack { qos: QoS::AtLeastOnce, pkid: 1, code: 0 };
        let message = || Item::Message(Pushed { topic: "a".into(), payload: "b".into() });
        while outbox.put_in(message()).is_ok() {}
        let mut promised = 0;
        while outbox.promise(1) {
            // Some are kept before the connection looks.
            if promised % 2 == 0 {
                outbox.keep_promise(1, ack()).expect("room");
            }
            promised += 1;
        }
        assert_eq!(promised, limits::OUTBOX_MESSAGES_MAX);
        let (items, _) = outbox.take().expect("filled");
        assert_eq!(items.len(), limits::OUTBOX_MESSAGES_MAX * 3 / 2);
        assert!(outbox.take().is_none() && outbox.put_in(message()).is_ok());
        for _ in 0..limits::OUTBOX_MESSAGES_MAX / 2 {
            assert!(outbox.promise(1));
            outbox.keep_promise(1, ack()).expect("room");
        }
        assert!(!outbox.promise(1));
        outbox.shut();
        assert!(outbox.keep_promise(1, ack()).is_err() && outbox.put_in(message()).is_err());
    }

    #[test]
    fn requests_and_replies_have_a_bound_of_bytes() {
        const LONG: usize = limits::OUTBOX_BYTES_MAX / 4;
        let outbox = Outbox::default();
        let reply = |bytes| {
            let to = ReplyTo {
                compressed: false,
                suffix: "".into(),
                response_topic: None,
                correlation_data: None,
                qos: QoS::AtMostOnce,
            };
            Item::Reply(Reply { to, body: vec![b' '; bytes] })
        };
        let promised = (0..100).take_while(|_| outbox.promise(LONG)).count();
        assert_eq!(promised, 4);
        outbox.keep_promise(LONG, reply(LONG)).expect("there");
        assert!(outbox.promise(LONG), "what is answered makes room");
        for _ in 0..4 {
            outbox.keep_promise(LONG, reply(LONG)).expect("there");
        }
        assert!(outbox.promise(2 * limits::OUTBOX_BYTES_MAX), "it is alone");
        assert!(!outbox.promise(1));
        outbox.keep_promise(2 * limits::OUTBOX_BYTES_MAX, reply(1000)).expect("there");
        assert!(outbox.put_in(reply(1)).is_err());
        let lengths = || -> Vec<_> {
            let (items, _) = outbox.take().expect("filled");
            items.iter().map(Item::reply_bytes).collect()
        };
        let all = lengths();
        assert_eq!(all[..4], [LONG; 4]);
        assert!(all[4] < 200, "a failure in place of the fifth: {}", all[4]);
        assert_eq!(all[5..], [1000], "a short one is never refused");
        assert!(outbox.promise(1));
        outbox.keep_promise(1, reply(LONG)).expect("there");
        assert_eq!(lengths(), [LONG], "what was read makes room");
    }
}
