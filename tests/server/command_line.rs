//! The command line: what is printed, what is refused, exit statuses, and the stop.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Protocol;
use client::fleet::{Board, ClientKind, Fleet, Load, Plan, Versions};
use client::{Connection, HttpConnection, Incoming, Options, Target, Url};
use serde_json::Value;
use support::mqtt::frame;
use support::process::run;
use support::{Endpoints, SOON, ServerProcess, Signal, TestServer, call, connect, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::TR50D;

/// The promise is 5 s; this is against a server that does not end, on a machine that does other
/// work, too.
const STOP_MAX: Duration = Duration::from_secs(15);

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tr50d.toml");

/// The program with these arguments, and none of its settings in the environment.
fn tr50d(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tr50d"));
    command.args(args);
    command
}

/// A directory with a configuration that works.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration with one key of a section changed, as a TOML text.
    fn config(&self, change: (&str, &str, &str)) -> String {
        let quoted = |path: PathBuf| format!("{:?}", path.to_str().expect("UTF-8"));
        let mut keys = vec![
            ("server", "data_dir", quoted(self.path("data"))),
            ("server", "bootstrap", format!("{FIXTURE:?}")),
            ("mqtt", "listen", "\"127.0.0.1:0\"".to_owned()),
            ("tcp", "listen", "\"127.0.0.1:0\"".to_owned()),
            ("http", "listen", "\"127.0.0.1:0\"".to_owned()),
        ];
        let (section, key, value) = change;
        keys.retain(|(s, k, _)| (*s, *k) != (section, key));
        keys.push((section, key, value.to_owned()));
        keys.sort_by_key(|(section, ..)| *section);
        let mut text = String::new();
        let mut last = "";
        for (section, key, value) in &keys {
            if *section != last {
                text += &format!("[{section}]\n");
                last = section;
            }
            text += &format!("{key} = {value}\n");
        }
        text
    }

    /// Serves a configuration, which has to be refused in one sentence that holds `sentence`, and
    /// to leave nothing behind.
    fn refuses(&self, config: &str, settings: &[(&str, &str)], sentence: &str) {
        std::fs::write(self.path("tr50d.toml"), config).expect("written");
        let file = self.path("tr50d.toml");
        let mut serve = tr50d(&["serve", "--config", file.to_str().expect("UTF-8")]);
        serve.envs(settings.iter().copied());
        let before = self.files();
        refused(serve, sentence);
        assert_eq!(self.files(), before, "left behind by: {sentence}");
    }

    fn files(&self) -> Vec<PathBuf> {
        files(self.dir.path())
    }
}

/// All there is in a directory, at any depth.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Runs what has to be refused in one sentence, with exit status 2.
fn refused(command: Command, sentence: &str) {
    let shown = format!("{command:?}");
    let (status, out, err) = run(command);
    assert_eq!(status.code(), Some(2), "{shown}: {err}");
    assert_eq!(out, "", "{shown}");
    let lines: Vec<&str> = err.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("tr50d: "), "{shown}: {err}");
    assert!(lines[0].contains(sentence), "{shown}: not {sentence:?} but {err}");
}

