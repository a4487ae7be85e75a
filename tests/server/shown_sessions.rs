//! `session.list` with `show` and `hideFields`.

use serde_json::{Value, json};

use support::{TestServer, call, connect, reply};

/// The whole text of a reply's `params`.
async fn text(client: &mut client::Client, params: &str) -> String {
    let reply = client.call("session.list", Some(params)).await.expect("a reply");
    reply.as_json().to_owned()
}

#[tokio::test]
async fn only_what_is_asked_for_is_shown() {
    let server = TestServer::start();
    for listener in ["mqtt", "tcp", "http"] {
        let mut mower = server.thing(listener, "mower-1").await;
        let only = r#"{"thingKey":"mower-1","protocol":"LISTENER","show":["whoAmI","REF"]}"#;
        let only = only.replace("LISTENER", listener);
        let listed = text(&mut mower, &only).await;
        let all =
            call(&mut mower, "session.list", &format!(r#"{{"protocol":"{listener}"}}"#)).await;
        let reference = all["result"][0]["ref"].as_str().expect("a ref");
        let expected = format!(
            r#""count":1,"fields":["whoAmI","ref"],"result":[{{"ref":"{reference}","whoAmI":"mower-1"}}]"#
        );
        assert!(listed.contains(&expected), "{listed}");
        let hidden = text(&mut mower, &only.replace("}", r#","hideFields":"true"}"#)).await;
        assert!(hidden.contains(r#""count":1,"result":[{"ref":"#), "{hidden}");
    }
}

#[tokio::test]
async fn each_member_is_as_in_the_whole_row() {
    let server = TestServer::start();
    let _mower = server.thing("mqtt", "mower-1").await;
    let _york = connect(&server.url("tcp", "y", "demo-token-yorkorg")).await;
    let mut viewer =
        connect(&server.url("tcp", "viewer@basicorg.example", "demo-viewer-password")).await;
    call(&mut viewer, "session.end", "").await;
    let mut admin = server.admin("http").await;
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    call(&mut admin, "session.org.switch", r#"{"key":"BasicOrg"}"#).await;
    let mut operator = server.operator("http").await;
    // What changes with every command is not among them.
    let scope = r#""status":"ALL","sort":"whoAmI""#;
    let whole = call(&mut operator, "session.list", &format!("{{{scope}}}")).await;
    assert!(whole.get("fields").is_none());
    let rows = whole["result"].as_array().expect("rows");
    assert_eq!(rows.len(), 4, "{whole}");
    let starred =
        call(&mut operator, "session.list", &format!(r#"{{{scope},"show":["*"]}}"#)).await;
    let fields = starred["fields"].as_array().expect("fields");
    for row in rows {
        for name in row.as_object().expect("members").keys() {
            assert!(fields.contains(&json!(name)), "{name}");
        }
    }
    for field in fields.iter().map(|field| field.as_str().expect("a name")) {
        let params = format!(r#"{{{scope},"show":"{field}"}}"#);
        let shown = call(&mut operator, "session.list", &params).await;
        assert_eq!(shown["fields"], json!([field]));
        assert_eq!(shown["count"], 4);
        for (whole, row) in rows.iter().zip(shown["result"].as_array().expect("rows")) {
            let expected = match whole.get(field) {
                Some(_) if ["commandCount", "lastAccessed"].contains(&field) => row.clone(),
                Some(value) => json!({ field: value }),
                None => json!({}),
            };
            assert_eq!(*row, expected, "{field}");
        }
    }
}

#[tokio::test]
async fn default_and_mistakes() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    for params in [r#"{"show":[]}"#, r#"{"show":null}"#, r#"{"hideFields":true}"#, "{}"] {
        let listed = call(&mut operator, "session.list", params).await;
        assert!(listed.get("fields").is_none(), "{params}");
        let row = listed["result"][0].as_object().expect("a row");
        assert!(row.len() > 14 && row.contains_key("connInfo"), "{params}");
    }
    for (show, named) in [(r#"["ref","colour"]"#, "colour"), (r#"["id"]"#, "id"), (r#""""#, "")] {
        let params = format!(r#"{{"show":{show}}}"#);
        let refused: Value = reply(&mut operator, "session.list", &params).await;
        assert_eq!(refused["errorCodes"], json!([-95005]));
        let told = refused["errorMessages"][0].as_str().expect("a sentence");
        assert!(told.contains("\"show\"") && told.contains(&format!("\"{named}\"")), "{told}");
    }
    let nobody = r#"{"userName":"nobody@nowhere.example","show":["ref"]}"#;
    let listed = call(&mut operator, "session.list", nobody).await;
    assert_eq!(listed, json!({ "count": 0, "fields": ["ref"], "result": [] }));
}
