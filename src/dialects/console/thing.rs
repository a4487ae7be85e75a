//! One thing: what is known of it, what it measured, what waits for it, and what can be done.

use std::collections::BTreeMap;

use base::{Code, Failure, Timestamp};
use hyper::{Method, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::Answer;
use super::asked::{InOrg, decoded, segment};
use super::form::Params;
use super::layout::{self, Screen, badge, facts};
use super::respond::{self, Refused};
use super::sessions::{Listed, SessionRow};
use super::things::{ever, key_of, path_of, state, tags};
use super::time::{ago, clock, span};

mod acts;
mod edit;
mod files;
mod history;
mod mails;
mod trace;

/// Properties whose line is drawn: each takes a command, of which a session has so many a second.
const DRAWN: usize = 12;

/// Mails and sessions that are shown.
const FEW: u64 = 10;

/// Characters of a text that are shown at once: what fits into a column.
const SHORT: usize = 48;

/// A thing, as `thing.find` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    id: String,
    key: String,
    name: String,
    desc: String,
    def_key: String,
    def_name: String,
    tags: Vec<String>,
    sec_tags: Vec<String>,
    iccid: String,
    esn: String,
    imei: String,
    meid: String,
    imsi: String,
    msisdn: String,
    connected: bool,
    app_id: String,
    last_seen: String,
    last_communication: String,
    bound_to: Option<String>,
    proto: String,
    remote_addr: String,
    #[serde(default)]
    disabled: bool,
    reason: Option<String>,
    disabled_until: Option<String>,
    created_by: String,
    created_on: String,
    updated_by: String,
    updated_on: String,
    loc: Option<Location>,
    attrs: BTreeMap<String, Attribute>,
    properties: BTreeMap<String, Property>,
    alarms: BTreeMap<String, Alarm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    lat: f64,
    lng: f64,
    fix_type: Option<String>,
    #[serde(default)]
    addr: BTreeMap<String, String>,
    since: String,
}

#[derive(Deserialize)]
struct Attribute {
    value: String,
    ts: String,
}

#[derive(Deserialize)]
struct Property {
    value: Number,
    ts: String,
}

#[derive(Deserialize)]
struct Alarm {
    state: i64,
    since: String,
    #[serde(default)]
    msg: String,
}

/// What `thing.diagnose` says.
#[derive(Deserialize)]
struct Diagnosis {
    summary: String,
    findings: Vec<String>,
}

/// The parts of a definition, which may be whatever somebody once wrote there.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Definition {
    properties: BTreeMap<String, Value>,
    attributes: BTreeMap<String, Value>,
    alarms: BTreeMap<String, Value>,
    methods: BTreeMap<String, Value>,
}

/// The pages of one thing.
pub(super) async fn answer(asked: &InOrg<'_>, thing: &str, rest: &[&str]) -> Answer {
    let key = key_of(thing);
    if key.is_empty() {
        return Ok(respond::see(&asked.to("things")));
    }
    match (&asked.method, rest) {
        (&Method::GET, []) => page(asked, &key).await,
        (&Method::GET, ["edit"]) => edit::page(asked, &key, None).await,
        (&Method::POST, ["edit", what]) => edit::change(asked, &key, what).await,
        (&Method::GET, ["history"]) => history::page(asked, &key).await,
        (&Method::GET, ["dump"]) => acts::dump(asked, &key).await,
        (&Method::GET, ["ban"]) => acts::ban_form(asked, &key),
        (&Method::POST, ["ban"]) => acts::ban(asked, &key).await,
        (&Method::POST, ["unban"]) => acts::unban(asked, &key).await,
        (&Method::GET, ["delete"]) => acts::delete_form(asked, &key),
        (&Method::POST, ["delete"]) => acts::delete(asked, &key).await,
        (&Method::GET, ["run"]) => mails::run_form(asked, &key, None).await,
        (&Method::POST, ["run"]) => mails::run(asked, &key).await,
        (&Method::GET, ["mails"]) => mails::list(asked, &key).await,
        (&Method::GET, ["mails", id]) => mails::page(asked, &key, &decoded(id)).await,
        (&Method::POST, ["mails", id, "purge"]) => mails::purge(asked, &key, &decoded(id)).await,
        (&Method::GET, ["file"]) => files::download(asked, &key).await,
        (&Method::POST, ["file"]) => files::upload(asked, &key).await,
        (&Method::POST, ["file", "address"]) => files::address(asked, &key).await,
        (&Method::GET, ["file", "delete"]) => files::delete_form(asked, &key),
        (&Method::POST, ["file", "delete"]) => files::delete(asked, &key).await,
        (&Method::GET, ["trace"]) => trace::page(asked, &key).await,
        (&Method::POST, ["trace"]) => trace::set(asked, &key).await,
        _ => Err(Refused::NotFound),
    }
}

