//! A message as it was published, shared by all who get it, and as one subscriber gets it.

use std::sync::Arc;

use base::{Timestamp, limits};
use bytes::{Buf, BufMut};
use mqtt::{PublishProperties, QoS};
use rules::directory::details::{MessageHead, WaitingMessage};
use smallvec::SmallVec;

use super::tree::Shared;

/// The subscription identifiers that go with a delivery; nearly always one at most.
pub type SubscriptionIds = SmallVec<[u32; 2]>;

/// A message that was published.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// Topic, property block, payload.
    bytes: Box<[u8]>,
    topic_len: u16,
    block_len: u32,
    /// The publisher's quality of service.
    pub qos: QoS,
    /// Whether it is to be retained; with an empty payload, whether to forget what is retained.
    pub retain: bool,
    /// Seconds for which it is valid.
    expiry: Option<u32>,
    received: Timestamp,
}

/// The form of a message's row.
const ROW_VERSION: u8 = 1;

/// Version, flags, time, expiry, lengths of topic and properties.
const ROW_HEAD: usize = 1 + 1 + 8 + 4 + 2 + 4;

const RETAIN: u8 = 0x04;
const EXPIRES: u8 = 0x08;

impl Message {
    /// A message that came at `received`. The topic is valid, so it fits into MQTT's length. Topic
    /// alias and subscription identifiers go no further.
    pub fn new(
        topic: &str,
        payload: &[u8],
        (qos, retain): (QoS, bool),
        properties: &PublishProperties<'_>,
        received: Timestamp,
    ) -> Self {
        let topic = topic.get(..usize::from(u16::MAX)).unwrap_or(topic);
        // Mostly empty, and then it allocates nothing.
        let mut block = Vec::new();
        PublishProperties { topic_alias: None, expiry: None, ..*properties }.put_block(&mut block);
        let block_len = block.len() as u32;
        let mut bytes = Vec::with_capacity(topic.len() + block.len() + payload.len());
        for part in [topic.as_bytes(), &block, payload] {
            bytes.extend_from_slice(part);
        }
        let topic_len = topic.len() as u16;
        let expiry = properties.expiry;
        Self { bytes: bytes.into(), topic_len, block_len, qos, retain, expiry, received }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.topic_len)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(usize::from(self.topic_len) + self.block_len as usize..).unwrap_or_default()
    }

    /// The publisher's properties, with what is left of its validity: the seconds received less the
    /// whole seconds that it has waited ([MQTT-3.3.2-6]).
    pub fn properties(&self, now: Timestamp) -> PublishProperties<'_> {
        let expiry = self.expiry.map(|seconds| {
            let waited = now.millis_since(self.received) / 1000;
            seconds.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX))
        });
        if self.block_len == 0 {
            return PublishProperties { expiry, ..PublishProperties::default() };
        }
        let block = usize::from(self.topic_len);
        let block = self.bytes.get(block..block + self.block_len as usize).unwrap_or_default();
        // The block was read when the message came in; it is well-formed.
        PublishProperties { expiry, ..PublishProperties::parse(block).unwrap_or_default() }
    }

    /// When it is no longer valid; none: never.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.expiry.map(|seconds| self.received.plus_seconds(seconds.into()))
    }

    /// Whether it is too late to send it.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.ends().is_some_and(|end| end <= now)
    }

    /// The same message, as if it had come now: a will.
    pub fn published_at(&self, now: Timestamp) -> Self {
        Self { bytes: self.bytes.clone(), received: now, ..*self }
    }

    /// As much of the topic as is shown to who looks after the connection.
    pub fn shown_topic(&self) -> &str {
        let topic = self.topic();
        let mut end = topic.len().min(limits::TOPIC_SHOWN_MAX);
        while !topic.is_char_boundary(end) {
            end -= 1;
        }
        topic.get(..end).unwrap_or(topic)
    }

    /// Bytes of topic, properties and payload.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none, which no message of MQTT has.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of its row.
    fn row_len(&self) -> usize {
        ROW_HEAD + self.bytes.len()
    }

    /// Appends its row.
    pub(super) fn put_row(&self, out: &mut Vec<u8>) {
        out.reserve(ROW_HEAD + self.bytes.len());
        let retain = if self.retain { RETAIN } else { 0 };
        let expires = if self.expiry.is_some() { EXPIRES } else { 0 };
        out.put_u8(ROW_VERSION);
        out.put_u8(self.qos as u8 | retain | expires);
        out.put_i64(self.received.as_millis());
        out.put_u32(self.expiry.unwrap_or(0));
        out.put_u16(self.topic_len);
        out.put_u32(self.block_len);
        out.put_slice(&self.bytes);
    }

    /// Reads a row; none if it is damaged or of a newer program.
    pub(super) fn from_row(mut row: &[u8]) -> Option<Self> {
        if row.len() < ROW_HEAD || row.get_u8() != ROW_VERSION {
            return None;
        }
        let flags = row.get_u8();
        let received = Timestamp::from_millis(row.get_i64());
        let expiry = row.get_u32();
        let (topic_len, block_len) = (row.get_u16(), row.get_u32());
        let whole = usize::from(topic_len) + block_len as usize <= row.len();
        std::str::from_utf8(row.get(..usize::from(topic_len))?).ok()?;
        whole.then_some(Self {
            bytes: row.into(),
            topic_len,
            block_len,
            qos: QoS::from_bits(flags)?,
            retain: flags & RETAIN != 0,
            expiry: (flags & EXPIRES != 0).then_some(expiry),
            received,
        })
    }
}

