//! Whatever ends the asker's own session, through every door: the reply comes, and then the
//! connection closes. What ends no session, or only those of others, leaves the asker's open.
//!
//! [`rows`] has what is asked. Each row is asked through each door, by somebody of its own whom the
//! bootstrap file made, so that one server serves many of them at once.

mod rows;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{SessionId, SessionRef, limits::EXPIRY_STEP};
use client::Version::{self, V5, V311};
use data_encoding::BASE64;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value};
use support::http::{log_in, send};
use support::mqtt::{Connect, frame, frame_length, text};
use support::replies::SESSION_GONE;
use support::{Endpoints, TOKEN, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use self::rows::{AN_ORG, Ask, Asked, End, IN_A_CROWD, Login, PING, ROWS, Row};
use crate::http::websocket;

/// For a connection to say something, or to close.
const WAIT: Duration = Duration::from_secs(10);

/// Rows that are asked at once. Each may wait for a password, and of one address eight may.
const AT_ONCE: usize = 6;

const PASSWORD: &str = "first-password";
/// A hash of [`PASSWORD`] that costs nothing.
const HASH: &str = concat!(
    "$argon2id$v=19$m=8,t=1,p=1$Z29vZGJ5ZXMtc2FsdC0wMA$",
    "tBwUVlyXNZ8kY8CLwI/ZEC1iREH4m0gZQMR3PJ0plo8"
);

/// How the asker's session is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door {
    /// Requests are published with this quality of service.
    Mqtt(Version, u8),
    WebSocket,
    Tcp,
    Api,
    Rest,
    /// At `/api`, with the id of a session that is bound to a connection of MQTT 5.
    ApiBesideMqtt,
}

const DOORS: [Door; 8] = [
    Door::Mqtt(V311, 0),
    Door::Mqtt(V311, 1),
    Door::Mqtt(V5, 1),
    Door::WebSocket,
    Door::Tcp,
    Door::Api,
    Door::Rest,
    Door::ApiBesideMqtt,
];

impl Door {
    /// Whether a row can be asked so.
    fn takes(self, row: &Row) -> bool {
        match (self, row.ask) {
            // One command a request.
            (Self::Rest, Ask::Tr50(commands)) => commands.len() == 1,
            (Self::Rest | Self::ApiBesideMqtt, Ask::Http(..)) => false,
            _ => true,
        }
    }
}

