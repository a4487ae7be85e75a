//! Subscriptions: to the client's own reply topics and to topics of things, which need no broker,
//! and to all others; and the messages that come of them.

mod served_by;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::mqtt::encode::{self, PublishHead};
use ::mqtt::packet::{RetainHandling, Subscribe};
use ::mqtt::{PublishProperties, QoS, reason};
use base::{OrgId, Timestamp, limits, topic};
use rules::directory::{Outbox, Session, Who};
use rules::identity::Access;
use store::{Receipt, StoreError};

use self::served_by::ServedBy;
use super::MqttServer;
use super::client::{Closing, Done};
use super::inflight::{About, Inflight, Sent};
use super::logged_in::{AckReason, ConnectOptions};
use super::reply::Watcher;
use crate::app::{EventSubscription, Sight, Worker, is_event_filter};
use crate::broker::{
    Delivery, Identity, Link, Owner, Place, Publishing, Queued, RELEASE_BYTES,
    RETAINED_AT_ONCE_BYTES, Refusal, Replay, Session as BrokerSession, Subscription, Unretained,
    packet_id,
};
use crate::edge::driver::Pass;
use crate::edge::pending::Work;
use crate::things::feed::{self, ThingTopic};

/// Whose subscriptions they are.
#[derive(Clone)]
pub struct Subscriber {
    /// The session.
    pub session: Arc<Session>,
    /// The login and the client id.
    pub owner: Owner,
    /// What the client said in CONNECT.
    pub options: ConnectOptions,
    /// The way into the connection.
    pub outbox: Arc<Outbox>,
}

/// The subscriptions of a connection.
pub struct Topics {
    server: Arc<MqttServer>,
    subscriber: Subscriber,
    link: Link,
    /// The rights with which the subscriptions are held.
    access: Arc<Access>,
    /// The subscriptions that changes of things fall under.
    feed: Vec<(Box<str>, Fed)>,
    /// What of events may be read with `access`, once one has come.
    sight: Option<Sight>,
    watcher: Option<Arc<Watcher>>,
    /// Levels of the subscriptions that the server's own topics can fall under.
    own_levels: usize,
    /// Messages that the client has not acknowledged.
    pub inflight: Inflight,
    /// Retained messages that are still to come.
    replays: Vec<Replay>,
    /// Reads what comes next from the store.
    reading: Option<Reading>,
    aliases: Option<Box<Aliases>>,
}

/// What brings messages of the server's own, as long as it is held.
enum Fed {
    /// Changes of things.
    #[expect(dead_code, reason = "it is held")]
    Things(feed::Subscription),
    /// Events.
    #[expect(dead_code, reason = "it is held")]
    Events(EventSubscription),
}

/// Reads from the store; none, or what is left of retained messages.
type Reading = Pin<Box<dyn Future<Output = Result<Option<Replay>, StoreError>> + Send>>;

/// The topic aliases that the client was told (MQTT 5, 3.3.2.3.4).
struct Aliases {
    max: u16,
    by_topic: HashMap<Box<str>, u16>,
}

/// What became of a message.
#[derive(Clone, Copy)]
pub enum Delivered {
    /// It went to the subscribers; why it is not retained, if that was asked for.
    To(Option<Unretained>),
    /// Nobody publishes to that topic.
    Nowhere,
}

/// What came of work with the broker.
pub enum TopicWork {
    /// A message was published, or not.
    Published {
        /// Its quality of service.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// None: it was not stored, and may be sent again.
        done: Option<Delivered>,
    },
    /// A message goes to many, or waits for the store.
    Publishing {
        /// Its quality of service.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// The rest of the work.
        publishing: Box<Publishing>,
    },
    /// Others had their turn.
    Yielded,
    /// A SUBSCRIBE was worked on.
    Subscribed {
        /// All subscriptions.
        topics: Box<Topics>,
        /// The packet id.
        pkid: u16,
        /// A reason code for each filter.
        codes: Vec<u8>,
        /// Why some were refused, in words.
        why: Option<Box<str>>,
    },
    /// An UNSUBSCRIBE was worked on.
    Unsubscribed {
        /// The subscriptions that are left.
        topics: Box<Topics>,
        /// The packet id.
        pkid: u16,
        /// A reason code for each filter.
        codes: Vec<u8>,
    },
}

