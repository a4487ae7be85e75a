//! TLS 1.3 beside mosquitto with TLS: what a CONNECT costs, an echo, and what others see of peers
//! that begin handshakes and do nothing more, or begin one after the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mqtt::QoS;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::broker::{Broker, Client, PAYLOAD};
use super::echo::talk;
use super::pings::Pings;
use super::process::Server;
use super::round_trips::talk_with;
use super::table::{Figure, Goal, Row, Unit};
use super::{Bench, Result};

/// Handshakes of one figure, at least; one takes about a millisecond.
const CONNECTS_MIN: usize = 20;

/// Handshakes of one figure for each second of a step.
const CONNECTS_PER_S: f64 = 500.0;

/// Connections whose handshake begins and does not go on.
const STALLED: usize = 1000;

/// Clients that begin a handshake again as soon as the last one is over.
const STORMING: usize = 8;

/// The record of a handshake that announces more than follows.
const HALF_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01];

/// A key and a certificate for loopback, in files.
pub(crate) struct Pair {
    /// The certificate, in PEM form.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// Makes a pair in this folder.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let pair = Self { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&pair.cert, made.cert.pem())?;
        std::fs::write(&pair.key, made.signing_key.serialize_pem())?;
        Ok(pair)
    }

    /// The handshakes of clients that connect again and again. Brokers and servers are given copies:
    /// these last as long as the program.
    pub(crate) fn handshakes(&self) -> Result<&'static Handshakes> {
        self.handshakes_that(true)
    }

    fn handshakes_that(&self, resume: bool) -> Result<&'static Handshakes> {
        Ok(Box::leak(Box::new(Handshakes::new(&self.cert, resume)?)))
    }
}

/// How a client does its handshakes.
pub(crate) struct Handshakes {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Handshakes {
    /// Handshakes in TLS 1.3 with a server that has this certificate: each resumes an earlier
    /// connection, or all are full.
    fn new(cert: &Path, resumed: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(cert)?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        if !resumed {
            config.resumption = Resumption::disabled();
        }
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Connects, and does the handshake.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }
}

/// The rows, measured.
pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let cost = |what| Row::new(what, Unit::Micros, Goal::PeerTimes(1.5));
    let mut full = cost("CPU of one CONNECT over TLS 1.3, full handshake");
    let mut resumed = cost("the same, resumed");
    let echo = "MQTT echo of 60 bytes over TLS 1.3, QoS 0, w=1, round trips a core";
    let mut echo = Row::new(echo, Unit::Count, Goal::TimesPeer(1.5));
    let pair = Pair::make(&bench.folder()?)?;
    for _ in 0..bench.rounds {
        let ours = Server::ours_with_tls(bench, &pair)?;
        measure(bench, &ours, &pair, [&mut full, &mut resumed, &mut echo], |row| &mut row.ours)
            .await?;
        drop(ours);
        let Some(peer) = Server::mosquitto_with_tls(bench, &pair).await? else { continue };
        measure(bench, &peer, &pair, [&mut full, &mut resumed, &mut echo], |row| &mut row.peer)
            .await?;
    }
    Ok(vec![full, resumed, echo])
}

/// The rows of what others see, measured: by the clock, so the servers have all cores, as in use.
pub(crate) async fn others(bench: &Bench) -> Result<Vec<Row>> {
    let times = |what: String| Row::new(what, Unit::Times, Goal::AtMost(2.0));
    let others = "p99 of an MQTT echo over TLS while";
    let mut stalled =
        times(format!("{others} {STALLED} handshakes are stalled, beside just before"));
    let mut storm = times(format!("{others} {STORMING} clients do handshakes without end"));
    let pair = Pair::make(&bench.folder()?)?;
    for _ in 0..bench.rounds {
        if let Some(peer) = Server::mosquitto_with_tls(bench, &pair).await? {
            let figures = disturb(bench, &peer, &pair).await?;
            [&mut stalled, &mut storm].into_iter().zip(figures).for_each(|(r, f)| r.peer.push(f));
        }
        let ours = Server::ours_with_tls(bench, &pair)?;
        let figures = disturb(bench, &ours, &pair).await?;
        [&mut stalled, &mut storm].into_iter().zip(figures).for_each(|(r, f)| r.ours.push(f));
    }
    Ok(vec![stalled, storm])
}

/// What CONNECTs and echoes cost a server.
async fn measure(
    bench: &Bench,
    server: &Server,
    pair: &Pair,
    [full, resumed, echo]: [&mut Row; 3],
    figures: impl Fn(&mut Row) -> &mut Vec<Figure>,
) -> Result<()> {
    for (row, resumes) in [(full, false), (resumed, true)] {
        let broker = Broker { tls: Some(pair.handshakes_that(resumes)?), ..server.broker()? };
        figures(row).push(connects(bench, server, broker).await?);
    }
    let talk = talk(QoS::AtMostOnce, 1, PAYLOAD);
    figures(echo).push(talk_with(bench, server, &talk).await?);
    Ok(())
}

/// The CPU of a CONNECT, from the first byte of the connection to its end.
async fn connects(bench: &Bench, server: &Server, broker: Broker) -> Result<Figure> {
    // The first one brings the ticket that the others resume with.
    Client::connect(broker, "first").await?.leave().await?;
    let count = CONNECTS_MIN.max((bench.step.as_secs_f64() * CONNECTS_PER_S) as usize);
    let before = server.cpu()?;
    for number in 0..count {
        let client = Client::connect(broker, &format!("connecting-{number}")).await?;
        client.leave().await?;
    }
    let used = server.cpu()? - before;
    Ok((used.as_secs_f64() * 1e6 / count as f64).into())
}

/// What others see while handshakes are stalled, and while there is a storm of them.
async fn disturb(bench: &Bench, server: &Server, pair: &Pair) -> Result<[Figure; 2]> {
    let broker = server.broker()?;
    let echoes = Pings::start_echoes(broker).await?;
    // The first ones open what is opened once.
    sleep(bench.settling()).await;
    let quiet = Instant::now();
    sleep(bench.step).await;
    let begin_stalled = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut stream = TcpStream::connect(broker.address).await?;
        stream.write_all(HALF_HELLO).await?;
        stalled.push(stream);
    }
    sleep(bench.step).await;
    let end_stalled = Instant::now();
    drop(stalled);
    sleep(bench.settling()).await;
    let begin_storm = Instant::now();
    let mut storm = JoinSet::new();
    for _ in 0..STORMING {
        let (handshakes, address) = (Handshakes::new(&pair.cert, false)?, broker.address);
        storm.spawn(async move {
            loop {
                // One that is refused is not what is measured; the next follows at once.
                if handshakes.connect(address).await.is_err() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    sleep(bench.step).await;
    let end = Instant::now();
    drop(storm);
    // For answers that are late.
    sleep(bench.settling()).await;
    let echoed = echoes.stop().await?;
    let p99_ms = |from, until| echoed.p99_ms(from, until).ok_or("no echo in the span");
    let quiet_ms = p99_ms(quiet, begin_stalled)?;
    let times = |from, until| {
        let ms = p99_ms(from, until)?;
        let beside = format!("{ms:.2} ms; {quiet_ms:.2} ms before");
        Ok::<_, &str>(Figure { value: ms / quiet_ms, beside })
    };
    Ok([times(begin_stalled, end_stalled)?, times(begin_storm, end)?])
}
