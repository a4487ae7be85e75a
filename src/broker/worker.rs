//! The broker's thread: it alone talks to the router, whose channel blocks, and it alone changes
//! filters, retained messages and the set of sessions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use base::{OrgId, topic};
use bytes::Bytes;
use futures_util::FutureExt;
use mqtt::packet::RetainHandling;
use parking_lot::Mutex;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet, PingReq};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::{mpsc, oneshot};

use super::filters::{Filters, Full, SessionKey, Slot};
use super::limits;
use super::message::Packed;
use super::retained::Retained;
use super::session::{Attached, Control, Session, State, Status, SubscribeOptions};
use super::{BrokerError, BrokerLimits, LinkName, Refusal, Subscription};

/// What the broker's thread is asked to do.
pub(super) enum Command {
    Publish {
        org: OrgId,
        packed: Packed,
    },
    Open {
        open: Open,
        reply: oneshot::Sender<Result<Opened, BrokerError>>,
    },
    Subscribe {
        session: SessionKey,
        wanted: Vec<Subscription>,
        reply: Reply<Refusals>,
    },
    Unsubscribe {
        session: SessionKey,
        filters: Vec<String>,
        reply: Reply<Vec<bool>>,
    },
    Forget {
        org: OrgId,
        name: LinkName,
    },
    Ended {
        session: SessionKey,
    },
    RouterGone {
        generation: u64,
    },
    #[cfg(test)]
    KillRouter,
}

type Reply<T> = oneshot::Sender<Result<T, BrokerError>>;

/// For each filter whether it is granted.
pub(super) type Refusals = Vec<Result<(), Refusal>>;

/// A connection's wish for a session.
pub(super) struct Open {
    pub org: OrgId,
    pub name: LinkName,
    pub clean: bool,
    pub attached: Attached,
}

/// The session that it got.
pub(super) struct Opened {
    pub session: SessionKey,
    pub epoch: u64,
    pub control: mpsc::Sender<Control>,
    pub present: bool,
}

/// The sessions that outlive their connections, for who must not wait for the thread.
pub(super) type Names = Arc<Mutex<HashSet<(OrgId, LinkName)>>>;

pub(super) struct Worker {
    limits: BrokerLimits,
    start: Instant,
    runtime: tokio::runtime::Handle,
    commands: mpsc::WeakSender<Command>,
    router: Running,
    filters: Filters,
    retained: Retained,
    retained_full: bool,
    sessions: HashMap<SessionKey, Entry>,
    sessions_opened: u64,
    epochs: u64,
    by_name: HashMap<(OrgId, LinkName), SessionKey>,
    names: Names,
    /// Names of links that are free again. The router keeps state for every name it ever saw.
    link_names: Vec<usize>,
    link_names_used: usize,
    slot_names: Vec<Bytes>,
    slots: Vec<Slot>,
}

struct Entry {
    org: OrgId,
    name: LinkName,
    link_name: usize,
    tx: LinkTx,
    control: mpsc::Sender<Control>,
    status: Arc<Status>,
    slots: HashMap<Box<str>, Slot>,
}

/// Builds a link of this name. The router's own handle has a type that can't be named.
type Build = Box<dyn Fn(&str) -> Result<(LinkTx, LinkRx), RouterDead> + Send>;

/// A router, and the link that publishes for everyone.
struct Running {
    generation: u64,
    build: Build,
    publisher: LinkTx,
    answers: LinkRx,
    /// Since the last fence.
    messages: usize,
    bytes: usize,
    fences: usize,
}

/// The router or a link to it is dead.
struct RouterDead;

impl From<LinkError> for RouterDead {
    fn from(_: LinkError) -> Self {
        Self
    }
}

