//! Wills: what a client wants published when its connection is lost (MQTT 3.1.2.5, 3.1.3.2 of 5).
//! A will on a topic of a thing is a command, executed with the rights of the session that left it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use ::mqtt::packet;
use ::mqtt::reason;
use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{OrgId, Timestamp, carried_on, limits, topic};
use parking_lot::Mutex;
use rules::directory::{End, PrincipalId, Session};
use tokio::task::AbortHandle;

use super::MqttServer;
use super::logged_in::{Destination, carry_out};
use super::thing_command::ThingCommand;
use crate::app::{Account, App, DelayedWills};
use crate::broker::{Message, Owner, Scope};

/// A will, and how long to wait with it.
pub(super) struct Will {
    last: Last,
    delay_s: u32,
    bytes: usize,
}

/// What is to happen.
#[derive(Clone)]
enum Last {
    Message(Arc<Message>),
    Command(ThingCommand),
}

impl Will {
    /// Reads the will of a CONNECT; none for one that nobody would get: a bridge's default one is on
    /// a topic of the server's own.
    ///
    /// # Errors
    ///
    /// The reason code to refuse the CONNECT with: the will's topic is not one to publish to.
    pub(super) fn read(will: &packet::Will<'_>) -> Result<Option<Self>, u8> {
        let delay_s = will.properties.delay.unwrap_or(0);
        let last = match Destination::of(will.topic) {
            Destination::Broker if topic::valid_topic(will.topic) => {
                let about = (will.qos, will.retain);
                let (properties, now) = (will.properties.as_publish(), Timestamp::default());
                let message = Message::new(will.topic, will.payload, about, &properties, now);
                Last::Message(Arc::new(message))
            }
            Destination::Thing(topic) => {
                let command = ThingCommand::read(topic, will.payload);
                Last::Command(command.ok_or(reason::PAYLOAD_FORMAT_INVALID)?)
            }
            Destination::Reserved if will.topic.starts_with('$') => return Ok(None),
            Destination::Broker | Destination::Dispatcher { .. } | Destination::Reserved => {
                return Err(reason::TOPIC_INVALID);
            }
        };
        let bytes = match &last {
            Last::Message(message) => message.len(),
            Last::Command(_) => will.topic.len() + will.payload.len(),
        };
        Ok(Some(Self { last, delay_s, bytes }))
    }

    /// The bytes of its topic, its properties and its message.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The wills of clients that are connected, and those that wait for their delay. They are here and
/// not with their connections because a client that comes back decides on what it left, which may
/// be still connected, ending or gone.
pub(super) struct Wills {
    inner: Mutex<Inner>,
    /// Whose wills wait.
    shares: Arc<Mutex<Shares<PrincipalId>>>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<Owner, Live>,
    waiting: BTreeMap<Owner, Waiting>,
}

/// The place of a will that waits; it is free again when this is dropped.
struct Place {
    shares: Arc<Mutex<Shares<PrincipalId>>>,
    org: OrgId,
    principal: PrincipalId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.lock().give_back(self.org, self.principal, 1);
    }
}

/// The will of a client that is connected.
struct Live {
    session: Arc<Session>,
    will: Box<Will>,
    /// Seconds for which the client's state outlives the connection.
    expiry_s: u32,
}

/// The will of a client that is gone.
struct Waiting {
    left: Left,
    task: AbortHandle,
}

/// A will whose time has come, or comes when it has waited.
#[derive(Clone)]
struct Left {
    org: OrgId,
    session: Arc<Session>,
    last: Last,
    /// Whether it was published, or dropped: of those who would, one does.
    done: Arc<AtomicBool>,
}

impl Live {
    fn left(self) -> Left {
        let done = Arc::default();
        Left { org: self.session.org_id(), session: self.session, last: self.will.last, done }
    }

    /// How long it waits after the connection's end: not longer than the client's state lives
    /// ([MQTT-3.1.3-9] of 5).
    fn delay(&self) -> Duration {
        Duration::from_secs(self.will.delay_s.min(self.expiry_s).into())
    }
}

