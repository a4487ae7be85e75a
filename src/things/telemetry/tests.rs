//! The rules of series and points, on a store in memory.

use std::ops::Bound::Unbounded;
use std::sync::Arc;

use base::{OrgId, ThingId, limits};
use proptest::prelude::*;
use store::{DiskShares, Durability, Store as _, memory::MemoryStore};

use super::point::Alarm;
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);
const MINE: ThingId = ThingId::from_bytes([7; 12]);
const ORG: OrgId = OrgId::from_bytes([8; 12]);
const ALL: Span = Span {
    from: Timestamp::from_millis(i64::MIN),
    to: Timestamp::from_millis(i64::MAX),
    backwards: false,
};

fn months_ago(months: i64) -> i64 {
    NOW.as_millis() - months * 31 * 86_400_000
}

struct Bench {
    store: Arc<MemoryStore>,
    telemetry: Telemetry,
    bytes: Arc<StoredBytes>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(retention_months: u32) -> Self {
        Self::on(Arc::default(), retention_months)
    }

    fn on(store: Arc<MemoryStore>, retention_months: u32) -> Self {
        let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let disk = Arc::new(DiskShares::new(store.room(), &Arc::default()));
        let bytes = Arc::new(StoredBytes::open(&tables, disk).expect("read"));
        let telemetry = Telemetry::open(tables, 5, retention_months, (1000, &bytes));
        Self { store, telemetry: telemetry.expect("read"), bytes, runtime }
    }

    fn publish(&self, kind: Kind, points: &[NewPoint]) -> Vec<usize> {
        let (unchanged, refused) = self.publish_of(MINE, kind, points);
        assert_eq!(refused, None);
        unchanged
    }

    fn publish_of(
        &self,
        thing: ThingId,
        kind: Kind,
        points: &[NewPoint],
    ) -> (Vec<usize>, Option<(Vec<usize>, NotRecorded)>) {
        let payer = || Ok((ORG, None));
        let published = self.telemetry.publish(thing.into(), payer, kind, points, NOW);
        let published = published.expect("taken");
        self.runtime.block_on(published.receipt).expect("stored");
        (published.unchanged, published.refused)
    }

    fn series(&self, kind: Kind, name: &str) -> Series {
        self.telemetry.series(MINE.into(), kind, name).expect("read").expect("there")
    }

    /// Times and values of a property.
    fn values(&self, name: &str, span: Span, page: usize) -> Vec<(i64, f64)> {
        let series = self.series(Kind::Property, name);
        let points = self.telemetry.points(&series, span, page);
        points.map(|row| pair(&row.expect("read"))).collect()
    }

    fn sweep(&self) -> usize {
        let mut steps = 0;
        while let Some(receipt) = self.telemetry.sweep().expect("swept") {
            self.runtime.block_on(receipt).expect("stored");
            steps += 1;
        }
        steps
    }
}

/// A value of a property with a word of its client.
fn with_word(ts: i64, value: f64, word: &str) -> NewPoint {
    NewPoint {
        name: "p".into(),
        ts: Some(NOW.plus_millis(ts)),
        value: Value::Property(value),
        corr_id: Some(word.into()),
        republish: false,
    }
}

#[test]
fn a_point_that_is_sent_again_is_taken_once() {
    let bench = Bench::new(0);
    let far = 40 * 24 * 60 * 60 * 1000;
    let sent = [with_word(1, 1.0, "a"), with_word(1, 2.0, "b"), with_word(far, 3.0, "a")];
    assert_eq!(bench.publish(Kind::Property, &sent), [0; 0]);
    assert_eq!(bench.publish(Kind::Property, &sent), [0, 1, 2]);
    // Within a batch, beside others; who says nothing, or no time, is not compared.
    let nameless = NewPoint { corr_id: None, ..with_word(1, 1.0, "") };
    let timeless = NewPoint { ts: None, ..with_word(0, 5.0, "a") };
    let batch = [
        with_word(2, 4.0, "c"),
        with_word(2, 4.0, "c"),
        with_word(1, 9.0, "a"),
        nameless.clone(),
        nameless.clone(),
        timeless.clone(),
        timeless,
        with_word(3, 6.0, ""),
        with_word(3, 6.0, ""),
    ];
    assert_eq!(bench.publish(Kind::Property, &batch), [1, 2]);
    let mut values = bench.values("p", ALL, 3);
    values.iter_mut().for_each(|(ts, _)| *ts -= NOW.as_millis());
    values.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
    let expected = [
        (0, 5.0),
        (0, 5.0),
        (1, 1.0),
        (1, 1.0),
        (1, 1.0),
        (1, 2.0),
        (2, 4.0),
        (3, 6.0),
        (3, 6.0),
        (far, 3.0),
    ];
    assert_eq!(values, expected);
    // It is found by whoever opens the store next.
    let Bench { store, .. } = bench;
    let bench = Bench::on(store, 0);
    assert_eq!(bench.publish(Kind::Property, &sent), [0, 1, 2]);
}

