//! Lists for operators: filters, groups and rows of `session.list` and `thing.list`, and what is left
//! of sessions that have ended.

use std::collections::BTreeSet;

use client::Client;
use client::Version::{V5, V31, V311};
use serde_json::{Value, json};
use support::mqtt::Connect;
use support::{TestServer, call, connect, end_reason, eventually, reply};

/// The names of what is listed, in no order, after a look at the count.
async fn names(client: &mut Client, command: &str, params: &str, member: &str) -> BTreeSet<String> {
    let listed = call(client, command, params).await;
    let rows = listed["result"].as_array().expect("rows");
    assert_eq!(listed["count"], rows.len(), "{command} {params}: {listed}");
    let name = |row: &Value| row[member].as_str().expect("a name").to_owned();
    rows.iter().map(name).collect()
}

async fn check(client: &mut Client, params: &str, expected: &[&str]) {
    let found = names(client, "session.list", params, "whoAmI").await;
    let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected, "session.list {params}");
}

async fn check_things(client: &mut Client, params: &str, expected: &[&str]) {
    let found = names(client, "thing.list", params, "key").await;
    let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected, "thing.list {params}");
}

const OPERATOR: &str = "operator@basicorg.example";

#[tokio::test]
async fn sessions_are_found_by_all_that_is_known_of_them() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"pump","name":"Pump"}"#).await;
    let made = r#"{"key":"mower-1","defKey":"pump","tags":["red","big"]}"#;
    call(&mut operator, "thing.create", made).await;
    let mut one = server.thing("mqtt", "mower-1").await;
    let two = server.thing("tcp", "mower-2").await;
    let _web = server.thing("http", "other").await;
    server.thing("mqtt", "left").await.close().await;
    end_reason(&mut operator, "left").await;
    let all = ["mower-1", "mower-2", "other", OPERATOR];
    check(&mut operator, "{}", &all).await;
    for (params, expected) in [
        (r#"{"prefix":"mower-"}"#, &["mower-1", "mower-2"][..]),
        (r#"{"prefix":"MOWER-"}"#, &[]),
        (r#"{"whoAmI":"mower-*"}"#, &["mower-1", "mower-2"]),
        (r#"{"whoAmI":"*-2"}"#, &["mower-2"]),
        (r#"{"whoAmI":"other"}"#, &["other"]),
        (r#"{"query":"OWER demo-app"}"#, &["mower-1", "mower-2"]),
        (r#"{"query":"127.0.0.1 basicorg"}"#, &[OPERATOR]),
        (r#"{"connected":true}"#, &["mower-1", "mower-2"]),
        (r#"{"connected":"false"}"#, &["other", OPERATOR]),
        (r#"{"defKey":"PUMP"}"#, &["mower-1"]),
        (r#"{"defKey":"none"}"#, &[]),
        (r#"{"tags":["red"]}"#, &["mower-1"]),
        (r#"{"tags":"red,blue"}"#, &[]),
        (r#"{"protocol":"tcp","remoteAddr":"127.0.0."}"#, &["mower-2"]),
        (r#"{"remoteAddr":"128."}"#, &[]),
        (r#"{"lastSeenAfter":"2001-01-01T00:00:00Z"}"#, &all),
        (r#"{"lastSeenBefore":"2001-01-01T00:00:00Z"}"#, &[]),
        (r#"{"idleLongerThan":3600}"#, &[]),
        (r#"{"show":["live"]}"#, &all),
    ] {
        check(&mut operator, params, expected).await;
    }
    let ended = |params: &str| format!(r#"{{"thingKey":"left",{params}}}"#);
    for params in [
        r#""show":"ended""#,
        r#""endReason":"logged_out""#,
        r#""endReason":["keep_alive","LOGGED_OUT"],"status":"ALL""#,
        r#""endedAfter":"2001-01-01T00:00:00Z""#,
        r#""status":"ENDED","sort":"-endTime""#,
        r#""show":["all"],"connected":false"#,
    ] {
        eventually(params, async || {
            call(&mut operator, "session.list", &ended(params)).await["count"] == 1
        })
        .await;
    }
    check(&mut operator, &ended(r#""endedBefore":"2001-01-01T00:00:00Z""#), &[]).await;
    check(&mut operator, &ended(r#""endReason":"revoked""#), &[]).await;
    // Another definition counts at once, for sessions that are there.
    call(&mut operator, "thing_def.create", r#"{"key":"valve","name":"Valve"}"#).await;
    let change = r#"{"thingKey":"mower-1","newDefKey":"valve"}"#;
    call(&mut operator, "thing.def.change", change).await;
    check(&mut operator, r#"{"defKey":"pump"}"#, &[]).await;
    check(&mut operator, r#"{"defKey":"valve"}"#, &["mower-1"]).await;
    for wrong in [r#"{"groupBy":"colour"}"#, r#"{"endReason":"tired"}"#, r#"{"protocol":"x"}"#] {
        let failure = reply(&mut operator, "session.list", wrong).await;
        assert_eq!(failure["success"], false, "{wrong}");
    }
    one.call("diag.ping", None).await.expect("it lives");
    drop(two);
}

async fn grouped(client: &mut Client, command: &str, by: &str, more: &str) -> (Value, Value) {
    let params = format!(r#"{{"groupBy":"{by}"{more}}}"#);
    let groups = call(client, command, &params).await;
    (groups["count"].clone(), groups["result"].clone())
}

#[tokio::test]
async fn sessions_and_things_are_counted_in_groups() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"pump","name":"Pump"}"#).await;
    call(&mut operator, "thing.create", r#"{"key":"m-1","defKey":"pump"}"#).await;
    let _one = server.thing("mqtt", "m-1").await;
    let _two = server.thing("mqtt", "m-2").await;
    server.thing("tcp", "gone").await.close().await;
    end_reason(&mut operator, "gone").await;
    let protocols = json!([{"protocol":"mqtt","count":2},{"protocol":"http","count":1}]);
    assert_eq!(grouped(&mut operator, "session.list", "protocol", "").await, (json!(3), protocols));
    let applications = json!([{"application":"demo-app","count":2},{"application":null,"count":1}]);
    assert_eq!(
        grouped(&mut operator, "session.list", "application", "").await,
        (json!(3), applications)
    );
    let only = r#","prefix":"m-""#;
    let (count, groups) = grouped(&mut operator, "session.list", "definition", only).await;
    assert_eq!(count, 2);
    let groups: BTreeSet<_> =
        groups.as_array().expect("groups").iter().map(Value::to_string).collect();
    let expected = [json!({"definition":"pump","count":1}), json!({"definition":null,"count":1})];
    assert_eq!(groups, expected.iter().map(Value::to_string).collect());
    let (count, _) = grouped(&mut operator, "session.list", "reason", r#","show":"ended""#).await;
    assert_eq!(count, 1);
    let (count, groups) = grouped(&mut operator, "thing.list", "protocol", "").await;
    assert_eq!((count, &groups[0]), (json!(3), &json!({"protocol":"mqtt","count":2})));
    let (_, groups) = grouped(&mut operator, "thing.list", "definition", "").await;
    assert!(groups.to_string().contains(r#""pump""#), "{groups}");
    // As many groups as are wanted, of all that are counted.
    for (command, count) in [("session.list", 3), ("thing.list", 3)] {
        let all = grouped(&mut operator, command, "protocol", "").await.1;
        for (page, at) in [(r#","limit":1"#, 0), (r#","limit":1,"offset":1"#, 1)] {
            let (counted, groups) = grouped(&mut operator, command, "protocol", page).await;
            assert_eq!((counted, groups), (json!(count), json!([all[at]])), "{command} {page}");
        }
    }
}

#[tokio::test]
async fn things_are_found_by_how_they_are_connected() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "thing_def.create", r#"{"key":"pump","name":"Pump"}"#).await;
    call(&mut operator, "thing.create", r#"{"key":"never","defKey":"pump"}"#).await;
    let mut gateway = server.thing("mqtt", "m-1").await;
    call(&mut gateway, "thing.bind", r#"{"key":"sensor"}"#).await;
    let _two = server.thing("tcp", "m-2").await;
    server.thing("mqtt", "gone").await.close().await;
    eventually("gone", async || {
        call(&mut operator, "thing.list", r#"{"connected":false}"#).await["count"] == 2
    })
    .await;
    for (params, expected) in [
        (r#"{"connected":false}"#, &["gone", "never"][..]),
        (r#"{"connected":true}"#, &["m-1", "m-2", "sensor"]),
        (r#"{"prefix":"m-"}"#, &["m-1", "m-2"]),
        (r#"{"prefix":"m-1"}"#, &["m-1"]),
        (r#"{"whoAmI":"*e*"}"#, &["gone", "never", "sensor"]),
        (r#"{"whoAmI":"m-*","protocol":"tcp"}"#, &["m-2"]),
        (r#"{"defKey":"pump"}"#, &["never"]),
        (r#"{"defKey":"none"}"#, &[]),
        (r#"{"remoteAddr":"127.0.0.1:","protocol":"mqtt"}"#, &["m-1", "sensor"]),
        (r#"{"lastSeenAfter":"2001-01-01T00:00:00Z"}"#, &["gone", "m-1", "m-2", "sensor"]),
        (r#"{"lastSeenBefore":"2001-01-01T00:00:00Z"}"#, &["never"]),
        (r#"{"idleLongerThan":3600}"#, &["never"]),
        (r#"{"endReason":"logged_out"}"#, &["gone"]),
        (r#"{"endedAfter":"2001-01-01T00:00:00Z"}"#, &["gone"]),
        (r#"{"connected":false,"sort":"-lastSeen"}"#, &["gone", "never"]),
        (r#"{"query":"M-"}"#, &["m-1", "m-2"]),
        (r#"{"query":"e","connected":false}"#, &["gone", "never"]),
        (r#"{"query":"key:e*r","defKey":"pump"}"#, &["never"]),
        (r#"{"query":" ","prefix":"m-1"}"#, &["m-1"]),
        (r#"{"connected":false,"iterator":"new"}"#, &["gone", "never"]),
    ] {
        if params.contains("iterator") {
            let listed = call(&mut operator, "thing.list", params).await;
            assert_eq!(listed["count"], 2, "{listed}");
            continue;
        }
        check_things(&mut operator, params, expected).await;
    }
    let sorted = r#"{"sort":"-key","show":["key"],"connected":true}"#;
    let listed = call(&mut operator, "thing.list", sorted).await;
    assert_eq!(listed["result"], json!([{"key":"sensor"},{"key":"m-2"},{"key":"m-1"}]));
    // By what sessions are sorted by, and by what is shown only if it is named.
    for (sort, first) in [
        ("whoAmI", "gone"),
        ("-whoami", "sensor"),
        ("-endTime", "gone"),
        ("endTime", "m-1"),
        ("-endReason", "gone"),
        ("lastAccessed", "never"),
        ("alarmsRaised", "gone"),
        ("-alarmState", "m-2"),
    ] {
        if sort.contains("alarm") {
            let state = r#"{"thingKey":"m-2","key":"hot","state":3}"#;
            call(&mut operator, "alarm.publish", state).await;
        }
        let params = json!({ "sort": sort, "show": ["key"], "limit": 1 }).to_string();
        let listed = call(&mut operator, "thing.list", &params).await;
        assert_eq!(listed["result"], json!([{ "key": first }]), "{sort}");
    }
    let wrong = reply(&mut operator, "thing.list", r#"{"sort":"colour"}"#).await;
    assert_eq!(wrong["errorCodes"], json!([-95005]), "{wrong}");
}

#[tokio::test]
async fn rows_say_how_a_client_is_connected_and_what_came_and_went() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut clients = Vec::new();
    for (version, key) in [(V31, "a"), (V311, "b"), (V5, "c")] {
        let connect = Connect { keep_alive_s: 77, ..Connect::thing(version, key).id("cloud") };
        clients.push(connect.open(&server).await);
    }
    let row = async |operator: &mut Client, key: &str| {
        let params = format!(r#"{{"thingKey":"{key}"}}"#);
        call(operator, "session.list", &params).await["result"][0].clone()
    };
    for (key, version) in [("a", "3.1"), ("b", "3.1.1"), ("c", "5")] {
        // What went out counts when it is written, which the client may see before.
        eventually("its CONNACK counts", async || {
            row(&mut operator, key).await["bytesOut"].as_u64() >= Some(4)
        })
        .await;
        let row = row(&mut operator, key).await;
        assert_eq!(row["mqttVersion"], version, "{row}");
        assert_eq!((&row["keepAlive"], &row["clientId"]), (&json!(77), &json!("cloud")));
        assert!(row["bytesIn"].as_u64() > Some(10), "{row}");
        assert_eq!((&row["messagesIn"], &row["outbox"]), (&json!(0), &json!(0)));
        assert!(row["lastSeen"].as_str() >= row["startTime"].as_str());
    }
    let mut device = server.thing("tcp", "d").await;
    for _ in 0..3 {
        call(&mut device, "diag.ping", "").await;
    }
    let found = row(&mut operator, "d").await;
    // The login's line and its reply count, too.
    assert_eq!((&found["messagesIn"], &found["messagesOut"]), (&json!(4), &json!(4)), "{found}");
    assert_eq!(found.get("mqttVersion"), None);
    let mut device = server.thing("mqtt", "e").await;
    for _ in 0..3 {
        call(&mut device, "diag.ping", "").await;
    }
    let found = row(&mut operator, "e").await;
    assert_eq!((&found["messagesIn"], &found["messagesOut"]), (&json!(3), &json!(3)), "{found}");
    device.close().await;
    // What has ended keeps the figures.
    let params = r#"{"thingKey":"e","status":"ENDED"}"#;
    eventually("it has ended", async || {
        call(&mut operator, "session.list", params).await["count"] == 1
    })
    .await;
    let ended = call(&mut operator, "session.list", params).await["result"][0].clone();
    assert_eq!((&ended["messagesIn"], ended.get("outbox")), (&json!(3), None), "{ended}");
    // The client id is a secret of the application: others than administrators do not see it.
    let mut other = connect(&server.url("http", "f", "demo-token-basicorg")).await;
    let seen = row(&mut other, "a").await;
    assert_eq!((seen.get("clientId"), &seen["mqttVersion"]), (None, &json!("3.1")));
    let listed = call(&mut other, "session.list", r#"{"appId":"cloud"}"#).await;
    assert_eq!(listed["count"], 0);
    let listed = call(&mut operator, "session.list", r#"{"appId":"cloud"}"#).await;
    assert_eq!(listed["count"], 3);
    drop(clients);
}

#[tokio::test]
async fn a_stop_is_one_event_with_a_count_and_pushes_nobody_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("TR50D_SESSIONS__HISTORY_MAX", "4")];
    let server = TestServer::in_dir(dir.path(), &settings);
    let mut operator = server.operator("http").await;
    for key in ["left-1", "left-2", "left-3"] {
        server.thing("mqtt", key).await.close().await;
    }
    eventually("they have left", async || {
        call(&mut operator, "session.list", r#"{"show":"ended"}"#).await["count"] == 3
    })
    .await;
    let mut bound = Vec::new();
    for number in 0..7 {
        bound.push(server.thing("tcp", &format!("here-{number}")).await);
    }
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &settings);
    let mut operator = server.operator("http").await;
    check(&mut operator, r#"{"endReason":"logged_out"}"#, &["left-1", "left-2", "left-3"]).await;
    let stopped = call(&mut operator, "session.list", r#"{"endReason":"server_stopped"}"#).await;
    assert_eq!(stopped["count"], 1, "as many as there is room for: {stopped}");
    let trail = call(&mut operator, "audit.list", "{}").await;
    let stops: Vec<_> = trail["result"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|event| event["command"] == "server.stop")
        .collect();
    assert_eq!(stops.len(), 1, "{trail}");
    assert_eq!(stops[0]["after"], json!({"sessions": 7}), "{}", stops[0]);
}

#[tokio::test]
async fn a_row_is_the_same_among_others_and_alone() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut things = Vec::new();
    // Names and counts of different lengths.
    let name = |number: usize| format!("mower-{number}{}", "x".repeat(5 * number % 7));
    for (number, listener) in
        ["mqtt", "tcp", "mqtt", "http", "mqtt", "tcp", "http"].into_iter().enumerate()
    {
        let mut thing = server.thing(listener, &name(number)).await;
        for _ in 0..5 * number {
            call(&mut thing, "diag.ping", "").await;
        }
        things.push(thing);
    }
    for (number, at) in [(0, 0), (4, 3)] {
        things.remove(at).close().await;
        end_reason(&mut operator, &name(number)).await;
    }
    for more in [
        "",
        r#","show":["ref","whoAmI","thingKey","connInfo","perms","endTime","endReason","bytesIn"]"#,
        r#","show":["startTime","whoAmI","clientId","startsLastHour","orgSwitches","lastSeen"]"#,
        r#","show":["startsLastHour","whoAmI"],"sort":"whoAmI""#,
    ] {
        let among = format!(r#"{{"kind":"application","status":["ALL"]{more}}}"#);
        let among = call(&mut operator, "session.list", &among).await;
        assert_eq!(among["count"], 7, "{among}");
        for row in among["result"].as_array().expect("rows") {
            let key = row["whoAmI"].as_str().expect("a name");
            let alone = format!(r#"{{"thingKey":"{key}","status":["ALL"]{more}}}"#);
            let alone = call(&mut operator, "session.list", &alone).await;
            assert_eq!(alone["result"], json!([row]), "{more}");
        }
    }
}
