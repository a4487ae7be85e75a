//! The console with hostile names in all places that have names: every page that links lead to, every
//! cell of the stream and every message that quotes is text. And each of these pages asked for by
//! somebody without rights.

use std::collections::{BTreeSet, VecDeque};

use client::Client;
use client::Version::V311;
use serde_json::{Value, json};
use support::browser::Browser;
use support::http::{Answer, send};
use support::mqtt::Connect;
use support::{TOKEN, TestServer, call, eventually, sessions};

use super::html;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

/// Harmful in a page, in an attribute and in a text that is read from left to right; and invisible.
pub(crate) const EVIL: &str = "<img src=x onerror=alert(1)>\"'&lt;\u{202e}\u{200b}evil";

/// The same where names have to be readable from left to right.
const NAME: &str = "<img src=x onerror=alert(1)>\"'&lt;\u{200b}evil";

/// What a page that shows somebody's names has of them.
pub(crate) const SHOWN: &str = "onerror=alert(1)";

/// Pages that links lead to at most.
const PAGES_MAX: usize = 200;

pub(crate) async fn tell(client: &mut Client, command: &str, params: Value) -> Value {
    call(client, command, &params.to_string()).await
}

/// Names of this kind wherever there can be one.
pub(crate) async fn fill(server: &TestServer) -> Vec<Box<dyn std::any::Any>> {
    let mut admin = server.admin("tcp").await;
    let mut client = server.operator("tcp").await;
    let client = &mut client;
    let basic = json!({"key": "BasicOrg", "name": NAME, "desc": EVIL});
    tell(&mut admin, "org.update", basic).await;
    let methods = json!({EVIL: {"name": EVIL, "notificationVariables": {EVIL: {"name": EVIL}}}});
    let def = json!({"key": NAME, "name": NAME, "methods": methods,
        "properties": {EVIL: {"name": EVIL, "unit": EVIL}},
        "attributes": {EVIL: {"name": EVIL}},
        "alarms": {EVIL: {"name": EVIL, "desc": EVIL, "states": [{"name": EVIL}, {"name": EVIL}]}}});
    tell(client, "thing_def.create", def).await;
    let thing = json!({"key": EVIL, "name": EVIL, "desc": EVIL, "defKey": NAME, "tags": [EVIL],
        "secTags": [EVIL], "imei": EVIL, "iccid": EVIL, "msisdn": EVIL});
    tell(client, "thing.create", thing).await;
    let of_thing = |params: Value| {
        let mut params = params;
        params["thingKey"] = EVIL.into();
        params
    };
    let long = EVIL.repeat(200);
    for (command, params) in [
        ("property.publish", json!({"key": EVIL, "value": 1.5})),
        ("property.publish", json!({"key": EVIL, "value": 2.5})),
        ("attribute.publish", json!({"key": EVIL, "value": long})),
        ("alarm.publish", json!({"key": EVIL, "state": 1, "msg": EVIL})),
        (
            "location.publish",
            json!({"lat": 1.5, "lng": 2.5, "street": EVIL, "city": EVIL, "fixType": EVIL}),
        ),
        ("log.publish", json!({"msg": EVIL})),
        ("mailbox.send", json!({"command": EVIL, "params": {EVIL: EVIL}, "ackTimeout": 0})),
        (
            "method.exec",
            json!({"method": EVIL, "params": {EVIL: EVIL}, "ackTimeout": 0, "ttl": 600}),
        ),
        ("thing.trace", json!({"seconds": 600})),
    ] {
        let params = of_thing(params);
        let params = match command {
            "thing.trace" => json!({"key": EVIL, "seconds": 600}),
            _ => params,
        };
        tell(client, command, params).await;
    }
    // The device answers, over MQTT with a client id of this kind.
    let device = Connect::thing(V311, EVIL).open(server).await;
    let mut worker = support::connect(&server.url("tcp", EVIL, TOKEN)).await;
    let mails = tell(&mut worker, "mailbox.check", json!({})).await;
    let mail = &mails["messages"][0]["id"];
    let ack = json!({"id": mail, "errorCode": 7, "errorMessage": EVIL, "params": {EVIL: EVIL}});
    tell(&mut worker, "mailbox.ack", ack).await;
    let role = json!({"key": NAME, "name": NAME, "desc": EVIL, "perms": ["thing.list"],
        "topicPublish": ["a/<img>/#"], "topicSubscribe": ["b/<img>/#"]});
    tell(client, "role.create", role).await;
    let app = json!({"name": NAME, "desc": EVIL, "roles": [NAME], "autoRegister": true,
        "autoRegTags": [EVIL], "token": "a-token-of-sixteen"});
    let app = tell(client, "app.create", app).await;
    tell(client, "app.token.create", json!({"appId": app["id"], "name": format!("2{NAME}")})).await;
    let _ = support::connect(&server.url("tcp", "other", "a-token-of-sixteen")).await;
    tell(client, "user.token.create", json!({"name": NAME, "perms": ["thing.list"]})).await;
    let viewer = json!({"emailAddress": VIEWER.0, "firstName": NAME, "lastName": NAME,
        "company": NAME, "disabled": true, "reason": NAME});
    tell(client, "user.update", viewer).await;
    tell(client, "user.update", json!({"emailAddress": VIEWER.0, "disabled": false})).await;
    let member = json!({"emailAddress": VIEWER.0, "roles": []});
    tell(client, "user.org.update", member).await;
    let banned = json!({"key": "banned", "name": EVIL, "tags": [EVIL]});
    tell(client, "thing.create", banned).await;
    tell(client, "thing.update", json!({"key": "banned", "disabled": true, "reason": NAME})).await;
    // A login and a refused one of this kind.
    let head = format!("POST /api HTTP/1.1\r\nUser-Agent: <img src=x>\"' {SHOWN}");
    let login = json!({"auth": {"command": "api.authenticate",
        "params": {"username": OPERATOR.0, "password": OPERATOR.1}}});
    assert_eq!(send(server, &head, login.to_string().as_bytes()).await.status, 200);
    let wrong = [("username", EVIL), ("password", EVIL)];
    let refused = Browser::new(server).log_in(&wrong).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    html::check(refused.text());
    vec![Box::new(device), Box::new(worker)]
}

