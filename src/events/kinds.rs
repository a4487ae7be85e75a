//! The types of events: the one table of them, with the members of each.

use base::{OrgId, Timestamp, json::ObjectWriter, key};
use smallvec::{SmallVec, smallvec};

use super::{Class, NewEvent};

/// A row of the table.
pub struct KindInfo {
    /// Its name, of words with dots between.
    pub name: &'static str,
    /// Its class.
    pub class: Class,
    /// What has happened.
    pub doc: &'static str,
    /// Its members, beside those that all have.
    pub members: &'static str,
}

macro_rules! kinds {
    ($($name:ident: $wire:literal, $class:ident, $doc:literal, $members:literal;)*) => {
        /// A type of event. What administrators do has the command's name instead.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind {
            $(#[doc = $doc] $name,)*
        }

        /// Every type, in the order of [`Kind`].
        pub const KINDS: &[KindInfo] = &[
            $(KindInfo {
                name: $wire, class: Class::$class, doc: $doc, members: $members,
            },)*
        ];
    };
}

kinds! {
    SessionStarted: "session.started", Sessions, "A session started.",
        "`ref`, `kind`, `whoAmI`, `userId` or `thingKey` and `appName`, `protocol`, `remoteAddr`, \
         `tlsVersion`, `mqttVersion`";
    SessionEnded: "session.ended", Sessions, "A session ended.",
        "those of `session.started`; `status`, `endReason`, `startTime`, `commandCount`, `bytesIn`, \
         `bytesOut`; `by` and `byRef`, who ended it, if it was not its owner";
    SessionSwitched: "session.switched", Sessions,
        "A session went to another organisation: one event, which both see.",
        "those of `session.started`; in the organisation that it left `left`, in the other one \
         `entered`, which are true";
    SessionRevoked: "session.revoked", Sessions,
        "A session was revoked, whether it lived until then (then `session.ended` comes, too) or \
         had ended otherwise.",
        "those of `session.started`; `by` and `byRef`";
    ThingCreated: "thing.created", Things,
        "A thing was made, or has registered itself.",
        "`thingKey`, `thingId`, `defId`, `whoAmI` (who made it)";
    ThingDeleted: "thing.deleted", Things, "A thing was deleted.",
        "`thingKey`, `thingId`, `defId`, `whoAmI` (who deleted it)";
    ThingBanned: "thing.banned", Things, "A thing was disabled.",
        "those of `thing.created`; `reason`, `disabledUntil`";
    ThingUnbanned: "thing.unbanned", Things,
        "A ban was lifted. One that ends at its time has no event of its own.",
        "those of `thing.created`";
    AlarmChanged: "alarm.changed", Alarms,
        "An alarm of a thing has another state than before.",
        "`thingKey`, `thingId`, `alarm`, `state`, `msg`, `at` (the time of the state), `whoAmI`";
    MethodCalled: "method.called", Methods, "A method of a thing was called.",
        "`thingKey`, `method`, `id` (of the mail), `whoAmI` (who called), `status` (of the mail)";
    MethodCompleted: "method.completed", Methods, "A thing has answered a call.",
        "those of `method.called`; `code` and `msg` as the thing gave them";
    MethodExpired: "method.expired", Methods,
        "A call of a method was not answered in time.",
        "those of `method.called`";
    MethodPurged: "method.purged", Methods, "A call of a method was taken back.",
        "those of `method.called`";
    LimitReached: "limit.reached", Limits,
        "A pool has refused something to the organisation (docs/limits.md), or commands in it were \
         over a rate: at most one event a minute for each of both.",
        "`pool` (or `commands_per_s`, `principal_commands_per_s`, `org_commands_per_s`), `unit`, \
         `refused` (how often since the last event)";
    LoginRefused: "login.refused", Refusals, "Logins were refused, which are counted.",
        "those of docs/trail.md";
    CommandRefused: "command.refused", Refusals,
        "Commands of an administrator were refused or failed, which are counted.",
        "those of docs/trail.md";
}

impl Kind {
    /// Its row.
    pub const fn info(self) -> &'static KindInfo {
        &KINDS[self as usize]
    }
}

/// The class of events of a type.
pub fn class_of(kind: &str) -> Class {
    let known = KINDS.iter().find(|info| info.name == kind);
    known.map_or(Class::Administration, |info| info.class)
}

/// Something that happened, ready to be written.
#[derive(Clone, Debug)]
pub struct Event {
    pub(super) class: Class,
    /// What each organisation concerned sees: a JSON object without what is in the key.
    pub(super) rows: SmallVec<[(OrgId, Vec<u8>); 1]>,
}

impl Event {
    /// An event of an organisation.
    pub fn new(
        kind: Kind,
        org: OrgId,
        now: Timestamp,
        members: impl FnOnce(&mut ObjectWriter<'_>),
    ) -> Self {
        let rows = smallvec![(org, row(kind, now, members))];
        Self { class: kind.info().class, rows }
    }

    /// The same event, as another organisation sees it.
    #[must_use]
    pub fn and_for(
        mut self,
        kind: Kind,
        org: OrgId,
        now: Timestamp,
        members: impl FnOnce(&mut ObjectWriter<'_>),
    ) -> Self {
        self.rows.push((org, row(kind, now, members)));
        self
    }
}

fn row(kind: Kind, now: Timestamp, members: impl FnOnce(&mut ObjectWriter<'_>)) -> Vec<u8> {
    let mut text = Vec::with_capacity(ROW_BYTES);
    let mut object = ObjectWriter::new(&mut text);
    object.time(key!("ts"), now);
    object.string(key!("type"), kind.info().name);
    members(&mut object);
    object.end();
    text
}

/// What most rows need.
const ROW_BYTES: usize = 384;

impl From<NewEvent> for Event {
    fn from(event: NewEvent) -> Self {
        let encoded = |(org, row)| (org, store::rows::encode(&row));
        Self { class: event.class, rows: event.rows.into_iter().map(encoded).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_row_and_a_name_of_its_own() {
        let mut names: Vec<_> = KINDS.iter().map(|info| info.name).collect();
        assert_eq!(Kind::CommandRefused.info().name, "command.refused");
        assert!(names.iter().all(|name| name.split('.').count() == 2 && class_of(name) != Class::Administration));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
    }
}
