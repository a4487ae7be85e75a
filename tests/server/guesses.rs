//! Guesses of passwords and tokens: how many are checked, and that they keep out nobody else.

use std::process::Command;

use support::bootstrap::DEMO;
use support::process::run;
use support::{Endpoints, SOON, TestServer, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::TR50D;

const OPERATOR: &str = "operator@basicorg.example";
const PASSWORD: &str = "demo-operator-password";

/// One request over HTTP from this address, and what is answered.
async fn ask(server: &Endpoints, from: &str, body: &str) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("loopback");
    let mut stream = socket.connect(server.address("http")).await.expect("a connection");
    let head = format!("POST /api HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut answer = String::new();
    let asked = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    timeout(SOON, asked).await.expect("in time").expect("an answer");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

fn login(params: &str) -> String {
    format!(r#"{{"auth":{{"command":"api.authenticate","params":{{{params}}}}}}}"#)
}

fn user(name: &str, password: &str) -> String {
    login(&format!(r#""username":"{name}","password":"{password}""#))
}

fn thing(token: &str) -> String {
    login(&format!(r#""appToken":"{token}","thingKey":"mower-1""#))
}

fn succeeds(reply: &str) -> bool {
    reply.contains(r#""auth":{"success":true"#)
}

/// Refused after a look, and not because too many failed.
fn was_checked(reply: &str) -> bool {
    assert!(!succeeds(reply), "{reply}");
    reply.contains("[-95007]")
}

#[tokio::test]
async fn one_account_is_guessed_at_many_addresses_a_few_times_and_its_owner_gets_in() {
    let server = TestServer::start();
    let right = user(OPERATOR, PASSWORD);
    assert!(succeeds(&ask(&server, "127.0.0.1", &right).await));
    let mut checked = 0;
    for round in 0..9 {
        for address in 0..30 {
            let guess = user(OPERATOR, &format!("guess-{round}"));
            let reply = ask(&server, &format!("127.0.1.{}", 1 + address), &guess).await;
            checked += usize::from(was_checked(&reply));
        }
    }
    assert!((30..=60).contains(&checked), "{checked} of 270 were checked");
    // Where she has logged in before, and where she has never been.
    assert!(succeeds(&ask(&server, "127.0.0.1", &right).await));
    assert!(succeeds(&ask(&server, "127.0.2.1", &right).await));
    // Other accounts are not concerned.
    let viewer = user("viewer@basicorg.example", "demo-viewer-password");
    assert!(succeeds(&ask(&server, "127.0.1.1", &viewer).await));
}

#[tokio::test]
async fn a_flood_from_many_addresses_does_not_keep_out_who_was_there_before() {
    let server = TestServer::start();
    let right = user(OPERATOR, PASSWORD);
    assert!(succeeds(&ask(&server, "127.0.0.1", &right).await));
    let endpoints = std::sync::Arc::new(server);
    let mut flood = tokio::task::JoinSet::new();
    for address in 0..24 {
        for stream in 0..8 {
            let server = endpoints.clone();
            flood.spawn(async move {
                for round in 0..1000 {
                    let name = format!("nobody-{stream}-{round}@x.example");
                    ask(&server, &format!("127.0.1.{}", 1 + address), &user(&name, "guess")).await;
                }
            });
        }
    }
    support::eventually("the queue is full", async || {
        let reply = ask(&endpoints, "127.0.1.1", &user("nobody@x.example", "guess")).await;
        reply.contains("[-95011]")
    })
    .await;
    for _ in 0..10 {
        let reply = ask(&endpoints, "127.0.0.1", &right).await;
        assert!(succeeds(&reply), "{reply}");
    }
    flood.shutdown().await;
}

#[tokio::test]
async fn guesses_of_tokens_are_slowed_through_every_door() {
    for scheme in ["mqtt", "tcp", "http"] {
        let server = TestServer::start();
        // Known from here, with the other application's token.
        let mut known = server.thing(scheme, "guesser").await;
        let (mut checked, mut locked) = (0, 0);
        for number in 0..200 {
            let params = format!(r#"{{"appToken":"guess-number-{number:06}","thingKey":"x"}}"#);
            let answer = reply(&mut known, "api.authenticate", &params).await.to_string();
            assert!(!answer.contains(r#""success":true"#), "{answer}");
            match answer.contains("Too many failed logins; try again in ") {
                true => locked += 1,
                false => checked += 1,
            }
        }
        assert_eq!(checked, 60, "{scheme}");
        assert_eq!(locked, 140, "{scheme}");
        // A right token that was never seen from here tells nothing; one that was gets in.
        let fresh = ask(&server, "127.0.0.1", &thing("demo-token-yorkorg")).await;
        assert!(fresh.contains("Too many failed logins"), "{fresh}");
        assert!(succeeds(&ask(&server, "127.0.0.1", &thing("demo-token-basicorg")).await));
        drop(server.thing("mqtt", "another").await);
        assert!(succeeds(&ask(&server, "127.0.0.9", &thing("demo-token-yorkorg")).await));
        // Cognite's door is the same.
        let cognite = "GET /api/v1/principals/me HTTP/1.1\r\nAuthorization: Bearer";
        let status = async |token: &str| {
            let request = format!("{cognite} {token}\r\nHost: h\r\nConnection: close\r\n\r\n");
            let answer = support::http::exchange(&server, request.as_bytes()).await;
            answer[9..12].to_owned()
        };
        assert_eq!(status("guess-number-000000").await, "429");
        assert_eq!(status("demo-token-yorkorg").await, "429");
        assert_ne!(status("demo-token-basicorg").await, "429");
    }
}

#[test]
fn a_short_token_in_the_bootstrap_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("people.toml");
    for (token, welcome) in [("15-characters-x", false), ("16-characters-xx", true)] {
        let text = DEMO.replace("token = \"demo-basicorg-16\"", &format!("token = \"{token}\""));
        assert!(text.contains(token));
        std::fs::write(&file, text).expect("written");
        let mut check = Command::new(TR50D.0);
        check.arg("check").env("TR50D_SERVER__BOOTSTRAP", &file);
        let (status, out, err) = run(check);
        assert_eq!(status.success(), welcome, "{out}{err}");
        assert_eq!(err.contains("16 to 256 printable ASCII characters"), !welcome, "{err}");
    }
}