#[test]
fn every_command_explains_itself() {
    let check = |args: &[&str], words: &[&str]| {
        let (status, out, err) = run(tr50d(args));
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}");
        for word in words {
            assert!(out.contains(word), "{args:?}: no {word:?} in {out}");
        }
    };
    check(&["--help"], &["init", "serve", "call", "fleet", "check", "backup", "restore"]);
    let options = ["<DIR>", "--org", "--slug", "--email", "--password-stdin", "--self-signed"];
    check(&["init", "--help"], &options);
    check(&["serve", "--help"], &["--config", "--demo"]);
    check(&["call", "--help"], &["PARAMS-JSON", "--url", "mqtt://", "exit status"]);
    check(&["fleet", "--help"], &["--url", "--devices", "--json", "--mqtt-version"]);
    check(&["check", "--help"], &["--config"]);
    check(&["backup", "--help"], &["<DIR>", "--config", "goes on serving"]);
    check(&["restore", "--help"], &["<DIR>", "--config", "must be empty or absent"]);
    check(&["--version"], &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn wrong_use_has_exit_status_2_and_says_why() {
    let check = |args: &[&str], word: &str| {
        let (status, out, err) = run(tr50d(args));
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{args:?}");
        assert!(err.contains(word), "{args:?}: {err}");
    };
    check(&[], "serve");
    check(&["sevre"], "sevre");
    check(&["serve"], "--config");
    check(&["serve"], "--demo");
    check(&["init"], "<DIR>");
    check(&["serve"], "tr50d init");
    check(&["serve", "--port", "1"], "--port");
    check(&["serve", "--config"], "--config");
    check(&["check"], "--config");
    check(&["call"], "--url");
    check(&["fleet"], "--url");
}

#[test]
fn a_configuration_that_can_not_work_is_refused_in_one_sentence() {
    let site = Site::new();
    let bad = |section, key, value, sentence: &str| {
        site.refuses(&site.config((section, key, value)), &[], sentence);
    };
    bad("mqtt", "listne", "\"127.0.0.1:0\"", "\"listne\" in section [mqtt]");
    bad("mqqt", "listen", "\"127.0.0.1:0\"", "[mqqt]");
    bad("sessions", "ttl_s", "\"soon\"", "\"ttl_s\" in section [sessions]");
    bad("sessions", "ttl_s", "-1", "\"ttl_s\" in section [sessions]");
    bad("sessions", "ttl_s", "0", "sessions.ttl_s");
    bad("sessions", "ttl_s", "259201", "sessions.max_age_s");
    bad("sessions", "list_limit", "10001", "sessions.list_limit");
    bad("limits", "max_frame_bytes", "10", "limits.max_frame_bytes");
    bad("limits", "connections", "1.5", "\"connections\" in section [limits]");
    bad("mqtt", "listen", "1883", "\"listen\" in section [mqtt]");
    bad("mqtt", "listen", "\"localhost\"", "\"listen\" in section [mqtt]");
    bad("http", "tls_listen", "\"127.0.0.1:0\"", "http.tls_listen needs tls.cert");
    bad("tls", "cert", "\"/nowhere/at/all.pem\"", "tls.key");
    bad("proxy", "trusted", "[\"10.0.0.0/99\"]", "\"trusted\" in section [proxy]");
    bad("log", "format", "\"xml\"", "\"format\" in section [log]");
    bad("server", "durability", "\"maybe\"", "\"durability\" in section [server]");
    site.refuses("listen = \"127.0.0.1:0\"\n", &[], "listen");
    site.refuses("mqtt = 5\n", &[], "mqtt");

    let fine = site.config(("log", "level", "\"off\""));
    let bad = |name, value, sentence: &str| site.refuses(&fine, &[(name, value)], sentence);
    bad("TR50D_MQTT__LISTNE", "127.0.0.1:0", "TR50D_MQTT__LISTNE");
    bad("TR50D_MQQT__LISTEN", "127.0.0.1:0", "TR50D_MQQT__LISTEN");
    bad("TR50D_SESSIONS__TTL_S", "soon", "TR50D_SESSIONS__TTL_S");
    bad("TR50D_LIMITS__COMMANDS_PER_S", "-5", "TR50D_LIMITS__COMMANDS_PER_S");
    bad("TR50D_TCP__TLS_LISTEN", "127.0.0.1:0", "tcp.tls_listen needs tls.cert");
}

#[test]
fn what_can_not_be_opened_is_refused_in_one_sentence() {
    let site = Site::new();
    let bad = |section, key, value: &str, sentence: &str| {
        site.refuses(&site.config((section, key, value)), &[], sentence);
    };
    let nowhere = "No such file";
    bad("server", "bootstrap", "\"/nowhere/at/all.toml\"", "/nowhere/at/all.toml");
    bad("server", "bootstrap", "\"/nowhere/at/all.toml\"", nowhere);
    bad("server", "bootstrap", "\"\"", "server.bootstrap");
    bad("server", "bootstrap", &format!("{TEMPLATE:?}"), TEMPLATE);
    bad("server", "data_dir", &format!("\"{FIXTURE}/data\""), FIXTURE);
    bad("server", "data_dir", &format!("{FIXTURE:?}"), FIXTURE);
    let deep = format!("\"{}/a/b/c\"", site.dir.path().display());
    let text = site.config(("server", "data_dir", &deep)).replace(FIXTURE, "/nowhere/at/all.toml");
    site.refuses(&text, &[], "/nowhere/at/all.toml");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (address, taken)).expect("an address");
    for section in ["mqtt", "tcp", "http"] {
        let sentence = format!("can't listen on {} ({section}.listen)", taken.0);
        bad(section, "listen", &format!("\"{}\"", taken.0), &sentence);
    }
    let elsewhere = site.config(("http", "listen", "\"192.0.2.1:0\""));
    let allowed = [("TR50D_SERVER__ALLOW_PLAINTEXT", "true")];
    site.refuses(&elsewhere, &allowed, "can't listen on 192.0.2.1:0 (http.listen)");

    let tls = |cert: &str, sentence: &str| {
        let settings = [
            ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
            ("TR50D_TLS__CERT", cert),
            ("TR50D_TLS__KEY", cert),
        ];
        site.refuses(&site.config(("log", "level", "\"off\"")), &settings, sentence);
    };
    tls("/nowhere/at/all.pem", "/nowhere/at/all.pem");
    tls(FIXTURE, FIXTURE);

    refused(tr50d(&["serve", "--config", "/nowhere/at/all.toml"]), nowhere);
    refused(tr50d(&["serve", "--config", "/"]), "can't read the configuration file \"/\"");
}

