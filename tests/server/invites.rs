//! Invitations into other organisations, and who administers a user who has accepted one.

use base::limits::INVITES_PER_USER_MAX;
use client::Client;
use serde_json::{Value, json};
use support::http::exchange;
use support::{Endpoints, Hands, TestServer, call, connect, eventually, reply};

const BASIC: &str = "5cf885f41c5bd771c8065be8";
const YORK: &str = "533ef300310046187700007f";
const ANNE: &str = r#"{"emailAddress":"anne@yorkorg.example"}"#;
const TO_ANNE: &str = "anne@yorkorg.example";
const PASSWORD: &str = "a-good-password";

fn code(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

/// A user of YorkOrg.
async fn make(admin: &mut Client, email: &str, membership: Option<Value>) {
    let user = json!({"emailAddress": email, "password": PASSWORD, "defaultOrgId": YORK});
    call(admin, "user.create", &user.to_string()).await;
    if let Some(mut membership) = membership {
        membership["emailAddress"] = email.into();
        membership["orgId"] = YORK.into();
        call(admin, "user.org.add", &membership.to_string()).await;
    }
}

async fn user(server: &Endpoints, email: &str) -> Client {
    connect(&server.url("http", email, PASSWORD)).await
}

async fn invites(client: &mut Client) -> u64 {
    let listed = call(client, "user.invite.list", "").await;
    listed["count"].as_u64().expect("a number")
}

/// Whether the operator sees that Anne is invited.
async fn is_pending(operator: &mut Client) -> bool {
    let listed = call(operator, "user.list", r#"{"show":["emailAddress","pending"]}"#).await;
    let rows = listed["result"].as_array().expect("a list");
    rows.contains(&json!({"emailAddress": TO_ANNE, "pending": true}))
}

#[tokio::test]
async fn an_invitation_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    make(&mut admin, TO_ANNE, None).await;
    let offer = json!({"emailAddress": TO_ANNE, "roles": ["developer"], "tags": ["north"]});
    call(&mut operator, "user.org.add", &offer.to_string()).await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    let (mut anne, mut operator) = (user(&server, TO_ANNE).await, server.operator("http").await);
    assert!(is_pending(&mut operator).await);
    assert_eq!(invites(&mut anne).await, 1);
    call(&mut anne, "user.invite.accept", "").await;
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    let (mut anne, mut operator) = (user(&server, TO_ANNE).await, server.operator("http").await);
    assert!(!is_pending(&mut operator).await);
    assert_eq!(invites(&mut anne).await, 0);
    call(&mut anne, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let info = call(&mut anne, "session.info", "").await;
    assert_eq!(info["roleKeys"], json!(["developer"]));
}

#[tokio::test]
async fn an_invitation_ends_with_what_it_comes_from() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    make(&mut admin, TO_ANNE, None).await;
    let mut anne = user(&server, TO_ANNE).await;

    // A role that is gone is left out.
    call(&mut operator, "role.create", r#"{"key":"brief","perms":["thing.list"]}"#).await;
    let offer = json!({"emailAddress": TO_ANNE, "roles": ["brief", "developer"]}).to_string();
    call(&mut operator, "user.org.add", &offer).await;
    call(&mut operator, "role.delete", r#"{"key":"brief"}"#).await;
    let listed = call(&mut anne, "user.invite.list", "").await;
    assert_eq!(listed["result"][0]["roles"], json!(["developer"]));

    // So is an invitation whose inviter may not give it any more, as long as that is so.
    let mut demote = json!({"emailAddress": "operator@basicorg.example", "orgId": BASIC});
    for (is_admin, count) in [(false, 0), (true, 1)] {
        demote["isOrgAdmin"] = is_admin.into();
        call(&mut admin, "user.org.update", &demote.to_string()).await;
        assert_eq!(invites(&mut anne).await, count);
        let accepted = reply(&mut anne, "user.invite.accept", r#"{"orgKey":"YorkOrg"}"#).await;
        assert_eq!(code(&accepted), -90008);
    }
    assert!(is_pending(&mut operator).await);
    call(&mut anne, "user.invite.accept", "").await;
    call(&mut operator, "user.org.remove", ANNE).await;

    // And that of an organisation that is gone.
    let meadow = call(&mut operator, "org.create", r#"{"key":"Meadow"}"#).await["id"].clone();
    let offer = json!({"emailAddress": TO_ANNE, "orgId": meadow}).to_string();
    call(&mut operator, "user.org.add", &offer).await;
    assert_eq!(invites(&mut anne).await, 1);
    call(&mut operator, "org.delete", r#"{"key":"Meadow"}"#).await;
    assert_eq!(invites(&mut anne).await, 0);

    // With the user the invitation goes.
    call(&mut operator, "user.org.add", ANNE).await;
    assert!(is_pending(&mut operator).await);
    call(&mut admin, "user.delete", ANNE).await;
    assert!(!is_pending(&mut operator).await);
    assert_eq!(code(&reply(&mut operator, "user.org.remove", ANNE).await), -90008);
}

#[tokio::test]
async fn who_administers_the_home_administers_the_user() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    make(&mut admin, "boss@yorkorg.example", Some(json!({"isOrgAdmin": true}))).await;
    make(&mut admin, TO_ANNE, Some(json!({}))).await;
    let (mut boss, mut anne) =
        (user(&server, "boss@yorkorg.example").await, user(&server, TO_ANNE).await);
    let join = async |operator: &mut Client, anne: &mut Client| {
        let offer = json!({"emailAddress": TO_ANNE, "isOrgAdmin": true}).to_string();
        call(operator, "user.org.add", &offer).await;
        call(anne, "user.invite.accept", "").await;
    };
    join(&mut operator, &mut anne).await;

    // The home is not what users choose; where sessions start is.
    call(&mut anne, "user.update", &json!({ "defaultOrgId": BASIC }).to_string()).await;
    let mut anne = connect(&server.url("mqtt", TO_ANNE, PASSWORD)).await;
    assert_eq!(call(&mut anne, "session.info", "").await["orgKey"], "BasicOrg");
    for command in ["user.update", "user.delete"] {
        let mut params = json!({ "emailAddress": TO_ANNE });
        if command == "user.update" {
            params["password"] = "another-password".into();
        }
        let refused = reply(&mut operator, command, &params.to_string()).await;
        assert_eq!(code(&refused), -95006, "{command}: {refused}");
    }
    let seen = call(&mut operator, "user.org.list", ANNE).await;
    assert_eq!(seen["result"].as_array().map(Vec::len), Some(1), "{seen}");
    let seen = call(&mut boss, "user.org.list", ANNE).await;
    let keys: Vec<_> = seen["result"].as_array().expect("a list").iter().collect();
    assert_eq!((&keys[0]["orgKey"], &keys[1]["orgKey"]), (&json!("BasicOrg"), &json!("YorkOrg")));

    // An organisation of which she is no member is as one that is not there.
    let remove = |org: &str| json!({"emailAddress": TO_ANNE, "orgId": org}).to_string();
    let nowhere = "00".repeat(12);
    for org in ["52fbe4028a3a515d4aded7f1", &nowhere] {
        let refused = reply(&mut boss, "user.org.remove", &remove(org)).await;
        let expected = format!("Organisation \"{org}\" was not found.");
        assert_eq!(refused["errorMessages"][0], expected.as_str());
    }
    call(&mut boss, "user.org.remove", &remove(BASIC)).await;
    eventually("the session there has ended", async || anne.call("diag.ping", None).await.is_err())
        .await;
    let mut anne = user(&server, TO_ANNE).await;
    assert_eq!(call(&mut anne, "session.info", "").await["orgKey"], "YorkOrg");

    join(&mut operator, &mut anne).await;
    let reset = json!({"emailAddress": TO_ANNE, "password": "another-password"}).to_string();
    call(&mut boss, "user.update", &reset).await;
    assert!(Client::connect(&server.url("http", TO_ANNE, PASSWORD)).await.is_err());
    connect(&server.url("http", TO_ANNE, "another-password")).await;
    call(&mut boss, "user.delete", ANNE).await;
    assert_eq!(code(&reply(&mut operator, "user.find", ANNE).await), -90008);
}

/// A user of an organisation may be made administrator of the one above: then the administrators
/// below do not change them any more, or they would become what the user is.
#[tokio::test]
async fn nobody_takes_over_an_administrator_above() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    let chief = r#"{"emailAddress":"chief@basicorg.example","password":"a-good-password"}"#;
    call(&mut operator, "user.create", chief).await;
    let above = json!({"emailAddress": "chief@basicorg.example", "isOrgAdmin": true});
    call(&mut admin, "user.org.add", &above.to_string()).await;
    let reset = r#"{"emailAddress":"chief@basicorg.example","password":"another-password"}"#;
    assert_eq!(code(&reply(&mut operator, "user.update", reset).await), -95006);
}

/// Users whose addresses nobody could make now are in stores and bootstrap files, and log in.
#[tokio::test]
async fn old_lookalikes_go_on() {
    let old = "оperator@basicorg.example";
    let mut text = support::bootstrap::DEMO.to_owned();
    text +=
        &format!("\n[[user]]\nemail = \"{old}\"\npassword = \"{PASSWORD}\"\nhome = \"BasicOrg\"\n");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("a path in UTF-8");
    let server = TestServer::with(&[("TR50D_SERVER__BOOTSTRAP", path)]);
    let login = json!({"auth": {"command": "api.authenticate",
        "params": {"username": old, "password": PASSWORD}}})
    .to_string();
    let head = "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{login}", login.len());
    let answer = exchange(&server, request.as_bytes()).await;
    assert!(answer.contains(r#""success":true"#), "{answer}");
    let mut operator = server.operator("http").await;
    let found = json!({ "emailAddress": old }).to_string();
    call(&mut operator, "user.find", &found).await;
    // It can be changed, to another spelling of itself too, and made plain; not the other way.
    let id = call(&mut operator, "user.find", &found).await["id"].clone();
    let rename = |email: &str| json!({"id": id, "emailAddress": email}).to_string();
    call(&mut operator, "user.update", &rename("Оperator@basicorg.example")).await;
    let taken = reply(&mut operator, "user.update", &rename("0perator@basicorg.example")).await;
    assert_eq!(code(&taken), -95015);
    call(&mut operator, "user.update", &rename("plain@basicorg.example")).await;
    assert_eq!(code(&reply(&mut operator, "user.update", &rename(old)).await), -95005);
}

#[tokio::test]
async fn names_found_over_all_doors_count_together() {
    let server = TestServer::start();
    let mut operators = Vec::new();
    for listener in ["mqtt", "tcp", "http"] {
        operators.push(server.operator(listener).await);
    }
    let mut codes = Vec::new();
    for index in 0..7 {
        let operator = &mut operators[index % 3];
        let made = reply(operator, "org.create", r#"{"key":"YorkOrg"}"#).await;
        codes.push(code(&made));
    }
    assert_eq!(codes, [-95015, -95015, -95015, -95015, -95015, -95010, -95010]);
    // What is one's own is told all the same, and others may ask.
    let own = reply(&mut operators[0], "org.create", r#"{"key":"BasicOrg"}"#).await;
    assert_eq!(code(&own), -95015);
    let mut admin = server.admin("http").await;
    for _ in 0..20 {
        let made = reply(&mut admin, "org.create", r#"{"key":"YorkOrg"}"#).await;
        assert_eq!(code(&made), -95015);
    }
}

/// Who asks for too many names of others gets no answer for a minute.
const ASKED_IN_A_MINUTE: usize = 5;

#[tokio::test]
async fn a_tenant_that_invites_much_leaves_room_to_others() {
    let (dir, hands) = (tempfile::tempdir().expect("a directory"), Hands::at(1_700_000_000_000));
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("http").await);
    make(&mut admin, TO_ANNE, None).await;
    let quiet = call(&mut admin, "org.create", r#"{"key":"Quiet"}"#).await["id"].clone();
    let boss =
        json!({"emailAddress": "boss@quiet.example", "password": PASSWORD, "defaultOrgId": quiet});
    call(&mut admin, "user.create", &boss.to_string()).await;
    let boss = json!({"emailAddress": "boss@quiet.example", "orgId": quiet, "isOrgAdmin": true});
    call(&mut admin, "user.org.add", &boss.to_string()).await;
    let mut boss = user(&server, "boss@quiet.example").await;
    let invite = async |client: &mut Client, below: &str| {
        let org = json!({"key": below, "slug": below.to_lowercase()}).to_string();
        let org = call(client, "org.create", &org).await["id"].clone();
        let offer = json!({"emailAddress": TO_ANNE, "orgId": org}).to_string();
        reply(client, "user.org.add", &offer).await
    };
    for number in 0..INVITES_PER_USER_MAX {
        let invited = invite(&mut operator, &format!("Loud{number}")).await;
        assert_eq!(invited["params"]["pending"], true, "{invited}");
        if number % ASKED_IN_A_MINUTE == ASKED_IN_A_MINUTE - 1 {
            hands.pass(61);
        }
    }
    let refused = invite(&mut operator, "LoudMore").await;
    assert_eq!(code(&refused), -95011);
    let sentence = refused["errorMessages"][0].as_str().expect("a sentence");
    assert!(sentence.contains("and your organisation its share of them"), "{sentence}");
    let invited = invite(&mut boss, "Calm").await;
    assert_eq!(invited["params"]["pending"], true, "{invited}");
    hands.pass(61);
    assert_eq!(code(&invite(&mut operator, "LoudAgain").await), -95011);

    let mut anne = user(&server, TO_ANNE).await;
    let listed = call(&mut anne, "user.invite.list", "").await;
    let keys = listed["result"].as_array().expect("a list").iter().map(|row| &row["orgKey"]);
    let keys: Vec<_> = keys.filter_map(Value::as_str).collect();
    assert_eq!(keys.len(), INVITES_PER_USER_MAX);
    // The oldest of who has most has made way.
    assert!(keys.contains(&"Calm") && keys.contains(&"Loud1") && !keys.contains(&"Loud0"));
    assert!(!keys.contains(&"LoudAgain"));
}

#[tokio::test]
async fn what_a_user_has_is_bounded_and_its_owner_still_rules() {
    let server = TestServer::start();
    let (mut admin, mut operator) = (server.admin("http").await, server.operator("tcp").await);
    make(&mut admin, TO_ANNE, None).await;
    let [fits, long] = [3, 5].map(|count| vec!["x".repeat(1000); count]);
    let viewer = "viewer@basicorg.example";
    for email in [TO_ANNE, viewer] {
        let (command, org) = match email {
            TO_ANNE => ("user.org.add", BASIC.into()),
            _ => ("user.org.update", Value::Null),
        };
        // Control characters take six bytes each.
        for tags in [&long, &vec!["\u{1}".repeat(999)]] {
            let mut member = json!({"emailAddress": email, "tags": tags});
            if org != Value::Null {
                member["orgId"] = org.clone();
            }
            let refused = reply(&mut operator, command, &member.to_string()).await;
            assert_eq!(code(&refused), -95018, "{refused}");
        }
    }
    let mut added = 0;
    let refused = loop {
        let org =
            json!({"key": format!("B{added}"), "slug": format!("b-{added}"), "template": false});
        let org = call(&mut operator, "org.create", &org.to_string()).await["id"].clone();
        let member = json!({"emailAddress": viewer, "orgId": org, "tags": fits});
        let made = reply(&mut operator, "user.org.add", &member.to_string()).await;
        if made["success"] != true {
            break made;
        }
        added += 1;
        assert!(added < 200);
    };
    assert_eq!(code(&refused), -95018);
    let sentence = refused["errorMessages"][0].as_str().expect("a sentence");
    assert!(sentence.contains("memberships, tokens and settings of viewer@"), "{sentence}");
    // All that does not belong to these works, and so does what takes something away.
    let mut member = connect(&server.url("http", viewer, "demo-viewer-password")).await;
    call(&mut member, "session.org.switch", r#"{"key":"B30"}"#).await;
    let new = json!({"emailAddress": viewer, "password": PASSWORD, "company": "x".repeat(1000)});
    call(&mut operator, "user.update", &new.to_string()).await;
    let mut member = user(&server, viewer).await;
    let setting = json!({"key": "k", "value": "x".repeat(4000)}).to_string();
    assert_eq!(code(&reply(&mut member, "user.setting.set", &setting).await), -95018);
    call(&mut member, "user.mfa.enrol", &json!({"password": PASSWORD}).to_string()).await;
    let less =
        json!({"emailAddress": viewer, "orgId": org_id(&mut operator, "B7").await, "tags": ["y"]});
    call(&mut operator, "user.org.update", &less.to_string()).await;
    let ban = json!({"emailAddress": viewer, "disabled": true}).to_string();
    call(&mut operator, "user.update", &ban).await;
}

async fn org_id(client: &mut Client, key: &str) -> Value {
    call(client, "org.find", &json!({"key": key}).to_string()).await["id"].clone()
}

#[tokio::test]
async fn a_restricted_token_sees_its_own_sessions_only() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    call(&mut operator, "role.create", r#"{"key":"watcher","perms":["session"]}"#).await;
    let app = r#"{"name":"narrow","token":"a-narrow-token-12","autoRegister":true,
        "restrictAccessToSelf":true,"roles":["watcher"]}"#;
    call(&mut operator, "app.create", app).await;
    let other = server.thing("tcp", "mower-1").await;
    for listener in ["mqtt", "tcp", "http"] {
        let mut narrow = connect(&server.url(listener, "narrow-1", "a-narrow-token-12")).await;
        let mut twin = connect(&server.url("http", "narrow-1", "a-narrow-token-12")).await;
        for params in [r#"{"limit":1}"#, r#"{"thingKey":"narrow-1"}"#, r#"{"kind":"application"}"#]
        {
            let listed = call(&mut narrow, "session.list", params).await;
            let rows = listed["result"].as_array().expect("a list");
            assert!(rows.iter().all(|row| row["thingKey"] == "narrow-1"), "{listed}");
            assert!(listed["count"].as_u64().is_some_and(|count| count >= 2), "{listed}");
        }
        let there = call(&mut operator, "session.list", r#"{"thingKey":"mower-1"}"#).await;
        let there = there["result"][0]["ref"].as_str().expect("a ref").to_owned();
        for params in [
            r#"{"thingKey":"mower-1"}"#,
            r#"{"thingKey":"nobody"}"#,
            r#"{"userName":"operator@basicorg.example"}"#,
            r#"{"userName":"nobody@basicorg.example"}"#,
        ] {
            let listed = call(&mut narrow, "session.list", params).await;
            assert_eq!(listed, json!({"count": 0, "result": []}), "{params}");
        }
        for command in ["session.find", "session.end"] {
            let known = reply(&mut narrow, command, &json!({ "ref": there }).to_string()).await;
            let unknown = json!({ "ref": "00".repeat(32) }).to_string();
            let unknown = reply(&mut narrow, command, &unknown).await;
            assert_eq!((code(&known), &known), (-90008, &unknown), "{command}");
        }
        let own = call(&mut twin, "session.info", "").await["ref"].clone();
        call(&mut narrow, "session.find", &json!({ "ref": own }).to_string()).await;
    }
    drop(other);
}
