//! Packets to bytes, appended to a buffer.
//!
//! A packet that MQTT can't have, because a text or the whole is longer than its length field can
//! say, is [`TooLong`].

use super::packet::{Connect, RetainHandling, Subscription, Will};
use super::properties::{
    AckProperties, Block, ConnAckProperties, PublishProperties, SubscribeProperties, Variable,
};
use super::{QoS, REMAINING_LENGTH_MAX, Version, kind, reason};

/// A text of more than 65,535 bytes or a packet of more than 256 MB. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("[MQTT-1.5.4] [MQTT-1.5.5] too long for a MQTT packet")]
pub struct TooLong;

/// What a PUBLISH has before its payload.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// Packet identifier; left out with QoS 0.
    pub pkid: u16,
    /// The topic name, in parts that follow each other without anything between.
    pub topic: &'a [&'a [u8]],
    /// Properties; left out before MQTT 5.
    pub properties: &'a PublishProperties<'a>,
    /// Subscription identifiers, other than 0; left out before MQTT 5.
    pub subscription_ids: &'a [u32],
}

/// CONNACK: four bytes before MQTT 5.
///
/// # Errors
/// [`TooLong`] text in the properties.
pub fn connack(
    out: &mut Vec<u8>,
    version: Version,
    session_present: bool,
    code: u8,
    properties: &ConnAckProperties<'_>,
) -> Result<(), TooLong> {
    // 3.1 has no session present; a refusal never has one ([MQTT-3.2.2-6]).
    let present = session_present && code == reason::SUCCESS && version != Version::V31;
    frame(out, kind::CONNACK, &|body| {
        body.put(&[u8::from(present), code]);
        if version == Version::V5 {
            put_block(body, &|block| properties.put(block));
        }
    })
}

