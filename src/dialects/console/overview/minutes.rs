//! What connected and what ended, minute by minute: of an organisation, and of the whole server.

use std::collections::BTreeMap;

use base::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::dialects::console::asked::InOrg;
use crate::dialects::console::chart;
use crate::dialects::console::form::Params;
use crate::dialects::console::layout::number;
use crate::dialects::console::respond::Refused;
use crate::dialects::console::sessions::Listed;

/// Minutes that are shown.
const MINUTES: usize = 15;

const MINUTE_MS: i64 = 60_000;

const STEP_MS: i64 = 10_000;

/// Sessions that are counted at most, the last ones: a page is to come soon.
const COUNTED_MAX: usize = 5000;

/// Ends of which the server's figures have a series of their own.
const ENDS: [(&str, &str); 4] = [
    ("endsLost", "connection lost"),
    ("endsKeepAlive", "keep-alive"),
    ("endsLoggedOut", "logged out"),
    ("endsRevoked", "revoked"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    start_time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct End {
    end_time: String,
    end_reason: String,
}

type Counts = [u64; MINUTES];

/// What is counted in each minute.
struct Line {
    name: String,
    /// Where those that are counted are.
    path: Option<String>,
    counts: Counts,
}

/// What was counted of an organisation.
struct Counted {
    connects: Counts,
    by_reason: BTreeMap<String, Counts>,
    /// How many of each were counted, if there were more.
    cut: Option<usize>,
}

async fn counted(asked: &InOrg<'_>, from: Timestamp) -> Result<Counted, Refused> {
    let params = |show: &[&str], after: &str, sort: &str| {
        let params = Params::default().with("show", show.to_vec()).with("hideFields", true);
        let params = params.with(after, from.to_string()).with("limit", COUNTED_MAX);
        params.with("sort", sort)
    };
    let starts = params(&["startTime"], "startedAfter", "-startTime").with("status", vec!["ALL"]);
    let starts: Listed<Start> = asked.ask("session.list", &starts).await?;
    let ends = params(&["endTime", "endReason"], "endedAfter", "-endTime");
    let ends: Listed<End> = asked.ask("session.list", &ends).await?;
    let mut connects: Counts = [0; MINUTES];
    for start in &starts.result {
        count(&mut connects, from, &start.start_time);
    }
    let mut by_reason = BTreeMap::<String, Counts>::new();
    for end in &ends.result {
        count(by_reason.entry(end.end_reason.clone()).or_default(), from, &end.end_time);
    }
    let is_cut = |count: Option<u64>, shown: usize| count.is_some_and(|count| count > shown as u64);
    let is_cut = is_cut(starts.count, starts.result.len()) || is_cut(ends.count, ends.result.len());
    let most = starts.result.len().max(ends.result.len());
    Ok(Counted { connects, by_reason, cut: is_cut.then_some(most) })
}

/// The first of the minutes that are shown. It moves by steps, so that what is live stays the same
/// while nothing happens.
fn begin(asked: &InOrg<'_>) -> Timestamp {
    let now = asked.this_moment().as_millis();
    let end = now + STEP_MS - now.rem_euclid(STEP_MS);
    Timestamp::from_millis(end - MINUTES as i64 * MINUTE_MS)
}

/// The line of those that connected.
fn connected(asked: &InOrg<'_>, since: &str, counts: Counts) -> Line {
    let path = asked.to(&format!("sessions?state=all&startedAfter={since}"));
    Line { name: "connected".into(), path: Some(path), counts }
}

/// The line of those that ended by a reason.
fn ended_line(asked: &InOrg<'_>, since: &str, reason: &str, counts: Counts) -> Line {
    let query = format!("sessions?state=ended&endReason={reason}&endedAfter={since}");
    let name = format!("ended: {}", reason.replace('_', " "));
    Line { name, path: Some(asked.to(&query)), counts }
}

/// A time as addresses have it.
fn in_address(from: Timestamp) -> String {
    let text = from.to_string();
    text.get(..19).unwrap_or(&text).to_owned()
}

/// Those of the organisation.
pub(super) async fn of_org(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let from = begin(asked);
    let counted = counted(asked, from).await?;
    let since = in_address(from);
    let connects = connected(asked, &since, counted.connects);
    let ended = counted.by_reason.iter();
    let ended = ended.map(|(reason, counts)| ended_line(asked, &since, reason, *counts));
    Ok(html! {
        (table("Connects and ends in each minute", [connects].into_iter().chain(ended)))
        @if let Some(most) = counted.cut {
            p class="hint" { "Only the last " (number(most as u64)) " of each are counted." }
        }
    })
}

/// The same in short: connects, and ends by the reason that most have.
pub(super) async fn in_short(asked: &InOrg<'_>) -> Result<[Markup; 2], Refused> {
    let from = begin(asked);
    let counted = counted(asked, from).await?;
    let since = in_address(from);
    let short = |line: &Line, name: &str| {
        let least = if counted.cut.is_some() { "at least " } else { "" };
        html! {
            a href=[line.path.as_deref()] { (least) (name) (number(line.counts.iter().sum())) } " "
            (course(line))
        }
    };
    let sum = |counts: &Counts| counts.iter().sum::<u64>();
    let most = counted.by_reason.iter().max_by_key(|(_, counts)| sum(counts));
    let ends = most.map_or(html! { "none" }, |(reason, counts)| {
        let name = format!("{} ", reason.replace('_', " "));
        short(&ended_line(asked, &since, reason, *counts), &name)
    });
    Ok([short(&connected(asked, &since, counted.connects), ""), ends])
}

fn count(counts: &mut Counts, from: Timestamp, at: &str) {
    let Some(at) = Timestamp::parse(at) else { return };
    let minute = (at.as_millis() - from.as_millis()).div_euclid(MINUTE_MS);
    // What happened since the page was asked for is of the last minute.
    let minute = usize::try_from(minute).map(|minute| minute.min(MINUTES - 1));
    if let Some(count) = minute.ok().and_then(|minute| counts.get_mut(minute)) {
        *count += 1;
    }
}

/// Those of the whole server, of figures for each second.
pub(super) fn of_server(series: &BTreeMap<String, Vec<Option<f64>>>) -> Markup {
    let counts = |name: &str| by_minute(series.get(name).map_or(&[], Vec::as_slice));
    let mut others = counts("ends");
    let mut lines = vec![Line { name: "connected".into(), path: None, counts: counts("starts") }];
    for (name, reason) in ENDS {
        let counts = counts(name);
        for (other, count) in others.iter_mut().zip(counts) {
            *other = other.saturating_sub(count);
        }
        lines.push(Line { name: format!("ended: {reason}"), path: None, counts });
    }
    lines.push(Line { name: "ended: otherwise".into(), path: None, counts: others });
    table("Connects and ends of the server in each minute", lines.into_iter())
}

/// Figures of seconds as those of minutes, the last second in the last minute.
fn by_minute(seconds: &[Option<f64>]) -> Counts {
    let mut counts = [0; MINUTES];
    for (index, chunk) in seconds.rchunks(60).take(MINUTES).enumerate() {
        if let Some(count) = counts.get_mut(MINUTES - 1 - index) {
            *count = chunk.iter().flatten().sum::<f64>() as u64;
        }
    }
    counts
}

fn table(caption: &str, lines: impl Iterator<Item = Line>) -> Markup {
    let last = |counts: &Counts| counts.last().copied().unwrap_or_default();
    let most = |counts: &Counts| counts.iter().max().copied().unwrap_or_default();
    html! {
        h3 { (caption) }
        div class="scroll" tabindex="0" role="group" aria-label=(caption) { table class="figures" {
            caption class="hidden" { (caption) ", of the last " (MINUTES) " minutes" }
            thead { tr {
                th scope="col" { "What" }
                th scope="col" { "In " (MINUTES) " minutes" }
                th scope="col" { "In the last minute" }
                th scope="col" { "In a minute at most" }
                th scope="col" { "Course" }
            } }
            tbody { @for line in lines { tr data-id=(line.name) {
                th scope="row" {
                    @match &line.path {
                        Some(path) => a href=(path) { (line.name) },
                        None => (line.name),
                    }
                }
                td { (number(line.counts.iter().sum())) }
                td { (number(last(&line.counts))) }
                td { (number(most(&line.counts))) }
                td { (course(&line)) }
            } } }
        } }
    }
}

fn course(line: &Line) -> Markup {
    let figures: Vec<String> = line.counts.iter().map(u64::to_string).collect();
    let values: Vec<Option<f64>> = line.counts.iter().map(|count| Some(*count as f64)).collect();
    let title =
        format!("{}, minute by minute, the last one now: {}", line.name, figures.join(", "));
    chart::sparkline(&title, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_of_its_minute() {
        let from = Timestamp::from_millis(1_700_000_000_000);
        let mut counts = [0; MINUTES];
        for at_ms in [-1, 0, 59_999, 60_000, 14 * 60_000, 15 * 60_000 + 5] {
            let at = Timestamp::from_millis(from.as_millis() + at_ms);
            count(&mut counts, from, &at.to_string());
        }
        count(&mut counts, from, "never");
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn seconds_make_minutes_from_the_last_on() {
        let mut seconds = vec![Some(1.0); 61];
        seconds[3] = None;
        assert_eq!(by_minute(&seconds)[MINUTES - 2..], [1, 59]);
        assert_eq!(by_minute(&[]), [0; MINUTES]);
        assert_eq!(by_minute(&vec![Some(2.0); 5000]), [120; MINUTES]);
    }
}
