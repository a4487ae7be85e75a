//! Records as rows: one JSON document in each.

use std::ops::Bound;

use base::yield_point;
use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Row, Store, StoreError, Table};

/// Rows read from the store at once when a whole table is read.
const PAGE_ROWS: usize = 4096;

/// A record's row value.
///
/// # Panics
///
/// A record has a map whose keys are not text; none has.
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have no map with keys that are not text")
}

/// The record in a row.
///
/// # Errors
///
/// It can't be read; the error names it.
pub fn decode<'v, T: Deserialize<'v>>(
    table: Table,
    key: &[u8],
    value: &'v [u8],
) -> Result<T, StoreError> {
    yield_point::pass();
    serde_json::from_slice(value).map_err(|source| StoreError::Record {
        table: table.name(),
        key: HEXLOWER.encode(key),
        source,
    })
}

/// Visits all rows of a table in the order of their keys.
///
/// # Errors
///
/// What the store or the visitor reports.
pub fn for_each_row(
    store: &dyn Store,
    table: Table,
    mut visit: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = store.scan(table, from, Bound::Unbounded, PAGE_ROWS)?;
        page.iter().try_for_each(&mut visit)?;
        match page.into_iter().last() {
            Some((key, _)) => after = Some(key),
            None => return Ok(()),
        }
    }
}

/// All records of a table, in the order of their keys.
///
/// # Errors
///
/// What the store reports, or a record that can't be read.
pub fn load_table<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
) -> Result<Vec<T>, StoreError> {
    let mut records = Vec::new();
    for_each_row(store, table, |(key, value)| {
        records.push(decode(table, key, value)?);
        Ok(())
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;
    use crate::memory::MemoryStore;

    #[test]
    fn tables_longer_than_a_page_are_read_whole() {
        let store = MemoryStore::new();
        let mut batch = Batch::default();
        let rows = 2 * PAGE_ROWS as u32 + 1;
        for row in 0..rows {
            batch.put(Table::ThingIds, row.to_be_bytes(), "");
        }
        store.commit(&[batch]).expect("commit");
        let mut seen = 0;
        for_each_row(&store, Table::ThingIds, |(key, _)| {
            assert_eq!(key[..], u32::to_be_bytes(seen));
            seen += 1;
            Ok(())
        })
        .expect("readable");
        assert_eq!(seen, rows);
    }
}
