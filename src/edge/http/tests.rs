//! The HTTP edge against raw bytes, as real clients send them, and against a WebSocket client.

use std::net::SocketAddr;

use base::{Clock, Failure, OrgId, Protocol, TicketId, UserId};
use futures_util::{SinkExt, StreamExt};
use prometheus_client::metrics::counter::Counter;
use rules::directory::{Principal, PrincipalId};
use store::{Durability, Tables, memory::MemoryStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::*;
use crate::app::{LoginFrom, Part, Unauthenticated};
use crate::things::files::ticket::Asker;
use crate::things::files::{FileName, FilesConfig, Owner, Put};

const BODY_BYTES_MAX: usize = 256;

const TOO_LARGE: &str = r#"{"success":false,"errorCodes":[-1],"errorMessages":["too large"]}"#;

/// Answers TR50 with what it was given, and MQTT with its own bytes behind the protocol's name.
#[derive(Default)]
struct Echo {
    /// A request with the body `hold` has arrived.
    held: Notify,
    /// It may be answered.
    release: Notify,
    /// None: as if the server were full.
    files: Option<Arc<Files>>,
}

impl HttpService for Echo {
    fn working(&self, _: bool) {}

    fn count(&self, bytes: Bytes) -> Bytes {
        bytes
    }

    fn part(&self) -> Option<Part> {
        None
    }

    fn keep(&self, _: usize) {}

    async fn follow_events(
        &self,
        _: &HeaderMap,
        _: Option<&str>,
        _: Asked,
        _: ConnInfo,
    ) -> Result<Following, EventsRefusal> {
        Err(EventsRefusal::Stranger)
    }

    async fn watch(
        &self,
        _: &HeaderMap,
        _: &[String],
        _: ConnInfo,
    ) -> Result<BoxStream<'static, Bytes>, EventsRefusal> {
        Err(EventsRefusal::Stranger)
    }

    async fn gzip(&self, _: Bytes, _: Option<crate::app::Asker>) -> Option<Bytes> {
        None
    }

    async fn may_read_metrics(&self, headers: &HeaderMap, _: ConnInfo) -> Result<bool, Failure> {
        Ok(headers.contains_key("sessionid"))
    }

    fn lease(&self, network: IpAddr) -> Lease {
        let pool = Unauthenticated::new(
            1 << 20,
            BODY_BYTES_MAX,
            Counter::default(),
            &base::pool::Pools::default(),
        );
        Arc::new(pool).lease(network)
    }

    async fn tr50(&self, body: Bytes, claims: Claims, info: ConnInfo) -> Answered {
        let text = String::from_utf8_lossy(&body);
        if text == "hold" {
            self.held.notify_one();
            self.release.notified().await;
        }
        let session = claims.session.as_deref();
        let text = format!("[{text:?},{session:?},{}]", info.remote_addr.ip()).into_bytes();
        Answered { text, ..Answered::default() }
    }

    async fn command(
        &self,
        command: &str,
        given: Given,
        claims: Claims,
        info: ConnInfo,
    ) -> Answered {
        let fields = match given {
            Given::Form(fields) => format!("{fields:?}"),
            Given::Json(body) => format!("{body:?}"),
        };
        let session = claims.field.as_deref().or(claims.session.as_deref().map(str::trim));
        let text = format!("[{command:?},{fields},{session:?},{}]", info.remote_addr.ip());
        Answered { text: text.into_bytes(), ..Answered::default() }
    }

    async fn log_in(&self, given: Given, _: LoginFrom) -> Result<String, Failure> {
        let Given::Form(fields) = given else { return Err(Failure::authentication_missing()) };
        let good = fields.iter().any(|(name, value)| name == "username" && value == "good");
        good.then(|| "5f".to_owned()).ok_or_else(Failure::authentication_missing)
    }

    async fn dialect(
        &self,
        dialect: Dialect,
        request: Request<Bytes>,
        info: ConnInfo,
    ) -> Response<Bytes> {
        let (method, target, body) = (request.method(), request.uri(), request.body());
        let text = format!("{dialect:?} {method} {target} {body:?} {}", info.remote_addr.ip());
        Response::new(text.into())
    }

    async fn mqtt(&self, mut stream: Stream, info: ConnInfo) {
        stream.write_all(info.protocol.as_str().as_bytes()).await.expect("writing");
        let mut buf = [0; 3];
        while let Ok(count @ 1..) = stream.read(&mut buf).await {
            stream.write_all(&buf[..count]).await.expect("writing");
        }
        let _ = stream.shutdown().await;
    }

    fn refusal_page(&self, status: StatusCode) -> Response<Bytes> {
        let mut page = Response::new("a page".into());
        *page.status_mut() = status;
        page
    }

    fn too_large(&self, _: ConnInfo) -> Failure {
        Failure::new(base::Code(-1), "too large")
    }

    async fn metrics(&self, form: Form) -> String {
        format!("# {form:?}\n")
    }

    fn files(&self) -> Option<&Arc<Files>> {
        self.files.as_ref()
    }

    fn file_stored(&self, _: &Stored) {}

    fn ready(&self) -> bool {
        false
    }

    fn readiness(&self) -> Result<Vec<String>, String> {
        Err("it is a test".into())
    }
}

