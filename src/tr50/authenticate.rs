//! Logins: reading the member `auth`, and the reply to `api.authenticate` (`docs/protocol/tr50.md`
//! 3.1).

use std::sync::Arc;

use base::{
    Code, ConnInfo, Failure, SessionId, Timestamp,
    json::{ObjectWriter, key},
};
use rules::directory::Session;
use serde_json::value::RawValue;

use super::commands::api::Authenticate;
use super::envelope::{Members, Param, RawParams};
use super::params::{Params, missing};
use super::step::WriteReply;
use crate::app::{App, Credentials};
use crate::events::LoginCause;

/// What the member `auth` of a request says.
pub enum Auth {
    /// The request belongs to this session.
    Session(Option<SessionId>),
    /// The request begins with a login.
    Login {
        /// Who logs in.
        credentials: Credentials,
        /// Whether notifications are wanted (TCP).
        notify: bool,
    },
}

impl Auth {
    /// Reads the member: a session id, or the command `api.authenticate`. `certified`: whether the
    /// client has shown a certificate, whose name stands for one that is missing.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn read(auth: &RawValue, certified: bool) -> Result<Self, Failure> {
        let members = Members::read(RawParams::Json(Some(auth)))
            .map_err(|_| Failure::new(Code::MALFORMED, "\"auth\" must be an object."))?;
        if let Some(command) = members.find("command").and_then(Param::text) {
            if !command.eq_ignore_ascii_case("api.authenticate") {
                let sentence = "The only command that \"auth\" can hold is api.authenticate.";
                return Err(Failure::new(Code::MALFORMED, sentence));
            }
            let params = RawParams::Json(members.find("params").and_then(Param::json));
            let params = Authenticate::read(params)?;
            let notify = params.notify.unwrap_or(false);
            return Ok(Self::Login { credentials: self::credentials(params, certified)?, notify });
        }
        match members.find("sessionId").and_then(Param::text) {
            // A text of another form is the id of no session.
            Some(id) => Ok(Self::Session(SessionId::parse(&id))),
            None => Err(Failure::authentication_missing()),
        }
    }
}

/// Reads the parameters of `api.authenticate`. A user name wins over a token, as the oldest
/// clients send both. `certified`: as for [`Auth::read`].
///
/// # Errors
///
/// A parameter that goes with the others is missing.
pub fn credentials(params: Authenticate, certified: bool) -> Result<Credentials, Failure> {
    if let Some(name) = params.username {
        let password = params.password.or_else(|| certified.then(String::new));
        return Ok(Credentials::User {
            name,
            password: password.ok_or_else(|| missing("password"))?,
            code: params.code,
        });
    }
    let token = params.app_token.or(params.application_token);
    match (token, params.thing_key) {
        (token, thing_key) if certified => Ok(Credentials::Application {
            thing_key: thing_key.unwrap_or_default(),
            token: token.unwrap_or_default(),
            app_id: params.app_id.unwrap_or_default(),
        }),
        (Some(token), Some(thing_key)) => {
            let app_id = params.app_id.unwrap_or_default();
            Ok(Credentials::Application { thing_key, token, app_id })
        }
        (Some(_), None) => Err(missing("thingKey")),
        (None, Some(_)) => Err(missing("appToken")),
        (None, None) => Err(missing("username")),
    }
}

/// Counts a login that lacks something, if that is why it could not be read.
pub fn note_incomplete(app: &App, failure: &Failure, conn: ConnInfo, now: Timestamp) {
    if matches!(failure.code, Code::PARAMETER_MISSING | Code::PARAMETER_INVALID) {
        app.note_bad_login("", conn.into(), LoginCause::NoCredentials, now);
    }
}

/// The reply to a login.
pub struct LoggedIn(pub Arc<Session>);

impl WriteReply for LoggedIn {
    fn write_reply(&self, out: &mut Vec<u8>) {
        write_login(&self.0, out);
    }
}

/// Appends the reply to a login. `params` comes last and `sessionId` first in it: a firmware looks
/// for the text `sessionId":"` and for `}}}` (`docs/protocol/tr50.md` 0, fact 23).
pub fn write_login(session: &Session, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"success":true,"params":"#);
    let mut params = ObjectWriter::new(out);
    params.string(key!("sessionId"), session.id().map_or("", SessionId::secret));
    params.string(key!("orgKey"), &session.access().org.key);
    params.end();
    out.push(b'}');
}
