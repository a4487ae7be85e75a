//! `session.explain`: which role, flag or membership gives a right, or what takes it away, over every
//! door, and as it is at that moment. That it never says anything else than what happens is in
//! `permissions`.

use client::Client;
use serde_json::{Value, json};
use support::{Endpoints, TestServer, call, connect, reply};

const VIEWER: &str = "viewer@basicorg.example";
const VIEWERS: &str = "demo-viewer-password";

async fn explain(client: &mut Client, params: Value) -> Value {
    call(client, "session.explain", &params.to_string()).await
}

/// The kinds of the reasons, those that deny with a "!" before them.
fn kinds(told: &Value) -> Vec<String> {
    let reasons = told["reasons"].as_array().expect("reasons");
    let kind = |reason: &Value| {
        let denies = if reason["gives"] == true { "" } else { "!" };
        format!("{denies}{}", reason["kind"].as_str().expect("a kind"))
    };
    reasons.iter().map(kind).collect()
}

async fn viewer(server: &Endpoints, door: &str) -> Client {
    connect(&server.url(door, VIEWER, VIEWERS)).await
}

/// Gives a role to the viewer in an organisation.
async fn give(admin: &mut Client, org: &str, params: Value) {
    call(admin, "session.org.switch", &json!({ "key": org }).to_string()).await;
    let mut params = params;
    params["emailAddress"] = json!(VIEWER);
    call(admin, "user.org.add", &params.to_string()).await;
}

#[tokio::test]
async fn a_role_is_named_over_every_door_with_where_it_is_held() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let role = json!({ "key": "finder", "name": "Finds things", "perms": ["Thing"] });
    call(&mut operator, "role.create", &role.to_string()).await;
    for door in ["mqtt", "tcp", "http"] {
        let mut viewer = viewer(&server, door).await;
        let told = explain(&mut viewer, json!({ "command": "THING.delete" })).await;
        assert_eq!((&told["allowed"], kinds(&told)), (&json!(false), vec!["!noRole".into()]));
        assert_eq!(told.get("roles"), None, "the viewer may list no roles: {told}");
        let session = call(&mut viewer, "session.info", "").await["ref"].clone();
        let of_other = json!({ "ref": session, "command": "thing.delete" });
        let told = explain(&mut operator, of_other.clone()).await;
        let roles = told["roles"].as_array().expect("roles");
        let keys: Vec<_> = roles.iter().map(|role| &role["key"]).collect();
        assert_eq!(keys, ["automation", "developer", "finder"], "{told}");
        assert_eq!(told["whoAmI"], VIEWER);

        let held = json!({ "emailAddress": VIEWER, "roles": ["finder"] }).to_string();
        call(&mut operator, "user.org.update", &held).await;
        for told in [
            explain(&mut operator, of_other).await,
            explain(&mut viewer, json!({ "command": "thing.delete" })).await,
        ] {
            assert_eq!((&told["allowed"], kinds(&told)), (&json!(true), vec!["role".into()]));
            let reason = &told["reasons"][0];
            assert_eq!(reason["role"]["name"], "Finds things", "{told}");
            assert_eq!(
                (&reason["path"], &reason["perms"]),
                (&json!(["BasicOrg"]), &json!(["Thing"]))
            );
        }
        let nothing = json!({ "emailAddress": VIEWER, "roles": [] }).to_string();
        call(&mut operator, "user.org.update", &nothing).await;
    }
}

#[tokio::test]
async fn flags_and_memberships_above_are_told_with_their_path() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    call(&mut admin, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let told = explain(&mut admin, json!({ "command": "thing.delete" })).await;
    assert_eq!(kinds(&told), ["hasSuperAdmin"]);
    let mut operator = server.operator("tcp").await;
    let told = explain(&mut operator, json!({ "command": "session.list" })).await;
    assert_eq!(kinds(&told), ["hasOrgAdmin"]);
    assert_eq!(told["reasons"][0]["path"], json!(["BasicOrg"]));
    let told = explain(&mut operator, json!({ "command": "session.info" })).await;
    assert_eq!(kinds(&told), ["hasOrgAdmin", "everyone"]);

    // A role that is held above reaches down; who asks from below learns no key from above.
    let params = json!({ "roles": ["device"], "allowSubOrgAccess": true });
    give(&mut admin, "SYSTEM", params).await;
    let mut viewer = viewer(&server, "http").await;
    let told = explain(&mut viewer, json!({ "command": "session.list" })).await;
    assert_eq!((&told["allowed"], kinds(&told)), (&json!(true), vec!["role".into()]), "{told}");
    assert_eq!(told["reasons"][0]["path"], json!(["SYSTEM", "BasicOrg"]));
    let session = call(&mut viewer, "session.info", "").await["ref"].clone();
    let asked = json!({ "ref": session, "command": "session.list" });
    let told = explain(&mut operator, asked).await;
    assert_eq!(told["reasons"][0]["path"], json!(["BasicOrg"]), "{told}");
    assert!(!told.to_string().contains("SYSTEM"), "{told}");
}

