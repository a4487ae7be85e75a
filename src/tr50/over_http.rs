//! Requests over HTTP: who asks by which of several ways, and what an answer is made of beside its
//! text.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use base::{Code, ConnInfo, Failure, SessionId, Timestamp, UserAgent, json};
use bytes::Bytes;
use rules::directory::Session;
use rules::identity::Refusal;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::authenticate::{Auth, credentials, note_incomplete};
use super::commands::api::Authenticate;
use super::dispatch::{Caller, Reply, execute_one, execute_request, note_failed, write_refusal};
use super::envelope::{Body, Members, RawParams, Request};
use super::exchange::{
    all_open, is_open, login_failed, push_login, read_auth, session_of, session_unknown,
};
use super::params::Params;
use crate::app::{App, Asker, Bearer, LoginError, LoginFrom, Rate, asker};

/// What a request over HTTP says of who asks, beside envelope and parameters.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Claims {
    /// The field `sessionId` of a form, which wins over the header.
    pub field: Option<String>,
    /// The header `sessionId`.
    pub session: Option<String>,
    /// Bearer tokens (RFC 6750); more than one is too many, unless they are the same.
    pub bearer: Vec<String>,
    /// What the client calls itself, which proves nothing.
    pub user_agent: Option<UserAgent>,
}

impl Claims {
    fn is_anything(&self) -> bool {
        self.field.is_some() || self.session.is_some() || !self.bearer.is_empty()
    }
}

/// What a command without an envelope is given over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// The fields of a form.
    Form(Fields),
    /// The parameters as JSON.
    Json(Bytes),
}

/// The fields of a form, names and values in its order; of a field given twice the last counts.
pub type Fields = Vec<(String, String)>;

/// The answer to a request over HTTP.
#[derive(Default, Debug)]
pub struct Answered {
    /// The reply.
    pub text: Vec<u8>,
    /// Why the first of its commands failed that did, or the request as a whole.
    pub failure: Option<Failure>,
    /// How many commands may come in this second.
    pub rates: SmallVec<[Rate; 3]>,
    /// For whom it was made.
    pub asker: Option<Asker>,
}

impl Answered {
    /// A request of which nothing was executed.
    pub fn refused(failure: Failure) -> Self {
        Self { text: failure.to_json(), failure: Some(failure), ..Self::default() }
    }
}

/// A request over HTTP while it is answered.
struct Asking<'a> {
    app: &'a Arc<App>,
    conn: ConnInfo,
    user_agent: Option<&'a UserAgent>,
    now: Timestamp,
    first_failure: Arc<OnceLock<Failure>>,
}

impl<'a> Asking<'a> {
    fn new(app: &'a Arc<App>, claims: &'a Claims, conn: ConnInfo, now: Timestamp) -> Self {
        let user_agent = claims.user_agent.as_ref();
        Self { app, conn, user_agent, now, first_failure: Arc::default() }
    }

    fn caller(&self, session: Option<Arc<Session>>) -> Caller {
        let caller = Caller::new(session, self.conn).noting(&self.first_failure);
        caller.calling_itself(self.user_agent.cloned())
    }

    fn login_from(&self) -> LoginFrom {
        LoginFrom { conn: self.conn, user_agent: self.user_agent.cloned() }
    }

    fn note(&self, session: Option<&Arc<Session>>, command: &str, failure: &Failure) {
        note_failed(self.app, &self.caller(session.cloned()), command, failure, self.now);
    }

    fn answered(self, reply: Reply, session: Option<&Session>) -> Answered {
        let rates = session.map(|session| self.app.rates(session, self.now)).unwrap_or_default();
        Answered {
            text: reply.send(|text| text),
            failure: self.first_failure.get().cloned(),
            rates,
            asker: session.map(asker),
        }
    }

