//! Refusals: who tries in vain again and again is one event with a count.
//!
//! They are counted in memory and written every few seconds. A count that grows gets a new row with
//! a new number in the place of its old one. Whoever tries ever new names fills only what its
//! address may have; behind that the names are counted together.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{ConnInfo, OrgId, Protocol, Timestamp, limits, yield_point};
use rules::directory::Principal;
use serde_json::{Map, Value};
use store::{Batch, Receipt, StoreError, Table};

use super::{Class, Events, LoginCause, NewEvent};

/// What was refused, as far as it tells refusals apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Attempt {
    /// A login.
    Login {
        /// The name that was claimed, as it is shown.
        name: Box<str>,
        /// Why it was refused.
        cause: LoginCause,
        /// By which protocol it came.
        door: Protocol,
        /// What it said of its connection: devices of one version may be those that fail.
        mqtt_level: u8,
    },
    /// A command of somebody who is logged in.
    Command {
        /// Who.
        who: Principal,
        /// Which.
        command: &'static str,
        /// The code of its failure.
        code: Box<str>,
        /// What was asked for, where each name counts for itself.
        name: Box<str>,
    },
}

/// A refusal.
pub struct Refused {
    /// Whose: of the one who tried, or [`super::SERVER`] if nobody is known.
    pub org: OrgId,
    /// What was refused.
    pub attempt: Attempt,
    /// From where.
    pub from: ConnInfo,
    /// What else is to be shown, of the last of several.
    pub row: Map<String, Value>,
}

/// What is counted.
pub(super) struct Counted {
    counts: HashMap<Arc<Key>, Count>,
    /// How many of them are to be written.
    stale: usize,
    /// How many there are of each organisation, and of each network there.
    shares: Shares<Option<IpAddr>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    org: OrgId,
    /// None: of all networks.
    network: Option<IpAddr>,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum What {
    One(Attempt),
    /// All that there is no room for, by cause or command.
    Others(&'static str),
}

struct Count {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    row: Map<String, Value>,
    /// Whether it has grown since it was written.
    stale: bool,
    /// The number and bytes of its row.
    written: Option<(u64, u64)>,
    /// By which protocols it came since then, each with a bit: so much is said in the server's log.
    said: (Timestamp, u16),
}

impl Counted {
    /// Nothing yet.
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::Refusals, limits::REFUSALS_COUNTED_MAX, pools);
        Self { counts: HashMap::new(), stale: 0, shares }
    }

    /// Counts one; whether it is the first of its kind in a while by its protocol.
    fn note(&mut self, refused: Refused, now: Timestamp) -> bool {
        let Refused { org, attempt, from, mut row } = refused;
        let network = matches!(attempt, Attempt::Login { .. }).then(|| from.network());
        let cause = match attempt {
            Attempt::Login { cause, .. } => cause.as_str(),
            Attempt::Command { command, .. } => command,
        };
        let mut key = Key { org, network, what: What::One(attempt) };
        if !self.counts.contains_key(&key) {
            if !self.has_room(&key, limits::REFUSED_NAMES_PER_NETWORK_MAX) {
                key.what = What::Others(cause);
            }
            if !self.counts.contains_key(&key) && !self.has_room(&key, u64::MAX) {
                (key.network, key.what) = (None, What::Others(cause));
            }
        }
        row.insert("remoteAddr".to_owned(), from.remote_addr.to_string().into());
        if let What::Others(..) = key.what {
            row.retain(|name, _| SHARED.contains(&name.as_str()));
            row.insert("others".to_owned(), true.into());
            if key.network.is_none() {
                row.remove("remoteAddr");
            }
        }
        if let Some(count) = self.counts.get_mut(&key) {
            count.count += 1;
            self.stale += usize::from(!count.stale);
            (count.last, count.row, count.stale) = (now, row, true);
            return count.is_news(from.protocol, now);
        }
        self.shares.hold(key.org, key.network, 1);
        let said = (now, bit(from.protocol));
        let count =
            Count { first: now, last: now, count: 1, row, stale: true, written: None, said };
        self.counts.insert(Arc::new(key), count);
        self.stale += 1;
        true
    }

    fn has_room(&self, key: &Key, of_network_max: u64) -> bool {
        let of_network = self.shares.held_by_principal(key.org, key.network);
        self.shares.has_room(key.org, key.network, 1).is_ok()
            && self.shares.held_by(key.org) < limits::REFUSALS_PER_ORG_MAX
            && (key.network.is_none() || of_network < of_network_max)
    }

    /// Forgets what is written and has not grown for a while, or for very long.
    fn forget(&mut self, now: Timestamp) {
        let Self { counts, shares, .. } = self;
        counts.retain(|key, count| {
            let idle = now.millis_since(count.last) >= limits::REFUSALS_TOGETHER_MS;
            let old = now.millis_since(count.first) >= limits::REFUSALS_TOGETHER_MS_MAX;
            let goes = !count.stale && (idle || old);
            if goes {
                shares.give_back(key.org, key.network, 1);
            }
            !goes
        });
    }

