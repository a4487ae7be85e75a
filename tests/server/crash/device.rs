//! Things that do everything that things do.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Url};
use parking_lot::Mutex;
use support::call;

use super::{text, try_call, upload};

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
pub(super) struct Device {
    key: String,
    ledger: Mutex<Ledger>,
}

impl Device {
    pub(super) fn new(key: String) -> Arc<Self> {
        Arc::new(Self { key, ledger: Mutex::default() })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// How many batches were acknowledged since the last kill.
    pub(super) fn acknowledged(&self) -> usize {
        self.ledger.lock().batches.len()
    }

    /// Works until the server is gone.
    pub(super) async fn work(self: Arc<Self>, url: Url, http: String, mut number: u64) {
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
    pub(super) async fn verify(&self, operator: &mut Client, since: &str) -> u64 {
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
