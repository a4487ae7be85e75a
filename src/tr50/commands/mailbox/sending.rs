//! `mailbox.send` and `method.exec`: sending a mail, and waiting for its outcome.

use std::sync::Arc;
use std::time::Duration;

use base::pool::Pool;
use base::{
    Code, Failure, MailId, SessionId, Timestamp,
    json::{self, ObjectWriter, key},
    limits,
};
use rules::directory::{Kind, Who};
use serde_json::value::RawValue;

use crate::app::Effects;
use crate::things::mailbox::mail::Outcome;
use crate::things::mailbox::{Answer, NewMessage, SendError, method_in};
use crate::tr50::commands::target::{Subject, Target, is_restricted};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, FromDevice, Later, WriteReply};

params! {
    /// What a sender says of the time that the mail has.
    pub struct SendOptions {
        optional ack_timeout: f64 = "ackTimeout",
            "Seconds to wait for the answer, at most 300; less than 1: not at all, the mail's id is the answer. By default as long as the thing's definition says of the method, or 30.";
        optional ttl: f64 = "ttl",
            "Seconds for which the mail waits for the thing; negative: until it is done. As long as ackTimeout by default.";
        optional singleton: bool = "singleton",
            "Whether the mail is only made if none like it waits for the thing.";
    }
}

params! {
    /// The parameters of `mailbox.send`.
    pub struct Send {
        optional session_id: String = "sessionId",
            "The session whose thing is meant, instead of the thing.";
        required command: String = "command", "What the thing is to do.";
        optional params: Box<RawValue> = "params", "The command's parameters.";
    }
}

/// What is sent.
pub struct Order {
    /// What the thing is to do.
    pub command: String,
    /// The command's parameters.
    pub params: Option<Box<RawValue>>,
    /// Seconds to wait for the answer, if the sender does not say.
    pub wait_s: f64,
}

/// `mailbox.send`.
pub fn send(
    call: &Call<'_>,
    (target, (send, options)): (Target, (Send, SendOptions)),
) -> Result<FromDevice, Failure> {
    let subject = match &send.session_id {
        Some(id) => thing_of_session(call, id, target)?,
        None => target.subject(call)?,
    };
    let params = send.params.map(compact);
    deliver(
        call,
        subject,
        Order { command: send.command, params, wait_s: limits::ACK_WAIT_S },
        &options,
    )
}

/// The thing of a live session of the caller's organisation.
fn thing_of_session(call: &Call<'_>, id: &str, mut target: Target) -> Result<Subject, Failure> {
    let found = SessionId::parse(id).and_then(|id| call.app.directory().by_id(&id));
    let found = found.filter(|session| session.org_id() == call.session.org_id());
    // Behind a restricted token, a session that it can't reach is as one that is not there.
    let is_restricted = is_restricted(call);
    let found = found.filter(|found| !is_restricted || found.kind() == Kind::Application);
    let none = || Failure::not_found("The session");
    let session = found.ok_or_else(none)?;
    let Who::Application { thing_key, .. } = session.who() else {
        let sentence = "The session is a user's, which has no thing.";
        return Err(Failure::new(Code::WRONG_SESSION_KIND, sentence));
    };
    target.thing_key = Some(thing_key.clone());
    target.subject(call).map_err(|failure| match failure.code {
        Code::PERMISSION_DENIED if is_restricted => none(),
        _ => failure,
    })
}

