//! Roles: what each permits, as a tree, and who holds it.

use std::collections::BTreeMap;

use hyper::Method;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::{InOrg, decoded, segment};
use super::super::change::{self, back, check, confirm};
use super::super::form::Params;
use super::super::layout::{self, Screen, badge, csrf, facts, number};
use super::super::perms::{self, Families};
use super::super::respond::Refused;
use super::super::sessions::Listed;
use super::super::window::{Column, PAGE, Row};
use super::{at, by, show, text, window};

/// Roles to choose from at most; the list is one page.
const CHOICE_MAX: u64 = 500;

const COLUMNS: &[Column] = &[
    Column::sorted("who", "Key", "key"),
    Column::sorted("name", "Name", "name"),
    Column::new("perms", "Permits"),
    Column::new("users", "Users"),
    Column::new("apps", "Applications"),
    Column::new("from", "From"),
];

/// A role, as commands show it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleRow {
    pub(super) id: String,
    pub(super) key: String,
    name: String,
    desc: String,
    perms: Vec<String>,
    topic_publish: Vec<String>,
    topic_subscribe: Vec<String>,
    read_only: bool,
    created_by: String,
    created_on: String,
    updated_by: String,
    updated_on: String,
    user_count: Option<u64>,
    app_count: Option<u64>,
    holders: Option<Holders>,
}

/// Who holds a role here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holders {
    user_count: u64,
    app_count: u64,
    users: Option<Vec<String>>,
    apps: Option<Vec<String>>,
}

impl Holders {
    fn count(&self) -> String {
        let noun = |count: u64, noun: &str| {
            let end = if count == 1 { "" } else { "s" };
            format!("{} {noun}{end}", number(count))
        };
        format!("{} and {}", noun(self.user_count, "user"), noun(self.app_count, "application"))
    }
}

/// The roles that there are to choose from; none for who may not list them.
pub(super) async fn known(asked: &InOrg<'_>) -> Result<Vec<RoleRow>, Refused> {
    if !asked.may("role.list") {
        return Ok(Vec::new());
    }
    let params = Params::default().with("limit", CHOICE_MAX).with("hideFields", true);
    let listed: Listed<RoleRow> = asked.ask("role.list", &params).await?;
    Ok(listed.result)
}

/// Boxes for roles, by id; `held` has ids, or keys of a form that comes again.
pub(super) fn choice(known: &[RoleRow], held: &[String]) -> Markup {
    let is_known = |id: &String| known.iter().any(|role| role.id == *id || role.key == *id);
    html! { @if !known.is_empty() {
        fieldset {
            legend { "Roles" }
            @for role in known {
                (check("roles", &role.id, &html! {
                    bdi { (role.key) }
                    @if role.read_only { " " (badge("", "from above")) }
                    @if !role.desc.is_empty() { " " span class="hint" { bdi { (role.desc) } } }
                }, held.contains(&role.id) || held.contains(&role.key)))
            }
            // Those that the list does not have are kept.
            @for id in held.iter().filter(|id| !is_known(id)) {
                (check("roles", id, &html! { code { (id) } }, true))
            }
        }
    } }
}

/// The pages of roles.
pub(super) async fn routed(asked: &InOrg<'_>, path: &[&str]) -> Answer {
    match (&asked.method, path) {
        (&Method::GET, []) => page(asked).await,
        (&Method::POST, []) => create(asked).await,
        (&Method::GET, ["new"]) => new(asked).await,
        (&Method::GET, [id]) => one(asked, &decoded(id)).await,
        (&Method::POST, [id]) => update(asked, &decoded(id)).await,
        (&Method::GET, [id, "delete"]) => deletion(asked, &decoded(id)).await,
        (&Method::POST, [id, "delete"]) => delete(asked, &decoded(id)).await,
        _ => Err(Refused::NotFound),
    }
}

fn path_of(asked: &InOrg<'_>, id: &str) -> String {
    at(asked, &format!("roles/{}", segment(id)))
}

async fn page(asked: &InOrg<'_>) -> Answer {
    let sort = asked.query.get("sort").unwrap_or("key").to_owned();
    let offset = asked.query.number("offset").unwrap_or(0);
    let params = Params::default()
        .with("holders", true)
        .with("hideFields", true)
        .with("sort", sort.as_str())
        .with("offset", offset)
        .with("limit", PAGE);
    let listed: Listed<RoleRow> = asked.ask("role.list", &params).await?;
    let count = |count: Option<u64>| count.map_or(html! {}, |count| html! { (number(count)) });
    let row = |role: RoleRow| Row {
        cells: vec![
            html! { a href=(path_of(asked, &role.id)) { bdi { (role.key) } } },
            html! { bdi { (role.name) } },
            html! { (summary(&role.perms)) },
            count(role.user_count),
            count(role.app_count),
            html! { @if role.read_only { "above" } @else { "here" } },
        ],
        id: role.id,
        is_over: false,
        choice: None,
    };
    let words = ("Roles", ["role", "roles"], COLUMNS);
    let window = window(listed, words, (offset, sort), row);
    let new = at(asked, "roles/new");
    let body = html! {
        h1 { "Roles" }
        (change::done(&asked.query, &[("deleted", "The role is deleted.")]))
        @if window.rows.is_empty() {
            (layout::empty("No roles", &html! {
                "A role is a set of permissions that users and applications hold."
            }))
        } @else { (window.table(asked, None)) (window.foot(asked)) }
        @if asked.may("role.create") {
            p class="buttons" { a class="button" href=(new) { "Make a role" } }
        }
    };
    show(asked, "roles", "Roles", &body)
}

