//! `kill -9` a hundred times, at random moments, under a load of everything that things do: what was
//! acknowledged is there afterwards, and nothing is there by half.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Url};
use parking_lot::Mutex;
use serde_json::Value;
use support::{Signal, call, connect};

use crate::TR50D;

const KILLS: usize = 100;
const DEVICES: usize = 4;
/// Rows of one `property.batch`: all of them or none.
const ROWS: usize = 5;

/// What was acknowledged to one device between two kills, and what it may have got beyond that.
#[derive(Default)]
struct Ledger {
    /// Batches of rows by their number, which is also the value of all their rows.
    batches: Vec<u64>,
    /// The newest value of the attribute.
    attribute: u64,
    /// Mails to the device.
    mails: Vec<String>,
    /// Mails that the device has acknowledged.
    completed: Vec<String>,
    /// Things that the device has made.
    things: Vec<String>,
    /// Files that the device has stored.
    files: Vec<String>,
}

/// What outlives a kill.
struct Device {
    key: String,
    ledger: Mutex<Ledger>,
}

impl Device {
    /// Works until the server is gone.
    async fn work(self: Arc<Self>, url: Url, http: String, mut number: u64) {
        let Ok(mut client) = Client::connect(&url).await else { return };
        loop {
            number += 1;
            if self.step(&mut client, &http, number).await.is_none() {
                return;
            }
        }
    }

