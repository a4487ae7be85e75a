//! Mail to devices, and methods: what waits, who fetches it, what becomes of it.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use client::{Client, Version};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use support::http::metrics;
use support::mqtt::{ALL, Connect, DISCONNECT, Wire};
use support::replies::OPERATOR_LOGIN;
use support::tcp::Lines;
use support::{Endpoints, SOON, Signal, TOKEN, TestServer, call, connect, eventually, reply};

use crate::TR50D;

const NOTICE: &str = "notify/mailbox_activity";

/// A device over MQTT 3.1.1, frame by frame.
struct Device {
    wire: Wire,
    requests: u32,
    notices: VecDeque<Value>,
}

impl Device {
    async fn connect(server: &Endpoints, key: &str, client_id: &str) -> Self {
        let wire = Connect::thing(Version::V311, key).id(client_id).open(server).await;
        Self { wire, requests: 0, notices: VecDeque::new() }
    }

    /// Sends a command; the reply.
    async fn ask(&mut self, command: &str, params: Value) -> Value {
        self.requests += 1;
        let number = self.requests;
        let request = json!({ "cmd": { "command": command, "params": params } }).to_string();
        self.wire.send(&self.wire.publish(0, 0, &format!("api/{number}"), request)).await;
        loop {
            let message = self.wire.message().await;
            let payload: Value = serde_json::from_slice(&message.payload).expect("JSON");
            if message.topic == format!("reply/{number}") {
                return payload["cmd"].clone();
            }
            assert_eq!(message.topic, NOTICE);
            self.notices.push_back(payload);
        }
    }

    /// The thing in the next notice.
    async fn noticed(&mut self) -> String {
        let notice = match self.notices.pop_front() {
            Some(notice) => notice,
            None => {
                let message = self.wire.message().await;
                assert_eq!(message.topic, NOTICE);
                serde_json::from_slice(&message.payload).expect("JSON")
            }
        };
        assert_eq!(notice["sessionId"].as_str().map(str::len), Some(24), "{notice}");
        notice["thingKey"].as_str().expect("a key").to_owned()
    }

    /// No notice is on its way.
    async fn expect_quiet(&mut self) {
        assert!(self.notices.is_empty(), "{:?}", self.notices);
        self.wire.expect_quiet().await;
    }

    /// The mails that a check gives out.
    async fn check(&mut self) -> Vec<Value> {
        let reply = self.ask("mailbox.check", json!({ "autoComplete": false })).await;
        assert_eq!(reply["success"], true, "{reply}");
        reply["params"]["messages"].as_array().expect("a list").clone()
    }

    /// Checks, and completes the one mail that comes with its own parameters; its id.
    async fn answer_one(&mut self) -> String {
        let mails = self.check().await;
        assert_eq!(mails.len(), 1, "{mails:?}");
        let id = id_of(&mails[0]);
        let ack = json!({ "id": id, "params": mails[0]["params"]["params"] });
        assert_eq!(self.ask("mailbox.ack", ack).await, json!({ "success": true }));
        id
    }

    async fn close(mut self) {
        self.wire.send(DISCONNECT).await;
        self.wire.expect_end().await;
    }
}

fn id_of(mail: &Value) -> String {
    mail["id"].as_str().expect("an id").to_owned()
}

/// Sends a mail without waiting for the answer; its id.
async fn send(operator: &mut Client, thing: &str, ttl: i64) -> String {
    let params = json!({ "thingKey": thing, "command": "go", "ackTimeout": -1, "ttl": ttl });
    id_of(&call(operator, "mailbox.send", &params.to_string()).await)
}

async fn status(operator: &mut Client, id: &str) -> String {
    let mail = call(operator, "mailbox.find", &json!({ "id": id }).to_string()).await;
    mail["status"].as_str().expect("a status").to_owned()
}

/// Lets a thing be known without a connection.
async fn register(server: &Endpoints, key: &str) {
    server.thing("http", key).await.close().await;
}

