//! Ill-formed Unicode from outside: in JSON it is read as U+FFFD over every door, one for each byte
//! and each lone surrogate (`docs/protocol/tr50.md` 2); names that have to be exact are refused.

use std::io::Read;

use client::Version;
use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use serde_json::{Value, json};
use support::http::exchange;
use support::mqtt::{Connect, DISCONNECT, Wire};
use support::replies::OPERATOR_LOGIN;
use support::{SOON, TOKEN, TestServer, call, eventually, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const R: char = char::REPLACEMENT_CHARACTER;

/// Texts as they come, and as they are read.
fn texts() -> Vec<(Vec<u8>, String)> {
    let text = |bytes: &[u8], read: String| (bytes.to_vec(), read);
    vec![
        text(b"23\xb0C", format!("23{R}C")),
        text(b"cut \xe2\x82", format!("cut {R}{R}")),
        text(b"cut \xf0\x9f\x98 short", format!("cut {R}{R}{R} short")),
        text(b"\xed\xa0\xbd\xed\xb8\x80", R.to_string().repeat(6)),
        text(b"\xed\xa0\xbdx", format!("{R}{R}{R}x")),
        text(br"\ud83d", format!("{R}")),
        text(br"a\ud83dA\ude00\u0042", format!("a{R}A{R}B")),
        text(br"\ud83d\ud83d\ude00", format!("{R}\u{1f600}")),
        text(br"\ude00\ud83d", format!("{R}{R}")),
        text("\u{e9}\u{1f600}\\ud83d\\ude00".as_bytes(), "\u{e9}\u{1f600}\u{1f600}".to_owned()),
        text(b"\xff\xfe\\u00b0\xc0\x80", format!("{R}{R}\u{b0}{R}{R}")),
    ]
}

/// A request with a text in values, in keys, in a name and in a command that nobody knows, and the
/// expected reply to it.
fn request(bytes: &[u8], read: &str) -> (Vec<u8>, Value) {
    let parts: [&[u8]; 13] = [
        br#"{"1":{"command":"diag.echo","params":{"v":""#,
        bytes,
        br#"","k"#,
        bytes,
        br#"":[""#,
        bytes,
        br#""]}},"n"#,
        bytes,
        br#"":{"command":"diag.ping"},"3":{"command":"no."#,
        bytes,
        br#""},"x":{"other":""#,
        bytes,
        br#"","command":"diag.ping"}}"#,
    ];
    let failure = json!({
        "success": false,
        "errorCodes": [-95003],
        "errorMessages": [format!("Unknown command \"no.{read}\".")],
    });
    let mut reply = json!({
        "1": {"success": true, "params": {"v": read, format!("k{read}"): [read]}},
        "3": failure,
        "x": {"success": true},
    });
    reply[format!("n{read}")] = json!({"success": true});
    (parts.concat(), reply)
}

fn parsed(reply: &[u8]) -> Value {
    serde_json::from_slice(reply).unwrap_or_else(|why| panic!("{why}: {}", reply.escape_ascii()))
}

/// Posts bytes; the body of the answer.
async fn post(server: &TestServer, path: &str, headers: &str, body: &[u8]) -> String {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n"
    );
    let answer = exchange(server, &[head.as_bytes(), body].concat()).await;
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// The header of a session of the operator.
async fn session(server: &TestServer) -> String {
    let reply = parsed(post(server, "/api", "", OPERATOR_LOGIN.as_bytes()).await.as_bytes());
    let id = reply["auth"]["params"]["sessionId"].as_str().expect("an id");
    format!("sessionId: {id}\r\n")
}

/// A TCP connection of a thing.
struct Stream(TcpStream, Vec<u8>);

impl Stream {
    async fn open(server: &TestServer) -> Self {
        Self(TcpStream::connect(server.address("tcp")).await.expect("a connection"), Vec::new())
    }

    async fn logged_in(server: &TestServer, key: &str) -> Self {
        let mut stream = Self::open(server).await;
        let params = json!({"thingKey": key, "appToken": TOKEN});
        let login = json!({"auth": {"command": "api.authenticate", "params": params}});
        stream.send(login.to_string().as_bytes()).await;
        assert_eq!(stream.line().await["auth"]["success"], true);
        stream
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("written");
    }

    async fn line(&mut self) -> Value {
        loop {
            if let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
                return parsed(&self.1.drain(..=end).collect::<Vec<_>>());
            }
            let read = timeout(SOON, self.0.read_buf(&mut self.1)).await;
            assert!(read.expect("a line in time").expect("a connection") > 0, "no line");
        }
    }
}

