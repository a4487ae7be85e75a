//! Reading the stream: pages of events in the order of their numbers, of whatever classes and
//! organisations.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;
use std::vec::IntoIter;

use base::{OrgId, limits};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use store::{Row, StoreError, Table, rows::decode};

use super::filter::merged;
use super::{Class, Events, Live, SERVER, Seen, key, number_of};

/// Which events are wanted.
#[derive(Clone)]
pub struct Query<'a> {
    /// Those behind this number.
    pub after: u64,
    /// Those before this number.
    pub before: u64,
    /// In which order.
    pub order: Order,
    /// Of which classes.
    pub classes: &'a [Class],
    /// Of which organisations.
    pub sees: &'a dyn Fn(OrgId) -> bool,
}

/// The order of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The newest first.
    NewestFirst,
    /// The oldest first, as one follows the stream.
    OldestFirst,
}

/// An event as it is read.
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// Its members, with number, class and organisation.
    pub row: Map<String, Value>,
}

/// What an organisation sees of an event, as it is stored.
pub(super) struct FoundRow {
    pub(super) class: Class,
    pub(super) org: OrgId,
    key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// How far a reader got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// If there may be more: with this `before`, or `after` in the other order, it goes on.
    pub next: Option<u64>,
    /// Whether it stopped because it had looked at as many as it may.
    pub truncated: bool,
}

/// Rows that are read at once of a class and organisation.
const CHUNK: usize = 64;

/// The rows of one class and organisation.
struct Cursor {
    class: Class,
    org: OrgId,
    /// The number of the next row; of one that is not read yet, the first that it can have.
    at: u64,
    front: Option<Row>,
    rows: IntoIter<Row>,
}

impl Query<'_> {
    /// Numbers that come earlier have smaller ranks.
    const fn rank(&self, number: u64) -> u64 {
        match self.order {
            Order::NewestFirst => u64::MAX - number,
            Order::OldestFirst => number,
        }
    }

    /// What is wanted of an event in memory.
    fn seen(&self, live: &Live) -> Option<Arc<Seen>> {
        let is_wanted = live.rows().iter().any(|row| self.classes.contains(&row.class));
        if is_wanted { live.seen(self.sees) } else { None }
    }

    /// Where to go on behind this number.
    const fn behind(&self, number: u64) -> u64 {
        match self.order {
            Order::NewestFirst => number.saturating_sub(1),
            Order::OldestFirst => number.saturating_add(1),
        }
    }
}

