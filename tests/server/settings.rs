//! `user.setting.*`: what programs keep for a user.

use serde_json::{Value, json};
use support::{Signal, TestServer, call, reply};

use crate::TR50D;

const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

fn refused(reply: &Value, code: i64) -> bool {
    reply["errorCodes"] == json!([code])
}

#[tokio::test]
async fn settings_are_ones_own_in_all_sessions() {
    let server = TestServer::start();
    let mut viewer = support::connect(&server.url("tcp", VIEWER.0, VIEWER.1)).await;
    let mut operator = server.operator("http").await;
    assert_eq!(
        call(&mut viewer, "user.setting.list", "{}").await,
        json!({"count": 0, "result": []})
    );
    let set = async |client: &mut client::Client, key: &str, value: &str| {
        let params = json!({"key": key, "value": value}).to_string();
        call(client, "user.setting.set", &params).await;
    };
    set(&mut viewer, "console.view.b", "2").await;
    set(&mut viewer, "console.view.a", "{\"filter\":\"\u{1f69c}\"}").await;
    set(&mut viewer, "other", "3").await;
    set(&mut operator, "other", "4").await;
    let mut again = support::connect(&server.url("http", VIEWER.0, VIEWER.1)).await;
    let views = call(&mut again, "user.setting.list", r#"{"prefix":"console.view."}"#).await;
    let expected = json!([
        {"key": "console.view.a", "value": "{\"filter\":\"\u{1f69c}\"}"},
        {"key": "console.view.b", "value": "2"},
    ]);
    assert_eq!(views, json!({"count": 2, "result": expected}));
    let other = call(&mut again, "user.setting.get", r#"{"key":"other"}"#).await;
    assert_eq!(other, json!({"key": "other", "value": "3"}));
    // Emptied, it is gone; nobody else's is.
    set(&mut again, "other", "").await;
    set(&mut again, "never-was", "").await;
    let gone = reply(&mut viewer, "user.setting.get", r#"{"key":"other"}"#).await;
    assert!(refused(&gone, -90008), "{gone}");
    assert_eq!(call(&mut operator, "user.setting.get", r#"{"key":"other"}"#).await["value"], "4");
    // Nor does it stand in a user's record.
    let record = call(&mut operator, "user.find", r#"{"emailAddress":"viewer@basicorg.example"}"#);
    assert!(record.await.get("settings").is_none());
    let mut mower = server.thing("tcp", "mower").await;
    assert!(refused(&reply(&mut mower, "user.setting.list", "{}").await, -95009));
}

#[tokio::test]
async fn they_are_bounded_and_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = TR50D.serve(dir.path(), &[]);
    let mut viewer = support::connect(&server.url("tcp", VIEWER.0, VIEWER.1)).await;
    let set = async |client: &mut client::Client, key: &str, value: &str| {
        let params = json!({"key": key, "value": value}).to_string();
        reply(client, "user.setting.set", &params).await
    };
    for (key, value) in [("", "x"), (&*"k".repeat(65), "x"), ("k", &*"v".repeat(4097))] {
        assert!(refused(&set(&mut viewer, key, value).await, -95005), "{key}");
    }
    let (large, most) = ("v".repeat(4000), 8);
    for number in 0..most {
        assert_eq!(set(&mut viewer, &format!("large-{number}"), &large).await["success"], true);
    }
    assert!(refused(&set(&mut viewer, "large-more", &large).await, -95018));
    for number in most..50 {
        assert_eq!(set(&mut viewer, &format!("small-{number}"), "v").await["success"], true);
    }
    assert!(refused(&set(&mut viewer, "small-more", "v").await, -95018));
    assert_eq!(set(&mut viewer, "small-49", "w").await["success"], true, "it is there");
    server.end(Signal::KILL).await;
    server = TR50D.serve(dir.path(), &[]);
    let mut viewer = support::connect(&server.url("tcp", VIEWER.0, VIEWER.1)).await;
    let kept = call(&mut viewer, "user.setting.list", "{}").await;
    assert_eq!(kept["count"], 50);
    assert_eq!(call(&mut viewer, "user.setting.get", r#"{"key":"small-49"}"#).await["value"], "w");
}
