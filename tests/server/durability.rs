//! What survives the end of the server: `kill -9`, and a stop in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{ClientError, HttpConnection, Options, Target};
use parking_lot::Mutex;
use serde_json::Value;
use support::{ServerProcess, Signal, TestServer, call, connect, eventually};

use crate::TR50D;

const OPERATOR: &str =
    r#""username":"operator@basicorg.example","password":"demo-operator-password""#;
const ADMIN: &str = r#""username":"admin@devicewise.com","password":"demo-admin-password""#;

/// A server with a directory that outlives it.
struct Phoenix {
    server: ServerProcess,
    data_dir: PathBuf,
    settings: &'static [(&'static str, &'static str)],
    _dir: tempfile::TempDir,
}

impl Phoenix {
    fn with(settings: &'static [(&'static str, &'static str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("data");
        let server = TR50D.serve(&data_dir, settings);
        Self { server, data_dir, settings, _dir: dir }
    }

    fn start() -> Self {
        Self::with(&[])
    }

    /// Ends the server with a signal and starts it again in the same directory.
    async fn rise_from(&mut self, signal: Signal) {
        self.end(signal).await;
        self.rise();
    }

    async fn end(&mut self, signal: Signal) {
        self.server.end(signal).await;
    }

    fn rise(&mut self) {
        self.server = TR50D.serve(&self.data_dir, self.settings);
    }

    async fn post(&self, body: &str) -> Value {
        Http::open(self.server.address("http")).await.post(body).await
    }

    async fn login(&self, credentials: &str) -> String {
        Http::open(self.server.address("http")).await.login(credentials).await
    }

    async fn info(&self, session: &str) -> Value {
        let reply = self.post(&in_session(session, "session.info", "{}")).await;
        assert_eq!(reply["cmd"]["success"], true, "{reply}");
        reply["cmd"]["params"].clone()
    }

    /// The session's id is refused as that of a session that is gone.
    async fn assert_gone(&self, session: &str) {
        let reply = self.post(&in_session(session, "session.info", "{}")).await;
        assert_eq!(reply["success"], false, "{reply}");
        assert_eq!(reply["errorCodes"][0], -90000, "{reply}");
    }

    /// Sessions of BasicOrg with this status, by their refs.
    async fn list(&self, status: &str) -> BTreeMap<String, Value> {
        let mut operator = self.server.operator("tcp").await;
        let params = format!(r#"{{"status":"{status}"}}"#);
        let list = call(&mut operator, "session.list", &params).await;
        let sessions = list["result"].as_array().expect("sessions");
        let by_ref: BTreeMap<_, _> =
            sessions.iter().map(|s| (text(&s["ref"]), s.clone())).collect();
        assert_eq!(list["count"], by_ref.len(), "each is listed once: {list}");
        by_ref
    }
}

/// A connection without a login.
struct Http(HttpConnection);

impl Http {
    async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("a connection")
    }

    async fn try_open(address: SocketAddr) -> Result<Self, ClientError> {
        let url = format!("http://{address}").parse().expect("a URL");
        let target = Target::resolve(&url).await?;
        HttpConnection::open(&target, &url, &Options::default()).await.map(Self)
    }

    async fn try_post(&mut self, body: &str) -> Result<Value, ClientError> {
        let reply = self.0.post(body.to_owned().into()).await?;
        Ok(serde_json::from_slice(&reply).expect("JSON"))
    }

    async fn post(&mut self, body: &str) -> Value {
        self.try_post(body).await.expect("a reply")
    }

