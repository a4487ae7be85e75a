//! The log of events, live: what happened, to whom, by whom.

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Answer;
use super::asked::{InOrg, segment};
use super::form::{Fields, Params};
use super::layout::{self, Screen, badge, input};
use super::respond::Refused;
use super::sessions::as_time;
use super::things::path_of;
use super::time::clock;
use super::window::{Column, Row, Window};

/// Events on one page.
const PAGE: u64 = 1000;

/// The newest of them, which are made anew as long as somebody looks; those before stay as they are.
const LIVE: u64 = 100;

/// Families of types that can be chosen, with a name for people.
const FAMILIES: [(&str, &str); 7] = [
    ("session.*", "sessions"),
    ("login.*", "refused logins"),
    ("thing.*", "things"),
    ("alarm.*", "alarms"),
    ("method.*", "methods"),
    ("limit.*", "limits"),
    ("command.*", "refused commands"),
];

const COLUMNS: &[Column] = &[
    Column::new("ts", "Time"),
    Column::new("type", "Type"),
    Column::new("who", "Who"),
    Column::new("by", "By"),
    Column::new("from", "From"),
    Column::new("what", "What"),
];

/// Members that have columns of their own, or say nothing to people.
const TOLD: [&str; 16] = [
    "number",
    "ts",
    "type",
    "class",
    "orgId",
    "thingId",
    "userId",
    "defId",
    "ref",
    "thingKey",
    "whoAmI",
    "remoteAddr",
    "by",
    "byRef",
    "kind",
    "name",
];

/// Members that say most come first, for a row is no longer than a window is wide.
const FIRST: [&str; 9] =
    ["endReason", "cause", "reason", "alarm", "state", "msg", "method", "status", "count"];

/// An event, as `event.list` shows it: what is known differs with the type.
#[derive(Deserialize)]
struct Event {
    number: u64,
    ts: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    members: Map<String, Value>,
}

#[derive(Deserialize)]
struct Listed {
    result: Vec<Event>,
    iterator: Option<String>,
}

impl Event {
    fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// What an address asks for, as parameters of `event.list`.
fn params(query: &Fields) -> Params {
    let mut params = query.params(&["before", "iterator", "key", "remoteAddr"]);
    params.set_some("end", query.get("end").map(as_time));
    let types: Vec<&str> = query.all("types").flat_map(|types| types.split(',')).collect();
    params.set_some("types", (!types.is_empty()).then_some(types));
    params.with("sort", "-number")
}

async fn list(
    asked: &InOrg<'_>,
    query: &Fields,
    limit: u64,
) -> Result<(Window, Option<String>), Refused> {
    let listed: Listed = asked.ask("event.list", &params(query).with("limit", limit)).await?;
    let total = listed.result.len() as u64;
    let rows = listed.result.iter().map(|event| Row {
        id: event.number.to_string(),
        cells: cells(asked, event),
        is_over: false,
        choice: None,
    });
    let window = Window {
        caption: "Events",
        nouns: ["event", "events"],
        columns: COLUMNS.into(),
        has_choice: false,
        rows: rows.collect(),
        total,
        is_at_least: listed.iterator.is_some(),
        offset: 0,
        limit,
        sort: "-number".into(),
    };
    Ok((window, listed.iterator))
}

/// The newest events that fit.
pub(super) async fn window(asked: &InOrg<'_>, query: &Fields) -> Result<Window, Refused> {
    Ok(list(asked, query, LIVE).await?.0)
}

fn cells(asked: &InOrg<'_>, event: &Event) -> Vec<Markup> {
    // That it is of the organisation in whose pages it stands says nothing.
    let is_here = |name: &str, value: &Value| name == "orgKey" && *value == *asked.org.key;
    let members = event.members.iter();
    let mut told: Vec<_> = members
        .filter(|(name, value)| !TOLD.contains(&name.as_str()) && !is_here(name, value))
        .collect();
    told.sort_by_key(|(name, _)| {
        FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len())
    });
    let (reference, thing) = (event.text("ref"), event.text("thingKey"));
    let who = event.text("whoAmI").or(event.text("name"));
    let to_session = |reference: &str| asked.to(&format!("sessions/{}", segment(reference)));
    let is_bad = event.kind.ends_with("refused") || event.kind.ends_with("revoked");
    let kind = if is_bad || event.kind == "limit.reached" { "bad" } else { "" };
    vec![
        clock(&event.ts, asked.now),
        badge(kind, &event.kind),
        html! {
            @match (thing, reference, who) {
                (Some(key), ..) => {
                    a href=(path_of(asked, key, "")) { bdi { (key) } }
                }
                (_, Some(reference), Some(who)) => { a href=(to_session(reference)) { bdi { (who) } } }
                (.., Some(who)) => { bdi { (who) } }
                _ => {}
            }
        },
        html! {
            @if let Some(by) = event.text("by").or(thing.and(who).filter(|who| Some(*who) != thing)) {
                bdi { (by) }
            }
        },
        html! { @if let Some(from) = event.text("remoteAddr") { (from) } },
        html! {
            @for (name, value) in told {
                span class="member" { span class="hint" { (name) " " } (said(value)) } " "
            }
        },
    ]
}

/// A value in few words.
fn said(value: &Value) -> Markup {
    const SHOWN_MAX: usize = 200;
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    html! { bdi { (shown) (cut) } }
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    let (window, iterator) = list(asked, &asked.query, PAGE).await?;
    let query = &asked.query;
    let is_past = ["iterator", "before", "end"].iter().any(|name| query.get(name).is_some());
    let view = format!("{}?{}", asked.path, query.query_with(&[]));
    let chosen: Vec<&str> = query.all("types").flat_map(|types| types.split(',')).collect();
    let older = iterator
        .map(|iterator| format!("{}?{}", asked.path, query.query_with(&[("iterator", &iterator)])));
    let body = html! {
        h1 { "Events" @if !is_past { " " span class="badge" data-live {} } }
        form class="filter" action=(asked.path) {
            fieldset class="choices" {
                legend { "Types" }
                @for (types, name) in FAMILIES {
                    label class="choice" {
                        input type="checkbox" name="types" value=(types) checked[chosen.contains(&types)];
                        (name)
                    }
                }
            }
            (input("key", "Thing", query.get("key"), "key"))
            (input("remoteAddr", "Address begins with", query.get("remoteAddr"), "10.2."))
            label { "Until, UTC"
                input type="datetime-local" name="end" value=[query.get("end")]; }
            button type="submit" { "Show" }
            @if !is_past { button type="button" data-pause aria-pressed="false" hidden { "Pause" } }
        }
        (layout::fresh())
        @if window.rows.is_empty() {
            (layout::empty("Nothing happened", &html! {
                "There is no event that fits. " a href=(asked.path) { "Show all" }
            }))
        }
        (window.log(asked, (!is_past).then_some(view.as_str())))
        nav class="pages" aria-label="Pages" {
            @if is_past { a href=(asked.path) { "The newest" } }
            @if let Some(older) = older { a rel="next" href=(older) data-older { "Older" } }
        }
    };
    Ok(layout::page(asked, Screen::Events, "Events", &body))
}
