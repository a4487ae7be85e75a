//! What a connection tells of itself when somebody asks: only its task knows.

use base::Timestamp;
use serde::Serialize;

/// What is known of an MQTT connection beside its session.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionDetails {
    /// How many subscriptions there are.
    pub subscription_count: usize,
    /// The first of them, in the order in which they came.
    pub subscriptions: Vec<Subscribed>,
    /// Messages with QoS 1 and 2 that are on their way.
    pub in_flight: InFlight,
    /// The first of those to the client, in the order in which they were sent.
    pub in_flight_messages: Vec<InFlightMessage>,
    /// Messages that wait for the client in the broker, if somebody has counted them.
    pub waiting: Option<usize>,
    /// Bytes that they take there, roughly.
    pub waiting_bytes: Option<usize>,
    /// The first of them, as far as they are in memory.
    pub waiting_messages: Vec<WaitingMessage>,
    /// Where the others are.
    #[serde(skip)]
    pub stored: Option<Stored>,
    /// How the session outlives the connection; none: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_session: Option<KeptSession>,
}

/// A subscription.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscribed {
    /// The filter, as the client wrote it.
    pub filter: Box<str>,
    /// The quality of service granted.
    pub qos: u8,
    /// Not what the client published itself.
    pub no_local: bool,
    /// Keep the publisher's retain flag.
    pub retain_as_published: bool,
    /// Its identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

/// What is on its way in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// To the client, which has not acknowledged them.
    pub out: Packets,
    /// From the client: what is not acknowledged yet, or with QoS 2 not released.
    #[serde(rename = "in")]
    pub coming: Packets,
    /// For how many milliseconds the oldest message to the client has been on its way; none: there
    /// is none of the broker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
}

/// A message to the client that is not acknowledged, without its payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlightMessage {
    /// Its packet id.
    pub packet_id: u16,
    /// The quality of service.
    pub qos: u8,
    /// With QoS 2: whether the client has it, and only its release is on its way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// What it is about; none of messages of the server's own.
    #[serde(flatten)]
    pub about: Option<MessageHead>,
}

/// A message that waits for the client, without its payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingMessage {
    /// The quality of service.
    pub qos: u8,
    /// What it is about.
    #[serde(flatten)]
    pub about: MessageHead,
}

/// Messages of an MQTT session that are in the store only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The session's number in the broker.
    pub session: u64,
    /// The number of the first of them.
    pub from: u64,
}

/// What is shown of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageHead {
    /// Its topic, of a long one the beginning.
    pub topic: Box<str>,
    /// Bytes of its payload.
    pub bytes: usize,
    /// When it was sent to the client; of one that waits, when it was published.
    pub since: Timestamp,
}

/// Packet ids in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Packets {
    /// With QoS 1.
    pub qos1: usize,
    /// With QoS 2.
    pub qos2: usize,
}

/// How a session outlives its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptSession {
    /// For so many seconds; none: for ever.
    pub expiry_s: Option<u32>,
}

/// Somebody who wants to know.
pub struct Question(Box<dyn FnOnce(ConnectionDetails) + Send>);

impl Question {
    /// Whoever is told the answer by this.
    pub fn new(tell: impl FnOnce(ConnectionDetails) + Send + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// Answers it.
    pub fn answer(self, details: ConnectionDetails) {
        (self.0)(details);
    }
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}
