//! What everybody has: own sessions, second factor, password, API tokens, invitations and
//! organisations. Nothing here needs a permission that not everybody has.

use hyper::{Method, StatusCode};
use maud::{Markup, html};
use rules::directory::Kind;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Answer;
use super::asked::{InOrg, decoded};
use super::change::{self, back, hidden};
use super::form::Params;
use super::layout::{self, Screen, csrf, number};
use super::respond::{Refused, see};
use super::sessions::Listed;
use super::time::clock;

mod factor;
mod own_sessions;
mod own_tokens;

pub(super) use own_sessions::window;

/// Organisations that the page lists; the others are found by their names.
const ORGS_SHOWN: u64 = 50;

/// What the page says of changes.
const WORDS: [(&str, &str); 8] = [
    ("ended", "The session has ended."),
    ("others", "Your other sessions have ended."),
    ("password", "Your password is changed; your other sessions have ended."),
    ("factor-removed", "The second factor is removed: logins need the password alone."),
    ("token-deleted", "The token is deleted; sessions that began with it have ended."),
    ("accepted", "You are a member now."),
    ("declined", "The invitation is declined."),
    ("enrolled", "The second factor is set up."),
];

/// The pages below `/me`.
pub(super) async fn routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    let tokens = own_tokens::holder();
    match (&asked.method, path) {
        (&Method::GET, []) => page(asked).await,
        (&Method::GET, [""]) => Ok(see("/me")),
        (&Method::GET, ["end"]) => own_sessions::confirmation(asked).await,
        (&Method::POST, ["end"]) => own_sessions::end(asked).await,
        (&Method::POST, ["password"]) => change_password(asked).await,
        (&Method::POST, ["factor"]) => factor::enrol(asked).await,
        (&Method::POST, ["factor", "confirm"]) => factor::confirm(asked).await,
        (&Method::GET, ["factor", "remove"]) => Ok(factor::removal(asked)),
        (&Method::POST, ["factor", "remove"]) => factor::remove(asked).await,
        (&Method::GET, ["tokens"]) => Ok(see("/me")),
        (&Method::POST, ["tokens"]) => own_tokens::create(asked).await,
        (&Method::GET, ["tokens", id]) => tokens.one(asked, &decoded(id)).await,
        (&Method::POST, ["tokens", id]) => tokens.update(asked, &decoded(id)).await,
        (&Method::GET, ["tokens", id, "delete"]) => tokens.confirmation(asked, &decoded(id)).await,
        (&Method::POST, ["tokens", id, "delete"]) => tokens.delete(asked, &decoded(id)).await,
        (&Method::POST, ["invites"]) => answer_invite(asked).await,
        _ => Err(Refused::NotFound),
    }
}

fn is_user(asked: &InOrg<'_>) -> bool {
    asked.asker.session().kind() == Kind::User
}

/// The reply to a command that is for users; none for who may not use it, or is none.
async fn of_user<R: DeserializeOwned>(
    asked: &InOrg<'_>,
    command: &'static str,
) -> Result<Option<R>, Refused> {
    if !is_user(asked) || !asked.may(command) {
        return Ok(None);
    }
    Ok(Some(asked.ask(command, &Params::default()).await?))
}

/// The screen.
async fn page(asked: &InOrg<'_>) -> Answer {
    let name = asked.asker.session().who().name();
    let body = html! {
        h1 { "My sessions" @if asked.may("session.mine") { " " span class="badge" data-live {} } }
        p class="hint" { "You are " bdi { (name) } "." }
        (change::done(&asked.query, &WORDS))
        (own_sessions::section(asked).await?)
        (factor::section(asked).await?)
        @if is_user(asked) && asked.may("user.update") { (password_section(asked)) }
        (own_tokens::section(asked).await?)
        (invites(asked).await?)
        (orgs(asked).await?)
    };
    Ok(layout::page(asked, Screen::Own, "My sessions", &body))
}

fn password_section(asked: &InOrg<'_>) -> Markup {
    html! {
        h2 { "Password" }
        details class="part" {
            summary { "Change the password" }
            (password_form(asked))
        }
    }
}

