//! One's own sessions, and their end.

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::Answer;
use super::super::asked::{InOrg, segment};
use super::super::change::{self, back, confirm, hidden};
use super::super::form::Params;
use super::super::layout::{self, Screen, badge, facts, number};
use super::super::live::OWN;
use super::super::login;
use super::super::respond::Refused;
use super::super::sessions::{ConnInfoRow, Listed};
use super::super::time::{ago, clock};
use super::super::user_agent;
use super::super::window::{Column, PAGE, Row, Window};
use super::is_user;

/// Ended sessions that the page shows.
const ENDED_SHOWN: u64 = 10;

const COLUMNS: &[Column] = &[
    Column::new("with", "With"),
    Column::new("protocol", "Protocol"),
    Column::new("from", "From"),
    Column::new("since", "Since"),
    Column::new("idle", "Last command"),
    Column::new("org", "Organisation"),
    Column::new("act", ""),
];

/// An own session, as `session.mine` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnSession {
    #[serde(rename = "ref")]
    reference: String,
    org_key: String,
    conn_info: ConnInfoRow,
    start_time: String,
    last_accessed: String,
    user_agent: Option<String>,
    client_id: Option<String>,
    token_name: Option<String>,
    #[serde(default)]
    current: bool,
    end_reason: Option<String>,
    end_time: Option<String>,
}

impl OwnSession {
    /// With what it was begun.
    fn with(&self) -> Markup {
        let client = self.client_id.as_deref().filter(|id| !id.is_empty());
        html! {
            @match (&self.user_agent, client) {
                (Some(agent), _) => bdi title=(agent) { (user_agent::named(agent)) },
                (None, Some(client)) => bdi { (client) },
                (None, None) => "a program",
            }
            @if let Some(token) = &self.token_name { " by the token " bdi { (token) } }
            @if self.current { " " (badge("good", "this one")) }
        }
    }

    fn cells(&self, asked: &InOrg<'_>) -> Vec<Markup> {
        let end = format!("/me/end?ref={}", segment(&self.reference));
        vec![
            self.with(),
            html! { (self.conn_info.protocol) },
            html! { (self.conn_info.remote_addr) },
            clock(&self.start_time, asked.now),
            ago(&self.last_accessed, asked.now),
            html! { bdi { (self.org_key) } },
            html! { @if !self.current { a class="button small" href=(end) data-dialog {
                "End" span class="hidden" { " the session from " (self.conn_info.remote_addr) }
            } } },
        ]
    }
}

/// The part of the list that an address asks for.
pub(in super::super) async fn window(asked: &InOrg<'_>) -> Result<Window, Refused> {
    let offset = asked.query.number("offset").unwrap_or(0);
    let params = Params::default().with("offset", offset).with("limit", PAGE);
    let mine: Listed<OwnSession> = asked.ask("session.mine", &params).await?;
    let row = |session: OwnSession| Row {
        cells: session.cells(asked),
        id: session.reference,
        is_over: false,
        choice: None,
    };
    Ok(Window {
        caption: "My sessions",
        nouns: ["session", "sessions"],
        columns: COLUMNS.into(),
        has_choice: false,
        total: mine.count.unwrap_or_default(),
        is_at_least: false,
        rows: mine.result.into_iter().map(row).collect(),
        offset,
        limit: PAGE,
        sort: String::new(),
    })
}

/// The part of the page.
pub(super) async fn section(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    if !asked.may("session.mine") {
        return Ok(html! {});
    }
    let window = window(asked).await?;
    let view = format!("{OWN}?{}", asked.query.query_with(&[("done", "")]));
    Ok(html! {
        (layout::fresh())
        (window.table(asked, Some(&view)))
        (window.foot(asked))
        @if window.total > 1 {
            p class="buttons" {
                a class="button" href="/me/end?others=1" data-dialog { "End all others…" }
            }
        }
        (ended(asked).await?)
    })
}

