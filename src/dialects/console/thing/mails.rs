//! The mailbox of a thing: what waits, what became of it, and methods, which are mails too.

use hyper::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::acts::need;
use super::{Definition, back, definition, live_table, long, of, part as said, see, table};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::{InOrg, segment};
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, badge, csrf, facts};
use crate::dialects::console::parts::Parts;
use crate::dialects::console::respond::Refused;
use crate::dialects::console::sessions::Listed;
use crate::dialects::console::things::path_of;
use crate::dialects::console::time::{ago, clock};

/// Mails of the whole list.
const MANY: u64 = 200;

/// For how long a method waits for a thing that is away, in seconds.
const WAITS: [(&str, &str); 4] =
    [("60", "a minute"), ("3600", "an hour"), ("86400", "a day"), ("604800", "a week")];

/// A mail, as `mailbox.find` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    id: String,
    thing_key: String,
    command: String,
    params: Value,
    from: String,
    created_on: String,
    expires: Option<String>,
    status: String,
    error_code: Option<i64>,
    error_message: Option<String>,
    ack_params: Option<Value>,
    #[serde(default)]
    history: Vec<Step>,
    updated: String,
}

#[derive(Deserialize)]
struct Step {
    status: String,
    ts: String,
    #[serde(default)]
    msg: Option<String>,
}

impl Mail {
    /// Whether nothing happens to it any more.
    fn is_done(&self) -> bool {
        !matches!(self.status.as_str(), "new" | "in-flight" | "in-progress")
    }

    /// What method it is about.
    fn what(&self) -> &str {
        let method = self.params.get("method").and_then(Value::as_str);
        method.filter(|_| self.command == "method.exec").unwrap_or(&self.command)
    }
}

fn status(status: &str) -> Markup {
    let kind = match status {
        "completed-ok" | "completed-auto" => "good",
        "completed-error" | "expired" | "purged" => "bad",
        "in-flight" | "in-progress" => "warn",
        _ => "",
    };
    badge(kind, &status.replace('-', " "))
}

/// The newest mails.
pub(super) async fn part(asked: &InOrg<'_>, key: &str, limit: u64) -> Result<Markup, Refused> {
    let params = of(key).with("limit", limit);
    let listed: Option<Listed<Mail>> = said(asked, "mailbox.list", &params).await?;
    let Some(listed) = listed else { return Ok(html! {}) };
    let row = |mail: &Mail| {
        let path = path_of(asked, key, &format!("mails/{}", segment(&mail.id)));
        let cells = vec![
            html! {
                @if asked.may("mailbox.find") { a href=(path) { bdi { (mail.what()) } } }
                @else { bdi { (mail.what()) } }
            },
            status(&mail.status),
            ago(&mail.created_on, asked.now),
            html! { bdi { (mail.from) } },
            html! { @if let Some(until) = mail.expires.as_ref().filter(|_| !mail.is_done()) {
                (clock(until, asked.now))
            } },
        ];
        (mail.id.clone(), cells)
    };
    let rows: Vec<_> = listed.result.iter().map(row).collect();
    let more = listed.count.is_none_or(|count| count > limit) && limit < MANY;
    Ok(html! {
        h2 { "Mailbox" }
        @if rows.is_empty() { p class="hint" { "Nothing waits for it, and nothing is remembered." } }
        @else {
            (live_table("Mailbox", &["What", "State", "Age", "From", "Waits until"], &rows))
            @if more { p { a href=(path_of(asked, key, "mails")) { "More mails" } } }
        }
    })
}

/// The whole mailbox.
pub(super) async fn list(asked: &InOrg<'_>, key: &str) -> Answer {
    need(asked, "mailbox.list")?;
    let body = html! {
        h1 { "Mailbox of " bdi { (key) } }
        (part(asked, key, MANY).await?)
        (back(asked, key))
    };
    Ok(layout::page(asked, Screen::Things, &format!("Mailbox of {key}"), &body))
}

/// One mail, until its answer is there.
pub(super) async fn page(asked: &InOrg<'_>, key: &str, id: &str) -> Answer {
    let mail = find(asked, key, id).await?;
    let view = if mail.is_done() { None } else { Parts::view(&asked.path) };
    let body = html! {
        div data-view=[view] { div data-part="mail" { (known(asked, &mail)) } }
        @if !mail.is_done() && asked.may("mailbox.purge") {
            form method="post" action=(path_of(asked, key, &format!("mails/{}/purge", segment(id)))) {
                (csrf(asked))
                p class="buttons" { button type="submit" { "Take it back" } }
            }
        }
        (back(asked, key))
    };
    Ok(layout::page(asked, Screen::Things, mail.what(), &body))
}

/// What of that page is live.
pub(in crate::dialects::console) async fn part_of(
    asked: &InOrg<'_>,
    key: &str,
    id: &str,
) -> Result<Parts, Refused> {
    let mut parts = Parts::default();
    parts.add("mail", known(asked, &find(asked, key, id).await?));
    Ok(parts)
}

async fn find(asked: &InOrg<'_>, key: &str, id: &str) -> Result<Mail, Refused> {
    let mail: Mail = asked.ask("mailbox.find", &Params::default().with("id", id)).await?;
    // A mail of another thing is nothing at this address.
    if mail.thing_key == key { Ok(mail) } else { Err(Refused::NotFound) }
}

