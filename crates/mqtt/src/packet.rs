//! The packets of MQTT, borrowed from the bytes they were read from.

use super::properties::{
    AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    WillProperties,
};
use super::reader::Reader;
use super::{QoS, Version};

/// A packet of any version and either direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packet<'a> {
    /// CONNECT (MQTT 3.1).
    Connect(Connect<'a>),
    /// CONNACK (MQTT 3.2).
    ConnAck(ConnAck<'a>),
    /// PUBLISH (MQTT 3.3).
    Publish(Publish<'a>),
    /// PUBACK (MQTT 3.4).
    PubAck(Ack),
    /// PUBREC (MQTT 3.5).
    PubRec(Ack),
    /// PUBREL (MQTT 3.6).
    PubRel(Ack),
    /// PUBCOMP (MQTT 3.7).
    PubComp(Ack),
    /// SUBSCRIBE (MQTT 3.8).
    Subscribe(Subscribe<'a>),
    /// SUBACK (MQTT 3.9).
    SubAck(Codes<'a>),
    /// UNSUBSCRIBE (MQTT 3.10).
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK (MQTT 3.11); without codes before MQTT 5.
    UnsubAck(Codes<'a>),
    /// PINGREQ (MQTT 3.12).
    PingReq,
    /// PINGRESP (MQTT 3.13).
    PingResp,
    /// DISCONNECT (MQTT 3.14).
    Disconnect(Disconnect<'a>),
    /// AUTH (MQTT 3.15).
    Auth(Auth<'a>),
}

/// CONNECT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connect<'a> {
    /// The protocol of everything that follows.
    pub version: Version,
    /// Whether it is a bridge of mosquitto's, which sets the highest bit of the protocol level.
    /// Never written.
    pub bridge: bool,
    /// Clean session, clean start in MQTT 5.
    pub clean: bool,
    /// Keep-alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client identifier; may be empty.
    pub client_id: &'a str,
    /// What to publish when the connection is lost.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Properties of MQTT 5.
    pub properties: ConnectProperties<'a>,
}

/// The will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Will<'a> {
    /// Topic name, without wildcards.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service to publish it with.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Properties of MQTT 5.
    pub properties: WillProperties<'a>,
}

/// CONNACK.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server had kept a session; always false in 3.1.
    pub session_present: bool,
    /// Return code, reason code in MQTT 5; 0 is success.
    pub code: u8,
    /// Properties of MQTT 5.
    pub properties: ConnAckProperties<'a>,
}

/// PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retained, or to be retained.
    pub retain: bool,
    /// Topic name, without wildcards; empty only with a topic alias.
    pub topic: &'a str,
    /// Packet identifier; 0 with QoS 0, and before MQTT 5 maybe with others.
    pub pkid: u16,
    /// Properties of MQTT 5.
    pub properties: PublishProperties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Packet identifier.
    pub pkid: u16,
    /// Reason code; 0 before MQTT 5.
    pub reason: u8,
}

/// SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub pkid: u16,
    /// Subscription identifier, 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// The filters, one at least.
    pub filters: Subscriptions<'a>,
}

/// One filter of a SUBSCRIBE with its options (MQTT 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The filter, not judged yet.
    pub filter: &'a str,
    /// The highest quality of service that the client wants.
    pub qos: QoS,
    /// Not what this connection published itself; false before MQTT 5.
    pub no_local: bool,
    /// Keep the publisher's retain flag; false before MQTT 5.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

/// When a SUBSCRIBE brings retained messages (MQTT 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// With every SUBSCRIBE; the only way before MQTT 5.
    #[default]
    Always = 0,
    /// If the subscription is new.
    IfNew = 1,
    /// Never.
    Never = 2,
}

/// The filters of a SUBSCRIBE that was decoded, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) version: Version,
}

impl<'a> Iterator for Subscriptions<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Subscription<'a>> {
        let mut reader = Reader::new(self.bytes);
        let subscription = super::decode::subscription(&mut reader, self.version).ok()?;
        self.bytes = reader.rest();
        Some(subscription)
    }
}

/// UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub pkid: u16,
    /// The filters, one at least.
    pub filters: Filters<'a>,
}

/// The filters of an UNSUBSCRIBE that was decoded, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Filters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut reader = Reader::new(self.0);
        let filter = reader.text().ok()?;
        self.0 = reader.rest();
        Some(filter)
    }
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes<'a> {
    /// Packet identifier.
    pub pkid: u16,
    /// A code for each filter, in order.
    pub codes: &'a [u8],
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Reason code; 0 before MQTT 5.
    pub reason: u8,
    /// Properties of MQTT 5.
    pub properties: DisconnectProperties<'a>,
}

/// AUTH.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auth<'a> {
    /// 0x00 success, 0x18 continue, 0x19 re-authenticate.
    pub reason: u8,
    /// Properties.
    pub properties: AuthProperties<'a>,
}
