//! What the transports call: one request in, one reply out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::conn::ConnInfo;
use base::failure::{Code, Failure};
use base::id::SessionId;
use base::timestamp::Timestamp;
use serde::Deserialize;

use super::authenticate::{Auth, write_login};
use super::commands;
use super::dispatch::{self, Caller, Pending, Reply, execute};
use super::envelope::{Command, Request};
use crate::app::App;
use crate::app::Credentials;
use rules::directory::Session;

/// A request on a connection that is logged in (MQTT). The member `auth` is not looked at: the
/// connection carries the session (`tr50.md` 2). `room`: whether the connection can wait for
/// another device.
pub fn on_connection(
    app: &Arc<App>,
    caller: &Caller,
    payload: &[u8],
    room: bool,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Option<Pending> {
    let failure = match Request::parse(payload) {
        Ok(request) if room || !dispatch::waits_for_device(&request.commands) => {
            return execute(app, caller, &request.commands, b"", now, out);
        }
        Ok(_) => too_many_pending(),
        Err(failure) => failure,
    };
    failure.write(out);
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
    let request = match Request::parse(body) {
        Ok(request) => request,
        Err(failure) => return Reply::from_bytes(failure.to_json()),
    };
    let auth = match request.auth.map(Auth::read) {
        Some(Ok(auth)) => Some(auth),
        Some(Err(failure)) => return Reply::from_bytes(failure.to_json()),
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
                Err(failure) => return Reply::from_bytes(login_failed(&failure)),
            }
        }
        Some(Auth::Session(id)) => match session_of(app, id) {
            Ok(session) => Some(session),
            Err(failure) => return Reply::from_bytes(failure.to_json()),
        },
        None if all_open(&request.commands) => None,
        None => return Reply::from_bytes(Failure::authentication_missing().to_json()),
    };
    let caller = Caller { session, conn };
    let mut out = Vec::with_capacity(256);
    match execute(app, &caller, &request.commands, &head, now, &mut out) {
        None => Reply::from_bytes(out),
        Some(pending) => pending.await,
    }
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
pub fn tcp_auth(app: &App, request: &Request<'_>) -> Result<TcpAuth, Failure> {
    match request.auth.map(Auth::read).transpose()? {
        None => Ok(TcpAuth::None),
        Some(Auth::Session(id)) => session_of(app, id).map(TcpAuth::Session),
        Some(Auth::Login { credentials, notify }) => Ok(TcpAuth::Login { credentials, notify }),
    }
}

/// Whether a request can be executed without a session.
pub fn all_open(commands: &[Command<'_>]) -> bool {
    let open = |command: &Command<'_>| {
        let row = command.body.as_ref().ok().and_then(|body| commands::find(&body.command));
        row.is_some_and(|row| row.info.is_open())
    };
    !commands.is_empty() && commands.iter().all(open)
}

/// Appends the answer to a login that came as the member `auth`.
pub fn push_login(session: &Session, head: &mut Vec<u8>) {
    head.extend_from_slice(br#""auth":"#);
    write_login(session, head);
}

/// The reply to a request whose login failed: nothing was executed. The failure stands at the root
/// for clients that look there, and under `auth` for those that look for the answer to their
/// command (`tr50.md` 0, facts 11 and 12).
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

/// The reply to any request when the server has no room for the connection.
pub fn server_full() -> Vec<u8> {
    Failure::new(Code::BUSY, "The server is full; try again.").to_json()
}

/// The reply to a request of more than `max` bytes.
pub fn too_large(max: usize) -> Vec<u8> {
    Failure::new(Code::TOO_LARGE, format!("The request is larger than {max} bytes.")).to_json()
}

fn session_of(app: &App, id: Option<SessionId>) -> Result<Arc<Session>, Failure> {
    id.and_then(|id| app.directory().by_id(&id))
        .ok_or_else(|| Failure::session_invalid("is unknown, has ended or has expired."))
}
/// What became of the only command of a request, read from its reply.
///
/// # Errors
///
/// The failure in the reply.
pub fn outcome(reply: &[u8]) -> Result<(), Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outcome {
        success: bool,
        #[serde(default)]
        error_codes: Vec<i32>,
        #[serde(default)]
        error_messages: Vec<String>,
    }

    let read: Result<BTreeMap<Cow<'_, str>, Outcome>, _> = serde_json::from_slice(reply);
    let outcome = read.ok().and_then(|outcomes| outcomes.into_values().next());
    match outcome {
        Some(outcome) if outcome.success => Ok(()),
        Some(outcome) => {
            let code = outcome.error_codes.first().map_or(Code::INTERNAL, |code| Code(*code));
            let message = outcome.error_messages.into_iter().next().unwrap_or_default();
            Err(Failure::new(code, message))
        }
        None => Err(Failure::new(Code::INTERNAL, "The reply can't be read.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_of_a_command_is_read_from_its_reply() {
        let check = |reply: &str, expected: Result<(), (i32, &str)>| {
            let read = outcome(reply.as_bytes()).map_err(|f| (f.code.0, f.message.into_owned()));
            assert_eq!(read, expected.map_err(|(code, text)| (code, text.to_owned())), "{reply}");
        };
        check(r#"{"":{"success":true}}"#, Ok(()));
        check(r#"{"":{"success":true,"params":{"id":"x"}}}"#, Ok(()));
        let failure = Failure::new(Code::NOT_FOUND, "No \"x\".");
        let reply = [b"{\"\":".as_slice(), &failure.to_json(), b"}"].concat();
        check(std::str::from_utf8(&reply).expect("text"), Err((-90008, "No \"x\".")));
        check("{}", Err((Code::INTERNAL.0, "The reply can't be read.")));
    }
}
