//! What all commands that publish telemetry have in common: one point, or a batch of them.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use base::{Code, Failure, OrgId, ThingId, Timestamp, excerpt, json, limits, yield_point};
use rules::identity::ThingDef;
use serde_json::value::RawValue;
use store::{Batch, Receipt, StoreError};

use super::find;
use super::target::{Speaker, Subject};
use crate::app::Effects;
use crate::things::Payer;
use crate::things::feed::Topic;
use crate::things::telemetry::point::{Kind, Location, Value};
use crate::things::telemetry::{NewPoint, NotRecorded, Published};
use crate::tr50::dispatch::{not_executable, still_may};
use crate::tr50::envelope::{Members, Param, RawParams};
use crate::tr50::params::{self, Field, Params, Reach, missing};
use crate::tr50::step::{After, Call, Done, Later};

/// Declares texts with a bound: a newtype, and what a parameter of that type must be.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $least:literal to $most:path, $expected:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug)]
            pub struct $name(pub String);

            impl params::Value for $name {
                const EXPECTED: &'static str = $expected;

                fn read(param: Param<'_>) -> Option<Self> {
                    let text = String::read(param)?;
                    ($least..=$most).contains(&text.len()).then_some(Self(text))
                }
            }
        )*

        #[cfg(test)]
        const BOUNDS: &[(&str, usize)] = &[$(($expected, $most)),*];
    };
}

texts! {
    /// The name of a property, alarm or attribute.
    Name: 1 to limits::SERIES_NAME_BYTES_MAX, "a name of 1 to 256 bytes";
    /// A client's word by which points belong together.
    CorrId: 0 to limits::CORR_ID_BYTES_MAX, "a string of at most 256 bytes";
    /// The value of an attribute.
    AttributeText: 0 to limits::ATTRIBUTE_BYTES_MAX, "a string of at most 16384 bytes";
    /// The message of an alarm or of a log's entry.
    Message: 0 to limits::MESSAGE_BYTES_MAX, "a string of at most 16384 bytes";
    /// A line of an address, or a word.
    Line: 0 to limits::ADDRESS_LINE_BYTES_MAX, "a string of at most 256 bytes";
}

/// Where the members of a point come from: from itself, or, in a batch, from beside the list.
pub struct Source<'m, 'o, 'd> {
    own: &'m Members<'o>,
    defaults: Option<&'m Members<'d>>,
}

impl Source<'_, '_, '_> {
    /// A member that may be absent. A default of the wrong type counts as absent: one client puts
    /// a title where the default value belongs (`docs/protocol/tr50.md` 0, fact 15).
    ///
    /// # Errors
    ///
    /// The point's own member has the wrong type.
    pub fn optional<T: params::Value>(&self, name: &str) -> Result<Option<T>, Failure> {
        if let Some(own) = params::optional(self.own, name)? {
            return Ok(Some(own));
        }
        Ok(self.defaults.and_then(|defaults| params::optional(defaults, name).ok().flatten()))
    }

    /// A member that must be there.
    ///
    /// # Errors
    ///
    /// It is missing or has the wrong type.
    pub fn required<T: params::Value>(&self, name: &str) -> Result<T, Failure> {
        self.optional(name)?.ok_or_else(|| missing(name))
    }

    /// A member that may also be null, which is not the same as absent: none, when it is null.
    ///
    /// # Errors
    ///
    /// It is missing or has the wrong type.
    pub fn nullable<T: params::Value>(&self, name: &str) -> Result<Option<T>, Failure> {
        if is_null(self.own, name) {
            return Ok(None);
        }
        match self.optional(name)? {
            None if self.defaults.is_some_and(|defaults| is_null(defaults, name)) => Ok(None),
            None => Err(missing(name)),
            found => Ok(found),
        }
    }

    /// Whether the point itself has this member.
    pub fn has(&self, name: &str) -> bool {
        self.own.find(name).is_some()
    }

    /// The members that all points have.
    ///
    /// # Errors
    ///
    /// One of them has the wrong type.
    pub fn point(&self, name: String, value: Value<'static>) -> Result<NewPoint, Failure> {
        Ok(NewPoint {
            name,
            ts: self.optional("ts")?,
            value,
            corr_id: self.optional::<CorrId>("corrId")?.map(|id| id.0),
            republish: false,
        })
    }
}

