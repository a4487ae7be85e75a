//! What a fleet measures, and the report at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use super::histogram::Histogram;
use crate::{ClientError, Reply};

/// Different error texts, and different reasons of failures, that are kept; further ones are only
/// counted.
const ERROR_TEXTS_MAX: usize = 20;

/// What stands for those that are only counted.
const OTHERS: &str = "others";

/// The counters that all devices share.
#[derive(Default)]
pub struct Board {
    pub(super) opened: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) connect: Histogram,
    pub(super) latency: Histogram,
    /// Mails that devices have fetched.
    pub(super) mails: AtomicU64,
    /// From the sending of a method to the notice on the device's socket.
    pub(super) notice: Histogram,
    errors: Mutex<BTreeMap<String, u64>>,
    failures: Mutex<BTreeMap<Reason, u64>>,
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Reason {
    code: Option<i64>,
    message: String,
}

impl Reason {
    /// The reason that a reply gives, or that it is none.
    pub(super) fn of(reply: &Result<Reply, ClientError>) -> Self {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Self::own(error.to_string()),
        };
        let message = match reply.error_messages() {
            [] => "no reason given".to_owned(),
            messages => messages.join(" "),
        };
        Self { code: reply.error_codes().first().copied(), message }
    }

    /// A reason that the fleet finds, not the server.
    pub(super) fn own(message: impl Into<String>) -> Self {
        Self { code: None, message: message.into() }
    }
}

impl Board {
    /// Counts a login that took `elapsed`, and passes on what came of it.
    pub(super) fn count_login<T, E: fmt::Display>(
        &self,
        elapsed: Duration,
        login: Result<T, E>,
    ) -> Option<T> {
        match login {
            Ok(opened) => {
                self.connect.record(elapsed);
                self.opened.fetch_add(1, Relaxed);
                Some(opened)
            }
            Err(error) => {
                self.refused.fetch_add(1, Relaxed);
                self.count_error(error);
                None
            }
        }
    }

    /// Counts a connection that did not last.
    pub(super) fn count_dropped(&self, error: impl fmt::Display) {
        self.dropped.fetch_add(1, Relaxed);
        self.count_error(error);
    }

    /// Counts a command that failed.
    pub(super) fn count_failure(&self, reason: Reason) {
        self.failed.fetch_add(1, Relaxed);
        count(&mut self.failures.lock(), reason, || Reason::own(OTHERS));
    }

    fn count_error(&self, error: impl fmt::Display) {
        count(&mut self.errors.lock(), error.to_string(), || OTHERS.to_owned());
    }

    /// Commands answered until now, failures too.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// One line on how it is going: `per_second` is the rate since the last line.
    pub fn progress(&self, elapsed: Duration, per_second: f64) -> String {
        let open = self.opened.load(Relaxed).saturating_sub(self.dropped.load(Relaxed));
        format!(
            "{:>4} s  connections {open}  refused {}  dropped {}  {per_second:.0} commands/s  \
             failed {}  lost {}  p99 {}",
            elapsed.as_secs(),
            self.refused.load(Relaxed),
            self.dropped.load(Relaxed),
            self.failed.load(Relaxed),
            self.lost.load(Relaxed),
            Millis(self.latency.quantile(0.99)),
        )
    }

    /// The final figures of a load that took `elapsed`.
    pub fn report(&self, elapsed: Duration) -> Report {
        let answered = self.answered.load(Relaxed);
        let seconds = elapsed.as_secs_f64();
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let mails = self.mails.load(Relaxed);
        let mail = (mails > 0).then(|| Mail {
            fetched: mails,
            p50_ms: ms(self.notice.quantile(0.5)),
            p99_ms: ms(self.notice.quantile(0.99)),
            p999_ms: ms(self.notice.quantile(0.999)),
            max_ms: ms(self.notice.max()),
        });
        Report {
            connections: Connections {
                opened: self.opened.load(Relaxed),
                failed: self.refused.load(Relaxed),
                dropped: self.dropped.load(Relaxed),
                p50_ms: ms(self.connect.quantile(0.5)),
                p99_ms: ms(self.connect.quantile(0.99)),
            },
            commands: Commands {
                sent: self.sent.load(Relaxed),
                answered,
                failed: self.failed.load(Relaxed),
                lost: self.lost.load(Relaxed),
                per_second: if seconds > 0.0 { answered as f64 / seconds } else { 0.0 },
            },
            latency: Latency {
                p50_ms: ms(self.latency.quantile(0.5)),
                p99_ms: ms(self.latency.quantile(0.99)),
                p999_ms: ms(self.latency.quantile(0.999)),
                max_ms: ms(self.latency.max()),
            },
            rows: None,
            files: None,
            mail,
            seconds,
            failures: self.failures(),
            errors: self.errors.lock().clone(),
        }
    }

    /// The reasons of failures, the most frequent first.
    fn failures(&self) -> Vec<Failures> {
        let counted = self.failures.lock();
        let mut failures: Vec<_> = counted
            .iter()
            .map(|(Reason { code, message }, count)| Failures {
                code: *code,
                message: message.clone(),
                count: *count,
            })
            .collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        failures
    }
}

