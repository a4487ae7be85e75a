//! The signature of a delivery, in the form of Standard Webhooks 1.0, for which there are libraries:
//! HMAC with SHA-256 over the delivery's id, its time and its body.

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret has to be, to end the sentence "…must be".
pub const SECRET_RULE: &str =
    "16 to 256 printable ASCII characters; after whsec_, 16 to 64 bytes in base64";

/// Before a secret that is a key in base64.
const PREFIX: &str = "whsec_";

/// Bytes of a key that the server makes.
const KEY_BYTES: usize = 32;

/// The secret that a webhook shares with its receiver.
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new one as text.
    pub fn made_of(random: &[u8; KEY_BYTES]) -> String {
        format!("{PREFIX}{}", BASE64.encode(random))
    }

    /// Reads one that follows [`SECRET_RULE`]: behind the prefix is the key in base64; of any other
    /// text, its bytes are the key.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(encoded) = text.strip_prefix(PREFIX) {
            let key = BASE64.decode(encoded.as_bytes());
            let key = key.or_else(|_| BASE64_NOPAD.decode(encoded.as_bytes())).ok()?;
            return (16..=64).contains(&key.len()).then_some(Self(key));
        }
        let is_text = text.bytes().all(|byte| byte.is_ascii_graphic());
        (is_text && (16..=256).contains(&text.len())).then(|| Self(text.as_bytes().to_vec()))
    }

    /// The value of `webhook-signature` for this id, time in Unix seconds, and body.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let code = Hmac::<Sha256>::new_from_slice(&self.0);
        let mut code = code.expect("HMAC takes keys of any length");
        code.update(format!("{id}.{seconds}.").as_bytes());
        code.update(body);
        format!("v1,{}", BASE64.encode(&code.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        // The example of the specification's reference implementations.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_texts_or_keys() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(Secret::parse(text).map(|secret| secret.0.len()), expected, "{text}");
        };
        check(&Secret::made_of(&[7; KEY_BYTES]), Some(KEY_BYTES));
        check("sixteen-bytes-ok", Some(16));
        check("fifteen-bytes-x", None);
        check(&"x".repeat(256), Some(256));
        check(&"x".repeat(257), None);
        check("has a space in it", None);
        check("has-an-\u{e4}-in-its-text", None);
        check("whsec_", None);
        check("whsec_not base64 at all!", None);
        check("whsec_AAAAAAAAAAAAAAAAAAAA", None);
        check("whsec_AAAAAAAAAAAAAAAAAAAAAA==", Some(16));
        check("whsec_AAAAAAAAAAAAAAAAAAAAAA", Some(16));
        check("", None);
    }
}