/// What has become of the filters of a SUBSCRIBE.
struct Granted {
    /// A reason code for each.
    codes: Vec<u8>,
    /// Why one was refused.
    why: Option<Box<str>>,
    /// Bytes of retained messages that may still be read at once.
    at_once: usize,
}

impl Default for Granted {
    fn default() -> Self {
        Self { codes: Vec::new(), why: None, at_once: RETAINED_AT_ONCE_BYTES }
    }
}

impl Granted {
    /// Refuses so many.
    fn refuse(&mut self, count: usize, refused: AckReason) {
        if count > 0 {
            self.codes.resize(self.codes.len() + count, refused.code);
            self.why = refused.why.or(self.why.take());
        }
    }
}

/// A filter of a SUBSCRIBE.
struct Wish {
    filter: Box<str>,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
    id: Option<u32>,
}

impl Wish {
    fn new(wanted: &::mqtt::Subscription<'_>, id: Option<u32>, bridge: bool) -> Self {
        Self {
            filter: wanted.filter.into(),
            qos: wanted.qos,
            // A bridge relies on it that its own messages do not come back, and that what is
            // retained here is retained there.
            no_local: wanted.no_local || (bridge && !topic::is_shared(wanted.filter)),
            retain_as_published: wanted.retain_as_published || bridge,
            retain_handling: wanted.retain_handling,
            id,
        }
    }

    fn at(self, place: Place) -> Subscription {
        Subscription {
            filter: self.filter,
            place,
            qos: self.qos as u8,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            id: self.id,
        }
    }
}

impl Topics {
    /// The topics of a connection that has this session.
    pub fn new(server: Arc<MqttServer>, subscriber: Subscriber, link: Link) -> Self {
        let options = &subscriber.options;
        let aliases = (options.topic_alias_max > 0).then(|| {
            let max = options.topic_alias_max.min(limits::TOPIC_ALIASES_SENT_MAX);
            Box::new(Aliases { max, by_topic: HashMap::new() })
        });
        let inflight = Inflight::new(options.receive_max);
        Self {
            server,
            access: subscriber.session.access(),
            subscriber,
            link,
            feed: Vec::new(),
            sight: None,
            watcher: None,
            own_levels: 0,
            inflight,
            replays: Vec::new(),
            reading: None,
            aliases,
        }
    }

    /// Takes up the subscriptions that an earlier connection has left.
    pub fn resume(&mut self) {
        self.narrow();
        let held = self.link.session.with_subscriptions(<[Subscription]>::to_vec);
        // What was not kept while the client was away is not sent later; rights are asked for with
        // each message.
        for subscription in held {
            if let Err(code) = self.feed_in(&subscription) {
                tracing::warn!(code, "a client's subscription to a thing could not be taken up");
            }
        }
        self.watch();
    }

    /// The session, and this connection's hold on it.
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// The packet id for a message of the server's own; none if the client has too many.
    pub fn begin_reply(&mut self) -> Option<u16> {
        let pkid = packet_id(self.link.session.next_seq());
        self.inflight.begin(pkid, Sent::Reply).then_some(pkid)
    }

    /// The quality of service of the subscriptions that a reply topic falls under, and their
    /// identifiers ([MQTT-3.3.4-3] of 5); none when there are none.
    pub fn granted(&self, name: &str) -> Option<(QoS, Vec<u32>)> {
        self.link.session.with_subscriptions(|held| {
            let mut granted = None;
            for held in held.iter().filter(|held| topic::matches(&held.filter, name)) {
                let (qos, ids) = granted.get_or_insert_with(|| (held.qos(), Vec::new()));
                *qos = held.qos().max(*qos);
                ids.extend(held.id);
            }
            granted
        })
    }

