//! The newest events in memory, as long as somebody listens: readers that keep up do not read the
//! disk. Who reads too slowly finds what it has not read on the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{OrgId, limits};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use super::filter::merged;
use super::{Added, Events, Seen};

/// An event in memory: what each organisation concerned sees of it.
pub struct Live {
    number: u64,
    rows: SmallVec<[Arc<Seen>; 1]>,
    bytes: usize,
}

/// The newest events.
pub(super) struct Ring {
    /// How many listen. Without them nothing is put here.
    listeners: AtomicUsize,
    last: watch::Sender<u64>,
    kept: Mutex<Kept>,
}

struct Kept {
    /// All events behind this number are here.
    since: u64,
    events: VecDeque<Arc<Live>>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { since: u64::MAX, events: VecDeque::new(), bytes: 0 }
    }
}

impl Default for Ring {
    fn default() -> Self {
        let (last, _) = watch::channel(0);
        Self { listeners: AtomicUsize::new(0), last, kept: Mutex::default() }
    }
}

impl Ring {
    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Puts an event here, in the order of the numbers.
    pub(super) fn push(&self, number: u64, rows: SmallVec<[Arc<Seen>; 1]>) {
        let bytes = rows.iter().map(|row| row.text.len() + size_of::<Seen>()).sum();
        let mut kept = self.kept.lock();
        kept.bytes += bytes;
        kept.events.push_back(Arc::new(Live { number, rows, bytes }));
        while kept.bytes > limits::EVENTS_LIVE_BYTES_MAX {
            let Some(oldest) = kept.events.pop_front() else { break };
            kept.bytes -= oldest.bytes;
            kept.since = oldest.number;
        }
    }

    /// Wakes those who listen.
    pub(super) fn wake(&self, last: u64) {
        self.last.send_replace(last);
    }

    /// At most `max` events behind a number; none if not all of them are here.
    pub(super) fn after(&self, number: u64, max: usize) -> Option<Vec<Arc<Live>>> {
        let kept = self.kept.lock();
        if number < kept.since {
            return None;
        }
        let begin = kept.events.partition_point(|event| event.number <= number);
        Some(kept.events.range(begin..).take(max).cloned().collect())
    }
}

impl Live {
    /// Its number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// What each organisation concerned sees of it.
    pub fn rows(&self) -> &[Arc<Seen>] {
        &self.rows
    }

    /// What those see of it who see these organisations.
    pub fn seen(&self, mut sees: impl FnMut(OrgId) -> bool) -> Option<Arc<Seen>> {
        merged(self.rows.iter().filter(|row| sees(row.org)).cloned().collect())
    }
}

/// Somebody who follows the stream.
pub struct Listener {
    events: Arc<Events>,
    last: watch::Receiver<u64>,
}

impl Listener {
    /// Waits until there is an event that was not there when this was called last.
    pub async fn changed(&mut self) {
        // The sender lives as long as the stream, which this holds.
        let _ = self.last.changed().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Against one that begins now.
        let state = self.events.state.lock();
        if self.events.ring.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.events.ring.kept.lock() = Kept::default();
        }
        drop(state);
    }
}

impl Events {
    /// Follows the stream from now on.
    pub fn listen(self: &Arc<Self>) -> Listener {
        let state = self.state.lock();
        if self.ring.listeners.fetch_add(1, Ordering::Relaxed) == 0 {
            self.ring.kept.lock().since = state.last;
        }
        drop(state);
        Listener { events: self.clone(), last: self.ring.last.subscribe() }
    }

    /// At most `max` events behind a number, if all of them are in memory.
    pub fn live_after(&self, number: u64, max: usize) -> Option<Vec<Arc<Live>>> {
        self.ring.after(number, max)
    }

    /// Adds an event that has its number to those in memory.
    pub(super) fn hear(&self, rows: &[Added]) {
        let Some(number) = rows.first().map(|row| row.number) else { return };
        let seen = |row: &Added| self.seen((row.class, row.org), number, &row.row).map(Arc::new);
        self.ring.push(number, rows.iter().filter_map(seen).collect());
    }
}
