//! A fleet of 500 devices that speak everything: its listing, its expiry, and users who switch
//! organisations beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::Client;
use client::fleet::{ClientKind, Fleet, Load, Plan, Versions};
use serde_json::{Value, json};
use support::{Endpoints, SOON, TestServer, call, eventually, reply};
use tokio::task::JoinSet;
use tokio::time::timeout;

const DEVICES: usize = 500;
const ORGS: [&str; 3] = ["SYSTEM", "BasicOrg", "YorkOrg"];

/// Devices of BasicOrg that take the listeners in turn, over MQTT its versions and both clients.
async fn fleet(server: &Endpoints, listeners: &[&str], devices: usize) -> Fleet {
    let mut plan = Plan::new(server.thing_url(listeners[0], "-"), devices);
    plan.urls = listeners.iter().map(|listener| server.thing_url(listener, "-")).collect();
    (plan.versions, plan.client) = (Some(Versions::Mix), ClientKind::Mix);
    // Long enough to play no part here, and rumqttc wants one.
    plan.keep_alive_s = 600;
    let fleet = Fleet::connect(&plan).await.expect("a plan that works");
    assert_eq!(fleet.len(), devices, "{}", fleet.report(SOON));
    fleet
}

async fn list(client: &mut Client, params: &Value) -> (u64, Vec<Value>) {
    let list = call(client, "session.list", &params.to_string()).await;
    let count = list["count"].as_u64().expect("a count");
    (count, list["result"].as_array().expect("sessions").clone())
}

