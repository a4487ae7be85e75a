//! Sorted sequences cut into chunks: new elements go to the end, and a removal moves at most one
//! chunk's. What is asked of all of them stands in arrays of its own beside each chunk's elements, so
//! that a look goes through nothing else.
//!
//! Who looks takes the chunks as they are: whoever changes one meanwhile changes a copy.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Few in tests, so that they have many chunks.
pub(super) const CHUNK_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// An element of a sequence.
pub(super) trait Item: Clone {
    /// What stands beside those of a chunk.
    type Beside: Beside;
}

/// Arrays with something of each element, in the same order.
pub(super) trait Beside: Clone + Default {
    /// What they have of one element.
    type Row;

    fn insert(&mut self, at: usize, row: Self::Row);
    fn remove(&mut self, at: usize);
    fn split_off(&mut self, at: usize) -> Self;
    fn append(&mut self, behind: &Self);
}

/// What an element has beside it.
pub(super) type RowOf<T> = <<T as Item>::Beside as Beside>::Row;

/// A part of a sequence.
#[derive(Clone)]
pub(super) struct Chunk<T: Item> {
    pub(super) items: Vec<T>,
    pub(super) beside: T::Beside,
}

/// A sorted sequence.
#[derive(Clone)]
pub(super) struct Chunks<T: Item>(Vec<Arc<Chunk<T>>>);

/// Elements of one chunk.
pub(super) struct Part<'c, T: Item> {
    pub(super) chunk: &'c Chunk<T>,
    pub(super) range: Range<usize>,
}

impl<T: Item> Default for Chunks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'c, T: Item> Part<'c, T> {
    pub(super) fn items(&self) -> &'c [T] {
        self.chunk.items.get(self.range.clone()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }
}

impl<T: Item> Chunk<T> {
    fn of(item: T, row: RowOf<T>) -> Self {
        let mut chunk = Self { items: Vec::new(), beside: T::Beside::default() };
        chunk.insert(0, item, row);
        chunk
    }

    fn insert(&mut self, at: usize, item: T, row: RowOf<T>) {
        self.items.insert(at, item);
        self.beside.insert(at, row);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { items: self.items.split_off(at), beside: self.beside.split_off(at) }
    }
}

impl<T: Item> Chunks<T> {
    /// All that is already in order.
    pub(super) fn of_sorted(items: impl IntoIterator<Item = (T, RowOf<T>)>) -> Self {
        let mut chunks: Vec<Chunk<T>> = Vec::new();
        for (item, row) in items {
            match chunks.last_mut() {
                Some(chunk) if chunk.items.len() < CHUNK_MAX => {
                    chunk.insert(chunk.items.len(), item, row);
                }
                _ => chunks.push(Chunk::of(item, row)),
            }
        }
        Self(chunks.into_iter().map(Arc::new).collect())
    }

    /// The chunk that holds, or would hold, this position: the last one whose first element is not
    /// behind it, else the first.
    fn chunk_of(&self, compare: impl Fn(&T) -> Ordering) -> usize {
        let begins =
            |chunk: &Arc<Chunk<T>>| chunk.items.first().is_some_and(|first| compare(first).is_le());
        self.0.partition_point(begins).saturating_sub(1)
    }

    /// Adds an element; `compare` says how another one stands to it.
    pub(super) fn insert(&mut self, item: T, row: RowOf<T>, compare: impl Fn(&T) -> Ordering) {
        let mut index = self.chunk_of(&compare);
        if self.0.get(index).is_some_and(|chunk| chunk.items.len() >= CHUNK_MAX) {
            // Before it would grow beyond its room. At the end of the sequence a new chunk begins, so
            // that full chunks stay full; elsewhere a chunk is halved.
            let last = self.0[index].items.last();
            let is_behind = last.is_some_and(|last| compare(last).is_lt());
            if is_behind && index + 1 == self.0.len() {
                self.0.push(Arc::new(Chunk::of(item, row)));
                return;
            }
            let rest = Arc::make_mut(&mut self.0[index]).split_off(CHUNK_MAX / 2);
            self.0.insert(index + 1, Arc::new(rest));
            index = self.chunk_of(&compare);
        }
        let Some(chunk) = self.0.get_mut(index) else {
            self.0.push(Arc::new(Chunk::of(item, row)));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        let position = chunk.items.partition_point(|other| compare(other).is_lt());
        chunk.insert(position, item, row);
    }

    /// Takes the element out for which `compare` says equal.
    pub(super) fn remove(&mut self, compare: impl Fn(&T) -> Ordering) -> bool {
        let index = self.chunk_of(&compare);
        let Some(chunk) = self.0.get_mut(index) else { return false };
        let Ok(position) = chunk.items.binary_search_by(compare) else { return false };
        let chunk = Arc::make_mut(chunk);
        chunk.items.remove(position);
        chunk.beside.remove(position);
        let len = chunk.items.len();
        let next = self.0.get(index + 1).map_or(usize::MAX, |next| next.items.len());
        if len == 0 {
            self.0.remove(index);
        } else if next < CHUNK_MAX / 2 - len.min(CHUNK_MAX / 2) {
            let rest = self.0.remove(index + 1);
            let chunk = Arc::make_mut(&mut self.0[index]);
            chunk.items.extend(rest.items.iter().cloned());
            chunk.beside.append(&rest.beside);
        }
        true
    }

    /// What stands beside the element for which `compare` says equal, to be changed, and where.
    pub(super) fn beside_mut(
        &mut self,
        compare: impl Fn(&T) -> Ordering,
    ) -> Option<(&mut T::Beside, usize)> {
        let index = self.chunk_of(&compare);
        let chunk = self.0.get_mut(index)?;
        let position = chunk.items.binary_search_by(compare).ok()?;
        Some((&mut Arc::make_mut(chunk).beside, position))
    }

    /// Whether there is an element for which `compare` says equal.
    pub(super) fn has(&self, compare: impl Fn(&T) -> Ordering) -> bool {
        let chunk = self.0.get(self.chunk_of(&compare));
        chunk.is_some_and(|chunk| chunk.items.binary_search_by(compare).is_ok())
    }

    /// Those in a range of the sequence, of which `is_before` and `is_behind` tell the others.
    pub(super) fn within(
        &self,
        is_before: impl Fn(&T) -> bool,
        is_behind: impl Fn(&T) -> bool,
    ) -> impl DoubleEndedIterator<Item = Part<'_, T>> {
        let first = self.0.partition_point(|chunk| chunk.items.last().is_some_and(&is_before));
        let begins_within =
            |chunk: &Arc<Chunk<T>>| chunk.items.first().is_some_and(|item| !is_behind(item));
        let last = self.0.partition_point(begins_within).max(first);
        let chunks = self.0.get(first..last).unwrap_or_default();
        // Between the first and the last chunk, all are within.
        let (head, tail) = (0, chunks.len().saturating_sub(1));
        chunks.iter().enumerate().map(move |(number, chunk)| {
            let items = &chunk.items;
            let from = if number == head { items.partition_point(&is_before) } else { 0 };
            let to = match number == tail {
                true => items.partition_point(|item| !is_behind(item)).max(from),
                false => items.len(),
            };
            Part { chunk, range: from..to }
        })
    }

    /// All chunks.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Chunk<T>> {
        self.0.iter().map(|chunk| &**chunk)
    }
}
