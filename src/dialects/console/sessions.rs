//! The list of sessions, live and ended.

use maud::{Markup, html};
use serde::Deserialize;

use super::asked::InOrg;
use super::form::{Fields, Params};
use super::layout::{self, Screen, input, number, select};
use super::respond::Refused;
use super::window::{PAGE, Row, Window};
use super::{Answer, overview, views};

mod columns;

use columns::Chosen;

/// The filters, which are those of `session.list` and `session.end`, in their words.
pub(super) const FILTERS: [&str; 21] = [
    "kind",
    "userName",
    "thingKey",
    "appName",
    "protocol",
    "remoteAddr",
    "startedAfter",
    "startedBefore",
    "whoAmI",
    "prefix",
    "query",
    "appId",
    "defKey",
    "tags",
    "connected",
    "lastSeenAfter",
    "lastSeenBefore",
    "idleLongerThan",
    "endedAfter",
    "endedBefore",
    "endReason",
];

/// Filters that are times.
const TIMES: [&str; 7] = [
    "startedAfter",
    "startedBefore",
    "lastSeenAfter",
    "lastSeenBefore",
    "endedAfter",
    "endedBefore",
    "asOf",
];

/// The members of a session that every row needs.
const SHOW: [&str; 11] = [
    "ref",
    "whoAmI",
    "userId",
    "connInfo",
    "startTime",
    "lastAccessed",
    "commandCount",
    "status",
    "endReason",
    "endTime",
    "startsLastHour",
];

/// Sessions that a login starts in an hour, from which on that is worth a word.
const MANY_STARTS: u64 = 3;

/// Protocols, to choose from.
pub(super) const PROTOCOLS: [(&str, &str); 9] = [
    ("", "any"),
    ("mqtt", "mqtt"),
    ("mqtts", "mqtts"),
    ("ws", "ws"),
    ("wss", "wss"),
    ("tcp", "tcp"),
    ("tcps", "tcps"),
    ("http", "http"),
    ("https", "https"),
];

/// Why sessions end, to choose from.
pub(super) const END_REASONS: [(&str, &str); 12] = [
    ("", "any"),
    ("logged_out", "logged out"),
    ("connection_lost", "connection lost"),
    ("keep_alive", "keep-alive"),
    ("replaced", "replaced"),
    ("idle", "idle"),
    ("max_age", "age"),
    ("revoked", "revoked"),
    ("protocol_error", "protocol error"),
    ("server_stopped", "server stopped"),
    ("made_way", "made way"),
    ("banned", "banned"),
];

/// A session, as `session.list` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionRow {
    #[serde(rename = "ref")]
    pub(super) reference: String,
    pub(super) who_am_i: String,
    pub(super) user_id: Option<String>,
    pub(super) conn_info: ConnInfoRow,
    pub(super) start_time: String,
    pub(super) last_accessed: String,
    pub(super) command_count: u64,
    pub(super) end_reason: Option<String>,
    pub(super) end_time: Option<String>,
    pub(super) starts_last_hour: Option<u64>,
    pub(super) org_key: Option<String>,
    pub(super) app_name: Option<String>,
    pub(super) token_name: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) mqtt_version: Option<String>,
    pub(super) keep_alive: Option<u64>,
    pub(super) tls_version: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) last_seen: Option<String>,
    pub(super) ttl: Option<u64>,
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
    pub(super) messages_in: Option<u64>,
    pub(super) messages_out: Option<u64>,
    pub(super) outbox: Option<u64>,
    pub(super) outbox_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnInfoRow {
    pub(super) protocol: String,
    pub(super) remote_addr: String,
}

/// A list, as commands give it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<T> {
    pub(super) count: Option<u64>,
    pub(super) count_at_least: Option<u64>,
    pub(super) result: Vec<T>,
}