/// Parameters that name the thing.
fn of(key: &str) -> Params {
    Params::default().with("thingKey", key)
}

/// What a command says for a part of a page; none if it has no right here, or nothing to say.
async fn part<R: DeserializeOwned>(
    asked: &InOrg<'_>,
    command: &'static str,
    params: &Params,
) -> Result<Option<R>, Refused> {
    if !asked.may(command) {
        return Ok(None);
    }
    match asked.ask(command, params).await {
        Ok(said) => Ok(Some(said)),
        Err(failure) if matches!(failure.code, Code::NOT_FOUND | Code::PERMISSION_DENIED) => {
            Ok(None)
        }
        Err(failure) => Err(failure.into()),
    }
}

/// What is known of the thing's definition.
async fn definition(asked: &InOrg<'_>, key: &str) -> Result<Definition, Refused> {
    if key.is_empty() {
        return Ok(Definition::default());
    }
    let params = Params::default().with("key", key);
    let found: Option<Value> = part(asked, "thing_def.find", &params).await?;
    // What is not as it should be is not used.
    let read = found.and_then(|found| serde_json::from_value(found).ok());
    Ok(read.unwrap_or_default())
}

async fn page(asked: &InOrg<'_>, key: &str) -> Answer {
    let found: Result<Found, Failure> =
        asked.ask("thing.find", &Params::default().with("key", key)).await;
    let found = match found {
        Ok(found) => found,
        Err(failure)
            if matches!(failure.code, Code::NOT_FOUND | Code::PARAMETER_INVALID)
                && asked.may("thing.diagnose") =>
        {
            return unknown(asked, key).await;
        }
        Err(failure) => return Err(failure.into()),
    };
    let def = definition(asked, &found.def_key).await?;
    let diagnosis: Option<Diagnosis> = part(asked, "thing.diagnose", &of(key)).await?;
    let body = html! {
        h1 { bdi { (found.key) } " " (state(found.connected, found.disabled)) }
        @if let Some(diagnosis) = &diagnosis { p { bdi { (diagnosis.summary) } } }
        @if found.disabled { (banned(asked, &found)) }
        (what_is_known(asked, &found))
        (acts::buttons(asked, key, found.disabled))
        (values(asked, &found, &def).await?)
        (alarms(asked, &found, &def))
        (attributes(asked, &found, &def))
        @if let Some(loc) = &found.loc { (location(asked, key, loc)) }
        (mails::part(asked, key, FEW).await?)
        (files::part(asked, key).await?)
        (sessions(asked, key).await?)
        @if let Some(diagnosis) = &diagnosis {
            h2 { "Diagnosis" }
            (findings(diagnosis))
        }
    };
    Ok(layout::page(asked, Screen::Things, &found.key, &body))
}

/// The page of a key that no thing has: whoever has a device in hand that does not appear wants to
/// know why.
async fn unknown(asked: &InOrg<'_>, key: &str) -> Answer {
    let diagnosis: Diagnosis = asked.ask("thing.diagnose", &of(key)).await?;
    let body = html! {
        h1 { "No thing has the key " bdi { (key) } }
        (findings(&diagnosis))
        p class="buttons" {
            @if asked.may("thing.trace") {
                a class="button" href=(path_of(asked, key, "trace")) { "Trace its next login" }
            }
            a class="button" href=(asked.to("things")) { "All things" }
        }
    };
    let mut response = layout::page(asked, Screen::Things, key, &body);
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}

fn findings(diagnosis: &Diagnosis) -> Markup {
    html! { ul { @for finding in &diagnosis.findings { li { bdi { (finding) } } } } }
}

fn banned(asked: &InOrg<'_>, found: &Found) -> Markup {
    html! {
        p class="notice bad" {
            "Banned"
            @if let Some(until) = &found.disabled_until { " until " (clock(until, asked.now)) " UTC" }
            @if let Some(reason) = &found.reason { ": " bdi { (reason) } }
        }
    }
}

