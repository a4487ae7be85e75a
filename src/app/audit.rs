//! What goes into the stream of events: acts of administrators, and what was refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ConnInfo, Failure, OrgId, Timestamp, limits};
use rules::directory::{Principal, Session};
use rules::identity::model::User;
use rules::identity::{Record, RecordChange, RecordChanges};
use serde_json::{Map, Value};
use store::{Batch, Receipt, StoreError};

use super::App;
use super::effects::SessionChange;
use super::turns::Worker;
use crate::events::{
    Act, Actor, Attempt, Class, Events, MEMBERSHIPS, NewEvent, Numbered, Page, Query, Refused,
    Target, diff, members, only_memberships,
};

/// Who does something by which command: goes with the effects of what is in the trail.
pub struct Deed {
    /// Who, from where.
    pub actor: Actor,
    /// The command.
    pub command: &'static str,
}

/// A change of a record: what it was, and what it is.
type Changed = (Option<Record>, Option<Record>);

impl App {
    /// The stream of events.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The events of what somebody does. Asked for before it is done: what was before is in the
    /// records still.
    pub(super) fn acts(
        &self,
        deed: &Deed,
        records: Option<&RecordChanges>,
        sessions: &[SessionChange],
        now: Timestamp,
    ) -> Vec<NewEvent> {
        let now = self.clock.shown(now);
        let changes = records.into_iter().flat_map(RecordChanges::iter);
        let changed: Vec<Changed> = changes.map(|change| self.changed(change)).collect();
        let mut events: Vec<_> =
            changed.iter().map(|change| self.act_on_record(deed, change, &changed, now)).collect();
        let ended = |change: &SessionChange| match change {
            SessionChange::EndFor(session, by) if session.who().principal() != *by => {
                Some(session.clone())
            }
            SessionChange::Revoke(session) => Some(session.clone()),
            _ => None,
        };
        let ended: Vec<_> = sessions.iter().filter_map(ended).collect();
        let shown = ended.iter().take(limits::EVENT_SESSIONS_MAX);
        events.extend(shown.map(|session| self.act_on_session(deed, session, None, now)));
        if let Some(last) = ended.get(limits::EVENT_SESSIONS_MAX..).and_then(|rest| rest.last()) {
            let more = ended.len() - limits::EVENT_SESSIONS_MAX;
            events.push(self.act_on_session(deed, last, Some(more), now));
        }
        events
    }

    /// Notes that the server stopped, or had stopped, and how many sessions of each organisation
    /// ended with that: one event.
    pub(super) fn note_stop(&self, ended: impl Iterator<Item = OrgId>, now: Timestamp) {
        let mut counts = BTreeMap::<OrgId, usize>::new();
        ended.for_each(|org| *counts.entry(org).or_default() += 1);
        if counts.is_empty() {
            return;
        }
        let (now, actor) = (self.clock.shown(now), Actor::server());
        let row = |(org, count): (OrgId, usize)| {
            let name = self.server_id.to_string();
            let after = [("sessions".to_owned(), count.into())];
            let act = Act {
                actor: &actor,
                command: "server.stop",
                target: Target { kind: "server", id: String::new(), name },
                before: Map::new(),
                after: after.into_iter().collect(),
            };
            (org, act.into_row(now, self.key_of(org, &[]).as_deref()))
        };
        let rows = counts.into_iter().map(row).collect();
        let mut batch = Batch::default();
        let numbered = self.add_event(&mut batch, NewEvent { class: Class::Administration, rows });
        // The ends themselves are stored all the same.
        if let Err(error) = numbered.settle(self.tables.submit(batch)) {
            store::report(&error, "the stop of the server is not in the trail");
        }
    }

    fn changed(&self, change: &RecordChange) -> Changed {
        let (RecordChange::Put(record) | RecordChange::Delete(record)) = change;
        let identity = &self.records;
        let before = match record {
            Record::Org(org) => identity.org(org.id).map(|found| Record::Org((*found).clone())),
            Record::Role(role) => {
                let found = identity.role_within(role.id, role.org);
                found.map(|granted| Record::Role(granted.role.clone()))
            }
            Record::User(user) => {
                identity.user(user.id).map(|found| Record::User((*found).clone()))
            }
            Record::Application(application) => {
                let found = identity.application(application.id);
                found.map(|found| Record::Application((*found).clone()))
            }
            Record::ThingDef(def) => {
                let found = identity.thing_def(def.org, def.id);
                found.map(|found| Record::ThingDef((*found).clone()))
            }
            Record::Webhook(webhook) => {
                let found = identity.webhook(webhook.id);
                found.map(|found| Record::Webhook((*found).clone()))
            }
        };
        match change {
            RecordChange::Put(record) => (before, Some(record.clone())),
            RecordChange::Delete(_) => (before, None),
        }
    }

