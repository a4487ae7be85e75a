//! Webhooks: a receiver of HTTP gets the events, and does what receivers do.

pub(crate) mod receiver;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use support::http::metrics;
use support::{Endpoints, Hands, TestServer, call, connect, eventually, reply};

use crate::TR50D;
use crate::outside_clients::wanted;
use receiver::{Delivery, Receiver};

const BASIC: &str = "5cf885f41c5bd771c8065be8";
const YORK: &str = "533ef300310046187700007f";

/// A server whose webhooks may reach this machine.
const PRIVATE: (&str, &str) = ("TR50D_WEBHOOKS__ALLOW_PRIVATE", "true");

fn server() -> TestServer {
    TestServer::with(&[PRIVATE])
}

/// Makes a webhook of these members; its id.
async fn hook(client: &mut Client, members: Value) -> Value {
    call(client, "webhook.create", &members.to_string()).await
}

/// What `webhook.list` says of the only one.
async fn state(client: &mut Client) -> Value {
    call(client, "webhook.list", "{}").await["result"][0].clone()
}

/// Something happens: a role is made. It is the event `role.create`.
async fn happens(client: &mut Client, name: &str) {
    let role = json!({ "key": name, "perms": ["thing.list"] });
    call(client, "role.create", &role.to_string()).await;
}