fn what_is_known(asked: &InOrg<'_>, found: &Found) -> Markup {
    let text = |text: &str| {
        Some(text).filter(|text| !text.is_empty()).map(|text| html! { bdi { (text) } })
    };
    let seen = |time: &str| Some(ever(time).map_or(html! { "never" }, |time| ago(time, asked.now)));
    let definition = match found.def_name.is_empty() || found.def_name == found.def_key {
        true => found.def_key.clone(),
        false => format!("{} ({})", found.def_name, found.def_key),
    };
    let parent = found.bound_to.as_ref().map(|key| {
        html! { a href=(path_of(asked, key, "")) { bdi { (key) } } }
    });
    let by = |at: &str, by: &str| Some(html! { (clock(at, asked.now)) " by " bdi { (by) } });
    let all = |texts: &[String]| (!texts.is_empty()).then(|| tags(texts));
    let from = text(format!("{} {}", found.proto, found.remote_addr).trim());
    facts(&[
        ("Name", text(&found.name)),
        ("Description", text(&found.desc)),
        ("Last seen", seen(&found.last_seen)),
        ("Last command", seen(&found.last_communication)),
        ("From", from),
        ("Definition", text(&definition)),
        ("Tags", all(&found.tags)),
        ("Security tags", all(&found.sec_tags)),
        ("Bound to", parent),
        ("IMEI", text(&found.imei)),
        ("ICCID", text(&found.iccid)),
        ("IMSI", text(&found.imsi)),
        ("Telephone number", text(&found.msisdn)),
        ("ESN", text(&found.esn)),
        ("MEID", text(&found.meid)),
        ("Application id", text(&found.app_id)),
        ("Id", text(&found.id)),
        ("Made", by(&found.created_on, &found.created_by)),
        ("Changed", by(&found.updated_on, &found.updated_by)),
    ])
}

/// What is defined of a property, an attribute or an alarm under this name of a member.
fn defined<'a>(section: &'a BTreeMap<String, Value>, key: &str, member: &str) -> Option<&'a str> {
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

