//! Many MQTT connections that do nothing: the memory of one, and the CPU of its CONNECT.

use std::path::Path;
use std::time::Duration;

use client::ClientError;
use client::fleet::{Fleet, Plan};
use mqtt::QoS;
use support::TOKEN;
use tokio::time::sleep;

use super::broker::Client;
use super::process::Server;
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// What one connection costs.
struct Cost {
    connect_us: Figure,
    resident_kb: Figure,
}

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let count = bench.connections;
    let of = format!("of {} connections", super::table::thousands(count as f64));
    let memory = format!("resident memory of one idle, logged-in MQTT connection, {of}");
    let mut memory = Row::new(memory, Unit::Kilobytes, Goal::AtMost(6.0));
    let connect = format!("CPU of one CONNECT with a token login, {of}");
    let mut connect = Row::new(connect, Unit::Micros, Goal::AtMost(150.0));
    let what = "the same, of a thing that registers itself";
    let mut first_memory = Row::new(what, Unit::Kilobytes, Goal::AtMost(6.0));
    let mut first_connect = Row::new(what, Unit::Micros, Goal::AtMost(150.0));
    for _ in 0..bench.rounds {
        let floor = hold(bench, Server::floor(bench, "mqtt", None)?, count).await?;
        memory.floor.push(floor.resident_kb);
        connect.floor.push(floor.connect_us);
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            let peer = hold_clients(bench, mosquitto, count).await?;
            memory.peer.push(peer.resident_kb);
            connect.peer.push(peer.connect_us);
        }
        let data_dir = bench.folder()?;
        let first = hold(bench, ours(bench, &data_dir)?, count).await?;
        first_memory.ours.push(first.resident_kb);
        first_connect.ours.push(first.connect_us);
        // The same things come again, to a process whose memory does not remember them.
        let known = hold(bench, ours(bench, &data_dir)?, count).await?;
        memory.ours.push(known.resident_kb);
        connect.ours.push(known.connect_us);
    }
    Ok(vec![memory, first_memory, connect, first_connect])
}

fn ours(bench: &Bench, data_dir: &Path) -> Result<Server> {
    Server::ours(bench, data_dir, &[])
}

/// Connects a fleet, looks what that cost, and ends it and the server.
async fn hold(bench: &Bench, server: Server, count: usize) -> Result<Cost> {
    let plan = Plan::new(server.url("mqtt", TOKEN)?, count);
    let before = Used::by(&server)?;
    let mut fleet = Fleet::connect(&plan).await?;
    sleep(bench.settling()).await;
    let cost = Used::by(&server)?.since(&before, count);
    // Whether they were there all the time. What the floor sends back is no reply, but it comes.
    let replies = fleet.call_all("diag.ping", None).await;
    let has_come = |reply: &_| matches!(reply, Ok(_) | Err(ClientError::NotAReply(_)));
    let there = replies.iter().filter(|reply| has_come(reply)).count();
    fleet.close().await;
    server.stop().await?;
    all_there(there, count).map(|()| cost)
}

/// The same with clients of an ordinary broker, which wants a client id of each.
async fn hold_clients(bench: &Bench, server: Server, count: usize) -> Result<Cost> {
    let broker = server.broker()?;
    let before = Used::by(&server)?;
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        clients.push(Client::connect(broker, &format!("idle-{number}")).await?);
    }
    sleep(bench.settling()).await;
    let cost = Used::by(&server)?.since(&before, count);
    let (mut there, idle) = (0, ["idle".to_owned()]);
    for client in &mut clients {
        there += usize::from(client.subscribe(&idle, QoS::AtMostOnce).await.is_ok());
    }
    drop(clients);
    server.stop().await?;
    all_there(there, count).map(|()| cost)
}

fn all_there(there: usize, count: usize) -> Result<()> {
    match there == count {
        true => Ok(()),
        false => Err(format!("of {count} connections {there} lasted").into()),
    }
}

/// What a process has used.
struct Used {
    cpu: Duration,
    resident_bytes: u64,
}

impl Used {
    fn by(server: &Server) -> Result<Self> {
        Ok(Self { cpu: server.cpu()?, resident_bytes: server.resident_bytes()? })
    }

    fn since(&self, before: &Self, connections: usize) -> Cost {
        let each = |total: f64| Figure::from(total / connections as f64);
        let cpu = self.cpu.saturating_sub(before.cpu);
        let resident_bytes = self.resident_bytes.saturating_sub(before.resident_bytes);
        Cost {
            connect_us: each(cpu.as_secs_f64() * 1e6),
            resident_kb: each(resident_bytes as f64 / 1000.0),
        }
    }
}
