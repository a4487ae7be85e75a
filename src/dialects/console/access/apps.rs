//! Applications, with whose tokens devices log in.

use std::collections::BTreeMap;

use hyper::Method;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::{InOrg, decoded, segment};
use super::super::change::{self, back, check, confirm};
use super::super::end::{BANS, ban_params};
use super::super::form::Params;
use super::super::layout::{self, Screen, badge, csrf, facts, input, number, select};
use super::super::respond::Refused;
use super::super::sessions::Listed;
use super::super::time::clock;
use super::super::tokens::Holder;
use super::super::window::{Column, PAGE, Row};
use super::roles::{self, RoleRow};
use super::{at, by, show, text, window};

/// Sessions that are looked at to see which tokens devices have.
const SESSIONS_SEEN: u64 = 1000;

const COLUMNS: &[Column] = &[
    Column::sorted("who", "Name", "name"),
    Column::sorted("desc", "What it is for", "desc"),
    Column::new("roles", "Roles"),
    Column::new("state", "State"),
    Column::sorted("since", "Since", "createdOn"),
];

/// What the page says of changes.
const WORDS: [(&str, &str); 5] = [
    ("stored", "The application is stored: its live sessions have the new rights now."),
    ("banned", "The application is disabled: its sessions have ended."),
    ("unbanned", "Logins with its tokens are welcome again."),
    ("token-deleted", "The token is deleted; sessions that began with it have ended."),
    ("deleted", "The application is deleted, and the sessions of its tokens have ended."),
];

/// An application, as commands show it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppRow {
    id: String,
    name: String,
    desc: String,
    auto_register: bool,
    #[serde(default)]
    auto_reg_tags: Vec<String>,
    roles: Vec<String>,
    is_super_admin: bool,
    is_super_ops: bool,
    is_org_admin: bool,
    restrict_access_to_self: bool,
    #[serde(default)]
    disabled: bool,
    reason: Option<String>,
    disabled_until: Option<String>,
    created_by: String,
    created_on: String,
    updated_by: String,
    updated_on: String,
    connected: Option<bool>,
}

impl AppRow {
    fn flags(&self) -> Markup {
        html! {
            @if self.is_super_admin { (badge("warn", "super administrator")) " " }
            @if self.is_super_ops { (badge("warn", "super operator")) " " }
            @if self.is_org_admin { (badge("warn", "administrator")) " " }
        }
    }

    fn role_keys(&self, known: &[RoleRow]) -> String {
        let key = |id: &String| {
            known.iter().find(|role| role.id == *id).map_or(id.clone(), |role| role.key.clone())
        };
        self.roles.iter().map(key).collect::<Vec<_>>().join(", ")
    }

    fn state(&self, asked: &InOrg<'_>) -> Markup {
        if !self.disabled {
            return badge("good", "good");
        }
        html! {
            (badge("bad", "disabled"))
            @if let Some(until) = &self.disabled_until { " until " (clock(until, asked.now)) }
        }
    }
}

/// The pages of applications.
pub(super) async fn routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    match (&asked.method, path) {
        (&Method::GET, []) => page(asked).await,
        (&Method::POST, []) => create(asked).await,
        (&Method::GET, ["new"]) => new(asked).await,
        (_, [id, rest @ ..]) => of_one(asked, &decoded(id), rest).await,
        _ => Err(Refused::NotFound),
    }
}

async fn of_one(asked: &InOrg<'_>, id: &str, path: &[&str]) -> Answer {
    let at_one = path_of(asked, id);
    let tokens = tokens(&at_one, id);
    match (&asked.method, path) {
        (&Method::GET, []) => one(asked, id).await,
        (&Method::POST, []) => update(asked, id).await,
        (&Method::GET, ["rotate"]) => rotation(asked, id).await,
        (&Method::POST, ["tokens"]) => {
            let retry = html! { (tokens.form(asked, &html! {})) (back(&at_one)) };
            tokens.create(asked, Params::default(), &retry).await
        }
        (&Method::GET, ["tokens", token]) => tokens.one(asked, &decoded(token)).await,
        (&Method::POST, ["tokens", token]) => tokens.update(asked, &decoded(token)).await,
        (&Method::GET, ["tokens", token, "delete"]) => {
            tokens.confirmation(asked, &decoded(token)).await
        }
        (&Method::POST, ["tokens", token, "delete"]) => tokens.delete(asked, &decoded(token)).await,
        (&Method::GET, [act]) => confirmation(asked, id, act).await,
        (&Method::POST, [act]) => carry_out(asked, id, act).await,
        _ => Err(Refused::NotFound),
    }
}

