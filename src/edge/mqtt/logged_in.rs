//! An MQTT client that is logged in: every packet after CONNECT.

mod acks;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use ::mqtt::encode;
use ::mqtt::packet::{Ack, Disconnect};
use ::mqtt::{Packet, Publish, QoS, Version, reason};
use base::{ConnInfo, Timestamp, limits};
use rules::directory::{Outbox, Principal, Push, Reason, Session};

use self::acks::Acks;
use self::request::Unclaimed;
use super::client::{Closing, Done, Owed};
use super::near_topic::{self, Did};
use super::promise::Promise;
use super::reply::Reply;
use super::session_states::Owner;
use super::thing_command::{Begun, ThingCommand};
use super::topics::{Subscriber, TopicWork, Topics};
use super::{MqttServer, broker_code};
use crate::broker::Message;
use crate::things::feed::{self, ThingTopic};
use crate::tr50::dispatch::Caller;

/// What a client said of itself in CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// The protocol of its frames.
    pub version: Version,
    /// How long it may be silent; none: for ever.
    pub keep_alive: Option<Duration>,
    /// Bytes of the largest packet that it takes.
    pub packet_max: usize,
    /// Deliveries with QoS 1 that it takes at once.
    pub receive_max: u16,
    /// Seconds for which its state is to outlive the connection; `u32::MAX`: for ever. A DISCONNECT
    /// of MQTT 5 may set it anew.
    pub expiry_s: u32,
}

/// A client that is logged in.
pub struct LoggedIn {
    caller: Caller,
    session: Arc<Session>,
    principal: Principal,
    options: ConnectOptions,
    outbox: Arc<Outbox>,
    /// Subscriptions and what comes of them; most devices have none.
    topics: Option<Box<Topics>>,
    has_will: bool,
    /// Login and client id, by which the client's state is known.
    name: Owner,
    /// Inbound QoS 2 messages that were taken and not released.
    qos2: Vec<u16>,
    /// Acknowledgements that wait for a command, and those behind them.
    acks: Acks,
    unclaimed: Option<Box<Unclaimed>>,
    /// Whether the log has a line on a topic that it most likely did not mean.
    noted: bool,
}

