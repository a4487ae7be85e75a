//! Subscriptions: to the client's own reply topics and to topics of things, which need no broker,
//! and to all others.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::mqtt::encode::{self, PublishHead};
use ::mqtt::packet::{RetainHandling, Subscribe};
use ::mqtt::{QoS, reason};
use base::{OrgId, limits, topic};
use rules::directory::Outbox;
use rules::directory::{Session, Who};
use tokio::sync::mpsc;

use super::client::Done;
use super::inflight::{Inflight, Source};
use super::logged_in::ConnectOptions;
use super::reply::Watcher;
use super::session_states::{Owner, Subscription};
use super::{MqttServer, broker_code, keep_for, link_name};
use crate::broker::{self, BrokerError, Delivery, Link, OpenOptions, Refusal};
use crate::edge::pending::Work;
use crate::things::feed::{self, ThingTopic};

/// Whose subscriptions they are.
pub struct Subscriber {
    /// The session.
    pub session: Arc<Session>,
    /// The name under which the broker knows the client.
    pub name: Owner,
    /// What the client said in CONNECT.
    pub options: ConnectOptions,
    /// The way into the connection, for replies to others with the same login.
    pub outbox: Arc<Outbox>,
}

/// The subscriptions of a connection.
pub struct Topics {
    server: Arc<MqttServer>,
    subscriber: Subscriber,
    subscriptions: Vec<Subscription>,
    /// Those of `subscriptions` that changes of things fall under.
    feed: Vec<(Box<str>, feed::Subscription)>,
    link: Option<Linked>,
    watcher: Option<Arc<Watcher>>,
    /// Deliveries that the client has not acknowledged.
    pub inflight: Inflight,
}

/// A connection's session in the broker.
struct Linked {
    org: OrgId,
    link: Link,
    deliveries: mpsc::Receiver<Delivery>,
}

/// What came of work with the broker.
pub enum TopicWork {
    /// A PUBLISH was handed to the broker, or not.
    Published {
        /// Its quality of service.
        qos: QoS,
        /// Its packet id.
        pkid: u16,
        /// The reason code for its acknowledgement.
        code: u8,
    },
    /// A SUBSCRIBE was worked on.
    Subscribed {
        /// All subscriptions.
        topics: Box<Topics>,
        /// The packet id.
        pkid: u16,
        /// A reason code for each filter.
        codes: Vec<u8>,
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

/// Who serves a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ServedBy {
    /// The edge: only the dispatcher publishes there.
    Edge,
    /// The feed of changes of things: one of its topics, without wildcards.
    Feed,
    /// The broker; also for topics of things, if there are wildcards.
    Broker,
    /// Nobody: it is not for clients to read.
    Nobody,
}

impl ServedBy {
    fn of(filter: &str) -> Self {
        let first = |filter| str::split(filter, '/').next().unwrap_or_default();
        match first(filter) {
            "reply" | "replyz" | "notify" => Self::Edge,
            "api" | "apiz" => Self::Nobody,
            "thing" if filter.contains(['+', '#']) || filter == "thing" => Self::Broker,
            "thing" if ThingTopic::parse(filter).is_some() => Self::Feed,
            "thing" => Self::Nobody,
            // The broker shares what it has, and none of these.
            "$share" => match topic::parse_shared(filter).map(|shared| first(shared.filter)) {
                Some("reply" | "replyz" | "notify" | "api" | "apiz") => Self::Nobody,
                _ => Self::Broker,
            },
            first if first.starts_with('$') => Self::Nobody,
            _ => Self::Broker,
        }
    }
}

/// A filter of a SUBSCRIBE, kept while the broker works on it.
struct Wish {
    subscription: Subscription,
    retain_handling: RetainHandling,
}

impl Topics {
    /// No subscriptions.
    pub fn new(server: Arc<MqttServer>, subscriber: Subscriber) -> Self {
        let inflight = Inflight::new(subscriber.options.receive_max);
        let (subscriptions, feed) = (Vec::new(), Vec::new());
        Self { server, subscriber, subscriptions, feed, link: None, watcher: None, inflight }
    }

