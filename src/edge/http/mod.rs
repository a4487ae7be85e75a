//! The HTTP edge: TR50 at `/api` and in the portal's REST style, MQTT over WebSocket, libtr50's
//! tunnel, the dialects, and health and metrics for operators.
//!
//! HTTP itself is hyper's. Around it stand the habits of real clients (`docs/protocol/tr50.md` 0,
//! facts 10, 11 and 22 to 24): HTTP/1.0 that waits for the end of the connection, bytes after the
//! counted body, any content type, and always status 200 for what TR50 answers.

mod asked;
mod body;
mod browser;
mod cors;
mod events;
mod file;
mod gzip;
mod host;
mod inflate;
mod one_chunk;
mod rest;
mod routes;
mod stream;
pub mod traced;
mod tunnel;
mod websocket;
mod whole;

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use base::{ConnInfo, Door, Failure, Origins, Timestamp, Trusted, limits};
use bytes::{Buf, Bytes, BytesMut};
pub use events::EventsRefusal;
use futures_util::stream::BoxStream;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use one_chunk::OneChunk;
use routes::HttpConn;
use stream::{Counted, Replay, WriteClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::Stream;
use super::wrong_door::{self, Met};
use crate::app::{Asker, Cores, Following, Lease, LoginFrom, Part, stranger};
use crate::metrics::Form;
use crate::things::files::Files;
use crate::things::files::transfer::Stored;
use crate::tr50::over_http::{Answered, Claims, Given};
use crate::tr50::sse::Asked;

/// The dialects beside TR50 that have paths of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `/api/v1/…` and `/openapi.json`: Cognite's.
    Cognite,
    /// `/json-rpc/<version>`: NetApp Element's.
    Element,
    /// `/`, `/o/<slug>/…` and a few more: the console's pages.
    Console,
}

impl Dialect {
    fn of(path: &str) -> Option<Self> {
        if path == "/openapi.json" || path == "/api/v1" || path.starts_with("/api/v1/") {
            return Some(Self::Cognite);
        }
        if path == "/json-rpc" || path.starts_with("/json-rpc/") {
            return Some(Self::Element);
        }
        let is_page = CONSOLE_PATHS.contains(&path)
            || ["/o/", "/me/"].iter().any(|above| path.starts_with(above));
        is_page.then_some(Self::Console)
    }
}

/// The paths of the console, beside those below `/o/` and `/me/`.
const CONSOLE_PATHS: [&str; 8] =
    ["/", "/login", "/logout", "/me", "/o", "/search", "/console.css", "/console.js"];

/// How long the edge waits for a peer.
#[derive(Clone, Copy)]
struct Waits {
    /// For the first request's head.
    login: Duration,
    /// For the next request's head.
    keep_alive: Duration,
    /// From a request's head to the end of its body.
    body: Duration,
    /// Until a peer takes the next byte of its answer.
    write: Duration,
    /// The same, once a file was fetched.
    download: Duration,
    /// Until the next bytes of a file that comes in.
    stall: Duration,
}

const WAITS: Waits = Waits {
    login: limits::LOGIN_WAIT,
    keep_alive: limits::HTTP_KEEP_ALIVE_WAIT,
    body: limits::HTTP_BODY_WAIT,
    write: limits::WRITE_STALL_WAIT,
    download: limits::DOWNLOAD_STALL_WAIT,
    stall: limits::FILE_STALL_WAIT,
};

