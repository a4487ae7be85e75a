//! Ordinary MQTT topics: a tree of subscriptions for each organisation, sessions that may outlive
//! their connections, and retained messages.
//!
//! ```text
//!  publish ──► tree of the organisation ──► sessions of subscribers ──► their connections
//!                                             │ kept ones
//!                                             ▼
//!                                           store ──► receipt: then the publisher is acknowledged
//! ```
//!
//! * A publish is matched, and handed to the subscribers, on the publisher's thread. Who is
//!   connected gets it before the store has it, but for QoS 2 to a session that outlives its
//!   connection: its packet id has to be durable before it is used.
//! * A message with QoS 1 or 2 for a session that outlives its connection is a row of the store until
//!   the client has acknowledged it. So is what is retained. Both are acknowledged to the publisher
//!   when they are as durable as `server.durability` says.
//! * Nobody sees a topic of another organisation: trees, sessions and retained messages are kept by
//!   organisation.
//! * A client that does not keep up loses messages that were not to be kept, and delays nobody.

mod kept;
mod limits;
mod message;
/// Says that a change of a session was not stored for which nobody waits.
fn log(submitted: Result<Receipt, StoreError>) {
    if let Err(error) = submitted {
        store::report(&error, "a change of an MQTT session was not stored");
    }
}

#[cfg(test)]
mod model;
mod publishing;
mod retained;
mod rows;
mod session;
mod shares;
#[cfg(test)]
mod tests;
mod tree;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::pool::OverShare;
use base::{OrgId, Timestamp, carried_on, limits as bounds, topic};
use dashmap::DashMap;
use mqtt::QoS;
use parking_lot::{Mutex, RwLock};
use rules::directory::details::Stored;
use rules::directory::{Outbox, Principal, PrincipalId};
use rules::identity::Access;
use store::{Batch, Receipt, StoreError, Table, Tables, rows::decode, rows::encode};

pub use message::{Delivery, Message, SubscriptionIds, packet_id};
pub use publishing::{FanOut, Published, Publisher, Publishing};
pub use retained::Unretained;
pub use session::{Identity, Owner, Place, Queued, Session, Subscription, Taken};
pub use tree::Shared;
pub use waiting::KeptState;

use kept::KeptSessions;
use retained::Retained;
use rows::SessionRow;
use session::{FoundRows, Kept};
use shares::{BrokerShares, Disk, Found, places};
use tree::Tree;

/// How large the broker may get; each is shared by all (`docs/limits.md`).
#[derive(Clone, Copy, Debug)]
pub struct BrokerConfig {
    /// Different filters subscribed to at once, in all organisations; each member of a shared
    /// subscription counts.
    pub filters_max: usize,
    /// Sessions with subscriptions at once, with or without connection.
    pub sessions_max: usize,
    /// Their subscriptions.
    pub subscriptions_max: u64,
    /// Bytes that wait in sessions that outlive their connections.
    pub waiting_bytes_max: u64,
    /// Retained messages.
    pub retained_max: u64,
    /// Their bytes.
    pub retained_bytes_max: u64,
}

/// Why a filter was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a filter, or one that begins with `$` and is not shared.
    #[error("the filter can not be subscribed to")]
    Filter,
    /// There is no room for it, or for the session.
    #[error("{0}")]
    Over(OverShare),
    /// The login has as many sessions as it may that outlive their connections.
    #[error(
        "your login has {} kept sessions, and no more are kept",
        limits::LOGIN_KEPT_SESSIONS_MAX
    )]
    KeptSessions,
    /// The filter has as many shared subscriptions as it may.
    #[error("the filter has {} shared subscriptions, and no more are made", limits::GROUPS_MAX)]
    Groups,
    /// The session is over: another connection took its name with a clean start, or its owner is
    /// gone.
    #[error("the session is over")]
    Gone,
}

/// How a connection has a session: another one that takes it has the next number.
#[derive(Clone, Debug)]
pub struct Link {
    /// The session.
    pub session: Arc<Session>,
    /// The number.
    pub epoch: u64,
}

/// Bytes of the release of a message with QoS 2 in the store.
pub const RELEASE_BYTES: usize = 1;

/// Bytes of retained messages that are read at once for the filters of one SUBSCRIBE: most have one, or
/// none. The rest is read as those under wildcards are, while others have their turns.
pub const RETAINED_AT_ONCE_BYTES: usize = 64 * 1024;

/// Topics on which only the server publishes, and which clients may subscribe to.
const OWN_TOPICS: &str = "$events/";

/// Whether a connection is still the one of its client: asked for when all others are kept from
/// taking its session up.
pub type IsCurrent<'a> = &'a dyn Fn() -> bool;

/// What is counted since the start.
#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
}

/// How much the broker has, and what it did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Sessions that outlive their connections.
    pub kept_sessions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages that a subscriber lost because it did not keep up, since the start.
    pub dropped: u64,
}

/// The broker. Clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    tables: Tables,
    orgs: DashMap<OrgId, Arc<Org>>,
    shares: Arc<BrokerShares>,
    kept: Mutex<KeptSessions>,
    erasing: Mutex<Erasing>,
    retained: Retained,
    numbers: AtomicU64,
    epochs: AtomicU64,
    counts: Counts,
}

/// Sessions that are over, whose rows are still there.
#[derive(Default)]
struct Erasing {
    numbers: VecDeque<u64>,
    /// Whether there is a task that removes them.
    goes_on: bool,
}

