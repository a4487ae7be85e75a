//! The directory in the words of Cognite's organisation API, through sockets: every rule of
//! `docs/protocol/cognite.md` A1 to A6.

use std::collections::BTreeMap;
use std::io::Write;

use client::Client;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::http::{Answer, log_in, post};
use support::{Endpoints, SOON, Signal, TestServer, call, connect, eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TR50D;

const OPERATOR: &str = "5cf885f41c5bd771c8065bf1";
pub(crate) const VIEWER: &str = "5cf885f41c5bd771c8065bf2";
const ADMIN: &str = "52fbe4028a3a515d4aded7f6";
const APPLICATION: &str = "5cf885f41c5bd771c8065c01";
const TOKEN: &str = "demo-token-basicorg";
const PRINCIPALS: &str = "/api/v1/orgs/basic-org/principals";

/// An answer that says why not.
trait Failed {
    /// The sentence of a failure, which has to be of the one form, with this status.
    fn failure(&self, status: u16) -> String;
}

impl Failed for Answer {
    fn failure(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body.as_object().map(|body| body.len()), Some(1), "{body}");
        assert_eq!(body["error"]["code"], status, "{body}");
        body["error"]["message"].as_str().expect("a sentence").to_owned()
    }
}

/// A request on a connection of its own; each of `headers` with its end.
async fn send(server: &Endpoints, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}");
    http::send(server, head.trim_end(), body).await
}

/// One of a caller, who has this bearer token.
async fn ask(server: &Endpoints, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let authorization = format!("Authorization: Bearer {token}\r\n");
    send(server, method, path, &authorization, body.as_bytes()).await
}

async fn get(server: &Endpoints, token: &str, path: &str) -> Answer {
    ask(server, token, "GET", path, "").await
}

