//! The URL of a webhook, read strictly: what two programs could read in two ways is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::limits;
use hyper::Uri;

/// What a URL of a webhook has to be, to end the sentence "…must be".
pub const URL_RULE: &str = "an https or http URL in ASCII, of 2048 bytes at most, without user, \
                            password and fragment; its host a name, or an address in the usual form";

/// Where a webhook's events go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Whether over TLS.
    pub is_tls: bool,
    /// To whom.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Host and port as they are in the header `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// A host as it is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Its address.
    Address(IpAddr),
    /// Its name, to be resolved.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Target {
    /// Reads a URL that follows [`URL_RULE`].
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\');
        if text.len() > limits::WEBHOOK_URL_BYTES_MAX || !text.bytes().all(is_plain) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let is_tls = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        // From the text itself: `http::Uri` takes a port that is too large for none.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let usual = if is_tls { 443 } else { 80 };
        let port = port.map_or(Some(usual), read_port)?;
        let host = Host::parse(host)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { is_tls, host, port, authority: authority.to_owned(), path })
    }
}

fn read_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        is_host_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

/// Whether it is a name that no resolver takes for an address: `2130706433`, `0x7f.1` and `127.1`
/// are 127.0.0.1 to some.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let fits = (1..=63).contains(&label.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        fits && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|first: char| first.is_ascii_digit())
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x")));
    name.len() <= 253 && name.split('.').all(is_label) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, is_tls, host: &str, port, authority: &str, path: &str| {
            let found = Target::parse(url).unwrap_or_else(|| panic!("{url}"));
            let parts = (found.is_tls, found.host.to_string(), found.port);
            assert_eq!(parts, (is_tls, host.to_owned(), port), "{url}");
            assert_eq!((&*found.authority, &*found.path), (authority, path), "{url}");
        };
        check("https://Hooks.example/a?b=c", true, "hooks.example", 443, "Hooks.example", "/a?b=c");
        check("HTTP://hooks.example", false, "hooks.example", 80, "hooks.example", "/");
        check("http://hooks.example?q", false, "hooks.example", 80, "hooks.example", "/?q");
        check("http://1.2.3.4:8080/", false, "1.2.3.4", 8080, "1.2.3.4:8080", "/");
        check("https://[2001:db8::1]:444/x", true, "2001:db8::1", 444, "[2001:db8::1]:444", "/x");
        check("http://[::1]/x", false, "::1", 80, "[::1]", "/x");
        check("http://4you.example.", false, "4you.example.", 80, "4you.example.", "/");
        check("http://a_b.internal/", false, "a_b.internal", 80, "a_b.internal", "/");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long = format!("http://a.example/{}", "x".repeat(limits::WEBHOOK_URL_BYTES_MAX));
        for url in [
            "",
            "hooks.example",
            "/path",
            "ftp://hooks.example/",
            "mqtt://hooks.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "http:///path",
            "http://",
            "http://user@hooks.example/",
            "http://user:secret@hooks.example/",
            "http://@hooks.example/",
            "http://hooks.example/#fragment",
            "http://hooks.example#",
            "http://hooks.example:0/",
            "http://hooks.example:/",
            "http://hooks.example:65536/",
            "http://hooks.example:+80/",
            "http://hooks.example:80x/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://0177.0.0.1/",
            "http://127.0.0.1.5/",
            "http://1.2.3.256/",
            "http://a.0x7f/",
            "http://a..example/",
            "http://.example/",
            "http://-a.example/",
            "http://a%2eexample/",
            "http://[::1%25lo]/",
            "http://[::1/",
            "http://[127.0.0.1]/",
            "http://::1/",
            "http://hooks.example\\@evil.example/",
            "http:\\\\hooks.example/",
            "http://hooks example/",
            "http://hooks.example/a b",
            " http://hooks.example/",
            "http://hooks.example/\n",
            "http://hooks.example/\u{e4}",
            "http://h\u{e4}ks.example/",
            "http://\u{2460}.example/",
            &long,
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }
}
