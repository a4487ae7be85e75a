//! Identifiers, one type for each kind, so that no function takes two strings that could be
//! swapped.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {0} hexadecimal digits")]
pub struct NotAnId(usize);

/// Identifiers of 24 hexadecimal digits (`docs/protocol/tr50.md` 2, "Ids").
macro_rules! object_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 12]);

        impl $name {
            /// The id with these 12 bytes.
            pub const fn from_bytes(bytes: [u8; 12]) -> Self {
                Self(bytes)
            }

            /// The 12 bytes, for keys in the store.
            pub const fn as_bytes(&self) -> &[u8; 12] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                from_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex::<24>(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex::<24>(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_hex::<24, S>(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_hex(deserializer).map(Self)
            }
        }
    )*};
}

object_ids! {
    /// An organisation.
    OrgId;
    /// A user.
    UserId;
    /// A role.
    RoleId;
    /// An application definition.
    ApplicationId;
    /// The handle of an application token; not the token.
    TokenId;
    /// A thing.
    ThingId;
    /// A thing definition.
    ThingDefId;
    /// A file.
    FileId;
    /// A webhook.
    WebhookId;
    /// A mail: the milliseconds of its creation (6 bytes), then random bits, so that ids are in order.
    MailId;
}

/// The secret under which a file is moved over HTTP: 24 hexadecimal digits, the `fileId` of
/// `file.put` and `file.get` (`docs/protocol/tr50.md` 4.3). Whoever has it may move the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId([u8; 12]);

impl TicketId {
    /// The id made of 12 random bytes.
    pub const fn from_random(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The id itself. For the one who asked for it, and nobody else.
    pub fn secret(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads an id as a client sends it.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).ok().map(Self)
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketId(secret)")
    }
}

/// The secret id of a session: 24 hexadecimal digits. Whoever has it is the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; 24]);

impl SessionId {
    /// The id made of 12 random bytes.
    pub fn from_random(bytes: [u8; 12]) -> Self {
        let mut text = [0; 24];
        HEXLOWER.encode_mut(&bytes, &mut text);
        Self(text)
    }

    /// The id itself. For the one who logged in, and nobody else.
    pub fn secret(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Reads an id as a client sends it: exactly 24 hexadecimal digits, as they were given out.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 24] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(bytes))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(secret)")
    }
}

/// The public handle of a session: SHA-256 of its secret id's 24 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef([u8; 32]);

impl SessionRef {
    /// The handle of the session with this secret id.
    pub fn of(id: &SessionId) -> Self {
        Self(Sha256::digest(id.0).into())
    }

    /// The handle with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for keys in the store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The same handle for dialects that name sessions by UUID.
    pub fn uuid(&self) -> SessionUuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        SessionUuid(Uuid::new_v8(bytes))
    }
}

impl FromStr for SessionRef {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex::<64>(&self.0, f)
    }
}

impl fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex::<64>(&self.0, f)
    }
}

impl Serialize for SessionRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_hex::<64, S>(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for SessionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_hex(deserializer).map(Self)
    }
}

/// A session's handle in the dialects of Element and Cognite: a UUID of version 8 (RFC 9562, 5.8)
/// whose 122 free bits are the first ones of its [`SessionRef`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct SessionUuid(Uuid);

impl SessionUuid {
    /// The UUID with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for SessionUuid {
    type Err = uuid::Error;

    /// Reads the usual form of 36 characters, and none of the others that a UUID can have.
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(|uuid: Hyphenated| Self(uuid.into()))
    }
}

impl fmt::Display for SessionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key of a thing: what the device calls itself, unique in its organisation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ThingKey(std::sync::Arc<str>);

/// A text that can't be a thing's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a thing key has 1 to {} bytes and no control character, '/', '+' or '#'",
    ThingKey::BYTES_MAX
)]
pub struct NotAThingKey;

