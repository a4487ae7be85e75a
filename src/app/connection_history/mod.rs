//! The connection history: every session that has ended, on disk by months, by which one can say who
//! was connected at a time (`as_of.rs`), and how many were, hour by hour (`usage.rs`). See
//! `docs/decisions/0016-connection-history.md`.
//!
//! A session's row is in the batch of its end. For the memory of ended sessions there is only the key
//! of that row beside it. Where a function returns a [`StoreError`], the store failed.

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{OrgId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::record::SessionRecord;
use rules::directory::{Event, Session, Stay};
use store::{Batch, Month, Receipt, Store, StoreError, Table, Tables};

mod as_of;
mod row;
mod usage;

pub use as_of::{AsOf, Then};
pub use usage::{Series, Unit, UsageQuery};

pub(super) use row::table;

use usage::Usage;

/// Where the time is, in [`Table::Meta`], since when ends of sessions are kept.
const SINCE_KEY: &[u8] = b"connections-since";

/// The connection history.
pub(super) struct ConnectionHistory {
    tables: Tables,
    /// 0: none is kept.
    days: u32,
    /// Whoever ended before has no row.
    since: Timestamp,
    state: Mutex<State>,
    usage: Mutex<Usage>,
}

/// How many rows there are.
struct State {
    /// By organisation: of the principals in it none has a share of its own.
    shares: Shares<()>,
    counts: HashMap<(Month, OrgId), Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    rows: u64,
    /// Rows of sessions that ended until then are removed, or some of them.
    removed: Option<Timestamp>,
    /// Whether it is not stored like this.
    stale: bool,
}

impl Count {
    fn to_row(self) -> Vec<u8> {
        let removed = self.removed.map_or(i64::MIN, Timestamp::as_millis);
        [self.rows.to_be_bytes(), removed.to_be_bytes()].concat()
    }

    fn from_row(row: &[u8]) -> Option<Self> {
        let (rows, removed) = row.split_first_chunk::<8>()?;
        let removed = i64::from_be_bytes(*removed.first_chunk()?);
        let removed = (removed != i64::MIN).then(|| Timestamp::from_millis(removed));
        Some(Self { rows: u64::from_be_bytes(*rows), removed, stale: false })
    }
}

impl ConnectionHistory {
    /// The history of a store, which is kept for so many days, with so many rows at most.
    pub(super) fn open(
        tables: Tables,
        (days, max): (u32, u64),
        pools: &Arc<Pools>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut shares = Shares::new(Pool::ConnectionHistory, max, pools);
        let mut counts = HashMap::new();
        for month in tables.connection_months() {
            let table = Table::Connections(month);
            for (key, row) in tables.scan_prefix(table, &[row::COUNT], None, usize::MAX)? {
                let org = key.get(1..).and_then(<[u8]>::first_chunk).copied();
                if let (Some(org), Some(count)) = (org, Count::from_row(&row)) {
                    let org = OrgId::from_bytes(org);
                    shares.hold(org, (), count.rows);
                    counts.insert((month, org), count);
                }
            }
        }
        let since = since(tables.store(), days > 0, now)?;
        let (state, usage) = (Mutex::new(State { shares, counts }), Mutex::new(Usage::new(now)));
        Ok(Self { tables, days, since, state, usage })
    }

    /// Whether ended sessions are kept.
    pub(super) const fn is_kept(&self) -> bool {
        self.days > 0
    }

    /// Adds the row of a session that has ended; its key.
    ///
    /// # Errors
    ///
    /// The session can't be written as a record; none of ours can't.
    pub(super) fn put(&self, batch: &mut Batch, session: &Session) -> Result<Vec<u8>, StoreError> {
        let stay = stay_of(session);
        let record = SessionRecord::of(session);
        put_row(batch, session, stay, &record)
    }

    /// Adds the row of a session's time in an organisation that it has left.
    ///
    /// # Errors
    ///
    /// As [`ConnectionHistory::put`].
    pub(super) fn put_left(
        &self,
        batch: &mut Batch,
        session: &Session,
        stay: Stay,
    ) -> Result<(), StoreError> {
        if self.is_kept() {
            put_row(batch, session, stay, &SessionRecord::of_stay(session, stay))?;
        }
        Ok(())
    }

    /// Counts the rows of events that the store has taken.
    pub(super) fn count(&self, events: &[Event], has_row: impl Fn(&Session) -> bool) {
        if !self.is_kept() {
            return;
        }
        let mut state = None;
        for event in events {
            let stay = match event {
                Event::Ended(session, _) if has_row(session) => stay_of(session),
                Event::Switched(_, Some(left)) => *left,
                _ => continue,
            };
            state.get_or_insert_with(|| self.state.lock()).count(stay);
        }
    }

    /// Counts the row of a session that ended with the server.
    pub(super) fn count_ended(&self, session: &Session) {
        if self.is_kept() {
            self.state.lock().count(stay_of(session));
        }
    }

    /// Stores what is counted, and removes some of what is too much or whose organisation is gone; it
    /// reads the disk. None when there is nothing to remove.
    pub(super) fn keep(
        &self,
        exists: impl Fn(OrgId) -> bool,
    ) -> Result<Option<Receipt>, StoreError> {
        self.store_counts()?;
        let (gone, excess) = {
            let state = self.state.lock();
            let gone = state.counts.iter().find(|((_, org), c)| c.rows > 0 && !exists(*org));
            let over = state.shares.held().saturating_sub(state.shares.max());
            let most = state.shares.most().filter(|_| over > 0);
            (gone.map(|((_, org), _)| *org), most.map(|(org, ())| (org, over)))
        };
        let step = limits::CONNECTIONS_TRIMMED_STEP;
        match (gone, excess) {
            (Some(org), _) => self.remove_oldest(org, step, false).map(Some),
            (None, Some((org, over))) => {
                let step = usize::try_from(over).unwrap_or(step).min(step);
                self.remove_oldest(org, step, true).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// Stores how many rows there are.
    pub(super) fn store_counts(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        for ((month, org), count) in state.counts.iter_mut().filter(|(_, c)| c.stale) {
            count.stale = false;
            batch.put(Table::Connections(*month), row::count_key(*org), count.to_row());
        }
        match batch.0.is_empty() {
            true => Ok(()),
            false => self.tables.submit(batch).map(drop),
        }
    }

    /// Removes the oldest rows of an organisation: those with the earliest ends.
    fn remove_oldest(&self, org: OrgId, step: usize, evicts: bool) -> Result<Receipt, StoreError> {
        for month in self.tables.connection_months() {
            let table = Table::Connections(month);
            let mut found = Vec::new();
            for class in 0..row::CLASSES {
                found.extend(self.tables.scan_prefix(
                    table,
                    &row::prefix(org, class),
                    None,
                    step,
                )?);
            }
            let mut keys: Vec<_> = found
                .into_iter()
                .filter_map(|(key, _)| Some((row::read_key(&key)?.until, key)))
                .collect();
            keys.sort_unstable();
            keys.truncate(step);
            let mut batch = Batch::default();
            let (last, count) = (keys.last().map(|(until, _)| *until), keys.len() as u64);
            keys.into_iter().for_each(|(_, key)| batch.delete(table, key));
            let receipt = self.tables.submit(batch)?;
            self.state.lock().remove(month, org, last, count, evicts);
            if count > 0 {
                return Ok(receipt);
            }
        }
        Ok(Receipt::nothing())
    }

    /// Drops the months that are too old. Returns how many.
    pub(super) fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        let oldest = self.kept_from(now).month();
        let mut dropped = 0;
        for month in self.tables.connection_months() {
            if i64::from(month.0) >= oldest {
                continue;
            }
            {
                let mut state = self.state.lock();
                let orgs: Vec<_> = state
                    .counts
                    .keys()
                    .filter(|(of, _)| *of == month)
                    .map(|(_, org)| *org)
                    .collect();
                for org in orgs {
                    if let Some(count) = state.counts.remove(&(month, org)) {
                        state.shares.give_back(org, (), count.rows);
                    }
                }
            }
            self.tables.store().drop_month(Table::Connections(month))?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// From when on the history is whole.
    fn kept_from(&self, now: Timestamp) -> Timestamp {
        now.plus_millis(-i64::from(self.days) * 86_400_000)
    }
}

impl State {
    fn count(&mut self, stay: Stay) {
        self.shares.hold(stay.org, (), 1);
        let count = self.counts.entry((row::month(stay.until), stay.org)).or_default();
        (count.rows, count.stale) = (count.rows + 1, true);
    }

    /// Notes what was removed. None is there any more if nothing was found.
    fn remove(
        &mut self,
        month: Month,
        org: OrgId,
        last: Option<Timestamp>,
        removed: u64,
        evicts: bool,
    ) {
        let Some(count) = self.counts.get_mut(&(month, org)) else { return };
        let gone = if removed == 0 { count.rows } else { removed.min(count.rows) };
        count.rows -= gone;
        count.removed = count.removed.max(last);
        count.stale = true;
        if evicts { self.shares.evict(org, (), gone) } else { self.shares.give_back(org, (), gone) }
    }

    /// The last end of what was removed of an organisation.
    fn removed(&self, org: OrgId) -> Option<Timestamp> {
        let counts = self.counts.iter().filter(|((_, of), _)| *of == org);
        counts.filter_map(|(_, count)| count.removed).max()
    }
}

/// The time of a session in the organisation where it ended.
fn stay_of(session: &Session) -> Stay {
    let until = session.end().map_or(Timestamp::NEVER, |end| end.at);
    session.with_context(|context| Stay { org: context.access.org.id, since: context.since, until })
}

fn put_row(
    batch: &mut Batch,
    session: &Session,
    stay: Stay,
    record: &SessionRecord,
) -> Result<Vec<u8>, StoreError> {
    let key = row::stay_key(stay, session.reference(), session.started());
    let table = row::table(stay.until);
    let value = serde_json::to_vec(record).map_err(|source| StoreError::Record {
        table: table.name(),
        key: session.reference().to_string(),
        source,
    })?;
    batch.put(table, key.clone(), value);
    Ok(key)
}

/// Since when ends are kept; noted with the first start that keeps them, and forgotten by one that
/// does not.
fn since(store: &dyn Store, is_kept: bool, now: Timestamp) -> Result<Timestamp, StoreError> {
    let noted = store.read(Table::Meta, SINCE_KEY)?;
    let noted = noted.as_deref().and_then(<[u8]>::first_chunk).copied();
    let mut batch = Batch::default();
    match (noted, is_kept) {
        (Some(bytes), true) => return Ok(Timestamp::from_millis(i64::from_be_bytes(bytes))),
        (Some(_), false) => batch.delete(Table::Meta, SINCE_KEY),
        (None, true) => batch.put(Table::Meta, SINCE_KEY, now.as_millis().to_be_bytes()),
        (None, false) => return Ok(now),
    }
    store.commit(&[batch])?;
    Ok(now)
}