/// The figures of a run. Its `Display` is the report for people, its serde form the one for
/// programs; times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How connecting went.
    pub connections: Connections,
    /// How commands went.
    pub commands: Commands,
    /// From sending to the answer.
    pub latency: Latency,
    /// Rows of telemetry, if that was the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// Files moved, if that was the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Mail to devices, if that was the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<Mail>,
    /// How long commands were sent.
    pub seconds: f64,
    /// Why commands failed, the most frequent reason first.
    pub failures: Vec<Failures>,
    /// Why connections failed or dropped: texts with their number.
    pub errors: BTreeMap<String, u64>,
}

/// Commands that failed for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// The server's error code; none where the fleet itself found the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// What the server says.
    pub message: String,
    /// How many.
    pub count: u64,
}

/// How connecting went.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Logged in.
    pub opened: u64,
    /// Could not connect or log in.
    pub failed: u64,
    /// Ended by the other side, or broke.
    pub dropped: u64,
    /// Median time from the first packet to the finished login.
    pub p50_ms: f64,
    /// 99 % were faster.
    pub p99_ms: f64,
}

/// How commands went.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// Written to a connection.
    pub sent: u64,
    /// Answered, failures too.
    pub answered: u64,
    /// Answered with `success` false.
    pub failed: u64,
    /// Not answered in time, or on a connection that ended.
    pub lost: u64,
    /// Answered in a second.
    pub per_second: f64,
}

/// Mail to devices; the times are from the sending of a method to the notice on the device's socket.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    /// Mails that devices have fetched.
    pub fetched: u64,
    /// Half were faster.
    pub p50_ms: f64,
    /// 99 % were faster.
    pub p99_ms: f64,
    /// 99.9 % were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Rows of telemetry in commands that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// All of them.
    pub recorded: u64,
    /// In a second.
    pub per_second: f64,
}

impl Rows {
    /// The rows of a run whose commands had this many each.
    pub(super) fn of(report: &Report, each: usize) -> Self {
        let succeeded = report.commands.answered.saturating_sub(report.commands.failed);
        let recorded = succeeded * each as u64;
        let per_second = if report.seconds > 0.0 { recorded as f64 / report.seconds } else { 0.0 };
        Self { recorded, per_second }
    }
}

/// Files in rounds that succeeded, each there and back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// Uploads and downloads.
    pub moved: u64,
    /// Their bytes in a second.
    pub bytes_per_second: f64,
}

impl Files {
    /// The files of a run whose rounds moved this many bytes each way.
    pub(super) fn of(report: &Report, bytes: usize) -> Self {
        let moved = 2 * report.commands.answered.saturating_sub(report.commands.failed);
        let all = moved as f64 * bytes as f64;
        let bytes_per_second = if report.seconds > 0.0 { all / report.seconds } else { 0.0 };
        Self { moved, bytes_per_second }
    }
}

/// Quantiles of the time from sending to the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The median.
    pub p50_ms: f64,
    /// 99 % were faster.
    pub p99_ms: f64,
    /// 99.9 % were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Report {
    /// Whether every connection opened and stayed, and every command was answered with success.
    pub fn is_clean(&self) -> bool {
        let troubles = [
            self.connections.failed,
            self.connections.dropped,
            self.commands.failed,
            self.commands.lost,
        ];
        troubles.iter().all(|count| *count == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, commands, latency, .. } = self;
        writeln!(
            f,
            "connections  opened {}  failed {}  dropped {}  (connect p50 {:.2} ms, p99 {:.2} ms)",
            connections.opened,
            connections.failed,
            connections.dropped,
            connections.p50_ms,
            connections.p99_ms,
        )?;
        writeln!(
            f,
            "commands     sent {}  answered {}  failed {}  lost {}",
            commands.sent, commands.answered, commands.failed, commands.lost,
        )?;
        writeln!(
            f,
            "rate         {:.0} commands/s over {:.1} s",
            commands.per_second, self.seconds
        )?;
        if let Some(Rows { recorded, per_second }) = &self.rows {
            writeln!(f, "telemetry    {recorded} rows  {per_second:.0} rows/s")?;
        }
        if let Some(Files { moved, bytes_per_second }) = &self.files {
            let megabytes = bytes_per_second / 1e6;
            writeln!(f, "files        {moved} moved  {megabytes:.1} MB/s")?;
        }
        if let Some(mail) = &self.mail {
            writeln!(
                f,
                "mail         fetched {}  to the device p50 {:.3} ms  p99 {:.3} ms  p99.9 {:.3} ms  \
                 max {:.3} ms",
                mail.fetched, mail.p50_ms, mail.p99_ms, mail.p999_ms, mail.max_ms,
            )?;
        }
        write!(
            f,
            "latency      p50 {:.3} ms  p99 {:.3} ms  p99.9 {:.3} ms  max {:.3} ms",
            latency.p50_ms, latency.p99_ms, latency.p999_ms, latency.max_ms,
        )?;
        for Failures { code, message, count } in &self.failures {
            let code = code.map_or_else(String::new, |code| format!("[{code}] "));
            write!(f, "\nfailure      {count} × {code}{message}")?;
        }
        self.errors
            .iter()
            .try_for_each(|(text, count)| write!(f, "\nerror        {count} × {text}"))
    }
}

