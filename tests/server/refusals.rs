//! What is refused, and what an operator sees of it: metrics, `login.failures`, `thing.diagnose`, the
//! server's log, and `docs/operate.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use client::{Client, Version};
use data_encoding::BASE64;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use support::http::{log_in, metrics, post, post_with, send};
use support::mqtt::{Connect, Wire};
use support::process::run;
use support::tcp::Lines;
use support::{Endpoints, Signal, TestServer, call, connect, eventually, reply};

use crate::TR50D;

const TOKEN: &str = "demo-token-basicorg";
const OPERATOR: &str = "operator@basicorg.example";

/// The values of a metric, by its labels as they are written.
async fn values(server: &Endpoints, name: &str) -> BTreeMap<String, u64> {
    let text = metrics(server).await;
    let of = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(of).collect()
}

/// How often each code was answered since then.
async fn failed(server: &Endpoints, before: &BTreeMap<String, u64>) -> Vec<(i32, u64)> {
    let now = values(server, "tr50d_command_failures_total").await;
    let grown = now.iter().filter_map(|(labels, count)| {
        let code = labels.strip_prefix("code=\"")?.strip_suffix('"')?.parse().ok()?;
        let more = count - before[labels];
        (more > 0).then_some((code, more))
    });
    let mut grown: Vec<_> = grown.collect();
    grown.sort_unstable();
    grown
}

