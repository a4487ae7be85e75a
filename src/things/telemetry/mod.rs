//! Telemetry of things over time: properties, alarms, attributes, locations and logs.
//!
//! A *series* is all of one property (alarm, attribute …) of one thing. Its row in
//! [`Table::Series`] has its number and its newest point, so that a current value is one read by
//! key and all current values of a thing are one scan. Its points are in [`Table::Telemetry`], in
//! partitions of a month, under series number, time and arrival.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base::pool::{OverShare, Pool};
use base::{Timestamp, limits};
use dashmap::DashMap;
use smallvec::SmallVec;
use store::{Batch, Change, Month, Receipt, StoreError, Table, Tables};

pub mod aggregate;
mod currents;
mod head;
mod history;
mod keep;
mod once;
mod partition;
pub mod point;
mod series;

pub use currents::{AlarmNow, AttributeNow, Currents, LocationNow, PropertyNow};
pub use history::{Points, Span};
pub use partition::MONTHS_BEFORE as RETENTION_MONTHS_MAX;
pub use series::{Owner, Series, point_time};

use head::Head;
use once::{Once, Place};
use point::{Kind, Value};
use series::{Numbers, point_key, row_key};

use super::Payer;
use super::stored_bytes::{Difference, StoredBytes};
use super::tally::{Taken, Tally};

/// The telemetry of all things.
pub struct Telemetry {
    tables: Tables,
    numbers: Numbers,
    /// How many series there are.
    tally: Tally,
    bytes: Arc<StoredBytes>,
    /// Whose share the telemetry of owners is that have published lately.
    payers: DashMap<Owner, Payer>,
    /// Tells points of one series and time apart, and keeps their order.
    arrival: AtomicU32,
    /// Whole months that are kept before the current one; 0 keeps everything.
    retention_months: u32,
}

/// A point that is to be recorded.
#[derive(Clone, PartialEq, Debug)]
pub struct NewPoint {
    /// The name of the series; empty for locations and logs.
    pub name: String,
    /// When it was measured; none: now.
    pub ts: Option<Timestamp>,
    /// What was measured.
    pub value: Value<'static>,
    /// The client's word by which points belong together.
    pub corr_id: Option<String>,
    /// Records an alarm's state or an attribute's value even if it has not changed.
    pub republish: bool,
}

impl NewPoint {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.name.len() + self.corr_id.as_ref().map_or(0, String::len) + self.value.text_bytes()
    }
}

/// What became of new points.
#[derive(Debug)]
pub struct Published {
    /// Resolves when they are durable.
    pub receipt: Receipt,
    /// Which of them, by their place, were not recorded because nothing had changed, or because they
    /// are there already.
    pub unchanged: Vec<usize>,
    /// Which were not because there is no room for them, and why.
    pub refused: Option<(Vec<usize>, NotRecorded)>,
}

impl Published {
    /// Whether the point at this place was recorded.
    pub fn has(&self, index: usize) -> bool {
        let refused = self.refused.as_ref().map_or(&[][..], |(refused, _)| refused);
        self.unchanged.binary_search(&index).is_err() && refused.binary_search(&index).is_err()
    }
}

/// Why there is no room for a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotRecorded {
    /// It is the first of its series, and the thing has as many as it may have.
    #[error(
        "the thing has {} properties, alarms and attributes, the most it may have",
        limits::SERIES_PER_THING_MAX
    )]
    SeriesOfThing,
    /// The same of all together or of whose share it is, or those have all of the disk.
    #[error(transparent)]
    OverShare(#[from] OverShare),
}

impl NotRecorded {
    /// Whether all points are refused for it, and not only those that begin a series.
    pub const fn is_of_all(self) -> bool {
        matches!(self, Self::OverShare(OverShare { pool: Pool::Disk, .. }))
    }
}

/// Bytes of a point or a series that don't read back.
#[derive(Debug, thiserror::Error)]
#[error("a point of series {0} is damaged")]
struct Damaged(u64);

impl Damaged {
    fn error(series: u64) -> StoreError {
        StoreError::Engine { doing: "read telemetry", source: Box::new(Self(series)) }
    }
}

