//! The dispatcher: name → permission → handler, in the order of the request, answered under the
//! same names. It never knows which transport a command came from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::commands::{self, Row};
use super::envelope::{Body, Command};
use super::error::{Code, Failure};
use super::json;
use super::params::Field;
use crate::core::{Affected, Core};
use crate::directory::event::Event;
use crate::directory::{Changes, Outlet, Reason, Session, Who};
use crate::identity::model::User;
use crate::limits;
use crate::store::writer::Receipt;
use crate::timestamp::Timestamp;
use crate::transport::ConnInfo;

/// A command of the language: everything that is known of it, in one place.
pub struct CommandInfo {
    /// Its name, which is also the permission that it needs.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// What is under `params` in its reply; empty: nothing.
    pub reply: &'static str,
    /// The codes of its failures, beside those that every command can have.
    pub errors: &'static [Code],
    /// Its parameters.
    pub params: fn() -> Vec<Field>,
    /// What it does, in code.
    pub handler: Handler,
}

/// The kinds of handler.
pub enum Handler {
    /// Answers from memory, with or without a session.
    Open(fn(RawParams<'_>, &mut Vec<u8>) -> Result<(), Failure>),
    /// Answers from memory.
    Read(ReadHandler),
    /// Reads so much, sometimes, that it runs apart from the threads that serve connections.
    Heavy {
        /// Whether it does so this time.
        is_heavy: fn(&Call<'_>, RawParams<'_>) -> bool,
        /// What it does.
        handler: ReadHandler,
    },
    /// Changes state; answered when the change is durable.
    Change(ChangeHandler),
    /// Changes other state; answered when the change is durable.
    Store(StoreHandler),
    /// Changes other state, and has something to say to the caller after its reply, which is sent
    /// when the change is durable.
    Fetch(FetchHandler),
    /// Changes records of identity; answered when live sessions follow and it is durable.
    Record(RecordHandler),
    /// Waits for something else than one receipt of the store.
    Wait(WaitHandler),
    /// Waits for a device, maybe for minutes: what the client sends next is not to wait for it.
    Device(WaitHandler),
    /// Logs in, which takes time, with or without a session.
    Login(fn(LoginCall, Option<Box<RawValue>>) -> Reply),
}

/// The member `params`, not yet looked into.
pub type RawParams<'a> = Option<&'a RawValue>;

/// A handler that appends its reply object.
pub type ReadHandler = fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<(), Failure>;

/// A handler that appends its reply object and says what it changed.
pub type ChangeHandler = fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<Changed, Failure>;

/// What a command changed: sessions, and maybe other state that it handed to the store.
pub struct Changed {
    /// Of the directory; they are not stored yet.
    pub changes: Changes,
    /// For the rest.
    pub receipt: Receipt,
}

impl From<Changes> for Changed {
    fn from(changes: Changes) -> Self {
        Self { changes, receipt: Receipt::nothing() }
    }
}

/// A handler that hands a change to the store, appends its reply object and returns the receipt.
pub type StoreHandler = fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<Receipt, Failure>;

/// A handler that hands a change to the store, appends its reply object, and returns the receipt
/// and what follows the reply.
pub type FetchHandler =
    fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<(Receipt, Option<Sequel>), Failure>;

/// What is done when a reply is on its way, such as sending a message behind it.
pub type Sequel = Box<dyn FnOnce() + Send>;

/// A handler that changes records of identity and appends its reply object.
pub type RecordHandler = fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<Recorded, Failure>;

/// A change of records that was handed to the store.
pub struct Recorded {
    /// For the rows.
    pub receipt: Receipt,
    /// The sessions that have to follow.
    pub affected: Option<Affected>,
}

impl Recorded {
    /// A change that no session has to follow.
    pub const fn quiet(receipt: Receipt) -> Self {
        Self { receipt, affected: None }
    }

    /// A change that these sessions have to follow.
    pub const fn followed(receipt: Receipt, affected: Affected) -> Self {
        Self { receipt, affected: Some(affected) }
    }
}

/// A handler that begins its work and says how to wait for the end of it.
pub type WaitHandler = fn(&Call<'_>, RawParams<'_>) -> Result<Reply, Failure>;

/// A reply that takes time: the text under the command's name.
pub type Reply = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// What a handler gets to know about its caller.
pub struct Call<'a> {
    /// Directory, identity and the rest.
    pub core: &'a Arc<Core>,
    /// Who asks.
    pub session: &'a Arc<Session>,
    /// When.
    pub now: Timestamp,
}

impl Call<'_> {
    /// The user who asks, as known now: the session keeps the record with which it started. None
    /// for an application, or a user who has just been deleted.
    pub fn user(&self) -> Option<Arc<User>> {
        match self.session.who() {
            Who::User(user) => self.core.identity.user(user.id),
            Who::Application { .. } => None,
        }
    }
}

