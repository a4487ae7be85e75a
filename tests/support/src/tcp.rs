//! The TCP edge by hand: one JSON value a line.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Endpoints, SOON};

/// A connection to the TCP listener.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Connects.
    pub async fn connect(server: &Endpoints) -> Self {
        let stream = TcpStream::connect(server.address("tcp")).await.expect("a connection");
        Self(BufReader::new(stream))
    }

    /// The connection's own address, as the server sees it.
    pub fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().expect("a socket")
    }

    /// A connection that is logged in; the reply to the login is read.
    pub async fn logged_in(server: &Endpoints, login: &str) -> Self {
        let mut lines = Self::connect(server).await;
        let reply = lines.ask(login).await;
        assert!(reply.starts_with(r#"{"auth":{"success":true,"#), "{reply}");
        lines
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        timeout(SOON, self.0.get_mut().write_all(bytes)).await.expect("in time").expect("written");
    }

    /// Ends the connection at once: the server is told that nobody is there.
    pub fn reset(self) {
        self.0.into_inner().set_zero_linger().expect("a socket");
    }

    /// Ends the own side.
    pub async fn half_close(&mut self) {
        self.0.get_mut().shutdown().await.expect("a half-closed connection");
    }

    /// The next line without its end; empty when the server has closed the connection.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(SOON, self.0.read_line(&mut line)).await.expect("a line in time").expect("a line");
        assert!(line.is_empty() || line.ends_with('\n'), "half a line: {line}");
        line.trim_end_matches('\n').to_owned()
    }

    /// Writes one value as a line and reads one.
    pub async fn ask(&mut self, value: &str) -> String {
        self.send(value).await;
        self.line().await
    }

    /// Writes one value as a line.
    pub async fn send(&mut self, value: &str) {
        self.write(format!("{value}\n").as_bytes()).await;
    }

    /// What comes until the server closes, line by line.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut text = String::new();
        timeout(SOON, self.0.read_to_string(&mut text)).await.expect("in time").expect("closed");
        text.lines().map(str::to_owned).collect()
    }
}