/// What a GET answers, which has to do well.
async fn got(server: &Endpoints, token: &str, path: &str) -> Value {
    let answer = get(server, token, path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn operator(server: &Endpoints) -> String {
    log_in(server, "operator@basicorg.example", "demo-operator-password").await
}

async fn viewer(server: &Endpoints) -> String {
    log_in(server, "viewer@basicorg.example", "demo-viewer-password").await
}

async fn admin(server: &Endpoints) -> String {
    log_in(server, "admin@devicewise.com", "demo-admin-password").await
}

/// A command of a session.
async fn command(server: &Endpoints, session: &str, command: &str, params: Value) -> Value {
    let auth = json!({ "sessionId": session });
    let body = json!({ "auth": auth, "c": { "command": command, "params": params } });
    let reply: Value = serde_json::from_str(&post(server, &body.to_string()).await).expect("JSON");
    assert_eq!(reply["c"]["success"], true, "{command}: {reply}");
    reply["c"]["params"].clone()
}

fn sessions_of(principal: &str) -> String {
    format!("{PRINCIPALS}/{principal}/sessions")
}

/// A body that names these sessions.
fn named(ids: &[&str]) -> String {
    let items: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    json!({ "items": items }).to_string()
}

/// The public handle of the session with this secret id, which has to be the newest of its user.
async fn newest(server: &Endpoints, token: &str, principal: &str) -> String {
    let page = got(server, token, &format!("{}?limit=1", sessions_of(principal))).await;
    page["items"][0]["id"].as_str().expect("a session").to_owned()
}

#[tokio::test]
async fn callers_are_shown_who_they_are() {
    let server = TestServer::start();
    let user = json!({
        "type": "USER", "id": OPERATOR, "name": "Organisation Administrator", "pictureUrl": "",
        "email": "operator@basicorg.example", "givenName": "Organisation",
        "familyName": "Administrator",
    });
    let bearer = operator(&server).await;
    assert_eq!(got(&server, &bearer, "/api/v1/principals/me").await, user);
    let mut application = got(&server, TOKEN, "/api/v1/principals/me").await;
    let thing = log_in(&server, "mower-1", TOKEN).await;
    assert_eq!(got(&server, &thing, "/api/v1/principals/me").await, application);
    let created = application["createdTime"].take();
    assert!(created.as_i64().is_some_and(|time| time > 1_600_000_000_000), "{created}");
    assert_eq!(application["lastUpdatedTime"].take(), created);
    let expected = json!({
        "type": "SERVICE_ACCOUNT", "id": APPLICATION, "name": "demo-app", "pictureUrl": "",
        "externalId": "demo-app", "createdBy": { "orgId": "basic-org", "userId": "SYSTEM" },
        "createdTime": null, "lastUpdatedTime": null,
    });
    assert_eq!(application, expected);

    let admin = admin(&server).await;
    command(&server, &admin, "session.org.switch", json!({ "key": "BasicOrg" })).await;
    let made = json!({ "name": "Feed 7", "desc": "reads line 4", "token": "a-token-of-the-feed" });
    let made = command(&server, &admin, "app.create", made).await;
    let feed = got(&server, "a-token-of-the-feed", "/api/v1/principals/me").await;
    assert_eq!(feed["id"], made["id"]);
    assert_eq!(feed["createdBy"], json!({ "orgId": "system", "userId": ADMIN }));
    assert_eq!((&feed["name"], &feed["description"]), (&json!("Feed 7"), &json!("reads line 4")));
    // Without names, people are called by their address.
    let plain = json!({ "emailAddress": "a@basicorg.example", "password": "some-password" });
    command(&server, &admin, "user.create", plain).await;
    let bearer = log_in(&server, "a@basicorg.example", "some-password").await;
    let mut plain = got(&server, &bearer, "/api/v1/principals/me").await;
    assert_eq!(plain["id"].take().as_str().map(str::len), Some(24));
    let email = "a@basicorg.example";
    let expected =
        json!({ "type": "USER", "id": null, "name": email, "pictureUrl": "", "email": email });
    assert_eq!(plain, expected);
}

#[tokio::test]
async fn organisations_and_projects_are_as_the_clients_read_them() {
    let server = TestServer::start();
    let (operator, admin) = (operator(&server).await, admin(&server).await);
    let org = |slug: &str, name: &str, parent: Option<&str>| {
        let mut org = json!({
            "id": slug, "name": name, "adminsCanCreateOrgsInSubtree": true,
            "adminsCanCreateProjectsInSubtree": false, "allowedClusters": [],
        });
        if let Some(parent) = parent {
            org["parentId"] = parent.into();
        }
        org
    };
    let system = org("system", "System", None);
    let basic = org("basic-org", "Basic Organisation", Some("system"));
    let york = org("york-org", "York Organisation", Some("system"));
    let check = async |token: &str, path: &str, expected: Value| {
        assert_eq!(got(&server, token, &format!("/api/v1/{path}")).await, expected, "{path}");
    };
    check(&operator, "orgs/basic-org", basic.clone()).await;
    check(&operator, "orgs/basic%2Dorg/", basic.clone()).await;
    check(&admin, "orgs/system", system).await;
    // By id, which no change of a name moves.
    check(&admin, "orgs/system/orgs", json!({ "items": [york, basic] })).await;
    check(&operator, "orgs/basic-org/orgs", json!({ "items": [] })).await;
    let project = json!({ "name": "basic-org", "apiUrl": "http://x", "isDefault": true });
    check(&operator, "orgs/basic-org/projects", json!({ "items": [project] })).await;
    let project = json!({
        "name": "Basic Organisation", "urlName": "basic-org", "organization": "basic-org",
        "userProfilesConfiguration": { "enabled": false },
    });
    check(TOKEN, "projects/basic-org", project.clone()).await;
    check(&admin, "projects/basic-org/", project).await;
    let inspected = |subject: &str, slugs: &[&str]| {
        let project = |slug: &&str| json!({ "projectUrlName": slug, "groups": [] });
        let projects: Vec<Value> = slugs.iter().map(project).collect();
        json!({ "subject": subject, "projects": projects, "capabilities": [] })
    };
    check(&operator, "token/inspect", inspected(OPERATOR, &["basic-org"])).await;
    check(TOKEN, "token/inspect", inspected(APPLICATION, &["basic-org"])).await;
    command(&server, &admin, "session.org.switch", json!({ "key": "YorkOrg" })).await;
    check(&admin, "token/inspect", inspected(ADMIN, &["system", "york-org"])).await;
}

/// Callers with every kind of right, by name.
async fn callers(server: &Endpoints) -> BTreeMap<&'static str, String> {
    let admin = admin(server).await;
    let add = async |email: &str, member: Value| {
        let user = json!({ "emailAddress": email, "password": "some-password" });
        command(server, &admin, "user.create", user).await;
        command(server, &admin, "user.org.add", member).await;
        log_in(server, email, "some-password").await
    };
    // At home in SYSTEM.
    let above = json!({ "emailAddress": "above@x", "isOrgAdmin": true });
    let above = add("above@x", above).await;
    let guest = json!({
        "emailAddress": "guest@x", "orgId": "5cf885f41c5bd771c8065be8", "isOrgAdmin": true,
    });
    let guest = add("guest@x", guest).await;
    let here = log_in(server, "admin@devicewise.com", "demo-admin-password").await;
    command(server, &here, "session.org.switch", json!({ "key": "BasicOrg" })).await;
    let above_here = log_in(server, "above@x", "some-password").await;
    command(server, &above_here, "session.org.switch", json!({ "key": "BasicOrg" })).await;
    let ops = json!({ "emailAddress": "ops@x", "password": "some-password", "isSuperOps": true });
    command(server, &admin, "user.create", ops).await;
    let ops = log_in(server, "ops@x", "some-password").await;
    let ops_here = log_in(server, "ops@x", "some-password").await;
    command(server, &ops_here, "session.org.switch", json!({ "key": "BasicOrg" })).await;
    for (name, token, flag) in [
        ("restricted", "restricted-token-1", "restrictAccessToSelf"),
        ("ruling", "ruling-token-number-1", "isOrgAdmin"),
        ("watching", "watching-token-number-1", "isSuperOps"),
        ("restricted watching", "restricted-watching-1", "isSuperOps"),
    ] {
        let mut app = json!({ "name": name, "token": token, flag: true, "autoRegister": true });
        if name.starts_with("restricted") {
            app["restrictAccessToSelf"] = true.into();
        }
        command(server, &here, "app.create", app).await;
    }
    BTreeMap::from([
        ("operator", operator(server).await),
        ("viewer", viewer(server).await),
        ("super administrator elsewhere", admin),
        ("super administrator here", here),
        ("administrator above", above),
        ("administrator above, here", above_here),
        ("administrator from elsewhere", guest),
        ("super operator elsewhere", ops),
        ("super operator here", ops_here),
        ("token", TOKEN.to_owned()),
        ("thing", log_in(server, "mower-1", TOKEN).await),
        ("token of York", "demo-token-yorkorg".to_owned()),
        ("restricted token", "restricted-token-1".to_owned()),
        ("restricted thing", log_in(server, "r-1", "restricted-token-1").await),
        ("ruling token", "ruling-token-number-1".to_owned()),
        ("ruling thing", log_in(server, "r-2", "ruling-token-number-1").await),
        ("watching token", "watching-token-number-1".to_owned()),
        ("restricted watching token", "restricted-watching-1".to_owned()),
    ])
}

/// A2 and A4: the rule of sessions is narrower than that of principals, and to end them takes more
/// than to see them.
#[tokio::test]
async fn who_may_see_and_do_what() {
    let server = TestServer::start();
    let callers = callers(&server).await;
    // Principals and organisations, sessions, revocation, the project.
    let rules = [
        ("operator", [200, 200, 400, 200]),
        ("viewer", [200, 403, 403, 200]),
        ("super administrator elsewhere", [200, 403, 403, 200]),
        ("super administrator here", [200, 200, 400, 200]),
        ("administrator above", [200, 403, 403, 200]),
        ("administrator above, here", [200, 403, 403, 200]),
        ("administrator from elsewhere", [200, 200, 400, 200]),
        ("super operator elsewhere", [200, 403, 403, 200]),
        ("super operator here", [200, 200, 403, 200]),
        ("token", [200, 403, 403, 200]),
        ("thing", [200, 403, 403, 200]),
        ("token of York", [403, 403, 403, 403]),
        ("restricted token", [403, 403, 403, 200]),
        ("restricted thing", [403, 403, 403, 200]),
        ("ruling token", [200, 200, 400, 200]),
        ("ruling thing", [200, 200, 400, 200]),
        ("watching token", [200, 200, 403, 200]),
        ("restricted watching token", [403, 403, 403, 200]),
    ];
    assert_eq!(rules.len(), callers.len());
    let unknown = json!({ "items": [{ "id": VIEWER }] }).to_string();
    for (name, [seen, read, ended, project]) in rules {
        let token = &callers[name];
        let check = async |method: &str, path: &str, body: &str, status: u16| {
            let answer = ask(&server, token, method, path, body).await;
            if status < 400 {
                assert_eq!(answer.status, status, "{name} {path}: {answer:?}");
            } else {
                let message = answer.failure(status);
                assert!(!message.is_empty(), "{name} {path}");
            }
        };
        for path in ["", "/orgs", "/projects", "/principals"] {
            check("GET", &format!("/api/v1/orgs/basic-org{path}"), "", seen).await;
        }
        check("POST", &format!("{PRINCIPALS}/byids"), &unknown, seen).await;
        check("GET", &sessions_of(VIEWER), "", read).await;
        // The right first, then the body.
        check("POST", &format!("{}/revoke", sessions_of(VIEWER)), "{}", ended).await;
        check("GET", "/api/v1/projects/basic-org", "", project).await;
        check("GET", "/api/v1/principals/me", "", 200).await;
        check("GET", "/api/v1/token/inspect", "", 200).await;
    }
}

#[tokio::test]
async fn nobody_learns_which_organisations_exist() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let long = "x".repeat(65);
    for slug in ["york-org", "no-such-org", "x", "Basic-Org", "-a-", "5bc", &long, "basic%20org"] {
        let named: String = slug.replace("%20", " ");
        for (method, rest, body) in [
            ("GET", "", ""),
            ("GET", "/orgs", ""),
            ("GET", "/projects", ""),
            ("GET", "/principals?limit=x", ""),
            ("POST", "/principals/byids", "{}"),
            ("GET", &format!("/principals/{OPERATOR}/sessions"), ""),
            ("POST", &format!("/principals/{OPERATOR}/sessions/revoke"), "{}"),
        ] {
            let path = format!("/api/v1/orgs/{slug}{rest}");
            let message = ask(&server, &operator, method, &path, body).await.failure(403);
            let expected = format!("The caller has no access to this in organisation \"{named}\".");
            assert_eq!(message, expected, "{path}");
        }
        get(&server, &operator, &format!("/api/v1/projects/{slug}")).await.failure(403);
    }
}

