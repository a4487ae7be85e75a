//! Where things are: points on a grid of degrees, without tiles of others, and a table of the same.

use base::Failure;
use maud::{Markup, html};
use serde::Deserialize;

use super::{ever, filters, path_of, state};
use crate::dialects::console::asked::InOrg;
use crate::dialects::console::layout::{self, number};
use crate::dialects::console::sessions::Listed;
use crate::dialects::console::time::{ago, exact};

/// Things that are shown at most: more, nobody could tell apart.
const SHOWN_MAX: usize = 500;

/// The drawing, in units of SVG, and its room for what is written at the left and below.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 80.0;
const BELOW: f64 = 20.0;

/// So much of the height and the width stays free around the points.
const MARGIN: f64 = 0.06;

/// The least height and width that are drawn, in degrees: some ten metres.
const SPAN_MIN: f64 = 0.0001;

/// Distances of the lines, in degrees, with the decimals that tell them apart.
const STEPS: [(f64, usize); 21] = [
    (0.00002, 5),
    (0.00005, 5),
    (0.0001, 4),
    (0.0002, 4),
    (0.0005, 4),
    (0.001, 3),
    (0.002, 3),
    (0.005, 3),
    (0.01, 2),
    (0.02, 2),
    (0.05, 2),
    (0.1, 1),
    (0.2, 1),
    (0.5, 1),
    (1.0, 0),
    (2.0, 0),
    (5.0, 0),
    (10.0, 0),
    (15.0, 0),
    (30.0, 0),
    (60.0, 0),
];

/// A thing with its location, as `thing.list` shows it.
#[derive(Deserialize)]
struct Located {
    key: String,
    name: String,
    connected: bool,
    #[serde(default)]
    disabled: bool,
    loc: Option<Location>,
}

#[derive(Deserialize)]
struct Location {
    lat: f64,
    lng: f64,
    since: String,
}

/// The part of the earth that is drawn. Both distances of a place are in degrees of latitude, so that
/// shapes in the middle are as they are.
struct Frame {
    west: f64,
    south: f64,
    /// How much shorter a degree of longitude is than one of latitude, in the middle.
    shrink: f64,
    scale: f64,
}

/// The part of the page.
pub(super) async fn part(asked: &InOrg<'_>) -> Result<Markup, Failure> {
    let params = filters(&asked.query)
        .with("hasLoc", true)
        .with("show", vec!["key", "name", "connected", "disabled", "loc"])
        .with("hideFields", true)
        .with("limit", SHOWN_MAX);
    let command = super::command(&asked.query);
    let listed: Listed<Located> = asked.ask(command, &params).await?;
    let total = listed.count.or(listed.count_at_least).unwrap_or_default();
    let located = listed.result.into_iter().filter_map(|mut thing| {
        let loc = thing.loc.take().filter(|loc| loc.lat.is_finite() && loc.lng.is_finite())?;
        Some((thing, loc))
    });
    let located: Vec<(Located, Location)> = located.collect();
    if located.is_empty() {
        return Ok(layout::empty(
            "No locations",
            &html! { "No thing that fits has said where it is." },
        ));
    }
    Ok(html! {
        (drawing(asked, &located))
        p class="hint" { "Filled: connected. Hollow: not connected. Each point leads to its thing." }
        (table(asked, &located))
        @if total > located.len() as u64 {
            p class="hint" {
                "The first " (number(located.len() as u64)) " of " (number(total))
                ", by key. A filter shows others."
            }
        }
    })
}

fn drawing(asked: &InOrg<'_>, located: &[(Located, Location)]) -> Markup {
    let places: Vec<(f64, f64)> = located.iter().map(|(_, loc)| (loc.lat, loc.lng)).collect();
    let frame = Frame::of(&places);
    let (right, bottom) = (WIDTH, HEIGHT - BELOW);
    html! {
        svg class="chart map" role="group" aria-label="Where things are"
            viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
            @for (lat, text) in frame.parallels() {
                @let y = short(frame.y(lat));
                line x1=(LEFT) x2=(right) y1=(y) y2=(y) stroke="currentColor" stroke-opacity="0.2" {}
                text x=(LEFT - 4.0) y=(short(frame.y(lat) + 4.0)) text-anchor="end" { (text) }
            }
            @for (lng, text) in frame.meridians() {
                @let x = short(frame.x(lng));
                line x1=(x) x2=(x) y1="0" y2=(bottom) stroke="currentColor" stroke-opacity="0.2" {}
                @let anchor = if frame.x(lng) > WIDTH - 30.0 { "end" } else { "middle" };
                text x=(x) y=(HEIGHT - 4.0) text-anchor=(anchor) { (text) }
            }
            @for (thing, loc) in located {
                // The table has the same links for those who go from one to the next.
                a href=(path_of(asked, &thing.key, "")) tabindex="-1" {
                    title { (title(thing, loc)) }
                    circle cx=(short(frame.x(loc.lng))) cy=(short(frame.y(loc.lat))) r="5"
                        stroke="currentColor" stroke-width="2" fill="currentColor"
                        fill-opacity=(if thing.connected { "1" } else { "0" }) {}
                }
            }
        }
    }
}

