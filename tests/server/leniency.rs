//! What clients of the field send that a strict server would refuse, and what they are told when it
//! is too much.

use std::io::Read;

use client::Version::V311;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use serde_json::{Value, json};
use support::http::post;
use support::mqtt::Connect;
use support::tcp::Lines;
use support::{TOKEN, TestServer, call, reply};

const WRONG_LOGIN: &str = concat!(
    r#"{"auth":{"command":"api.authenticate","params":{"#,
    r#""username":"operator@basicorg.example","password":"wrong"}},"#,
    r#""1":{"command":"diag.ping","params":[]}}"#
);

fn parsed(reply: &str) -> Value {
    serde_json::from_str(reply).unwrap_or_else(|why| panic!("{why}: {reply}"))
}

/// The login of a thing over TCP.
async fn logged_in(server: &TestServer) -> Lines {
    let mut lines = Lines::connect(server).await;
    let params = json!({"thingKey": "a", "appToken": TOKEN});
    let login = json!({"auth": {"command": "api.authenticate", "params": params}});
    assert_eq!(parsed(&lines.ask(&login.to_string()).await)["auth"]["success"], true);
    lines
}

/// Every failure in a reply, which have to have the first of their messages beside them.
fn failures_with_message(reply: &Value) -> usize {
    let objects = reply.as_object().expect("an object").values().chain([reply]);
    let failures = objects.filter(|object| object["success"] == false);
    failures.inspect(|f| assert_eq!(f["errorMessage"], f["errorMessages"][0], "{reply}")).count()
}

#[tokio::test]
async fn a_small_request_may_be_compressed_at_any_ratio() {
    let server = TestServer::start();
    let mut wire = Connect::thing(V311, "zip").open(&server).await;
    for length in [8000, 60_000] {
        let text = "x".repeat(length);
        let params = json!({"text": text});
        let request = json!({"1": {"command": "diag.echo", "params": params}}).to_string();
        let mut deflated = Vec::new();
        let mut encoder = ZlibEncoder::new(request.as_bytes(), Compression::best());
        encoder.read_to_end(&mut deflated).expect("zlib");
        assert!(deflated.len() * 100 < request.len());
        wire.send(&wire.publish(0, 0, "apiz/1", deflated)).await;
        let message = wire.message().await;
        let mut answer = String::new();
        ZlibDecoder::new(&message.payload[..]).read_to_string(&mut answer).expect("zlib");
        assert_eq!(parsed(&answer)["1"], json!({"success": true, "params": params}));
    }
}

