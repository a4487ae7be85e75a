//! The second factor of a user: codes that an authenticator shows for 30 seconds (TOTP, RFC 6238),
//! and recovery codes for when there is no authenticator at hand.

use std::fmt;

use base::Timestamp;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long a code is shown.
const STEP_MS: i64 = 30_000;

/// Digits of a code; below 10⁶.
const DIGITS: usize = 6;

/// Recovery codes that a user gets.
pub const RECOVERY_CODES: usize = 10;

/// Random bytes of a secret (RFC 4226, 4, R6: 160 bits).
pub const SECRET_BYTES: usize = 20;

/// Random bytes of a recovery code: sixteen letters and digits.
pub const RECOVERY_BYTES: usize = 10;

/// A part of a user's record. The secret has to be readable here, for codes are made of it; it is in
/// no listing, trail or log.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecondFactor {
    /// What codes are checked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<Active>,
    /// The secret that is to be used once its first code has been shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enrolled: Option<Secret>,
}

/// What is shared with an authenticator, in Base32.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Secret(String);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Active {
    secret: Secret,
    since: Timestamp,
    /// The 30 seconds whose code was the last that was taken: each is taken once, and in order.
    last_step: i64,
    /// SHA-256 of the recovery codes that are left, in hexadecimal.
    recovery: Vec<String>,
}

/// A code that was right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// One of an authenticator, for the 30 seconds with this number.
    Step(i64),
    /// A recovery code, and how many are left.
    Recovery(usize),
}

/// Without the secret, which has no place in a log.
impl fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondFactor").field("active", &self.is_active()).finish_non_exhaustive()
    }
}

impl SecondFactor {
    /// Whether there is none: records do not store it.
    pub const fn is_none(&self) -> bool {
        self.active.is_none() && self.enrolled.is_none()
    }

    /// Whether logins need a code.
    pub const fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// How many recovery codes are left.
    pub fn recovery_left(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.recovery.len())
    }

    /// The same factor with a new secret, which counts when a code of it is confirmed; and that
    /// secret, in Base32. What was active stays so until then.
    pub fn enrol(&self, random: [u8; SECRET_BYTES]) -> (Self, String) {
        let secret = BASE32_NOPAD.encode(&random);
        (Self { enrolled: Some(Secret(secret.clone())), ..self.clone() }, secret)
    }

    /// Whether a secret waits to be confirmed.
    pub const fn is_enrolled(&self) -> bool {
        self.enrolled.is_some()
    }

    /// The factor after the first code of a new secret, and the recovery codes; none if the code is
    /// wrong. `now` is what the wall clock shows.
    pub fn confirm(
        &self,
        code: &str,
        random: [[u8; RECOVERY_BYTES]; RECOVERY_CODES],
        now: Timestamp,
    ) -> Option<(Self, Vec<String>)> {
        let secret = self.enrolled.clone()?;
        let last_step = secret.step_of(&digits(code)?, i64::MIN, now)?;
        let codes: Vec<_> = random.iter().map(recovery_code).collect();
        let recovery = codes.iter().filter_map(|code| hash_of(code)).collect();
        let active = Active { secret, since: now, last_step, recovery };
        Some((Self { active: Some(active), enrolled: None }, codes))
    }

    /// The factor after this code, which is never taken again; none if the code is wrong or was
    /// taken before. `taken`: the last 30 seconds whose code was taken, if the record does not say
    /// so yet.
    pub fn accept(
        &self,
        code: &str,
        taken: Option<i64>,
        now: Timestamp,
    ) -> Option<(Self, Accepted)> {
        let mut factor = self.clone();
        let active = factor.active.as_mut()?;
        if let Some(digits) = digits(code) {
            let last = taken.map_or(active.last_step, |taken| taken.max(active.last_step));
            let step = active.secret.step_of(&digits, last, now)?;
            active.last_step = step;
            return Some((factor, Accepted::Step(step)));
        }
        let hash = hash_of(code)?;
        let same = |known: &String| bool::from(known.as_bytes().ct_eq(hash.as_bytes()));
        let used = active.recovery.iter().position(same)?;
        active.recovery.remove(used);
        let left = active.recovery.len();
        Some((factor, Accepted::Recovery(left)))
    }

    /// Whether a text can be a code, by its form: an authenticator's, or one of the recovery codes
    /// that are left.
    pub fn may_be_code(&self, text: &str) -> bool {
        let left =
            |active: &Active| hash_of(text).is_some_and(|hash| active.recovery.contains(&hash));
        self.active.as_ref().is_some_and(|active| digits(text).is_some() || left(active))
    }
}

impl Secret {
    /// The 30 seconds of this code: those of now, or the ones before or after, for clocks differ
    /// (RFC 6238, 5.2); none if it is wrong, or of a time up to `last`.
    fn step_of(&self, code: &str, last: i64, now: Timestamp) -> Option<i64> {
        let key = BASE32_NOPAD.decode(self.0.as_bytes()).ok()?;
        let step = now.as_millis().div_euclid(STEP_MS);
        let mut found = None;
        for step in step - 1..=step + 1 {
            let same = bool::from(code_at(&key, step).as_bytes().ct_eq(code.as_bytes()));
            if same && step > last {
                found = found.or(Some(step));
            }
        }
        found
    }
}