/// What kind of page an address is of: those of other ids show the same.
fn kind(address: &str) -> String {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let parts = path.split('/').map(|part| match part.len() > 23 {
        true => "*",
        false => part,
    });
    let fields = form_urlencoded::parse(query.as_bytes());
    let named: BTreeSet<_> = fields.map(|(name, _)| name.into_owned()).collect();
    format!("{}?{named:?}", parts.collect::<Vec<_>>().join("/"))
}

/// What a page has to be like, whatever is on it.
fn check_page(address: &str, answer: &Answer) {
    let context = || format!("{address}: {}", answer.head);
    assert!(
        answer.header("cache-control").is_some_and(|how| how.contains("no-store")),
        "{}",
        context()
    );
    let policy = answer.header("content-security-policy").unwrap_or_default();
    assert!(
        policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
        "{}",
        context()
    );
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{}", context());
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{}", context());
    if !answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
        return;
    }
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{}", context());
    let found = html::check(answer.text());
    assert!(found.is_empty(), "{address}: {found:?}\n{}", answer.text());
}

/// What somebody finds by links, and where forms are sent to.
#[derive(Default)]
struct Found {
    pages: Vec<(String, Answer)>,
    forms: BTreeSet<String>,
}

/// A page, however many were asked for a moment ago.
async fn patient(browser: &Browser<'_>, address: &str) -> Answer {
    let mut answer = browser.get(address).await;
    let asked = async || {
        if answer.status == 429 {
            answer = browser.get(address).await;
        }
        answer.status != 429
    };
    eventually("there is room for a command", asked).await;
    answer
}

async fn crawl(browser: &Browser<'_>, starts: &[&str]) -> Found {
    let mut found = Found::default();
    let mut waiting: VecDeque<String> = starts.iter().map(|start| (*start).to_owned()).collect();
    let mut seen = BTreeSet::new();
    while let Some(address) = waiting.pop_front() {
        if !seen.insert(kind(&address)) {
            continue;
        }
        assert!(seen.len() <= PAGES_MAX, "no end: {seen:#?}");
        let answer = patient(browser, &address).await;
        assert!(matches!(answer.status, 200 | 303), "{address}: {answer:?}");
        check_page(&address, &answer);
        if answer.status == 200 && !address.ends_with("/dump") {
            for (name, target) in html::addresses(answer.text()) {
                let is_own = target.starts_with('/') && !target.starts_with("//");
                let is_known = ["#main", "data:,", "otpauth://"];
                let is_known = is_known.iter().any(|known| target.starts_with(known));
                assert!(is_own || is_known, "{address}: {name} {target}");
                if matches!(name.as_str(), "action" | "formaction") {
                    found.forms.insert(target.split('?').next().unwrap_or_default().to_owned());
                } else if is_own && !target.starts_with("/docs") && !target.starts_with("/console.")
                {
                    waiting.push_back(target);
                }
            }
        }
        found.pages.push((address, answer));
    }
    found
}

