//! The trace of a thing: what it and the server say to each other.

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::acts::need;
use super::{back, long, see, table};
use crate::dialects::console::Answer;
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::{self, Screen, badge, csrf, number, select};
use crate::dialects::console::things::path_of;
use crate::dialects::console::time::clock;
use base::Code;

/// Frames of a page.
const FRAMES: u64 = 500;

/// For how long a trace goes on, in seconds.
const TIMES: [(&str, &str); 4] =
    [("60", "a minute"), ("300", "5 minutes"), ("900", "15 minutes"), ("3600", "an hour")];

/// A trace, as `thing.trace` shows it.
#[derive(Deserialize)]
struct Trace {
    tracing: bool,
    until: Option<String>,
    by: Option<String>,
    ended: Option<String>,
    reason: Option<String>,
    bytes: u64,
    #[serde(default)]
    result: Vec<Frame>,
    last: Option<u64>,
    more: Option<bool>,
}

#[derive(Deserialize)]
struct Frame {
    number: u64,
    ts: String,
    direction: String,
    door: String,
    packet: String,
    topic: Option<String>,
    payload: Option<String>,
    frame: String,
    encoding: String,
    redacted: bool,
}

/// The screen.
pub(super) async fn page(asked: &InOrg<'_>, key: &str) -> Answer {
    need(asked, "thing.trace")?;
    let after = asked.query.number("after").unwrap_or(0);
    let params = Params::default()
        .with("key", key)
        .with("read", true)
        .with("after", after)
        .with("limit", FRAMES);
    let trace = match asked.ask::<Trace>("thing.trace", &params).await {
        Ok(trace) => Some(trace),
        Err(failure) if failure.code == Code::NOT_FOUND => None,
        Err(failure) => return Err(failure.into()),
    };
    let body = html! {
        h1 { "Trace of " bdi { (key) } }
        p {
            "Frames of this thing, both directions, over whatever door it comes, without passwords, \
             tokens and ids of sessions. They are in memory until an hour after the trace has ended."
        }
        (form(asked, key, trace.as_ref().is_some_and(|trace| trace.tracing)))
        @match &trace {
            None => { (layout::empty("No trace", &html! {
                "Begin one: it keeps what the thing says from now on, or from its next login."
            })) }
            Some(trace) => { (state(asked, trace)) (frames(asked, key, trace)) }
        }
        (back(asked, key))
    };
    Ok(layout::page(asked, Screen::Things, &format!("Trace of {key}"), &body))
}

fn form(asked: &InOrg<'_>, key: &str, is_tracing: bool) -> Markup {
    html! {
        div class="filter" {
            form method="post" action=(path_of(asked, key, "trace")) class="filter" {
                (csrf(asked))
                (select("seconds", "For", Some("300"), &TIMES))
                button type="submit" { @if is_tracing { "Begin anew" } @else { "Begin" } }
            }
            @if is_tracing {
                form method="post" action=(path_of(asked, key, "trace")) class="filter" {
                    (csrf(asked))
                    input type="hidden" name="seconds" value="0";
                    button type="submit" { "End it" }
                }
            }
        }
    }
}

fn state(asked: &InOrg<'_>, trace: &Trace) -> Markup {
    html! {
        p role="status" {
            @if trace.tracing {
                (badge("good", "tracing"))
                @if let Some(until) = &trace.until { " until " (clock(until, asked.now)) }
            } @else {
                (badge("", "ended"))
                @if let Some(at) = &trace.ended { " " (clock(at, asked.now)) }
                @if let Some(why) = &trace.reason { ", " (why.replace('_', " ")) }
            }
            @if let Some(by) = &trace.by { ", begun by " bdi { (by) } }
            ", " (number(trace.bytes)) " bytes. "
            a href=(asked.path) { "Look again" }
        }
    }
}

fn frames(asked: &InOrg<'_>, key: &str, trace: &Trace) -> Markup {
    let row = |frame: &Frame| {
        let (arrow, way) = match frame.direction.as_str() {
            "in" => ("→", "from the thing"),
            _ => ("←", "to the thing"),
        };
        vec![
            html! { (frame.number) },
            html! { time class="clock" datetime=(frame.ts) { (frame.ts.get(11..23).unwrap_or(&frame.ts)) } },
            html! { span aria-hidden="true" { (arrow) } " " (way) },
            html! { (frame.door) },
            html! { bdi { (frame.packet) } @if let Some(topic) = &frame.topic { " " bdi { (topic) } } },
            html! {
                (long(frame.payload.as_deref().unwrap_or(&frame.frame)))
                @if frame.payload.is_none() && frame.encoding == "base64" { " " (badge("", "base64")) }
                @if frame.redacted { " " (badge("warn", "secrets left out")) }
            },
        ]
    };
    let rows: Vec<_> = trace.result.iter().map(row).collect();
    let next = trace.last.filter(|_| trace.more == Some(true));
    html! {
        @if rows.is_empty() { p class="hint" { "It has said nothing yet." } }
        @else { (table("Frames", &["Number", "Time", "Direction", "Door", "Packet", "Content"], &rows)) }
        @if let Some(last) = next {
            p { a href=(path_of(asked, key, &format!("trace?after={last}"))) { "More frames" } }
        }
    }
}

/// Begins or ends it.
pub(super) async fn set(asked: &InOrg<'_>, key: &str) -> Answer {
    let seconds = asked.form.number("seconds").unwrap_or(60);
    let params = Params::default().with("key", key).with("seconds", seconds);
    asked.ask::<IgnoredAny>("thing.trace", &params).await?;
    see(asked, key, "trace")
}
