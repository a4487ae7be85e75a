//! Commands over HTTP: `POST /api`, one after the other on a connection that is kept open.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio_util::task::AbortOnDropHandle;

use super::dial::Target;
use super::reply::Reply;
use super::url::Url;
use super::{ClientError, Options, REPLY_BYTES_MAX, login_text};

/// A connection with the session that was started on it (`docs/protocol/tr50.md` 1.3).
pub struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortOnDropHandle<()>,
    host: HeaderValue,
    session_id: Option<HeaderValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginParams {
    session_id: String,
}

impl HttpConnection {
    /// Connects to `target` from `options.source` and logs in as `url` says.
    pub async fn open(target: &Target, url: &Url, options: &Options) -> Result<Self, ClientError> {
        let host = HeaderValue::from_str(target.authority());
        let host = host.map_err(|_| ClientError::ServerName(target.authority().to_owned()))?;
        let stream = target.dial(options.source).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How the connection ends shows in the next request.
        let driver = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let mut http = Self { sender, driver, host, session_id: None };
        if let Some(login) = login_text(url) {
            let reply = Reply::parse(&http.post(Bytes::from(login)).await?, "auth")?;
            if !reply.success() {
                return Err(ClientError::Refused(reply.failure()));
            }
            let not_a_reply = || ClientError::NotAReply("a login without a sessionId".to_owned());
            let params: LoginParams = reply.params().map_err(|_| not_a_reply())?;
            let session_id = HeaderValue::from_str(&params.session_id);
            http.session_id = Some(session_id.map_err(|_| not_a_reply())?);
        }
        Ok(http)
    }

    /// Posts one body and returns the reply's.
    pub async fn post(&mut self, body: Bytes) -> Result<Bytes, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/api");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(session_id) = &self.session_id {
            headers.insert("sessionid", session_id.clone());
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
        let body = body.map_err(|_| ClientError::Closed)?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(ClientError::Status(status.as_u16())) }
    }

    /// The id of the session that was started.
    pub(crate) fn session_id(&self) -> Option<&str> {
        self.session_id.as_ref()?.to_str().ok()
    }

    /// Sends any request; the status and the body of its answer.
    pub(crate) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(u16, Bytes), ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let uri = path.parse();
        *request.uri_mut() = uri.map_err(|_| ClientError::NotAReply(format!("path {path:?}")))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|_| ClientError::Closed)?.to_bytes()))
    }

    /// Stores the bytes of a file under the id of a `file.put` (`docs/protocol/tr50.md` 4.3).
    pub async fn store_file(&mut self, id: &str, bytes: Bytes) -> Result<(), ClientError> {
        self.move_file(Method::POST, id, bytes, 0).await.map(drop)
    }

    /// Fetches the bytes of a file, at most so many, under the id of a `file.get`.
    pub async fn fetch_file(&mut self, id: &str, bytes_max: usize) -> Result<Bytes, ClientError> {
        self.move_file(Method::GET, id, Bytes::new(), bytes_max).await
    }

    async fn move_file(
        &mut self,
        method: Method,
        id: &str,
        body: Bytes,
        answer_bytes_max: usize,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let uri = format!("/file/{id}").parse();
        *request.uri_mut() = uri.map_err(|_| ClientError::NotAReply(format!("file id {id:?}")))?;
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(ClientError::Status(status.as_u16()));
        }
        let body = Limited::new(response.into_body(), answer_bytes_max).collect().await;
        Ok(body.map_err(|_| ClientError::Closed)?.to_bytes())
    }

    pub(super) async fn ask(&mut self, request: &str) -> Result<Reply, ClientError> {
        let body = self.post(Bytes::copy_from_slice(request.as_bytes())).await?;
        Reply::of_command(&body)
    }

    /// Waits until the server closes.
    pub(crate) async fn closed(&mut self) {
        // A task that was awaited to its end must not be polled again.
        if !self.driver.is_finished() {
            let _ = (&mut self.driver).await;
        }
    }

    /// Ends the session, which would otherwise last until its time is over, and closes.
    pub async fn close(mut self) {
        if self.session_id.is_some() {
            let end = Bytes::from_static(br#"{"cmd":{"command":"session.end"}}"#);
            // Nobody is left who wants to know when it fails.
            let _ = self.post(end).await;
        }
    }
}
