//! What connections may hold of the server's memory, and who closes when it is used up.

use std::io::Read as _;
use std::net::SocketAddr;

use base::limits;
use client::Version;
use flate2::Compression;
use flate2::read::ZlibEncoder;
use serde_json::json;
use support::http::metrics;
use support::mqtt::{Connect, Wire, frame, text};
use support::process::resident_of;
use support::tcp::Lines;
use support::{
    Endpoints, SOON, ServerProcess, TestServer, call, connect, eventually, reply, sessions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::TR50D;

const MEBIBYTE: usize = 1024 * 1024;

/// The budget in these tests.
const BUDGET: usize = 64 * MEBIBYTE;

/// The bytes of a large answer, each of them a `q`.
const ANSWER: usize = 8 * MEBIBYTE;

const DOORS: [&str; 4] = ["mqtt", "ws", "tcp", "http"];

/// A server with the budget, and its log.
fn start(more: &[(&str, &str)]) -> (ServerProcess, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let (budget, frame) = (BUDGET.to_string(), (2 * ANSWER).to_string());
    let limits = [
        ("TR50D_LIMITS__MEMORY_BYTES", &*budget),
        ("TR50D_LIMITS__MAX_FRAME_BYTES", &*frame),
        ("TR50D_LIMITS__LOGINS_PER_S", "0"),
    ];
    let settings = [&limits, more].concat();
    (TR50D.serve_logging(&dir.path().join("log"), &settings), dir)
}

/// A figure of `/metrics`.
async fn figure(server: &Endpoints, name: &str) -> usize {
    let text = metrics(server).await;
    // There is none before it is first looked at.
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |line| line.trim().parse().expect("a number"))
}

async fn used(server: &Endpoints) -> usize {
    figure(server, "tr50d_pool_used{pool=\"memory\"} ").await
}

async fn made_way(server: &Endpoints) -> usize {
    figure(server, "tr50d_pool_evicted_total{pool=\"memory\"} ").await
}

