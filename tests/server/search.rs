//! `search.omni`: who finds what, in which order, and what hostile queries get.

use client::Client;
use serde_json::{Value, json};
use support::{Endpoints, TestServer, call, connect, eventually, reply};

const VIEWER: &str = "viewer@basicorg.example";
const PASSWORD: &str = "demo-viewer-password";
const OPERATOR: &str = "operator@basicorg.example";

async fn search(client: &mut Client, params: Value) -> Value {
    call(client, "search.omni", &params.to_string()).await
}

/// What is found: type, organisation, match, field and name or key of each.
async fn found(client: &mut Client, query: &str) -> Vec<String> {
    let told = search(client, json!({ "query": query })).await;
    let rows = told["result"].as_array().expect("a list");
    assert_eq!(told["count"], rows.len(), "{told}");
    rows.iter().map(line).collect()
}

fn line(row: &Value) -> String {
    let text = |member: &str| row[member].as_str().unwrap_or_default().to_owned();
    let name = if row["key"].is_string() { text("key") } else { text("name") };
    let parts = [text("_type"), text("orgKey"), text("match"), text("field"), name];
    parts.join(" ")
}

async fn viewer(server: &Endpoints) -> Client {
    connect(&server.url("http", VIEWER, PASSWORD)).await
}

async fn make_thing(client: &mut Client, key: &str, more: Value) {
    let mut params = json!({ "key": key, "defKey": "default", "name": key });
    params.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    params.as_object_mut().expect("an object").remove("defKey");
    call(client, "thing.create", &params.to_string()).await;
}

