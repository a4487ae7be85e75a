//! The texts of things that `search.omni` looks for, in memory: rows of the store can't be read
//! fast enough for people who type (`docs/decisions/0018-search.md`).
//!
//! They are folded when a thing changes, in the order of the keys, thousands in one piece of memory.
//! A piece is never changed: who looks has it as it was, and whoever changes a thing makes a new
//! one.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use base::{OrgId, ThingKey, beginning, limits, yield_point};
use parking_lot::{Condvar, Mutex};
use rules::search::{self, Match, Needle};
use serde::Deserialize;
use store::{StoreError, Table, Tables, rows};

use super::{Alias, Thing};

/// What is searched, as the members of a thing are called; a field's number is its place.
const FIELDS: [&str; 10] =
    ["key", "name", "iccid", "esn", "imei", "meid", "imsi", "msisdn", "tags", "secTags"];

/// What the name of a thing that registered itself has before the key.
const AUTO: &str = "auto:";

/// A change copies a piece, a look reads them one after another.
const PIECE_BYTES: usize = 8 * 1024;

/// The texts of all things. With many, they are read behind the start of the server; whoever looks
/// before that is done waits.
pub(super) struct Texts(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    loaded: Condvar,
}

enum State {
    /// What has changed since the reading began.
    Loading(Vec<(OrgId, ThingKey, Vec<u8>)>),
    Loaded(Pieces),
}

type Pieces = HashMap<OrgId, Vec<Arc<[u8]>>>;

/// The texts of an organisation's things, as they were when it was asked.
pub struct OrgTexts(Vec<Arc<[u8]>>);

/// A thing in which something was found.
pub struct FoundText<'a>(&'a [u8]);

/// What of a thing is searched.
#[derive(Deserialize)]
struct Searched<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    sec_tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    aliases: BTreeMap<Alias, Cow<'a, str>>,
}

impl<'a> From<&'a Thing> for Searched<'a> {
    fn from(thing: &'a Thing) -> Self {
        let alias = |(kind, text): (&Alias, &'a String)| (*kind, text.into());
        Self {
            key: thing.key.as_str().into(),
            name: (&thing.name).into(),
            tags: thing.tags.iter().map(Cow::from).collect(),
            sec_tags: thing.sec_tags.iter().map(Cow::from).collect(),
            aliases: thing.aliases.iter().map(alias).collect(),
        }
    }
}

impl Searched<'_> {
    /// The entry, of which no more than [`limits::SEARCHED_BYTES_MAX`] are beside the key. A name
    /// that only repeats the key is left out.
    fn entry(&self) -> Vec<u8> {
        let mut entry = Vec::with_capacity(2 * self.key.len());
        search::push_field(&mut entry, 0, &self.key);
        let end = entry.len() + limits::SEARCHED_BYTES_MAX;
        let mut push = |field, text: &str| {
            let before = entry.len();
            search::push_field(&mut entry, field, beginning(text, end - before));
            if entry.len() > end {
                entry.truncate(before);
            }
        };
        for (alias, text) in &self.aliases {
            push(1 + *alias as u8, text);
        }
        if self.name != self.key && self.name.strip_prefix(AUTO) != Some(&self.key) {
            push(1, &self.name);
        }
        self.tags.iter().for_each(|tag| push(8, tag));
        self.sec_tags.iter().for_each(|tag| push(9, tag));
        if search::first_and_written(&entry).0 != self.key.as_bytes() {
            search::push_written(&mut entry, &self.key);
        }
        entry
    }
}

/// What is looked for in things: a name that they got when they registered themselves finds them by
/// their key, which is what they are known by.
pub fn thing_query(text: &str) -> &str {
    let rest = text.trim_start().get(AUTO.len()..).filter(|rest| !rest.trim().is_empty());
    let begins = text.trim_start().get(..AUTO.len()).is_some_and(|b| b.eq_ignore_ascii_case(AUTO));
    rest.filter(|_| begins).unwrap_or(text)
}

impl Texts {
    /// Those of the things in a store.
    pub(super) fn open(tables: &Tables) -> Result<Self, StoreError> {
        /// With more, others need not wait for it.
        const FEW: usize = 1000;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let few = tables.scan(Table::Things, all.0, all.1, FEW)?.len() < FEW;
        let state = Mutex::new(State::Loading(Vec::new()));
        let shared = Arc::new(Shared { state, loaded: Condvar::new() });
        let (tables, weak) = (tables.clone(), Arc::downgrade(&shared));
        let load = move || load(&tables, &weak);
        if few {
            load();
        } else {
            let thread = std::thread::Builder::new().name("texts".to_owned());
            let failed = |source: std::io::Error| {
                let doing = "start a thread that reads things";
                StoreError::Engine { doing, source: source.into() }
            };
            thread.spawn(load).map_err(failed)?;
        }
        Ok(Self(shared))
    }