fn texts<'a>(sessions: &'a [Value], member: &str) -> Vec<&'a str> {
    sessions.iter().map(|session| session[member].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn a_fleet_of_500_is_listed_and_each_device_exactly_once() {
    let server = TestServer::with(&[("TR50D_SESSIONS__LIST_LIMIT", "200")]);
    let mut fleet = fleet(&server, &["mqtt", "tcp", "http"], DEVICES).await;
    let mut operator = server.operator("mqtt").await;
    let all = DEVICES + 1;

    let (count, newest) = list(&mut operator, &json!({})).await;
    assert_eq!((count, newest.len()), (all as u64, 200));
    assert_eq!(newest[0]["userName"], "operator@basicorg.example", "the newest comes first");
    let (_, more) = list(&mut operator, &json!({"limit": 5000})).await;
    assert_eq!(texts(&more, "ref"), texts(&newest, "ref"), "the limit stays the server's");

    for page in [37, 200] {
        let sessions = pages(&mut operator, page, &json!({})).await;
        assert_eq!(sessions.len(), all, "pages of {page}");
        let times = texts(&sessions, "startTime");
        assert!(times.is_sorted_by(|newer, older| newer >= older), "pages of {page}");
        let oldest_first = json!({"sort": "startTime"});
        let mut reverse = pages(&mut operator, page, &oldest_first).await;
        reverse.reverse();
        assert_eq!(texts(&reverse, "ref"), texts(&sessions, "ref"), "pages of {page}");
        check_keys(&sessions);
    }
    for (protocol, count) in [("mqtt", 168), ("tcp", 167), ("http", 166)] {
        let filter = json!({"protocol": protocol});
        assert_eq!(pages(&mut operator, 200, &filter).await.len(), count, "{protocol}");
    }
    let (count, one) = list(&mut operator, &json!({"thingKey": "fleet-123"})).await;
    assert_eq!((count, &one[0]["thingKey"]), (1, &json!("fleet-123")));
    let (count, none) = list(&mut operator, &json!({"offset": all})).await;
    assert_eq!((count, none.len()), (all as u64, 0));

    for (number, own) in fleet.call_all("session.info", None).await.iter().enumerate() {
        let own: Value = own.as_ref().expect("a reply").params().expect("JSON");
        assert_eq!(own["thingKey"], format!("fleet-{number}"));
        assert_eq!(own["connInfo"]["protocol"], ["mqtt", "tcp", "http"][number % 3]);
    }
    let mut load = Load::command("session.list", Some("{\"limit\":3}"), Duration::from_millis(300))
        .expect("JSON");
    load.rate = 1000.0;
    let report = fleet.run(&load).await;
    assert!(report.is_clean(), "{report}");

    fleet.close().await;
    eventually("only the operator is left", async || list(&mut operator, &json!({})).await.0 == 1)
        .await;
    let (ended, _) = list(&mut operator, &json!({"status": "LOGGED_OUT"})).await;
    assert_eq!(ended, DEVICES as u64);
}

/// All sessions, page by page.
async fn pages(client: &mut Client, page: usize, params: &Value) -> Vec<Value> {
    let mut sessions = Vec::new();
    loop {
        let mut params = params.clone();
        params["offset"] = json!(sessions.len());
        params["limit"] = json!(page);
        let (count, found) = list(client, &params).await;
        assert!(found.len() <= page);
        let end = found.is_empty();
        sessions.extend(found);
        if end {
            assert_eq!(count, sessions.len() as u64);
            return sessions;
        }
    }
}

/// Every device of the fleet once, and the operator once.
fn check_keys(sessions: &[Value]) {
    let refs: BTreeSet<&str> = texts(sessions, "ref").into_iter().collect();
    assert_eq!(refs.len(), sessions.len(), "a session is listed twice");
    let keys: BTreeSet<&str> =
        sessions.iter().filter_map(|session| session["thingKey"].as_str()).collect();
    let expected: Vec<String> = (0..DEVICES).map(|number| format!("fleet-{number}")).collect();
    assert_eq!(keys, expected.iter().map(String::as_str).collect());
    assert_eq!(sessions.iter().filter(|session| session["userName"].is_string()).count(), 1);
}

#[tokio::test]
async fn users_switch_organisations_beside_a_fleet() {
    const USERS: usize = 9;
    const SWITCHES: usize = 30;
    const THINGS: usize = 60;
    let server = TestServer::start();
    let mut fleet = fleet(&server, &["mqtt", "tcp", "http"], THINGS).await;
    let mut stays = server.operator("tcp").await;
    let mut users = JoinSet::new();
    for number in 0..USERS {
        let listener = ["mqtt", "tcp", "http"][number % 3];
        let mut user = server.admin(listener).await;
        users.spawn(async move {
            for step in 0..=SWITCHES {
                let org = ORGS[(number + step) % ORGS.len()];
                call(&mut user, "session.org.switch", &json!({"key": org}).to_string()).await;
                let own = call(&mut user, "session.info", "").await;
                assert_eq!(own["orgKey"], org);
                let (_, sessions) = list(&mut user, &json!({})).await;
                let listed = texts(&sessions, "ref").contains(&own["ref"].as_str().expect("a ref"));
                assert!(listed, "the listing after a switch shows the caller");
                assert!(sessions.iter().all(|session| session["orgKey"] == org));
            }
            let own = call(&mut user, "session.info", "").await;
            let switches = own["orgSwitches"].as_array().expect("switches");
            let keys = texts(switches, "orgKey");
            let expected: Vec<_> = (0..=SWITCHES).map(|step| ORGS[(number + step) % 3]).collect();
            assert_eq!(keys, expected);
            assert!(texts(switches, "ts").is_sorted());
            assert!(
                switches.iter().all(|switch| switch["orgId"].as_str().map(str::len) == Some(24))
            );
            user
        });
    }
    // All the while, devices can't switch, and the number of those that stay is right.
    for answer in fleet.call_all("session.org.switch", Some(r#"{"key":"YorkOrg"}"#)).await {
        assert!(!answer.expect("a reply").success());
    }
    let mut users = users.join_all().await;

    let mut everybody = BTreeMap::new();
    let mut observer = server.admin("mqtt").await;
    for org in ORGS {
        call(&mut observer, "session.org.switch", &json!({"key": org}).to_string()).await;
        let (count, sessions) = list(&mut observer, &json!({})).await;
        assert_eq!(count, sessions.len() as u64, "{org}");
        for session in sessions {
            assert_eq!(session["orgKey"], org);
            let reference = session["ref"].as_str().expect("a ref").to_owned();
            everybody.entry(reference).or_insert_with(Vec::new).push(org);
        }
    }
    let observer = call(&mut observer, "session.info", "").await;
    let seen = everybody.remove(observer["ref"].as_str().expect("a ref"));
    assert_eq!(seen.as_deref(), Some(&ORGS[..]), "the observer was everywhere");
    assert!(everybody.values().all(|orgs| orgs.len() == 1), "a session in two organisations");
    assert_eq!(everybody.len(), THINGS + USERS + 1);
    for (number, user) in users.iter_mut().enumerate() {
        let own = call(user, "session.info", "").await;
        let org = ORGS[(number_of(&own) + SWITCHES) % ORGS.len()];
        assert_eq!(everybody[own["ref"].as_str().expect("a ref")], [org], "user {number}");
    }
    let (count, _) = list(&mut stays, &json!({"kind": "application"})).await;
    assert_eq!(count, THINGS as u64);
    let nowhere = reply(&mut stays, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    assert_eq!(nowhere["errorCodes"][0], -90008, "{nowhere}");
    assert_eq!(call(&mut stays, "session.info", "").await["orgKey"], "BasicOrg");
}

/// Which of [`ORGS`] a user switched to first.
fn number_of(session: &Value) -> usize {
    let first = &session["orgSwitches"][0]["orgKey"];
    ORGS.iter().position(|org| first == org).expect("one of the three")
}

#[tokio::test]
async fn devices_of_one_organisation_are_not_seen_in_another() {
    let server = TestServer::start();
    let basic = fleet(&server, &["mqtt", "tcp"], 20).await;
    let mut plan = Plan::new(server.url("mqtt", "-", "demo-token-yorkorg"), 15);
    // The same thing keys: they are different things.
    plan.urls.push(server.url("http", "-", "demo-token-yorkorg"));
    let mut york = Fleet::connect(&plan).await.expect("a plan that works");
    for answer in york.call_all("session.list", None).await {
        let list: Value = answer.expect("a reply").params().expect("JSON");
        assert_eq!(list["count"], 15);
        let sessions = list["result"].as_array().expect("sessions");
        assert!(sessions.iter().all(|session| session["orgKey"] == "YorkOrg"));
    }
    let mut operator = server.operator("http").await;
    assert_eq!(list(&mut operator, &json!({})).await.0, 21);
    york.close().await;
    basic.close().await;
}

#[tokio::test]
async fn a_whole_fleet_that_is_idle_expires_at_once() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "1")]);
    // Connections are closed when their sessions expire, so nobody has to ask.
    let mut bound = fleet(&server, &["mqtt", "tcp"], DEVICES - 100).await;
    let mut plan = Plan::new(server.thing_url("http", "-"), 100);
    plan.key_prefix = "http-".to_owned();
    let mut unbound = Fleet::connect(&plan).await.expect("a plan that works");
    for device in bound.devices_mut() {
        timeout(SOON, device.closed()).await.expect("an idle connection is never closed");
    }
    let mut operator = server.operator("tcp").await;
    eventually("only the operator is left", async || list(&mut operator, &json!({})).await.0 == 1)
        .await;
    for answer in unbound.call_all("diag.ping", None).await {
        assert_eq!(answer.expect("a reply").error_codes(), [-90000]);
    }
    let (count, expired) =
        list(&mut operator, &json!({"status": "EXPIRED", "kind": "application"})).await;
    assert_eq!((count, expired.len()), (DEVICES as u64, DEVICES));
    for session in &expired {
        assert_eq!(session["endReason"], "idle", "{session}");
        assert!(session["endTime"].as_str() > session["lastAccessed"].as_str(), "{session}");
    }
}

