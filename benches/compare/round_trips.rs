//! diag.ping over MQTT and TCP: round trips for each second that the server's process is running on
//! a core.

use std::time::Duration;

use client::fleet::{Fleet, Load, Plan, Report};
use mqtt::QoS;
use support::TOKEN;

use super::broker::{Talk, Talkers};
use super::process::Server;
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// How many clients ask at once.
pub(crate) const CLIENTS: usize = 50;

/// The request as it is on the wire.
pub(crate) const PING: &str = r#"{"cmd":{"command":"diag.ping"}}"#;

/// The floor sends requests back as they are: with this they look like successful replies.
const ECHO: &str = r#"{"success":true}"#;

/// One command, asked by all clients again and again.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// `mqtt` or `tcp`.
    pub listener: &'static str,
    /// Requests that each client has on its way.
    pub window: usize,
    /// MQTT requests with QoS 1.
    pub qos1: bool,
    /// What is asked.
    pub command: &'static str,
    /// Its parameters, a JSON text.
    pub params: Option<String>,
    /// How many ask.
    pub clients: usize,
}

/// What came of a load.
pub(crate) struct Asked {
    /// What the clients saw.
    pub report: Report,
    /// What the server's process used.
    pub cpu: Duration,
}

impl Ask {
    /// diag.ping with QoS 0.
    pub(crate) fn new(listener: &'static str, window: usize) -> Self {
        let command = "diag.ping";
        Self { listener, window, qos1: false, command, params: None, clients: CLIENTS }
    }

    /// Asks for one step, when all clients are connected.
    pub(crate) async fn run(&self, bench: &Bench, server: &Server, token: &str) -> Result<Asked> {
        let url = server.url(self.listener, token)?;
        let plan = Plan { qos1: self.qos1, ..Plan::new(url, self.clients) };
        let mut load = Load::command(self.command, self.params.as_deref(), bench.step)?;
        load.window = self.window;
        let mut fleet = Fleet::connect(&plan).await?;
        let before = server.cpu()?;
        let report = fleet.run(&load).await;
        let cpu = server.cpu()? - before;
        fleet.close().await;
        if report.is_clean() { Ok(Asked { report, cpu }) } else { Err(report.to_string().into()) }
    }
}

impl Asked {
    /// Round trips for each second of CPU.
    pub(crate) fn a_core(&self) -> Figure {
        a_core(self.report.commands.answered, self.cpu)
    }

    /// Microseconds of CPU for each round trip.
    pub(crate) fn cpu_us(&self) -> Figure {
        (self.cpu.as_secs_f64() * 1e6 / self.report.commands.answered as f64).into()
    }
}

/// The rows over MQTT, measured.
pub(crate) async fn over_mqtt(bench: &Bench) -> Result<Vec<Row>> {
    let row = |what, part| Row::new(what, Unit::Count, Goal::OfFloor(part));
    let ping = |window, qos1| Ask { qos1, ..Ask::new("mqtt", window) };
    let rows = vec![
        (row("MQTT diag.ping QoS 0, w=1, round trips a core", 0.9), ping(1, false)),
        (row("the same, w=20", 0.65), ping(20, false)),
        (row("MQTT diag.ping QoS 1, w=1, round trips a core", 0.9), ping(1, true)),
    ];
    let mosquitto = Server::mosquitto(bench).await?;
    measure(bench, "mqtt", mosquitto, rows).await
}

/// The rows over TCP, measured.
pub(crate) async fn over_tcp(bench: &Bench) -> Result<Vec<Row>> {
    let row = |what, part| Row::new(what, Unit::Count, Goal::OfFloor(part));
    let rows = vec![
        (row("TCP diag.ping, w=1, round trips a core", 0.9), Ask::new("tcp", 1)),
        (row("the same, w=16", 0.6), Ask::new("tcp", 16)),
    ];
    measure(bench, "tcp", None, rows).await
}

async fn measure(
    bench: &Bench,
    speech: &str,
    mosquitto: Option<Server>,
    mut rows: Vec<(Row, Ask)>,
) -> Result<Vec<Row>> {
    let floor = Server::floor(bench, speech, None)?;
    let ours = Server::ours(bench, &bench.folder()?, &[])?;
    for _ in 0..bench.rounds {
        for (row, ask) in &mut rows {
            let echo = Ask { params: Some(ECHO.to_owned()), ..ask.clone() };
            row.floor.push(echo.run(bench, &floor, TOKEN).await?.a_core());
            if let Some(broker) = &mosquitto {
                row.peer.push(echo_through(bench, broker, ask).await?);
            }
            row.ours.push(ask.run(bench, &ours, TOKEN).await?.a_core());
        }
    }
    Ok(rows.into_iter().map(|(row, _)| row).collect())
}

/// Each client subscribes to the topic that it publishes to.
async fn echo_through(bench: &Bench, broker: &Server, ask: &Ask) -> Result<Figure> {
    let talk = Talk {
        publish: "api/",
        subscribe: "api/",
        payload: PING.as_bytes(),
        window: ask.window,
        publish_qos: if ask.qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        subscribe_qos: QoS::AtMostOnce,
    };
    talk_with(bench, broker, &talk).await
}

/// Lets clients of a broker talk for one step.
pub(crate) async fn talk_with(bench: &Bench, server: &Server, talk: &Talk) -> Result<Figure> {
    let talkers = Talkers::connect(server.broker()?, CLIENTS, talk).await?;
    let before = server.cpu()?;
    let outcome = talkers.run(talk, bench.step).await?;
    Ok(a_core(outcome.answered, server.cpu()? - before))
}

/// Round trips for each second of CPU.
pub(crate) fn a_core(answered: u64, cpu: Duration) -> Figure {
    // A step so short that the system counted nothing took less than one of its ticks.
    (answered as f64 / cpu.as_secs_f64().max(0.01)).into()
}
