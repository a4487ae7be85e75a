//! The sessions of one organisation in order, and by name.
//!
//! Sorted sequences cut into chunks: new sessions go to the end, an end or a switch moves at most
//! one chunk's entries, and a page far down the list skips whole chunks. A million sessions are
//! two thousand chunks, so any page costs its own length and a few microseconds.
//!
//! Who looks through all of them takes the chunks as they are and lets go of the lock: whoever
//! changes one of these meanwhile changes a copy.

use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use base::Timestamp;

use super::facets::Facets;
use super::session::Session;
use super::text::AddressPrefix;

const CHUNK_MAX: usize = 512;

/// By what a roster is ordered: a time, and a number that tells those of the same time apart.
pub type Order = (Timestamp, u64);

/// A session in its place.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) order: Order,
    pub(super) facets: Facets,
    pub(super) session: Arc<Session>,
    /// The address of its peer if that is one of IPv4, otherwise 0.0.0.0:0.
    v4: ([u8; 4], u16),
    client_id: u16,
    /// The number of its counters.
    pub(super) hot: u32,
}

/// The first bytes of a name, by which most comparisons are decided, and the session.
#[derive(Clone)]
pub(super) struct Named {
    head: [u8; HEAD],
    pub(super) session: Arc<Session>,
}

const HEAD: usize = 16;

/// A sorted sequence in chunks.
#[derive(Clone)]
pub(super) struct Chunks<T>(Vec<Arc<Vec<T>>>);

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The sessions of an organisation, oldest first.
#[derive(Default)]
pub struct Roster {
    entries: Chunks<Entry>,
    names: Chunks<Named>,
    len: usize,
}

impl<T: Clone> Chunks<T> {
    /// All that is already in order.
    fn of_sorted(items: impl IntoIterator<Item = T>) -> Self {
        let mut chunks: Vec<Vec<T>> = Vec::new();
        for item in items {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < CHUNK_MAX => chunk.push(item),
                _ => chunks.push(vec![item]),
            }
        }
        Self(chunks.into_iter().map(Arc::new).collect())
    }

    /// The chunk that holds, or would hold, this position: the last one whose first element is not
    /// behind it, else the first.
    fn chunk_of(&self, compare: impl Fn(&T) -> Ordering) -> usize {
        let begins =
            |chunk: &Arc<Vec<T>>| chunk.first().is_some_and(|first| compare(first).is_le());
        self.0.partition_point(begins).saturating_sub(1)
    }

    /// Adds an element; `compare` says how another one stands to it.
    fn insert(&mut self, item: T, compare: impl Fn(&T) -> Ordering) {
        let mut index = self.chunk_of(&compare);
        if self.0.get(index).is_some_and(|chunk| chunk.len() >= CHUNK_MAX) {
            // Before it would grow beyond its room. At the end of the sequence a new chunk begins, so
            // that full chunks stay full; elsewhere a chunk is halved.
            let is_behind = self.0[index].last().is_some_and(|last| compare(last).is_lt());
            if is_behind && index + 1 == self.0.len() {
                self.0.push(Arc::new(vec![item]));
                return;
            }
            let rest = Arc::make_mut(&mut self.0[index]).split_off(CHUNK_MAX / 2);
            self.0.insert(index + 1, Arc::new(rest));
            index = self.chunk_of(&compare);
        }
        let Some(chunk) = self.0.get_mut(index) else {
            self.0.push(Arc::new(vec![item]));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        let position = chunk.partition_point(|other| compare(other).is_lt());
        chunk.insert(position, item);
    }

    /// Takes the element out for which `compare` says equal.
    fn remove(&mut self, compare: impl Fn(&T) -> Ordering) -> bool {
        let index = self.chunk_of(&compare);
        let Some(chunk) = self.0.get_mut(index) else { return false };
        let Ok(position) = chunk.binary_search_by(compare) else { return false };
        Arc::make_mut(chunk).remove(position);
        let len = chunk.len();
        let next = self.0.get(index + 1).map_or(usize::MAX, |next| next.len());
        if len == 0 {
            self.0.remove(index);
        } else if next < CHUNK_MAX / 2 - len.min(CHUNK_MAX / 2) {
            let rest = self.0.remove(index + 1);
            Arc::make_mut(&mut self.0[index]).extend(rest.iter().cloned());
        }
        true
    }

    /// The element for which `compare` says equal, to be changed in its place.
    fn get_mut(&mut self, compare: impl Fn(&T) -> Ordering) -> Option<&mut T> {
        let index = self.chunk_of(&compare);
        let chunk = self.0.get_mut(index)?;
        let position = chunk.binary_search_by(compare).ok()?;
        Arc::make_mut(chunk).get_mut(position)
    }

    /// Those in a range of the sequence, of which `is_before` and `is_behind` tell the others.
    pub(super) fn within(
        &self,
        is_before: impl Fn(&T) -> bool,
        is_behind: impl Fn(&T) -> bool,
    ) -> impl DoubleEndedIterator<Item = &T> {
        let first = self.0.partition_point(|chunk| chunk.last().is_some_and(&is_before));
        let begins_within = |chunk: &Arc<Vec<T>>| chunk.first().is_some_and(|x| !is_behind(x));
        let last = self.0.partition_point(begins_within).max(first);
        let part = move |chunk: &Arc<Vec<T>>| -> Range<usize> {
            let from = chunk.partition_point(&is_before);
            from..chunk.partition_point(|item| !is_behind(item)).max(from)
        };
        let chunks = self.0.get(first..last).unwrap_or_default();
        chunks.iter().flat_map(move |chunk| chunk[part(chunk)].iter())
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }
}