#[tokio::test]
async fn clients_of_2012_get_their_message_over_every_door() {
    let server = TestServer::start();
    // At once, later, and as a whole.
    let commands = concat!(
        r#""a":{"command":"thing.find","params":{"key":"none"}},"#,
        r#""b":{"command":"api.authenticate","params":{"username":"x","password":"y"}},"#,
        r#""c":{"command":"no.such"}"#
    );
    let old = format!(r#"{{"auth":null,{commands}}}"#);
    let new = format!("{{{commands}}}");
    let mut wire = Connect::thing(V311, "old").open(&server).await;
    let mut lines = logged_in(&server).await;
    for (request, messages) in [(&old, 3), (&new, 0)] {
        wire.send(&wire.publish(0, 0, "api", request)).await;
        let over_mqtt = String::from_utf8(wire.message().await.payload).expect("text");
        for reply in [over_mqtt, lines.ask(request).await] {
            assert_eq!(reply.matches(r#""errorMessage":""#).count(), messages, "{reply}");
            if messages > 0 {
                assert_eq!(failures_with_message(&parsed(&reply)), messages, "{reply}");
            }
        }
    }
    // Without a session, and with a login that fails, which is told twice.
    let whole = post(&server, &old).await;
    assert_eq!(failures_with_message(&parsed(&whole)), 1, "{whole}");
    let mut stranger = Lines::connect(&server).await;
    assert_eq!(failures_with_message(&parsed(&stranger.ask(&old).await)), 1);
    assert_eq!(failures_with_message(&parsed(&stranger.ask(WRONG_LOGIN).await)), 2);
    let refused = post(&server, WRONG_LOGIN).await;
    assert_eq!(failures_with_message(&parsed(&refused)), 2, "{refused}");
    assert!(!post(&server, &new).await.contains(r#""errorMessage":""#));
}

#[tokio::test]
async fn a_command_without_its_wrapper_is_answered_with_how_to_wrap_it() {
    let server = TestServer::start();
    let request = r#"{"command":"api.authenticate","params":{"username":"x","password":"y"}}"#;
    let mut wire = Connect::thing(V311, "bare").open(&server).await;
    wire.send(&wire.publish(0, 0, "api", request)).await;
    let over_mqtt = String::from_utf8(wire.message().await.payload).expect("text");
    let mut lines = Lines::connect(&server).await;
    for reply in [over_mqtt, lines.ask(request).await, post(&server, request).await] {
        let reply = parsed(&reply);
        let message = reply["errorMessages"][0].as_str().expect("a text");
        assert!(message.contains(r#"{"cmd":{"command":"api.authenticate""#), "{message}");
        assert_eq!(reply["errorCodes"], json!([-95001]));
    }
}

#[tokio::test]
async fn of_a_parameter_given_twice_the_last_counts() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(
        &mut operator,
        "thing.create",
        r#"{"key":"x","key":"m","name":"a","NAME":"b","name":"c"}"#,
    )
    .await;
    assert_eq!(call(&mut operator, "thing.find", r#"{"key":"x","Key":"m"}"#).await["name"], "c");
    let item = r#"{"key":"p","value":1,"Value":2,"KEY":"q"}"#;
    let batch = format!(r#"{{"thingKey":"m","data":[],"data":[{item}]}}"#);
    call(&mut operator, "property.batch", &batch).await;
    let read = call(&mut operator, "property.current", r#"{"thingKey":"m","key":"q"}"#).await;
    assert_eq!(read["value"], 2);
    let attrs = r#"{"key":"n","name":"n","attrs":{"a":"1","b":"x","a":"2"}}"#;
    call(&mut operator, "thing.create", attrs).await;
    let read = call(&mut operator, "attribute.history", r#"{"thingKey":"n","key":"a"}"#).await;
    assert_eq!(read["values"].as_array().map(Vec::len), Some(1), "{read}");
    assert_eq!(read["values"][0]["value"], "2");
    // Null is the last, too.
    let none = reply(&mut operator, "thing.find", r#"{"key":"m","key":null}"#).await;
    assert_eq!(none["errorCodes"], json!([-95004]));

    let form = "username=x&password=wrong&USERNAME=operator%40basicorg.example\
                &Password=demo-operator-password";
    let length = form.len();
    let request = format!("POST /rest/auth HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{form}");
    let answer = support::http::exchange(&server, request.as_bytes()).await;
    let id = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{answer}");
}

#[tokio::test]
async fn who_asks_for_too_long_a_wait_learns_of_it_when_no_answer_came() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing.create", r#"{"key":"m","name":"m"}"#).await;
    let check = async |operator: &mut client::Client, ack_timeout: &str, told: bool| {
        let params =
            format!(r#"{{"thingKey":"m","method":"x","ttl":0.2,"ackTimeout":{ack_timeout}}}"#);
        let failed = reply(operator, "method.exec", &params).await;
        let message = failed["errorMessages"][0].as_str().expect("a text");
        assert!(message.contains("expired"), "{message}");
        assert_eq!(message.contains("The longest ackTimeout is 300 s."), told, "{message}");
    };
    check(&mut operator, "300", false).await;
    check(&mut operator, "301", true).await;
    check(&mut operator, "\"86400\"", true).await;
}
