//! The journal: the directory's events as rows of the store, and the directory read back from them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use base::{OrgId, SessionRef, ThingId, Timestamp};
use rules::directory::record::{Principals, SessionRecord};
use rules::directory::{DirectoryWriter, End, Event, Events, Lifetime, Reason, Session, Who};
use rules::identity::Identity;
use store::{Batch, Row, Store, StoreError, Table, rows};

use super::connection_history::{self, ConnectionHistory};
use crate::things::registry::{Seen, Things};

/// Rows read at once when the server starts.
const SCAN_ROWS: usize = 1000;

/// Threads that read sessions when the server starts: more of them wait for each other.
const READERS_MAX: usize = 4;

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
    connections: &ConnectionHistory,
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for event in events {
        match event {
            Event::Started(session) | Event::Redefined(session) => {
                put_live(&mut batch, session)?;
            }
            Event::Switched(session, left) => {
                put_live(&mut batch, session)?;
                if let Some(left) = left {
                    connections.put_left(&mut batch, session, *left)?;
                }
            }
            // A record says who and where; rights follow from that.
            Event::RightsChanged(_) => {}
            Event::Ended(session, _) | Event::Revoked(session)
                if unsaved.contains(&session.reference()) => {}
            // Of an end whose event came before, the record may be lost.
            Event::Ended(session, _) | Event::Revoked(session) => {
                batch.delete(Table::Sessions, *session.reference().as_bytes());
                put_ended(&mut batch, session, connections)?;
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

/// Adds an ended session to a batch: its record is in the connection history, if there is one, and
/// the key of that row is what the memory of ended sessions needs.
fn put_ended(
    batch: &mut Batch,
    session: &Session,
    connections: &ConnectionHistory,
) -> Result<(), StoreError> {
    if let Some(end) = session.end() {
        let value = match connections.is_kept() {
            true => connections.put(batch, session)?,
            false => record(session)?,
        };
        batch.put(Table::History, history_key(session, end), value);
    }
    Ok(())
}

/// The record of an ended session: the row of an older program, and of a server without connection
/// history, has it. None: the connection history has it no more.
fn ended_record(store: &dyn Store, (key, value): &Row) -> Result<Option<Vec<u8>>, StoreError> {
    if value.first() == Some(&b'{') {
        return Ok(Some(value.clone()));
    }
    let end = key.first_chunk().map_or(0, |end| i64::from_be_bytes(*end));
    store.read(connection_history::table(Timestamp::from_millis(end)), value)
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
/// those that were bound to a connection have ended with the server's stop, which was at the last sign of
/// life that is known of it. Returns how many live on, and where those were that ended so.
///
/// # Errors
///
/// The store can't be read or written.
pub(super) fn recover(
    store: &dyn Store,
    identity: &Identity,
    things: &Things,
    directory: &DirectoryWriter,
    connections: &ConnectionHistory,
    (stopped_at, now): (Timestamp, Timestamp),
) -> Result<(usize, Vec<OrgId>), StoreError> {
    let mut surplus = Events::default();
    let mut principals = Principals::new(identity);
    let all = (Bound::Unbounded, Bound::Unbounded);
    scan(store, Table::History, all, |row| {
        let record = ended_record(store, row)?;
        let record = record
            .map(|record| rows::decode::<SessionRecord>(Table::History, &row.0, &record))
            .transpose()?;
        match record.and_then(|record| record.restore(&mut principals)) {
            Some(session) => surplus.append(directory.restore_ended(session)),
            None => store.commit(&[delete(Table::History, &row.0)])?,
        }
        Ok(())
    })?;
    store.commit(&[batch_of(&surplus, &HashSet::new(), connections)?])?;
    let Stored { live, ended } = read_all(store, (identity, things), now)?;
    // The last sign of life of the server is as good as that of a session.
    let signs =
        live.iter().chain(ended.iter().map(|(session, _)| session)).map(Session::last_active);
    let stopped_at = signs.fold(stopped_at, Timestamp::max).min(now);
    let count = live.len();
    directory.restore_live(live);
    let (mut ends, mut stopped) = (Ends::default(), Vec::new());
    for (mut session, reason) in ended {
        let mut at = now;
        if reason == Reason::ServerStopped {
            stopped.push(session.org_id());
            at = stopped_at;
        }
        session.end_unseen(End { reason, at });
        ends.add(&session, connections)?;
        let surplus = directory.restore_ended(session);
        ends.batch.0.extend(batch_of(&surplus, &HashSet::new(), connections)?.0);
        if ends.batch.0.len() >= GROUP_CHANGES {
            ends.store(store, things)?;
        }
    }
    ends.store(store, things)?;
    Ok((count, stopped))
}

/// The sessions that were not ended when the server stopped.
#[derive(Default)]
struct Stored {
    live: Vec<Session>,
    /// Those that have ended meanwhile, and why.
    ended: Vec<(Session, Reason)>,
}

/// Reads the live sessions, on as many threads as there are cores: their refs are hashes, so each
/// has its share of them.
fn read_all(
    store: &dyn Store,
    records: (&Identity, &Things),
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX);
    let cut = |part: usize| [u8::try_from(part * 256 / threads).unwrap_or(u8::MAX)];
    let cuts: Vec<_> = (1..threads).map(cut).collect();
    let part = |number: usize| {
        let from = number.checked_sub(1).and_then(|before| cuts.get(before));
        let from = from.map_or(Bound::Unbounded, |cut| Bound::Included(&cut[..]));
        let to = cuts.get(number).map_or(Bound::Unbounded, |cut| Bound::Excluded(&cut[..]));
        read_part(store, records, (from, to), now)
    };
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|number| scope.spawn(move || part(number))).collect();
        let first = part(0);
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(first).chain(others).collect::<Vec<_>>()
    });
    let mut all = Stored::default();
    for part in parts {
        let Stored { live, ended } = part?;
        all.live.extend(live);
        all.ended.extend(ended);
    }
    Ok(all)
}

