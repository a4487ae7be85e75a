//! A server of a few lines for the tests of clients: accepts one login, answers every command.

use std::net::SocketAddr;
use std::sync::Arc;

use mqtt::{Packet, QoS, Version, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The token (and password) that the server takes.
pub(crate) const TOKEN: &str = "sesame";

/// A listener on a free port; stops with the test's runtime.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
}

/// What the server speaks.
#[derive(Clone)]
pub(crate) enum Speech {
    Mqtt,
    MqttOverWebSocket,
    Tcp,
    TcpOverTls(TlsAcceptor),
    Http,
}

impl TestServer {
    /// Starts it. `answers_max` is the number of commands after which a connection is closed.
    pub(crate) async fn start(speech: Speech, answers_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a TCP socket");
                let speech = speech.clone();
                tokio::spawn(async move {
                    match speech {
                        Speech::Mqtt => mqtt(stream, answers_max).await,
                        Speech::MqttOverWebSocket => web_socket(stream, answers_max).await,
                        Speech::Tcp => lines(stream, answers_max).await,
                        Speech::TcpOverTls(acceptor) => {
                            let stream = acceptor.accept(stream).await.ok()?;
                            lines(stream, answers_max).await
                        }
                        Speech::Http => http(stream, answers_max).await,
                    }
                });
            }
        });
        Self { address }
    }

    /// A URL of this server with a thing's login.
    pub(crate) fn url(&self, scheme: &str, options: &str) -> String {
        format!("{scheme}://dev:{TOKEN}@{}/?{options}", self.address)
    }
}

/// A certificate for 127.0.0.1 as PEM, and an acceptor that shows it.
pub(crate) fn tls() -> (String, Speech) {
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
        .expect("they belong together");
    (made.cert.pem(), Speech::TcpOverTls(TlsAcceptor::from(Arc::new(config))))
}

fn reply_to(request: &[u8], session: bool) -> Option<&'static str> {
    let request = String::from_utf8_lossy(request);
    Some(match &request {
        r if r.contains("api.authenticate") && !r.contains(TOKEN) => {
            r#"{"auth":{"success":false,"errorCodes":[-90001],"errorMessages":["bad token"]}}"#
        }
        r if r.contains("api.authenticate") => {
            r#"{"auth":{"success":true,"params":{"sessionId":"0123456789abcdef01234567"}}}"#
        }
        _ if !session => {
            r#"{"success":false,"errorCodes":[-90000],"errorMessages":["no session"]}"#
        }
        r if r.contains("diag.silence") => return None,
        r if r.contains("diag.fail") => {
            r#"{"cmd":{"success":false,"errorCodes":[-1],"errorMessages":["as you wish"]}}"#
        }
        _ => r#"{"cmd":{"success":true,"params":{"a": "b c"}}}"#,
    })
}

async fn web_socket(stream: TcpStream, answers_max: usize) -> Option<()> {
    use std::future::poll_fn;

    use futures_util::{Sink as _, Stream as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    #[expect(clippy::result_large_err, reason = "tungstenite gives the type of its callback")]
    let echo =
        |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/mqtt");
            let protocol = request.headers().get("Sec-WebSocket-Protocol").cloned();
            response.headers_mut().extend(protocol.map(|p| {
                (tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL, p)
            }));
            Ok(response)
        };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, echo).await.ok()?;
    // One half of a pipe carries the bytes to the MQTT part and back.
    let (near, far) = tokio::io::duplex(4096);
    tokio::spawn(mqtt(far, answers_max));
    let (mut read, mut write) = tokio::io::split(near);
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            message = poll_fn(|cx| Pin::new(&mut socket).poll_next(cx)) => {
                if let Message::Binary(bytes) = message?.ok()? {
                    write.write_all(&bytes).await.ok()?;
                }
            }
            count = read.read(&mut buffer) => {
                let bytes = buffer.get(..count.ok()?)?.to_vec();
                poll_fn(|cx| Pin::new(&mut socket).poll_ready(cx)).await.ok()?;
                Pin::new(&mut socket).start_send(Message::Binary(bytes.into())).ok()?;
                poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)).await.ok()?;
            }
        }
    }
}

