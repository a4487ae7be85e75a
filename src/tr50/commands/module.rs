//! `module.register`: a modem reports its make, model and firmware (`docs/protocol/tr50.md` 4.1).

use base::{Failure, limits};

use super::commands;
use super::publish;
use super::target::Target;
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Kind, Value};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done};

commands! {
    "module.register" => register, [NOT_FOUND],
        "Notes what the thing's modem is, in the attributes `module.make`, `module.model`, \
         `module.fwVersion` and `module.remAt`, whatever its definition says of attributes.",
        "";
}

params! {
    /// The parameters of `module.register` beside those that name the thing.
    pub struct Modem {
        optional make: String = "make", "Who made the modem.";
        optional model: String = "model", "Its model.";
        optional firmware: String = "fwVersion", "The version of its firmware.";
        optional remote_at: bool = "remAt", "Whether it takes AT commands from afar.";
    }
}

/// `module.register`. libtr50 on a modem goes no further when it fails, so what is too long is cut.
pub fn register(call: &Call<'_>, (target, modem): (Target, Modem)) -> Result<After<Done>, Failure> {
    let subject = target.subject(call)?;
    let facts = [
        ("module.make", modem.make),
        ("module.model", modem.model),
        ("module.fwVersion", modem.firmware),
        ("module.remAt", modem.remote_at.map(|remote| remote.to_string())),
    ];
    let attribute = |(name, value): (&str, Option<String>)| {
        let value: String = value?.chars().take(limits::MODEM_TEXT_CHARS_MAX).collect();
        Some(NewPoint {
            name: name.to_owned(),
            ts: None,
            value: Value::Attribute(Some(value.into())),
            corr_id: None,
            republish: false,
        })
    };
    let points: Vec<_> = facts.into_iter().filter_map(attribute).collect();
    // For the same reason it is enough what there is room for.
    Ok(After(Done, publish::record(call, &subject, Kind::Attribute, &points)?.receipt.into()))
}