fn path_of(asked: &InOrg<'_>, id: &str) -> String {
    at(asked, &format!("apps/{}", segment(id)))
}

fn tokens(at_one: &str, id: &str) -> Holder {
    Holder {
        screen: Screen::Access,
        commands: ["app.token.list", "app.token.create", "app.token.update", "app.token.delete"],
        which: Params::default().with("appId", id),
        page: at_one.to_owned(),
        path: format!("{at_one}/tokens"),
    }
}

async fn page(asked: &InOrg<'_>) -> Answer {
    let query = &asked.query;
    let sort = query.get("sort").unwrap_or("name").to_owned();
    let offset = query.number("offset").unwrap_or(0);
    let mut params = Params::default()
        .with("hideFields", true)
        .with("sort", sort.as_str())
        .with("offset", offset)
        .with("limit", PAGE);
    params.set_some("query", query.get("query"));
    let listed: Listed<AppRow> = asked.ask("app.list", &params).await?;
    let known = roles::known(asked).await?;
    let row = |app: AppRow| Row {
        cells: vec![
            html! { a href=(path_of(asked, &app.id)) { bdi { (app.name) } } },
            html! { bdi { (app.desc) } },
            html! { (app.flags()) bdi { (app.role_keys(&known)) } },
            app.state(asked),
            clock(&app.created_on, asked.now),
        ],
        is_over: app.disabled,
        id: app.id,
        choice: None,
    };
    let words = ("Applications", ["application", "applications"], COLUMNS);
    let window = window(listed, words, (offset, sort), row);
    let body = html! {
        h1 { "Applications" }
        (change::done(query, &WORDS))
        form class="filter" action=(asked.path) {
            (input("query", "Name or purpose", query.get("query"), "words"))
            button type="submit" { "Show" }
        }
        @if window.rows.is_empty() {
            (layout::empty("No applications", &html! {
                "Devices log in with the token of an application. "
                a href=(at(asked, "apps")) { "Show all" }
            }))
        } @else { (window.table(asked, None)) (window.foot(asked)) }
        @if asked.may("app.create") {
            p class="buttons" {
                a class="button" href=(at(asked, "apps/new")) { "Make an application" }
            }
        }
    };
    show(asked, "apps", "Applications", &body)
}

/// The form of an application; without one, of a new one.
async fn form(asked: &InOrg<'_>, app: Option<&AppRow>) -> Result<Markup, Refused> {
    let (sent, is_sent) = (&asked.form, asked.form.get("csrf").is_some());
    let known = roles::known(asked).await?;
    let held: Vec<String> = match app {
        Some(app) if !is_sent => app.roles.clone(),
        _ => sent.all("roles").map(str::to_owned).collect(),
    };
    let value = |name: &str, stored: Option<&str>| {
        if is_sent { sent.get(name).map(str::to_owned) } else { stored.map(str::to_owned) }
    };
    let flag = |name: &str, stored: Option<bool>| match is_sent {
        true => sent.get(name).is_some(),
        false => stored.unwrap_or(false),
    };
    let action = app.map_or_else(|| at(asked, "apps"), |app| path_of(asked, &app.id));
    let flags = [
        (
            "autoRegister",
            "Devices that it does not know register at their first login",
            app.map(|app| app.auto_register),
        ),
        (
            "restrictAccessToSelf",
            "Each device may name only its own thing, and those bound to it",
            app.map(|app| app.restrict_access_to_self),
        ),
        ("isOrgAdmin", "Administrator: everything here and below", app.map(|app| app.is_org_admin)),
    ];
    Ok(html! {
        form class="stack" method="post" action=(action) {
            (csrf(asked))
            label {
                "Name"
                input name="name" required value=[value("name", app.map(|app| app.name.as_str()))];
            }
            label {
                "What it is for"
                input name="desc" value=[value("desc", app.map(|app| app.desc.as_str()))];
            }
            (roles::choice(&known, &held))
            fieldset {
                legend class="hidden" { "What it may" }
                @for (name, words, stored) in flags {
                    (check(name, "true", &html! { (words) }, flag(name, stored)))
                }
            }
            button type="submit" class="main" {
                @if app.is_some() { "Store the application" } @else { "Make the application" }
            }
        }
    })
}

