//! The few MQTT frames that a TR50 client writes and reads, for 3.1, 3.1.1 and 5.
//!
//! Kept apart from the server's codec on purpose: a mistake there then does not cancel out in the
//! tests, and a load generator must not cost more than the server it drives.

use std::str::FromStr;

/// A version of MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// 3.1 (`MQIsdp`, level 3), the one that libtr50 speaks.
    V31,
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

impl Version {
    /// As it is written in options and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.1" => Ok(Self::V31),
            "3.1.1" => Ok(Self::V311),
            "5" => Ok(Self::V5),
            _ => Err("not one of 3.1, 3.1.1, 5".to_owned()),
        }
    }
}

/// What a CONNECT says.
pub(crate) struct Connect<'a> {
    /// The version, which decides the protocol name and level.
    pub version: Version,
    /// The client id.
    pub client_id: &'a str,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
    /// Seconds between two packets at most; 0 turns the rule off.
    pub keep_alive_s: u16,
}

/// A text longer than the 65,535 bytes that MQTT has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id, user name or password has at most 65535 bytes")]
pub struct TooLong;

impl Connect<'_> {
    /// Appends the frame, with a clean session and no will.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let mut body = Vec::with_capacity(64);
        let (name, level) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        put_text(name, &mut body)?;
        let flags = if self.login.is_some() { 0xc2 } else { 0x02 };
        body.extend_from_slice(&[level, flags]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            body.push(0);
        }
        put_text(self.client_id, &mut body)?;
        if let Some((user, password)) = self.login {
            put_text(user, &mut body)?;
            put_text(password, &mut body)?;
        }
        out.push(0x10);
        put_length(body.len(), out);
        out.extend_from_slice(&body);
        Ok(())
    }
}

/// Appends a PUBLISH to `api/<id>`, QoS 1 if it has a packet id.
pub(crate) fn put_request(
    version: Version,
    packet_id: Option<u16>,
    id: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    const PREFIX: &[u8] = b"api/";
    let mut digits = [0; 10];
    let digits = decimal(id, &mut digits);
    let topic_len = PREFIX.len() + digits.len();
    let packet_id_len = if packet_id.is_some() { 2 } else { 0 };
    let properties_len = usize::from(version == Version::V5);
    out.push(if packet_id.is_some() { 0x32 } else { 0x30 });
    put_length(2 + topic_len + packet_id_len + properties_len + payload.len(), out);
    out.extend_from_slice(&[0, topic_len as u8]);
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(digits);
    if let Some(packet_id) = packet_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        out.push(0);
    }
    out.extend_from_slice(payload);
}

/// Appends the PUBACK of a packet.
pub(crate) fn put_puback(packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// A PINGREQ.
pub(crate) const PINGREQ: &[u8] = &[0xc0, 0];

/// A DISCONNECT; in MQTT 5 the short form of "normal disconnection".
pub(crate) const DISCONNECT: &[u8] = &[0xe0, 0];

/// A whole frame: type and flags, and what follows its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame<'a> {
    /// The first byte.
    pub first: u8,
    /// The rest.
    pub body: &'a [u8],
}

