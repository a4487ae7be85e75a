//! Compressed request bodies (RFC 9110, 8.4): gzip, which the SDKs of Cognite use for every body,
//! and the older deflate.

use std::io::{self, Read};

use base::limits;
use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// Why a body can't be had.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// It is compressed in a way that nobody here knows.
    Unknown,
    /// It is not what its header says.
    Broken,
    /// It is too large when it is inflated.
    TooLarge,
}

/// The body as it was before it was compressed. A body of no bytes is one whatever its header says:
/// some clients announce a compressed body and send none. Nobody has shown who they are yet, so that
/// few bytes may not become very many ([`limits::INFLATE_RATIO_MAX`]).
pub(super) fn inflated(headers: &HeaderMap, body: Bytes, max: usize) -> Result<Bytes, Refused> {
    if body.is_empty() {
        return Ok(body);
    }
    // A list, maybe on several lines (RFC 9110, 5.3).
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let codings = codings.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let codings = codings.map(|coding| coding.trim().to_ascii_lowercase());
    let mut codings = codings.filter(|coding| !matches!(coding.as_str(), "" | "identity"));
    let by_ratio = body.len().saturating_mul(limits::INFLATE_RATIO_MAX);
    let inflated_max = by_ratio.max(limits::INFLATE_ALWAYS_BYTES).min(max);
    match (codings.next().as_deref(), codings.next()) {
        (None, _) => Ok(body),
        (Some("gzip" | "x-gzip"), None) => read(GzDecoder::new(&body[..]), inflated_max),
        (Some("deflate"), None) => read(ZlibDecoder::new(&body[..]), inflated_max),
        _ => Err(Refused::Unknown),
    }
}

fn read(decoder: impl Read, max: usize) -> Result<Bytes, Refused> {
    let mut inflated = Vec::new();
    let read = decoder.take(max as u64 + 1).read_to_end(&mut inflated);
    match read.map_err(|_: io::Error| Refused::Broken)? {
        length if length > max => Err(Refused::TooLarge),
        _ => Ok(inflated.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;

    use super::*;

    fn check(coding: &'static str, body: &[u8], expected: Result<&[u8], Refused>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        let inflated = inflated(&headers, Bytes::copy_from_slice(body), 100);
        assert_eq!(inflated.as_deref(), expected.as_deref(), "{coding}");
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn bodies_come_as_they_were() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"{}").expect("memory");
        let deflated = encoder.finish().expect("memory");
        check("gzip", &gzip(b"{}"), Ok(b"{}"));
        check("X-GZIP", &gzip(b"{}"), Ok(b"{}"));
        check("deflate", &deflated, Ok(b"{}"));
        check("identity", b"{}", Ok(b"{}"));
        check("identity, gzip", &gzip(b"{}"), Ok(b"{}"));
        check("gzip", b"", Ok(b""));
        check("br", b"", Ok(b""));
        check("gzip", &gzip(&[b' '; 100]), Ok(&[b' '; 100]));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        check("br", b"{}", Err(Refused::Unknown));
        check("gzip, gzip", b"{}", Err(Refused::Unknown));
        check("gzip", b"{}", Err(Refused::Broken));
        check("gzip", &gzip(b"{}")[..12], Err(Refused::Broken));
        check("gzip", &gzip(&[b' '; 101]), Err(Refused::TooLarge));
        check("gzip", &gzip(&[b' '; 1_000_000]), Err(Refused::TooLarge));
    }

    #[test]
    fn few_bytes_do_not_become_many() {
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))].into_iter().collect();
        let check = |text: &[u8], expected: Result<usize, Refused>| {
            let inflated = inflated(&headers, gzip(text).into(), 1_000_000);
            assert_eq!(inflated.map(|body| body.len()), expected);
        };
        check(&[b' '; 1_000_000], Err(Refused::TooLarge));
        check(&[b' '; 65_536], Ok(65_536));
        check(&[b' '; 65_537], Err(Refused::TooLarge));
        let ids: String =
            (0..10_000).map(|number| format!("{{\"id\":\"{number:024x}\"}},")).collect();
        check(ids.as_bytes(), Ok(ids.len()));
    }
}
