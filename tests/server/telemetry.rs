//! Telemetry: what was acknowledged is there after a kill, histories are read in order from
//! wherever they are, and no value of a parameter does harm.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Timestamp;
use client::Version::V311;
use client::fleet::{Fleet, Load, Plan};
use client::{Client, Url};
use serde_json::{Value, json};
use support::mqtt::Connect;
use support::process::resident_of;
use support::{ServerProcess, Signal, TestServer, call, eventually, reply};
use tokio::time::timeout;

use crate::TR50D;

/// A directory that outlives its servers.
struct Home {
    dir: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        Self { dir: temporary.path().join("data"), _temporary: temporary }
    }

    fn serve(&self) -> ServerProcess {
        TR50D.serve(&self.dir, &[])
    }
}

/// The values of a property, of up to `records` points.
async fn history(operator: &mut Client, thing: &str, key: &str, more: Value) -> Vec<Value> {
    let mut params = json!({"thingKey": thing, "key": key});
    for (name, value) in more.as_object().expect("an object") {
        params[name] = value.clone();
    }
    let reply = call(operator, "property.history", &params.to_string()).await;
    reply["values"].as_array().expect("values").clone()
}

fn numbers(values: &[Value]) -> Vec<f64> {
    values.iter().map(|value| value["value"].as_f64().expect("a number")).collect()
}

/// Rows of a batch; a restart must find all of them or none.
const ROWS: u64 = 20;

/// What became of the batches of one client.
#[derive(Clone, Default)]
struct Sent {
    /// The number of the next batch.
    next: u64,
    /// Batches that were on their way when the server was killed: they may be on disk or not.
    uncertain: Vec<u64>,
}

