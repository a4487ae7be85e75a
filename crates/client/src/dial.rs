//! Opening the byte stream that a URL names: name resolution, TCP, TLS and WebSocket.

use std::io;
use std::net::{IpAddr, SocketAddr};

use base::Protocol;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::url::{Trust, Url};
use super::{ClientError, tls, websocket};

/// The byte stream of a connection: TCP, TLS or a WebSocket.
pub(crate) type Stream = Box<dyn ByteStream>;

/// A byte stream that can be boxed.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A server whose name is resolved and whose certificates are loaded: what many connections share.
#[derive(Clone)]
pub struct Target {
    protocol: Protocol,
    authority: String,
    addresses: Vec<SocketAddr>,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    trust: Trust,
}

impl Target {
    /// Resolves the URL's host and loads what its TLS needs.
    pub async fn resolve(url: &Url) -> Result<Self, ClientError> {
        let resolved = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
        let unknown = |source| ClientError::Resolve { host: url.host.clone(), source };
        let addresses: Vec<_> = resolved.map_err(unknown)?.collect();
        if addresses.is_empty() {
            return Err(unknown(io::ErrorKind::NotFound.into()));
        }
        let tls = match url.protocol {
            Protocol::Mqtts | Protocol::Wss | Protocol::Tcps | Protocol::Https => {
                let name = ServerName::try_from(url.host.clone());
                let name = name.map_err(|_| ClientError::ServerName(url.host.clone()))?;
                Some(Tls { connector: tls::connector(&url.trust)?, name, trust: url.trust.clone() })
            }
            Protocol::Mqtt | Protocol::Ws | Protocol::Tcp | Protocol::Http => None,
        };
        Ok(Self { protocol: url.protocol, authority: url.authority(), addresses, tls })
    }

    /// Whether every address of the server is this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// `host:port` as the URL has it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Opens the byte stream that the dialect runs on, from the local address `source` if given.
    pub(super) async fn dial(&self, source: Option<IpAddr>) -> Result<Stream, ClientError> {
        let tcp = self.dial_tcp(source).await?;
        let stream: Stream = match &self.tls {
            None => Box::new(tcp),
            Some(Tls { connector, name, trust }) => {
                let stream = connector.connect(name.clone(), tcp).await;
                let why = |error| self.failed("TLS handshake", tls::explained(error, trust));
                Box::new(stream.map_err(why)?)
            }
        };
        match self.protocol {
            Protocol::Ws => websocket::open(&self.authority, "/mqtt", stream).await,
            Protocol::Wss => websocket::open(&self.authority, "/mqtt-ssl", stream).await,
            _ => Ok(stream),
        }
    }

    async fn dial_tcp(&self, source: Option<IpAddr>) -> Result<TcpStream, ClientError> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let fits = |address: &&SocketAddr| source.is_none_or(|s| s.is_ipv4() == address.is_ipv4());
        for address in self.addresses.iter().filter(fits) {
            match dial_one(*address, source).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(self.failed("connect", failure))
    }

    fn failed(&self, step: &'static str, source: io::Error) -> ClientError {
        ClientError::Dial { step, authority: self.authority.clone(), source }
    }
}

async fn dial_one(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    // Requests are small and wait for their answer: never hold one back for a fuller segment.
    stream.set_nodelay(true)?;
    Ok(stream)
}
