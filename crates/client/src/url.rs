//! URLs of servers, with the login inside: `mqtt://user:password@host:port`.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base::Protocol;
use data_encoding::HEXLOWER;
use mqtt::Version;
use percent_encoding::percent_decode_str;

/// The application id of a thing's login when the URL names none.
const APP_ID: &str = "tr50d";

/// A server and a login: `SCHEME://USER:PASSWORD@HOST:PORT/?OPTIONS`.
///
/// USER with an `@` (written `%40`, or as it is) is a user's e-mail address, any other is a thing
/// key whose password is an application token (`docs/protocol/tr50.md` 1.1, "user login" and "app
/// login").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// The scheme: what is spoken, and whether through TLS.
    pub protocol: Protocol,
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// The port, or the scheme's own.
    pub port: u16,
    /// Who logs in.
    pub login: Login,
    /// `app_id`: the application id of a thing's login, also its MQTT client id. `tr50d` if absent.
    pub app_id: String,
    /// `client_id`: the MQTT client id, if it is to differ from what the login suggests.
    pub client_id: Option<String>,
    /// `version`: the version of MQTT; 3.1.1 if absent.
    pub version: Version,
    /// How the server's certificate is checked.
    pub trust: Trust,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody: the URL has no user.
    None,
    /// A person.
    User {
        /// The e-mail address.
        email: String,
        /// The account's password.
        password: String,
    },
    /// A device.
    Thing {
        /// The thing's key; empty where only the token is given (`mqtt://:TOKEN@host`).
        key: String,
        /// The application token.
        token: String,
    },
}

impl fmt::Debug for Login {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::User { email, .. } => write!(f, "User({email})"),
            Self::Thing { key, .. } => write!(f, "Thing({key})"),
        }
    }
}

/// How a server's certificate is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Not said: against the roots that the system trusts.
    System,
    /// `ca=FILE`: against the certificates in this PEM file, issuers' or the server's own.
    Ca(PathBuf),
    /// `insecure=true`: not at all. For a test server with a certificate of its own making.
    Insecure,
}

/// A text that is not a usable URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// No `://`, or a scheme that is not served.
    #[error(
        "the URL must begin with mqtt://, mqtts://, ws://, wss://, tcp://, tcps://, http:// or \
         https://"
    )]
    Scheme,
    /// No host.
    #[error("the URL names no host")]
    Host,
    /// A port that is not a number from 1 to 65535.
    #[error("the URL's port '{0}' is not a number from 1 to 65535")]
    Port(String),
    /// A `%` without two hexadecimal digits, or digits that do not make UTF-8.
    #[error("the URL has a '%' that is not followed by the hexadecimal digits of UTF-8 text")]
    Percent,
    /// A path other than `/`.
    #[error("the URL's path '{0}' is not used; the scheme decides where commands go")]
    Path(String),
    /// An option that is not known, or a value that is not possible.
    #[error(
        "the URL's option '{0}' is not one of app_id=TEXT, client_id=TEXT, version=3.1|3.1.1|5, \
         ca=FILE, insecure=true|false"
    )]
    Option(String),
}

impl Url {
    /// The MQTT client id to connect with: what the URL says, else the application id for a thing
    /// and a new text for a user, whose every connection needs its own (`docs/protocol/tr50.md`
    /// 1.1).
    pub fn client_id(&self) -> String {
        match (&self.client_id, &self.login) {
            (Some(id), _) => id.clone(),
            (None, Login::User { .. }) => {
                let mut random = [0; 6];
                // Without randomness the process id still tells two terminals apart.
                if getrandom::fill(&mut random).is_err() {
                    return format!("tr50d-{}", std::process::id());
                }
                format!("tr50d-{}", HEXLOWER.encode(&random))
            }
            (None, _) => self.app_id.clone(),
        }
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    /// The URL without login and options, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol.as_str(), self.authority())
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Scheme)?;
        let (protocol, default_port) = read_scheme(scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last '@' ends the login: e-mail addresses are often written without escaping theirs.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (place, path) = place.split_once('/').unwrap_or((place, ""));
        if !path.is_empty() {
            return Err(BadUrl::Path(format!("/{path}")));
        }
        let (host, port) = read_place(place, default_port)?;
        let login = login.map_or(Ok(Login::None), read_login)?;
        let mut url = Self {
            protocol,
            host,
            port,
            login,
            app_id: APP_ID.to_owned(),
            client_id: None,
            version: Version::V311,
            trust: Trust::System,
        };
        query.split('&').filter(|option| !option.is_empty()).try_for_each(|o| url.set(o))?;
        Ok(url)
    }
}

