//! The TR50 requests of a client, and the replies to them.

use std::collections::VecDeque;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Instant;

use ::mqtt::encode::{self, PublishHead, begin_publish};
use ::mqtt::{Publish, PublishProperties, QoS};
use base::{Code, Failure, Timestamp, excerpt, limits, topic};
use rules::directory::Push;

use super::{Destination, LoggedIn};
use crate::broker::Message;
use crate::edge::mqtt::client::{Done, Owed};
use crate::edge::mqtt::inflight::delivered;
use crate::edge::mqtt::promise::Promise;
use crate::edge::mqtt::reply::{Reply, ReplyTo};
use crate::edge::mqtt::{MqttServer, compress};
use crate::tr50::dispatch::note_failed;
use crate::tr50::exchange;
use crate::tr50::{self, Pending};

/// Bytes of the longest suffix with which `reply` is a topic still; `api` is shorter.
const SUFFIX_BYTES_MAX: usize = topic::TOPIC_BYTES_MAX - "reply".len();

/// Bytes that a short reply has, for which the first packet is begun.
pub(super) const REPLY_BYTES: u32 = 32;

/// Replies that went to a client which may be gone already, while somebody with the same login
/// waits for them.
pub(super) struct Unclaimed {
    since: Instant,
    replies: VecDeque<Reply>,
    bytes: usize,
}

impl Unclaimed {
    /// Bytes of the replies.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The replies, if the last of them is so young that the asker may have gone without it.
    pub(super) fn recent(self) -> VecDeque<Reply> {
        if self.since.elapsed() < limits::UNCLAIMED_WAIT { self.replies } else { VecDeque::new() }
    }
}

impl LoggedIn {
    /// Executes a TR50 request and answers it.
    pub(super) fn request(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        (compressed, suffix): (bool, &str),
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let properties = &publish.properties;
        let plain = !compressed
            && properties.response_topic.is_none()
            && properties.correlation_data.is_none();
        if plain && self.topics.is_none() && suffix.len() <= SUFFIX_BYTES_MAX {
            return self.plain_request(server, publish, suffix, now, out, owed);
        }
        let mut to = ReplyTo {
            compressed,
            suffix: suffix.into(),
            response_topic: properties.response_topic.map(Into::into),
            correlation_data: properties.correlation_data.map(Into::into),
            qos: publish.qos,
        };
        if let Err(failure) = self.check_response_topic(publish) {
            to.response_topic = None;
            return self.refuse(server, to, &failure, now, out);
        }
        if !compressed {
            return self.execute(server, to, publish.payload, now, out, owed);
        }
        let (app, frame_max) = (&server.app, server.app.config.limits.max_frame_bytes);
        // Whether or not it is a request: who sends only zeros pays for them.
        let charged = app.charge(&self.session, now);
        match charged.and_then(|()| compress::inflate_short(publish.payload, frame_max)) {
            Ok(Some(text)) => self.execute(server, to, &text, now, out, owed),
            Ok(None) => {
                let (app, session) = (app.clone(), self.session.clone());
                let payload = publish.payload.to_vec();
                let text_bytes = compress::inflated_max(&payload, frame_max);
                self.pause_until(owed, async move {
                    let inflate = move || compress::inflate(&payload, frame_max);
                    Done::Inflated(to, app.inflate(&session, inflate).await)
                });
                owed.note_blocked(text_bytes);
            }
            Err(failure) => self.refuse(server, to, &failure, now, out),
        }
    }

    /// Executes a long request that was inflated, or says why it can't be.
    pub fn inflated(
        &mut self,
        server: &Arc<MqttServer>,
        to: ReplyTo,
        text: Result<Vec<u8>, Failure>,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let now = server.app.clock.now();
        match text {
            Ok(text) => self.execute(server, to, &text, now, out, owed),
            Err(failure) => self.refuse(server, to, &failure, now, out),
        }
    }

