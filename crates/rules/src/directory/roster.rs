//! The sessions of one organisation in order, and by name.
//!
//! A page far down the list skips whole chunks. A million sessions are two thousand chunks, so any
//! page costs its own length and a few microseconds.
//!
//! Who looks through all of them takes the chunks as they are and lets go of the lock.

use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use super::chunks::{Beside, Chunk, Chunks, Item, Part};
use super::facets::Facets;
use super::session::Session;
use super::text::AddressPrefix;

/// By what a roster is ordered: a time, and a number that tells those of the same time apart.
pub type Order = (Timestamp, u64);

/// A session in its place.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) order: Order,
    pub(super) session: Arc<Session>,
}

/// What listings ask of each session of a chunk, one thing beside the other.
#[derive(Clone, Default)]
pub(super) struct Columns {
    pub(super) facets: Vec<Facets>,
    details: Vec<Details>,
    /// When each started, where that is not their order.
    started: Vec<Timestamp>,
}

#[derive(Clone, Copy)]
struct Details {
    /// The number of its counters.
    hot: u32,
    client_id: u16,
    /// The address of its peer if that is one of IPv4, otherwise 0.0.0.0:0.
    v4: ([u8; 4], u16),
}

impl Item for Entry {
    type Beside = Columns;
}

impl Beside for Columns {
    /// A session, and whether it stands in the order of its start.
    type Row = (Arc<Session>, bool);

    fn insert(&mut self, at: usize, (session, by_start): Self::Row) {
        self.facets.insert(at, session.facets());
        self.details.insert(at, Details::of(&session));
        if !by_start {
            self.started.insert(at, session.started);
        }
    }

    fn remove(&mut self, at: usize) {
        self.facets.remove(at);
        self.details.remove(at);
        if at < self.started.len() {
            self.started.remove(at);
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            facets: self.facets.split_off(at),
            details: self.details.split_off(at),
            started: self.started.split_off(at.min(self.started.len())),
        }
    }

    fn append(&mut self, behind: &Self) {
        self.facets.extend_from_slice(&behind.facets);
        self.details.extend_from_slice(&behind.details);
        self.started.extend_from_slice(&behind.started);
    }
}

/// When each of a chunk started.
impl Beside for Vec<Timestamp> {
    type Row = Timestamp;

    fn insert(&mut self, at: usize, started: Timestamp) {
        Self::insert(self, at, started);
    }

    fn remove(&mut self, at: usize) {
        Self::remove(self, at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self::split_off(self, at)
    }

    fn append(&mut self, behind: &Self) {
        self.extend_from_slice(behind);
    }
}

/// An entry with what stands beside it.
#[derive(Clone, Copy)]
pub(super) struct Found<'c> {
    chunk: &'c Chunk<Entry>,
    at: usize,
}

/// The first bytes of a name, by which most comparisons are decided, and the session.
#[derive(Clone)]
pub(super) struct Named {
    head: [u8; HEAD],
    pub(super) session: Arc<Session>,
}

const HEAD: usize = 16;

impl Item for Named {
    type Beside = Vec<Timestamp>;
}

/// The sessions of an organisation, oldest first.
#[derive(Default)]
pub struct Roster {
    entries: Chunks<Entry>,
    names: Chunks<Named>,
    len: usize,
    /// Whether they are in the order of their ends, and not of their starts.
    is_by_end: bool,
}

impl Entry {
    fn at(order: Order) -> impl Fn(&Self) -> Ordering {
        move |other| other.order.cmp(&order)
    }
}

impl Details {
    fn of(session: &Session) -> Self {
        let address = session.conn.remote_addr;
        let v4 = match address.ip() {
            IpAddr::V4(ip) => (ip.octets(), address.port()),
            IpAddr::V6(_) => ([0; 4], 0),
        };
        Self { hot: session.hot.number(), client_id: short_hash(&session.client_id), v4 }
    }
}

impl<'c> Found<'c> {
    /// All entries of a part, in order.
    #[inline]
    pub(super) fn each(part: Part<'c, Entry>) -> impl DoubleEndedIterator<Item = Self> {
        let chunk = part.chunk;
        part.range.map(move |at| Self { chunk, at })
    }

