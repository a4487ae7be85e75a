//! Starts `tr50d serve` as a user would, on ports that the system chooses, and talks to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Url};
use serde_json::Value;

/// Long enough for anything that happens at once on a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The text of a failure with this code and message, which is written as in JSON.
macro_rules! failure {
    ($code:literal, $message:literal) => {
        concat!(
            r#"{"success":false,"errorCodes":["#,
            $code,
            r#"],"errorMessages":[""#,
            $message,
            r#""]}"#
        )
    };
}

pub(crate) use failure;

/// The failure of a refused login.
pub(crate) const LOGIN_REFUSED: &str =
    failure!(-95007, "Login refused: user name, password, thing key or token is not right.");

/// The failure of a request without a session.
pub(crate) const SESSION_MISSING: &str = failure!(
    -99999,
    "Authentication session is invalid: Error: Session id is missing; \
     send `auth` or the sessionId header."
);

/// A login of BasicOrg's administrator.
pub(crate) const OPERATOR_LOGIN: &str = concat!(
    r#"{"auth":{"command":"api.authenticate","params":{"#,
    r#""username":"operator@basicorg.example","password":"demo-operator-password"}}}"#
);

/// What a login is answered with that was refused.
pub(crate) fn login_refused() -> String {
    format!("{},\"auth\":{LOGIN_REFUSED}}}", LOGIN_REFUSED.trim_end_matches('}'))
}

/// Compares a reply; an `…` stands for anything.
pub(crate) fn assert_reply(reply: &str, expected: &str) {
    let matches = match expected.split_once('…') {
        Some((start, end)) => reply.starts_with(start) && reply.ends_with(end),
        None => reply == expected,
    };
    assert!(matches, "{reply}\nis not\n{expected}");
}

/// A running server in a process of its own. It is killed when this is dropped.
pub(crate) struct TestServer {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    /// What it wrote to standard output, `ready` included.
    pub lines: Vec<String>,
    /// Its data directory.
    pub data_dir: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl TestServer {
    /// A demo server without a limit of commands a second.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A demo server with more settings, such as `("TR50D_SESSIONS__TTL_S", "1")`.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("data");
        let mut server = Self::in_dir(&data_dir, settings);
        server._dir = Some(dir);
        server
    }

    /// A demo server whose state is in this directory.
    pub(crate) fn in_dir(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = command(data_dir, settings);
        command.stderr(Stdio::null());
        let mut server = Self::spawn(command);
        data_dir.clone_into(&mut server.data_dir);
        server
    }

    /// A demo server that writes its log to this file.
    pub(crate) fn logging(log: &Path, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("data");
        let mut command = command(&data_dir, settings);
        command.stderr(std::fs::File::create(log).expect("a file"));
        let mut server = Self::spawn(command);
        server.data_dir = data_dir;
        server._dir = Some(dir);
        server
    }

    /// What a command serves; its data directory is the caller's to know.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server's program");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (mut addresses, mut lines) = (BTreeMap::new(), Vec::new());
        for line in output.lines() {
            let line = line.expect("a line");
            lines.push(line.clone());
            if line == "ready" {
                let (data_dir, _dir) = (PathBuf::new(), None);
                return Self { child, addresses, lines, data_dir, _dir };
            }
            if let Some((name, address)) =
                line.strip_prefix("listening ").and_then(|rest| rest.split_once(' '))
            {
                addresses.insert(name.to_owned(), address.parse().expect("an address"));
            }
        }
        panic!("the server ended before it was ready: {:?}", child.wait());
    }

    /// The address of a listener: `mqtt`, `mqtts`, `tcp`, `tcps`, `http`, `https`.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// A URL with a login of the demo: a thing of BasicOrg.
    pub(crate) fn thing_url(&self, listener: &str, thing_key: &str) -> Url {
        self.url(listener, thing_key, "demo-token-basicorg")
    }

    /// A URL with a login.
    pub(crate) fn url(&self, listener: &str, user: &str, password: &str) -> Url {
        let user = user.replace('@', "%40");
        let url = format!("{listener}://{user}:{password}@{}", self.address(listener));
        url.parse().expect("a URL")
    }

    /// A connected client of BasicOrg's administrator.
    pub(crate) async fn operator(&self, listener: &str) -> Client {
        connect(&self.url(listener, "operator@basicorg.example", "demo-operator-password")).await
    }

    /// A connected client of the super administrator.
    pub(crate) async fn admin(&self, listener: &str) -> Client {
        connect(&self.url(listener, "admin@devicewise.com", "demo-admin-password")).await
    }

    /// A connected client of a thing of BasicOrg.
    pub(crate) async fn thing(&self, listener: &str, thing_key: &str) -> Client {
        connect(&self.thing_url(listener, thing_key)).await
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for the end of the process; the test's own tasks go on meanwhile.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(start.elapsed() < SOON, "the server does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that serves the demo from this directory, with free ports and more settings.
pub(crate) fn command(data_dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tr50d"));
    command
        .args(["serve", "--demo"])
        .env("TR50D_SERVER__DATA_DIR", data_dir)
        .env("TR50D_MQTT__LISTEN", "127.0.0.1:0")
        .env("TR50D_TCP__LISTEN", "127.0.0.1:0")
        .env("TR50D_HTTP__LISTEN", "127.0.0.1:0")
        .env("TR50D_LIMITS__COMMANDS_PER_S", "0")
        .envs(settings.iter().copied());
    command
}

/// Runs the program to its end; its status, standard output and standard error.
#[expect(clippy::disallowed_methods, reason = "a process does not say when it ends")]
pub(crate) fn run(mut command: Command) -> (ExitStatus, String, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let mut stream = stream.expect("piped");
            stream.read_to_string(&mut text).map(|_| text).expect("UTF-8")
        })
    };
    let out = read(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if start.elapsed() > SOON {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status, out.join().expect("read"), err.join().expect("read"))
}

/// A connected client.
pub(crate) async fn connect(url: &Url) -> Client {
    Client::connect(url).await.expect("a connection")
}

/// The reply to a command, which has to succeed: its `params`.
pub(crate) async fn call(client: &mut Client, command: &str, params: &str) -> Value {
    let reply = reply(client, command, params).await;
    assert_eq!(reply["success"], true, "{command} {params}: {reply}");
    reply["params"].clone()
}

/// The reply to a command, whatever it is.
pub(crate) async fn reply(client: &mut Client, command: &str, params: &str) -> Value {
    let params = if params.is_empty() { None } else { Some(params) };
    let reply = client.call(command, params).await.expect("a reply");
    serde_json::from_str(reply.as_json()).expect("JSON")
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
