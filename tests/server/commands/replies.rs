//! Runs the data files of `fixtures/replies`; `fixtures/replies/README.md` describes their form.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use base::Timestamp;
use data_encoding::HEXLOWER;
use rewrite::Changes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::http::{exchange, post_with};
use support::tcp::Lines;
use support::{Endpoints, TestServer, totp};

mod rewrite;

/// With this variable, the data files are written anew where the server answers something else.
const UPDATE: &str = "UPDATE_REPLIES";

/// The directory of the data files.
pub(super) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/replies")
}

/// Runs one data file against a server of its own.
pub(super) async fn check(file: &str) {
    let path = directory().join(file);
    let text = std::fs::read_to_string(&path).expect(file);
    let steps = read(&text);
    let settings: Vec<(&str, &str)> = steps
        .iter()
        .filter(|step| step.kind == Kind::Setting)
        .map(|step| step.text.split_once('=').expect("KEY=VALUE"))
        .collect();
    let server = TestServer::with(&settings);
    let changes = std::env::var_os(UPDATE).map(|_| Changes::default());
    let mut run =
        Run { server, names: Names::default(), over: Over::Http(None), last: None, changes };
    let done = run.all(&steps).await;
    // Also of a run that could not go on: a name that is missing is to be put there.
    if let Some(text) = run.changes.and_then(|changes| changes.apply(&text)) {
        std::fs::write(path, text).expect("written");
    }
    if let Err((line, why)) = done {
        panic!("{file}, line {line}: {why}");
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Kind {
    Setting,
    Over,
    Request,
    Upload,
    Download,
    Reply,
    Closed,
}

struct Step {
    /// Its first line, and the one behind its last.
    line: usize,
    end: usize,
    kind: Kind,
    /// All its lines in one.
    text: String,
    /// Where in the text a line begins.
    breaks: BTreeSet<usize>,
}

fn read(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, content) in text.lines().enumerate() {
        let line = number + 1;
        let mut push = |kind, text: &str| {
            let (text, breaks) = (text.to_owned(), BTreeSet::new());
            steps.push(Step { line, end: line + 1, kind, text, breaks });
        };
        if let Some(text) = content.strip_prefix("server ") {
            push(Kind::Setting, text);
        } else if let Some(text) = content.strip_prefix("> ") {
            push(Kind::Request, text);
        } else if let Some(text) = content.strip_prefix("< ") {
            push(Kind::Reply, text);
        } else if let Some(over) = content.strip_prefix('[').and_then(|c| c.strip_suffix(']')) {
            push(Kind::Over, over);
        } else if let Some(text) = content.strip_prefix("upload ") {
            push(Kind::Upload, text);
        } else if let Some(text) = content.strip_prefix("download ") {
            push(Kind::Download, text);
        } else if content == "closed" {
            push(Kind::Closed, "");
        } else if content.starts_with(' ') {
            let step = steps.last_mut().expect("a beginning");
            step.breaks.insert(step.text.len());
            step.text.push_str(content.trim());
            step.end = line + 1;
        } else {
            assert!(content.is_empty() || content.starts_with('#'), "line {line}: {content}");
        }
    }
    steps
}

/// What the data files show of each command: the code of its failure, or 0 for a success.
pub(super) fn shown() -> BTreeMap<String, BTreeSet<i64>> {
    let mut shown: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for entry in std::fs::read_dir(directory()).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        // Replies follow soon, but not always at once: some devices take their time.
        let mut sent: VecDeque<Value> = VecDeque::new();
        for step in read(&std::fs::read_to_string(path).expect("text")) {
            // Placeholders of numbers have no quotes.
            let text = step.text.replace("<millis>", "0").replace("<number>", "0");
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            if step.kind == Kind::Request {
                sent.push_front(value);
                sent.truncate(6);
            } else if step.kind == Kind::Reply {
                note(&sent, &value, &mut shown);
            }
        }
    }
    shown
}

fn note(sent: &VecDeque<Value>, reply: &Value, shown: &mut BTreeMap<String, BTreeSet<i64>>) {
    for (id, answer) in reply.as_object().into_iter().flatten() {
        let code = match &answer["success"] {
            Value::Bool(true) => 0,
            Value::Bool(false) => answer["errorCodes"][0].as_i64().expect("a code"),
            _ => continue,
        };
        for command in sent.iter().filter_map(|request| request[id]["command"].as_str()) {
            shown.entry(command.to_ascii_lowercase()).or_default().insert(code);
        }
    }
}

/// How requests are sent.
enum Over {
    /// By POST, with the session of this name in the header.
    Http(Option<String>),
    /// On the connection of this name.
    Tcp(String),
}

struct Run<'s> {
    server: TestServer,
    names: Names,
    over: Over,
    /// The answer to the last POST, and what was posted.
    last: Option<(String, &'s Step)>,
    /// What is to be written, if it is wanted.
    changes: Option<Changes>,
}

