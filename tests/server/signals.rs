//! Signals to a server: the stop while it starts, and what SIGHUP has it read again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::bootstrap::DEMO;
use support::http::metrics;
use support::process::run;
use support::{SOON, ServerProcess, Signal, call, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TR50D;

/// The demo of a command, in a directory for its temporary files.
fn demo(dir: &Path) -> Command {
    let mut demo = Command::new(TR50D.0);
    demo.args(["serve", "--demo"]).env("TMPDIR", dir);
    for section in ["MQTT", "TCP", "HTTP"] {
        demo.env(format!("TR50D_{section}__LISTEN"), "127.0.0.1:0");
    }
    demo
}

#[tokio::test]
async fn a_stop_while_the_server_starts_leaves_nothing_behind() {
    // Passwords in the clear: the start has to hash them, which takes a second or more.
    let mut people = DEMO.to_owned();
    for number in 0..100 {
        people += &format!(
            "\n[[user]]\nemail = \"u{number}@basicorg.example\"\npassword = \"p-{number}-word\"\n\
             home = \"BasicOrg\"\n"
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let bootstrap = dir.path().join("people.toml");
    std::fs::write(&bootstrap, people).expect("written");
    for signal in [Signal::TERM, Signal::INT] {
        let temporary = dir.path().join("tmp");
        std::fs::create_dir_all(&temporary).expect("made");
        let mut serve = demo(&temporary);
        serve.env("TR50D_SERVER__BOOTSTRAP", &bootstrap).stdout(Stdio::piped());
        let child = serve.stderr(Stdio::null()).spawn().expect("the program");
        let entries = || std::fs::read_dir(&temporary).expect("a directory").count();
        eventually("the demo's folder is there", async || entries() > 0).await;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("a process");
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let ended = timeout(SOON, ended).await.expect("in time").expect("no panic");
        let ended = ended.expect("its end");
        assert_eq!(ended.status.code(), Some(0), "{signal:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "", "{signal:?}");
        assert_eq!(entries(), 0, "{signal:?}");
    }
}

/// A server with TLS, whose certificate and configuration can be changed.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().expect("a directory") };
        site.renew(2050);
        site.configure("warn");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, level: &str) {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
        let (data, cert, key) = (self.path("data"), self.path("cert.pem"), self.path("key.pem"));
        let text = format!(
            "[server]\ndata_dir = {data:?}\nbootstrap = {fixture:?}\n\
             [tls]\ncert = {cert:?}\nkey = {key:?}\n[log]\nlevel = \"{level}\"\n\
             [mqtt]\nlisten = \"none\"\n[tcp]\nlisten = \"127.0.0.1:0\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\ntls_listen = \"127.0.0.1:0\"\n"
        );
        std::fs::write(self.path("tr50d.toml"), text).expect("written");
    }

    /// Puts a new certificate there, which ends at the beginning of this year.
    fn renew(&self, year: i32) -> Vec<u8> {
        let names = vec!["localhost".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(self.path("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(self.path("key.pem"), key.serialize_pem()).expect("written");
        certificate.der().to_vec()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(TR50D.0);
        command.args([name, "--config"]).arg(self.path("tr50d.toml"));
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("a log")
    }
}

/// A TLS connection, and the certificate that the server shows.
async fn shown(server: &ServerProcess) -> (tokio_rustls::client::TlsStream<TcpStream>, Vec<u8>) {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.clone().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let socket = TcpStream::connect(server.address("https")).await.expect("a connection");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("localhost".try_into().expect("a name"), socket).await;
    let stream = stream.expect("a handshake");
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    let certificate = chain[0].to_vec();
    (stream, certificate)
}

#[tokio::test]
async fn certificates_and_log_level_are_read_again() {
    let site = Site::new();
    let first = site.renew(2051);
    let mut serve = site.command("serve");
    serve.stderr(std::fs::File::create(site.path("log")).expect("a file"));
    let mut server = ServerProcess::spawn(serve);
    let (mut old, certificate) = shown(&server).await;
    assert_eq!(certificate, first);
    let metric = "tr50d_tls_certificate_end_timestamp_seconds{key=\"tls.cert\"}";
    assert!(metrics(&server).await.contains(&format!("{metric} 2556144000")));
    let mut operator = server.operator("tcp").await;

    let second = site.renew(2052);
    site.configure("info");
    assert_eq!(shown(&server).await.1, first, "nobody has asked for the new one");
    server.signal(Signal::HUP);
    eventually("the new certificate is shown", async || shown(&server).await.1 == second).await;
    eventually("the level is that of the file", async || site.log().contains("read again")).await;
    assert!(metrics(&server).await.contains(&format!("{metric} 2587680000")));
    // Those who are there stay.
    old.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    timeout(SOON, old.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.contains(" 200 "), "{answer}");
    call(&mut operator, "diag.ping", "").await;

    // What can't be used changes nothing.
    std::fs::write(site.path("key.pem"), "no key").expect("written");
    server.signal(Signal::HUP);
    eventually("the log says why", async || site.log().contains("no private key")).await;
    assert_eq!(shown(&server).await.1, second);
    std::fs::write(site.path("tr50d.toml"), "[mqqt]").expect("written");
    server.signal(Signal::HUP);
    eventually("the log says why", async || site.log().contains("no section [mqqt]")).await;
    assert_eq!(shown(&server).await.1, second);
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
}

#[test]
fn check_warns_of_a_certificate_that_ends() {
    let site = Site::new();
    let check = |year: i32, words: &[&str]| {
        site.renew(year);
        let (status, out, err) = run(site.command("check"));
        assert_eq!(status.code(), Some(0), "{err}");
        assert!(out.contains("is fine"), "{out}");
        assert_eq!(err.is_empty(), words.is_empty(), "{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{err}");
    };
    check(2050, &[]);
    check(2001, &["warning", "tls.cert", "is over since 2001-01-01"]);
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone(rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
