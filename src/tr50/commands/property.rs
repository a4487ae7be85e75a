//! `property.*`: numbers that things measure (`tr50.md` 4.1).

use super::points::{self, Item, Name, Source, required_field};
use super::span::{self, At, Form, Held, History, Range, Wanted};
use super::target::Target;
use super::{heavy, store, wait};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::dispatch::{Call, CommandInfo, shown};
use crate::tr50::error::Failure;
use crate::tr50::params::{Field, params};

/// The family's rows in the table of commands.
pub const COMMANDS: &[CommandInfo] = &[
    wait!(
        "property.batch",
        points::batch::<Property>,
        "Records values of properties, in order, up to the first that is wrong. The reply is sent \
         when what came before that is durable.",
        "",
        [NOT_FOUND]
    ),
    heavy!(
        "property.current",
        current,
        span::asks_for_a_time,
        "Shows the value of a property.",
        "`value`, `ts`, `corrId`",
        [NOT_FOUND]
    ),
    heavy!(
        "property.history",
        history,
        span::always,
        "Lists values of a property, oldest first, at most 5000.",
        "`values`, an array of `id` (if asked for), `value`, `ts` and `corrId`; with `split`: \
         `values`, `ts` and `ids`, three arrays",
        [NOT_FOUND]
    ),
    store!(
        "property.publish",
        points::publish::<Property>,
        "Records a value of a property.",
        "",
        [NOT_FOUND]
    ),
];

/// A value of a property.
pub struct Property;

impl Item for Property {
    const KIND: Kind = Kind::Property;

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
pub fn current(call: &Call<'_>, (target, at): (Target, At)) -> Result<Held, Failure> {
    let owner = target.subject(call)?.id.into();
    let held = span::held(call, owner, Kind::Property, &at.key.0, at.ts)?;
    held.ok_or_else(|| Failure::not_found(format!("A value of property \"{}\"", shown(&at.key.0))))
}

params! {
    /// Which property, and in which form.
    pub struct Which {
        required key: Name = "key", "The property's name.";
        optional split: bool = "split", "Values and times in arrays of their own.";
        optional return_ids: bool = "returnIds", "With an id for each value.";
    }
}

/// `property.history`.
pub fn history(
    call: &Call<'_>,
    (target, (which, range)): (Target, (Which, Range)),
) -> Result<History, Failure> {
    let series = span::series_of(call, &target, Kind::Property, &which.key.0)?;
    let (span, limit) = range.span(call.now);
    let wanted = Wanted { span, limit, offset: None, filter: None };
    let form = Form {
        split: which.split.unwrap_or(false),
        ids: which.return_ids.unwrap_or(false),
        addresses: false,
    };
    span::history(call, series.as_ref(), &wanted, form)
}
