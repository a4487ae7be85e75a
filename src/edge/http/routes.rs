//! Routing: which path goes to which handler.

use std::sync::{Arc, OnceLock};

use base::{ConnInfo, Door, Failure, Protocol, limits};
use bytes::Bytes;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER, UPGRADE, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time;

use super::asked::{self, Kind, Wishes};
use super::cors::{self, Preflight};
use super::events::EventsRefusal;
use super::file::{FileBody, FileRefusal};
use super::host::{self, BadHost};
use super::one_chunk::Switch;
use super::rest;
use super::stream::{HeldBytes, WriteWait};
use super::traced::Exchange;
use super::whole::Whole;
use super::{Dialect, HttpConfig, HttpService, Waits, body, browser, gzip, inflate, websocket};
use crate::app::LoginFrom;
use crate::metrics::Form;
use crate::tr50::over_http::{Answered, Claims, Given};
use crate::tr50::pages::{self, Page};

/// By these headers a proxy shows itself.
const PROXY_HEADERS: [&str; 7] = [
    "x-forwarded-for",
    "forwarded",
    "via",
    "x-real-ip",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-by",
];

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

pub(super) const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) type Answer = Response<Either<Whole, FileBody>>;

/// The edge of one connection.
pub(super) struct HttpConn<S> {
    pub(super) service: Arc<S>,
    pub(super) config: Arc<HttpConfig>,
    pub(super) info: ConnInfo,
    pub(super) waits: Waits,
    /// Set when the connection becomes a WebSocket: the details of the connection inside.
    pub(super) websocket: OnceLock<ConnInfo>,
    /// Makes an answer one chunk.
    pub(super) one_chunk: Arc<Switch>,
    /// What hyper holds of a request.
    pub(super) held: Arc<HeldBytes>,
    /// For how long the peer may take nothing.
    pub(super) write_wait: Arc<WriteWait>,
    /// The body of the request under way, if exchanges are kept.
    pub(super) body: Mutex<Bytes>,
}

/// A request that is refused before anyone looks into it.
pub(super) enum Refusal {
    /// The request's `Host` is missing or wrong.
    Host(BadHost),
    /// A page of this origin may not.
    Origin,
    /// A page of another site sends it in somebody's name.
    Forged,
    /// No page of this server sends it, and it is only for those.
    OtherPage,
    /// Who may read them is said in the configuration.
    Metrics,
    NoSuchPath,
    Method {
        allowed: &'static str,
    },
    Upgrade,
    WebSocket(websocket::Refused),
    /// With TR50's failure of the whole request.
    TooLarge(Failure, Wishes),
    /// It is of a type that nobody here reads.
    ContentType,
    /// In a dialect that has statuses for it.
    ContentTooLarge,
    Compressed(inflate::Refused),
    BodyTimedOut,
    BodyCutOff,
    BodyBroken,
    File(FileRefusal),
    Events(EventsRefusal),
}

impl From<FileRefusal> for Refusal {
    fn from(refusal: FileRefusal) -> Self {
        Self::File(refusal)
    }
}

/// A POST that was read.
struct Posted {
    wishes: Wishes,
    claims: Claims,
    info: ConnInfo,
    /// What the body is, if it is no envelope.
    kind: Result<Kind, Refusal>,
    body: Bytes,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    code: u16,
    message: &'a str,
}

/// Notes that a piece of an answer goes out: HTTP copies it behind others that wait, into a buffer that
/// stays as long as it was.
pub(super) fn note_piece(service: &impl HttpService, bytes: usize) {
    if bytes >= limits::MEMORY_STEP_BYTES {
        service.keep(bytes + limits::HTTP_HEAD_BYTES_MAX);
    }
}

