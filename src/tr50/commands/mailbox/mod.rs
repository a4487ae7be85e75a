//! `mailbox.*`: fetching mail, and acknowledging it (`docs/protocol/tr50.md` 4.2).

use std::collections::HashMap;
use std::sync::Arc;

use base::{
    Code, Failure, MailId, ThingId, ThingKey, beginning,
    json::{ObjectWriter, key},
    limits,
};
use rules::directory::Who;
use rules::identity::ThingDef;
use serde_json::value::RawValue;

use super::commands;
use super::target::{
    can_access, check_is_thing, children, is_restricted, no_thing_of_its_own, served,
};
use crate::app::notice_to;
use crate::app::{AfterReply, Effects, Worker};
use crate::things::mailbox::Fetched;
use crate::things::mailbox::mail::{Mail, Message, Outcome, Status};
use crate::tr50::envelope::Param;
use crate::tr50::params::{Value, params};
use crate::tr50::step::{After, AfterOrLater, Call, Done, Later, WriteReply};

mod listing;
pub mod sending;

commands! {
    "mailbox.ack" => ack where check_is_thing, [NOT_FOUND, MAIL_ENDED, WRONG_SESSION_KIND],
        "Completes a mail to the own thing, or to one that is bound to it. Whoever waits for the \
         mail's result gets code, text and parameters as they are. Of a mail that was completed by \
         being fetched, this changes nothing.",
        "";
    "mailbox.check" => check where check_is_thing, [WRONG_SESSION_KIND],
        "Fetches the new mails of the own thing and of those that are bound to it, the oldest \
         first. They are in flight then: nobody gets them again, unless the session ends before \
         they are completed. When more remain, a notice follows the reply.",
        "`messages`: each with `id`, `thingKey`, `from`, `command`, `expires` (null: it waits for \
         ever), `params`, `thingDefId`, `thingDefKey` and `thingDefName` (empty without a \
         definition), in this order";
    "mailbox.find" => listing::find, [NOT_FOUND],
        "Shows one mail of the current organisation, done or not, with its history.",
        "`id`, `thingKey`, `thingId`, `command`, `params`, `from`, `createdOn`, `expires`, \
         `status` (new, in-flight, in-progress, completed-ok, completed-error, completed-auto, \
         expired, purged), `history`: each with `status`, `ts`, `msg`, and `updated`; of a \
         completed one also `errorCode`, `errorMessage` and `ackParams` as the thing gave them";
    "mailbox.list" => listing::list, [NOT_FOUND],
        "Lists mails of a thing, or, for users who name none, of the current organisation: the \
         newest first, also those that are done, as long as they are kept.",
        "`count` (of those among the newest 100,000), `result`: each as in mailbox.find";
    "mailbox.purge" => listing::purge, [NOT_FOUND, MAIL_ENDED],
        "Takes back one mail that is not done, or all of a thing.",
        "`count`: how many";
    "mailbox.send" => sending::send, [NOT_FOUND, WRONG_SESSION_KIND, NO_ANSWER, MAILBOX_FULL],
        "Sends a command to a thing and waits for its answer. A singleton is not sent while a mail \
         with the same command waits for the thing: then the answer is that one's.",
        "what the thing gives to mailbox.ack; if it is not waited for: `id`";
    "mailbox.summary" => listing::summary, [NOT_FOUND],
        "Counts the mails that mailbox.list would list, by their status.",
        "`total` and one member for each status";
    "mailbox.update" => update where check_is_thing, [NOT_FOUND, MAIL_ENDED, WRONG_SESSION_KIND],
        "Tells that the thing works on a mail. It is in progress then, and stays so when the \
         session ends.",
        "";
}

params! {
    /// The parameters of `mailbox.check`.
    pub struct Check {
        optional auto_complete: bool = "autoComplete",
            "Whether the mails are completed by being fetched; false by default.";
        optional limit: u64 = "limit",
            "At most so many mails; by default, and at most, 100 and 256 kB.";
    }
}

params! {
    /// The parameters of `mailbox.update`.
    pub struct Update {
        required id: MailId = "id", "The mail's id.";
        optional msg: String = "msg", "What there is to say, for the mail's history.";
    }
}

params! {
    /// The parameters of `mailbox.ack`.
    pub struct Ack {
        required id: MailId = "id", "The mail's id.";
        optional error_code: ErrorCode = "errorCode", "0, or absent, is success.";
        optional error_message: String = "errorMessage", "What there is to say to an error.";
        optional params: Box<RawValue> = "params", "What the thing answers.";
    }
}

