//! The console's screens of things over HTTP: what is shown to whom, and that each change happens.

use client::Client;
use client::Version::V311;
use serde_json::{Value, json};
use support::browser::Browser;
use support::http::{Answer, send};
use support::mqtt::Connect;
use support::{Endpoints, TestServer, call, end_reason, eventually, reply};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

const THINGS: &str = "/o/basic-org/things";

async fn browser<'a>(server: &'a Endpoints, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
}

/// Where a form leads to when it was right.
fn led(answer: &Answer) -> String {
    refused(answer, 303);
    answer.header("location").expect("a place").to_owned()
}

fn segment(key: &str) -> String {
    key.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word}: {page}");
    }
}

async fn make(client: &mut Client, key: &str, name: &str) {
    call(client, "thing.create", &json!({"key": key, "name": name}).to_string()).await;
}

async fn tell(client: &mut Client, command: &str, params: Value) -> Value {
    call(client, command, &params.to_string()).await
}

/// What a command says of the thing.
async fn find(client: &mut Client, key: &str) -> Value {
    call(client, "thing.find", &json!({"key": key}).to_string()).await
}

#[tokio::test]
async fn without_a_right_there_are_neither_the_pages_nor_ways_to_them() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    make(&mut operator, "pump-1", "Pump").await;
    let viewer = browser(&server, VIEWER).await;
    let at = |rest: &str| format!("{THINGS}/pump-1{rest}");
    for path in [THINGS.to_owned(), at(""), at("/ban"), at("/delete"), at("/run"), at("/trace")] {
        let answer = viewer.get(&path).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {answer:?}");
        assert!(!answer.text().contains("Pump"), "{path}");
    }
    assert!(!viewer.page("/me").await.contains("/things\""));
    // An organisation in which one is nobody.
    refused(&viewer.get("/o/york-org/things").await, 403);
    // With some of the rights there are some of the parts.
    tell(
        &mut operator,
        "role.create",
        json!({"key": "looker", "perms": ["thing.find", "thing.list"]}),
    )
    .await;
    let grant = json!({"emailAddress": VIEWER.0, "roles": ["looker"]});
    tell(&mut operator, "user.org.update", grant).await;
    let looker = browser(&server, VIEWER).await;
    has(&looker.page(THINGS).await, &["aria-current=\"page\"", "pump-1"]);
    let page = looker.page(&at("")).await;
    has(&page, &["Last values", "Pump"]);
    for part in ["Ban…", "Delete…", "Run a method", "Mailbox", "Files", "Connections", "Diagnosis"]
    {
        assert!(!page.contains(part), "{part}: {page}");
    }
    refused(&looker.post(&at("/delete"), &[]).await, 403);
    refused(&looker.post(&at("/ban"), &[]).await, 403);
    find(&mut operator, "pump-1").await;
}

#[tokio::test]
async fn a_form_of_nobodys_pages_changes_nothing() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    make(&mut operator, "pump-1", "Pump").await;
    let right = browser(&server, OPERATOR).await;
    let before = find(&mut operator, "pump-1").await;
    let forms = ["ban", "unban", "delete", "run", "file", "file/address", "file/delete", "trace"];
    for token in ["", "wrong"] {
        let forger = right.with_csrf(token);
        for form in forms {
            let fields = [("method", "m"), ("name", "n"), ("seconds", "60")];
            refused(&forger.post(&format!("{THINGS}/pump-1/{form}"), &fields).await, 403);
        }
        refused(&forger.upload(&format!("{THINGS}/pump-1/file"), "a.bin", b"abc").await, 403);
    }
    // A page of another site.
    let head = format!(
        "POST {THINGS}/pump-1/delete HTTP/1.1\r\nCookie: tr50d={}\r\nOrigin: http://evil",
        right.session_id()
    );
    refused(&send(&server, &head, b"csrf=").await, 403);
    assert_eq!(find(&mut operator, "pump-1").await, before);
    let mails = tell(&mut operator, "mailbox.list", json!({"thingKey": "pump-1"})).await;
    assert_eq!(mails["count"], 0);
}

