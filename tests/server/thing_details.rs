//! What operators see of things at a glance, and `thing.dump`.

use client::Version::V5;
use serde_json::{Value, json};
use support::mqtt::Connect;
use support::{TestServer, call, reply};

async fn publish(client: &mut client::Client, command: &str, params: Value) {
    call(client, command, &params.to_string()).await;
}

#[tokio::test]
async fn rows_say_why_a_thing_left_and_what_its_alarms_come_to() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let wire = Connect::thing(V5, "calm").open(&server).await;
    wire.leave().await;
    support::end_reason(&mut operator, "calm").await;
    let mut mower = server.thing("tcp", "loud").await;
    for (key, state) in [("heat", 2), ("door", 0), ("blade", 1)] {
        publish(&mut mower, "alarm.publish", json!({"key": key, "state": state})).await;
    }
    let show = ["key", "endReason", "endTime", "alarmsRaised", "alarmState"];
    let listed = call(&mut operator, "thing.list", &json!({"show": show}).to_string()).await;
    assert_eq!(listed["fields"], json!(show));
    let row = |key: &str| {
        let rows = listed["result"].as_array().expect("rows");
        rows.iter().find(|row| row["key"] == key).expect("a row").clone()
    };
    let calm = row("calm");
    assert_eq!(
        (&calm["endReason"], &calm["alarmsRaised"], &calm["alarmState"]),
        (&json!("logged_out"), &json!(0), &Value::Null)
    );
    assert!(calm["endTime"].is_string(), "{calm}");
    let loud = row("loud");
    assert_eq!((&loud["alarmsRaised"], &loud["alarmState"]), (&json!(2), &json!(2)));
    assert!(loud.get("endReason").is_none(), "{loud}");
    for params in [json!({}), json!({"show": ["*"]})] {
        let usual = call(&mut operator, "thing.list", &params.to_string()).await;
        let text = usual.to_string();
        assert!(!text.contains("alarmsRaised") && !text.contains("endReason"), "{text}");
    }
}

#[tokio::test]
async fn a_dump_has_everything_and_no_secret() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut mower = server.thing("tcp", "mower").await;
    publish(&mut mower, "property.publish", json!({"key": "speed", "value": 2.5})).await;
    publish(&mut mower, "alarm.publish", json!({"key": "heat", "state": 2})).await;
    publish(&mut mower, "log.publish", json!({"msg": "with demo-token-basicorg"})).await;
    let wifi = json!({"thingKey": "mower", "method": "join", "ackTimeout": 0,
        "params": {"ssid": "hall", "password": "hush-hush"}});
    publish(&mut operator, "method.exec", wifi).await;
    let dump = call(&mut operator, "thing.dump", r#"{"key":"mower"}"#).await;
    assert_eq!(dump["thing"]["properties"]["speed"]["value"], 2.5);
    assert_eq!(dump["thing"]["alarms"]["heat"]["state"], 2);
    assert_eq!(dump["diagnose"]["connected"], true);
    assert_eq!(dump["sessions"]["result"][0]["whoAmI"], "mower");
    assert_eq!(dump["mailbox"]["result"][0]["params"]["params"]["ssid"], "hall");
    assert_eq!(dump["files"]["count"], 0);
    assert_eq!(dump["leftOut"], json!({}));
    for name in ["key", "serverId", "version", "log", "events"] {
        assert!(dump.get(name).is_some(), "{name}");
    }
    let text = dump.to_string();
    for secret in ["hush-hush", "demo-token-basicorg", "clientId", "appId"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    // Of what there is not, what can be said; of what may not be seen, nothing.
    let missing = call(&mut operator, "thing.dump", r#"{"key":"nobody"}"#).await;
    assert_eq!(missing["diagnose"]["exists"], false);
    assert!(missing["leftOut"]["thing"].is_string(), "{missing}");
    let mut viewer =
        support::connect(&server.url("tcp", "viewer@basicorg.example", "demo-viewer-password"))
            .await;
    let denied = reply(&mut viewer, "thing.dump", r#"{"key":"mower"}"#).await;
    assert_eq!(denied["errorCodes"], json!([-95006]));
    let mut york = support::connect(&server.url("tcp", "y", "demo-token-yorkorg")).await;
    let other = reply(&mut york, "thing.dump", r#"{"key":"mower"}"#).await;
    assert!(other["params"].get("thing").is_none(), "{other}");
}
