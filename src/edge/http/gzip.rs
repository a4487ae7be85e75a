//! Answers compressed with gzip for those who take it (RFC 9110, 8.4.1.3 and 12.5.3).
//!
//! Not what shows a secret: from the lengths of answers that have a secret and something of an
//! attacker's choice in them, the secret can be found out (BREACH). Replies are looked through; a page
//! says it itself, by `Cache-Control: no-transform`.

use http_body_util::Either;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderValue, VARY,
};
use hyper::{Method, Request, StatusCode};

use super::HttpService;
use super::routes::Answer;
use super::whole::Whole;
use crate::app::Asker;

/// Members of replies whose values are secrets.
const SECRETS: [&str; 7] = [
    "\"sessionId\":\"",
    "\"token\":\"",
    "\"appToken\":\"",
    "\"secret\":\"",
    "\"recoveryCodes\":[",
    "\"fileId\":\"",
    // Beside the id of the session itself, in `session.info`.
    "\"serverId\":\"",
];

/// Whom an answer is for, as an extension of it.
#[derive(Clone, Copy)]
pub(super) struct MadeFor(pub(super) Option<Asker>);

/// What is known of a request when its answer is there.
#[derive(Clone, Copy)]
pub(super) struct Taker {
    /// Whether gzip is taken.
    takes: bool,
    /// Whether a cache may keep the answer.
    is_cacheable: bool,
}

impl Taker {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let is_cacheable = matches!(*request.method(), Method::GET | Method::HEAD);
        Self { takes: takes(request.headers()), is_cacheable }
    }

    /// The answer as it is taken.
    pub(super) async fn give<S: HttpService>(self, service: &S, mut answer: Answer) -> Answer {
        if !(self.takes || self.is_cacheable) || !may_be_compressed(&answer) {
            return answer;
        }
        // A cache must not give the one form to whoever takes the other.
        answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        let Either::Left(Whole(text)) = answer.body() else { return answer };
        if !self.takes || shows_secret(text) {
            return answer;
        }
        let asker = answer.extensions().get::<MadeFor>().and_then(|made| made.0);
        if let Some(gzipped) = service.gzip(text.clone(), asker).await {
            *answer.body_mut() = Either::Left(Whole(gzipped));
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

/// Whether it is a text, long enough, and whole. Streams and files are not.
fn may_be_compressed(answer: &Answer) -> bool {
    let headers = answer.headers();
    let Either::Left(Whole(text)) = answer.body() else { return false };
    let stays = |value: &HeaderValue| value.as_bytes().ends_with(b"no-transform");
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_text = (kind.starts_with("text/") && kind != "text/event-stream")
        || matches!(kind, "application/json" | "application/openmetrics-text")
        || kind.ends_with("+json");
    is_text
        && text.len() >= base::limits::GZIP_BYTES_MIN
        && answer.status() != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !headers.get_all(CACHE_CONTROL).iter().any(stays)
}

fn shows_secret(text: &[u8]) -> bool {
    match std::str::from_utf8(text) {
        Ok(text) => SECRETS.iter().any(|secret| text.contains(secret)),
        // What nobody can look through stays.
        Err(_) => true,
    }
}

/// Whether the client takes gzip, and does not like it less than no compression.
fn takes(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    for item in lines.flat_map(|line| line.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        // What can't be read is not wanted.
        let quality = quality.map_or(1.0, |quality| quality.trim().parse().unwrap_or(0.0));
        match coding.as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip: f64 = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let check = |lines: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(takes(&headers), expected, "{lines:?}");
        };
        check(&[], false);
        check(&[""], false);
        check(&["gzip"], true);
        check(&["GZip"], true);
        check(&["x-gzip"], true);
        check(&["deflate, gzip;q=1.0, *;q=0.5"], true);
        check(&["deflate", "br, gzip"], true);
        check(&["gzip;q=0"], false);
        check(&["gzip; q=0.000"], false);
        check(&["gzip;q=0, *"], false);
        check(&["*"], true);
        check(&["*;q=0"], false);
        check(&["identity"], false);
        check(&["identity;q=1, gzip;q=0.5"], false);
        check(&["identity;q=0.5, gzip;q=0.5"], true);
        check(&["identity;q=0, gzip;q=0.1"], true);
        check(&["gzip;q=x"], false);
        check(&["br, zstd"], false);
    }

    #[test]
    fn secrets_are_seen() {
        assert!(shows_secret(br#"{"params":{"sessionId":"5f"}}"#));
        assert!(!shows_secret(br#"{"params":{"sessionid":1}}"#));
        assert!(shows_secret(b"\xff"));
    }
}
