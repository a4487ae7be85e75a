//! `server.status`: what the server has and uses.

use client::Version::V5;
use serde_json::{Value, json};
use support::mqtt::Connect;
use support::{TestServer, call, reply};

#[tokio::test]
async fn pools_store_and_refusals_are_shown_to_who_sees_the_whole_server() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let wire = Connect::thing(V5, "mower").open(&server).await;
    wire.leave().await;
    let mut operator = server.operator("tcp").await;
    support::end_reason(&mut operator, "mower").await;
    let unknown = reply(&mut operator, "thing.find", r#"{"key":"nobody"}"#).await;
    assert_eq!(unknown["success"], false);
    let refused = reply(&mut operator, "server.status", "{}").await;
    assert_eq!(refused["errorCodes"], json!([-95006]));

    let status = call(&mut admin, "server.status", "{}").await;
    let pool = |name: &str| -> Value {
        let pools = status["pools"].as_array().expect("pools");
        pools.iter().find(|pool| pool["name"] == name).expect(name).clone()
    };
    let sessions = pool("sessions");
    assert_eq!((&sessions["used"], &sessions["unit"]), (&json!(2), &json!("sessions")));
    assert!(sessions["limit"].as_u64() > Some(0), "{sessions}");
    assert_eq!(pool("ended_sessions")["used"], 1);
    assert_eq!(status["store"]["available"], true);
    assert!(status["store"]["freeBytes"].as_u64() > Some(0), "{status}");
    assert_eq!(status["certificates"], json!([]));
    assert_eq!(status["sessionStarts"], 3);
    assert_eq!(status["sessionEnds"], json!({"logged_out": 1}));
    assert_eq!(status["failedCommands"]["-90008"], 1);
    for name in ["refusedConnections", "refusedLogins", "mails", "webhooks", "version"] {
        assert!(status.get(name).is_some(), "{name}");
    }
    let params = r#"{"name":"x"}"#;
    assert_eq!(reply(&mut admin, "server.status", params).await["errorCodes"], json!([-95005]));
}

#[tokio::test]
async fn roles_say_who_holds_them_and_permissions_what_they_are_for() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let made = json!({"key": "crew", "perms": ["thing.list"]}).to_string();
    call(&mut operator, "role.create", &made).await;
    let none = call(&mut operator, "role.find", r#"{"key":"crew","holders":true}"#).await;
    assert_eq!(none["holders"], json!({"userCount": 0, "appCount": 0, "users": [], "apps": []}));
    let held = json!({"emailAddress": "viewer@basicorg.example", "roles": ["crew"]}).to_string();
    call(&mut operator, "user.org.update", &held).await;
    let app = json!({"name": "box", "roles": ["crew"]}).to_string();
    call(&mut operator, "app.create", &app).await;
    let crew = call(&mut operator, "role.find", r#"{"key":"crew","holders":true}"#).await;
    let expected = json!({"userCount": 1, "appCount": 1, "users": ["viewer@basicorg.example"],
        "apps": ["box"]});
    assert_eq!(crew["holders"], expected);
    assert!(call(&mut operator, "role.find", r#"{"key":"crew"}"#).await.get("holders").is_none());
    let listed = call(&mut operator, "role.list", r#"{"holders":true,"sort":"-userCount"}"#).await;
    let first = &listed["result"][0];
    assert_eq!((&first["key"], &first["appCount"]), (&json!("crew"), &json!(1)));

    let perms = call(&mut operator, "role.perms", r#"{"docs":true}"#).await;
    let list = perms["session"].as_array().expect("a family");
    let list = list.iter().find(|one| one["name"] == "list").expect("session.list");
    assert!(list["doc"].as_str().is_some_and(|doc| doc.starts_with("Lists")), "{list}");
    let plain = call(&mut operator, "role.perms", "{}").await;
    assert!(plain["session"].as_array().expect("a family").contains(&json!("list")));
}
