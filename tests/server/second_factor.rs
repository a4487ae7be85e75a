//! The second factor of users, over every door.

use std::sync::Arc;

use base::TimeSource;
use client::{Client, Version};
use data_encoding::BASE64;
use serde_json::{Value, json};
use support::http::{metrics, post, send};
use support::mqtt::{Connect, Wire};
use support::tcp::Lines;
use support::{Endpoints, Hands, TestServer, call, connect, reply, totp};

const VIEWER: &str = "viewer@basicorg.example";
const PASSWORD: &str = "demo-viewer-password";
const CODE_WANTED: i64 = -90041;
const REFUSED: i64 = -95007;
const DENIED: i64 = -95006;

/// What an authenticator shows, so many steps from now.
fn code_at(secret: &str, hands: &Hands, steps: i64) -> String {
    totp::code(secret, hands.wall_ms() + steps * 30_000)
}

/// A server, and a viewer with a second factor.
struct Scene {
    server: TestServer,
    hands: Arc<Hands>,
    secret: String,
    recovery: Vec<String>,
    viewer: Client,
}

impl Scene {
    async fn start(dir: &std::path::Path) -> Self {
        let hands = Hands::at(1_700_000_000_000);
        let server = TestServer::by_clock(dir, &[], hands.clone());
        let mut viewer = connect(&server.url("http", VIEWER, PASSWORD)).await;
        let (secret, recovery) = enrol(&mut viewer, &hands).await;
        // The next code is another one.
        hands.pass(30);
        Self { server, hands, secret, recovery, viewer }
    }

    fn code(&self) -> String {
        code_at(&self.secret, &self.hands, 0)
    }
}

async fn enrol(user: &mut Client, hands: &Hands) -> (String, Vec<String>) {
    let proof = json!({ "password": PASSWORD }).to_string();
    let enrolled = call(user, "user.mfa.enrol", &proof).await;
    let secret = enrolled["secret"].as_str().expect("a secret").to_owned();
    let uri = enrolled["uri"].as_str().expect("a URI");
    assert!(uri.starts_with("otpauth://totp/") && uri.contains(&secret), "{uri}");
    let code = json!({ "code": code_at(&secret, hands, 0) }).to_string();
    let confirmed = call(user, "user.mfa.confirm", &code).await;
    let codes = confirmed["recoveryCodes"].as_array().expect("a list");
    let recovery = codes.iter().map(|code| code.as_str().expect("a text").to_owned()).collect();
    (secret, recovery)
}

fn request(name: &str, password: &str) -> String {
    let params = json!({ "username": name, "password": password });
    json!({ "auth": { "command": "api.authenticate", "params": params } }).to_string()
}

/// The session's id, or the code of the failure.
fn outcome(reply: &str) -> Result<String, i64> {
    let reply: Value = serde_json::from_str(reply).expect("JSON");
    match reply["auth"]["params"]["sessionId"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(reply["auth"]["errorCodes"][0].as_i64().expect("a code")),
    }
}

async fn login(server: &Endpoints, name: &str, password: &str) -> Result<String, i64> {
    outcome(&post(server, &request(name, password)).await)
}

fn failure(reply: &Value) -> i64 {
    reply["errorCodes"][0].as_i64().unwrap_or(0)
}

