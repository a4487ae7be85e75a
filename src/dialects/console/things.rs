//! The list of things.

use maud::{Markup, html};
use serde::Deserialize;

use super::Answer;
use super::asked::{InOrg, decoded, segment};
use super::chart::{self, Point};
use super::form::{Fields, Params};
use super::layout::{self, Screen, badge, input, number, select};
use super::respond::Refused;
use super::sessions::{END_REASONS, Listed, PROTOCOLS, as_time};
use super::time::{ago, clock};
use super::window::{Column, PAGE, Row, Window};

mod map;

/// Filters, in the words of `thing.list`, that are taken as they are.
const FILTERS: [&str; 7] =
    ["prefix", "connected", "defKey", "disabled", "protocol", "remoteAddr", "hasLoc"];

/// Filters that are times.
const TIMES: [&str; 2] = ["lastSeenAfter", "lastSeenBefore"];

const COLUMNS: &[Column] = &[
    Column::sorted("thing", "Thing", "key"),
    Column::sorted("name", "Name", "name"),
    Column::sorted("state", "State", "connected"),
    Column::sorted("seen", "Last seen", "lastSeen"),
    Column::new("left", "Left"),
    Column::new("alarms", "Alarms"),
    Column::new("from", "From"),
    Column::new("def", "Definition"),
    Column::new("tags", "Tags"),
];

/// The members that the list shows.
const SHOW: [&str; 14] = [
    "key",
    "name",
    "connected",
    "disabled",
    "disabledUntil",
    "lastSeen",
    "proto",
    "remoteAddr",
    "defKey",
    "tags",
    "endReason",
    "endTime",
    "alarmsRaised",
    "alarmState",
];

/// A thing, as `thing.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThingRow {
    key: String,
    name: String,
    connected: bool,
    #[serde(default)]
    disabled: bool,
    last_seen: String,
    proto: String,
    remote_addr: String,
    def_key: String,
    tags: Vec<String>,
    end_reason: Option<String>,
    end_time: Option<String>,
    #[serde(default)]
    alarms_raised: u64,
    alarm_state: Option<i64>,
}

/// How many things were connected, as `usage.thing.history` shows it.
#[derive(Deserialize)]
struct Usage {
    ts: Vec<String>,
    connected: Vec<f64>,
}

/// Where the page of a thing is, or one below it.
pub(super) fn path_of(asked: &InOrg<'_>, key: &str, rest: &str) -> String {
    let slash = if rest.is_empty() { "" } else { "/" };
    asked.to(&format!("things/{}{slash}{rest}", segment_of(key)))
}

/// A key as a segment of a path. A segment `.` or `..` is not a name but a way (RFC 3986, 3.3), also
/// where its dots are encoded: such keys have a tilde before them there.
pub(super) fn segment_of(key: &str) -> String {
    let tilde = if is_dots(key) { "~" } else { "" };
    format!("{tilde}{}", segment(key))
}

/// The key that a segment of a path stands for.
pub(super) fn key_of(segment: &str) -> String {
    let text = decoded(segment);
    match text.strip_prefix('~') {
        Some(key) if is_dots(key) => key.to_owned(),
        _ => text,
    }
}

fn is_dots(key: &str) -> bool {
    matches!(key.trim_start_matches('~'), "." | "..")
}

/// Whether a time is one at which something happened: of what never did, the vendor's has the year 1.
pub(super) fn ever(time: &str) -> Option<&str> {
    (!time.starts_with("0001-")).then_some(time)
}

/// The filters of an address as parameters of a command.
fn filters(fields: &Fields) -> Params {
    let mut params = fields.params(&FILTERS);
    for name in TIMES {
        params.set_some(name, fields.get(name).map(as_time));
    }
    for name in ["tags", "endReason"] {
        let values: Vec<&str> = fields.all(name).collect();
        params.set_some(name, (!values.is_empty()).then_some(values));
    }
    params.set_some("query", fields.get("query"));
    params
}

/// The command that looks for what an address asks for.
fn command(query: &Fields) -> &'static str {
    if query.get("query").is_some() { "thing.search" } else { "thing.list" }
}

/// The part of the list that an address asks for.
pub(super) async fn window(asked: &InOrg<'_>, query: &Fields) -> Result<Window, Refused> {
    let sort = query.get("sort").unwrap_or("key");
    let offset = query.number("offset").unwrap_or(0);
    let mut params = filters(query)
        .with("show", SHOW.to_vec())
        .with("hideFields", true)
        .with("offset", offset)
        .with("limit", PAGE);
    // That is their order, for which not all of them have to be looked at.
    params.set_some("sort", Some(sort).filter(|sort| *sort != "key"));
    let listed: Listed<ThingRow> = asked.ask(command(query), &params).await?;
    let row = |thing: ThingRow| Row {
        cells: cells(asked, &thing),
        id: thing.key,
        is_over: thing.disabled,
        choice: None,
    };
    Ok(Window {
        caption: "Things",
        nouns: ["thing", "things"],
        columns: COLUMNS.into(),
        has_choice: false,
        total: listed.count.or(listed.count_at_least).unwrap_or_default(),
        is_at_least: listed.count.is_none(),
        rows: listed.result.into_iter().map(row).collect(),
        offset,
        limit: PAGE,
        sort: sort.to_owned(),
    })
}

