//! The stream as MQTT messages: topics below `$events/`, inside each organisation.
//!
//! One task publishes for everybody, as long as somebody has subscribed. Rights are asked for where
//! a message is written to a connection. Messages are live and have QoS 0: who was away or reads too
//! slowly finds what it missed by number in the stream itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{OrgId, STRANGERS, limits};
use mqtt::{PublishProperties, QoS};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{App, Sight};
use crate::broker::Message;
use crate::events::{EVENTS_TOPIC, Seen, thing_of_text, topic_class};

/// Who has subscribed to events, by organisation.
#[derive(Default)]
pub struct EventTopics {
    orgs: Mutex<HashMap<OrgId, usize>>,
    came: Notify,
    /// The last event when the first of those who are there subscribed.
    before: AtomicU64,
}

/// A subscription; it ends when this is dropped.
pub struct EventSubscription {
    topics: Arc<EventTopics>,
    org: OrgId,
}

impl EventTopics {
    /// Has the events of an organisation published that come behind the `last` one.
    pub fn subscribe(self: &Arc<Self>, org: OrgId, last: u64) -> EventSubscription {
        let mut orgs = self.orgs.lock();
        if orgs.is_empty() {
            self.before.store(last, Ordering::Relaxed);
        }
        *orgs.entry(org).or_default() += 1;
        drop(orgs);
        self.came.notify_one();
        EventSubscription { topics: self.clone(), org }
    }

    fn is_empty(&self) -> bool {
        self.orgs.lock().is_empty()
    }

    fn has(&self, org: OrgId) -> bool {
        self.orgs.lock().contains_key(&org)
    }
}

impl Drop for EventSubscription {
    fn drop(&mut self) {
        let mut orgs = self.topics.orgs.lock();
        if let Some(count) = orgs.get_mut(&self.org) {
            *count -= 1;
            if *count == 0 {
                orgs.remove(&self.org);
            }
        }
    }
}

impl App {
    /// Publishes events to those who subscribed, for ever.
    pub async fn publish_events(self: Arc<Self>) {
        loop {
            // One that came while nobody waited is remembered.
            self.event_topics.came.notified().await;
            let mut heard = self.events.listen();
            let mut after = self.event_topics.before.load(Ordering::Relaxed);
            while !self.event_topics.is_empty() {
                let Some(live) = self.events.live_after(after, limits::EVENTS_AT_ONCE) else {
                    // It has fallen behind what is in memory: what comes now counts more.
                    after = self.events.last();
                    continue;
                };
                if live.is_empty() {
                    heard.changed().await;
                    // In a flood they come together.
                    sleep(limits::EVENTS_TOGETHER).await;
                    continue;
                }
                let mut work = limits::EVENT_WORK;
                for event in &live {
                    after = event.number();
                    for row in event.rows() {
                        if self.event_topics.has(row.org) {
                            self.publish_event(row, &mut work).await;
                        }
                    }
                }
                self.readers_pace.wait(STRANGERS, work).await;
            }
        }
    }

    /// Publishes an event to its organisation, in turn with others.
    async fn publish_event(&self, row: &Seen, work: &mut Duration) {
        let (about, properties) = ((QoS::AtMostOnce, false), PublishProperties::default());
        let message = Message::new(&row.topic(), &row.text, about, &properties, self.clock.now());
        for count in self.broker.publish_live(row.org, message) {
            *work += limits::EVENT_WORK * count;
            if *work > limits::EVENT_TURN_WORK {
                self.readers_pace.wait(STRANGERS, std::mem::take(work)).await;
                // Those who got it write it before there are more.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the message of an event is for somebody in its organisation.
    pub fn may_read_event(&self, sight: &Sight, topic: &str, text: &[u8]) -> bool {
        if sight.sees_all_classes() {
            return true;
        }
        let Some(class) = topic_class(topic) else { return false };
        if !sight.access().restricted_to_self {
            return sight.sees_class(class);
        }
        // A level of a topic may stand for several names.
        let thing = thing_of_text(text);
        self.sees_about(sight, class, thing.as_deref()).unwrap_or(false)
    }
}

/// Whether a filter is one of events.
pub fn is_event_filter(filter: &str) -> bool {
    filter.starts_with(EVENTS_TOPIC)
}
