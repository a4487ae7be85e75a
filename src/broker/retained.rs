//! Retained messages: the last one of each topic (MQTT 3.3.1.3). They are in the store only; in
//! memory there are their number and size, by who has published them.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::pool::{OverShare, Pool, Usage};
use base::shares::Shares;
use base::{ApplicationId, OrgId, Timestamp, UserId, topic};
use parking_lot::Mutex;
use rules::directory::PrincipalId;
use store::{Batch, Receipt, StoreError, Table, Tables};

use super::message::Message;
use super::publishing::Publisher;
use super::shares::{Disk, Holder, NOBODY};
use super::{BrokerConfig, limits, rows};

/// The retained messages of all organisations.
pub(super) struct Retained {
    tables: Tables,
    shares: Mutex<RetainedShares>,
    usage: Arc<Usage>,
    /// Whether those in the store are counted; until then there may be some.
    counted: AtomicBool,
}

/// Why a message is not retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unretained {
    /// Its topic is longer than a key of the store.
    Topic,
    /// There is no room for it.
    Over(OverShare),
}

/// Some of the retained messages under a filter.
pub(super) struct Page {
    pub messages: Vec<Message>,
    /// The topic to go on behind; none: there are no more.
    pub after: Option<Vec<u8>>,
}

/// How much there is of whom.
struct RetainedShares {
    messages: Shares<PrincipalId>,
    bytes: Shares<PrincipalId>,
    /// Set while the rows of the store are counted.
    counting: Option<Counting>,
}

/// What is counted already.
#[derive(Default)]
struct Counting {
    /// All rows up to this key.
    upto: Option<Vec<u8>>,
    /// And those that have changed meanwhile.
    changed: HashSet<Vec<u8>>,
}

/// A message, as it is counted.
#[derive(Clone, Copy)]
struct Entry {
    holder: Holder,
    bytes: u64,
}

/// A message in the place of another, as it is counted.
struct Change {
    before: Option<Entry>,
    after: Option<Entry>,
}

impl Entry {
    fn new(org: OrgId, key: &[u8], row: &[u8]) -> Self {
        let (principal, _) = split(row);
        Self { holder: (org, principal), bytes: (key.len() + row.len()) as u64 }
    }
}

impl RetainedShares {
    fn knows(&self, key: &[u8]) -> bool {
        self.counting.as_ref().is_none_or(|counting| {
            counting.upto.as_deref().is_some_and(|upto| key <= upto)
                || counting.changed.contains(key)
        })
    }

    /// Counts a message in the place of another. What takes no more room than what was there is not
    /// refused, whoever is above the share: nothing is added.
    fn change(
        &mut self,
        key: &[u8],
        before: Option<Entry>,
        after: Option<Entry>,
    ) -> Result<Change, OverShare> {
        let mut taken = 0;
        if let Some(Entry { holder: (org, who), bytes }) = after {
            taken = bytes.saturating_sub(before.map_or(0, |before| before.bytes));
            if before.is_none() {
                self.messages.take(org, who, 1)?;
            }
            if taken > 0
                && let Err(over) = self.bytes.take(org, who, taken)
            {
                if before.is_none() {
                    self.messages.give_back(org, who, 1);
                }
                return Err(over);
            }
        }
        if let Some(before) = before {
            if self.knows(key) {
                self.give_back(before);
            }
            if let Some(Entry { holder: (org, who), bytes }) = after {
                self.messages.hold(org, who, 1);
                self.bytes.hold(org, who, bytes - taken);
            }
        }
        if let Some(counting) = &mut self.counting {
            counting.changed.insert(key.to_vec());
        }
        Ok(Change { before, after })
    }

    /// Has it be as before: the store did not take it.
    fn undo(&mut self, Change { before, after }: Change) {
        after.into_iter().for_each(|after| self.give_back(after));
        if let Some(Entry { holder: (org, who), bytes }) = before {
            self.messages.hold(org, who, 1);
            self.bytes.hold(org, who, bytes);
        }
    }

    fn give_back(&mut self, Entry { holder: (org, who), bytes }: Entry) {
        self.messages.give_back(org, who, 1);
        self.bytes.give_back(org, who, bytes);
    }

