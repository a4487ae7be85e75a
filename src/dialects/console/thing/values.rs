//! What a thing has published: values, alarms and attributes.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::{Alarm, Attribute, Definition, Found, history, live_table, long};
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::respond::Refused;
use crate::dialects::console::time::{ago, clock};

/// Properties whose line is drawn: each takes a command, of which a session has so many a second.
const DRAWN: usize = 12;

/// What is defined of a property, an attribute or an alarm under this name of a member.
pub(super) fn defined<'a>(
    section: &'a BTreeMap<String, Value>,
    key: &str,
    member: &str,
) -> Option<&'a str> {
    section.get(key)?.get(member)?.as_str().filter(|text| !text.is_empty())
}

/// A link to the history of a property, an attribute or an alarm, for who may see it, with the name
/// that people gave it.
fn history_of(
    asked: &InOrg<'_>,
    thing: &str,
    of: &'static str,
    name: &str,
    section: &BTreeMap<String, Value>,
) -> Markup {
    let may = match of {
        "property" => asked.may("property.history"),
        "alarm" => asked.may("alarm.history"),
        _ => asked.may("attribute.history"),
    };
    html! {
        @if may { a href=(history::path(asked, thing, of, name)) { bdi { (name) } } }
        @else { bdi { (name) } }
        @if let Some(title) = defined(section, name, "name").filter(|title| *title != name) {
            " " span class="hint" { bdi { (title) } }
        }
    }
}

pub(super) async fn values(
    asked: &InOrg<'_>,
    found: &Found,
    def: &Definition,
) -> Result<Markup, Refused> {
    let may = asked.may("property.history");
    let mut rows = Vec::new();
    for (index, (name, property)) in found.properties.iter().enumerate() {
        let line = match index < DRAWN && may {
            true => history::sparkline(asked, &found.key, name).await?,
            false => html! {},
        };
        let cells = vec![
            history_of(asked, &found.key, "property", name, &def.properties),
            html! {
                (property.value)
                @if let Some(unit) = defined(&def.properties, name, "unit") { " " bdi { (unit) } }
            },
            line,
            ago(&property.ts, asked.now),
        ];
        rows.push((name.clone(), cells));
    }
    Ok(html! {
        h2 { "Last values" }
        @if rows.is_empty() { p class="hint" { "It has published no property yet." } }
        @else { (live_table("Last values", &["Property", "Value", "Course", "Age"], &rows)) }
    })
}

/// What people call a state of an alarm: a definition has its states in an array, or by number.
fn state_name<'a>(def: &'a Definition, alarm: &str, state: i64) -> Option<&'a str> {
    let states = def.alarms.get(alarm)?.get("states")?;
    let state = match states {
        Value::Array(states) => states.get(usize::try_from(state).ok()?)?,
        other => other.get(state.to_string())?,
    };
    state.as_str().or_else(|| state.get("name")?.as_str()).filter(|name| !name.is_empty())
}

pub(super) fn alarm_state(def: &Definition, alarm: &str, state: i64) -> Markup {
    let kind = if state == 0 { "badge good" } else { "badge bad" };
    let name = state_name(def, alarm, state);
    html! { span class=(kind) { (state) @if let Some(name) = name { " " bdi { (name) } } } }
}

pub(super) fn alarms(asked: &InOrg<'_>, found: &Found, def: &Definition) -> Markup {
    let mut alarms: Vec<_> = found.alarms.iter().collect();
    // Those that are raised come first.
    alarms.sort_by_key(|(_, alarm)| alarm.state == 0);
    let row = |(name, alarm): (&String, &Alarm)| {
        let cells = vec![
            history_of(asked, &found.key, "alarm", name, &def.alarms),
            alarm_state(def, name, alarm.state),
            ago(&alarm.since, asked.now),
            clock(&alarm.since, asked.now),
            long(&alarm.msg),
        ];
        (name.clone(), cells)
    };
    let rows: Vec<_> = alarms.iter().copied().map(row).collect();
    html! {
        h2 { "Alarms" }
        @if rows.is_empty() { p class="hint" { "It has published no alarm yet." } }
        @else { (live_table("Alarms", &["Alarm", "State", "For", "Since", "Message"], &rows)) }
    }
}

pub(super) fn attributes(asked: &InOrg<'_>, found: &Found, def: &Definition) -> Markup {
    let row = |(name, attribute): (&String, &Attribute)| {
        let cells = vec![
            history_of(asked, &found.key, "attribute", name, &def.attributes),
            long(&attribute.value),
            ago(&attribute.ts, asked.now),
        ];
        (name.clone(), cells)
    };
    let rows: Vec<_> = found.attrs.iter().map(row).collect();
    html! { @if !rows.is_empty() {
        h2 { "Attributes" }
        (live_table("Attributes", &["Attribute", "Value", "Age"], &rows))
    } }
}
