//! Who has the data directory, and who administers, gets in: by the control socket without a password,
//! and when all is full.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use client::Client;
use serde_json::{Value, json};
use support::http::{log_in, post, post_with};
use support::{Endpoints, Signal, TestServer, call, connect, eventually};

use crate::TR50D;

const OPERATOR: &str = "operator@basicorg.example";
const PASSWORD: &str = "demo-operator-password";

/// A configuration that names the server's data directory, in a directory of its own.
fn configured(server: &Endpoints) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("[server]\ndata_dir = {:?}\n", server.data_dir());
    std::fs::write(dir.path().join("tr50d.toml"), text).expect("written");
    dir
}

/// Runs the program in a directory; `input` is what it reads.
async fn tr50d(dir: &Path, arguments: &[&str], input: &str) -> (ExitStatus, String, String) {
    let mut command = Command::new(TR50D.0);
    command.args(arguments).current_dir(dir).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let work = move || {
        let mut child = command.spawn().expect("started");
        let mut stdin = child.stdin.take().expect("a pipe");
        // Who reads nothing may be gone.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("ended")
    };
    let output = tokio::task::spawn_blocking(work).await.expect("run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status, text(output.stdout), text(output.stderr))
}

async fn succeeds(dir: &Path, arguments: &[&str], input: &str) -> String {
    let (status, out, err) = tr50d(dir, arguments, input).await;
    assert!(status.success() && err.is_empty(), "{arguments:?}: {out}{err}");
    out
}

#[tokio::test]
async fn any_command_is_carried_out_on_the_machine_without_a_password() {
    let server = TestServer::start();
    let dir = configured(&server);
    let dir = dir.path();
    let _mower = server.thing("mqtt", "mower-1").await;
    let config = ["--config", "tr50d.toml"];
    let in_org = ["--config", "tr50d.toml", "--org", "BasicOrg"];
    let ask = async |arguments: &[&str], more: &[&str]| {
        let all = [&["call"], arguments, more].concat();
        let (status, out, err) = tr50d(dir, &all, "").await;
        assert_eq!(err, "", "{arguments:?}");
        let reply: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(status.success(), reply["success"] == true, "{out}");
        reply
    };
    let listed = ask(&["session.list"], &in_org).await;
    assert_eq!(listed["params"]["result"][0]["whoAmI"], "mower-1", "{listed}");
    assert_eq!(listed["params"]["result"].as_array().map(Vec::len), Some(1), "itself is in none");
    let made = ask(&["role.create", r#"{"key":"made","perms":["thing.list"]}"#], &in_org).await;
    assert_eq!(made["success"], true, "{made}");
    let trail = ask(&["audit.list", r#"{"command":"role.create"}"#], &in_org).await;
    let event = &trail["params"]["result"][0];
    assert_eq!((&event["protocol"], event.get("remoteAddr")), (&json!("control"), None), "{event}");
    assert!(event["whoAmI"].as_str().is_some_and(|who| who.starts_with("uid ")), "{event}");
    let end = json!({"ref": listed["params"]["result"][0]["ref"]}).to_string();
    let ended = ask(&["session.end", &end], &in_org).await;
    assert_eq!(ended["success"], true, "{ended}");
    let live = ask(&["session.list"], &in_org).await;
    assert_eq!(live["params"]["result"], json!([]), "{live}");
    // What makes no sense, or does not exist.
    let own = ask(&["session.end"], &config).await;
    assert_eq!(own["success"], true, "{own}");
    assert_eq!(ask(&["session.info"], &config).await["params"]["orgKey"], "SYSTEM");
    let switched = ask(&["session.org.switch", r#"{"key":"BasicOrg"}"#], &config).await;
    assert!(switched["errorMessages"][0].as_str().is_some_and(|text| text.contains("--org")));
    let nowhere = ask(&["session.list"], &["--config", "tr50d.toml", "--org", "Nowhere"]).await;
    assert_eq!(nowhere["errorCodes"][0], -90_008);
    // Nothing is left of all these sessions.
    let live = ask(&["session.list"], &config).await;
    assert_eq!(live["params"]["result"], json!([]), "{live}");
    server.stop().await;
    let (status, _, err) =
        tr50d(dir, &["call", "session.list", "--config", "tr50d.toml"], "").await;
    assert_eq!(status.code(), Some(2));
    assert!(err.contains("no server runs with the data directory"), "{err}");
}

#[tokio::test]
async fn a_lost_password_is_set_anew() {
    let server = TestServer::start();
    let dir = configured(&server);
    let dir = dir.path();
    let session = log_in(&server, OPERATOR, PASSWORD).await;
    let wrong = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"username":"{OPERATOR}","password":"not-the-password"}}}}}}"#
    );
    let mut code = String::new();
    for _ in 0..20 {
        code = post(&server, &wrong).await;
    }
    assert!(code.contains("-95008"), "locked: {code}");
    let passwd = ["passwd", OPERATOR, "--config", "tr50d.toml"];
    let (status, _, err) = tr50d(dir, &passwd, "short\n").await;
    assert!(status.code() == Some(2) && err.contains("password"), "{err}");
    let out = succeeds(dir, &passwd, "another-long-password\n").await;
    assert_eq!(out, format!("{OPERATOR} has a new password\n"));
    let info = r#"{"1":{"command":"session.info"}}"#;
    let ended = post_with(&server, &format!("sessionId: {session}\r\n"), info).await;
    assert!(ended.contains("has ended"), "{ended}");
    log_in(&server, OPERATOR, "another-long-password").await;
    let out = succeeds(dir, &[&passwd[..], &["--generate"]].concat(), "").await;
    log_in(&server, OPERATOR, out.trim()).await;
    assert!(out.trim().len() >= 20, "{out}");
    // An administrator where there is none.
    let create = ["passwd", "new@example.com", "--config", "tr50d.toml", "--create", "--generate"];
    let out = succeeds(dir, &create, "").await;
    let url = server.url("http", "new@example.com", out.trim());
    let info = call(&mut connect(&url).await, "session.info", "{}").await;
    assert_eq!(info["hasSuperAdmin"], true, "{info}");
    let (status, _, err) = tr50d(dir, &create, "").await;
    assert!(status.code() == Some(2) && err.contains("exists"), "{err}");
    let nobody = ["passwd", "nobody@example.com", "--config", "tr50d.toml", "--generate"];
    let (status, out, err) = tr50d(dir, &nobody, "").await;
    assert!(status.code() == Some(2) && out.is_empty() && err.contains("not found"), "{out}{err}");
}