#[tokio::test]
async fn who_is_not_known_is_asked_for_a_bearer_token() {
    let server = TestServer::start();
    let ended = operator(&server).await;
    command(&server, &ended, "session.end", json!({})).await;
    let good = operator(&server).await;
    let expected = "The bearer token is missing, unknown or has ended.";
    let headers = [
        String::new(),
        "Authorization:\r\n".into(),
        "Authorization: Bearer\r\n".into(),
        "Authorization: Bearer \r\n".into(),
        format!("Authorization: Bearer {ended}\r\n"),
        format!("Authorization: Bearer {}\r\n", good.to_uppercase()),
        format!("Authorization: Bearer {good}0\r\n"),
        format!("Authorization: Bearer {}\r\n", "0".repeat(24)),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {good}\r\n"),
        format!("Authorization: Bearer {good} {good}\r\n"),
        format!("sessionId: {good}\r\n"),
        "Authorization: Bearer \u{e9}\r\n".into(),
    ];
    let paths = ["/api/v1/principals/me", "/api/v1/token/inspect", PRINCIPALS];
    for header in &headers {
        for path in paths {
            let answer = send(&server, "GET", path, header, b"").await;
            assert_eq!(answer.failure(401), expected, "{header:?}");
            assert_eq!(answer.header("www-authenticate").expect("a header"), "Bearer");
        }
        let path = format!("{}/revoke", sessions_of(OPERATOR));
        send(&server, "POST", &path, header, b"{}").await.failure(401);
    }
    for good in [format!("bearer {good}"), format!("BEARER  {good} "), format!("Bearer {TOKEN}")] {
        let header = format!("Authorization: {good}\r\n");
        let answer = send(&server, "GET", "/api/v1/principals/me", &header, b"").await;
        assert_eq!(answer.status, 200, "{header}: {answer:?}");
    }
}

#[tokio::test]
async fn a_request_is_a_command_of_its_session() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    let mut mower = server.thing("mqtt", "mower-1").await;
    let bearer = operator(&server).await;
    let count = async |mower: &mut Client| {
        let filter = r#"{"userName":"operator@basicorg.example"}"#;
        let listed = call(mower, "session.list", filter).await;
        listed["result"][0]["commandCount"].as_u64().expect("a number")
    };
    let before = count(&mut mower).await;
    let mut refused = None;
    let mut served = 0;
    while refused.is_none() && served < 1000 {
        let answer = get(&server, &bearer, "/api/v1/principals/me").await;
        match answer.status {
            200 => served += 1,
            _ => refused = Some(answer),
        }
    }
    let refused = refused.expect("more than five in a second");
    let sentence = "Too many requests in this second; try again in the next. The session sent more \
                    than 5 commands in a second (limits.commands_per_s).";
    assert_eq!(refused.failure(429), sentence);
    assert_eq!(refused.header("retry-after").expect("a header"), "1");
    assert!(served >= 5, "{served}");
    eventually("the count grows", async || count(&mut mower).await == before + served).await;
}