/// What an organisation has.
#[derive(Default)]
struct Org {
    tree: RwLock<Tree>,
    /// Held from the numbering of messages that are kept to their place in the writer's queue: who
    /// reads them back misses none.
    order: Mutex<()>,
}

/// Retained messages that a subscription brings, or the rest of them.
pub struct Replay {
    filter: Box<str>,
    subscription: Subscription,
    after: Option<Vec<u8>>,
}

impl Replay {
    /// The client's filter.
    pub fn filter(&self) -> &str {
        &self.subscription.filter
    }
}

impl Broker {
    /// The broker of a store, with the sessions that are kept there.
    ///
    /// # Errors
    /// The store failed.
    pub fn open(
        tables: Tables,
        config: &BrokerConfig,
        disk: &Arc<Disk>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let inner = Inner {
            retained: Retained::new(tables.clone(), config, disk),
            tables,
            orgs: DashMap::new(),
            shares: Arc::new(BrokerShares::new(config, disk)),
            kept: Mutex::default(),
            erasing: Mutex::default(),
            numbers: AtomicU64::new(1),
            epochs: AtomicU64::new(1),
            counts: Counts::default(),
        };
        let broker = Self(Arc::new(inner));
        broker.restore(now)?;
        Ok(broker)
    }

    /// Takes up the sessions of the store. What waits in them is read when it is needed.
    fn restore(&self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.0.tables.store();
        let mut received: HashMap<u64, Vec<u16>> = HashMap::new();
        store::rows::for_each_row(store, Table::MqttReceived, |(key, _)| {
            if let Some((number, pkid)) = rows::received(key) {
                received.entry(number).or_default().push(pkid);
            }
            Ok(())
        })?;
        let (mut last, mut found) = (0, Found::default());
        store::rows::for_each_row(store, Table::MqttSessions, |(key, value)| {
            let number = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            last = last.max(number);
            let row: SessionRow = decode(Table::MqttSessions, key, value)?;
            let mut kept = Kept::restored(
                row.identity,
                row.expiry_s,
                row.away.map_or(now, Timestamp::from_millis),
            );
            kept.received = received.remove(&number).unwrap_or_default();
            let whose = (row.org, row.owner());
            let session = Session::new(number, whose, row.identity, Some(kept), &self.0.shares);
            let session = Arc::new(session);
            if row.narrowed {
                session.note_narrowed();
            }
            if row.ended {
                self.erase_later(number);
                session.end(&mut session.lock());
                return Ok(());
            }
            let subscribed = row.subscriptions.iter().map(|held| places(&held.filter)).sum();
            found.session(session.holder(), subscribed);
            let org = self.org(row.org);
            let mut tree = org.tree.write();
            for subscription in row.subscriptions {
                if let Some(filter) = subscription.in_tree() {
                    // There was room when it was granted.
                    let _ = tree.insert(filter, &session, subscription.options(), &mut found);
                }
                let mut inner = session.lock();
                let subscriptions = inner.subscriptions_mut();
                subscriptions.reserve_exact(usize::from(subscriptions.is_empty()));
                subscriptions.push(subscription);
            }
            drop(tree);
            let mut sessions = self.0.kept.lock();
            sessions.restore(session.clone());
            sessions.left(&session);
            Ok(())
        })?;
        found.note(&self.0.shares);
        self.0.numbers.store(last + 1, Ordering::Relaxed);
        self.clear_behind(last)?;
        tracing::info!(sessions = self.0.kept.lock().len(), "MQTT sessions recovered");
        Ok(())
    }

    /// Removes the messages of sessions behind the last one: a crash came before they were stored, and
    /// their numbers are used again.
    fn clear_behind(&self, last: u64) -> Result<(), StoreError> {
        let tables = &self.0.tables;
        let mut from = (last + 1).to_be_bytes().to_vec();
        loop {
            let start = std::ops::Bound::Excluded(&*from);
            let rows = tables.scan(Table::MqttMessages, start, std::ops::Bound::Unbounded, 1000)?;
            let Some((key, _)) = rows.last() else { return Ok(()) };
            from.clone_from(key);
            let mut batch = Batch::default();
            rows.into_iter().for_each(|(key, _)| batch.delete(Table::MqttMessages, key));
            drop(tables.submit(batch)?);
        }
    }

    /// Counts the retained messages of the store, and what waits in sessions; until that is done,
    /// there may be more of them than is allowed. Reads all of them.
    ///
    /// # Errors
    /// The store failed.
    pub fn count_stored(&self) -> Result<(), StoreError> {
        self.0.retained.count()?;
        let sessions = self.0.kept.lock().all();
        let sessions: HashMap<u64, Arc<Session>> =
            sessions.into_iter().map(|session| (session.number(), session)).collect();
        let learn = |number, found: &FoundRows| {
            if let Some(session) = sessions.get(&number) {
                session.learn_rows(found);
            }
        };
        let mut current: Option<(u64, FoundRows)> = None;
        rows::for_each_page(&self.0.tables, Table::MqttMessages, |page| {
            for (key, value) in page {
                let number = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                if let Some((before, found)) = current.take_if(|(before, _)| *before != number) {
                    learn(before, &found);
                }
                current.get_or_insert_with(|| (number, FoundRows::default())).1.add(key, value);
            }
        })?;
        if let Some((number, found)) = current {
            learn(number, &found);
        }
        Ok(())
    }

    /// How much there is.
    pub fn load(&self) -> Load {
        Load {
            kept_sessions: self.0.kept.lock().len(),
            retained: self.0.retained.messages(),
            dropped: self.0.counts.dropped.load(Ordering::Relaxed),
        }
    }

