//! A TR50 client: what `tr50d call`, the simulated fleet and the tests of the whole server use.
//!
//! [`Client`] asks one command after the other over any of the URLs; `examples/client.rs` and
//! `examples/device.rs` show how. [`Connection`] is the part under it for MQTT and TCP, which keeps
//! many requests on their way. [`fleet`] simulates devices by the thousand.

mod connection;
mod dial;
pub mod fleet;
mod http;
pub mod replay;
mod reply;
mod tls;
mod url;
mod websocket;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

pub(crate) use connection::reply_id;
pub use connection::{Connection, Incoming};
pub use dial::Target;
pub use http::HttpConnection;
pub use mqtt::Version;
pub use reply::Reply;
pub use url::{BadUrl, Login, Trust, Url, mqtt_version};

use base::Protocol;

/// The key under which [`request_text`] puts its command.
const COMMAND_KEY: &str = "cmd";

/// Bytes of one reply: `session.list` of 5,000 sessions is about 5 MB.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How to connect, where the URL does not say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// MQTT requests with QoS 1 instead of 0.
    pub qos1: bool,
    /// MQTT keep-alive in seconds. Whoever sets it sends the pings; 0 means that none are due.
    pub keep_alive_s: u16,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// Time for connecting with login, and for each command.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { qos1: false, keep_alive_s: 0, source: None, timeout: Duration::from_secs(30) }
    }
}

