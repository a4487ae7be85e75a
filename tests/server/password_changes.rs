//! Changes of passwords while logins fill their own queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use support::http::post;
use support::{TestServer, call, connect, eventually};

#[tokio::test]
async fn an_administrator_changes_passwords_during_a_flood_of_logins() {
    let server = Arc::new(TestServer::start());
    let mut operator = server.operator("http").await;
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flood: Vec<_> = (0..48)
        .map(|number| {
            let (server, stop, busy) = (server.clone(), stop.clone(), busy.clone());
            tokio::spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("guess-{number}-{round}@basicorg.example");
                    let login = json!({ "auth": { "command": "api.authenticate",
                        "params": { "username": name, "password": "wrong" } } });
                    let answer = post(&server, &login.to_string()).await;
                    if answer.contains("can't take another login") {
                        busy.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let is_full = async || busy.load(Ordering::Relaxed) > 100;
    eventually("the queue of logins is full", is_full).await;
    for number in 0..8 {
        let before = busy.load(Ordering::Relaxed);
        let password = format!("new password {number}");
        let update = json!({ "emailAddress": "viewer@basicorg.example", "password": password });
        call(&mut operator, "user.update", &update.to_string()).await;
        let email = format!("new-{number}@basicorg.example");
        let create = json!({ "emailAddress": email, "password": password });
        call(&mut operator, "user.create", &create.to_string()).await;
        let more = async || busy.load(Ordering::Relaxed) > before;
        eventually("the flood goes on", more).await;
    }
    let own = json!({ "password": "another password", "oldPassword": "demo-operator-password" });
    call(&mut operator, "user.update", &own.to_string()).await;
    stop.store(true, Ordering::Relaxed);
    for guesser in flood {
        guesser.await.expect("no panic");
    }
    connect(&server.url("tcp", "operator@basicorg.example", "another%20password")).await;
    connect(&server.url("tcp", "viewer@basicorg.example", "new%20password%207")).await;
}
