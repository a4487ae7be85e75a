//! The stream on a store in memory: numbers, counts, restarts, room.

use std::ops::Bound;
use std::sync::Arc;

use base::{ConnInfo, Protocol, UserId};
use rules::directory::Principal;
use serde_json::json;
use store::memory::MemoryStore;
use store::{Durability, Store};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

fn org(number: u8) -> OrgId {
    OrgId::from_bytes([number; 12])
}

fn open(store: &Arc<MemoryStore>, max_bytes: u64) -> (Tables, Events) {
    let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
    let config = EventsConfig { keep_days: 1, max_bytes, log: None };
    let events = Events::open(tables.clone(), config, &Arc::default()).expect("opened");
    (tables, events)
}

fn new(class: Class, of: &[u8], name: &str, ts: Timestamp) -> NewEvent {
    let row = |number: &u8| {
        let row = json!({ "ts": ts, "name": name, "of": { (number.to_string()): number } });
        (org(*number), row.as_object().cloned().expect("an object"))
    };
    NewEvent { class, rows: of.iter().map(row).collect() }
}

async fn put(tables: &Tables, events: &Events, event: NewEvent) {
    let mut batch = Batch::default();
    let numbered = events.add(&mut batch, [event]);
    numbered.settle(tables.submit(batch)).expect("room").await.expect("stored");
}

fn query<'a>(order: Order, sees: &'a dyn Fn(OrgId) -> bool) -> Query<'a> {
    Query { after: 0, before: u64::MAX, order, classes: &Class::ALL, sees }
}

fn numbers(events: &Events, query: &Query<'_>) -> Vec<u64> {
    let mut numbers = Vec::new();
    let page = events.read(query, |entry| {
        numbers.push(entry.number);
        true
    });
    assert_eq!(page.expect("read"), Page { next: None, truncated: false });
    numbers
}

fn rows(store: &MemoryStore) -> Vec<store::Row> {
    let all = store.scan(Table::Events, Bound::Unbounded, Bound::Unbounded, usize::MAX);
    all.expect("read")
}

#[tokio::test]
async fn a_page_of_very_many_organisations_goes_on() {
    let (tables, events) = open(&Arc::default(), u64::MAX);
    let count = limits::EVENTS_LOOKED_AT_MAX + 500;
    let id = |number: usize| {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&number.to_be_bytes());
        OrgId::from_bytes(id)
    };
    let row = json!({ "ts": NOW });
    let row = row.as_object().expect("an object");
    let event = |number: usize| NewEvent {
        class: Class::Administration,
        rows: vec![(id(number + 1), row.clone())],
    };
    let mut batch = Batch::default();
    let numbered = events.add(&mut batch, (0..count).map(event));
    numbered.settle(tables.submit(batch)).expect("room").await.expect("stored");
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let (mut found, mut after, mut before) = (0, 0, u64::MAX);
        for _ in 0..10 {
            let query = Query { after, before, ..query(order, &|_| true) };
            let page = events.read(&query, |_| {
                found += 1;
                true
            });
            let Some(next) = page.expect("read").next else { break };
            match order {
                Order::OldestFirst => after = next,
                Order::NewestFirst => before = next,
            }
        }
        assert_eq!(found, count, "{order:?}");
    }
}

/// What is counted is what is there.
fn check_bytes(events: &Events, store: &MemoryStore) {
    let there: usize = rows(store).iter().map(|(key, value)| key.len() + value.len()).sum();
    let counted: u64 = events.load().classes.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!(counted, there as u64);
}

fn refused(name: &str, from: &str) -> Refused {
    let from = ConnInfo::new(Protocol::Mqtt, format!("{from}:7").parse().expect("an address"));
    let attempt = Attempt::Login {
        name: name.into(),
        cause: LoginCause::WrongPassword,
        door: Protocol::Http,
        mqtt_level: 0,
    };
    let row = json!({ "whoAmI": name, "cause": "wrong_password" });
    Refused { org: org(1), attempt, from, row: row.as_object().cloned().expect("an object") }
}