impl<S: HttpService> HttpConn<S> {
    /// The edge of a new connection.
    pub(super) fn new(
        service: Arc<S>,
        config: Arc<HttpConfig>,
        info: ConnInfo,
        waits: Waits,
    ) -> Self {
        let (websocket, one_chunk) = (OnceLock::new(), Arc::default());
        let write_wait = Arc::new(WriteWait::new(waits.write, waits.download));
        let held = Arc::default();
        let body = Mutex::default();
        Self { service, config, info, waits, websocket, one_chunk, held, write_wait, body }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        // The head; the body needs room of its own.
        self.held.note_used();
        let guarded = browser::may_show(request.uri().path(), request.headers());
        let kept = self.service.recording().map(|at| {
            (at, request.method().clone(), request.uri().clone(), request.headers().clone())
        });
        let taker = gzip::Taker::of(&request);
        let mut answer = self.checked(request).await;
        if guarded {
            browser::guard(answer.headers_mut());
        }
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            // Whoever is refused for want of room is told when to come again, on every path.
            let next = answer.headers_mut().entry(RETRY_AFTER);
            next.or_insert(HeaderValue::from_static("1"));
        }
        if let Some((at, method, uri, headers)) = kept {
            let body = std::mem::take(&mut *self.body.lock());
            let info = self.conn_info(&headers);
            let exchange = Exchange::new((at, info), (method, uri, headers, body), &answer);
            self.service.record(&exchange);
        }
        let answer = self.counted(taker.give(&*self.service, answer).await);
        // Who fetches a file goes on with it.
        if matches!(answer.body(), Either::Left(_)) {
            self.service.working(false);
        }
        answer
    }

    /// The same answer, which counts until the peer has read it.
    fn counted(&self, answer: Answer) -> Answer {
        answer.map(|body| match body {
            Either::Left(Whole(bytes)) => {
                note_piece(&*self.service, bytes.len().min(limits::READ_BYTES));
                Either::Left(Whole(self.service.count(bytes)))
            }
            file => file,
        })
    }

    async fn checked(&self, request: Request<Incoming>) -> Answer {
        let (path, headers) = (request.uri().path(), request.headers());
        let is_page =
            Dialect::of(path) == Some(Dialect::Console) && self.info.door != Door::Metrics;
        let refused = |refusal: Refusal| match is_page {
            true => self.in_words(refusal.into_answer()),
            false => refusal.into_answer(),
        };
        if let Err(bad) = host::check(&request) {
            return refused(Refusal::Host(bad));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || headers.contains_key(UPGRADE);
        if changes && browser::is_forged(&self.config.cors_origins, headers, self.info.certified) {
            return refused(Refusal::Forged);
        }
        if is_page && *request.method() == Method::POST && !browser::is_same(headers) {
            return refused(Refusal::OtherPage);
        }
        let Some(asked) = cors::Asked::read(&self.config.cors_origins, path, headers) else {
            return self.routed(request).await.unwrap_or_else(refused);
        };
        let mut answer = match asked.preflight(request.method(), headers) {
            Preflight::None => self.routed(request).await.unwrap_or_else(refused),
            Preflight::Allowed(headers) => may(headers),
            Preflight::Refused => refused(Refusal::Origin),
        };
        asked.mark(&mut answer);
        answer
    }

    /// A refusal as a page for people, with what else its head says.
    fn in_words(&self, refusal: Answer) -> Answer {
        let (head, _) = refusal.into_parts();
        let mut page = self.service.refusal_page(head.status);
        for (name, value) in &head.headers {
            page.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        page.map(|body| Either::Left(Whole(body)))
    }

    async fn routed(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path();
        if self.info.door == Door::Metrics && !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return Err(Refusal::NoSuchPath);
        }
        match request.uri().path() {
            "/api" | "/api/" => self.api(request).await,
            "/mqtt" | "/mqtt-ssl" => self.upgrade(&request),
            "/rest/auth" | "/rest/auth/" => self.rest_login(request).await,
            "/metrics" => self.metrics(&request).await,
            "/events" | "/events/" => self.events(&request).await,
            "/healthz" => self.page(&request, TEXT, |_| "ok\n".to_owned()),
            "/readyz" => self.readiness(&request),
            _ => self.below(request).await,
        }
    }

    /// What has a name of its own in the path.
    async fn below(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        if let Some(dialect) = Dialect::of(&path) {
            return self.dialect(dialect, request).await;
        }
        if let Some(id) = path.strip_prefix("/file/") {
            return self.file(id, request).await;
        }
        if let Some(page) = path.strip_prefix("/docs").and_then(pages::page) {
            let (kind, text) = match page {
                Page::Html(text) => (HTML, text),
                Page::Style => ("text/css; charset=utf-8", pages::STYLE.to_owned()),
            };
            let answer = self.page(&request, kind, |_| text)?;
            return Ok(with_header(answer, CONTENT_SECURITY_POLICY, browser::DOCS_POLICY));
        }
        match path.strip_prefix("/rest/_/").and_then(rest::command_name) {
            Some(command) => self.rest_command(&command, request).await,
            None => Err(Refusal::NoSuchPath),
        }
    }

    async fn api(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let Posted { wishes, claims, info, body, .. } = self.posted(request).await?;
        Ok(wishes.answer(self.service.tr50(body, claims, info).await))
    }

    async fn dialect(
        &self,
        dialect: Dialect,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let mut info = self.conn_info(&head.headers);
        if dialect == Dialect::Console && self.is_over_tls(&head.headers) {
            info.protocol = Protocol::Https;
        }
        let wishes = Wishes::default();
        let body = self.read_body(body, info, wishes).await.map_err(Refusal::outside_tr50)?;
        let bytes_max = self.config.body_bytes_max;
        let body =
            inflate::inflated(&head.headers, body, bytes_max).map_err(Refusal::Compressed)?;
        let answer = self.service.dialect(dialect, Request::from_parts(head, body), info).await;
        Ok(answer.map(|body| Either::Left(Whole(body))))
    }

    async fn rest_login(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let Posted { wishes, claims, info, kind, body } = self.posted(request).await?;
        let given = match kind? {
            Kind::Form => Given::Form(rest::fields(&body)),
            Kind::Json => Given::Json(body),
        };
        Ok(
            match self
                .service
                .log_in(given, LoginFrom { conn: info, user_agent: claims.user_agent })
                .await
            {
                Ok(session) => answer(StatusCode::OK, TEXT, session),
                Err(failure) => wishes.answer(Answered::refused(failure)),
            },
        )
    }

    async fn rest_command(
        &self,
        command: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let Posted { wishes, mut claims, info, kind, body } = self.posted(request).await?;
        let given = match kind? {
            Kind::Json => Given::Json(body),
            Kind::Form => {
                let (session, fields) = rest::session_and_fields(&body);
                claims.field = session;
                Given::Form(fields)
            }
        };
        Ok(wishes.answer(self.service.command(command, given, claims, info).await))
    }

    fn upgrade(&self, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        if request.method() != Method::GET {
            return Err(Refusal::Method { allowed: "GET" });
        }
        if !request.headers().contains_key(UPGRADE) {
            return Err(Refusal::Upgrade);
        }
        if !cors::may_open(&self.config.cors_origins, request.headers()) {
            return Err(Refusal::Origin);
        }
        let accepted = websocket::handshake(request).map_err(Refusal::WebSocket)?;
        let accepted = accepted.map(Either::Left);
        let info = self.conn_info(request.headers());
        // The first answer of this kind is also the last of the connection.
        let _ = self.websocket.set(websocket::conn_info(info));
        Ok(accepted)
    }

    /// The metrics: at their own listener for everybody; else for who is on this machine, and for
    /// those who may.
    async fn metrics(&self, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        if self.info.door != Door::Metrics {
            if self.config.has_metrics_listener {
                return Err(Refusal::NoSuchPath);
            }
            let headers = request.headers();
            let info = self.conn_info(headers);
            let may = match self.is_direct(headers) {
                true => Ok(true),
                false => self.service.may_read_metrics(headers, info).await,
            };
            if !may.map_err(|failure| Refusal::Events(EventsRefusal::Failure(failure)))? {
                return Err(Refusal::Metrics);
            }
        }
        let wanted = request.headers().get_all(ACCEPT);
        let form = Form::accepted(wanted.iter().filter_map(|value| value.to_str().ok()));
        let text = match *request.method() {
            Method::GET | Method::HEAD => self.service.metrics(form).await,
            _ => String::new(),
        };
        let answer = self.page(request, form.content_type(), |_| text)?;
        Ok(with_header(answer, VARY, "Accept"))
    }

    /// Whether the browser's connection is encrypted: here, or up to a proxy that is trusted.
    pub(super) fn is_over_tls(&self, headers: &HeaderMap) -> bool {
        let proto = headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok());
        let said = proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        let is_trusted = || self.config.trusted.contains(self.info.remote_addr.ip());
        self.info.protocol == Protocol::Https || (said && is_trusted())
    }

    /// Whether the peer is on this machine and no proxy speaks for somebody else.
    fn is_direct(&self, headers: &HeaderMap) -> bool {
        self.info.remote_addr.ip().to_canonical().is_loopback()
            && !PROXY_HEADERS.iter().any(|name| headers.contains_key(*name))
    }

    fn readiness(&self, request: &Request<Incoming>) -> Result<Answer, Refusal> {
        let reason = match self.service.readiness() {
            Ok(limits) => {
                let line = |limit: String| format!("limit reached: {limit}\n");
                let limits: String = limits.into_iter().map(line).collect();
                return self.page(request, TEXT, |_| format!("ready\n{limits}"));
            }
            Err(reason) => reason,
        };
        let mut answer = self.page(request, TEXT, |_| format!("not ready: {reason}\n"))?;
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(answer)
    }

    fn page(
        &self,
        request: &Request<Incoming>,
        content_type: &'static str,
        text: impl FnOnce(&Self) -> String,
    ) -> Result<Answer, Refusal> {
        match *request.method() {
            Method::GET | Method::HEAD => Ok(answer(StatusCode::OK, content_type, text(self))),
            _ => Err(Refusal::Method { allowed: "GET, HEAD" }),
        }
    }

    /// What there is to know of a POST.
    async fn posted(&self, request: Request<Incoming>) -> Result<Posted, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Method { allowed: "POST" });
        }
        let (head, body) = request.into_parts();
        let info = self.conn_info(&head.headers);
        let claims = asked::claims(&head.headers);
        let wishes = Wishes::of(&head, &claims);
        let kind = Kind::of(&head.headers);
        let body = self.read_body(body, info, wishes).await?;
        Ok(Posted { wishes, claims, info, kind, body })
    }

    pub(super) fn conn_info(&self, headers: &HeaderMap) -> ConnInfo {
        let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let values = values.iter().filter_map(|value| value.to_str().ok());
        let remote_addr = self.config.trusted.forwarded(self.info.remote_addr, values);
        ConnInfo { remote_addr, ..self.info }
    }

    async fn read_body(
        &self,
        body: Incoming,
        info: ConnInfo,
        wishes: Wishes,
    ) -> Result<Bytes, Refusal> {
        let of = (&*self.service, &info);
        let read = body::read(body, self.config.body_bytes_max, of, &self.held);
        match time::timeout(self.waits.body, read).await {
            Ok(Ok(body)) => {
                self.service.working(true);
                if self.service.recording().is_some() {
                    self.body.lock().clone_from(&body);
                }
                Ok(self.service.count(body))
            }
            Ok(Err(body::Unread::TooLarge)) => {
                Err(Refusal::TooLarge(self.service.too_large(info), wishes))
            }
            Ok(Err(body::Unread::Broken)) => Err(Refusal::BodyBroken),
            Ok(Err(body::Unread::CutOff)) => Err(Refusal::BodyCutOff),
            Err(_) => Err(Refusal::BodyTimedOut),
        }
    }
}

