//! The topics of things (`docs/protocol/tr50.md` 5): changes are published to those who subscribed.
//!
//! A subscription to one topic is a look-up; the message goes straight to the subscriber's
//! connection. Filters with wildcards are the broker's, which gets a change only when the
//! organisation has one that matches. Without subscribers a change costs one load.
//!
//! What a subscriber may read is checked for each message, where it is written to the connection
//! ([`may_read`]): rights and bindings change while subscriptions last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use base::{OrgId, ThingKey, topic};
use bytes::Bytes;
use parking_lot::RwLock;
use rules::directory::{Push, Session, Who};
use rules::identity::permission::Permission;
use smallvec::SmallVec;
use store::StoreError;

use crate::things::registry::Things;

/// What of a thing has changed: the rest of its topic, behind `thing/<key>/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic<'a> {
    /// `property/<name>`: the value.
    Property(&'a str),
    /// `alarm/<name>`: the state.
    Alarm(&'a str),
    /// `attribute/<name>`: the value.
    Attribute(&'a str),
    /// `location`: latitude, longitude, heading, speed, altitude, fix type.
    Location,
    /// `connected`: whether the thing has a connection. Name and payload (`true` or `false`) are
    /// ours; no public source shows the cloud's.
    Connected,
}

impl<'a> Topic<'a> {
    /// The command whose permission reading this takes.
    fn permission(self) -> Permission {
        static PERMISSIONS: LazyLock<[Permission; 5]> = LazyLock::new(|| {
            let names = [
                "property.current",
                "alarm.current",
                "attribute.current",
                "location.current",
                "thing.find",
            ];
            names.map(|name| Permission::named(name).expect("a permission of the table"))
        });
        PERMISSIONS[match self {
            Self::Property(_) => 0,
            Self::Alarm(_) => 1,
            Self::Attribute(_) => 2,
            Self::Location => 3,
            Self::Connected => 4,
        }]
    }

    fn parse(text: &'a str) -> Option<Self> {
        if let Some((kind, name)) = text.split_once('/') {
            return match kind {
                _ if name.is_empty() => None,
                "property" => Some(Self::Property(name)),
                "alarm" => Some(Self::Alarm(name)),
                "attribute" => Some(Self::Attribute(name)),
                _ => None,
            };
        }
        match text {
            "location" => Some(Self::Location),
            "connected" => Some(Self::Connected),
            _ => None,
        }
    }
}

impl std::fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Property(name) => write!(f, "property/{name}"),
            Self::Alarm(name) => write!(f, "alarm/{name}"),
            Self::Attribute(name) => write!(f, "attribute/{name}"),
            Self::Location => f.write_str("location"),
            Self::Connected => f.write_str("connected"),
        }
    }
}

/// One of the server's own topics about a thing, `thing/<key or self>/…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThingTopic<'a> {
    /// The thing's key, or `self`.
    pub thing: &'a str,
    /// What of it.
    pub topic: Topic<'a>,
}

impl<'a> ThingTopic<'a> {
    /// Reads a topic's name; none for other topics.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (thing, rest) = name.strip_prefix("thing/")?.split_once('/')?;
        let topic = Topic::parse(rest)?;
        (!thing.is_empty()).then_some(Self { thing, topic })
    }

    /// Whether clients may publish to it.
    pub const fn is_published(&self) -> bool {
        matches!(self.topic, Topic::Property(_) | Topic::Alarm(_) | Topic::Attribute(_))
    }

    /// The key of the thing, where `self` is the session's own; none if a user says `self`, or for
    /// a text that is no key.
    pub fn key(&self, session: &Session) -> Option<ThingKey> {
        match session.who() {
            Who::Application { thing_key, .. } if self.thing == "self" => Some(thing_key.clone()),
            Who::User(_) if self.thing == "self" => None,
            _ => ThingKey::parse(self.thing).ok(),
        }
    }
}

