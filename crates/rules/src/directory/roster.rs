//! The sessions of one organisation in the order in which they started.
//!
//! A sorted sequence cut into chunks: new sessions go to the end, an end or a switch moves at most
//! one chunk's entries, and a page far down the list skips whole chunks. A million sessions are
//! two thousand chunks, so any page costs its own length and a few microseconds.

use std::sync::Arc;

use base::Timestamp;

use super::session::Session;

const CHUNK_MAX: usize = 512;

type Order = (Timestamp, u64);

/// The sessions of an organisation, oldest first.
#[derive(Default)]
pub struct Roster {
    chunks: Vec<Vec<(Order, Arc<Session>)>>,
    len: usize,
}

impl Roster {
    /// How many sessions there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a session that is not in it.
    pub fn insert(&mut self, session: Arc<Session>) {
        let order = session.order();
        let index = self.chunk_of(order);
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(vec![(order, session)]);
            return;
        };
        let position = chunk.partition_point(|(other, _)| *other < order);
        let at_the_end = position == chunk.len();
        chunk.insert(position, (order, session));
        if chunk.len() > CHUNK_MAX {
            // At the end of the roster a new chunk begins, so that full chunks stay full; elsewhere
            // a chunk is halved.
            let last = index + 1 == self.chunks.len() && at_the_end;
            let keep = if last { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let rest = self.chunks[index].split_off(keep);
            self.chunks.insert(index + 1, rest);
        }
    }

    /// Takes a session out, if it is there.
    pub fn remove(&mut self, session: &Session) -> bool {
        let order = session.order();
        let index = self.chunk_of(order);
        let Some(chunk) = self.chunks.get_mut(index) else { return false };
        let Ok(position) = chunk.binary_search_by_key(&order, |(other, _)| *other) else {
            return false;
        };
        chunk.remove(position);
        self.len -= 1;
        let len = chunk.len();
        let next = self.chunks.get(index + 1).map_or(usize::MAX, Vec::len);
        if len == 0 {
            self.chunks.remove(index);
        } else if next < CHUNK_MAX / 2 - len.min(CHUNK_MAX / 2) {
            let rest = self.chunks.remove(index + 1);
            self.chunks[index].extend(rest);
        }
        true
    }

    /// At most `limit` sessions after the first `offset`, newest or oldest first.
    pub fn page(&self, newest_first: bool, offset: usize, limit: usize) -> Vec<Arc<Session>> {
        let mut page = Vec::with_capacity(limit.min(self.len.saturating_sub(offset)));
        let mut skip = offset;
        let mut take = |chunk: &Vec<(Order, Arc<Session>)>| {
            if skip >= chunk.len() {
                skip -= chunk.len();
                return true;
            }
            let wanted = limit - page.len();
            let session = |(_, session): &(Order, Arc<Session>)| session.clone();
            if newest_first {
                page.extend(chunk.iter().rev().skip(skip).take(wanted).map(session));
            } else {
                page.extend(chunk.iter().skip(skip).take(wanted).map(session));
            }
            skip = 0;
            page.len() < limit
        };
        // `all` stops at the chunk that fills the page.
        match (limit > 0, newest_first) {
            (true, true) => self.chunks.iter().rev().all(&mut take),
            (true, false) => self.chunks.iter().all(&mut take),
            (false, _) => true,
        };
        page
    }

    /// All sessions that started after `after` and before `before`, newest first.
    pub fn newest_first(
        &self,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
    ) -> impl Iterator<Item = &Arc<Session>> {
        let from = after.map_or((Timestamp::from_millis(i64::MIN), 0), |t| (t.plus_millis(1), 0));
        let to = before.unwrap_or(Timestamp::from_millis(i64::MAX));
        let last = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|(order, _)| order.0 < to));
        self.chunks[..last]
            .iter()
            .rev()
            .flat_map(|chunk| chunk.iter().rev())
            .skip_while(move |(order, _)| order.0 >= to)
            .take_while(move |(order, _)| *order >= from)
            .map(|(_, session)| session)
    }

    /// The chunk that holds, or would hold, this position: the last one that begins at or before
    /// it, else the first.
    fn chunk_of(&self, order: Order) -> usize {
        let begins = |chunk: &Vec<(Order, Arc<Session>)>| {
            chunk.first().is_some_and(|(first, _)| *first <= order)
        };
        self.chunks.partition_point(begins).saturating_sub(1)
    }
}
