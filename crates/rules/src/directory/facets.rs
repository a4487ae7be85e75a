//! What most filters of a listing ask, packed into one word for each session, so that a look
//! through an organisation reads one array and not its sessions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use base::{ApplicationId, Protocol, ThingDefId};
use parking_lot::Mutex;

use super::marks::Marks;
use super::session::{Kind, Lifetime, Reason, Session, Who};

const KIND: u32 = 0;
const BOUND: u32 = 1;
const PROTOCOL: u32 = 2;
const REASON: u32 = 5;
const APPLICATION: u32 = 9;
const DEFINITION: u32 = 33;
const CLIENT_ID: u32 = 57;
const NUMBER_BITS: u32 = 24;

/// The facets of a session: kind, whether a connection holds it, protocol, how it ended, and the
/// numbers of its application and of its thing's definition, 0 for none of each, and whether it has
/// the client id that others of its application share.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Facets(pub(super) u64);

impl Facets {
    pub(super) fn of(session: &Session, application: u32, definition: u32) -> Self {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        Self(
            bit(session.kind() == Kind::Application, KIND)
                | bit(session.lifetime() == Lifetime::Connection, BOUND)
                | (session.conn().protocol as u64) << PROTOCOL
                | u64::from(application) << APPLICATION
                | u64::from(definition) << DEFINITION,
        )
        .with_reason(session.end().map(|end| end.reason))
    }

    pub(super) const fn with_reason(self, reason: Option<Reason>) -> Self {
        let number = match reason {
            None => 0,
            Some(reason) => reason as u64 + 1,
        };
        Self(self.0 & !(0xf << REASON) | number << REASON)
    }

    pub(super) fn with_definition(self, definition: u32) -> Self {
        let field = (1 << NUMBER_BITS) - 1;
        Self(self.0 & !(field << DEFINITION) | u64::from(definition) << DEFINITION)
    }

    /// 0: it lives; otherwise one more than the place of its reason in [`Reason::ALL`].
    pub(super) const fn reason(self) -> usize {
        (self.0 >> REASON & 0xf) as usize
    }

    pub(super) const fn protocol(self) -> usize {
        (self.0 >> PROTOCOL & 7) as usize
    }

    pub(super) const fn application(self) -> u32 {
        (self.0 >> APPLICATION & 0xff_ffff) as u32
    }

    /// Whether its client id is the one that sessions of its application share.
    pub(super) const fn shares_client_id(self) -> bool {
        self.0 >> CLIENT_ID & 1 == 1
    }

    pub(super) const fn definition(self) -> u32 {
        (self.0 >> DEFINITION & 0xff_ffff) as u32
    }
}

/// What a filter wants of the facets.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    mask: u64,
    value: u64,
    /// Bit by bit, as [`Facets::reason`] numbers them.
    reasons: u16,
    /// None: any.
    applications: Option<NumberSet>,
}

/// Some of the numbers that [`Numbers`] gives, bit by bit: those are the smallest that are free.
#[derive(Clone, Debug)]
pub(super) struct NumberSet(Vec<u64>);

impl FromIterator<u32> for NumberSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut words = Vec::new();
        for number in numbers {
            let word = number as usize / 64;
            words.resize(words.len().max(word + 1), 0);
            words[word] |= 1 << (number % 64);
        }
        Self(words)
    }
}

impl NumberSet {
    /// Whether this number is one of them.
    #[inline]
    pub(super) fn contains(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64).copied().unwrap_or_default();
        word >> (number % 64) & 1 == 1
    }
}

impl Wanted {
    pub(super) const fn all() -> Self {
        Self { mask: 0, value: 0, reasons: u16::MAX, applications: None }
    }

    fn field(&mut self, at: u32, bits: u32, value: u64) {
        self.mask |= ((1 << bits) - 1) << at;
        self.value |= value << at;
    }

    pub(super) fn kind(&mut self, kind: Kind) {
        self.field(KIND, 1, u64::from(kind == Kind::Application));
    }

    pub(super) fn bound(&mut self, bound: bool) {
        self.field(BOUND, 1, u64::from(bound));
    }

    pub(super) fn protocol(&mut self, protocol: Protocol) {
        self.field(PROTOCOL, 3, protocol as u64);
    }

    pub(super) fn definition(&mut self, number: u32) {
        self.field(DEFINITION, NUMBER_BITS, u64::from(number));
    }

    pub(super) fn applications(&mut self, numbers: Vec<u32>) {
        if let [only] = numbers[..] {
            return self.field(APPLICATION, NUMBER_BITS, only.into());
        }
        self.applications = Some(numbers.into_iter().collect());
    }

    pub(super) const fn reasons(&mut self, reasons: u16) {
        self.reasons &= reasons;
    }

    /// Whether it asks nothing of sessions that have this.
    pub(super) const fn is_all(&self, reasons: u16) -> bool {
        self.mask == 0 && self.applications.is_none() && self.reasons & reasons == reasons
    }

    pub(super) const fn has_reason(&self, reasons: u16) -> bool {
        self.reasons & reasons != 0
    }

    /// How many of these it admits, of which each has one of these reasons.
    pub(super) fn count(&self, all: &[Facets], reasons: u16) -> usize {
        if self.is_all(reasons) {
            return all.len();
        }
        if self.applications.is_some() || self.reasons & reasons != reasons {
            return all.iter().filter(|facets| self.admits(**facets)).count();
        }
        // Several in one step.
        let admits = |facets: &Facets| usize::from(facets.0 & self.mask == self.value);
        all.iter().map(admits).sum()
    }

