//! The current values of a thing, in the form in which `thing.find` shows them.

use std::collections::BTreeMap;

use base::{ThingId, Timestamp, json::whole, limits};
use serde::Serialize;
use store::{StoreError, Table};

use super::point::{Kind, Location, Value};
use super::series::{Series, kind_and_name, row_key};
use super::{Damaged, Telemetry, head};

/// All current values of a thing, each with the members and names that the thing object has for
/// them (`docs/protocol/tr50.md` 4.4).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Currents {
    /// The member `properties`, by key.
    pub properties: BTreeMap<String, PropertyNow>,
    /// The member `alarms`, by key.
    pub alarms: BTreeMap<String, AlarmNow>,
    /// The member `attrs`, by key; attributes without a value are left out.
    pub attributes: BTreeMap<String, AttributeNow>,
    /// The member `loc`.
    pub location: Option<LocationNow>,
}

/// A property now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PropertyNow {
    /// The value: a whole number without a fraction, if it is one.
    #[serde(serialize_with = "serialize_number")]
    pub value: f64,
    /// When it was measured.
    pub ts: Timestamp,
}

/// An alarm now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AlarmNow {
    /// The state.
    pub state: i64,
    /// When it was last published.
    pub ts: Timestamp,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// What the device says about it; may be empty.
    pub msg: String,
    /// Latitude of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    /// Longitude of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lng: Option<f64>,
}

/// An attribute now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AttributeNow {
    /// The value.
    pub value: String,
    /// When it was last published.
    pub ts: Timestamp,
    /// Since when it has had this value.
    pub since: Timestamp,
}

/// The location now.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationNow {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lng: f64,
    /// How it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix_type: Option<String>,
    /// The address that was published with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub addr: BTreeMap<&'static str, String>,
    /// When the thing was there.
    pub since: Timestamp,
}

impl LocationNow {
    /// The names of the lines of an address, in the order of [`Location::address`].
    pub const ADDRESS: [&'static str; 6] =
        ["streetNumber", "street", "city", "state", "zipCode", "country"];

    fn new(location: Location<'_>, since: Timestamp) -> Self {
        let lines = Self::ADDRESS.into_iter().zip(location.address);
        let lines = lines.filter_map(|(name, line)| Some((name, line?.into_owned())));
        Self {
            lat: location.lat,
            lng: location.lng,
            fix_type: location.fix_type.map(Into::into),
            addr: lines.collect(),
            since,
        }
    }
}

/// Rows read at once; an attribute has up to 16 kB.
const PAGE_ROWS: usize = 100;

impl Telemetry {
    /// The current values of a thing, as they are committed: one scan of its series. What is
    /// beyond [`limits::CURRENTS_MAX`] or [`limits::CURRENTS_BYTES_MAX`] is left out.
    pub fn currents(&self, thing: ThingId) -> Result<Currents, StoreError> {
        let mut currents = Currents::default();
        let prefix = thing.as_bytes();
        let (mut after, mut bytes) = (head::row_key(prefix), 0);
        for _ in 0..limits::CURRENTS_MAX / PAGE_ROWS {
            let rows = self.tables.scan_prefix(Table::Series, prefix, Some(&after), PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (key, row) in rows {
                bytes += key.len() + row.len();
                if bytes > limits::CURRENTS_BYTES_MAX {
                    return Ok(currents);
                }
                let Some((kind, name)) = kind_and_name(&key) else { continue };
                let series = Series::from_row(kind, &row).ok_or_else(|| Damaged::error(0))?;
                currents.add(name.to_owned(), &series)?;
            }
        }
        Ok(currents)
    }
}

impl Telemetry {
    /// How many alarms of a thing are raised, which is in another state than 0, and the greatest state
    /// of all; none: it has no alarm. Of very many, the first [`limits::CURRENTS_MAX`] count.
    pub fn raised_alarms(&self, thing: ThingId) -> Result<(usize, Option<i64>), StoreError> {
        let prefix = row_key(thing.into(), Kind::Alarm, "");
        let (mut raised, mut worst) = (0, None);
        let mut after: Option<Vec<u8>> = None;
        for _ in 0..limits::CURRENTS_MAX / PAGE_ROWS {
            let rows =
                self.tables.scan_prefix(Table::Series, &prefix, after.as_deref(), PAGE_ROWS)?;
            let is_last = rows.len() < PAGE_ROWS;
            after = rows.last().map(|(key, _)| key.clone());
            for (_, row) in rows {
                let series = Series::from_row(Kind::Alarm, &row);
                let series = series.ok_or_else(|| Damaged::error(0))?;
                if let Value::Alarm(alarm) = series.newest_point()?.value {
                    raised += usize::from(alarm.state != 0);
                    worst = worst.max(Some(alarm.state));
                }
            }
            if is_last {
                break;
            }
        }
        Ok((raised, worst))
    }
}

impl Currents {
    fn add(&mut self, name: String, series: &Series) -> Result<(), StoreError> {
        let (ts, since) = (series.ts, series.since);
        match series.newest_point()?.value {
            Value::Property(value) => {
                self.properties.insert(name, PropertyNow { value, ts });
            }
            Value::Alarm(alarm) => {
                let (lat, lng) = alarm.place.unzip();
                let msg = alarm.msg.unwrap_or_default().into_owned();
                self.alarms.insert(name, AlarmNow { state: alarm.state, ts, since, msg, lat, lng });
            }
            Value::Attribute(Some(value)) => {
                let value = value.into_owned();
                self.attributes.insert(name, AttributeNow { value, ts, since });
            }
            Value::Location(location) => self.location = Some(LocationNow::new(*location, ts)),
            Value::Attribute(None) | Value::Log(_) => {}
        }
        Ok(())
    }
}

fn serialize_number<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match whole(*number) {
        Some(whole) => serializer.serialize_i64(whole),
        None => serializer.serialize_f64(*number),
    }
}
