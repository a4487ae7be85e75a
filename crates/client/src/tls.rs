//! TLS towards a server: which certificates are trusted, and what is wrong with one in a sentence.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use base::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use super::ClientError;
use super::url::Trust;

/// What makes TLS of a connection to a server that is trusted in this way.
pub(super) fn connector(trust: &Trust) -> Result<TlsConnector, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Insecure => Arc::new(Unverified(provider.clone())),
        Trust::System => Arc::new(Verifier::new(system_roots()?, provider.clone())?),
        Trust::Ca(file) => Arc::new(Verifier::new(roots_in(file)?, provider.clone())?),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The certificates that are trusted; there is at least one.
struct Roots {
    /// As issuers.
    issuers: RootCertStore,
    /// As they are: a server may show one of them itself.
    certificates: Vec<CertificateDer<'static>>,
}

/// What the system trusts: an administrator may have added a private CA. `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` count instead where they are set, as for OpenSSL.
fn system_roots() -> Result<Roots, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut issuers = RootCertStore::empty();
    // Stores of systems have old certificates that nobody can read any more.
    issuers.add_parsable_certificates(found.certs.iter().cloned());
    if !issuers.is_empty() {
        return Ok(Roots { issuers, certificates: found.certs });
    }
    let reason = match found.errors.first() {
        Some(error) => error.to_string(),
        None => "none is in SSL_CERT_FILE, SSL_CERT_DIR or the usual places".to_owned(),
    };
    Err(ClientError::NoRoots(reason))
}

/// The certificates in a PEM file.
fn roots_in(file: &Path) -> Result<Roots, ClientError> {
    let bad = |reason: String| ClientError::Ca { file: file.display().to_string(), reason };
    let text = fs::read(file).map_err(|error| bad(error.to_string()))?;
    let mut roots = Roots { issuers: RootCertStore::empty(), certificates: Vec::new() };
    for (index, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
        let number = index + 1;
        let damaged =
            |error: String| bad(format!("certificate {number} in it is damaged: {error}"));
        let certificate = certificate.map_err(|error| damaged(error.to_string()))?;
        let added = roots.issuers.add(certificate.clone());
        added.map_err(|_| damaged("it is no X.509 certificate".to_owned()))?;
        roots.certificates.push(certificate);
    }
    if roots.issuers.is_empty() { Err(bad(what_is_in(&text))) } else { Ok(roots) }
}

/// What a file without a certificate has instead.
fn what_is_in(text: &[u8]) -> String {
    /// The first byte of DER's sequences.
    const SEQUENCE: u8 = 0x30;
    let lines = String::from_utf8_lossy(text);
    let label = |line: &str| {
        let label = line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        Some(label.to_owned())
    };
    let labels: BTreeSet<_> = lines.lines().filter_map(label).collect();
    if !labels.is_empty() {
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        return format!("it has no certificate, only: {labels}");
    }
    match text.first() {
        None => "it is empty".to_owned(),
        Some(&SEQUENCE) => {
            "it is not PEM; if it is DER, `openssl x509 -inform der` makes PEM of it".to_owned()
        }
        Some(_) => "it is not PEM: it has no line -----BEGIN CERTIFICATE-----".to_owned(),
    }
}

/// Takes what the roots vouch for, and each of the roots itself.
#[derive(Debug)]
struct Verifier {
    issuers: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

/// What rustls has no name for.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("self-signed")]
    SelfSigned,
    #[error("a CA's")]
    OfCa,
}

impl Verifier {
    fn new(roots: Roots, provider: Arc<CryptoProvider>) -> Result<Self, ClientError> {
        let issuers =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots.issuers), provider).build();
        let issuers = issuers.map_err(|error| ClientError::NoRoots(error.to_string()))?;
        Ok(Self { issuers, certificates: roots.certificates })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |intermediates| {
            let issuers = &self.issuers;
            issuers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        if !self.certificates.contains(end_entity) {
            return verify(intermediates).map_err(|error| named(error, end_entity));
        }
        match verify(&[]) {
            // webpki looks at the time first, then at what kind it is and who has issued it, then
            // at the name. Of what is trusted itself, the second does not matter: `openssl req
            // -x509` makes a CA's certificate unless told otherwise.
            Err(rustls::Error::InvalidCertificate(error)) if is_about_issuer(&error) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issuers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issuers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issuers.supported_verify_schemes()
    }
}

