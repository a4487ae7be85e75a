//! Certificates as `tr50d call` and `tr50d fleet` meet them: trusted, or refused in a sentence.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};

use support::TestServer;
use support::process::run;

const SCHEMES: [&str; 4] = ["mqtts", "tcps", "https", "wss"];

/// Certificates in a directory, and what a server says with one of them.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A server that shows this certificate.
    fn serve(&self, certificate: &str, key: &KeyPair) -> Served {
        let certificate = self.write("cert.pem", certificate);
        let key = self.write("key.pem", key.serialize_pem());
        let server = TestServer::with(&[
            ("TR50D_TLS__CERT", text(&certificate)),
            ("TR50D_TLS__KEY", text(&key)),
            ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_TCP__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
        ]);
        Served { server, certificate, system: self.write("system.pem", stranger("system").pem()) }
    }
}

struct Served {
    server: TestServer,
    /// What it shows.
    certificate: PathBuf,
    /// What the system trusts, if a test does not say something else.
    system: PathBuf,
}

impl Served {
    /// The result of a ping through one scheme, with these options of a URL.
    fn ping(&self, scheme: &str, options: &str, system: (&str, &Path)) -> Result<(), String> {
        let listener = if scheme == "wss" { "https" } else { scheme };
        let address = self.server.address(listener);
        let url = format!("{scheme}://thing:demo-token-basicorg@{address}/{options}");
        let (status, out, err) = run(call(&url, system));
        match status.code() {
            Some(0) => {
                assert_eq!(out, "{\"success\":true}\n");
                Ok(())
            }
            Some(2) => {
                assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{err}");
                Err(err)
            }
            other => panic!("{other:?}: {err}"),
        }
    }

    /// Who is trusted by name, or by the system, reaches it through every scheme.
    fn takes(&self, trusted: &Path) {
        for scheme in SCHEMES {
            let named = self.ping(scheme, &ca(trusted), self.untrusted());
            assert_eq!(named, Ok(()), "{scheme}");
            assert_eq!(self.ping(scheme, "", ("SSL_CERT_FILE", trusted)), Ok(()), "{scheme}");
        }
    }

    /// It is refused through every scheme with a sentence that has these words.
    fn refuses(&self, options: &str, words: &[&str]) {
        for scheme in SCHEMES {
            let said = self.ping(scheme, options, self.untrusted()).expect_err(scheme);
            for word in words.iter().chain(&["tr50d call: TLS handshake to 127.0.0.1:"]) {
                assert!(said.contains(word), "{scheme}: no {word:?} in {said}");
            }
            assert!(!said.contains("Other"), "{scheme}: {said}");
        }
        self.fleet_refuses(options, words);
    }

    /// The fleet says the same.
    fn fleet_refuses(&self, options: &str, words: &[&str]) {
        let address = self.server.address("mqtts");
        let mut fleet = Command::new(super::TR50D.0);
        fleet
            .args(["fleet", "--devices", "2", "--duration", "0.1", "--url"])
            .arg(format!("mqtts://:demo-token-basicorg@{address}/{options}"))
            .env_remove("SSL_CERT_DIR")
            .env("SSL_CERT_FILE", &self.system);
        let (status, out, err) = run(fleet);
        assert_ne!(status.code(), Some(0), "{out}{err}");
        for word in words {
            assert!(out.contains(word) || err.contains(word), "no {word:?} in {out}{err}");
        }
    }

    fn untrusted(&self) -> (&'static str, &Path) {
        ("SSL_CERT_FILE", &self.system)
    }
}

/// A ping to this URL from a system that trusts these roots.
fn call(url: &str, system: (&str, &Path)) -> Command {
    let mut call = Command::new(super::TR50D.0);
    call.args(["call", "diag.ping", "--timeout", "20", "--url", url]);
    call.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(system.0, system.1);
    call
}