    async fn try_login(&mut self, credentials: &str) -> Result<String, ClientError> {
        let body =
            format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{credentials}}}}}}}"#);
        let reply = self.try_post(&body).await?;
        assert_eq!(reply["auth"]["success"], true, "{reply}");
        Ok(text(&reply["auth"]["params"]["sessionId"]))
    }

    async fn login(&mut self, credentials: &str) -> String {
        self.try_login(credentials).await.expect("a reply")
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn thing(key: &str) -> String {
    format!(r#""appId":"a","appToken":"demo-token-basicorg","thingKey":"{key}""#)
}

fn in_session(session: &str, command: &str, params: &str) -> String {
    let command = format!(r#"{{"command":"{command}","params":{params}}}"#);
    format!(r#"{{"auth":{{"sessionId":"{session}"}},"cmd":{command}}}"#)
}

/// What of a session may not change by a restart.
fn lasting(session: &Value) -> Value {
    let mut lasting = session.clone();
    for counter in ["commandCount", "lastAccessed"] {
        lasting.as_object_mut().expect("an object").remove(counter);
    }
    lasting
}

#[tokio::test]
async fn sessions_over_http_go_on_where_they_were() {
    let mut phoenix = Phoenix::start();
    let admin = phoenix.login(ADMIN).await;
    let mower = phoenix.login(&thing("mower-1")).await;
    for org in ["BasicOrg", "YorkOrg", "BasicOrg"] {
        let params = format!(r#"{{"key":"{org}"}}"#);
        let reply = phoenix.post(&in_session(&admin, "session.org.switch", &params)).await;
        assert_eq!(reply["cmd"]["success"], true, "{reply}");
    }
    let before = [phoenix.info(&admin).await, phoenix.info(&mower).await];
    assert_eq!(before[0]["orgSwitches"].as_array().map(Vec::len), Some(3));
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        phoenix.rise_from(signal).await;
        let listed = phoenix.list("ACTIVE").await;
        let after = [phoenix.info(&admin).await, phoenix.info(&mower).await];
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(lasting(after), lasting(before), "after {signal:?}");
            assert!(listed.contains_key(&text(&after["ref"])), "after {signal:?}");
        }
        // Counters are stored every few seconds, and with every switch: three of them here.
        assert!(after[0]["commandCount"].as_u64() >= Some(4), "{}", after[0]);
        assert!(after[0]["lastAccessed"].as_str() >= before[0]["startTime"].as_str());
    }
    let reply = phoenix.post(&in_session(&mower, "session.end", "{}")).await;
    assert_eq!(reply["cmd"]["success"], true, "{reply}");
}

#[tokio::test]
async fn a_stop_in_order_keeps_every_count() {
    let mut phoenix = Phoenix::start();
    let session = phoenix.login(&thing("counter")).await;
    for _ in 0..20 {
        phoenix.post(&in_session(&session, "diag.ping", "{}")).await;
    }
    let before = phoenix.info(&session).await;
    phoenix.rise_from(Signal::TERM).await;
    let after = phoenix.info(&session).await;
    assert_eq!(after["commandCount"].as_u64(), before["commandCount"].as_u64().map(|n| n + 1));
}

#[tokio::test]
async fn sessions_of_connections_are_shown_as_ended() {
    let mut phoenix = Phoenix::start();
    let mut clients = Vec::new();
    for (scheme, key) in [("mqtt", "m"), ("tcp", "t")] {
        clients.push(phoenix.server.thing(scheme, key).await);
    }
    phoenix.server.thing("mqtt", "left").await.close().await;
    let mut bound = BTreeSet::new();
    for client in &mut clients {
        bound.insert(text(&call(client, "session.info", "").await["ref"]));
    }
    // Durable, and with it all that came before.
    phoenix.login(&thing("last")).await;
    phoenix.end(Signal::KILL).await;
    for client in &mut clients {
        client.closed().await;
    }
    phoenix.rise();
    let first = phoenix.list("ENDED").await;
    for reference in &bound {
        let session = &first[reference];
        assert_eq!(session["status"], "LOGGED_OUT", "{session}");
        assert_eq!(session["endReason"], "server_stopped", "{session}");
        assert!(session["endTime"].as_str() >= session["startTime"].as_str(), "{session}");
    }
    let left =
        first.values().find(|session| session["thingKey"] == "left").expect("in the history");
    assert_eq!(left["endReason"], "logged_out", "{left}");
    let active = phoenix.list("ACTIVE").await;
    assert!(bound.iter().all(|reference| !active.contains_key(reference)), "{active:?}");
    for signal in [Signal::KILL, Signal::TERM] {
        phoenix.rise_from(signal).await;
        let again = phoenix.list("ENDED").await;
        for (reference, session) in &first {
            assert_eq!(again.get(reference), Some(session), "after {signal:?}");
        }
    }
}

#[tokio::test]
async fn what_was_ended_or_revoked_stays_so() {
    let mut phoenix = Phoenix::start();
    let operator = phoenix.login(OPERATOR).await;
    let [ended, revoked, kept] = ["ended", "revoked", "kept"].map(thing);
    let ended = phoenix.login(&ended).await;
    let revoked = phoenix.login(&revoked).await;
    let kept = phoenix.login(&kept).await;
    let references =
        [text(&phoenix.info(&ended).await["ref"]), text(&phoenix.info(&revoked).await["ref"])];
    let by_ref = format!(r#"{{"ref":"{}"}}"#, references[1]);
    for (caller, params) in [(&ended, "{}"), (&operator, by_ref.as_str())] {
        let reply = phoenix.post(&in_session(caller, "session.end", params)).await;
        assert_eq!(reply["cmd"]["success"], true, "{reply}");
    }
    for signal in [Signal::KILL, Signal::KILL, Signal::TERM, Signal::KILL] {
        phoenix.rise_from(signal).await;
        phoenix.assert_gone(&ended).await;
        phoenix.assert_gone(&revoked).await;
        phoenix.info(&kept).await;
        let history = phoenix.list("ALL").await;
        let status = references.each_ref().map(|reference| text(&history[reference]["status"]));
        assert_eq!(status, ["LOGGED_OUT", "REVOKED"], "after {signal:?}");
    }
}

#[tokio::test]
async fn registered_things_keep_their_ids() {
    let mut phoenix = Phoenix::start();
    let mut ids = BTreeMap::new();
    for (scheme, key) in [("mqtt", "by-mqtt"), ("tcp", "by-tcp"), ("http", "by-http")] {
        let mut client = phoenix.server.thing(scheme, key).await;
        let found = call(&mut client, "thing.find", &format!(r#"{{"key":"{key}"}}"#)).await;
        ids.insert(key, text(&found["id"]));
    }
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
    for _ in 0..2 {
        phoenix.rise_from(Signal::KILL).await;
        let mut operator = phoenix.server.operator("mqtt").await;
        for (key, id) in &ids {
            // Logging in again must not register it again.
            connect(&phoenix.server.thing_url("mqtt", key)).await.close().await;
            let found = call(&mut operator, "thing.find", &format!(r#"{{"key":"{key}"}}"#)).await;
            assert_eq!(found["id"], id.as_str(), "{key}");
        }
        assert_eq!(call(&mut operator, "thing.list", "").await["count"], 3);
    }
}

/// What the server has acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// Logins, with whether an end was asked for.
    sessions: Mutex<BTreeMap<String, Fate>>,
    count: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Lives,
    /// An end was asked for and not acknowledged: both are right.
    Uncertain,
    Ended,
}

impl Acknowledged {
    fn note(&self, session: &str, fate: Fate) {
        self.sessions.lock().insert(session.to_owned(), fate);
        if fate != Fate::Uncertain {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Logs in, and ends every second session, until the server is gone.
async fn log_in_and_out(address: SocketAddr, key: String, acknowledged: Arc<Acknowledged>) {
    let load = async {
        let mut http = Http::try_open(address).await?;
        loop {
            let stays = http.try_login(&thing(&key)).await?;
            acknowledged.note(&stays, Fate::Lives);
            let goes = http.try_login(&thing(&key)).await?;
            acknowledged.note(&goes, Fate::Uncertain);
            let reply = http.try_post(&in_session(&goes, "session.end", "{}")).await?;
            assert_eq!(reply["cmd"]["success"], true, "{reply}");
            acknowledged.note(&goes, Fate::Ended);
        }
    };
    let end: Result<(), ClientError> = load.await;
    assert!(end.is_err(), "only the server's end ends the load");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again() {
    const KILLS: usize = 10;
    const EACH: usize = 150;
    const CLIENTS: usize = 8;
    let mut phoenix = Phoenix::start();
    let acknowledged = Arc::new(Acknowledged::default());
    for round in 1..=KILLS {
        let address = phoenix.server.address("http");
        let load: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let key = format!("load-{number}");
                tokio::spawn(log_in_and_out(address, key, acknowledged.clone()))
            })
            .collect();
        eventually("enough is acknowledged", async || {
            acknowledged.count.load(Ordering::Relaxed) >= round * EACH
        })
        .await;
        phoenix.end(Signal::KILL).await;
        for client in load {
            client.await.expect("the load went as it should");
        }
        phoenix.rise();
        verify(&phoenix, &acknowledged).await;
    }
}

async fn verify(phoenix: &Phoenix, acknowledged: &Acknowledged) {
    let sessions = acknowledged.sessions.lock().clone();
    let mut http = Http::open(phoenix.server.address("http")).await;
    for (session, fate) in sessions {
        let reply = http.post(&in_session(&session, "diag.ping", "{}")).await;
        let lives = reply["cmd"]["success"] == true;
        match fate {
            Fate::Lives => assert!(lives, "a login is lost: {reply}"),
            Fate::Ended => assert!(!lives, "an ended session is back: {reply}"),
            Fate::Uncertain => {
                // From now on it is what it is.
                let fate = if lives { Fate::Lives } else { Fate::Ended };
                acknowledged.sessions.lock().insert(session, fate);
            }
        }
    }
}

#[tokio::test]
async fn idle_time_goes_on_while_the_server_is_away() {
    let mut phoenix = Phoenix::with(&[("TR50D_SESSIONS__TTL_S", "1")]);
    let session = phoenix.login(&thing("idle")).await;
    let reference = text(&phoenix.info(&session).await["ref"]);
    phoenix.end(Signal::KILL).await;
    // The passing of the time is what this is about.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    phoenix.rise();
    phoenix.assert_gone(&session).await;
    let ended = &phoenix.list("ENDED").await[&reference];
    assert_eq!((&ended["status"], &ended["endReason"]), (&"EXPIRED".into(), &"idle".into()));
    phoenix.rise_from(Signal::KILL).await;
    phoenix.assert_gone(&session).await;
}

#[tokio::test]
async fn the_longest_age_counts_from_the_login_across_restarts() {
    let settings = &[("TR50D_SESSIONS__TTL_S", "2"), ("TR50D_SESSIONS__MAX_AGE_S", "2")];
    let mut phoenix = Phoenix::with(settings);
    let session = phoenix.login(&thing("busy")).await;
    let reference = text(&phoenix.info(&session).await["ref"]);
    phoenix.rise_from(Signal::KILL).await;
    eventually("the session is too old", async || {
        // Used all the time, it is never idle.
        let reply = phoenix.post(&in_session(&session, "diag.ping", "{}")).await;
        reply["success"] == false
    })
    .await;
    for _ in 0..2 {
        let ended = &phoenix.list("ENDED").await[&reference];
        assert_eq!((&ended["status"], &ended["endReason"]), (&"EXPIRED".into(), &"max_age".into()));
        phoenix.rise_from(Signal::KILL).await;
        phoenix.assert_gone(&session).await;
    }
}

#[test]
fn only_its_owner_can_read_the_state() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("tr50d.toml");
    let bootstrap = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.toml");
    std::fs::write(&config, format!("[server]\nbootstrap = {bootstrap:?}\n")).expect("written");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o077;
    for args in
        [vec!["serve", "--config", config.to_str().expect("UTF-8")], vec!["serve", "--demo"]]
    {
        let data_dir = dir.path().join(args[1]);
        let mut serve = std::process::Command::new(env!("CARGO_BIN_EXE_tr50d"));
        serve.args(&args).env("TR50D_SERVER__DATA_DIR", &data_dir);
        for listener in ["MQTT", "TCP", "HTTP"] {
            serve.env(format!("TR50D_{listener}__LISTEN"), "127.0.0.1:0");
        }
        let _server = ServerProcess::spawn(serve);
        assert_eq!(mode(&data_dir), 0);
    }
}

#[tokio::test]
async fn the_secret_of_a_session_is_not_on_disk() {
    let server = TestServer::start();
    let session = Http::open(server.address("http")).await.login(&thing("secret")).await;
    // Sockets hold nothing.
    for entry in walk(server.data_dir()).into_iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(&entry).expect("readable");
        let found = bytes.windows(session.len()).any(|window| window == session.as_bytes());
        assert!(!found, "the session's id is in {}", entry.display());
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
