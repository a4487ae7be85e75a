//! Points in time, as TR50, Cognite and Element write them.

use std::cell::Cell;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

use crate::json::DIGIT_PAIRS;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// TR50 writes it as RFC 3339 in UTC with milliseconds and `Z` (`docs/protocol/tr50.md` 2,
/// "Timestamps"); that is also its serde form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// What the wall clock says. For programs without a [`Clock`](crate::Clock), which is what a
    /// server goes by; everybody else gets `now` as an argument.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |elapsed| elapsed.as_millis() as i64))
    }

    /// The end of what never ends: the last time there is.
    pub const NEVER: Self = Self(i64::MAX);

    /// Milliseconds since 1970, the form of Cognite's times.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time and `millis` more, saturating.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This time and `seconds` more, saturating.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add_unsigned(seconds.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to this time; 0 if the clock went back.
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Reads RFC 3339 with 0 to 9 digits of fraction and any offset (`Z`, `+00:00`, `-04:00`).
    pub fn parse(text: &str) -> Option<Self> {
        parse_usual(text.as_bytes()).or_else(|| Self::parse_any(text))
    }

    fn parse_any(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
        i64::try_from(parsed.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }

    /// The calendar month in UTC, counted from January 1970. Years outside 0..=9999 are clamped.
    pub fn month(self) -> i64 {
        let days = self.0.clamp(Self::FIRST, Self::LAST).div_euclid(86_400_000);
        let date = date(days);
        i64::from(date.year() - 1970) * 12 + i64::from(u8::from(date.month())) - 1
    }

    /// The first millisecond of the year 0.
    const FIRST: i64 = -62_167_219_200_000;

    /// The last millisecond of the year 9999.
    const LAST: i64 = 253_402_300_799_999;

    /// The 24 characters `2021-08-10T14:16:10.976Z`. Years outside 0..=9999 are clamped.
    pub fn to_rfc3339(self) -> [u8; 24] {
        let mut text = [0; 24];
        self.write_over(&mut text, None);
        text
    }

    /// Writes the same over the text of a time in the second `known`, counted from 1970, if there is
    /// one; returns its own second.
    #[inline]
    pub fn write_over(self, text: &mut [u8; 24], known: Option<i64>) -> i64 {
        let millis = self.0.clamp(Self::FIRST, Self::LAST);
        let (seconds, fraction) = (millis.div_euclid(1000), millis.rem_euclid(1000) as u64);
        if known != Some(seconds) {
            *text = second_of(seconds);
        }
        put_digits(&mut text[20..23], fraction);
        seconds
    }
}

/// A second without its milliseconds. The last one is remembered: in a listing, many follow of the
/// same one.
fn second_of(seconds: i64) -> [u8; 24] {
    thread_local! {
        static LAST: Cell<(i64, [u8; 24])> = const { Cell::new((0, *b"1970-01-01T00:00:00.000Z")) };
    }
    let (known, text) = LAST.get();
    if known == seconds {
        return text;
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u64);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    text[0..10].copy_from_slice(&date_of(days));
    put_digits(&mut text[11..13], second / 3600);
    put_digits(&mut text[14..16], second / 60 % 60);
    put_digits(&mut text[17..19], second % 60);
    LAST.set((seconds, text));
    text
}

