//! Clients that were not made for this server: mosquitto's, netcat, curl. They run when
//! `TR50D_TEST_CLIENTS` is set, as `tests/run` does after installing them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Endpoints, SOON, TestServer, call, eventually};

use super::files::noise;
use crate::TR50D;

/// Whether the clients are wanted; then one that is missing fails its test.
pub(crate) fn wanted() -> bool {
    let wanted = std::env::var_os("TR50D_TEST_CLIENTS").is_some();
    if !wanted {
        eprintln!("TR50D_TEST_CLIENTS is not set: no outside client is run");
    }
    wanted
}

/// What a test runs, with its standard input, within [`SOON`].
fn output(mut command: Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    // A client that does not want it all may have gone.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let (sender, receiver) = channel();
    let pid = child.id();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(SOON) {
        Ok(output) => output.expect("its output"),
        Err(_) => {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            panic!("{shown} does not end");
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The output of a client that has to do well.
fn succeeds(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = output(command, b"");
    assert!(output.status.success(), "{shown}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// One of mosquitto's clients with a login.
fn mosquitto(program: &str, server: &Endpoints, login: (&str, &str), args: &[&str]) -> Command {
    let address = server.address("mqtt");
    let mut command = Command::new(program);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-u", login.0, "-P", login.1]).args(args);
    command
}

const MOWER: (&str, &str) = ("mower-1", "demo-token-basicorg");
const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const YORK: (&str, &str) = ("mower-1", "demo-token-yorkorg");

/// A client that runs, and the lines that it prints. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts it, with what it is told by.
    pub(crate) fn start_telling(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Self::spawn(command);
        let input = running.child.stdin.take().expect("piped");
        (running, input)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("a line")
    }

    /// The next line within this time; none if it has ended.
    pub(crate) fn line_within(&self, wait: Duration) -> Option<String> {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing"),
        }
    }

    /// Waits for its end, without another line.
    pub(crate) fn ends_well(mut self) {
        let more = self.lines.recv_timeout(SOON);
        assert_eq!(more, Err(RecvTimeoutError::Disconnected));
        assert!(self.child.wait().expect("a status").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `mosquitto_sub` that is subscribed.
struct Subscriber(Running);

impl Subscriber {
    /// `args` without `-d`, by which it is seen that the subscription stands.
    fn start(server: &Endpoints, login: (&str, &str), args: &[&str]) -> Self {
        // Line by line: into a pipe, its words about itself would wait for a full buffer.
        let mut command = Command::new("stdbuf");
        let subscribe = mosquitto("mosquitto_sub", server, login, args);
        command.arg("-oL").arg(subscribe.get_program()).args(subscribe.get_args());
        command.arg("-d");
        let mut subscriber = Self(Running::start(command));
        subscriber.until("SUBACK");
        subscriber
    }

    /// The line that contains a text.
    fn until(&mut self, part: &str) -> String {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.0.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(error) => panic!("{error}: no line with {part:?}"),
            }
        }
    }

    /// The next line that is a message, not a word of the client about itself.
    fn message(&mut self) -> String {
        loop {
            let line = self.0.lines.recv_timeout(SOON).expect("a message");
            if !is_debug(&line) {
                return line;
            }
        }
    }

    /// Nothing more has come when the other side has been heard of.
    fn has_nothing(&mut self) {
        loop {
            match self.0.lines.recv_timeout(Duration::from_millis(300)) {
                Ok(line) => assert!(is_debug(&line), "one more message: {line}"),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("mosquitto_sub has ended"),
            }
        }
    }
}

fn is_debug(line: &str) -> bool {
    line.starts_with("Client ") || line.starts_with("Subscribed ")
}

/// What `sh` prints for a line.
fn shell(line: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    succeeds(command)
}

#[test]
fn the_three_commands_that_the_demo_prints_work_as_they_stand() {
    if !wanted() {
        return;
    }
    let server = TR50D.start(&[]);
    let check = |program: &str, kind: &str, whose: &str, protocol: &str| {
        let printed = server.lines().iter().map(|line| line.trim());
        let line = printed.filter(|line| line.contains(program)).collect::<Vec<_>>();
        let [line] = line[..] else { panic!("{program}: {line:?}") };
        // Twice: nothing of the first time may be in the way.
        for _ in 0..2 {
            let reply: Value = serde_json::from_str(&shell(line)).expect("one JSON value");
            let list = &reply["cmd"]["params"];
            assert_eq!(reply["cmd"]["success"], true, "{line}: {reply}");
            assert_eq!(list["result"][0][kind], whose, "{line}: {reply}");
            assert_eq!(list["result"][0]["connInfo"]["protocol"], protocol, "{line}: {reply}");
            assert!(list["count"].as_u64() >= Some(1), "{line}: {reply}");
        }
    };
    check("mosquitto_rr ", "thingKey", "mower-1", "mqtt");
    check("| nc ", "thingKey", "gateway-1", "tcp");
    check("curl ", "userName", "operator@basicorg.example", "http");
}

#[test]
fn mosquitto_rr_gets_its_answer_with_every_version_and_quality() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for (qos, number) in [("0", "1"), ("1", "0002"), ("2", "0000003")] {
            for login in [MOWER, OPERATOR] {
                let (api, answer) = (format!("api/{number}"), format!("reply/{number}"));
                let ask = r#"{"cmd":{"command":"session.info"}}"#;
                let args = ["-V", version, "-q", qos, "-t", &api, "-e", &answer, "-m", ask];
                let printed = succeeds(mosquitto("mosquitto_rr", &server, login, &args));
                let reply: Value = serde_json::from_str(&printed).expect("one JSON value");
                assert_eq!(reply["cmd"]["params"]["whoAmI"], login.0, "{version} {qos}: {reply}");
            }
        }
    }
}

#[test]
fn mosquitto_sub_sees_the_replies_of_a_mosquitto_pub_with_its_login() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut strangers = [("mower-2", MOWER.1), YORK, OPERATOR]
        .map(|login| Subscriber::start(&server, login, &["-t", "reply/#"]));
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1"] {
            let own = ["-V", version, "-t", "reply/#", "-q", qos, "-v"];
            let mut subscriber = Subscriber::start(&server, MOWER, &own);
            for number in ["1", "0001", "x/y"] {
                let topic = format!("api/{number}");
                let ask = format!(r#"{{"{number}":{{"command":"diag.ping"}}}}"#);
                let args = ["-V", version, "-q", qos, "-t", &topic, "-m", &ask];
                succeeds(mosquitto("mosquitto_pub", &server, MOWER, &args));
                let expected = format!(r#"reply/{number} {{"{number}":{{"success":true}}}}"#);
                assert_eq!(subscriber.message(), expected, "{version} {qos}");
            }
            subscriber.has_nothing();
        }
    }
    strangers.iter_mut().for_each(Subscriber::has_nothing);
}

#[test]
fn ordinary_topics_reach_every_version_inside_the_organisation() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let versions = ["mqttv31", "mqttv311", "mqttv5"];
    for (filter, qos) in [("plant/#", "0"), ("plant/+/heat", "1")] {
        let mut subscribers = versions.map(|version| {
            let args = ["-V", version, "-q", qos, "-v", "-t", filter];
            Subscriber::start(&server, OPERATOR, &args)
        });
        let mut outsider = Subscriber::start(&server, YORK, &["-t", "#"]);
        for version in versions {
            for published in ["0", "1", "2"] {
                let message = format!("{version} with {published}");
                let args = ["-V", version, "-q", published, "-t", "plant/7/heat", "-m", &message];
                succeeds(mosquitto("mosquitto_pub", &server, MOWER, &args));
                for subscriber in &mut subscribers {
                    assert_eq!(subscriber.message(), format!("plant/7/heat {message}"));
                }
            }
        }
        subscribers.iter_mut().for_each(Subscriber::has_nothing);
        outsider.has_nothing();
    }
}

