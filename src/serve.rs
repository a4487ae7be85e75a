//! The server: start order, listeners, graceful stop.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::pool::Pool;
use base::{
    ConnInfo, ConnectionId, Door, Failure, Protocol, TimeSource, Timestamp, Tls as TlsVersion,
    limits,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use store::{Condition, StoreError, disk, disk::DiskStore};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{
    App, Asker, Cores, Counted, Following, Form, Lease, LoginCause, LoginFrom, OpenError, Part,
    Payer, SharedAccount, Shown, address_full,
};
use crate::backup::{self, BackupError};
use crate::config::{Config, ConfigError, Tls};
use crate::control::Control;
use crate::descriptors::Shares;
use crate::dialects::{cognite, console, credentials, element};
use crate::edge::http::traced::Exchange;
use crate::edge::http::{self, Dialect, EventsRefusal, HttpConfig, HttpService};
use crate::edge::mqtt::{self, MqttServer};
use crate::edge::tls::{self, TlsError};
use crate::edge::wrong_door::{self, Met};
use crate::edge::{Stream, proxy, tcp};
use crate::logging::PeerLog;
use crate::openapi;
use crate::peer_log;
use crate::things::files::Files;
use crate::things::files::transfer::Stored;
use crate::tr50::commands::COMMANDS;
use crate::tr50::exchange;
use crate::tr50::over_http::{self, Answered, Claims, Given};
use crate::tr50::sse::Asked;
use crate::watched_log;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address can't be listened on.
    #[error("can't listen on {address} ({key}): {source}")]
    Listen {
        /// The configuration's key.
        key: String,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The data directory can't be made.
    #[error("can't make the data directory {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store, the files or the records in it can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A restore was not finished.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The control socket can't be made.
    #[error("can't make the control socket in {}: {source}", path.display())]
    Control {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A listener: what it speaks, and whether over TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    /// The protocol of its connections.
    pub protocol: Protocol,
    /// Whom it is for.
    pub door: Door,
    /// The address that it really has.
    pub address: SocketAddr,
}

impl Listening {
    /// Its name on standard output.
    pub const fn name(&self) -> &'static str {
        match self.door {
            Door::Usual => self.protocol.as_str(),
            Door::Admin => "admin",
            Door::Metrics => "metrics",
            Door::Control => "control",
        }
    }
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    housekeeping: JoinHandle<()>,
    started: Instant,
}

/// What every connection needs.
struct Shared {
    app: Arc<App>,
    mqtt: Arc<MqttServer>,
    tls: Option<tls::Acceptor>,
    http: Arc<HttpConfig>,
    windows: Arc<console::Windows>,
    connections_max: usize,
    beyond: usize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// For which address a connection counts: for none if that is a proxy, which speaks for many, or
    /// it came to the listener of administrators.
    fn counted(&self, peer: SocketAddr, door: Door) -> Option<Counted> {
        let counts = door != Door::Admin && !self.http.trusted.contains(peer.ip());
        counts.then(|| Counted::from(peer.ip()))
    }

    /// The limits of all together that are reached.
    fn reached_limits(&self) -> Vec<String> {
        let limits = &self.app.config.limits;
        let mqtt_sessions = self.app.pools.usage(Pool::MqttSessions).used();
        let reached = [
            ("limits.connections", self.app.connections.open(), self.connections_max),
            ("limits.sessions", self.app.directory().len(), limits.sessions),
            ("limits.broker_links", mqtt_sessions as usize, limits.broker_links),
            ("the store's queue", self.app.store_queue(), base::limits::STORE_QUEUE_MAX),
        ];
        let reached = reached.into_iter().filter(|(_, count, max)| count >= max);
        reached.map(|(name, count, _)| format!("{name} ({count})")).collect()
    }
}

impl Server {
    /// Starts everything or nothing: listeners are bound before the store is touched, and take
    /// connections when all is ready.
    ///
    /// # Errors
    ///
    /// Whatever is in the way, in one sentence.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_by(config, None).await
    }

    /// The same, by a clock of its own.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_by(
        config: Config,
        clock: Option<Arc<dyn TimeSource>>,
    ) -> Result<Self, StartError> {
        let start = Instant::now();
        config.check_exposure()?;
        let wants_tls = [&config.mqtt.tls_listen, &config.tcp.tls_listen, &config.http.tls_listen];
        let tls = match wants_tls.iter().any(|address| address.is_some()) {
            true => Some(tls::Acceptor::new(&config.tls)?),
            false => None,
        };
        let listeners = bind(&config)?;
        let (app, store, control) = open(config, clock)?;
        let app = app.share();
        let config = &app.config;
        let shares = Shares::of_process(config.limits.connections);
        shares.make_table();
        app.files.set_transfers_max(shares.transfers);
        app.connections.set_max(shares.connections);
        app.metrics.limits(shares.connections, config.limits.sessions);
        let http = Arc::new(HttpConfig {
            body_bytes_max: config.limits.max_frame_bytes,
            trusted: config.proxy.trusted.clone(),
            cors_origins: config.http.cors_origins.clone(),
            has_metrics_listener: config.metrics.listen.is_some(),
        });
        note_expiry(&app, tls.is_some().then_some(&config.tls));
        let shared = Arc::new(Shared {
            windows: Arc::default(),
            mqtt: Arc::new(MqttServer::new(app.clone())),
            app,
            tls,
            http,
            connections_max: shares.connections,
            beyond: shares.beyond,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let listening: Vec<_> = listeners.iter().map(|(_, listening)| *listening).collect();
        for (listener, listening) in listeners {
            shared.tasks.spawn(accept(
                shared.clone(),
                listener,
                listening.protocol,
                listening.door,
            ));
        }
        let (app, stop) = (shared.app.clone(), shared.stop.clone());
        shared.tasks.spawn(control.serve(app, store, stop, shared.tasks.clone()));
        let broker = shared.app.broker.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = broker.count_stored() {
                store::report(&error, "what is kept for MQTT clients was not counted");
            }
        });
        let (cores, stop) = (shared.app.cores.clone(), shared.stop.clone());
        shared.tasks.spawn(async move { stop.run_until_cancelled(cores.watch()).await });
        let (app, stop) = (shared.app.clone(), shared.stop.clone());
        shared.tasks.spawn(async move { stop.run_until_cancelled(note_seconds(app)).await });
        let (app, stop) = (shared.app.clone(), shared.stop.clone());
        shared.tasks.spawn(async move { stop.run_until_cancelled(app.publish_events()).await });
        let (app, stop) = (shared.app.clone(), shared.stop.clone());
        shared.tasks.spawn(async move { stop.run_until_cancelled(app.run_webhooks()).await });
        let housekeeping = tokio::spawn(housekeeping(shared.clone()));
        log_ready(&shared, &listening, start.elapsed());
        Ok(Self { shared, listening, housekeeping, started: start })
    }

    /// The listeners, with the addresses that they really have.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Has new connections get what the files of `[tls]` hold now; those that are open go on as
    /// they are. Without TLS listeners it does nothing.
    ///
    /// # Errors
    ///
    /// The files can't be used: what was in use stays.
    pub fn reload_tls(&self, tls: &Tls) -> Result<(), TlsError> {
        let Some(acceptor) = &self.shared.tls else { return Ok(()) };
        acceptor.replace(tls)?;
        note_expiry(&self.shared.app, Some(tls));
        Ok(())
    }

    /// The directory and the rest, for those who embed the server.
    pub fn app(&self) -> &Arc<App> {
        &self.shared.app
    }

    /// Serves MQTT on a stream that whoever embeds the server has made. Such streams do not count
    /// for `limits.connections`: they need no file descriptor.
    pub fn serve_mqtt(&self, stream: Stream, info: ConnInfo) {
        let shared = &self.shared;
        let open = shared.app.metrics.connection_opened(info.protocol);
        let served = mqtt::serve(shared.mqtt.clone(), stream, info, false, shared.stop.clone());
        shared.tasks.spawn(async move {
            served.await;
            drop(open);
        });
    }

    /// Waits until the store is lost, so that only a new process can help; why it is.
    pub async fn lost(&self) -> String {
        let mut condition = self.shared.app.store_room().watch();
        let lost = condition.wait_for(|condition| matches!(condition, Condition::Lost(_))).await;
        match lost.map(|condition| condition.to_string()) {
            Ok(why) => why,
            // The server has it for as long as it runs.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops in order: no new connections, answers in flight go out, sessions that are bound to
    /// connections end, state is on disk; whether all of it is.
    pub async fn stop(self) -> bool {
        let Shared { app, stop, tasks, .. } = &*self.shared;
        let start = Instant::now();
        tracing::info!(
            connections = app.connections.open(),
            sessions = app.directory().len(),
            store_queue = app.store_queue(),
            seconds = self.started.elapsed().as_secs(),
            "stopping"
        );
        stop.cancel();
        app.mailbox.stop_calls();
        app.end_bound(app.clock.now());
        tasks.close();
        if tokio::time::timeout(limits::STOP_WAIT, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "some connections did not end in time");
        }
        self.housekeeping.abort();
        app.log_session_counts();
        let stored = app.stop().await;
        let ms = start.elapsed().as_millis() as u64;
        tracing::info!(ms, stored, "stopped");
        stored
    }
}