/// What a login gets to know about its caller.
pub struct LoginCall {
    /// Directory, identity and the rest.
    pub core: Arc<Core>,
    /// Who asks; none before a login.
    pub session: Option<Arc<Session>>,
    /// From where.
    pub conn: ConnInfo,
    /// When.
    pub now: Timestamp,
}

/// Who asks, from where.
#[derive(Clone)]
pub struct Caller {
    /// The session; none before a login.
    pub session: Option<Arc<Session>>,
    /// The connection.
    pub conn: ConnInfo,
}

/// A reply that took time, and what is to be done when it is on its way.
#[derive(Default)]
pub struct Answer {
    /// The text of the reply.
    pub bytes: Vec<u8>,
    sequels: Vec<Sequel>,
    closing: Vec<(Arc<dyn Outlet>, Reason)>,
}

impl Answer {
    /// An answer that nothing follows.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, sequels: Vec::new(), closing: Vec::new() }
    }

    /// Notes the connections whose sessions ended with these changes.
    fn close_after(&mut self, changes: &Changes) {
        self.closing.extend(changes.events.iter().filter_map(|event| match event {
            Event::Ended(session, reason) => Some((session.outlet()?.clone(), *reason)),
            _ => None,
        }));
    }

    /// Does what follows the reply, and closes the connections whose sessions the request ended.
    /// To be called when the reply is on its way, so that the caller's own connection does not
    /// close before it.
    pub fn close(self) {
        self.sequels.into_iter().for_each(|sequel| sequel());
        for (outlet, reason) in self.closing {
            outlet.close(reason);
        }
    }
}

/// How far a request got at once.
pub enum Execution {
    /// The reply is written.
    Done,
    /// The reply takes time; nothing of it is written yet.
    Pending(Pending),
    /// The same, but it may take very long, for it waits for a device: what the client sends next
    /// is not to wait for it.
    Waiting(Pending),
}