fn config(trusted: Trusted) -> HttpConfig {
    let cors_origins = Origins::default();
    HttpConfig {
        body_bytes_max: BODY_BYTES_MAX,
        trusted,
        cors_origins,
        has_metrics_listener: false,
    }
}

struct Server {
    addr: SocketAddr,
    service: Arc<Echo>,
    stop: CancellationToken,
}

impl Server {
    async fn start(protocol: Protocol, trusted: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let trusted = Trusted::parse(trusted.iter().copied()).expect("networks");
        let config = Arc::new(config(trusted));
        let (service, token) = (Arc::new(Echo::default()), stop.clone());
        let served = service.clone();
        tokio::spawn(async move {
            while let Ok((socket, remote_addr)) = listener.accept().await {
                tokio::spawn(serve_connection(
                    Stream::Tcp(socket),
                    ConnInfo::new(protocol, remote_addr),
                    served.clone(),
                    config.clone(),
                    token.clone(),
                ));
            }
        });
        Self { addr, service, stop }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("connecting")
    }

    /// Sends the pieces and reads until the server closes. A reset would be an error.
    async fn exchange(&self, pieces: &[&[u8]]) -> String {
        let mut client = self.connect().await;
        for piece in pieces {
            client.write_all(piece).await.expect("writing");
            client.flush().await.expect("flushing");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("reading to the end");
        answer
    }
}

/// Reads one answer with a Content-Length, without waiting for the end of the connection.
async fn read_answer(client: &mut TcpStream) -> String {
    let mut bytes = BytesMut::new();
    loop {
        assert_ne!(client.read_buf(&mut bytes).await.expect("reading"), 0, "{bytes:?}");
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("Content-Length: ").nth(1).expect("a length");
            if body.len() == length.lines().next().unwrap_or_default().parse().unwrap_or(0) {
                return text.into_owned();
            }
        }
    }
}

#[track_caller]
fn assert_parts(answer: &str, parts: &[&str]) {
    for part in parts {
        assert!(answer.contains(part), "{answer:?} lacks {part:?}");
    }
}

