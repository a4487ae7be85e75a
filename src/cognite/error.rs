//! Errors in the one form that the clients read: `{"error":{"code":…,"message":…}}`, and nothing
//! beside `error` (`session-apis.md` A6).

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// A request that failed.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: u16,
    message: &'a str,
}

impl Error {
    /// A failure with this status and sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The answer.
    pub fn into_response(self) -> Response<Bytes> {
        let detail = Detail { code: self.status.as_u16(), message: &self.message };
        let body = serde_json::to_vec(&Body { error: detail }).expect("a number and a text");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}
