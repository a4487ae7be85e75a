//! Which entries of a chunk match, found out one column after the other: each is read from its
//! beginning to its end without a branch, so that several entries are looked at in one step.

use super::chunks::CHUNK_MAX;

/// Marks that are passed over in one step.
const STEP: usize = 8;

/// A mark for each entry of a part of a chunk: 1 if it matches so far.
pub(super) struct Marks {
    of_each: [u8; CHUNK_MAX],
    len: usize,
}

impl Marks {
    /// All of so many entries.
    pub(super) fn all(len: usize) -> Self {
        let mut marks = Self { of_each: [0; CHUNK_MAX], len: len.min(CHUNK_MAX) };
        marks.of_each[..marks.len].fill(1);
        marks
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        usize::from(self.of_each.iter().map(|mark| u16::from(*mark)).sum::<u16>())
    }

    /// Whether this entry matches.
    pub(super) fn has(&self, at: usize) -> bool {
        self.of_each.get(at).is_some_and(|mark| *mark != 0)
    }

    /// Keeps the marks of those whose value in a column is wanted. All are asked for.
    #[inline]
    pub(super) fn keep<T: Copy>(&mut self, column: &[T], is_wanted: impl Fn(T) -> bool) {
        for (mark, value) in self.of_each[..self.len].iter_mut().zip(column) {
            *mark &= u8::from(is_wanted(*value));
        }
    }

    /// The same by two columns.
    #[inline]
    pub(super) fn keep_by_both<A: Copy, B: Copy>(
        &mut self,
        (a, b): (&[A], &[B]),
        is_wanted: impl Fn(A, B) -> bool,
    ) {
        for ((mark, a), b) in self.of_each[..self.len].iter_mut().zip(a).zip(b) {
            *mark &= u8::from(is_wanted(*a, *b));
        }
    }

    /// Keeps the marks of those that are wanted. Nobody is asked for that has none.
    pub(super) fn keep_marked(&mut self, is_wanted: impl Fn(usize) -> bool) {
        for (at, mark) in self.of_each[..self.len].iter_mut().enumerate() {
            if *mark != 0 {
                *mark = u8::from(is_wanted(at));
            }
        }
    }

    /// Visits those that have one, the first of them first or the last.
    #[inline]
    pub(super) fn visit(&self, forward: bool, mut visit: impl FnMut(usize)) {
        let (steps, _) = self.of_each.as_chunks::<STEP>();
        let word = |step: usize| steps.get(step).map_or(0, |marks| u64::from_le_bytes(*marks));
        let count = self.len.div_ceil(STEP);
        if forward {
            for step in 0..count {
                let mut marks = word(step);
                while marks != 0 {
                    visit(step * STEP + marks.trailing_zeros() as usize / 8);
                    marks &= marks - 1;
                }
            }
        } else {
            for step in (0..count).rev() {
                let mut marks = word(step);
                while let Some(bit) = marks.checked_ilog2() {
                    visit(step * STEP + bit as usize / 8);
                    marks ^= 1 << bit;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_counted_and_visited() {
        let mut marks = Marks::all(CHUNK_MAX - 1);
        assert_eq!(marks.count(), CHUNK_MAX - 1);
        let column: Vec<usize> = (0..CHUNK_MAX - 1).collect();
        marks.keep(&column, |value| value != 2);
        marks.keep_by_both((&column, &column), |a, b| a + b != 10);
        marks.keep_marked(|at| {
            assert!(at != 2 && at != 5, "it has none");
            at != 0
        });
        let mut expected: Vec<_> = (1..CHUNK_MAX - 1).filter(|at| !matches!(at, 2 | 5)).collect();
        for forward in [true, false] {
            let mut visited = Vec::new();
            marks.visit(forward, |at| visited.push(at));
            assert_eq!(visited, expected);
            expected.reverse();
        }
        assert_eq!(marks.count(), expected.len());
        assert!(marks.has(1) && !marks.has(0) && !marks.has(CHUNK_MAX));
    }
}
