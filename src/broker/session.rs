//! The task of a broker session: it takes what the router forwards to the session's connection, or
//! keeps it while there is none.
//!
//! The router is subscribed to with QoS 0; its own QoS 1 wants acknowledgements in order, and no
//! more than a hundred of one link outstanding. What waits for an acknowledgement, and what a
//! client that comes back has missed, is kept here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::topic;
use bytes::Bytes;
use mqtt::QoS;
use rumqttd::Notification;
use rumqttd::local::LinkRx;
use tokio::sync::mpsc;

use super::filters::{SessionKey, Slot};
use super::limits::{AWAY_BYTES_MAX, AWAY_MESSAGES_MAX, REPLAY_MAX, ROUTER_WAIT, UNACKED_MAX};
use super::message::{AckToken, Delivery, Packed};
use super::worker::Command;

/// Messages of the broker's thread and the session's connection to its task.
pub(super) enum Control {
    /// A connection takes the session over, from whichever had it.
    Attach(Attached),
    /// A connection leaves; nothing happens if another has taken over.
    Detach { epoch: u64, keep: Duration },
    /// A subscription, new or changed, with the retained messages that it brings.
    Subscribed { slot: Slot, options: SubscribeOptions, retained: Vec<Packed> },
    /// A subscription is gone.
    Unsubscribed { slot: Slot },
    /// A delivery is acknowledged.
    Ack(AckToken),
    /// A link to a router that was started anew.
    Relink { rx: LinkRx, generation: u64 },
    /// The session is over.
    End,
}

/// The connection of a session.
pub(super) struct Attached {
    /// Counts the connections of the broker.
    pub epoch: u64,
    /// The connection's number as a publisher, for No Local.
    pub publisher: u64,
    /// How long the session outlives the connection.
    pub keep: Duration,
    /// Where to deliver.
    pub deliveries: mpsc::Sender<Delivery>,
}

/// The options of a subscription.
#[derive(Clone, Debug)]
pub(super) struct SubscribeOptions {
    /// The filter; of a shared subscription the one behind the group.
    pub filter: Box<str>,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub subscription_id: Option<u32>,
}

/// What the broker's thread may see of a session's task.
#[derive(Default)]
pub(super) struct Status {
    /// No connection.
    pub away: AtomicBool,
    /// Has a message that its connection does not take at the moment.
    pub busy: AtomicBool,
}

/// The task of a session.
pub(super) struct Session {
    pub key: SessionKey,
    pub control: mpsc::Receiver<Control>,
    pub commands: mpsc::WeakSender<Command>,
    pub status: Arc<Status>,
    pub link: Option<LinkRx>,
    pub generation: u64,
    pub state: State,
}

/// What a session knows and keeps.
pub(super) struct State {
    attached: Option<Attached>,
    /// When to give up waiting for a connection; `None` with a connection, or never.
    until: Option<Instant>,
    subscriptions: HashMap<Slot, SubscribeOptions>,
    /// Retained messages that are to be sent, by subscription.
    replays: VecDeque<(Slot, VecDeque<Packed>)>,
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    unacked: VecDeque<Delivery>,
    tokens: u64,
    start: Instant,
}

/// What happened.
enum Event {
    Control(Option<Control>),
    ConnectionGone,
    Forward {
        slot: Bytes,
        payload: Bytes,
    },
    /// The router has filled its buffer for this link, all of which is taken now.
    RouterPaused,
    RouterGone,
    /// Nothing that changes the session; look again.
    Again,
    Expired,
}

impl Session {
    /// Runs until the session is over, and says so to the broker's thread.
    pub(super) async fn run(mut self) {
        loop {
            let over = match self.next_event().await {
                Event::Control(None | Some(Control::End)) | Event::Expired => true,
                Event::Control(Some(Control::Relink { rx, generation })) => {
                    (self.link, self.generation) = (Some(rx), generation);
                    false
                }
                Event::Control(Some(control)) => self.state.control(control),
                Event::ConnectionGone => self.state.detach(None),
                Event::Forward { slot, payload } => {
                    self.state.forwarded(&slot, payload);
                    false
                }
                Event::RouterPaused => {
                    self.wake_router().await;
                    false
                }
                Event::RouterGone => {
                    self.router_gone();
                    false
                }
                Event::Again => false,
            };
            if over {
                break;
            }
        }
        // From here on nobody may wait for this task.
        drop(self.control);
        drop(self.link);
        if let Some(commands) = self.commands.upgrade() {
            // Without a broker nobody listens.
            let _ = commands.send(Command::Ended { session: self.key }).await;
        }
    }

