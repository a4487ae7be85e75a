//! Malformed packets: what is wrong, and the reason code to close with.

use super::{Version, reason};

/// Bytes that are not MQTT. The connection can't go on: nothing after them can be trusted.
///
/// Clauses are those of MQTT 5 unless marked; 3.1.1 has the same rule at the same place or close
/// by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length of more than four bytes, or written with more bytes than it needs.
    #[error("[MQTT-1.5.5-1] a variable byte integer is too long")]
    VariableInteger,
    /// The frame is over the limit of the caller.
    #[error("[MQTT-3.1.2-24] a packet of {length} bytes, over the limit of {max}")]
    TooLarge {
        /// Bytes of the whole frame, as its fixed header says.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A packet type that the version reserves.
    #[error("[MQTT-2.1.3-1] packet type {0} is reserved")]
    ReservedType(u8),
    /// Flags of the fixed header that the packet type does not allow.
    #[error("[MQTT-2.1.3-1] reserved flags are set in the fixed header {0:#04x}")]
    ReservedFlags(u8),
    /// A field that reaches beyond the end of its packet.
    #[error("[MQTT-1.5.4] a field reaches beyond the end of its packet")]
    Truncated,
    /// Bytes after the last field.
    #[error("[MQTT-2.1.4] the packet goes on after its last field")]
    TrailingBytes,
    /// Text that is not UTF-8.
    #[error("[MQTT-1.5.4-1] text is not UTF-8")]
    Utf8,
    /// Text with U+0000.
    #[error("[MQTT-1.5.4-2] text contains U+0000")]
    Nul,
    /// A protocol name or level that this codec does not know.
    #[error("[MQTT-3.1.2-1] [MQTT-3.1.2-2] unknown protocol name, or level {level}")]
    UnknownProtocol {
        /// The level that was asked for, 0 if the name is unknown.
        level: u8,
    },
    /// The lowest connect flag is set.
    #[error("[MQTT-3.1.2-3] the reserved connect flag is set")]
    ConnectFlag,
    /// Will QoS 3, or will flags without a will.
    #[error("[MQTT-3.1.2-11] [MQTT-3.1.2-12] the will flags contradict each other")]
    WillFlags,
    /// A password without a user name, in 3.1.1.
    #[error("[MQTT-3.1.2-22] (3.1.1) a password without a user name")]
    PasswordAlone,
    /// Flags of CONNACK beside session present.
    #[error("[MQTT-3.2.2-1] reserved acknowledge flags are set")]
    AcknowledgeFlags,
    /// PUBLISH with QoS 3.
    #[error("[MQTT-3.3.1-4] QoS 3")]
    QoS3,
    /// PUBLISH with QoS 0 and DUP.
    #[error("[MQTT-3.3.1-2] DUP with QoS 0")]
    DupQoS0,
    /// A topic name with a wildcard.
    #[error("[MQTT-3.3.2-2] a topic name with a wildcard")]
    TopicWildcard,
    /// A topic name of no characters.
    #[error("[MQTT-4.7.3-1] an empty topic name")]
    TopicEmpty,
    /// A topic filter of no characters, in MQTT 5.
    #[error("[MQTT-4.7.3-1] an empty topic filter")]
    FilterEmpty,
    /// Packet identifier 0, in MQTT 5.
    #[error("[MQTT-2.2.1-3] packet identifier 0")]
    PacketIdZero,
    /// A response topic that is no topic name.
    #[error("[MQTT-3.3.2-14] the response topic is no topic name")]
    ResponseTopic,
    /// SUBSCRIBE without a filter.
    #[error("[MQTT-3.8.3-2] SUBSCRIBE without a filter")]
    SubscribeEmpty,
    /// Reserved bits or values in a subscription's options.
    #[error("[MQTT-3.8.3-5] reserved subscription options are set")]
    SubscribeOptions,
    /// No Local on a shared subscription.
    #[error("[MQTT-3.8.3-4] No Local on a shared subscription")]
    SharedNoLocal,
    /// UNSUBSCRIBE without a filter.
    #[error("[MQTT-3.10.3-2] UNSUBSCRIBE without a filter")]
    UnsubscribeEmpty,
    /// SUBACK or UNSUBACK without a code.
    #[error("[MQTT-3.8.4-6] an acknowledgement without a reason code")]
    AcknowledgeEmpty,
    /// A property that may come once came twice.
    #[error("[MQTT-2.2.2] property {0:#04x} comes twice")]
    PropertyTwice(u8),
    /// A property that is unknown or not allowed in its packet.
    #[error("[MQTT-2.2.2] property {0:#04x} is not allowed here")]
    PropertyUnexpected(u8),
    /// A property with a value that is not allowed.
    #[error("[MQTT-2.2.2] property {0:#04x} has a forbidden value")]
    PropertyValue(u8),
    /// Authentication data without a method.
    #[error("[MQTT-3.1.2-30] authentication data without an authentication method")]
    AuthenticationDataAlone,
    /// A reason code that its packet does not know.
    #[error("[MQTT-2.4] reason code {0:#04x} is not one of this packet")]
    ReasonCode(u8),
}

impl Malformed {
    /// The reason code of MQTT 5 for DISCONNECT (MQTT 3.14.2.1), which knows no unsupported version:
    /// who is connected must not send another CONNECT, of whatever protocol ([MQTT-3.1.0-2]).
    /// Before MQTT 5 there is nothing to send: close.
    pub const fn reason(self) -> u8 {
        match self {
            Self::TooLarge { .. } => reason::PACKET_TOO_LARGE,
            Self::TopicWildcard => reason::TOPIC_INVALID,
            Self::PropertyValue(0x23) => reason::TOPIC_ALIAS_INVALID,
            Self::UnknownProtocol { .. }
            | Self::TopicEmpty
            | Self::FilterEmpty
            | Self::PacketIdZero
            | Self::ResponseTopic
            | Self::SubscribeEmpty
            | Self::SharedNoLocal
            | Self::UnsubscribeEmpty
            | Self::PropertyTwice(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationDataAlone => reason::PROTOCOL_ERROR,
            _ => reason::MALFORMED,
        }
    }

    /// What to answer to a CONNECT with this fault before closing: the form of the CONNACK and its
    /// code. `None`: close without a word ([MQTT-3.1.4-1]); only who speaks a known protocol
    /// understands an answer.
    pub const fn connack(self) -> Option<(Version, u8)> {
        match self {
            Self::UnknownProtocol { level: 0 } => None,
            // With the highest bit: a bridge's, which is told to try another level.
            Self::UnknownProtocol { level: 1..=4 | 0x81..=0x84 } => {
                Some((Version::V311, reason::v3::UNSUPPORTED_VERSION))
            }
            Self::UnknownProtocol { .. } => Some((Version::V5, reason::UNSUPPORTED_VERSION)),
            _ => None,
        }
    }
}