impl Worker {
    /// A worker with a running router.
    pub(super) fn new(
        limits: BrokerLimits,
        start: Instant,
        commands: mpsc::WeakSender<Command>,
        names: Names,
    ) -> Self {
        let retained = Retained::new(limits::RETAINED_MESSAGES_MAX, limits::RETAINED_BYTES_MAX);
        Self {
            router: Running::start(&limits, 0),
            filters: Filters::new(limits.filters_max),
            limits,
            start,
            runtime: tokio::runtime::Handle::current(),
            commands,
            retained,
            retained_full: false,
            sessions: HashMap::new(),
            sessions_opened: 0,
            epochs: 0,
            by_name: HashMap::new(),
            names,
            link_names: Vec::new(),
            link_names_used: 0,
            slot_names: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Executes commands until nobody can give any.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            // Who asked may have gone; then nobody wants the reply.
            match command {
                Command::Publish { org, packed } => self.publish(org, packed),
                Command::Open { open, reply } => drop(reply.send(self.open(open))),
                Command::Subscribe { session, wanted, reply } => {
                    drop(reply.send(self.subscribe(session, wanted)));
                }
                Command::Unsubscribe { session, filters, reply } => {
                    drop(reply.send(self.unsubscribe(session, &filters)));
                }
                Command::Forget { org, name } => self.forget(org, name),
                Command::Ended { session } => self.ended(session),
                Command::RouterGone { generation } if generation == self.router.generation => {
                    self.restart();
                }
                Command::RouterGone { .. } => {}
                #[cfg(test)]
                Command::KillRouter => self.router.kill(),
            }
        }
    }

    fn publish(&mut self, org: OrgId, packed: Packed) {
        let Some(message) = packed.unpack(self.start) else {
            return;
        };
        let name = message.topic();
        if message.retain && message.payload.is_empty() {
            self.retained.forget(org, name);
        } else if message.retain {
            let now = Instant::now();
            let kept = self.retained.keep(org, name, packed.clone(), message.expires, now);
            if kept.is_err() && !self.retained_full {
                tracing::warn!("retained messages have filled their room; more are not retained");
            }
            self.retained_full = kept.is_err();
        }
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        let away = |session: SessionKey| {
            self.sessions.get(&session).is_none_or(|entry| {
                let status = &entry.status;
                status.away.load(Ordering::Relaxed) || status.busy.load(Ordering::Relaxed)
            })
        };
        self.filters.matching(org, name, away, &mut slots);
        for &Slot(slot) in &slots {
            while self.slot_names.len() <= slot {
                self.slot_names.push(slot_name(Slot(self.slot_names.len())).into());
            }
            let Some(topic) = self.slot_names.get(slot) else {
                continue;
            };
            if self.router.publish(topic, packed.bytes()).is_err() {
                self.restart();
            }
        }
        self.slots = slots;
    }

    fn open(&mut self, mut open: Open) -> Result<Opened, BrokerError> {
        let id = (open.org, open.name);
        self.epochs += 1;
        open.attached.epoch = self.epochs;
        if open.clean {
            self.forget(open.org, open.name);
        }
        let kept = self.by_name.get(&id).and_then(|key| Some((*key, self.sessions.get(key)?)));
        if let Some((session, entry)) = kept {
            let (control, epoch) = (entry.control.clone(), open.attached.epoch);
            match control.blocking_send(Control::Attach(open.attached)) {
                Ok(()) => {
                    return Ok(Opened { session, epoch, control, present: true });
                }
                // It ended just now and has not said so yet.
                Err(mpsc::error::SendError(Control::Attach(back))) => open.attached = back,
                Err(_) => return Err(BrokerError::Gone),
            }
        }
        let ending = self.sessions.len().saturating_sub(self.limits.links_max);
        if self.sessions.len() >= self.limits.links_max
            && (ending >= limits::ENDING_MAX || !self.evict())
        {
            return Err(BrokerError::Full);
        }
        self.open_new(open)
    }

    fn open_new(&mut self, open: Open) -> Result<Opened, BrokerError> {
        let (id, epoch) = ((open.org, open.name), open.attached.epoch);
        let link_name = self.link_names.pop().unwrap_or_else(|| {
            self.link_names_used += 1;
            self.link_names_used
        });
        let (tx, rx) = self.link(link_name);
        self.sessions_opened += 1;
        let session = SessionKey(self.sessions_opened);
        let (control, controls) = mpsc::channel(limits::CONTROLS_MAX);
        let status = Arc::<Status>::default();
        if !open.attached.keep.is_zero() {
            self.by_name.insert(id, session);
            self.names.lock().insert(id);
        }
        let task = Session {
            key: session,
            control: controls,
            commands: self.commands.clone(),
            status: status.clone(),
            link: Some(rx),
            generation: self.router.generation,
            state: State::new(open.attached, self.start),
        };
        self.runtime.spawn(task.run());
        let entry = Entry {
            org: open.org,
            name: open.name,
            link_name,
            tx,
            control: control.clone(),
            status,
            slots: HashMap::new(),
        };
        self.sessions.insert(session, entry);
        Ok(Opened { session, epoch, control, present: false })
    }

