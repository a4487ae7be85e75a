//! Errors in the one form that the clients read: `{"error":{"code":…,"message":…}}`, and nothing
//! beside `error` (`docs/protocol/cognite.md` A6).

use std::borrow::Cow;

use base::{Code, Failure, excerpt};
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

const TRY_AGAIN: &str = "The server is full; try again.";

const TRY_NEXT_SECOND: &str = "Too many requests in this second; try again in the next.";

/// A request that failed.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    missing: Vec<Reference>,
    header: Option<(HeaderName, &'static str)>,
}

impl Error {
    /// Its status and what it says.
    pub fn described(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.message)
    }
}

/// The body of every answer that is no success.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Body<'a> {
    error: Detail<'a>,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorDetail)]
struct Detail<'a> {
    /// The status of the answer.
    code: u16,
    /// One sentence for people.
    message: &'a str,
    /// What was named in the request and does not exist.
    #[serde(skip_serializing_if = "no_items")]
    #[schema(required = false)]
    missing: &'a [Reference],
}

fn no_items(items: &&[Reference]) -> bool {
    items.is_empty()
}

/// A name of something: exactly one of the two.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reference {
    /// Its id.
    Id(String),
    /// Its `externalId`.
    ExternalId(String),
}

impl Error {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), missing: Vec::new(), header: None }
    }

    /// 400: the request is not what it should be.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 for a parameter of the query or a member of the body.
    pub fn parameter(name: &str, rule: &str) -> Self {
        Self::bad_request(format!("Parameter \"{name}\" {rule}."))
    }

    /// 401: nobody, or somebody who is not known any more. Which of them, a stranger does not
    /// learn.
    pub fn unauthorized() -> Self {
        let message = "The bearer token is missing, unknown or has ended.";
        let header = Some((WWW_AUTHENTICATE, "Bearer"));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }

    /// 403 for an organisation; the same whether it exists or not.
    pub fn forbidden(org: &str) -> Self {
        let org = excerpt(org);
        let message = format!("The caller has no access to this in organisation \"{org}\".");
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 403: a service account has no login sessions (`docs/protocol/cognite.md` A2).
    pub fn service_account() -> Self {
        Self::new(StatusCode::FORBIDDEN, "A service account has no login sessions.")
    }

    /// 404.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The same failure, which also lists what is missing.
    #[must_use]
    pub fn with_missing(self, missing: Vec<Reference>) -> Self {
        Self { missing, ..self }
    }

    /// 405: the path takes these methods.
    pub fn method(allowed: &'static str) -> Self {
        let message = format!("This path takes {allowed}.");
        let header = Some((ALLOW, allowed));
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// 429: the session, all of its login, or all in its organisation have sent as many requests in
    /// this second as they may; the failure says which of them.
    pub fn too_many_requests(failure: &Failure) -> Self {
        Self::try_next_second(format!("{TRY_NEXT_SECOND} {}", failure.message))
    }

    /// 429: too many tokens were guessed.
    pub fn locked() -> Self {
        Self::try_next_second(TRY_NEXT_SECOND)
    }

    fn try_next_second(message: impl Into<Cow<'static, str>>) -> Self {
        let header = Some((RETRY_AFTER, "1"));
        Self { header, ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// 503: there is no room; the clients try again.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: the reason is for the log, where it is noted now.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request of the organisation API failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The server failed.")
    }

    /// The failure of TR50 that means the same, by which it is counted.
    pub fn as_failure(&self) -> Failure {
        let code = match self.status.as_u16() {
            400 | 405 => Code::PARAMETER_INVALID,
            401 => Code::AUTHENTICATION_MISSING,
            403 => Code::PERMISSION_DENIED,
            404 => Code::NOT_FOUND,
            429 => Code::RATE_LIMITED,
            503 => Code::BUSY,
            _ => Code::INTERNAL,
        };
        Failure::new(code, self.message.clone())
    }

    /// The answer.
    pub fn into_response(self) -> Response<Bytes> {
        let code = self.status.as_u16();
        let detail = Detail { code, message: &self.message, missing: &self.missing };
        let body = serde_json::to_vec(&Body { error: detail }).expect("numbers and texts");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// What is wrong is in the log already.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Code::BUSY => Self::unavailable(failure.message),
            Code::STORE_UNAVAILABLE => Self::unavailable(TRY_AGAIN),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The server failed."),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_temporary() => Self::unavailable(TRY_AGAIN),
            error => Self::internal(&error),
        }
    }
}
