//! What went wrong once, through the server's sockets.

use client::Version::{self, V5, V311};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use support::mqtt::{Connect, frame, text};
use support::replies::OPERATOR_LOGIN;
use support::{Endpoints, SOON, TestServer};

/// A connection to a listener that gives up when nothing comes.
fn dial(server: &Endpoints, listener: &str) -> TcpStream {
    let stream = TcpStream::connect(server.address(listener)).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream
}

/// Everything that comes until the server closes the connection.
fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A connection that is logged in over MQTT.
fn mqtt(
    server: &Endpoints,
    version: Version,
    client_id: &str,
    user: &str,
    password: &str,
) -> TcpStream {
    let mut stream = dial(server, "mqtt");
    let connect = Connect::login(version, client_id, user, password);
    stream.write_all(&connect.frame()).expect("sent");
    let (first, body) = read_frame(&mut stream);
    assert_eq!((first, body.get(1)), (0x20, Some(&0)), "{body:?}");
    stream
}

/// The next frame: its first byte and what follows its length.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("a frame");
    let first = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte).expect("a length");
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (first, body)
}

#[test]
fn requests_that_are_sent_together_take_effect_in_order() {
    let server = TestServer::start();
    let (user, password) = ("admin@devicewise.com", "demo-admin-password");
    let mut stream = mqtt(&server, V311, "pipeline", user, password);
    for key in ["BasicOrg", "YorkOrg", "BasicOrg", "SYSTEM"] {
        let switch =
            format!(r#"{{"1":{{"command":"session.org.switch","params":{{"key":"{key}"}}}}}}"#);
        let switch = frame(0x30, &[&text("api/switch"), switch.as_bytes()]);
        let info = frame(0x30, &[&text("api/info"), br#"{"1":{"command":"session.info"}}"#]);
        stream.write_all(&[switch, info].concat()).expect("sent");
        let replies = [read_frame(&mut stream).1, read_frame(&mut stream).1];
        let replies = replies.map(|reply| String::from_utf8_lossy(&reply).into_owned());
        let expected = format!(r#""orgKey":"{key}","userId""#);
        assert!(replies.iter().any(|reply| reply.contains(&expected)), "{key}: {replies:?}");
    }
}

#[test]
fn a_stranger_over_tcp_gets_few_failures() {
    let server = TestServer::start();
    for sent in ["{}", "x\n", "{\"a\":{\"command\":\"diag.ping\"}}\n"] {
        let mut stream = dial(&server, "tcp");
        stream.write_all(sent.repeat(100).as_bytes()).expect("sent");
        let answers = read_all(&mut stream);
        assert_eq!(answers.matches("\"success\":false").count(), 5, "{sent}: {answers}");
    }
}

#[test]
fn a_stranger_over_tcp_can_not_have_a_megabyte_kept() {
    let server = TestServer::start();
    let mut stream = dial(&server, "tcp");
    let mut sent = br#"{"x":""#.to_vec();
    sent.resize(65_537, b'x');
    stream.write_all(&sent).expect("sent");
    let answer = read_all(&mut stream);
    assert!(answer.contains("larger than 65536 bytes"), "{answer}");
}

#[test]
fn one_subscribe_gets_no_more_than_the_subscriptions_of_a_connection() {
    let server = TestServer::start();
    let mut stream = mqtt(&server, V5, "greedy", "mower-1", "demo-token-basicorg");
    let mut filters = vec![0, 1, 0];
    for number in 0..30_000 {
        filters.extend_from_slice(&text(format!("reply/{number}")));
        filters.push(0);
    }
    stream.write_all(&frame(0x82, &[&filters])).expect("sent");
    let (first, body) = read_frame(&mut stream);
    let (why, codes) = body.split_at(body.len() - 30_000);
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!((first, count(0), count(0x97)), (0x90, 1000, 29_000));
    assert!(String::from_utf8_lossy(why).contains("A client may have 1000 subscriptions"));

    let filters = ["reply/7", "reply/7", "reply/2000", "other"].map(text).concat();
    stream.write_all(&frame(0xa2, &[&[0, 2, 0], &filters])).expect("sent");
    assert_eq!(read_frame(&mut stream), (0xb0, vec![0, 2, 0, 0, 0x11, 0x11, 0x11]));
    stream.write_all(&frame(0x82, &[&[0, 3, 0], &text("reply/2000"), &[0]])).expect("sent");
    assert_eq!(read_frame(&mut stream), (0x90, vec![0, 3, 0, 0]));
}

#[test]
fn what_each_reply_is_matched_with_is_bounded() {
    let server = TestServer::start();
    let mut stream = mqtt(&server, V5, "deep", "mower-1", "demo-token-basicorg");
    let levels = "+/".repeat(498);
    let deep = |number: usize| text(format!("reply/{levels}{number}"));
    let mut filters = vec![0, 1, 0];
    for number in 0..30 {
        filters.extend_from_slice(&deep(number));
        filters.push(1);
    }
    stream.write_all(&frame(0x82, &[&filters])).expect("sent");
    let (first, body) = read_frame(&mut stream);
    let (why, codes) = body.split_at(body.len() - 30);
    assert_eq!((first, codes), (0x90, &[&[1; 20][..], &[0x97; 10]].concat()[..]));
    assert!(String::from_utf8_lossy(why).contains("may have 10000 levels"));
    // No level is left; what is held already may be asked for again, and other topics.
    let ask = |stream: &mut TcpStream, pkid: u8, filter: &[u8]| {
        stream.write_all(&frame(0x82, &[&[0, pkid, 0], filter, &[1]])).expect("sent");
        let (first, body) = read_frame(stream);
        (first, body.last().copied())
    };
    assert_eq!(ask(&mut stream, 2, &deep(7)), (0x90, Some(1)));
    assert_eq!(ask(&mut stream, 3, &text("reply/#")), (0x90, Some(0x97)));
    let filter = deep(7);
    stream.write_all(&frame(0xa2, &[&[0, 4, 0], &filter])).expect("sent");
    assert_eq!(read_frame(&mut stream), (0xb0, vec![0, 4, 0, 0]));
    for (pkid, filter) in (5..).zip(["reply/#", "reply/+", "notify/#", "#", "+/x"]) {
        assert_eq!(ask(&mut stream, pkid, &text(filter)).0, 0x90, "{filter}");
    }
    assert_eq!(ask(&mut stream, 10, &text("reply/0001")), (0x90, Some(1)));
}

#[test]
fn only_a_normal_disconnect_takes_the_will_back() {
    let server = TestServer::start();
    let mut watcher = mqtt(&server, V5, "watcher", "mower-1", "demo-token-basicorg");
    watcher.write_all(&frame(0x82, &[&[0, 1, 0], &text("wills"), &[0]])).expect("sent");
    assert_eq!(read_frame(&mut watcher).0, 0x90);
    for (reason, published) in [(0x80, true), (0x04, true), (0x00, false), (0x82, true)] {
        let mut stream = dial(&server, "mqtt");
        let name = format!("will {reason:02x}");
        let (client, user) = (text("dying"), text("mower-2"));
        let head = [&text("MQTT")[..], &[5, 0xc6, 0, 60, 0], &client, &[0]].concat();
        let will = [text("wills"), text(&name)].concat();
        let parts: [&[u8]; 4] = [&head, &will, &user, &text("demo-token-basicorg")];
        stream.write_all(&frame(0x10, &parts)).expect("sent");
        assert_eq!(read_frame(&mut stream).0, 0x20);
        stream.write_all(&[0xe0, 1, reason]).expect("sent");
        assert_eq!(read_all(&mut stream), "");
        if published {
            let message = read_frame(&mut watcher).1;
            assert!(message.ends_with(name.as_bytes()), "{message:?}");
        }
    }
}

#[test]
fn a_client_is_told_how_many_messages_it_may_have_on_the_way() {
    let server = TestServer::start();
    let mut stream = dial(&server, "mqtt");
    let head = [&text("MQTT")[..], &[5, 0xc2, 0, 60, 0]].concat();
    let parts = [text("told"), text("mower-1"), text("demo-token-basicorg")].concat();
    stream.write_all(&frame(0x10, &[&head, &parts])).expect("sent");
    let receive_max = [&[0x21][..], &1000_u16.to_be_bytes()].concat();
    let (_, connack) = read_frame(&mut stream);
    assert!(connack.windows(3).any(|property| property == receive_max), "{connack:?}");
}

#[test]
fn a_request_of_many_listings_does_not_become_gigabytes() {
    let server = TestServer::start();
    let things: Vec<_> = (0..40)
        .map(|number| {
            mqtt(&server, V311, "lister", &format!("mower-{number}"), "demo-token-basicorg")
        })
        .collect();
    let mut stream = dial(&server, "tcp");
    let login = concat!(
        r#""auth":{"command":"api.authenticate","params":"#,
        r#"{"thingKey":"gateway","appToken":"demo-token-basicorg"}}"#
    );
    let listing = |number| format!(r#","{number}":{{"command":"session.list"}}"#);
    let listings: String = (0..1000).map(listing).collect();
    stream.write_all(format!("{{{login}{listings}}}").as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let answer = read_all(&mut stream);
    let (done, refused) =
        (answer.matches(r#""success":true"#).count(), answer.matches("[-95013]").count());
    assert_eq!(done + refused, 1001, "{} bytes", answer.len());
    assert!(refused > 0 && answer.len() < 17 * 1024 * 1024, "{} bytes", answer.len());
    drop(things);
}

/// The answer to one request over HTTP: its head and body.
fn post(server: &Endpoints, body: &str) -> String {
    let mut stream = dial(server, "http");
    let head = format!("POST /api HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
    read_all(&mut stream)
}

/// The parameters of a login of a thing.
const MOWER: &str = r#"{"thingKey":"mower-1","appToken":"demo-token-basicorg"}"#;

/// So many logins of one thing as commands.
fn logins(count: usize) -> String {
    let login = |n| format!(r#""{n}":{{"command":"api.authenticate","params":{MOWER}}}"#);
    (0..count).map(login).collect::<Vec<_>>().join(",")
}

#[test]
fn one_request_can_not_fill_the_directory() {
    let server = TestServer::with(&[("TR50D_LIMITS__SESSIONS_PER_PRINCIPAL", "4")]);
    let answer = post(&server, &format!("{{{}}}", logins(1000)));
    let (done, refused) =
        (answer.matches(r#""success":true"#).count(), answer.matches("[-95011]").count());
    assert_eq!((done, refused), (10, 990), "{answer}");
    let auth = format!(r#""auth":{{"command":"api.authenticate","params":{MOWER}}}"#);
    let list = r#""list":{"command":"session.list","params":{"limit":1}}"#;
    let answer = post(&server, &format!("{{{auth},{list}}}"));
    assert!(answer.contains(r#""count":4,"#), "{answer}");
    let ended = r#""list":{"command":"session.list","params":{"status":"LOGGED_OUT"}}"#;
    let answer = post(&server, &format!("{{{auth},{ended}}}"));
    assert_eq!(answer.matches(r#""endReason":"replaced""#).count(), 8, "{answer}");
}

#[test]
fn logins_count_as_commands_of_their_session() {
    let server = TestServer::with(&[("TR50D_LIMITS__COMMANDS_PER_S", "3")]);
    let auth = format!(r#""auth":{{"command":"api.authenticate","params":{MOWER}}}"#);
    let answer = post(&server, &format!("{{{auth},{}}}", logins(8)));
    assert_eq!(answer.matches("[-95010]").count(), 5, "{answer}");
}

#[test]
fn things_are_listed_by_key_page_by_page() {
    let server = TestServer::start();
    for key in ["b", "a", "d", "C"] {
        mqtt(&server, V311, "lister", key, "demo-token-basicorg");
    }
    let auth = format!(r#""auth":{{"command":"api.authenticate","params":{MOWER}}}"#);
    let check = |params: &str, count: usize, keys: &[&str]| {
        let list = format!(r#""l":{{"command":"thing.list","params":{{{params}"show":"key"}}}}"#);
        let answer = post(&server, &format!("{{{auth},{list}}}"));
        let keys: Vec<_> = keys.iter().map(|key| format!(r#"{{"key":"{key}"}}"#)).collect();
        let expected =
            format!(r#""count":{count},"fields":["key"],"result":[{}]}}"#, keys.join(","));
        assert!(answer.contains(&expected), "{params}: {answer}");
    };
    check("", 5, &["C", "a", "b", "d", "mower-1"]);
    check(r#""limit":1,"#, 5, &["C"]);
    check(r#""offset":3,"limit":1,"#, 5, &["d"]);
    check(r#""offset":5,"#, 5, &[]);
    check(r#""sort":"name","limit":3,"#, 5, &["a", "b", "C"]);
    check(r#""sort":"-key","limit":1,"#, 5, &["mower-1"]);
    check(r#""keys":["d","x"],"#, 1, &["d"]);
}

#[test]
fn the_app_id_of_other_things_is_for_administrators() {
    let server = TestServer::start();
    let thing = |key: &str| {
        let token = "demo-token-basicorg";
        let params = format!(r#"{{"appId":"app-{key}","thingKey":"{key}","appToken":"{token}"}}"#);
        format!(r#""auth":{{"command":"api.authenticate","params":{params}}}"#)
    };
    let asked = r#""f":{"command":"thing.find","params":{"key":"a"}},"l":{"command":"thing.list"}"#;
    let check = |auth: &str, shown: &[&str]| {
        let answer = post(&server, &format!("{{{auth},{asked}}}"));
        assert_eq!(answer.matches(r#""key":"a""#).count(), 2, "{answer}");
        for app_id in ["app-a", "app-b"] {
            let count = shown.iter().filter(|id| **id == app_id).count();
            assert_eq!(answer.matches(app_id).count(), count, "{app_id}: {answer}");
        }
    };
    post(&server, &format!("{{{}}}", thing("a")));
    check(&thing("b"), &["app-b"]);
    check(&thing("a"), &["app-a", "app-a"]);
    let all = ["app-a", "app-a", "app-b"];
    let operator = &OPERATOR_LOGIN[1..OPERATOR_LOGIN.len() - 1];
    check(operator, &all);
}

#[test]
fn a_modems_identifier_is_not_the_own_thing() {
    let server = TestServer::start();
    let auth = format!(r#""auth":{{"command":"api.authenticate","params":{MOWER}}}"#);
    for name in ["imei", "iccid", "esn", "meid", "imsi", "msisdn"] {
        let find =
            format!(r#""f":{{"command":"thing.find","params":{{"{name}":490154203237518}}}}"#);
        let answer = post(&server, &format!("{{{auth},{find}}}"));
        let told = format!(r#"[-90008],"errorMessages":["Thing with {name} \"490154203237518\""#);
        assert!(answer.contains(&told), "{answer}");
    }
}
