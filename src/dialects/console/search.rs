//! The search for everything: what is found, by type, and where it is.

use std::collections::BTreeMap;

use base::{Code, Failure};
use maud::{Markup, html};
use serde::Deserialize;

use super::asked::{Asked, segment};
use super::form::Params;
use super::layout::{self, Screen, badge, number, select};
use super::time::{ago, clock};
use super::{Answer, things};

/// Results of each type, as long as no type is chosen.
const EACH: u64 = 8;

/// Results of one type on a page.
const PAGE: u64 = 60;

/// What there is, as the command names it and as people do.
const TYPES: [(&str, &str); 6] = [
    ("thing", "Things"),
    ("session", "Sessions"),
    ("user", "Users"),
    ("org", "Organisations"),
    ("app", "Applications"),
    ("thing_def", "Definitions of things"),
];

/// What `search.omni` tells.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(default)]
    counts: BTreeMap<String, u64>,
    count_at_least: Option<u64>,
    more: bool,
    result: Vec<Hit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hit {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "match")]
    class: String,
    field: String,
    org_key: String,
    org_slug: String,
    name: String,
    key: Option<String>,
    id: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    email_address: Option<String>,
    pending: Option<bool>,
    connected: Option<bool>,
    last_seen: Option<String>,
    protocol: Option<String>,
    remote_addr: Option<String>,
    start_time: Option<String>,
    status: Option<String>,
}

/// The screen.
pub(super) async fn page(asked: &Asked) -> Answer {
    let at_home = asked.at_home()?;
    let words = asked.query.get("q");
    let kind = asked.query.get("type").and_then(known);
    let offset = asked.query.number("offset").unwrap_or(0);
    let found = match words {
        None => None,
        Some(words) => {
            let mut params = Params::default().with("query", words).with("limit", PAGE);
            match kind {
                Some((kind, _)) => {
                    params.set("types", kind);
                    params.set("offset", offset);
                }
                None => params.set("limitPerType", EACH),
            }
            Some(told(at_home.ask::<Found>("search.omni", &params).await)?)
        }
    };
    let body = html! {
        h1 { "Search" }
        form class="filter" role="search" aria-label="Search by type" action="/search" {
            label {
                "Words"
                input type="search" name="q" value=[words] autofocus[words.is_none()];
            }
            (select("type", "What", kind.map(|(kind, _)| kind), &choices()))
            button type="submit" { "Search" }
        }
        @match (&found, words) {
            (Some(Ok(found)), Some(words)) => (results(asked, found, words, kind, offset)),
            (Some(Err(failure)), _) => p role="alert" { bdi { (failure.message) } },
            _ => (nothing(&html! { "What do you look for?" })),
        }
    };
    Ok(layout::page(&at_home, Screen::Own, "Search", &body))
}

/// What the command said; what was wrong with the words is told beside them.
fn told(asked: Result<Found, Failure>) -> Result<Result<Found, Failure>, Failure> {
    match asked {
        Err(failure) if failure.code != Code::PARAMETER_INVALID => Err(failure),
        told => Ok(told),
    }
}

fn known(kind: &str) -> Option<(&'static str, &'static str)> {
    TYPES.into_iter().find(|(name, _)| *name == kind)
}

fn choices() -> Vec<(&'static str, &'static str)> {
    [("", "everything")].into_iter().chain(TYPES).collect()
}

/// What stands there without results.
fn nothing(title: &Markup) -> Markup {
    html! { div class="empty" {
        p class="title" { (title) }
        p {
            "Things by key, name, IMEI, ICCID and tags; sessions by who they are, address and handle; "
            "users by name, address and telephone; organisations, applications and definitions by "
            "name. Capitals do not matter, and " kbd { "*" } " stands for any text."
        }
    } }
}

fn results(
    asked: &Asked,
    found: &Found,
    words: &str,
    kind: Option<(&str, &str)>,
    offset: u64,
) -> Markup {
    let of = |name: &str| found.result.iter().filter(|hit| hit.kind == name).collect::<Vec<_>>();
    let at = |kind: &str, offset: u64| {
        let offset = if offset == 0 { String::new() } else { offset.to_string() };
        format!("/search?{}", asked.query.query_with(&[("type", kind), ("offset", &offset)]))
    };
    let shown = found.result.len() as u64;
    html! {
        @if found.result.is_empty() {
            (nothing(&html! { "Nothing is found for “" bdi { (words) } "”" }))
        }
        @for (name, title) in TYPES {
            @let hits = of(name);
            @let count = found.counts.get(name).copied().unwrap_or_default();
            @if !hits.is_empty() {
                section aria-labelledby=(format!("found-{name}")) {
                    h2 id=(format!("found-{name}")) {
                        (title) " " span class="count" {
                            @if found.count_at_least.is_some() && name == "session" { "at least " }
                            (number(count))
                        }
                    }
                    (table(asked, name, title, &hits))
                    @if kind.is_none() && count > hits.len() as u64 {
                        p { a href=(at(name, 0)) { "All " (number(count)) " of these" } }
                    }
                }
            }
        }
        @if kind.is_some() && (offset > 0 || found.more && shown > 0) {
            nav class="pages" aria-label="Pages" {
                @if offset > 0 {
                    a rel="prev" href=(at(kind_of(kind), offset.saturating_sub(PAGE))) { "Previous" }
                }
                @if found.more && shown > 0 {
                    a rel="next" href=(at(kind_of(kind), offset + PAGE)) { "Next" }
                }
            }
        }
    }
}

