use super::*;

fn org(number: u8) -> OrgId {
    OrgId::from_bytes([number; 12])
}

fn thing(number: u8) -> ThingId {
    ThingId::from_bytes([number; 12])
}

fn at(hour: i64) -> Timestamp {
    Timestamp::from_millis(hour * HOUR_MS + 1)
}

const FIRST: i64 = 24 * 20_000;

/// A connection of a thing comes, or the last one of it goes.
fn connect(usage: &mut Usage, number: u8, comes: bool) {
    match comes {
        true => {
            usage.come(org(1), true);
            usage.thing_comes(org(1), thing(number));
        }
        false => {
            usage.go(org(1), true);
            usage.thing_goes(org(1), thing(number));
        }
    }
}

fn now(usage: &Usage) -> [u64; 4] {
    let usage = &usage.orgs[&org(1)];
    [usage.hour.connected, usage.hour.things, usage.day.connected, usage.day.things]
}

#[test]
fn things_count_once_an_hour_and_once_a_day_and_sessions_each_time() {
    let mut usage = Usage::new(at(FIRST));
    for comes in [true, false, true] {
        connect(&mut usage, 1, comes);
    }
    connect(&mut usage, 2, true);
    connect(&mut usage, 2, true);
    assert_eq!(now(&usage), [4, 2, 4, 2]);
    let ended = usage.go_on(at(FIRST + 1));
    let [(Unit::Hour, begin, _, figures)] = ended[..] else { panic!("one hour: {ended:?}") };
    assert_eq!((begin, figures.connected), (Timestamp::from_millis(FIRST * HOUR_MS), 4));
    assert_eq!(now(&usage), [3, 2, 4, 2], "who is connected is in the next hour, too");
    // Those that were counted go, and come again.
    for _ in 0..2 {
        connect(&mut usage, 1, false);
        connect(&mut usage, 1, true);
    }
    connect(&mut usage, 3, true);
    assert_eq!(now(&usage), [6, 3, 7, 3]);
}

#[test]
fn each_hour_that_passed_has_figures_and_a_day_begins_with_who_is_there() {
    let mut usage = Usage::new(at(FIRST + 22));
    connect(&mut usage, 1, true);
    connect(&mut usage, 2, true);
    connect(&mut usage, 2, false);
    let ended = usage.go_on(at(FIRST + 25));
    let figures: Vec<_> =
        ended.iter().map(|(unit, .., f)| (*unit, f.connected, f.things)).collect();
    use Unit::{Day, Hour};
    assert_eq!(figures, [(Hour, 2, 2), (Hour, 1, 1), (Day, 2, 2), (Hour, 1, 1)]);
    assert_eq!(now(&usage), [1, 1, 1, 1]);
    assert_eq!(usage.things.len(), 1, "who was there yesterday only is forgotten");
    connect(&mut usage, 2, true);
    assert_eq!(now(&usage), [2, 2, 2, 2]);
    assert!(usage.go_on(at(FIRST + 24)).is_empty(), "by an hour it does not go back");
    assert_eq!(now(&usage), [2, 2, 2, 2]);
}

#[test]
fn a_clock_that_is_set_back_begins_its_hour_and_day_anew() {
    let mut usage = Usage::new(at(FIRST + 25));
    connect(&mut usage, 1, true);
    connect(&mut usage, 2, true);
    connect(&mut usage, 2, false);
    let ended = usage.go_on(at(FIRST));
    assert_eq!(ended.len(), 2, "what was counted is kept");
    assert_eq!(usage.begin(Unit::Hour), Unit::Hour.begin(at(FIRST)));
    assert_eq!(now(&usage), [1, 1, 1, 1]);
    connect(&mut usage, 2, true);
    assert_eq!(now(&usage), [2, 2, 2, 2]);
}

#[test]
fn what_stood_still_for_years_writes_a_few_hours() {
    let mut usage = Usage::new(at(FIRST));
    connect(&mut usage, 1, true);
    let ended = usage.go_on(at(FIRST + 100_000));
    assert!(ended.len() < 60, "{}", ended.len());
    assert_eq!(now(&usage), [1, 1, 1, 1]);
}

#[test]
fn hours_without_figures_are_zero_and_things_stay() {
    let first = Timestamp::from_millis(FIRST * HOUR_MS);
    let query = UsageQuery {
        orgs: HashSet::from([org(1), org(2)]),
        unit: Unit::Hour,
        first,
        count: 4,
        things: true,
    };
    let figures = |things, all_things| Figures { things, all_things, ..Figures::default() };
    let found = BTreeMap::from([
        ((1, org(1)), figures(3, 5)),
        ((1, org(2)), figures(1, 1)),
        ((3, org(1)), figures(9, 7)),
    ]);
    let series = series(&query, found);
    assert_eq!((series.connected, series.total), (vec![0, 4, 0, 9], vec![0, 6, 6, 9]));
    assert_eq!((series.ts[0], series.ts[3]), (first, first.plus_millis(3 * HOUR_MS)));
}