    fn subscribe(
        &mut self,
        session: SessionKey,
        wanted: Vec<Subscription>,
    ) -> Result<Refusals, BrokerError> {
        let mut dead = false;
        let mut looks = limits::RETAINED_LOOKS_MAX;
        let mut results = Vec::with_capacity(wanted.len());
        let share = limits::session_filters_max(self.limits.filters_max);
        let entry = self.sessions.get_mut(&session).ok_or(BrokerError::Gone)?;
        for subscription in wanted {
            let shared = topic::parse_shared(&subscription.filter);
            let known = entry.slots.get(subscription.filter.as_str()).copied();
            let slot = match known {
                Some(slot) => Ok(slot),
                None if entry.slots.len() >= share => Err(Full),
                None => self.filters.subscribe(entry.org, &subscription.filter, session),
            };
            let Ok(slot) = slot else {
                results.push(Err(Refusal::Quota));
                continue;
            };
            let brings = match subscription.retain_handling {
                RetainHandling::Always => shared.is_none(),
                RetainHandling::IfNew => shared.is_none() && known.is_none(),
                RetainHandling::Never => false,
            };
            let retained = if brings {
                self.retained.matching(entry.org, &subscription.filter, &mut looks, Instant::now())
            } else {
                Vec::new()
            };
            let options = SubscribeOptions {
                filter: shared.map_or(subscription.filter.as_str(), |s| s.filter).into(),
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                subscription_id: subscription.subscription_id,
            };
            // Before the router: the task must know the subscription and its retained messages
            // before the first live one.
            let subscribed = Control::Subscribed { slot, options, retained };
            if entry.control.blocking_send(subscribed).is_err() {
                tracing::debug!("a session ended while it subscribed");
            }
            if known.is_none() {
                entry.slots.insert(subscription.filter.into(), slot);
                dead |= entry.tx.subscribe(slot_name(slot)).is_err();
            }
            results.push(Ok(()));
        }
        if dead {
            self.restart();
        }
        Ok(results)
    }

    fn unsubscribe(
        &mut self,
        session: SessionKey,
        filters: &[String],
    ) -> Result<Vec<bool>, BrokerError> {
        let mut dead = false;
        let mut existed = Vec::with_capacity(filters.len());
        let entry = self.sessions.get_mut(&session).ok_or(BrokerError::Gone)?;
        for filter in filters {
            let slot = entry.slots.remove(filter.as_str());
            existed.push(slot.is_some());
            if let Some(slot) = slot {
                dead |= entry.tx.unsubscribe(slot_name(slot)).is_err();
                self.filters.unsubscribe(entry.org, filter, session);
                // A task that has ended needs to know nothing.
                let _ = entry.control.blocking_send(Control::Unsubscribed { slot });
            }
        }
        if dead {
            self.restart();
        }
        Ok(existed)
    }

    /// Ends the session that was kept under this name.
    fn forget(&mut self, org: OrgId, name: LinkName) {
        if let Some(&session) = self.by_name.get(&(org, name)) {
            self.end(session);
        }
    }

    /// Ends the oldest session that has no connection, for one that has; false if there is none.
    fn evict(&mut self) -> bool {
        let away = self.sessions.iter().filter(|(key, entry)| {
            let named = self.by_name.get(&(entry.org, entry.name)) == Some(*key);
            named && entry.status.away.load(Ordering::Relaxed)
        });
        let Some(oldest) = away.map(|(key, _)| *key).min() else {
            return false;
        };
        tracing::info!("too many sessions at the broker: ending the oldest without connection");
        self.end(oldest);
        true
    }