/// Sends a mail, and says how to wait for the answer.
///
/// # Errors
///
/// There is no room for the mail, or for somebody who waits.
pub fn deliver(
    call: &Call<'_>,
    subject: Subject,
    order: Order,
    options: &SendOptions,
) -> Result<FromDevice, Failure> {
    let wait_s = options.ack_timeout.unwrap_or(order.wait_s);
    let wait = (wait_s >= 1.0).then(|| Duration::from_secs_f64(wait_s.min(limits::ACK_WAIT_S_MAX)));
    let (cut, now) = (cut_wait(wait_s), call.app.clock.now());
    let new = NewMessage {
        org: call.session.org_id(),
        thing: subject.id,
        thing_key: subject.key.clone(),
        method: method_in(&order.command, order.params.as_deref()),
        command: order.command,
        params: order.params,
        from: call.session.who().name().to_owned(),
        sender: call.session.who().principal_id(),
        expires: expires(options.ttl, wait, now),
        singleton: options.singleton.unwrap_or(false),
        wait,
    };
    let sent = call
        .app
        .send_mail(new, call.session, now)
        .map_err(|error| send_failure(error, &subject))?;
    Ok(FromDevice(Later::new(async move {
        sent.receipt.await?;
        let id = sent.message.id;
        let effects = Effects::default();
        let Some(waiter) = sent.waiter else {
            return Ok(After(SendReply::Unanswered(id), effects));
        };
        let thing = &subject.key;
        let why = match waiter.answered().await {
            Answer::Completed(outcome) => return Ok(After(SendReply::Answered(outcome), effects)),
            Answer::Expired => {
                format!("Mail \"{id}\" expired before thing \"{thing}\" answered.{cut}")
            }
            Answer::Purged => {
                format!("Mail \"{id}\" was purged before thing \"{thing}\" answered.")
            }
            Answer::NotInTime => {
                let seconds = wait.map_or(0.0, |wait| wait.as_secs_f64());
                format!("Thing \"{thing}\" has not answered mail \"{id}\" in {seconds} s.{cut}")
            }
            Answer::HungUp => {
                format!("The connection ended before thing \"{thing}\" answered mail \"{id}\".")
            }
            Answer::Stopped => {
                format!("The server stopped before thing \"{thing}\" answered mail \"{id}\".")
            }
            Answer::NotStored => {
                let sentence = "The server could not store the answer of the thing.";
                return Err(Failure::new(Code::INTERNAL, sentence));
            }
        };
        Err(Failure::new(Code::NO_ANSWER, why))
    })))
}

/// What a caller has to know who asked for a longer wait than there is, when no answer came.
fn cut_wait(asked_s: f64) -> String {
    let most = limits::ACK_WAIT_S_MAX;
    match asked_s > most {
        true => format!(" The longest ackTimeout is {most} s."),
        false => String::new(),
    }
}

/// When a mail expires. 0 seconds mean the same as none given, as in the cloud, whose programs
/// can't tell the two apart (`docs/protocol/tr50.md` 0, fact 26).
fn expires(ttl_s: Option<f64>, wait: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
    let ttl_s = match ttl_s {
        Some(ttl_s) if ttl_s != 0.0 => ttl_s,
        _ => wait?.as_secs_f64(),
    };
    // Longer than the calendar of RFC 3339 is for ever.
    (ttl_s > 0.0).then(|| now.plus_millis((ttl_s * 1000.0) as i64))
}

fn send_failure(error: SendError, subject: &Subject) -> Failure {
    match error {
        SendError::Full(count) => {
            let thing = &subject.key;
            let sentence = format!(
                "{count} mails wait for thing \"{thing}\", as many as may (mailbox.waiting_max)."
            );
            Failure::new(Code::MAILBOX_FULL, sentence)
        }
        SendError::Share(count) => {
            let thing = &subject.key;
            let sentence = format!(
                "You have your share of the {count} mails that may wait for thing \"{thing}\" \
                 (mailbox.waiting_max); the rest is for others."
            );
            Failure::new(Code::MAILBOX_FULL, sentence)
        }
        SendError::OverShare(over) if over.pool == Pool::Disk => over.into(),
        // Mails that wait and callers go by themselves.
        SendError::OverShare(over) => Failure::new(Code::BUSY, Failure::from(over).message),
        SendError::Busy => {
            Failure::new(Code::BUSY, "The server has no room for another mail now; try again.")
        }
        SendError::Store(error) => error.into(),
    }
}

/// What came of a mail.
enum SendReply {
    /// It is on its way, and nobody waits for the answer.
    Unanswered(MailId),
    /// What the thing answered.
    Answered(Arc<Outcome>),
}

