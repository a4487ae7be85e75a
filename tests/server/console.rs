//! The console over HTTP: who gets in, what forms do, what is shown, what goes on.

use client::Version::V311;
use serde_json::{Value, json};
use support::browser::Browser;
use support::http::{Answer, post_with, send};
use support::mqtt::Connect;
use support::{TestServer, call, sessions};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");
const ADMIN: (&str, &str) = ("admin@devicewise.com", "demo-admin-password");

async fn browser<'a>(server: &'a TestServer, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(words), "{answer:?}");
}

async fn lives(server: &TestServer, id: &str) -> bool {
    let body = r#"{"1":{"command":"session.info"}}"#;
    let answer = post_with(server, &format!("sessionId: {id}\r\n"), body).await;
    serde_json::from_str::<Value>(&answer).expect("JSON")["1"]["success"] == true
}

#[tokio::test]
async fn who_is_not_logged_in_gets_the_login_and_nothing_else() {
    let server = TestServer::start();
    let nobody = Browser::new(&server);
    let first = nobody.get("/").await;
    refused(&first, 200, "name=\"password\"");
    assert!(first.text().contains("not encrypted"), "{first:?}");
    for path in ["/o/basic-org/sessions?query=x&state=all", "/me", "/o", "/o/nowhere/things"] {
        let answer = nobody.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        let next: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
        assert_eq!(answer.header("location"), Some(&*format!("/login?next={next}")), "{path}");
    }
    let policy = first.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for forged in ["id", "0123456789abcdef01234567"] {
        let head = format!("GET /o/basic-org/sessions HTTP/1.1\r\nCookie: tr50d={forged}");
        let answer = send(&server, &head, b"").await;
        assert_eq!(answer.status, 303, "{answer:?}");
        assert!(answer.header("set-cookie").is_some_and(|line| line.contains("Max-Age=0")));
    }
}

