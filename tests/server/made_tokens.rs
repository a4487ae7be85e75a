//! Tokens that the server makes, and those of the demo that vendor tools take.

use client::{Client, Version};
use serde_json::{Value, json};

use support::mqtt::Connect;
use support::process::run;
use support::{TestServer, call, connect, reply};

async fn find(client: &mut Client, name: &str) -> Value {
    call(client, "app.find", &json!({ "name": name }).to_string()).await
}

#[tokio::test]
async fn the_demo_has_tokens_of_sixteen_characters() {
    let server = TestServer::start();
    for (token, org) in [("demo-basicorg-16", "BasicOrg"), ("demo-yorkorg--16", "YorkOrg")] {
        assert_eq!(token.len(), 16);
        for listener in ["mqtt", "tcp", "http"] {
            // It registers things that are not known.
            let mut thing = connect(&server.url(listener, &format!("new-{listener}"), token)).await;
            let info = call(&mut thing, "session.info", "").await;
            assert_eq!(info["orgKey"], org, "{listener}");
            call(&mut thing, "thing.find", "").await;
        }
    }
    let mut operator = server.operator("http").await;
    let found = find(&mut operator, "demo-app-16").await;
    assert_eq!((&found["autoRegister"], &found["token"]), (&json!(true), &json!("")));
}

#[tokio::test]
async fn an_empty_token_is_made_and_read_back_by_its_maker() {
    let server = TestServer::start();
    let mut maker = server.operator("http").await;
    let mut other = server.operator("http").await;
    let params = r#"{"name":"setup","token":"","autoRegister":true,"roles":["device"]}"#;
    let made = call(&mut maker, "app.create", params).await;
    let token = made["token"].as_str().expect("a token").to_owned();
    assert_eq!(token.len(), 16, "{token}");
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
    assert_eq!(find(&mut maker, "setup").await["token"], token);
    let by_token = call(&mut maker, "app.find", &json!({ "token": token }).to_string()).await;
    assert_eq!(by_token["token"], token);
    assert_eq!(find(&mut other, "setup").await["token"], "");
    let mut operator = server.operator("mqtt").await;
    assert_eq!(find(&mut operator, "setup").await["token"], "");
    let listed = call(&mut maker, "app.list", "").await;
    assert!(!listed.to_string().contains(&token), "{listed}");
    let mut wire = Connect::login(Version::V311, "c", "mower-1", &token).open(&server).await;
    wire.send(&[0xc0, 0]).await;
    wire.expect(&[0xd0, 0]).await;
    // Another token: the one that was made is forgotten, and one that is given is shown to nobody.
    let given = json!({ "name": "setup", "token": "given-by-us-1234" }).to_string();
    call(&mut maker, "app.update", &given).await;
    assert_eq!(find(&mut maker, "setup").await["token"], "");
    connect(&server.url("tcp", "mower-2", "given-by-us-1234")).await;
    let given = r#"{"name":"given","token":"given-by-us-5678"}"#;
    assert_eq!(call(&mut maker, "app.create", given).await["token"], "given-by-us-5678");
    assert_eq!(find(&mut maker, "given").await["token"], "");
}

#[tokio::test]
async fn made_tokens_differ_and_are_forgotten_with_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::in_dir(dir.path(), &[]);
    let mut operator = server.operator("http").await;
    let mut tokens = Vec::new();
    for number in 0..20 {
        let params = json!({ "name": format!("app-{number}"), "token": null }).to_string();
        let made = call(&mut operator, "app.create", &params).await;
        tokens.push(made["token"].as_str().expect("a token").to_owned());
    }
    let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), 20);
    let letters: std::collections::BTreeSet<_> = tokens.iter().flat_map(|t| t.chars()).collect();
    assert!(letters.len() > 40, "{letters:?}");
    let id = call(&mut operator, "session.info", "").await["id"].as_str().expect("it").to_owned();
    server.stop().await;
    let server = TestServer::in_dir(dir.path(), &[]);
    // The session survives, the token does not.
    let request = format!(
        r#"{{"auth":{{"sessionId":"{id}"}},"f":{{"command":"app.find","params":{{"name":"app-3"}}}}}}"#
    );
    let answer = support::http::post(&server, &request).await;
    assert!(answer.contains(r#""name":"app-3""#) && answer.contains(r#""token":"""#), "{answer}");
}

#[tokio::test]
async fn the_configuration_can_ask_for_longer_ones() {
    let server = TestServer::with(&[("TR50D_SERVER__TOKEN_CHARS", "40")]);
    let mut operator = server.operator("tcp").await;
    let made = call(&mut operator, "app.create", r#"{"name":"long"}"#).await;
    assert_eq!(made["token"].as_str().map(str::len), Some(40));
    let short = r#"{"name":"short","token":"fifteen-letters"}"#;
    let refused = reply(&mut operator, "app.create", short).await;
    assert_eq!(refused["errorCodes"], json!([-95005]));
    for (chars, fits) in [("15", false), ("16", true), ("256", true), ("257", false)] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tr50d.toml");
        std::fs::write(&file, format!("[server]\ntoken_chars = {chars}\n")).expect("written");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tr50d"));
        command.arg("check").arg("--config").arg(&file);
        let (status, _, told) = run(command);
        let named = told.contains("server.token_chars must be 16 to 256");
        assert_eq!((status.success(), named), (fits, !fits), "{chars}: {told}");
    }
}