/// A device's error code: any whole number, as number or text (`docs/protocol/tr50.md` 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorCode(pub i64);

impl Value for ErrorCode {
    const EXPECTED: &'static str = "a whole number";

    fn read(param: Param<'_>) -> Option<Self> {
        let text = param.bare_text()?;
        match text.trim() {
            "" => Some(Self(0)),
            text => text.parse().ok().or_else(|| whole(text)).map(Self),
        }
    }
}

fn whole(text: &str) -> Option<i64> {
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

/// `mailbox.check`.
fn check(call: &Call<'_>, params: Check) -> Result<AfterOrLater<Messages>, Failure> {
    let some = children(call, limits::THINGS_AT_ONCE_MAX + 1)?;
    if some.len() <= limits::THINGS_AT_ONCE_MAX {
        return check_now(call, some, params).map(AfterOrLater::After);
    }
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    let (worker, conn) = (call.worker(), call.conn);
    let later = Later::new(async move {
        let shared = app.clone();
        let work = move || {
            let call = Call { app: &shared, session: &session, conn, now };
            check_now(&call, children(&call, limits::CHILDREN_MAX)?, params)
        };
        app.offload(worker, work).await?
    });
    Ok(AfterOrLater::Later(later.in_order()))
}

fn check_now(
    call: &Call<'_>,
    children: Vec<(ThingId, ThingKey)>,
    Check { auto_complete, limit }: Check,
) -> Result<After<Messages>, Failure> {
    let things = served(call, children)?;
    let count_max = match limit.map(usize::try_from) {
        None | Some(Ok(0) | Err(_)) => usize::MAX,
        Some(Ok(limit)) => limit,
    };
    let (mailbox, session) = (&call.app.mailbox, call.session);
    let auto_complete = auto_complete.unwrap_or(false);
    let now = call.app.clock.now();
    let fetched = mailbox.fetch(&things, session.number(), count_max, auto_complete, now)?;
    let Fetched { mails, receipt } = fetched;
    if session.end().is_some() {
        // It ended meanwhile, and may have given its mails back already.
        call.app.return_mail_of(session, now);
    }
    let messages = Messages::of(call, mails);
    Ok(After(messages, Effects::from(receipt).and_then(notice_of_more(call, things))))
}

/// Tells of mail that is left, or has come meanwhile, behind the reply: device-cloud-lib does not
/// listen to notices while it waits for one (`docs/protocol/tr50.md` 4.2).
fn notice_of_more(call: &Call<'_>, things: Vec<ThingId>) -> Option<AfterReply> {
    call.session.outbox()?;
    let (app, session) = (call.app.clone(), call.session.clone());
    let worker = Worker::Begun(session.org_id(), session.who().principal_id());
    Some(Box::new(move || {
        let (shared, many) = (app.clone(), things.len() > limits::THINGS_AT_ONCE_MAX);
        let tell = move || {
            let more = shared.mailbox.new_for(&things);
            if let Some((outbox, notice)) = more.and_then(|message| notice_to(&session, &message)) {
                outbox.push(notice);
            }
        };
        if many {
            app.offload_detached(worker, tell);
        } else {
            tell();
        }
    }))
}

/// The reply of `mailbox.check`: mails, each with the definition of its thing.
struct Messages(Vec<(Mail, Option<Arc<ThingDef>>)>);

impl Messages {
    fn of(call: &Call<'_>, mails: Vec<Mail>) -> Self {
        // Most are to one thing.
        let mut known: HashMap<ThingId, Option<Arc<ThingDef>>> = HashMap::new();
        let with_def = |mail: Mail| {
            let message = &mail.message;
            let def = known.entry(message.thing).or_insert_with(|| def_of(call, message));
            let def = def.clone();
            (mail, def)
        };
        Self(mails.into_iter().map(with_def).collect())
    }
}

/// The definition of a mail's thing. The mail is in flight already, so it goes out even if the thing
/// can't be read.
fn def_of(call: &Call<'_>, message: &Message) -> Option<Arc<ThingDef>> {
    let thing = call.app.things.get(message.org, &message.thing_key).unwrap_or_else(|error| {
        store::report(&error, "the definition of a mail's thing is not known");
        None
    });
    call.app.identity().thing_def(message.org, thing?.def?)
}

impl WriteReply for Messages {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":{"messages":["#);
        for (index, (mail, def)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let message = &mail.message;
            let mut object = ObjectWriter::new(out);
            object.hex(key!("id"), message.id.as_bytes());
            object.string(key!("thingKey"), message.thing_key.as_str());
            object.string(key!("from"), &message.from);
            object.string(key!("command"), &message.command);
            match message.expires {
                Some(expires) => object.time(key!("expires"), expires),
                None => object.name(key!("expires")).extend_from_slice(b"null"),
            }
            let params = message.params.as_ref().map_or("{}", |params| params.get());
            object.name(key!("params")).extend_from_slice(params.as_bytes());
            // Right behind them: old agents cut the text between the two names.
            match def {
                Some(def) => object.hex(key!("thingDefId"), def.id.as_bytes()),
                None => object.string(key!("thingDefId"), ""),
            }
            let name = |name: fn(&ThingDef) -> &str| def.as_deref().map_or("", name);
            object.string(key!("thingDefKey"), name(|def| &def.key));
            object.string(key!("thingDefName"), name(|def| &def.name));
            object.end();
        }
        out.extend_from_slice(b"]}}");
    }
}

