//! Clients of other languages and another broker, on ordinary topics. They run when
//! `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! [`outside_clients`]: super::outside_clients

use std::path::Path;
use std::process::Command;

use client::Version::V311;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use support::mqtt::{Connect, Wire};
use support::{Endpoints, TOKEN, TestServer, eventually};

use super::outside_clients::{Running, wanted};
use super::paho::python;

/// A script of `tests/clients` as a thing of BasicOrg, with this version of MQTT.
fn script(program: &Path, name: &str, server: &Endpoints, version: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let address = server.address("mqtt");
    let mut command = Command::new(program);
    command.env("NODE_PATH", root.join("target/outside/node_modules"));
    command.arg(root.join("tests/clients").join(name));
    command.args([&address.ip().to_string(), &address.port().to_string()]);
    command.args([name, TOKEN, version]);
    command
}

/// The client's day, and its will when it is killed.
async fn check(program: &Path, name: &str) {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let mut watcher = Connect::thing(V311, "watcher").open(&server).await;
    assert_eq!(watcher.subscribe("day/+/+/will", 1).await, 1);
    for version in ["3", "5"] {
        let day = Running::start(script(program, name, &server, version));
        assert_eq!(day.line(), "done", "{name} {version}");
        day.ends_well();
        let mut mortal = script(program, name, &server, version);
        mortal.arg("mortal");
        let mortal = Running::start(mortal);
        assert_eq!(mortal.line(), "ready", "{name} {version}");
        watcher.expect_quiet().await;
        drop(mortal);
        assert_eq!(watcher.message().await.payload, b"gone", "{name} {version}");
    }
}

/// A client of rumqttc with a session that is kept, and whether there was one.
async fn rumqttc_client(server: &Endpoints, id: &str) -> (AsyncClient, EventLoop, bool) {
    let address = server.address("mqtt");
    let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_credentials(id, TOKEN).set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 10);
    let Packet::ConnAck(connack) = incoming(&mut events).await else { panic!("no CONNACK") };
    (client, events, connack.session_present)
}

/// What rumqttc gets next; what it has to acknowledge, it acknowledges when it is asked again.
async fn incoming(events: &mut EventLoop) -> Packet {
    loop {
        if let Event::Incoming(packet) = events.poll().await.expect("connected") {
            return packet;
        }
    }
}

/// The next messages: topic, QoS and whether it was retained.
async fn messages(events: &mut EventLoop, count: usize) -> Vec<(String, QoS, bool)> {
    let mut messages = Vec::new();
    while messages.len() < count {
        if let Packet::Publish(publish) = incoming(events).await {
            messages.push((publish.topic, publish.qos, publish.retain));
        }
    }
    messages
}

#[tokio::test]
async fn rumqttc_keeps_a_session_and_gets_what_it_missed() {
    let server = TestServer::start();
    let (client, mut events, present) = rumqttc_client(&server, "rumqttc").await;
    assert!(!present);
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for (number, qos) in levels.into_iter().enumerate() {
        client.subscribe(format!("day/{number}"), qos).await.expect("taken");
        while !matches!(incoming(&mut events).await, Packet::SubAck(_)) {}
        client.publish(format!("day/{number}"), qos, false, "now").await.expect("taken");
        let expected = (format!("day/{number}"), qos, false);
        assert_eq!(messages(&mut events, 1).await, [expected]);
    }
    // The exchange of QoS 2 goes on behind the message.
    while !matches!(incoming(&mut events).await, Packet::PubRel(_)) {}
    client.disconnect().await.expect("taken");
    while events.poll().await.is_ok() {}

    let mut writer = Connect::thing(V311, "writer").open(&server).await;
    writer.retain("day/0", "kept").await;
    writer.tell("day/1", "missed").await;
    writer.tell_once(7, "day/2", "missed").await;
    let (client, mut events, present) = rumqttc_client(&server, "rumqttc").await;
    assert!(present);
    let missed = |number, qos| (format!("day/{number}"), qos, false);
    let expected = [missed(1, QoS::AtLeastOnce), missed(2, QoS::ExactlyOnce)];
    assert_eq!(messages(&mut events, 2).await, expected);
    client.subscribe("day/0", QoS::AtLeastOnce).await.expect("taken");
    let retained = ("day/0".to_owned(), QoS::AtLeastOnce, true);
    assert_eq!(messages(&mut events, 1).await, [retained]);
}

#[tokio::test]
async fn aiomqtt_does_an_applications_day() {
    check(&python(), "aiomqtt_day.py").await;
}

#[tokio::test]
async fn gmqtt_does_an_applications_day() {
    check(&python(), "gmqtt_day.py").await;
}

#[tokio::test]
async fn mqtt_js_does_an_applications_day() {
    check(Path::new("node"), "mqttjs_day.js").await;
}

/// A mosquitto of one's own, with a bridge to the server whose settings are the default but for what
/// they must say: where to, the login, and `topic # both`.
struct Mosquitto {
    _running: Running,
    endpoints: Endpoints,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    fn bridged_to(server: &Endpoints, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = free.local_addr().expect("an address");
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             connection plant\naddress {}\nremote_username bridge-1\nremote_password {TOKEN}\n\
             topic # both\n{more}\n",
            own.port(),
            server.address("mqtt"),
        );
        let path = dir.path().join("mosquitto.conf");
        std::fs::write(&path, config).expect("written");
        let in_sbin = Path::new("/usr/sbin/mosquitto");
        let program = if in_sbin.exists() { in_sbin } else { Path::new("mosquitto") };
        let mut command = Command::new(program);
        command.arg("-c").arg(&path);
        // The port is the broker's from here on.
        drop(free);
        let running = Running::start(command);
        Self { _running: running, endpoints: server.with_mqtt(own), _dir: dir }
    }

    /// A client of it, when it listens.
    async fn client(&self) -> Wire {
        let address = self.endpoints.address("mqtt");
        eventually("mosquitto listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Connect { login: None, ..Connect::thing(V311, "local") }.open(&self.endpoints).await
    }
}

#[tokio::test]
async fn a_bridge_of_mosquitto_passes_each_message_on_once() {
    if !wanted() {
        return;
    }
    for more in ["", "bridge_protocol_version mqttv31", "bridge_protocol_version mqttv50"] {
        let server = TestServer::start();
        let mut here = Connect::thing(V311, "here").open(&server).await;
        // What is retained comes over as soon as the bridge stands.
        here.retain("plant/start", "go").await;
        let mosquitto = Mosquitto::bridged_to(&server, more);
        let mut there = mosquitto.client().await;
        assert_eq!(there.subscribe("plant/#", 0).await, 0);
        assert_eq!(there.message().await.texts(), ("plant/start", "go"), "{more}");
        here.retain("plant/start", "").await;
        assert_eq!(there.message().await.texts(), ("plant/start", ""), "{more}");
        assert_eq!(here.subscribe("plant/#", 0).await, 0);
        // Were one passed back or on twice, it would come before the next.
        for round in 0..5 {
            let (one, two) = (format!("here {round}"), format!("there {round}"));
            here.send(&here.publish(0, 0, "plant/7", &one)).await;
            assert_eq!(there.message().await.texts(), ("plant/7", &*one), "{more}");
            there.send(&there.publish(0, 0, "plant/7", &two)).await;
            assert_eq!(there.message().await.texts(), ("plant/7", &*two), "{more}");
            for expected in [one, two] {
                assert_eq!(here.message().await.texts(), ("plant/7", &*expected), "{more}");
            }
        }
        here.expect_quiet().await;
        there.expect_quiet().await;
    }
}