/// What placeholders stand for: `<n>` is a name, `<hex>` and `<number>` an id that nobody else has,
/// `<org>` is the key of the organisation; `<id>`, `<ref>` and `<uuid>` are the asker's session, `<other>` is the handle of the other one.
#[derive(Clone)]
struct Names(Vec<(&'static str, String)>);

impl Names {
    /// Those of the run with this number that are known from the beginning; it is in this
    /// organisation, or has one of its own.
    fn new(number: usize, org: Option<&str>) -> Self {
        let n = format!("g-{number:03}");
        let basic = format!("{n}@basicorg.example:{PASSWORD}");
        Self(vec![
            ("<hash>", HASH.to_owned()),
            ("<hex>", format!("{number:024x}")),
            ("<number>", number.to_string()),
            ("<basic>", BASE64.encode(basic.as_bytes())),
            ("<org>", org.unwrap_or(&n).to_owned()),
            ("<n>", n),
        ])
    }

    fn has_own_org(&self) -> bool {
        self.fill("<org>") == self.fill("<n>")
    }

    fn add(&mut self, name: &'static str, value: impl ToString) {
        self.0.push((name, value.to_string()));
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn login(&self, (user, password): Login) -> (String, String) {
        (self.fill(user), self.fill(password))
    }

    /// The members of a request, and the reply to it.
    fn request(&self, commands: &[Asked]) -> (String, String) {
        let member = |(number, (command, params, _)): (usize, &Asked)| match params.is_empty() {
            true => format!(r#""{number}":{{"command":"{command}"}}"#),
            false => format!(r#""{number}":{{"command":"{command}","params":{params}}}"#),
        };
        let members: Vec<_> = commands.iter().enumerate().map(member).collect();
        let reply = |(number, (_, _, reply)): (usize, &Asked)| format!(r#""{number}":{reply}"#);
        let replies: Vec<_> = commands.iter().enumerate().map(reply).collect();
        (self.fill(&members.join(",")), self.fill(&format!("{{{}}}", replies.join(","))))
    }
}

/// The public handle of the session with this id.
fn handle(id: &str) -> SessionRef {
    SessionRef::of(&SessionId::parse(id).expect("a session id"))
}

enum Socket {
    Plain(TcpStream),
    Web(Box<WebSocketStream<TcpStream>>),
}

/// A connection with a session of its own: packets of MQTT, or lines.
struct Line {
    socket: Socket,
    /// None: lines, one of them for each message that was not asked for.
    version: Option<Version>,
    qos: u8,
    input: Vec<u8>,
    /// The session's secret id.
    id: String,
}

impl Line {
    /// Connects and logs in.
    async fn open(server: &Endpoints, door: Door, (user, password): &(String, String)) -> Self {
        let (version, qos) = match door {
            Door::Mqtt(version, qos) => (Some(version), qos),
            Door::WebSocket => (Some(V311), 0),
            Door::ApiBesideMqtt => (Some(V5), 0),
            Door::Tcp | Door::Api | Door::Rest => (None, 0),
        };
        let socket = if door == Door::WebSocket {
            let opened = websocket(server, "/mqtt", Some("mqtt")).await;
            Socket::Web(Box::new(opened.expect("a WebSocket").0))
        } else {
            let address = server.address(if version.is_some() { "mqtt" } else { "tcp" });
            Socket::Plain(TcpStream::connect(address).await.expect("a connection"))
        };
        let mut line = Self { socket, version, qos, input: Vec::new(), id: String::new() };
        let (key, login) = match version {
            Some(version) => {
                line.send(&Connect::login(version, user, user, password).frame()).await;
                let connack = line.piece().await.expect("a CONNACK");
                assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
                line.send(&line.request(r#"{"0":{"command":"session.info"}}"#)).await;
                ("0", "id")
            }
            None => {
                let params = match user.contains('@') {
                    true => format!(r#""username":"{user}","password":"{password}""#),
                    false => format!(r#""thingKey":"{user}","appToken":"{password}","appId":"a""#),
                };
                let params = format!(r#"{{{params},"notify":true}}"#);
                let login = format!(r#"{{"command":"api.authenticate","params":{params}}}"#);
                line.send(&line.request(&format!(r#"{{"auth":{login}}}"#))).await;
                ("auth", "sessionId")
            }
        };
        if qos > 0 {
            line.piece().await.expect("a PUBACK");
        }
        let reply = line.piece().await.expect("a reply");
        let start = format!("{{\"{key}\"");
        let start = reply.windows(start.len()).position(|bytes| bytes == start.as_bytes());
        let reply: Value = serde_json::from_slice(&reply[start.expect("an object")..])
            .expect("JSON to the end of the reply");
        let id = reply[key]["params"][login].as_str();
        id.unwrap_or_else(|| panic!("{reply}")).clone_into(&mut line.id);
        line
    }

    /// Writes bytes. A connection that the server has closed takes them in silence.
    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Plain(stream) => drop(stream.write_all(bytes).await),
            Socket::Web(socket) => drop(socket.send(Message::Binary(bytes.to_vec().into())).await),
        }
    }

    /// Reads more; false at the end.
    async fn read(&mut self) -> bool {
        match &mut self.socket {
            Socket::Plain(stream) => {
                stream.read_buf(&mut self.input).await.is_ok_and(|count| count > 0)
            }
            Socket::Web(socket) => match socket.next().await {
                Some(Ok(message)) => {
                    if message.is_binary() {
                        self.input.extend_from_slice(&message.into_data());
                    }
                    true
                }
                Some(Err(_)) | None => false,
            },
        }
    }

    /// The next packet or line; none at the end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        loop {
            let length = match self.version {
                Some(_) => frame_length(&self.input),
                None => self.input.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
            };
            if let Some(length) = length {
                return Some(self.input.drain(..length).collect());
            }
            if !timeout(WAIT, self.read()).await.expect("something comes, or the end") {
                assert_eq!(self.input.escape_ascii().to_string(), "", "half a piece at the end");
                return None;
            }
        }
    }

    /// The bytes of a request.
    fn request(&self, request: &str) -> Vec<u8> {
        self.published("api/1", self.qos, request)
    }

    /// The pieces that come for a request.
    fn reply(&self, reply: &str) -> Vec<Vec<u8>> {
        let ack = (self.qos > 0).then(|| vec![0x40, 2, 0, 9]);
        ack.into_iter().chain([self.published("reply/1", 0, reply)]).collect()
    }

    /// A PUBLISH, or a line.
    fn published(&self, topic: &str, qos: u8, payload: &str) -> Vec<u8> {
        let Some(version) = self.version else { return format!("{payload}\n").into() };
        let pkid: &[u8] = if qos > 0 { &[0, 9] } else { &[] };
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        frame(0x30 | qos << 1, &[&text(topic), pkid, properties, payload.as_bytes()])
    }

    /// The pieces that come before the connection closes: MQTT 5 has a DISCONNECT, TCP a message
    /// for those who asked for such.
    fn goodbye(&self, end: End) -> Vec<Vec<u8>> {
        match (self.version, end) {
            (Some(V5), End::LoggedOut) => vec![vec![0xe0, 0]],
            (Some(V5), End::Revoked) => vec![vec![0xe0, 1, 0x98]],
            (Some(_), _) => Vec::new(),
            (None, end) => {
                let reason = match end {
                    End::LoggedOut => "logged_out",
                    End::Revoked => "revoked",
                };
                let payload = format!(r#"{{"ref":"{}","reason":"{reason}"}}"#, handle(&self.id));
                let notice = format!(r#"{{"topic":"session/end","payload":{payload}}}"#);
                vec![self.published("", 0, &format!(r#"{{"notify":{notice}}}"#))]
            }
        }
    }

    /// The next pieces have to be these.
    async fn expect(&mut self, pieces: &[Vec<u8>], what: &str) {
        let mut seen = Vec::new();
        while seen.len() < pieces.len()
            && let Some(piece) = self.piece().await
        {
            seen.push(piece);
        }
        assert_eq!(shown(&seen), shown(pieces), "{what}");
    }

    /// Asks for something and is answered.
    async fn ask(&mut self, names: &Names, commands: &[Asked], what: &str) {
        let (members, reply) = names.request(commands);
        self.send(&self.request(&format!("{{{members}}}"))).await;
        self.expect(&self.reply(&reply), what).await;
    }

    /// What is left has to be what comes before the connection closes, and then it has to close.
    async fn expect_end(&mut self, end: End, what: &str) {
        let mut seen = Vec::new();
        while let Some(piece) = self.piece().await {
            seen.push(piece);
        }
        assert_eq!(shown(&seen), shown(&self.goodbye(end)), "{what}");
    }
}

/// Pieces for people.
fn shown(pieces: &[Vec<u8>]) -> Vec<String> {
    pieces.iter().map(|piece| piece.escape_ascii().to_string().replace("\\\"", "\"")).collect()
}

/// Posts something on a connection of its own; status and body of the whole answer.
async fn post(server: &Endpoints, head: &str, body: &str) -> (u16, String) {
    let answer = send(server, head, body.as_bytes()).await;
    let length = answer.header("content-length").unwrap_or("0");
    assert_eq!(length, answer.body.len().to_string(), "{answer:?}");
    (answer.status, answer.text().to_owned())
}

/// Who asks.
struct Asker<'s> {
    server: &'s Endpoints,
    door: Door,
    names: Names,
    /// The connection that the session is bound to.
    line: Option<Line>,
    id: String,
}

impl<'s> Asker<'s> {
    async fn open(server: &'s Endpoints, door: Door, names: &Names, login: Login) -> Self {
        let login = names.login(login);
        let (line, id) = match door {
            Door::Api | Door::Rest => (None, log_in(server, &login.0, &login.1).await),
            _ => {
                let line = Line::open(server, door, &login).await;
                let id = line.id.clone();
                (Some(line), id)
            }
        };
        let mut names = names.clone();
        let reference = handle(&id);
        names.add("<uuid>", reference.uuid());
        names.add("<ref>", reference);
        names.add("<id>", &id);
        Self { server, door, names, line, id }
    }

    /// Asks for something through the door and is answered.
    async fn ask(&mut self, commands: &[Asked], what: &str) {
        let reply = match (self.door, &mut self.line) {
            (Door::Api | Door::ApiBesideMqtt, _) => self.posted_api(commands).await,
            (Door::Rest, _) => self.posted_form(commands).await,
            (_, Some(line)) => return line.ask(&self.names, commands, what).await,
            (_, None) => panic!("no connection"),
        };
        let (_, expected) = self.names.request(commands);
        let expected = match self.door {
            Door::Rest => self.names.fill(commands[0].2),
            _ => expected,
        };
        assert_eq!(reply, expected, "{what}");
    }

    async fn posted_api(&self, commands: &[Asked]) -> String {
        let (members, _) = self.names.request(commands);
        let body = format!(r#"{{"auth":{{"sessionId":"{}"}},{members}}}"#, self.id);
        let (status, reply) = post(self.server, "POST /api HTTP/1.1", &body).await;
        assert_eq!(status, 200);
        reply
    }

    async fn posted_form(&self, commands: &[Asked]) -> String {
        let (command, params, _) = commands[0];
        let params = self.names.fill(if params.is_empty() { "{}" } else { params });
        let params: Map<String, Value> = serde_json::from_str(&params).expect("an object");
        let field = |(name, value): (String, Value)| {
            (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let session = ("sessionId".to_owned(), self.id.clone());
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([session].into_iter().chain(params.into_iter().map(field)))
            .finish();
        let head = format!("POST /rest/_/{command} HTTP/1.1");
        let (status, reply) = post(self.server, &head, &form).await;
        assert_eq!(status, 200);
        reply
    }

    /// The connection has to close, and the session to be refused.
    async fn expect_end(&mut self, end: End) {
        if let Some(line) = &mut self.line {
            line.expect_end(end, "the end of the asker's connection").await;
        }
        let next = match self.door {
            Door::Rest => self.posted_form(&[PING]).await,
            _ => self.posted_api(&[PING]).await,
        };
        assert_eq!(next, SESSION_GONE, "the next use");
    }

    /// The session has to go on, with this.
    async fn expect_more(&mut self, after: Asked) {
        self.ask(&[after], "the asker's next reply").await;
        if let (Door::ApiBesideMqtt, Some(line)) = (self.door, &mut self.line) {
            line.ask(&self.names, &[PING], "the asker's connection").await;
        }
    }
}

/// Asks what a row says through a door, when `together` lets it.
async fn check(server: &Endpoints, row: &Row, door: Door, names: Names, together: &Barrier) {
    let mut asker = Asker::open(server, door, &names, row.asker).await;
    for command in row.before {
        asker.ask(&[*command], "the asker's first replies").await;
    }
    let mut other = None;
    if let Some(wanted) = row.other {
        let mut line = Line::open(server, Door::Tcp, &names.login(wanted.login)).await;
        for command in wanted.before {
            line.ask(&names, &[*command], "the other's first replies").await;
        }
        asker.names.add("<other>", handle(&line.id));
        other = Some((line, wanted.end));
    }
    timeout(WAIT, together.wait()).await.expect("all are ready");
    match row.ask {
        Ask::Tr50(commands) => asker.ask(commands, "the reply").await,
        Ask::Http(head, body, status, beginning) => {
            let (head, body) = (asker.names.fill(head), asker.names.fill(body));
            let (seen, answer) = post(server, &head, &body).await;
            assert!((seen, answer.starts_with(beginning)) == (status, true), "{seen} {answer}");
        }
    }
    match row.end {
        Some(end) => asker.expect_end(end).await,
        None => asker.expect_more(row.after).await,
    }
    if let Some((mut line, end)) = other {
        match end {
            Some(end) => line.expect_end(end, "the end of the other's connection").await,
            None => line.ask(&names, &[PING], "the other's connection").await,
        }
    }
}

type Run = (&'static Row, Door, Names);

/// A server where there is everybody for these runs.
fn start(durability: &str, runs: &[Run]) -> TestServer {
    let mut bootstrap = include_str!("../../fixtures/demo.toml").to_owned();
    for (row, _, names) in runs {
        if names.has_own_org() {
            bootstrap.push_str(&names.fill(AN_ORG));
        }
        bootstrap.push_str(&names.fill(&row.there.concat()));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bootstrap.toml");
    std::fs::write(&path, bootstrap).expect("written");
    let path = path.to_str().expect("UTF-8");
    TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", path), ("TR50D_SERVER__DURABILITY", durability)])
}

/// Runs them, so many at once, and so many in step; says which of them broke the promise.
async fn check_all(server: TestServer, runs: Vec<Run>, at_once: usize, in_step: usize) {
    let shared = Arc::new((server, Semaphore::new(at_once), Barrier::new(in_step)));
    let (mut tasks, mut labels) = (JoinSet::new(), HashMap::new());
    for (row, door, names) in runs {
        let shared = shared.clone();
        let task = tasks.spawn(async move {
            let (server, turns, together) = &*shared;
            let _turn = turns.acquire().await.expect("turns");
            check(server, row, door, names, together).await;
        });
        labels.insert(task.id(), format!("{} through {door:?}", row.what));
    }
    let mut broken = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            let label = &labels[&error.id()];
            let panic = error.into_panic();
            let why = panic.downcast_ref::<String>().map_or("", String::as_str);
            broken.push(format!("{label}: {why}"));
        }
    }
    broken.sort();
    assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), labels.len(), broken.join("\n"));
}

/// All rows through all doors.
async fn check_rows(durability: &str) {
    let all = ROWS.iter().flat_map(|row| DOORS.map(|door| (row, door)));
    let taken = all.filter(|(row, door)| door.takes(row)).enumerate();
    let runs: Vec<_> =
        taken.map(|(at, (row, door))| (row, door, Names::new(at + 1, None))).collect();
    check_all(start(durability, &runs), runs, AT_ONCE, 1).await;
}

/// A change looks at the sessions of its organisation aside when they are many. Then it also finds
/// those whose own changes are under way: they end before their askers have replies.
async fn check_crowd(durability: &str) {
    const ASKERS: usize = 20;
    let doors = DOORS.into_iter().take(5).cycle();
    let names = (1..=ASKERS).map(|number| Names::new(number, Some("BasicOrg")));
    let runs: Vec<_> = doors.zip(names).map(|(door, names)| (&IN_A_CROWD, door, names)).collect();
    let server = start(durability, &runs);
    let key = |number| format!("idle-{number}");
    let login = async |number| log_in(&server, &key(number), TOKEN).await;
    join_all((0..EXPIRY_STEP).map(login)).await;
    check_all(server, runs, ASKERS, ASKERS).await;
}

#[tokio::test]
async fn a_reply_comes_before_the_end_with_durability_os() {
    check_rows("os").await;
}

#[tokio::test]
async fn a_reply_comes_before_the_end_with_durability_disk() {
    check_rows("disk").await;
}

#[tokio::test]
async fn a_reply_comes_before_the_end_when_many_change_one_organisation() {
    check_crowd("os").await;
    check_crowd("disk").await;
}