/// The code of 30 seconds (RFC 6238, 4.2; RFC 4226, 5.3).
fn code_at(key: &[u8], step: i64) -> String {
    // A key may be of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else { return String::new() };
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash.last().map_or(0, |last| last & 0xf));
    let bytes = hash.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
    let number = bytes.map_or(0, u32::from_be_bytes) & 0x7fff_ffff;
    format!("{:0DIGITS$}", number % 1_000_000)
}

/// The digits of an authenticator's code, which shows them in groups; none if it is no such code.
fn digits(code: &str) -> Option<String> {
    let digits: String = code.chars().filter(|c| *c != ' ').collect();
    (digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// A recovery code in groups of four.
fn recovery_code(random: &[u8; RECOVERY_BYTES]) -> String {
    let text = BASE32_NOPAD.encode(random).to_ascii_lowercase();
    let groups: Vec<_> = text.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
    groups.join("-")
}

/// The hash of a recovery code, however its letters and groups are written; none if it is no such
/// code. It has 80 random bits: nobody tries them all.
fn hash_of(code: &str) -> Option<String> {
    let plain: String = code.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let plain = plain.to_ascii_uppercase();
    let is_one = plain.len() == 16 && BASE32_NOPAD.decode(plain.as_bytes()).is_ok();
    is_one.then(|| HEXLOWER.encode(&Sha256::digest(plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; SECRET_BYTES] = b"12345678901234567890";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// An active factor, whose last code is that of 59 s, and its recovery codes.
    fn active() -> (SecondFactor, Vec<String>) {
        let (factor, _) = SecondFactor::default().enrol(*KEY);
        let random = std::array::from_fn(|index| [index as u8; RECOVERY_BYTES]);
        factor.confirm("287082", random, at(59)).expect("the right code")
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, the last six digits.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_at(KEY, seconds / 30), code);
        }
        let (_, secret) = SecondFactor::default().enrol(*KEY);
        assert_eq!(secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn clocks_may_differ_by_one_step() {
        let secret = Secret(BASE32_NOPAD.encode(KEY));
        let code = code_at(KEY, 10);
        let found = |seconds| secret.step_of(&code, i64::MIN, at(seconds));
        assert_eq!(
            [269, 270, 300, 359, 360].map(found),
            [None, Some(10), Some(10), Some(10), None]
        );
    }

    #[test]
    fn a_code_is_taken_once_and_none_before_it() {
        let (factor, _) = active();
        assert!(factor.is_active() && !factor.is_enrolled());
        assert_eq!(factor.accept("287082", None, at(59)), None, "confirmed with it");
        let next = code_at(KEY, 2);
        let (factor, accepted) = factor.accept(&next, None, at(59)).expect("the next one");
        assert_eq!(accepted, Accepted::Step(2));
        assert_eq!(factor.accept(&next, None, at(61)), None);
        let later = code_at(KEY, 3);
        assert_eq!(factor.accept(&later, Some(3), at(91)), None, "taken, and not stored");
        let spaced = format!("{} {}", &later[..3], &later[3..]);
        assert!(factor.accept(&spaced, None, at(91)).is_some());
        for wrong in ["", "12345", "1234567", "12345a", "000000"] {
            assert_eq!(factor.accept(wrong, None, at(91)), None, "{wrong}");
        }
    }

    #[test]
    fn a_recovery_code_is_taken_once() {
        let (mut factor, codes) = active();
        assert_eq!(codes.len(), RECOVERY_CODES);
        assert_eq!(codes[0], "aaaa-aaaa-aaaa-aaaa");
        for (index, code) in codes.iter().enumerate() {
            assert!(factor.may_be_code(code));
            let shouted = code.to_uppercase().replace('-', "");
            let (rest, accepted) = factor.accept(&shouted, None, at(0)).expect("one of them");
            assert_eq!(accepted, Accepted::Recovery(RECOVERY_CODES - 1 - index));
            assert_eq!(rest.accept(code, None, at(0)), None);
            assert!(!rest.may_be_code(code));
            factor = rest;
        }
        assert!(factor.is_active());
    }

    #[test]
    fn a_new_secret_counts_when_it_is_confirmed() {
        let (factor, _) = active();
        let (changing, _) = factor.enrol([1; SECRET_BYTES]);
        assert!(changing.accept(&code_at(KEY, 2), None, at(60)).is_some());
        let random = [[0; RECOVERY_BYTES]; RECOVERY_CODES];
        assert!(changing.confirm(&code_at(KEY, 2), random, at(60)).is_none());
        let code = code_at(&[1; SECRET_BYTES], 2);
        let (changed, _) = changing.confirm(&code, random, at(60)).expect("the new one's");
        assert!(changed.accept(&code_at(KEY, 3), None, at(60)).is_none());
        assert!(!format!("{changed:?}").contains(&BASE32_NOPAD.encode(&[1; SECRET_BYTES])));
        let stored = serde_json::to_string(&changed).expect("JSON");
        assert_eq!(serde_json::from_str::<SecondFactor>(&stored).expect("read"), changed);
    }

    #[test]
    fn what_may_be_a_code_is_told_from_passwords() {
        let (factor, codes) = active();
        for (text, expected) in
            [("123456", true), ("12345", false), ("password-1234567", false), (&codes[3], true)]
        {
            assert_eq!(factor.may_be_code(text), expected, "{text}");
        }
        assert!(!SecondFactor::default().may_be_code("123456"));
    }
}