impl Telemetry {
    /// The telemetry in these tables, with at most `series_max` series. `arrival` is where the count of arrivals begins; to keep the
    /// order of points with one time across a restart, it should grow from start to start.
    pub fn open(
        tables: Tables,
        arrival: u32,
        retention_months: u32,
        (series_max, bytes): (u64, &Arc<StoredBytes>),
    ) -> Result<Self, StoreError> {
        let tally = head::open_tally(&tables, series_max, bytes.pools())?;
        let (numbers, arrival) = (Numbers::default(), AtomicU32::new(arrival));
        let (bytes, payers) = (bytes.clone(), DashMap::new());
        Ok(Self { tables, numbers, tally, bytes, payers, arrival, retention_months })
    }

    /// Whether a point of this time is young enough to be kept.
    pub fn keeps(&self, ts: Timestamp, now: Timestamp) -> bool {
        self.retention_months == 0 || ts.month() >= now.month() - i64::from(self.retention_months)
    }

    /// Records points of one kind, all of one owner, in order and in one batch. Points without a
    /// time are of now.
    ///
    /// An alarm's state or an attribute's value that is the same as the newest one is not recorded
    /// again unless the point asks for it (`docs/protocol/tr50.md` 4.1, `alarm.publish`). A point
    /// that is older than the newest is always recorded: it comes from a device that was off the
    /// line.
    ///
    /// A point with a time and a word of its client that is there already was sent again, and is not
    /// recorded either.
    ///
    /// The first point of a series is refused where there may be no more of them, and all are where
    /// there is no room on the disk; `payer` says whose share it is, and is asked for the first series
    /// of an owner.
    ///
    /// # Errors
    /// What the store reports; nothing is recorded then.
    pub fn publish(
        &self,
        owner: Owner,
        payer: impl FnOnce() -> Result<Payer, StoreError>,
        kind: Kind,
        points: &[NewPoint],
        now: Timestamp,
    ) -> Result<Published, StoreError> {
        self.publish_with((owner, kind), payer, points, now, |_, _| ())
    }

    /// The same, with what `also` adds to the batch, which gets to know the places of those alarms
    /// that have another state than before; it is not called if there are none.
    ///
    /// # Errors
    /// As [`Telemetry::publish`].
    pub fn publish_with(
        &self,
        (owner, kind): (Owner, Kind),
        payer: impl FnOnce() -> Result<Payer, StoreError>,
        points: &[NewPoint],
        now: Timestamp,
        also: impl FnOnce(&mut Batch, &[usize]),
    ) -> Result<Published, StoreError> {
        let _order = self.tables.exclusive(owner.as_bytes());
        let (mut open, places) = self.open_all(owner, kind, points)?;
        let payer = self.payer_of(owner, payer)?;
        let added = self.add_series(owner, payer, &mut open)?;
        let mut batch = Batch(Vec::with_capacity(points.len() + 1));
        let (mut unchanged, mut refused, mut alarms) = (Vec::new(), Vec::new(), Vec::new());
        let (mut once, mut has_again) = (Once::default(), false);
        for (index, (point, at)) in points.iter().zip(places).enumerate() {
            let Some(series) = open.get_mut(at) else { continue };
            let ts = point.ts.unwrap_or(now);
            if !point.republish && series.repeats(&batch, ts, &point.value) {
                unchanged.push(index);
                continue;
            }
            let Some(number) = series.number else {
                refused.push(index);
                continue;
            };
            let key = match once.place(&self.tables, &batch, number, point, now)? {
                Place::Arrival => {
                    let count = self.arrival.fetch_add(1, Ordering::Relaxed);
                    point_key(number, ts, once::arrival(count))
                }
                Place::Word(key) => key,
                Place::Taken => {
                    has_again = true;
                    unchanged.push(index);
                    continue;
                }
            };
            let value = point::encode(&point.value, point.corr_id.as_deref());
            if kind == Kind::Alarm && series.changes(&batch, ts, &point.value) {
                alarms.push(index);
            }
            series.advance(&batch, ts, &point.value);
            batch.put(Table::Telemetry(partition::of(ts, now)), key, value);
        }
        let mut difference = of_points(&batch);
        for series in &open {
            series.close(&mut batch, &mut difference);
        }
        let counted = match self.bytes.change(payer, &difference) {
            Ok(counted) => counted,
            Err(over) => {
                let all = 0..points.len();
                let refused = all.filter(|index| unchanged.binary_search(index).is_err()).collect();
                let (receipt, refused) = (Receipt::nothing(), Some((refused, over.into())));
                return Ok(Published { receipt, unchanged, refused });
            }
        };
        if !alarms.is_empty() {
            also(&mut batch, &alarms);
        }
        let why = added.as_ref().and_then(|added| added.why);
        let submitted = match added.filter(|added| added.taken.count() > 0) {
            // What is there is as durable as the answer says.
            None if has_again && batch.0.is_empty() => self.tables.writer().barrier(),
            None => self.tables.submit(batch),
            Some(Added { head, taken, .. }) => {
                head.put(&mut batch, owner);
                taken.submit(&self.tables, batch)
            }
        };
        let receipt = submitted?;
        counted.made();
        Ok(Published { receipt, unchanged, refused: why.map(|why| (refused, why)) })
    }