    /// Counts rows that were found in the store, in order.
    fn count(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) {
        let Some(counting) = &mut self.counting else { return };
        let mut found: HashMap<Holder, (u64, u64)> = HashMap::new();
        for (key, row) in rows.iter().filter(|(key, _)| !counting.changed.contains(key)) {
            let Some(org) = key.first_chunk() else { continue };
            let entry = Entry::new(OrgId::from_bytes(*org), key, row);
            let (messages, bytes) = found.entry(entry.holder).or_default();
            (*messages, *bytes) = (*messages + 1, *bytes + entry.bytes);
        }
        if let Some((last, _)) = rows.last() {
            counting.upto = Some(last.clone());
        }
        for ((org, who), (messages, bytes)) in found {
            self.messages.hold(org, who, messages);
            self.bytes.hold(org, who, bytes);
        }
    }
}

impl Retained {
    /// Those of a store, not counted yet.
    pub(super) fn new(tables: Tables, config: &BrokerConfig, disk: &Arc<Disk>) -> Self {
        let shares = RetainedShares {
            messages: Shares::new(Pool::RetainedMessages, config.retained_max, disk.pools()),
            bytes: Shares::new(Pool::RetainedBytes, config.retained_bytes_max, disk.pools())
                .within(disk.clone()),
            counting: Some(Counting::default()),
        };
        let usage = disk.pools().usage(Pool::RetainedMessages).clone();
        Self { tables, shares: Mutex::new(shares), usage, counted: AtomicBool::new(false) }
    }

    /// Counts what is in the store, while it changes.
    pub(super) fn count(&self) -> Result<(), StoreError> {
        let count = |rows: &[_]| self.shares.lock().count(rows);
        let counted = rows::for_each_page(&self.tables, Table::Retained, count);
        // Those that are not, if it failed, are not given back either.
        self.shares.lock().counting = None;
        counted?;
        self.counted.store(true, Ordering::Release);
        Ok(())
    }

    /// How many there are.
    pub(super) fn messages(&self) -> usize {
        self.usage.used() as usize
    }

    /// Whether an organisation has some.
    pub(super) fn has_some(&self, org: OrgId) -> bool {
        self.shares.lock().messages.held_by(org) > 0
    }

    fn is_empty(&self) -> bool {
        self.messages() == 0 && self.counted.load(Ordering::Acquire)
    }

    /// Puts a message in the place of the one before, or removes that if the message is empty. Without
    /// room, a publisher that hears of it has changed nothing; with one that does not, the one before is
    /// gone: it is no longer the last one. Called in the organisation's order, when the store has room.
    pub(super) fn change(
        &self,
        org: OrgId,
        message: &Message,
        by: &Publisher<'_>,
    ) -> Result<(Receipt, Option<Unretained>), StoreError> {
        let key = key(org, message.topic());
        let row_before = self.tables.read(Table::Retained, &key)?;
        let before = row_before.as_ref().map(|row| Entry::new(org, &key, row));
        let mut row = Vec::new();
        let mut unretained = None;
        if message.topic().len() > limits::RETAINED_TOPIC_BYTES_MAX {
            unretained = Some(Unretained::Topic);
        } else if !message.payload().is_empty() {
            put_owner(by.principal, &mut row);
            message.put_row(&mut row);
        }
        let after = (!row.is_empty()).then(|| Entry::new(org, &key, &row));
        let mut shares = self.shares.lock();
        let change = match shares.change(&key, before, after) {
            Ok(change) => change,
            Err(over) if by.hears => return Ok((Receipt::nothing(), Some(Unretained::Over(over)))),
            Err(over) => {
                unretained = Some(Unretained::Over(over));
                row.clear();
                // What only goes is not refused.
                let Ok(change) = shares.change(&key, before, None) else {
                    return Ok((Receipt::nothing(), unretained));
                };
                change
            }
        };
        drop(shares);
        let mut batch = Batch::default();
        if let Some(before) = row_before {
            delete_row(&key, &before, &mut batch);
        }
        if !row.is_empty() {
            if let Some(end) = message.ends() {
                batch.put(Table::RetainedEnds, end_key(end, &key), "");
            }
            batch.put(Table::Retained, key, row);
        }
        let submitted = self.tables.submit_admitted(batch);
        Ok((self.settle(submitted, [change])?, unretained))
    }