fn title(thing: &Located, loc: &Location) -> String {
    let here = if thing.connected { "connected" } else { "not connected" };
    let at = ever(&loc.since).map_or(String::new(), |since| format!(" · {}", exact(since)));
    format!("{} · {here}{at}", thing.key)
}

fn table(asked: &InOrg<'_>, located: &[(Located, Location)]) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="group" aria-label="Locations of things" { table {
            caption class="hidden" { "Locations of things" }
            thead { tr {
                th scope="col" { "Thing" } th scope="col" { "Name" } th scope="col" { "State" }
                th scope="col" { "Latitude" } th scope="col" { "Longitude" }
                th scope="col" { "Age" }
            } }
            tbody { @for (thing, loc) in located { tr {
                td data-cell="who" { a href=(path_of(asked, &thing.key, "")) { bdi { (thing.key) } } }
                td { bdi { (thing.name) } }
                td { (state(thing.connected, thing.disabled)) }
                td { (loc.lat) }
                td { (loc.lng) }
                td { @if let Some(since) = ever(&loc.since) { (ago(since, asked.now)) } }
            } } }
        } }
    }
}

impl Frame {
    /// The smallest one with all of these places, latitude and longitude; of the two ways around the
    /// earth the shorter one.
    fn of(places: &[(f64, f64)]) -> Self {
        let latitudes = places.iter().map(|(lat, _)| lat.clamp(-90.0, 90.0));
        let (south, north) = latitudes
            .fold((90.0_f64, -90.0_f64), |(south, north), lat| (south.min(lat), north.max(lat)));
        let (west, wide) = westernmost(places.iter().map(|(_, lng)| *lng));
        let shrink = ((south + north) / 2.0).to_radians().cos().max(0.05);
        let high = (north - south).max(SPAN_MIN);
        let wide = (wide * shrink).max(SPAN_MIN);
        let (room_x, room_y) = (WIDTH - LEFT, HEIGHT - BELOW);
        let scale = (room_x / wide).min(room_y / high) * (1.0 - 2.0 * MARGIN);
        // What is left of the room is on both sides.
        let middle_x = wide / 2.0 - room_x / scale / 2.0;
        let middle_y = (south + north) / 2.0 - room_y / scale / 2.0;
        // A single place is in the middle, too.
        let own = westernmost(places.iter().map(|(_, lng)| *lng)).1 * shrink;
        let west = west + (middle_x - (wide - own) / 2.0) / shrink;
        Self { west, south: middle_y, shrink, scale }
    }

    fn x(&self, lng: f64) -> f64 {
        LEFT + (lng - self.west).rem_euclid(360.0) * self.shrink * self.scale
    }

    fn y(&self, lat: f64) -> f64 {
        HEIGHT - BELOW - (lat.clamp(-90.0, 90.0) - self.south) * self.scale
    }

    /// Where lines of latitude are drawn.
    fn parallels(&self) -> Vec<(f64, String)> {
        let (from, to) = (self.south, self.south + (HEIGHT - BELOW) / self.scale);
        let lines = lines(from.max(-90.0), to.min(90.0));
        lines.into_iter().map(|(lat, decimals)| (lat, degrees(lat, decimals, ["N", "S"]))).collect()
    }

    /// Where lines of longitude are drawn.
    fn meridians(&self) -> Vec<(f64, String)> {
        let wide = (WIDTH - LEFT) / self.scale / self.shrink;
        // Around the whole earth, a line comes once.
        let lines = lines(self.west, self.west + wide.min(359.999));
        let named = |(lng, decimals): (f64, usize)| {
            let within = (lng + 180.0).rem_euclid(360.0) - 180.0;
            (lng, degrees(within, decimals, ["E", "W"]))
        };
        lines.into_iter().map(named).collect()
    }
}