    /// Executes a request whose text is there.
    fn execute(
        &mut self,
        server: &Arc<MqttServer>,
        to: ReplyTo,
        text: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let (mut body, held) = (Vec::new(), text.len() + to.bytes());
        let (app, room) = (&server.app, owed.has_room(held));
        match exchange::on_connection(app, &self.caller, text, room, now, &mut body) {
            None if to.compressed && body.len() > limits::DEFLATE_AT_ONCE_BYTES => {
                let bytes = held + body.len();
                let reply = ready(tr50::Reply::from_bytes(body));
                owe(owed, bytes, self.deflated(server, to, reply, true));
            }
            None => {
                let body = compress::deflate_if(to.compressed, body);
                self.send_reply(server, Reply { to, body }, out);
            }
            Some(pending) => self.promise(server, to, text.len(), pending, owed),
        }
    }

    /// Answers a request that is not executed.
    fn refuse(
        &mut self,
        server: &Arc<MqttServer>,
        to: ReplyTo,
        failure: &Failure,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        note_failed(&server.app, &self.caller, "", failure, now);
        let body = compress::deflate_if(to.compressed, failure.to_json());
        self.send_reply(server, Reply { to, body }, out);
    }

    /// The commonest request: answered without MQTT 5's properties, to an asker who has no
    /// subscriptions, as if it had subscribed. The reply is written where it is sent from.
    fn plain_request(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        suffix: &str,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let head = PublishHead {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            pkid: 0,
            topic: &[b"reply", suffix.as_bytes()],
            properties: &PublishProperties::default(),
            subscription_ids: &[],
        };
        let to = || ReplyTo {
            compressed: false,
            suffix: suffix.into(),
            response_topic: None,
            correlation_data: None,
            qos: publish.qos,
        };
        let start = out.len();
        let Ok(begun) = begin_publish(out, self.options.version, &head, self.reply_bytes as usize)
        else {
            return;
        };
        let body = out.len();
        let held = publish.payload.len() + suffix.len();
        let (app, room) = (&server.app, owed.has_room(held));
        match exchange::on_connection(app, &self.caller, publish.payload, room, now, out) {
            None => {
                if server.watchers.has(&self.principal) {
                    let body = out.get(body..).unwrap_or_default().to_vec();
                    self.leave_unclaimed(Reply { to: to(), body });
                }
                self.outbox.counters().add_message_out();
                // Who asks for long lists mostly goes on so: the next need not be moved.
                self.reply_bytes = (out.len() - body) as u32;
                if begun.end(out).is_err() || out.len() - start > self.options.packet_max {
                    out.truncate(start);
                    self.put_too_large(server, &head, out);
                }
            }
            Some(pending) => {
                out.truncate(start);
                self.promise(server, to(), publish.payload.len(), pending, owed);
            }
        }
    }

    /// Lets the reply to a request of so many bytes come when it is ready; meanwhile the client goes
    /// on.
    fn promise(
        &self,
        server: &MqttServer,
        to: ReplyTo,
        bytes: usize,
        pending: Pending,
        owed: &mut Owed,
    ) {
        let bytes = bytes + to.bytes() + pending.bytes();
        let Pending { waits_for_device: from_device, only_looks, holds_up, .. } = pending;
        // The store answers in the order in which it was asked; a reply that is deflated does not.
        let in_order = pending.is_for_store() && !to.compressed;
        let promise = match to.compressed {
            true => self.deflated(server, to, pending, only_looks),
            false => Promise::reply(to, pending),
        };
        if from_device {
            owed.push_from_device(bytes, promise);
        } else if in_order && owed.has_room(bytes) {
            owed.push(bytes, promise);
        } else if holds_up {
            owed.block(Box::pin(promise));
            owed.note_blocked(bytes);
        } else {
            owe(owed, bytes, promise);
        }
    }

    fn deflated(
        &self,
        server: &MqttServer,
        to: ReplyTo,
        reply: impl Future<Output = tr50::Reply> + Send + 'static,
        only_looks: bool,
    ) -> Promise {
        Promise::deflated(to, reply, only_looks, server.app.clone(), self.session.clone())
    }

