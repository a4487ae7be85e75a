//! Opening the byte stream that a URL names: name resolution, TCP, TLS and WebSocket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use base::Protocol;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::ClientError;
use super::url::{Trust, Url};
use super::websocket;

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
    tls: Option<(TlsConnector, ServerName<'static>)>,
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
                Some((TlsConnector::from(Arc::new(tls_config(&url.trust)?)), name))
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
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                let tls = tls.map_err(|source| self.failed("TLS handshake", source))?;
                Box::new(tls)
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

fn tls_config(trust: &Trust) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?;
    match trust {
        Trust::Unset => Err(ClientError::NoTrust),
        Trust::Insecure => Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth()),
        Trust::Ca(file) => Ok(builder.with_root_certificates(roots(file)?).with_no_client_auth()),
    }
}

fn roots(file: &Path) -> Result<RootCertStore, ClientError> {
    let bad = |reason: String| ClientError::Ca { file: file.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() { Err(bad("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// Takes any certificate (`insecure=true`), but still wants the peer to hold its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
