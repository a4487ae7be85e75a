//! Changes of things. A lock for each thing makes reading, checking and writing it one step.

use base::pool::OverShare;
use base::{OrgId, ThingId, ThingKey, limits, yield_point};
use store::{Batch, Receipt, StoreError};

use super::{Alias, Thing, Things, rows};
use crate::things::stored_bytes::Difference;

/// Why a thing can't be made or changed so.
#[derive(Debug, thiserror::Error)]
pub enum ThingConflict {
    /// There is a thing with this key.
    #[error("the organisation has a thing with this key")]
    Key,
    /// Another thing has this identifier.
    #[error("the organisation has another thing with {} {value}", alias.as_str())]
    Alias {
        /// The kind of identifier.
        alias: Alias,
        /// The identifier.
        value: String,
    },
    /// There are as many things as there may be, or the disk has no room for it.
    #[error(transparent)]
    Full(#[from] OverShare),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a thing is not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotAdded {
    /// There are as many as there may be, or the disk has no room for it.
    #[error(transparent)]
    Full(#[from] OverShare),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotAdded {
    /// Whether it may be stored later.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Store(error) => error.is_temporary(),
        }
    }
}

impl From<NotAdded> for ThingConflict {
    fn from(error: NotAdded) -> Self {
        match error {
            NotAdded::Full(over) => Self::Full(over),
            NotAdded::Store(error) => Self::Store(error),
        }
    }
}

impl Things {
    /// Makes a thing.
    ///
    /// # Errors
    /// Its key or one of its identifiers is taken, there is no room for it, or the store failed.
    pub fn create(&self, thing: &Thing) -> Result<Receipt, ThingConflict> {
        self.create_with(thing, |_| ())
    }

    /// The same, with what `also` adds to the batch.
    ///
    /// # Errors
    /// As [`Things::create`].
    pub fn create_with(
        &self,
        thing: &Thing,
        also: impl FnOnce(&mut Batch),
    ) -> Result<Receipt, ThingConflict> {
        let _lock = self.lock(thing.org, &thing.key);
        if self.get(thing.org, &thing.key)?.is_some() {
            return Err(ThingConflict::Key);
        }
        self.put_checked(thing, None, also)
    }

    /// Changes a thing, if it is there: what it is then, and the receipt for it. Nothing is stored
    /// when `edit` changes nothing.
    ///
    /// # Errors
    /// One of its new identifiers is taken, or the store failed.
    pub fn change(
        &self,
        org: OrgId,
        key: &ThingKey,
        edit: impl FnOnce(&mut Thing),
    ) -> Result<Option<(Thing, Receipt)>, ThingConflict> {
        self.change_with(org, key, edit, |_, _, _| ())
    }

    /// The same, with what `also` adds to the batch, which gets to know the thing as it was and as
    /// it is.
    pub fn change_with(
        &self,
        org: OrgId,
        key: &ThingKey,
        edit: impl FnOnce(&mut Thing),
        also: impl FnOnce(&Thing, &Thing, &mut Batch),
    ) -> Result<Option<(Thing, Receipt)>, ThingConflict> {
        let _lock = self.lock(org, key);
        let Some(before) = self.get(org, key)? else { return Ok(None) };
        let mut thing = before.clone();
        edit(&mut thing);
        if thing == before {
            return Ok(Some((thing, Receipt::nothing())));
        }
        let also = |batch: &mut Batch| also(&before, &thing, batch);
        let receipt = self.put_checked(&thing, Some(&before), also)?;
        Ok(Some((thing, receipt)))
    }

    /// Removes a thing, if it is there, with what `also` adds to the batch. Things that are bound
    /// to it are free again.
    pub fn remove(
        &self,
        org: OrgId,
        key: &ThingKey,
        also: impl FnOnce(&Thing, &mut Batch),
    ) -> Result<Option<(Thing, Receipt)>, StoreError> {
        self.replace(org, key, |_| None, also)
    }