fn password_form(asked: &InOrg<'_>) -> Markup {
    let name = asked.asker.session().who().name();
    let field = |name: &str, text: &str, autocomplete: &str| {
        html! { label {
            (text)
            input type="password" name=(name) required autocomplete=(autocomplete);
        } }
    };
    html! {
        p { "Your other sessions end: whoever knows the old one is out." }
        form class="stack" method="post" action="/me/password" {
            (csrf(asked))
            input type="email" name="username" value=(name) autocomplete="username" readonly hidden;
            (field("old", "Present password", "current-password"))
            (field("new", "New password, 8 characters or more", "new-password"))
            (field("again", "The new one again", "new-password"))
            button type="submit" { "Change the password" }
        }
    }
}

async fn change_password(asked: &InOrg<'_>) -> Answer {
    let retry = html! { (password_form(asked)) (back("/me")) };
    let new = asked.form.exact("new");
    if new != asked.form.exact("again") {
        let why = "The new password was not typed the same twice.";
        return Ok(change::unchanged(asked, Screen::Own, StatusCode::BAD_REQUEST, why, &retry));
    }
    let params =
        Params::default().with("oldPassword", asked.form.exact("old")).with("password", new);
    match asked.ask::<IgnoredAny>("user.update", &params).await {
        Ok(_) => Ok(change::saved("/me", "password")),
        Err(failure) => change::refused(asked, Screen::Own, failure, &retry),
    }
}

/// An invitation, as `user.invite.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invite {
    org_id: String,
    org_name: String,
    invited_by: String,
    invited_on: String,
    is_org_admin: bool,
    allow_sub_org_access: bool,
    roles: Vec<String>,
}

#[derive(Deserialize)]
struct Invites {
    result: Vec<Invite>,
}

async fn invites(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let invites: Option<Invites> = of_user(asked, "user.invite.list").await?;
    let invites = invites.map_or_else(Vec::new, |invites| invites.result);
    Ok(html! { @if !invites.is_empty() {
        h2 { "Invitations" }
        @for invite in &invites { div class="card" {
            h3 { bdi { (invite.org_name) } }
            p {
                "Invited by "
                bdi { (invite.invited_by) }
                " on "
                (clock(&invite.invited_on, asked.now))
                ". You would be "
                @if invite.is_org_admin { "an administrator there and below." }
                @else if invite.roles.is_empty() { "a member without a role." }
                @else {
                    "a member with " bdi { (invite.roles.join(", ")) }
                    @if invite.allow_sub_org_access { ", also in the organisations below" } "."
                }
            }
            form class="buttons" method="post" action="/me/invites" {
                (csrf(asked)) (hidden("orgId", &invite.org_id))
                button type="submit" class="main" name="answer" value="accept" { "Accept" }
                button type="submit" name="answer" value="decline" { "Decline" }
            }
        } }
    } })
}

async fn answer_invite(asked: &InOrg<'_>) -> Answer {
    let params = asked.form.params(&["orgId"]);
    let (command, done) = match asked.form.get("answer") {
        Some("accept") => ("user.invite.accept", "accepted"),
        Some("decline") => ("user.invite.decline", "declined"),
        _ => return Err(Refused::NotFound),
    };
    match asked.ask::<IgnoredAny>(command, &params).await {
        Ok(_) => Ok(change::saved("/me", done)),
        Err(failure) => change::refused(asked, Screen::Own, failure, &back("/me")),
    }
}

/// An organisation, as `session.org.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrgRow {
    org_name: String,
    slug: String,
}

async fn orgs(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    if !is_user(asked) || !asked.may("session.org.list") {
        return Ok(html! {});
    }
    let params = Params::default().with("limit", ORGS_SHOWN);
    let orgs: Listed<OrgRow> = asked.ask("session.org.list", &params).await?;
    let more = orgs.count.unwrap_or_default().saturating_sub(ORGS_SHOWN);
    Ok(html! { @if !orgs.result.is_empty() {
        h2 { "Organisations" }
        ul class="orgs" { @for org in &orgs.result {
            li { a href=(format!("/o/{}/", org.slug)) { bdi { (org.org_name) } } }
        } }
        @if more > 0 { p { a href="/o" { "And " (number(more)) " more" } } }
    } })
}