    fn act_on_record(
        &self,
        deed: &Deed,
        change: &Changed,
        all: &[Changed],
        now: Timestamp,
    ) -> NewEvent {
        let (before, after) = change;
        let map = |record: &Option<Record>| record.as_ref().map(members).unwrap_or_default();
        let (was, is) = diff(map(before), map(after));
        let either = after.as_ref().or(before.as_ref());
        let target = either.map_or_else(
            || Target { kind: "", id: String::new(), name: String::new() },
            Target::of_record,
        );
        let row = |org: OrgId| {
            let (mut before_here, mut after_here) = (was.clone(), is.clone());
            let mut target = target.clone();
            let user = |record: &'_ Record| match record {
                Record::User(user) => Some(user.clone()),
                _ => None,
            };
            let users: Vec<User> = [before, after].into_iter().flatten().filter_map(user).collect();
            if !users.is_empty() {
                let at_home = users.iter().any(|user| user.owner() == org);
                for members in [&mut before_here, &mut after_here] {
                    if !at_home {
                        members.retain(|name, _| MEMBERSHIPS.contains(&&**name));
                    }
                    only_memberships(members, |other| self.records.is_within(other, org));
                }
                // Of who is only invited, the organisation knows the invitation and the address.
                let is_member =
                    users.iter().any(|user| user.memberships.iter().any(|held| held.org == org));
                let mut invites = users.iter().flat_map(|user| &user.invites);
                let invite = invites.find(|invite| invite.terms.org == org);
                if let (false, false, Some(invite)) = (at_home, is_member, invite) {
                    target.id = invite.id.to_string();
                }
            }
            let command = deed.command;
            // Of a user who has to do with several organisations, each knows its own people.
            let is_ours = deed.actor.org().is_none_or(|from| {
                self.records.is_within(from, org) || self.records.is_within(org, from)
            });
            let elsewhere = (!users.is_empty() && !is_ours)
                .then(|| deed.actor.seen_from_elsewhere(&target.name));
            let actor = elsewhere.as_ref().unwrap_or(&deed.actor);
            let (before, after) = (before_here, after_here);
            let act = Act { actor, command, target, before, after };
            (org, act.into_row(now, self.key_of(org, all).as_deref()))
        };
        let rows = concerned(before.as_ref(), after.as_ref()).into_iter().map(row).collect();
        NewEvent { class: Class::Administration, rows }
    }

    /// The event of the end of many sessions of others, found by a filter: one for each organisation.
    pub(super) fn act_on_many(
        &self,
        deed: &Deed,
        found_by: Map<String, Value>,
        sessions: &[SessionChange],
        now: Timestamp,
    ) -> Vec<NewEvent> {
        let mut counts = BTreeMap::<OrgId, usize>::new();
        for change in sessions {
            if let SessionChange::EndFor(session, by) = change
                && session.who().principal() != *by
            {
                *counts.entry(session.org_id()).or_default() += 1;
            }
        }
        let now = self.clock.shown(now);
        let event = |(org, count): (OrgId, usize)| {
            let members = [
                ("status".to_owned(), "REVOKED".into()),
                ("filter".to_owned(), found_by.clone().into()),
                ("sessions".to_owned(), count.into()),
            ];
            let target = Target { kind: "session", id: String::new(), name: String::new() };
            let changed = diff(Map::new(), members.into_iter().collect());
            self.act(deed, org, target, changed, now)
        };
        counts.into_iter().map(event).collect()
    }

    fn act_on_session(
        &self,
        deed: &Deed,
        session: &Arc<Session>,
        more: Option<usize>,
        now: Timestamp,
    ) -> NewEvent {
        let mut after = Map::new();
        after.insert("status".to_owned(), "REVOKED".into());
        if let Some(more) = more {
            after.insert("sessions".to_owned(), more.into());
        }
        let target = Target::of_session(session);
        self.act(deed, session.org_id(), target, (Map::new(), after), now)
    }

    /// The event of one act on something that is no record of identity.
    pub fn act(
        &self,
        deed: &Deed,
        org: OrgId,
        target: Target,
        (before, after): (Map<String, Value>, Map<String, Value>),
        now: Timestamp,
    ) -> NewEvent {
        let act = Act { actor: &deed.actor, command: deed.command, target, before, after };
        let row = act.into_row(now, self.key_of(org, &[]).as_deref());
        NewEvent { class: Class::Administration, rows: vec![(org, row)] }
    }

    /// Adds an event to a batch that is submitted at once.
    pub fn add_event(&self, batch: &mut Batch, event: NewEvent) -> Numbered<'_> {
        self.events.add(batch, [event])
    }

    /// Stores an event that goes with no other change.
    ///
    /// # Errors
    ///
    /// The store takes no more.
    pub fn note_event(&self, event: NewEvent) -> Result<Receipt, StoreError> {
        let mut batch = Batch::default();
        let numbered = self.events.add(&mut batch, [event]);
        numbered.settle(self.tables.submit(batch))
    }

    fn key_of(&self, org: OrgId, all: &[Changed]) -> Option<String> {
        let made = || {
            all.iter().find_map(|(_, after)| match after {
                Some(Record::Org(made)) if made.id == org => Some(made.key.clone()),
                _ => None,
            })
        };
        self.records.org(org).map(|org| org.key.clone()).or_else(made)
    }

    /// Whether an organisation, which may have been deleted, is this one or below it.
    pub fn was_within(&self, org: OrgId, top: OrgId) -> bool {
        let mut org = org;
        for _ in 0..limits::ORG_DEPTH_MAX {
            match self.events.above_gone(org) {
                _ if org == top => return true,
                Some(Some(above)) => org = above,
                Some(None) => return false,
                None => break,
            }
        }
        self.records.is_within(org, top)
    }

    /// The organisation below the top to which one belongs, deleted ones included: what is below it
    /// has a part of its share.
    pub(super) fn tenant_of(&self, org: OrgId) -> OrgId {
        let above = |org: OrgId| match self.events.above_gone(org) {
            Some(above) => above,
            None => self.records.org(org).and_then(|found| found.parent),
        };
        let mut org = org;
        for _ in 0..limits::ORG_DEPTH_MAX {
            match above(org) {
                Some(next) if above(next).is_some() => org = next,
                _ => break,
            }
        }
        org
    }

    /// Counts a command of an administrator that was refused or failed.
    pub fn note_refused(
        &self,
        session: &Session,
        conn: ConnInfo,
        command: &'static str,
        failure: &Failure,
        now: Timestamp,
    ) {
        let who = (session.org_id(), session.who().principal());
        let actor = Actor::of_session(session, conn);
        let code = failure.code.0;
        self.note_refused_by(
            who,
            conn,
            Deed { actor, command },
            (code.into(), &failure.message),
            now,
        );
    }

    /// The same of somebody without a session, in the words of a dialect.
    pub fn note_refused_by(
        &self,
        (org, who): (OrgId, Principal),
        conn: ConnInfo,
        deed: Deed,
        (code, message): (Value, &str),
        now: Timestamp,
    ) {
        let now = self.clock.shown(now);
        let command = deed.command;
        // Whoever asks which names are taken leaves each of them.
        let is_taken = code.as_i64() == Some(base::Code::ALREADY_EXISTS.0.into());
        let name = if is_taken { self.shown(message) } else { String::new() };
        let code_text = code.to_string();
        let attempt = Attempt::Command { who, command, code: code_text.into(), name: name.into() };
        let row = self.refusal(deed.actor.into_row(), org, command, code, message);
        self.events.refuse(Refused { org, attempt, from: conn, row }, now);
    }

    pub(super) fn refusal(
        &self,
        mut row: Map<String, Value>,
        org: OrgId,
        command: &str,
        code: Value,
        message: &str,
    ) -> Map<String, Value> {
        let mut set = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        set("command", command.into());
        set("outcome", "failure".into());
        set("code", code);
        set("message", self.shown(message).into());
        if let Some(key) = self.key_of(org, &[]) {
            set("orgKey", key.into());
        }
        row
    }

    /// Writes what was refused, and waits until all events so far can be read.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub async fn settle_events(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.events.has_unwritten_refusals() {
            let app = self.clone();
            // Nobody tells it if the server ends meanwhile.
            let _ = self.settling.ask((), move || app.clone().write_refusals()).await;
        }
        self.tables.writer().barrier()?.await
    }

    /// Submits what was refused: the server's work, for which nobody pays.
    async fn write_refusals(self: Arc<Self>) {
        let app = self.clone();
        // There may be thousands. Without room for what was refused lately, what is there can be read all
        // the same; who reads waits for all that was submitted.
        let write = move || drop(app.events.write_refusals(app.clock.now()));
        let _ = self.offload(Worker::Server, write).await;
    }

    /// Reads the stream, as [`Events::read`] says.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub fn read_events(
        &self,
        query: &Query<'_>,
        visit: impl FnMut(crate::events::Entry) -> bool,
    ) -> Result<Page, StoreError> {
        self.events.read(query, visit)
    }
}

