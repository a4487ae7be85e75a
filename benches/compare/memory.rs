//! Ordinary MQTT: the memory of a subscription, and of a session that is kept while its client is
//! away.

use mqtt::QoS;
use tokio::time::sleep;

use super::broker::{Broker, Client};
use super::process::Server;
use super::table::{Figure, Goal, Row, Unit, thousands};
use super::{Bench, Result};

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let many = thousands(bench.connections as f64);
    let what = format!("resident memory of an MQTT subscription to an own topic, of {many}");
    let mut subscription = Row::new(what, Unit::Kilobytes, Goal::AtMost(1.5));
    let what = format!("resident memory of a kept MQTT session, client away, of {many}");
    let mut kept = Row::new(what, Unit::Kilobytes, Goal::AtMost(1.0));
    for _ in 0..bench.rounds {
        if let Some(mosquitto) = Server::mosquitto(bench).await? {
            subscription.peer.push(of_subscription(bench, &mosquitto).await?);
            let others = [Server::mosquitto(bench).await?, Server::mosquitto(bench).await?];
            if let [Some(kept_in), Some(ended_in)] = others {
                kept.peer.push(of_kept_session(bench, &kept_in, &ended_in).await?);
            }
        }
        subscription.ours.push(of_subscription(bench, &Server::ours_as_broker(bench)?).await?);
        let [kept_in, ended_in] = [Server::ours_as_broker(bench)?, Server::ours_as_broker(bench)?];
        kept.ours.push(of_kept_session(bench, &kept_in, &ended_in).await?);
    }
    Ok(vec![subscription, kept])
}

/// What connections with a subscription take more than before they had one.
async fn of_subscription(bench: &Bench, server: &Server) -> Result<Figure> {
    let (broker, count) = (server.broker()?, bench.connections);
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        clients.push(Client::connect(broker, &id(number)).await?);
    }
    sleep(bench.settling()).await;
    let before = server.resident_bytes()?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(&[topic(number)], QoS::AtMostOnce).await?;
    }
    sleep(bench.settling()).await;
    Ok(each(server.resident_bytes()?, before, count))
}

/// What clients leave behind whose sessions are kept, more than those whose sessions end: both
/// register, subscribe and go, and both servers remember that.
async fn of_kept_session(bench: &Bench, kept_in: &Server, ended_in: &Server) -> Result<Figure> {
    for number in 0..bench.connections {
        come_and_go(Client::connect_kept(kept_in.broker()?, &id(number)).await?, number).await?;
        come_and_go(Client::connect(ended_in.broker()?, &id(number)).await?, number).await?;
    }
    sleep(bench.settling()).await;
    let (kept, ended) = (kept_in.resident_bytes()?, ended_in.resident_bytes()?);
    // Whether they were kept: the first and the last.
    for number in [0, bench.connections - 1] {
        all_is_kept(kept_in.broker()?, number).await?;
    }
    Ok(each(kept, ended, bench.connections))
}

async fn come_and_go(mut client: Client, number: usize) -> Result<()> {
    client.subscribe(&[topic(number)], QoS::AtMostOnce).await?;
    client.leave().await
}

/// A client that comes back gets what it publishes, for it has subscribed before.
async fn all_is_kept(broker: Broker, number: usize) -> Result<()> {
    let mut client = Client::connect_kept(broker, &id(number)).await?;
    client.echo(&topic(number), b"still there").await?;
    client.leave().await
}

fn id(number: usize) -> String {
    format!("sensor-{number}")
}

fn topic(number: usize) -> String {
    format!("sensor/{number}/orders")
}

fn each(bytes: u64, before: u64, count: usize) -> Figure {
    ((bytes as f64 - before as f64) / 1000.0 / count as f64).into()
}