#[tokio::test]
async fn numbers_go_on_after_a_restart_even_when_the_last_events_are_gone() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    for _ in 0..3 {
        put(&tables, &events, new(Class::Administration, &[1], "a", NOW)).await;
    }
    put(&tables, &events, new(Class::Refusals, &[2], "b", NOW)).await;
    let later = NOW.plus_seconds(2 * 86_400);
    events.expire(later).expect("removed");
    events.close().expect("room");
    tables.writer().barrier().expect("room").await.expect("stored");
    assert_eq!(rows(&store).len(), 3, "what administrators do is kept for longer");
    let (tables, events) = open(&store, u64::MAX);
    check_bytes(&events, &store);
    put(&tables, &events, new(Class::Administration, &[3], "c", NOW)).await;
    assert_eq!(numbers(&events, &query(Order::NewestFirst, &|_| true)), [5, 3, 2, 1]);
}

#[tokio::test]
async fn a_number_that_a_crash_took_back_is_no_other_events() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    put(&tables, &events, new(Class::Administration, &[1], "a", NOW)).await;
    let lost = [new(Class::Administration, &[1], "seen, and not stored", NOW)];
    events.add(&mut Batch::default(), lost).settle(Ok::<_, ()>(())).expect("taken");
    let seen = events.last();
    for _ in 0..2 {
        let (tables, events) = open(&store, u64::MAX);
        assert!(events.last() > seen);
        put(&tables, &events, new(Class::Administration, &[1], "later", NOW)).await;
        let sees = |_| true;
        let later = Query { after: seen, ..query(Order::OldestFirst, &sees) };
        assert!(!numbers(&events, &later).is_empty(), "whoever has seen it misses nothing");
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_reserves_no_numbers() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    let refused = [new(Class::Administration, &[1], "refused", NOW)];
    events.add(&mut Batch::default(), refused).settle(Err::<(), _>(())).expect_err("refused");
    put(&tables, &events, new(Class::Administration, &[1], "a", NOW)).await;
    let last = events.last();
    let (_, events) = open(&store, u64::MAX);
    assert!(events.last() > last);
}

#[tokio::test]
async fn pages_follow_each_other_over_classes_and_organisations() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    for number in 0..400_u64 {
        let class = Class::ALL[(number / 3 % 2) as usize];
        let of: &[u8] = match number % 5 {
            0 => &[1],
            1 | 2 => &[2],
            3 => &[3],
            _ => &[1, 2],
        };
        put(&tables, &events, new(class, of, "x", NOW)).await;
    }
    for order in [Order::NewestFirst, Order::OldestFirst] {
        for own in [&[1_u8, 2, 3][..], &[1], &[2, 3]] {
            let sees = |of: OrgId| own.iter().any(|number| of == org(*number));
            let (mut all, mut expected) = (Vec::new(), numbers(&events, &query(order, &sees)));
            let mut wanted = query(order, &sees);
            loop {
                let mut page = 0;
                let read = events.read(&wanted, |entry| {
                    all.push(entry.number);
                    page += 1;
                    page < 7
                });
                match (read.expect("read").next, order) {
                    (None, _) => break,
                    (Some(next), Order::NewestFirst) => wanted.before = next,
                    (Some(next), Order::OldestFirst) => wanted.after = next,
                }
            }
            assert_eq!(all, expected);
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(expected.len(), all.len(), "each event once");
            let share = match own.len() {
                3 => 400,
                2 => 320,
                _ => 160,
            };
            assert_eq!(all.len(), share);
        }
    }
    let mut seen = Vec::new();
    let wanted = Query { after: 4, before: 6, ..query(Order::OldestFirst, &|_| true) };
    let page = events.read(&wanted, |entry| {
        seen.push(entry.row["of"].clone());
        true
    });
    page.expect("read");
    assert_eq!(seen, [json!({ "1": 1, "2": 2 })], "what both see of it");
}

