//! MQTT packets of things that are traced: what they are, and where secrets are in them.

use std::ops::Range;

use ::mqtt::encode::{self, PublishHead};
use ::mqtt::packet::{Connect, Publish, Will};
use ::mqtt::properties::{AckProperties, Repeated, SubscribeProperties, UnsubscribeProperties};
use ::mqtt::{Frame, Packet, Version};
use base::limits;

use super::compress;
use crate::app::{Masker, What};

/// What a part of a packet may have in it.
enum Part {
    /// Nothing but a secret.
    Secret,
    /// A text with a name, which may say that it is one.
    Named(String),
    /// A text.
    Text,
    /// JSON, or anything.
    Payload,
}

/// Where the parts are in the frame.
type Parts = Vec<(Range<usize>, Part)>;

/// Masks what is secret in a frame, whole or not.
pub(super) fn mask(version: Version, masker: &mut Masker<'_>, frame: &mut Vec<u8>) -> What {
    let version_name = match version {
        Version::V31 => "3.1",
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    };
    let mut what = What { version: Some(version_name), ..What::default() };
    let bytes = frame.clone();
    let found = Frame::find(&bytes, version, usize::MAX).ok().flatten();
    let Some(packet) = found.and_then(|frame| frame.packet(version).ok()) else {
        what.packet = "malformed".into();
        match frame.split_first_mut() {
            // What is in a CONNECT or an AUTH can't be told apart.
            Some((first, rest)) if matches!(*first >> 4, 0x1 | 0xf) => masker.secret(rest),
            _ => masker.payload(frame),
        }
        return what;
    };
    let mut parts = Parts::new();
    let mut find = Finder { frame: &bytes, parts: &mut parts };
    what.packet = find.packet(&packet).into();
    if let Packet::Publish(publish) = &packet {
        what.topic = (!publish.topic.is_empty()).then(|| publish.topic.into());
        if let Some(plain) = inflated(publish) {
            mask_deflated(version, publish, &plain, masker, frame);
            return what;
        }
        what.payload_at = Some(bytes.len() - publish.payload.len());
    }
    if version == Version::V5 {
        find_unread_properties(&bytes, &packet, &mut parts);
    }
    if let Packet::Connect(connect) = &packet
        && let Ok(token) = std::str::from_utf8(connect.password.unwrap_or_default())
    {
        masker.remember(token.as_bytes());
    }
    for (range, part) in parts {
        let Some(bytes) = frame.get_mut(range) else { continue };
        match part {
            Part::Secret => masker.secret(bytes),
            Part::Named(name) => masker.named(&name, bytes),
            Part::Text => masker.value(bytes),
            Part::Payload => masker.payload(bytes),
        }
    }
    if let Some(topic) = &mut what.topic {
        let mut masked = topic.as_bytes().to_vec();
        masker.value(&mut masked);
        *topic = String::from_utf8_lossy(&masked).into();
    }
    what
}

/// Finds the properties of packets of MQTT 5 that are not kept when they are decoded.
fn find_unread_properties(frame: &[u8], packet: &Packet<'_>, parts: &mut Parts) {
    let mut find = Finder { frame, parts };
    let acks = |block| AckProperties::parse(block).ok();
    match packet {
        Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
            find.ack(block_of(frame, 3).and_then(acks));
        }
        Packet::SubAck(_) | Packet::UnsubAck(_) => find.ack(block_of(frame, 2).and_then(acks)),
        Packet::Subscribe(_) => {
            let read = block_of(frame, 2).and_then(|block| SubscribeProperties::parse(block).ok());
            find.user_properties(read.unwrap_or_default().repeated);
        }
        Packet::Unsubscribe(_) => {
            let read = block_of(frame, 2).and_then(|b| UnsubscribeProperties::parse(b).ok());
            find.user_properties(read.unwrap_or_default().repeated);
        }
        _ => {}
    }
}

/// The property block that stands so many bytes behind the fixed header.
fn block_of(frame: &[u8], behind: usize) -> Option<&[u8]> {
    let (_, rest) = variable(frame.get(1..)?)?;
    let (length, rest) = variable(rest.get(behind..)?)?;
    rest.get(..length)
}

/// A variable byte integer, and what follows it (MQTT 1.5.5).
fn variable(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let size = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let (digits, rest) = bytes.split_at(size);
    let value = digits.iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, rest))
}

/// What a payload is that was deflated.
fn inflated(publish: &Publish<'_>) -> Option<Vec<u8>> {
    let is_deflated = publish.payload.first() == Some(&0x78);
    let inflate = || compress::inflate(publish.payload, limits::TRACE_BYTES_MAX).ok();
    is_deflated.then(inflate).flatten()
}