impl Url {
    fn set(&mut self, option: &str) -> Result<(), BadUrl> {
        let bad = || BadUrl::Option(option.to_owned());
        let (name, value) = option.split_once('=').ok_or_else(bad)?;
        let value = percent_decoded(value)?;
        match name {
            "app_id" => self.app_id = value,
            "client_id" => self.client_id = Some(value),
            "version" => self.version = mqtt_version(&value).ok_or_else(bad)?,
            "ca" if !value.is_empty() => self.trust = Trust::Ca(value.into()),
            "insecure" if value == "true" => self.trust = Trust::Insecure,
            // Of options that contradict each other, the last counts.
            "insecure" if value == "false" && self.trust == Trust::Insecure => {
                self.trust = Trust::System;
            }
            "insecure" if value == "false" => {}
            _ => return Err(bad()),
        }
        Ok(())
    }
}

/// The version of MQTT that an option names; `None` if it is none of `3.1`, `3.1.1` and `5`.
pub fn mqtt_version(text: &str) -> Option<Version> {
    Some(match text {
        "3.1" => Version::V31,
        "3.1.1" => Version::V311,
        "5" => Version::V5,
        _ => return None,
    })
}

fn read_scheme(scheme: &str) -> Result<(Protocol, u16), BadUrl> {
    Ok(match scheme.to_ascii_lowercase().as_str() {
        "mqtt" => (Protocol::Mqtt, 1883),
        "mqtts" => (Protocol::Mqtts, 8883),
        "tcp" => (Protocol::Tcp, 5050),
        "tcps" => (Protocol::Tcps, 5051),
        "http" => (Protocol::Http, 8080),
        "https" => (Protocol::Https, 8443),
        "ws" => (Protocol::Ws, 8080),
        "wss" => (Protocol::Wss, 8443),
        _ => return Err(BadUrl::Scheme),
    })
}

fn read_place(place: &str, default_port: u16) -> Result<(String, u16), BadUrl> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or(BadUrl::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(BadUrl::Host),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(BadUrl::Host);
    }
    let port = match port {
        None => default_port,
        Some(text) => match text.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(BadUrl::Port(text.to_owned())),
        },
    };
    Ok((percent_decoded(host)?, port))
}

fn read_login(text: &str) -> Result<Login, BadUrl> {
    let (name, password) = text.split_once(':').unwrap_or((text, ""));
    let (name, password) = (percent_decoded(name)?, percent_decoded(password)?);
    Ok(match name.contains('@') {
        true => Login::User { email: name, password },
        false if name.is_empty() && password.is_empty() => Login::None,
        false => Login::Thing { key: name, token: password },
    })
}