#[test]
fn lines_of_mosquitto_pub_come_in_order() {
    if !wanted() {
        return;
    }
    const LINES: usize = 500;
    let server = TestServer::start();
    for qos in ["0", "1"] {
        let mut subscriber = Subscriber::start(&server, OPERATOR, &["-t", "log", "-q", qos]);
        let lines: String = (0..LINES).map(|number| format!("line {number}\n")).collect();
        let publish = mosquitto("mosquitto_pub", &server, MOWER, &["-t", "log", "-q", qos, "-l"]);
        let published = output(publish, lines.as_bytes());
        assert!(published.status.success(), "{}", text(&published.stderr));
        for number in 0..LINES {
            assert_eq!(subscriber.message(), format!("line {number}"), "QoS {qos}");
        }
        subscriber.has_nothing();
    }
}

#[test]
fn retained_messages_wait_for_mosquitto_sub_until_they_are_cleared() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let publish = |version: &str, more: &[&str]| {
        let args = [&["-V", version, "-q", "1", "-r", "-t", "state/door"], more].concat();
        succeeds(mosquitto("mosquitto_pub", &server, MOWER, &args));
    };
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        publish(version, &["-m", "open"]);
        publish(version, &["-m", "closed"]);
        for reader in ["mqttv31", "mqttv311", "mqttv5"] {
            let args = ["-V", reader, "-t", "state/+", "-C", "1", "-F", "%r %t %p"];
            let read = mosquitto("mosquitto_sub", &server, OPERATOR, &args);
            assert_eq!(succeeds(read), "1 state/door closed\n", "{version} to {reader}");
        }
        let mut elsewhere = Subscriber::start(&server, YORK, &["-t", "state/+"]);
        elsewhere.has_nothing();
        publish(version, &["-n"]);
        let mut late = Subscriber::start(&server, OPERATOR, &["-t", "state/+"]);
        late.has_nothing();
    }
}

