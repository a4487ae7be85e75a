//! Metrics for Prometheus at `/metrics`.
//!
//! Everything a command touches is a handle made at the start: one atomic addition, no look-up.
//! Labels are `&'static str`, so that no peer can make new ones.

use base::pool::{Max, POOLS, Pools};
use base::{Protocol, Timestamp};
use mqtt::QoS;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::broker::Load;
use crate::events;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = (&'static str, &'static str);
type Counters<const N: usize> = Family<[Label; N], Counter>;
type Gauges = Family<[Label; 1], Gauge>;

/// The counters and gauges of one server.
pub struct Metrics {
    registry: Registry,
    connections: Gauges,
    accepted: Counters<1>,
    refused: Counters<1>,
    sessions: Gauges,
    sessions_started: Counters<1>,
    sessions_ended: Counters<2>,
    logins: Counters<1>,
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
    store_queue: Gauge,
    store_available: Gauge,
    store_free: Gauge,
    mails: Gauge,
    mail_callers: Gauge,
    file_transfers: Gauge,
    file_bytes: Gauge,
    certificate_end: Gauges,
    events: Counters<1>,
    event_bytes: Gauges,
    event_bytes_limit: Gauge,
    unauthenticated: Gauge,
    pools: [Gauges; 2],
    pool_counts: [Counters<1>; 2],
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
        Self {
            commands: handles.collect(),
            connections: gauges(r, "connections", "Connections open now, by protocol"),
            accepted: counters(r, "connections_accepted", "Connections accepted, by protocol"),
            refused: counters(r, "connections_refused", "Connections refused, by reason"),
            sessions: gauges(r, "sessions", "Sessions live now, by kind"),
            sessions_started: counters(r, "sessions_started", "Sessions started, by kind"),
            sessions_ended: counters(r, "sessions_ended", "Sessions ended, by kind and reason"),
            logins: counters(r, "logins", "Logins, by outcome"),
            over_rate: counters(
                r,
                "commands_over_rate",
                "Commands over a rate: of a session, a principal or an organisation",
            ),
            turns_waited: counter(
                r,
                "turns_waited",
                "Reads that waited: the cores were full, and their tenant was above its share",
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
            store_queue: gauge(r, "store_queue", "Batches waiting for the store"),
            store_available: gauge(
                r,
                "store_available",
                "Whether the store takes all changes: 0 when its disk is full or its engine failed",
            ),
            store_free: gauge(r, "store_free_bytes", "Free bytes of the store's disk"),
            mails: gauge(r, "mails", "Mails waiting for things"),
            mail_callers: gauge(r, "mail_callers", "Callers waiting for things' answers"),
            file_transfers: gauge(r, "file_transfers", "Files being uploaded or downloaded"),
            file_bytes: gauge(r, "file_bytes", "Bytes of files and uploads, in blocks of 4096"),
            events: counters(r, "events", "Events written into the trail, by class"),
            event_bytes: gauges(r, "event_bytes", "Bytes of the trail on disk, by class"),
            event_bytes_limit: gauge(r, "event_bytes_limit", "Bytes that the trail may take"),
            unauthenticated: gauge(
                r,
                "unauthenticated_bytes",
                "Bytes held for half requests of those who have not logged in",
            ),
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
            registry,
        }
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

    /// A login came to its end: `success`, `bad_credentials`, `locked`, …
    pub fn login(&self, outcome: &'static str) {
        self.logins.get_or_create(&[("outcome", outcome)]).inc();
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
        let qos = ["0", "1", "2"][qos as usize];
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

    /// So many batches wait for the store.
    pub fn store_queue(&self, batches: usize) {
        self.store_queue.set(i64::try_from(batches).unwrap_or(i64::MAX));
    }

    /// Whether the store takes all changes, and the free bytes of its disk.
    pub fn store(&self, available: bool, free: u64) {
        self.store_available.set(available.into());
        self.store_free.set(i64::try_from(free).unwrap_or(i64::MAX));
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

    /// So many files are on their way, and so many bytes are stored or have come.
    pub fn files(&self, moving: u64, bytes: u64) {
        self.file_transfers.set(i64::try_from(moving).unwrap_or(i64::MAX));
        self.file_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All of them in the OpenMetrics text form, [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a String can't fail");
        text
    }
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
        metrics.login("success");
        metrics.command(1, true);
        metrics.command(1, false);
        metrics.command(7, true);
        metrics.broker_received();
        metrics.broker_delivered();
        metrics.sms_logged();
        metrics.points_recorded(3);
        metrics.store_queue(3);
        metrics.store(true, 5);
        metrics.mailbox(5, 2);
        let text = metrics.render();
        let check = |line: &str| {
            assert!(text.lines().any(|have| have == line), "{text}\nlacks {line}");
        };
        check(r#"tr50d_connections{protocol="mqtt"} 1"#);
        check(r#"tr50d_connections_accepted_total{protocol="mqtt"} 2"#);
        check(r#"tr50d_connections_refused_total{reason="full"} 1"#);
        check(r#"tr50d_sessions{kind="user"} 1"#);
        check(r#"tr50d_sessions_started_total{kind="user"} 2"#);
        check(r#"tr50d_sessions_ended_total{kind="user",reason="expired"} 1"#);
        check(r#"tr50d_logins_total{outcome="success"} 1"#);
        check(r#"tr50d_commands_total{command="diag.ping",outcome="success"} 0"#);
        check(r#"tr50d_commands_total{command="session.list",outcome="success"} 1"#);
        check(r#"tr50d_commands_total{command="session.list",outcome="failure"} 1"#);
        check("tr50d_broker_messages_in_total 1");
        check("tr50d_broker_messages_out_total 1");
        check("tr50d_sms_total 1");
        check("tr50d_telemetry_points_total 3");
        check("tr50d_store_queue 3");
        check("tr50d_store_available 1");
        check("tr50d_store_free_bytes 5");
        check("tr50d_mails 5");
        check("tr50d_mail_callers 2");
        check("# EOF");
        drop(open);
        assert!(metrics.render().contains(r#"tr50d_connections{protocol="mqtt"} 0"#));
    }
}
