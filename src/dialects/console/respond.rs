//! Answers: pages, files, other addresses, and why there is no page.

use base::{Code, Failure, Timestamp};
use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE,
};
use hyper::{Method, Response, StatusCode};
use maud::{Markup, html};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::asked::{Asked, segment};
use super::{cookie, layout, login};

/// Nothing but this server's own style sheet, script, pictures and stream; no frames around it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What is written with percent signs in an address, beside what is no ASCII.
const NOT_IN_ADDRESS: &AsciiSet = &CONTROLS.add(b' ');

/// Why there is no page.
pub(super) enum Refused {
    /// Nobody is logged in; if there was a session, why it does not go on.
    Stranger(Option<Failure>),
    /// There is nothing at this path.
    NotFound,
    /// Pages are asked for and forms are sent; nothing else is done here.
    Method,
    /// There is no such organisation, or no right in it.
    NoOrg,
    /// The form is not one of this session's pages.
    Forged,
    /// A command failed.
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Code::SESSION_INVALID => Self::Stranger(Some(failure)),
            _ => Self::Failure(failure),
        }
    }
}

impl Refused {
    pub(super) fn into_response(self, asked: &Asked) -> Response<Bytes> {
        let (status, title, text) = match self {
            Self::Stranger(failure) => return login::stranger(asked, failure.as_ref()),
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Nothing here", "There is no page at this address.".into())
            }
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Nothing was changed",
                "Pages are asked for with GET, and forms are sent with POST.".into(),
            ),
            Self::NoOrg => (
                StatusCode::FORBIDDEN,
                "No such organisation",
                "There is no organisation at this address, or you have no right in it.".into(),
            ),
            Self::Forged => (
                StatusCode::FORBIDDEN,
                "Nothing was changed",
                "This form is not of a page of your session. Go back, load the page anew, and \
                 send it again."
                    .into(),
            ),
            Self::Failure(failure) => {
                let status = StatusCode::from_u16(failure.code.http_status());
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, "That did not work", failure.message)
            }
        };
        // What was wrong may be what the address asks for.
        let whole = (asked.method == Method::GET && asked.query.iter().next().is_some())
            .then_some(asked.path.as_str());
        let mut response = page(layout::plain(asked, title, &why(title, &text, whole)));
        *response.status_mut() = status;
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        response
    }
}

/// `whole`: the same page without a filter.
fn why(title: &str, text: &str, whole: Option<&str>) -> Markup {
    html! {
        h1 { (title) }
        p role="alert" { bdi { (text) } }
        @if let Some(whole) = whole { p { a href=(whole) { "The same page without a filter" } } }
        p { a href="/" { "To the first screen" } }
    }
}

/// The page for a request that was refused before anyone read it. `bytes_max`: how large one may be.
pub(super) fn unread(now: Timestamp, status: StatusCode, bytes_max: u64) -> Response<Bytes> {
    let (title, text) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => (
            "That is too large",
            format!(
                "Nothing was changed: what was sent has more than {} bytes. For a larger file, the page \
                 of its thing makes an address.",
                layout::number(bytes_max)
            ),
        ),
        StatusCode::FORBIDDEN => (
            "Nothing was changed",
            "This form is not of a page of this server. Go to the page and send it from there."
                .into(),
        ),
        StatusCode::REQUEST_TIMEOUT => (
            "Nothing was changed",
            "What was sent did not come in time, or not all of it. Send it again.".into(),
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "There is no room for it now",
            "Nothing was changed. Send it again in a moment.".into(),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            "Nothing was changed",
            "What was sent is compressed in a way that this server does not read.".into(),
        ),
        status => (
            "That did not work",
            format!(
                "Nothing was changed: {} ({}).",
                status.canonical_reason().unwrap_or("the request is wrong").to_lowercase(),
                status.as_u16()
            ),
        ),
    };
    let mut response = page(layout::bare(now, title, &why(title, &text, None)));
    *response.status_mut() = status;
    response
}

/// A page.
pub(super) fn page(text: Markup) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text.into_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// A page with a secret on it: not compressed, so that its length tells nothing.
pub(super) fn page_with_secret(text: Markup) -> Response<Bytes> {
    let mut response = page(text);
    let value = HeaderValue::from_static("no-store, no-transform");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}

/// A file that is kept, not shown.
pub(super) fn download(name: &str, kind: &'static str, bytes: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A name that is no ASCII is written so (RFC 6266, 4.3).
    let disposition = format!("attachment; filename*=UTF-8''{}", segment(name));
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    response
}

/// The style sheet or the script: its address has its digest, so that it can be kept for ever.
pub(super) fn asset(asked: &Asked, text: &'static str, kind: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    let digest = layout::digest(text);
    let age = match asked.query.get("v") == Some(digest) {
        true => "max-age=31536000, immutable",
        false => "no-cache",
    };
    let headers = response.headers_mut();
    let kind = match kind {
        "text/css" => "text/css; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(age));
    if let Ok(tag) = HeaderValue::try_from(format!("\"{digest}\"")) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Sends the browser to another page, which it asks for with GET.
pub(super) fn see(address: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let address = utf8_percent_encode(address, NOT_IN_ADDRESS).to_string();
    let address = HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, address);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same answer, after which the browser shows this session; none: none any more.
pub(super) fn with_session(
    mut response: Response<Bytes>,
    asked: &Asked,
    id: &str,
) -> Response<Bytes> {
    if let Some(line) = cookie::set(&asked.conn, id) {
        response.headers_mut().append(SET_COOKIE, line);
    }
    if id.is_empty() {
        let name = HeaderName::from_static("clear-site-data");
        response.headers_mut().insert(name, HeaderValue::from_static("\"cache\""));
    }
    response
}
