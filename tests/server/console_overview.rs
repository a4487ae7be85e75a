//! The console's overview and its page of refused logins: what is counted, for whom, and what leads to it.

use client::Version::V311;
use serde_json::json;
use support::browser::Browser;
use support::http::post;
use support::mqtt::Connect;
use support::{Endpoints, TestServer, end_reason};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");
const ADMIN: (&str, &str) = ("admin@devicewise.com", "demo-admin-password");

const LOGINS: &str = "/o/basic-org/logins";

async fn browser<'a>(server: &'a Endpoints, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

/// Tries to log in with a password that is wrong.
async fn guess(server: &Endpoints, name: &str) {
    let params = json!({"username": name, "password": "wrong"});
    let body = json!({"auth": {"command": "api.authenticate", "params": params}});
    post(server, &body.to_string()).await;
}

fn has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word}: {page}");
    }
}

/// The row of a table that begins with these words.
fn row<'a>(page: &'a str, words: &str) -> &'a str {
    let row = page.split("<tr>").skip(1).find(|row| row.contains(&format!(">{words}</")));
    row.unwrap_or_else(|| panic!("{words}: {page}"))
}

#[tokio::test]
async fn an_organisation_sees_its_connects_and_ends_by_reason() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    let mut mower = Connect::thing(V311, "mower-1").open(&server).await;
    mower.shut().await;
    assert_eq!(end_reason(&mut client, "mower-1").await, "connection_lost");
    let page = browser(&server, OPERATOR).await.page("/o/basic-org/").await;
    has(&page, &["Connects and ends in each minute", "minute by minute, the last one now: 0, "]);
    // The client, the thing and the browser.
    has(row(&page, "connected"), &["state=all&amp;startedAfter=20", "<td>3</td>"]);
    let lost = row(&page, "ended: connection lost");
    has(lost, &["state=ended&amp;endReason=connection_lost&amp;endedAfter=20", "<td>1</td>"]);
    // Of the server, nothing is for an organisation.
    assert!(!page.contains("<h2>Server</h2>"), "{page}");
}

#[tokio::test]
async fn who_sees_the_server_sees_all_of_it() {
    let server = TestServer::start();
    let admin = browser(&server, ADMIN).await;
    let page = admin.page("/o/system/").await;
    // Nothing was connected in a day, and a count is never less than nothing.
    let (_, hours) = page.split_once("Connected in each hour").expect("a chart");
    let chart = hours.split("</svg>").next().unwrap_or_default();
    assert!(chart.contains(">1</text>") && !chart.contains(">-1</text>"), "{chart}");
    for part in [
        "Connects and ends of the server in each minute",
        "ended: keep-alive",
        "Half of the commands take at most",
        "99 of 100 commands take at most",
        "Commands a second",
        "Waiting for the store",
        "Mails that wait",
        "Free on the disk",
        "Refused logins",
        "Refused connections",
        "Sessions that ended",
        "<h3>Limits</h3>",
        "<meter",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(" style="), "{page}");
}

#[tokio::test]
async fn refused_logins_are_counted_by_what_they_have_in_common() {
    let server = TestServer::start();
    for _ in 0..3 {
        guess(&server, VIEWER.0).await;
    }
    guess(&server, OPERATOR.0).await;
    let operator = browser(&server, OPERATOR).await;
    let overview = operator.page("/o/basic-org/").await;
    has(&overview, &["wrong password 4", "/o/basic-org/logins?cause=wrong_password"]);
    has(&overview, &["href=\"/o/basic-org/logins\">Login failures by address"]);
    let page = operator.page(LOGINS).await;
    has(&page, &["<h1>Refused logins by address</h1>", "<caption", "1 group<"]);
    let address = row(&page, "127.0.0.1");
    has(address, &["<td>4</td>", VIEWER.0, OPERATOR.0, "wrong password", "http"]);
    has(address, &["by=name", "address=127.0.0.1%3A"]);
    let by_name = operator.page(&format!("{LOGINS}?address=127.0.0.1%3A&by=name")).await;
    has(row(&by_name, VIEWER.0), &["<td>3</td>", "127.0.0.1", "name=viewer%40basicorg.example"]);
    has(&by_name, &["2 groups<"]);
    let one = operator.page(&format!("{LOGINS}?by=cause&name={}", VIEWER.0)).await;
    has(row(&one, "wrong password"), &["<td>3</td>"]);
    has(&operator.page(&format!("{LOGINS}?cause=locked")).await, &["No login was refused"]);
    has(
        &operator.page(&format!("{LOGINS}?start=2100-01-01T00:00")).await,
        &["No login was refused"],
    );
    has(&operator.page(&format!("{LOGINS}?last=1h&protocol=http")).await, &["<td>4</td>"]);
    for wrong in ["by=colour", "cause=none", "last=x", "protocol=x", "start=x"] {
        assert_eq!(operator.get(&format!("{LOGINS}?{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn refused_logins_are_for_who_may_see_them_and_text() {
    let server = TestServer::start();
    let viewer = browser(&server, VIEWER).await;
    let denied = viewer.get(LOGINS).await;
    assert_eq!(denied.status, 403, "{denied:?}");
    assert!(!denied.text().contains("127.0.0.1"), "{denied:?}");
    let script = "<script>alert(1)</script>@x.example";
    guess(&server, script).await;
    let admin = browser(&server, ADMIN).await;
    for by in ["address", "name", "cause", "protocol"] {
        let page = admin.page(&format!("/o/system/logins?by={by}")).await;
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{by}: {page}");
    }
    // What is nobody's is not an organisation's.
    let operator = browser(&server, OPERATOR).await;
    let page = operator.page(&format!("{LOGINS}?by=name")).await;
    assert!(!page.contains("x.example"), "{page}");
}