#[test]
fn a_point_is_found_where_it_was_when_a_month_has_begun() {
    let bench = Bench::new(0);
    let time = |text| Timestamp::parse(text).expect("a time");
    let point = NewPoint { ts: Some(time("2021-10-05T00:00:00Z")), ..with_word(0, 1.0, "a") };
    let publish = |now| {
        let (payer, points) = (|| Ok((ORG, None)), [point.clone()]);
        let published =
            bench.telemetry.publish(MINE.into(), payer, Kind::Property, &points, time(now));
        let published = published.expect("taken");
        bench.runtime.block_on(published.receipt).expect("stored");
        published.unchanged.len()
    };
    assert_eq!(publish("2021-08-31T12:00:00Z"), 0);
    assert_eq!(publish("2021-09-01T11:00:00Z"), 1);
}

#[test]
fn words_that_share_a_number_are_told_apart() {
    // 100,000 words have some of 2^31 numbers in common; none is lost.
    let bench = Bench::new(0);
    let words: Vec<_> = (0..100_000).map(|word| with_word(1, 1.0, &format!("{word}"))).collect();
    for part in words.chunks(10_000) {
        assert_eq!(bench.publish(Kind::Property, part), [0; 0]);
    }
    assert_eq!(bench.values("p", ALL, 1000).len(), words.len());
    assert_eq!(bench.publish(Kind::Property, &words[..10_000]).len(), 10_000);
}

#[test]
fn entries_of_one_word_and_moment_that_differ_are_all_kept() {
    let bench = Bench::new(0);
    let entry = |msg: &'static str| NewPoint {
        name: String::new(),
        value: Value::Log(point::Entry { level: 2, msg: msg.into() }),
        ..with_word(1, 0.0, "w")
    };
    assert_eq!(bench.publish(Kind::Log, &[entry("a"), entry("b"), entry("a")]), [2]);
    assert_eq!(bench.publish(Kind::Log, &[entry("b"), entry("c")]), [0]);
}

fn pair(row: &store::Row) -> (i64, f64) {
    let point = Points::decode(Kind::Property, row).expect("a point");
    match point.value {
        Value::Property(value) => (point.ts.as_millis(), value),
        other => panic!("no property: {other:?}"),
    }
}

fn new(name: &str, ts: i64, value: Value<'static>) -> NewPoint {
    let ts = Some(Timestamp::from_millis(ts));
    NewPoint { name: name.to_owned(), ts, value, corr_id: None, republish: false }
}

fn property(name: &str, ts: i64, value: f64) -> NewPoint {
    new(name, ts, Value::Property(value))
}

fn alarm(ts: i64, state: i64) -> NewPoint {
    new("a", ts, Value::Alarm(Alarm { state, msg: None, place: None }))
}

#[test]
fn the_newest_point_is_that_of_the_latest_time() {
    let bench = Bench::new(0);
    let points = [property("v", 20, 2.0), property("w", 5, 9.0), property("v", 10, 1.0)];
    assert!(bench.publish(Kind::Property, &points).is_empty());
    let series = bench.series(Kind::Property, "v");
    assert_eq!(pair(&series.into_newest_row()), (20, 2.0));
    // Two points with one time are both kept, and the later one counts.
    bench.publish(Kind::Property, &[property("v", 20, 3.0), property("v", 19, 4.0)]);
    let series = bench.series(Kind::Property, "v");
    assert_eq!(pair(&series.into_newest_row()), (20, 3.0));
    let all = [(10, 1.0), (19, 4.0), (20, 2.0), (20, 3.0)];
    assert_eq!(bench.values("v", ALL, 2), all);
    assert_eq!(bench.values("w", ALL, 2), [(5, 9.0)]);
}