#[test]
fn a_store_in_use_by_another_process_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut serve = TR50D.command(dir.path(), &[]);
    serve.stderr(Stdio::null());
    let _server = ServerProcess::spawn(serve);
    let before = files(dir.path());
    refused(TR50D.command(dir.path(), &[]), dir.path().to_str().expect("UTF-8"));
    assert_eq!(files(dir.path()), before);
}

#[tokio::test]
async fn the_demo_stays_on_loopback_and_cleans_up() {
    let site = Site::new();
    let demo = |settings: &[(&str, &str)]| {
        let mut demo = tr50d(&["serve", "--demo"]);
        demo.env("TMPDIR", site.dir.path());
        for section in ["MQTT", "TCP", "HTTP"] {
            demo.env(format!("TR50D_{section}__LISTEN"), "127.0.0.1:0");
        }
        demo.envs(settings.iter().copied());
        demo
    };
    let public = [
        ("TR50D_MQTT__LISTEN", "0.0.0.0:0", "mqtt.listen"),
        ("TR50D_TCP__LISTEN", "[::]:0", "tcp.listen"),
        ("TR50D_HTTP__LISTEN", "192.0.2.1:0", "http.listen"),
    ];
    for (name, value, key) in public {
        refused(demo(&[(name, value)]), key);
        assert!(site.files().is_empty(), "{:?}", site.files());
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    refused(demo(&[("TR50D_HTTP__LISTEN", &address)]), "(http.listen)");
    refused(demo(&[("TR50D_SERVER__BOOTSTRAP", "/nowhere/at/all.toml")]), "/nowhere/at/all.toml");
    assert!(site.files().is_empty(), "{:?}", site.files());

    let mut server = ServerProcess::spawn(demo(&[]));
    assert_eq!(std::fs::read_dir(site.dir.path()).expect("a directory").count(), 1);
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
    assert!(site.files().is_empty(), "{:?}", site.files());
}

#[tokio::test]
async fn a_demo_in_a_directory_of_the_users_choice_keeps_it() {
    let site = Site::new();
    let mut server = TR50D.serve(&site.path("mine"), &[]);
    assert_eq!(server.end(Signal::TERM).await.code(), Some(0));
    assert!(site.path("mine").is_dir());
}

#[test]
fn check_says_what_is_wrong_and_touches_nothing() {
    let site = Site::new();
    let check = |config: &str, status: i32, word: &str| {
        let file = site.path("tr50d.toml");
        std::fs::write(&file, config).expect("written");
        let before = site.files();
        let (found, out, err) = run(tr50d(&["check", "--config", file.to_str().expect("UTF-8")]));
        assert_eq!(found.code(), Some(status), "{config}: {err}");
        let (said, silent) = if status == 0 { (out, err) } else { (err, out) };
        assert!(said.contains(word) && silent.is_empty(), "{config}: {said}{silent}");
        assert_eq!(site.files(), before);
    };
    check(&site.config(("log", "level", "\"off\"")), 0, "is fine");
    check(&std::fs::read_to_string(TEMPLATE).expect("the template"), 0, "is fine");
    check("", 0, "is fine");
    check(&site.config(("mqtt", "listne", "1")), 2, "listne");
    check(&site.config(("server", "bootstrap", "\"/nowhere.toml\"")), 2, "/nowhere.toml");
    check(&site.config(("server", "bootstrap", &format!("{TEMPLATE:?}"))), 2, TEMPLATE);
    check(&site.config(("mqtt", "tls_listen", "\"127.0.0.1:0\"")), 2, "tls.cert");
    check("this is no TOML", 2, "not valid TOML");
    refused(tr50d(&["check", "--config", "/nowhere/at/all.toml"]), "/nowhere/at/all.toml");
}

#[test]
fn serve_prints_every_listener_and_then_ready() {
    let server = TR50D.start(&[]);
    let listening: Vec<&str> =
        server.lines().iter().filter_map(|line| line.strip_prefix("listening ")).collect();
    let names: Vec<&str> = listening.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["mqtt", "tcp", "http"]);
    assert_eq!(server.lines().last().map(String::as_str), Some("ready"));
    for name in names {
        let address = server.address(name);
        assert_ne!(address.port(), 0);
        std::net::TcpStream::connect(address).expect("a listener");
    }
    let some = TR50D.start(&[("TR50D_TCP__LISTEN", "none"), ("TR50D_HTTP__LISTEN", "")]);
    assert!(!some.lines().iter().any(|line| line.contains("tcp") || line.contains("curl")));
}

