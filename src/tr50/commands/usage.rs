//! How many were connected in the hours or days of a time: `usage.connection.history`,
//! `usage.thing.history`.

use std::collections::HashSet;
use std::sync::Arc;

use base::{Code, Failure, OrgId, Timestamp, excerpt, limits};
use rules::directory::Who;
use rules::identity::model::Org;

use super::authorize::invalid_param;
use super::commands;
use super::history::Ago;
use super::target::is_restricted;
use crate::app::{Unit, UsageQuery};
use crate::tr50::envelope::Param;
use crate::tr50::params::{self, params};
use crate::tr50::step::{Call, Later};

commands! {
    "usage.connection.history" => connections where check_sees_all_things, [],
        "Shows how many sessions there were in each hour or day of a time, in UTC. Without `last`, `start` \
         and `end`, it is of the last 24 hours or 30 days.",
        "`ts`, an array of the beginnings of the hours or days, the oldest first; `connected`, an array \
         of how many sessions a connection held at some time in each, and `total`, of how many there \
         were, those over HTTP among them. The last one is counted up to now";
    "usage.thing.history" => things where check_sees_all_things, [],
        "Shows how many things were connected in each hour or day of a time, in UTC. Without `last`, \
         `start` and `end`, it is of the last 24 hours or 30 days.",
        "`ts`, an array of the beginnings of the hours or days, the oldest first; `connected`, an array \
         of how many different things had a connection at some time in each, and `total`, of how many \
         things there were. The last one is counted up to now";
}

params! {
    /// Which hours or days, and whose figures.
    pub struct UsageParams {
        optional series: String = "series", "`hour` (default) or `day`.";
        optional last: Last = "last",
            "So many hours or days of `series`, the one that goes on among them: a number, or a time such as `24h` or `7d`.";
        optional start: Timestamp = "start", "The first time.";
        optional end: Timestamp = "end", "The time before which it ends; now by default.";
        optional include_sub_orgs: bool = "includeSubOrgs",
            "Together with those of all organisations below, for who may see those.";
        optional show_all: bool = "showAll", "Without effect: all are counted.";
    }
}

/// A time until now: a duration, or a number of hours or days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// So many milliseconds.
    Span(i64),
    /// So many hours or days, the one that goes on among them.
    Units(u64),
}

impl params::Value for Last {
    const EXPECTED: &'static str = "a duration such as 24h or 7d, or a whole number";

    fn read(param: Param<'_>) -> Option<Self> {
        let units = <u64 as params::Value>::read(param).map(Self::Units);
        units.or_else(|| Ago::read(param).map(|Ago(millis)| Self::Span(millis)))
    }
}

/// `usage.connection.history`.
pub fn connections(call: &Call<'_>, params: UsageParams) -> Result<Later, Failure> {
    usage(call, &params, false)
}

/// `usage.thing.history`.
pub fn things(call: &Call<'_>, params: UsageParams) -> Result<Later, Failure> {
    usage(call, &params, true)
}

fn check_sees_all_things(call: &Call<'_>) -> Result<(), Failure> {
    if !is_restricted(call) {
        return Ok(());
    }
    let sentence = "The figures are of all things, and this session may only see its own.";
    Err(Failure::new(Code::PERMISSION_DENIED, sentence))
}