#[tokio::test]
async fn a_lock_is_opened_for_a_name_or_an_address() {
    let server = TestServer::start();
    let dir = configured(&server);
    let wrong = format!(
        r#"{{"auth":{{"command":"api.authenticate","params":{{"username":"{OPERATOR}","password":"not-the-password"}}}}}}"#
    );
    for what in [OPERATOR, "127.0.0.1"] {
        let mut code = String::new();
        for _ in 0..11 {
            code = post(&server, &wrong).await;
        }
        assert!(code.contains("-95008"), "locked: {code}");
        let arguments = ["unlock", what, "--config", "tr50d.toml"];
        let out = succeeds(dir.path(), &arguments, "").await;
        assert_eq!(out, format!("{what} is not locked any more\n"));
        log_in(&server, OPERATOR, PASSWORD).await;
        let out = succeeds(dir.path(), &arguments, "").await;
        assert_eq!(out, format!("{what} was not locked\n"));
    }
    // Tokens are guessed from an address.
    let guess = r#"{"auth":{"command":"api.authenticate","params":{"appToken":"guessed-token-0001","thingKey":"a"}}}"#;
    let mut code = String::new();
    for _ in 0..62 {
        code = post(&server, guess).await;
    }
    assert!(code.contains("-95008"), "locked: {code}");
    succeeds(dir.path(), &["unlock", "127.0.0.1", "--config", "tr50d.toml"], "").await;
    assert!(post(&server, guess).await.contains("-95007"));
}

/// Things of both organisations log in until there is no room.
async fn fill(server: &Endpoints) -> Vec<Client> {
    let mut all = Vec::new();
    for token in ["demo-token-basicorg", "demo-basicorg-16", "demo-token-yorkorg", "demo-york--16"]
    {
        for number in 0.. {
            let key = format!("{token}-{number}");
            let url = server.url("mqtt", &key, token);
            match Client::connect(&url).await {
                Ok(client) => all.push(client),
                Err(_) => break,
            }
        }
    }
    all
}