/// Logs where the server listens, and with what it begins.
fn log_ready(shared: &Shared, listening: &[Listening], after: Duration) {
    for one in listening {
        let (listener, address) = (one.name(), one.address);
        tracing::info!(listener, %address, "listening");
    }
    let app = &shared.app;
    tracing::info!(
        ms = after.as_millis() as u64,
        connections_max = shared.connections_max,
        sessions = app.directory().len(),
        organisations = app.identity().orgs().len(),
        "ready"
    );
}

/// Counts and says when the certificate ends, if the server has one.
fn note_expiry(app: &App, tls: Option<&Tls>) {
    let Some(tls) = tls else { return };
    if let Some(end) = tls::expiry(tls) {
        app.metrics.certificate_ends(end);
    }
    if let Some(warning) = tls::expiry_warning(tls, app.clock.shown(app.clock.now())) {
        tracing::warn!("{warning}");
    }
}

/// All that a data directory has: the rest is made of it.
type Opened = (App, Arc<DiskStore>, Control);

/// Opens the store, loads who there is, and recovers the sessions. A data directory that was made
/// for it goes again when that fails.
fn open(config: Config, clock: Option<Arc<dyn TimeSource>>) -> Result<Opened, StartError> {
    let data_dir = config.server.data_dir.clone();
    let missing: Vec<&Path> = data_dir.ancestors().take_while(|dir| !dir.exists()).collect();
    let min_free = config.server.min_free_bytes;
    let opened = open_store(&data_dir, min_free).and_then(|disk| {
        let opened = open_on(disk.clone(), &data_dir, config, clock);
        if opened.is_err() {
            close(disk);
        }
        opened
    });
    match &opened {
        // Made by this start and used by nobody else: the store's lock tells.
        Err(error)
            if !matches!(error, StartError::Open(OpenError::Store(StoreError::InUse(_)))) =>
        {
            unmake(&missing);
        }
        _ => {}
    }
    opened
}