#[tokio::test]
async fn what_is_in_memory_is_read_as_what_is_on_the_disk() {
    let store = Arc::default();
    let (tables, events) = open(&store, u64::MAX);
    let events = Arc::new(events);
    let heard = events.listen();
    for number in 0..700_u32 {
        let class = [Class::Sessions, Class::Alarms, Class::Things][number as usize % 3];
        let of: &[u8] = [&[1][..], &[2], &[1, 2]][number as usize % 5 % 3];
        put(&tables, &events, new(class, of, &format!("e{number}"), NOW)).await;
    }
    let read = |(after, before), classes: &[Class], max: usize| {
        let sees = |org: OrgId| org == OrgId::from_bytes([1; 12]);
        let query = Query { after, before, order: Order::OldestFirst, classes, sees: &sees };
        let mut found = Vec::new();
        let page = events.read_seen(&query, |seen| {
            found.push((seen.number, seen.kind.clone(), seen.text.clone()));
            Ok(found.len() < max)
        });
        (found, page.expect("read"))
    };
    let asked = || {
        let mut answers = Vec::new();
        for between in [(0, u64::MAX), (0, 1), (3, 600), (250, 513), (699, u64::MAX), (700, 900)] {
            for classes in [&Class::ALL[..], &[Class::Alarms], &[Class::Limits]] {
                for max in [1, 7, 255, 256, 257, 1000] {
                    answers.push(read(between, classes, max));
                }
            }
        }
        answers
    };
    let live = asked();
    let all = live.iter().map(|(found, _)| found.len()).max();
    assert!(all > Some(400), "{all:?}");
    // Nobody listens, nothing is in memory.
    drop(heard);
    assert!(events.live_after(0, 1).is_none());
    assert_eq!(live, asked());
    // A refusal in memory may be counted further: the disk has it once.
    let heard = events.listen();
    let after = events.last();
    for _ in 0..3 {
        events.refuse(refused("a", "192.0.2.1"), NOW);
        events.write_refusals(NOW).expect("room").await.expect("stored");
    }
    put(&tables, &events, new(Class::Alarms, &[1], "e", NOW)).await;
    let live = read((after, u64::MAX), &Class::ALL, 100);
    drop(heard);
    assert_eq!(live, read((after, u64::MAX), &Class::ALL, 100));
    assert_eq!(live.0.len(), 2, "{live:?}");
}

#[tokio::test]
async fn five_hundred_wrong_passwords_are_one_row() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    for round in 0..5 {
        for _ in 0..100 {
            events.refuse(refused("a@b", "192.0.2.1"), NOW.plus_seconds(round));
        }
        events.write_refusals(NOW).expect("room").await.expect("stored");
    }
    let found = rows(&store);
    let row: Value = serde_json::from_slice(&found[0].1).expect("JSON");
    assert_eq!((found.len(), &row["count"]), (1, &json!(500)));
    assert_eq!((&row["first"], &row["last"]), (&json!(NOW), &json!(NOW.plus_seconds(4))));
    assert_eq!(numbers(&events, &query(Order::NewestFirst, &|_| true)), [5]);
    check_bytes(&events, &store);
    // After a while it is another event.
    let later = NOW.plus_millis(limits::REFUSALS_TOGETHER_MS as i64 + 5000);
    events.write_refusals(later).expect("room").await.expect("stored");
    events.refuse(refused("a@b", "192.0.2.1"), later);
    events.write_refusals(later).expect("room").await.expect("stored");
    assert_eq!(rows(&store).len(), 2);
    // A crash: what was counted in sums is still right.
    drop(tables);
    check_bytes(&open(&store, u64::MAX).1, &store);
}