    /// What is counted already, and was not taken by the store, does not count.
    fn settle(
        &self,
        submitted: Result<Receipt, StoreError>,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Receipt, StoreError> {
        submitted.inspect_err(|_| {
            let mut shares = self.shares.lock();
            changes.into_iter().for_each(|change| shares.undo(change));
        })
    }

    /// Takes a message out, and adds that to a batch.
    fn remove(&self, key: Vec<u8>, row: &[u8], batch: &mut Batch) -> Option<Change> {
        delete_row(&key, row, batch);
        let org = OrgId::from_bytes(*key.first_chunk()?);
        let before = Some(Entry::new(org, &key, row));
        self.shares.lock().change(&key, before, None).ok()
    }

    /// The message of a topic.
    pub(super) fn get(
        &self,
        org: OrgId,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Message>, StoreError> {
        if self.is_empty() {
            return Ok(None);
        }
        let row = self.tables.read(Table::Retained, &key(org, name))?;
        Ok(row.and_then(|row| read(&row)).filter(|message| !message.expired(now)))
    }

    /// Whether an organisation may have some under filters with wildcards.
    pub(super) fn may_have_some(&self) -> bool {
        !self.is_empty()
    }

    /// Some of the messages under a filter with wildcards, by topic, behind `after`. Those that are
    /// not committed yet are not seen.
    pub(super) fn page(
        &self,
        org: OrgId,
        filter: &str,
        after: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        // Everything under a filter begins with what stands before its first wildcard, except
        // that `a/#` matches `a` too.
        let fixed = filter.split(['+', '#']).next().unwrap_or_default();
        let prefix = key(org, fixed.strip_suffix('/').unwrap_or(fixed));
        let (mut messages, mut bytes, mut looks) = (Vec::new(), 0, 0);
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let limit = limits::PAGE_ROWS;
            let rows =
                self.tables.scan_prefix(Table::Retained, &prefix, after.as_deref(), limit)?;
            let last = rows.len() < limit;
            for (key, row) in rows {
                let name = key.get(org.as_bytes().len()..).unwrap_or_default();
                let name = std::str::from_utf8(name).unwrap_or_default();
                looks += 1;
                if topic::matches(filter, name)
                    && let Some(message) = read(&row)
                    && !message.expired(now)
                {
                    bytes += message.len();
                    messages.push(message);
                }
                after = Some(key);
                if messages.len() >= limits::PAGE_ROWS || bytes >= limits::PAGE_BYTES {
                    return Ok(Page { messages, after });
                }
            }
            if last {
                return Ok(Page { messages, after: None });
            }
            if looks >= limits::PAGE_LOOKS {
                return Ok(Page { messages, after });
            }
        }
    }

    /// Some of the ends that have come, behind `after`.
    pub(super) fn due(
        &self,
        now: Timestamp,
        after: Option<&[u8]>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = now.plus_millis(1).as_millis().to_be_bytes();
        let (from, to) =
            (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Excluded(&end[..]));
        let rows = self.tables.scan(Table::RetainedEnds, from, to, 1000)?;
        Ok(rows.into_iter().map(|(end, _)| end).collect())
    }

    /// Whose message an end is of.
    pub(super) fn org_of(end: &[u8]) -> Option<OrgId> {
        end.get(8..)?.first_chunk().map(|bytes| OrgId::from_bytes(*bytes))
    }

    /// Removes the message of an end that has come, if it is there still. Called in the organisation's
    /// order.
    pub(super) fn end(&self, end: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let key = end.get(8..).unwrap_or_default();
        let found = self.tables.read(Table::Retained, key)?;
        let over = found.filter(|row| read(row).is_none_or(|message| message.expired(now)));
        let change = over.and_then(|row| self.remove(key.to_vec(), &row, &mut batch));
        batch.delete(Table::RetainedEnds, end);
        drop(self.settle(self.tables.submit(batch), change)?);
        Ok(())
    }

    /// Removes some of an organisation that is gone, behind `after`; behind which there are more.
    pub(super) fn forget(
        &self,
        org: OrgId,
        after: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.tables.scan_prefix(Table::Retained, org.as_bytes(), after, 1000)?;
        let last = rows.last().map(|(key, _)| key.clone());
        let (mut batch, mut changes) = (Batch::default(), Vec::new());
        for (key, _) in rows {
            // It may have changed since it was committed.
            if let Some(row) = self.tables.read(Table::Retained, &key)? {
                changes.extend(self.remove(key, &row, &mut batch));
            }
        }
        drop(self.settle(self.tables.submit(batch), changes)?);
        Ok(last)
    }
}

/// How a row begins that says who has published its message. One of an earlier program is the message
/// alone, which begins otherwise.
const WITH_OWNER: u8 = 2;

const USER: u8 = b'u';
const APPLICATION: u8 = b'a';

fn put_owner(principal: PrincipalId, row: &mut Vec<u8>) {
    let (kind, id) = match &principal {
        PrincipalId::User(id) => (USER, id.as_bytes()),
        PrincipalId::Application(id) => (APPLICATION, id.as_bytes()),
    };
    row.extend_from_slice(&[WITH_OWNER, kind]);
    row.extend_from_slice(id);
}

/// Whose a row is, and the message's own row.
fn split(row: &[u8]) -> (PrincipalId, &[u8]) {
    let owned = row.strip_prefix(&[WITH_OWNER]).and_then(|rest| {
        let (kind, rest) = rest.split_first()?;
        let (id, row) = rest.split_first_chunk()?;
        let principal = match *kind {
            USER => PrincipalId::User(UserId::from_bytes(*id)),
            _ => PrincipalId::Application(ApplicationId::from_bytes(*id)),
        };
        Some((principal, row))
    });
    owned.unwrap_or((NOBODY, row))
}

fn read(row: &[u8]) -> Option<Message> {
    Message::from_row(split(row).1)
}

fn delete_row(key: &[u8], row: &[u8], batch: &mut Batch) {
    if let Some(end) = read(row).and_then(|message| message.ends()) {
        batch.delete(Table::RetainedEnds, end_key(end, key));
    }
    batch.delete(Table::Retained, key);
}

fn key(org: OrgId, name: &str) -> Vec<u8> {
    [org.as_bytes(), name.as_bytes()].concat()
}

fn end_key(end: Timestamp, key: &[u8]) -> Vec<u8> {
    [&end.as_millis().to_be_bytes()[..], key].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base::pool::Whose;
    use mqtt::{PublishProperties, QoS};
    use proptest::prelude::*;
    use store::{Durability, memory::MemoryStore};

    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    struct Rig {
        retained: Retained,
        tables: Tables,
    }

    impl Rig {
        fn new() -> Self {
            Self::with(super::super::tests::CONFIG)
        }

        fn with(config: BrokerConfig) -> Self {
            let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os, &Arc::default());
            let rig = Self::on(tables, config);
            rig.retained.count().expect("counted");
            rig
        }

        /// Not counted yet.
        fn on(tables: Tables, config: BrokerConfig) -> Self {
            Self { retained: Retained::new(tables.clone(), &config, &Arc::default()), tables }
        }

        fn keep(&self, org: OrgId, name: &str, payload: &[u8], expiry: Option<u32>) {
            let properties = PublishProperties { expiry, ..Default::default() };
            let message = Message::new(name, payload, (QoS::AtLeastOnce, true), &properties, NOW);
            assert_eq!(self.change(org, &message, user(1), true), None);
        }

        fn change(
            &self,
            org: OrgId,
            message: &Message,
            principal: PrincipalId,
            hears: bool,
        ) -> Option<Unretained> {
            let by = Publisher { session: None, principal, hears };
            self.retained.change(org, message, &by).expect("the store works").1
        }

        /// Publishes for this user; whose share does not allow it.
        fn publish(
            &self,
            user_number: u8,
            name: &str,
            payload: &[u8],
            hears: bool,
        ) -> Option<Whose> {
            let properties = PublishProperties::default();
            let message = Message::new(name, payload, (QoS::AtLeastOnce, true), &properties, NOW);
            match self.change(ORG, &message, user(user_number), hears) {
                Some(Unretained::Over(over)) => Some(over.whose),
                Some(Unretained::Topic) => panic!("a short topic"),
                None => None,
            }
        }

        /// Messages and bytes.
        fn used(&self) -> (u64, u64) {
            let shares = self.retained.shares.lock();
            (shares.messages.held(), shares.bytes.held())
        }

        /// The same, as the store has it.
        fn stored(&self) -> (u64, u64) {
            let all = (Bound::Unbounded, Bound::Unbounded);
            let rows = self.tables.scan(Table::Retained, all.0, all.1, 10_000).expect("read");
            let bytes = rows.iter().map(|(key, row)| (key.len() + row.len()) as u64).sum();
            (rows.len() as u64, bytes)
        }

        async fn settle(&self) {
            self.tables.writer().barrier().expect("room").await.expect("committed");
        }

        async fn topics(&self, org: OrgId, filter: &str, now: Timestamp) -> BTreeSet<String> {
            self.settle().await;
            let (mut found, mut after) = (BTreeSet::new(), None);
            loop {
                let page = self.retained.page(org, filter, after.as_deref(), now).expect("read");
                found.extend(page.messages.iter().map(|message| message.topic().to_owned()));
                after = page.after;
                if after.is_none() {
                    return found;
                }
            }
        }
    }