    /// Takes up the subscriptions of an earlier connection.
    pub async fn resume(&mut self, subscriptions: Vec<Subscription>) {
        self.subscriptions = subscriptions;
        let in_broker = self
            .subscriptions
            .iter()
            .any(|subscription| ServedBy::of(&subscription.filter) == ServedBy::Broker);
        if in_broker && let Err(error) = self.open(false).await {
            tracing::warn!(%error, "a client's subscriptions could not be taken up");
        }
        // What was not kept while the client was away is not sent later; rights are asked for with
        // each message.
        let filters: Vec<Box<str>> =
            self.subscriptions.iter().map(|subscription| subscription.filter.clone()).collect();
        for filter in filters {
            if let Err(code) = self.feed_in(&filter) {
                tracing::warn!(code, "a client's subscription to a thing could not be taken up");
            }
        }
        self.watch();
    }

    /// The subscriptions that hold in an organisation: the broker's, and those to things, are those
    /// of the one in which they were made.
    pub fn subscriptions_in(&self, org: OrgId) -> Vec<Subscription> {
        let linked = self.link.as_ref().is_none_or(|linked| linked.org == org);
        let fed = |filter: &str| {
            self.feed
                .iter()
                .any(|(held, subscription)| &**held == filter && subscription.org() == org)
        };
        let holds = |subscription: &&Subscription| match ServedBy::of(&subscription.filter) {
            ServedBy::Broker => linked,
            ServedBy::Feed => fed(&subscription.filter),
            ServedBy::Edge | ServedBy::Nobody => true,
        };
        self.subscriptions.iter().filter(holds).cloned().collect()
    }

    /// The quality of service of the subscriptions that a reply topic falls under, and their
    /// identifiers ([MQTT-3.3.4-3] of 5); none when there are none.
    pub fn granted(&self, name: &str) -> Option<(QoS, Vec<u32>)> {
        let matching = || {
            self.subscriptions
                .iter()
                .filter(|subscription| topic::matches(&subscription.filter, name))
        };
        let qos = matching().map(|subscription| subscription.qos).max()?;
        Some((qos, matching().filter_map(|subscription| subscription.id).collect()))
    }

    /// Works on a SUBSCRIBE.
    pub fn subscribe(mut self: Box<Self>, packet: &Subscribe<'_>) -> Work<Done> {
        let wish = |subscription: ::mqtt::Subscription<'_>| Wish {
            subscription: Subscription::new(&subscription, packet.subscription_id),
            retain_handling: subscription.retain_handling,
        };
        let wishes: Vec<Wish> = packet.filters.map(wish).collect();
        let pkid = packet.pkid;
        Box::pin(async move {
            let codes = self.grant(wishes).await;
            self.watch();
            Done::Topics(TopicWork::Subscribed { topics: self, pkid, codes })
        })
    }

