//! Who lived at a time: those that live still or ended a moment ago are in memory, the others on
//! disk.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use base::{OrgId, Timestamp};
use rules::directory::as_of::Rank;
use rules::directory::query::{Common, GroupBy, Listing, Query};
use rules::directory::record::{Principals, SessionRecord};
use rules::directory::{Session, Status};
use rules::identity::model::Org;
use store::{StoreError, Table, rows};

use super::row;
use crate::app::App;

/// Ends may wait so long for the store; until then they are looked for in memory, too.
const WAITING_S: i64 = 600;

/// Rows read at once.
const PAGE_ROWS: usize = 1000;

/// A question of who lived at a time.
#[derive(Clone, Debug)]
pub struct AsOf {
    /// When.
    pub at: Timestamp,
    /// Counts them by this instead of listing them.
    pub group_by: Option<GroupBy>,
}

/// Who lived at a time.
pub struct Then {
    /// Whether some may be missing: the history does not go back so far, or not with all.
    pub truncated: bool,
    /// The page that is asked for; empty if they are counted by something.
    pub listing: Listing,
    /// How many of each group there were, the largest first.
    pub groups: Vec<(Common, usize)>,
}

/// One that lived then.
enum Found {
    Known(Arc<Session>),
    /// Its row.
    Stored(Vec<u8>),
}

impl App {
    /// Who was in an organisation at a time. It reads, of those that ended since, about twice as many
    /// as it finds, and of those that lived for less than an hour the ends of the hour after it.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub fn sessions_as_of(
        &self,
        org: &Arc<Org>,
        query: &Query,
        asked: &AsOf,
        now: Timestamp,
    ) -> Result<Then, StoreError> {
        if let Some(then) = self.remembered(org, query, asked, now) {
            return Ok(then);
        }
        let mut search = Search::new(self, org, query, asked);
        // In this order: what ends meanwhile is in both rather than in none.
        let mut known = self.sessions.in_org(org.id);
        known.extend(self.ended_lately(org.id, asked.at, now));
        known.retain(|session| session.was_here(asked.at));
        let truncated = self.is_history_truncated(org.id, asked.at, now);
        let seen = |session: &Arc<Session>| row::beginning(session.reference());
        let mut seen_before: HashSet<[u8; 8]> = HashSet::with_capacity(known.len());
        for session in known {
            if seen_before.insert(seen(&session)) {
                search.add_session(session);
            }
        }
        self.connection_history.visit(org.id, asked.at, |key, value| {
            if seen_before.contains(&key.reference) { Ok(()) } else { search.add_row(key, value) }
        })?;
        search.into_answer(truncated)
    }

    /// Whether the answer takes so long that it is looked for apart from connections: always if it
    /// is on the disk.
    pub fn is_as_of_long(&self, org: OrgId, query: &Query, asked: &AsOf) -> bool {
        !self.sessions.remembers(org, asked.at)
            || self.sessions.is_long(org, &in_memory(query, asked))
    }

    /// The answer if all that lived then is in memory.
    fn remembered(&self, org: &Org, query: &Query, asked: &AsOf, now: Timestamp) -> Option<Then> {
        if !self.sessions.remembers(org.id, asked.at) {
            return None;
        }
        let query = in_memory(query, asked);
        let (listing, groups) = match asked.group_by {
            Some(by) => {
                let (count, groups) = self.sessions.groups(org.id, &query.filter, by);
                (Listing { count, sessions: Vec::new() }, groups)
            }
            None => (self.sessions.list(org.id, &query), Vec::new()),
        };
        let truncated = self.is_history_truncated(org.id, asked.at, now);
        let then = Then { truncated, listing, groups };
        self.sessions.remembers(org.id, asked.at).then_some(then)
    }

    /// Whether the history does not go back to a time, or not with all that lived then.
    pub fn is_history_truncated(&self, org: OrgId, at: Timestamp, now: Timestamp) -> bool {
        self.connection_history.is_truncated(org, at, self.clock.settled(now))
    }

    fn ended_lately(&self, org: OrgId, at: Timestamp, now: Timestamp) -> Vec<Arc<Session>> {
        let mut query = Query { limit: usize::MAX, ..Query::default() };
        query.filter.status = Some(Status::ALL[1..].to_vec());
        query.filter.ended_after = Some(match self.connection_history.is_kept() {
            true => at.max(now.plus_millis(-WAITING_S * 1000)),
            false => at,
        });
        self.sessions.list(org, &query).sessions
    }
}

/// The question as the directory is asked.
fn in_memory(query: &Query, asked: &AsOf) -> Query {
    let mut query = query.clone();
    query.filter.lived_at = Some(asked.at);
    query
}

