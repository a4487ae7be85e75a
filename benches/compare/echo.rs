//! Ordinary MQTT: each client publishes to its own topic and gets it back. With QoS 1 both ways are
//! acknowledged.

use mqtt::QoS::{self, AtLeastOnce, AtMostOnce};

use super::broker::{PAYLOAD, Talk};
use super::process::Server;
use super::round_trips::talk_with;
use super::table::{Goal, Row, Unit};
use super::{Bench, Result};

/// What goes beyond 127 bytes, where a length takes a second byte.
const LONG_PAYLOAD: &[u8] = &[b'x'; 256];

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let row = |what, goal| Row::new(what, Unit::Count, goal);
    let mut rows = [
        (
            row("MQTT echo of 60 bytes, QoS 0, w=1, round trips a core", Goal::TimesPeer(2.0)),
            talk(AtMostOnce, 1, PAYLOAD),
        ),
        (row("the same, w=20", Goal::TimesPeer(8.0)), talk(AtMostOnce, 20, PAYLOAD)),
        (
            row("the same of 256 bytes, w=20", Goal::OfFloor(0.8)),
            talk(AtMostOnce, 20, LONG_PAYLOAD),
        ),
        (
            row("MQTT echo of 60 bytes, QoS 1, w=1, round trips a core", Goal::TimesPeer(2.0)),
            talk(AtLeastOnce, 1, PAYLOAD),
        ),
        (row("the same, w=20", Goal::TimesPeer(8.0)), talk(AtLeastOnce, 20, PAYLOAD)),
    ];
    let floor = Server::floor(bench, "mqtt", None)?;
    let mosquitto = Server::mosquitto(bench).await?;
    let ours = Server::ours_as_broker(bench)?;
    for _ in 0..bench.rounds {
        for (row, talk) in &mut rows {
            row.floor.push(talk_with(bench, &floor, talk).await?);
            if let Some(mosquitto) = &mosquitto {
                row.peer.push(talk_with(bench, mosquitto, talk).await?);
            }
            row.ours.push(talk_with(bench, &ours, talk).await?);
        }
    }
    Ok(rows.into_iter().map(|(row, _)| row).collect())
}

/// Each client publishes what it has subscribed to.
pub(crate) fn talk(qos: QoS, window: usize, payload: &'static [u8]) -> Talk {
    let (publish, subscribe) = ("echo/", "echo/");
    Talk { publish, subscribe, payload, window, publish_qos: qos, subscribe_qos: qos }
}
