//! Logins that were refused, counted by what they have in common: who tries, from where, with what.

use maud::{Markup, html};
use serde::Deserialize;

use super::Answer;
use super::asked::InOrg;
use super::form::{Fields, Params};
use super::layout::{self, Screen, input, number, select};
use super::sessions::{PROTOCOLS, as_time};
use super::time::ago;
use crate::events::LoginCause;

/// Groups on one page.
const PAGE: u64 = 100;

/// By what they are counted, the first one if nothing is said: as the command calls it, and as people
/// do.
const BY: [(&str, &str); 4] =
    [("address", "address"), ("name", "name"), ("cause", "cause"), ("protocol", "protocol")];

/// Of which time they are, the first one if nothing is said.
const LAST: [(&str, &str); 5] = [
    ("", "the last day"),
    ("1h", "the last hour"),
    ("7d", "the last week"),
    ("30d", "the last 30 days"),
    ("3650d", "all times"),
];

#[derive(Deserialize)]
struct Groups {
    count: u64,
    result: Vec<Group>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct Group {
    address: Option<String>,
    name: Option<String>,
    cause: Option<String>,
    protocol: Option<String>,
    count: u64,
    first: String,
    last: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default)]
    protocols: Vec<String>,
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    let query = &asked.query;
    let by = query.get("by").unwrap_or(BY[0].0).to_ascii_lowercase();
    let offset = query.number("offset").unwrap_or(0);
    let mut params = query.params(&["name", "address", "cause", "protocol"]);
    params.set_some("start", query.get("start").map(as_time));
    params.set_some("end", query.get("end").map(as_time));
    if query.get("start").is_none() {
        params.set("last", query.get("last").unwrap_or("24h"));
    }
    let params = params.with("groupBy", by.as_str()).with("offset", offset).with("limit", PAGE);
    let groups: Groups = asked.ask("login.failures", &params).await?;
    // What the command does not know, it has refused.
    let (by, title) = BY.into_iter().find(|(name, _)| *name == by).unwrap_or(BY[0]);
    let shown = groups.result.len() as u64;
    let at = |offset: u64| {
        let offset = if offset == 0 { String::new() } else { offset.to_string() };
        format!("{}?{}", asked.path, query.query_with(&[("offset", &offset)]))
    };
    let body = html! {
        h1 { "Refused logins by " (title) }
        (filter_form(query, &asked.path, by))
        @if groups.result.is_empty() {
            (layout::empty("No login was refused", &html! {
                "There is none that fits. " a href=(asked.path) { "Show those of the last day" }
            }))
        } @else { (table(asked, &groups.result, by, title)) }
        @if groups.truncated {
            p class="hint" {
                "There were more than are looked at for a page: the last ones are counted. A shorter time \
                 shows all of it."
            }
        }
        nav class="pages" aria-label="Pages" {
            span class="count" { (number(groups.count)) @if groups.count == 1 { " group" } @else { " groups" } }
            @if offset > 0 { a rel="prev" href=(at(offset.saturating_sub(PAGE))) { "Previous" } }
            @if offset + shown < groups.count && shown > 0 {
                a rel="next" href=(at(offset + PAGE)) { "Next" }
            }
        }
        @if asked.may("event.list") {
            p { a href=(asked.to("events?types=login.*")) { "One by one, as events" } }
        }
    };
    Ok(layout::page(asked, Screen::Overview, "Refused logins", &body))
}