    /// Works on a SUBSCRIBE: its first filters hold when this returns, others when others had their
    /// turns; it is acknowledged when they are stored.
    pub fn subscribe(mut self: Box<Self>, packet: &Subscribe<'_>) -> Work<Done> {
        let bridge = self.subscriber.options.bridge;
        let mut filters = packet.filters;
        let mut wishes = filters
            .by_ref()
            .take(limits::SUBSCRIPTIONS_MAX)
            .map(|wanted| Wish::new(&wanted, packet.subscription_id, bridge));
        let mut granted = Granted::default();
        self.grant(wishes.by_ref().take(limits::FILTERS_AT_ONCE), &mut granted);
        let rest: Vec<Wish> = wishes.collect();
        // A packet has room for 250,000.
        let too_many_of_them = filters.count();
        let pkid = packet.pkid;
        self.watch();
        Box::pin(async move {
            let mut rest = rest.into_iter().peekable();
            while rest.peek().is_some() {
                tokio::task::yield_now().await;
                self.grant(rest.by_ref().take(limits::FILTERS_AT_ONCE), &mut granted);
                self.watch();
            }
            granted.refuse(too_many_of_them, too_many());
            let Granted { mut codes, why, .. } = granted;
            let session = self.link.session.clone();
            if codes.iter().any(|code| *code < reason::UNSPECIFIED)
                && !store(&self.server, &session).await
            {
                codes.fill(reason::UNSPECIFIED);
            }
            Done::Topics(TopicWork::Subscribed { topics: self, pkid, codes, why })
        })
    }

    /// Grants filters. Each is looked for among all that are held.
    fn grant(&mut self, wishes: impl Iterator<Item = Wish>, granted: &mut Granted) {
        self.follow_access();
        self.follow_org();
        for wish in wishes {
            match self.grant_one(wish, &mut granted.at_once) {
                Ok(code) => granted.codes.push(code),
                Err(refused) => granted.refuse(1, refused),
            }
        }
    }

