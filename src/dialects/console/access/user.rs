//! One user: roles here, the ban, the second factor, tokens and sessions.

use hyper::Method;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::{InOrg, decoded, segment};
use super::super::change::{self, back, check, confirm, hidden};
use super::super::end::{BANS, ban_params};
use super::super::form::Params;
use super::super::layout::{Screen, csrf, facts, input, select};
use super::super::respond::Refused;
use super::super::sessions::{Listed, SessionRow};
use super::super::time::{ago, clock};
use super::super::tokens::Holder;
use super::roles::{self, RoleRow};
use super::users::UserRow;
use super::{administers, at, by, show, text};

/// What the page says of changes.
const WORDS: [(&str, &str); 7] = [
    ("roles", "The roles are stored, and hold at once, also for sessions that are live."),
    ("banned", "The user is banned: all their sessions have ended."),
    ("unbanned", "The user may log in again."),
    ("factor", "The second factor is gone: the next login needs the password alone."),
    ("required", "The change is stored."),
    ("password", "The password is changed, and the user's sessions have ended."),
    ("token-deleted", "The token is deleted; sessions that began with it have ended."),
];

/// What a user is in the organisation.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Held {
    roles: Vec<String>,
    is_org_admin: bool,
    allow_sub_org_access: bool,
    added_by: String,
    added_on: String,
}

/// The pages of one.
pub(super) async fn routed(asked: &InOrg<'_>, id: &str, path: &[&str]) -> Answer {
    let one = at(asked, &format!("users/{}", segment(id)));
    let tokens = tokens(&one, id);
    match (&asked.method, path) {
        (&Method::GET, []) => page(asked, id, &one).await,
        (&Method::POST, ["roles"]) => set_roles(asked, id, &one).await,
        (&Method::GET, ["tokens", token]) => tokens.one(asked, &decoded(token)).await,
        (&Method::POST, ["tokens", token]) => tokens.update(asked, &decoded(token)).await,
        (&Method::GET, ["tokens", token, "delete"]) => {
            tokens.confirmation(asked, &decoded(token)).await
        }
        (&Method::POST, ["tokens", token, "delete"]) => tokens.delete(asked, &decoded(token)).await,
        (&Method::GET, [act]) => confirmation(asked, id, &one, act).await,
        (&Method::POST, [act]) => carry_out(asked, id, &one, act).await,
        _ => Err(Refused::NotFound),
    }
}

fn tokens(one: &str, id: &str) -> Holder {
    Holder {
        screen: Screen::Access,
        commands: [
            "user.token.list",
            "user.token.create",
            "user.token.update",
            "user.token.delete",
        ],
        which: Params::default().with("id", id),
        page: one.to_owned(),
        path: format!("{one}/tokens"),
    }
}

async fn find(asked: &InOrg<'_>, id: &str) -> Result<UserRow, Refused> {
    Ok(asked.ask("user.find", &Params::default().with("id", id)).await?)
}

fn is_own(asked: &InOrg<'_>, user: &UserRow) -> bool {
    asked.asker.session().who().name() == user.email_address
}

async fn page(asked: &InOrg<'_>, id: &str, one: &str) -> Answer {
    let user = find(asked, id).await?;
    let (is_own, administers) = (is_own(asked, &user), administers(asked));
    let body = html! {
        h1 { bdi { (user.email_address) } }
        (change::done(&asked.query, &WORDS))
        (facts(&[
            ("Name", text(&user.name())),
            ("Company", text(&user.company)),
            ("Is", Some(user.flags()).filter(|flags| !flags.0.is_empty())),
            ("State", Some(user.state(asked))),
            ("Why", user.reason.as_deref().and_then(text)),
            ("Second factor", Some(user.second_factor())),
            ("Made", by(asked, &user.created_on, &user.created_by)),
            ("Changed", by(asked, &user.updated_on, &user.updated_by)),
        ]))
        @if is_own {
            p { "This is you. " a href="/me" { "Your sessions, second factor and tokens" } }
        }
        (roles_section(asked, &user, one).await?)
        @if administers && !is_own {
            h2 { "Login" }
            div class="buttons" {
                @if user.disabled {
                    form method="post" action=(format!("{one}/unban")) {
                        (csrf(asked)) button type="submit" { "Lift the ban" }
                    }
                }
                a class="button" href=(format!("{one}/ban")) data-dialog {
                    @if user.disabled { "Change the ban…" } @else { "Ban…" }
                }
                @if user.mfa {
                    a class="button" href=(format!("{one}/factor")) data-dialog {
                        "Reset the second factor…"
                    }
                }
                form method="post" action=(format!("{one}/required")) {
                    (csrf(asked))
                    (hidden("required", if user.mfa_required { "false" } else { "true" }))
                    button type="submit" {
                        @if user.mfa_required { "Require no second factor" } @else {
                            "Require a second factor"
                        }
                    }
                }
                a class="button" href=(format!("{one}/password")) data-dialog { "New password…" }
            }
        }
        (sessions(asked, &user).await?)
        @if administers && !is_own && asked.may("user.token.list") {
            (tokens_section(asked, id, one).await?)
        }
        @if !is_own {
            p class="buttons" {
                @if asked.may("user.org.remove") {
                    a class="button" href=(format!("{one}/remove")) data-dialog {
                        "Remove from " bdi { (asked.org.name) } "…"
                    }
                }
                @if asked.may("user.delete") {
                    a class="button" href=(format!("{one}/delete")) data-dialog {
                        "Delete the user…"
                    }
                }
            }
        }
    };
    show(asked, "users", &user.email_address, &body)
}

