//! How many rows of a kind there are, by whose share they are, without reading them at every start.
//!
//! The counts are rows themselves, in the batches that add and remove what they count. They are made
//! anew, by reading everything, only where a mark is missing that says they are complete: in a
//! store of an older program.

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{ApplicationId, OrgId, UserId};
use parking_lot::Mutex;
use rules::directory::PrincipalId;
use store::{Batch, Receipt, StoreError, Table, Tables};

/// Who made something that is stored; none: an older program did not note it, or nobody did.
pub type Maker = Option<PrincipalId>;

/// Whose share something is.
pub type Payer = (OrgId, Maker);

/// The counts of one kind.
pub(super) struct Tally {
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    shares: Shares<Maker>,
    /// What of it is submitted.
    submitted: HashMap<Payer, u64>,
}

/// Room that was taken for rows that are about to be added; without them it is given back.
#[must_use = "it counts when it is submitted"]
pub(super) struct Taken<'a> {
    tally: &'a Tally,
    payer: Payer,
    count: u64,
}

impl Tally {
    /// The counts of a store. `count` calls its argument for all that there is; it is asked when
    /// the store has no counts.
    pub(super) fn open(
        tables: &Tables,
        (pool, max): (Pool, u64),
        pools: &Arc<Pools>,
        count: impl FnOnce(&mut dyn FnMut(Payer)) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let name = pool.info().name;
        let stored = tables.scan_prefix(Table::Meta, &prefix(name), None, usize::MAX)?;
        let mut submitted = HashMap::<Payer, u64>::new();
        if tables.read(Table::Meta, &mark(name))?.is_some() {
            for (key, count) in stored {
                let payer = key.get(prefix(name).len()..).and_then(payer_of);
                if let (Some(payer), Some(count)) = (payer, count.first_chunk()) {
                    submitted.insert(payer, u64::from_be_bytes(*count));
                }
            }
        } else {
            count(&mut |payer| *submitted.entry(payer).or_default() += 1)?;
            let mut batch = Batch::default();
            stored.into_iter().for_each(|(key, _)| batch.delete(Table::Meta, key));
            for (payer, count) in &submitted {
                batch.put(Table::Meta, key(name, *payer), count.to_be_bytes());
            }
            batch.put(Table::Meta, mark(name), "");
            // On a full disk it is counted again with the next start.
            if let Err(error) = tables.submit(batch) {
                store::report(&error, "what was counted was not stored");
            }
        }
        let mut shares = Shares::new(pool, max, pools);
        submitted.iter().for_each(|((org, maker), count)| shares.hold(*org, *maker, *count));
        Ok(Self { name, state: Mutex::new(State { shares, submitted }) })
    }

    /// How many an organisation has.
    pub(super) fn of(&self, org: OrgId) -> u64 {
        self.state.lock().shares.held_by(org)
    }

    /// Takes room for so many.
    ///
    /// # Errors
    ///
    /// There is no room for all of them; none was taken.
    pub(super) fn take(&self, payer: Payer, count: u64) -> Result<Taken<'_>, OverShare> {
        let (org, maker) = payer;
        self.state.lock().shares.take(org, maker, count)?;
        Ok(Taken { tally: self, payer, count })
    }

    /// Takes room for as many as there is room for, and says why it is not for all.
    pub(super) fn take_some(&self, payer: Payer, wanted: u64) -> (Taken<'_>, Option<OverShare>) {
        let (org, maker) = payer;
        let shares = &mut self.state.lock().shares;
        let over = shares.take(org, maker, wanted).err();
        let count = over.map_or(wanted, |_| shares.room(org, maker).min(wanted));
        if over.is_some() {
            shares.hold(org, maker, count);
        }
        (Taken { tally: self, payer, count }, over)
    }

    /// Submits a batch that removes so many.
    ///
    /// # Errors
    ///
    /// The store does not take it, and nothing has changed.
    pub(super) fn remove(
        &self,
        payer: Payer,
        count: u64,
        tables: &Tables,
        batch: Batch,
    ) -> Result<Receipt, StoreError> {
        let mut state = self.state.lock();
        let left = state.of(payer).saturating_sub(count);
        let receipt = state.submit((self.name, payer, left), tables, batch)?;
        state.shares.give_back(payer.0, payer.1, count);
        Ok(receipt)
    }
}

impl State {
    fn of(&self, payer: Payer) -> u64 {
        self.submitted.get(&payer).copied().unwrap_or(0)
    }

    /// Submits a batch with a count. Others wait meanwhile: so the counts are in the order of the
    /// commits.
    fn submit(
        &mut self,
        (name, payer, count): (&str, Payer, u64),
        tables: &Tables,
        mut batch: Batch,
    ) -> Result<Receipt, StoreError> {
        match count {
            0 => batch.delete(Table::Meta, key(name, payer)),
            count => batch.put(Table::Meta, key(name, payer), count.to_be_bytes()),
        }
        let receipt = tables.submit(batch)?;
        match count {
            0 => self.submitted.remove(&payer),
            count => self.submitted.insert(payer, count),
        };
        Ok(receipt)
    }
}