#[tokio::test]
async fn every_door_reads_it_alike() {
    let server = TestServer::start();
    let header = session(&server).await;
    let mut wire = Connect::thing(Version::V311, "mower").open(&server).await;
    let mut stream = Stream::logged_in(&server, "stream").await;
    for (bytes, read) in texts() {
        let (request, expected) = request(&bytes, &read);
        let what = bytes.escape_ascii();
        let over_http = post(&server, "/api", &header, &request).await;
        assert_eq!(parsed(over_http.as_bytes()), expected, "HTTP, {what}");
        // A BOM before it, and what is no text behind it.
        let more = [b"\xef\xbb\xbf", &request[..], b"} \xff \\ud83d"].concat();
        let over_http = post(&server, "/api", &header, &more).await;
        assert_eq!(parsed(over_http.as_bytes()), expected, "HTTP with more, {what}");
        wire.send(&wire.publish(0, 0, "api/1", &request)).await;
        assert_eq!(parsed(&wire.message().await.payload), expected, "MQTT, {what}");
        wire.send(&wire.publish(0, 0, "apiz/1", deflate(&request))).await;
        let message = wire.message().await;
        assert_eq!(parsed(&inflate(&message.payload)), expected, "apiz, {what}");
        // A stream of values without line ends, in pieces.
        for piece in [&request[..], b" ", &request[..], b"\n"].concat().chunks(7) {
            stream.send(piece).await;
        }
        assert_eq!(stream.line().await, expected, "TCP, {what}");
        assert_eq!(stream.line().await, expected, "TCP again, {what}");
    }
    // What is no JSON is none with such bytes either.
    wire.send(&wire.publish(0, 0, "api/1", b"{\"1\":\xb0}")).await;
    assert_eq!(parsed(&wire.message().await.payload)["errorCodes"], json!([-95001]));
    stream.send(b"{\"1\":{\"command\":\"diag.ping\",\xff}}\n").await;
    assert_eq!(stream.line().await["errorCodes"], json!([-95001]));
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::new();
    let mut encoder = ZlibEncoder::new(bytes, Compression::default());
    encoder.read_to_end(&mut deflated).expect("zlib");
    deflated
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    ZlibDecoder::new(bytes).read_to_end(&mut inflated).expect("zlib");
    inflated
}

