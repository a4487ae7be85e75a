//! `GET /events`: the stream of events, as long as the reader stays.

use base::{Failure, Protocol, limits};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::HttpService;
use super::file::FileBody;
use super::routes::{Answer, HttpConn, Refusal, error, note_piece, with_header};
use crate::tr50::sse::Asked;

/// By this header a browser that connects anew says where it was.
const LAST_EVENT_ID: &str = "last-event-id";

/// Keeps nginx from waiting for more before it passes an event on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Why nobody follows the stream.
pub enum EventsRefusal {
    /// The connection is one too many.
    Full,
    /// Nobody knows who asks.
    Stranger,
    /// Who asks may not, or not so.
    Failure(Failure),
}

impl<S: HttpService> HttpConn<S> {
    /// Has the peer follow the stream.
    pub(super) async fn events(&self, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        if *request.method() != Method::GET {
            return Err(Refusal::Method { allowed: "GET" });
        }
        let headers = request.headers();
        let query = request.uri().query().unwrap_or_default();
        let parameters = || form_urlencoded::parse(query.as_bytes());
        let views = parameters().filter(|(name, _)| name == "view");
        let views: Vec<String> = views.map(|(_, address)| address.into_owned()).collect();
        if !views.is_empty() {
            let mut info = self.conn_info(headers);
            if self.is_over_tls(headers) {
                info.protocol = Protocol::Https;
            }
            let windows = self.service.watch(headers, &views, info).await;
            let windows = windows.map_err(Refusal::Events)?;
            return Ok(self.streamed(windows));
        }
        let session = parameters().find(|(name, _)| name.eq_ignore_ascii_case("sessionid"));
        let session = session.map(|(_, id)| id);
        let last_event_id = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
        let asked = Asked::read(parameters(), last_event_id);
        let asked = asked.map_err(|failure| Refusal::Events(EventsRefusal::Failure(failure)))?;
        let info = self.conn_info(headers);
        let following = self.service.follow_events(headers, session.as_deref(), asked, info);
        let following = following.await.map_err(Refusal::Events)?;
        let pieces = stream::unfold(following, async |mut following| {
            Some((following.next().await?, following))
        });
        Ok(self.streamed(pieces))
    }

    fn streamed(&self, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
        // Who follows goes on with it: the connection does not make room as an idle one does.
        self.service.working(true);
        let service = self.service.clone();
        // Not whole, for HTTP copies what it is given.
        let pieces =
            pieces.flat_map(move |bytes| {
                note_piece(&*service, bytes.len().min(limits::READ_BYTES));
                let bytes = service.count(bytes);
                let starts = (0..bytes.len()).step_by(limits::READ_BYTES);
                stream::iter(starts.map(move |start| {
                    bytes.slice(start..bytes.len().min(start + limits::READ_BYTES))
                }))
            });
        let answer = Response::new(Either::Right(FileBody::of(pieces)));
        let answer = with_header(answer, CONTENT_TYPE, "text/event-stream");
        let answer = with_header(answer, CACHE_CONTROL, "no-store");
        with_header(answer, ACCEL_BUFFERING, "no")
    }
}

impl EventsRefusal {
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Full => {
                let message = "the server is full for your address: limits.connections_per_address, \
                               or nine tenths of limits.connections, is reached; try again";
                error(StatusCode::SERVICE_UNAVAILABLE, message)
            }
            Self::Stranger => {
                let message = "events are for those who log in: with the header sessionId, with \
                               Basic, or with a bearer token";
                let refused = error(StatusCode::UNAUTHORIZED, message);
                with_header(refused, WWW_AUTHENTICATE, "Bearer")
            }
            Self::Failure(failure) => {
                let status = StatusCode::from_u16(failure.code.http_status());
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut refused = error(status, &failure.message);
                if let Some(seconds) = failure.retry_after_s() {
                    refused.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                refused
            }
        }
    }
}