#[tokio::test]
async fn things_are_ranked_by_how_much_of_what_matches() {
    let server = TestServer::start();
    let mut operator = server.operator("mqtt").await;
    for (key, more) in [
        ("Mower", json!({"name": "The green one", "imei": "356938035643809"})),
        ("mower-2", json!({"name": "Mower, second", "iccid": "8949020000012345678F"})),
        ("mower-10", json!({"tags": ["field north", "MOWER"]})),
        ("lawn-mower", json!({"name": "Straße 7", "secTags": ["hidden"]})),
        ("zebra", json!({"name": "Ärger im Büro", "desc": "no mower"})),
    ] {
        make_thing(&mut operator, key, more).await;
    }
    let mut check = async |query: &str, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|e| format!("thing BasicOrg {e}")).collect();
        assert_eq!(found(&mut operator, query).await, expected, "{query}");
    };
    check(
        "MOWER",
        &["exact key Mower", "exact tags mower-10", "prefix key mower-2", "part key lawn-mower"],
    )
    .await;
    check("mower-*", &["prefix key mower-10", "prefix key mower-2"]).await;
    check("356938035643809", &["exact imei Mower"]).await;
    check("8949020000012345678f", &["exact iccid mower-2"]).await;
    check("5678", &["part iccid mower-2"]).await;
    check("green the", &["part name Mower"]).await;
    check("STRASSE 7", &[]).await;
    check("straße", &["prefix name lawn-mower"]).await;
    check("ÄRGER", &["prefix name zebra"]).await;
    // As another system writes it, and with marks that nobody sees.
    check("A\u{308}rger\u{200f} im\u{a0}Bu\u{308}ro\u{202e}", &["exact name zebra"]).await;
    check("hidden", &["exact secTags lawn-mower"]).await;
    // What is looked for is not in one field.
    check("mower north", &["part tags mower-10"]).await;
    // A number is a text.
    let told = search(&mut operator, json!({"query": 356_938_035_643_809_u64})).await;
    assert_eq!(told["count"], 1);

    let told = search(&mut operator, json!({"query": "mower", "limit": "2", "offset": 1})).await;
    let lines: Vec<_> = told["result"].as_array().expect("a list").iter().map(line).collect();
    assert_eq!(lines, ["thing BasicOrg exact tags mower-10", "thing BasicOrg prefix key mower-2"]);
    assert_eq!((&told["count"], &told["more"]), (&json!(4), &json!(true)));
    let told = search(&mut operator, json!({"query": "mower", "offset": 2})).await;
    assert_eq!((&told["count"], &told["more"]), (&json!(4), &json!(false)));

    // Found by what it is now.
    let id = told_id(&mut operator, "mower").await;
    call(&mut operator, "thing.update", r#"{"key":"Mower","name":"red","imei":"1111"}"#).await;
    assert_eq!(found(&mut operator, "356938035643809").await, [""; 0]);
    assert_eq!(found(&mut operator, "red").await, ["thing BasicOrg exact name Mower"]);
    assert_eq!(found(&mut operator, &id).await, ["thing BasicOrg exact id Mower"]);
    assert_eq!(found(&mut operator, &id[..20]).await, [""; 0]);
    call(&mut operator, "thing.delete", r#"{"key":"Mower"}"#).await;
    for query in ["red", &id, "1111"] {
        assert_eq!(found(&mut operator, query).await, [""; 0]);
    }
}

async fn told_id(client: &mut Client, query: &str) -> String {
    let told = search(client, json!({ "query": query, "limit": 1 })).await;
    told["result"][0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn each_type_is_found_by_what_it_is_known_by() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mower = server.thing("tcp", "Mower-1").await;
    call(&mut operator, "thing_def.create", r#"{"key":"mowers","name":"Lawn"}"#).await;
    let person = json!({"emailAddress": "jane@x.example", "password": "a-good-password",
        "firstName": "Jané", "lastName": "Doe", "mobilePhone": "+49 30 1234"});
    call(&mut operator, "user.create", &person.to_string()).await;

    let told = search(&mut operator, json!({"query": "mower"})).await;
    let lines: Vec<_> = told["result"].as_array().expect("a list").iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "thing BasicOrg prefix key Mower-1",
            "session BasicOrg prefix whoAmI Mower-1",
            "thing_def BasicOrg prefix key mowers",
        ]
    );
    assert_eq!(told["counts"], json!({"thing": 1, "session": 1, "thing_def": 1}));
    let (thing, session) = (&told["result"][0], &told["result"][1]);
    assert_eq!((&thing["connected"], &thing["name"]), (&json!(true), &json!("auto:Mower-1")));
    assert_eq!(thing["orgSlug"], "basic-org");
    assert_eq!((&session["kind"], &session["protocol"]), (&json!("application"), &json!("tcp")));
    assert_eq!(
        found(&mut operator, "auto:mower-1").await,
        ["thing BasicOrg exact key Mower-1", "session BasicOrg exact whoAmI Mower-1"]
    );

    let session_of = "session BasicOrg";
    let reference = session["ref"].as_str().expect("a handle").to_owned();
    let by_reference = [format!("{session_of} exact ref Mower-1")];
    assert_eq!(found(&mut operator, &reference).await, by_reference);
    let address = session["remoteAddr"].as_str().expect("an address").to_owned();
    let by_address = [format!("{session_of} exact remoteAddr Mower-1")];
    assert_eq!(found(&mut operator, &address).await, by_address);
    let told = search(&mut operator, json!({"query": "127.0.0.1", "types": "session"})).await;
    assert_eq!((&told["count"], &told["result"][0]["match"]), (&json!(2), &json!("exact")));
    let told = search(&mut operator, json!({"query": "127.0.", "limitPerType": 1})).await;
    assert!(told["count"].is_null() && told["countAtLeast"].is_u64(), "{told}");
    assert_eq!(told["more"], true);
    assert_eq!(told["result"].as_array().map(Vec::len), Some(1));
    drop(mower);
    eventually("the session has ended", async || {
        found(&mut operator, "mower-1").await == ["thing BasicOrg exact key Mower-1"]
    })
    .await;
    // One that ended is found by its handle.
    let told = search(&mut operator, json!({"query": reference})).await;
    assert_eq!(told["result"][0]["status"], "LOGGED_OUT");

    for (query, expected) in [
        ("JANE@", "user BasicOrg prefix emailAddress Jané Doe"),
        ("jane\u{301} doe", "user BasicOrg exact name Jané Doe"),
        ("doe", "user BasicOrg exact lastName Jané Doe"),
        ("30 1234", "user BasicOrg part mobilePhone Jané Doe"),
        ("basic-org", "org BasicOrg exact slug BasicOrg"),
        ("basicorg", "org BasicOrg exact key BasicOrg"),
        ("5cf885f41c5bd771c8065be8", "org BasicOrg exact id BasicOrg"),
        ("5cf885f41c5bd771c8065bf2", "user BasicOrg exact id Plain User"),
        ("demo-app-16", "app BasicOrg exact name demo-app-16"),
        ("lawn", "thing_def BasicOrg exact name mowers"),
    ] {
        let types = json!(["user", "org", "app", "thing_def"]);
        let told = search(&mut operator, json!({"query": query, "types": types})).await;
        assert_eq!(line(&told["result"][0]), expected, "{told}");
    }
    // No secret finds anything.
    for secret in ["demo-token-basicorg", "demo-viewer-password"] {
        assert_eq!(found(&mut operator, secret).await, [""; 0]);
    }
}

/// Nobody learns of what they could not list.
#[tokio::test]
async fn who_may_not_list_finds_oneself_alone() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    let mut operator = server.operator("http").await;
    let mut mower = server.thing("mqtt", "user-mower").await;
    let _york = connect(&server.url("tcp", "user-york", "demo-token-yorkorg")).await;
    let mut viewer_client = viewer(&server).await;
    let two = viewer(&server).await;
    let sessions = [
        "user BasicOrg prefix emailAddress Plain User",
        "session BasicOrg prefix whoAmI viewer@basicorg.example",
    ];
    let told = search(&mut viewer_client, json!({"query": "viewer"})).await;
    let lines: Vec<_> = told["result"].as_array().expect("a list").iter().map(line).collect();
    assert_eq!(lines, [sessions[1], sessions[1], sessions[0]]);
    drop(two);
    for query in ["operator", "user-", "admin", "york", "demo-app", "system"] {
        let told = search(&mut viewer_client, json!({"query": query})).await;
        let none = json!({"count": 0, "more": false, "counts": {}, "result": []});
        assert_eq!(told, none, "{query}");
    }
    // A device finds what its role lists, its own sessions, and its organisation.
    assert_eq!(
        found(&mut mower, "user-").await,
        ["thing BasicOrg prefix key user-mower", "session BasicOrg prefix whoAmI user-mower"]
    );
    // It may list the sessions of the organisation, whose users' addresses have the word, too.
    let basic = found(&mut mower, "basic").await;
    assert_eq!(basic[0], "org BasicOrg prefix key BasicOrg");
    assert!(
        basic[1..].iter().all(|line| line.starts_with("session BasicOrg part whoAmI")),
        "{basic:?}"
    );
    assert_eq!(found(&mut mower, "york").await, [""; 0]);

    // With a right, just what it is for.
    call(&mut operator, "role.create", r#"{"key":"lists","perms":["thing.list"]}"#).await;
    let grant = json!({"emailAddress": VIEWER, "orgId": "5cf885f41c5bd771c8065be8",
        "roles": ["lists"]});
    call(&mut operator, "user.org.update", &grant.to_string()).await;
    assert_eq!(found(&mut viewer_client, "user-").await, ["thing BasicOrg prefix key user-mower"]);
    call(&mut operator, "role.update", r#"{"key":"lists","perms":["session.list"]}"#).await;
    assert_eq!(
        found(&mut viewer_client, "user-").await,
        ["session BasicOrg prefix whoAmI user-mower"]
    );
    call(&mut operator, "role.update", r#"{"key":"lists","perms":["user.list","app.list"]}"#).await;
    assert_eq!(
        found(&mut viewer_client, "operator").await,
        ["user BasicOrg prefix emailAddress Organisation Administrator"]
    );

    // A token that is restricted to its thing lists no things.
    let all = json!({"name": "narrow", "token": "a-token-of-sixteen", "roles": ["all"],
        "autoRegister": true, "restrictAccessToSelf": true});
    let perms = json!({"key": "all", "perms": ["thing", "session", "user", "app"]});
    call(&mut operator, "role.create", &perms.to_string()).await;
    call(&mut operator, "app.create", &all.to_string()).await;
    let mut narrow = connect(&server.url("mqtt", "user-narrow", "a-token-of-sixteen")).await;
    assert_eq!(found(&mut narrow, "user-").await, ["session BasicOrg prefix whoAmI user-narrow"]);
    assert_eq!(
        found(&mut narrow, "127.0.0.1").await,
        ["session BasicOrg exact remoteAddr user-narrow"]
    );

    // The super administrator finds all, whatever organisation the session is in.
    let things = json!({"query": "user-", "types": ["thing"]});
    let told = search(&mut admin, things).await;
    let lines: Vec<_> = told["result"].as_array().expect("a list").iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "thing BasicOrg prefix key user-mower",
            "thing BasicOrg prefix key user-narrow",
            "thing YorkOrg prefix key user-york",
        ]
    );
    let told = search(&mut admin, json!({"query": "viewer@basicorg.example"})).await;
    assert_eq!(told["counts"], json!({"session": 2, "user": 1}));
}

/// An API token finds what its permissions list.
#[tokio::test]
async fn an_api_token_finds_no_more_than_it_may_list() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let _mower = server.thing("tcp", "mower").await;
    let make = json!({"name": "script", "perms": ["thing.list"]});
    let made = call(&mut operator, "user.token.create", &make.to_string()).await;
    let token = made["token"].as_str().expect("a token");
    let mut script = connect(&server.url("mqtt", OPERATOR, token)).await;
    assert_eq!(found(&mut script, "mower").await, ["thing BasicOrg exact key mower"]);
    assert_eq!(found(&mut script, "viewer").await, [""; 0]);
    assert_eq!(found(&mut script, "demo-app").await, [""; 0]);
}