/// What the HTTP edge needs of the server.
pub trait HttpService: Send + Sync + 'static {
    /// Answers a TR50 request. `body` is the JSON text as it came. The answer is compact JSON;
    /// failures are in it (fact 11).
    fn tr50(
        &self,
        body: Bytes,
        claims: Claims,
        info: ConnInfo,
    ) -> impl Future<Output = Answered> + Send;

    /// Answers a command without an envelope with its reply object.
    fn command(
        &self,
        command: &str,
        given: Given,
        claims: Claims,
        info: ConnInfo,
    ) -> impl Future<Output = Answered> + Send;

    /// Logs in with what is given, for the session's id.
    fn log_in(
        &self,
        given: Given,
        from: LoginFrom,
    ) -> impl Future<Output = Result<String, Failure>> + Send;

    /// The failure of a whole request whose body is larger than [`HttpConfig::body_bytes_max`].
    fn too_large(&self, info: ConnInfo) -> Failure;

    /// Answers a request of another dialect, on a path of its own.
    /// The body is whole and not compressed any more.
    fn dialect(
        &self,
        dialect: Dialect,
        request: Request<Bytes>,
        info: ConnInfo,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// The console's page for a request that is refused with this status before anyone reads it.
    fn refusal_page(&self, status: StatusCode) -> Response<Bytes>;

    /// Serves MQTT on `stream` until its end, from the CONNECT on.
    fn mqtt(&self, stream: Stream, info: ConnInfo) -> impl Future<Output = ()> + Send;

    /// Room for half requests of a peer in this network that has not logged in.
    fn lease(&self, network: IpAddr) -> Lease;

    /// The shares of the cores, where there are any.
    fn cores(&self) -> Option<&Arc<Cores>> {
        None
    }

    /// Has bytes of a request or an answer count for as long as somebody holds them.
    fn count(&self, bytes: Bytes) -> Bytes;

    /// For what else the connection holds; none where that does not count.
    fn part(&self) -> Option<Part>;

    /// Has a buffer of so many bytes count that the connection keeps to its end.
    fn keep(&self, bytes: usize);

    /// An answer compressed with gzip, for this asker; none if it is to stay as it is.
    fn gzip(&self, text: Bytes, asker: Option<Asker>)
    -> impl Future<Output = Option<Bytes>> + Send;

    /// Notes whether somebody works on a request: then the connection does not make room for
    /// others.
    fn working(&self, working: bool);

    /// Whether who shows this may read the metrics: a session by its id, a token, or a user with a
    /// password. It fails for who asks too often.
    fn may_read_metrics(
        &self,
        headers: &HeaderMap,
        info: ConnInfo,
    ) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Has somebody follow the stream of events who shows these headers, or this session.
    fn follow_events(
        &self,
        headers: &HeaderMap,
        session: Option<&str>,
        asked: Asked,
        info: ConnInfo,
    ) -> impl Future<Output = Result<Following, EventsRefusal>> + Send;

    /// Has somebody look at windows of the console, for as long as the stream is read.
    fn watch(
        &self,
        headers: &HeaderMap,
        views: &[String],
        info: ConnInfo,
    ) -> impl Future<Output = Result<BoxStream<'static, Bytes>, EventsRefusal>> + Send;

    /// The metrics.
    fn metrics(&self, form: Form) -> impl Future<Output = String> + Send;

    /// The time if exchanges of somebody are kept.
    fn recording(&self) -> Option<Timestamp> {
        None
    }

    /// Keeps an exchange, if it is of a thing that is traced.
    fn record(&self, _exchange: &traced::Exchange) {}

    /// The files that can be moved; none when this connection is one too many.
    fn files(&self) -> Option<&Arc<Files>>;

    /// Notes that a file has come.
    fn file_stored(&self, stored: &Stored);

    /// Whether the server is not stopping.
    fn ready(&self) -> bool;

    /// Whether the server does all that it is asked to: the limits that are reached, or why it does not.
    fn readiness(&self) -> Result<Vec<String>, String>;
}

/// What the configuration says about HTTP.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The largest body, and the largest WebSocket message less its MQTT header.
    pub body_bytes_max: usize,
    /// Peers whose X-Forwarded-For is believed.
    pub trusted: Trusted,
    /// Origins whose web pages may use the server from a browser.
    pub cors_origins: Origins,
    /// Whether the metrics have a listener of their own.
    pub has_metrics_listener: bool,
}

/// Serves one connection until its end.
///
/// `info` carries `http` or `https` and the socket's (or the PROXY header's) peer. When `stop` is
/// cancelled, the request in flight is answered and the connection closed; MQTT connections are the
/// service's to stop.
pub async fn serve_connection<S: HttpService>(
    stream: Stream,
    info: ConnInfo,
    service: Arc<S>,
    config: Arc<HttpConfig>,
    stop: CancellationToken,
) {
    serve(stream, HttpConn::new(service, config, info, WAITS), stop).await;
}

