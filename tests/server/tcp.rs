//! The TCP edge: one JSON value a line in, one line out, in order.

use std::time::Duration;

use serde_json::Value;
use support::replies::{OPERATOR_LOGIN, SESSION_MISSING, assert_reply, login_refused, session_id};
use support::tcp::Lines;
use support::{Endpoints, TestServer, call, eventually, failure};
use tokio::time::timeout;

const PING: &str = r#"{"p":{"command":"diag.ping"}}"#;
const PONG: &str = r#"{"p":{"success":true}}"#;
const NOT_ONE_OBJECT: &str = failure!(-95001, "The line is not one JSON object.");
const NOT_JSON: &str = failure!(-95001, "The request is not a JSON object: …");
const SESSION_GONE: &str = failure!(-90000, "Authentication session is invalid: Error: Session …");

fn assert_lines(lines: &[String], expected: &[&str]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    lines.iter().zip(expected).for_each(|(line, expected)| assert_reply(line, expected));
}

fn thing_login(key: &str) -> String {
    let params = format!(
        r#"{{"appId":"test","appToken":"demo-token-basicorg","thingKey":"{key}","notify":true}}"#
    );
    format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#)
}

/// A session of the operator that was started over HTTP.
async fn http_session(server: &Endpoints) -> String {
    let mut operator = server.operator("http").await;
    let info = call(&mut operator, "session.info", "").await;
    info["id"].as_str().expect("a session id").to_owned()
}