/// The ten characters of a day counted from 1970-01-01. The last one is remembered: the times of a
/// listing are mostly of one day.
fn date_of(days: i64) -> [u8; 10] {
    thread_local! {
        static LAST: Cell<(i64, [u8; 10])> = const { Cell::new((0, *b"1970-01-01")) };
    }
    let (known, text) = LAST.get();
    if known == days {
        return text;
    }
    let (year, month, day) = date(days).to_calendar_date();
    let mut text = *b"0000-00-00";
    put_digits(&mut text[0..4], year.unsigned_abs().into());
    put_digits(&mut text[5..7], u8::from(month).into());
    put_digits(&mut text[8..10], day.into());
    LAST.set((days, text));
    text
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_rfc3339();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_rfc3339();
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// The Julian day of 1970-01-01.
const EPOCH_DAY: i64 = OffsetDateTime::UNIX_EPOCH.date().to_julian_day() as i64;

/// A day counted from 1970-01-01. Callers keep to the years from 0 to 9999, each of which has its days.
fn date(days: i64) -> Date {
    let day = i32::try_from(days + EPOCH_DAY).unwrap_or_default();
    Date::from_julian_day(day).unwrap_or(Date::MIN)
}

/// Reads `2021-08-10T14:16:10Z`, with or without three digits of fraction: what nearly all devices
/// write, a batch of telemetry a thousand times. None for everything else, right or wrong.
fn parse_usual(text: &[u8]) -> Option<Timestamp> {
    let (text, fraction) = match text {
        [text @ .., b'.', a, b, c, b'Z'] => (text, [*a, *b, *c]),
        [text @ .., b'Z'] => (text, *b"000"),
        _ => return None,
    };
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', i0, i1, b':', s0, s1] =
        text
    else {
        return None;
    };
    let year = digits(&[*y0, *y1, *y2, *y3])?;
    let (month, day) = (digits(&[*m0, *m1])?, digits(&[*d0, *d1])?);
    let month = Month::try_from(month as u8).ok()?;
    let date = Date::from_calendar_date(year as i32, month, day as u8).ok()?;
    let (hour, minute, second) = (digits(&[*h0, *h1])?, digits(&[*i0, *i1])?, digits(&[*s0, *s1])?);
    let millis = digits(&fraction)?;
    // Leap seconds are left to those who know them.
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = i64::from(date.to_julian_day()) - EPOCH_DAY;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp(seconds * 1000 + millis))
}

fn digits(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

fn put_digits(field: &mut [u8], mut value: u64) {
    let mut pairs = field.rchunks_exact_mut(2);
    for pair in &mut pairs {
        pair.copy_from_slice(&DIGIT_PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if let [digit] = pairs.into_remainder() {
        *digit = b'0' + (value % 10) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_what_the_seed_page_shows() {
        let check = |millis, text: &str| {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_628_604_970_976, "2021-08-10T14:16:10.976Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(-62_135_596_800_000, "0001-01-01T00:00:00.000Z");
    }

    #[test]
    fn reads_every_fraction_and_offset_that_clients_send() {
        let check = |text: &str, millis| {
            assert_eq!(Timestamp::parse(text).map(Timestamp::as_millis), millis, "{text}");
        };
        check("2014-04-05T02:03:04.322Z", Some(1_396_663_384_322));
        check("2015-04-01T12:00:00Z", Some(1_427_889_600_000));
        check("2021-08-10T14:43:13.11Z", Some(1_628_606_593_110));
        check("2015-04-01T12:00:00.123456789+00:00", Some(1_427_889_600_123));
        check("2015-04-01T08:00:00-04:00", Some(1_427_889_600_000));
        check("yesterday", None);
        check("", None);
    }

    #[test]
    fn months_are_counted_from_1970() {
        let check = |text: &str, month| {
            assert_eq!(Timestamp::parse(text).map(Timestamp::month), Some(month), "{text}");
        };
        check("1970-01-31T23:59:59.999Z", 0);
        check("1969-12-31T23:59:59.999Z", -1);
        check("2021-08-10T14:16:10.976Z", 619);
        check("0001-01-01T00:00:00Z", -1969 * 12);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in -62_135_596_800_000_i64..253_402_300_799_999) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
            prop_assert_eq!(Timestamp::parse_any(&time.to_string()), Some(time));
        }

        #[test]
        fn the_short_way_leads_where_the_long_one_does(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?Z"
        ) {
            if let Some(time) = parse_usual(text.as_bytes()) {
                prop_assert_eq!(Timestamp::parse_any(&text), Some(time));
            }
        }
    }
}