impl<'s> Run<'s> {
    /// Runs the steps; where and why it could not go on, if so.
    async fn all(&mut self, steps: &'s [Step]) -> Result<(), (usize, String)> {
        let mut connections = BTreeMap::new();
        for step in steps {
            let done = self.step(step, &mut connections).await;
            done.map_err(|why| (step.line, why))?;
        }
        let last = steps.last().map_or(0, |step| step.line);
        self.expect_nothing().map_err(|why| (last, why))
    }

    async fn step(
        &mut self,
        step: &'s Step,
        connections: &mut BTreeMap<String, Lines>,
    ) -> Result<(), String> {
        if step.kind != Kind::Reply {
            self.expect_nothing()?;
        }
        let connection = match &self.over {
            Over::Http(_) => None,
            Over::Tcp(name) => connections.get_mut(name),
        };
        match step.kind {
            Kind::Setting => {}
            Kind::Over => match step.text.split_once(' ') {
                Some(("tcp", name)) => {
                    if !connections.contains_key(name) {
                        connections.insert(name.to_owned(), Lines::connect(&self.server).await);
                    }
                    self.over = Over::Tcp(name.to_owned());
                }
                Some(("http", name)) => self.over = Over::Http(Some(name.to_owned())),
                None if step.text == "http" => self.over = Over::Http(None),
                _ => return Err(format!("no way to send: {}", step.text)),
            },
            Kind::Request => {
                let request = self.names.fill(&step.text)?;
                match (connection, &self.over) {
                    (Some(lines), _) => lines.send(&request).await,
                    (None, Over::Http(Some(name))) => {
                        let header = self.names.fill(&format!("sessionId: <id:{name}>\r\n"))?;
                        self.last = Some((post_with(&self.server, &header, &request).await, step));
                    }
                    (None, _) => {
                        self.last = Some((post_with(&self.server, "", &request).await, step));
                    }
                }
            }
            Kind::Upload => {
                let (name, body) = step.text.split_once(' ').ok_or("no body")?;
                let path = self.names.fill(&format!("/file/<id:{name}>"))?;
                let length = body.len();
                let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n");
                self.last = Some((status_and_body(&self.server, &head, body).await, step));
            }
            Kind::Download => {
                let path = self.names.fill(&format!("/file/<id:{}>", step.text))?;
                let head = format!("GET {path} HTTP/1.0\r\n");
                self.last = Some((status_and_body(&self.server, &head, "").await, step));
            }
            Kind::Reply => {
                let reply = match connection {
                    Some(lines) => lines.line().await,
                    None => self.last.take().ok_or("a reply without a request")?.0,
                };
                self.compare(step, &reply)?;
            }
            Kind::Closed => {
                let lines = connection.ok_or("only TCP connections close")?;
                let line = lines.line().await;
                if !line.is_empty() {
                    return Err(format!("not closed: {line}"));
                }
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// No reply may be left that nobody expected.
    fn expect_nothing(&mut self) -> Result<(), String> {
        match (self.last.take(), &mut self.changes) {
            (None, _) => Ok(()),
            (Some((reply, asked)), Some(changes)) => changes.insert(asked, &reply, &mut self.names),
            (Some((reply, _)), None) => Err(format!("nothing is expected for {reply}")),
        }
    }

    /// The reply has to be that of the step, or becomes that of the file.
    fn compare(&mut self, step: &Step, reply: &str) -> Result<(), String> {
        let before = self.names.clone();
        let compared = self.names.compare(&compact(&step.text), reply);
        match (compared, &mut self.changes) {
            (Err(_), Some(changes)) => {
                // What was learned on the way may be wrong.
                self.names = before;
                changes.replace(step, reply, &mut self.names)
            }
            (compared, _) => compared,
        }
    }
}

/// The status and the body of an answer, without a blank between them.
async fn status_and_body(server: &Endpoints, head: &str, body: &str) -> String {
    let answer = exchange(server, format!("{head}\r\n{body}").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    format!("{status}{body}")
}

/// What the named placeholders stand for.
#[derive(Clone, Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// Puts known values in the place of placeholders.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, placeholder, after)) = next_placeholder(rest) {
            filled.push_str(before);
            let unknown = || format!("<{placeholder}> is unknown");
            match placeholder.strip_prefix("code:") {
                Some(name) => {
                    let secret = self.0.get(&format!("secret:{name}")).ok_or_else(unknown)?;
                    filled.push_str(&totp::code(secret, Timestamp::now().as_millis()));
                }
                None => filled.push_str(self.0.get(placeholder).ok_or_else(unknown)?),
            }
            rest = after;
        }
        Ok(filled + rest)
    }

    /// The placeholder of this value.
    fn name_of(&self, value: &str) -> Option<&str> {
        let known = self.0.iter().find(|(_, known)| *known == value);
        known.map(|(name, _)| name.as_str())
    }

    /// Compares a reply to what is expected, and learns the values of new names.
    fn compare(&mut self, expected: &str, reply: &str) -> Result<(), String> {
        let (mut wanted, mut rest) = (expected, reply);
        let differs = |wanted: &str, rest: &str| {
            Err(format!("{reply}\nis not\n{expected}\nfrom\n{rest}\nwhich should be\n{wanted}"))
        };
        while let Some((before, placeholder, after)) = next_placeholder(wanted) {
            let Some(value) = rest.strip_prefix(before) else { return differs(wanted, rest) };
            let kind = placeholder.split(':').next().unwrap_or_default();
            let length = length_of(kind, value).ok_or(format!("no <{placeholder}> in {value}"))?;
            let (value, tail) = value.split_at(length);
            if placeholder.contains(':') {
                self.learn(placeholder, value)?;
            }
            (wanted, rest) = (after, tail);
        }
        if wanted == rest { Ok(()) } else { differs(wanted, rest) }
    }

    fn learn(&mut self, placeholder: &str, value: &str) -> Result<(), String> {
        let known = self.0.entry(placeholder.to_owned()).or_insert_with(|| value.to_owned());
        if known != value {
            return Err(format!("<{placeholder}> was {known} and is {value}"));
        }
        // A session's handle is the SHA-256 of its id.
        if let Some(name) = placeholder.strip_prefix("id:") {
            let reference = HEXLOWER.encode(&Sha256::digest(value));
            self.0.insert(format!("ref:{name}"), reference);
        }
        Ok(())
    }
}

/// The text before the first placeholder, the placeholder, and the text after it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('<')?;
    let (placeholder, after) = rest.split_once('>')?;
    Some((before, placeholder, after))
}

