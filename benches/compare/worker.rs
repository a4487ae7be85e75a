//! Request and reply through a broker to a worker: what a user would build from parts that there
//! are. Broker and worker share the server's core; tr50d, which answers by itself, has it alone.

use std::net::SocketAddr;

use tr50d::transport::mqtt::codec::Packet;

use super::broker::{self, Client, Talk, Talkers};
use super::process::{Server, TOKEN};
use super::round_trips::{Ask, CLIENTS, PING};
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// Requests go to the worker, replies come back.
const TALK: Talk =
    Talk { publish: "api/", subscribe: "reply/", payload: PING, window: 1, qos1: false };

/// What the worker answers: as long as tr50d's answer to a diag.ping.
const REPLY: &[u8] = br#"{"cmd":{"success":true}}"#;

/// The row, measured.
pub async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let what = "request and reply through a broker to a worker (tr50d by itself), w=1, a second";
    let mut row = Row::new(what, Unit::Count, Goal::TimesPeer(4.0));
    let ours = Server::ours(bench, &bench.folder()?, &[])?;
    for _ in 0..bench.rounds {
        if let Some(broker) = Server::mosquitto(bench).await? {
            row.peer.push(through(bench, &broker).await?);
        }
        let report = Ask::new("mqtt", 1).run(bench, &ours, TOKEN).await?.report;
        row.ours.push(figure(report.commands.per_second, report.latency.p50_ms));
    }
    Ok(vec![row])
}

async fn through(bench: &Bench, broker: &Server) -> Result<Figure> {
    let address = broker.address("mqtt")?;
    let _worker = Server::worker(bench, address)?;
    let talkers = Talkers::connect(address, CLIENTS, &TALK).await?;
    let outcome = talkers.run(&TALK, bench.step).await?;
    let p50_ms = outcome.latency.quantile(0.5).as_secs_f64() * 1000.0;
    Ok(figure(outcome.answered as f64 / bench.step.as_secs_f64(), p50_ms))
}

fn figure(value: f64, p50_ms: f64) -> Figure {
    Figure { value, beside: format!("p50 {p50_ms:.2} ms") }
}

/// The worker: answers on `reply/…` what is published on `api/…`, until the broker ends.
pub async fn serve(broker: SocketAddr) -> Result<()> {
    let mut client = Client::connect(broker, "worker").await?;
    client.subscribe("api/+").await?;
    println!("ready");
    loop {
        let answer = |packet: &Packet<'_>, output: &mut Vec<u8>| match packet {
            Packet::Publish(request) => {
                let number = request.topic.trim_start_matches("api/");
                broker::publish(output, None, &[b"reply/", number.as_bytes()], REPLY)
            }
            _ => Ok(()),
        };
        client.exchange(answer).await?;
    }
}
