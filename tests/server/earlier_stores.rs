//! Stores that earlier builds left: each still opens, with all that was in it.

use std::path::Path;
use std::process::Command;

use client::Client;
use client::Version::V5;
use serde_json::json;
use support::mqtt::Connect;
use support::{TestServer, call};

#[tokio::test]
async fn the_store_of_each_schema_still_opens() {
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stores");
    let mut opened = 0;
    for entry in std::fs::read_dir(stores).expect("the folder of stores") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            check(&path).await;
            opened += 1;
        }
    }
    assert!(opened > 0);
}

async fn check(archive: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status();
    assert!(unpacked.expect("tar").success(), "{}", archive.display());
    let server = TestServer::in_dir(&dir.path().join("data"), &[]);
    let mut operator = server.operator("http").await;
    let mut find = async |command: &str, params| call(&mut operator, command, params).await;
    let mower = find("thing.find", r#"{"key":"mower-1"}"#).await;
    assert_eq!(mower["properties"]["temp"]["value"], 21.5);
    assert_eq!(mower["alarms"]["battery"]["state"], 2);
    assert_eq!(mower["attrs"]["model"]["value"], "M1");
    assert_eq!((&mower["loc"]["lat"], &mower["loc"]["lng"]), (&json!(52.5), &json!(13.4)));
    let gateway = find("thing.find", r#"{"imei":"490154203237518"}"#).await;
    assert_eq!((&gateway["key"], &gateway["tags"]), (&json!("gateway-1"), &json!(["yard"])));
    let mails = find("mailbox.list", r#"{"thingKey":"gateway-1"}"#).await;
    assert_eq!((&mails["count"], &mails["result"][0]["command"]), (&json!(1), &json!("reboot")));
    assert_eq!(mails["result"][0]["status"], "new");
    let user = find("user.find", r#"{"emailAddress":"new@basicorg.example"}"#).await;
    assert_eq!(user["emailAddress"], "new@basicorg.example");
    let role = find("role.find", r#"{"key":"reader"}"#).await;
    assert_eq!(role["name"], "Reader");
    let def = find("thing_def.find", r#"{"key":"mower"}"#).await;
    assert_eq!(def["name"], "Mower");
    let past = find("session.list", r#"{"asOf":"2020-01-01T00:00:00Z"}"#).await;
    assert_eq!((&past["count"], &past["truncated"]), (&json!(0), &json!(true)));
    let usage = find("usage.thing.history", r#"{"last":1}"#).await;
    assert_eq!(
        (&usage["connected"], &usage["ts"].as_array().map(Vec::len)),
        (&json!([0]), &Some(1))
    );
    let log = find("log.list", r#"{"thingKey":"mower-1"}"#).await;
    assert!(log.to_string().contains("hello"), "{log}");
    if !archive.ends_with("schema-2.tar.gz") {
        check_ordinary_topics(&server).await;
    }
    if !archive.ends_with("schema-2.tar.gz") && !archive.ends_with("schema-3.tar.gz") {
        check_trail(&mut operator).await;
    }
}

/// From schema 4 on: the trail, rights on ordinary topics, an invitation.
async fn check_trail(operator: &mut Client) {
    let role = call(operator, "role.find", r#"{"key":"auditor"}"#).await;
    assert_eq!(role["topicSubscribe"], json!(["plant/#"]));
    let update = r#"{"command":"role.update","target":"auditor"}"#;
    let event = &call(operator, "audit.list", update).await["result"][0];
    assert_eq!(
        (&event["before"], &event["after"]),
        (&json!({ "name": "Auditor" }), &json!({ "name": "The auditor" }))
    );
    let wrong = r#"{"class":"refusals","user":"viewer@basicorg.example"}"#;
    let event = &call(operator, "audit.list", wrong).await["result"][0];
    assert_eq!((&event["cause"], &event["count"]), (&json!("wrong_password"), &json!(1)));
    let users = call(operator, "user.list", "{}").await;
    let invited = json!({ "emailAddress": "admin@devicewise.com", "pending": true });
    let rows = users["result"].as_array().expect("rows");
    assert!(rows.contains(&invited), "{users}");
}

/// From schema 3 on: a session of MQTT 5 without end, what waits in it, and a retained message.
async fn check_ordinary_topics(server: &TestServer) {
    let expiry = [0x11, 0xff, 0xff, 0xff, 0xff];
    let keeper = Connect::thing(V5, "mower-1").id("keeper").resuming().properties(&expiry);
    let mut keeper = keeper.open(server).await;
    assert!(keeper.present());
    for (topic, payload, qos) in
        [("plant/1", "first", 1), ("plant/2", "second", 1), ("plant/state", "kept", 1)]
    {
        let message = keeper.message().await;
        assert_eq!((message.texts(), message.qos), ((topic, payload), qos));
    }
    let mut reader = Connect::thing(V5, "reader").open(server).await;
    assert_eq!(reader.subscribe("plant/#", 0).await, 0);
    let message = reader.message().await;
    assert_eq!((message.texts(), message.retain), (("plant/state", "kept"), true));
}
