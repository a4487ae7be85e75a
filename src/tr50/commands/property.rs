//! `property.*`: properties of things, which are numbers (`docs/protocol/tr50.md` 4.1).

use base::{
    Code, Failure, Timestamp, excerpt,
    json::{self, ObjectWriter, key},
    limits,
};
use store::Row;

use super::commands;
use super::history::{self, Ago, At, Form, HistoryQuery, Range, ValueAt};
use super::publish::{self, Item, Name, Source, required_field};
use super::target::{Past, Target};
use crate::things::telemetry::aggregate::{Aggregation, Calc, Step};
use crate::things::telemetry::point::{Kind, Value};
use crate::things::telemetry::{NewPoint, Points, Span};
use crate::tr50::params::{Field, params};
use crate::tr50::step::{Call, Later, Looked, WriteReply};

commands! {
    "property.aggregate" => aggregate, [NOT_FOUND],
        "Calculates one value of a property for each hour or day, or for the whole span.",
        "`values`, an array of `value` and `ts`, the beginning of the hour or day; with `split`: \
         `values` and `ts`, two arrays";
    "property.batch" => publish::batch::<Property>, [NOT_FOUND],
        "Records values of properties, in order, up to the first that is wrong. The reply is sent \
         when what came before that is durable.",
        "";
    "property.current" => current, [NOT_FOUND],
        "Shows the value of a property.",
        "`value`, `ts`, `corrId`";
    "property.history" => history, [NOT_FOUND],
        "Lists values of a property, oldest first, at most 5000.",
        "`values`, an array of `id` (if asked for), `value`, `ts` and `corrId`; with `split`: \
         `values`, `ts` and `ids`, three arrays";
    "property.publish" => publish::one::<Property>, [NOT_FOUND],
        "Records a value of a property.",
        "";
}

/// A value of a property.
pub struct Property;

impl Item for Property {
    const KIND: Kind = Kind::Property;
    const BATCH: &'static str = "property.batch";

    fn fields() -> Vec<Field> {
        vec![
            required_field::<Name>("key", "The property's name."),
            required_field::<f64>("value", "The value."),
        ]
    }

    fn read(source: &Source<'_, '_, '_>) -> Result<NewPoint, Failure> {
        let Name(name) = source.required("key")?;
        let value = source.required("value")?;
        source.point(name, Value::Property(value))
    }
}

/// `property.current`.
pub fn current(call: &Call<'_>, (target, at): (Target, At)) -> Result<Looked<ValueAt>, Failure> {
    call.look(at.ts.is_some(), move |call| {
        let owner = target.subject(call)?.id.into();
        let value = history::value_at(call, owner, Kind::Property, &at.key.0, at.ts)?;
        value.ok_or_else(|| {
            Failure::not_found(format!("A value of property \"{}\"", excerpt(&at.key.0)))
        })
    })
}

params! {
    /// Which property, and in which form.
    pub struct HistoryParams {
        required key: Name = "key", "The property's name.";
        optional split: bool = "split", "Values and times in arrays of their own.";
        optional return_ids: bool = "returnIds", "With an id for each value.";
    }
}

/// `property.history`.
pub fn history(
    call: &Call<'_>,
    (target, (which, range)): (Past, (HistoryParams, Range)),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let series = history::series_of(call, &target, Kind::Property, &which.key.0)?;
        let (span, limit) = range.span(call.now);
        let wanted = HistoryQuery { span, limit, offset: None, filter: None };
        let form = Form {
            split: which.split.unwrap_or(false),
            ids: which.return_ids.unwrap_or(false),
            addresses: false,
        };
        history::read(call, series.as_ref(), &wanted, form)
    })
}

params! {
    /// What is calculated.
    pub struct Calculation {
        required key: Name = "key", "The property's name.";
        required calc: String = "calc",
            "`avg`, `wavg` (weighted with the time for which a value holds), `nzwavg` (the same without zeros), `sum`, `max`, `min` or `count`.";
        optional series: String = "series", "`hour` or `day`, in UTC; one value for all by default.";
        optional last: Ago = "last", "The values of this time until now, such as `24h` or `7d`.";
        optional start: Timestamp = "start", "The first time.";
        optional end: Timestamp = "end", "The last time; swapped with `start` if it is earlier.";
        optional split: bool = "split", "Values and times in arrays of their own.";
    }
}

