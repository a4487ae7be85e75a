//! The end of sessions: first what would end, then the end, then what became of each.

use base::limits;
use bytes::Bytes;
use hyper::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::Answer;
use super::asked::InOrg;
use super::form::{Fields, Params};
use super::layout::{self, Screen, csrf, facts, input, number, select};
use super::respond::Refused;
use super::sessions::{SessionRow, filters};
use super::time::{ago, clock};

/// The number of sessions from which on it has to be typed.
const TYPED_FROM: u64 = 11;

/// The number of chosen sessions up to which each is named afterwards: that is one more of the
/// commands that the session may send in a second.
const NAMED_MAX: usize = 30;

/// For how long somebody is kept out.
pub(super) const BANS: [(&str, &str); 6] = [
    ("", "not at all"),
    ("600", "10 minutes"),
    ("3600", "1 hour"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("always", "until it is lifted"),
];

/// What `session.end` says of many.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Ended {
    count: u64,
    closed: u64,
    already_gone: u64,
    refused: u64,
}

/// Whose a session is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Banned {
    thing_key: Option<String>,
    user_id: Option<String>,
}

/// Who has a session.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    who_am_i: String,
}

/// Who they are that were chosen, by what became of their sessions.
#[derive(Default)]
struct Names {
    ended: Vec<String>,
    already_gone: Vec<String>,
    refused: Vec<String>,
}

impl Names {
    fn add(&mut self, became: &Ended, who: String) {
        let of = match became {
            Ended { refused: 1, .. } => &mut self.refused,
            Ended { already_gone: 1, .. } => &mut self.already_gone,
            _ => &mut self.ended,
        };
        of.push(who);
    }
}

impl Ended {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.closed += other.closed;
        self.already_gone += other.already_gone;
        self.refused += other.refused;
    }
}

/// Asks whether the sessions that the address names are to end: by `ref`, or by filters.
pub(super) async fn confirmation(asked: &InOrg<'_>) -> Answer {
    let refs: Vec<&str> = asked.query.all("ref").collect();
    let body = match refs.as_slice() {
        [] => of_filter(asked).await?,
        [one] => of_one(asked, one).await?,
        several => of_several(asked, several),
    };
    Ok(layout::page(asked, Screen::Sessions, "End sessions", &body))
}

async fn of_one(asked: &InOrg<'_>, reference: &str) -> Result<Markup, Refused> {
    let params = Params::default().with("ref", reference);
    let session: SessionRow = asked.ask("session.find", &params).await?;
    let device = session.user_id.is_none();
    Ok(html! {
        h1 { "End this session?" }
        (facts(&[
            ("Who", Some(html! { bdi { (session.who_am_i) } })),
            ("Protocol", Some(html! { (session.conn_info.protocol) })),
            ("From", Some(html! { (session.conn_info.remote_addr) })),
            ("Since", Some(clock(&session.start_time, asked.now))),
            ("Last command", Some(ago(&session.last_accessed, asked.now))),
        ]))
        @if device { p { "Its connection closes. The device may come back at once, unless it is banned." } }
        @else { p { "Whoever has it has to log in again." } }
        form class="stack" method="post" action=(asked.to("sessions/end")) {
            (csrf(asked))
            input type="hidden" name="ref" value=(reference);
            @if asked.may(if device { "thing.update" } else { "user.update" }) {
                (select("ban", "And ban it for", None, &BANS))
                (input("reason", "Reason", None, "shown to operators"))
            }
            (buttons(asked, "End this session"))
        }
    })
}

fn of_several(asked: &InOrg<'_>, refs: &[&str]) -> Markup {
    let count = refs.len() as u64;
    html! {
        h1 { "End " (number(count)) " sessions?" }
        p { "Their connections close. Devices may come back at once." }
        form class="stack" method="post" action=(asked.to("sessions/end")) {
            (csrf(asked))
            @for reference in refs { input type="hidden" name="ref" value=(reference); }
            (typed(count))
            (buttons(asked, &format!("End {} sessions", number(count))))
        }
    }
}