#[tokio::test]
async fn other_dialects_get_whole_requests() {
    let server = Server::start(Protocol::Http, &["127.0.0.1/32"]).await;
    let check = async |head: &str, body: &[u8], parts: &[&str]| {
        let length = body.len();
        let head = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n"
        );
        let coding =
            if body.starts_with(&[0x1f]) { "Content-Encoding: gzip\r\n\r\n" } else { "\r\n" };
        assert_parts(&server.exchange(&[head.as_bytes(), coding.as_bytes(), body]).await, parts);
    };
    // `{}` as the vendor's toolkit sends it with every GET.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, b"{}").expect("memory");
    let empty = gzip.finish().expect("memory");
    let ok = "200 OK";
    check(
        "GET /api/v1/orgs/a?limit=2",
        &empty,
        &[ok, "Cognite GET /api/v1/orgs/a?limit=2 b\"{}\""],
    )
    .await;
    check("GET /openapi.json", b"", &[ok, "Cognite GET /openapi.json b\"\" 127.0.0.1"]).await;
    check("POST /json-rpc/12.3", b"{}", &[ok, "Element POST /json-rpc/12.3 b\"{}\""]).await;
    check("POST /api/v1/x", &empty[..9], &["400 Bad Request", r#"{"error":{"code":400"#]).await;
    check("GET /api/v2", b"", &["404 Not Found"]).await;
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    check("POST /api/v1/x", &large, &["413 Payload Too Large", r#"{"error":{"code":413"#]).await;
}

#[tokio::test]
async fn habits_of_real_clients() {
    let server = Server::start(Protocol::Http, &[]).await;
    let check = async |pieces: &[&[u8]], parts: &[&str]| {
        assert_parts(&server.exchange(pieces).await, parts);
    };
    let ok = "200 OK\r\n";
    // Fact 23: 1.0, no blank after the colon, an empty line after the body, wait for the close.
    let firmware = b"POST /api HTTP/1.0\r\nHost:x\r\nContent-Length:4\r\n\r\nbody\r\n";
    check(&[firmware], &["HTTP/1.0 200 OK", "Content-Length: ", "application/json", "[\"body\""])
        .await;
    check(&[&firmware[..20], &firmware[20..50], &firmware[50..]], &[ok, "[\"body\""]).await;
    check(
        &[b"POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSESSIONID: 5f\r\n\
            Content-Length: 2\r\n\r\n{}"],
        &["HTTP/1.1 200 OK", "[\"{}\",Some(\"5f\"),127.0.0.1]"],
    )
    .await;
    check(
        &[b"POST /api/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
            Transfer-Encoding: chunked\r\n\r\n\
            2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"],
        &[ok, "[\"abc\",None"],
    )
    .await;
    check(&[b"GET / HTTP/1.0\n\n"], &[ok, "Console GET / "]).await;
    check(&[b"HEAD /healthz HTTP/1.0\r\n\r\n"], &[ok, "Content-Length: 3"]).await;
    check(&[b"GET /healthz HTTP/1.0\r\n\r\n"], &[ok, "\r\n\r\nok\n"]).await;
    check(&[b"GET /readyz HTTP/1.0\r\n\r\n"], &["503 Service Unavailable", "not ready"]).await;
    check(&[b"GET /metrics HTTP/1.0\r\n\r\n"], &[ok, "version=0.0.4", "# Text"]).await;
    let open = b"GET /metrics HTTP/1.0\r\nAccept: text/plain;q=0.1\r\n\
                 Accept: application/openmetrics-text\r\n\r\n";
    check(&[open], &[ok, "openmetrics-text; version=1.0.0", "Vary: Accept", "# OpenMetrics"]).await;
    check(&[b"GET /nowhere HTTP/1.0\r\n\r\n"], &["404 Not Found", r#"{"error":{"code":404"#]).await;
    check(&[b"GET /api HTTP/1.0\r\n\r\n"], &["405 Method", "Allow: POST", r#""code":405"#]).await;
    check(&[b"POST /metrics HTTP/1.0\r\n\r\n"], &["405 Method", "Allow: GET, HEAD"]).await;
    check(&[b"GET /mqtt HTTP/1.0\r\n\r\n"], &["426 Upgrade Required"]).await;
    check(&[b"\x16\x03\x01\x02\x00\x01"], &["400 Bad Request"]).await;
}

#[tokio::test]
async fn too_much_is_refused_and_the_refusal_arrives() {
    let server = Server::start(Protocol::Http, &[]).await;
    let check = async |head: &str, body: &[u8], parts: &[&str]| {
        let head = format!("POST /api HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
        assert_parts(&server.exchange(&[head.as_bytes(), body]).await, parts);
    };
    let refused = &["200 OK", TOO_LARGE, "Connection: close"][..];
    let long = vec![b'x'; 2_000_000];
    check("Content-Length: 257", &[b'x'; 257], refused).await;
    check("Content-Length: 2000000", &long, refused).await;
    check("Content-Length: 2000000\r\nExpect: 100-continue", b"", refused).await;
    let chunk = [b"200\r\n".as_slice(), &[b'x'; 0x200], b"\r\n0\r\n\r\n"].concat();
    check("Transfer-Encoding: chunked", &chunk, refused).await;
    let fits = [b'x'; BODY_BYTES_MAX];
    check("Connection: close\r\nContent-Length: 256", &fits, &["200 OK", "xxx\",None"]).await;
    let head = format!("A: {}", "x".repeat(2 * limits::HTTP_HEAD_BYTES_MAX));
    check(&head, b"", &["431 "]).await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start(Protocol::Http, &[]).await;
    let mut client = server.connect().await;
    for body in ["one", "two"] {
        let request = format!("POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.expect("writing");
        assert_parts(&read_answer(&mut client).await, &["200 OK", body]);
    }
    let expecting =
        "POST /api HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.write_all(expecting.as_bytes()).await.expect("writing");
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).await.expect("reading");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"xyz").await.expect("writing");
    // The sending side is closed; the answer comes all the same.
    client.shutdown().await.expect("closing");
    assert_parts(&read_answer(&mut client).await, &["200 OK", "xyz"]);
}

#[tokio::test]
async fn forwarded_peers_are_believed_from_trusted_ones_only() {
    let request = b"POST /api HTTP/1.0\r\nX-Forwarded-For: 6.6.6.6\r\n\
                    x-forwarded-for: 192.0.2.7, 127.0.0.9\r\nContent-Length: 0\r\n\r\n";
    let open = Server::start(Protocol::Http, &[]).await;
    assert_parts(&open.exchange(&[request]).await, &["127.0.0.1]"]);
    let behind = Server::start(Protocol::Http, &["127.0.0.0/8"]).await;
    assert_parts(&behind.exchange(&[request]).await, &["192.0.2.7]"]);
}

#[tokio::test]
async fn the_portals_style() {
    let server = Server::start(Protocol::Http, &[]).await;
    let check = async |path: &str, form: &str, parts: &[&str]| {
        let head = format!("POST {path} HTTP/1.0\r\nSessionId:  6a \r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{form}", form.len());
        assert_parts(&server.exchange(&[request.as_bytes()]).await, parts);
    };
    check("/rest/auth", "username=good&password=x", &["200 OK", "text/plain", "\r\n\r\n5f"]).await;
    let refused = "\r\n\r\n{\"success\":false,";
    check("/rest/auth/", "username=bad", &["200 OK", "application/json", refused]).await;
    let inside = r#"["diag.echo",[("a", "b c")],Some("5f"),127.0.0.1]"#;
    check("/rest/_/diag.echo/", "sessionId=5f&a=b+c", &["200 OK", "json", inside]).await;
    let inside = r#"["diag.echo",[],Some("6a"),127.0.0.1]"#;
    check("/rest/_/diag%2eecho", "", &["200 OK", "json", inside]).await;
    check("/rest/_/", "", &["404 Not Found"]).await;
    check("/rest/_/a/b", "", &["404 Not Found"]).await;
    let get = server.exchange(&[b"GET /rest/_/diag.echo HTTP/1.0\r\n\r\n"]).await;
    assert_parts(&get, &["405 Method Not Allowed"]);
}

#[tokio::test]
async fn libtr50s_tunnel() {
    let check = async |protocol, pieces: &[&[u8]], bytes: &[u8]| {
        let server = Server::start(protocol, &[]).await;
        let mut client = server.connect().await;
        for piece in pieces {
            client.write_all(piece).await.expect("writing");
            tokio::task::yield_now().await;
        }
        client.shutdown().await.expect("closing");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("reading");
        assert_eq!(answer, [b"HTTP/1.1 200 OK\r\n\r\n", bytes].concat());
    };
    let head = b"GET /mqtt HTTP/1.1\r\nhost: tr50.example\r\n\r\n";
    check(Protocol::Http, &[head, b"\x10\x0cCONNECT"], b"mqtt\x10\x0cCONNECT").await;
    check(Protocol::Https, &[&[head, &b"\x10"[..]].concat()], b"mqtts\x10").await;
    check(Protocol::Http, &[&head[..7], &head[7..]], b"mqtt").await;
}

/// Opens a WebSocket with these sub-protocols offered.
async fn websocket(
    server: &Server,
    path: &str,
    offered: Option<&'static str>,
) -> tungstenite::Result<(tokio_tungstenite::WebSocketStream<TcpStream>, String)> {
    let mut request = format!("ws://{}{path}", server.addr).into_client_request()?;
    if let Some(offered) = offered {
        let value = hyper::header::HeaderValue::from_static(offered);
        request.headers_mut().insert("sec-websocket-protocol", value);
    }
    let socket = server.connect().await;
    let (socket, answer) = tokio_tungstenite::client_async(request, socket).await?;
    let chosen = answer.headers().get("sec-websocket-protocol").cloned();
    let chosen = chosen.and_then(|value| value.to_str().ok().map(str::to_owned));
    Ok((socket, chosen.unwrap_or_default()))
}

#[tokio::test]
async fn websockets_carry_bytes() {
    let check = async |protocol, path: &str, offered, chosen: &str, name: &str| {
        let server = Server::start(protocol, &[]).await;
        let (mut socket, have) = websocket(&server, path, Some(offered)).await.expect("opening");
        assert_eq!(have, chosen);
        let big = vec![7_u8; 100_000];
        let mut expected = name.as_bytes().to_vec();
        for piece in [&b"\x10"[..], b"", b"\x0cCONN", &big] {
            expected.extend_from_slice(piece);
            let message = Message::Binary(Bytes::copy_from_slice(piece));
            socket.send(message).await.expect("sending");
        }
        socket.send(Message::Ping("?".into())).await.expect("sending");
        let (mut bytes, mut pongs) = (Vec::new(), 0);
        while bytes.len() < expected.len() || pongs == 0 {
            match socket.next().await.expect("a message").expect("a good one") {
                Message::Binary(payload) => bytes.extend_from_slice(&payload),
                Message::Pong(_) => pongs += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((bytes == expected, pongs), (true, 1));
        socket.close(None).await.expect("closing");
        while let Some(message) = socket.next().await {
            assert!(matches!(message, Ok(Message::Close(_))), "{message:?}");
        }
    };
    check(Protocol::Http, "/mqtt", "mqttv3.1", "mqttv3.1", "ws").await;
    check(Protocol::Https, "/mqtt-ssl", "soap, mqtt,mqttv3.1", "mqtt", "wss").await;
}

#[tokio::test]
async fn websockets_of_others_are_refused() {
    let server = Server::start(Protocol::Http, &[]).await;
    for offered in [None, Some("soap")] {
        match websocket(&server, "/mqtt", offered).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 400),
            other => panic!("{:?}", other.map(|(_, chosen)| chosen)),
        }
    }
    let no_key =
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    assert_parts(&server.exchange(&[no_key]).await, &["400 Bad Request"]);
    let (mut socket, _) = websocket(&server, "/mqtt", Some("mqtt")).await.expect("opening");
    socket.send(Message::Text("text".into())).await.expect("sending");
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            Some(Ok(other)) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stop_answers_what_is_in_flight() {
    let server = Server::start(Protocol::Http, &[]).await;
    let mut idle = server.connect().await;
    let mut kept = server.connect().await;
    let request = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
    kept.write_all(&[request.as_slice(), b"fast"].concat()).await.expect("writing");
    assert_parts(&read_answer(&mut kept).await, &["200 OK"]);
    let mut busy = server.connect().await;
    busy.write_all(&[request.as_slice(), b"hold"].concat()).await.expect("writing");
    server.service.held.notified().await;
    server.stop.cancel();
    server.service.release.notify_one();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.expect("reading to the end");
    assert_parts(&answer, &["200 OK", "hold"]);
    for mut client in [idle.split().0, kept.split().0] {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("closed, not reset");
        assert!(rest.is_empty());
    }
}

/// Files in a directory, of which one is awaited under the id 0101….
fn files_with_a_ticket(dir: &std::path::Path) -> Arc<Files> {
    let tables = Tables::new(Arc::new(MemoryStore::new()), Durability::Os, &Arc::default());
    let dir = dir.to_owned();
    let (bytes_max, total_bytes_max) = (10, 1 << 20);
    let config = FilesConfig { dir, sync: false, bytes_max, total_bytes_max, org_bytes_max: 0 };
    let files = Files::new(tables, config, Clock::start(None, None), &Arc::default());
    files.recover().expect("an empty directory");
    let owner = Owner { org: OrgId::from_bytes([1; 12]), thing: None };
    let put = Put {
        name: FileName::parse("a").expect("a name"),
        crc32: None,
        public: false,
        tags: Vec::new(),
        sec_tags: Vec::new(),
        ttl_s: None,
        with_sha256: false,
        log_complete: false,
        basic_auth: None,
    };
    let ticket = TicketId::from_random([1; 12]);
    let user = UserId::from_bytes([1; 12]);
    let asker = Asker::new(Principal::User(user), PrincipalId::User(user), || true);
    files.announce(ticket, asker, owner, put, files.clock().now()).expect("room");
    Arc::new(files)
}

#[tokio::test]
async fn a_full_server_moves_no_files() {
    let server = Server::start(Protocol::Http, &[]).await;
    let request = b"GET /file/010101010101010101010101 HTTP/1.0\r\n\r\n";
    let parts = [
        "503 Service Unavailable",
        "Retry-After: 1",
        r#""message":"the server is full for your address: "#,
    ];
    assert_parts(&server.exchange(&[request]).await, &parts);
}

#[tokio::test]
async fn silent_and_slow_peers_are_given_up() {
    const SOON: Duration = Duration::from_millis(50);
    let dir = tempfile::tempdir().expect("a directory");
    let files = Some(files_with_a_ticket(dir.path()));
    // Every other wait is far longer than the test, so only the one in question can end it.
    let check = async |bytes: &[u8], waits: Waits, part: &str| {
        let (mut near, far) = tokio::io::duplex(1024);
        let info = ConnInfo::new(Protocol::Http, ([127, 0, 0, 1], 1).into());
        let trusted = Trusted::default();
        let config = Arc::new(config(trusted));
        let echo = Echo { files: files.clone(), ..Echo::default() };
        let conn = HttpConn::new(Arc::new(echo), config, info, waits);
        let begin = time::Instant::now();
        let stream = Stream::Boxed(Box::new(far));
        let server = tokio::spawn(serve(stream, conn, CancellationToken::new()));
        near.write_all(bytes).await.expect("writing");
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.expect("reading to the end");
        drop(near);
        server.await.expect("the server's side");
        assert!(answer.contains(part), "{answer:?}");
        assert!((SOON..WAITS.login).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    };
    let login = Waits { login: SOON, ..WAITS };
    check(b"", login, "").await;
    check(b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Le", login, "").await;
    let body = Waits { body: SOON, ..WAITS };
    check(b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbod", body, "408 ").await;
    let stall = Waits { stall: SOON, ..WAITS };
    let upload =
        "POST /file/010101010101010101010101 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbod";
    check(upload.as_bytes(), stall, "408 ").await;
    let incoming = dir.path().join("incoming").read_dir().expect("a directory");
    assert_eq!(incoming.count(), 0, "what has come is gone again");
    let keep_alive = Waits { keep_alive: SOON, ..WAITS };
    check(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", keep_alive, "200 OK").await;
    check(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /he", keep_alive, "200 OK").await;
}