    async fn grant(&mut self, wishes: Vec<Wish>) -> Vec<u8> {
        let mut codes = Vec::with_capacity(wishes.len());
        let mut for_broker = Vec::new();
        let mut new = 0;
        for (index, wish) in wishes.iter().enumerate() {
            let filter = &*wish.subscription.filter;
            // Each is looked for among all that are held: a packet has room for 250,000.
            if index >= limits::SUBSCRIPTIONS_MAX {
                codes.push(reason::QUOTA_EXCEEDED);
                continue;
            }
            new += usize::from(
                !self.subscriptions.iter().any(|subscription| *subscription.filter == *filter),
            );
            codes.push(match ServedBy::of(filter) {
                _ if filter.len() > limits::FILTER_BYTES_MAX => reason::FILTER_INVALID,
                _ if !topic::valid_filter(filter) => reason::FILTER_INVALID,
                _ if self.subscriptions.len() + new > limits::SUBSCRIPTIONS_MAX => {
                    reason::QUOTA_EXCEEDED
                }
                ServedBy::Nobody => reason::NOT_AUTHORIZED,
                ServedBy::Edge => wish.subscription.qos as u8,
                ServedBy::Feed => {
                    self.check_feed(filter).map_or_else(|c| c, |()| wish.subscription.qos as u8)
                }
                ServedBy::Broker => match self.in_broker(filter) {
                    Some(_) => {
                        for_broker.push(wish);
                        wish.subscription.qos as u8
                    }
                    None => reason::NOT_AUTHORIZED,
                },
            });
        }
        if !for_broker.is_empty() {
            let results = self.grant_in_broker(&for_broker).await;
            let granted = codes.iter_mut().zip(&wishes).filter(|(code, wish)| {
                **code < reason::UNSPECIFIED
                    && ServedBy::of(&wish.subscription.filter) == ServedBy::Broker
            });
            for ((code, _), result) in granted.zip(results) {
                *code = result.err().unwrap_or(*code);
            }
        }
        for (wish, code) in wishes.into_iter().zip(&mut codes) {
            if *code < reason::UNSPECIFIED {
                match self.feed_in(&wish.subscription.filter) {
                    Ok(()) => {
                        self.subscriptions
                            .retain(|subscription| subscription.filter != wish.subscription.filter);
                        self.subscriptions.push(wish.subscription);
                    }
                    Err(refused) => *code = refused,
                }
            }
        }
        codes
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
    fn feed_in(&mut self, filter: &str) -> Result<(), u8> {
        let session = &self.subscriber.session;
        let feed = &self.server.app.feed;
        let subscription = match (ServedBy::of(filter), ThingTopic::parse(filter)) {
            (ServedBy::Feed, Some(name)) => {
                let Some(thing) = name.key(session) else { return Err(reason::NOT_AUTHORIZED) };
                feed.subscribe(session, &thing, name.topic, filter)
            }
            (ServedBy::Broker, _) => match self.in_broker(filter) {
                Some(mapped) if feed::may_match(unshared(&mapped)) => {
                    feed.subscribe_wild(session.org_id(), unshared(&mapped))
                }
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        let subscription = subscription.ok_or(reason::QUOTA_EXCEEDED)?;
        self.feed.retain(|(held, _)| **held != *filter);
        self.feed.push((filter.into(), subscription));
        Ok(())
    }

    /// A filter as the broker knows it: with the thing's key for `self`. None if the client may not
    /// subscribe to it: a user has no thing of its own, and who may read no topic of any thing has
    /// no use for a filter of theirs. Filters that match more are granted, and what the client may
    /// not read is left out of what they bring.
    fn in_broker<'f>(&self, filter: &'f str) -> Option<Cow<'f, str>> {
        let session = &self.subscriber.session;
        let inner = unshared(filter);
        let Some(below) = inner.strip_prefix("thing/") else { return Some(filter.into()) };
        if !feed::may_subscribe(session, inner) {
            return None;
        }
        let rest = match below.strip_prefix("self") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => return Some(filter.into()),
        };
        let Who::Application { thing_key, .. } = session.who() else { return None };
        let before = filter.get(..filter.len() - below.len()).unwrap_or_default();
        Some(format!("{before}{thing_key}{rest}").into())
    }

    /// Has the broker grant subscriptions; for each the reason code if it does not.
    async fn grant_in_broker(&mut self, wishes: &[&Wish]) -> Vec<Result<(), u8>> {
        let all = |code| vec![Err(code); wishes.len()];
        if let Err(error) = self.open(self.link.is_none()).await {
            return all(broker_code(error));
        }
        let Some(linked) = &self.link else { return all(reason::UNSPECIFIED) };
        let subscription = |wish: &&Wish| broker::Subscription {
            filter: self.in_broker(&wish.subscription.filter).unwrap_or_default().into_owned(),
            qos: wish.subscription.qos,
            no_local: wish.subscription.no_local,
            retain_as_published: wish.subscription.retain_as_published,
            retain_handling: wish.retain_handling,
            subscription_id: wish.subscription.id,
        };
        match linked.link.subscribe(wishes.iter().map(subscription).collect()).await {
            Ok(results) => results
                .into_iter()
                .map(|result| {
                    result.map_err(|refusal| match refusal {
                        Refusal::Filter => reason::NOT_AUTHORIZED,
                        Refusal::Quota => reason::QUOTA_EXCEEDED,
                    })
                })
                .collect(),
            Err(error) => all(broker_code(error)),
        }
    }

    /// Opens the client's session in the broker, unless it is open in the session's current
    /// organisation. A user who switched the organisation leaves the subscriptions behind.
    async fn open(&mut self, clean: bool) -> Result<(), BrokerError> {
        let org = self.subscriber.session.org_id();
        if self.link.as_ref().is_some_and(|linked| linked.org == org) {
            return Ok(());
        }
        let clean = clean || self.leave_link();
        let (sender, deliveries) = mpsc::channel(limits::DELIVERIES_MAX);
        let options = OpenOptions {
            clean,
            keep: keep_for(self.subscriber.options.expiry_s),
            publisher: self.subscriber.session.number(),
        };
        let name = link_name(&self.subscriber.name);
        let link = self.server.broker.open(org, name, options, sender).await?;
        self.link = Some(Linked { org, link, deliveries });
        Ok(())
    }