/// What the form says.
fn params_of(asked: &InOrg<'_>) -> Params {
    let form = &asked.form;
    let mut params = Params::default()
        .with("name", form.exact("name").trim())
        .with("desc", form.exact("desc").trim());
    if asked.may("role.list") {
        params.set("roles", form.all("roles").collect::<Vec<_>>());
    }
    for name in ["autoRegister", "restrictAccessToSelf", "isOrgAdmin"] {
        params.set(name, form.get(name).is_some());
    }
    params
}

async fn new(asked: &InOrg<'_>) -> Answer {
    let body =
        html! { h1 { "A new application" } (form(asked, None).await?) (back(&at(asked, "apps"))) };
    show(asked, "apps", "A new application", &body)
}

/// What `app.create` gives.
#[derive(Deserialize)]
struct Made {
    id: String,
    token: String,
}

async fn create(asked: &InOrg<'_>) -> Answer {
    let made: Made = match asked.ask("app.create", &params_of(asked)).await {
        Ok(made) => made,
        Err(failure) => {
            let retry = html! { (form(asked, None).await?) (back(&at(asked, "apps"))) };
            return change::refused(asked, Screen::Access, failure, &retry);
        }
    };
    let body = html! {
        h1 { "The application is there" }
        p {
            "This is its token. It is shown here only, now. Devices log in with it; who has it can \
             be any of them."
        }
        pre class="secret" { (made.token) }
        p { a class="button" href=(path_of(asked, &made.id)) { "I have kept it" } }
    };
    Ok(layout::page_with_secret(asked, Screen::Access, "The new token", &body))
}

async fn find(asked: &InOrg<'_>, id: &str) -> Result<AppRow, Refused> {
    Ok(asked.ask("app.find", &Params::default().with("id", id)).await?)
}

async fn one(asked: &InOrg<'_>, id: &str) -> Answer {
    let app = find(asked, id).await?;
    let at_one = path_of(asked, id);
    let known = roles::known(asked).await?;
    let tokens = tokens(&at_one, id);
    let sessions = asked.to(&format!("sessions?appName={}", segment(&app.name)));
    let body = html! {
        h1 { "Application " bdi { (app.name) } }
        (change::done(&asked.query, &WORDS))
        (facts(&[
            ("What it is for", text(&app.desc)),
            ("State", Some(app.state(asked))),
            ("Why", app.reason.as_deref().and_then(text)),
            ("Is", Some(app.flags()).filter(|flags| !flags.0.is_empty())),
            ("Roles", text(&app.role_keys(&known))),
            ("Connected", app.connected.map(|is| html! { @if is { "yes" } @else { "no" } })),
            ("Tags of new things", text(&app.auto_reg_tags.join(", "))),
            ("Made", by(asked, &app.created_on, &app.created_by)),
            ("Changed", by(asked, &app.updated_on, &app.updated_by)),
        ]))
        @if asked.may("session.list") { p { a href=(sessions) { "Its sessions" } } }
        @if asked.may("app.token.list") {
            h2 { "Tokens" }
            (tokens.table(asked, &tokens.list(asked).await?))
            @if tokens.may_create(asked) {
                p class="buttons" {
                    a class="button" href=(format!("{at_one}/rotate")) { "Rotate a token" }
                }
                details class="part" {
                    summary { "Make a further token" } (tokens.form(asked, &html! {}))
                }
            }
        }
        @if asked.may("app.update") {
            h2 { "Change it" }
            details class="part" {
                summary { "Name, roles and what it may" }
                p class="hint" { "Live sessions have the new rights at once." }
                (form(asked, Some(&app)).await?)
            }
        }
        div class="buttons" {
            @if asked.may("app.update") {
                @if app.disabled { form method="post" action=(format!("{at_one}/enable")) {
                    (csrf(asked)) button type="submit" { "Enable it again" }
                } } @else {
                    a class="button" href=(format!("{at_one}/disable")) data-dialog { "Disable…" }
                }
            }
            @if asked.may("app.delete") {
                a class="button" href=(format!("{at_one}/delete")) data-dialog {
                    "Delete the application…"
                }
            }
        }
    };
    show(asked, "apps", &app.name, &body)
}

