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

/// Those of the organisation.
pub(super) async fn of_org(asked: &InOrg<'_>) -> Result<Markup, Refused> {
    let from = Timestamp::from_millis(asked.now.as_millis() - MINUTES as i64 * MINUTE_MS);
    let params = |show: &[&str], after: &str, sort: &str| {
        let params = Params::default().with("show", show.to_vec()).with("hideFields", true);
        let params = params.with(after, from.to_string()).with("limit", COUNTED_MAX);
        params.with("sort", sort)
    };
    let starts = params(&["startTime"], "startedAfter", "-startTime").with("status", vec!["ALL"]);
    let starts: Listed<Start> = asked.ask("session.list", &starts).await?;
    let ends = params(&["endTime", "endReason"], "endedAfter", "-endTime");
    let ends: Listed<End> = asked.ask("session.list", &ends).await?;
    let since = from.to_string();
    let since = since.get(..19).unwrap_or(&since);
    let path = |query: String| Some(asked.to(&format!("sessions?{query}")));
    let mut connects: Counts = [0; MINUTES];
    for start in &starts.result {
        count(&mut connects, from, &start.start_time);
    }
    let mut by_reason = BTreeMap::<&str, Counts>::new();
    for end in &ends.result {
        count(by_reason.entry(&end.end_reason).or_default(), from, &end.end_time);
    }
    let connects = Line {
        name: "connected".into(),
        path: path(format!("state=all&startedAfter={since}")),
        counts: connects,
    };
    let ended = by_reason.into_iter().map(|(reason, counts)| Line {
        name: format!("ended: {}", reason.replace('_', " ")),
        path: path(format!("state=ended&endReason={reason}&endedAfter={since}")),
        counts,
    });
    let is_cut = |count: Option<u64>, shown: usize| count.is_some_and(|count| count > shown as u64);
    let is_cut = is_cut(starts.count, starts.result.len()) || is_cut(ends.count, ends.result.len());
    let most = starts.result.len().max(ends.result.len());
    Ok(html! {
        (table("Connects and ends in each minute", [connects].into_iter().chain(ended)))
        @if is_cut {
            p class="hint" { "Only the last " (number(most as u64)) " of each are counted." }
        }
    })
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
        div class="scroll" tabindex="0" role="group" aria-label=(caption) { table {
            caption class="hidden" { (caption) ", of the last " (MINUTES) " minutes" }
            thead { tr {
                th scope="col" { "What" }
                th scope="col" { "In " (MINUTES) " minutes" }
                th scope="col" { "In the last minute" }
                th scope="col" { "In a minute at most" }
                th scope="col" { "Course" }
            } }
            tbody { @for line in lines { tr {
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
