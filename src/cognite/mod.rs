//! The session directory in the words of Cognite's organisation API (`session-apis.md` A): principals
//! and their login sessions, below `/api/v1`.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, Response, StatusCode};

use crate::core::Core;
use crate::timestamp::Timestamp;
use crate::transport::ConnInfo;

mod error;

use error::Error;

/// Answers a request. With `full` the server has no room for the connection.
pub async fn answer(
    core: &Arc<Core>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
    now: Timestamp,
) -> Response<Bytes> {
    let _ = (core, request, conn, now);
    let refused = match full {
        true => Error::new(StatusCode::SERVICE_UNAVAILABLE, "The server is full; try again."),
        false => Error::new(StatusCode::NOT_FOUND, "There is nothing at this path."),
    };
    refused.into_response()
}
