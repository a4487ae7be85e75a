//! NetApp Element's words for the session directory, at `/json-rpc/<version>`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Command;

use base::Timestamp;
use data_encoding::BASE64;
use serde_json::{Value, json};
use support::http::send;
use support::process::run;
use support::{Endpoints, SOON, ServerProcess, Signal, TestServer, call, connect, reply};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TR50D;
use crate::outside_clients::wanted;
use crate::paho::python;
use crate::tls::Tls;

const ADMIN: &str = "admin@devicewise.com:demo-admin-password";
const OPERATOR: &str = "operator@basicorg.example:demo-operator-password";
const VIEWER: &str = "viewer@basicorg.example:demo-viewer-password";

/// The last 53 bits of the ids in the demo's file.
const ADMIN_ID: i64 = 0x1a_515d_4ade_d7f6;
const OPERATOR_ID: i64 = 0x1b_d771_c806_5bf1;
const VIEWER_ID: i64 = OPERATOR_ID + 1;

/// The time of an end that nobody knows.
const NEVER: &str = "9999-12-31T23:59:59Z";

fn basic(login: &str) -> String {
    format!("Authorization: Basic {}", BASE64.encode(login.as_bytes()))
}

/// The body of the answer to a body, with status 200.
async fn post(server: &Endpoints, login: &str, body: &str) -> String {
    let head = format!("POST /json-rpc/12.3 HTTP/1.1\r\n{}", basic(login));
    let answer = send(server, &head, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let content_type = answer.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{answer:?}");
    answer.text().to_owned()
}

/// The whole answer of a method, without its id.
async fn answer(server: &Endpoints, login: &str, method: &str, params: &Value) -> Value {
    let body = json!({"method": method, "params": params, "id": 7}).to_string();
    let mut answer: Value = serde_json::from_str(&post(server, login, &body).await).expect("JSON");
    let id = answer.as_object_mut().expect("an object").remove("id");
    assert_eq!(id, Some(json!(7)));
    answer
}

/// The result of a method, which has to succeed.
async fn result(server: &Endpoints, login: &str, method: &str, params: &Value) -> Value {
    let answer = answer(server, login, method, params).await;
    assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
    answer["result"].clone()
}

/// The error of a method, which has to fail: name and message.
async fn error(server: &Endpoints, login: &str, method: &str, params: &Value) -> (String, String) {
    let answer = answer(server, login, method, params).await;
    let error = &answer["error"];
    assert_eq!(error["code"], 500, "{method} {params}: {answer}");
    let text = |name: &str| error[name].as_str().expect("a text").to_owned();
    (text("name"), text("message"))
}

/// The sessions of a result, by user name; there is one of each.
fn by_name(result: &Value) -> BTreeMap<String, Value> {
    let sessions = result["sessions"].as_array().expect("sessions");
    let name = |session: &Value| session["username"].as_str().expect("a name").to_owned();
    let by_name: BTreeMap<_, _> =
        sessions.iter().map(|session| (name(session), session.clone())).collect();
    assert_eq!(by_name.len(), sessions.len(), "{result}");
    by_name
}

fn names(result: &Value) -> Vec<String> {
    by_name(result).into_keys().collect()
}

/// Uses a session twice over a TCP connection that it is not bound to: without an idle time, that
/// connection does not end with its first silence.
async fn use_over_tcp(server: &Endpoints) {
    let login = r#"{"auth":{"command":"api.authenticate","params":{"thingKey":"far","appToken":"demo-token-basicorg","appId":"a"}}}"#;
    let reply: Value =
        serde_json::from_str(&support::http::post(server, login).await).expect("JSON");
    let id = reply["auth"]["params"]["sessionId"].as_str().expect("a session id");
    let line =
        format!("{{\"auth\":{{\"sessionId\":\"{id}\"}},\"p\":{{\"command\":\"diag.ping\"}}}}\n");
    let stream = TcpStream::connect(server.address("tcp")).await.expect("a connection");
    let mut stream = BufReader::new(stream);
    for _ in 0..3 {
        stream.get_mut().write_all(line.as_bytes()).await.expect("written");
        let mut pong = String::new();
        timeout(SOON, stream.read_line(&mut pong)).await.expect("in time").expect("a line");
        assert!(pong.contains(r#""p":{"success":true}"#), "{pong}");
        // A round trip on another connection is a silence on this one.
        result(server, ADMIN, "GetLoginSessionInfo", &json!({})).await;
    }
}

/// The session of this name, in the eyes of the super administrator.
async fn session_id(server: &Endpoints, name: &str) -> Value {
    let listed = result(server, ADMIN, "ListActiveAuthSessions", &json!({})).await;
    by_name(&listed)[name]["sessionID"].clone()
}

#[tokio::test]
async fn every_envelope_is_answered() {
    let server = TestServer::start();
    let check = async |body: &str, expected: &str| {
        assert_eq!(post(&server, VIEWER, body).await, expected, "{body}");
    };
    let none = r#""result":{"sessions":[]}"#;
    let plain = r#""method":"ListAuthSessionsByUsername""#;
    check(&format!("{{{plain},\"params\":{{}},\"id\":0}}"), &format!("{{\"id\":0,{none}}}")).await;
    check(&format!("{{{plain},\"id\":\"a b\"}}"), &format!("{{\"id\":\"a b\",{none}}}")).await;
    check(&format!("{{{plain},\"id\":null}}"), &format!("{{\"id\":null,{none}}}")).await;
    check(&format!("{{{plain}}}"), &format!("{{{none}}}")).await;
    check(&format!(" {{ {plain} , \"params\": null }} "), &format!("{{{none}}}")).await;
    // The seed's request, in a user's own name.
    let flat = r#","authMethod":"Cluster","username":"Viewer@basicorg.example""#;
    check(&format!("{{{plain}{flat}}}"), &format!("{{{none}}}")).await;
    let named = r#","parameters":{"authMethod":"Cluster"},"jsonrpc":"2.0""#;
    check(&format!("{{{plain}{named}}}"), &format!("{{{none}}}")).await;
    check(
        &format!("{{{plain},\"params\":{{\"y\":[1, 2],\"force\":true}},\"id\":1}}"),
        &format!("{{\"id\":1,{none},\"unusedParameters\":{{\"force\":true,\"y\":[1, 2]}}}}"),
    )
    .await;

    let fails = async |body: &str, name: &str, message: &str| {
        let error = json!({"code": 500, "name": name, "message": message});
        let answer: Value = serde_json::from_str(&post(&server, VIEWER, body).await).expect("JSON");
        assert_eq!(answer["error"], error, "{body}");
        assert!(answer.get("result").is_none(), "{answer}");
        answer.get("id").cloned()
    };
    let invalid = "xInvalidAPIParameter";
    assert_eq!(fails("", invalid, "A request is a JSON object.").await, None);
    fails("7", invalid, "A request is a JSON object.").await;
    fails("[{}]", invalid, "Batch requests are not supported.").await;
    let broken = "The request is not JSON: EOF while parsing an object at line 1 column 13.";
    fails(r#"{"method":"x""#, invalid, broken).await;
    fails("{}", invalid, "\"method\" is missing.").await;
    fails(r#"{"method":null}"#, invalid, "\"method\" must be a string.").await;
    let positional = "\"params\" must be an object: parameters are named, not in order.";
    let id = fails(r#"{"id":9,"method":"GetAPI","params":[1]}"#, invalid, positional).await;
    assert_eq!(id, Some(json!(9)));
    for name in ["ListVolumes", "getapi", ""] {
        let body = json!({"method": name, "id": 9}).to_string();
        let id = fails(&body, "xUnknownAPIMethod", &format!("method={name}")).await;
        assert_eq!(id, Some(json!(9)));
    }
}

#[tokio::test]
async fn the_handshake_of_the_sdks_is_answered() {
    let server = TestServer::start();
    let body = br#"{"method": "GetAPI", "id": 0, "params": {}}"#;
    for version in ["7.0", "12.3", "12", "99.9"] {
        let head = format!("POST /json-rpc/{version} HTTP/1.1\r\n{}", basic(VIEWER));
        let answer = send(&server, &head, body).await.text().to_owned();
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let api = &answer["result"];
        assert_eq!((&answer["id"], &api["currentVersion"]), (&json!(0), &json!("12.3")));
        let versions = api["supportedVersions"].as_array().expect("versions");
        assert!(versions.contains(&json!("7.0")) && versions.contains(&json!("12.3")));
        let methods: Vec<_> = api["12.3"].as_array().expect("methods").iter().collect();
        let expected = [
            "DeleteAuthSession",
            "DeleteAuthSessionsByClusterAdmin",
            "DeleteAuthSessionsByUsername",
            "GetAPI",
            "GetCurrentClusterAdmin",
            "GetLoginSessionInfo",
            "ListActiveAuthSessions",
            "ListAuthSessionsByClusterAdmin",
            "ListAuthSessionsByUsername",
            "ListClusterAdmins",
            "SetLoginSessionInfo",
        ];
        assert_eq!(methods, expected);
    }
}

#[tokio::test]
async fn http_is_taken_as_clients_write_it() {
    let server = TestServer::start();
    let body = br#"{"method":"GetCurrentClusterAdmin"}"#;
    let check = async |head: &str, body: &[u8], status: &str, text: &str| {
        let answer = send(&server, head, body).await;
        assert!(answer.head.starts_with(&format!("HTTP/1.1 {status}")), "{head}\n{answer:?}");
        assert!(answer.text().contains(text), "{head}\n{answer:?}");
        answer.head
    };
    let auth = basic(VIEWER);
    let path = "POST /json-rpc/12.3 HTTP/1.1";
    let me = format!("\"clusterAdminID\":{VIEWER_ID},");
    for more in ["", "\r\nContent-Type: text/plain", "\r\nContent: Application/json", "\r\nX: y"] {
        check(&format!("{path}\r\n{auth}{more}"), body, "200", &me).await;
    }
    check(&format!("POST /json-rpc/12.3?x=1 HTTP/1.1\r\n{auth}"), body, "200", &me).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).expect("memory");
    let gzip = gzip.finish().expect("memory");
    check(&format!("{path}\r\n{auth}\r\nContent-Encoding: gzip"), &gzip, "200", &me).await;

    for method in ["GET", "PUT", "DELETE"] {
        let head = format!("{method} /json-rpc/12.3 HTTP/1.1\r\n{auth}");
        let answered = check(&head, b"", "405", "POST").await;
        assert!(answered.contains("\r\nAllow: POST"), "{answered}");
    }
    for path in ["/json-rpc", "/json-rpc/", "/json-rpc/latest", "/json-rpc/12.3/x"] {
        let head = format!("POST {path} HTTP/1.1\r\n{auth}");
        check(&head, body, "404", "404 Not Found").await;
    }
    let refused = async |auth: &str| {
        let answered = check(&format!("{path}{auth}"), body, "401", "401 Unauthorized.").await;
        assert!(answered.contains("\r\nContent-Type: text/html"), "{answered}");
        assert!(answered.contains("\r\nWww-Authenticate: Basic realm="), "{answered}");
        answered
    };
    refused("").await;
    refused("\r\nAuthorization: Bearer x").await;
    refused("\r\nAuthorization: Basic ???").await;
    refused(&format!("\r\n{}", basic("nobody@basicorg.example:x"))).await;
    // Devices have no access.
    refused(&format!("\r\n{}", basic("mower-1:demo-token-basicorg"))).await;
    // Ten failures lock, for the right password too, and for every other way to log in.
    for _ in 0..10 {
        let answered = refused(&format!("\r\n{}", basic("operator@basicorg.example:x"))).await;
        assert!(!answered.contains("Retry-After"), "{answered}");
    }
    let answered = refused(&format!("\r\n{}", basic(OPERATOR))).await;
    assert!(answered.contains("\r\nRetry-After: "), "{answered}");
}

#[tokio::test]
async fn a_session_is_shown_in_elements_words() {
    let server = TestServer::with(&[("TR50D_SESSIONS__TTL_S", "600")]);
    let mut operator = server.operator("http").await;
    let info = call(&mut operator, "session.info", "").await;
    let _thing = server.thing("mqtt", "mower-1").await;
    let listed = result(&server, OPERATOR, "ListActiveAuthSessions", &json!({})).await;
    let sessions = by_name(&listed);
    let time = |value: &Value| {
        let text = value.as_str().expect("a time");
        assert_eq!((text.len(), &text[19..]), (20, "Z"), "{text}");
        Timestamp::parse(text).expect("a time").as_millis() / 1000
    };
    let seconds = |value: &Value| {
        Timestamp::parse(value.as_str().expect("a time")).expect("a time").as_millis() / 1000
    };

    let mut own = sessions["operator@basicorg.example"].clone();
    let started = seconds(&info["startTime"]);
    assert_eq!(time(&own["sessionCreationTime"]), started);
    assert_eq!(time(&own["finalTimeout"]), started + 259_200);
    let idle = time(&own["lastAccessTimeout"]) - seconds(&info["lastAccessed"]);
    assert!((599..=601).contains(&idle), "{own}");
    let reference = info["ref"].as_str().expect("a ref").to_owned();
    let uuid = own["sessionID"].as_str().expect("a UUID").to_owned();
    assert_eq!((uuid.len(), &uuid[..8]), (36, &reference[..8]));
    for name in ["sessionID", "sessionCreationTime", "finalTimeout", "lastAccessTimeout"] {
        own.as_object_mut().expect("an object").remove(name);
    }
    let rest = json!({
        "username": "operator@basicorg.example", "authMethod": "Cluster",
        "clusterAdminIDs": [OPERATOR_ID], "accessGroupList": ["administrator"],
        "idpConfigVersion": 0,
    });
    assert_eq!(own, rest);

    let device = &sessions["mower-1"];
    assert_eq!(device["finalTimeout"], NEVER);
    let idle = time(&device["lastAccessTimeout"]) - time(&device["sessionCreationTime"]);
    assert!((599..=610).contains(&idle), "{device}");
    assert_eq!(device["authMethod"], "Idp");
    assert_eq!(
        (&device["clusterAdminIDs"], &device["accessGroupList"]),
        (&json!([]), &json!(["read"]))
    );
    // The deadline follows every use, and no call of Element's is one.
    let again = result(&server, OPERATOR, "ListActiveAuthSessions", &json!({})).await;
    assert_eq!(by_name(&again).len(), 2, "{again}");
    assert_eq!(call(&mut operator, "session.info", "").await["commandCount"], 2);
}

/// A super operator beside the users of the demo.
async fn super_operator(server: &Endpoints) -> &'static str {
    let mut admin = server.admin("http").await;
    let user = r#"{"emailAddress":"watch@basicorg.example","password":"watch-password","firstName":"W","lastName":"W","isSuperOps":true}"#;
    let made = reply(&mut admin, "user.create", user).await;
    assert_eq!(made["success"], true, "{made}");
    call(&mut admin, "session.end", "").await;
    "watch@basicorg.example:watch-password"
}

#[tokio::test]
async fn everybody_sees_what_they_may() {
    let server = TestServer::start();
    let watcher = super_operator(&server).await;
    let _sessions = [
        server.operator("http").await,
        server.admin("http").await,
        server.thing("mqtt", "mower-1").await,
        server.thing("tcp", "mower-2").await,
    ];
    let viewer = server.url("http", "viewer@basicorg.example", "demo-viewer-password");
    let _viewer = connect(&viewer).await;
    let york = server.url("mqtt", "mower-1", "demo-token-yorkorg");
    let _york = connect(&york).await;
    let (a, o, v) =
        ("admin@devicewise.com", "operator@basicorg.example", "viewer@basicorg.example");

    let active = async |login: &str| {
        let result = result(&server, login, "ListActiveAuthSessions", &json!({})).await;
        let mut names: Vec<_> = result["sessions"]
            .as_array()
            .expect("sessions")
            .iter()
            .map(|session| session["username"].as_str().expect("a name").to_owned())
            .collect();
        names.sort_unstable();
        names
    };
    for login in [ADMIN, watcher] {
        assert_eq!(active(login).await, [a, "mower-1", "mower-1", "mower-2", o, v]);
    }
    assert_eq!(active(OPERATOR).await, ["mower-1", "mower-2", o, v]);
    let (name, _) = error(&server, VIEWER, "ListActiveAuthSessions", &json!({})).await;
    assert_eq!(name, "xPermissionDenied");

    let count = async |login: &str, params: Value| {
        let result = result(&server, login, "ListAuthSessionsByUsername", &params).await;
        result["sessions"].as_array().expect("sessions").len()
    };
    for (login, params, expected) in [
        (VIEWER, json!({}), 1),
        (VIEWER, json!({"username": null, "authMethod": null}), 1),
        (VIEWER, json!({"username": "VIEWER@basicorg.example"}), 1),
        (VIEWER, json!({"username": v, "authMethod": "Cluster"}), 1),
        (VIEWER, json!({"authMethod": "Cluster"}), 1),
        (OPERATOR, json!({}), 1),
        (OPERATOR, json!({"username": v}), 1),
        (OPERATOR, json!({"username": v, "authMethod": "Cluster"}), 1),
        (OPERATOR, json!({"username": v, "authMethod": "Idp"}), 0),
        (OPERATOR, json!({"username": v, "authMethod": "Ldap"}), 0),
        (OPERATOR, json!({"username": "mower-1"}), 1),
        (OPERATOR, json!({"username": "mower-1", "authMethod": "Idp"}), 1),
        (OPERATOR, json!({"username": "mower-1", "authMethod": "Cluster"}), 0),
        (OPERATOR, json!({"username": a}), 0),
        (OPERATOR, json!({"username": "nobody at all"}), 0),
        (OPERATOR, json!({"authMethod": "Idp"}), 0),
        (ADMIN, json!({"username": "mower-1"}), 2),
        (watcher, json!({"username": "mower-1", "authMethod": "Idp"}), 2),
        (watcher, json!({}), 0),
    ] {
        assert_eq!(count(login, params.clone()).await, expected, "{login} {params}");
    }

    let count = async |login: &str, id: i64| {
        let params = json!({"clusterAdminID": id});
        let result = result(&server, login, "ListAuthSessionsByClusterAdmin", &params).await;
        result["sessions"].as_array().expect("sessions").len()
    };
    for (login, id, expected) in [
        (VIEWER, VIEWER_ID, 1),
        (OPERATOR, VIEWER_ID, 1),
        (ADMIN, OPERATOR_ID, 1),
        (watcher, ADMIN_ID, 1),
    ] {
        assert_eq!(count(login, id).await, expected, "{login} {id}");
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_or_without_a_right_is_refused() {
    let server = TestServer::start();
    let watcher = super_operator(&server).await;
    let _operator = server.operator("http").await;
    let _thing = server.thing("mqtt", "mower-1").await;
    let _admin = server.admin("http").await;
    let operators = session_id(&server, "operator@basicorg.example").await;
    let admins = session_id(&server, "admin@devicewise.com").await;
    let by_username = ["ListAuthSessionsByUsername", "DeleteAuthSessionsByUsername"];
    let by_admin = ["ListAuthSessionsByClusterAdmin", "DeleteAuthSessionsByClusterAdmin"];
    let check = async |login: &str, method: &str, params: Value, name: &str, message: &str| {
        let expected = (name.to_owned(), message.to_owned());
        assert_eq!(error(&server, login, method, &params).await, expected, "{method} {params}");
    };
    let denied = "xPermissionDenied";
    let name_another = "Only administrators may name another user.";
    for method in by_username {
        for params in [
            json!({"username": "operator@basicorg.example"}),
            json!({"username": "nobody"}),
            json!({"username": "viewer@basicorg.example", "authMethod": "Idp"}),
            json!({"authMethod": "Idp"}),
        ] {
            check(VIEWER, method, params, denied, name_another).await;
        }
        for (word, shown) in [
            (json!({}), "{}"),
            (json!("cluster"), "cluster"),
            (json!(""), ""),
            (json!(7), "7"),
            (json!(["Cluster"]), "[\"Cluster\"]"),
        ] {
            check(ADMIN, method, json!({"authMethod": word}), "xUnrecognizedEnumString", shown)
                .await;
        }
        let message = "Parameter \"username\" must be a string.";
        check(ADMIN, method, json!({"username": 7}), "xInvalidParameterType", message).await;
    }
    for method in by_admin {
        let params = |id: i64| json!({"clusterAdminID": id});
        check(VIEWER, method, params(OPERATOR_ID), denied, name_another).await;
        check(VIEWER, method, params(1), denied, name_another).await;
        let unknown = "xClusterAdminIDDoesNotExist";
        check(ADMIN, method, params(1), unknown, "clusterAdminID=1").await;
        check(ADMIN, method, params(-1), unknown, "clusterAdminID=-1").await;
        let message = format!("clusterAdminID={ADMIN_ID}");
        check(OPERATOR, method, params(ADMIN_ID), unknown, &message).await;
        let missing = "Parameter \"clusterAdminID\" is missing.";
        check(ADMIN, method, json!({}), "xInvalidParameter", missing).await;
        check(ADMIN, method, json!({"clusterAdminID": null}), "xInvalidParameter", missing).await;
        for id in [json!("7"), json!(1.5), json!([7]), json!({}), json!(true)] {
            let message = "Parameter \"clusterAdminID\" must be an integer.";
            let params = json!({"clusterAdminID": id});
            check(ADMIN, method, params, "xInvalidParameterType", message).await;
        }
    }
    let method = "DeleteAuthSession";
    let missing = "Parameter \"sessionID\" is missing.";
    check(ADMIN, method, json!({}), "xInvalidParameter", missing).await;
    let message = "Parameter \"sessionID\" must be a UUID.";
    check(ADMIN, method, json!({"sessionID": "x"}), "xInvalidParameter", message).await;
    let message = "Parameter \"sessionID\" must be a string.";
    check(ADMIN, method, json!({"sessionID": 7}), "xInvalidParameterType", message).await;
    let (unknown, message) = ("xAuthSessionDoesNotExist", "There is no such session.");
    let nowhere = json!({"sessionID": "3f0c0e0a-5f7e-4a0e-9d5b-0d8f5d3b7c11"});
    check(ADMIN, method, nowhere, unknown, message).await;
    check(OPERATOR, method, json!({"sessionID": admins}), unknown, message).await;
    check(VIEWER, method, json!({"sessionID": operators}), unknown, message).await;
    // Who sees everything and changes nothing.
    let end_others = "Only administrators may end sessions of others.";
    check(watcher, method, json!({"sessionID": operators}), denied, end_others).await;
    let params = json!({"username": "mower-1"});
    check(watcher, "DeleteAuthSessionsByUsername", params, denied, name_another).await;
    let params = json!({"clusterAdminID": OPERATOR_ID});
    check(watcher, "DeleteAuthSessionsByClusterAdmin", params, denied, name_another).await;
    let none = json!({});
    let message = "Only administrators may see this.";
    check(VIEWER, "GetLoginSessionInfo", none.clone(), denied, message).await;
    for login in [VIEWER, OPERATOR, watcher] {
        let message = "Only super administrators may change this.";
        check(login, "SetLoginSessionInfo", none.clone(), denied, message).await;
    }
    let message = "Only administrators may list users.";
    check(VIEWER, "ListClusterAdmins", none.clone(), denied, message).await;
    // Nothing of all that ended anything.
    let listed = result(&server, ADMIN, "ListActiveAuthSessions", &none).await;
    assert_eq!(names(&listed), ["admin@devicewise.com", "mower-1", "operator@basicorg.example"]);
}

#[tokio::test]
async fn administrators_are_the_users() {
    let server = TestServer::start();
    let watcher = super_operator(&server).await;
    let current = async |login: &str| {
        let mut result = result(&server, login, "GetCurrentClusterAdmin", &json!({})).await;
        result["clusterAdmin"].take()
    };
    let admin = |name: &str, id: i64, access: &[&str]| {
        json!({
            "authMethod": "Cluster", "access": access, "clusterAdminID": id, "username": name,
            "attributes": {},
        })
    };
    let viewer = admin("viewer@basicorg.example", VIEWER_ID, &["read"]);
    let operator = admin("operator@basicorg.example", OPERATOR_ID, &["administrator"]);
    let superior = admin("admin@devicewise.com", ADMIN_ID, &["administrator"]);
    assert_eq!(current(VIEWER).await, viewer);
    assert_eq!(current(OPERATOR).await, operator);
    assert_eq!(current(ADMIN).await, superior);
    let watching = current(watcher).await;
    assert_eq!(watching["access"], json!(["read", "reporting"]));

    let list = async |login: &str| {
        result(&server, login, "ListClusterAdmins", &json!({})).await["clusterAdmins"].take()
    };
    assert_eq!(list(OPERATOR).await, json!([operator, viewer]));
    for login in [ADMIN, watcher] {
        assert_eq!(list(login).await, json!([superior, operator, viewer, watching]));
    }
}

#[tokio::test]
async fn a_deleted_session_ends_at_once() {
    let server = TestServer::start();
    let mut operator = server.operator("tcp").await;
    let mut device = server.thing("mqtt", "mower-1").await;
    let mut over_http = server.thing("http", "mower-2").await;
    let ended = async |login: &str, id: &Value| {
        result(&server, login, "DeleteAuthSession", &json!({"sessionID": id})).await["session"]
            .take()
    };
    let id = session_id(&server, "mower-1").await;
    let session = ended(OPERATOR, &id).await;
    assert_eq!((&session["sessionID"], &session["username"]), (&id, &json!("mower-1")));
    assert_eq!(session["finalTimeout"], NEVER);
    timeout(SOON, device.closed()).await.expect("closed with its session");

    let second = session_id(&server, "mower-2").await;
    assert_eq!(ended(ADMIN, &second).await["sessionID"], second);
    let refused = reply(&mut over_http, "session.info", "").await;
    assert_eq!(refused["errorCodes"][0], -90000, "{refused}");
    for id in [&id, &second] {
        let (name, _) = error(&server, ADMIN, "DeleteAuthSession", &json!({"sessionID": id})).await;
        assert_eq!(name, "xAuthSessionDoesNotExist");
    }
    // As TR50 shows them: ended by somebody else.
    let listed = call(&mut operator, "session.list", r#"{"status":"REVOKED"}"#).await;
    assert_eq!(listed["count"], 2, "{listed}");

    let all = async |login: &str, method: &str, params: Value| {
        let result = result(&server, login, method, &params).await;
        result["sessions"].as_array().expect("sessions").len()
    };
    // Some at once, of a user and of a thing; one's own are logged out.
    let viewer = server.url("http", "viewer@basicorg.example", "demo-viewer-password");
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(connect(&viewer).await);
    }
    let mut device = server.thing("mqtt", "mower-3").await;
    let mut over_http = server.thing("http", "mower-3").await;
    call(&mut over_http, "session.info", "").await;
    let params = json!({"username": "mower-3", "authMethod": "Idp"});
    assert_eq!(all(OPERATOR, "DeleteAuthSessionsByUsername", params.clone()).await, 2);
    assert_eq!(all(OPERATOR, "DeleteAuthSessionsByUsername", params).await, 0);
    timeout(SOON, device.closed()).await.expect("closed with its session");
    let refused = reply(&mut over_http, "session.info", "").await;
    assert_eq!(refused["errorCodes"][0], -90000, "{refused}");
    assert_eq!(all(VIEWER, "DeleteAuthSessionsByUsername", json!({})).await, 3);
    for viewer in &mut viewers {
        let refused = reply(viewer, "session.info", "").await;
        assert_eq!(refused["errorCodes"][0], -90000, "{refused}");
    }
    let listed = call(&mut operator, "session.list", r#"{"status":"LOGGED_OUT"}"#).await;
    assert_eq!(listed["count"], 3, "{listed}");
    let params = json!({"clusterAdminID": OPERATOR_ID});
    assert_eq!(all(ADMIN, "DeleteAuthSessionsByClusterAdmin", params.clone()).await, 1);
    timeout(SOON, operator.closed()).await.expect("closed with its session");
    assert_eq!(all(OPERATOR, "DeleteAuthSessionsByClusterAdmin", params).await, 0);
    let listed = result(&server, ADMIN, "ListActiveAuthSessions", &json!({})).await;
    assert_eq!(listed, json!({"sessions": []}));
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = TR50D.serve(&data_dir, &[]);
    let rise = async |mut server: ServerProcess, settings: &[(&str, &str)]| {
        server.end(Signal::KILL).await;
        TR50D.serve(&data_dir, settings)
    };
    for key in ["kept", "ended"] {
        let mut thing = server.thing("http", key).await;
        call(&mut thing, "session.info", "").await;
    }
    let (kept, ended) = (session_id(&server, "kept").await, session_id(&server, "ended").await);
    result(&server, ADMIN, "DeleteAuthSession", &json!({"sessionID": ended})).await;
    result(&server, ADMIN, "SetLoginSessionInfo", &json!({"timeout": "00:20:00"})).await;
    server = rise(server, &[]).await;
    assert_eq!(session_id(&server, "kept").await, kept);
    let (name, _) = error(&server, ADMIN, "DeleteAuthSession", &json!({"sessionID": ended})).await;
    assert_eq!(name, "xAuthSessionDoesNotExist");

    // What was set wins over the configuration, but no session is idle for longer than it may live.
    let timeout = async |server: &Endpoints| {
        let info = result(server, ADMIN, "GetLoginSessionInfo", &json!({})).await;
        info["loginSessionInfo"]["timeout"].as_str().expect("a text").to_owned()
    };
    assert_eq!(timeout(&server).await, "20:00");
    server = rise(server, &[("TR50D_SESSIONS__TTL_S", "90")]).await;
    assert_eq!(timeout(&server).await, "20:00");
    let short = [("TR50D_SESSIONS__TTL_S", "90"), ("TR50D_SESSIONS__MAX_AGE_S", "600")];
    server = rise(server, &short).await;
    assert_eq!(timeout(&server).await, "10:00");
}

#[tokio::test]
async fn the_idle_time_of_sessions_is_shown_and_set() {
    let server = TestServer::start();
    let mut before = server.thing("http", "before").await;
    let shown = async || result(&server, ADMIN, "GetLoginSessionInfo", &json!({})).await;
    let is = |timeout: &str| json!({"loginSessionInfo": {"timeout": timeout}});
    assert_eq!(shown().await, is("24:00:00"));
    // Everybody who is called administrator may see it, be it of one organisation.
    for login in [OPERATOR, super_operator(&server).await] {
        let info = result(&server, login, "GetLoginSessionInfo", &json!({})).await;
        assert_eq!(info, is("24:00:00"), "{login}");
    }
    for (set, get, ttl_s) in [
        (json!({"timeout": "01:30:00"}), "1:30:00", 5400),
        (json!({"timeout": "00:20:00"}), "20:00", 1200),
        (json!({"timeout": "00:90:00"}), "1:30:00", 5400),
        (json!({"timeout": "00:01:00"}), "1:00", 60),
        (json!({"timeout": "00:00:5400"}), "1:30:00", 5400),
        (json!({"timeout": "72:00:00"}), "72:00:00", 259_200),
        (json!({"timeout": "00:00:00"}), "0:00", 0),
        (json!({"timeout": "5:00"}), "5:00", 300),
        (json!({}), "0:00", 0),
    ] {
        assert_eq!(result(&server, ADMIN, "SetLoginSessionInfo", &set).await, json!({}));
        assert_eq!(shown().await, is(get), "{set}");
        let mut after = server.thing("http", "after").await;
        assert_eq!(call(&mut after, "session.info", "").await["ttl"], ttl_s, "{set}");
        let params = json!({"username": "after"});
        let ended = result(&server, ADMIN, "DeleteAuthSessionsByUsername", &params).await;
        let ended = &ended["sessions"][0];
        // Without an idle time the age alone counts.
        let same = ended["lastAccessTimeout"] == ended["finalTimeout"];
        assert_eq!(same, ttl_s == 0 || ttl_s == 259_200, "{ended}");
    }
    let _bound = server.thing("mqtt", "bound").await;
    let params = json!({"username": "bound"});
    let bound = result(&server, ADMIN, "ListAuthSessionsByUsername", &params).await;
    assert_eq!(bound["sessions"][0]["lastAccessTimeout"], NEVER, "{bound}");
    use_over_tcp(&server).await;
    // Those that lived before keep theirs.
    assert_eq!(call(&mut before, "session.info", "").await["ttl"], 86_400);

    for (timeout, name, part) in [
        (json!("00:00:59"), "xInvalidParameter", "at least one minute"),
        (json!("72:00:01"), "xInvalidParameter", "at most 72:00:00"),
        (json!("99999999999999999999:00:00"), "xInvalidParameter", "HH:mm:ss"),
        (json!("30"), "xInvalidParameter", "HH:mm:ss"),
        (json!("-1:00:00"), "xInvalidParameter", "HH:mm:ss"),
        (json!(""), "xInvalidParameter", "HH:mm:ss"),
        (json!(1800), "xInvalidParameterType", "must be a string"),
    ] {
        let params = json!({"timeout": timeout});
        let (failed, message) = error(&server, ADMIN, "SetLoginSessionInfo", &params).await;
        assert_eq!(failed, name, "{params}");
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(shown().await, is("0:00"));
}

#[tokio::test]
async fn a_list_is_whole_while_others_come_and_go() {
    const KEPT: usize = 300;
    let server = TestServer::start();
    for number in 0..KEPT {
        let mut thing = server.thing("http", &format!("kept-{number}")).await;
        call(&mut thing, "diag.ping", "").await;
    }
    let going = async {
        for number in 0..100 {
            let mut thing = server.thing("http", &format!("gone-{number}")).await;
            call(&mut thing, "diag.ping", "").await;
            call(&mut thing, "session.end", "").await;
        }
    };
    let listing = async {
        for login in [ADMIN, OPERATOR].into_iter().cycle().take(10) {
            let listed = result(&server, login, "ListActiveAuthSessions", &json!({})).await;
            let sessions = listed["sessions"].as_array().expect("sessions");
            let ids: BTreeSet<_> = sessions.iter().map(|s| s["sessionID"].as_str()).collect();
            assert_eq!(ids.len(), sessions.len());
            let name = |session: &Value| session["username"].as_str().map(str::to_owned);
            let kept = sessions.iter().filter_map(name).filter(|name| name.starts_with("kept-"));
            assert_eq!(kept.count(), KEPT);
        }
    };
    tokio::join!(going, listing);
}

/// NetApp's own SDK for Python, over TLS. Runs when `TR50D_TEST_CLIENTS` is set.
#[tokio::test]
async fn the_vendors_sdk_lists_and_ends_sessions() {
    if !wanted() {
        return;
    }
    let tls = Tls::start(false);
    let server = &tls.server;
    let _kept = server.thing("mqtt", "mower-1").await;
    let mut devices = [server.thing("mqtt", "mower-2").await, server.thing("tcp", "mower-3").await];
    let viewer = server.url("http", "viewer@basicorg.example", "demo-viewer-password");
    let mut viewers = [connect(&viewer).await, connect(&viewer).await];
    let address = server.address("https");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/element_sdk.py");
    let mut command = Command::new(python());
    command.args([script, &address.ip().to_string(), &address.port().to_string()]);
    let output = tokio::task::spawn_blocking(move || run(command)).await.expect("no panic");
    assert!(output.0.success(), "{output:?}");
    for device in &mut devices {
        timeout(SOON, device.closed()).await.expect("closed with its session");
    }
    for viewer in &mut viewers {
        let refused = reply(viewer, "session.info", "").await;
        assert_eq!(refused["errorCodes"][0], -90000, "{refused}");
    }
}
