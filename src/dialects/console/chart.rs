//! Charts, as SVG that needs no style of its own and no script. Each has a title in words; the exact
//! figures stand in a table beside it.

use base::Timestamp;
use maud::{Markup, html};

/// A value at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) value: f64,
}

/// The drawing, in units of SVG, and the room for what is written at its left and below it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 8.0;

/// Two points for each of so many columns are drawn of a long line: what is between them, nobody
/// could see.
const COLUMNS: usize = 270;

/// Tenths are not exact: what is so many steps from the edge is at the edge.
const NEARLY: f64 = 1e-9;

/// Values at times as replies have them; what is no time is left out.
pub(super) fn points<'a>(times: impl Iterator<Item = &'a str>, values: &[f64]) -> Vec<Point> {
    let both = times.zip(values).filter_map(|(time, value)| {
        Some(Point { at_ms: Timestamp::parse(time)?.as_millis(), value: *value })
    });
    both.collect()
}

/// A line as high as a word, without scales; where there is no value, it has a gap.
pub(super) fn sparkline(label: &str, values: &[Option<f64>]) -> Markup {
    let (width, height) = (96.0, 20.0);
    let scale = Scale::of(values.iter().flatten().copied());
    let values = coarse(values);
    let step = width / values.len().saturating_sub(1).max(1) as f64;
    let place = |(index, value): (usize, &Option<f64>)| {
        value.map(|value| (index as f64 * step, height - 2.0 - scale.at(value) * (height - 4.0)))
    };
    let path = path(values.iter().enumerate().map(place));
    html! {
        svg class="spark" role="img" width=(width) height=(height)
            viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" {
            title { (label) }
            path d=(path) fill="none" stroke="currentColor" stroke-width="1.5"
                stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
}

/// The least and the greatest of values that are so close together that nobody could see more of them.
fn coarse(values: &[Option<f64>]) -> Vec<Option<f64>> {
    const SEEN: usize = 48;
    if values.len() <= 2 * SEEN {
        return values.to_vec();
    }
    let chunks = values.chunks(values.len().div_ceil(SEEN));
    let ends = chunks.flat_map(|chunk| {
        let known = || chunk.iter().flatten().copied();
        let (least, greatest) = (known().reduce(f64::min), known().reduce(f64::max));
        let rises = known().next() < known().last();
        if rises { [least, greatest] } else { [greatest, least] }
    });
    ends.collect()
}

/// A line over time, with scales. The points are in the order of their times.
pub(super) fn line(label: &str, points: &[Point]) -> Markup {
    let scale = Scale::of(points.iter().map(|point| point.value)).widened();
    let span = Span::of(points);
    let thinned = thinned(points, &span);
    let place = |point: &Point| (span.x(point.at_ms), y(scale.at(point.value)));
    let line = path(thinned.iter().map(|point| Some(place(point))));
    framed(
        label,
        &scale,
        &span,
        &html! {
            path d=(line) fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round"
                stroke-linecap="round" {}
            @if let (Some(last), true) = (points.last(), points.len() < 60) {
                @for (x, y) in points.iter().map(place) {
                    circle cx=(short(x)) cy=(short(y)) r="2" fill="currentColor" {}
                }
                circle cx=(short(place(last).0)) cy=(short(place(last).1)) r="3" fill="currentColor" {}
            }
        },
    )
}

/// Bars from 0 on, each from its time to that of the next one; all as wide as the first. Each says
/// what it stands for.
pub(super) fn bars(label: &str, points: &[Point]) -> Markup {
    let values = points.iter().map(|point| point.value);
    let mut scale = Scale::of(values.chain([0.0]));
    if scale.least == scale.greatest {
        // Nothing was counted: what is counted is never less than that.
        scale.greatest = 1.0;
    }
    let width_ms = match points {
        [first, second, ..] => (second.at_ms - first.at_ms).max(1),
        _ => 3_600_000,
    };
    let mut span = Span::of(points);
    span.to_ms = span.to_ms.saturating_add(width_ms);
    let ground = y(scale.at(0.0));
    framed(
        label,
        &scale,
        &span,
        &html! {
            @for point in points {
                @let (from, to) = (span.x(point.at_ms), span.x(point.at_ms.saturating_add(width_ms)));
                @let top = y(scale.at(point.value));
                rect x=(short(from + 0.5)) y=(short(top.min(ground)))
                    width=(short((to - from - 1.0).max(0.5))) height=(short((ground - top).abs()))
                    fill="currentColor" {
                    title { (figure(point.value)) " · " (written(point.at_ms, 16)) }
                }
            }
        },
    )
}

/// The scales around what is drawn.
fn framed(label: &str, scale: &Scale, span: &Span, drawn: &Markup) -> Markup {
    let bottom = HEIGHT - BELOW;
    html! {
        svg class="chart" role="img" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
            title { (label) }
            @for value in scale.ticks() {
                @let y = y(scale.at(value));
                line x1=(LEFT) x2=(WIDTH) y1=(short(y)) y2=(short(y)) stroke="currentColor"
                    stroke-opacity="0.15" {}
                text x=(LEFT - 8.0) y=(short(y + 4.0)) text-anchor="end" { (figure(value)) }
            }
            @for (at_ms, text) in span.ticks() {
                @let x = span.x(at_ms);
                line x1=(short(x)) x2=(short(x)) y1=(bottom) y2=(bottom + 4.0) stroke="currentColor"
                    stroke-opacity="0.5" {}
                text x=(short(x)) y=(HEIGHT - 4.0) text-anchor=(anchor(x)) { (text) }
            }
            (drawn)
        }
    }
}