/// PUBLISH.
pub fn publish(
    out: &mut Vec<u8>,
    version: Version,
    head: &PublishHead<'_>,
    payload: &[u8],
) -> Result<(), TooLong> {
    begin_publish(out, version, head, payload.len())?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Bytes for which room is made before it is known whether they come.
const RESERVED_MAX: usize = 64 * 1024;

/// A PUBLISH whose payload is being written behind its head.
#[derive(Clone, Copy, Debug)]
pub struct BegunPublish {
    /// Where the remaining length stands.
    length: usize,
    /// Where what it counts begins.
    counted: usize,
}

/// Begins a PUBLISH: everything but its payload, which the caller appends. If that has not just
/// `expected` bytes, [`BegunPublish::end`] has to be called. The payload of one with about as many
/// need not be moved then.
#[inline]
pub fn begin_publish(
    out: &mut Vec<u8>,
    version: Version,
    head: &PublishHead<'_>,
    expected: usize,
) -> Result<BegunPublish, TooLong> {
    let topic_len: usize = head.topic.iter().map(|part| part.len()).sum();
    let topic_len_bytes = u16::try_from(topic_len).map_err(|_| TooLong)?.to_be_bytes();
    let pkid_len = if head.qos == QoS::AtMostOnce { 0 } else { 2 };
    let (block, block_size) = match version {
        Version::V5 => {
            let block = measure(&|sink| put_publish_properties(sink, head))?;
            (block, variable_size(block) + block as usize)
        }
        Version::V31 | Version::V311 => (0, 0),
    };
    let remaining = (2 + topic_len + pkid_len + block_size).saturating_add(expected);
    if remaining > REMAINING_LENGTH_MAX {
        return Err(TooLong);
    }
    out.reserve(5 + remaining.min(RESERVED_MAX));
    let flags = u8::from(head.dup) << 3 | (head.qos as u8) << 1 | u8::from(head.retain);
    out.push(kind::PUBLISH | flags);
    let length = out.len();
    put_variable(out, remaining as u32);
    let counted = out.len();
    out.extend_from_slice(&topic_len_bytes);
    for part in head.topic {
        out.extend_from_slice(part);
    }
    if pkid_len != 0 {
        out.extend_from_slice(&head.pkid.to_be_bytes());
    }
    if version == Version::V5 {
        put_variable(out, block);
        put_publish_properties(out, head);
    }
    Ok(BegunPublish { length, counted })
}

impl BegunPublish {
    /// Puts the remaining length right, for everything that is in `out` now.
    ///
    /// # Errors
    /// [`TooLong`]; what was written is still there.
    #[inline]
    pub fn end(self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let remaining = out.len() - self.counted;
        if remaining > REMAINING_LENGTH_MAX {
            return Err(TooLong);
        }
        let size = variable_size(remaining as u32);
        if size != self.counted - self.length {
            out.splice(self.length..self.counted, std::iter::repeat_n(0, size));
        }
        let mut rest = remaining;
        for byte in out.iter_mut().skip(self.length).take(size) {
            let more = if rest > 0x7f { 0x80 } else { 0x00 };
            *byte = rest as u8 & 0x7f | more;
            rest >>= 7;
        }
        Ok(())
    }
}

/// PUBACK; before MQTT 5 without the reason.
#[inline]
pub fn puback(out: &mut Vec<u8>, version: Version, pkid: u16, reason: u8) {
    ack(out, kind::PUBACK, version, pkid, reason);
}

/// PUBREC; before MQTT 5 without the reason.
pub fn pubrec(out: &mut Vec<u8>, version: Version, pkid: u16, reason: u8) {
    ack(out, kind::PUBREC, version, pkid, reason);
}

/// PUBACK, or with QoS 2 PUBREC, of MQTT 5 that says in words, too, why a message was refused.
///
/// # Errors
/// [`TooLong`] words.
pub fn publish_refused(
    out: &mut Vec<u8>,
    qos: QoS,
    pkid: u16,
    code: u8,
    why: &str,
) -> Result<(), TooLong> {
    let first = if qos == QoS::ExactlyOnce { kind::PUBREC } else { kind::PUBACK };
    frame(out, first, &|body| {
        body.put(&pkid.to_be_bytes());
        body.put(&[code]);
        put_reason(body, why);
    })
}

/// PUBREL; before MQTT 5 without the reason. Its reserved flags are 0x02 ([MQTT-3.6.1-1]).
pub fn pubrel(out: &mut Vec<u8>, version: Version, pkid: u16, reason: u8) {
    ack(out, kind::PUBREL | 0x02, version, pkid, reason);
}

/// PUBCOMP; before MQTT 5 without the reason.
pub fn pubcomp(out: &mut Vec<u8>, version: Version, pkid: u16, reason: u8) {
    ack(out, kind::PUBCOMP, version, pkid, reason);
}

/// SUBACK: a reason code for each filter; before MQTT 5 every failure is 0x80
/// ([MQTT-3.9.3-2] of 3.1.1).
pub fn suback(out: &mut Vec<u8>, version: Version, pkid: u16, codes: &[u8]) -> Result<(), TooLong> {
    frame(out, kind::SUBACK, &|body| {
        body.put(&pkid.to_be_bytes());
        if version == Version::V5 {
            body.put(&[0]);
            return body.put(codes);
        }
        for &code in codes {
            body.put(&[code.min(reason::UNSPECIFIED)]);
        }
    })
}

/// SUBACK of MQTT 5 that says in words, too, why filters were refused.
///
/// # Errors
/// [`TooLong`] words, or too many codes.
pub fn subscribe_refused(
    out: &mut Vec<u8>,
    pkid: u16,
    codes: &[u8],
    why: &str,
) -> Result<(), TooLong> {
    frame(out, kind::SUBACK, &|body| {
        body.put(&pkid.to_be_bytes());
        put_reason(body, why);
        body.put(codes);
    })
}

/// UNSUBACK; before MQTT 5 without the codes: four bytes.
pub fn unsuback(
    out: &mut Vec<u8>,
    version: Version,
    pkid: u16,
    codes: &[u8],
) -> Result<(), TooLong> {
    frame(out, kind::UNSUBACK, &|body| {
        body.put(&pkid.to_be_bytes());
        if version == Version::V5 {
            body.put(&[0]);
            body.put(codes);
        }
    })
}

/// PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGREQ, 0]);
}

/// PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP, 0]);
}

/// DISCONNECT. Before MQTT 5 only a client sends one, and it has no reason.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: u8) {
    if version == Version::V5 && reason != reason::SUCCESS {
        out.extend_from_slice(&[kind::DISCONNECT, 1, reason]);
    } else {
        out.extend_from_slice(&[kind::DISCONNECT, 0]);
    }
}

/// CONNECT.
pub fn connect(out: &mut Vec<u8>, packet: &Connect<'_>) -> Result<(), TooLong> {
    let (name, level) = packet.version.name_and_level();
    let will_flags = packet
        .will
        .as_ref()
        .map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let flags = u8::from(packet.username.is_some()) << 7
        | u8::from(packet.password.is_some()) << 6
        | will_flags
        | u8::from(packet.clean) << 1;
    frame(out, kind::CONNECT, &|body| {
        body.put_binary(name.as_bytes());
        body.put(&[level, flags]);
        body.put(&packet.keep_alive.to_be_bytes());
        if packet.version == Version::V5 {
            put_block(body, &|block| packet.properties.put(block));
        }
        body.put_binary(packet.client_id.as_bytes());
        if let Some(will) = &packet.will {
            put_will(body, packet.version, will);
        }
        if let Some(username) = packet.username {
            body.put_binary(username.as_bytes());
        }
        if let Some(password) = packet.password {
            body.put_binary(password);
        }
    })
}