    /// Fails if the session may not publish to the response topic.
    fn check_response_topic(&self, publish: &Publish<'_>) -> Result<(), Failure> {
        let Some(name) = publish.properties.response_topic else { return Ok(()) };
        if may_respond_on(name)
            && (Destination::of(name) != Destination::Broker || self.session.may_publish(name))
        {
            return Ok(());
        }
        let sentence = format!(
            "The response topic \"{}\" is not one that this session may publish to.",
            excerpt(name)
        );
        Err(Failure::new(Code::PERMISSION_DENIED, sentence))
    }

    /// Sends a client the notice of mail that waits for it, right after its CONNACK: some never ask
    /// by themselves (`docs/protocol/tr50.md` 4.2).
    pub fn greet(&mut self, server: &MqttServer, out: &mut Vec<u8>) {
        if let Some(message) = server.app.waiting_mail(&self.session) {
            self.send_message(server, &message, out);
        }
    }

    /// Sends what others put into the connection.
    pub fn send(&mut self, server: &Arc<MqttServer>, push: Push, out: &mut Vec<u8>) {
        match Reply::of(&push) {
            Some(reply) => self.send_reply(server, reply, out),
            None => self.send_message(server, &push, out),
        }
    }

    /// Sends a message on one of the server's own topics: with the quality of service of the
    /// client's subscriptions, or as if it had subscribed with QoS 0 (`docs/protocol/tr50.md` 0,
    /// fact 1).
    fn send_message(&mut self, server: &MqttServer, message: &Push, out: &mut Vec<u8>) {
        if message.topic.starts_with("thing/") && !self.may_read(server, &message.topic) {
            return;
        }
        let granted = self.topics.as_ref().and_then(|topics| topics.granted(&message.topic));
        let (qos, subscription_ids) = granted.unwrap_or_default();
        let (mut qos, mut pkid) = (qos.min(QoS::AtLeastOnce), 0);
        match &mut self.topics {
            Some(topics) if qos != QoS::AtMostOnce && topics.inflight.has_room() => {
                match topics.begin_reply() {
                    Some(id) => pkid = id,
                    None => qos = QoS::AtMostOnce,
                }
            }
            // Better once without an acknowledgement than not at all.
            _ => qos = QoS::AtMostOnce,
        }
        let head = PublishHead {
            dup: false,
            qos,
            retain: false,
            pkid,
            topic: &[message.topic.as_bytes()],
            properties: &PublishProperties::default(),
            subscription_ids: &subscription_ids,
        };
        self.put_limited(server, &head, &message.payload, out);
    }

    /// Sends a reply to its asker, on the topic that was asked for.
    pub fn send_reply(&mut self, server: &Arc<MqttServer>, reply: Reply, out: &mut Vec<u8>) {
        let name = reply.to.topic();
        if let Some(response_topic) = &reply.to.response_topic
            && Destination::of(response_topic) == Destination::Broker
        {
            return self.respond_through_broker(server, reply, name);
        }
        let granted = self.topics.as_ref().and_then(|topics| topics.granted(&name));
        let claimed = granted.is_some();
        let (granted, subscription_ids) = granted.unwrap_or_default();
        let mut qos = delivered(granted, reply.to.qos);
        let mut pkid = 0;
        if qos != QoS::AtMostOnce
            && let Some(topics) = &mut self.topics
        {
            if !topics.inflight.has_room() {
                if !topics.inflight.wait(reply) {
                    tracing::debug!("a reply for a client that does not acknowledge was dropped");
                }
                return;
            }
            match topics.begin_reply() {
                Some(id) => pkid = id,
                None => qos = QoS::AtMostOnce,
            }
        }
        let properties = PublishProperties {
            correlation_data: reply.to.correlation_data.as_deref(),
            ..PublishProperties::default()
        };
        let head = PublishHead {
            dup: false,
            qos,
            retain: false,
            pkid,
            topic: &[name.as_bytes()],
            properties: &properties,
            subscription_ids: &subscription_ids,
        };
        self.put_limited(server, &head, &reply.body, out);
        if !claimed && server.watchers.has(&self.principal) {
            self.leave_unclaimed(reply);
        }
    }