    /// Forgets rows that were removed.
    pub(super) fn forget_rows(&mut self, org: OrgId, upto: u64) {
        let of_org = self.counts.iter_mut().filter(|(key, _)| key.org == org);
        for (_, count) in of_org {
            count.written = count.written.filter(|(number, _)| *number > upto);
        }
    }
}

/// What is shown of those that are counted together.
const SHARED: [&str; 7] =
    ["command", "cause", "code", "message", "outcome", "protocol", "remoteAddr"];

impl Events {
    /// Counts a refusal; whether it is the first of its kind in a while by its protocol, of which
    /// the server's log tells.
    pub fn refuse(&self, refused: Refused, now: Timestamp) -> bool {
        self.refusals.lock().note(refused, now)
    }

    /// Whether something was counted that is not submitted yet.
    pub fn has_unwritten_refusals(&self) -> bool {
        self.refusals.lock().stale > 0
    }

    /// Submits what has been counted since the last time. On a full disk it waits in memory: the
    /// room that is left is for what removes.
    ///
    /// # Errors
    ///
    /// The store takes no more now; it is tried again the next time.
    pub fn write_refusals(&self, now: Timestamp) -> Result<Receipt, StoreError> {
        let mut receipt = Receipt::nothing();
        if !self.tables.store().room().fits(0) {
            return Ok(receipt);
        }
        let _rows = self.refusal_rows.lock();
        let mut stale: Vec<_> = {
            let refusals = self.refusals.lock();
            let stale = refusals.counts.iter().filter(|(_, count)| count.stale);
            stale.map(|(key, count)| (count.last, key.clone())).collect()
        };
        // Their numbers say which came last.
        stale.sort_by_key(|(last, _)| *last);
        for step in stale.chunks(limits::REFUSALS_WRITTEN_STEP) {
            yield_point::pass();
            // For a moment each: others are refused meanwhile.
            let mut refusals = self.refusals.lock();
            receipt = receipt.and(self.write_step(&mut refusals, step)?);
        }
        self.refusals.lock().forget(now);
        Ok(receipt)
    }

    /// Writes some counts, each in the place of its former row.
    fn write_step<'k>(
        &self,
        refusals: &mut Counted,
        keys: &'k [(Timestamp, Arc<Key>)],
    ) -> Result<Receipt, StoreError> {
        let found = |(_, key): &'k (_, Arc<Key>)| Some((&**key, refusals.counts.get(key)?));
        let found: Vec<(&Key, &Count)> = keys.iter().filter_map(found).collect();
        let event = |(key, count): &(&Key, &Count)| NewEvent {
            class: Class::Refusals,
            rows: vec![(key.org, count.row())],
        };
        let mut batch = Batch::default();
        let mut numbered = self.add(&mut batch, found.iter().map(event).collect::<Vec<_>>());
        let mut orgs = BTreeSet::new();
        for (key, count) in &found {
            if let Some((number, bytes)) = count.written {
                batch.delete(Table::Events, super::key(Class::Refusals, key.org, number));
                numbered.state.shrink(Class::Refusals, key.org, bytes);
                orgs.insert(key.org);
            }
        }
        for org in orgs {
            numbered.state.put_sum(&mut batch, Class::Refusals, org);
        }
        let rows: Vec<_> = numbered.added.iter().map(|row| (row.number, row.bytes)).collect();
        let receipt = numbered.settle(self.tables.submit(batch))?;
        let keys: Vec<&Key> = found.into_iter().map(|(key, _)| key).collect();
        for (key, row) in keys.into_iter().zip(rows) {
            if let Some(count) = refusals.counts.get_mut(key) {
                (count.written, count.stale) = (Some(row), false);
                refusals.stale -= 1;
            }
        }
        Ok(receipt)
    }
}

impl Count {
    /// Whether none came by this protocol for a while; noted.
    fn is_news(&mut self, protocol: Protocol, now: Timestamp) -> bool {
        let (since, said) = &mut self.said;
        if now.millis_since(*since) >= limits::REFUSALS_TOGETHER_MS {
            (*since, *said) = (now, 0);
        }
        let is_news = *said & bit(protocol) == 0;
        *said |= bit(protocol);
        is_news
    }

    fn row(&self) -> Map<String, Value> {
        let mut row = self.row.clone();
        row.insert("ts".to_owned(), time(self.last));
        row.insert("first".to_owned(), time(self.first));
        row.insert("last".to_owned(), time(self.last));
        row.insert("count".to_owned(), self.count.into());
        row
    }
}

const fn bit(protocol: Protocol) -> u16 {
    1 << protocol as u16
}

fn time(at: Timestamp) -> Value {
    serde_json::to_value(at).unwrap_or_default()
}