/// Bytes that are not MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent something that is not MQTT: {0}")]
pub struct NotMqtt(pub &'static str);

/// The first frame of `input` and the bytes it takes; `None` if more must come.
pub(crate) fn scan(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, NotMqtt> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let Some((length, length_bytes)) = read_varint(rest)? else {
        return Ok(None);
    };
    let start = 1 + length_bytes;
    let frame = input.get(start..start + length);
    Ok(frame.map(|body| (Frame { first, body }, start + length)))
}

/// A PUBLISH from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Publish<'a> {
    /// The topic.
    pub topic: &'a [u8],
    /// The packet id, of QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a PUBLISH; `None` if it is another frame.
    pub(crate) fn publish(&self, version: Version) -> Result<Option<Publish<'a>>, NotMqtt> {
        if self.first >> 4 != 3 {
            return Ok(None);
        }
        let cut = NotMqtt("a PUBLISH that ends too soon");
        let (length, rest) = split_u16(self.body).ok_or(cut)?;
        let (topic, mut rest) = rest.split_at_checked(usize::from(length)).ok_or(cut)?;
        let mut packet_id = None;
        if self.first & 0x06 != 0 {
            let (id, after) = split_u16(rest).ok_or(cut)?;
            (packet_id, rest) = (Some(id), after);
        }
        if version == Version::V5 {
            rest = split_properties(rest).ok_or(cut)?.1;
        }
        Ok(Some(Publish { topic, packet_id, payload: rest }))
    }

    /// Reads a CONNACK; `None` if it is another frame.
    pub(crate) fn connack(&self, version: Version) -> Result<Option<ConnAck>, NotMqtt> {
        if self.first != 0x20 {
            return Ok(None);
        }
        let cut = NotMqtt("a CONNACK that ends too soon");
        let (&[_, code], rest) = self.body.split_first_chunk::<2>().ok_or(cut)?;
        let mut receive_max = u16::MAX;
        // A server that knows no MQTT 5 refuses with the two bytes of 3.1.1.
        if version == Version::V5 && !rest.is_empty() {
            let (properties, _) = split_properties(rest).ok_or(cut)?;
            receive_max = receive_maximum(properties).unwrap_or(u16::MAX);
        }
        Ok(Some(ConnAck { code, receive_max }))
    }
}

/// The server's answer to CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnAck {
    /// 0, or why not.
    pub code: u8,
    /// QoS 1 requests that may wait for their PUBACK (MQTT 5, 3.2.2.3.3).
    pub receive_max: u16,
}

impl ConnAck {
    /// What the code means.
    pub(crate) fn meaning(self) -> &'static str {
        match self.code {
            0x00 => "accepted",
            0x01 | 0x84 => "this version of MQTT is not served",
            0x02 | 0x85 => "client id refused",
            0x03 | 0x88 => "server unavailable",
            0x04 | 0x86 => "bad user name or password",
            0x05 | 0x87 => "not authorised",
            0x89 => "server busy",
            0x8a => "banned",
            0x97 => "quota exceeded",
            0x9f => "connection rate exceeded",
            _ => "refused",
        }
    }
}

/// The number in a topic `reply/<number>`, as [`put_request`] made it.
pub(crate) fn reply_id(topic: &[u8]) -> Option<u32> {
    let digits = topic.strip_prefix(b"reply/")?;
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = u32::from(digit.wrapping_sub(b'0'));
        (digit < 10).then_some(number.checked_mul(10)?.checked_add(digit)?)
    })
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).map_err(|_| TooLong)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// A variable byte integer (MQTT 5, 1.5.5) and its length.
fn read_varint(input: &[u8]) -> Result<Option<(usize, usize)>, NotMqtt> {
    let mut value = 0;
    for (index, byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() >= 4 { Err(NotMqtt("a length of more than 4 bytes")) } else { Ok(None) }
}

fn split_u16(input: &[u8]) -> Option<(u16, &[u8])> {
    let (bytes, rest) = input.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*bytes), rest))
}

/// A packet's properties, and what follows them.
fn split_properties(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, length_bytes) = read_varint(input).ok()??;
    input.get(length_bytes..)?.split_at_checked(length)
}

/// The Receive Maximum among a CONNACK's properties (MQTT 5, 2.2.2.2 gives their types).
fn receive_maximum(mut properties: &[u8]) -> Option<u16> {
    while let Some((&id, rest)) = properties.split_first() {
        properties = match id {
            0x21 => return split_u16(rest).map(|(maximum, _)| maximum),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => rest.get(1..)?,
            0x13 | 0x22 => rest.get(2..)?,
            0x11 | 0x27 => rest.get(4..)?,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => skip_text(rest)?,
            0x26 => skip_text(skip_text(rest)?)?,
            _ => return None,
        };
    }
    None
}

