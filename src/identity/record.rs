//! The records of identity in the store: one JSON document a row, by id.

use std::fmt::Write;
use std::ops::Bound;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ThingDef;
use super::model::{Application, Org, Role, User};
use crate::store::{Batch, Row, Store, StoreError, Table};

/// Rows read from the store at once when a whole table is read.
const PAGE_ROWS: usize = 4096;

/// Everyone but the things.
#[derive(Default, Debug)]
pub struct Records {
    pub orgs: Vec<Org>,
    pub roles: Vec<Role>,
    pub users: Vec<User>,
    pub applications: Vec<Application>,
    pub thing_defs: Vec<ThingDef>,
}

/// One of them.
#[derive(Clone, Debug)]
pub enum Record {
    /// An organisation.
    Org(Org),
    /// A role.
    Role(Role),
    /// A user.
    User(User),
    /// An application.
    Application(Application),
    /// A definition of things.
    ThingDef(ThingDef),
}

macro_rules! records {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Record {
            fn from(record: $kind) -> Self {
                Self::$kind(record)
            }
        }
    )*};
}

records!(Org, Role, User, Application, ThingDef);

impl Record {
    /// Adds its row to the batch.
    pub fn put(&self, batch: &mut Batch) {
        let (table, key) = self.row();
        let value = match self {
            Self::Org(record) => encode(record),
            Self::Role(record) => encode(record),
            Self::User(record) => encode(record),
            Self::Application(record) => encode(record),
            Self::ThingDef(record) => encode(record),
        };
        batch.put(table, key, value);
    }

    /// Adds the removal of its row to the batch.
    pub fn delete(&self, batch: &mut Batch) {
        let (table, key) = self.row();
        batch.delete(table, key);
    }

    fn row(&self) -> (Table, Vec<u8>) {
        match self {
            Self::Org(org) => (Table::Orgs, org.id.as_bytes().to_vec()),
            Self::Role(role) => (Table::Roles, role.id.as_bytes().to_vec()),
            Self::User(user) => (Table::Users, user.id.as_bytes().to_vec()),
            Self::Application(application) => {
                (Table::Applications, application.id.as_bytes().to_vec())
            }
            Self::ThingDef(def) => {
                (Table::ThingDefs, [*def.org.as_bytes(), *def.id.as_bytes()].concat())
            }
        }
    }
}

impl Records {
    /// Reads them all.
    pub fn load(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self {
            orgs: load_table(store, Table::Orgs)?,
            roles: load_table(store, Table::Roles)?,
            users: load_table(store, Table::Users)?,
            applications: load_table(store, Table::Applications)?,
            thing_defs: load_table(store, Table::ThingDefs)?,
        })
    }

    /// The batch that writes them all.
    pub fn to_batch(&self) -> Batch {
        let mut batch = Batch::default();
        self.orgs.iter().for_each(|org| Record::from(org.clone()).put(&mut batch));
        self.roles.iter().for_each(|role| Record::from(role.clone()).put(&mut batch));
        self.users.iter().for_each(|user| Record::from(user.clone()).put(&mut batch));
        for application in &self.applications {
            Record::from(application.clone()).put(&mut batch);
        }
        self.thing_defs.iter().for_each(|def| Record::from(def.clone()).put(&mut batch));
        batch
    }
}

/// A record's row value.
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have no map with keys that are not text")
}

/// The record in a row.
pub fn decode<T: DeserializeOwned>(
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|source| StoreError::Record {
        table: table.name(),
        key: key.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        source,
    })
}

/// Visits all rows of a table in the order of their keys.
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

fn load_table<T: DeserializeOwned>(store: &dyn Store, table: Table) -> Result<Vec<T>, StoreError> {
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
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_damaged_record_is_named() {
        let store = MemoryStore::new();
        let mut batch = Batch::default();
        batch.put(Table::Roles, [0xab; 12], "{");
        store.commit(&[batch]).expect("commit");
        let error = Records::load(&store).expect_err("damaged");
        let expected = "the record abababababababababababab in table roles can't be read";
        assert_eq!(error.to_string(), expected);
    }

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