impl Taken<'_> {
    /// For how many there is room.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Submits the batch that adds them.
    ///
    /// # Errors
    ///
    /// The store does not take it, and nothing has changed.
    pub(super) fn submit(mut self, tables: &Tables, batch: Batch) -> Result<Receipt, StoreError> {
        let tally = self.tally;
        let mut state = tally.state.lock();
        let count = state.of(self.payer) + self.count;
        let submitted = state.submit((tally.name, self.payer, count), tables, batch);
        drop(state);
        if submitted.is_ok() {
            self.count = 0;
        }
        submitted
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            let (org, maker) = self.payer;
            self.tally.state.lock().shares.give_back(org, maker, self.count);
        }
    }
}

/// The key in [`Table::Meta`] that says that the counts are complete.
fn mark(name: &str) -> Vec<u8> {
    format!("counted/{name}").into_bytes()
}

/// What the keys of the counts begin with, in [`Table::Meta`].
fn prefix(name: &str) -> Vec<u8> {
    format!("count/{name}/").into_bytes()
}

fn key(name: &str, payer: Payer) -> Vec<u8> {
    [prefix(name), bytes_of(payer)].concat()
}

/// A payer as bytes: the organisation (12 bytes), then, if there is a maker, its kind (1 byte) and
/// its id (12 bytes).
pub(super) fn bytes_of((org, maker): Payer) -> Vec<u8> {
    let mut bytes = org.as_bytes().to_vec();
    match maker {
        None => {}
        Some(PrincipalId::User(id)) => {
            bytes.push(1);
            bytes.extend_from_slice(id.as_bytes());
        }
        Some(PrincipalId::Application(id)) => {
            bytes.push(2);
            bytes.extend_from_slice(id.as_bytes());
        }
    }
    bytes
}

/// The payer of these bytes.
pub(super) fn payer_of(bytes: &[u8]) -> Option<Payer> {
    let (org, maker) = bytes.split_first_chunk::<12>()?;
    let maker = match maker.split_first() {
        None => None,
        Some((1, id)) => Some(PrincipalId::User(UserId::from_bytes(*id.first_chunk()?))),
        Some((2, id)) => {
            Some(PrincipalId::Application(ApplicationId::from_bytes(*id.first_chunk()?)))
        }
        Some(_) => return None,
    };
    Some((OrgId::from_bytes(*org), maker))
}

#[cfg(test)]
mod tests {
    use store::{Durability, memory::MemoryStore};

    use super::*;

    fn open(store: &Arc<MemoryStore>, found: &[Payer]) -> (Tally, Tables) {
        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        let pools = Arc::default();
        let tally = Tally::open(&tables, (Pool::Things, 1000), &pools, |count| {
            found.iter().for_each(|payer| count(*payer));
            Ok(())
        });
        (tally.expect("read"), tables)
    }

    fn makers() -> [Payer; 3] {
        let (org, other) = (OrgId::from_bytes([1; 12]), OrgId::from_bytes([2; 12]));
        let user = PrincipalId::User(UserId::from_bytes([3; 12]));
        let application = PrincipalId::Application(ApplicationId::from_bytes([3; 12]));
        [(org, None), (org, Some(user)), (other, Some(application))]
    }

    #[tokio::test]
    async fn counts_are_as_they_were_and_are_made_anew_only_once() {
        let store = Arc::new(MemoryStore::new());
        let [old, user, application] = makers();
        let (tally, tables) = open(&store, &[old, old, user]);
        assert_eq!((tally.of(old.0), tally.of(application.0)), (3, 0));
        for added in [application, user] {
            let taken = tally.take(added, 1).expect("room");
            taken.submit(&tables, Batch::default()).expect("room").await.expect("stored");
        }
        drop(tally.take(user, 5).expect("room"));
        let removed = tally.remove(old, 2, &tables, Batch::default());
        removed.expect("room").await.expect("stored");
        let (again, tables) = open(&store, &[]);
        let held =
            |tally: &Tally, (org, maker)| tally.state.lock().shares.held_by_principal(org, maker);
        for tally in [&tally, &again] {
            assert_eq!(makers().map(|payer| held(tally, payer)), [0, 2, 1]);
        }
        tables.writer().stop().await.expect("stopped");
        let taken = again.take(application, 1).expect("room");
        assert!(taken.submit(&tables, Batch::default()).is_err());
        assert!(again.remove(user, 2, &tables, Batch::default()).is_err());
        assert_eq!(makers().map(|payer| held(&again, payer)), [0, 2, 1], "as it was");
    }

    #[test]
    fn what_there_is_room_for_is_taken() {
        let (tally, _) = open(&Arc::default(), &[]);
        let [_, user, application] = makers();
        let (most, over) = tally.take_some(user, 2000);
        assert!(over.is_some() && (800..1000).contains(&most.count()), "{}", most.count());
        let (none, over) = tally.take_some(user, 1);
        assert!(over.is_some() && none.count() == 0);
        let (other, over) = tally.take_some(application, 10);
        assert!(over.is_none() && other.count() == 10);
        drop((most, other));
        assert_eq!(tally.of(user.0), 0);
    }

    #[test]
    fn payers_are_read_back() {
        for payer in makers() {
            assert_eq!(payer_of(&bytes_of(payer)), Some(payer));
        }
        assert_eq!(payer_of(&[1; 11]), None);
        assert_eq!(payer_of(&[9; 25]), None);
    }
}