#[tokio::test]
async fn a_login_leads_to_where_one_wanted_to_go_on_this_server() {
    let server = TestServer::start();
    let mut nobody = Browser::new(&server);
    let wrong = nobody.log_in(&[("username", OPERATOR.0), ("password", "no")]).await;
    refused(&wrong, 401, "role=\"alert\"");
    assert!(wrong.header("set-cookie").is_none(), "{wrong:?}");
    for (next, expected) in [
        ("/o/basic-org/events", "/o/basic-org/events"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        let login = [("username", OPERATOR.0), ("password", OPERATOR.1), ("next", next)];
        let answer = Browser::new(&server).log_in(&login).await;
        assert_eq!(answer.header("location"), Some(expected), "{next}");
        let cookie = answer.header("set-cookie").expect("a cookie");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    }
    let operator = browser(&server, OPERATOR).await;
    let to = |answer: Answer| answer.header("location").expect("a place").to_owned();
    assert_eq!(to(operator.get("/").await), "/o/basic-org/sessions");
    assert_eq!(to(browser(&server, VIEWER).await.get("/").await), "/me");
    // It is a session as all others are.
    let mut client = server.operator("tcp").await;
    let listed = sessions(&mut client, r#"{"protocol":"http"}"#).await;
    assert!(listed.iter().any(|row| row["userAgent"] == "Browser/1"), "{listed:?}");
    let out = operator.post("/logout", &[]).await;
    assert_eq!(out.status, 303, "{out:?}");
    assert!(!lives(&server, operator.session_id()).await);
}

#[tokio::test]
async fn the_cookie_opens_pages_and_the_stream_only() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let cookie = format!("Cookie: tr50d={}", operator.session_id());
    let body = br#"{"1":{"command":"session.info"}}"#;
    for path in ["/api", "/rest/_/session.info", "/json-rpc/12.0", "/file/0123456789abcdef"] {
        let head = format!("POST {path} HTTP/1.1\r\nOrigin: http://x\r\n{cookie}");
        let answer = send(&server, &head, body).await;
        assert!(!answer.text().contains("operator@"), "{path}: {answer:?}");
    }
    let head = format!("GET /api/v1/orgs/basic-org/principals HTTP/1.1\r\n{cookie}");
    assert_eq!(send(&server, &head, b"").await.status, 401);
    let head = format!("GET /metrics HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n{cookie}");
    assert_eq!(send(&server, &head, b"").await.status, 401);
}

#[tokio::test]
async fn a_change_needs_the_form_of_a_page_of_the_session() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let other = browser(&server, VIEWER).await;
    let mut mower = Connect::thing(V311, "mower-1").open(&server).await;
    let mut client = server.operator("tcp").await;
    let listed = sessions(&mut client, r#"{"thingKey":"mower-1"}"#).await;
    let reference = listed[0]["ref"].as_str().expect("a ref").to_owned();
    let path = "/o/basic-org/sessions/end";
    for token in ["", "x", &"A".repeat(86), &token_of(&other).await] {
        let answer = operator.with_csrf(token).post(path, &[("ref", &reference)]).await;
        refused(&answer, 403, "Nothing was changed");
    }
    let form = format!("csrf={}&ref={reference}", token_of(&operator).await);
    for origin in [
        "",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\n{origin}Cookie: tr50d={}", operator.session_id());
        assert_eq!(send(&server, &head, form.as_bytes()).await.status, 403, "{origin}");
    }
    assert_eq!(sessions(&mut client, r#"{"thingKey":"mower-1"}"#).await.len(), 1);
    let ended = operator.post(path, &[("ref", &reference)]).await;
    refused(&ended, 200, "Ended 1 session");
    mower.expect_end().await;
    let again = operator.post(path, &[("ref", &reference)]).await;
    refused(&again, 200, "Ended 0 sessions");
}

/// The token in the forms of somebody's pages.
async fn token_of(browser: &Browser<'_>) -> String {
    let page = browser.page("/me").await;
    let (_, rest) = page.split_once(r#"name="csrf" value=""#).expect("a form");
    rest.split('"').next().expect("a token").to_owned()
}

#[tokio::test]
async fn rights_are_asked_in_the_organisation_of_the_path() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    // What there is not, and what is somebody else's, look alike.
    let (york, nowhere) =
        (operator.get("/o/york-org/sessions").await, operator.get("/o/no-org/sessions").await);
    assert_eq!((york.status, nowhere.status), (403, 403));
    let viewer = browser(&server, VIEWER).await;
    let denied = viewer.get("/o/basic-org/sessions").await;
    refused(&denied, 403, "no permission");
    assert!(!viewer.page("/me").await.contains("/o/basic-org/sessions\""), "no way to it");
    assert_eq!(viewer.post("/o/basic-org/sessions/end", &[("kind", "user")]).await.status, 403);
    // A super administrator looks into two organisations, and the session itself stays where it is.
    let admin = browser(&server, ADMIN).await;
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    assert!(admin.page("/o/basic-org/sessions").await.contains(">mower-1<"));
    assert!(!admin.page("/o/york-org/sessions").await.contains(">mower-1<"));
    let system = admin.page("/o/system/sessions").await;
    assert!(system.contains("admin@devicewise.com"), "{system}");
}

#[tokio::test]
async fn what_others_typed_is_text() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let keys = ["<script>alert(1)<\\script>", "\"><img src=x>", "ä & ö", "a%2Fb?"];
    let mut connected = Vec::new();
    for key in keys {
        connected.push(Connect::thing(V311, key).open(&server).await);
    }
    let mut client = server.operator("tcp").await;
    let listed = sessions(&mut client, r#"{"kind":"application"}"#).await;
    assert_eq!(listed.len(), keys.len());
    let refs = listed.iter().map(|row| row["ref"].as_str().expect("a ref").to_owned());
    let mut pages = vec!["/o/basic-org/sessions".to_owned(), "/o/basic-org/events".to_owned()];
    pages.extend(refs.flat_map(|one| {
        [format!("/o/basic-org/sessions/{one}"), format!("/o/basic-org/sessions/end?ref={one}")]
    }));
    let query: String = form_urlencoded::byte_serialize(keys[1].as_bytes()).collect();
    pages.push(format!("/o/basic-org/sessions?query={query}&sort={query}x&appName={query}"));
    pages.push(format!("/o?q={query}"));
    pages.push(format!("/login?next=/{query}"));
    for path in pages {
        let page = operator.get(&path).await;
        let text = page.text();
        assert!(!text.contains("<script>alert") && !text.contains("<img"), "{path}: {text}");
    }
    // So long a name ends nothing.
    let long = "x".repeat(10_000);
    assert_eq!(operator.get(&format!("/o/basic-org/sessions?query={long}")).await.status, 400);
}

#[tokio::test]
async fn many_end_by_the_filter_of_the_link_when_the_number_is_typed() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut fleet = Vec::new();
    for number in 0..12 {
        fleet.push(Connect::thing(V311, &format!("mower-{number}")).open(&server).await);
    }
    let mut other = Connect::thing(V311, "shed-1").open(&server).await;
    let list = operator.page("/o/basic-org/sessions?prefix=mower-").await;
    assert!(list.contains("/o/basic-org/sessions/end?prefix=mower-"), "{list}");
    let asks = operator.page("/o/basic-org/sessions/end?prefix=mower-").await;
    assert!(asks.contains("End 12 sessions?") && asks.contains("name=\"typed\""), "{asks}");
    let form = [("prefix", "mower-"), ("expected", "12")];
    for typed in [&[][..], &[("typed", "11")], &[("typed", "x")]] {
        let answer = operator.post("/o/basic-org/sessions/end", &[&form[..], typed].concat()).await;
        refused(&answer, 200, "Nothing was ended");
    }
    // More than somebody saw and agreed to, or nobody did.
    for agreed in [&[][..], &[("expected", "5")], &[("expected", "11"), ("typed", "11")]] {
        let form = [&[("prefix", "mower-")][..], agreed].concat();
        let answer = operator.post("/o/basic-org/sessions/end", &form).await;
        refused(&answer, 200, "Nothing was ended");
    }
    let form = [&form[..], &[("typed", "12")]].concat();
    // A list that has ended ones as well means those that live.
    let all = operator.page("/o/basic-org/sessions/end?state=all&sort=whoAmI").await;
    assert!(all.contains("End 13 sessions?"), "{all}");
    let all = operator.page("/o/basic-org/sessions/end?state=all&prefix=mower-").await;
    assert!(all.contains("End 12 sessions?"), "{all}");
    let ended = operator.page("/o/basic-org/sessions?state=ended").await;
    assert!(!ended.contains("End all") && !ended.contains("End those"), "{ended}");
    let refs: Vec<_> = (0..1001).map(|_| ("ref", "x")).collect();
    let refs = [&refs[..], &[("typed", "1001")]].concat();
    let many = operator.post("/o/basic-org/sessions/end", &refs).await;
    refused(&many, 200, "At most 1,000 can be chosen");
    let ended = operator.post("/o/basic-org/sessions/end", &form).await;
    refused(&ended, 200, "Ended 12 sessions");
    for mower in &mut fleet {
        mower.expect_end().await;
    }
    other.expect_quiet().await;
    assert!(lives(&server, operator.session_id()).await, "never one's own");
}

#[tokio::test]
async fn what_became_of_each_that_was_chosen_is_told() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut live = Connect::thing(V311, "mower-live").open(&server).await;
    let gone = Connect::thing(V311, "mower-gone").open(&server).await;
    let mut client = server.operator("tcp").await;
    let listed = sessions(&mut client, "{}").await;
    let reference = |who: &str| {
        let found = listed.iter().find(|session| session["whoAmI"] == who).expect("listed");
        found["ref"].as_str().expect("a ref").to_owned()
    };
    let (own, chosen) = (
        sessions(&mut client, r#"{"protocol":"http"}"#).await[0]["ref"].clone(),
        ["mower-live", "mower-gone"].map(reference),
    );
    drop(gone);
    let mut other = server.operator("tcp").await;
    support::eventually("it has left", async || {
        sessions(&mut other, r#"{"thingKey":"mower-gone"}"#).await.is_empty()
    })
    .await;
    let refs = [&*chosen[0], &*chosen[1], own.as_str().expect("a ref"), "nobody's"];
    let answer = operator.post("/o/basic-org/sessions/end", &refs.map(|one| ("ref", one))).await;
    for words in ["Ended 1 session", "mower-live", "mower-gone", OPERATOR.0, "nobody"] {
        refused(&answer, 200, words);
    }
    live.expect_end().await;
}

#[tokio::test]
async fn who_is_banned_with_the_end_does_not_come_back() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut mower = Connect::thing(V311, "mower-1").open(&server).await;
    let mut client = server.operator("tcp").await;
    let listed = sessions(&mut client, r#"{"thingKey":"mower-1"}"#).await;
    let reference = listed[0]["ref"].as_str().expect("a ref");
    let form = [("ref", reference), ("ban", "3600"), ("reason", "stolen")];
    let ended = operator.post("/o/basic-org/sessions/end", &form).await;
    refused(&ended, 200, "Ended 1 session");
    mower.expect_end().await;
    let thing = call(&mut client, "thing.find", r#"{"key":"mower-1"}"#).await;
    assert_eq!((&thing["disabled"], &thing["reason"]), (&json!(true), &json!("stolen")));
    assert!(thing["disabledUntil"].is_string(), "{thing}");
}

#[tokio::test]
async fn a_list_is_kept_up_to_date_by_the_cells_that_change() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut client = server.operator("tcp").await;
    let own = sessions(&mut client, r#"{"protocol":"http"}"#).await;
    let commands = own[0]["commandCount"].clone();
    let mut stream = operator.watch("/o/basic-org/sessions?").await;
    let head = stream.until("\"order\":").await;
    assert!(head.contains("text/event-stream") && head.contains("X-Accel-Buffering: no"), "{head}");
    let mower = Connect::thing(V311, "mower-1").open(&server).await;
    let news = stream.until(">mower-1<").await;
    assert!(news.contains("\"total\":\"3 sessions\""), "{news}");
    drop(mower);
    stream.until("\"total\":\"2 sessions\"").await;
    // Looking on is no command, and ends with the session.
    let own = sessions(&mut client, r#"{"protocol":"http"}"#).await;
    assert_eq!(own[0]["commandCount"], commands, "{own:?}");
    operator.post("/logout", &[]).await;
    stream.until("event: ended").await;
    let operator = browser(&server, OPERATOR).await;
    for view in ["/o/basic-org/nothing", "/o/basic-org/sessions/end", "/api", "x", ""] {
        let head =
            format!("GET /events?view={view} HTTP/1.1\r\nCookie: tr50d={}", operator.session_id());
        assert_eq!(send(&server, &head, b"").await.status, 400, "{view}");
    }
}

#[tokio::test]
async fn views_are_kept_for_their_user() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let form = [("name", "tcp only <b>"), ("query", "protocol=tcp&state=all")];
    let kept = operator.post("/o/basic-org/sessions/views", &form).await;
    assert_eq!(kept.header("location"), Some("/o/basic-org/sessions?protocol=tcp&state=all"));
    let again = browser(&server, OPERATOR).await;
    let page = again.page("/o/basic-org/sessions").await;
    assert!(
        page.contains("sessions?protocol=tcp&amp;state=all\"><bdi>tcp only &lt;b&gt;<"),
        "{page}"
    );
    again.post("/o/basic-org/sessions/views", &[("name", "tcp only <b>"), ("forget", "1")]).await;
    assert!(!again.page("/o/basic-org/sessions").await.contains("tcp only"));
}

#[tokio::test]
async fn an_overview_says_what_the_commands_say() {
    let server = TestServer::start();
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    let operator = browser(&server, OPERATOR).await;
    let page = operator.page("/o/basic-org/").await;
    assert!(page.contains("2 sessions") && page.contains("mqtt 1"), "{page}");
    assert!(!page.contains("Limits"), "the server is not the operator's: {page}");
    let admin = browser(&server, ADMIN).await;
    let page = admin.page("/o/basic-org/").await;
    assert!(page.contains("<h2>Server</h2>") && page.contains("Limits"), "{page}");
}
