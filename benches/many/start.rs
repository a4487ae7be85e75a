//! How long a start takes with much to load: things, their sessions over HTTP, retained messages.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base::Timestamp;
use client::Version;
use serde_json::Value;
use store::disk::DiskStore;
use store::{Row, Store as _, StoreError, Table};
use support::http::log_in;
use support::mqtt::Connect;
use support::process::{Announced, cpu_of, resident_of, serve_demo};
use support::{TOKEN, TestServer};

use crate::Outcome;
use crate::cpu_affinity::Cores;
use crate::table::{Table as Figures, thousands};

/// Starts that are measured.
const ROUNDS: usize = 3;

/// What is multiplied.
const MANY: [Table; 4] = [Table::Things, Table::ThingIds, Table::Sessions, Table::Retained];

/// The key of the one thing and the topic of the one message, which the others have with numbers.
const KEY: &str = "device-0000000";
const TOPIC: &str = "retained/0000000";

/// Starts a server on a store with so many of each.
pub(crate) async fn run(count: usize, cores: Option<&Cores>) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (one, many) = (dir.path().join("one"), dir.path().join("many"));
    let server = TestServer::in_dir(&one, &[]);
    log_in(&server, KEY, TOKEN).await;
    Connect::thing(Version::V5, "writer").open(&server).await.retain(TOPIC, "x").await;
    server.stop().await;
    multiply(&one, &many, count)?;
    let mut figures = Figures::new();
    for round in 1..=ROUNDS {
        let started = start(&many, cores)?;
        let measured = format!(
            "{:.2} s, {:.2} s of CPU, {} kB resident: {}",
            started.ready.as_secs_f64(),
            started.cpu.as_secs_f64(),
            thousands(started.resident / 1024),
            started.parts.join("; "),
        );
        figures.row(&format!("start {round} with {} of each", thousands(count)), &measured, None);
    }
    figures.print();
    Ok(())
}

/// A store like another, with so many of what is there once.
fn multiply(one: &Path, many: &Path, count: usize) -> Outcome<()> {
    let (one, many) = (DiskStore::open(one)?, DiskStore::open(many)?);
    let moment = one.moment()?;
    for table in moment.tables().into_iter().filter(|table| !MANY.contains(table)) {
        many.put_all(table, moment.rows(table))?;
    }
    let id_of = |number: usize| format!("{:024x}", number + 1);
    let key_of = |number: usize| format!("device-{number:07}");
    let thing = row_with(&moment, Table::Things, KEY.as_bytes())?;
    let org = thing.0.get(..12).ok_or("a key without an organisation")?.to_vec();
    let text = String::from_utf8(thing.1)?;
    let known: Value = serde_json::from_str(&text)?;
    let id = known["id"].as_str().ok_or("a thing without an id")?.to_owned();
    many.fill(
        Table::Things,
        (0..count).map(|number| {
            let key = [&org[..], key_of(number).as_bytes()].concat();
            let value = text.replace(&id, &id_of(number)).replace(KEY, &key_of(number));
            Ok((key, value.into_bytes()))
        }),
    )?;
    many.fill(
        Table::ThingIds,
        (0..count).map(|number| {
            let id = (number as u128 + 1).to_be_bytes();
            Ok(([&org[..], &id[4..]].concat(), key_of(number).into_bytes()))
        }),
    )?;
    let session = row_with(&moment, Table::Sessions, b"")?;
    let session: Value = serde_json::from_slice(&session.1)?;
    many.fill(Table::Sessions, sessions(&session, count, &id_of, &key_of))?;
    let (key, value) = row_with(&moment, Table::Retained, TOPIC.as_bytes())?;
    many.fill(
        Table::Retained,
        (0..count).map(|number| {
            let topic = format!("retained/{number:07}");
            let with = |bytes: &[u8]| replaced(bytes, TOPIC.as_bytes(), topic.as_bytes());
            Ok((with(&key), with(&value)))
        }),
    )?;
    many.sync()?;
    Ok(())
}

/// Sessions of all things, which started one after the other in the last hours, in the order of
/// their refs, which is another.
fn sessions<'a>(
    one: &'a Value,
    count: usize,
    id_of: &'a impl Fn(usize) -> String,
    key_of: &'a impl Fn(usize) -> String,
) -> impl Iterator<Item = Result<Row, StoreError>> + 'a {
    let now = Timestamp::now();
    (0..count).map(move |number| {
        let thing = number * 7919 % count;
        let mut reference = [0; 32];
        let high = (number as u64).wrapping_mul(u64::MAX / count as u64);
        reference[..8].copy_from_slice(&high.to_be_bytes());
        reference[24..].copy_from_slice(&(number as u64).to_be_bytes());
        let started = now.plus_millis(-(thing as i64 * 20) - 1);
        let mut session = one.clone();
        let hex: String = reference.iter().map(|byte| format!("{byte:02x}")).collect();
        session["reference"] = hex.into();
        session["who"]["Application"]["thing_id"] = id_of(thing).into();
        session["who"]["Application"]["thing_key"] = key_of(thing).into();
        session["started"] = started.to_string().into();
        session["last_accessed"] = started.to_string().into();
        session["lifetime"]["Until"] = started.plus_seconds(259_200).to_string().into();
        Ok((reference.to_vec(), store::rows::encode(&session)))
    })
}

fn row_with(moment: &store::disk::Moment, table: Table, part: &[u8]) -> Outcome<Row> {
    let found = moment.rows(table).find(|row| match row {
        Ok((key, _)) => part.is_empty() || key.ends_with(part),
        Err(_) => true,
    });
    Ok(found.ok_or("nothing to multiply")??)
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// What a start took.
struct Started {
    ready: Duration,
    cpu: Duration,
    resident: usize,
    /// What the log says of its parts.
    parts: Vec<String>,
}

fn start(data_dir: &Path, cores: Option<&Cores>) -> Outcome<Started> {
    let mut command = Cores::command(cores, env!("CARGO_BIN_EXE_tr50d"));
    serve_demo(&mut command, data_dir, &[]);
    command
        .env("RUST_LOG", "info")
        .envs(BTreeMap::from([("TR50D_LIMITS__SESSIONS", "2000000")]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn()?;
    let output = child.stdout.take().ok_or("the server has no output")?;
    let log = child.stderr.take().ok_or("the server has no log")?;
    let announced = Announced::read(output);
    let ready = begin.elapsed();
    let id = child.id().to_string();
    let figures = (cpu_of(&id), resident_of(&id));
    child.kill()?;
    child.wait()?;
    announced?;
    let log: Result<Vec<_>, _> = BufReader::new(log).lines().collect();
    let is_part = |line: &String| line.contains("loaded what") || line.contains("store opened");
    let parts = log?.into_iter().filter(is_part).collect();
    Ok(Started { ready, cpu: figures.0?, resident: figures.1?, parts })
}