#[test]
fn the_will_of_mosquitto_sub_is_published_when_it_is_killed_and_not_when_it_leaves() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut watcher = Subscriber::start(&server, OPERATOR, &["-t", "gone/#", "-v", "-q", "1"]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let topic = format!("gone/{version}");
        let will = ["--will-topic", &topic, "--will-payload", "farewell", "--will-qos", "1"];
        let args = [&["-V", version, "-t", "any"][..], &will].concat();
        drop(Subscriber::start(&server, MOWER, &args));
        assert_eq!(watcher.message(), format!("{topic} farewell"));
        // It leaves by itself after a message; stopped by a signal it sometimes hangs.
        let leaves = [&args[..], &["-C", "1"]].concat();
        let mut leaving = Subscriber::start(&server, MOWER, &leaves);
        succeeds(mosquitto("mosquitto_pub", &server, MOWER, &["-t", "any", "-m", "go"]));
        assert_eq!(leaving.message(), "go");
        leaving.until("DISCONNECT");
        watcher.has_nothing();
    }
}

#[test]
fn a_login_that_is_refused_shows_in_the_exit_status() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let check = |version: &str, login: Option<(&str, &str)>, code: i32| {
        let address = server.address("mqtt");
        for program in ["mosquitto_pub", "mosquitto_sub"] {
            let mut command = Command::new(program);
            command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
            command.args(["-V", version, "-t", "plant/7"]);
            if let Some((user, password)) = login {
                command.args(["-u", user, "-P", password]);
            }
            if program == "mosquitto_pub" {
                command.args(["-m", "x"]);
            }
            let output = output(command, b"");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{program} {version} {login:?}: {said}");
            assert!(!said.is_empty(), "{program} {version} {login:?}");
        }
    };
    let wrong =
        [("mower-1", "wrong-token"), ("operator@basicorg.example", "wrong"), ("no@body", "x")];
    for login in wrong {
        // The CONNACK's own codes: 4 is "bad user name or password", 134 the same in MQTT 5.
        check("mqttv31", Some(login), 4);
        check("mqttv311", Some(login), 4);
        check("mqttv5", Some(login), 134);
    }
    check("mqttv311", None, 5);
    check("mqttv5", None, 135);
}

