//! Publishes to topics of things, which are commands (`docs/protocol/tr50.md` 5):
//! `property.publish`, `alarm.publish` and `thing.attr.set` with the payload as value. There is no
//! TR50 reply; a PUBLISH with QoS 1 or 2 is acknowledged when the command is done, and with MQTT 5
//! the reason code says how. The retain flag means nothing here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::mqtt::{QoS, reason};
use base::{Failure, Timestamp, utf8};
use smallvec::SmallVec;
use store::{Receipt, StoreError};

use super::client::Done;
use crate::app::App;
use crate::things::feed::{ThingTopic, Topic};
use crate::tr50::dispatch::{Caller, Pending, execute_one};
use crate::tr50::envelope::{Body, RawParams};

/// A command that was published.
#[derive(Clone, Debug)]
pub struct ThingCommand {
    name: &'static str,
    /// The key of the thing; none for the session's own.
    thing: Option<String>,
    /// The name of the property, alarm or attribute.
    key: String,
    /// What the command calls the value.
    member: &'static str,
    value: String,
}

/// How far a command got at once.
pub(super) enum Begun {
    /// It is done.
    Done,
    /// It failed.
    Failed(ThingCommand, Failure),
    /// It waits for the store.
    Later(Box<Judged>),
}

/// What became of a command.
pub enum Outcome {
    /// It is done, and its packet id is stored as this reason code says.
    Stored(u8),
    /// It failed.
    Failed(ThingCommand, Failure),
}

impl Outcome {
    /// The same, of the command in a packet.
    pub(super) const fn into_done(self, qos: QoS, pkid: u16) -> Done {
        Done::Command { qos, pkid, outcome: self }
    }
}

/// A command that waits for the store.
pub struct Judged {
    command: Option<ThingCommand>,
    pending: Pending,
    /// For its packet id, which is stored behind it.
    id: Receipt,
    done: bool,
}

impl Judged {
    /// The same, when its packet id is stored as well.
    pub(super) fn and_stored(mut self: Box<Self>, id: Result<Receipt, StoreError>) -> Box<Self> {
        // What the store does not take now is taken once more after a crash.
        self.id = id.unwrap_or_default();
        self
    }
}

impl Future for Judged {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if !self.done {
            let mut reply = ready!(Pin::new(&mut self.pending).poll(cx));
            let failure = reply.failure.take();
            // There is nobody to send it to; what follows it is done.
            reply.send(drop);
            self.done = true;
            if let Some((command, failure)) = self.command.take().zip(failure) {
                return Poll::Ready(Outcome::Failed(command, failure));
            }
        }
        let stored = ready!(Pin::new(&mut self.id).poll(cx)).is_ok();
        Poll::Ready(Outcome::Stored(if stored { reason::SUCCESS } else { reason::UNSPECIFIED }))
    }
}

impl ThingCommand {
    /// The command that a PUBLISH means; none if its topic is only read. A payload that is not
    /// well-formed is read as JSON's strings are.
    pub(super) fn read(topic: ThingTopic<'_>, payload: &[u8]) -> Option<Self> {
        let value = utf8::lossy(payload);
        let (name, key, member) = match topic.topic {
            Topic::Property(key) => ("property.publish", key, "value"),
            Topic::Alarm(key) => ("alarm.publish", key, "state"),
            Topic::Attribute(key) => ("thing.attr.set", key, "value"),
            Topic::Location | Topic::Connected => return None,
        };
        // Numbers may be texts (`docs/protocol/tr50.md` 0, fact 15); blanks around one are the
        // client's habit.
        let value = if name == "thing.attr.set" { &*value } else { value.trim() };
        let thing = (topic.thing != "self").then(|| topic.thing.to_owned());
        Some(Self { name, thing, key: key.to_owned(), member, value: value.to_owned() })
    }

    /// The command's parameters.
    fn texts(&self) -> SmallVec<[(&str, &str); 3]> {
        let thing = self.thing.as_deref().map(|thing| ("thingKey", thing));
        [("key", self.key.as_str()), (self.member, &self.value)].into_iter().chain(thing).collect()
    }

    /// What the command is called.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Executes the command; what it changes is changed when this returns.
    pub(super) fn begin(self, app: &Arc<App>, caller: &Caller, now: Timestamp) -> Begun {
        let begun = {
            let params = RawParams::Named(&self.texts());
            let body = Body { command: self.name.into(), params };
            execute_one(app, caller, &body, now, &mut Vec::new())
        };
        match begun {
            Ok(Some(pending)) => Begun::Later(Box::new(Judged {
                command: Some(self),
                pending,
                id: Receipt::nothing(),
                done: false,
            })),
            Ok(None) => Begun::Done,
            Err(failure) => Begun::Failed(self, failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_to_a_things_topic_is_a_command_with_texts() {
        let check = |topic: Topic<'_>, payload: &str, name: &str, texts: &[(&str, &str)]| {
            for thing in ["self", "mower 1"] {
                let topic = ThingTopic { thing, topic };
                let command = ThingCommand::read(topic, payload.as_bytes()).expect("a command");
                let own = thing == "self";
                let thing = [("thingKey", thing)];
                let thing = thing.iter().filter(|_| !own);
                let expected: Vec<_> = texts.iter().chain(thing).copied().collect();
                assert_eq!((command.name, command.texts().as_slice()), (name, &expected[..]));
            }
        };
        check(
            Topic::Property("a \"b\""),
            " 5\r\n",
            "property.publish",
            &[("key", "a \"b\""), ("value", "5")],
        );
        check(Topic::Alarm("a"), "\t-1 ", "alarm.publish", &[("key", "a"), ("state", "-1")]);
        let value = " \"q\" \\ \0\u{1}\u{7f}\té\n ";
        check(Topic::Attribute("a"), value, "thing.attr.set", &[("key", "a"), ("value", value)]);
        check(
            Topic::Attribute("a"),
            "\u{fffd}",
            "thing.attr.set",
            &[("key", "a"), ("value", "\u{fffd}")],
        );
        check(Topic::Attribute("a"), "null", "thing.attr.set", &[("key", "a"), ("value", "null")]);
    }

    #[test]
    fn what_has_no_command_is_none() {
        let read = |topic, payload| ThingCommand::read(ThingTopic { thing: "a", topic }, payload);
        assert!(read(Topic::Location, b"1").is_none());
        assert!(read(Topic::Connected, b"1").is_none());
    }
}
