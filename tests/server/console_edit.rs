//! The console's form of a thing, and the map of things.

use client::Client;
use serde_json::{Value, json};
use support::browser::{Browser, input};
use support::{Endpoints, TestServer, call};

const OPERATOR: (&str, &str) = ("operator@basicorg.example", "demo-operator-password");
const VIEWER: (&str, &str) = ("viewer@basicorg.example", "demo-viewer-password");

const THINGS: &str = "/o/basic-org/things";
const EDIT: &str = "/o/basic-org/things/pump-1/edit";

async fn browser<'a>(server: &'a Endpoints, (name, password): (&str, &str)) -> Browser<'a> {
    Browser::login(server, name, password).await
}

async fn tell(client: &mut Client, command: &str, params: Value) -> Value {
    call(client, command, &params.to_string()).await
}

async fn find(client: &mut Client) -> Value {
    tell(client, "thing.find", json!({"key": "pump-1"})).await
}

fn has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word}: {page}");
    }
}

/// Sends a form of the page that is right, and gives the page to which it leads.
async fn done(browser: &Browser<'_>, form: &str, fields: &[(&str, &str)]) -> String {
    let answer = browser.post(&format!("{EDIT}/{form}"), fields).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let place = answer.header("location").expect("a place");
    assert_eq!(place, format!("{EDIT}?done={form}"));
    browser.page(place).await
}

#[tokio::test]
async fn a_thing_is_changed_by_forms() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    for def in ["pump", "mower"] {
        tell(&mut client, "thing_def.create", json!({"key": def, "name": def})).await;
    }
    tell(&mut client, "thing.create", json!({"key": "pump-1", "name": "Pump", "defKey": "pump"}))
        .await;
    let operator = browser(&server, OPERATOR).await;
    has(&operator.page(&format!("{THINGS}/pump-1")).await, &[&format!("href=\"{EDIT}\">Change…")]);
    let page = operator.page(EDIT).await;
    has(
        &page,
        &["value=\"Pump\"", "Another tag", "Another attribute", "<option value=\"pump\" selected"],
    );
    assert_eq!(input(&page, "name"), Some("Pump"));
    let name = [("name", "P & <b>"), ("desc", "two\r\nlines")];
    has(&done(&operator, "name", &name).await, &["The name was changed.", "P &amp; &lt;b&gt;"]);
    let found = find(&mut client).await;
    assert_eq!((&found["name"], &found["desc"]), (&json!("P & <b>"), &json!("two\nlines")));
    done(&operator, "name", &[("name", "Pump"), ("desc", "")]).await;
    assert_eq!(find(&mut client).await["desc"], "");
    for tag in ["red, blue", "<i>"] {
        done(&operator, "tag", &[("tag", tag)]).await;
    }
    assert_eq!(find(&mut client).await["tags"], json!(["red, blue", "<i>"]));
    let page = done(&operator, "untag", &[("tag", "red, blue")]).await;
    has(&page, &["The tag was taken away.", "&lt;i&gt;"]);
    assert_eq!(find(&mut client).await["tags"], json!(["<i>"]));
    let value = "\n<script>\r\n  2";
    let page =
        done(&operator, "set", &[("attribute", "a \"b\""), ("value", value), ("new", "1")]).await;
    has(&page, &["value=\"a &quot;b&quot;\"", "\n\n&lt;script&gt;\n  2</textarea>"]);
    assert_eq!(find(&mut client).await["attrs"]["a \"b\""]["value"], "\n<script>\n  2");
    done(&operator, "set", &[("attribute", "a \"b\""), ("value", "null")]).await;
    assert_eq!(find(&mut client).await["attrs"]["a \"b\""]["value"], "null");
    let unset = [("attribute", "a \"b\""), ("value", "null"), ("unset", "1")];
    let answer = operator.post(&format!("{EDIT}/set"), &unset).await;
    assert_eq!(answer.header("location"), Some(&*format!("{EDIT}?done=unset")), "{answer:?}");
    assert_eq!(find(&mut client).await["attrs"]["a \"b\""], Value::Null);
    done(&operator, "definition", &[("definition", "mower")]).await;
    assert_eq!(find(&mut client).await["defKey"], "mower");
}

