//! Rates: commands of a login over all its sessions, commands of an organisation, logins.

use std::process::Command;

use client::Client;
use client::Version::V5;
use serde_json::{Value, json};
use support::http::{log_in, metrics, post, post_with, send};
use support::mqtt::{ALL, Connect, Wire};
use support::process::run;
use support::{Endpoints, TOKEN, TestServer, call, eventually, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TR50D;

const RATE_LIMITED: i64 = -95010;
const QUOTA_EXCEEDED: u8 = 0x97;
const CONNECTION_RATE_EXCEEDED: u8 = 0x9f;

const PING: &str = r#"{"p":{"command":"diag.ping"}}"#;
const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");

/// Sends commands until one is refused, or so many were not; the refusal's sentence.
async fn refusal(client: &mut Client, most: usize) -> Option<String> {
    for _ in 0..most {
        let answer = reply(client, "diag.ping", "").await;
        if answer["success"] == false {
            assert_eq!(answer["errorCodes"][0], RATE_LIMITED, "{answer}");
            return answer["errorMessages"][0].as_str().map(str::to_owned);
        }
    }
    None
}

/// Whether a login over HTTP by a command or the member `auth` succeeds; else its failure's code.
fn outcome(answer: &str) -> Result<(), i64> {
    let answer: Value = serde_json::from_str(answer).expect("JSON");
    match answer["auth"]["success"] == true {
        true => Ok(()),
        false => Err(answer["auth"]["errorCodes"][0].as_i64().expect("a code")),
    }
}

fn auth_of_thing(key: &str, token: &str) -> String {
    let params = json!({ "appToken": token, "appId": "x", "thingKey": key });
    json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string()
}

/// The value of a row of the metrics; 0 if it is not there.
async fn count(server: &Endpoints, row: &str) -> u64 {
    let page = metrics(server).await;
    let value = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn sessions_of_one_login_share_its_rate_over_every_door() {
    let server = TestServer::with(&[("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "10")]);
    for (key, door) in [("by-mqtt", "mqtt"), ("by-tcp", "tcp"), ("by-http", "http")] {
        let mut sessions = Vec::new();
        for listener in [door, "tcp", "http"] {
            sessions.push(server.thing(listener, key).await);
        }
        let mut neighbour = server.thing(door, &format!("{key}-neighbour")).await;
        let mut sentence = None;
        eventually("the limit is reached", async || {
            // None of the sessions sends more than the limit itself.
            for session in &mut sessions {
                sentence = sentence.take().or(refusal(session, 8).await);
            }
            sentence.is_some()
        })
        .await;
        let sentence = sentence.expect("a refusal");
        assert!(sentence.contains("more than 10 commands in a second"), "{sentence}");
        assert!(sentence.contains("limits.principal_commands_per_s"), "{sentence}");
        // Another thing with the same token has a rate of its own.
        assert_eq!(refusal(&mut neighbour, 5).await, None, "{door}");
        // Whoever leaves and comes back goes on where it was: here, until the second is over.
        drop(sessions);
        let mut back = server.thing(door, key).await;
        eventually("the next second comes", async || refusal(&mut back, 1).await.is_none()).await;
    }
    assert!(count(&server, r#"tr50d_commands_over_rate_total{limit="principal"}"#).await > 0);
    assert_eq!(count(&server, r#"tr50d_commands_over_rate_total{limit="session"}"#).await, 0);
}

#[tokio::test]
async fn who_logs_out_and_in_again_does_not_begin_anew() {
    let server = TestServer::with(&[("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "3")]);
    let mut refused = 0;
    for _ in 0..20 {
        // A session for each command, which ends before the next begins.
        let (auth, end) = (auth_of_thing("comer", TOKEN), r#","e":{"command":"session.end"}}"#);
        let request = format!("{}{end}", auth.strip_suffix('}').expect("an object"));
        let answer = post(&server, &request).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["auth"]["success"], true, "{answer}");
        if answer["e"]["success"] == false {
            assert_eq!(answer["e"]["errorCodes"][0], RATE_LIMITED, "{answer}");
            refused += 1;
            let id = answer["auth"]["params"]["sessionId"].as_str().expect("an id");
            let end = json!({ "auth": { "sessionId": id }, "e": { "command": "session.end" } });
            eventually("it ends", async || {
                post(&server, &end.to_string()).await.contains(r#""success":true"#)
            })
            .await;
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_fleet_that_shares_a_token_is_not_throttled_as_one() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "30"),
        ("TR50D_LIMITS__COMMANDS_PER_S", "20"),
    ]);
    for number in 0..20 {
        let listener = ["mqtt", "tcp", "http"][number % 3];
        let mut thing = server.thing(listener, &format!("of-fleet-{number}")).await;
        assert_eq!(refusal(&mut thing, 15).await, None, "{number}");
    }
}

#[tokio::test]
async fn publishes_to_things_over_the_rate_of_the_login_wait_or_are_told() {
    const RATE: usize = 20;
    let server = TestServer::with(&[("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "20")]);
    let burst = |wire: &Wire| -> Vec<u8> {
        let publish = |count: u16| wire.publish(2, count, "thing/self/property/n", "1");
        (1..=RATE as u16).flat_map(publish).collect()
    };
    for version in ALL {
        let key = format!("publisher-{version:?}");
        let open = async |id: &str| Connect::thing(version, &key).id(id).open(&server).await;
        let mut wires = [open("a").await, open("b").await, open("c").await];
        for wire in &mut wires {
            let burst = burst(wire);
            wire.send(&burst).await;
        }
        let (mut done, mut told) = (0, 0);
        for wire in &mut wires {
            for _ in 0..RATE {
                match wire.acknowledgement().await {
                    (0, _) => done += 1,
                    (code, why) => {
                        assert_eq!((version, code), (V5, QUOTA_EXCEEDED));
                        assert!(why.contains("limits.principal_commands_per_s"), "{why}");
                        told += 1;
                    }
                }
            }
        }
        assert_eq!(done + told, 3 * RATE);
        assert_eq!(told > 0, version == V5, "{version:?}");
    }
    assert!(count(&server, "tr50d_mqtt_publishes_withheld_total").await > 0);
}

#[tokio::test]
async fn requests_without_a_session_count_for_their_login() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "5"),
        ("TR50D_LIMITS__LOGINS_PER_S", "0"),
    ]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let basic = "b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTpkZW1vLW9wZXJhdG9yLXBhc3N3b3Jk";
    let basic = format!("Authorization: Basic {basic}");
    let list = r#"{"method":"ListActiveAuthSessions","id":1}"#;
    for (head, body) in [
        (format!("GET /api/v1/principals/me HTTP/1.1\r\n{bearer}"), ""),
        (format!("POST /json-rpc/12.3 HTTP/1.1\r\n{basic}"), list),
    ] {
        let mut refused = None;
        eventually("the limit is reached", async || {
            let answer = send(&server, &head, body.as_bytes()).await;
            match answer.status {
                200 => false,
                status => {
                    assert_eq!(status, 429, "{answer:?}");
                    let text = answer.text();
                    assert!(text.contains("limits.principal_commands_per_s"), "{text}");
                    refused = answer.header("retry-after").map(str::to_owned);
                    true
                }
            }
        })
        .await;
        assert_eq!(refused.as_deref(), Some("1"), "{head}");
    }
    // The user's own session is of the same login.
    let mut operator = server.operator("http").await;
    eventually("a session feels it, too", async || {
        send(&server, &format!("POST /json-rpc/12.3 HTTP/1.1\r\n{basic}"), list.as_bytes()).await;
        refusal(&mut operator, 4).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn an_organisation_can_be_held_to_a_rate() {
    let server = TestServer::with(&[("TR50D_LIMITS__ORG_COMMANDS_PER_S", "20")]);
    let mut things = Vec::new();
    for number in 0..6 {
        let listener = ["mqtt", "tcp", "http"][number % 3];
        things.push(server.thing(listener, &format!("member-{number}")).await);
    }
    let mut sentence = None;
    eventually("the limit is reached", async || {
        for thing in &mut things {
            sentence = sentence.take().or(refusal(thing, 5).await);
        }
        sentence.is_some()
    })
    .await;
    let sentence = sentence.expect("a refusal");
    assert!(sentence.contains("organisation") && sentence.contains("20"), "{sentence}");
    assert!(sentence.contains("limits.org_commands_per_s"), "{sentence}");
    let york = log_in(&server, "york-1", "demo-token-yorkorg").await;
    let header = format!("sessionId: {york}\r\n");
    for _ in 0..10 {
        assert_eq!(post_with(&server, &header, PING).await, r#"{"p":{"success":true}}"#);
    }
}

#[tokio::test]
async fn who_begins_to_follow_events_again_and_again_is_held_to_the_rate() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "5"),
        ("TR50D_LIMITS__LOGINS_PER_S", "0"),
    ]);
    let login =
        "Authorization: Basic b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTpkZW1vLW9wZXJhdG9yLXBhc3N3b3Jk";
    let asked = format!("GET /events HTTP/1.1\r\nHost: x\r\n{login}\r\n\r\n");
    eventually("the limit is reached", async || {
        let mut stream = TcpStream::connect(server.address("http")).await.expect("a connection");
        stream.write_all(asked.as_bytes()).await.expect("asked");
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("a status");
        assert!([b"HTTP/1.1 200", b"HTTP/1.1 429"].contains(&&status), "{status:?}");
        status.ends_with(b"429")
    })
    .await;
}

#[tokio::test]
async fn who_reads_metrics_from_elsewhere_is_held_to_the_rate() {
    let server = TestServer::with(&[("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "5")]);
    let session = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let scrape = async |head: &str| {
        let head = format!("GET /metrics HTTP/1.1\r\nsessionId: {session}{head}");
        send(&server, &head, b"").await
    };
    eventually("the limit is reached", async || {
        let answer = scrape("\r\nVia: 1.1 p").await;
        assert!([200, 429].contains(&answer.status), "{answer:?}");
        answer.status == 429
    })
    .await;
    // On this machine nobody has to be known.
    for _ in 0..20 {
        assert_eq!(scrape("").await.status, 200);
    }
}

/// Settings with which a principal may log in so often a second, and ten times at once.
const LOGINS: [(&str, &str); 1] = [("TR50D_LIMITS__LOGINS_PER_S", "2")];
const BURST: usize = 20;

#[tokio::test]
async fn who_connects_again_and_again_is_refused_and_others_are_not() {
    for (version, leaves) in ALL.into_iter().flat_map(|version| [(version, true), (version, false)])
    {
        let server = TestServer::with(&LOGINS);
        let (mut refused, mut taken_over) = (0, Vec::new());
        for _ in 0..3 * BURST {
            let mut wire = Wire::open(&server, version).await;
            wire.send(&Connect::thing(version, "flapper").frame()).await;
            let answer = wire.frame().await.expect("a CONNACK");
            match answer[3] {
                0 if leaves => wire.leave().await,
                0 => taken_over.push(wire),
                code => {
                    let expected = if version == V5 { CONNECTION_RATE_EXCEEDED } else { 3 };
                    assert_eq!((answer[0], code), (0x20, expected), "{version:?}");
                    let text = String::from_utf8_lossy(&answer);
                    assert_eq!(text.contains("limits.logins_per_s"), version == V5, "{text}");
                    wire.expect_end().await;
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{version:?}");
        let row = r#"tr50d_logins_total{outcome="rate",cause="rate",door="mqtt"}"#;
        assert_eq!(count(&server, row).await, refused, "{version:?}");
        // Another principal of the same organisation, and another organisation.
        drop(server.operator("mqtt").await);
        log_in(&server, "york-1", "demo-token-yorkorg").await;
        // The trail has it.
        let params = r#"{"class":"refusals","cause":"rate"}"#;
        let trail = call(&mut server.admin("tcp").await, "audit.list", params).await;
        assert_eq!(trail["result"][0]["count"], refused, "{trail}");
        assert_eq!(trail["result"][0]["code"], RATE_LIMITED, "{trail}");
    }
}

#[tokio::test]
async fn a_thing_out_of_order_takes_no_logins_of_others_with_its_token() {
    let server = TestServer::with(&LOGINS);
    for number in 0..BURST {
        eventually("the flapper is refused", async || {
            let mut wire = Wire::open(&server, V5).await;
            wire.send(&Connect::thing(V5, "flapper").frame()).await;
            wire.frame().await.expect("a CONNACK")[3] == CONNECTION_RATE_EXCEEDED
        })
        .await;
        // Things that connect, and leave at once.
        let key = format!("sleepy-{number}");
        let sleepy = Connect::thing(ALL[number % 3], &key).open(&server).await;
        assert_eq!(sleepy.connack[3], 0, "{key}");
        sleepy.leave().await;
        log_in(&server, &format!("http-{number}"), TOKEN).await;
    }
}

#[tokio::test]
async fn sessions_over_http_do_not_pile_up_for_nothing() {
    let server = TestServer::with(&LOGINS);
    let thing = auth_of_thing("piler", TOKEN);
    let (name, password) = OPERATOR;
    let params = json!({ "username": name, "password": password });
    let user = json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string();
    for auth in [&thing, &user] {
        let mut outcomes = Vec::new();
        for _ in 0..3 * BURST {
            outcomes.push(outcome(&post(&server, auth).await));
        }
        assert!(outcomes[..BURST].iter().all(Result::is_ok), "{outcomes:?}");
        assert!(outcomes.contains(&Err(RATE_LIMITED)), "{outcomes:?}");
        assert!(outcomes.iter().all(|o| matches!(o, Ok(()) | Err(RATE_LIMITED))), "{outcomes:?}");
    }
    // A session that is there is used as often as one likes; so is a login of others.
    let york = log_in(&server, "york-1", "demo-token-yorkorg").await;
    let header = format!("sessionId: {york}\r\n");
    for _ in 0..3 * BURST {
        assert_eq!(post_with(&server, &header, PING).await, r#"{"p":{"success":true}}"#);
    }
}

#[tokio::test]
async fn every_door_refuses_who_has_logged_in_too_often() {
    let server = TestServer::with(&[("TR50D_LIMITS__LOGINS_PER_S", "1")]);
    let (name, password) = OPERATOR;
    let basic = "b3BlcmF0b3JAYmFzaWNvcmcuZXhhbXBsZTpkZW1vLW9wZXJhdG9yLXBhc3N3b3Jk";
    let head = format!("POST /json-rpc/12.3 HTTP/1.1\r\nAuthorization: Basic {basic}");
    let list = r#"{"method":"ListActiveAuthSessions","id":1}"#;
    eventually("Element says so", async || {
        let answer = send(&server, &head, list.as_bytes()).await;
        if answer.status == 429 {
            let seconds = answer.header("retry-after").expect("a header").parse::<u64>();
            assert!((1..60).contains(&seconds.expect("seconds")), "{answer:?}");
            assert!(answer.text().contains("limits.logins_per_s"), "{answer:?}");
        }
        answer.status == 429
    })
    .await;
    let params = json!({ "username": name, "password": password });
    let auth = json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string();
    // Each door refuses, until a second gives one login back.
    post(&server, &auth).await;
    eventually("HTTP says so", async || outcome(&post(&server, &auth).await).is_err()).await;
    let form = format!("name={}&password={password}", name.replace('@', "%40"));
    let form = form.replace("name=", "username=");
    eventually("/rest/auth says so", async || {
        let head = "POST /rest/auth HTTP/1.1\r\n\
                    Content-Type: application/x-www-form-urlencoded";
        let answer = send(&server, head, form.as_bytes()).await;
        assert_eq!(answer.status, 200);
        answer.text().contains("[-95010]")
    })
    .await;
    eventually("a command says so", async || {
        let body = json!({ "a": { "command": "api.authenticate", "params": params } });
        post(&server, &body.to_string()).await.contains("[-95010]")
    })
    .await;
}

#[tokio::test]
async fn a_fleet_connects_at_once_and_again_after_a_restart() {
    const FLEET: usize = 100;
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let server = TestServer::in_dir(dir.path(), &LOGINS);
        let key = |number: usize| (ALL[number % 3], format!("fleet-{number}"));
        let mut fleet = Vec::new();
        for number in 0..FLEET {
            let (version, key) = key(number);
            let wire = Connect::thing(version, &key).open(&server).await;
            assert_eq!(wire.connack[3], 0, "{number}");
            fleet.push(wire);
        }
        // All of them again, while the server has not noticed that they were lost.
        for number in 0..FLEET {
            let (version, key) = key(number);
            let again = Connect::thing(version, &key).open(&server).await;
            assert_eq!(again.connack[3], 0, "{number}");
        }
        drop(fleet);
        server.stop().await;
    }
}

#[tokio::test]
async fn things_log_in_over_http_for_the_first_time_and_again() {
    const FLEET: usize = 100;
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let server = TestServer::in_dir(dir.path(), &LOGINS);
        for number in 0..FLEET {
            let auth = auth_of_thing(&format!("http-{number}"), TOKEN);
            assert_eq!(outcome(&post(&server, &auth).await), Ok(()), "{number}");
        }
        server.stop().await;
    }
}

#[test]
fn values_that_are_no_rates_are_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |key: &str, value: &str, fine: bool| {
        let mut check = Command::new(TR50D.0);
        check.arg("check").env("TR50D_SERVER__DATA_DIR", dir.path().join("data"));
        let name = format!("TR50D_LIMITS__{}", key.to_uppercase());
        let (status, out, err) = run({
            check.env(&name, value);
            check
        });
        assert_eq!(status.success(), fine, "{key} = {value}: {out}{err}");
        assert!(fine || err.contains(&name) && err.contains("whole number"), "{err}");
    };
    for key in ["principal_commands_per_s", "org_commands_per_s", "logins_per_s"] {
        for value in ["0", "1", "4294967295"] {
            check(key, value, true);
        }
        for value in ["-1", "1.5", "many", "", "4294967296"] {
            check(key, value, false);
        }
        check(key, "auto", key != "org_commands_per_s");
    }
}
