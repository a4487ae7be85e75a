//! `/file/<id>`: files, streamed to and from the disk (`docs/protocol/tr50.md` 4.3).
//!
//! The id, from `file.put` or `file.get`, is the only secret, unless the file was stored with a
//! password. Downloads are chunked, because libtr50 reads `Content-Length` as hexadecimal (fact 19),
//! and a whole file is one chunk, because libtr50 takes the first one for all ([`super::one_chunk`]);
//! so an upload is answered with length 0, and a refusal with the end of the connection. HTTP/1.0
//! knows no chunks: there, a file has a length.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{TicketId, limits};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Either};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE,
    CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use store::StoreError;
use tokio::time::{Instant, timeout};

use super::HttpService;
use super::routes::{Answer, HttpConn, Refusal, closing, error, note_piece, with_header};
use super::whole::Whole;
use crate::logging::PeerLog;
use crate::things::files::ticket::TicketError;
use crate::things::files::transfer::{Download, Stored, TransferError, Upload, offered};
use crate::things::files::{Credentials, FileName, Files};

/// A body that comes from the disk.
pub(super) struct FileBody {
    frames: Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static>>,
    /// Its length, where the answer is to have one.
    length: Option<u64>,
}

impl FileBody {
    /// A body of these pieces, whose length nobody knows.
    pub(super) fn of(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self { frames: pieces.map(|bytes| Ok(Frame::data(bytes))).boxed(), length: None }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.frames.as_mut().poll_next(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// How an answer says where its body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// A chunk for each piece that is read.
    Chunks,
    /// One chunk.
    OneChunk,
    /// A length.
    Length,
}

/// Why a file is not moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileRefusal {
    /// For a reason of the files.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The connection is one too many.
    #[error(
        "the server is full for your address: limits.connections_per_address, or nine tenths of \
         limits.connections, is reached; try again"
    )]
    Full,
    /// The file was stored with a password.
    #[error("this file needs a user name and a password")]
    Protected,
    /// The wanted part begins behind the end of the file.
    #[error("the file has only {0} bytes")]
    Range(u64),
    /// Nothing came for a while, or too little.
    #[error("the file did not come in time")]
    Stalled,
    /// The connection or the framing of the body broke.
    #[error("the body is not what its header says")]
    Broken,
}

impl<S: HttpService> HttpConn<S> {
    /// Moves a file.
    pub(super) async fn file(
        &self,
        id: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let files = self.service.files().ok_or(FileRefusal::Full)?;
        let unknown = FileRefusal::Transfer(TicketError::Unknown.into());
        let ticket = TicketId::parse(id.trim_end_matches('/')).ok_or(unknown)?;
        match *request.method() {
            Method::GET | Method::HEAD => Ok(self.download(files, ticket, &request).await?),
            Method::POST | Method::PUT => {
                let body = request.into_body();
                let stored = self.upload(files, ticket, body).await?;
                self.service.file_stored(&stored);
                Ok(Response::new(Either::Left(Whole::default())))
            }
            _ => Err(Refusal::Method { allowed: "GET, HEAD, POST, PUT" }),
        }
    }

    async fn download(
        &self,
        files: &Arc<Files>,
        ticket: TicketId,
        request: &Request<Incoming>,
    ) -> Result<Answer, FileRefusal> {
        let record = offered(files, ticket, files.clock().now())?;
        if !record.opens_with(credentials(request.headers()).as_ref()) {
            return Err(FileRefusal::Protected);
        }
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let part = match range.and_then(|range| wanted_part(range, record.length)) {
            Some(Part::Bytes(start, end)) => Some((start, end)),
            Some(Part::None) => return Err(FileRefusal::Range(record.length)),
            None => None,
        };
        let (start, end) = part.unwrap_or((0, record.length));
        let framing = framing(request, part.is_some(), end - start);
        let frames = if request.method() == Method::HEAD {
            stream::empty().boxed()
        } else {
            let range = (start, end);
            let download =
                Download::begin(files, ticket, &record, range, files.clock().now()).await?;
            self.write_wait.note_download();
            let most = usize::try_from(end - start).unwrap_or(usize::MAX);
            note_piece(&*self.service, most.min(limits::FILE_READ_BYTES));
            self.service.working(true);
            let has_length = framing != Framing::Chunks;
            stream::unfold(Some(Outgoing { download, has_length, last: None }), frame).boxed()
        };
        let length = (framing != Framing::Chunks).then_some(end - start);
        let mut answer = Response::new(Either::Right(FileBody { frames, length }));
        if part.is_some() {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{}", end - 1, record.length);
            set(&mut answer, CONTENT_RANGE, range);
        }
        set(&mut answer, CONTENT_DISPOSITION, disposition(&record.name));
        let answer = with_header(answer, CONTENT_TYPE, "application/octet-stream");
        // The address is a secret and soon over.
        let answer = with_header(answer, CACHE_CONTROL, "no-store");
        let answer = with_header(answer, ACCEPT_RANGES, "bytes");
        if framing == Framing::OneChunk {
            self.one_chunk.turn_on().await;
        }
        Ok(answer)
    }

