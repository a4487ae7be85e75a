//! `mailbox.find`, `.list`, `.summary` and `.purge`: looking at mails, and deleting them.

use base::{Clock, Code, Failure, MailId, excerpt, limits};
use rules::directory::Kind;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::Map;
use store::StoreError;

use super::{ended, may_see, not_found};
use crate::things::mailbox::Scope;
use crate::things::mailbox::mail::{Mail, Status, Step};
use crate::tr50::commands::target::Target;
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Later};

params! {
    /// The parameters of `mailbox.find`.
    pub(super) struct Find {
        required id: MailId = "id", "The mail's id.";
    }
}

params! {
    /// The parameters of `mailbox.list` beside the thing.
    pub(super) struct List {
        optional status: Vec<String> = "status", "Only mails with one of these statuses.";
        optional offset: u64 = "offset", "How many to leave out from the beginning.";
        optional limit: u64 = "limit", "At most so many; at most, and by default, 2000.";
    }
}

params! {
    /// The parameters of `mailbox.purge` beside the thing.
    pub(super) struct Purge {
        optional id: MailId = "id", "The mail's id; without it, all mails of the thing are meant.";
    }
}

/// A mail on the wire.
pub(super) struct MailView(Mail, Clock);

/// The reply of `mailbox.list`.
#[derive(Serialize)]
pub(super) struct ListReply {
    count: usize,
    result: Vec<MailView>,
}

/// The reply of `mailbox.summary`.
#[derive(Default)]
pub(super) struct Summary([usize; Status::ALL.len()]);

/// The reply of `mailbox.purge`.
#[derive(Serialize)]
pub(super) struct Purged {
    count: usize,
}

impl Serialize for MailView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Mail { message, history, outcome }, clock) = self;
        let shown = |step: &Step| Step { ts: clock.shown(step.ts), ..step.clone() };
        let history: Vec<_> = history.iter().map(shown).collect();
        let created = clock.shown(message.created);
        let mut view = serializer.serialize_struct("mail", 14)?;
        view.serialize_field("id", &message.id)?;
        view.serialize_field("thingKey", &message.thing_key)?;
        view.serialize_field("thingId", &message.thing)?;
        view.serialize_field("command", &message.command)?;
        match &message.params {
            Some(params) => view.serialize_field("params", params)?,
            None => view.serialize_field("params", &Map::new())?,
        }
        view.serialize_field("from", &message.from)?;
        view.serialize_field("createdOn", &created)?;
        view.serialize_field("expires", &message.expires.map(|time| clock.shown(time)))?;
        view.serialize_field("status", &self.0.status())?;
        if let Some(outcome) = outcome {
            view.serialize_field("errorCode", &outcome.code)?;
            if let Some(message) = &outcome.message {
                view.serialize_field("errorMessage", message)?;
            }
            if let Some(params) = &outcome.params {
                view.serialize_field("ackParams", params)?;
            }
        }
        view.serialize_field("history", &history)?;
        let updated = history.last().map_or(created, |step| step.ts);
        view.serialize_field("updated", &updated)?;
        view.end()
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut view = serializer.serialize_struct("summary", 1 + Status::ALL.len())?;
        view.serialize_field("total", &self.0.iter().sum::<usize>())?;
        for (status, count) in Status::ALL.iter().zip(&self.0) {
            view.serialize_field(status.as_str(), count)?;
        }
        view.end()
    }
}

/// `mailbox.find`.
pub(super) fn find(call: &Call<'_>, Find { id }: Find) -> Result<MailView, Failure> {
    let mail = call.app.mailbox.find(call.session.org_id(), id)?;
    let mail = mail.ok_or_else(|| not_found(id))?;
    if may_see(call, &mail)? {
        Ok(MailView(mail, call.app.clock.clone()))
    } else {
        Err(not_found(id))
    }
}

/// `mailbox.list`.
pub(super) fn list(call: &Call<'_>, (target, list): (Target, List)) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let statuses = list.status.map(|names| statuses(&names)).transpose()?;
        let limit = match list.limit {
            None | Some(0) => limits::LIST_MAX,
            Some(limit) => limit.min(limits::LIST_MAX),
        };
        let offset = list.offset.and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
        let end = offset.saturating_add(limit as usize);
        let (mut reply, mut bytes) = (ListReply { count: 0, result: Vec::new() }, 0);
        visit(call, &target, |mail| {
            if statuses.as_ref().is_none_or(|wanted| wanted.contains(&mail.status())) {
                if (offset..end).contains(&reply.count) {
                    bytes += mail.bytes();
                    if bytes <= limits::REPLY_BYTES_MAX {
                        reply.result.push(MailView(mail, call.app.clock.clone()));
                    }
                }
                reply.count += 1;
            }
        })?;
        if bytes > limits::REPLY_BYTES_MAX {
            let most = limits::REPLY_BYTES_MAX;
            let sentence = format!("The mails have more than {most} bytes; ask for fewer.");
            return Err(Failure::new(Code::REPLY_TOO_LARGE, sentence));
        }
        Ok(reply)
    })
}

/// `mailbox.summary`.
pub(super) fn summary(call: &Call<'_>, target: Target) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let mut summary = Summary::default();
        visit(call, &target, |mail| summary.0[mail.status() as usize] += 1)?;
        Ok(summary)
    })
}

/// `mailbox.purge`.
pub(super) fn purge(
    call: &Call<'_>,
    (target, Purge { id }): (Target, Purge),
) -> Result<After<Purged>, Failure> {
    let mailbox = &call.app.mailbox;
    let Some(id) = id else {
        let subject = target.subject(call)?;
        let (count, receipt) = mailbox.purge_thing(subject.id, call.app.clock.now())?;
        return Ok(After(Purged { count }, receipt.into()));
    };
    find(call, Find { id })?;
    let receipt = mailbox.purge(id, call.app.clock.now())?.ok_or_else(|| ended(id))?;
    Ok(After(Purged { count: 1 }, receipt.into()))
}

/// Visits the mails of the thing, or, for a user who names none, of the organisation.
fn visit(call: &Call<'_>, target: &Target, visit: impl FnMut(Mail)) -> Result<(), Failure> {
    let org = call.session.org_id();
    let scope = if call.session.kind() == Kind::User && target.names_nothing() {
        Scope::Org(org)
    } else {
        Scope::Thing(org, target.subject(call)?.id)
    };
    let visited = call.app.mailbox.visit(scope, limits::MAILS_SEARCHED_MAX, visit);
    visited.map_err(|error: StoreError| error.into())
}

fn statuses(names: &[String]) -> Result<Vec<Status>, Failure> {
    let read = |name: &String| {
        Status::parse(name).ok_or_else(|| {
            let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            let (known, name) = (known.join(", "), excerpt(name));
            let sentence =
                format!("Parameter \"status\" must be one of {known}; it is \"{name}\".");
            Failure::new(Code::PARAMETER_INVALID, sentence)
        })
    };
    names.iter().map(read).collect()
}
