//! Aggregates of a property: one value for each hour, for each day, or for all of the time.

use std::collections::BTreeMap;

use base::Timestamp;

/// What is calculated: what TR50 has (`docs/protocol/tr50.md` 4.1, `property.aggregate`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calc {
    /// The sum of the values through their number.
    Avg,
    /// Each value weighted with the time for which it was the current one.
    Wavg,
    /// The same without the times at which the value was zero.
    Nzwavg,
    /// The sum.
    Sum,
    /// The greatest.
    Max,
    /// The least.
    Min,
    /// How many there are.
    Count,
}

impl Calc {
    /// The names on the wire.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("avg", Self::Avg),
        ("wavg", Self::Wavg),
        ("nzwavg", Self::Nzwavg),
        ("sum", Self::Sum),
        ("max", Self::Max),
        ("min", Self::Min),
        ("count", Self::Count),
    ];

    /// Whether a value counts for as long as it is the current one, and not for itself.
    pub const fn is_weighted(self) -> bool {
        matches!(self, Self::Wavg | Self::Nzwavg)
    }
}

/// The pieces of time that get one value each, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// All of the span.
    Whole,
}

impl Step {
    const fn millis(self) -> Option<i64> {
        match self {
            Self::Hour => Some(3_600_000),
            Self::Day => Some(86_400_000),
            Self::Whole => None,
        }
    }
}

/// Takes values in the order of their times.
pub struct Aggregation {
    calc: Calc,
    step: Step,
    from: i64,
    to: i64,
    pieces: BTreeMap<i64, Piece>,
    /// The value that holds, and since when.
    current: Option<(i64, f64)>,
    pieces_max: usize,
    overflowed: bool,
}

#[derive(Default)]
struct Piece {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    weighted: f64,
    weight: f64,
}

impl Aggregation {
    /// An aggregation of the values from `from` to `to`, into at most `pieces_max` values.
    /// `carried` is the value that held at the beginning.
    pub fn new(
        calc: Calc,
        step: Step,
        (from, to): (Timestamp, Timestamp),
        carried: Option<f64>,
        pieces_max: usize,
    ) -> Self {
        let (from, to) = (from.as_millis(), to.as_millis());
        Self {
            calc,
            step,
            from,
            to,
            pieces: BTreeMap::new(),
            current: carried.map(|value| (from, value)),
            pieces_max,
            overflowed: false,
        }
    }

    /// Takes the next value. False when there are too many pieces.
    pub fn add(&mut self, ts: Timestamp, value: f64) -> bool {
        let ts = ts.as_millis();
        if self.calc.is_weighted() {
            // A clock that runs ahead must not let a value hold in the years to come.
            self.hold_until(ts.min(self.to));
            self.current = Some((ts, value));
            return !self.overflowed;
        }
        if let Some(piece) = self.piece(ts) {
            let first = piece.count == 0;
            piece.count += 1;
            piece.sum += value;
            piece.min = if first { value } else { piece.min.min(value) };
            piece.max = if first { value } else { piece.max.max(value) };
        }
        !self.overflowed
    }

    /// The values with the beginnings of their pieces; none when there are too many.
    pub fn finish(mut self) -> Option<Vec<(Timestamp, f64)>> {
        if self.calc.is_weighted() {
            self.hold_until(self.to);
        }
        if self.overflowed {
            return None;
        }
        let value =
            |(start, piece): (i64, Piece)| (Timestamp::from_millis(start), piece.value(self.calc));
        Some(self.pieces.into_iter().map(value).collect())
    }

    /// Adds the time from the last value until now to the pieces that it spans.
    fn hold_until(&mut self, end: i64) {
        let Some((mut start, value)) = self.current else { return };
        while start < end && !self.overflowed {
            let piece_start = self.start_of(start);
            let piece_end = self.step.millis().map_or(end, |millis| piece_start + millis).min(end);
            let weight = (piece_end - start) as f64;
            let counts = self.calc != Calc::Nzwavg || value != 0.0;
            if let Some(piece) = self.piece(start)
                && counts
            {
                piece.weighted += value * weight;
                piece.weight += weight;
            }
            start = piece_end;
        }
    }

    fn start_of(&self, ts: i64) -> i64 {
        self.step.millis().map_or(self.from, |millis| ts - ts.rem_euclid(millis))
    }

