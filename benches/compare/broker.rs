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
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::Result;
use super::tls::Handshakes;

/// The version that all speak.
const VERSION: Version = Version::V311;

/// Bytes of one packet.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Time for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Filters of one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 100;

/// What the rows of ordinary MQTT publish: 60 bytes, or more where it is said.
pub(crate) const PAYLOAD: &[u8] = &[b'x'; 60];

/// Where clients connect to.
#[derive(Clone, Copy)]
pub(crate) struct Broker {
    /// The listener.
    pub address: SocketAddr,
    /// The token of its clients, whose ids are thing keys then; none needs no login.
    pub token: Option<&'static str>,
    /// How they do their handshakes, with TLS.
    pub tls: Option<&'static Handshakes>,
}

/// What each client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    /// It publishes on this and its number.
    pub publish: &'static str,
    /// It subscribes to this and its number.
    pub subscribe: &'static str,
    /// What it publishes.
    pub payload: &'static [u8],
    /// Messages on their way at once.
    pub window: usize,
    /// How it publishes: 0 or 1.
    pub publish_qos: QoS,
    /// How it subscribes: 0 or 1.
    pub subscribe_qos: QoS,
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
    pub(crate) async fn connect(broker: Broker, count: usize, talk: &Talk) -> Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let filter = format!("{}{number}", talk.subscribe);
            let mut client = Client::connect(broker, &format!("talker-{number}")).await?;
            client.subscribe(&[filter], talk.subscribe_qos).await?;
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
            let (talk, latency) = (*talk, latency.clone());
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
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Connects with a clean session.
    pub(crate) async fn connect(broker: Broker, client_id: &str) -> Result<Self> {
        Self::open(broker, client_id, true).await
    }

    /// Connects with a session that is kept.
    pub(crate) async fn connect_kept(broker: Broker, client_id: &str) -> Result<Self> {
        Self::open(broker, client_id, false).await
    }

    async fn open(broker: Broker, client_id: &str, clean: bool) -> Result<Self> {
        let stream = match broker.tls {
            Some(handshakes) => Either::Right(Box::new(handshakes.connect(broker.address).await?)),
            None => {
                let stream = TcpStream::connect(broker.address).await?;
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
        };
        let mut client = Self { stream, input: Vec::new(), output: Vec::new() };
        let packet = Connect {
            version: VERSION,
            bridge: false,
            clean,
            keep_alive: 0,
            client_id,
            will: None,
            username: broker.token.map(|_| client_id),
            password: broker.token.map(str::as_bytes),
            properties: ConnectProperties::default(),
        };
        encode::connect(&mut client.output, &packet)?;
        client.wait_for(|packet| matches!(packet, Packet::ConnAck(ack) if ack.code == 0)).await?;
        Ok(client)
    }

    /// Subscribes; a filter that is refused is an error.
    pub(crate) async fn subscribe(&mut self, filters: &[String], qos: QoS) -> Result<()> {
        for filters in filters.chunks(FILTERS_AT_ONCE) {
            let subscriptions: Vec<_> = filters
                .iter()
                .map(|filter| Subscription {
                    filter,
                    qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Always,
                })
                .collect();
            encode::subscribe(&mut self.output, VERSION, 1, &subscriptions, None)?;
            let mut refused = 0;
            self.wait_for(|packet| {
                let Packet::SubAck(ack) = packet else { return false };
                refused = ack.codes.iter().filter(|code| **code >= 0x80).count();
                true
            })
            .await?;
            if refused > 0 {
                let of = filters.len();
                return Err(
                    format!("of {of} filters from {} {refused} are refused", filters[0]).into()
                );
            }
        }
        Ok(())
    }

    /// Ends subscriptions.
    pub(crate) async fn unsubscribe(&mut self, filters: &[String]) -> Result<()> {
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        encode::unsubscribe(&mut self.output, VERSION, 1, &filters)?;
        self.wait_for(|packet| matches!(packet, Packet::UnsubAck(_))).await
    }

    /// Publishes so many messages with QoS 0, in one write.
    pub(crate) async fn send(&mut self, topics: &[String], payload: &[u8]) -> Result<()> {
        for topic in topics {
            publish(&mut self.output, None, &[topic.as_bytes()], payload)?;
        }
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Publishes a message to which it has subscribed, and waits until it is back.
    pub(crate) async fn echo(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        publish(&mut self.output, None, &[topic.as_bytes()], payload)?;
        self.wait_for(|packet| matches!(packet, Packet::Publish(_))).await
    }

    /// Disconnects, and waits until the broker has closed the connection.
    pub(crate) async fn leave(mut self) -> Result<()> {
        encode::disconnect(&mut self.output, VERSION, 0);
        self.stream.write_all(&self.output).await?;
        // Over TLS, one that closes without a word of it is an error.
        while let Ok(1..) = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await? {
            self.input.clear();
        }
        Ok(())
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
                let pkid = (talk.publish_qos == QoS::AtLeastOnce).then_some(pkid);
                publish(&mut self.output, pkid, &[topic.as_bytes()], talk.payload)?;
                sent.push_back(now);
            }
            if sent.is_empty() {
                return Ok(answered);
            }
            let mut come = 0;
            let exchange = self.exchange(|packet, output| {
                if let Packet::Publish(message) = packet {
                    come += 1;
                    if message.qos == QoS::AtLeastOnce {
                        encode::puback(output, VERSION, message.pkid, 0);
                    }
                }
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

    async fn wait_for(&mut self, mut wanted: impl FnMut(&Packet<'_>) -> bool) -> Result<()> {
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
