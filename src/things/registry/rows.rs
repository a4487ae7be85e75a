//! Things in the store: by key, by id, in pages.

use std::ops::Bound;

use base::{OrgId, ThingDefId, ThingId, ThingKey, Timestamp};
use rules::directory::{Reason, Who};
use serde::Deserialize;
use store::{
    Batch, Exclusive, Row, Store, StoreError, Table,
    rows::{decode, encode, for_each_row},
};

use super::{Alias, Thing, Things};
use crate::things::{Maker, Payer};

/// Rows read at once on the way to a page: a few hundred kilobytes.
const SKIP_ROWS: usize = 1000;

/// Reads of things. All of them access the disk.
impl Things {
    /// The thing with this key in the organisation.
    pub fn get(&self, org: OrgId, key: &ThingKey) -> Result<Option<Thing>, StoreError> {
        self.at(&thing_row(org, key.as_str().as_bytes()))
    }

    /// The thing with this id in the organisation.
    pub fn by_id(&self, org: OrgId, id: ThingId) -> Result<Option<Thing>, StoreError> {
        match self.tables.read(Table::ThingIds, &id_row(org, id))? {
            Some(key) => self.at(&thing_row(org, &key)),
            None => Ok(None),
        }
    }

    /// Why the thing of a session is not welcome, if it is not: it is disabled, or gone. Users have
    /// none.
    pub fn unwelcome(&self, who: &Who, now: Timestamp) -> Result<Option<Reason>, StoreError> {
        let Who::Application { application, thing_id, thing_key } = who else { return Ok(None) };
        let found = self.get(application.org, thing_key)?;
        Ok(match found.filter(|thing| thing.id == *thing_id) {
            Some(thing) if thing.ban.is_banned(now) => Some(Reason::Banned),
            Some(_) => None,
            None => Some(Reason::Revoked),
        })
    }

    /// Whether there is a thing with this id in the organisation.
    pub fn has(&self, org: OrgId, id: ThingId) -> Result<bool, StoreError> {
        Ok(self.tables.read(Table::ThingIds, &id_row(org, id))?.is_some())
    }

    /// Whose share the series of a thing are, or, without one, those of the organisation.
    pub fn payer(&self, org: OrgId, thing: Option<ThingId>) -> Result<Payer, StoreError> {
        let thing = thing.map(|id| self.by_id(org, id)).transpose()?.flatten();
        Ok(thing.map_or((org, None), |thing| thing.payer()))
    }

    /// The thing with this identifier in the organisation.
    pub fn by_alias(
        &self,
        org: OrgId,
        alias: Alias,
        value: &str,
    ) -> Result<Option<Thing>, StoreError> {
        match self.tables.read(Table::ThingAliases, &alias_row(org, alias, value))? {
            Some(key) => self.at(&thing_row(org, &key)),
            None => Ok(None),
        }
    }

    /// Ids and keys of the things that are bound to this one, at most `limit`.
    pub fn children(
        &self,
        parent: ThingId,
        limit: usize,
    ) -> Result<Vec<(ThingId, ThingKey)>, StoreError> {
        self.children_after(parent, None, limit)
    }

    /// The same, after this one: they are ordered by id.
    pub fn children_after(
        &self,
        parent: ThingId,
        after: Option<ThingId>,
        limit: usize,
    ) -> Result<Vec<(ThingId, ThingKey)>, StoreError> {
        let after = after.map(|after| child_row(parent, after));
        let after = after.as_ref().map(|row| &row[..]);
        let rows = self.tables.scan_prefix(Table::Children, parent.as_bytes(), after, limit)?;
        let child = |(row, key): Row| {
            let id = row.last_chunk::<12>().map(|id| ThingId::from_bytes(*id))?;
            Some((id, ThingKey::parse(std::str::from_utf8(&key).ok()?).ok()?))
        };
        Ok(rows.into_iter().filter_map(child).collect())
    }

    /// Whether a thing has this definition. One that registers in this very moment may be missed,
    /// and be left with the id of a definition that is gone, which is as good as none.
    pub fn is_used(&self, def: ThingDefId) -> Result<bool, StoreError> {
        let rows = self.tables.scan_prefix(Table::ThingsOfDef, def.as_bytes(), None, 1)?;
        Ok(!rows.is_empty())
    }

    fn at(&self, row: &[u8]) -> Result<Option<Thing>, StoreError> {
        let value = self.tables.read(Table::Things, row)?;
        value.map(|value| decode(Table::Things, row, &value)).transpose()
    }

    /// At most `limit` things of the organisation, ordered by key, after the first `offset`.
    pub fn page(&self, org: OrgId, offset: usize, limit: usize) -> Result<Vec<Thing>, StoreError> {
        if self.count(org) <= offset as u64 {
            return Ok(Vec::new());
        }
        let (mut after, mut skip) = (thing_row(org, &[]), offset);
        while skip > 0 {
            let rows = self.rows(org, &after, skip.min(SKIP_ROWS))?;
            skip -= rows.len();
            let Some((last, _)) = rows.into_iter().next_back() else { return Ok(Vec::new()) };
            after = last;
        }
        let rows = self.rows(org, &after, limit)?;
        rows.iter().map(|(key, value)| decode(Table::Things, key, value)).collect()
    }