/// The filters of an address as parameters of a command.
pub(super) fn filters(fields: &Fields) -> Params {
    let mut params = fields.params(&FILTERS);
    for name in TIMES {
        params.set_some(name, fields.get(name).map(as_time));
    }
    let reasons: Vec<&str> = fields.all("endReason").collect();
    params.set_some("endReason", (!reasons.is_empty()).then_some(reasons));
    let tags: Vec<&str> = fields.all("tags").collect();
    params.set_some("tags", (!tags.is_empty()).then_some(tags));
    let status = match fields.get("state") {
        Some("ended") => Some("ENDED"),
        Some("all") => Some("ALL"),
        _ => None,
    };
    params.set_some("status", status.map(|status| vec![status]));
    params
}

/// The query of an address as links have it, if this one is otherwise: what a form without script adds
/// to it, fields that are empty and one for each column, is nothing to keep or to hand on.
pub(super) fn in_order(fields: &Fields) -> Option<String> {
    let named = Chosen::of(fields).named();
    let mut given = fields.all(columns::FIELD);
    let is_so = given.next().unwrap_or_default() == named && given.next().is_none();
    (!is_so || fields.has_empty()).then(|| fields.query_with(&[(columns::FIELD, &named)]))
}

/// A time as browsers write it in a field, without a zone: UTC is meant.
pub(super) fn as_time(text: &str) -> String {
    match text.len() {
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

/// The part of the list that an address asks for.
pub(super) async fn window(asked: &InOrg<'_>, query: &Fields) -> Result<Window, Refused> {
    let sort = query.get("sort").unwrap_or("-startTime").to_owned();
    let offset = query.number("offset").unwrap_or(0);
    let chosen = Chosen::of(query);
    let show: Vec<&str> = SHOW.into_iter().chain(chosen.members()).collect();
    let params = filters(query)
        .with("show", show)
        .with("hideFields", true)
        .with("sort", sort.as_str())
        .with("offset", offset)
        .with("limit", PAGE);
    let listed: Listed<SessionRow> = asked.ask("session.list", &params).await?;
    let can_end = asked.may_end_sessions();
    let row = |session: SessionRow| {
        let is_over = session.end_time.is_some();
        Row {
            cells: chosen.cells(asked, &session),
            choice: (can_end && !is_over).then_some(session.who_am_i),
            id: session.reference,
            is_over,
        }
    };
    Ok(Window {
        caption: "Sessions",
        nouns: ["session", "sessions"],
        columns: chosen.columns().into(),
        has_choice: can_end,
        total: listed.count.or(listed.count_at_least).unwrap_or_default(),
        is_at_least: listed.count.is_none(),
        rows: listed.result.into_iter().map(row).collect(),
        offset,
        limit: PAGE,
        sort,
    })
}

/// Marks one's own session, which does not end by a list.
fn mark_own(window: &mut Window, own: &str) {
    let Some(row) = window.rows.iter_mut().find(|row| row.id == own) else { return };
    row.choice = None;
    for (column, cell) in window.columns.iter().zip(&mut row.cells) {
        if let Some(own) = column.own {
            *cell = own(cell);
        }
    }
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>) -> Answer {
    let mut window = window(asked, &asked.query).await?;
    mark_own(&mut window, &asked.own_reference());
    let view = format!("{}?{}", asked.path, asked.query.query_with(&[]));
    let is_as_of = asked.query.get("asOf").is_some();
    let filter = asked.query.query_with(&[("offset", ""), ("sort", ""), (columns::FIELD, "")]);
    let many = asked.to(&format!("sessions/end?{}", filter));
    let others = [("offset", ""), ("sort", ""), ("state", ""), (columns::FIELD, "")];
    let is_first = asked.query.query_with(&others).is_empty() && window.offset == 0;
    let body = html! {
        h1 { "Sessions" @if !is_as_of { " " span class="badge" data-live {} } }
        // What is beside the list is no reason to have none.
        @if is_first { (overview::strip(asked).await.unwrap_or_default()) }
        (filter_form(asked, !is_as_of))
        (views::list(asked).await?)
        @if let Some(at) = asked.query.get("asOf") {
            p class="notice" { "As it was at " (at) " UTC. " a href=(asked.to("sessions")) { "Back to now" } }
        }
        (layout::fresh())
        @if let Some(way) = window.way_back(asked) { (way) }
        @else if window.rows.is_empty() {
            (layout::empty("No sessions", &html! {
                "Nobody is connected who fits. "
                @if !filters(&asked.query).is_empty() { a href=(asked.to("sessions")) { "Show all that are live" } }
                @else { "A device appears here as soon as it logs in." }
            }))
        }
        (window.table(asked, (!is_as_of).then_some(view.as_str())))
        (window.foot(asked))
        @if asked.may_end_sessions() && !is_as_of && asked.query.get("state") != Some("ended") {
            form id="chosen" class="many" action=(asked.to("sessions/end")) {
                button type="submit" { "End those chosen…" }
                a class="button" href=(many) data-dialog { (how_many(asked, &window).await?) " that match…" }
            }
        }
    };
    Ok(layout::page(asked, Screen::Sessions, "Sessions", &body))
}

/// What the way to the end of all says. Of a list with ended ones nobody has counted those that live;
/// else the number is that of `session.end`, which leaves out one's own session.
async fn how_many(asked: &InOrg<'_>, window: &Window) -> Result<Markup, Refused> {
    if asked.query.get("state").is_some() || window.is_at_least {
        return Ok(html! { "End all live ones" });
    }
    let own = u64::from(has_own(asked, window).await?);
    Ok(html! { "End all " span data-own=(own) { (number(window.total.saturating_sub(own))) } })
}

/// Whether one's own session is among all that match. That is seldom asked for: mostly the rows that
/// are shown, or the organisation, say so.
async fn has_own(asked: &InOrg<'_>, window: &Window) -> Result<bool, Refused> {
    let own = asked.own_reference();
    if window.row(&own).is_some() {
        return Ok(true);
    }
    let session = asked.asker.session();
    if window.offset == 0 && window.total <= window.rows.len() as u64
        || session.org_id() != asked.org.id
    {
        return Ok(false);
    }
    let mut params = filters(&asked.query).with("show", vec!["ref"]).with("hideFields", true);
    if asked.query.get("userName").is_none() {
        params.set("userName", session.who().name());
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "ref")]
        reference: String,
    }
    let listed: Listed<Named> = asked.ask("session.list", &params).await?;
    Ok(listed.result.iter().any(|named| named.reference == own))
}

