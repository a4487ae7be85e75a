//! The session of an MQTT client (MQTT 4.1): its subscriptions, and what waits for it.
//!
//! What waits for a client that is connected is in memory. For a session that outlives its
//! connection, messages with QoS 1 and 2 are rows of the store from their publication to their
//! acknowledgement; in memory they are only while they are on their way to a client that keeps up.
//! After the session's client was away, or did not keep up, they come from the store, in order.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::limits::WAITING_STEP_BYTES;
use base::{ApplicationId, OrgId, ThingId, Timestamp, TokenId, topic};
use mqtt::QoS;
use parking_lot::{Mutex, MutexGuard};
use rules::directory::details::Stored;
use rules::directory::{Outbox, Principal, PrincipalId};
use serde::{Deserialize, Serialize};
use store::{Batch, StoreError, Table, Tables};

use super::limits;
use super::message::{Delivery, Message, packet_id};
use super::rows::{self, MessageRow};
use super::shares::{BrokerShares, Holder, principal_of, waiting_bytes};
use super::tree::{Match, Options};

/// Whose session: the login and the client id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    /// The login.
    pub principal: Principal,
    /// The client id.
    pub client_id: Arc<str>,
}

/// Who is let in with an owner's login: the objects that the session ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The thing, if it is one.
    #[serde(rename = "t")]
    pub thing: Option<ThingId>,
    /// The application whose token it had.
    #[serde(rename = "a")]
    pub application: Option<ApplicationId>,
    /// The API token with which its user logged in.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
}

/// A subscription of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// The filter, as the client wrote it.
    #[serde(rename = "f")]
    pub filter: Box<str>,
    /// Where it is in the organisation's tree.
    #[serde(rename = "p", default, skip_serializing_if = "Place::is_filter")]
    pub place: Place,
    /// The quality of service granted: 0, 1 or 2.
    #[serde(rename = "q")]
    pub qos: u8,
    /// Not what the session's client published itself.
    #[serde(rename = "n", default, skip_serializing_if = "std::ops::Not::not")]
    pub no_local: bool,
    /// Keep the publisher's retain flag.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub retain_as_published: bool,
    /// Its identifier.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

/// Where a subscription is in the tree of an organisation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Place {
    /// Not there: others than the broker publish what falls under it.
    Elsewhere,
    /// Under its filter.
    #[default]
    Filter,
    /// Under this filter.
    As(Box<str>),
}

impl Place {
    fn is_filter(&self) -> bool {
        *self == Self::Filter
    }
}

impl Subscription {
    /// The filter in the tree; none if it is not there.
    pub fn in_tree(&self) -> Option<&str> {
        match &self.place {
            Place::Elsewhere => None,
            Place::Filter => Some(&self.filter),
            Place::As(filter) => Some(filter),
        }
    }

    /// The filter whose topics its holder must have the right to, without the group of a shared one;
    /// none for topics of things and of events, which have rights of their own.
    pub fn ordinary(&self) -> Option<&str> {
        let filter = self.in_tree()?;
        let filter = topic::parse_shared(filter).map_or(filter, |shared| shared.filter);
        (!filter.starts_with("thing/") && !filter.starts_with('$')).then_some(filter)
    }

    /// The quality of service granted.
    pub fn qos(&self) -> QoS {
        QoS::from_bits(self.qos).unwrap_or_default()
    }

    pub(super) fn options(&self) -> Options {
        Options {
            qos: self.qos(),
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            id: self.id.and_then(NonZeroU32::new),
        }
    }
}

/// What a client gets next.
#[derive(Debug)]
pub enum Queued {
    /// A message.
    Delivery(Delivery),
    /// The release of a message with QoS 2 that the client has taken.
    Release(u64),
}

impl Queued {
    /// The packet id; none with QoS 0.
    fn packet_id(&self) -> Option<u16> {
        match self {
            Self::Delivery(delivery) if delivery.qos == QoS::AtMostOnce => None,
            Self::Delivery(Delivery { seq, .. }) | Self::Release(seq) => Some(packet_id(*seq)),
        }
    }
}