#[tokio::test]
async fn principals_come_in_pages_of_their_own_order() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    for number in 0..6 {
        let email = format!("{number}@basicorg.example");
        let user = json!({ "emailAddress": email, "password": "some-password" });
        command(&server, &bearer, "user.create", user).await;
        let app = json!({ "name": format!("app-{number}") });
        command(&server, &bearer, "app.create", app).await;
    }
    let all = got(&server, &bearer, PRINCIPALS).await;
    assert_eq!(all.get("nextCursor"), None);
    let all = all["items"].as_array().expect("items").clone();
    let order: Vec<(bool, &str)> = all
        .iter()
        .map(|item| (item["type"] == "SERVICE_ACCOUNT", item["id"].as_str().expect("an id")))
        .collect();
    assert!(order.is_sorted() && order.len() == 16, "{order:?}");
    let of_type = |wanted: &str| -> Vec<Value> {
        all.iter().filter(|item| item["type"] == wanted).cloned().collect()
    };
    let (users, accounts) = (of_type("USER"), of_type("SERVICE_ACCOUNT"));
    assert_eq!((users.len(), accounts.len()), (8, 8));
    for (types, expected) in [
        ("", &all),
        ("types=", &all),
        ("types=,", &all),
        ("types=USER", &users),
        ("types=user", &users),
        ("types=USER&types=USER", &users),
        ("types=SERVICE_ACCOUNT", &accounts),
        ("types=USER%2CSERVICE_ACCOUNT", &all),
        ("types=SERVICE_ACCOUNT,USER", &all),
        ("types=USER&types=SERVICE_ACCOUNT", &all),
        ("types=USER&type=x&sort=name", &users),
    ] {
        for limit in [1, 2, 7, 8, 14, 15, 16, 100, 1000] {
            let (mut cursor, mut found) = (String::new(), Vec::new());
            loop {
                let path = format!("{PRINCIPALS}?{types}&limit={limit}{cursor}");
                let page = got(&server, &bearer, &path).await;
                let items = page["items"].as_array().expect("items");
                assert!((1..=limit).contains(&items.len()), "{path}");
                found.extend(items.iter().cloned());
                match page["nextCursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(&found, expected, "{types} {limit}");
        }
    }
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=1", "limit"),
        ("types=USERS", "types"),
        ("types=USER,x", "types"),
        ("types=USER&types=x", "types"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%7B%27cursor%27%3A+%27c3%27%7D", "cursor"),
    ] {
        let answer = get(&server, &bearer, &format!("{PRINCIPALS}?{query}")).await;
        let message = answer.failure(400);
        assert!(message.starts_with(&format!("Parameter \"{parameter}\" ")), "{query}: {message}");
    }
}

#[tokio::test]
async fn principals_are_found_by_their_ids() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    let path = format!("{PRINCIPALS}/byids");
    let check = async |body: Value, expected: Result<&[&str], Value>| {
        let answer = ask(&server, &bearer, "POST", &path, &body.to_string()).await;
        match expected {
            Ok(ids) => {
                assert_eq!(answer.status, 200, "{body}: {answer:?}");
                let items = answer.json();
                let ids: Vec<Value> = ids.iter().map(|id| (*id).into()).collect();
                let items = items["items"].as_array().expect("items");
                let found: Vec<Value> = items.iter().map(|item| item["id"].clone()).collect();
                assert_eq!(found, ids, "{body}");
            }
            Err(missing) => {
                let message = answer.failure(400);
                assert_eq!(message.contains("not found"), !missing.is_null(), "{message}");
                assert_eq!(answer.json()["error"]["missing"], missing, "{body}");
            }
        }
    };
    let id = |id: &str| json!({ "id": id });
    let name = |name: &str| json!({ "externalId": name });
    check(json!({ "items": [id(VIEWER)] }), Ok(&[VIEWER])).await;
    check(json!({ "items": [name("demo-app")] }), Ok(&[APPLICATION])).await;
    let both = json!({ "items": [id(APPLICATION), id(VIEWER), name("demo-app"), id(VIEWER)] });
    check(both, Ok(&[APPLICATION, VIEWER])).await;
    check(json!({ "items": [id(&VIEWER.to_uppercase())], "x": 1 }), Ok(&[VIEWER])).await;
    let extra = json!({ "items": [{ "id": VIEWER, "externalId": null, "x": 1 }] });
    check(extra, Ok(&[VIEWER])).await;
    // Of another organisation, of nobody, a user's name, another case: as if there were none.
    let unknown =
        [id(ADMIN), id("533ef30031004618770000a1"), id("x"), id(""), name("x"), name("DEMO-APP")];
    for unknown in &unknown {
        check(json!({ "items": [unknown] }), Err(json!([unknown]))).await;
        let ignoring = json!({ "items": [id(VIEWER), unknown], "ignoreUnknownIds": true });
        check(ignoring, Ok(&[VIEWER])).await;
        let ignoring = json!({ "items": [unknown], "ignoreUnknownIds": true });
        check(ignoring, Ok(&[])).await;
    }
    let all = json!({ "items": unknown, "ignoreUnknownIds": false });
    check(all, Err(json!(unknown))).await;
    let many = |count: usize| json!({ "items": vec![id(VIEWER); count] });
    check(many(101), Ok(&[VIEWER])).await;
    check(many(1000), Ok(&[VIEWER])).await;
    check(many(1001), Err(Value::Null)).await;
    for wrong in [
        json!({}),
        json!([]),
        json!({ "items": [] }),
        json!({ "items": null }),
        json!({ "items": [{}] }),
        json!({ "items": [VIEWER] }),
        json!({ "items": [{ "id": 7 }] }),
        json!({ "items": [{ "id": VIEWER, "externalId": "demo-app" }] }),
        json!({ "items": [id(VIEWER)], "ignoreUnknownIds": "yes" }),
    ] {
        check(wrong, Err(Value::Null)).await;
    }
    for wrong in ["", "{", "items", r#"{"items":[]}x"#] {
        ask(&server, &bearer, "POST", &path, wrong).await.failure(400);
    }
}

/// The items of a user's list, all pages together.
async fn listed(server: &Endpoints, token: &str, principal: &str) -> Vec<Value> {
    let page = got(server, token, &sessions_of(principal)).await;
    assert_eq!(page.get("nextCursor"), None, "{page}");
    page["items"].as_array().expect("items").clone()
}

fn has_status(items: &[Value], statuses: &[&str]) -> bool {
    let found: Vec<&str> = items.iter().filter_map(|item| item["status"].as_str()).collect();
    found == statuses
}

