//! `alarm.*`: alarms of things: a state, and a message to it (`docs/protocol/tr50.md` 4.1).

use base::{Code, Failure, excerpt, json, limits};

use super::commands;
use super::history::{self, At, Form, History, HistoryQuery, Range, ValueAt};
use super::publish::{self, Item, Message, Name, Source, field, required_field};
use super::target::{Past, Target};
use crate::things::telemetry::NewPoint;
use crate::things::telemetry::point::{Alarm as State, Kind, Value};
use crate::tr50::params::{Field, params};
use crate::tr50::step::{Call, Later, Looked, WriteReply};

commands! {
    "alarm.batch" => publish::batch::<Alarm>, [NOT_FOUND],
        "Records states of alarms, in the order of their times, up to the first that is wrong. The \
         reply is sent when what came before that is durable.",
        "";
    "alarm.current" => current, [NOT_FOUND],
        "Shows the state of an alarm.",
        "`state`, `duration` (milliseconds in this state), `msg`, `ts`, `corrId`, `lat`, `lng`";
    "alarm.history" => history, [NOT_FOUND],
        "Lists states of an alarm, oldest first, at most 5000.",
        "`values`, an array of `state`, `msg`, `ts`, `corrId`, `lat` and `lng`; with `split`: \
         `values` and `ts`, two arrays";
    "alarm.history.multi" => history_multi, [NOT_FOUND],
        "Lists states of several alarms, oldest first, at most 5000 in all.",
        "`values`, an object with the reply of `alarm.history` for each key";
    "alarm.publish" => publish::one::<Alarm>, [NOT_FOUND],
        "Records the state of an alarm. The state that it has already is only recorded again with \
         `republish`.",
        "";
}

/// A state of an alarm.
pub struct Alarm;

impl Item for Alarm {
    const KIND: Kind = Kind::Alarm;
    const BATCH: &'static str = "alarm.batch";
    const SORTED: bool = true;

    fn fields() -> Vec<Field> {
        vec![
            required_field::<Name>("key", "The alarm's name."),
            required_field::<i64>("state", "The state."),
            field::<Message>("msg", "What there is to say about it."),
            field::<f64>("lat", "The latitude of the event."),
            field::<f64>("lng", "The longitude of the event."),
            field::<bool>("republish", "Records the state even if it has not changed."),
        ]
    }

    fn read(source: &Source<'_, '_, '_>) -> Result<NewPoint, Failure> {
        let Name(name) = source.required("key")?;
        let state = source.required("state")?;
        let msg = source.optional::<Message>("msg")?.map(|msg| msg.0.into());
        let place = source.optional("lat")?.zip(source.optional("lng")?);
        let republish = source.optional("republish")?.unwrap_or(false);
        let value = Value::Alarm(State { state, msg, place });
        Ok(NewPoint { republish, ..source.point(name, value)? })
    }
}

/// `alarm.current`.
pub fn current(call: &Call<'_>, (target, at): (Target, At)) -> Result<Looked<ValueAt>, Failure> {
    call.look(at.ts.is_some(), move |call| {
        let owner = target.subject(call)?.id.into();
        let value = history::value_at(call, owner, Kind::Alarm, &at.key.0, at.ts)?;
        value.ok_or_else(|| {
            Failure::not_found(format!("A state of alarm \"{}\"", excerpt(&at.key.0)))
        })
    })
}

params! {
    /// Which alarm, and in which form.
    pub struct HistoryParams {
        required key: Name = "key", "The alarm's name.";
        optional split: bool = "split", "States and times in arrays of their own.";
    }
}

/// `alarm.history`.
pub fn history(
    call: &Call<'_>,
    (target, (which, range)): (Past, (HistoryParams, Range)),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let series = history::series_of(call, &target, Kind::Alarm, &which.key.0)?;
        let (span, limit) = range.span(call.now);
        let wanted = HistoryQuery { span, limit, offset: None, filter: None };
        let form = Form { split: which.split.unwrap_or(false), ..Form::default() };
        history::read(call, series.as_ref(), &wanted, form)
    })
}

params! {
    /// Which alarms, and in which form.
    pub struct WhichOfMany {
        required keys: Vec<String> = "keys", "The alarms' names, at most 100.";
        optional split: bool = "split", "States and times in arrays of their own.";
    }
}

/// Histories by their alarms' names, in the order of the request.
pub struct Histories(Vec<(String, History)>);

/// `alarm.history.multi`. No source shows its reply; this one has the reply of `alarm.history`
/// under each key.
pub fn history_multi(
    call: &Call<'_>,
    (target, (which, range)): (Past, (WhichOfMany, Range)),
) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let WhichOfMany { mut keys, split } = which;
        if keys.len() > limits::SERIES_PER_COMMAND {
            let sentence = "Parameter \"keys\" must have at most 100 names.";
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        let owner = target.subject(call)?.id.into();
        let (span, mut limit) = range.span(call.now);
        let form = Form { split: split.unwrap_or(false), ..Form::default() };
        let asked = limit;
        let (mut room, mut bytes) = (limits::HISTORY_MAX as usize, 0);
        let mut histories = Vec::new();
        for key in keys {
            limit = asked.min(room);
            let series = call.app.telemetry.series(owner, Kind::Alarm, &key)?;
            let wanted = HistoryQuery { span, limit, offset: None, filter: None };
            let history = if limit == 0 {
                history::read(call, None, &wanted, form)?
            } else {
                history::read(call, series.as_ref(), &wanted, form)?
            };
            room -= history.len();
            bytes += history.bytes();
            if bytes > limits::HISTORY_BYTES_MAX {
                return Err(history::too_large());
            }
            histories.push((key, history));
        }
        Ok(Histories(histories))
    })
}

impl WriteReply for Histories {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":{"values":{"#);
        for (index, (name, history)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::push_string(out, name);
            out.push(b':');
            let mut object = json::ObjectWriter::new(out);
            history.write_members(&mut object);
            object.end();
        }
        out.extend_from_slice(b"}}}");
    }
}