    fn org(&self, org: OrgId) -> Arc<Org> {
        if let Some(found) = self.0.orgs.get(&org) {
            return found.clone();
        }
        self.0.orgs.entry(org).or_default().clone()
    }

    // Sessions.

    /// Takes up the session that an owner has left in an organisation; none if there is none. One in
    /// another organisation ends.
    pub fn resume(
        &self,
        owner: &Owner,
        (org, identity): (OrgId, Identity),
        expiry_s: u32,
        (outbox, is_current): (&Arc<Outbox>, IsCurrent<'_>),
        now: Timestamp,
    ) -> Option<Link> {
        let mut sessions = self.0.kept.lock();
        if !is_current() {
            return None;
        }
        let session = sessions.get(owner)?.clone();
        let same = session.org() == org
            && session.lock().kept.as_ref().is_some_and(|kept| {
                kept.identity.thing == identity.thing && kept.until().is_none_or(|end| now < end)
            });
        if !same {
            sessions.remove(&session);
            drop(sessions);
            self.end(&session);
            return None;
        }
        sessions.came(&session);
        let epoch = self.0.epochs.fetch_add(1, Ordering::Relaxed);
        let unsent = session.attach(outbox.clone(), epoch);
        if let Some(kept) = &mut session.lock().kept {
            kept.identity = identity;
            kept.expiry_s = expiry_s;
        }
        drop(sessions);
        drop(unsent);
        if let Err(error) = session.look_now(&self.0.tables) {
            store::report(&error, "what waits for an MQTT client could not be read");
        }
        // Without it, its time would be counted from when the client left last, after a crash.
        self.store_or_log(&session);
        Some(Link { session, epoch })
    }

    /// A new session of a client that is connected, to outlive the connection by `expiry_s` if that
    /// is not 0.
    ///
    /// # Errors
    /// There is no room, or another connection has taken over.
    pub fn begin(
        &self,
        owner: &Owner,
        (org, identity): (OrgId, Identity),
        expiry_s: u32,
        (outbox, is_current): (&Arc<Outbox>, IsCurrent<'_>),
    ) -> Result<Link, Refusal> {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let kept = (expiry_s > 0).then(|| Kept::new(identity, expiry_s));
        let whose = (org, owner.clone());
        let session = Arc::new(Session::new(number, whose, identity, kept, &self.0.shares));
        let (org, who) = session.holder();
        self.0.shares.sessions.lock().take(org, who, 1).map_err(Refusal::Over)?;
        if session.is_kept() {
            let entered = self.enter(&session, is_current);
            entered.inspect_err(|_| self.0.shares.sessions.lock().give_back(org, who, 1))?;
        }
        let epoch = self.0.epochs.fetch_add(1, Ordering::Relaxed);
        // Nothing waits: it is new.
        drop(session.attach(outbox.clone(), epoch));
        Ok(Link { session, epoch })
    }

    /// Puts a session among those that are kept, in the place of the one that its owner has.
    fn enter(&self, session: &Arc<Session>, is_current: IsCurrent<'_>) -> Result<(), Refusal> {
        let mut sessions = self.0.kept.lock();
        if !is_current() {
            return Err(Refusal::Gone);
        }
        let former = sessions.get(session.owner()).cloned();
        if let Some(former) = &former {
            sessions.remove(former);
        }
        let entered = sessions.insert(session.clone());
        drop(sessions);
        if let Some(former) = former {
            self.end(&former);
        }
        entered.map_err(|_| Refusal::KeptSessions)
    }

    /// Whether a connection still has its session.
    pub fn has(&self, link: &Link) -> bool {
        link.session.is_of(link.epoch)
    }

    /// Ends the session that is kept for an owner, if any: for a clean start.
    pub fn forget(&self, owner: &Owner, is_current: IsCurrent<'_>) {
        let mut sessions = self.0.kept.lock();
        if !is_current() {
            return;
        }
        let Some(session) = sessions.get(owner).cloned() else { return };
        sessions.remove(&session);
        drop(sessions);
        self.end(&session);
    }

    /// The connection leaves, and the session outlives it by `expiry_s`; does nothing if another
    /// connection has it. `unacknowledged`: messages of shared subscriptions that were sent.
    pub fn leave(&self, link: Link, expiry_s: u32, unacknowledged: Vec<Delivery>, now: Timestamp) {
        let Link { session, epoch } = link;
        // Who takes the session up waits until all know that it was left.
        let mut sessions = self.0.kept.lock();
        let Some((queue, stays)) = session.detach(epoch, expiry_s, now) else { return };
        if stays {
            sessions.left(&session);
        } else {
            sessions.remove(&session);
        }
        drop(sessions);
        let unsent = queue.into_iter().filter_map(|queued| match queued {
            Queued::Delivery(delivery) => Some(delivery),
            Queued::Release(_) => None,
        });
        let shared: Vec<Delivery> =
            unacknowledged.into_iter().chain(unsent).filter(|d| d.shared.is_some()).collect();
        if !stays {
            self.end(&session);
        }
        let is_short = shared.len() <= limits::FAN_OUT_STEP;
        if stays && !is_short {
            // The server may stop before the end.
            self.store_or_log(&session);
        }
        let (broker, mut shared) = (self.clone(), shared.into_iter().peekable());
        let mut pass_on_some = move || {
            for delivery in shared.by_ref().take(limits::FAN_OUT_STEP) {
                broker.pass_on(&session, epoch, delivery);
            }
            let goes_on = shared.peek().is_some() && !session.is_taken_up(epoch);
            if stays && !goes_on {
                broker.store_or_log(&session);
            }
            goes_on
        };
        if is_short {
            pass_on_some();
            return;
        }
        tokio::spawn(carried_on(async move {
            while pass_on_some() {
                tokio::task::yield_now().await;
            }
        }));
    }

    /// Gives a message of a shared subscription to another member of the group, if one is there
    /// (MQTT 5, 4.8.2). `epoch`: of the connection that has left it.
    fn pass_on(&self, session: &Session, epoch: u64, mut delivery: Delivery) {
        let Some(shared) = delivery.shared.take() else { return };
        let org = self.org(session.org());
        let other = org.tree.read().other_member(&shared, session.number());
        let Some(other) = other.filter(|other| other.session.is_connected()) else { return };
        let (seq, bytes) = (delivery.seq, delivery.row_len());
        let to = Delivery {
            qos: delivery.message.qos.min(other.qos),
            ..other.delivery(&delivery.message)
        };
        let order = org.order.lock();
        if session.is_taken_up(epoch) {
            // Its client is back, and gets the message itself: what waits is read in this order, too.
            return;
        }
        let mut batch = Batch::default();
        let mut row = Vec::new();
        delivery.message.put_row(&mut row);
        let kept = to.qos != QoS::AtMostOnce;
        let passed = match kept {
            true => other.session.keep(&self.0.tables, to, &row, &mut batch),
            false => Ok(other.session.offer(to)),
        };
        if matches!(passed, Ok(session::Offered::Taken { .. }))
            && delivery.qos != QoS::AtMostOnce
            && session.passed_on(bytes)
        {
            batch.delete(Table::MqttMessages, rows::message_key(session.number(), seq));
        }
        // It has its number already.
        log(self.0.tables.submit_admitted(batch));
        drop(order);
    }

    /// All sessions that outlive their connections.
    pub fn all_kept(&self) -> Vec<Arc<Session>> {
        self.0.kept.lock().all()
    }

    /// Those of a login.
    pub fn kept_sessions_of(&self, principal: &Principal) -> Vec<Arc<Session>> {
        self.0.kept.lock().of(principal)
    }

    /// At most so many of those in an organisation, by number from behind one on: 0 is before all.
    pub fn kept_in(&self, org: OrgId, after: u64, max: usize) -> Vec<Arc<Session>> {
        self.0.kept.lock().page(org, after, max)
    }

    /// Has sessions that outlive their connections follow the rights that `access_of` says: without
    /// any they end. How many ended.
    pub fn sweep(
        &self,
        sessions: Vec<Arc<Session>>,
        access_of: impl Fn(&Owner, OrgId, Identity) -> Option<Arc<Access>>,
    ) -> usize {
        let mut ended = 0;
        for session in sessions {
            let Some(identity) = session.lock().kept.as_ref().map(|kept| kept.identity) else {
                continue;
            };
            match access_of(session.owner(), session.org(), identity) {
                Some(access) => {
                    if !self.narrow(&session, &access).is_empty() {
                        self.store_or_log(&session);
                    }
                }
                None => {
                    self.0.kept.lock().remove(&session);
                    self.end(&session);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Takes the subscriptions from a session that its owner may no longer hold; their filters. What
    /// waits for them is not delivered any more.
    pub fn narrow(&self, session: &Arc<Session>, access: &Access) -> Vec<Box<str>> {
        let own = session.owner().principal.own_key();
        let lost = |held: &&Subscription| {
            held.ordinary().is_some_and(|filter| !access.topic_subscribe.covers(filter, own))
        };
        let lost: Vec<Box<str>> = session.with_subscriptions(|held| {
            held.iter().filter(lost).map(|held| held.filter.clone()).collect()
        });
        if !lost.is_empty() {
            session.note_narrowed();
        }
        for filter in &lost {
            self.unsubscribe(session, filter);
        }
        lost
    }

    /// Forgets the retained messages of an organisation that is gone. Reads the disk.
    ///
    /// # Errors
    /// The store failed.
    pub fn forget_retained(&self, org: OrgId) -> Result<(), StoreError> {
        self.forget_committed(org)?;
        // What came last is not committed yet.
        if self.0.retained.has_some(org)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let broker = self.clone();
            runtime.spawn(async move {
                let committed = broker.barrier().await;
                let forget = move || committed.and_then(|()| broker.forget_committed(org));
                if let Ok(Err(error)) = tokio::task::spawn_blocking(forget).await {
                    store::report(&error, "retained messages were not forgotten");
                }
            });
        }
        Ok(())
    }

    fn forget_committed(&self, org: OrgId) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            after = self.0.retained.forget(org, after.as_deref())?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Ends at most `max` sessions whose clients did not come back in time, and fewer of those that have
    /// many subscriptions; false if there are no more.
    pub fn expire_sessions(&self, now: Timestamp, max: usize) -> bool {
        let mut work = 0;
        for _ in 0..max {
            let due = self.0.kept.lock().take_due(now);
            let Some(session) = due else { return false };
            work += self.end(&session);
            if work >= limits::ENDED_WORK_STEP {
                break;
            }
        }
        true
    }

    /// Ends retained messages that are over. Reads the disk.
    ///
    /// # Errors
    /// The store failed.
    pub fn expire_retained(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let ends = self.0.retained.due(now, after.as_deref())?;
            let Some(last) = ends.last() else { return Ok(()) };
            after = Some(last.clone());
            for end in ends {
                // A message that takes its place meanwhile stays.
                let org = Retained::org_of(&end).map(|org| self.org(org));
                let _order = org.as_ref().map(|org| org.order.lock());
                self.0.retained.end(&end, now)?;
            }
        }
    }

    /// Ends sessions whose clients did not come back in time, if there is no room for another one of a
    /// login, or for the filter that it subscribes to: nobody is refused for what is over and has not
    /// ended yet. No more than is needed, and than others can wait for.
    pub fn make_room(
        &self,
        owner: &Owner,
        holder: (OrgId, PrincipalId),
        filter: &str,
        now: Timestamp,
    ) {
        let places = places(filter).max(1);
        let mut work = 0;
        while work < limits::ENDED_WORK_STEP {
            let mut kept = self.0.kept.lock();
            if !kept.has_due(now) {
                return;
            }
            // For another session of a full login, those of others are of no use.
            let is_full = kept.is_full(&owner.principal);
            let own = is_full.then(|| kept.take_due_of(&owner.principal, now)).flatten();
            let lacks_room = own.is_none() && !self.0.shares.has_room(holder, places);
            let due = own.or_else(|| lacks_room.then(|| kept.take_due(now)).flatten());
            drop(kept);
            let Some(session) = due else { return };
            work += self.end(&session);
        }
    }

    /// Ends a session: its subscriptions go at once, its rows in the background. How much that was: its
    /// subscriptions, and what was passed on; 1 at least.
    fn end(&self, session: &Arc<Session>) -> usize {
        let org = self.org(session.org());
        let mut inner = session.lock();
        if inner.ended {
            return 1;
        }
        let (subscriptions, queue) = session.end(&mut inner);
        let work = subscriptions.len() + queue.len();
        inner.wake();
        let stored = inner
            .kept
            .as_ref()
            .is_some_and(|kept| kept.stored || !kept.is_empty() || !kept.received.is_empty());
        let epoch = inner.last_epoch;
        drop(inner);
        let ((org_id, who), shares) = (session.holder(), &*self.0.shares);
        shares.sessions.lock().give_back(org_id, who, 1);
        let subscribed = subscriptions.iter().map(|held| places(&held.filter)).sum();
        shares.subscriptions.lock().give_back(org_id, who, subscribed);
        let mut tree = org.tree.write();
        for subscription in &subscriptions {
            if let Some(filter) = subscription.in_tree() {
                tree.remove(filter, session, &mut &*shares);
            }
        }
        drop(tree);
        for queued in queue {
            if let Queued::Delivery(delivery) = queued {
                self.pass_on(session, epoch, delivery);
            }
        }
        if stored {
            // Behind whatever was numbered before: a message in a batch is in the writer's queue.
            let order = org.order.lock();
            let mut batch = Batch::default();
            put_session(session, &session.lock(), &mut batch);
            self.remove_or_log(batch);
            drop(order);
            self.erase_later(session.number());
        }
        work.max(1)
    }

    /// Has the rows of a session that is over removed: one task does it for all.
    fn erase_later(&self, number: u64) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // Not before the server runs: the next start finds it.
            return;
        };
        let mut erasing = self.0.erasing.lock();
        erasing.numbers.push_back(number);
        if !std::mem::replace(&mut erasing.goes_on, true) {
            let broker = self.clone();
            runtime.spawn(async move { broker.erase_all().await });
        }
    }

    async fn erase_all(&self) {
        while let Some(some) = self.next_erased() {
            match self.erase(some.clone()).await {
                Ok(rest) => self.0.erasing.lock().numbers.extend(rest),
                Err(StoreError::Busy(_)) => {
                    tokio::time::sleep(bounds::STORE_ROOM_POLL).await;
                    self.0.erasing.lock().numbers.extend(some);
                }
                Err(error) => {
                    store::report(&error, "MQTT sessions that are over were not removed");
                }
            }
        }
    }

    fn next_erased(&self) -> Option<Vec<u64>> {
        let mut erasing = self.0.erasing.lock();
        let count = erasing.numbers.len().min(bounds::EXPIRY_STEP);
        erasing.goes_on = count > 0;
        erasing.goes_on.then(|| erasing.numbers.drain(..count).collect())
    }

    /// Removes rows of sessions that are over, and each itself when it has no others: its number is not
    /// used again before. Those of which something is left.
    async fn erase(&self, numbers: Vec<u64>) -> Result<Vec<u64>, StoreError> {
        const ROWS: usize = 1000;
        // Behind what was numbered before they ended.
        self.barrier().await?;
        let tables = self.0.tables.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (mut batch, mut rest) = (Batch::default(), Vec::new());
            for number in numbers {
                let before = batch.0.len();
                if before >= ROWS {
                    rest.push(number);
                    continue;
                }
                for table in [Table::MqttMessages, Table::MqttReceived] {
                    let rows = tables.scan_prefix(table, &number.to_be_bytes(), None, ROWS)?;
                    rows.into_iter().for_each(|(key, _)| batch.delete(table, key));
                }
                match batch.0.len() == before {
                    true => batch.delete(Table::MqttSessions, number.to_be_bytes()),
                    false => rest.push(number),
                }
            }
            Ok((batch, rest))
        });
        let (batch, rest) = read.await.map_err(|_| StoreError::Closed)??;
        self.0.tables.submit(batch)?.await?;
        Ok(rest)
    }