    /// Grants one filter; the granted QoS, or why not. `at_once`: bytes of retained messages that may
    /// still be read at once.
    fn grant_one(&mut self, wish: Wish, at_once: &mut usize) -> Result<u8, AckReason> {
        let filter = &*wish.filter;
        if filter.len() > limits::FILTER_BYTES_MAX || !topic::valid_filter(filter) {
            return Err(reason::FILTER_INVALID.into());
        }
        let levels = own_levels(filter);
        let deep = levels > 0 && self.own_levels + levels > limits::OWN_LEVELS_MAX;
        let room = |held: &[Subscription]| {
            let full = held.len() >= limits::SUBSCRIPTIONS_MAX;
            if (full || deep) && !held.iter().any(|held| *held.filter == *filter) {
                return Err(if full { too_many() } else { too_deep() });
            }
            Ok(())
        };
        self.link.session.with_subscriptions(room)?;
        let place = match ServedBy::of(filter) {
            ServedBy::Nobody if filter.starts_with("thing/") => {
                return Err(reason::NOT_AUTHORIZED.into());
            }
            // It is no question of rights; no other code of MQTT 5 fits, and its interoperability
            // suite knows no other.
            ServedBy::Nobody => return Err(reason::UNSPECIFIED.into()),
            ServedBy::Edge => Place::Elsewhere,
            ServedBy::Feed => self.check_feed(filter).map(|()| Place::Elsewhere)?,
            ServedBy::Events if !Sight::of(&self.subscriber.session).may_look() => {
                return Err(reason::NOT_AUTHORIZED.into());
            }
            ServedBy::Events => Place::Filter,
            ServedBy::Broker => self.in_broker(filter).ok_or(reason::NOT_AUTHORIZED)?,
        };
        let (mut qos, handling) = (wish.qos, wish.retain_handling);
        if place == Place::Elsewhere {
            // The server's own messages come with QoS 1 at most.
            qos = qos.min(QoS::AtLeastOnce);
        }
        if is_event_filter(filter) {
            // They are live; the stream keeps them for who was away.
            qos = QoS::AtMostOnce;
        }
        let subscription = Wish { qos, ..wish }.at(place);
        let broker = &self.server.app.broker;
        let session = &self.link.session;
        let now = self.server.app.clock.now();
        broker.make_room(session.owner(), session.holder(), &subscription.filter, now);
        let new = broker.subscribe(session, subscription.clone()).map_err(refused)?;
        if new {
            self.own_levels += levels;
        }
        if let Err(code) = self.feed_in(&subscription) {
            self.server.app.broker.unsubscribe(&self.link.session, &subscription.filter);
            return Err(code.into());
        }
        let wanted = match handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        };
        if wanted {
            self.replay(&subscription, at_once);
        }
        Ok(qos as u8)
    }

    fn replay(&mut self, subscription: &Subscription, at_once: &mut usize) {
        let app = &self.server.app;
        let (broker, now) = (&app.broker, app.clock.now());
        match broker.replay(&self.link.session, subscription, at_once, now) {
            Ok(Some(replay)) => {
                self.replays.retain(|other| other.filter() != replay.filter());
                self.replays.push(replay);
            }
            Ok(None) => {}
            Err(error) => {
                store::report(&error, "retained messages could not be read");
            }
        }
    }

    /// Whether the client may subscribe to this topic of a thing now; otherwise the reason code.
    fn check_feed(&self, filter: &str) -> Result<(), u8> {
        let session = &self.subscriber.session;
        let named =
            ThingTopic::parse(filter).and_then(|name| Some((name.key(session)?, name.topic)));
        let Some((thing, topic)) = named else { return Err(reason::NOT_AUTHORIZED) };
        match feed::may_read(&self.server.app.things, session, &thing, topic) {
            Ok(true) => Ok(()),
            Ok(false) => Err(reason::NOT_AUTHORIZED),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no rights to be read");
                Err(reason::UNSPECIFIED)
            }
        }
    }

    /// Has changes of things come that fall under a filter which the client holds from now on;
    /// otherwise the reason code.
    fn feed_in(&mut self, held: &Subscription) -> Result<(), u8> {
        let session = &self.subscriber.session;
        let (feed, filter) = (&self.server.app.feed, &*held.filter);
        let subscription = match (held.in_tree().map(unshared), ThingTopic::parse(filter)) {
            (Some(mapped), _) if feed::may_match(mapped) => {
                Fed::Things(feed.subscribe_wild(session.org_id()))
            }
            (Some(mapped), _) if is_event_filter(mapped) => {
                let app = &self.server.app;
                Fed::Events(app.event_topics.subscribe(session.org_id(), app.events().last()))
            }
            (None, Some(name)) if ServedBy::of(filter) == ServedBy::Feed => {
                let Some(thing) = name.key(session) else { return Err(reason::NOT_AUTHORIZED) };
                Fed::Things(feed.subscribe(session, &thing, name.topic, filter))
            }
            _ => return Ok(()),
        };
        self.feed.retain(|(held, _)| **held != *filter);
        self.feed.push((filter.into(), subscription));
        Ok(())
    }

    /// Where the broker has a filter: with the thing's key for `self`. None if the client may not
    /// subscribe to it: it matches ordinary topics to which it has no right; a user has no thing of its own, and who may read no topic of any thing has
    /// no use for a filter of theirs. Filters that match more are granted, and what the client may
    /// not read is left out of what they bring.
    fn in_broker(&self, filter: &str) -> Option<Place> {
        let session = &self.subscriber.session;
        let inner = unshared(filter);
        let Some(below) = inner.strip_prefix("thing/") else {
            // That of a topic of the server's own is refused for everybody.
            let may = inner.starts_with('$')
                || self.access.topic_subscribe.covers(inner, session.who().own_key());
            return may.then_some(Place::Filter);
        };
        if !feed::may_subscribe(session, inner) {
            return None;
        }
        let rest = match below.strip_prefix("self") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => return Some(Place::Filter),
        };
        let Who::Application { thing_key, .. } = session.who() else { return None };
        let before = filter.get(..filter.len() - below.len()).unwrap_or_default();
        Some(Place::As(format!("{before}{thing_key}{rest}").into()))
    }

    /// Follows a change of rights: what may no longer be held ends.
    pub fn follow_access(&mut self) {
        let changed = self.subscriber.session.with_context(|context| {
            let same = Arc::ptr_eq(&context.access, &self.access);
            (!same).then(|| context.access.clone())
        });
        if let Some(access) = changed {
            (self.access, self.sight) = (access, None);
            self.narrow();
        }
    }

    /// Lets go the subscriptions to ordinary topics that the client may no longer hold.
    fn narrow(&mut self) {
        if self.link.session.org() != self.access.org.id {
            return;
        }
        let lost = self.server.app.broker.narrow(&self.link.session, &self.access);
        if lost.is_empty() {
            return;
        }
        self.feed.retain(|(filter, _)| !lost.contains(filter));
        self.replays.retain(|replay| !lost.iter().any(|lost| **lost == *replay.filter()));
        self.watch();
        let session = self.link.session.clone();
        tracing::info!(
            who = self.subscriber.session.who().name(),
            filters = lost.len(),
            "subscriptions ended with the rights to them"
        );
        if let Err(error) = self.server.app.broker.store_session(&session) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "that subscriptions ended was not stored");
        }
    }

    /// A user who switched the organisation leaves the subscriptions behind, but for those to reply
    /// topics; so does a client whose session was ended.
    fn follow_org(&mut self) {
        let broker = &self.server.app.broker;
        if self.link.session.org() == self.access.org.id && broker.has(&self.link) {
            return;
        }
        // What is on its way is of the session that is left; its packet ids stay in use.
        self.inflight.forget_deliveries();
        self.feed.clear();
        self.replays.clear();
        self.reading = None;
        let Ok(link) = begin(&self.server, &self.subscriber) else {
            // Nothing more comes from where the client is no longer.
            broker.leave(self.link.clone(), 0, Vec::new(), self.server.app.clock.now());
            return;
        };
        link.session.number_behind(&self.link.session);
        let left = std::mem::replace(&mut self.link, link);
        let replies = left.session.with_subscriptions(|held| {
            let replies = held.iter().filter(|held| ServedBy::of(&held.filter) == ServedBy::Edge);
            replies.cloned().collect::<Vec<_>>()
        });
        for subscription in replies {
            // They take no room.
            let _ = broker.subscribe(&self.link.session, subscription);
        }
        broker.leave(left, 0, Vec::new(), self.server.app.clock.now());
        self.watch();
    }

    /// Works on an UNSUBSCRIBE.
    pub fn unsubscribe(mut self: Box<Self>, pkid: u16, filters: Vec<String>) -> Work<Done> {
        let codes = self.let_go(&filters);
        self.watch();
        Box::pin(async move {
            let session = self.link.session.clone();
            if !store(&self.server, &session).await {
                tracing::debug!("an UNSUBSCRIBE holds until a restart");
            }
            Done::Topics(TopicWork::Unsubscribed { topics: self, pkid, codes })
        })
    }

    /// Holds these filters no longer; for each the reason code. A packet has room for 350,000
    /// filters, each of which would be looked for among all that are held.
    fn let_go(&mut self, filters: &[String]) -> Vec<u8> {
        let session = &self.link.session;
        let mut held: HashSet<Box<str>> = session
            .with_subscriptions(|held| held.iter().map(|held| held.filter.clone()).collect());
        let codes = filters.iter().map(|filter| {
            if !held.remove(filter.as_str()) {
                return reason::NO_SUBSCRIPTION_EXISTED;
            }
            self.server.app.broker.unsubscribe(session, filter);
            reason::SUCCESS
        });
        let codes = codes.collect();
        self.feed.retain(|(filter, _)| held.contains(filter));
        self.replays.retain(|replay| held.contains(replay.filter()));
        codes
    }

    /// Has this connection see replies to others with the same login, if it subscribed to them.
    fn watch(&mut self) {
        self.own_levels = self
            .link
            .session
            .with_subscriptions(|held| held.iter().map(|held| own_levels(&held.filter)).sum());
        let may_match = |held: &&Subscription| {
            let first = held.filter.split('/').next().unwrap_or_default();
            matches!(first, "reply" | "replyz" | "+" | "#")
        };
        let filters: Vec<Box<str>> = self.link.session.with_subscriptions(|held| {
            held.iter().filter(may_match).map(|held| held.filter.clone()).collect()
        });
        if filters.is_empty() {
            self.unwatch();
            return;
        }
        let watcher = self.watcher.get_or_insert_with(|| {
            let watcher = Watcher::new(self.subscriber.outbox.clone());
            self.server.watchers.add(self.subscriber.owner.principal.clone(), watcher.clone());
            watcher
        });
        watcher.watch(filters);
    }

    fn unwatch(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            self.server.watchers.remove(&self.subscriber.owner.principal, &watcher);
        }
    }

    /// The client has taken a message with QoS 2. Resolves when it is to be released; none if there is
    /// no such message on its way.
    pub fn taken(&mut self, pkid: u16) -> Option<Result<Receipt, StoreError>> {
        match self.inflight.get_mut(pkid)? {
            Sent::Delivery { released: true, qos: QoS::ExactlyOnce, .. } => {
                Some(Ok(Receipt::nothing()))
            }
            Sent::Delivery { seq, bytes, released, qos: QoS::ExactlyOnce, .. } => {
                let stored = self.server.app.broker.taken(&self.link, *seq, *bytes);
                if stored.is_ok() {
                    (*released, *bytes) = (true, RELEASE_BYTES);
                }
                Some(stored)
            }
            _ => None,
        }
    }

    /// Whether a message with QoS 2 is on its way under this packet id.
    pub fn is_sent(&mut self, pkid: u16) -> bool {
        let sent = self.inflight.get_mut(pkid);
        matches!(sent, Some(Sent::Delivery { qos: QoS::ExactlyOnce, .. }))
    }

    /// Notes that the client has a message: with QoS 1, or with QoS 2 at its end.
    pub fn acknowledged(&mut self, pkid: u16) {
        if let Some(Sent::Delivery { seq, bytes, .. }) = self.inflight.end(pkid) {
            self.server.app.broker.acknowledged(&self.link, seq, bytes);
        }
    }

    /// Writes what the broker delivers, as long as the client takes it and until the pass is over;
    /// `unsent`: bytes that it has not taken yet. True if there is more, for when it has taken some.
    ///
    /// # Errors
    /// A packet id is in use twice, which the broker sees to.
    pub fn poll_deliveries(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Closing> {
        for part in 0.. {
            self.poll_reading(cx);
            if !self.link.session.is_ready() && self.reading.is_some() {
                return Ok(false);
            }
            if !self.link.session.is_ready() && self.replays.is_empty() {
                return Ok(false);
            }
            if unsent + out.len() >= limits::READ_BYTES || part > 0 && pass.is_over_after_some() {
                return Ok(true);
            }
            self.follow_access();
            if self.link.session.org() != self.access.org.id {
                self.follow_org();
            }
            let room = limits::READ_BYTES - unsent - out.len();
            let (mut queued, room) = (Vec::new(), room.min(limits::DELIVERIES_PART_BYTES));
            let in_use = |pkid| self.inflight.is_used(pkid);
            let window = (self.inflight.window(), &in_use as _);
            let broker = &self.server.app.broker;
            let taken = broker.take(&self.link, window, room, &mut queued);
            if taken.gone {
                self.replays.clear();
                return Ok(false);
            }
            let now = self.server.app.clock.now();
            let some = !queued.is_empty();
            for queued in queued {
                match queued {
                    Queued::Delivery(delivery) => self.write(delivery, now, out)?,
                    Queued::Release(seq) => self.write_release(seq, now, out),
                }
            }
            let mut begun = false;
            if self.reading.is_none() && !self.link.session.is_ready() {
                self.read(taken.stored, now);
                begun = self.reading.is_some();
            }
            // What is being read wakes the task, and so does the acknowledgement that a full window
            // waits for.
            if !some && !begun {
                break;
            }
        }
        Ok(false)
    }

    /// Has more come from the store.
    fn read(&mut self, stored: bool, now: Timestamp) {
        let broker = self.server.app.broker.clone();
        if stored {
            let link = self.link.clone();
            let load = async move { broker.load_more(link).await.map(|()| None) };
            self.reading = Some(Box::pin(load));
        } else if let Some(replay) = self.replays.pop() {
            let (app, session) = (self.server.app.clone(), self.link.session.clone());
            self.reading = Some(Box::pin(async move {
                broker.before_replay(&replay).await?;
                // What is retained may be much to look through: organisations take turns.
                let worker = Worker::Begun(session.org(), session.principal());
                let page = move || broker.replay_page(&session, replay, now);
                app.offload(worker, page).await.map_err(|_| StoreError::Closed)?
            }));
        }
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) {
        let Some(reading) = &mut self.reading else { return };
        let Poll::Ready(read) = reading.as_mut().poll(cx) else { return };
        self.reading = None;
        match read {
            Ok(rest) => self.replays.extend(rest),
            Err(error) => {
                store::report(&error, "messages that wait for an MQTT client could not be read");
            }
        }
    }

    fn write(
        &mut self,
        delivery: Delivery,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        if is_event_filter(delivery.message.topic()) && self.sight.is_none() {
            self.sight = Some(Sight::of(&self.subscriber.session));
        }
        let Some(name) = self.shown_name(&delivery).filter(|_| !delivery.message.expired(now))
        else {
            self.skip(&delivery);
            return Ok(());
        };
        let name = name.as_deref().unwrap_or_else(|| delivery.message.topic());
        let qos = delivery.qos;
        let pkid = if qos == QoS::AtMostOnce { 0 } else { packet_id(delivery.seq) };
        let (alias, known) = match &mut self.aliases {
            Some(aliases) => aliases.of(name),
            None => (None, false),
        };
        let head = PublishHead {
            dup: delivery.dup && qos != QoS::AtMostOnce,
            qos,
            retain: delivery.retain,
            pkid,
            topic: &[if known { b"" } else { name.as_bytes() }],
            properties: &PublishProperties {
                topic_alias: alias.and_then(NonZeroU16::new),
                ..delivery.message.properties(now)
            },
            subscription_ids: &delivery.ids,
        };
        let (options, start) = (&self.subscriber.options, out.len());
        let written = encode::publish(out, options.version, &head, delivery.message.payload());
        if written.is_err() || out.len() - start > options.packet_max {
            // [MQTT-3.1.2-25] of 5: as if it had been delivered.
            out.truncate(start);
            if let (Some(aliases), Some(alias), false) = (&mut self.aliases, alias, known) {
                aliases.by_topic.retain(|_, held| *held != alias);
            }
            self.skip(&delivery);
            return Ok(());
        }
        self.server.app.metrics.broker_delivered();
        self.subscriber.outbox.counters().add_message_out();
        if qos == QoS::AtMostOnce {
            return Ok(());
        }
        let sent = Sent::Delivery {
            seq: delivery.seq,
            bytes: delivery.row_len(),
            released: false,
            qos,
            at: now,
            about: Some(About::of(&delivery.message)),
            shared: delivery.shared.is_some().then(|| Box::new(delivery)),
        };
        match self.inflight.begin(pkid, sent) {
            true => Ok(()),
            false => Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED)),
        }
    }

    /// Releases a message with QoS 2 that an earlier connection has delivered.
    fn write_release(&mut self, seq: u64, at: Timestamp, out: &mut Vec<u8>) {
        let (pkid, qos) = (packet_id(seq), QoS::ExactlyOnce);
        let (bytes, released) = (RELEASE_BYTES, true);
        let sent = Sent::Delivery { seq, bytes, released, qos, at, about: None, shared: None };
        if self.inflight.begin(pkid, sent) {
            encode::pubrel(out, self.subscriber.options.version, pkid, reason::SUCCESS);
        }
    }

    /// The name to show for a delivery's topic, if it is another one; none if the client is not to
    /// get it: a topic that it may not read, or one of a thing that it gets from the feed.
    fn shown_name(&self, delivery: &Delivery) -> Option<Option<String>> {
        let name = delivery.message.topic();
        if let (true, Some(sight)) = (is_event_filter(name), &self.sight) {
            let message = &delivery.message;
            let may = sight.org() == self.link.session.org()
                && self.server.app.may_read_event(sight, name, message.payload());
            return may.then_some(None);
        }
        if !name.starts_with("thing/") {
            let own = self.subscriber.session.who().own_key();
            let may = self.access.topic_subscribe.allows(name, own)
                && self.link.session.still_wants(name);
            return may.then_some(None);
        }
        if self.check_feed(name).is_err() {
            return None;
        }
        let is_named = |held: &[Subscription]| held.iter().any(|held| *held.filter == *name);
        let is_matched = |held: &[Subscription]| {
            held.iter().any(|held| topic::matches(unshared(&held.filter), name))
        };
        if self.link.session.with_subscriptions(is_named) {
            return None;
        }
        if self.link.session.with_subscriptions(is_matched) {
            return Some(None);
        }
        // Subscribed to with `self`: clients sort messages by their filters.
        let Who::Application { thing_key, .. } = self.subscriber.session.who() else {
            return Some(None);
        };
        let rest =
            name.strip_prefix("thing/").and_then(|rest| rest.strip_prefix(thing_key.as_str()));
        Some(rest.map(|rest| format!("thing/self{rest}")))
    }

    /// Treats a delivery as acknowledged that the client does not get.
    fn skip(&self, delivery: &Delivery) {
        if delivery.qos != QoS::AtMostOnce {
            self.server.app.broker.acknowledged(&self.link, delivery.seq, delivery.row_len());
        }
    }

    /// Leaves the session, which is kept for some seconds if it is in the organisation in which the
    /// client was last.
    pub fn close(mut self, org: OrgId, expiry_s: u32, now: Timestamp) {
        let keep = if self.link.session.org() == org { expiry_s } else { 0 };
        let shared = self.inflight.take_shared();
        self.server.app.broker.leave(self.link.clone(), keep, shared, now);
    }
}