/// The organisations that see a change of a record: that of the record; of a user the one that
/// administers it, and where memberships changed.
fn concerned(before: Option<&Record>, after: Option<&Record>) -> Vec<OrgId> {
    let user = |record: Option<&Record>| match record {
        Some(Record::User(user)) => Some(user.clone()),
        _ => None,
    };
    let (was, is) = (user(before), user(after));
    let mut orgs = Vec::new();
    for record in [after, before].into_iter().flatten() {
        orgs.push(match record {
            Record::Org(org) => org.id,
            Record::Role(role) => role.org,
            Record::User(user) => user.owner(),
            Record::Application(application) => application.org,
            Record::ThingDef(def) => def.org,
            Record::Webhook(webhook) => webhook.org,
        });
    }
    let held = |user: &Option<User>| {
        let Some(user) = user else { return Vec::new() };
        let invited = user.invites.iter().map(|invite| invite.terms.clone());
        user.memberships.iter().cloned().chain(invited).collect()
    };
    let (was, is) = (held(&was), held(&is));
    orgs.extend(was.iter().filter(|held| !is.contains(held)).map(|held| held.org));
    orgs.extend(is.iter().filter(|held| !was.contains(held)).map(|held| held.org));
    let mut seen = Vec::new();
    orgs.retain(|org| {
        let is_new = !seen.contains(org);
        seen.push(*org);
        is_new
    });
    orgs
}
