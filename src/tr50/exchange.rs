//! The interface of TR50 to the edges: one request in, one reply out.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, SessionId, Timestamp};
use rules::directory::Session;
use serde_json::value::RawValue;

use super::authenticate::{Auth, credentials, note_incomplete, write_login};
use super::commands::{self, api::Authenticate};
use super::dispatch::{
    self, Caller, Pending, Reply, execute_one, execute_request, note_failed, write_refusal,
};
use super::envelope::{Body, Command, RawParams, Request};
use super::params::Params;
use crate::app::{App, Credentials, LoginError};

/// A request on a connection that is logged in (MQTT). The member `auth` is not looked at: the
/// connection carries the session (`docs/protocol/tr50.md` 2). `room`: whether the connection can
/// wait for another device.
pub fn on_connection(
    app: &Arc<App>,
    caller: &Caller,
    payload: &[u8],
    room: bool,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Option<Pending> {
    let mut mended = String::new();
    match Request::parse(payload, &mut mended) {
        Ok(request) if room || !dispatch::waits_for_device(&request.commands) => {
            return execute_request(app, caller, &request, b"", now, out);
        }
        Ok(request) => {
            let failure = too_many_pending();
            note_failed(app, caller, "", &failure, now);
            write_refusal(&request, &failure.to_json(), out);
        }
        Err(failure) => {
            note_failed(app, caller, "", &failure, now);
            failure.write(out);
        }
    }
    None
}

/// A request over HTTP. `header` is the header `sessionId`; the member `auth` wins over it.
pub async fn over_http(
    app: &Arc<App>,
    body: &[u8],
    header: Option<&str>,
    conn: ConnInfo,
    now: Timestamp,
) -> Reply {
    let mut mended = String::new();
    let note = |failure: &Failure| {
        note_failed(app, &Caller { session: None, conn }, "", failure, now);
    };
    let request = match Request::parse(body, &mut mended) {
        Ok(request) => request,
        Err(failure) => {
            note(&failure);
            return Reply::from_bytes(failure.to_json());
        }
    };
    let refused = |failure: &Failure, text: &[u8]| {
        note(failure);
        let mut reply = Vec::with_capacity(text.len());
        write_refusal(&request, text, &mut reply);
        Reply::from_bytes(reply)
    };
    let auth = match request.auth.map(|auth| read_auth(app, auth, conn, now)) {
        Some(Ok(auth)) => Some(auth),
        Some(Err(failure)) => return refused(&failure, &failure.to_json()),
        None => header.map(|id| Auth::Session(SessionId::parse(id.trim()))),
    };
    let mut head = Vec::new();
    let session = match auth {
        Some(Auth::Login { credentials, .. }) => {
            match app.login_unbound(credentials, conn, now).await {
                Ok(session) => {
                    push_login(&session, &mut head);
                    Some(session)
                }
                Err(LoginError::NoPlace(full)) => {
                    let failure = Failure::from(full);
                    note(&failure);
                    return Reply::from_bytes(failure.to_json());
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    return refused(&failure, &login_failed(&failure));
                }
            }
        }
        Some(Auth::Session(id)) => match session_of(app, id, conn, now) {
            Ok(session) => Some(session),
            Err(failure) => return refused(&failure, &failure.to_json()),
        },
        None if all_open(&request.commands) => None,
        None => {
            let failure = Failure::authentication_missing();
            return refused(&failure, &failure.to_json());
        }
    };
    let org = session.as_ref().map(|session| session.org_id());
    let caller = Caller { session, conn };
    let executed = async {
        let mut out = Vec::with_capacity(256);
        match execute_request(app, &caller, &request, &head, now, &mut out) {
            None => Reply::from_bytes(out),
            Some(pending) => pending.await,
        }
    };
    app.cores.work(org, executed).await
}

/// The fields of a form, names and values in its order; of a field given twice the last counts.
pub type Fields = Vec<(String, String)>;

/// A command as a form, in the session with this id (`docs/protocol/tr50.md` 1.3, "REST, portal
/// style"). The fields are the parameters, as texts, which every command takes (fact 15). The reply
/// is the command's reply object, or the failure for which it was not executed.
pub async fn form(
    app: &Arc<App>,
    command: &str,
    fields: &Fields,
    session: Option<&str>,
    conn: ConnInfo,
    now: Timestamp,
) -> Reply {
    let mut caller = Caller { session: None, conn };
    let executed = async {
        let session =
            session.map(|id| session_of(app, SessionId::parse(id), conn, now)).transpose()?;
        caller.session = session;
        let session = &caller.session;
        if session.is_none() && !is_open(command) {
            return Err(Failure::authentication_missing());
        }
        let org = session.as_ref().map(|session| session.org_id());
        let executed = async {
            let texts = texts(fields);
            let body = Body { command: command.into(), params: RawParams::Named(&texts) };
            let mut out = Vec::with_capacity(256);
            match execute_one(app, &caller, &body, now, &mut out)? {
                None => Ok(Reply::from_bytes(out)),
                Some(pending) => Ok(pending.await),
            }
        };
        app.cores.work(org, executed).await
    };
    let executed: Result<Reply, Failure> = executed.await;
    if let Some(failure) = executed.as_ref().map_or_else(Some, |reply| reply.failure.as_ref()) {
        note_failed(app, &caller, command, failure, now);
    }
    executed.unwrap_or_else(|failure| Reply::from_bytes(failure.to_json()))
}

/// A login with the fields of a form: the id of the session.
///
/// # Errors
///
/// A field is missing, or the login is refused.
pub async fn form_login(
    app: &Arc<App>,
    fields: &Fields,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<String, Failure> {
    let login = async {
        let params = Authenticate::read(RawParams::Named(&texts(fields)))?;
        let read = credentials(params, conn.certified);
        let credentials = read.inspect_err(|failure| note_incomplete(app, failure, conn, now))?;
        let session = app.login_unbound(credentials, conn, now).await?;
        Ok(session.id().map_or("", SessionId::secret).to_owned())
    };
    let login = login.await;
    login.inspect_err(|failure| {
        note_failed(app, &Caller { session: None, conn }, "api.authenticate", failure, now);
    })
}

/// Reads the member `auth`; a login that lacks something is one that was refused.
fn read_auth(app: &App, auth: &RawValue, conn: ConnInfo, now: Timestamp) -> Result<Auth, Failure> {
    let read = Auth::read(auth, conn.certified);
    read.inspect_err(|failure| note_incomplete(app, failure, conn, now))
}

fn texts(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What the member `auth` of a request on a TCP connection asks for, after it was read.
pub enum TcpAuth {
    /// Log in; the session is bound to the connection.
    Login {
        /// Who logs in.
        credentials: Credentials,
        /// Whether notifications are to be pushed.
        notify: bool,
    },
    /// Go on in this session.
    Session(Arc<Session>),
    /// Nothing: the connection's session goes on.
    None,
}

/// Reads the member `auth` of a request on a TCP connection.
///
/// # Errors
///
/// The member is wrong, or its session is gone; the request is not executed.
pub fn tcp_auth(
    app: &App,
    request: &Request<'_>,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<TcpAuth, Failure> {
    match request.auth.map(|auth| read_auth(app, auth, conn, now)).transpose()? {
        None => Ok(TcpAuth::None),
        Some(Auth::Session(id)) => session_of(app, id, conn, now).map(TcpAuth::Session),
        Some(Auth::Login { credentials, notify }) => Ok(TcpAuth::Login { credentials, notify }),
    }
}

/// Whether a request can be executed without a session.
pub fn all_open(commands: &[Command<'_>]) -> bool {
    let open =
        |command: &Command<'_>| command.body.as_ref().is_ok_and(|body| is_open(&body.command));
    !commands.is_empty() && commands.iter().all(open)
}

/// Whether there is a command of this name that can be executed without a session.
fn is_open(command: &str) -> bool {
    commands::find(command).is_some_and(|row| row.info.is_open())
}

/// Appends the answer to a login that came as the member `auth`.
pub fn push_login(session: &Session, head: &mut Vec<u8>) {
    head.extend_from_slice(br#""auth":"#);
    write_login(session, head);
}

/// The reply to a request whose login failed: nothing was executed. The failure stands at the root
/// for clients that look there, and under `auth` for those that look for the answer to their
/// command (`docs/protocol/tr50.md` 0, facts 11 and 12).
pub fn login_failed(failure: &Failure) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(b'{');
    failure.write_members(&mut out);
    out.extend_from_slice(br#","auth":"#);
    failure.write(&mut out);
    out.push(b'}');
    out
}

/// The failure of a request that would wait for a device, on a connection that waits for as many
/// as it may.
pub fn too_many_pending() -> Failure {
    Failure::new(Code::BUSY, "Too many requests wait for their replies.")
}

/// The failure of a request of more than `max` bytes.
pub fn too_large(max: usize) -> Failure {
    Failure::new(Code::TOO_LARGE, format!("The request is larger than {max} bytes."))
}

fn session_of(
    app: &App,
    id: Option<SessionId>,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Arc<Session>, Failure> {
    let session = id.and_then(|id| app.session(&id, conn)).ok_or_else(|| {
        app.note_unknown_session(conn, now);
        Failure::session_invalid("is unknown, has ended or has expired.")
    })?;
    app.count_session(&conn, &session)?;
    Ok(session)
}
