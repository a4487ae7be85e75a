//! `api.*`: login as a command.

use serde_json::value::RawValue;

use crate::tr50::authenticate::Credentials;
use crate::tr50::dispatch::{CommandInfo, Done, Handler, LoginCall, Reply, WriteReply};
use crate::tr50::error::{Code, Failure};
use crate::tr50::params::{NoParams, Params, params};

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    CommandInfo {
        name: "api.authenticate",
        doc: "Logs a user or an application in and starts a session for use over HTTP.",
        reply: "`sessionId`, `orgKey`",
        errors: &[Code::LOGIN_REFUSED, Code::LOGIN_LOCKED, Code::BUSY],
        params: Authenticate::fields,
        handler: Handler::Login(authenticate),
    },
    CommandInfo {
        name: "api.ping",
        doc: "Answers; needs no session.",
        reply: "",
        errors: &[],
        params: NoParams::fields,
        handler: Handler::Open(ping),
    },
];

params! {
    /// The parameters of `api.authenticate`: a user's, or an application's (`tr50.md` 3.1).
    pub struct Authenticate {
        optional username: String = "username", "The user's e-mail address.";
        optional password: String = "password", "The user's password.";
        optional thing_key: String = "thingKey", "The thing's key.";
        optional app_token: String = "appToken", "The application's token.";
        optional application_token: String = "applicationToken", "The token under its older name.";
        optional app_id: String = "appId", "What the application calls itself on this device.";
        optional notify: bool = "notify",
            "Over TCP: whether notifications are to be pushed as lines.";
    }
}

/// `api.ping`: needs no session and takes no parameters.
pub fn ping(_: Option<&RawValue>, out: &mut Vec<u8>) -> Result<(), Failure> {
    Done.write_reply(out);
    Ok(())
}

/// `api.authenticate` as an ordinary command: starts a session that is bound to no connection.
pub fn authenticate(call: LoginCall, params: Option<Box<RawValue>>) -> Reply {
    Box::pin(async move {
        let credentials = Credentials::from_params(Authenticate::read(params.as_deref())?)?;
        let session = call.core.login_unbound(credentials, call.conn, call.now).await?;
        let mut out = Vec::new();
        crate::tr50::authenticate::write_login(&session, &mut out);
        Ok(out)
    })
}
