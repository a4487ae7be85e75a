//! The data types of MQTT 1.5, read from a slice.

use base::utf8;

use super::Malformed;

/// What is left of a packet.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// An error if anything is left.
    #[inline]
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let (&pair, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(pair))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        let (&four, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(four))
    }

    /// A variable byte integer inside a packet (MQTT 5 only, so written as short as can be).
    #[inline]
    pub(crate) fn variable(&mut self) -> Result<u32, Malformed> {
        let (value, size) = variable(self.0)?.ok_or(Malformed::Truncated)?;
        self.take(size)?;
        if size > 1 && value >> (7 * (size - 1)) == 0 {
            return Err(Malformed::VariableInteger);
        }
        Ok(value)
    }

    /// Binary data: two bytes of length, then the bytes (MQTT 1.5.6).
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Text: two bytes of length, then UTF-8 without U+0000 (MQTT 1.5.4).
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = self.utf8()?;
        if text.as_bytes().contains(&0) {
            return Err(Malformed::Nul);
        }
        Ok(text)
    }

    /// A topic name, maybe empty: text without wildcards (MQTT 4.7.1). Names are short, so that a
    /// plain loop is the fastest.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<&'a str, Malformed> {
        let name = self.utf8()?;
        match name.bytes().find(|byte| matches!(byte, 0x00 | b'+' | b'#')) {
            None => Ok(name),
            Some(0x00) => Err(Malformed::Nul),
            Some(_) => Err(Malformed::TopicWildcard),
        }
    }

    #[inline]
    fn utf8(&mut self) -> Result<&'a str, Malformed> {
        utf8::text(self.binary()?).map_err(|_| Malformed::Utf8)
    }
}

/// Reads a variable byte integer (MQTT 1.5.5): its value and the bytes it takes; `None` if it goes
/// on after the end of `bytes`.
#[inline]
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed::VariableInteger) }
}
