//! The dispatcher: commands are executed in the order of the request, each by name → permission →
//! handler, and answered under the same names. It never knows which edge a command came from.

use std::future::Future;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use base::{Code, ConnInfo, Door, Failure, Timestamp, UserAgent, excerpt, json, limits};
use rules::directory::Session;
use rules::identity::Limit;
use serde_json::value::RawValue;

use super::commands::{self, Row};
use super::envelope::{Body, Command, RawParams, Request};
use super::error_message;
use super::step::{Call, Handler, Later, OpenCall, Step, Waits};
use crate::app::{
    AfterReply, App, Applied, Asker, Deed, Effects, Goodbyes, Outcome, Stretch, Timer, Turn, asker,
    stranger,
};
use crate::events::Actor;
use crate::watched_log;

/// Who asks, from where.
#[derive(Clone)]
pub struct Caller {
    /// The session; none before a login.
    pub session: Option<Arc<Session>>,
    /// The connection.
    pub conn: ConnInfo,
    /// What the client over HTTP calls itself.
    user_agent: Option<UserAgent>,
    /// Where it is noted why the first command failed that did, if somebody wants to know.
    first_failure: Option<Arc<OnceLock<Failure>>>,
    /// Whether its commands are counted elsewhere.
    is_counted: bool,
}

impl Caller {
    /// Who asks, in this session, over this connection.
    pub const fn new(session: Option<Arc<Session>>, conn: ConnInfo) -> Self {
        Self { session, conn, user_agent: None, first_failure: None, is_counted: false }
    }

    /// The same; the session's rate and its last access are somebody else's to keep.
    #[must_use]
    pub fn counted(self) -> Self {
        Self { is_counted: true, ..self }
    }

    /// The same, for an edge that says by more than the reply whether a command failed.
    #[must_use]
    pub fn noting(self, first_failure: &Arc<OnceLock<Failure>>) -> Self {
        Self { first_failure: Some(first_failure.clone()), ..self }
    }

    fn asker(&self) -> Asker {
        self.session.as_deref().map_or_else(|| stranger(&self.conn), asker)
    }

    /// The same, of a client over HTTP that calls itself so.
    #[must_use]
    pub fn calling_itself(self, user_agent: Option<UserAgent>) -> Self {
        Self { user_agent, ..self }
    }
}

/// A reply, and what follows it: connections whose sessions the request ended close when this is
/// dropped, which is when the reply is on its way.
#[derive(Default)]
pub struct Reply {
    bytes: Vec<u8>,
    after_replies: Vec<AfterReply>,
    goodbyes: Goodbyes,
    /// Why a command failed that took time.
    pub(crate) failure: Option<Failure>,
}

impl Reply {
    /// Bytes of its text.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A reply that nothing follows.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Sends the reply, and does what follows it.
    pub fn send<T>(mut self, send: impl FnOnce(Vec<u8>) -> T) -> T {
        let sent = send(std::mem::take(&mut self.bytes));
        self.after_replies.into_iter().for_each(|after_reply| after_reply());
        sent
    }

    /// The same reply in another form.
    pub async fn map<F: Future<Output = Vec<u8>>>(
        mut self,
        form: impl FnOnce(Vec<u8>) -> F,
    ) -> Self {
        self.bytes = form(std::mem::take(&mut self.bytes)).await;
        self
    }
}

/// A reply that takes time.
pub struct Pending {
    work: Work,
    /// Bytes of the reply that is held back.
    bytes: usize,
    /// Whether a device is waited for, maybe for minutes: what the client sends next is not to wait
    /// for the reply.
    pub waits_for_device: bool,
    /// Whether the reply is all that comes of it: without a client it need not be made.
    pub only_looks: bool,
    /// Whether what the client sends next is to wait for the reply: it would not have taken time but
    /// for others, who have their turns in between.
    pub holds_up: bool,
}

enum Work {
    /// For the store.
    Stored(Box<Unsent>),
    /// For something else, too.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

/// A reply that is written, as far as it goes, and not sent before its commands are durable.
#[derive(Default)]
struct Unsent {
    reply: Reply,
    waiting: Option<Unstored>,
    /// Whether the caller was thrown out, or lost a right, while a command took its time.
    is_cut_off: bool,
    /// Whether it is of one command without an envelope, whose failure others count: they may try
    /// it again.
    is_single: bool,
}

/// A command that takes time, and since when.
#[derive(Clone, Copy)]
struct Running {
    row: &'static Row,
    timer: Timer,
}

impl Deref for Running {
    type Target = Row;