/// The roles whose making these deliveries tell of.
fn roles(delivery: &Delivery) -> Vec<String> {
    let events = delivery.events();
    let made = events.iter().filter(|event| event["type"] == "role.create");
    made.map(|event| event["target"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn events_come_signed_and_in_order() {
    let server = server();
    for door in ["mqtt", "tcp", "http"] {
        let mut receiver = Receiver::start().await;
        let mut operator = server.operator(door).await;
        let made = hook(
            &mut operator,
            json!({ "name": door, "url": receiver.url("/in?a=b"), "types": "role", "maxEvents": 3 }),
        )
        .await;
        let names: Vec<_> = (0..8).map(|number| format!("{door}-{number}")).collect();
        for name in &names {
            happens(&mut operator, name).await;
        }
        let (mut got, mut last) = (Vec::new(), 0);
        while got.len() < names.len() {
            let delivery = receiver.next().await;
            assert!(delivery.head.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{}", delivery.head);
            assert_eq!(delivery.header("content-type"), "application/json");
            assert_eq!(delivery.header("host"), receiver.address.to_string());
            delivery.check(made["secret"].as_str().expect("a secret"));
            assert_eq!(delivery.json()["webhook"], made["id"]);
            let events = delivery.events();
            assert!((1..=3).contains(&events.len()), "{events:?}");
            assert_eq!(delivery.header("webhook-number"), events[0]["number"].to_string());
            for event in &events {
                let number = event["number"].as_u64().expect("a number");
                assert!(number > last, "{events:?}");
                assert_eq!(event["orgId"], BASIC);
                last = number;
            }
            got.extend(roles(&delivery));
        }
        assert_eq!(got, names);
        let gone = format!(r#"{{"id":{}}}"#, made["id"]);
        call(&mut operator, "webhook.delete", &gone).await;
    }
    let page = metrics(&server).await;
    let lag = page.lines().find_map(|line| line.strip_prefix("tr50d_webhook_lag_events "));
    assert_eq!(lag, Some("0"), "{page}");
}

#[tokio::test]
async fn what_failed_is_tried_again_as_it_was() {
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&["500 Sorry", "302 Found\r\nLocation: /elsewhere", "204 No Content"]);
    let made =
        hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" }))
            .await;
    happens(&mut operator, "first").await;
    let first = receiver.next().await;
    eventually("the failure is shown", async || state(&mut operator).await["failures"] == 1).await;
    let shown = state(&mut operator).await;
    assert_eq!(
        (&shown["state"], &shown["lastFailure"]["status"]),
        (&json!("failing"), &json!(500))
    );
    assert!(shown["lag"].as_u64() > Some(0), "{shown}");
    assert!(shown.get("secret").is_none(), "{shown}");
    // What happens meanwhile comes behind it.
    happens(&mut operator, "second").await;
    for _ in 0..2 {
        let again = receiver.next().await;
        again.check(made["secret"].as_str().expect("a secret"));
        assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
        assert_eq!(again.body, first.body);
        assert!(again.head.starts_with("POST / "), "no redirect is followed: {}", again.head);
    }
    assert_eq!(roles(&receiver.next().await), ["second"]);
    eventually("nothing is behind", async || state(&mut operator).await["lag"] == 0).await;
    let shown = state(&mut operator).await;
    assert_eq!((&shown["state"], &shown["failures"]), (&json!("waiting"), &json!(0)));
    assert!(shown["lastSuccess"].is_string(), "{shown}");
    let page = metrics(&server).await;
    assert!(page.contains("tr50d_webhook_deliveries_total{outcome=\"status\"} 2\n"), "{page}");
    assert!(page.contains("tr50d_webhook_deliveries_total{outcome=\"success\"} 2\n"), "{page}");
    assert!(page.contains("tr50d_webhook_deliveries_total{outcome=\"timeout\"} 0\n"), "{page}");
}

#[tokio::test]
async fn a_receiver_says_when_and_a_silent_one_is_not_waited_for() {
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&["503 Later\r\nRetry-After: 3600", "hang", "204 No Content"]);
    let made =
        hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" }))
            .await;
    happens(&mut operator, "first").await;
    receiver.next().await;
    eventually("it fails", async || state(&mut operator).await["failures"] == 1).await;
    // Not within an hour, but a change begins anew.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(receiver.is_quiet());
    let anew = json!({ "id": made["id"], "enabled": true });
    call(&mut operator, "webhook.update", &anew.to_string()).await;
    receiver.next().await;
    eventually("it is not waited for", async || state(&mut operator).await["failures"] == 1).await;
    assert_eq!(state(&mut operator).await["lastFailure"]["cause"], "timeout");
    assert_eq!(roles(&receiver.next().await), ["first"]);
}

#[tokio::test]
async fn answers_that_are_none_or_too_large_are_failures() {
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    let long = format!("200 OK\r\nX: {}", "x".repeat(40_000));
    let many = format!("200 OK{}", "\r\nX: y".repeat(100));
    receiver.answers(&["garbage", &long, &many, "interim", "endless"]);
    hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" })).await;
    happens(&mut operator, "first").await;
    for failures in 1..=4 {
        receiver.next().await;
        eventually("it fails", async || state(&mut operator).await["failures"] == failures).await;
        assert_eq!(state(&mut operator).await["lastFailure"]["cause"], "answer", "{failures}");
    }
    // A body without end is a success all the same: its status says so.
    receiver.next().await;
    eventually("it is over", async || state(&mut operator).await["failures"] == 0).await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_wants_no_more() {
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&["410 Gone"]);
    let made =
        hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" }))
            .await;
    happens(&mut operator, "first").await;
    receiver.next().await;
    let off = async || state(&mut operator).await["state"] == "switchedOff";
    eventually("it is switched off", off).await;
    let mut operator = server.operator("http").await;
    let shown = state(&mut operator).await;
    assert_eq!(shown["enabled"], false);
    assert!(shown["switchedOff"]["reason"].as_str().expect("why").contains("410"), "{shown}");
    let off = r#"{"command":"webhook.disabled"}"#;
    let event = call(&mut operator, "audit.list", off).await["result"][0].clone();
    assert_eq!((&event["whoAmI"], &event["target"]["name"]), (&json!("SYSTEM"), &json!("a")));
    assert!(metrics(&server).await.contains("tr50d_webhooks_switched_off 1\n"));
    happens(&mut operator, "second").await;
    let on = json!({ "id": made["id"], "enabled": true });
    call(&mut operator, "webhook.update", &on.to_string()).await;
    assert_eq!(roles(&receiver.next().await), ["first", "second"]);
    assert!(state(&mut operator).await.get("switchedOff").is_none());
}

#[tokio::test]
async fn a_day_of_failures_switches_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_767_225_600_000);
    let server = TestServer::by_clock(&dir.path().join("data"), &[PRIVATE], hands.clone());
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&["500 Sorry", "500 Sorry", "500 Sorry"]);
    hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" })).await;
    happens(&mut operator, "first").await;
    receiver.next().await;
    eventually("it fails", async || state(&mut operator).await["failures"] == 1).await;
    hands.pass(86_399);
    receiver.next().await;
    let mut operator = server.operator("http").await;
    eventually("it fails", async || state(&mut operator).await["failures"] == 2).await;
    assert_eq!(state(&mut operator).await["enabled"], true);
    hands.pass(2);
    receiver.next().await;
    eventually("it is off", async || state(&mut operator).await["state"] == "switchedOff").await;
}

