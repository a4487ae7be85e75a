//! Devices on top of rumqttc, an MQTT client that was not made for this server: so its habits on
//! the wire are tested, too.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AsyncClient, ConnectionError, Event, MqttOptions, Outgoing, Packet, QoS, v5};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::plan::WINDOW_MAX;
use crate::{ClientError, Login, Options, Url, Version, reply_id};

/// Bytes of one packet; rumqttc's own bound of 10 kB is too low for a listing.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers that may wait for the device's task.
const ANSWERS_MAX: usize = 1000;

/// A logged-in connection of rumqttc.
pub(super) struct Ordinary {
    publisher: Publisher,
    answers: mpsc::Receiver<Answer>,
    _pump: AbortOnDropHandle<()>,
    qos1: bool,
}

enum Publisher {
    V4(AsyncClient),
    V5(v5::AsyncClient),
}

enum Answer {
    LoggedIn,
    Reply(u32, Bytes),
    Refused(String),
    Failed(String),
}

impl Ordinary {
    /// Connects and logs in with MQTT 3.1.1 or 5.
    pub(super) async fn open(url: &Url, options: &Options) -> Result<Self, ClientError> {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let (publisher, pump) = match url.version {
            Version::V5 => open_v5(url, options, sender),
            Version::V31 | Version::V311 => open_v4(url, options, sender),
        };
        let mut ordinary = Self { publisher, answers, _pump: pump, qos1: options.qos1 };
        match ordinary.answers.recv().await {
            Some(Answer::LoggedIn) => Ok(ordinary),
            Some(Answer::Refused(reason)) => Err(ClientError::Refused(reason)),
            Some(Answer::Failed(reason)) => Err(ClientError::Dial {
                step: "connect (rumqttc)",
                authority: url.authority(),
                source: io::Error::other(reason),
            }),
            Some(Answer::Reply(..)) | None => Err(ClientError::Closed),
        }
    }

    /// Hands a request to rumqttc.
    pub(super) async fn send(&self, id: u32, request: &str) -> Result<(), ClientError> {
        let topic = format!("api/{id}");
        let sent = match &self.publisher {
            Publisher::V4(client) => {
                let qos = if self.qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                client.publish(topic, qos, false, request).await.is_ok()
            }
            Publisher::V5(client) => {
                use v5::mqttbytes::QoS;
                let qos = if self.qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                client.publish(topic, qos, false, request.to_owned()).await.is_ok()
            }
        };
        if sent { Ok(()) } else { Err(ClientError::Closed) }
    }

    /// The next answer with its request's id. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<(u32, Bytes), ClientError> {
        match self.answers.recv().await {
            Some(Answer::Reply(id, text)) => Ok((id, text)),
            Some(Answer::Failed(reason)) => Err(ClientError::Broken(io::Error::other(reason))),
            Some(Answer::LoggedIn | Answer::Refused(_)) | None => Err(ClientError::Closed),
        }
    }

    /// Says DISCONNECT and waits until the connection has ended.
    pub(super) async fn close(mut self) {
        let asked = match &self.publisher {
            Publisher::V4(client) => client.disconnect().await.is_ok(),
            Publisher::V5(client) => client.disconnect().await.is_ok(),
        };
        while asked && self.receive().await.is_ok() {}
    }
}

fn open_v4(
    url: &Url,
    options: &Options,
    sender: mpsc::Sender<Answer>,
) -> (Publisher, AbortOnDropHandle<()>) {
    let mut mqtt = MqttOptions::new(url.client_id(), url.host.clone(), url.port);
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive_s.into()));
    mqtt.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    if let Some((user, password)) = credentials(url) {
        mqtt.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(mqtt, WINDOW_MAX);
    events.network_options.set_tcp_nodelay(true);
    let pump = tokio::spawn(async move {
        loop {
            let answer = match events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let Some(id) = reply_id(&publish.topic) else {
                        continue;
                    };
                    Answer::Reply(id, publish.payload)
                }
                Ok(Event::Incoming(Packet::ConnAck(_))) => Answer::LoggedIn,
                // Said goodbye: the server may take its time to close.
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(_) => continue,
                Err(ConnectionError::ConnectionRefused(code)) => {
                    Answer::Refused(format!("{code:?}"))
                }
                Err(error) => Answer::Failed(error.to_string()),
            };
            // Polling again after a failure would connect again: the device counts as dropped.
            let failed = matches!(answer, Answer::Failed(_) | Answer::Refused(_));
            if sender.send(answer).await.is_err() || failed {
                return;
            }
        }
    });
    (Publisher::V4(client), AbortOnDropHandle::new(pump))
}

fn open_v5(
    url: &Url,
    options: &Options,
    sender: mpsc::Sender<Answer>,
) -> (Publisher, AbortOnDropHandle<()>) {
    use v5::mqttbytes::v5::Packet;
    let mut mqtt = v5::MqttOptions::new(url.client_id(), url.host.clone(), url.port);
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive_s.into()));
    mqtt.set_max_packet_size(u32::try_from(PACKET_BYTES_MAX).ok());
    if let Some((user, password)) = credentials(url) {
        mqtt.set_credentials(user, password);
    }
    let mut network = mqtt.network_options();
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    let (client, mut events) = v5::AsyncClient::new(mqtt, WINDOW_MAX);
    let pump = tokio::spawn(async move {
        loop {
            let answer = match events.poll().await {
                Ok(v5::Event::Incoming(Packet::Publish(publish))) => {
                    let topic = str::from_utf8(&publish.topic);
                    let Some(id) = topic.ok().and_then(reply_id) else {
                        continue;
                    };
                    Answer::Reply(id, publish.payload)
                }
                Ok(v5::Event::Incoming(Packet::ConnAck(_))) => Answer::LoggedIn,
                Ok(v5::Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(_) => continue,
                Err(v5::ConnectionError::ConnectionRefused(code)) => {
                    Answer::Refused(format!("{code:?}"))
                }
                Err(error) => Answer::Failed(error.to_string()),
            };
            let failed = matches!(answer, Answer::Failed(_) | Answer::Refused(_));
            if sender.send(answer).await.is_err() || failed {
                return;
            }
        }
    });
    (Publisher::V5(client), AbortOnDropHandle::new(pump))
}

fn credentials(url: &Url) -> Option<(String, String)> {
    match url.login.clone() {
        Login::None => None,
        Login::User { email, password } => Some((email, password)),
        Login::Thing { key, token } => Some((key, token)),
    }
}
