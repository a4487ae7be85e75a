//! Things in the store: by key, by id, in pages.

use std::collections::HashMap;
use std::ops::Bound;

use super::Identity;
use super::model::Thing;
use super::record::{decode, encode, for_each_row};
use crate::id::{OrgId, ThingId, ThingKey};
use crate::store::{Batch, Row, Store, StoreError, Table};

/// Rows read at once on the way to a page: a few hundred kilobytes.
const SKIP_ROWS: usize = 1000;

/// Reads of things. All of them access the disk.
impl Identity {
    /// The thing with this key in the organisation.
    ///
    /// # Errors
    /// What the store reports.
    pub fn thing(&self, org: OrgId, key: &ThingKey) -> Result<Option<Thing>, StoreError> {
        let row = thing_row(org, key.as_str().as_bytes());
        let value = self.store.read(Table::Things, &row)?;
        value.map(|value| decode(Table::Things, &row, &value)).transpose()
    }

    /// The thing with this id in the organisation.
    ///
    /// # Errors
    /// What the store reports.
    pub fn thing_by_id(&self, org: OrgId, id: ThingId) -> Result<Option<Thing>, StoreError> {
        let Some(key) = self.store.read(Table::ThingIds, &id_row(org, id))? else {
            return Ok(None);
        };
        let row = thing_row(org, &key);
        let value = self.store.read(Table::Things, &row)?;
        value.map(|value| decode(Table::Things, &row, &value)).transpose()
    }

    /// At most `limit` things of the organisation, ordered by key, after the first `offset`.
    ///
    /// # Errors
    /// What the store reports.
    pub fn things(
        &self,
        org: OrgId,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Thing>, StoreError> {
        if self.count_things(org) <= offset as u64 {
            return Ok(Vec::new());
        }
        let (mut after, mut skip) = (thing_row(org, &[]), offset);
        while skip > 0 {
            let rows = self.thing_rows(org, &after, skip.min(SKIP_ROWS))?;
            skip -= rows.len();
            let Some((last, _)) = rows.into_iter().next_back() else { return Ok(Vec::new()) };
            after = last;
        }
        let rows = self.thing_rows(org, &after, limit)?;
        rows.iter().map(|(key, value)| decode(Table::Things, key, value)).collect()
    }

    fn thing_rows(&self, org: OrgId, after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        // Keys are UTF-8, which has no byte 0xff: this row is behind all of the organisation.
        let end = thing_row(org, &[0xff]);
        let (from, to) = (Bound::Excluded(after), Bound::Excluded(&end[..]));
        self.store.scan(Table::Things, from, to, limit)
    }

    /// How many things the organisation has. Counted when the program starts and with every
    /// registration; it does not touch the disk.
    pub fn count_things(&self, org: OrgId) -> u64 {
        self.thing_counts.lock().get(&org).copied().unwrap_or(0)
    }
}

/// Counts the things of every organisation, once, by reading the index of ids.
pub fn count_all(store: &dyn Store) -> Result<HashMap<OrgId, u64>, StoreError> {
    let mut counts = HashMap::new();
    for_each_row(store, Table::ThingIds, |(row, _)| {
        if let Some(org) = row.first_chunk::<12>() {
            *counts.entry(OrgId::from_bytes(*org)).or_insert(0) += 1;
        }
        Ok(())
    })?;
    Ok(counts)
}

/// Adds a thing's rows to the batch, its index too.
pub fn put_thing(batch: &mut Batch, thing: &Thing) {
    let key = thing.key.as_str().as_bytes();
    batch.put(Table::Things, thing_row(thing.org, key), encode(thing));
    batch.put(Table::ThingIds, id_row(thing.org, thing.id), key);
}

fn thing_row(org: OrgId, key: &[u8]) -> Vec<u8> {
    [org.as_bytes(), key].concat()
}

fn id_row(org: OrgId, id: ThingId) -> Vec<u8> {
    [*org.as_bytes(), *id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{NOW, demo};
    use super::*;

    #[test]
    fn things_are_read_by_key_by_id_and_in_pages_of_their_organisation() {
        let (identity, store) = demo();
        let orgs = identity.orgs();
        let (one, other) = (orgs[0].id, orgs[1].id);
        let mut batch = Batch::default();
        for number in 0..7_u8 {
            let thing = Thing {
                id: ThingId::from_bytes([number; 12]),
                org: if number == 6 { other } else { one },
                key: ThingKey::parse(&format!("mower-{number}")).expect("a key"),
                name: String::new(),
                def: None,
                tags: Vec::new(),
                app_id: String::new(),
                created_on: NOW,
                created_by: "admin@devicewise.com".into(),
            };
            put_thing(&mut batch, &thing);
        }
        store.commit(&[batch]).expect("commit");

        let key = ThingKey::parse("mower-3").expect("a key");
        let thing = identity.thing(one, &key).expect("read").expect("there");
        assert_eq!(thing.id, ThingId::from_bytes([3; 12]));
        assert_eq!(identity.thing_by_id(one, thing.id).expect("read"), Some(thing.clone()));
        assert_eq!(identity.thing(other, &key).expect("read"), None);
        assert_eq!(identity.thing_by_id(other, thing.id).expect("read"), None);

        assert_eq!(identity.count_things(one), 0, "not registered by this program");
        let nowhere = Path::new("/nowhere");
        let again = Identity::open(store, Some(nowhere), NOW, &mut |_| ()).expect("loads");
        assert_eq!((again.count_things(one), again.count_things(other)), (6, 1));

        let page = |offset, limit| -> Vec<u8> {
            let things = again.things(one, offset, limit).expect("read");
            things.iter().map(|thing| thing.id.as_bytes()[0]).collect()
        };
        assert_eq!(page(0, 3), [0, 1, 2]);
        assert_eq!(page(4, 10), [4, 5]);
        assert_eq!(page(6, 10), [0_u8; 0]);
        assert_eq!(page(usize::MAX, 10), [0_u8; 0]);
    }
}
