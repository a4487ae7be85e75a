//! The journal: the directory's events as rows of the store, and the directory read back from them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use base::{OrgId, SessionRef, ThingId, Timestamp};
use data_encoding::HEXLOWER;
use rules::directory::record::SessionRecord;
use rules::directory::{DirectoryWriter, End, Event, Events, Lifetime, Reason, Session, Who};
use rules::identity::Identity;
use store::{Batch, Row, Store, StoreError, Table};

use crate::things::registry::{Seen, Things};

/// Rows read at once when the server starts.
const SCAN_ROWS: usize = 1000;

/// Changes stored at once when the server starts, some hundred kilobytes.
const GROUP_CHANGES: usize = 1000;

/// What the store has not of what is in memory. It is stored when the store takes something again.
#[derive(Default)]
pub(super) struct Unsaved {
    /// Live sessions whose beginning was refused.
    pub(super) begun: HashSet<SessionRef>,
    /// Ends that were refused.
    pub(super) ends: Vec<Event>,
}

/// The changes of the store that belong to changes of the directory. Of sessions that the store does
/// not have, the ends are left out.
///
/// # Errors
///
/// A session can't be written as a record; none of ours can't.
pub(super) fn batch_of(
    events: &[Event],
    unsaved: &HashSet<SessionRef>,
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for event in events {
        match event {
            Event::Started(session) | Event::Switched(session) => {
                put_live(&mut batch, session)?;
            }
            // A record says who and where; rights follow from that.
            Event::RightsChanged(_) => {}
            Event::Ended(session, _) | Event::Revoked(session)
                if unsaved.contains(&session.reference()) => {}
            // Of an end whose event came before, the record may be lost.
            Event::Ended(session, _) | Event::Revoked(session) => {
                batch.delete(Table::Sessions, *session.reference().as_bytes());
                put_ended(&mut batch, session)?;
            }
            Event::Forgotten(session) => {
                if let Some(end) = session.end() {
                    batch.delete(Table::History, history_key(session, end));
                }
            }
        }
    }
    Ok(batch)
}

/// Adds a live session to a batch. One that has ended meanwhile is left to the event of its end.
///
/// # Errors
///
/// As [`batch_of`].
pub(super) fn put_live(batch: &mut Batch, session: &Session) -> Result<(), StoreError> {
    if session.end().is_none() {
        batch.put(Table::Sessions, *session.reference().as_bytes(), record(session)?);
    }
    Ok(())
}

fn put_ended(batch: &mut Batch, session: &Session) -> Result<(), StoreError> {
    if let Some(end) = session.end() {
        batch.put(Table::History, history_key(session, end), record(session)?);
    }
    Ok(())
}

fn history_key(session: &Session, end: End) -> Vec<u8> {
    let mut key = end.at.as_millis().to_be_bytes().to_vec();
    key.extend_from_slice(session.reference().as_bytes());
    key
}

fn record(session: &Session) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&SessionRecord::of(session)).map_err(|source| StoreError::Record {
        table: Table::Sessions.name(),
        key: session.reference().to_string(),
        source,
    })
}

/// Fills a new directory from the store: sessions over HTTP live on if their time is not over,
/// those that were bound to a connection have ended with the server's stop. Returns how many live
/// on.
///
/// # Errors
///
/// The store can't be read or written.
pub(super) fn recover(
    store: &dyn Store,
    identity: &Identity,
    things: &Things,
    directory: &DirectoryWriter,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut surplus = Events::default();
    scan(store, Table::History, |key, record| {
        let serial = directory.take_serial();
        match record.restore(identity, serial) {
            Some(session) => surplus.append(directory.restore_ended(session)),
            None => store.commit(&[delete(Table::History, key)])?,
        }
        Ok(())
    })?;
    store.commit(&[batch_of(&surplus, &HashSet::new())?])?;
    let (mut live, mut ends) = (0, Ends::default());
    scan(store, Table::Sessions, |key, record| {
        let serial = directory.take_serial();
        let Some(mut session) = record.restore(identity, serial) else {
            return store.commit(&[delete(Table::Sessions, key)]);
        };
        let (due, overdue) = session.deadline();
        let reason = match session.lifetime() {
            Lifetime::Connection => Reason::ServerStopped,
            // Now, not at the wheel's next turn: a command before that would bring it to life.
            Lifetime::Until(_) if due <= now => overdue,
            Lifetime::Until(_) => {
                directory.restore_live(session);
                live += 1;
                return Ok(());
            }
        };
        session.end_unseen(End { reason, at: now });
        ends.add(key, &session)?;
        let surplus = directory.restore_ended(session);
        ends.batch.0.extend(batch_of(&surplus, &HashSet::new())?.0);
        if ends.batch.0.len() >= GROUP_CHANGES {
            ends.store(store, things)?;
        }
        Ok(())
    })?;
    ends.store(store, things)?;
    Ok(live)
}

/// Sessions that have ended with the server's stop, to be stored together: there may be as many as
/// there were connections.
#[derive(Default)]
struct Ends {
    batch: Batch,
    seen: BTreeMap<(OrgId, ThingId), Seen>,
}

impl Ends {
    fn add(&mut self, key: &[u8], session: &Session) -> Result<(), StoreError> {
        self.batch.delete(Table::Sessions, key);
        put_ended(&mut self.batch, session)?;
        if let Who::Application { application, thing_id, .. } = session.who() {
            let seen = Seen::of(session);
            let entry = self.seen.entry((application.org, *thing_id)).or_insert(seen);
            *entry = entry.latest(seen);
        }
        Ok(())
    }

    fn store(&mut self, store: &dyn Store, things: &Things) -> Result<(), StoreError> {
        for ((org, thing), seen) in std::mem::take(&mut self.seen) {
            things.put_seen(&mut self.batch, org, thing, seen)?;
        }
        store.commit(&[std::mem::take(&mut self.batch)])
    }
}

fn delete(table: Table, key: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.delete(table, key);
    batch
}

fn scan(
    store: &dyn Store,
    table: Table,
    mut visit: impl FnMut(&[u8], SessionRecord) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from: Option<Vec<u8>> = None;
    loop {
        let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows: Vec<Row> = store.scan(table, start, Bound::Unbounded, SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = Some(last.clone());
        for (key, value) in &rows {
            let record = serde_json::from_slice(value).map_err(|source| StoreError::Record {
                table: table.name(),
                key: HEXLOWER.encode(key),
                source,
            })?;
            visit(key, record)?;
        }
    }
}