#[tokio::test]
async fn a_restart_goes_on_and_a_deletion_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = TestServer::in_dir(&data_dir, &[PRIVATE]);
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    let made =
        hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" }))
            .await;
    happens(&mut operator, "first").await;
    assert_eq!(roles(&receiver.next().await), ["first"]);
    eventually("it is over", async || state(&mut operator).await["lag"] == 0).await;
    // In flight when the server stops, and failing.
    receiver.answers(&["hang"]);
    happens(&mut operator, "second").await;
    assert_eq!(roles(&receiver.next().await), ["second"]);
    happens(&mut operator, "third").await;
    server.stop().await;
    let server = TestServer::in_dir(&data_dir, &[PRIVATE]);
    let delivery = receiver.next().await;
    delivery.check(made["secret"].as_str().expect("a secret"));
    assert_eq!(roles(&delivery), ["second", "third"]);
    assert_eq!(delivery.json().get("missed"), None);
    let mut operator = server.operator("http").await;
    call(&mut operator, "webhook.delete", r#"{"name":"A"}"#).await;
    assert_eq!(call(&mut operator, "webhook.list", "").await["count"], 0);
    happens(&mut operator, "fourth").await;
    // Another one is told, and no more comes of the first.
    hook(&mut operator, json!({ "name": "b", "url": receiver.url("/b"), "types": "role" })).await;
    happens(&mut operator, "fifth").await;
    let delivery = receiver.next().await;
    assert!(delivery.head.starts_with("POST /b "), "{}", delivery.head);
    assert_eq!(roles(&delivery), ["fifth"]);
}