/// Publishes batches one after the other until the server is gone, and counts those that were
/// acknowledged. The rows of batch `n` have the value `n` and times of their own.
async fn publish_batches(url: Url, mut sent: Sent, acknowledged: Arc<AtomicU64>) -> Sent {
    let Ok(mut client) = Client::connect(&url).await else { return sent };
    loop {
        let row = |row: u64| {
            let ts = Timestamp::from_millis(1_600_000_000_000 + (sent.next * ROWS + row) as i64);
            json!({"key": "load", "value": sent.next, "ts": ts.to_string()})
        };
        let params = json!({"data": (0..ROWS).map(row).collect::<Vec<_>>()});
        sent.next += 1;
        match client.call("property.batch", Some(&params.to_string())).await {
            Ok(reply) => assert!(reply.success(), "{}", reply.as_json()),
            Err(_) => {
                sent.uncertain.push(sent.next - 1);
                return sent;
            }
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn every_acknowledged_row_is_there_after_a_kill_and_no_batch_is_half() {
    const KILLS: u64 = 5;
    const CLIENTS: usize = 4;
    let home = Home::new();
    let mut server = home.serve();
    let mut sent = vec![Sent::default(); CLIENTS];
    let acknowledged: Vec<_> = (0..CLIENTS).map(|_| Arc::new(AtomicU64::new(0))).collect();
    for round in 1..=KILLS {
        let load: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let url = server.thing_url("mqtt", &format!("load-{number}"));
                let (sent, acknowledged) = (sent[number].clone(), acknowledged[number].clone());
                tokio::spawn(publish_batches(url, sent, acknowledged))
            })
            .collect();
        eventually("enough is acknowledged", async || {
            acknowledged.iter().all(|count| count.load(Ordering::SeqCst) >= round * 10)
        })
        .await;
        server.end(Signal::KILL).await;
        for (number, client) in load.into_iter().enumerate() {
            sent[number] = client.await.expect("the load went as it should");
        }
        server = home.serve();
        let mut operator = server.operator("tcp").await;
        for (number, sent) in sent.iter().enumerate() {
            verify(&mut operator, &format!("load-{number}"), sent).await;
        }
    }
}

async fn verify(operator: &mut Client, thing: &str, sent: &Sent) {
    let batches = batches(operator, thing).await;
    assert!(batches.iter().all(|(_, rows)| *rows == ROWS), "a batch is half: {batches:?}");
    let certain = (0..sent.next).filter(|batch| !sent.uncertain.contains(batch));
    for batch in certain {
        let found = batches.iter().any(|(found, _)| *found == batch);
        assert!(found, "batch {batch} of {thing} is lost");
    }
    assert!(batches.iter().all(|(batch, _)| *batch < sent.next));
    let params = json!({"thingKey": thing, "key": "load"}).to_string();
    let current = call(operator, "property.current", &params).await;
    let last = batches.last().expect("some").0;
    assert_eq!(current["value"], last, "the current value is that of the last batch");
}

/// The batches of a thing and how many rows each has.
async fn batches(operator: &mut Client, thing: &str) -> Vec<(u64, u64)> {
    let mut batches: Vec<(u64, u64)> = Vec::new();
    let mut start = "2020-01-01T00:00:00Z".to_owned();
    loop {
        let page = history(operator, thing, "load", json!({"start": start})).await;
        for value in &page {
            let batch = value["value"].as_u64().expect("a whole number");
            match batches.last_mut() {
                Some((last, rows)) if *last == batch => *rows += 1,
                _ => batches.push((batch, 1)),
            }
        }
        let Some(last) = page.last().filter(|_| page.len() == 5000) else { return batches };
        let last = Timestamp::parse(last["ts"].as_str().expect("a time")).expect("a time");
        start = last.plus_millis(1).to_string();
    }
}

#[tokio::test]
async fn a_restart_finds_every_kind_of_value() {
    let home = Home::new();
    let mut server = home.serve();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let ts = "2021-08-10T14:16:10.976Z";
    let published = [
        ("property.publish", json!({"key": "p", "value": 1.5, "ts": ts, "corrId": "c"})),
        ("alarm.publish", json!({"key": "a", "state": 2, "msg": "Stuck.", "ts": ts})),
        ("attribute.publish", json!({"key": "t", "value": "x", "ts": ts})),
        ("location.publish", json!({"lat": 1, "lng": 2, "heading": 3, "ts": ts})),
        ("log.publish", json!({"msg": "Started.", "ts": ts})),
    ];
    for (command, params) in &published {
        call(&mut thing, command, &params.to_string()).await;
    }
    let asked = [
        ("property.current", json!({"key": "p"})),
        ("alarm.current", json!({"key": "a", "ts": "2021-08-10T15:00:00Z"})),
        ("attribute.current", json!({"key": "t"})),
        ("thing.attr.get", json!({"key": "t"})),
        ("location.current", json!({})),
        ("log.list", json!({})),
    ];
    let mut before = Vec::new();
    for signal in [None, Some(Signal::KILL), Some(Signal::TERM)] {
        if let Some(signal) = signal {
            server.end(signal).await;
            server = home.serve();
        }
        let mut operator = server.operator("mqtt").await;
        let mut found = Vec::new();
        for (command, params) in &asked {
            let mut params = params.clone();
            params["thingKey"] = "mower-1".into();
            found.push(call(&mut operator, command, &params.to_string()).await);
        }
        if before.is_empty() {
            before.clone_from(&found);
        }
        assert_eq!(found, before, "{signal:?}");
    }
    assert_eq!(before[0], json!({"value": 1.5, "ts": ts, "corrId": "c"}));
    assert_eq!(before[5]["count"], 1);
}

#[tokio::test]
async fn a_long_history_is_read_in_order_from_all_its_months() {
    const COUNT: usize = 12_000;
    const HOURS_APART: i64 = 2;
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let now = Timestamp::now();
    let time =
        |number: usize| now.plus_millis((number as i64 - COUNT as i64) * HOURS_APART * 3_600_000);
    // Not in the order of their times.
    let numbers_sent: Vec<usize> = (0..COUNT).map(|n| n * 7919 % COUNT).collect();
    for part in numbers_sent.chunks(4000) {
        let row = |n: &usize| json!({"value": n, "ts": time(*n).to_string()});
        let data: Vec<_> = part.iter().map(row).collect();
        let params = json!({"key": "v", "data": data}).to_string();
        call(&mut thing, "property.batch", &params).await;
    }
    let mut operator = server.operator("mqtt").await;
    let mut read =
        async |params: Value| numbers(&history(&mut operator, "mower-1", "v", params).await);
    let expect = |from: usize, to: usize| (from..to).map(|n| n as f64).collect::<Vec<_>>();
    assert_eq!(read(json!({})).await, expect(COUNT - 5000, COUNT));
    assert_eq!(read(json!({"records": 3})).await, expect(COUNT - 3, COUNT));
    assert_eq!(read(json!({"last": "9h"})).await, expect(COUNT - 4, COUNT));
    let start = time(100).to_string();
    assert_eq!(read(json!({"start": start})).await, expect(100, 5100));
    let end = time(11_000).to_string();
    assert_eq!(read(json!({"start": end, "end": start})).await, expect(100, 5100));
    assert_eq!(read(json!({"end": start})).await, expect(0, 101));
    let params = json!({"thingKey": "mower-1", "key": "v", "calc": "count"}).to_string();
    let counted = call(&mut operator, "property.aggregate", &params).await;
    assert_eq!(counted["values"][0]["value"], COUNT);
    let params = json!({"key": "v", "ts": time(5000).plus_millis(1).to_string()}).to_string();
    assert_eq!(call(&mut thing, "property.current", &params).await["value"], 5000);
}

#[tokio::test]
async fn a_clock_that_is_wrong_does_no_harm() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    for (value, year) in ["0001", "1969", "1980", "2021", "9999"].iter().enumerate() {
        let ts = format!("{year}-06-01T00:00:00Z");
        let params = json!({"key": "v", "value": value, "ts": ts}).to_string();
        call(&mut thing, "property.publish", &params).await;
    }
    let mut operator = server.operator("mqtt").await;
    let values = history(&mut operator, "mower-1", "v", json!({})).await;
    assert_eq!(numbers(&values), [0.0, 1.0, 2.0, 3.0, 4.0]);
    let range = json!({"start": "1970-01-01T00:00:00Z", "end": "2022-01-01T00:00:00Z"});
    let values = history(&mut operator, "mower-1", "v", range).await;
    assert_eq!(numbers(&values), [2.0, 3.0]);
    let months = std::fs::read_dir(server.data_dir().join("keyspaces")).expect("the store").count();
    assert!(months < 40, "{months} keyspaces");
}

