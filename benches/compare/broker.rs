//! Clients of an ordinary broker: they publish, and wait for what they have subscribed to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use client::fleet::Histogram;
use mqtt::encode::{self, PublishHead};
use mqtt::packet::{Connect, RetainHandling, Subscription};
use mqtt::{ConnectProperties, Packet, PublishProperties, QoS, Version, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Result;

/// The version that all speak.
const VERSION: Version = Version::V311;

/// Bytes of one packet.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What each client does.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    /// It publishes on this and its number.
    pub publish: &'static str,
    /// It subscribes to this and its number.
    pub subscribe: &'static str,
    /// What it publishes.
    pub payload: &'static str,
    /// Messages on their way at once.
    pub window: usize,
    /// Publishes with QoS 1; subscriptions are of QoS 0.
    pub qos1: bool,
}

/// What has come of it.
pub(crate) struct Outcome {
    /// Messages that came back.
    pub answered: u64,
    /// Their time.
    pub latency: Arc<Histogram>,
}

/// Clients that are connected and have subscribed.
pub(crate) struct Talkers(Vec<Client>);

impl Talkers {
    /// Connects so many clients.
    pub(crate) async fn connect(broker: SocketAddr, count: usize, talk: &Talk) -> Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let filter = format!("{}{number}", talk.subscribe);
            let mut client = Client::connect(broker, &format!("talker-{number}")).await?;
            client.subscribe(&filter).await?;
            clients.push(client);
        }
        Ok(Self(clients))
    }

    /// Lets all of them talk for so long.
    pub(crate) async fn run(self, talk: &Talk, duration: Duration) -> Result<Outcome> {
        let latency = Arc::new(Histogram::default());
        let end = Instant::now() + duration;
        let mut running = JoinSet::new();
        for (number, client) in self.0.into_iter().enumerate() {
            let (talk, latency) = (talk.clone(), latency.clone());
            running.spawn(async move {
                let topic = format!("{}{number}", talk.publish);
                client.talk(&topic, &talk, end, &latency).await.map_err(|error| error.to_string())
            });
        }
        let mut answered = 0;
        while let Some(done) = running.join_next().await {
            answered += done??;
        }
        Ok(Outcome { answered, latency })
    }
}

/// One connection to a broker.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Connects with a clean session and without a login.
    pub(crate) async fn connect(broker: SocketAddr, client_id: &str) -> Result<Self> {
        let stream = TcpStream::connect(broker).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, input: Vec::new(), output: Vec::new() };
        let packet = Connect {
            version: VERSION,
            bridge: false,
            clean: true,
            keep_alive: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        encode::connect(&mut client.output, &packet)?;
        client.wait_for(|packet| matches!(packet, Packet::ConnAck(ack) if ack.code == 0)).await?;
        Ok(client)
    }

    /// Subscribes with QoS 0.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let subscription = Subscription {
            filter,
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        encode::subscribe(&mut self.output, VERSION, 1, &[subscription], None)?;
        self.wait_for(|packet| matches!(packet, Packet::SubAck(_))).await
    }

    /// Publishes to its own topic until the end, and waits for what is on its way.
    async fn talk(
        mut self,
        topic: &str,
        talk: &Talk,
        end: Instant,
        latency: &Histogram,
    ) -> Result<u64> {
        let (mut sent, mut answered, mut pkid) = (VecDeque::new(), 0, 0u16);
        let mut now = Instant::now();
        loop {
            while now < end && sent.len() < talk.window {
                pkid = pkid.checked_add(1).unwrap_or(1);
                let pkid = talk.qos1.then_some(pkid);
                publish(&mut self.output, pkid, &[topic.as_bytes()], talk.payload.as_bytes())?;
                sent.push_back(now);
            }
            if sent.is_empty() {
                return Ok(answered);
            }
            let mut come = 0;
            let exchange = self.exchange(|packet, _| {
                come += usize::from(matches!(packet, Packet::Publish(_)));
                Ok(())
            });
            timeout(PATIENCE, exchange).await??;
            now = Instant::now();
            for begin in sent.drain(..come.min(sent.len())) {
                latency.record(now - begin);
                answered += 1;
            }
        }
    }

    /// Writes what is to be written, waits until something comes, and hands over each packet with
    /// the place for answers.
    pub(crate) async fn exchange(
        &mut self,
        mut take: impl FnMut(&Packet<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        self.input.reserve(16 * 1024);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err("the broker closed the connection".into());
        }
        let mut used = 0;
        while let Some((packet, length)) = decode(&self.input[used..], VERSION, PACKET_BYTES_MAX)? {
            take(&packet, &mut self.output)?;
            used += length;
        }
        self.input.drain(..used);
        Ok(())
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Packet<'_>) -> bool) -> Result<()> {
        let mut found = false;
        while !found {
            let exchange = self.exchange(|packet, _| {
                found |= wanted(packet);
                Ok(())
            });
            timeout(PATIENCE, exchange).await??;
        }
        Ok(())
    }
}

/// Appends a PUBLISH, with QoS 1 if it has a packet id; the topic may be in parts.
pub(crate) fn publish(
    output: &mut Vec<u8>,
    pkid: Option<u16>,
    topic: &[&[u8]],
    payload: &[u8],
) -> Result<()> {
    let head = PublishHead {
        dup: false,
        qos: if pkid.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: false,
        pkid: pkid.unwrap_or_default(),
        topic,
        properties: &PublishProperties::default(),
        subscription_ids: &[],
    };
    Ok(encode::publish(output, VERSION, &head, payload)?)
}
