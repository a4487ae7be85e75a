//! Replies of an MQTT client that are not ready yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::mqtt::QoS;
use base::limits;
use rules::directory::Session;
use store::Receipt;

use super::client::Done;
use super::logged_in::AckReason;
use super::reply::ReplyTo;
use super::thing_command::Judged;
use crate::app::{App, deflated};
use crate::edge::pending::Work;
use crate::tr50::{Pending, Reply};

/// A reply, or an acknowledgement, that takes time.
pub enum Promise {
    /// The reply to a request, and where it goes; none when it has gone.
    Reply(Option<ReplyTo>, Pending),
    /// The same, deflated; whether it only looks.
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
    pub const fn reply(to: ReplyTo, pending: Pending) -> Self {
        Self::Reply(Some(to), pending)
    }

    /// The same, deflated; `only_looks`: whether the reply is all that comes of it.
    pub fn deflated(
        to: ReplyTo,
        reply: impl Future<Output = Reply> + Send + 'static,
        only_looks: bool,
        app: Arc<App>,
        session: Arc<Session>,
    ) -> Self {
        let work = async move {
            let deflate = async |text: Vec<u8>| match text.len() {
                0..=limits::DEFLATE_AT_ONCE_BYTES => deflated(&text),
                _ => app.deflate(text, &session).await,
            };
            Done::Reply(to, reply.await.map(deflate).await)
        };
        Self::Deflated(Box::pin(work), only_looks)
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
