//! Recordings over MQTT.

use std::num::NonZeroU16;

use mqtt::packet::Connect;
use mqtt::{ConnectProperties, Frame, Packet, Version, encode, reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::recording::Recorded;
use super::{Answer, ClientError, Target, Url};
use crate::dial::Stream;
use crate::{Login, REPLY_BYTES_MAX};

/// Seconds of silence that a connection bears whose CONNECT is not in the recording.
const KEEP_ALIVE_S: u16 = 3600;

pub(super) struct Wire {
    stream: Stream,
    version: Version,
    input: Vec<u8>,
    /// Topic aliases that the client has set on this connection.
    aliases: Vec<NonZeroU16>,
}

impl Wire {
    /// Connects; logs in if the recording begins behind the login.
    pub(super) async fn open(
        target: &Target,
        url: &Url,
        first: &Recorded,
    ) -> Result<Self, ClientError> {
        let stream = target.dial(None).await?;
        let version = first.version.unwrap_or(url.version);
        let mut wire = Self { stream, version, input: Vec::new(), aliases: Vec::new() };
        let connect = Frame::find(&first.bytes, version, usize::MAX).ok().flatten();
        let connect = connect.and_then(|frame| frame.packet(version).ok());
        if !matches!(connect, Some(Packet::Connect(_))) {
            let client_id = url.client_id();
            let connect = Connect {
                version,
                bridge: false,
                clean: true,
                keep_alive: KEEP_ALIVE_S,
                client_id: &client_id,
                will: None,
                username: None,
                password: None,
                properties: ConnectProperties::default(),
            };
            wire.write(&with_login(&connect, url)?).await?;
            wire.connack().await?;
        }
        Ok(wire)
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).await.map_err(ClientError::Broken)?;
        self.stream.flush().await.map_err(ClientError::Broken)
    }

    async fn connack(&mut self) -> Result<(), ClientError> {
        let frame = self.frame().await?;
        match mqtt::decode(&frame, self.version, usize::MAX)? {
            Some((Packet::ConnAck(connack), _)) if connack.code == reason::SUCCESS => Ok(()),
            Some((Packet::ConnAck(connack), _)) => {
                Err(ClientError::Refused(format!("code {}", connack.code)))
            }
            _ => Err(ClientError::NoConnAck),
        }
    }

    pub(super) async fn send(
        &mut self,
        url: &Url,
        frame: &Recorded,
    ) -> Result<Result<String, String>, ClientError> {
        let version = frame.version.unwrap_or(self.version);
        let Ok(Some((packet, _))) = mqtt::decode(&frame.bytes, version, usize::MAX) else {
            // What broke the protocol then is to do so again.
            self.write(&frame.bytes).await?;
            return Ok(Ok("malformed".to_owned()));
        };
        match &packet {
            Packet::Connect(connect) => {
                self.version = connect.version;
                let bytes = with_login(connect, url)?;
                self.write(&bytes).await?;
                return Ok(Ok(format!("CONNECT {}", connect.client_id)));
            }
            Packet::Publish(publish) => {
                let alias = publish.properties.topic_alias;
                if let Some(alias) = alias.filter(|_| !publish.topic.is_empty()) {
                    self.aliases.push(alias);
                }
                if publish.topic.is_empty() && alias.is_none_or(|a| !self.aliases.contains(&a)) {
                    let why = "PUBLISH with a topic alias from before the recording";
                    return Ok(Err(why.to_owned()));
                }
            }
            _ => {}
        }
        self.write(&frame.bytes).await?;
        Ok(Ok(text_of(&packet)))
    }

    pub(super) async fn receive(&mut self) -> Result<Answer, ClientError> {
        let frame = self.frame().await?;
        read(&frame, self.version).ok_or(ClientError::Closed)
    }

    /// The next frame. Cancel safe.
    async fn frame(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            let found = Frame::find(&self.input, self.version, REPLY_BYTES_MAX)?;
            if let Some(length) = found.map(|frame| frame.length) {
                return Ok(self.input.drain(..length).collect());
            }
            let count = self.stream.read_buf(&mut self.input).await.map_err(ClientError::Broken)?;
            if count == 0 {
                return Err(ClientError::Closed);
            }
        }
    }
}

/// A CONNECT with the URL's login in place of the recorded one.
fn with_login(connect: &Connect<'_>, url: &Url) -> Result<Vec<u8>, ClientError> {
    let mut connect = *connect;
    match &url.login {
        Login::None => {}
        Login::User { email: name, password: secret }
        | Login::Thing { key: name, token: secret } => {
            connect.username = Some(name);
            connect.password = Some(secret.as_bytes());
        }
    }
    if let Some(id) = &url.client_id {
        connect.client_id = id;
    }
    let mut out = Vec::new();
    encode::connect(&mut out, &connect)?;
    Ok(out)
}

/// An answer as it is compared.
pub(super) fn read(frame: &[u8], version: Version) -> Option<Answer> {
    let (packet, _) = mqtt::decode(frame, version, usize::MAX).ok().flatten()?;
    let text = text_of(&packet);
    let kind = match &packet {
        Packet::Publish(publish) => format!("PUBLISH {}", publish.topic),
        Packet::ConnAck(_) => "CONNACK".to_owned(),
        Packet::SubAck(codes) => format!("SUBACK {}", codes.pkid),
        Packet::UnsubAck(codes) => format!("UNSUBACK {}", codes.pkid),
        Packet::Disconnect(_) => "DISCONNECT".to_owned(),
        Packet::PubAck(ack) => format!("PUBACK {}", ack.pkid),
        Packet::PubRec(ack) => format!("PUBREC {}", ack.pkid),
        Packet::PubRel(ack) => format!("PUBREL {}", ack.pkid),
        Packet::PubComp(ack) => format!("PUBCOMP {}", ack.pkid),
        _ => text.clone(),
    };
    Some(Answer { kind, text })
}

/// A packet for people: what of it can be expected to be the same again.
fn text_of(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(publish.payload);
            format!("PUBLISH {} {payload}", publish.topic)
        }
        Packet::ConnAck(connack) => {
            format!("CONNACK code {} session present {}", connack.code, connack.session_present)
        }
        Packet::PubAck(ack) => format!("PUBACK {} code {}", ack.pkid, ack.reason),
        Packet::PubRec(ack) => format!("PUBREC {} code {}", ack.pkid, ack.reason),
        Packet::PubRel(ack) => format!("PUBREL {} code {}", ack.pkid, ack.reason),
        Packet::PubComp(ack) => format!("PUBCOMP {} code {}", ack.pkid, ack.reason),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.map(|one| one.filter).collect();
            format!("SUBSCRIBE {} {}", subscribe.pkid, filters.join(" "))
        }
        Packet::SubAck(codes) => format!("SUBACK {} codes {:?}", codes.pkid, codes.codes),
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<_> = unsubscribe.filters.collect();
            format!("UNSUBSCRIBE {} {}", unsubscribe.pkid, filters.join(" "))
        }
        Packet::UnsubAck(codes) => format!("UNSUBACK {} codes {:?}", codes.pkid, codes.codes),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT code {}", disconnect.reason),
        Packet::Auth(auth) => format!("AUTH code {}", auth.reason),
        Packet::Connect(connect) => format!("CONNECT {}", connect.client_id),
    }
}
