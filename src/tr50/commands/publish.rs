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
mod tests {
    use std::sync::atomic::Ordering;

    use base::ThingKey;
    use rules::directory::Session;
    use rules::identity::model::Org;
    use store::watched::Watched;
    use store::{Condition, Store as _};

    use super::*;
    use crate::app::tests::{NOW, demo_with, login, permit_all};
    use crate::app::{App, SessionChange};
    use crate::config::Config;
    use crate::things::registry::Thing;
    use crate::tr50::commands::alarm::Alarm;
    use crate::tr50::commands::attribute::Attribute;
    use crate::tr50::commands::location::Location as Fix;
    use crate::tr50::commands::property::Property;

    /// Points that are three pieces.
    const MANY: usize = 2 * limits::BATCH_PIECE + 500;

    struct Bench {
        app: Arc<App>,
        store: Arc<Watched>,
        session: Arc<Session>,
    }

    impl Bench {
        async fn new() -> Self {
            Self::with(Config::default()).await
        }

        async fn with(config: Config) -> Self {
            let (app, store) = demo_with(config);
            let session = login(&app).await.expect("welcome");
            permit_all(&app, &session);
            Self { app, store, session }
        }

        fn call(&self) -> Call<'_> {
            Call { app: &self.app, session: &self.session, conn: *self.session.conn(), now: NOW }
        }

        fn batch<I: Item>(&self, text: &str) -> Later {
            batch(&self.call(), batch_text::<I>(text)).expect("begun")
        }

        /// Such a batch whose first piece is stored, and which does not go on before it is waited for.
        async fn stopped<I: Item>(&self, text: &str) -> Later {
            let later = self.batch::<I>(text);
            while self.points() == 0 {
                tokio::task::yield_now().await;
            }
            later
        }

        /// How many points are stored.
        fn points(&self) -> usize {
            use std::ops::Bound::Unbounded;
            let months =
                self.store.months().into_iter().filter(|t| matches!(t, store::Table::Telemetry(_)));
            months
                .map(|t| self.store.scan(t, Unbounded, Unbounded, usize::MAX).expect("read").len())
                .sum()
        }

        fn thing(&self, id: u8) -> Thing {
            let key = ThingKey::parse("child").expect("a key");
            Thing::new(ThingId::from_bytes([id; 12]), self.session.org_id(), key, "", NOW)
        }

        async fn add_thing(&self, id: u8) {
            self.app.things.create(&self.thing(id)).expect("room").await.expect("stored");
        }

