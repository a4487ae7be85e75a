//! The stream of events: `event.list`, `GET /events` and the topics below `$events/`.

use client::Version;
use serde_json::{Value, json};
use support::http::{dial, exchange, log_in, send};
use support::mqtt::Connect;
use support::{Endpoints, SOON, TestServer, call, connect, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const BASIC: &str = "5cf885f41c5bd771c8065be8";

/// A reader of `/events`.
struct Reader {
    stream: TcpStream,
    text: String,
}

impl Reader {
    async fn open(server: &Endpoints, query: &str, headers: &str) -> Self {
        let mut stream = dial(server).await;
        let request = format!("GET /events{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut reader = Self { stream, text: String::new() };
        reader.until("\r\n\r\n").await;
        reader
    }

    /// Everything up to what is looked for, and with it.
    async fn until(&mut self, part: &str) -> String {
        // Heartbeats come all the time.
        timeout(SOON, self.read_until(part)).await.unwrap_or_else(|_| panic!("no {part:?} came"))
    }

    async fn read_until(&mut self, part: &str) -> String {
        loop {
            if let Some(at) = self.text.find(part) {
                let rest = self.text.split_off(at + part.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.expect("read");
            assert!(count > 0, "the end came before {part:?}: {}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
    }

    /// The next event of this type.
    async fn event(&mut self, kind: &str) -> Value {
        self.until(&format!("event: {kind}\ndata: ")).await;
        let line = self.until("\n").await;
        serde_json::from_str(&line).expect("JSON")
    }

    /// The last chunk.
    async fn end(mut self) {
        self.until("\r\n0\r\n\r\n").await;
    }
}

async fn session_id(server: &Endpoints) -> String {
    log_in(server, OPERATOR.0, OPERATOR.1).await
}

#[tokio::test]
async fn readers_that_have_gone_leave_their_places_to_others() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "0")]);
    let headers = format!("sessionId: {}\r\n", session_id(&server).await);
    let open = async || {
        let mut stream = dial(&server).await;
        let request = format!("GET /events HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut reader = Reader { stream, text: String::new() };
        let head = reader.until("\r\n\r\n").await;
        (reader, head)
    };
    let mut readers = Vec::new();
    let refused = loop {
        let (reader, head) = open().await;
        if !head.starts_with("HTTP/1.1 200 ") {
            break head;
        }
        readers.push(reader);
    };
    assert!((500..1000).contains(&readers.len()), "{}", readers.len());
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    let mut stays = readers.swap_remove(0);
    drop(readers);
    let others = [open().await, open().await, open().await];
    assert!(others.iter().all(|(_, head)| head.starts_with("HTTP/1.1 200 ")), "{}", others[0].1);
    let _mower = server.thing("mqtt", "mower-1").await;
    stays.event("session.started").await;
}

#[tokio::test]
async fn what_happens_is_in_the_stream_and_can_be_gone_on_from() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let before = call(&mut operator, "event.list", "{}").await["last"].as_u64().expect("a number");
    let mut mower = server.thing("mqtt", "mower-1").await;
    let alarm = |state: u8| json!({ "key": "fire", "state": state, "msg": "hot" }).to_string();
    for state in [1, 1, 0] {
        call(&mut mower, "alarm.publish", &alarm(state)).await;
    }
    let ask = json!({ "thingKey": "mower-1", "method": "mow", "ackTimeout": 0 }).to_string();
    call(&mut operator, "method.exec", &ask).await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-1"}"#).await;
    let page = json!({ "after": before, "limit": 3 }).to_string();
    let mut page = call(&mut operator, "event.list", &page).await;
    let mut events = Vec::new();
    loop {
        events.extend(page["result"].as_array().expect("a list").clone());
        if page["iterator"].is_null() {
            break;
        }
        let next = json!({ "after": page["last"], "limit": 3 }).to_string();
        page = call(&mut operator, "event.list", &next).await;
    }
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("one")).collect();
    assert_eq!(
        kinds,
        [
            "thing.created",
            "session.started",
            "alarm.changed",
            "alarm.changed",
            "method.called",
            "method.purged",
            "thing.delete",
            "thing.deleted",
            "session.ended",
            "session.revoked",
        ]
    );
    let ended = &events[8];
    assert_eq!(
        (&ended["endReason"], &ended["by"], &ended["thingKey"], &ended["orgKey"]),
        (&json!("revoked"), &json!(OPERATOR.0), &json!("mower-1"), &json!("BasicOrg"))
    );
    let numbers: Vec<_> = events.iter().map(|event| event["number"].as_u64()).collect();
    assert!(numbers.is_sorted() && events[1].get("sessionId").is_none());
    let some = json!({ "types": ["session.*", "alarm"], "last": "1h", "thingKey": "mower-1" });
    let found = call(&mut operator, "event.list", &some.to_string()).await;
    let found = found["result"].as_array().expect("a list");
    assert_eq!((found.len(), &found[0]["type"]), (5, &json!("session.revoked")));
    for (from, is_there) in [("127.0.0.1:", true), ("127.0.0.1:1x", false), ("10.", false)] {
        let asked = json!({ "remoteAddr": from, "after": before });
        let found = call(&mut operator, "event.list", &asked.to_string()).await;
        let found = found["result"].as_array().expect("a list");
        assert_eq!(!found.is_empty(), is_there, "{from}");
        let told = |event: &Value| event["remoteAddr"].as_str().unwrap_or_default().to_owned();
        assert!(found.iter().all(|event| told(event).starts_with(from)), "{from}: {found:?}");
    }
    let ahead = call(&mut operator, "event.list", r#"{"after":99999999}"#).await;
    assert_eq!((&ahead["resync"], &ahead["result"]), (&json!(true), &json!([])));
    for wrong in [
        r#"{"typs":"x"}"#,
        r#"{"types":"a b"}"#,
        r#"{"types":"sessions"}"#,
        r#"{"types":["alarm","session.start"]}"#,
        r#"{"orgKey":"YorkOrg"}"#,
    ] {
        assert_eq!(reply(&mut operator, "event.list", wrong).await["success"], json!(false));
    }
}

#[tokio::test]
async fn every_list_finds_an_address_of_ipv6_without_its_bracket() {
    let server = TestServer::with(&[("TR50D_PROXY__TRUSTED", "127.0.0.0/8")]);
    let mut operator = server.operator("http").await;
    for password in [OPERATOR.1, "wrong"] {
        let params = json!({ "username": OPERATOR.0, "password": password });
        let body =
            json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string();
        send(&server, "POST /api HTTP/1.1\r\nX-Forwarded-For: 2001:db8::5", body.as_bytes()).await;
    }
    for (prefix, is_there) in [("[2001:db8:", true), ("2001:DB8::5", true), ("2001:db9", false)] {
        for (command, name) in [
            ("session.list", "remoteAddr"),
            ("event.list", "remoteAddr"),
            ("audit.list", "remoteAddr"),
            ("login.failures", "address"),
        ] {
            let found = call(&mut operator, command, &json!({ name: prefix }).to_string()).await;
            let found = found["result"].as_array().expect("a list");
            assert_eq!(!found.is_empty(), is_there, "{command} {prefix}");
        }
    }
}

#[tokio::test]
async fn a_ban_is_an_event_and_so_are_the_sessions_that_it_ends() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let _mower = server.thing("mqtt", "mower-1").await;
    let before = call(&mut operator, "event.list", "{}").await["last"].as_u64().expect("a number");
    for change in [
        json!({ "disabled": true, "reason": "stolen" }),
        json!({ "reason": "found broken" }),
        json!({ "disabled": false }),
        json!({ "name": "Mower" }),
    ] {
        let mut update = change;
        update["key"] = json!("mower-1");
        call(&mut operator, "thing.update", &update.to_string()).await;
    }
    let asked = json!({ "after": before, "types": ["thing.*", "session"] }).to_string();
    let found = call(&mut operator, "event.list", &asked).await;
    let events = found["result"].as_array().expect("a list");
    let of_class = |class: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["class"] == class).collect()
    };
    let types = |class: &str| -> Vec<Value> {
        of_class(class).iter().map(|event| event["type"].clone()).collect()
    };
    assert_eq!(types("things"), ["thing.banned", "thing.banned", "thing.unbanned"], "{found}");
    let banned = of_class("things")[0];
    assert_eq!((&banned["reason"], &banned["whoAmI"]), (&json!("stolen"), &json!(OPERATOR.0)));
    assert_eq!(types("sessions"), ["session.ended", "session.revoked"], "{found}");
    for event in of_class("sessions") {
        assert_eq!(event["by"], json!(OPERATOR.0), "{event}");
    }
}

