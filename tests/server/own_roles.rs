//! The roles device, automation and developer that every organisation owns.

use std::path::Path;
use std::process::Command;

use client::Client;
use serde_json::{Value, json};

use support::http::{exchange, log_in};
use support::{TestServer, call, connect, reply};

const KEYS: [&str; 3] = ["automation", "developer", "device"];

/// Keys of the own roles and of those from above, each sorted.
async fn roles(client: &mut Client) -> (Vec<String>, Vec<String>) {
    let listed = call(client, "role.list", r#"{"show":["key","readOnly"]}"#).await;
    let (above, own): (Vec<&Value>, Vec<&Value>) = listed["result"]
        .as_array()
        .expect("a list")
        .iter()
        .partition(|role| role["readOnly"].as_bool().expect("true or false"));
    let keys = |roles: Vec<&Value>| {
        let mut keys: Vec<_> =
            roles.iter().map(|role| role["key"].as_str().expect("a key").to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    (keys(own), keys(above))
}

async fn switch(client: &mut Client, key: &str) {
    call(client, "session.org.switch", &json!({ "key": key }).to_string()).await;
}

#[tokio::test]
async fn every_organisation_of_the_demo_owns_them() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    for (org, above) in [("SYSTEM", 0), ("BasicOrg", 3), ("YorkOrg", 3)] {
        switch(&mut admin, org).await;
        let (own, inherited) = roles(&mut admin).await;
        assert_eq!((own, inherited.len()), (KEYS.map(str::to_owned).to_vec(), above), "{org}");
        for key in KEYS {
            let found = call(&mut admin, "role.find", &json!({ "key": key }).to_string()).await;
            assert_eq!(found["readOnly"], false, "{org} {key}");
        }
    }
}

/// What Wind River's setup script does first, through every door.
#[tokio::test]
async fn a_setup_script_changes_the_role_of_devices() {
    let server = TestServer::start();
    let params = r#"{"key":"device","name":"Device","perms":["thing.find","property.publish"]}"#;
    for listener in ["mqtt", "tcp", "http"] {
        let mut operator = server.operator(listener).await;
        call(&mut operator, "role.update", params).await;
        let found = call(&mut operator, "role.find", r#"{"key":"DEVICE"}"#).await;
        assert_eq!(found["perms"], json!(["thing.find", "property.publish"]), "{listener}");
        call(&mut operator, "role.update", r#"{"key":"device","perms":["thing.find"]}"#).await;
    }
    let id = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let changed =
        form(&server, "/rest/_/role.update/", &format!("sessionId={id}&key=developer&name=D"))
            .await;
    assert_eq!(changed, r#"{"success":true}"#);
}

async fn form(server: &TestServer, path: &str, body: &str) -> String {
    let head = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n";
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {length}\r\n\r\n{body}");
    let answer = exchange(server, request.as_bytes()).await;
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

#[tokio::test]
async fn an_own_role_concerns_its_organisation_only() {
    let server = TestServer::start();
    let mut basic = server.thing("tcp", "mower-1").await;
    let mut york = connect(&server.url("tcp", "mower-1", "demo-token-yorkorg")).await;
    let mut operator = server.operator("http").await;
    call(&mut operator, "role.update", r#"{"key":"device","perms":["thing.find"]}"#).await;
    let denied = reply(&mut basic, "property.publish", r#"{"key":"t","value":1}"#).await;
    assert_eq!(denied["errorCodes"], json!([-95006]));
    call(&mut basic, "thing.find", "").await;
    call(&mut york, "property.publish", r#"{"key":"t","value":1}"#).await;
    let mut admin = server.admin("http").await;
    call(&mut admin, "role.update", r#"{"key":"device","perms":[]}"#).await;
    call(&mut basic, "thing.find", "").await;
    call(&mut york, "thing.find", "").await;
}

#[tokio::test]
async fn a_new_organisation_owns_copies_of_those_at_the_top() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let changed = r#"{"key":"device","perms":["thing.find","twilio"],"desc":"Ours"}"#;
    call(&mut admin, "role.update", changed).await;
    call(&mut admin, "role.delete", r#"{"key":"automation"}"#).await;
    switch(&mut admin, "BasicOrg").await;
    call(&mut admin, "role.update", r#"{"key":"device","perms":["org.find"]}"#).await;
    call(&mut admin, "org.create", r#"{"key":"Meadow"}"#).await;
    switch(&mut admin, "Meadow").await;
    let (own, above) = roles(&mut admin).await;
    assert_eq!((own, above.len()), (KEYS.map(str::to_owned).to_vec(), 5));
    let device = call(&mut admin, "role.find", r#"{"key":"device"}"#).await;
    assert_eq!(
        (&device["perms"], &device["desc"]),
        (&json!(["thing.find", "twilio"]), &json!("Ours"))
    );
    assert_eq!(device["createdBy"], "admin@devicewise.com");
    let automation = call(&mut admin, "role.find", r#"{"key":"automation"}"#).await;
    assert_eq!(automation["perms"].as_array().map(Vec::len), Some(162));
    call(&mut admin, "role.update", r#"{"key":"developer","perms":["thing"]}"#).await;
    // They go with it.
    switch(&mut admin, "BasicOrg").await;
    call(&mut admin, "org.delete", r#"{"key":"Meadow"}"#).await;
    assert_eq!(roles(&mut admin).await.0, KEYS);
}

#[tokio::test]
async fn without_a_template_it_owns_none_and_is_told_how_to_make_one() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    call(&mut admin, "org.create", r#"{"key":"Bare","template":false}"#).await;
    switch(&mut admin, "Bare").await;
    assert_eq!(roles(&mut admin).await, (vec![], KEYS.map(str::to_owned).to_vec()));
    check_inherited(&mut admin).await;
}

async fn check_inherited(client: &mut Client) {
    let update = r#"{"key":"device","perms":["thing.find"]}"#;
    let refused = reply(client, "role.update", update).await;
    let told = "Role \"device\" belongs to an organisation above this one; role.create makes one \
                with this key that is its own.";
    assert_eq!(
        (&refused["errorCodes"], &refused["errorMessages"]),
        (&json!([-95006]), &json!([told]))
    );
    call(client, "role.create", update).await;
    call(client, "role.update", r#"{"key":"device","perms":["thing.find","thing.list"]}"#).await;
    let found = call(client, "role.find", r#"{"key":"device"}"#).await;
    assert_eq!(found["perms"], json!(["thing.find", "thing.list"]));
}

#[tokio::test]
async fn a_store_of_before_keeps_its_roles() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stores/schema-2.tar.gz");
    let dir = tempfile::tempdir().expect("a directory");
    let unpacked = Command::new("tar").arg("-xzf").arg(store).arg("-C").arg(dir.path()).status();
    assert!(unpacked.expect("tar").success());
    let server = TestServer::in_dir(&dir.path().join("data"), &[]);
    let mut operator = server.operator("http").await;
    let own = roles(&mut operator).await.0;
    assert!(KEYS.iter().all(|key| !own.iter().any(|own| own == key)), "{own:?}");
    check_inherited(&mut operator).await;
    // One that is made there has them all the same.
    call(&mut operator, "org.create", r#"{"key":"Meadow"}"#).await;
    switch(&mut operator, "Meadow").await;
    assert_eq!(roles(&mut operator).await.0, KEYS);
}

#[tokio::test]
async fn new_organisations_keep_their_roles_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut operator = server.operator("http").await;
    call(&mut operator, "org.create", r#"{"key":"Meadow"}"#).await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut operator = server.operator("http").await;
    switch(&mut operator, "Meadow").await;
    assert_eq!(roles(&mut operator).await.0, KEYS);
}
