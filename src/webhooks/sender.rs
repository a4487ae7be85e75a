//! One delivery: a POST over a connection of its own, to an address that was looked at. The name is
//! resolved for each of them, and the connection goes to the very address that was looked at: what
//! a resolver says to others, or says later, does not matter. No redirect is followed, and no proxy
//! is used.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::limits;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::{Host, Target};
use super::{address, signature::Secret};

/// What is sent.
pub struct Post {
    /// `webhook-id`: the same for each try of the same events.
    pub id: String,
    /// The number of the first event.
    pub number: u64,
    /// When, in Unix seconds.
    pub seconds: i64,
    /// The JSON.
    pub body: Bytes,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The receiver has it.
    Taken(u16),
    /// The receiver says something else than 2xx, and maybe when to try again.
    Refused(u16, Option<Duration>),
    /// There was no answer.
    Failed(Cause, String),
}

/// Why there was no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The name has no address.
    Name,
    /// It has none that may be reached.
    Address,
    /// Nobody takes connections there.
    Connect,
    /// The certificate is not good, or there is no TLS.
    Tls,
    /// What came was no HTTP, or more than is read.
    Answer,
    /// It took too long.
    Timeout,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Name, Self::Address, Self::Connect, Self::Tls, Self::Answer, Self::Timeout];

    /// Its name in metrics and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Answer => "answer",
            Self::Timeout => "timeout",
        }
    }
}

/// What makes deliveries.
pub struct Sender {
    /// Whether addresses that are not the Internet's may be reached.
    allow_private: bool,
    tls: OnceCell<Arc<ClientConfig>>,
}

/// A failure with its cause.
type Failed = (Cause, String);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Sender {
    /// One that may reach this machine and private networks, or may not.
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private, tls: OnceCell::new() }
    }

    /// Whether it may reach this machine and private networks.
    pub const fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Whether it may send to this host, as far as that can be said before its name is resolved.
    pub fn may_send_to(&self, target: &Target) -> bool {
        match &target.host {
            Host::Address(address) => address::may_reach(*address, self.allow_private),
            Host::Name(name) => {
                let name = name.trim_end_matches('.');
                self.allow_private || name != "localhost" && !name.ends_with(".localhost")
            }
        }
    }

    /// Sends it. Nothing ends a look-up of a name, which keeps `place` for as long as it takes.
    pub async fn post(
        &self,
        target: &Target,
        secret: &Secret,
        post: &Post,
        place: impl Send + 'static,
    ) -> Answer {
        let exchange = async {
            let stream = self.connect(target, place).await?;
            let request = request(target, secret, post);
            exchange(stream, request).await
        };
        match timeout(limits::WEBHOOK_WAIT, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err((cause, why))) => Answer::Failed(cause, why),
            Err(_) => {
                let seconds = limits::WEBHOOK_WAIT.as_secs();
                Answer::Failed(Cause::Timeout, format!("no answer within {seconds} s"))
            }
        }
    }

    async fn connect(
        &self,
        target: &Target,
        place: impl Send + 'static,
    ) -> Result<Box<dyn Stream>, Failed> {
        let mut failed = None;
        for address in self.addresses(target, place).await? {
            match timeout(limits::WEBHOOK_CONNECT_WAIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secured(target, stream).await,
                Ok(Err(error)) => failed = Some((Cause::Connect, format!("{address}: {error}"))),
                Err(_) => failed = Some((Cause::Timeout, format!("{address} does not answer"))),
            }
        }
        Err(failed.unwrap_or_else(|| (Cause::Name, "the name has no address".to_owned())))
    }

    /// The addresses of the host that may be reached.
    async fn addresses(
        &self,
        target: &Target,
        place: impl Send + 'static,
    ) -> Result<Vec<SocketAddr>, Failed> {
        let found: Vec<_> = match &target.host {
            Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
            Host::Name(name) => {
                let looked_up = (name.clone(), target.port);
                let look_up = move || {
                    let _place = place;
                    looked_up.to_socket_addrs()
                };
                let found = tokio::task::spawn_blocking(look_up).await;
                let no_address = |error: io::Error| (Cause::Name, format!("{name}: {error}"));
                let found = found.map_err(io::Error::from).flatten().map_err(no_address)?;
                found.take(limits::WEBHOOK_ADDRESSES_MAX).collect()
            }
        };
        let may = |found: &SocketAddr| address::may_reach(found.ip(), self.allow_private);
        if let (Some(refused), false) = (found.first(), found.iter().any(may)) {
            let why = format!("{} is not on the Internet (webhooks.allow_private)", refused.ip());
            return Err((Cause::Address, why));
        }
        Ok(found.into_iter().filter(may).collect())
    }

    async fn secured(&self, target: &Target, tcp: TcpStream) -> Result<Box<dyn Stream>, Failed> {
        // A small request is not to wait for the acknowledgement of the handshake.
        let _ = tcp.set_nodelay(true);
        if !target.is_tls {
            return Ok(Box::new(tcp));
        }
        let failed = |why: String| (Cause::Tls, why);
        let config = self.tls.get_or_try_init(|| async {
            let made = tokio::task::spawn_blocking(client_config).await;
            made.map_err(|error| error.to_string()).flatten()
        });
        let config = config.await.map_err(failed)?;
        let name = match &target.host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => {
                let name = name.trim_end_matches('.').to_owned();
                ServerName::try_from(name).map_err(|error| failed(error.to_string()))?
            }
        };
        let connected = TlsConnector::from(config.clone()).connect(name, tcp).await;
        connected
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .map_err(|error| failed(error.to_string()))
    }
}

