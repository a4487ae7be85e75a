//! Texts that listings look for: names with `*` for anything, words anywhere, beginnings of
//! addresses.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// A name in which `*` stands for any text. Case counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// Before the first `*`.
    prefix: Box<str>,
    /// Behind each `*`; none: the name is just the prefix.
    pieces: Box<[Box<str>]>,
}

impl Pattern {
    /// Reads a pattern; every text is one.
    pub fn read(text: &str) -> Self {
        let mut pieces = text.split('*').map(Box::from);
        let prefix = pieces.next().unwrap_or_default();
        Self { prefix, pieces: pieces.collect() }
    }

    /// All names that begin so, whatever is in the text.
    pub fn beginning(text: &str) -> Self {
        Self { prefix: text.into(), pieces: Box::new([Box::default()]) }
    }

    /// What every name that matches begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether all names that begin with [`Pattern::prefix`] match.
    pub fn is_prefix(&self) -> bool {
        matches!(&*self.pieces, [only] if only.is_empty())
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        let Some(mut rest) = name.strip_prefix(&*self.prefix) else { return false };
        let Some((last, pieces)) = self.pieces.split_last() else { return rest.is_empty() };
        for piece in pieces {
            match rest.split_once(&**piece) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(&**last)
    }
}

/// Words of which each has to occur somewhere, in any case.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Words(Box<[Box<str>]>);

impl Words {
    /// Reads words with blanks between them.
    pub fn read(text: &str) -> Self {
        Self(text.split_whitespace().map(|word| word.to_lowercase().into()).collect())
    }

    /// Whether there is none, which occurs everywhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each occurs in one of these texts.
    pub fn occur_in(&self, texts: &[&str]) -> bool {
        self.0.iter().all(|word| texts.iter().any(|text| contains(text, word)))
    }
}

/// Whether a word in lower case is in a text.
fn contains(text: &str, word: &str) -> bool {
    if !text.is_ascii() || !word.is_ascii() {
        return text.to_lowercase().contains(word);
    }
    let (text, word) = (text.as_bytes(), word.as_bytes());
    text.windows(word.len().max(1)).any(|part| part.eq_ignore_ascii_case(word)) || word.is_empty()
}

/// The beginning of an `ip:port`, read once so that addresses need not be written to be compared.
#[derive(Clone, Debug)]
pub struct AddressPrefix {
    text: Box<str>,
    v4: Option<V4Prefix>,
}

#[derive(Clone, Debug)]
struct V4Prefix {
    /// The octets that are there in full, behind them zeros; and how many they are.
    octets: (u32, usize),
    /// What the next one, or behind four the port, begins with.
    next: NumberPrefix,
}

/// The beginning of a decimal number: the numbers of one digit to five that begin so, from the first
/// to the last of each length.
#[derive(Clone, Copy, Debug)]
struct NumberPrefix([(u32, u32); 5]);

impl NumberPrefix {
    fn read(text: &str) -> Option<Self> {
        const NONE: (u32, u32) = (1, 0);
        if text.is_empty() {
            return Some(Self([(0, u32::MAX), NONE, NONE, NONE, NONE]));
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = plain && text.len() <= 5 && (text.len() == 1 || !text.starts_with('0'));
        let begin: u32 = text.parse().ok().filter(|_| plain)?;
        // Nothing but 0 begins with 0.
        let longer = |power| if begin == 0 && power > 1 { NONE } else { (begin, begin + 1) };
        Some(Self([1, 10, 100, 1000, 10_000].map(|power| match longer(power) {
            NONE => NONE,
            (from, to) => (from * power, to * power - 1),
        })))
    }

    #[inline]
    fn begins(&self, number: u32) -> bool {
        // All in one step.
        let has = |(from, to): &(u32, u32)| (*from <= number) & (number <= *to);
        self.0.iter().fold(false, |begins, range| begins | has(range))
    }
}

impl V4Prefix {
    fn read(text: &str) -> Option<Self> {
        let (ip, port) = match text.split_once(':') {
            Some((ip, port)) => (ip, Some(port)),
            None => (text, None),
        };
        let parts: Vec<&str> = ip.split('.').collect();
        let full = if port.is_some() { parts.len() } else { parts.len() - 1 };
        if full > 4 || parts.len() > 4 || (port.is_some() && full != 4) {
            return None;
        }
        let mut octets = [0; 4];
        for (octet, part) in octets.iter_mut().zip(&parts[..full]) {
            *octet = part.parse().ok().filter(|octet: &u8| octet.to_string() == *part)?;
        }
        let next = NumberPrefix::read(port.unwrap_or(parts[parts.len() - 1]))?;
        // No octet begins so, such as with `2001`.
        let is_none = full < 4 && !(0..=255).any(|octet| next.begins(octet));
        (!is_none).then(|| Self { octets: (u32::from_be_bytes(octets), full), next })
    }

