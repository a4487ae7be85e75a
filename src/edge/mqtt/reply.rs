//! Replies: on which topic one goes out, and to which other connection if the one that asked has
//! gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::mqtt::QoS;
use base::topic;
use dashmap::DashMap;
use parking_lot::Mutex;
use rules::directory::{Outbox, Principal, Push, Replied};

/// Where the answer to a request goes: `api…` is answered on `reply…`, `apiz…` on `replyz…`, with
/// the rest of the topic byte for byte (`docs/protocol/tr50.md` 0, fact 2).
#[derive(Clone, Debug)]
pub struct ReplyTo {
    /// Deflated, on `replyz…`.
    pub compressed: bool,
    /// What followed `api` or `apiz` in the topic: empty, or `/` and more.
    pub suffix: Box<str>,
    /// The response topic of MQTT 5, instead.
    pub response_topic: Option<Box<str>>,
    /// What MQTT 5 wants back with the response.
    pub correlation_data: Option<Box<[u8]>>,
    /// The quality of service of the request.
    pub qos: QoS,
}

impl ReplyTo {
    /// The topic.
    pub fn topic(&self) -> String {
        match &self.response_topic {
            Some(topic) => topic.to_string(),
            None => [self.stem(), &self.suffix].concat(),
        }
    }

    /// The bytes of what the asker wants back, which are held until the reply has gone.
    pub fn bytes(&self) -> usize {
        let response_topic = self.response_topic.as_ref().map_or(0, |topic| topic.len());
        let correlation_data = self.correlation_data.as_ref().map_or(0, |data| data.len());
        self.suffix.len() + response_topic + correlation_data
    }

    /// `reply` or `replyz`.
    pub const fn stem(&self) -> &'static str {
        if self.compressed { "replyz" } else { "reply" }
    }
}

/// A reply and where it goes.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Where it goes.
    pub to: ReplyTo,
    /// Its text, compressed if that is wanted.
    pub body: Vec<u8>,
}

impl From<Reply> for Push {
    fn from(Reply { to, body }: Reply) -> Self {
        let replied = Replied { qos: to.qos as u8, correlation_data: to.correlation_data.clone() };
        Self { topic: to.topic().into(), payload: body.into(), reply: Some(Box::new(replied)) }
    }
}

impl Reply {
    /// The bytes that it takes, with where it goes.
    pub fn bytes(&self) -> usize {
        self.to.bytes() + self.body.len()
    }

    /// The reply of somebody who is gone; none if it is another message.
    pub fn of(push: &Push) -> Option<Self> {
        let replied = push.reply.as_ref()?;
        let to = ReplyTo {
            compressed: false,
            suffix: Box::default(),
            response_topic: Some((*push.topic).into()),
            correlation_data: replied.correlation_data.clone(),
            qos: QoS::from_bits(replied.qos).unwrap_or(QoS::AtMostOnce),
        };
        Some(Self { to, body: push.payload.to_vec() })
    }
}

/// Connections that subscribed to reply topics: an operator's `mosquitto_sub` beside short-lived
/// `mosquitto_pub`s with the same login.
#[derive(Default)]
pub(super) struct Watchers {
    by_principal: DashMap<Principal, Vec<Arc<Watcher>>>,
    count: AtomicUsize,
}

/// A connection with subscriptions that reply topics can match.
pub(super) struct Watcher {
    outbox: Arc<Outbox>,
    filters: Mutex<Vec<Box<str>>>,
}

impl Watcher {
    /// A watcher without filters that delivers to this connection.
    pub(super) fn new(outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { outbox, filters: Mutex::default() })
    }

    /// Sets the filters.
    pub(super) fn watch(&self, filters: Vec<Box<str>>) {
        *self.filters.lock() = filters;
    }
}

impl Watchers {
    /// Whether anybody of this login watches.
    pub(super) fn has(&self, principal: &Principal) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.by_principal.contains_key(principal)
    }

    /// Adds a connection.
    pub(super) fn add(&self, principal: Principal, watcher: Arc<Watcher>) {
        self.by_principal.entry(principal).or_default().push(watcher);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a connection out.
    pub(super) fn remove(&self, principal: &Principal, watcher: &Arc<Watcher>) {
        self.by_principal.remove_if_mut(principal, |_, watchers| {
            let before = watchers.len();
            watchers.retain(|other| !Arc::ptr_eq(other, watcher));
            self.count.fetch_sub(before - watchers.len(), Ordering::Relaxed);
            watchers.is_empty()
        });
    }

    /// Gives a reply whose asker is gone to the connections of the same login that subscribed to
    /// its topic. Others have their turn behind each, for a login may have thousands of them.
    pub(super) async fn deliver(&self, principal: &Principal, reply: &Push) {
        if !self.has(principal) {
            return;
        }
        let Some(watchers) = self.by_principal.get(principal).map(|entry| entry.clone()) else {
            return;
        };
        for watcher in watchers {
            let wanted = watcher.filters.lock().iter().any(|f| topic::matches(f, &reply.topic));
            if wanted && !watcher.outbox.push(reply.clone()) {
                tracing::debug!("a reply for a slow or closing subscriber was dropped");
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use base::UserId;

    use super::*;

    #[tokio::test]
    async fn others_have_their_turn_behind_each_who_gets_a_reply() {
        let (watchers, principal) =
            (Watchers::default(), Principal::User(UserId::from_bytes([1; 12])));
        let outboxes = [(); 3].map(|()| Arc::new(Outbox::new(true)));
        for outbox in &outboxes {
            let watcher = Watcher::new(outbox.clone());
            watcher.watch(vec!["reply/#".into()]);
            watchers.add(principal.clone(), watcher);
        }
        let push = Push { topic: "reply/1".into(), payload: b"{}"[..].into(), reply: None };
        let mut deliver = pin!(watchers.deliver(&principal, &push));
        let mut cx = Context::from_waker(Waker::noop());
        for count in 1..=3 {
            assert!(deliver.as_mut().poll(&mut cx).is_pending());
            assert_eq!(outboxes.iter().filter(|outbox| outbox.waiting() > 0).count(), count);
        }
        deliver.await;
    }
}
