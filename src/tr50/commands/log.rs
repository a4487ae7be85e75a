//! `log.*`: log entries of things (`docs/protocol/tr50.md` 4.1).

use base::{
    Code, Failure, ThingId, ThingKey, Timestamp,
    json::{self, ObjectWriter, key},
    limits,
};

use super::attribute::{limited, offset};
use super::commands;
use super::history::{self, Ago, Form, History, HistoryQuery, Range};
use super::publish::{self, CorrId, Gate, Message};
use super::target::{Past, Speaker, Subject, check_unrestricted, not_its_past, sees_past_of_all};
use crate::things::telemetry::point::{Entry, Kind, Point, Value};
use crate::things::telemetry::{NewPoint, Owner};
use crate::tr50::params::params;
use crate::tr50::step::{After, Call, Done, Later, WriteReply};

commands! {
    "log.list" => list, [NOT_FOUND],
        "Lists entries of a thing's log, or of the organisation's, oldest first.",
        "`count`, `result`, an array of `id`, `ts`, `thingId`, `thingKey`, `thingName`, `type`, \
         `corrId`, `level` and `msg`; what an entry has not is empty",
        "the organisation's log" where check_reads_all;
    "log.publish" => publish, [NOT_FOUND],
        "Adds an entry to a thing's log, or to the organisation's.",
        "",
        "the organisation's log" where check_unrestricted;
}

/// The level of an entry that does not say so: information.
const LEVEL_DEFAULT: u64 = 2;

params! {
    /// An entry.
    pub struct NewEntry {
        required msg: Message = "msg", "The message.";
        optional level: u64 = "level", "0 error, 1 warning, 2 information (default).";
        optional ts: Timestamp = "ts", "When it happened; now by default.";
        optional corr_id: CorrId = "corrId", "A word of the client by which entries belong together. With `ts`, the same entry with the same word and time is taken once.";
        optional global: bool = "global", "Adds it to the organisation's log, not to a thing's.";
    }
}

/// `log.publish`.
pub fn publish(
    call: &Call<'_>,
    (target, entry): (Speaker, NewEntry),
) -> Result<After<Done>, Failure> {
    let level = entry.level.unwrap_or(LEVEL_DEFAULT);
    let Some(level) = u8::try_from(level).ok().filter(|level| u64::from(*level) <= LEVEL_DEFAULT)
    else {
        let sentence = "Parameter \"level\" must be 0, 1 or 2.";
        return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
    };
    let logged = Logged::of(call, entry.global, || target.subject(call))?;
    let point = NewPoint {
        name: String::new(),
        ts: entry.ts,
        value: Value::Log(Entry { level, msg: entry.msg.0.into() }),
        corr_id: entry.corr_id.map(|id| id.0),
        republish: false,
    };
    Gate::open(call).admit(&point)?;
    let (org, thing) = (call.session.org_id(), logged.thing.as_ref().map(|(id, _)| *id));
    let payer = || call.app.things.payer(org, thing);
    let telemetry = &call.app.telemetry;
    let published = telemetry.publish(logged.owner, payer, Kind::Log, &[point], call.now)?;
    if let Some((_, why)) = published.refused {
        return Err(publish::not_recorded(why));
    }
    call.app.metrics.points_recorded(usize::from(published.has(0)));
    Ok(After(Done, published.receipt.into()))
}

/// Whose log.
struct Logged {
    owner: Owner,
    /// None for the organisation's.
    thing: Option<(ThingId, ThingKey)>,
}

impl Logged {
    fn of(
        call: &Call<'_>,
        global: Option<bool>,
        subject: impl FnOnce() -> Result<Subject, Failure>,
    ) -> Result<Self, Failure> {
        if !global.unwrap_or(false) {
            let Subject { id, key } = subject()?;
            return Ok(Self { owner: id.into(), thing: Some((id, key)) });
        }
        check_unrestricted(call)?;
        Ok(Self { owner: call.session.org_id().into(), thing: None })
    }
}

