//! A timing wheel, so that the expiry of a session costs O(1) and needs no scan.
//!
//! Slots of one second, linked lists in one slab. A session is put in once and looked at again only
//! when its slot comes round: the owner of the wheel then says whether it is really due or has been
//! used meanwhile and goes to a later slot. Using a session costs the wheel nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::session::Session;

/// The timer of a session that has none.
pub const NO_TIMER: u32 = u32::MAX;

/// Slots: a little more than an hour. What is due later waits in its slot for another turn.
const SLOTS: usize = 4096;

/// When sessions are due. Times are seconds.
pub struct Wheel {
    /// First entry of each slot.
    slots: Box<[u32]>,
    entries: Vec<Entry>,
    free: u32,
    /// The last second whose slot was emptied.
    now: i64,
    /// Sessions whose time has come.
    due: VecDeque<Arc<Session>>,
    len: usize,
}

struct Entry {
    due: i64,
    before: u32,
    after: u32,
    session: Option<Arc<Session>>,
}

impl Wheel {
    /// An empty wheel at this second.
    pub fn new(now: i64) -> Self {
        let slots = vec![NO_TIMER; SLOTS].into_boxed_slice();
        Self { slots, entries: Vec::new(), free: NO_TIMER, now, due: VecDeque::new(), len: 0 }
    }

    /// How many sessions are armed.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is armed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a session that is not armed for a second; one that is past is taken for the next.
    pub fn insert(&mut self, due: i64, session: Arc<Session>) {
        let due = due.max(self.now + 1);
        let slot = slot_of(due);
        let after = self.slots[slot];
        let entry = Entry { due, before: NO_TIMER, after, session: Some(session.clone()) };
        let timer = if self.free == NO_TIMER {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let timer = self.free;
            self.free = self.entries[timer as usize].after;
            self.entries[timer as usize] = entry;
            timer
        };
        if after != NO_TIMER {
            self.entries[after as usize].before = timer;
        }
        self.slots[slot] = timer;
        self.len += 1;
        session.timer.store(timer, Ordering::Relaxed);
    }

    /// Disarms a session, if it is armed.
    pub fn remove(&mut self, session: &Session) {
        let timer = session.timer.swap(NO_TIMER, Ordering::Relaxed);
        if let Some(entry) = self.entries.get_mut(timer as usize) {
            entry.session = None;
            self.unlink(timer);
        }
    }

    fn unlink(&mut self, timer: u32) {
        let entry = &mut self.entries[timer as usize];
        let (slot, before, after) = (slot_of(entry.due), entry.before, entry.after);
        entry.after = self.free;
        self.free = timer;
        if before == NO_TIMER {
            self.slots[slot] = after;
        } else {
            self.entries[before as usize].after = after;
        }
        if after != NO_TIMER {
            self.entries[after as usize].before = before;
        }
        self.len -= 1;
    }

    /// The next session whose second is at or before `now`; it is no longer armed.
    pub fn pop(&mut self, now: i64) -> Option<Arc<Session>> {
        // After a long sleep of the machine one turn visits every slot.
        self.now = self.now.max(now.saturating_sub(SLOTS as i64));
        while self.due.is_empty() && self.now < now {
            self.now += 1;
            self.collect(slot_of(self.now), now);
        }
        self.due.pop_front()
    }

    fn collect(&mut self, slot: usize, now: i64) {
        let mut timer = self.slots[slot];
        while timer != NO_TIMER {
            let entry = &self.entries[timer as usize];
            let after = entry.after;
            if entry.due <= now
                && let Some(session) = entry.session.clone()
            {
                self.remove(&session);
                self.due.push_back(session);
            }
            timer = after;
        }
    }
}

const fn slot_of(second: i64) -> usize {
    second.rem_euclid(SLOTS as i64) as usize
}