/// An answer that takes time.
pub type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Executes the commands of a request in order and appends the reply, beginning with `head` (the
/// answer to `auth`, or nothing).
pub fn execute(
    core: &Arc<Core>,
    caller: &Caller,
    commands: &[Command<'_>],
    head: &[u8],
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Execution {
    if let Some(session) = &caller.session {
        core.touch(session, now, commands.len() as u64);
    }
    let start = out.len();
    out.push(b'{');
    out.extend_from_slice(head);
    for (index, command) in commands.iter().enumerate() {
        push_id(out, &command.id, out.len() > start + 1);
        if out.len() - start > limits::REPLY_BYTES_MAX {
            reply_too_large().write(out);
            continue;
        }
        if !execute_now(core, caller, &command.body, now, out) {
            let rest = commands.iter().skip(index);
            let waits = rest.clone().any(waits_for_a_device);
            let rest = rest.map(OwnedCommand::from).collect();
            let reply = out.split_off(start);
            let (core, caller) = (core.clone(), caller.clone());
            let pending = Box::pin(finish(core, caller, rest, reply, now));
            return if waits { Execution::Waiting(pending) } else { Execution::Pending(pending) };
        }
    }
    out.push(b'}');
    Execution::Done
}

fn waits_for_a_device(command: &Command<'_>) -> bool {
    command.body.as_ref().is_ok_and(|body| commands::waits_for_a_device(&body.command))
}

/// The rest of a request, when it outlives the bytes it came in.
struct OwnedCommand {
    id: String,
    body: Result<(String, Option<Box<RawValue>>), &'static str>,
}

impl From<&Command<'_>> for OwnedCommand {
    fn from(command: &Command<'_>) -> Self {
        let body = |body: &Body<'_>| (body.command.to_string(), body.params.map(ToOwned::to_owned));
        Self { id: command.id.to_string(), body: command.body.as_ref().map(body).map_err(|e| *e) }
    }
}

/// Executes what is left, of which the first command is admitted, takes time and has its name
/// written.
async fn finish(
    core: Arc<Core>,
    caller: Caller,
    rest: Vec<OwnedCommand>,
    reply: Vec<u8>,
    now: Timestamp,
) -> Answer {
    let mut answer = Answer::from_bytes(reply);
    let mut logins_left = limits::LOGINS_PER_REQUEST;
    for (index, OwnedCommand { id, body }) in rest.into_iter().enumerate() {
        if index > 0 {
            push_id(&mut answer.bytes, &id, true);
        }
        if answer.bytes.len() > limits::REPLY_BYTES_MAX {
            reply_too_large().write(&mut answer.bytes);
            continue;
        }
        let body = body.as_ref().map(|(command, params)| Body {
            command: command.as_str().into(),
            params: params.as_deref(),
        });
        let body = body.map_err(|error| *error);
        // The first is not admitted again: it would count twice.
        if index == 0 || !execute_now(&core, &caller, &body, now, &mut answer.bytes) {
            execute_later(&core, &caller, &body, now, &mut logins_left, &mut answer).await;
        }
    }
    answer.bytes.push(b'}');
    answer
}

/// The answer to a command for which its request's reply has no room left: a request of a thousand
/// listings must not become gigabytes.
fn reply_too_large() -> Failure {
    let most = limits::REPLY_BYTES_MAX;
    let sentence = format!("The reply is larger than {most} bytes; this was not executed.");
    Failure::new(Code::REPLY_TOO_LARGE, sentence)
}

fn too_many_logins() -> Failure {
    let most = limits::LOGINS_PER_REQUEST;
    let sentence = format!("A request can log in {most} times; this was not executed.");
    Failure::new(Code::BUSY, sentence)
}

/// Executes one command if it can be done at once; otherwise nothing is written.
fn execute_now(
    core: &Arc<Core>,
    caller: &Caller,
    body: &Result<Body<'_>, &'static str>,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> bool {
    let mark = out.len();
    let done = match admit(core, caller, body, now) {
        Ok((row, params)) => {
            let outcome = match (&row.info.handler, &caller.session) {
                (Handler::Open(handler), _) => handler(params, out),
                (Handler::Read(handler), Some(session)) => {
                    handler(&Call { core, session, now }, params, out)
                }
                (Handler::Heavy { is_heavy, handler }, Some(session)) => {
                    let call = Call { core, session, now };
                    if is_heavy(&call, params) {
                        return false;
                    }
                    handler(&call, params, out)
                }
                _ => return false,
            };
            core.metrics.command(row.index, outcome.is_ok());
            outcome
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = done {
        out.truncate(mark);
        failure.write(out);
    }
    true
}

/// Executes one command that takes time.
async fn execute_later(
    core: &Arc<Core>,
    caller: &Caller,
    body: &Result<Body<'_>, &'static str>,
    now: Timestamp,
    logins_left: &mut usize,
    answer: &mut Answer,
) {
    // Admitted by `execute_now`; only the name is looked up again.
    let found = body.as_ref().ok().and_then(|body| Some((commands::find(&body.command)?, body)));
    let Some((row, body)) = found else { return };
    let outcome = match (&row.info.handler, &caller.session) {
        (Handler::Change(handler), Some(session)) => {
            change(*handler, &Call { core, session, now }, body.params, answer).await
        }
        (Handler::Store(handler), Some(session)) => {
            store(*handler, &Call { core, session, now }, body.params, answer).await
        }
        (Handler::Fetch(handler), Some(session)) => {
            fetch(*handler, &Call { core, session, now }, body.params, answer).await
        }
        (Handler::Record(handler), Some(session)) => {
            record(*handler, &Call { core, session, now }, body.params, answer).await
        }
        (Handler::Wait(handler) | Handler::Device(handler), Some(session)) => {
            wait(*handler, &Call { core, session, now }, body.params, answer).await
        }
        (Handler::Heavy { handler, .. }, Some(session)) => {
            let call = Call { core, session, now };
            heavy(*handler, &call, body.params).await.map(|reply| {
                answer.bytes.extend_from_slice(&reply);
            })
        }
        (Handler::Login(_), _) if *logins_left == 0 => Err(too_many_logins()),
        (Handler::Login(handler), session) => {
            *logins_left -= 1;
            let (core, session) = (core.clone(), session.clone());
            let call = LoginCall { core, session, conn: caller.conn, now };
            handler(call, body.params.map(ToOwned::to_owned)).await.map(|reply| {
                answer.bytes.extend_from_slice(&reply);
            })
        }
        _ => Err(Failure::authentication_missing()),
    };
    core.metrics.command(row.index, outcome.is_ok());
    if let Err(failure) = outcome {
        failure.write(&mut answer.bytes);
    }
}

async fn heavy(
    handler: ReadHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
) -> Result<Vec<u8>, Failure> {
    let (core, session, now) = (call.core.clone(), call.session.clone(), call.now);
    let params = params.map(ToOwned::to_owned);
    let work = move || {
        let mut reply = Vec::new();
        let call = Call { core: &core, session: &session, now };
        handler(&call, params.as_deref(), &mut reply).map(|()| reply)
    };
    call.core.apart(work).await?
}

async fn change(
    handler: ChangeHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let mut reply = Vec::new();
    let Changed { changes, receipt } = handler(call, params, &mut reply)?;
    answer.close_after(&changes);
    call.core.commit(&changes).await?;
    receipt.durable().await?;
    answer.bytes.extend_from_slice(&reply);
    Ok(())
}

async fn store(
    handler: StoreHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let mut reply = Vec::new();
    handler(call, params, &mut reply)?.durable().await?;
    answer.bytes.extend_from_slice(&reply);
    Ok(())
}

async fn fetch(
    handler: FetchHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let mut reply = Vec::new();
    let (receipt, sequel) = handler(call, params, &mut reply)?;
    receipt.durable().await?;
    answer.sequels.extend(sequel);
    answer.bytes.extend_from_slice(&reply);
    Ok(())
}

async fn record(
    handler: RecordHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let mut reply = Vec::new();
    let Recorded { receipt, affected } = handler(call, params, &mut reply)?;
    if let Some(affected) = affected {
        let changes = call.core.follow(affected, call.now).await?;
        answer.close_after(&changes);
    }
    receipt.durable().await?;
    answer.bytes.extend_from_slice(&reply);
    Ok(())
}

async fn wait(
    handler: WaitHandler,
    call: &Call<'_>,
    params: Option<&RawValue>,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let reply = handler(call, params)?.await?;
    answer.bytes.extend_from_slice(&reply);
    Ok(())
}

/// Whether a command may be executed: its row in the table, and its parameters.
fn admit<'b>(
    core: &Core,
    caller: &Caller,
    body: &'b Result<Body<'_>, &'static str>,
    now: Timestamp,
) -> Result<(&'static Row, Option<&'b RawValue>), Failure> {
    let body = body.as_ref().map_err(|why| Failure::new(Code::MALFORMED, *why))?;
    if let Some(session) = &caller.session {
        charge(core, session, now)?;
    }
    let Some(row) = commands::find(&body.command) else {
        return Err(not_executable(caller, &body.command));
    };
    match &caller.session {
        Some(session) if session.may(row.permission) => Ok((row, body.params)),
        Some(session) => {
            let (who, name) = (session.who().name(), row.info.name);
            let sentence = format!("{who} has no permission for {name} in this organisation.");
            Err(Failure::new(Code::PERMISSION_DENIED, sentence))
        }
        None if commands::needs_no_session(row.info.name) => Ok((row, body.params)),
        None => Err(Failure::authentication_missing()),
    }
}

/// Why a name that is in no row can't be executed. What is not here needs no permission: nobody
/// should ask an administrator for one in vain.
fn not_executable(caller: &Caller, name: &str) -> Failure {
    if commands::is_not_configured(name) {
        return match caller.session {
            Some(_) => {
                let sentence = format!("{} is not configured here.", shown(name));
                Failure::new(Code::NOT_CONFIGURED, sentence)
            }
            None => Failure::authentication_missing(),
        };
    }
    Failure::new(Code::UNKNOWN_COMMAND, format!("Unknown command \"{}\".", shown(name)))
}

/// Counts a command of a session, or work that costs as much.
///
/// # Errors
///
/// The session sent too many in this second.
pub fn charge(core: &Core, session: &Session, now: Timestamp) -> Result<(), Failure> {
    let limit = core.config.limits.commands_per_s;
    if session.admit(now, limit) {
        return Ok(());
    }
    let sentence = format!("The session sent more than {limit} commands in a second.");
    Err(Failure::new(Code::RATE_LIMITED, sentence))
}

/// A client's text in a message: its beginning, if it is long.
pub fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn push_id(out: &mut Vec<u8>, id: &str, comma: bool) {
    if comma {
        out.push(b',');
    }
    json::push_string(out, id);
    out.push(b':');
}

/// Nothing to say but success.
pub struct Done;

/// A result under `params`.
pub trait WriteReply {
    /// Appends the command's reply object.
    fn write_reply(&self, out: &mut Vec<u8>);
}

impl WriteReply for Done {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true}"#);
    }
}

impl<T: Serialize> WriteReply for T {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        json::push_value(out, self);
        out.push(b'}');
    }
}
