//! The properties of MQTT 5 (MQTT 2.2.2): one type for each packet that has some.
//!
//! A type is read from a property block (the bytes after the property length) and written as one.
//! What may come more than once stays in the block and is read by iterators ([`Repeated`]).

use std::num::{NonZeroU16, NonZeroU32};

use super::Malformed;
use super::encode::{Sink, put_variable};
use super::reader::Reader;

const SUBSCRIPTION_ID: u8 = 0x0b;
const USER: u8 = 0x26;

/// Declares a set of properties: reading refuses what is not in it and what comes twice.
macro_rules! property_sets {
    ($($(#[$doc:meta])* $name:ident, subscription ids: $ids:literal {
        $($(#[$field_doc:meta])* $id:literal $field:ident: $value:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: Option<$value>,)*
            /// User properties, and whatever else may come more than once.
            pub repeated: Repeated<'a>,
        }

        impl<'a> $name<'a> {
            /// Reads a property block.
            ///
            /// # Errors
            /// A property that is unknown, not allowed in this packet, twice there, cut off, or
            /// of a forbidden value.
            pub fn parse(block: &'a [u8]) -> Result<Self, Malformed> {
                let mut set = Self::default();
                if block.is_empty() {
                    return Ok(set);
                }
                set.repeated = Repeated(block);
                let mut reader = Reader::new(block);
                while !reader.is_empty() {
                    match reader.u8()? {
                        $($id => once(&mut set.$field, $id, &mut reader)?,)*
                        USER => drop((reader.text()?, reader.text()?)),
                        id if $ids && id == SUBSCRIPTION_ID => {
                            Variable::read(&mut reader)?;
                        }
                        other => return Err(Malformed::PropertyUnexpected(other)),
                    }
                }
                Ok(set)
            }
        }

        impl Block for $name<'_> {
            fn put(&self, out: &mut dyn Sink) {
                $(if let Some(value) = &self.$field {
                    out.put(&[$id]);
                    value.put(out);
                })*
                for (name, value) in self.repeated.user_properties() {
                    out.put(&[USER]);
                    name.put(out);
                    value.put(out);
                }
            }
        }
    )*};
}

property_sets! {
    /// Properties of CONNECT (MQTT 3.1.2.11).
    ConnectProperties, subscription ids: false {
        /// Seconds that the session outlives the connection; 0xffff_ffff for ever.
        0x11 session_expiry: u32,
        /// Authentication method.
        0x15 auth_method: &'a str,
        /// Authentication data.
        0x16 auth_data: &'a [u8],
        /// Whether the client wants reason strings.
        0x17 request_problem_info: bool,
        /// Whether the client wants response information.
        0x19 request_response_info: bool,
        /// Messages with QoS 1 and 2 that the client takes at once.
        0x21 receive_max: NonZeroU16,
        /// Highest topic alias that the client takes.
        0x22 topic_alias_max: u16,
        /// Bytes of the largest packet that the client takes.
        0x27 packet_size_max: NonZeroU32,
    }

    /// Properties of a will (MQTT 3.1.3.2).
    WillProperties, subscription ids: false {
        /// Whether the payload is UTF-8.
        0x01 payload_is_text: bool,
        /// Seconds that the message stays valid.
        0x02 expiry: u32,
        /// Content type.
        0x03 content_type: &'a str,
        /// Where to send a response.
        0x08 response_topic: &'a str,
        /// What a response has to carry.
        0x09 correlation_data: &'a [u8],
        /// Seconds between the loss of the connection and the will.
        0x18 delay: u32,
    }

    /// Properties of CONNACK (MQTT 3.2.2.3).
    ConnAckProperties, subscription ids: false {
        /// Seconds that the session outlives the connection.
        0x11 session_expiry: u32,
        /// The client identifier that the server chose.
        0x12 assigned_client_id: &'a str,
        /// Keep-alive in seconds that the client has to use.
        0x13 server_keep_alive: u16,
        /// Authentication method.
        0x15 auth_method: &'a str,
        /// Authentication data.
        0x16 auth_data: &'a [u8],
        /// What response topics may begin with.
        0x1a response_info: &'a str,
        /// Another server to use.
        0x1c server_reference: &'a str,
        /// The reason in words.
        0x1f reason_string: &'a str,
        /// Messages with QoS 1 and 2 that the server takes at once.
        0x21 receive_max: NonZeroU16,
        /// Highest topic alias that the server takes.
        0x22 topic_alias_max: u16,
        /// The highest QoS that the server takes: 0 if false, 1 if true; absent: 2.
        0x24 qos_max: bool,
        /// Whether the server retains messages.
        0x25 retain_available: bool,
        /// Bytes of the largest packet that the server takes.
        0x27 packet_size_max: NonZeroU32,
        /// Whether filters may have wildcards.
        0x28 wildcards_available: bool,
        /// Whether subscriptions may have identifiers.
        0x29 subscription_ids_available: bool,
        /// Whether subscriptions may be shared.
        0x2a shared_available: bool,
    }

    /// Properties of PUBLISH (MQTT 3.3.2.3).
    PublishProperties, subscription ids: true {
        /// Whether the payload is UTF-8.
        0x01 payload_is_text: bool,
        /// Seconds that the message stays valid.
        0x02 expiry: u32,
        /// Content type.
        0x03 content_type: &'a str,
        /// Where to send a response.
        0x08 response_topic: &'a str,
        /// What a response has to carry.
        0x09 correlation_data: &'a [u8],
        /// The number that stands for the topic.
        0x23 topic_alias: NonZeroU16,
    }

    /// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    AckProperties, subscription ids: false {
        /// The reason in words.
        0x1f reason_string: &'a str,
    }

    /// Properties of SUBSCRIBE (MQTT 3.8.2.1).
    SubscribeProperties, subscription ids: false {
        /// Subscription identifier.
        0x0b subscription_id: Variable,
    }

    /// Properties of UNSUBSCRIBE (MQTT 3.10.2.1).
    UnsubscribeProperties, subscription ids: false {}

    /// Properties of DISCONNECT (MQTT 3.14.2.2).
    DisconnectProperties, subscription ids: false {
        /// Seconds that the session outlives the connection, instead of what CONNECT said.
        0x11 session_expiry: u32,
        /// Another server to use.
        0x1c server_reference: &'a str,
        /// The reason in words.
        0x1f reason_string: &'a str,
    }

    /// Properties of AUTH (MQTT 3.15.2.2).
    AuthProperties, subscription ids: false {
        /// Authentication method.
        0x15 auth_method: &'a str,
        /// Authentication data.
        0x16 auth_data: &'a [u8],
        /// The reason in words.
        0x1f reason_string: &'a str,
    }
}

