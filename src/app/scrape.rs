//! What the metrics show of the parts of the server, read when somebody asks for it.

use store::Condition;

use super::App;
use crate::metrics::Form;

impl App {
    /// The text of `/metrics`, as things are now. It reads files of the system: not for a thread that
    /// serves connections.
    pub fn scrape(&self, form: Form) -> String {
        let (room, metrics) = (self.store_room(), &self.metrics);
        metrics.store_room(room.condition() == Condition::Good, room.free(), room.mark());
        metrics.store_bytes(&self.tables.store().disk_bytes());
        metrics.store_writer(self.tables.writer());
        metrics.unauthenticated(self.unauthenticated.bytes());
        let (mails, callers) = self.mailbox.counts();
        metrics.mailbox(mails, callers);
        let (moving, bytes) = self.files.load();
        metrics.files(moving, bytes);
        metrics.topics(&self.broker.load());
        metrics.events(&self.events.load());
        // What was counted just now is in these.
        metrics.pools(&self.pools);
        let webhooks = self.webhook_load();
        metrics.webhooks(webhooks.lag, [webhooks.failing, webhooks.switched_off]);
        let commits = self.tables.writer().commit_times().times();
        metrics.render(form, commits, webhooks.times)
    }

    /// The bytes that each table takes on the disk. It asks the disk.
    pub fn store_bytes(&self) -> Vec<(&'static str, u64)> {
        self.tables.store().disk_bytes()
    }

    /// Notes the figures of the second that ends now.
    pub fn note_second(&self) {
        let writer = self.tables.writer();
        self.metrics.store_writer(writer);
        let (mails, callers) = self.mailbox.counts();
        self.metrics.mailbox(mails, callers);
        let (load, commits) = (self.broker.load(), writer.commit_times().times());
        self.metrics.note_second(self.clock.now(), &load, commits);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use super::*;
    use crate::app::tests::demo;

    const HEAD: &str = "# Metrics

Prometheus reads them at `/metrics`: from this machine without a login; from elsewhere with a session,
a token as bearer or a user's password (Basic) that has the permission `metrics`, for which it is a
command; or, with `metrics.listen`, at a listener of their own, where nobody is asked for anything.

```yaml
scrape_configs:
  - job_name: tr50d
    scrape_interval: 15s
    static_configs: [{ targets: [\"127.0.0.1:8080\"] }]
```

Who asks for `application/openmetrics-text` in the header `Accept`, as Prometheus does, gets OpenMetrics
1.0; everybody else Prometheus' text format 0.0.4, in which the names below are written. Every value of
a label is there from the start, but for the certificate, which not every server has. The limit of a figure
is called like the figure with `_limit` behind it; what is shared by organisations is a pool
([limits.md](limits.md)).

`contrib/prometheus/alerts.yml` has alerts, `contrib/grafana/tr50d.json` a dashboard for
*Dashboards, Import*. Both want the job to be called `tr50d`. Without a Prometheus, `stats.series` shows
the last hour second by second ([commands.md](commands.md)).

| name | type | labels | what it is |
| --- | --- | --- | --- |
";

    /// Values of a label beyond which they are not listed.
    const VALUES_MAX: usize = 12;

    /// A family of metrics.
    #[derive(Default)]
    struct Family<'a> {
        name: &'a str,
        kind: &'a str,
        help: &'a str,
        labels: BTreeMap<&'a str, BTreeSet<&'a str>>,
    }

    fn families(page: &str) -> Vec<Family<'_>> {
        let mut families: Vec<Family<'_>> = Vec::new();
        for line in page.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
            {
                families.push(Family { name, help, ..Family::default() });
                continue;
            }
            let family = families.last_mut().expect("a family comes before its samples");
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                family.kind = kind.rsplit(' ').next().expect("a type");
            } else if let Some((labels, _)) = line.split_once('{').and_then(|l| l.1.split_once('}'))
            {
                for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
                    let values = family.labels.entry(label).or_default();
                    let value = value.trim_matches('"');
                    if label != "le" && label != "version" {
                        values.insert(value);
                    }
                }
            }
        }
        families.sort_by_key(|family| family.name);
        families
    }

    fn document(page: &str) -> String {
        let mut text = HEAD.to_owned();
        for Family { name, kind, help, labels } in families(page) {
            let label = |(label, values): (&&str, &BTreeSet<&str>)| match values.len() {
                1..=VALUES_MAX => {
                    let values: Vec<_> = values.iter().copied().collect();
                    format!("`{label}`: {}", values.join(", "))
                }
                _ => format!("`{label}`"),
            };
            let labels: Vec<_> = labels.iter().map(label).collect();
            let (labels, help) = (labels.join("; "), help.trim_end_matches('.'));
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").expect("a String");
        }
        text
    }

    #[tokio::test]
    async fn the_committed_document_is_that_of_the_metrics() {
        let (app, _) = demo();
        let text = document(&app.scrape(Form::Text));
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).expect("a writable docs folder");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let hint = "UPDATE_DOCS=1 cargo test -p tr50d --lib document";
        assert!(written == text, "docs/metrics.md is out of date: {hint}");
    }
}
