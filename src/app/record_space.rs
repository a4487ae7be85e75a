//! The room that the records of identity take in memory, by the organisations that own them. It goes by
//! the length of their rows, and the filters of roles.

use std::collections::HashMap;
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::Shares;
use base::{OrgId, limits};
use parking_lot::Mutex;
use rules::identity::{Record, RecordChange, RecordChanges, Records};
use store::{Batch, Change, Table};

use super::records;

/// The records, and who owns them.
pub(super) struct RecordSpace(Mutex<State>);

struct State {
    shares: Shares<()>,
    known: HashMap<Key, Held>,
}

/// Where the row of a record is.
type Key = (Table, Vec<u8>);

/// Whose share a record is, and its bytes.
type Held = (OrgId, u64);

/// Room that was taken, and what it takes the place of; given back unless the changes are made.
#[must_use = "it is given back"]
pub(super) struct Taken<'a> {
    space: &'a RecordSpace,
    before: Vec<(Key, Option<Held>)>,
}

impl RecordSpace {
    /// That of the records that there are.
    pub(super) fn new(found: &Records, pools: &Arc<Pools>) -> Self {
        let mut shares = Shares::new(Pool::Records, limits::RECORDS_BYTES_MAX, pools);
        let mut known = HashMap::new();
        for record in found.iter() {
            let (table, key, bytes) = records::sized_row(&record);
            let org = owner(&record);
            shares.hold(org, (), bytes);
            known.insert((table, key), (org, bytes));
        }
        Self(Mutex::new(State { shares, known }))
    }

    /// Takes room for changes, whose rows are the first of the batch.
    ///
    /// # Errors
    ///
    /// A record that is added, or grows, finds none; nothing was taken.
    pub(super) fn take(
        &self,
        changes: &RecordChanges,
        batch: &Batch,
    ) -> Result<Taken<'_>, OverShare> {
        let mut taken = Taken { space: self, before: Vec::new() };
        for (change, row) in changes.iter().zip(&batch.0) {
            let (key, held) = match (change, row) {
                (RecordChange::Put(record), Change::Put(table, key, value)) => {
                    let bytes = (key.len() + value.len()) as u64 + records::beside_row(record);
                    ((*table, key.clone()), Some((owner(record), bytes)))
                }
                (_, Change::Put(table, key, _) | Change::Delete(table, key)) => {
                    ((*table, key.clone()), None)
                }
            };
            let before = self.0.lock().replace(&key, held)?;
            taken.before.push((key, before));
        }
        Ok(taken)
    }
}

impl State {
    /// Puts a record in the place of what it was, which is returned.
    fn replace(&mut self, key: &Key, held: Option<Held>) -> Result<Option<Held>, OverShare> {
        let before = self.known.get(key).copied();
        if let Some((org, bytes)) = held {
            let was = before.filter(|(owner, _)| *owner == org).map_or(0, |(_, bytes)| bytes);
            if bytes > was {
                self.shares.has_room(org, (), bytes - was)?;
            }
        }
        self.set(key, before, held);
        Ok(before)
    }

    fn set(&mut self, key: &Key, before: Option<Held>, after: Option<Held>) {
        before.inspect(|(org, bytes)| self.shares.give_back(*org, (), *bytes));
        match after {
            Some((org, bytes)) => {
                self.shares.hold(org, (), bytes);
                self.known.insert(key.clone(), (org, bytes));
            }
            None => drop(self.known.remove(key)),
        }
    }
}

impl Taken<'_> {
    /// The changes are made.
    pub(super) fn keep(mut self) {
        self.before.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let state = &mut *self.space.0.lock();
        for (key, before) in std::mem::take(&mut self.before).into_iter().rev() {
            let now = state.known.get(&key).copied();
            state.set(&key, now, before);
        }
    }
}

/// Whose a record is: an organisation is that of the one above it, which made it.
fn owner(record: &Record) -> OrgId {
    match record {
        Record::Org(org) => org.parent.unwrap_or(org.id),
        Record::Role(role) => role.org,
        Record::User(user) => user.owner(),
        Record::Application(application) => application.org,
        Record::ThingDef(def) => def.org,
        Record::Webhook(webhook) => webhook.org,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Effects;
    use super::super::tests::{NOW, demo};
    use super::*;

    #[tokio::test]
    async fn records_that_grow_take_room_and_give_it_back() {
        let (app, _) = demo();
        let used = || app.pools.usage(Pool::Records).used();
        let before = used();
        assert!(before > 0);
        let application = app.identity().application_by_token("demo-token-basicorg").expect("it");
        let mut large = rules::identity::model::Application::clone(&application);
        large.desc = "x".repeat(1000);
        let put = |record: rules::identity::model::Application| {
            Effects::from(app.identity().turn().put(record))
        };
        app.apply(put(large.clone()), NOW).await.stored.expect("room");
        assert_eq!(used(), before + 1000 - application.desc.len() as u64);
        app.record_space.0.lock().shares.set_max(1000);
        large.desc.push('x');
        let refused = app.apply(put(large), NOW).await.stored;
        assert_eq!(refused.expect_err("it has grown").code, base::Code::LIMIT_REACHED);
        app.apply(put((*application).clone()), NOW).await.stored.expect("it shrinks");
        assert_eq!(used(), before);
    }
}