    #[inline]
    pub(super) fn session(self) -> &'c Arc<Session> {
        &self.chunk.items[self.at].session
    }

    #[inline]
    pub(super) fn order(self) -> Order {
        self.chunk.items[self.at].order
    }

    #[inline]
    pub(super) fn facets(self) -> Facets {
        self.chunk.beside.facets[self.at]
    }

    #[inline]
    pub(super) fn started(self) -> Timestamp {
        let started = self.chunk.beside.started.get(self.at);
        started.copied().unwrap_or_else(|| self.order().0)
    }

    /// The number of its counters.
    #[inline]
    pub(super) fn hot(self) -> u32 {
        self.chunk.beside.details[self.at].hot
    }

    /// Whether the peer's address begins so.
    #[inline]
    pub(super) fn comes_from(self, prefix: &AddressPrefix) -> bool {
        match self.chunk.beside.details[self.at].v4 {
            ([0, 0, 0, 0], 0) => prefix.begins(self.session().conn.remote_addr),
            (octets, port) => prefix.begins_v4(octets, port),
        }
    }

    /// Whether it has this client id, if it does not share one.
    #[inline]
    pub(super) fn has_client_id(self, id: &str, hash: u16) -> bool {
        let known = self.chunk.beside.details[self.at].client_id;
        known == hash && *self.session().client_id == *id
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

    /// All names of a part, in order, and when their sessions started.
    pub(super) fn each<'c>(
        part: Part<'c, Self>,
    ) -> impl DoubleEndedIterator<Item = (&'c Self, &'c Timestamp)> + ExactSizeIterator {
        let started = part.chunk.beside.get(part.range.clone());
        part.items().iter().zip(started.unwrap_or_default())
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

/// Sessions whose memory is fetched at the same time.
const FETCHED: usize = 32;

/// Reads the counts of these, of which nobody waits for the one before: to count one up waits for
/// its memory, and for nothing else.
fn fetch(entries: &[Entry]) {
    let counts = entries.iter().map(|entry| Arc::strong_count(&entry.session));
    std::hint::black_box(counts.fold(0, |all, count| all ^ count));
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
    pub(super) fn with_prefix(
        &self,
        prefix: &str,
    ) -> impl DoubleEndedIterator<Item = Part<'_, Named>> {
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
    ) -> impl DoubleEndedIterator<Item = Part<'_, Entry>> {
        self.within(
            move |entry| after.is_some_and(|after| entry.order.0 <= after),
            move |entry| before.is_some_and(|before| entry.order.0 >= before),
        )
    }

    /// Whether there is one in this place.
    pub(super) fn has_at(&self, order: Order) -> bool {
        self.has(Entry::at(order))
    }
}

impl Roster {
    /// An empty one in the order of ends.
    pub fn by_end() -> Self {
        Self { is_by_end: true, ..Self::default() }
    }

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
        let started = session.started;
        self.names.insert(named, started, |other| other.compare(&head, &session_named));
        self.insert_unnamed(order, session);
    }

    /// The same for one of many: [`Roster::name_all`] comes behind the last.
    pub fn insert_unnamed(&mut self, order: Order, session: Arc<Session>) {
        let entry = Entry { order, session: session.clone() };
        self.entries.insert(entry, (session, !self.is_by_end), Entry::at(order));
        self.len += 1;
    }

    /// Puts all into their order by name.
    pub fn name_all(&mut self) {
        let entries = self.entries.all().flat_map(|chunk| &chunk.items);
        let mut named: Vec<_> = entries.map(|entry| Named::of(entry.session.clone())).collect();
        named.sort_unstable_by(|a, b| a.compare(&b.head, &b.session));
        self.names = Chunks::of_sorted(named.into_iter().map(|named| {
            let started = named.session.started;
            (named, started)
        }));
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
        if let Some((columns, at)) = self.entries.beside_mut(Entry::at(order)) {
            columns.facets[at] = facets;
        }
    }

    /// The same for a session of which only the time of its place is known.
    pub(super) fn set_facets_of(&mut self, time: Timestamp, session: &Session, facets: Facets) {
        let parts = self.entries.within(|e| e.order.0 < time, |e| e.order.0 > time);
        let mut entries = parts.flat_map(|part| part.items());
        let found = entries.find(|entry| std::ptr::eq(&*entry.session, session));
        let order = found.map(|entry| entry.order);
        drop(entries);
        if let Some(order) = order {
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
        let mut take = |chunk: &Chunk<Entry>| {
            let entries = &chunk.items;
            if skip >= entries.len() {
                skip -= entries.len();
                return true;
            }
            let wanted = (limit - page.len()).min(entries.len() - skip);
            let begin = if newest_first { entries.len() - skip - wanted } else { skip };
            let entries = entries.get(begin..begin + wanted).unwrap_or_default();
            if newest_first {
                for part in entries.rchunks(FETCHED) {
                    fetch(part);
                    page.extend(part.iter().rev().map(|entry| entry.session.clone()));
                }
            } else {
                for part in entries.chunks(FETCHED) {
                    fetch(part);
                    page.extend(part.iter().map(|entry| entry.session.clone()));
                }
            }
            skip = 0;
            page.len() < limit
        };
        // `all` stops at the chunk that fills the page.
        match (limit > 0, newest_first) {
            (true, true) => self.entries.all().rev().all(&mut take),
            (true, false) => self.entries.all().all(&mut take),
            (false, _) => true,
        };
        page
    }

    /// All sessions, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.entries
            .all()
            .rev()
            .flat_map(|chunk| chunk.items.iter().rev())
            .map(|entry| &entry.session)
    }
}
