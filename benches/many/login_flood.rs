//! Two hundred people log in by password at once, and again, while devices send commands.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use client::Url;
use client::fleet::{Fleet, Plan};

use crate::Outcome;
use crate::cpu_affinity::Cores;
use crate::probe::Probe;
use crate::server::Server;
use crate::table::{Table, thousands};

/// People; each at an address of its own, for one address may have only a few checks on their way.
const PEOPLE: usize = 200;

/// How long they go on: the checks that wait are made in two seconds.
const FLOOD: Duration = Duration::from_secs(8);

/// For how long the devices are watched without them.
const QUIET: Duration = Duration::from_secs(4);

/// Adds the flood to the table: on one core, and on all.
pub(crate) async fn add_to(table: &mut Table, cores: Option<&Cores>) -> Outcome<()> {
    if let Some(cores) = cores {
        one(table, Some(cores), "the server has one core").await?;
    }
    one(table, cores.map(Cores::all).as_ref(), "the server has all cores, the load one").await
}

async fn one(table: &mut Table, cores: Option<&Cores>, which: &str) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (server, _) = Server::start(&dir.path().join("data"), cores, &[], None).await?;
    let mqtt = server.devices()?;
    let quiet = Probe::during(&mqtt, QUIET).await?;
    table.row(&format!("no logins; {which}"), "", Some(&quiet));
    let probe = Probe::start(&mqtt).await?;
    let flood = flood(&server.operator("mqtt")?).await?;
    let report = probe.stop().await?;
    let measured = format!(
        "{} logins at {:.0}/s, {} told that the server is busy",
        thousands(flood.welcome),
        flood.welcome as f64 / flood.elapsed.as_secs_f64(),
        thousands(flood.busy),
    );
    table.row(&format!("{PEOPLE} people log in by password; {which}"), &measured, Some(&report));
    Ok(())
}

/// What became of the logins.
struct Flood {
    welcome: usize,
    busy: usize,
    elapsed: Duration,
}

async fn flood(url: &Url) -> Outcome<Flood> {
    let address = |number| IpAddr::V4(Ipv4Addr::new(127, 2, 0, number as u8 + 1));
    let sources = (0..PEOPLE).map(address).collect();
    let plan = Plan { sources, ..Plan::new(url.clone(), PEOPLE) };
    let (mut welcome, mut busy, start) = (0, 0, Instant::now());
    while start.elapsed() < FLOOD {
        let fleet = Fleet::connect(&plan).await?;
        welcome += fleet.len();
        busy += PEOPLE - fleet.len();
        fleet.close().await;
    }
    Ok(Flood { welcome, busy, elapsed: start.elapsed() })
}
