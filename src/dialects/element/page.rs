//! HTTP responses. What is refused before a method is known is an HTML page, as from an Element
//! cluster (`docs/protocol/element.md` B4).

use base::Failure;
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

/// The seconds after which a client may try again that found the server busy.
const RETRY_S: u64 = 1;

/// What goes out for a method, done or failed.
pub(super) fn json(body: Bytes) -> Response<Bytes> {
    with_header(Response::new(body), CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

/// The same when the server has too much to do.
pub(super) fn busy(body: Bytes) -> Response<Bytes> {
    let mut answer = with_header(json(body), RETRY_AFTER, RETRY_S.into());
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

/// Credentials are missing or wrong. The SDK for Python looks for the words `401 Unauthorized.`.
pub(super) fn unauthorized() -> Response<Bytes> {
    let page =
        page(StatusCode::UNAUTHORIZED, "Unauthorized.", "E-mail address and password, please.");
    let realm = HeaderValue::from_static("Basic realm=\"tr50d\", charset=\"UTF-8\"");
    with_header(page, WWW_AUTHENTICATE, realm)
}

/// There were too many wrong credentials. It is a refusal of the same kind, for clients look for no
/// other.
pub(super) fn locked(seconds: u64) -> Response<Bytes> {
    let sentence = format!("Too many failed logins; try again in {seconds} seconds.");
    let page = page(StatusCode::UNAUTHORIZED, "Unauthorized.", &sentence);
    let realm = HeaderValue::from_static("Basic realm=\"tr50d\", charset=\"UTF-8\"");
    with_header(with_header(page, WWW_AUTHENTICATE, realm), RETRY_AFTER, seconds.into())
}

/// The user has sent too many requests, which are all logins.
pub(super) fn too_many(seconds: u64, why: &Failure) -> Response<Bytes> {
    let why = &why.message;
    let sentence = format!("Too many requests; try again in {seconds} seconds. {why}");
    let page = page(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests", &sentence);
    with_header(page, RETRY_AFTER, seconds.into())
}

/// The refusal of a request that is no call of a method: any version is good, as long as it is one.
pub(super) fn refusal<T>(request: &Request<T>) -> Option<Response<Bytes>> {
    if !has_version(request.uri().path()) {
        let sentence = "The path of the API is /json-rpc/ and a version, such as /json-rpc/12.3.";
        return Some(page(StatusCode::NOT_FOUND, "Not Found", sentence));
    }
    if request.method() != Method::POST {
        let sentence = "Methods are called with POST.";
        let page = page(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", sentence);
        return Some(with_header(page, ALLOW, HeaderValue::from_static("POST")));
    }
    None
}

fn has_version(path: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let version = path.strip_prefix("/json-rpc/").unwrap_or_default();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    number(major) && number(minor)
}

fn page(status: StatusCode, title: &str, sentence: &str) -> Response<Bytes> {
    let title = format!("{} {title}", status.as_u16());
    let text = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n\
         <body><h1>{title}</h1><p>{sentence}</p></body></html>\n"
    );
    let mut page = Response::new(Bytes::from(text));
    *page.status_mut() = status;
    with_header(page, CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
}

fn with_header(
    mut answer: Response<Bytes>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<Bytes> {
    answer.headers_mut().insert(name, value);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_is_good_as_long_as_it_is_one() {
        for path in ["/json-rpc/7.0", "/json-rpc/12.3", "/json-rpc/12", "/json-rpc/99.99"] {
            assert!(has_version(path), "{path}");
        }
        for path in ["/json-rpc", "/json-rpc/", "/json-rpc/x", "/json-rpc/1.", "/json-rpc/1.2.3"] {
            assert!(!has_version(path), "{path}");
        }
    }
}