fn filter_form(asked: &InOrg<'_>, is_live: bool) -> Markup {
    let query = &asked.query;
    let more = ["remoteAddr", "startedAfter", "endReason", "asOf", "defKey", "appName"];
    let is_open = more.iter().any(|name| query.get(name).is_some());
    html! {
        form class="filter" action=(asked.path) {
            (input("query", "Who, application or address", query.get("query"), "words"))
            (select("state", "State", query.get("state"),
                &[("", "live"), ("ended", "ended"), ("all", "all")]))
            (select("kind", "Kind", query.get("kind"),
                &[("", "any"), ("user", "user"), ("application", "application")]))
            (select("protocol", "Protocol", query.get("protocol"), &PROTOCOLS))
            details open[is_open] {
                summary { "More" }
                div {
                    (input("remoteAddr", "Address begins with", query.get("remoteAddr"), "10.2."))
                    (input("appName", "Application", query.get("appName"), ""))
                    (input("defKey", "Definition of the thing", query.get("defKey"), ""))
                    label { "Started after, UTC"
                        input type="datetime-local" name="startedAfter" value=[query.get("startedAfter")]; }
                    label { "Who was connected at, UTC"
                        input type="datetime-local" name="asOf" value=[query.get("asOf")]; }
                    (select("endReason", "Ended by", query.get("endReason"), &END_REASONS))
                }
            }
            (Chosen::of(query).boxes())
            @if let Some(sort) = query.get("sort") { input type="hidden" name="sort" value=(sort); }
            button type="submit" { "Show" }
            @if is_live { button type="button" data-pause aria-pressed="false" hidden { "Pause" } }
        }
    }
}
