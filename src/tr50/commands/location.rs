//! `location.*`: positions of things (`docs/protocol/tr50.md` 4.1).

use base::{Code, Failure, Timestamp};

use super::attribute::{limited, offset};
use super::commands;
use super::history::{self, Form, HistoryQuery, Range, ValueAt};
use super::publish::{self, Item, Line, Source, field, required_field};
use super::target::{Past, Target};
use crate::things::telemetry::point::{Kind, Location as Position, Point, Text, Value};
use crate::things::telemetry::{LocationNow, NewPoint};
use crate::tr50::params::{Field, params};
use crate::tr50::step::{Call, Later, Looked};

commands! {
    "location.batch" => publish::batch::<Location>, [NOT_FOUND, NOT_CONFIGURED],
        "Records positions of a thing, in order, up to the first that is wrong. The reply is sent \
         when what came before that is durable.",
        "";
    "location.current" => current, [NOT_FOUND],
        "Shows the position of a thing.",
        "`lat`, `lng`, `heading`, `altitude`, `speed`, `fixAcc`, `fixType`, `addr`, `ts`, \
         `corrId`; what was not published is absent";
    "location.history" => history, [NOT_FOUND],
        "Lists positions of a thing, oldest first, at most 5000.",
        "`count`, `values`, an array of what `location.current` shows";
    "location.publish" => publish::one::<Location>, [NOT_FOUND, NOT_CONFIGURED],
        "Records the position of a thing. Radio cells and networks instead of coordinates would \
         need a positioning service, which is not part of this server.",
        "";
}

/// What a thing can send instead of coordinates.
const NETWORK: [&str; 7] = ["mnc", "mcc", "lac", "cellId", "rssi", "cells", "wifi"];

/// A position.
pub struct Location;

impl Item for Location {
    const KIND: Kind = Kind::Location;
    const BATCH: &'static str = "location.batch";

    fn fields() -> Vec<Field> {
        let mut fields = vec![
            required_field::<f64>("lat", "Latitude in degrees, -90 to 90."),
            required_field::<f64>("lng", "Longitude in degrees, -180 to 180."),
            field::<f64>("heading", "Heading."),
            field::<f64>("altitude", "Altitude."),
            field::<f64>("speed", "Speed."),
            field::<f64>("fixAcc", "Accuracy of the position."),
            field::<Line>("fixType", "`gps`, `gnss`, `manual`, `m2m-locate`, `coarse` or another."),
        ];
        let lines = LocationNow::ADDRESS.into_iter();
        fields.extend(lines.map(|name| field::<Line>(name, "A line of the address.")));
        fields
    }

    fn read(source: &Source<'_, '_, '_>) -> Result<NewPoint, Failure> {
        let named = |name| source.has(name);
        if !named("lat") && !named("lng") && NETWORK.into_iter().any(named) {
            let sentence = "Finding a position by radio cells and networks is not configured here.";
            return Err(Failure::new(Code::NOT_CONFIGURED, sentence));
        }
        let mut address = <[Option<Text<'static>>; 6]>::default();
        for (line, name) in address.iter_mut().zip(LocationNow::ADDRESS) {
            *line = text(source, name)?;
        }
        let position = Position {
            lat: degrees(source, "lat", 90.0)?,
            lng: degrees(source, "lng", 180.0)?,
            heading: source.optional("heading")?,
            altitude: source.optional("altitude")?,
            speed: source.optional("speed")?,
            fix_acc: source.optional("fixAcc")?,
            fix_type: text(source, "fixType")?,
            address,
        };
        source.point(String::new(), Value::Location(Box::new(position)))
    }
}

fn text(source: &Source<'_, '_, '_>, name: &str) -> Result<Option<Text<'static>>, Failure> {
    let text = source.optional::<Line>(name)?.map(|line| line.0);
    Ok(text.filter(|text| !text.is_empty()).map(Into::into))
}

fn degrees(source: &Source<'_, '_, '_>, name: &str, most: f64) -> Result<f64, Failure> {
    let degrees: f64 = source.required(name)?;
    if degrees.abs() <= most {
        return Ok(degrees);
    }
    let sentence = format!("Parameter \"{name}\" must be from -{most} to {most}.");
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

params! {
    /// When.
    pub struct When {
        optional ts: Timestamp = "ts", "Shows where the thing was at this time; now by default.";
    }
}

/// `location.current`.
pub fn current(
    call: &Call<'_>,
    (target, when): (Target, When),
) -> Result<Looked<ValueAt>, Failure> {
    call.look(when.ts.is_some(), move |call| {
        let subject = target.subject(call)?;
        let value = history::value_at(call, subject.id.into(), Kind::Location, "", when.ts)?;
        value.ok_or_else(|| Failure::not_found(format!("A location of thing \"{}\"", subject.key)))
    })
}

params! {
    /// Which positions, and in which form.
    pub struct HistoryParams {
        optional fix_type: String = "fixType", "Only positions that were found so.";
        optional offset: u64 = "offset",
            "Positions to leave out: the oldest with `start`, the newest without.";
        optional limit: u64 = "limit", "Positions to return at most, up to 5000.";
        optional show_address: bool = "showAddress", "With the address that was published with it.";
        optional return_ids: bool = "returnIds", "With an id for each position.";
    }
}

/// `location.history`. `showAll` is not looked at: nothing is ever left out of a span but by
/// `limit`.
pub fn history(
    call: &Call<'_>,
    (target, (which, range)): (Past, (HistoryParams, Range)),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let series = history::series_of(call, &target, Kind::Location, "")?;
        let (span, limit) = range.span(call.now);
        let fix_type = which.fix_type.filter(|fix_type| !fix_type.is_empty());
        let found_so = |point: &Point<'_>| match (&point.value, &fix_type) {
            (Value::Location(location), Some(wanted)) => {
                location.fix_type.as_ref().is_some_and(|is| is.eq_ignore_ascii_case(wanted))
            }
            _ => true,
        };
        let wanted = HistoryQuery {
            span,
            limit: limited(which.limit, limit),
            offset: Some(offset(which.offset)),
            filter: fix_type.is_some().then_some(&found_so),
        };
        let form = Form {
            split: false,
            ids: which.return_ids.unwrap_or(false),
            addresses: which.show_address.unwrap_or(false),
        };
        history::read(call, series.as_ref(), &wanted, form)
    })
}