fn is_null(members: &Members<'_>, name: &str) -> bool {
    members.last(name).is_some_and(Param::is_null)
}

/// A kind of point as clients write it.
pub trait Item: 'static {
    /// What it is about.
    const KIND: Kind;

    /// The command that publishes many.
    const BATCH: &'static str;

    /// Whether the points of a batch are put into the order of their times first
    /// (`docs/protocol/tr50.md` 4.1, `alarm.batch`).
    const SORTED: bool = false;

    /// Its members.
    fn fields() -> Vec<Field>;

    /// Reads one.
    ///
    /// # Errors
    ///
    /// A member is missing or has the wrong type; the failure names it.
    fn read(source: &Source<'_, '_, '_>) -> Result<NewPoint, Failure>;
}

/// A parameter for the documentation.
pub const fn field<T: params::Value>(name: &'static str, doc: &'static str) -> Field {
    Field { name, expected: T::EXPECTED, required: false, doc }
}

/// A parameter that must be there, for the documentation.
pub const fn required_field<T: params::Value>(name: &'static str, doc: &'static str) -> Field {
    Field { name, expected: T::EXPECTED, required: true, doc }
}

/// The parameters that all points have, for the documentation.
pub fn common_fields() -> [Field; 2] {
    [
        field::<Timestamp>("ts", "When it was measured; now by default."),
        field::<CorrId>(
            "corrId",
            "A word of the client by which points belong together. With `ts`, a point with the same word and time is taken once.",
        ),
    ]
}

/// The parameters of a command that publishes one point.
pub struct One<I>(NewPoint, PhantomData<fn() -> I>);

impl<I: Item> Params for One<I> {
    fn fields() -> Vec<Field> {
        [I::fields(), common_fields().into()].concat()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        I::read(&Source { own: members, defaults: None }).map(|point| Self(point, PhantomData))
    }
}

/// `*.publish`.
pub fn one<I: Item>(
    call: &Call<'_>,
    (target, one): (Speaker, One<I>),
) -> Result<After<Done>, Failure> {
    let subject = target.subject(call)?;
    Ok(After(Done, point(call, &subject, I::KIND, one.0)?.into()))
}

/// Records a point of a thing if it passes the [`Gate`].
///
/// # Errors
///
/// It does not, or the store can't take it.
pub fn point(
    call: &Call<'_>,
    subject: &Subject,
    kind: Kind,
    point: NewPoint,
) -> Result<Receipt, Failure> {
    Gate::of(call, subject)?.admit(&point)?;
    record(call, subject, kind, &[point])?.whole()
}

/// The parameters of a batch. Its points stay text until they are recorded: what stands beside the
/// list belongs to each of them, and would be there a hundred thousand times.
pub struct Many<I> {
    /// Where each point that is left is in the list, and its place.
    points: std::vec::IntoIter<(usize, Range<usize>)>,
    list: Box<RawValue>,
    /// What stands beside the list.
    defaults: Box<RawValue>,
    of: PhantomData<fn() -> I>,
}

impl<I: Item> Params for Many<I> {
    fn fields() -> Vec<Field> {
        let data = Field {
            name: "data",
            expected: "an array of objects",
            required: true,
            doc: "The points, each with the members below; what stands beside the array holds \
                  for those that don't say otherwise.",
        };
        let default = |field: Field| Field { required: false, ..field };
        let members = [I::fields(), common_fields().into()].concat().into_iter().map(default);
        [data].into_iter().chain(members).collect()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        let data = members.find("data").ok_or_else(|| missing("data"))?;
        let refused = || {
            let sentence = "Parameter \"data\" must be an array of objects.";
            Failure::new(Code::PARAMETER_INVALID, sentence)
        };
        let list = data.json().ok_or_else(refused)?;
        let points: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| refused())?;
        let begin = list.get().as_ptr().addr();
        let place = |point: &RawValue| {
            let from = point.get().as_ptr().addr() - begin;
            from..from + point.get().len()
        };
        // One more says that there are too many.
        let points = points.into_iter().map(place).enumerate().take(limits::BATCH_ITEMS_MAX + 1);
        let points = points.collect::<Vec<_>>().into_iter();
        let defaults = members.without("data");
        Ok(Self { points, list: list.to_owned(), defaults, of: PhantomData })
    }
}

