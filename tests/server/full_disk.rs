//! A disk that gets full, a store that fails, a data directory that goes: what is refused, what goes
//! on, and that all goes on by itself afterwards.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::Client;
use client::Version::{V5, V31, V311};
use serde_json::{Value, json};
use support::http::{Answer, dial, exchange, metrics, post, read_to_end};
use support::mqtt::Connect;
use support::{Endpoints, ServerProcess, Signal, call, connect, eventually, reply};
use tokio::io::AsyncWriteExt;

use crate::TR50D;
use crate::files::{files_below, get, get_id, noise, post as upload, put_id};

/// What a store that takes nothing is called in replies.
const UNAVAILABLE: i64 = -95017;

/// What it is called that somebody has the share of something.
const ABOVE_SHARE: i64 = -95018;

fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

/// Asks for something that adds, and is told that there is no room for it.
async fn refused(client: &mut Client, command: &str, params: Value) {
    let reply = reply(client, command, &params.to_string()).await;
    assert_eq!(code(&reply), UNAVAILABLE, "{command}: {reply}");
}

async fn readiness(server: &Endpoints) -> String {
    exchange(server, b"GET /readyz HTTP/1.0\r\n\r\n").await
}

async fn is_ready(server: &Endpoints) -> bool {
    readiness(server).await.starts_with("HTTP/1.0 200")
}

