//! What commands write and read, and what becomes of a batch when something happens between its pieces.

use std::sync::atomic::Ordering;

use base::ThingKey;
use rules::directory::Session;
use rules::identity::model::Org;
use store::watched::Watched;
use store::{Condition, Store as _};

use super::super::alarm::Alarm;
use super::super::attribute::Attribute;
use super::super::location::Location as Fix;
use super::super::property::Property;
use super::*;
use crate::app::tests::{NOW, demo_with, login, permit_all};
use crate::app::{App, SessionChange};
use crate::config::Config;
use crate::things::registry::Thing;

/// Points that are three pieces.
const MANY: usize = 2 * limits::BATCH_PIECE + 500;

struct Bench {
    app: Arc<App>,
    store: Arc<Watched>,
    session: Arc<Session>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let (app, store) = demo_with(config);
        let session = login(&app).await.expect("welcome");
        permit_all(&app, &session);
        Self { app, store, session }
    }

    fn call(&self) -> Call<'_> {
        Call { app: &self.app, session: &self.session, conn: *self.session.conn(), now: NOW }
    }

    fn batch<I: Item>(&self, text: &str) -> Later {
        batch(&self.call(), batch_text::<I>(text)).expect("begun")
    }

    /// Such a batch whose first piece is stored, and which does not go on before it is waited for.
    async fn stopped<I: Item>(&self, text: &str) -> Later {
        let later = self.batch::<I>(text);
        while self.points() == 0 {
            tokio::task::yield_now().await;
        }
        later
    }

    /// How many points are stored.
    fn points(&self) -> usize {
        use std::ops::Bound::Unbounded;
        let months =
            self.store.months().into_iter().filter(|t| matches!(t, store::Table::Telemetry(_)));
        months
            .map(|t| self.store.scan(t, Unbounded, Unbounded, usize::MAX).expect("read").len())
            .sum()
    }

    fn thing(&self, id: u8) -> Thing {
        let key = ThingKey::parse("child").expect("a key");
        Thing::new(ThingId::from_bytes([id; 12]), self.session.org_id(), key, "", NOW)
    }

    async fn add_thing(&self, id: u8) {
        self.app.things.create(&self.thing(id)).expect("room").await.expect("stored");
    }

    async fn remove_thing(&self) {
        let Thing { org, key, .. } = self.thing(0);
        let removed = self.app.things.remove(org, &key, |_, _| ()).expect("taken");
        removed.expect("it was there").1.await.expect("stored");
    }
}

fn batch_text<I: Item>(text: &str) -> BatchText<I> {
    let text: Box<RawValue> = serde_json::from_str(text).expect("JSON");
    BatchText::read(RawParams::Json(Some(&text))).expect("an object")
}

/// So many points that are all what stands beside them.
fn same(beside: &str, count: usize) -> String {
    format!("{{{beside},\"data\":[{}]}}", vec!["{}"; count].join(","))
}

const V: &str = r#""key":"v","value":1"#;

async fn failure(later: Later) -> Failure {
    later.done().await.err().expect("a failure")
}

#[tokio::test]
async fn a_piece_that_is_lost_is_named_by_its_first_point() {
    let bench = Bench::new().await;
    let later = bench.stopped::<Property>(&same(V, MANY)).await;
    bench.store.failing.store(true, Ordering::SeqCst);
    let failure = failure(later).await;
    assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
    assert_eq!((failure.code, bench.points()), (Code::INTERNAL, limits::BATCH_PIECE));
}

#[tokio::test]
async fn a_first_piece_that_is_lost_is_the_whole_batch() {
    let bench = Bench::new().await;
    bench.store.failing.store(true, Ordering::SeqCst);
    let failure = failure(bench.batch::<Property>(&same(V, MANY))).await;
    assert!(!failure.message.starts_with("data["), "{failure:?}");
}

#[tokio::test]
async fn what_the_store_holds_ends_before_the_point_that_is_named() {
    let bench = Bench::new().await;
    let held = async |text: &str| {
        let begun = begin(&bench.call(), &batch_text::<Property>(text)).expect("begun");
        begun.receipt.await.expect("stored");
        begun.rest.behind(begun.piece, Err(StoreError::Held)).err().expect("a failure").message
    };
    let wrong = r#"{"key":"v","value":1,"data":[{},{"value":"x"},{}]}"#;
    for (text, place) in [(same(V, MANY), "data[2000]: "), (wrong.to_owned(), "data[1]: ")] {
        let message = held(&text).await;
        assert!(message.starts_with(place), "{message}");
        assert!(message.contains("what comes before this point is stored"), "{message}");
    }
    assert_eq!(held(&same(V, 3)).await, StoreError::Held.as_failure().message, "all are held");
}

