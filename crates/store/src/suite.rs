//! The tests that every store has to pass.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// The contract by example; the store must be empty.
pub(crate) fn check_store(store: &dyn Store) {
    let rows = |from: Bound<&[u8]>, to: Bound<&[u8]>, limit| {
        let rows = store.scan(Table::Things, from, to, limit).expect("scan");
        rows.into_iter().map(|(key, _)| String::from_utf8(key).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(store.read(Table::Things, b"a").expect("read"), None);

    let mut first = Batch::default();
    for key in ["a", "b", "c", "d"] {
        first.put(Table::Things, key, "1");
    }
    first.put(Table::Orgs, "a", "another table");
    let mut second = Batch::default();
    second.delete(Table::Things, "c");
    second.put(Table::Things, "a", "2");
    second.put(Table::Things, "a", "3");
    second.delete(Table::Things, "never there");
    store.commit(&[first, second]).expect("commit");
    store.sync().expect("sync");

    assert_eq!(store.read(Table::Things, b"a").expect("read"), Some(b"3".to_vec()));
    assert_eq!(store.read(Table::Things, b"c").expect("read"), None);
    assert_eq!(store.read(Table::Orgs, b"a").expect("read"), Some(b"another table".to_vec()));
    assert_eq!(rows(Bound::Unbounded, Bound::Unbounded, 10), ["a", "b", "d"]);
    assert_eq!(rows(Bound::Unbounded, Bound::Unbounded, 2), ["a", "b"]);
    assert_eq!(rows(Bound::Excluded(b"a"), Bound::Included(b"d"), 10), ["b", "d"]);
    assert_eq!(rows(Bound::Included(b"b"), Bound::Excluded(b"d"), 10), ["b"]);
    assert!(rows(Bound::Included(b"d"), Bound::Included(b"a"), 10).is_empty());
    assert!(rows(Bound::Excluded(b"a"), Bound::Excluded(b"a"), 10).is_empty());

    let mut unfit = Batch::default();
    unfit.put(Table::Things, "z", "not to be kept");
    unfit.put(Table::Things, "", "a key of no bytes");
    let refused = store.commit(&[unfit]);
    assert!(matches!(refused, Err(StoreError::KeyLength { table: "things", bytes: 0 })));
    assert_eq!(store.read(Table::Things, b"z").expect("read"), None);
    store.commit(&[]).expect("nothing to do is no error");
}

/// Random groups of changes on few keys leave the store and a plain map with the same rows.
pub(crate) fn check_against_model(cases: u32, store: &dyn Store) {
    let key = || prop::collection::vec(0..4_u8, 1..3);
    let change = prop_oneof![
        3 => (key(), any::<u8>()).prop_map(|(k, v)| Change::Put(Table::Sessions, k, vec![v])),
        1 => key().prop_map(|k| Change::Delete(Table::Sessions, k)),
    ];
    let batch = prop::collection::vec(change, 0..6).prop_map(Batch);
    let groups = prop::collection::vec(prop::collection::vec(batch, 0..4), 1..6);
    let bound = || {
        prop_oneof![
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    };
    let strategy = (groups, bound(), bound(), 0..20_usize);

    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |(groups, from, to, limit)| {
        empty(store);
        let mut model = BTreeMap::new();
        for group in &groups {
            store.commit(group).expect("commit");
            for change in group.iter().flat_map(|batch| &batch.0) {
                match change {
                    Change::Put(_, key, value) => model.insert(key.clone(), value.clone()),
                    Change::Delete(_, key) => model.remove(key),
                };
            }
        }
        let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let inside =
            |key: &Vec<u8>| std::ops::RangeBounds::<[u8]>::contains(&(from, to), key.as_slice());
        let expected: Vec<Row> =
            model.into_iter().filter(|(key, _)| inside(key)).take(limit).collect();
        prop_assert_eq!(store.scan(Table::Sessions, from, to, limit).expect("scan"), expected);
        Ok(())
    });
    outcome.expect("the store agrees with the model");
}

/// A fresh store for each case would cost the disk's a dozen syncs.
fn empty(store: &dyn Store) {
    let all = store.scan(Table::Sessions, Bound::Unbounded, Bound::Unbounded, usize::MAX);
    let mut batch = Batch::default();
    for (key, _) in all.expect("scan") {
        batch.delete(Table::Sessions, key);
    }
    store.commit(&[batch]).expect("commit");
}
