//! When things without a session were last seen.

use base::{OrgId, ThingId, Timestamp};
use rules::directory::Session;
use store::{Batch, StoreError, Table};

use super::Things;

/// The last signs of life of a thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Anything that came from it.
    pub alive: Timestamp,
    /// A command.
    pub command: Timestamp,
}

impl Seen {
    /// The last signs of life of a session.
    pub fn of(session: &Session) -> Self {
        Self { alive: session.last_active(), command: session.last_accessed() }
    }

    /// The later of both signs.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        Self { alive: self.alive.max(other.alive), command: self.command.max(other.command) }
    }

    fn to_row(self) -> Vec<u8> {
        [self.alive.as_millis().to_be_bytes(), self.command.as_millis().to_be_bytes()].concat()
    }

    fn from_row(row: &[u8]) -> Option<Self> {
        let (alive, command) = row.split_first_chunk::<8>()?;
        let time = |bytes: &[u8; 8]| Timestamp::from_millis(i64::from_be_bytes(*bytes));
        Some(Self { alive: time(alive), command: time(command.first_chunk::<8>()?) })
    }
}

impl Things {
    /// The last signs of life of the sessions of a thing that have ended.
    pub fn seen(&self, thing: ThingId) -> Result<Option<Seen>, StoreError> {
        let row = self.tables.read(Table::Seen, thing.as_bytes())?;
        Ok(row.as_deref().and_then(Seen::from_row))
    }

    /// Adds the last signs of life of a thing to the batch, if it is there and has given no later
    /// ones. Who calls this does so for one session's end after the other.
    pub fn put_seen(
        &self,
        batch: &mut Batch,
        org: OrgId,
        thing: ThingId,
        seen: Seen,
    ) -> Result<(), StoreError> {
        let stored = self.seen(thing)?;
        let latest = stored.map_or(seen, |stored| stored.latest(seen));
        if stored != Some(latest) && self.has(org, thing)? {
            batch.put(Table::Seen, *thing.as_bytes(), latest.to_row());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::ThingKey;
    use store::Store as _;

    use super::super::Thing;
    use super::super::tests::{NOW, things};
    use super::*;

    #[test]
    fn only_later_signs_of_things_that_are_there_are_kept() {
        let (things, store) = things();
        let (org, id) = (OrgId::from_bytes([8; 12]), ThingId::from_bytes([1; 12]));
        let seen = |alive, command| Seen {
            alive: Timestamp::from_millis(alive),
            command: Timestamp::from_millis(command),
        };
        let put = |sign| {
            let mut batch = Batch::default();
            things.put_seen(&mut batch, org, id, sign).expect("read");
            store.commit(&[batch]).expect("commit");
            things.seen(id).expect("read")
        };
        assert_eq!(put(seen(5, 5)), None);
        let mut batch = Batch::default();
        let thing = Thing::new(id, org, ThingKey::parse("a").expect("a key"), "x", NOW);
        things.put(&mut batch, &thing, None);
        store.commit(&[batch]).expect("commit");
        assert_eq!(put(seen(5, 3)), Some(seen(5, 3)));
        assert_eq!(put(seen(4, 4)), Some(seen(5, 4)));
        assert_eq!(put(seen(-1, -1)), Some(seen(5, 4)));
        let mut batch = Batch::default();
        things.delete(&mut batch, &thing);
        store.commit(&[batch]).expect("commit");
        assert_eq!(things.seen(id).expect("read"), None);
    }
}