    /// Whose share the telemetry of an owner is, which stays so for as long as there is one.
    fn payer_of(
        &self,
        owner: Owner,
        payer: impl FnOnce() -> Result<Payer, StoreError>,
    ) -> Result<Payer, StoreError> {
        if let Some(payer) = self.payers.get(&owner) {
            return Ok(*payer);
        }
        let payer = match Head::read(&self.tables, owner)? {
            Some(head) => head.payer,
            // It has no series yet, and no row that will say so again.
            None => return payer(),
        };
        if self.payers.len() >= limits::PAYERS_KNOWN_MAX {
            self.payers.clear();
        }
        self.payers.insert(owner, payer);
        Ok(payer)
    }

    /// The series of these points, each once, and for each point where its series is.
    fn open_all(
        &self,
        owner: Owner,
        kind: Kind,
        points: &[NewPoint],
    ) -> Result<(Vec<Open>, SmallVec<[usize; 4]>), StoreError> {
        let (mut open, mut by_name) = (Vec::<Open>::new(), HashMap::<&str, usize>::new());
        let mut places = SmallVec::with_capacity(points.len());
        for point in points {
            let at = match by_name.get(point.name.as_str()) {
                Some(at) => *at,
                None => {
                    open.push(self.open_one(owner, kind, &point.name)?);
                    by_name.insert(&point.name, open.len() - 1);
                    open.len() - 1
                }
            };
            if let Some(series) = open.get_mut(at).filter(|series| !series.begins) {
                series.begins = point.republish || point.value != Value::Attribute(None);
            }
            places.push(at);
        }
        Ok((open, places))
    }

    /// Gives numbers to series that are new, as far as there is room for them.
    fn add_series(
        &self,
        owner: Owner,
        payer: Payer,
        open: &mut [Open],
    ) -> Result<Option<Added<'_>>, StoreError> {
        let is_new = |series: &&mut Open| series.number.is_none() && series.begins;
        let wanted = open.iter_mut().filter(is_new).count() as u64;
        if wanted == 0 {
            return Ok(None);
        }
        let head = Head::read(&self.tables, owner)?;
        let mut head = head.unwrap_or(Head { count: 0, payer });
        let of_thing = (limits::SERIES_PER_THING_MAX as u64).saturating_sub(head.count);
        let (taken, over) = self.tally.take_some(head.payer, wanted.min(of_thing));
        let count = taken.count();
        for series in open.iter_mut().filter(is_new).take(count as usize) {
            series.number = Some(self.numbers.next(&self.tables)?);
        }
        head.count += count;
        let of_thing = (wanted > of_thing).then_some(NotRecorded::SeriesOfThing);
        Ok(Some(Added { head, taken, why: over.map(NotRecorded::OverShare).or(of_thing) }))
    }

    fn open_one(&self, owner: Owner, kind: Kind, name: &str) -> Result<Open, StoreError> {
        let key = row_key(owner, kind, name);
        let row = self.tables.read(Table::Series, &key)?;
        let row_bytes = row.as_ref().map_or(0, |row| key.len() + row.len());
        Ok(match row.map(|row| read_series(kind, &row)).transpose()? {
            Some(series) => Open {
                key,
                row_bytes,
                number: Some(series.number),
                since: series.since,
                ts: series.ts,
                newest: Newest::Stored(kind, series.newest),
                begins: true,
            },
            None => Open {
                key,
                row_bytes,
                number: None,
                since: Timestamp::default(),
                ts: Timestamp::default(),
                newest: Newest::None,
                begins: false,
            },
        })
    }

    /// A series with its newest point, also when that is not committed yet.
    pub fn series(
        &self,
        owner: Owner,
        kind: Kind,
        name: &str,
    ) -> Result<Option<Series>, StoreError> {
        let row = self.tables.read(Table::Series, &row_key(owner, kind, name))?;
        row.map(|row| read_series(kind, &row)).transpose()
    }

    /// The months that have points, in order, without those of [`partition::OUTLIERS`].
    fn months(&self) -> Vec<Month> {
        let mut months = self.tables.months();
        months.retain(|month| *month != partition::OUTLIERS);
        months
    }
}