impl Refusal {
    /// The same for a dialect that is not TR50.
    fn outside_tr50(self) -> Self {
        match self {
            Self::TooLarge(..) => Self::ContentTooLarge,
            other => other,
        }
    }

    fn into_answer(self) -> Answer {
        match self {
            Self::File(refusal) => refusal.into_answer(),
            Self::Events(refusal) => refusal.into_answer(),
            Self::Host(bad) => closing(error(StatusCode::BAD_REQUEST, &bad.to_string())),
            Self::Origin => {
                let message = "http.cors_origins does not allow this origin here";
                error(StatusCode::FORBIDDEN, message)
            }
            Self::Forged => {
                let message = "pages of other sites may not send this with credentials of the \
                               browser; http.cors_origins lists those that may";
                closing(error(StatusCode::FORBIDDEN, message))
            }
            Self::OtherPage => {
                let message = "this path takes forms of this server's own pages only";
                closing(error(StatusCode::FORBIDDEN, message))
            }
            Self::Metrics => {
                let message = "metrics are for this machine, and for logins with the permission \
                               metrics";
                let refused = error(StatusCode::UNAUTHORIZED, message);
                with_header(refused, WWW_AUTHENTICATE, "Bearer")
            }
            Self::NoSuchPath => error(StatusCode::NOT_FOUND, "there is nothing at this path"),
            Self::Method { allowed } => {
                let message = format!("this path takes {allowed}");
                let refused = error(StatusCode::METHOD_NOT_ALLOWED, &message);
                with_header(refused, ALLOW, allowed)
            }
            Self::Upgrade => {
                let message = "this path takes WebSocket connections";
                let refused = error(StatusCode::UPGRADE_REQUIRED, message);
                with_header(with_header(refused, UPGRADE, "websocket"), CONNECTION, "upgrade")
            }
            Self::WebSocket(refused) => error(StatusCode::BAD_REQUEST, &refused.to_string()),
            Self::TooLarge(failure, wishes) => closing(wishes.answer(Answered::refused(failure))),
            Self::ContentType => {
                let message = "this path takes a form (application/x-www-form-urlencoded) or JSON \
                               in UTF-8 (application/json)";
                let refused = error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
                with_header(
                    refused,
                    ACCEPT_POST,
                    "application/json, application/x-www-form-urlencoded",
                )
            }
            Self::ContentTooLarge => {
                closing(error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))
            }
            Self::Compressed(inflate::Refused::TooLarge) => {
                error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large when it is inflated")
            }
            Self::Compressed(inflate::Refused::Unknown) => {
                let message = "bodies can be compressed with gzip or deflate";
                error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
            }
            Self::Compressed(inflate::Refused::Broken) => {
                error(StatusCode::BAD_REQUEST, "the body is not compressed as its header says")
            }
            Self::BodyTimedOut => {
                closing(error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))
            }
            Self::BodyCutOff => {
                let message = "there is no room for half a body; try again";
                let refused = error(StatusCode::SERVICE_UNAVAILABLE, message);
                closing(with_header(refused, RETRY_AFTER, "1"))
            }
            Self::BodyBroken => {
                closing(error(StatusCode::BAD_REQUEST, "the body is not what its header says"))
            }
        }
    }
}

/// The answer to a preflight: what the page may, and no more.
fn may(headers: HeaderMap) -> Answer {
    let mut answer = Response::new(Either::Left(Whole::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    *answer.headers_mut() = headers;
    answer
}

pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Either::Left(Whole(body.into())));
    *answer.status_mut() = status;
    with_header(answer, CONTENT_TYPE, content_type)
}

pub(super) fn error(status: StatusCode, message: &str) -> Answer {
    let body = ErrorBody { error: ErrorDetail { code: status.as_u16(), message } };
    answer(status, JSON, serde_json::to_vec(&body).expect("a number and a text can be written"))
}

/// The answer, after which the connection is closed: the rest of the request was not read.
pub(super) fn closing(answer: Answer) -> Answer {
    with_header(answer, CONNECTION, "close")
}

pub(super) fn with_header(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
