//! What goes into the stream beside the trail: sessions, things, alarms, methods, limits. Each is in
//! the batch of its change.

use std::collections::HashMap;
use std::sync::Arc;

use base::json::{ObjectWriter, push_address};
use base::pool::Pool;
use base::{Clock, OrgId, ThingId, ThingKey, Timestamp, beginning, key, limits};
use rules::directory::{Event as Change, OrgContext, RateOf, Reason, Session, Who};
use store::{Batch, Receipt, StoreError, Tables};

use super::App;
use crate::events::{Event, Events, Kind, NewEvent, Numbered};
use crate::things::mailbox::Journal;
use crate::things::mailbox::mail::{Mail, Status};
use crate::things::registry::Thing;

/// What is put into the stream as the work of somebody.
#[derive(Default)]
pub(super) struct Acts {
    /// The events of the trail.
    pub(super) events: Vec<NewEvent>,
    /// Who did it.
    pub(super) by: Option<By>,
}

/// Who ended a session.
#[derive(Clone)]
pub(super) struct By {
    /// The name.
    pub(super) name: String,
    /// The ref of the session.
    pub(super) reference: Option<String>,
}

impl Acts {
    /// The same for a first step; what is left is for the others.
    pub(super) fn first(&mut self) -> Self {
        Self { events: std::mem::take(&mut self.events), by: self.by.clone() }
    }
}