#[test]
fn a_state_is_recorded_when_it_changes_or_when_asked_for() {
    let bench = Bench::new(0);
    let again = NewPoint { republish: true, ..alarm(40, 1) };
    let points =
        [alarm(10, 1), alarm(20, 1), alarm(30, 2), alarm(31, 1), again, alarm(5, 1), alarm(40, 1)];
    assert_eq!(bench.publish(Kind::Alarm, &points), [1, 6]);
    let series = bench.series(Kind::Alarm, "a");
    assert_eq!((series.ts.as_millis(), series.since.as_millis()), (40, 31));
    assert_eq!(bench.publish(Kind::Alarm, &[alarm(50, 1), alarm(40, 2)]), [0]);
    let series = bench.series(Kind::Alarm, "a");
    assert_eq!((series.ts.as_millis(), series.since.as_millis()), (40, 40));
}

#[test]
fn what_was_never_set_is_not_unset() {
    let bench = Bench::new(0);
    let set =
        |ts, value: Option<&'static str>| new("a", ts, Value::Attribute(value.map(Into::into)));
    let points = [set(1, None), set(2, Some("x")), set(3, None), set(4, None), set(5, Some("x"))];
    assert_eq!(bench.publish(Kind::Attribute, &points), [0, 3]);
    let currents = bench.telemetry.currents(MINE).expect("read");
    let (attribute, time) = (&currents.attributes["a"], Timestamp::from_millis(5));
    assert_eq!((attribute.value.as_str(), attribute.ts, attribute.since), ("x", time, time));
    bench.publish(Kind::Attribute, &[set(6, None)]);
    assert_eq!(bench.telemetry.currents(MINE).expect("read"), Currents::default());
}

#[test]
fn numbers_are_not_used_again_after_a_restart() {
    let bench = Bench::new(0);
    bench.publish(Kind::Property, &[property("v", 1, 1.0)]);
    let other = Bench::on(bench.store.clone(), 0);
    other.publish(Kind::Property, &[property("w", 1, 1.0)]);
    let (first, second) =
        (other.series(Kind::Property, "v").number, other.series(Kind::Property, "w").number);
    assert!(first < second, "{first} {second}");
    assert_eq!(other.values("v", ALL, 9), [(1, 1.0)]);
}

#[test]
fn months_that_are_too_old_are_dropped() {
    let bench = Bench::new(2);
    let times = [months_ago(0), months_ago(1), months_ago(2)];
    let points = times.map(|ts| property("v", ts, 1.0));
    assert!(points.iter().all(|point| bench.telemetry.keeps(point.ts.expect("a time"), NOW)));
    assert!(!bench.telemetry.keeps(Timestamp::from_millis(months_ago(3)), NOW));
    bench.publish(Kind::Property, &points);
    assert_eq!(bench.telemetry.expire(NOW).expect("dropped"), 0);
    assert_eq!(bench.values("v", ALL, 9).len(), 3);
    let next_month = NOW.plus_millis(31 * 86_400_000);
    assert_eq!(bench.telemetry.expire(next_month).expect("dropped"), 1);
    assert_eq!(bench.values("v", ALL, 9).len(), 2);
}

#[test]
fn nothing_is_left_of_a_thing_that_is_forgotten() {
    let bench = Bench::new(0);
    let times = [NOW.as_millis(), NOW.as_millis() - 40 * 86_400_000, -7];
    let points: Vec<_> = times.iter().map(|ts| property("v", *ts, 1.0)).collect();
    for _ in 0..2 {
        bench.publish(Kind::Property, &points);
    }
    bench.publish(Kind::Alarm, &[alarm(1, 1)]);
    let series = bench.series(Kind::Property, "v");
    assert_eq!(bench.sweep(), 0);
    let mut batch = Batch::default();
    bench.telemetry.forget(&mut batch, MINE.into());
    let receipt = bench.telemetry.tables.submit(batch).expect("room");
    bench.runtime.block_on(receipt).expect("stored");
    assert_eq!(bench.telemetry.tally.of(ORG), 2);
    assert_eq!(bench.sweep(), 3);
    assert_eq!(bench.telemetry.tally.of(ORG), 0);
    assert_eq!(bench.store.scan(Table::Series, Unbounded, Unbounded, 9).expect("read"), []);
    assert_eq!(bench.telemetry.currents(MINE).expect("read"), Currents::default());
    assert_eq!(bench.telemetry.points(&series, ALL, 9).count(), 0);
}

