//! Publishes to topics of things, which are commands (`tr50.md` 5): `property.publish`,
//! `alarm.publish` and `thing.attr.set` with the payload as value. There is no TR50 reply; a
//! PUBLISH with QoS 1 or 2 is acknowledged when the command is done, and with MQTT 5 the reason code
//! says how. The retain flag means nothing here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::value::RawValue;

use super::Online;
use crate::app::App;
use crate::edge::mqtt::Edge;
use crate::edge::mqtt::client::{Closing, Done, Work};
use crate::edge::mqtt::codec::{Publish, QoS, reason};
use crate::edge::mqtt::outbox::Item;
use crate::edge::mqtt::topics::TopicWork;
use crate::logging::PeerLog;
use crate::peer_log;
use crate::things::feed::{self, ThingTopic, Topic};
use crate::timestamp::Timestamp;
use crate::tr50::dispatch::{Caller, Execution, execute};
use crate::tr50::envelope::{Body, Command};
use crate::tr50::error::{Code, Failure};
use crate::tr50::exchange::outcome;

/// A command that was published.
#[derive(Clone, Debug)]
pub struct ThingCommand {
    name: &'static str,
    params: Box<RawValue>,
}

/// How far a command got at once: its reason code, or a wait for that.
type Begun = Result<u8, Pin<Box<dyn Future<Output = u8> + Send>>>;

impl ThingCommand {
    /// The command that a PUBLISH means; none if its payload is no text.
    pub fn read(topic: ThingTopic<'_>, payload: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(payload).ok()?;
        let (name, key, member) = match topic.topic {
            Topic::Property(key) => ("property.publish", key, "value"),
            Topic::Alarm(key) => ("alarm.publish", key, "state"),
            Topic::Attribute(key) => ("thing.attr.set", key, "value"),
            Topic::Location | Topic::Connected => return None,
        };
        // Numbers may be texts (`tr50.md` 0, fact 15); blanks around one are the client's habit.
        let value = if name == "thing.attr.set" { value } else { value.trim() };
        let mut params = serde_json::Map::new();
        if topic.thing != "self" {
            params.insert("thingKey".into(), topic.thing.into());
        }
        params.insert("key".into(), key.into());
        params.insert(member.into(), value.into());
        let params = serde_json::to_string(&params).and_then(RawValue::from_string).ok()?;
        Some(Self { name, params })
    }

    /// Executes the command; what it changes is changed when this returns.
    pub fn begin(&self, app: &Arc<App>, caller: &Caller, now: Timestamp) -> Begun {
        let body = Body { command: self.name.into(), params: Some(&self.params) };
        let commands = [Command { id: "".into(), body: Ok(body) }];
        let mut reply = Vec::new();
        let (name, peer) = (self.name, caller.conn.remote_addr);
        let mut pending = match execute(app, caller, &commands, b"", now, &mut reply) {
            Execution::Done => return Ok(judge(name, peer, outcome(&reply))),
            Execution::Pending(pending) | Execution::Waiting(pending) => pending,
        };
        match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Ok(judge(name, peer, outcome(&answer.bytes))),
            Poll::Pending => {
                Err(Box::pin(async move { judge(name, peer, outcome(&pending.await.bytes)) }))
            }
        }
    }
}

/// The reason code for what became of a command. Clients before MQTT 5 do not learn of a failure,
/// so it is in the log.
fn judge(name: &str, peer: std::net::SocketAddr, outcome: Result<(), Failure>) -> u8 {
    static LOG: PeerLog = PeerLog::new(5);
    let Err(failure) = outcome else { return reason::SUCCESS };
    let code = failure.code.0;
    peer_log!(LOG, %peer, code, message = %failure.message, "{name} by a topic failed");
    match failure.code {
        Code::PERMISSION_DENIED | Code::WRONG_SESSION_KIND => reason::NOT_AUTHORIZED,
        Code::NOT_FOUND | Code::PARAMETER_MISSING => reason::TOPIC_INVALID,
        Code::PARAMETER_INVALID => reason::PAYLOAD_FORMAT_INVALID,
        Code::RATE_LIMITED | Code::BUSY => reason::QUOTA_EXCEEDED,
        Code::INTERNAL => reason::UNSPECIFIED,
        _ => reason::IMPLEMENTATION_SPECIFIC,
    }
}

impl Online {
    /// Executes a command that was published. It is acknowledged when it is done; meanwhile the
    /// client goes on, unless too many are under way.
    pub(super) fn command(
        &mut self,
        edge: &Arc<Edge>,
        publish: &Publish<'_>,
        topic: ThingTopic<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<Option<Work>, Closing> {
        let (qos, pkid) = (publish.qos, publish.pkid);
        let Some(command) = ThingCommand::read(topic, publish.payload) else {
            self.acknowledge(qos, pkid, reason::PAYLOAD_FORMAT_INVALID, out)?;
            return Ok(None);
        };
        // Before it is executed: it must not be executed and then be refused.
        self.take_id(qos, pkid)?;
        let pending = match command.begin(&edge.app, &self.caller, now) {
            Ok(code) => {
                self.give_back(qos, pkid, code);
                self.acknowledge(qos, pkid, code, out)?;
                return Ok(None);
            }
            Err(pending) => pending,
        };
        let bytes = publish.payload.len();
        if !self.outbox.promise(bytes) {
            return Ok(Some(Box::pin(async move {
                let code = pending.await;
                Done::Topics(TopicWork::Published { qos, pkid, code })
            })));
        }
        if qos != QoS::AtMostOnce && !self.acks.push(qos, pkid, None) {
            return Err(Closing::broken(reason::RECEIVE_MAXIMUM_EXCEEDED));
        }
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let code = pending.await;
            // A connection that is gone needs no acknowledgement.
            let _ = outbox.keep_promise(bytes, Item::Ack { qos, pkid, code });
        });
        Ok(None)
    }

    /// Whether the client may read this topic of a thing now.
    pub(super) fn may_read(&self, edge: &Edge, name: &str) -> bool {
        let named =
            ThingTopic::parse(name).and_then(|name| Some((name.key(&self.session)?, name.topic)));
        let Some((thing, topic)) = named else { return false };
        feed::may_read(&edge.app.things, &self.session, &thing, topic).unwrap_or(false)
    }
}
