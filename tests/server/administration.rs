//! Changes of who there is, while they are connected, and after the end of the server.

use client::Client;
use serde_json::{Value, json};
use support::http::metrics;
use support::{Endpoints, Signal, TestServer, call, connect, eventually, reply};

use crate::TR50D;

const VIEWER: &str = "viewer@basicorg.example";
const VIEWER_ID: &str = "5cf885f41c5bd771c8065bf2";
const YORK: &str = "533ef300310046187700007f";

async fn connect_viewer(server: &Endpoints, listener: &str) -> Client {
    connect(&server.url(listener, VIEWER, "demo-viewer-password")).await
}

async fn refuses(server: &Endpoints, listener: &str, user: &str, password: &str) -> bool {
    Client::connect(&server.url(listener, user, password)).await.is_err()
}

/// The codes of a reply's failure, or 0.
fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

/// Waits until the client's session is gone: its connection has closed, or its id is refused.
async fn closed(what: &str, client: &mut Client) {
    let gone = async || match client.call("diag.ping", None).await {
        Ok(reply) => reply.as_json().contains("-90000"),
        Err(_) => true,
    };
    eventually(what, gone).await;
}

#[tokio::test]
async fn live_sessions_have_new_rights_at_once() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut viewers = Vec::new();
    for listener in ["mqtt", "tcp", "http"] {
        viewers.push(connect_viewer(&server, listener).await);
    }
    let mut expect = async |command: &str, allowed: bool| {
        for viewer in &mut viewers {
            let reply = reply(viewer, command, "").await;
            assert_eq!(code(&reply), if allowed { 0 } else { -95006 }, "{command}: {reply}");
        }
    };
    expect("session.list", false).await;
    let role = r#"{"key":"watcher","perms":["session.list"]}"#;
    call(&mut operator, "role.create", role).await;
    let grant = json!({"userId": VIEWER_ID, "roles": ["watcher"]}).to_string();
    call(&mut operator, "user.org.update", &grant).await;
    expect("session.list", true).await;
    expect("thing.list", false).await;
    let role = r#"{"key":"watcher","perms":["thing"]}"#;
    call(&mut operator, "role.update", role).await;
    expect("session.list", false).await;
    expect("thing.list", true).await;
    let revoke = json!({"userId": VIEWER_ID, "unset": ["roles"]}).to_string();
    call(&mut operator, "user.org.update", &revoke).await;
    expect("thing.list", false).await;
    expect("diag.ping", true).await;
}