/// Whether a session may read a topic of a thing of its organisation now.
///
/// # Errors
///
/// What the store reports, which is asked for the things that are bound to a restricted one.
pub fn may_read(
    things: &Things,
    session: &Session,
    thing: &ThingKey,
    topic: Topic<'_>,
) -> Result<bool, StoreError> {
    let access = session.access();
    if !access.permissions.allows(topic.permission()) {
        return Ok(false);
    }
    match session.who() {
        Who::Application { thing_id, thing_key, .. }
            if access.restricted_to_self && thing != thing_key =>
        {
            let found = things.get(access.org.id, thing)?;
            Ok(found.is_some_and(|found| found.bound_to == Some(*thing_id)))
        }
        _ => Ok(true),
    }
}

/// Whether a filter with wildcards may match a topic of things.
pub fn may_match(filter: &str) -> bool {
    let mut levels = filter.split('/');
    let first = levels.next().unwrap_or_default();
    first == "#" || matches!(first, "thing" | "+") && levels.next().is_some()
}

/// Whether a session may read anything that a filter below `thing/` matches: the kinds, not the
/// things.
pub fn may_subscribe(session: &Session, filter: &str) -> bool {
    let kinds = [
        (Topic::Property("x"), "property"),
        (Topic::Alarm("x"), "alarm"),
        (Topic::Attribute("x"), "attribute"),
        (Topic::Location, "location"),
        (Topic::Connected, "connected"),
    ];
    let kind = filter.split('/').nth(2).unwrap_or("#");
    kinds.into_iter().any(|(topic, name)| {
        matches!(kind, "#" | "+") | (kind == name) && session.may(topic.permission())
    })
}

/// The way to those whose filters have wildcards.
pub trait Wildcards: Send + Sync {
    /// Whether a topic falls under any of them.
    fn has(&self, org: OrgId, topic: &str) -> bool;

    /// Publishes to the organisation; drops the message if it would have to wait.
    fn publish(&self, org: OrgId, topic: &str, payload: &str);
}

/// Those who want to know.
#[derive(Default)]
pub struct Feed {
    /// Of all organisations; spares most changes the look-up.
    subscriptions: AtomicUsize,
    orgs: RwLock<HashMap<OrgId, Readers>>,
    wildcards: OnceLock<Box<dyn Wildcards>>,
}

/// Those of an organisation.
#[derive(Default)]
struct Readers {
    /// By the topic, with the thing's key.
    exact: HashMap<Box<str>, SmallVec<[Arc<Reader>; 1]>>,
    /// How many subscriptions have filters with wildcards: who publishes there finds out which.
    wild: usize,
}

struct Reader {
    session: Arc<Session>,
    /// The topic as it was subscribed to: with `self`, if the client said so, for clients sort
    /// messages by their filters (MQTT 4.7.3).
    name: Arc<str>,
}

/// A subscription; it ends when this is dropped.
pub struct Subscription {
    feed: Arc<Feed>,
    org: OrgId,
    what: What,
}

enum What {
    Exact(Box<str>, Arc<Reader>),
    Wild,
}

impl Feed {
    /// Has changes for filters with wildcards go this way from now on.
    pub fn forward_to(&self, wildcards: Box<dyn Wildcards>) {
        // There is one broker, for good.
        let _ = self.wildcards.set(wildcards);
    }

    /// Subscribes a session's connection to one topic of a thing of its current organisation. `name`
    /// is the topic to show. How many there may be is said where subscriptions are granted.
    pub fn subscribe(
        self: &Arc<Self>,
        session: &Arc<Session>,
        thing: &ThingKey,
        topic: Topic<'_>,
        name: &str,
    ) -> Subscription {
        let org = session.org_id();
        let reader = Arc::new(Reader { session: session.clone(), name: name.into() });
        let topic = name_of(thing, topic).into_boxed_str();
        self.add(org, What::Exact(topic, reader))
    }

    /// Notes that somebody in the organisation has subscribed to a filter that [`may_match`].
    pub fn subscribe_wild(self: &Arc<Self>, org: OrgId) -> Subscription {
        self.add(org, What::Wild)
    }