/// Names what is peculiar to certificates that people make for themselves.
fn named(error: rustls::Error, end_entity: &CertificateDer<'_>) -> rustls::Error {
    let rustls::Error::InvalidCertificate(why) = &error else { return error };
    let Ok(certificate) = webpki::EndEntityCert::try_from(end_entity) else { return error };
    let unfit = if certificate.issuer() == certificate.subject() && is_about_issuer(why) {
        Unfit::SelfSigned
    } else if is_of_ca(why) {
        Unfit::OfCa
    } else {
        return error;
    };
    CertificateError::Other(OtherError(Arc::new(unfit))).into()
}

/// Whether a certificate failed only for who has issued it, or what it may issue itself.
fn is_about_issuer(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
        || is_of_ca(error)
}

fn is_of_ca(error: &CertificateError) -> bool {
    matches!(other::<webpki::Error>(error), Some(webpki::Error::CaUsedAsEndEntity))
}

fn other<T: std::error::Error + 'static>(error: &CertificateError) -> Option<&T> {
    match error {
        CertificateError::Other(OtherError(error)) => error.downcast_ref(),
        _ => None,
    }
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

/// The failure of a handshake in a sentence.
pub(super) fn explained(error: io::Error, trust: &Trust) -> io::Error {
    let kind = error.kind();
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let sentence = match cause {
        Some(rustls::Error::InvalidCertificate(error)) => about_certificate(error, trust),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not speak TLS there; is it the port without TLS?".to_owned()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server wants a certificate of the client".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("the server refused it with the alert {alert:?}")
        }
        Some(rustls::Error::PeerIncompatible(why)) => {
            format!("server and client have no version or cipher of TLS in common: {why:?}")
        }
        None if kind == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection; does it speak TLS there?".to_owned()
        }
        Some(_) | None => return error,
    };
    io::Error::new(kind, sentence)
}

fn about_certificate(error: &CertificateError, trust: &Trust) -> String {
    use CertificateError as Why;

    /// How a certificate of one's own is trusted.
    const NAME_IT: &str = "with ca=FILE in the URL it is trusted";
    let file = match trust {
        Trust::Ca(file) => Some(file.display()),
        Trust::System | Trust::Insecure => None,
    };
    if let Some(unfit) = other::<Unfit>(error) {
        return match (unfit, file) {
            (Unfit::SelfSigned, Some(file)) => {
                format!("the server's certificate is self-signed, and not the one in '{file}'")
            }
            (Unfit::SelfSigned, None) => format!(
                "the server's certificate is self-signed, and the system does not trust it; \
                 {NAME_IT}"
            ),
            (Unfit::OfCa, _) => {
                format!("the server shows a CA's certificate as its own; only {NAME_IT}")
            }
        };
    }
    match (error, file) {
        (Why::UnknownIssuer, Some(file)) => format!(
            "the server's certificate is not issued by one in '{file}', or the server does not \
             send those in between"
        ),
        (Why::UnknownIssuer, None) => {
            "the server's certificate has an issuer whom the system does \
             not trust; name the issuer's certificate with ca=FILE in the URL"
                .to_owned()
        }
        (Why::BadSignature, _) => "the server's certificate is signed with another key than its \
             issuer's; was the issuer's certificate made anew, under the same name?"
            .to_owned(),
        (Why::ExpiredContext { time, not_after }, _) => format!(
            "the server's certificate expired at {}; this machine's clock says {}",
            moment(*not_after),
            moment(*time)
        ),
        (Why::NotValidYetContext { time, not_before }, _) => format!(
            "the server's certificate is not valid before {}; this machine's clock says {}",
            moment(*not_before),
            moment(*time)
        ),
        (Why::NotValidForNameContext { expected, presented }, _) => {
            about_names(&expected.to_str(), presented)
        }
        (Why::InvalidPurpose | Why::InvalidPurposeContext { .. }, _) => {
            "the server's certificate is not meant for servers: its extended key usage lacks \
             serverAuth"
                .to_owned()
        }
        _ => match other::<webpki::Error>(error) {
            Some(webpki::Error::UnsupportedCertVersion) => "the server's certificate is of \
                 X.509's version 1 or 2; it must be of version 3, with a subjectAltName"
                .to_owned(),
            _ => format!("the server's certificate can't be used: {error}"),
        },
    }
}

fn about_names(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "the server's certificate is for no host, as it has no subjectAltName, so not for \
             '{expected}'"
        );
    }
    // As webpki writes them: DnsName("host"), IpAddress(192.0.2.7).
    let plain = |name: &String| match name.split_once('(') {
        Some((_, name)) => name.trim_matches(['"', ')']).to_owned(),
        None => name.clone(),
    };
    let names = presented.iter().map(plain).collect::<Vec<_>>().join(", ");
    format!("the server's certificate is for {names}, not for '{expected}'")
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}