/// Removes a directory with all that is in it, and those above it as far as they are empty then.
fn unmake(made: &[&Path]) {
    let Some((data_dir, above)) = made.split_first() else { return };
    // Whoever can't remove them could hardly make them; the start's own error is what counts.
    let _ = std::fs::remove_dir_all(data_dir);
    for dir in above {
        let _ = std::fs::remove_dir(dir);
    }
}

fn open_store(data_dir: &Path, min_free: Option<u64>) -> Result<Arc<DiskStore>, StartError> {
    let failed = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    // Hashes of passwords and the names of everybody are for this user only.
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    backup::check_restored(data_dir)?;
    disk::make_private(data_dir, &[backup::FILES]).map_err(OpenError::from)?;
    let start = Instant::now();
    let disk = DiskStore::open_kept(data_dir, min_free).map_err(OpenError::from)?;
    // Whoever is refused before gets one sentence and nothing else.
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "version");
    tracing::info!(ms = start.elapsed().as_millis() as u64, "store opened");
    Ok(Arc::new(disk))
}

/// Closes the store of a start that failed. The writer's thread lets go of it a little later than
/// all others, and the engine has to be done with its files before they are removed.
#[expect(clippy::disallowed_methods, reason = "the start has failed: nobody else waits for a turn")]
fn close(disk: Arc<DiskStore>) {
    for _ in 0..1000 {
        if Arc::strong_count(&disk) == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open_on(
    disk: Arc<DiskStore>,
    data_dir: &Path,
    config: Config,
    clock: Option<Arc<dyn TimeSource>>,
) -> Result<Opened, StartError> {
    let commands: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let app = App::open(config, disk.clone(), &commands, clock)?;
    let failed = |source| StartError::Control { path: data_dir.to_owned(), source };
    let control = Control::bind(data_dir).map_err(failed)?;
    Ok((app, disk, control))
}

fn bind(config: &Config) -> Result<Vec<(TcpListener, Listening)>, StartError> {
    let wanted = [
        (Protocol::Mqtt, Door::Usual, "mqtt.listen", config.mqtt.listen),
        (Protocol::Mqtts, Door::Usual, "mqtt.tls_listen", config.mqtt.tls_listen),
        (Protocol::Tcp, Door::Usual, "tcp.listen", config.tcp.listen),
        (Protocol::Tcps, Door::Usual, "tcp.tls_listen", config.tcp.tls_listen),
        (Protocol::Http, Door::Usual, "http.listen", config.http.listen),
        (Protocol::Https, Door::Usual, "http.tls_listen", config.http.tls_listen),
        (Protocol::Http, Door::Admin, "http.admin_listen", config.http.admin_listen),
        (Protocol::Http, Door::Metrics, "metrics.listen", config.metrics.listen),
    ];
    let mut listeners = Vec::new();
    for (protocol, door, key, address) in wanted {
        let Some(address) = address else { continue };
        let failed = |source| StartError::Listen { key: key.to_owned(), address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        listeners.push((listener, Listening { protocol, door, address }));
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

/// Takes connections until the server stops. Nothing is done here that waits for a peer.
async fn accept(shared: Arc<Shared>, listener: TcpListener, protocol: Protocol, door: Door) {
    static LOG: PeerLog = PeerLog::new(1);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: they come back when connections close.
                peer_log!(LOG, %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let stop = shared.stop.child_token();
        let Some(slot) = Slot::find(&shared, peer, door, &stop).await else {
            shared.app.metrics.connection_refused("full");
            continue;
        };
        shared.tasks.spawn(connection(slot, stop, stream, peer, (protocol, door)));
        // Of a crowd that comes at once, each behind what is ready by then.
        tokio::task::yield_now().await;
    }
}

/// A place among the open connections.
struct Slot {
    shared: Arc<Shared>,
    id: ConnectionId,
    /// The address for which it counts.
    address: Option<Counted>,
    /// Whether all that the peer gets is the word that there is no room.
    full: bool,
}

impl Slot {
    /// None if there are so many that nothing is said to this one. Those that were told to leave are
    /// waited for: they only have to be woken.
    async fn find(
        shared: &Arc<Shared>,
        peer: SocketAddr,
        door: Door,
        stop: &CancellationToken,
    ) -> Option<Self> {
        for _ in 0..limits::LEAVING_WAITS {
            let slot = Self::new(shared, peer, door, stop);
            if slot.is_some() || !shared.app.connections.are_leaving() {
                return slot;
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn new(
        shared: &Arc<Shared>,
        peer: SocketAddr,
        door: Door,
        stop: &CancellationToken,
    ) -> Option<Self> {
        // At the listener of administrators some get in when strangers have taken all that is kept
        // for them.
        let kept = if door == Door::Admin { limits::ADMIN_CONNECTIONS as usize } else { 0 };
        let places = (shared.connections_max, shared.beyond + kept);
        let from = shared.counted(peer, door);
        let (id, fits) = shared.app.connections.enter(places, from, stop);
        let slot = Self { shared: shared.clone(), id, address: None, full: false };
        fits.then_some(slot)
    }

    /// Counts the connection for its address.
    fn count_for(&mut self, peer: SocketAddr, door: Door) {
        let Shared { app, connections_max, .. } = &*self.shared;
        let Some(address) = self.shared.counted(peer, door) else { return };
        self.address = Some(address);
        // Nobody takes all.
        let most = connections_max - connections_max / 10;
        let max = app.config.limits.connections_per_address.min(most);
        if !app.connections.count_for(self.id, address, max) && !self.full {
            app.metrics.connection_refused("address");
            self.full = true;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.app.connections.leave(self.id, self.address);
    }
}

/// The version of TLS of a connection that has it.
fn tls_of(stream: &Stream) -> Option<TlsVersion> {
    let Stream::Tls(stream) = stream else { return None };
    match stream.get_ref().1.protocol_version()? {
        rustls::ProtocolVersion::TLSv1_2 => Some(TlsVersion::V12),
        rustls::ProtocolVersion::TLSv1_3 => Some(TlsVersion::V13),
        _ => None,
    }
}

/// Serves a connection. Whatever is here when the protocol is served is held by every idle
/// connection.
async fn connection(
    mut slot: Slot,
    stop: CancellationToken,
    stream: TcpStream,
    peer: SocketAddr,
    (protocol, door): (Protocol, Door),
) {
    // Without it, a small answer waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let _open = slot.shared.app.metrics.connection_opened(protocol);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let is_prepared = is_over_tls(protocol) || slot.shared.http.trusted.contains(peer.ip());
    let (stream, remote_addr, shown) = if is_prepared {
        // Boxed: most connections need no room for it, and none does afterwards.
        let prepared = Box::pin(prepare(&mut slot, &stop, stream, peer, (protocol, door)));
        match stop.run_until_cancelled(prepared).await {
            Some(Some(prepared)) => prepared,
            Some(None) | None => return,
        }
    } else {
        slot.count_for(peer, door);
        (Stream::Tcp(stream), peer, None)
    };
    let (shared, full) = (&slot.shared, slot.full);
    let certified = shown.is_some();
    let tls = tls_of(&stream);
    let info = ConnInfo { protocol, remote_addr, connection: slot.id, door, certified, tls };
    watched_log!(shared.app, None, &info, full, "a connection came");
    match protocol {
        Protocol::Tcp | Protocol::Tcps => {
            tcp::serve(shared.app.clone(), stream, info, full, stop).await;
        }
        Protocol::Http | Protocol::Https => {
            let config = shared.http.clone();
            let works = AtomicBool::new(false);
            let payer = Payer::stranger(&info);
            let account = SharedAccount::new(&shared.app.memory, payer, stop.clone());
            let kept = Mutex::new(account.part());
            let service = Web {
                shared: shared.clone(),
                full,
                connection: slot.id,
                address: slot.address,
                stop: stop.clone(),
                works,
                account,
                kept,
            };
            Box::pin(http::serve_connection(stream, info, Arc::new(service), config, stop)).await;
        }
        _ => mqtt::serve(shared.mqtt.clone(), stream, info, full, stop).await,
    }
}

const fn is_over_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Mqtts | Protocol::Tcps | Protocol::Https)
}

/// Finds the real peer behind a proxy, and does the TLS handshake.
async fn prepare(
    slot: &mut Slot,
    stop: &CancellationToken,
    mut stream: TcpStream,
    peer: SocketAddr,
    (protocol, door): (Protocol, Door),
) -> Option<(Stream, SocketAddr, Option<Box<Shown>>)> {
    static LOG: PeerLog = PeerLog::new(5);
    let shared = slot.shared.clone();
    let metrics = &shared.app.metrics;
    let peer = match proxy::real_peer(&mut stream, peer, &shared.http.trusted).await {
        Ok(peer) => peer,
        Err(error) => {
            metrics.connection_refused("proxy");
            peer_log!(LOG, %peer, %error, "a connection was refused");
            return None;
        }
    };
    slot.count_for(peer, door);
    let Some(acceptor) = shared.tls.as_ref().filter(|_| is_over_tls(protocol)) else {
        return Some((Stream::Tcp(stream), peer, None));
    };
    let info = ConnInfo::new(protocol, peer);
    if let Some(met) = met_without_tls(&stream).await {
        metrics.connection_refused("tls");
        wrong_door::log(&info, met);
        return None;
    }
    let account = SharedAccount::new(&shared.app.memory, Payer::stranger(&info), stop.clone());
    let mut half = account.part();
    half.set(limits::HANDSHAKE_BYTES_MAX);
    match acceptor.accept(stream, &info, &shared.app.cores).await {
        Ok(tls::Accepted { stream, client }) => {
            let certificates = &shared.app.certificates;
            let shown = match client {
                None => None,
                Some((login, names)) => Some(Box::new(certificates.note(slot.id, login, names)?)),
            };
            Some((stream, peer, shown))
        }
        Err(error) => {
            metrics.connection_refused("tls");
            peer_log!(LOG, %peer, %error, "a TLS handshake failed");
            None
        }
    }
}

/// What a peer speaks that does not begin with TLS. rustls would wait for five bytes, and could not
/// name it.
async fn met_without_tls(stream: &TcpStream) -> Option<Met> {
    let mut first = [0; 16];
    let count = tokio::time::timeout(limits::LOGIN_WAIT, stream.peek(&mut first)).await;
    let first = first.get(..count.ok()?.ok()?)?;
    Met::of(first).filter(|met| *met != Met::Tls)
}

/// What the HTTP edge needs of the server.
struct Web {
    shared: Arc<Shared>,
    full: bool,
    connection: ConnectionId,
    address: Option<Counted>,
    stop: CancellationToken,
    /// Whether somebody works on a request of this connection.
    works: AtomicBool,
    /// For what it holds.
    account: SharedAccount,
    /// HTTP's own buffer, of which it keeps what a long answer needed.
    kept: Mutex<Part>,
}

impl Web {
    fn now(&self) -> Timestamp {
        self.shared.app.clock.now()
    }

    /// Counts a request of which nothing was executed.
    fn refused(&self, failure: Failure, info: ConnInfo) -> Failure {
        self.shared.app.note_failure(None, &info, "", &failure, self.now());
        failure
    }
}

impl HttpService for Web {
    async fn tr50(&self, body: Bytes, claims: Claims, info: ConnInfo) -> Answered {
        if self.full {
            return Answered::refused(self.refused(address_full(), info));
        }
        over_http::request(&self.shared.app, &body, &claims, info, self.now()).await
    }

    async fn command(
        &self,
        command: &str,
        given: Given,
        claims: Claims,
        info: ConnInfo,
    ) -> Answered {
        if self.full {
            return Answered::refused(self.refused(address_full(), info));
        }
        let app = &self.shared.app;
        over_http::command(app, command, &given, &claims, info, self.now()).await
    }

    async fn log_in(&self, given: Given, from: LoginFrom) -> Result<String, Failure> {
        if self.full {
            self.shared.app.note_bad_login("", from.conn.into(), LoginCause::Full, self.now());
            return Err(self.refused(address_full(), from.conn));
        }
        let app = &self.shared.app;
        over_http::log_in(app, &given, from, app.clock.now()).await
    }

    async fn dialect(
        &self,
        dialect: Dialect,
        request: Request<Bytes>,
        info: ConnInfo,
    ) -> Response<Bytes> {
        let app = &self.shared.app;
        let now = app.clock.now();
        match dialect {
            Dialect::Cognite => {
                cognite::answer(app, request, info, self.full, openapi::document, now).await
            }
            Dialect::Element => element::answer(app, request, info, self.full, now).await,
            Dialect::Console => console::answer(app, request, info, self.full).await,
        }
    }

    fn refusal_page(&self, status: StatusCode) -> Response<Bytes> {
        console::refusal(&self.shared.app, status)
    }

    fn too_large(&self, info: ConnInfo) -> Failure {
        let max = self.shared.app.config.limits.max_frame_bytes;
        self.refused(exchange::too_large(max), info)
    }

    async fn mqtt(&self, stream: Stream, info: ConnInfo) {
        let (server, stop) = (self.shared.mqtt.clone(), self.stop.clone());
        mqtt::serve(server, stream, info, self.full, stop).await;
    }

    fn cores(&self) -> Option<&Arc<Cores>> {
        Some(&self.shared.app.cores)
    }

    fn lease(&self, network: IpAddr) -> Lease {
        self.shared.app.unauthenticated.lease(network)
    }

    fn count(&self, bytes: Bytes) -> Bytes {
        self.account.count(bytes)
    }

    fn part(&self) -> Option<Part> {
        Some(self.account.part())
    }

    fn keep(&self, bytes: usize) {
        self.kept.lock().raise(bytes);
    }

    fn working(&self, working: bool) {
        let connections = &self.shared.app.connections;
        match (working, self.works.swap(working, Ordering::Relaxed)) {
            (true, false) => {
                connections.begin(self.connection, self.stop.clone(), self.account.clone());
            }
            (false, true) => {
                let released = (self.connection, self.full);
                connections.release(released, self.address, self.stop.clone());
            }
            _ => {}
        }
    }

    async fn gzip(&self, text: Bytes, asker: Option<Asker>) -> Option<Bytes> {
        self.shared.app.gzip(text, asker).await
    }

    async fn may_read_metrics(&self, headers: &HeaderMap, info: ConnInfo) -> Result<bool, Failure> {
        match self.full {
            true => Ok(false),
            false => credentials::may_read_metrics(&self.shared.app, headers, info).await,
        }
    }

    async fn follow_events(
        &self,
        headers: &HeaderMap,
        session: Option<&str>,
        asked: Asked,
        info: ConnInfo,
    ) -> Result<Following, EventsRefusal> {
        if self.full {
            return Err(EventsRefusal::Full);
        }
        let app = &self.shared.app;
        let shown = session.or_else(|| console::session_id(headers, &info));
        let viewer = credentials::viewer(app, headers, shown, info).await;
        let viewer = viewer.ok_or(EventsRefusal::Stranger)?;
        let following = asked.follow(app, viewer, info, self.stop.clone()).await;
        following.map_err(EventsRefusal::Failure)
    }

    async fn watch(
        &self,
        headers: &HeaderMap,
        views: &[String],
        info: ConnInfo,
    ) -> Result<BoxStream<'static, Bytes>, EventsRefusal> {
        if self.full {
            return Err(EventsRefusal::Full);
        }
        let (app, windows) = (&self.shared.app, &self.shared.windows);
        let (stop, part) = (self.stop.clone(), self.account.part());
        let watching = console::Watching::begin(app, windows, headers, views, info, (stop, part));
        let watching = watching.await.map_err(EventsRefusal::Failure)?;
        let pieces =
            stream::unfold(watching, async |mut watching| Some((watching.next().await?, watching)));
        Ok(pieces.boxed())
    }

    async fn metrics(&self, form: Form) -> String {
        let app = self.shared.app.clone();
        // Not in turn with long commands: what is wrong when those wait is to be seen.
        let text = tokio::task::spawn_blocking(move || app.scrape(form)).await;
        // Only when the server ends meanwhile.
        text.unwrap_or_default()
    }

    fn recording(&self) -> Option<Timestamp> {
        let app = &self.shared.app;
        app.recorder.is_on().then(|| app.clock.shown(app.clock.now()))
    }

    fn record(&self, exchange: &Exchange) {
        exchange.record(&self.shared.app);
    }

    fn files(&self) -> Option<&Arc<Files>> {
        (!self.full).then_some(&self.shared.app.files)
    }

    fn file_stored(&self, stored: &Stored) {
        let app = &self.shared.app;
        app.note_stored(stored, app.clock.shown(app.clock.now()));
    }

    fn ready(&self) -> bool {
        !self.shared.stop.is_cancelled()
    }

    fn readiness(&self) -> Result<Vec<String>, String> {
        if !self.ready() {
            return Err("the server stops".into());
        }
        match self.shared.app.store_room().condition() {
            Condition::Good => Ok(self.shared.reached_limits()),
            condition => Err(condition.to_string()),
        }
    }
}

/// Keeps figures of each second, for `stats.series`.
async fn note_seconds(app: Arc<App>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.note_second();
        app.memory.look();
    }
}

/// What has to be done from time to time.
async fn housekeeping(shared: Arc<Shared>) {
    const TICK: Duration = Duration::from_millis(250);
    const COUNTERS_EVERY: u64 = 20;
    const SWEEP_EVERY: u64 = 4;
    const EXPIRE_EVERY_S: u64 = 3600;
    const PRUNE_EVERY: u64 = 20;
    const TIME_EVERY: u64 = 40;
    const LOG_EVERY: u64 = 4;
    const EVENTS_EVERY: u64 = 8;
    let (mut pruning, mut sweeping) = (None::<JoinHandle<()>>, None::<JoinHandle<()>>);
    let (mut keeping, mut expiring) = (None::<JoinHandle<()>>, None::<JoinHandle<()>>);
    let mut expire_at = shared.app.clock.now();
    let mut expire_events_at = expire_at;
    let mut released = (0, 0);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        let now = shared.app.clock.now();
        shared.app.look_at_clock();
        shared.app.expire(now).await;
        shared.app.expire_tokens(now);
        if let Err(error) = shared.app.expire_mail(now).await {
            store::report(&error, "mails did not expire");
        }
        release_memory(&shared.app, &mut released);
        if tick % SWEEP_EVERY == 0 && sweeping.as_ref().is_none_or(JoinHandle::is_finished) {
            let (app, expire) = (shared.app.clone(), now >= expire_at);
            if expire {
                expire_at = now.plus_seconds(EXPIRE_EVERY_S);
            }
            // A failure is in the log already.
            let sweep = async move { app.sweep_telemetry(expire, now).await.unwrap_or_default() };
            sweeping = Some(tokio::spawn(sweep));
        }
        if tick % EVENTS_EVERY == 0 && keeping.as_ref().is_none_or(JoinHandle::is_finished) {
            let (app, expire) = (shared.app.clone(), now >= expire_events_at);
            if expire {
                expire_events_at = now.plus_seconds(EXPIRE_EVERY_S);
            }
            keeping = Some(tokio::spawn(async move {
                app.keep_events(expire, now).await;
                app.keep_connections(expire, now).await;
            }));
        }
        if tick % PRUNE_EVERY == 0 && pruning.as_ref().is_none_or(JoinHandle::is_finished) {
            let app = shared.app.clone();
            pruning = Some(tokio::spawn(async move { app.prune_mail(now).await }));
        }
        shared.app.watched.prune(now);
        shared.app.tend_traces(now);
        if tick % LOG_EVERY == 0 {
            shared.app.log_session_counts();
        }
        if tick % TIME_EVERY == 0 {
            shared.app.store_time();
        }
        if tick % COUNTERS_EVERY == 0 {
            keep_files(&shared.app);
            if expiring.as_ref().is_none_or(JoinHandle::is_finished) {
                let app = shared.app.clone();
                expiring = Some(tokio::spawn(async move { app.expire_topics(now).await }));
            }
            if let Err(error) = shared.app.store_counters().await {
                store::report(&error, "the sessions' counters were not stored");
            }
        }
    }
}

/// Has the allocator give back to the system what connections do not hold any more: `last` is what
/// they held, and how often it is asked still. A thread of it looks at what was freed a second ago
/// with each ten-thousandth block that is not small; threads that have nothing to do never look.
fn release_memory(app: &App, last: &mut (u64, u32)) {
    const MUCH: u64 = 1024 * 1024;
    const BLOCK: usize = 2048;
    const BLOCKS: usize = 10_000;
    const TIMES: u32 = 8;
    let held = app.pools.usage(Pool::Memory).used();
    if held + MUCH < last.0 {
        last.1 = TIMES;
    }
    last.0 = held;
    if last.1 > 0 {
        last.1 -= 1;
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        for _ in 0..2 * threads {
            tokio::spawn(async {
                for _ in 0..BLOCKS {
                    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
                }
            });
        }
    }
}

/// Lets go what is over of files, on a thread that may wait for the disk.
fn keep_files(app: &Arc<App>) {
    let files = app.files.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = files.housekeeping(files.clock().now()) {
            store::report(&error, "files that are over were not removed");
        }
    });
}
