//! Histories: of a property as a chart with a table under it, of alarms, attributes and locations.

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Number;

use super::values::{alarm_state, defined};
use super::{back, definition, long, of, part, table};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::chart;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, number, select};
use crate::dialects::console::respond::Refused;
use crate::dialects::console::things::path_of;
use crate::dialects::console::time::{clock, exact, span};
use base::Timestamp;

/// Values of a sparkline.
const DRAWN: u64 = 48;

/// Rows of a table, the newest.
const ROWS: usize = 200;

/// Times that can be chosen: as `last` has them.
const LAST: [(&str, &str); 6] = [
    ("", "all that is kept"),
    ("1h", "last hour"),
    ("24h", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("365d", "last year"),
];

/// A history, in which null is a value that was unset.
#[derive(Deserialize)]
struct History<T> {
    values: Vec<T>,
}

#[derive(Deserialize)]
struct Valued {
    value: Number,
    ts: String,
}

#[derive(Deserialize)]
struct Text {
    value: Option<String>,
    ts: String,
}

#[derive(Deserialize)]
struct State {
    state: i64,
    #[serde(default)]
    msg: Option<String>,
    ts: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    lat: f64,
    lng: f64,
    fix_type: Option<String>,
    speed: Option<f64>,
    ts: String,
}

/// Where a history is.
pub(super) fn path(asked: &InOrg<'_>, thing: &str, of: &str, name: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("of", of)
        .append_pair("name", name)
        .finish();
    path_of(asked, thing, &format!("history?{query}"))
}

/// The course of a property in a line as high as a word.
pub(super) async fn sparkline(
    asked: &InOrg<'_>,
    thing: &str,
    name: &str,
) -> Result<Markup, Refused> {
    let params = of(thing).with("key", name).with("records", DRAWN);
    let history: Option<History<Valued>> = part(asked, "property.history", &params).await?;
    let values: Vec<Option<f64>> =
        history.iter().flat_map(|history| &history.values).map(|one| one.value.as_f64()).collect();
    Ok(match values.len() {
        0 | 1 => html! {},
        count => chart::sparkline(&format!("{name}: the last {count} values"), &values),
    })
}

/// The screen of one history.
pub(super) async fn page(asked: &InOrg<'_>, thing: &str) -> Answer {
    let name = asked.query.exact("name");
    let mut params = of(thing);
    params.set_some("last", asked.query.get("last"));
    let kind = asked.query.get("of").unwrap_or_default();
    let (title, body) = match kind {
        "property" => {
            let body = properties(asked, name, params.with("key", name)).await?;
            (name, body)
        }
        "alarm" => (name, alarms(asked, thing, name, params.with("key", name)).await?),
        "attribute" => (name, attributes(asked, params.with("key", name)).await?),
        "location" => ("Location", locations(asked, params).await?),
        _ => return Err(Refused::NotFound),
    };
    let body = html! {
        h1 { bdi { (title) } " of " bdi { (thing) } }
        form class="filter" action=(asked.path) {
            input type="hidden" name="of" value=(kind);
            input type="hidden" name="name" value=(name);
            (select("last", "Time", asked.query.get("last"), &LAST))
            button type="submit" { "Show" }
        }
        (body)
        (back(asked, thing))
    };
    Ok(layout::page(asked, Screen::Things, &format!("{title} of {thing}"), &body))
}

/// What stands in place of a history that has nothing.
fn none() -> Markup {
    layout::empty("Nothing in this time", &html! { "Choose a longer one." })
}

fn shown(count: usize) -> Markup {
    html! { p class="hint" {
        (number(count as u64)) @if count == 1 { " value" } @else { " values" }
        @if count > ROWS { ", of which the table has the newest " (ROWS) }
        ". At most 5,000 are shown, the newest."
    } }
}

async fn properties(asked: &InOrg<'_>, name: &str, params: Params) -> Result<Markup, Refused> {
    let history: History<Valued> = asked.ask("property.history", &params).await?;
    let values = &history.values;
    if values.is_empty() {
        return Ok(none());
    }
    let floats: Vec<f64> =
        values.iter().map(|one| one.value.as_f64().unwrap_or_default()).collect();
    let points = chart::points(values.iter().map(|one| one.ts.as_str()), &floats);
    let rows: Vec<_> = values
        .iter()
        .rev()
        .take(ROWS)
        .map(|one| vec![html! { (exact(&one.ts)) }, html! { (one.value) }])
        .collect();
    let label = format!("{name}, {} values; the table below has them", values.len());
    Ok(html! {
        (chart::line(&label, &points))
        (shown(values.len()))
        (table(&format!("Values of {name}"), &["Time", "Value"], &rows))
    })
}

async fn attributes(asked: &InOrg<'_>, params: Params) -> Result<Markup, Refused> {
    let history: History<Text> = asked.ask("attribute.history", &params).await?;
    let row = |one: &Text| {
        let value = match &one.value {
            Some(value) => long(value),
            None => html! { em { "unset" } },
        };
        vec![html! { (exact(&one.ts)) }, value]
    };
    let rows: Vec<_> = history.values.iter().rev().take(ROWS).map(row).collect();
    Ok(html! {
        @if rows.is_empty() { (none()) }
        @else {
            (shown(history.values.len()))
            (table("Values", &["Time", "Value"], &rows))
        }
    })
}

async fn alarms(
    asked: &InOrg<'_>,
    thing: &str,
    name: &str,
    params: Params,
) -> Result<Markup, Refused> {
    let history: History<State> = asked.ask("alarm.history", &params).await?;
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfDef {
        def_key: String,
    }
    let found = part(asked, "thing.find", &Params::default().with("key", thing)).await?;
    let def_key = found.map_or_else(String::new, |OfDef { def_key }| def_key);
    let def = definition(asked, &def_key).await?;
    // A state holds until the next one.
    let mut until = Some(asked.now);
    let mut rows = Vec::new();
    for one in history.values.iter().rev().take(ROWS) {
        let at = Timestamp::parse(&one.ts);
        let ms = until.zip(at).map(|(until, at)| until.as_millis() - at.as_millis());
        until = at;
        rows.push(vec![
            html! { (clock(&one.ts, asked.now)) },
            alarm_state(&def, name, one.state),
            html! { @if let Some(ms) = ms { (span(ms)) } },
            long(one.msg.as_deref().unwrap_or_default()),
        ]);
    }
    Ok(html! {
        @if let Some(desc) = defined(&def.alarms, name, "desc") { p { bdi { (desc) } } }
        @if rows.is_empty() { (none()) }
        @else {
            (shown(history.values.len()))
            (table(&format!("States of {name}"), &["Since", "State", "For", "Message"], &rows))
        }
    })
}

async fn locations(asked: &InOrg<'_>, params: Params) -> Result<Markup, Refused> {
    let history: History<Place> = asked.ask("location.history", &params).await?;
    let row = |place: &Place| {
        vec![
            html! { (exact(&place.ts)) },
            html! { (place.lat) },
            html! { (place.lng) },
            html! { @if let Some(speed) = place.speed { (speed) } },
            html! { @if let Some(fix) = &place.fix_type { bdi { (fix) } } },
        ]
    };
    let rows: Vec<_> = history.values.iter().rev().take(ROWS).map(row).collect();
    let heads = ["Time", "Latitude", "Longitude", "Speed", "Found by"];
    Ok(html! {
        @if rows.is_empty() { (none()) }
        @else { (shown(history.values.len())) (table("Locations", &heads, &rows)) }
    })
}