    /// Sends a response to an application topic, to whoever subscribed to it.
    fn respond_through_broker(&self, server: &Arc<MqttServer>, reply: Reply, name: String) {
        if !self.session.may_publish(&name) {
            // Its rights have changed since it asked.
            return self.log_refused(server, reply.to.qos, &name);
        }
        let properties = PublishProperties {
            correlation_data: reply.to.correlation_data.as_deref(),
            ..PublishProperties::default()
        };
        let about = (reply.to.qos, false);
        let now = server.app.clock.now();
        let message = Message::new(&name, &reply.body, about, &properties, now);
        let by = self.session.who().principal_id();
        server.app.broker.publish_detached(self.session.org_id(), message, by);
    }

    /// Writes a PUBLISH, or a failure in its place when the client said that it takes no packet
    /// of that size ([MQTT-3.1.2-24] of 5).
    fn put_limited(
        &self,
        server: &MqttServer,
        head: &PublishHead<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.outbox.counters().add_message_out();
        let version = self.options.version;
        let start = out.len();
        let written = encode::publish(out, version, head, body).is_ok();
        if written && out.len() - start <= self.options.packet_max {
            return;
        }
        out.truncate(start);
        self.put_too_large(server, head, out);
    }

    /// Writes the failure in place of a reply that is too large, if the client takes that.
    fn put_too_large(&self, server: &MqttServer, head: &PublishHead<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let sentence = "The reply is larger than the packets that the client accepts.";
        let failure = Failure::new(Code::REPLY_TOO_LARGE, sentence);
        note_failed(&server.app, &self.caller, "", &failure, server.app.clock.now());
        let failure = failure.to_json();
        if encode::publish(out, self.options.version, head, &failure).is_err()
            || out.len() - start > self.options.packet_max
        {
            out.truncate(start);
        }
    }

    fn leave_unclaimed(&mut self, reply: Reply) {
        let (since, replies) = (Instant::now(), VecDeque::new());
        let fresh = || Box::new(Unclaimed { since, replies, bytes: 0 });
        let unclaimed = self.unclaimed.get_or_insert_with(fresh);
        unclaimed.since = since;
        if unclaimed.replies.len() >= limits::UNCLAIMED_MAX
            && let Some(oldest) = unclaimed.replies.pop_front()
        {
            unclaimed.bytes -= oldest.bytes();
        }
        unclaimed.bytes += reply.bytes();
        unclaimed.replies.push_back(reply);
    }
}

/// Promises a reply; where too many are promised, the next bytes wait for it.
fn owe(owed: &mut Owed, bytes: usize, promise: Promise) {
    if owed.has_room(bytes) {
        owed.push_aside(bytes, promise);
    } else {
        owed.block(Box::pin(promise) as crate::edge::pending::Work<Done>);
        owed.note_blocked(bytes);
    }
}

/// Whether a response may go to this topic: to the asker's own reply topics, or where the asker
/// could publish itself.
fn may_respond_on(name: &str) -> bool {
    match Destination::of(name) {
        Destination::Broker => topic::valid_topic(name),
        Destination::Reserved => {
            let first = name.split('/').next().unwrap_or_default();
            matches!(first, "reply" | "replyz") && topic::valid_topic(name)
        }
        Destination::Dispatcher { .. } | Destination::Thing(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_stay_where_the_asker_may_publish() {
        for name in ["reply", "reply/x", "replyz/1", "my/answers"] {
            assert!(may_respond_on(name), "{name}");
        }
        for name in ["thing/a/property/b", "api", "api/1", "notify/mailbox_activity", "$SYS/x", ""]
        {
            assert!(!may_respond_on(name), "{name}");
        }
    }
}