impl LoggedIn {
    /// A client without subscriptions.
    pub fn new(
        session: Arc<Session>,
        conn: ConnInfo,
        options: ConnectOptions,
        name: Owner,
        has_will: bool,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            caller: Caller { session: Some(session.clone()), conn },
            principal: session.who().principal(),
            session,
            options,
            outbox,
            topics: None,
            has_will,
            name,
            qos2: Vec::new(),
            acks: Acks::default(),
            unclaimed: None,
            noted: false,
        }
    }

    /// The session.
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// How long it may be silent.
    pub const fn keep_alive(&self) -> Option<Duration> {
        self.options.keep_alive
    }

    /// Takes up what an earlier connection of the client left; whether there was something.
    pub async fn resume(&mut self, server: &Arc<MqttServer>, now: Timestamp) -> bool {
        let org = self.session.org_id();
        let subscriptions = server.session_states.find(&self.name, org, now);
        if subscriptions.is_none() {
            // What the broker may have is of no use without the subscriptions.
            server.forget(org, &self.name).await;
        }
        let present = subscriptions.is_some();
        let subscriptions = subscriptions.unwrap_or_default();
        if !subscriptions.is_empty() {
            let mut topics = self.no_topics(server);
            topics.resume(subscriptions).await;
            self.topics = Some(topics);
        }
        self.keep_state(server, None);
        present
    }

    /// Keeps the client's subscriptions for when it comes back, if it wants that. For MQTT 3.1,
    /// whose CONNACK can't tell of them, only if there are some: a fleet of libtr50 never asks for
    /// a clean session and never subscribes (`docs/protocol/tr50.md` 0, facts 1 and 6).
    fn keep_state(&self, server: &Arc<MqttServer>, until: Option<Timestamp>) {
        let org = self.session.org_id();
        let subscriptions =
            self.topics.as_ref().map_or_else(Vec::new, |topics| topics.subscriptions_in(org));
        if self.options.expiry_s > 0
            && (self.options.version != Version::V31 || !subscriptions.is_empty())
        {
            server.session_states.keep(&self.name, org, subscriptions, until);
        } else {
            server.session_states.forget(&self.name);
        }
    }

    /// Deals with a packet other than PUBLISH.
    pub fn receive(
        &mut self,
        server: &Arc<MqttServer>,
        packet: Packet<'_>,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        if !matches!(packet, Packet::Disconnect(_) | Packet::PubAck(_)) {
            self.claim();
        }
        match packet {
            Packet::PingReq => encode::pingresp(out),
            Packet::PubAck(ack) => self.acknowledged(server, ack, out),
            Packet::PubRel(ack) => {
                let known = take(&mut self.qos2, ack.pkid);
                let code = if known { reason::SUCCESS } else { reason::PACKET_ID_NOT_FOUND };
                encode::pubcomp(out, self.options.version, ack.pkid, code);
            }
            Packet::Subscribe(packet) => {
                // A packet has room for 250,000.
                let filters = packet.filters.take(limits::SUBSCRIPTIONS_MAX);
                filters.for_each(|wanted| self.note(Did::Subscribe, wanted.filter));
                let topics = self.topics.take().unwrap_or_else(|| self.no_topics(server));
                owed.block(topics.subscribe(&packet));
            }
            Packet::Unsubscribe(packet) => {
                let filters = packet.filters.map(Into::into).collect();
                let topics = self.topics.take().unwrap_or_else(|| self.no_topics(server));
                owed.block(topics.unsubscribe(packet.pkid, filters));
            }
            Packet::Disconnect(packet) => return Err(self.disconnect(&packet)),
            // Nothing is ever sent with QoS 2, so these answer nothing.
            Packet::PubRec(_) | Packet::PubComp(_) => {}
            // [MQTT-3.1.0-2]: a second CONNECT is a protocol error; so is what only servers send.
            _ => return Err(Closing::broken(reason::PROTOCOL_ERROR)),
        }
        Ok(())
    }

    fn disconnect(&mut self, packet: &Disconnect<'_>) -> Closing {
        if let Some(expiry_s) = packet.properties.session_expiry {
            if self.options.expiry_s == 0 && expiry_s > 0 {
                // What was not to be kept stays so ([MQTT-3.14.2-2] of 5).
                return Closing::broken(reason::PROTOCOL_ERROR);
            }
            self.options.expiry_s = expiry_s;
        }
        // Only a normal end takes the will back ([MQTT-3.14.4-3] of 5).
        let will = packet.reason != reason::SUCCESS;
        Closing { will, code: None, ..Closing::ended(Reason::LoggedOut) }
    }

    /// Notes that the client is still there: what was sent to it has come to the right place.
    fn claim(&mut self) {
        self.unclaimed = None;
    }

    /// Deals with a PUBLISH.
    pub fn publish(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        self.claim();
        if publish.properties.topic_alias.is_some() {
            // CONNACK promised none ([MQTT-3.3.2-9] of 5).
            return Err(Closing::broken(reason::TOPIC_ALIAS_INVALID));
        }
        if publish.properties.repeated.subscription_ids().next().is_some() {
            // Only a server says which subscriptions a message falls under ([MQTT-3.3.4-6] of 5).
            return Err(Closing::broken(reason::PROTOCOL_ERROR));
        }
        if publish.qos == QoS::ExactlyOnce && self.qos2.contains(&publish.pkid) {
            // Sent again before PUBREC came: it was taken the first time ([MQTT-4.3.3-10]).
            if !self.acks.waits(publish.qos, publish.pkid) {
                encode::pubrec(out, self.options.version, publish.pkid, reason::SUCCESS);
            }
            return Ok(());
        }
        match Destination::of(publish.topic) {
            Destination::Dispatcher { compressed, suffix } => {
                self.acknowledge(publish.qos, publish.pkid, reason::SUCCESS, out)?;
                self.request(server, publish, (compressed, suffix), now, out, owed);
                Ok(())
            }
            Destination::Thing(topic) => self.command(server, publish, topic, now, out, owed),
            Destination::Reserved => {
                self.note(Did::Publish(publish.payload), publish.topic);
                let code = reason::NOT_AUTHORIZED;
                self.acknowledge(publish.qos, publish.pkid, code, out)
            }
            Destination::Broker => {
                if !self.noted && near_topic::may_be_near(publish.topic) {
                    self.note(Did::Publish(publish.payload), publish.topic);
                }
                self.forward(server, publish, out, owed)
            }
        }
    }

    /// Logs a topic that was most likely not meant, once a session.
    fn note(&mut self, did: Did<'_>, name: &str) {
        let peer = self.caller.conn.remote_addr;
        self.noted = self.noted || near_topic::note(&self.session, peer, did, name);
    }

    /// Acknowledges a PUBLISH as its quality of service asks for: behind those before it
    /// ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
    fn acknowledge(
        &mut self,
        qos: QoS,
        pkid: u16,
        code: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        if qos == QoS::AtMostOnce {
            return Ok(());
        }
        if code < reason::UNSPECIFIED {
            self.take_id(qos, pkid)?;
        }
        if self.acks.is_empty() {
            self.write_ack(qos, pkid, code, out);
            return Ok(());
        }
        let room = self.acks.push(qos, pkid, Some(code));
        if room { Ok(()) } else { Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED)) }
    }

    /// Notes that a message with QoS 2 was taken, until its PUBREL comes.
    fn take_id(&mut self, qos: QoS, pkid: u16) -> Result<(), Closing> {
        if qos == QoS::ExactlyOnce && !self.qos2.contains(&pkid) {
            if self.qos2.len() >= usize::from(limits::QOS2_MAX) {
                return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
            }
            self.qos2.push(pkid);
        }
        Ok(())
    }

    /// Forgets the id of a message with QoS 2 that was refused: no PUBREL comes for it.
    fn give_back(&mut self, qos: QoS, pkid: u16, code: u8) {
        if qos == QoS::ExactlyOnce && code >= reason::UNSPECIFIED {
            take(&mut self.qos2, pkid);
        }
    }

    /// Takes the acknowledgement that a command was to bring first, and writes those that waited
    /// for it.
    pub fn acknowledge_command(&mut self, qos: QoS, pkid: u16, code: u8, out: &mut Vec<u8>) {
        self.give_back(qos, pkid, code);
        self.acks.keep(qos, pkid, code);
        while let Some((qos, pkid, code)) = self.acks.next() {
            self.write_ack(qos, pkid, code, out);
        }
    }

    fn write_ack(&self, qos: QoS, pkid: u16, code: u8, out: &mut Vec<u8>) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => encode::puback(out, self.options.version, pkid, code),
            QoS::ExactlyOnce => encode::pubrec(out, self.options.version, pkid, code),
        }
    }

    /// Executes a command that was published. It is acknowledged when it is done; meanwhile the
    /// client goes on, unless too many are under way.
    fn command(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        topic: ThingTopic<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        let (qos, pkid) = (publish.qos, publish.pkid);
        let Some(command) = ThingCommand::read(topic, publish.payload) else {
            return self.acknowledge(qos, pkid, reason::PAYLOAD_FORMAT_INVALID, out);
        };
        // Before it is executed: it must not be executed and then be refused.
        self.take_id(qos, pkid)?;
        let judged = match command.begin(&server.app, &self.caller, now) {
            Begun::Done(code) => {
                self.give_back(qos, pkid, code);
                return self.acknowledge(qos, pkid, code, out);
            }
            Begun::Later(judged) => judged,
        };
        let bytes = publish.payload.len();
        if !owed.has_room(bytes) {
            owed.block(Box::pin(async move {
                let code = judged.await;
                Done::Topics(TopicWork::Published { qos, pkid, code })
            }));
            return Ok(());
        }
        if qos != QoS::AtMostOnce && !self.acks.push(qos, pkid, None) {
            return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
        }
        owed.push(bytes, Promise::Command(qos, pkid, judged));
        Ok(())
    }

    /// Whether the client may read this topic of a thing now.
    pub(super) fn may_read(&self, server: &MqttServer, name: &str) -> bool {
        let named =
            ThingTopic::parse(name).and_then(|name| Some((name.key(&self.session)?, name.topic)));
        let Some((thing, topic)) = named else { return false };
        feed::may_read(&server.app.things, &self.session, &thing, topic).unwrap_or(false)
    }

    /// Hands a message to the broker. When the broker is behind, this client waits.
    fn forward(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        let message = Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: &publish.properties,
            publisher: self.session.number(),
        };
        let org = self.session.org_id();
        let (qos, pkid) = (publish.qos, publish.pkid);
        server.app.metrics.broker_received();
        let handed_over = match server.broker.pack(&message) {
            Ok(packed) => server.broker.try_publish(org, packed),
            Err(error) => return self.acknowledge(qos, pkid, broker_code(error), out),
        };
        let Err(packed) = handed_over else {
            return self.acknowledge(qos, pkid, reason::SUCCESS, out);
        };
        let server = server.clone();
        owed.block(Box::pin(async move {
            let published = server.broker.publish(org, packed).await;
            let code = published.map_or_else(broker_code, |()| reason::SUCCESS);
            Done::Topics(TopicWork::Published { qos, pkid, code })
        }));
        Ok(())
    }

    fn acknowledged(&mut self, server: &Arc<MqttServer>, ack: Ack, out: &mut Vec<u8>) {
        let Some(topics) = &mut self.topics else { return };
        topics.acknowledged(ack.pkid);
        while let Some(reply) = self.topics.as_mut().and_then(|t| t.inflight.next_waiting()) {
            self.send_reply(server, reply, out);
        }
    }

    fn no_topics(&self, server: &Arc<MqttServer>) -> Box<Topics> {
        let subscriber = Subscriber {
            session: self.session.clone(),
            name: self.name.clone(),
            options: self.options,
            outbox: self.outbox.clone(),
        };
        Box::new(Topics::new(server.clone(), subscriber))
    }

    /// Takes what came of work with the broker.
    pub fn finish_topics(&mut self, server: &Arc<MqttServer>, work: TopicWork, out: &mut Vec<u8>) {
        let version = self.options.version;
        match work {
            TopicWork::Published { qos, pkid, code } => {
                self.give_back(qos, pkid, code);
                // The room for QoS 2 ids was there before; one more does no harm.
                let _ = self.acknowledge(qos, pkid, code, out);
            }
            TopicWork::Subscribed { topics, pkid, codes } => {
                self.topics = Some(topics);
                let written = encode::suback(out, version, pkid, &codes);
                debug_assert!(written.is_ok(), "a SUBACK is shorter than its SUBSCRIBE");
                self.keep_state(server, None);
            }
            TopicWork::Unsubscribed { topics, pkid, codes } => {
                self.topics = Some(topics);
                let written = encode::unsuback(out, version, pkid, &codes);
                debug_assert!(written.is_ok(), "an UNSUBACK is shorter than its UNSUBSCRIBE");
                self.keep_state(server, None);
            }
        }
    }

    /// Writes what the broker delivers, as long as the client takes it.
    pub fn poll_deliveries(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        if let Some(topics) = &mut self.topics {
            topics.poll_deliveries(cx, out);
        }
    }

    /// Ends everything that hangs on the connection. A client that was lost may be back before the
    /// loss is noticed: then its new connection has taken the session over, whatever was noticed.
    pub async fn end(
        mut self,
        server: &Arc<MqttServer>,
        closing: Closing,
        unread: VecDeque<Push>,
        owed: Owed,
    ) {
        let now = Timestamp::now();
        let unclaimed = self.unclaimed.take().map(|unclaimed| unclaimed.recent());
        if self.session.end().is_none_or(|end| end.reason != Reason::Replaced) {
            let until = (self.options.expiry_s != u32::MAX)
                .then(|| now.plus_seconds(self.options.expiry_s.into()));
            self.keep_state(server, until);
        }
        if let Some(topics) = self.topics.take() {
            topics.close(self.session.org_id(), self.options.expiry_s).await;
        }
        if !server.watchers.has(&self.principal) {
            // Nobody is left who could get the answers of devices.
            server.app.mailbox.hang_up(self.session.number());
        }
        let unclaimed = unclaimed.into_iter().flatten().map(Push::from);
        for push in unclaimed.chain(unread.into_iter().filter(|push| push.reply.is_some())) {
            server.watchers.deliver(&self.principal, &push);
        }
        self.finish_without_client(server, owed);
        if self.has_will {
            let last = (closing.will, self.options.expiry_s);
            server.wills.leave(server, &self.name, &self.session, last);
        }
        // Last, so that a new connection is the one that takes over until all this is done.
        server.app.end(&self.session, closing.reason, now);
    }

    /// Finishes what was begun for a client that is gone: others with the same login may wait for
    /// the replies.
    fn finish_without_client(&self, server: &Arc<MqttServer>, mut owed: Owed) {
        if owed.is_empty() {
            return;
        }
        let (server, principal) = (server.clone(), self.principal.clone());
        tokio::spawn(async move {
            while let Some(done) = owed.next(true).await {
                if let Done::Reply(to, reply) = done {
                    reply.send(|body| {
                        server.watchers.deliver(&principal, &Push::from(Reply { to, body }));
                    });
                }
            }
        });
    }
}

