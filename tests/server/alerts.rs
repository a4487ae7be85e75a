//! The alerts of `contrib/prometheus/alerts.yml`: each fires of what `/metrics` shows of a server in
//! that state, and none of a healthy one. `promtool` evaluates them; `tests/run` installs it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base::{ConnInfo, Protocol, Timestamp, limits};
use client::Client;
use client::Version::V311;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use store::watched::Watched;
use support::http::{metrics, post};
use support::mqtt::Connect;
use support::{Endpoints, TestServer, call, eventually, reply};
use tr50d::app::App;
use tr50d::config::Config;
use tr50d::metrics::Form;
use tr50d::tr50::commands::COMMANDS;
use tr50d::tr50::over_http::{self, Claims};

use crate::TR50D;
use crate::outside_clients::wanted;
use crate::webhooks::receiver::Receiver;

/// The alerts.
pub(crate) fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus/alerts.yml")
}

/// What a scrape has: samples by name and labels, and which of them only grow.
#[derive(Clone, Default)]
struct Scrape(BTreeMap<String, (f64, bool)>);

impl Scrape {
    async fn of(server: &Endpoints) -> Self {
        let page = metrics(server).await;
        Self::read(page.split_once("\r\n\r\n").expect("a head").1)
    }

    fn read(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        let mut grows = false;
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                grows = family.ends_with(" counter") || family.ends_with(" histogram");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a sample");
                let mut value: f64 = value.parse().expect("a number");
                if name.contains("_end_timestamp_seconds") {
                    // The tests of promtool begin in 1970.
                    value -= Timestamp::now().as_millis() as f64 / 1000.0;
                }
                samples.insert(name.to_owned(), (value, grows));
            }
        }
        Self(samples)
    }
}

/// Seconds between two scrapes, how often each stage is scraped, and the last one.
const EVERY_S: usize = 15;
const STAGE: usize = 10;
const LAST_STAGE: usize = 35;

/// The input of promtool for a server that was scraped in these stages. What only grows goes on to
/// grow by what it grew from the last but one to the last, every time.
fn series(stages: &[Scrape], up: bool) -> Vec<Value> {
    let last = stages.last().expect("a stage");
    let one = |name: &str, values: String| {
        let labels = match name.split_once('{') {
            Some((name, labels)) => format!("{name}{{job=\"tr50d\",instance=\"server\",{labels}"),
            None => format!("{name}{{job=\"tr50d\",instance=\"server\"}}"),
        };
        json!({ "series": labels, "values": values })
    };
    let sample = |(name, (value, grows)): (&String, &(f64, bool))| {
        let of = |stage: &Scrape| stage.0.get(name).map_or(0.0, |sample| sample.0);
        if *grows {
            let before = stages.iter().rev().nth(1).map_or(*value, &of);
            // At a start it begins anew.
            let more = (value - before).max(0.0);
            return one(name, format!("{before}+{more}x{}", stages.len() * STAGE + LAST_STAGE));
        }
        let mut values = String::new();
        for stage in stages {
            write!(values, "{}+0x{} ", of(stage), STAGE - 1).expect("written");
        }
        write!(values, "{value}+0x{LAST_STAGE}").expect("written");
        one(name, values)
    };
    let mut all: Vec<_> = if up { last.0.iter().map(sample).collect() } else { Vec::new() };
    all.push(one("up", format!("{}+0x200", u8::from(up))));
    all
}

/// Has promtool evaluate the rules, and checks that this alert fires at the end; none: that none does.
fn evaluate(series: Vec<Value>, stages: usize, alert: Option<&str>) {
    let end_s = (stages * STAGE + LAST_STAGE - 1) * EVERY_S;
    let filter = alert.map_or(String::new(), |alert| format!(",alertname=\"{alert}\""));
    let expected: Vec<_> = alert
        .into_iter()
        .map(|alert| json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }))
        .collect();
    let test = json!({
        "rule_files": [rules()],
        "evaluation_interval": format!("{EVERY_S}s"),
        "tests": [{
            "interval": format!("{EVERY_S}s"),
            "input_series": series,
            "promql_expr_test": [{
                "expr": format!("group by (alertname) (ALERTS{{alertstate=\"firing\"{filter}}})"),
                "eval_time": format!("{end_s}s"),
                "exp_samples": expected,
            }],
        }],
    });
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("test.yml");
    std::fs::write(&path, test.to_string()).expect("written");
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules"]).arg(&path);
    let output = promtool.output().expect("promtool, which tests/run installs");
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = words(&output.stdout) + &words(&output.stderr);
    assert!(output.status.success(), "{alert:?}: {shown}");
}

