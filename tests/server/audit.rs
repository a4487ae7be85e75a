//! The trail: what administrators do and what is refused, as `audit.list` and the log of events
//! show it.

use std::path::Path;

use client::{Client, Version};
use data_encoding::BASE64;
use serde_json::{Value, json};
use support::http::{log_in, metrics, post, post_with, send};
use support::mqtt::{Connect, Wire};
use support::process::run;
use support::tcp::Lines;
use support::{Endpoints, Signal, TestServer, call, connect, eventually, reply};

use crate::TR50D;

const OPERATOR: &str = "operator@basicorg.example";
const OPERATOR_PASSWORD: &str = "demo-operator-password";
const VIEWER: &str = "viewer@basicorg.example";
const VIEWER_ID: &str = "5cf885f41c5bd771c8065bf2";
const BASIC: &str = "5cf885f41c5bd771c8065be8";
const YORK: &str = "533ef300310046187700007f";

/// The events that `audit.list` shows.
async fn trail(client: &mut Client, params: &Value) -> Vec<Value> {
    let listed = call(client, "audit.list", &params.to_string()).await;
    listed["result"].as_array().expect("a list").clone()
}

/// What these events have under a name.
fn column<'a>(events: &'a [Value], name: &str) -> Vec<&'a str> {
    events.iter().map(|event| event[name].as_str().unwrap_or_default()).collect()
}

fn count(events: &[Value]) -> u64 {
    events.iter().map(|event| event["count"].as_u64().unwrap_or_default()).sum()
}

/// An administrator of YorkOrg, with this password.
async fn york(server: &Endpoints, password: &str) -> Client {
    let mut admin = server.admin("http").await;
    let user = json!({
        "emailAddress": "boss@york.example", "password": password, "defaultOrgId": YORK,
    });
    let made = call(&mut admin, "user.create", &user.to_string()).await;
    let place = json!({ "userId": made["id"], "orgId": YORK, "isOrgAdmin": true });
    call(&mut admin, "user.org.add", &place.to_string()).await;
    connect(&server.url("mqtt", "boss@york.example", password)).await
}

/// Whether one of these texts is in a file below the directory.
fn on_disk(dir: &Path, secrets: &[&str]) -> Option<String> {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if let Some(found) = on_disk(&path, secrets) {
                return Some(found);
            }
        } else if let Ok(bytes) = std::fs::read(&path) {
            for secret in secrets {
                if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    return Some(format!("{secret} in {}", path.display()));
                }
            }
        }
    }
    None
}

