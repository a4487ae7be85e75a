//! Two organisations below one, each kind of caller, and things of both that each of them can try
//! to reach.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base::{CODES, SessionId, SessionRef};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::TestServer;
use support::http::{Answer, exchange, log_in, post_with};
use tokio::runtime::{Builder, Runtime};

/// Where what a request names is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// In BasicOrg, or below it.
    Own = 0,
    /// In YorkOrg, or below it.
    Other = 1,
    /// Nowhere.
    Missing = 2,
}

impl Target {
    /// The head of its line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Other => "other",
            Self::Missing => "missing",
        }
    }
}

/// A kind of caller.
pub(super) struct CallerKind {
    /// The head of its column.
    pub(super) name: &'static str,
    /// What is not to be told from what is nowhere; none for those who see everything.
    pub(super) foreign: Option<Target>,
}

const fn kind(name: &'static str, foreign: Option<Target>) -> CallerKind {
    CallerKind { name, foreign }
}

/// All kinds, in the order of the columns. All but the first and the last are in BasicOrg.
pub(super) const CALLERS: [CallerKind; 11] = [
    kind("nobody", Some(Target::Other)),
    kind("device", Some(Target::Other)),
    kind("restricted", Some(Target::Other)),
    kind("bare", Some(Target::Other)),
    kind("plain", Some(Target::Other)),
    kind("staff", Some(Target::Other)),
    kind("admin", Some(Target::Other)),
    kind("above", None),
    kind("ops", None),
    kind("super", None),
    kind("invited", Some(Target::Own)),
];

/// Those that are applications, each with a thing.
const THINGS: [&str; 3] = ["device", "restricted", "bare"];

const PASSWORD: &str = "a-password-of-the-table";

/// What came of a request.
pub(super) struct Reply {
    /// As the table says it.
    pub(super) outcome: String,
    /// All of it, with placeholders where it says what was named.
    pub(super) text: String,
    /// Where `session.explain` says something else.
    pub(super) untrue: String,
}

/// A server, its callers, and what they name.
pub(super) struct World {
    runtime: Runtime,
    server: Option<TestServer>,
    /// The session of each caller.
    sessions: Vec<String>,
    /// The super administrator's.
    root: String,
    /// What placeholders stand for: by name, target and caller.
    names: RefCell<BTreeMap<(String, usize, usize), String>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let server = self.server.take();
        let _entered = self.runtime.enter();
        drop(server);
    }
}

const ORGS: [&str; 3] = ["basic", "york", "nowhere"];

