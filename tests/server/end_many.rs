//! `session.end` by filters, `session.mine`, and "end my others".

use client::Client;
use client::Version::{V5, V311};
use serde_json::{Value, json};
use support::http::{log_in, post_with, send};
use support::mqtt::Connect;
use support::tcp::Lines;
use support::{Endpoints, TOKEN, TestServer, call, reply, sessions};

const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");
const DENIED: i64 = -95006;
const INVALID: i64 = -95005;

fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or_else(|| panic!("no failure: {reply}"))
}

async fn ask(client: &mut Client, command: &str, params: Value) -> Value {
    reply(client, command, &params.to_string()).await
}

/// What `session.end` of many answers, without the time that it took.
async fn end(client: &mut Client, params: Value) -> Value {
    let mut ended = call(client, "session.end", &params.to_string()).await;
    let took = ended.as_object_mut().and_then(|ended| ended.remove("tookMs"));
    assert!(took.is_some_and(|took| took.is_u64()), "{ended}");
    ended
}

fn closed(count: u64) -> Value {
    json!({"count": count, "closed": count, "alreadyGone": 0, "refused": 0})
}

async fn lives(server: &Endpoints, session: &str) -> bool {
    let body = r#"{"1":{"command":"session.info"}}"#;
    let answer = post_with(server, &format!("sessionId: {session}\r\n"), body).await;
    serde_json::from_str::<Value>(&answer).expect("JSON")["1"]["success"] == true
}

#[tokio::test]
async fn what_filters_find_ends_and_the_reply_proves_it() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut fleet = Vec::new();
    for number in 0..300 {
        let key = format!("mower-{number}");
        let version = if number % 2 == 0 { V5 } else { V311 };
        fleet.push(Connect::thing(version, &key).open(&server).await);
    }
    let login = json!({"auth": {"command": "api.authenticate",
        "params": {"thingKey": "mower-tcp", "appToken": TOKEN, "appId": "a"}}});
    let mut line = Lines::logged_in(&server, &login.to_string()).await;
    let over_http = log_in(&server, "mower-http", TOKEN).await;
    let other = Connect::login(V5, "x", "other", "demo-basicorg-16").open(&server).await;

    let all = json!({"appName": "demo-app", "startedAfter": "2020-01-01T00:00:00Z"});
    let mut dry = all.clone();
    dry["dryRun"] = true.into();
    let mut expected = closed(302);
    expected["dryRun"] = true.into();
    assert_eq!(end(&mut operator, dry).await, expected);
    assert_eq!(call(&mut operator, "session.list", &all.to_string()).await["count"], 302);

    assert_eq!(end(&mut operator, all.clone()).await, closed(302));
    // They are gone when the reply comes: each connection has had its last words.
    let live = call(&mut operator, "session.list", &json!({"connected": true}).to_string()).await;
    assert_eq!(live["count"], 2);
    for (number, wire) in fleet.iter_mut().enumerate() {
        if number % 2 == 0 {
            assert_eq!(wire.frame().await.expect("a DISCONNECT"), [0xe0, 1, 0x98]);
        }
        wire.expect_end().await;
    }
    assert!(line.rest().await.is_empty() && !lives(&server, &over_http).await);
    let ended = sessions(&mut operator, r#"{"status":"REVOKED","limit":1}"#).await;
    assert_eq!(ended[0]["endReason"], "revoked");
    drop(other);

    // One event says it, with filter and count; what was only counted is in none.
    let trail = call(&mut operator, "audit.list", r#"{"command":"session.end"}"#).await;
    let events = trail["result"].as_array().expect("a list");
    assert_eq!(events.len(), 1, "{trail}");
    assert_eq!(events[0]["after"], json!({"status": "REVOKED", "sessions": 302, "filter": all}));

    // A second time there is nobody.
    assert_eq!(end(&mut operator, all).await, closed(0));
    let ended = json!({"thingKey": "mower-7", "status": "ALL"});
    let gone = json!({"count": 1, "closed": 0, "alreadyGone": 1, "refused": 0});
    assert_eq!(end(&mut operator, ended).await, gone);
}

#[tokio::test]
async fn nothing_that_would_end_all_by_mistake() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let _mower = Connect::thing(V5, "mower").open(&server).await;
    let mistakes = [
        json!({"dryRun": true}),
        json!({"thingKey": null}),
        json!({"prefix": ""}),
        json!({"whoAmI": "*"}),
        json!({"query": " "}),
        json!({"remoteAddr": ""}),
        json!({"tags": []}),
        json!({"status": "ALL"}),
        json!({"all": false}),
        json!({"protocol": "carrier pigeon"}),
        json!({"mine": false}),
        json!({"ref": "x", "thingKey": "mower"}),
        json!({"id": "x", "dryRun": true}),
    ];
    for params in mistakes {
        let told = ask(&mut operator, "session.end", params.clone()).await;
        assert_eq!(code(&told), INVALID, "{params}: {told}");
    }
    assert_eq!(sessions(&mut operator, "{}").await.len(), 2);
    // The caller's own is never among them.
    assert_eq!(end(&mut operator, json!({"all": true})).await, closed(1));
    assert_eq!(sessions(&mut operator, "{}").await.len(), 1);
    assert_eq!(
        end(&mut operator, json!({"userName": "operator@basicorg.example"})).await,
        closed(0)
    );
    // Nor is what is in another organisation.
    let york = Connect::login(V5, "y", "york", "demo-token-yorkorg").open(&server).await;
    assert_eq!(end(&mut operator, json!({"all": true})).await, closed(0));
    drop(york);
}