    /// Gives the broker's session up, and what was subscribed to in it.
    fn leave_link(&mut self) -> bool {
        let left = self.link.take().is_some();
        if left {
            self.subscriptions
                .retain(|subscription| ServedBy::of(&subscription.filter) != ServedBy::Broker);
            self.feed.retain(|(filter, _)| ServedBy::of(filter) != ServedBy::Broker);
        }
        left
    }

    /// Works on an UNSUBSCRIBE.
    pub fn unsubscribe(mut self: Box<Self>, pkid: u16, filters: Vec<String>) -> Work<Done> {
        Box::pin(async move {
            let codes = self.let_go(&filters);
            let held: HashSet<&str> =
                self.subscriptions.iter().map(|subscription| &*subscription.filter).collect();
            self.feed.retain(|(filter, _)| held.contains(&**filter));
            if let Some(linked) = &self.link {
                let filters = self.left_in_broker(&filters);
                if linked.link.unsubscribe(filters).await.is_err() {
                    self.leave_link();
                }
            }
            self.watch();
            Done::Topics(TopicWork::Unsubscribed { topics: self, pkid, codes })
        })
    }

    /// The broker's names of filters that are held no longer, unless one that is held has the same.
    fn left_in_broker(&self, filters: &[String]) -> Vec<String> {
        let mapped = |filter: &str| {
            let of_broker = ServedBy::of(filter) == ServedBy::Broker;
            of_broker.then(|| self.in_broker(filter))?.map(Cow::into_owned)
        };
        let held: HashSet<String> = self
            .subscriptions
            .iter()
            .filter_map(|subscription| mapped(&subscription.filter))
            .collect();
        let left = filters.iter().filter_map(|filter| mapped(filter));
        left.filter(|filter| !held.contains(filter)).collect()
    }

    /// Holds these filters no longer; for each the reason code. One pass over what is held: a
    /// packet has room for 350,000 filters.
    fn let_go(&mut self, filters: &[String]) -> Vec<u8> {
        let wanted: HashSet<&str> = filters.iter().map(String::as_str).collect();
        let mut gone = HashSet::new();
        for subscription in
            self.subscriptions.extract_if(.., |subscription| wanted.contains(&*subscription.filter))
        {
            gone.insert(subscription.filter);
        }
        let code =
            |existed| if existed { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED };
        filters.iter().map(|filter| code(gone.remove(filter.as_str()))).collect()
    }

    /// Has this connection see replies to others with the same login, if it subscribed to them.
    fn watch(&mut self) {
        let may_match = |subscription: &&Subscription| {
            let first = subscription.filter.split('/').next().unwrap_or_default();
            matches!(first, "reply" | "replyz" | "+" | "#")
        };
        let filters: Vec<Box<str>> = self
            .subscriptions
            .iter()
            .filter(may_match)
            .map(|subscription| subscription.filter.clone())
            .collect();
        if filters.is_empty() {
            self.unwatch();
            return;
        }
        let watcher = self.watcher.get_or_insert_with(|| {
            let watcher = Watcher::new(self.subscriber.outbox.clone());
            self.server.watchers.add(self.subscriber.name.0.clone(), watcher.clone());
            watcher
        });
        watcher.watch(filters);
    }