    fn user(number: u8) -> PrincipalId {
        PrincipalId::User(UserId::from_bytes([number; 12]))
    }

    #[tokio::test]
    async fn who_is_above_the_share_changes_nothing_or_has_none() {
        let config = BrokerConfig { retained_max: 32, ..super::super::tests::CONFIG };
        let rig = Rig::with(config);
        let refused = (0..).find_map(|n| rig.publish(1, &format!("a/{n}"), b"1", true));
        assert_eq!(refused, Some(Whose::Principal));
        assert_eq!(rig.publish(2, "b", b"1", true), None, "another one of the organisation");
        // What adds nothing is not refused, and goes over to who published it last.
        assert_eq!(rig.publish(1, "a/0", b"2", true), None);
        assert_eq!(rig.publish(1, "b", b"2", true), None);
        assert_eq!(rig.publish(1, "new", b"x", true), Some(Whose::Org));
        assert_eq!(rig.publish(1, "a/0", b"", true), None);
        rig.settle().await;
        assert_eq!(rig.used(), rig.stored());
    }

    #[tokio::test]
    async fn a_longer_message_without_room_leaves_the_one_before_or_none() {
        let config = BrokerConfig { retained_bytes_max: 4096, ..super::super::tests::CONFIG };
        let rig = Rig::with(config);
        let text = |name: &str| {
            let found = rig.retained.get(ORG, name, NOW).expect("read");
            found.map(|message| String::from_utf8_lossy(message.payload()).into_owned())
        };
        assert_eq!(rig.publish(1, "a", b"old", true), None);
        let long = [b'x'; 4096];
        assert_eq!(rig.publish(1, "a", &long, true), Some(Whose::Org));
        assert_eq!(text("a").as_deref(), Some("old"));
        assert_eq!(rig.publish(1, "a", &long, false), Some(Whose::Org));
        assert_eq!((text("a"), rig.used()), (None, (0, 0)));
    }

