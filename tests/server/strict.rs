//! Typos are errors where something is administered; what devices and the vendor's apps send stays
//! lenient.

use client::Client;
use serde_json::{Value, json};
use support::http::{log_in, post, send};
use support::process::run;
use support::{Program, TestServer, call, reply};

const INVALID: i64 = -95005;

async fn refused(client: &mut Client, command: &str, params: Value) -> String {
    let told = reply(client, command, &params.to_string()).await;
    assert_eq!(told["errorCodes"][0], INVALID, "{command} {params}: {told}");
    told["errorMessages"][0].as_str().expect("a sentence").to_owned()
}

#[tokio::test]
async fn a_member_that_nobody_knows_is_an_error_with_the_near_name() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let mut check = async |command: &str, params: Value, near: &str| {
        let told = refused(&mut admin, command, params).await;
        assert!(told.contains(near), "{told}");
    };
    check("user.update", json!({"disbled": true}), "Did you mean \"disabled\"?").await;
    check("user.list", json!({"limt": 1}), "Did you mean \"limit\"?").await;
    check("app.create", json!({"name": "a", "autoRegistr": true}), "\"autoRegister\"?").await;
    check("role.update", json!({"key": "device", "permissions": []}), "there are ").await;
    check("role.perms", json!({"key": "x"}), "there are docs").await;
    check("server.status", json!({"key": "x"}), "the command takes none").await;
    check("org.create", json!({"key": "New", "templte": false}), "\"template\"?").await;
    check("session.list", json!({"thingkeys": "x"}), "\"thingKey\"?").await;
    check("session.end", json!({"appNam": "demo-app"}), "\"appName\"?").await;
    check("session.end", json!({"limit": 5, "all": true}), "is unknown").await;
    check("session.mine", json!({"thingKey": "x"}), "there are offset, limit").await;
    check("user.org.update", json!({"rols": []}), "\"roles\"?").await;
    check("thing.diagnose", json!({"kye": "x"}), "\"key\"?").await;
    // Also when it says nothing.
    check("user.update", json!({"disbled": null}), "\"disabled\"?").await;
    // And what stands inside.
    let own = json!({"firstName": "A", "unset": ["compny"]});
    check("user.update", own, "did you mean \"company\"?").await;
    check("user.update", json!({"unset": ["defaultOrgId"]}), "can't be emptied").await;
    check("org.update", json!({"key": "BasicOrg", "unset": ["key"]}), "can't be emptied").await;
    let perms = json!({"key": "r", "perms": ["thing.list", "thing.lst"]});
    check("role.create", perms, "Did you mean \"thing.list\"?").await;
    check("role.create", json!({"key": "r", "perms": "reboot.all"}), "is no permission").await;
    // Nothing of it was done.
    assert_eq!(reply(&mut admin, "role.find", r#"{"key":"r"}"#).await["success"], false);
    assert_ne!(
        call(&mut admin, "user.find", r#"{"emailAddress":"admin@devicewise.com"}"#).await["firstName"],
        "A"
    );

    // Names in any case, and what the vendor's clients send without effect.
    call(&mut admin, "USER.LIST", r#"{"LIMIT":1,"support":true}"#).await;
    call(&mut admin, "session.list", "[]").await;
    call(&mut admin, "session.list", "").await;
    // Devices may say what they like.
    let mut mower = server.thing("tcp", "mower").await;
    let publish = r#"{"key":"speed","value":7,"unit":"km/h"}"#;
    call(&mut mower, "property.publish", publish).await;
    call(&mut mower, "session.info", r#"{"verbose":true}"#).await;
    call(&mut mower, "thing.find", r#"{"key":"mower","depth":2}"#).await;
}

#[tokio::test]
async fn it_holds_over_every_door() {
    let server = TestServer::start();
    for listener in ["mqtt", "tcp", "http"] {
        let mut operator = server.operator(listener).await;
        refused(&mut operator, "session.list", json!({"lmit": 1})).await;
    }
    let session = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let head = "POST /rest/_/session.list HTTP/1.1\r\n\
                Content-Type: application/x-www-form-urlencoded";
    let form = |field: &str| format!("sessionId={session}&{field}");
    let told = send(&server, head, form("lmit=1").as_bytes()).await;
    assert!(told.text().contains("Did you mean"), "{}", told.text());
    let told = send(&server, head, form("limit=1").as_bytes()).await;
    assert!(told.text().contains("\"success\":true"), "{}", told.text());
    // The form of 2012.
    let old = json!({"auth": {"sessionId": session},
        "data": {"cmd": {"command": "user.list", "params": {"lmit": 1}}}});
    assert!(post(&server, &old.to_string()).await.contains("-9"));
}

/// What `setup-cloud-deps.py` sends, with the members of its files.
#[tokio::test]
async fn the_setup_script_of_the_vendor_passes() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let user =
        call(&mut operator, "user.find", r#"{"username":"operator@basicorg.example"}"#).await;
    let which = json!({"userId": user["id"], "orgId": user["defaultOrgId"]});
    assert_eq!(call(&mut operator, "user.org.find", &which.to_string()).await["isOrgAdmin"], true);
    let def = json!({"key": "hdc_device_manager_def", "name": "d", "version": 1});
    call(&mut operator, "thing_def.create", &def.to_string()).await;
    let id = call(&mut operator, "thing_def.find", r#"{"key":"hdc_device_manager_def"}"#).await;
    for command in ["role.update", "role.create"] {
        let key = if command == "role.create" { "new" } else { "device" };
        let role = json!({"key": key, "name": "Device Role", "readOnly": false, "desc": "x",
            "perms": ["alarm", "config.get", "test", "thing.bulk.update", "property.stats"]});
        call(&mut operator, command, &role.to_string()).await;
    }
    let role = call(&mut operator, "role.find", r#"{"key":"device"}"#).await;
    for command in ["app.create", "app.update"] {
        let app = json!({"name": "hdc_device_manager_app", "desc": "x", "token": "",
            "autoRegThingDefId": id["id"], "autoRegTags": ["", ""], "autoRegSecTags": ["", ""],
            "roles": [role["id"]], "isSuperAdmin": false, "isSuperOps": false, "isOrgAdmin": true,
            "license": ""});
        call(&mut operator, command, &app.to_string()).await;
    }
    let found = call(&mut operator, "app.find", r#"{"name":"hdc_device_manager_app"}"#).await;
    assert_eq!(found["token"].as_str().map(str::len), Some(16));
}

#[test]
fn check_refuses_a_role_with_a_permission_that_there_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
    let demo = std::fs::read_to_string(demo).expect("the demo");
    let role = |permission: &str| {
        format!(
            "{demo}\n[[role]]\nkey = \"mine\"\norg = \"SYSTEM\"\npermissions = [\"{permission}\"]\n"
        )
    };
    let program = Program(env!("CARGO_BIN_EXE_tr50d"));
    for (permission, right) in [("thing.lst", false), ("thing.list", true), ("twilio", true)] {
        let (bootstrap, config) = (dir.path().join("b.toml"), dir.path().join("c.toml"));
        std::fs::write(&bootstrap, role(permission)).expect("written");
        let text = format!("[server]\nbootstrap = {bootstrap:?}\n");
        std::fs::write(&config, text).expect("written");
        let mut command = std::process::Command::new(program.0);
        command.args(["check", "--config"]).arg(&config);
        let (status, out, err) = run(command);
        assert_eq!(status.success(), right, "{permission}: {out}{err}");
        assert_eq!(format!("{out}{err}").contains("thing.lst"), !right, "{out}{err}");
    }
}