    fn unwatch(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            self.server.watchers.remove(&self.subscriber.name.0, &watcher);
        }
    }

    /// Notes that the client acknowledged a delivery.
    pub fn acknowledged(&mut self, pkid: u16) {
        if let (Some(Source::Broker(token)), Some(linked)) = (self.inflight.end(pkid), &self.link) {
            linked.link.ack(token);
        }
    }

    /// Writes what the broker delivers, as long as the client takes it.
    pub fn poll_deliveries(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        while self.inflight.has_room() && out.len() < limits::READ_BYTES {
            let Some(linked) = &mut self.link else { return };
            match linked.deliveries.poll_recv(cx) {
                Poll::Ready(Some(delivery)) => {
                    if linked.org == self.subscriber.session.org_id() {
                        self.write(&delivery, out);
                    } else {
                        self.leave_link();
                    }
                }
                // Taken over by another connection, or the broker gave the session up.
                Poll::Ready(None) => self.link = None,
                Poll::Pending => return,
            }
        }
        if out.len() >= limits::READ_BYTES {
            cx.waker().wake_by_ref();
        }
    }

    fn write(&mut self, delivery: &Delivery, out: &mut Vec<u8>) {
        let options = self.subscriber.options;
        let now = Instant::now();
        let (mut qos, mut pkid) = (QoS::AtMostOnce, 0);
        if delivery.expired(now) {
            return self.skip(delivery);
        }
        let Some(name) = self.shown_name(delivery) else { return self.skip(delivery) };
        if let Some(token) = delivery.ack {
            (qos, pkid) = (QoS::AtLeastOnce, self.inflight.begin(Source::Broker(token)));
        }
        let ids: Vec<u32> = delivery.subscription_id.into_iter().collect();
        let head = PublishHead {
            dup: delivery.dup && qos != QoS::AtMostOnce,
            qos,
            retain: delivery.retain,
            pkid,
            topic: &[name.as_deref().map_or(&delivery.topic, str::as_bytes)],
            properties: &delivery.properties(now),
            subscription_ids: &ids,
        };
        let start = out.len();
        let written = encode::publish(out, options.version, &head, &delivery.payload).is_ok();
        if !written || out.len() - start > options.packet_max {
            // [MQTT-3.1.2-25] of 5: as if it had been delivered.
            out.truncate(start);
            self.inflight.end(pkid);
            return self.skip(delivery);
        }
        self.server.app.metrics.broker_delivered();
    }

    /// The name to show for a delivery's topic, if it is another one; none if the client is not to
    /// get it: a topic of a thing that it may not read, or that it gets from the feed.
    fn shown_name(&self, delivery: &Delivery) -> Option<Option<String>> {
        let name = std::str::from_utf8(&delivery.topic).unwrap_or_default();
        if !name.starts_with("thing/") {
            return Some(None);
        }
        let readable = self.check_feed(name).is_ok();
        if !readable || self.subscriptions.iter().any(|subscription| *subscription.filter == *name)
        {
            return None;
        }
        if self
            .subscriptions
            .iter()
            .any(|subscription| topic::matches(unshared(&subscription.filter), name))
        {
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
        if let (Some(token), Some(linked)) = (delivery.ack, &self.link) {
            linked.link.ack(token);
        }
    }

    /// Leaves the broker; its session is kept for some seconds if it is in the organisation in
    /// which the client was last.
    pub async fn close(mut self, org: OrgId, expiry_s: u32) {
        if let Some(linked) = self.link.take() {
            let keep = if linked.org == org { keep_for(expiry_s) } else { Duration::ZERO };
            linked.link.close(keep).await;
        }
    }
}

/// The filter of a shared subscription, or the filter itself.
fn unshared(filter: &str) -> &str {
    topic::parse_shared(filter).map_or(filter, |shared| shared.filter)
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.unwatch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_one_server() {
        let check = |filter, expected| assert_eq!(ServedBy::of(filter), expected, "{filter}");
        check("reply/#", ServedBy::Edge);
        check("reply", ServedBy::Edge);
        check("notify/mailbox_activity", ServedBy::Edge);
        check("api/#", ServedBy::Nobody);
        check("$SYS/#", ServedBy::Nobody);
        check("$share/g/a/b", ServedBy::Broker);
        check("#", ServedBy::Broker);
        check("replies/1", ServedBy::Broker);
        check("thing/mower-1/property/temp", ServedBy::Feed);
        check("thing/self/location", ServedBy::Feed);
        check("thing/mower-1/property/a/b", ServedBy::Feed);
        check("thing/mower-1/property/+", ServedBy::Broker);
        check("$share/g/thing/mower-1/location", ServedBy::Broker);
        check("thing", ServedBy::Broker);
        check("thing/mower-1", ServedBy::Nobody);
        check("thing/mower-1/property", ServedBy::Nobody);
        check("thing/mower-1/property/", ServedBy::Nobody);
        check("thing//location", ServedBy::Nobody);
    }
}
