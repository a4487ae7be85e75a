//! The console's search, as it comes over HTTP: what is on the page, where it leads, and for whom.

use serde_json::json;
use support::http::{Answer, log_in, send};
use support::{Endpoints, TestServer, call};

const OPERATOR: [&str; 2] = ["operator@basicorg.example", "demo-operator-password"];
const VIEWER: [&str; 2] = ["viewer@basicorg.example", "demo-viewer-password"];

async fn page(server: &Endpoints, id: &str, query: &str) -> Answer {
    let head = format!("GET /search{query} HTTP/1.1\r\nCookie: tr50d={id}");
    send(server, &head, b"").await
}

#[tokio::test]
async fn what_is_found_leads_to_where_it_is() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let thing = json!({"key": "a?b <i>", "name": "\u{202e}<script>", "imei": "356938035643809"});
    call(&mut operator, "thing.create", &thing.to_string()).await;
    let _mower = server.thing("mqtt", "mower-1").await;
    let id = log_in(&server, OPERATOR[0], OPERATOR[1]).await;

    let answer = page(&server, &id, "?q=3569").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.contains(r#"href="/o/basic-org/things/a%3Fb%20%3Ci%3E""#), "{text}");
    assert!(text.contains("<bdi>a?b &lt;i&gt;</bdi>"), "{text}");
    assert!(text.contains("<bdi>\u{202e}&lt;script&gt;</bdi>"), "{text}");
    assert!(text.contains("IMEI, its beginning"), "{text}");
    assert!(!text.contains("<script>"), "{text}");

    let told = call(&mut operator, "search.omni", r#"{"query":"mower","types":["session"]}"#).await;
    let reference = told["result"][0]["ref"].as_str().expect("a handle");
    let answer = page(&server, &id, "?q=MOWER").await;
    let text = answer.text();
    assert!(text.contains(&format!("href=\"/o/basic-org/sessions/{reference}\"")), "{text}");
    assert!(text.contains(r#"href="/o/basic-org/things/mower-1""#), "{text}");
    assert!(text.contains("connected"), "{text}");
    // What was looked for stands in both fields.
    assert_eq!(text.matches(r#"value="MOWER""#).count(), 2, "{text}");

    let text = page(&server, &id, "?q=viewer%40").await.text().to_owned();
    assert!(text.contains("/o/basic-org/access/users/5cf885f41c5bd771c8065bf2"), "{text}");
    let text = page(&server, &id, "?q=basic+org").await.text().to_owned();
    assert!(text.contains(r#"href="/o/basic-org/""#), "{text}");
}

#[tokio::test]
async fn many_of_one_type_leave_room_and_have_pages() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for number in 0..130 {
        call(&mut operator, "thing.create", &json!({"key": format!("o-{number:03}")}).to_string())
            .await;
    }
    let id = log_in(&server, OPERATOR[0], OPERATOR[1]).await;
    let text = page(&server, &id, "?q=o").await.text().to_owned();
    assert_eq!(text.matches("/things/o-").count(), 8, "{text}");
    assert!(text.contains("Users") && text.contains("operator@basicorg.example"), "{text}");
    assert!(text.contains(r#"href="/search?q=o&amp;type=thing">All 130 of these"#), "{text}");
    let mut seen = 0;
    let mut query = Some("?q=o&type=thing".to_owned());
    while let Some(at) = query {
        let text = page(&server, &id, &at).await.text().to_owned();
        seen += text.matches("/things/o-").count();
        assert!(!text.contains("access/users"), "{text}");
        query = text
            .split_once(r#"rel="next" href="/search"#)
            .map(|(_, rest)| rest.split('"').next().expect("an end").replace("&amp;", "&"));
    }
    assert_eq!(seen, 130);
}

#[tokio::test]
async fn nobody_sees_what_is_not_theirs_and_odd_words_are_told() {
    let server = TestServer::start();
    let _mower = server.thing("mqtt", "mower-1").await;
    let id = log_in(&server, VIEWER[0], VIEWER[1]).await;
    let text = page(&server, &id, "?q=viewer").await.text().to_owned();
    assert!(text.contains(r#"href="/me""#) && text.contains("Plain User"), "{text}");
    // The page of a session is not for who may find none; one's own are on one's own page.
    assert!(text.contains("Sessions that were found") && !text.contains("/sessions/"), "{text}");
    let text = page(&server, &id, "?q=mower").await.text().to_owned();
    assert!(text.contains("Nothing is found for “<bdi>mower</bdi>”"), "{text}");
    assert!(!text.contains("mower-1"), "{text}");
    for query in ["", "?q=", "?q=%20&type=nothing"] {
        let answer = page(&server, &id, query).await;
        assert!(answer.text().contains("What do you look for?"), "{query} {}", answer.text());
    }
    let long = page(&server, &id, &format!("?q={}", "x".repeat(10_000))).await;
    assert!(long.text().contains("more than 256 bytes"), "{}", long.text());
    let text = page(&server, &id, "?q=%00%E2%80%8F*&type=user").await.text().to_owned();
    assert!(text.contains("Nothing is found"), "{text}");

    // Who is not logged in is asked to.
    let answer = page(&server, "no-such-session", "?q=mower").await;
    assert!(!answer.text().contains("mower-1"), "{}", answer.text());
    assert!(answer.text().contains("password") || answer.status == 303, "{}", answer.text());
}