    fn add(self: &Arc<Self>, org: OrgId, what: What) -> Subscription {
        let mut orgs = self.orgs.write();
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        let readers = orgs.entry(org).or_default();
        match &what {
            What::Exact(topic, reader) => {
                readers.exact.entry(topic.clone()).or_default().push(reader.clone());
            }
            What::Wild => readers.wild += 1,
        }
        Subscription { feed: self.clone(), org, what }
    }

    /// Whether anybody in the organisation has subscribed to anything.
    pub fn is_watched(&self, org: OrgId) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0 && self.orgs.read().contains_key(&org)
    }

    /// Publishes a change to everybody who subscribed to it. `payload` is only made if there is
    /// somebody.
    pub fn publish(
        &self,
        org: OrgId,
        thing: &ThingKey,
        topic: Topic<'_>,
        payload: impl FnOnce() -> String,
    ) {
        if self.subscriptions.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (name, readers, wild) = {
            let orgs = self.orgs.read();
            let Some(of_org) = orgs.get(&org) else { return };
            let name = name_of(thing, topic);
            // A name that was published by a command may have what no topic has. And a thing that
            // calls itself `self` has no topics: they are each reader's own.
            if !topic::valid_topic(&name) || thing.as_str() == "self" {
                return;
            }
            let readers = of_org.exact.get(name.as_str()).cloned().unwrap_or_default();
            (name, readers, of_org.wild > 0)
        };
        let wildcards = self.wildcards.get().filter(|found| wild && found.has(org, &name));
        if readers.is_empty() && wildcards.is_none() {
            return;
        }
        let payload = payload();
        if let Some(wildcards) = wildcards {
            wildcards.publish(org, &name, &payload);
        }
        let payload = Bytes::from(payload);
        for reader in readers {
            // Who has gone to another organisation has left this one's topics.
            if let Some(outbox) = reader.session.outbox()
                && reader.session.org_id() == org
            {
                outbox.push(Push::message(reader.name.clone(), payload.clone()));
            }
        }
    }

    fn remove(&self, org: OrgId, what: &What) {
        let mut orgs = self.orgs.write();
        let Some(readers) = orgs.get_mut(&org) else { return };
        match what {
            What::Exact(topic, reader) => {
                if let Some(held) = readers.exact.get_mut(topic) {
                    held.retain(|other| !Arc::ptr_eq(other, reader));
                    if held.is_empty() {
                        readers.exact.remove(topic);
                    }
                }
            }
            What::Wild => readers.wild -= 1,
        }
        if readers.exact.is_empty() && readers.wild == 0 {
            orgs.remove(&org);
        }
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Subscription {
    /// The organisation whose things it is about.
    pub const fn org(&self) -> OrgId {
        self.org
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.remove(self.org, &self.what);
    }
}

fn name_of(thing: &ThingKey, topic: Topic<'_>) -> String {
    format!("thing/{thing}/{topic}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use base::{ConnInfo, Protocol, SessionId, ThingId};
    use parking_lot::Mutex;
    use rules::directory::{Lifetime, Outbox, Start};

    use super::*;
    use crate::app::App;
    use crate::app::tests::{NOW, demo};

    /// What was published, as `topic=payload`.
    #[derive(Clone, Default)]
    struct Got(Arc<Mutex<Vec<String>>>);

    impl Got {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock())
        }
    }

    impl Wildcards for Got {
        fn has(&self, _: OrgId, topic: &str) -> bool {
            topic::matches("thing/+/property/t", topic)
        }

        fn publish(&self, _: OrgId, topic: &str, payload: &str) {
            self.0.lock().push(format!("{topic}={payload}"));
        }
    }

    /// What was pushed, as `topic=payload`.
    fn pushed(outbox: &Outbox) -> Vec<String> {
        let text =
            |push: Push| format!("{}={}", push.topic, String::from_utf8_lossy(&push.payload));
        outbox.take(true).0.into_iter().map(text).collect()
    }

    /// A session of the demo's application on this thing, and what its connection gets.
    fn session(app: &App, key: &str) -> (Arc<Session>, Arc<Outbox>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut id = [0; 12];
        id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let identity = app.identity();
        let application = identity.application_by_token("demo-token-basicorg").expect("the demo's");
        let outbox = Arc::new(Outbox::new(true));
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let start = Start {
            id: SessionId::from_random(id),
            token: None,
            access: Arc::new(identity.application_access(&application).expect("the demo's")),
            who: Who::Application {
                application,
                thing_id: ThingId::from_bytes(id),
                thing_key: ThingKey::parse(key).expect("a key"),
            },
            client_id: "".into(),
            conn: ConnInfo::new(Protocol::Mqtt, remote_addr),
            link: rules::directory::Link::default(),
            user_agent: None,
            definition: None,
            lifetime: Lifetime::Connection,
            outbox: Some(outbox.clone()),
        };
        (app.start(start, false, NOW).expect("room"), outbox)
    }

    #[test]
    fn names_are_read_and_written() {
        let check = |name: &str, expected: Option<(&str, Topic<'_>)>| {
            let read = ThingTopic::parse(name);
            assert_eq!(read.map(|read| (read.thing, read.topic)), expected, "{name}");
            if let Some((thing, topic)) = expected {
                assert_eq!(format!("thing/{thing}/{topic}"), name);
            }
        };
        check("thing/a/property/t", Some(("a", Topic::Property("t"))));
        check("thing/a/alarm/t/u", Some(("a", Topic::Alarm("t/u"))));
        check("thing/self/attribute/ ", Some(("self", Topic::Attribute(" "))));
        check("thing/a/location", Some(("a", Topic::Location)));
        check("thing/a/connected", Some(("a", Topic::Connected)));
        for other in [
            "thing",
            "thing/",
            "thing/a",
            "thing//location",
            "thing/a/property",
            "thing/a/property/",
            "thing/a/location/x",
            "thing/a/Property/t",
            "things/a/location",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn filters_that_may_match_are_known() {
        for filter in ["#", "+/#", "+/+/location", "thing/#", "thing/+/property/+", "thing/a/#"] {
            assert!(may_match(filter), "{filter}");
        }
        for filter in ["+", "a/#", "things/#", "thing", "/thing/#"] {
            assert!(!may_match(filter), "{filter}");
        }
    }

    #[test]
    fn subscribers_are_told_until_they_leave() {
        let (app, _) = demo();
        let (one, first) = session(&app, "one");
        let (two, second) = session(&app, "two");
        let (feed, broker) = (Arc::<Feed>::default(), Got::default());
        feed.forward_to(Box::new(broker.clone()));
        let (org, thing) = (one.org_id(), ThingKey::parse("one").expect("a key"));
        let topic = Topic::Property("t");
        let publish = |org, value: &str| feed.publish(org, &thing, topic, || value.to_owned());
        feed.publish(org, &thing, topic, || unreachable!("nobody wants to know"));

        let own = feed.subscribe(&one, &thing, topic, "thing/self/property/t");
        let other = feed.subscribe(&two, &thing, topic, "thing/one/property/t");
        assert!(feed.is_watched(org));
        publish(org, "1");
        publish(OrgId::from_bytes([9; 12]), "2");
        assert_eq!(pushed(&first), ["thing/self/property/t=1"]);
        assert_eq!(pushed(&second), ["thing/one/property/t=1"]);
        feed.publish(org, &thing, Topic::Property("u"), || unreachable!("another name"));
        feed.publish(org, &thing, Topic::Property("a+b"), || unreachable!("no name of a topic"));
        let strange = ThingKey::parse("self").expect("a key");
        feed.publish(org, &strange, topic, || unreachable!("that is everybody's own"));
        assert!(broker.take().is_empty());

        let wild = feed.subscribe_wild(org);
        let again = feed.subscribe_wild(org);
        drop((own, wild));
        publish(org, "3");
        assert_eq!((pushed(&first).len(), pushed(&second).len(), broker.take().len()), (0, 1, 1));
        drop((other, again));
        feed.publish(org, &thing, topic, || unreachable!("all have left"));
        assert!(!feed.is_watched(org) && feed.orgs.read().is_empty());
    }
}
