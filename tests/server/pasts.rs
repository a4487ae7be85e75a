//! Who may read histories and logs of things that are not their own.

use client::Client;
use serde_json::json;

use support::{TestServer, call, connect, reply};

/// Each command that shows what was, with its other parameters.
const PASTS: [(&str, &str); 7] = [
    ("alarm.history", r#","key":"k""#),
    ("alarm.history.multi", r#","keys":["k"]"#),
    ("attribute.history", r#","key":"k""#),
    ("location.history", ""),
    ("log.list", ""),
    ("property.aggregate", r#","key":"k","calc":"avg""#),
    ("property.history", r#","key":"k""#),
];

/// A token of an application whose role has all of these, and some more permissions.
async fn token(operator: &mut Client, name: &str, more: &[&str], flags: &str) -> String {
    let mut perms: Vec<_> = PASTS.iter().map(|(command, _)| *command).collect();
    perms.extend(["log.publish", "thing.bind", "property.publish", "session.info"]);
    perms.extend(more);
    let role = json!({ "key": name, "perms": perms }).to_string();
    call(operator, "role.create", &role).await;
    let app = format!(r#"{{"name":"{name}","autoRegister":true,"roles":["{name}"]{flags}}}"#);
    let made = call(operator, "app.create", &app).await;
    made["token"].as_str().expect("a token").to_owned()
}

async fn check(client: &mut Client, target: &str, allowed: bool) {
    for (command, rest) in PASTS {
        let params = format!("{{{target}{rest}}}").replace("{,", "{");
        let answer = reply(client, command, &params).await;
        assert_eq!(answer["success"], allowed, "{command} {params}: {answer}");
        if !allowed {
            assert_eq!(answer["errorCodes"], json!([-95006]), "{command} {params}");
            let message = answer["errorMessages"][0].as_str().expect("a sentence");
            assert!(message.contains("thing.list"), "{message}");
        }
    }
}

#[tokio::test]
async fn an_application_has_its_own_and_bound_things() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let token = token(&mut operator, "reader", &[], "").await;
    for listener in ["mqtt", "tcp", "http"] {
        let key = format!("gateway-{listener}");
        let mut gateway = connect(&server.url(listener, &key, &token)).await;
        let _stranger = connect(&server.url("tcp", "stranger", &token)).await;
        let bound = format!(r#"{{"key":"sensor-{listener}","autoDefKey":""}}"#);
        call(&mut gateway, "thing.bind", &bound).await;
        check(&mut gateway, "", true).await;
        check(&mut gateway, &format!(r#""thingKey":"{key}""#), true).await;
        check(&mut gateway, &format!(r#""thingKey":"sensor-{listener}""#), true).await;
        check(&mut gateway, r#""thingKey":"stranger""#, false).await;
        let stranger = call(&mut operator, "thing.find", r#"{"key":"stranger"}"#).await;
        check(&mut gateway, &format!(r#""thingId":{}"#, stranger["id"]), false).await;
        for of_org in [r#"{"global":true}"#, r#"{"type":"system"}"#] {
            let refused = reply(&mut gateway, "log.list", of_org).await;
            assert_eq!(refused["errorCodes"], json!([-95006]), "{of_org}");
        }
        // What it may write is as before.
        call(&mut gateway, "log.publish", r#"{"msg":"x","thingKey":"stranger"}"#).await;
        call(&mut gateway, "log.publish", r#"{"msg":"x","global":true}"#).await;
        let missing =
            reply(&mut gateway, "property.history", r#"{"thingKey":"no","key":"k"}"#).await;
        assert_eq!(missing["errorCodes"], json!([-90008]));
    }
}

#[tokio::test]
async fn thing_list_or_administrator_rights_open_the_others() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let lister = token(&mut operator, "lister", &["thing.list"], "").await;
    let admin = token(&mut operator, "admin", &[], r#","isOrgAdmin":true"#).await;
    let reader = token(&mut operator, "reader", &[], "").await;
    let _stranger = connect(&server.url("tcp", "stranger", &reader)).await;
    for token in [&lister, &admin] {
        let mut client = connect(&server.url("tcp", "gateway", token)).await;
        check(&mut client, r#""thingKey":"stranger""#, true).await;
        call(&mut client, "log.list", r#"{"global":true}"#).await;
    }
    // The demo's devices list things; users are not meant.
    let mut mower = server.thing("mqtt", "mower-1").await;
    for (command, rest) in PASTS
        .iter()
        .filter(|(command, _)| !matches!(*command, "alarm.history.multi" | "property.aggregate"))
    {
        call(&mut mower, command, &format!(r#"{{"thingKey":"stranger"{rest}}}"#)).await;
    }
    check(&mut operator, r#""thingKey":"stranger""#, true).await;
    // The right is looked at with every command.
    let mut client = connect(&server.url("tcp", "gateway", &lister)).await;
    let perms: Vec<_> = PASTS.iter().map(|(command, _)| *command).collect();
    let role = json!({ "key": "lister", "perms": perms }).to_string();
    call(&mut operator, "role.update", &role).await;
    check(&mut client, r#""thingKey":"stranger""#, false).await;
    check(&mut client, "", true).await;
}

#[tokio::test]
async fn the_demos_devices_may_do_what_real_apps_call() {
    let server = TestServer::start();
    let mut mower = server.thing("http", "mower-1").await;
    call(&mut mower, "thing.update", r#"{"imei":"356938035643809","key":"mower-1"}"#).await;
    let wake = r#"{"coding":"SEVEN_BIT","imei":"356938035643809","message":"UP"}"#;
    let answer = reply(&mut mower, "sms.send", wake).await;
    assert_ne!(answer["errorCodes"], json!([-95006]), "{answer}");
    for command in ["alarm.history", "property.history", "attribute.history"] {
        call(&mut mower, command, r#"{"key":"k"}"#).await;
    }
    call(&mut mower, "log.list", "").await;
}