    /// Those of an organisation.
    pub(super) fn of(&self, org: OrgId) -> OrgTexts {
        let mut state = self.0.state.lock();
        loop {
            match &*state {
                State::Loaded(orgs) => {
                    return OrgTexts(orgs.get(&org).cloned().unwrap_or_default());
                }
                State::Loading(_) => self.0.loaded.wait(&mut state),
            }
        }
    }

    /// Adds a thing, or puts it in the place of what it was.
    pub(super) fn put(&self, thing: &Thing, before: Option<&Thing>) {
        let entry = Searched::from(thing).entry();
        if before.is_none_or(|before| Searched::from(before).entry() != entry) {
            self.set(thing.org, &thing.key, entry);
        }
    }

    /// Takes a thing out.
    pub(super) fn remove(&self, org: OrgId, key: &ThingKey) {
        self.set(org, key, Vec::new());
    }

    fn set(&self, org: OrgId, key: &ThingKey, entry: Vec<u8>) {
        match &mut *self.0.state.lock() {
            State::Loading(changes) => changes.push((org, key.clone(), entry)),
            State::Loaded(orgs) => set_in(orgs, org, key, &entry),
        }
    }
}

/// Reads all things, unless nobody needs their texts any more.
fn load(tables: &Tables, shared: &Weak<Shared>) {
    let mut orgs = Pieces::new();
    let (mut current, mut piece) = (None, Vec::new());
    let mut close = |org: Option<OrgId>, piece: &mut Vec<u8>| {
        if let Some(org) = org.filter(|_| !piece.is_empty()) {
            orgs.entry(org).or_default().push(std::mem::take(piece).into());
        }
    };
    // In the order of organisations and keys.
    let read = rows::for_each_row(tables.store(), Table::Things, |(row, value)| {
        let org = row.first_chunk().map(|id| OrgId::from_bytes(*id));
        let entry = match rows::decode::<Searched<'_>>(Table::Things, row, value) {
            Ok(thing) => thing.entry(),
            Err(error) => {
                store::report(&error, "a thing can't be searched");
                return Ok(());
            }
        };
        if org != current || piece.len() + entry.len() > PIECE_BYTES {
            close(current, &mut piece);
            current = org;
            if shared.strong_count() == 0 {
                return Err(StoreError::Closed);
            }
        }
        piece.extend(entry);
        Ok(())
    });
    close(current, &mut piece);
    let Some(shared) = shared.upgrade() else { return };
    if let Err(error) = read {
        store::report(&error, "not all things can be searched");
    }
    let mut state = shared.state.lock();
    if let State::Loading(changes) = &*state {
        changes.iter().for_each(|(org, key, entry)| set_in(&mut orgs, *org, key, entry));
    }
    *state = State::Loaded(orgs);
    shared.loaded.notify_all();
}

fn set_in(orgs: &mut Pieces, org: OrgId, key: &ThingKey, entry: &[u8]) {
    let pieces = orgs.entry(org).or_default();
    set(pieces, key.as_str().as_bytes(), entry);
    if pieces.is_empty() {
        orgs.remove(&org);
    }
}

/// Has the pieces have this entry for the thing with the key; none if it is empty.
fn set(pieces: &mut Vec<Arc<[u8]>>, key: &[u8], entry: &[u8]) {
    let begins = |piece: &Arc<[u8]>| first_key(piece).is_some_and(|first| first <= key);
    let index = pieces.partition_point(begins).saturating_sub(1);
    let Some(piece) = pieces.get(index) else {
        pieces.extend((!entry.is_empty()).then(|| entry.into()));
        return;
    };
    let (start, end) = place(piece, key);
    let parts = [&piece[..start], entry, &piece[end..]];
    let is_last = index + 1 == pieces.len() && start == piece.len();
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    if length <= PIECE_BYTES.max(entry.len()) {
        let next = pieces.get(index + 1).filter(|next| length + next.len() <= PIECE_BYTES / 2);
        let merged = next.map(|next| [parts[0], parts[1], parts[2], next].concat());
        let is_merged = merged.is_some();
        pieces[index] = merged.unwrap_or_else(|| parts.concat()).into();
        if is_merged {
            pieces.remove(index + 1);
        } else if length == 0 {
            pieces.remove(index);
        }
    } else if is_last {
        // Things that come in the order of their keys fill one piece after another.
        pieces.push(entry.into());
    } else {
        let all = parts.concat();
        let (first, second) = all.split_at(middle(&all));
        let new = [first, second].into_iter().filter(|half| !half.is_empty()).map(Arc::from);
        pieces.splice(index..=index, new.collect::<Vec<_>>());
    }
}

