//! The interface of TR50 to the edges: one request in, one reply out.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, SessionId, Timestamp};
use rules::directory::Session;
use serde_json::value::RawValue;

use super::authenticate::{Auth, note_incomplete, write_login};
use super::commands;
use super::dispatch::{self, Caller, Pending, Reply, execute_request, note_failed, write_refusal};
use super::envelope::{Command, Request};
use crate::app::{App, Credentials};

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

/// A request of who has the data directory, by the control socket; `name`: of the account on this
/// machine. Nothing that is used up for others keeps it out.
pub async fn on_machine(
    app: &Arc<App>,
    (org_key, name): (Option<&str>, String),
    text: &[u8],
    now: Timestamp,
) -> Reply {
    let mut mended = String::new();
    let request = match Request::parse(text, &mut mended) {
        Ok(request) => request,
        Err(failure) => return Reply::from_bytes(failure.to_json()),
    };
    let switches = |command: &Command<'_>| {
        let name = command.name();
        ["session.org.switch", "api.authenticate"].iter().any(|no| name.eq_ignore_ascii_case(no))
    };
    let session = match request.commands.iter().find(|command| switches(command)) {
        None => app.session_on_machine(org_key, name, now),
        Some(command) => {
            let name = command.name();
            let sentence = format!("{name} has no use here: the option --org says where.");
            Err(Failure::new(Code::WRONG_SESSION_KIND, sentence))
        }
    };
    let session = match session {
        Ok(session) => session,
        Err(failure) => {
            let mut reply = Vec::new();
            write_refusal(&request, &failure.to_json(), &mut reply);
            return Reply::from_bytes(reply);
        }
    };
    let caller = Caller::new(Some(session.clone()), *session.conn());
    let mut out = Vec::new();
    match execute_request(app, &caller, &request, b"", now, &mut out) {
        None => Reply::from_bytes(out),
        Some(pending) => pending.await,
    }
}

/// Reads the member `auth`; a login that lacks something is one that was refused.
pub(super) fn read_auth(
    app: &App,
    auth: &RawValue,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Auth, Failure> {
    let read = Auth::read(auth, conn.certified);
    read.inspect_err(|failure| note_incomplete(app, failure, conn, now))
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
pub(super) fn is_open(command: &str) -> bool {
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

pub(super) fn session_of(
    app: &App,
    id: Option<SessionId>,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Arc<Session>, Failure> {
    let session = id.and_then(|id| app.session(&id, conn)).ok_or_else(|| {
        app.note_unknown_session(conn, now);
        session_unknown()
    })?;
    app.count_session(&conn, &session)?;
    Ok(session)
}

/// The failure of a request in a session that nobody knows.
pub(super) fn session_unknown() -> Failure {
    Failure::session_invalid("is unknown, has ended or has expired.")
}