impl Wills {
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::DelayedWills, limits::DELAYED_WILLS_MAX, pools);
        Self { inner: Mutex::default(), shares: Arc::new(Mutex::new(shares)) }
    }

    /// A place for a will to wait in; none if there is no room.
    fn place(&self, left: &Left) -> Option<Place> {
        let (org, principal) = (left.org, left.session.who().principal_id());
        self.shares.lock().take(org, principal, 1).ok()?;
        Some(Place { shares: self.shares.clone(), org, principal })
    }

    /// A client has logged in, maybe with a will. The one that it left is published if it would
    /// not have waited, or if the client begins anew: then what it was has ended. If it goes on
    /// where it was before its will's time, the will is dropped (MQTT 5, 3.1.2.5 and 3.1.3.2.2).
    pub(super) async fn arrive(
        &self,
        server: &MqttServer,
        owner: &Owner,
        session: &Arc<Session>,
        clean: bool,
        (will, expiry_s): (Option<Box<Will>>, u32),
    ) {
        let due = {
            let mut inner = self.inner.lock();
            if session.end().is_some() {
                // A newer connection has taken over already; what there is is its.
                return;
            }
            let (live, waiting) = (inner.live.remove(owner), inner.take_waiting(owner));
            if let Some(will) = will {
                let live = Live { session: session.clone(), will, expiry_s };
                inner.live.insert(owner.clone(), live);
            }
            let live = live.filter(|live| clean || live.delay().is_zero());
            let waiting = waiting.filter(|_| clean).map(|will| will.left);
            live.map(Live::left).into_iter().chain(waiting)
        };
        for left in due {
            left.publish(server).await;
        }
    }

    /// A connection ends, with `expiry_s` for its client's state. Its will, if nobody has dealt
    /// with it, is published after its delay, if it is `wanted`; before that when there is no room to
    /// keep it, or the memory is needed.
    pub(super) fn leave(
        &self,
        server: &Arc<MqttServer>,
        owner: &Owner,
        session: &Arc<Session>,
        (wanted, expiry_s): (bool, u32),
    ) {
        // Who was deleted leaves none: it would wait, and not be published then.
        let is_revoked = session.end().is_some_and(|end| end.reason.is_revocation());
        let scope = Scope::Login(owner.principal.clone());
        let wanted = wanted && !(is_revoked && server.app.is_gone(session, &scope));
        let mut inner = self.inner.lock();
        if inner.live.get(owner).is_none_or(|live| !Arc::ptr_eq(&live.session, session)) {
            return;
        }
        let Some(live) = inner.live.remove(owner).filter(|_| wanted) else { return };
        let live = Live { expiry_s, ..live };
        let (delay, bytes) = (live.delay(), live.will.bytes());
        let (server, left) = (server.clone(), live.left());
        let place = if delay.is_zero() { None } else { self.place(&left) };
        let Some(place) = place else {
            drop(inner);
            if let Last::Message(message) = left.last {
                // At once: the server may be stopping.
                publish_message(&server, left.org, &left.session, &message);
            } else {
                tokio::spawn(carried_on(async move { left.publish(&server).await }));
            }
            return;
        };
        let (later, name) = (left.clone(), owner.clone());
        let mut account = server.app.open_account(session, session.conn());
        account.set(bytes + limits::DELAYED_WILL_BYTES);
        let task = tokio::spawn(carried_on(async move {
            wait(delay, account).await;
            let done = later.done.clone();
            if !done.swap(true, Ordering::AcqRel) {
                later.publish(&server).await;
            }
            server.wills.inner.lock().forget(&name, &done);
            drop(place);
        }));
        let will = Waiting { left, task: task.abort_handle() };
        if let Some(former) = inner.waiting.insert(owner.clone(), will) {
            former.left.done.store(true, Ordering::Release);
            former.task.abort();
        }
    }
}

/// Waits for the time of a will, or until what it holds is needed for others.
async fn wait(delay: Duration, account: Account) {
    let mut due = pin!(tokio::time::sleep(delay));
    poll_fn(|cx| {
        account.set_waker(cx.waker());
        if account.is_over() { Poll::Ready(()) } else { due.as_mut().poll(cx) }
    })
    .await;
}

impl DelayedWills for Wills {
    fn drop_of_gone(&self, app: &App, scope: &Scope) {
        let is_in = |owner: &Owner, left: &Left| match scope {
            Scope::Login(principal) => owner.principal == *principal,
            Scope::Org(org) => left.org == *org,
            Scope::All => true,
        };
        let mut inner = self.inner.lock();
        let waiting = inner.waiting.iter().filter(|(owner, will)| is_in(owner, &will.left));
        let gone = waiting.filter(|(_, will)| app.is_gone(&will.left.session, scope));
        let gone: Vec<_> = gone.map(|(owner, _)| owner.clone()).collect();
        gone.iter().for_each(|owner| drop(inner.take_waiting(owner)));
    }
}

impl Inner {
    /// Removes a will that has waited, if no other has taken its place.
    fn forget(&mut self, owner: &Owner, done: &Arc<AtomicBool>) {
        if self.waiting.get(owner).is_some_and(|will| Arc::ptr_eq(&will.left.done, done)) {
            self.waiting.remove(owner);
        }
    }

    fn take_waiting(&mut self, owner: &Owner) -> Option<Waiting> {
        let will = self.waiting.remove(owner)?;
        // Its time may just have come: then it is being published.
        if will.left.done.swap(true, Ordering::AcqRel) {
            return None;
        }
        will.task.abort();
        Some(will)
    }
}

impl Left {
    async fn publish(self, server: &MqttServer) {
        match self.last {
            Last::Message(message) => {
                publish_message(server, self.org, &self.session, &message);
            }
            // Who was thrown out, or whose thing was deleted, has nothing more to say of things; and
            // while it waited, its rights may have gone.
            Last::Command(command) => {
                let may = || {
                    let revoked = |end: End| end.reason.is_revocation();
                    !self.session.end().is_some_and(revoked)
                        && server.app.has_access_of_then(&self.session).unwrap_or(false)
                };
                carry_out(server, self.session.clone(), command, may).await;
            }
        }
    }
}

/// Publishes the message of a will, unless its owner is gone or may not publish there now: then what
/// it left is gone, too.
fn publish_message(server: &MqttServer, org: OrgId, session: &Session, message: &Message) {
    let app = &server.app;
    if app.may_publish_now(session, message.topic()).unwrap_or(true) {
        let by = session.who().principal_id();
        app.broker.publish_detached(org, message.published_at(app.clock.now()), by);
    }
}