fn skip_text(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = split_u16(input)?;
    rest.get(usize::from(length)..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn connects_are_as_the_real_clients_send_them() {
        let check = |version, login, expected: &[u8]| {
            let mut out = Vec::new();
            let connect = Connect { version, client_id: "c", login, keep_alive_s: 60 };
            connect.put(&mut out).expect("short texts");
            assert_eq!(out, expected, "{version:?}");
        };
        check(Version::V31, None, b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01c");
        let login = Some(("u", "pw"));
        check(Version::V311, login, b"\x10\x14\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x01u\0\x02pw");
        check(Version::V5, login, b"\x10\x15\0\x04MQTT\x05\xc2\0\x3c\0\0\x01c\0\x01u\0\x02pw");
    }

    #[test]
    fn requests_carry_their_number_in_the_topic() {
        let check = |version, packet_id, id, expected: &[u8]| {
            let mut out = Vec::new();
            put_request(version, packet_id, id, b"{}", &mut out);
            assert_eq!(out, expected);
        };
        check(Version::V311, None, 0, b"\x30\x09\0\x05api/0{}");
        check(Version::V31, Some(258), 42, b"\x32\x0c\0\x06api/42\x01\x02{}");
        check(Version::V5, None, u32::MAX, b"\x30\x13\0\x0eapi/4294967295\0{}");
    }

    #[test]
    fn replies_are_found_by_their_number() {
        let check = |topic: &str, id| assert_eq!(reply_id(topic.as_bytes()), id, "{topic}");
        check("reply/0", Some(0));
        check("reply/4294967295", Some(u32::MAX));
        check("reply/4294967296", None);
        check("reply/", None);
        check("reply", None);
        check("reply/1x", None);
        check("replyz/1", None);
        check("notify/mailbox_activity", None);
    }

    #[test]
    fn answers_to_connect_are_read() {
        let check = |version, bytes: &[u8], code, receive_max| {
            let (frame, length) = scan(bytes).expect("MQTT").expect("whole");
            assert_eq!(length, bytes.len());
            let connack = frame.connack(version).expect("good").expect("a CONNACK");
            assert_eq!((connack.code, connack.receive_max), (code, receive_max));
        };
        check(Version::V311, b"\x20\x02\0\x05", 5, u16::MAX);
        check(Version::V5, b"\x20\x02\0\x01", 1, u16::MAX);
        check(Version::V5, b"\x20\x03\0\0\0", 0, u16::MAX);
        check(Version::V5, b"\x20\x0c\0\0\x09\x24\x01\x1f\0\x01x\x21\0\x14", 0, 20);
    }

    #[test]
    fn what_is_cut_or_foreign_is_an_error() {
        let frame = Frame { first: 0x32, body: b"\0\x05reply" };
        assert!(frame.publish(Version::V311).is_err());
        assert!(Frame { first: 0x30, body: b"\0" }.publish(Version::V311).is_err());
        assert!(Frame { first: 0x20, body: b"\0" }.connack(Version::V311).is_err());
        assert!(scan(b"\x30\xff\xff\xff\xff\x01").is_err());
    }

    proptest! {
        #[test]
        fn a_frame_is_read_whole_or_not_at_all(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            id in any::<u32>(),
            packet_id in proptest::option::of(1_u16..),
        ) {
            for version in [Version::V31, Version::V311, Version::V5] {
                let mut out = Vec::new();
                put_request(version, packet_id, id, &payload, &mut out);
                for cut in 0..out.len() {
                    prop_assert_eq!(scan(&out[..cut]), Ok(None));
                }
                let (frame, length) = scan(&out).expect("MQTT").expect("whole");
                prop_assert_eq!(length, out.len());
                let publish = frame.publish(version).expect("good").expect("a PUBLISH");
                let topic = format!("api/{id}");
                prop_assert_eq!(publish.topic, topic.as_bytes());
                prop_assert_eq!(publish.payload, &payload[..]);
                prop_assert_eq!(publish.packet_id, packet_id);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            for version in [Version::V31, Version::V311, Version::V5] {
                if let Ok(Some((frame, length))) = scan(&input) {
                    prop_assert!(length <= input.len());
                    let _ = (frame.publish(version), frame.connack(version));
                }
            }
        }
    }
}
