//! Replies of an MQTT client that are not ready yet.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::mqtt::QoS;

use store::Receipt;

use super::client::Done;
use super::compress;
use super::logged_in::AckReason;
use super::reply::ReplyTo;
use super::thing_command::Judged;
use crate::edge::pending::Work;
use crate::tr50::Pending;

/// A reply, or an acknowledgement, that takes time.
pub enum Promise {
    /// The reply to a request, and where it goes; none when it has gone.
    Reply(Option<ReplyTo>, Pending),
    /// The same, deflated on another thread; whether it only looks.
    Deflated(Work<Done>, bool),
    /// The acknowledgement of a command that was published to a topic.
    Command(QoS, u16, Box<Judged>),
    /// The acknowledgement of a message, for this reason, when it is stored.
    Stored(QoS, u16, AckReason, Receipt),
    /// The release of a message with QoS 2 that the client has.
    Taken(u16, Receipt),
    /// The completion of a message with QoS 2 that the client has released.
    Released(u16, Receipt),
}

impl Promise {
    /// The reply to a request.
    pub fn reply(to: ReplyTo, pending: Pending) -> Self {
        if !to.compressed {
            return Self::Reply(Some(to), pending);
        }
        let only_looks = pending.only_looks;
        let work = async move {
            let reply = pending.await.map(|text| compress::deflate_aside_if(true, text)).await;
            Done::Reply(to, reply)
        };
        Self::Deflated(Box::pin(work), only_looks)
    }

    /// The same for a reply that is there and has only to be deflated.
    pub fn deflated(to: ReplyTo, text: Vec<u8>) -> Self {
        let work = async move {
            let text = compress::deflate_aside_if(true, text).await;
            Done::Reply(to, crate::tr50::Reply::from_bytes(text))
        };
        Self::Deflated(Box::pin(work), true)
    }

    /// Whether the reply is all that comes of it.
    pub const fn only_looks(&self) -> bool {
        match self {
            Self::Reply(_, pending) => pending.only_looks,
            Self::Deflated(_, only_looks) => *only_looks,
            _ => false,
        }
    }
}

impl Future for Promise {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        match &mut *self {
            Self::Reply(to, pending) => {
                let Poll::Ready(reply) = Pin::new(pending).poll(cx) else { return Poll::Pending };
                match to.take() {
                    Some(to) => Poll::Ready(Done::Reply(to, reply)),
                    // It is not polled again when it is done.
                    None => Poll::Pending,
                }
            }
            Self::Deflated(work, _) => work.as_mut().poll(cx),
            Self::Stored(qos, pkid, reason, receipt) => {
                let (qos, pkid) = (*qos, *pkid);
                Pin::new(receipt).poll(cx).map(|stored| {
                    let reason = stored.is_ok().then(|| reason.clone());
                    Done::Stored { qos, pkid, reason }
                })
            }
            Self::Taken(pkid, receipt) => {
                let pkid = *pkid;
                // If it is not stored, the client learns of it once more after a restart.
                Pin::new(receipt).poll(cx).map(|_| Done::Taken { pkid })
            }
            Self::Released(pkid, receipt) => {
                let pkid = *pkid;
                Pin::new(receipt).poll(cx).map(|_| Done::Released { pkid })
            }
            Self::Command(qos, pkid, judged) => {
                let (qos, pkid) = (*qos, *pkid);
                Pin::new(judged).poll(cx).map(|outcome| outcome.into_done(qos, pkid))
            }
        }
    }
}
