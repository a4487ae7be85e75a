//! A mail: a message to a thing, and what became of it (`docs/protocol/tr50.md` 4.2).

use std::sync::Arc;

use base::{MailId, OrgId, ThingId, ThingKey, Timestamp, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::things::{Maker, Payer};

/// Steps of a mail's history that are kept in any case.
const HISTORY_MIN: usize = 3;

/// The command of a mail that was made by `method.exec`.
pub const METHOD_EXEC: &str = "method.exec";

/// How far a mail has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nobody has fetched it.
    New,
    /// Fetched out by `mailbox.check`; forgotten when the session that fetched it ends.
    InFlight,
    /// The thing said that it works on it (`mailbox.update`).
    InProgress,
    /// The thing has done it (`mailbox.ack`).
    CompletedOk,
    /// The thing has failed to do it.
    CompletedError,
    /// Done by being fetched (`mailbox.check` with `autoComplete`).
    CompletedAuto,
    /// Not done in its time.
    Expired,
    /// Taken back (`mailbox.purge`).
    Purged,
}

impl Status {
    /// All of them, in the order of a mail's life.
    pub const ALL: [Self; 8] = [
        Self::New,
        Self::InFlight,
        Self::InProgress,
        Self::CompletedOk,
        Self::CompletedError,
        Self::CompletedAuto,
        Self::Expired,
        Self::Purged,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::InFlight => "in-flight",
            Self::InProgress => "in-progress",
            Self::CompletedOk => "completed-ok",
            Self::CompletedError => "completed-error",
            Self::CompletedAuto => "completed-auto",
            Self::Expired => "expired",
            Self::Purged => "purged",
        }
    }

    /// Whether it does not change any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::New | Self::InFlight | Self::InProgress)
    }

    /// The status with this name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }
}

/// What the sender wrote; it never changes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    /// The mail's id.
    pub id: MailId,
    /// The organisation of the thing.
    pub org: OrgId,
    /// The thing that it is for.
    pub thing: ThingId,
    /// Its key.
    pub thing_key: ThingKey,
    /// What is to be done.
    pub command: String,
    /// The method, if the command is `method.exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The command's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
    /// Who sent it: an e-mail address or a thing's key.
    pub from: String,
    /// Whose share it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Maker,
    /// When.
    pub created: Timestamp,
    /// When it expires; none: it waits until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Message {
    /// Whose share it is.
    pub const fn payer(&self) -> Payer {
        (self.org, self.sender)
    }

    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let params = self.params.as_ref().map_or(0, |params| params.get().len());
        size_of::<Self>() + self.command.len() + self.from.len() + params
    }
}

/// One step of a mail's life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What it became.
    pub status: Status,
    /// When.
    pub ts: Timestamp,
    /// What the thing said to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
}

/// How a thing has completed a mail.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The thing's error code; 0 is success.
    #[serde(default)]
    pub code: i64,
    /// What it said to its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
}

impl Outcome {
    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let params = self.params.as_ref().map_or(0, |params| params.get().len());
        self.message.as_ref().map_or(0, String::len) + params
    }
}

/// A mail.
#[derive(Clone, Debug)]
pub struct Mail {
    /// What the sender wrote.
    pub message: Arc<Message>,
    /// What happened to it, oldest first; never empty.
    pub history: Vec<Step>,
    /// How it was completed.
    pub outcome: Option<Arc<Outcome>>,
}

/// What is stored of a mail beside the message.
#[derive(Serialize)]
struct StateOf<'a> {
    history: &'a [Step],
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a Outcome>,
}

/// The same, as it is read.
#[derive(Deserialize)]
struct State {
    history: Vec<Step>,
    #[serde(default)]
    outcome: Option<Outcome>,
}

impl Mail {
    /// A new mail.
    pub fn new(message: Message) -> Self {
        let step = Step { status: Status::New, ts: message.created, msg: None };
        Self { message: Arc::new(message), history: vec![step], outcome: None }
    }

    /// Its id.
    pub fn id(&self) -> MailId {
        self.message.id
    }

    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let text = |step: &Step| step.msg.as_ref().map_or(0, String::len);
        let steps: usize = self.history.iter().map(|step| size_of::<Step>() + text(step)).sum();
        let outcome = self.outcome.as_ref().map_or(0, |outcome| outcome.bytes());
        self.message.bytes() + steps + outcome
    }

    /// How far it has come.
    pub fn status(&self) -> Status {
        self.history.last().map_or(Status::New, |step| step.status)
    }

    /// Notes what it became. Of a long history, or where there is no `room` for one, the beginning
    /// is kept and the end.
    pub fn step(&mut self, status: Status, ts: Timestamp, msg: Option<String>, room: bool) {
        let most = if room { limits::MAIL_HISTORY_MAX } else { HISTORY_MIN };
        if self.history.len() >= most {
            self.history.remove(1);
        }
        self.history.push(Step { status, ts, msg });
    }

    /// The message as a row's value. It is written once; what changes is much smaller.
    pub fn message_record(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.message).expect("a message has no map")
    }

    /// Everything else as a row's value.
    pub fn state_record(&self) -> Vec<u8> {
        let state = StateOf { history: &self.history, outcome: self.outcome.as_deref() };
        serde_json::to_vec(&state).expect("a mail's state has no map")
    }

    /// The mail in two rows. What was in flight when it was written is new again: nobody has it.
    ///
    /// # Errors
    /// A row was written by a newer program, or is damaged.
    pub fn from_records(message: &[u8], state: &[u8]) -> Result<Self, serde_json::Error> {
        let message: Message = serde_json::from_slice(message)?;
        let State { history, outcome } = serde_json::from_slice(state)?;
        let mut mail = Self { message: Arc::new(message), history, outcome: outcome.map(Arc::new) };
        if mail.status() == Status::InFlight {
            let ts = mail.history.last().map_or(mail.message.created, |step| step.ts);
            mail.step(Status::New, ts, None, true);
        }
        Ok(mail)
    }
}