#[tokio::test]
async fn empty_pages_say_what_to_do() {
    let server = TestServer::start();
    let operator = browser(&server, OPERATOR).await;
    has(&operator.page(THINGS).await, &["No things", "as soon as a device logs in", "0 things"]);
    let unknown = operator.get(&format!("{THINGS}/nobody")).await;
    refused(&unknown, 404);
    has(unknown.text(), &["No thing has the key", "Never seen", "Trace its next login"]);
    let mut client = server.operator("tcp").await;
    make(&mut client, "pump-1", "Pump").await;
    let page = operator.page(&format!("{THINGS}/pump-1")).await;
    has(
        &page,
        &[
            "not connected",
            "no property yet",
            "no alarm yet",
            "Nothing waits for it",
            "It has none.",
            "None that is known",
        ],
    );
    has(&operator.page(&format!("{THINGS}?query=zebra")).await, &["None fits.", "Show all"]);
    has(&operator.page(&format!("{THINGS}/pump-1/trace")).await, &["No trace"]);
    let history = format!("{THINGS}/pump-1/history?of=property&name=temp");
    has(&operator.page(&history).await, &["Nothing in this time"]);
    refused(&operator.get(&format!("{THINGS}/pump-1/history?of=x")).await, 404);
    refused(&operator.get(&format!("{THINGS}/pump-1/nothing")).await, 404);
}

#[tokio::test]
async fn what_people_typed_is_text() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    let operator = browser(&server, OPERATOR).await;
    let script = "<script>alert(1)</script>\"'&";
    let keys =
        ["<script>", "a b%20c", "ü-\u{202e}gpj", "q?x=1&y", "..", ".", "~..", "%2e%2e", "x;y=z"];
    for key in keys {
        make(&mut client, key, script).await;
        tell(&mut client, "thing.tag.add", json!({"thingKey": key, "tags": [script]})).await;
        let long = format!("{script}{}", "x".repeat(10_000));
        for (command, params) in [
            ("attribute.publish", json!({"thingKey": key, "key": script, "value": long})),
            ("property.publish", json!({"thingKey": key, "key": script, "value": 1.5})),
            ("alarm.publish", json!({"thingKey": key, "key": script, "state": 2, "msg": script})),
            (
                "mailbox.send",
                json!({"thingKey": key, "command": script, "ackTimeout": 0,
                "params": {"a": script}}),
            ),
        ] {
            tell(&mut client, command, params).await;
        }
    }
    let list = operator.page(THINGS).await;
    assert!(!list.contains("<script>alert"), "{list}");
    let links: Vec<&str> = list.split("<td data-cell=\"thing\"><a href=\"").skip(1).collect();
    let links: Vec<&str> = links.iter().filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), keys.len(), "{list}");
    for link in links {
        // No way that leads elsewhere, which browsers would go.
        let last = link.rsplit('/').next().expect("a segment").to_lowercase();
        assert!(![".", "..", "%2e", "%2e%2e"].contains(&&*last), "{link}");
        let page = operator.page(link).await;
        assert!(!page.contains("<script>alert"), "{link}: {page}");
        has(&page, &["&lt;script&gt;alert(1)&lt;/script&gt;", &"x".repeat(10_000), "<bdi>"]);
        for kind in ["property", "alarm", "attribute"] {
            let history = format!("{link}/history?of={kind}&name={}", segment(script));
            let page = operator.page(&history).await;
            assert!(!page.contains("<script>alert"), "{history}: {page}");
        }
    }
    // What is no key is nowhere, and nothing breaks.
    for bad in ["a%2Fb", "%00", "%ff", "a+b", "%23"] {
        let answer = operator.get(&format!("{THINGS}/{bad}")).await;
        assert!(matches!(answer.status, 400 | 404), "{bad}: {answer:?}");
    }
}

