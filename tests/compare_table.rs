//! The tests of the table that `cargo bench --bench compare` prints: a program without the test
//! harness can't run them itself.

#[path = "../benches/compare/table.rs"]
mod table;

use table::{Figure, Goal, Row, Unit, markdown, thousands};

fn row(goal: Goal, floor: &[f64], peer: &[f64], ours: &[f64]) -> Row {
    let figures = |values: &[f64]| values.iter().copied().map(Figure::from).collect();
    let (floor, peer, ours) = (figures(floor), figures(peer), figures(ours));
    Row { floor, peer, ours, ..Row::new("ping", Unit::Count, goal) }
}

#[test]
fn a_row_has_figures_ratios_and_a_verdict() {
    let mut row = row(Goal::OfFloor(0.9), &[177_049.0, 160_000.0], &[68_000.0], &[152_499.0]);
    assert_eq!(
        row.to_string(),
        "| ping | 177,000; 160,000 | 68,000 | 152,000 | 90 % | 2.2 × | 90 % of the floor: met |"
    );
    row.goal = Goal::TimesPeer(4.0);
    row.ours[0].beside = "p50 2 ms".to_owned();
    let text = row.to_string();
    assert!(text.contains("| 152,000 (p50 2 ms) |"), "{text}");
    assert!(text.ends_with("| 4 × mosquitto: **missed** |"), "{text}");
    row.unit = Unit::Micros;
    let text = row.to_string();
    assert!(text.contains("| 0.9 × | 2.2 × |"), "{text}");
    let table = markdown(&[row.clone(), row]);
    let columns = |line: &str| line.matches('|').count();
    assert_eq!(table.lines().map(columns).collect::<Vec<_>>(), [8; 4], "{table}");
}

#[test]
fn goals_compare_means_and_say_nothing_without_figures() {
    let check = |goal, floor: &[f64], peer: &[f64], ours: &[f64], met| {
        assert_eq!(row(goal, floor, peer, ours).is_met(), met, "{goal:?}");
    };
    check(Goal::OfFloor(0.9), &[100.0], &[], &[80.0, 100.0], Some(true));
    check(Goal::OfFloor(0.9), &[100.0], &[], &[80.0, 99.0], Some(false));
    check(Goal::OfFloor(0.9), &[], &[], &[80.0], None);
    check(Goal::PeerTimes(1.5), &[], &[150.0], &[100.0], Some(true));
    check(Goal::PeerTimes(1.5), &[], &[149.0], &[100.0], Some(false));
    check(Goal::PeerTimes(1.5), &[], &[], &[100.0], None);
    check(Goal::TimesPeer(4.0), &[], &[10.0], &[40.0], Some(true));
    check(Goal::TimesPeer(4.0), &[], &[], &[40.0], None);
    check(Goal::AtLeast(5.0), &[], &[], &[4.9], Some(false));
    check(Goal::AtMost(5.0), &[], &[], &[4.9], Some(true));
    check(Goal::AtMost(5.0), &[], &[], &[], None);
    check(Goal::None, &[1.0], &[1.0], &[1.0], None);
}

#[test]
fn numbers_are_short() {
    let check = |value: f64, text: &str| assert_eq!(thousands(value), text);
    check(0.0, "0");
    check(999.4, "999");
    check(1234.0, "1,230");
    check(3_054_321.0, "3,050,000");
    let written = |value: f64, unit| {
        let ours = vec![Figure::from(value)];
        let row = Row { ours, ..Row::new("", unit, Goal::None) }.to_string();
        row.split('|').nth(4).unwrap_or_default().trim().to_owned()
    };
    assert_eq!(written(4.567, Unit::Kilobytes), "4.57 kB");
    assert_eq!(written(21.04, Unit::Micros), "21.0 µs");
    assert_eq!(written(1341.0, Unit::Micros), "1,340 µs");
    assert_eq!(written(0.512, Unit::Millis), "0.51 ms");
}
