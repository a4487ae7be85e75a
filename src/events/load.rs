//! The start: what is known of the stream, read from the store without reading all events.

use std::ops::Bound;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::{OrgId, limits};
use parking_lot::{Mutex, RwLock};
use store::{Store, StoreError, Table, Tables};

use super::live::Ring;
use super::refusals::Counted;
use super::{
    Class, Events, EventsConfig, FLOOR_KEY, LogError, NUMBER_KEY, Range, State, number_of, sum_key,
};

/// Why the stream can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log can't be opened.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Events {
    /// The stream of a store: bytes are as they were summed up last, and only what came later is
    /// counted.
    ///
    /// # Errors
    ///
    /// The store failed, or the log can't be opened.
    pub fn open(
        tables: Tables,
        config: EventsConfig,
        pools: &Arc<Pools>,
    ) -> Result<Self, EventsError> {
        let log = super::open_log(config.log.as_deref())?;
        let state = Mutex::new(read(tables.store())?);
        let refusals = Mutex::new(Counted::new(pools));
        let usage = pools.usage(Pool::Trail).clone();
        usage.set_max(config.max_bytes);
        Ok(Self {
            tables,
            config,
            log,
            refusal_rows: Mutex::default(),
            refusals,
            usage,
            state,
            ring: Ring::default(),
            keys: RwLock::default(),
        })
    }
}

/// The value of a sum: bytes of all rows up to and with a number; then, which older stores have
/// not, the last number that was removed.
pub(super) fn sum(range: &Range, last: u64) -> Vec<u8> {
    [range.bytes, last, range.trimmed].map(u64::to_be_bytes).concat()
}

/// The value that says what was above an organisation that is gone.
pub(super) fn above(org: Option<OrgId>) -> Vec<u8> {
    org.map_or_else(Vec::new, |org| org.as_bytes().to_vec())
}

fn read(store: &dyn Store) -> Result<State, StoreError> {
    let mut state = State::default();
    let mut sums = std::collections::BTreeMap::new();
    store::rows::for_each_row(store, Table::EventSums, |(key, value)| {
        let Some((class, org)) = split(key) else { return Ok(()) };
        match Class::of_byte(class) {
            Some(class) => {
                let numbers = value.as_chunks::<8>().0;
                let number = |at: usize| numbers.get(at).map_or(0, |n| u64::from_be_bytes(*n));
                let (bytes, last, trimmed) = (number(0), number(1), number(2));
                let range = Range { bytes, last, trimmed, ..Range::default() };
                sums.insert((class, org), range);
            }
            None if class == 0 => {
                let above = value.first_chunk().map(|above| OrgId::from_bytes(*above));
                state.gone.insert(org, above);
            }
            None => {}
        }
        Ok(())
    })?;
    if let Some(last) = store.read(Table::EventSums, NUMBER_KEY)? {
        state.last = number_of(&last);
    }
    if let Some(floor) = store.read(Table::EventSums, FLOOR_KEY)? {
        state.floor = number_of(&floor);
    }
    let mut from = Vec::new();
    loop {
        // One row of each class and organisation, whatever it has.
        let start = if from.is_empty() { Bound::Unbounded } else { Bound::Excluded(&*from) };
        let rows = store.scan(Table::Events, start, Bound::Unbounded, 1)?;
        let Some((key, _)) = rows.first() else { break };
        let Some((class, org)) = split(key) else { break };
        if let Some(known) = Class::of_byte(class) {
            let summed = sums.get(&(known, org)).copied().unwrap_or_default();
            let range = counted(store, known, org, summed)?;
            state.last = state.last.max(range.last);
            state.ranges.insert((known, org), range);
        }
        from = key.get(..13).unwrap_or_default().to_vec();
        from.extend_from_slice(&[0xff; 8]);
    }
    Ok(state)
}

/// The sum with what came after it.
fn counted(
    store: &dyn Store,
    class: Class,
    org: OrgId,
    mut range: Range,
) -> Result<Range, StoreError> {
    let mut from = super::key(class, org, range.last);
    let mut end = sum_key(class, org);
    end.extend_from_slice(&[0xff; 8]);
    loop {
        let step = limits::EVENTS_TRIMMED_STEP;
        let rows =
            store.scan(Table::Events, Bound::Excluded(&from), Bound::Included(&end), step)?;
        let Some((last, _)) = rows.last() else { return Ok(range) };
        (range.last, range.stale) = (number_of(last), true);
        from = last.clone();
        range.bytes +=
            rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
    }
}

/// Class and organisation with which a key begins.
fn split(key: &[u8]) -> Option<(u8, OrgId)> {
    let (class, rest) = key.split_first()?;
    Some((*class, OrgId::from_bytes(*rest.first_chunk()?)))
}