    /// At most `limit` things of the organisation, ordered by key, after the one with this key.
    pub fn page_after(
        &self,
        org: OrgId,
        after: Option<&ThingKey>,
        limit: usize,
    ) -> Result<Vec<Thing>, StoreError> {
        let after = after.map_or("", ThingKey::as_str);
        let rows = self.rows(org, &thing_row(org, after.as_bytes()), limit)?;
        rows.iter().map(|(key, value)| decode(Table::Things, key, value)).collect()
    }

    /// At most `limit` things of the organisation whose keys begin so, ordered by key, after the one
    /// with this key.
    pub fn page_with_prefix(
        &self,
        org: OrgId,
        prefix: &str,
        after: Option<&ThingKey>,
        limit: usize,
    ) -> Result<Vec<Thing>, StoreError> {
        let start = thing_row(org, prefix.as_bytes());
        let after = after.map(|after| thing_row(org, after.as_str().as_bytes()));
        let from = match &after {
            Some(after) if *after >= start => Bound::Excluded(&after[..]),
            _ => Bound::Included(&start[..]),
        };
        // Keys are UTF-8, which has no byte 0xff.
        let end = [&start[..], &[0xff]].concat();
        let rows = self.tables.scan(Table::Things, from, Bound::Excluded(&end[..]), limit)?;
        rows.iter().map(|(key, value)| decode(Table::Things, key, value)).collect()
    }

    /// The keys of at most `limit` things that have this definition, in whatever organisations.
    pub fn keys_of_def(&self, def: ThingDefId, limit: usize) -> Result<Vec<ThingKey>, StoreError> {
        let rows = self.tables.scan_prefix(Table::ThingsOfDef, def.as_bytes(), None, limit)?;
        let key = |(_, key): Row| ThingKey::parse(std::str::from_utf8(&key).ok()?).ok();
        Ok(rows.into_iter().filter_map(key).collect())
    }

    fn rows(&self, org: OrgId, after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        // Keys are UTF-8, which has no byte 0xff: this row is behind all of the organisation.
        let end = thing_row(org, &[0xff]);
        let (from, to) = (Bound::Excluded(after), Bound::Excluded(&end[..]));
        self.tables.scan(Table::Things, from, to, limit)
    }

    /// How many things the organisation has. It does not touch the disk.
    pub fn count(&self, org: OrgId) -> u64 {
        self.tally.of(org)
    }
}

/// Says of every thing whose share it is.
pub(super) fn for_each_payer(
    store: &dyn Store,
    visit: &mut dyn FnMut(Payer),
) -> Result<(), StoreError> {
    /// As far as is needed.
    #[derive(Deserialize)]
    struct Whose {
        org: OrgId,
        #[serde(default)]
        maker: Maker,
    }
    for_each_row(store, Table::Things, |(key, value)| {
        let Whose { org, maker } = decode(Table::Things, key, value)?;
        visit((org, maker));
        Ok(())
    })
}

/// Changes of things. Who changes one holds `Things::lock` from its reading on.
impl Things {
    /// Keeps others from changing the thing with this key, and from making one.
    pub(super) fn lock(&self, org: OrgId, key: &ThingKey) -> Exclusive<'_> {
        self.tables.exclusive(&thing_row(org, key.as_str().as_bytes()))
    }

    /// Adds the rows of a thing to the batch, its indexes too; `before` is what it was.
    pub(super) fn put(&self, batch: &mut Batch, thing: &Thing, before: Option<&Thing>) {
        if let Some(before) = before {
            delete_indexes(batch, before);
        }
        let key = thing.key.as_str().as_bytes();
        batch.put(Table::Things, thing_row(thing.org, key), encode(thing));
        batch.put(Table::ThingIds, id_row(thing.org, thing.id), key);
        for (alias, value) in &thing.aliases {
            batch.put(Table::ThingAliases, alias_row(thing.org, *alias, value), key);
        }
        if let Some(parent) = thing.bound_to {
            batch.put(Table::Children, child_row(parent, thing.id), key);
        }
        if let Some(def) = thing.def {
            batch.put(Table::ThingsOfDef, def_row(def, thing.id), key);
        }
    }

    /// Adds the removal of a thing to the batch, its indexes too.
    pub(super) fn delete(&self, batch: &mut Batch, thing: &Thing) {
        delete_indexes(batch, thing);
        batch.delete(Table::Seen, *thing.id.as_bytes());
        batch.delete(Table::Things, thing_row(thing.org, thing.key.as_str().as_bytes()));
    }
}

/// What the rows of a thing take: keys and indexes have a few hundred bytes.
pub(super) fn bytes(thing: &Thing) -> usize {
    const OTHERS: usize = 256;
    encode(thing).len() + OTHERS
}