    #[tokio::test]
    async fn the_last_message_of_a_topic_is_kept_until_its_end() {
        let rig = Rig::new();
        rig.keep(ORG, "a", b"1", None);
        rig.keep(ORG, "a", b"2", Some(10));
        rig.keep(ORG, "b", b"1", None);
        rig.keep(OTHER, "b", b"1", None);
        assert_eq!(rig.retained.messages(), 3);
        let get = |now| rig.retained.get(ORG, "a", now).expect("read");
        assert_eq!(get(NOW).map(|message| message.payload().to_vec()), Some(b"2".to_vec()));
        let later = NOW.plus_seconds(10);
        assert!(get(later).is_none());
        assert_eq!(rig.topics(ORG, "#", later).await.len(), 1);
        let ends = rig.retained.due(later, None).expect("read");
        assert_eq!(ends.iter().map(|end| Retained::org_of(end)).collect::<Vec<_>>(), [Some(ORG)]);
        for end in ends {
            rig.retained.end(&end, later).expect("removed");
        }
        assert_eq!(rig.retained.messages(), 2);
        rig.keep(ORG, "b", b"", None);
        assert_eq!(rig.topics(ORG, "#", NOW).await.len(), 0);
        assert_eq!(rig.retained.messages(), 1);
        assert!(rig.retained.forget(OTHER, None).expect("removed").is_some());
        assert_eq!((rig.retained.messages(), rig.topics(OTHER, "#", NOW).await.len()), (0, 0));
    }

