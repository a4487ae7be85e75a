//! How the organisation is, and for those who may see it, the server: from the second ring.

use std::collections::BTreeMap;

use base::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::asked::InOrg;
use super::chart::{self, Point};
use super::form::Params;
use super::layout::{self, Screen, badge, facts, number};
use super::parts::Parts;
use super::respond::{Refused, see};
use super::time::{ago, clock, exact};
use super::{Answer, logins};

mod minutes;
mod strip;

pub(super) use strip::{STRIP, strip, strip_parts};

/// Seconds of the ring that are shown.
const SECONDS: u64 = 900;

/// Lines of a table of causes.
const LINES: usize = 10;

#[derive(Deserialize)]
struct Groups {
    result: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    count: u64,
    protocol: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct History {
    connected: Vec<u64>,
    ts: Vec<String>,
}

#[derive(Deserialize)]
struct Refusals {
    result: Vec<RefusedLogin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefusedLogin {
    cause: String,
    count: u64,
    last: String,
    name: Option<String>,
    remote_addr: Option<String>,
}

#[derive(Deserialize)]
struct Series {
    ts: Vec<String>,
    series: BTreeMap<String, Vec<Option<f64>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: String,
    pools: Vec<PoolUse>,
    store: StoreStatus,
    certificates: Vec<Certificate>,
    mails: u64,
    refused_connections: BTreeMap<String, u64>,
    refused_logins: BTreeMap<String, u64>,
    failed_commands: BTreeMap<String, u64>,
    session_ends: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct PoolUse {
    name: String,
    unit: String,
    used: u64,
    limit: u64,
    refused: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoreStatus {
    problem: Option<String>,
    free_bytes: u64,
    min_free_bytes: u64,
    queue: u64,
    bytes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    key: String,
    not_after: String,
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    if !may(asked) {
        return Ok(see(&layout::first(asked)));
    }
    let body = html! {
        h1 { "Overview " span class="badge" data-live {} }
        div data-view=[Parts::view(&asked.to(""))] { (parts(asked).await?.all()) }
    };
    Ok(layout::page(asked, Screen::Overview, "Overview", &body))
}

/// Whether there is something to see.
fn may(asked: &InOrg<'_>) -> bool {
    let parts = ["session.list", "usage.connection.history", "login.failures", "stats.series"];
    parts.iter().any(|permission| asked.may(permission))
}

/// All of it, which is live.
pub(super) async fn parts(asked: &InOrg<'_>) -> Result<Parts, Refused> {
    if !may(asked) {
        return Err(Refused::NotFound);
    }
    let mut parts = Parts::default();
    if asked.may("session.list") {
        parts.add("sessions", sessions(asked).await?);
        parts.add("minutes", minutes::of_org(asked).await?);
    }
    if asked.may("usage.connection.history") {
        parts.add("history", history(asked).await?);
    }
    if asked.may("login.failures") {
        parts.add("refusals", refusals(asked).await?);
    }
    server(asked, &mut parts).await;
    Ok(parts)
}

async fn sessions(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let by_protocol = Params::default().with("groupBy", "protocol");
    let live: Groups = asked.ask("session.list", &by_protocol).await?;
    let since = asked.this_moment().as_millis() - 3_600_000;
    let by_reason = Params::default()
        .with("groupBy", "reason")
        .with("endedAfter", Timestamp::from_millis(since).to_string());
    let ended: Groups = asked.ask("session.list", &by_reason).await?;
    let total: u64 = live.result.iter().map(|group| group.count).sum();
    let link = |query: &str| asked.to(&format!("sessions?{query}"));
    Ok(html! {
        h2 { a href=(asked.to("sessions")) { (number(total)) @if total == 1 { " session" } @else { " sessions" } } }
        p class="counts" {
            @for group in &live.result { @if let Some(protocol) = &group.protocol {
                a data-id=(protocol) href=(link(&format!("protocol={protocol}"))) { (protocol) " " (number(group.count)) } " "
            } }
        }
        h3 { "Ended in the last hour" }
        @if ended.result.is_empty() { p class="hint" { "None." } }
        p class="counts" {
            @for group in &ended.result { @if let Some(reason) = &group.reason {
                a data-id=(reason) href=(link(&format!("state=ended&endReason={reason}"))) {
                    (reason.replace('_', " ")) " " (number(group.count))
                } " "
            } }
        }
    })
}

async fn history(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let history: History = asked.ask("usage.connection.history", &Params::default()).await?;
    let points: Vec<Point> = history.ts.iter().zip(&history.connected).filter_map(point).collect();
    Ok(html! {
        h2 { "Connected in each hour" }
        (chart::bars("Sessions that were connected in each of the last 24 hours", &points))
    })
}

fn point((ts, value): (&String, &u64)) -> Option<Point> {
    Some(Point { at_ms: Timestamp::parse(ts)?.as_millis(), value: *value as f64 })
}

async fn refusals(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let params = Params::default().with("limit", LINES).with("last", "24h");
    let refused: Refusals = asked.ask("login.failures", &params).await?;
    Ok(html! {
        h2 { "Logins refused in the last day" }
        @if refused.result.is_empty() { p class="hint" { "None." } }
        @else { (logins::by_cause(asked).await?) div class="scroll" tabindex="0" role="group" aria-label="Logins refused in the last day" { table {
            caption class="hidden" { "Logins refused in the last day" }
            thead { tr {
                th scope="col" { "Last" } th scope="col" { "Who" } th scope="col" { "From" }
                th scope="col" { "Cause" } th scope="col" { "Times" }
            } }
            tbody { @for login in &refused.result { tr {
                td { (ago(&login.last, asked.now)) }
                td { @if let Some(name) = &login.name { bdi { (name) } } }
                td { @if let Some(from) = &login.remote_addr { (from) } }
                td { (login.cause.replace('_', " ")) }
                td { (number(login.count)) }
            } } }
        } } }
        p { a href=(asked.to("logins")) { "Login failures by address" span aria-hidden="true" { " ▸" } } }
    })
}

/// What is of the whole server: for those who may see it.
async fn server(asked: &InOrg<'_>, parts: &mut Parts) {
    // Asked for again and again, a refusal would fill the log.
    if !asked.sees_server() {
        return;
    }
    let params = Params::default().with("seconds", SECONDS);
    let series: Result<Series, _> = asked.ask("stats.series", &params).await;
    let Ok(series) = series else { return };
    parts.add("figures", html! { h2 { "Server" } (figures(&series)) });
    parts.add("course", course(&series));
    parts.add("ends", minutes::of_server(&series.series));
    if let Some(status) = status(asked).await {
        parts.add("state", state(asked, &status));
        parts.add("limits", limits(&status));
        parts.add("counts", counts(&status));
    }
}

/// How the server is, for who may know.
async fn status(asked: &InOrg<'_>) -> Option<Status> {
    if !asked.may("server.status") {
        return None;
    }
    asked.ask("server.status", &Params::default()).await.ok()
}

fn figures(series: &Series) -> Markup {
    const SHOWN: [(&str, &str, &str); 8] = [
        ("commands", "Commands", "/s"),
        ("commandP50Ms", "Half of the commands take at most", " ms"),
        ("commandP99Ms", "99 of 100 commands take at most", " ms"),
        ("failures", "Failed commands", "/s"),
        ("starts", "Sessions that start", "/s"),
        ("ends", "Sessions that end", "/s"),
        ("refusedLogins", "Refused logins", "/s"),
        ("memoryBytes", "Memory", ""),
    ];
    let one = |name: &str| series.series.get(name);
    let last = |values: &[Option<f64>]| values.iter().rev().flatten().next().copied();
    html! {
        dl class="facts" {
            @for (name, title, unit) in SHOWN { @if let Some(values) = one(name) { div {
                dt { (title) }
                dd {
                    @match last(values) {
                        Some(value) if unit.is_empty() => { (bytes(value as u64)) " " }
                        Some(value) => { (chart::rough(value)) (unit) " " }
                        None => { "none yet " }
                    }
                    (chart::sparkline(title, values))
                }
            } } }
        }
    }
}

fn course(series: &Series) -> Markup {
    html! {
        @if let Some(values) = series.series.get("commands") {
            @let points: Vec<Point> = series.ts.iter().zip(values).filter_map(|(ts, value)| {
                Some(Point { at_ms: Timestamp::parse(ts)?.as_millis(), value: (*value)? })
            }).collect();
            h3 { "Commands a second" }
            (chart::line("Commands a second in the last quarter of an hour", &points))
        }
    }
}

fn state(asked: &InOrg<'_>, status: &Status) -> Markup {
    let stored: u64 = status.store.bytes.values().sum();
    html! {
        (facts(&[
            ("Version", Some(html! { (status.version) })),
            ("Store", Some(html! {
                @match &status.store.problem {
                    Some(problem) => { (badge("bad", "in trouble")) " " (problem) }
                    None => { (badge("good", "good")) }
                }
            })),
            ("Stored", Some(html! { (bytes(stored)) })),
            ("Free on the disk", Some(html! {
                (bytes(status.store.free_bytes)) ", at least " (bytes(status.store.min_free_bytes))
            })),
            ("Waiting for the store", Some(html! { (number(status.store.queue)) })),
            ("Mails that wait", Some(html! { (number(status.mails)) })),
        ]))
        @for certificate in &status.certificates {
            p { "Certificate " code { (certificate.key) } " ends " (exact(&certificate.not_after)) (near(asked, certificate)) }
        }
    }
}

fn limits(status: &Status) -> Markup {
    let used = |pool: &&PoolUse| pool.limit > 0 && (pool.used > 0 || pool.refused > 0);
    let mut pools: Vec<&PoolUse> = status.pools.iter().filter(used).collect();
    let unused = status.pools.iter().filter(|pool| !used(pool));
    let unused: Vec<String> = unused.map(|pool| pool.name.replace('_', " ")).collect();
    let part = |pool: &PoolUse| pool.used as f64 / pool.limit as f64;
    pools.sort_by(|a, b| part(b).total_cmp(&part(a)));
    html! {
        h3 { "Limits" }
        div class="scroll" tabindex="0" role="group" aria-label="Limits and what is used of them" { table class="figures" {
            caption class="hidden" { "Limits and what is used of them" }
            thead { tr {
                th scope="col" { "Limit" } th scope="col" { "Used" } th scope="col" { "Of" }
                th scope="col" { "Part" } th scope="col" { "Refused" }
            } }
            tbody { @for pool in pools { tr data-id=(pool.name) {
                th scope="row" { (pool.name.replace('_', " ")) }
                td { (number(pool.used)) }
                td { (number(pool.limit)) " " (pool.unit) }
                td { meter min="0" max="1" high="0.9" value=(format!("{:.4}", part(pool))) { } " "
                    (format!("{:.1} %", part(pool) * 100.0)) }
                td { (number(pool.refused)) }
            } } }
        } }
        p class="hint" { "Nothing is used of: " (unused.join(", ")) "." }
    }
}

fn counts(status: &Status) -> Markup {
    html! {
        h3 { "Since the start" }
        (facts(&[
            ("Sessions that ended", counted(&status.session_ends)),
            ("Refused logins", counted(&status.refused_logins)),
            ("Refused connections", counted(&status.refused_connections)),
            ("Failed commands", counted(&status.failed_commands)),
        ]))
    }
}

/// The greatest counts, with what they are of.
fn counted(counts: &BTreeMap<String, u64>) -> Option<Markup> {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by(|a, b| b.1.cmp(a.1));
    Some(html! {
        @if counts.is_empty() { "none" }
        @for (index, (of, count)) in counts.into_iter().take(LINES).enumerate() {
            @if index > 0 { ", " }
            (of.replace('_', " ")) " " (number(*count))
        }
    })
}

fn near(asked: &InOrg<'_>, certificate: &Certificate) -> Markup {
    const SOON_MS: i64 = 30 * 86_400_000;
    let end = Timestamp::parse(&certificate.not_after);
    let is_near = end.is_some_and(|end| end.as_millis() - asked.now.as_millis() < SOON_MS);
    html! { @if is_near { " " (badge("warn", "soon")) " " (clock(&certificate.not_after, asked.now)) } }
}

/// Bytes in the unit that fits.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut shown = value as f64;
    let mut unit = 0;
    while shown >= 1000.0 && unit + 1 < UNITS.len() {
        shown /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || shown >= 100.0 { 0 } else { 1 };
    format!("{shown:.decimals$} {}", UNITS[unit])
}
