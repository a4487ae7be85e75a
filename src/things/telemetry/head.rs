//! The row before all series of an owner in [`Table::Series`]: how many they are, and whose share.

use std::collections::HashMap;
use std::sync::Arc;

use base::OrgId;
use base::pool::{Pool, Pools};
use store::{Batch, StoreError, Table, Tables, rows::for_each_row};

use super::series::{Owner, kind_and_name};
use crate::things::Payer;
use crate::things::tally::{Tally, bytes_of, payer_of};

/// How many series an owner has, and whose share they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// How many; those of a thing that is being removed count until the last one has gone.
    pub count: u64,
    /// Whose share.
    pub payer: Payer,
}

impl Head {
    /// That of an owner; none before its first series.
    pub(super) fn read(tables: &Tables, owner: Owner) -> Result<Option<Self>, StoreError> {
        let row = tables.read(Table::Series, &row_key(owner.as_bytes()))?;
        Ok(row.as_deref().and_then(Self::from_row))
    }

    /// Adds it to a batch.
    pub(super) fn put(&self, batch: &mut Batch, owner: Owner) {
        let row = [&self.count.to_be_bytes()[..], &bytes_of(self.payer)].concat();
        batch.put(Table::Series, row_key(owner.as_bytes()), row);
    }

    /// Reads a row.
    pub(super) fn from_row(row: &[u8]) -> Option<Self> {
        let (count, payer) = row.split_first_chunk()?;
        Some(Self { count: u64::from_be_bytes(*count), payer: payer_of(payer)? })
    }
}

/// The key of the head of an owner: no kind of series has a byte of 0.
pub(super) fn row_key(owner: &[u8]) -> Vec<u8> {
    [owner, &[0]].concat()
}

/// How many series there are. In a store of an older program, owners have no heads yet.
pub(super) fn open_tally(
    tables: &Tables,
    max: u64,
    pools: &Arc<Pools>,
) -> Result<Tally, StoreError> {
    Tally::open(tables, (Pool::Series, max), pools, |found| {
        let orgs = orgs_of_things(tables)?;
        let mut owners = Owners { tables, orgs, owner: None, batch: Batch::default() };
        for_each_row(tables.store(), Table::Series, |(key, row)| {
            if let Some(owner) = key.first_chunk() {
                owners.visit(*owner, Head::from_row(row).filter(|_| is_head(key)))?;
                if kind_and_name(key).is_some()
                    && let Some((_, head, _)) = &mut owners.owner
                {
                    head.count += 1;
                    found(head.payer);
                }
            }
            Ok(())
        })?;
        owners.close()?;
        owners.commit(0)
    })
}

fn is_head(key: &[u8]) -> bool {
    key.len() == 13 && key.last() == Some(&0)
}

/// The organisation of each thing.
fn orgs_of_things(tables: &Tables) -> Result<HashMap<[u8; 12], OrgId>, StoreError> {
    let mut orgs = HashMap::new();
    for_each_row(tables.store(), Table::ThingIds, |(row, _)| {
        if let (Some(org), Some(thing)) = (row.first_chunk(), row.last_chunk::<12>()) {
            orgs.insert(*thing, OrgId::from_bytes(*org));
        }
        Ok(())
    })?;
    Ok(orgs)
}

/// The owners of series, one after the other, while all series are counted.
struct Owners<'a> {
    tables: &'a Tables,
    orgs: HashMap<[u8; 12], OrgId>,
    /// The one whose series come, its head as it is counted, and as it is stored.
    owner: Option<([u8; 12], Head, Option<Head>)>,
    batch: Batch,
}

impl Owners<'_> {
    /// A row of this owner comes, which may be its head.
    fn visit(&mut self, owner: [u8; 12], stored: Option<Head>) -> Result<(), StoreError> {
        if self.owner.is_some_and(|(now, ..)| now == owner) {
            return Ok(());
        }
        self.close()?;
        // The log of an organisation is its own; what is nobody's goes with its thing.
        let org = self.orgs.get(&owner).copied().unwrap_or(OrgId::from_bytes(owner));
        let payer = stored.map_or((org, None), |stored| stored.payer);
        self.owner = Some((owner, Head { count: 0, payer }, stored));
        Ok(())
    }

    /// The last row of the owner has come.
    fn close(&mut self) -> Result<(), StoreError> {
        if let Some((owner, head, stored)) = self.owner.take()
            && stored != Some(head)
        {
            let row = [&head.count.to_be_bytes()[..], &bytes_of(head.payer)].concat();
            self.batch.put(Table::Series, row_key(&owner), row);
        }
        self.commit(HEADS_STEP)
    }

    /// Stores the heads if they are so many.
    fn commit(&mut self, least: usize) -> Result<(), StoreError> {
        if self.batch.0.len() > least {
            let batch = std::mem::take(&mut self.batch);
            let store = self.tables.store();
            // On a full disk they are made with the next start.
            if store.room().admit(&batch, 0).is_ok() {
                store.commit(&[batch])?;
            }
        }
        Ok(())
    }
}

/// Heads that are stored at once.
const HEADS_STEP: usize = 1000;