const STARTS: [&str; 8] = [
    "/o/basic-org/",
    "/o/basic-org/sessions?state=all",
    "/o/basic-org/things",
    "/o/basic-org/events",
    "/o/basic-org/access/users",
    "/me",
    "/o",
    "/search?q=evil",
];

#[tokio::test]
async fn every_page_shows_names_as_text_and_only_to_whom_may_see_them() {
    let server = TestServer::start();
    let _connected = fill(&server).await;
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    // Everything is asked for twice, so that forms with hostile names are there, too.
    for name in [EVIL, "<script>"] {
        let view = [("name", "<img src=x>"), ("query", "query=%3Cimg%3E")];
        operator.post("/o/basic-org/sessions/views", &view).await;
        let file = name.replace('"', "%22");
        let page: String = EVIL.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let sent = operator.upload(&format!("/o/basic-org/things/{page}/file"), &file, b"x").await;
        assert_eq!(sent.status, 303, "{sent:?}");
    }
    let found = crawl(&operator, &STARTS).await;
    let shown = found
        .pages
        .iter()
        .filter(|(_, page)| page.body.windows(SHOWN.len()).any(|at| at == SHOWN.as_bytes()));
    let (shown, all) = (shown.count(), found.pages.len());
    assert!(all > 60 && shown > all / 2, "{shown} of {all}: {:#?}", addresses(&found));
    assert!(found.forms.len() > 25, "{:#?}", found.forms);
    // Who has no right finds none of it, by no address and no form.
    let mut client = server.operator("tcp").await;
    let before = state(&mut client).await;
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    let nobody = Browser::new(&server);
    let is_everybodys = |address: &str| {
        let path = address.split('?').next().unwrap_or_default();
        matches!(path, "/" | "/o" | "/search" | "/login" | "/logout")
            || path == "/me"
            || path.starts_with("/me/")
    };
    for (address, _) in &found.pages {
        let answer = nobody.get(address).await;
        assert!(matches!(answer.status, 200 | 303), "{address}: {answer:?}");
        assert!(!answer.text().contains(SHOWN), "{address}: {answer:?}");
        if answer.status == 200 {
            assert!(address == "/" || address.starts_with("/login"), "{address}");
        }
        if !is_everybodys(address) {
            let answer = viewer.get(address).await;
            assert!(matches!(answer.status, 303 | 403 | 404), "{address}: {answer:?}");
            check_page(address, &answer);
            let names = html::text_of_main(answer.text());
            assert!(!names.contains(SHOWN), "{address}: {answer:?}");
            let piece = viewer.get(&address.replace("/o/basic-org", "/o/york-org")).await;
            assert!(matches!(piece.status, 303 | 403 | 404), "{address}: {piece:?}");
        }
    }
    let fields = [
        ("method", "x"),
        ("name", "x"),
        ("reason", "x"),
        ("seconds", "60"),
        ("ban", "always"),
        ("key", "x"),
        ("perms", "thing"),
        ("what", "disable"),
        ("password", "a-new-password"),
        ("required", "true"),
        ("emailAddress", "x@basicorg.example"),
        ("kind", "application"),
        ("expected", "3"),
        ("hours", "1"),
        ("roles", "x"),
        ("isOrgAdmin", "true"),
    ];
    for form in found.forms.iter().filter(|form| !is_everybodys(form)) {
        let answer = viewer.post(form, &fields).await;
        // One's own settings are everybody's; a file has to be one before anybody asks for rights.
        let is_own = form.ends_with("/sessions/views") || form.ends_with("/file");
        assert!(is_own || matches!(answer.status, 403 | 404), "{form}: {answer:?}");
        let forged = operator.with_csrf(viewer.csrf()).post(form, &fields).await;
        assert_eq!(forged.status, 403, "{form}: {forged:?}");
        let stranger = nobody.post(form, &fields).await;
        assert_eq!((stranger.status, stranger.header("location")), (303, Some("/login?next=%2F")));
    }
    assert_eq!(state(&mut client).await, before);
}

fn addresses(found: &Found) -> Vec<&str> {
    found.pages.iter().map(|(address, _)| address.as_str()).collect()
}