/// What is written at the edge stays within the drawing.
fn anchor(x: f64) -> &'static str {
    if x > WIDTH - 24.0 { "end" } else { "middle" }
}

/// Where a share of the height is, from above.
fn y(share: f64) -> f64 {
    let bottom = HEIGHT - BELOW;
    bottom - share * (bottom - ABOVE)
}

/// A line through places, broken where there is none.
fn path(places: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for place in places {
        let Some((x, y)) = place else {
            is_down = false;
            continue;
        };
        path.push(if is_down { 'L' } else { 'M' });
        path.push_str(&format!("{} {}", short(x), short(y)));
        // A point alone is seen by the round ends of its line.
        if !is_down {
            path.push_str("h0");
        }
        is_down = true;
    }
    path
}

/// A place to a tenth of a unit.
fn short(place: f64) -> String {
    let text = format!("{place:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// The values that a chart shows. They are halved before they are subtracted, so that the greatest
/// numbers that there are fit, too.
struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut scale = Self { least: f64::INFINITY, greatest: f64::NEG_INFINITY };
        for value in values.filter(|value| value.is_finite()) {
            scale.least = scale.least.min(value);
            scale.greatest = scale.greatest.max(value);
        }
        if scale.least > scale.greatest { Self { least: 0.0, greatest: 0.0 } } else { scale }
    }

    /// The same with room for one value that never changes.
    fn widened(self) -> Self {
        if self.least < self.greatest {
            return self;
        }
        let room = if self.least == 0.0 { 1.0 } else { self.least.abs() / 10.0 };
        Self { least: self.least - room, greatest: self.greatest + room }
    }

    /// Where a value is, from 0, the least, to 1.
    fn at(&self, value: f64) -> f64 {
        let share = (value / 2.0 - self.least / 2.0) / (self.greatest / 2.0 - self.least / 2.0);
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Round values at which lines are drawn: two to seven.
    fn ticks(&self) -> Vec<f64> {
        let raw = (self.greatest / 2.0 - self.least / 2.0) / 3.0;
        let power = 10f64.powf(raw.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= raw).unwrap_or(raw);
        if !step.is_finite() || step <= 0.0 {
            return vec![self.least, self.greatest];
        }
        let first = (self.least / step - NEARLY).ceil();
        let ticks = (0..8).map(|index| (first + f64::from(index)) * step);
        // Without a zero that is a remainder of calculation, or is negative.
        let ticks = ticks.map(|tick| if tick.abs() < step / 1e6 { 0.0 } else { tick });
        let last = self.greatest + step * NEARLY;
        ticks.take_while(|tick| tick.is_finite() && *tick <= last).collect()
    }
}

/// How much a second, or how long: what changes every second is read at a glance.
pub(super) fn rough(value: f64) -> String {
    let decimals = match value.abs() {
        10.0.. => 0,
        1.0.. => 1,
        _ => 3,
    };
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

/// A number in few digits.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    let decimals = match size {
        100.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

fn trimmed(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

/// The time that a chart shows.
struct Span {
    from_ms: i64,
    to_ms: i64,
}

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Distances of what is written below a chart.
const TIME_STEPS: [i64; 19] = [
    SECOND,
    5 * SECOND,
    15 * SECOND,
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
    3650 * DAY,
];

impl Span {
    fn of(points: &[Point]) -> Self {
        let from_ms = points.first().map_or(0, |point| point.at_ms);
        Self { from_ms, to_ms: points.last().map_or(0, |point| point.at_ms).max(from_ms) }
    }

    fn x(&self, at_ms: i64) -> f64 {
        let whole = self.to_ms.saturating_sub(self.from_ms) as f64;
        let share = at_ms.saturating_sub(self.from_ms) as f64 / whole;
        // Room for the half of a point at the edge.
        let width = WIDTH - LEFT - 4.0;
        LEFT + width * if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Times to write below, at most six.
    fn ticks(&self) -> Vec<(i64, String)> {
        let whole = self.to_ms.saturating_sub(self.from_ms);
        if whole == 0 {
            return vec![(self.from_ms, written(self.from_ms, 16))];
        }
        let Some(step) = TIME_STEPS.into_iter().find(|step| whole / step < 6) else {
            return Vec::new();
        };
        let first = self.from_ms.div_euclid(step).saturating_add(1).saturating_mul(step);
        let first = if self.from_ms.rem_euclid(step) == 0 { self.from_ms } else { first };
        let times = (0..6).map(|index| first.saturating_add(index * step));
        let times = times.take_while(|at_ms| *at_ms <= self.to_ms);
        times.map(|at_ms| (at_ms, self.tick(at_ms, step))).collect()
    }

    /// A time as its step makes it known: the day at midnight, otherwise the hour.
    fn tick(&self, at_ms: i64, step: i64) -> String {
        let text = Timestamp::from_millis(at_ms).to_string();
        let is_long = self.to_ms.saturating_sub(self.from_ms) > 300 * DAY;
        let range = match (step, at_ms.rem_euclid(DAY)) {
            _ if is_long => 0..7,
            (DAY.., _) | (_, 0) => 5..10,
            (MINUTE.., _) => 11..16,
            _ => 11..19,
        };
        text.get(range).unwrap_or(&text).to_owned()
    }
}

/// A time without its zone, so many characters of it.
fn written(at_ms: i64, length: usize) -> String {
    let text = Timestamp::from_millis(at_ms).to_string();
    format!("{} UTC", text.get(..length).unwrap_or(&text).replace('T', " "))
}

/// The least and the greatest point of each column, in their order.
fn thinned(points: &[Point], span: &Span) -> Vec<Point> {
    if points.len() <= 2 * COLUMNS {
        return points.to_vec();
    }
    let column = |point: &Point| {
        let share = (span.x(point.at_ms) - LEFT) / (WIDTH - LEFT);
        (share * COLUMNS as f64) as usize
    };
    let mut thinned = Vec::with_capacity(2 * COLUMNS);
    for column in points.chunk_by(|one, next| column(one) == column(next)) {
        let by_value = |one: &&Point, other: &&Point| one.value.total_cmp(&other.value);
        let least = column.iter().min_by(by_value).copied();
        let greatest = column.iter().max_by(by_value).copied();
        let mut both: Vec<Point> = least.into_iter().chain(greatest).collect();
        both.sort_by_key(|point| point.at_ms);
        thinned.extend(both);
    }
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64], step_ms: i64) -> Vec<Point> {
        let first = 1_767_323_045_000;
        let at = |index: usize| first + index as i64 * step_ms;
        values.iter().enumerate().map(|(i, value)| Point { at_ms: at(i), value: *value }).collect()
    }

    #[test]
    fn round_values_stand_at_the_lines() {
        let check = |least: f64, greatest: f64, expected: &[&str]| {
            let scale = Scale { least, greatest }.widened();
            let ticks: Vec<String> = scale.ticks().into_iter().map(figure).collect();
            assert_eq!(ticks, expected, "{least} to {greatest}");
            assert!(scale.ticks().iter().all(|tick| (0.0..=1.0).contains(&scale.at(*tick))));
        };
        check(0.0, 4.0, &["0", "1", "2", "3", "4"]);
        check(-20.5, 21.5, &["-20", "-10", "0", "10", "20"]);
        check(0.1, 0.3, &["0.1", "0.15", "0.2", "0.25", "0.3"]);
        check(21.5, 21.5, &["20", "21", "22", "23"]);
        check(0.0, 0.0, &["-1", "-0.5", "0", "0.5", "1"]);
        check(0.0, 3e9, &["0", "5e8", "1e9", "1.5e9", "2e9", "2.5e9", "3e9"]);
        check(-1.7e308, 1.7e308, &["-1e308", "0", "1e308"]);
    }

    #[test]
    fn a_long_course_keeps_its_peaks_and_gaps() {
        let mut values = vec![Some(1.0); 900];
        values[500] = Some(9.0);
        values[700..760].fill(None);
        let seen = coarse(&values);
        assert!(seen.len() <= 96, "{}", seen.len());
        assert_eq!(seen.iter().filter(|value| **value == Some(9.0)).count(), 1);
        assert!(seen.contains(&None));
        assert_eq!(coarse(&values[..90]), values[..90]);
    }

    #[test]
    fn what_changes_every_second_is_shown_roughly() {
        let shown = [0.0, 0.0091, 0.0006, 2.41, 16.004, 999.6, 1234.5].map(rough);
        assert_eq!(shown, ["0", "0.009", "0.001", "2.4", "16", "1000", "1234"]);
    }

    #[test]
    fn numbers_are_short() {
        let figures = [0.0, -2.0, 21.5, 0.1 + 0.2, 1234.567, 1e-9, 123_456_789.0, 1.7e308];
        let shown = figures.map(figure);
        let expected = ["0", "-2", "21.5", "0.3", "1234.57", "1e-9", "1.23e8", "1.7e308"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn times_stand_below() {
        let check = |count: usize, step_ms: i64, expected: &[&str]| {
            let points = points(&vec![1.0; count], step_ms);
            let ticks: Vec<String> =
                Span::of(&points).ticks().into_iter().map(|(_, text)| text).collect();
            assert_eq!(ticks, expected, "{count} × {step_ms}");
        };
        check(1, 0, &["2026-01-02 03:04 UTC"]);
        check(11, SECOND, &["03:04:05", "03:04:10", "03:04:15"]);
        check(25, HOUR, &["06:00", "12:00", "18:00", "01-03"]);
        check(8, DAY, &["01-03", "01-05", "01-07", "01-09"]);
        check(2, i64::MAX / 2, &[]);
    }

    /// Whatever is drawn lies within the drawing, and a drawing is small.
    #[test]
    fn no_values_break_a_drawing() {
        let many: Vec<f64> = (0..5000).map(|index| f64::from(index % 97)).collect();
        let some: [&[f64]; 6] = [
            &[],
            &[1.0],
            &[0.0, 0.0],
            &[f64::MAX, f64::MIN, 5e-324],
            &[f64::NAN, f64::INFINITY, 1.0],
            &many,
        ];
        for values in some {
            for step_ms in [0, 1, DAY, i64::MAX / 6000] {
                let points = points(values, step_ms);
                let optional: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
                for drawing in [line("a", &points), sparkline("a", &optional)] {
                    let text = drawing.into_string();
                    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
                    assert!(text.len() < 64_000, "{} bytes", text.len());
                }
                let text = bars("a", &points).into_string();
                assert!(!text.contains("\"NaN") && !text.contains("\"inf"), "{text}");
            }
        }
    }

    #[test]
    fn a_title_is_text() {
        let text = line("<script>", &points(&[1.0, 2.0], 1)).into_string();
        assert!(text.contains("<title>&lt;script&gt;</title>"), "{text}");
    }
}