/// SUBSCRIBE.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    pkid: u16,
    filters: &[Subscription<'_>],
    subscription_id: Option<u32>,
) -> Result<(), TooLong> {
    let properties = SubscribeProperties {
        subscription_id: subscription_id.map(Variable),
        ..Default::default()
    };
    frame(out, kind::SUBSCRIBE | 0x02, &|body| {
        body.put(&pkid.to_be_bytes());
        if version == Version::V5 {
            put_block(body, &|block| properties.put(block));
        }
        for subscription in filters {
            body.put_binary(subscription.filter.as_bytes());
            body.put(&[options(version, subscription)]);
        }
    })
}

/// UNSUBSCRIBE.
pub fn unsubscribe(
    out: &mut Vec<u8>,
    version: Version,
    pkid: u16,
    filters: &[&str],
) -> Result<(), TooLong> {
    frame(out, kind::UNSUBSCRIBE | 0x02, &|body| {
        body.put(&pkid.to_be_bytes());
        if version == Version::V5 {
            body.put(&[0]);
        }
        for filter in filters {
            body.put_binary(filter.as_bytes());
        }
    })
}

impl<'a> Subscription<'a> {
    /// A subscription to `filter` with the options that MQTT 3 has.
    pub const fn new(filter: &'a str, qos: QoS) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        }
    }
}

/// Where bytes go: into a buffer, or only counted. What is written must not depend on which.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    /// Two bytes of length, then the bytes. Over 65,535 bytes the counter remembers that they do
    /// not fit; a buffer is only written after counting.
    fn put_binary(&mut self, bytes: &[u8]) {
        self.put(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Default)]
struct Count {
    bytes: usize,
    too_long: bool,
}

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
    }

    fn put_binary(&mut self, bytes: &[u8]) {
        self.too_long |= bytes.len() > usize::from(u16::MAX);
        self.bytes = self.bytes.saturating_add(2 + bytes.len());
    }
}

/// Writes a variable byte integer (MQTT 1.5.5) of up to [`REMAINING_LENGTH_MAX`].
pub(super) fn put_variable<S: Sink + ?Sized>(out: &mut S, value: u32) {
    let mut rest = value;
    while rest > 0x7f {
        out.put(&[rest as u8 | 0x80]);
        rest >>= 7;
    }
    out.put(&[rest as u8]);
}

fn variable_size(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// How many bytes `write` writes.
fn measure(write: &dyn Fn(&mut dyn Sink)) -> Result<u32, TooLong> {
    let mut count = Count::default();
    write(&mut count);
    if count.too_long || count.bytes > REMAINING_LENGTH_MAX {
        return Err(TooLong);
    }
    Ok(count.bytes as u32)
}

/// A packet: first byte, remaining length, body.
fn frame(out: &mut Vec<u8>, first: u8, body: &dyn Fn(&mut dyn Sink)) -> Result<(), TooLong> {
    let remaining = measure(body)?;
    out.reserve(5 + remaining as usize);
    out.push(first);
    put_variable(out, remaining);
    body(out);
    Ok(())
}

/// A property block with its length. One that is too long makes the packet too long, which the
/// counting before the writing has found.
fn put_block(out: &mut dyn Sink, block: &dyn Fn(&mut dyn Sink)) {
    let mut count = Count::default();
    block(&mut count);
    put_variable(out, count.bytes.min(REMAINING_LENGTH_MAX) as u32);
    block(out);
}

fn put_reason(out: &mut dyn Sink, why: &str) {
    let properties = AckProperties { reason_string: Some(why), ..AckProperties::default() };
    put_block(out, &|block| properties.put(block));
}

fn put_publish_properties(out: &mut dyn Sink, head: &PublishHead<'_>) {
    head.properties.put(out);
    for &id in head.subscription_ids {
        out.put(&[0x0b]);
        put_variable(out, id);
    }
}

fn put_will(out: &mut dyn Sink, version: Version, will: &Will<'_>) {
    if version == Version::V5 {
        put_block(out, &|block| will.properties.put(block));
    }
    out.put_binary(will.topic.as_bytes());
    out.put_binary(will.payload);
}

#[inline]
fn ack(out: &mut Vec<u8>, first: u8, version: Version, pkid: u16, reason: u8) {
    let [high, low] = pkid.to_be_bytes();
    if version == Version::V5 && reason != reason::SUCCESS {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

fn options(version: Version, subscription: &Subscription<'_>) -> u8 {
    let qos = subscription.qos as u8;
    if version != Version::V5 {
        return qos;
    }
    qos | u8::from(subscription.no_local) << 2
        | u8::from(subscription.retain_as_published) << 3
        | (subscription.retain_handling as u8) << 4
}
