//! What a client's connection tells of itself (`session.find`).

use ::mqtt::QoS;
use base::{Timestamp, limits};
use rules::directory::details::{ConnectionDetails, InFlight, KeptSession, Packets, Subscribed};

use super::{LoggedIn, MqttServer, Topics};
use crate::broker::{Delivery, Subscription};

impl LoggedIn {
    /// Whether its subscriptions are being changed.
    pub const fn is_at_work(&self) -> bool {
        self.at_work
    }

    /// What there is to tell of the connection.
    pub fn details(&self, server: &MqttServer) -> ConnectionDetails {
        let coming = Packets { qos1: self.acks.count(QoS::AtLeastOnce), qos2: self.qos2.len() };
        let expiry_s = self.options.expiry_s;
        let kept = || KeptSession { expiry_s: Some(expiry_s).filter(|s| *s != u32::MAX) };
        let mut details = ConnectionDetails {
            in_flight: InFlight { coming, ..InFlight::default() },
            waiting: Some(0),
            waiting_bytes: Some(0),
            kept_session: (expiry_s > 0).then(kept),
            ..ConnectionDetails::default()
        };
        if let Some(topics) = &self.topics {
            add(topics, &mut details, server.app.clock.now());
        }
        details
    }
}

/// Adds what there is to tell of subscriptions, and of messages to the client.
fn add(topics: &Topics, details: &mut ConnectionDetails, now: Timestamp) {
    let session = &topics.link().session;
    let subscribed = |held: &Subscription| Subscribed {
        filter: held.filter.clone(),
        qos: held.qos,
        no_local: held.no_local,
        retain_as_published: held.retain_as_published,
        id: held.id,
    };
    (details.subscription_count, details.subscriptions) = session.with_subscriptions(|held| {
        let first = held.iter().take(limits::SUBSCRIPTIONS_SHOWN_MAX);
        (held.len(), first.map(subscribed).collect())
    });
    let (out, oldest) = topics.inflight.packets();
    details.in_flight.out = out;
    details.in_flight_messages = topics.inflight.first(limits::MESSAGES_SHOWN_MAX);
    details.in_flight.oldest_ms = oldest.map(|oldest| now.millis_since(oldest));
    details.waiting = session.messages_waiting();
    details.waiting_bytes = session.bytes_waiting();
    details.waiting_messages = session.first_waiting(limits::MESSAGES_SHOWN_MAX, Delivery::waiting);
    details.stored = session.first_stored();
}