#[tokio::test]
async fn sessions_are_listed_with_what_became_of_them() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "2")]);
    let bearer = operator(&server).await;
    assert_eq!(listed(&server, &bearer, VIEWER).await, Vec::<Value>::new());
    let first = viewer(&server).await;
    let active = listed(&server, &bearer, VIEWER).await;
    let created = active[0]["createdTime"].as_i64().expect("a whole number");
    let id = active[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(active, [json!({ "id": id, "createdTime": created, "status": "ACTIVE" })]);
    command(&server, &first, "session.end", json!({})).await;
    let mut ended = listed(&server, &bearer, VIEWER).await;
    let deactivated = ended[0]["deactivatedTime"].take().as_i64().expect("a whole number");
    assert!(deactivated >= created, "{deactivated}");
    let expected = json!({
        "id": id, "createdTime": created, "status": "LOGGED_OUT", "deactivatedTime": null,
    });
    assert_eq!(ended, [expected]);

    viewer(&server).await;
    eventually("the second session expires", async || {
        has_status(&listed(&server, &bearer, VIEWER).await, &["EXPIRED", "LOGGED_OUT"])
    })
    .await;
    let url = server.url("mqtt", "viewer@basicorg.example", "demo-viewer-password");
    let mut third = connect(&url).await;
    let third_id = newest(&server, &bearer, VIEWER).await;
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let answer = ask(&server, &bearer, "POST", &revoke, &named(&[&third_id])).await;
    assert_eq!((answer.status, answer.text()), (204, ""), "{answer:?}");
    assert_eq!(answer.header("content-type"), None, "{answer:?}");
    timeout(SOON, third.closed()).await.expect("its connection closes");
    let before = listed(&server, &bearer, VIEWER).await;
    assert!(has_status(&before, &["REVOKED", "EXPIRED", "LOGGED_OUT"]), "{before:?}");
    // What has ended can be revoked, too, and again; the time of its end stays.
    let all: Vec<&str> = before.iter().filter_map(|item| item["id"].as_str()).collect();
    for _ in 0..2 {
        let answer = ask(&server, &bearer, "POST", &revoke, &named(&all)).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        let after = listed(&server, &bearer, VIEWER).await;
        assert!(has_status(&after, &["REVOKED"; 3]), "{after:?}");
        let times = |items: &[Value]| -> Vec<Value> {
            items.iter().map(|item| item["deactivatedTime"].clone()).collect()
        };
        assert_eq!(times(&after), times(&before));
    }
}

#[tokio::test]
async fn sessions_belong_to_the_organisation_where_they_are() {
    let server = TestServer::start();
    let admin = admin(&server).await;
    let york = json!({ "userId": VIEWER, "orgId": "533ef300310046187700007f" });
    command(&server, &admin, "user.org.add", york).await;
    let bearer = operator(&server).await;
    let (stays, goes) = (viewer(&server).await, viewer(&server).await);
    command(&server, &goes, "session.org.switch", json!({ "key": "YorkOrg" })).await;
    let here = listed(&server, &bearer, VIEWER).await;
    assert_eq!(here.len(), 1, "{here:?}");
    command(&server, &admin, "session.org.switch", json!({ "key": "YorkOrg" })).await;
    let york = format!("/api/v1/orgs/york-org/principals/{VIEWER}/sessions");
    let there = got(&server, &admin, &york).await;
    let there = there["items"].as_array().expect("items").clone();
    assert_eq!(there.len(), 1, "{there:?}");
    assert_ne!(here[0]["id"], there[0]["id"]);
    // To those who administer only one of them, the other session does not exist.
    let id = there[0]["id"].as_str().expect("an id");
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let answer = ask(&server, &bearer, "POST", &revoke, &named(&[id])).await;
    answer.failure(404);
    assert_eq!(answer.json()["error"]["missing"], json!([{ "id": id }]));
    // After its end it stays where it was last.
    command(&server, &goes, "session.end", json!({})).await;
    assert_eq!(got(&server, &admin, &york).await["items"][0]["status"], "LOGGED_OUT");
    assert_eq!(listed(&server, &bearer, VIEWER).await, here);
    let answer = ask(&server, &admin, "POST", &format!("{york}/revoke"), &named(&[id])).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(got(&server, &stays, "/api/v1/principals/me").await["id"], VIEWER);
}

#[tokio::test]
async fn only_users_have_login_sessions() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    let revoke = |principal: &str| format!("{}/revoke", sessions_of(principal));
    let expected = "A service account has no login sessions.";
    let body = named(&["aea91e72-a984-4a4c-ba06-a7f54e650825"]);
    for body in [body.as_str(), "{}"] {
        assert_eq!(get(&server, &bearer, &sessions_of(APPLICATION)).await.failure(403), expected);
        let answer = ask(&server, &bearer, "POST", &revoke(APPLICATION), body).await;
        assert_eq!(answer.failure(403), expected);
    }
    // Of another organisation, of none, no id at all, and what a client sends by mistake.
    let unknown = [ADMIN, "533ef30031004618770000a1", &"0".repeat(24), "x", "me", "%27,%29"];
    for unknown in unknown.into_iter().chain(["%28%275cf885f41c5bd771c8065bf2%27%2C%29", "%ff"]) {
        let message = get(&server, &bearer, &sessions_of(unknown)).await.failure(404);
        assert_eq!(message, "The organisation has no such principal.", "{unknown}");
        ask(&server, &bearer, "POST", &revoke(unknown), &body).await.failure(404);
    }
}

#[tokio::test]
async fn limits_of_sessions_are_strict() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    for query in ["limit=1", "limit=1000", "limit=1&x=y&limitx=0", "types=no"] {
        got(&server, &bearer, &format!("{}?{query}", sessions_of(OPERATOR))).await;
    }
    for limit in ["0", "1001", "-1", "x", "", "1.5", "99999999999999999999999", "1&limit=2"] {
        let path = format!("{}?limit={limit}", sessions_of(OPERATOR));
        let message = get(&server, &bearer, &path).await.failure(400);
        assert!(message.starts_with("Parameter \"limit\" "), "{limit}: {message}");
    }
}