/// `mailbox.update`.
pub fn update(call: &Call<'_>, Update { id, msg }: Update) -> Result<After<Done>, Failure> {
    if check_serves(call, id)? == Waits::No {
        return Ok(After(Done, Effects::default()));
    }
    let msg = msg.map(shortened);
    let receipt = call.app.mailbox.update(id, msg, call.app.clock.now())?;
    receipt.map(|receipt| After(Done, receipt.into())).ok_or_else(|| ended(id))
}

/// `mailbox.ack`.
pub fn ack(call: &Call<'_>, ack: Ack) -> Result<After<Done>, Failure> {
    if check_serves(call, ack.id)? == Waits::No {
        return Ok(After(Done, Effects::default()));
    }
    let outcome = Outcome {
        code: ack.error_code.map_or(0, |code| code.0),
        message: ack.error_message,
        params: ack.params.map(sending::compact),
    };
    let receipt = call.app.mailbox.complete(ack.id, outcome, call.app.clock.now())?;
    receipt.map(|receipt| After(Done, receipt.into())).ok_or_else(|| ended(ack.id))
}

/// A thing's text as far as it is kept.
fn shortened(mut text: String) -> String {
    text.truncate(beginning(&text, limits::MAIL_TEXT_BYTES_MAX).len());
    text
}

/// Whether a mail waits for what its thing says.
#[derive(PartialEq, Eq)]
enum Waits {
    Yes,
    /// It was completed by being fetched. The agent that did so acknowledges it all the same.
    No,
}

/// Whether the mail waits; the caller's session has to be one that serves the mail's thing.
///
/// # Errors
///
/// The caller is a user; there is no such mail for these things; it is done otherwise than by being
/// fetched.
fn check_serves(call: &Call<'_>, id: MailId) -> Result<Waits, Failure> {
    let Who::Application { thing_id, .. } = call.session.who() else {
        return Err(no_thing_of_its_own());
    };
    let org = call.session.org_id();
    let Some(mail) = call.app.mailbox.find(org, id)? else { return Err(not_found(id)) };
    let message = &mail.message;
    if message.thing != *thing_id {
        let thing = call.app.things.get(org, &message.thing_key)?;
        if thing.is_none_or(|thing| thing.bound_to != Some(*thing_id)) {
            return Err(not_found(id));
        }
    }
    match mail.status() {
        Status::CompletedAuto => Ok(Waits::No),
        status if status.is_final() => Err(ended(id)),
        _ => Ok(Waits::Yes),
    }
}

/// Whether the caller may know of the mail.
fn may_see(call: &Call<'_>, mail: &Mail) -> Result<bool, Failure> {
    let message = &mail.message;
    match call.session.who() {
        Who::Application { thing_id, .. } if is_restricted(call) && message.thing != *thing_id => {
            let thing = call.app.things.get(message.org, &message.thing_key)?;
            Ok(thing.is_some_and(|thing| can_access(call, &thing)))
        }
        _ => Ok(true),
    }
}

fn not_found(id: MailId) -> Failure {
    Failure::not_found(format_args!("Mail \"{id}\""))
}

fn ended(id: MailId) -> Failure {
    Failure::new(Code::MAIL_ENDED, format!("Mail \"{id}\" does not wait any more."))
}
