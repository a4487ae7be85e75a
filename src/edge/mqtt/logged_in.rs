//! An MQTT client that is logged in: every packet after CONNECT.

mod acks;
mod details;
mod request;
mod withheld;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use ::mqtt::encode;
use ::mqtt::packet::{Ack, Disconnect};
use ::mqtt::{Packet, Publish, QoS, Version, reason};
use base::{ConnInfo, OrgId, Timestamp, carried_on, limits};
use rules::directory::{Outbox, Principal, Push, Reason, Session};
use store::{Batch, Receipt, StoreError};
use tokio_util::sync::CancellationToken;

pub(super) use self::acks::AckReason;
use self::acks::Acks;
use self::request::Unclaimed;
pub(super) use self::withheld::carry_out;
use self::withheld::{Withheld, may_succeed_later};
use super::MqttServer;
use super::client::{Closing, Done, Owed};
use super::near_topic::{self, Did};
use super::promise::Promise;
use super::reply::Reply;
use super::thing_command::{Begun, ThingCommand};
use super::topics::{self, Delivered, Subscriber, TopicWork, Topics};
use crate::app::{Account, Place};
use crate::broker::{
    Broker, FanOut, Message, Owner, Published, Publisher, Publishing, Session as BrokerSession,
    Unretained,
};
use crate::edge::driver::Pass;
use crate::logging::PeerLog;
use crate::peer_log;
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
    /// Messages with QoS 1 and 2 that it takes at once.
    pub receive_max: u16,
    /// Highest topic alias that it takes.
    pub topic_alias_max: u16,
    /// Whether it takes reason strings: of MQTT 5 all that do not say otherwise.
    pub reasons: bool,
    /// Whether it is the bridge of another broker.
    pub bridge: bool,
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
    /// Its place among the connections.
    _place: Option<Place>,
    outbox: Arc<Outbox>,
    /// Subscriptions and what comes of them; most devices have none.
    topics: Option<Box<Topics>>,
    /// Of its will; 0: it has none.
    will_bytes: usize,
    /// Login and client id, by which the client's state is known.
    name: Owner,
    /// Inbound QoS 2 messages that were taken and not released; those of a session that outlives the
    /// connection are in the broker, too.
    qos2: Vec<u16>,
    /// Topics by the aliases that the client has given them, from 1 on; empty ones have none.
    aliases: Vec<Box<str>>,
    /// Acknowledgements that wait for a command, and those behind them.
    acks: Acks,
    unclaimed: Option<Box<Unclaimed>>,
    /// Commands that wait for another trial, each with its acknowledgement in `acks`.
    withheld: VecDeque<Withheld>,
    /// Set while the next packets wait for a publish that may take long; ends that wait.
    paused: Option<CancellationToken>,
    /// Bytes of the last reply: the next is probably about as long.
    reply_bytes: u32,
    /// Whether others had their turn since bytes came.
    had_turn: bool,
    /// Whether `topics` are with a SUBSCRIBE or UNSUBSCRIBE that is worked on.
    at_work: bool,
    /// Whether the log has a line on a topic that it most likely did not mean.
    noted: bool,
}

