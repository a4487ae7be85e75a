//! Steps: what a handler returns. Its type alone says how the reply is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use base::{Code, ConnInfo, Failure, Timestamp, UserAgent, json};
use rules::directory::{Session, Who};
use rules::identity::model::User;
use serde::Serialize;

use super::envelope::RawParams;
use super::params::{Field, Reach};
use crate::app::{App, Deed, Effects, Worker};
use crate::events::Actor;

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
    /// What its reply waits for.
    pub waits: Waits,
    /// Whether its use is in the trail.
    pub is_act: bool,
    /// Whether a parameter that nobody knows is an error.
    pub is_strict: bool,
    /// What it needs beside the permission of its name.
    pub needs: &'static [Need],
    /// What is asked of the thing that its parameters name.
    pub reach: Reach,
    /// What it does, in code.
    pub handler: Handler,
}

/// What a command needs beside the permission of its name.
pub struct Need {
    /// In what it is needed, such as "other users"; empty: always.
    pub part: &'static str,
    /// Fails for who may not. The dispatcher asks for what is always needed, the handler for the rest.
    pub check: fn(&Call<'_>) -> Result<(), Failure>,
}

impl CommandInfo {
    /// Whether it may be called before a login (`docs/protocol/tr50.md` 3.1).
    pub const fn is_open(&self) -> bool {
        matches!(self.handler, Handler::Open(_))
    }
}

/// What is called for a command. It appends the command's reply object, if the reply is known at
/// once.
pub enum Handler {
    /// Without a session, too.
    Open(fn(&OpenCall<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<Step, Failure>),
    /// In a session.
    InSession(fn(&Call<'_>, RawParams<'_>, &mut Vec<u8>) -> Result<Step, Failure>),
}

/// What a handler gets to know about its caller.
pub struct Call<'a> {
    /// The parts of the server.
    pub app: &'a Arc<App>,
    /// Who asks.
    pub session: &'a Arc<Session>,
    /// Over which connection.
    pub conn: ConnInfo,
    /// When, as it is shown: for records of what happened. What is due goes by `app.clock`.
    pub now: Timestamp,
}

/// The same where nobody need be logged in.
pub struct OpenCall<'a> {
    /// The parts of the server.
    pub app: &'a Arc<App>,
    /// From where.
    pub conn: ConnInfo,
    /// What the client over HTTP calls itself.
    pub user_agent: Option<&'a UserAgent>,
    /// When, as it is shown.
    pub now: Timestamp,
}

/// How far a command got at once.
pub enum Step {
    /// The reply is written.
    Done,
    /// The reply is written, and sent when these effects are durable.
    After(Box<Effects>),
    /// The reply comes later.
    Later(Later),
}

/// A reply that is sent when what the command did is durable.
pub struct After<R>(pub R, pub Effects);

/// A reply that comes later, and what the command did.
pub struct Later {
    work: Pin<Box<dyn Future<Output = Result<Written, Failure>> + Send>>,
    /// Whether the reply is all that comes of it.
    pub(super) only_looks: bool,
    /// Whether what the client sends next is to wait for it.
    pub(super) holds_up: bool,
}

/// A reply object as text, and what its command did.
type Written = (Vec<u8>, Effects);

/// A reply for which a device is waited, maybe for minutes: what the client sends next is not to
/// wait for it.
pub struct FromDevice(pub Later);

/// A reply that is sent when what the command did is durable, or one for which much is done.
pub enum AfterOrLater<R> {
    /// Little.
    After(After<R>),
    /// Much.
    Later(Later),
}

/// A reply that comes at once, or later if there is much to look through.
pub enum Looked<R> {
    /// Little.
    Done(R),
    /// Much.
    Later(Later),
}

/// What the reply to a command waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// For nothing, or for a look through much.
    No,
    /// Until the change is durable.
    Durable,
    /// For work that takes time.
    Work,
    /// For a device.
    Device,
}

/// What a handler can return.
pub trait IntoStep {
    /// What the reply waits for.
    const WAITS: Waits;

    /// Appends the reply object, if it is known.
    fn into_step(self, out: &mut Vec<u8>) -> Step;
}

impl<R: WriteReply> IntoStep for R {
    const WAITS: Waits = Waits::No;

    fn into_step(self, out: &mut Vec<u8>) -> Step {
        self.write_reply(out);
        Step::Done
    }
}

impl<R: WriteReply> IntoStep for After<R> {
    const WAITS: Waits = Waits::Durable;

    fn into_step(self, out: &mut Vec<u8>) -> Step {
        let Self(reply, effects) = self;
        reply.write_reply(out);
        Step::After(Box::new(effects))
    }
}

impl IntoStep for Later {
    const WAITS: Waits = Waits::Work;

    fn into_step(self, _: &mut Vec<u8>) -> Step {
        Step::Later(self)
    }
}

impl IntoStep for FromDevice {
    const WAITS: Waits = Waits::Device;

