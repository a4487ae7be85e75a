//! What went wrong once, through the server's sockets.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{SOON, TestServer};

/// A connection to a listener that gives up when nothing comes.
fn dial(server: &TestServer, listener: &str) -> TcpStream {
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