/// Where the entry with this key is, or would be, from where to where.
fn place(piece: &[u8], key: &[u8]) -> (usize, usize) {
    let mut rest = piece;
    while let Some((entry, behind)) = search::split_entry(rest) {
        let (start, end) = (piece.len() - rest.len(), piece.len() - behind.len());
        match key_of(entry).cmp(key) {
            Ordering::Less => rest = behind,
            Ordering::Equal => return (start, end),
            Ordering::Greater => return (start, start),
        }
    }
    (piece.len(), piece.len())
}

/// The end of the entry in the middle; of a single one, its end.
fn middle(piece: &[u8]) -> usize {
    let mut rest = piece;
    while let Some((_, behind)) = search::split_entry(rest) {
        rest = behind;
        if rest.len() <= piece.len() / 2 {
            break;
        }
    }
    piece.len() - rest.len()
}

fn first_key(piece: &[u8]) -> Option<&[u8]> {
    search::split_entry(piece).map(|(entry, _)| key_of(entry))
}

/// The key of an entry, as it was written.
fn key_of(entry: &[u8]) -> &[u8] {
    let (first, written) = search::first_and_written(entry);
    written.unwrap_or(first)
}

impl OrgTexts {
    /// Visits every thing in which it is found, in the order of the keys.
    pub fn find(&self, needle: &Needle, mut visit: impl FnMut(FoundText<'_>, Match)) {
        for piece in &self.0 {
            yield_point::pass();
            needle.find_all(piece, |entry, found| visit(FoundText(entry), found));
        }
    }

    /// How a field is called.
    pub fn field(field: u8) -> &'static str {
        FIELDS.get(usize::from(field)).copied().unwrap_or_default()
    }
}

impl FoundText<'_> {
    /// Its key.
    pub fn key(&self) -> Option<ThingKey> {
        ThingKey::parse(std::str::from_utf8(key_of(self.0)).ok()?).ok()
    }

    /// Its key as it is compared.
    pub fn folded_key(&self) -> &[u8] {
        search::first_and_written(self.0).0
    }

    /// How much of its key is what is looked for.
    pub fn find_in_key(&self, needle: &Needle) -> Option<search::Class> {
        needle.find_in_first(self.0)
    }
}

#[cfg(test)]
mod tests {
    use base::ThingId;
    use proptest::prelude::*;
    use rules::search::Class;
    use store::{Durability, memory::MemoryStore};