async fn mqtt(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers_max: usize) -> Option<()> {
    let (mut input, mut version, mut answers) = (Vec::new(), Version::V311, 0);
    loop {
        let mut output = Vec::new();
        let mut done = 0;
        while let Some((packet, length)) =
            mqtt::decode(&input[done..], version, usize::MAX).expect("MQTT")
        {
            done += length;
            match packet {
                Packet::Connect(connect) => {
                    version = connect.version;
                    let good = connect.password == Some(TOKEN.as_bytes());
                    let code = if good { 0 } else { 5 };
                    output.extend_from_slice(match version {
                        Version::V5 => &[0x20, 6, 0, 0, 3, 0x21, 0, 20],
                        _ => &[0x20, 2, 0, 0],
                    });
                    output[3] = code;
                }
                Packet::Publish(publish) => {
                    let pkid = (publish.qos != QoS::AtMostOnce).then_some(publish.pkid);
                    if let Some(pkid) = pkid {
                        encode::puback(&mut output, version, pkid, 0);
                    }
                    let id = publish.topic.strip_prefix("api/").expect("api/<number>");
                    // A notice first: that mail waits.
                    output.extend_from_slice(&[0x30, 25 + u8::from(version == Version::V5)]);
                    output.extend_from_slice(b"\0\x17notify/mailbox_activity");
                    output.extend_from_slice(if version == Version::V5 { &[0] } else { &[] });
                    if let Some(reply) = reply_to(publish.payload, true) {
                        put_reply(version, pkid, id, reply, &mut output);
                        answers += 1;
                    }
                }
                Packet::PingReq => output.extend_from_slice(&[0xd0, 0]),
                Packet::Disconnect(_) => return None,
                _ => {}
            }
        }
        input.drain(..done);
        stream.write_all(&output).await.ok()?;
        if answers >= answers_max || stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

/// The frame of a reply, by hand.
fn put_reply(version: Version, pkid: Option<u16>, id: &str, text: &str, out: &mut Vec<u8>) {
    let topic = format!("reply/{id}");
    let pkid = pkid.map(u16::to_be_bytes);
    let pkid = pkid.as_ref().map_or(&[][..], |pkid| pkid);
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let body = [topic.as_bytes(), pkid, properties, text.as_bytes()].concat();
    let length = body.len() + 2;
    assert!(length < 128, "the test's replies are short");
    let first = if pkid.is_empty() { 0x30 } else { 0x32 };
    out.extend_from_slice(&[first, length as u8, 0, topic.len() as u8]);
    out.extend_from_slice(&body);
}

async fn lines(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers_max: usize) -> Option<()> {
    let (mut input, mut session, mut answers) = (Vec::new(), false, 0);
    loop {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            if let Some(reply) = reply_to(&line, session) {
                session |= reply.starts_with(r#"{"auth":{"success":true"#);
                let notice = r#"{"notify":{"topic":"t","payload":{}}}"#;
                stream.write_all(format!("{notice}\n{reply}\n").as_bytes()).await.ok()?;
                answers += 1;
            }
        }
        // The login is an answer too.
        if answers > answers_max || stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

async fn http(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers_max: usize) -> Option<()> {
    let mut input = Vec::new();
    for _ in 0..=answers_max {
        let (head, length) = loop {
            let text = String::from_utf8_lossy(&input).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split_once("content-length: ").expect("a length").1;
                let length: usize = length.lines().next()?.parse().expect("a number");
                if body.len() >= length {
                    break (head.to_owned(), length);
                }
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        assert!(head.starts_with("post /api http/1.1"), "{head}");
        let session = head.contains("sessionid: 0123456789abcdef01234567");
        let reply = reply_to(&input[head.len() + 4..head.len() + 4 + length], session)?;
        input.drain(..head.len() + 4 + length);
        let length = reply.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{reply}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
    None
}