/// A message for one subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What was published.
    pub message: Arc<Message>,
    /// The lower of the publisher's and the subscription's quality of service.
    pub qos: QoS,
    /// The retain flag to show.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// The identifiers of all subscriptions that it falls under.
    pub ids: SubscriptionIds,
    /// With QoS 1 and 2: its number in the session.
    pub seq: u64,
    /// The shared subscription by which it came.
    pub shared: Option<Arc<Shared>>,
}

/// Subscription identifiers that are kept of a delivery: their number is a byte.
pub(super) const DELIVERY_IDS_MAX: usize = 255;

/// Memory that a delivery takes beside its message.
const DELIVERY_BYTES: usize = 128;

impl Delivery {
    /// The memory that it takes, roughly.
    pub(super) fn size(&self) -> usize {
        DELIVERY_BYTES + 4 * self.ids.len() + self.message.len()
    }

    /// What there is to tell of it while it waits.
    pub fn waiting(&self) -> WaitingMessage {
        let about = MessageHead {
            topic: self.message.shown_topic().into(),
            bytes: self.message.payload().len(),
            since: self.message.received,
        };
        WaitingMessage { qos: self.qos as u8, about }
    }

    /// Bytes of its row.
    pub fn row_len(&self) -> usize {
        2 + 4 * self.ids.len().min(DELIVERY_IDS_MAX) + self.message.row_len()
    }
}

/// The packet id of the message with this number: the same whenever it is sent, without having been
/// stored. At most 65,535 messages are on their way at once, so no two have the same.
pub const fn packet_id(seq: u64) -> u16 {
    (seq.wrapping_sub(1) % u16::MAX as u64) as u16 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn validity_is_counted_in_whole_seconds_that_have_passed() {
        let properties = PublishProperties { expiry: Some(60), ..Default::default() };
        let message = Message::new("a", b"", (QoS::AtMostOnce, false), &properties, NOW);
        let left = |millis| message.properties(NOW.plus_millis(millis)).expiry;
        assert_eq!((left(0), left(999), left(1000)), (Some(60), Some(60), Some(59)));
        assert_eq!(left(3_000_000), Some(0));
        assert!(!message.expired(NOW.plus_millis(59_999)));
        assert!(message.expired(NOW.plus_millis(60_000)));
    }

    #[test]
    fn packet_ids_are_never_zero_and_come_round() {
        assert_eq!((packet_id(1), packet_id(65_535)), (1, 65_535));
        assert_eq!((packet_id(65_536), packet_id(2 * 65_535 + 7)), (1, 7));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            topic in "[a-z/]{1,20}",
            payload in prop::collection::vec(any::<u8>(), 0..50),
            qos in 0_u8..3,
            retain in any::<bool>(),
            expiry in prop::option::of(any::<u32>()),
            content_type in prop::option::of("[a-z]{0,5}"),
        ) {
            let qos = QoS::from_bits(qos).expect("a level");
            let content_type = content_type.as_deref();
            let properties = PublishProperties { expiry, content_type, ..Default::default() };
            let message = Message::new(&topic, &payload, (qos, retain), &properties, NOW);
            prop_assert_eq!((message.topic(), message.payload()), (&*topic, &*payload));
            let read = message.properties(NOW);
            prop_assert_eq!((read.content_type, read.expiry), (content_type, expiry));
            let mut row = Vec::new();
            message.put_row(&mut row);
            prop_assert_eq!(Message::from_row(&row), Some(message));
        }

        #[test]
        fn foreign_rows_are_refused_or_read(row in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(message) = Message::from_row(&row) {
                let _ = (message.topic(), message.payload(), message.properties(NOW));
            }
        }
    }
}
