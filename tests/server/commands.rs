//! The commands, over whichever transport.

use std::collections::BTreeSet;
use std::fs;

use client::Client;
use data_encoding::HEXLOWER;
use serde_json::Value;
use support::http::{metrics, post};
use support::tcp::Lines;
use support::{Endpoints, SOON, TestServer, call, connect, eventually, reply};
use tokio::time::timeout;

use crate::TR50D;

mod replies;

macro_rules! replies {
    ($($name:ident: $file:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                replies::check($file).await;
            }
        )*

        const REPLIES: &[&str] = &[$($file),*];
    };
}

replies! {
    the_replies_of_logins: "login.txt";
    the_replies_of_app: "app.txt";
    the_replies_of_audit: "audit.txt";
    the_replies_of_locale: "locale.txt";
    the_replies_of_module: "module.txt";
    the_replies_of_role: "role.txt";
    the_replies_of_thing_def: "thing_def.txt";
    the_replies_of_user_invite: "user_invite.txt";
    the_replies_of_user_org: "user_org.txt";
    the_replies_of_webhook: "webhook.txt";
    the_replies_of_the_envelope: "envelope.txt";
    the_replies_of_a_full_disk: "full_disk.txt";
    the_replies_of_limits: "limits.txt";
    the_replies_of_shares: "shares.txt";
    the_replies_of_a_full_server: "full.txt";
    the_replies_of_alarm: "alarm.txt";
    the_replies_of_attribute: "attribute.txt";
    the_replies_of_diag: "diag.txt";
    the_replies_of_event: "event.txt";
    the_replies_of_file: "file.txt";
    the_replies_of_location: "location.txt";
    the_replies_of_log: "log.txt";
    the_replies_of_mailbox: "mailbox.txt";
    the_replies_of_method: "method.txt";
    the_replies_of_operate: "operate.txt";
    the_replies_of_explain: "explain.txt";
    the_replies_of_org: "org.txt";
    the_replies_of_what_is_not_configured: "not_configured.txt";
    the_replies_of_property: "property.txt";
    the_replies_of_session: "session.txt";
    the_replies_of_session_list: "session_list.txt";
    the_replies_of_sms: "sms.txt";
    the_replies_of_stats: "stats.txt";
    the_replies_of_search: "search.txt";
    the_replies_of_taken_names: "taken_names.txt";
    the_replies_of_tcp: "tcp.txt";
    the_replies_of_thing: "thing.txt";
    the_replies_of_thing_attr: "thing_attr.txt";
    the_replies_of_usage: "usage.txt";
    the_replies_of_user: "user.txt";
    the_replies_of_user_mfa: "user_mfa.txt";
    the_replies_of_user_setting: "user_setting.txt";
    the_replies_of_user_token: "user_token.txt";
    the_replies_of_app_token: "app_token.txt";
}

