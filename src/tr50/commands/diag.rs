//! `diag.*`: ping, echo and the server's time.

use base::{Failure, json};
use serde::Serialize;
use serde_json::value::RawValue;

use super::commands;
use crate::tr50::envelope::{Members, RawParams};
use crate::tr50::params::{Field, NoParams, Params};
use crate::tr50::step::{Call, Done, WriteReply};

commands! {
    "diag.echo" => echo, [],
        "Answers with its parameters.",
        "the parameters";
    "diag.ping" => ping, [],
        "Answers.",
        "";
    "diag.time" => time, [],
        "Tells the server's time.",
        "`time`: milliseconds since 1970";
}

/// `diag.ping`.
pub fn ping(_: &Call<'_>, _: NoParams) -> Result<Done, Failure> {
    Ok(Done)
}

/// The parameters of `diag.echo`: any object, which is not looked into.
pub struct Echo(Option<Box<RawValue>>);

impl Params for Echo {
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    fn from_members(_: &Members<'_>) -> Result<Self, Failure> {
        Ok(Self(None))
    }

    fn read(params: RawParams<'_>) -> Result<Self, Failure> {
        Ok(Self(params.to_json()))
    }
}

impl WriteReply for EchoReply {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true"#);
        if let Some(params) = &self.0 {
            out.extend_from_slice(br#","params":"#);
            json::push_compact(out, params.get());
        }
        out.push(b'}');
    }
}

/// What came in.
pub struct EchoReply(Option<Box<RawValue>>);

/// `diag.echo`: the same object back (`docs/protocol/tr50.md` 4.1).
pub fn echo(_: &Call<'_>, params: Echo) -> Result<EchoReply, Failure> {
    Ok(EchoReply(params.0))
}

/// The reply of `diag.time`.
#[derive(Serialize)]
pub struct Time {
    time: i64,
}

/// `diag.time`: epoch milliseconds as a number (`docs/protocol/tr50.md` 4.1).
pub fn time(call: &Call<'_>, _: NoParams) -> Result<Time, Failure> {
    Ok(Time { time: call.now.as_millis() })
}