#[tokio::test]
async fn ever_new_names_are_counted_together() {
    let store = Arc::new(MemoryStore::new());
    let (_tables, events) = open(&store, u64::MAX);
    for number in 0..5000 {
        events.refuse(refused(&number.to_string(), "192.0.2.1"), NOW);
    }
    events.refuse(refused("neighbour", "192.0.2.2"), NOW);
    events.write_refusals(NOW).expect("room").await.expect("stored");
    assert_eq!(rows(&store).len(), limits::REFUSED_NAMES_PER_NETWORK_MAX as usize + 2);
    let mut count = 0;
    let read = events.read(&query(Order::NewestFirst, &|_| true), |entry| {
        count += entry.row["count"].as_u64().expect("a number");
        let is_shared = entry.row.contains_key("others");
        assert_ne!(is_shared, entry.row.contains_key("whoAmI"));
        true
    });
    read.expect("read");
    assert_eq!(count, 5001);
    // From ever new networks.
    for number in 0..100_000_u32 {
        let from = std::net::Ipv4Addr::from_bits(number);
        events.refuse(refused("a", &from.to_string()), NOW);
    }
    events.write_refusals(NOW).expect("room").await.expect("stored");
    assert!(rows(&store).len() <= limits::REFUSALS_PER_ORG_MAX as usize + 8);
    check_bytes(&events, &store);
}

#[tokio::test]
async fn who_is_refused_while_others_are_written_is_counted() {
    let store = Arc::new(MemoryStore::new());
    let (_tables, events) = open(&store, u64::MAX);
    let refuse = |network: u8| {
        for number in 0..2000 {
            let (name, from) = (number % 60, format!("192.0.{network}.1"));
            events.refuse(refused(&name.to_string(), &from), NOW.plus_millis(number));
        }
    };
    std::thread::scope(|threads| {
        for network in 0..4 {
            let refuse = &refuse;
            threads.spawn(move || refuse(network));
        }
        for _ in 0..20 {
            let _receipt = events.write_refusals(NOW).expect("room");
        }
    });
    events.write_refusals(NOW).expect("room").await.expect("stored");
    assert!(!events.has_unwritten_refusals());
    refuse(9);
    assert!(events.has_unwritten_refusals());
    events.write_refusals(NOW).expect("room").await.expect("stored");
    let counts = rows(&store).into_iter().map(|(_, row)| {
        let row: Value = serde_json::from_slice(&row).expect("JSON");
        row["count"].as_u64().expect("a number")
    });
    assert_eq!(counts.clone().count(), 5 * 60);
    assert_eq!(counts.sum::<u64>(), 5 * 2000);
    check_bytes(&events, &store);
}

#[tokio::test]
async fn commands_are_counted_by_who_which_and_why() {
    let store = Arc::new(MemoryStore::new());
    let (_tables, events) = open(&store, u64::MAX);
    for number in 0..30 {
        let who = Principal::User(UserId::from_bytes([number % 2; 12]));
        let code = if number % 3 == 0 { "-95006" } else { "-90008" };
        let attempt =
            Attempt::Command { who, command: "role.update", code: code.into(), name: "".into() };
        let from = format!("192.0.2.{number}:7").parse().expect("an address");
        let from = ConnInfo::new(Protocol::Mqtt, from);
        events.refuse(Refused { org: org(1), attempt, from, row: Map::new() }, NOW);
    }
    events.write_refusals(NOW).expect("room").await.expect("stored");
    assert_eq!(rows(&store).len(), 4);
}

#[tokio::test]
async fn without_room_the_greedy_lose_their_oldest() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, 40_000);
    for number in 0..20 {
        put(&tables, &events, new(Class::Administration, &[1], "theirs", NOW)).await;
        put(&tables, &events, new(Class::Refusals, &[2], &format!("own {number}"), NOW)).await;
    }
    for number in 0..3000 {
        let class = if number < 40 { Class::Administration } else { Class::Refusals };
        put(&tables, &events, new(class, &[1], &format!("flood {number}"), NOW)).await;
        if number % 100 == 99 {
            // What one step removes may not be committed when the next begins.
            while events.trim(|org| org).expect("removed") {}
            tables.writer().barrier().expect("room").await.expect("stored");
            check_bytes(&events, &store);
        }
    }
    let total: u64 = events.load().classes.iter().map(|(_, _, bytes)| bytes).sum();
    assert!((30_000..=40_000).contains(&total), "{total}");
    let of = |class: Class, number: u8| {
        let prefix = sum_key(class, org(number));
        rows(&store).iter().filter(|(key, _)| key.starts_with(&prefix)).count()
    };
    assert_eq!((of(Class::Refusals, 2), of(Class::Administration, 1)), (20, 60));
    // What is left of the flood is its end.
    let left = of(Class::Refusals, 1);
    let all = numbers(&events, &query(Order::NewestFirst, &|of| of == org(1)));
    let last: Vec<u64> = (0..left as u64).map(|back| 40 + 3000 - back).collect();
    assert_eq!(all[..left], last);
    // A restart counts the same.
    events.store_sums().expect("room");
    tables.writer().barrier().expect("room").await.expect("stored");
    check_bytes(&open(&store, 40_000).1, &store);
}

