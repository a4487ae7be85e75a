//! Many sessions over HTTP, which stay without a connection.

use std::net::SocketAddr;

use memchr::memmem;
use support::TOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;

/// Connections over which things log in, one after the other on each.
const CONNECTIONS: usize = 32;

/// Has so many things log in.
pub(crate) async fn log_in(http: SocketAddr, count: usize) -> Outcome<()> {
    let mut logging_in = JoinSet::new();
    for connection in 0..CONNECTIONS {
        logging_in.spawn(log_in_some(http, connection, count));
    }
    for done in logging_in.join_all().await {
        done?;
    }
    Ok(())
}

/// Over one connection, its share of them.
async fn log_in_some(http: SocketAddr, connection: usize, count: usize) -> Outcome<()> {
    let mut stream = TcpStream::connect(http).await?;
    for number in (connection..count).step_by(CONNECTIONS) {
        let answer = authenticate(&mut stream, number).await?;
        if memmem::find(&answer, b"\"sessionId\"").is_none() {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
    }
    Ok(())
}

async fn authenticate(stream: &mut TcpStream, number: usize) -> Outcome<Vec<u8>> {
    let params = format!(r#"{{"thingKey":"stays-{number}","appToken":"{TOKEN}","appId":""}}"#);
    let body = format!(r#"{{"auth":{{"command":"api.authenticate","params":{params}}}}}"#);
    let head = format!("POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    while !is_whole(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the server closed".into());
        }
    }
    Ok(answer)
}

/// Whether an answer's head and body are there.
fn is_whole(answer: &[u8]) -> bool {
    const LENGTH: &[u8] = b"Content-Length: ";
    let Some(head) = memmem::find(answer, b"\r\n\r\n") else { return false };
    let length = memmem::find(&answer[..head], LENGTH).and_then(|at| {
        let digits = answer[at + LENGTH.len()..].split(|byte| *byte == b'\r').next()?;
        std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
    });
    length.is_none_or(|length| answer.len() >= head + 4 + length)
}
