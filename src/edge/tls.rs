//! TLS 1.2 and 1.3 for every listener, by rustls.
//!
//! libtr50 speaks nothing above TLS 1.0 (`docs/protocol/tr50.md` 0, fact 20); its devices use the
//! plain listener.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::limits::{CERTIFICATE_NEAR_DAYS, LOGIN_WAIT, TLS_UNSENT_BYTES_MAX};
use base::{ConnInfo, Timestamp};
use futures_util::FutureExt;
use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsAcceptor;

use super::in_turn::{Turns, in_turn};
use super::{Stream, certificate};
use crate::app::{ClientNames, Cores, stranger};
use crate::config::{ClientLogin, Tls};

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
/// A certificate that a client shows must come from `client_ca`; whether it needs one is said by
/// `client_auth`.
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
    let builder = match files.client_auth() {
        None => builder.with_no_client_auth(),
        Some(needed) => {
            let ca = files.client_ca.as_deref().ok_or(TlsError::NotSet("tls.client_ca"))?;
            let roots = Arc::new(authorities(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if needed { verifier } else { verifier.allow_unauthenticated() };
            let verifier =
                verifier.build().map_err(|error| TlsError::ClientCa(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(TlsError::Pair)?;
    // Tickets let a fleet that reconnects resume without a place in memory for each device.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

/// When the first certificate of a chain ends; none if none can be read.
pub fn expiry(files: &Tls) -> Option<Timestamp> {
    let chain = certificates("tls.cert", files.cert.as_deref()?).ok()?;
    chain.iter().filter_map(certificate::expiry).min()
}

/// A sentence for the operator when a certificate is over, or soon will be.
pub fn expiry_warning(files: &Tls, now: Timestamp) -> Option<String> {
    let end = expiry(files)?;
    let days = end.millis_since(now) / (24 * 3600 * 1000);
    match end > now {
        false => Some(format!("warning: the certificate in tls.cert is over since {end}")),
        true if days < CERTIFICATE_NEAR_DAYS => {
            Some(format!("warning: the certificate in tls.cert ends in {days} days, at {end}"))
        }
        true => None,
    }
}

/// Takes TLS connections.
pub struct Acceptor {
    current: RwLock<Current>,
    /// Half of the cores work on handshakes: a storm of them leaves the others to those who are in.
    turns: Turns,
}

/// What new connections get.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    login: ClientLogin,
}

/// A TLS connection.
pub struct Accepted {
    /// Its stream.
    pub stream: Stream,
    /// Whom the client's certificate names, and which logins go by it, if it has shown one and any
    /// do.
    pub client: Option<(ClientLogin, ClientNames)>,
}

impl Acceptor {
    /// An acceptor as `[tls]` describes it.
    pub fn new(files: &Tls) -> Result<Self, TlsError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Turns::new((cores / 2).max(1));
        Ok(Self { current: RwLock::new(Current::read(files)?), turns })
    }

    /// Takes new connections as `[tls]` describes it from now on. Tickets of earlier ones are over:
    /// the authority that they came in by may be gone.
    pub fn replace(&self, files: &Tls) -> Result<(), TlsError> {
        let next = Current::read(files)?;
        *self.current.write() = next;
        Ok(())
    }

    /// Does the handshake, within [`LOGIN_WAIT`]. For the connection's own task: a handshake costs
    /// milliseconds, which its network has used of the cores, and waits for the peer.
    pub async fn accept(
        &self,
        stream: TcpStream,
        conn: &ConnInfo,
        cores: &Cores,
    ) -> Result<Accepted, HandshakeError> {
        let Current { config, login } = self.current.read().clone();
        let mut handshake = TlsAcceptor::from(config).accept(stream);
        let noted = poll_fn(|cx| cores.noted(stranger(conn), || handshake.poll_unpin(cx)));
        let handshake = in_turn(noted, conn.network(), &self.turns);
        match time::timeout(LOGIN_WAIT, handshake).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().1.set_buffer_limit(Some(TLS_UNSENT_BYTES_MAX));
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let shown = chain.first().filter(|_| login != ClientLogin::None);
                let client = shown.map(|shown| (login, certificate::client_names(shown)));
                Ok(Accepted { stream: Stream::Tls(Box::new(stream)), client })
            }
            Ok(Err(error)) => Err(HandshakeError::Failed(error)),
            Err(_) => Err(HandshakeError::TimedOut),
        }
    }
}

impl Current {
    fn read(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(server_config(files)?), login: files.client_login })
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

    use base::Protocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::ClientAuth;

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
            ..Tls::default()
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
        let required = ClientAuth::Required;
        check(Tls { client_auth: required, ..good.clone() }, &["tls.client_ca is not set"]);
        check(Tls { cert: None, ..good }, &["tls.cert is not set"]);
    }

    #[test]
    fn the_end_of_a_certificate_is_told_in_time() {
        let (dir, tls, _) = files();
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 2, 1);
        let pair = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&pair).expect("a certificate").pem();
        let cert = dir.path().join("short.pem");
        // Of a chain, the first to end counts.
        let long = fs::read_to_string(tls.cert.as_ref().expect("set")).expect("reading");
        fs::write(&cert, long + &pem).expect("writing");
        let tls = Tls { cert: Some(cert), ..tls };
        let day = 24 * 3600 * 1000;
        let end = expiry(&tls).expect("an end");
        assert_eq!(end.to_string(), "2030-02-01T00:00:00.000Z");
        let warning = |days: i64| expiry_warning(&tls, end.plus_millis(-days * day));
        let near = i64::try_from(CERTIFICATE_NEAR_DAYS).expect("few");
        assert_eq!(warning(near), None);
        assert!(warning(near - 1).is_some_and(|text| text.contains("ends in 20 days, at 2030-02")));
        assert!(warning(0).is_some_and(|text| text.contains("is over since 2030-02-01")));
    }

    #[tokio::test]
    async fn a_handshake_gives_a_stream() {
        let (_dir, tls, certificate) = files();
        let acceptor = Acceptor::new(&tls).expect("good files");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let server = tokio::spawn(async move {
            let cores = Cores::full(1, &[]);
            let (socket, peer) = listener.accept().await.expect("accepting");
            let conn = ConnInfo::new(Protocol::Mqtts, peer);
            let accepted = acceptor.accept(socket, &conn, &cores).await;
            let mut stream = accepted.expect("a handshake").stream;
            let mut line = [0; 4];
            stream.read_exact(&mut line).await.expect("reading");
            stream.write_all(&line).await.expect("writing");
            stream.shutdown().await.expect("closing");
            let (socket, _) = listener.accept().await.expect("accepting");
            let accepted = acceptor.accept(socket, &conn, &cores).await;
            assert!(matches!(accepted, Err(HandshakeError::Failed(_))));
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
