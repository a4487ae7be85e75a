//! Which floods there are, and what one act of each is.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum;
use client::{Client, Options, Target, Url};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use support::Endpoints;
use support::mqtt::{Connect, Wire, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Something that one principal does as much of as it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Flood {
    /// Sessions over HTTP that nobody ends
    Sessions,
    /// Logins that end at once, which fill the history of ended sessions
    LoginChurn,
    /// Connections that never log in
    Strangers,
    /// Requests of strangers whose second half does not come
    HalfRequests,
    /// Logins with a wrong password, from many addresses
    WrongPasswords,
    /// Retained messages, each on a topic of its own
    Retained,
    /// Subscriptions, each to a topic of its own
    Subscriptions,
    /// Tickets for files
    FileTickets,
    /// Uploads that do not go on
    Transfers,
    /// Searches through all things
    Searches,
    /// Lists of as many things as a reply may hold
    LongLists,
    /// Things
    Things,
    /// Series of one thing
    Series,
    /// Mails that nobody fetches
    Mails,
    /// Callers who wait for a device that does not answer
    Callers,
    /// Peers that ask for long lists and don't read them
    Unread,
    /// Requests of a hundred lists each
    LongRequests,
    /// Long lists that are to be compressed (`apiz`)
    Compressed,
    /// Requests of as many points as one may have
    Batches,
    /// Messages for more than a thousand sessions that are away
    ManyReaders,
}

/// Points of a request that is nearly as large as the server takes.
const POINTS: u32 = 50_000;

/// Sessions of each worker that its messages are for.
const READERS: u32 = 20;

/// Things in the organisation of the flood, where there have to be many.
pub(crate) const THINGS: usize = 5000;

/// Connections that one process of a flood holds open.
const HELD_MAX: usize = 10_000;

/// Longer than an act takes where all is well.
const ACT_MAX: Duration = Duration::from_secs(10);

/// The thing to which mails go.
const SINK: &str = "sink";

impl Flood {
    /// Whether the organisation of the flood has many things.
    pub(crate) const fn needs_things(self) -> bool {
        matches!(
            self,
            Self::Searches | Self::LongLists | Self::Unread | Self::LongRequests | Self::Compressed
        )
    }

    /// Workers of those who notice: with fewer, acts that take a second would be late.
    pub(crate) const fn watchers(self) -> usize {
        if matches!(self, Self::Callers) { 20 } else { 2 }
    }

    /// Settings with which the pool is full within seconds.
    pub(crate) fn settings(self) -> Vec<(&'static str, String)> {
        let small: &[(&str, usize)] = match self {
            Self::Sessions => &[("TR50D_LIMITS__SESSIONS", 5000)],
            Self::LoginChurn => &[("TR50D_SESSIONS__HISTORY_MAX", 2000)],
            Self::Retained => &[("TR50D_LIMITS__RETAINED_MESSAGES", 5000)],
            Self::Subscriptions => {
                &[("TR50D_LIMITS__SUBSCRIPTIONS", 20_000), ("TR50D_LIMITS__BROKER_FILTERS", 20_000)]
            }
            _ => &[],
        };
        small.iter().map(|(name, max)| (*name, max.to_string())).collect()
    }
}

/// Somebody who acts, on one connection where that is enough.
pub(crate) struct Actor {
    flood: Flood,
    server: Endpoints,
    /// `flood`, `beside` or `other`.
    who: String,
    key: String,
    number: u32,
    client: Option<Client>,
    wire: Option<Wire>,
    held: VecDeque<TcpStream>,
}

impl Actor {
    /// Somebody of this name, as which it is the `index`th.
    pub(crate) fn new(flood: Flood, server: Endpoints, who: &str, index: usize) -> Self {
        let key = format!("{who}-{index}");
        let (client, wire, held) = (None, None, VecDeque::new());
        Self { flood, server, who: who.to_owned(), key, number: 0, client, wire, held }
    }

    fn is_hostile(&self) -> bool {
        self.who == "flood"
    }

    /// One act.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub(crate) async fn act(&mut self) -> Result<(), String> {
        self.number += 1;
        let done = tokio::time::timeout(ACT_MAX, self.one()).await;
        let done = done.unwrap_or_else(|_| Err("no answer".to_owned()));
        if done.is_err() {
            (self.client, self.wire) = (None, None);
        }
        done
    }

    async fn one(&mut self) -> Result<(), String> {
        let number = self.number;
        let key = &self.key;
        match (self.flood, self.is_hostile()) {
            (Flood::Sessions, _) => self.login("http", &format!("{key}-{number}")).await.map(drop),
            (Flood::HalfRequests, true) => self.half_request().await,
            (Flood::HalfRequests, false) => self.login("http", &key.clone()).await.map(drop),
            (Flood::LoginChurn, _) | (Flood::Strangers, false) => {
                self.login("mqtt", &key.clone()).await?.close().await;
                Ok(())
            }
            (Flood::Strangers, true) => {
                let stream = self.dial("mqtt").await?;
                self.hold(stream);
                Ok(())
            }
            (Flood::WrongPasswords, hostile) => self.password_login(hostile).await,
            (Flood::Retained, _) => self.retain().await,
            (Flood::Subscriptions, _) => self.subscribe().await,
            (Flood::FileTickets, _) => self.ticket().await.map(drop),
            (Flood::Transfers, _) => self.transfer().await,
            (Flood::Searches, _) => self.call("thing.search", r#"{"query":"*nothing*"}"#).await,
            (Flood::LongRequests, true) => self.ask_for_a_hundred().await,
            (Flood::LongRequests, false) => self.call("thing.list", r#"{"limit":50}"#).await,
            (Flood::Compressed, true) => self.ask_compressed().await,
            (Flood::LongLists, _) | (Flood::Unread | Flood::Compressed, false) => {
                self.call("thing.list", r#"{"limit":2000}"#).await
            }
            (Flood::Unread, true) => self.ask_and_not_read().await,
            (Flood::Things, _) => {
                let params = format!(r#"{{"key":"{key}-{number}","name":"x"}}"#);
                self.call("thing.create", &params).await
            }
            (Flood::Series, _) => {
                let params = format!(r#"{{"key":"{key}-{number}","value":1}}"#);
                self.call("property.publish", &params).await
            }
            (Flood::Batches, true) => self.publish_many().await,
            (Flood::Batches, false) => {
                self.call("property.publish", &format!(r#"{{"key":"p","value":{number}}}"#)).await
            }
            (Flood::ManyReaders, true) if number <= READERS => self.leave_a_reader().await,
            (Flood::ManyReaders, hostile) => self.tell(if hostile { 50 } else { 1 }).await,
            (Flood::Mails, _) => self.mail(0).await,
            (Flood::Callers, true) => self.wait_for_many().await,
            (Flood::Callers, false) => self.mail(1).await,
        }
    }

    /// An address to connect from: each has some 28,000 ports.
    fn source(&self) -> IpAddr {
        let [_, _, high, low] = (self.number / 100).to_be_bytes();
        let block = 10 + self.key.bytes().map(u32::from).sum::<u32>() % 200;
        IpAddr::V4(Ipv4Addr::new(127, block as u8, high, low.max(1)))
    }

    fn hold(&mut self, stream: TcpStream) {
        if self.held.len() >= HELD_MAX / 16 {
            self.held.pop_front();
        }
        self.held.push_back(stream);
    }

    async fn dial(&mut self, listener: &str) -> Result<TcpStream, String> {
        let (source, address) = (self.source(), self.server.address(listener));
        let dialled = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            // What the server sends shall not stay in the kernel.
            socket.set_recv_buffer_size(4096)?;
            socket.connect(address).await
        };
        dialled.await.map_err(|error| error.to_string())
    }

    /// Logs a thing in. What is borrowed is used before anything is waited for.
    fn login(&self, listener: &str, key: &str) -> impl Future<Output = Login> + Send + 'static {
        let token = format!("the-token-of-{}", self.who);
        open(self.server.url(listener, key, &token), self.source())
    }

    async fn password_login(&mut self, wrong: bool) -> Result<(), String> {
        let org = if self.who == "other" { "quiet" } else { "loud" };
        let user = format!("{}@{org}.example", self.who);
        let password = match wrong {
            true => format!("wrong-{}", self.number),
            false => format!("the-password-of-{}", self.who),
        };
        match open(self.server.url("http", &user, &password), self.source()).await {
            Err(_) if wrong => Ok(()),
            done => done.map(drop),
        }
    }

    async fn half_request(&mut self) -> Result<(), String> {
        const HEAD: &str = "POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
        let mut stream = self.dial("http").await?;
        let half = [HEAD.as_bytes(), &[b' '; 50_000]].concat();
        // Who is refused is not listened to.
        let _ = stream.write_all(&half).await;
        self.hold(stream);
        Ok(())
    }

    async fn connected(&mut self) -> Result<&mut Client, String> {
        if self.client.is_none() {
            self.client = Some(self.login("mqtt", &self.key).await?);
        }
        self.client.as_mut().ok_or_else(|| "no connection".to_owned())
    }

    async fn call(&mut self, command: &str, params: &str) -> Result<(), String> {
        let client = self.connected().await?;
        let reply = client.call(command, Some(params)).await.map_err(|error| error.to_string())?;
        match reply.success() {
            true => Ok(()),
            false => Err(reply.error_messages().join(" ")),
        }
    }

    /// Values that all differ, so that each is a point.
    async fn publish_many(&mut self) -> Result<(), String> {
        let from = self.number.wrapping_mul(POINTS) % 1_000_000;
        let points: Vec<_> =
            (from..from + POINTS).map(|value| format!(r#"{{"value":{value}}}"#)).collect();
        let params = format!(r#"{{"key":"p","data":[{}]}}"#, points.join(","));
        self.call("property.batch", &params).await
    }

    async fn ticket(&mut self) -> Result<String, String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Ticket {
            file_id: String,
        }
        let client = self.connected().await?;
        let reply = client.call("file.put", Some(r#"{"fileName":"f"}"#)).await;
        let reply = reply.map_err(|error| error.to_string())?;
        if !reply.success() {
            return Err(reply.error_messages().join(" "));
        }
        let ticket: Ticket = reply.params().map_err(|error| error.to_string())?;
        Ok(ticket.file_id)
    }

    /// A file is sent, or, of a flood, its beginning.
    async fn transfer(&mut self) -> Result<(), String> {
        let id = self.ticket().await?;
        let length = if self.is_hostile() { 100_000 } else { 10 };
        let head =
            format!("POST /file/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = self.dial("http").await?;
        let _ = stream.write_all(&[head.as_bytes(), b"0123456789"].concat()).await;
        if self.is_hostile() {
            self.hold(stream);
            return Ok(());
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
        match &answer[9..] {
            b"200" => Ok(()),
            status => Err(format!("status {}", String::from_utf8_lossy(status))),
        }
    }

    /// A session that is kept, whose client goes.
    async fn leave_a_reader(&mut self) -> Result<(), String> {
        let token = format!("the-token-of-{}", self.who);
        let id = format!("{}-reader-{}", self.key, self.number);
        let connect = Connect::login(client::Version::V5, &id, &self.key, &token);
        // It ends after a thousand seconds.
        let connect = connect.properties(&[0x11, 0, 0, 0x03, 0xe8]);
        let mut wire = Wire::open(&self.server, client::Version::V5).await;
        wire.send(&connect.frame()).await;
        answer_of(&mut wire, 0x20).await?;
        let frame = support::mqtt::frame(0x82, &[&[0, 1, 0], &text("told/#"), &[0]]);
        wire.send(&frame).await;
        answer_of(&mut wire, 0x90).await.and_then(|ack| refused_from(ack.last().copied()))
    }

    /// So many messages for whoever has subscribed, of which the last is acknowledged.
    async fn tell(&mut self, count: usize) -> Result<(), String> {
        let topic = format!("told/{}", self.key);
        let wire = self.plain().await;
        let frames = wire.publish(0x30, 0, &topic, "told").repeat(count - 1);
        wire.send(&[frames, wire.publish(0x32, 1, &topic, "told")].concat()).await;
        answer_of(wire, 0x40).await.and_then(|ack| refused_from(ack.get(4).copied()))
    }

    /// A connection for ordinary topics.
    async fn plain(&mut self) -> &mut Wire {
        if self.wire.is_none() {
            let token = format!("the-token-of-{}", self.who);
            let mut connect = Connect::login(client::Version::V5, &self.key, &self.key, &token);
            connect.keep_alive_s = 0;
            let mut wire = Wire::open(&self.server, client::Version::V5).await;
            wire.send(&connect.frame()).await;
            // What it says shows with the next packet.
            wire.connack = wire.frame().await.unwrap_or_default();
            self.wire = Some(wire);
        }
        self.wire.as_mut().expect("just made")
    }

    async fn retain(&mut self) -> Result<(), String> {
        let topic = format!("{}/{}", self.key, self.number);
        let wire = self.plain().await;
        let publish = wire.publish(0x33, 1, &topic, "kept");
        wire.send(&publish).await;
        answer_of(wire, 0x40).await.and_then(|ack| refused_from(ack.get(4).copied()))
    }

    async fn subscribe(&mut self) -> Result<(), String> {
        let filter = text(format!("{}/{}", self.key, self.number));
        let wire = self.plain().await;
        let frame = support::mqtt::frame(0x82, &[&[0, 1, 0], &filter, &[0]]);
        wire.send(&frame).await;
        answer_of(wire, 0x90).await.and_then(|ack| refused_from(ack.last().copied()))
    }

    /// A mail for a thing that does not fetch it.
    async fn mail(&mut self, wait_s: u32) -> Result<(), String> {
        let sink = format!("{}-{SINK}", self.who);
        let params =
            format!(r#"{{"thingKey":"{sink}","method":"m","ackTimeout":{wait_s},"ttl":60}}"#);
        if self.number == 1 {
            self.login("tcp", &sink).await?.close().await;
        }
        match self.call("method.exec", &params).await {
            Err(why) if wait_s > 0 && why.contains("answer") => Ok(()),
            done => done,
        }
    }

    /// As many callers as a connection may have at once, whose answers are read later.
    async fn wait_for_many(&mut self) -> Result<(), String> {
        self.login("tcp", &format!("{}-{SINK}", self.who)).await?.close().await;
        let sink = format!("{}-{SINK}", self.who);
        let request = format!(
            r#"{{"1":{{"command":"method.exec","params":{{"thingKey":"{sink}","method":"m","ackTimeout":30}}}}}}"#
        );
        let wire = self.plain().await;
        for number in 0..100 {
            let publish = wire.publish(0x30, 0, &format!("api/{number}"), &request);
            wire.send(&publish).await;
        }
        let said = tokio::time::timeout(Duration::from_secs(1), wire.frame()).await;
        match said {
            Ok(None) => Err("closed".to_owned()),
            _ => Ok(()),
        }
    }

    async fn ask_for_a_hundred(&mut self) -> Result<(), String> {
        let one =
            |number| format!(r#""{number}":{{"command":"thing.list","params":{{"limit":50}}}}"#);
        let request = format!("{{{}}}", (0..100).map(one).collect::<Vec<_>>().join(","));
        self.ask("api/1", request.as_bytes()).await
    }

    async fn ask_compressed(&mut self) -> Result<(), String> {
        const ASK: &str = r#"{"1":{"command":"thing.list","params":{"limit":2000}}}"#;
        let mut request = ZlibEncoder::new(Vec::new(), Compression::fast());
        let written = request.write_all(ASK.as_bytes()).and_then(|()| request.finish());
        self.ask("apiz/1", &written.map_err(|error| error.to_string())?).await
    }

    /// Sends a request and reads what is answered.
    async fn ask(&mut self, topic: &str, request: &[u8]) -> Result<(), String> {
        let wire = self.plain().await;
        let publish = support::mqtt::frame(0x30, &[&text(topic), &[0], request]);
        wire.send(&publish).await;
        answer_of(wire, 0x30).await.map(drop)
    }

    async fn ask_and_not_read(&mut self) -> Result<(), String> {
        const ASK: &str = r#"{"1":{"command":"thing.list","params":{"limit":2000}}}"#;
        let token = format!("the-token-of-{}", self.who);
        let key = format!("{}-{}", self.key, self.number);
        let connect = Connect::login(client::Version::V311, &key, &key, &token);
        let mut stream = self.dial("mqtt").await?;
        let asks = support::mqtt::frame(0x30, &[&text("api/1"), ASK.as_bytes()]).repeat(200);
        let sent = stream.write_all(&[connect.frame(), asks].concat()).await;
        self.hold(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
        sent.map_err(|error| error.to_string())
    }
}

type Login = Result<Client, String>;

async fn open(url: Url, source: IpAddr) -> Login {
    let options = Options { source: Some(source), ..Options::default() };
    let target = Target::resolve(&url).await.map_err(|error| error.to_string())?;
    Client::connect_to(&target, &url, &options).await.map_err(|error| error.to_string())
}

/// The next packet of this type.
async fn answer_of(wire: &mut Wire, kind: u8) -> Result<Vec<u8>, String> {
    loop {
        match wire.frame().await {
            Some(frame) if frame.first() == Some(&kind) => return Ok(frame),
            Some(frame) if frame.first() == Some(&0xe0) => {
                return Err(format!("DISCONNECT {:02x?}", frame.get(2)));
            }
            Some(_) => {}
            None => return Err("closed".to_owned()),
        }
    }
}

/// A reason code of MQTT 5, or none.
fn refused_from(code: Option<u8>) -> Result<(), String> {
    match code {
        Some(code) if code >= 0x80 => Err(format!("reason code {code:#04x}")),
        _ => Ok(()),
    }
}