#[tokio::test]
async fn whoever_gives_a_sign_of_life_does_not_expire() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "3")]);
    let mut plan = Plan::new(server.thing_url("mqtt", "-"), 30);
    plan.versions = Some(Versions::Mix);
    // Only pings: they are signs of life, not commands.
    plan.keep_alive_s = 2;
    let mut pinging = Fleet::connect(&plan).await.expect("a plan that works");
    plan.urls = vec![server.thing_url("tcp", "-"), server.thing_url("http", "-")];
    plan.key_prefix = "busy-".to_owned();
    let mut busy = Fleet::connect(&plan).await.expect("a plan that works");
    let mut silent = server.thing("tcp", "silent").await;
    let hold = Load::idle(Duration::from_millis(4500));
    let mut work = Load::command("diag.ping", None, hold.duration).expect("JSON");
    work.rate = 150.0;
    let (held, worked, ()) = tokio::join!(pinging.run(&hold), busy.run(&work), silent.closed());
    assert!(held.is_clean() && worked.is_clean(), "{held}{worked}");
    assert_eq!((pinging.len(), busy.len()), (30, 30));
    let mut operator = server.operator("tcp").await;
    let (count, _) = list(&mut operator, &json!({"kind": "application"})).await;
    assert_eq!(count, 60);
}

#[tokio::test]
async fn devices_answer_the_methods_that_others_have_them_execute() {
    let server = TestServer::start();
    let mut plan = Plan::new(server.thing_url("mqtt", "-"), 20);
    plan.versions = Some(Versions::Mix);
    let mut load = Load::methods(2, Duration::from_millis(500));
    load.window = 5;
    plan.check_load(&load).expect("a load that works");
    let mut fleet = Fleet::connect(&plan).await.expect("a plan that works");
    let report = fleet.run(&load).await;
    assert!(report.is_clean(), "{report}");
    let mail = report.mail.expect("mails");
    assert!(mail.fetched > 0 && mail.fetched == report.commands.sent, "{mail:?}");
    assert_eq!(fleet.len(), 20);
    fleet.close().await;
}

#[tokio::test]
async fn devices_move_files_there_and_back() {
    let server = TestServer::start();
    let http = server.thing_url("http", "-");
    for dialect in ["mqtt", "tcp", "http"] {
        let plan = Plan::new(server.thing_url(dialect, "-"), 5);
        let load = Load::files(300_000, &http, Duration::from_millis(500)).await;
        let load = load.expect("a URL of HTTP");
        plan.check_load(&load).expect("a load that works");
        let mut fleet = Fleet::connect(&plan).await.expect("a plan that works");
        let report = fleet.run(&load).await;
        assert!(report.is_clean(), "{report}");
        let files = report.files.clone().expect("files");
        assert!(files.moved >= 10 && files.moved == 2 * report.commands.answered, "{report}");
        assert!(report.to_string().contains("\nfiles        "), "{report}");
        assert_eq!(fleet.len(), 5);
        fleet.close().await;
    }
    let mqtt = server.thing_url("mqtt", "-");
    let refused = Load::files(1, &mqtt, Duration::from_secs(1)).await.expect_err("not over MQTT");
    assert!(refused.to_string().starts_with("files need a URL of HTTP"), "{refused}");
}
