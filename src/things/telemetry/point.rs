//! Points of a series, and their encoding in the store.
//!
//! Texts are preceded by their length plus one, as a number of seven bits a byte; 0 is no text.
//! Floating-point numbers are eight bytes, big-endian.

use std::borrow::Cow;

use base::Timestamp;

/// What a series is about. The numbers are bytes of keys in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// `property.*`: a number.
    Property = 1,
    /// `alarm.*`: a state.
    Alarm = 2,
    /// `attribute.*` and `thing.attr.*`: a text.
    Attribute = 3,
    /// `location.*`: where the thing is. A thing has one such series, without a name.
    Location = 4,
    /// `log.*`: what happened. A thing has one such series, without a name.
    Log = 5,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Property,
            2 => Self::Alarm,
            3 => Self::Attribute,
            4 => Self::Location,
            5 => Self::Log,
            _ => return None,
        })
    }
}

/// A text that may still belong to the row that it was read from.
pub type Text<'a> = Cow<'a, str>;

/// What a point says.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Of a property.
    Property(f64),
    /// Of an alarm.
    Alarm(Alarm<'a>),
    /// Of an attribute; none: from here on it has no value.
    Attribute(Option<Text<'a>>),
    /// Of a location. Boxed: it is ten times as large as the others.
    Location(Box<Location<'a>>),
    /// Of a log.
    Log(Entry<'a>),
}

impl Value<'_> {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let bytes = |text: &Option<Text<'_>>| text.as_ref().map_or(0, |text| text.len());
        match self {
            Self::Property(_) => 0,
            Self::Alarm(alarm) => bytes(&alarm.msg),
            Self::Attribute(value) => bytes(value),
            Self::Location(place) => {
                bytes(&place.fix_type) + place.address.iter().map(bytes).sum::<usize>()
            }
            Self::Log(entry) => entry.msg.len(),
        }
    }
}

/// The state of an alarm (`docs/protocol/tr50.md` 4.1, `alarm.publish`).
#[derive(Clone, PartialEq, Debug)]
pub struct Alarm<'a> {
    /// The state.
    pub state: i64,
    /// What the device says about it.
    pub msg: Option<Text<'a>>,
    /// Latitude and longitude of the event.
    pub place: Option<(f64, f64)>,
}

/// A position (`docs/protocol/tr50.md` 4.1, `location.publish`).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Location<'a> {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lng: f64,
    /// Heading in degrees.
    pub heading: Option<f64>,
    /// Altitude.
    pub altitude: Option<f64>,
    /// Speed.
    pub speed: Option<f64>,
    /// Accuracy of the position.
    pub fix_acc: Option<f64>,
    /// How it was found: `gps`, `gnss`, `manual`, `m2m-locate`, `coarse`, or a device's own word.
    pub fix_type: Option<Text<'a>>,
    /// The lines of the address: number, street, city, state, zip code, country.
    pub address: [Option<Text<'a>>; 6],
}

/// An entry of a log (`docs/protocol/tr50.md` 4.1, `log.publish`).
#[derive(Clone, PartialEq, Debug)]
pub struct Entry<'a> {
    /// 0 error, 1 warning, 2 information.
    pub level: u8,
    /// The message.
    pub msg: Text<'a>,
}

/// A point.
#[derive(Clone, PartialEq, Debug)]
pub struct Point<'a> {
    /// When it was measured.
    pub ts: Timestamp,
    /// What was measured.
    pub value: Value<'a>,
    /// The client's word by which points belong together.
    pub corr_id: Option<Text<'a>>,
}

/// The bytes of a point without its time.
pub fn encode(value: &Value<'_>, corr_id: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    match value {
        Value::Property(value) => put_number(&mut out, *value),
        Value::Alarm(alarm) => {
            out.extend_from_slice(&alarm.state.to_be_bytes());
            out.push(u8::from(alarm.place.is_some()));
            for degrees in alarm.place.iter().flat_map(|(lat, lng)| [lat, lng]) {
                put_number(&mut out, *degrees);
            }
            put_text(&mut out, alarm.msg.as_deref());
        }
        Value::Attribute(value) => put_text(&mut out, value.as_deref()),
        Value::Location(location) => put_location(&mut out, location),
        Value::Log(entry) => {
            out.push(entry.level);
            put_text(&mut out, Some(&entry.msg));
        }
    }
    put_text(&mut out, corr_id);
    out
}