#[tokio::test]
async fn an_organisation_that_is_gone_keeps_its_place_while_it_has_events() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    put(&tables, &events, new(Class::Refusals, &[2], "x", NOW)).await;
    let mut batch = Batch::default();
    events.org_goes(&mut batch, org(2), Some(org(1)));
    tables.submit(batch).expect("room").await.expect("stored");
    let (tables, events) = open(&store, u64::MAX);
    assert_eq!(events.above_gone(org(2)), Some(Some(org(1))));
    events.expire(NOW.plus_seconds(3 * 86_400)).expect("removed");
    tables.writer().barrier().expect("room").await.expect("stored");
    assert_eq!(events.above_gone(org(2)), None);
    assert_eq!(open(&store, u64::MAX).1.above_gone(org(2)), None);
}

#[tokio::test]
async fn the_name_of_an_organisation_that_is_gone_is_kept_while_rows_show_it() {
    let store = Arc::new(MemoryStore::new());
    let (tables, events) = open(&store, u64::MAX);
    let (there, soon_gone, with_rows) = (org(1), org(2), org(3));
    for (org, key) in [(there, "there"), (soon_gone, "gone"), (with_rows, "with-rows")] {
        events.name_org(org, key);
    }
    // Acts stay for ever, and say themselves how the organisation was called.
    put(&tables, &events, new(Class::Administration, &[2, 3], "x", NOW)).await;
    put(&tables, &events, new(Class::Sessions, &[3], "x", NOW)).await;
    let mut batch = Batch::default();
    [soon_gone, with_rows].iter().for_each(|org| events.org_goes(&mut batch, *org, Some(there)));
    tables.submit(batch).expect("room").await.expect("stored");
    let name_of = |org| events.key_of(Class::Sessions, org);
    events.expire(NOW).expect("nothing is old");
    assert_eq!([there, soon_gone].map(|org| name_of(org).is_some()), [true, false]);
    assert_eq!(name_of(with_rows).as_deref(), Some("with-rows"));
    events.expire(NOW.plus_seconds(3 * 86_400)).expect("removed");
    assert_eq!([there, with_rows].map(|org| name_of(org).is_some()), [true, false]);
}

#[test]
fn a_diff_shows_what_changed_and_no_secret() {
    let map = |value: Value| value.as_object().cloned().expect("an object");
    let (was, is) = diff(
        map(json!({ "a": 1, "same": [1], "passwordHash": "x", "in": { "b": 1, "c": 2 } })),
        map(json!({ "a": 2, "same": [1], "passwordHash": "y", "in": { "b": 1, "c": 3 } })),
    );
    assert_eq!(Value::from(was), json!({ "a": 1, "in": { "c": 2 } }));
    assert_eq!(Value::from(is), json!({ "a": 2, "in": { "c": 3 }, "password": "changed" }));
    let (was, is) = diff(map(json!({})), map(json!({ "a": "", "b": true, "tokenHash": [1] })));
    assert_eq!((Value::from(was), Value::from(is)), (json!({}), json!({ "b": true })));
    let long = "ü".repeat(limits::EVENT_TEXT_BYTES_MAX);
    let (_, is) = diff(map(json!({ "a": 1 })), map(json!({ "a": long })));
    assert!(is["a"].as_str().is_some_and(|text| text.ends_with('…') && text.len() < 9000));
    assert_eq!(shown_name("a\nb\u{202e}c"), "a\\u{a}b\\u{202e}c");
    assert_eq!(shown_name(&"x".repeat(1000)).chars().count(), 129);
}
