//! Events between their numbers and the store's queue.

use base::OrgId;
use parking_lot::MutexGuard;

use super::{Class, Events, State, filter};

/// Events that have their numbers and are in a batch: held until that is in the writer's queue, for
/// else the numbers would not be in the order of the commits.
#[must_use = "to be settled as soon as the batch is submitted"]
pub struct Numbered<'a> {
    events: &'a Events,
    pub(super) state: MutexGuard<'a, State>,
    pub(super) added: Vec<Added>,
}

/// A row of an event that is in a batch.
pub(super) struct Added {
    pub(super) class: Class,
    pub(super) org: OrgId,
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// For the log and for those who listen, if there are any.
    pub(super) row: Vec<u8>,
}

impl<'a> Numbered<'a> {
    pub(super) fn new(events: &'a Events, state: MutexGuard<'a, State>, added: Vec<Added>) -> Self {
        Self { events, state, added }
    }

    /// What became of the batch: without it there are no such events.
    pub fn settle<T, E>(mut self, submitted: Result<T, E>) -> Result<T, E> {
        let added = std::mem::take(&mut self.added);
        if submitted.is_err() {
            for added in &added {
                self.state.shrink(added.class, added.org, added.bytes);
            }
            // It may have been in the batch.
            self.state.reserved = 0;
            return submitted;
        }
        for added in &added {
            self.state.written[added.class.index()] += 1;
            if let Some(log) = &self.events.log {
                let Added { class, org, number, row, .. } = added;
                let org_key = self.events.key_of(*class, *org);
                log.line(filter::complete_text((*class, *org, org_key), *number, None, row));
            }
        }
        if self.events.ring.is_heard() {
            for rows in added.chunk_by(|one, other| one.number == other.number) {
                self.events.hear(rows);
            }
            self.events.ring.wake(self.state.last);
        }
        submitted
    }
}