#[test]
fn call_prints_the_reply_and_tells_by_its_exit_status() {
    let server = TestServer::start();
    let operator =
        |scheme| server.url(scheme, "operator@basicorg.example", "demo-operator-password");
    let text = |url: &Url| {
        let login = "operator%40basicorg.example:demo-operator-password";
        format!("{}://{login}@{}:{}", url.protocol.as_str(), url.host, url.port)
    };
    let check = |args: &[&str], status: i32, out_word: &str, err_word: &str| {
        let (found, out, err) = run(tr50d(&[&["call"], args].concat()));
        assert_eq!(found.code(), Some(status), "{args:?}: {out}{err}");
        assert!(out.contains(out_word) && out.is_empty() == out_word.is_empty(), "{args:?}: {out}");
        assert!(err.contains(err_word) && err.is_empty() == err_word.is_empty(), "{args:?}: {err}");
        assert!(out.lines().count() <= 1, "{args:?}: {out}");
    };
    for scheme in ["mqtt", "tcp", "http"] {
        let url = text(&operator(scheme));
        let url = url.as_str();
        let reply = r#"{"success":true,"params":{"count":1,"result":["#;
        check(&["session.list", "--url", url], 0, reply, "");
        check(&["diag.echo", r#"{ "a": [1, "ü"] }"#, "--url", url], 0, r#"{"a":[1,"ü"]}"#, "");
        check(&["no.such", "--url", url], 1, r#"{"success":false,"errorCodes":["#, "");
        check(&["diag.echo", "{", "--url", url], 2, "", "not JSON");
        let wrong = url.replace("operator-", "no-");
        check(&["diag.ping", "--url", &wrong], 2, "", "refused the login");
    }
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
    check(&["diag.ping", "--url", &format!("tcp://k:t@{gone}")], 2, "", &gone.to_string());
    check(&["diag.ping", "--url", "gopher://k:t@h"], 2, "", "the URL must begin with");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("mqtt://k:t@{}", silent.local_addr().expect("an address"));
    check(&["diag.ping", "--timeout", "0.2", "--url", &url], 2, "", "no answer within 200 ms");
}

#[test]
fn fleet_reports_and_tells_by_its_exit_status() {
    let server = TestServer::start();
    let check = |more: &[&str], status: i32| {
        let urls: Vec<String> = ["mqtt", "tcp", "http"]
            .iter()
            .map(|scheme| format!("--url={scheme}://{}", server.address(scheme)))
            .collect();
        let usual = ["fleet", "--devices=18", "--duration=0.3", "--mqtt-version=mix"];
        let mut fleet = tr50d(&usual);
        fleet.args(["--client=mix", "--json"]).args(&urls).args(more);
        let (found, out, err) = run(fleet);
        assert_eq!(found.code(), Some(status), "{more:?}: {out}{err}");
        serde_json::from_str::<Value>(&out).unwrap_or(Value::Null)
    };
    let report = check(&["--token=demo-token-basicorg"], 0);
    assert_eq!(report["connections"]["opened"], 18, "{report}");
    assert!(report["commands"]["answered"].as_u64() >= Some(18), "{report}");
    assert!(report["latency"]["p999Ms"].as_f64() > Some(0.0), "{report}");
    let report = check(&["--token=wrong-token"], 1);
    assert_eq!(report["connections"]["failed"], 18, "{report}");
    let report = check(&["--token=demo-token-basicorg", "--command=no.such"], 1);
    assert!(report["commands"]["failed"].as_u64() > Some(0), "{report}");
    check(&[], 2);
    check(&["--token=t", "--url=mqtt://192.0.2.1"], 2);
}

/// Stops the server with this signal; it has to end well, and in time.
async fn stops(server: &mut ServerProcess, signal: Signal) {
    let start = Instant::now();
    assert_eq!(server.end(signal).await.code(), Some(0), "{signal:?}");
    assert!(start.elapsed() < STOP_MAX, "{signal:?} took {:?}", start.elapsed());
}

/// A certificate for this machine and its key, as settings.
fn tls_settings(dir: &Path) -> Vec<(String, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let path = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    let mut settings =
        vec![("TR50D_TLS__CERT".to_owned(), path(cert)), ("TR50D_TLS__KEY".to_owned(), path(key))];
    for section in ["MQTT", "TCP", "HTTP"] {
        settings.push((format!("TR50D_{section}__TLS_LISTEN"), "127.0.0.1:0".to_owned()));
    }
    settings
}

#[tokio::test]
async fn a_stop_does_not_wait_for_strangers() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = TR50D.serve_logging(&log, &[]);
    let mut strangers = Vec::new();
    for (scheme, beginning) in [("mqtt", &b"\x10\x20\0\x04MQ"[..]), ("tcp", b"{\"auth\":")] {
        strangers.push(raw(server.address(scheme), b"").await);
        strangers.push(raw(server.address(scheme), beginning).await);
    }
    let control = server.data_dir().join("control");
    let silent = UnixStream::connect(&control).await.expect("a connection");
    let mut asking = UnixStream::connect(&control).await.expect("a connection");
    asking.write_all(b"hello\n").await.expect("sent");
    // By now they have all been accepted.
    asking.read_to_end(&mut Vec::new()).await.expect("an answer");
    for scheme in ["mqtt", "tcp"] {
        drop(server.thing(scheme, "mower").await);
    }
    assert!(server.end(Signal::TERM).await.success());
    let log = std::fs::read_to_string(&log).expect("the log");
    assert!(!log.contains("did not end in time"), "{log}");
    drop(silent);
}

#[tokio::test]
async fn a_stop_closes_connections_of_every_kind_in_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = Site::new();
        let settings = tls_settings(site.dir.path());
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut server = TR50D.start(&settings);
        let schemes = ["mqtt", "mqtts", "tcp", "tcps", "http", "https"];
        let mut plan = Plan::new(server.thing_url("mqtt", "x"), 60);
        plan.urls = schemes.iter().map(|scheme| thing_url(&server, scheme)).collect();
        (plan.versions, plan.client) = (Some(Versions::Mix), ClientKind::Mix);
        let mut fleet = Fleet::connect(&plan).await.expect("a plan that works");
        assert_eq!(fleet.len(), 60, "{}", fleet.report(SOON));
        let mut websocket: Url = thing_url(&server, "http");
        websocket.protocol = Protocol::Ws;
        let mut websocket = connect(&websocket).await;
        // Those who have said nothing, and those who stopped in the middle.
        let mut strangers = Vec::new();
        for scheme in schemes {
            for beginning in
                [&b""[..], b"\x10\x20\0\x04MQ", b"{\"auth\":", b"POST /api HTTP/1.1\r\n"]
            {
                strangers.push(raw(server.address(scheme), beginning).await);
            }
        }
        let ready = raw(server.address("http"), b"GET /readyz HTTP/1.0\r\n\r\n").await;
        assert!(read_all(ready).await.starts_with(b"HTTP/1.0 200"));
        stops(&mut server, signal).await;
        websocket.closed().await;
        for device in fleet.devices_mut() {
            device.closed().await;
        }
        for stranger in strangers {
            read_all(stranger).await;
        }
        let refused = std::net::TcpStream::connect(server.address("mqtt"));
        assert!(refused.is_err(), "the port is still open");
    }
}

