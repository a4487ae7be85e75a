//! MQTT 3.1, 3.1.1 and 5 as bytes, without sockets: one reader and one writer for the three.
//!
//! Decoding borrows from the bytes it is given and allocates nothing; encoding appends to a
//! buffer. What the specification calls malformed is an error, with these exceptions that real
//! devices need (`docs/protocol/tr50.md` 0, facts 3 and 4): packet identifier 0 is accepted before
//! MQTT 5, and MQTT 3.1 is read the way its loose text and its old clients want it.
//!
//! What depends on state is not judged here: a second CONNECT, an identifier in use, a topic alias
//! that was never set, a filter that is well-formed text but no filter
//! ([`base::topic::valid_filter`]), a client's PUBLISH with a subscription identifier
//! ([MQTT-3.3.4-6]).

pub mod encode;
pub mod malformed;
pub mod packet;
pub mod properties;

mod decode;
mod reader;
#[cfg(test)]
mod tests;

pub use decode::{Frame, decode};
pub use malformed::Malformed;
pub use packet::{Packet, Publish, Subscription};
pub use properties::{ConnAckProperties, ConnectProperties, PublishProperties, WillProperties};

/// The version of the protocol, as CONNECT named it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5: `MQTT`, level 5.
    V5,
}

impl Version {
    /// Protocol name and level in CONNECT.
    pub const fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Self::V31 => ("MQIsdp", 0x03),
            Self::V311 => ("MQTT", 0x04),
            Self::V5 => ("MQTT", 0x05),
        }
    }
}

/// Quality of service of a message or a subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of the two lowest bits of `bits`; none for 3.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0x03 {
            0x00 => Some(Self::AtMostOnce),
            0x01 => Some(Self::AtLeastOnce),
            0x02 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The largest remaining length that the fixed header can hold (MQTT 2.1.4).
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// Packet types: the upper half of a packet's first byte (MQTT 2.1.2).
mod kind {
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const CONNACK: u8 = 0x20;
    pub(crate) const PUBLISH: u8 = 0x30;
    pub(crate) const PUBACK: u8 = 0x40;
    pub(crate) const PUBREC: u8 = 0x50;
    pub(crate) const PUBREL: u8 = 0x60;
    pub(crate) const PUBCOMP: u8 = 0x70;
    pub(crate) const SUBSCRIBE: u8 = 0x80;
    pub(crate) const SUBACK: u8 = 0x90;
    pub(crate) const UNSUBSCRIBE: u8 = 0xa0;
    pub(crate) const UNSUBACK: u8 = 0xb0;
    pub(crate) const PINGREQ: u8 = 0xc0;
    pub(crate) const PINGRESP: u8 = 0xd0;
    pub(crate) const DISCONNECT: u8 = 0xe0;
    pub(crate) const AUTH: u8 = 0xf0;
}

/// Reason codes of MQTT 5 (MQTT 2.4), and the return codes of CONNACK in MQTT 3.
pub mod reason {
    /// Success, normal disconnection, granted QoS 0.
    pub const SUCCESS: u8 = 0x00;
    /// Nobody was subscribed.
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    /// UNSUBSCRIBE of what was not subscribed.
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    /// Unspecified; also the failure of a MQTT 3 SUBACK.
    pub const UNSPECIFIED: u8 = 0x80;
    /// Malformed packet.
    pub const MALFORMED: u8 = 0x81;
    /// Protocol error.
    pub const PROTOCOL_ERROR: u8 = 0x82;
    /// Refused by this server for its own reasons.
    pub const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    /// Protocol name or level not supported.
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    /// Client identifier refused.
    pub const CLIENT_ID_INVALID: u8 = 0x85;
    /// Bad user name or password.
    pub const BAD_LOGIN: u8 = 0x86;
    /// Not authorised.
    pub const NOT_AUTHORIZED: u8 = 0x87;
    /// Server unavailable.
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    /// Server busy.
    pub const SERVER_BUSY: u8 = 0x89;
    /// Banned by an operator.
    pub const BANNED: u8 = 0x8a;
    /// Server shutting down.
    pub const SHUTTING_DOWN: u8 = 0x8b;
    /// No packet came within the keep-alive time.
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
    /// Another connection with the same identity took over.
    pub const TAKEN_OVER: u8 = 0x8e;
    /// Topic filter refused.
    pub const FILTER_INVALID: u8 = 0x8f;
    /// Topic name refused.
    pub const TOPIC_INVALID: u8 = 0x90;
    /// Packet identifier in use.
    pub const PACKET_ID_IN_USE: u8 = 0x91;
    /// Packet identifier unknown.
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    /// More messages in flight than was agreed.
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    /// Topic alias out of range.
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    /// Packet over the size limit.
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    /// Quota exceeded.
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    /// Ended by an operator, or by a revocation.
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
    /// Payload is not what its format indicator says.
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    /// Too many connections in the time.
    pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9f;
    /// Authentication method not supported.
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;

    /// CONNACK return codes of MQTT 3.1 and 3.1.1 (3.1.1: 3.2.2.3).
    pub mod v3 {
        /// Accepted.
        pub const ACCEPTED: u8 = 0x00;
        /// Protocol level not supported.
        pub const UNSUPPORTED_VERSION: u8 = 0x01;
        /// Client identifier refused.
        pub const CLIENT_ID_REFUSED: u8 = 0x02;
        /// Server unavailable.
        pub const SERVER_UNAVAILABLE: u8 = 0x03;
        /// Bad user name or password.
        pub const BAD_LOGIN: u8 = 0x04;
        /// Not authorised.
        pub const NOT_AUTHORIZED: u8 = 0x05;
    }
}
