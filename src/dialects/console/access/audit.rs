//! The trail: what administrators changed, and who was refused.

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::Answer;
use super::super::asked::{InOrg, segment};
use super::super::layout::{self, badge, input, number, select};
use super::super::sessions::as_time;
use super::super::time::clock;
use super::show;

/// Events on one page.
const PAGE: u64 = 60;

/// An event, as `audit.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    ts: String,
    command: Option<String>,
    outcome: Option<String>,
    who_am_i: Option<String>,
    session_ref: Option<String>,
    remote_addr: Option<String>,
    protocol: Option<String>,
    cause: Option<String>,
    message: Option<String>,
    count: Option<u64>,
    target: Option<Target>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Target {
    kind: Option<String>,
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Trail {
    result: Vec<Event>,
    iterator: Option<String>,
    #[serde(default)]
    truncated: bool,
}

impl Event {
    fn what(&self) -> Markup {
        html! { @if let Some(target) = &self.target {
            @if let Some(kind) = &target.kind { (kind) " " }
            @if let Some(name) = target.name.as_ref().or(target.id.as_ref()) { bdi { (name) } }
        } }
    }

    fn outcome(&self) -> Markup {
        let is_good = self.outcome.as_deref() == Some("success");
        let times = self.count.filter(|count| *count > 1);
        html! {
            @if is_good { (badge("good", "done")) } @else { (badge("bad", "refused")) }
            @if let Some(times) = times { " " (number(times)) " times" }
        }
    }

    /// What changed, member by member, or why it was refused.
    fn details(&self) -> Markup {
        let empty = Map::new();
        let (before, after) = (self.before.as_ref(), self.after.as_ref());
        let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        html! {
            @if let Some(cause) = &self.cause { (cause.replace('_', " ")) ". " }
            @if let Some(message) = &self.message { bdi { (message) } }
            @for name in names {
                div {
                    span class="hint" { (name) ": " }
                    @if let Some(value) = before.get(name) { del { bdi { (short(value)) } } " " }
                    @if let Some(value) = after.get(name) { ins { bdi { (short(value)) } } }
                }
            }
        }
    }
}

/// A value as people read it.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

/// The list.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    let query = &asked.query;
    let names =
        ["user", "command", "target", "class", "outcome", "cause", "remoteAddr", "iterator"];
    let mut params = query.params(&names).with("limit", PAGE);
    for name in ["start", "end"] {
        params.set_some(name, query.get(name).map(as_time));
    }
    let trail: Trail = asked.ask("audit.list", &params).await?;
    let more = trail
        .iterator
        .as_deref()
        .map(|iterator| format!("{}?{}", asked.path, query.query_with(&[("iterator", iterator)])));
    let is_first = query.get("iterator").is_none();
    let first = format!("{}?{}", asked.path, query.query_with(&[("iterator", "")]));
    let body = html! {
        h1 { "Trail" }
        (filter(asked))
        @if trail.result.is_empty() && !trail.truncated {
            (layout::empty("Nothing in the trail", &html! {
                "No change and no refusal fits. " a href=(asked.path) { "Show all that is kept" }
            }))
        } @else { div class="scroll" tabindex="0" role="group" aria-label="Trail, the newest first" { table {
            caption class="hidden" { "Trail, the newest first" }
            thead { tr {
                th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "Command" }
                th scope="col" { "On" } th scope="col" { "Outcome" } th scope="col" { "What" }
                th scope="col" { "From" }
            } }
            tbody { @for event in &trail.result { tr {
                td { (clock(&event.ts, asked.now)) }
                td { (who(asked, event)) }
                td { @if let Some(command) = &event.command { bdi { (command) } } }
                td { (event.what()) }
                td { (event.outcome()) }
                td class="wrap" { (event.details()) }
                td {
                    @if let Some(protocol) = &event.protocol { (protocol) " " }
                    @if let Some(from) = &event.remote_addr { (from) }
                }
            } } }
        } } }
        nav class="pages" aria-label="Pages" {
            @if trail.truncated { span { "Many were looked at: older ones are on the next page." } }
            @if !is_first { a href=(first) { "The newest" } }
            @if let Some(more) = more { a rel="next" href=(more) { "Older" } }
        }
    };
    show(asked, "trail", "Trail", &body)
}

fn who(asked: &InOrg<'_>, event: &Event) -> Markup {
    let Some(who) = &event.who_am_i else { return html! { "somebody" } };
    let session = event.session_ref.as_ref().filter(|_| asked.may("session.find"));
    let path = session.map(|reference| asked.to(&format!("sessions/{}", segment(reference))));
    html! { @match path {
        Some(path) => a href=(path) { bdi { (who) } },
        None => bdi { (who) },
    } }
}

fn filter(asked: &InOrg<'_>) -> Markup {
    let query = &asked.query;
    let has_more = ["remoteAddr", "start", "end"].iter().any(|name| query.get(name).is_some());
    html! {
        form class="filter" action=(asked.path) {
            (input("user", "Who", query.get("user"), "mower-*"))
            (input("command", "Command or family", query.get("command"), "role"))
            (input("target", "On", query.get("target"), "id or name"))
            (select("class", "Kind", query.get("class"),
                &[("", "all"), ("administration", "changes"), ("refusals", "refusals")]))
            (select("outcome", "Outcome", query.get("outcome"),
                &[("", "any"), ("success", "done"), ("failure", "refused")]))
            details open[has_more] {
                summary { "More" }
                div {
                    (input("remoteAddr", "Address begins with", query.get("remoteAddr"), "10.2."))
                    label {
                        "From, UTC"
                        input type="datetime-local" name="start" value=[query.get("start")];
                    }
                    label {
                        "Until, UTC"
                        input type="datetime-local" name="end" value=[query.get("end")];
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}
