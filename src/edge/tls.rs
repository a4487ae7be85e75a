//! TLS 1.2 and 1.3 for every listener, by rustls.
//!
//! libtr50 speaks nothing above TLS 1.0 (`docs/protocol/tr50.md` 0, fact 20); its devices use the
//! plain listener.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::limits::LOGIN_WAIT;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsAcceptor;

use super::Stream;
use crate::config::Tls;

/// A TLS configuration that can't be used; one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key of the configuration is missing.
    #[error("{0} is not set")]
    NotSet(&'static str),
    /// A file can't be read as PEM.
    #[error("{key}: can't read {path:?}: {source}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file holds nothing of what it should.
    #[error("{key}: {path:?} holds no {what} in PEM form")]
    Empty {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate of an authority can't be used.
    #[error("tls.client_ca: {0}")]
    ClientCa(String),
    /// Certificate and key can't be used, or not together.
    #[error("tls.cert and tls.key can't be used together: {0}")]
    Pair(#[source] rustls::Error),
    /// The cryptography itself failed to start.
    #[error("TLS can't start: {0}")]
    Setup(#[source] rustls::Error),
}

/// A handshake that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer broke off, or the two have nothing in common.
    #[error("TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
    /// It took too long.
    #[error("TLS handshake not finished within {} s", LOGIN_WAIT.as_secs())]
    TimedOut,
}

/// The server's side of TLS, as `[tls]` describes it.
///
/// With `client_ca`, a certificate that the client shows must come from there; a client that shows
/// none still logs in by name and password.
pub fn server_config(files: &Tls) -> Result<ServerConfig, TlsError> {
    let cert = files.cert.as_deref().ok_or(TlsError::NotSet("tls.cert"))?;
    let key = files.key.as_deref().ok_or(TlsError::NotSet("tls.key"))?;
    let chain = certificates("tls.cert", cert)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|source| match source {
        pem::Error::NoItemsFound => {
            TlsError::Empty { key: "tls.key", path: key.to_owned(), what: "private key" }
        }
        source => TlsError::File { key: "tls.key", path: key.to_owned(), source },
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::ClientCa(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(TlsError::Pair)?;
    // Tickets let a fleet that reconnects resume without a place in memory for each device.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

/// Takes TLS connections. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// An acceptor as `[tls]` describes it.
    pub fn new(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self(TlsAcceptor::from(Arc::new(server_config(files)?))))
    }

    /// Does the handshake, within [`LOGIN_WAIT`]. For the connection's own task: a handshake costs
    /// milliseconds and waits for the peer.
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, HandshakeError> {
        match time::timeout(LOGIN_WAIT, self.0.accept(stream)).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(HandshakeError::Failed(error)),
            Err(_) => Err(HandshakeError::TimedOut),
        }
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { key, path: path.to_owned(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { key, path: path.to_owned(), what: "certificate" });
    }
    Ok(certificates)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.client_ca", path)? {
        roots.add(certificate).map_err(|error| TlsError::ClientCa(error.to_string()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A directory with `cert.pem`, `key.pem`, another key and a file of something else.
    fn files() -> (tempfile::TempDir, Tls, CertificateDer<'static>) {
        let dir = tempfile::tempdir().expect("a directory");
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let other = rcgen::KeyPair::generate().expect("a key");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("writing");
            path
        };
        let tls = Tls {
            cert: Some(write("cert.pem", &own.cert.pem())),
            key: Some(write("key.pem", &own.signing_key.serialize_pem())),
            client_ca: None,
        };
        write("other.pem", &other.serialize_pem());
        write("text.pem", "nothing here");
        (dir, tls, own.cert.der().clone())
    }

    #[test]
    fn wrong_files_are_named() {
        let (dir, good, _) = files();
        let path = |name: &str| Some(dir.path().join(name));
        let check = |tls: Tls, parts: &[&str]| {
            let error = server_config(&tls).expect_err("a wrong file").to_string();
            for part in parts {
                assert!(error.contains(part), "{error:?} lacks {part:?}");
            }
        };
        assert!(server_config(&good).is_ok());
        assert!(server_config(&Tls { client_ca: good.cert.clone(), ..good.clone() }).is_ok());
        check(Tls { cert: path("none.pem"), ..good.clone() }, &["tls.cert", "none.pem"]);
        check(Tls { cert: path("text.pem"), ..good.clone() }, &["tls.cert", "no certificate"]);
        check(Tls { key: path("text.pem"), ..good.clone() }, &["tls.key", "no private key"]);
        check(Tls { key: path("none.pem"), ..good.clone() }, &["tls.key", "none.pem"]);
        check(Tls { key: path("other.pem"), ..good.clone() }, &["tls.cert and tls.key"]);
        check(Tls { client_ca: path("text.pem"), ..good.clone() }, &["tls.client_ca"]);
        check(Tls { cert: None, ..good }, &["tls.cert is not set"]);
    }

    #[tokio::test]
    async fn a_handshake_gives_a_stream() {
        let (_dir, tls, certificate) = files();
        let acceptor = Acceptor::new(&tls).expect("good files");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("accepting");
            let mut stream = acceptor.accept(socket).await.expect("a handshake");
            let mut line = [0; 4];
            stream.read_exact(&mut line).await.expect("reading");
            stream.write_all(&line).await.expect("writing");
            stream.shutdown().await.expect("closing");
            let (socket, _) = listener.accept().await.expect("accepting");
            assert!(matches!(acceptor.accept(socket).await, Err(HandshakeError::Failed(_))));
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().expect("a name");
        let socket = TcpStream::connect(addr).await.expect("connecting");
        let mut stream = connector.connect(name, socket).await.expect("a handshake");
        stream.write_all(b"ping").await.expect("writing");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("reading");
        assert_eq!(answer, b"ping");
        let mut plain = TcpStream::connect(addr).await.expect("connecting");
        plain.write_all(b"POST /api HTTP/1.1\r\n\r\n").await.expect("writing");
        server.await.expect("the server's side");
    }
}