#[tokio::test]
async fn a_revocation_is_all_or_nothing() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    let viewers = [viewer(&server).await, viewer(&server).await];
    let mut ids: Vec<String> = Vec::new();
    for item in listed(&server, &bearer, VIEWER).await {
        ids.push(item["id"].as_str().expect("an id").to_owned());
    }
    let own = newest(&server, &bearer, OPERATOR).await;
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let unknown = "aea91e72-a984-4a4c-ba06-a7f54e650825";
    let both = [ids[0].as_str(), ids[1].as_str()];
    for other in [unknown, own.as_str()] {
        let body = named(&[both[0], other, both[1]]);
        let answer = ask(&server, &bearer, "POST", &revoke, &body).await;
        answer.failure(404);
        assert_eq!(answer.json()["error"]["missing"], json!([{ "id": other }]));
    }
    let eleven = [both[0]; 11];
    for wrong in [
        named(&[]),
        named(&eleven),
        named(&[both[0], "x"]),
        named(&[both[0], ""]),
        named(&[&both[0].replace('-', "")]),
        json!({}).to_string(),
        json!({ "items": [both[0]] }).to_string(),
        json!({ "items": [{}] }).to_string(),
        json!({ "items": [{ "id": null }] }).to_string(),
        json!({ "items": { "id": both[0] } }).to_string(),
        String::new(),
        "{".to_owned(),
    ] {
        ask(&server, &bearer, "POST", &revoke, &wrong).await.failure(400);
    }
    assert!(has_status(&listed(&server, &bearer, VIEWER).await, &["ACTIVE"; 2]));
    // What else is said of them, and how often, is nobody's concern.
    let more = json!({ "items": [
        { "id": both[0], "principal": VIEWER }, { "id": both[1].to_uppercase() },
        { "id": both[0] },
    ], "x": 1 });
    let answer = ask(&server, &bearer, "POST", &revoke, &more.to_string()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    for viewer in &viewers {
        get(&server, viewer, "/api/v1/principals/me").await.failure(401);
        let ping =
            format!(r#"{{"auth":{{"sessionId":"{viewer}"}},"p":{{"command":"diag.ping"}}}}"#);
        assert!(post(&server, &ping).await.contains("-90000"));
    }
    // Ten are as many as fit; the own one is among them, and the answer comes all the same.
    let mut ten = vec![both[0]; 9];
    ten.push(&own);
    let own_revoke = format!("{}/revoke", sessions_of(OPERATOR));
    ask(&server, &bearer, "POST", &own_revoke, &named(&ten)).await.failure(404);
    let ten = vec![own.as_str(); 10];
    let answer = ask(&server, &bearer, "POST", &own_revoke, &named(&ten)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    get(&server, &bearer, "/api/v1/principals/me").await.failure(401);
}

#[tokio::test]
async fn a_revocation_and_a_cursor_outlive_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = TR50D.serve(&data_dir, &[]);
    let bearer = operator(&server).await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(viewer(&server).await);
    }
    let before = listed(&server, &bearer, VIEWER).await;
    let pages = format!("{}?limit=1", sessions_of(VIEWER));
    let cursor = got(&server, &bearer, &pages).await["nextCursor"].clone();
    let gone = before[1]["id"].as_str().expect("an id");
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let answer = ask(&server, &bearer, "POST", &revoke, &named(&[gone])).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    server.end(Signal::KILL).await;
    let server = TestServer::in_dir(&data_dir, &[]);
    let after = listed(&server, &bearer, VIEWER).await;
    assert!(has_status(&after, &["ACTIVE", "REVOKED", "ACTIVE"]), "{after:?}");
    let ids = |items: &[Value]| -> Vec<Value> { items.iter().map(|i| i["id"].clone()).collect() };
    assert_eq!(ids(&after), ids(&before));
    let mut served = 0;
    for viewer in &viewers {
        served += usize::from(get(&server, viewer, "/api/v1/principals/me").await.status == 200);
    }
    assert_eq!(served, 2);
    let cursor = cursor.as_str().expect("a text");
    let next = got(&server, &bearer, &format!("{pages}&cursor={cursor}")).await;
    assert_eq!(next["items"], json!([after[1]]));
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_query_only() {
    let server = TestServer::start();
    let (bearer, admin) = (operator(&server).await, admin(&server).await);
    for _ in 0..3 {
        viewer(&server).await;
        operator(&server).await;
    }
    command(&server, &admin, "session.org.switch", json!({ "key": "BasicOrg" })).await;
    let cursor = async |path: &str| {
        let page = got(&server, &bearer, path).await;
        page["nextCursor"].as_str().expect("a next page").to_owned()
    };
    let sessions = cursor(&format!("{}?limit=1", sessions_of(VIEWER))).await;
    let principals = cursor(&format!("{PRINCIPALS}?limit=1")).await;
    let users = cursor(&format!("{PRINCIPALS}?limit=1&types=USER")).await;
    let refused = async |path: &str, cursor: &str| {
        let sign = if path.contains('?') { '&' } else { '?' };
        let answer = get(&server, &admin, &format!("{path}{sign}cursor={cursor}")).await;
        let expected = "Parameter \"cursor\" is not one that was given for this query.";
        assert_eq!(answer.failure(400), expected, "{path} {cursor}");
    };
    let good = async |path: &str, cursor: &str| {
        let page = got(&server, &admin, &format!("{path}&cursor={cursor}")).await;
        assert!(!page["items"].as_array().expect("items").is_empty(), "{page}");
    };
    // Another page size is no other query, nor is another caller.
    good(&format!("{}?limit=2", sessions_of(VIEWER)), &sessions).await;
    good(&format!("{PRINCIPALS}?limit=100"), &principals).await;
    let both = format!("{PRINCIPALS}?types=SERVICE_ACCOUNT&types=USER");
    good(&both, &principals).await;
    good(&format!("{PRINCIPALS}?types=USER,USER"), &users).await;
    refused(&sessions_of(OPERATOR), &sessions).await;
    refused(PRINCIPALS, &sessions).await;
    refused("/api/v1/orgs/basic-org/orgs", &sessions).await;
    refused(&sessions_of(VIEWER), &principals).await;
    refused("/api/v1/orgs/york-org/principals", &principals).await;
    refused(&format!("{PRINCIPALS}?types=USER"), &principals).await;
    refused(&format!("{PRINCIPALS}?types=SERVICE_ACCOUNT"), &users).await;
    refused(PRINCIPALS, &users).await;
    for wrong in [
        &sessions[1..],
        &sessions[..sessions.len() - 1],
        &format!("{sessions}="),
        &format!("{sessions}A"),
        &sessions.to_lowercase(),
        "",
        "null",
        "%7B%22cursor%22%3A%22x%22%7D",
        &"A".repeat(20_000),
    ] {
        refused(&sessions_of(VIEWER), wrong).await;
    }
    let mut changed = sessions.clone().into_bytes();
    let last = changed.len() / 4;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    refused(&sessions_of(VIEWER), std::str::from_utf8(&changed).expect("ASCII")).await;
    let twice = format!("{}?cursor={sessions}&cursor={sessions}", sessions_of(VIEWER));
    get(&server, &admin, &twice).await.failure(400);
}

fn zipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn requests_are_taken_as_real_clients_send_them() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    let base = format!(
        "Authorization: Bearer {bearer}\r\ncdf-version: 20230101\r\nx-cdp-app: test\r\n\
         x-cdp-sdk: CognitePythonSDK:8.22.0\r\naccept: application/json\r\n\
         accept-encoding: gzip, deflate\r\n"
    );
    let zip = format!("{base}Content-Encoding: gzip\r\nContent-Type: application/json\r\n");
    let check = async |method: &str, path: &str, headers: &str, body: &[u8], status: u16| {
        let answer = send(&server, method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.header("x-request-id").expect("a header").len() >= 32, "{answer:?}");
        answer
    };
    let by_ids = format!("{PRINCIPALS}/byids");
    let body = json!({ "items": [{ "id": VIEWER }] }).to_string();
    check("POST", &by_ids, &zip, &zipped(&body), 200).await;
    check("POST", &by_ids, &base, body.as_bytes(), 200).await;
    check("POST", &by_ids, &zip, &zipped("{"), 400).await;
    let plain = format!("{base}Content-Type: text/plain\r\n");
    check("POST", &by_ids, &plain, body.as_bytes(), 200).await;
    // The toolkit: a compressed `{}` with every list, and no body that is said to be compressed.
    check("GET", PRINCIPALS, &zip, &zipped("{}"), 200).await;
    check("GET", &sessions_of(VIEWER), &zip, &zipped("{}"), 200).await;
    check("GET", &sessions_of(VIEWER), &base, b"not even JSON", 200).await;
    check("GET", "/api/v1/principals/me", &zip, b"", 200).await;
    check("GET", "/api/v1/projects/basic-org/", &zip, b"", 200).await;
    // HEAD is GET without the body.
    let whole = check("GET", PRINCIPALS, &base, b"", 200).await;
    let head = check("HEAD", PRINCIPALS, &base, b"", 200).await;
    assert_eq!(
        (head.text(), head.header("content-length")),
        ("", Some(whole.body.len().to_string().as_str()))
    );
    // The caller's own id of the request comes back, if it can.
    let id = async |value: &str| {
        let headers = format!("{base}X-Request-Id: {value}\r\n");
        let answer = send(&server, "GET", PRINCIPALS, &headers, b"").await;
        answer.header("x-request-id").expect("a header").to_owned()
    };
    assert_eq!(id("0d6f7f1e-6a53.4c2b:9_A").await, "0d6f7f1e-6a53.4c2b:9_A");
    let fresh = [id("").await, id("a b").await, id(&"x".repeat(129)).await, id("\"a\"").await];
    for id in &fresh {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    assert!(fresh[0] != fresh[1] && fresh[1] != fresh[2]);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_told_so() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    for path in [
        "/api/v1",
        "/api/v1/",
        "/api/v1/orgs",
        "/api/v1/orgs/",
        "/api/v1/principals",
        "/api/v1/principals/you",
        "/api/v1/token",
        "/api/v1/projects/basic-org/sessions",
        "/api/v1/orgs/basic-org/delete",
        "/api/v1/orgs/basic-org/principals//",
        &format!("{PRINCIPALS}/{VIEWER}"),
        &format!("{PRINCIPALS}/{VIEWER}/sessions/x"),
        &format!("{PRINCIPALS}/{VIEWER}/sessions/revoke/x"),
    ] {
        for token in [bearer.as_str(), "nobody"] {
            for method in ["GET", "POST"] {
                let message = ask(&server, token, method, path, "").await.failure(404);
                assert_eq!(message, "There is nothing at this path.", "{path}");
            }
        }
    }
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let by_ids = format!("{PRINCIPALS}/byids");
    for (path, allowed, wrong) in [
        (PRINCIPALS, "GET, HEAD", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ("/api/v1/orgs/basic-org/orgs", "GET, HEAD", ["POST", "PUT", "DELETE", "PATCH", "X"]),
        ("/api/v1/orgs/basic-org", "GET, HEAD", ["POST", "PUT", "DELETE", "PATCH", "TRACE"]),
        ("/openapi.json", "GET, HEAD", ["POST", "PUT", "DELETE", "PATCH", "get"]),
        (revoke.as_str(), "POST", ["GET", "PUT", "DELETE", "PATCH", "post"]),
        (by_ids.as_str(), "POST", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    ] {
        for method in wrong {
            let answer = ask(&server, &bearer, method, path, "").await;
            assert_eq!(answer.failure(405), format!("This path takes {allowed}."), "{method}");
            assert_eq!(answer.header("allow").expect("a header"), allowed);
        }
    }
}

#[tokio::test]
async fn a_connection_is_kept_whatever_is_answered() {
    let server = TestServer::start();
    let bearer = operator(&server).await;
    let mut stream = TcpStream::connect(server.address("http")).await.expect("a connection");
    let revoke = format!("{}/revoke", sessions_of(VIEWER));
    let none = named(&["aea91e72-a984-4a4c-ba06-a7f54e650825"]);
    let some = {
        viewer(&server).await;
        named(&[&newest(&server, &bearer, VIEWER).await])
    };
    let mut expected = Vec::new();
    for (method, path, body, status) in [
        ("GET", PRINCIPALS, "", 200),
        ("POST", revoke.as_str(), some.as_str(), 204),
        ("GET", "/api/v1/x", "body", 404),
        ("POST", &revoke, &none, 404),
        ("HEAD", PRINCIPALS, "", 200),
        ("DELETE", PRINCIPALS, "", 405),
        ("GET", "/api/v1/principals/me", "", 200),
    ] {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        expected.push(status);
    }
    let last = "GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(last.as_bytes()).await.expect("written");
    expected.push(200);
    let mut answers = String::new();
    timeout(SOON, stream.read_to_string(&mut answers)).await.expect("in time").expect("closed");
    let statuses: Vec<u16> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer[..3].parse().expect("a status"))
        .collect();
    assert_eq!(statuses, expected, "{answers}");
}

#[tokio::test]
async fn what_is_too_much_is_refused_in_the_same_form() {
    let settings = [("TR50D_LIMITS__MAX_FRAME_BYTES", "2000"), ("TR50D_LIMITS__CONNECTIONS", "1")];
    let server = TestServer::with(&settings);
    let bearer = operator(&server).await;
    let path = format!("{PRINCIPALS}/byids");
    let headers = format!("Authorization: Bearer {bearer}\r\n");
    let large = " ".repeat(2001);
    send(&server, "POST", &path, &headers, large.as_bytes()).await.failure(413);
    let zip = format!("{headers}Content-Encoding: gzip\r\n");
    send(&server, "POST", &path, &zip, &zipped(&large)).await.failure(413);
    send(&server, "POST", &path, &zip, b"no gzip").await.failure(400);
    let other = format!("{headers}Content-Encoding: br\r\n");
    send(&server, "POST", &path, &other, b"x").await.failure(415);
    let _only = server.thing("tcp", "only").await;
    let full = async || get(&server, &bearer, PRINCIPALS).await;
    eventually("the server is full", async || full().await.status == 503).await;
    let message = full().await.failure(503);
    let says = "The server is full for your address: limits.connections_per_address,";
    assert!(message.starts_with(says), "{message}");
}

#[tokio::test]
async fn the_description_is_served_without_a_login() {
    let server = TestServer::start();
    let answer = send(&server, "GET", "/openapi.json", "", b"").await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), serde_json::from_str::<Value>(answer.text()).expect("JSON"));
    assert!(answer.text() == std::fs::read_to_string(file).expect("the committed document"));
}