impl Calculation {
    fn calc(&self) -> Result<Calc, Failure> {
        let named = |(name, _): &&(&str, Calc)| name.eq_ignore_ascii_case(&self.calc);
        let found = Calc::NAMES.iter().find(named).map(|(_, calc)| *calc);
        let allowed = || Calc::NAMES.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| refused("calc", &allowed(), &self.calc))
    }

    fn step(&self) -> Result<Step, Failure> {
        match self.series.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("") => Ok(Step::Whole),
            Some("hour") => Ok(Step::Hour),
            Some("day") => Ok(Step::Day),
            Some(other) => Err(refused("series", "hour, day", other)),
        }
    }
}

fn refused(name: &str, allowed: &str, value: &str) -> Failure {
    let value = excerpt(value);
    let sentence = format!("Parameter \"{name}\" must be one of {allowed}; it is \"{value}\".");
    Failure::new(Code::PARAMETER_INVALID, sentence)
}

/// The reply of `property.aggregate`.
pub struct Aggregated {
    values: Vec<(Timestamp, f64)>,
    split: bool,
}

/// `property.aggregate`. It is calculated from the points when it is asked for, whether or not the
/// definition of the thing says `calcAggregates`.
pub fn aggregate(call: &Call<'_>, (target, wanted): (Past, Calculation)) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let (calc, step) = (wanted.calc()?, wanted.step()?);
        let split = wanted.split.unwrap_or(false);
        let series = history::series_of(call, &target, Kind::Property, &wanted.key.0)?;
        let Some(series) = series else { return Ok(Aggregated { values: Vec::new(), split }) };
        let range =
            Range { records: None, last: wanted.last, start: wanted.start, end: wanted.end };
        let (span, _) = range.span(call.now);
        let span = Span { backwards: false, ..span };
        let before = span.from.plus_millis(-1);
        let carried = match call.app.telemetry.point_at(&series, before)? {
            Some(row) if calc.is_weighted() => value_of(&row)?.map(|(_, value)| value),
            _ => None,
        };
        let points = call.app.telemetry.points(&series, span, limits::POINTS_PAGE);
        let mut points = points.take(limits::AGGREGATED_MAX + 1).peekable();
        // What is not bounded begins with the first value, and does not go beyond this moment.
        let first = match points.peek() {
            Some(Ok(row)) if carried.is_none() => value_of(row)?.map_or(span.from, |(ts, _)| ts),
            _ => span.from,
        };
        let from = if wanted.start.is_some() || wanted.last.is_some() { span.from } else { first };
        let bounds = (from, span.to.min(call.now));
        let mut aggregation =
            Aggregation::new(calc, step, bounds, carried, limits::HISTORY_MAX as usize);
        for (index, row) in points.enumerate() {
            let Some((ts, value)) = value_of(&row?)? else { continue };
            if index == limits::AGGREGATED_MAX || !aggregation.add(ts, value) {
                return Err(too_much());
            }
        }
        let values = aggregation.finish().ok_or_else(too_much)?;
        Ok(Aggregated { values, split })
    })
}

fn value_of(row: &Row) -> Result<Option<(Timestamp, f64)>, Failure> {
    let point = Points::decode(Kind::Property, row)?;
    Ok(match point.value {
        Value::Property(value) => Some((point.ts, value)),
        _ => None,
    })
}

fn too_much() -> Failure {
    let (points, values) = (limits::AGGREGATED_MAX, limits::HISTORY_MAX);
    let sentence = format!(
        "The span has more than {points} points or gives more than {values} values; ask for a \
         shorter one."
    );
    Failure::new(Code::REPLY_TOO_LARGE, sentence)
}

impl WriteReply for Aggregated {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":"#);
        let mut object = ObjectWriter::new(out);
        if self.split {
            history::write_array(
                object.name(key!("values")),
                self.values.iter(),
                |out, (_, value)| {
                    json::push_number(out, *value);
                },
            );
            history::write_array(object.name(key!("ts")), self.values.iter(), |out, (ts, _)| {
                json::push_value(out, ts);
            });
        } else {
            let out = object.name(key!("values"));
            history::write_array(out, self.values.iter(), |out, (ts, value)| {
                let mut object = ObjectWriter::new(out);
                object.number(key!("value"), *value);
                object.time(key!("ts"), *ts);
                object.end();
            });
        }
        object.end();
        out.push(b'}');
    }
}