/// Families that a role touches, in a few words.
fn summary(held: &[String]) -> String {
    let families = perms::families(held.iter().map(String::as_str));
    let mut names: Vec<&str> = families.keys().map(String::as_str).collect();
    let more = names.len().saturating_sub(6);
    names.truncate(6);
    match (names.as_slice(), more) {
        ([], _) => "nothing".to_owned(),
        (names, 0) => names.join(", "),
        (names, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// All permissions that there are, and those of the role that are none of them.
async fn all(asked: &InOrg<'_>, held: &[String]) -> Result<Families, Refused> {
    if !asked.may("role.perms") {
        return Ok(perms::families(held.iter().map(String::as_str)));
    }
    let all: BTreeMap<String, Vec<String>> = asked.ask("role.perms", &Params::default()).await?;
    let names = all
        .iter()
        .flat_map(|(family, names)| names.iter().map(move |name| format!("{family}.{name}")));
    let names: Vec<String> = names.chain(held.iter().cloned()).collect();
    let mut families = perms::families(names.iter().map(String::as_str));
    for members in families.values_mut() {
        members.sort_unstable();
        members.dedup();
    }
    Ok(families)
}

/// The form of a role. Without a key it is a new one.
async fn form(asked: &InOrg<'_>, role: Option<&RoleRow>) -> Result<Markup, Refused> {
    let sent = &asked.form;
    let held: Vec<String> = match role {
        Some(role) if sent.get("csrf").is_none() => role.perms.clone(),
        _ => sent.all("perms").map(str::to_owned).collect(),
    };
    let value = |name: &str, stored: Option<&str>| {
        sent.get(name).or(stored.filter(|_| sent.get("csrf").is_none())).map(str::to_owned)
    };
    let lines = |name: &str, stored: Option<&Vec<String>>| {
        value(name, stored.map(|filters| filters.join("\n")).as_deref()).unwrap_or_default()
    };
    let families = all(asked, &held).await?;
    let action = role.map_or_else(|| at(asked, "roles"), |role| path_of(asked, &role.id));
    Ok(html! {
        form class="stack" method="post" action=(action) {
            (csrf(asked))
            @if role.is_none() {
                label {
                    "Key, by which commands name it"
                    input name="key" required value=[value("key", None)];
                }
            }
            label {
                "Name" input name="name" value=[value("name", role.map(|role| role.name.as_str()))];
            }
            label {
                "What it is for"
                input name="desc" value=[value("desc", role.map(|role| role.desc.as_str()))];
            }
            fieldset {
                legend { "Permissions" }
                (perms::choice(&families, &held))
            }
            details class="part" {
                summary { "Ordinary MQTT topics" }
                p class="hint" {
                    "Filters, one a line; %thingKey% and %user% are the session's own. They count \
                     with topic.publish and topic.subscribe."
                }
                label {
                    "To publish to"
                    textarea name="topicPublish" rows="3" {
                        (lines("topicPublish", role.map(|role| &role.topic_publish)))
                    }
                }
                label {
                    "To subscribe to"
                    textarea name="topicSubscribe" rows="3" {
                        (lines("topicSubscribe", role.map(|role| &role.topic_subscribe)))
                    }
                }
            }
            button type="submit" class="main" {
                @if role.is_some() { "Store the role" } @else { "Make the role" }
            }
        }
    })
}

/// What the form says.
fn params_of(asked: &InOrg<'_>) -> Params {
    let form = &asked.form;
    let chosen: Vec<&str> = form.all("perms").collect();
    let is_whole =
        |name: &str| name.split_once('.').is_some_and(|(family, _)| chosen.contains(&family));
    let perms: Vec<&str> = chosen.iter().copied().filter(|name| !is_whole(name)).collect();
    let lines = |name: &str| {
        let lines = form.exact(name).lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut params = Params::default()
        .with("desc", form.exact("desc").trim())
        .with("perms", perms)
        .with("topicPublish", lines("topicPublish"))
        .with("topicSubscribe", lines("topicSubscribe"));
    params.set_some("name", form.get("name"));
    params
}

async fn new(asked: &InOrg<'_>) -> Answer {
    let body = html! { h1 { "A new role" } (form(asked, None).await?) (back(&at(asked, "roles"))) };
    show(asked, "roles", "A new role", &body)
}

/// A record that was made.
#[derive(Deserialize)]
struct Made {
    id: String,
}

async fn create(asked: &InOrg<'_>) -> Answer {
    let params = params_of(asked).with("key", asked.form.exact("key").trim());
    match asked.ask::<Made>("role.create", &params).await {
        Ok(made) => Ok(change::saved(&path_of(asked, &made.id), "made")),
        Err(failure) => {
            let retry = html! { (form(asked, None).await?) (back(&at(asked, "roles"))) };
            change::refused(asked, Screen::Access, failure, &retry)
        }
    }
}

async fn find(asked: &InOrg<'_>, id: &str) -> Result<RoleRow, Refused> {
    Ok(asked.ask("role.find", &Params::default().with("id", id).with("holders", true)).await?)
}

async fn one(asked: &InOrg<'_>, id: &str) -> Answer {
    let role = find(asked, id).await?;
    let can_change = !role.read_only && asked.may("role.update");
    let topics = [("Publishes to", &role.topic_publish), ("Subscribes to", &role.topic_subscribe)];
    let body = html! {
        h1 { "Role " bdi { (role.key) } @if role.read_only { " " (badge("", "from above")) } }
        (change::done(&asked.query, &[
            ("made", "The role is there. Nobody holds it yet."),
            ("stored", "The role is stored: its holders have the new rights now."),
        ]))
        (facts(&[
            ("Name", Some(html! { bdi { (role.name) } })),
            ("What it is for", text(&role.desc)),
            ("Made", by(asked, &role.created_on, &role.created_by)),
            ("Changed", by(asked, &role.updated_on, &role.updated_by)),
        ]))
        @if let Some(holders) = &role.holders { (held_by(asked, holders)) }
        @if can_change {
            h2 { "Change it" }
            @if let Some(holders) = &role.holders {
                p class="hint" {
                    "A change holds at once for " (holders.count()) ", also in live sessions."
                }
            }
            (form(asked, Some(&role)).await?)
        } @else {
            h2 { "Permissions" }
            (perms::shown(&role.perms))
            @for (title, filters) in topics {
                @if !filters.is_empty() {
                    h3 { (title) } ul { @for filter in filters { li { code { (filter) } } } }
                }
            }
        }
        @if !role.read_only && asked.may("role.delete") {
            p class="buttons" {
                a class="button" href=(format!("{}/delete", path_of(asked, id))) data-dialog {
                    "Delete the role…"
                }
            }
        }
    };
    show(asked, "roles", &role.key, &body)
}

/// Where it is used.
fn held_by(asked: &InOrg<'_>, holders: &Holders) -> Markup {
    let search = |part: &str, name: &str| at(asked, &format!("{part}?query={}", segment(name)));
    let parts =
        [("users", &holders.users, holders.user_count), ("apps", &holders.apps, holders.app_count)];
    html! {
        h2 { "Held by " (holders.count()) }
        @for (part, names, count) in parts {
            @if let Some(names) = names.as_ref().filter(|names| !names.is_empty()) {
                ul class="orgs" {
                    @for name in names { li { a href=(search(part, name)) { bdi { (name) } } } }
                }
                @if count > names.len() as u64 {
                    p class="hint" { "And " (number(count - names.len() as u64)) " more." }
                }
            }
        }
    }
}

async fn update(asked: &InOrg<'_>, id: &str) -> Answer {
    let params = params_of(asked).with("id", id);
    match asked.ask::<IgnoredAny>("role.update", &params).await {
        Ok(_) => Ok(change::saved(&path_of(asked, id), "stored")),
        Err(failure) => {
            let role = find(asked, id).await?;
            let retry = html! { (form(asked, Some(&role)).await?) (back(&path_of(asked, id))) };
            change::refused(asked, Screen::Access, failure, &retry)
        }
    }
}

async fn deletion(asked: &InOrg<'_>, id: &str) -> Answer {
    let role = find(asked, id).await?;
    let to = path_of(asked, id);
    let body = html! {
        h1 { "Delete the role " bdi { (role.key) } "?" }
        @if let Some(holders) = &role.holders { p { "Held by " (holders.count()) " here." } }
        p {
            "A role that somebody holds, here or below, stays: take it from them first. There is \
             no way back."
        }
        (confirm(asked, &format!("{to}/delete"), &html! {}, "Delete this role", &to))
    };
    show(asked, "roles", "Delete a role", &body)
}

async fn delete(asked: &InOrg<'_>, id: &str) -> Answer {
    match asked.ask::<IgnoredAny>("role.delete", &Params::default().with("id", id)).await {
        Ok(_) => Ok(change::saved(&at(asked, "roles"), "deleted")),
        Err(failure) => change::refused(asked, Screen::Access, failure, &back(&path_of(asked, id))),
    }
}