    async fn upload(
        &self,
        files: &Arc<Files>,
        ticket: TicketId,
        mut body: Incoming,
    ) -> Result<Stored, FileRefusal> {
        let stall = self.waits.stall;
        let length = body.size_hint().exact();
        let mut upload = Upload::begin(files, ticket, length, files.clock().now())?;
        // Who has a ticket is no stranger.
        self.service.working(true);
        let (started, mut held) = (Instant::now(), self.service.part());
        loop {
            let frame = match timeout(stall, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(FileRefusal::Broken),
                Err(_) => return Err(FileRefusal::Stalled),
            };
            self.held.note_used();
            if let Ok(bytes) = frame.into_data() {
                upload.write(bytes).await?;
                if let Some(held) = &mut held {
                    held.set(upload.waiting_bytes());
                }
            }
            let enough = upload.received() / limits::FILE_UPLOAD_RATE_MIN;
            if started.elapsed() > stall + Duration::from_secs(enough) {
                return Err(FileRefusal::Stalled);
            }
        }
        Ok(upload.finish(files.clock().now()).await?)
    }
}

/// How the answer with so many bytes is to be framed. A chunk of 0 bytes would be the last one, and
/// nobody asks for the bytes of a length of 0.
fn framing(request: &Request<Incoming>, is_part: bool, bytes: u64) -> Framing {
    match (request.version(), request.method()) {
        (Version::HTTP_10, _) if bytes > 0 => Framing::Length,
        (_, &Method::GET) if !is_part && bytes > 0 => Framing::OneChunk,
        _ => Framing::Chunks,
    }
}

/// User name and password of HTTP's basic authentication (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let bytes = BASE64.decode(text.trim().as_bytes()).ok().filter(|_| is_basic)?;
    String::from_utf8(bytes).ok().map(Credentials)
}

/// A download under way.
struct Outgoing {
    download: Download,
    /// Whether hyper knows the length. Then it does not ask for more when it has all bytes, which is
    /// what makes a download count; so the last byte waits until hyper asks for it.
    has_length: bool,
    last: Option<Bytes>,
}

impl Outgoing {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.last.is_none()
            && let Some(mut bytes) = self.download.next().await?
        {
            if self.has_length && self.download.is_at_end() {
                self.last = Some(bytes.split_off(bytes.len().saturating_sub(1)));
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        if self.last.is_some() {
            self.download.next().await?;
        }
        Ok(self.last.take())
    }
}

/// The next piece of a download. After a failure there is none: the connection breaks, and the peer
/// knows by the missing end.
async fn frame(outgoing: Option<Outgoing>) -> Option<(io::Result<Frame<Bytes>>, Option<Outgoing>)> {
    let mut outgoing = outgoing?;
    match outgoing.next().await {
        Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(outgoing))),
        Ok(None) => None,
        Err(TransferError::Ticket(error)) => {
            tracing::info!(%error, "a download ended with the right to it");
            Some((Err(io::Error::other(error)), None))
        }
        Err(error) => {
            static LOG: PeerLog = PeerLog::new(1);
            if let Some(suppressed) = LOG.admit() {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, suppressed, "a download broke");
            }
            Some((Err(io::Error::other(error)), None))
        }
    }
}

/// What a `Range` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// From the first position to before the second.
    Bytes(u64, u64),
    /// Nothing that there is.
    None,
}

