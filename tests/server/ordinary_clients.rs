//! Clients of other languages and another broker, on ordinary topics. They run when
//! `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! [`outside_clients`]: super::outside_clients

use std::path::Path;
use std::process::Command;

use client::Version::V311;
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
