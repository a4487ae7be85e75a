//! A histogram of latencies that many tasks fill at once without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each power of two: a bucket is at most 1/128 of its values wide.
const SUB_BITS: u32 = 7;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;

/// Nanoseconds up to 2^42 (73 minutes) are told apart; what is longer counts as that.
const VALUE_BITS: u32 = 42;
const BUCKETS: usize = ((VALUE_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

/// Counts of durations in buckets whose width grows with the value: a quantile is off by less
/// than 1 %.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { buckets, max_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let value = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Relaxed);
        }
        // Most values are below the maximum: reading is cheaper than a contended fetch_max.
        if value > self.max_ns.load(Relaxed) {
            self.max_ns.fetch_max(value, Relaxed);
        }
    }

    /// The longest duration, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns.load(Relaxed))
    }

    /// The duration that the fraction `quantile` (0 to 1) of all stays within; zero if there is
    /// none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let counts = || self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let rank = (counts().sum::<u64>() as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = counts().position(|count| {
            seen += count;
            seen >= rank
        });
        let middle = bucket.map_or(0, middle_of);
        Duration::from_nanos(middle).min(self.max())
    }
}

fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    // Below 128 ns each value has its own bucket; above, the 7 bits after the leading one tell.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((u64::from(shift) << SUB_BITS) + (value >> shift)) as usize
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB_BUCKETS {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let low = (bucket - (shift << SUB_BITS)) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(values: &[u64]) -> Histogram {
        let histogram = Histogram::default();
        values.iter().for_each(|ns| histogram.record(Duration::from_nanos(*ns)));
        histogram
    }

    #[test]
    fn nothing_counted_is_zero() {
        let histogram = filled(&[]);
        assert_eq!((histogram.quantile(0.5), histogram.max()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn buckets_follow_one_another_without_gap() {
        let mut last = 0;
        for value in (0..100_000).chain((17..63).map(|bits| 1 << bits)) {
            let bucket = bucket_of(value);
            assert!(bucket == last || bucket == last + 1 || value > 100_000, "{value}");
            assert!(bucket < BUCKETS, "{value}");
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            mut values in proptest::collection::vec(0_u64..10_000_000_000, 1..500),
            quantile in prop_oneof![Just(0.5), Just(0.99), Just(0.999), Just(1.0), 0.0..1.0],
        ) {
            let histogram = filled(&values);
            values.sort_unstable();
            let rank = ((values.len() as f64 * quantile).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            let found = histogram.quantile(quantile).as_nanos() as f64;
            prop_assert!((found - exact).abs() <= exact * 0.01, "{found} for {exact}");
            prop_assert_eq!(histogram.max(), Duration::from_nanos(values[values.len() - 1]));
        }
    }
}
