//! Certificates of clients: who needs one, and whose login goes by it.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SanType,
};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use support::{SOON, TestServer, call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

const TOKEN: &str = "demo-token-basicorg";
const OPERATOR: &str = "operator@basicorg.example";

type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A server that knows an authority for certificates of clients.
struct Site {
    server: TestServer,
    own: CertificateDer<'static>,
    ca: CertifiedIssuer<'static, KeyPair>,
    _dir: tempfile::TempDir,
}

impl Site {
    fn start(auth: &str, login: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
        let ca = authority();
        let cert = write("cert.pem", own.cert.pem());
        let key = write("key.pem", own.signing_key.serialize_pem());
        let client_ca = write("ca.pem", ca.pem());
        let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        let server = TestServer::with(&[
            ("TR50D_TLS__CERT", &text(&cert)),
            ("TR50D_TLS__KEY", &text(&key)),
            ("TR50D_TLS__CLIENT_CA", &text(&client_ca)),
            ("TR50D_TLS__CLIENT_AUTH", auth),
            ("TR50D_TLS__CLIENT_LOGIN", login),
            ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_TCP__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_HTTP__TLS_LISTEN", "127.0.0.1:0"),
        ]);
        Self { server, own: own.cert.der().clone(), ca, _dir: dir }
    }

    /// A certificate of the authority for these names.
    fn pair(&self, common: &str, alternatives: Vec<SanType>) -> Pair {
        issued(&self.ca, common, alternatives)
    }

    async fn dial(
        &self,
        listener: &str,
        pair: Option<&Pair>,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.own.clone()).expect("a root");
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let config = match pair {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(vec![certificate.clone()], key.clone_key())
                .expect("a pair"),
        };
        let socket = TcpStream::connect(self.server.address(listener)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect("127.0.0.1".try_into().expect("a name"), socket).await
    }

    /// One line over TCP, and the reply; empty when there is none.
    async fn line(&self, pair: Option<&Pair>, line: &str) -> String {
        let mut reply = String::new();
        let talk = async {
            let mut stream = self.dial("tcps", pair, &TLS13).await?;
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            loop {
                let mut byte = [0];
                if stream.read(&mut byte).await? == 0 || byte == *b"\n" {
                    return Ok::<_, std::io::Error>(());
                }
                reply.push(char::from(byte[0]));
            }
        };
        let _ = timeout(SOON, talk).await.expect("in time");
        reply
    }

    /// Logs in over TCP with these parameters: who the session's thing or user is, if it is let in.
    async fn login(&self, pair: Option<&Pair>, params: &str) -> Option<String> {
        let auth = format!(r#""auth":{{"command":"api.authenticate","params":{{{params}}}}}"#);
        let line = format!(r#"{{{auth},"i":{{"command":"session.info"}}}}"#);
        let reply: serde_json::Value = serde_json::from_str(&self.line(pair, &line).await).ok()?;
        let info = &reply["i"]["params"];
        let who = ["thingKey", "userName"].into_iter().find_map(|member| info[member].as_str());
        who.map(str::to_owned)
    }

    /// The bytes that answer to a CONNECT with these fields: the return code of a CONNACK.
    async fn connack(&self, pair: Option<&Pair>, user: Option<&str>, secret: Option<&str>) -> u8 {
        let mut body = b"\0\x04MQTT\x04".to_vec();
        let flags = 2 | u8::from(user.is_some()) << 7 | u8::from(secret.is_some()) << 6;
        body.extend([flags, 0, 60]);
        for text in [Some("client"), user, secret].into_iter().flatten() {
            body.extend(support::mqtt::text(text));
        }
        let frame = support::mqtt::frame(0x10, &[&body]);
        let mut stream = self.dial("mqtts", pair, &TLS12).await.expect("a handshake");
        stream.write_all(&frame).await.expect("sent");
        let mut connack = [0; 4];
        timeout(SOON, stream.read_exact(&mut connack)).await.expect("in time").expect("a CONNACK");
        connack[3]
    }

    /// An answer over HTTPS; nothing if the connection is refused.
    async fn http(&self, pair: Option<&Pair>, request: &str) -> String {
        let mut answer = String::new();
        let talk = async {
            let mut stream = self.dial("https", pair, &TLS13).await?;
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await
        };
        let _ = timeout(SOON, talk).await.expect("in time");
        answer
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority for clients");
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

fn issued(
    ca: &CertifiedIssuer<'static, KeyPair>,
    common: &str,
    alternatives: Vec<SanType>,
) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.subject_alt_names = alternatives;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    (certificate.der().clone(), key)
}

#[tokio::test]
async fn who_needs_a_certificate_is_said_by_client_auth() {
    const HEALTH: &[u8] = b"GET /healthz HTTP/1.0\r\n\r\n";
    let stranger = issued(&authority(), "stranger", Vec::new());
    for (auth, with_none, with_wrong) in [
        ("", true, false),
        ("optional", true, false),
        ("required", false, false),
        ("none", true, true),
    ] {
        let site = Site::start(auth, "none");
        let friend = site.pair("friend", Vec::new());
        let cases = [(None, with_none), (Some(&stranger), with_wrong), (Some(&friend), true)];
        for version in [&TLS12, &TLS13] {
            for (pair, welcome) in cases {
                let answered = async {
                    let mut stream = site.dial("https", pair, version).await?;
                    stream.write_all(HEALTH).await?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await.map(|_| answer.contains(" 200 "))
                };
                let answered = timeout(SOON, answered).await.expect("in time");
                let what = format!("{auth:?} {version:?} {}", pair.is_some());
                assert_eq!(answered.unwrap_or(false), welcome, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_thing_is_the_one_of_its_certificate() {
    let site = Site::start("optional", "thing");
    let dns = SanType::DnsName("mower-2".try_into().expect("ASCII"));
    let (one, two) = (site.pair("mower-1", Vec::new()), site.pair("mower-1", vec![dns]));
    let token = format!(r#""appToken":"{TOKEN}""#);
    let with_key = |key: &str| format!(r#"{token},"thingKey":"{key}""#);
    let login = async |pair, params: &str| site.login(pair, params).await;
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(login(Some(&one), &with_key("mower-1")).await, name("mower-1"));
    assert_eq!(login(Some(&one), &token).await, name("mower-1"));
    assert_eq!(login(Some(&one), &with_key("mower-2")).await, None);
    assert_eq!(login(Some(&two), &with_key("mower-2")).await, name("mower-2"));
    assert_eq!(login(Some(&two), &with_key("mower-1")).await, name("mower-1"));
    assert_eq!(login(Some(&two), &token).await, name("mower-2"));
    assert_eq!(login(Some(&one), r#""thingKey":"mower-1""#).await, None, "the token is needed");
    assert_eq!(login(Some(&one), "").await, None);
    // Without a certificate, and for users, all is as ever.
    assert_eq!(login(None, &with_key("mower-9")).await, name("mower-9"));
    assert_eq!(login(None, &token).await, None);
    let user = format!(r#""username":"{OPERATOR}","password":"demo-operator-password""#);
    assert_eq!(login(Some(&one), &user).await, name(OPERATOR));
    let nobody = format!(r#""username":"{OPERATOR}","password":"""#);
    assert_eq!(login(Some(&one), &nobody).await, None);
    // The same over MQTT.
    assert_eq!(site.connack(Some(&one), Some("mower-1"), Some(TOKEN)).await, 0);
    assert_eq!(site.connack(Some(&one), Some(""), Some(TOKEN)).await, 0);
    assert_eq!(site.connack(Some(&one), Some("mower-2"), Some(TOKEN)).await, 4);
    assert_eq!(site.connack(None, Some("mower-2"), Some(TOKEN)).await, 0);
    assert_eq!(site.connack(Some(&one), None, None).await, 4);
}

#[tokio::test]
async fn a_user_with_a_certificate_needs_no_password() {
    let site = Site::start("optional", "user");
    let address = SanType::Rfc822Name(OPERATOR.try_into().expect("ASCII"));
    let by_alternative = site.pair("somebody", vec![address]);
    let by_common = site.pair("Operator@BasicOrg.example", Vec::new());
    let unknown = site.pair("nobody@basicorg.example", Vec::new());
    let no_user = site.pair("mower-1", Vec::new());
    let name = format!(r#""username":"{OPERATOR}""#);
    let other = r#""username":"viewer@basicorg.example""#;
    let right = format!(r#"{name},"password":"demo-operator-password""#);
    let wrong = format!(r#"{name},"password":"wrong-password""#);
    for pair in [&by_alternative, &by_common] {
        for (params, welcome) in [
            (name.as_str(), true),
            ("", true),
            (&right, true),
            (&wrong, false),
            (other, false),
            (&format!(r#"{other},"password":"demo-viewer-password""#), false),
        ] {
            let found = site.login(Some(pair), params).await;
            assert_eq!(found, welcome.then(|| OPERATOR.to_owned()), "{params}");
        }
        assert_eq!(site.connack(Some(pair), None, None).await, 0);
        assert_eq!(site.connack(Some(pair), Some(OPERATOR), Some("")).await, 0);
        assert_eq!(site.connack(Some(pair), Some("viewer@basicorg.example"), Some("")).await, 4);
    }
    for pair in [Some(&unknown), Some(&no_user), None] {
        assert_eq!(site.login(pair, &name).await, None);
        assert_eq!(site.login(pair, "").await, None);
    }
    // Things go by their tokens.
    let thing = format!(r#""appToken":"{TOKEN}","thingKey":"mower-7""#);
    assert_eq!(site.login(Some(&by_common), &thing).await, Some("mower-7".to_owned()));
    // Over HTTP, a command and Element's Basic credentials: base64 of "operator@basicorg.example:".
    let body = r#"{"auth":{"command":"api.authenticate"},"p":{"command":"diag.ping"}}"#;
    let request = |head: &str, body: &str| {
        let length = body.len();
        format!("{head}\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let api = request("POST /api HTTP/1.1", body);
    assert!(site.http(Some(&by_common), &api).await.contains(r#""p":{"success":true}"#));
    assert!(!site.http(None, &api).await.contains(r#""success":true"#));
    let basic = "POST /json-rpc/12.5 HTTP/1.1\r\n\
                 Authorization: Basic b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTo=";
    let rpc = request(basic, r#"{"method":"ListActiveAuthSessions","params":{}}"#);
    let answer = site.http(Some(&by_alternative), &rpc).await;
    assert!(answer.contains(r#""result""#), "{answer}");
    assert!(!site.http(None, &rpc).await.contains(r#""result""#));
    let mut operator = site.server.operator("http").await;
    let listed = call(&mut operator, "session.list", "").await;
    assert!(listed["count"].as_u64() > Some(0), "{listed}");
}
