//! Addresses of the console: which columns a list has, what a form makes of them, what leads to where,
//! and that every refusal is a page.

use client::Version::{V5, V311};
use percent_encoding::percent_decode_str;
use serde_json::json;
use support::browser::Browser;
use support::http::send;
use support::mqtt::Connect;
use support::{Endpoints, TestServer, call};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");

const SESSIONS: &str = "/o/basic-org/sessions";

async fn operator(server: &Endpoints) -> Browser<'_> {
    Browser::login(server, OPERATOR.0, OPERATOR.1).await
}

/// The names of the columns of a page's list, in their order.
fn columns(page: &str) -> Vec<&str> {
    let head = page.split("</thead>").next().unwrap_or_default();
    let cells = head.split("data-cell=\"").skip(1);
    cells.filter_map(|cell| cell.split('"').next()).collect()
}

/// The cell of a column in the row of which the text says something.
fn cell<'a>(page: &'a str, row: &str, column: &str) -> &'a str {
    let row = page.split("<tr data-id=").skip(1).find(|text| text.contains(row)).expect("a row");
    let (_, cell) = row.split_once(&format!("data-cell=\"{column}\">")).expect("a cell");
    cell.split("</td>").next().unwrap_or_default()
}

#[tokio::test]
async fn an_address_chooses_columns() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let _mower = Connect::thing(V5, "mower-1").id("the-mower").open(&server).await;
    let page = operator.page(SESSIONS).await;
    let usual = ["who", "kind", "protocol", "from", "since", "idle", "commands", "state", "act"];
    assert_eq!(columns(&page), usual);
    let chosen = "columns=who,org,app,mqtt,keepAlive,bytesIn,outbox";
    let page = operator.page(&format!("{SESSIONS}?{chosen}")).await;
    let expected = ["who", "org", "app", "mqtt", "keepAlive", "bytesIn", "outbox", "act"];
    assert_eq!(columns(&page), expected);
    let of_mower = |column| cell(&page, ">mower-1<", column);
    assert!(of_mower("mqtt").contains('5'), "{page}");
    assert!(of_mower("keepAlive").ends_with(" s"), "{page}");
    assert!(of_mower("org").contains("BasicOrg"), "{page}");
    assert!(of_mower("bytesIn").parse::<u64>().is_ok_and(|bytes| bytes > 0), "{page}");
    assert_eq!(of_mower("outbox"), "0");
    // Of a browser, nothing of that is known.
    assert_eq!(cell(&page, OPERATOR.0, "mqtt"), "");
    // The list is live with them, sorted with them, and kept with them.
    assert!(
        page.contains("sessions?columns=who,org,app,mqtt,keepAlive,bytesIn,outbox\""),
        "{page}"
    );
    assert!(page.contains(",outbox&amp;sort="), "{page}");
    assert!(page.contains(" name=\"columns\" value=\"mqtt\" checked"), "{page}");
    assert!(!page.contains(" name=\"columns\" value=\"kind\" checked"), "{page}");
    let end = "/o/basic-org/sessions/end?\"";
    assert!(page.contains(end), "what ends does not depend on columns: {page}");
}

#[tokio::test]
async fn what_is_no_column_is_left_out() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    for (asked, expected) in [
        ("nothing", ""),
        ("nothing,%00,%3Cb%3E,,", ""),
        ("idle,nothing", "?columns=who,idle"),
        ("act", "?columns=who"),
        ("who&columns=idle&columns=kind", "?columns=who,kind,idle"),
        ("kind,protocol,from,since,idle,commands,state,who", ""),
    ] {
        let answer = operator.get(&format!("{SESSIONS}?columns={asked}")).await;
        assert_eq!(answer.status, 303, "{asked}: {answer:?}");
        assert_eq!(answer.header("location"), Some(&*format!("{SESSIONS}{expected}")), "{asked}");
        operator.page(&format!("{SESSIONS}{expected}")).await;
    }
}

