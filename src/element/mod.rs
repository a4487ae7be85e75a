//! The session directory in the words of NetApp Element's API (`session-apis.md` B): JSON-RPC at
//! `/json-rpc/<version>`.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, Response, StatusCode};

use crate::core::Core;
use crate::timestamp::Timestamp;
use crate::transport::ConnInfo;

/// Answers a request. With `full` the server has no room for the connection.
pub async fn answer(
    core: &Arc<Core>,
    request: Request<Bytes>,
    conn: ConnInfo,
    full: bool,
    now: Timestamp,
) -> Response<Bytes> {
    let _ = (core, request, conn, full, now);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