#[tokio::test]
async fn what_is_wrong_is_said_beside_its_form() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    tell(&mut client, "thing.create", json!({"key": "pump-1", "name": "Pump"})).await;
    let before = find(&mut client).await;
    let operator = browser(&server, OPERATOR).await;
    let (long, longer) = ("n<".repeat(5000), "v".repeat(20_000));
    for (form, fields, words) in [
        ("name", vec![("name", long.as_str()), ("desc", "typed <b>")], "typed &lt;b&gt;"),
        ("tag", vec![("tag", "")], "name=\"tag\""),
        ("tag", vec![("tag", long.as_str())], "n&lt;n&lt;"),
        ("set", vec![("attribute", ""), ("value", "typed <b>"), ("new", "1")], "typed &lt;b&gt;"),
        ("set", vec![("attribute", "a"), ("value", longer.as_str()), ("new", "1")], "value=\"a\""),
        ("definition", vec![("definition", "nothing <b>")], "nothing &lt;b&gt;"),
    ] {
        let answer = operator.post(&format!("{EDIT}/{form}"), &fields).await;
        assert!(matches!(answer.status, 400 | 404), "{form}: {answer:?}");
        has(answer.text(), &["role=\"alert\"", words, "<h1>Change "]);
        assert!(!answer.text().contains("<b>"), "{answer:?}");
    }
    assert_eq!(operator.post(&format!("{EDIT}/nothing"), &[]).await.status, 404);
    assert_eq!(
        operator.post(&format!("{THINGS}/gone/edit/name"), &[("name", "x")]).await.status,
        404
    );
    assert_eq!(operator.get(&format!("{THINGS}/gone/edit")).await.status, 404);
    assert_eq!(find(&mut client).await, before);
}

#[tokio::test]
async fn a_thing_is_changed_by_who_may_and_from_its_page() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    tell(&mut client, "thing.create", json!({"key": "pump-1", "name": "Pump"})).await;
    let before = find(&mut client).await;
    let operator = browser(&server, OPERATOR).await;
    for form in ["name", "tag", "untag", "set", "unset", "definition"] {
        let fields = [("name", "x"), ("tag", "x"), ("attribute", "x"), ("value", "x")];
        let forged = operator.with_csrf("wrong").post(&format!("{EDIT}/{form}"), &fields).await;
        assert_eq!(forged.status, 403, "{form}: {forged:?}");
    }
    let viewer = browser(&server, VIEWER).await;
    assert_eq!(viewer.get(EDIT).await.status, 404);
    let role = json!({"key": "tagger", "perms": ["thing.find", "thing.list", "thing.tag.add"]});
    tell(&mut client, "role.create", role).await;
    let grant = json!({"emailAddress": VIEWER.0, "roles": ["tagger"]});
    tell(&mut client, "user.org.update", grant).await;
    let tagger = browser(&server, VIEWER).await;
    let page = tagger.page(EDIT).await;
    has(&page, &["Another tag"]);
    for part in ["Description", "Another attribute", "What kind of thing", "Take away"] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    for form in ["name", "untag", "set", "unset", "definition"] {
        let fields =
            [("name", "x"), ("tag", "x"), ("attribute", "x"), ("value", "x"), ("definition", "x")];
        assert_eq!(tagger.post(&format!("{EDIT}/{form}"), &fields).await.status, 403, "{form}");
    }
    assert_eq!(find(&mut client).await, before);
    assert_eq!(tagger.post(&format!("{EDIT}/tag"), &[("tag", "x")]).await.status, 303);
}

#[tokio::test]
async fn things_are_on_a_map() {
    let server = TestServer::start();
    let mut client = server.operator("tcp").await;
    for (key, lat, lng) in [("..", 52.5, 13.25), ("<b>", 48.1, 11.5), ("mower-3", 50.0, 8.5)] {
        tell(&mut client, "thing.create", json!({"key": key, "name": "Here"})).await;
        let place = json!({"thingKey": key, "lat": lat, "lng": lng});
        tell(&mut client, "location.publish", place).await;
    }
    tell(&mut client, "thing.create", json!({"key": "pump-1"})).await;
    let operator = browser(&server, OPERATOR).await;
    has(&operator.page(THINGS).await, &["href=\"/o/basic-org/things?map=1\""]);
    let page = operator.page(&format!("{THINGS}?map=1")).await;
    has(&page, &["<svg", "° N", "° E", "<caption", "52.5", "&lt;b&gt; · not connected · 20"]);
    has(&page, &["href=\"/o/basic-org/things/~..\"", "name=\"map\" value=\"1\""]);
    assert_eq!(page.matches("<circle ").count(), 3, "{page}");
    assert!(
        !page.contains("pump-1") && !page.contains("<b>") && !page.contains("style="),
        "{page}"
    );
    let one = operator.page(&format!("{THINGS}?prefix=mower&map=1")).await;
    assert_eq!(one.matches("<circle ").count(), 1, "{one}");
    has(&one, &["href=\"/o/basic-org/things?prefix=mower\""]);
    let none = operator.page(&format!("{THINGS}?prefix=pump&map=1")).await;
    has(&none, &["No locations"]);
    let viewer = browser(&server, VIEWER).await;
    assert_eq!(viewer.get(&format!("{THINGS}?map=1")).await.status, 403);
}
