//! Rows of the connection history: their keys, and in which partition they are.
//!
//! A session's row is beside those that ended about when it did and lived about as long: whoever asks
//! who lived at a time reads, of each class, what ended within the class's reach after it.

use base::{OrgId, SessionRef, Timestamp};
use rules::directory::Stay;
use store::{Month, Table};

/// How many rows of an organisation there are, and through which end they were removed.
pub(super) const COUNT: u8 = 0;

/// Figures of an hour.
pub(super) const HOUR: u8 = 1;

/// Figures of a day.
pub(super) const DAY: u8 = 2;

/// A session, or its time in an organisation that it left.
const STAY: u8 = 3;

/// Classes of sessions by how long they lived: of the first an hour at most, of each other one twice
/// as long as of the one before; the last has the rest, from 30 years on.
pub(super) const CLASSES: u8 = 20;

const HOUR_MS: i64 = 3_600_000;

const STAY_KEY_BYTES: usize = 39;

/// What the key of a session's row says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StayKey {
    pub(super) until: Timestamp,
    pub(super) since: Timestamp,
    /// The beginning of its ref.
    pub(super) reference: [u8; 8],
    /// Whether it came into the organisation later than it started.
    pub(super) switched: bool,
}

/// The key of a session's row.
pub(in crate::app) fn stay_key(stay: Stay, reference: SessionRef, started: Timestamp) -> Vec<u8> {
    let mut key = prefix(stay.org, class_of(stay.since, stay.until)).to_vec();
    key.extend_from_slice(&stay.until.as_millis().to_be_bytes());
    key.extend_from_slice(&stay.since.as_millis().to_be_bytes());
    key.extend_from_slice(&beginning(reference));
    key.push(u8::from(stay.since != started));
    key
}

/// The first bytes of a ref, which tell sessions apart that ended in one millisecond.
pub(super) fn beginning(reference: SessionRef) -> [u8; 8] {
    reference.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The beginning of the keys of a class of an organisation.
pub(super) fn prefix(org: OrgId, class: u8) -> [u8; 14] {
    let mut key = [0; 14];
    key[0] = STAY;
    key[1..13].copy_from_slice(org.as_bytes());
    key[13] = class;
    key
}

/// What a key says.
pub(super) fn read_key(key: &[u8]) -> Option<StayKey> {
    let time = |at: usize| {
        let bytes = key.get(at..at + 8)?.first_chunk()?;
        Some(Timestamp::from_millis(i64::from_be_bytes(*bytes)))
    };
    (key.len() == STAY_KEY_BYTES).then_some(())?;
    Some(StayKey {
        until: time(14)?,
        since: time(22)?,
        reference: *key.get(30..38)?.first_chunk()?,
        switched: key.last() == Some(&1),
    })
}

/// The class of what took from one time to another.
fn class_of(since: Timestamp, until: Timestamp) -> u8 {
    let took = i64::try_from(until.millis_since(since)).unwrap_or(i64::MAX);
    (0..CLASSES - 1).find(|class| took <= HOUR_MS << class).unwrap_or(CLASSES - 1)
}

/// The last end of those of a class that lived at a time.
pub(super) fn reach(class: u8, at: Timestamp) -> Timestamp {
    if class + 1 == CLASSES { Timestamp::NEVER } else { at.plus_millis(HOUR_MS << class) }
}

/// The month of a time; the first and the last one have what is beyond.
pub(in crate::app) fn month(time: Timestamp) -> Month {
    Month(u16::try_from(time.month().max(0)).unwrap_or(u16::MAX))
}

/// Where a session's row is that ended then.
pub(in crate::app) fn table(end: Timestamp) -> Table {
    Table::Connections(month(end))
}

/// The key of an organisation's count.
pub(super) fn count_key(org: OrgId) -> Vec<u8> {
    [&[COUNT][..], org.as_bytes()].concat()
}

/// The key of figures of an hour or day that begins then.
pub(super) fn figures_key(unit: u8, begin: Timestamp, org: OrgId) -> Vec<u8> {
    [&[unit][..], &begin.as_millis().to_be_bytes(), org.as_bytes()].concat()
}

/// Begin and organisation in the key of figures.
pub(super) fn read_figures_key(key: &[u8]) -> Option<(Timestamp, OrgId)> {
    let (_, rest) = key.split_first()?;
    let (begin, org) = rest.split_first_chunk::<8>()?;
    let begin = Timestamp::from_millis(i64::from_be_bytes(*begin));
    Some((begin, OrgId::from_bytes(*org.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_lived_at_a_time_ended_within_the_reach_of_its_class(
            since in 0i64..4_000_000_000_000,
            took in prop_oneof![0i64..10_000_000, 0i64..4_000_000_000_000],
            part in 0.0f64..1.0,
        ) {
            let at = Timestamp::from_millis(since + (took as f64 * part) as i64);
            let (since, until) = (Timestamp::from_millis(since), Timestamp::from_millis(since + took));
            let class = class_of(since, until);
            prop_assert!(until <= reach(class, at), "{class}");
            // And most of what is read there lived then: no class reaches twice as far as it must.
            let longer = class > 0 && class + 1 < CLASSES;
            prop_assert!(!longer || took > HOUR_MS << (class - 1));
        }

        #[test]
        fn keys_say_what_they_were_made_of(since: i64, until: i64, switched: bool, byte: u8) {
            let time = Timestamp::from_millis;
            let (since, until) = (time(since), time(until));
            let org = OrgId::from_bytes([byte; 12]);
            let reference = SessionRef::from_bytes([byte; 32]);
            let started = if switched { since.plus_millis(-1) } else { since };
            let key = stay_key(Stay { org, since, until }, reference, started);
            let said = StayKey { until, since, reference: [byte; 8], switched: started != since };
            prop_assert_eq!(read_key(&key), Some(said));
            prop_assert_eq!(read_key(&key[1..]), None);
            let key = figures_key(HOUR, since, org);
            prop_assert_eq!(read_figures_key(&key), Some((since, org)));
        }
    }
}