/// A small disk in memory, in a namespace that lives as long as a process in it.
struct SmallDisk {
    holder: Child,
    dir: PathBuf,
    _mount: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this user may not make one.
    fn make(megabytes: usize) -> Option<Self> {
        let mount = tempfile::tempdir().expect("a directory");
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && echo mounted && exec sleep 600"
        );
        let mut holder = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script])
            .arg(mount.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let out = holder.stdout.take().expect("piped");
        let _ = BufReader::new(out).read_line(&mut line);
        let dir = PathBuf::from(format!("/proc/{}/root{}", holder.id(), mount.path().display()));
        let made = Self { holder, dir, _mount: mount };
        (line == "mounted\n" && made.dir.exists()).then_some(made)
    }

    fn serve(&self, log: &Path, more: &[(&str, &str)]) -> ServerProcess {
        let serve = TR50D.command(&self._mount.path().join("data"), more);
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.holder.id().to_string(), "-U", "-m", "--preserve-credentials"]);
        inside.arg(serve.get_program()).args(serve.get_args());
        inside.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = File::options().create(true).append(true).open(log).expect("a file");
        inside.stderr(log);
        ServerProcess::spawn(inside)
    }

    /// Fills it with a file beside the data directory, up to so many bytes or the last one.
    fn fill(&self, name: &str, bytes: usize) {
        let mut file = File::create(self.dir.join(name)).expect("a file");
        let piece = vec![1; 64 * 1024];
        for _ in 0..bytes / piece.len() {
            if file.write_all(&piece).is_err() {
                break;
            }
        }
    }

    /// The same, until the server says that the disk is full; the names of the files.
    async fn fill_for(&self, server: &Endpoints) -> Vec<String> {
        let mut names = Vec::new();
        while is_ready(server).await {
            names.push(format!("piece-{}", names.len()));
            self.fill(&names[names.len() - 1], 1 << 20);
            // It is measured twice a second.
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        names
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Publishes long values until one is refused; with what code.
async fn publish_until_refused(client: &mut Client, taken: &mut BTreeSet<String>) -> i64 {
    let text: String = noise(7000).iter().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..20_000 {
        let name = format!("{}", taken.len());
        let params = json!({ "key": name, "value": text }).to_string();
        let reply = reply(client, "attribute.publish", &params).await;
        if let refused @ (UNAVAILABLE | ABOVE_SHARE) = code(&reply) {
            return refused;
        }
        assert_eq!(reply["success"], true, "{reply}");
        taken.insert(name);
    }
    panic!("the disk has no end");
}

#[tokio::test]
async fn a_disk_that_gets_full_costs_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::make(96) else {
        eprintln!(
            "no small disk can be mounted here: only the other tests of this file say how \
                   a full disk is met"
        );
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let settings = [("TR50D_SERVER__MIN_FREE_BYTES", "16777216")];
    disk.fill("beside", 32 << 20);
    let mut server = disk.serve(&log, &settings);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut line = server.thing("tcp", "mower-2").await;
    server.thing("mqtt", "mower-3").await.close().await;
    let mut operator = server.operator("http").await;
    let id = put_id(&mut thing, json!({ "fileName": "old" })).await;
    assert_eq!(upload(&server, &id, &noise(100_000)).await.status, 200);
    let id = put_id(&mut thing, json!({ "fileName": "kept" })).await;
    assert_eq!(upload(&server, &id, b"kept").await.status, 200);
    let announced = put_id(&mut thing, json!({ "fileName": "announced" })).await;
    assert!(is_ready(&server).await);

    let mut taken = BTreeSet::new();
    assert_eq!(publish_until_refused(&mut thing, &mut taken).await, ABOVE_SHARE);
    let pieces = disk.fill_for(&server).await;
    assert!(taken.len() > 100, "{}", taken.len());
    let why = readiness(&server).await;
    assert!(why.contains("503") && why.contains("server.min_free_bytes"), "{why}");
    assert!(metrics(&server).await.contains("\ntr50d_store_available 0\n"));

    full_doors(&server, &mut thing, &mut line, &announced).await;

    // Others take the last byte: what is set aside is for what deletes.
    disk.fill("ballast", 1 << 30);
    call(&mut operator, "file.delete", r#"{"thingKey":"mower-1","fileName":"old"}"#).await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-2"}"#).await;
    call(&mut thing, "diag.ping", "{}").await;

    disk.remove("ballast");
    disk.remove("beside");
    pieces.iter().for_each(|piece| disk.remove(piece));
    eventually("there is room again", async || is_ready(&server).await).await;
    assert!(metrics(&server).await.contains("\ntr50d_store_available 1\n"));
    let more = json!({ "key": "after", "value": "1" }).to_string();
    call(&mut thing, "attribute.publish", &more).await;
    taken.insert("after".to_owned());

    server.end(Signal::KILL).await;
    let server = disk.serve(&log, &settings);
    let mut thing = server.thing("mqtt", "mower-1").await;
    for name in &taken {
        let found =
            call(&mut thing, "attribute.current", &json!({ "key": name }).to_string()).await;
        assert!(found["value"].is_string(), "{name} is lost");
    }
    let id = get_id(&mut thing, json!({ "fileName": "kept" })).await;
    assert_eq!(get(&server, &id, "").await.body, b"kept");
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.len() < 20_000, "{} bytes of log: {log}", log.len());
}

/// A device of another organisation than the others.
async fn of_york(server: &Endpoints, listener: &str) -> Client {
    connect(&server.url(listener, "tractor", "demo-token-yorkorg")).await
}

/// Uploads a file; the status, or the code with which its ticket was refused.
async fn store(server: &Endpoints, client: &mut Client, bytes: &[u8]) -> i64 {
    let put = json!({ "fileName": "f" }).to_string();
    let ticket = reply(client, "file.put", &put).await;
    match ticket["params"]["fileId"].as_str() {
        Some(id) => i64::from(upload(server, id, bytes).await.status),
        None => code(&ticket),
    }
}

/// Parameters of a command, other ones each time.
type Params = fn(u32) -> Value;

/// Asks for something that adds until it is refused.
async fn until_refused(client: &mut Client, command: &str, params: Params) -> Value {
    for number in 0..10_000 {
        let reply = reply(client, command, &params(number).to_string()).await;
        if reply["success"] == false {
            return reply;
        }
    }
    panic!("{command} is never refused");
}

async fn disk_used(server: &Endpoints) -> u64 {
    let text = metrics(server).await;
    let used = text.lines().find_map(|line| line.strip_prefix("tr50d_pool_used{pool=\"disk\"} "));
    used.expect("a line").parse().expect("a number")
}

#[tokio::test]
async fn who_fills_the_disk_adds_no_more_and_others_do() {
    let Some(disk) = SmallDisk::make(96) else {
        eprintln!("no small disk can be mounted here: the shares' own tests say who has how much");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let settings = [("TR50D_SERVER__MIN_FREE_BYTES", "16777216")];
    disk.fill("beside", 32 << 20);
    let mut server = disk.serve(&log, &settings);
    let mut flood = server.thing("mqtt", "mower-1").await;
    server.thing("mqtt", "mower-2").await.close().await;
    let mut taken = BTreeSet::new();
    for _ in 0..200 {
        let mail = r#"{"thingKey":"mower-1","command":"c","ackTimeout":0,"ttl":-1}"#;
        call(&mut flood, "mailbox.send", mail).await;
    }
    assert_eq!(publish_until_refused(&mut flood, &mut taken).await, ABOVE_SHARE);
    let before = disk_used(&server).await;
    assert!(before > 10 << 20, "{before}");

    let others: [(&str, Params); 6] = [
        ("property.publish", |n| json!({ "key": "p", "value": n })),
        ("attribute.publish", |n| json!({ "key": "a", "value": n.to_string() })),
        ("alarm.publish", |n| json!({ "key": "a", "state": n % 2 })),
        ("location.publish", |n| json!({ "lat": n % 90, "lng": 2 })),
        ("log.publish", |n| json!({ "msg": n.to_string() })),
        ("mailbox.send", |_| json!({ "thingKey": "mower-1", "command": "c", "ackTimeout": 0 })),
    ];
    for is_again in [false, true] {
        for (command, params) in others {
            let refused = until_refused(&mut flood, command, params).await;
            assert_eq!(code(&refused), ABOVE_SHARE, "{command}: {refused}");
            let text = refused.to_string();
            assert!(text.contains("server.min_free_bytes") && text.contains("share"), "{text}");
        }
        assert!(matches!(store(&server, &mut flood, &noise(9000)).await, 507 | -95016));
        let mut retain =
            Connect::thing(V5, "mower-2").id("another than before").open(&server).await;
        // The store may have given some room back meanwhile.
        let mut refused = (0, String::new());
        for number in 0..100 {
            let topic = format!("plant/{is_again}/{number}");
            retain.send(&retain.publish(3, 1, &topic, "x".repeat(5000))).await;
            refused = retain.acknowledgement().await;
            if refused.0 != 0 {
                break;
            }
        }
        assert_eq!(refused.0, 0x97);
        assert!(refused.1.contains("server.min_free_bytes"), "{}", refused.1);
        assert!(connect_error(&server, "never-seen").await, "what registers itself adds something");
        // What is there is read, and what waits comes to its end.
        call(&mut flood, "attribute.current", r#"{"key":"0"}"#).await;
        assert!(is_ready(&server).await);

        let mut york = of_york(&server, if is_again { "tcp" } else { "mqtt" }).await;
        for (command, params) in others {
            let text = params(1).to_string().replace("mower-1", "tractor");
            call(&mut york, command, &text).await;
        }
        assert_eq!(store(&server, &mut york, &noise(5000)).await, 200);
        if !is_again {
            // So it is after a restart.
            server.end(Signal::TERM).await;
            server = disk.serve(&log, &settings);
            flood = server.thing("mqtt", "mower-1").await;
        }
    }
    // Mails come to their end, of which no more is kept than that.
    let fetched = call(&mut flood, "mailbox.check", r#"{"limit":200}"#).await;
    let mails = fetched["messages"].as_array().expect("mails");
    assert!(mails.len() > 50, "{}", mails.len());
    for mail in mails {
        let said = json!({ "x": "y".repeat(28_000) });
        let ack = json!({ "id": mail["id"], "errorCode": 0, "params": said }).to_string();
        call(&mut flood, "mailbox.ack", &ack).await;
    }
    assert!(is_ready(&server).await);
    let mut york = of_york(&server, "tcp").await;
    let mail = json!({ "thingKey": "tractor", "command": "c", "ackTimeout": 0 }).to_string();
    call(&mut york, "mailbox.send", &mail).await;
    let mut operator = server.operator("http").await;
    let id = json!({ "id": mails[mails.len() - 1]["id"] }).to_string();
    let found = call(&mut operator, "mailbox.find", &id).await.to_string();
    assert!(found.contains("completed-ok") && !found.contains("yyyy"), "{found}");

    disk.remove("beside");
    eventually("there is room again", async || {
        let said = reply(&mut flood, "property.publish", r#"{"key":"p","value":1}"#).await;
        said["success"] == true
    })
    .await;
}

/// What works below the mark, and what does not, over every door.
async fn full_doors(server: &Endpoints, thing: &mut Client, line: &mut Client, announced: &str) {
    refused(thing, "property.publish", json!({ "key": "t", "value": 1 })).await;
    refused(line, "log.publish", json!({ "msg": "x" })).await;
    refused(thing, "file.put", json!({ "fileName": "new" })).await;
    let answer = upload(server, announced, &noise(200_000)).await;
    assert_eq!(answer.status, 507, "{}", answer.head);
    let login = r#""auth":{"command":"api.authenticate","params":{"username":
        "operator@basicorg.example","password":"demo-operator-password"}}"#;
    let update = r#""1":{"command":"thing.update","params":{"key":"mower-1","name":"n"}}"#;
    let text = post(server, &format!("{{{login},{update}}}")).await;
    assert!(text.contains("-95017"), "{text}");
    // Live traffic, and logins, go on.
    let mut again = server.thing("mqtt", "mower-3").await;
    call(&mut again, "diag.ping", "{}").await;
    call(line, "diag.ping", "{}").await;
    let list = r#""1":{"command":"session.list"}"#;
    let text = post(server, &format!("{{{login},{list}}}")).await;
    assert!(text.contains("\"success\":true"), "{text}");
    let unknown = connect_error(server, "never-seen").await;
    assert!(unknown, "what registers itself adds something");
}

async fn connect_error(server: &Endpoints, key: &str) -> bool {
    Client::connect(&server.thing_url("mqtt", key)).await.is_err()
}

#[tokio::test]
async fn an_upload_that_crosses_the_mark_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::make(64) else {
        eprintln!("no small disk can be mounted here");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_SERVER__MIN_FREE_BYTES", "16777216")];
    let server = disk.serve(&dir.path().join("log"), &settings);
    let mut thing = server.thing("mqtt", "mower-1").await;
    // Most of what there is.
    assert_eq!(store(&server, &mut thing, &noise(1 << 20).repeat(24)).await, 200);
    let mut operator = server.operator("http").await;
    call(&mut operator, "file.delete", r#"{"thingKey":"mower-1","fileName":"f"}"#).await;
    let id = put_id(&mut thing, json!({ "fileName": "large" })).await;
    let mut stream = dial(&server).await;
    let head = format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let piece = [b"100000\r\n", &noise(1 << 20)[..], b"\r\n"].concat();
    for _ in 0..64 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let answer = Answer::read(&read_to_end(&mut stream).await);
    assert_eq!(answer.status, 507, "{}", answer.head);
    let incoming = disk.dir.join("data/files/incoming");
    eventually("nothing is left of it", async || files_below(&incoming).is_empty()).await;
    // The disk is measured twice a second.
    eventually("there is room again", async || {
        let said = reply(&mut thing, "log.publish", r#"{"msg":"there is room for this"}"#).await;
        said["success"] == true
    })
    .await;
}

/// Without a mark, the engine meets the full disk itself, and takes nothing from then on.
#[tokio::test]
async fn an_engine_that_met_a_full_disk_is_opened_anew_when_there_is_room() {
    let Some(disk) = SmallDisk::make(64) else {
        eprintln!("no small disk can be mounted here: the store's own tests open it anew");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = disk.serve(&log, &[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut taken = BTreeSet::new();
    for round in 0..2 {
        let name = format!("before-{round}");
        let params = json!({ "key": name, "value": "1" }).to_string();
        call(&mut thing, "attribute.publish", &params).await;
        taken.insert(name);
        disk.fill("ballast", 1 << 30);
        assert_eq!(publish_until_refused(&mut thing, &mut taken).await, UNAVAILABLE);
        let why = readiness(&server).await;
        assert!(why.contains("503") && why.contains("the store has failed"), "{why}");
        call(&mut thing, "diag.ping", "{}").await;
        disk.remove("ballast");
        eventually("it is open again", async || is_ready(&server).await).await;
        let params = json!({ "key": "after", "value": "1" }).to_string();
        call(&mut thing, "attribute.publish", &params).await;
    }
    server.end(Signal::KILL).await;
    let server = disk.serve(&log, &[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    for name in &taken {
        let found =
            call(&mut thing, "attribute.current", &json!({ "key": name }).to_string()).await;
        assert!(found["value"].is_string(), "{name} is lost");
    }
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.len() < 20_000, "{} bytes of log: {log}", log.len());
}

/// A client that would learn of nothing else waits for room; one that can be told is told.
#[tokio::test]
async fn publishes_wait_for_room_or_are_refused_by_name() {
    let Some(disk) = SmallDisk::make(96) else {
        eprintln!("no small disk can be mounted here: that publishes wait for room is not shown");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_SERVER__MIN_FREE_BYTES", "16777216")];
    let server = disk.serve(&dir.path().join("log"), &settings);
    let mut command = Connect::thing(V311, "command").open(&server).await;
    let mut keeper = Connect::thing(V31, "keeper").open(&server).await;
    let mut told = Connect::thing(V5, "told").open(&server).await;
    disk.fill("beside", 1 << 30);
    eventually("the disk is full", async || !is_ready(&server).await).await;

    let (value, retained) = ("thing/self/property/t", "plant/kept");
    command.send(&command.publish(2, 1, value, "1")).await;
    command.expect_quiet().await;
    keeper.send(&keeper.publish(3, 1, retained, "kept")).await;
    keeper.send(&keeper.publish(2, 2, value, "2")).await;
    keeper.expect_quiet().await;
    for (flags, topic, code) in [(2, value, 0x97), (3, retained, 0x80)] {
        told.send(&told.publish(flags, 1, topic, "3")).await;
        let ack = told.frame().await.expect("an acknowledgement");
        assert_eq!((ack[0], ack.get(4)), (0x40, Some(&code)), "{topic}");
        told.send(&told.publish(flags & 1, 0, topic, "4")).await;
    }
    told.expect_quiet().await;
    let counted = metrics(&server).await;
    for line in [
        r#"tr50d_mqtt_publishes_refused_total{qos="0",reason="store"} 2"#,
        r#"tr50d_mqtt_publishes_refused_total{qos="1",reason="store"} 2"#,
    ] {
        assert!(counted.contains(line), "{counted}");
    }

    disk.remove("beside");
    command.expect(&[0x40, 2, 0, 1]).await;
    keeper.expect(&[0x40, 2, 0, 1]).await;
    keeper.expect(&[0x40, 2, 0, 2]).await;
    let mut operator = server.operator("http").await;
    for (thing, value) in [("command", 1), ("keeper", 2)] {
        let params = json!({ "thingKey": thing, "key": "t" }).to_string();
        assert_eq!(call(&mut operator, "property.current", &params).await["value"], value);
    }
    assert_eq!(told.subscribe(retained, 0).await, 0);
    assert_eq!(told.message().await.texts(), (retained, "kept"));
}

/// Without a small disk: a mark that no disk has room for.
#[tokio::test]
async fn below_the_mark_what_deletes_works_and_the_rest_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = TR50D.serve(&data_dir, &[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    call(&mut server.thing("tcp", "mower-2").await, "diag.ping", "{}").await;
    call(&mut server.thing("tcp", "gateway-9").await, "diag.ping", "{}").await;
    let mut operator = server.operator("http").await;
    let made = r#"{"appName":"demo-app","name":"second"}"#;
    let made = call(&mut operator, "app.token.create", made).await;
    let further = made["tokenId"].clone();
    let id = put_id(&mut thing, json!({ "fileName": "old" })).await;
    assert_eq!(upload(&server, &id, b"old").await.status, 200);
    server.end(Signal::TERM).await;

    let mark = [("TR50D_SERVER__MIN_FREE_BYTES", "1000000000000000")];
    let mut server = TR50D.serve(&data_dir, &mark);
    assert!(!is_ready(&server).await);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut line = server.thing("tcp", "mower-2").await;
    refused(&mut thing, "property.publish", json!({ "key": "t", "value": 1 })).await;
    refused(&mut line, "attribute.publish", json!({ "key": "t", "value": "1" })).await;
    refused(&mut thing, "file.put", json!({ "fileName": "new" })).await;
    let mut operator = server.operator("http").await;
    call(&mut operator, "file.delete", r#"{"thingKey":"mower-1","fileName":"old"}"#).await;
    call(&mut operator, "thing.delete", r#"{"key":"mower-2"}"#).await;
    // Nor does a full disk keep anybody in.
    let viewer = r#"{"emailAddress":"viewer@basicorg.example","disabled":true}"#;
    call(&mut operator, "user.update", viewer).await;
    call(&mut operator, "thing.update", r#"{"key":"gateway-9","disabled":true}"#).await;
    let token = json!({ "appName": "demo-app", "tokenId": further }).to_string();
    call(&mut operator, "app.token.delete", &token).await;
    let name = r#"{"emailAddress":"viewer@basicorg.example","firstName":"V"}"#;
    refused(&mut operator, "user.update", serde_json::from_str(name).expect("JSON")).await;
    call(&mut operator, "session.end", "{}").await;
    server.end(Signal::TERM).await;

    let server = TR50D.serve(&data_dir, &[]);
    assert!(is_ready(&server).await);
    let mut thing = server.thing("mqtt", "mower-1").await;
    let found = reply(&mut thing, "file.get", r#"{"fileName":"old"}"#).await;
    assert_eq!(found["success"], false, "{found}");
    let mut operator = server.operator("http").await;
    let found = reply(&mut operator, "thing.find", r#"{"key":"mower-2"}"#).await;
    assert_eq!(found["success"], false, "{found}");
    call(&mut thing, "property.publish", r#"{"key":"t","value":1}"#).await;
}

#[tokio::test]
async fn a_server_whose_data_directory_is_deleted_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data_dir, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut serve = TR50D.command(&data_dir, &[]);
    serve.stderr(File::create(&log).expect("a file"));
    let mut server = ServerProcess::spawn(serve);
    let mut thing = server.thing("mqtt", "mower-1").await;
    call(&mut thing, "log.publish", r#"{"msg":"x"}"#).await;
    // The server may make a file while others are deleted.
    let deleted = (0..10).find_map(|_| fs::remove_dir_all(&data_dir).ok());
    deleted.expect("deleted");
    let status = server.wait().await;
    assert_eq!(status.code(), Some(1));
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.contains("was deleted or replaced"), "{log}");
}

#[tokio::test]
async fn a_data_directory_that_others_can_read_is_mended_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data_dir, log) = (dir.path().join("data"), dir.path().join("log"));
    TR50D.serve(&data_dir, &[]).end(Signal::TERM).await;
    let journal = data_dir.join("0.jnl");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    set(&data_dir, 0o755);
    set(&journal, 0o644);
    let mut serve = TR50D.command(&data_dir, &[]);
    serve.stderr(File::create(&log).expect("a file"));
    let _server = ServerProcess::spawn(serve);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&data_dir), mode(&journal)), (0o700, 0o600));
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.contains("others could read"), "{log}");
}

#[tokio::test]
async fn what_is_gone_of_a_journal_is_said_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data_dir, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut server = TR50D.serve(&data_dir, &[]);
    let mut thing = server.thing("mqtt", "mower-1").await;
    call(&mut thing, "log.publish", r#"{"msg":"x"}"#).await;
    server.end(Signal::TERM).await;
    let journal = File::options().write(true).open(data_dir.join("0.jnl")).expect("a journal");
    journal.set_len(3000).expect("cut");
    let mut serve = TR50D.command(&data_dir, &[]);
    serve.stderr(File::create(&log).expect("a file"));
    drop(ServerProcess::spawn(serve));
    let log = fs::read_to_string(&log).expect("a log");
    assert!(log.contains("is shorter than it was") && log.contains("bytes="), "{log}");
}