/// Where the widest gap between longitudes ends, and how far the last of them is from there.
fn westernmost(longitudes: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut sorted: Vec<f64> = longitudes.map(|lng| lng.rem_euclid(360.0)).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (sorted.first().copied(), sorted.last().copied()) else {
        return (0.0, 0.0);
    };
    let mut widest = (first + 360.0 - last, first);
    for (before, after) in sorted.iter().zip(sorted.iter().skip(1)) {
        if after - before > widest.0 {
            widest = (after - before, *after);
        }
    }
    (widest.1, 360.0 - widest.0)
}

/// Round degrees between two, at most eight, and the decimals that tell them apart.
fn lines(from: f64, to: f64) -> Vec<(f64, usize)> {
    let step = STEPS.into_iter().find(|(step, _)| (to - from) / step < 7.0);
    let (step, decimals) = step.unwrap_or((60.0, 0));
    let first = (from / step).ceil();
    let lines = (0..8).map(|index| (first + f64::from(index)) * step);
    lines.take_while(|line| *line <= to).map(|line| (line, decimals)).collect()
}

fn degrees(value: f64, decimals: usize, sides: [&str; 2]) -> String {
    let shown = format!("{:.decimals$}", value.abs());
    let is_zero = shown.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let side = match value {
        _ if is_zero => "",
        value if value < 0.0 => sides[1],
        _ => sides[0],
    };
    format!("{shown}° {side}").trim_end().to_owned()
}

/// A place to a tenth of a unit.
fn short(place: f64) -> String {
    let text = format!("{place:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A digit in the console's font, in units of the drawing.
    const CHAR_WIDE: f64 = 6.6;

    /// Whatever places there are, all are in the drawing, and there are some lines.
    #[test]
    fn places_are_within_the_drawing() {
        let some: [&[(f64, f64)]; 8] = [
            &[(52.5, 13.25)],
            &[(52.5, 13.25), (52.5, 13.25)],
            &[(-52.5, 13.25), (-52.500_01, 13.250_01)],
            &[(0.0, 0.0), (90.0, 180.0), (-90.0, -180.0), (0.0, 90.0), (0.0, -90.0)],
            &[(10.0, 179.0), (11.0, -179.0)],
            &[(89.9, 10.0), (90.0, 100.0)],
            &[(1e300, 1e300), (-1e300, -1e300)],
            &[(-33.9, 151.2), (40.7, -74.0), (51.5, -0.1), (35.7, 139.7)],
        ];
        for places in some {
            let frame = Frame::of(places);
            for (lat, lng) in places {
                let (x, y) = (frame.x(*lng), frame.y(*lat));
                assert!((LEFT..=WIDTH).contains(&x), "{places:?}: {lng} at {x}");
                assert!((0.0..=HEIGHT - BELOW).contains(&y), "{places:?}: {lat} at {y}");
            }
            let (parallels, meridians) = (frame.parallels(), frame.meridians());
            assert!((1..=8).contains(&parallels.len()), "{places:?}: {parallels:?}");
            assert!((1..=8).contains(&meridians.len()), "{places:?}: {meridians:?}");
            for (_, name) in parallels {
                let wide = name.chars().map(|_| CHAR_WIDE).sum::<f64>();
                assert!(wide <= LEFT - 4.0, "{places:?}: {name}");
            }
            for (lng, _) in meridians {
                assert!((LEFT..=WIDTH + 0.1).contains(&frame.x(lng)), "{places:?}: {lng}");
            }
        }
    }

    #[test]
    fn neighbours_at_the_date_line_are_neighbours() {
        let frame = Frame::of(&[(10.0, 179.5), (10.5, -179.5)]);
        assert!(frame.x(-179.5) > frame.x(179.5));
        let names: Vec<String> = frame.meridians().into_iter().map(|(_, name)| name).collect();
        for side in ["E", "W"] {
            assert!(names.iter().any(|name| name.ends_with(side)), "{names:?}");
        }
    }

    #[test]
    fn degrees_have_a_side() {
        assert_eq!(degrees(52.5, 1, ["N", "S"]), "52.5° N");
        assert_eq!(degrees(-0.02, 2, ["E", "W"]), "0.02° W");
        assert_eq!(degrees(-0.000_001, 2, ["E", "W"]), "0.00°");
    }
}