impl LoggedIn {
    /// A client without subscriptions.
    pub fn new(
        (session, place): (Arc<Session>, Option<Place>),
        conn: ConnInfo,
        options: ConnectOptions,
        name: Owner,
        will_bytes: usize,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            caller: Caller::new(Some(session.clone()), conn),
            principal: session.who().principal(),
            session,
            options,
            _place: place,
            outbox,
            topics: None,
            will_bytes,
            name,
            qos2: Vec::new(),
            aliases: Vec::new(),
            acks: Acks::default(),
            unclaimed: None,
            withheld: VecDeque::new(),
            paused: None,
            reply_bytes: request::REPLY_BYTES,
            had_turn: false,
            at_work: false,
            noted: false,
        }
    }

    /// Bytes came.
    pub const fn on_bytes(&mut self) {
        self.had_turn = false;
    }

    /// The session.
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Bytes that are kept for the client, or for another one with its login.
    pub fn held(&self) -> usize {
        let topics = self.topics.as_ref().map_or(0, |topics| topics.inflight.held());
        let unclaimed = self.unclaimed.as_ref().map_or(0, |unclaimed| unclaimed.bytes());
        let aliases: usize = self.aliases.iter().map(|topic| topic.len()).sum();
        topics + unclaimed + aliases + self.will_bytes
    }

    /// How long it may be silent.
    pub const fn keep_alive(&self) -> Option<Duration> {
        self.options.keep_alive
    }

    /// Takes up what an earlier connection of the client left; whether there was something.
    pub fn resume(&mut self, server: &Arc<MqttServer>, now: Timestamp) -> bool {
        let place = (self.session.org_id(), topics::identity_of(&self.session));
        let is_current = || self.session.end().is_none();
        let (connection, expiry_s) = ((&self.outbox, &is_current as _), self.options.expiry_s);
        let broker = &server.app.broker;
        let Some(link) = broker.resume(&self.name, place, expiry_s, connection, now) else {
            return false;
        };
        self.qos2 = server.app.broker.received(&link.session);
        let mut topics = Box::new(Topics::new(server.clone(), self.subscriber(), link));
        topics.resume();
        self.topics = Some(topics);
        true
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
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.acknowledged(server, ack, out),
            Packet::PubRec(ack) => self.taken(server, ack, out, owed),
            Packet::PubRel(ack) => self.released(server, ack, out, owed),
            Packet::Subscribe(packet) => {
                // A packet has room for 250,000.
                let filters = packet.filters.take(limits::SUBSCRIPTIONS_MAX);
                filters.for_each(|wanted| self.note(server, Did::Subscribe, wanted.filter));
                match self.take_topics(server) {
                    Ok(topics) => {
                        self.at_work = true;
                        owed.block(topics.subscribe(&packet));
                    }
                    Err(AckReason { code, why }) => {
                        let codes = vec![code; packet.filters.count()];
                        return self.write_suback(server, packet.pkid, (codes, why), out);
                    }
                }
            }
            Packet::Unsubscribe(packet) => match self.topics.take() {
                Some(topics) => {
                    let filters = packet.filters.map(Into::into).collect();
                    self.at_work = true;
                    owed.block(topics.unsubscribe(packet.pkid, filters));
                }
                None => {
                    let codes = vec![reason::NO_SUBSCRIPTION_EXISTED; packet.filters.count()];
                    self.write_unsuback(packet.pkid, &codes, out);
                }
            },
            Packet::Disconnect(packet) => return Err(self.disconnect(&packet)),
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
        let topic;
        let publish = match publish.properties.topic_alias {
            Some(alias) => {
                topic = self.topic_of(alias.get(), publish.topic)?;
                &Publish { topic: &topic, ..*publish }
            }
            None => publish,
        };
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
                if self.accept(server, publish.qos, publish.pkid, out, owed)? {
                    self.request(server, publish, (compressed, suffix), now, out, owed);
                }
                Ok(())
            }
            Destination::Thing(topic) => self.command(server, publish, topic, now, out, owed),
            Destination::Reserved => {
                self.note(server, Did::Publish(publish.payload), publish.topic);
                server.app.metrics.publish_refused(publish.qos, "not_authorized");
                let code = reason::NOT_AUTHORIZED;
                self.acknowledge(publish.qos, publish.pkid, code, out)
            }
            Destination::Broker => {
                if !self.noted && near_topic::may_be_near(publish.topic) {
                    self.note(server, Did::Publish(publish.payload), publish.topic);
                }
                self.forward(server, publish, now, out, owed)
            }
        }
    }

    /// The topic that a client means by an alias; one that it names is meant from now on (MQTT 5,
    /// 3.3.2.3.4).
    fn topic_of(&mut self, alias: u16, named: &str) -> Result<Box<str>, Closing> {
        if !(1..=limits::TOPIC_ALIASES_MAX).contains(&alias) {
            return Err(Closing::broken(reason::TOPIC_ALIAS_INVALID));
        }
        let index = usize::from(alias - 1);
        if named.is_empty() {
            let known = self.aliases.get(index).filter(|known| !known.is_empty());
            return known.cloned().ok_or(Closing::broken(reason::PROTOCOL_ERROR));
        }
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, Box::default());
        }
        if let Some(known) = self.aliases.get_mut(index) {
            *known = named.into();
        }
        Ok(named.into())
    }

    /// Logs a topic that was most likely not meant, once a session.
    fn note(&mut self, server: &MqttServer, did: Did<'_>, name: &str) {
        let peer = self.caller.conn.remote_addr;
        self.noted = self.noted || near_topic::note(&server.app, &self.session, peer, did, name);
    }

    /// Acknowledges a PUBLISH as its quality of service asks for: behind those before it
    /// ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
    fn acknowledge(
        &mut self,
        qos: QoS,
        pkid: u16,
        reason: impl Into<AckReason>,
        out: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        if qos == QoS::AtMostOnce {
            return Ok(());
        }
        if self.acks.is_empty() {
            self.write_ack(qos, pkid, &reason.into(), out);
            return Ok(());
        }
        let room = self.acks.push(qos, pkid, Some(reason.into()));
        if room { Ok(()) } else { Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED)) }
    }

    /// Accepts a request: it is acknowledged before it is carried out, and its packet id is stored
    /// meanwhile. False if it is refused, because the store takes nothing.
    fn accept(
        &mut self,
        server: &Arc<MqttServer>,
        qos: QoS,
        pkid: u16,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<bool, Closing> {
        let batch = self.take_id(server, qos, pkid)?;
        match server.app.broker.submit(batch) {
            // After a crash in between, a client that has no PUBREC asks again.
            Ok(receipt) => drop(receipt),
            Err(_) => {
                return self.acknowledge_lost(server, qos, pkid, out, owed).map(|()| false);
            }
        }
        self.acknowledge(qos, pkid, reason::SUCCESS, out).map(|()| true)
    }

    /// Acknowledges a message when it is stored.
    fn acknowledge_stored(
        &mut self,
        server: &MqttServer,
        (qos, pkid): (QoS, u16),
        (reason, stored): (AckReason, Result<Receipt, StoreError>),
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        match stored {
            Ok(receipt) if receipt.is_nothing() || qos == QoS::AtMostOnce => {
                self.acknowledge(qos, pkid, reason, out)
            }
            Ok(receipt) => {
                if !self.acks.push(qos, pkid, None) {
                    return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
                }
                let promise = Promise::Stored(qos, pkid, reason, receipt);
                owe(owed, promise);
                Ok(())
            }
            Err(error) => {
                not_stored(&error);
                self.acknowledge_lost(server, qos, pkid, out, owed)
            }
        }
    }

    /// A message was not stored. A client of MQTT 5 is told; others get no acknowledgement, and send
    /// it again on a new connection.
    fn acknowledge_lost(
        &mut self,
        server: &MqttServer,
        qos: QoS,
        pkid: u16,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        server.app.metrics.publish_refused(qos, "store");
        if qos == QoS::AtMostOnce {
            return Ok(());
        }
        self.give_back(server, qos, pkid, reason::UNSPECIFIED);
        if self.options.version != Version::V5 {
            return self.lose(owed);
        }
        self.acknowledge(qos, pkid, reason::UNSPECIFIED, out)
    }

    /// A publish was withheld for too long.
    pub fn lost(&mut self, server: &MqttServer, qos: QoS, pkid: u16) -> Closing {
        server.app.metrics.publish_refused(qos, "withheld");
        self.give_back(server, qos, pkid, reason::UNSPECIFIED);
        Closing::broken(reason::UNSPECIFIED)
    }

    /// Notes that a message with QoS 2 was taken, until its PUBREL comes; what is to be stored of
    /// that.
    fn take_id(&mut self, server: &Arc<MqttServer>, qos: QoS, pkid: u16) -> Result<Batch, Closing> {
        let mut batch = Batch::default();
        if qos == QoS::ExactlyOnce && !self.qos2.contains(&pkid) {
            if self.qos2.len() >= usize::from(limits::QOS2_MAX) {
                return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
            }
            self.qos2.push(pkid);
            if self.options.expiry_s > 0
                && let Ok(topics) = self.take_topics(server)
            {
                server.app.broker.receive(&topics.link().session, pkid, &mut batch);
                self.topics = Some(topics);
            }
        }
        Ok(batch)
    }

    /// Forgets the id of a message with QoS 2 that was refused: no PUBREL comes for it, and what comes
    /// under it next, maybe on another connection, is another message, or this one again.
    fn give_back(&mut self, server: &MqttServer, qos: QoS, pkid: u16, code: u8) {
        if qos == QoS::ExactlyOnce && code >= reason::UNSPECIFIED {
            take(&mut self.qos2, pkid);
            if let Some(topics) = &self.topics
                && let Ok(receipt) = server.app.broker.give_back(&topics.link().session, pkid)
            {
                // A client that is refused may use the id again at once.
                drop(receipt);
            }
        }
    }

    /// Takes the acknowledgement that something was to bring first, and writes those that waited for
    /// it.
    pub fn acknowledge_later(
        &mut self,
        server: &MqttServer,
        qos: QoS,
        pkid: u16,
        reason: Option<AckReason>,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        let code = reason.as_ref().map_or(reason::UNSPECIFIED, |reason| reason.code);
        self.give_back(server, qos, pkid, code);
        if reason.is_none() {
            server.app.metrics.publish_refused(qos, "store");
        }
        let reason = match reason {
            Some(reason) => reason,
            None if self.options.version == Version::V5 || qos == QoS::AtMostOnce => {
                reason::UNSPECIFIED.into()
            }
            None => return self.lose(owed),
        };
        self.acks.keep(qos, pkid, reason);
        while let Some((qos, pkid, reason)) = self.acks.next() {
            self.write_ack(qos, pkid, &reason, out);
        }
        Ok(())
    }

    /// The client has taken a message with QoS 2, or refuses it: it is released when that is stored.
    pub fn taken(
        &mut self,
        server: &Arc<MqttServer>,
        ack: Ack,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let version = self.options.version;
        if ack.reason >= reason::UNSPECIFIED
            && self.topics.as_mut().is_some_and(|topics| topics.is_sent(ack.pkid))
        {
            return self.acknowledged(server, ack, out);
        }
        let Some(taken) = self.topics.as_mut().and_then(|topics| topics.taken(ack.pkid)) else {
            return encode::pubrel(out, version, ack.pkid, reason::PACKET_ID_NOT_FOUND);
        };
        match taken {
            Ok(receipt) if !receipt.is_nothing() => {
                let promise = Promise::Taken(ack.pkid, receipt);
                owe(owed, promise);
            }
            Ok(_) => encode::pubrel(out, version, ack.pkid, reason::SUCCESS),
            Err(StoreError::Busy(_)) => again(ack, false, owed),
            Err(error) => {
                // Without PUBREL, it goes on from here on the client's next connection.
                not_stored(&error);
            }
        }
    }

    /// The client has released a message with QoS 2: it is complete when that is stored, and its id
    /// may be used again.
    pub fn released(
        &mut self,
        server: &Arc<MqttServer>,
        ack: Ack,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) {
        let version = self.options.version;
        if !take(&mut self.qos2, ack.pkid) {
            return encode::pubcomp(out, version, ack.pkid, reason::PACKET_ID_NOT_FOUND);
        }
        let session = self.topics.as_ref().map(|topics| topics.link().session.clone());
        let stored = session.map(|session| server.app.broker.release(&session, ack.pkid));
        match stored {
            Some(Ok(receipt)) if !receipt.is_nothing() => {
                let promise = Promise::Released(ack.pkid, receipt);
                owe(owed, promise);
            }
            Some(Err(error)) => {
                // Without PUBCOMP, the client releases it anew on its next connection.
                self.qos2.push(ack.pkid);
                match error {
                    StoreError::Busy(_) => again(ack, true, owed),
                    error => drop(not_stored(&error)),
                }
            }
            Some(Ok(_)) | None => encode::pubcomp(out, version, ack.pkid, reason::SUCCESS),
        }
    }

    fn write_ack(&self, qos: QoS, pkid: u16, reason: &AckReason, out: &mut Vec<u8>) {
        let (code, start) = (reason.code, out.len());
        if let Some(why) = reason.why.as_deref().filter(|_| self.options.reasons)
            && qos != QoS::AtMostOnce
        {
            let written = encode::publish_refused(out, qos, pkid, code, why);
            if written.is_ok() && out.len() - start <= self.options.packet_max {
                return;
            }
            // [MQTT-3.4.2-2] and [MQTT-3.5.2-2] of 5.
            out.truncate(start);
        }
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
            server.app.metrics.publish_refused(qos, "payload");
            return self.acknowledge(qos, pkid, reason::PAYLOAD_FORMAT_INVALID, out);
        };
        // Before it is executed: it must not be executed and then be refused.
        let id = self.take_id(server, qos, pkid)?;
        let begun = command.begin(&server.app, &self.caller, now);
        if let Begun::Failed(command, failure) = begun {
            if self.knows_only_acks(qos) && may_succeed_later(&failure) {
                self.expect_ack(qos, pkid)?;
                self.withhold(server, Withheld { qos, pkid, command, failure, id }, owed);
                return Ok(());
            }
            drop(server.app.broker.submit(id));
            let reason = self.judge(server, qos, &command, &failure);
            self.give_back(server, qos, pkid, reason.code);
            return self.acknowledge(qos, pkid, reason, out);
        }
        // Behind what it changes: after a crash in between it is carried out twice, not lost.
        let stored = server.app.broker.submit(id);
        let Begun::Later(judged) = begun else {
            let stored = (reason::SUCCESS.into(), stored);
            return self.acknowledge_stored(server, (qos, pkid), stored, out, owed);
        };
        self.expect_ack(qos, pkid)?;
        let (bytes, judged) = (publish.payload.len(), judged.and_stored(stored));
        let promise = Promise::Command(qos, pkid, judged);
        if owed.has_room(bytes) {
            owed.push(bytes, promise);
        } else {
            owed.block(Box::pin(promise));
        }
        Ok(())
    }

    /// Keeps the place of an acknowledgement that comes later.
    fn expect_ack(&mut self, qos: QoS, pkid: u16) -> Result<(), Closing> {
        if qos != QoS::AtMostOnce && !self.acks.push(qos, pkid, None) {
            return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
        }
        Ok(())
    }

    /// Whether the client may read this topic of a thing now.
    pub(super) fn may_read(&self, server: &MqttServer, name: &str) -> bool {
        let named =
            ThingTopic::parse(name).and_then(|name| Some((name.key(&self.session)?, name.topic)));
        let Some((thing, topic)) = named else { return false };
        feed::may_read(&server.app.things, &self.session, &thing, topic).unwrap_or(false)
    }

    /// Publishes a message, if the client may. It is acknowledged when what is to be kept of it is stored.
    fn forward(
        &mut self,
        server: &Arc<MqttServer>,
        publish: &Publish<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        let (qos, pkid) = (publish.qos, publish.pkid);
        let own = self.session.who().own_key();
        let (org, allowed) = self.session.with_context(|context| {
            let access = &context.access;
            (access.org.id, access.topic_publish.allows(publish.topic, own))
        });
        if !allowed {
            self.log_refused(server, qos, publish.topic);
            return self.acknowledge(qos, pkid, reason::NOT_AUTHORIZED, out);
        }
        let about = (qos, publish.retain);
        let message = Message::new(publish.topic, publish.payload, about, &publish.properties, now);
        server.app.metrics.broker_received();
        let batch = self.take_id(server, qos, pkid)?;
        let broker = &server.app.broker;
        let from: Option<&BrokerSession> =
            self.topics.as_ref().map(|topics| &*topics.link().session);
        let by = Publisher {
            session: from,
            principal: self.session.who().principal_id(),
            hears: qos != QoS::AtMostOnce && self.options.version == Version::V5,
        };
        if qos != QoS::AtMostOnce && from.is_some() && !std::mem::replace(&mut self.had_turn, true)
        {
            let from = self.topics.as_ref().map(|topics| topics.link().session.clone());
            let by = Publisher { session: None, ..by };
            publish_in_turn(broker.clone(), (org, message, from, batch), (by, pkid), owed);
            return Ok(());
        }
        let Some(fan_out) = broker.publish(org, message, by, batch) else {
            server.app.metrics.publish_refused(qos, "topic");
            self.give_back(server, qos, pkid, reason::TOPIC_INVALID);
            return self.acknowledge(qos, pkid, reason::TOPIC_INVALID, out);
        };
        match fan_out {
            Ok(FanOut::Published(published)) => {
                if published.crowded {
                    owed.block(Box::pin(async {
                        tokio::task::yield_now().await;
                        Done::Topics(TopicWork::Yielded)
                    }));
                }
                let reason = self.reason_of(server, qos, published.unretained);
                if reason.refuses() {
                    self.give_back(server, qos, pkid, reason.code);
                }
                let stored = Ok(published.receipt);
                self.acknowledge_stored(server, (qos, pkid), (reason, stored), out, owed)
            }
            Ok(FanOut::More(publishing)) => {
                self.publish_later(publishing, (qos, pkid), owed);
                Ok(())
            }
            Err(error) => {
                let lost = (reason::SUCCESS.into(), Err(error));
                self.acknowledge_stored(server, (qos, pkid), lost, out, owed)
            }
        }
    }

    /// The answer to a message, which is not refused but for that it is not retained. Who can't be
    /// told finds it in the log, and counted.
    fn reason_of(
        &self,
        server: &MqttServer,
        qos: QoS,
        unretained: Option<Unretained>,
    ) -> AckReason {
        static LOG: PeerLog = PeerLog::new(5);
        match unretained {
            None => reason::SUCCESS.into(),
            Some(Unretained::Topic) => reason::QUOTA_EXCEEDED.into(),
            Some(Unretained::Over(over)) => {
                server.app.metrics.publish_refused(qos, "limit");
                let (peer, who) = (self.caller.conn.remote_addr, self.session.who().name());
                peer_log!(LOG, %peer, who, %over, "a message was not retained");
                over.into()
            }
        }
    }

    /// A client before MQTT 5 does not learn that it may not publish there.
    fn log_refused(&self, server: &MqttServer, qos: QoS, topic: &str) {
        static LOG: PeerLog = PeerLog::new(5);
        server.app.metrics.publish_refused(qos, "not_authorized");
        let (peer, who) = (self.caller.conn.remote_addr, self.session.who().name());
        let topic = server.app.shown(topic);
        peer_log!(LOG, %peer, who, topic, "no right to publish to this topic");
    }

    fn acknowledged(&mut self, server: &Arc<MqttServer>, ack: Ack, out: &mut Vec<u8>) {
        let Some(topics) = &mut self.topics else { return };
        topics.acknowledged(ack.pkid);
        while let Some(reply) = self.topics.as_mut().and_then(|t| t.inflight.next_waiting()) {
            self.send_reply(server, reply, out);
        }
    }

    fn subscriber(&self) -> Subscriber {
        Subscriber {
            session: self.session.clone(),
            owner: self.name.clone(),
            options: self.options,
            outbox: self.outbox.clone(),
        }
    }

    /// The client's topics; made if it has none.
    ///
    /// # Errors
    ///
    /// There is no room for its session.
    fn take_topics(&mut self, server: &Arc<MqttServer>) -> Result<Box<Topics>, AckReason> {
        if let Some(topics) = self.topics.take() {
            return Ok(topics);
        }
        let subscriber = self.subscriber();
        let link = topics::begin(server, &subscriber).map_err(topics::refused)?;
        Ok(Box::new(Topics::new(server.clone(), subscriber, link)))
    }

    /// Takes what came of work with the broker.
    pub fn finish_topics(
        &mut self,
        server: &MqttServer,
        work: TopicWork,
        out: &mut Vec<u8>,
        owed: &mut Owed,
    ) -> Result<(), Closing> {
        match work {
            TopicWork::Published { qos, pkid, done: Some(Delivered::To(unretained)) } => {
                let reason = self.reason_of(server, qos, unretained);
                self.give_back(server, qos, pkid, reason.code);
                self.acknowledge(qos, pkid, reason, out)
            }
            TopicWork::Published { qos, pkid, done: Some(Delivered::Nowhere) } => {
                self.give_back(server, qos, pkid, reason::TOPIC_INVALID);
                self.acknowledge(qos, pkid, reason::TOPIC_INVALID, out)
            }
            TopicWork::Published { qos, pkid, done: None } => {
                self.acknowledge_lost(server, qos, pkid, out, owed)
            }
            TopicWork::Publishing { qos, pkid, publishing } => {
                self.publish_later(publishing, (qos, pkid), owed);
                Ok(())
            }
            TopicWork::Yielded => Ok(()),
            TopicWork::Subscribed { topics, pkid, codes, why } => {
                (self.topics, self.at_work) = (Some(topics), false);
                self.write_suback(server, pkid, (codes, why), out)
            }
            TopicWork::Unsubscribed { topics, pkid, codes } => {
                (self.topics, self.at_work) = (Some(topics), false);
                self.write_unsuback(pkid, &codes, out);
                Ok(())
            }
        }
    }

    /// Writes a SUBACK. Before MQTT 5 a refusal has one code (3.1.1, 3.9.3).
    fn write_suback(
        &self,
        server: &MqttServer,
        pkid: u16,
        (mut codes, why): (Vec<u8>, Option<Box<str>>),
        out: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        static LOG: PeerLog = PeerLog::new(5);
        let (version, start) = (self.options.version, out.len());
        if let Some(why) = why {
            let (peer, who) = (self.caller.conn.remote_addr, self.session.who().name());
            let shown = server.app.shown(&why);
            peer_log!(LOG, %peer, who, why = shown, "a subscription was refused");
            let written =
                self.options.reasons && encode::subscribe_refused(out, pkid, &codes, &why).is_ok();
            if written && out.len() - start <= self.options.packet_max {
                return Ok(());
            }
            // [MQTT-3.9.2-1] of 5.
            out.truncate(start);
        }
        if version != Version::V5 {
            for code in codes.iter_mut().filter(|code| **code > reason::UNSPECIFIED) {
                *code = reason::UNSPECIFIED;
            }
        }
        let written = encode::suback(out, version, pkid, &codes);
        debug_assert!(written.is_ok(), "a SUBACK is shorter than its SUBSCRIBE");
        if out.len() - start > self.options.packet_max {
            // [MQTT-3.1.2-24] of 5.
            out.truncate(start);
            return Err(Closing::broken(reason::PACKET_TOO_LARGE));
        }
        Ok(())
    }

    fn write_unsuback(&self, pkid: u16, codes: &[u8], out: &mut Vec<u8>) {
        let written = encode::unsuback(out, self.options.version, pkid, codes);
        debug_assert!(written.is_ok(), "an UNSUBACK is shorter than its UNSUBSCRIBE");
    }

    /// Gives up the subscriptions to which the rights are gone.
    pub fn follow_access(&mut self) {
        if let Some(topics) = &mut self.topics {
            topics.follow_access();
        }
    }

    /// Writes what the broker delivers, as long as the client takes it; whether there is more.
    ///
    /// # Errors
    ///
    /// As [`Topics::poll_deliveries`].
    pub fn poll_deliveries(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Closing> {
        match &mut self.topics {
            Some(topics) => topics.poll_deliveries(cx, pass, unsent, out),
            None => Ok(false),
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
        let now = server.app.clock.now();
        let unclaimed = self.unclaimed.take().map(|unclaimed| unclaimed.recent());
        for withheld in std::mem::take(&mut self.withheld) {
            self.give_back(server, withheld.qos, withheld.pkid, reason::UNSPECIFIED);
        }
        if let Some(topics) = self.topics.take() {
            topics.close(self.session.org_id(), self.options.expiry_s, now);
        }
        if !server.watchers.has(&self.principal) {
            // Nobody is left who could get the answers of devices.
            server.app.mailbox.hang_up(self.session.number());
        }
        let unclaimed = unclaimed.into_iter().flatten().map(Push::from);
        for push in unclaimed.chain(unread.into_iter().filter(|push| push.reply.is_some())) {
            server.watchers.deliver(&self.principal, &push).await;
        }
        self.finish_without_client(server, owed);
        if self.will_bytes > 0 {
            let last = (closing.will, self.options.expiry_s);
            server.wills.leave(server, &self.name, &self.session, last);
        }
        // Last, so that a new connection is the one that takes over until all this is done.
        server.app.end(&self.session, closing.reason, now);
        self.session.forget_topics();
    }

    /// Finishes what was begun for a client that is gone: others with the same login may wait for
    /// the replies. Without such others, and when the memory is needed, what only looks is forgotten:
    /// thousands of lists may have been asked for that nobody reads.
    fn finish_without_client(&self, server: &Arc<MqttServer>, mut owed: Owed) {
        if !server.watchers.has(&self.principal) {
            owed.forget_aside(Promise::only_looks);
        }
        if owed.is_empty() {
            return;
        }
        let (server, principal) = (server.clone(), self.principal.clone());
        let mut account = server.app.open_account(&self.session, self.session.conn());
        account.set(owed.bytes());
        tokio::spawn(carried_on(async move {
            let mut poll_next = |cx: &mut Context<'_>| {
                account.set_waker(cx.waker());
                if account.is_over() {
                    owed.forget_aside(Promise::only_looks);
                }
                if Account::is_worth(Some(&account), owed.bytes()) {
                    account.set(owed.bytes());
                }
                owed.poll_reply(cx, true)
            };
            while let Some(done) = poll_fn(&mut poll_next).await {
                if let Done::Reply(to, reply) = done {
                    let deliver = async |body| {
                        let push = Push::from(Reply { to, body });
                        server.watchers.deliver(&principal, &push).await;
                        Vec::new()
                    };
                    reply.map(deliver).await.send(drop);
                }
            }
        }));
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

/// Promises what comes in order; where too much is promised, the next bytes wait for it.
fn owe(owed: &mut Owed, promise: Promise) {
    if owed.has_room(0) {
        owed.push(0, promise);
    } else {
        owed.block(Box::pin(promise));
    }
}

/// Looks at a packet again when the store may have room; meanwhile the client waits.
fn again(ack: Ack, releases: bool, owed: &mut Owed) {
    owed.block(Box::pin(async move {
        tokio::time::sleep(limits::STORE_ROOM_POLL).await;
        Done::Again { ack, releases }
    }));
}

/// Publishes when the tasks have run that were woken before this one: the runtime runs first who was
/// woken last, and a client that publishes behind the SUBSCRIBE of another one expects it to hold.
fn publish_in_turn(
    broker: Broker,
    (org, message, from, batch): (OrgId, Message, Option<Arc<BrokerSession>>, Batch),
    (by, pkid): (Publisher<'static>, u16),
    owed: &mut Owed,
) {
    owed.block(Box::pin(async move {
        tokio::task::yield_now().await;
        let qos = message.qos;
        let by = Publisher { session: from.as_deref(), ..by };
        let done = match broker.publish(org, message, by, batch) {
            None => Some(Delivered::Nowhere),
            Some(Ok(FanOut::Published(published))) => stored(published).await,
            Some(Ok(FanOut::More(publishing))) => {
                return Done::Topics(TopicWork::Publishing { qos, pkid, publishing });
            }
            Some(Err(error)) => not_stored(&error),
        };
        Done::Topics(TopicWork::Published { qos, pkid, done })
    }));
}

/// Publishes as far as it goes; gives up when the store has had no room for so long.
async fn finished(publishing: Box<Publishing>, wait: Duration) -> Option<Delivered> {
    match publishing.finish(wait).await {
        Ok(published) => stored(published).await,
        Err(error) => not_stored(&error),
    }
}

/// What became of a message when it is stored; none if it is not.
async fn stored(published: Published) -> Option<Delivered> {
    published.receipt.await.is_ok().then_some(Delivered::To(published.unretained))
}

fn not_stored(error: &StoreError) -> Option<Delivered> {
    store::report(error, "a message was not stored");
    None
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