#[tokio::test]
async fn who_loses_an_organisation_is_out_of_it_at_once() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let place = json!({"userId": VIEWER_ID, "orgId": YORK, "isOrgAdmin": true}).to_string();
    call(&mut admin, "user.org.add", &place).await;
    let (mut there, mut home) =
        (connect_viewer(&server, "mqtt").await, connect_viewer(&server, "mqtt").await);
    call(&mut there, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    let listed = call(&mut there, "session.list", "").await;
    assert_eq!(listed["count"], 1);
    let place = json!({"userId": VIEWER_ID, "orgId": YORK}).to_string();
    call(&mut admin, "user.org.remove", &place).await;
    closed("the session in the lost organisation", &mut there).await;
    call(&mut home, "diag.ping", "").await;
    let denied = reply(&mut home, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    assert_eq!(code(&denied), -90008, "{denied}");
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    let ended = call(&mut admin, "session.list", r#"{"status":"REVOKED"}"#).await;
    assert_eq!((&ended["count"], &ended["result"][0]["whoAmI"]), (&json!(1), &json!(VIEWER)));
}

#[tokio::test]
async fn a_deleted_user_or_token_is_gone_from_every_connection() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let user = r#"{"emailAddress":"temp@basicorg.example","password":"temp-password"}"#;
    let id = call(&mut operator, "user.create", user).await["id"].clone();
    let url = server.url("mqtt", "temp@basicorg.example", "temp-password");
    let mut temp = connect(&url).await;
    call(&mut operator, "user.delete", &json!({ "id": id }).to_string()).await;
    closed("the deleted user's", &mut temp).await;
    assert!(refuses(&server, "mqtt", "temp@basicorg.example", "temp-password").await);

    let made = call(&mut operator, "app.create", r#"{"name":"bees","autoRegister":true}"#).await;
    let token = made["token"].as_str().expect("a token").to_owned();
    let mut bees = Vec::new();
    for (listener, key) in [("mqtt", "bee-1"), ("tcp", "bee-2"), ("http", "bee-3")] {
        bees.push(connect(&server.url(listener, key, &token)).await);
    }
    let mut other = server.thing("mqtt", "mower-1").await;
    let fresh = json!({"name": "bees", "token": "another-token-for-bees"}).to_string();
    call(&mut operator, "app.update", &fresh).await;
    for bee in &mut bees {
        closed("a session of the old token", bee).await;
    }
    assert!(refuses(&server, "mqtt", "bee-1", &token).await);
    let mut bee = connect(&server.url("mqtt", "bee-1", "another-token-for-bees")).await;
    call(&mut operator, "app.delete", r#"{"name":"bees"}"#).await;
    closed("a session of the deleted token", &mut bee).await;
    assert!(refuses(&server, "mqtt", "bee-1", "another-token-for-bees").await);
    call(&mut other, "diag.ping", "").await;
}

#[tokio::test]
async fn a_new_user_and_a_new_token_work_over_mqtt() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    let def = r#"{"key":"hive","name":"Hive","autoDefProps":false,"properties":{"weight":{}}}"#;
    let def = call(&mut operator, "thing_def.create", def).await["id"].clone();
    let params = json!({
        "name": "bees", "token": "token-for-the-bees", "autoRegThingDefId": def,
        "autoRegTags": ["honey"], "roles": ["device"],
    });
    call(&mut operator, "app.create", &params.to_string()).await;
    let mut hive = connect(&server.url("mqtt", "hive-1", "token-for-the-bees")).await;
    call(&mut hive, "property.publish", r#"{"key":"weight","value":31.5}"#).await;
    let undefined = reply(&mut hive, "property.publish", r#"{"key":"colour","value":1}"#).await;
    assert_eq!(code(&undefined), -90008, "{undefined}");
    let thing = call(&mut operator, "thing.find", r#"{"key":"hive-1"}"#).await;
    assert_eq!((&thing["defId"], &thing["tags"]), (&def, &json!(["honey"])));

    let user = r#"{"emailAddress":"bee@basicorg.example","password":"first-password"}"#;
    let id = call(&mut operator, "user.create", user).await["id"].clone();
    let add = json!({"userId": id, "roles": ["device"]}).to_string();
    call(&mut operator, "user.org.add", &add).await;
    let mut bee = connect(&server.url("mqtt", "bee@basicorg.example", "first-password")).await;
    call(&mut bee, "thing.find", r#"{"key":"hive-1"}"#).await;
    let change = r#"{"password":"second-password","oldPassword":"first-password"}"#;
    call(&mut bee, "user.update", change).await;
    call(&mut bee, "diag.ping", "").await;
    assert!(refuses(&server, "mqtt", "bee@basicorg.example", "first-password").await);
    connect(&server.url("tcp", "bee@basicorg.example", "second-password")).await;
}

/// Whatever was acknowledged before `kill -9`, in one organisation that was new.
#[tokio::test]
async fn acknowledged_changes_survive_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = TR50D.serve(dir.path(), &[]);
    let mut admin = server.admin("tcp").await;
    let org = call(&mut admin, "org.create", r#"{"key":"Meadow","desc":"Green"}"#).await;
    call(&mut admin, "session.org.switch", r#"{"key":"Meadow"}"#).await;
    for number in 0..20 {
        let role = json!({"key": format!("role-{number}"), "perms": ["thing"]}).to_string();
        call(&mut admin, "role.create", &role).await;
    }
    call(&mut admin, "role.update", r#"{"key":"role-1","perms":["session.list"]}"#).await;
    call(&mut admin, "role.delete", r#"{"key":"role-2"}"#).await;
    call(&mut admin, "thing_def.create", r#"{"key":"goat","methods":{"eat":{}}}"#).await;
    let app = r#"{"name":"goats","token":"token-of-the-goats","autoRegThingDefId":"goat"}"#;
    call(&mut admin, "app.create", app).await;
    let user = json!({
        "emailAddress": "goat@meadow.example", "password": "goat-password", "title": "Goatherd",
    });
    let id = call(&mut admin, "user.create", &user.to_string()).await["id"].clone();
    let add = json!({"userId": id, "roles": ["role-1"], "tags": ["south"]}).to_string();
    call(&mut admin, "user.org.add", &add).await;

    server.end(Signal::KILL).await;
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut goat = connect(&server.url("mqtt", "goat@meadow.example", "goat-password")).await;
    let info = call(&mut goat, "session.info", "").await;
    assert_eq!(info["orgId"], org["id"]);
    assert_eq!(info["roleKeys"], json!(["role-1"]));
    call(&mut goat, "session.list", "").await;
    connect(&server.url("mqtt", "goat-1", "token-of-the-goats")).await;
    let mut admin = server.admin("tcp").await;
    call(&mut admin, "session.org.switch", r#"{"key":"meadow"}"#).await;
    let roles = call(&mut admin, "role.list", "").await;
    assert_eq!(roles["count"], 25, "22 of its own, and three from above: {roles}");
    let def = call(&mut admin, "thing_def.find", r#"{"key":"goat"}"#).await;
    assert_eq!((&def["version"], &def["methods"]), (&json!(1), &json!({"eat": {}})));
    let user = call(&mut admin, "user.find", r#"{"username":"goat@meadow.example"}"#).await;
    assert_eq!(
        (&user["title"], &user["createdBy"]),
        (&json!("Goatherd"), &json!("admin@devicewise.com"))
    );
    let found = call(&mut admin, "org.find", "").await;
    assert_eq!((&found["desc"], &found["slug"]), (&json!("Green"), &json!("meadow")));
}

#[tokio::test]
async fn of_two_at_the_same_time_one_gets_the_name() {
    let server = TestServer::start();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.operator("tcp").await);
    }
    let makes = [
        ("role.create", r#"{"key":"clerk"}"#),
        ("thing_def.create", r#"{"key":"clerk"}"#),
        ("app.create", r#"{"name":"clerk"}"#),
        ("org.create", r#"{"key":"clerk"}"#),
        ("user.create", r#"{"emailAddress":"clerk@b.example","password":"clerk-password"}"#),
    ];
    for (command, params) in makes {
        let replies = clients.iter_mut().map(|client| reply(client, command, params));
        let mut codes: Vec<_> =
            futures_util::future::join_all(replies).await.iter().map(code).collect();
        codes.sort_unstable();
        assert_eq!(codes, [-95015, -95015, -95015, -95015, -95015, -95015, -95015, 0], "{command}");
    }
}

/// Somebody whose rights are taken and given back all the time has, in the end, the last ones.
#[tokio::test]
async fn the_last_of_many_changes_holds() {
    let server = TestServer::start();
    let mut operators = [server.operator("tcp").await, server.operator("mqtt").await];
    call(&mut operators[0], "role.create", r#"{"key":"watcher"}"#).await;
    let grant = json!({"userId": VIEWER_ID, "roles": ["watcher"]}).to_string();
    call(&mut operators[0], "user.org.update", &grant).await;
    let mut viewer = connect_viewer(&server, "mqtt").await;
    for round in 0..20 {
        let perms = |number: usize| if number == 0 { r#"["session.list"]"# } else { "[]" };
        let changes = operators.iter_mut().enumerate().map(async |(number, operator)| {
            let params = format!(r#"{{"key":"watcher","perms":{}}}"#, perms(number));
            call(operator, "role.update", &params).await;
        });
        futures_util::future::join_all(changes).await;
        let role = call(&mut operators[0], "role.find", r#"{"key":"watcher"}"#).await;
        let allowed = role["perms"] == json!(["session.list"]);
        let reply = reply(&mut viewer, "session.list", "").await;
        assert_eq!(reply["success"], allowed, "round {round}: {reply}");
    }
}

#[tokio::test]
async fn a_text_message_is_in_the_log_and_counted() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let server = TR50D.serve_logging(log.path(), &[("TR50D_LOG__FORMAT", "json")]);
    server.thing("tcp", "mower-1").await;
    let mut operator = server.operator("http").await;
    let sms = r#"{"coding":"SEVEN_BIT","thingKey":"mower-1","message":"UP\nand \"away\""}"#;
    call(&mut operator, "sms.send", sms).await;
    let line = async || {
        let text = std::fs::read_to_string(log.path()).expect("the log");
        text.lines().find(|line| line.contains(r#""target":"sms""#)).map(str::to_owned)
    };
    eventually("the line", async || line().await.is_some()).await;
    let line: Value = serde_json::from_str(&line().await.expect("seen")).expect("JSON");
    assert_eq!((&line["thing"], &line["org"]), (&json!("mower-1"), &json!("BasicOrg")));
    assert_eq!((&line["text"], &line["coding"]), (&json!("UP\nand \"away\""), &json!("SEVEN_BIT")));
    assert_eq!(line["from"], "operator@basicorg.example");
    assert!(metrics(&server).await.contains("\ntr50d_sms_total 1\n"));
}

#[tokio::test]
async fn a_restricted_token_gives_its_rights_to_nobody() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let perms = r#"{"key":"maker","perms":["app","role","user","property"]}"#;
    call(&mut operator, "role.create", perms).await;
    let token = r#"{"name":"narrow","token":"a-narrow-token-12","autoRegister":true,
        "restrictAccessToSelf":true,"roles":["maker"]}"#;
    call(&mut operator, "app.create", token).await;
    let mut narrow = connect(&server.url("http", "mower-1", "a-narrow-token-12")).await;
    for (command, params) in [
        ("app.create", r#"{"name":"wide","token":"a-wide-token-1234","roles":["maker"]}"#),
        ("app.update", r#"{"name":"narrow","restrictAccessToSelf":false}"#),
        ("role.create", r#"{"key":"other","perms":["property"]}"#),
        ("user.org.update", &format!(r#"{{"userId":"{VIEWER_ID}","roles":["maker"]}}"#)),
    ] {
        let refused = reply(&mut narrow, command, params).await;
        assert_eq!(code(&refused), -95006, "{command}: {refused}");
    }
}

#[tokio::test]
async fn nobody_stays_in_an_organisation_by_being_at_home_there() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let place = json!({"userId": VIEWER_ID, "orgId": YORK}).to_string();
    call(&mut admin, "user.org.add", &place).await;
    let mut viewer = connect_viewer(&server, "http").await;
    let home = json!({"defaultOrgId": YORK}).to_string();
    call(&mut viewer, "user.update", &home).await;
    call(&mut admin, "user.org.remove", &place).await;
    let mut viewer = connect_viewer(&server, "http").await;
    let info = call(&mut viewer, "session.info", "").await;
    assert_eq!(info["orgKey"], "BasicOrg");
    let refused = reply(&mut viewer, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    assert_ne!(code(&refused), 0);
}