#[tokio::test]
async fn of_who_is_invited_the_address_is_found() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    let anne = json!({"emailAddress": "anne@yorkorg.example", "password": "a-good-password",
        "firstName": "Annemarie", "defaultOrgId": "533ef300310046187700007f"});
    call(&mut admin, "user.create", &anne.to_string()).await;
    assert_eq!(found(&mut operator, "anne").await, [""; 0]);
    call(&mut operator, "user.org.add", r#"{"emailAddress":"anne@yorkorg.example"}"#).await;
    let told = search(&mut operator, json!({"query": "anne"})).await;
    let expected = json!([{"_type": "user", "match": "prefix", "field": "emailAddress",
        "orgId": "5cf885f41c5bd771c8065be8", "orgKey": "BasicOrg", "orgSlug": "basic-org",
        "name": "anne@yorkorg.example", "emailAddress": "anne@yorkorg.example", "pending": true}]);
    assert_eq!(told["result"], expected);
    assert_eq!(found(&mut operator, "annemarie").await, [""; 0]);
    let seen = found(&mut admin, "annemarie").await;
    assert_eq!(seen, ["user YorkOrg exact name Annemarie"]);
}

#[tokio::test]
async fn hostile_queries_find_nothing_and_break_nothing() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    make_thing(&mut operator, "<script>alert(1)", json!({"name": "\u{202e}txt.exe"})).await;
    for query in ["", " ", "*", "** * **", "\u{0}\u{1}\t\n", "\u{202e}\u{200f}\u{feff}", "\u{300}"]
    {
        assert_eq!(found(&mut operator, query).await, [""; 0], "{query:?}");
    }
    let script = ["thing BasicOrg prefix key <script>alert(1)"];
    assert_eq!(found(&mut operator, "<SCRIPT>").await, script);
    for query in ["%", "_", "' OR 1=1 --", "\\", "a\u{0}b", "(((((", "[a-z]", "?", "💥"] {
        assert_eq!(found(&mut operator, query).await, [""; 0], "{query:?}");
    }
    // As long as a query may be, of as many words and wildcards.
    for query in ["a ".repeat(128), "*a".repeat(128), "a*".repeat(128), "x".repeat(256)] {
        assert_eq!(found(&mut operator, &query).await, [""; 0]);
    }
    for query in ["x".repeat(257), "ä".repeat(10_000), "*".repeat(10_000)] {
        let told = reply(&mut operator, "search.omni", &json!({"query": query}).to_string()).await;
        assert_eq!(told["errorCodes"], json!([-95005]));
        assert_eq!(told["errorMessages"][0], "The query has more than 256 bytes.");
    }
    let told = reply(&mut operator, "search.omni", "{}").await;
    assert_eq!(told["errorCodes"], json!([-95004]));
    let told = reply(&mut operator, "search.omni", r#"{"query":"a","types":["trigger"]}"#).await;
    assert_eq!(told["errorCodes"], json!([-95005]));
    let far = json!({"query": "s", "offset": u64::MAX, "limit": u64::MAX});
    let told = search(&mut operator, far).await;
    assert_eq!(told["result"], json!([]));
}

