//! `stats.series`: figures of each second of the last hour.

use std::fmt::Write as _;

use base::{Code, Failure, Timestamp, excerpt, limits};

use super::history::Ago;
use super::target::is_restricted;
use super::{authorize, commands};
use crate::app::{FIGURES, Second};
use crate::tr50::params::params;
use crate::tr50::step::{Call, WriteReply};
use crate::tr50::strict::Strict;

commands! {
    "stats.series" => series where check_whole_server, [],
        "Shows figures of the whole server, second by second, of the last hour. It is for super \
         administrators, super operators, and who has the permission in the topmost organisation: \
         figures of single organisations are not kept. After a start of the server they begin anew.",
        "`ts`, an array of the ends of the seconds, the oldest first; `series`, an object with an array \
         for each name: `connections`, `sessions`, `storeQueue`, `mails`, `memoryBytes` at these times, \
         `commands`, `failures`, `logins`, `refusedLogins`, `messagesIn`, `messagesOut`, \
         `messagesDropped`, `points`, `starts` and `ends` of sessions, and of these `endsLost`, \
         `endsKeepAlive`, `endsLoggedOut` and `endsRevoked`, in each second, `commandP50Ms`, \
         `commandP99Ms` (commands that wait for devices aside) and `commitP99Ms` in milliseconds, null where there were none";
}

params! {
    /// Which figures, and of which time.
    pub struct SeriesParams {
        optional names: Vec<String> = "names", "Only these figures; all by default.";
        optional seconds: u64 = "seconds", "So many of the newest seconds; all by default.";
        optional last: Ago = "last", "Those of this time until now.";
        optional start: Timestamp = "start", "Those that ended at this time or later.";
        optional end: Timestamp = "end", "Those that ended at this time or earlier.";
    }
}

/// The reply of `stats.series`.
pub struct Series {
    /// Indices of figures.
    figures: Vec<usize>,
    /// With the times at which they are shown.
    seconds: Vec<(Timestamp, Second)>,
}

/// `stats.series`.
pub fn series(call: &Call<'_>, Strict(params): Strict<SeriesParams>) -> Result<Series, Failure> {
    let figures = match params.names {
        None => (0..FIGURES.len()).collect(),
        Some(names) => names.iter().map(|name| figure(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let most = match params.seconds {
        None => limits::SERIES_SECONDS,
        Some(0) => return Err(authorize::invalid_param("seconds", "a whole number from 1")),
        Some(seconds) => usize::try_from(seconds).unwrap_or(usize::MAX),
    };
    let since = params.last.map(|Ago(millis)| call.now.plus_millis(-millis));
    let (start, end) = (since.max(params.start), params.end);
    let shown = |at| call.app.clock.shown(at);
    let wants = |at| {
        let at = shown(at);
        start.is_none_or(|start| at >= start) && end.is_none_or(|end| at <= end)
    };
    let seconds = call.app.metrics.seconds(most, wants);
    let seconds = seconds.into_iter().map(|second| (shown(second.at), second)).collect();
    Ok(Series { figures, seconds })
}

/// The figures are those of all organisations together.
pub(super) fn check_whole_server(call: &Call<'_>) -> Result<(), Failure> {
    let access = call.session.access();
    let is_topmost = access.org.parent.is_none() && !is_restricted(call);
    if access.authority().sees_all() || is_topmost {
        return Ok(());
    }
    let sentence = "The figures of the whole server are for super administrators, super operators and \
                    the topmost organisation.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

fn figure(name: &str) -> Result<usize, Failure> {
    let found = FIGURES.iter().position(|figure| figure.name.eq_ignore_ascii_case(name.trim()));
    found.ok_or_else(|| {
        let names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
        let sentence =
            format!("There is no figure \"{}\"; there are {}.", excerpt(name), names.join(", "));
        Failure::new(Code::PARAMETER_INVALID, sentence)
    })
}

impl WriteReply for Series {
    fn write_reply(&self, out: &mut Vec<u8>) {
        let mut text = String::from(r#"{"success":true,"params":{"ts":["#);
        for (index, (at, _)) in self.seconds.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            // Writing to a String can't fail.
            let _ = write!(text, "{comma}\"{at}\"");
        }
        text.push_str(r#"],"series":{"#);
        for (place, index) in self.figures.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let name = FIGURES.get(*index).map_or("", |figure| figure.name);
            let _ = write!(text, "{comma}\"{name}\":[");
            for (place, (_, second)) in self.seconds.iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                let _ = match second.value(*index) {
                    Some(value) => write!(text, "{comma}{value}"),
                    None => write!(text, "{comma}null"),
                };
            }
            text.push(']');
        }
        text.push_str("}}}");
        out.extend_from_slice(text.as_bytes());
    }
}