impl<I: Item> Many<I> {
    /// Puts the points into the order of their times. The one that says that there are too many stays
    /// the last: an old one would keep all others out.
    fn sort(&mut self, now: Timestamp) {
        let defaults = Members::of(&self.defaults);
        let time = |(_, text): &(usize, Range<usize>)| {
            yield_point::pass();
            let own = Members::of_text(self.list.get().get(text.clone())?)?;
            let source = Source { own: &own, defaults: defaults.as_ref() };
            source.optional("ts").ok().flatten()
        };
        let mut points: Vec<_> = self.points.as_slice().to_vec();
        points.sort_by_cached_key(|point| {
            (point.0 >= limits::BATCH_ITEMS_MAX, time(point).unwrap_or(now))
        });
        self.points = points.into_iter();
    }

    /// The place of the first that is left.
    fn first(&self) -> Option<usize> {
        self.points.as_slice().first().map(|(place, _)| *place)
    }

    /// The next points that pass, with their places, as many as the store gets at once. Behind the
    /// first that does not there are no more; the failure is of its place.
    fn next(&mut self, gate: &Gate<'_>) -> (Vec<usize>, Vec<NewPoint>, Option<Failed>) {
        let (mut places, mut points, mut bytes) = (Vec::new(), Vec::new(), 0);
        let defaults = Members::of(&self.defaults);
        while points.len() < limits::BATCH_PIECE
            && bytes < limits::BATCH_PIECE_BYTES
            && let Some((place, text)) = self.points.next()
        {
            yield_point::pass();
            let text = self.list.get().get(text).unwrap_or_default();
            let point = read_point::<I>(place, text, defaults.as_ref());
            match point.and_then(|point| gate.admit(&point).map(|()| point)) {
                Ok(point) => {
                    bytes += point.text_bytes();
                    places.push(place);
                    points.push(point);
                }
                Err(failure) => {
                    self.points = Vec::new().into_iter();
                    return (places, points, Some((place, failure)));
                }
            }
        }
        (places, points, None)
    }
}

fn read_point<I: Item>(
    place: usize,
    text: &str,
    defaults: Option<&Members<'_>>,
) -> Result<NewPoint, Failure> {
    if place >= limits::BATCH_ITEMS_MAX {
        let sentence = format!("A batch has at most {} points.", limits::BATCH_ITEMS_MAX);
        return Err(Failure::new(Code::TOO_LARGE, sentence));
    }
    let own = Members::of_text(text);
    let no_object = || Failure::new(Code::PARAMETER_INVALID, "It must be an object.");
    I::read(&Source { own: &own.ok_or_else(no_object)?, defaults })
}

/// The parameters of a batch, not yet looked into.
pub struct BatchText<I>(Option<Box<RawValue>>, PhantomData<fn() -> I>);

impl<I: Item> Params for BatchText<I> {
    const REACH: Reach = <(Speaker, Many<I>)>::REACH;

    fn fields() -> Vec<Field> {
        <(Speaker, Many<I>)>::fields()
    }

    fn from_members(_: &Members<'_>) -> Result<Self, Failure> {
        Ok(Self(None, PhantomData))
    }

    fn read(params: RawParams<'_>) -> Result<Self, Failure> {
        Ok(Self(params.to_json(), PhantomData))
    }
}