#[tokio::test]
async fn a_ban_ends_what_is_followed_without_a_session() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let user = json!({ "emailAddress": "new@basicorg.example", "password": "new-user-password" });
    let id = call(&mut operator, "user.create", &user.to_string()).await["id"].clone();
    let role = r#"{"key":"seer","perms":["event.list","thing.list"]}"#;
    call(&mut operator, "role.create", role).await;
    let place = json!({ "userId": id, "orgId": BASIC, "roles": ["seer"] });
    call(&mut operator, "user.org.add", &place.to_string()).await;
    let encoded = data_encoding::BASE64.encode(b"new@basicorg.example:new-user-password");
    let basic = format!("Authorization: Basic {encoded}\r\n");
    let mut reader = Reader::open(&server, "?types=thing", &basic).await;
    call(&mut operator, "thing.create", r#"{"key":"shed-1"}"#).await;
    assert_eq!(reader.event("thing.created").await["thingKey"], "shed-1");
    let ban = json!({ "id": id, "disabled": true }).to_string();
    call(&mut operator, "user.update", &ban).await;
    call(&mut operator, "thing.create", r#"{"key":"shed-2"}"#).await;
    let rest = reader.until("0\r\n\r\n").await;
    assert!(!rest.contains("shed-2"), "{rest}");
}

#[tokio::test]
async fn whoever_comes_back_with_a_session_that_has_ended_guesses_no_token() {
    let server = TestServer::start();
    let answer = async |token: &str| {
        let head = "GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let request = format!("{head}Authorization: Bearer {token}\r\n\r\n");
        exchange(&server, request.as_bytes()).await
    };
    for _ in 0..300 {
        let refused = answer("000000000000000000000001").await;
        assert_eq!(&refused[9..12], "401", "{refused}");
    }
    let bearer = format!("Authorization: Bearer {}\r\n", support::TOKEN);
    Reader::open(&server, "", &bearer).await;
}

#[tokio::test]
async fn who_follows_over_http_gets_what_it_may_see_until_its_session_ends() {
    let server = TestServer::start();
    let id = session_id(&server).await;
    let header = format!("sessionId: {id}\r\n");
    let mut reader =
        Reader::open(&server, "?types=session,alarm.*&thingKey=mower-1", &header).await;
    reader.until("\nid: ").await;
    let mut mower = server.thing("mqtt", "mower-1").await;
    drop(server.thing("mqtt", "mower-2").await);
    let started = reader.event("session.started").await;
    assert_eq!(started["whoAmI"], "mower-1");
    call(&mut mower, "alarm.publish", r#"{"key":"fire","state":2}"#).await;
    let alarm = reader.event("alarm.changed").await;
    assert_eq!((&alarm["alarm"], &alarm["state"]), (&json!("fire"), &json!(2)));
    drop(reader);

    // Who comes back goes on where it was.
    let back = format!("{header}Last-Event-ID: {}\r\n", started["number"]);
    let mut reader = Reader::open(&server, "?types=alarm", &back).await;
    assert_eq!(reader.event("alarm.changed").await["number"], alarm["number"]);
    // A number that is not there yet.
    for number in ["9999999", "18446744073709551615", "99999999999999999999"] {
        let ahead = format!("{header}Last-Event-ID: {number}\r\n");
        assert!(Reader::open(&server, "", &ahead).await.event("resync").await["first"].is_u64());
    }

    // Basic, and by the parameter of pages that can set no header.
    let own = format!("?sessionId={id}&types=role");
    let mut other = Reader::open(&server, &own, "").await;
    let mut operator = server.operator("mqtt").await;
    let role = r#"{"key":"seer","perms":["event.list","thing.list"]}"#;
    call(&mut operator, "role.create", role).await;
    assert_eq!(other.event("role.create").await["class"], "administration");

    let body = r#"{"cmd":{"command":"session.end"}}"#;
    let head = format!("Host: x\r\nConnection: close\r\n{header}Content-Length: {}", body.len());
    let end = format!("POST /api HTTP/1.1\r\n{head}\r\n\r\n{body}");
    assert!(exchange(&server, end.as_bytes()).await.contains("true"));
    reader.end().await;
    other.end().await;

    for (request, status) in [
        ("GET /events HTTP/1.1\r\n", "401"),
        ("POST /events HTTP/1.1\r\nContent-Length: 0\r\n", "405"),
        ("HEAD /events HTTP/1.1\r\n", "405"),
        ("GET /events?nothing=1 HTTP/1.1\r\n", "400"),
    ] {
        let request = format!("{request}Host: x\r\nConnection: close\r\n\r\n");
        let answer = exchange(&server, request.as_bytes()).await;
        assert_eq!(&answer[9..12], status, "{answer}");
    }
}

#[tokio::test]
async fn topics_of_events_bring_what_may_be_read() {
    let server = TestServer::start();
    let login = |id: &str, user: (&str, &str)| Connect::login(Version::V5, id, user.0, user.1);
    let mut wire = login("reader", OPERATOR).open(&server).await;
    let mut all = login("all", OPERATOR).open(&server).await;
    assert_eq!(wire.subscribe("$events/session/+/mower-1", 1).await, 0);
    assert_eq!(all.subscribe("#", 0).await, 0);
    assert_eq!(all.subscribe("+/session/#", 0).await, 0);
    let viewer = ("viewer@basicorg.example", "demo-viewer-password");
    let mut viewer = login("viewer", viewer).open(&server).await;
    assert_eq!(viewer.subscribe("$events/#", 0).await, 0x87);

    let mower = server.thing("mqtt", "mower-1").await;
    let message = wire.message().await;
    let (topic, payload) = message.texts();
    assert_eq!(topic, "$events/session/started/mower-1");
    let event: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!((&event["whoAmI"], &event["class"]), (&json!("mower-1"), &json!("sessions")));
    drop(mower);
    assert_eq!(wire.message().await.texts().0, "$events/session/ended/mower-1");
    // Nobody publishes there, and no wildcard stands for the first level.
    wire.send(&wire.publish(0x02, 7, "$events/session/ended/mower-1", "x")).await;
    assert_eq!(wire.acknowledgement().await.0, 0x87);
    wire.tell("plain", "x").await;
    loop {
        let message = all.message().await;
        assert!(!message.texts().0.starts_with('$'), "{message:?}");
        if message.texts() == ("plain", "x") {
            break;
        }
    }
}

#[tokio::test]
async fn rights_are_asked_for_each_event() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let role = r#"{"key":"seer","perms":["event.list","alarm.current"]}"#;
    call(&mut operator, "role.create", role).await;
    let user = json!({
        "emailAddress": "seer@basicorg.example", "password": "a-seer-password-1",
        "defaultOrgId": "5cf885f41c5bd771c8065be8",
    });
    let made = call(&mut operator, "user.create", &user.to_string()).await;
    let place = json!({
        "userId": made["id"], "orgId": "5cf885f41c5bd771c8065be8", "roles": ["seer"],
    });
    call(&mut operator, "user.org.add", &place.to_string()).await;
    let mut seer = connect(&server.url("mqtt", "seer@basicorg.example", "a-seer-password-1")).await;
    let mut mower = server.thing("tcp", "mower-1").await;
    let alarm = |state: u8| json!({ "key": "fire", "state": state }).to_string();
    call(&mut mower, "alarm.publish", &alarm(1)).await;
    let seen = call(&mut seer, "event.list", "{}").await;
    let kinds: Vec<_> = seen["result"].as_array().expect("a list").iter().collect();
    assert_eq!((kinds.len(), &kinds[0]["type"]), (1, &json!("alarm.changed")));

    // A right that is taken away ends the flow at once.
    let id = log_in(&server, "seer@basicorg.example", "a-seer-password-1").await;
    let header = format!("sessionId: {id}\r\n");
    let mut reader = Reader::open(&server, "", &header).await;
    call(&mut mower, "alarm.publish", &alarm(2)).await;
    assert_eq!(reader.event("alarm.changed").await["state"], 2);
    let less = r#"{"key":"seer","perms":["event.list","session.list"]}"#;
    call(&mut operator, "role.update", less).await;
    call(&mut mower, "alarm.publish", &alarm(3)).await;
    drop(server.thing("mqtt", "mower-2").await);
    let text = reader.until("event: session.started").await;
    assert!(!text.contains("alarm.changed"), "{text}");
    // Without the right to any, there is nothing to follow.
    let none = r#"{"key":"seer","perms":["session.list","alarm.current"]}"#;
    call(&mut operator, "role.update", none).await;
    call(&mut mower, "alarm.publish", &alarm(4)).await;
    reader.end().await;
}