fn usage(call: &Call<'_>, params: &UsageParams, things: bool) -> Result<Later, Failure> {
    let unit = match params.series.as_deref().map(str::trim) {
        None | Some("") => Unit::Hour,
        Some(name) if name.eq_ignore_ascii_case("hour") => Unit::Hour,
        Some(name) if name.eq_ignore_ascii_case("day") => Unit::Day,
        Some(name) => {
            let expected = format!("hour or day; it is \"{}\"", excerpt(name));
            return Err(invalid_param("series", &expected));
        }
    };
    let (first, count) = params.span(unit, call.now)?;
    let with_below = params.include_sub_orgs.unwrap_or(false);
    call.look_later(move |call| {
        let orgs = if with_below { orgs_below(call, things) } else { HashSet::new() };
        let orgs: HashSet<_> = orgs.into_iter().chain([call.session.org_id()]).collect();
        if orgs.len().saturating_mul(count) > limits::USAGE_FIGURES_MAX {
            let (asked, most) = (orgs.len(), limits::USAGE_FIGURES_MAX);
            let sentence = format!(
                "The time is too long for {asked} organisations: a reply is made of {most} figures at most."
            );
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let query = UsageQuery { orgs, unit, first, count, things };
        Ok(call.app.usage(&query, call.app.clock.now())?)
    })
}

impl UsageParams {
    /// When the first hour or day begins, and how many there are.
    fn span(&self, unit: Unit, now: Timestamp) -> Result<(Timestamp, usize), Failure> {
        let wrong = |sentence: String| Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        if self.last.is_some() && (self.start.is_some() || self.end.is_some()) {
            return wrong("There is either \"last\" or \"start\" and \"end\".".into());
        }
        if self.start.is_some_and(|start| start > now) {
            return wrong("The time has not come yet.".into());
        }
        if self.start.zip(self.end).is_some_and(|(start, end)| end < start) {
            return wrong("\"end\" is before \"start\".".into());
        }
        // What ends with an hour has nothing of the next one.
        let last = unit.begin(match self.end {
            Some(end) if end > now => now,
            Some(end) if self.start != Some(end) => end.plus_millis(-1),
            Some(end) => end,
            None => now,
        });
        let units = match self.last {
            None if unit == Unit::Hour => 24,
            None => 30,
            Some(Last::Units(units)) => units,
            Some(Last::Span(millis)) => (millis.max(0) as u64).div_ceil(unit.millis() as u64),
        };
        if units == 0 {
            return Err(invalid_param("last", "a time that is not 0"));
        }
        let count = match self.start {
            Some(start) => last.millis_since(unit.begin(start)) / unit.millis() as u64 + 1,
            None => units,
        };
        let most = limits::USAGE_POINTS_MAX;
        match usize::try_from(count) {
            Ok(count) if count <= most => {
                Ok((last.plus_millis(-(count as i64 - 1) * unit.millis()), count))
            }
            _ => wrong(format!("The time has more than {most} hours or days of \"series\".")),
        }
    }
}

/// The organisations below the caller's whose figures the caller may see, too.
fn orgs_below(call: &Call<'_>, things: bool) -> HashSet<OrgId> {
    let access = call.session.access();
    let identity = call.app.identity();
    let name = if things { "usage.thing.history" } else { "usage.connection.history" };
    let sees = |org: &Arc<Org>| match call.session.who() {
        _ if access.authority().sees_all() || access.org_admin => true,
        Who::User(user) => {
            let access = identity.user(user.id).and_then(|user| identity.user_access(&user, org));
            let token = call.session.token();
            let access = access.map(|access| match token {
                Some(token) => access.by_token(token),
                None => access,
            });
            access.is_some_and(|access| access.allows(name))
        }
        Who::Application { .. } => false,
    };
    let (mut found, mut next) = (HashSet::new(), vec![access.org.id]);
    while let Some(org) = next.pop() {
        for below in identity.orgs_below(org) {
            next.push(below.id);
            if sees(&below) {
                found.insert(below.id);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_hours_and_days() {
        fn time(text: &str) -> Timestamp {
            Timestamp::parse(text).expect("a time")
        }
        let now = time("2021-08-10T14:16:10Z");
        let span = |last, start, end: Option<&str>, unit| {
            let params = UsageParams {
                series: None,
                last,
                start,
                end: end.map(time),
                include_sub_orgs: None,
                show_all: None,
            };
            let span = params.span(unit, now).map_err(|failure| failure.message);
            span.map(|(first, count)| (first.to_string(), count))
        };
        let check = |last, start: Option<&str>, end, unit, first: &str, count| {
            let got = span(last, start.map(time), end, unit);
            assert_eq!(got, Ok((first.to_owned(), count)));
        };
        use Unit::{Day, Hour};
        check(None, None, None, Hour, "2021-08-09T15:00:00.000Z", 24);
        check(None, None, None, Day, "2021-07-12T00:00:00.000Z", 30);
        check(Some(Last::Units(1)), None, None, Hour, "2021-08-10T14:00:00.000Z", 1);
        check(Some(Last::Span(3_600_000)), None, None, Hour, "2021-08-10T14:00:00.000Z", 1);
        check(Some(Last::Span(3_600_001)), None, None, Hour, "2021-08-10T13:00:00.000Z", 2);
        let (start, end) = (Some("2021-08-09T23:59:59Z"), Some("2021-08-10T00:00:00Z"));
        check(None, start, end, Day, "2021-08-09T00:00:00.000Z", 1);
        check(None, start, start, Hour, "2021-08-09T23:00:00.000Z", 1);
        check(None, start, Some("2031-08-10T00:00:00Z"), Hour, "2021-08-09T23:00:00.000Z", 16);
        check(None, None, end, Day, "2021-07-11T00:00:00.000Z", 30);
        for (last, start, end) in [
            (Some(Last::Units(1)), start, None),
            (Some(Last::Units(1)), None, end),
            (Some(Last::Units(0)), None, None),
            (Some(Last::Units(u64::MAX)), None, None),
            (None, end, start),
            (None, Some("2021-08-10T15:00:00Z"), None),
            (None, Some("0001-01-01T00:00:00Z"), None),
        ] {
            assert!(span(last, start.map(time), end, Hour).is_err(), "{last:?} {start:?} {end:?}");
        }
    }
}