#[tokio::test]
async fn a_device_with_an_ordinary_library_answers_methods() {
    let server = TestServer::start();
    let address = server.address("mqtt");
    let mut options = MqttOptions::new("lib", address.ip().to_string(), address.port());
    options.set_credentials("mower", TOKEN).set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 100);
    client
        .publish("api/0", QoS::AtLeastOnce, false, r#"{"c":{"command":"mailbox.check"}}"#)
        .await
        .expect("room");
    let device = tokio::spawn(async move {
        let mut completed = 0;
        while completed < 20 {
            let event = tokio::time::timeout(SOON, events.poll()).await.expect("an event");
            let Event::Incoming(Packet::Publish(publish)) = event.expect("a connection") else {
                continue;
            };
            let payload: Value = serde_json::from_slice(&publish.payload).expect("JSON");
            let tell = async |request: Value| {
                let text = request.to_string();
                client.publish("api/1", QoS::AtLeastOnce, false, text).await.expect("room");
            };
            if publish.topic == NOTICE {
                assert_eq!(payload["thingKey"], "mower");
                tell(json!({ "c": { "command": "mailbox.check" } })).await;
            }
            for mail in payload["c"]["params"]["messages"].as_array().into_iter().flatten() {
                assert_eq!(mail["command"], "method.exec");
                let echo = mail["params"]["params"].clone();
                let update = json!({ "id": mail["id"], "msg": "on it" });
                let ack = json!({ "id": mail["id"], "errorCode": 0, "params": echo });
                tell(json!({ "u": { "command": "mailbox.update", "params": update } })).await;
                tell(json!({ "a": { "command": "mailbox.ack", "params": ack } })).await;
            }
            completed += u32::from(payload["a"]["success"] == true);
        }
    });
    // It may connect after the first call: then the notice after CONNACK tells it.
    register(&server, "mower").await;
    let mut operator = server.operator("http").await;
    for number in 0..20 {
        let params = json!({ "thingKey": "mower", "method": "echo", "params": { "n": number } });
        let answer = call(&mut operator, "method.exec", &params.to_string()).await;
        assert_eq!(answer, json!({ "n": number }));
    }
    device.await.expect("the device is done");
}

#[tokio::test]
async fn a_mail_in_flight_is_not_handed_out_again_until_its_session_ends() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut first = Device::connect(&server, "mower", "first").await;
    let mut second = Device::connect(&server, "mower", "second").await;
    let id = send(&mut operator, "mower", 600).await;
    // Both connections serve the thing.
    assert_eq!((first.noticed().await, second.noticed().await), ("mower".into(), "mower".into()));
    assert_eq!(id_of(&first.check().await[0]), id);
    assert_eq!(first.check().await.len() + second.check().await.len(), 0);
    assert_eq!(status(&mut operator, &id).await, "in-flight");
    first.expect_quiet().await;
    // The one that has it goes: the other one is told.
    first.close().await;
    assert_eq!(second.noticed().await, "mower");
    assert_eq!(id_of(&second.check().await[0]), id);
    // What is in progress stays so.
    second.ask("mailbox.update", json!({ "id": id, "msg": "half" })).await;
    drop(second);
    let mut third = Device::connect(&server, "mower", "third").await;
    third.expect_quiet().await;
    assert_eq!(third.check().await.len(), 0);
    assert_eq!(status(&mut operator, &id).await, "in-progress");
    let done = third.ask("mailbox.ack", json!({ "id": id })).await;
    assert_eq!(done, json!({ "success": true }));
    assert_eq!(status(&mut operator, &id).await, "completed-ok");
}

#[tokio::test]
async fn a_session_over_http_has_its_mails_in_flight_until_it_ends() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut thing = server.thing("http", "poller").await;
    let id = send(&mut operator, "poller", -1).await;
    let checked = call(&mut thing, "mailbox.check", "").await;
    assert_eq!(id_of(&checked["messages"][0]), id);
    assert_eq!(checked["messages"][0].get("expires"), Some(&Value::Null));
    let again = call(&mut thing, "mailbox.check", "").await;
    assert_eq!(again, json!({ "messages": [] }));
    call(&mut thing, "session.end", "").await;
    assert_eq!(status(&mut operator, &id).await, "new");
    let mut thing = server.thing("http", "poller").await;
    assert_eq!(id_of(&call(&mut thing, "mailbox.check", "").await["messages"][0]), id);
}

