//! `app.token.*`: further tokens of applications, so that one can be replaced while devices go over
//! from the old one to the new one (`docs/operate.md`).

use std::sync::Arc;

use base::{ApplicationId, Code, Failure, TokenId, excerpt};
use rules::identity::Token;
use rules::identity::model::Application;

use super::ban::BanParams;
use super::token::{self, Made, New, TermsParams, Tokens, WhichToken};
use super::{app, authorize, commands};
use crate::app::{Affected, Effects};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Done};
use crate::tr50::strict::Strict;

commands! {
    act "app.token.create" => create, [NOT_FOUND, ALREADY_EXISTS, BUSY],
        "Makes a further token of an application, which is shown in this reply only. Devices that log \
         in with it are the same things as those with the others. Only for those who may grant what \
         the application may do.",
        "`tokenId`, `token`",
        "applications that may do more" where authorize::check_grants_all;
    act "app.token.delete" => delete, [NOT_FOUND, IN_USE],
        "Deletes a token; the live sessions that began with it end as revoked. Of the application's \
         first token, the next one takes the place. The last one can't go.",
        "",
        "applications that may do more" where authorize::check_grants_all;
    "app.token.list" => list, [NOT_FOUND],
        "Lists the tokens of an application, the first one, that of `app.create`, first: until when \
         they are good, and when, from where and how often they were used.",
        "`count`, `result`";
    act "app.token.update" => update, [NOT_FOUND, ALREADY_EXISTS],
        "Changes the name or the end of a token, or disables it: then the live sessions that began \
         with it end as revoked, and logins with it are refused.",
        "",
        "applications that may do more" where authorize::check_grants_all;
}

params! {
    /// Which application.
    pub struct Which {
        optional app_id: ApplicationId = "appId", "The application's id.";
        optional_exact app_name: String = "appName", "Its name, instead.";
    }
}

params! {
    /// Which token is to go.
    pub struct DeleteParams {
        optional token_id: TokenId = "tokenId", "The token's id.";
        optional_exact name: String = "name", "Its name, beside the application's, instead.";
    }
}

impl DeleteParams {
    /// The application of the token, and the token's id.
    fn find(&self, call: &Call<'_>, which: &Which) -> Result<(Application, TokenId), Failure> {
        let Some(name) = self.name.as_ref().filter(|_| self.token_id.is_none()) else {
            let id = self.token_id.ok_or_else(|| missing("tokenId"))?;
            return Ok((application_with(call, id)?, id));
        };
        let application = which.find(call)?;
        let same = |token: &Token| token.name.to_lowercase() == name.to_lowercase();
        let found = all(&application).find(same);
        let found =
            found.ok_or_else(|| Failure::not_found(format!("Token \"{}\"", excerpt(name))))?;
        Ok((Application::clone(&application), found.id))
    }
}

impl Which {
    fn find(&self, call: &Call<'_>) -> Result<Arc<Application>, Failure> {
        let (identity, org) = (call.app.identity(), call.session.org_id());
        let (found, named) = match (self.app_id, &self.app_name) {
            (Some(id), _) => (identity.application_in(org, id), id.to_string()),
            (None, Some(name)) => (identity.application_by_name(org, name), excerpt(name)),
            (None, None) => return Err(missing("appName")),
        };
        found.ok_or_else(|| Failure::not_found(format!("Application \"{named}\"")))
    }
}

/// The application of the current organisation with this token.
fn application_with(call: &Call<'_>, token: TokenId) -> Result<Application, Failure> {
    let applications = call.app.identity().applications_of(call.session.org_id());
    let has = |application: &&Arc<Application>| all(application).any(|known| known.id == token);
    let found = applications.iter().find(has);
    Ok(Application::clone(found.ok_or_else(|| token::not_found(token))?))
}

fn all(application: &Application) -> impl Iterator<Item = Token> {
    std::iter::once(application.first_token()).chain(application.tokens.iter().cloned())
}

/// The change of an application's tokens, which its sessions follow.
fn changed(call: &Call<'_>, turn: rules::identity::Turn, mut application: Application) -> Effects {
    application.updated = authorize::stamp(call);
    let affected = Affected::Org(application.org);
    Effects::from(turn.put(application)).followed_by(affected)
}

/// `app.token.create`.
pub fn create(
    call: &Call<'_>,
    Strict((which, new)): Strict<(Which, New)>,
) -> Result<After<Made>, Failure> {
    let turn = call.app.identity().turn();
    let mut application = Application::clone(&*which.find(call)?);
    app::check_may_grant(call, &application)?;
    let others: Vec<_> = all(&application).collect();
    let (made, token) = new.make(call, &others, None)?;
    application.tokens.push(token);
    Ok(After(made, changed(call, turn, application)))
}

/// `app.token.list`.
pub fn list(call: &Call<'_>, Strict(which): Strict<Which>) -> Result<Tokens, Failure> {
    let application = which.find(call)?;
    Ok(Tokens::of(call, all(&application)))
}

/// `app.token.update`.
pub fn update(
    call: &Call<'_>,
    Strict((which, terms, ban)): Strict<(WhichToken, TermsParams, BanParams)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let mut application = application_with(call, which.token_id)?;
    app::check_may_grant(call, &application)?;
    let others: Vec<_> = all(&application).collect();
    if application.token_id == which.token_id {
        let mut first = application.first_token();
        terms.change(call, ban, &mut first, &others)?;
        (application.token_name, application.first_terms) = (first.name, first.terms);
    } else if let Some(token) =
        application.tokens.iter_mut().find(|token| token.id == which.token_id)
    {
        terms.change(call, ban, token, &others)?;
    }
    Ok(After(Done, changed(call, turn, application)))
}

/// `app.token.delete`.
pub fn delete(
    call: &Call<'_>,
    Strict((which, token)): Strict<(Which, DeleteParams)>,
) -> Result<After<Done>, Failure> {
    let turn = call.app.identity().turn();
    let (mut application, id) = token.find(call, &which)?;
    app::check_may_grant(call, &application)?;
    if application.token_id != id {
        application.tokens.retain(|token| token.id != id);
    } else if !application.drop_first_token() {
        let sentence = "It is the application's only token; make another one, or disable it.";
        return Err(Failure::new(Code::IN_USE, sentence));
    }
    Ok(After(Done, changed(call, turn, application)))
}
