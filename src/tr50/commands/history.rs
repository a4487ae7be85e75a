//! What all commands that read telemetry have in common: the span of time, and the reply.

use base::{
    Code, Failure, Timestamp,
    json::{self, Key, ObjectWriter, key},
    limits,
};
use data_encoding::HEXLOWER;
use store::Row;

use super::publish::Name;
use super::target::Past;
use crate::things::telemetry::point::{Alarm, Kind, Location, Point, Value};
use crate::things::telemetry::{LocationNow, Owner, Points, Series, Span};
use crate::tr50::envelope::Param;
use crate::tr50::params::{self, params};
use crate::tr50::step::{Call, WriteReply};

params! {
    /// Which part of a history: `records` wins over `last`, which wins over `start` and `end`.
    pub struct Range {
        optional records: u64 = "records", "The newest so many points; 0 means as many as allowed.";
        optional last: Ago = "last", "The points of this time until now, such as `24h`, `1h30m` or `7d`.";
        optional start: Timestamp = "start",
            "The first time. With it, a history that is too long is cut at its end, otherwise at its beginning.";
        optional end: Timestamp = "end", "The last time; swapped with `start` if it is earlier.";
    }
}

/// A span of time up to now, in milliseconds, written as Go's durations are
/// (`docs/protocol/tr50.md` 2, "Durations"): numbers with units, `1h30m`, `1.5s`, and `d` for days
/// besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ago(pub(super) i64);

impl params::Value for Ago {
    const EXPECTED: &'static str = "a duration such as 90s, 1h30m or 7d";

    fn read(param: Param<'_>) -> Option<Self> {
        parse_duration(param.text()?.trim()).map(Self)
    }
}

/// Milliseconds of a duration in Go's form.
fn parse_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 60e3),
        ("h", 3_600e3),
        ("d", 86_400e3),
    ];
    let mut rest = text;
    let mut millis = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let unit = tail.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, tail) = tail.split_at(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        millis += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    // A thousand years: more is a mistake.
    let plausible = !text.is_empty() && millis <= 3.2e13;
    plausible.then_some(millis as i64)
}

impl Range {
    /// The span, and how many points of it are wanted at most.
    pub fn span(&self, now: Timestamp) -> (Span, usize) {
        let (first, last) = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        let all = limits::HISTORY_MAX;
        if let Some(records) = self.records {
            let count = if records == 0 { all } else { records.min(all) };
            return (Span { from: first, to: last, backwards: true }, count as usize);
        }
        if let Some(Ago(millis)) = self.last {
            let from = now.plus_millis(-millis);
            return (Span { from, to: last, backwards: true }, all as usize);
        }
        let (from, to) = (self.start.unwrap_or(first), self.end.unwrap_or(last));
        let (from, to) = if from <= to { (from, to) } else { (to, from) };
        (Span { from, to, backwards: self.start.is_none() }, all as usize)
    }
}

params! {
    /// Which series, and when.
    pub struct At {
        required key: Name = "key", "Its name.";
        optional ts: Timestamp = "ts", "Shows the value that held at this time; now by default.";
    }
}

/// A value that held at a time.
pub struct ValueAt {
    kind: Kind,
    row: Row,
    /// For how long it had held, in milliseconds.
    duration_ms: u64,
}

/// The value that a series has, or had at a time; none when it has none.
pub(super) fn value_at(
    call: &Call<'_>,
    owner: Owner,
    kind: Kind,
    name: &str,
    ts: Option<Timestamp>,
) -> Result<Option<ValueAt>, Failure> {
    let telemetry = &call.app.telemetry;
    let Some(series) = telemetry.series(owner, kind, name)? else { return Ok(None) };
    let at = ts.unwrap_or(call.now);
    let found = if ts.is_none_or(|ts| series.ts <= ts) {
        let duration_ms = at.millis_since(series.since);
        Some(ValueAt { kind, row: series.into_newest_row(), duration_ms })
    } else {
        let row = telemetry.point_at(&series, at)?;
        row.map(|row| {
            let since = crate::things::telemetry::point_time(&row.0).unwrap_or(at);
            ValueAt { kind, row, duration_ms: at.millis_since(since) }
        })
    };
    Ok(found.filter(|value| !value.is_unset()))
}

impl ValueAt {
    fn is_unset(&self) -> bool {
        let point = Points::decode(self.kind, &self.row);
        point.is_ok_and(|point| point.value == Value::Attribute(None))
    }
}

impl WriteReply for ValueAt {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        if let Some(point) = readable(self.kind, &self.row) {
            let duration = (self.kind == Kind::Alarm).then_some(self.duration_ms);
            write_point(&mut object, &point, duration, true);
        }
        object.end();
        out.push(b'}');
    }
}

/// Points of a series, oldest first.
#[derive(Default)]
pub(super) struct History {
    kind: Option<Kind>,
    rows: Vec<Row>,
    /// How many there are in all, when the reply says so.
    count: Option<usize>,
    form: Form,
}