/// `*.batch`: in order, up to the first point that is wrong. What came before it is kept, and the
/// failure, which names it by its place, is sent when that is durable. A long batch is read on a
/// thread that serves no connection. It is read and stored piece by piece: others wait for the store
/// behind one of these, and not behind all.
///
/// What the client sends next is recorded behind what it takes a moment to record: without times of
/// their own the later points are the newer ones. Nothing waits for a batch that is longer: nobody
/// reads meanwhile, no PINGREQ either.
pub fn batch<I: Item>(call: &Call<'_>, text: BatchText<I>) -> Result<Later, Failure> {
    let bytes = text.0.as_ref().map_or(0, |text| text.get().len());
    let is_short = bytes <= limits::BATCH_AT_ONCE_BYTES;
    let begun = is_short.then(|| begin(call, &text)).transpose()?;
    let is_submitted = begun.as_ref().is_some_and(|begun| begun.rest.points.first().is_none());
    let (app, session, now) = (call.app.clone(), call.session.clone(), call.now);
    let (worker, conn) = (call.worker(), call.conn);
    let later = Later::new(async move {
        let mut begun = match begun {
            Some(begun) => begun,
            None => {
                let (app, session, inner) = (app.clone(), session.clone(), app.clone());
                let call =
                    move || begin(&Call { app: &inner, session: &session, conn, now }, &text);
                app.offload(worker, call).await??
            }
        };
        loop {
            let Begun { receipt, piece, rest } = begun;
            let mut rest = rest.behind(piece, receipt.await)?;
            let earlier = rest.failed.take();
            let Some(place) = rest.points.first() else {
                return earlier.map_or(Ok(After(Done, Effects::default())), Err);
            };
            let (session, inner) = (session.clone(), app.clone());
            let go_on = move || rest.go_on(&Call { app: &inner, session: &session, conn, now });
            begun = match app.offload(worker.for_the_rest(), go_on).await.flatten() {
                Ok(begun) => begun,
                // What the client is told first is what it has to mend first.
                Err(failure) => return Err(earlier.unwrap_or_else(|| at_place(place, failure))),
            };
            begun.rest.failed = earlier;
        }
    });
    let holds_up = !is_submitted && bytes <= limits::BATCH_IN_ORDER_BYTES;
    Ok(if holds_up { later.in_order() } else { later })
}

/// Why a point was not recorded, and its place.
type Failed = (usize, Failure);

/// A batch of which a piece was submitted to the store.
struct Begun<I> {
    receipt: Receipt,
    piece: Piece,
    rest: Rest<I>,
}

/// A piece of a batch.
struct Piece {
    /// The place of its first point; none: it is the first piece, and without it nothing is stored.
    from: Option<usize>,
    /// Of its first point that was not recorded.
    failed: Option<Failed>,
}

/// What is left of a batch.
struct Rest<I> {
    target: Speaker,
    /// In which organisation and for which thing it began: a key, and a session, can come to mean
    /// another.
    of: Option<(OrgId, ThingId)>,
    points: Many<I>,
    /// Of the first point that was not recorded of the pieces that are stored.
    failed: Option<Failure>,
}

fn begin<I: Item>(call: &Call<'_>, text: &BatchText<I>) -> Result<Begun<I>, Failure> {
    let params = RawParams::Json(text.0.as_deref());
    let (target, mut points) = <(Speaker, Many<I>)>::read(params)?;
    if I::SORTED {
        points.sort(call.now);
    }
    Rest { target, of: None, points, failed: None }.record(call)
}

impl<I: Item> Rest<I> {
    /// Records the next piece, if the caller still may.
    fn go_on(self, call: &Call<'_>) -> Result<Begun<I>, Failure> {
        let row = find(I::BATCH).ok_or_else(|| not_executable(true, I::BATCH))?;
        still_may(call, row)?;
        self.record(call)
    }

    fn record(mut self, call: &Call<'_>) -> Result<Begun<I>, Failure> {
        let org = call.session.org_id();
        let subject = self.target.subject(call)?;
        let from = self.of.and_then(|_| self.points.first());
        if *self.of.get_or_insert((org, subject.id)) != (org, subject.id) {
            return Err(Failure::not_found("The thing with which the batch began"));
        }
        let gate = Gate::of(call, &subject)?;
        let (places, points, wrong) = self.points.next(&gate);
        let Recorded { receipt, refused, has_room } = record(call, &subject, I::KIND, &points)?;
        if !has_room {
            // Less could still find room: sent again, that would be there twice.
            self.points.points = Vec::new().into_iter();
        }
        let refused =
            refused.map(|(index, failure)| (places.get(index).copied().unwrap_or(index), failure));
        let piece = Piece { from, failed: refused.or(wrong) };
        Ok(Begun { receipt, piece, rest: self })
    }