#[tokio::test]
async fn a_token_and_a_second_factor_that_take_rights_away_are_named() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let made = json!({ "name": "reports", "perms": ["thing.list"] }).to_string();
    let made = call(&mut operator, "user.token.create", &made).await;
    let token = made["token"].as_str().expect("a token");
    let url = server.url("mqtt", "operator@basicorg.example", token);
    let mut narrow = connect(&url).await;
    let told = explain(&mut narrow, json!({ "command": "thing.list" })).await;
    assert_eq!((&told["allowed"], kinds(&told)), (&json!(true), vec!["hasOrgAdmin".into()]));
    let told = explain(&mut narrow, json!({ "command": "thing.delete" })).await;
    assert_eq!(kinds(&told), ["hasOrgAdmin", "!apiToken"]);
    assert_eq!(told["reasons"][1]["tokenId"], made["tokenId"], "{told}");
    let whole = explain(&mut narrow, json!({})).await;
    let taken = whole["limits"][0]["perms"].as_array().expect("a list");
    assert!(taken.contains(&json!("thing.delete")) && !taken.contains(&json!("thing.list")));

    let mut viewer = viewer(&server, "http").await;
    let session = call(&mut viewer, "session.info", "").await["ref"].clone();
    let params = json!({ "emailAddress": VIEWER, "mfaRequired": true }).to_string();
    call(&mut operator, "user.update", &params).await;
    let told = explain(&mut operator, json!({ "ref": session, "command": "session.list" })).await;
    assert_eq!(
        (&told["allowed"], kinds(&told)),
        (&json!(false), vec!["!noRole".into(), "!secondFactor".into()])
    );
    let told = explain(&mut operator, json!({ "ref": session, "command": "session.info" })).await;
    assert_eq!(kinds(&told), ["everyone", "!secondFactor"]);
    // The limit is for itself, too, and says what there is to do.
    let refused = reply(&mut viewer, "session.explain", r#"{"command":"session.info"}"#).await;
    assert_eq!(refused["errorCodes"], json!([-95006]), "{refused}");
}

