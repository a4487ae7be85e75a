//! Ordinary MQTT topics: an embedded rumqttd router, and what it needs around it.
//!
//! ```text
//!  publish ──► commands ──► the broker's thread ──► router ────► a session's task ──► deliveries
//!              (bounded)    filters, retained,      a log each   QoS, No Local,       (bounded)
//!                           sessions                filter       what waits
//! ```
//!
//! * Nobody sees a topic of another organisation: filters and retained messages are kept by
//!   organisation, and what a session gets is taken from the filters of its own.
//! * The router forwards, buffers and holds slow subscribers apart. It knows slots instead of
//!   filters (`filters.rs` says why), so nothing in it grows with topics, clients or time.
//! * A publish that was accepted goes to everyone who keeps up. A subscriber that falls behind the
//!   router's log for a filter loses its oldest messages, whatever the QoS, and nobody else does.
//! * If the router dies, a new one takes over; sessions, filters and retained messages stay, and
//!   what was under way in the router is lost.

mod filters;
mod limits;
mod message;
mod retained;
mod session;
mod worker;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

pub use message::{AckToken, Delivery, Message, Packed};

use base::{OrgId, topic};
use mqtt::QoS;
use mqtt::packet::RetainHandling;

use self::filters::SessionKey;
use self::session::{Attached, Control};
use self::worker::{Command, Names, Open, Worker};

/// How large the broker may get.
#[derive(Clone, Copy, Debug)]
pub struct BrokerLimits {
    /// Different filters subscribed to at once, in all organisations; each member of a shared
    /// subscription counts. A session gets a tenth of them (but ten), an organisation half, or
    /// nine tenths while no other has any. A filter's log holds 512 KiB, up to 4 MB of memory if
    /// its messages are tiny.
    pub filters_max: usize,
    /// Sessions with subscriptions at once, with or without connection. One costs about 40 kB, busy
    /// ones 110 kB.
    pub links_max: usize,
}

/// Why the broker did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Not a topic name, or one that begins with `$`.
    #[error("the topic can not be published to")]
    Topic,
    /// Too many sessions.
    #[error("the broker has no room for another session")]
    Full,
    /// The session is over: its name was taken by a clean start, or it expired.
    #[error("the session is over")]
    Gone,
    /// The broker has stopped.
    #[error("the broker has stopped")]
    Stopped,
}

/// Why a filter was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a filter, or one that begins with `$` and is not shared.
    #[error("the filter can not be subscribed to")]
    Filter,
    /// Too many different filters.
    #[error("the broker has no room for another filter")]
    Quota,
}

/// The name of a session that may outlive its connection: a principal and a client identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkName([u8; 32]);

impl LinkName {
    /// The name for a principal's client.
    pub fn new(principal: &str, client_id: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update((principal.len() as u64).to_be_bytes());
        digest.update(principal);
        digest.update(client_id);
        Self(digest.finalize().into())
    }
}

/// A wish for a subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The filter, inside the organisation.
    pub filter: String,
    /// The highest quality of service to deliver with.
    pub qos: QoS,
    /// Not what this connection published.
    pub no_local: bool,
    /// Keep the publisher's retain flag.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
    /// The identifier that goes with every delivery.
    pub subscription_id: Option<u32>,
}

/// A connection's wish for a session.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Forget what was kept under the name.
    pub clean: bool,
    /// How long the session outlives the connection; zero: not at all; `Duration::MAX`: for ever.
    pub keep: Duration,
    /// The connection's number, as in [`Message::publisher`].
    pub publisher: u64,
}

/// The broker. Clones are the same broker; it stops when the last clone and the last link are
/// gone.
#[derive(Clone)]
pub struct Broker {
    commands: mpsc::Sender<Command>,
    names: Names,
    start: Instant,
}