/// Reads the live sessions with refs in a range.
fn read_part(
    store: &dyn Store,
    (identity, things): (&Identity, &Things),
    range: (Bound<&[u8]>, Bound<&[u8]>),
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let (mut found, mut principals) = (Stored::default(), Principals::new(identity));
    scan(store, Table::Sessions, range, |(key, value)| {
        let record: SessionRecord = rows::decode(Table::Sessions, key, value)?;
        let Some(session) = record.restore(&mut principals) else {
            return store.commit(&[delete(Table::Sessions, key)]);
        };
        let (due, overdue) = session.deadline();
        let ended = match session.lifetime() {
            Lifetime::Connection => Some(Reason::ServerStopped),
            Lifetime::Until(_) => match session.unwelcome(now) {
                // The server was killed before all that a ban or a deletion ended was stored.
                Some(reason) => Some(reason),
                // Now, not at the wheel's next turn: a command before that would bring it to life.
                None if due <= now => Some(overdue),
                None => things.unwelcome(session.who(), now)?,
            },
        };
        match ended {
            Some(reason) => found.ended.push((session, reason)),
            None => found.live.push(session),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Sessions that have ended with the server's stop, to be stored together: there may be as many as
/// there were connections.
#[derive(Default)]
struct Ends {
    batch: Batch,
    seen: BTreeMap<(OrgId, ThingId), Seen>,
}

impl Ends {
    fn add(
        &mut self,
        session: &Session,
        connections: &ConnectionHistory,
    ) -> Result<(), StoreError> {
        self.batch.delete(Table::Sessions, *session.reference().as_bytes());
        put_ended(&mut self.batch, session, connections)?;
        connections.count_ended(session);
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
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    mut visit: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut last_read: Option<Vec<u8>> = None;
    loop {
        let start = last_read.as_deref().map_or(from, Bound::Excluded);
        let page: Vec<Row> = store.scan(table, start, to, SCAN_ROWS)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        last_read = Some(last.clone());
        page.iter().try_for_each(&mut visit)?;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{ConnInfo, Protocol, ThingKey};

    use super::super::tests::{NOW, demo};
    use super::super::{App, Credentials};
    use super::*;
    use crate::config::Config;

    /// What is stored when the server is killed behind a ban or a deletion, before the ends that
    /// follow from it.
    #[tokio::test]
    async fn sessions_of_things_that_were_banned_or_deleted_before_a_kill_have_ended() {
        let (app, store) = demo();
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let conn = ConnInfo::new(Protocol::Http, remote_addr);
        let mut sessions = Vec::new();
        for key in ["banned", "deleted", "welcome"] {
            let credentials = Credentials::Application {
                thing_key: key.into(),
                token: "demo-token-basicorg".into(),
                app_id: String::new(),
            };
            let session = app.login_unbound(credentials, conn, NOW).await.expect("welcome");
            sessions.push(session.uuid());
        }
        let org = app.records.org_by_key("BasicOrg").expect("of the demo").id;
        let key = |text| ThingKey::parse(text).expect("a key");
        let banned = app.things.change(org, &key("banned"), |thing| thing.ban.disabled = true);
        let (_, receipt) = banned.expect("no conflict").expect("it is there");
        receipt.await.expect("stored");
        let deleted = app.things.remove(org, &key("deleted"), |_, _| ());
        let (_, receipt) = deleted.expect("read").expect("it is there");
        receipt.await.expect("stored");
        drop(app);

        let app = App::open(Config::default(), store, &[], Some(Arc::new(NOW))).expect("opened");
        let end = |uuid| app.sessions.by_uuid(uuid).expect("known").end().map(|end| end.reason);
        let ends: Vec<_> = sessions.into_iter().map(end).collect();
        assert_eq!(ends, [Some(Reason::Banned), Some(Reason::Revoked), None]);
    }
}