#[tokio::test]
async fn who_connects_is_told_of_mail_that_waits() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    register(&server, "mower").await;
    let id = send(&mut operator, "mower", 600).await;
    for version in ALL {
        let mut wire = Connect::thing(version, "mower").open(&server).await;
        let message = wire.message().await;
        assert_eq!(message.topic, NOTICE, "{version:?}");
        wire.expect_quiet().await;
    }
    let login = |notify: bool| {
        json!({ "auth": { "command": "api.authenticate", "params": {
            "appToken": TOKEN, "thingKey": "mower", "notify": notify } } })
        .to_string()
    };
    let mut lines = Lines::connect(&server).await;
    lines.ask(&login(true)).await;
    assert!(lines.line().await.starts_with(r#"{"notify":{"topic":"notify/mailbox_activity""#));
    let mut silent = Lines::connect(&server).await;
    silent.ask(&login(false)).await;
    let check = r#"{"c":{"command":"mailbox.check","params":{"limit":0}}}"#;
    assert!(silent.ask(check).await.contains(&id));
    // Nothing waits any more.
    let mut wire = Connect::thing(Version::V311, "mower").open(&server).await;
    wire.expect_quiet().await;
}

#[tokio::test]
async fn mail_survives_a_crash_and_what_was_in_flight_is_new_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = TR50D.serve(&data_dir, &[]);
    let mut operator = server.operator("http").await;
    let mut device = Device::connect(&server, "mower", "a").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(send(&mut operator, "mower", 600).await);
    }
    let checked = device.ask("mailbox.check", json!({ "limit": 4 })).await;
    assert_eq!(checked["params"]["messages"].as_array().map(Vec::len), Some(4));
    device.ask("mailbox.ack", json!({ "id": ids[0], "errorCode": 7, "errorMessage": "no" })).await;
    device.ask("mailbox.update", json!({ "id": ids[1], "msg": "at it" })).await;
    call(&mut operator, "mailbox.purge", &json!({ "id": ids[2] }).to_string()).await;
    let expected = ["completed-error", "in-progress", "purged", "new", "new"];
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        server.end(signal).await;
        server = TR50D.serve(&data_dir, &[]);
        let mut operator = server.operator("http").await;
        for (id, expected) in ids.iter().zip(expected) {
            assert_eq!(status(&mut operator, id).await, expected, "after {signal:?}");
        }
    }
    let mut device = Device::connect(&server, "mower", "a").await;
    assert_eq!(device.noticed().await, "mower");
    let mails = device.check().await;
    assert_eq!(mails.iter().map(id_of).collect::<Vec<_>>(), ids[3..]);
    let again = device.ask("mailbox.ack", json!({ "id": ids[0] })).await;
    assert_eq!(again["errorCodes"][0], -95022, "{again}");
    let late = device.ask("mailbox.ack", json!({ "id": ids[1] })).await;
    assert_eq!(late, json!({ "success": true }));
}

#[tokio::test]
async fn what_a_caller_was_told_survives_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    for round in 0..5 {
        let mut server = TR50D.serve(&data_dir, &[]);
        let mut operator = server.operator("http").await;
        let mut device = Device::connect(&server, "mower", "a").await;
        let exec = tokio::spawn(async move {
            let params = json!({ "thingKey": "mower", "method": "m", "params": { "r": round } });
            call(&mut operator, "method.exec", &params.to_string()).await
        });
        device.noticed().await;
        let id = device.answer_one().await;
        assert_eq!(exec.await.expect("an answer"), json!({ "r": round }));
        server.end(Signal::KILL).await;
        let server = TestServer::in_dir(&data_dir, &[]);
        let mut operator = server.operator("http").await;
        let mail = call(&mut operator, "mailbox.find", &json!({ "id": id }).to_string()).await;
        assert_eq!(
            (&mail["status"], &mail["ackParams"]["r"]),
            (&json!("completed-ok"), &json!(round))
        );
    }
}