/// TLS with what the system trusts.
fn client_config() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores of systems have old certificates that nobody can read any more.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error = found.errors.first().map(ToString::to_string);
        return Err(error.unwrap_or_else(|| "the system trusts no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn request(target: &Target, secret: &Secret, post: &Post) -> Result<Request<Full<Bytes>>, Failed> {
    let Post { id, number, seconds, body } = post;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&*target.path)
        .header(HOST, &*target.authority)
        .header(USER_AGENT, concat!("tr50d/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .header("webhook-id", id)
        .header("webhook-timestamp", *seconds)
        .header("webhook-number", *number)
        .header("webhook-signature", secret.sign(id, *seconds, body))
        .body(Full::new(body.clone()));
    request.map_err(|error| (Cause::Answer, error.to_string()))
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Result<Request<Full<Bytes>>, Failed>,
) -> Result<Answer, Failed> {
    let failed = |error: hyper::Error| (Cause::Answer, base::chain(&error).to_string());
    // A receiver may send heads of status 1xx without end.
    let (read, write) = tokio::io::split(stream);
    let stream = tokio::io::join(read.take(limits::WEBHOOK_READ_BYTES_MAX), write);
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits::WEBHOOK_ANSWER_HEADERS_MAX)
        .max_buf_size(limits::WEBHOOK_ANSWER_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = request?;
    let mut exchange = pin!(async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let (outcome, body) = read_head(answer);
        // A receiver that is still writing is not cut off, as long as that is not much.
        let _ = timeout(limits::WEBHOOK_BODY_WAIT, drain(body)).await;
        Ok(outcome)
    });
    let mut connection = pin!(connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            done = &mut exchange => return done,
            // What goes wrong with it the exchange says, too.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

fn read_head(answer: Response<Incoming>) -> (Answer, Incoming) {
    let (head, body) = answer.into_parts();
    let status = head.status;
    let outcome = match status.is_success() {
        true => Answer::Taken(status.as_u16()),
        false => Answer::Refused(status.as_u16(), retry_after(status, &head.headers)),
    };
    (outcome, body)
}

/// Reads the body of an answer as far as it is short.
async fn drain(mut body: Incoming) {
    let mut left = limits::WEBHOOK_ANSWER_BYTES_MAX;
    while !body.is_end_stream() {
        let Some(Ok(frame)) = body.frame().await else { return };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}

/// After which time the receiver wants it again: in seconds, or as a date.
#[expect(clippy::disallowed_methods, reason = "the receiver's date goes by its wall clock")]
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    // For others, as for a redirect, it means something else.
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_when_it_wants_it_again() {
        let check = |status: u16, text: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            let status = StatusCode::from_u16(status).expect("a status");
            let found = retry_after(status, &headers).map(|after| after.as_secs());
            assert_eq!(found, expected, "{status} {text}");
        };
        check(503, "120", Some(120));
        check(429, " 7 ", Some(7));
        check(503, "Wed, 21 Oct 2015 07:28:00 GMT", Some(0));
        check(503, "-1", None);
        check(503, "soon", None);
        check(503, "99999999999999999999999", None);
        check(302, "120", None);
    }

    #[test]
    fn names_of_this_machine_are_known() {
        let check = |url: &str, public: bool| {
            let target = Target::parse(url).expect("a URL");
            let found = [false, true].map(|private| Sender::new(private).may_send_to(&target));
            assert_eq!(found, [public, true], "{url}");
        };
        check("http://localhost/", false);
        check("http://LOCALHOST./", false);
        check("http://a.localhost/", false);
        check("http://[::ffff:127.0.0.1]/", false);
        check("http://10.0.0.1/", false);
        check("http://localhost.example/", true);
        check("https://1.1.1.1/", true);
    }
}
