//! Metrics for Prometheus at `/metrics`, and the same figures of each second of the last hour.
//!
//! Everything a command touches is a handle made at the start: one atomic addition, no look-up.
//! Labels are `&'static str`, so that no peer can make new ones, and every value of a label is there
//! from the start. Times of commands are in `times.rs`; what is only read for a scrape is set by
//! `App::scrape`. The forms of the text are in `form.rs`, what the system knows of the process in
//! `process.rs`.

use base::histogram::Times;
use base::pool::{MakesWay, Max, POOLS, Pools};
use base::{Code, Protocol, Timestamp, limits};
use mqtt::QoS;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rules::directory::{Kind, Reason};
use store::{Table, WriteError, Writer};

use crate::broker::Load;
use crate::events::{self, LoginCause};
use crate::webhooks::{Answer, Cause};

mod refusals;

use refusals::{Failures, Logins};

mod form;
mod process;
mod series;
mod standing;
mod times;

pub use form::Form;
pub use series::{FIGURES, Figure, Second};
pub use standing::ByCause;
pub use times::{LoginTimer, Timer};

use form::Page;
use series::{Seen, Series, Totals};
use times::CommandTimes;

type Label = (&'static str, &'static str);
type Counters<const N: usize> = Family<[Label; N], Counter>;
type Gauges = Family<[Label; 1], Gauge>;

/// Why connections are refused.
const REFUSED: [&str; 6] = ["full", "address", "tls", "proxy", "malformed", "half_request"];

/// Why publishes are not carried out.
const NOT_PUBLISHED: [&str; 9] = [
    "not_authorized",
    "topic",
    "payload",
    "rate",
    "limit",
    "store",
    "withheld",
    "failure",
    "other",
];

/// Outcomes of deliveries of webhooks, beside [`Cause`]: the receiver says so.
const DELIVERED: [&str; 2] = ["success", "status"];

/// Qualities of service.
const QOS: [&str; 3] = ["0", "1", "2"];

/// The counters and gauges of one server.
pub struct Metrics {
    registry: Registry,
    connections: Gauges,
    connections_limit: Gauge,
    accepted: Counters<1>,
    refused: Counters<1>,
    sessions: Gauges,
    sessions_limit: Gauge,
    sessions_started: Counters<1>,
    sessions_ended: Counters<2>,
    logins: Logins,
    failures: Failures,
    over_rate: Counters<1>,
    turns_waited: Counter,
    commands: Box<[Outcomes]>,
    broker_in: Counter,
    broker_out: Counter,
    broker_dropped: Counter,
    publishes_refused: Counters<2>,
    publishes_withheld: Counter,
    kept_sessions: Gauge,
    retained: Gauge,
    sms: Counter,
    points: Counter,
    store_queue: [Gauge; 4],
    store_errors: Counters<1>,
    store_bytes: Gauges,
    store_available: Gauge,
    store_free: [Gauge; 2],
    mails: Gauge,
    mail_callers: Gauge,
    file_transfers: Gauge,
    file_bytes: Gauge,
    certificate_end: Gauges,
    events: Counters<1>,
    event_bytes: Gauges,
    event_bytes_limit: Gauge,
    webhook_deliveries: Counters<1>,
    webhook_lag: Gauge,
    webhooks_not_delivered: [Gauge; 2],
    unauthenticated: Gauge,
    pool_info: Family<[Label; 2], Gauge>,
    pools: [Gauges; 2],
    pool_counts: [Counters<1>; 2],
    login_count: Counter,
    login_refusals: Counter,
    times: CommandTimes,
    series: Series,
}

/// The counters of one command.
struct Outcomes {
    success: Counter,
    failure: Counter,
}