impl Broker {
    /// Starts the broker's thread and its router.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the system gives no thread.
    pub fn spawn(limits: BrokerLimits) -> Self {
        let (commands, queue) = mpsc::channel(limits::COMMANDS_MAX);
        let (names, start) = (Names::default(), Instant::now());
        let worker = Worker::new(limits, start, commands.downgrade(), names.clone());
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || worker.run(queue))
            .expect("the system has a thread for the broker");
        Self { commands, names, start }
    }

    /// Packs a message for [`Broker::publish`]. Its time of validity begins now.
    ///
    /// # Errors
    /// [`BrokerError::Topic`]
    pub fn pack(&self, message: &Message<'_>) -> Result<Packed, BrokerError> {
        if !topic::valid_topic(message.topic) || message.topic.starts_with('$') {
            return Err(BrokerError::Topic);
        }
        Packed::new(message, self.start, Instant::now()).ok_or(BrokerError::Topic)
    }

    /// Publishes to the subscribers of the organisation, and waits while the broker is busy. Done
    /// means accepted: the caller may acknowledge.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`]
    pub async fn publish(&self, org: OrgId, packed: Packed) -> Result<(), BrokerError> {
        let command = Command::Publish { org, packed };
        self.commands.send(command).await.map_err(|_| BrokerError::Stopped)
    }

    /// As [`Broker::publish`], without waiting.
    ///
    /// # Errors
    /// The packed message itself, if it would have to wait or the broker has stopped.
    pub fn try_publish(&self, org: OrgId, packed: Packed) -> Result<(), Packed> {
        let kept = packed.clone();
        self.commands.try_send(Command::Publish { org, packed }).map_err(|_| kept)
    }

    /// Whether a session is kept under this name, for the CONNACK.
    pub fn has_session(&self, org: OrgId, name: LinkName) -> bool {
        self.names.lock().contains(&(org, name))
    }

    /// Forgets the session that is kept under this name, if any: for a clean start that does not
    /// open a session.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`]
    pub async fn forget(&self, org: OrgId, name: LinkName) -> Result<(), BrokerError> {
        if !self.has_session(org, name) {
            return Ok(());
        }
        let command = Command::Forget { org, name };
        self.commands.send(command).await.map_err(|_| BrokerError::Stopped)
    }

    /// Opens a session that delivers to `deliveries`, or takes over the one that is kept under the
    /// name. A full channel holds up this session only; a channel that is closed is the end of the
    /// connection. When another connection takes the session over, the sender is dropped.
    ///
    /// # Errors
    /// [`BrokerError::Full`]: too many sessions. [`BrokerError::Stopped`].
    pub async fn open(
        &self,
        org: OrgId,
        name: LinkName,
        options: OpenOptions,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Result<Link, BrokerError> {
        let OpenOptions { clean, keep, publisher } = options;
        // The broker's thread counts the epochs.
        let attached = Attached { epoch: 0, publisher, keep, deliveries };
        let open = Open { org, name, clean, attached };
        let opened = ask(&self.commands, |reply| Command::Open { open, reply }).await??;
        Ok(Link {
            session_present: opened.present,
            session: opened.session,
            epoch: opened.epoch,
            control: opened.control,
            commands: self.commands.clone(),
        })
    }
}

/// A connection's hold on its session. The session learns from the end of the deliveries' receiver
/// that the connection is gone; [`Link::close`] is for a last word.
pub struct Link {
    /// Whether the session was there before, with its subscriptions.
    pub session_present: bool,
    session: SessionKey,
    epoch: u64,
    control: mpsc::Sender<Control>,
    commands: mpsc::Sender<Command>,
}

impl Link {
    /// Subscribes, or changes the terms of what is subscribed to; a result for each wish, in
    /// order. Retained messages follow through the deliveries.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], [`BrokerError::Stopped`].
    pub async fn subscribe(
        &self,
        wishes: Vec<Subscription>,
    ) -> Result<Vec<Result<(), Refusal>>, BrokerError> {
        let mut results: Vec<_> = wishes
            .iter()
            .map(|wish| if grantable(&wish.filter) { Ok(()) } else { Err(Refusal::Filter) })
            .collect();
        let wanted = wishes.into_iter().filter(|wish| grantable(&wish.filter)).collect();
        let session = self.session;
        let command = |reply| Command::Subscribe { session, wanted, reply };
        let mut granted = ask(&self.commands, command).await??.into_iter();
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = granted.next().unwrap_or(Err(Refusal::Quota));
        }
        Ok(results)
    }

    /// Unsubscribes; for each filter whether it was subscribed to, in order.
    ///
    /// # Errors
    /// [`BrokerError::Gone`], [`BrokerError::Stopped`].
    pub async fn unsubscribe(&self, filters: Vec<String>) -> Result<Vec<bool>, BrokerError> {
        let session = self.session;
        ask(&self.commands, |reply| Command::Unsubscribe { session, filters, reply }).await?
    }

    /// Acknowledges a delivery, in any order; an unknown token is ignored. Of a hundred deliveries
    /// without acknowledgement the next ones wait.
    pub fn ack(&self, token: AckToken) {
        let Err(mpsc::error::TrySendError::Full(control)) =
            self.control.try_send(Control::Ack(token))
        else {
            // Taken, or the session is over and waits for nothing.
            return;
        };
        let queue = self.control.clone();
        tokio::spawn(async move { queue.send(control).await });
    }

    /// Leaves the session, which is kept for `keep` from now on, whatever was said when it was
    /// opened. Does nothing if another connection has taken it over.
    pub async fn close(self, keep: Duration) {
        let _ = self.control.send(Control::Detach { epoch: self.epoch, keep }).await;
    }
}

fn grantable(filter: &str) -> bool {
    let inner = topic::parse_shared(filter).map_or(filter, |shared| shared.filter);
    topic::valid_filter(filter) && !inner.starts_with('$')
}

async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, BrokerError> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| BrokerError::Stopped)?;
    answer.await.map_err(|_| BrokerError::Stopped)
}