fn ca(file: &Path) -> String {
    format!("?ca={}", text(file))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What a certificate says that is for these names and of this subject.
fn params(subject: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

fn ca_params(subject: &str) -> CertificateParams {
    let mut params = params(subject, &["127.0.0.1"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// A CA that has issued nothing.
fn stranger(subject: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(ca_params(subject), key()).expect("a CA")
}

/// A server's certificate, issued by that CA, with its key.
fn issued(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> (String, KeyPair) {
    let key = key();
    (params.signed_by(&key, issuer).expect("a certificate").pem(), key)
}

#[test]
fn a_self_signed_certificate_is_named_so_and_trusted_when_named() {
    // As rcgen makes it, as `tr50d init` does, and as `openssl req -x509`.
    let kinds = [
        IsCa::NoCa,
        IsCa::ExplicitNoCa,
        IsCa::Ca(BasicConstraints::Unconstrained),
        IsCa::Ca(BasicConstraints::Constrained(0)),
    ];
    for is_ca in kinds {
        let files = Files::new();
        let key = key();
        let mut params = params("my server", &["127.0.0.1", "localhost"]);
        params.is_ca = is_ca;
        let own = params.self_signed(&key).expect("a certificate").pem();
        let served = files.serve(&own, &key);
        served.refuses("", &["certificate is self-signed", "ca=FILE"]);
        let other = files.write("other.pem", stranger("another").pem());
        served.refuses(&ca(&other), &["certificate is self-signed", "not the one in", "other.pem"]);
        // Made anew, with the same subject: only the key differs.
        let renewed = params.self_signed(&self::key()).expect("a certificate").pem();
        let renewed = files.write("renewed.pem", renewed);
        served.refuses(&ca(&renewed), &["self-signed", "not the one in", "renewed.pem"]);
        served.takes(&served.certificate);
        assert_eq!(served.ping("tcps", "?insecure=true", served.untrusted()), Ok(()));
        // Beside others in one file.
        let both = [stranger("another").pem(), own].concat();
        served.takes(&files.write("both.pem", both));
    }
}

#[test]
fn a_private_ca_counts_by_name_and_in_the_system() {
    let files = Files::new();
    let issuer = stranger("My CA");
    let (certificate, key) = issued(&params("my server", &["127.0.0.1"]), &issuer);
    let served = files.serve(&certificate, &key);
    let root = files.write("root.pem", issuer.pem());
    served.takes(&root);
    // The server's own certificate is enough, though somebody else has issued it.
    served.takes(&served.certificate);
    let roots = files.dir.path().join("roots");
    std::fs::create_dir(&roots).expect("a directory");
    std::fs::copy(&root, roots.join("mine.pem")).expect("copied");
    assert_eq!(served.ping("mqtts", "", ("SSL_CERT_DIR", &roots)), Ok(()));

    served.refuses("", &["an issuer whom the system does not trust", "ca=FILE"]);
    let other = files.write("other.pem", stranger("another").pem());
    served.refuses(&ca(&other), &["not issued by one in", "other.pem"]);
    let renewed = files.write("renewed.pem", stranger("My CA").pem());
    served.refuses(&ca(&renewed), &["another key than its issuer's", "made anew"]);
    // What the URL names counts instead of the system's roots, not beside them.
    let said = served.ping("tcps", &ca(&other), ("SSL_CERT_FILE", &root));
    assert!(said.is_err_and(|said| said.contains("not issued by one in")));
}

#[test]
fn a_cas_certificate_is_none_of_a_server_unless_named() {
    let files = Files::new();
    let issuer = stranger("My CA");
    let (certificate, key) = issued(&ca_params("my server"), &issuer);
    let served = files.serve(&certificate, &key);
    let root = files.write("root.pem", issuer.pem());
    served.refuses(&ca(&root), &["shows a CA's certificate as its own", "ca=FILE"]);
    served.takes(&served.certificate);
}

#[test]
fn a_certificate_out_of_its_time_is_refused_with_the_time() {
    let files = Files::new();
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let check = |from: i32, until: i32, words: &[&str]| {
            let issuer = stranger("My CA");
            let root = files.write("root.pem", issuer.pem());
            let mut params = params("my server", &["127.0.0.1"]);
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            params.is_ca = is_ca;
            let (certificate, key) = issued(&params, &issuer);
            let served = files.serve(&certificate, &key);
            served.refuses(&ca(&root), words);
            served.refuses(&ca(&served.certificate), words);
            let key = self::key();
            let own = params.self_signed(&key).expect("a certificate").pem();
            let served = files.serve(&own, &key);
            served.refuses(&ca(&served.certificate), words);
            served.refuses("", words);
        };
        check(1999, 2001, &["certificate expired at 2001-01-01T00:00:00.000Z", "clock says 2"]);
        check(2090, 2095, &["not valid before 2090-01-01T00:00:00.000Z", "clock says 2"]);
    }
}

#[test]
fn a_certificate_for_another_host_is_refused_with_its_names() {
    let files = Files::new();
    let check = |names: &[&str], words: &[&str]| {
        let issuer = stranger("My CA");
        let root = files.write("root.pem", issuer.pem());
        let (certificate, key) = issued(&params("127.0.0.1", names), &issuer);
        let served = files.serve(&certificate, &key);
        served.refuses(&ca(&root), words);
        served.refuses(&ca(&served.certificate), words);
        let key = self::key();
        let mut params = params("127.0.0.1", names);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate").pem();
        let served = files.serve(&own, &key);
        served.refuses(&ca(&served.certificate), words);
    };
    check(
        &["a.example", "192.0.2.7", "*.b.example"],
        &["is for a.example, 192.0.2.7, *.b.example, not for '127.0.0.1'"],
    );
    check(&[], &["no subjectAltName", "not for '127.0.0.1'"]);
}

#[test]
fn a_file_without_a_certificate_is_refused_for_what_it_is() {
    let files = Files::new();
    let system = files.write("system.pem", stranger("system").pem());
    let own = stranger("mine");
    let pem = own.pem();
    let check = |file: &Path, words: &[&str]| {
        for scheme in SCHEMES {
            let url = format!("{scheme}://k:t@127.0.0.1:1/{}", ca(file));
            let (status, out, err) = run(call(&url, ("SSL_CERT_FILE", &system)));
            assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
            for word in words.iter().chain(&["tr50d call: cannot use the certificates in"]) {
                assert!(err.contains(word), "no {word:?} in {err}");
            }
        }
    };
    check(Path::new("/nowhere/at/all.pem"), &["/nowhere/at/all.pem", "No such file"]);
    check(files.dir.path(), &["Is a directory"]);
    check(&files.write("a.pem", ""), &["it is empty"]);
    check(&files.write("b.pem", "hello\n"), &["not PEM", "-----BEGIN CERTIFICATE-----"]);
    check(&files.write("c.pem", key().serialize_pem()), &["no certificate, only: PRIVATE KEY"]);
    check(&files.write("d.pem", own.der()), &["not PEM", "openssl x509 -inform der"]);
    let cut = pem.split_once("-----END").expect("an end").0;
    check(&files.write("e.pem", [&pem, cut].concat()), &["certificate 2 in it is damaged"]);
    let other = pem.lines().take(3).chain(["-----END CERTIFICATE-----"]).collect::<Vec<_>>();
    check(&files.write("f.pem", other.join("\n")), &["certificate 1 in it is damaged"]);
    check(&files.write("g.pem", [0xff, 0xfe, 0x00]), &["not PEM"]);
}

#[test]
fn a_system_without_roots_is_said_to_have_none() {
    let files = Files::new();
    let empty = files.dir.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let check = |system: (&str, &Path), words: &[&str]| {
        for program in [&["call", "diag.ping"][..], &["fleet"]] {
            let mut command = Command::new(super::TR50D.0);
            command.args(program).args(["--url", "wss://k:t@127.0.0.1:1"]);
            command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(system.0, system.1);
            let (status, out, err) = run(command);
            assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{err}");
            for word in words.iter().chain(&["no root certificates", "ca=FILE"]) {
                assert!(err.contains(word), "no {word:?} in {err}");
            }
        }
    };
    check(("SSL_CERT_FILE", Path::new("/nowhere/at/all.pem")), &["/nowhere/at/all.pem"]);
    check(("SSL_CERT_DIR", &empty), &[]);
    check(("SSL_CERT_FILE", &files.write("key.pem", key().serialize_pem())), &[]);
    // Who names a certificate needs none.
    let own = stranger("mine");
    let key = KeyPair::from_pem(&own.key().serialize_pem()).expect("a key");
    let served = files.serve(&own.pem(), &key);
    let named = ca(&served.certificate);
    assert_eq!(served.ping("https", &named, ("SSL_CERT_DIR", &empty)), Ok(()));
}

#[test]
fn a_port_without_tls_is_said_to_be_one() {
    let files = Files::new();
    let own = stranger("mine");
    let key = KeyPair::from_pem(&own.key().serialize_pem()).expect("a key");
    let served = files.serve(&own.pem(), &key);
    for (scheme, listener) in
        [("mqtts", "mqtt"), ("tcps", "tcp"), ("https", "http"), ("wss", "http")]
    {
        let address = served.server.address(listener);
        let url = format!("{scheme}://k:t@{address}/{}", ca(&served.certificate));
        let (status, _, err) = run(call(&url, served.untrusted()));
        assert_eq!(status.code(), Some(2), "{err}");
        assert!(err.contains("TLS handshake") && err.contains("TLS there"), "{scheme}: {err}");
    }
}