impl Events {
    /// Visits events in their order until `visit` says that it has enough, or too many were looked
    /// at. What several organisations see of one event is one entry.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub fn read(
        &self,
        query: &Query<'_>,
        mut visit: impl FnMut(Entry) -> bool,
    ) -> Result<Page, StoreError> {
        let mut failed = None;
        let page = self.read_rows(query, |number, rows| {
            let mut decoded = rows.iter().map(|row| read_row(row, number));
            let merged = decoded.try_fold(None, |all: Option<Map<_, _>>, row| {
                let row = row?;
                Ok::<_, StoreError>(Some(match all {
                    Some(mut all) => {
                        merge(&mut all, row);
                        all
                    }
                    None => row,
                }))
            });
            match merged {
                Ok(Some(row)) => visit(Entry { number, row }),
                Ok(None) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(page), Err)
    }

    /// The same as readers of all types get them; an event that can't be read is left out.
    ///
    /// # Errors
    ///
    /// The store failed, for `visit` or here.
    pub fn read_seen(
        &self,
        query: &Query<'_>,
        mut visit: impl FnMut(Arc<Seen>) -> Result<bool, StoreError>,
    ) -> Result<Page, StoreError> {
        let mut query = query.clone();
        if let Some(page) = self.read_live(&mut query, &mut visit)? {
            return Ok(page);
        }
        let mut failed = None;
        let page = self.read_rows(&query, |number, rows| {
            let seen =
                rows.iter().filter_map(|row| self.seen((row.class, row.org), number, &row.value));
            let Some(seen) = merged(seen.map(Arc::new).collect()) else { return true };
            visit(seen).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        })?;
        failed.map_or(Ok(page), Err)
    }

    /// The same of what is in memory; none if something of the rest is not, which is behind
    /// `query.after` then. A refusal may have been counted further since: the disk knows.
    fn read_live(
        &self,
        query: &mut Query<'_>,
        visit: &mut impl FnMut(Arc<Seen>) -> Result<bool, StoreError>,
    ) -> Result<Option<Page>, StoreError> {
        if query.order == Order::NewestFirst {
            return Ok(None);
        }
        let (mut looked, mut enough) = (0, None::<u64>);
        let end = |next| Ok(Some(Page { next, truncated: false }));
        loop {
            let Some(live) = self.live_after(query.after, limits::EVENTS_AT_ONCE) else {
                return if enough.is_some() { end(enough) } else { Ok(None) };
            };
            let is_last = live.len() < limits::EVENTS_AT_ONCE;
            for event in live {
                if event.number() >= query.before {
                    return end(None);
                }
                match (query.seen(&event), enough) {
                    // Where it goes on is said only if it does.
                    (Some(_), Some(last)) => return end(Some(last)),
                    (Some(seen), None) if seen.class == Class::Refusals => return Ok(None),
                    (Some(seen), None) => {
                        enough = (!visit(seen)?).then_some(event.number());
                    }
                    (None, _) => {}
                }
                query.after = event.number();
                looked += 1;
                if looked == limits::EVENTS_LOOKED_AT_MAX {
                    let next = enough.or(Some(query.after));
                    return Ok(Some(Page { next, truncated: enough.is_none() }));
                }
            }
            if is_last {
                return end(None);
            }
        }
    }

    /// The same with the rows as they are, one for each organisation that sees the event.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub(super) fn read_rows(
        &self,
        query: &Query<'_>,
        mut visit: impl FnMut(u64, &[FoundRow]) -> bool,
    ) -> Result<Page, StoreError> {
        let mut cursors = self.cursors(query);
        let ranked = |(index, cursor): (usize, &Cursor)| Reverse((query.rank(cursor.at), index));
        let mut heap: BinaryHeap<_> = cursors.iter().enumerate().map(ranked).collect();
        // The first look of each is none: else a page of many organisations would never end.
        let most = limits::EVENTS_LOOKED_AT_MAX + cursors.len();
        let mut looked = 0;
        let (mut current, mut rows) = (None::<u64>, SmallVec::<[FoundRow; 1]>::new());
        while let Some(Reverse((_, index))) = heap.pop() {
            let Some(cursor) = cursors.get_mut(index) else { continue };
            // Whatever comes now is behind the one that was put together.
            if let Some(number) = current.take_if(|number| *number != cursor.at) {
                let goes_on = visit(number, &rows);
                rows.clear();
                if !goes_on {
                    return Ok(Page { next: Some(number), truncated: false });
                }
            }
            if looked >= most && current.is_none() {
                // Behind what is just before it.
                let next = match query.order {
                    Order::NewestFirst => cursor.at.saturating_add(1),
                    Order::OldestFirst => cursor.at.saturating_sub(1),
                };
                return Ok(Page { next: Some(next), truncated: true });
            }
            looked += 1;
            match cursor.front.take() {
                None => self.read_on(query, cursor)?,
                Some((key, value)) => {
                    current = Some(cursor.at);
                    rows.push(FoundRow { class: cursor.class, org: cursor.org, key, value });
                    cursor.front = cursor.rows.next();
                    cursor.at = match &cursor.front {
                        Some((key, _)) => number_of(key),
                        None => query.behind(cursor.at),
                    };
                }
            }
            let is_over = cursor.at <= query.after || cursor.at >= query.before;
            if !is_over {
                heap.push(Reverse((query.rank(cursor.at), index)));
            }
        }
        if let Some(number) = current {
            visit(number, &rows);
        }
        Ok(Page { next: None, truncated: false })
    }

    /// A cursor for everything that may have wanted events.
    fn cursors(&self, query: &Query<'_>) -> Vec<Cursor> {
        // Who is asked what they see may ask the stream in turn.
        let ranges = self.state.lock().ranges.clone();
        let mut cursors = Vec::new();
        for ((class, org), range) in ranges {
            let at = match query.order {
                Order::NewestFirst => range.last.min(query.before.saturating_sub(1)),
                Order::OldestFirst => query.after.saturating_add(1),
            };
            let may_have = range.bytes > 0 && range.last > query.after && at > query.after;
            if may_have && query.classes.contains(&class) && (query.sees)(org) {
                let rows = Vec::new().into_iter();
                cursors.push(Cursor { class, org, at, front: None, rows });
            }
        }
        cursors
    }

    /// Reads rows from where the cursor is; one that has no more is over.
    fn read_on(&self, query: &Query<'_>, cursor: &mut Cursor) -> Result<(), StoreError> {
        let key = |number| key(cursor.class, cursor.org, number);
        let at = key(cursor.at);
        let rows = match query.order {
            Order::NewestFirst => {
                let end = key(query.after);
                let (from, to) = (Bound::Excluded(&*end), Bound::Included(&*at));
                self.tables.scan_back(Table::Events, from, to, CHUNK)?
            }
            Order::OldestFirst => {
                let end = key(query.before);
                let (from, to) = (Bound::Included(&*at), Bound::Excluded(&*end));
                self.tables.scan(Table::Events, from, to, CHUNK)?
            }
        };
        cursor.rows = rows.into_iter();
        cursor.front = cursor.rows.next();
        cursor.at = match (&cursor.front, query.order) {
            (Some((key, _)), _) => number_of(key),
            (None, Order::NewestFirst) => 0,
            (None, Order::OldestFirst) => u64::MAX,
        };
        Ok(())
    }
}

fn read_row(found: &FoundRow, number: u64) -> Result<Map<String, Value>, StoreError> {
    let mut row = decode(Table::Events, &found.key, &found.value)?;
    complete(&mut row, found.class, found.org, number);
    Ok(row)
}

/// Adds what is in the key of a row.
fn complete(row: &mut Map<String, Value>, class: Class, org: OrgId, number: u64) {
    row.insert("number".to_owned(), number.into());
    row.insert("class".to_owned(), class.as_str().into());
    if org != SERVER {
        row.insert("orgId".to_owned(), org.to_string().into());
    }
}

/// Adds what others see of the same event: members that are missing, in objects too.
pub(super) fn merge(row: &mut Map<String, Value>, other: Map<String, Value>) {
    for (name, value) in other {
        match (row.get_mut(&name), value) {
            (Some(Value::Object(inner)), Value::Object(other)) => merge(inner, other),
            (Some(_), _) => {}
            (None, value) => drop(row.insert(name, value)),
        }
    }
}