async fn roles_section(asked: &InOrg<'_>, user: &UserRow, one: &str) -> Result<Markup, Refused> {
    let params = Params::default().with("userId", user.id.as_str());
    let held: Held = match asked.ask("user.org.find", &params).await {
        Ok(held) => held,
        Err(failure) if failure.code == base::Code::NOT_FOUND => Held::default(),
        Err(failure) => return Err(failure.into()),
    };
    let known = roles::known(asked).await?;
    let chosen: Vec<&RoleRow> = known.iter().filter(|role| held.roles.contains(&role.id)).collect();
    let added = Some(&held.added_on).filter(|at| !at.is_empty());
    // Administrators reach what is below in any case.
    let has_more = user.is_super_admin || user.is_super_ops || user.is_org_admin;
    let sub_orgs = held.allow_sub_org_access && !has_more;
    Ok(html! {
        h2 { "Roles in " bdi { (asked.org.name) } }
        @if let Some(at) = added {
            p class="hint" {
                "Here since " (clock(at, asked.now)) ", by " bdi { (held.added_by) } "."
            }
        }
        @if asked.may("user.org.update") && asked.may("role.list") {
            form class="stack" method="post" action=(format!("{one}/roles")) {
                (csrf(asked))
                (roles::choice(&known, &held.roles))
                (flags_choice(user.is_org_admin, sub_orgs))
                button type="submit" { "Store the roles" }
            }
        } @else if chosen.is_empty() {
            p { @if held.is_org_admin { "An administrator." } @else { "None." } }
        } @else {
            ul { @for role in chosen { li { bdi { (role.key) } } } }
        }
    })
}

/// Boxes for what a membership is beside its roles.
pub(super) fn flags_choice(is_admin: bool, sub_orgs: bool) -> Markup {
    let admin = html! { "Administrator: everything here and below" };
    let below = html! { "The same roles in the organisations below" };
    html! {
        fieldset {
            legend class="hidden" { "Reach" }
            (check("isOrgAdmin", "true", &admin, is_admin))
            (check("allowSubOrgAccess", "true", &below, sub_orgs))
        }
    }
}

/// What a form says of a membership.
pub(super) fn membership(asked: &InOrg<'_>) -> Params {
    let form = &asked.form;
    Params::default()
        .with("roles", form.all("roles").collect::<Vec<_>>())
        .with("isOrgAdmin", form.get("isOrgAdmin").is_some())
        .with("allowSubOrgAccess", form.get("allowSubOrgAccess").is_some())
}

async fn set_roles(asked: &InOrg<'_>, id: &str, one: &str) -> Answer {
    let params = membership(asked).with("userId", id);
    let mut stored = asked.ask::<IgnoredAny>("user.org.update", &params).await;
    // Whoever is only at home here is no member yet.
    if stored.as_ref().is_err_and(|failure| failure.code == base::Code::NOT_FOUND)
        && asked.may("user.org.add")
    {
        stored = asked.ask("user.org.add", &params).await;
    }
    match stored {
        Ok(_) => Ok(change::saved(one, "roles")),
        Err(failure) => change::refused(asked, Screen::Access, failure, &back(one)),
    }
}