    /// Stores a session as it is now, if it outlives its connection and has something. Resolves when
    /// that is durable.
    ///
    /// # Errors
    /// The store takes no more.
    pub fn store_session(&self, session: &Session) -> Result<Receipt, StoreError> {
        let mut inner = session.lock();
        let mut batch = Batch::default();
        let (empty, ended) = (inner.subscriptions().is_empty(), inner.ended);
        let Some(kept) = inner.kept.as_mut().filter(|_| !ended) else {
            return Ok(Receipt::nothing());
        };
        let (needed, stored) = (!empty || !kept.is_empty(), kept.stored);
        kept.stored = needed;
        if needed {
            put_session(session, &inner, &mut batch);
        } else if stored {
            batch.delete(Table::MqttSessions, session.number().to_be_bytes());
            batch.delete(Table::MqttMessages, rows::message_key(session.number(), 0));
        }
        // Under the lock: the last row that is submitted is the last state.
        self.0.tables.submit(batch)
    }

    fn store_or_log(&self, session: &Session) {
        if let Err(error) = self.store_session(session) {
            store::report(&error, "that an MQTT client came or went was not stored");
        }
    }

    /// Submits that something of a session has gone, which nobody can take back.
    fn remove_or_log(&self, batch: Batch) {
        log(self.0.tables.submit_removal(batch));
    }