    /// The same, but a thing of the same key may take its place, which is in the share of the first.
    pub fn replace(
        &self,
        org: OrgId,
        key: &ThingKey,
        heir: impl FnOnce(&Thing) -> Option<Thing>,
        also: impl FnOnce(&Thing, &mut Batch),
    ) -> Result<Option<(Thing, Receipt)>, StoreError> {
        let lock = self.lock(org, key);
        let Some(thing) = self.get(org, key)? else { return Ok(None) };
        let mut batch = Batch::default();
        also(&thing, &mut batch);
        self.delete(&mut batch, &thing);
        let mut receipt = match heir(&thing) {
            Some(mut heir) => {
                heir.maker = thing.maker;
                self.put(&mut batch, &heir, None);
                let receipt = self.tables.submit(batch)?;
                self.bytes.note(thing.payer(), &difference(Some(&thing), Some(&heir)));
                self.texts.put(&heir, Some(&thing));
                receipt
            }
            None => {
                let receipt = self.tally.remove(thing.payer(), 1, &self.tables, batch)?;
                self.bytes.note(thing.payer(), &difference(Some(&thing), None));
                self.texts.remove(org, key);
                receipt
            }
        };
        // One lock at a time: that of a child may be this one.
        drop(lock);
        // The thing is gone, so this must not fail any more: its sessions have to end. A child that
        // keeps the id of a parent that is gone is as good as free.
        for (_, child) in self.children(thing.id, limits::CHILDREN_MAX).unwrap_or_default() {
            if let Ok(Some(freed)) = self.unbind(org, &child, thing.id) {
                // The writer goes in order: the last receipt is for all.
                receipt = receipt.and(freed);
            }
        }
        Ok(Some((thing, receipt)))
    }

    /// Frees a thing that is bound to this parent.
    fn unbind(
        &self,
        org: OrgId,
        key: &ThingKey,
        parent: ThingId,
    ) -> Result<Option<Receipt>, StoreError> {
        let free = |thing: &mut Thing| {
            thing.bound_to = thing.bound_to.filter(|bound_to| *bound_to != parent);
        };
        match self.change(org, key, free) {
            Ok(changed) => Ok(changed.map(|(_, receipt)| receipt)),
            Err(ThingConflict::Store(error)) => Err(error),
            // It claims no identifier, and was there before.
            Err(ThingConflict::Key | ThingConflict::Alias { .. } | ThingConflict::Full(_)) => {
                Ok(None)
            }
        }
    }

    /// Submits a thing that nobody else changes meanwhile; `before` is what it was.
    fn put_checked(
        &self,
        thing: &Thing,
        before: Option<&Thing>,
        also: impl FnOnce(&mut Batch),
    ) -> Result<Receipt, ThingConflict> {
        let had = |alias, value| before.and_then(|before| before.aliases.get(alias)) == Some(value);
        let mut claimed =
            thing.aliases.iter().filter(|(alias, value)| !had(alias, value)).peekable();
        let _lock = claimed.peek().is_some().then(|| (self.aliases.lock(), yield_point::pause()));
        for (alias, value) in claimed {
            let holder = self.by_alias(thing.org, *alias, value)?;
            if holder.is_some_and(|holder| holder.id != thing.id) {
                return Err(ThingConflict::Alias { alias: *alias, value: value.clone() });
            }
        }
        let mut batch = Batch::default();
        self.put(&mut batch, thing, before);
        also(&mut batch);
        Ok(self.submit(batch, thing, before)?)
    }

    /// Submits the batch of a thing, to which [`Things::put`] has added it.
    ///
    /// # Errors
    /// There is no room for it, or the store takes no more changes.
    pub(super) fn submit(
        &self,
        batch: Batch,
        thing: &Thing,
        before: Option<&Thing>,
    ) -> Result<Receipt, NotAdded> {
        let bans = before.is_some_and(|before| before.ban.is_none()) && !thing.ban.is_none();
        let (payer, difference) = (thing.payer(), difference(before, Some(thing)));
        let counted = (!bans).then(|| self.bytes.change(payer, &difference)).transpose()?;
        let receipt = match before {
            // A full disk keeps nobody from banning.
            Some(_) if bans => self.tables.submit_removal(batch)?,
            Some(_) => self.tables.submit(batch)?,
            None => self.tally.take(payer, 1)?.submit(&self.tables, batch)?,
        };
        match counted {
            Some(counted) => counted.made(),
            None => self.bytes.note(payer, &difference),
        }
        self.texts.put(thing, before);
        Ok(receipt)
    }
}

