//! Who has the places of connections when all are taken.

use client::{Client, ClientError, Version};
use support::http::{metrics, post};
use support::mqtt::{Connect, PING};
use support::tcp::Lines;
use support::{Endpoints, SOON, TestServer, end_reason, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const PLACES: usize = 20;

const ACCEPTED: &[u8] = &[0x20];

/// A DISCONNECT of MQTT 5: quota exceeded.
const MADE_WAY: &[u8] = &[0xe0, 1, 0x97];

const VIEWER: &str = r#"{"auth":{"command":"api.authenticate","params":{"username":"viewer@basicorg.example","password":"demo-viewer-password"}},"p":{"command":"api.ping"}}"#;

/// What the CONNACK says of a refusal.
fn why(connack: &[u8]) -> String {
    // Its one property is a text, and ends the packet.
    String::from_utf8_lossy(connack).into_owned()
}

/// A connection over MQTT 5 from one of several addresses, and the reason code of its CONNACK.
async fn log_in(server: &Endpoints, org: &str, number: usize) -> (TcpStream, u8) {
    let (stream, connack) = connect(server, org, number).await;
    (stream, connack[1])
}

/// The same with all that the CONNACK has behind its length.
async fn connect(server: &Endpoints, org: &str, number: usize) -> (TcpStream, Vec<u8>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("127.0.0.{}:0", 2 + number % 5);
    socket.bind(from.parse().expect("an address")).expect("loopback");
    let mut stream = socket.connect(server.address("mqtt")).await.expect("a connection");
    let key = format!("{org}-{number}");
    let connect = Connect::login(Version::V5, &key, &key, &format!("demo-token-{org}"));
    stream.write_all(&connect.frame()).await.expect("sent");
    let mut head = [0; 2];
    timeout(SOON, stream.read_exact(&mut head)).await.expect("in time").expect("a CONNACK");
    assert_eq!(&head[..1], ACCEPTED);
    let mut length = usize::from(head[1] & 0x7f);
    if head[1] >= 0x80 {
        length += usize::from(stream.read_u8().await.expect("a length")) << 7;
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.expect("the rest");
    (stream, rest)
}

async fn ping(stream: &mut TcpStream) {
    stream.write_all(PING).await.expect("sent");
    let mut answer = [0; 2];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("a PINGRESP");
}

/// All that comes until the end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("in time").expect("closed");
    rest
}

/// A server all of whose places are those of BasicOrg's token.
async fn full() -> (TestServer, Vec<TcpStream>) {
    let places = PLACES.to_string();
    let server = TestServer::with(&[("TR50D_LIMITS__CONNECTIONS", &places)]);
    let mut things = Vec::new();
    for number in 0..PLACES {
        let (stream, code) = log_in(&server, "basicorg", number).await;
        assert_eq!(code, 0, "{number}");
        things.push(stream);
    }
    (server, things)
}

#[tokio::test]
async fn another_organisation_gets_its_half_from_the_idlest() {
    let (server, mut things) = full().await;
    let (mut late, connack) = connect(&server, "basicorg", PLACES).await;
    assert_eq!(connack[1], 0x89, "there is nobody who has more");
    let limit = "he server is full: the limit limits.connections is reached for connections: your \
                 organisation has its share";
    assert!(why(&connack).ends_with(limit), "{connack:?}");
    let sentence = format!("T{limit}; try again.");
    let mut lines = Lines::connect(&server).await;
    let login = r#"{"auth":{"command":"api.authenticate","params":{"appToken":"demo-token-basicorg","thingKey":"tcp"}}}"#;
    lines.write(format!("{login}\n").as_bytes()).await;
    let answers = [lines.rest().await.concat(), post(&server, login).await];
    for answer in answers {
        assert!(answer.contains("-95011") && answer.contains(&sentence), "{answer}");
    }
    assert_eq!(rest(&mut late).await, b"");
    // The first one has something to say, the second has not.
    ping(&mut things[0]).await;
    let mut others = Vec::new();
    for number in 0..PLACES / 2 {
        let (stream, code) = log_in(&server, "yorkorg", number).await;
        assert_eq!(code, 0, "{number}");
        others.push(stream);
    }
    let (_, code) = log_in(&server, "yorkorg", PLACES / 2).await;
    assert_eq!(code, 0x89, "each has its half");
    for thing in &mut things[1..=PLACES / 2] {
        assert_eq!(rest(thing).await, MADE_WAY);
    }
    ping(&mut things[0]).await;
    for thing in &mut things[PLACES / 2 + 1..] {
        ping(thing).await;
    }
    // What is free is anybody's.
    drop(others.pop());
    eventually("there is room again", async || log_in(&server, "basicorg", 1).await.1 == 0).await;
}

#[tokio::test]
async fn a_client_that_comes_again_needs_no_other_place() {
    let (server, mut things) = full().await;
    let (mut again, code) = log_in(&server, "basicorg", 3).await;
    assert_eq!(code, 0);
    assert_eq!(rest(&mut things[3]).await, [0xe0, 1, 0x8e]);
    ping(&mut again).await;
    ping(&mut things[0]).await;
}

#[tokio::test]
async fn people_get_in_beside_the_things_of_their_organisation_over_every_door() {
    let (server, mut things) = full().await;
    assert!(post(&server, VIEWER).await.contains(r#""p":{"success":true}"#));
    let mut lines = Lines::connect(&server).await;
    let login = VIEWER.replace("viewer", "operator");
    assert!(lines.ask(&login).await.contains(r#""p":{"success":true}"#));
    assert_eq!(rest(&mut things[0]).await, MADE_WAY);
    let mut admin = server.admin("mqtt").await;
    let mut operator = server.operator("tcp").await;
    assert_eq!(end_reason(&mut operator, "basicorg-0").await, "made_way");
    // A wrong password is refused as such.
    let url = server.url("mqtt", "operator@basicorg.example", "wrong");
    assert!(matches!(Client::connect(&url).await, Err(ClientError::Refused(_))));
    let text = metrics(&server).await;
    let line = |line: &str| assert!(text.lines().any(|have| have == line), "{text}\nlacks {line}");
    line("tr50d_pool_limit{pool=\"connections\"} 20");
    support::call(&mut admin, "diag.ping", "").await;
    drop((things, lines, operator));
    admin.close().await;
    eventually("all places are free", async || {
        // But that of this question.
        metrics(&server).await.contains("tr50d_pool_used{pool=\"connections\"} 1\n")
    })
    .await;
}

#[tokio::test]
async fn whoever_is_connected_takes_a_place() {
    let server = TestServer::start();
    let mut open = Vec::new();
    for door in ["mqtt", "tcp", "http"] {
        open.push(TcpStream::connect(server.address(door)).await.expect("a connection"));
    }
    let thing = server.thing("mqtt", "a-thing").await;
    let id =
        support::http::log_in(&server, "operator@basicorg.example", "demo-operator-password").await;
    let head = format!("GET /events HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {id}\r\n\r\n");
    open[2].write_all(head.as_bytes()).await.expect("sent");
    let used = async |places: usize| {
        let line = format!("tr50d_pool_used{{pool=\"connections\"}} {places}\n");
        eventually("so many places", async || metrics(&server).await.contains(&line)).await;
    };
    used(5).await;
    drop(open);
    used(2).await;
    drop(thing);
    used(1).await;
}
