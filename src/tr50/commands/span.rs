//! Which part of the stream of events a list is of: by number, by time, and how many.

use base::{Failure, Timestamp};

use super::authorize;
use super::history::Ago;
use crate::events::Order;
use crate::tr50::step::Call;

/// What a list of events was asked for, as its parameters say it.
pub(super) struct Asked<'a> {
    pub(super) last: Option<&'a Ago>,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
    pub(super) after: Option<u64>,
    pub(super) before: Option<u64>,
    pub(super) sort: Option<&'a str>,
    pub(super) limit: Option<u64>,
    pub(super) iterator: Option<&'a str>,
}

/// A part of the stream.
pub(super) struct Span {
    pub(super) order: Order,
    pub(super) after: u64,
    pub(super) before: u64,
    pub(super) limit: usize,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// Events on a page that does not say how many.
const LIMIT_DEFAULT: u64 = 1000;

/// How far clocks are set back at most without a search by time missing something.
const CLOCK_MENDED_S: u64 = 3600;

impl Span {
    /// The part that is asked for; `usual` is the order if none is.
    ///
    /// # Errors
    ///
    /// The order or the iterator is none.
    pub(super) fn of(call: &Call<'_>, usual: &str, asked: Asked<'_>) -> Result<Self, Failure> {
        let sort = asked.sort.unwrap_or(usual);
        let order = match one_of("sort", sort, &["-number", "number"], |name| *name)? {
            "number" => Order::OldestFirst,
            _ => Order::NewestFirst,
        };
        let (mut after, mut before) = (asked.after.unwrap_or(0), asked.before.unwrap_or(u64::MAX));
        if let Some(text) = asked.iterator {
            let number = text
                .parse::<u64>()
                .map_err(|_| authorize::invalid_param("iterator", "what the last reply gave"))?;
            match order {
                Order::NewestFirst => before = before.min(number),
                Order::OldestFirst => after = after.max(number),
            }
        }
        let most = call.app.config.sessions.list_limit;
        let limit = asked.limit.filter(|limit| *limit > 0).unwrap_or(LIMIT_DEFAULT);
        let limit = usize::try_from(limit).unwrap_or(most).min(most);
        let since = asked.last.map(|Ago(millis)| call.now.plus_millis(-millis));
        Ok(Self { order, after, before, limit, start: since.max(asked.start), end: asked.end })
    }

    /// Whether an event of this time is wanted.
    pub(super) fn has(&self, ts: Timestamp) -> bool {
        self.start.is_none_or(|start| ts >= start) && self.end.is_none_or(|end| ts <= end)
    }

    /// Whether nothing that is wanted comes behind an event of this time.
    pub(super) fn is_over(&self, ts: Timestamp) -> bool {
        let before = |start| ts.plus_seconds(CLOCK_MENDED_S) < start;
        self.order == Order::NewestFirst && self.start.is_some_and(before)
    }
}

/// The one of some names that a parameter has, in any case.
///
/// # Errors
///
/// It is none of them.
pub(super) fn one_of<T: Copy>(
    parameter: &str,
    value: &str,
    known: &[T],
    name: impl Fn(&T) -> &'static str,
) -> Result<T, Failure> {
    let found = known.iter().find(|known| name(known).eq_ignore_ascii_case(value));
    found.copied().ok_or_else(|| {
        let names: Vec<_> = known.iter().map(name).collect();
        authorize::invalid_param(parameter, &format!("one of {}", names.join(", ")))
    })
}