    /// Waits for whatever comes first; controls before deliveries before the router, so that what
    /// the broker's thread says before it publishes is known before the message comes.
    async fn next_event(&mut self) -> Event {
        self.state.refill();
        self.state.flush();
        let state = &mut self.state;
        let sendable = state.sendable();
        self.status.away.store(state.attached.is_none(), Ordering::Relaxed);
        self.status.busy.store(!state.waiting.is_empty(), Ordering::Relaxed);
        let reads = self.link.is_some() && state.wants_more();
        let deliveries = state.attached.as_ref().map(|attached| &attached.deliveries);
        let until = state.until.map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            control = self.control.recv() => Event::Control(control),
            // The permit goes back; the next round takes it without waiting.
            room = reserve(deliveries), if sendable => {
                if room { Event::Again } else { Event::ConnectionGone }
            }
            () = closed(deliveries) => Event::ConnectionGone,
            event = from_router(&mut self.link), if reads => event,
            () = until_or_never(until) => Event::Expired,
        }
    }

    /// The router waits until it is woken: exactly once for each pause, and never after the link's
    /// end, either of which would kill it.
    async fn wake_router(&mut self) {
        let woken = match &self.link {
            Some(link) => {
                let woken = tokio::time::timeout(ROUTER_WAIT, link.wake()).await;
                woken.is_ok_and(|sent| sent.is_ok())
            }
            None => true,
        };
        if !woken {
            self.router_gone();
        }
    }

    /// Reports the dead link, without waiting: the broker's thread may be waiting for this task.
    fn router_gone(&mut self) {
        self.link = None;
        let (commands, generation) = (self.commands.clone(), self.generation);
        tokio::spawn(async move {
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(Command::RouterGone { generation }).await;
            }
        });
    }
}

impl State {
    pub(super) fn new(attached: Attached, start: Instant) -> Self {
        Self {
            attached: Some(attached),
            until: None,
            subscriptions: HashMap::new(),
            replays: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            unacked: VecDeque::new(),
            tokens: 0,
            start,
        }
    }

    /// Applies a control; true if the session is over.
    fn control(&mut self, control: Control) -> bool {
        match control {
            Control::Attach(attached) => self.attach(attached),
            Control::Detach { epoch, keep } => {
                if self.attached.as_ref().is_some_and(|attached| attached.epoch == epoch) {
                    return self.detach(Some(keep));
                }
            }
            Control::Subscribed { slot, options, retained } => {
                self.subscriptions.insert(slot, options);
                self.replays.retain(|(replayed, _)| *replayed != slot);
                let queued: usize = self.replays.iter().map(|(_, replay)| replay.len()).sum();
                if !retained.is_empty() && queued < REPLAY_MAX {
                    self.replays.push_back((slot, retained.into()));
                }
            }
            Control::Unsubscribed { slot } => {
                self.subscriptions.remove(&slot);
                self.replays.retain(|(replayed, _)| *replayed != slot);
            }
            Control::Ack(token) => {
                let position = self.unacked.iter().position(|sent| sent.ack == Some(token));
                if let Some(position) = position {
                    self.unacked.remove(position);
                }
            }
            Control::Relink { .. } | Control::End => {}
        }
        false
    }

    /// What the earlier connection did not acknowledge is sent again, first and in order
    /// ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).
    fn attach(&mut self, attached: Attached) {
        self.attached = Some(attached);
        self.until = None;
        while let Some(mut delivery) = self.unacked.pop_back() {
            delivery.dup = true;
            delivery.ack = None;
            self.waiting_bytes += delivery.size();
            self.waiting.push_front(delivery);
        }
    }

    /// The connection is gone; true if the session goes with it.
    fn detach(&mut self, keep: Option<Duration>) -> bool {
        let Some(attached) = self.attached.take() else {
            return false;
        };
        // What was not to be kept stays so ([MQTT-3.14.2-2]).
        let keep = keep.filter(|_| !attached.keep.is_zero()).unwrap_or(attached.keep);
        self.until = Instant::now().checked_add(keep);
        self.waiting.retain(|delivery| delivery.qos != QoS::AtMostOnce);
        self.waiting_bytes = self.waiting.iter().map(Delivery::size).sum();
        keep.is_zero()
    }