#[tokio::test]
async fn this_machine_is_reached_only_when_that_is_allowed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = TestServer::in_dir(&data_dir, &[PRIVATE]);
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    let port = receiver.address.port();
    for (name, host) in [("name", "localhost"), ("address", "127.0.0.1")] {
        let url = format!("http://{host}:{port}/{name}");
        hook(&mut operator, json!({ "name": name, "url": url, "types": "role" })).await;
    }
    happens(&mut operator, "first").await;
    for _ in 0..2 {
        assert_eq!(roles(&receiver.next().await), ["first"]);
    }
    server.stop().await;
    // They are looked at again with each connection, and the name is resolved.
    let server = TestServer::in_dir(&data_dir, &[]);
    let mut operator = server.operator("http").await;
    happens(&mut operator, "second").await;
    eventually("both fail", async || {
        let listed = call(&mut operator, "webhook.list", "{}").await;
        let failed = |index: usize| listed["result"][index]["lastFailure"]["cause"] == "address";
        failed(0) && failed(1)
    })
    .await;
    assert!(receiver.is_quiet());
    for host in [
        "127.0.0.1",
        "127.8.9.10",
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "[::]",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        let url = format!("http://{host}:{port}/");
        let members = json!({ "name": host, "url": url }).to_string();
        let refused = reply(&mut operator, "webhook.create", &members).await;
        assert_eq!(refused["errorCodes"], json!([-95005]), "{host}: {refused}");
        let members = json!({ "name": "name", "url": url }).to_string();
        let refused = reply(&mut operator, "webhook.update", &members).await;
        assert_eq!(refused["errorCodes"], json!([-95005]), "{host}: {refused}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let server = server();
    let mut operator = server.operator("http").await;
    let url = "https://hooks.example/in";
    hook(&mut operator, json!({ "name": "taken", "url": url, "enabled": false })).await;
    for (members, code) in [
        (json!({ "url": url }), -95004),
        (json!({ "name": "a" }), -95004),
        (json!({ "name": "", "url": url }), -95005),
        (json!({ "name": "a", "url": "" }), -95005),
        (json!({ "name": "a", "url": 5 }), -95005),
        (json!({ "name": "a", "url": [url] }), -95005),
        (json!({ "name": "a", "url": "hooks.example" }), -95005),
        (json!({ "name": "a", "url": "ftp://hooks.example/" }), -95005),
        (json!({ "name": "a", "url": "https://user:pass@hooks.example/" }), -95005),
        (json!({ "name": "a", "url": "https://hooks.example/#x" }), -95005),
        (json!({ "name": "a", "url": "https://hooks.example:0/" }), -95005),
        (json!({ "name": "a", "url": "http://2130706433/" }), -95005),
        (json!({ "name": "a", "url": "http://0x7f.1/" }), -95005),
        (json!({ "name": "a", "url": "http://0.0.0.0/" }), -95005),
        (json!({ "name": "a", "url": format!("{url}/{}", "x".repeat(2048)) }), -95005),
        (json!({ "name": "a", "url": url, "types": "no type!" }), -95005),
        (json!({ "name": "a", "url": url, "types": "7..5" }), -95005),
        (json!({ "name": "a", "url": url, "types": "alarms" }), -95005),
        (json!({ "name": "a", "url": url, "types": ["alarm", "session.begin"] }), -95005),
        (json!({ "name": "a", "url": url, "types": ["alarm,session"] }), -95005),
        (json!({ "name": "a", "url": url, "types": {} }), -95005),
        (json!({ "name": "a", "url": url, "types": vec!["a"; 2000] }), -95005),
        (json!({ "name": "a", "url": url, "thingKey": "a/b" }), -95005),
        (json!({ "name": "a", "url": url, "maxEvents": 0 }), -95005),
        (json!({ "name": "a", "url": url, "maxEvents": 1001 }), -95005),
        (json!({ "name": "a", "url": url, "maxEvents": -1 }), -95005),
        (json!({ "name": "a", "url": url, "secret": "short" }), -95005),
        (json!({ "name": "a", "url": url, "secret": "whsec_no-base-64!" }), -95005),
        (json!({ "name": "a", "url": url, "enabled": "maybe" }), -95005),
        (json!({ "name": "a", "url": url, "after": 1_000_000_000 }), -95005),
        (json!({ "name": "a", "url": url, "description": "x".repeat(100_000) }), -95005),
        (json!({ "name": "a", "url": url, "includeSubOrg": true }), -95005),
        (json!({ "name": "TAKEN", "url": url }), -95015),
    ] {
        let refused = reply(&mut operator, "webhook.create", &members.to_string()).await;
        let shown = &members.to_string();
        assert_eq!(refused["errorCodes"], json!([code]), "{shown:.200}: {refused}");
        assert!(!refused.to_string().contains("whsec_no"), "{refused}");
    }
    assert_eq!(call(&mut operator, "webhook.list", "").await["count"], 1);
    // Why this address is none is not that a setting is missing.
    let nobody = r#"{"name":"a","url":"http://0.0.0.0/"}"#;
    let refused = reply(&mut operator, "webhook.create", nobody).await;
    assert!(!refused.to_string().contains("allow_private"), "{refused}");
    let unknown = json!({ "name": "taken", "colour": "red" }).to_string();
    for command in ["webhook.update", "webhook.delete"] {
        let refused = reply(&mut operator, command, &unknown).await;
        assert_eq!(refused["errorCodes"], json!([-95005]), "{refused}");
        let refused = reply(&mut operator, command, r#"{"name":"nobody"}"#).await;
        assert_eq!(refused["errorCodes"], json!([-90008]), "{refused}");
        let refused = reply(&mut operator, command, "{}").await;
        assert_eq!(refused["errorCodes"], json!([-95004]), "{refused}");
    }
}

#[tokio::test]
async fn secrets_are_shown_once_and_changed() {
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    let own = "a-secret-of-my-own";
    let members = json!({ "name": "a", "url": receiver.url("/"), "types": "role", "secret": own });
    hook(&mut operator, members).await;
    happens(&mut operator, "first").await;
    receiver.next().await.check(own);
    let key = BASE64.encode(&[7; 24]);
    let other = json!({ "name": "a", "secret": format!("whsec_{key}") }).to_string();
    let changed = call(&mut operator, "webhook.update", &other).await;
    assert_eq!(changed.get("secret"), None);
    happens(&mut operator, "second").await;
    receiver.next().await.check(&format!("whsec_{key}"));
    let made = call(&mut operator, "webhook.update", r#"{"name":"a","secret":""}"#).await;
    happens(&mut operator, "third").await;
    receiver.next().await.check(made["secret"].as_str().expect("a new one"));
    let secrets = [own, &key, made["secret"].as_str().expect("text")];
    for shown in
        [call(&mut operator, "webhook.list", "").await, call(&mut operator, "audit.list", "").await]
    {
        assert!(secrets.iter().all(|secret| !shown.to_string().contains(secret)), "{shown}");
    }
    let act = call(&mut operator, "audit.list", r#"{"command":"webhook.update"}"#).await;
    assert_eq!(act["result"][0]["after"]["secret"], "changed", "{act}");
}

/// A member of BasicOrg with these permissions.
async fn member(server: &Endpoints, permissions: &[&str]) -> Client {
    let mut operator = server.operator("http").await;
    let role = json!({ "key": "sender", "perms": permissions });
    call(&mut operator, "role.create", &role.to_string()).await;
    let user = json!({ "emailAddress": "new@basicorg.example", "password": "new-user-password" });
    let id = call(&mut operator, "user.create", &user.to_string()).await["id"].clone();
    let place = json!({ "userId": id, "orgId": BASIC, "roles": ["sender"] });
    call(&mut operator, "user.org.add", &place.to_string()).await;
    connect(&server.url("http", "new@basicorg.example", "new-user-password")).await
}

const SENDS: [&str; 5] = ["webhook", "event.list", "audit.list", "thing.list", "session.list"];

#[tokio::test]
async fn rights_are_asked_for_each_event() {
    let server = server();
    let mut receiver = Receiver::start().await;
    let mut member = member(&server, &SENDS).await;
    let url = receiver.url("/");
    hook(&mut member, json!({ "name": "a", "url": url, "types": "role.create" })).await;
    let below = json!({ "name": "b", "url": url, "includeSubOrgs": true }).to_string();
    let refused = reply(&mut member, "webhook.create", &below).await;
    assert_eq!(refused["errorCodes"], json!([-95006]), "{refused}");
    let mut operator = server.operator("http").await;
    happens(&mut operator, "first").await;
    assert_eq!(roles(&receiver.next().await), ["first"]);
    // Without the right to the trail its events do not come, and are passed over.
    let less = json!({ "key": "sender", "perms": ["webhook", "event.list"] });
    call(&mut operator, "role.update", &less.to_string()).await;
    happens(&mut operator, "second").await;
    eventually("it is passed over", async || state(&mut operator).await["lag"] == 0).await;
    let again = json!({ "key": "sender", "perms": SENDS });
    call(&mut operator, "role.update", &again.to_string()).await;
    happens(&mut operator, "third").await;
    assert_eq!(roles(&receiver.next().await), ["third"]);
    // Nor is anything sent for who is banned.
    let ban = |disabled: bool| {
        json!({ "emailAddress": "new@basicorg.example", "disabled": disabled }).to_string()
    };
    call(&mut operator, "user.update", &ban(true)).await;
    happens(&mut operator, "banned").await;
    eventually("it is passed over", async || state(&mut operator).await["lag"] == 0).await;
    assert_eq!(state(&mut operator).await["state"], "noRights");
    call(&mut operator, "user.update", &ban(false)).await;
    happens(&mut operator, "unbanned").await;
    assert_eq!(roles(&receiver.next().await), ["unbanned"]);
    call(&mut operator, "user.delete", r#"{"emailAddress":"new@basicorg.example"}"#).await;
    happens(&mut operator, "fourth").await;
    eventually("it is passed over", async || state(&mut operator).await["lag"] == 0).await;
    let shown = state(&mut operator).await;
    assert_eq!((&shown["state"], shown.get("owner")), (&json!("noRights"), None));
    // Whoever changes it lends it the own rights.
    call(&mut operator, "webhook.update", r#"{"name":"a","description":"mine"}"#).await;
    happens(&mut operator, "fifth").await;
    assert_eq!(roles(&receiver.next().await), ["fifth"]);
}

#[tokio::test]
async fn nothing_is_sent_by_a_token_that_is_gone() {
    let server = server();
    let mut receiver = Receiver::start().await;
    let mut member = member(&server, &SENDS).await;
    let made = call(&mut member, "user.token.create", r#"{"name":"program"}"#).await;
    let token = made["token"].as_str().expect("a token");
    let mut program = connect(&server.url("http", "new@basicorg.example", token)).await;
    call(&mut program, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let url = receiver.url("/");
    hook(&mut program, json!({ "name": "a", "url": url, "types": "role.create" })).await;
    let mut operator = server.operator("http").await;
    happens(&mut operator, "first").await;
    assert_eq!(roles(&receiver.next().await), ["first"]);
    let gone = json!({ "tokenId": made["tokenId"] }).to_string();
    call(&mut member, "user.token.delete", &gone).await;
    happens(&mut operator, "second").await;
    eventually("it is passed over", async || state(&mut operator).await["lag"] == 0).await;
    assert_eq!(state(&mut operator).await["state"], "noRights");
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn nothing_is_sent_by_rights_that_came_later() {
    let server = server();
    let mut receiver = Receiver::start().await;
    let mut member = member(&server, &["webhook", "event.list", "session.list"]).await;
    let url = receiver.url("/");
    hook(
        &mut member,
        json!({ "name": "a", "url": url, "types": ["role.create", "session.started"] }),
    )
    .await;
    let mut operator = server.operator("http").await;
    let more = json!({ "key": "sender", "perms": SENDS });
    call(&mut operator, "role.update", &more.to_string()).await;
    happens(&mut operator, "first").await;
    drop(server.thing("mqtt", "mower-7").await);
    loop {
        let events = receiver.next().await.events();
        assert!(events.iter().all(|event| event["type"] == "session.started"), "{events:?}");
        if events.iter().any(|event| event["thingKey"] == "mower-7") {
            break;
        }
    }
    let refused = member_without(&server).await;
    assert_eq!(refused["errorCodes"], json!([-95006]), "{refused}");
}

/// What somebody is answered who may make webhooks, and may not read events.
async fn member_without(server: &Endpoints) -> Value {
    let mut operator = server.operator("http").await;
    let less = json!({ "key": "sender", "perms": ["webhook"] });
    call(&mut operator, "role.update", &less.to_string()).await;
    let mut member =
        connect(&server.url("http", "new@basicorg.example", "new-user-password")).await;
    let members = json!({ "name": "b", "url": "https://hooks.example/" }).to_string();
    reply(&mut member, "webhook.create", &members).await
}

#[tokio::test]
async fn filters_and_organisations() {
    let server = server();
    let mut admin = server.admin("http").await;
    let mut operator = server.operator("http").await;
    let (mut one, mut below) = (Receiver::start().await, Receiver::start().await);
    let things = json!({
        "name": "one", "url": one.url("/"), "types": "session.*", "thingKey": ["mower-2"],
    });
    hook(&mut operator, things).await;
    let sub = json!({ "key": "Below", "parentId": BASIC, "name": "Below" });
    let sub = call(&mut operator, "org.create", &sub.to_string()).await;
    let all = json!({
        "name": "all", "url": below.url("/"), "types": "role", "includeSubOrgs": true,
    });
    hook(&mut operator, all).await;
    drop(server.thing("mqtt", "mower-1").await);
    drop(server.thing("mqtt", "mower-2").await);
    let events = one.next().await.events();
    assert!(events.iter().all(|event| event["thingKey"] == "mower-2"), "{events:?}");
    // Not of an organisation beside it; of one below it.
    call(&mut admin, "session.org.switch", &json!({ "id": YORK }).to_string()).await;
    happens(&mut admin, "york").await;
    call(&mut operator, "session.org.switch", &json!({ "id": sub["id"] }).to_string()).await;
    happens(&mut operator, "below").await;
    let delivery = below.next().await;
    assert_eq!(roles(&delivery).last().map(String::as_str), Some("below"));
    assert!(!delivery.body.contains("york"), "{}", delivery.body);
    // One of the organisation below goes with it.
    let own = json!({ "name": "own", "url": below.url("/own"), "types": "thing" });
    hook(&mut operator, own).await;
    call(&mut operator, "session.org.switch", &json!({ "id": BASIC }).to_string()).await;
    call(&mut operator, "org.delete", &json!({ "id": sub["id"] }).to_string()).await;
    let used = |page: &str| {
        page.lines()
            .find_map(|l| l.strip_prefix("tr50d_pool_used{pool=\"webhooks\"} ")?.parse().ok())
    };
    assert_eq!(used(&metrics(&server).await), Some(2));
}

#[tokio::test]
async fn receivers_that_hang_hold_only_places_of_who_has_them() {
    let server = server();
    let mut colleague = member(&server, &SENDS).await;
    let mut operator = server.operator("http").await;
    let mut slow = Receiver::start().await;
    slow.hangs();
    let most = base::limits::WEBHOOK_DELIVERIES_MAX;
    for number in 0..most + 6 {
        let members =
            json!({ "name": number.to_string(), "url": slow.url("/"), "types": "role.create" });
        hook(&mut operator, members).await;
    }
    happens(&mut operator, "first").await;
    // All that one principal may have begin at once, who is alone.
    for _ in 0..most * 3 / 4 {
        slow.next().await;
    }
    let mut near = Receiver::start().await;
    hook(&mut colleague, json!({ "name": "near", "url": near.url("/"), "types": "role" })).await;
    happens(&mut operator, "near").await;
    assert_eq!(roles(&near.next().await), ["near"]);
    let mut admin = server.admin("http").await;
    call(&mut admin, "session.org.switch", &json!({ "id": YORK }).to_string()).await;
    let mut quick = Receiver::start().await;
    hook(&mut admin, json!({ "name": "york", "url": quick.url("/"), "types": "role" })).await;
    happens(&mut admin, "york").await;
    assert_eq!(roles(&quick.next().await), ["york"]);
    let page = metrics(&server).await;
    let used = page.lines().find_map(|line| {
        line.strip_prefix("tr50d_pool_used{pool=\"webhook_deliveries\"} ")?.parse::<u64>().ok()
    });
    assert!(used.is_some_and(|used| used <= most), "{used:?}");
}

#[tokio::test]
async fn certificates_are_checked_with_what_the_system_trusts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(ca, key()).expect("a CA");
    let own = key();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&own, &issuer).expect("a certificate");
    let (chain, own) = (vec![leaf.der().clone()], own.serialize_der());
    let own = rustls::pki_types::PrivateKeyDer::Pkcs8(own.into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, own)
        .expect("a certificate");
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, issuer.pem()).expect("written");
    let roots = ("SSL_CERT_FILE", roots.to_str().expect("UTF-8"));
    let server = TR50D.serve(&dir.path().join("data"), &[PRIVATE, roots]);
    let mut receiver = Receiver::serve(Some(Arc::new(config).into())).await;
    let mut operator = server.operator("http").await;
    // Its address is not in the certificate; its name is.
    hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" })).await;
    let named = format!("https://localhost:{}/", receiver.address.port());
    hook(&mut operator, json!({ "name": "b", "url": named, "types": "role" })).await;
    happens(&mut operator, "first").await;
    assert_eq!(roles(&receiver.next().await), ["first"]);
    eventually("the other one fails", async || {
        state(&mut operator).await["lastFailure"]["cause"] == "tls"
    })
    .await;
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn what_was_removed_before_it_was_sent_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let settings = [PRIVATE, ("TR50D_EVENTS__MAX_BYTES", "16384")];
    let server = TestServer::in_dir(&data_dir, &settings);
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    receiver.answers(&["503 Later\r\nRetry-After: 3600"]);
    hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" })).await;
    happens(&mut operator, "first").await;
    receiver.next().await;
    for number in 0..100 {
        happens(&mut operator, &format!("role-{number}")).await;
    }
    eventually("the oldest are removed", async || {
        let oldest = call(&mut operator, "audit.list", r#"{"sort":"number","limit":1}"#).await;
        oldest["result"][0]["number"].as_u64() > Some(20)
    })
    .await;
    server.stop().await;
    let server = TestServer::in_dir(&data_dir, &settings);
    let told = receiver.next().await.json();
    assert_eq!(told["missed"], true, "{told}");
    let after = told["missedAfter"].as_u64().expect("a number");
    assert!(told["events"][0]["number"].as_u64() > Some(after + 10), "{told}");
    let mut operator = server.operator("http").await;
    happens(&mut operator, "last").await;
    let mut next = receiver.next().await;
    while !roles(&next).contains(&"last".to_owned()) {
        next = receiver.next().await;
    }
    assert_eq!(next.json().get("missed"), None);
    assert_eq!(state(&mut operator).await["missed"], 1);
}

#[tokio::test]
async fn the_example_of_the_documents_verifies() {
    if !wanted() {
        return;
    }
    let server = server();
    let mut operator = server.operator("http").await;
    let mut receiver = Receiver::start().await;
    let made =
        hook(&mut operator, json!({ "name": "a", "url": receiver.url("/"), "types": "role" }))
            .await;
    happens(&mut operator, "first").await;
    let delivery = receiver.next().await;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/webhooks.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let (_, code) = text.split_once("```python\n").expect("an example");
    let (code, _) = code.split_once("```").expect("its end");
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        names.map(|name| (name.to_owned(), delivery.header(name).into())).into_iter().collect();
    for (secret, expected) in [(made["secret"].as_str().expect("text"), "True"), ("wrong", "False")]
    {
        let check = "import json, sys\nprint(verify(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3].encode()))";
        let mut python = std::process::Command::new("python3");
        python.arg("-c").arg(format!("{code}\n{check}"));
        python.args([secret, &serde_json::to_string(&headers).expect("JSON"), &delivery.body]);
        let (status, out, error) = support::process::run(python);
        assert!(status.success(), "{error}");
        assert_eq!(out.trim(), expected, "{secret}");
    }
}
