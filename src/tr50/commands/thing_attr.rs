//! `thing.attr.*`: the attributes of `attribute.*` under older names (`docs/protocol/tr50.md` 4.1).

use base::{Code, Failure, Timestamp, excerpt};
use serde::Serialize;

use super::attribute::Attribute;
use super::commands;
use super::publish::{self, CorrId, Name};
use super::target::{Speaker, Target};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done};

commands! {
    "thing.attr.get" => get, [NOT_FOUND, ATTRIBUTE_MISSING],
        "Shows an attribute of a thing.",
        "`value`, `ts`";
    "thing.attr.set" => publish::one::<Attribute>, [NOT_FOUND],
        "Sets an attribute of a thing, as `attribute.publish` does.",
        "";
    "thing.attr.unset" => unset, [NOT_FOUND],
        "Unsets an attribute of a thing.",
        "";
}

params! {
    /// Which attribute.
    pub struct FindParams {
        required key: Name = "key", "The attribute's name.";
    }
}

/// The reply of `thing.attr.get`.
#[derive(Serialize)]
pub struct AttributeValue {
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<Timestamp>,
}

/// `thing.attr.get`. An attribute that has no value has that of the thing's definition, if there is
/// one, and then no time.
pub fn get(
    call: &Call<'_>,
    (target, which): (Target, FindParams),
) -> Result<AttributeValue, Failure> {
    let subject = target.subject(call)?;
    let name = which.key.0;
    let series = call.app.telemetry.series(subject.id.into(), Kind::Attribute, &name)?;
    if let Some(series) = series
        && let Value::Attribute(Some(value)) = series.newest_point()?.value
    {
        return Ok(AttributeValue { value: value.into_owned(), ts: Some(series.ts) });
    }
    let (identity, org) = (&call.app.identity(), call.session.org_id());
    let def = call.app.things.get(org, &subject.key)?.and_then(|thing| thing.def);
    let def = def.and_then(|def| identity.thing_def(org, def));
    if let Some(default) = def.as_ref().and_then(|def| def.attribute_default(&name)) {
        return Ok(AttributeValue { value: default.to_owned(), ts: None });
    }
    let sentence = format!("Attribute \"{}\" has no value.", excerpt(&name));
    Err(Failure::new(Code::ATTRIBUTE_MISSING, sentence))
}

params! {
    /// What is unset, and in which connection.
    pub struct Unset {
        required key: Name = "key", "The attribute's name.";
        optional corr_id: CorrId = "corrId", "A word of the client by which points belong together.";
    }
}

/// `thing.attr.unset`. An attribute that has no value stays as it is.
pub fn unset(call: &Call<'_>, (target, which): (Speaker, Unset)) -> Result<After<Done>, Failure> {
    let subject = target.subject(call)?;
    let point = NewPoint {
        name: which.key.0,
        ts: None,
        value: Value::Attribute(None),
        corr_id: which.corr_id.map(|id| id.0),
        republish: false,
    };
    let recorded = publish::record(call, &subject, Kind::Attribute, &[point])?;
    Ok(After(Done, recorded.whole()?.into()))
}