    // Subscriptions.

    /// Subscribes, or changes the options of what is subscribed to; whether it is new. What
    /// falls under filters that are not in the tree comes from elsewhere; the session only keeps
    /// them.
    ///
    /// # Errors
    /// There is no room, it is no filter, or the session is over.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        subscription: Subscription,
    ) -> Result<bool, Refusal> {
        let mut inner = session.lock();
        if inner.ended {
            return Err(Refusal::Gone);
        }
        if subscription.in_tree().is_some_and(|filter| !grantable(filter)) {
            return Err(Refusal::Filter);
        }
        let org_id = session.org();
        let is_full = |filter: &str| !self.org(org_id).tree.read().may_join(filter);
        if subscription.in_tree().filter(|filter| topic::is_shared(filter)).is_some_and(is_full) {
            return Err(Refusal::Groups);
        }
        let held = inner.subscriptions().iter().position(|held| held.filter == subscription.filter);
        let ((org, who), shares) = (session.holder(), &*self.0.shares);
        let places = places(&subscription.filter);
        if held.is_none() {
            shares.subscriptions.lock().take(org, who, places).map_err(Refusal::Over)?;
        }
        if let Some(filter) = subscription.in_tree() {
            let options = subscription.options();
            let inserted =
                self.org(org).tree.write().insert(filter, session, options, &mut &*shares);
            if let Err(over) = inserted {
                if held.is_none() {
                    shares.subscriptions.lock().give_back(org, who, places);
                }
                return Err(Refusal::Over(over));
            }
        }
        let subscriptions = inner.subscriptions_mut();
        match held.and_then(|index| subscriptions.get_mut(index)) {
            Some(held) => *held = subscription,
            None => {
                // Most clients have one.
                subscriptions.reserve_exact(usize::from(subscriptions.is_empty()));
                subscriptions.push(subscription);
            }
        }
        Ok(held.is_none())
    }

    /// Unsubscribes; whether it was subscribed to.
    pub fn unsubscribe(&self, session: &Arc<Session>, filter: &str) -> bool {
        let mut inner = session.lock();
        let subscriptions = inner.subscriptions_mut();
        let Some(index) = subscriptions.iter().position(|held| *held.filter == *filter) else {
            return false;
        };
        let gone = subscriptions.swap_remove(index);
        // Another one may be the same to the tree: with the thing's key in place of `self`.
        if let Some(filter) = gone.in_tree()
            && !subscriptions.iter().any(|held| held.in_tree() == Some(filter))
        {
            let org = self.org(session.org());
            org.tree.write().remove(filter, session, &mut &*self.0.shares);
        }
        let (org, who) = session.holder();
        self.0.shares.subscriptions.lock().give_back(org, who, places(filter));
        true
    }

    /// Has the retained messages come that a new subscription brings: the one of a topic at once if the
    /// store has room and no more than `at_once` bytes were read so, others, and those under a filter
    /// with wildcards, when what is returned is asked for.
    ///
    /// # Errors
    /// The store failed.
    pub fn replay(
        &self,
        session: &Arc<Session>,
        subscription: &Subscription,
        at_once: &mut usize,
        now: Timestamp,
    ) -> Result<Option<Replay>, StoreError> {
        let Some(filter) = subscription.in_tree().filter(|filter| !topic::is_shared(filter)) else {
            return Ok(None);
        };
        if !filter.contains(['+', '#'])
            && *at_once > 0
            && let Some(read) = self.deliver_retained(session, subscription, [filter], now)?
        {
            *at_once = at_once.saturating_sub(read);
            return Ok(None);
        }
        let (filter, subscription) = (filter.into(), subscription.clone());
        let replay = Replay { filter, subscription, after: None };
        Ok(self.0.retained.may_have_some().then_some(replay))
    }

    /// Waits until what a subscription brings can be looked for with [`Broker::replay_page`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn before_replay(&self, replay: &Replay) -> Result<(), StoreError> {
        if replay.after.is_none() {
            // What was acknowledged, or came from this client, is seen.
            self.barrier().await?;
        }
        while !self.has_room(limits::PAGE_BYTES) {
            tokio::time::sleep(bounds::STORE_ROOM_POLL).await;
        }
        Ok(())
    }

    /// Has some more retained messages come; what is left of them. Reads the disk.
    ///
    /// # Errors
    /// The store failed.
    pub fn replay_page(
        &self,
        session: &Arc<Session>,
        mut replay: Replay,
        now: Timestamp,
    ) -> Result<Option<Replay>, StoreError> {
        let after = replay.after.as_deref();
        let page = self.0.retained.page(session.org(), &replay.filter, after, now)?;
        let names = page.messages.iter().map(Message::topic);
        if self.deliver_retained(session, &replay.subscription, names, now)?.is_none() {
            return Ok(Some(replay));
        }
        replay.after = page.after;
        Ok(replay.after.is_some().then_some(replay))
    }

    /// Delivers what is retained now of these topics, about a page: in the order in which others take
    /// its place, so that none comes behind the one that took its place. How many bytes were read, about;
    /// none if the store has no room for that now: then nothing is delivered.
    fn deliver_retained<'n>(
        &self,
        session: &Arc<Session>,
        subscription: &Subscription,
        names: impl IntoIterator<Item = &'n str>,
        now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let org = self.org(session.org());
        let order = org.order.lock();
        // Before anything is numbered.
        if session.is_kept() && !self.has_room(limits::PAGE_BYTES) {
            return Ok(None);
        }
        let (mut batch, mut row, mut read) = (Batch::default(), Vec::new(), 0);
        for name in names {
            read += limits::LOOK_BYTES;
            let Some(message) = self.0.retained.get(session.org(), name, now)? else { continue };
            row.clear();
            message.put_row(&mut row);
            read += row.len();
            let delivery = Delivery {
                qos: message.qos.min(subscription.qos()),
                message: Arc::new(message),
                retain: true,
                dup: false,
                ids: subscription.id.into_iter().collect(),
                seq: 0,
                shared: None,
            };
            match delivery.qos {
                QoS::AtMostOnce => session.offer(delivery),
                _ => session.keep(&self.0.tables, delivery, &row, &mut batch)?,
            };
        }
        drop(self.0.tables.submit_admitted(batch)?);
        drop(order);
        Ok(Some(read))
    }

    // Deliveries.

    /// Takes what a client gets next, as [`Session::is_ready`] says: with QoS 1 and 2 at most
    /// `window`, and nothing under a packet id that is `in_use`; and about so many bytes.
    pub fn take(
        &self,
        link: &Link,
        (window, in_use): (usize, &dyn Fn(u16) -> bool),
        bytes: usize,
        out: &mut Vec<Queued>,
    ) -> Taken {
        let taken = link.session.take(link.epoch, (window, in_use), bytes, out);
        if let Some(sent) = taken.sent {
            let mut batch = Batch::default();
            let key = rows::message_key(link.session.number(), 0);
            batch.put(Table::MqttMessages, key, sent.to_be_bytes());
            self.remove_or_log(batch);
        }
        taken
    }

    /// Reads some of what waits in the store for a client.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load_more(&self, link: Link) -> Result<(), StoreError> {
        let (broker, session) = (self.clone(), link.session.clone());
        let look = move || {
            // What is numbered is in the writer's queue then, and behind the barrier in the store.
            let org = broker.org(session.org());
            let _order = org.order.lock();
            session.backlog(link.epoch, &broker.0.tables)
        };
        let looked = tokio::task::spawn_blocking(look).await.map_err(|_| StoreError::Closed)??;
        let Some((from, last)) = looked else { return Ok(()) };
        self.barrier().await?;
        let (tables, number) = (self.0.tables.clone(), link.session.number());
        let read = tokio::task::spawn_blocking(move || {
            let after = rows::message_key(number, from.saturating_sub(1));
            let prefix = number.to_be_bytes();
            let limit = limits::PAGE_ROWS;
            tables.scan_prefix(Table::MqttMessages, &prefix, Some(&after), limit)
        });
        let mut rows = read.await.map_err(|_| StoreError::Closed)??;
        let mut bytes = 0;
        let in_page = |(_, value): &&(Vec<u8>, Vec<u8>)| {
            let fits = bytes < limits::PAGE_BYTES;
            bytes += value.len();
            fits
        };
        let count = rows.iter().take_while(in_page).count();
        let full = rows.len() == limits::PAGE_ROWS || count < rows.len();
        rows.truncate(count);
        let found = rows.iter().map(|(key, _)| rows::seq_of(key)).max();
        // More may have come meanwhile; they are in the order of their numbers.
        let next = if full { found } else { found.max(Some(last)) };
        let next = next.unwrap_or(from).max(from) + 1;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Some((rows::seq_of(key), rows::read_message(value)?))
        };
        let rows = rows.iter().filter(|(key, _)| rows::seq_of(key) > 0).filter_map(read).collect();
        link.session.refill(link.epoch, from, rows, next);
        Ok(())
    }

    /// The first messages of a session that wait in the store only: so many, and of large ones fewer.
    ///
    /// # Errors
    /// The store failed.
    pub async fn stored_messages(
        &self,
        Stored { session, from }: Stored,
        count: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.barrier().await?;
        let tables = self.0.tables.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut after = rows::message_key(session, from.saturating_sub(1));
            let prefix = session.to_be_bytes();
            let (mut found, mut bytes) = (Vec::new(), 0);
            while found.len() < count && bytes < limits::PAGE_BYTES {
                let few = (count - found.len()).min(limits::SHOWN_ROWS);
                let rows = tables.scan_prefix(Table::MqttMessages, &prefix, Some(&after), few)?;
                let Some((last, _)) = rows.last() else { break };
                after.clone_from(last);
                bytes += rows.iter().map(|(_, value)| value.len()).sum::<usize>();
                found.extend(rows);
            }
            Ok(found)
        });
        let found = read.await.map_err(|_| StoreError::Closed)??;
        // Under 0 there is no message.
        let messages = found.iter().filter(|(key, _)| rows::seq_of(key) > 0);
        let messages = messages.filter_map(|(_, value)| match rows::read_message(value)? {
            rows::MessageRow::Message { delivery, .. } => Some(delivery),
            rows::MessageRow::Released => None,
        });
        Ok(messages.collect())
    }

    /// The client has a message with QoS 1, or has completed one with QoS 2.
    pub fn acknowledged(&self, link: &Link, seq: u64, bytes: usize) {
        if link.session.acknowledged(link.epoch, bytes) {
            let mut batch = Batch::default();
            batch.delete(Table::MqttMessages, rows::message_key(link.session.number(), seq));
            self.remove_or_log(batch);
        }
    }

    /// The client has taken a message with QoS 2, of which its release takes [`RELEASE_BYTES`] from then
    /// on. Resolves when that is durable: it is to be released then.
    ///
    /// # Errors
    /// The store takes no more, and nothing has changed.
    pub fn taken(&self, link: &Link, seq: u64, bytes: usize) -> Result<Receipt, StoreError> {
        if link.session.is_kept() && !self.has_room(0) {
            return Err(StoreError::BUSY);
        }
        if !link.session.taken(link.epoch, bytes) {
            return Ok(Receipt::nothing());
        }
        let mut batch = Batch::default();
        let key = rows::message_key(link.session.number(), seq);
        batch.put(Table::MqttMessages, key, rows::released());
        self.0.tables.submit_admitted(batch)
    }

    // Messages with QoS 2 from clients.

    /// The packet ids that a session has taken and not released.
    pub fn received(&self, session: &Session) -> Vec<u16> {
        session.lock().kept.as_ref().map_or_else(Vec::new, |kept| kept.received.clone())
    }

    /// Notes that a session has taken a message with this packet id, and adds that to a batch.
    pub fn receive(&self, session: &Arc<Session>, pkid: u16, batch: &mut Batch) {
        let mut inner = session.lock();
        let ended = inner.ended;
        let Some(kept) = inner.kept.as_mut().filter(|_| !ended) else { return };
        kept.received.push(pkid);
        if !std::mem::replace(&mut kept.stored, true) {
            put_session(session, &inner, batch);
        }
        batch.put(Table::MqttReceived, rows::received_key(session.number(), pkid), "");
    }

    /// The message with this packet id is released; resolves when that is durable.
    ///
    /// # Errors
    /// The store takes no more, and nothing has changed.
    pub fn release(&self, session: &Session, pkid: u16) -> Result<Receipt, StoreError> {
        if session.is_kept() && !self.has_room(0) {
            return Err(StoreError::BUSY);
        }
        self.give_back(session, pkid)
    }

    /// The message with this packet id was refused: the id is free at once, whether or not the store
    /// takes that.
    ///
    /// # Errors
    /// The store takes no more.
    pub fn give_back(&self, session: &Session, pkid: u16) -> Result<Receipt, StoreError> {
        let mut inner = session.lock();
        let Some(kept) = &mut inner.kept else { return Ok(Receipt::nothing()) };
        let Some(index) = kept.received.iter().position(|known| *known == pkid) else {
            return Ok(Receipt::nothing());
        };
        kept.received.swap_remove(index);
        let mut batch = Batch::default();
        batch.delete(Table::MqttReceived, rows::received_key(session.number(), pkid));
        self.0.tables.submit_admitted(batch)
    }

    /// Resolves when all that was submitted before is committed; waits for room in the store.
    async fn barrier(&self) -> Result<(), StoreError> {
        loop {
            match self.0.tables.writer().barrier() {
                Err(StoreError::Busy(_)) => tokio::time::sleep(bounds::STORE_ROOM_POLL).await,
                receipt => return receipt?.await,
            }
        }
    }

    /// Whether the store takes so many bytes.
    fn has_room(&self, bytes: usize) -> bool {
        self.0.tables.writer().has_room(bytes)
    }

    /// Submits a batch of [`Broker::receive`] that goes with no message.
    ///
    /// # Errors
    /// The store takes no more.
    pub fn submit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        self.0.tables.submit(batch)
    }
}

/// Whose sessions are looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of a login.
    Login(Principal),
    /// Those in an organisation.
    Org(OrgId),
    /// All.
    All,
}

/// Adds the row of a session that outlives its connection.
fn put_session(session: &Session, inner: &session::Inner, batch: &mut Batch) {
    let Some(kept) = &inner.kept else { return };
    let row = SessionRow {
        org: session.org(),
        login: (&session.owner().principal).into(),
        client_id: session.owner().client_id.as_ref().to_owned(),
        identity: kept.identity,
        expiry_s: kept.expiry_s,
        away: kept.away.map(Timestamp::as_millis),
        subscriptions: inner.subscriptions().clone(),
        ended: inner.ended,
        narrowed: session.is_narrowed(),
    };
    batch.put(Table::MqttSessions, session.number().to_be_bytes(), encode(&row));
}

fn grantable(filter: &str) -> bool {
    let inner = topic::parse_shared(filter).map_or(filter, |shared| shared.filter);
    let of_server = inner.starts_with('$') && !filter.starts_with(OWN_TOPICS);
    topic::valid_filter(filter) && !of_server
}