    fn deref(&self) -> &Row {
        self.row
    }
}

impl Running {
    /// Its reply is there.
    fn end(self, app: &App) {
        app.metrics.command_took(self.index, self.timer, self.info.waits == Waits::Device);
    }
}

/// A command that waits for the store.
struct Unstored {
    app: Arc<App>,
    row: Running,
    /// Where its reply object is.
    text: Range<usize>,
    applied: Applied,
    after_reply: Option<AfterReply>,
    caller: Caller,
    now: Timestamp,
}

impl Pending {
    fn stored(text: Vec<u8>, waiting: Option<Unstored>) -> Self {
        Self::of(Unsent { reply: Reply::from_bytes(text), waiting, ..Unsent::default() })
    }

    /// The same of a command without an envelope.
    fn single(text: Vec<u8>, unstored: Unstored) -> Self {
        let (reply, waiting) = (Reply::from_bytes(text), Some(unstored));
        Self::of(Unsent { reply, waiting, is_single: true, ..Unsent::default() })
    }

    fn of(unsent: Unsent) -> Self {
        let bytes = unsent.reply.bytes.len();
        let work = Work::Stored(Box::new(unsent));
        Self { work, bytes, waits_for_device: false, only_looks: false, holds_up: false }
    }

    /// Whether only the store is waited for, which answers in the order in which it was asked.
    pub fn is_for_store(&self) -> bool {
        let Work::Stored(unsent) = &self.work else { return false };
        unsent.waiting.as_ref().is_none_or(|unstored| !unstored.applied.is_offloaded())
    }

    /// The same, with `errorMessage` in failures.
    fn with_error_message(self) -> Self {
        let Self { bytes, waits_for_device, only_looks, holds_up, .. } = self;
        let work = async {
            let mut reply = self.await;
            error_message::add(&mut reply.bytes, 0);
            reply
        };
        Self { work: Work::Later(Box::pin(work)), bytes, waits_for_device, only_looks, holds_up }
    }

    /// Bytes of the reply that is held back, as far as it was written at once, or what they may become
    /// before a device is waited for.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Future for Pending {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        match &mut self.work {
            Work::Stored(unsent) => {
                ready!(unsent.poll_stored(cx));
                Poll::Ready(std::mem::take(&mut unsent.reply))
            }
            Work::Later(later) => later.as_mut().poll(cx),
        }
    }
}

impl Unsent {
    /// Waits until the last command is durable, or lost: then a failure takes the place of its
    /// reply object.
    fn poll_stored(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(unstored) = &mut self.waiting else { return Poll::Ready(()) };
        let Outcome { stored, goodbyes } = ready!(Pin::new(&mut unstored.applied).poll(cx));
        let Some(unstored) = self.waiting.take() else { return Poll::Ready(()) };
        let Unstored { app, row, text, after_reply, caller, now, .. } = unstored;
        row.end(&app);
        self.reply.goodbyes.append(goodbyes);
        self.reply.after_replies.extend(after_reply.filter(|_| stored.is_ok()));
        match stored {
            Ok(()) => app.metrics.command(row.index, true),
            Err(failure) => {
                note_refused(&app, &caller, &row, &failure, now);
                if !self.is_single {
                    note_failed(&app, &caller, row.info.name, &failure, now);
                }
                self.reply.bytes.splice(text, failure.to_json());
                self.reply.failure = Some(failure);
            }
        }
        Poll::Ready(())
    }

    /// As [`Unsent::poll_stored`]; whether that took time, in which others had their turns.
    async fn stored(&mut self) -> bool {
        let mut waits = false;
        std::future::poll_fn(|cx| {
            let polled = self.poll_stored(cx);
            waits |= polled.is_pending();
            polled
        })
        .await;
        waits
    }

    /// Lets others have their turn. With `in_turns`, who is above its share of full cores waits for
    /// the next one.
    async fn pause(&mut self, app: &App, caller: &Caller, in_turns: bool) -> Turn {
        let before = is_revoked(caller);
        let turn = app.cores.pause(in_turns.then(|| caller.asker())).await;
        self.is_cut_off |= !before && is_revoked(caller);
        turn
    }
}

