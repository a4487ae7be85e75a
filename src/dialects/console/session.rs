//! One session: what is known of it, its rights in words, where it was, and its login's others.

use std::collections::BTreeMap;

use base::limits;
use maud::{Markup, html};
use serde::Deserialize;

use super::Answer;
use super::asked::{InOrg, segment};
use super::form::Params;
use super::layout::{self, Screen, badge, facts, number};
use super::respond::Refused;
use super::sessions::{Listed, SessionRow};
use super::things::path_of;
use super::time::{ago, clock, lasted};

mod messages;

/// Other sessions of the same login that are shown.
const OTHERS: u64 = 20;

/// A session, as `session.find` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(flatten)]
    row: SessionRow,
    user_name: Option<String>,
    thing_key: Option<String>,
    subscription_count: Option<u64>,
    #[serde(default)]
    subscriptions: Vec<Subscription>,
    in_flight: Option<InFlight>,
    #[serde(default)]
    in_flight_messages: Vec<Message>,
    waiting: Option<u64>,
    waiting_bytes: Option<u64>,
    #[serde(default)]
    waiting_messages: Vec<Message>,
    kept_session: Option<Kept>,
    #[serde(default)]
    org_switches: Vec<OrgSwitch>,
}

#[derive(Deserialize)]
struct Subscription {
    filter: String,
    qos: u8,
}

/// Packets that are not acknowledged.
#[derive(Deserialize)]
struct InFlight {
    out: Packets,
    #[serde(rename = "in")]
    inwards: Packets,
}

#[derive(Deserialize)]
struct Packets {
    qos1: u64,
    qos2: u64,
}

/// A message on its way to the client, or one that waits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    packet_id: Option<u16>,
    qos: u8,
    #[serde(default)]
    released: bool,
    topic: Option<String>,
    bytes: Option<u64>,
    since: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    expiry_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrgSwitch {
    org_key: String,
    ts: String,
}

/// Rights, as `session.explain` says where they are from.
#[derive(Deserialize)]
struct Explained {
    sources: Vec<Source>,
    more: bool,
    limits: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    text: String,
    #[serde(default)]
    perms: Vec<String>,
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>, reference: &str) -> Answer {
    let params =
        Params::default().with("ref", reference).with("show", vec!["*"]).with("ended", true);
    let found: Found = asked.ask("session.find", &params).await?;
    let is_own = found.row.reference == asked.own_reference();
    let is_over = found.row.end_time.is_some();
    let body = html! {
        h1 {
            bdi { (found.row.who_am_i) } " "
            @if is_over { (badge("bad", "ended")) } @else { (badge("good", "live")) }
            @if is_own { " " (badge("", "you")) }
        }
        (what_is_known(asked, &found))
        @if !is_own && !is_over && asked.may_end_sessions() {
            p class="buttons" {
                a class="button" data-dialog
                    href=(asked.to(&format!("sessions/end?ref={}", segment(reference)))) { "End…" }
            }
        }
        @if is_own { p { "This is your own session. " a href="/me" { "All of yours" } } }
        h2 { "Rights" }
        (rights(asked, &found.row.reference).await?)
        @if found.subscription_count.is_some_and(|count| count > 0) { (subscriptions(&found)) }
        (messages::in_flight(asked, &found))
        (messages::waiting(asked, &found))
        @if !found.org_switches.is_empty() { (organisations(asked, &found)) }
        @if asked.may("session.list") {
            h2 { "Other sessions of this login" }
            (others(asked, &found).await?)
        }
    };
    let title = format!("Session of {}", found.row.who_am_i);
    Ok(layout::page(asked, Screen::Sessions, &title, &body))
}

fn what_is_known(asked: &InOrg<'_>, found: &Found) -> Markup {
    let text = |text: &Option<String>| {
        text.as_ref().filter(|text| !text.is_empty()).map(|text| html! { bdi { (text) } })
    };
    let count = |count: Option<u64>| count.map(|count| html! { (number(count)) });
    let thing = found.thing_key.as_ref().map(|key| {
        html! { a href=(path_of(asked, key, "")) { bdi { (key) } } }
    });
    let kind = if found.row.user_id.is_some() { "user" } else { "application" };
    let ended = found.row.end_time.as_ref().map(|at| {
        let reason = found.row.end_reason.as_deref().unwrap_or_default().replace('_', " ");
        html! { (clock(at, asked.now)) ", " (reason) }
    });
    facts(&[
        ("Kind", Some(html! { (kind) })),
        ("User", text(&found.user_name)),
        ("Thing", thing),
        ("Application", text(&found.row.app_name)),
        ("Token", text(&found.row.token_name)),
        ("Organisation", text(&found.row.org_key)),
        (
            "Protocol",
            Some(html! {
                (found.row.conn_info.protocol)
                @if let Some(version) = &found.row.mqtt_version { ", MQTT " (version) }
                @if let Some(version) = &found.row.tls_version { ", " (version) }
            }),
        ),
        ("From", Some(html! { (found.row.conn_info.remote_addr) })),
        ("With", text(&found.row.user_agent)),
        ("Client id", text(&found.row.client_id)),
        ("Since", Some(clock(&found.row.start_time, asked.now))),
        ("Last command", Some(ago(&found.row.last_accessed, asked.now))),
        ("Last sign of life", found.row.last_seen.as_ref().map(|seen| ago(seen, asked.now))),
        ("Ended", ended),
        ("Commands", count(Some(found.row.command_count))),
        ("Keep-alive", found.row.keep_alive.map(|s| html! { (s) " s" })),
        ("Expires when idle for", found.row.ttl.map(|s| html! { (number(s)) " s" })),
        ("Bytes in", count(found.row.bytes_in)),
        ("Bytes out", count(found.row.bytes_out)),
        ("Messages in", count(found.row.messages_in)),
        ("Messages out", count(found.row.messages_out)),
        ("Waiting to be sent", found.row.outbox.map(|messages| html! {
            (number(messages)) @if messages > 0 {
                @if let Some(bytes) = found.row.outbox_bytes { ", " (number(bytes)) " bytes" }
            }
        })),
        ("Waiting in the broker", count(found.waiting)),
        (
            "Not acknowledged",
            found.in_flight.as_ref().map(|flight| {
                let (out, inwards) = (&flight.out, &flight.inwards);
                html! {
                    "QoS 1: " (out.qos1) " out, " (inwards.qos1) " in; QoS 2: " (out.qos2) " out, "
                    (inwards.qos2) " in"
                }
            }),
        ),
        (
            "Outlives the connection",
            found.kept_session.as_ref().map(|kept| match kept.expiry_s {
                Some(seconds) => html! { "for " (number(seconds)) " s" },
                None => html! { "for ever" },
            }),
        ),
        ("Sessions of this login in the last hour", count(found.row.starts_last_hour)),
    ])
}