#[tokio::test]
async fn what_is_too_old_to_be_kept_is_refused() {
    let server = TestServer::with(&[("TR50D_TELEMETRY__RETENTION_MONTHS", "2")]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let days_ago = |days: i64| Timestamp::now().plus_millis(-days * 86_400_000).to_string();
    let row = |days: i64| json!({"key": "v", "value": days, "ts": days_ago(days)});
    call(&mut thing, "property.publish", &row(1).to_string()).await;
    let params = json!({"data": [row(2), row(100), row(3)]}).to_string();
    let refused = reply(&mut thing, "property.batch", &params).await;
    assert_eq!(refused["errorCodes"], json!([-95005]));
    let message = refused["errorMessages"][0].as_str().expect("a message");
    assert!(message.starts_with("data[1]: Parameter \"ts\" is "), "{message}");
    assert!(message.ends_with("than the 2 months for which telemetry is kept."), "{message}");
    let params = json!({"msg": "x", "ts": days_ago(100)}).to_string();
    assert_eq!(reply(&mut thing, "log.publish", &params).await["success"], false);
    let mut operator = server.operator("mqtt").await;
    let values = history(&mut operator, "mower-1", "v", json!({})).await;
    assert_eq!(numbers(&values), [2.0, 1.0]);
}

/// Points that take more than one piece of the store.
const MANY: usize = 4_500;

/// How many values of a property there are.
async fn count(operator: &mut Client, key: &str) -> Value {
    let params = json!({"thingKey": "mower-1", "key": key, "calc": "count"}).to_string();
    call(operator, "property.aggregate", &params).await["values"][0]["value"].clone()
}

#[tokio::test]
async fn a_long_batch_is_recorded_in_order_up_to_the_first_point_that_is_wrong() {
    let server = TestServer::with(&[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut operator = server.operator("mqtt").await;
    let points = |key: &str, wrong: Option<usize>| {
        let mut points: Vec<_> = (0..MANY).map(|value| json!({"value": value})).collect();
        if let Some(wrong) = wrong {
            points[wrong]["value"] = json!("no number");
        }
        json!({"key": key, "data": points}).to_string()
    };
    call(&mut thing, "property.batch", &points("all", None)).await;
    assert_eq!(count(&mut operator, "all").await, MANY as f64);
    let values = history(&mut operator, "mower-1", "all", json!({"records": MANY})).await;
    assert!(numbers(&values).is_sorted_by(|one, next| one < next), "in the order of the batch");
    let params = json!({"key": "all"}).to_string();
    let current = call(&mut thing, "property.current", &params).await;
    assert_eq!(current["value"], (MANY - 1) as f64);
    // In the first piece, at the border, and in the last.
    for wrong in [1_000, 2_000, 4_321] {
        let key = format!("until-{wrong}");
        let refused = reply(&mut thing, "property.batch", &points(&key, Some(wrong))).await;
        assert_eq!(refused["errorCodes"], json!([-95005]), "{refused}");
        let message = refused["errorMessages"][0].as_str().expect("a message");
        assert!(message.starts_with(&format!("data[{wrong}]: ")), "{message}");
        assert_eq!(count(&mut operator, &key).await, wrong as f64);
    }
}

#[tokio::test]
async fn a_short_text_may_be_a_batch_of_several_pieces() {
    let server = TestServer::with(&[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    // Each point is what stands beside the list.
    let points = vec!["{}"; MANY].join(",");
    let params = format!(r#"{{"key":"v","value":1,"data":[{points}]}}"#);
    call(&mut thing, "property.batch", &params).await;
    let mut operator = server.operator("mqtt").await;
    assert_eq!(count(&mut operator, "v").await, MANY as f64);
}

#[tokio::test]
async fn what_stands_beside_a_list_is_not_there_for_each_of_its_points_at_once() {
    const POINTS: usize = 10_000;
    let home = Home::new();
    let server = home.serve();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let points = vec!["{}"; POINTS].join(",");
    let text = "m".repeat(16 * 1024);
    let params = format!(r#"{{"key":"a","value":"{text}","republish":true,"data":[{points}]}}"#);
    let resident = || resident_of(&server.pid().to_string()).expect("a process");
    let (before, mut most) = (resident(), 0);
    let mut answer = pin!(reply(&mut thing, "attribute.batch", &params));
    let answer = loop {
        match timeout(Duration::from_millis(2), answer.as_mut()).await {
            Ok(answer) => break answer,
            Err(_) => most = most.max(resident()),
        }
    };
    assert_eq!(answer["success"], true, "{answer}");
    // The engine keeps some of what it writes. All points together are 164 MB, as they are read and
    // again as they are written.
    let more = most.saturating_sub(before);
    assert!(more < 250_000_000, "{more} bytes more");
}

#[tokio::test]
async fn a_batch_goes_no_further_when_its_session_is_ended() {
    const POINTS: usize = 100_000;
    let server = TestServer::with(&[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut operator = server.operator("mqtt").await;
    let points = vec!["{}"; POINTS].join(",");
    let params = format!(r#"{{"key":"v","value":1,"data":[{points}]}}"#);
    let sent = tokio::spawn(async move { thing.call("property.batch", Some(&params)).await });
    let key = json!({"thingKey": "mower-1", "key": "v"}).to_string();
    eventually("a beginning is there", async || {
        reply(&mut operator, "property.current", &key).await["success"] == true
    })
    .await;
    let ended = call(&mut operator, "session.end", r#"{"whoAmI":"mower-1"}"#).await;
    assert_eq!(ended["count"], 1, "{ended}");
    let answer = sent.await.expect("no panic").expect("an answer before the connection closes");
    assert_eq!(answer.error_codes(), [-90000], "{answer:?}");
    let mut before = json!(-1);
    eventually("nothing is added any more", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = count(&mut operator, "v").await;
        std::mem::replace(&mut before, now.clone()) == now
    })
    .await;
    assert!(before.as_f64().is_some_and(|count| count < POINTS as f64), "{before}");
}

#[tokio::test]
async fn alarms_of_a_long_batch_are_recorded_in_the_order_of_their_times() {
    let server = TestServer::with(&[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let begin = Timestamp::now();
    let point = |at: usize| json!({"state": at % 2, "ts": begin.plus_millis(at as i64).to_string(), "msg": at.to_string()});
    let points: Vec<_> = (0..MANY).rev().map(point).collect();
    call(&mut thing, "alarm.batch", &json!({"key": "a", "data": points}).to_string()).await;
    let current = call(&mut thing, "alarm.current", r#"{"key":"a"}"#).await;
    assert_eq!(current["msg"], (MANY - 1).to_string(), "{current}");
    let params = json!({"key": "a", "records": 5_000}).to_string();
    let history = call(&mut thing, "alarm.history", &params).await;
    assert_eq!(history["values"].as_array().expect("values").len(), MANY, "each has changed");
}

#[tokio::test]
async fn what_is_sent_behind_a_batch_is_recorded_behind_it() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    let mut thing = Connect::thing(V311, "mower-1").open(&server).await;
    // One is too long to be read at once, the other is two pieces.
    let long: Vec<_> = (0..1_200).map(|at| json!({"value": format!("before {at}")})).collect();
    let pieces = vec![json!({}); 2_100];
    for round in 0..10 {
        let key = format!("a{round}");
        let data = if round % 2 == 0 { &long } else { &pieces };
        let request = |command: &str, params: Value| {
            let request = json!({"1": {"command": command, "params": params}}).to_string();
            thing.publish(0, 0, "api", request)
        };
        let batch = json!({"key": key, "value": "before", "republish": true, "data": data});
        let batch = request("attribute.batch", batch);
        let publish = request("attribute.publish", json!({"key": key, "value": "behind"}));
        thing.send(&[batch, publish].concat()).await;
        for _ in 0..2 {
            let reply: Value =
                serde_json::from_slice(&thing.message().await.payload).expect("JSON");
            assert_eq!(reply, json!({"1": {"success": true}}));
        }
        let params = json!({"thingKey": "mower-1", "key": key}).to_string();
        let current = call(&mut operator, "attribute.current", &params).await;
        assert_eq!(current["value"], "behind", "{key}");
    }
}

/// JSON values of every kind, of which most are wrong most of the time.
const KINDS: [&str; 14] = [
    "null",
    "true",
    "0",
    "-1",
    "0.5",
    "1e400",
    "99999999999999999999",
    "\"\"",
    "\"x\"",
    "\"2021-08-10T14:16:10Z\"",
    "[]",
    "[[]]",
    "{}",
    "[{\"key\":{},\"value\":[]}]",
];

#[tokio::test]
async fn no_value_of_a_parameter_does_harm() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    call(&mut server.thing("tcp", "mower-1").await, "diag.ping", "").await;
    let families = ["property.", "alarm.", "attribute.", "location.", "log.", "thing.attr."];
    let right = [
        ("thingKey", "\"mower-1\""),
        ("key", "\"k\""),
        ("keys", "[\"k\"]"),
        ("value", "1"),
        ("state", "1"),
        ("lat", "1"),
        ("lng", "1"),
        ("msg", "\"m\""),
        ("calc", "\"avg\""),
        ("data", "[{}]"),
    ];
    for info in tr50d::tr50::commands::COMMANDS.iter() {
        if !families.iter().any(|family| info.name.starts_with(family)) {
            continue;
        }
        for field in (info.params)() {
            for kind in KINDS {
                let mut params: Vec<_> = right
                    .iter()
                    .filter(|(name, _)| *name != field.name)
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                params.push(format!("\"{}\":{kind}", field.name));
                let params = format!("{{{}}}", params.join(","));
                let reply = reply(&mut operator, info.name, &params).await;
                let code = &reply["errorCodes"][0];
                let expected = [-90008, -91006, -95004, -95005, -95014];
                let fine = reply["success"] == true || expected.iter().any(|known| code == known);
                assert!(fine, "{} {params}: {reply}", info.name);
            }
        }
    }
}

#[tokio::test]
async fn a_reply_has_a_bound_of_bytes() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let value = "x".repeat(16_384);
    let item = |number: usize| json!({"key": "t", "value": format!("{number:03}{}", &value[3..])});
    for part in 0..8 {
        let data: Vec<_> = (0..40).map(|n| item(part * 40 + n)).collect();
        call(&mut thing, "attribute.batch", &json!({"data": data}).to_string()).await;
    }
    let mut operator = server.operator("mqtt").await;
    let params =
        |limit: u64| json!({"thingKey": "mower-1", "key": "t", "limit": limit}).to_string();
    let fits = call(&mut operator, "attribute.history", &params(200)).await;
    assert_eq!((&fits["count"], fits["values"].as_array().map(Vec::len)), (&320.into(), Some(200)));
    let refused = reply(&mut operator, "attribute.history", &params(0)).await;
    assert_eq!(refused["errorCodes"], json!([-95013]), "{refused}");
    let long = json!({"key": "t", "value": format!("{value}x")}).to_string();
    assert_eq!(reply(&mut thing, "attribute.publish", &long).await["errorCodes"], json!([-95005]));
}

#[tokio::test]
async fn a_fleet_publishes_batches() {
    let server = TestServer::start();
    let mut fleet = Fleet::connect(&Plan::new(server.thing_url("mqtt", "-"), 4)).await.expect("on");
    let load = Load::telemetry(50, Duration::from_millis(300), Timestamp::now()).expect("a load");
    let report = fleet.run(&load).await;
    assert!(report.is_clean(), "{report}");
    let rows = report.rows.clone().expect("telemetry was the load");
    assert_eq!(rows.recorded, report.commands.answered * 50);
    fleet.close().await;
    let mut operator = server.operator("mqtt").await;
    let mut counted = 0;
    for device in 0..4 {
        let mut params = json!({"thingKey": format!("fleet-{device}"), "calc": "count"});
        for property in 0..10 {
            params["key"] = format!("property{property}").into();
            let reply = call(&mut operator, "property.aggregate", &params.to_string()).await;
            counted += reply["values"][0]["value"].as_u64().expect("a count");
        }
    }
    assert_eq!(counted, rows.recorded);
}

/// Commands of many connections for one thing come in some order, and none is lost.
#[tokio::test]
async fn connections_of_one_thing_do_not_lose_each_others_points() {
    const CLIENTS: usize = 8;
    const EACH: usize = 50;
    let server = TestServer::start();
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let mut thing = server.thing("tcp", "mower-1").await;
        tasks.push(tokio::spawn(async move {
            for number in 0..EACH {
                let key = ["a", "b", "c"][number % 3];
                let value = client * EACH + number;
                let params = json!({"key": key, "value": value}).to_string();
                call(&mut thing, "property.publish", &params).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("all was acknowledged");
    }
    let mut operator = server.operator("mqtt").await;
    let mut found = Vec::new();
    for key in ["a", "b", "c"] {
        found.extend(numbers(&history(&mut operator, "mower-1", key, json!({})).await));
    }
    found.sort_by(f64::total_cmp);
    let expected: Vec<_> = (0..CLIENTS * EACH).map(|n| n as f64).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_thing_that_is_made_anew_has_no_past() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    let mut thing = server.thing("mqtt", "mower-1").await;
    call(&mut thing, "property.publish", r#"{"key":"v","value":1}"#).await;
    call(&mut thing, "log.publish", r#"{"msg":"Started."}"#).await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-1"}"#).await;
    let mut thing = server.thing("mqtt", "mower-1").await;
    let current = reply(&mut thing, "property.current", r#"{"key":"v"}"#).await;
    assert_eq!(current["errorCodes"], json!([-90008]));
    assert!(history(&mut operator, "mower-1", "v", json!({})).await.is_empty());
    let list = call(&mut operator, "log.list", r#"{"thingKey":"mower-1"}"#).await;
    assert_eq!(list["count"], 0);
}
