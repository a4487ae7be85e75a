//! Telemetry: rows in batches with durability `os`, single publishes with durability `disk`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base::Timestamp;
use client::fleet::{Fleet, Load, Plan, Report};
use store::{Batch, Month, Store, Table, disk::DiskStore};
use support::TOKEN;

use super::process::Server;
use super::round_trips::CLIENTS;
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// Rows of one batch.
const ROWS: usize = 200;

/// Devices that send batches, each with two on their way.
const GATEWAYS: usize = 10;

/// Bytes that the store has for one publish, roughly: its point and its current value.
const PUBLISH_BYTES: usize = 200;

/// Rows through `property.batch`.
pub(crate) async fn batches(bench: &Bench) -> Result<Vec<Row>> {
    let what = format!("property rows in batches of {ROWS}, durability os, a second, end to end");
    let mut row = Row::new(what, Unit::Count, Goal::AtLeast(200_000.0));
    for _ in 0..bench.rounds {
        row.floor.push(store_alone(&bench.folder()?, bench.step)?.into());
        let ours = Server::ours(bench, &bench.folder()?, &[])?;
        let mut load = Load::telemetry(ROWS, bench.step, Timestamp::now())?;
        load.window = 2;
        let report = run(&ours, GATEWAYS, &load).await?;
        let value = report.rows.as_ref().map_or(0.0, |rows| rows.per_second);
        let latency = &report.latency;
        let beside = format!("a batch p50 {:.1} ms, p99 {:.1} ms", latency.p50_ms, latency.p99_ms);
        row.ours.push(Figure { value, beside });
        ours.stop().await?;
    }
    Ok(vec![row])
}

/// Single values through `property.publish`.
pub(crate) async fn singles(bench: &Bench) -> Result<Vec<Row>> {
    let what = format!("single publishes, durability disk, {CLIENTS} clients, a second");
    let mut row = Row::new(what, Unit::Count, Goal::AtLeast(20_000.0));
    for _ in 0..bench.rounds {
        row.floor.push(synced_writes(&bench.folder()?, bench.step)?.into());
        let settings = [("TR50D_SERVER__DURABILITY", "disk")];
        let ours = Server::ours(bench, &bench.folder()?, &settings)?;
        let params = r#"{"key":"temperature","value":21.5}"#;
        let load = Load::command("property.publish", Some(params), bench.step)?;
        let report = run(&ours, CLIENTS, &load).await?;
        let latency = &report.latency;
        let beside = format!("p50 {:.2} ms, p99 {:.1} ms", latency.p50_ms, latency.p99_ms);
        row.ours.push(Figure { value: report.commands.per_second, beside });
        ours.stop().await?;
    }
    Ok(vec![row])
}

async fn run(server: &Server, devices: usize, load: &Load) -> Result<Report> {
    let mut fleet = Fleet::connect(&Plan::new(server.url("mqtt", TOKEN)?, devices)).await?;
    let report = fleet.run(load).await;
    fleet.close().await;
    if report.is_clean() { Ok(report) } else { Err(report.to_string().into()) }
}

/// The floor of batches: points a second into the store by one thread, nothing read and no reply.
fn store_alone(folder: &Path, duration: Duration) -> Result<f64> {
    let store = DiskStore::open(&folder.join("store"))?;
    let table = Table::Telemetry(Month(600));
    let (begin, mut rows) = (Instant::now(), 0u64);
    while begin.elapsed() < duration {
        let mut batch = Batch::default();
        for _ in 0..ROWS {
            // As the server has them: series, time, arrival; a number.
            let (series, time) = (rows % 100, rows);
            let key = [&series.to_be_bytes()[..], &time.to_be_bytes(), &[0; 4]].concat();
            batch.put(table, key, rows.to_be_bytes());
            rows += 1;
        }
        store.commit(&[batch])?;
    }
    Ok(rows as f64 / begin.elapsed().as_secs_f64())
}

/// The floor of durable publishes: writes a second, each synced to the disk on its own.
fn synced_writes(folder: &Path, duration: Duration) -> Result<f64> {
    let mut file = File::create(folder.join("journal"))?;
    let (begin, mut writes) = (Instant::now(), 0u64);
    while begin.elapsed() < duration {
        file.write_all(&[0x5a; PUBLISH_BYTES])?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(writes as f64 / begin.elapsed().as_secs_f64())
}