/// Waits until the subscriptions of a session that outlives its connection are durable; whether they
/// are.
async fn store(server: &Arc<MqttServer>, session: &Arc<BrokerSession>) -> bool {
    let stored = loop {
        match server.app.broker.store_session(session) {
            Ok(receipt) => break receipt.await,
            Err(StoreError::Busy(_)) => tokio::time::sleep(limits::STORE_ROOM_POLL).await,
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = &stored {
        store::report(error, "subscriptions were not stored");
    }
    stored.is_ok()
}

/// A new session in the broker for a connection.
///
/// # Errors
/// There is no room.
pub(super) fn begin(server: &MqttServer, subscriber: &Subscriber) -> Result<Link, Refusal> {
    let Subscriber { session, owner, options, outbox } = subscriber;
    let place = (session.org_id(), identity_of(session));
    let is_current = || session.end().is_none();
    let holder = (session.org_id(), session.who().principal_id());
    server.app.broker.make_room(owner, holder, "", server.app.clock.now());
    server.app.broker.begin(owner, place, options.expiry_s, (outbox, &is_current))
}

/// What a session's state in the broker ends with.
pub(super) fn identity_of(session: &Session) -> Identity {
    match session.who() {
        Who::User(_) => {
            let token = session.token().map(|token| token.id);
            Identity { thing: None, application: None, token }
        }
        Who::Application { application, thing_id, .. } => {
            Identity { thing: Some(*thing_id), application: Some(application.id), token: None }
        }
    }
}

/// A client has as many subscriptions as one may have.
fn too_many() -> AckReason {
    AckReason::quota(&format!("A client may have {} subscriptions", limits::SUBSCRIPTIONS_MAX))
}

/// A client's filters for the server's own topics have as many levels as those may have.
fn too_deep() -> AckReason {
    let most = limits::OWN_LEVELS_MAX;
    AckReason::quota(&format!("A client's filters for the server's topics may have {most} levels"))
}

/// Levels of a filter that the server's own topics can fall under; 0 if none can.
fn own_levels(filter: &str) -> usize {
    let first = filter.split('/').next().unwrap_or_default();
    match first {
        "reply" | "replyz" | "notify" | "thing" | "+" | "#" => filter.split('/').count(),
        _ => 0,
    }
}

/// What a SUBACK says of what the broker did not grant.
pub(super) fn refused(refusal: Refusal) -> AckReason {
    match refusal {
        Refusal::Filter | Refusal::Gone => reason::UNSPECIFIED.into(),
        Refusal::Over(_) | Refusal::KeptSessions | Refusal::Groups => {
            AckReason::quota(&refusal.to_string())
        }
    }
}

/// The filter of a shared subscription, or the filter itself.
fn unshared(filter: &str) -> &str {
    topic::parse_shared(filter).map_or(filter, |shared| shared.filter)
}

impl Aliases {
    /// The alias of a topic, and whether the client knows it already.
    fn of(&mut self, name: &str) -> (Option<u16>, bool) {
        if let Some(alias) = self.by_topic.get(name) {
            return (Some(*alias), true);
        }
        let next = self.by_topic.len() as u16 + 1;
        if next > self.max || name.len() > limits::FILTER_BYTES_MAX {
            return (None, false);
        }
        self.by_topic.insert(name.into(), next);
        (Some(next), false)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.unwatch();
    }
}