#[tokio::test]
async fn what_administrators_do_is_there_from_every_door_and_without_secrets() {
    const SECRETS: [&str; 4] =
        ["first-secret-1", "second-secret-2", "chosen-token-0123456789", "other-token-0123456789"];
    let server = TestServer::start();
    let mut mqtt = server.operator("mqtt").await;
    let mut tcp = server.operator("tcp").await;
    let mut http = server.operator("http").await;
    let role = r#"{"key":"watcher","perms":["thing.list"],"desc":"Watches."}"#;
    let role_id = call(&mut mqtt, "role.create", role).await["id"].clone();
    let user = json!({ "emailAddress": "new@basicorg.example", "password": SECRETS[0] });
    let user_id = call(&mut tcp, "user.create", &user.to_string()).await["id"].clone();
    let place = json!({ "userId": user_id, "orgId": BASIC, "roles": ["watcher"] });
    call(&mut http, "user.org.add", &place.to_string()).await;
    let app = json!({ "name": "gate", "token": SECRETS[2], "roles": ["watcher"] });
    let app_id = call(&mut mqtt, "app.create", &app.to_string()).await["id"].clone();
    let renewed = json!({ "id": app_id, "token": SECRETS[3] });
    call(&mut mqtt, "app.update", &renewed.to_string()).await;
    call(&mut tcp, "role.update", r#"{"key":"watcher","perms":["thing"]}"#).await;
    // A user changes the own password.
    let mut own = connect(&server.url("tcp", "new@basicorg.example", SECRETS[0])).await;
    let change = json!({ "password": SECRETS[1], "oldPassword": SECRETS[0] });
    call(&mut own, "user.update", &change.to_string()).await;
    // As a form.
    let id = log_in(&server, OPERATOR, OPERATOR_PASSWORD).await;
    let form = format!("sessionId={id}&key=line&name=Line");
    let head = "POST /rest/_/thing_def.create HTTP/1.1\r\n\
                Content-Type: application/x-www-form-urlencoded";
    let answer = send(&server, head, form.as_bytes()).await;
    assert!(answer.text().contains("\"success\":true"), "{answer:?}");
    let mower = server.thing("mqtt", "mower-7").await;
    call(&mut http, "thing.delete", r#"{"key":"mower-7"}"#).await;
    drop(mower);
    call(&mut http, "user.delete", &json!({ "id": user_id }).to_string()).await;

    let listed = call(&mut mqtt, "audit.list", r#"{"class":"administration"}"#).await;
    let events = listed["result"].as_array().expect("a list").clone();
    assert_eq!(
        column(&events, "command"),
        [
            "user.delete",
            "thing.delete",
            "thing_def.create",
            "user.update",
            "role.update",
            "app.update",
            "app.create",
            "user.org.add",
            "user.create",
            "role.create",
        ]
    );
    assert_eq!(
        column(&events, "protocol"),
        ["http", "http", "http", "tcp", "tcp", "mqtt", "mqtt", "http", "tcp", "mqtt"]
    );
    let numbers: Vec<_> = events.iter().map(|event| event["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b), "{numbers:?}");
    for event in &events {
        assert_eq!((&event["orgKey"], &event["outcome"]), (&json!("BasicOrg"), &json!("success")));
        assert_eq!(event["sessionRef"].as_str().map(str::len), Some(64), "{event}");
        assert!(event["remoteAddr"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")));
    }
    let updated = &events[4];
    assert_eq!(updated["target"], json!({ "kind": "role", "id": role_id, "name": "watcher" }));
    assert_eq!(updated["before"], json!({ "perms": ["thing.list"] }));
    assert_eq!(updated["after"], json!({ "perms": ["thing"] }));
    assert_eq!(
        (&updated["whoAmI"], &events[3]["whoAmI"]),
        (&json!(OPERATOR), &json!("new@basicorg.example"))
    );
    assert_eq!(events[3]["after"], json!({ "password": "changed" }));
    assert_eq!(events[5]["after"]["token"], "changed");
    assert_eq!(events[9]["after"]["desc"], "Watches.");
    assert_eq!(events[1]["target"]["name"], "mower-7");
    assert_eq!(events[0]["before"]["emailAddress"], "new@basicorg.example");
    let text = listed.to_string();
    for secret in SECRETS.iter().chain(&[OPERATOR_PASSWORD, &*id, "argon2", "tokenHash"]) {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(on_disk(server.data_dir(), &SECRETS), None);
}

#[tokio::test]
async fn sessions_that_somebody_ends_are_there_in_every_dialect() {
    let server = TestServer::start();
    let basic = |login: &str| format!("Authorization: Basic {}", BASE64.encode(login.as_bytes()));
    let mut operator = server.operator("mqtt").await;
    let viewer = || server.url("http", VIEWER, "demo-viewer-password");
    // TR50: that of somebody else; one's own is no act of an administrator.
    let mut seen = connect(&viewer()).await;
    let reference = call(&mut seen, "session.info", "").await["ref"].clone();
    call(&mut operator, "session.end", &json!({ "ref": reference }).to_string()).await;
    let mut own = server.operator("tcp").await;
    call(&mut own, "session.end", "").await;
    // Element.
    let _seen = connect(&viewer()).await;
    let element = async |body: Value| {
        let head = format!(
            "POST /json-rpc/12.3 HTTP/1.1\r\n{}",
            basic("admin@devicewise.com:demo-admin-password")
        );
        send(&server, &head, body.to_string().as_bytes()).await.text().to_owned()
    };
    let ended = element(json!({
        "method": "DeleteAuthSessionsByUsername", "params": { "username": VIEWER },
    }));
    assert!(ended.await.contains(VIEWER));
    let set = json!({ "method": "SetLoginSessionInfo", "params": { "timeout": "01:00:00" } });
    element(set).await;
    // Cognite.
    let mut seen = connect(&viewer()).await;
    let uuid = {
        call(&mut seen, "diag.ping", "").await;
        let token = log_in(&server, OPERATOR, OPERATOR_PASSWORD).await;
        let path = format!("/api/v1/orgs/basic-org/principals/{VIEWER_ID}/sessions");
        let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}");
        let listed = send(&server, &head, b"").await.json();
        let uuid = listed["items"][0]["id"].clone();
        let head = format!("POST {path}/revoke HTTP/1.1\r\nAuthorization: Bearer {token}");
        let revoke = json!({ "items": [{ "id": uuid }] }).to_string();
        assert_eq!(send(&server, &head, revoke.as_bytes()).await.status, 204);
        // One that is not there is refused.
        let revoke = json!({ "items": [{ "id": "00000000-0000-0000-0000-000000000000" }] });
        send(&server, &head, revoke.to_string().as_bytes()).await;
        uuid
    };
    assert!(uuid.is_string());
    let events = trail(&mut operator, &json!({ "class": "administration" })).await;
    assert_eq!(
        column(&events, "command"),
        ["revokeLoginSessionsForUserPrincipal", "DeleteAuthSessionsByUsername", "session.end",]
    );
    for event in &events {
        assert_eq!(
            (&event["target"]["kind"], &event["target"]["name"]),
            (&json!("session"), &json!(VIEWER))
        );
    }
    assert_eq!(events[2]["target"]["id"], reference);
    let refused = trail(&mut operator, &json!({ "class": "refusals" })).await;
    let refused: Vec<_> = refused.iter().map(|event| (&event["command"], &event["code"])).collect();
    assert_eq!(refused, [(&json!("revokeLoginSessionsForUserPrincipal"), &json!(404))]);
    // What concerns the whole server, only super administrators see.
    let mut admin = server.admin("http").await;
    let events = trail(&mut admin, &json!({ "command": "SetLoginSessionInfo" })).await;
    assert_eq!(events[0]["after"], json!({ "sessions.ttl_s": 3600 }));
    // Types of events are found in any case, those with capitals in their names, too.
    for name in ["SetLoginSessionInfo", "setloginsessioninfo"] {
        let params = json!({ "types": name }).to_string();
        let events = call(&mut admin, "event.list", &params).await;
        assert_eq!(events["result"][0]["type"], "SetLoginSessionInfo", "{name}: {events}");
    }
    let first = trail(&mut admin, &json!({ "sort": "number", "limit": 1 })).await;
    assert_eq!((&first[0]["command"], &first[0]["number"]), (&json!("bootstrap"), &json!(1)));
}

#[tokio::test]
async fn nobody_sees_the_trail_of_another_organisation() {
    let server = TestServer::start();
    let mut boss = york(&server, "york-password-1").await;
    let mut operator = server.operator("http").await;
    let role = |key: &str| json!({ "key": key, "perms": ["thing"] }).to_string();
    call(&mut boss, "role.create", &role("york-role")).await;
    call(&mut operator, "role.create", &role("basic-role")).await;
    // A user of one who becomes a member of another: each sees its own part.
    let mut admin = server.admin("http").await;
    let place = json!({ "userId": VIEWER_ID, "orgId": YORK, "isOrgAdmin": true }).to_string();
    call(&mut admin, "user.org.add", &place).await;
    let seen = trail(&mut boss, &json!({})).await;
    assert!(seen.iter().all(|event| event["orgId"] == YORK), "{seen:?}");
    let added = seen.iter().find(|event| event["target"]["id"] == VIEWER_ID).expect("it is seen");
    assert_eq!(added["after"]["memberships"][YORK]["isOrgAdmin"], true);
    assert!(!json!(seen).to_string().contains("basic-role"));
    let seen = trail(&mut operator, &json!({})).await;
    assert!(seen.iter().all(|event| event["orgId"] == BASIC), "{seen:?}");
    assert!(!json!(seen).to_string().contains("york-role"));
    let all = trail(&mut admin, &json!({})).await;
    let added: Vec<_> = all.iter().filter(|event| event["command"] == "user.org.add").collect();
    assert_eq!(added.len(), 2, "each once: {added:?}");
    for (org, other) in [("orgId", YORK), ("orgKey", "YorkOrg"), ("orgId", BASIC)] {
        let asked = json!({ (org): other }).to_string();
        let mine = reply(&mut operator, "audit.list", &asked).await;
        let (mine, expected) = (&mine["errorCodes"][0], other != BASIC);
        assert_eq!(mine.as_i64().is_some_and(|code| code == -90008), expected, "{asked}");
        assert!(!trail(&mut admin, &json!({ (org): other })).await.is_empty());
    }
    for wrong in [
        r#"{"cause":"bad"}"#,
        r#"{"protocol":"bad"}"#,
        r#"{"outcome":"bad"}"#,
        r#"{"orgId":"5cf885f41c5bd771c8065be8","orgKey":"YorkOrg"}"#,
    ] {
        let refused = reply(&mut admin, "audit.list", wrong).await;
        assert_eq!(refused["errorCodes"][0], -95005, "{wrong}");
    }
    let all = call(&mut admin, "audit.list", "{}").await;
    let empty = r#"{"cause":"","protocol":"","outcome":"","user":"","command":"","target":""}"#;
    assert_eq!(call(&mut admin, "audit.list", empty).await["result"], all["result"]);
    let unknown = reply(&mut admin, "audit.list", r#"{"orgKey":"NoOrg"}"#).await;
    assert_eq!(unknown["errorCodes"][0], -90008);
    // Without the permission.
    let mut viewer = connect(&server.url("mqtt", VIEWER, "demo-viewer-password")).await;
    let mut thing = server.thing("mqtt", "mower-1").await;
    for client in [&mut viewer, &mut thing] {
        assert_eq!(reply(client, "audit.list", "").await["errorCodes"][0], -95006);
    }
    call(&mut operator, "role.create", r#"{"key":"auditor","perms":["audit"]}"#).await;
    let grant = json!({ "userId": VIEWER_ID, "roles": ["auditor"] }).to_string();
    call(&mut operator, "user.org.update", &grant).await;
    assert!(!trail(&mut viewer, &json!({})).await.is_empty());
}

#[tokio::test]
async fn the_trail_of_an_organisation_that_is_gone_is_seen_from_above() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    let id = call(&mut operator, "org.create", r#"{"key":"Below"}"#).await["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    call(&mut operator, "org.update", &json!({ "id": id, "name": "New" }).to_string()).await;
    call(&mut operator, "org.delete", &json!({ "id": id }).to_string()).await;
    let mut boss = york(&server, "york-password-1").await;
    let asked = json!({ "orgId": id, "target": id });
    let events = trail(&mut operator, &asked).await;
    assert_eq!(column(&events, "command"), ["org.delete", "org.update", "org.create"]);
    assert_eq!(column(&events, "orgKey"), ["Below"; 3]);
    let refused = reply(&mut boss, "audit.list", &asked.to_string()).await;
    assert_eq!(refused["errorCodes"][0], -90008);
    assert!(!json!(trail(&mut boss, &json!({})).await).to_string().contains("Below"));
    let mut admin = server.admin("tcp").await;
    assert_eq!(trail(&mut admin, &asked).await.len(), 3);
}

#[tokio::test]
async fn five_hundred_wrong_passwords_leave_a_trail_of_a_few_rows() {
    let server = TestServer::start();
    let login = |name: &str, password: &str| {
        let params = json!({ "username": name, "password": password });
        json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string()
    };
    for number in 0..500 {
        post(&server, &login(VIEWER, &format!("wrong-secret-{number}"))).await;
    }
    let mut operator = server.operator("mqtt").await;
    let events = trail(&mut operator, &json!({ "class": "refusals", "user": VIEWER })).await;
    assert_eq!(count(&events), 500);
    let mut causes = column(&events, "cause");
    causes.sort_unstable();
    assert_eq!(causes, ["locked", "wrong_password"]);
    for event in &events {
        assert_eq!((&event["command"], &event["kind"]), (&json!("login"), &json!("user")));
        assert!(event["first"].as_str() < event["last"].as_str());
        assert_eq!(event["ts"], event["last"]);
    }
    assert!(!json!(events).to_string().contains("wrong-secret"));
    assert_eq!(on_disk(server.data_dir(), &["wrong-secret"]), None);
}

#[tokio::test]
async fn logins_are_refused_at_every_door() {
    let server = TestServer::start();
    let auth = |user: &str| {
        let params = json!({ "username": user, "password": "wrong" });
        json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string()
    };
    for version in [Version::V31, Version::V311, Version::V5] {
        let name = format!("mqtt-{version:?}");
        let mut wire = Wire::open(&server, version).await;
        wire.send(&Connect::login(version, "c", &name, "wrong").frame()).await;
        assert_ne!(wire.frame().await.expect("a CONNACK")[3], 0);
    }
    Lines::connect(&server).await.ask(&auth("tcp@x.example")).await;
    post(&server, &auth("http@x.example")).await;
    post(
        &server,
        &json!({
            "1": { "command": "api.authenticate", "params": {
                "username": "command@x.example", "password": "wrong" } },
        })
        .to_string(),
    )
    .await;
    let form = "username=form%40x.example&password=wrong";
    let head = "POST /rest/auth HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded";
    send(&server, head, form.as_bytes()).await;
    let basic = BASE64.encode(b"element@x.example:wrong");
    let head = format!("POST /json-rpc/12.3 HTTP/1.1\r\nAuthorization: Basic {basic}");
    send(&server, &head, br#"{"method":"GetAPI"}"#).await;
    let head = "GET /api/v1/orgs/basic-org HTTP/1.1\r\nAuthorization: Bearer not-a-token";
    send(&server, head, b"").await;
    post_with(
        &server,
        "sessionId: 5f3fd7a5e0b1c2d3e4f50617\r\n",
        r#"{"1":{"command":"diag.ping"}}"#,
    )
    .await;
    let mut admin = server.admin("mqtt").await;
    let events = trail(&mut admin, &json!({ "class": "refusals" })).await;
    let mut seen: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default();
            format!("{} {} {}", text("protocol"), text("cause"), text("whoAmI"))
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "http unknown_session ",
            "http unknown_token ",
            "http unknown_user command@x.example",
            "http unknown_user element@x.example",
            "http unknown_user form@x.example",
            "http unknown_user http@x.example",
            "mqtt unknown_token mqtt-V31",
            "mqtt unknown_token mqtt-V311",
            "mqtt unknown_token mqtt-V5",
            "tcp unknown_user tcp@x.example",
        ]
    );
    // Nobody's: of no organisation.
    let mut operator = server.operator("mqtt").await;
    assert_eq!(trail(&mut operator, &json!({ "class": "refusals" })).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_flood_of_names_is_counted_together() {
    let server = TestServer::start();
    for number in 0..400 {
        let thing_key = format!("t-{number}");
        let params = json!({ "appToken": "no-such-token-at-all", "thingKey": thing_key });
        let auth = json!({ "auth": { "command": "api.authenticate", "params": params } });
        post(&server, &auth.to_string()).await;
    }
    let mut admin = server.admin("mqtt").await;
    let events = trail(&mut admin, &json!({ "class": "refusals" })).await;
    assert_eq!(count(&events), 400);
    assert!((3..=110).contains(&events.len()), "{} events", events.len());
    assert!(events.iter().any(|event| event["others"] == true));
}

#[tokio::test]
async fn commands_that_are_refused_are_counted() {
    let server = TestServer::start();
    let mut viewer = connect(&server.url("mqtt", VIEWER, "demo-viewer-password")).await;
    let mut thing = server.thing("tcp", "mower-1").await;
    for _ in 0..50 {
        reply(&mut viewer, "user.delete", &json!({ "id": VIEWER_ID }).to_string()).await;
        reply(&mut thing, "thing.delete", r#"{"key":"mower-2"}"#).await;
        reply(&mut thing, "thing.list", r#"{"limit":"x"}"#).await;
    }
    let mut operator = server.operator("http").await;
    reply(&mut operator, "user.create", r#"{"emailAddress":"x","password":"a-secret-here"}"#).await;
    let events = trail(&mut operator, &json!({ "outcome": "failure", "sort": "number" })).await;
    let mut seen: Vec<_> = events
        .iter()
        .map(|event| (event["command"].as_str(), event["count"].as_u64(), event["code"].as_i64()))
        .collect();
    seen.sort_unstable();
    let expected = [
        (Some("thing.delete"), Some(50), Some(-95006)),
        (Some("user.create"), Some(1), Some(-95005)),
        (Some("user.delete"), Some(50), Some(-95006)),
    ];
    assert_eq!(seen, expected, "{events:?}");
    assert!(!json!(events).to_string().contains("a-secret-here"));
    assert_eq!(trail(&mut operator, &json!({ "user": "mower-1" })).await.len(), 1);
}

#[tokio::test]
async fn filters_and_pages() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    for number in 0..25 {
        let role = json!({ "key": format!("r{number}"), "perms": [] });
        call(&mut operator, "role.create", &role.to_string()).await;
    }
    call(&mut operator, "thing_def.create", r#"{"key":"d"}"#).await;
    for sort in ["number", "-number"] {
        let (mut all, mut iterator) = (Vec::new(), json!(""));
        loop {
            let asked =
                json!({ "limit": 7, "sort": sort, "iterator": iterator, "command": "Role" });
            let page = call(&mut operator, "audit.list", &asked.to_string()).await;
            let result = page["result"].as_array().expect("a list");
            all.extend(result.iter().map(|event| event["target"]["name"].clone()));
            assert!(result.len() <= 7);
            match page.get("iterator") {
                Some(next) => iterator = next.clone(),
                None => break,
            }
        }
        let mut expected: Vec<_> = (0..25).map(|number| json!(format!("r{number}"))).collect();
        if sort == "-number" {
            expected.reverse();
        }
        assert_eq!(all, expected);
    }
    let first = trail(&mut operator, &json!({ "target": "R3" })).await[0].clone();
    let number = first["number"].as_u64().expect("a number");
    let mut check = async |params: Value, expected: usize| {
        assert_eq!(trail(&mut operator, &params).await.len(), expected, "{params}");
    };
    check(json!({ "after": number }), 22).await;
    check(json!({ "before": number, "command": "role.create" }), 3).await;
    check(json!({ "user": OPERATOR.to_uppercase(), "protocol": "mqtt" }), 26).await;
    check(json!({ "user": VIEWER }), 0).await;
    check(json!({ "before": number, "command": "role.*" }), 3).await;
    check(json!({ "remoteAddr": "::" }), 0).await;
    check(json!({ "remoteAddr": "127.0.0.1:" }), 26).await;
    check(json!({ "start": first["ts"], "end": first["ts"], "target": "r3" }), 1).await;
    check(json!({ "last": "1h", "outcome": "success" }), 26).await;
    check(json!({ "end": "2020-01-01T00:00:00Z" }), 0).await;
    for wrong in [
        json!({ "usr": "x" }),
        json!({ "class": "x" }),
        json!({ "outcome": "x" }),
        json!({ "sort": "user" }),
        json!({ "iterator": "x" }),
        json!({ "orgId": "x" }),
        json!({ "last": "soon" }),
    ] {
        let refused = reply(&mut operator, "audit.list", &wrong.to_string()).await;
        assert_eq!(refused["errorCodes"][0], -95005, "{wrong}");
    }
    let text = metrics(&server).await;
    assert!(text.contains(r#"tr50d_event_bytes_limit"#), "{text}");
    eventually("metrics follow", async || {
        metrics(&server).await.contains(r#"tr50d_events_total{class="administration"} 26"#)
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_trail_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, log) = (dir.path().join("data"), dir.path().join("events.log"));
    let log_text = log.to_str().expect("UTF-8").to_owned();
    let settings = [("TR50D_EVENTS__LOG", &*log_text)];
    let mut done = 0;
    let mut last = 0;
    for round in 0..3 {
        let mut server = TR50D.serve(&data, &settings);
        let mut operator = server.operator("http").await;
        for _ in 0..20 {
            let role = json!({ "key": format!("r{done}"), "perms": [] });
            call(&mut operator, "role.create", &role.to_string()).await;
            done += 1;
        }
        let events = trail(&mut operator, &json!({ "command": "role.create" })).await;
        assert_eq!(events.len(), done);
        let number = events[0]["number"].as_u64().expect("a number");
        assert!(number >= last + 20, "numbers go on");
        last = number;
        server.end(if round == 1 { Signal::TERM } else { Signal::KILL }).await;
    }
    // The log has the same, each line for itself, and only its owner reads it.
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&log).expect("a log").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let made = lines.iter().filter(|line| line["command"] == "role.create");
    let numbers: Vec<_> = made.map(|line| line["number"].as_u64()).collect();
    assert!(numbers.len() >= done - 20 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");

    // A backup is in it, and has all that came before.
    let mut server = TR50D.serve(&data, &settings);
    std::fs::rename(&log, dir.path().join("old.log")).expect("moved");
    server.signal(Signal::HUP);
    eventually("the log is opened again", async || log.exists()).await;
    let copy = dir.path().join("copy");
    let made = run(backup(&data, "backup", &copy));
    assert!(made.0.success(), "{made:?}");
    let mut admin = server.admin("http").await;
    let events = trail(&mut admin, &json!({ "command": "backup" })).await;
    assert_eq!(
        (&events[0]["protocol"], &events[0]["outcome"]),
        (&json!("control"), &json!("success"))
    );
    assert!(std::fs::read_to_string(&log).expect("a log").contains(r#""command":"backup""#));
    server.end(Signal::TERM).await;
    let restored = dir.path().join("restored");
    let put_back = run(backup(&restored, "restore", &copy));
    assert!(put_back.0.success(), "{put_back:?}");
    let mut server = TR50D.serve(&restored, &[]);
    let mut operator = server.operator("http").await;
    let events = trail(&mut operator, &json!({ "command": "role.create" })).await;
    assert_eq!(events.len(), done);
    server.end(Signal::TERM).await;
}

/// A command for the backup `copy` of this data directory.
fn backup(data: &Path, what: &str, copy: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(TR50D.0);
    command.env("TR50D_SERVER__DATA_DIR", data).arg(what).arg(copy);
    command
}

#[tokio::test]
async fn with_little_room_every_organisation_keeps_its_share() {
    let server = TestServer::with(&[("TR50D_EVENTS__MAX_BYTES", "16384")]);
    let mut boss = york(&server, "york-password-1").await;
    for number in 0..5 {
        let role = json!({ "key": format!("york-{number}"), "perms": [] });
        call(&mut boss, "role.create", &role.to_string()).await;
    }
    let mut operator = server.operator("mqtt").await;
    for number in 0..200 {
        let change = json!({ "key": "device", "desc": format!("change {number}") });
        call(&mut operator, "role.update", &change.to_string()).await;
        // Its own refusals go before.
        reply(&mut operator, "role.delete", r#"{"key":"nobody"}"#).await;
    }
    let mut left = Vec::new();
    eventually("there is room again", async || {
        left = trail(&mut operator, &json!({})).await;
        left.len() < 40
    })
    .await;
    assert!(column(&left, "command").iter().all(|command| *command == "role.update"));
    assert_eq!(left[0]["after"]["desc"], "change 199");
    let kept = trail(&mut boss, &json!({ "command": "role.create" })).await;
    assert_eq!(kept.len(), 5, "nothing of who is below its share");
}

#[tokio::test]
async fn the_trail_of_a_user_is_that_of_who_administers_them() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut boss = york(&server, "boss-password").await;
    let mover = "mover@york.example";
    let user = json!({ "emailAddress": mover, "password": "mover-password" });
    call(&mut boss, "user.create", &user.to_string()).await;
    let offer = json!({ "emailAddress": mover, "isOrgAdmin": true });
    call(&mut operator, "user.org.add", &offer.to_string()).await;

    // Whoever may not give what is offered may not replace it.
    let grant = json!({ "key": "clerk", "perms": ["user", "role.find"] });
    call(&mut operator, "role.create", &grant.to_string()).await;
    let clerk = json!({ "emailAddress": VIEWER, "roles": ["clerk"] });
    call(&mut operator, "user.org.update", &clerk.to_string()).await;
    let viewer = server.url("http", VIEWER, "demo-viewer-password");
    let mut viewer = connect(&viewer).await;
    let other = json!({ "emailAddress": mover }).to_string();
    assert_eq!(reply(&mut viewer, "user.org.add", &other).await["errorCodes"][0], -95006);

    let mut moved = connect(&server.url("http", mover, "mover-password")).await;
    call(&mut moved, "user.invite.accept", "{}").await;
    let home = json!({ "emailAddress": mover, "defaultOrgId": BASIC });
    call(&mut moved, "user.update", &home.to_string()).await;
    let reset = json!({ "emailAddress": mover, "password": "other-password", "firstName": "Ann" });
    call(&mut boss, "user.update", &reset.to_string()).await;
    let wrong = server.url("http", mover, "wrong-password");
    assert!(Client::connect(&wrong).await.is_err());
    call(&mut boss, "user.delete", &json!({ "emailAddress": mover }).to_string()).await;

    let of_mover = json!({ "target": mover, "class": "administration", "sort": "number" });
    let known = trail(&mut boss, &of_mover).await;
    assert!(known.iter().any(|event| event["after"]["firstName"] == "Ann"), "{known:?}");
    assert_eq!(column(&known, "command").last(), Some(&"user.delete"));
    let refused = trail(&mut boss, &json!({ "class": "refusals", "user": mover })).await;
    assert_eq!(column(&refused, "cause"), ["wrong_password"]);

    let seen = trail(&mut operator, &of_mover).await;
    let text = json!(seen).to_string();
    assert!(!text.contains("Ann") && !text.contains("boss@york.example"), "{text}");
    let accepted = seen.iter().find(|event| event["command"] == "user.invite.accept");
    let accepted = accepted.expect("the organisation knows its members");
    assert_eq!(accepted["whoAmI"], mover);
    for hidden in ["userId", "sessionRef", "remoteAddr"] {
        assert_eq!(accepted[hidden], Value::Null, "{hidden}");
    }
    let refused = trail(&mut operator, &json!({ "class": "refusals", "user": mover })).await;
    assert!(refused.is_empty(), "{refused:?}");
}
