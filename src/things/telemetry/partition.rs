//! Which partition a point belongs to.

use base::Timestamp;
use store::Month;

/// The partition of points that are older or newer than the others may be. A device with a wrong
/// clock must not make partitions by the thousand.
pub(super) const OUTLIERS: Month = Month(u16::MAX);

/// Months before this one that have partitions of their own.
pub const MONTHS_BEFORE: i64 = 120;

/// Months after this one that have partitions of their own: clocks run ahead, and months end.
const MONTHS_AFTER: i64 = 1;

/// The partition for a point of this time that comes now.
pub(super) fn of(ts: Timestamp, now: Timestamp) -> Month {
    let (month, current) = (ts.month(), now.month());
    let near = (current - MONTHS_BEFORE..=current + MONTHS_AFTER).contains(&month);
    let month = u16::try_from(month).map(Month).ok();
    month.filter(|month| near && *month != OUTLIERS).unwrap_or(OUTLIERS)
}

/// Whether a month's partition can have points between these times.
pub(super) fn overlaps(month: Month, from: Timestamp, to: Timestamp) -> bool {
    (from.month()..=to.month()).contains(&i64::from(month.0))
}

/// The time as bytes that are ordered like times.
pub(super) const fn ordered(ts: Timestamp) -> [u8; 8] {
    (ts.as_millis() as u64 ^ 1 << 63).to_be_bytes()
}

/// The time of such bytes.
pub(super) const fn unordered(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_millis((u64::from_be_bytes(bytes) ^ 1 << 63) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_far_away_share_a_partition() {
        let time = |text| Timestamp::parse(text).expect("a time");
        let now = time("2021-08-10T14:16:10Z");
        let check = |text, month| assert_eq!(of(time(text), now), month, "{text}");
        check("2021-08-01T00:00:00Z", Month(619));
        check("2021-07-31T23:59:59.999Z", Month(618));
        check("2021-09-30T23:59:59Z", Month(620));
        check("2021-10-01T00:00:00Z", OUTLIERS);
        check("2011-08-01T00:00:00Z", Month(499));
        check("2011-07-31T00:00:00Z", OUTLIERS);
        check("1969-12-31T23:59:59Z", OUTLIERS);
        check("0001-01-01T00:00:00Z", OUTLIERS);
        check("9999-12-31T23:59:59Z", OUTLIERS);
    }

    proptest! {
        #[test]
        fn bytes_are_ordered_like_times(one in any::<i64>(), other in any::<i64>()) {
            let (one, other) = (Timestamp::from_millis(one), Timestamp::from_millis(other));
            prop_assert_eq!(ordered(one).cmp(&ordered(other)), one.cmp(&other));
            prop_assert_eq!(unordered(ordered(one)), one);
        }
    }
}