impl super::ConnectionHistory {
    /// Whether some that lived at a time may be missing.
    fn is_truncated(&self, org: OrgId, at: Timestamp, now: Timestamp) -> bool {
        !self.is_kept()
            || at < self.since.max(self.kept_from(now))
            || self.state.lock().removed(org).is_some_and(|removed| at < removed)
    }

    /// Visits the rows of an organisation whose sessions were in it at a time.
    fn visit(
        &self,
        org: OrgId,
        at: Timestamp,
        mut visit: impl FnMut(row::StayKey, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let first = row::month(at);
        for month in self.tables.connection_months().into_iter().filter(|month| *month >= first) {
            for class in 0..row::CLASSES {
                let reach = row::reach(class, at);
                if month > row::month(reach) {
                    continue;
                }
                let prefix = row::prefix(org, class);
                let end = |time: Timestamp| [&prefix[..], &time.as_millis().to_be_bytes()].concat();
                // Whoever ended in that millisecond did not live then.
                let (mut from, to) = (end(at.plus_millis(1)), end(reach.plus_millis(1)));
                loop {
                    let (after, to) = (Bound::Included(&*from), Bound::Excluded(&*to));
                    let table = Table::Connections(month);
                    let page = self.tables.scan(table, after, to, PAGE_ROWS)?;
                    let Some((last, _)) = page.last() else { break };
                    from = [last, &[0][..]].concat();
                    let is_last = page.len() < PAGE_ROWS;
                    for (key, value) in page {
                        if let Some(key) = row::read_key(&key).filter(|key| key.since <= at) {
                            visit(key, value)?;
                        }
                    }
                    if is_last {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first few of those that are found.
struct Search<'a> {
    app: &'a App,
    org: &'a Arc<Org>,
    query: &'a Query,
    group_by: Option<GroupBy>,
    principals: Principals<'a>,
    /// Whether rows need not be read to be counted and put in order.
    is_plain: bool,
    max: usize,
    count: usize,
    groups: BTreeMap<Common, usize>,
    found: Vec<(Rank, [u8; 8], Found)>,
}

impl<'a> Search<'a> {
    fn new(app: &'a App, org: &'a Arc<Org>, query: &'a Query, asked: &AsOf) -> Self {
        Self {
            app,
            org,
            query,
            group_by: asked.group_by,
            principals: Principals::new(app.identity()),
            is_plain: query.is_page() && asked.group_by.is_none(),
            max: query.offset.saturating_add(query.limit),
            count: 0,
            groups: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    fn add_row(&mut self, key: row::StayKey, value: Vec<u8>) -> Result<(), StoreError> {
        if self.is_plain && !key.switched {
            self.add(Rank::Time(key.since), key.reference, Found::Stored(value));
            return Ok(());
        }
        let session = self.restore(&value)?;
        self.add_session(session);
        Ok(())
    }

    fn restore(&mut self, value: &[u8]) -> Result<Arc<Session>, StoreError> {
        let table = row::table(Timestamp::from_millis(0));
        let record: SessionRecord = rows::decode(table, &[], value)?;
        let session = record.restore_kept(&mut self.principals, self.org);
        // Of one that left, the end may be known.
        let known = || self.app.sessions.by_uuid(session.uuid());
        let end =
            if session.end().is_none() { known().and_then(|known| known.end()) } else { None };
        Ok(Arc::new(match end {
            Some(end) => session.with_end(end),
            None => session,
        }))
    }

    fn add_session(&mut self, session: Arc<Session>) {
        if !self.query.filter.admits(&session) {
            return;
        }
        if let Some(by) = self.group_by {
            self.count += 1;
            *self.groups.entry(by.common(&session)).or_default() += 1;
            return;
        }
        let rank = session.rank(self.query.sort);
        self.add(rank, row::beginning(session.reference()), Found::Known(session));
    }

    fn add(&mut self, rank: Rank, reference: [u8; 8], found: Found) {
        self.count += 1;
        self.found.push((rank, reference, found));
        if self.found.len() / 2 > self.max.saturating_add(PAGE_ROWS) {
            self.cut();
        }
    }

    /// Lets go of all but the first.
    fn cut(&mut self) {
        let ascending = self.query.ascending;
        self.found.sort_unstable_by(|(a, x, _), (b, y, _)| {
            let order = (a, x).cmp(&(b, y));
            if ascending { order } else { order.reverse() }
        });
        self.found.truncate(self.max);
    }

    fn into_answer(mut self, truncated: bool) -> Result<Then, StoreError> {
        self.cut();
        let mut sessions = Vec::new();
        for (_, _, found) in std::mem::take(&mut self.found).into_iter().skip(self.query.offset) {
            sessions.push(match found {
                Found::Known(session) => session,
                Found::Stored(value) => self.restore(&value)?,
            });
        }
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_by(|(a, more), (b, fewer)| fewer.cmp(more).then(a.cmp(b)));
        Ok(Then { truncated, listing: Listing { count: self.count, sessions }, groups })
    }
}