/// What came of looking for what waits.
pub struct Taken {
    /// Another connection has the session, or it is over.
    pub gone: bool,
    /// There is more in the store.
    pub stored: bool,
    /// The number of the last message that was not sent before, if that has to be noted.
    pub(super) sent: Option<u64>,
}

/// What became of a message for a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offered {
    /// It waits for the client; `crowded`: behind many others.
    Taken { crowded: bool },
    /// There was no room.
    Dropped,
    /// The session is over, or the client is away and the message was not to be kept.
    Nobody,
}

/// The session of a client.
#[derive(Debug)]
pub struct Session {
    number: u64,
    org: OrgId,
    owner: Owner,
    /// For whom it is counted what it takes, as long as the program runs: the login's principal when
    /// it began.
    principal: PrincipalId,
    shares: Arc<BrokerShares>,
    /// Whether it outlives its connection.
    is_kept: bool,
    /// Whether something may wait; spares the lock.
    ready: AtomicBool,
    connected: AtomicBool,
    crowded: AtomicBool,
    /// Whether it has lost subscriptions with rights: what still waits for those is not delivered.
    narrowed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    connection: Option<Connection>,
    /// Of the connection that it has, or had last.
    pub(super) last_epoch: u64,
    subscriptions: Vec<Subscription>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    last_seq: u64,
    /// Set if it outlives its connection.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) ended: bool,
}

#[derive(Debug)]
struct Connection {
    outbox: Arc<Outbox>,
    epoch: u64,
    /// Bytes of the queue that it was told of.
    told: usize,
}

impl Connection {
    /// Tells it how many bytes wait, when that has changed by much; whether they are more.
    fn tell(&mut self, queued: usize) -> bool {
        let little = queued.abs_diff(self.told) < WAITING_STEP_BYTES;
        if queued == self.told || (little && queued > 0) {
            return false;
        }
        let before = std::mem::replace(&mut self.told, queued);
        self.outbox.note_waiting(before, queued);
        queued > before
    }
}

/// What a session has that outlives its connection.
#[derive(Debug)]
pub(super) struct Kept {
    pub identity: Identity,
    /// Seconds for which it outlives the connection; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// Since when the client is away.
    pub away: Option<Timestamp>,
    /// Packet ids of messages with QoS 2 that were taken and not released.
    pub received: Vec<u16>,
    /// Whether it has a row.
    pub stored: bool,
    /// Messages in the store and their bytes; none: nobody has looked since the start.
    waiting: Option<(usize, usize)>,
    /// What of that is counted for its holder.
    held_bytes: u64,
    /// The first message that is in the store only.
    backlog: Option<u64>,
    /// The last message that was sent.
    sent: u64,
    /// The last message that came from the store: up to it, rows do not say what was sent.
    loaded: u64,
    /// The last message when the program started: up to it, a row alone says what was sent.
    restored: u64,
}

impl Kept {
    pub(super) const fn new(identity: Identity, expiry_s: u32) -> Self {
        Self {
            identity,
            expiry_s,
            away: None,
            received: Vec::new(),
            stored: false,
            waiting: Some((0, 0)),
            held_bytes: 0,
            backlog: None,
            sent: 0,
            loaded: 0,
            restored: 0,
        }
    }

    /// One that was found in the store.
    pub(super) fn restored(identity: Identity, expiry_s: u32, away: Timestamp) -> Self {
        let new = Self::new(identity, expiry_s);
        Self { stored: true, away: Some(away), waiting: None, backlog: Some(0), ..new }
    }

    /// When it is over, if the client does not come back.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let away = self.away.filter(|_| self.expiry_s != u32::MAX)?;
        Some(away.plus_seconds(self.expiry_s.into()))
    }

    /// Whether nothing would be lost with it, but for its subscriptions.
    pub(super) fn is_empty(&self) -> bool {
        self.received.is_empty() && self.waiting.is_some_and(|(messages, _)| messages == 0)
    }
}

/// What the rows of a session say, when the program starts.
#[derive(Default)]
pub(super) struct FoundRows {
    messages: usize,
    bytes: usize,
    last: u64,
    sent: u64,
}