/// What there is, as far as forms change it.
async fn state(client: &mut Client) -> Vec<Value> {
    let mut state = Vec::new();
    for command in ["thing.list", "role.list", "app.list", "user.list", "thing_def.list"] {
        let listed = call(client, command, r#"{"sort":"id","limit":500}"#).await;
        let rows = listed["result"].as_array().expect("a list").iter();
        let named = rows.map(|row| {
            json!([
                row["id"],
                row["key"],
                row["name"],
                row["emailAddress"],
                row["disabled"],
                row["perms"],
                row["isOrgAdmin"],
                row["mfaRequired"]
            ])
        });
        state.push(named.collect());
    }
    let live = sessions(client, r#"{"kind":"application"}"#).await;
    state.push(live.iter().map(|row| row["ref"].clone()).collect());
    state
}

#[tokio::test]
async fn messages_quote_what_was_asked_as_text() {
    let server = TestServer::start();
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let evil: String = form_urlencoded::byte_serialize(EVIL.as_bytes()).collect();
    let long = "x".repeat(10_000);
    let path: String = EVIL.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let org = "/o/basic-org";
    let pages = [
        ("/login", &["next", "username"][..]),
        ("/search", &["q", "type", "offset"]),
        ("/o", &["q", "from", "offset", "keys"]),
        ("/me", &["done", "offset"]),
        ("/me/end", &["ref", "others"]),
        (&format!("{org}/"), &["q", "done"]),
        (
            &format!("{org}/sessions"),
            &[
                "query",
                "state",
                "kind",
                "protocol",
                "remoteAddr",
                "startedAfter",
                "asOf",
                "endReason",
                "tags",
                "sort",
                "offset",
                "appName",
                "defKey",
                "prefix",
                "thingKey",
            ],
        ),
        (&format!("{org}/sessions/end"), &["ref", "query", "kind", "asOf", "startedAfter"]),
        (
            &format!("{org}/things"),
            &[
                "query",
                "connected",
                "defKey",
                "tags",
                "disabled",
                "prefix",
                "protocol",
                "hasLoc",
                "remoteAddr",
                "lastSeenAfter",
                "endReason",
                "sort",
                "offset",
            ],
        ),
        (&format!("{org}/things/pump-1/history?of=property"), &["name", "last"]),
        (&format!("{org}/things/pump-1/history"), &["of", "name"]),
        (&format!("{org}/things/pump-1/run"), &["method"]),
        (&format!("{org}/things/pump-1/trace"), &["after"]),
        (&format!("{org}/things/pump-1/file"), &["name"]),
        (&format!("{org}/things/pump-1/file/delete"), &["name"]),
        (&format!("{org}/events"), &["types", "key", "remoteAddr", "end", "before", "iterator"]),
        (&format!("{org}/access/users"), &["query", "admins", "sort", "offset", "done"]),
        (&format!("{org}/access/invites/withdraw"), &["emailAddress"]),
        (&format!("{org}/access/roles"), &["sort", "offset"]),
        (&format!("{org}/access/apps"), &["query", "sort", "offset"]),
        (
            &format!("{org}/access/trail"),
            &[
                "user",
                "command",
                "target",
                "class",
                "outcome",
                "cause",
                "remoteAddr",
                "start",
                "end",
                "iterator",
            ],
        ),
        (&format!("{org}/sessions/{path}"), &["x"]),
        (&format!("{org}/things/{path}"), &["x"]),
        (&format!("{org}/things/{path}/ban"), &["x"]),
        (&format!("{org}/things/{path}/mails/{path}"), &["x"]),
        (&format!("{org}/access/users/{path}"), &["x"]),
        (&format!("{org}/access/users/{path}/{path}"), &["x"]),
        (&format!("{org}/access/roles/{path}/delete"), &["x"]),
        (&format!("{org}/access/apps/{path}/tokens/{path}"), &["x"]),
        (&format!("/me/tokens/{path}/delete"), &["x"]),
        (&format!("/o/{path}/sessions"), &["x"]),
        (&format!("{org}/{path}"), &["x"]),
    ];
    let mut client = server.operator("tcp").await;
    tell(&mut client, "thing.create", json!({"key": "pump-1"})).await;
    for (path, names) in pages {
        let joint = if path.contains('?') { '&' } else { '?' };
        for name in names {
            for value in
                [evil.as_str(), long.as_str(), "%00", "%ff%fe", "18446744073709551615", "-1"]
            {
                let address = format!("{path}{joint}{name}={value}");
                let answer = operator.get(&address).await;
                assert!(answer.status < 500, "{address}: {answer:?}");
                check_page(&address, &answer);
            }
        }
    }
    // The same in forms, where the messages are those of changes.
    let posts = [
        ("/me/password", &["old", "new", "again"][..]),
        ("/me/factor", &["password"]),
        ("/me/factor/confirm", &["code"]),
        ("/me/factor/remove", &["code", "password"]),
        ("/me/tokens", &["name", "expires", "perms"]),
        ("/me/invites", &["orgId", "answer"]),
        ("/me/end", &["ref"]),
        ("/o/basic-org/sessions/end", &["ref", "expected", "typed", "query", "ban"]),
        ("/o/basic-org/access/users/533ef300310046187700007f/ban", &["ban", "reason"]),
        ("/o/basic-org/sessions/views", &["name", "query"]),
        ("/o/basic-org/things/pump-1/ban", &["reason", "hours", "until"]),
        ("/o/basic-org/things/pump-1/run", &["method", "params", "ttl"]),
        ("/o/basic-org/things/pump-1/trace", &["seconds"]),
        ("/o/basic-org/things/pump-1/file/address", &["name"]),
        ("/o/basic-org/things/pump-1/file/delete", &["name"]),
        ("/o/basic-org/access/roles", &["key", "name", "desc", "perms", "topicPublish"]),
        ("/o/basic-org/access/apps", &["name", "desc", "roles"]),
        ("/o/basic-org/access/invites", &["emailAddress", "password", "roles"]),
        ("/o/basic-org/access/invites/withdraw", &["emailAddress"]),
    ];
    for (path, names) in posts {
        for name in names {
            for value in [EVIL, "\0", "-1", "18446744073709551615", long.as_str()] {
                let answer = operator.post(path, &[(name, value)]).await;
                assert!(answer.status < 500, "{path} {name}: {answer:?}");
                check_page(path, &answer);
            }
        }
    }
}

#[tokio::test]
async fn ids_of_another_organisation_are_nothing() {
    let server = TestServer::start();
    let mut admin = server.admin("tcp").await;
    let york = json!({"emailAddress": "chief@yorkorg.example", "password": "chief-password",
        "defaultOrgId": "533ef300310046187700007f"});
    tell(&mut admin, "user.create", york).await;
    let member = json!({"emailAddress": "chief@yorkorg.example", "isOrgAdmin": true,
        "orgId": "533ef300310046187700007f"});
    tell(&mut admin, "user.org.add", member).await;
    let _connected = fill(&server).await;
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let found = crawl(&operator, &STARTS).await;
    let chief = Browser::login(&server, "chief@yorkorg.example", "chief-password").await;
    // Whose organisation it is, sees it.
    assert_eq!(chief.get("/o/york-org/access/users").await.status, 200);
    let in_york = |address: &str| address.replace("/o/basic-org", "/o/york-org");
    for (address, _) in
        found.pages.iter().filter(|(address, _)| address.starts_with("/o/basic-org"))
    {
        assert_eq!(chief.get(address).await.status, 403, "{address}");
        let answer = chief.get(&in_york(address)).await;
        let text = html::text_of_main(answer.text());
        // What was asked for stands in forms, and in what is said of a thing that there is not.
        let is_quoted = address.contains('?') || address.contains("/things/");
        assert!(is_quoted || !text.contains(SHOWN), "{address}: {text}");
        let is_of_one = address.split(['/', '?']).any(|part| {
            part.len() >= 24 && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        });
        if is_of_one {
            assert!(matches!(answer.status, 303 | 403 | 404), "{address}: {answer:?}");
        }
    }
    let mut client = server.operator("tcp").await;
    let before = state(&mut client).await;
    let forms = found.forms.iter().filter(|form| form.starts_with("/o/basic-org"));
    for form in forms {
        let fields = [
            ("name", "x"),
            ("ban", "always"),
            ("what", "disable"),
            ("seconds", "60"),
            ("password", "a-new-password"),
            ("required", "true"),
            ("perms", "thing"),
        ];
        assert_eq!(chief.post(form, &fields).await.status, 403, "{form}");
        let answer = chief.post(&in_york(form), &fields).await;
        assert!(answer.status < 500, "{form}: {answer:?}");
    }
    assert_eq!(state(&mut client).await, before);
}