impl App {
    /// The events of changes of sessions. Those that end with a stop of the server are one event,
    /// which is in the trail.
    pub(super) fn of_sessions(&self, changes: &[Change], by: Option<&By>) -> Vec<Event> {
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Started(session) => {
                    let now = self.clock.shown(session.started());
                    events.push(of_session(Kind::SessionStarted, session, now, |_| ()));
                }
                Change::Ended(_, Reason::ServerStopped) => {}
                Change::Ended(session, reason) => {
                    let by = by.filter(|_| reason.is_revocation());
                    events.push(self.end_of(session, by));
                    if reason.is_revocation() {
                        events.push(self.revocation_of(session, by));
                    }
                }
                Change::Revoked(session) => events.push(self.revocation_of(session, by)),
                Change::Switched(session, _) => events.push(self.switch_of(session)),
                Change::RightsChanged(_) | Change::Redefined(_) | Change::Forgotten(_) => {}
            }
        }
        events
    }

    fn end_of(&self, session: &Session, by: Option<&By>) -> Event {
        let end = session.end();
        let now = self.clock.shown(end.map_or(session.started(), |end| end.at));
        of_session(Kind::SessionEnded, session, now, |object| {
            if let Some(end) = end {
                object.string(key!("status"), end.reason.status().as_str());
                object.string(key!("endReason"), end.reason.as_str());
            }
            object.time(key!("startTime"), self.clock.shown(session.started()));
            object.integer(key!("commandCount"), session.command_count());
            if let Some(traffic) = session.traffic() {
                object.integer(key!("bytesIn"), traffic.bytes_in);
                object.integer(key!("bytesOut"), traffic.bytes_out);
            }
            write_by(object, by);
        })
    }

    fn revocation_of(&self, session: &Session, by: Option<&By>) -> Event {
        let now = self.clock.shown(self.clock.now());
        of_session(Kind::SessionRevoked, session, now, |object| write_by(object, by))
    }

    /// A switch concerns the organisation that the session has left, too.
    fn switch_of(&self, session: &Session) -> Event {
        let (here, before, now) = session.with_context(|context| {
            let mut switches = context.switches.iter().rev();
            let last = switches.next().map_or(session.started(), |switch| switch.ts);
            let before = switches.next().map_or_else(|| start_org(session), |to| to.org_id);
            (context.access.org.id, before, last)
        });
        let (kind, now) = (Kind::SessionSwitched, self.clock.shown(now));
        let members = |object: &mut ObjectWriter<'_>, key| {
            write_session(object, session);
            object.flag(key, true);
        };
        let event = Event::new(kind, here, now, |object| members(object, key!("entered")));
        if before == here {
            return event;
        }
        event.and_for(kind, before, now, |object| members(object, key!("left")))
    }

    /// The event of a thing that was made, deleted or banned; the time is as it is shown.
    pub fn thing_event(&self, kind: Kind, thing: &Thing, by: &str, now: Timestamp) -> Event {
        Event::new(kind, thing.org, now, |object| {
            object.string(key!("thingKey"), thing.key.as_str());
            object.hex(key!("thingId"), thing.id.as_bytes());
            if let Some(def) = thing.def {
                object.hex(key!("defId"), def.as_bytes());
            }
            object.string(key!("whoAmI"), by);
            if kind == Kind::ThingBanned {
                object.string(key!("reason"), &thing.ban.reason);
                if let Some(until) = thing.ban.until {
                    object.time(key!("disabledUntil"), self.clock.shown(until));
                }
            }
        })
    }

    /// Adds such an event to the batch of its change.
    pub fn add_thing_event(
        &self,
        batch: &mut Batch,
        (kind, thing): (Kind, &Thing),
        by: &str,
        now: Timestamp,
    ) -> Numbered<'_> {
        self.events.add(batch, [self.thing_event(kind, thing, by, now)])
    }

    /// Adds events of alarms of a thing that have changed.
    pub fn add_alarm_events<'a>(
        &self,
        batch: &mut Batch,
        (session, id, thing): (&Session, ThingId, &ThingKey),
        changed: impl Iterator<Item = (&'a str, i64, Option<&'a str>, Option<Timestamp>)>,
        now: Timestamp,
    ) -> Numbered<'_> {
        let (org, by) = (session.org_id(), session.who().name());
        let event = |(name, state, msg, at): (&str, i64, Option<&str>, Option<Timestamp>)| {
            Event::new(Kind::AlarmChanged, org, now, |object| {
                object.string(key!("thingKey"), thing.as_str());
                object.hex(key!("thingId"), id.as_bytes());
                object.string(key!("alarm"), name);
                base::json::push_integer(object.name(key!("state")), state);
                if let Some(msg) = msg {
                    object.string(key!("msg"), shortened(msg));
                }
                object.time(key!("at"), at.unwrap_or(now));
                object.string(key!("whoAmI"), by);
            })
        };
        self.events.add(batch, changed.map(event))
    }

    /// Puts into the stream which limits were reached by whom.
    ///
    /// # Errors
    ///
    /// The store takes no more now; they are told of the next time.
    pub(super) fn note_limits(&self, now: Timestamp) -> Result<Receipt, StoreError> {
        let mut reached = self.limits_reached.lock();
        let pools = self.pools.take_refused().into_iter();
        let pools = pools.map(|(pool, org, count)| ((Limit::Pool(pool), org), count));
        let rates = self.org_rates.take_over().into_iter();
        let rates = rates.map(|((of, org), count)| ((Limit::Rate(of), org), count));
        for (of, count) in pools.chain(rates) {
            *reached.untold.entry(of).or_default() += count;
        }
        let over = |told: &Timestamp| now.millis_since(*told) >= limits::LIMIT_EVENTS_EVERY_MS;
        reached.told.retain(|_, told| !over(told));
        let Reached { told, untold } = &mut *reached;
        let due: Vec<_> = untold.iter().filter(|(of, _)| !told.contains_key(of)).collect();
        if due.is_empty() {
            return Ok(Receipt::nothing());
        }
        let shown = self.clock.shown(now);
        let event = |((limit, org), count): &(&(Limit, OrgId), &u64)| {
            Event::new(Kind::LimitReached, *org, shown, |object| {
                let (name, unit) = limit.names();
                object.string(key!("pool"), name);
                object.string(key!("unit"), unit);
                object.integer(key!("refused"), **count);
            })
        };
        let mut batch = Batch::default();
        let numbered = self.events.add(&mut batch, due.iter().map(event).collect::<Vec<_>>());
        let receipt = numbered.settle(self.tables.submit(batch))?;
        let due: Vec<_> = due.into_iter().map(|(of, _)| *of).collect();
        for of in due {
            told.insert(of, now);
            untold.remove(&of);
        }
        Ok(receipt)
    }
}

/// A limit that an organisation can reach.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Limit {
    Pool(Pool),
    Rate(RateOf),
}

impl Limit {
    /// Its name, and of what it is.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pool(pool) => (pool.info().name, pool.info().unit),
            Self::Rate(of) => (of.key().trim_start_matches("limits."), "commands in a second"),
        }
    }
}