/// As [`execute`], and answers the form of 2012 as its clients expect.
pub fn execute_request(
    app: &Arc<App>,
    caller: &Caller,
    request: &Request<'_>,
    head: &[u8],
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Option<Pending> {
    let start = out.len();
    let pending = execute(app, caller, &request.commands, head, now, out);
    match pending {
        Some(pending) if request.is_of_2012 => Some(pending.with_error_message()),
        None if request.is_of_2012 => {
            error_message::add(out, start);
            None
        }
        pending => pending,
    }
}

/// Counts a command that failed, and of which that is the answer. Without a command, nothing of a
/// request was executed.
pub fn note_failed(app: &App, caller: &Caller, command: &str, failure: &Failure, now: Timestamp) {
    let row = commands::find(command);
    if let Some(row) = row {
        app.metrics.command(row.index, false);
    }
    if let Some(first) = &caller.first_failure {
        first.get_or_init(|| failure.clone());
    }
    let command = row.map_or(command, |row| row.info.name);
    app.note_failure(caller.session.as_ref(), &caller.conn, command, failure, now);
}

/// Appends the failure of a request as a whole.
pub fn write_refusal(request: &Request<'_>, failure: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(failure);
    if request.is_of_2012 {
        error_message::add(out, start);
    }
}

/// Executes the commands of a request in order and appends the reply, beginning with `head` (the
/// answer to `auth`, or nothing). What the commands change is changed when this returns, up to the
/// first that takes time; then nothing of the reply is written yet.
pub fn execute(
    app: &Arc<App>,
    caller: &Caller,
    commands: &[Command<'_>],
    head: &[u8],
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Option<Pending> {
    if let Some(session) = &caller.session {
        app.touch(session, now, commands.len() as u64);
    }
    let (start, stretch) = (out.len(), (commands.len() > 1).then(Stretch::begin));
    out.push(b'{');
    out.extend_from_slice(head);
    for (index, command) in commands.iter().enumerate() {
        push_id(out, &command.id, out.len() > start + 1);
        if let Some(failure) = has_no_room(command.name(), out.len() - start) {
            fail(app, caller, command.name(), failure, now, out);
            continue;
        }
        let mark = out.len();
        let (waiting, first) = match begin(app, caller, &command.body, now, out) {
            Begun::Done => (None, None),
            Begun::After(row, effects) => {
                let text = mark - start..out.len() - start;
                (Unstored::unless_done(app, caller, row, text, *effects, now), None)
            }
            Begun::Later(row, later) => (None, Some((row, later))),
        };
        let rest = commands.get(index + 1..).unwrap_or_default();
        let is_done = waiting.is_none() && first.is_none();
        let is_over = || stretch.as_ref().is_some_and(Stretch::is_over);
        if is_done && (rest.is_empty() || !is_over()) {
            continue;
        }
        if waiting.is_some() && rest.is_empty() {
            out.push(b'}');
            return Some(Pending::stored(out.split_off(start), waiting));
        }
        let reply = Reply::from_bytes(out.split_off(start));
        let bytes = reply.bytes();
        let unsent = Unsent { reply, waiting, ..Unsent::default() };
        // What is written until the last of those that wait for a device is not known yet.
        let bytes = match waits_for_device(rest) {
            true => bytes.max(limits::REPLY_BYTES_BEFORE_DEVICE),
            false => bytes,
        };
        let waits_for_device = waits_for_device(commands.get(index..).unwrap_or_default());
        let is_one = index == 0 && rest.is_empty();
        let only_looks = is_one && first.as_ref().is_some_and(|(_, later)| later.only_looks);
        let is_short = is_done || first.as_ref().is_some_and(|(_, later)| later.holds_up);
        // Nothing waits for a device but its own reply.
        let holds_up = is_short && !waits_for_device;
        let rest = rest.iter().map(OwnedCommand::from).collect();
        let work = finish(app.clone(), caller.clone(), unsent, first, rest, holds_up, now);
        let work = Work::Later(Box::pin(work));
        return Some(Pending { work, bytes, waits_for_device, only_looks, holds_up });
    }
    out.push(b'}');
    None
}

/// Whether a request waits for a device.
pub fn waits_for_device(commands: &[Command<'_>]) -> bool {
    let waits = |command: &Command<'_>| {
        let row = command.body.as_ref().ok().and_then(|body| commands::find(&body.command));
        row.is_some_and(|row| row.info.waits == Waits::Device)
    };
    commands.iter().any(waits)
}

/// A command's failure is its reply.
fn fail(
    app: &App,
    caller: &Caller,
    command: &str,
    failure: Failure,
    now: Timestamp,
    out: &mut Vec<u8>,
) {
    note_failed(app, caller, command, &failure, now);
    failure.write(out);
}

/// The rest of a request, when it outlives the bytes it came in.
struct OwnedCommand {
    id: String,
    body: Result<(String, Option<Box<RawValue>>), &'static str>,
}

impl From<&Command<'_>> for OwnedCommand {
    fn from(command: &Command<'_>) -> Self {
        let body = |body: &Body<'_>| (body.command.to_string(), body.params.to_json());
        Self { id: command.id.to_string(), body: command.body.as_ref().map(body).map_err(|e| *e) }
    }
}

/// Waits for the command that takes time, whose name is written, and executes those behind it, pausing
/// for others; `in_turns`: in turns of its own, for nobody takes them who waits for this.
async fn finish(
    app: Arc<App>,
    caller: Caller,
    mut unsent: Unsent,
    first: Option<(Running, Later)>,
    rest: Vec<OwnedCommand>,
    in_turns: bool,
    now: Timestamp,
) -> Reply {
    let mut logins_left = limits::LOGINS_PER_REQUEST;
    // None: others have their turn first.
    let (mut stretch, mut turn) = (None, Turn::default());
    // What the store answers by scans knows only what is durable: each command sees those before it.
    if unsent.stored().await {
        stretch = Some(Stretch::begin());
    }
    if let Some(first) = first {
        unsent.wait_for(&app, &caller, first, &mut logins_left, now).await;
    }
    for OwnedCommand { id, body } in rest {
        if stretch.as_ref().is_none_or(Stretch::is_over) {
            drop(turn);
            turn = unsent.pause(&app, &caller, in_turns).await;
            stretch = Some(Stretch::begin());
        }
        push_id(&mut unsent.reply.bytes, &id, true);
        let is_thrown_out = unsent.is_cut_off
            && caller.session.as_ref().is_some_and(|session| session.end().is_some());
        let name = body.as_ref().map_or("", |(name, _)| name);
        let refused = has_no_room(name, unsent.reply.bytes.len())
            .or_else(|| is_thrown_out.then(|| Failure::session_invalid("has ended.")));
        if let Some(failure) = refused {
            fail(&app, &caller, name, failure, now, &mut unsent.reply.bytes);
            continue;
        }
        let mark = unsent.reply.bytes.len();
        let begun = {
            let body = body.as_ref().map_err(|error| *error).map(|(command, params)| Body {
                command: command.as_str().into(),
                params: RawParams::Json(params.as_deref()),
            });
            begin(&app, &caller, &body, now, &mut unsent.reply.bytes)
        };
        match begun {
            Begun::Done => {}
            Begun::After(row, effects) => {
                let text = mark..unsent.reply.bytes.len();
                unsent.waiting = Unstored::unless_done(&app, &caller, row, text, *effects, now);
                if unsent.waiting.is_some() {
                    turn = Turn::default();
                }
                if unsent.stored().await {
                    stretch = Some(Stretch::begin());
                }
            }
            Begun::Later(row, later) => {
                turn = Turn::default();
                unsent.wait_for(&app, &caller, (row, later), &mut logins_left, now).await;
            }
        }
    }
    unsent.reply.bytes.push(b'}');
    unsent.reply
}

impl Unsent {
    /// Waits for a command that comes later.
    async fn wait_for(
        &mut self,
        app: &Arc<App>,
        caller: &Caller,
        (row, later): (Running, Later),
        logins_left: &mut usize,
        now: Timestamp,
    ) {
        // What is open to everybody and takes time is a login.
        if matches!(row.info.handler, Handler::Open(_)) {
            if *logins_left == 0 {
                let bytes = &mut self.reply.bytes;
                return fail(app, caller, row.info.name, too_many_logins(), now, bytes);
            }
            *logins_left -= 1;
        }
        let still_may = || match &caller.session {
            Some(session) => still_may(&Call { app, session, conn: caller.conn, now }, &row),
            None => Ok(()),
        };
        let before = still_may();
        let mut done = later.done().await;
        // What was lost in that time counts: nothing is changed and nothing told any more.
        if let (Ok(()), Err(failure)) = (before, still_may()) {
            self.is_cut_off = true;
            done = Err(failure);
        }
        let (text, effects) = match done {
            Ok(done) => done,
            Err(failure) => {
                row.end(app);
                note_refused(app, caller, &row, &failure, now);
                if !self.is_single {
                    note_failed(app, caller, row.info.name, &failure, now);
                }
                failure.write(&mut self.reply.bytes);
                self.reply.failure = Some(failure);
                return;
            }
        };
        let start = self.reply.bytes.len();
        // With the brace behind it: a list of thousands is not to be copied once more for that.
        self.reply.bytes.reserve(text.len() + 1);
        self.reply.bytes.extend_from_slice(&text);
        let text = start..self.reply.bytes.len();
        self.waiting = Some(Unstored::new(app, caller, row, text, effects, now));
        self.stored().await;
    }
}

/// The answer to a command for which its request's reply has no room left: a request of a thousand
/// listings must not become gigabytes.
fn has_no_room(command: &str, reply: usize) -> Option<Failure> {
    let waits = || commands::find(command).is_some_and(|row| row.info.waits == Waits::Device);
    let most = match reply > limits::REPLY_BYTES_BEFORE_DEVICE && waits() {
        true => limits::REPLY_BYTES_BEFORE_DEVICE,
        false => limits::REPLY_BYTES_MAX,
    };
    let sentence = || format!("The reply is larger than {most} bytes; this was not executed.");
    (reply > most).then(|| Failure::new(Code::REPLY_TOO_LARGE, sentence()))
}

fn too_many_logins() -> Failure {
    let most = limits::LOGINS_PER_REQUEST;
    let sentence = format!("A request can log in {most} times; this was not executed.");
    Failure::new(Code::BUSY, sentence)
}

/// How far one command got.
enum Begun {
    /// Its reply object is written.
    Done,
    /// The same, and these effects are to be carried out.
    After(Running, Box<Effects>),
    /// Nothing is written.
    Later(Running, Later),
}

/// Executes one command, as far as that goes at once; a failure is its reply.
fn begin(
    app: &Arc<App>,
    caller: &Caller,
    body: &Result<Body<'_>, &'static str>,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Begun {
    let failure = match body {
        Ok(body) => match try_begin(app, caller, body, now, out) {
            Ok(begun) => return begun,
            Err(failure) => failure,
        },
        Err(why) => Failure::new(Code::MALFORMED, *why),
    };
    fail(app, caller, body.as_ref().map_or("", |body| &*body.command), failure, now, out);
    Begun::Done
}

fn try_begin(
    app: &Arc<App>,
    caller: &Caller,
    body: &Body<'_>,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Result<Begun, Failure> {
    let mark = out.len();
    let row = admit(app, caller, &body.command, now)?;
    watched_log!(
        app,
        caller.session.as_deref(),
        &caller.conn,
        command = row.info.name,
        "a command"
    );
    let timer = Timer::begin(row.info.waits == Waits::No, now);
    let step = match (&row.info.handler, &caller.session) {
        (Handler::InSession(handler), Some(session)) => {
            let (conn, now) = (caller.conn, app.clock.shown(now));
            handler(&Call { app, session, conn, now }, body.params, out)
        }
        (Handler::Open(handler), _) => {
            let now = app.clock.shown(now);
            let (conn, user_agent) = (caller.conn, caller.user_agent.as_ref());
            handler(&OpenCall { app, conn, user_agent, now }, body.params, out)
        }
        (Handler::InSession(_), None) => Err(Failure::authentication_missing()),
    };
    match step {
        Ok(Step::Done) => {
            app.metrics.command(row.index, true);
            end_at_once(app, row, timer);
            Ok(Begun::Done)
        }
        Ok(Step::After(effects)) => {
            Ok(Begun::After(Running { row, timer: Timer::lasting(timer) }, effects))
        }
        Ok(Step::Later(later)) => {
            Ok(Begun::Later(Running { row, timer: Timer::lasting(timer) }, later))
        }
        Err(failure) => {
            end_at_once(app, row, timer);
            note_refused(app, caller, row, &failure, now);
            out.truncate(mark);
            Err(failure)
        }
    }
}

/// Notes what a command took that needed nothing that takes time, if it was timed.
#[inline]
fn end_at_once(app: &App, row: &'static Row, timer: Option<Timer>) {
    if let Some(timer) = timer {
        Running { row, timer }.end(app);
    }
}

/// Executes a command that came without an envelope (a topic, a will, a form) and appends its
/// reply object, unless that takes time. Who asks counts its failure ([`note_failed`]), which it may
/// get with the reply.
///
/// # Errors
///
/// The command failed; nothing is appended.
pub fn execute_one(
    app: &Arc<App>,
    caller: &Caller,
    body: &Body<'_>,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Result<Option<Pending>, Failure> {
    if let Some(session) = caller.session.as_ref().filter(|_| !caller.is_counted) {
        app.touch(session, now, 1);
    }
    let start = out.len();
    Ok(match try_begin(app, caller, body, now, out)? {
        Begun::Done => None,
        Begun::After(row, effects) => {
            let text = 0..out.len() - start;
            let waiting = Unstored::unless_done(app, caller, row, text, *effects, now);
            waiting.map(|unstored| Pending::single(out.split_off(start), unstored))
        }
        Begun::Later(row, later) => {
            let (app, caller) = (app.clone(), caller.clone());
            let mut unsent = Unsent { is_single: true, ..Unsent::default() };
            let Later { only_looks, holds_up, .. } = later;
            let work = Box::pin(async move {
                unsent.wait_for(&app, &caller, (row, later), &mut 1, now).await;
                unsent.reply
            });
            let (waits_for_device, work) = (false, Work::Later(work));
            Some(Pending { work, bytes: 0, waits_for_device, only_looks, holds_up })
        }
    })
}

impl Unstored {
    /// Carries effects out; none if there is nothing to wait for.
    fn unless_done(
        app: &Arc<App>,
        caller: &Caller,
        row: Running,
        text: Range<usize>,
        effects: Effects,
        now: Timestamp,
    ) -> Option<Self> {
        let unstored = Self::new(app, caller, row, text, effects, now);
        if !unstored.applied.is_nothing() || unstored.after_reply.is_some() {
            return Some(unstored);
        }
        app.metrics.command(row.index, true);
        row.end(app);
        None
    }

    fn new(
        app: &Arc<App>,
        caller: &Caller,
        row: Running,
        text: Range<usize>,
        mut effects: Effects,
        now: Timestamp,
    ) -> Self {
        let after_reply = effects.after_reply.take();
        if let Some(session) = &caller.session {
            effects = effects.caused_by((session.org_id(), session.who().principal_id()));
            if row.info.is_act {
                let actor = Actor::of_session(session, caller.conn);
                effects = effects.by(Deed { actor, command: row.info.name });
            }
        }
        let applied = app.apply(effects, now);
        Self { app: app.clone(), row, text, applied, after_reply, caller: caller.clone(), now }
    }
}

fn is_revoked(caller: &Caller) -> bool {
    caller.session.as_deref().is_some_and(was_revoked)
}

/// Whether a session was ended by somebody else.
fn was_revoked(session: &Session) -> bool {
    session.end().is_some_and(|end| end.reason.is_revocation())
}

/// Fails if the caller's session was ended by somebody else, or may not use this command any more.
pub(super) fn still_may(call: &Call<'_>, row: &Row) -> Result<(), Failure> {
    if was_revoked(call.session) {
        return Err(Failure::session_invalid("has ended."));
    }
    if !call.session.may(row.permission) {
        return Err(not_permitted(call.session, row));
    }
    let mut always = row.info.needs.iter().filter(|need| need.part.is_empty());
    always.try_for_each(|need| (need.check)(call))
}

fn not_permitted(session: &Session, row: &Row) -> Failure {
    let (who, name) = (session.who().name(), row.info.name);
    let sentence = match session.access().limit {
        Some(Limit::Enrolment) => format!(
            "{who} has to set up a second factor before {name}: user.mfa.enrol, then \
             user.mfa.confirm."
        ),
        Some(Limit::Token | Limit::NarrowToken) => {
            format!("{who} has no permission for {name} by this API token in this organisation.")
        }
        None => format!("{who} has no permission for {name} in this organisation."),
    };
    Failure::new(Code::PERMISSION_DENIED, sentence)
}

/// The row of a command that may be executed.
fn admit(app: &App, caller: &Caller, name: &str, now: Timestamp) -> Result<&'static Row, Failure> {
    if let Some(session) = &caller.session
        && caller.conn.door != Door::Control
        && !caller.is_counted
    {
        app.charge(session, now)?;
    }
    let Some(row) = commands::find(name) else {
        return Err(not_executable(caller.session.is_some(), name));
    };
    match &caller.session {
        Some(session) if session.may(row.permission) => Ok(row),
        Some(session) => {
            let failure = not_permitted(session, row);
            note_refused(app, caller, row, &failure, now);
            Err(failure)
        }
        None if row.info.is_open() => Ok(row),
        None => Err(Failure::authentication_missing()),
    }
}

/// Counts a command of an administrator that fails, for the trail.
fn note_refused(app: &App, caller: &Caller, row: &Row, failure: &Failure, now: Timestamp) {
    if let (true, Some(session)) = (row.info.is_act, &caller.session) {
        app.note_refused(session, caller.conn, row.info.name, failure, now);
    }
}

/// Why a name that is in no row can't be executed. What is not here needs no permission: nobody
/// should ask an administrator for one in vain.
pub(super) fn not_executable(is_logged_in: bool, name: &str) -> Failure {
    if commands::is_not_configured(name) {
        if !is_logged_in {
            return Failure::authentication_missing();
        }
        let sentence = format!("{} is not configured here.", excerpt(name));
        return Failure::new(Code::NOT_CONFIGURED, sentence);
    }
    let mut sentence = format!("Unknown command \"{}\".", excerpt(name));
    if let Some(near) = commands::nearest(name) {
        sentence += &format!(" Did you mean \"{near}\"?");
    }
    Failure::new(Code::UNKNOWN_COMMAND, sentence)
}

fn push_id(out: &mut Vec<u8>, id: &str, comma: bool) {
    if comma {
        out.push(b',');
    }
    json::push_string(out, id);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use base::{ThingId, ThingKey};
    use rules::directory::Who;

    use super::*;
    use crate::app::tests::{NOW, demo, login, permit_all};
    use crate::things::registry::Thing;

    const CHECK: &str = r#"{"command":"mailbox.check"}"#;

    /// Begins with so many commands that look for mail.
    async fn checking(app: &Arc<App>, session: &Arc<Session>, count: usize) -> Option<Pending> {
        permit_all(app, session);
        let caller = Caller::new(Some(session.clone()), *session.conn()).counted();
        let commands: Vec<_> = (0..count).map(|number| format!(r#""{number}":{CHECK}"#)).collect();
        let (text, mut mended) = (format!("{{{}}}", commands.join(",")), String::new());
        let request = Request::parse(text.as_bytes(), &mut mended).expect("a request");
        execute_request(app, &caller, &request, b"", NOW, &mut Vec::new())
    }

    fn answers(count: usize) -> String {
        let answer =
            |number| format!(r#""{number}":{{"success":true,"params":{{"messages":[]}}}}"#);
        format!("{{{}}}", (0..count).map(answer).collect::<Vec<_>>().join(","))
    }

    #[tokio::test]
    async fn others_come_between_the_commands_of_a_long_request() {
        let (app, _) = demo();
        let session = login(&app).await.expect("welcome");
        let pending = checking(&app, &session, 1000).await;
        let mut pending = pending.expect("others have their turn");
        assert!(pending.holds_up, "what comes behind it stays there");
        let mut polls = 0;
        let reply = poll_fn(|cx| {
            polls += 1;
            Pin::new(&mut pending).poll(cx)
        });
        let reply = reply.await.send(|text| text);
        assert!(polls > 1, "in one piece");
        assert_eq!(String::from_utf8(reply).expect("text"), answers(1000));
    }

    #[tokio::test]
    async fn who_serves_many_looks_for_mail_where_it_holds_nobody_up() {
        let (app, _) = demo();
        let session = login(&app).await.expect("welcome");
        let Who::Application { thing_id, .. } = session.who() else { panic!("a thing") };
        for number in 0..=limits::THINGS_AT_ONCE_MAX as u8 {
            assert!(checking(&app, &session, 1).await.is_none(), "{number} are few");
            let key = ThingKey::parse(&format!("child-{number}")).expect("a key");
            let id = ThingId::from_bytes([number; 12]);
            let mut thing = Thing::new(id, session.org_id(), key, "", NOW);
            thing.bound_to = Some(*thing_id);
            app.things.create(&thing).expect("room").await.expect("stored");
        }
        let pending = checking(&app, &session, 1).await.expect("they are many");
        assert!(pending.holds_up);
        let reply = pending.await.send(|text| text);
        assert_eq!(String::from_utf8(reply).expect("text"), answers(1));
    }
}