    /// What is left when it is known what became of a piece. The failure is of the first point that
    /// was not taken: from there on a client sends again.
    fn behind(mut self, piece: Piece, stored: Result<(), StoreError>) -> Result<Self, Failure> {
        let Piece { from, failed } = piece;
        // A series for which there is no room keeps out only its own: what is left is behind that.
        let not_taken = self.points.first().or(failed.as_ref().map(|(place, _)| *place));
        let failed = failed.map(|(place, failure)| at_place(place, failure));
        let lost = match (stored, not_taken, from) {
            (Ok(()), ..) => {
                self.failed = self.failed.or(failed);
                return Ok(self);
            }
            (Err(StoreError::Held), Some(place), _) => at_place(place, held()),
            (Err(error @ StoreError::Held), None, _) | (Err(error), _, None) => error.into(),
            (Err(error), _, Some(place)) => at_place(place, error.into()),
        };
        Err(self.failed.unwrap_or(lost))
    }
}

/// What is told to the first point that was not taken when the store holds those before it.
fn held() -> Failure {
    let sentence = "The server's store has failed; what comes before this point is stored when it \
                    works again, if the server does not end before.";
    Failure::new(Code::STORE_UNAVAILABLE, sentence)
}

/// What is said of a point of a batch.
fn at_place(index: usize, failure: Failure) -> Failure {
    Failure::new(failure.code, format!("data[{index}]: {}", failure.message))
}

/// What a point has to pass before it is recorded.
pub struct Gate<'c> {
    call: &'c Call<'c>,
    /// The definition of the thing, if there can be something that it refuses.
    def: Option<Arc<ThingDef>>,
}

impl<'c> Gate<'c> {
    /// The gate of a thing. Its record is only read when some definition of its organisation
    /// refuses what it does not define.
    pub fn of(call: &'c Call<'c>, subject: &Subject) -> Result<Self, Failure> {
        let (identity, org) = (&call.app.identity(), call.session.org_id());
        if !identity.has_closed_thing_def(org) {
            return Ok(Self::open(call));
        }
        let thing = call.app.things.get(org, &subject.key)?;
        let def = thing.and_then(|thing| identity.thing_def(org, thing.def?));
        Ok(Self { call, def })
    }

    /// The gate of what has no definition.
    pub const fn open(call: &'c Call<'c>) -> Self {
        Self { call, def: None }
    }

    /// Lets a point pass.
    ///
    /// # Errors
    ///
    /// The point is older than telemetry is kept, or the thing's definition says that things may
    /// only publish what it defines (`autoDefProps`, `autoDefAttrs`) and has no such name.
    pub fn admit(&self, point: &NewPoint) -> Result<(), Failure> {
        let (telemetry, now) = (&self.call.app.telemetry, self.call.now);
        if let Some(ts) = point.ts.filter(|ts| !telemetry.keeps(*ts, now)) {
            let months = self.call.app.config.telemetry.retention_months;
            let sentence = format!(
                "Parameter \"ts\" is {ts}, which is longer ago than the {months} months for which \
                 telemetry is kept."
            );
            return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
        }
        let Some(def) = &self.def else { return Ok(()) };
        let (admitted, what) = match point.value {
            Value::Property(_) => (def.admits_property(&point.name), "Property"),
            Value::Attribute(_) => (def.admits_attribute(&point.name), "Attribute"),
            _ => return Ok(()),
        };
        if admitted {
            return Ok(());
        }
        let (name, key) = (excerpt(&point.name), &def.key);
        Err(Failure::not_found(format!("{what} \"{name}\" of the definition \"{key}\"")))
    }
}

/// Points that were submitted to the store.
pub struct Recorded {
    /// When they are durable.
    pub receipt: Receipt,
    /// The first of those for which there is no room, by its place, and what it is told.
    refused: Option<(usize, Failure)>,
    /// Whether there is room for others: otherwise none was recorded.
    has_room: bool,
}

impl Recorded {
    /// The receipt for all points.
    ///
    /// # Errors
    ///
    /// There is one that was not recorded.
    pub fn whole(self) -> Result<Receipt, Failure> {
        self.refused.map_or(Ok(self.receipt), |(_, failure)| Err(failure))
    }
}

/// What is told to a point for which there is no room.
pub fn not_recorded(why: NotRecorded) -> Failure {
    match why {
        NotRecorded::OverShare(over) => over.into(),
        NotRecorded::SeriesOfThing => Failure::new(
            Code::LIMIT_REACHED,
            format!(
                "The thing has {} properties, alarms and attributes, the most it may have.",
                limits::SERIES_PER_THING_MAX
            ),
        ),
    }
}

