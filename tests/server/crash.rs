//! `kill -9` a hundred times, at random moments, under a load of everything that things, operators and
//! MQTT clients do: what was acknowledged is there afterwards, nothing is there by half, and what was
//! taken with QoS 2 does not come twice.

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use serde_json::Value;
use support::{ServerProcess, Signal, call, connect};
use tokio::task::JoinSet;

use crate::TR50D;

mod device;
mod operator;
mod topics;

use device::Device;
use operator::Operator;
use topics::{Reader, Writer};

/// Kills, if the variable `CRASH_ROUNDS` does not say otherwise.
const KILLS: usize = 100;
const DEVICES: usize = 4;

/// Half of the mails are never fetched.
const SETTINGS: &[(&str, &str)] = &[("TR50D_MAILBOX__WAITING_MAX", "1000000")];

/// Everybody who works, and what they remember over a kill.
struct Load {
    devices: Vec<Arc<Device>>,
    /// The highest number of each device.
    last: [u64; DEVICES],
    operator: Arc<Operator>,
    writer: Arc<Writer>,
    readers: [Arc<Reader>; 2],
    /// What was verified: batches of rows, changes of operators, messages.
    verified: [usize; 3],
}

impl Load {
    fn new() -> Self {
        Self {
            devices: (0..DEVICES).map(|number| Device::new(format!("device-{number}"))).collect(),
            last: [0; DEVICES],
            operator: Arc::default(),
            writer: Arc::default(),
            readers: [Reader::new(1), Reader::new(2)],
            verified: [0; 3],
        }
    }

    /// Starts them; a time before all that they do.
    async fn start(&self, server: &ServerProcess, round: usize) -> (JoinSet<()>, String) {
        let mut operator = server.operator("tcp").await;
        let now = call(&mut operator, "diag.time", "").await["time"].as_i64().expect("a time");
        let http = server.address("http").to_string();
        let mut tasks = JoinSet::new();
        for reader in &self.readers {
            let wire = reader.connect(server, round == 0).await;
            tasks.spawn(reader.clone().work(wire));
        }
        let wire = self.writer.connect(server).await;
        tasks.spawn(self.writer.clone().work(wire));
        for (device, last) in self.devices.iter().zip(self.last) {
            if round == 0 {
                // Registered: what asks for it later finds it.
                drop(server.thing("tcp", device.key()).await);
            }
            let url = server.thing_url("tcp", device.key());
            tasks.spawn(device.clone().work(url, http.clone(), last));
        }
        let url = server.url("tcp", "operator@basicorg.example", "demo-operator-password");
        tasks.spawn(self.operator.clone().work(url, http, round));
        (tasks, base::Timestamp::from_millis(now).to_string())
    }

    /// Looks for all that was acknowledged.
    async fn verify(&mut self, server: &ServerProcess, since: &str) {
        let url = server.url("tcp", "operator@basicorg.example", "demo-operator-password");
        let (mut operator, http) = (connect(&url).await, server.address("http").to_string());
        for (device, last) in self.devices.iter().zip(&mut self.last) {
            self.verified[0] += device.acknowledged();
            *last = device.verify(&mut operator, since).await.max(*last);
        }
        self.verified[1] += self.operator.verify(&mut operator, &http).await;
        self.writer.verify_retained(server).await;
        let acknowledged = self.writer.take_acknowledged();
        self.verified[2] += acknowledged.len();
        for reader in &self.readers {
            let mut wire = reader.connect(server, false).await;
            reader.verify(&mut wire, &acknowledged).await;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_is_there_by_half() {
    let kills = std::env::var("CRASH_ROUNDS").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("CRASH_ROUNDS is a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut load = Load::new();
    let mut server = TR50D.serve(&data_dir, SETTINGS);
    for round in 0..kills {
        let (tasks, since) = load.start(&server, round).await;
        // The moment of the kill is what this is about.
        let [random] = tr50d::random::random().expect("random numbers");
        tokio::time::sleep(Duration::from_millis(20 + u64::from(random))).await;
        server.end(Signal::KILL).await;
        tasks.join_all().await;
        server = TR50D.serve(&data_dir, SETTINGS);
        load.verify(&server, &since).await;
        if (round + 1).is_multiple_of(100) {
            println!("{} kills, nothing lost of {:?}", round + 1, load.verified);
        }
    }
    for (what, count) in ["batches", "changes", "messages"].iter().zip(load.verified) {
        assert!(count > kills, "the load was next to none: {count} {what}");
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
    let answer = exchange(http, &format!("/file/{id}"), content).await?;
    // Killed before it answered, the server may close without a word.
    answer.split(' ').nth(1).map(|status| assert_eq!(status, "200", "{answer}"))
}

/// The answer at `/api`, if the server lives to give it.
async fn post(http: &str, body: &str) -> Option<Value> {
    let answer = exchange(http, "/api", body).await?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    // By half if it was killed meanwhile.
    serde_json::from_str(body).ok()
}

async fn exchange(http: &str, path: &str, body: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(http).await.ok()?;
    let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