/// How a history is written.
#[derive(Clone, Copy, Default)]
pub(super) struct Form {
    /// Values and times in arrays of their own.
    pub split: bool,
    /// With the points' ids.
    pub ids: bool,
    /// With addresses.
    pub addresses: bool,
}

/// What is read of a series, and how much of it.
pub(super) struct HistoryQuery<'w> {
    /// The span of time.
    pub span: Span,
    /// Points to return at most.
    pub limit: usize,
    /// Points to leave out first; the reply says how many there are in all.
    pub offset: Option<usize>,
    /// Which points count.
    pub filter: Option<&'w dyn Fn(&Point<'_>) -> bool>,
}

/// Reads a history. A series that does not exist has an empty one.
///
/// # Errors
///
/// The store fails, or the points have too many bytes for one reply.
pub(super) fn read(
    call: &Call<'_>,
    series: Option<&Series>,
    wanted: &HistoryQuery<'_>,
    form: Form,
) -> Result<History, Failure> {
    let counted = wanted.offset.is_some();
    let Some(series) = series else {
        return Ok(History { count: counted.then_some(0), form, ..History::default() });
    };
    let page = if counted || wanted.filter.is_some() { limits::POINTS_PAGE } else { wanted.limit };
    let points = call.app.telemetry.points(series, wanted.span, page);
    let (offset, mut count, mut bytes) = (wanted.offset.unwrap_or(0), 0, 0);
    let mut rows = Vec::new();
    for row in points.take(limits::POINTS_SEARCHED_MAX) {
        let row = row?;
        if let Some(filter) = wanted.filter
            && !filter(&Points::decode(series.kind, &row)?)
        {
            continue;
        }
        count += 1;
        if count > offset && rows.len() < wanted.limit {
            bytes += row.1.len();
            if bytes > limits::HISTORY_BYTES_MAX {
                return Err(too_large());
            }
            rows.push(row);
        }
        if !counted && rows.len() == wanted.limit {
            break;
        }
    }
    if wanted.span.backwards {
        rows.reverse();
    }
    Ok(History { kind: Some(series.kind), rows, count: counted.then_some(count), form })
}

/// The failure of a history that does not fit into one reply.
pub(super) fn too_large() -> Failure {
    let most = limits::HISTORY_BYTES_MAX;
    let sentence = format!("The history has more than {most} bytes; ask for fewer records.");
    Failure::new(Code::REPLY_TOO_LARGE, sentence)
}

impl History {
    /// Puts the newest point first.
    #[must_use]
    pub(super) fn newest_first(mut self, newest_first: bool) -> Self {
        if newest_first {
            self.rows.reverse();
        }
        self
    }

    /// How many points the reply has.
    pub(super) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// The bytes that its points have.
    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(|(_, value)| value.len()).sum()
    }

    /// The rows and what they are.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Row, Point<'_>)> {
        let kind = self.kind;
        self.rows.iter().filter_map(move |row| Some((row, readable(kind?, row)?)))
    }

    /// How many points there are in all, when that was counted.
    pub(super) fn count(&self) -> usize {
        self.count.unwrap_or(self.rows.len())
    }

    /// Appends the array of points.
    pub(super) fn write_values(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        let start = out.len();
        for (row, point) in self.rows() {
            if out.len() > start {
                out.push(b',');
            }
            let mut object = ObjectWriter::new(out);
            if self.form.ids {
                object.string(key!("id"), &point_id(row));
            }
            write_point(&mut object, &point, None, self.form.addresses);
            object.end();
        }
        out.push(b']');
    }

    /// Appends the members `values` and `ts`, each an array.
    fn write_split(&self, object: &mut ObjectWriter<'_>) {
        let out = object.name(key!("values"));
        write_array(out, self.rows(), |out, (_, point)| write_value(out, &point.value));
        let out = object.name(key!("ts"));
        write_array(out, self.rows(), |out, (_, point)| {
            out.push(b'"');
            out.extend_from_slice(&point.ts.to_rfc3339());
            out.push(b'"');
        });
        if self.form.ids {
            let out = object.name(key!("ids"));
            write_array(out, self.rows(), |out, (row, _)| json::push_string(out, &point_id(row)));
        }
    }

    /// Appends the members of the reply.
    pub(super) fn write_members(&self, object: &mut ObjectWriter<'_>) {
        if let Some(count) = self.count {
            object.integer(key!("count"), count as u64);
        }
        if self.form.split {
            self.write_split(object);
        } else {
            self.write_values(object.name(key!("values")));
        }
    }
}

impl WriteReply for History {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        self.write_members(&mut object);
        object.end();
        out.push(b'}');
    }
}

/// Appends an array.
pub(super) fn write_array<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    let start = out.len();
    for item in items {
        if out.len() > start {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// The id of a point: its time and arrival, of which its series has no second one.
pub(super) fn point_id(row: &Row) -> String {
    HEXLOWER.encode(row.0.get(8..).unwrap_or_default())
}

/// The point of a row. One that is damaged is left out, and the log says so.
fn readable(kind: Kind, row: &Row) -> Option<Point<'_>> {
    match Points::decode(kind, row) {
        Ok(point) => Some(point),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a point was left out");
            None
        }
    }
}