/// Starts sessions of the viewer over HTTP, ten a request; their secret ids.
pub(crate) async fn many_viewers(server: &Endpoints, count: usize) -> Vec<String> {
    let params =
        json!({ "username": "viewer@basicorg.example", "password": "demo-viewer-password" });
    let login = json!({ "command": "api.authenticate", "params": params });
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let logins: serde_json::Map<String, Value> =
            (0..(count - ids.len()).min(10)).map(|n| (n.to_string(), login.clone())).collect();
        let reply = post(server, &Value::from(logins).to_string()).await;
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        for login in reply.as_object().expect("an object").values() {
            ids.push(login["params"]["sessionId"].as_str().expect("an id").to_owned());
        }
    }
    ids
}

/// The pages of the viewer's list, which a walk through it takes while `meanwhile` happens after
/// each of them: the ids in the order in which they came.
async fn walked(
    server: &Endpoints,
    token: &str,
    limit: impl Fn(usize) -> usize,
    mut meanwhile: impl AsyncFnMut(usize),
) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    for number in 0.. {
        let path = format!("{}?limit={}{cursor}", sessions_of(VIEWER), limit(number));
        let page = got(server, token, &path).await;
        let items = page["items"].as_array().expect("items");
        assert!((1..=limit(number)).contains(&items.len()));
        ids.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        meanwhile(number).await;
    }
    ids
}

