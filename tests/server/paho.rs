//! paho-mqtt for Python as a device. Runs when `TR50D_TEST_CLIENTS` is set, as in [`outside_clients`].
//!
//! [`outside_clients`]: super::outside_clients

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{TestServer, call, reply};

use super::outside_clients::{Running, wanted};

/// The Python of the environment into which `tests/run` installs libraries.
pub(crate) fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/outside/bin/python")
}

#[tokio::test]
async fn paho_does_a_devices_whole_day() {
    if !wanted() {
        return;
    }
    let server = TestServer::start();
    let (mqtt, http) = (server.address("mqtt"), server.address("http"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/paho_device.py");
    let mut command = Command::new(python());
    command.args([script, "127.0.0.1", &mqtt.port().to_string(), &http.port().to_string()]);
    command.args(["paho-1", "demo-token-basicorg"]);
    let device = Running::start(command);
    assert_eq!(device.line(), "ready");

    let mut operator = server.operator("tcp").await;
    let history = r#"{"thingKey":"paho-1","key":"temperature","records":100}"#;
    let history = call(&mut operator, "property.history", history).await;
    assert_eq!(history["values"].as_array().map(Vec::len), Some(11), "{history}");
    let listed = call(&mut operator, "file.list", r#"{"thingKey":"paho-1"}"#).await;
    assert_eq!(listed["result"][0]["fileName"], "map.bin", "{listed}");
    let thing = call(&mut operator, "thing.find", r#"{"key":"paho-1"}"#).await;
    assert_eq!(thing["connected"], true, "{thing}");
    assert_eq!(thing["properties"]["temperature"]["value"], 31.0, "{thing}");
    assert_eq!(thing["alarms"]["blade"]["state"], 1, "{thing}");
    assert_eq!(thing["attrs"]["model"]["value"], "M-1", "{thing}");

    let exec = |method: &str, params: &str| {
        format!(r#"{{"thingKey":"paho-1","method":"{method}","params":{params},"ackTimeout":20}}"#)
    };
    let sum = call(&mut operator, "method.exec", &exec("add", r#"{"numbers":[1,2,39]}"#)).await;
    assert_eq!(sum["sum"], 42, "{sum}");
    let failed = reply(&mut operator, "method.exec", &exec("break", "{}")).await;
    assert_eq!(failed["errorCodes"][0], 19, "{failed}");
    assert_eq!(failed["errorMessages"][0], "fail and such", "{failed}");
    let stopped = reply(&mut operator, "method.exec", &exec("stop", "{}")).await;
    assert_eq!(stopped["success"], true, "{stopped}");
    device.ends_well();
}