#[test]
fn above_the_share_no_series_is_added_and_those_that_are_there_go_on() {
    let bench = Bench::new(0);
    let names: Vec<_> = (0..1100).map(|n| property(&format!("v{n}"), 1, 1.0)).collect();
    let (_, refused) = bench.publish_of(MINE, Kind::Property, &names);
    let (refused, why) = refused.expect("there are too many");
    assert!(matches!(why, NotRecorded::OverShare(_)), "{why}");
    let there = bench.telemetry.tally.of(ORG) as usize;
    assert_eq!(refused, (there..1100).collect::<Vec<_>>());
    // A known one behind a new one.
    let mixed = [property("new", 2, 2.0), property("v0", 2, 2.0), property("new", 3, 2.0)];
    let (_, refused) = bench.publish_of(MINE, Kind::Property, &mixed);
    assert_eq!(refused.expect("no room").0, [0, 2]);
    assert_eq!(pair(&bench.series(Kind::Property, "v0").into_newest_row()), (2, 2.0));
    assert_eq!(bench.telemetry.tally.of(ORG) as usize, there);
    // As it was, after a restart; and counted anew in a store of an older program.
    for is_old in [false, true] {
        if is_old {
            let rows = bench.store.scan(Table::Meta, Unbounded, Unbounded, 99).expect("read");
            let mut batch = Batch::default();
            rows.into_iter().for_each(|(key, _)| batch.delete(Table::Meta, key));
            batch.delete(Table::Series, head::row_key(MINE.as_bytes()));
            batch.put(Table::ThingIds, [*ORG.as_bytes(), *MINE.as_bytes()].concat(), "m");
            bench.store.commit(&[batch]).expect("committed");
        }
        let again = Bench::on(bench.store.clone(), 0);
        assert_eq!(again.telemetry.tally.of(ORG) as usize, there);
        let head = Head::read(&again.telemetry.tables, MINE.into()).expect("read");
        assert_eq!(head.expect("there").count as usize, there);
    }
}

/// What rows of telemetry take, and what is counted.
fn bytes_of(bench: &Bench) -> (usize, usize) {
    let months = bench.store.months().into_iter().chain([Table::Series]);
    let rows = months.flat_map(|table| bench.store.scan(table, Unbounded, Unbounded, 9999));
    let rows = rows.flatten().filter(|(key, _)| key.len() != 13 || key.last() != Some(&0));
    let bytes = rows.map(|(key, value)| key.len() + value.len()).sum();
    (bytes, bench.bytes.total() as usize)
}

#[test]
fn what_points_take_of_the_disk_is_counted_until_they_have_gone() {
    let bench = Bench::new(12);
    let check = |what: &str| {
        let (bytes, counted) = bytes_of(&bench);
        assert_eq!(bytes, counted, "{what}");
        bytes
    };
    let other = ThingId::from_bytes([9; 12]);
    let attribute = |ts, text: &str| new("a", ts, Value::Attribute(Some(text.to_owned().into())));
    bench.publish(Kind::Attribute, &[attribute(1, "long enough"), attribute(2, "short")]);
    bench.publish(Kind::Attribute, &[attribute(3, ""), attribute(3, "")]);
    bench.publish_of(other, Kind::Attribute, &[attribute(4, &"x".repeat(1000))]);
    let mut again = property("v", NOW.as_millis(), 1.5);
    again.corr_id = Some("once".into());
    bench.publish(Kind::Property, &[again.clone(), again.clone()]);
    bench.publish(Kind::Property, &[again]);
    for months in [0, 1, 2, 30] {
        bench.publish(Kind::Property, &[property("v", months_ago(months), 1.0)]);
    }
    let before = check("after points of many months");
    assert_eq!(bench.telemetry.expire(NOW).expect("dropped"), 1);
    assert!(check("after a month was dropped") < before);
    let mut batch = Batch::default();
    bench.telemetry.forget(&mut batch, MINE.into());
    bench.store.commit(&[batch]).expect("committed");
    assert!(bench.sweep() > 1);
    assert!(check("after one is deleted") > 1000);
}