#[tokio::test]
async fn the_list_filters_sorts_and_turns_pages() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    for number in 0..70 {
        make(&mut client, &format!("pump-{number:02}"), &format!("Pump {number}")).await;
    }
    tell(&mut client, "thing.tag.add", json!({"thingKey": "pump-07", "tags": ["red"]})).await;
    tell(&mut client, "thing.update", json!({"key": "pump-08", "disabled": true})).await;
    let alarm = json!({"thingKey": "pump-09", "key": "door", "state": 3});
    tell(&mut client, "alarm.publish", alarm).await;
    let mut mower = Connect::thing(V311, "mower-1").id("m").open(&server).await;
    let operator = browser(&server, OPERATOR).await;
    let page = operator.page(THINGS).await;
    has(&page, &["71 things", "1–60", "rel=\"next\"", "aria-rowcount=\"72\"", "data-view="]);
    has(&page, &["3", "1 raised", "banned"]);
    has(
        &operator.page(&format!("{THINGS}?offset=60")).await,
        &["61–71", "pump-69", "rel=\"prev\""],
    );
    let only = async |filter: &str, expected: &str| {
        let page = operator.page(&format!("{THINGS}?{filter}")).await;
        has(&page, &["1 thing<", expected]);
    };
    only("connected=true", "mower-1").await;
    only("tags=red", "pump-07").await;
    only("disabled=true", "pump-08").await;
    only("query=mower", "mower-1").await;
    only("prefix=pump-1&query=12", "pump-12").await;
    only("lastSeenAfter=2001-01-01T00:00", "mower-1").await;
    let falling = operator.page(&format!("{THINGS}?sort=-key")).await;
    let first = falling.find("pump-69").expect("the last one");
    assert!(falling.find("pump-68").is_some_and(|at| at > first), "{falling}");
    has(&falling, &["aria-sort=\"descending\""]);
    has(&operator.page(&format!("{THINGS}?lastSeenBefore=2100-01-01T00:00")).await, &["71 things"]);
    mower.shut().await;
    end_reason(&mut client, "mower-1").await;
    has(&operator.page(&format!("{THINGS}?query=mower")).await, &["connection lost"]);
    let wrong = operator.get(&format!("{THINGS}?sort=nothing")).await;
    refused(&wrong, 400);
}

#[tokio::test]
async fn a_thing_shows_what_it_measured_and_how_it_was() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    let def = json!({"key": "mower", "name": "Mower",
        "properties": {"temp": {"name": "Temperature", "unit": "°C"}},
        "alarms": {"blade": {"name": "Blade", "states": [{"name": "fine"}, {"name": "stuck"}]}},
        "methods": {"cut": {"name": "Cut", "notificationVariables": {"height": {"name": "Height"}}}}});
    tell(&mut client, "thing_def.create", def).await;
    tell(&mut client, "thing.create", json!({"key": "m-1", "defKey": "mower"})).await;
    for value in [20.5, 21.0, 19.25] {
        let point = json!({"thingKey": "m-1", "key": "temp", "value": value});
        tell(&mut client, "property.publish", point).await;
    }
    for state in [0, 1] {
        let alarm = json!({"thingKey": "m-1", "key": "blade", "state": state, "msg": "grass"});
        tell(&mut client, "alarm.publish", alarm).await;
    }
    let place = json!({"thingKey": "m-1", "lat": 52.5, "lng": 13.25, "city": "Berlin"});
    tell(&mut client, "location.publish", place).await;
    let operator = browser(&server, OPERATOR).await;
    let page = operator.page(&format!("{THINGS}/m-1")).await;
    has(&page, &["19.25", "°C", "Temperature", "<svg class=\"spark\"", "the last 3 values"]);
    has(&page, &["1 <bdi>stuck<", "grass", "Berlin", "Mower (mower)", "52.5, 13.25"]);
    assert!(!page.contains(" style=") && !page.contains("onclick"), "{page}");
    let property = format!("{THINGS}/m-1/history?of=property&name=temp&last=1h");
    let page = operator.page(&property).await;
    has(&page, &["<svg class=\"chart\"", "<title>", "<td>20.5</td>", "<td>21", "3 values"]);
    let alarm = operator.page(&format!("{THINGS}/m-1/history?of=alarm&name=blade")).await;
    has(&alarm, &["0 <bdi>fine<", "1 <bdi>stuck<", "grass"]);
    has(&operator.page(&format!("{THINGS}/m-1/history?of=location")).await, &["13.25"]);
    let run = operator.page(&format!("{THINGS}/m-1/run?method=cut")).await;
    has(&run, &["value=\"cut\"", "&quot;height&quot;: null"]);
}