fn filter_form(query: &Fields, path: &str, by: &str) -> Markup {
    let causes = LoginCause::ALL.map(LoginCause::as_str);
    let causes: Vec<(&str, String)> = [("", "any".to_owned())]
        .into_iter()
        .chain(causes.into_iter().map(|cause| (cause, cause.replace('_', " "))))
        .collect();
    let causes: Vec<(&str, &str)> = causes.iter().map(|(name, text)| (*name, &**text)).collect();
    html! {
        form class="filter" action=(path) {
            (select("by", "By", Some(by), &BY))
            (input("name", "Name", query.get("name"), "mower-*"))
            (input("address", "Address begins with", query.get("address"), "10.2."))
            (select("cause", "Cause", query.get("cause"), &causes))
            (select("protocol", "Protocol", query.get("protocol"), &PROTOCOLS))
            (select("last", "Of", query.get("last"), &LAST))
            label { "Or since, UTC"
                input type="datetime-local" name="start" value=[query.get("start")]; }
            label { "Until, UTC"
                input type="datetime-local" name="end" value=[query.get("end")]; }
            button type="submit" { "Show" }
        }
    }
}

fn table(asked: &InOrg<'_>, groups: &[Group], by: &str, title: &str) -> Markup {
    let has = |other: &str| by != other;
    html! {
        div class="scroll" tabindex="0" role="group" aria-label="Refused logins" { table {
            caption class="hidden" { "Refused logins by " (title) }
            thead { tr {
                th scope="col" { (layout::capital(title)) }
                th scope="col" { "Times" }
                th scope="col" { "Last" }
                th scope="col" { "First" }
                @if has("name") { th scope="col" { "Names" } }
                @if has("address") { th scope="col" { "Addresses" } }
                @if has("cause") { th scope="col" { "Causes" } }
                @if has("protocol") { th scope="col" { "Protocols" } }
            } }
            tbody { @for group in groups { tr {
                th scope="row" { (group.link(asked, by)) }
                td { (number(group.count)) }
                td { (ago(&group.last, asked.now)) }
                td { (ago(&group.first, asked.now)) }
                @if has("name") { td { (texts(&group.names)) } }
                @if has("address") { td { (texts(&group.addresses)) } }
                @if has("cause") { td { (words(&group.causes)) } }
                @if has("protocol") { td { (texts(&group.protocols)) } }
            } } }
        } }
    }
}

impl Group {
    /// By which it is known, with a way to what it is made of.
    fn link(&self, asked: &InOrg<'_>, by: &str) -> Markup {
        let (name, value, next) = match by {
            "name" => ("name", self.name.clone(), ""),
            "cause" => ("cause", self.cause.clone(), ""),
            "protocol" => ("protocol", self.protocol.clone(), ""),
            // The filter is of what an address with its port begins with.
            _ => ("address", self.address.as_deref().map(with_port), "name"),
        };
        let text = match by {
            "name" => self.name.clone(),
            "cause" => self.cause.as_ref().map(|cause| cause.replace('_', " ")),
            "protocol" => self.protocol.clone(),
            _ => self.address.clone(),
        };
        let (Some(value), Some(text)) = (value, text) else { return html! { "not known" } };
        let query = asked.query.query_with(&[(name, &value), ("by", next), ("offset", "")]);
        html! { a href=(format!("{}?{query}", asked.path)) { bdi { (text) } } }
    }
}

/// What an address of a machine begins with where a port stands behind it.
fn with_port(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:") } else { format!("{address}:") }
}

fn texts(texts: &[String]) -> Markup {
    html! { @for (index, text) in texts.iter().enumerate() {
        @if index > 0 { ", " }
        bdi { (text) }
    } }
}

fn words(texts: &[String]) -> Markup {
    let words: Vec<String> = texts.iter().map(|text| text.replace('_', " ")).collect();
    html! { (words.join(", ")) }
}

/// How many there were by cause, with ways to them.
pub(super) async fn by_cause(asked: &InOrg<'_>) -> Result<Markup, base::Failure> {
    let params = Params::default().with("groupBy", "cause").with("last", "24h");
    let groups: Groups = asked.ask("login.failures", &params).await?;
    Ok(html! {
        p class="counts" { @for group in &groups.result { @if let Some(cause) = &group.cause {
            a data-id=(cause) href=(asked.to(&format!("logins?cause={cause}"))) {
                (cause.replace('_', " ")) " " (number(group.count))
            } " "
        } } }
    })
}