    /// Takes in a message of the router.
    fn forwarded(&mut self, slot: &Bytes, payload: Bytes) {
        let Some(slot) = super::worker::slot_of(slot) else {
            return;
        };
        let Some(delivery) = self.delivery(slot, &Packed::from_router(payload), false) else {
            return;
        };
        // MQTT 4.1: nothing has to be kept with QoS 0.
        if self.attached.is_some() || delivery.qos != QoS::AtMostOnce {
            self.waiting_bytes += delivery.size();
            self.waiting.push_back(delivery);
        }
    }

    /// The message as this subscription gets it; `None` if it does not.
    fn delivery(&self, slot: Slot, packed: &Packed, replay: bool) -> Option<Delivery> {
        let options = self.subscriptions.get(&slot)?;
        let message = packed.unpack(self.start)?;
        // The slot may have been another filter's when the message was published.
        if !topic::matches(&options.filter, message.topic()) {
            return None;
        }
        let own = self.attached.as_ref().is_some_and(|to| to.publisher == message.publisher);
        if options.no_local && own {
            return None;
        }
        Some(Delivery {
            qos: message.qos.min(options.qos),
            retain: replay || (options.retain_as_published && message.retain),
            dup: false,
            subscription_id: options.subscription_id,
            ack: None,
            expires: message.expires,
            topic: message.topic,
            payload: message.payload,
            block: message.block,
        })
    }

    /// Moves the next retained message into an empty queue.
    fn refill(&mut self) {
        while self.waiting.is_empty() {
            let Some((slot, replay)) = self.replays.front_mut() else {
                return;
            };
            let slot = *slot;
            let Some(packed) = replay.pop_front() else {
                self.replays.pop_front();
                continue;
            };
            if let Some(delivery) = self.delivery(slot, &packed, true) {
                self.waiting_bytes += delivery.size();
                self.waiting.push_back(delivery);
            }
        }
    }

    /// Sends what the connection takes without waiting.
    fn flush(&mut self) {
        let now = Instant::now();
        while self.sendable() {
            let Some(attached) = &self.attached else {
                return;
            };
            let Ok(permit) = attached.deliveries.try_reserve() else {
                return;
            };
            let Some(mut delivery) = self.waiting.pop_front() else {
                return;
            };
            self.waiting_bytes -= delivery.size();
            if delivery.expired(now) {
                drop(permit);
            } else {
                if delivery.qos != QoS::AtMostOnce {
                    self.tokens += 1;
                    delivery.ack = Some(AckToken(self.tokens));
                    self.unacked.push_back(delivery.clone());
                }
                permit.send(delivery);
            }
            self.refill();
        }
    }

    /// Whether there is a connection and something that it may get now.
    fn sendable(&self) -> bool {
        let window = self.unacked.len() < UNACKED_MAX;
        let next = self.waiting.front();
        self.attached.is_some()
            && next.is_some_and(|delivery| window || delivery.qos == QoS::AtMostOnce)
    }

    /// Whether to read from the router: with a connection only what it takes, so that the rest
    /// stays in the router's bounded logs; without one as much as may be kept.
    fn wants_more(&self) -> bool {
        match self.attached {
            Some(_) => self.waiting.is_empty(),
            None => self.waiting.len() < AWAY_MESSAGES_MAX && self.waiting_bytes < AWAY_BYTES_MAX,
        }
    }
}

/// What the router says next; nothing without a link.
async fn from_router(link: &mut Option<LinkRx>) -> Event {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    match link.next().await {
        Ok(Some(Notification::Forward(forward))) => {
            Event::Forward { slot: forward.publish.topic, payload: forward.publish.payload }
        }
        Ok(Some(Notification::Unschedule)) => Event::RouterPaused,
        // Acknowledgements of subscriptions.
        Ok(_) => Event::Again,
        Err(_) => Event::RouterGone,
    }
}

/// Waits for room; false if the receiver is gone.
async fn reserve(deliveries: Option<&mpsc::Sender<Delivery>>) -> bool {
    match deliveries {
        Some(deliveries) => deliveries.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn closed(deliveries: Option<&mpsc::Sender<Delivery>>) {
    match deliveries {
        Some(deliveries) => deliveries.closed().await,
        None => std::future::pending().await,
    }
}

async fn until_or_never(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