async fn update(asked: &InOrg<'_>, id: &str) -> Answer {
    match asked.ask::<IgnoredAny>("app.update", &params_of(asked).with("id", id)).await {
        Ok(_) => Ok(change::saved(&path_of(asked, id), "stored")),
        Err(failure) => {
            let app = find(asked, id).await?;
            let retry = html! { (form(asked, Some(&app)).await?) (back(&path_of(asked, id))) };
            change::refused(asked, Screen::Access, failure, &retry)
        }
    }
}

/// A session of a device, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connected {
    token_name: Option<String>,
}

/// How a token is replaced without an outage: a second one, then the end of the first.
async fn rotation(asked: &InOrg<'_>, id: &str) -> Answer {
    let app = find(asked, id).await?;
    let at_one = path_of(asked, id);
    let tokens = tokens(&at_one, id);
    let listed = tokens.list(asked).await?;
    let body = html! {
        h1 { "Rotate a token of " bdi { (app.name) } }
        p { "Both are good while devices move from one to the other: nothing goes offline." }
        ol class="steps" {
            li {
                "Make a second token, and give it to the devices. They stay the same things."
                (tokens.form(asked, &html! {}))
            }
            li {
                "Watch the last use of the old one, and who is connected with which, until it is \
                 used no more."
                (tokens.table(asked, &listed))
                (connected(asked, &app).await?)
            }
            li {
                "Open the old one in the list and disable it. That can be taken back: if a device \
                 was forgotten, enable it again. When nothing is missed, delete it there."
            }
        }
        (back(&at_one))
    };
    show(asked, "apps", "Rotate a token", &body)
}

/// How many sessions began with which token.
async fn connected(asked: &InOrg<'_>, app: &AppRow) -> Result<Markup, Refused> {
    if !asked.may("session.list") {
        return Ok(html! {});
    }
    let params = Params::default()
        .with("appName", app.name.as_str())
        .with("show", vec!["ref", "tokenName"])
        .with("hideFields", true)
        .with("limit", SESSIONS_SEEN);
    let listed: Listed<Connected> = asked.ask("session.list", &params).await?;
    let seen = listed.result.len() as u64;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for session in &listed.result {
        *counts.entry(session.token_name.as_deref().unwrap_or("the first token")).or_default() += 1;
    }
    let is_part = listed.count.is_none_or(|count| count > seen);
    Ok(html! {
        @if counts.is_empty() { p class="hint" { "Nobody is connected with any." } }
        @else { ul { @for (name, count) in counts {
            li {
                bdi { (name) }
                ": "
                (number(count))
                @if count == 1 { " session" } @else { " sessions" }
            }
        } } }
        @if is_part { p class="hint" { "Of the " (number(seen)) " newest sessions." } }
    })
}

async fn confirmation(asked: &InOrg<'_>, id: &str, act: &str) -> Answer {
    let app = find(asked, id).await?;
    let at_one = path_of(asked, id);
    let name = html! { bdi { (app.name) } };
    let (title, follows, fields, button) = match act {
        "disable" => (
            html! { "Disable " (name) "?" },
            "All sessions of its devices end now, and logins with any of its tokens are refused. \
             What is stored stays.",
            html! {
                (select("ban", "For", Some("always"), &BANS[1..]))
                (input("reason", "Why, for people", None, ""))
            },
            "Disable",
        ),
        "delete" => (
            html! { "Delete " (name) "?" },
            "Its tokens are gone: all sessions of its devices end now, and none of them can log \
             in. Things and what they stored stay. There is no way back.",
            html! {},
            "Delete this application",
        ),
        _ => return Err(Refused::NotFound),
    };
    let body = html! {
        h1 { (title) }
        p { (follows) }
        (confirm(asked, &format!("{at_one}/{act}"), &fields, button, &at_one))
    };
    show(asked, "apps", button, &body)
}

async fn carry_out(asked: &InOrg<'_>, id: &str, act: &str) -> Answer {
    let (at_one, which) = (path_of(asked, id), Params::default().with("id", id));
    let list = at(asked, "apps");
    let (command, params, to, done) = match act {
        "disable" => ("app.update", which.and(ban_params(asked)), &at_one, "banned"),
        "enable" => ("app.update", which.with("disabled", false), &at_one, "unbanned"),
        "delete" => ("app.delete", which, &list, "deleted"),
        _ => return Err(Refused::NotFound),
    };
    match asked.ask::<IgnoredAny>(command, &params).await {
        Ok(_) => Ok(change::saved(to, done)),
        Err(failure) => change::refused(asked, Screen::Access, failure, &back(&at_one)),
    }
}
