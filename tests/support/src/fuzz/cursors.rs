//! What clients send back to get the next page of a list.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Target;
use super::http_bodies::{Answer, Web};

/// Lists of Cognite, whose cursors nobody else can make.
const SEALED: [&str; 3] = [
    "/api/v1/orgs/basic-org/principals",
    "/api/v1/orgs/basic-org/orgs",
    "/api/v1/orgs/basic-org/principals/5cf885f41c5bd771c8065bf1/sessions",
];

/// Commands with an iterator, and what else they need.
const OPEN: [(&str, &str); 4] = [
    ("thing.list", r#"{"limit":1}"#),
    ("thing.search", r#"{"limit":1,"query":"*"}"#),
    ("audit.list", r#"{"limit":1}"#),
    ("audit.list", r#"{"limit":1,"sort":"number"}"#),
];

/// More pages than there are.
const PAGES_MAX: usize = 1000;

/// A server with something to list. The first byte chooses the list, the second what follows: pairs of
/// a position and what stands there instead in a right cursor (0); the cursor's bytes (1); what they
/// are in hexadecimal digits (2).
pub struct Cursors {
    web: Web,
    known: Vec<String>,
}

impl Target for Cursors {
    const NAME: &'static str = "cursors";

    fn new() -> Self {
        let mut web = Web::start();
        for key in ["one", "two", "three"] {
            let created = command(&mut web, "thing.create", &json!({ "key": key }));
            assert_eq!(created["cmd"]["success"], true, "{created}");
        }
        let sealed: Vec<_> = SEALED.iter().map(|path| first_cursor(&mut web, path)).collect();
        let open = OPEN.iter().map(|(name, params)| {
            let reply = page(&mut web, name, params, "new");
            reply["cmd"]["params"]["iterator"].as_str().unwrap_or_default().to_owned()
        });
        let known = sealed.into_iter().chain(open).collect();
        Self { web, known }
    }

    fn check(&mut self, data: &[u8]) {
        let [list, how, rest @ ..] = data else { return };
        let list = usize::from(*list) % self.known.len();
        let known = &self.known[list];
        let text = match how % 3 {
            0 => {
                let mut bytes = known.clone().into_bytes();
                for edit in rest.chunks_exact(2) {
                    let length = bytes.len();
                    if let Some(byte) = bytes.get_mut(usize::from(edit[0]) % length.max(1)) {
                        *byte = edit[1];
                    }
                }
                String::from_utf8_lossy(&bytes).into_owned()
            }
            1 => String::from_utf8_lossy(rest).into_owned(),
            _ => rest.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("a text takes all");
                text
            }),
        };
        match SEALED.get(list) {
            Some(path) => {
                // Of a list without a second page, none is right.
                let good = text == *known && !known.is_empty();
                let status = get(&mut self.web, path, &text).status;
                assert_eq!(status, if good { 200 } else { 400 }, "{path} {text:?}");
            }
            None => self.follow(OPEN[list - SEALED.len()], text),
        }
    }
}

impl Cursors {
    /// Goes on from there until the list ends.
    fn follow(&mut self, (name, params): (&str, &str), mut text: String) {
        for _ in 0..PAGES_MAX {
            let reply = page(&mut self.web, name, params, &text);
            match reply["cmd"]["params"]["iterator"].as_str() {
                Some(next) => next.clone_into(&mut text),
                None => return,
            }
        }
        panic!("{name} has no end from {text}");
    }
}

fn page(web: &mut Web, name: &str, params: &str, iterator: &str) -> Value {
    let mut params: Value = serde_json::from_str(params).expect("JSON");
    // What is listed first has none.
    if !(iterator == "new" && name == "audit.list") {
        params["iterator"] = iterator.into();
    }
    command(web, name, &params)
}

fn command(web: &mut Web, name: &str, params: &Value) -> Value {
    let body = json!({"cmd": {"command": name, "params": params}}).to_string();
    let head = web.credentials("/api");
    let length = body.len();
    let request =
        format!("POST /api HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {length}\r\n\r\n{body}");
    let answer = web.ask(request.as_bytes());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// A page of a sealed list from a cursor on.
fn get(web: &mut Web, path: &str, cursor: &str) -> Answer {
    let cursor = cursor.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02x}").expect("a text takes all");
        text
    });
    let head = web.credentials(path);
    web.ask(
        format!("GET {path}?limit=1&cursor={cursor} HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes(),
    )
}

/// The cursor behind the first item; empty if there is no second.
fn first_cursor(web: &mut Web, path: &str) -> String {
    let head = web.credentials(path);
    let answer =
        web.ask(format!("GET {path}?limit=1 HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes());
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    page["nextCursor"].as_str().unwrap_or_default().to_owned()
}