#[tokio::test]
async fn every_refused_command_counts_over_every_door() {
    let server = TestServer::with(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "65536")]);
    let name = "tr50d_command_failures_total";
    let start = values(&server, name).await;
    assert!(start.len() > 20 && start.values().all(|count| *count == 0), "{start:?}");
    let all = r#"{"1":{"command":"no.such"},"2":{"command":"role.delete","params":{"key":"x"}},
        "3":{"command":"twilio.sms.send"},"4":{"command":"property.publish"},"5":{}}"#;
    let of_all = [(-95014, 1), (-95006, 1), (-95004, 1), (-95003, 1), (-95001, 1)];
    // MQTT: commands of a request, and requests that are none.
    for version in [Version::V31, Version::V311, Version::V5] {
        let before = values(&server, name).await;
        let mut wire = Connect::thing(version, "mower-1").open(&server).await;
        for payload in [all, "no JSON"] {
            wire.tell("api/1", payload).await;
            wire.message().await;
        }
        let mut expected = of_all;
        expected[4].1 += 1;
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(failed(&server, &before).await, expected, "{version:?}");
        // Topics of things, with and without an acknowledgement.
        let before = values(&server, name).await;
        wire.send(&wire.publish(0, 0, "thing/self/property/a", "not a number")).await;
        wire.send(&wire.publish(2, 7, "thing/self/property/a", "not a number")).await;
        wire.frame().await.expect("a PUBACK");
        assert_eq!(failed(&server, &before).await, [(-95005, 2)], "{version:?}");
        wire.leave().await;
    }
    // TCP.
    let before = values(&server, name).await;
    let mut lines = Lines::connect(&server).await;
    lines.ask("no JSON").await;
    lines.ask(r#"{"1":{"command":"session.info"}}"#).await;
    let login = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"appToken":"{TOKEN}","thingKey":"t"}}}}}}"#
    );
    lines.ask(&login).await;
    lines.ask(&all.replace('\n', " ")).await;
    let mut expected = of_all.to_vec();
    expected[4].1 += 1;
    expected.push((-99999, 1));
    expected.sort_unstable();
    assert_eq!(failed(&server, &before).await, expected);
    // HTTP, in both forms.
    let before = values(&server, name).await;
    let id = log_in(&server, "mower-2", TOKEN).await;
    post_with(&server, &format!("sessionId: {id}\r\n"), all).await;
    post(&server, "no JSON").await;
    post(&server, r#"{"1":{"command":"session.info"}}"#).await;
    post_with(&server, "sessionId: 5cf885f41c5bd771c8065be8\r\n", all).await;
    post(&server, &"x".repeat(65_537)).await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    let fields = format!("sessionId={id}");
    send(&server, &format!("POST /rest/_/no.such HTTP/1.1\r\n{form}"), fields.as_bytes()).await;
    send(&server, &format!("POST /rest/_/session.info HTTP/1.1\r\n{form}"), b"").await;
    let mut expected = of_all.to_vec();
    expected[3].1 += 1;
    expected[4].1 += 1;
    expected.extend([(-99999, 2), (-90000, 1), (-95002, 1)]);
    expected.sort_unstable();
    assert_eq!(failed(&server, &before).await, expected);
    // The dialects, by the code that means the same.
    let before = values(&server, name).await;
    send(&server, "GET /api/v1/principals/me HTTP/1.1", b"").await;
    send(&server, "GET /api/v1/nothing HTTP/1.1", b"").await;
    let basic = BASE64.encode(format!("{OPERATOR}:demo-operator-password").as_bytes());
    let element = format!("POST /json-rpc/11.0 HTTP/1.1\r\nAuthorization: Basic {basic}");
    send(&server, &element, br#"{"method":"NoSuch"}"#).await;
    send(&server, "POST /json-rpc/11.0 HTTP/1.1", br#"{"method":"GetAPI"}"#).await;
    assert_eq!(failed(&server, &before).await, [(-99999, 2), (-95003, 1), (-90008, 1)]);
}

#[tokio::test]
async fn commands_over_the_rate_count() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let before = values(&server, "tr50d_command_failures_total").await;
    for _ in 0..30 {
        reply(&mut thing, "diag.ping", "").await;
    }
    let failed = failed(&server, &before).await;
    assert!(matches!(failed[..], [(-95010, 1..)]), "{failed:?}");
    let mut operator = server.operator("http").await;
    let found = call(&mut operator, "thing.diagnose", r#"{"key":"mower-1"}"#).await;
    let rate = &found["limits"][0];
    assert_eq!((&rate["limit"], &rate["reached"]), (&json!("limits.commands_per_s"), &json!(true)));
    assert_eq!(found["failures"]["codes"][0]["code"], -95010);
}

#[tokio::test]
async fn a_diagnosis_says_which_rate_was_reached() {
    const NAMES: [&str; 3] =
        ["limits.commands_per_s", "limits.principal_commands_per_s", "limits.org_commands_per_s"];
    for (variable, name) in [
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", NAMES[1]),
        ("TR50D_LIMITS__ORG_COMMANDS_PER_S", NAMES[2]),
    ] {
        let server = TestServer::with(&[(variable, "5")]);
        let mut operator = server.operator("http").await;
        let mut thing = server.thing("mqtt", "mower-1").await;
        for _ in 0..30 {
            reply(&mut thing, "diag.ping", "").await;
        }
        eventually("the second is over", async || {
            let found = reply(&mut operator, "thing.diagnose", r#"{"key":"mower-1"}"#).await;
            let limits = found["params"]["limits"].as_array().cloned().unwrap_or_default();
            let reached = |limit: &&Value| limit["reached"] == true;
            let reached: Vec<_> =
                limits.iter().filter(reached).map(|limit| &limit["limit"]).collect();
            let known: Vec<_> = limits.iter().take(3).map(|limit| &limit["limit"]).collect();
            known == NAMES && reached == [name]
        })
        .await;
        // The stream has one event of it.
        eventually("an event", async || {
            let asked = r#"{"types":"limit.reached"}"#;
            let events = reply(&mut operator, "event.list", asked).await;
            let event = events["params"]["result"][0].clone();
            let pool = event["pool"].as_str().unwrap_or_default();
            name == format!("limits.{pool}") && event["refused"].as_u64() > Some(0)
        })
        .await;
    }
}

/// What is refused, of this thing by this version of MQTT.
async fn refused_connect(server: &Endpoints, version: Version, connect: &Connect) {
    let mut wire = Wire::open(server, version).await;
    wire.send(&connect.frame()).await;
    let connack = wire.frame().await.expect("a CONNACK");
    assert!(connack[0] == 0x20 && connack[3] != 0, "{connack:x?}");
    wire.expect_end().await;
}

#[tokio::test]
async fn every_refused_login_counts_with_its_door_and_cause() {
    let server = TestServer::start();
    let counted = async |cause: &str, door: &str| {
        let values = values(&server, "tr50d_logins_total").await;
        let is_it = |labels: &&String| {
            labels.contains(&format!("cause=\"{cause}\""))
                && labels.contains(&format!("\"{door}\""))
        };
        let labels = values.keys().find(is_it).unwrap_or_else(|| panic!("no {cause} {door}"));
        values[labels]
    };
    let all = values(&server, "tr50d_logins_total").await;
    assert!(all.len() > 100 && all.values().all(|count| *count == 0), "{all:?}");
    for (index, version) in [Version::V31, Version::V311, Version::V5].into_iter().enumerate() {
        let login = Connect::login(version, "box-7", "mower-7", "no such token");
        refused_connect(&server, version, &login).await;
        assert_eq!(counted("unknown_token", "mqtt").await, index as u64 + 1);
        let mut bare = Connect::thing(version, "mower-7");
        bare.login = None;
        refused_connect(&server, version, &bare).await;
        assert_eq!(counted("no_credentials", "mqtt").await, index as u64 + 1);
        let long = Connect::thing(version, "mower-7").id("a\u{1}b");
        refused_connect(&server, version, &long).await;
        assert_eq!(counted("bad_client_id", "mqtt").await, index as u64 + 1);
    }
    let login = |params: &str| {
        format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{params}}}}}}}"#)
    };
    let user = login(r#""username":"operator@basicorg.example","password":"wrong""#);
    Lines::connect(&server).await.ask(&user).await;
    assert_eq!(counted("wrong_password", "tcp").await, 1);
    post(&server, &login(r#""username":"nobody@x.example","password":"wrong""#)).await;
    assert_eq!(counted("unknown_user", "http").await, 1);
    post(&server, &login(r#""username":"nobody@x.example""#)).await;
    assert_eq!(counted("no_credentials", "http").await, 1);
    let form = "POST /rest/auth HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded";
    send(&server, form, b"username=nobody%40x.example&password=wrong").await;
    assert_eq!(counted("unknown_user", "http").await, 2);
    let basic = BASE64.encode(format!("{OPERATOR}:wrong").as_bytes());
    let element = format!("POST /json-rpc/11.0 HTTP/1.1\r\nAuthorization: Basic {basic}");
    send(&server, &element, br#"{"method":"GetAPI"}"#).await;
    assert_eq!(counted("wrong_password", "http").await, 1);
    let cognite = "GET /api/v1/principals/me HTTP/1.1\r\nAuthorization: Bearer no-such-token-1";
    send(&server, cognite, b"").await;
    assert_eq!(counted("unknown_token", "http").await, 1);
    post_with(&server, "sessionId: 5cf885f41c5bd771c8065be8\r\n", "{}").await;
    assert_eq!(counted("unknown_session", "http").await, 1);
    assert_eq!(counted("none", "tcp").await, 0);
    let mut admin = server.admin("tcp").await;
    assert_eq!(counted("none", "tcp").await, 1);

    // And the trail has them with what they said of themselves.
    let failures = async |admin: &mut Client, params: Value| {
        let listed = call(admin, "login.failures", &params.to_string()).await;
        listed["result"].as_array().expect("a list").clone()
    };
    let mowers = failures(&mut admin, json!({ "name": "MOWER-7", "cause": "unknown_token" })).await;
    // Each version by itself: devices of one may be those that fail.
    let versions = mowers.iter().map(|mower| mower["protocolVersion"].as_str());
    assert_eq!(versions.collect::<BTreeSet<_>>(), ["3.1", "3.1.1", "5"].map(Some).into());
    assert!(mowers.is_sorted_by(|newer, older| newer["last"].as_str() >= older["last"].as_str()));
    for mower in &mowers {
        assert_eq!(
            (&mower["name"], &mower["clientId"], &mower["protocol"]),
            (&json!("mower-7"), &json!("box-7"), &json!("mqtt"))
        );
        assert_eq!((&mower["count"], &mower["kind"]), (&json!(1), &json!("thing")));
    }
    let mower = &mowers[0];
    // Those of another cause, too.
    assert_eq!(failures(&mut admin, json!({ "name": "mower-*" })).await.len(), 6);
    // And each door by itself: who comes by two has two things to look at.
    let login = r#"{"auth":{"command":"api.authenticate","params":{"appToken":"no such token","thingKey":"mower-7"}}}"#;
    post(&server, login).await;
    Lines::connect(&server).await.ask(login).await;
    for (protocol, counted) in [("mqtt", &[1, 1, 1][..]), ("http", &[1]), ("tcp", &[1])] {
        let cause = "unknown_token";
        let asked = json!({ "name": "mower-7", "cause": cause, "protocol": protocol });
        let rows = failures(&mut admin, asked).await;
        let counts: Vec<_> = rows.iter().map(|row| &row["count"]).collect();
        assert_eq!(counts, counted, "{protocol}: {rows:?}");
    }
    assert_eq!(failures(&mut admin, json!({ "name": "*WER-7" })).await.len(), 8);
    assert_eq!(failures(&mut admin, json!({ "name": "m*-8*" })).await.len(), 0);
    assert_eq!(failures(&mut admin, json!({ "clientId": "box-7" })).await.len(), 3);
    let all = failures(&mut admin, json!({})).await;
    assert!(failures(&mut admin, json!({ "address": "127.0.0.1:" })).await.len() == all.len());
    assert!(failures(&mut admin, json!({ "address": "192." })).await.is_empty());
    assert_eq!(failures(&mut admin, json!({ "offset": 2 })).await.len(), all.len() - 2);
    let last = mower["last"].clone();
    let until = json!({ "cause": "unknown_token", "protocol": "mqtt", "before": last });
    assert_eq!(failures(&mut admin, until).await.len(), 3);
    let later = failures(&mut admin, json!({ "after": "2100-01-01T00:00:00Z" })).await;
    assert!(later.is_empty());
    let newer = failures(&mut admin, json!({ "after": mower["number"] })).await;
    assert!(newer.iter().all(|row| row["number"].as_u64() > mower["number"].as_u64()));
    // Counted by what they have in common, the ports of an address aside.
    let count = |row: &Value| row["count"].as_u64().expect("a count");
    let sum = all.iter().map(count).sum::<u64>();
    for (by, groups) in [("address", 1), ("name", 0), ("cause", 0), ("protocol", 0)] {
        let listed =
            call(&mut admin, "login.failures", &json!({ "groupBy": by }).to_string()).await;
        let rows = listed["result"].as_array().expect("a list");
        assert_eq!(listed["count"], rows.len(), "{listed}");
        assert!(groups == 0 || rows.len() == groups, "{by}: {listed}");
        assert_eq!(rows.iter().map(count).sum::<u64>(), sum, "{by}: {listed}");
        assert!(rows.is_sorted_by_key(|row| std::cmp::Reverse(count(row))), "{by}: {listed}");
        assert!(rows.iter().all(|row| row["first"].as_str() <= row["last"].as_str()), "{listed}");
    }
    let by_address = failures(&mut admin, json!({ "groupBy": "Address", "limit": 1 })).await;
    let [address] = &by_address[..] else { panic!("{by_address:?}") };
    assert_eq!(address["address"], "127.0.0.1");
    let has = |member: &str, text: &str| {
        address[member].as_array().is_some_and(|texts| texts.contains(&json!(text)))
    };
    assert!(has("causes", "unknown_token") && has("protocols", "mqtt"), "{address}");
    assert!(address["addresses"].is_null(), "{address}");
    let named = json!({ "groupBy": "name", "name": "mower-7", "cause": "unknown_token" });
    let by_name = failures(&mut admin, named).await;
    assert_eq!((&by_name[0]["name"], count(&by_name[0])), (&json!("mower-7"), 5), "{by_name:?}");
    assert_eq!(by_name[0]["addresses"], json!(["127.0.0.1"]));
    assert!(failures(&mut admin, json!({ "groupBy": "cause", "offset": 99 })).await.is_empty());
    let wrong = reply(&mut admin, "login.failures", r#"{"groupBy":"colour"}"#).await;
    assert_eq!(wrong["errorCodes"], json!([-95005]));
    let wrong = reply(&mut admin, "login.failures", r#"{"nmae":"x"}"#).await;
    assert_eq!(wrong["errorCodes"], json!([-95005]));
    // An organisation sees its own users and applications, and not what is nobody's.
    let mut operator = server.operator("tcp").await;
    let own = failures(&mut operator, json!({})).await;
    assert!(own.iter().all(|row| row["name"] == OPERATOR), "{own:?}");
    let groups = failures(&mut operator, json!({ "groupBy": "name" })).await;
    assert!(groups.iter().all(|row| row["name"] == OPERATOR), "{groups:?}");
}

#[tokio::test]
async fn why_a_thing_can_not_connect_has_an_answer() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let diagnose = async |client: &mut Client, key: &str| {
        call(client, "thing.diagnose", &json!({ "key": key }).to_string()).await
    };
    let never = diagnose(&mut operator, "mower-42").await;
    assert_eq!((&never["exists"], &never["connected"]), (&json!(false), &json!(false)));
    let summary = never["summary"].as_str().expect("a text");
    assert!(summary.starts_with("Never seen"), "{never}");
    assert_eq!(never["registration"]["possible"], true);
    let login = Connect::login(Version::V311, "box-42", "mower-42", "no such token");
    for _ in 0..3 {
        refused_connect(&server, Version::V311, &login).await;
    }
    let refused = diagnose(&mut operator, "mower-42").await;
    let last = &refused["refused"]["logins"][0];
    assert_eq!((&last["cause"], &last["count"]), (&json!("unknown_token"), &json!(3)));
    assert_eq!((&last["clientId"], &last["protocolVersion"]), (&json!("box-42"), &json!("3.1.1")));
    assert!(last["remoteAddr"].as_str().expect("known here").starts_with("127.0.0.1:"));
    assert!(
        refused["summary"].as_str().expect("a text").contains("no application with this token")
    );

    let mut wire = Connect::thing(Version::V5, "mower-42").resuming().open(&server).await;
    wire.subscribe("news/#", 1).await;
    let here = diagnose(&mut operator, "mower-42").await;
    assert_eq!((&here["exists"], &here["connected"]), (&json!(true), &json!(true)));
    assert_eq!(here["connections"][0]["remoteAddr"], json!(wire.address()));
    assert!(here["summary"].as_str().expect("a text").contains("is connected since"), "{here}");
    wire.leave().await;
    eventually("it has left", async || {
        diagnose(&mut operator, "mower-42").await["connected"] == false
    })
    .await;
    call(
        &mut operator,
        "mailbox.send",
        r#"{"thingKey":"mower-42","command":"ping","ackTimeout":0,"ttl":60}"#,
    )
    .await;
    let mut other = Connect::thing(Version::V311, "mower-43").open(&server).await;
    other.send(&other.publish(2, 1, "news/a", "1")).await;
    other.frame().await.expect("a PUBACK");
    let left = diagnose(&mut operator, "mower-42").await;
    assert_eq!(left["left"]["reason"], "logged_out", "{left}");
    assert_eq!((&left["waiting"]["mails"], &left["waiting"]["messages"]), (&json!(1), &json!(1)));

    // Another organisation's thing is as one that is nowhere.
    let york = server.url("tcp", "press-1", "demo-token-yorkorg");
    let _press = connect(&york).await;
    let press = diagnose(&mut operator, "press-1").await;
    assert_eq!((&press["exists"], &press["connected"]), (&json!(false), &json!(false)));
    // What is closed, and what can be no key.
    let def = r#"{"key":"strict","name":"Strict","autoDefProps":false,"properties":{"speed":{}}}"#;
    call(&mut operator, "thing_def.create", def).await;
    let change = r#"{"key":"mower-42","newDefKey":"strict"}"#;
    call(&mut operator, "thing.def.change", change).await;
    let closed = diagnose(&mut operator, "mower-42").await;
    assert_eq!(closed["definition"]["closed"], true, "{closed}");
    assert_eq!(closed["definition"]["properties"], json!(["speed"]));
    let no_key = diagnose(&mut operator, "a/b#+").await;
    assert_eq!(no_key["registration"]["possible"], false, "{no_key}");
    let missing = reply(&mut operator, "thing.diagnose", "{}").await;
    assert_eq!(missing["errorCodes"], json!([-95004]));
}

/// The names of an object, in its order, the same twice if they come twice.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, Value>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// The lines of a log of JSON, each with unique names.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("a log");
    let line = |line: &str| {
        let Names(mut names) = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice: {line}");
        serde_json::from_str(line).expect("JSON")
    };
    text.lines().map(line).collect()
}

fn those<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

#[tokio::test]
async fn the_log_has_a_line_for_each_session_and_cause() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = TR50D.serve_logging(&log, &[("TR50D_LOG__FORMAT", "json")]);
    let mut wire = Connect::thing(Version::V311, "mower-1").id("box-1").open(&server).await;
    for pkid in 1..=20 {
        wire.send(&wire.publish(2, pkid, "thing/self/property/a", "not a number")).await;
        wire.frame().await.expect("a PUBACK");
        wire.tell("api/1", r#"{"1":{"command":"no.such"}}"#).await;
        wire.message().await;
    }
    let login = Connect::login(Version::V5, "box-7", "mower-7", "no such token");
    for _ in 0..5 {
        refused_connect(&server, Version::V5, &login).await;
    }
    // One that is watched, and one that is not.
    let mut admin = server.admin("tcp").await;
    let watch = r#"{"thingKey":"mower-1","seconds":60}"#;
    let watched = call(&mut admin, "server.log.watch", watch).await;
    assert_eq!(watched["result"][0]["name"], "mower-1");
    let mut other = server.thing("mqtt", "mower-2").await;
    call(&mut other, "diag.ping", "").await;
    wire.tell("api/1", r#"{"1":{"command":"diag.ping"}}"#).await;
    wire.message().await;
    call(&mut admin, "server.log.watch", r#"{"thingKey":"mower-1","seconds":0}"#).await;
    wire.tell("api/1", r#"{"1":{"command":"diag.time"}}"#).await;
    wire.message().await;
    let address = wire.address();
    wire.leave().await;
    assert!(server.end(Signal::TERM).await.success());

    let lines = lines(&log);
    let failed = those(&lines, "a command failed");
    let of_mower: Vec<_> = failed.iter().filter(|line| line["who"] == "mower-1").collect();
    let codes: Vec<_> = of_mower.iter().map(|line| line["code"].as_i64()).collect();
    assert_eq!(codes, [Some(-95005), Some(-95003)], "{failed:?}");
    let first = of_mower[0];
    assert_eq!(
        (&first["client_id"], &first["app"], &first["peer"], &first["door"], &first["command"]),
        (
            &json!("box-1"),
            &json!("demo-app"),
            &json!(address),
            &json!("mqtt"),
            &json!("property.publish")
        )
    );
    let refused = those(&lines, "a login was refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        (&refused[0]["who"], &refused[0]["client_id"], &refused[0]["version"]),
        (&json!("mower-7"), &json!("box-7"), &json!("5"))
    );
    assert_eq!(
        (&refused[0]["cause"], &refused[0]["door"]),
        (&json!("unknown_token"), &json!("mqtt"))
    );
    let started = those(&lines, "a session started");
    assert!(started.iter().any(|line| line["who"] == "mower-1" && line["peer"] == address));
    let ended = those(&lines, "a session ended");
    let end = ended.iter().find(|line| line["who"] == "mower-1").expect("its end");
    assert_eq!(end["reason"], "logged_out");
    assert!(end["seconds"].is_u64() && end["commands"].as_u64() > Some(20), "{end}");
    let told = lines.iter().filter(|line| line["target"] == "tr50d::watched");
    let told: Vec<_> = told.map(|line| (&line["who"], &line["command"], &line["level"])).collect();
    assert_eq!(told, [(&json!("mower-1"), &json!("diag.ping"), &json!("DEBUG"))]);
    assert_eq!(those(&lines, "version")[0]["version"], env!("CARGO_PKG_VERSION"));
    let listening = those(&lines, "listening");
    assert_eq!(listening.len(), 3, "{listening:?}");
    assert_eq!(listening[0]["address"], json!(server.address("mqtt").to_string()));
    let stopping = those(&lines, "stopping");
    assert!(stopping[0]["sessions"].as_u64() >= Some(2), "{stopping:?}");
    assert_eq!(those(&lines, "stopped")[0]["stored"], true);
}

#[tokio::test]
async fn tokens_and_session_ids_in_the_wrong_place_are_nowhere_to_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = TR50D.serve_logging(&log, &[("TR50D_LOG__FORMAT", "json")]);
    let session = log_in(&server, OPERATOR, "demo-operator-password").await;
    let mut admin = server.admin("tcp").await;
    call(&mut admin, "server.log.watch", r#"{"address":"127.0.0.1"}"#).await;
    let mut operator = server.operator("tcp").await;
    let secrets = [TOKEN, &*session];
    let mut seen = String::new();
    for (secret, version) in secrets.iter().zip([Version::V311, Version::V5]) {
        // As a name, as a password, as a client id; with what goes for it, and what does not.
        for login in [
            Connect::login(version, secret, secret, "no such token"),
            Connect::login(version, &format!("box {secret}"), "mower-1", secret).id(secret),
            Connect::login(version, secret, "mower-1", TOKEN),
        ] {
            let mut wire = Wire::open(&server, version).await;
            wire.send(&login.frame()).await;
            if wire.frame().await.expect("a CONNACK")[3] == 0 {
                let topics = [format!("thing/{secret}"), format!("ap/{secret}")];
                for topic in &topics {
                    wire.send(&wire.publish(2, 1, topic, "{}")).await;
                    wire.frame().await.expect("a PUBACK");
                }
                let command = json!({ "1": { "command": secret } });
                wire.tell("api/1", &command.to_string()).await;
                wire.message().await;
                let asked = call(&mut operator, "thing.diagnose", r#"{"key":"mower-1"}"#).await;
                seen += &asked.to_string();
                wire.leave().await;
            }
        }
        let login = json!({ "auth": { "command": "api.authenticate", "params":
            { "username": secret, "password": "wrong" } } });
        post(&server, &login.to_string()).await;
        let change = json!({ "1": { "command": "user.update", "params": { (*secret): 1 } } });
        post_with(&server, &format!("sessionId: {session}\r\n"), &change.to_string()).await;
        let path = format!("POST /api/v1/projects/{secret}/assets HTTP/1.1");
        send(&server, &path, b"{}").await;
    }
    for command in ["event.list", "audit.list", "login.failures"] {
        seen += &call(&mut admin, command, r#"{"limit":1000}"#).await.to_string();
    }
    let shown = format!(r#""clientId":"{}""#, "*".repeat(TOKEN.len()));
    assert!(seen.contains(&shown) && seen.contains("unknown_user"), "{seen}");
    assert!(server.end(Signal::TERM).await.success());
    let lines = lines(&log);
    for message in ["a session started", "a login was refused", "a command failed"] {
        assert!(!those(&lines, message).is_empty(), "{message}");
    }
    seen.extend(lines.iter().map(Value::to_string));
    for secret in secrets {
        let at = seen.find(secret);
        assert!(at.is_none(), "{}", &seen[at.unwrap_or(0).saturating_sub(200)..][..400]);
    }
}

#[tokio::test]
async fn of_many_sessions_the_log_has_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = TR50D.serve_logging(&log, &[("TR50D_LOG__FORMAT", "json")]);
    let mut things = Vec::new();
    for number in 0..300 {
        things.push(server.thing("tcp", &format!("t-{number}")).await);
    }
    // All end at once, more than there are lines in a second.
    assert!(server.end(Signal::TERM).await.success());
    let lines = lines(&log);
    let sum = |message: &str, member: &str| {
        let alone = those(&lines, message).len() as u64;
        let counts = those(&lines, "more sessions started and ended");
        let more: u64 = counts.iter().filter_map(|line| line[member].as_u64()).sum();
        assert!(alone <= 300, "{message}");
        (alone + more, more)
    };
    assert_eq!(sum("a session started", "started").0, 300);
    let (ended, in_counts) = sum("a session ended", "ended");
    assert_eq!(ended, 300);
    assert!(in_counts > 0, "some are only counted");
}

#[tokio::test]
async fn only_who_runs_the_server_has_the_log_watch() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let denied = reply(&mut operator, "server.log.watch", "{}").await;
    assert_eq!(denied["errorCodes"], json!([-95006]));
    let mut admin = server.admin("tcp").await;
    let empty = call(&mut admin, "server.log.watch", "{}").await;
    assert_eq!(empty["result"], json!([]));
    let refuse = async |admin: &mut Client, params: &str, code: i32| {
        let refused = reply(admin, "server.log.watch", params).await;
        assert_eq!(refused["errorCodes"], json!([code]), "{params}");
    };
    refuse(&mut admin, r#"{"address":"nowhere"}"#, -95005).await;
    refuse(&mut admin, r#"{"name":"a","seconds":3601}"#, -95005).await;
    refuse(&mut admin, r#"{"name":"a","address":"192.0.2.1"}"#, -95005).await;
    refuse(&mut admin, r#"{"seconds":5}"#, -95004).await;
    let set = call(&mut admin, "server.log.watch", r#"{"address":"192.0.2.1:77"}"#).await;
    assert_eq!(set["result"][0]["address"], "192.0.2.1");
    let trail = call(&mut admin, "audit.list", r#"{"class":"administration"}"#).await;
    assert_eq!(trail["result"][0]["target"]["name"], "192.0.2.1");
}

#[tokio::test]
async fn every_command_of_the_operators_page_works() {
    let server = TestServer::start();
    let _mower = server.thing("mqtt", "mower-42").await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let address = server.address("http");
    // What is the whole server's is a super administrator's.
    let urls = [
        "operator%40basicorg.example:demo-operator-password",
        "admin%40devicewise.com:demo-admin-password",
    ]
    .map(|login| format!("http://{login}@{address}"));
    let switch = format!("{} \"$@\"", TR50D.0);
    // What goes into a file is in the test of traces.
    let shown =
        |line: &&str| line.starts_with("tr50d call --url \"$URL\" ") && !line.contains(" > ");
    let commands: Vec<_> = page.lines().filter(shown).collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for line in commands {
        let asked = urls.each_ref().map(|url| {
            let mut shell = Command::new("sh");
            shell.env("URL", url).args(["-c", &format!("tr50d() {{ {switch}; }}\n{line}")]);
            run(shell)
        });
        let works = |(status, out, _): &(std::process::ExitStatus, String, String)| {
            status.success() && out.starts_with('{')
        };
        assert!(asked.iter().any(works), "{line}\n{asked:?}");
    }
}
