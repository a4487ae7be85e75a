//! The token in each form, by which a change is known to come from a page of the same session.
//!
//! Each page shows it behind a mask of its own: pages are compressed, and the lengths of many
//! answers would else tell a text that stays the same (BREACH).

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use rules::directory::Session;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::random::random;

type Token = [u8; 32];

fn of_session(secret: &[u8; 32], session: &Session) -> Token {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    mac.update(b"form");
    mac.update(session.reference().as_bytes());
    mac.finalize().into_bytes().into()
}

/// The token as a page shows it.
pub(super) fn token(secret: &[u8; 32], session: &Session) -> String {
    let mask: Token = random().unwrap_or_default();
    let token = of_session(secret, session);
    let masked = mask.iter().zip(token).map(|(mask, byte)| mask ^ byte);
    let bytes: Vec<u8> = mask.iter().copied().chain(masked).collect();
    BASE64URL_NOPAD.encode(&bytes)
}

/// Whether a form shows the token of the session.
pub(super) fn is_right(secret: &[u8; 32], session: &Session, shown: &str) -> bool {
    let Ok(bytes) = BASE64URL_NOPAD.decode(shown.as_bytes()) else { return false };
    let Some((mask, masked)) = bytes.split_at_checked(size_of::<Token>()) else { return false };
    if masked.len() != mask.len() {
        return false;
    }
    let token: Vec<u8> = mask.iter().zip(masked).map(|(mask, byte)| mask ^ byte).collect();
    token.ct_eq(&of_session(secret, session)).into()
}