impl Entry {
    fn new(order: Order, session: Arc<Session>) -> Self {
        let (facets, hot) = (session.facets(), session.hot.number());
        let client_id = short_hash(&session.client_id);
        let address = session.conn.remote_addr;
        let v4 = match address.ip() {
            IpAddr::V4(ip) => (ip.octets(), address.port()),
            IpAddr::V6(_) => ([0; 4], 0),
        };
        Self { order, facets, session, v4, client_id, hot }
    }

    /// Whether the peer's address begins so.
    #[inline]
    pub(super) fn comes_from(&self, prefix: &AddressPrefix) -> bool {
        match self.v4 {
            ([0, 0, 0, 0], 0) => prefix.begins(self.session.conn.remote_addr),
            (octets, port) => prefix.begins_v4(octets, port),
        }
    }

    /// Whether it has this client id, if it does not share one.
    #[inline]
    pub(super) fn has_client_id(&self, id: &str, hash: u16) -> bool {
        self.client_id == hash && *self.session.client_id == *id
    }

    fn at(order: Order) -> impl Fn(&Self) -> Ordering {
        move |other| other.order.cmp(&order)
    }
}

impl Named {
    fn of(session: Arc<Session>) -> Self {
        Self { head: head(session.who.name()), session }
    }

    /// By name; of those with the same name, the newest first.
    fn compare(&self, head: &[u8; HEAD], session: &Session) -> Ordering {
        let names = || self.session.who.name().cmp(session.who.name());
        let order = || Reverse(self.session.order()).cmp(&Reverse(session.order()));
        self.head.cmp(head).then_with(names).then_with(order)
    }

    pub(super) fn has_name_of(&self, other: &Self) -> bool {
        self.head == other.head && self.session.who.name() == other.session.who.name()
    }

    /// How the name stands to all that begin so.
    fn compare_prefix(&self, prefix: &str) -> Ordering {
        let (head, wanted) = (&self.head, prefix.as_bytes());
        let known = wanted.len().min(HEAD);
        let rest = || {
            let name = self.session.who.name().as_bytes();
            name.get(..wanted.len()).unwrap_or(name).cmp(wanted)
        };
        match head[..known].cmp(&wanted[..known]) {
            Ordering::Equal if wanted.len() > HEAD => rest(),
            order => order,
        }
    }
}

/// A hash by which most different texts differ.
pub(super) fn short_hash(text: &str) -> u16 {
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, step);
    (hash >> 16 ^ hash & 0xffff) as u16
}