#[tokio::test]
async fn a_batch_goes_no_further_for_another_thing_of_the_same_key() {
    let bench = Bench::new().await;
    bench.add_thing(1).await;
    let text = same(&format!(r#"{V},"thingKey":"child""#), MANY);
    let later = bench.stopped::<Property>(&text).await;
    bench.remove_thing().await;
    bench.add_thing(2).await;
    let failure = failure(later).await;
    assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
    assert_eq!((failure.code, bench.points()), (Code::NOT_FOUND, limits::BATCH_PIECE));
}

#[tokio::test]
async fn a_batch_goes_no_further_in_another_organisation() {
    let bench = Bench::new().await;
    let later = bench.stopped::<Property>(&same(V, MANY)).await;
    let mut access = rules::identity::Access::clone(&bench.session.access());
    let id = OrgId::from_bytes([9; 12]);
    access.org = Arc::new(Org { id, key: "Other".into(), ..Org::clone(&access.org) });
    let switch = SessionChange::Switch(bench.session.clone(), Arc::new(access));
    bench.app.apply(switch.into(), NOW).await.stored.expect("stored");
    assert_eq!(bench.session.org_id(), id);
    let failure = failure(later).await;
    assert!(failure.message.starts_with("data[2000]: "), "{failure:?}");
    assert_eq!(bench.points(), limits::BATCH_PIECE);
}

#[tokio::test]
async fn the_first_point_that_was_not_taken_is_named_whatever_comes_later() {
    let mut config = Config::default();
    config.limits.series = 16;
    let bench = Bench::with(config).await;
    bench.add_thing(1).await;
    let named: Vec<_> = (0..20).map(|number| format!(r#"{{"key":"{number}"}}"#)).collect();
    let more = vec![r#"{"key":"0"}"#; limits::BATCH_PIECE].join(",");
    let text = format!(r#"{{"value":1,"thingKey":"child","data":[{},{more}]}}"#, named.join(","));
    let call = bench.call();
    let begun = begin(&call, &batch_text::<Property>(&text)).expect("begun");
    let refused = begun.piece.failed.as_ref().expect("too many series").0;
    assert!(refused < 20, "{refused}");
    // It keeps out only its own series: what the store holds goes on to the end of the piece.
    let held = begun.rest.behind(begun.piece, Err(StoreError::Held)).err().expect("a failure");
    assert!(held.message.starts_with("data[2000]: "), "{held:?}");
    // The same from the outside; its series are there.
    let later = bench.batch::<Property>(&text);
    bench.remove_thing().await;
    let failure = failure(later).await;
    assert_eq!(failure.code, Code::LIMIT_REACHED, "{failure:?}");
    assert!(failure.message.starts_with(&format!("data[{refused}]: ")), "{failure:?}");
}

#[tokio::test]
async fn a_batch_ends_with_a_piece_for_which_the_disk_has_no_room() {
    let bench = Bench::new().await;
    let value = "x".repeat(limits::ATTRIBUTE_BYTES_MAX);
    let large = limits::BATCH_PIECE_BYTES / limits::ATTRIBUTE_BYTES_MAX;
    let large = (0..large).map(|number| format!(r#"{{"key":"l{number}","value":"{value}"}}"#));
    let small = (0..10).map(|number| format!(r#"{{"key":"s{number}","value":"x"}}"#));
    let points: Vec<_> = large.chain(small).collect();
    bench.store.room().note(Condition::Good, 100_000, 100_000);
    let text = format!(r#"{{"data":[{}]}}"#, points.join(","));
    let refused = failure(bench.batch::<Attribute>(&text)).await;
    assert!(refused.message.starts_with("data[0]: "), "{refused:?}");
    assert_eq!(bench.points(), 0, "none that would be there twice");
    let text = r#"{"data":[{"key":"s","value":"x"}]}"#;
    drop(bench.batch::<Attribute>(text).done().await.expect("there is room for less"));
}

#[tokio::test]
async fn one_point_too_many_keeps_no_alarm_out_by_its_time() {
    let bench = Bench::new().await;
    let points = vec!["{}"; limits::BATCH_ITEMS_MAX].join(",");
    let last = r#"{"ts":"2020-01-01T00:00:00Z"}"#;
    let text = format!(r#"{{"key":"a","state":1,"data":[{points},{last}]}}"#);
    let failure = failure(bench.batch::<Alarm>(&text)).await;
    assert!(failure.message.starts_with("data[100000]: "), "{failure:?}");
    assert_eq!((failure.code, bench.points()), (Code::TOO_LARGE, 1));
}

#[tokio::test]
async fn who_sends_on_waits_for_what_takes_a_moment() {
    let bench = Bench::new().await;
    let long = |bytes: usize| {
        format!(r#"{{"key":"v","x":"{}","data":[{{"value":1}}]}}"#, "x".repeat(bytes))
    };
    for (text, holds_up) in [
        (same(V, 10), false),
        (same(V, MANY), true),
        (long(limits::BATCH_AT_ONCE_BYTES), true),
        (long(limits::BATCH_IN_ORDER_BYTES), false),
    ] {
        let later = bench.batch::<Property>(&text);
        assert_eq!(later.holds_up, holds_up, "{} bytes", text.len());
    }
}

#[test]
fn each_kind_of_batch_is_a_command() {
    for name in [Property::BATCH, Alarm::BATCH, Attribute::BATCH, Fix::BATCH] {
        assert_eq!(find(name).map(|row| row.info.name), Some(name));
    }
}

#[test]
fn what_a_text_must_be_names_its_bound() {
    for (expected, most) in BOUNDS {
        assert!(expected.ends_with(&format!("{most} bytes")), "{expected}: {most}");
    }
}

#[test]
fn a_location_is_told_with_empty_places() {
    let location = Location { lat: 1.5, lng: -2.0, ..Location::default() };
    assert_eq!(position(&location), "1.5,-2,,,,");
    let location = Location {
        heading: Some(90.0),
        speed: Some(0.25),
        altitude: Some(-3.0),
        fix_type: Some("gps".into()),
        ..location
    };
    assert_eq!(position(&location), "1.5,-2,90,0.25,-3,gps");
}
