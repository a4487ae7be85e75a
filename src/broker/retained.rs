//! Retained messages: the last one of each topic (MQTT 3.3.1.3). They are in the store only; in
//! memory there are their number and size.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{OrgId, Timestamp, topic};
use store::{Batch, StoreError, Table, Tables};

use super::limits;
use super::message::Message;

/// The retained messages of all organisations.
pub(super) struct Retained {
    tables: Tables,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether those in the store are counted; until then there may be some.
    counted: AtomicBool,
}

/// There is no room for another retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// Some of the retained messages under a filter.
pub(super) struct Page {
    pub messages: Vec<Message>,
    /// The topic to go on behind; none: there are no more.
    pub after: Option<Vec<u8>>,
}

impl Retained {
    /// Those of a store, not counted yet.
    pub(super) const fn new(tables: Tables) -> Self {
        let (messages, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { tables, messages, bytes, counted: AtomicBool::new(false) }
    }

    /// Counts what is in the store.
    pub(super) fn count(&self) -> Result<(), StoreError> {
        store::rows::for_each_row(self.tables.store(), Table::Retained, |(key, value)| {
            self.add(key.len() + value.len());
            Ok(())
        })?;
        self.counted.store(true, Ordering::Release);
        Ok(())
    }

    /// How many there are.
    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.messages() == 0 && self.counted.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        // What was not counted yet when it went.
        let less = |value: usize, by| Some(value.saturating_sub(by));
        let _ = self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| less(n, 1));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| less(n, bytes));
    }

    /// Puts a message in the place of the one before, or removes that if the message is empty.
    /// Without room the one before is gone too: it is no longer the last one. Called in the
    /// organisation's order, and the batch is submitted in it.
    pub(super) fn change(
        &self,
        org: OrgId,
        message: &Message,
        batch: &mut Batch,
    ) -> Result<Result<(), Full>, StoreError> {
        let key = key(org, message.topic());
        if let Some(before) = self.tables.read(Table::Retained, &key)? {
            self.subtract(key.len() + before.len());
            if let Some(end) = Message::from_row(&before).and_then(|before| before.ends()) {
                batch.delete(Table::RetainedEnds, end_key(end, &key));
            }
            batch.delete(Table::Retained, key.clone());
        }
        if message.payload().is_empty() {
            return Ok(Ok(()));
        }
        let mut row = Vec::new();
        message.put_row(&mut row);
        let size = key.len() + row.len();
        let full = self.messages() >= limits::RETAINED_MESSAGES_MAX
            || self.bytes.load(Ordering::Relaxed) + size > limits::RETAINED_BYTES_MAX;
        if full || message.topic().len() > limits::RETAINED_TOPIC_BYTES_MAX {
            return Ok(Err(Full));
        }
        self.add(size);
        if let Some(end) = message.ends() {
            batch.put(Table::RetainedEnds, end_key(end, &key), "");
        }
        batch.put(Table::Retained, key, row);
        Ok(Ok(()))
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
        Ok(row.and_then(|row| Message::from_row(&row)).filter(|message| !message.expired(now)))
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
                    && let Some(message) = Message::from_row(&row)
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
        if let Some(row) = found
            && Message::from_row(&row).is_none_or(|message| message.expired(now))
        {
            self.subtract(key.len() + row.len());
            batch.delete(Table::Retained, key);
        }
        batch.delete(Table::RetainedEnds, end);
        drop(self.tables.submit(batch)?);
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
        let mut batch = Batch::default();
        for (key, row) in rows {
            self.subtract(key.len() + row.len());
            if let Some(end) = Message::from_row(&row).and_then(|message| message.ends()) {
                batch.delete(Table::RetainedEnds, end_key(end, &key));
            }
            batch.delete(Table::Retained, key);
        }
        drop(self.tables.submit(batch)?);
        Ok(last)
    }
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
    use std::sync::Arc;

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
            let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os);
            let retained = Retained::new(tables.clone());
            retained.count().expect("counted");
            Self { retained, tables }
        }

        fn keep(&self, org: OrgId, name: &str, payload: &[u8], expiry: Option<u32>) {
            let properties = PublishProperties { expiry, ..Default::default() };
            let message = Message::new(name, payload, (QoS::AtLeastOnce, true), &properties, NOW);
            let mut batch = Batch::default();
            let kept = self.retained.change(org, &message, &mut batch).expect("the store works");
            kept.expect("room");
            drop(self.tables.submit(batch).expect("room"));
        }

        async fn topics(&self, org: OrgId, filter: &str, now: Timestamp) -> BTreeSet<String> {
            self.tables.writer().barrier().expect("room").await.expect("committed");
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