fn percent_decoded(text: &str) -> Result<String, BadUrl> {
    // The library leaves a '%' without digits as it is; a password with one would be another.
    let is_escape = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(BadUrl::Percent);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| BadUrl::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(email: &str, password: &str) -> Login {
        Login::User { email: email.into(), password: password.into() }
    }

    fn thing(key: &str, token: &str) -> Login {
        Login::Thing { key: key.into(), token: token.into() }
    }

    #[test]
    fn urls_name_protocol_place_and_login() {
        let check = |text: &str, protocol, host: &str, port, login| {
            let url: Url = text.parse().expect(text);
            assert_eq!(
                (url.protocol, url.host.as_str(), url.port),
                (protocol, host, port),
                "{text}"
            );
            assert_eq!(url.login, login, "{text}");
        };
        check("mqtt://localhost", Protocol::Mqtt, "localhost", 1883, Login::None);
        check("mqtts://h", Protocol::Mqtts, "h", 8883, Login::None);
        check("tcp://127.0.0.1", Protocol::Tcp, "127.0.0.1", 5050, Login::None);
        check("tcps://h/", Protocol::Tcps, "h", 5051, Login::None);
        check("HTTP://h:81", Protocol::Http, "h", 81, Login::None);
        check("https://h", Protocol::Https, "h", 8443, Login::None);
        check("ws://h", Protocol::Ws, "h", 8080, Login::None);
        check("wss://h", Protocol::Wss, "h", 8443, Login::None);
        check("mqtt://[::1]:2000/", Protocol::Mqtt, "::1", 2000, Login::None);
        check("tcp://[::1]", Protocol::Tcp, "::1", 5050, Login::None);
        check("mqtt://dev-1:tok@h", Protocol::Mqtt, "h", 1883, thing("dev-1", "tok"));
        check("mqtt://:tok@h", Protocol::Mqtt, "h", 1883, thing("", "tok"));
        check("mqtt://a@b.c:pw@h:1", Protocol::Mqtt, "h", 1, user("a@b.c", "pw"));
        check("mqtt://a%40b.c:p%3Aw%2F@h", Protocol::Mqtt, "h", 1883, user("a@b.c", "p:w/"));
        check("mqtt://k:a+b%2541%C3%A9@h", Protocol::Mqtt, "h", 1883, thing("k", "a+b%41é"));
        check("mqtt://a%40b.c:p:w@h", Protocol::Mqtt, "h", 1883, user("a@b.c", "p:w"));
    }

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let url: Url = "mqtts://h?app_id=my%20app&client_id=c&version=3.1&ca=/tmp/ca.pem"
            .parse()
            .expect("good options");
        assert_eq!((url.app_id.as_str(), url.client_id.as_deref()), ("my app", Some("c")));
        assert_eq!((url.version, url.trust), (Version::V31, Trust::Ca("/tmp/ca.pem".into())));
        let url: Url = "tcps://h/?insecure=true&version=5".parse().expect("good options");
        assert_eq!((url.version, &url.trust), (Version::V5, &Trust::Insecure));
        assert_eq!(url.client_id(), "tr50d");
        let trust = |text: &str| text.parse::<Url>().expect(text).trust;
        assert_eq!(trust("tcps://h"), Trust::System);
        assert_eq!(trust("tcps://h?insecure=true&insecure=false"), Trust::System);
        assert_eq!(trust("tcps://h?ca=a&insecure=false"), Trust::Ca("a".into()));
        assert_eq!(trust("tcps://h?insecure=true&ca=a"), Trust::Ca("a".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, error: BadUrl| {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        };
        check("localhost:1883", BadUrl::Scheme);
        check("ftp://h", BadUrl::Scheme);
        check("mqtt://", BadUrl::Host);
        check("mqtt://user:pw@:1883", BadUrl::Host);
        check("mqtt://[::1", BadUrl::Host);
        check("mqtt://h:0", BadUrl::Port("0".into()));
        check("mqtt://h:65536", BadUrl::Port("65536".into()));
        check("mqtt://h:", BadUrl::Port(String::new()));
        check("mqtt://%zz@h", BadUrl::Percent);
        check("mqtt://%ff:x@h", BadUrl::Percent);
        check("mqtt://k:50%@h", BadUrl::Percent);
        check("mqtt://k:%4@h", BadUrl::Percent);
        check("mqtt://k:%%41@h", BadUrl::Percent);
        check("mqtt://k:%+1@h", BadUrl::Percent);
        check("mqtt://k:%é@h", BadUrl::Percent);
        check("mqtt://h?app_id=%", BadUrl::Percent);
        check("http://h/api", BadUrl::Path("/api".into()));
        check("mqtt://h?version=4", BadUrl::Option("version=4".into()));
        check("mqtt://h?secure=no", BadUrl::Option("secure=no".into()));
        check("mqtt://h?ca=", BadUrl::Option("ca=".into()));
    }

    #[test]
    fn no_message_shows_the_secret() {
        let url: Url = "mqtt://key:sesame@[::1]:7".parse().expect("a URL");
        assert!(!format!("{url:?} {url}").contains("sesame"));
        assert_eq!(url.to_string(), "mqtt://[::1]:7");
    }

    #[test]
    fn two_connections_of_a_user_have_two_client_ids() {
        let url: Url = "mqtt://a@b.c:pw@h".parse().expect("a URL");
        assert_ne!(url.client_id(), url.client_id());
    }
}