async fn of_filter(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let params = many(&asked.query).with("dryRun", true);
    let found: Ended = asked.ask("session.end", &params).await?;
    let count = found.closed;
    Ok(html! {
        h1 { "End " (number(count)) @if count == 1 { " session?" } @else { " sessions?" } }
        p {
            "All live sessions that match now, but not your own. Their connections close; devices may \
             come back at once."
            @if found.refused > 0 { " " (number(found.refused)) " more are not yours to end." }
        }
        @if count == 0 { p { a class="button" href=(asked.to("sessions")) data-close { "Back to the list" } } }
        @else {
            form class="stack" method="post" action=(asked.to("sessions/end")) {
                (csrf(asked))
                @for (name, value) in asked.query.iter() {
                    @if name != "csrf" { input type="hidden" name=(name) value=(value); }
                }
                input type="hidden" name="expected" value=(count);
                (typed(count))
                (buttons(asked, &format!("End {}", number(count))))
            }
        }
    })
}

/// A field for the number, where that is more than a few.
fn typed(count: u64) -> Markup {
    html! { @if count >= TYPED_FROM {
        label {
            span { "Type " b { (count) } " to go on" }
            input name="typed" inputmode="numeric" autocomplete="off" required pattern=(count);
        }
    } }
}

fn buttons(asked: &InOrg<'_>, text: &str) -> Markup {
    html! {
        p class="buttons" {
            button type="submit" class="danger" { (text) }
            a class="button" href=(asked.to("sessions")) data-close { "Leave it" }
        }
    }
}

/// Filters as parameters of `session.end`; without one, all are meant. Only what lives can end: of
/// a list that shows ended ones as well, the others are meant.
fn many(fields: &Fields) -> Params {
    let fields = match fields.get("state") {
        Some("all") => fields.without("state"),
        _ => fields.clone(),
    };
    let params = filters(&fields);
    if params.is_empty() { params.with("all", true) } else { params }
}

/// Ends what the form names.
pub(super) async fn end(asked: &InOrg<'_>) -> Answer {
    let refs: Vec<&str> = asked.form.all("ref").collect();
    let expected = match refs.len() {
        0 => asked.form.number("expected").unwrap_or_default(),
        count => count as u64,
    };
    if refs.len() > limits::COMMANDS_PER_REQUEST {
        let words =
            format!("At most {} can be chosen.", number(limits::COMMANDS_PER_REQUEST as u64));
        return Ok(nothing(asked, &words));
    }
    if expected >= TYPED_FROM && asked.form.number("typed") != Some(expected) {
        return Ok(nothing(asked, &format!("The number that was typed is not {expected}.")));
    }
    if refs.is_empty() {
        let now: Ended = asked.ask("session.end", &many(&asked.form).with("dryRun", true)).await?;
        if now.closed > expected {
            let words = "sessions match now, more than you agreed to end. Look at the list again.";
            return Ok(nothing(asked, &format!("{} {words}", number(now.closed))));
        }
    }
    let (mut ended, mut names) = (Ended::default(), Names::default());
    let mut failures = Vec::new();
    let banned = match refs.as_slice() {
        [one] => ban(asked, one).await?,
        _ => false,
    };
    if banned {
        // That ends it.
        ended = Ended { count: 1, closed: 1, ..ended };
    } else if refs.is_empty() {
        ended = asked.ask("session.end", &many(&asked.form)).await?;
    }
    let are_named = refs.len() <= NAMED_MAX;
    for reference in refs.into_iter().filter(|_| !banned) {
        // Before it ends: few ended sessions may be kept.
        let who = if are_named { Some(who(asked, reference).await) } else { None };
        match end_one(asked, reference).await {
            Ok(one) => {
                who.into_iter().for_each(|who| names.add(&one, who));
                ended.add(&one);
            }
            Err(failure) => failures.push(failure),
        }
    }
    failures.dedup();
    let body = html! {
        h1 { "Ended " (number(ended.closed)) @if ended.closed == 1 { " session" } @else { " sessions" } }
        (facts(&[
            ("Ended", Some(became(ended.closed, &names.ended))),
            ("Already gone", Some(became(ended.already_gone, &names.already_gone))),
            ("Refused", Some(became(ended.refused, &names.refused))),
        ]))
        @for failure in failures { p class="notice bad" role="alert" { bdi { (failure) } } }
        p { a class="button" href=(asked.to("sessions")) data-close { "Back to the list" } }
    };
    Ok(layout::page(asked, Screen::Sessions, "Ended", &body))
}