        async fn remove_thing(&self) {
            let Thing { org, key, .. } = self.thing(0);
            let removed = self.app.things.remove(org, &key, |_, _| ()).expect("taken");
            removed.expect("it was there").1.await.expect("stored");
        }
    }

    fn batch_text<I: Item>(text: &str) -> BatchText<I> {
        let text: Box<RawValue> = serde_json::from_str(text).expect("JSON");
        BatchText::read(RawParams::Json(Some(&text))).expect("an object")
    }

    /// So many points that are all what stands beside them.
    fn same(beside: &str, count: usize) -> String {
        format!("{{{beside},\"data\":[{}]}}", vec!["{}"; count].join(","))
    }

    const V: &str = r#""key":"v","value":1"#;

    async fn failure(later: Later) -> Failure {
        later.done().await.err().expect("a failure")
    }

    #[tokio::test]
    async fn a_piece_that_is_lost_is_named_by_its_first_point() {
        let bench = Bench::new().await;
        let later = bench.stopped::<Property>(&same(V, MANY)).await;
        bench.store.failing.store(true, Ordering::SeqCst);
        let failure = failure(later).await;
        assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
        assert_eq!((failure.code, bench.points()), (Code::INTERNAL, limits::BATCH_PIECE));
    }

    #[tokio::test]
    async fn a_first_piece_that_is_lost_is_the_whole_batch() {
        let bench = Bench::new().await;
        bench.store.failing.store(true, Ordering::SeqCst);
        let failure = failure(bench.batch::<Property>(&same(V, MANY))).await;
        assert!(!failure.message.starts_with("data["), "{failure:?}");
    }

    #[tokio::test]
    async fn what_the_store_holds_ends_before_the_point_that_is_named() {
        let bench = Bench::new().await;
        let held = async |text: &str| {
            let begun = begin(&bench.call(), &batch_text::<Property>(text)).expect("begun");
            begun.receipt.await.expect("stored");
            begun.rest.behind(begun.piece, Err(StoreError::Held)).err().expect("a failure").message
        };
        let wrong = r#"{"key":"v","value":1,"data":[{},{"value":"x"},{}]}"#;
        for (text, place) in [(same(V, MANY), "data[2000]: "), (wrong.to_owned(), "data[1]: ")] {
            let message = held(&text).await;
            assert!(message.starts_with(place), "{message}");
            assert!(message.contains("what comes before this point is stored"), "{message}");
        }
        assert_eq!(held(&same(V, 3)).await, StoreError::Held.as_failure().message, "all are held");
    }

    #[tokio::test]
    async fn a_batch_goes_no_further_for_another_thing_of_the_same_key() {
        let bench = Bench::new().await;
        bench.add_thing(1).await;
        let text = same(&format!(r#"{V},"thingKey":"child""#), MANY);
        let later = bench.stopped::<Property>(&text).await;
        bench.remove_thing().await;
        bench.add_thing(2).await;
        let failure = failure(later).await;
        assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
        assert_eq!((failure.code, bench.points()), (Code::NOT_FOUND, limits::BATCH_PIECE));
    }

    #[tokio::test]
    async fn a_batch_goes_no_further_in_another_organisation() {
        let bench = Bench::new().await;
        let later = bench.stopped::<Property>(&same(V, MANY)).await;
        let mut access = rules::identity::Access::clone(&bench.session.access());
        let id = OrgId::from_bytes([9; 12]);
        access.org = Arc::new(Org { id, key: "Other".into(), ..Org::clone(&access.org) });
        let switch = SessionChange::Switch(bench.session.clone(), Arc::new(access));
        bench.app.apply(switch.into(), NOW).await.stored.expect("stored");
        assert_eq!(bench.session.org_id(), id);
        let failure = failure(later).await;
        assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
        assert_eq!(bench.points(), limits::BATCH_PIECE);
    }

    #[tokio::test]
    async fn the_first_point_that_was_not_taken_is_named_whatever_comes_later() {
        let mut config = Config::default();
        config.limits.series = 16;
        let bench = Bench::with(config).await;
        bench.add_thing(1).await;
        let named: Vec<_> = (0..20).map(|number| format!(r#"{{"key":"{number}"}}"#)).collect();
        let more = vec![r#"{"key":"0"}"#; limits::BATCH_PIECE].join(",");
        let text =
            format!(r#"{{"value":1,"thingKey":"child","data":[{},{more}]}}"#, named.join(","));
        let call = bench.call();
        let begun = begin(&call, &batch_text::<Property>(&text)).expect("begun");
        let refused = begun.piece.failed.as_ref().expect("too many series").0;
        assert!(refused < 20, "{refused}");
        // It keeps out only its own series: what the store holds goes on to the end of the piece.
        let held = begun.rest.behind(begun.piece, Err(StoreError::Held)).err().expect("a failure");
        assert!(held.message.starts_with("data[2000]: "), "{held:?}");
        // The same from the outside; its series are there.
        let later = bench.batch::<Property>(&text);
        bench.remove_thing().await;
        let failure = failure(later).await;
        assert_eq!(failure.code, Code::LIMIT_REACHED, "{failure:?}");
        assert!(failure.message.starts_with(&format!("data[{refused}]: ")), "{failure:?}");
    }

    #[tokio::test]
    async fn a_batch_ends_with_a_piece_for_which_the_disk_has_no_room() {
        let bench = Bench::new().await;
        let value = "x".repeat(limits::ATTRIBUTE_BYTES_MAX);
        let large = limits::BATCH_PIECE_BYTES / limits::ATTRIBUTE_BYTES_MAX;
        let large = (0..large).map(|number| format!(r#"{{"key":"l{number}","value":"{value}"}}"#));
        let small = (0..10).map(|number| format!(r#"{{"key":"s{number}","value":"x"}}"#));
        let points: Vec<_> = large.chain(small).collect();
        bench.store.room().note(Condition::Good, 100_000, 100_000);
        let text = format!(r#"{{"data":[{}]}}"#, points.join(","));
        let refused = failure(bench.batch::<Attribute>(&text)).await;
        assert!(refused.message.starts_with("data[0]: "), "{refused:?}");
        assert_eq!(bench.points(), 0, "none that would be there twice");
        let text = r#"{"data":[{"key":"s","value":"x"}]}"#;
        drop(bench.batch::<Attribute>(text).done().await.expect("there is room for less"));
    }

    #[tokio::test]
    async fn one_point_too_many_keeps_no_alarm_out_by_its_time() {
        let bench = Bench::new().await;
        let points = vec!["{}"; limits::BATCH_ITEMS_MAX].join(",");
        let last = r#"{"ts":"2020-01-01T00:00:00Z"}"#;
        let text = format!(r#"{{"key":"a","state":1,"data":[{points},{last}]}}"#);
        let failure = failure(bench.batch::<Alarm>(&text)).await;
        assert!(failure.message.starts_with("data[100000]: "), "{failure:?}");
        assert_eq!((failure.code, bench.points()), (Code::TOO_LARGE, 1));
    }

    #[tokio::test]
    async fn who_sends_on_waits_for_what_takes_a_moment() {
        let bench = Bench::new().await;
        let long = |bytes: usize| {
            format!(r#"{{"key":"v","x":"{}","data":[{{"value":1}}]}}"#, "x".repeat(bytes))
        };
        for (text, holds_up) in [
            (same(V, 10), false),
            (same(V, MANY), true),
            (long(limits::BATCH_AT_ONCE_BYTES), true),
            (long(limits::BATCH_IN_ORDER_BYTES), false),
        ] {
            let later = bench.batch::<Property>(&text);
            assert_eq!(later.holds_up, holds_up, "{} bytes", text.len());
        }
    }

    #[test]
    fn each_kind_of_batch_is_a_command() {
        for name in [Property::BATCH, Alarm::BATCH, Attribute::BATCH, Fix::BATCH] {
            assert_eq!(find(name).map(|row| row.info.name), Some(name));
        }
    }

    #[test]
    fn what_a_text_must_be_names_its_bound() {
        for (expected, most) in BOUNDS {
            assert!(expected.ends_with(&format!("{most} bytes")), "{expected}: {most}");
        }
    }

    #[test]
    fn a_location_is_told_with_empty_places() {
        let location = Location { lat: 1.5, lng: -2.0, ..Location::default() };
        assert_eq!(position(&location), "1.5,-2,,,,");
        let location = Location {
            heading: Some(90.0),
            speed: Some(0.25),
            altitude: Some(-3.0),
            fix_type: Some("gps".into()),
            ..location
        };
        assert_eq!(position(&location), "1.5,-2,90,0.25,-3,gps");
    }
}