/// Those that ended lately, for who may see them.
async fn ended(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    if !is_user(asked) || !asked.may("session.list") {
        return Ok(html! {});
    }
    let params = Params::default()
        .with("userName", asked.asker.session().who().name())
        .with("status", vec!["ENDED"])
        .with("sort", "-endTime")
        .with("limit", ENDED_SHOWN);
    let listed: Listed<OwnSession> = asked.ask("session.list", &params).await?;
    Ok(html! { @if !listed.result.is_empty() {
        h2 { "Ended lately in " bdi { (asked.org.name) } }
        div class="scroll" tabindex="0" role="group" aria-label="My sessions that ended" { table {
            caption class="hidden" { "My sessions that ended" }
            thead { tr {
                th scope="col" { "With" } th scope="col" { "Protocol" } th scope="col" { "From" }
                th scope="col" { "Since" } th scope="col" { "Ended" }
            } }
            tbody { @for session in &listed.result { tr class="over" {
                td { (session.with()) }
                td { (session.conn_info.protocol) }
                td { (session.conn_info.remote_addr) }
                td { (clock(&session.start_time, asked.now)) }
                td {
                    @if let Some(reason) = &session.end_reason {
                        (badge("bad", &reason.replace('_', " "))) " "
                    }
                    @if let Some(at) = &session.end_time { (clock(at, asked.now)) }
                }
            } } }
        } }
    } })
}

/// Asks whether a session, or all others, are to end.
pub(super) async fn confirmation(asked: &InOrg<'_>) -> Answer {
    let body = match asked.query.get("ref") {
        Some(reference) => of_one(asked, reference).await?,
        None => of_others(asked).await?,
    };
    Ok(layout::page(asked, Screen::Own, "End sessions", &body))
}

async fn of_one(asked: &InOrg<'_>, reference: &str) -> Result<Markup, Refused> {
    let mine: Vec<OwnSession> = match asked.may("session.mine") {
        true => asked.ask::<Listed<_>>("session.mine", &Params::default()).await?.result,
        false => Vec::new(),
    };
    let found = mine.iter().find(|session| session.reference == reference);
    Ok(html! {
        h1 { "End this session?" }
        @if let Some(session) = found {
            (facts(&[
                ("With", Some(session.with())),
                ("Protocol", Some(html! { (session.conn_info.protocol) })),
                ("From", Some(html! { (session.conn_info.remote_addr) })),
                ("Since", Some(clock(&session.start_time, asked.now))),
                ("Last command", Some(ago(&session.last_accessed, asked.now))),
            ]))
        }
        p { "Whoever has it has to log in again. If it is not yours, change your password, too." }
        (confirm(asked, "/me/end", &hidden("ref", reference), "End this session", "/me"))
    })
}

/// What `session.end` says of many.
#[derive(Deserialize)]
struct Many {
    closed: u64,
}

async fn of_others(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let params = Params::default().with("others", true).with("dryRun", true);
    let many: Many = asked.ask("session.end", &params).await?;
    let count = number(many.closed);
    let noun = if many.closed == 1 { "session" } else { "sessions" };
    let button = format!("End {count} {noun}");
    Ok(html! {
        @if many.closed == 0 {
            h1 { "There is no other session" }
            (back("/me"))
        } @else {
            h1 { "End your " (count) " other " (noun) "?" }
            p { "Wherever they are, in whatever organisation. This one stays." }
            (confirm(asked, "/me/end", &hidden("others", "1"), &button, "/me"))
        }
    })
}

/// Ends what the form names.
pub(super) async fn end(asked: &InOrg<'_>) -> Answer {
    let own = asked.asker.session().reference().to_string();
    let (params, done) = match (asked.form.get("ref"), asked.form.get("others")) {
        (Some(reference), _) if reference == own => return login::log_out(asked).await,
        (Some(reference), _) => (Params::default().with("ref", reference), "ended"),
        (None, Some(_)) => (Params::default().with("others", true), "others"),
        (None, None) => return Err(Refused::NotFound),
    };
    match asked.ask::<IgnoredAny>("session.end", &params).await {
        Ok(_) => Ok(change::saved("/me", done)),
        Err(failure) => change::refused(asked, Screen::Own, failure, &back("/me")),
    }
}