#[tokio::test]
async fn a_form_leads_to_an_address_of_what_was_filled_in() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let usual = "columns=who&columns=kind&columns=protocol&columns=from&columns=since&columns=idle\
                 &columns=commands&columns=state";
    for (path, asked, expected) in [
        (SESSIONS, format!("query=&state=&kind=user&protocol=&asOf=&{usual}"), "?kind=user"),
        (SESSIONS, format!("query=&state=&{usual}"), ""),
        (SESSIONS, "query=+&state=all&sort=whoAmI".into(), "?state=all&sort=whoAmI"),
        (SESSIONS, "query=a+%26+b%3D&kind=".into(), "?query=a+%26+b%3D"),
        ("/o/basic-org/things", "query=&connected=&tags=a&tags=".into(), "?tags=a"),
        (
            "/o/basic-org/events",
            "types=session.*&types=login.*&key=&end=".into(),
            "?types=session.*&types=login.*",
        ),
    ] {
        let answer = operator.get(&format!("{path}?{asked}")).await;
        assert_eq!(answer.status, 303, "{asked}: {answer:?}");
        assert_eq!(answer.header("location"), Some(&*format!("{path}{expected}")), "{asked}");
        operator.page(&format!("{path}{expected}")).await;
    }
    let view = [("name", "mine"), ("query", "query=&kind=user&columns=nothing,tls")];
    let kept = operator.post("/o/basic-org/sessions/views", &view).await;
    let expected = format!("{SESSIONS}?kind=user&columns=who,tls");
    assert_eq!(kept.header("location"), Some(&*expected));
    let page = operator.page(SESSIONS).await;
    assert!(page.contains("?kind=user&amp;columns=who,tls\"><bdi>mine<"), "{page}");
}

#[tokio::test]
async fn the_columns_of_an_address_are_live() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let mut stream = operator.watch(&format!("{SESSIONS}?columns=who,mqtt")).await;
    stream.until("\"order\":").await;
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    let news = stream.until(">mower-1<").await;
    let news = news + &stream.until("\n\n").await;
    assert!(news.contains("\"mqtt\":\"") && !news.contains("\"kind\":"), "{news}");
}

#[tokio::test]
async fn links_lead_to_what_they_name() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let mut client = server.operator("tcp").await;
    let keys =
        ["..", ".", "~..", "%2e%2e", "..%2F", "a?b=c&d", "ä & ö", "<b>", "\"'", "a b;c", "~", "\\"];
    let mut connected = Vec::new();
    for key in keys {
        connected.push(Connect::thing(V311, key).open(&server).await);
        let role = json!({"key": key, "perms": ["thing.list"]}).to_string();
        call(&mut client, "role.create", &role).await;
        call(&mut client, "thing_def.create", &json!({"key": key}).to_string()).await;
    }
    let mut pages: Vec<String> = [
        "/o/basic-org/",
        SESSIONS,
        "/o/basic-org/events",
        "/o/basic-org/things",
        "/o/basic-org/access/roles",
        "/o/basic-org/access/trail",
    ]
    .map(str::to_owned)
    .into();
    for key in keys {
        let words: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
        pages.push(format!("/search?q={words}"));
    }
    let sessions = operator.page(SESSIONS).await;
    pages.extend(links(&sessions).into_iter().filter(|link| {
        link.strip_prefix(SESSIONS).is_some_and(|rest| rest.starts_with('/') && !rest.contains('?'))
    }));
    let mut things = std::collections::BTreeSet::new();
    for path in pages {
        let page = operator.page(&path).await;
        for link in links(&page) {
            let bare = link.split(['?', '#']).next().unwrap_or_default();
            for segment in bare.split('/') {
                // A browser reads encoded dots as dots.
                let segment = segment.to_ascii_lowercase().replace("%2e", ".");
                assert!(segment != "." && segment != "..", "{path}: {link}");
            }
            if bare.starts_with("/o/basic-org/things/") || bare.contains("/access/roles/") {
                things.insert(bare.to_owned());
            }
        }
    }
    let of_things = things.iter().filter(|link| link.contains("/things/"));
    assert_eq!(of_things.count(), keys.len(), "{things:?}");
    for link in &things {
        let page = operator.page(link).await;
        if let Some(segment) = link.strip_prefix("/o/basic-org/things/") {
            let name = percent_decode_str(segment).decode_utf8_lossy();
            let is_way = |key: &str| matches!(key.trim_start_matches('~'), "." | "..");
            let named = |key: &str| if is_way(key) { format!("~{key}") } else { key.to_owned() };
            let key = keys.iter().find(|key| named(key) == name);
            let key = key.unwrap_or_else(|| panic!("{link}"));
            let shown = key.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let shown = shown.replace('"', "&quot;");
            assert!(page.contains(&format!("<h1><bdi>{shown}</bdi>")), "{link}: {page}");
        }
    }
}

/// The addresses on this server that a page links to.
fn links(page: &str) -> Vec<String> {
    let links = page.split("href=\"").skip(1).filter_map(|link| link.split('"').next());
    let links = links.filter(|link| link.starts_with('/'));
    links.map(|link| link.replace("&amp;", "&")).collect()
}