fn kind_of<'k>(kind: Option<(&'k str, &'k str)>) -> &'k str {
    kind.map_or("", |(kind, _)| kind)
}

fn table(asked: &Asked, kind: &str, title: &str, hits: &[&Hit]) -> Markup {
    html! {
        div class="scroll" { table {
            caption class="hidden" { (title) " that were found" }
            thead { tr {
                th scope="col" { "Name" }
                th scope="col" { "What it is" }
                @if kind != "org" { th scope="col" { "Organisation" } }
                th scope="col" { "Found by" }
            } }
            tbody { @for hit in hits { tr {
                td data-cell="who" { a href=(hit.path(asked)) { bdi { (hit.title()) } } }
                td { (hit.details(asked)) }
                @if kind != "org" { td { bdi { (hit.org_key) } } }
                td { (hit.found_by()) }
            } } }
        } }
    }
}

impl Hit {
    /// By what people know it.
    fn title(&self) -> &str {
        self.key.as_ref().or(self.email_address.as_ref()).unwrap_or(&self.name)
    }

    /// Where it is; oneself is among one's own.
    fn path(&self, asked: &Asked) -> String {
        let id = segment(self.id.as_deref().unwrap_or_default());
        let rest = match self.kind.as_str() {
            "thing" => format!("things/{}", things::segment_of(self.title())),
            // Who may not look at sessions finds the own ones.
            "session" if asked.in_org(&self.org_slug).is_ok_and(|org| !org.may("session.find")) => {
                return "/me".to_owned();
            }
            "session" => {
                format!("sessions/{}", segment(self.reference.as_deref().unwrap_or_default()))
            }
            "user" if asked.own_user_id() == self.id => return "/me".to_owned(),
            "user" if self.pending == Some(true) => "access/invites".to_owned(),
            "user" => format!("access/users/{id}"),
            "app" => format!("access/apps/{id}"),
            "thing_def" => format!("things?defKey={}", segment(self.title())),
            _ => String::new(),
        };
        format!("/o/{}/{rest}", segment(&self.org_slug))
    }

    fn details(&self, asked: &Asked) -> Markup {
        let is_other_name = self.title() != self.name;
        html! {
            @if is_other_name { bdi { (self.name) } " " }
            @if self.pending == Some(true) { (badge("", "invited")) }
            @match self.connected {
                Some(true) => (badge("good", "connected")),
                Some(false) => {
                    // Before all times: it was never seen.
                    @if let Some(seen) = self.last_seen.as_ref().filter(|t| !t.starts_with("0001")) {
                        "seen " (ago(seen, asked.now))
                    } @else { "never seen" }
                }
                None => {}
            }
            @if self.status.as_deref().is_some_and(|status| status != "ACTIVE") {
                (badge("bad", "ended")) " "
            }
            @if let Some(protocol) = &self.protocol { (protocol) }
            @if let Some(from) = &self.remote_addr { " from " (from) }
            @if let Some(start) = &self.start_time { " since " (clock(start, asked.now)) }
        }
    }

    /// What matched, and how much of it.
    fn found_by(&self) -> String {
        let field = match self.field.as_str() {
            "iccid" | "esn" | "imei" | "meid" | "imsi" | "msisdn" | "id" => {
                self.field.to_uppercase()
            }
            "whoAmI" => "name".to_owned(),
            "remoteAddr" => "address".to_owned(),
            "ref" => "handle".to_owned(),
            "emailAddress" => "e-mail address".to_owned(),
            "lastName" => "last name".to_owned(),
            "officePhone" | "mobilePhone" => "telephone".to_owned(),
            "tags" => "tag".to_owned(),
            "secTags" => "security tag".to_owned(),
            other => other.to_owned(),
        };
        match self.class.as_str() {
            "exact" => field,
            "prefix" => format!("{field}, its beginning"),
            _ => format!("{field}, a part"),
        }
    }
}