/// Who has a session, or had it; one that nobody knows by its reference.
async fn who(asked: &InOrg<'_>, reference: &str) -> String {
    let params = Params::default().with("ref", reference).with("ended", true);
    let found = asked.ask("session.find", &params).await;
    found.map_or_else(|_| reference.to_owned(), |named: Named| named.who_am_i)
}

/// How many they are, and who they are if that is known.
fn became(count: u64, who: &[String]) -> Markup {
    html! {
        (number(count))
        @if !who.is_empty() { ": " }
        @for (index, who) in who.iter().enumerate() { @if index > 0 { ", " } bdi { (who) } }
    }
}

fn nothing(asked: &InOrg<'_>, why: &str) -> Response<Bytes> {
    let body = html! {
        h1 { "Nothing was ended" }
        p role="alert" { (why) }
        p { a class="button" href=(asked.to("sessions")) data-close { "Back to the list" } }
    };
    layout::page(asked, Screen::Sessions, "Nothing was ended", &body)
}

/// A ban, as the fields `ban` and `reason` of a form say.
pub(super) fn ban_params(asked: &InOrg<'_>) -> Params {
    let mut params = Params::default().with("disabled", true);
    params.set_some("reason", asked.form.get("reason"));
    if let Some(seconds) = asked.form.get("ban").and_then(|lasts| lasts.parse().ok()) {
        params.set("disabledUntil", asked.now.plus_seconds(seconds).to_string());
    }
    params
}

/// Bans whoever has the session, if the form says so: first, so that nobody comes back in between.
async fn ban(asked: &InOrg<'_>, reference: &str) -> Result<bool, Refused> {
    if asked.form.get("ban").is_none() {
        return Ok(false);
    }
    let session: Banned =
        asked.ask("session.find", &Params::default().with("ref", reference)).await?;
    let mut params = ban_params(asked);
    let command = match (&session.thing_key, &session.user_id) {
        (Some(key), _) => {
            params.set("key", key.as_str());
            "thing.update"
        }
        (None, user) => {
            params.set_some("id", user.as_deref());
            "user.update"
        }
    };
    asked.ask::<serde::de::IgnoredAny>(command, &params).await?;
    Ok(true)
}

/// Ends one. Who asks is not among those: the page says how to log out.
async fn end_one(asked: &InOrg<'_>, reference: &str) -> Result<Ended, String> {
    if reference == asked.own_reference() {
        return Ok(Ended { count: 1, refused: 1, ..Ended::default() });
    }
    let params = Params::default().with("ref", reference);
    let done = asked.ask::<serde::de::IgnoredAny>("session.end", &params).await;
    match done {
        Ok(_) => Ok(Ended { count: 1, closed: 1, ..Ended::default() }),
        Err(failure) if failure.code == base::Code::NOT_FOUND => {
            Ok(Ended { count: 1, already_gone: 1, ..Ended::default() })
        }
        Err(failure) if failure.code == base::Code::PERMISSION_DENIED => {
            Ok(Ended { count: 1, refused: 1, ..Ended::default() })
        }
        Err(failure) => Err(failure.message.into_owned()),
    }
}