#[tokio::test]
async fn a_ban_is_made_and_lifted() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    let _mower = server.thing("tcp", "mower-1").await;
    let operator = browser(&server, OPERATOR).await;
    let at = |rest: &str| format!("{THINGS}/mower-1{rest}");
    has(&operator.page(&at("")).await, &[">connected<", "Ban…"]);
    has(&operator.page(&at("/ban")).await, &["its logins are refused", "name=\"csrf\""]);
    let ban = operator.post(&at("/ban"), &[("reason", "lost & found"), ("hours", "24")]).await;
    assert_eq!(led(&ban), at(""));
    let found = find(&mut client, "mower-1").await;
    assert_eq!((&found["disabled"], &found["reason"]), (&json!(true), &json!("lost & found")));
    assert!(found["disabledUntil"].is_string(), "{found}");
    assert_eq!(end_reason(&mut client, "mower-1").await, "banned");
    has(&operator.page(&at("")).await, &["lost &amp; found", "Lift the ban"]);
    assert_eq!(led(&operator.post(&at("/unban"), &[]).await), at(""));
    assert_eq!(find(&mut client, "mower-1").await["disabled"], Value::Null);
    let until = [("until", "2100-01-02T03:04"), ("hours", "1")];
    led(&operator.post(&at("/ban"), &until).await);
    let found = find(&mut client, "mower-1").await;
    assert_eq!(found["disabledUntil"], "2100-01-02T03:04:00.000Z");
    refused(&operator.post(&at("/ban"), &[("until", "soon")]).await, 400);
}

#[tokio::test]
async fn a_thing_is_deleted_after_a_question() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    make(&mut client, "pump-1", "Pump").await;
    let operator = browser(&server, OPERATOR).await;
    let path = format!("{THINGS}/pump-1/delete");
    has(&operator.page(&path).await, &["Delete", "All that belongs to it goes", "Leave it"]);
    find(&mut client, "pump-1").await;
    assert_eq!(led(&operator.post(&path, &[]).await), THINGS);
    let gone = reply(&mut client, "thing.find", r#"{"key":"pump-1"}"#).await;
    assert_eq!(gone["errorCodes"], json!([-90008]));
    refused(&operator.post(&path, &[]).await, 404);
}

