//! Members that the vendor always sends are always there, and those of a mail in their order.

use client::Client;
use serde_json::{Value, json};

use support::http::post;
use support::replies::OPERATOR_LOGIN;
use support::tcp::Lines;
use support::{TestServer, call, reply};

/// The time before all times.
const NEVER: &str = "0001-01-01T00:00:00.000Z";

fn check_members(what: &str, object: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("members") {
        assert_eq!(object.get(name), Some(value), "{name} of {what}: {object}");
    }
}

/// A record that nobody has changed was last changed by who made it.
fn check_unchanged(what: &str, object: &Value) {
    assert!(object["createdBy"].is_string(), "{what}: {object}");
    assert_eq!(object["updatedBy"], object["createdBy"], "{what}");
    assert_eq!(object["updatedOn"], object["createdOn"], "{what}");
}

#[tokio::test]
async fn a_thing_without_anything_has_all_members() {
    let server = TestServer::start();
    let empty = json!({
        "defId": null, "defKey": "", "defName": "", "desc": "", "tags": [], "secTags": [],
        "iccid": "", "esn": "", "imei": "", "meid": "", "imsi": "", "msisdn": "",
        "connected": false, "appId": "", "lastSeen": NEVER, "lastCommunication": NEVER,
        "proto": "", "remoteAddr": "", "attrs": {}, "properties": {}, "alarms": {},
    });
    for listener in ["mqtt", "tcp", "http"] {
        let mut operator = server.operator(listener).await;
        let key = format!("bare-{listener}");
        call(&mut operator, "thing.create", &json!({ "key": key }).to_string()).await;
        let found = call(&mut operator, "thing.find", &json!({ "key": key }).to_string()).await;
        check_members(listener, &found, &empty);
        check_unchanged(listener, &found);
        for command in ["thing.list", "thing.search"] {
            let params = json!({ "keys": [key], "query": "*" }).to_string();
            let listed = call(&mut operator, command, &params).await;
            check_members(command, &listed["result"][0], &empty);
        }
    }
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"mower","name":"Mower"}"#).await;
    call(&mut operator, "thing.create", r#"{"key":"whole","defKey":"mower","imei":"1"}"#).await;
    let found = call(&mut operator, "thing.find", r#"{"key":"whole"}"#).await;
    let whole = json!({ "defKey": "mower", "defName": "Mower", "imei": "1", "iccid": "" });
    check_members("whole", &found, &whole);
    let params = r#"{"keys":["bare-tcp","whole"],"sort":"-imei","show":["key","defKey","imei"]}"#;
    let listed = call(&mut operator, "thing.list", params).await;
    let expected = json!([
        { "key": "whole", "defKey": "mower", "imei": "1" },
        { "key": "bare-tcp", "defKey": "", "imei": "" },
    ]);
    assert_eq!(listed["result"], expected);
}

#[tokio::test]
async fn records_that_nobody_changed_have_all_members() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"mower"}"#).await;
    call(&mut operator, "role.create", r#"{"key":"clerk"}"#).await;
    call(&mut operator, "app.create", r#"{"name":"garden"}"#).await;
    call(&mut operator, "org.create", r#"{"key":"Meadow"}"#).await;
    let create = r#"{"emailAddress":"ada@basicorg.example","password":"correct horse"}"#;
    call(&mut operator, "user.create", create).await;
    let objects = [
        ("thing_def", r#"{"key":"mower"}"#),
        ("role", r#"{"key":"clerk"}"#),
        ("role", r#"{"key":"device"}"#),
        ("app", r#"{"name":"garden"}"#),
        ("app", r#"{"name":"demo-app"}"#),
        ("org", r#"{"key":"Meadow"}"#),
        ("org", "{}"),
        ("user", r#"{"emailAddress":"ada@basicorg.example"}"#),
        ("user", r#"{"emailAddress":"viewer@basicorg.example"}"#),
    ];
    for (family, which) in objects {
        let found = call(&mut operator, &format!("{family}.find"), which).await;
        check_unchanged(family, &found);
        let listed = call(&mut operator, &format!("{family}.list"), "").await;
        let named = listed["result"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|row| row["id"] == found["id"]);
        check_unchanged(family, named.expect("it is listed"));
    }
    let org = call(&mut operator, "org.find", "").await;
    let empty = json!({ "desc": "", "profile": "", "owner": "", "locale": "", "domain": "",
        "customerRefId": "", "tags": [], "lastLoginBy": "", "lastLoginOn": null });
    check_members("org", &org, &empty);
    let def = call(&mut operator, "thing_def.find", r#"{"key":"mower"}"#).await;
    let empty = json!({ "autoDefProps": true, "autoDefAttrs": true, "properties": {},
        "attributes": {}, "alarms": {}, "methods": {}, "tunnels": {} });
    check_members("thing_def", &def, &empty);
    call(&mut operator, "role.update", r#"{"key":"clerk","desc":"x"}"#).await;
    let role = call(&mut operator, "role.find", r#"{"key":"clerk"}"#).await;
    assert_eq!(role["updatedBy"], "operator@basicorg.example");
    assert!(role["updatedOn"].as_str() >= role["createdOn"].as_str());
}

#[tokio::test]
async fn entries_of_logs_and_states_of_alarms_have_all_members() {
    let server = TestServer::start();
    let mut mower = server.thing("tcp", "mower-1").await;
    call(&mut mower, "log.publish", r#"{"msg":"hello"}"#).await;
    call(&mut mower, "log.publish", r#"{"msg":"all","global":true}"#).await;
    let listed = call(&mut mower, "log.list", "").await;
    let entry = json!({ "thingKey": "mower-1", "thingName": "auto:mower-1", "corrId": "" });
    check_members("log", &listed["result"][0], &entry);
    let listed = call(&mut mower, "log.list", r#"{"global":true}"#).await;
    let entry = json!({ "thingId": "", "thingKey": "", "thingName": "", "corrId": "" });
    check_members("log", &listed["result"][0], &entry);
    call(&mut mower, "alarm.publish", r#"{"key":"door","state":1}"#).await;
    let state = call(&mut mower, "alarm.current", r#"{"key":"door"}"#).await;
    assert_eq!(state["msg"], "");
    let history = call(&mut mower, "alarm.history", r#"{"key":"door"}"#).await;
    assert_eq!(history["values"][0]["msg"], "");
}

/// The text of the first mail in a reply.
fn first_mail(reply: &str) -> &str {
    let from = reply.find(r#""messages":["#).expect("mails") + r#""messages":["#.len();
    let to = reply.rfind("]}}").expect("their end");
    &reply[from..to]
}

/// The names of the members of an object without nested ones, in their order.
fn names(object: &str) -> Vec<&str> {
    let pieces = object.split('"').skip(1).step_by(2);
    let all = [
        "id",
        "thingKey",
        "from",
        "command",
        "expires",
        "params",
        "thingDefId",
        "thingDefKey",
        "thingDefName",
    ];
    pieces.filter(|piece| all.contains(piece)).collect()
}

#[tokio::test]
async fn a_mail_has_all_members_in_their_order() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut mower = Lines::connect(&server).await;
    let login = r#"{"auth":{"command":"api.authenticate","params":{"appToken":"demo-token-basicorg","thingKey":"mower-1"}}}"#;
    mower.ask(login).await;
    let check = r#"{"cmd":{"command":"mailbox.check","params":{"autoComplete":true}}}"#;
    let order = [
        "id",
        "thingKey",
        "from",
        "command",
        "expires",
        "params",
        "thingDefId",
        "thingDefKey",
        "thingDefName",
    ];
    // Without a definition, without parameters, and for ever.
    let send = r#"{"thingKey":"mower-1","command":"cut","ackTimeout":0,"ttl":-1}"#;
    call(&mut operator, "mailbox.send", send).await;
    let reply = mower.ask(check).await;
    let mail = first_mail(&reply);
    assert_eq!(names(mail), order, "{reply}");
    let end = r#""command":"cut","expires":null,"params":{},"thingDefId":"","thingDefKey":"","thingDefName":""}"#;
    assert!(mail.ends_with(end), "{mail}");
    // With all of them, as an old agent cuts them out.
    let def =
        call(&mut operator, "thing_def.create", r#"{"key":"mower","name":"The mower"}"#).await;
    call(&mut operator, "thing.def.change", r#"{"key":"mower-1","newDefKey":"mower"}"#).await;
    let exec =
        r#"{"thingKey":"mower-1","method":"go","params":{"speed":2},"ackTimeout":0,"ttl":60}"#;
    call(&mut operator, "method.exec", exec).await;
    let reply = mower.ask(check).await;
    let mail = first_mail(&reply);
    assert_eq!(names(&mail.replace(r#"go","params""#, r#"go","with""#)), order, "{reply}");
    let cut = mail.split_once(r#""params":"#).expect("params").1;
    let cut = cut.split_once(r#","thingDef"#).expect("behind them").0;
    assert_eq!(cut, r#"{"method":"go","params":{"speed":2}}"#);
    let behind =
        format!(r#""thingDefId":{},"thingDefKey":"mower","thingDefName":"The mower"}}"#, def["id"]);
    assert!(mail.ends_with(&behind), "{mail}");
    // The same over HTTP, and what an operator sees of it.
    let login = OPERATOR_LOGIN.trim_start_matches('{').trim_end_matches('}');
    let listed =
        post(&server, &format!(r#"{{{login}}}}},"l":{{"command":"mailbox.list"}}}}"#)).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let mails = listed["l"]["params"]["result"].as_array().expect("a list");
    assert_eq!(mails.len(), 2);
    for mail in mails {
        for member in ["thingId", "params", "expires", "updated", "createdOn", "history"] {
            assert!(mail.get(member).is_some(), "{member}: {mail}");
        }
        assert_eq!(mail["updated"], mail["history"][1]["ts"]);
    }
    assert_eq!((&mails[1]["params"], &mails[1]["expires"]), (&json!({}), &Value::Null));
}

#[tokio::test]
async fn the_mail_of_a_bound_thing_has_that_things_definition() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"rain","name":"Rain"}"#).await;
    let mut gateway = server.thing("mqtt", "gateway-1").await;
    call(&mut gateway, "thing.bind", r#"{"key":"sensor-1","autoDefKey":"rain"}"#).await;
    for key in ["gateway-1", "sensor-1"] {
        let send = json!({ "thingKey": key, "command": "x", "ackTimeout": 0 }).to_string();
        call(&mut operator, "mailbox.send", &send).await;
    }
    let checked = call(&mut gateway, "mailbox.check", "").await;
    let of = |index: usize| {
        let mail = &checked["messages"][index];
        (mail["thingKey"].as_str(), mail["thingDefKey"].as_str())
    };
    assert_eq!(of(0), (Some("gateway-1"), Some("")));
    assert_eq!(of(1), (Some("sensor-1"), Some("rain")));
}

async fn mail(operator: &mut Client, key: &str) -> String {
    let send = json!({ "thingKey": key, "command": "x", "ackTimeout": 0, "ttl": 600 });
    let sent = call(operator, "mailbox.send", &send.to_string()).await;
    sent["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn acknowledging_what_was_completed_by_fetching_it_changes_nothing() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for listener in ["mqtt", "tcp", "http"] {
        let key = format!("mower-{listener}");
        let mut mower = server.thing(listener, &key).await;
        let id = mail(&mut operator, &key).await;
        call(&mut mower, "mailbox.check", r#"{"autoComplete":true}"#).await;
        let before = call(&mut operator, "mailbox.find", &json!({ "id": id }).to_string()).await;
        assert_eq!(before["status"], "completed-auto");
        let ack = json!({ "id": id, "errorCode": 3, "errorMessage": "no", "params": { "a": 1 } });
        for _ in 0..2 {
            call(&mut mower, "mailbox.update", &json!({ "id": id, "msg": "go" }).to_string()).await;
            call(&mut mower, "mailbox.ack", &ack.to_string()).await;
        }
        let after = call(&mut operator, "mailbox.find", &json!({ "id": id }).to_string()).await;
        assert_eq!(after, before);
        // Not for whose mail it was not, and not for mails that ended otherwise.
        let mut other = server.thing(listener, "other").await;
        let refused = reply(&mut other, "mailbox.ack", &ack.to_string()).await;
        assert_eq!(refused["errorCodes"], json!([-90008]));
        let id = mail(&mut operator, &key).await;
        call(&mut operator, "mailbox.purge", &json!({ "id": id }).to_string()).await;
        let ack = json!({ "id": id }).to_string();
        let refused = reply(&mut mower, "mailbox.ack", &ack).await;
        assert_eq!(refused["errorCodes"], json!([-95022]));
    }
}
