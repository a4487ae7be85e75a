//! `user.token.*`: API tokens of users, with which programs log in where nobody types a code
//! (`docs/second-factor.md`).

use base::Failure;
use rules::identity::Turn;
use rules::identity::model::User;

use super::ban::BanParams;
use super::token::{self, Made, New, TermsParams, Tokens, WhichToken};
use super::user::{self, FindParams};
use super::{authorize, commands};
use crate::app::{Affected, Effects};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "user.token.create" => create where user::check_is_user, [ALREADY_EXISTS, BUSY, WRONG_SESSION_KIND],
        "Makes an API token of the caller, which is shown in this reply only. Programs log in with \
         it in place of the password, and with no code of a second factor. At each use it gives what \
         the user may do then, but for `user.mfa.*` and `user.token.*`.",
        "`tokenId`, `token`";
    act "user.token.delete" => delete, [NOT_FOUND, WRONG_SESSION_KIND],
        "Deletes an API token of the caller, or of a user whom the caller may change with \
         `user.update`; the live sessions that began with it end as revoked.",
        "",
        "other users" where user::check_administers,
        "users who may do more, or elsewhere" where authorize::check_grants_all;
    "user.token.list" => list, [NOT_FOUND, WRONG_SESSION_KIND],
        "Lists the API tokens of the caller, or of a user whom the caller may change with \
         `user.update`: until when they are good, and when, from where and how often they were used.",
        "`count`, `result`",
        "other users" where user::check_administers,
        "users who may do more, or elsewhere" where authorize::check_grants_all;
    act "user.token.update" => update, [NOT_FOUND, ALREADY_EXISTS, WRONG_SESSION_KIND],
        "Changes the name or the end of an API token, or disables it: then the live sessions that \
         began with it end as revoked, and logins with it are refused. For whom, as for \
         `user.token.delete`.",
        "",
        "other users" where user::check_administers,
        "users who may do more, or elsewhere" where authorize::check_grants_all;
}

params! {
    /// What an API token gives.
    pub struct PermsParams {
        optional permissions: Vec<String> = "perms",
            "Names of permissions, as roles have them, beyond which it gives nothing, and makes nobody an administrator; without it, all that the user may do.";
    }
}

/// The change of a user's tokens, which the user's sessions follow.
fn changed(turn: Turn, user: User) -> Effects {
    let affected = Affected::User(user.id);
    Effects::from(turn.put(user)).followed_by(affected)
}

/// `user.token.create`.
pub fn create(
    call: &Call<'_>,
    Strict((new, perms)): Strict<(New, PermsParams)>,
) -> Result<After<Made>, Failure> {
    let turn = call.app.identity().turn();
    let mut user = User::clone(&*user::own(call)?);
    let mut permissions = perms.permissions;
    if let Some(names) = &mut permissions {
        names.sort_unstable();
        names.dedup();
        authorize::check_list("perms", names)?;
        authorize::check_permissions("perms", names)?;
    }
    let (made, token) = new.make(call, &user.tokens, permissions)?;
    user.tokens.push(token);
    Ok(After(made, changed(turn, user)))
}

/// `user.token.list`.
pub fn list(call: &Call<'_>, Strict(which): Strict<FindParams>) -> Result<Tokens, Failure> {
    let user = user::meant(call, &which)?;
    Ok(Tokens::of(call, user.tokens.iter().cloned()))
}

/// `user.token.update`.
pub fn update(
    call: &Call<'_>,
    Strict((user, which, (terms, ban))): Strict<(FindParams, WhichToken, (TermsParams, BanParams))>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let mut user = User::clone(&*user::meant(call, &user)?);
    let others = user.tokens.clone();
    let token = user.tokens.iter_mut().find(|token| token.id == which.token_id);
    let token = token.ok_or_else(|| token::not_found(which.token_id))?;
    terms.change(call, ban, token, &others)?;
    Ok(After(Done, changed(turn, user)))
}

/// `user.token.delete`.
pub fn delete(
    call: &Call<'_>,
    Strict((user, which)): Strict<(FindParams, WhichToken)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let mut user = User::clone(&*user::meant(call, &user)?);
    let before = user.tokens.len();
    user.tokens.retain(|token| token.id != which.token_id);
    if user.tokens.len() == before {
        return Err(token::not_found(which.token_id));
    }
    Ok(After(Done, changed(turn, user)))
}