    use super::super::tests::{NOW, things};
    use super::*;
    use crate::things::registry::Things;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);

    fn thing(key: &str) -> Thing {
        let key = ThingKey::parse(key).expect("a key");
        Thing::new(ThingId::from_bytes([7; 12]), ORG, key, "x", NOW)
    }

    fn found(texts: &Texts, query: &str) -> Vec<(String, Class, &'static str)> {
        let mut all = Vec::new();
        let needle = Needle::read(thing_query(query)).expect("a word");
        texts.of(ORG).find(&needle, |text, found| {
            let key = text.key().expect("a key").to_string();
            all.push((key, found.class, OrgTexts::field(found.field)));
        });
        all
    }

    #[test]
    fn each_field_is_found_by_its_name() {
        let (things, _) = things();
        let texts = &things.texts;
        let mut mower = thing("Mower-7");
        mower.name = "The green one".into();
        mower.tags = vec!["field".into(), "north".into()];
        mower.sec_tags = vec!["secret".into()];
        for (number, alias) in Alias::ALL.into_iter().enumerate() {
            mower.aliases.insert(alias, format!("99{number}"));
        }
        texts.put(&mower, None);
        let check = |query: &str, field: &str| {
            assert_eq!(found(texts, query), [("Mower-7".into(), Class::Exact, field)], "{query}");
        };
        check("mower-7", "key");
        check("the green one", "name");
        check("north", "tags");
        check("secret", "secTags");
        for (number, alias) in Alias::ALL.into_iter().enumerate() {
            check(&format!("99{number}"), alias.as_str());
        }
        mower.name = "auto:Mower-7".into();
        texts.put(&mower, None);
        check("Auto:MOWER-7", "key");
        assert_eq!(found(texts, "green"), []);
        assert_eq!(found(texts, "auto:"), []);
        texts.remove(ORG, &mower.key);
        assert_eq!(found(texts, "mower"), []);
        assert!(texts.of(ORG).0.is_empty());
    }

    #[test]
    fn what_one_thing_takes_is_bounded() {
        let mut mower = thing(&"M".repeat(ThingKey::BYTES_MAX));
        mower.name = "ﷺ".repeat(300);
        mower.tags = (0..500).map(|number| format!("{number}{}", "ä".repeat(500))).collect();
        let entry = Searched::from(&mower).entry();
        assert!(entry.len() <= limits::SEARCHED_BYTES_MAX + 2 * ThingKey::BYTES_MAX + 2);
        assert_eq!(key_of(&entry), mower.key.as_str().as_bytes());
    }

    /// So many that a start reads them behind itself.
    #[tokio::test]
    async fn they_are_as_the_store_is_after_every_change_and_a_start() {
        let store = Arc::new(MemoryStore::new());
        let open = || {
            let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
            Things::open(tables, 100_000, &Arc::default()).expect("loads")
        };
        let key = |number: u32| ThingKey::parse(&format!("Mower-{number}")).expect("a key");
        let things = open();
        for number in (0..2400_u32).rev() {
            let mut thing = thing(key(number).as_str());
            let digit = |at: usize| number.to_be_bytes()[at % 4];
            thing.id = ThingId::from_bytes(std::array::from_fn(digit));
            thing.name = format!("number {number}");
            things.create(&thing).expect("room").await.expect("stored");
        }
        let change = async |things: &Things, number: u32| {
            let rename = |thing: &mut Thing| thing.name = format!("renamed {number}");
            let changed = things.change(ORG, &key(number), rename).expect("free").expect("there");
            changed.1.await.expect("stored");
        };
        let remove = async |things: &Things, number: u32| {
            let removed = things.remove(ORG, &key(number), |_, _| ()).expect("read");
            removed.expect("there").1.await.expect("stored");
        };
        for number in (0..2400).step_by(3) {
            change(&things, number).await;
        }
        for number in (0..2400).step_by(6) {
            remove(&things, number).await;
        }
        assert_eq!(found(&things.texts, "mower").len(), 2400 - 400);
        assert_eq!(found(&things.texts, "renamed").len(), 400);
        assert_eq!(found(&things.texts, "renamed 2397").len(), 1);
        let queries = ["mower", "renamed", "9*9", "number 1"];
        let before = queries.map(|query| found(&things.texts, query));
        drop(things);
        assert_eq!(queries.map(|query| found(&open().texts, query)), before);
        let again = open();
        // While it may still read.
        change(&again, 1).await;
        remove(&again, 2).await;
        again.create(&thing("Mower-0")).expect("room").await.expect("stored");
        assert_eq!(found(&again.texts, "renamed 1")[0].0, "Mower-1");
        assert_eq!(found(&again.texts, "mower").len(), 2400 - 400);
        assert!(again.texts.of(OrgId::from_bytes([2; 12])).0.is_empty());
    }

    proptest! {
        /// Against a map.
        #[test]
        fn entries_are_in_order_and_pieces_are_short(
            changes in prop::collection::vec(("[aAbB]{1,3}", 0..4_usize), 1..200),
        ) {
            let (mut pieces, mut model) = (Vec::new(), BTreeMap::new());
            for (key, kind) in changes {
                let mut thing = thing(&key);
                // Some are long, so that pieces part.
                thing.name = "x".repeat([0, 3, 400, 0][kind]);
                let entry = Searched::from(&thing).entry();
                let entry = if kind == 0 { Vec::new() } else { entry };
                set(&mut pieces, key.as_bytes(), &entry);
                model.insert(key, entry);
                prop_assert_eq!(pieces.concat(), model.values().flatten().copied().collect::<Vec<_>>());
                prop_assert!(pieces.iter().all(|p| (1..=PIECE_BYTES).contains(&p.len())));
                let half = |pair: &[Arc<[u8]>]| pair[0].len() + pair[1].len() > PIECE_BYTES / 4;
                prop_assert!(pieces.windows(2).filter(|pair| !half(pair)).count() <= 1);
            }
        }
    }
}
