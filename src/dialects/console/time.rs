//! Times as people read them: how long ago, with the exact time behind it.

use base::Timestamp;
use maud::{Markup, html};

/// A time of a reply, such as 2026-11-28T09:14:02.123Z.
pub(super) fn ago(text: &str, now: Timestamp) -> Markup {
    let Some(then) = Timestamp::parse(text) else { return html! { (text) } };
    let away_ms = now.as_millis() - then.as_millis();
    html! { time datetime=(text) title=(exact(text)) { (span(away_ms)) } }
}

/// A time of a reply as the clock shows it; of another day with the day.
pub(super) fn clock(text: &str, now: Timestamp) -> Markup {
    let today = now.to_string();
    let is_today = today.get(..10).is_some_and(|day| text.starts_with(day));
    let shown = if is_today { text.get(11..19) } else { text.get(..16) };
    let shown = shown.unwrap_or(text).replace('T', " ");
    html! { time class="clock" datetime=(text) title=(exact(text)) { (shown) } }
}

/// The whole time, in words of people.
pub(super) fn exact(text: &str) -> String {
    let whole = text.get(..19).unwrap_or(text).replace('T', " ");
    format!("{whole} UTC")
}

/// How long it was from one time of a reply to another.
pub(super) fn lasted(from: &str, to: &str) -> String {
    let both = Timestamp::parse(from).zip(Timestamp::parse(to));
    both.map_or(String::new(), |(from, to)| span(to.as_millis() - from.as_millis()))
}

/// So many milliseconds in the largest unit that fits, as `console.js` writes them too.
pub(super) fn span(ms: i64) -> String {
    let seconds = (ms / 1000).max(0);
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds / 60),
        6000..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
