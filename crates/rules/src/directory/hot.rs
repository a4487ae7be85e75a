//! What changes with every command, side by side for all sessions: who sorts by it, or looks for what
//! is idle, reads one array and not a hundred thousand sessions all over the memory. To change it
//! costs what it costs elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use base::Timestamp;
use parking_lot::{Mutex, RwLock};

/// The times and the counter of a session: half a cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(super) struct Hot {
    pub(super) last_accessed: AtomicI64,
    pub(super) last_active: AtomicI64,
    pub(super) command_count: AtomicU64,
}

impl Hot {
    pub(super) fn new(now: Timestamp) -> Self {
        let time = || AtomicI64::new(now.as_millis());
        Self { last_accessed: time(), last_active: time(), command_count: AtomicU64::new(0) }
    }

    fn copy(&self, from: &Self) {
        let times =
            [(&self.last_accessed, &from.last_accessed), (&self.last_active, &from.last_active)];
        for (to, from) in times {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.command_count.store(from.command_count.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn last_accessed(&self) -> Timestamp {
        Timestamp::from_millis(self.last_accessed.load(Ordering::Relaxed))
    }

    pub(super) fn last_active(&self) -> Timestamp {
        Timestamp::from_millis(self.last_active.load(Ordering::Relaxed))
    }
}

const CHUNK: usize = 512;

/// Sessions that start one after the other get places that are so far from each other, so that two
/// cores that serve them do not write to the same cache line.
const APART: usize = 64;

/// A part of the array. It stays where it is.
#[derive(Debug)]
pub(super) struct Chunk {
    places: [Hot; CHUNK],
    /// Of the whole array.
    free: Arc<Mutex<Vec<u32>>>,
}

/// The array: it grows, and its places are used again.
#[derive(Default)]
pub(super) struct HotArray {
    chunks: RwLock<Vec<Arc<Chunk>>>,
    free: Arc<Mutex<Vec<u32>>>,
}

/// The array as it is now.
pub(super) struct HotView(Vec<Arc<Chunk>>);

/// Where the counters of a session are.
#[derive(Debug)]
pub(super) enum Place {
    /// With it, before a directory has it.
    Own(Box<Hot>),
    /// In the array.
    Shared(Arc<Chunk>, u32),
}

impl Place {
    #[inline]
    pub(super) fn hot(&self) -> &Hot {
        match self {
            Self::Shared(chunk, number) => &chunk.places[*number as usize % CHUNK],
            Self::Own(hot) => hot,
        }
    }

    pub(super) const fn number(&self) -> u32 {
        match self {
            Self::Own(_) => u32::MAX,
            Self::Shared(_, number) => *number,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Shared(chunk, number) = self {
            chunk.free.lock().push(*number);
        }
    }
}

impl HotArray {
    /// Moves the counters of a session into the array.
    pub(super) fn enter(&self, place: &mut Place) {
        let number = self.take();
        let chunk = self.chunks.read().get(number as usize / CHUNK).cloned();
        if let Some(chunk) = chunk {
            chunk.places[number as usize % CHUNK].copy(place.hot());
            *place = Place::Shared(chunk, number);
        }
    }

    fn take(&self) -> u32 {
        let mut free = self.free.lock();
        if free.is_empty() {
            let mut chunks = self.chunks.write();
            let first = chunks.len() * CHUNK;
            let places = std::array::from_fn(|_| Hot::default());
            chunks.push(Arc::new(Chunk { places, free: self.free.clone() }));
            let spread = |n: usize| n % (CHUNK / APART) * APART + n / (CHUNK / APART);
            // The last is the first to be taken.
            free.extend((0..CHUNK).rev().map(|n| (first + spread(n)) as u32));
        }
        free.pop().unwrap_or_default()
    }

    pub(super) fn view(&self) -> HotView {
        HotView(self.chunks.read().clone())
    }
}

impl HotView {
    /// The counters with this number.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Hot> {
        let chunk = self.0.get(number as usize / CHUNK)?;
        Some(&chunk.places[number as usize % CHUNK])
    }
}