async fn serve<S: HttpService>(mut stream: Stream, conn: HttpConn<S>, stop: CancellationToken) {
    let lease = conn.service.lease(conn.info.network());
    let first = read_first_head(&mut stream, (&*conn.service, &conn.info), lease);
    let first = time::timeout(conn.waits.login, first);
    let head = tokio::select! {
        () = stop.cancelled() => return,
        head = first => match head {
            Ok(Ok(head)) => head,
            _ => return,
        },
    };
    if let Some(met) = Met::of(&head).filter(|met| *met != Met::Http) {
        // hyper refuses it with status 400.
        wrong_door::log(&conn.info, met);
    }
    let has_tunnel = conn.info.door != Door::Metrics;
    if let Some(length) = tunnel::request_length(&head).filter(|_| has_tunnel) {
        let mut rest = head;
        rest.advance(length);
        if stream.write_all(tunnel::ANSWER).await.is_ok() && stream.flush().await.is_ok() {
            let stream = Stream::Boxed(Box::new(Replay::new(stream, rest)));
            Box::pin(conn.service.mqtt(stream, tunnel::conn_info(conn.info))).await;
        }
        return;
    }
    let conn = Arc::new(conn);
    let (stream, unread) = serve_requests(Replay::new(stream, head), &conn, &stop).await;
    match conn.websocket.get() {
        Some(info) => {
            let frame_bytes_max = conn.config.body_bytes_max;
            let lease = conn.service.lease(info.network());
            let stream = websocket::byte_stream(stream, unread, frame_bytes_max, lease).await;
            Box::pin(conn.service.mqtt(stream, *info)).await;
        }
        None => {
            // Thousands may linger, and of each it is as much as a request.
            drop(unread);
            let mut linger = std::pin::pin!(super::linger(stream));
            let lingered = stop.run_until_cancelled(&mut linger).await;
            // Others need the place, or the server stops.
            if lingered.is_none() && !conn.service.ready() {
                linger.await;
            }
        }
    }
}

/// Does work of somebody who has not logged in: while the cores are full, in turns.
async fn in_turns<F: Future>(service: &impl HttpService, conn: &ConnInfo, work: F) -> F::Output {
    match service.cores() {
        Some(cores) => cores.pieces(stranger(conn), work).await,
        None => work.await,
    }
}

/// Reads until the end of the first request's head, or until it is certain that hyper should see
/// what there is: its head is too long, or it is no HTTP.
async fn read_first_head<S: HttpService>(
    stream: &mut Stream,
    (service, conn): (&S, &ConnInfo),
    mut lease: Lease,
) -> io::Result<Bytes> {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        let count = tokio::select! {
            biased;
            count = in_turns(service, conn, stream.read_buf(&mut head)) => count?,
            _ = lease.cut_off() => return Err(io::ErrorKind::TimedOut.into()),
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let http =
            head.first().is_some_and(|b| b.is_ascii_uppercase() || matches!(b, b'\r' | b'\n'));
        if !http || head.len() > limits::HTTP_HEAD_BYTES_MAX || tunnel::head_length(&head).is_some()
        {
            return Ok(head.freeze());
        }
        if lease.hold(head.capacity()).await.is_err() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Serves requests until the connection is to be closed, or has become a WebSocket. Gives the
/// stream back, with the bytes that were read from it and not used.
async fn serve_requests<S: HttpService>(
    stream: Replay<Stream>,
    conn: &Arc<HttpConn<S>>,
    stop: &CancellationToken,
) -> (Replay<Stream>, Bytes) {
    let handler = service_fn(|request| {
        let conn = Arc::clone(conn);
        Box::pin(async move { Ok::<_, std::convert::Infallible>(conn.answer(request).await) })
    });
    let lease = conn.service.lease(conn.info.network());
    let stream = OneChunk::new(stream, conn.one_chunk.clone());
    let stream = Counted::new(stream, conn.held.clone(), lease);
    let stream = WriteClock::new(stream, conn.write_wait.clone());
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(conn.waits.keep_alive)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        // A client that shuts its sending side down still reads the answer.
        .half_close(true)
        // libtr50 looks for exactly `Content-Length: ` (fact 19).
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), handler);
    let (cores, asker) = (conn.service.cores(), stranger(&conn.info));
    let mut served = |cx: &mut Context<'_>| match cores {
        // What is done for somebody who has logged in counts for both.
        Some(cores) => cores.noted(asker, || connection.poll_without_shutdown(cx)),
        None => connection.poll_without_shutdown(cx),
    };
    let ended = tokio::select! {
        ended = poll_fn(&mut served) => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        // Others get its place, and it has said nothing yet, or nothing more.
        None if conn.service.ready() => Ok(()),
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
            time::timeout(limits::STOP_WAIT, last).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %conn.info.remote_addr, %error, "HTTP connection broke");
    }
    let parts = connection.into_parts();
    let counted = parts.io.into_inner().into_inner();
    (counted.into_inner().into_inner(), parts.read_buf)
}

#[cfg(test)]
mod tests;