fn head(name: &str) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    for (to, from) in head.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    head
}

impl Chunks<Named> {
    /// Those whose name begins so, by name.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl DoubleEndedIterator<Item = &Named> {
        self.within(
            move |named| named.compare_prefix(prefix).is_lt(),
            move |named| named.compare_prefix(prefix).is_gt(),
        )
    }
}

impl Chunks<Entry> {
    /// Those of a time after `after` and before `before`.
    pub(super) fn between(
        &self,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.within(
            move |entry| after.is_some_and(|after| entry.order.0 <= after),
            move |entry| before.is_some_and(|before| entry.order.0 >= before),
        )
    }

    /// Whether there is one in this place.
    pub(super) fn has(&self, order: Order) -> bool {
        let chunk = self.0.get(self.chunk_of(Entry::at(order)));
        chunk.is_some_and(|chunk| chunk.binary_search_by(Entry::at(order)).is_ok())
    }
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

    /// Adds a session that is not in it, in a place where there is none.
    pub fn insert(&mut self, order: Order, session: Arc<Session>) {
        let named = Named::of(session.clone());
        let (head, session_named) = (named.head, session.clone());
        self.names.insert(named, |other| other.compare(&head, &session_named));
        self.insert_unnamed(order, session);
    }

    /// The same for one of many: [`Roster::name_all`] comes behind the last.
    pub fn insert_unnamed(&mut self, order: Order, session: Arc<Session>) {
        self.entries.insert(Entry::new(order, session), Entry::at(order));
        self.len += 1;
    }

    /// Puts all into their order by name.
    pub fn name_all(&mut self) {
        let mut named: Vec<_> =
            self.entries.iter().map(|entry| Named::of(entry.session.clone())).collect();
        named.sort_unstable_by(|a, b| a.compare(&b.head, &b.session));
        self.names = Chunks::of_sorted(named);
    }

    /// Takes a session out, if it is there.
    pub fn remove(&mut self, order: Order, session: &Session) -> bool {
        if !self.entries.remove(Entry::at(order)) {
            return false;
        }
        let head = head(session.who.name());
        self.names.remove(|other| other.compare(&head, session));
        self.len -= 1;
        true
    }

    /// Notes that the facets of a session have changed.
    pub(super) fn set_facets(&mut self, order: Order, facets: Facets) {
        if let Some(entry) = self.entries.get_mut(Entry::at(order)) {
            entry.facets = facets;
        }
    }

    /// The same for a session of which only the time of its place is known.
    pub(super) fn set_facets_of(&mut self, time: Timestamp, session: &Session, facets: Facets) {
        let found = self.entries.within(|e| e.order.0 < time, |e| e.order.0 > time);
        let found = found.filter(|entry| std::ptr::eq(&*entry.session, session));
        let found = found.map(|entry| entry.order).next();
        if let Some(order) = found {
            self.set_facets(order, facets);
        }
    }

    /// All of them as they are now, in order.
    pub(super) fn entries(&self) -> Chunks<Entry> {
        self.entries.clone()
    }

    /// All of them as they are now, by name.
    pub(super) fn names(&self) -> Chunks<Named> {
        self.names.clone()
    }

    /// At most `limit` sessions after the first `offset`, newest or oldest first.
    pub fn page(&self, newest_first: bool, offset: usize, limit: usize) -> Vec<Arc<Session>> {
        let mut page = Vec::with_capacity(limit.min(self.len.saturating_sub(offset)));
        let mut skip = offset;
        let mut take = |chunk: &Arc<Vec<Entry>>| {
            if skip >= chunk.len() {
                skip -= chunk.len();
                return true;
            }
            let wanted = limit - page.len();
            let session = |entry: &Entry| entry.session.clone();
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
            (true, true) => self.entries.0.iter().rev().all(&mut take),
            (true, false) => self.entries.0.iter().all(&mut take),
            (false, _) => true,
        };
        page
    }

    /// All sessions, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.entries.iter().rev().map(|entry| &entry.session)
    }
}