/// Limits that were reached.
#[derive(Default)]
pub(super) struct Reached {
    /// When the last event of each was.
    told: HashMap<(Limit, OrgId), Timestamp>,
    /// How often since then.
    untold: HashMap<(Limit, OrgId), u64>,
}

fn of_session(
    kind: Kind,
    session: &Session,
    now: Timestamp,
    members: impl FnOnce(&mut ObjectWriter<'_>),
) -> Event {
    let org = session.with_context(|context: &OrgContext| context.access.org.id);
    Event::new(kind, org, now, |object| {
        write_session(object, session);
        members(object);
    })
}

/// The members of a session, as in its listing, that do not change; never its id, and not the
/// client id, which is for administrators.
fn write_session(object: &mut ObjectWriter<'_>, session: &Session) {
    object.hex(key!("ref"), session.reference().as_bytes());
    object.string(key!("kind"), session.kind().as_str());
    object.string(key!("whoAmI"), session.who().name());
    match session.who() {
        Who::User(user) => object.hex(key!("userId"), user.id.as_bytes()),
        Who::Application { application, thing_key, .. } => {
            object.string(key!("thingKey"), thing_key.as_str());
            object.string(key!("appName"), &application.name);
        }
    }
    let conn = session.conn();
    object.string(key!("protocol"), conn.protocol.as_str());
    let out = object.name(key!("remoteAddr"));
    out.push(b'"');
    push_address(out, conn.remote_addr);
    out.push(b'"');
    if let Some(tls) = conn.tls {
        object.string(key!("tlsVersion"), tls.as_str());
    }
    if let Some(version) = session.link().mqtt_version() {
        object.string(key!("mqttVersion"), version);
    }
}

fn write_by(object: &mut ObjectWriter<'_>, by: Option<&By>) {
    if let Some(by) = by {
        object.string(key!("by"), &by.name);
        if let Some(reference) = &by.reference {
            object.string(key!("byRef"), reference);
        }
    }
}

/// Where a session has begun, as far as that is known still.
fn start_org(session: &Session) -> OrgId {
    match session.who() {
        Who::User(user) => user.home,
        Who::Application { application, .. } => application.org,
    }
}

/// As much of a text as an event has room for.
fn shortened(text: &str) -> &str {
    beginning(text, limits::EVENT_MESSAGE_BYTES_MAX)
}

/// Has the calls of methods in the stream, each with its mail.
pub(super) struct MethodEvents {
    pub(super) events: Arc<Events>,
    pub(super) tables: Tables,
    pub(super) clock: Clock,
}

impl Journal for MethodEvents {
    fn submit(
        &self,
        mut batch: Batch,
        mails: &[&Mail],
        now: Timestamp,
    ) -> Result<Receipt, StoreError> {
        let now = self.clock.shown(now);
        let events: Vec<_> = mails.iter().filter_map(|mail| of_mail(mail, now)).collect();
        if events.is_empty() {
            return self.tables.submit(batch);
        }
        let numbered = self.events.add(&mut batch, events);
        numbered.settle(self.tables.submit(batch))
    }
}

/// The event of a mail that was made or is done, if it asks for a method.
fn of_mail(mail: &Mail, now: Timestamp) -> Option<Event> {
    let (message, status) = (&mail.message, mail.status());
    let method = message.method.as_deref()?;
    let kind = match status {
        Status::New => Kind::MethodCalled,
        Status::CompletedOk | Status::CompletedError | Status::CompletedAuto => {
            Kind::MethodCompleted
        }
        Status::Expired => Kind::MethodExpired,
        Status::Purged => Kind::MethodPurged,
        Status::InFlight | Status::InProgress => return None,
    };
    Some(Event::new(kind, message.org, now, |object| {
        object.string(key!("thingKey"), message.thing_key.as_str());
        object.string(key!("method"), shortened(method));
        object.hex(key!("id"), message.id.as_bytes());
        object.string(key!("whoAmI"), &message.from);
        object.string(key!("status"), status.as_str());
        if let Some(outcome) = &mail.outcome {
            base::json::push_integer(object.name(key!("code")), outcome.code);
            if let Some(msg) = &outcome.message {
                object.string(key!("msg"), shortened(msg));
            }
        }
    }))
}
