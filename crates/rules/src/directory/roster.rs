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
    /// The numbers of their counters.
    hot: Vec<u32>,
    /// Hashes of their client ids.
    client_ids: Vec<u16>,
    /// The addresses of their peers if those are of IPv4, otherwise 0.0.0.0:0.
    ips: Vec<u32>,
    ports: Vec<u16>,
    /// When each started, where that is not their order.
    started: Starts,
}

/// When each of a chunk started.
#[derive(Clone, Default)]
pub(super) struct Starts {
    each: Vec<Timestamp>,
    /// None started before the first of these, and none after the second.
    span: Option<(Timestamp, Timestamp)>,
}

impl Item for Entry {
    type Beside = Columns;
}

impl Beside for Columns {
    /// A session, and whether it stands in the order of its start.
    type Row = (Arc<Session>, bool);

    fn insert(&mut self, at: usize, (session, by_start): Self::Row) {
        let address = session.conn.remote_addr;
        let (ip, port) = match address.ip() {
            IpAddr::V4(ip) => (ip.to_bits(), address.port()),
            IpAddr::V6(_) => (0, 0),
        };
        self.facets.insert(at, session.facets());
        self.hot.insert(at, session.hot.number());
        self.client_ids.insert(at, short_hash(&session.client_id));
        self.ips.insert(at, ip);
        self.ports.insert(at, port);
        if !by_start {
            self.started.insert(at, session.started);
        }
    }

    fn remove(&mut self, at: usize) {
        self.facets.remove(at);
        self.hot.remove(at);
        self.client_ids.remove(at);
        self.ips.remove(at);
        self.ports.remove(at);
        if at < self.started.each.len() {
            self.started.remove(at);
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            facets: self.facets.split_off(at),
            hot: self.hot.split_off(at),
            client_ids: self.client_ids.split_off(at),
            ips: self.ips.split_off(at),
            ports: self.ports.split_off(at),
            started: self.started.split_off(at.min(self.started.each.len())),
        }
    }

    fn append(&mut self, behind: &Self) {
        self.facets.extend_from_slice(&behind.facets);
        self.hot.extend_from_slice(&behind.hot);
        self.client_ids.extend_from_slice(&behind.client_ids);
        self.ips.extend_from_slice(&behind.ips);
        self.ports.extend_from_slice(&behind.ports);
        self.started.append(&behind.started);
    }
}

impl Starts {
    fn of(each: Vec<Timestamp>) -> Self {
        let span = each.iter().min().copied().zip(each.iter().max().copied());
        Self { each, span }
    }
}

impl Beside for Starts {
    type Row = Timestamp;

    fn insert(&mut self, at: usize, started: Timestamp) {
        self.each.insert(at, started);
        let (first, last) = self.span.unwrap_or((started, started));
        self.span = Some((first.min(started), last.max(started)));
    }

    fn remove(&mut self, at: usize) {
        self.each.remove(at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let behind = Self::of(self.each.split_off(at));
        *self = Self::of(std::mem::take(&mut self.each));
        behind
    }

    fn append(&mut self, behind: &Self) {
        self.each.extend_from_slice(&behind.each);
        let spans = self.span.into_iter().chain(behind.span);
        self.span = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    }
}

/// Elements of which it is known when each started.
pub(super) trait HasStarts {
    /// When each of them started; none if that is their order.
    fn started(&self) -> Option<&[Timestamp]>;

    /// A time before which none of them started, and one after which none did.
    fn span(&self) -> Option<(Timestamp, Timestamp)>;
}

impl HasStarts for Part<'_, Entry> {
    fn started(&self) -> Option<&[Timestamp]> {
        self.chunk.beside.started.each.get(self.range.clone())
    }

    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.chunk.beside.started.span
    }
}

impl HasStarts for Part<'_, Named> {
    fn started(&self) -> Option<&[Timestamp]> {
        self.chunk.beside.each.get(self.range.clone())
    }

    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.chunk.beside.span
    }
}

impl<'c> Part<'c, Entry> {
    pub(super) fn facets(&self) -> &'c [Facets] {
        self.chunk.beside.facets.get(self.range.clone()).unwrap_or_default()
    }

    /// The numbers of their counters.
    pub(super) fn hot(&self) -> &'c [u32] {
        self.chunk.beside.hot.get(self.range.clone()).unwrap_or_default()
    }

    /// Hashes of their client ids.
    pub(super) fn client_ids(&self) -> &'c [u16] {
        self.chunk.beside.client_ids.get(self.range.clone()).unwrap_or_default()
    }

    /// The addresses of their peers, and the ports; 0 and 0 for what is not of IPv4.
    pub(super) fn addresses(&self) -> (&'c [u32], &'c [u16]) {
        let (ips, ports) = (&self.chunk.beside.ips, &self.chunk.beside.ports);
        let ips = ips.get(self.range.clone()).unwrap_or_default();
        (ips, ports.get(self.range.clone()).unwrap_or_default())
    }

    /// One of them, with what stands beside it.
    #[inline]
    pub(super) const fn found(&self, at: usize) -> Found<'c> {
        Found { chunk: self.chunk, at: self.range.start + at }
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
    type Beside = Starts;
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

impl<'c> Found<'c> {
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
        let started = self.chunk.beside.started.each.get(self.at);
        started.copied().unwrap_or_else(|| self.order().0)
    }

    /// The number of its counters.
    #[inline]
    pub(super) fn hot(self) -> u32 {
        self.chunk.beside.hot[self.at]
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