fn delete_indexes(batch: &mut Batch, thing: &Thing) {
    batch.delete(Table::ThingIds, id_row(thing.org, thing.id));
    for (alias, value) in &thing.aliases {
        batch.delete(Table::ThingAliases, alias_row(thing.org, *alias, value));
    }
    if let Some(parent) = thing.bound_to {
        batch.delete(Table::Children, child_row(parent, thing.id));
    }
    if let Some(def) = thing.def {
        batch.delete(Table::ThingsOfDef, def_row(def, thing.id));
    }
}

fn alias_row(org: OrgId, alias: Alias, value: &str) -> Vec<u8> {
    [&org.as_bytes()[..], &[alias as u8], value.as_bytes()].concat()
}

fn child_row(parent: ThingId, child: ThingId) -> Vec<u8> {
    [*parent.as_bytes(), *child.as_bytes()].concat()
}

fn def_row(def: ThingDefId, thing: ThingId) -> Vec<u8> {
    [*def.as_bytes(), *thing.as_bytes()].concat()
}

fn thing_row(org: OrgId, key: &[u8]) -> Vec<u8> {
    [org.as_bytes(), key].concat()
}

fn id_row(org: OrgId, id: ThingId) -> Vec<u8> {
    [*org.as_bytes(), *id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{Durability, Tables};

    use super::super::tests::{NOW, things};
    use super::*;

    #[tokio::test]
    async fn things_are_read_by_key_by_id_and_in_pages_of_their_organisation() {
        let (things, store) = things();
        let (one, other) = (OrgId::from_bytes([1; 12]), OrgId::from_bytes([2; 12]));
        let mut receipts = Vec::new();
        for number in 0..7_u8 {
            let key = ThingKey::parse(&format!("mower-{number}")).expect("a key");
            let org = if number == 6 { other } else { one };
            let id = ThingId::from_bytes([number; 12]);
            let mut thing = Thing::new(id, org, key, "admin@devicewise.com", NOW);
            thing.aliases.insert(Alias::Imei, format!("35{number}"));
            thing.bound_to = (number == 2).then_some(ThingId::from_bytes([1; 12]));
            thing.def = (number == 3).then_some(ThingDefId::from_bytes([8; 12]));
            receipts.push(things.create(&thing).expect("room"));
        }
        for receipt in receipts {
            receipt.await.expect("stored");
        }

        let key = ThingKey::parse("mower-3").expect("a key");
        let thing = things.get(one, &key).expect("read").expect("there");
        assert_eq!(thing.id, ThingId::from_bytes([3; 12]));
        assert_eq!(things.by_id(one, thing.id).expect("read"), Some(thing.clone()));
        assert_eq!(things.get(other, &key).expect("read"), None);
        assert_eq!(things.by_id(other, thing.id).expect("read"), None);
        let by_imei = |org, imei| things.by_alias(org, Alias::Imei, imei).expect("read");
        assert_eq!(by_imei(one, "353"), Some(thing.clone()));
        assert_eq!(by_imei(other, "353"), None);
        let children = things.children(ThingId::from_bytes([1; 12]), 9).expect("read");
        assert_eq!(children.len(), 1);
        assert_eq!(children[0].1.as_str(), "mower-2");

        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        let again = Things::open(tables, 1000, &Arc::default()).expect("loads");
        assert_eq!((again.count(one), again.count(other)), (6, 1));

        let page = |offset, limit| -> Vec<u8> {
            let page = again.page(one, offset, limit).expect("read");
            page.iter().map(|thing| thing.id.as_bytes()[0]).collect()
        };
        assert_eq!(page(0, 3), [0, 1, 2]);
        assert_eq!(page(4, 10), [4, 5]);
        assert_eq!(page(6, 10), [0_u8; 0]);
        assert_eq!(page(usize::MAX, 10), [0_u8; 0]);

        let used = |def| things.is_used(ThingDefId::from_bytes([def; 12])).expect("read");
        assert!(used(8) && !used(9));
        let mut changed = thing.clone();
        changed.def = Some(ThingDefId::from_bytes([9; 12]));
        changed.aliases.insert(Alias::Imei, "99".into());
        let mut batch = Batch::default();
        things.put(&mut batch, &changed, Some(&thing));
        store.commit(&[batch]).expect("commit");
        assert_eq!(by_imei(one, "353"), None);
        assert_eq!(by_imei(one, "99"), Some(changed.clone()));
        assert!(!used(8) && used(9));
        let (_, removed) = things.remove(one, &key, |_, _| ()).expect("room").expect("there");
        removed.await.expect("stored");
        assert_eq!(things.get(one, &key).expect("read"), None);
        assert_eq!(things.by_id(one, changed.id).expect("read"), None);
        assert_eq!((by_imei(one, "99"), things.count(one)), (None, 5));
        assert!(!used(9));
    }
}