/// Why a client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host has no address.
    #[error("cannot find the host '{host}': {source}")]
    Resolve {
        /// The URL's host.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// A host that can't be in a certificate or a header.
    #[error("'{0}' is not a host name or an address")]
    ServerName(String),
    /// The system trusts nobody, and the URL names no certificate.
    #[error(
        "the system has no root certificates ({0}); name the server's certificate, or its \
         issuer's, with ca=FILE in the URL"
    )]
    NoRoots(String),
    /// A file of certificates that can't be used.
    #[error("cannot use the certificates in '{file}': {reason}")]
    Ca {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
    /// No connection.
    #[error("{step} to {authority} failed: {source}")]
    Dial {
        /// How far it came.
        step: &'static str,
        /// The server.
        authority: String,
        /// What the system says.
        source: io::Error,
    },
    /// A login or a request that does not fit into MQTT.
    #[error(
        "a client id, user name or password has at most 65535 bytes, a request over MQTT 256 MB"
    )]
    TooLong(#[from] mqtt::encode::TooLong),
    /// The login failed.
    #[error("the server refused the login: {0}")]
    Refused(String),
    /// The server carried a command out as far as it could, and said no.
    #[error("the command failed: {0}")]
    Failed(String),
    /// The connection ended.
    #[error("the server closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// HTTP went wrong.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// HTTP with a status that TR50 has no use for.
    #[error("the server answered with HTTP status {0}")]
    Status(u16),
    /// Not MQTT.
    #[error("the server sent something that is not MQTT: {0}")]
    NotMqtt(#[from] mqtt::Malformed),
    /// MQTT, but no answer to CONNECT.
    #[error("the server sent something that is not MQTT: another frame before the CONNACK")]
    NoConnAck,
    /// Not JSON, or not a reply to the request.
    #[error("the server answered something that is not a TR50 reply: {0}")]
    NotAReply(String),
    /// A reply beyond the bound.
    #[error("the server's reply is longer than 64 MiB")]
    ReplyTooLong,
    /// Too slow.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The command's parameters are not JSON.
    #[error("the parameters are not JSON: {0}")]
    BadParams(#[source] serde_json::Error),
}

/// What a client talks through.
pub(crate) enum Link {
    /// MQTT or TCP.
    Connection(Box<Connection>),
    /// HTTP.
    Http(Box<HttpConnection>),
}

/// A logged-in client that asks one command after the other.
pub struct Client {
    link: Link,
    timeout: Duration,
    next_id: u32,
}

impl Client {
    /// Connects and logs in as the URL says.
    pub async fn connect(url: &Url) -> Result<Self, ClientError> {
        Self::connect_to(&Target::resolve(url).await?, url, &Options::default()).await
    }

    /// Connects to a target that was resolved before, and logs in as the URL says.
    pub async fn connect_to(
        target: &Target,
        url: &Url,
        options: &Options,
    ) -> Result<Self, ClientError> {
        let open = async {
            Ok(match url.protocol {
                Protocol::Http | Protocol::Https => {
                    Link::Http(Box::new(HttpConnection::open(target, url, options).await?))
                }
                _ => Link::Connection(Box::new(Connection::open(target, url, options).await?)),
            })
        };
        let link = within(options.timeout, open).await?;
        Ok(Self { link, timeout: options.timeout, next_id: 0 })
    }

    /// Sends one command and waits for its answer. `params` is a JSON text.
    pub async fn call(
        &mut self,
        command: &str,
        params: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let request = request_text(command, params)?;
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        match &mut self.link {
            Link::Connection(connection) => {
                within(self.timeout, connection.ask(id, request.as_bytes())).await
            }
            Link::Http(http) => within(self.timeout, http.ask(&request)).await,
        }
    }

    /// Waits until the server says that mail waits (`notify/mailbox_activity`): then `mailbox.check`
    /// brings it. A notice that came during a command counts. Servers tell it over MQTT; over the
    /// other protocols this waits for the end of the connection, which is an error. Cancel safe.
    pub async fn mail_waits(&mut self) -> Result<(), ClientError> {
        match &mut self.link {
            Link::Connection(connection) => connection.mail_waits().await,
            Link::Http(http) => {
                http.closed().await;
                Err(ClientError::Closed)
            }
        }
    }

    /// Waits until the server closes the connection; what it sends until then is dropped.
    pub async fn closed(&mut self) {
        match &mut self.link {
            Link::Http(http) => http.closed().await,
            Link::Connection(connection) => loop {
                if connection.exchange().await.is_err() {
                    return;
                }
                while let Ok(Some(_)) = connection.next_incoming() {}
            },
        }
    }

    /// Logs out where the protocol can (DISCONNECT, `session.end`) and closes.
    pub async fn close(self) {
        let close = async {
            match self.link {
                Link::Connection(connection) => connection.close().await,
                Link::Http(http) => http.close().await,
            }
        };
        // A server that does not take the goodbye sees the connection end.
        let _ = timeout(self.timeout, close).await;
    }

    pub(crate) fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}

async fn within<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    timeout(wait, work).await.unwrap_or(Err(ClientError::Timeout(wait)))
}

/// A request with one command under the key `cmd`: compact JSON in one line. `params` is a JSON
/// text.
pub fn request_text(command: &str, params: Option<&str>) -> Result<String, ClientError> {
    #[derive(Serialize)]
    struct Command<'a> {
        command: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a RawValue>,
    }
    #[derive(Serialize)]
    struct Request<'a> {
        cmd: Command<'a>,
    }
    let params = params.map(serde_json::from_str).transpose().map_err(ClientError::BadParams)?;
    let text = serde_json::to_string(&Request { cmd: Command { command, params } });
    text.map(|text| reply::compact(&text)).map_err(ClientError::BadParams)
}

/// The `auth` request of a login over TCP and HTTP (`docs/protocol/tr50.md` 3.1); `None` without a
/// login.
fn login_text(url: &Url) -> Option<String> {
    let params = match &url.login {
        Login::None => return None,
        Login::User { email, password } => {
            serde_json::json!({"username": email, "password": password})
        }
        Login::Thing { key, token } => {
            serde_json::json!({"appId": url.app_id, "appToken": token, "thingKey": key})
        }
    };
    // `params` last: firmware and its imitators look for the end of the login by its braces.
    Some(format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#))
}

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