async fn values(asked: &InOrg<'_>, found: &Found, def: &Definition) -> Result<Markup, Refused> {
    let may = asked.may("property.history");
    let mut rows = Vec::new();
    for (index, (name, property)) in found.properties.iter().enumerate() {
        let line = match index < DRAWN && may {
            true => history::sparkline(asked, &found.key, name).await?,
            false => html! {},
        };
        rows.push(vec![
            history_of(asked, &found.key, "property", name, &def.properties),
            html! {
                (property.value)
                @if let Some(unit) = defined(&def.properties, name, "unit") { " " bdi { (unit) } }
            },
            line,
            ago(&property.ts, asked.now),
        ]);
    }
    Ok(html! {
        h2 { "Last values" }
        @if rows.is_empty() { p class="hint" { "It has published no property yet." } }
        @else { (table("Last values", &["Property", "Value", "Course", "Age"], &rows)) }
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

fn alarm_state(def: &Definition, alarm: &str, state: i64) -> Markup {
    let kind = if state == 0 { "badge good" } else { "badge bad" };
    let name = state_name(def, alarm, state);
    html! { span class=(kind) { (state) @if let Some(name) = name { " " bdi { (name) } } } }
}

/// How long ago a time was, without a word for it.
fn age_ms(text: &str, now: Timestamp) -> i64 {
    Timestamp::parse(text).map_or(0, |then| now.as_millis() - then.as_millis())
}

fn alarms(asked: &InOrg<'_>, found: &Found, def: &Definition) -> Markup {
    let mut alarms: Vec<_> = found.alarms.iter().collect();
    // Those that are raised come first.
    alarms.sort_by_key(|(_, alarm)| alarm.state == 0);
    let row = |(name, alarm): (&String, &Alarm)| {
        vec![
            history_of(asked, &found.key, "alarm", name, &def.alarms),
            alarm_state(def, name, alarm.state),
            html! { (span(age_ms(&alarm.since, asked.now))) },
            clock(&alarm.since, asked.now),
            long(&alarm.msg),
        ]
    };
    let rows: Vec<_> = alarms.into_iter().map(row).collect();
    html! {
        h2 { "Alarms" }
        @if rows.is_empty() { p class="hint" { "It has published no alarm yet." } }
        @else { (table("Alarms", &["Alarm", "State", "For", "Since", "Message"], &rows)) }
    }
}

fn attributes(asked: &InOrg<'_>, found: &Found, def: &Definition) -> Markup {
    let row = |(name, attribute): (&String, &Attribute)| {
        vec![
            history_of(asked, &found.key, "attribute", name, &def.attributes),
            long(&attribute.value),
            ago(&attribute.ts, asked.now),
        ]
    };
    let rows: Vec<_> = found.attrs.iter().map(row).collect();
    html! { @if !rows.is_empty() {
        h2 { "Attributes" }
        (table("Attributes", &["Attribute", "Value", "Age"], &rows))
    } }
}

fn location(asked: &InOrg<'_>, key: &str, loc: &Location) -> Markup {
    let address: Vec<&str> = ["street", "streetNumber", "zipCode", "city", "state", "country"]
        .into_iter()
        .filter_map(|line| loc.addr.get(line).map(String::as_str))
        .collect();
    let address = (!address.is_empty()).then(|| html! { bdi { (address.join(", ")) } });
    let found = loc.fix_type.as_ref().map(|fix| html! { bdi { (fix) } });
    html! {
        h2 { "Location" }
        (facts(&[
            ("Latitude, longitude", Some(html! { (loc.lat) ", " (loc.lng) })),
            ("Address", address),
            ("Found by", found),
            ("Age", Some(ago(&loc.since, asked.now))),
        ]))
        @if asked.may("location.history") {
            p { a href=(history::path(asked, key, "location", "")) { "Where it was" } }
        }
    }
}

/// Its sessions, live and ended.
async fn sessions(asked: &InOrg<'_>, key: &str) -> Result<Markup, Refused> {
    let params = of(key).with("status", vec!["ALL"]).with("limit", FEW);
    let listed: Option<Listed<SessionRow>> = part(asked, "session.list", &params).await?;
    let Some(listed) = listed else { return Ok(html! {}) };
    let all = form_urlencoded::Serializer::new(String::new())
        .append_pair("thingKey", key)
        .append_pair("state", "all")
        .finish();
    let row = |session: &SessionRow| {
        let ended = session.end_time.as_deref();
        let until = ended.and_then(Timestamp::parse).unwrap_or(asked.now);
        vec![
            html! { a href=(asked.to(&format!("sessions/{}", segment(&session.reference)))) {
                (clock(&session.start_time, asked.now))
            } },
            html! { (span(age_ms(&session.start_time, until))) },
            html! { (session.conn_info.protocol) },
            html! { (session.conn_info.remote_addr) },
            match (&session.end_reason, ended) {
                (Some(reason), Some(at)) => html! {
                    (badge("bad", &reason.replace('_', " "))) " " (clock(at, asked.now))
                },
                _ => badge("good", "live"),
            },
        ]
    };
    let rows: Vec<_> = listed.result.iter().map(row).collect();
    Ok(html! {
        h2 { "Connections" }
        @if rows.is_empty() {
            p class="hint" { "None that is known. Ended ones are kept for a while." }
        } @else {
            (table("Connections", &["Since", "For", "Protocol", "From", "End"], &rows))
            p { a href=(asked.to(&format!("sessions?{all}"))) { "All sessions of this thing" } }
        }
    })
}

/// A text that may be long: its beginning, and behind it the rest.
fn long(text: &str) -> Markup {
    match text.char_indices().nth(SHORT) {
        None => html! { bdi { (text) } },
        Some((end, _)) => html! {
            details {
                summary { bdi { (text.get(..end).unwrap_or_default()) } "…" }
                pre tabindex="0" { bdi { (text) } }
            }
        },
    }
}

/// A short list.
fn table(caption: &str, heads: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="group" aria-label=(caption) {
            table {
                caption class="hidden" { bdi { (caption) } }
                thead { tr { @for head in heads { th scope="col" {
                    @if head.is_empty() { span class="hidden" { "Actions" } } @else { (head) }
                } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

/// Back to the thing.
fn see(asked: &InOrg<'_>, key: &str, rest: &str) -> Answer {
    Ok(respond::see(&path_of(asked, key, rest)))
}

/// The way back from a page below that of a thing.
fn back(asked: &InOrg<'_>, key: &str) -> Markup {
    html! { p class="pages" { a href=(path_of(asked, key, "")) { "Back to " bdi { (key) } } } }
}