    /// Keeps the marks of those that it admits, of which each has one of these reasons.
    pub(super) fn keep(&self, marks: &mut Marks, all: &[Facets], reasons: u16) {
        if self.mask != 0 {
            marks.keep(all, |facets| facets.0 & self.mask == self.value);
        }
        if self.reasons & reasons != reasons {
            marks.keep(all, |facets| self.reasons >> facets.reason() & 1 == 1);
        }
        if let Some(numbers) = &self.applications {
            marks.keep(all, |facets| numbers.contains(facets.application()));
        }
    }

    #[inline]
    pub(super) fn admits(&self, facets: Facets) -> bool {
        facets.0 & self.mask == self.value
            && self.reasons >> facets.reason() & 1 == 1
            && self
                .applications
                .as_ref()
                .is_none_or(|numbers| numbers.contains(facets.application()))
    }
}

/// An application as its sessions know it: after a new name, those from before keep the old one.
pub(super) type AppName = (ApplicationId, Box<str>);

/// Numbers for what sessions have in common, from 1 on. A number is free again when the last session
/// that has it is forgotten.
#[derive(Default)]
pub(super) struct Numbers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    applications: Table<AppName>,
    definitions: Table<ThingDefId>,
    /// The client id that an application's first session had: those of a fleet are often the same.
    client_ids: HashMap<u32, Arc<str>>,
}

struct Table<T> {
    numbers: HashMap<T, u32>,
    /// By number - 1: what has it, and how many sessions.
    rows: Vec<Option<(T, usize)>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), rows: Vec::new(), free: Vec::new() }
    }
}

impl<T: Hash + Eq + Clone> Table<T> {
    fn take(&mut self, key: &T) -> u32 {
        if let Some(number) = self.numbers.get(key).copied() {
            if let Some(Some((_, count))) = self.rows.get_mut(number as usize - 1) {
                *count += 1;
            }
            return number;
        }
        let number = self.free.pop().unwrap_or(self.rows.len() as u32 + 1);
        if number >> NUMBER_BITS != 0 {
            // More than there are records: those beyond are none in listings.
            return 0;
        }
        if number as usize > self.rows.len() {
            self.rows.push(None);
        }
        self.rows[number as usize - 1] = Some((key.clone(), 1));
        self.numbers.insert(key.clone(), number);
        number
    }

    /// Whether nobody has it any more.
    fn give_back(&mut self, number: u32) -> bool {
        let Some(row) = self.rows.get_mut((number as usize).wrapping_sub(1)) else { return false };
        let Some((_, count)) = row else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        if let Some((key, _)) = row.take() {
            self.numbers.remove(&key);
        }
        self.free.push(number);
        true
    }

    fn get(&self, number: u32) -> Option<&T> {
        let row = self.rows.get((number as usize).wrapping_sub(1))?;
        row.as_ref().map(|(key, _)| key)
    }
}

impl Numbers {
    /// Gives a session that is not known yet its facets, and the client id that it shares.
    pub(super) fn enter(&self, session: &mut Session) {
        let definition = session.context.get_mut().definition;
        let mut inner = self.inner.lock();
        let application = match &session.who {
            Who::User(_) => 0,
            Who::Application { application, .. } => {
                let name = (application.id, application.name.as_str().into());
                inner.applications.take(&name)
            }
        };
        let definition = definition.map_or(0, |definition| inner.definitions.take(&definition));
        let mut facets = Facets::of(session, application, definition);
        if application != 0 {
            let shared = inner.client_ids.entry(application);
            let shared = shared.or_insert_with(|| session.client_id.clone());
            if **shared == *session.client_id {
                session.client_id = shared.clone();
                facets.0 |= 1 << CLIENT_ID;
            }
        }
        *session.facets.get_mut() = facets.0;
    }

    /// Forgets a session.
    pub(super) fn leave(&self, facets: Facets) {
        let mut inner = self.inner.lock();
        if inner.applications.give_back(facets.application()) {
            inner.client_ids.remove(&facets.application());
        }
        inner.definitions.give_back(facets.definition());
    }

    /// The number of another definition, in the place of one.
    pub(super) fn exchange(&self, before: u32, definition: Option<ThingDefId>) -> u32 {
        let mut inner = self.inner.lock();
        let number = definition.map_or(0, |definition| inner.definitions.take(&definition));
        inner.definitions.give_back(before);
        number
    }

    /// The number of a definition that a session has.
    pub(super) fn definition(&self, definition: ThingDefId) -> Option<u32> {
        self.inner.lock().definitions.numbers.get(&definition).copied()
    }

    /// The definition with this number.
    pub(super) fn definition_of(&self, number: u32) -> Option<ThingDefId> {
        self.inner.lock().definitions.get(number).copied()
    }

    /// The application with this number.
    pub(super) fn application_of(&self, number: u32) -> Option<AppName> {
        self.inner.lock().applications.get(number).cloned()
    }

    /// The numbers of the applications whose sessions share this client id.
    pub(super) fn sharing(&self, client_id: &str) -> NumberSet {
        let inner = self.inner.lock();
        let shared = inner.client_ids.iter().filter(|(_, shared)| ***shared == *client_id);
        shared.map(|(number, _)| *number).collect()
    }

    /// The numbers of the applications with this name, without regard to case.
    pub(super) fn applications(&self, name: &str) -> Vec<u32> {
        let inner = self.inner.lock();
        let named = |((_, known), number): (&AppName, &u32)| {
            known.eq_ignore_ascii_case(name).then_some(*number)
        };
        inner.applications.numbers.iter().filter_map(named).collect()
    }
}
