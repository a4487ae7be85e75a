//! `attribute.*`: attributes of things, which are texts (`docs/protocol/tr50.md` 4.1).
//! `thing.attr.*` sets and gets the same ones.

use base::{Code, Failure, excerpt, limits};

use super::commands;
use super::history::{self, At, Form, HistoryQuery, Range, ValueAt};
use super::publish::{self, AttributeText, Item, Name, Source, field, required_field};
use super::target::{Past, Target};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::params::{Field, params};
use crate::tr50::step::{Call, Later, Looked};

commands! {
    "attribute.batch" => publish::batch::<Attribute>, [NOT_FOUND],
        "Sets attributes, in order, up to the first that is wrong. The reply is sent when what \
         came before that is durable.",
        "";
    "attribute.current" => current, [NOT_FOUND],
        "Shows the value of an attribute.",
        "`value`, `ts`, `corrId`";
    "attribute.history" => history, [NOT_FOUND],
        "Lists values of an attribute, oldest first, at most 5000; null where it was unset.",
        "`count`, `values`, an array of `value`, `ts` and `corrId`; with `split`: `values` and \
         `ts`, two arrays";
    "attribute.publish" => publish::one::<Attribute>, [NOT_FOUND],
        "Sets an attribute; null unsets it. The value that it has already is only recorded again \
         with `republish`.",
        "";
}

/// A value of an attribute.
pub struct Attribute;

impl Item for Attribute {
    const KIND: Kind = Kind::Attribute;
    const BATCH: &'static str = "attribute.batch";

    fn fields() -> Vec<Field> {
        vec![
            required_field::<Name>("key", "The attribute's name."),
            required_field::<AttributeText>("value", "The value; null unsets it."),
            field::<bool>("republish", "Records the value even if it has not changed."),
        ]
    }

    fn read(source: &Source<'_, '_, '_>) -> Result<NewPoint, Failure> {
        let Name(name) = source.required("key")?;
        let value = source.nullable::<AttributeText>("value")?.map(|value| value.0.into());
        let republish = source.optional("republish")?.unwrap_or(false);
        Ok(NewPoint { republish, ..source.point(name, Value::Attribute(value))? })
    }
}

/// `attribute.current`.
pub fn current(call: &Call<'_>, (target, at): (Target, At)) -> Result<Looked<ValueAt>, Failure> {
    call.look(at.ts.is_some(), move |call| {
        let owner = target.subject(call)?.id.into();
        let value = history::value_at(call, owner, Kind::Attribute, &at.key.0, at.ts)?;
        value.ok_or_else(|| {
            Failure::not_found(format!("A value of attribute \"{}\"", excerpt(&at.key.0)))
        })
    })
}

params! {
    /// Which attribute, and in which form.
    pub struct HistoryParams {
        required key: Name = "key", "The attribute's name.";
        optional offset: u64 = "offset",
            "Values to leave out: the oldest with `start`, the newest without.";
        optional limit: u64 = "limit", "Values to return at most, up to 5000.";
        optional sort: String = "sort", "`ts` (default) or `-ts`, the newest first.";
        optional split: bool = "split", "Values and times in arrays of their own.";
    }
}

/// `attribute.history`.
pub fn history(
    call: &Call<'_>,
    (target, (which, range)): (Past, (HistoryParams, Range)),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let newest_first = newest_first(which.sort.as_deref())?;
        let series = history::series_of(call, &target, Kind::Attribute, &which.key.0)?;
        let (span, limit) = range.span(call.now);
        let wanted = HistoryQuery {
            span,
            limit: limited(which.limit, limit),
            offset: Some(offset(which.offset)),
            filter: None,
        };
        let form = Form { split: which.split.unwrap_or(false), ..Form::default() };
        let history = history::read(call, series.as_ref(), &wanted, form)?;
        Ok(history.newest_first(newest_first))
    })
}

/// Reads `sort` of a history, which can only be sorted by time.
///
/// # Errors
///
/// It names something else.
pub fn newest_first(sort: Option<&str>) -> Result<bool, Failure> {
    let sort = sort.unwrap_or_default();
    let (descending, name) = match sort.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, sort.strip_prefix('+').unwrap_or(sort)),
    };
    if name.is_empty() || name.eq_ignore_ascii_case("ts") {
        return Ok(descending);
    }
    let sentence = format!("Parameter \"sort\" must be ts or -ts; it is \"{}\".", excerpt(sort));
    Err(Failure::new(Code::PARAMETER_INVALID, sentence))
}

/// The smaller of what a client wants and what it may have; 0 and absent mean as many as allowed.
pub fn limited(wanted: Option<u64>, most: usize) -> usize {
    let wanted = wanted.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
    wanted.unwrap_or(most).min(most)
}

/// How many points to leave out.
pub fn offset(wanted: Option<u64>) -> usize {
    let wanted = usize::try_from(wanted.unwrap_or(0)).unwrap_or(usize::MAX);
    wanted.min(limits::POINTS_SEARCHED_MAX)
}
