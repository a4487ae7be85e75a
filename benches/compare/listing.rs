//! session.list: the CPU of a page of 50, however many sessions there are, and of 5,000 at once.
//!
//! The floor answers with the same bytes, ready made.

use client::Client;
use tokio::time::sleep;

use super::process::Server;
use super::round_trips::Ask;
use super::sessions::{self, ORGS, log_in, token};
use super::table::{Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// The organisation that is asked for its pages.
const ORG: usize = 7;

/// An organisation beside the others, with many sessions.
const LARGE_ORG: usize = ORGS;

/// The sessions of one long list.
const LARGE: usize = 5000;

/// Clients that ask for pages.
const PAGE_CLIENTS: usize = 20;

/// Clients that ask for long lists.
const LARGE_CLIENTS: usize = 2;

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let bootstrap = sessions::write_bootstrap(bench, ORGS + 1)?;
    let server = sessions::serve(bench, &bootstrap, &[])?;
    let (mut rows, mut logged_in) = (Vec::new(), 0);
    let page = ask(50, PAGE_CLIENTS);
    let more = bench.million.then_some(1_000_000);
    for count in [bench.sessions / 10, bench.sessions].into_iter().chain(more) {
        let login = |number: usize| (token(number % ORGS), format!("thing-{number}"));
        log_in(&server, (logged_in..count).map(login)).await?;
        logged_in = logged_in.max(count);
        sleep(bench.settling()).await;
        let what = format!(
            "session.list, a page of 50 out of {} sessions in {ORGS} organisations, CPU",
            thousands(count as f64)
        );
        let row = Row::new(what, Unit::Micros, Goal::AtMost(20.0));
        rows.push(measure(bench, &server, row, &page, &token(ORG)).await?);
    }
    // Reads and writes shared by many requests: what is left is the command.
    let row = Row::new("the same, w=20", Unit::Micros, Goal::AtMost(20.0));
    let many = Ask { window: 20, ..page };
    rows.push(measure(bench, &server, row, &many, &token(ORG)).await?);
    let large = LARGE.min(bench.sessions);
    let login = |number| (token(LARGE_ORG), format!("thing-{number}"));
    log_in(&server, (0..large).map(login)).await?;
    sleep(bench.settling()).await;
    let what = format!("session.list of {}, CPU", thousands(large as f64));
    let row = Row::new(what, Unit::Micros, Goal::AtMost(3000.0));
    let ask = ask(large, LARGE_CLIENTS);
    rows.push(measure(bench, &server, row, &ask, &token(LARGE_ORG)).await?);
    Ok(rows)
}

fn ask(limit: usize, clients: usize) -> Ask {
    let params = Some(format!(r#"{{"limit":{limit}}}"#));
    Ask { command: "session.list", params, clients, ..Ask::new("mqtt", 1) }
}

async fn measure(
    bench: &Bench,
    server: &Server,
    mut row: Row,
    ask: &Ask,
    token: &str,
) -> Result<Row> {
    let mut client = Client::connect(&server.url_of("mqtt", "lister", token)?).await?;
    let reply = client.call(ask.command, ask.params.as_deref()).await?;
    client.close().await;
    let file = bench.folder()?.join("reply.json");
    std::fs::write(&file, format!(r#"{{"cmd":{}}}"#, reply.as_json()))?;
    let floor = Server::floor(bench, "mqtt", Some(&file))?;
    for _ in 0..bench.rounds {
        row.floor.push(ask.run(bench, &floor, token).await?.cpu_us());
        row.ours.push(ask.run(bench, server, token).await?.cpu_us());
    }
    Ok(row)
}