/// In each organisation that a user may work in, with the rights that they have there.
#[tokio::test]
async fn all_organisations_of_the_caller_are_searched() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    for number in 0..30 {
        let org = json!({"key": format!("Branch {number:02}"), "name": "A branch"});
        call(&mut operator, "org.create", &org.to_string()).await;
        let switch = json!({"key": format!("Branch {number:02}")}).to_string();
        call(&mut operator, "session.org.switch", &switch).await;
        make_thing(&mut operator, "pump", json!({"name": format!("Pump {number}")})).await;
        call(&mut operator, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    }
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    make_thing(&mut admin, "pump", json!({})).await;

    let pumps = found(&mut operator, "pump").await;
    let branches: Vec<_> = (0..30).map(|n| format!("thing Branch {n:02} exact key pump")).collect();
    let mut sorted = pumps.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, branches);
    assert_eq!(found(&mut operator, "pump").await, pumps, "the order is stable");
    assert_eq!(found(&mut admin, "pump").await.len(), 31);
    let mut viewer = viewer(&server).await;
    assert_eq!(found(&mut viewer, "pump").await, [""; 0]);
    assert_eq!(found(&mut viewer, "branch").await, [""; 0]);

    // One who has a role in two of them.
    let orgs = call(&mut operator, "org.list", r#"{"show":["id","key"],"limit":2000}"#).await;
    let id = |key: &str| {
        let orgs = orgs["result"].as_array().expect("a list");
        let org = orgs.iter().find(|org| org["key"] == key).expect(key);
        org["id"].as_str().expect("an id").to_owned()
    };
    for key in ["Branch 03", "Branch 07"] {
        let lists = json!({"key": "lists", "perms": ["thing.list"]}).to_string();
        call(&mut operator, "session.org.switch", &json!({ "key": key }).to_string()).await;
        call(&mut operator, "role.create", &lists).await;
        call(&mut operator, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
        let add = json!({"emailAddress": VIEWER, "orgId": id(key),
            "roles": if key.ends_with('3') { vec!["lists"] } else { vec![] }});
        call(&mut operator, "user.org.add", &add.to_string()).await;
    }
    assert_eq!(found(&mut viewer, "pump").await, ["thing Branch 03 exact key pump"]);
    assert_eq!(
        found(&mut viewer, "branch").await,
        ["org Branch 03 prefix key Branch 03", "org Branch 07 prefix key Branch 07",]
    );
}

/// What was found before a restart is found after it.
#[tokio::test]
async fn it_finds_the_same_after_a_restart_and_over_every_door() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut operator = server.operator("mqtt").await;
    for number in 0..300 {
        let more = json!({"name": format!("Häcksler {number}"), "tags": ["yard"]});
        make_thing(&mut operator, &format!("C-{number}"), more).await;
    }
    call(&mut operator, "thing.delete", r#"{"key":"C-7"}"#).await;
    let query = json!({"query": "häcksler", "limit": 200});
    let before = search(&mut operator, query.clone()).await;
    assert_eq!((&before["count"], &before["more"]), (&json!(299), &json!(true)));
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    for door in ["mqtt", "tcp", "http"] {
        let mut operator = server.operator(door).await;
        assert_eq!(search(&mut operator, query.clone()).await, before, "{door}");
    }
}
