//! The subcommands that talk to a server.

pub mod call;
pub mod demo;
pub mod fleet;

use std::time::Duration;

/// Reads a number of seconds, with or without a fraction, more than 0 and at most ten days.
fn seconds(text: &str) -> Result<Duration, String> {
    let possible = |seconds: &f64| *seconds > 0.0 && *seconds <= 864_000.0;
    let seconds = text.parse().ok().filter(possible);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number of seconds".to_owned())
}