async fn sessions(asked: &InOrg<'_>, user: &UserRow) -> Result<Markup, Refused> {
    if !asked.may("session.list") {
        return Ok(html! {});
    }
    let params = Params::default()
        .with("userName", user.email_address.as_str())
        .with("sort", "-startTime")
        .with("status", vec!["ALL"])
        .with("limit", 5);
    let listed: Listed<SessionRow> = asked.ask("session.list", &params).await?;
    let name = segment(&user.email_address);
    let all = asked.to(&format!("sessions?state=all&userName={name}"));
    let end = asked.to(&format!("sessions/end?userName={name}"));
    Ok(html! {
        h2 { "Sessions here" }
        @if listed.result.is_empty() { p { "None that is known." } }
        ul { @for session in &listed.result {
            li {
                (clock(&session.start_time, asked.now)) " "
                a href=(asked.to(&format!("sessions/{}", segment(&session.reference)))) {
                    (session.conn_info.protocol) " from " (session.conn_info.remote_addr)
                }
                @match &session.end_reason {
                    Some(reason) => { ", ended: " (reason.replace('_', " ")) }
                    None => { ", last command " (ago(&session.last_accessed, asked.now)) }
                }
            }
        } }
        p class="buttons" {
            a class="button" href=(all) { "All sessions" }
            @if asked.may_end_sessions() { a class="button" href=(end) data-dialog { "End them…" } }
        }
    })
}

async fn tokens_section(asked: &InOrg<'_>, id: &str, one: &str) -> Result<Markup, Refused> {
    let holder = tokens(one, id);
    let listed = match holder.list(asked).await {
        Ok(listed) => listed,
        // Of somebody whom others administer.
        Err(Refused::Failure(_)) => return Ok(html! {}),
        Err(refused) => return Err(refused),
    };
    Ok(html! { @if !listed.is_empty() {
        h2 { "API tokens" }
        (holder.table(asked, &listed))
    } })
}

/// Asks whether a dangerous change is meant.
async fn confirmation(asked: &InOrg<'_>, id: &str, one: &str, act: &str) -> Answer {
    let user = find(asked, id).await?;
    let name = html! { bdi { (user.email_address) } };
    let action = format!("{one}/{act}");
    let (title, follows, fields, button) = match act {
        "ban" => (
            html! { "Ban " (name) "?" },
            "All sessions end now, over every door, and logins are refused until the ban is over. \
             API tokens are refused, too. What is stored stays.",
            html! {
                (select("ban", "For", Some("always"), &BANS[1..]))
                (input("reason", "Why, for people", user.reason.as_deref(), ""))
            },
            "Ban",
        ),
        "factor" => (
            html! { "Reset the second factor of " (name) "?" },
            "The next login needs the password alone. Make sure that who asks for it is who they \
             say. If one is required, the user sets up another at the next login.",
            html! {},
            "Reset it",
        ),
        "password" => (
            html! { "A new password for " (name) },
            "All sessions of the user end. Tell it by another way than e-mail.",
            html! { label {
                "New password, 8 characters or more"
                input type="password" name="password" required autocomplete="new-password";
            } },
            "Set the password",
        ),
        "remove" => (
            html! { "Remove " (name) " from " bdi { (asked.org.name) } "?" },
            "The user's live sessions here end, and the roles here are gone. The user stays, and \
             can be added again.",
            html! {},
            "Remove",
        ),
        "delete" => (
            html! { "Delete " (name) "?" },
            "The user is gone everywhere, with roles, tokens and second factor, and all live \
             sessions end. The trail keeps what they did. There is no way back.",
            html! {},
            "Delete",
        ),
        _ => return Err(Refused::NotFound),
    };
    let body = html! {
        h1 { (title) }
        p { (follows) }
        (confirm(asked, &action, &fields, button, one))
    };
    show(asked, "users", button, &body)
}

/// Makes a change of the login.
async fn carry_out(asked: &InOrg<'_>, id: &str, one: &str, act: &str) -> Answer {
    let of_user = Params::default().with("id", id);
    let list = at(asked, "users");
    let (command, params, to, done) = match act {
        "ban" => ("user.update", of_user.and(ban_params(asked)), one, "banned"),
        "unban" => ("user.update", of_user.with("disabled", false), one, "unbanned"),
        "factor" => ("user.mfa.remove", of_user, one, "factor"),
        "required" => {
            let required = asked.form.get("required") == Some("true");
            ("user.update", of_user.with("mfaRequired", required), one, "required")
        }
        "password" => {
            let password = asked.form.exact("password");
            ("user.update", of_user.with("password", password), one, "password")
        }
        "remove" => {
            let params = Params::default().with("userId", id);
            ("user.org.remove", params, list.as_str(), "removed")
        }
        "delete" => ("user.delete", of_user, list.as_str(), "deleted"),
        _ => return Err(Refused::NotFound),
    };
    match asked.ask::<IgnoredAny>(command, &params).await {
        Ok(_) => Ok(change::saved(to, done)),
        Err(failure) => change::refused(asked, Screen::Access, failure, &back(one)),
    }
}