    fn into_step(self, _: &mut Vec<u8>) -> Step {
        Step::Later(self.0)
    }
}

impl<R: WriteReply> IntoStep for AfterOrLater<R> {
    const WAITS: Waits = Waits::Durable;

    fn into_step(self, out: &mut Vec<u8>) -> Step {
        match self {
            Self::After(after) => after.into_step(out),
            Self::Later(later) => later.into_step(out),
        }
    }
}

impl<R: WriteReply> IntoStep for Looked<R> {
    const WAITS: Waits = Waits::No;

    fn into_step(self, out: &mut Vec<u8>) -> Step {
        match self {
            Self::Done(reply) => reply.into_step(out),
            Self::Later(later) => Step::Later(later),
        }
    }
}

impl Later {
    /// A reply that the work has written already, where it keeps nobody waiting.
    pub fn written(work: impl Future<Output = Result<Vec<u8>, Failure>> + Send + 'static) -> Self {
        Self::working(async move { Ok((work.await?, Effects::default())) })
    }

    /// What comes of this work.
    pub fn new<R: WriteReply>(
        work: impl Future<Output = Result<After<R>, Failure>> + Send + 'static,
    ) -> Self {
        Self::working(async move {
            let After(reply, effects) = work.await?;
            let mut text = Vec::new();
            reply.write_reply(&mut text);
            Ok((text, effects))
        })
    }

    fn working(work: impl Future<Output = Result<Written, Failure>> + Send + 'static) -> Self {
        Self { work: Box::pin(work), only_looks: false, holds_up: false }
    }

    /// The same, in its place among the replies to what the client sends.
    #[must_use]
    pub fn in_order(self) -> Self {
        Self { holds_up: true, ..self }
    }

    /// Nobody misses it who does not get the reply.
    fn looking(work: impl Future<Output = Result<Written, Failure>> + Send + 'static) -> Self {
        Self { work: Box::pin(work), only_looks: true, holds_up: false }
    }

    /// The reply object and what the command did.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub(super) async fn done(self) -> Result<Written, Failure> {
        self.work.await
    }
}

impl Call<'_> {
    /// Who asks, for the event of a command that puts it into the batch of its own change.
    pub fn deed(&self, command: &'static str) -> Deed {
        Deed { actor: Actor::of_session(self.session, self.conn), command }
    }

    /// The user who asks, as known now: the session keeps the record with which it started. None
    /// for an application, or a user who has just been deleted.
    pub fn user(&self) -> Option<Arc<User>> {
        match self.session.who() {
            Who::User(user) => self.app.identity().user(user.id),
            Who::Application { .. } => None,
        }
    }

    /// For whom long work of this command is done.
    pub fn worker(&self) -> Worker {
        Worker::of(self.session)
    }

    /// Looks for a reply: at once, or if that takes `long` on a thread that serves no connection.
    ///
    /// # Errors
    ///
    /// What `look` returns when it looks at once.
    pub fn look<R: WriteReply + 'static>(
        &self,
        long: bool,
        look: impl FnOnce(&Call<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<Looked<R>, Failure> {
        if long { self.look_later(look).map(Looked::Later) } else { look(self).map(Looked::Done) }
    }

    /// As [`Call::look_later`]; others that ask with the same `key` before it begins get the same
    /// reply. It says all that the reply depends on.
    ///
    /// # Errors
    ///
    /// None: it fails later.
    pub fn look_shared<R: WriteReply + 'static>(
        &self,
        key: String,
        look: impl FnOnce(&Call<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<Later, Failure> {
        let (app, session, now) = (self.app.clone(), self.session.clone(), self.now);
        let (worker, conn) = (self.worker(), self.conn);
        Ok(Later::looking(async move {
            let shared = app.clone();
            let work = move || {
                let reply = look(&Call { app: &shared, session: &session, conn, now })?;
                let mut text = Vec::new();
                reply.write_reply(&mut text);
                Ok(text.into())
            };
            let text = app.look_shared(worker, key, work).await?;
            app.large_replies.wait(text.len()).await;
            Ok((text.into(), Effects::default()))
        }))
    }

    /// As [`Call::look`], always on another thread; the reply is written there as well.
    ///
    /// # Errors
    ///
    /// None: it fails later.
    pub fn look_later<R: WriteReply + 'static>(
        &self,
        look: impl FnOnce(&Call<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<Later, Failure> {
        let (app, session, now) = (self.app.clone(), self.session.clone(), self.now);
        let (worker, conn) = (self.worker(), self.conn);
        Ok(Later::looking(async move {
            let work = {
                let app = app.clone();
                move || {
                    let reply = look(&Call { app: &app, session: &session, conn, now })?;
                    let mut text = Vec::new();
                    reply.write_reply(&mut text);
                    Ok::<Written, Failure>((text, Effects::default()))
                }
            };
            let written = app.offload(worker, work).await??;
            app.large_replies.wait(written.0.len()).await;
            Ok(written)
        }))
    }
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