    /// The session of whoever asks. `named` is what the request says beside its headers, which wins
    /// over the header `sessionId`: but nobody is two at once by a bearer token.
    fn session(
        &self,
        claims: &Claims,
        named: Option<&str>,
    ) -> Result<Option<Arc<Session>>, Failure> {
        let id = named.or(claims.session.as_deref()).map(str::trim);
        let Some(token) = claims.bearer.first() else {
            let id = id.map(SessionId::parse);
            return id.map(|id| session_of(self.app, id, self.conn, self.now)).transpose();
        };
        if id.is_some_and(|id| id != token) || claims.bearer.iter().any(|other| other != token) {
            return Err(two_at_once());
        }
        let session = match self.app.bearer(token, self.conn, self.now) {
            Ok(Bearer::Session(session)) => session,
            Ok(Bearer::Application(..)) => return Err(no_thing()),
            Ok(Bearer::User(..)) => return Err(no_session()),
            Err(error @ LoginError::Refused(Refusal::Locked { .. })) => return Err(error.into()),
            Err(_) => return Err(session_unknown()),
        };
        self.app.count_session(&self.conn, &session)?;
        Ok(Some(session))
    }

    /// The session of an envelope, and what comes first in its reply. Fails with the text of a
    /// refusal.
    async fn session_of_envelope(
        &self,
        request: &Request<'_>,
        claims: &Claims,
        head: &mut Vec<u8>,
    ) -> Result<Option<Arc<Session>>, (Failure, Vec<u8>)> {
        let plain = |failure: Failure| {
            let text = failure.to_json();
            (failure, text)
        };
        let auth = request.auth.map(|auth| read_auth(self.app, auth, self.conn, self.now));
        let named = match auth.transpose().map_err(plain)? {
            None => None,
            Some(Auth::Session(id)) => Some(id.map_or(String::new(), |id| id.secret().to_owned())),
            Some(Auth::Login { .. }) if !claims.bearer.is_empty() => {
                return Err(plain(two_at_once()));
            }
            Some(Auth::Login { credentials, .. }) => {
                let session =
                    self.app.login_unbound(credentials, self.login_from(), self.now).await;
                let session = session.map_err(|error| {
                    let is_full = matches!(error, LoginError::NoPlace(_));
                    let failure = Failure::from(error);
                    let text = if is_full { failure.to_json() } else { login_failed(&failure) };
                    (failure, text)
                })?;
                push_login(&session, head);
                return Ok(Some(session));
            }
        };
        match self.session(claims, named.as_deref()).map_err(plain)? {
            None if !all_open(&request.commands) => Err(plain(Failure::authentication_missing())),
            session => Ok(session),
        }
    }
}

/// A request over HTTP. The member `auth` wins over the header `sessionId`.
pub async fn request(
    app: &Arc<App>,
    body: &[u8],
    claims: &Claims,
    conn: ConnInfo,
    now: Timestamp,
) -> Answered {
    let asking = Asking::new(app, claims, conn, now);
    let mut mended = String::new();
    let request = match Request::parse(body, &mut mended) {
        Ok(request) => request,
        Err(failure) => {
            asking.note(None, "", &failure);
            return Answered::refused(failure);
        }
    };
    let mut head = Vec::new();
    let session = match asking.session_of_envelope(&request, claims, &mut head).await {
        Ok(session) => session,
        Err((failure, text)) => {
            asking.note(None, "", &failure);
            let mut reply = Vec::with_capacity(text.len());
            write_refusal(&request, &text, &mut reply);
            return asking.answered(Reply::from_bytes(reply), None);
        }
    };
    let asker = session.as_deref().map(asker);
    let caller = asking.caller(session);
    let executed = async {
        let mut out = Vec::with_capacity(256);
        match execute_request(app, &caller, &request, &head, now, &mut out) {
            None => Reply::from_bytes(out),
            Some(pending) => pending.await,
        }
    };
    let reply = app.cores.work(asker, executed).await;
    asking.answered(reply, caller.session.as_deref())
}