    /// One of everything; none when the server is gone.
    async fn step(&self, client: &mut Client, http: &str, number: u64) -> Option<()> {
        let row = format!(r#"{{"key":"count","value":{number}}}"#);
        let rows = vec![row; ROWS].join(",");
        try_call(client, "property.batch", &format!(r#"{{"data":[{rows}]}}"#)).await?;
        self.ledger.lock().batches.push(number);

        let set = format!(r#"{{"key":"count","value":"{number}"}}"#);
        try_call(client, "thing.attr.set", &set).await?;
        self.ledger.lock().attribute = number;

        let send = format!(
            r#"{{"thingKey":"{}","command":"x.{number}","ackTimeout":0,"ttl":-1}}"#,
            self.key
        );
        let mail = text(&try_call(client, "mailbox.send", &send).await?["id"]);
        self.ledger.lock().mails.push(mail.clone());
        if number.is_multiple_of(2) {
            try_call(client, "mailbox.check", r#"{"limit":100}"#).await?;
            try_call(client, "mailbox.ack", &format!(r#"{{"id":"{mail}"}}"#)).await?;
            self.ledger.lock().completed.push(mail);
        }
        if number.is_multiple_of(5) {
            let key = format!("{}-made-{number}", self.key);
            let create = format!(r#"{{"key":"{key}","name":"made"}}"#);
            try_call(client, "thing.create", &create).await?;
            self.ledger.lock().things.push(key);
        }
        if number.is_multiple_of(3) {
            let name = format!("file-{number}");
            let put = format!(r#"{{"fileName":"{name}"}}"#);
            let ticket = try_call(client, "file.put", &put).await?;
            upload(http, &text(&ticket["fileId"]), &name).await?;
            self.ledger.lock().files.push(name);
        }
        Some(())
    }

    /// Everything that was acknowledged since the last kill is there. `since` is a time before all of
    /// it. Returns the highest number that was seen.
    async fn verify(&self, operator: &mut Client, since: &str) -> u64 {
        let ledger = std::mem::take(&mut *self.ledger.lock());
        let key = &self.key;
        let history = format!(r#"{{"thingKey":"{key}","key":"count","start":"{since}"}}"#);
        let history = call(operator, "property.history", &history).await;
        let mut rows: BTreeMap<u64, usize> = BTreeMap::new();
        for row in history["values"].as_array().expect("rows") {
            *rows.entry(row["value"].as_f64().expect("a number") as u64).or_default() += 1;
        }
        for (number, count) in &rows {
            assert_eq!(*count, ROWS, "batch {number} of {key} is there by half");
        }
        for number in &ledger.batches {
            assert!(rows.contains_key(number), "batch {number} of {key} is lost");
        }
        if ledger.attribute > 0 {
            let get = format!(r#"{{"thingKey":"{key}","key":"count"}}"#);
            let value = text(&call(operator, "thing.attr.get", &get).await["value"]);
            let value: u64 = value.parse().expect("a number");
            assert!((ledger.attribute..=ledger.attribute + 1).contains(&value), "{value}");
        }
        for mail in &ledger.mails {
            let found = call(operator, "mailbox.find", &format!(r#"{{"id":"{mail}"}}"#)).await;
            let completed = found["status"] == "completed-ok";
            assert!(completed || !ledger.completed.contains(mail), "{found}");
        }
        for made in &ledger.things {
            let found = call(operator, "thing.find", &format!(r#"{{"key":"{made}"}}"#)).await;
            assert_eq!(found["name"], "made");
        }
        for file in &ledger.files {
            let get = format!(r#"{{"thingKey":"{key}","fileName":"{file}"}}"#);
            let found = call(operator, "file.get", &get).await;
            assert_eq!(found["fileSize"], file.len(), "{found}");
        }
        rows.last_key_value().map_or(0, |(number, _)| *number)
    }
}

/// A command's `params`, if the server lives to answer; it must not refuse.
async fn try_call(client: &mut Client, command: &str, params: &str) -> Option<Value> {
    let reply = client.call(command, Some(params)).await.ok()?;
    let reply: Value = serde_json::from_str(reply.as_json()).expect("JSON");
    assert_eq!(reply["success"], true, "{command} {params}: {reply}");
    Some(reply["params"].clone())
}

async fn upload(http: &str, id: &str, content: &str) -> Option<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(http).await.ok()?;
    let head = format!("POST /file/{id} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", content.len());
    stream.write_all([head.as_bytes(), content.as_bytes()].concat().as_slice()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    // Killed before it answered, the server may close without a word.
    answer.split(' ').nth(1).map(|status| assert_eq!(status, "200", "{answer}"))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Half of the mails are never fetched.
const SETTINGS: &[(&str, &str)] = &[("TR50D_MAILBOX__WAITING_MAX", "1000000")];

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_is_there_by_half() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| Device { key: format!("device-{number}"), ledger: Mutex::default() })
        .map(Arc::new)
        .collect();
    let mut last = [0; DEVICES];
    let mut server = TR50D.serve(&data_dir, SETTINGS);
    let mut acknowledged = 0;
    for _ in 0..KILLS {
        let mut operator = server.operator("tcp").await;
        let now = call(&mut operator, "diag.time", "").await["time"].as_i64().expect("a time");
        let since = base::Timestamp::from_millis(now);
        let since = String::from_utf8(since.to_rfc3339().to_vec()).expect("text");
        let http = server.address("http").to_string();
        let load: Vec<_> = devices
            .iter()
            .zip(last)
            .map(|(device, last)| {
                let url = server.thing_url("tcp", &device.key);
                tokio::spawn(device.clone().work(url, http.clone(), last))
            })
            .collect();
        // The moment of the kill is what this is about.
        let [random] = tr50d::random::random().expect("random numbers");
        tokio::time::sleep(Duration::from_millis(20 + u64::from(random))).await;
        server.end(Signal::KILL).await;
        for device in load {
            device.await.expect("nothing was refused");
        }
        acknowledged += devices.iter().map(|d| d.ledger.lock().batches.len()).sum::<usize>();

        server = TR50D.serve(&data_dir, SETTINGS);
        let url = server.url("tcp", "operator@basicorg.example", "demo-operator-password");
        let mut operator = connect(&url).await;
        for (device, last) in devices.iter().zip(&mut last) {
            *last = device.verify(&mut operator, &since).await.max(*last);
        }
    }
    assert!(acknowledged > KILLS * DEVICES, "the load was next to none: {acknowledged}");
}
