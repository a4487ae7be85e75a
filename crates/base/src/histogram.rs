//! Counts of times by their length, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bound of the counts: a time of at most so many nanoseconds, and the same in seconds as
/// OpenMetrics writes it.
pub type Bound = (u64, &'static str);

/// The bounds of every histogram: from what a small command takes to what a person waits for.
pub const BOUNDS: [Bound; 20] = [
    (2_000, "2e-06"),
    (5_000, "5e-06"),
    (10_000, "1e-05"),
    (25_000, "2.5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10.0"),
    (60_000_000_000, "60.0"),
];

/// How many times there were of each length. Whoever notes one waits for nobody.
#[derive(Default, Debug)]
pub struct Histogram {
    /// By the first bound that holds them; the last is beyond all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] had at a moment.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Times {
    /// By the first bound that holds them; the last is beyond all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All of them together, in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// Notes a time.
    pub fn note(&self, time: Duration) {
        self.note_many(time, 1);
    }

    /// Notes a time that stands for so many.
    pub fn note_many(&self, time: Duration, count: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let index = BOUNDS.iter().position(|(bound_ns, _)| ns <= *bound_ns);
        let index = index.unwrap_or(BOUNDS.len());
        if let Some(held) = self.counts.get(index) {
            held.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns.saturating_mul(count), Ordering::Relaxed);
    }

    /// What it has now.
    pub fn times(&self) -> Times {
        let mut times = Times { sum_ns: self.sum_ns.load(Ordering::Relaxed), ..Times::default() };
        for (count, held) in times.counts.iter_mut().zip(&self.counts) {
            *count = held.load(Ordering::Relaxed);
        }
        times
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        self.sum_ns = self.sum_ns.wrapping_add(others.sum_ns);
        for (count, more) in self.counts.iter_mut().zip(&others.counts) {
            *count += more;
        }
    }

    /// What came since an earlier moment.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut times = self.clone();
        times.sum_ns = times.sum_ns.wrapping_sub(earlier.sum_ns);
        for (count, before) in times.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        times
    }

    /// The time that this part of them does not exceed, in seconds: as if those between two bounds
    /// were spread evenly. None if there are none.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let count = self.count();
        let rank = count as f64 * part;
        let (mut before, mut from_ns) = (0, 0);
        for (held, (to_ns, _)) in self.counts.iter().zip(&BOUNDS) {
            let up_to = before + held;
            if *held > 0 && up_to as f64 >= rank {
                let share = ((rank - before as f64) / *held as f64).max(0.0);
                return Some((from_ns as f64 + (to_ns - from_ns) as f64 * share) / 1e9);
            }
            (before, from_ns) = (up_to, *to_ns);
        }
        // Beyond all bounds nothing more is known.
        (count > 0).then_some(from_ns as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_by_their_length() {
        let histogram = Histogram::default();
        for ns in [0, 2_000, 2_001, 60_000_000_000, 60_000_000_001] {
            histogram.note(Duration::from_nanos(ns));
        }
        histogram.note_many(Duration::from_nanos(10_000), 16);
        let times = histogram.times();
        assert_eq!((times.counts[0], times.counts[1], times.counts[2]), (2, 1, 16));
        assert_eq!((times.counts[19], times.counts[20], times.count()), (1, 1, 21));
        assert_eq!(times.sum_ns, 120_000_164_002);
    }

    #[test]
    fn bounds_grow_and_are_called_what_they_are() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (ns, name) in BOUNDS {
            assert_eq!(name.parse::<f64>(), Ok(ns as f64 / 1e9), "{name}");
        }
    }

    #[test]
    fn a_quantile_lies_between_its_bounds() {
        let histogram = Histogram::default();
        assert_eq!(histogram.times().quantile(0.99), None);
        for _ in 0..98 {
            histogram.note(Duration::from_micros(1));
        }
        let before = histogram.times();
        for _ in 0..2 {
            histogram.note(Duration::from_millis(200));
        }
        let p99 = histogram.times().quantile(0.99).expect("times");
        assert!((0.1..=0.25).contains(&p99), "{p99}");
        let p50 = histogram.times().quantile(0.5).expect("times");
        assert!(p50 <= 0.000_002, "{p50}");
        assert_eq!(histogram.times().since(&before).count(), 2);
        histogram.note(Duration::from_secs(100));
        assert_eq!(histogram.times().since(&before).quantile(1.0), Some(60.0));
    }
}