/// A command without an envelope (`docs/protocol/tr50.md` 1.3, "REST, portal style"). The reply is
/// the command's reply object, or the failure for which it was not executed.
pub async fn command(
    app: &Arc<App>,
    command: &str,
    given: &Given,
    claims: &Claims,
    conn: ConnInfo,
    now: Timestamp,
) -> Answered {
    let asking = Asking::new(app, claims, conn, now);
    let mut caller = asking.caller(None);
    let executed = async {
        let read = Read::of(given);
        let params = read.params()?;
        let named = match params {
            RawParams::Json(Some(params)) if !claims.is_anything() => session_in(params),
            _ => claims.field.clone(),
        };
        caller.session = asking.session(claims, named.as_deref())?;
        let session = &caller.session;
        if session.is_none() && !is_open(command) {
            return Err(Failure::authentication_missing());
        }
        let asker = session.as_deref().map(asker);
        let executed = async {
            let body = Body { command: command.into(), params };
            let mut out = Vec::with_capacity(256);
            match execute_one(app, &caller, &body, now, &mut out)? {
                None => Ok(Reply::from_bytes(out)),
                Some(pending) => Ok(pending.await),
            }
        };
        app.cores.work(asker, executed).await
    };
    let executed: Result<Reply, Failure> = executed.await;
    if let Some(failure) = executed.as_ref().map_or_else(Some, |reply| reply.failure.as_ref()) {
        note_failed(app, &caller, command, failure, now);
    }
    let reply = executed.unwrap_or_else(|failure| Reply::from_bytes(failure.to_json()));
    asking.answered(reply, caller.session.as_deref())
}

/// A login with what is given: the id of the session.
///
/// # Errors
///
/// A field is missing, or the login is refused.
pub async fn log_in(
    app: &Arc<App>,
    given: &Given,
    from: LoginFrom,
    now: Timestamp,
) -> Result<String, Failure> {
    let conn = from.conn;
    let login = async {
        let read = Read::of(given);
        let params = Authenticate::read(read.params()?)?;
        let read = credentials(params, conn.certified);
        let credentials = read.inspect_err(|failure| note_incomplete(app, failure, conn, now))?;
        let session = app.login_unbound(credentials, from, now).await?;
        Ok(session.id().map_or("", SessionId::secret).to_owned())
    };
    let login = login.await;
    login.inspect_err(|failure| {
        note_failed(app, &Caller::new(None, conn), "api.authenticate", failure, now);
    })
}

/// What is given, as it is read.
enum Read<'a> {
    Form(Vec<(&'a str, &'a str)>),
    Json(Cow<'a, str>),
}

impl<'a> Read<'a> {
    fn of(given: &'a Given) -> Self {
        match given {
            Given::Form(fields) => {
                let text = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
                Self::Form(fields.iter().map(text).collect())
            }
            Given::Json(bytes) => Self::Json(json::well_formed(bytes)),
        }
    }

    /// All of it. No text is no parameter.
    fn params(&self) -> Result<RawParams<'_>, Failure> {
        let text = match self {
            Self::Form(texts) => return Ok(RawParams::Named(texts)),
            Self::Json(text) => text.trim_start_matches('\u{feff}'),
        };
        let params = (!text.trim().is_empty()).then(|| serde_json::from_str::<&RawValue>(text));
        params.transpose().map(RawParams::Json).map_err(|error| {
            Failure::new(Code::MALFORMED, format!("The body is not JSON: {error}."))
        })
    }
}

/// The session that is named beside the parameters in JSON.
fn session_in(params: &RawValue) -> Option<String> {
    Some(Members::of(params)?.find("sessionId")?.text()?.into_owned())
}

/// The failure of a request that shows two who ask.
fn two_at_once() -> Failure {
    let sentence = "The request says in two ways who asks, and they differ: by a bearer token in \
                    Authorization, and by another, `auth` or `sessionId`. Send one.";
    Failure::new(Code::MALFORMED, sentence)
}

/// The failure of a user who shows an API token.
fn no_session() -> Failure {
    let sentence = "A user's API token alone is no session of TR50: log in with it as the password \
                    (api.authenticate), and send the session's id as bearer token.";
    Failure::new(Code::AUTHENTICATION_MISSING, sentence)
}

/// The failure of an application that shows its token and no thing.
fn no_thing() -> Failure {
    let sentence = "An application's token alone is no session of TR50: log in with it and a \
                    thingKey (api.authenticate), and send the session's id as bearer token.";
    Failure::new(Code::AUTHENTICATION_MISSING, sentence)
}
