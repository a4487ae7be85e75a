//! Ordinary MQTT with QoS 0: one client publishes to many, and many publish to one. What counts is
//! each delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mqtt::{Packet, QoS};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::broker::{Client, PATIENCE, PAYLOAD};
use super::process::Server;
use super::round_trips::a_core;
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// Who publishes to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fan {
    Out,
    In,
}

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let many = thousands(bench.fan as f64);
    let row = |what: &str| Row::new(what, Unit::Count, Goal::TimesPeer(2.0));
    let mut rows = [
        (row(&format!("MQTT fan-out, 1 → {many}, QoS 0, w=1, deliveries a core")), Fan::Out, 1),
        (row("the same, w=20"), Fan::Out, 20),
        (row(&format!("MQTT fan-in, {many} → 1, QoS 0, w=1, deliveries a core")), Fan::In, 1),
        (row("the same, w=4"), Fan::In, 4),
    ];
    let mosquitto = Server::mosquitto(bench).await?;
    let ours = Server::ours_as_broker(bench)?;
    for _ in 0..bench.rounds {
        for (row, fan, window) in &mut rows {
            if let Some(mosquitto) = &mosquitto {
                row.peer.push(measure(bench, mosquitto, *fan, *window).await?);
            }
            row.ours.push(measure(bench, &ours, *fan, *window).await?);
        }
    }
    Ok(rows.into_iter().map(|(row, ..)| row).collect())
}

async fn measure(bench: &Bench, server: &Server, fan: Fan, window: u32) -> Result<Figure> {
    let broker = server.broker()?;
    let (publishers, subscribers, filter) = match fan {
        Fan::Out => (1, bench.fan, "fan/0"),
        Fan::In => (bench.fan, 1, "fan/+"),
    };
    let flow = Arc::new(Flow::new(publishers, subscribers, window));
    let mut listening = JoinSet::new();
    for number in 0..subscribers {
        let mut client = Client::connect(broker, &format!("subscriber-{number}")).await?;
        client.subscribe(&[filter.to_owned()], QoS::AtMostOnce).await?;
        listening.spawn(listen(client, flow.clone()));
    }
    let mut clients = Vec::with_capacity(publishers);
    for number in 0..publishers {
        clients.push(Client::connect(broker, &format!("publisher-{number}")).await?);
    }
    let before = server.cpu()?;
    let (mut publishing, end) = (JoinSet::new(), Instant::now() + bench.step);
    for (number, client) in clients.into_iter().enumerate() {
        publishing.spawn(publish(client, number, flow.clone(), end));
    }
    while let Some(done) = publishing.join_next().await {
        done??;
    }
    let cpu = server.cpu()? - before;
    // They listen until this is dropped.
    drop(listening);
    Ok(a_core(flow.delivered.load(Relaxed), cpu))
}

/// What has come, and what may be sent: a publisher has no more messages on their way than its
/// window.
struct Flow {
    /// For each publisher, how many it may send.
    credit: Vec<Semaphore>,
    window: u32,
    /// A message has come when so many have it.
    subscribers: u64,
    delivered: AtomicU64,
}

impl Flow {
    fn new(publishers: usize, subscribers: usize, window: u32) -> Self {
        let credit = (0..publishers).map(|_| Semaphore::new(window as usize)).collect();
        Self { credit, window, subscribers: subscribers as u64, delivered: AtomicU64::new(0) }
    }

    /// A message of this publisher has come to one of the subscribers.
    fn deliver(&self, publisher: usize) -> Result<()> {
        let delivered = self.delivered.fetch_add(1, Relaxed) + 1;
        if delivered.is_multiple_of(self.subscribers) {
            let credit = self.credit.get(publisher).ok_or("a message of nobody has come")?;
            credit.add_permits(1);
        }
        Ok(())
    }
}

async fn listen(mut client: Client, flow: Arc<Flow>) -> std::result::Result<(), String> {
    loop {
        let exchange = client.exchange(|packet, _| match packet {
            Packet::Publish(message) => {
                flow.deliver(message.topic.trim_start_matches("fan/").parse()?)
            }
            _ => Ok(()),
        });
        exchange.await.map_err(|error| error.to_string())?;
    }
}

/// Publishes to its own topic until the end, and waits for what is on its way.
async fn publish(
    mut client: Client,
    number: usize,
    flow: Arc<Flow>,
    end: Instant,
) -> std::result::Result<(), String> {
    let topics = vec![format!("fan/{number}"); flow.window as usize];
    let (credit, lost) = (&flow.credit[number], |_| "a message did not come".to_owned());
    while Instant::now() < end {
        let permit = timeout(PATIENCE, credit.acquire()).await.map_err(lost)?;
        permit.map_err(|error| error.to_string())?.forget();
        let more = credit.forget_permits(topics.len() - 1);
        client.send(&topics[..=more], PAYLOAD).await.map_err(|error| error.to_string())?;
    }
    let all = timeout(PATIENCE, credit.acquire_many(flow.window)).await.map_err(lost)?;
    all.map(drop).map_err(|error| error.to_string())
}
