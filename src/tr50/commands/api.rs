//! `api.*`: login as a command.

use base::Failure;

use super::commands;
use crate::app::{Effects, LoginFrom};
use crate::tr50::authenticate::{LoggedIn, credentials, note_incomplete};
use crate::tr50::params::{NoParams, params};
use crate::tr50::step::{After, Done, Later, OpenCall};

commands! {
    open "api.authenticate" => authenticate, [LOGIN_REFUSED, LOGIN_LOCKED, SECOND_FACTOR_WANTED, BUSY],
        "Logs a user or an application in and starts a session for use over HTTP.",
        "`sessionId`, `orgKey`";
    open "api.ping" => ping, [],
        "Answers; needs no session.",
        "";
}

params! {
    /// The parameters of `api.authenticate`: a user's, or an application's (`docs/protocol/tr50.md`
    /// 3.1).
    pub struct Authenticate {
        optional_exact username: String = "username", "The user's e-mail address.";
        optional_exact password: String = "password", "The user's password; or, after a reply with -90041, the code of the second factor.";
        optional_exact code: String = "code",
            "The code of the second factor, beside the password, instead of a second call.";
        optional_exact thing_key: String = "thingKey", "The thing's key.";
        optional_exact app_token: String = "appToken", "The application's token.";
        optional_exact application_token: String = "applicationToken",
            "The token under its older name.";
        optional app_id: String = "appId", "What the application calls itself on this device.";
        optional notify: bool = "notify",
            "Over TCP: whether notifications are to be pushed as lines.";
    }
}

/// `api.ping`: needs no session and takes no parameters.
pub fn ping(_: &OpenCall<'_>, _: NoParams) -> Result<Done, Failure> {
    Ok(Done)
}

/// `api.authenticate` as an ordinary command: starts a session that is bound to no connection.
pub fn authenticate(call: &OpenCall<'_>, params: Authenticate) -> Result<Later, Failure> {
    let (app, conn) = (call.app.clone(), call.conn);
    let now = app.clock.now();
    let read = credentials(params, conn.certified);
    let credentials = read.inspect_err(|failure| note_incomplete(&app, failure, conn, now))?;
    let from = LoginFrom { conn, user_agent: call.user_agent.cloned() };
    Ok(Later::new(async move {
        let session = app.login_unbound(credentials, from, now).await?;
        Ok(After(LoggedIn(session), Effects::default()))
    }))
}
