//! What hangs on a right ends with it: tickets for files, transfers under way, callers that wait for
//! devices, wills. Each row of [`ENDS`] takes the right in another way.

use client::Version::{V5, V311};
use serde_json::{Value, json};
use support::http::{log_in, post_with, send};
use support::mqtt::{Connect, Wire};
use support::{Endpoints, TestServer, call, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Who loses the right.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Who {
    User,
    Device,
}

/// How it ends, as an administrator of everything does it: commands, one after the other.
struct End {
    name: &'static str,
    who: Who,
    ask: fn(&Site) -> Vec<(&'static str, Value)>,
}

/// An organisation of its own, with a user and an application that hold a role.
struct Site {
    email: String,
    token: String,
    app: String,
}

const ENDS: [End; 11] = [
    End {
        name: "the user is deleted",
        who: Who::User,
        ask: |site| vec![("user.delete", json!({"emailAddress": site.email}))],
    },
    End {
        name: "the membership is changed",
        who: Who::User,
        ask: |site| vec![("user.org.update", json!({"emailAddress": site.email, "roles": []}))],
    },
    End {
        name: "the role loses the permissions",
        who: Who::User,
        ask: |_| vec![("role.update", json!({"key": "worker", "perms": ["thing.list"]}))],
    },
    End {
        name: "the thing is deleted",
        who: Who::Device,
        ask: |_| vec![("thing.delete", json!({"key": "worker"}))],
    },
    End {
        name: "the application is deleted",
        who: Who::Device,
        ask: |site| vec![("app.delete", json!({"name": site.app}))],
    },
    End {
        name: "the token is another one",
        who: Who::Device,
        ask: |site| vec![("app.update", json!({"name": site.app, "token": "another-token-0001"}))],
    },
    End {
        name: "the application loses the role",
        who: Who::Device,
        ask: |site| vec![("app.update", json!({"name": site.app, "roles": []}))],
    },
    End {
        name: "the user is disabled",
        who: Who::User,
        ask: |site| vec![("user.update", json!({"emailAddress": site.email, "disabled": true}))],
    },
    End {
        name: "the thing is disabled",
        who: Who::Device,
        ask: |_| vec![("thing.update", json!({"key": "worker", "disabled": true}))],
    },
    End {
        name: "the application is disabled",
        who: Who::Device,
        ask: |site| vec![("app.update", json!({"name": site.app, "disabled": true}))],
    },
    End {
        name: "the role loses the permissions, of devices",
        who: Who::Device,
        ask: |_| vec![("role.update", json!({"key": "worker", "perms": ["thing.list"]}))],
    },
];

/// Makes an organisation for a row.
async fn site(admin: &mut client::Client, row: usize) -> Site {
    let key = format!("Site-{row}");
    call(admin, "org.create", &json!({"key": key}).to_string()).await;
    call(admin, "session.org.switch", &json!({"key": key}).to_string()).await;
    let role = json!({"key": "worker", "topicPublish": ["#"], "topicSubscribe": ["#"], "perms":
        ["topic", "file", "method", "thing", "mailbox"]});
    call(admin, "role.create", &role.to_string()).await;
    let (email, token) = (format!("worker-{row}@site.example"), format!("token-of-the-site-{row}"));
    let user = json!({"emailAddress": email, "password": "goat-password"});
    call(admin, "user.create", &user.to_string()).await;
    let member = json!({"emailAddress": email, "roles": ["worker"]});
    call(admin, "user.org.add", &member.to_string()).await;
    let app = format!("app-{row}");
    let made_app = json!({"name": app, "token": token, "autoRegister": true, "roles": ["worker"]});
    call(admin, "app.create", &made_app.to_string()).await;
    // One that stays, for the device that answers nobody, and for who listens.
    let other = json!({"name": "other", "token": format!("other-token-of-{row}"), "autoRegister": true,
        "roles": ["device"]});
    call(admin, "app.create", &other.to_string()).await;
    Site { email, token, app }
}

impl Site {
    fn login(&self, who: Who) -> (&str, &str) {
        match who {
            Who::User => (&self.email, "goat-password"),
            Who::Device => ("worker", &self.token),
        }
    }

    async fn ask(&self, server: &Endpoints, session: &str, command: &str, params: Value) -> Value {
        let body = json!({"1": {"command": command, "params": params}}).to_string();
        let answer = post_with(server, &format!("sessionId: {session}\r\n"), &body).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["1"].clone()
    }

    async fn ticket(&self, server: &Endpoints, session: &str, command: &str, name: &str) -> String {
        let params = json!({"fileName": name, "global": true});
        let reply = self.ask(server, session, command, params).await;
        reply["params"]["fileId"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }
}

/// A device of the site that hears what is published; and another one, which never answers.
async fn listener(server: &Endpoints, row: usize) -> Wire {
    let token = format!("other-token-of-{row}");
    drop(Connect::login(V311, "silent", "silent", &token).open(server).await);
    let mut wire = Connect::login(V311, "ear", "ear", &token).open(server).await;
    assert_eq!(wire.subscribe("wills/#", 1).await, 1);
    wire
}

async fn put(server: &Endpoints, ticket: &str, bytes: &[u8]) -> u16 {
    send(server, &format!("POST /file/{ticket} HTTP/1.1"), bytes).await.status
}

async fn get(server: &Endpoints, ticket: &str) -> u16 {
    send(server, &format!("GET /file/{ticket} HTTP/1.1"), b"").await.status
}

/// Begins to fetch a file, and reads a little of it.
async fn begin_download(server: &Endpoints, ticket: &str) -> TcpStream {
    let mut stream = support::http::dial(server).await;
    let request = format!("GET /file/{ticket} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.expect("a beginning");
    assert!(first.starts_with(b"HTTP/1.1 200"));
    stream
}

/// More than sockets and buffers hold.
const LARGE: usize = 48 * 1024 * 1024;

#[tokio::test]
async fn what_hangs_on_a_right_ends_with_it() {
    let server = TestServer::start();
    let mut admin = server.admin("http").await;
    for (row, end) in ENDS.iter().enumerate() {
        let site = site(&mut admin, row).await;
        let what = end.name;
        let (user, password) = site.login(end.who);
        let mut listener = listener(&server, row).await;
        let session = log_in(&server, user, password).await;
        let large = site.ticket(&server, &session, "file.put", "large").await;
        assert_eq!(put(&server, &large, &vec![b'x'; LARGE]).await, 200, "{what}");
        let fetched = site.ticket(&server, &session, "file.get", "large").await;
        let under_way = site.ticket(&server, &session, "file.get", "large").await;
        let stored = site.ticket(&server, &session, "file.put", "new").await;
        let mut download = begin_download(&server, &under_way).await;
        // A client with a will that waits, one whose will comes when it is lost, and one that asks.
        let connect = |id: &str| Connect::login(V5, id, user, password);
        let mut late = connect("late").resuming();
        late.will = Some(("wills/late", "not any more", b"\x18\0\0\0\x01", false));
        drop(late.open(&server).await);
        let lost = connect("lost").will("wills/lost", "not any more").open(&server).await;
        let exec = json!({"thingKey": "silent", "method": "m", "ackTimeout": 60});
        let waits = site.ask(&server, &session, "method.exec", exec);
        let ends = async {
            eventually("somebody waits", async || {
                let page = support::http::metrics(&server).await;
                page.lines().any(|line| line == "tr50d_mail_callers 1")
            })
            .await;
            for (command, params) in (end.ask)(&site) {
                call(&mut admin, command, &params.to_string()).await;
            }
        };
        let (waited, ()) = tokio::join!(waits, ends);
        assert_eq!(waited["success"], false, "{what}");
        let code = waited["errorCodes"][0].as_i64();
        assert!(matches!(code, Some(-90000 | -95006)), "{what}: {waited}");
        assert_eq!(get(&server, &fetched).await, 404, "{what}");
        assert_eq!(put(&server, &stored, b"x").await, 404, "{what}");
        let mut rest = Vec::new();
        let read = download.read_to_end(&mut rest).await;
        assert!(read.is_err() || rest.len() < LARGE, "{what}: {}", rest.len());
        drop(lost);
        // The delay of the other one passes, too.
        let mut marker = listener_of(&server, row).await;
        marker.tell("wills/marker", "").await;
        assert_eq!(listener.message().await.topic, "wills/marker", "{what}");
        listener.expect_quiet().await;
        call(&mut admin, "session.org.switch", r#"{"key":"SYSTEM"}"#).await;
    }
}

async fn listener_of(server: &Endpoints, row: usize) -> Wire {
    // Longer than the will's delay; nothing tells that it was dropped.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let token = format!("other-token-of-{row}");
    Connect::login(V311, "marker", "marker", &token).open(server).await
}

#[tokio::test]
async fn who_was_thrown_out_has_no_tickets() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for (keeps, command) in [(true, "diag.ping"), (false, "session.end")] {
        let key = format!("device-{keeps}");
        let session = log_in(&server, &key, support::TOKEN).await;
        let body = r#"{"1":{"command":"file.put","params":{"fileName":"a"}}}"#;
        let answer = post_with(&server, &format!("sessionId: {session}\r\n"), body).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let ticket = answer["1"]["params"]["fileId"].as_str().expect("a ticket").to_owned();
        let listed = support::sessions(&mut operator, &json!({"thingKey": key}).to_string()).await;
        let params = json!({"ref": listed[0]["ref"]}).to_string();
        call(&mut operator, command, if keeps { "{}" } else { &params }).await;
        assert_eq!(put(&server, &ticket, b"x").await, if keeps { 200 } else { 404 });
    }
}