/// Where a PUBLISH, or a will, goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Destination<'a> {
    /// `api…`: a TR50 request.
    Dispatcher { compressed: bool, suffix: &'a str },
    /// A topic of a thing: a command.
    Thing(ThingTopic<'a>),
    /// A topic on which only the server speaks.
    Reserved,
    /// Ordinary MQTT.
    Broker,
}

impl<'a> Destination<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        match name.strip_prefix("api") {
            Some(suffix) if suffix.is_empty() || suffix.starts_with('/') => {
                Self::Dispatcher { compressed: false, suffix }
            }
            _ => Self::of_other(name),
        }
    }

    /// The same for all topics but the commonest.
    fn of_other(name: &'a str) -> Self {
        let (first, suffix) =
            name.split_at(name.bytes().position(|byte| byte == b'/').unwrap_or(name.len()));
        match first {
            "apiz" => Self::Dispatcher { compressed: true, suffix },
            "reply" | "replyz" | "notify" => Self::Reserved,
            first if first.starts_with('$') => Self::Reserved,
            "thing" if !suffix.is_empty() => match ThingTopic::parse(name) {
                Some(thing) if thing.is_published() => Self::Thing(thing),
                _ => Self::Reserved,
            },
            _ => Self::Broker,
        }
    }
}

fn take(ids: &mut Vec<u16>, id: u16) -> bool {
    match ids.iter().position(|known| *known == id) {
        Some(index) => {
            ids.swap_remove(index);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::things::feed::Topic;

    #[test]
    fn a_topic_has_one_destination() {
        let api = |suffix| Destination::Dispatcher { compressed: false, suffix };
        let check = |name, expected| assert_eq!(Destination::of(name), expected, "{name}");
        check("api", api(""));
        check("api/", api("/"));
        check("api/0001", api("/0001"));
        check("api/a/b", api("/a/b"));
        check("apiz/7", Destination::Dispatcher { compressed: true, suffix: "/7" });
        check("apis/7", Destination::Broker);
        check("reply/1", Destination::Reserved);
        check("notify/mailbox_activity", Destination::Reserved);
        check("$SYS/broker", Destination::Reserved);
        check("/api", Destination::Broker);
        check("plant/7", Destination::Broker);
        let topic = Topic::Property("temp");
        check("thing/a/property/temp", Destination::Thing(ThingTopic { thing: "a", topic }));
        let topic = Topic::Alarm("x/y");
        check("thing/self/alarm/x/y", Destination::Thing(ThingTopic { thing: "self", topic }));
        check("thing/a/location", Destination::Reserved);
        check("thing/a/connected", Destination::Reserved);
        check("thing/a", Destination::Reserved);
        check("thing/", Destination::Reserved);
        check("thing", Destination::Broker);
        check("things/a/property/temp", Destination::Broker);
    }
}