#[test]
fn who_has_the_disk_adds_no_point_and_others_do() {
    let store = Arc::<MemoryStore>::default();
    store.room().set_reserve(1900);
    let bench = Bench::on(store, 0);
    let (other, other_org) = (ThingId::from_bytes([9; 12]), OrgId::from_bytes([9; 12]));
    let large = new("a", 1, Value::Attribute(Some("x".repeat(10_000).into())));
    bench.publish(Kind::Attribute, std::slice::from_ref(&large));
    bench.store.room().note(store::Condition::Good, 2000, 2000);
    let before = (bytes_of(&bench), bench.telemetry.tally.of(ORG));
    let more = [property("v", 2, 1.0), property("w", 2, 1.0)];
    let (_, refused) = bench.publish_of(MINE, Kind::Property, &more);
    let (places, why) = refused.expect("above the share");
    assert_eq!(places, [0, 1]);
    assert!(matches!(why, NotRecorded::OverShare(over) if over.pool == Pool::Disk), "{why}");
    // What changes nothing is not refused.
    let (unchanged, refused) = bench.publish_of(MINE, Kind::Attribute, &[large]);
    assert_eq!((unchanged, refused), (vec![0], None));
    assert_eq!((bytes_of(&bench), bench.telemetry.tally.of(ORG)), before);
    let payer = || Ok((other_org, None));
    let publish =
        |points| bench.telemetry.publish(other.into(), payer, Kind::Property, points, NOW);
    assert_eq!(publish(&more[..1]).expect("taken").refused, None);
}

#[test]
fn a_thing_has_no_more_series_than_are_shown_with_it() {
    let store = Arc::<MemoryStore>::default();
    let tables = Tables::new(store.clone(), Durability::Os, &Arc::default());
    let head = Head { count: limits::SERIES_PER_THING_MAX as u64 - 1, payer: (ORG, None) };
    let mut batch = Batch::default();
    head.put(&mut batch, MINE.into());
    drop(tables);
    store.commit(&[batch]).expect("committed");
    let bench = Bench::on(store, 0);
    let points = [property("a", 1, 1.0), property("b", 1, 1.0)];
    // The rebuild counts what is there: none.
    assert_eq!(bench.publish_of(MINE, Kind::Property, &points).1, None);
    let mut batch = Batch::default();
    head.put(&mut batch, MINE.into());
    bench.store.commit(&[batch]).expect("committed");
    let points = [property("c", 1, 1.0), property("d", 1, 1.0), property("a", 2, 1.0)];
    let (_, refused) = bench.publish_of(MINE, Kind::Property, &points);
    assert_eq!(refused, Some((vec![1], NotRecorded::SeriesOfThing)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Points of any time, near and far, are read as a sorted list would be.
    #[test]
    fn a_span_is_what_a_sorted_list_has_there(
        times in prop::collection::vec(
            prop_oneof![
                3 => (-400..40_i64).prop_map(|days| NOW.as_millis() + days * 86_400_000),
                1 => -5..5_i64,
                1 => Just(253_402_300_799_999_i64),
            ],
            1..40,
        ),
        bounds in (-420..60_i64, -420..60_i64),
        backwards in any::<bool>(),
        page in 1..10_usize,
    ) {
        let bench = Bench::new(0);
        let points: Vec<_> =
            times.iter().enumerate().map(|(n, ts)| property("v", *ts, n as f64)).collect();
        for step in points.chunks(7) {
            bench.publish(Kind::Property, step);
        }
        let mut model: Vec<_> = times.iter().enumerate().map(|(n, ts)| (*ts, n as f64)).collect();
        model.sort_by_key(|(ts, _)| *ts);
        let day = |days: i64| Timestamp::from_millis(NOW.as_millis() + days * 86_400_000);
        for (from, to) in [(day(bounds.0), day(bounds.1)), (ALL.from, ALL.to)] {
            let within = |(ts, _): &&(i64, f64)| {
                (from.as_millis()..=to.as_millis()).contains(ts)
            };
            let mut expected: Vec<_> = model.iter().filter(within).copied().collect();
            if backwards {
                expected.reverse();
            }
            let span = Span { from, to, backwards };
            prop_assert_eq!(bench.values("v", span, page), expected);
        }
        let newest = model.last().copied();
        prop_assert_eq!(Some(pair(&bench.series(Kind::Property, "v").into_newest_row())), newest);
    }
}

#[test]
fn what_is_shown_with_a_thing_has_a_bound() {
    let bench = Bench::new(0);
    let value = || Value::Attribute(Some("x".repeat(limits::ATTRIBUTE_BYTES_MAX).into()));
    let points: Vec<_> = (0..300).map(|n| new(&format!("a{n}"), 10, value())).collect();
    bench.publish(Kind::Attribute, &points);
    let shown = bench.telemetry.currents(MINE).expect("read").attributes.len();
    assert_eq!(shown, limits::CURRENTS_BYTES_MAX / (limits::ATTRIBUTE_BYTES_MAX + 45));
}