#[tokio::test]
async fn values_are_answered_in_order_however_they_come() {
    let server = TestServer::start();
    let login = thing_login("framing");
    let check = async |pieces: &[&[u8]], expected: &[&str]| {
        let mut lines = Lines::logged_in(&server, &login).await;
        for piece in pieces {
            lines.write(piece).await;
            tokio::task::yield_now().await;
        }
        lines.half_close().await;
        assert_lines(&lines.rest().await, expected);
    };
    let a = r#"{"a":{"command":"diag.ping"}}"#;
    let both = [r#"{"a":{"success":true}}"#, PONG];
    let text = |separator: &str| [a, PING].join(separator) + separator;
    for separator in ["\n", "\r\n", "", " ", "\t", "\n\n \n"] {
        check(&[text(separator).as_bytes()], &both).await;
        let text = text(separator);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
        check(&bytes, &both).await;
    }
    // The last value needs no line end, and one is split inside a character.
    let (head, tail) = r#"{"ö":{"command":"diag.echo","params":{"x":" }{\"\\"}}}"#.split_at(2);
    let (head, tail) = ([head.as_bytes(), &"ö".as_bytes()[..1]].concat(), &tail.as_bytes()[1..]);
    check(&[&head, tail], &[r#"{"ö":{"success":true,"params":{"x":" }{\"\\"}}}"#]).await;
    // A reply is one line, whatever blanks its request had.
    let spaced =
        "{ \"e\" :\t{ \"command\": \"diag.echo\", \"params\": { \"x\" : [ 1 ,  \"a b\" ] } } }\n";
    check(&[spaced.as_bytes()], &[r#"{"e":{"success":true,"params":{"x":[1,"a b"]}}}"#]).await;
}

#[tokio::test]
async fn what_is_no_value_gets_an_error_line_and_the_next_line_is_a_new_beginning() {
    let server = TestServer::start();
    let mut lines = Lines::logged_in(&server, &thing_login("broken")).await;
    let mut check = async |bytes: &[u8], expected: &[&str]| {
        lines.write(&[bytes, PING.as_bytes(), b"\n"].concat()).await;
        for expected in expected {
            assert_reply(&lines.line().await, expected);
        }
        assert_eq!(lines.line().await, PONG, "after {}", bytes.escape_ascii());
    };
    for line in ["hello", "7", "null", "[]", "\"x\"", "}", "]", "GET / HTTP/1.1", "\u{feff}x", "\0"]
    {
        check(format!("{line}\n").as_bytes(), &[NOT_ONE_OBJECT]).await;
    }
    // Half a value, and a string that the line end breaks.
    check(b"{\"a\":{\n", &[NOT_ONE_OBJECT]).await;
    check(b"{\"a\":\"x\n", &[NOT_ONE_OBJECT]).await;
    // A value over several lines is none: each line gets its answer.
    let pretty = "{\n  \"cmd\": {\n    \"command\": \"diag.ping\"\n  }\n}\n";
    check(pretty.as_bytes(), &[NOT_ONE_OBJECT; 5]).await;
    check(b"{]\n", &[NOT_ONE_OBJECT]).await;
    // Balanced, but no JSON.
    for line in [
        "{\"a\":]}",
        "{\"a\":[}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1,}",
        "{\"a\":\"\\x\"}",
        "{\"a\":01}",
    ] {
        check(format!("{line}\n").as_bytes(), &[NOT_JSON]).await;
    }
    check(b"{\"a\":{\"command\":\"diag.ping\"\xff}}\n", &[NOT_JSON]).await;
    check(b"{\xc3\"a\":{\"command\":\"diag.ping\"}}\n", &[NOT_JSON]).await;
    check(b"\xff\xfe\n", &[NOT_ONE_OBJECT]).await;
    let twice = "{\"a\":{\"command\":\"diag.ping\"},\"\\u0061\":{\"command\":\"diag.ping\"}}\n";
    let message = r#"["The request has two commands named \"a\"."]"#;
    let expected =
        format!(r#"{{"success":false,"errorCodes":[-95001],"errorMessages":{message}}}"#);
    check(twice.as_bytes(), &[&expected]).await;
    // No commands, no answers.
    check(b"{}\n", &["{}"]).await;
    let deep = format!("{{\"a\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    check(deep.as_bytes(), &[r#"{"a":{"success":false,"errorCodes":[-95001],…"#]).await;
}

#[tokio::test]
async fn the_first_value_brings_a_login_or_a_session() {
    let server = TestServer::start();
    let session = http_session(&server).await;
    let gone = "0".repeat(24);
    let in_session =
        |id: &str| format!(r#"{{"p":{{"command":"diag.ping"}},"auth":{{"sessionId":"{id}"}}}}"#);
    let login = r#"{"auth":{"success":true,"params":{"sessionId":"…"#;
    let attached = r#"{"auth":{"success":true},"p":{"success":true}}"#;
    let no_login =
        failure!(-95001, "The only command that \\\"auth\\\" can hold is api.authenticate.");
    let not_an_object = failure!(-95001, "\\\"auth\\\" must be an object.");
    let check = async |first: &str, expected: &str, then: &str| {
        let mut lines = Lines::connect(&server).await;
        assert_reply(&lines.ask(first).await, expected);
        assert_reply(&lines.ask(PING).await, then);
        // Whatever came first, a login is possible.
        assert_reply(&lines.ask(OPERATOR_LOGIN).await, login);
        assert_reply(&lines.ask(PING).await, PONG);
    };
    check(OPERATOR_LOGIN, login, PONG).await;
    check(&thing_login("first"), login, PONG).await;
    check(&in_session(&session), attached, PONG).await;
    for id in [gone.as_str(), "", "x", &"0".repeat(64)] {
        check(&in_session(id), SESSION_GONE, SESSION_MISSING).await;
    }
    check(PING, SESSION_MISSING, SESSION_MISSING).await;
    check("{}", SESSION_MISSING, SESSION_MISSING).await;
    let with_message = concat!(
        r#"{"success":false,"errorCodes":[-99999],…],"errorMessage":""#,
        "Authentication session is invalid: Error: Session id is missing; ",
        r#"send `auth` or the sessionId header."}"#
    );
    check(r#"{"auth":null,"p":{"command":"diag.ping"}}"#, with_message, SESSION_MISSING).await;
    check(r#"{"auth":{},"p":{"command":"diag.ping"}}"#, SESSION_MISSING, SESSION_MISSING).await;
    check(r#"{"auth":{"command":"diag.ping"}}"#, no_login, SESSION_MISSING).await;
    check(r#"{"auth":7}"#, not_an_object, SESSION_MISSING).await;
    check(r#"{"p":{"command":"api.ping"}}"#, PONG, SESSION_MISSING).await;
    check("hello", NOT_ONE_OBJECT, SESSION_MISSING).await;
    // The members of `auth` are read without regard to case.
    let shouted = in_session(&session).replace("sessionId", "SESSIONID");
    check(&shouted, attached, PONG).await;
}

#[tokio::test]
async fn a_login_and_commands_in_one_value_run_in_the_new_session() {
    let server = TestServer::start();
    let login = thing_login("one-value");
    let auth = &login[1..login.len() - 1];
    let command = r#""i":{"command":"session.info"}"#;
    for value in [format!("{{{auth},{command}}}"), format!("{{{command},{auth}}}")] {
        let mut lines = Lines::connect(&server).await;
        let reply: Value = serde_json::from_str(&lines.ask(&value).await).expect("JSON");
        let info = &reply["i"]["params"];
        assert_eq!(info["id"], reply["auth"]["params"]["sessionId"], "{reply}");
        assert_eq!((&info["thingKey"], &info["commandCount"]), (&"one-value".into(), &1.into()));
        assert_eq!(info["connInfo"]["protocol"], "tcp");
        let port = lines.address();
        assert_eq!(info["connInfo"]["remoteAddr"], port.to_string());
    }
}

#[tokio::test]
async fn wrong_logins_are_told_so_and_the_fifth_closes() {
    let server = TestServer::start();
    let expected = login_refused();
    let logins = [
        r#"{"username":"operator@basicorg.example","password":"wrong"}"#,
        r#"{"username":"nobody@basicorg.example","password":"demo-operator-password"}"#,
        r#"{"appToken":"wrong-token-wrong","thingKey":"a"}"#,
        r#"{"appToken":"demo-token-basicorg","thingKey":"a/b"}"#,
        r#"{"username":"operator@basicorg.example","password":""}"#,
    ];
    let mut lines = Lines::connect(&server).await;
    for params in logins {
        let login = format!(
            r#"{{"auth":{{"command":"api.authenticate","params":{params}}},{}"#,
            &PING[1..]
        );
        assert_eq!(lines.ask(&login).await, expected, "{params}");
    }
    assert_eq!(lines.line().await, "", "the connection is closed");
}

#[tokio::test]
async fn who_asked_for_notifications_is_told_why_the_session_ends() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "2")]);
    let operator = server.operator("http").await;
    let operator = tokio::sync::Mutex::new(operator);
    let reference = async |key: &str| {
        let params = format!(r#"{{"thingKey":"{key}"}}"#);
        let listed = call(&mut *operator.lock().await, "session.list", &params).await;
        listed["result"][0]["ref"].as_str().expect("a session").to_owned()
    };
    let notice = |reference: &str, reason: &str| {
        let payload = format!(r#"{{"ref":"{reference}","reason":"{reason}"}}"#);
        format!(r#"{{"notify":{{"topic":"session/end","payload":{payload}}}}}"#)
    };
    let end = r#"{"e":{"command":"session.end"}}"#;
    let ended = r#"{"e":{"success":true}}"#;

    let mut own = Lines::logged_in(&server, &thing_login("own")).await;
    let own_ref = reference("own").await;
    own.write(format!("{end}{PING}").as_bytes()).await;
    // What came with it is answered, too: every line has its answer.
    assert_lines(&own.rest().await, &[ended, SESSION_GONE, &notice(&own_ref, "logged_out")]);

    let mut revoked = Lines::logged_in(&server, &thing_login("revoked")).await;
    let revoked_ref = reference("revoked").await;
    let params = format!(r#"{{"ref":"{revoked_ref}"}}"#);
    call(&mut *operator.lock().await, "session.end", &params).await;
    assert_lines(&revoked.rest().await, &[&notice(&revoked_ref, "revoked")]);

    let mut idle = Lines::logged_in(&server, &thing_login("idle")).await;
    let idle_ref = reference("idle").await;
    let silent = thing_login("silent").replace("\"notify\":true", "\"notify\":false");
    let mut silent = Lines::logged_in(&server, &silent).await;
    assert_lines(&idle.rest().await, &[&notice(&idle_ref, "idle")]);
    assert_lines(&silent.rest().await, &[]);
}

#[tokio::test]
async fn a_second_login_on_a_connection_ends_the_session_of_the_first() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut lines = Lines::logged_in(&server, &thing_login("before")).await;
    // The refused one in between changes nothing.
    lines.ask(&thing_login("a/b")).await;
    assert_eq!(lines.ask(PING).await, PONG);
    let reply = lines.ask(&thing_login("after")).await;
    assert!(reply.starts_with(r#"{"auth":{"success":true,"#), "{reply}");
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"before"}"#).await;
    assert_eq!(listed["count"], 0);
    let params = r#"{"thingKey":"before","status":"ENDED"}"#;
    let listed = call(&mut operator, "session.list", params).await;
    assert_eq!(listed["result"][0]["status"], "LOGGED_OUT");
    assert_eq!(lines.ask(PING).await, PONG);
    let listed = call(&mut operator, "session.list", r#"{"thingKey":"after"}"#).await;
    let reference = listed["result"][0]["ref"].as_str().expect("a session");
    call(&mut operator, "session.end", &format!(r#"{{"ref":"{reference}"}}"#)).await;
    // The reason is the second session's, not the first one's.
    let payload = format!(r#"{{"ref":"{reference}","reason":"revoked"}}"#);
    let notice = format!(r#"{{"notify":{{"topic":"session/end","payload":{payload}}}}}"#);
    assert_lines(&lines.rest().await, &[&notice]);
}

#[tokio::test]
async fn no_session_stays_behind_when_the_connection_closes_during_its_login() {
    let server = TestServer::start();
    let mut operator = server.operator("http").await;
    let mut lines = Lines::logged_in(&server, &thing_login("first")).await;
    // The second login's request takes a while: each of its commands checks a password.
    let check = |number: u32| {
        let params = format!(r#"{{"username":"{number}","password":"y"}}"#);
        format!(r#""{number}":{{"command":"api.authenticate","params":{params}}}"#)
    };
    let checks: Vec<String> = (0..500).map(check).collect();
    let login = thing_login("second");
    let auth = login.strip_suffix('}').expect("an object");
    lines.send(&format!("{auth},{}}}", checks.join(","))).await;
    let mut count = async |thing_key: &str| {
        let params = format!(r#"{{"thingKey":"{thing_key}"}}"#);
        call(&mut operator, "session.list", &params).await
    };
    eventually("the second session starts", async || count("second").await["count"] == 1).await;
    let first = count("first").await["result"][0]["ref"].as_str().expect("a ref").to_owned();
    let end = format!(r#"{{"ref":"{first}"}}"#);
    call(&mut server.operator("http").await, "session.end", &end).await;
    eventually("the second session ends", async || count("second").await["count"] == 0).await;
}

#[tokio::test]
async fn a_connection_in_a_session_of_http_learns_of_its_end() {
    let server = TestServer::start();
    let session = http_session(&server).await;
    let attach = format!(r#"{{"auth":{{"sessionId":"{session}"}}}}"#);
    let mut first = Lines::connect(&server).await;
    let mut second = Lines::connect(&server).await;
    for lines in [&mut first, &mut second] {
        assert_eq!(lines.ask(&attach).await, r#"{"auth":{"success":true}}"#);
        assert_eq!(lines.ask(PING).await, PONG);
    }
    // A connection that goes away leaves the session alone.
    drop(second);
    let end = r#"{"e":{"command":"session.end"}}"#;
    assert_eq!(first.ask(end).await, r#"{"e":{"success":true}}"#);
    assert_reply(&first.ask(PING).await, SESSION_GONE);
    assert_reply(&first.ask(&attach).await, SESSION_GONE);
    // A login brings the connection back into service.
    assert_reply(&first.ask(OPERATOR_LOGIN).await, r#"{"auth":{"success":true,…"#);
    assert_eq!(first.ask(PING).await, PONG);
}

#[tokio::test]
async fn a_silent_connection_in_a_session_of_http_is_closed() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "2")]);
    let session = http_session(&server).await;
    let mut lines = Lines::connect(&server).await;
    let attach = format!(r#"{{"auth":{{"sessionId":"{session}"}}}}"#);
    assert_eq!(lines.ask(&attach).await, r#"{"auth":{"success":true}}"#);
    // A command that takes time: from then on, the silence is measured.
    let login = r#"{"a":{"command":"api.authenticate","params":{"appToken":"no","thingKey":"x"}}}"#;
    assert_reply(&lines.ask(login).await, r#"{"a":{"success":false,"errorCodes":[-95007],…"#);
    assert_lines(&lines.rest().await, &[]);
}

#[tokio::test]
async fn the_own_session_of_a_connection_can_be_used_over_http() {
    let server = TestServer::start();
    let mut lines = Lines::connect(&server).await;
    let id = session_id(&lines.ask(&thing_login("shared")).await);
    let body = format!(r#"{{"i":{{"command":"session.info"}},"auth":{{"sessionId":"{id}"}}}}"#);
    let info: Value =
        serde_json::from_str(&support::http::post(&server, &body).await).expect("JSON");
    assert_eq!(info["i"]["params"]["connInfo"]["protocol"], "tcp");
    lines.half_close().await;
    assert_lines(&lines.rest().await, &[]);
    eventually("the session ends with its connection", async || {
        support::http::post(&server, &body).await.contains("[-90000]")
    })
    .await;
}

#[tokio::test]
async fn many_values_in_one_write_are_answered_in_order() {
    let server = TestServer::start();
    let mut lines = Lines::connect(&server).await;
    let mut text = thing_login("many") + "\n";
    let wrong = r#"{"username":"x","password":"y"}"#;
    for number in 0..2000 {
        // A second login in between, and a command that takes time.
        text += &match number {
            700 => thing_login("many-2")
                .replace("{\"auth", "{\"700\":{\"command\":\"diag.ping\"},\"auth"),
            900 => format!(r#"{{"{number}":{{"command":"api.authenticate","params":{wrong}}}}}"#),
            _ => format!(r#"{{"{number}":{{"command":"diag.ping"}}}}"#),
        };
    }
    lines.write(text.as_bytes()).await;
    lines.half_close().await;
    let replies = lines.rest().await;
    assert_eq!(replies.len(), 2001);
    for (number, reply) in replies[1..].iter().enumerate() {
        assert!(reply.contains(&format!(r#""{number}":{{"success":"#)), "{number}: {reply}");
        assert_eq!(reply.contains("-95007"), number == 900, "{reply}");
    }
}

#[tokio::test]
async fn a_value_over_the_limit_gets_an_error_line_and_the_connection_closes() {
    let server = TestServer::with(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "1024")]);
    let expected = failure!(-95002, "The value is larger than 1024 bytes.");
    let echo = |bytes: usize| {
        let frame = r#"{"e":{"command":"diag.echo","params":{"x":""}}}"#;
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    let mut lines = Lines::logged_in(&server, OPERATOR_LOGIN).await;
    let reply = lines.ask(&echo(1024)).await;
    assert!(reply.starts_with(r#"{"e":{"success":true,"#), "{reply}");
    lines.write(echo(1025).as_bytes()).await;
    assert_lines(&lines.rest().await, &[expected]);
    // Also before a login, without an end in sight, and for what is no value.
    for text in [r#"{"a":"#, "hello", "[", "\""] {
        let mut lines = Lines::connect(&server).await;
        lines.write(format!("{text}{}", "x".repeat(2000)).as_bytes()).await;
        assert_lines(&lines.rest().await, &[expected]);
    }
    // Blanks count for nothing.
    let mut lines = Lines::connect(&server).await;
    lines.write(&[b' '; 5000]).await;
    assert_reply(&lines.ask(OPERATOR_LOGIN).await, r#"{"auth":{"success":true,…"#);
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", "1")]);
    let mut first = Lines::logged_in(&server, OPERATOR_LOGIN).await;
    let expected = failure!(
        -95011,
        "The server is full for your address: limits.connections_per_address, or nine tenths of limits.connections, is reached; try again."
    );
    let mut second = Lines::connect(&server).await;
    second.write(format!("{OPERATOR_LOGIN}\n").as_bytes()).await;
    assert_lines(&second.rest().await, &[expected]);
    assert_eq!(support::http::post(&server, OPERATOR_LOGIN).await, expected);
    assert_eq!(first.ask(PING).await, PONG);
    first.half_close().await;
    assert_lines(&first.rest().await, &[]);
    eventually("there is room again", async || {
        let reply = Lines::connect(&server).await.ask(OPERATOR_LOGIN).await;
        reply.starts_with(r#"{"auth":{"success":true,"#)
    })
    .await;
}

#[tokio::test]
async fn a_stalled_reader_costs_only_itself() {
    let server = TestServer::start();
    let mut stalled = Lines::logged_in(&server, &thing_login("stalled")).await;
    let echo =
        format!(r#"{{"e":{{"command":"diag.echo","params":{{"x":"{}"}}}}}}"#, "x".repeat(500_000));
    // Writes until the server, whose answers nobody reads, takes no more.
    let blocked = Duration::from_millis(200);
    while timeout(blocked, stalled.write(echo.as_bytes())).await.is_ok() {}
    let mut other = Lines::logged_in(&server, &thing_login("other")).await;
    assert_eq!(other.ask(PING).await, PONG);
}