#[tokio::test]
async fn a_restricted_token_reaches_its_own_thing_and_what_is_bound_to_it() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let made = json!({
        "name": "own", "token": "own-token-of-16ch", "roles": ["device"],
        "autoRegister": true, "restrictAccessToSelf": true,
    });
    call(&mut operator, "app.create", &made.to_string()).await;
    for key in ["child", "other"] {
        call(&mut operator, "thing.create", &json!({ "key": key }).to_string()).await;
    }
    let mut own = connect(&server.url("mqtt", "gateway", "own-token-of-16ch")).await;
    call(&mut own, "thing.bind", r#"{"key":"bound"}"#).await;
    for (key, allowed, kind) in
        [("gateway", true, "thing"), ("bound", true, "thing"), ("other", false, "!ownThing")]
    {
        for command in ["thing.find", "property.publish", "property.history", "property.current"] {
            let told = explain(&mut own, json!({ "command": command, "thingKey": key })).await;
            assert_eq!(told["allowed"], allowed, "{told}");
            assert_eq!(kinds(&told), ["role", kind], "{told}");
        }
    }
    let told = explain(&mut own, json!({ "command": "thing.create" })).await;
    assert_eq!(
        (&told["allowed"], kinds(&told)),
        (&json!(false), vec!["role".into(), "!ownThing".into()])
    );

    // Nothing is published for what is disabled; of what it was, its past is there.
    call(&mut operator, "thing.update", r#"{"key":"bound","disabled":true}"#).await;
    let asked = json!({ "command": "property.publish", "thingKey": "bound" });
    assert_eq!(kinds(&explain(&mut own, asked).await), ["role", "!banned"]);
    let asked = json!({ "command": "property.current", "thingKey": "bound" });
    assert_eq!(explain(&mut own, asked).await["allowed"], true);
}

#[tokio::test]
async fn pasts_of_others_need_thing_list_and_things_of_below_a_switch() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let role = json!({ "key": "reads", "perms": ["property.history", "property.current"] });
    call(&mut operator, "role.create", &role.to_string()).await;
    let made = json!({
        "name": "reader", "token": "reader-token-16ch", "roles": ["reads"],
        "autoRegister": true,
    });
    call(&mut operator, "app.create", &made.to_string()).await;
    call(&mut operator, "thing.create", r#"{"key":"other"}"#).await;
    let mut reader = connect(&server.url("tcp", "reader-1", "reader-token-16ch")).await;
    let asked = json!({ "command": "property.history", "thingKey": "other" });
    let told = explain(&mut reader, asked.clone()).await;
    assert_eq!(kinds(&told), ["role", "!needs"]);
    assert!(told["reasons"][1]["text"].as_str().is_some_and(|text| text.contains("thing.list")));
    let asked_now = json!({ "command": "property.current", "thingKey": "other" });
    assert_eq!(explain(&mut reader, asked_now).await["allowed"], true);
    let role = json!({ "key": "reads", "perms": ["property.history", "thing.list"] });
    call(&mut operator, "role.update", &role.to_string()).await;
    assert_eq!(explain(&mut reader, asked).await["allowed"], true);

    let mut admin = server.admin("http").await;
    let asked = json!({ "command": "thing.delete", "thingKey": "other" });
    let told = explain(&mut admin, asked).await;
    assert_eq!(kinds(&told), ["hasSuperAdmin", "!thing", "!otherOrg"]);
    assert!(told["reasons"][2]["text"].as_str().is_some_and(|text| text.contains("BasicOrg")));
}

#[tokio::test]
async fn topics_what_is_unknown_and_what_is_not_here() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let role = json!({
        "key": "talks", "perms": ["topic.publish"], "topicPublish": ["%thingKey%/#", "news/+"],
    });
    call(&mut operator, "role.create", &role.to_string()).await;
    let made = json!({
        "name": "talker", "token": "talker-token-16ch", "roles": ["talks"],
        "autoRegister": true,
    });
    call(&mut operator, "app.create", &made.to_string()).await;
    let mut talker = connect(&server.url("mqtt", "m-1", "talker-token-16ch")).await;
    for (command, topic, allowed, kind) in [
        ("topic.publish", "m-1/a", true, "topic"),
        ("topic.publish", "news/today", true, "topic"),
        ("topic.publish", "m-2/a", false, "!topic"),
    ] {
        let told = explain(&mut talker, json!({ "command": command, "topic": topic })).await;
        assert_eq!(
            (&told["allowed"], kinds(&told)),
            (&json!(allowed), vec!["role".into(), kind.into()])
        );
    }
    let told = explain(&mut talker, json!({ "command": "topic.subscribe", "topic": "#" })).await;
    assert_eq!(kinds(&told), ["!noRole"]);

    let told = explain(&mut operator, json!({ "command": "thing.fnid" })).await;
    assert_eq!(kinds(&told), ["!unknownCommand"]);
    assert!(told["reasons"][0]["text"].as_str().is_some_and(|text| text.contains("thing.find")));
    let told = explain(&mut operator, json!({ "command": "campaign.start" })).await;
    assert_eq!(kinds(&told), ["!notConfigured"]);
    let told = explain(&mut operator, json!({ "command": "server.log.watch" })).await;
    assert_eq!(kinds(&told), ["hasOrgAdmin", "!needs"]);
    let mistyped = reply(&mut operator, "session.explain", r#"{"comand":"thing.find"}"#).await;
    assert_eq!(mistyped["errorCodes"], json!([-95005]), "{mistyped}");
}

#[tokio::test]
async fn who_may_find_no_session_has_only_own_ones_explained() {
    let server = TestServer::start();
    let mut viewer = viewer(&server, "http").await;
    let mut operator = server.operator("http").await;
    let of_operator = call(&mut operator, "session.info", "").await["ref"].clone();
    for asked in [json!({ "ref": of_operator }), json!({ "ref": "00".repeat(32) })] {
        let refused = reply(&mut viewer, "session.explain", &asked.to_string()).await;
        assert_eq!(refused["errorCodes"], json!([-95006]), "{refused}");
    }
    let own = call(&mut viewer, "session.info", "").await["ref"].clone();
    let whole = explain(&mut viewer, json!({ "ref": own })).await;
    assert_eq!(whole["sources"][0]["kind"], "everyone", "{whole}");
    assert_eq!((&whole["more"], &whole["limits"]), (&json!(false), &json!([])));
    // What another organisation has is nowhere.
    let mut york = connect(&server.url("http", "york-1", "demo-token-yorkorg")).await;
    let foreign = call(&mut york, "session.info", "").await["ref"].clone();
    for asked in [json!({ "ref": foreign }), json!({ "ref": "00".repeat(32) })] {
        let refused = reply(&mut operator, "session.explain", &asked.to_string()).await;
        assert_eq!(refused["errorCodes"], json!([-90008]), "{refused}");
    }
}
