//! A message as it goes through the router, and as a subscriber gets it.
//!
//! The router knows topic and payload, but not who published, with which QoS, and when; so all of a
//! message is packed into the router's payload, behind a header of fixed size.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use mqtt::{PublishProperties, QoS};

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Topic name, inside the organisation.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// The publisher's quality of service.
    pub qos: QoS,
    /// Whether it is to be retained; with an empty payload, whether to forget what is retained.
    pub retain: bool,
    /// Properties; topic alias and subscription identifiers go no further.
    pub properties: &'a PublishProperties<'a>,
    /// The connection that publishes, for No Local.
    pub publisher: u64,
}

/// A message for one subscription of a subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Topic name, UTF-8, as the publisher wrote it.
    pub topic: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// The lower of the publisher's and the subscription's quality of service.
    pub qos: QoS,
    /// The retain flag to show.
    pub retain: bool,
    /// Whether it was given to an earlier connection of this session and not acknowledged.
    pub dup: bool,
    /// The subscription's identifier.
    pub subscription_id: Option<u32>,
    /// With QoS 1 and 2: what to give to [`super::Link::ack`].
    pub ack: Option<AckToken>,
    pub(super) expires: Option<Instant>,
    pub(super) block: Bytes,
}

/// Names a delivery that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckToken(pub(super) u64);

impl Delivery {
    /// The publisher's properties, with the seconds of validity that are left (MQTT 3.3.2.3.3).
    pub fn properties(&self, now: Instant) -> PublishProperties<'_> {
        let left = self.expires.map(|at| at.saturating_duration_since(now).as_secs());
        // The block was read when the message came in; it is well-formed.
        let properties = PublishProperties::parse(&self.block).unwrap_or_default();
        let expiry = left.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        PublishProperties { expiry, topic_alias: None, ..properties }
    }

    /// Whether it is too late to send it.
    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.block.len()
    }
}

/// A message, packed for its way: made by [`super::Broker::pack`], in one allocation.
#[derive(Clone, Debug)]
pub struct Packed(Bytes);

const QOS: u8 = 0x03;
const RETAIN: u8 = 0x04;
const EXPIRES: u8 = 0x08;

/// Flags, publisher, milliseconds of its expiry since the broker's start, lengths of topic and of
/// properties.
const HEADER: usize = 1 + 8 + 8 + 2 + 4;

/// A packed message taken apart.
pub(super) struct Unpacked {
    pub topic: Bytes,
    pub payload: Bytes,
    pub block: Bytes,
    pub qos: QoS,
    pub retain: bool,
    pub publisher: u64,
    pub expires: Option<Instant>,
}

impl Packed {
    /// The packed form of a message that came at `now`; `start` is when the broker started. `None` if
    /// the topic is too long for MQTT.
    pub(super) fn new(message: &Message<'_>, start: Instant, now: Instant) -> Option<Self> {
        let mut block = Vec::new();
        PublishProperties { topic_alias: None, ..*message.properties }.put_block(&mut block);
        let topic_len = u16::try_from(message.topic.len()).ok()?;
        let block_len = u32::try_from(block.len()).ok()?;
        let expires = message.properties.expiry.map(|seconds| {
            let at = now.saturating_duration_since(start) + Duration::from_secs(seconds.into());
            at.as_millis() as u64
        });
        let mut flags = message.qos as u8;
        flags |= if message.retain { RETAIN } else { 0 };
        flags |= if expires.is_some() { EXPIRES } else { 0 };
        let length = HEADER + message.topic.len() + block.len() + message.payload.len();
        let mut packed = BytesMut::with_capacity(length);
        packed.put_u8(flags);
        packed.put_u64(message.publisher);
        packed.put_u64(expires.unwrap_or(0));
        packed.put_u16(topic_len);
        packed.put_u32(block_len);
        packed.put_slice(message.topic.as_bytes());
        packed.put_slice(&block);
        packed.put_slice(message.payload);
        Some(Self(packed.freeze()))
    }

    /// What the router gives back.
    pub(super) fn from_router(payload: Bytes) -> Self {
        Self(payload)
    }

    /// The bytes for the router.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Takes it apart without copying. `None` for what was not packed here.
    pub(super) fn unpack(&self, start: Instant) -> Option<Unpacked> {
        let (header, _) = self.0.split_first_chunk::<HEADER>()?;
        let (&[flags], rest) = header.split_first_chunk::<1>()?;
        let (&publisher, rest) = rest.split_first_chunk::<8>()?;
        let (&expires, rest) = rest.split_first_chunk::<8>()?;
        let (&topic_len, rest) = rest.split_first_chunk::<2>()?;
        let (&block_len, _) = rest.split_first_chunk::<4>()?;
        let block_at = HEADER + usize::from(u16::from_be_bytes(topic_len));
        let payload_at = block_at.checked_add(u32::from_be_bytes(block_len) as usize)?;
        if payload_at > self.0.len() {
            return None;
        }
        let expires = start.checked_add(Duration::from_millis(u64::from_be_bytes(expires)));
        Some(Unpacked {
            topic: self.0.slice(HEADER..block_at),
            payload: self.0.slice(payload_at..),
            block: self.0.slice(block_at..payload_at),
            qos: QoS::from_bits(flags & QOS)?,
            retain: flags & RETAIN != 0,
            publisher: u64::from_be_bytes(publisher),
            expires: expires.filter(|_| flags & EXPIRES != 0),
        })
    }
}

impl Unpacked {
    /// The topic as text.
    pub(super) fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out(
            topic in "[a-z/]{1,20}",
            payload in prop::collection::vec(any::<u8>(), 0..50),
            retain in any::<bool>(),
            publisher in any::<u64>(),
            expiry in prop::option::of(1_u32..),
            content_type in prop::option::of("[a-z]{0,9}"),
        ) {
            let now = Instant::now();
            let content_type = content_type.as_deref();
            let properties = PublishProperties { expiry, content_type, ..Default::default() };
            let qos = QoS::AtLeastOnce;
            let message = Message {
                topic: &topic, payload: &payload, properties: &properties, qos, retain, publisher,
            };
            let packed = Packed::new(&message, now, now).expect("short");
            let unpacked = packed.unpack(now).expect("well-formed");
            prop_assert_eq!(unpacked.topic(), &topic);
            prop_assert_eq!(&unpacked.payload[..], &payload[..]);
            prop_assert_eq!((unpacked.qos, unpacked.retain), (qos, retain));
            prop_assert_eq!(unpacked.publisher, publisher);
            prop_assert_eq!(unpacked.expires.is_some(), expiry.is_some());
            let read = PublishProperties::parse(&unpacked.block).expect("a block");
            prop_assert_eq!(read.content_type, content_type);
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packed::from_router(bytes.into()).unpack(Instant::now());
        }
    }
}
