//! A receiver of webhooks: it keeps what comes, and answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use support::SOON;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A request that came.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    came: mpsc::UnboundedReceiver<Delivery>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<String>,
    hangs: bool,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name}: {}", self.head)).1
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("events").clone()
    }

    /// Checks the signature as Standard Webhooks says.
    pub(crate) fn check(&self, secret: &str) {
        let key = match secret.strip_prefix("whsec_") {
            Some(key) => BASE64.decode(key.as_bytes()).expect("base64"),
            None => secret.as_bytes().to_vec(),
        };
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let mut code = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        code.update(format!("{id}.{time}.{}", self.body).as_bytes());
        let expected = format!("v1,{}", BASE64.encode(&code.finalize().into_bytes()));
        assert_eq!(self.header("webhook-signature"), expected);
        assert!(time.parse::<i64>().is_ok_and(|time| time > 1_600_000_000), "{time}");
    }
}

impl Receiver {
    /// One over plain HTTP. It answers 204.
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    /// One over TLS, or not.
    pub(crate) async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, came) = mpsc::unbounded_channel();
        let script = Arc::<Mutex<Script>>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, script, tls) = (sender.clone(), shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &sender, &script).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            answer(stream, &sender, &script).await;
                        }
                    }
                });
            }
        });
        Self { address, scheme, came, script }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What it answers to the next requests: a status, with headers behind it; `hang`, nothing;
    /// `garbage`, no HTTP; `endless`, a body without end; `interim`,
    /// heads of status 100 without end.
    pub(crate) fn answers(&self, answers: &[&str]) {
        let mut script = self.script.lock().expect("no panic");
        script.answers.extend(answers.iter().map(|answer| (*answer).to_owned()));
    }

    /// It answers nothing any more.
    pub(crate) fn hangs(&self) {
        self.script.lock().expect("no panic").hangs = true;
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        timeout(SOON, self.came.recv()).await.expect("a delivery in time").expect("a delivery")
    }

    /// Whether nothing has come that was not looked at.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.came.try_recv().is_err()
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sender: &mpsc::UnboundedSender<Delivery>,
    script: &Mutex<Script>,
) {
    let mut bytes = Vec::new();
    let delivery = loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(delivery) = whole(&bytes) {
            break delivery;
        }
    };
    let answer = {
        let mut script = script.lock().expect("no panic");
        let usual = if script.hangs { "hang" } else { "204 No Content" };
        script.answers.pop_front().unwrap_or_else(|| usual.to_owned())
    };
    let _ = sender.send(delivery);
    match &*answer {
        "hang" => {
            let _ = stream.read_buf(&mut bytes).await;
        }
        "garbage" => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
        "interim" => {
            let head = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
            while stream.write_all(&head).await.is_ok() {}
        }
        "endless" => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut written = stream.write_all(head).await;
            while written.is_ok() {
                written = stream.write_all(b"400\r\n").await;
                written = written.and(stream.write_all(&[b'x'; 0x400]).await);
                written = written.and(stream.write_all(b"\r\n").await);
            }
        }
        status => {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// The request in these bytes, if all of it is there.
fn whole(bytes: &[u8]) -> Option<Delivery> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let delivery = Delivery { head: format!("{head}\r\n"), body: body.to_owned() };
    let length: usize = delivery.header("content-length").parse().expect("a length");
    (body.len() == length).then_some(delivery)
}