#[test]
fn every_command_and_every_error_is_in_a_data_file() {
    let names = fs::read_dir(replies::directory())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let files: BTreeSet<String> = names.filter(|name| name.ends_with(".txt")).collect();
    assert_eq!(files, REPLIES.iter().map(|name| (*name).to_owned()).collect());
    let read = |name: &String| fs::read_to_string(replies::directory().join(name)).expect("text");
    let text: String = files.iter().map(read).collect();
    for command in tr50d::tr50::commands::COMMANDS.iter() {
        let sent = format!(r#"{{"command":"{}""#, command.name);
        assert!(text.contains(&sent), "{} is in no file", command.name);
    }
    use base::{CODES, Code};
    // A lock needs ten failures, an internal one a broken disk, the last one MQTT 5.
    let elsewhere = [Code::LOGIN_LOCKED, Code::INTERNAL, Code::REPLY_TOO_LARGE];
    for info in CODES {
        let shown = text.contains(&format!(r#""errorCodes":[{}]"#, info.code.0));
        assert_eq!(shown, !elsewhere.contains(&info.code), "{:?}", info.code);
    }
}

#[test]
fn every_command_is_shown_with_its_success_and_each_of_its_failures() {
    use base::Code;
    // Ten failed logins lock, and a hundred thousand records are too many: tested elsewhere.
    let elsewhere = [Code::LOGIN_LOCKED, Code::BUSY];
    let shown = replies::shown();
    for command in tr50d::tr50::commands::COMMANDS.iter() {
        let none = BTreeSet::new();
        let shown = shown.get(command.name).unwrap_or(&none);
        // These servers run inside of this program, whose log is its own (`machine.rs` has its own).
        let has_own_log = command.name == "server.log.level";
        assert!(has_own_log || shown.contains(&0), "no success of {}", command.name);
        for code in command.errors.iter().filter(|code| !elsewhere.contains(code)) {
            assert!(shown.contains(&code.0.into()), "{} does not fail with {code:?}", command.name);
        }
    }
}

/// The `whoAmI` of every session in a listing, and its count.
fn names(listed: &Value) -> (Vec<&str>, u64) {
    let result = listed["result"].as_array().expect("a list");
    let names = result.iter().map(|session| session["whoAmI"].as_str().expect("a name")).collect();
    (names, listed["count"].as_u64().expect("a number"))
}

fn reference(session: &Value) -> &str {
    session["ref"].as_str().expect("a ref")
}

/// The handle of the session of a thing.
async fn thing_ref(operator: &mut Client, thing_key: &str) -> String {
    let params = format!(r#"{{"thingKey":"{thing_key}"}}"#);
    let listed = call(operator, "session.list", &params).await;
    reference(&listed["result"][0]).to_owned()
}

#[tokio::test]
async fn a_session_is_listed_where_it_is() {
    let server = TestServer::start();
    let mut thing = server.thing("mqtt", "mower-1").await;
    let mut operator = server.operator("http").await;
    let listed = call(&mut operator, "session.list", "").await;
    assert_eq!(listed["count"], 2);
    assert_eq!(listed["result"][1]["thingKey"], "mower-1");
    call(&mut thing, "diag.ping", "").await;
}

#[tokio::test]
async fn listings_are_filtered_sorted_and_cut() {
    const OPERATOR: &str = "operator@basicorg.example";
    let server = TestServer::start();
    // Oldest first: b, a, c, the operator. Their starts differ by a millisecond at least.
    let mut things = Vec::new();
    let mut starts = Vec::new();
    for (listener, key, commands) in [("mqtt", "b", 3), ("tcp", "a", 1), ("http", "c", 2)] {
        let mut thing = server.thing(listener, key).await;
        for _ in 1..commands {
            call(&mut thing, "diag.ping", "").await;
        }
        let info = call(&mut thing, "session.info", "").await;
        starts.push(info["startTime"].as_str().expect("a time").to_owned());
        things.push((thing, info));
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let mut operator = server.operator("http").await;
    let mut check = async |params: &str, expected: &[&str], count: u64| {
        let listed = call(&mut operator, "session.list", params).await;
        assert_eq!(names(&listed), (expected.to_vec(), count), "{params}");
    };
    let address = things[1].1["connInfo"]["remoteAddr"].as_str().expect("an address");
    let all = [OPERATOR, "c", "a", "b"];
    check("{}", &all, 4).await;
    check(r#"{"limit":0,"sort":""}"#, &all, 4).await;
    check(r#"{"limit":"2"}"#, &all[..2], 4).await;
    check(r#"{"LIMIT":2.0,"Offset":"1"}"#, &all[1..3], 4).await;
    check(r#"{"offset":4}"#, &[], 4).await;
    check(r#"{"offset":18446744073709551615}"#, &[], 4).await;
    check(r#"{"limit":18446744073709551615}"#, &all, 4).await;
    check(r#"{"sort":"startTime"}"#, &["b", "a", "c", OPERATOR], 4).await;
    check(r#"{"sort":"+starttime","offset":3}"#, &[OPERATOR], 4).await;
    check(r#"{"sort":"whoAmI"}"#, &["a", "b", "c", OPERATOR], 4).await;
    check(r#"{"sort":"-WHOAMI","limit":2}"#, &[OPERATOR, "c"], 4).await;
    check(r#"{"sort":"commandCount","kind":"application"}"#, &["a", "c", "b"], 3).await;
    check(r#"{"sort":"-commandCount","kind":"application"}"#, &["b", "c", "a"], 3).await;
    check(r#"{"sort":"-lastAccessed","limit":1}"#, &[OPERATOR], 4).await;
    check(r#"{"sort":"lastAccessed","kind":"application"}"#, &["b", "a", "c"], 3).await;
    check(r#"{"kind":"USER"}"#, &[OPERATOR], 1).await;
    check(r#"{"userName":"OPERATOR@BASICORG.EXAMPLE"}"#, &[OPERATOR], 1).await;
    check(r#"{"userName":"viewer@basicorg.example"}"#, &[], 0).await;
    check(r#"{"thingKey":"a"}"#, &["a"], 1).await;
    check(r#"{"thingKey":"A"}"#, &[], 0).await;
    check(r#"{"thingKey":"a/b"}"#, &[], 0).await;
    check(r#"{"thingKey":"a","userName":"operator@basicorg.example"}"#, &[], 0).await;
    check(r#"{"thingKey":"a","kind":"user"}"#, &[], 0).await;
    check(r#"{"appName":"demo-app"}"#, &["c", "a", "b"], 3).await;
    check(r#"{"appName":"demo-app","protocol":"mqtt"}"#, &["b"], 1).await;
    check(r#"{"protocol":"HTTP","limit":1}"#, &[OPERATOR], 2).await;
    check(r#"{"remoteAddr":"127.0.0.1:"}"#, &all, 4).await;
    check(&format!(r#"{{"remoteAddr":"{address}"}}"#), &["a"], 1).await;
    check(r#"{"remoteAddr":"127.0.0.2"}"#, &[], 0).await;
    check(&format!(r#"{{"startedAfter":"{}"}}"#, starts[1]), &[OPERATOR, "c"], 2).await;
    check(&format!(r#"{{"startedBefore":"{}"}}"#, starts[1]), &["b"], 1).await;
    let between = (&starts[0], &starts[2]);
    let between = format!(r#"{{"startedAfter":"{}","startedBefore":"{}"}}"#, between.0, between.1);
    check(&between, &["a"], 1).await;
    check(r#"{"startedAfter":"2099-01-01T00:00:00+02:00"}"#, &[], 0).await;
    check(r#"{"status":"ACTIVE"}"#, &all, 4).await;
    check(r#"{"status":["active","Ended"],"limit":1}"#, &all[..1], 4).await;
    check(r#"{"status":[]}"#, &all, 4).await;
    check(r#"{"status":"ENDED"}"#, &[], 0).await;
    check(r#"{"kind":null,"limit":null,"status":null}"#, &all, 4).await;
}

#[tokio::test]
async fn no_listing_is_longer_than_the_limit() {
    let server = TestServer::with(&[("TR50D_SESSIONS__LIST_LIMIT", "2")]);
    let mut things = Vec::new();
    for number in 0..3 {
        things.push(server.thing("tcp", &format!("thing-{number}")).await);
    }
    let mut operator = server.operator("http").await;
    for params in ["", r#"{"limit":10}"#, r#"{"limit":0}"#] {
        let listed = call(&mut operator, "session.list", params).await;
        assert_eq!(names(&listed), (vec!["operator@basicorg.example", "thing-2"], 4));
    }
}

#[tokio::test]
async fn a_switch_moves_a_session_to_the_other_organisations_list() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let york = server.url("tcp", "york-1", "demo-token-yorkorg");
    let mut york = connect(&york).await;
    for listener in ["mqtt", "tcp", "http"] {
        let mut admin = server.admin(listener).await;
        let reference = call(&mut admin, "session.info", "").await["ref"].clone();
        let find = format!(r#"{{"ref":{reference}}}"#);
        let failure = reply(&mut operator, "session.find", &find).await;
        assert_eq!(failure["errorCodes"][0], -90008);
        for (key, seen_by_operator) in [("BasicOrg", true), ("YorkOrg", false), ("SYSTEM", false)] {
            call(&mut admin, "session.org.switch", &format!(r#"{{"key":"{key}"}}"#)).await;
            let seen = async |client: &mut Client| {
                let listed = call(client, "session.list", "").await;
                names(&listed).0.contains(&"admin@devicewise.com")
            };
            assert_eq!(seen(&mut operator).await, seen_by_operator, "{key}");
            assert_eq!(seen(&mut york).await, key == "YorkOrg", "{key}");
            assert!(seen(&mut admin).await, "{key}");
            let found = reply(&mut operator, "session.find", &find).await;
            assert_eq!(found["success"], seen_by_operator, "{key}");
        }
        let listed = call(&mut admin, "session.list", "").await;
        let switches = listed["result"][0]["orgSwitches"].as_array().expect("a list").clone();
        let keys: Vec<&str> =
            switches.iter().map(|switch| switch["orgKey"].as_str().expect("a key")).collect();
        assert_eq!(keys, ["BasicOrg", "YorkOrg", "SYSTEM"]);
        assert!(switches.is_sorted_by_key(|switch| switch["ts"].as_str().expect("a time")));
        admin.close().await;
    }
    // Where a session ended, its history is.
    let mut admin = server.admin("tcp").await;
    call(&mut admin, "session.org.switch", r#"{"key":"YorkOrg"}"#).await;
    call(&mut admin, "session.end", "").await;
    let ended = r#"{"status":"ENDED","kind":"user"}"#;
    assert_eq!(call(&mut york, "session.list", ended).await["count"], 1);
    assert_eq!(call(&mut operator, "session.list", ended).await["count"], 0);
}

#[tokio::test]
async fn an_ended_session_closes_its_connection_at_once() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    for listener in ["mqtt", "tcp", "ws"] {
        let name = format!("{listener}-1");
        let address = server.address(if listener == "ws" { "http" } else { listener });
        let open = async |key: &str, app_id: &str| {
            let login = format!("{key}:demo-token-basicorg");
            let url = format!("{listener}://{login}@{address}?app_id={app_id}");
            connect(&url.parse().expect("a URL")).await
        };
        // By its owner.
        let mut own = open(&name, "a").await;
        call(&mut own, "session.end", "").await;
        timeout(SOON, own.closed()).await.expect("closed by its owner");
        // By another session of its owner.
        let mut other = open(&name, "a").await;
        let reference = thing_ref(&mut operator, &name).await;
        let mut brother = open(&name, "b").await;
        call(&mut brother, "session.end", &format!(r#"{{"ref":"{reference}"}}"#)).await;
        timeout(SOON, other.closed()).await.expect("closed by another session");
        call(&mut brother, "diag.ping", "").await;
        // By a stranger without the right: not at all.
        let mut stranger = open("stranger", "c").await;
        let brother_ref = thing_ref(&mut operator, &name).await;
        let params = format!(r#"{{"ref":"{brother_ref}"}}"#);
        let refused = reply(&mut stranger, "session.end", &params).await;
        assert_eq!(refused["errorCodes"][0], -95006);
        call(&mut brother, "diag.ping", "").await;
        // By an administrator.
        call(&mut operator, "session.end", &params).await;
        timeout(SOON, brother.closed()).await.expect("closed by an administrator");
        let gone = reply(&mut operator, "session.end", &params).await;
        assert_eq!(gone["errorCodes"][0], -90008);
    }
    let params = r#"{"status":"ENDED","thingKey":"mqtt-1"}"#;
    let listed = call(&mut operator, "session.list", params).await;
    let ends = listed["result"].as_array().expect("a list").iter().map(|session| {
        let member = |name: &str| session[name].as_str().expect("a text").to_owned();
        (member("status"), member("endReason"))
    });
    let text = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    let expected = [
        text("REVOKED", "revoked"),
        text("LOGGED_OUT", "logged_out"),
        text("LOGGED_OUT", "logged_out"),
    ];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn sessions_expire_by_idleness_and_age() {
    let server =
        TestServer::with(&[("TR50D_SESSIONS__TTL_S", "2"), ("TR50D_SESSIONS__MAX_AGE_S", "4")]);
    let idle = server.thing("http", "idle").await;
    let mut busy = server.thing("http", "busy").await;
    let mut bound = server.thing("tcp", "bound").await;
    let mut operator = server.operator("tcp").await;
    assert_eq!(call(&mut operator, "session.info", "").await["ttl"], 2);
    let mut gone = Value::Null;
    eventually("the session in use grows too old", async || {
        call(&mut bound, "diag.ping", "").await;
        call(&mut operator, "diag.ping", "").await;
        gone = reply(&mut busy, "diag.ping", "").await;
        gone["success"] == false
    })
    .await;
    assert_eq!(gone["errorCodes"][0], -90000);
    let message = gone["errorMessages"][0].as_str().expect("a message");
    assert!(message.starts_with("Authentication session is invalid: Error: Session "), "{message}");
    let listed = call(&mut operator, "session.list", r#"{"status":"EXPIRED"}"#).await;
    let reasons: Vec<&str> = listed["result"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|session| session["endReason"].as_str().expect("a reason"))
        .collect();
    assert_eq!(names(&listed), (vec!["busy", "idle"], 2));
    assert_eq!(reasons, ["max_age", "idle"]);
    // The age counts for no session that is bound to a connection.
    call(&mut bound, "diag.ping", "").await;
    drop(idle);
}

#[tokio::test]
async fn a_session_is_held_to_its_commands_a_second() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "5")]);
    for listener in ["mqtt", "tcp", "http"] {
        let mut thing = server.thing(listener, "quick").await;
        let mut refused = Value::Null;
        eventually("the limit is reached", async || {
            refused = reply(&mut thing, "diag.ping", "").await;
            refused["success"] == false
        })
        .await;
        assert_eq!(refused["errorCodes"][0], -95010);
        // Another session of the same login has a limit of its own, and the next second is free.
        let mut other = server.thing("http", "quick").await;
        call(&mut other, "diag.ping", "").await;
        eventually("the next second comes", async || {
            reply(&mut thing, "diag.ping", "").await["success"] == true
        })
        .await;
    }
}

#[tokio::test]
async fn guessing_passwords_locks_the_name() {
    let server = TestServer::start();
    let login = |user: &str, password: &str| {
        let params = format!(r#"{{"username":"{user}@basicorg.example","password":"{password}"}}"#);
        format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#)
    };
    for number in 0..10 {
        let refused = post(&server, &login("viewer", "guess")).await;
        assert!(refused.contains("[-95007]"), "{number}: {refused}");
    }
    let assert_locked = |reply: &str| {
        let message = "[-95008],\"errorMessages\":[\"Too many failed logins; try again in ";
        assert_eq!(reply.matches(message).count(), 2, "at the root and under auth: {reply}");
    };
    for password in ["guess", "demo-viewer-password"] {
        for name in ["viewer", "VIEWER"] {
            let locked = post(&server, &login(name, password)).await;
            assert_locked(&locked);
        }
    }
    let locked = Lines::connect(&server).await.ask(&login("viewer", "demo-viewer-password")).await;
    assert_locked(&locked);
    // Nobody else is.
    server.operator("http").await;
}

#[tokio::test]
async fn no_secret_is_in_any_listing_or_log_line() {
    const WRONG: &str = "wrong-but-still-a-secret";
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let settings = [
            ("TR50D_LOG__LEVEL", "trace"),
            ("TR50D_LOG__FORMAT", format),
            ("TR50D_LIMITS__MAX_FRAME_BYTES", "4096"),
        ];
        let server = TR50D.serve_logging(&log, &settings);
        let mut secrets: Vec<String> =
            ["demo-admin-password", "demo-operator-password", "demo-token-basicorg", WRONG]
                .map(str::to_owned)
                .to_vec();
        let mut clients = Vec::new();
        for scheme in ["mqtt", "ws", "tcp", "http"] {
            let listener = if scheme == "ws" { "http" } else { scheme };
            let mut thing = server.thing_url(listener, &format!("{scheme}-1"));
            thing.protocol = protocol(scheme);
            let mut operator =
                server.url(listener, "operator@basicorg.example", "demo-operator-password");
            operator.protocol = thing.protocol;
            for url in [&thing, &operator] {
                let mut client = connect(url).await;
                let info = call(&mut client, "session.info", "").await;
                secrets.push(info["id"].as_str().expect("a session id").to_owned());
                let echo = format!(r#"{{"id":{}}}"#, info["id"]);
                call(&mut client, "diag.echo", &echo).await;
                reply(&mut client, "session.find", &format!(r#"{{"id":{}}}"#, info["id"])).await;
                reply(&mut client, "no.such", &echo).await;
                clients.push(client);
            }
            let wrong = server.url(listener, "operator@basicorg.example", WRONG);
            assert!(Client::connect(&wrong).await.is_err());
            assert!(Client::connect(&server.url(listener, "thing", WRONG)).await.is_err());
        }
        send_badly(&server, &secrets).await;
        let mut listings = listings_of(clients.pop().expect("the operator")).await;
        drop(clients);
        listings.push(metrics(&server).await);
        drop(server);
        let log = fs::read_to_string(&log).expect("the log");
        assert!(log.contains("TRACE") || log.contains("\"level\":\"INFO\""), "{log}");
        for secret in secrets {
            let hex = HEXLOWER.encode(secret.as_bytes());
            let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
            let forms = [secret, hex.to_uppercase(), hex, bytes.join(", ")];
            for form in forms {
                for text in listings.iter().chain([&log]) {
                    if let Some(at) = text.find(&form) {
                        let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
                        panic!("{form} is in {}", &text[start..at + form.len()]);
                    }
                }
            }
        }
        for text in &listings {
            assert!(!text.contains("$argon2"), "{text}");
        }
    }
}

fn protocol(scheme: &str) -> base::Protocol {
    format!("{scheme}://h").parse::<client::Url>().expect("a URL").protocol
}

/// Sends secrets where they do not belong: in broken, oversize and misplaced requests.
async fn send_badly(server: &Endpoints, secrets: &[String]) {
    for secret in secrets {
        let mut lines = Lines::connect(server).await;
        let broken = format!(r#"{{"auth":{{"command":"{secret}","params":{{"password":"{secret}""#);
        post(server, &broken).await;
        post(server, &format!(r#"{{"{secret}":{{"command":"{secret}"}}}}"#)).await;
        post(server, &format!(r#"{{"auth":{{"sessionId":"{secret}x"}}}}"#)).await;
        lines.ask(&broken).await;
        lines.ask(secret).await;
        let padding = " ".repeat(5000);
        post(server, &format!(r#"{{"auth":{{"password":"{secret}"{padding}}}}}"#)).await;
    }
}

/// The replies of every command that lists or shows something.
async fn listings_of(mut operator: Client) -> Vec<String> {
    let mut replies = Vec::new();
    for (command, params) in [
        ("session.list", r#"{"status":"ALL"}"#),
        ("session.find", r#"{"ref":"REF"}"#),
        ("session.org.list", r#"{"includeRoles":true,"includeRecentOrgs":true}"#),
        ("org.list", "{}"),
        ("user.list", "{}"),
        ("user.find", r#"{"username":"operator@basicorg.example"}"#),
        ("thing.list", "{}"),
        ("thing.find", r#"{"key":"mqtt-1"}"#),
    ] {
        let own = call(&mut operator, "session.info", "").await;
        let params = params.replace("REF", reference(&own));
        replies.push(call(&mut operator, command, &params).await.to_string());
    }
    replies
}
