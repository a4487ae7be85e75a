//! The page of a session: where it was, what is in flight and what waits; and how many the way to the
//! end of all says.

use client::Version::{V5, V311};
use serde_json::json;
use support::browser::Browser;
use support::mqtt::{Connect, Wire};
use support::{TestServer, call, sessions};

use super::console_hostile::tell;

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const ADMIN: (&str, &str) = ("admin@devicewise.com", "demo-admin-password");

async fn browser<'a>(server: &'a TestServer, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

fn has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word}: {page}");
    }
}

/// What follows in a page, up to the end of its element.
fn section<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = page.split_once(begin).unwrap_or_else(|| panic!("{begin}: {page}"));
    rest.split(end).next().unwrap_or_default()
}

#[tokio::test]
async fn switches_of_the_organisation_are_a_time_line() {
    let server = TestServer::start();
    let mut client = server.admin("tcp").await;
    let own = call(&mut client, "session.info", "").await["ref"].clone();
    let own = own.as_str().expect("a ref");
    let admin = browser(&server, ADMIN).await;
    let page = admin.page(&format!("/o/system/sessions/{own}")).await;
    assert!(!page.contains("class=\"course\""), "it was nowhere else: {page}");
    for key in ["BasicOrg", "YorkOrg"] {
        tell(&mut client, "session.org.switch", json!({"key": key})).await;
    }
    let page = admin.page(&format!("/o/york-org/sessions/{own}")).await;
    let course = section(&page, "<ol class=\"course\">", "</ol>");
    let stays: Vec<&str> = course.split("<li").skip(1).collect();
    assert_eq!(stays.len(), 3, "{course}");
    has(stays[0], &["the organisation of its login", " from <time", " to <time", ", for 0 s"]);
    has(stays[1], &["<bdi>BasicOrg</bdi>", " to <time", ", for 0 s"]);
    has(stays[2], &["<bdi>YorkOrg</bdi>", "aria-current=\"true\"", " until now, for <time"]);
    assert_eq!(course.matches("aria-current").count(), 1, "{course}");
    // Of one that is over, nothing goes on.
    drop(client);
    let mut operator = server.admin("tcp").await;
    tell(&mut operator, "session.org.switch", json!({"key": "YorkOrg"})).await;
    support::eventually("it has ended", async || {
        let live = sessions(&mut operator, &json!({"show": ["ref"]}).to_string()).await;
        live.iter().all(|row| row["ref"] != own)
    })
    .await;
    let page = admin.page(&format!("/o/york-org/sessions/{own}")).await;
    let course = section(&page, "<ol class=\"course\">", "</ol>");
    assert!(!course.contains("aria-current") && !course.contains("until now"), "{course}");
}

async fn reference(server: &TestServer, key: &str) -> String {
    let mut operator = server.operator("tcp").await;
    let rows = sessions(&mut operator, &json!({"thingKey": key}).to_string()).await;
    rows[0]["ref"].as_str().expect("a ref").to_owned()
}

async fn publish(wire: &mut Wire, topic: &str, payload: &str) {
    wire.tell(topic, payload).await;
}

#[tokio::test]
async fn what_is_in_flight_and_what_waits_is_listed_without_payloads() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    // It takes one at a time.
    let mut slow = Connect::thing(V5, "slow").properties(&[0x21, 0, 1]).open(&server).await;
    slow.subscribe("plant/+", 1).await;
    let path = format!("/o/basic-org/sessions/{}", reference(&server, "slow").await);
    let page = operator.page(&path).await;
    assert!(!page.contains("<h2>In flight</h2>") && !page.contains("<h2>Waiting"), "{page}");
    let mut other = Connect::thing(V5, "other").open(&server).await;
    for name in ["a", "<b>", "c"] {
        publish(&mut other, &format!("plant/{name}"), "secret-payload").await;
    }
    slow.unacknowledged().await;
    let page = operator.page(&path).await;
    let flight = section(&page, "<h2>In flight</h2>", "</table>");
    has(flight, &["Packet id", "<td class=\"number\">1</td>", "<bdi>plant/a</bdi>", "Sent", "14"]);
    let waits = section(&page, "<h2>Waiting in the broker</h2>", "</table>");
    has(waits, &["2 messages, ", "<bdi>plant/&lt;b&gt;</bdi>", "<bdi>plant/c</bdi>", "Published"]);
    assert!(!waits.contains("Packet id") && !page.contains("secret"), "{page}");
}

#[tokio::test]
async fn the_way_to_the_end_of_all_says_how_many_that_ends() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    let mut fleet = Vec::new();
    for number in 0..61 {
        fleet.push(Connect::thing(V311, &format!("mower-{number}")).open(&server).await);
    }
    // The last but one: one's own session is among those that match, on the page or not.
    for (query, own, count) in [
        ("?", 1, 61),
        ("?sort=whoAmI", 1, 61),
        ("?sort=whoAmI&offset=60", 1, 61),
        ("?sort=whoAmI&kind=application", 0, 61),
        ("?sort=whoAmI&prefix=mower-1", 0, 11),
        ("?userName=operator%40basicorg.example", 1, 0),
        ("?query=nobody", 0, 0),
    ] {
        let page = operator.page(&format!("/o/basic-org/sessions{query}")).await;
        let says = format!("End all <span data-own=\"{own}\">{count}</span> that match…");
        assert!(page.contains(&says), "{query}: {}", section(&page, "id=\"chosen\"", "</form>"));
        let end = operator.page(&format!("/o/basic-org/sessions/end{query}")).await;
        assert!(end.contains(&format!("<h1>End {count} session")), "{query}: {end}");
    }
    // Of a list that has ended ones, too, nobody has counted those that live.
    let page = operator.page("/o/basic-org/sessions?state=all").await;
    has(&page, &["End all live ones that match…"]);
    // In another organisation one's own session is nowhere.
    let admin = browser(&server, ADMIN).await;
    let page = admin.page("/o/basic-org/sessions?sort=whoAmI").await;
    has(&page, &["End all <span data-own=\"0\">62</span> that match…"]);
}