#[test]
fn netcat_talks_line_by_line_or_in_one_go() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let address = server.address("tcp");
    let login = r#""appId":"a","appToken":"demo-token-basicorg","thingKey":"nc-1""#;
    let login = format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{login}}}}}}}"#);
    let ping = |key: &str| format!(r#"{{"{key}":{{"command":"diag.ping"}}}}"#);
    let check = |input: &str| {
        // -N: its end of input is told to the server, which answers all the same.
        let mut nc = Command::new("nc");
        nc.args(["-N", &address.ip().to_string(), &address.port().to_string()]);
        let output = output(nc, input.as_bytes());
        assert!(output.status.success(), "{input}: {}", text(&output.stderr));
        let replies = text(&output.stdout).to_owned();
        let lines: Vec<&str> = replies.lines().collect();
        assert_eq!(lines.len(), 3, "{input}: {replies}");
        assert!(lines[0].starts_with(r#"{"auth":{"success":true"#), "{input}: {replies}");
        assert_eq!(lines[1..], [r#"{"a":{"success":true}}"#, r#"{"b":{"success":true}}"#]);
    };
    let (a, b) = (ping("a"), ping("b"));
    check(&format!("{login}\n{a}\n{b}\n"));
    check(&format!("{login}\r\n\r\n{a}\r\n{b}"));
    check(&format!("{login}{a}{b}"));
}

#[test]
fn curl_gets_what_real_clients_ask_for() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let address = server.address("http");
    let curl = |args: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail"]).args(args).arg(format!("http://{address}{path}"));
        succeeds(curl)
    };
    let login = r#""username":"operator@basicorg.example","password":"demo-operator-password""#;
    let login = format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{login}}}}}}}"#);
    for version in ["--http1.0", "--http1.1"] {
        let reply: Value =
            serde_json::from_str(&curl(&[version, "-d", &login], "/api")).expect("JSON");
        let session = reply["auth"]["params"]["sessionId"].as_str().expect("an id").to_owned();
        assert_eq!(session.len(), 24);
        let header = format!("sessionId: {session}");
        let format = "%{http_code} %{content_type}";
        for (kind, body) in [
            ("Content-Type:", r#"{"1":{"command":"diag.ping"}}"#),
            ("Content-Type: text/plain", r#"{"1":{"command":"DIAG.PING","params":[]}}trailing"#),
            ("Content-Type: application/json", r#"{"1":{"command":"diag.ping","params":null}}"#),
        ] {
            let args = [version, "-H", &header, "-H", kind, "-w", format, "-d", body];
            let printed = curl(&args, "/api");
            assert_eq!(printed, r#"{"1":{"success":true}}200 application/json"#, "{body}");
        }
        let end = r#"{"1":{"command":"session.end"}}"#;
        assert_eq!(curl(&["-H", &header, "-d", end], "/api"), r#"{"1":{"success":true}}"#);
        let gone = curl(&["-H", &header, "-d", end, "-w", format], "/api");
        assert!(gone.starts_with(r#"{"success":false,"errorCodes":[-90000],"#), "{gone}");
        assert!(gone.contains("Authentication session is invalid: Error: Session "), "{gone}");
        assert!(gone.ends_with("200 application/json"), "{gone}");
    }
    assert!(curl(&[], "/metrics").contains("# TYPE "));
    for path in ["/healthz", "/readyz", "/"] {
        curl(&[], path);
    }
    let user = ["--data-urlencode", "username=operator@basicorg.example"];
    let password = ["--data-urlencode", "password=demo-operator-password"];
    let session = curl(&[user, password].concat(), "/rest/auth");
    assert_eq!(session.trim().len(), 24, "{session}");
    let session = format!("sessionId={}", session.trim());
    let list = curl(&["-d", &session], "/rest/_/session.list/");
    assert!(list.starts_with(r#"{"success":true,"params":{"count":"#), "{list}");
}

#[tokio::test]
async fn curl_moves_files_there_and_back() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut mower = server.thing("mqtt", "mower-1").await;
    let address = server.address("http");
    let dir = tempfile::tempdir().expect("a directory");
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let bytes = noise(3_000_000);
    std::fs::write(&there, &bytes).expect("written");
    let data = format!("@{}", there.display());
    // A form is announced with `Expect: 100-continue` when it is large; -T puts, in chunks or not.
    let there = there.to_str().expect("text");
    let ways: [&[&str]; 4] = [
        &["--data-binary", &data],
        &["-T", there],
        &["-T", there, "-H", "Transfer-Encoding: chunked"],
        &["-T", there, "-X", "POST", "--http1.0"],
    ];
    for way in ways {
        let put = call(&mut mower, "file.put", r#"{"fileName":"a"}"#).await;
        let get = async |mower: &mut _| call(mower, "file.get", r#"{"fileName":"a"}"#).await;
        let url = |ticket: &Value| {
            format!("http://{address}/file/{}", ticket["fileId"].as_str().expect("an id"))
        };
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body"]).args(way).arg(url(&put));
        assert_eq!(succeeds(curl), "", "{way:?}");
        // The first part, and the rest as curl resumes: behind what the file has.
        let offer = get(&mut mower).await;
        for range in [["-r", "0-1234566"], ["-C", "-"]] {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--fail"]).args(range).arg("-o").arg(&back).arg(url(&offer));
            succeeds(curl);
        }
        assert!(std::fs::read(&back).expect("written") == bytes, "{way:?}");
        std::fs::remove_file(&back).expect("there");
    }
}

#[tokio::test]
async fn an_operator_sees_who_came_with_mosquitto_and_that_they_went() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let subscriber = Subscriber::start(&server, MOWER, &["-t", "any", "-i", "mower-app"]);
    let filter = r#"{"thingKey":"mower-1","status":"ALL"}"#;
    let list = call(&mut operator, "session.list", filter).await;
    assert_eq!((&list["count"], &list["result"][0]["status"]), (&1.into(), &Value::Null));
    drop(subscriber);
    eventually("the session has ended", async || {
        let list = call(&mut operator, "session.list", filter).await;
        list["result"][0]["endReason"] == "connection_lost"
    })
    .await;
}

#[test]
fn mosquitto_sub_is_told_of_changes_of_things() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let all = ["-V", version, "-t", "thing/+/property/+", "-q", "1", "-v"];
        let one = ["-V", version, "-t", "thing/mower-1/alarm/door", "-v"];
        let mut all = Subscriber::start(&server, OPERATOR, &all);
        let mut one = Subscriber::start(&server, OPERATOR, &one);
        let mut york = Subscriber::start(&server, YORK, &["-t", "thing/#", "-v"]);
        for (topic, value) in
            [("thing/self/property/temp", "21.5"), ("thing/mower-1/alarm/door", "2")]
        {
            let args = ["-V", version, "-q", "1", "-t", topic, "-m", value];
            succeeds(mosquitto("mosquitto_pub", &server, MOWER, &args));
        }
        assert_eq!(all.message(), "thing/mower-1/property/temp 21.5", "{version}");
        assert_eq!(one.message(), "thing/mower-1/alarm/door 2", "{version}");
        // The same state again is not told; the next values are the next that come.
        let args = ["-V", version, "-q", "2", "-t", "thing/self/alarm/door", "-m", "0"];
        succeeds(mosquitto("mosquitto_pub", &server, MOWER, &args));
        assert_eq!(one.message(), "thing/mower-1/alarm/door 0", "{version}");
        all.has_nothing();
        york.has_nothing();
    }
}