/// Value and correlation id from their bytes; none when they are damaged.
pub fn decode(kind: Kind, bytes: &[u8]) -> Option<(Value<'_>, Option<Text<'_>>)> {
    let mut reader = Reader(bytes);
    let value = match kind {
        Kind::Property => Value::Property(reader.number()?),
        Kind::Alarm => {
            let state = i64::from_be_bytes(reader.array()?);
            let [has_place] = reader.array()?;
            let place = match has_place {
                0 => None,
                _ => Some((reader.number()?, reader.number()?)),
            };
            Value::Alarm(Alarm { state, place, msg: reader.text()? })
        }
        Kind::Attribute => Value::Attribute(reader.text()?),
        Kind::Location => Value::Location(Box::new(reader.location()?)),
        Kind::Log => {
            let [level] = reader.array()?;
            Value::Log(Entry { level, msg: reader.text()?? })
        }
    };
    Some((value, reader.text()?))
}

fn put_location(out: &mut Vec<u8>, location: &Location<'_>) {
    put_number(out, location.lat);
    put_number(out, location.lng);
    let numbers = [location.heading, location.altitude, location.speed, location.fix_acc];
    let present = numbers.iter().enumerate().map(|(bit, n)| u8::from(n.is_some()) << bit).sum();
    out.push(present);
    numbers.into_iter().flatten().for_each(|number| put_number(out, number));
    put_text(out, location.fix_type.as_deref());
    location.address.iter().for_each(|line| put_text(out, line.as_deref()));
}

fn put_number(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    let mut length = text.map_or(0, |text| text.len() + 1);
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// What is left of a point's bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<f64> {
        self.array().map(f64::from_be_bytes)
    }

    fn text(&mut self) -> Option<Option<Text<'a>>> {
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let [byte] = self.array()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let Some(length) = length.checked_sub(1) else { return Some(None) };
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(std::str::from_utf8(text).ok()?.into()))
    }

    fn location(&mut self) -> Option<Location<'a>> {
        let (lat, lng) = (self.number()?, self.number()?);
        let [present] = self.array()?;
        let mut numbers = [None; 4];
        for (bit, number) in numbers.iter_mut().enumerate() {
            if present & 1 << bit != 0 {
                *number = Some(self.number()?);
            }
        }
        let [heading, altitude, speed, fix_acc] = numbers;
        let fix_type = self.text()?;
        let mut address = <[Option<Text<'a>>; 6]>::default();
        for line in &mut address {
            *line = self.text()?;
        }
        Some(Location { lat, lng, heading, altitude, speed, fix_acc, fix_type, address })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Option<Text<'static>>> {
        prop::option::of("\\PC{0,300}".prop_map(Cow::Owned))
    }

    fn number() -> impl Strategy<Value = Option<f64>> {
        prop::option::of(-1e9..1e9)
    }

    fn value() -> impl Strategy<Value = (Kind, Value<'static>)> {
        let place = || prop::option::of((-90.0..90.0, -180.0..180.0));
        let property = any::<f64>().prop_filter("a number", |n| !n.is_nan());
        let alarm = (any::<i64>(), text(), place());
        let numbers = (number(), number(), number(), number());
        let lines = (text(), text(), text(), text(), text(), text(), text());
        prop_oneof![
            property.prop_map(|n| (Kind::Property, Value::Property(n))),
            alarm.prop_map(|(state, msg, place)| {
                (Kind::Alarm, Value::Alarm(Alarm { state, msg, place }))
            }),
            text().prop_map(|text| (Kind::Attribute, Value::Attribute(text))),
            (0..3_u8, "\\PC{0,300}").prop_map(|(level, msg)| {
                (Kind::Log, Value::Log(Entry { level, msg: msg.into() }))
            }),
            (numbers, lines).prop_map(|((heading, altitude, speed, fix_acc), lines)| {
                let (fix_type, a, b, c, d, e, f) = lines;
                let address = [a, b, c, d, e, f];
                let (lat, lng) = (1.5, -2.5);
                let location =
                    Location { lat, lng, heading, altitude, speed, fix_acc, fix_type, address };
                (Kind::Location, Value::Location(Box::new(location)))
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back((kind, value) in value(), corr_id in text()) {
            let bytes = encode(&value, corr_id.as_deref());
            prop_assert_eq!(decode(kind, &bytes), Some((value, corr_id)));
            for end in 0..bytes.len() {
                prop_assert_eq!(decode(kind, &bytes[..end]), None);
            }
        }

        #[test]
        fn damaged_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for kind in (1..=5).filter_map(Kind::from_byte) {
                let _ = decode(kind, &bytes);
            }
        }
    }

    #[test]
    fn a_plain_property_fits_into_a_row_that_the_engine_keeps_inline() {
        assert_eq!(encode(&Value::Property(21.5), None).len(), 9);
    }
}