fn read_series(kind: Kind, row: &[u8]) -> Result<Series, StoreError> {
    Series::from_row(kind, row).ok_or_else(|| Damaged::error(0))
}

/// What the points in a batch take.
fn of_points(batch: &Batch) -> Difference {
    let mut difference = Difference::default();
    for change in &batch.0 {
        if let Change::Put(Table::Telemetry(month), key, value) = change {
            difference.add_point(*month, key.len() + value.len());
        }
    }
    difference
}

/// Series that points begin.
struct Added<'a> {
    /// The owner's head with them.
    head: Head,
    /// The room for them.
    taken: Taken<'a>,
    /// Why they are not all that were wanted.
    why: Option<NotRecorded>,
}

/// A series while points are recorded.
struct Open {
    key: Vec<u8>,
    /// What its row takes.
    row_bytes: usize,
    /// None before its first point, and where there is no room for it.
    number: Option<u64>,
    /// Whether the points make it, if it is not there.
    begins: bool,
    since: Timestamp,
    ts: Timestamp,
    newest: Newest,
}

/// Where the bytes of a series' newest point are.
enum Newest {
    /// There is none.
    None,
    /// In the series' row.
    Stored(Kind, Vec<u8>),
    /// In the batch, at this place.
    InBatch(Kind, usize),
}

impl Open {
    fn newest<'b>(&'b self, batch: &'b Batch) -> Option<Value<'b>> {
        let (kind, bytes) = match &self.newest {
            Newest::None => return None,
            Newest::Stored(kind, bytes) => (*kind, bytes.as_slice()),
            Newest::InBatch(kind, at) => (*kind, batch.value_at(*at)?),
        };
        point::decode(kind, bytes).map(|(value, _)| value)
    }

    /// Whether a point only says what holds already.
    fn repeats(&self, batch: &Batch, ts: Timestamp, value: &Value<'_>) -> bool {
        match (value, &self.newest) {
            (Value::Attribute(None), Newest::None) => true,
            (Value::Alarm(_) | Value::Attribute(_), Newest::Stored(..) | Newest::InBatch(..)) => {
                ts >= self.ts && self.newest(batch).is_some_and(|newest| same(&newest, value))
            }
            _ => false,
        }
    }

    /// Whether a point says something else than what held until now.
    fn changes(&self, batch: &Batch, ts: Timestamp, value: &Value<'_>) -> bool {
        match self.newest(batch) {
            Some(newest) => ts >= self.ts && !same(&newest, value),
            None => true,
        }
    }

    /// Notes a point that is about to be put into the batch.
    fn advance(&mut self, batch: &Batch, ts: Timestamp, value: &Value<'_>) {
        let first = matches!(self.newest, Newest::None);
        if !first && ts < self.ts {
            return;
        }
        if first || !self.newest(batch).is_some_and(|newest| same(&newest, value)) {
            self.since = ts;
        }
        self.ts = ts;
        self.newest = Newest::InBatch(kind_of(value), batch.0.len());
    }

    /// Puts the row of a series that has a newer point into the batch.
    fn close(&self, batch: &mut Batch, difference: &mut Difference) {
        if let (Some(number), Newest::InBatch(_, at)) = (self.number, &self.newest)
            && let Some(newest) = batch.value_at(*at)
        {
            let row = Series::row(number, self.since, self.ts, newest);
            difference.note(self.row_bytes, self.key.len() + row.len());
            batch.put(Table::Series, self.key.as_slice(), row);
        }
    }
}

/// Whether two values are the same state of an alarm or the same value of an attribute.
fn same(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Alarm(one), Value::Alarm(other)) => one.state == other.state,
        (Value::Attribute(one), Value::Attribute(other)) => one == other,
        _ => false,
    }
}

const fn kind_of(value: &Value<'_>) -> Kind {
    match value {
        Value::Property(_) => Kind::Property,
        Value::Alarm(_) => Kind::Alarm,
        Value::Attribute(_) => Kind::Attribute,
        Value::Location(_) => Kind::Location,
        Value::Log(_) => Kind::Log,
    }
}

#[cfg(test)]
mod tests;
