//! Ordinary MQTT with many distinct filters: what a message costs that one of them matches, beside
//! the same with a hundredth of them. Each topic gets its first message.

use std::sync::Arc;

use mqtt::{Packet, QoS};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::broker::{Client, PATIENCE, PAYLOAD};
use super::patterns::useless;
use super::process::Server;
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// Filters of one connection when all are there.
const EACH: usize = 100;

/// Messages on their way at once.
const WINDOW: usize = 20;

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let wildcards = few(bench);
    let [all, part] = [bench.filters, few(bench)].map(|count| thousands(count as f64));
    let what = format!("CPU of an MQTT message to one of {all} distinct filters, beside {part}");
    let mut plain = Row::new(what, Unit::Times, Goal::AtMost(2.0));
    let what = format!("the same with {part} wildcard filters besides that do not match");
    let mut wild = Row::new(what, Unit::Times, Goal::AtMost(2.0));
    for _ in 0..bench.rounds {
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            plain.peer.push(measure(bench, &mosquitto, 0).await?);
        }
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            wild.peer.push(measure(bench, &mosquitto, wildcards).await?);
        }
        plain.ours.push(measure(bench, &Server::ours_as_broker(bench)?, 0).await?);
        wild.ours.push(measure(bench, &Server::ours_as_broker(bench)?, wildcards).await?);
    }
    Ok(vec![plain, wild])
}

fn few(bench: &Bench) -> usize {
    bench.filters / EACH
}

/// With many filters, and so many wildcards besides: how many times the CPU with few.
async fn measure(bench: &Bench, server: &Server, wildcards: usize) -> Result<Figure> {
    let broker = server.broker()?;
    let mut clients = Vec::with_capacity(few(bench));
    for number in 0..few(bench) {
        let mut client = Client::connect(broker, &format!("reader-{number}")).await?;
        client.subscribe(&[topic(0, number)], QoS::AtMostOnce).await?;
        clients.push(client);
    }
    let mut publisher = Client::connect(broker, "publisher").await?;
    let (base_us, mut clients) = publish(bench, server, &mut publisher, clients, 1).await?;
    for (number, client) in clients.iter_mut().enumerate() {
        let others: Vec<_> = (1..EACH).map(|turn| topic(turn, number)).collect();
        client.subscribe(&others, QoS::AtMostOnce).await?;
    }
    let mut other = Client::connect(broker, "dashboard").await?;
    other.subscribe(&useless(0..wildcards), QoS::AtMostOnce).await?;
    let (us, _) = publish(bench, server, &mut publisher, clients, EACH).await?;
    let beside = format!("{us:.1} µs; {base_us:.1} µs before");
    Ok(Figure { value: us / base_us, beside })
}

/// The topic of a client that has its turn.
fn topic(turn: usize, client: usize) -> String {
    format!("site/{client}/meter/{turn}")
}

/// Publishes as many messages as there are filters in the end, to the clients in turn, and to so many
/// topics of each; microseconds of CPU of one message, and the clients.
async fn publish(
    bench: &Bench,
    server: &Server,
    publisher: &mut Client,
    clients: Vec<Client>,
    topics_each: usize,
) -> Result<(f64, Vec<Client>)> {
    let (credit, count) = (Arc::new(Semaphore::new(WINDOW)), EACH * clients.len());
    let topics: Vec<_> = (0..count)
        .map(|number| topic(number / clients.len() % topics_each, number % clients.len()))
        .collect();
    let mut listening = JoinSet::new();
    for client in clients {
        listening.spawn(listen(client, credit.clone()));
    }
    tokio::time::sleep(bench.settling()).await;
    let (before, mut rest) = (server.cpu()?, &*topics);
    while !rest.is_empty() {
        timeout(PATIENCE, credit.acquire()).await.map_err(|_| "a message did not come")??.forget();
        let more = credit.forget_permits(WINDOW.min(rest.len()) - 1);
        let (now, later) = rest.split_at(1 + more);
        publisher.send(now, PAYLOAD).await?;
        rest = later;
    }
    let all = credit.acquire_many(WINDOW as u32);
    drop(timeout(PATIENCE, all).await.map_err(|_| "a message did not come")??);
    // A step so short that the system counted nothing took less than one of its ticks.
    let cpu_us = (server.cpu()? - before).as_secs_f64().max(0.01) * 1e6;
    let mut clients = Vec::with_capacity(listening.len());
    while let Some(client) = listening.join_next().await {
        clients.push(client??);
    }
    Ok((cpu_us / count as f64, clients))
}

/// Takes as many messages as come to each client.
async fn listen(mut client: Client, credit: Arc<Semaphore>) -> std::result::Result<Client, String> {
    let mut come = 0;
    while come < EACH {
        let exchange = client.exchange(|packet, _| {
            if matches!(packet, Packet::Publish(_)) {
                come += 1;
                credit.add_permits(1);
            }
            Ok(())
        });
        exchange.await.map_err(|error| error.to_string())?;
    }
    Ok(client)
}