/// What a change of a thing adds.
fn difference(before: Option<&Thing>, after: Option<&Thing>) -> Difference {
    let bytes = |thing: Option<&Thing>| thing.map_or(0, rows::bytes);
    Difference::new(bytes(before), bytes(after))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, things};
    use super::*;

    fn key(text: &str) -> ThingKey {
        ThingKey::parse(text).expect("a key")
    }

    #[tokio::test]
    async fn keys_and_identifiers_are_of_one_thing() {
        let (things, _) = things();
        let (org, other) = (OrgId::from_bytes([8; 12]), OrgId::from_bytes([9; 12]));
        let with = |number: u8, org, name: &str, imei: &str| {
            let id = ThingId::from_bytes([number; 12]);
            let mut thing = Thing::new(id, org, key(name), "x", NOW);
            thing.aliases.insert(Alias::Imei, imei.to_owned());
            thing
        };
        let create = |number, org, name: &str, imei: &str| {
            things.create(&with(number, org, name, imei)).map(drop)
        };
        create(1, org, "a", "11").expect("room");
        create(2, other, "a", "11").expect("another organisation");
        assert!(matches!(create(3, org, "a", "33"), Err(ThingConflict::Key)));
        let taken = create(4, org, "b", "11").expect_err("taken");
        assert_eq!(taken.to_string(), "the organisation has another thing with imei 11");
        assert_eq!(things.count(org), 1);

        create(5, org, "b", "22").expect("room");
        let rename = |name: &str, imei: &str| {
            things.change(org, &key(name), |thing| {
                thing.aliases.insert(Alias::Imei, imei.to_owned());
            })
        };
        assert!(matches!(rename("b", "11"), Err(ThingConflict::Alias { .. })));
        assert!(rename("c", "11").expect("no conflict").is_none());
        drop(rename("a", "44").expect("free").expect("there"));
        let (changed, receipt) = rename("b", "11").expect("free again").expect("there");
        receipt.await.expect("stored");
        let found = things.by_alias(org, Alias::Imei, "11").expect("read");
        assert_eq!(found, Some(changed));
        assert_eq!(things.by_alias(org, Alias::Imei, "22").expect("read"), None);
    }

    #[tokio::test]
    async fn what_was_bound_to_a_removed_thing_is_free() {
        let (things, _) = things();
        let org = OrgId::from_bytes([8; 12]);
        let parent = ThingId::from_bytes([1; 12]);
        let mut receipts = Vec::new();
        for (number, name) in [(1, "parent"), (2, "child"), (3, "other")] {
            let id = ThingId::from_bytes([number; 12]);
            let mut thing = Thing::new(id, org, key(name), "x", NOW);
            thing.bound_to = match name {
                "child" => Some(parent),
                "other" => Some(ThingId::from_bytes([2; 12])),
                _ => None,
            };
            receipts.push(things.create(&thing).expect("room"));
        }
        for receipt in receipts {
            receipt.await.expect("stored");
        }
        let remove = || things.remove(org, &key("parent"), |_, _| ()).expect("read");
        let (_, receipt) = remove().expect("there");
        receipt.await.expect("stored");
        assert!(remove().is_none());
        let bound_to =
            |name: &str| things.get(org, &key(name)).expect("read").expect("there").bound_to;
        assert_eq!(bound_to("child"), None);
        assert_eq!(bound_to("other"), Some(ThingId::from_bytes([2; 12])));
        assert_eq!(things.children(parent, 9).expect("read"), []);
        assert_eq!(things.count(org), 2);
    }
}