/// Where it was, from when to when, from its login on.
fn organisations(asked: &InOrg<'_>, found: &Found) -> Markup {
    let switches = &found.org_switches;
    let is_whole = switches.len() < limits::ORG_SWITCHES_MAX;
    let login = is_whole.then_some((None, found.row.start_time.as_str()));
    let later = switches.iter().map(|switch| (Some(&switch.org_key), switch.ts.as_str()));
    let stays: Vec<_> = login.into_iter().chain(later).collect();
    let ends = stays.iter().skip(1).map(|(_, since)| Some(*since));
    let ends = ends.chain([found.row.end_time.as_deref()]);
    html! {
        h2 { "Organisations" }
        @if !is_whole { p class="hint" { "The last " (switches.len()) " switches; those before are not kept." } }
        ol class="course" {
            @for ((org, since), until) in stays.iter().zip(ends) {
                li aria-current=[until.is_none().then_some("true")] {
                    @match org {
                        Some(org) => bdi { (org) },
                        None => "the organisation of its login",
                    }
                    span class="hint" {
                        " from " (clock(since, asked.now))
                        @match until {
                            Some(until) => { " to " (clock(until, asked.now)) ", for " (lasted(since, until)) }
                            None => { " until now, for " (ago(since, asked.now)) }
                        }
                    }
                }
            }
        }
    }
}

fn subscriptions(found: &Found) -> Markup {
    let count = found.subscription_count.unwrap_or_default();
    html! {
        h2 { "Subscriptions" }
        ul class="plain-list" {
            @for one in &found.subscriptions { li { code { bdi { (one.filter) } } " QoS " (one.qos) } }
        }
        @if count > found.subscriptions.len() as u64 { p class="hint" { (number(count)) " in all." } }
    }
}

/// Which role, flag or membership gives what, and what takes some away.
async fn rights(asked: &InOrg<'_>, reference: &str) -> Result<Markup, Refused> {
    let explained: Result<Explained, _> =
        asked.ask("session.explain", &Params::default().with("ref", reference)).await;
    let Ok(explained) = explained else {
        return Ok(html! { p class="hint" { "They are told of sessions that live." } });
    };
    Ok(html! {
        @for limit in &explained.limits { p class="notice" { (limit.text) } }
        @for source in &explained.sources {
            details class="part" {
                summary { bdi { (source.text) } " " span class="hint" { (number(source.perms.len() as u64)) " permissions" } }
                @let families = by_family(&source.perms);
                @if families.is_empty() { p class="hint" { "No single permissions." } }
                dl class="facts" {
                    @for (family, names) in &families {
                        div { dt { (family) } dd { @for name in names { (name) " " } } }
                    }
                }
            }
        }
        @if explained.more { p class="hint" { "And more." } }
    })
}

fn by_family(perms: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut families = BTreeMap::<&str, Vec<&str>>::new();
    for name in perms {
        let family = name.split('.').next().unwrap_or(name);
        families.entry(family).or_default().push(name);
    }
    families
}

async fn others(asked: &InOrg<'_>, found: &Found) -> Result<Markup, Refused> {
    let mut params = Params::default()
        .with("status", vec!["ALL"])
        .with("limit", OTHERS + 1)
        .with("hideFields", true);
    params.set_some("userName", found.user_name.as_deref());
    params.set_some("thingKey", found.thing_key.as_deref());
    let listed: Listed<SessionRow> = asked.ask("session.list", &params).await?;
    let others = listed.result.iter().filter(|row| row.reference != found.row.reference);
    let others: Vec<_> = others.take(OTHERS as usize).collect();
    Ok(html! {
        @if others.is_empty() { p class="hint" { "None that is live or remembered." } }
        @else { div class="scroll" { table {
            caption class="hidden" { "Other sessions of this login" }
            thead { tr {
                th scope="col" { "Since" } th scope="col" { "From" } th scope="col" { "Protocol" }
                th scope="col" { "Ended" } th scope="col" { "Why" }
            } }
            tbody { @for row in others { tr class=[row.end_time.is_some().then_some("over")] {
                td { a href=(asked.to(&format!("sessions/{}", segment(&row.reference)))) {
                    (clock(&row.start_time, asked.now))
                } }
                td { (row.conn_info.remote_addr) }
                td { (row.conn_info.protocol) }
                td { @if let Some(at) = &row.end_time { (clock(at, asked.now)) } @else { (badge("good", "live")) } }
                td { @if let Some(reason) = &row.end_reason { (reason.replace('_', " ")) } }
            } } }
        } } }
    })
}