#[tokio::test]
async fn a_refusal_is_a_page() {
    let server = TestServer::with(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "20000")]);
    let operator = operator(&server).await;
    let cookie = format!("Origin: http://x\r\nCookie: tr50d={}", operator.session_id());
    let big = vec![b'x'; 30_000];
    let path = "/o/basic-org/things/pump-1/file";
    let answer = operator.upload(path, "a.bin", &big).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.text().contains("20,000 bytes"), "{answer:?}");
    let mut answers = vec![(413, answer)];
    let mut ask = async |status: u16, head: &str, body: &[u8]| {
        answers.push((status, send(&server, head, body).await));
    };
    for path in ["/o/basic-org/sessions", "/me", "/login", "/", "/search", "/o/x/y"] {
        for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "LOOK"] {
            ask(405, &format!("{method} {path} HTTP/1.1\r\n{cookie}"), b"").await;
        }
    }
    for path in ["/o/basic-org/nothing", "/o/basic-org/sessions/end/x", "/me/nothing"] {
        ask(404, &format!("GET {path} HTTP/1.1\r\n{cookie}"), b"").await;
    }
    let other = cookie.replace("http://x", "http://evil.example");
    ask(403, &format!("POST /logout HTTP/1.1\r\n{other}"), b"csrf=x").await;
    ask(403, &format!("POST /logout HTTP/1.1\r\n{cookie}"), b"csrf=x").await;
    let broken = format!("POST /logout HTTP/1.1\r\nContent-Encoding: gzip\r\n{cookie}");
    ask(400, &broken, b"no gzip").await;
    ask(415, &broken.replace("gzip", "br"), b"x").await;
    ask(400, &format!("GET /me HTTP/1.1\r\nHost: a b\r\n{cookie}"), b"").await;
    ask(400, &format!("GET {SESSIONS}?sort=nothing HTTP/1.1\r\n{cookie}"), b"").await;
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{answer:?}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'self'"), "{policy}");
        assert!(answer.text().contains("<h1>") && answer.text().contains("/console.css"));
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"));
        }
    }
    // What is for programs stays for programs.
    let answer = send(&server, "PUT /api HTTP/1.1", b"").await;
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
}

#[tokio::test]
async fn what_matters_most_is_above_the_list() {
    let server = TestServer::start();
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    let operator = operator(&server).await;
    let strip = |page: &str| {
        let (_, strip) = page.split_once("<section class=\"strip\"")?;
        Some(strip.split("</section>").next().unwrap_or_default().to_owned())
    };
    let shown = strip(&operator.page(SESSIONS).await).expect("a strip");
    for words in [
        "sessions?protocol=mqtt\">mqtt 1<",
        "sessions?protocol=http\">http 1<",
        "state=all&amp;startedAfter=20",
        "Ended in 15 minutes",
        "/o/basic-org/logins",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("Commands a second"), "of the server: {shown}");
    for query in ["?kind=user", "?asOf=2026-01-01T00:00", "?offset=60"] {
        assert_eq!(strip(&operator.page(&format!("{SESSIONS}{query}")).await), None, "{query}");
    }
    let admin = Browser::login(&server, "admin@devicewise.com", "demo-admin-password").await;
    let shown = strip(&admin.page(SESSIONS).await).expect("a strip");
    for words in ["Commands a second", "Waiting for the store", "Mails that wait"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_leads_back() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    for (path, count) in [(SESSIONS, "2 sessions"), ("/o/basic-org/things", "1 thing")] {
        let page = operator.page(&format!("{path}?offset=600")).await;
        assert!(page.contains(&format!("There are only {count}")), "{page}");
        assert!(page.contains(&format!("href=\"{path}\">The beginning")), "{page}");
    }
    let answer = operator.get(&format!("{SESSIONS}?sort=nothing")).await;
    let way = format!("href=\"{SESSIONS}\">The same page without a filter");
    assert!(answer.status == 400 && answer.text().contains(&way), "{answer:?}");
}

#[tokio::test]
async fn events_are_shown_by_address() {
    let server = TestServer::start();
    let operator = operator(&server).await;
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    let path = "/o/basic-org/events?types=session.*&remoteAddr=";
    let page = operator.page(&format!("{path}127.0.0.1:")).await;
    assert!(page.contains(">mower-1<") && page.contains("value=\"127.0.0.1:\""), "{page}");
    assert!(page.contains("data-kept=\"1000\""), "{page}");
    let page = operator.page(&format!("{path}10.")).await;
    assert!(!page.contains(">mower-1<") && page.contains("Nothing happened"), "{page}");
}
