//! Full cores: nobody stands behind what one principal has sent, not even in its own organisation, and
//! all that it has sent is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use client::Client;
use client::Version::V311;
use support::http::metrics;
use support::mqtt::{Connect, Wire};
use support::{Endpoints, TestServer, eventually, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FLOOD: &str = "demo-token-basicorg";
const BESIDE: &str = "demo-basicorg-16";
const OTHER: &str = "demo-token-yorkorg";

const PING: &str = r#"{"p":{"command":"diag.ping"}}"#;

/// What another thread looks for.
const LOOK: &str = r#"{"p":{"command":"property.history","params":{"key":"x"}}}"#;

/// Connections of the flood, and what each has always on its way.
const CONNECTIONS: usize = 64;
const WINDOW: usize = 100;

/// What a flood has got so far.
#[derive(Default)]
struct Flood {
    answers: AtomicU64,
    stopped: AtomicBool,
}

impl Flood {
    async fn send(self: Arc<Self>, mut wire: Wire) {
        let pings = wire.publish(0x30, 0, "api/1", PING).repeat(WINDOW);
        while !self.stopped.load(Ordering::Relaxed) {
            wire.send(&pings).await;
            for _ in 0..WINDOW {
                wire.frame().await.expect("an answer");
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn have_waited(server: &Endpoints) -> bool {
    let page = metrics(server).await;
    let waited = page.lines().find_map(|line| line.strip_prefix("tr50d_turns_waited_total "));
    waited.is_some_and(|count| count != "0")
}

/// How many of the flood are answered until somebody else's ping is: of half of them no more.
async fn overtaken_by(flood: &Flood, client: &mut Client) -> u64 {
    let mut overtaken = Vec::new();
    for _ in 0..21 {
        let before = flood.answers.load(Ordering::Relaxed);
        assert_eq!(reply(client, "diag.ping", "").await["success"], true);
        overtaken.push(flood.answers.load(Ordering::Relaxed) - before);
    }
    overtaken.sort_unstable();
    overtaken[overtaken.len() / 2]
}

/// Hundreds of commands in one piece with the login, and one that is larger than a turn's part.
async fn all_is_answered(server: &Endpoints) {
    let connect = Connect::login(V311, "at-once", "at-once", FLOOD);
    let mut wire = Wire::open(server, V311).await;
    let pings = wire.publish(0x30, 0, "api/1", PING).repeat(500);
    let large = format!("{}{PING}", " ".repeat(10_000));
    let large = wire.publish(0x30, 0, "api/2", large);
    let looks = wire.publish(0x30, 0, "api/3", LOOK).repeat(100);
    wire.send(&[connect.frame(), pings.clone(), looks, large, pings].concat()).await;
    wire.frame().await.expect("a CONNACK");
    for _ in 0..1101 {
        wire.frame().await.expect("an answer");
    }

    let auth = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"appToken":"{FLOOD}","appId":"x","thingKey":"at-once"}}}}}}"#
    );
    let pings = format!("{PING}\n").repeat(500);
    let large =
        format!(r#"{{"p":{{"command":"diag.ping","params":{{"x":"{}"}}}}}}"#, "x".repeat(10_000));
    let lines = format!("{auth}\n{pings}{large}\n{pings}");
    let mut stream = TcpStream::connect(server.address("tcp")).await.expect("connected");
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let (mut lines, mut buffer) = (0, [0; 4096]);
        while lines < 1002 {
            let count = reader.read(&mut buffer).await.expect("read");
            assert!(count > 0, "closed after {lines} answers");
            lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        }
    };
    let (written, ()) = tokio::join!(writer.write_all(lines.as_bytes()), read);
    written.expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_stands_behind_a_flood() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__PRINCIPAL_COMMANDS_PER_S", "0"),
        ("TR50D_LIMITS__COMMANDS_PER_S", "0"),
        ("TR50D_LIMITS__LOGINS_PER_S", "0"),
    ]);
    let mut others = Vec::new();
    for token in [BESIDE, OTHER] {
        let url = server.url("mqtt", "quiet", token);
        others.push(Client::connect(&url).await.expect("logged in"));
    }
    let flood = Arc::<Flood>::default();
    // What the flood has to read must not be what the others' answers wait for.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut sending = Vec::new();
    for number in 0..CONNECTIONS {
        let (id, server, flood) = (format!("flood-{number}"), server.clone(), flood.clone());
        sending.push(runtime.spawn(async move {
            flood.send(Connect::login(V311, &id, &id, FLOOD).open(&server).await).await;
        }));
    }
    // Nobody is above the share who is alone.
    let waits = async || {
        for client in &mut others {
            for _ in 0..20 {
                assert_eq!(reply(client, "diag.ping", "").await["success"], true);
            }
        }
        have_waited(&server).await
    };
    eventually("the flood waits for turns", waits).await;
    for (who, client) in ["beside", "other"].iter().zip(&mut others) {
        let overtaken = overtaken_by(&flood, client).await;
        let backlog = (CONNECTIONS * WINDOW) as u64;
        assert!(overtaken < backlog / 2, "{who}: {overtaken} of {backlog} came first");
    }
    all_is_answered(&server).await;
    flood.stopped.store(true, Ordering::Relaxed);
    for sending in sending {
        sending.await.expect("all is answered");
    }
    runtime.shutdown_background();
}