impl WriteReply for SendReply {
    fn write_reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unanswered(id) => {
                out.extend_from_slice(br#"{"success":true,"params":"#);
                let mut params = ObjectWriter::new(out);
                params.hex(key!("id"), id.as_bytes());
                params.end();
                out.push(b'}');
            }
            Self::Answered(outcome) => write_outcome(outcome, out),
        }
    }
}

/// What the thing answered, with its code, text and parameters as they came. The command did what
/// it had to do, whatever the thing says of itself.
fn write_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    if outcome.code == 0 {
        out.extend_from_slice(br#"{"success":true"#);
    } else {
        out.extend_from_slice(br#"{"success":false,"errorCodes":["#);
        json::push_integer(out, outcome.code);
        out.extend_from_slice(br#"],"errorMessages":["#);
        let unsaid = "The thing reports an error without a message.";
        json::push_string(out, outcome.message.as_deref().unwrap_or(unsaid));
        out.push(b']');
    }
    if let Some(params) = &outcome.params {
        out.extend_from_slice(br#","params":"#);
        out.extend_from_slice(params.get().as_bytes());
    }
    out.push(b'}');
}

/// The same value without blanks between its tokens: a reply over TCP is one line.
pub fn compact(value: Box<RawValue>) -> Box<RawValue> {
    if !value.get().bytes().any(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')) {
        return value;
    }
    let mut text = Vec::with_capacity(value.get().len());
    json::push_compact(&mut text, value.get());
    String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok()).unwrap_or(value)
}

/// The parameters of a mail that asks for a method (`docs/protocol/tr50.md` 4.2).
///
/// # Errors
///
/// They are nested too deep for a JSON value.
pub fn method_params(method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, Failure> {
    let mut text = Vec::new();
    let mut object = ObjectWriter::new(&mut text);
    object.string(key!("method"), method);
    let out = object.name(key!("params"));
    json::push_compact(out, params.map_or("{}", RawValue::get));
    object.end();
    let text = String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok());
    text.ok_or_else(|| Failure::new(Code::PARAMETER_INVALID, "\"params\" must be a JSON value."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_lives_as_long_as_its_sender_waits_unless_that_is_said() {
        let now = Timestamp::from_millis(1_000_000);
        let check = |ttl: Option<f64>, wait: Option<u64>, expected: Option<i64>| {
            let found = expires(ttl, wait.map(Duration::from_secs), now);
            assert_eq!(found, expected.map(|millis| now.plus_millis(millis)), "{ttl:?} {wait:?}");
        };
        check(None, Some(30), Some(30_000));
        check(Some(0.0), Some(30), Some(30_000));
        check(Some(1.5), Some(30), Some(1500));
        check(Some(-1.0), Some(30), None);
        check(None, None, None);
        check(Some(60.0), None, Some(60_000));
        check(Some(1e300), None, Some(i64::MAX - 1_000_000));
    }

    #[test]
    fn who_asks_for_a_longer_wait_than_there_is_learns_of_it() {
        assert_eq!(cut_wait(300.0), "");
        assert_eq!(cut_wait(300.5), " The longest ackTimeout is 300 s.");
    }

    #[test]
    fn what_the_thing_says_is_passed_on_unchanged() {
        let check = |code, message: Option<&str>, params: Option<&str>, expected: &str| {
            let params = params.map(|text| RawValue::from_string(text.to_owned()).expect("JSON"));
            let outcome = Outcome { code, message: message.map(str::to_owned), params };
            let mut out = Vec::new();
            write_outcome(&outcome, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(0, None, None, r#"{"success":true}"#);
        check(0, Some("ignored"), Some(r#"{"a":1.0}"#), r#"{"success":true,"params":{"a":1.0}}"#);
        let failed =
            r#"{"success":false,"errorCodes":[-18030],"errorMessages":["fail \"and\" such"]}"#;
        check(-18030, Some("fail \"and\" such"), None, failed);
        let silent = r#"{"success":false,"errorCodes":[4],"errorMessages":["The thing reports an error without a message."],"params":{}}"#;
        check(4, None, Some("{}"), silent);
    }
}
