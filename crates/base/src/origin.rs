//! Origins of web pages (RFC 6454; the Fetch standard): which may use this server from a browser.

use std::str::FromStr;

/// A text that is no origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an origin such as https://app.example or http://localhost:3000")]
pub struct NotAnOrigin;

/// An origin as browsers write it: scheme and host in small letters, no port if it is the usual
/// one.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Origin {
    /// `*`: every origin.
    Any,
    /// One, or `null`, which pages from a file have.
    One(Box<str>),
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        match text {
            "*" => Ok(Self::Any),
            "null" => Ok(Self::One("null".into())),
            _ => normal(text).map(|origin| Self::One(origin.into())).ok_or(NotAnOrigin),
        }
    }
}

/// An origin of scheme, host and maybe port, in the form that browsers send.
fn normal(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority.get(host_end..)?.rfind(':') {
        Some(colon) => (authority.get(..host_end + colon)?, authority.get(host_end + colon + 1..)),
        None => (authority, None),
    };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(fits)
        }
    };
    let port = match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse::<u16>().ok()?),
        Some(_) => return None,
        None => None,
    };
    let usual = match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    match port.filter(|port| Some(*port) != usual) {
        _ if !scheme_fits || !host_fits => None,
        Some(port) => Some(format!("{scheme}://{host}:{port}")),
        None => Some(format!("{scheme}://{host}")),
    }
}

/// How an origin may use the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllowedAs {
    /// It is in the list.
    Listed,
    /// The list has `*`: as everybody, so without what shows who somebody is.
    Anybody,
}

/// The origins whose pages may use the server from a browser.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// The origins in a list. Blanks around each do not count, and an empty text is none.
    ///
    /// # Errors
    /// One is no origin.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, NotAnOrigin> {
        let texts = texts.map(str::trim).filter(|text| !text.is_empty());
        texts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none: then no page of another origin may.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the origin with this name, as a browser sends it, may use the server; none if it may
    /// not.
    pub fn allow(&self, origin: &str) -> Option<AllowedAs> {
        let is_it = |listed: &Origin| match listed {
            Origin::One(listed) => listed.eq_ignore_ascii_case(origin),
            Origin::Any => false,
        };
        if self.0.iter().any(is_it) {
            return Some(AllowedAs::Listed);
        }
        self.0.contains(&Origin::Any).then_some(AllowedAs::Anybody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        let check = |text: &str, expected: Option<&str>| {
            let expected = expected.map(|origin| Origin::One(origin.into()));
            assert_eq!(text.parse::<Origin>().ok(), expected, "{text}");
        };
        check("https://app.example", Some("https://app.example"));
        check("HTTPS://App.Example:443", Some("https://app.example"));
        check("http://localhost:3000", Some("http://localhost:3000"));
        check("http://127.0.0.1:80", Some("http://127.0.0.1"));
        check("http://[::1]:8080", Some("http://[::1]:8080"));
        check("http://[::1]", Some("http://[::1]"));
        check("chrome-extension://abc", Some("chrome-extension://abc"));
        check("null", Some("null"));
        for wrong in [
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/a",
            "https://me@app.example",
            "https://*.example",
            "https://a b",
            "https://a:b",
            "https://a:99999",
            "https://a:",
            "https://[::1",
            "https://[x]",
            "://a",
            "1s://a",
            "**",
            "",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_list_allows_its_own_and_a_star_everybody() {
        let origins = |texts: &[&str]| Origins::parse(texts.iter().copied());
        let some = origins(&[" http://a.example:80 ", "", "null"]).expect("a list");
        assert_eq!(some.allow("http://a.example"), Some(AllowedAs::Listed));
        assert_eq!(some.allow("null"), Some(AllowedAs::Listed));
        assert_eq!(some.allow("http://a.example:81"), None);
        assert_eq!(some.allow("https://a.example"), None);
        assert_eq!(some.allow("http://a.example.evil"), None);
        let all = origins(&["*", "http://a.example"]).expect("a list");
        assert_eq!(all.allow("http://a.example"), Some(AllowedAs::Listed));
        assert_eq!(all.allow("http://b.example"), Some(AllowedAs::Anybody));
        assert_eq!(all.allow("null"), Some(AllowedAs::Anybody));
        assert_eq!(Origins::default().allow("http://a.example"), None);
        assert!(origins(&["http://a.example", "b.example"]).is_err());
        assert!(origins(&["", " "]).expect("none").is_empty());
    }
}