/// How often each of them is there.
fn counted(ids: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id.as_str()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_are_seen_once_each_while_others_come_and_go() {
    const STAYING: usize = 10_000;
    const GOING: usize = 600;
    let settings = [
        ("TR50D_LIMITS__SESSIONS_PER_PRINCIPAL", "20000"),
        ("TR50D_SESSIONS__HISTORY_MAX", "1000"),
    ];
    let server = TestServer::with(&settings);
    let bearer = operator(&server).await;
    // Those that go are everywhere in the list.
    let (mut staying, mut going) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        going.extend(many_viewers(&server, GOING / 20).await);
        staying.extend(many_viewers(&server, STAYING / 20).await);
    }
    let uuid = |id: &String| {
        let id = base::SessionId::parse(id).expect("an id");
        base::SessionRef::of(&id).uuid().to_string()
    };
    let staying: Vec<String> = staying.iter().map(uuid).collect();

    let mut going = going.into_iter();
    let churn = async |_: usize| {
        let ending: Vec<String> = going.by_ref().take(4).collect();
        // Some end themselves, some are revoked, and others begin.
        for id in &ending[ending.len() / 2..] {
            command(&server, id, "session.end", json!({})).await;
        }
        let revoked: Vec<String> = ending[..ending.len() / 2].iter().map(uuid).collect();
        if !revoked.is_empty() {
            let body = named(&revoked.iter().map(String::as_str).collect::<Vec<_>>());
            let path = format!("{}/revoke", sessions_of(VIEWER));
            let answer = ask(&server, &bearer, "POST", &path, &body).await;
            assert_eq!(answer.status, 204, "{answer:?}");
        }
        many_viewers(&server, 5).await;
    };
    // Others go on meanwhile, at no moment that the walk chooses.
    let beside = async {
        loop {
            for id in many_viewers(&server, 10).await {
                command(&server, &id, "session.end", json!({})).await;
            }
        }
    };
    let sizes = |number: usize| [100, 7, 1000, 1, 64][number % 5];
    let seen = tokio::select! {
        () = beside => unreachable!("it goes on for ever"),
        seen = walked(&server, &bearer, sizes, churn) => seen,
    };
    let counts = counted(&seen);
    let missed = staying.iter().filter(|id| !counts.contains_key(id.as_str())).count();
    let twice = counts.values().filter(|count| **count > 1).count();
    assert_eq!((missed, twice, counts.len() >= STAYING), (0, 0, true));
}

/// Of a user's sessions in two organisations, each list shows its own, page by page.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_elsewhere_cost_pages_and_lose_none() {
    const HERE: usize = 50;
    const ELSEWHERE: usize = 9_000;
    let server = TestServer::start();
    let (bearer, admin) = (operator(&server).await, admin(&server).await);
    let york = json!({ "userId": VIEWER, "orgId": "533ef300310046187700007f" });
    command(&server, &admin, "user.org.add", york.clone()).await;
    many_viewers(&server, HERE).await;
    // At home in York for a while, all begin there.
    let home = |org: &str| json!({ "id": VIEWER, "defaultOrgId": org });
    command(&server, &admin, "user.update", home("533ef300310046187700007f")).await;
    many_viewers(&server, ELSEWHERE).await;
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{}?limit=40{cursor}", sessions_of(VIEWER));
        let page = got(&server, &bearer, &path).await;
        pages.push(page["items"].as_array().expect("items").len());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    // Shorter pages, and still the way on, until all of the others are passed.
    assert_eq!(pages.iter().sum::<usize>(), HERE, "{pages:?}");
    assert!((3..=6).contains(&pages.len()), "{pages:?}");
    command(&server, &admin, "session.org.switch", json!({ "key": "YorkOrg" })).await;
    let path = format!("/api/v1/orgs/york-org/principals/{VIEWER}/sessions?limit=1000");
    let page = got(&server, &admin, &path).await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1000));
    assert!(page["nextCursor"].is_string());
}
