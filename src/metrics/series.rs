//! Figures of each second of the last hour, for `stats.series`.

use std::collections::VecDeque;
use std::time::Instant;

use base::histogram::Times;
use base::{Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::Reason;

/// A figure that is kept.
pub struct Figure {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
}

macro_rules! figures {
    ($($field:ident: $name:literal, $doc:literal;)*) => {
        /// All figures, in the order in which a [`Second`] has them.
        pub const FIGURES: &[Figure] = &[$(Figure { name: $name, doc: $doc }),*];

        /// What was seen in one second; none where nothing can be said.
        #[derive(Clone, Default, Debug)]
        pub(super) struct Seen {
            $(pub(super) $field: Option<f64>,)*
        }

        impl Seen {
            fn values(&self) -> [f64; FIGURES.len()] {
                [$(self.$field.unwrap_or(f64::NAN)),*]
            }
        }
    };
}

figures! {
    connections: "connections", "open connections";
    sessions: "sessions", "live sessions";
    commands: "commands", "commands answered in a second";
    failures: "failures", "of these, those that failed";
    logins: "logins", "logins in a second that succeeded";
    refused_logins: "refusedLogins", "logins in a second that were refused";
    messages_in: "messagesIn", "ordinary MQTT messages received in a second";
    messages_out: "messagesOut", "the same, delivered";
    messages_dropped: "messagesDropped", "the same, lost because subscribers did not keep up";
    points: "points", "points of telemetry recorded in a second";
    store_queue: "storeQueue", "batches that wait for the store";
    mails: "mails", "mails that wait for things";
    command_p99_ms: "commandP99Ms",
        "milliseconds that 99 of 100 commands of the second did not exceed, those aside that wait for \
         devices; null if there were none";
    commit_p99_ms: "commitP99Ms", "the same for commits of the store";
    memory_bytes: "memoryBytes", "memory that the process has";
    command_p50_ms: "commandP50Ms", "as `commandP99Ms`, of half of the commands";
    starts: "starts", "sessions started in a second";
    ends: "ends", "sessions ended in a second, as those that follow";
    ends_lost: "endsLost", "whose connection was lost";
    ends_keep_alive: "endsKeepAlive", "that were silent for too long";
    ends_logged_out: "endsLoggedOut", "that their owners ended";
    ends_revoked: "endsRevoked", "that were revoked, or whose owners were disabled";
}

/// One second.
#[derive(Clone, Debug)]
pub struct Second {
    /// Its end, in the server's time.
    pub at: Timestamp,
    values: [f64; FIGURES.len()],
}

impl Second {
    /// A figure of it, by its index; none if there is nothing to say.
    pub fn value(&self, index: usize) -> Option<f64> {
        self.values.get(index).copied().filter(|value| !value.is_nan())
    }
}

/// What grows only, at one moment.
#[derive(Clone, Default, Debug)]
pub(super) struct Totals {
    pub(super) commands: u64,
    pub(super) failures: u64,
    pub(super) logins: u64,
    pub(super) refused_logins: u64,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) messages_dropped: u64,
    pub(super) points: u64,
    pub(super) starts: u64,
    /// By reason.
    pub(super) ends: [u64; Reason::ALL.len()],
    pub(super) command_times: Times,
    pub(super) commit_times: Times,
}

/// The seconds that are kept: an hour of them, some 650 kB.
#[derive(Default)]
pub(super) struct Series {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seconds: VecDeque<Second>,
    last: Option<(Instant, Totals)>,
}

impl Series {
    /// Notes the second that ends now. `seen` has the gauges; what counts is made of the totals.
    pub(super) fn note(&self, at: Timestamp, mut seen: Seen, totals: Totals) {
        let state = &mut *self.state.lock();
        let ends = Instant::now();
        if let Some((began, before)) = &state.last {
            // Late ones are longer.
            let seconds = ends.duration_since(*began).as_secs_f64().max(0.001);
            let rate = |now: u64, before: u64| {
                let rate = now.saturating_sub(before) as f64 / seconds;
                Some((rate * 1000.0).round() / 1000.0)
            };
            seen.commands = rate(totals.commands, before.commands);
            seen.failures = rate(totals.failures, before.failures);
            seen.logins = rate(totals.logins, before.logins);
            seen.refused_logins = rate(totals.refused_logins, before.refused_logins);
            seen.messages_in = rate(totals.messages_in, before.messages_in);
            seen.messages_out = rate(totals.messages_out, before.messages_out);
            seen.messages_dropped = rate(totals.messages_dropped, before.messages_dropped);
            seen.points = rate(totals.points, before.points);
            seen.starts = rate(totals.starts, before.starts);
            let ended = |wanted: &dyn Fn(Reason) -> bool| {
                let count = |totals: &Totals| {
                    let counts = Reason::ALL.into_iter().zip(totals.ends);
                    counts.filter(|(reason, _)| wanted(*reason)).map(|(_, count)| count).sum()
                };
                rate(count(&totals), count(before))
            };
            seen.ends = ended(&|_| true);
            seen.ends_lost = ended(&|reason| reason == Reason::ConnectionLost);
            seen.ends_keep_alive = ended(&|reason| reason == Reason::KeepAlive);
            seen.ends_logged_out = ended(&|reason| reason == Reason::LoggedOut);
            seen.ends_revoked = ended(&Reason::is_revocation);
            let ms = |times: &Times, part: f64| Some((times.quantile(part)? * 1e6).round() / 1e3);
            let commands = totals.command_times.since(&before.command_times);
            let commits = totals.commit_times.since(&before.commit_times);
            seen.command_p50_ms = ms(&commands, 0.5);
            seen.command_p99_ms = ms(&commands, 0.99);
            seen.commit_p99_ms = ms(&commits, 0.99);
            if state.seconds.len() >= limits::SERIES_SECONDS {
                state.seconds.pop_front();
            }
            state.seconds.push_back(Second { at, values: seen.values() });
        }
        state.last = Some((ends, totals));
    }

    /// The newest `most` seconds that are wanted, the oldest first.
    pub(super) fn read(&self, most: usize, wants: impl Fn(Timestamp) -> bool) -> Vec<Second> {
        let state = self.state.lock();
        let wanted = state.seconds.iter().rev().filter(|second| wants(second.at)).take(most);
        let mut seconds: Vec<_> = wanted.cloned().collect();
        seconds.reverse();
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_the_rest_forgotten() {
        let series = Series::default();
        for number in 0..limits::SERIES_SECONDS as u64 + 10 {
            let totals = Totals { commands: number * 5, ..Totals::default() };
            let seen = Seen { sessions: Some(number as f64), ..Seen::default() };
            series.note(Timestamp::from_millis(number as i64 * 1000), seen, totals);
        }
        let all = series.read(usize::MAX, |_| true);
        assert_eq!(all.len(), limits::SERIES_SECONDS);
        let index = |name: &str| FIGURES.iter().position(|figure| figure.name == name).expect(name);
        let sessions = all.last().and_then(|second| second.value(index("sessions")));
        assert_eq!(sessions, Some((limits::SERIES_SECONDS + 9) as f64));
        assert!(all.iter().all(|second| second.value(index("commands")) > Some(0.0)));
        assert_eq!(all[0].value(index("commandP99Ms")), None, "no command was timed");
        let two = series.read(2, |at| at.as_millis() < 3_000_000);
        let ends: Vec<_> = two.iter().map(|second| second.at.as_millis()).collect();
        assert_eq!(ends, [2_998_000, 2_999_000]);
    }
}