/// Masks what is secret in a payload that was deflated, and deflates it again.
fn mask_deflated(
    version: Version,
    publish: &Publish<'_>,
    plain: &[u8],
    masker: &mut Masker<'_>,
    frame: &mut Vec<u8>,
) {
    let mut masked = plain.to_vec();
    masker.payload(&mut masked);
    let payload = match masked == plain {
        true => publish.payload.to_vec(),
        false => compress::deflate_if(true, masked),
    };
    let mut topic = publish.topic.as_bytes().to_vec();
    masker.value(&mut topic);
    let ids: Vec<_> = publish.properties.repeated.subscription_ids().collect();
    let head = PublishHead {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        pkid: publish.pkid,
        topic: &[&topic],
        properties: &publish.properties,
        subscription_ids: &ids,
    };
    frame.clear();
    // It was a packet before. Its other properties are looked at as parts of the new one.
    if encode::publish(frame, version, &head, &payload).is_err() {
        return;
    }
    let bytes = frame.clone();
    let found = Frame::find(&bytes, version, usize::MAX).ok().flatten();
    let Some(Ok(Packet::Publish(publish))) = found.map(|frame| frame.packet(version)) else {
        return;
    };
    let mut parts = Parts::new();
    Finder { frame: &bytes, parts: &mut parts }.publish(&publish);
    for (range, part) in parts {
        match (part, frame.get_mut(range)) {
            (Part::Named(name), Some(bytes)) => masker.named(&name, bytes),
            (Part::Text, Some(bytes)) => masker.value(bytes),
            _ => {}
        }
    }
}

/// Finds the parts of a packet that was decoded from a frame.
struct Finder<'f, 'p> {
    frame: &'f [u8],
    parts: &'p mut Parts,
}

impl Finder<'_, '_> {
    fn add(&mut self, bytes: &[u8], part: Part) {
        // Decoding borrows: what it found is within the frame.
        let at = (bytes.as_ptr() as usize).wrapping_sub(self.frame.as_ptr() as usize);
        if at < self.frame.len() && !bytes.is_empty() {
            self.parts.push((at..at + bytes.len(), part));
        }
    }

    fn text(&mut self, text: Option<&str>) {
        self.add(text.unwrap_or_default().as_bytes(), Part::Text);
    }

    fn secret(&mut self, bytes: Option<&[u8]>) {
        self.add(bytes.unwrap_or_default(), Part::Secret);
    }

    fn user_properties(&mut self, repeated: Repeated<'_>) {
        for (name, value) in repeated.user_properties() {
            self.text(Some(name));
            self.add(value.as_bytes(), Part::Named(name.to_owned()));
        }
    }

    fn ack(&mut self, properties: Option<AckProperties<'_>>) {
        let properties = properties.unwrap_or_default();
        self.text(properties.reason_string);
        self.user_properties(properties.repeated);
    }

    /// The parts of any packet, and its name.
    fn packet(&mut self, packet: &Packet<'_>) -> &'static str {
        match packet {
            Packet::Connect(connect) => {
                self.connect(connect);
                "CONNECT"
            }
            Packet::ConnAck(connack) => {
                let properties = &connack.properties;
                self.secret(properties.auth_data);
                self.text(properties.assigned_client_id);
                self.text(properties.response_info);
                self.text(properties.server_reference);
                self.text(properties.reason_string);
                self.user_properties(properties.repeated);
                "CONNACK"
            }
            Packet::Publish(publish) => {
                self.publish(publish);
                "PUBLISH"
            }
            Packet::Subscribe(subscribe) => {
                subscribe.filters.for_each(|one| self.text(Some(one.filter)));
                "SUBSCRIBE"
            }
            Packet::Unsubscribe(unsubscribe) => {
                unsubscribe.filters.for_each(|filter| self.text(Some(filter)));
                "UNSUBSCRIBE"
            }
            Packet::Disconnect(disconnect) => {
                self.text(disconnect.properties.reason_string);
                self.text(disconnect.properties.server_reference);
                self.user_properties(disconnect.properties.repeated);
                "DISCONNECT"
            }
            Packet::Auth(auth) => {
                self.secret(auth.properties.auth_data);
                self.text(auth.properties.reason_string);
                self.user_properties(auth.properties.repeated);
                "AUTH"
            }
            other => name_of(other),
        }
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        let user = connect.username.unwrap_or_default();
        // Whoever mixes the two up sends the password as the name: it is looked at as any text.
        self.add(user.as_bytes(), Part::Text);
        self.secret(connect.password);
        self.text(Some(connect.client_id));
        self.text(connect.properties.auth_method);
        self.secret(connect.properties.auth_data);
        self.user_properties(connect.properties.repeated);
        if let Some(will) = &connect.will {
            self.will(will);
        }
    }

    fn will(&mut self, will: &Will<'_>) {
        self.text(Some(will.topic));
        self.add(will.payload, Part::Payload);
        self.text(will.properties.content_type);
        self.text(will.properties.response_topic);
        self.add(will.properties.correlation_data.unwrap_or_default(), Part::Payload);
        self.user_properties(will.properties.repeated);
    }

    fn publish(&mut self, publish: &Publish<'_>) {
        let properties = &publish.properties;
        self.text(Some(publish.topic));
        self.add(publish.payload, Part::Payload);
        self.text(properties.content_type);
        self.text(properties.response_topic);
        self.add(properties.correlation_data.unwrap_or_default(), Part::Payload);
        self.user_properties(properties.repeated);
    }
}

/// The name of a packet without texts.
const fn name_of(packet: &Packet<'_>) -> &'static str {
    match packet {
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::SubAck(_) => "SUBACK",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        _ => "",
    }
}