/// This alert fires of what was scraped before and in the state.
fn fires(alert: &str, stages: &[Scrape]) {
    if wanted() {
        evaluate(series(stages, true), stages.len(), Some(alert));
    }
}

#[tokio::test]
async fn nothing_fires_of_a_healthy_server() {
    let server = TestServer::start();
    let before = Scrape::of(&server).await;
    let mut thing = server.thing("mqtt", "mower-1").await;
    for _ in 0..5 {
        call(&mut thing, "property.publish", r#"{"key":"t","value":1}"#).await;
    }
    let wrong = r#"{"1":{"command":"thing.find","params":{"key":"nobody"}}}"#;
    post(&server, wrong).await;
    let after = Scrape::of(&server).await;
    if wanted() {
        evaluate(series(&[before, after], true), 2, None);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_down() {
    let server = TestServer::start();
    let (address, before) = (server.address("http"), Scrape::of(&server).await);
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    if wanted() {
        evaluate(series(&[before], false), 1, Some("Tr50dDown"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_stay_up_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut stages = Vec::new();
    for _ in 0..3 {
        let mut server = TR50D.serve(&dir.path().join("data"), &[]);
        stages.push(Scrape::of(&server).await);
        server.end(support::Signal::KILL).await;
    }
    fires("Tr50dRestarts", &stages);
}

#[tokio::test]
async fn a_disk_near_and_below_the_mark() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = TestServer::in_dir(&data_dir, &[]);
    // Below the mark no new thing is registered.
    drop(server.thing("mqtt", "mower-1").await);
    let (free, _) = Scrape::of(&server).await.0["tr50d_store_free_bytes"];
    server.stop().await;
    let mark = format!("{}", (free * 0.7) as u64);
    let server = TestServer::in_dir(&data_dir, &[("TR50D_SERVER__MIN_FREE_BYTES", &mark)]);
    let near = Scrape::of(&server).await;
    assert_eq!(near.0["tr50d_store_available"].0, 1.0);
    server.stop().await;
    fires("Tr50dDiskLow", &[near]);
    let mark = [("TR50D_SERVER__MIN_FREE_BYTES", "1000000000000000")];
    let server = TestServer::in_dir(&data_dir, &mark);
    let before = Scrape::of(&server).await;
    let mut thing = server.thing("mqtt", "mower-1").await;
    let refused = reply(&mut thing, "property.publish", r#"{"key":"t","value":1}"#).await;
    assert_eq!(refused["success"], false, "{refused}");
    let below = Scrape::of(&server).await;
    fires("Tr50dStoreUnavailable", std::slice::from_ref(&below));
    fires("Tr50dStoreErrors", &[before, below]);
}

/// A server without sockets on a store that can be held up, and a session of a thing.
struct Held {
    app: Arc<App>,
    store: Arc<Watched>,
    session: String,
    conn: ConnInfo,
}

impl Held {
    async fn start() -> Self {
        let mut config = Config::default();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
        config.server.bootstrap = Some(fixture);
        config.limits.commands_per_s = 0;
        let store = Arc::new(Watched::default());
        let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        let app = App::open(config, store.clone(), &names, None).expect("the demo");
        let conn = ConnInfo::new(Protocol::Http, "192.0.2.1:5".parse().expect("an address"));
        let mut held = Self { app: Arc::new(app), store, session: String::new(), conn };
        let login = r#"{"auth":{"command":"api.authenticate","params":
            {"thingKey":"mower-1","appToken":"demo-token-basicorg","appId":""}}}"#;
        held.session = support::replies::session_id(&held.ask(login.to_owned()).await);
        held
    }

    /// Answers a request as over HTTP.
    fn ask(&self, body: String) -> impl Future<Output = String> + Send + 'static {
        let (app, session, conn) = (self.app.clone(), self.session.clone(), self.conn);
        async move {
            let session = Some(session).filter(|id| !id.is_empty());
            let (claims, now) = (Claims { session, ..Claims::default() }, app.clock.now());
            let answered = over_http::request(&app, body.as_bytes(), &claims, conn, now).await;
            String::from_utf8(answered.text).expect("text")
        }
    }

    fn scrape(&self) -> Scrape {
        Scrape::read(&self.app.scrape(Form::Text))
    }
}

fn publish(value: &str) -> String {
    format!(r#"{{"1":{{"command":"attribute.publish","params":{{"key":"a","value":"{value}"}}}}}}"#)
}

impl Held {
    /// Holds up all commits until what this returns is dropped.
    fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (closed, is_closed) = std::sync::mpsc::channel();
        let store = self.store.clone();
        std::thread::spawn(move || {
            let _gate = store.gate.lock();
            closed.send(()).expect("the test waits");
            // Ends with the sender.
            let _ = released.recv();
        });
        is_closed.recv().expect("the thread runs");
        release
    }
}

#[tokio::test]
async fn a_store_that_is_slow() {
    let held = Held::start().await;
    let before = held.scrape();
    let gate = held.hold();
    let asked = tokio::spawn(held.ask(publish("1")));
    // What is slow takes its time.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    drop(gate);
    let answer = asked.await.expect("a task");
    assert!(answer.contains(r#""success":true"#), "{answer}");
    let after = held.scrape();
    fires("Tr50dStoreSlow", &[before.clone(), after.clone()]);
    fires("Tr50dCommandsSlow", &[before, after]);
}

#[tokio::test]
async fn a_store_whose_queue_fills() {
    let held = Held::start().await;
    let gate = held.hold();
    let mut asked = Vec::new();
    for number in 0..limits::STORE_QUEUE_BYTES_MAX * 6 / 10 / limits::ATTRIBUTE_BYTES_MAX {
        // What is as it was is not stored.
        let value = format!("{number:x>0$}", limits::ATTRIBUTE_BYTES_MAX);
        asked.push(tokio::spawn(held.ask(publish(&value))));
    }
    let half = limits::STORE_QUEUE_BYTES_MAX as f64 / 2.0;
    eventually("half of the queue is taken", async || {
        held.scrape().0["tr50d_store_queue_bytes"].0 > half
    })
    .await;
    fires("Tr50dStoreQueue", &[held.scrape()]);
    drop(gate);
    for asked in asked {
        let answer = asked.await.expect("a task");
        assert!(answer.contains(r#""success":true"#), "{answer}");
    }
}

#[tokio::test]
async fn a_store_that_fails() {
    let held = Held::start().await;
    let before = held.scrape();
    held.store.failing.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = held.ask(publish("1")).await;
    assert!(answer.contains(r#""success":false"#), "{answer}");
    fires("Tr50dStoreErrors", &[before, held.scrape()]);
}

#[tokio::test]
async fn commands_that_fail() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let before = Scrape::of(&server).await;
    for _ in 0..30 {
        let answer = reply(&mut thing, "thing.find", r#"{"key":"nobody"}"#).await;
        assert_eq!(answer["success"], false);
    }
    fires("Tr50dCommandsFail", &[before, Scrape::of(&server).await]);
}

#[tokio::test]
async fn logins_that_are_refused() {
    let server = TestServer::start();
    let before = Scrape::of(&server).await;
    for number in 0..30 {
        let login = format!(
            r#"{{"auth":{{"command":"api.authenticate","params":{{"thingKey":"t-{number}","appToken":"wrong-token","appId":""}}}}}}"#
        );
        let answer = post(&server, &login).await;
        assert!(answer.contains(r#""success":false"#), "{answer}");
    }
    fires("Tr50dLoginsRefused", &[before, Scrape::of(&server).await]);
}

#[tokio::test]
async fn connections_near_the_limit_and_beyond() {
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", "10")]);
    let before = Scrape::of(&server).await;
    let mut clients = Vec::new();
    for number in 0..9 {
        clients.push(server.thing("mqtt", &format!("mower-{number}")).await);
    }
    for _ in 0..4 {
        assert!(Client::connect(&server.thing_url("mqtt", "late")).await.is_err());
    }
    let after = Scrape::of(&server).await;
    fires("Tr50dConnectionsNearLimit", std::slice::from_ref(&after));
    fires("Tr50dConnectionsRefused", &[before, after]);
}

#[tokio::test]
async fn a_pool_that_is_nearly_used_up_and_refuses() {
    let server = TestServer::with(&[("TR50D_LIMITS__SESSIONS", "16")]);
    let before = Scrape::of(&server).await;
    let mut refused = 0;
    for number in 0..20 {
        let login = format!(
            r#"{{"auth":{{"command":"api.authenticate","params":{{"thingKey":"t-{number}","appToken":"demo-token-basicorg","appId":""}}}}}}"#
        );
        refused += u32::from(post(&server, &login).await.contains(r#""success":false"#));
    }
    assert!(refused > 0);
    let after = Scrape::of(&server).await;
    fires("Tr50dPoolNearlyFull", std::slice::from_ref(&after));
    fires("Tr50dPoolRefuses", &[before, after]);
}

#[tokio::test]
async fn subscribers_that_do_not_keep_up() {
    let server = TestServer::start();
    let before = Scrape::of(&server).await;
    let mut slow = Connect::thing(V311, "mower-1").open(&server).await;
    assert_eq!(slow.subscribe("many/#", 0).await, 0);
    let mut publisher = Connect::thing(V311, "mower-2").open(&server).await;
    let payload = "x".repeat(60_000);
    eventually("messages are lost", async || {
        for _ in 0..50 {
            publisher.tell("many/messages", &payload).await;
        }
        Scrape::of(&server).await.0["tr50d_broker_messages_dropped_total"].0 > 20.0
    })
    .await;
    fires("Tr50dMessagesDropped", &[before, Scrape::of(&server).await]);
}

#[tokio::test]
async fn a_certificate_near_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let end = Timestamp::now().plus_seconds(5 * 86_400).to_string();
    let mut date = end.split(['-', 'T']).map(|part| part.parse().expect("a number"));
    let mut next = || date.next().expect("a date");
    let (year, month, day): (i32, i32, i32) = (next(), next(), next());
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(year, month as u8, day as u8);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let cert = write("cert.pem", certificate.pem());
    let key = write("key.pem", key.serialize_pem());
    let server = TestServer::with(&[
        ("TR50D_TLS__CERT", &cert),
        ("TR50D_TLS__KEY", &key),
        ("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:0"),
    ]);
    fires("Tr50dCertificateEnds", &[Scrape::of(&server).await]);
}

#[tokio::test]
async fn open_files_near_the_limit() {
    let server = TR50D.start(&[]);
    let open = Scrape::of(&server).await.0["process_open_fds"].0 as u64;
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a pid")).expect("a process");
    // Connections can't bring it there: who leaks files can.
    let most = Rlimit { current: Some(open + 1), maximum: Some(open + 1) };
    prlimit(Some(pid), Resource::Nofile, most).expect("of its own process");
    fires("Tr50dFilesNearLimit", &[Scrape::of(&server).await]);
}

#[tokio::test]
async fn webhooks_that_fail_and_are_switched_off() {
    let server = TestServer::with(&[("TR50D_WEBHOOKS__ALLOW_PRIVATE", "true")]);
    let mut operator = server.operator("http").await;
    let receiver = Receiver::start().await;
    receiver.answers(&["500 Sorry", "410 Gone"]);
    let hook = json!({ "name": "a", "url": receiver.url("/"), "types": "role" });
    call(&mut operator, "webhook.create", &hook.to_string()).await;
    call(&mut operator, "role.create", r#"{"key":"watcher"}"#).await;
    let has = async |sample: &str| Scrape::of(&server).await.0[sample].0 == 1.0;
    eventually("it fails", async || has("tr50d_webhooks_failing").await).await;
    fires("Tr50dWebhooksFail", &[Scrape::of(&server).await]);
    eventually("it is off", async || has("tr50d_webhooks_switched_off").await).await;
    fires("Tr50dWebhookOff", &[Scrape::of(&server).await]);
}
