//! A store in memory, for tests and for servers whose state need not survive them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Batch, Change, Room, Row, Store, StoreError, Table, check_keys, is_empty_range};

/// The rows of a table.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that forgets everything with the process.
#[derive(Default)]
pub struct MemoryStore {
    tables: RwLock<BTreeMap<Table, Rows>>,
    room: Arc<Room>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.read().get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        let tables = self.tables.read();
        let rows =
            tables.get(&table).into_iter().flat_map(|rows| rows.range::<[u8], _>((from, to)));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        let tables = self.tables.read();
        let rows = tables.get(&table).into_iter();
        let rows = rows.flat_map(|rows| rows.range::<[u8], _>((from, to)).rev());
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn months(&self) -> Vec<Table> {
        self.tables.read().keys().copied().filter(|table| table.month().is_some()).collect()
    }

    fn drop_month(&self, partition: Table) -> Result<(), StoreError> {
        self.tables.write().remove(&partition);
        Ok(())
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        check_keys(batches)?;
        let mut tables = self.tables.write();
        for change in batches.iter().flat_map(|batch| &batch.0) {
            match change {
                Change::Put(table, key, value) => {
                    tables.entry(*table).or_default().insert(key.clone(), value.clone());
                }
                Change::Delete(table, key) => {
                    tables.entry(*table).or_default().remove(key);
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    #[test]
    fn behaves_as_a_store() {
        suite::check_store(&MemoryStore::new());
    }

    #[test]
    fn agrees_with_the_model() {
        suite::check_against_model(64, &MemoryStore::new());
    }
}