fn known(asked: &InOrg<'_>, mail: &Mail) -> Markup {
    let text = |text: &str| html! { bdi { (text) } };
    let steps = mail.history.iter().map(|step| {
        let msg = step.msg.as_deref().unwrap_or_default();
        vec![clock(&step.ts, asked.now), status(&step.status), long(msg)]
    });
    let steps: Vec<_> = steps.collect();
    html! {
        h1 { bdi { (mail.what()) } " " (status(&mail.status)) }
        @if !mail.is_done() {
            p {
                "The thing has not answered yet. "
                a href=(asked.path) { "Look again" }
            }
        }
        (facts(&[
            ("To", Some(text(&mail.thing_key))),
            ("From", Some(text(&mail.from))),
            ("Sent", Some(ago(&mail.created_on, asked.now))),
            ("Waits until", mail.expires.as_ref().map(|until| clock(until, asked.now))),
            ("Changed", Some(ago(&mail.updated, asked.now))),
            ("Error code", mail.error_code.map(|code| html! { (code) })),
            ("Message", mail.error_message.as_deref().map(text)),
        ]))
        @if let Some(answer) = &mail.ack_params { h2 { "Answer" } (json(answer)) }
        h2 { "Parameters" }
        (json(&mail.params))
        @if !steps.is_empty() {
            h2 { "What became of it" }
            (table("What became of it", &["Time", "State", "Message"], &steps))
        }
    }
}

fn json(value: &Value) -> Markup {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    html! { pre tabindex="0" { bdi { (text) } } }
}

pub(super) async fn purge(asked: &InOrg<'_>, key: &str, id: &str) -> Answer {
    asked.ask::<IgnoredAny>("mailbox.purge", &of(key).with("id", id)).await?;
    see(asked, key, &format!("mails/{}", segment(id)))
}

/// Asks which method is to run, and with what. `wrong`: what is wrong with what was sent.
pub(super) async fn run_form(asked: &InOrg<'_>, key: &str, wrong: Option<&str>) -> Answer {
    need(asked, "method.exec")?;
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfDef {
        def_key: String,
    }
    let found = said(asked, "thing.find", &Params::default().with("key", key)).await?;
    let def_key = found.map_or_else(String::new, |OfDef { def_key }| def_key);
    let def = definition(asked, &def_key).await?;
    let chosen = asked.form.get("method").or_else(|| asked.query.get("method"));
    let params = match asked.form.get("params") {
        Some(params) => params.to_owned(),
        None => chosen.map_or_else(String::new, |method| skeleton(&def, method)),
    };
    let wait = asked.form.get("ttl").unwrap_or("3600");
    let body = html! {
        h1 { "Run a method on " bdi { (key) } }
        @if let Some(wrong) = wrong { p class="notice bad" role="alert" { bdi { (wrong) } } }
        @if !def.methods.is_empty() { (methods(asked, key, &def)) }
        form method="post" action=(path_of(asked, key, "run")) class="stack" {
            (csrf(asked))
            label { "Method" input name="method" required value=[chosen]; }
            label { "Parameters, as JSON"
                textarea name="params" rows="6" cols="48" spellcheck="false" { (params) } }
            (layout::select("ttl", "If it is away, wait for", Some(wait), &WAITS))
            p class="buttons" { button type="submit" class="main" { "Run it" } }
        }
        (back(asked, key))
    };
    let mut response = layout::page(asked, Screen::Things, "Run a method", &body);
    if wrong.is_some() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

/// The methods that its definition has.
fn methods(asked: &InOrg<'_>, key: &str, def: &Definition) -> Markup {
    let to = |method: &str| {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("method", method).finish();
        path_of(asked, key, &format!("run?{query}"))
    };
    html! {
        p { "Its definition has: "
            @for name in def.methods.keys() { a href=(to(name)) { bdi { (name) } } " " }
        }
    }
}

/// The parameters that a method's definition names, each without a value.
fn skeleton(def: &Definition, method: &str) -> String {
    let variables = def.methods.get(method).and_then(|method| method.get("notificationVariables"));
    let names = variables.and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let empty: Map<String, Value> = names.map(|name| (name.clone(), Value::Null)).collect();
    if empty.is_empty() {
        return String::new();
    }
    serde_json::to_string_pretty(&empty).unwrap_or_default()
}

/// Sends the method. The page of its mail shows what comes of it.
pub(super) async fn run(asked: &InOrg<'_>, key: &str) -> Answer {
    let Some(method) = asked.form.get("method") else {
        return run_form(asked, key, Some("The method has no name.")).await;
    };
    let given: Result<Option<Value>, _> =
        asked.form.get("params").map(serde_json::from_str).transpose();
    let given = match given {
        Ok(given) => given,
        Err(error) => {
            let wrong = format!("The parameters are not JSON: {error}.");
            return run_form(asked, key, Some(&wrong)).await;
        }
    };
    let ttl = asked.form.number("ttl").unwrap_or(3600);
    let mut params = of(key).with("method", method).with("ackTimeout", 0).with("ttl", ttl);
    params.set_some("params", given);
    #[derive(Deserialize)]
    struct Sent {
        id: String,
    }
    let sent: Sent = asked.ask("method.exec", &params).await?;
    match asked.may("mailbox.find") {
        true => see(asked, key, &format!("mails/{}", segment(&sent.id))),
        false => see(asked, key, ""),
    }
}
