//! Bytes to packets.

use base::topic;

use super::packet::{
    Ack, Auth, Codes, ConnAck, Connect, Disconnect, Filters, Packet, Publish, RetainHandling,
    Subscribe, Subscription, Subscriptions, Unsubscribe, Will,
};
use super::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};
use super::reader::{Reader, variable};
use super::{Malformed, QoS, Version, kind};

/// Decodes the packet at the beginning of `bytes`, and says how many bytes it took; `None` if
/// there are too few yet.
///
/// CONNECT carries its own version; until it came, any `version` does.
///
/// # Errors
/// Bytes that are not MQTT, or a frame of more than `max` bytes, as soon as they show.
#[inline]
pub fn decode(
    bytes: &[u8],
    version: Version,
    max: usize,
) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some(frame) = Frame::find(bytes, version, max)? else {
        return Ok(None);
    };
    Ok(Some((frame.packet(version)?, frame.length)))
}

/// The bytes of a whole packet, of which only the fixed header was looked at. What comes most,
/// PUBLISH, need not go through [`Packet`], which has room for the largest.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    first: u8,
    body: &'a [u8],
    /// How many bytes it takes.
    pub length: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`; `None` if there are too few yet.
    ///
    /// # Errors
    /// As [`decode`].
    #[inline]
    pub fn find(bytes: &'a [u8], version: Version, max: usize) -> Result<Option<Self>, Malformed> {
        let Some(header) = Header::read(bytes, version, max)? else {
            return Ok(None);
        };
        let body = bytes.get(header.size..header.length);
        Ok(body.map(|body| Self { first: header.first, body, length: header.length }))
    }

    /// Decodes a PUBLISH; `None` for all other packets.
    ///
    /// # Errors
    /// As [`decode`].
    #[inline]
    pub fn publish(&self, version: Version) -> Result<Option<Publish<'a>>, Malformed> {
        if self.first & 0xf0 != kind::PUBLISH {
            return Ok(None);
        }
        publish(self.first, Reader::new(self.body), version).map(Some)
    }

    /// Decodes any packet.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn packet(&self, version: Version) -> Result<Packet<'a>, Malformed> {
        body_of(self.first, self.body, version)
    }
}

/// The fixed header (MQTT 2.1.1).
struct Header {
    first: u8,
    /// Bytes of the header.
    size: usize,
    /// Bytes of the header and the packet.
    length: usize,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8], version: Version, max: usize) -> Result<Option<Self>, Malformed> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        check_first(first, version)?;
        let Some((remaining, size)) = variable(rest)? else {
            return Ok(None);
        };
        if version == Version::V5 && size > 1 && remaining >> (7 * (size - 1)) == 0 {
            return Err(Malformed::VariableInteger);
        }
        let length = 1 + size + remaining as usize;
        if length > max {
            return Err(Malformed::TooLarge { length, max });
        }
        Ok(Some(Self { first, size: 1 + size, length }))
    }
}

/// Judges type and flags of the fixed header (MQTT 2.1.2 and 2.1.3). MQTT 3.1 gave DUP and QoS bits
/// to more packets than PUBLISH (3.1: 2.1), so there they are not looked at.
#[inline]
fn check_first(first: u8, version: Version) -> Result<(), Malformed> {
    let flags = first & 0x0f;
    let expected = match first & 0xf0 {
        // Those of CONNECT are judged with the version that it names itself.
        kind::PUBLISH | kind::CONNECT => return Ok(()),
        0x00 => return Err(Malformed::ReservedType(0)),
        kind::AUTH if version != Version::V5 => return Err(Malformed::ReservedType(15)),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0x02,
        _ => 0x00,
    };
    if flags == expected || version == Version::V31 {
        Ok(())
    } else {
        Err(Malformed::ReservedFlags(first))
    }
}

fn body_of(first: u8, body: &[u8], version: Version) -> Result<Packet<'_>, Malformed> {
    let reader = Reader::new(body);
    Ok(match first & 0xf0 {
        kind::PUBLISH => Packet::Publish(publish(first, reader, version)?),
        kind::CONNECT => Packet::Connect(connect(first, reader)?),
        kind::CONNACK => Packet::ConnAck(connack(reader, version)?),
        kind::PUBACK => Packet::PubAck(ack(reader, version, PUBLISH_REASONS)?),
        kind::PUBREC => Packet::PubRec(ack(reader, version, PUBLISH_REASONS)?),
        kind::PUBREL => Packet::PubRel(ack(reader, version, RELEASE_REASONS)?),
        kind::PUBCOMP => Packet::PubComp(ack(reader, version, RELEASE_REASONS)?),
        kind::SUBSCRIBE => Packet::Subscribe(subscribe(reader, version)?),
        kind::SUBACK => Packet::SubAck(codes(reader, version, true)?),
        kind::UNSUBSCRIBE => Packet::Unsubscribe(unsubscribe(reader, version)?),
        kind::UNSUBACK => Packet::UnsubAck(codes(reader, version, version == Version::V5)?),
        kind::PINGREQ => reader.end().map(|()| Packet::PingReq)?,
        kind::PINGRESP => reader.end().map(|()| Packet::PingResp)?,
        kind::DISCONNECT => Packet::Disconnect(disconnect(reader, version)?),
        _ => Packet::Auth(auth(reader)?),
    })
}

#[inline]
fn publish(first: u8, mut reader: Reader<'_>, version: Version) -> Result<Publish<'_>, Malformed> {
    let dup = first & 0x08 != 0;
    let qos = QoS::from_bits(first >> 1).ok_or(Malformed::QoS3)?;
    if dup && qos == QoS::AtMostOnce && version != Version::V31 {
        return Err(Malformed::DupQoS0);
    }
    let topic = reader.name()?;
    let pkid = if qos == QoS::AtMostOnce { 0 } else { packet_id(&mut reader, version)? };
    let properties = match version {
        Version::V5 => PublishProperties::parse(block(&mut reader)?)?,
        Version::V31 | Version::V311 => PublishProperties::default(),
    };
    response_topic(properties.response_topic)?;
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(Malformed::TopicEmpty);
    }
    let retain = first & 0x01 != 0;
    Ok(Publish { dup, qos, retain, topic, pkid, properties, payload: reader.rest() })
}

/// A packet identifier. Only MQTT 5 forbids 0: libtr50, which speaks 3.1, begins with it.
#[inline]
fn packet_id(reader: &mut Reader<'_>, version: Version) -> Result<u16, Malformed> {
    let pkid = reader.u16()?;
    if pkid == 0 && version == Version::V5 { Err(Malformed::PacketIdZero) } else { Ok(pkid) }
}

fn connect(first: u8, mut reader: Reader<'_>) -> Result<Connect<'_>, Malformed> {
    let (version, bridge) = protocol(&mut reader)?;
    let tolerant = version == Version::V31;
    if first & 0x0f != 0 && !tolerant {
        return Err(Malformed::ReservedFlags(first));
    }
    let flags = reader.u8()?;
    if flags & 0x01 != 0 && !tolerant {
        return Err(Malformed::ConnectFlag);
    }
    let (has_username, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if has_password && !has_username && version == Version::V311 {
        return Err(Malformed::PasswordAlone);
    }
    let keep_alive = reader.u16()?;
    let properties = match version {
        Version::V5 => ConnectProperties::parse(block(&mut reader)?)?,
        Version::V31 | Version::V311 => ConnectProperties::default(),
    };
    if properties.auth_data.is_some() && properties.auth_method.is_none() {
        return Err(Malformed::AuthenticationDataAlone);
    }
    let client_id = reader.text()?;
    let will = will(flags, &mut reader, version)?;
    // 3.1 (3.1: "User name and password flags"): the length of the packet decides; a flag may be
    // set and its text missing.
    let missing = |reader: &Reader<'_>| tolerant && reader.is_empty();
    let username = match has_username && !missing(&reader) {
        true => Some(reader.text()?),
        false => None,
    };
    let password = match has_password && !missing(&reader) {
        true => Some(reader.binary()?),
        false => None,
    };
    reader.end()?;
    let clean = flags & 0x02 != 0;
    Ok(Connect {
        version,
        bridge,
        clean,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// Protocol name and level ([MQTT-3.1.2-1], [MQTT-3.1.2-2]), and whether the level has the bit with
/// which mosquitto's bridges say what they are.
fn protocol(reader: &mut Reader<'_>) -> Result<(Version, bool), Malformed> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    match (name, level) {
        (b"MQTT", 0x04 | 0x84) => Ok((Version::V311, level == 0x84)),
        (b"MQTT", 0x05) => Ok((Version::V5, false)),
        (b"MQIsdp", 0x03 | 0x83) => Ok((Version::V31, level == 0x83)),
        (b"MQTT" | b"MQIsdp", level) => Err(Malformed::UnknownProtocol { level: level.max(1) }),
        _ => Err(Malformed::UnknownProtocol { level: 0 }),
    }
}

fn will<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Option<Will<'a>>, Malformed> {
    if flags & 0x04 == 0 {
        let stray = flags & 0x38 != 0 && version != Version::V31;
        return if stray { Err(Malformed::WillFlags) } else { Ok(None) };
    }
    let qos = QoS::from_bits(flags >> 3).ok_or(Malformed::WillFlags)?;
    let properties = match version {
        Version::V5 => WillProperties::parse(block(reader)?)?,
        Version::V31 | Version::V311 => WillProperties::default(),
    };
    response_topic(properties.response_topic)?;
    let topic = reader.name()?;
    if topic.is_empty() {
        return Err(Malformed::TopicEmpty);
    }
    let payload = reader.binary()?;
    Ok(Some(Will { topic, payload, qos, retain: flags & 0x20 != 0, properties }))
}

fn connack(mut reader: Reader<'_>, version: Version) -> Result<ConnAck<'_>, Malformed> {
    let flags = reader.u8()?;
    if flags > 0x01 && version != Version::V31 {
        return Err(Malformed::AcknowledgeFlags);
    }
    let code = reader.u8()?;
    // Who refuses a protocol level answers in a form of its own; the short one says enough.
    let properties = match version {
        Version::V5 if !reader.is_empty() => ConnAckProperties::parse(block(&mut reader)?)?,
        _ => ConnAckProperties::default(),
    };
    reader.end()?;
    let session_present = flags & 0x01 != 0 && version != Version::V31;
    Ok(ConnAck { session_present, code, properties })
}

/// Reason codes of PUBACK and PUBREC (MQTT 3.4.2.1, 3.5.2.1).
const PUBLISH_REASONS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Reason codes of PUBREL and PUBCOMP (MQTT 3.6.2.1, 3.7.2.1).
const RELEASE_REASONS: &[u8] = &[0x00, 0x92];

#[inline]
fn ack(mut reader: Reader<'_>, version: Version, reasons: &[u8]) -> Result<Ack, Malformed> {
    let pkid = packet_id(&mut reader, version)?;
    if reader.is_empty() || version != Version::V5 {
        reader.end()?;
        return Ok(Ack { pkid, reason: 0 });
    }
    let reason = reader.u8()?;
    if !reasons.contains(&reason) {
        return Err(Malformed::ReasonCode(reason));
    }
    if !reader.is_empty() {
        AckProperties::parse(block(&mut reader)?)?;
        reader.end()?;
    }
    Ok(Ack { pkid, reason })
}

fn subscribe(mut reader: Reader<'_>, version: Version) -> Result<Subscribe<'_>, Malformed> {
    let pkid = packet_id(&mut reader, version)?;
    let subscription_id = match version {
        Version::V5 => SubscribeProperties::parse(block(&mut reader)?)?.subscription_id,
        Version::V31 | Version::V311 => None,
    };
    let filters = Subscriptions { bytes: reader.rest(), version };
    if reader.is_empty() {
        return Err(Malformed::SubscribeEmpty);
    }
    while !reader.is_empty() {
        subscription(&mut reader, version)?;
    }
    Ok(Subscribe { pkid, subscription_id: subscription_id.map(|id| id.0), filters })
}

/// A filter, not judged yet. An empty one is a protocol error only in MQTT 5; before, the answer is
/// a refusal of that filter.
fn filter<'a>(reader: &mut Reader<'a>, version: Version) -> Result<&'a str, Malformed> {
    let filter = reader.text()?;
    if filter.is_empty() && version == Version::V5 {
        return Err(Malformed::FilterEmpty);
    }
    Ok(filter)
}

/// A filter and its options (MQTT 3.8.3.1; before MQTT 5 only the QoS).
pub(super) fn subscription<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Subscription<'a>, Malformed> {
    let filter = filter(reader, version)?;
    let options = reader.u8()?;
    let qos = QoS::from_bits(options).ok_or(Malformed::SubscribeOptions)?;
    let allowed = match version {
        Version::V31 => 0xff,
        Version::V311 => 0x03,
        Version::V5 => 0x3f,
    };
    if options & !allowed != 0 {
        return Err(Malformed::SubscribeOptions);
    }
    let options = if version == Version::V5 { options } else { 0 };
    let retain_handling = match options & 0x30 {
        0x00 => RetainHandling::Always,
        0x10 => RetainHandling::IfNew,
        0x20 => RetainHandling::Never,
        _ => return Err(Malformed::SubscribeOptions),
    };
    let no_local = options & 0x04 != 0;
    if no_local && topic::is_shared(filter) {
        return Err(Malformed::SharedNoLocal);
    }
    let retain_as_published = options & 0x08 != 0;
    Ok(Subscription { filter, qos, no_local, retain_as_published, retain_handling })
}

fn unsubscribe(mut reader: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, Malformed> {
    let pkid = packet_id(&mut reader, version)?;
    if version == Version::V5 {
        UnsubscribeProperties::parse(block(&mut reader)?)?;
    }
    let filters = Filters(reader.rest());
    if reader.is_empty() {
        return Err(Malformed::UnsubscribeEmpty);
    }
    while !reader.is_empty() {
        filter(&mut reader, version)?;
    }
    Ok(Unsubscribe { pkid, filters })
}

fn codes(mut reader: Reader<'_>, version: Version, some: bool) -> Result<Codes<'_>, Malformed> {
    let pkid = packet_id(&mut reader, version)?;
    if version == Version::V5 {
        AckProperties::parse(block(&mut reader)?)?;
    }
    match (some, reader.is_empty()) {
        (true, true) => Err(Malformed::AcknowledgeEmpty),
        (false, false) => Err(Malformed::TrailingBytes),
        _ => Ok(Codes { pkid, codes: reader.rest() }),
    }
}

/// Reason codes of DISCONNECT (MQTT 3.14.2.1).
const DISCONNECT_REASONS: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

fn disconnect(mut reader: Reader<'_>, version: Version) -> Result<Disconnect<'_>, Malformed> {
    if reader.is_empty() || version != Version::V5 {
        reader.end()?;
        return Ok(Disconnect { reason: 0, properties: DisconnectProperties::default() });
    }
    let reason = reader.u8()?;
    if !DISCONNECT_REASONS.contains(&reason) {
        return Err(Malformed::ReasonCode(reason));
    }
    let properties = if reader.is_empty() {
        DisconnectProperties::default()
    } else {
        DisconnectProperties::parse(block(&mut reader)?)?
    };
    reader.end()?;
    Ok(Disconnect { reason, properties })
}

fn auth(mut reader: Reader<'_>) -> Result<Auth<'_>, Malformed> {
    if reader.is_empty() {
        return Ok(Auth { reason: 0, properties: AuthProperties::default() });
    }
    let reason = reader.u8()?;
    if !matches!(reason, 0x00 | 0x18 | 0x19) {
        return Err(Malformed::ReasonCode(reason));
    }
    let properties = AuthProperties::parse(block(&mut reader)?)?;
    reader.end()?;
    if properties.auth_data.is_some() && properties.auth_method.is_none() {
        return Err(Malformed::AuthenticationDataAlone);
    }
    Ok(Auth { reason, properties })
}

/// The property block: its length, then its bytes (MQTT 2.2.2).
#[inline]
fn block<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.variable()?;
    reader.take(length as usize)
}

fn response_topic(name: Option<&str>) -> Result<(), Malformed> {
    match name {
        Some(name) if !topic::valid_topic(name) => Err(Malformed::ResponseTopic),
        _ => Ok(()),
    }
}