#[tokio::test]
async fn what_is_kept_and_passed_on_is_well_formed() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut mower = Connect::thing(Version::V311, "mower").open(&server).await;
    let batch = b"{\"1\":{\"command\":\"attribute.publish\",\
        \"params\":{\"key\":\"t\xb0\",\"value\":\"23\xb0C\"}},\
        \"2\":{\"command\":\"property.publish\",\"params\":{\"key\":\"\\ud83d\",\"value\":5}},\
        \"3\":{\"command\":\"log.publish\",\"params\":{\"msg\":\"\xc3\"}},\
        \"4\":{\"command\":\"alarm.publish\",\
        \"params\":{\"key\":\"a\",\"state\":1,\"msg\":\"\\udead\"}}}";
    mower.send(&mower.publish(2, 1, "api/1", batch)).await;
    mower.expect(&[0x40, 2, 0, 1]).await;
    let answer = parsed(&mower.message().await.payload);
    for id in ["1", "2", "3", "4"] {
        assert_eq!(answer[id], json!({"success": true}), "{answer}");
    }
    let read = call(
        &mut operator,
        "attribute.current",
        &format!(r#"{{"thingKey":"mower","key":"t{R}"}}"#),
    )
    .await;
    assert_eq!(read["value"], format!("23{R}C"));
    // Lone surrogates in the question are the same name.
    let key = r#"{"thingKey":"mower","key":"\ude00"}"#;
    assert_eq!(call(&mut operator, "property.current", key).await["value"], 5);
    let alarm = call(&mut operator, "alarm.current", r#"{"thingKey":"mower","key":"a"}"#).await;
    assert_eq!(alarm["msg"], R.to_string());

    // Mail, to the device and back.
    let header = session(&server).await;
    let mail = b"{\"1\":{\"command\":\"mailbox.send\",\"params\":{\"thingKey\":\"mower\",\
        \"command\":\"show\",\"params\":{\"text\":\"\xb0\\ud83d\"},\"ackTimeout\":0}}}";
    post(&server, "/api", &header, mail).await;
    mower.message().await;
    mower.send(&mower.publish(0, 0, "api", br#"{"1":{"command":"mailbox.check"}}"#)).await;
    let checked = parsed(&mower.message().await.payload);
    let message = &checked["1"]["params"]["messages"][0];
    assert_eq!(message["params"]["text"], format!("{R}{R}"), "{checked}");
    let id = message["id"].as_str().expect("an id");
    let ack = [
        format!(r#"{{"1":{{"command":"mailbox.ack","params":{{"id":"{id}","params":{{"said":""#)
            .as_bytes(),
        b"\xff\"}}}}",
    ]
    .concat();
    mower.send(&mower.publish(0, 0, "api", ack)).await;
    assert_eq!(parsed(&mower.message().await.payload)["1"]["success"], true);
}

#[tokio::test]
async fn payloads_of_things_topics_and_wills_are_read_so_too() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let note = r#"{"thingKey":"mower","key":"note"}"#;
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut mower = Connect::thing(version, "mower").open(&server).await;
        let text = b"23\xb0C \xf0\x9f\x98";
        mower.send(&mower.publish(2, 9, "thing/self/attribute/note", text)).await;
        mower.frame().await.expect("a PUBACK");
        let read = call(&mut operator, "attribute.current", note).await;
        assert_eq!(read["value"], format!("23{R}C {R}{R}{R}"), "{version:?}");
        // Only a name that has to be exact is refused, or what is no number.
        mower.send(&mower.publish(2, 9, "thing/self/property/p", b"5\xb0")).await;
        mower.frame().await.expect("a PUBACK");
        let property = r#"{"thingKey":"mower","key":"p"}"#;
        assert_eq!(reply(&mut operator, "property.current", property).await["success"], false);
    }
    let will = Connect::thing(Version::V311, "ghost").will("thing/self/attribute/note", "gone!");
    let mut frame = will.frame();
    let at = frame.windows(5).position(|bytes| bytes == b"gone!").expect("the will") + 4;
    frame[at] = 0xb0;
    let mut ghost = Wire::open(&server, Version::V311).await;
    ghost.send(&frame).await;
    ghost.expect(&[0x20, 2, 0, 0]).await;
    drop(ghost);
    let note = r#"{"thingKey":"ghost","key":"note"}"#;
    eventually("the will", async || {
        let read = reply(&mut operator, "attribute.current", note).await;
        read["params"]["value"] == format!("gone{R}")
    })
    .await;
}

#[tokio::test]
async fn forms_are_read_so_too() {
    let server = TestServer::start();
    let header = session(&server).await;
    let check = async |form: &[u8], expected: Value| {
        let answer = post(&server, "/rest/_/diag.echo", &header, form).await;
        assert_eq!(parsed(answer.as_bytes())["params"], expected, "{}", form.escape_ascii());
    };
    check(b"a=23\xb0C", json!({"a": format!("23{R}C")})).await;
    check(b"%b0=%f0%9F%98", json!({R.to_string(): format!("{R}{R}{R}")})).await;
    check(b"a=%ed%a0%bd%ed%b8%80", json!({"a": R.to_string().repeat(6)})).await;
    let refused =
        post(&server, "/rest/auth", "", b"username=operator%40basicorg.example&password=\xb0")
            .await;
    let refused = parsed(refused.as_bytes());
    assert_eq!(refused["errorCodes"], json!([-95005]));
    let message = refused["errorMessages"][0].as_str().expect("a text");
    assert!(message.contains("\"password\" has to be exact"), "{message}");
}

#[tokio::test]
async fn what_has_to_be_exact_fails_and_the_rest_is_carried_out() {
    let server = TestServer::start();
    let header = session(&server).await;
    let check = async |command: &str, params: &[u8], name: &str| {
        for text in [&b"m\xb0"[..], br"m\ud83d", b"m\xed\xa0\xbd"] {
            let params = params.split(|byte| *byte == b'@').collect::<Vec<_>>().join(text);
            let request = [
                br#"{"1":{"command":"diag.ping"},"2":{"command":""#,
                command.as_bytes(),
                br#"","params":"#,
                &params,
                br#"},"3":{"command":"diag.ping"}}"#,
            ]
            .concat();
            let reply = parsed(post(&server, "/api", &header, &request).await.as_bytes());
            let message = reply["2"]["errorMessages"][0].as_str().unwrap_or_default();
            assert!(message.contains(&format!("\"{name}\" has to be exact")), "{command}: {reply}");
            assert_eq!(reply["2"]["errorCodes"], json!([-95005]), "{reply}");
            assert_eq!(
                (&reply["1"]["success"], &reply["3"]["success"]),
                (&json!(true), &json!(true))
            );
        }
    };
    check("thing.create", br#"{"key":"@","name":"x"}"#, "key").await;
    check("thing.find", br#"{"key":"@"}"#, "key").await;
    check("property.publish", br#"{"thingKey":"@","key":"a","value":1}"#, "thingKey").await;
    check("thing.tag.add", br#"{"thingKey":["a","@"],"tags":["t"]}"#, "thingKey").await;
    check("thing.list", br#"{"keys":["@"]}"#, "keys").await;
    check("session.list", br#"{"thingKey":"@"}"#, "thingKey").await;
    check("session.list", br#"{"userName":"@"}"#, "userName").await;
    check("user.create", br#"{"emailAddress":"@","password":"long enough"}"#, "emailAddress").await;
    check("user.create", br#"{"emailAddress":"a","password":"long enough @"}"#, "password").await;
    check("user.find", br#"{"username":"@"}"#, "username").await;
    check("user.update", br#"{"oldPassword":"@","password":"long enough"}"#, "oldPassword").await;
    check("user.org.find", br#"{"emailAddress":"@"}"#, "emailAddress").await;
    check("app.create", br#"{"name":"x","token":"long enough it is @"}"#, "token").await;
    check("app.find", br#"{"token":"@"}"#, "token").await;
    check("role.create", br#"{"key":"@"}"#, "key").await;
    check("file.put", br#"{"fileName":"@","global":true}"#, "fileName").await;
    check("file.get", br#"{"fileName":"@","global":true}"#, "fileName").await;
    let login = br#"{"username":"x","password":"@"}"#;
    let protected = [br#"{"fileName":"f","global":true,"basicAuth":"#, &login[..], b"}"].concat();
    check("file.put", &protected, "basicAuth").await;
    check("api.authenticate", br#"{"thingKey":"@","appToken":"demo-token-basicorg"}"#, "thingKey")
        .await;
    check("api.authenticate", br#"{"thingKey":"a","appToken":"@"}"#, "appToken").await;
    check("api.authenticate", login, "password").await;

    // A login fails as a whole, and nobody registers.
    let auth = b"{\"auth\":{\"command\":\"api.authenticate\",\"params\":{\"thingKey\":\"new\xb0\",\
        \"appToken\":\"demo-token-basicorg\"}},\"1\":{\"command\":\"diag.ping\"}}";
    let reply = parsed(post(&server, "/api", "", auth).await.as_bytes());
    assert_eq!((&reply["success"], &reply["errorCodes"]), (&json!(false), &json!([-95005])));
    let mut stream = Stream::open(&server).await;
    stream.send(auth).await;
    assert_eq!(stream.line().await["errorCodes"], json!([-95005]));
    let mut operator = server.operator("http").await;
    let things = call(&mut operator, "thing.list", r#"{"show":["key"]}"#).await;
    assert_eq!(things["count"], 0, "{things}");
}

#[tokio::test]
async fn names_that_became_the_same_are_not_executed() {
    let server = TestServer::start();
    let header = session(&server).await;
    let request =
        b"{\"\xb0\":{\"command\":\"thing.create\",\"params\":{\"key\":\"a\",\"name\":\"a\"}},\
        \"2\":{\"command\":\"diag.ping\"},\"\xb1\":{\"command\":\"diag.ping\"}}";
    let reply = parsed(post(&server, "/api", &header, request).await.as_bytes());
    assert_eq!(reply["2"]["success"], true);
    assert_eq!(reply[R.to_string()]["errorCodes"], json!([-95001]), "{reply}");
    let mut operator = server.operator("http").await;
    assert_eq!(call(&mut operator, "thing.list", "").await["count"], 0);
}

#[tokio::test]
async fn the_strings_of_mqtt_itself_stay_strict() {
    let server = TestServer::start();
    for (topic, flags) in [(&b"thing/\xb0/x"[..], 0x30), (b"\xed\xa0\xbd", 0x32)] {
        let mut wire = Connect::thing(Version::V311, "strict").open(&server).await;
        let length = u8::try_from(topic.len()).expect("short");
        let pkid: &[u8] = if flags == 0x32 { &[0, 1] } else { b"" };
        let body = [&[0, length], topic, pkid, b"1"].concat();
        let head = [flags, u8::try_from(body.len()).expect("short")];
        wire.send(&[&head, &body[..]].concat()).await;
        wire.expect_end().await;
    }
    // A password is binary: one that is ill-formed is a wrong one.
    let connect = Connect::login(Version::V311, "x", "strict", "demo-token-basicorX");
    let mut frame = connect.frame();
    *frame.last_mut().expect("a password") = 0xb0;
    let mut wire = Wire::open(&server, Version::V311).await;
    wire.send(&frame).await;
    wire.expect(&[0x20, 2, 0, 4]).await;
    wire.expect_end().await;
    let mut wire = Connect::thing(Version::V311, "strict").open(&server).await;
    wire.send(DISCONNECT).await;
    wire.expect_end().await;
}

#[tokio::test]
async fn element_and_cognite_read_it_so_too() {
    let server = TestServer::start();
    let basic = BASE64.encode(b"admin@devicewise.com:demo-admin-password");
    let headers = format!("Authorization: Basic {basic}\r\n");
    let body = b"{\"method\":\"ListAuthSessionsByUsername\",\
        \"params\":{\"username\":\"m\xb0\",\"username\":\"\\ud83d\"},\"id\":\"\xff\"}";
    let answer = parsed(post(&server, "/json-rpc/12.3", &headers, body).await.as_bytes());
    assert_eq!(answer["id"], R.to_string(), "{answer}");
    assert!(
        answer.get("result").is_some() || answer["error"]["name"] != "xInvalidRequest",
        "{answer}"
    );

    let login = session(&server).await;
    let id = login.trim_start_matches("sessionId: ").trim();
    let headers = format!("Authorization: Bearer {id}\r\n");
    let body = b"{\"items\":[{\"externalId\":\"a\"}],\
        \"items\":[{\"externalId\":\"\xb0\\ud83d\"}],\"ignoreUnknownIds\":true}";
    let path = "/api/v1/orgs/basic-org/principals/byids";
    let answer = post(&server, path, &headers, body).await;
    assert_eq!(parsed(answer.as_bytes()), json!({"items": []}));
}
