//! A histogram of latencies that many tasks fill at once.

use std::time::Duration;

use hdrhistogram::Histogram as Counts;
use parking_lot::Mutex;

/// Nanoseconds up to 2^42 (73 minutes) are told apart; what is longer counts as that.
const LONGEST_NS: u64 = (1 << 42) - 1;

/// With two a quantile is off by less than 1 %, and a histogram takes 36 KB.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Counts of durations, of which quantiles are known to within 1 %.
pub struct Histogram(Mutex<Counted>);

struct Counted {
    counts: Counts<u64>,
    /// Exactly, as [`Counts`] does not know it.
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = Counts::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
        let counts = counts.expect("1 to 2^42 in two digits is possible");
        Self(Mutex::new(Counted { counts, max_ns: 0 }))
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut counted = self.0.lock();
        counted.counts.saturating_record(ns);
        counted.max_ns = counted.max_ns.max(ns);
    }

    /// The longest duration, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.lock().max_ns)
    }

    /// The duration that the fraction `quantile` (0 to 1) of all stays within; zero if there is
    /// none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let Counted { counts, max_ns } = &*self.0.lock();
        let middle = counts.median_equivalent(counts.value_at_quantile(quantile));
        Duration::from_nanos(middle.min(*max_ns))
    }
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
    fn what_is_too_long_counts_as_the_longest() {
        let histogram = filled(&[5, u64::MAX]);
        assert_eq!(histogram.quantile(0.5), Duration::from_nanos(5));
        assert!(histogram.quantile(1.0) >= Duration::from_nanos(LONGEST_NS / 100 * 99));
        assert_eq!(histogram.max(), Duration::from_nanos(u64::MAX));
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
