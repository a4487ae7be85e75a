//! `thing.trace` and `tr50d replay`: the frames of one thing, without secrets, over every door.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus};

use client::{Client, Version};
use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use serde_json::{Value, json};
use support::http::{exchange, log_in, post, post_with};
use support::mqtt::{ALL, ASK, Connect, PING, Wire, frame, text};
use support::process::run;
use support::replies::session_id;
use support::tcp::Lines;
use support::{Endpoints, TestServer, call, eventually, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::TR50D;

const TOKEN: &str = "demo-token-basicorg";
const OTHER_TOKEN: &str = "demo-basicorg-16";

async fn start(operator: &mut Client, key: &str) {
    let params = json!({"key": key, "seconds": 600}).to_string();
    let reply = call(operator, "thing.trace", &params).await;
    assert_eq!((&reply["tracing"], &reply["key"]), (&json!(true), &json!(key)), "{reply}");
}

/// The trace of a thing, as it is read.
async fn read(operator: &mut Client, key: &str) -> Value {
    call(operator, "thing.trace", &json!({"key": key, "read": true}).to_string()).await
}

fn rows(trace: &Value) -> Vec<&Value> {
    trace["result"].as_array().expect("frames").iter().collect()
}

/// The bytes of a frame.
fn bytes(row: &Value) -> Vec<u8> {
    let frame = row["frame"].as_str().expect("a frame");
    match row["encoding"].as_str() {
        Some("base64") => BASE64.decode(frame.as_bytes()).expect("base64"),
        _ => frame.as_bytes().to_vec(),
    }
}

/// What rows are: direction, and packet with its topic.
fn outline(trace: &Value) -> Vec<String> {
    let line = |row: &&Value| {
        let topic = row["topic"].as_str().map_or_else(String::new, |topic| format!(" {topic}"));
        let arrow = if row["direction"] == "in" { ">" } else { "<" };
        format!("{arrow} {}{topic}", row["packet"].as_str().expect("a packet"))
    };
    rows(trace).iter().map(line).collect()
}

fn deflated(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    ZlibEncoder::new(text.as_bytes(), Compression::default()).read_to_end(&mut out).expect("done");
    out
}

/// All that can be read in a trace: the reply, its frames, and what is deflated in them.
fn everything(trace: &Value) -> String {
    let mut all = trace.to_string();
    for row in rows(trace) {
        let bytes = bytes(row);
        all.push_str(&String::from_utf8_lossy(&bytes));
        for at in (0..bytes.len()).filter(|at| bytes[*at] == 0x78) {
            let mut plain = Vec::new();
            if ZlibDecoder::new(&bytes[at..]).read_to_end(&mut plain).is_ok() {
                all.push_str(&String::from_utf8_lossy(&plain));
            }
        }
    }
    all
}

fn assert_secret(trace: &Value, secrets: &[&str]) {
    let all = everything(trace);
    for secret in secrets {
        assert!(!secret.is_empty() && !all.contains(secret), "{secret} is in {all}");
        let escaped: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert!(!all.contains(&escaped), "{secret}");
    }
}

#[tokio::test]
async fn packets_of_every_version_are_kept_from_the_connect_on() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for version in ALL {
        start(&mut operator, "mower-1").await;
        let mut wire = Connect::thing(version, "mower-1").open(&server).await;
        let mut other = Connect::thing(version, "mower-2").open(&server).await;
        wire.tell("api/7", ASK).await;
        wire.message().await;
        other.tell("api/7", ASK).await;
        wire.send(PING).await;
        wire.expect(&[0xd0, 0]).await;
        wire.subscribe("a/b", 1).await;
        wire.leave().await;
        let trace = read(&mut operator, "mower-1").await;
        let expected = [
            "> CONNECT",
            "< CONNACK",
            "> PUBLISH api/7",
            "< PUBACK",
            "< PUBLISH reply/7",
            "> PINGREQ",
            "< PINGRESP",
            "> SUBSCRIBE",
            "< SUBACK",
            "> DISCONNECT",
        ];
        let mut sorted = (outline(&trace), expected.map(str::to_owned).to_vec());
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1, "{version:?}");
        assert_eq!(outline(&trace)[..3], expected[..3]);
        let rows = rows(&trace);
        assert_eq!((&rows[0]["redacted"], &rows[0]["door"]), (&json!(true), &json!("mqtt")));
        assert_eq!((&rows[2]["payload"], &rows[2]["redacted"]), (&json!(ASK), &json!(false)));
        let named = match version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        };
        assert!(rows.iter().all(|row| row["version"] == named), "{trace}");
        // The CONNECT is one still, of its own length, without its password.
        let connect = Connect::login(version, "mower-1", "mower-1", &"*".repeat(TOKEN.len()));
        assert_eq!(bytes(rows[0]), connect.frame());
        assert_secret(&trace, &[TOKEN]);
    }
}

