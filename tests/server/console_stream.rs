//! The stream of the console's windows: who sees which, what its cells are, and what is no window.

use client::Version::V311;
use serde_json::{Value, json};
use support::browser::Browser;
use support::http::{dial, post, send};
use support::mqtt::Connect;
use support::{SOON, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::console_hostile::{EVIL, SHOWN, fill, tell};
use super::html;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

fn in_basic(view: &str) -> String {
    format!("/o/basic-org/{view}")
}

/// What the stream says first of some windows, for who shows this session, and the stream.
async fn windows(server: &TestServer, session_id: &str, views: &[String]) -> (String, TcpStream) {
    let mut stream = follow(server, session_id, views).await;
    let is_whole = |text: &str| {
        let told = text.matches("event: window").count() + text.matches("event: ended").count();
        told >= views.len() && text.ends_with("\n\n\r\n")
    };
    (until(&mut stream, is_whole).await, stream)
}

/// What the stream says until that is as it is wanted.
async fn until(stream: &mut TcpStream, is_there: impl Fn(&str) -> bool) -> String {
    let (mut text, mut bytes) = (String::new(), vec![0; 65536]);
    while !is_there(&text) {
        let read = tokio::time::timeout(SOON, stream.read(&mut bytes)).await;
        let count = read.unwrap_or_else(|_| panic!("no more: {text}")).expect("read");
        assert!(count > 0, "it ended: {text}");
        text += &String::from_utf8_lossy(&bytes[..count]);
    }
    text
}

/// The stream of some windows, for who shows this session.
async fn follow(server: &TestServer, session_id: &str, views: &[String]) -> TcpStream {
    let query = views.iter().map(|view| {
        format!("view={}", form_urlencoded::byte_serialize(view.as_bytes()).collect::<String>())
    });
    let query = query.collect::<Vec<_>>().join("&");
    let mut stream = dial(server).await;
    let head =
        format!("GET /events?{query} HTTP/1.1\r\nHost: x\r\nCookie: tr50d={session_id}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn a_device_that_sees_itself_only_sees_no_others_window() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    let perms = ["session.list", "thing.list", "event.list"];
    tell(&mut client, "role.create", json!({"key": "lists", "perms": perms})).await;
    let narrow = json!({"name": "narrow", "token": "a-token-of-sixteen", "roles": ["lists"],
        "autoRegister": true, "restrictAccessToSelf": true});
    tell(&mut client, "app.create", narrow).await;
    let (mut texts, mut streams) = (Vec::new(), Vec::new());
    for key in ["narrow-one", "narrow-two"] {
        let login = json!({"auth": {"command": "api.authenticate",
            "params": {"appToken": "a-token-of-sixteen", "appId": "x", "thingKey": key}}});
        let answer = post(&server, &login.to_string()).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let id = answer["auth"]["params"]["sessionId"].as_str().expect("a session");
        let views = ["sessions?", "things?", "events?"].map(in_basic);
        let (text, stream) = windows(&server, id, &views).await;
        texts.push(text);
        // Both look on at the same time.
        streams.push(stream);
    }
    assert!(texts[0].contains("narrow-one") && texts[1].contains("narrow-two"), "{texts:?}");
    assert!(!texts[1].contains("narrow-one"), "{}", texts[1]);
}

#[tokio::test]
async fn a_stream_tells_nobody_of_windows_that_are_not_theirs() {
    let server = TestServer::start();
    let _mower = Connect::thing(V311, "mower-1").open(&server).await;
    let viewer = Browser::login(&server, VIEWER.0, VIEWER.1).await;
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    // Somebody else looks at the same.
    let (shown, _stream) = windows(&server, operator.session_id(), &[in_basic("sessions?")]).await;
    assert!(shown.contains(">mower-1<"), "{shown}");
    let mut answers = Vec::new();
    for org in ["basic-org", "york-org", "no-such"] {
        let screens =
            ["sessions?", "things?", "events?", "", "strip", "things/mower-1", "things/x/mails/1"];
        let views = screens.map(|screen| format!("/o/{org}/{screen}"));
        let (text, _stream) = windows(&server, viewer.session_id(), &views).await;
        let told = text.replace("things/mower-1", "");
        assert!(!told.contains("mower-1") && !text.contains("event: window"), "{text}");
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut events: Vec<_> = body.lines().filter(|line| line.starts_with("data: ")).collect();
        events.sort_unstable();
        events.dedup();
        answers.push(events.join("\n").replace(org, "ORG"));
    }
    assert_eq!(answers[1], answers[2], "what there is not looks like what one may not see");
    // Addresses that are no windows, too long or too many.
    let asks = async |views: &[String]| {
        let views = views.iter().map(|view| {
            let view: String = form_urlencoded::byte_serialize(view.as_bytes()).collect();
            format!("view={view}")
        });
        let query = views.collect::<Vec<_>>().join("&");
        let head =
            format!("GET /events?{query} HTTP/1.1\r\nCookie: tr50d={}", operator.session_id());
        send(&server, &head, b"").await
    };
    let long = in_basic(&format!("sessions?query={}", "x".repeat(4096)));
    let evil = format!("/o/{EVIL}/sessions/x");
    for view in [
        "/o//x",
        "o/basic-org/sessions",
        "//o/basic-org/sessions",
        "/O/basic-org/sessions",
        "/o/basic-org/sessions/../things",
        "/o/basic-org/Sessions",
        "http://x/o/basic-org/sessions",
        "/o/basic-org/access/users?",
        "/o/basic-org/strip/x",
        "/o/basic-org/things/",
        "/o/basic-org/things/mower-1/edit",
        "/o/basic-org/things/mower-1/mails",
        "\0",
        &long,
        &evil,
    ] {
        let answer = asks(&[in_basic("sessions?"), view.to_owned()]).await;
        assert_eq!(answer.status, 400, "{view}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
        assert!(answer.text().len() < 400, "{answer:?}");
    }
    // A page whose address is too long for that does not ask for it: it would end the stream of all.
    let page = operator.page(&format!("/o/basic-org/sessions?from={}", "x".repeat(4096))).await;
    assert!(!page.contains("data-view"), "{page}");
    assert!(operator.page("/o/basic-org/sessions?from=x").await.contains("data-view"));
}

#[tokio::test]
async fn cells_of_the_stream_are_text() {
    let server = TestServer::start();
    let _connected = fill(&server).await;
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let evil: String = form_urlencoded::byte_serialize(EVIL.as_bytes()).collect();
    let evil = format!("things/{}", evil.replace('+', "%20"));
    let views = [
        "sessions?state=all",
        "things",
        "events",
        "sessions?query=<img>\"'\n\ndata: x",
        "",
        "strip",
        &evil,
    ];
    let (text, _stream) = windows(&server, operator.session_id(), &views.map(in_basic)).await;
    assert!(!text.contains("event: ended") && !text.contains("csrf"), "{text}");
    let mut cells = 0;
    for line in text.lines() {
        assert!(!line.starts_with("data: x"), "{text}");
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let news: Value = serde_json::from_str(data).unwrap_or_else(|_| panic!("{data}"));
        for row in news["cells"].as_object().into_iter().flat_map(|rows| rows.values()) {
            for cell in row.as_object().expect("cells").values() {
                let found = html::check(cell.as_str().expect("a text"));
                assert!(found.is_empty(), "{cell}: {found:?}");
                cells += 1;
            }
        }
    }
    assert!(cells > 50 && text.contains(SHOWN), "{cells}: {text}");
}

/// What the stream says of the parts of a page: its view, and by their names their texts.
fn parts(text: &str) -> Vec<(String, Value)> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let news = data.map(|data| serde_json::from_str::<Value>(data).expect("JSON"));
    let named = news.map(|news| (news["view"].as_str().expect("a view").to_owned(), news));
    named.map(|(view, mut news)| (view, news["cells"].take())).collect()
}

#[tokio::test]
async fn parts_of_pages_follow_what_happens() {
    let server = TestServer::start();
    let mut mower = Connect::thing(V311, "mower-1").open(&server).await;
    let operator = Browser::login(&server, OPERATOR.0, OPERATOR.1).await;
    let thing = "/o/basic-org/things/mower-1";
    let pages = ["/o/basic-org/", "/o/basic-org/sessions", thing];
    let views = ["/o/basic-org/", "/o/basic-org/strip", thing];
    for (page, view) in pages.into_iter().zip(views) {
        let page = operator.page(page).await;
        assert!(page.contains(&format!("data-view=\"{view}\"")), "{view}: {page}");
    }
    let page = operator.page(thing).await;
    let mut stream = follow(&server, operator.session_id(), &views.map(str::to_owned)).await;
    let first = until(&mut stream, |text| text.matches("event: window").count() == 3).await;
    // The same as on the page, but for what there is one's own of, which is in none.
    for (view, cells) in parts(&first) {
        let cells = cells.as_object().expect("parts");
        assert!(!cells.is_empty() && !first.contains("csrf"), "{view}: {first}");
        for (name, part) in cells {
            let part = part["html"].as_str().expect("a text");
            assert!(html::check(part).is_empty(), "{view}, {name}: {part}");
            let at = format!("data-part=\"{name}\"");
            assert!(view != thing || page.contains(&at), "{name}: {page}");
        }
    }
    assert!(first.contains("not connected") || first.contains(">connected<"), "{first}");

    let mut client = server.operator("tcp").await;
    let publish = json!({"thingKey": "mower-1", "key": "temp", "value": 21.5});
    tell(&mut client, "property.publish", publish).await;
    let alarm = json!({"thingKey": "mower-1", "key": "blade", "state": 2, "msg": "stuck"});
    tell(&mut client, "alarm.publish", alarm).await;
    let sent = json!({"thingKey": "mower-1", "method": "cut", "ackTimeout": 0});
    tell(&mut client, "method.exec", sent).await;
    let shown = until(&mut stream, |text| {
        ["21.5", "blade", "stuck", ">cut<"].iter().all(|words| text.contains(words))
    });
    let shown = shown.await;
    // Only what has changed.
    let of_thing = parts(&shown).into_iter().filter(|(view, _)| view == thing);
    let names: Vec<String> = of_thing
        .flat_map(|(_, cells)| {
            cells.as_object().expect("parts").keys().cloned().collect::<Vec<_>>()
        })
        .collect();
    assert!(!names.iter().any(|name| name == "location" || name == "attributes"), "{names:?}");

    mower.shut().await;
    let left = |text: &str| {
        let has = |view: &str, words: &str| {
            parts(text.rsplit_once("\n\n").map_or("", |(whole, _)| whole))
                .iter()
                .any(|(of, cells)| of == view && cells.to_string().contains(words))
        };
        has(thing, "not connected")
            && has("/o/basic-org/", "connection lost 1")
            && has("/o/basic-org/strip", "connection lost 1")
    };
    until(&mut stream, left).await;

    // Without it there is nothing to see, which the page that comes says.
    tell(&mut client, "thing.delete", json!({"key": "mower-1"})).await;
    until(&mut stream, |text| text.contains("event: ended")).await;
}
