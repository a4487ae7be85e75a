//! One thing: what is known of it, what it measured, what waits for it, and what can be done.

use std::collections::BTreeMap;

use base::Code;
use hyper::Method;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::Answer;
use super::asked::{InOrg, decoded};
use super::form::Params;
use super::respond::{self, Refused};
use super::things::{key_of, path_of};

mod acts;
mod connections;
mod edit;
mod files;
mod history;
mod mails;
mod page;
mod trace;
mod values;

pub(super) use mails::part_of as mail;
pub(super) use page::parts;

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
        (&Method::GET, []) => page::answer(asked, &key).await,
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
    table_of(caption, heads, rows.iter().map(|cells| (None, cells)))
}

fn table_of<'a>(
    caption: &str,
    heads: &[&str],
    rows: impl Iterator<Item = (Option<&'a str>, &'a Vec<Markup>)>,
) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="group" aria-label=(caption) {
            table {
                caption class="hidden" { bdi { (caption) } }
                thead { tr { @for head in heads { th scope="col" {
                    @if head.is_empty() { span class="hidden" { "Actions" } } @else { (head) }
                } } } }
                tbody { @for (id, row) in rows { tr data-id=[id] { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

/// The same of which each row has a name, by which the stream knows it again.
fn live_table(caption: &str, heads: &[&str], rows: &[(String, Vec<Markup>)]) -> Markup {
    table_of(caption, heads, rows.iter().map(|(id, cells)| (Some(id.as_str()), cells)))
}

/// Back to the thing.
fn see(asked: &InOrg<'_>, key: &str, rest: &str) -> Answer {
    Ok(respond::see(&path_of(asked, key, rest)))
}

/// The way back from a page below that of a thing.
fn back(asked: &InOrg<'_>, key: &str) -> Markup {
    html! { p class="pages" { a href=(path_of(asked, key, "")) { "Back to " bdi { (key) } } } }
}
