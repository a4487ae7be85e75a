//! One organisation subscribes to patterns that match nothing: what an echo of ordinary MQTT in
//! another one takes meanwhile, beside what it took just before. mosquitto has no organisations: all
//! are clients of one broker.

use std::ops::Range;

use mqtt::QoS;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::broker::{Broker, Client};
use super::pings::Pings;
use super::process::Server;
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// The token of the other organisation, in the demo.
const OTHER_TOKEN: &str = "demo-token-yorkorg";

/// Filters of each client of the other organisation; the server lets one have some more.
const EACH: usize = 900;

/// Clients that subscribe and unsubscribe again and again.
const FICKLE: usize = 3;

/// Filters of each of their packets.
const FICKLE_FILTERS: usize = 100;

/// Where the numbers of the next one's filters begin; none gets so far.
const FICKLE_APART: usize = 1_000_000_000;

/// Filters that match no topic here, and that no level but the third tells apart.
pub(crate) fn useless(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("+/+/x{number}/#")).collect()
}

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let [few, many] = counts(bench).map(|count| thousands(count as f64));
    let times = |what: String| Row::new(what, Unit::Times, Goal::AtMost(2.0));
    let what = "p99 of an MQTT echo while another organisation subscribes to";
    let mut rows = [
        times(format!("{what} {few} useless patterns, beside just before")),
        times(format!("the same, {many} patterns")),
        times(format!("the same, {FICKLE} clients subscribe and unsubscribe besides")),
    ];
    for _ in 0..bench.rounds {
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            let figures = measure(bench, mosquitto.broker()?).await?;
            rows.iter_mut().zip(figures).for_each(|(row, figure)| row.peer.push(figure));
        }
        let ours = Server::ours_as_broker(bench)?;
        let figures = measure(bench, ours.broker()?).await?;
        rows.iter_mut().zip(figures).for_each(|(row, figure)| row.ours.push(figure));
    }
    Ok(rows.into())
}

/// Patterns of the first row, and of the others.
fn counts(bench: &Bench) -> [usize; 2] {
    let many = bench.filters / 10;
    [EACH.min(many / 2), many]
}

async fn measure(bench: &Bench, broker: Broker) -> Result<[Figure; 3]> {
    let other = Broker { token: broker.token.map(|_| OTHER_TOKEN), ..broker };
    let [few, many] = counts(bench);
    let echoes = Pings::start_echoes(broker).await?;
    // The first ones open what is opened once.
    sleep(bench.settling()).await;
    let quiet = Instant::now();
    sleep(bench.step).await;
    let begin_few = Instant::now();
    let mut clients = vec![subscribe(other, 0..few).await?];
    sleep(bench.step).await;
    let begin_many = Instant::now();
    for from in (few..many).step_by(EACH) {
        clients.push(subscribe(other, from..many.min(from + EACH)).await?);
    }
    sleep(bench.step).await;
    let begin_fickle = Instant::now();
    let mut fickle = JoinSet::new();
    for number in 0..FICKLE {
        let client = Client::connect(other, &format!("fickle-{number}")).await?;
        fickle.spawn(change_again_and_again(client, 1 + number));
    }
    sleep(bench.step).await;
    let end = Instant::now();
    if let Some(failed) = fickle.try_join_next() {
        failed??;
    }
    drop(fickle);
    let echoed = echoes.stop().await?;
    let p99_ms = |from, until| echoed.p99_ms(from, until).ok_or("no echo in the span");
    let quiet_ms = p99_ms(quiet, begin_few)?;
    let times = |from, until| {
        let ms = p99_ms(from, until)?;
        let beside = format!("{ms:.2} ms; {quiet_ms:.2} ms before");
        Ok(Figure { value: ms / quiet_ms, beside })
    };
    let spans = [(begin_few, begin_many), (begin_many, begin_fickle), (begin_fickle, end)];
    let figures: Result<Vec<_>> =
        spans.map(|(from, until)| times(from, until)).into_iter().collect();
    figures?.try_into().map_err(|_| "there are three spans".into())
}

async fn subscribe(broker: Broker, numbers: Range<usize>) -> Result<Client> {
    let mut client = Client::connect(broker, &format!("collector-{}", numbers.start)).await?;
    client.subscribe(&useless(numbers), QoS::AtMostOnce).await?;
    Ok(client)
}

/// Other patterns each time, until this is dropped.
async fn change_again_and_again(
    mut client: Client,
    number: usize,
) -> std::result::Result<(), String> {
    // No client's patterns are another's.
    for from in (number * FICKLE_APART..).step_by(FICKLE_FILTERS) {
        let filters = useless(from..from + FICKLE_FILTERS);
        let subscribed = client.subscribe(&filters, QoS::AtMostOnce).await;
        subscribed.map_err(|error| error.to_string())?;
        client.unsubscribe(&filters).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