    /// Takes a session's name away and tells its task to end.
    fn end(&mut self, session: SessionKey) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        // The name first: who sees the session end finds it gone.
        let (id, control) = ((entry.org, entry.name), entry.control.clone());
        self.forget_name(id, session);
        // A task that has ended already has reported it or will.
        let _ = control.blocking_send(Control::End);
    }

    /// Nobody finds the session by its name any more.
    fn forget_name(&mut self, id: (OrgId, LinkName), session: SessionKey) {
        if self.by_name.get(&id) == Some(&session) {
            self.by_name.remove(&id);
            self.names.lock().remove(&id);
        }
    }

    /// Cleans up after a session's task, which says nothing more to the router.
    fn ended(&mut self, session: SessionKey) {
        let Some(mut entry) = self.sessions.remove(&session) else {
            return;
        };
        for filter in entry.slots.keys() {
            self.filters.unsubscribe(entry.org, filter, session);
        }
        self.forget_name((entry.org, entry.name), session);
        let end = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
        let sent = entry.tx.send(Packet::Disconnect(end, None)).now_or_never();
        self.link_names.push(entry.link_name);
        if !matches!(sent, Some(Ok(_))) {
            self.restart();
        }
    }

    /// A new link, from a new router if need be.
    fn link(&mut self, link_name: usize) -> (LinkTx, LinkRx) {
        loop {
            match (self.router.build)(&format!("l{link_name}")) {
                Ok(link) => return link,
                Err(_) => self.restart(),
            }
        }
    }

    /// Starts a new router and moves every session to it. What the old one had not forwarded yet
    /// is lost; retained messages and what sessions keep are not.
    fn restart(&mut self) {
        tracing::warn!("the message router stopped; starting it again");
        loop {
            self.router = Running::start(&self.limits, self.router.generation + 1);
            if self.relink().is_ok() {
                return;
            }
            pause();
        }
    }

    fn relink(&mut self) -> Result<(), RouterDead> {
        for entry in self.sessions.values_mut() {
            let (mut tx, rx) = (self.router.build)(&format!("l{}", entry.link_name))?;
            for &slot in entry.slots.values() {
                tx.subscribe(slot_name(slot))?;
            }
            entry.tx = tx;
            let relink = Control::Relink { rx, generation: self.router.generation };
            // A task that has ended needs no link.
            let _ = entry.control.blocking_send(relink);
        }
        Ok(())
    }
}

/// The broker's thread is not one of the runtime's; it has nothing else to do.
#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn pause() {
    std::thread::sleep(limits::RESTART_PAUSE);
}

impl Running {
    /// Starts a router; tries until one runs.
    fn start(limits: &BrokerLimits, generation: u64) -> Self {
        loop {
            match Self::try_start(limits, generation) {
                Ok(running) => return running,
                Err(RouterDead) => pause(),
            }
        }
    }

    fn try_start(limits: &BrokerLimits, generation: u64) -> Result<Self, RouterDead> {
        let config = RouterConfig {
            // One more for the link that publishes.
            max_connections: limits.links_max + limits::ENDING_MAX + 1,
            max_outgoing_packet_count: limits::FORWARDS_MAX,
            max_segment_size: limits::SEGMENT_BYTES,
            max_segment_count: limits::SEGMENTS_PER_SLOT,
            ..RouterConfig::default()
        };
        let events = Router::new(0, config).spawn();
        let build = move |name: &str| {
            let (tx, rx, _) = LinkBuilder::new(name, events.clone()).build()?;
            Ok((tx, rx))
        };
        let (publisher, answers) = build("publisher")?;
        let build = Box::new(build);
        Ok(Self { generation, build, publisher, answers, messages: 0, bytes: 0, fences: 0 })
    }

    fn publish(&mut self, topic: &Bytes, payload: &Bytes) -> Result<(), RouterDead> {
        self.publisher.publish(topic.clone(), payload.clone())?;
        self.messages += 1;
        self.bytes += payload.len();
        if self.messages >= limits::BATCH_MESSAGES || self.bytes >= limits::BATCH_BYTES {
            self.fence()?;
        }
        Ok(())
    }

    /// Asks the router to answer when it has taken what was published, and waits for the answer
    /// to the question before this one.
    fn fence(&mut self) -> Result<(), RouterDead> {
        (self.messages, self.bytes) = (0, 0);
        let sent = self.publisher.send(Packet::PingReq(PingReq)).now_or_never();
        sent.ok_or(RouterDead)??;
        self.fences += 1;
        let deadline = Instant::now() + limits::ROUTER_WAIT;
        while self.fences > 1 {
            if let Some(Notification::DeviceAck(_)) = self.answers.recv_deadline(deadline)? {
                self.fences -= 1;
            }
        }
        Ok(())
    }

    /// Makes the router panic, as a bug in it would: it is told that a link is ready that is gone.
    #[cfg(test)]
    fn kill(&mut self) {
        if let Ok((mut tx, rx)) = (self.build)("kill") {
            let end = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
            let _ = tx.send(Packet::Disconnect(end, None)).now_or_never();
            let _ = rx.ready();
        }
    }
}

/// What the router calls a slot, as a topic and as a filter.
fn slot_name(slot: Slot) -> String {
    format!("f{}", slot.0)
}

/// The slot of a topic of the router.
pub(super) fn slot_of(topic: &[u8]) -> Option<Slot> {
    let digits = std::str::from_utf8(topic.strip_prefix(b"f")?).ok()?;
    digits.parse().ok().map(Slot)
}