#[tokio::test]
async fn no_secret_that_comes_over_mqtt_is_kept() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let stray = log_in(&server, "mower-9", OTHER_TOKEN).await;
    for version in ALL {
        // Connected before the trace begins: nobody knows its token by then.
        let mut early = Connect::thing(version, "mower-1").open(&server).await;
        start(&mut operator, "mower-1").await;
        let mut wire = match version {
            Version::V5 => {
                let user = [&[0x26][..], &text("api-password"), &text("connect-secret-1")].concat();
                Connect::thing(version, "mower-1").id("second").properties(&user)
            }
            _ => Connect::thing(version, "mower-1").id("second"),
        }
        .will("wills/mine", "the token is demo-token-basicorg")
        .open(&server)
        .await;
        let requests = [
            json!({"1": {"command": "user.create", "params": {"email": "a@b.example",
                "password": "mqtt-pass-word-1"}}}).to_string(),
            json!({"1": {"command": "api.authenticate", "params": {"username": "a@b.example",
                "password": "mqtt-pass-word-2", "code": 918_273}}}).to_string(),
            json!({"auth": {"sessionId": stray}, "1": {"command": "session.info"}}).to_string(),
            format!(r#"{{"1":{{"command":"log.publish","params":{{"msg":"x {OTHER_TOKEN} y"}}}}}}"#),
            format!(r#"{{"1":{{"command":"log.publish","params":{{"msg":"x {stray} y"}}}}}}"#),
            r#"{"1":{"command":"log.publish","params":{"msg":"demo\u002dtoken\u002dbasicorg"}}}"#.into(),
            r#"{"1":{"command":"log.publish","params":{"msg":"{\"password\":\"inner-secret-1\"}"}}}"#.into(),
            r#"{"1":{"command":"no.such","params":{"newPassword":"cut-off-secret"#.into(),
            r#"{"1":{"command":"file.put","params":{"fileName":"a.txt"}}}"#.into(),
        ];
        let mut tickets = Vec::new();
        for wire in [&mut early, &mut wire] {
            for request in &requests {
                wire.tell("api/1", request).await;
                let answer = wire.message().await;
                let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
                if let Some(ticket) = answer["1"]["params"]["fileId"].as_str() {
                    tickets.push(ticket.to_owned());
                }
                // The same, deflated.
                wire.send(&wire.publish(0x02, 9, "apiz/1", deflated(request))).await;
                wire.expect(&[0x40, 2, 0, 9]).await;
                wire.message().await;
            }
            wire.tell("free/demo-token-basicorg/topic", &format!("{TOKEN}\0{stray}")).await;
            wire.send(&wire.publish(0x02, 9, "free/b", [b"\xff ", TOKEN.as_bytes()].concat()))
                .await;
            wire.expect(&[0x40, 2, 0, 9]).await;
            if version == Version::V5 {
                let user = [&[0x26][..], &text("token"), &text("user-property-1")].concat();
                wire.send(&wire.publish_with(0x02, 9, "free/c", &user, "x")).await;
                wire.expect(&[0x40, 2, 0, 9]).await;
                wire.send(&frame(
                    0x82,
                    &[&[0, 7], &[user.len() as u8], &user, &text("free/d"), &[0]],
                ))
                .await;
                wire.frame().await.expect("a SUBACK");
            }
        }
        let own = own_session(&mut early).await;
        let trace = read(&mut operator, "mower-1").await;
        assert!(rows(&trace).len() > 60, "{}", rows(&trace).len());
        assert_eq!(tickets.len(), 2);
        let mut secrets = vec![
            TOKEN,
            OTHER_TOKEN,
            &*stray,
            "mqtt-pass-word-1",
            "mqtt-pass-word-2",
            "918273",
            "inner-secret-1",
            "cut-off-secret",
            "connect-secret-1",
            "user-property-1",
            &*own,
        ];
        secrets.extend(tickets.iter().map(String::as_str));
        assert_secret(&trace, &secrets);
        // What is masked is JSON as before.
        let intact = |row: &&&Value| row["payload"].as_str().is_some_and(|p| p.starts_with("{\""));
        let payloads = rows(&trace);
        let payloads =
            payloads.iter().filter(intact).map(|row| row["payload"].as_str().unwrap_or(""));
        let broken: Vec<_> =
            payloads.filter(|p| serde_json::from_str::<Value>(p).is_err()).collect();
        assert!(broken.iter().all(|p| p.contains("newPassword")), "{broken:?}");
        drop((early, wire));
    }
}

/// The id of a session, which `session.info` tells its owner.
async fn own_session(wire: &mut Wire) -> String {
    wire.tell("api/2", r#"{"1":{"command":"session.info"}}"#).await;
    let answer = wire.message().await;
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    let shown = answer["1"]["params"].to_string();
    let id = answer["1"]["params"]["sessionId"].as_str().or(answer["1"]["params"]["id"].as_str());
    id.unwrap_or_else(|| panic!("{shown}")).to_owned()
}

#[tokio::test]
async fn lines_are_kept_from_the_login_on_and_nobody_elses() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    start(&mut operator, "mower-1").await;
    let login = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"appToken":"{TOKEN}","thingKey":"mower-1","pasword":"typed-amiss-1"}}}},"1":{{"command":"diag.ping"}}}}"#
    );
    let mut lines = Lines::connect(&server).await;
    let id = session_id(&lines.ask(&login).await);
    lines.ask("no JSON at all").await;
    lines.ask(&format!(r#"{{"1":{{"command":"log.publish","params":{{"msg":"{id}"}}}}}}"#)).await;
    // A user on the same connection is not traced, nor what the user sees.
    let user = r#"{"auth":{"command":"api.authenticate","params":{"username":"operator@basicorg.example","password":"demo-operator-password"}},"9":{"command":"user.list"}}"#;
    let users = lines.ask(user).await;
    assert!(users.contains("viewer@basicorg.example"), "{users}");
    lines.ask(r#"{"10":{"command":"user.list"}}"#).await;
    // Refused logins of the thing, and that of a token that nobody has.
    let refused = login.replace(TOKEN, "no-such-token-here");
    Lines::connect(&server).await.ask(&refused).await;
    let trace = read(&mut operator, "mower-1").await;
    let expected = ["> request", "< reply", "> malformed", "< reply", "> request", "< reply"];
    assert_eq!(outline(&trace), expected, "{trace}");
    assert_secret(&trace, &[TOKEN, &id, "typed-amiss-1", "viewer@", "demo-operator-password"]);
    let first = bytes(rows(&trace)[0]);
    let first: Value = serde_json::from_slice(&first).expect("JSON as before");
    assert_eq!(first["auth"]["params"]["thingKey"], "mower-1");
    assert_eq!(first["auth"]["params"]["appToken"], "*".repeat(TOKEN.len()));
    // A line that comes in a session of the thing by its id belongs to it.
    let session = log_in(&server, "mower-1", TOKEN).await;
    let mut other = Lines::connect(&server).await;
    other
        .ask(&format!(r#"{{"auth":{{"sessionId":"{session}"}},"1":{{"command":"diag.ping"}}}}"#))
        .await;
    let trace = read(&mut operator, "mower-1").await;
    assert_eq!(outline(&trace)[6..], ["> POST /api", "< 200", "> request", "< reply"]);
    assert_secret(&trace, &[TOKEN, &id, &session]);
}

#[tokio::test]
async fn requests_over_http_are_kept_with_their_answers() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    start(&mut operator, "mower-1").await;
    let session = log_in(&server, "mower-1", TOKEN).await;
    let header = format!("sessionId: {session}\r\n");
    post_with(&server, &header, ASK).await;
    post(
        &server,
        &format!(r#"{{"auth":{{"sessionId":"{session}"}},"1":{{"command":"session.info"}}}}"#),
    )
    .await;
    let put = r#"{"1":{"command":"file.put","params":{"fileName":"a.txt"}}}"#;
    let ticket: Value =
        serde_json::from_str(&post_with(&server, &header, put).await).expect("JSON");
    let ticket = ticket["1"]["params"]["fileId"].as_str().expect("a ticket").to_owned();
    let form = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let body = format!("appToken={TOKEN}&thingKey=mower%2D1");
    let answer = exchange(&server, form("/rest/auth", "", &body).as_bytes()).await;
    let by_form = answer.rsplit("\r\n\r\n").next().expect("a body").trim().to_owned();
    assert_eq!(by_form.len(), 24, "{answer}");
    let spelt: String = session.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = format!("sessionId={spelt}&msg=x+{by_form}");
    exchange(&server, form("/rest/_/log.publish", "", &body).as_bytes()).await;
    exchange(&server, form("/rest/_/diag.ping?token=in-a-query-1", &header, "").as_bytes()).await;
    let bearer = format!("Authorization: Bearer {session}\r\nCookie: biscuit-1\r\n");
    post_with(&server, &format!("{header}{bearer}"), ASK).await;
    // Others, and the operator's own.
    log_in(&server, "mower-2", TOKEN).await;
    let trace = read(&mut operator, "mower-1").await;
    let expected = [
        "> POST /api",
        "< 200",
        "> POST /api",
        "< 200",
        "> POST /api",
        "< 200",
        "> POST /api",
        "< 200",
        "> POST /rest/auth",
        "< 200",
        "> POST /rest/_/log.publish",
        "< 200",
        "> POST /rest/_/diag.ping",
        "< 200",
        "> POST /api",
        "< 200",
    ];
    assert_eq!(outline(&trace), expected, "{trace}");
    let secrets = [TOKEN, &session, &by_form, &ticket, "in-a-query-1", "biscuit-1", &*spelt];
    assert_secret(&trace, &secrets);
}

#[tokio::test]
async fn packets_in_a_websocket_are_kept() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    start(&mut operator, "mower-1").await;
    let address = server.address("http");
    let url = format!("ws://mower-1:{TOKEN}@{address}").parse().expect("a URL");
    let mut client = support::connect(&url).await;
    call(&mut client, "diag.ping", "{}").await;
    let trace = read(&mut operator, "mower-1").await;
    assert_eq!(outline(&trace)[..2], ["> CONNECT", "< CONNACK"]);
    assert!(rows(&trace).iter().all(|row| row["door"] == "ws") && rows(&trace).len() == 4);
    assert_secret(&trace, &[TOKEN]);
}

#[tokio::test]
async fn a_trace_ends_and_says_why() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let ended = async |operator: &mut Client, key: &str| {
        let state = read(operator, key).await;
        state["reason"].as_str().unwrap_or_default().to_owned()
    };
    // Its seconds.
    call(&mut operator, "thing.trace", r#"{"key":"mower-1","seconds":1}"#).await;
    eventually("its time is over", async || ended(&mut operator, "mower-1").await == "time").await;
    let mut wire = Connect::thing(Version::V311, "mower-1").open(&server).await;
    assert_eq!(rows(&read(&mut operator, "mower-1").await).len(), 0);
    // Its megabyte.
    start(&mut operator, "mower-1").await;
    let large = "x".repeat(300_000);
    for _ in 0..4 {
        wire.tell("free/a", &large).await;
    }
    let full = read(&mut operator, "mower-1").await;
    assert_eq!((&full["reason"], &full["tracing"]), (&json!("full"), &json!(false)));
    assert!(full["bytes"].as_u64().expect("bytes") <= 1024 * 1024);
    assert_eq!(outline(&full)[..2], ["> PUBLISH free/a", "< PUBACK"]);
    assert!(rows(&full).len() >= 5, "{}", rows(&full).len());
    // Pages.
    let page =
        call(&mut operator, "thing.trace", r#"{"key":"mower-1","read":true,"after":1,"limit":2}"#)
            .await;
    let numbers: Vec<_> = rows(&page).iter().map(|row| row["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(2), Some(3)]);
    assert_eq!((&page["more"], &page["last"]), (&json!(true), &json!(3)));
    let all = r#"{"key":"mower-1","read":true,"limit":0}"#;
    assert_eq!(rows(&call(&mut operator, "thing.trace", all).await).len(), rows(&full).len());
    // Somebody ends it; it begins anew.
    start(&mut operator, "mower-1").await;
    wire.tell("free/a", "1").await;
    call(&mut operator, "thing.trace", r#"{"key":"mower-1","seconds":0}"#).await;
    wire.tell("free/a", "2").await;
    let stopped = read(&mut operator, "mower-1").await;
    assert_eq!((&stopped["reason"], rows(&stopped).len()), (&json!("stopped"), 2));
    // The thing goes.
    start(&mut operator, "mower-1").await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-1"}"#).await;
    assert_eq!(ended(&mut operator, "mower-1").await, "deleted");
    Connect::thing(Version::V311, "mower-1").open(&server).await;
    let trace = read(&mut operator, "mower-1").await;
    assert!(!outline(&trace).contains(&"> CONNECT".to_owned()), "{trace}");
    // All of it is in the trail.
    let trail = call(&mut operator, "audit.list", r#"{"command":"thing.trace"}"#).await;
    let acts = trail["result"].as_array().expect("events");
    assert!(
        acts.iter().all(|act| act["target"]["name"] == "mower-1" || act["targetName"] == "mower-1"),
        "{trail}"
    );
    assert!(acts.len() >= 6, "{trail}");
}

#[tokio::test]
async fn who_loses_the_right_loses_the_trace() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let mut operator = server.operator("http").await;
    let switch = r#"{"key":"BasicOrg"}"#;
    call(&mut admin, "session.org.switch", switch).await;
    let role = json!({"key": "tracer", "name": "Tracer", "perms": ["thing.trace"]}).to_string();
    call(&mut operator, "role.create", &role).await;
    let user = r#"{"emailAddress":"tracer@basicorg.example","password":"a-long-tracer-password"}"#;
    call(&mut operator, "user.create", user).await;
    let member = r#"{"emailAddress":"tracer@basicorg.example","roles":["tracer"]}"#;
    call(&mut operator, "user.org.add", member).await;
    let url = server.url("http", "tracer@basicorg.example", "a-long-tracer-password");
    let mut tracer = support::connect(&url).await;
    let params = r#"{"key":"mower-1","seconds":600}"#;
    let begun = reply(&mut tracer, "thing.trace", params).await;
    assert_eq!(begun["success"], true, "{begun}");
    let mut wire = Connect::thing(Version::V311, "mower-1").open(&server).await;
    // Who began it may log out.
    tracer.close().await;
    wire.tell("free/a", "1").await;
    let before = rows(&read(&mut operator, "mower-1").await).len();
    assert_eq!(before, 4);
    call(&mut operator, "role.update", r#"{"key":"tracer","perms":["thing.find"]}"#).await;
    wire.tell("free/a", "2").await;
    let trace = read(&mut operator, "mower-1").await;
    assert_eq!((&trace["reason"], rows(&trace).len()), (&json!("revoked"), before), "{trace}");
}

#[tokio::test]
async fn what_is_asked_amiss_is_refused() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut check = async |params: &str, code: i64, says: &str| {
        let reply = reply(&mut operator, "thing.trace", params).await;
        let sentence = reply["errorMessages"][0].as_str().unwrap_or_default();
        assert_eq!(reply["errorCodes"][0], code, "{params}: {reply}");
        assert!(sentence.contains(says), "{params}: {reply}");
    };
    check("{}", -95_004, "key").await;
    check(r#"{"key":"m","second":5}"#, -95_005, "second").await;
    check(r#"{"key":"m","seconds":3601}"#, -95_005, "3600").await;
    check(r#"{"key":"m","seconds":5,"read":true}"#, -95_005, "seconds").await;
    check(r#"{"key":"m","after":5}"#, -95_005, "after").await;
    check(r#"{"key":"m","read":true}"#, -90_008, "trace").await;
    // Another organisation's thing of the same key is another thing.
    start(&mut operator, "mower-1").await;
    let york = Connect::login(Version::V311, "c", "mower-1", "demo-token-yorkorg");
    york.open(&server).await.tell("free/a", "1").await;
    assert_eq!(rows(&read(&mut operator, "mower-1").await).len(), 0);
    // A viewer may not.
    let url = server.url("http", "viewer@basicorg.example", "demo-viewer-password");
    let mut viewer = support::connect(&url).await;
    let refused = reply(&mut viewer, "thing.trace", r#"{"key":"mower-1","read":true}"#).await;
    assert_eq!(refused["errorCodes"][0], -95_006, "{refused}");
}

#[tokio::test]
async fn an_organisation_has_its_share_of_traces() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut begun = 0;
    let refused = loop {
        let params = json!({"key": format!("mower-{begun}"), "seconds": 600}).to_string();
        let reply = reply(&mut operator, "thing.trace", &params).await;
        if reply["success"] != true {
            break reply;
        }
        begun += 1;
    };
    assert!((8..=16).contains(&begun), "{begun}");
    assert_eq!(refused["errorCodes"][0], -95_018, "{refused}");
    // One that has ended makes way.
    call(&mut operator, "thing.trace", r#"{"key":"mower-3","seconds":0}"#).await;
    start(&mut operator, "another").await;
    let gone = reply(&mut operator, "thing.trace", r#"{"key":"mower-3","read":true}"#).await;
    assert_eq!(gone["errorCodes"][0], -90_008, "{gone}");
}

fn tr50d(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = Command::new(TR50D.0);
    command.args(arguments);
    run(command)
}

/// A file with the trace of a thing, as the command line saves it.
fn save(server: &Endpoints, key: &str, file: &Path) {
    let url = format!(
        "http://operator%40basicorg.example:demo-operator-password@{}",
        server.address("http")
    );
    let params = json!({"key": key, "read": true}).to_string();
    let (status, out, err) = tr50d(&["call", "thing.trace", &params, "--url", &url]);
    assert!(status.success(), "{out}{err}");
    std::fs::write(file, out).expect("written");
}

#[tokio::test]
async fn a_recording_is_sent_to_a_test_server_and_compared() {
    let server = TestServer::start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("trace.json");
    let name = file.to_str().expect("UTF-8");
    let mut operator = server.operator("http").await;
    start(&mut operator, "mower-1").await;
    for version in ALL {
        let mut wire = Connect::thing(version, "mower-1").open(&server).await;
        wire.subscribe("free/+", 1).await;
        wire.tell("api/1", r#"{"1":{"command":"diag.time"},"2":{"command":"no.such"}}"#).await;
        wire.message().await;
        wire.leave().await;
    }
    let login = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"appToken":"{TOKEN}","thingKey":"mower-1"}}}}}}"#
    );
    let mut lines = Lines::logged_in(&server, &login).await;
    lines.ask(r#"{"1":{"command":"session.info"}}"#).await;
    drop(lines);
    let session = log_in(&server, "mower-1", TOKEN).await;
    post_with(&server, &format!("sessionId: {session}\r\n"), ASK).await;
    save(&server, "mower-1", &file);
    call(&mut operator, "thing.trace", r#"{"key":"mower-1","seconds":0}"#).await;
    let test = TestServer::start();
    for (scheme, listener, sent) in
        [("mqtt", "mqtt", 12), ("ws", "http", 12), ("tcp", "tcp", 2), ("http", "http", 2)]
    {
        let url = format!("{scheme}://mower-1:{TOKEN}@{}", test.address(listener));
        let arguments = ["replay", name, "--url", &url, "--speed", "0", "--strict"];
        let url = arguments;
        let (status, out, err) = tokio::task::spawn_blocking({
            let arguments: Vec<String> = url.iter().map(|one| (*one).to_owned()).collect();
            move || tr50d(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .expect("run");
        assert!(!out.contains(TOKEN), "{out}");
        let summary = out.lines().last().unwrap_or_default().to_owned();
        assert!(summary.starts_with(&format!("sent {sent}, ")), "{scheme}: {out}{err}");
        assert!(
            status.success() && summary.ends_with("0 other, 0 missing, 0 more"),
            "{scheme}: {out}"
        );
    }
    // Another login may less: that shows.
    let url =
        format!("tcp://viewer%40basicorg.example:demo-viewer-password@{}", test.address("tcp"));
    let (status, out, _) = replayed(&[name, "--url", &url, "--speed", "0", "--strict"]).await;
    assert_eq!(status.code(), Some(1), "{out}");
    assert!(out.contains("\n- ") && out.contains("\n+ "), "{out}");
}

async fn replayed(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut all = vec!["replay".to_owned()];
    all.extend(arguments.iter().map(|one| (*one).to_owned()));
    let work = move || tr50d(&all.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(work).await.expect("run")
}

#[tokio::test]
async fn what_can_t_be_replayed_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("trace.json");
    let name = file.to_str().expect("UTF-8");
    let row = r#"{"ts":"2026-03-02T08:15:00.000Z","direction":"in","door":"tcp","connection":3,"frame":"{}","encoding":"text"}"#;
    let check = async |content: &str, arguments: &[&str], says: &str| {
        std::fs::write(&file, content).expect("written");
        let (status, out, err) = replayed(&[&[name], arguments].concat()).await;
        assert_eq!(status.code(), Some(2), "{out}{err}");
        assert!(err.contains(says), "{says}: {err}");
    };
    check("{", &["--url", "tcp://127.0.0.1:1"], "not JSON").await;
    check("{}", &["--url", "tcp://127.0.0.1:1"], "no frames").await;
    check(row, &["--url", "mqtt://127.0.0.1:1"], "those of tcp").await;
    check(row, &["--url", "tcp://192.0.2.1:1"], "--yes").await;
    check(row, &["--url", "tcp://k:t@127.0.0.1:1"], "connect").await;
    check(row, &["--url", "tcp://k:t@127.0.0.1:1", "--speed", "-1"], "").await;
    // A server that takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = silent.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let url = format!("tcp://k:t@{address}");
    check(row, &["--url", &url, "--timeout", "0.3"], "no answer").await;
}

#[tokio::test]
async fn what_the_operators_page_says_of_traces_works() {
    let server = TestServer::start();
    let dir = tempfile::tempdir().expect("a directory");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let lines: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("tr50d ") && line.contains("mower-42"))
        .filter(|line| line.contains("thing.trace") || line.starts_with("tr50d replay"))
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let operator = "operator%40basicorg.example:demo-operator-password";
    let url = format!("http://{operator}@{}", server.address("http"));
    for line in lines {
        let line = line.replace("@127.0.0.1", &format!("@{}", server.address("mqtt")));
        let mut shell = Command::new("sh");
        let script = format!("tr50d() {{ {} \"$@\"; }}\n{line}", TR50D.0);
        shell.env("URL", &url).current_dir(dir.path()).args(["-c", &script]);
        let (status, out, err) =
            tokio::task::spawn_blocking(move || run(shell)).await.expect("run");
        assert!(status.success(), "{line}\n{out}{err}");
        if line.contains("seconds") {
            let mut wire = Connect::thing(Version::V5, "mower-42").open(&server).await;
            wire.tell("api/1", ASK).await;
            wire.message().await;
            wire.leave().await;
        }
        if line.starts_with("tr50d replay") {
            assert!(out.contains("0 other, 0 missing, 0 more"), "{out}");
        }
    }
}