/// Reads `bytes=N-`, `bytes=N-M` and `bytes=-N` (RFC 9110, 14.1.2). Anything else, such as several
/// ranges, is as if there were no header: the whole file.
fn wanted_part(range: &str, length: u64) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let (start, end) = match (first, last) {
        ("", last) => (length.saturating_sub(number(last)?), length),
        (first, "") => (number(first)?, length),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(length))
        }
    };
    Some(if start < end { Part::Bytes(start, end) } else { Part::None })
}

/// What is escaped in a file's name: all but the unreserved characters of RFC 3986.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~');

/// Says that the body is a file to be saved, and how it is called (RFC 6266, RFC 8187). A page that
/// somebody stored is not shown as one of this server's.
fn disposition(name: &FileName) -> String {
    format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(name.as_str(), NOT_PLAIN))
}

fn set(answer: &mut Answer, name: hyper::header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        answer.headers_mut().insert(name, value);
    }
}

impl FileRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Protected => StatusCode::UNAUTHORIZED,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Transfer(error) => match error {
                TransferError::Ticket(TicketError::Unknown) => StatusCode::NOT_FOUND,
                TransferError::Ticket(_)
                | TransferError::Store(
                    StoreError::Busy(_) | StoreError::Unavailable | StoreError::Held,
                ) => StatusCode::SERVICE_UNAVAILABLE,
                TransferError::OnlyUpload | TransferError::OnlyDownload => {
                    StatusCode::METHOD_NOT_ALLOWED
                }
                TransferError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                TransferError::Full
                | TransferError::OverShare(_)
                | TransferError::DiskFull
                | TransferError::Store(StoreError::NoRoom) => StatusCode::INSUFFICIENT_STORAGE,
                TransferError::Checksum { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                TransferError::Disk(_) | TransferError::Store(_) | TransferError::Random(_) => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
        }
    }

    /// The answer, after which the connection closes.
    pub(super) fn into_answer(self) -> Answer {
        let status = self.status();
        static LOG: PeerLog = PeerLog::new(1);
        if status == StatusCode::INTERNAL_SERVER_ERROR
            && let Some(suppressed) = LOG.admit()
        {
            let error = &self as &dyn std::error::Error;
            tracing::error!(error, suppressed, "a file was not moved");
        }
        let mut answer = closing(error(status, &self.to_string()));
        match self {
            Self::Range(length) => set(&mut answer, CONTENT_RANGE, format!("bytes */{length}")),
            Self::Protected => {
                answer = with_header(answer, WWW_AUTHENTICATE, "Basic realm=\"file\"");
            }
            Self::Transfer(TransferError::OnlyUpload) => {
                answer = with_header(answer, ALLOW, "POST, PUT");
            }
            Self::Transfer(TransferError::OnlyDownload) => {
                answer = with_header(answer, ALLOW, "GET, HEAD");
            }
            _ => {}
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_ignored() {
        let check = |range: &str, expected| assert_eq!(wanted_part(range, 10), expected, "{range}");
        check("bytes=0-", Some(Part::Bytes(0, 10)));
        check("bytes=4-", Some(Part::Bytes(4, 10)));
        check("Bytes = 4 - 6", Some(Part::Bytes(4, 7)));
        check("bytes=4-99999999999999999999", None);
        check("bytes=4-18446744073709551615", Some(Part::Bytes(4, 10)));
        check("bytes=-3", Some(Part::Bytes(7, 10)));
        check("bytes=-30", Some(Part::Bytes(0, 10)));
        check("bytes=-0", Some(Part::None));
        check("bytes=10-", Some(Part::None));
        check("bytes=9-9", Some(Part::Bytes(9, 10)));
        for ignored in ["bytes=6-4", "bytes=0-1,4-5", "lines=1-2", "bytes", "bytes=+1-", "bytes=-"]
        {
            check(ignored, None);
        }
        assert_eq!(wanted_part("bytes=0-", 0), Some(Part::None));
    }

    #[test]
    fn a_name_can_not_break_the_header() {
        let name = FileName::parse("a b\";é/..%-_~!*'").expect("a name");
        let escaped = "a%20b%22%3B%C3%A9%2F..%25-_~%21%2A%27";
        assert_eq!(disposition(&name), format!("attachment; filename*=UTF-8''{escaped}"));
    }
}