/// Counts `key`, or `others` when there are too many keys.
fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, others: impl FnOnce() -> K) {
    let known = counts.len() < ERROR_TEXTS_MAX || counts.contains_key(&key);
    let key = if known { key } else { others() };
    *counts.entry(key).or_default() += 1;
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ms", self.0.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let board = Board::default();
        board.opened.store(3, Relaxed);
        board.sent.store(1000, Relaxed);
        board.answered.store(1000, Relaxed);
        for _ in 0..1000 {
            board.latency.record(Duration::from_micros(250));
        }
        board.connect.record(Duration::from_millis(2));
        board
    }

    #[test]
    fn a_clean_run_says_so_in_text_and_json() {
        let report = board().report(Duration::from_secs(2));
        assert!(report.is_clean());
        assert_eq!(
            report.to_string(),
            "connections  opened 3  failed 0  dropped 0  (connect p50 2.00 ms, p99 2.00 ms)\n\
             commands     sent 1000  answered 1000  failed 0  lost 0\n\
             rate         500 commands/s over 2.0 s\n\
             latency      p50 0.250 ms  p99 0.250 ms  p99.9 0.250 ms  max 0.250 ms"
        );
        let json = serde_json::to_string(&report).expect("plain numbers");
        assert_eq!(
            json,
            r#"{"connections":{"opened":3,"failed":0,"dropped":0,"p50Ms":2.0,"p99Ms":2.0},"#
                .to_owned()
                + r#""commands":{"sent":1000,"answered":1000,"failed":0,"lost":0,"#
                + r#""perSecond":500.0},"latency":{"p50Ms":0.25,"p99Ms":0.25,"p999Ms":0.25,"#
                + r#""maxMs":0.25},"seconds":2.0,"failures":[],"errors":{}}"#
        );
    }

    #[test]
    fn mail_is_reported_if_there_was_some() {
        let board = board();
        assert!(board.report(Duration::from_secs(1)).mail.is_none());
        board.mails.store(7, Relaxed);
        board.notice.record(Duration::from_micros(500));
        let text = board.report(Duration::from_secs(1)).to_string();
        let line = "mail         fetched 7  to the device p50 0.500 ms  p99 0.500 ms  \
                    p99.9 0.500 ms  max 0.500 ms";
        assert!(text.lines().any(|have| have == line), "{text}");
    }

    #[test]
    fn troubles_are_counted_by_their_text() {
        let board = board();
        board.lost.store(1, Relaxed);
        board.count_error("the server closed the connection");
        board.count_error("the server closed the connection");
        let report = board.report(Duration::from_secs(1));
        assert!(!report.is_clean());
        let text = report.to_string();
        assert!(text.ends_with("\nerror        2 × the server closed the connection"), "{text}");
        for number in 0..100 {
            board.count_error(number);
        }
        assert!(board.report(Duration::ZERO).errors.len() <= ERROR_TEXTS_MAX + 1);
    }

    #[test]
    fn failures_are_counted_by_code_and_sentence() {
        let board = board();
        let reply = |text: &str| Reason::of(&Reply::of_command(text.as_bytes()));
        let one = r#"{"cmd":{"success":false,"errorCodes":[-1],"errorMessages":["as you wish"]}}"#;
        board.count_failure(reply(r#"{"cmd":{"success":false}}"#));
        board.count_failure(reply(one));
        board.count_failure(reply(one));
        let report = board.report(Duration::from_secs(1));
        assert_eq!(report.commands.failed, 3);
        let end = "\nfailure      2 × [-1] as you wish\nfailure      1 × no reason given";
        assert!(report.to_string().ends_with(end), "{report}");
        let json = serde_json::to_value(&report).expect("plain");
        let expected = serde_json::json!([
            {"code": -1, "message": "as you wish", "count": 2},
            {"message": "no reason given", "count": 1},
        ]);
        assert_eq!(json["failures"], expected);
        board.count_failure(reply("garbage"));
        for number in 0..100 {
            board.count_failure(Reason::own(number.to_string()));
        }
        let failures = board.report(Duration::ZERO).failures;
        assert_eq!(failures.len(), ERROR_TEXTS_MAX + 1);
        assert_eq!((failures[0].message.as_str(), failures[0].count), (OTHERS, 83));
        assert_eq!(failures.iter().map(|failures| failures.count).sum::<u64>(), 104);
    }

    #[test]
    fn the_progress_line_has_the_figures_that_change() {
        let line = board().progress(Duration::from_secs(12), 70_321.4);
        let expected = "  12 s  connections 3  refused 0  dropped 0  70321 commands/s  failed 0  \
                        lost 0  p99 0.25 ms";
        assert_eq!(line, expected);
    }
}
