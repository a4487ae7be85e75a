//! The two forms of the text at `/metrics`, and which of them a client asks for.

use std::fmt::Write as _;

use base::histogram::{BOUNDS, Times};

/// A form of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The same under the name that it had as a draft.
    OpenMetricsDraft,
}

impl Form {
    /// The form that the values of the header `Accept` ask for (RFC 9110, 12.5.1), as Prometheus
    /// reads them: the one with the greater `q`, of two the one that is named, or named first. The
    /// text format for who says nothing of either.
    pub fn accepted<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let ranges = headers.flat_map(|header| header.split(','));
        let ranges: Vec<_> = ranges.filter_map(Range::read).collect();
        let best = [Self::Text, Self::OpenMetrics, Self::OpenMetricsDraft]
            .into_iter()
            .filter_map(|form| {
                // Of a form, the range that says most about it counts.
                let said = ranges.iter().enumerate().filter(|(_, range)| range.holds(form));
                let (place, range) =
                    said.max_by_key(|(place, r)| (r.exactness, usize::MAX - place))?;
                let order = (range.thousandths, range.exactness, usize::MAX - place);
                (range.thousandths > 0).then_some((order, form))
            })
            // Of equals, the first.
            .reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map_or(Self::Text, |(_, form)| form)
    }

    /// Its `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetricsDraft => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }

    /// Type, subtype and version.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Text => ("text", "plain", "0.0.4"),
            Self::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
            Self::OpenMetricsDraft => ("application", "openmetrics-text", "0.0.1"),
        }
    }
}

/// One of the ranges of media types in `Accept`.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// `q`, which has at most three digits behind the point.
    thousandths: u32,
    /// How much of a form it names: nothing, its type, its subtype, its version.
    exactness: u8,
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let (mut version, mut q) = (None, 1.0);
        for part in parts {
            let Some((name, value)) = part.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("version") => version = Some(value),
                name if name.eq_ignore_ascii_case("q") => {
                    // What can't be read asks for nothing.
                    q = value
                        .parse::<f64>()
                        .ok()
                        .filter(|q| (0.0..=1.0).contains(q))
                        .unwrap_or(0.0);
                }
                _ => {}
            }
        }
        let exactness = match (kind, subtype, version) {
            ("*", ..) => 0,
            (_, "*", _) => 1,
            (.., None) => 2,
            (.., Some(_)) => 3,
        };
        let thousandths = (q * 1000.0).round() as u32;
        Some(Self { kind, subtype, version, thousandths, exactness })
    }

    fn holds(&self, form: Form) -> bool {
        let (kind, subtype, version) = form.names();
        let same = |held: &str, name: &str| held == "*" || held.eq_ignore_ascii_case(name);
        same(self.kind, kind)
            && same(self.subtype, subtype)
            && self.version.is_none_or(|held| held == version)
    }
}

/// A text in one of the forms, to which families of metrics are added.
pub(super) struct Page {
    pub(super) form: Form,
    pub(super) text: String,
}

impl Page {
    /// Begins with what a registry has written as OpenMetrics, less its end.
    pub(super) fn begin(form: Form, written: String) -> Self {
        let text = match form {
            Form::Text => as_text(&written),
            Form::OpenMetrics | Form::OpenMetricsDraft => written,
        };
        Self { form, text }
    }

    /// The whole text.
    pub(super) fn end(mut self) -> String {
        if self.form != Form::Text {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Adds a family of one number. A counter's name ends with `_total`.
    pub(super) fn number(&mut self, name: &str, help: &str, value: f64) {
        let counter = name.strip_suffix("_total");
        let kind = if counter.is_some() { "counter" } else { "gauge" };
        self.head(counter.filter(|_| self.form != Form::Text).unwrap_or(name), kind, help);
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{name} {value}");
    }

    /// Adds a family of histograms, one for each value of a label.
    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl Iterator<Item = (&'a str, Times)>,
    ) {
        self.head(name, "histogram", help);
        for (value, times) in all {
            let own = if label.is_empty() { String::new() } else { format!("{label}=\"{value}\"") };
            let comma = if own.is_empty() { "" } else { "," };
            let names = BOUNDS.iter().map(|(_, name)| *name).chain(["+Inf"]);
            let mut count = 0;
            for (bound, more) in names.zip(times.counts) {
                count += more;
                let _ = writeln!(self.text, "{name}_bucket{{{own}{comma}le=\"{bound}\"}} {count}");
            }
            let own = if own.is_empty() { own } else { format!("{{{own}}}") };
            let _ = writeln!(self.text, "{name}_sum{own} {}", times.sum_ns as f64 / 1e9);
            let _ = writeln!(self.text, "{name}_count{own} {count}");
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }
}

/// OpenMetrics as Prometheus' text format: there the family of a counter is called what its sample
/// is called, and there is no type for what is only known about the program.
fn as_text(written: &str) -> String {
    let mut text = String::with_capacity(written.len());
    let (mut name, mut help) = ("", "");
    for line in written.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some(kind) = line.strip_prefix("# TYPE ").and_then(|l| l.rsplit(' ').next()) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            let _ = writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_is_asked_for() {
        let check = |headers: &[&str], form: Form| {
            assert_eq!(Form::accepted(headers.iter().copied()), form, "{headers:?}");
        };
        use Form::{OpenMetrics, OpenMetricsDraft, Text};
        for text in [
            "",
            "*/*",
            "text/plain",
            "text/*",
            "text/html",
            "nonsense",
            "text/plain;version=0.0.4",
            "application/json",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.5, text/plain",
            "application/openmetrics-text;q=x, text/plain;q=0.1",
            "text/plain, application/openmetrics-text",
            "application/openmetrics-text;q=0.3, */*;q=0.4",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily, */*;q=0.1",
        ] {
            check(&[text], Text);
        }
        check(&[], Text);
        for open in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text, */*",
            "*/*;q=0.1,application/openmetrics-text;q=0.2",
            "application/openmetrics-text, text/plain",
            "application/*",
            "text/plain;q=0, */*",
            "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
             */*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
             */*;q=0.2",
        ] {
            check(&[open], OpenMetrics);
        }
        check(&["text/plain;q=0.2", "application/openmetrics-text;q=0.9"], OpenMetrics);
        check(&["application/openmetrics-text;version=0.0.1"], OpenMetricsDraft);
    }

    #[test]
    fn a_family_is_called_in_the_text_format_what_its_samples_are_called() {
        let open = "# HELP a Counts.\n# TYPE a counter\na_total{b=\"c\"} 1\n\
                    # HELP d Is.\n# TYPE d gauge\n# UNIT d bytes\nd 2\n\
                    # HELP e Known.\n# TYPE e info\ne_info{v=\"1\"} 1\n";
        let text = "# HELP a_total Counts.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
                    # HELP d Is.\n# TYPE d gauge\nd 2\n\
                    # HELP e_info Known.\n# TYPE e_info gauge\ne_info{v=\"1\"} 1\n";
        assert_eq!(Page::begin(Form::Text, open.to_owned()).end(), text);
        let whole = Page::begin(Form::OpenMetrics, open.to_owned()).end();
        assert_eq!(whole, format!("{open}# EOF\n"));
    }
}