    #[tokio::test]
    async fn many_come_in_pages() {
        let rig = Rig::new();
        for number in 0..3 * limits::PAGE_ROWS {
            rig.keep(ORG, &format!("a/{number}"), b"1", None);
        }
        assert_eq!(rig.topics(ORG, "a/+", NOW).await.len(), 3 * limits::PAGE_ROWS);
        assert_eq!(rig.topics(ORG, "+/7", NOW).await.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// While it is counted at a start and behind that, whatever comes and goes.
        #[test]
        fn what_is_counted_is_what_is_stored(
            stored in prop::collection::vec((0_u8..8, 0_usize..9), 0..12),
            steps in prop::collection::vec((0_u8..8, 0_u8..3, 0_usize..9), 0..30),
            counted_after in 0_usize..30,
            rows_at_once in 1_usize..4,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let before = Rig::new();
                for (name, bytes) in stored {
                    let _ = before.publish(0, &name.to_string(), &vec![b'x'; bytes], true);
                }
                before.settle().await;
                let config = BrokerConfig {
                    retained_max: 16,
                    retained_bytes_max: 500,
                    ..super::super::tests::CONFIG
                };
                let rig = Rig::on(before.tables, config);
                let mut after: Option<Vec<u8>> = None;
                let mut is_counted = false;
                for (index, (name, who, bytes)) in steps.into_iter().enumerate() {
                    if index >= counted_after && !is_counted {
                        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                        let to = Bound::Unbounded;
                        let rows = rig.tables.scan(Table::Retained, from, to, rows_at_once);
                        let rows = rows.expect("read");
                        after = rows.last().map(|(key, _)| key.clone());
                        is_counted = rows.is_empty();
                        rig.retained.shares.lock().count(&rows);
                    }
                    if is_counted {
                        rig.retained.shares.lock().counting = None;
                    }
                    let hears = bytes % 2 == 0;
                    let _ = rig.publish(who, &name.to_string(), &vec![b'x'; bytes], hears);
                }
                rig.settle().await;
                if !is_counted {
                    let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                    let rows = rig.tables.scan(Table::Retained, from, Bound::Unbounded, 100);
                    rig.retained.shares.lock().count(&rows.expect("read"));
                }
                prop_assert_eq!(rig.used(), rig.stored());
                rig.retained.forget(ORG, None).expect("removed");
                prop_assert_eq!(rig.used(), (0, 0));
                Ok(())
            })?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn a_filter_finds_what_a_scan_finds(
            names in prop::collection::btree_set("[ab]{1,2}(/[ab]{0,2}){0,2}", 0..20),
            filter in "([ab+]|[ab]{2})(/[ab+]){0,2}/(#|\\+)|#",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let rig = Rig::new();
                for name in &names {
                    rig.keep(ORG, name, b"1", None);
                    rig.keep(OTHER, name, b"1", None);
                }
                let expected: BTreeSet<_> =
                    names.into_iter().filter(|name| topic::matches(&filter, name)).collect();
                prop_assert_eq!(rig.topics(ORG, &filter, NOW).await, expected);
                Ok(())
            })?;
        }
    }
}