    #[inline]
    fn begins(&self, ip: u32, port: u16) -> bool {
        let (wanted, full) = self.octets;
        let mask = u32::MAX.checked_shl(32 - 8 * full as u32).unwrap_or_default();
        let next = match full {
            0..4 => ip >> (24 - 8 * full) & 0xff,
            _ => u32::from(port),
        };
        (ip & mask == wanted) & self.next.begins(next)
    }
}

impl AddressPrefix {
    /// Reads the beginning of an address; every text is one. That of an address of IPv6 may lack the
    /// bracket before it: `2001:db8::` as well as `[2001:db8::`.
    pub fn read(text: &str) -> Self {
        let v4 = V4Prefix::read(text);
        let text = text.to_ascii_lowercase();
        let is_bare = v4.is_none() && is_bare_v6(&text);
        let text = if is_bare { format!("[{text}") } else { text };
        Self { text: text.into(), v4 }
    }

    /// Whether an address of IPv4 begins so.
    #[inline]
    pub(super) fn begins_v4(&self, ip: u32, port: u16) -> bool {
        self.v4.as_ref().is_some_and(|prefix| prefix.begins(ip, port))
    }

    /// Whether the address begins so.
    pub fn begins(&self, address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(ip) => self.begins_v4(ip.to_bits(), address.port()),
            // They are written in brackets, which takes longer than to see that one is missing.
            IpAddr::V6(_) if !self.text.is_empty() && !self.text.starts_with('[') => false,
            IpAddr::V6(_) => {
                let mut written = String::with_capacity(64);
                // Writing to a text does not fail.
                let _ = write!(written, "{address}");
                written.starts_with(&*self.text)
            }
        }
    }
}

/// Whether an address of IPv6 could begin so, without a bracket.
fn is_bare_v6(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_people_read_them() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(Pattern::read(pattern).matches(name), expected, "{pattern} {name}");
        };
        for (pattern, name) in [
            ("mower-1", "mower-1"),
            ("mower-*", "mower-1"),
            ("*", ""),
            ("*-1", "mower-1"),
            ("*w*r*", "mower-1"),
            ("m*1*1", "m121"),
            ("a**b", "ab"),
            ("", ""),
        ] {
            check(pattern, name, true);
        }
        for (pattern, name) in [
            ("mower-1", "mower-12"),
            ("Mower*", "mower-1"),
            ("m*1*1", "m1"),
            ("ab*ba", "aba"),
            ("", "a"),
        ] {
            check(pattern, name, false);
        }
        assert!(Pattern::beginning("a*").matches("a*b") && !Pattern::beginning("a*").matches("ab"));
        assert!(Pattern::read("a*").is_prefix() && !Pattern::read("a*b").is_prefix());
        assert!(!Pattern::read("a").is_prefix());
    }

    #[test]
    fn words_occur_anywhere_in_any_case() {
        let words = Words::read(" Mower 12 ÄÖ ");
        assert!(words.occur_in(&["the-MOWER", "7123", "xäöx"]));
        assert!(!words.occur_in(&["the-MOWER", "713", "xäöx"]));
        assert!(Words::read(" ").is_empty() && Words::read("").occur_in(&[]));
    }

    #[test]
    fn an_address_of_ipv6_begins_with_its_bracket_or_without() {
        let address = "[2001:db8::1]:443".parse().expect("an address");
        for prefix in
            ["2001:db8::1", "2001:DB8:", "2001:", "2001", "[2001:db8", "[2001:db8::1]:4", ""]
        {
            assert!(AddressPrefix::read(prefix).begins(address), "{prefix}");
        }
        for prefix in ["2001:db9", "[2001:db8::1]:5", "2001:db8::1:443", "2", "127.", "x"] {
            assert!(!AddressPrefix::read(prefix).begins(address), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn an_address_begins_as_its_text_does(
            ip in prop_oneof![
                any::<[u8; 4]>().prop_map(IpAddr::from),
                prop::array::uniform4(prop_oneof![Just(0_u8), Just(1), Just(10), Just(100)])
                    .prop_map(IpAddr::from),
                any::<[u8; 16]>().prop_map(IpAddr::from),
            ],
            port in prop_oneof![any::<u16>(), 0..200_u16],
            length in 0..48_usize,
            other in "[0-9.:\\[]{0,9}",
        ) {
            let address = SocketAddr::new(ip, port);
            let text = address.to_string();
            let prefix = &text[..length.min(text.len())];
            prop_assert!(AddressPrefix::read(prefix).begins(address), "{text} {prefix}");
            for wrong in [format!("{prefix}{other}"), other] {
                let is_bare = V4Prefix::read(&wrong).is_none() && is_bare_v6(&wrong);
                let bare = text.strip_prefix('[').filter(|_| is_bare);
                let expected =
                    text.starts_with(&wrong) || bare.is_some_and(|bare| bare.starts_with(&wrong));
                let begins = AddressPrefix::read(&wrong).begins(address);
                prop_assert_eq!(begins, expected, "{} {}", text, wrong);
            }
        }
    }
}
