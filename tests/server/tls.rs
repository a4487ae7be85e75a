//! Every protocol through TLS.

use std::io::ErrorKind;
use std::path::PathBuf;

use base::limits;
use client::{Client, Trust, Url};
use support::http::metrics;
use support::{SOON, TestServer, call, connect, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const LISTENERS: [&str; 3] = ["mqtts", "tcps", "https"];

/// A server with TLS on all listeners, and the certificate that it shows.
pub(crate) struct Tls {
    pub server: TestServer,
    certificate: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tls {
    /// Starts one for the name `127.0.0.1`; with `client_ca`, its own certificate is also the
    /// authority for those of clients.
    pub(crate) fn start(client_ca: bool) -> Self {
        Self::with(client_ca, &[])
    }

    /// The same with more settings.
    fn with(client_ca: bool, more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let certificate = write("cert.pem", own.cert.pem());
        let key = write("key.pem", own.signing_key.serialize_pem());
        let (cert_path, key_path) = (certificate.to_str(), key.to_str());
        let ca = cert_path.filter(|_| client_ca).unwrap_or_default();
        let settings = [
            ("TR50D_TLS__CERT", cert_path.expect("UTF-8")),
            ("TR50D_TLS__KEY", key_path.expect("UTF-8")),
            ("TR50D_TLS__CLIENT_CA", ca),
            ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_TCP__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
        ];
        let server = TestServer::with(&[&settings, more].concat());
        Self { server, certificate, _dir: dir }
    }

    /// The URL of a thing that trusts the server's certificate.
    fn url(&self, scheme: &str, thing_key: &str) -> Url {
        let listener = if scheme == "wss" { "https" } else { scheme };
        let address = self.server.address(listener);
        let url = format!("{scheme}://{thing_key}:demo-token-basicorg@{address}");
        let mut url: Url = url.parse().expect("a URL");
        url.trust = Trust::Ca(self.certificate.clone());
        url
    }
}

#[tokio::test]
async fn every_protocol_is_served_through_tls() {
    let tls = Tls::start(false);
    let mut operator = tls.server.operator("http").await;
    for scheme in ["mqtts", "wss", "tcps", "https"] {
        let mut thing = connect(&tls.url(scheme, &format!("thing-{scheme}"))).await;
        let info = call(&mut thing, "session.info", "").await;
        assert_eq!(info["connInfo"]["protocol"], scheme);
        // More than one TLS record in both directions.
        let text = "x".repeat(200_000);
        let echoed = call(&mut thing, "diag.echo", &format!(r#"{{"x":"{text}"}}"#)).await;
        assert_eq!(echoed["x"], text);
        let params = format!(r#"{{"protocol":"{scheme}"}}"#);
        let listed = call(&mut operator, "session.list", &params).await;
        assert_eq!(listed["count"], 1);
        assert_eq!(listed["result"][0]["thingKey"], format!("thing-{scheme}"));
        if scheme != "https" {
            let reference = listed["result"][0]["ref"].as_str().expect("a ref");
            let params = format!(r#"{{"ref":"{reference}"}}"#);
            call(&mut operator, "session.end", &params).await;
            timeout(SOON, thing.closed()).await.expect("closed with its session");
        }
    }
}

#[tokio::test]
async fn a_stalled_handshake_holds_up_nobody() {
    let tls = Tls::start(false);
    let mut stalled = Vec::new();
    for listener in LISTENERS {
        for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            for _ in 0..10 {
                let address = tls.server.address(listener);
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                stream.write_all(bytes).await.expect("written");
                stalled.push(stream);
            }
        }
    }
    for scheme in LISTENERS {
        let mut thing = connect(&tls.url(scheme, "quick")).await;
        call(&mut thing, "diag.ping", "").await;
    }
}

#[tokio::test]
async fn the_newest_half_handshakes_of_who_has_most_close_when_memory_is_short() {
    const BUDGET: usize = 16 * limits::HANDSHAKE_BYTES_MAX;
    let (budget, frame) = (BUDGET.to_string(), (BUDGET / 16).to_string());
    let settings =
        [("TR50D_LIMITS__MEMORY_BYTES", &*budget), ("TR50D_LIMITS__MAX_FRAME_BYTES", &*frame)];
    let tls = Tls::with(false, &settings);
    let half = async |from: &str| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(from.parse().expect("an address")).expect("loopback");
        let mut stream = socket.connect(tls.server.address("mqtts")).await.expect("a connection");
        stream.write_all(b"\x16\x03\x01").await.expect("written");
        stream
    };
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(half("127.0.0.2:0").await);
    }
    let is_open = |stream: &TcpStream| {
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let open = || crowd.iter().filter(|stream| is_open(stream)).count();
    // Seven eighths of what is not kept otherwise are used before others make room.
    eventually("some have closed", async || open() <= 13).await;
    let before = open();
    assert!(before >= 11, "{before}");
    let mut thing = connect(&tls.url("mqtts", "quick")).await;
    call(&mut thing, "diag.ping", "").await;
    let others = [half("127.0.0.3:0").await, half("127.0.0.3:0").await];
    eventually("one has made room", async || open() < before).await;
    assert!(others.iter().all(is_open), "those of who has less stay");
    assert!(is_open(&crowd[0]), "the oldest stays");
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_counted() {
    let tls = Tls::start(false);
    for listener in LISTENERS {
        let address = tls.server.address(listener);
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"POST /api HTTP/1.1\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        // An alert, or nothing; a reset counts as closed as well.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed in time");
        assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    // A client that does not know the certificate goes away.
    let mut stranger = tls.url("mqtts", "stranger");
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
    let path = tls.certificate.with_file_name("other.pem");
    std::fs::write(&path, other.cert.pem()).expect("written");
    stranger.trust = Trust::Ca(path);
    assert!(Client::connect(&stranger).await.is_err());
    let mut thing = connect(&tls.url("mqtts", "friend")).await;
    call(&mut thing, "diag.ping", "").await;
    let metrics = metrics(&tls.server).await;
    let refused = r#"tr50d_connections_refused_total{reason="tls"} 4"#;
    assert!(metrics.contains(refused), "{metrics}");
}

#[tokio::test]
async fn libtr50s_tunnel_leads_through_tls() {
    let tls = Tls::start(false);
    // An HTTPS listener that answers a bare GET with 200 and then speaks MQTT 3.1.
    let mut stream = raw_tls(&tls, None).await.expect("a handshake");
    stream.write_all(b"GET /mqtt HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    stream.write_all(b"\x10\x2d\x00\x06MQIsdp\x03\xc2\x00\x3c\x00\x03web").await.expect("written");
    stream.write_all(b"\x00\x05lib50\x00\x13demo-token-basicorg").await.expect("written");
    let expected = b"HTTP/1.1 200 OK\r\n\r\n\x20\x02\x00\x00";
    let mut answer = vec![0; expected.len()];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(answer.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let mut operator = tls.server.operator("http").await;
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"lib50"}"#).await;
    assert_eq!(listed["result"][0]["connInfo"]["protocol"], "mqtts");
}

#[tokio::test]
async fn a_client_certificate_is_checked_and_not_needed() {
    let tls = Tls::start(true);
    let mut thing = connect(&tls.url("tcps", "without")).await;
    call(&mut thing, "diag.ping", "").await;
    let stranger = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a pair");
    let certificate = stranger.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(stranger.signing_key.serialize_der())
        .expect("a key");
    // In TLS 1.3 the refusal arrives after the client's side of the handshake is done.
    let refused = async {
        let mut stream = raw_tls(&tls, Some((certificate, key.clone_key()))).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await
    };
    let refused = timeout(SOON, refused).await.expect("in time");
    assert!(refused.is_err(), "{refused:?}");
}

type ClientCertificate =
    (rustls::pki_types::CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>);

/// A TLS stream to the HTTPS listener.
pub(crate) async fn raw_tls(
    tls: &Tls,
    client: Option<ClientCertificate>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(&tls.certificate);
    roots.add(certificate.expect("a certificate")).expect("a root");
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    };
    let socket = TcpStream::connect(tls.server.address("https")).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = "127.0.0.1".try_into().expect("a name");
    connector.connect(name, socket).await
}
