//! Many MQTT connections that do nothing: the memory of one, and the CPU of its CONNECT.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;
use tr50d::fleet::{Fleet, Plan};

use super::process::{Server, TOKEN};
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// What a server does after logins that nobody waits for (counters, the store) is over by then.
const SETTLING: Duration = Duration::from_secs(1);

/// What one connection costs.
struct Cost {
    connect_us: Figure,
    resident_kb: Figure,
}

/// The rows, measured.
pub async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let count = bench.connections;
    let of = format!("of {} connections", super::table::thousands(count as f64));
    let memory = format!("resident memory of one idle, logged-in MQTT connection, {of}");
    let mut memory = Row::new(memory, Unit::Kilobytes, Goal::AtMost(6.0));
    let connect = format!("CPU of one CONNECT with a token login, {of}");
    let mut connect = Row::new(connect, Unit::Micros, Goal::AtMost(150.0));
    let what = "the same, of a thing that registers itself";
    let mut first = Row::new(what, Unit::Micros, Goal::None);
    for _ in 0..bench.rounds {
        let floor = hold(bench, Server::floor(bench, "mqtt", None)?, count).await?;
        memory.floor.push(floor.resident_kb);
        connect.floor.push(floor.connect_us);
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            let peer = hold(bench, mosquitto, count).await?;
            memory.peer.push(peer.resident_kb);
            connect.peer.push(peer.connect_us);
        }
        let data_dir = bench.folder()?;
        first.ours.push(hold(bench, ours(bench, &data_dir)?, count).await?.connect_us);
        // The same things come again, to a process whose memory does not remember them.
        let known = hold(bench, ours(bench, &data_dir)?, count).await?;
        memory.ours.push(known.resident_kb);
        connect.ours.push(known.connect_us);
    }
    Ok(vec![memory, connect, first])
}

fn ours(bench: &Bench, data_dir: &Path) -> Result<Server> {
    Server::ours(bench, data_dir, &[])
}

/// Connects so many, looks what that cost, and ends them and the server.
async fn hold(bench: &Bench, server: Server, count: usize) -> Result<Cost> {
    let plan = Plan::new(server.url("mqtt", TOKEN)?, count);
    let (cpu, resident) = (server.cpu()?, server.resident_bytes()?);
    let fleet = Fleet::connect(&plan).await?;
    sleep(SETTLING.min(bench.step)).await;
    let cpu = server.cpu()? - cpu;
    let resident = server.resident_bytes()?.saturating_sub(resident);
    let missing = count - fleet.len();
    fleet.close().await;
    server.stop().await?;
    if missing > 0 {
        return Err(format!("{missing} connections of {count} were refused").into());
    }
    let each = |total: f64| Figure::from(total / count as f64);
    let (connect_us, resident_kb) = (each(cpu.as_secs_f64() * 1e6), each(resident as f64 / 1000.0));
    Ok(Cost { connect_us, resident_kb })
}