/// Appends the bare value of a point: a number, a state, a text or a pair of coordinates.
fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Property(value) => json::push_number(out, *value),
        Value::Alarm(alarm) => json::push_integer(out, alarm.state),
        Value::Attribute(Some(value)) => json::push_string(out, value),
        Value::Attribute(None) => out.extend_from_slice(b"null"),
        Value::Location(location) => {
            out.push(b'[');
            json::push_number(out, location.lat);
            out.push(b',');
            json::push_number(out, location.lng);
            out.push(b']');
        }
        Value::Log(entry) => json::push_string(out, &entry.msg),
    }
}

/// Writes the members of a point.
fn write_point(
    object: &mut ObjectWriter<'_>,
    point: &Point<'_>,
    duration: Option<u64>,
    addresses: bool,
) {
    match &point.value {
        Value::Property(_) | Value::Attribute(_) => {
            write_value(object.name(key!("value")), &point.value);
        }
        Value::Alarm(Alarm { state, msg, .. }) => {
            json::push_integer(object.name(key!("state")), *state);
            if let Some(duration) = duration {
                object.integer(key!("duration"), duration);
            }
            object.string(key!("msg"), msg.as_deref().unwrap_or_default());
        }
        Value::Location(location) => write_location(object, location, addresses),
        Value::Log(entry) => {
            object.integer(key!("level"), entry.level.into());
            object.string(key!("msg"), &entry.msg);
        }
    }
    object.time(key!("ts"), point.ts);
    if let Some(corr_id) = &point.corr_id {
        object.string(key!("corrId"), corr_id);
    }
    if let Value::Alarm(Alarm { place: Some((lat, lng)), .. }) = point.value {
        object.number(key!("lat"), lat);
        object.number(key!("lng"), lng);
    }
}

fn write_location(object: &mut ObjectWriter<'_>, location: &Location<'_>, addresses: bool) {
    object.number(key!("lat"), location.lat);
    object.number(key!("lng"), location.lng);
    let numbers: [(Key, Option<f64>); 4] = [
        (key!("heading"), location.heading),
        (key!("altitude"), location.altitude),
        (key!("speed"), location.speed),
        (key!("fixAcc"), location.fix_acc),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            object.number(name, number);
        }
    }
    if let Some(fix_type) = &location.fix_type {
        object.string(key!("fixType"), fix_type);
    }
    if addresses && location.address.iter().any(Option::is_some) {
        let out = object.name(key!("addr"));
        let lines = LocationNow::ADDRESS.into_iter().zip(&location.address);
        let lines: Vec<_> = lines.filter_map(|(name, line)| Some((name, line.as_ref()?))).collect();
        out.push(b'{');
        for (index, (name, line)) in lines.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::push_string(out, name);
            out.push(b':');
            json::push_string(out, line);
        }
        out.push(b'}');
    }
}

/// The series of a thing that a command names, for who asks for its past.
///
/// # Errors
///
/// There is no such thing, its past is not for the caller, or the store fails.
pub(super) fn series_of(
    call: &Call<'_>,
    target: &Past,
    kind: Kind,
    name: &str,
) -> Result<Option<Series>, Failure> {
    let owner = target.subject(call)?.id.into();
    Ok(call.app.telemetry.series(owner, kind, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let check = |text: &str, millis| assert_eq!(parse_duration(text), millis, "{text}");
        check("24h", Some(86_400_000));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("250ms", Some(250));
        check("2000us", Some(2));
        check("2000µs", Some(2));
        check("3000000ns", Some(3));
        check("7d", Some(604_800_000));
        check("2d12h", Some(216_000_000));
        for bad in ["", "24", "h", "-1h", "1x", "1h 30m", "1..5h", "99999999d", "24H"] {
            check(bad, None);
        }
    }

    #[test]
    fn records_win_over_last_and_last_over_start_and_end() {
        let now = Timestamp::from_millis(1_000_000);
        let time = Timestamp::from_millis;
        let range = |records, last: Option<i64>, start: Option<i64>, end: Option<i64>| {
            let (start, end) = (start.map(time), end.map(time));
            let (span, limit) = Range { records, last: last.map(Ago), start, end }.span(now);
            (span.from.as_millis(), span.to.as_millis(), span.backwards, limit)
        };
        let (first, last) = (i64::MIN, i64::MAX);
        assert_eq!(range(Some(7), Some(5), Some(1), Some(2)), (first, last, true, 7));
        assert_eq!(range(Some(0), None, None, None), (first, last, true, 5000));
        assert_eq!(range(Some(9999), None, None, None), (first, last, true, 5000));
        assert_eq!(range(None, Some(5), Some(1), Some(2)), (999_995, last, true, 5000));
        assert_eq!(range(None, None, Some(1), Some(2)), (1, 2, false, 5000));
        assert_eq!(range(None, None, Some(2), Some(1)), (1, 2, false, 5000));
        assert_eq!(range(None, None, None, Some(2)), (first, 2, true, 5000));
        assert_eq!(range(None, None, None, None), (first, last, true, 5000));
    }
}