/// An open connection in [`Metrics`]; counts until it is dropped.
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All at zero. `command_names` are the names of the commands in the order of their indices.
    pub fn new(command_names: &[&'static str]) -> Self {
        let mut registry = Registry::with_prefix("tr50d");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        let r = &mut registry;
        let commands: Counters<2> = counters(r, "commands", "Commands answered");
        let outcome = |name, outcome| {
            commands.get_or_create_owned(&[("command", name), ("outcome", outcome)])
        };
        let handles = command_names.iter().map(|name| Outcomes {
            success: outcome(name, "success"),
            failure: outcome(name, "failure"),
        });
        let metrics = Self {
            commands: handles.collect(),
            connections: gauges(r, "connections", "Connections open now, by protocol"),
            connections_limit: gauge(
                r,
                "connections_limit",
                "Connections that may be open: limits.connections, or what the process may have",
            ),
            accepted: counters(r, "connections_accepted", "Connections accepted, by protocol"),
            refused: counters(r, "connections_refused", "Connections refused, by reason"),
            sessions: gauges(r, "sessions", "Sessions live now, by kind"),
            sessions_limit: gauge(r, "sessions_limit", "Sessions that may live"),
            sessions_started: counters(r, "sessions_started", "Sessions started, by kind"),
            sessions_ended: counters(r, "sessions_ended", "Sessions ended, by kind and reason"),
            logins: Logins::new(r),
            failures: Failures::new(r),
            over_rate: counters(
                r,
                "commands_over_rate",
                "Commands over a rate: of a session, a principal or an organisation",
            ),
            turns_waited: counter(
                r,
                "turns_waited",
                "Work that waited: the cores were full, and whoever sent it was above its share",
            ),
            broker_in: counter(r, "broker_messages_in", "Ordinary MQTT messages received"),
            broker_out: counter(r, "broker_messages_out", "Ordinary MQTT messages delivered"),
            broker_dropped: counter(
                r,
                "broker_messages_dropped",
                "Ordinary MQTT messages that subscribers lost because they did not keep up",
            ),
            publishes_refused: counters(
                r,
                "mqtt_publishes_refused",
                "MQTT publishes that were not carried out, by quality of service and reason",
            ),
            publishes_withheld: counter(
                r,
                "mqtt_publishes_withheld",
                "MQTT publishes whose clients had to wait: over the rate, or without a store",
            ),
            kept_sessions: gauge(r, "mqtt_kept_sessions", "MQTT sessions that outlive connections"),
            retained: gauge(r, "mqtt_retained_messages", "Retained MQTT messages"),
            sms: counter(r, "sms", "Text messages asked for by sms.send and written to the log"),
            points: counter(r, "telemetry_points", "Points of telemetry recorded"),
            store_queue: [
                gauge(r, "store_queue", "Batches waiting for the store"),
                gauge(r, "store_queue_limit", "Batches that may wait for the store"),
                gauge(r, "store_queue_bytes", "Bytes of what the store has not committed"),
                gauge(r, "store_queue_bytes_limit", "Bytes that the store may have to commit"),
            ],
            store_errors: counters(
                r,
                "store_errors",
                "Changes that the store refused, and commits that failed, by error",
            ),
            store_bytes: gauges(r, "store_bytes", "Bytes of the store on its disk, by table"),
            store_available: gauge(
                r,
                "store_available",
                "Whether the store takes all changes: 0 when its disk is full or its engine failed",
            ),
            store_free: [
                gauge(r, "store_free_bytes", "Free bytes of the store's disk"),
                gauge(
                    r,
                    "store_free_bytes_limit",
                    "Free bytes below which the store takes only what removes",
                ),
            ],
            mails: gauge(r, "mails", "Mails waiting for things"),
            mail_callers: gauge(r, "mail_callers", "Callers waiting for things' answers"),
            file_transfers: gauge(r, "file_transfers", "Files being uploaded or downloaded"),
            file_bytes: gauge(r, "file_bytes", "Bytes of files and uploads, in blocks of 4096"),
            events: counters(r, "events", "Events written into the trail, by class"),
            event_bytes: gauges(r, "event_bytes", "Bytes of the trail on disk, by class"),
            event_bytes_limit: gauge(r, "event_bytes_limit", "Bytes that the trail may take"),
            webhook_deliveries: counters(r, "webhook_deliveries", "Tries of webhooks, by outcome"),
            webhook_lag: gauge(
                r,
                "webhook_lag_events",
                "Numbers of the stream of events before the webhook that is furthest behind",
            ),
            webhooks_not_delivered: [
                gauge(r, "webhooks_failing", "Webhooks whose last try failed"),
                gauge(r, "webhooks_switched_off", "Webhooks that the server has switched off"),
            ],
            unauthenticated: gauge(
                r,
                "unauthenticated_bytes",
                "Bytes held for half requests of those who have not logged in",
            ),
            pool_info: pool_info(r),
            pools: [
                gauges(r, "pool_used", "What is used of a pool (docs/limits.md)"),
                gauges(r, "pool_limit", "How much there is of a pool"),
            ],
            pool_counts: [
                counters(r, "pool_refused", "How often somebody got no more of a pool"),
                counters(r, "pool_evicted", "How often somebody made way for others in a pool"),
            ],
            certificate_end: gauges(
                r,
                "tls_certificate_end_timestamp_seconds",
                "When the certificate in tls.cert ends, in Unix seconds",
            ),
            login_count: Counter::default(),
            login_refusals: Counter::default(),
            times: CommandTimes::new(command_names),
            series: Series::default(),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Makes every value of every label: what is missing can't be told from what never happens, and
    /// a rate needs a zero before the first one.
    fn begin_at_zero(&self) {
        for protocol in Protocol::ALL {
            let label = [("protocol", protocol.as_str())];
            drop(self.connections.get_or_create(&label));
            drop(self.accepted.get_or_create(&label));
        }
        for reason in REFUSED {
            drop(self.refused.get_or_create(&[("reason", reason)]));
        }
        for kind in Kind::ALL.map(Kind::as_str) {
            drop(self.sessions.get_or_create(&[("kind", kind)]));
            drop(self.sessions_started.get_or_create(&[("kind", kind)]));
            for reason in Reason::ALL.map(Reason::as_str) {
                drop(self.sessions_ended.get_or_create(&[("kind", kind), ("reason", reason)]));
            }
        }
        for qos in QOS {
            for reason in NOT_PUBLISHED {
                drop(self.publishes_refused.get_or_create(&[("qos", qos), ("reason", reason)]));
            }
        }
        for outcome in DELIVERED.into_iter().chain(Cause::ALL.map(Cause::as_str)) {
            drop(self.webhook_deliveries.get_or_create(&[("outcome", outcome)]));
        }
        for error in WriteError::ALL {
            drop(self.store_errors.get_or_create(&[("error", error.as_str())]));
        }
        let tables = Table::ALL.map(Table::name).into_iter().chain(store::MORE_DISK_BYTES);
        for table in tables {
            drop(self.store_bytes.get_or_create(&[("table", table)]));
        }
        for (_, info) in POOLS {
            let when_full = match info.makes_way {
                MakesWay::Nobody => "refuses",
                MakesWay::Holder(_) => "makes_room",
            };
            self.pool_info.get_or_create(&[("pool", info.name), ("when_full", when_full)]).set(1);
        }
        self.pools(&Pools::default());
    }

    /// The server's certificate ends then.
    pub fn certificate_ends(&self, end: Timestamp) {
        self.certificate_end.get_or_create(&[("key", "tls.cert")]).set(end.as_millis() / 1000);
    }

    /// A connection was accepted; it is open as long as the answer lives.
    pub fn connection_opened(&self, protocol: Protocol) -> OpenConnection {
        let label = [("protocol", protocol.as_str())];
        self.accepted.get_or_create(&label).inc();
        let open = self.connections.get_or_create_owned(&label);
        open.inc();
        OpenConnection(open)
    }

    /// A connection was refused before its login, for `reason`: `full`, `tls`, `proxy`, …
    pub fn connection_refused(&self, reason: &'static str) {
        debug_assert!(REFUSED.contains(&reason), "{reason} has to be there from the start");
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// The counter of connections that are refused for this reason.
    pub fn refusals(&self, reason: &'static str) -> Counter {
        self.refused.get_or_create_owned(&[("reason", reason)])
    }

    /// How much is used of each pool.
    pub fn pools(&self, pools: &Pools) {
        for (pool, info) in POOLS {
            let (usage, label) = (pools.usage(*pool), [("pool", info.name)]);
            let counts_use = !matches!(info.max, Max::Each(..));
            for (gauges, value) in self.pools.iter().zip([usage.used(), usage.max()]) {
                if counts_use {
                    gauges.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
                }
            }
            let counts = [usage.refused(), usage.evicted()];
            for (counters, count) in self.pool_counts.iter().zip(counts) {
                let counter = counters.get_or_create(&label);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
    }

    /// So many bytes are held for peers that have not logged in.
    pub fn unauthenticated(&self, bytes: usize) {
        self.unauthenticated.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A session of this kind (`user`, `application`) started, or was found in the store.
    pub fn session_started(&self, kind: &'static str) {
        self.sessions_started.get_or_create(&[("kind", kind)]).inc();
        self.sessions.get_or_create(&[("kind", kind)]).inc();
    }

    /// A session of this kind ended, for `reason`.
    pub fn session_ended(&self, kind: &'static str, reason: &'static str) {
        self.sessions_ended.get_or_create(&[("kind", kind), ("reason", reason)]).inc();
        self.sessions.get_or_create(&[("kind", kind)]).dec();
    }

    /// Somebody logged in, by this protocol.
    pub fn login(&self, door: Protocol) {
        self.login_count.inc();
        self.logins.success(door);
    }

    /// A login by this protocol was refused.
    pub fn login_refused(&self, door: Protocol, cause: LoginCause) {
        self.login_refusals.inc();
        self.logins.refused(door, cause);
    }

    /// A command failed so, or all commands of a request.
    pub fn command_failed(&self, code: Code) {
        self.failures.note(code);
    }

    /// A command was over the rate of a `session`, a `principal` or an `org`.
    pub fn over_rate(&self, limit: &'static str) {
        self.over_rate.get_or_create(&[("limit", limit)]).inc();
    }

    /// Counts what waited for its turn while the cores were full.
    pub fn turns_waited(&self) -> Counter {
        self.turns_waited.clone()
    }

    /// The command with this index was answered. An index beyond the table counts nothing.
    #[inline]
    pub fn command(&self, index: usize, success: bool) {
        if let Some(outcomes) = self.commands.get(index) {
            if success {
                outcomes.success.inc()
            } else {
                outcomes.failure.inc()
            };
        }
    }

    /// A message went into the broker.
    pub fn broker_received(&self) {
        self.broker_in.inc();
    }

    /// A message of the broker went to a subscriber.
    pub fn broker_delivered(&self) {
        self.broker_out.inc();
    }

    /// A publish of a client was not carried out: `not_authorized`, `topic`, `payload`, `rate`, …
    pub fn publish_refused(&self, qos: QoS, reason: &'static str) {
        debug_assert!(NOT_PUBLISHED.contains(&reason), "{reason} has to be there from the start");
        let qos = QOS[qos as usize];
        self.publishes_refused.get_or_create(&[("qos", qos), ("reason", reason)]).inc();
    }

    /// A client has to wait with what follows a publish that can't be carried out now.
    pub fn publish_withheld(&self) {
        self.publishes_withheld.inc();
    }

    /// Notes points of telemetry that were taken.
    pub fn points_recorded(&self, count: usize) {
        self.points.inc_by(count as u64);
    }

    /// A text message was asked for.
    pub fn sms_logged(&self) {
        self.sms.inc();
    }

    /// The command with this index is done; `for_device`: whether it may have waited for one.
    #[inline]
    pub fn command_took(&self, index: usize, timer: Timer, for_device: bool) {
        self.times.command(index, timer, for_device);
    }

    /// A login begins, which ends when the answer is dropped.
    pub fn login_begins(&self) -> LoginTimer<'_> {
        self.times.login()
    }

    /// How many connections may be open, and how many sessions may live.
    pub fn limits(&self, connections: usize, sessions: usize) {
        self.connections_limit.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.sessions_limit.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// What waits for the store, and what it refused.
    pub fn store_writer(&self, writer: &Writer) {
        let figures = [
            writer.waiting(),
            limits::STORE_QUEUE_MAX,
            writer.waiting_bytes(),
            limits::STORE_QUEUE_BYTES_MAX,
        ];
        for (gauge, figure) in self.store_queue.iter().zip(figures) {
            gauge.set(i64::try_from(figure).unwrap_or(i64::MAX));
        }
        for error in WriteError::ALL {
            let counter = self.store_errors.get_or_create_owned(&[("error", error.as_str())]);
            counter.inc_by(writer.errors(error).saturating_sub(counter.get()));
        }
    }

    /// Whether the store takes all changes, the free bytes of its disk, and those that it needs.
    pub fn store_room(&self, available: bool, free: u64, mark: u64) {
        self.store_available.set(available.into());
        for (gauge, bytes) in self.store_free.iter().zip([free, mark]) {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// The bytes of the store's tables.
    pub fn store_bytes(&self, tables: &[(&'static str, u64)]) {
        for (table, bytes) in tables {
            let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
            self.store_bytes.get_or_create(&[("table", table)]).set(bytes);
        }
    }

    /// So many mails wait for things, and so many callers for their answers.
    pub fn mailbox(&self, mails: usize, callers: u64) {
        self.mails.set(i64::try_from(mails).unwrap_or(i64::MAX));
        self.mail_callers.set(i64::try_from(callers).unwrap_or(i64::MAX));
    }

    /// How much ordinary MQTT has, and what it did not do.
    pub fn topics(&self, load: &Load) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let count = |counter: &Counter, total: u64| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        count(&self.broker_dropped, load.dropped);
        self.kept_sessions.set(number(load.kept_sessions));
        self.retained.set(number(load.retained));
    }

    /// How much the trail has.
    pub fn events(&self, load: &events::Load) {
        for (class, written, bytes) in load.classes {
            let label = [("class", class.as_str())];
            let counter = self.events.get_or_create_owned(&label);
            counter.inc_by(written.saturating_sub(counter.get()));
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.event_bytes.get_or_create(&label).set(bytes);
        }
        self.event_bytes_limit.set(i64::try_from(load.limit).unwrap_or(i64::MAX));
    }

    /// A delivery of a webhook was tried.
    pub fn webhook_answered(&self, answer: &Answer) {
        let [success, status] = DELIVERED;
        let outcome = match answer {
            Answer::Taken(_) => success,
            Answer::Refused(..) => status,
            Answer::Failed(cause, _) => cause.as_str(),
        };
        self.webhook_deliveries.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// How webhooks are.
    pub fn webhooks(&self, lag: u64, [failing, switched_off]: [u64; 2]) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.webhook_lag.set(number(lag));
        for (gauge, count) in self.webhooks_not_delivered.iter().zip([failing, switched_off]) {
            gauge.set(number(count));
        }
    }

    /// So many files are on their way, and so many bytes are stored or have come.
    pub fn files(&self, moving: u64, bytes: u64) {
        self.file_transfers.set(i64::try_from(moving).unwrap_or(i64::MAX));
        self.file_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All of them; `commits` and `deliveries`: what commits of the store and tries of webhooks took.
    /// It reads files of the system.
    pub fn render(&self, form: Form, commits: Times, deliveries: Times) -> String {
        let mut written = String::new();
        text::encode_registry(&mut written, &self.registry).expect("a String takes everything");
        let mut page = Page::begin(form, written);
        page.histograms(
            "tr50d_command_seconds",
            "Time from a command's begin to its reply, by family. Of commands that are answered at \
             once, each thread times the first four of a millisecond and every 16th of the others, \
             which counts as 16",
            "family",
            self.times.by_family(),
        );
        let logins = [("", self.times.logins())];
        let help = "Time from a login's credentials to its outcome, refused logins too";
        page.histograms("tr50d_login_seconds", help, "", logins.into_iter());
        let commits = [("", commits)];
        let help = "Time of the store's commits, each of a group of changes";
        page.histograms("tr50d_store_commit_seconds", help, "", commits.into_iter());
        let deliveries = [("", deliveries)];
        let help = "Time of the tries of webhooks, from the look-up of the name to the answer";
        page.histograms("tr50d_webhook_delivery_seconds", help, "", deliveries.into_iter());
        process::write(&mut page);
        page.end()
    }

    /// Notes the second that ends now. `commits`: what commits of the store took so far.
    pub fn note_second(&self, at: Timestamp, load: &Load, commits: Times) {
        let sum = |gauges: &Gauges, label: &'static str, values: &[&'static str]| {
            let value = |value: &&'static str| gauges.get_or_create(&[(label, *value)]).get();
            Some(values.iter().map(value).sum::<i64>() as f64)
        };
        let seen = Seen {
            connections: sum(&self.connections, "protocol", &Protocol::ALL.map(Protocol::as_str)),
            sessions: sum(&self.sessions, "kind", &Kind::ALL.map(Kind::as_str)),
            store_queue: self.store_queue.first().map(|gauge| gauge.get() as f64),
            mails: Some(self.mails.get() as f64),
            memory_bytes: process::resident_bytes(),
            ..Seen::default()
        };
        let done = self.commands.iter().map(|outcomes| outcomes.success.get()).sum::<u64>();
        let failures = self.failures.total();
        let totals = Totals {
            commands: done + failures,
            failures,
            logins: self.login_count.get(),
            refused_logins: self.login_refusals.get(),
            messages_in: self.broker_in.get(),
            messages_out: self.broker_out.get(),
            messages_dropped: load.dropped,
            points: self.points.get(),
            starts: self.starts(),
            ends: Reason::ALL.map(|reason| self.ends_by(reason)),
            command_times: self.times.own(),
            commit_times: commits,
        };
        self.series.note(at, seen, totals);
    }

    /// The newest `most` seconds of the last hour that are wanted, the oldest first.
    pub fn seconds(&self, most: usize, wants: impl Fn(Timestamp) -> bool) -> Vec<Second> {
        self.series.read(most, wants)
    }
}

fn pool_info(registry: &mut Registry) -> Family<[Label; 2], Gauge> {
    let family = Family::default();
    registry.register(
        "pool_info",
        "What becomes of who asks when a pool is used up",
        family.clone(),
    );
    family
}

fn counters<const N: usize>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> Counters<N> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges(registry: &mut Registry, name: &'static str, help: &'static str) -> Gauges {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn counter(registry: &mut Registry, name: &'static str, help: &'static str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &'static str, help: &'static str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::new(&["diag.ping", "session.list"]);
        let open = metrics.connection_opened(Protocol::Mqtt);
        drop(metrics.connection_opened(Protocol::Mqtt));
        metrics.connection_refused("full");
        metrics.session_started("user");
        metrics.session_started("user");
        metrics.session_ended("user", "expired");
        metrics.login(Protocol::Mqtt);
        metrics.login_refused(Protocol::Ws, LoginCause::Locked);
        metrics.command_failed(Code::NOT_FOUND);
        metrics.command_failed(Code(1));
        metrics.command(1, true);
        metrics.command(1, false);
        metrics.command(7, true);
        metrics.broker_received();
        metrics.broker_delivered();
        metrics.sms_logged();
        metrics.points_recorded(3);
        metrics.store_room(true, 5, 4);
        metrics.limits(7, 9);
        metrics.store_bytes(&[("journal", 6)]);
        metrics.mailbox(5, 2);
        drop(metrics.login_begins());
        let text = metrics.render(Form::OpenMetrics, Times::default(), Times::default());
        let check = |line: &str| {
            assert!(text.lines().any(|have| have == line), "{text}\nlacks {line}");
        };
        check(r#"tr50d_connections{protocol="mqtt"} 1"#);
        check(r#"tr50d_connections_accepted_total{protocol="mqtt"} 2"#);
        check(r#"tr50d_connections_refused_total{reason="full"} 1"#);
        check(r#"tr50d_sessions{kind="user"} 1"#);
        check(r#"tr50d_sessions_started_total{kind="user"} 2"#);
        check(r#"tr50d_sessions_ended_total{kind="user",reason="expired"} 1"#);
        check(r#"tr50d_logins_total{outcome="success",cause="none",door="mqtt"} 1"#);
        check(r#"tr50d_logins_total{outcome="success",cause="none",door="wss"} 0"#);
        check(r#"tr50d_logins_total{outcome="locked",cause="locked",door="ws"} 1"#);
        check(r#"tr50d_logins_total{outcome="refused",cause="unknown_token",door="tcp"} 0"#);
        check(r#"tr50d_command_failures_total{code="-90008"} 1"#);
        check(r#"tr50d_command_failures_total{code="-95010"} 0"#);
        check(r#"tr50d_commands_total{command="diag.ping",outcome="success"} 0"#);
        check(r#"tr50d_commands_total{command="session.list",outcome="success"} 1"#);
        check(r#"tr50d_commands_total{command="session.list",outcome="failure"} 1"#);
        check("tr50d_broker_messages_in_total 1");
        check("tr50d_broker_messages_out_total 1");
        check("tr50d_sms_total 1");
        check("tr50d_telemetry_points_total 3");
        check("tr50d_connections_limit 7");
        check("tr50d_sessions_limit 9");
        check(r#"tr50d_store_bytes{table="journal"} 6"#);
        check(r#"tr50d_store_errors_total{error="busy"} 0"#);
        check("tr50d_login_seconds_count 1");
        check(r#"tr50d_command_seconds_bucket{family="diag",le="+Inf"} 0"#);
        check("# TYPE process_cpu_seconds counter");
        check(r#"tr50d_sessions_ended_total{kind="application",reason="max_age"} 0"#);
        check(r#"tr50d_pool_used{pool="sessions"} 0"#);
        check("tr50d_store_free_bytes_limit 4");
        check("tr50d_store_available 1");
        check("tr50d_store_free_bytes 5");
        check("tr50d_mails 5");
        check("tr50d_mail_callers 2");
        check("# EOF");
        drop(open);
        let text = metrics.render(Form::Text, Times::default(), Times::default());
        assert!(text.contains("\ntr50d_connections{protocol=\"mqtt\"} 0\n"), "{text}");
        assert!(text.contains("\n# TYPE process_cpu_seconds_total counter\n"), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }
}
