//! `apiz…` and `replyz…`: requests and replies as zlib streams (RFC 1950; `docs/protocol/tr50.md`
//! 1.1).

use std::io::Read;

use base::{Code, Failure, limits, yield_point};
use flate2::read::ZlibDecoder;

use crate::app;

/// Inflates a request that came in a frame of at most `frame_max` bytes; none if that takes long.
///
/// # Errors
///
/// It is no zlib stream, or too large.
pub(super) fn inflate_short(payload: &[u8], frame_max: usize) -> Result<Option<Vec<u8>>, Failure> {
    let (max, at_once) = (inflated_max(payload, frame_max), limits::INFLATE_AT_ONCE_BYTES);
    match read(payload, max.min(at_once))? {
        None if max <= at_once => Err(too_large(max)),
        text => Ok(text),
    }
}

/// Inflates a request that came in a frame of at most `frame_max` bytes.
///
/// # Errors
///
/// It is no zlib stream, or too large.
pub(super) fn inflate(payload: &[u8], frame_max: usize) -> Result<Vec<u8>, Failure> {
    let max = inflated_max(payload, frame_max);
    read(payload, max)?.ok_or_else(|| too_large(max))
}

/// Bytes that such a request may have when it is inflated.
pub(super) fn inflated_max(payload: &[u8], frame_max: usize) -> usize {
    let by_ratio = payload.len().saturating_mul(limits::INFLATE_RATIO_MAX);
    by_ratio.max(limits::INFLATE_ALWAYS_BYTES).min(frame_max.saturating_mul(limits::INFLATE_FACTOR))
}

/// The text; none if it has more than `max` bytes.
fn read(payload: &[u8], max: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut text = Vec::new();
    let mut decoder = ZlibDecoder::new(payload);
    loop {
        yield_point::pass();
        let part = (max - text.len() + 1).min(limits::READ_BYTES) as u64;
        match decoder.by_ref().take(part).read_to_end(&mut text) {
            Ok(0) => return Ok(Some(text)),
            Ok(_) if text.len() > max => return Ok(None),
            Ok(_) => {}
            Err(_) => {
                let sentence = "The request is not a zlib stream (RFC 1950).";
                return Err(Failure::new(Code::MALFORMED, sentence));
            }
        }
    }
}

fn too_large(max: usize) -> Failure {
    let sentence = format!("The request is larger than {max} bytes when it is inflated.");
    Failure::new(Code::TOO_LARGE, sentence)
}

/// Deflates a reply if the request was deflated.
pub(super) fn deflate_if(compressed: bool, text: Vec<u8>) -> Vec<u8> {
    if compressed { app::deflated(&text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_is_inflated() {
        let text = br#"{"cmd":{"success":true}}"#.repeat(100);
        let deflated = deflate_if(true, text.clone());
        // The header byte that clients of the field see.
        assert_eq!(deflated.first(), Some(&0x78));
        let frame_max = text.len() / limits::INFLATE_FACTOR;
        assert_eq!(inflate(&deflated, frame_max), Ok(text.clone()));
        assert_eq!(inflate(&deflated, frame_max - 1).unwrap_err().code, Code::TOO_LARGE);
        assert_eq!(deflate_if(false, text.clone()), text);
    }

    #[test]
    fn what_inflates_to_a_hundred_times_its_size_is_no_request() {
        let zeros = deflate_if(true, vec![b'0'; 100_000]);
        assert!(zeros.len() < 1000);
        assert_eq!(inflate(&zeros, 1 << 20).unwrap_err().code, Code::TOO_LARGE);
    }

    #[test]
    fn what_is_small_when_it_is_inflated_may_have_any_ratio() {
        let check = |length: usize, taken: bool| {
            let deflated = deflate_if(true, vec![b'x'; length]);
            assert!(deflated.len() * limits::INFLATE_RATIO_MAX < length, "{length}");
            let inflated = inflate(&deflated, 1 << 20).map(|text| text.len());
            assert_eq!(inflated.ok(), taken.then_some(length), "{length}");
        };
        check(8000, true);
        check(limits::INFLATE_ALWAYS_BYTES, true);
        check(limits::INFLATE_ALWAYS_BYTES + 1, false);
        // The frame limit holds all the same.
        let deflated = deflate_if(true, vec![b'x'; 8000]);
        assert!(inflate(&deflated, 8000 / limits::INFLATE_FACTOR).is_ok());
        assert!(inflate(&deflated, 8000 / limits::INFLATE_FACTOR - 1).is_err());
    }

    #[test]
    fn what_is_no_zlib_stream_is_refused() {
        for bad in [&b""[..], b"{}", b"\x78\x9c\xff\xff"] {
            assert_eq!(inflate(bad, 100).unwrap_err().code, Code::MALFORMED, "{bad:?}");
        }
    }
}
