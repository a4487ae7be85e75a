//! CORS (the Fetch standard, "HTTP-CORS protocol"): which pages of other origins may use the server
//! from a browser. `docs/http.md` has the rules for users.
//!
//! Who asks is in `Origin`, and what the list allows depends on what the request shows of somebody:
//! `*` is for requests without Basic credentials and cookies, which a browser may add by itself.
//! Element's API, which has no other login, is for listed origins only.

use base::{AllowedAs, Origins};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, COOKIE,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Response};

use super::Dialect;

/// Seconds for which a browser may remember what it may do.
const MAX_AGE_S: &str = "600";

/// Headers of answers that a page may read, beside those that it always may.
const EXPOSED: &str = "Accept-Ranges, Allow, Content-Disposition, Content-Length, Content-Range, \
                       Preference-Applied, RateLimit, RateLimit-Limit, RateLimit-Policy, \
                       RateLimit-Remaining, RateLimit-Reset, Retry-After, Www-Authenticate, \
                       X-Request-Id";

/// Headers of requests that mean something here, but `Authorization`.
const REQUEST_HEADERS: &str =
    "Content-Type, sessionId, Range, Content-Encoding, Last-Event-ID, Prefer";

/// The paths that pages of other origins may be allowed to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// `/api`.
    Api,
    /// `/rest/…`.
    Rest,
    /// `/file/<id>`.
    File,
    /// `/events`.
    Events,
    /// `/json-rpc/<version>`.
    Element,
    /// `/api/v1/…`.
    Cognite,
}

impl Place {
    pub(super) fn of(path: &str) -> Option<Self> {
        match Dialect::of(path) {
            Some(Dialect::Element) => return Some(Self::Element),
            Some(Dialect::Cognite) if path.starts_with("/api/") => return Some(Self::Cognite),
            Some(Dialect::Cognite | Dialect::Console) | None => {}
        }
        match path {
            "/api" | "/api/" => Some(Self::Api),
            "/events" | "/events/" => Some(Self::Events),
            _ if path.starts_with("/rest/") => Some(Self::Rest),
            _ if path.starts_with("/file/") => Some(Self::File),
            _ => None,
        }
    }

    const fn methods(self) -> &'static str {
        match self {
            Self::Api | Self::Rest | Self::Element => "POST",
            Self::Events => "GET",
            Self::File => "GET, HEAD, POST, PUT",
            Self::Cognite => "GET, HEAD, POST",
        }
    }
}

/// What a browser asks in the name of a page.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    place: Place,
    origin: Option<HeaderValue>,
    /// None: the origin may not.
    allowed: Option<AllowedAs>,
}

impl Asked {
    /// Reads a request; none if CORS is turned off or not for this path.
    pub(super) fn read(origins: &Origins, path: &str, headers: &HeaderMap) -> Option<Self> {
        let place = (!origins.is_empty()).then(|| Place::of(path))??;
        let origin = single(headers);
        let allowed = origin.and_then(|origin| allowed(origins, origin, headers));
        let allowed = allowed.filter(|allowed| match place {
            Place::Element => *allowed == AllowedAs::Listed,
            _ => true,
        });
        Some(Self { place, origin: origin.cloned(), allowed })
    }

    /// The headers with which a preflight is answered; none if the request is something else, or
    /// the origin may not.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Preflight {
        if method != Method::OPTIONS
            || self.origin.is_none()
            || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return Preflight::None;
        }
        let Some(allowed) = self.allowed else { return Preflight::Refused };
        let mut answer = HeaderMap::new();
        let methods = HeaderValue::from_static(self.place.methods());
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
        let by = "Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.insert(VARY, HeaderValue::from_static(by));
        let names = self.request_headers(allowed, headers);
        if let Ok(names) = HeaderValue::try_from(names) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        Preflight::Allowed(answer)
    }

    /// The names of headers that a request may have: those that mean something, and those that were
    /// asked for, which mean nothing. Not `Authorization` for everybody, unless it is for a token.
    fn request_headers(&self, allowed: AllowedAs, headers: &HeaderMap) -> String {
        let mut names = REQUEST_HEADERS.to_owned();
        let takes_tokens = matches!(self.place, Place::Api | Place::Rest | Place::Cognite);
        if allowed == AllowedAs::Listed || takes_tokens {
            names.push_str(", Authorization");
        }
        let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        let asked = asked.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        for name in asked.map(str::trim).filter(|name| is_token(name)) {
            let known = names.split(", ").any(|known| known.eq_ignore_ascii_case(name));
            if !known && !name.eq_ignore_ascii_case("authorization") {
                names.push_str(", ");
                names.push_str(name);
            }
        }
        names
    }

    /// Adds to an answer what tells the browser whether the page may read it.
    pub(super) fn mark<B>(&self, answer: &mut Response<B>) {
        let headers = answer.headers_mut();
        // A cache must not give the answer for one origin to another.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let (Some(allowed), Some(origin)) = (self.allowed, &self.origin) else { return };
        match allowed {
            AllowedAs::Listed => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                let yes = HeaderValue::from_static("true");
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
            AllowedAs::Anybody => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// What is to be done with a request that may be a preflight.
#[derive(Debug)]
pub(super) enum Preflight {
    /// It is none.
    None,
    /// With these headers, the page may.
    Allowed(HeaderMap),
    /// The page may not.
    Refused,
}

/// Whether a page may open a WebSocket. A program that is no browser has no origin.
pub(super) fn may_open(origins: &Origins, headers: &HeaderMap) -> bool {
    if origins.is_empty() || !headers.contains_key(ORIGIN) {
        return true;
    }
    single(headers).is_some_and(|origin| allowed(origins, origin, headers).is_some())
}

/// How an origin may use the server with a request of these headers.
fn allowed(origins: &Origins, origin: &HeaderValue, headers: &HeaderMap) -> Option<AllowedAs> {
    let allowed = origins.allow(origin.to_str().ok()?)?;
    match allowed {
        AllowedAs::Anybody if shows_somebody(headers) => None,
        allowed => Some(allowed),
    }
}

/// Whether the request has what a browser adds by itself: a cookie, or Basic credentials that
/// somebody once typed.
pub(super) fn shows_somebody(headers: &HeaderMap) -> bool {
    let is_basic = |value: &HeaderValue| {
        let scheme = value.as_bytes().trim_ascii_start();
        let scheme = scheme.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"basic")
    };
    headers.contains_key(COOKIE) || headers.get_all(AUTHORIZATION).iter().any(is_basic)
}

/// The origin, if the request names one.
pub(super) fn single(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = origins.next()?;
    origins.next().is_none().then_some(origin)
}

/// Whether it is a name of a header (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}