/// A request with a large answer.
fn request(auth: &str) -> String {
    let comma = if auth.is_empty() { "" } else { "," };
    let text = "q".repeat(ANSWER);
    format!(r#"{{{auth}{comma}"e":{{"command":"diag.echo","params":{{"t":"{text}"}}}}}}"#)
}

/// A request that only logs in: a large one is taken only then.
fn login(org: &str, key: &str) -> String {
    format!("{{{}}}", auth(org, key))
}

fn auth(org: &str, key: &str) -> String {
    let params = format!(r#"{{"appToken":"demo-token-{org}","thingKey":"{key}"}}"#);
    format!(r#""auth":{{"command":"api.authenticate","params":{params}}}"#)
}

/// A client's frame of a WebSocket.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82, 0xff];
    frame.extend(u64::to_be_bytes(payload.len() as u64));
    frame.extend([0; 4]);
    [&frame, payload].concat()
}

/// What a peer sends to log in and to ask for a large answer.
fn flood(door: &str, org: &str, key: &str) -> Vec<u8> {
    let connect = Connect::login(Version::V311, key, key, &format!("demo-token-{org}")).frame();
    let ask = frame(0x30, &[&text("api"), request("").as_bytes()]);
    let mqtt = [connect, ask].concat();
    match door {
        "mqtt" => mqtt,
        "ws" => {
            let head = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\
                        \r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\
                        \r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
            [head.as_bytes(), &masked(&mqtt)].concat()
        }
        "tcp" => format!("{}\n{}\n", login(org, key), request("")).into_bytes(),
        _ => {
            let body = request(&auth(org, key));
            let head = "POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: ";
            format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
        }
    }
}

async fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // What waits is in the server, not in the system.
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(address).await.expect("a connection")
}

/// A peer that asks for a large answer and does not read it.
async fn greedy(server: &Endpoints, door: &str, org: &str, key: &str) -> TcpStream {
    let mut stream = dial(server.address(if door == "ws" { "http" } else { door })).await;
    // Who is closed meanwhile can't send the rest.
    let _ = stream.write_all(&flood(door, org, key)).await;
    stream
}

/// Reads a whole large answer.
async fn read_answer(stream: &mut TcpStream) {
    let (mut found, mut buffer) = (0, vec![0; MEBIBYTE]);
    while found < ANSWER {
        let count = timeout(SOON, stream.read(&mut buffer)).await.expect("in time").expect("read");
        assert!(count > 0, "the connection closed after {found} bytes");
        found += buffer[..count].iter().filter(|byte| **byte == b'q').count();
    }
}

#[tokio::test]
async fn wills_that_wait_are_published_when_their_memory_is_needed() {
    const WILL: usize = 60_000;
    let (server, _dir) = start(&[]);
    let mut reader = Connect::thing(Version::V311, "reader").open(&server).await;
    reader.subscribe("left/#", 0).await;
    let payload: &'static str = "w".repeat(WILL).leak();
    let count = 2 * BUDGET / WILL;
    for number in 0..count {
        let mut connect = Connect::thing(Version::V5, &format!("w-{number}")).resuming();
        // Its delay is an hour, and so is the expiry of its session.
        connect.will = Some(("left/it", payload, &[0x18, 0, 0, 0x0e, 0x10], false));
        drop(connect.open(&server).await);
    }
    eventually("they hold not more than they may", async || {
        let waiting = figure(&server, "tr50d_pool_used{pool=\"delayed_wills\"} ").await;
        waiting > 0 && waiting < count && (BUDGET / 2..BUDGET).contains(&used(&server).await)
    })
    .await;
    let message = reader.message().await;
    assert_eq!((&*message.topic, message.payload.len()), ("left/it", WILL), "one made way");
    assert!(made_way(&server).await > 0);
}

/// A request to `topic`, with these properties where the version has some.
fn ask(version: Version, topic: &str, properties: &[u8], request: impl AsRef<[u8]>) -> Vec<u8> {
    let length = properties.len();
    let length = [length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
    let properties = match version {
        Version::V5 => [&length, properties].concat(),
        _ => Vec::new(),
    };
    frame(0x30, &[&text(topic), &properties, request.as_ref()])
}

fn deflated(request: &str) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(request.as_bytes(), Compression::fast());
    let mut deflated = Vec::new();
    zlib.read_to_end(&mut deflated).expect("in memory");
    deflated
}

#[tokio::test]
async fn where_a_reply_goes_counts_until_it_has_gone() {
    const PART: usize = 60_000;
    const COUNT: usize = 100;
    let (server, _dir) = start(&[]);
    drop(Connect::thing(Version::V311, "target").open(&server).await);
    let long = "t".repeat(PART);
    let back = |topic: &str| [&[0x08], &*text(topic), &[0x09], &text(&long)].concat();
    let own = ("operator@basicorg.example", "demo-operator-password");
    let params = r#"{"thingKey":"target","method":"m","ackTimeout":100}"#;
    let call = format!(r#"{{"1":{{"command":"method.exec","params":{params}}}}}"#);
    let (api, response) = (format!("api/{long}"), format!("response/{long}"));
    let calls = [
        (Version::V311, ask(Version::V311, &api, b"", &call), PART),
        (Version::V5, ask(Version::V5, "api", &back(&response), &call), 2 * PART),
        (Version::V5, ask(Version::V5, "apiz", &back(&response), deflated(&call)), 2 * PART),
    ];
    for (version, call, bytes) in calls {
        let mut asker = Connect::login(version, "asker", own.0, own.1).open(&server).await;
        asker.send(&call.repeat(COUNT)).await;
        // What is held counts in steps.
        eventually("calls that wait", async || used(&server).await >= COUNT * bytes * 9 / 10).await;
        drop(asker);
        eventually("all is given back", async || used(&server).await == 0).await;
    }
}

#[tokio::test]
async fn a_reply_counts_while_a_device_is_waited_for() {
    const COUNT: usize = 50;
    let (server, _dir) = start(&[]);
    drop(Connect::thing(Version::V311, "target").open(&server).await);
    let text = "t".repeat(limits::REPLY_BYTES_BEFORE_DEVICE / 3);
    let echo = json!({ "command": "diag.echo", "params": { "text": text } });
    let exec = json!({ "thingKey": "target", "method": "m", "ackTimeout": 100 });
    let exec = json!({ "command": "method.exec", "params": exec });
    let publish = json!({ "thingKey": "target", "key": "p", "value": 1 });
    let publish = json!({ "command": "property.publish", "params": publish });
    let (user, password) = ("operator@basicorg.example", "demo-operator-password");
    let login = json!({ "command": "api.authenticate", "params": { "username": user, "password": password } });
    // What is written at once, and what only when the store has answered.
    let requests = [
        (json!({ "1": echo, "2": echo, "3": exec }), 2 * text.len()),
        (json!({ "1": publish, "2": echo, "3": exec }), limits::REPLY_BYTES_BEFORE_DEVICE),
    ];
    for (request, bytes) in requests {
        let mut over_mqtt =
            Connect::login(Version::V311, "asker", user, password).open(&server).await;
        let count = async |least: usize| {
            eventually("calls that wait", async || used(&server).await >= least).await;
            let waiting = async || figure(&server, "tr50d_pool_used{pool=\"callers\"} ").await;
            eventually("all of them", async || waiting().await == COUNT).await;
        };
        let frame = ask(Version::V311, "api/1", b"", request.to_string());
        over_mqtt.send(&frame.repeat(COUNT)).await;
        count(COUNT * bytes * 9 / 10).await;
        drop(over_mqtt);
        eventually("all is given back", async || used(&server).await == 0).await;
        let login = json!({ "auth": login }).to_string();
        let mut over_tcp = Lines::logged_in(&server, &login).await;
        for _ in 0..COUNT {
            over_tcp.send(&request.to_string()).await;
        }
        count(COUNT * bytes * 9 / 10).await;
        // With half an end, it would wait for its replies.
        over_tcp.reset();
        eventually("all is given back", async || used(&server).await == 0).await;
    }
    // A device is not waited for with more.
    let ping = json!({ "command": "diag.ping" });
    let request = json!({ "1": echo, "2": echo, "3": echo, "4": exec, "5": ping, "auth": login });
    let replies = support::http::post(&server, &request.to_string()).await;
    let replies: serde_json::Value = serde_json::from_str(&replies).expect("JSON");
    assert_eq!(replies["4"]["errorCodes"][0], -95013, "{}", replies["4"]);
    assert_eq!(replies["5"]["success"], true);
}

#[tokio::test]
async fn what_http_keeps_of_long_answers_counts_and_so_do_half_files() {
    const COUNT: usize = 20;
    let (server, _dir) = start(&[]);
    let (head, tail) = ("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", "Content-Length: ");
    let mut idle = Vec::new();
    for _ in 0..COUNT {
        let mut stream = dial(server.address("http")).await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        let (mut answer, mut buffer) = (Vec::new(), vec![0; MEBIBYTE]);
        let mut whole = usize::MAX;
        while answer.len() < whole {
            let count = timeout(SOON, stream.read(&mut buffer)).await.expect("in time");
            answer.extend_from_slice(&buffer[..count.expect("read")]);
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
            let head = String::from_utf8_lossy(&answer[..end]);
            let length = head.lines().find_map(|line| line.strip_prefix(tail)).expect("a length");
            whole = end + 4 + length.parse::<usize>().expect("a number");
        }
        idle.push(stream);
    }
    eventually("its buffers", async || {
        let most = COUNT * 2 * limits::READ_BYTES;
        (COUNT * limits::READ_BYTES..most).contains(&used(&server).await)
    })
    .await;
    drop(idle);
    eventually("all is given back", async || used(&server).await == 0).await;
    let mut mower = server.thing("http", "mower").await;
    let mut halves = Vec::new();
    for number in 0..COUNT {
        let params = json!({ "fileName": number.to_string() });
        let id = crate::files::put_id(&mut mower, params).await;
        let half = vec![0; limits::FILE_WRITE_BYTES - 16 * 1024];
        let head =
            format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        let mut stream = dial(server.address("http")).await;
        stream.write_all(&[head.as_bytes(), &half].concat()).await.expect("sent");
        halves.push(stream);
    }
    let most = COUNT * limits::FILE_WRITE_BYTES;
    eventually("what is not written", async || used(&server).await > most * 3 / 4).await;
    drop(halves);
    eventually("all is given back", async || used(&server).await == 0).await;
}

#[tokio::test]
async fn what_a_page_of_the_console_looks_at_counts() {
    const VALUE: usize = 16_000;
    const VALUES: usize = 50;
    const VIEWS: usize = 16;
    let (server, _dir) = start(&[]);
    let mut thing = server.thing("http", "much").await;
    for number in 0..VALUES {
        let params = json!({ "key": number.to_string(), "value": "v".repeat(VALUE) });
        call(&mut thing, "attribute.publish", &params.to_string()).await;
    }
    let (user, password) = ("operator@basicorg.example", "demo-operator-password");
    let id = support::http::log_in(&server, user, password).await;
    let view = |number| format!("view=%2Fo%2Fbasic-org%2Fthings%2Fmuch%3Fx%3D{number}");
    let watch = async |numbers: std::ops::Range<usize>| {
        let mut stream = dial(server.address("http")).await;
        let views = numbers.map(view).collect::<Vec<_>>().join("&");
        let head = format!("GET /events?{views} HTTP/1.1\r\nHost: x\r\nCookie: tr50d={id}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    };
    let watching = watch(0..VIEWS).await;
    eventually("they count", async || used(&server).await > VIEWS * VALUE * VALUES / 2).await;
    let mut others = Vec::new();
    for number in 1..8 {
        others.push(watch(number * VIEWS..(number + 1) * VIEWS).await);
    }
    eventually("some close", async || made_way(&server).await > 0).await;
    assert!(used(&server).await <= BUDGET);
    drop((watching, others));
    eventually("all is given back", async || used(&server).await == 0).await;
}

#[tokio::test]
async fn peers_that_do_not_read_close_and_those_of_another_organisation_get_everything() {
    let (server, dir) = start(&[]);
    let pid = server.pid().to_string();
    let before = resident_of(&pid).expect("a process");
    for door in DOORS {
        let evicted = made_way(&server).await;
        let mut slow = greedy(&server, door, "yorkorg", &format!("slow-{door}")).await;
        let mut peers = Vec::new();
        for number in 0..12 {
            let key = format!("greedy-{door}-{number}");
            peers.push(greedy(&server, door, "basicorg", &key).await);
        }
        eventually("some close", async || made_way(&server).await >= evicted + 3).await;
        assert!(used(&server).await <= BUDGET);
        read_answer(&mut slow).await;
        drop((peers, slow));
        eventually("all is given back", async || used(&server).await == 0).await;
    }
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("limits.memory_bytes")).collect();
    assert!(
        lines.iter().all(|line| line.contains("WARN") && line.contains("BasicOrg")),
        "{lines:#?}"
    );
    let names_all = |line: &&str| line.contains("greedy-mqtt-") && line.contains("peer=127.0.0.1:");
    assert!(lines.iter().any(names_all), "{lines:#?}");
    let mut operator = server.operator("tcp").await;
    let ended = sessions(&mut operator, r#"{"status":"ALL","limit":1000}"#).await;
    let made_way = |door: &str| {
        let of_door = |shown: &String| shown.contains(&format!("greedy-{door}-"));
        let shown = ended.iter().map(ToString::to_string).filter(of_door);
        shown.filter(|shown| shown.contains(r#""endReason":"made_way""#)).count()
    };
    for door in ["mqtt", "ws", "tcp"] {
        assert!(made_way(door) > 0, "{door}: {ended:#?}");
    }
    let slack = 48 * MEBIBYTE;
    eventually("the memory is the system's again", async || {
        resident_of(&pid).expect("a process") < before + slack
    })
    .await;
}

#[tokio::test]
async fn peers_that_have_ended_their_own_side_and_do_not_read_close_too() {
    let (server, _dir) = start(&[]);
    let mut peers = Vec::new();
    let mut ask = async |number: usize| {
        let mut peer = greedy(&server, "tcp", "basicorg", &format!("ended-{number}")).await;
        // Who is closed meanwhile has nothing to end.
        let _ = peer.shutdown().await;
        peers.push(peer);
    };
    for number in 0..16 {
        ask(number).await;
    }
    eventually("some close", async || made_way(&server).await >= 4).await;
    // One is this question's.
    let open = async || figure(&server, "tr50d_pool_used{pool=\"connections\"} ").await - 1;
    eventually("they are gone", async || open().await + made_way(&server).await <= 16).await;
    assert!(used(&server).await <= BUDGET);
    // What they leave is somebody else's at once.
    let mut slow = greedy(&server, "tcp", "yorkorg", "slow").await;
    read_answer(&mut slow).await;
    drop((peers, slow));
    eventually("all is given back", async || used(&server).await == 0).await;
}

#[tokio::test]
async fn messages_that_nobody_reads_count_with_their_subscriber() {
    let (server, _dir) = start(&[]);
    let subscriber = async |org: &str, key: &str, filter: &str| {
        let token = format!("demo-token-{org}");
        let mut stream = dial(server.address("mqtt")).await;
        let connect = Connect::login(Version::V311, key, key, &token).frame();
        let subscribe = frame(0x82, &[&[0, 1], &text(filter), &[1]]);
        stream.write_all(&[connect, subscribe].concat()).await.expect("sent");
        let mut acks = [0; 9];
        timeout(SOON, stream.read_exact(&mut acks)).await.expect("in time").expect("SUBACK");
        stream
    };
    let mut lazy = Vec::new();
    for number in 0..8 {
        lazy.push(subscriber("basicorg", &format!("lazy-{number}"), "big/#").await);
    }
    let mut publisher = Connect::thing(Version::V311, "publisher").open(&server).await;
    let payload = vec![b'm'; 500_000];
    eventually("some subscribers close", async || {
        publisher.send(&publisher.publish(2, 7, "big/one", &payload)).await;
        publisher.expect(&[0x40, 2, 0, 7]).await;
        made_way(&server).await > 0
    })
    .await;
    assert!(used(&server).await <= BUDGET);
    drop(lazy);
    eventually("all is given back", async || used(&server).await == 0).await;
}

#[tokio::test]
async fn searches_of_who_has_gone_without_reading_are_not_made() {
    let (server, _dir) = start(&[]);
    let mut gone = greedy(&server, "mqtt", "basicorg", "gone").await;
    // The system holds a part of it.
    eventually("an answer waits", async || used(&server).await >= ANSWER / 8).await;
    let search = |number: usize| {
        let params = format!(r#"{{"query":"gone-{number}"}}"#);
        let request = format!(r#"{{"1":{{"command":"search.omni","params":{params}}}}}"#);
        frame(0x30, &[&text("api"), request.as_bytes()])
    };
    let searches: Vec<_> = (0..900).flat_map(search).collect();
    gone.write_all(&searches).await.expect("sent");
    let mut operator = server.operator("tcp").await;
    eventually("they are promised", async || {
        let gone = sessions(&mut operator, r#"{"thingKey":"gone"}"#).await;
        gone[0]["commandCount"].as_u64() > Some(900)
    })
    .await;
    // With an answer that it has not read: the connection breaks.
    drop(gone);
    eventually("all is given back", async || used(&server).await == 0).await;
    let mut other = server.thing("mqtt", "other").await;
    for number in 0..50 {
        call(&mut other, "search.omni", &format!(r#"{{"query":"other-{number}"}}"#)).await;
    }
    let made = "tr50d_commands_total{command=\"search.omni\",outcome=\"success\"} ";
    let made = figure(&server, made).await;
    assert!(made < 100, "{made}");
}

#[tokio::test]
async fn without_a_limit_nobody_closes() {
    let (server, _dir) = start(&[("TR50D_LIMITS__MEMORY_BYTES", "0")]);
    let mut peers = Vec::new();
    for number in 0..12 {
        peers.push(greedy(&server, "tcp", "basicorg", &format!("greedy-{number}")).await);
    }
    eventually("they hold much", async || used(&server).await > BUDGET).await;
    for peer in &mut peers {
        read_answer(peer).await;
    }
    assert_eq!(made_way(&server).await, 0);
}

/// Subscribes until something is refused, with as many clients as that takes: those that have
/// subscribed, how many subscriptions they have, and why there are no more.
async fn subscribe_until_refused(server: &Endpoints) -> (Vec<Wire>, usize, String) {
    let (mut clients, mut granted) = (Vec::new(), 0);
    for number in 0..100 {
        let mut client =
            Connect::thing(Version::V5, &format!("greedy-{number}")).open(server).await;
        let filters = (0..300).map(|filter| format!("{number}/{filter}"));
        let (codes, why) = client.subscribe_to(filters, 0, &[]).await;
        clients.push(client);
        granted += codes.iter().filter(|code| **code == 0).count();
        if codes.contains(&0x97) {
            return (clients, granted, why);
        }
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn pools_have_their_parts_of_the_budget() {
    // A twelfth of it are a thousand filters.
    let budget = (4 * MEBIBYTE).to_string();
    let server = TestServer::with(&[("TR50D_LIMITS__MEMORY_BYTES", &*budget)]);
    let limit =
        async |pool| figure(&server, &format!("tr50d_pool_limit{{pool=\"{pool}\"}} ")).await;
    let most = limit("topic_filters").await;
    assert_eq!(most, 4 * MEBIBYTE / 12 / 320);
    assert_eq!(limit("sessions").await, 4 * MEBIBYTE / 8 / 1024);
    let mut york = Connect::login(Version::V5, "y", "y", "demo-token-yorkorg").open(&server).await;
    let (clients, granted, why) = subscribe_until_refused(&server).await;
    assert!(why.contains("limits.broker_filters") && why.contains("you have your share"), "{why}");
    assert!((most * 3 / 4..most).contains(&granted), "{granted}");
    // Who has another token, and another organisation, have room, and all can do everything else.
    let token = "demo-basicorg-16";
    let mut beside = Connect::login(Version::V5, "b", "b", token).open(&server).await;
    assert_eq!(beside.subscribe("beside", 0).await, 0);
    assert_eq!(york.subscribe("after", 0).await, 0);
    let mut thing = connect(&server.url("tcp", "another", "demo-token-basicorg")).await;
    call(&mut thing, "property.publish", r#"{"key":"p","value":1}"#).await;
    drop(clients);
    let used = async || figure(&server, "tr50d_pool_used{pool=\"topic_filters\"} ").await;
    eventually("their filters are given back", async || used().await < 10).await;
    assert_eq!(Connect::thing(Version::V5, "late").open(&server).await.subscribe("x", 0).await, 0);
}

#[tokio::test]
async fn what_is_more_than_the_budget_at_a_start_stays_and_nothing_is_added() {
    let dir = tempfile::tempdir().expect("a directory");
    let operator = "operator@basicorg.example";
    {
        let server = TestServer::in_dir(dir.path(), &[]);
        let mut operator = connect(&server.url("http", operator, "demo-operator-password")).await;
        for number in 0..1500 {
            call(&mut operator, "thing.create", &json!({"key": format!("t-{number}")}).to_string())
                .await;
        }
        server.stop().await;
    }
    let small =
        [("TR50D_LIMITS__MEMORY_BYTES", "1048576"), ("TR50D_LIMITS__MAX_FRAME_BYTES", "65536")];
    let server = TestServer::in_dir(dir.path(), &small);
    let mut operator = connect(&server.url("http", operator, "demo-operator-password")).await;
    let found = call(&mut operator, "thing.list", r#"{"limit":1}"#).await;
    assert_eq!(found["count"], 1500, "{found}");
    let refused = reply(&mut operator, "thing.create", r#"{"key":"one-more"}"#).await;
    assert_eq!(refused["errorCodes"], json!([-95018]), "{refused}");
    connect(&server.url("tcp", "t-1", "demo-token-basicorg")).await;
    for number in 0..1000 {
        call(&mut operator, "thing.delete", &json!({"key": format!("t-{number}")}).to_string())
            .await;
    }
    call(&mut operator, "thing.create", r#"{"key":"one-more"}"#).await;
}
