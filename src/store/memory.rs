//! State in memory, for tests and for what need not outlive the process.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::{Batch, Change, Row, Store, StoreError, Table, check_keys, is_empty_range};

/// A store that forgets everything with the process.
#[derive(Default)]
pub struct MemoryStore {
    tables: RwLock<[BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()]>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.read()[table as usize].get(key).cloned())
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
        let rows = tables[table as usize].range::<[u8], _>((from, to)).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        check_keys(batches)?;
        let mut tables = self.tables.write();
        for change in batches.iter().flat_map(|batch| &batch.0) {
            match change {
                Change::Put(table, key, value) => {
                    tables[*table as usize].insert(key.clone(), value.clone());
                }
                Change::Delete(table, key) => {
                    tables[*table as usize].remove(key);
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[test]
    fn behaves_as_a_store() {
        suite::check_store(&MemoryStore::new());
    }

    #[test]
    fn agrees_with_the_model() {
        suite::check_against_model(64, &MemoryStore::new());
    }
}