#[tokio::test]
async fn administrators_get_in_when_all_sessions_are_taken() {
    let server = TestServer::with(&[("TR50D_LIMITS__SESSIONS", "12")]);
    let things = fill(&server).await;
    assert!(things.len() >= 8, "{}", things.len());
    // Those of SYSTEM and of the organisation, over every door; the sixteenth is used up, too.
    let mut all = Vec::new();
    for listener in ["http", "mqtt", "tcp"] {
        for _ in 0..3 {
            all.push(server.operator(listener).await);
            all.push(server.admin(listener).await);
        }
    }
    let viewer = server.url("http", "viewer@basicorg.example", "demo-viewer-password");
    let refused = Client::connect(&viewer).await.err().expect("no administrator").to_string();
    assert!(refused.contains("limits.sessions"), "{refused}");
    for client in &mut all {
        call(client, "session.list", "{}").await;
    }
    let key = "demo-token-basicorg-0";
    let listed = call(&mut all[0], "session.list", &json!({"thingKey": key}).to_string()).await;
    let end = json!({"ref": listed["result"][0]["ref"]}).to_string();
    call(&mut all[0], "session.end", &end).await;
    let sessions = call(&mut all[0], "session.list", &json!({"thingKey": key}).to_string()).await;
    assert_eq!(sessions["result"], json!([]), "{sessions}");
    // What was kept for them is given back.
    for client in all {
        client.close().await;
    }
    for _ in 0..70 {
        server.operator("tcp").await.close().await;
    }
    drop(things);
}

#[tokio::test]
async fn commands_on_the_machine_work_when_all_is_full() {
    let server = TestServer::with(&[
        ("TR50D_LIMITS__SESSIONS", "6"),
        ("TR50D_LIMITS__CONNECTIONS", "6"),
        ("TR50D_LIMITS__ORG_COMMANDS_PER_S", "1"),
    ]);
    let dir = configured(&server);
    let things = fill(&server).await;
    for _ in 0..5 {
        let list = ["call", "session.list", "--config", "tr50d.toml", "--org", "BasicOrg"];
        let out = succeeds(dir.path(), &list, "").await;
        assert!(out.contains("demo-token-basicorg-0"), "{out}");
    }
    drop(things);
}

#[tokio::test]
async fn the_level_of_the_log_is_set_until_the_next_sighup() {
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("log");
    let server = TR50D.serve_logging(&log, &[("TR50D_LOG__LEVEL", "warn")]);
    let text = || std::fs::read_to_string(&log).expect("a log");
    let dir = configured(&server);
    let level = async |params: &str| {
        let ask = ["call", "server.log.level", params, "--config", "tr50d.toml"];
        let out = succeeds(dir.path(), &ask, "").await;
        serde_json::from_str::<Value>(&out).expect("JSON")["params"].clone()
    };
    drop(server.thing("tcp", "unseen-1").await);
    assert_eq!(level("{}").await, json!({ "level": "warn" }));
    let set = level(r#"{"level":"INFO"}"#).await;
    assert_eq!(set, json!({ "level": "info", "before": "warn" }));
    drop(server.thing("tcp", "seen-1").await);
    assert!(text().contains("the log level was set") && text().contains("seen-1"), "{}", text());
    assert!(!text().contains("unseen-1"));
    // Over the other doors it is for super administrators.
    let mut admin = server.admin("http").await;
    assert_eq!(call(&mut admin, "server.log.level", "").await["level"], "info");
    let trail = call(&mut admin, "audit.list", r#"{"command":"server.log.level"}"#).await;
    let event = &trail["result"][0];
    assert_eq!(
        (&event["before"]["level"], &event["after"]["level"]),
        (&json!("warn"), &json!("info"))
    );
    server.signal(Signal::HUP);
    eventually("the level is that of the configuration", async || {
        level("{}").await["level"] == "warn"
    })
    .await;
}

#[tokio::test]
async fn what_the_operators_page_says_of_getting_in_works() {
    // Of its own process, whose log it has.
    let server = TR50D.start(&[]);
    let dir = configured(&server);
    let _mower = server.thing("mqtt", "mower-42").await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let lines: Vec<_> =
        page.lines().filter(|l| l.starts_with("tr50d ") && l.contains("--config")).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    for line in lines {
        let mut shell = Command::new("sh");
        let script = format!("tr50d() {{ {} \"$@\"; }}\n{line}", TR50D.0);
        shell.current_dir(dir.path()).args(["-c", &script]);
        let (status, out, err) =
            tokio::task::spawn_blocking(move || support::process::run(shell)).await.expect("run");
        assert!(status.success(), "{line}\n{out}{err}");
    }
}