fn cells(asked: &InOrg<'_>, thing: &ThingRow) -> Vec<Markup> {
    let now = asked.now;
    let left = thing.end_reason.as_deref().zip(thing.end_time.as_deref());
    vec![
        html! { a href=(path_of(asked, &thing.key, "")) { bdi { (thing.key) } } },
        html! { bdi { (thing.name) } },
        state(thing.connected, thing.disabled),
        match ever(&thing.last_seen) {
            Some(seen) => ago(seen, now),
            None => html! { "never" },
        },
        html! { @if let Some((reason, at)) = left { (reason.replace('_', " ")) " " (clock(at, now)) } },
        html! { @if thing.alarms_raised > 0 {
            (badge("bad", &format!("{} raised", number(thing.alarms_raised))))
            @if let Some(state) = thing.alarm_state { " state " (state) }
        } },
        html! { (thing.proto) " " (thing.remote_addr) },
        html! { bdi { (thing.def_key) } },
        tags(&thing.tags),
    ]
}

/// Whether a thing is here, and whether it may be.
pub(super) fn state(connected: bool, disabled: bool) -> Markup {
    html! {
        @if connected { (badge("good", "connected")) } @else { (badge("", "not connected")) }
        @if disabled { " " (badge("bad", "banned")) }
    }
}

/// Tags, one beside the other.
pub(super) fn tags(tags: &[String]) -> Markup {
    html! { @for tag in tags { span class="badge" { bdi { (tag) } } " " } }
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    if asked.query.get("map").is_some() {
        let body = html! {
            h1 { "Things" }
            (tabs(asked, true))
            (filter_form(asked))
            (map::part(asked).await?)
        };
        return Ok(layout::page(asked, Screen::Things, "Map of things", &body));
    }
    let window = window(asked, &asked.query).await?;
    let view = format!("{}?{}", asked.path, asked.query.query_with(&[]));
    let body = html! {
        h1 { "Things " span class="badge" data-live {} }
        (tabs(asked, false))
        (filter_form(asked))
        (layout::fresh())
        @if let Some(way) = window.way_back(asked) { (way) }
        @else if window.rows.is_empty() {
            (layout::empty("No things", &html! {
                @if !filters(&asked.query).is_empty() {
                    "None fits. " a href=(asked.to("things")) { "Show all" }
                } @else {
                    "A thing appears here as soon as a device logs in with the token of an application \
                     that registers things."
                }
            }))
        }
        (window.table(asked, Some(&view)))
        (window.foot(asked))
        (usage(asked).await?)
    };
    Ok(layout::page(asked, Screen::Things, "Things", &body))
}

/// The list and the map of what fits.
fn tabs(asked: &InOrg<'_>, is_map: bool) -> Markup {
    let to = |map: &str| {
        let query = asked.query.query_with(&[("map", map), ("offset", ""), ("sort", "")]);
        format!("{}?{query}", asked.path).trim_end_matches('?').to_owned()
    };
    html! {
        nav class="tabs" aria-label="Things" {
            a href=(to("")) aria-current=[(!is_map).then_some("page")] { "List" }
            a href=(to("1")) aria-current=[is_map.then_some("page")] { "Map" }
        }
    }
}

/// How many were connected in each hour of a day.
async fn usage(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    if !asked.may("usage.thing.history") {
        return Ok(html! {});
    }
    let usage: Usage = asked.ask("usage.thing.history", &Params::default()).await?;
    let points: Vec<Point> = chart::points(usage.ts.iter().map(String::as_str), &usage.connected);
    if points.iter().all(|point| point.value == 0.0) {
        return Ok(html! {});
    }
    Ok(html! {
        h2 { "Connected things in each hour, UTC" }
        (chart::bars("Connected things in each of the last 24 hours", &points))
    })
}

fn filter_form(asked: &InOrg<'_>) -> Markup {
    let query = &asked.query;
    let more = [
        "prefix",
        "protocol",
        "remoteAddr",
        "hasLoc",
        "lastSeenAfter",
        "lastSeenBefore",
        "endReason",
    ];
    let is_open = more.iter().any(|name| query.get(name).is_some());
    let yes_no = |name: &str, label: &str, yes: &str, no: &str| {
        select(name, label, query.get(name), &[("", "any"), ("true", yes), ("false", no)])
    };
    html! {
        form class="filter" action=(asked.path) {
            @if asked.may("thing.search") {
                (input("query", "Key, name, number or tag", query.get("query"), "words"))
            }
            (yes_no("connected", "State", "connected", "not connected"))
            (input("defKey", "Definition", query.get("defKey"), "key"))
            (input("tags", "Tag", query.get("tags"), ""))
            (yes_no("disabled", "Banned", "banned", "not banned"))
            details open[is_open] {
                summary { "More" }
                div {
                    (input("prefix", "Key begins with", query.get("prefix"), "mower-"))
                    (select("protocol", "Protocol", query.get("protocol"), &PROTOCOLS))
                    (input("remoteAddr", "Address begins with", query.get("remoteAddr"), "10.2."))
                    (yes_no("hasLoc", "Location", "known", "not known"))
                    label { "Seen after, UTC"
                        input type="datetime-local" name="lastSeenAfter"
                            value=[query.get("lastSeenAfter")]; }
                    label { "Not seen since, UTC"
                        input type="datetime-local" name="lastSeenBefore"
                            value=[query.get("lastSeenBefore")]; }
                    (select("endReason", "Left by", query.get("endReason"), &END_REASONS))
                }
            }
            @for name in ["sort", "map"] { @if let Some(value) = query.get(name) {
                input type="hidden" name=(name) value=(value);
            } }
            button type="submit" { "Show" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stands_for_its_key() {
        for key in [".", "..", "~.", "~", "~a", "a b", "ü%", "?&=", "...", "~~.."] {
            let written = segment_of(key);
            assert!(written != "." && written != "..", "{key}");
            assert_eq!(key_of(&written), key);
        }
    }
}
