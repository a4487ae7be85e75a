//! The numbered stream of events: what happened, in its order, kept on disk.
//!
//! An event gets its number while its batch goes to the store's writer, under one lock, so that
//! numbers are in the order of the commits: whoever has seen number N, and asks for what came later,
//! misses nothing. Numbers are never used again; some are left out. The row is in the same batch as
//! the change that it describes: both are durable, or neither is.
//!
//! Rows are kept by class and organisation: each class for its own time, and of all together no
//! more than `events.max_bytes`, in which every organisation has its share.

mod acts;
mod class;
mod filter;
mod kinds;
mod live;
mod load;
mod log;
mod login_cause;
mod numbered;
mod reader;
mod refusals;
mod shares;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::pool::Usage;
use base::{OrgId, Timestamp, limits};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::{Map, Value};
use smallvec::SmallVec;
use store::{Batch, Change, StoreError, Table, Tables, rows::encode};

pub use acts::{
    ACTS, Act, Actor, Known, MEMBERSHIPS, Target, diff, members, only_memberships, shown_name,
};
pub use class::Class;
pub use filter::{
    BadType, EVENTS_TOPIC, Filter, Scope, Seen, TypeFilter, thing_of_text, topic_class,
};
pub use kinds::{Event, KINDS, Kind, KindInfo, class_of};
pub use live::{Listener, Live};
pub use load::EventsError;
pub use login_cause::LoginCause;
pub use numbered::Numbered;
pub use reader::{Entry, Order, Page, Query};
pub use refusals::{Attempt, Refused};

use live::Ring;
use log::EventLog;
use numbered::Added;
use refusals::Counted;

/// Whose events are no organisation's: of the server itself, and refusals of names that nobody has.
pub const SERVER: OrgId = OrgId::from_bytes([0; 12]);

/// Where [`State::reserved`] is, in [`Table::EventSums`].
const NUMBER_KEY: &[u8] = &[0xff];

/// Where [`State::floor`] is, in [`Table::EventSums`].
const FLOOR_KEY: &[u8] = &[0xfe];

/// What the configuration says about events.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// Days for which events are kept, but the acts of administrators; 0 is no limit.
    pub keep_days: u32,
    /// Bytes that all may take.
    pub max_bytes: u64,
    /// The file of lines of JSON.
    pub log: Option<PathBuf>,
}

/// The log of events can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't open {path:?} (events.log)")]
pub struct LogError {
    /// The file.
    path: PathBuf,
    /// Why not.
    #[source]
    source: io::Error,
}

/// What happened: one number, and what each organisation concerned sees of it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its class.
    pub class: Class,
    /// The rows, without number, class and organisation.
    pub rows: Vec<(OrgId, Map<String, Value>)>,
}

/// The stream.
pub struct Events {
    tables: Tables,
    config: EventsConfig,
    log: Option<EventLog>,
    /// How much it has, for the table of pools.
    usage: Arc<Usage>,
    /// Of who writes or removes rows of refusals, which takes long: only those wait for it.
    refusal_rows: Mutex<()>,
    /// Behind that and before `state`, where they are taken. Whoever is refused waits for it.
    refusals: Mutex<Counted>,
    state: Mutex<State>,
    ring: Ring,
    /// The keys of organisations, for readers; of those that are gone, while rows show them.
    keys: RwLock<HashMap<OrgId, Arc<str>>>,
}

/// What is known of the rows without reading them.
#[derive(Default)]
struct State {
    /// The last number that was given away.
    last: u64,
    /// The next start begins behind this number, whose row may be lost in a crash when somebody has
    /// seen it, or gone.
    reserved: u64,
    /// Up to this number, rows of ranges are gone that are forgotten.
    floor: u64,
    ranges: BTreeMap<(Class, OrgId), Range>,
    /// Organisations that were deleted, and what was above each.
    gone: HashMap<OrgId, Option<OrgId>>,
    written: [u64; Class::ALL.len()],
}

/// The rows of a class and an organisation.
#[derive(Clone, Copy, Default, Debug)]
struct Range {
    bytes: u64,
    last: u64,
    /// The last number of which the row was removed to make room, or because it was old.
    trimmed: u64,
    /// Behind which the oldest row is looked for: what was removed may not be committed yet, and rows
    /// that are gone take time until the store has cleared them away.
    skipped: u64,
    /// Whether its sum in the store is out of date.
    stale: bool,
}

