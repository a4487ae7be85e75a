//! `GetLoginSessionInfo` and `SetLoginSessionInfo`: the idle time after which sessions expire
//! (`docs/protocol/element.md` B3).
//!
//! It holds for all sessions that start from then on, over whatever protocol; TR50 shows it as
//! `ttl`. It is stored, and then wins over `sessions.ttl_s` of the configuration.

use base::json;

use super::error::{self, Error};
use super::methods::{Call, Task};
use super::request::Params;

/// The shortest idle time that can be set, in seconds.
const SECONDS_MIN: u64 = 60;

/// `GetLoginSessionInfo`.
pub(super) fn show(call: &Call<'_>, _: &Params<'_>) -> Result<Task, Error> {
    if !call.caller.sees_others() {
        return Err(Error::denied("Only administrators may see this."));
    }
    let mut result = br#"{"loginSessionInfo":{"timeout":"#.to_vec();
    json::push_string(&mut result, &text_of(call.app.directory().ttl_s()));
    result.extend_from_slice(b"}}");
    Ok(Task::Answer(result))
}

/// `SetLoginSessionInfo`: without a timeout, or with one of zero, sessions over HTTP live as long
/// as their age allows (`sessions.max_age_s`), others as long as their connections.
pub(super) fn set(call: &Call<'_>, params: &Params<'_>) -> Result<Task, Error> {
    if !call.caller.is_super_admin() {
        return Err(Error::denied("Only super administrators may change this."));
    }
    let invalid = |message: String| Err(Error::new(error::INVALID_PARAMETER, message));
    let seconds = match params.text("timeout")? {
        None => 0,
        Some(text) => match seconds_of(&text) {
            Some(seconds) => seconds,
            None => {
                return invalid("Parameter \"timeout\" must have the form HH:mm:ss.".to_owned());
            }
        },
    };
    let seconds_max = call.app.config.sessions.max_age_s;
    if (1..SECONDS_MIN).contains(&seconds) {
        return invalid("Parameter \"timeout\" must be at least one minute, or zero.".to_owned());
    }
    if seconds > seconds_max {
        let longest = text_of(seconds_max);
        let message =
            format!("Parameter \"timeout\" must be at most {longest}, the age of a session.");
        return invalid(message);
    }
    Ok(Task::SetTimeout(seconds))
}

/// Reads `01:30:00`, `00:90:00`, `00:00:5400`, and what [`text_of`] writes: seconds, minutes and,
/// if there are any, hours.
fn seconds_of(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.trim().split(':').collect();
    if !(2..=3).contains(&fields.len()) {
        return None;
    }
    fields.iter().try_fold(0_u64, |seconds, field| {
        let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = field.parse().ok().filter(|_| digits)?;
        seconds.checked_mul(60)?.checked_add(number)
    })
}

/// `1:30:00`, `30:00`, `5:00`: without leading zeros, but always with minutes.
fn text_of(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_timeout_is_read() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(seconds_of(text), seconds, "{text}");
        };
        for text in ["01:30:00", "00:90:00", "00:00:5400", "1:30:0", "90:00", " 1:29:60 "] {
            check(text, Some(5400));
        }
        check("00:00:00", Some(0));
        check("99:00:00", Some(356_400));
        for text in ["", "30", "a:00:00", "-1:00:00", "+1:00:00", "1::00", ":", "1:2:3:4", "1.5:0"]
        {
            check(text, None);
        }
        check("18446744073709551615:00", None);
        check("18446744073709551616:00", None);
    }

    #[test]
    fn a_timeout_is_written_without_leading_zeros() {
        let check = |seconds: u64, text: &str| {
            assert_eq!(text_of(seconds), text);
            assert_eq!(seconds_of(text), Some(seconds));
        };
        check(0, "0:00");
        check(5, "0:05");
        check(60, "1:00");
        check(1800, "30:00");
        check(5400, "1:30:00");
        check(86_400, "24:00:00");
    }
}