#[tokio::test]
async fn a_method_runs_and_its_answer_is_seen() {
    let server = TestServer::start();
    let mut device = server.thing("tcp", "mower-1").await;
    let mut client = server.operator("tcp").await;
    let operator = browser(&server, OPERATOR).await;
    let path = format!("{THINGS}/mower-1/run");
    let wrong = operator.post(&path, &[("method", "cut"), ("params", "{no")]).await;
    refused(&wrong, 400);
    has(wrong.text(), &["are not JSON", "{no", "value=\"cut\""]);
    let none = operator.post(&path, &[("params", "{}")]).await;
    refused(&none, 400);
    let fields = [("method", "cut"), ("params", r#"{"height":3}"#), ("ttl", "60")];
    let mail = led(&operator.post(&path, &fields).await);
    has(&operator.page(&mail).await, &["cut", "Look again", "height", "Take it back"]);
    let fetched = call(&mut device, "mailbox.check", "").await;
    let message = &fetched["messages"][0];
    assert_eq!(message["params"], json!({"method": "cut", "params": {"height": 3}}), "{message}");
    has(&operator.page(&mail).await, &["in flight", "Look again"]);
    let ack = json!({"id": message["id"], "errorCode": 7, "errorMessage": "no <b>grass</b>",
        "params": {"left": 4}});
    call(&mut device, "mailbox.ack", &ack.to_string()).await;
    let page = operator.page(&mail).await;
    has(&page, &["completed error", "no &lt;b&gt;grass&lt;/b&gt;", "&quot;left&quot;: 4"]);
    assert!(!page.contains("Look again"), "{page}");
    has(&operator.page(&format!("{THINGS}/mower-1")).await, &["completed error", ">cut<"]);
    // Another thing's address does not show it, and one that waits is taken back.
    make(&mut client, "pump-1", "Pump").await;
    let elsewhere = mail.replace("mower-1", "pump-1");
    refused(&operator.get(&elsewhere).await, 404);
    let waiting = led(&operator.post(&format!("{THINGS}/pump-1/run"), &[("method", "stop")]).await);
    assert_eq!(led(&operator.post(&format!("{waiting}/purge"), &[]).await), waiting);
    has(&operator.page(&waiting).await, &["purged"]);
    has(&operator.page(&format!("{THINGS}/pump-1/mails")).await, &["stop"]);
}

#[tokio::test]
async fn files_go_up_and_down_without_a_session_in_an_address() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    make(&mut client, "pump-1", "Pump").await;
    let operator = browser(&server, OPERATOR).await;
    let page = format!("{THINGS}/pump-1");
    let file = format!("{page}/file");
    let bytes: Vec<u8> = (0..100_000u32).map(|number| (number * 7 % 251) as u8).collect();
    let name = "firm/wäre & <1>.bin";
    assert_eq!(led(&operator.upload(&file, name, &bytes).await), page);
    let listed = tell(&mut client, "file.list", json!({"thingKey": "pump-1"})).await;
    assert_eq!(listed["result"][0]["fileName"], name);
    assert_eq!(listed["result"][0]["length"], 100_000);
    has(&operator.page(&page).await, &["firm/wäre &amp; &lt;1&gt;.bin", "100,000 bytes"]);
    let ticket = led(&operator.get(&format!("{file}?name={}", segment(name))).await);
    assert!(ticket.starts_with("/file/") && !ticket.contains(operator.session_id()), "{ticket}");
    let got = send(&server, &format!("GET {ticket} HTTP/1.1"), b"").await;
    assert_eq!((got.status, got.body == bytes), (200, true));
    // The cookie opens no file.
    refused(&operator.get(&format!("/file/{}", operator.session_id())).await, 404);
    refused(&operator.upload(&file, "", b"").await, 400);
    refused(&operator.get(&format!("{file}?name=none")).await, 404);
    // One that is too large for a form gets an address.
    let address = operator.post(&format!("{file}/address"), &[("name", "big.bin")]).await;
    refused(&address, 200);
    assert_eq!(address.header("cache-control"), Some("no-store, no-transform"));
    let (_, id) = address.text().split_once("http://x/file/").expect("an address");
    let id = id.split([' ', '&', '<']).next().expect("an id");
    refused(&send(&server, &format!("PUT /file/{id} HTTP/1.1"), b"big").await, 200);
    let delete = format!("{file}/delete");
    has(&operator.page(&format!("{delete}?name=big.bin")).await, &["Delete", "big.bin"]);
    assert_eq!(led(&operator.post(&delete, &[("name", "big.bin")]).await), page);
    let listed = tell(&mut client, "file.list", json!({"thingKey": "pump-1"})).await;
    assert_eq!(listed["count"], 1);
}

#[tokio::test]
async fn a_trace_is_begun_read_and_ended() {
    let server = TestServer::start();
    let mut device = server.thing("tcp", "mower-1").await;
    let mut client = server.operator("tcp").await;
    let operator = browser(&server, OPERATOR).await;
    let path = format!("{THINGS}/mower-1/trace");
    assert_eq!(led(&operator.post(&path, &[("seconds", "300")]).await), path);
    let point = r#"{"key":"temp","value":42.125}"#;
    call(&mut device, "property.publish", point).await;
    eventually("the frame is there", async || operator.page(&path).await.contains("42.125")).await;
    has(&operator.page(&path).await, &["tracing", "from the thing", "to the thing", "End it"]);
    led(&operator.post(&path, &[("seconds", "0")]).await);
    let trace = tell(&mut client, "thing.trace", json!({"key": "mower-1", "read": true})).await;
    assert_eq!(trace["tracing"], false);
    has(&operator.page(&path).await, &["ended", "Begin"]);
}

#[tokio::test]
async fn all_about_a_thing_is_a_file() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    make(&mut client, "mower-ü", "Mower").await;
    let operator = browser(&server, OPERATOR).await;
    let dump = operator.get(&format!("{THINGS}/{}/dump", segment("mower-ü"))).await;
    refused(&dump, 200);
    assert_eq!(
        dump.header("content-disposition"),
        Some("attachment; filename*=UTF-8''mower-%C3%BC.json")
    );
    let dump = dump.json();
    assert_eq!((&dump["key"], &dump["thing"]["name"]), (&json!("mower-ü"), &json!("Mower")));
    assert!(!dump.to_string().contains(operator.session_id()), "{dump}");
}
