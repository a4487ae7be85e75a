//! Retained messages: the last one of each topic (MQTT 3.3.1.3).
//!
//! They are kept here and not in the router: it has no bound for them, forwards at most a hundred,
//! and loses them when it has to be started again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

use base::{OrgId, topic};

use super::message::Packed;

/// The retained messages of all organisations.
pub(super) struct Retained {
    messages: BTreeMap<(OrgId, Box<str>), Kept>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

struct Kept {
    packed: Packed,
    expires: Option<Instant>,
}

/// There is no room for another retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Retained {
    /// Nothing, and room for that many messages and bytes.
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { messages: BTreeMap::new(), bytes: 0, messages_max, bytes_max }
    }

    /// Keeps a message in the place of the one before. Without room the one before is gone too:
    /// it is no longer the last one.
    pub(super) fn keep(
        &mut self,
        org: OrgId,
        name: &str,
        packed: Packed,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), Full> {
        self.forget(org, name);
        let size = name.len() + packed.bytes().len();
        if !self.has_room(size) {
            self.forget_expired(now);
        }
        if !self.has_room(size) {
            return Err(Full);
        }
        self.bytes += size;
        self.messages.insert((org, name.into()), Kept { packed, expires });
        Ok(())
    }

    /// Forgets the message of a topic.
    pub(super) fn forget(&mut self, org: OrgId, name: &str) {
        if let Some(kept) = self.messages.remove(&(org, name.into())) {
            self.bytes -= name.len() + kept.packed.bytes().len();
        }
    }

    /// The messages under a filter that is not shared, by topic. Each topic that is looked at costs
    /// one of `looks`; there are no more messages when they are used up.
    pub(super) fn matching(
        &self,
        org: OrgId,
        filter: &str,
        looks: &mut usize,
        now: Instant,
    ) -> Vec<Packed> {
        let valid = |kept: &&Kept| kept.expires.is_none_or(|at| at > now);
        if !filter.contains(['+', '#']) {
            let kept = self.messages.get(&(org, filter.into())).filter(valid);
            return kept.map(|kept| kept.packed.clone()).into_iter().collect();
        }
        // Everything under a filter begins with what stands before its first wildcard, except
        // that `a/#` matches `a` too.
        let fixed = filter.split(['+', '#']).next().unwrap_or_default();
        let fixed = fixed.strip_suffix('/').unwrap_or(fixed);
        let from = Bound::Included((org, fixed.into()));
        self.messages
            .range((from, Bound::Unbounded))
            .take_while(|((of, name), _)| {
                let looks_left = looks.checked_sub(1).map(|left| *looks = left).is_some();
                looks_left && *of == org && name.starts_with(fixed)
            })
            .filter(|((_, name), kept)| topic::matches(filter, name) && valid(kept))
            .map(|(_, kept)| kept.packed.clone())
            .collect()
    }

    fn has_room(&self, size: usize) -> bool {
        self.messages.len() < self.messages_max && self.bytes + size <= self.bytes_max
    }

    fn forget_expired(&mut self, now: Instant) {
        let mut freed = 0;
        self.messages.retain(|(_, name), kept| {
            let valid = kept.expires.is_none_or(|at| at > now);
            if !valid {
                freed += name.len() + kept.packed.bytes().len();
            }
            valid
        });
        self.bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use mqtt::QoS;
    use proptest::prelude::*;

    use super::super::message::Message;
    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);

    fn packed(name: &str, payload: &[u8], now: Instant) -> Packed {
        let message = Message {
            topic: name,
            payload,
            qos: QoS::AtMostOnce,
            retain: true,
            properties: &Default::default(),
            publisher: 0,
        };
        Packed::new(&message, now, now).expect("short")
    }

    fn topics(retained: &Retained, org: OrgId, filter: &str, now: Instant) -> Vec<String> {
        let found = retained.matching(org, filter, &mut 100, now);
        let topics = found.iter().filter_map(|packed| packed.unpack(now));
        topics.map(|unpacked| unpacked.topic().to_owned()).collect()
    }

    #[test]
    fn every_topic_that_is_looked_at_is_counted() {
        let now = Instant::now();
        let mut retained = Retained::new(10, 1000);
        for name in ["a/1", "a/2", "b/1", "b/2"] {
            assert_eq!(retained.keep(ORG, name, packed(name, b"1", now), None, now), Ok(()));
        }
        let check = |filter, mut looks, found, left| {
            let packed = retained.matching(ORG, filter, &mut looks, now);
            assert_eq!((packed.len(), looks), (found, left), "{filter}");
        };
        check("#", 10, 4, 6);
        check("+/1", 10, 2, 6);
        check("+/3", 10, 0, 6);
        check("#", 3, 3, 0);
        check("#", 0, 0, 0);
        check("a/1", 0, 1, 0);
    }

    #[test]
    fn full_is_full_until_something_expires() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut retained = Retained::new(2, 1000);
        let soon = Some(now + Duration::from_secs(1));
        assert_eq!(retained.keep(ORG, "a", packed("a", b"1", now), soon, now), Ok(()));
        assert_eq!(retained.keep(ORG, "b", packed("b", b"1", now), None, now), Ok(()));
        assert_eq!(retained.keep(ORG, "c", packed("c", b"1", now), None, now), Err(Full));
        assert_eq!(topics(&retained, ORG, "#", now), ["a", "b"]);
        assert_eq!(topics(&retained, ORG, "a", later), [""; 0]);
        assert_eq!(retained.keep(ORG, "c", packed("c", b"1", later), None, later), Ok(()));
        assert_eq!(topics(&retained, ORG, "#", later), ["b", "c"]);
        let big = packed("b", &[0; 2000], later);
        assert_eq!(retained.keep(ORG, "b", big, None, later), Err(Full));
        assert_eq!(topics(&retained, ORG, "#", later), ["c"]);
        retained.forget(ORG, "c");
        assert_eq!(retained.bytes, 0);
    }

    proptest! {
        #[test]
        fn a_filter_finds_what_a_scan_finds(
            names in prop::collection::btree_set("[ab]{1,2}(/[ab]{0,2}){0,2}", 0..20),
            filter in "([ab+]|[ab]{2})(/[ab+]){0,2}(/#)?|#",
        ) {
            let now = Instant::now();
            let mut retained = Retained::new(100, 100_000);
            for name in &names {
                for org in [ORG, OTHER] {
                    retained.keep(org, name, packed(name, b"", now), None, now).expect("room");
                }
            }
            let expected: BTreeSet<_> =
                names.into_iter().filter(|name| topic::matches(&filter, name)).collect();
            let found: BTreeSet<_> = topics(&retained, ORG, &filter, now).into_iter().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