impl World {
    /// A server with everybody in it, and what these requests name, if only the bootstrap file can
    /// make it in good time.
    pub(super) fn start(requests: &[&str]) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bootstrap(requests)).expect("written");
        let path = file.path().to_str().expect("a path in UTF-8");
        let server = TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", path)]);
        let (sessions, root) = runtime.block_on(async {
            let mut sessions = Vec::new();
            for caller in &CALLERS {
                sessions.push(match caller.name {
                    "nobody" => String::new(),
                    name if THINGS.contains(&name) => {
                        let token = format!("token-of-the-{name}");
                        log_in(&server, &format!("the-{name}"), &token).await
                    }
                    name => log_in(&server, &format!("{name}@basic.example"), PASSWORD).await,
                });
            }
            (sessions, log_in(&server, "root@system.example", PASSWORD).await)
        });
        let world =
            Self { runtime, server: Some(server), sessions, root, names: RefCell::default() };
        let here = r#"{"1":{"command":"session.org.switch","params":{"key":"BasicOrg"}}}"#;
        for (caller, session) in CALLERS.iter().zip(&world.sessions) {
            if matches!(caller.name, "above" | "ops" | "super") {
                world.tr50(session, here);
            }
        }
        let invite = r#"{"1":{"command":"user.org.add","params":
            {"emailAddress":"invited@basic.example","isOrgAdmin":true}}}"#;
        let invited = world.tr50(&world.session_of("admin"), invite);
        assert_eq!(invited["1"]["params"]["pending"], true, "{invited}");
        world
    }

    fn session_of(&self, name: &str) -> String {
        let place = CALLERS.iter().position(|caller| caller.name == name);
        self.sessions[place.expect("a caller")].clone()
    }

    fn server(&self) -> &TestServer {
        self.server.as_ref().expect("it runs")
    }

    fn tr50(&self, session: &str, body: &str) -> Value {
        let header =
            if session.is_empty() { String::new() } else { format!("sessionId: {session}\r\n") };
        let reply = self.runtime.block_on(post_with(self.server(), &header, body));
        serde_json::from_str(&reply).expect("JSON")
    }

    /// Makes what the request names, for each caller in both organisations.
    pub(super) fn prepare(&self, row: usize, request: &str) {
        for (target, org) in ORGS.iter().enumerate() {
            for (caller, kind) in CALLERS.iter().enumerate() {
                let names = self.names_of(request, org, &format!("{}-{row}", kind.name));
                let mut all = self.names.borrow_mut();
                for (name, value) in names {
                    all.insert((name.to_owned(), target, caller), value);
                }
            }
        }
    }

    /// The values of the placeholders in a request of this caller for what is in the organisation.
    fn names_of(&self, request: &str, org: &str, caller: &str) -> Vec<(&'static str, String)> {
        let has = |name: &str| request.contains(name);
        let key = format!("{org}-{caller}");
        let mut names = vec![
            ("<thing>", key.clone()),
            ("<user>", format!("victim-{key}@{org}.example")),
            ("<app>", key.clone()),
            ("<token>", format!("token-of-{key}")),
            ("<org>", key.clone()),
            ("<slug>", key.clone()),
            ("<role>", key.clone()),
            ("<def>", key.clone()),
            ("<hook>", key.clone()),
            ("<orgId>", id_of("org", &key)),
            ("<userId>", id_of("user", &key)),
            ("<roleId>", id_of("role", &key)),
            ("<appId>", id_of("app", &key)),
            ("<number>", number_of(&id_of("user", &key)).to_string()),
            ("<new>", format!("new-{key}")),
        ];
        let missing = org == "nowhere";
        if ["<thing>", "<thingId>", "<mail>", "<file>"].iter().any(|name| has(name)) {
            let id = if missing { "00".repeat(12) } else { self.make_thing(org, &key) };
            if has("<mail>") {
                let mail = if missing { "00".repeat(12) } else { self.send_mail(org, &key) };
                names.push(("<mail>", mail));
            }
            if has("<file>") {
                let ticket = if missing { "00".repeat(12) } else { self.put_file(org, &key) };
                names.push(("<file>", ticket));
            }
            names.push(("<thingId>", id));
        }
        if has("<defId>") || has("<def>") {
            let params = json!({ "key": key });
            let id = match missing {
                true => "00".repeat(12),
                false => id_in(&self.as_root(org, "thing_def.create", &params)),
            };
            names.push(("<defId>", id));
        }
        if has("<hookId>") || has("<hook>") {
            let url = "https://hooks.example/";
            let params = json!({ "name": key, "url": url, "enabled": false });
            let id = match missing {
                true => "00".repeat(12),
                false => id_in(&self.as_root(org, "webhook.create", &params)),
            };
            names.push(("<hookId>", id));
        }
        if ["<session>", "<sessionId>", "<uuid>"].iter().any(|name| has(name)) {
            let token = format!("devices-of-{org}-1");
            let id = match missing {
                true => "00".repeat(12),
                false => self.runtime.block_on(log_in(self.server(), &format!("s-{key}"), &token)),
            };
            let reference = SessionRef::of(&SessionId::parse(&id).expect("an id"));
            names.push(("<session>", reference.to_string()));
            names.push(("<uuid>", reference.uuid().to_string()));
            names.push(("<sessionId>", id));
        }
        names
    }

    /// What the super administrator gets for a command in an organisation.
    fn as_root(&self, org: &str, command: &str, params: &Value) -> Value {
        let key = if org == "basic" { "BasicOrg" } else { "YorkOrg" };
        let switch = json!({"command": "session.org.switch", "params": {"key": key}});
        let request = json!({"0": switch, "1": {"command": command, "params": params}});
        self.tr50(&self.root, &request.to_string())["1"].clone()
    }

    fn make_thing(&self, org: &str, key: &str) -> String {
        self.as_root(org, "thing.create", &json!({ "key": key }));
        id_in(&self.as_root(org, "thing.find", &json!({ "key": key })))
    }

    fn send_mail(&self, org: &str, key: &str) -> String {
        let params = json!({"thingKey": key, "command": "reboot", "ackTimeout": 0, "ttl": 600});
        id_in(&self.as_root(org, "mailbox.send", &params))
    }

    /// Stores a file of a thing, and returns what it can be fetched with.
    fn put_file(&self, org: &str, key: &str) -> String {
        let params = json!({"thingKey": key, "fileName": "log.txt"});
        let put = self.as_root(org, "file.put", &params);
        let id = put["params"]["fileId"].as_str().expect("an id");
        let request = format!("POST /file/{id} HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
        self.runtime.block_on(exchange(self.server(), request.as_bytes()));
        let got = self.as_root(org, "file.get", &params);
        got["params"]["fileId"].as_str().expect("an id").to_owned()
    }

    fn filled(
        &self,
        request: &str,
        caller: usize,
        target: Target,
    ) -> (String, Vec<(String, String)>) {
        let (names, mut filled, mut used) = (self.names.borrow(), request.to_owned(), Vec::new());
        for ((name, at, of), value) in names.iter() {
            if (*at, *of) == (target as usize, caller) && filled.contains(name.as_str()) {
                filled = filled.replace(name.as_str(), value);
                used.push((value.clone(), name.clone()));
            }
        }
        // The longest first: one may be in another.
        used.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        (filled, used)
    }

    /// Sends a command as a caller, who has had it explained before.
    pub(super) fn command(&self, request: &str, caller: usize, target: Target) -> Reply {
        let explained = self.explained(request, caller, target);
        let reply = self.carried_out(request, caller, target);
        let Some(told) = explained.filter(|_| reply.outcome != "login") else { return reply };
        let thing = |reason: &Value| reason["kind"] == "thing";
        let is_true = match (told["allowed"].as_bool(), &*reply.outcome) {
            (Some(true), "denied" | "kind") => !told["except"].is_null(),
            (Some(true), _) => true,
            (Some(false), "denied" | "kind") => true,
            (Some(false), "none") => {
                told["reasons"].as_array().is_some_and(|reasons| reasons.iter().any(thing))
            }
            _ => false,
        };
        let (name, outcome) = (CALLERS[caller].name, &reply.outcome);
        let untrue = match is_true {
            true => String::new(),
            false => {
                format!("{request} of {name} ({}) is {outcome}: {told}\n", target.name())
            }
        };
        Reply { untrue, ..reply }
    }

    /// What `session.explain` says of a command and the thing that it names.
    fn explained(&self, request: &str, caller: usize, target: Target) -> Option<Value> {
        let session = &self.sessions[caller];
        if session.is_empty() {
            return None;
        }
        let command = request.split(' ').next()?;
        let mut params = json!({ "command": command });
        if [r#"ey":"<thing>""#, "<thingId>"].iter().any(|named| request.contains(named)) {
            params["thingKey"] = self.filled("<thing>", caller, target).0.into();
        }
        let body = json!({"1": {"command": "session.explain", "params": params}});
        let reply = self.tr50(session, &body.to_string());
        assert_eq!(reply["1"]["success"], true, "{body} {reply}");
        Some(reply["1"]["params"].clone())
    }

    fn carried_out(&self, request: &str, caller: usize, target: Target) -> Reply {
        let (filled, used) = self.filled(request, caller, target);
        let (name, params) = filled.split_once(' ').unwrap_or((&filled, "{}"));
        let body = format!(r#"{{"1":{{"command":"{name}","params":{params}}}}}"#);
        let reply = self.tr50(&self.sessions[caller], &body);
        let answer = if reply["1"].is_null() { &reply } else { &reply["1"] };
        let outcome = match answer["errorCodes"][0].as_i64() {
            None => "ok".to_owned(),
            Some(code) => word_of(code),
        };
        Reply { outcome, text: masked(&answer.to_string(), &used), untrue: String::new() }
    }

    /// Sends a request to a path as a caller, with what the path takes for a login.
    pub(super) fn route(&self, request: &str, caller: usize, target: Target) -> Reply {
        let (filled, used) = self.filled(request, caller, target);
        let mut parts = filled.splitn(3, ' ');
        let (method, path) = (parts.next().expect("a method"), parts.next().expect("a path"));
        let body = parts.next().unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let name = CALLERS[caller].name;
        let session = &self.sessions[caller];
        if name == "nobody" {
        } else if path.starts_with("/json-rpc") && !THINGS.contains(&name) {
            let login = format!("{name}@basic.example:{PASSWORD}");
            let _ = write!(head, "Authorization: Basic {}\r\n", BASE64.encode(login.as_bytes()));
        } else if ["/api/v1", "/metrics", "/json-rpc"].iter().any(|at| path.starts_with(at)) {
            let _ = write!(head, "Authorization: Bearer {session}\r\n");
        } else {
            let _ = write!(head, "sessionId: {session}\r\n");
        }
        if path == "/metrics" {
            // Who is on this machine needs no login.
            head += "X-Forwarded-For: 192.0.2.1\r\n";
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n{body}", body.len());
        let answer = self.runtime.block_on(exchange(self.server(), head.as_bytes()));
        let answer = Answer::read(answer.as_bytes());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut outcome = answer.status.to_string();
        if let Some(name) = value["error"]["name"].as_str() {
            let _ = write!(outcome, "-{}", name.trim_start_matches('x'));
        }
        let code = value["errorCodes"][0].as_i64().or_else(|| value["1"]["errorCodes"][0].as_i64());
        if let Some(code) = code {
            let _ = write!(outcome, "-{}", word_of(code));
        }
        outcome.truncate(11);
        let text = format!("{} {}", answer.status, masked(&text, &used));
        Reply { outcome, text, untrue: String::new() }
    }
}

fn id_in(reply: &Value) -> String {
    reply["params"]["id"].as_str().unwrap_or_else(|| panic!("no id: {reply}")).to_owned()
}

/// What a code is called in the table.
fn word_of(code: i64) -> String {
    use base::Code;
    let known = [
        (Code::NOT_FOUND, "none"),
        (Code::PERMISSION_DENIED, "denied"),
        (Code::AUTHENTICATION_MISSING, "login"),
        (Code::WRONG_SESSION_KIND, "kind"),
        (Code::PARAMETER_INVALID, "invalid"),
        (Code::PARAMETER_MISSING, "missing"),
        (Code::ALREADY_EXISTS, "exists"),
        (Code::LOGIN_REFUSED, "refused"),
        (Code::IN_USE, "in-use"),
        (Code::NOT_CONFIGURED, "absent"),
    ];
    assert!(CODES.iter().any(|info| i64::from(info.code.0) == code), "{code}");
    let word = known.iter().find(|(known, _)| i64::from(known.0) == code);
    word.map_or_else(|| code.to_string(), |(_, word)| (*word).to_owned())
}

/// The text with placeholders for what was named, and without ids and tokens that were made.
fn masked(text: &str, used: &[(String, String)]) -> String {
    let mut masked = text.to_owned();
    for (value, name) in used {
        masked = masked.replace(value.as_str(), name);
    }
    if let Some((before, made)) = masked.split_once("\"token\":\"") {
        let after = made.split_once('"').map_or("", |(_, after)| after);
        masked = format!("{before}{after}");
    }
    let words = masked.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let is_id = |word: &str| word.bytes().take_while(u8::is_ascii_hexdigit).count() == 24;
    words.map(|word| if is_id(word) { &word[24..] } else { word }).collect()
}

/// The number of a user in Element's words: the last 53 bits of the id.
fn number_of(id: &str) -> u64 {
    u64::from_str_radix(&id[8..], 16).expect("hexadecimal") & ((1 << 53) - 1)
}

/// The id of what has this key.
fn id_of(kind: &str, key: &str) -> String {
    let digest = Sha256::digest(format!("{kind} {key}"));
    HEXLOWER.encode(&digest[..12])
}

/// Everybody, and what the requests name that takes long to be made otherwise.
fn bootstrap(requests: &[&str]) -> String {
    let mut text = String::from(
        r#"
[[org]]
key = "SYSTEM"
slug = "system"
[[org]]
key = "BasicOrg"
slug = "basic-org"
parent = "SYSTEM"
[[org]]
key = "YorkOrg"
slug = "york-org"
parent = "SYSTEM"
[[role]]
key = "device"
org = "SYSTEM"
"#,
    );
    let families: Vec<_> = COMMAND_FAMILIES.iter().map(|name| format!("\"{name}\"")).collect();
    let all = families.join(", ");
    let _ = write!(
        text,
        "[[role]]\nkey = \"all\"\norg = \"SYSTEM\"\npermissions = [{all}]\n\
         topic_publish = [\"#\"]\ntopic_subscribe = [\"#\"]\n"
    );
    let mut user = |email: &str, home: &str, flags: &str, membership: &str| {
        let _ = write!(
            text,
            "[[user]]\nemail = \"{email}\"\npassword = \"{PASSWORD}\"\nhome = \"{home}\"\n{flags}\n"
        );
        if !membership.is_empty() {
            let _ = write!(text, "[[user.membership]]\n{membership}\n");
        }
    };
    user("root@system.example", "SYSTEM", "super_admin = true", "");
    user("plain@basic.example", "BasicOrg", "", "org = \"BasicOrg\"");
    user("staff@basic.example", "BasicOrg", "", "org = \"BasicOrg\"\nroles = [\"all\"]");
    user("admin@basic.example", "BasicOrg", "", "org = \"BasicOrg\"\norg_admin = true");
    user("above@basic.example", "SYSTEM", "", "org = \"SYSTEM\"\norg_admin = true");
    user("ops@basic.example", "SYSTEM", "super_ops = true", "");
    user("super@basic.example", "SYSTEM", "super_admin = true", "");
    user("invited@basic.example", "YorkOrg", "", "org = \"YorkOrg\"");
    let mut app = |name: &str, org: &str, token: &str, more: &str| {
        let _ = write!(
            text,
            "[[application]]\nname = \"{name}\"\norg = \"{org}\"\ntoken = \"{token}\"\n\
             token_name = \"{name}\"\nauto_register = true\n{more}\n"
        );
    };
    app("device", "BasicOrg", "token-of-the-device", "roles = [\"device\"]");
    let restricted = "roles = [\"all\"]\nrestrict_access_to_self = true";
    app("restricted", "BasicOrg", "token-of-the-restricted", restricted);
    app("bare", "BasicOrg", "token-of-the-bare", "");
    app("devices of basic", "BasicOrg", "devices-of-basic-1", "");
    app("devices of york", "YorkOrg", "devices-of-york-1", "");
    for (org, above) in [("basic", "BasicOrg"), ("york", "YorkOrg")] {
        for (row, request) in requests.iter().enumerate() {
            for caller in &CALLERS {
                name_in(&mut text, request, (org, above), &format!("{org}-{}-{row}", caller.name));
            }
        }
    }
    text
}

/// What a request names, with this key.
fn name_in(text: &mut String, request: &str, (org, above): (&str, &str), key: &str) {
    let names = |names: &[&str]| names.iter().any(|name| request.contains(name));
    let id = |kind| id_of(kind, key);
    if names(&["<org>", "<orgId>", "<slug>"]) {
        let id = id("org");
        let _ = write!(
            text,
            "[[org]]\nid = \"{id}\"\nkey = \"{key}\"\nslug = \"{key}\"\nparent = \"{above}\"\n"
        );
    }
    if names(&["<role>", "<roleId>"]) {
        let id = id("role");
        let _ = write!(
            text,
            "[[role]]\nid = \"{id}\"\nkey = \"{key}\"\norg = \"{above}\"\npermissions = [\"thing\"]\n"
        );
    }
    if names(&["<user>", "<userId>", "<number>"]) {
        let id = id("user");
        let _ = write!(
            text,
            "[[user]]\nid = \"{id}\"\nemail = \"victim-{key}@{org}.example\"\n\
             password = \"{PASSWORD}\"\nhome = \"{above}\"\n\
             [[user.membership]]\norg = \"{above}\"\n"
        );
        if names(&["<orgId>"]) {
            let _ = write!(text, "[[user.membership]]\norg = \"{key}\"\n");
        }
    }
    if names(&["<app>", "<appId>", "<token>"]) {
        let id = id("app");
        let _ = write!(
            text,
            "[[application]]\nid = \"{id}\"\nname = \"{key}\"\norg = \"{above}\"\n\
             token = \"token-of-{key}\"\ntoken_name = \"{key}\"\n"
        );
    }
}

/// The families of this server's commands: a role with all of them may use every command.
const COMMAND_FAMILIES: &[&str] = &[
    "alarm",
    "api",
    "app",
    "attribute",
    "audit",
    "login",
    "server",
    "diag",
    "file",
    "locale",
    "location",
    "log",
    "mailbox",
    "method",
    "metrics",
    "module",
    "org",
    "property",
    "role",
    "session",
    "sms",
    "sms.send",
    "thing",
    "thing_def",
    "topic",
    "usage",
    "user",
    "webhook",
];