/// What can be written as a property block.
pub(super) trait Block {
    /// Writes the block, with the user properties but without subscription identifiers.
    fn put(&self, out: &mut dyn Sink);
}

impl PublishProperties<'_> {
    /// Appends these properties as a block that [`PublishProperties::parse`] reads, to keep them
    /// beside a message: without subscription identifiers.
    pub fn put_block(&self, out: &mut Vec<u8>) {
        self.put(out);
    }
}

impl<'a> WillProperties<'a> {
    /// The properties of the will when it is published (MQTT 3.1.3.2): all but the delay.
    pub fn as_publish(&self) -> PublishProperties<'a> {
        PublishProperties {
            payload_is_text: self.payload_is_text,
            expiry: self.expiry,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            topic_alias: None,
            repeated: self.repeated,
        }
    }
}

/// The properties that may come more than once, inside the block they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeated<'a>(&'a [u8]);

impl<'a> Repeated<'a> {
    /// None.
    pub const NONE: Self = Self(&[]);

    /// User properties, name and value, in order.
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values(USER).filter_map(|mut reader| Some((reader.text().ok()?, reader.text().ok()?)))
    }

    /// Subscription identifiers of a PUBLISH, in order.
    pub fn subscription_ids(self) -> impl Iterator<Item = u32> {
        self.values(SUBSCRIPTION_ID).filter_map(|mut reader| reader.variable().ok())
    }

    /// A reader at each property `wanted`.
    fn values(self, wanted: u8) -> impl Iterator<Item = Reader<'a>> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            loop {
                let id = reader.u8().ok()?;
                let value = reader;
                skip(id, &mut reader).ok()?;
                if id == wanted {
                    return Some(value);
                }
            }
        })
    }
}

/// Skips the value of a property (MQTT 2.2.2.2, table 2-4).
fn skip(id: u8, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(reader.take(1)?),
        0x13 | 0x21 | 0x22 | 0x23 => drop(reader.take(2)?),
        0x02 | 0x11 | 0x18 | 0x27 => drop(reader.take(4)?),
        SUBSCRIPTION_ID => drop(reader.variable()?),
        USER => drop((reader.binary()?, reader.binary()?)),
        _ => drop(reader.binary()?),
    }
    Ok(())
}

/// Reads a property that must not have been there before.
fn once<'a, V: Value<'a>>(
    slot: &mut Option<V>,
    id: u8,
    reader: &mut Reader<'a>,
) -> Result<(), Malformed> {
    if slot.is_some() {
        return Err(Malformed::PropertyTwice(id));
    }
    let value = V::read(reader).map_err(|error| match error {
        Malformed::PropertyValue(_) => Malformed::PropertyValue(id),
        other => other,
    })?;
    *slot = Some(value);
    Ok(())
}

/// A value of a property.
trait Value<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    fn put(&self, out: &mut dyn Sink);
}

impl<'a> Value<'a> for bool {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.u8()? {
            0x00 => Ok(false),
            0x01 => Ok(true),
            _ => Err(Malformed::PropertyValue(0)),
        }
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put(&[u8::from(*self)]);
    }
}

impl<'a> Value<'a> for u16 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.u16()
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.to_be_bytes());
    }
}

impl<'a> Value<'a> for u32 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.u32()
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.to_be_bytes());
    }
}

impl<'a> Value<'a> for NonZeroU16 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Self::new(reader.u16()?).ok_or(Malformed::PropertyValue(0))
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.get().to_be_bytes());
    }
}

impl<'a> Value<'a> for NonZeroU32 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Self::new(reader.u32()?).ok_or(Malformed::PropertyValue(0))
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.get().to_be_bytes());
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.text()
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put_binary(self.as_bytes());
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.binary()
    }

    fn put(&self, out: &mut dyn Sink) {
        out.put_binary(self);
    }
}

/// A subscription identifier: a variable byte integer other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable(pub u32);

impl<'a> Value<'a> for Variable {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.variable()? {
            0 => Err(Malformed::PropertyValue(SUBSCRIPTION_ID)),
            value => Ok(Self(value)),
        }
    }

    fn put(&self, out: &mut dyn Sink) {
        put_variable(out, self.0);
    }
}