params! {
    /// Which entries.
    pub struct HistoryParams {
        optional level: u64 = "level", "Only entries of this level.";
        optional corr_id: String = "corrId", "Only entries with this correlation id.";
        optional kind: String = "type", "`thing`, or `system` for the organisation's log.";
        optional global: bool = "global", "The organisation's log.";
        optional last: Ago = "last", "The entries of this time until now.";
        optional start: Timestamp = "start", "The first time; without it the newest entries are taken.";
        optional end: Timestamp = "end", "The last time.";
        optional offset: u64 = "offset",
            "Entries to leave out: the oldest with `start`, the newest without.";
        optional limit: u64 = "limit", "Entries to return at most, up to 2000.";
    }
}

/// The reply of `log.list`.
pub struct Entries {
    history: History,
    thing: Option<(ThingId, ThingKey)>,
    thing_name: String,
}

/// Fails unless the caller may read the organisation's log.
fn check_reads_all(call: &Call<'_>) -> Result<(), Failure> {
    if !sees_past_of_all(call) {
        return Err(not_its_past(call));
    }
    check_unrestricted(call)
}

/// `log.list`. Entries of other types than a thing's and the organisation's are not kept here: a
/// list of them is empty.
pub fn list(call: &Call<'_>, (target, which): (Past, HistoryParams)) -> Result<Later, Failure> {
    call.look_later(move |call| {
        let kind = which.kind.as_deref().unwrap_or_default().to_ascii_lowercase();
        let global = which.global.unwrap_or(kind == "system");
        if global {
            check_reads_all(call)?;
        }
        let logged = Logged::of(call, Some(global), || target.subject(call))?;
        let series = call.app.telemetry.series(logged.owner, Kind::Log, "")?;
        let series = series.filter(|_| matches!(kind.as_str(), "" | "thing" | "system"));
        let range = Range { records: None, last: which.last, start: which.start, end: which.end };
        let (span, _) = range.span(call.now);
        let (level, corr_id) = (which.level, which.corr_id.filter(|id| !id.is_empty()));
        let fits = |point: &Point<'_>| {
            let of_level = match &point.value {
                Value::Log(entry) => level.is_none_or(|level| level == u64::from(entry.level)),
                _ => false,
            };
            of_level && (corr_id.is_none() || point.corr_id.as_deref() == corr_id.as_deref())
        };
        let wanted = HistoryQuery {
            span,
            limit: limited(which.limit, limits::LIST_MAX as usize),
            offset: Some(offset(which.offset)),
            filter: Some(&fits),
        };
        let history = history::read(call, series.as_ref(), &wanted, Form::default())?;
        let thing = match &logged.thing {
            Some((_, key)) => call.app.things.get(call.session.org_id(), key)?,
            None => None,
        };
        let thing_name = thing.map_or_else(String::new, |thing| thing.name);
        Ok(Entries { history, thing: logged.thing, thing_name })
    })
}

impl WriteReply for Entries {
    fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"success":true,"params":{"count":"#);
        json::push_value(out, &self.history.count());
        out.extend_from_slice(br#","result":["#);
        let start = out.len();
        for (row, point) in self.history.rows() {
            let Value::Log(entry) = &point.value else { continue };
            if out.len() > start {
                out.push(b',');
            }
            let mut object = ObjectWriter::new(out);
            object.string(key!("id"), &history::point_id(row));
            object.time(key!("ts"), point.ts);
            match &self.thing {
                Some((id, thing_key)) => {
                    object.hex(key!("thingId"), id.as_bytes());
                    object.string(key!("thingKey"), thing_key.as_str());
                }
                None => {
                    object.string(key!("thingId"), "");
                    object.string(key!("thingKey"), "");
                }
            }
            object.string(key!("thingName"), &self.thing_name);
            object.string(key!("type"), if self.thing.is_some() { "thing" } else { "system" });
            object.string(key!("corrId"), point.corr_id.as_deref().unwrap_or_default());
            object.integer(key!("level"), entry.level.into());
            object.string(key!("msg"), &entry.msg);
            object.end();
        }
        out.extend_from_slice(b"]}}");
    }
}