    fn piece(&mut self, ts: i64) -> Option<&mut Piece> {
        let start = self.start_of(ts);
        if self.pieces.len() >= self.pieces_max && !self.pieces.contains_key(&start) {
            self.overflowed = true;
            return None;
        }
        Some(self.pieces.entry(start).or_default())
    }
}

impl Piece {
    fn value(&self, calc: Calc) -> f64 {
        match calc {
            Calc::Avg => self.sum / self.count as f64,
            // Only zeros, or no time at all.
            Calc::Wavg | Calc::Nzwavg if self.weight == 0.0 => 0.0,
            Calc::Wavg | Calc::Nzwavg => self.weighted / self.weight,
            Calc::Sum => self.sum,
            Calc::Max => self.max,
            Calc::Min => self.min,
            Calc::Count => self.count as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn check(
        calc: Calc,
        step: Step,
        carried: Option<f64>,
        values: &[(i64, f64)],
        expected: &[(i64, f64)],
    ) {
        let time = |half_hours: i64| Timestamp::from_millis(half_hours * HOUR / 2);
        let mut aggregation = Aggregation::new(calc, step, (time(0), time(8)), carried, 100);
        for (at, value) in values {
            assert!(aggregation.add(time(*at), *value));
        }
        let found = aggregation.finish().expect("few");
        let expected: Vec<_> = expected.iter().map(|(at, value)| (time(*at), *value)).collect();
        assert_eq!(found, expected, "{calc:?} {step:?}");
    }

    #[test]
    fn values_count_in_the_hour_of_their_time() {
        let values = [(0, 4.0), (1, 8.0), (4, -6.0)];
        let hours = |calc, first, third| {
            check(calc, Step::Hour, Some(99.0), &values, &[(0, first), (4, third)]);
        };
        hours(Calc::Avg, 6.0, -6.0);
        hours(Calc::Sum, 12.0, -6.0);
        hours(Calc::Min, 4.0, -6.0);
        hours(Calc::Max, 8.0, -6.0);
        hours(Calc::Count, 2.0, 1.0);
        check(Calc::Sum, Step::Day, None, &values, &[(0, 6.0)]);
        check(Calc::Avg, Step::Whole, None, &values, &[(0, 2.0)]);
        check(Calc::Avg, Step::Whole, None, &[], &[]);
    }

    #[test]
    fn weighted_values_count_for_as_long_as_they_hold() {
        // 2 for half an hour, 6 for an hour and a half, 0 for an hour, 3 for an hour.
        let values = [(1, 6.0), (4, 0.0), (6, 3.0)];
        check(
            Calc::Wavg,
            Step::Hour,
            Some(2.0),
            &values,
            &[(0, 4.0), (2, 6.0), (4, 0.0), (6, 3.0)],
        );
        check(Calc::Nzwavg, Step::Hour, None, &values, &[(0, 6.0), (2, 6.0), (4, 0.0), (6, 3.0)]);
        check(Calc::Wavg, Step::Whole, None, &[(4, 1.0), (7, 5.0)], &[(0, 2.0)]);
        check(Calc::Nzwavg, Step::Whole, Some(0.0), &[(4, 4.0)], &[(0, 4.0)]);
        check(Calc::Wavg, Step::Day, None, &[], &[]);
    }

    #[test]
    fn no_value_holds_beyond_the_span() {
        // The last value is of a clock that runs a century ahead.
        let values = [(0, 2.0), (4, 6.0), (2_000_000, 9.0)];
        let hours = [(0, 2.0), (2, 2.0), (4, 6.0), (6, 6.0)];
        check(Calc::Wavg, Step::Hour, None, &values, &hours);
        check(Calc::Wavg, Step::Whole, None, &values, &[(0, 4.0)]);
    }

    #[test]
    fn there_is_a_bound_of_pieces() {
        let time = |hours: i64| Timestamp::from_millis(hours * HOUR);
        for calc in [Calc::Count, Calc::Wavg] {
            let span = (time(0), time(1_000_000_000));
            let mut aggregation = Aggregation::new(calc, Step::Hour, span, None, 10);
            let taken = (0..12).filter(|hour| aggregation.add(time(*hour), 1.0)).count();
            assert!(taken <= 11, "{taken}");
            assert_eq!(aggregation.finish(), None);
        }
    }
}