/// Records points of a thing and publishes them to those who subscribed.
///
/// # Errors
///
/// The store can't take them.
pub fn record(
    call: &Call<'_>,
    subject: &Subject,
    kind: Kind,
    points: &[NewPoint],
) -> Result<Recorded, Failure> {
    let (app, org) = (call.app, call.session.org_id());
    let payer = || app.things.payer(org, Some(subject.id));
    let owner = subject.id.into();
    let published = match kind {
        Kind::Alarm => record_alarms(call, subject, payer, points)?,
        _ => app.telemetry.publish(owner, payer, kind, points, call.now)?,
    };
    let mut recorded = 0;
    for (index, point) in points.iter().enumerate() {
        if published.has(index) {
            recorded += 1;
            if let Some(topic) = topic(point) {
                app.feed.publish(org, &subject.key, topic, || payload(&point.value));
            }
        }
    }
    app.metrics.points_recorded(recorded);
    let refused = published.refused.and_then(|(places, why)| Some((*places.first()?, why)));
    let has_room = refused.is_none_or(|(_, why)| !why.is_of_all());
    let refused = refused.map(|(index, why)| (index, not_recorded(why)));
    Ok(Recorded { receipt: published.receipt, refused, has_room })
}

/// Records states of alarms; those that have changed are in the stream of events, too.
fn record_alarms(
    call: &Call<'_>,
    subject: &Subject,
    payer: impl FnOnce() -> Result<Payer, StoreError>,
    points: &[NewPoint],
) -> Result<Published, StoreError> {
    let (app, now, mut numbered) = (call.app, call.now, None);
    let changed = |batch: &mut Batch, places: &[usize]| {
        let alarm = |point: &'_ NewPoint| match &point.value {
            Value::Alarm(alarm) => Some((alarm.state, alarm.msg.clone())),
            _ => None,
        };
        let states: Vec<_> = places
            .iter()
            .filter_map(|place| points.get(*place))
            .filter_map(|point| Some((point, alarm(point)?)))
            .collect();
        let states = states
            .iter()
            .map(|(point, (state, msg))| (point.name.as_str(), *state, msg.as_deref(), point.ts));
        let of = (&**call.session, subject.id, &subject.key);
        numbered = Some(app.add_alarm_events(batch, of, states, now));
    };
    let owner = (subject.id.into(), Kind::Alarm);
    let published = app.telemetry.publish_with(owner, payer, points, now, changed);
    match numbered {
        Some(numbered) => numbered.settle(published),
        None => published,
    }
}

/// The topic on which a point is published; a log's entry is not.
const fn topic(point: &NewPoint) -> Option<Topic<'_>> {
    let name = point.name.as_str();
    match point.value {
        Value::Property(_) => Some(Topic::Property(name)),
        Value::Alarm(_) => Some(Topic::Alarm(name)),
        Value::Attribute(_) => Some(Topic::Attribute(name)),
        Value::Location(_) => Some(Topic::Location),
        Value::Log(_) => None,
    }
}

/// The text of a value on its topic (`docs/protocol/tr50.md` 5). An attribute that has none any
/// more is an empty text; the members of a location are separated by commas, and empty when they
/// are absent.
fn payload(value: &Value<'_>) -> String {
    match value {
        Value::Property(value) => number(*value),
        Value::Alarm(alarm) => alarm.state.to_string(),
        Value::Attribute(value) => value.clone().unwrap_or_default().into_owned(),
        Value::Location(location) => position(location),
        Value::Log(entry) => entry.msg.clone().into_owned(),
    }
}

fn position(location: &Location<'_>) -> String {
    let Location { lat, lng, heading, speed, altitude, fix_type, .. } = location;
    let numbers = [Some(*lat), Some(*lng), *heading, *speed, *altitude];
    let mut text: String =
        numbers.into_iter().map(|member| member.map(number).unwrap_or_default() + ",").collect();
    text.push_str(fix_type.as_deref().unwrap_or_default());
    text
}

fn number(value: f64) -> String {
    let mut text = Vec::new();
    json::push_number(&mut text, value);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