impl ThingKey {
    /// The longest key in bytes. Clients stop at 64 (`docs/protocol/tr50.md` 1.1, "key length");
    /// the rest is room for those that put two identifiers together.
    pub const BYTES_MAX: usize = 128;

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, NotAThingKey> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        let plain = !text.chars().any(|c| c.is_control() || matches!(c, '/' | '+' | '#'));
        if fits && plain { Ok(Self(text.into())) } else { Err(NotAThingKey) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ThingKey {
    type Error = NotAThingKey;

    fn try_from(text: String) -> Result<Self, NotAThingKey> {
        Self::parse(&text)
    }
}

impl From<ThingKey> for String {
    fn from(key: ThingKey) -> Self {
        (*key.0).to_owned()
    }
}

impl fmt::Display for ThingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], NotAnId> {
    let mut bytes = [0; N];
    // Of any other length it would panic.
    if text.len() != 2 * N {
        return Err(NotAnId(2 * N));
    }
    let read = HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes);
    read.map(|_| bytes).map_err(|_| NotAnId(2 * N))
}

fn write_hex<const DIGITS: usize>(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(HEXLOWER.encode_mut_str(bytes, &mut [0; DIGITS]))
}

fn serialize_hex<const DIGITS: usize, S: Serializer>(
    bytes: &[u8],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(HEXLOWER.encode_mut_str(bytes, &mut [0; DIGITS]))
}

fn deserialize_hex<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    from_hex(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written_as_hexadecimal() {
        let id: OrgId = "52fbe4028a3a515d4aded7f1".parse().expect("24 digits");
        assert_eq!(id.to_string(), "52fbe4028a3a515d4aded7f1");
        assert_eq!("52FBE4028a3a515d4aded7F1".parse(), Ok(id));
        for bad in [
            "",
            "52fbe4028a3a515d4aded7f",
            "52fbe4028a3a515d4aded7f1a",
            "52fbe4028a3a515d4aded7fz",
            "52fbe4028a3a515d4aded7 1",
            "52fbe4028a3a515d4aded7f\n",
            "é2fbe4028a3a515d4aded7f",
        ] {
            assert_eq!(bad.parse::<OrgId>(), Err(NotAnId(24)), "{bad:?}");
        }
    }

    #[test]
    fn a_ref_is_the_sha256_of_the_24_characters() {
        let id = SessionId::from_random([0xab; 12]);
        assert_eq!(id.secret(), "abababababababababababab");
        let expected: [u8; 32] = Sha256::digest("abababababababababababab").into();
        assert_eq!(SessionRef::of(&id), SessionRef::from_bytes(expected));
        assert_eq!(format!("{id:?}"), "SessionId(secret)");
    }

    #[test]
    fn a_uuid_is_the_beginning_of_the_ref() {
        let reference = SessionRef::from_bytes([0xff; 32]);
        let uuid = reference.uuid();
        assert_eq!(uuid.to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!("FFFFFFFF-FFFF-8FFF-BFFF-FFFFFFFFFFFF".parse(), Ok(uuid));
        for bad in [
            "",
            "ffffffffffff8fffbfffffffffffffff",
            "fffffffff-fff-8fff-bfff-ffffffffffff",
            "ffffffff-ffff-8fff-bfff-fffffffffff",
            "gfffffff-ffff-8fff-bfff-ffffffffffff",
            "{fffffff-ffff-8fff-bfff-fffffffffff}",
            "{ffffffff-ffff-8fff-bfff-ffffffffffff}",
            "urn:uuid:ffffffff-ffff-8fff-bfff-ffffffffffff",
            " ffffffff-ffff-8fff-bfff-ffffffffffff",
            "+fffffff-ffff-8fff-bfff-ffffffffffff",
            "-fffffff-ffff-8fff-bfff-ffffffffffff",
            "ffffffff-ffff-8fff-bfff-ffffffffffé",
        ] {
            assert!(bad.parse::<SessionUuid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn thing_keys_can_not_break_a_topic() {
        assert!(ThingKey::parse("mower-1").is_ok());
        for bad in ["", "a/b", "a+", "#", "a\nb", &"x".repeat(129)] {
            assert_eq!(ThingKey::parse(bad), Err(NotAThingKey), "{bad:?}");
        }
    }
}