async fn causes(operator: &mut Client) -> Vec<String> {
    let listed = call(operator, "login.failures", "").await;
    let rows = listed["result"].as_array().expect("a list").iter();
    rows.map(|row| row["cause"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn a_login_over_http_takes_a_password_and_then_a_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let scene = Scene::start(dir.path()).await;
    let server = &scene.server;
    // A code alone, or a wrong password, says nothing.
    assert_eq!(login(server, VIEWER, &scene.code()).await, Err(REFUSED));
    assert_eq!(login(server, VIEWER, "wrong-password").await, Err(REFUSED));
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    assert_eq!(login(server, VIEWER, "000000").await, Err(REFUSED));
    let code = scene.code();
    let session = login(server, VIEWER, &code).await.expect("welcome");
    let asked = json!({ "auth": { "sessionId": session }, "1": { "command": "session.info" } });
    let info = post(server, &asked.to_string()).await;
    assert!(info.contains(VIEWER), "{info}");
    // Each code once; the next one is another.
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    assert_eq!(login(server, VIEWER, &code).await, Err(REFUSED));
    let next = code_at(&scene.secret, &scene.hands, 1);
    login(server, VIEWER, &next).await.expect("clocks differ");
    // As an ordinary command, and in one call.
    scene.hands.pass(90);
    let params = json!({ "username": VIEWER, "password": PASSWORD, "code": "123" });
    let ask = async |params: &Value| {
        let asked = json!({ "1": { "command": "api.authenticate", "params": params } });
        let reply: Value = serde_json::from_str(&post(server, &asked.to_string()).await).unwrap();
        reply["1"].clone()
    };
    assert_eq!(failure(&ask(&params).await), REFUSED);
    let params = json!({ "username": VIEWER, "password": PASSWORD });
    assert_eq!(failure(&ask(&params).await), CODE_WANTED);
    let spaced = format!("{} {}", &scene.code()[..3], &scene.code()[3..]);
    let params = json!({ "username": VIEWER, "password": spaced });
    assert_eq!(ask(&params).await["success"], true);
}

#[tokio::test]
async fn a_code_follows_within_two_minutes_and_five_tries() {
    let dir = tempfile::tempdir().expect("a directory");
    let scene = Scene::start(dir.path()).await;
    let server = &scene.server;
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    scene.hands.pass(120);
    assert_eq!(login(server, VIEWER, &scene.code()).await, Err(REFUSED));
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    for wrong in 0..5 {
        assert_eq!(login(server, VIEWER, &format!("00000{wrong}")).await, Err(REFUSED));
    }
    assert_eq!(login(server, VIEWER, &scene.code()).await, Err(REFUSED));
    // Eight have failed by now; a right password starts no new row of tries.
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    for wrong in 0..3 {
        login(server, VIEWER, &format!("00000{wrong}")).await.expect_err("wrong");
    }
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(-95008));
    assert_eq!(login(server, VIEWER, &scene.code()).await, Err(-95008));
    let mut operator = server.operator("http").await;
    let causes = causes(&mut operator).await;
    for cause in ["second_factor", "wrong_code", "wrong_password", "locked"] {
        assert!(causes.iter().any(|known| known == cause), "{cause}: {causes:?}");
    }
    assert!(metrics(server).await.contains("wrong_code"));
}

#[tokio::test]
async fn over_tcp_the_code_comes_over_the_same_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let scene = Scene::start(dir.path()).await;
    let (mut first, mut second) =
        (Lines::connect(&scene.server).await, Lines::connect(&scene.server).await);
    let (password, code) = (request(VIEWER, PASSWORD), request(VIEWER, &scene.code()));
    assert_eq!(outcome(&first.ask(&password).await), Err(CODE_WANTED));
    assert_eq!(outcome(&second.ask(&code).await), Err(REFUSED));
    assert_eq!(login(&scene.server, VIEWER, &scene.code()).await, Err(REFUSED));
    outcome(&first.ask(&code).await).expect("welcome");
    let info = first.ask(r#"{"1":{"command":"session.info"}}"#).await;
    assert!(info.contains(VIEWER), "{info}");
    // What another door opened does not count here.
    scene.hands.pass(30);
    assert_eq!(login(&scene.server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    let code = request(VIEWER, &scene.code());
    assert_eq!(outcome(&second.ask(&code).await), Err(REFUSED));
}

#[tokio::test]
async fn doors_without_a_second_call_tell_a_right_password_from_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let scene = Scene::start(dir.path()).await;
    let server = &scene.server;
    for version in [Version::V31, Version::V311, Version::V5] {
        let connack = async |password: &str| {
            let mut wire = Wire::open(server, version).await;
            wire.send(&Connect::login(version, "c", VIEWER, password).frame()).await;
            wire.frame().await.expect("a CONNACK")
        };
        assert_eq!(connack(PASSWORD).await, connack("wrong-password").await);
    }
    let basic = async |password: &str| {
        let header = BASE64.encode(format!("{VIEWER}:{password}").as_bytes());
        let head = format!("POST /json-rpc/12.5 HTTP/1.1\r\nAuthorization: Basic {header}");
        let body = br#"{"method":"ListAuthSessionsByUsername","params":{},"id":1}"#;
        let answer = send(server, &head, body).await;
        (answer.header("www-authenticate").map(str::to_owned), answer.text().to_owned())
    };
    assert_eq!(basic(PASSWORD).await, basic("wrong-password").await);
    // Neither opens the way for a code, and both count.
    assert_eq!(login(server, VIEWER, &scene.code()).await, Err(REFUSED));
    for _ in 0..2 {
        basic(PASSWORD).await;
    }
    assert_eq!(login(server, VIEWER, PASSWORD).await, Err(-95008));
}

#[tokio::test]
async fn rest_takes_the_code_in_a_field() {
    let dir = tempfile::tempdir().expect("a directory");
    let scene = Scene::start(dir.path()).await;
    let rest = async |code: &str| {
        let form = format!("username={VIEWER}&password={PASSWORD}{code}");
        let head = "POST /rest/auth HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded";
        send(&scene.server, head, form.as_bytes()).await.text().to_owned()
    };
    assert!(rest("").await.contains("-90041"));
    assert!(rest("&code=000000").await.contains("-95007"));
    let session = rest(&format!("&code={}", scene.code())).await;
    assert_eq!(session.len(), 24, "{session}");
}

#[tokio::test]
async fn codes_are_taken_once_over_a_restart_and_a_factor_outlives_a_new_password() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut scene = Scene::start(dir.path()).await;
    let code = scene.code();
    assert_eq!(login(&scene.server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    login(&scene.server, VIEWER, &code).await.expect("welcome");
    let recovery = &scene.recovery[0].to_uppercase();
    assert_eq!(login(&scene.server, VIEWER, PASSWORD).await, Err(CODE_WANTED));
    login(&scene.server, VIEWER, recovery).await.expect("welcome");
    let change = json!({ "password": "another-password", "oldPassword": PASSWORD }).to_string();
    call(&mut scene.viewer, "user.update", &change).await;
    scene.server.stop().await;
    let server = TestServer::by_clock(dir.path(), &[], scene.hands.clone());
    for used in [&code, recovery] {
        assert_eq!(login(&server, VIEWER, "another-password").await, Err(CODE_WANTED));
        assert_eq!(login(&server, VIEWER, used).await, Err(REFUSED), "{used}");
    }
    let next = code_at(&scene.secret, &scene.hands, 1);
    login(&server, VIEWER, &next).await.expect("welcome");
    assert_eq!(login(&server, VIEWER, "another-password").await, Err(CODE_WANTED));
    login(&server, VIEWER, &scene.recovery[1]).await.expect("another one");
}

#[tokio::test]
async fn a_factor_is_set_up_and_removed_by_who_proves_to_be_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut viewer = connect(&server.url("http", VIEWER, PASSWORD)).await;
    let mut other = connect(&server.url("http", VIEWER, PASSWORD)).await;
    let mut operator = server.operator("http").await;
    let state = async |operator: &mut Client| {
        let which = json!({ "emailAddress": VIEWER }).to_string();
        call(operator, "user.find", &which).await["mfa"].clone()
    };
    let refused = reply(&mut viewer, "user.mfa.enrol", r#"{"password":"wrong-password"}"#).await;
    assert_eq!(failure(&refused), REFUSED);
    assert_eq!(failure(&reply(&mut viewer, "user.mfa.enrol", "{}").await), -95004);
    let unknown = json!({ "password": PASSWORD, "pasword": 1 }).to_string();
    assert_eq!(failure(&reply(&mut viewer, "user.mfa.enrol", &unknown).await), -95005);
    let early = reply(&mut viewer, "user.mfa.confirm", r#"{"code":"123456"}"#).await;
    assert_eq!(failure(&early), -90008);
    let gone = reply(&mut viewer, "user.mfa.remove", r#"{"code":"123456"}"#).await;
    assert_eq!(failure(&gone), -90008);
    assert_eq!(state(&mut operator).await, false);
    let (secret, _) = enrol(&mut viewer, &hands).await;
    assert_eq!(state(&mut operator).await, true);
    // Who was in by the password alone is out, as after a change of the password.
    assert_eq!(failure(&reply(&mut other, "session.info", "").await), -90000);
    call(&mut viewer, "session.info", "").await;
    // No secret is in any listing.
    let trail = call(&mut operator, "audit.list", "").await.to_string();
    let found = call(&mut operator, "user.list", r#"{"limit":9}"#).await.to_string();
    assert!(trail.contains("user.mfa.confirm") && !trail.contains(&secret), "{trail}");
    assert!(!found.contains(&secret) && !found.contains("recovery"), "{found}");
    // Removed by oneself, with a proof, and by an administrator.
    assert_eq!(failure(&reply(&mut viewer, "user.mfa.remove", "{}").await), -95004);
    let wrong = reply(&mut viewer, "user.mfa.remove", r#"{"code":"000000"}"#).await;
    assert_eq!(failure(&wrong), REFUSED);
    hands.pass(30);
    let code = json!({ "code": code_at(&secret, &hands, 0) }).to_string();
    call(&mut viewer, "user.mfa.remove", &code).await;
    assert_eq!(state(&mut operator).await, false);
    login(&server, VIEWER, PASSWORD).await.expect("as before");
    let (secret, _) = enrol(&mut viewer, &hands).await;
    let which = json!({ "emailAddress": VIEWER }).to_string();
    let nobody = json!({ "id": "0".repeat(24) }).to_string();
    let denied = reply(&mut viewer, "user.mfa.remove", &nobody).await;
    assert_eq!(failure(&denied), DENIED);
    call(&mut operator, "user.mfa.remove", &which).await;
    login(&server, VIEWER, PASSWORD).await.expect("as before");
    hands.pass(30);
    assert_eq!(login(&server, VIEWER, &code_at(&secret, &hands, 0)).await, Err(REFUSED));
    let mut thing = server.thing("mqtt", "mower-1").await;
    let kind = reply(&mut thing, "user.mfa.enrol", r#"{"password":"x"}"#).await;
    assert_eq!(failure(&kind), -95009);
}

#[tokio::test]
async fn who_has_to_have_a_factor_can_only_set_it_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let hands = Hands::at(1_700_000_000_000);
    let server = TestServer::by_clock(dir.path(), &[], hands.clone());
    let mut operator = server.operator("http").await;
    let mut before = connect(&server.url("mqtt", VIEWER, PASSWORD)).await;
    call(&mut before, "session.org.list", "").await;
    call(&mut operator, "org.update", r#"{"mfaRequired":true}"#).await;
    assert_eq!(call(&mut operator, "org.find", "").await["mfaRequired"], true);
    // Live sessions follow, but for the one that asked for it.
    assert_eq!(failure(&reply(&mut before, "session.org.list", "").await), DENIED);
    call(&mut operator, "user.list", "").await;
    let mut again = server.operator("http").await;
    assert_eq!(failure(&reply(&mut again, "user.list", "").await), DENIED);
    // Nor does an administrator who has none yet touch others.
    let others = json!({ "emailAddress": VIEWER }).to_string();
    assert_eq!(failure(&reply(&mut again, "user.mfa.remove", &others).await), DENIED);
    let mower = server.thing("tcp", "mower-1").await;
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"mower-1"}"#).await;
    let end = json!({ "ref": listed["result"][0]["ref"] }).to_string();
    assert_eq!(reply(&mut again, "session.end", &end).await["success"], false);
    drop(mower);
    for door in ["mqtt", "tcp", "http"] {
        let mut viewer = connect(&server.url(door, VIEWER, PASSWORD)).await;
        let refused = reply(&mut viewer, "session.org.list", "").await;
        assert_eq!(failure(&refused), DENIED);
        assert!(refused.to_string().contains("user.mfa.enrol"), "{refused}");
        call(&mut viewer, "api.ping", "").await;
    }
    let mut viewer = connect(&server.url("http", VIEWER, PASSWORD)).await;
    enrol(&mut viewer, &hands).await;
    call(&mut viewer, "session.org.list", "").await;
    call(&mut operator, "org.update", r#"{"mfaRequired":false}"#).await;
    call(&mut again, "user.list", "").await;
    // By a flag of the user, which the user can't take off.
    let own = "operator@basicorg.example";
    let flag = json!({ "emailAddress": VIEWER, "mfaRequired": true }).to_string();
    call(&mut operator, "user.update", &flag).await;
    let off = reply(&mut viewer, "user.update", r#"{"mfaRequired":false}"#).await;
    assert_eq!(failure(&off), DENIED);
    call(&mut viewer, "user.mfa.remove", &json!({ "password": PASSWORD }).to_string()).await;
    assert_eq!(failure(&reply(&mut viewer, "session.org.list", "").await), DENIED);
    login(&server, own, "demo-operator-password").await.expect("welcome");
}