impl FoundRows {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        match rows::seq_of(key) {
            0 => self.sent = rows::sent(value),
            seq => {
                self.last = seq;
                self.messages += 1;
                self.bytes += value.len();
            }
        }
    }
}

impl Inner {
    /// Messages that are in the store, if somebody has counted them since the start, and since when
    /// the client is away.
    pub(super) fn waiting(&self) -> (Option<usize>, Option<Timestamp>) {
        match &self.kept {
            Some(kept) => (kept.waiting.map(|(messages, _)| messages), kept.away),
            None => (Some(self.queue.len()), None),
        }
    }
}

impl Session {
    pub(super) fn new(
        number: u64,
        (org, owner): (OrgId, Owner),
        identity: Identity,
        kept: Option<Kept>,
        shares: &Arc<BrokerShares>,
    ) -> Self {
        let kept = kept.map(Box::new);
        Self {
            number,
            org,
            principal: principal_of(&owner, identity),
            owner,
            shares: shares.clone(),
            is_kept: kept.is_some(),
            ready: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            narrowed: AtomicBool::new(false),
            inner: Mutex::new(Inner { kept, ..Inner::default() }),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests(number: u64, user: u8, shares: &Arc<BrokerShares>) -> Self {
        let principal = Principal::User(base::UserId::from_bytes([user; 12]));
        let owner = Owner { principal, client_id: number.to_string().into() };
        let identity = Identity { thing: None, application: None, token: None };
        Self::new(number, (OrgId::from_bytes([1; 12]), owner), identity, None, shares)
    }

    #[cfg(test)]
    pub(super) fn crowd_for_tests(&self) {
        self.crowded.store(true, Ordering::Relaxed);
    }

    /// Its number among all sessions.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The organisation whose topics it subscribes to.
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// Whose it is.
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// For whom it is counted what it takes.
    pub const fn holder(&self) -> Holder {
        (self.org, self.principal)
    }

    /// The principal for whom it is counted what it takes.
    pub const fn principal(&self) -> PrincipalId {
        self.principal
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Whether the client is there.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether much waits for the client.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Whether it outlives its connection.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether it has lost subscriptions with rights.
    pub(super) fn is_narrowed(&self) -> bool {
        self.narrowed.load(Ordering::Relaxed)
    }

    /// It loses subscriptions with rights.
    pub(super) fn note_narrowed(&self) {
        self.narrowed.store(true, Ordering::Relaxed);
    }

    /// Whether a message on this topic may be one of a subscription that it has: not of one that it
    /// has lost with rights.
    pub fn still_wants(&self, name: &str) -> bool {
        let matches = |held: &Subscription| {
            held.ordinary().is_some_and(|filter| topic::matches(filter, name))
        };
        !self.is_narrowed() || self.with_subscriptions(|held| held.iter().any(matches))
    }

    /// Looks at the subscriptions.
    pub fn with_subscriptions<T>(&self, look: impl FnOnce(&[Subscription]) -> T) -> T {
        look(&self.lock().subscriptions)
    }

    /// How many messages wait; none if nobody has counted them since the start.
    pub fn messages_waiting(&self) -> Option<usize> {
        self.lock().waiting().0
    }

    /// Bytes that those take, roughly; none if nobody has counted them since the start.
    pub fn bytes_waiting(&self) -> Option<usize> {
        let inner = self.lock();
        match &inner.kept {
            Some(kept) => kept.waiting.map(|(_, bytes)| bytes),
            None => Some(inner.queued_bytes),
        }
    }

    /// The first message that waits in the store only, if there is one.
    pub fn first_stored(&self) -> Option<Stored> {
        let from = self.lock().kept.as_ref()?.backlog?;
        Some(Stored { session: self.number, from })
    }

    /// What there is to tell of the first that wait in memory.
    pub fn first_waiting<T>(&self, count: usize, tell: impl Fn(&Delivery) -> T) -> Vec<T> {
        let deliveries = |queued: &Queued| match queued {
            Queued::Delivery(delivery) => Some(tell(delivery)),
            Queued::Release(_) => None,
        };
        self.lock().queue.iter().filter_map(deliveries).take(count).collect()
    }

    /// A connection takes the session, from whichever had it. What waited for that in memory: there
    /// may be thousands of messages, and who calls drops them when no other session waits for it.
    #[must_use]
    pub(super) fn attach(&self, outbox: Arc<Outbox>, epoch: u64) -> VecDeque<Queued> {
        let mut inner = self.lock();
        let unsent = inner.clear_queue();
        inner.last_epoch = epoch;
        inner.connection = Some(Connection { outbox, epoch, told: 0 });
        if let Some(kept) = &mut inner.kept {
            kept.away = None;
            if !kept.is_empty() {
                kept.backlog = Some(0);
            }
        }
        self.connected.store(true, Ordering::Relaxed);
        self.ready.store(true, Ordering::Release);
        unsent
    }

    /// The connection leaves at `now`; the session is to outlive it by `expiry_s`. What it has not
    /// sent and may go to others of a group, and whether the session stays. None if another
    /// connection has the session.
    pub(super) fn detach(
        &self,
        epoch: u64,
        expiry_s: u32,
        now: Timestamp,
    ) -> Option<(Vec<Queued>, bool)> {
        let mut inner = self.lock();
        if inner.connection.as_ref().is_none_or(|connection| connection.epoch != epoch) {
            return None;
        }
        let queue = inner.clear_queue();
        inner.connection = None;
        let (subscribed, ended) = (!inner.subscriptions.is_empty(), inner.ended);
        let mut stays = false;
        if let Some(kept) = &mut inner.kept {
            if !kept.is_empty() {
                kept.backlog = Some(0);
            }
            stays = expiry_s > 0 && !ended && (subscribed || !kept.is_empty());
            if stays {
                (kept.expiry_s, kept.away) = (expiry_s, Some(now));
            }
        }
        self.connected.store(false, Ordering::Relaxed);
        self.crowded.store(false, Ordering::Relaxed);
        Some((queue.into(), stays))
    }

    /// Whether another connection has had it since this one.
    pub(super) fn is_taken_up(&self, epoch: u64) -> bool {
        self.lock().last_epoch != epoch
    }

    /// Whether this connection has it.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.lock().is_of(epoch)
    }

    /// The next number for a message with QoS 1 or 2 that is not kept: a reply.
    pub fn next_seq(&self) -> u64 {
        let mut inner = self.lock();
        inner.last_seq += 1;
        inner.last_seq
    }

    /// Numbers its messages behind those of the session that its connection had before: packet ids of
    /// those are in use.
    pub fn number_behind(&self, former: &Self) {
        let last = former.lock().last_seq;
        let mut inner = self.lock();
        inner.last_seq = inner.last_seq.max(last);
    }

    /// Offers a message that is not to be kept.
    pub(super) fn offer(&self, mut delivery: Delivery) -> Offered {
        let mut inner = self.lock();
        if inner.connection.is_none() || inner.ended {
            return Offered::Nobody;
        }
        let max = match delivery.qos {
            QoS::AtMostOnce => limits::WAITING_QOS0_BYTES_MAX,
            _ => limits::WAITING_BYTES_MAX,
        };
        if !inner.has_room(delivery.size(), max) {
            return Offered::Dropped;
        }
        if delivery.qos != QoS::AtMostOnce {
            inner.last_seq += 1;
            delivery.seq = inner.last_seq;
        }
        self.put(&mut inner, delivery)
    }

    fn put(&self, inner: &mut Inner, delivery: Delivery) -> Offered {
        inner.queued_bytes += delivery.size();
        inner.queue.push_back(Queued::Delivery(delivery));
        let crowded = inner.queued_bytes > limits::CROWDED_BYTES;
        if crowded {
            self.crowded.store(true, Ordering::Relaxed);
        }
        let queued = inner.queued_bytes;
        if let Some(connection) = &mut inner.connection {
            // Who finds it ready has been woken, or is looking.
            let is_first = !self.ready.swap(true, Ordering::AcqRel);
            if connection.tell(queued) || is_first {
                connection.outbox.wake_reader();
            }
        }
        Offered::Taken { crowded }
    }

    /// Keeps a message with QoS 1 or 2, and offers it to the client if it is there and keeps up.
    /// `row`: the message as a row. Called in the organisation's order, and the batch is submitted
    /// in it.
    pub(super) fn keep(
        &self,
        tables: &Tables,
        mut delivery: Delivery,
        row: &[u8],
        batch: &mut Batch,
    ) -> Result<Offered, StoreError> {
        let mut inner = self.lock();
        if inner.ended {
            return Ok(Offered::Nobody);
        }
        if inner.kept.is_none() {
            drop(inner);
            return Ok(self.offer(delivery));
        }
        self.look(&mut inner, tables)?;
        let room = inner.has_room(delivery.size(), limits::WAITING_BYTES_MAX);
        let connected = inner.connection.is_some();
        let seq = inner.last_seq + 1;
        let Some(kept) = &mut inner.kept else { return Ok(Offered::Nobody) };
        let (messages, bytes) = kept.waiting.unwrap_or_default();
        let size = delivery.row_len();
        if messages >= limits::KEPT_MESSAGES_MAX || bytes + size > limits::KEPT_BYTES_MAX {
            return Ok(Offered::Dropped);
        }
        if !self.count_waiting(kept, (messages + 1, bytes + size)) {
            return Ok(Offered::Dropped);
        }
        // With QoS 2 not before it is durable: after a crash in between, another message would have
        // its packet id, and be taken for this one by a client that has it.
        let at_once = delivery.qos != QoS::ExactlyOnce;
        let live = connected && room && at_once && kept.backlog.is_none();
        if !live {
            kept.backlog.get_or_insert(seq);
        }
        inner.last_seq = seq;
        delivery.seq = seq;
        let row = rows::message(&delivery, live, row);
        batch.put(Table::MqttMessages, rows::message_key(self.number, seq), row);
        if live {
            return Ok(self.put(&mut inner, delivery));
        }
        if connected
            && !self.ready.swap(true, Ordering::AcqRel)
            && let Some(connection) = &inner.connection
        {
            connection.outbox.wake_reader();
        }
        Ok(Offered::Taken { crowded: false })
    }

    /// Learns from the store which numbers are used.
    pub(super) fn look_now(&self, tables: &Tables) -> Result<(), StoreError> {
        self.look(&mut self.lock(), tables)
    }

    /// Looks at what is in the store since the start of the program, once.
    fn look(&self, inner: &mut Inner, tables: &Tables) -> Result<(), StoreError> {
        if inner.kept.as_ref().is_none_or(|kept| kept.waiting.is_some()) {
            return Ok(());
        }
        let (mut found, mut after) = (FoundRows::default(), None);
        loop {
            let prefix = self.number.to_be_bytes();
            let rows = tables.scan_prefix(Table::MqttMessages, &prefix, after.as_deref(), 1000)?;
            rows.iter().for_each(|(key, value)| found.add(key, value));
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        self.learn(inner, &found);
        Ok(())
    }

    /// Takes what was found in the store, if nobody has looked since the start: until somebody does,
    /// it changes nothing there.
    pub(super) fn learn_rows(&self, found: &FoundRows) {
        self.learn(&mut self.lock(), found);
    }

    fn learn(&self, inner: &mut Inner, found: &FoundRows) {
        let ended = inner.ended;
        let unknown = |kept: &&mut Box<Kept>| !ended && kept.waiting.is_none();
        let Some(kept) = inner.kept.as_mut().filter(unknown) else { return };
        let waiting = (found.messages, found.bytes);
        kept.waiting = Some(waiting);
        kept.held_bytes = waiting_bytes(waiting);
        self.shares.waiting.lock().hold(self.org, self.principal, kept.held_bytes);
        kept.sent = found.sent;
        kept.restored = found.last.max(found.sent);
        kept.backlog = kept.backlog.filter(|_| found.messages > 0);
        inner.last_seq = inner.last_seq.max(kept.restored);
    }

    /// So much waits from now on; false if there is no room for that, and then nothing has changed.
    fn count_waiting(&self, kept: &mut Kept, waiting: (usize, usize)) -> bool {
        let (before, now) = (kept.held_bytes, waiting_bytes(waiting));
        if now > before {
            let mut shares = self.shares.waiting.lock();
            if shares.take(self.org, self.principal, now - before).is_err() {
                return false;
            }
        } else if now < before {
            self.shares.waiting.lock().give_back(self.org, self.principal, before - now);
        }
        (kept.held_bytes, kept.waiting) = (now, Some(waiting));
        true
    }

    /// Whether a look for what waits may find something.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Takes what the client gets next: with QoS 1 and 2 at most `window`, and nothing under a packet
    /// id that is `in_use`: that waits for the acknowledgement, as what is behind it does; and about
    /// so many bytes.
    pub(super) fn take(
        &self,
        epoch: u64,
        (mut window, in_use): (usize, &dyn Fn(u16) -> bool),
        mut bytes: usize,
        out: &mut Vec<Queued>,
    ) -> Taken {
        self.ready.store(false, Ordering::Release);
        let mut inner = self.lock();
        let current = inner.connection.as_ref().is_some_and(|current| current.epoch == epoch);
        if !current || inner.ended {
            return Taken { gone: true, stored: false, sent: None };
        }
        let (mut first_kept, mut last_kept) = (u64::MAX, 0);
        while let Some(front) = inner.queue.front()
            && bytes > 0
        {
            if front.packet_id().is_some_and(in_use) {
                break;
            }
            if let Queued::Delivery(delivery) = front {
                if delivery.qos != QoS::AtMostOnce {
                    if window == 0 {
                        break;
                    }
                    window -= 1;
                    first_kept = first_kept.min(delivery.seq);
                    last_kept = last_kept.max(delivery.seq);
                }
                let size = delivery.size();
                bytes = bytes.saturating_sub(size);
                inner.queued_bytes = inner.queued_bytes.saturating_sub(size);
            }
            out.extend(inner.queue.pop_front());
        }
        if inner.queue.is_empty() {
            inner.queue = VecDeque::new();
        } else {
            self.ready.store(true, Ordering::Release);
        }
        self.crowded.store(inner.queued_bytes > limits::CROWDED_BYTES, Ordering::Relaxed);
        inner.tell();
        let empty = inner.queue.is_empty();
        let Some(kept) = &mut inner.kept else {
            return Taken { gone: false, stored: false, sent: None };
        };
        let mut sent = None;
        if last_kept > kept.sent {
            kept.sent = last_kept;
            // Of a message that went to the client at once, its row says so.
            sent = (first_kept <= kept.loaded).then_some(last_kept);
        }
        let more = empty && kept.backlog.is_some();
        let stored = more && window > 0;
        if more && !stored {
            // Looked for again when the client has acknowledged something.
            self.ready.store(true, Ordering::Release);
        }
        Taken { gone: false, stored, sent }
    }

    /// From which message on what waits is in the store only, and up to which it was submitted.
    pub(super) fn backlog(
        &self,
        epoch: u64,
        tables: &Tables,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let mut inner = self.lock();
        self.look(&mut inner, tables)?;
        let current = inner.connection.as_ref().is_some_and(|current| current.epoch == epoch);
        let last = inner.last_seq;
        let from = inner.kept.as_ref().filter(|_| current).and_then(|kept| kept.backlog);
        Ok(from.map(|from| (from, last)))
    }

    /// Takes in messages that were read from the store, from the number `from` on; `next`: the
    /// first that was not looked for.
    pub(super) fn refill(&self, epoch: u64, from: u64, rows: Vec<(u64, MessageRow)>, next: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let current = inner.connection.as_ref().is_some_and(|current| current.epoch == epoch);
        let Some(kept) = inner.kept.as_mut().filter(|kept| current && kept.backlog == Some(from))
        else {
            return;
        };
        kept.backlog = (next <= inner.last_seq).then_some(next);
        for (seq, row) in rows {
            kept.loaded = kept.loaded.max(seq);
            inner.queue.push_back(match row {
                MessageRow::Released => Queued::Release(seq),
                MessageRow::Message { mut delivery, live } => {
                    delivery.seq = seq;
                    delivery.dup = seq <= kept.sent || (live && seq <= kept.restored);
                    inner.queued_bytes += delivery.size();
                    Queued::Delivery(delivery)
                }
            });
        }
        inner.tell();
        drop(guard);
        self.ready.store(true, Ordering::Release);
    }

    /// A message of so many bytes was acknowledged on a connection. True if its row is to be removed.
    /// On a former connection it means nothing: the message may come on the present one again.
    pub(super) fn acknowledged(&self, epoch: u64, bytes: usize) -> bool {
        let mut inner = self.lock();
        inner.is_of(epoch) && self.forget(&mut inner, bytes)
    }

    /// A message of so many bytes with QoS 2 was taken on a connection. True if its row is to say so.
    pub(super) fn taken(&self, epoch: u64, bytes: usize) -> bool {
        let mut inner = self.lock();
        if !inner.is_of(epoch) {
            return false;
        }
        let Some(kept) = &mut inner.kept else { return false };
        if let Some((messages, waiting)) = kept.waiting {
            let left = (waiting + rows::released().len()).saturating_sub(bytes);
            self.count_waiting(kept, (messages, left));
        }
        true
    }

    /// A message of so many bytes went to another member of a group. True if its row is to be removed.
    pub(super) fn passed_on(&self, bytes: usize) -> bool {
        self.forget(&mut self.lock(), bytes)
    }

    /// Forgets a message of so many bytes; whether it has a row.
    fn forget(&self, inner: &mut Inner, bytes: usize) -> bool {
        let Some(kept) = inner.kept.as_mut().filter(|_| !inner.ended) else { return false };
        if let Some((messages, waiting)) = kept.waiting {
            let left = (messages.saturating_sub(1), waiting.saturating_sub(bytes));
            self.count_waiting(kept, left);
        }
        true
    }

    /// Ends it: nothing more comes, and what waited is given back. Returns what has to be undone.
    pub(super) fn end(&self, inner: &mut Inner) -> (Vec<Subscription>, VecDeque<Queued>) {
        inner.ended = true;
        if let Some(kept) = &mut inner.kept {
            let held = mem::take(&mut kept.held_bytes);
            self.shares.waiting.lock().give_back(self.org, self.principal, held);
        }
        (mem::take(&mut inner.subscriptions), inner.clear_queue())
    }
}

impl Inner {
    pub(super) const fn subscriptions(&self) -> &Vec<Subscription> {
        &self.subscriptions
    }

    pub(super) const fn subscriptions_mut(&mut self) -> &mut Vec<Subscription> {
        &mut self.subscriptions
    }

    /// Whether a connection has the session.
    fn is_of(&self, epoch: u64) -> bool {
        !self.ended && self.connection.as_ref().is_some_and(|current| current.epoch == epoch)
    }

    fn has_room(&self, size: usize, max: usize) -> bool {
        self.queued_bytes == 0 || self.queued_bytes + size <= max
    }

    /// Tells the connection how much waits.
    fn tell(&mut self) -> bool {
        let queued = self.queued_bytes;
        self.connection.as_mut().is_some_and(|connection| connection.tell(queued))
    }

    fn clear_queue(&mut self) -> VecDeque<Queued> {
        self.queued_bytes = 0;
        self.tell();
        mem::take(&mut self.queue)
    }

    /// Has the connection look, and find that the session is over.
    pub(super) fn wake(&self) {
        if let Some(connection) = &self.connection {
            connection.outbox.wake_reader();
        }
    }
}

impl Match {
    /// The message as this subscriber gets it.
    pub(super) fn delivery(&self, message: &Arc<Message>) -> Delivery {
        Delivery {
            message: message.clone(),
            qos: message.qos.min(self.qos),
            retain: self.retain_as_published && message.retain,
            dup: false,
            ids: self.ids.clone(),
            seq: 0,
            shared: self.shared.clone(),
        }
    }
}