/// A URL with the login of a thing, and trust in any certificate.
fn thing_url(server: &Endpoints, scheme: &str) -> Url {
    let address = server.address(scheme);
    let url = format!("{scheme}://stop:demo-token-basicorg@{address}/?insecure=true");
    url.parse().expect("a URL")
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// What comes until the other side closes.
async fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection never closes");
    bytes
}

#[tokio::test]
async fn answers_in_flight_go_out_before_the_end() {
    // With the demo's own passwords, which take their time.
    let dir = tempfile::tempdir().expect("a directory");
    let mut serve = TR50D.command(dir.path(), &[]);
    serve.stderr(Stdio::null());
    let mut server = ServerProcess::spawn(serve);
    let mut operator = server.operator("mqtt").await;
    let requests = ["mqtt", "tcp", "http"].map(|scheme| {
        let url = server.url(scheme, "admin@devicewise.com", "demo-admin-password");
        tokio::spawn(async move { (scheme, ask_slowly(&url).await) })
    });
    // The first command shows that the request has arrived; the others take their time.
    eventually("all three have switched", async || {
        let filter = r#"{"userName":"admin@devicewise.com","status":"ALL"}"#;
        let list = call(&mut operator, "session.list", filter).await;
        list["count"].as_u64() >= Some(3)
    })
    .await;
    stops(&mut server, Signal::TERM).await;
    for request in requests {
        let (scheme, reply) = request.await.expect("an answer");
        for number in 0..SLOW {
            let answer = &reply[format!("slow{number}")];
            assert_eq!(answer["success"], true, "{scheme}: {reply}");
        }
    }
}

