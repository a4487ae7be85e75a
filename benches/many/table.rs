//! The table at the end.

use std::fmt::Write;
use std::time::Duration;

use crate::probe::Waited;

/// Rows of markdown: what, how much, and what the others waited meanwhile.
pub(crate) struct Table(String);

impl Table {
    /// An empty table.
    pub(crate) fn new() -> Self {
        let head = "| what | measured | diag.ping of others meanwhile: p50, p99, longest |\n\
                    | --- | --- | --- |\n";
        Self(head.to_owned())
    }

    /// Adds a row, and says it at once on standard error: the whole takes minutes.
    pub(crate) fn row(&mut self, what: &str, measured: &str, meanwhile: Option<&Waited>) {
        let waited = match meanwhile {
            Some(Waited { p50_ms: p50, p99_ms: p99, max_ms: max, lost, .. }) => {
                let lost = if *lost > 0 { format!("; {lost} lost") } else { String::new() };
                format!("{p50:.2}, {p99:.2}, {max:.1} ms{lost}")
            }
            None => String::new(),
        };
        eprintln!("{what}: {measured}  {waited}");
        writeln!(self.0, "| {what} | {measured} | {waited} |").expect("a text takes all");
    }

    /// Writes it to standard output.
    pub(crate) fn print(&self) {
        println!("\n{}", self.0);
    }
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many in so long, as a rate.
pub(crate) fn rate(count: usize, time: Duration) -> String {
    format!("{}/s", thousands((count as f64 / time.as_secs_f64()) as usize))
}

/// CPU time of each of so many, in microseconds.
pub(crate) fn each(cpu: Duration, count: usize) -> String {
    format!("{:.0} µs CPU each", cpu.as_secs_f64() * 1e6 / count.max(1) as f64)
}
