//! Cursors of listings: where a page ended, signed, so that the next one continues there.
//!
//! A cursor holds the key of the last item of a page and a message authentication code over that
//! key and the query (`docs/protocol/cognite.md` A2, A3: opaque, and bound to the other
//! parameters). So a cursor that was made up, cut, or given for another organisation, principal or
//! filter is refused, and never begins at page one again. `limit` is not part of the query: clients
//! ask for less when little is left. The key of the code is in the store
//! ([`App::page_secret`](crate::app::App::page_secret)), so that cursors survive a restart.

use base::OrgId;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::error::Error;
use super::query::Query;

/// Bytes of the code: nobody hits one of 2^128 by chance.
const CODE_BYTES: usize = 16;

/// Reads and writes the cursors of one query.
pub struct Cursors<'a> {
    secret: &'a [u8],
    scope: Vec<u8>,
}

impl<'a> Cursors<'a> {
    /// Those of the listing with this name, in this organisation, with these other parameters.
    pub fn new(secret: &'a [u8], listing: &str, org: OrgId, parameters: &[u8]) -> Self {
        // No part can be longer at the cost of another: the first ends with the zero, the second
        // has always the same length.
        let scope = [listing.as_bytes(), &[0], org.as_bytes(), parameters].concat();
        Self { secret, scope }
    }

    /// The cursor behind the item with this key.
    pub fn write(&self, key: &[u8]) -> String {
        let code = self.code(key).finalize().into_bytes();
        BASE64URL_NOPAD.encode(&[key, &code[..CODE_BYTES]].concat())
    }

    /// The key in the parameter `cursor`; none without the parameter.
    ///
    /// # Errors
    ///
    /// It is not a cursor of this query.
    pub fn read<const N: usize>(&self, query: &Query<'_>) -> Result<Option<[u8; N]>, Error> {
        let Some(text) = query.single("cursor")? else { return Ok(None) };
        let wrong = || Error::parameter("cursor", "is not one that was given for this query");
        self.opened(text).map(Some).ok_or_else(wrong)
    }

    fn opened<const N: usize>(&self, text: &str) -> Option<[u8; N]> {
        // Before it is decoded: it may have a megabyte.
        if text.len() != BASE64URL_NOPAD.encode_len(N + CODE_BYTES) {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (key, code) = bytes.split_first_chunk::<N>()?;
        self.code(key).verify_truncated_left(code).ok()?;
        (code.len() == CODE_BYTES).then_some(*key)
    }

    fn code(&self, key: &[u8]) -> Hmac<Sha256> {
        let code = Hmac::<Sha256>::new_from_slice(self.secret);
        let mut code = code.expect("a secret of any length will do");
        code.update(&(self.scope.len() as u64).to_be_bytes());
        code.update(&self.scope);
        code.update(key);
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn cursors(listing: &str, org: u8, parameters: &[u8]) -> Cursors<'static> {
        Cursors::new(&SECRET, listing, OrgId::from_bytes([org; 12]), parameters)
    }

    fn read(cursors: &Cursors<'_>, text: &str) -> Option<[u8; 4]> {
        let query = format!("cursor={text}");
        cursors.read(&Query::read(Some(&query))).ok().flatten()
    }

    #[test]
    fn a_cursor_is_good_for_its_query_only() {
        let own = cursors("sessions", 1, b"ab");
        let text = own.write(b"1234");
        assert_eq!(read(&own, &text), Some(*b"1234"));
        for other in [
            cursors("principals", 1, b"ab"),
            cursors("sessions", 2, b"ab"),
            cursors("sessions", 1, b"a"),
            cursors("sessions", 1, b"abc"),
            cursors("sessions", 1, b""),
            Cursors::new(&[8; 32], "sessions", OrgId::from_bytes([1; 12]), b"ab"),
        ] {
            assert_eq!(read(&other, &text), None);
        }
        // What moves from the scope into the key.
        assert_eq!(read(&cursors("sessions", 1, b"a"), &own.write(b"b123")), None);
    }

    #[test]
    fn no_other_text_is_a_cursor() {
        let own = cursors("sessions", 1, b"ab");
        let text = own.write(b"1234");
        for end in 0..text.len() {
            assert_eq!(read(&own, &text[..end]), None, "{end}");
        }
        for (index, old) in text.char_indices() {
            for new in ['A', 'B', '_', '=', '+', '%', '\u{e9}'].into_iter().filter(|c| *c != old) {
                let mut changed = text.clone();
                changed.replace_range(index..=index, &new.to_string());
                assert_eq!(read(&own, &changed), None, "{changed}");
            }
        }
        for wrong in ["", "cursor", "{'cursor':+'x'}", &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(read(&own, wrong), None, "{wrong}");
        }
        let none: Option<Option<[u8; 4]>> = own.read(&Query::read(None)).ok();
        assert_eq!(none, Some(None));
        let twice = format!("cursor={text}&cursor={text}");
        assert!(own.read::<4>(&Query::read(Some(&twice))).is_err());
    }
}