/// How many passwords [`ask_slowly`] has checked.
const SLOW: usize = 2;

/// Switches to BasicOrg, then has some passwords checked, all in one request.
async fn ask_slowly(url: &Url) -> Value {
    let login = r#"{"username":"operator@basicorg.example","password":"demo-operator-password"}"#;
    let switch = r#"{"command":"session.org.switch","params":{"key":"BasicOrg"}}"#;
    let mut request = format!(r#"{{"switch":{switch}"#);
    for number in 0..SLOW {
        let command = format!(r#"{{"command":"api.authenticate","params":{login}}}"#);
        request += &format!(r#","slow{number}":{command}"#);
    }
    request.push('}');
    let target = Target::resolve(url).await.expect("an address");
    let options = Options::default();
    if url.protocol == Protocol::Http {
        let mut http = HttpConnection::open(&target, url, &options).await.expect("a login");
        let reply = http.post(request.into()).await.expect("a reply");
        return serde_json::from_slice(&reply).expect("JSON");
    }
    let mut connection = Connection::open(&target, url, &options).await.expect("a login");
    connection.queue(7, request.as_bytes()).expect("it is short");
    loop {
        connection.exchange().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        if let Some(Incoming::Reply { text, .. }) = connection.next_incoming().expect("a frame") {
            return serde_json::from_slice(text).expect("JSON");
        }
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_load_is_in_time() {
    let mut server = TR50D.start(&[]);
    let mut plan = Plan::new(server.url("mqtt", "admin@devicewise.com", "demo-admin-password"), 6);
    plan.urls.push(server.url("tcp", "admin@devicewise.com", "demo-admin-password"));
    plan.urls.push(server.url("http", "admin@devicewise.com", "demo-admin-password"));
    // Every one of these commands waits for the store.
    let switch = Some(r#"{"key":"BasicOrg"}"#);
    let mut load = Load::command("session.org.switch", switch, 2 * SOON).expect("JSON");
    load.window = 50;
    let board = Arc::new(Board::default());
    let fleet = Fleet::connect_watched(&plan, board.clone(), CancellationToken::new()).await;
    let mut fleet = fleet.expect("a plan that works");
    assert_eq!(fleet.len(), 6);
    let run = tokio::spawn(async move { fleet.run(&load).await });
    eventually("the load is on its way", async || board.answered() > 500).await;
    stops(&mut server, Signal::TERM).await;
    let report = timeout(SOON, run).await.expect("the connections close").expect("a report");
    assert_eq!(report.connections.dropped, 6, "{report}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_up_the_stop() {
    const CONNECT: &[u8] = b"\x10\x2b\0\x04MQTT\x04\xc2\0\0\0\x04deaf\0\x04deaf\
                             \0\x13demo-token-basicorg";
    let mut server = TR50D.start(&[]);
    let echo = format!(
        r#""echo":{{"command":"diag.echo","params":{{"text":"{}"}}}}"#,
        "x".repeat(500_000)
    );
    let login = r#""appId":"a","appToken":"demo-token-basicorg","thingKey":"deaf""#;
    let login = format!(r#""auth":{{"command":"api.authenticate","params":{{{login}}}}}"#);
    let body = format!("{{{login},{echo}}}");
    let http = format!("POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let publish = [b"\0\x05api/1{".as_slice(), echo.as_bytes(), b"}"].concat();
    let frame = frame(0x30, &[&publish]);
    let talks = [
        ("mqtt", CONNECT.to_vec(), frame),
        ("tcp", format!("{{{login}}}\n").into_bytes(), format!("{{{echo}}}\n").into_bytes()),
        ("http", Vec::new(), [http.as_bytes(), body.as_bytes()].concat()),
    ];
    let mut deaf = Vec::new();
    for (scheme, beginning, request) in talks {
        let mut stream = raw(server.address(scheme), &beginning).await;
        // Until the server no longer takes any, because its answers are not taken.
        let stuck = Duration::from_millis(500);
        let sent = async {
            while let Ok(written) = timeout(stuck, stream.write_all(&request)).await {
                written.expect("the server waits for its reader");
            }
        };
        timeout(SOON, sent).await.expect("the server never stops reading");
        deaf.push(stream);
    }
    stops(&mut server, Signal::TERM).await;
}