/// What is written, and how much room there is, for metrics.
pub struct Load {
    /// Class, events written since the start, bytes.
    pub classes: [(Class, u64, u64); Class::ALL.len()],
    /// Bytes that all may take.
    pub limit: u64,
}

impl State {
    fn shrink(&mut self, class: Class, org: OrgId, bytes: u64) {
        if let Some(range) = self.ranges.get_mut(&(class, org)) {
            range.bytes = range.bytes.saturating_sub(bytes);
            range.stale = true;
        }
    }

    /// Adds the sum of a class and organisation to a batch that removes a row of it: who counts
    /// what came after an older sum would not know of that.
    fn put_sum(&mut self, batch: &mut Batch, class: Class, org: OrgId) {
        let last = self.last;
        if let Some(range) = self.ranges.get_mut(&(class, org)) {
            range.stale = false;
            batch.put(Table::EventSums, sum_key(class, org), load::sum(range, last));
        }
    }

    /// Adds the sums that are out of date to a batch, at most `most` of them.
    fn put_sums(&mut self, batch: &mut Batch, most: usize) {
        let last = self.last;
        let stale = self.ranges.iter_mut().filter(|(_, range)| range.stale);
        for ((class, org), range) in stale.take(most) {
            range.stale = false;
            batch.put(Table::EventSums, sum_key(*class, *org), load::sum(range, last));
        }
    }
}

