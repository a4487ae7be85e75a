//! What was measured, as a table for people.

use std::fmt::{self, Write as _};

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// A count or a rate; thousands are separated.
    Count,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Kilobytes of 1,000 bytes.
    Kilobytes,
    /// So many times another figure of the same server.
    Times,
}

/// One measured figure.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Figure {
    /// In the row's unit.
    pub value: f64,
    /// What else was seen, for people; may be empty.
    pub beside: String,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value, beside: String::new() }
    }
}

/// What a row is to reach.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Goal {
    /// At least this fraction of the floor's figure.
    OfFloor(f64),
    /// At least so many times the peer's figure.
    TimesPeer(f64),
    /// So little that the peer's figure is at least so many times this one.
    PeerTimes(f64),
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Only measured.
    None,
}

/// One line of the table: a figure a round for each of the three.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    /// What is measured.
    pub what: String,
    /// The unit of all figures.
    pub unit: Unit,
    /// What is to be reached.
    pub goal: Goal,
    /// The least a server can do.
    pub floor: Vec<Figure>,
    /// mosquitto, if it is installed and able.
    pub peer: Vec<Figure>,
    /// tr50d.
    pub ours: Vec<Figure>,
}

impl Row {
    /// A row without figures.
    pub(crate) fn new(what: impl Into<String>, unit: Unit, goal: Goal) -> Self {
        let (floor, peer, ours) = (Vec::new(), Vec::new(), Vec::new());
        Self { what: what.into(), unit, goal, floor, peer, ours }
    }

    /// Whether the means of the figures reach the goal; `None` if that can't be said.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ours = mean(&self.ours)?;
        match self.goal {
            Goal::OfFloor(fraction) => Some(ours >= fraction * mean(&self.floor)?),
            Goal::TimesPeer(times) => Some(ours >= times * mean(&self.peer)?),
            Goal::PeerTimes(times) => Some(times * ours <= mean(&self.peer)?),
            Goal::AtLeast(least) => Some(ours >= least),
            Goal::AtMost(most) => Some(ours <= most),
            Goal::None => None,
        }
    }

    fn ratio(&self, others: &[Figure]) -> Option<f64> {
        let comparable = self.unit != Unit::Times;
        Some(mean(&self.ours).filter(|_| comparable)? / mean(others).filter(|mean| *mean > 0.0)?)
    }

    fn cell(&self, figures: &[Figure]) -> String {
        let texts: Vec<_> = figures.iter().map(|figure| figure.text(self.unit)).collect();
        texts.join("; ")
    }

    /// A rate is a part of another, up to its double; a cost is always so many times another.
    fn ratio_text(&self, others: &[Figure]) -> String {
        match self.ratio(others) {
            None => "-".to_owned(),
            Some(ratio) if self.unit == Unit::Count && ratio < 2.0 => {
                format!("{:.0} %", 100.0 * ratio)
            }
            Some(ratio) => format!("{ratio:.1} ×"),
        }
    }

    fn goal(&self) -> String {
        let limit = |value| Figure::from(value).text(self.unit);
        let goal = match self.goal {
            Goal::OfFloor(fraction) => format!("{:.0} % of the floor", 100.0 * fraction),
            Goal::TimesPeer(times) => format!("{times} × mosquitto"),
            Goal::PeerTimes(times) => format!("mosquitto {times} × as much"),
            Goal::AtLeast(least) => format!("≥ {}", limit(least)),
            Goal::AtMost(most) => format!("≤ {}", limit(most)),
            Goal::None => return String::new(),
        };
        let verdict = match self.is_met() {
            Some(true) => ": met",
            Some(false) => ": **missed**",
            None => "",
        };
        goal + verdict
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [floor, peer, ours] = [&self.floor, &self.peer, &self.ours].map(|f| self.cell(f));
        let [of_floor, of_peer] = [&self.floor, &self.peer].map(|f| self.ratio_text(f));
        let (what, goal) = (&self.what, self.goal());
        write!(f, "| {what} | {floor} | {peer} | {ours} | {of_floor} | {of_peer} | {goal} |")
    }
}

impl Figure {
    fn text(&self, unit: Unit) -> String {
        let mut text = match unit {
            Unit::Count => thousands(self.value),
            Unit::Micros => format!("{} µs", short(self.value)),
            Unit::Millis => format!("{} ms", short(self.value)),
            Unit::Kilobytes => format!("{} kB", short(self.value)),
            Unit::Times => format!("{} ×", short(self.value)),
        };
        if !self.beside.is_empty() {
            let _ = write!(text, " ({})", self.beside);
        }
        text
    }
}

/// The table of these rows, in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = "| what | floor | mosquitto | tr50d | to the floor | to mosquitto | goal |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    rows.iter().for_each(|row| text.push_str(&format!("{row}\n")));
    text
}

/// A number with a comma between thousands; three digits of it count.
pub(crate) fn thousands(value: f64) -> String {
    let mut step = 1.0;
    while value / step >= 1000.0 {
        step *= 10.0;
    }
    let digits = format!("{:.0}", (value / step).round() * step);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn short(value: f64) -> String {
    if value >= 100.0 {
        thousands(value.round())
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn mean(figures: &[Figure]) -> Option<f64> {
    let sum: f64 = figures.iter().map(|figure| figure.value).sum();
    (!figures.is_empty()).then(|| sum / figures.len() as f64)
}