#[tokio::test]
async fn everybody_sees_and_ends_their_own_and_nobody_elses() {
    let server = TestServer::start();
    let (user, password) = VIEWER;
    let mut viewer = support::connect(&server.url("tcp", user, password)).await;
    let over_http = log_in(&server, user, password).await;
    let mut wire = Connect::login(V5, "v", user, password).open(&server).await;
    let mower = Connect::thing(V5, "mower").open(&server).await;

    let mine = call(&mut viewer, "session.mine", "{}").await;
    let rows = mine["result"].as_array().expect("a list").clone();
    assert_eq!((&mine["count"], rows.len()), (&json!(3), 3));
    assert!(rows.iter().all(|row| row["whoAmI"] == user));
    let current: Vec<_> = rows.iter().filter(|row| row["current"] == true).collect();
    let info = call(&mut viewer, "session.info", "").await;
    assert_eq!((current.len(), &current[0]["ref"]), (1, &info["ref"]));
    let page = call(&mut viewer, "session.mine", r#"{"offset":1,"limit":1}"#).await;
    assert_eq!(page["result"], json!([rows[1]]));

    // Not others, and not how many there are.
    for params in [json!({"all": true}), json!({"thingKey": "mower", "dryRun": true})] {
        assert_eq!(code(&ask(&mut viewer, "session.end", params).await), DENIED);
    }
    assert_eq!(end(&mut viewer, json!({"mine": true, "thingKey": "mower"})).await, closed(0));
    assert_eq!(end(&mut viewer, json!({"mine": true, "protocol": "mqtt"})).await, closed(1));
    assert_eq!(wire.frame().await.expect("a DISCONNECT")[0], 0xe0);
    assert!(lives(&server, &over_http).await);
    assert_eq!(end(&mut viewer, json!({"others": true})).await, closed(1));
    assert!(!lives(&server, &over_http).await);
    let ended = json!({"status": "ENDED", "userName": user}).to_string();
    let mut operator = server.operator("tcp").await;
    let ended = sessions(&mut operator, &ended).await;
    assert!(ended.iter().all(|session| session["endReason"] == "logged_out"), "{ended:?}");

    // A device whose role has session.list finds others, and may not end them.
    let mut device = server.thing("tcp", "device").await;
    let found = json!({"count": 1, "closed": 0, "alreadyGone": 0, "refused": 1});
    assert_eq!(end(&mut device, json!({"whoAmI": "mower"})).await, found);
    // The same thing by another application is another's.
    let _twin = Connect::login(V5, "t", "device", "demo-basicorg-16").open(&server).await;
    let _own = Connect::thing(V5, "device").open(&server).await;
    assert_eq!(call(&mut device, "session.mine", "{}").await["count"], 2);
    assert_eq!(end(&mut device, json!({"mine": true, "others": true})).await, closed(1));
    drop(mower);
}

#[tokio::test]
async fn a_user_ends_sessions_in_other_organisations_too() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let mut elsewhere = server.admin("http").await;
    call(&mut elsewhere, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    assert_eq!(call(&mut admin, "session.mine", "").await["count"], 2);
    assert_eq!(end(&mut admin, json!({"others": true, "dryRun": true})).await["closed"], 1);
    assert_eq!(end(&mut admin, json!({"others": true})).await, closed(1));
    assert_eq!(call(&mut admin, "session.mine", "").await["count"], 1);
}

#[tokio::test]
async fn it_is_the_same_by_forms_and_over_mqtt() {
    let server = TestServer::start();
    let session = log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    for number in 0..3 {
        drop(log_in(&server, &format!("mower-{number}"), TOKEN).await);
    }
    let head = format!(
        "POST /rest/_/session.end HTTP/1.1\r\nsessionId: {session}\r\n\
         Content-Type: application/x-www-form-urlencoded"
    );
    let answer = send(&server, &head, b"prefix=mower-&dryRun=true").await.json();
    assert_eq!(answer["params"]["closed"], 3, "{answer}");
    let answer = send(&server, &head, b"thingKey=mower-1").await.json();
    assert_eq!(answer["params"]["closed"], 1, "{answer}");
    let mut operator = server.operator("mqtt").await;
    assert_eq!(end(&mut operator, json!({"prefix": "mower-"})).await, closed(2));
}
