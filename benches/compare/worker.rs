//! Request and reply through a broker to a worker: what a user would build from parts that there
//! are. Broker and worker share the server's core; tr50d, which answers by itself, has it alone.

use std::net::SocketAddr;

use mqtt::{Packet, QoS};
use support::TOKEN;

use super::broker::{self, Broker, Client, Talk, Talkers};
use super::process::Server;
use super::round_trips::{Ask, CLIENTS, PING, a_core};
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// Requests go to the worker, replies come back.
const TALK: Talk = Talk {
    publish: "api/",
    subscribe: "reply/",
    payload: PING.as_bytes(),
    window: 1,
    publish_qos: QoS::AtMostOnce,
    subscribe_qos: QoS::AtMostOnce,
};

/// What the worker answers: as long as tr50d's answer to a diag.ping.
const REPLY: &[u8] = br#"{"cmd":{"success":true}}"#;

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let what = "request and reply through a broker to a worker (tr50d by itself), w=1, a second";
    let mut by_clock = Row::new(what, Unit::Count, Goal::TimesPeer(4.0));
    let what = "the same, round trips a core (broker and worker together)";
    let mut a_core = Row::new(what, Unit::Count, Goal::None);
    let ours = Server::ours(bench, &bench.folder()?, &[])?;
    for _ in 0..bench.rounds {
        if let Some(broker) = Server::mosquitto(bench).await? {
            let (second, core) = through(bench, &broker).await?;
            by_clock.peer.push(second);
            a_core.peer.push(core);
        }
        let asked = Ask::new("mqtt", 1).run(bench, &ours, TOKEN).await?;
        let (commands, latency) = (&asked.report.commands, &asked.report.latency);
        by_clock.ours.push(figure(commands.per_second, latency.p50_ms));
        a_core.ours.push(asked.a_core());
    }
    Ok(vec![by_clock, a_core])
}

/// Round trips a second, and a core.
async fn through(bench: &Bench, broker: &Server) -> Result<(Figure, Figure)> {
    let worker = Server::worker(bench, broker.address("mqtt")?)?;
    let talkers = Talkers::connect(broker.broker()?, CLIENTS, &TALK).await?;
    let before = broker.cpu()? + worker.cpu()?;
    let outcome = talkers.run(&TALK, bench.step).await?;
    let cpu = broker.cpu()? + worker.cpu()? - before;
    let p50_ms = outcome.latency.quantile(0.5).as_secs_f64() * 1000.0;
    let second = figure(outcome.answered as f64 / bench.step.as_secs_f64(), p50_ms);
    Ok((second, a_core(outcome.answered, cpu)))
}

fn figure(value: f64, p50_ms: f64) -> Figure {
    Figure { value, beside: format!("p50 {p50_ms:.2} ms") }
}

/// The worker: answers on `reply/…` what is published on `api/…`, until the broker ends.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(Broker { address, token: None, tls: None }, "worker").await?;
    client.subscribe(&["api/+".to_owned()], QoS::AtMostOnce).await?;
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