#[tokio::test]
async fn a_mail_expires_and_its_caller_is_told() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut device = Device::connect(&server, "mower", "a").await;
    let params = json!({ "thingKey": "mower", "method": "m", "ackTimeout": 60, "ttl": 0.3 });
    let failed = reply(&mut operator, "method.exec", &params.to_string()).await;
    assert_eq!(failed["errorCodes"], json!([-95020]), "{failed}");
    let sentence = failed["errorMessages"][0].as_str().expect("a sentence");
    assert!(sentence.contains("expired before thing \"mower\" answered"), "{sentence}");
    device.noticed().await;
    assert_eq!(device.check().await.len(), 0);
    // Also what is in flight or in progress.
    let id = send(&mut operator, "mower", 1).await;
    device.noticed().await;
    assert_eq!(device.check().await.len(), 1);
    device.ask("mailbox.update", json!({ "id": id })).await;
    eventually("the mail expires", async || status(&mut operator, &id).await == "expired").await;
    let late = device.ask("mailbox.ack", json!({ "id": id })).await;
    assert_eq!(late["errorCodes"][0], -95022, "{late}");
    let counts = call(&mut operator, "mailbox.summary", "").await;
    assert_eq!((&counts["expired"], &counts["total"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_mail_expires_while_there_is_no_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let id = {
        let server = TestServer::in_dir(&data_dir, &[]);
        register(&server, "mower").await;
        let mut operator = server.operator("http").await;
        send(&mut operator, "mower", 1).await
    };
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let server = TestServer::in_dir(&data_dir, &[]);
    let mut operator = server.operator("http").await;
    eventually("the mail expires", async || status(&mut operator, &id).await == "expired").await;
}

#[tokio::test]
async fn mails_that_are_done_are_forgotten_after_a_time() {
    let server = TestServer::with(&[("TR50D_MAILBOX__KEEP_S", "0")]);
    let mut operator = server.operator("http").await;
    let mut device = Device::connect(&server, "mower", "a").await;
    let (done, kept) =
        (send(&mut operator, "mower", -1).await, send(&mut operator, "mower", -1).await);
    device.check().await;
    device.ask("mailbox.ack", json!({ "id": done })).await;
    eventually("the mail is forgotten", async || {
        let found = reply(&mut operator, "mailbox.find", &json!({ "id": done }).to_string()).await;
        found["errorCodes"][0] == -90008
    })
    .await;
    assert_eq!(status(&mut operator, &kept).await, "in-flight");
    let listed = call(&mut operator, "mailbox.list", r#"{"thingKey":"mower"}"#).await;
    assert_eq!((&listed["count"], &listed["result"][0]["id"]), (&json!(1), &json!(kept)));
}

#[tokio::test]
async fn a_listing_of_mails_has_a_bound_of_bytes() {
    let server = TestServer::start();
    let _mower = Device::connect(&server, "mower", "a").await;
    let mut operator = server.operator("http").await;
    let params = json!({
        "thingKey": "mower", "command": "c", "ackTimeout": 0, "ttl": -1,
        "params": { "text": "x".repeat(900_000) },
    });
    for _ in 0..20 {
        call(&mut operator, "mailbox.send", &params.to_string()).await;
    }
    for scope in [json!({}), json!({ "thingKey": "mower" })] {
        let listed = reply(&mut operator, "mailbox.list", &scope.to_string()).await;
        assert_eq!(listed["errorCodes"], json!([-95013]));
        let mut few = scope.clone();
        few["limit"] = json!(3);
        let listed = call(&mut operator, "mailbox.list", &few.to_string()).await;
        assert_eq!(
            (&listed["count"], listed["result"].as_array().map(Vec::len)),
            (&json!(20), Some(3))
        );
        assert_eq!(call(&mut operator, "mailbox.summary", &scope.to_string()).await["new"], 20);
    }
}

#[tokio::test]
async fn callers_of_a_singleton_share_its_answer() {
    let server = TestServer::start();
    let mut device = Device::connect(&server, "mower", "a").await;
    let params = json!({ "thingKey": "mower", "method": "once", "singleton": true }).to_string();
    let mut calls = tokio::task::JoinSet::new();
    for listener in ["http", "mqtt", "tcp"] {
        let mut operator = server.operator(listener).await;
        let params = params.clone();
        calls.spawn(async move { call(&mut operator, "method.exec", &params).await });
    }
    eventually("three wait", async || metrics(&server).await.contains("tr50d_mail_callers 3"))
        .await;
    device.noticed().await;
    device.expect_quiet().await;
    device.answer_one().await;
    let answers = calls.join_all().await;
    assert_eq!(answers, [json!({}), json!({}), json!({})]);
    // It does not wait any more: the next is a new one.
    let mut operator = server.operator("http").await;
    let params =
        json!({ "thingKey": "mower", "method": "once", "singleton": true, "ackTimeout": 0 });
    call(&mut operator, "method.exec", &params.to_string()).await;
    device.noticed().await;
}

/// Answers every mail with what it is asked, until `count` are answered.
async fn serve(mut device: Device, count: usize) -> Device {
    let mut answered = BTreeSet::new();
    while answered.len() < count {
        device.noticed().await;
        for mail in device.check().await {
            let ack = json!({ "id": mail["id"], "params": mail["params"]["params"] });
            assert_eq!(device.ask("mailbox.ack", ack).await, json!({ "success": true }));
            assert!(answered.insert(id_of(&mail)), "handed out twice: {mail}");
        }
    }
    device
}

#[tokio::test]
async fn a_hundred_calls_wait_on_one_connection_and_others_go_on() {
    let server = TestServer::start();
    // One session calls, over TCP and over MQTT; nothing is answered yet.
    let device = Device::connect(&server, "mower", "a").await;
    let mut lines = Lines::connect(&server).await;
    lines.ask(OPERATOR_LOGIN).await;
    let mut caller = Device::connect(&server, "caller", "c").await;
    let exec = |name: &str, number: usize| {
        let params = json!({ "thingKey": "mower", "method": "m", "params": { "n": number } });
        json!({ name: { "command": "method.exec", "params": params } }).to_string()
    };
    for number in 0..100 {
        lines.send(&exec(&format!("t{number}"), number)).await;
        let bytes = caller.wire.publish(0, 0, "api/x", exec(&format!("m{number}"), number));
        caller.wire.send(&bytes).await;
        // The others are answered meanwhile, in their order.
        let ping = format!(r#"{{"p{number}":{{"command":"diag.ping"}}}}"#);
        assert_eq!(lines.ask(&ping).await, format!(r#"{{"p{number}":{{"success":true}}}}"#));
        assert_eq!(caller.ask("diag.ping", json!({})).await, json!({ "success": true }));
    }
    let server_side = tokio::spawn(serve(device, 200));
    let (mut over_tcp, mut over_mqtt) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..100 {
        over_tcp.insert(lines.line().await);
        let message = caller.wire.message().await;
        assert_eq!(message.topic, "reply/x");
        over_mqtt.insert(String::from_utf8(message.payload).expect("UTF-8"));
    }
    let answer = |prefix: &str, n: usize| {
        format!(r#"{{"{prefix}{n}":{{"success":true,"params":{{"n":{n}}}}}}}"#)
    };
    assert_eq!(over_tcp, (0..100).map(|n| answer("t", n)).collect());
    assert_eq!(over_mqtt, (0..100).map(|n| answer("m", n)).collect());
    server_side.await.expect("the device is done");
}

#[tokio::test]
async fn a_gateway_serves_the_things_that_are_bound_to_it() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut gateway = Device::connect(&server, "gateway", "g").await;
    let mut stranger = Device::connect(&server, "stranger", "s").await;
    let bound = gateway.ask("thing.bind", json!({ "key": "sensor" })).await;
    assert_eq!(bound["success"], true, "{bound}");
    let exec = tokio::spawn(async move {
        let params = json!({ "thingKey": "sensor", "method": "read", "params": { "c": 21 } });
        call(&mut operator, "method.exec", &params.to_string()).await
    });
    assert_eq!(gateway.noticed().await, "sensor");
    let mails = gateway.check().await;
    assert_eq!(mails[0]["thingKey"], "sensor");
    let id = id_of(&mails[0]);
    assert_eq!(stranger.check().await.len(), 0);
    let refused = stranger.ask("mailbox.ack", json!({ "id": id })).await;
    assert_eq!(refused["errorCodes"][0], -90008, "{refused}");
    let acked = gateway.ask("mailbox.ack", json!({ "id": id, "params": { "c": 21 } })).await;
    assert_eq!(acked, json!({ "success": true }));
    assert_eq!(exec.await.expect("an answer"), json!({ "c": 21 }));
    // Mail that waits for the sensor is told to the gateway when it connects.
    let mut operator = server.operator("http").await;
    gateway.close().await;
    send(&mut operator, "sensor", 600).await;
    let mut gateway = Device::connect(&server, "gateway", "g").await;
    assert_eq!(gateway.noticed().await, "sensor");
    // Unbound, it is not the gateway's any more, nor is what it has in flight.
    let id = id_of(&gateway.check().await[0]);
    let unbound = gateway.ask("thing.unbind", json!({ "key": "sensor" })).await;
    assert_eq!(unbound, json!({ "success": true }));
    assert_eq!(gateway.check().await.len(), 0);
    assert_eq!(status(&mut operator, &id).await, "new");
    let bound = gateway.ask("thing.bind", json!({ "key": "sensor" })).await;
    assert_eq!(bound["success"], true, "{bound}");
    assert_eq!(gateway.noticed().await, "sensor");
    assert_eq!(id_of(&gateway.check().await[0]), id);
}

#[tokio::test]
async fn a_caller_that_goes_waits_no_more() {
    let server = TestServer::start();
    register(&server, "asleep").await;
    let waiting = async |count: usize| {
        let line = format!("tr50d_mail_callers {count}");
        eventually(&line, async || metrics(&server).await.lines().any(|have| have == line)).await;
    };
    let exec = r#"{"cmd":{"command":"method.exec","params":{"thingKey":"asleep","method":"m"}}}"#;
    let mut wire = Connect::thing(Version::V311, "caller").open(&server).await;
    wire.send(&wire.publish(0, 0, "api/1", exec)).await;
    waiting(1).await;
    drop(wire);
    waiting(0).await;
    let mut lines = Lines::connect(&server).await;
    lines.ask(OPERATOR_LOGIN).await;
    lines.send(exec).await;
    waiting(1).await;
    lines.reset();
    waiting(0).await;
}

#[tokio::test]
async fn who_only_ends_its_own_side_gets_the_device_s_answer() {
    let server = TestServer::start();
    let mut device = Device::connect(&server, "mower", "a").await;
    let mut lines = Lines::connect(&server).await;
    let login = OPERATOR_LOGIN.trim_end_matches('}');
    // The login's own line waits, and the connection is logged in meanwhile.
    let exec = r#""e":{"command":"method.exec","params":{"thingKey":"mower","method":"m"}}"#;
    lines.send(&format!("{login}}}}},{exec}}}")).await;
    let ping = r#"{"p":{"command":"diag.ping"}}"#;
    assert_eq!(lines.ask(ping).await, r#"{"p":{"success":true}}"#);
    lines.half_close().await;
    device.noticed().await;
    device.answer_one().await;
    let line = lines.line().await;
    assert!(line.starts_with(r#"{"auth":{"success":true"#), "{line}");
    assert!(line.ends_with(r#","e":{"success":true,"params":{}}}"#), "{line}");
    assert_eq!(lines.line().await, "");
}

#[tokio::test]
async fn who_waits_is_told_when_the_server_stops() {
    let server = TestServer::start();
    register(&server, "asleep").await;
    let mut calls = tokio::task::JoinSet::new();
    for listener in ["http", "mqtt"] {
        let mut operator = server.operator(listener).await;
        calls.spawn(async move {
            reply(&mut operator, "method.exec", r#"{"thingKey":"asleep","method":"m"}"#).await
        });
    }
    eventually("both wait", async || metrics(&server).await.contains("tr50d_mail_callers 2")).await;
    let ((), answers) = tokio::join!(server.stop(), calls.join_all());
    for answer in answers {
        assert_eq!(answer["errorCodes"], json!([-95020]), "{answer}");
    }
}

#[tokio::test]
async fn large_mail_comes_in_several_checks() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut device = Device::connect(&server, "mower", "a").await;
    let text = "x".repeat(100_000);
    let mut sent = Vec::new();
    for _ in 0..5 {
        let params = json!({ "thingKey": "mower", "command": "c", "params": { "t": text },
            "ackTimeout": -1 });
        sent.push(id_of(&call(&mut operator, "mailbox.send", &params.to_string()).await));
        device.noticed().await;
    }
    let mut fetched = Vec::new();
    for expected in [2, 2, 1] {
        let mails = device.check().await;
        assert_eq!(mails.len(), expected);
        fetched.extend(mails.iter().map(id_of));
        if fetched.len() < sent.len() {
            device.noticed().await;
        }
    }
    assert_eq!(fetched, sent);
    device.expect_quiet().await;
}

/// Mails are in a table of the store, whose directory is the server's.
#[tokio::test]
async fn a_server_can_begin_with_a_store_of_many_mails() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir: &Path = &dir.path().join("data");
    {
        let server = TestServer::in_dir(data_dir, &[("TR50D_MAILBOX__WAITING_MAX", "4000")]);
        register(&server, "mower").await;
        let commands: Vec<String> = (0..1000)
            .map(|number| {
                format!(
                    r#""{number}":{{"command":"mailbox.send","params":{{"thingKey":"mower","command":"c","ackTimeout":0}}}}"#
                )
            })
            .collect();
        let request = format!("{{{}}}", commands.join(","));
        for _ in 0..3 {
            let mut lines = Lines::connect(&server).await;
            lines.ask(OPERATOR_LOGIN).await;
            assert!(!lines.ask(&request).await.contains("false"));
        }
    }
    let server = TestServer::in_dir(data_dir, &[]);
    let mut operator = server.operator("http").await;
    let summary = call(&mut operator, "mailbox.summary", "").await;
    assert_eq!((&summary["new"], &summary["total"]), (&json!(3000), &json!(3000)));
    let page = call(&mut operator, "mailbox.list", r#"{"offset":2990}"#).await;
    assert_eq!(page["result"].as_array().map(Vec::len), Some(10));
    // There is no room for more than the thousand that is allowed now.
    let full = r#"{"thingKey":"mower","command":"c","ackTimeout":0}"#;
    let refused = reply(&mut operator, "mailbox.send", full).await;
    assert_eq!(refused["errorCodes"], json!([-95021]));
}

#[tokio::test]
async fn the_mail_of_a_deleted_thing_is_taken_back() {
    let server = TestServer::start();
    register(&server, "mower").await;
    let mut caller = server.operator("http").await;
    let mut operator = server.operator("http").await;
    let id = send(&mut operator, "mower", -1).await;
    let exec = tokio::spawn(async move {
        reply(&mut caller, "method.exec", r#"{"thingKey":"mower","method":"m"}"#).await
    });
    eventually("the caller waits", async || {
        metrics(&server).await.contains("tr50d_mail_callers 1")
    })
    .await;
    call(&mut operator, "thing.delete", r#"{"key":"mower"}"#).await;
    let told = exec.await.expect("an answer");
    assert_eq!(told["errorCodes"], json!([-95020]), "{told}");
    assert_eq!(status(&mut operator, &id).await, "purged");
}

#[tokio::test]
async fn a_method_is_waited_for_as_long_as_its_definition_says() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let methods = json!({ "nod": { "defaultAckTimeout": 1 }, "blink": { "defaultAckTimeout": 0 } });
    let def = json!({ "key": "robot", "name": "Robot", "methods": methods });
    call(&mut operator, "thing_def.create", &def.to_string()).await;
    let app =
        json!({ "name": "robots", "token": "token-of-robots-1", "autoRegThingDefId": "robot" });
    call(&mut operator, "app.create", &app.to_string()).await;
    connect(&server.url("http", "robot-1", "token-of-robots-1")).await.close().await;
    let exec = |method: &str| json!({ "thingKey": "robot-1", "method": method }).to_string();
    let failed = reply(&mut operator, "method.exec", &exec("nod")).await;
    let sentence = failed["errorMessages"][0].as_str().expect("a sentence");
    assert!(sentence.ends_with(" in 1 s."), "{sentence}");
    let posted = call(&mut operator, "method.exec", &exec("blink")).await;
    assert_eq!(status(&mut operator, &id_of(&posted)).await, "new");
}

#[tokio::test]
async fn a_restricted_token_sees_its_own_mail_only() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let role = json!({ "key": "mail", "name": "Mail", "perms": ["mailbox", "method"] });
    call(&mut operator, "role.create", &role.to_string()).await;
    let app = json!({ "name": "kept-in", "token": "token-of-kept-in-1", "autoRegister": true,
        "restrictAccessToSelf": true, "roles": ["mail"] });
    call(&mut operator, "app.create", &app.to_string()).await;
    register(&server, "other").await;
    let mut thing = connect(&server.url("http", "kept-in-1", "token-of-kept-in-1")).await;
    let (own, other) =
        (send(&mut operator, "kept-in-1", 600).await, send(&mut operator, "other", 600).await);
    let found = async |thing: &mut Client, id: &str| {
        reply(thing, "mailbox.find", &json!({ "id": id }).to_string()).await
    };
    assert_eq!(found(&mut thing, &own).await["success"], true);
    assert_eq!(found(&mut thing, &other).await["errorCodes"][0], -90008);
    let purge = json!({ "id": other }).to_string();
    assert_eq!(reply(&mut thing, "mailbox.purge", &purge).await["errorCodes"][0], -90008);
    for command in ["mailbox.list", "mailbox.summary", "mailbox.purge"] {
        let refused = reply(&mut thing, command, r#"{"thingKey":"other"}"#).await;
        assert_eq!(refused["errorCodes"][0], -95006, "{command}: {refused}");
    }
    let exec = reply(&mut thing, "method.exec", r#"{"thingKey":"other","method":"m"}"#).await;
    assert_eq!(exec["errorCodes"][0], -95006, "{exec}");
    // Without a name, its own.
    let listed = call(&mut thing, "mailbox.list", "").await;
    assert_eq!((&listed["count"], &listed["result"][0]["id"]), (&json!(1), &json!(own)));
}

#[tokio::test]
async fn a_caller_that_goes_leaves_the_answer_to_a_subscriber_with_its_login() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.create", r#"{"key":"mower","name":"M","imei":"351"}"#).await;
    let mut device = Device::connect(&server, "mower", "a").await;
    let mut subscriber = Connect::thing(Version::V311, "caller").id("s").open(&server).await;
    subscriber.subscribe("reply/#", 0).await;
    // As mosquitto_pub does; the mower is named as its integration in Home Assistant names it.
    let mut publisher = Connect::thing(Version::V311, "caller").id("p").open(&server).await;
    let params = json!({ "imei": "351", "method": "m", "params": { "a": [1] }, "ackTimeout": 30,
        "singleton": true });
    let exec = json!({ "cmd": { "command": "method.exec", "params": params } }).to_string();
    publisher.send(&publisher.publish(0, 0, "api/7", exec)).await;
    publisher.send(DISCONNECT).await;
    publisher.expect_end().await;
    device.noticed().await;
    device.answer_one().await;
    let expected = r#"{"cmd":{"success":true,"params":{"a":[1]}}}"#;
    assert_eq!(subscriber.message().await.texts(), ("reply/7", expected));
}

#[tokio::test]
async fn only_what_waits_for_a_device_is_answered_out_of_turn() {
    let server = TestServer::start();
    register(&server, "asleep").await;
    let mut lines = Lines::connect(&server).await;
    let login = json!({ "auth": { "command": "api.authenticate", "params": {
        "appToken": TOKEN, "thingKey": "gateway" } } });
    lines.ask(&login.to_string()).await;
    let ordered = [
        ("property.batch", json!({ "data": [{ "key": "t", "value": 1 }] })),
        ("attribute.batch", json!({ "data": [{ "key": "a", "value": "1" }] })),
        ("location.batch", json!({ "data": [{ "lat": 1, "lng": 2 }] })),
        ("alarm.batch", json!({ "data": [{ "key": "a", "state": 1 }] })),
        ("property.publish", json!({ "key": "t", "value": 2 })),
        ("thing.bind", json!({ "key": "sensor" })),
        ("mailbox.check", json!({ "autoComplete": true })),
        ("diag.ping", json!({})),
    ];
    let mut text = json!({ "m": { "command": "method.exec", "params": {
        "thingKey": "asleep", "method": "m", "ackTimeout": 1 } } })
    .to_string();
    for (command, params) in &ordered {
        text += &json!({ *command: { "command": command, "params": params } }).to_string();
    }
    lines.send(&text).await;
    for (command, _) in &ordered {
        let line = lines.line().await;
        assert!(
            line.starts_with(&format!(r#"{{"{command}":{{"success":true"#)),
            "{command}: {line}"
        );
    }
    assert!(lines.line().await.starts_with(r#"{"m":{"success":false"#));
}
