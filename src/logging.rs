//! Logs: `tracing` to standard error, as text or as JSON.
//!
//! What a peer can cause at will is logged through a [`PeerLog`], which limits the rate, so that a
//! flood of bad peers does not become a flood of lines.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{fmt, registry, reload};

use crate::config::{Log, LogFormat};

/// What other crates may log. The store's engine tells of every step at info; the WebSocket's frames,
/// which tungstenite shows at trace, hold passwords.
///
/// Lines on who is watched come only when an administrator asks for them, whatever the level.
const CRATES: &str = "fjall=warn,lsm_tree=warn,tungstenite=warn,tokio_tungstenite=warn,\
                      tr50d::watched=debug";

/// The target of lines on things and addresses that are watched (`server.log.watch`).
pub const WATCHED: &str = "tr50d::watched";

/// Logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is no list of directives.
    #[error("RUST_LOG is not a list such as info,tr50d=debug: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// Nobody logs any more.
    #[error("logging can't be changed: {0}")]
    Changed(#[from] reload::Error),
    /// The program logs already.
    #[error("logging was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process, as `[log]` describes it; `rust_log` is the value of
/// `RUST_LOG`, whose directives come on top.
pub fn start(log: &Log, rust_log: Option<String>) -> Result<LogLevel, LoggingError> {
    let (filter, handle) = reload::Layer::new(filter(log.level, rust_log.as_deref())?);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(false);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines).with(filter).try_init()?;
    let replace = Box::new(move |filter| handle.reload(filter));
    Ok(LogLevel { replace, rust_log, now: Mutex::new(log.level) })
}

/// Puts another filter in the place of the present one.
type Replace = Box<dyn Fn(Targets) -> Result<(), reload::Error> + Send + Sync>;

/// The level of what is logged, which can change.
pub struct LogLevel {
    replace: Replace,
    rust_log: Option<String>,
    now: Mutex<LevelFilter>,
}

impl LogLevel {
    /// Logs what is of this level, with the directives of `RUST_LOG` on top as at the start; the
    /// level before.
    ///
    /// # Errors
    ///
    /// The process has stopped logging.
    pub fn set(&self, level: LevelFilter) -> Result<LevelFilter, LoggingError> {
        let mut now = self.now.lock();
        (self.replace)(filter(level, self.rust_log.as_deref())?)?;
        Ok(std::mem::replace(&mut now, level))
    }

    /// The level.
    pub fn now(&self) -> LevelFilter {
        *self.now.lock()
    }
}

fn filter(level: LevelFilter, rust_log: Option<&str>) -> Result<Targets, LoggingError> {
    // Of two directives for the same target, the later one wins.
    let own = format!("{level},{CRATES}");
    let all = match rust_log.map(str::trim) {
        None | Some("") => own,
        Some(more) => format!("{own},{more}"),
    };
    Ok(all.parse()?)
}

/// Lets at most a number of lines a second through, and counts the others. For a `static`, one for
/// each kind of line; see [`peer_log!`](crate::peer_log).
pub struct PeerLog {
    per_second: u32,
    /// The second (high half) and the lines in it (low half).
    window: AtomicU64,
    suppressed: AtomicU64,
}

impl PeerLog {
    /// A log of at most `per_second` lines.
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, window: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether a line may be written now: then, how many were not since the last one.
    pub fn admit(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(START.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        let (second, limit) = (second << 32, u64::from(self.per_second));
        let admitted = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            if window & !u64::from(u32::MAX) == second {
                (window - second < limit).then_some(window + 1)
            } else {
                (limit > 0).then_some(second + 1)
            }
        });
        match admitted {
            Ok(_) => Some(self.suppressed.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Logs at info what a peer has caused, through a [`PeerLog`]:
/// `peer_log!(REFUSED, peer = %addr, "login refused")`. The field `suppressed` says how many such
/// lines were left out before this one.
#[macro_export]
macro_rules! peer_log {
    ($log:expr, $($line:tt)+) => {
        if ::tracing::enabled!(::tracing::Level::INFO)
            && let Some(suppressed) = $log.admit()
        {
            ::tracing::info!(suppressed, $($line)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_refines_the_level() {
        let check = |level, rust_log: Option<&str>, parts: &[&str]| {
            let filter = filter(level, rust_log).expect("directives").to_string();
            for part in parts {
                assert!(filter.split(',').any(|have| have == *part), "{filter} lacks {part}");
            }
        };
        check(LevelFilter::INFO, None, &["info", "fjall=warn", "lsm_tree=warn"]);
        check(LevelFilter::OFF, Some(""), &["off"]);
        check(LevelFilter::INFO, Some("warn,tr50d=debug"), &["warn", "tr50d=debug", "fjall=warn"]);
        check(LevelFilter::INFO, Some("fjall=info"), &["info", "fjall=info"]);
        assert!(filter(LevelFilter::INFO, Some("tr50d=loud")).is_err());
    }

    #[test]
    fn lines_are_limited_and_the_others_counted() {
        let log = PeerLog::new(2);
        assert_eq!(log.admit_at(0), Some(0));
        assert_eq!(log.admit_at(0), Some(0));
        assert_eq!(log.admit_at(0), None);
        assert_eq!(log.admit_at(0), None);
        assert_eq!(log.admit_at(1), Some(2));
        assert_eq!(log.admit_at(1), Some(0));
        assert_eq!(log.admit_at(1), None);
        assert_eq!(log.admit_at(9), Some(1));
        assert_eq!(PeerLog::new(0).admit_at(3), None);
    }

    #[test]
    fn the_macro_takes_fields() {
        static LOG: PeerLog = PeerLog::new(1);
        peer_log!(LOG, peer = %"192.0.2.1:9", "refused");
        peer_log!(LOG, "refused {}", 1);
    }
}