/// The length of a value of this kind at the beginning of the text.
fn length_of(kind: &str, text: &str) -> Option<usize> {
    let run = |text: &str, is: fn(&u8) -> bool| text.bytes().take_while(is).count();
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match kind {
        "id" => (run(text, hex) == 24).then_some(24),
        "ref" => (run(text, hex) == 64).then_some(64),
        "token" => (run(text, u8::is_ascii_alphanumeric) == 16).then_some(16),
        "key" => (run(text, u8::is_ascii_alphanumeric) == 32).then_some(32),
        "secret" => (run(text, u8::is_ascii_alphanumeric) == 32).then_some(32),
        "recovery" => {
            let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
            (run(text, is_one) == 19).then_some(19)
        }
        "millis" => (run(text, u8::is_ascii_digit) == 13).then_some(13),
        "number" => Some(run(text, u8::is_ascii_digit)).filter(|length| *length > 0),
        "host" => Some(run(text, |byte| *byte != b'"')).filter(|length| *length > 0),
        "addr" => {
            let port = run(text.strip_prefix("127.0.0.1:")?, u8::is_ascii_digit);
            (port > 0).then_some("127.0.0.1:".len() + port)
        }
        "time" => {
            let form = "0000-00-00T00:00:00.000Z";
            let fits = |(byte, form): (u8, u8)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte == form,
            };
            let time = text.get(..form.len())?;
            time.bytes().zip(form.bytes()).all(fits).then_some(form.len())
        }
        _ => None,
    }
}

/// The text without the blanks between JSON's tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let quote = *c == '"' && !escaped;
        escaped = in_string && *c == '\\' && !escaped;
        in_string ^= quote;
        in_string || *c != ' '
    };
    json.chars().filter(keep).collect()
}

#[test]
fn replies_are_compared_byte_for_byte_but_for_placeholders() {
    let reply = format!(r#"{{"a":"{}","t":"2021-08-10T14:16:10.976Z"}}"#, "0a".repeat(12));
    let check = |expected: &str, fits: bool| {
        let mut names = Names::default();
        names.learn("id:b", &"0b".repeat(12)).expect("new");
        let compared = names.compare(&compact(expected), &reply);
        assert_eq!(compared.is_ok(), fits, "{expected}: {compared:?}");
    };
    check(r#"{"a": "<id>", "t": "<time>"}"#, true);
    check(r#"{"a":"<id:a>","t":"<time>"}"#, true);
    check(r#"{"a":"<id:b>","t":"<time>"}"#, false);
    check(r#"{"a":"<ref>","t":"<time>"}"#, false);
    check(r#"{"a":"<id>","t":"<time>"}}"#, false);
    check(r#"{"a":"<id> ","t":"<time>"}"#, false);
    check(r#"{"t":"<time>","a":"<id>"}"#, false);
    assert_eq!((length_of("number", "70}"), length_of("number", "-7")), (Some(2), None));
    assert_eq!(compact(r#"{ "a b\" c" : "\\" , "d" : 1 }"#), r#"{"a b\" c":"\\","d":1}"#);
}