impl Events {
    /// Gives events their numbers and adds their rows to a batch, to be submitted at once.
    pub fn add<E: Into<Event>>(
        &self,
        batch: &mut Batch,
        events: impl IntoIterator<Item = E>,
    ) -> Numbered<'_> {
        // Rows are made before the lock, which all events pass.
        let events: SmallVec<[Event; 2]> = events.into_iter().map(Into::into).collect();
        let mut state = self.state.lock();
        let mut added = Vec::with_capacity(events.len());
        let is_shown = self.log.is_some() || self.ring.is_heard();
        for Event { class, rows } in events {
            state.last += 1;
            let number = state.last;
            for (org, value) in rows {
                let key = key(class, org, number);
                let bytes = (key.len() + value.len()) as u64;
                let row = if is_shown { value.clone() } else { Vec::new() };
                batch.put(Table::Events, key, value);
                let range = state.ranges.entry((class, org)).or_default();
                (range.bytes, range.last, range.stale) = (range.bytes + bytes, number, true);
                added.push(Added { class, org, number, bytes, row });
            }
        }
        if state.reserved < state.last + limits::EVENT_NUMBERS_AHEAD / 2 {
            state.reserved = state.last + limits::EVENT_NUMBERS_AHEAD;
            batch.put(Table::EventSums, NUMBER_KEY, state.reserved.to_be_bytes());
        }
        Numbered::new(self, state, added)
    }

    /// Notes how an organisation is called, which its events show from now on.
    pub fn name_org(&self, org: OrgId, key: &str) {
        self.keys.write().insert(org, key.into());
    }

    /// The key of an organisation, where the rows of a class have none.
    fn key_of(&self, class: Class, org: OrgId) -> Option<Arc<str>> {
        if Class::TRAIL.contains(&class) { None } else { self.keys.read().get(&org).cloned() }
    }

    /// An event as readers get it; none of a row that can't be read.
    fn seen(&self, (class, org): (Class, OrgId), number: u64, row: &[u8]) -> Option<Seen> {
        Seen::of_row((class, org, self.key_of(class, org)), number, row)
    }

    /// The last number that was given away.
    pub fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// From which number on all events of these classes and organisations are there, if something
    /// between the first number and the last one is not. Behind 0 everything that is kept is meant.
    pub fn first_kept(
        &self,
        (after, last): (u64, u64),
        classes: &[Class],
        sees: &dyn Fn(OrgId) -> bool,
    ) -> Option<u64> {
        if after > last {
            // A number of another store.
            return Some(last + 1);
        }
        let gone = if after == 0 { 0 } else { self.gone_until(classes, sees) };
        (gone > after).then_some(gone + 1)
    }

    /// The last number up to which something of these classes and organisations is not kept any
    /// more; 0 if all of it is.
    fn gone_until(&self, classes: &[Class], sees: &dyn Fn(OrgId) -> bool) -> u64 {
        let (floor, trimmed) = {
            let state = self.state.lock();
            let of_class = state
                .ranges
                .iter()
                .filter(|((class, _), range)| range.trimmed > 0 && classes.contains(class));
            let trimmed: Vec<_> = of_class.map(|((_, org), range)| (*org, range.trimmed)).collect();
            (state.floor, trimmed)
        };
        let seen = trimmed.into_iter().filter(|(org, _)| sees(*org));
        seen.map(|(_, number)| number).fold(floor, u64::max)
    }

    /// Notes in a batch that an organisation goes, so that those above still see its events.
    pub fn org_goes(&self, batch: &mut Batch, org: OrgId, above: Option<OrgId>) {
        batch.put(Table::EventSums, gone_key(org), load::above(above));
        self.state.lock().gone.insert(org, above);
    }

    /// What was above an organisation that was deleted; none if it was not, or has no event left.
    pub fn above_gone(&self, org: OrgId) -> Option<Option<OrgId>> {
        self.state.lock().gone.get(&org).copied()
    }

    /// What is written and how much room there is.
    pub fn load(&self) -> Load {
        let state = self.state.lock();
        let bytes = |class| {
            let of_class = state.ranges.iter().filter(|((other, _), _)| *other == class);
            of_class.map(|(_, range)| range.bytes).sum()
        };
        let load = |class: Class| (class, state.written[class.index()], bytes(class));
        let classes = Class::ALL.map(load);
        self.usage.set_used(classes.iter().map(|(.., bytes)| bytes).sum());
        Load { classes, limit: self.config.max_bytes }
    }

    /// Has the log opened again by its name.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Waits, but not for long, until the log has what happened.
    pub fn flush_log(&self) {
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// Stores the sums that are out of date, so that the next start need not count again.
    pub fn store_sums(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        state.put_sums(&mut batch, limits::EVENT_SUMS_STEP);
        let submitted = self.tables.submit(batch);
        if submitted.is_err() {
            state.ranges.values_mut().for_each(|range| range.stale = true);
        }
        submitted.map(drop)
    }

    /// The same at the end, and that no number is lost: the next start goes on behind the last one.
    pub fn close(&self) -> Result<(), StoreError> {
        self.store_sums()?;
        let mut state = self.state.lock();
        state.reserved = state.last;
        let mut batch = Batch::default();
        batch.put(Table::EventSums, NUMBER_KEY, state.reserved.to_be_bytes());
        self.tables.submit(batch).map(drop)
    }

    /// Removes some of what is too much: whether there is more. Organisations of one tenant share
    /// what it may have. It reads the disk.
    pub fn trim(&self, tenant: impl Fn(OrgId) -> OrgId) -> Result<bool, StoreError> {
        let used: Vec<_> = {
            let state = self.state.lock();
            state.ranges.iter().map(|(key, range)| (*key, range.bytes)).collect()
        };
        let excess = shares::excess(&used, tenant, self.config.max_bytes);
        let Some(excess) = excess else { return Ok(false) };
        let mut left = excess.bytes;
        let is_settled = self.tables.writer().waiting() == 0;
        let removed = self.remove_oldest(excess.class, excess.org, |_, bytes| {
            let wanted = left > 0;
            left = left.saturating_sub(bytes);
            wanted
        })?;
        if removed == 0
            && is_settled
            && let Some(range) = self.state.lock().ranges.get_mut(&(excess.class, excess.org))
        {
            // The sum was too high: rows of it were lost with a commit that failed. Or their removal was,
            // and they are behind the place that is looked at.
            if std::mem::take(&mut range.skipped) == 0 {
                (range.bytes, range.stale) = (0, true);
            }
        }
        (0..removed).for_each(|_| self.usage.count_evicted());
        Ok(true)
    }

    /// Removes what is too old, in steps between which others get their turn. It reads the disk.
    pub fn expire(&self, now: Timestamp) -> Result<(), StoreError> {
        /// As far as is needed to tell when it was.
        #[derive(Deserialize)]
        struct When {
            ts: Timestamp,
        }
        let ranges: Vec<_> = self.state.lock().ranges.keys().copied().collect();
        for (class, org) in ranges {
            let days = class.keep_days(self.config.keep_days);
            if days == 0 {
                continue;
            }
            let oldest = now.plus_millis(-i64::from(days) * 86_400_000);
            let is_over = |value: &[u8], _| {
                serde_json::from_slice(value).map_or(true, |when: When| when.ts < oldest)
            };
            while self.remove_oldest(class, org, is_over)? == limits::EVENTS_TRIMMED_STEP {}
        }
        self.forget_gone()
    }

    /// Removes the oldest rows of a class and organisation as long as they are `wanted`, in one
    /// step: how many.
    fn remove_oldest(
        &self,
        class: Class,
        org: OrgId,
        mut wanted: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<usize, StoreError> {
        // A refusal that is counted further replaces its row: not meanwhile.
        let rows_of_refusals = (class == Class::Refusals).then(|| self.refusal_rows.lock());
        let prefix = sum_key(class, org);
        let step = limits::EVENTS_TRIMMED_STEP;
        let before = self.state.lock().ranges.get(&(class, org)).copied().unwrap_or_default();
        let after = key(class, org, before.skipped);
        let rows = self.tables.scan_prefix(Table::Events, &prefix, Some(&after), step)?;
        let mut batch = Batch::default();
        let (mut freed, mut upto) = (0, 0);
        for (key, value) in rows {
            let bytes = (key.len() + value.len()) as u64;
            if !wanted(&value, bytes) {
                break;
            }
            (freed, upto) = (freed + bytes, number_of(&key));
            batch.delete(Table::Events, key);
        }
        let count = batch.0.len();
        if count == 0 {
            return Ok(0);
        }
        let mut refusals = rows_of_refusals.as_ref().map(|_| self.refusals.lock());
        let mut state = self.state.lock();
        state.shrink(class, org, freed);
        if let Some(range) = state.ranges.get_mut(&(class, org)) {
            range.trimmed = range.trimmed.max(upto);
            range.skipped = upto;
        }
        state.put_sum(&mut batch, class, org);
        if let Err(error) = self.tables.submit(batch) {
            if let Some(range) = state.ranges.get_mut(&(class, org)) {
                range.bytes += freed;
                (range.trimmed, range.skipped) = (before.trimmed, before.skipped);
            }
            return Err(error);
        }
        if let Some(refusals) = &mut refusals {
            refusals.forget_rows(org, upto);
        }
        Ok(count)
    }

    /// Forgets ranges without rows, and organisations that were deleted and have none.
    fn forget_gone(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        let State { floor, ranges, gone, .. } = &mut *state;
        ranges.retain(|(class, org), range| {
            if range.bytes == 0 {
                batch.delete(Table::EventSums, sum_key(*class, *org));
                *floor = (*floor).max(range.trimmed);
            }
            range.bytes > 0
        });
        // Rows of the trail have their keys themselves.
        let shows_key = |(class, _): &&(Class, OrgId)| !Class::TRAIL.contains(class);
        let shown: HashSet<_> = ranges.keys().filter(shows_key).map(|(_, org)| *org).collect();
        let mut keys = self.keys.write();
        keys.retain(|org, _| !gone.contains_key(org) || shown.contains(org));
        drop(keys);
        // One that has others below it, which are gone too, shows to whom these belong.
        let needed: Vec<_> = gone.values().flatten().copied().collect();
        gone.retain(|org, _| {
            let has = |class: Class| ranges.contains_key(&(class, *org));
            let kept = needed.contains(org) || Class::ALL.into_iter().any(has);
            if !kept {
                batch.delete(Table::EventSums, gone_key(*org));
            }
            kept
        });
        if !batch.0.is_empty() {
            batch.put(Table::EventSums, FLOOR_KEY, floor.to_be_bytes());
        }
        self.tables.submit(batch).map(drop)
    }
}

/// The row of the first event of a store, which is made with its first records.
pub fn first_row(row: &Map<String, Value>) -> Change {
    let key = key(Class::Administration, SERVER, 1);
    Change::Put(Table::Events, key, encode(row))
}

/// Opens the log of events, if there is one.
fn open_log(path: Option<&Path>) -> Result<Option<EventLog>, LogError> {
    let Some(path) = path else { return Ok(None) };
    let opened = EventLog::open(path);
    opened.map(Some).map_err(|source| LogError { path: path.to_owned(), source })
}

fn key(class: Class, org: OrgId, number: u64) -> Vec<u8> {
    let mut key = sum_key(class, org);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The key of the sum of a class and organisation, with which the keys of its events begin.
fn sum_key(class: Class, org: OrgId) -> Vec<u8> {
    let mut key = vec![class.byte()];
    key.extend_from_slice(org.as_bytes());
    key
}

/// Where it is noted what was above an organisation that is gone.
fn gone_key(org: OrgId) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(org.as_bytes());
    key
}

/// The number in a key of [`Table::Events`].
fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests;
