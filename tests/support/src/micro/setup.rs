//! A server without sockets: organisations, sessions in them, and one device that asks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use base::{ConnInfo, Protocol, SessionId, ThingId, ThingKey, Timestamp};
use rules::directory::{Outbox, Session, Start, Who};
use store::{Batch, Change, Room, Row, Store, StoreError, Table, memory::MemoryStore};
use tokio::runtime::{Builder, Runtime};
use tr50d::app::{App, Arrival, Credentials};
use tr50d::config::Config;
use tr50d::edge::mqtt::MqttServer;
use tr50d::things::registry::{Alias, Thing};
use tr50d::tr50::commands::COMMANDS;
use tr50d::tr50::dispatch::Caller;
use tr50d::tr50::exchange;

/// When everything happens: nothing here looks at a clock.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);

/// What the token of the administrator begins with.
const DESK: &str = "the-token-of-the-desk";

/// The thing key of the device that asks.
const ASKING: &str = "device-0";

/// The organisations of a setup.
const ORGS: usize = 200;

/// One session in so many is in the organisation of the device that asks, so that of 100,000 it
/// sees 5,000, which is the longest list that a reply may hold.
const HOME_SHARE: usize = 20;

/// A server with sessions, and a device that asks.
pub struct Setup {
    /// The server.
    pub app: Arc<App>,
    /// Its edge for MQTT.
    pub server: Arc<MqttServer>,
    /// What waits for it.
    pub runtime: Runtime,
    caller: Caller,
}

impl Setup {
    /// A server with so many sessions beside the caller's, in 200 organisations.
    pub fn with_sessions(count: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let app = Arc::new(app());
        let mut logins = (0..ORGS).map(|org| runtime.block_on(login(&app, org, ASKING)));
        let home = logins.next().expect("there are organisations");
        let others: Vec<_> = logins.collect();
        for number in 0..count {
            let like = match number % HOME_SHARE {
                0 => &home,
                _ => &others[number % others.len()],
            };
            start_like(&app, like, number);
        }
        let conn = *home.conn();
        let caller = Caller::new(Some(home), conn);
        let entered = runtime.enter();
        let server = Arc::new(MqttServer::new(app.clone()));
        drop(entered);
        Self { app, server, runtime, caller }
    }

    /// A server with so many things in one organisation, each second of which is connected, and an
    /// application there that may do everything.
    pub fn with_things(count: usize) -> Self {
        let mut setup = Self::with_sessions(0);
        let token = format!("{DESK}-of-org-0");
        let desk = setup.runtime.block_on(login_with(&setup.app, token, 0, ASKING));
        let like = setup.caller.session.take().expect("it has logged in");
        setup.caller = Caller::new(Some(desk), *like.conn());
        for number in 0..count {
            let key = ThingKey::parse(&format!("mower-{number}")).expect("a key");
            let mut id = [1; 12];
            id[4..].copy_from_slice(&(number as u64).to_be_bytes());
            let mut thing = Thing::new(ThingId::from_bytes(id), like.org_id(), key, "AUTOREG", NOW);
            thing.name = format!("Mower {number} of site {}", number % 100);
            thing.aliases.insert(Alias::Imei, format!("{}", 356_938_000_000_000 + number));
            thing.tags = vec![format!("site-{}", number % 100)];
            drop(setup.app.things.create(&thing).expect("room"));
            while setup.app.store_queue() >= 1000 {
                std::thread::yield_now();
            }
            if number % 2 == 0 {
                start_like(&setup.app, &like, number);
            }
        }
        setup
    }

    /// Answers a request of the device as its MQTT connection would: `out` has the reply.
    pub fn answer(&self, request: &str, out: &mut Vec<u8>) {
        out.clear();
        let payload = request.as_bytes();
        let pending = exchange::on_connection(&self.app, &self.caller, payload, true, NOW, out);
        if let Some(pending) = pending {
            self.runtime.block_on(pending).send(|text| out.extend_from_slice(&text));
        }
    }

    /// The reply to what any bytes ask in the device's session, if no device has to be waited for.
    pub fn reply(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let pending =
            exchange::on_connection(&self.app, &self.caller, payload, false, NOW, &mut out);
        if let Some(pending) = pending {
            self.runtime.block_on(pending).send(|text| out.extend_from_slice(&text));
        }
        out
    }

    /// The session of the device that asks.
    pub fn session(&self) -> &Session {
        self.caller.session.as_ref().expect("it has logged in")
    }

    /// Ends every session that nobody uses for as long as one may stay idle.
    pub fn expire(&self) {
        let late = NOW.plus_seconds(2 * self.app.config.sessions.ttl_s);
        self.runtime.block_on(self.app.expire(late));
        assert!(self.app.directory().is_empty(), "all were due");
    }
}

/// A server as it starts, in memory, with the organisations and their tokens.
fn app() -> App {
    let mut config = Config::default();
    // Counted, and never reached.
    config.limits.commands_per_s = u32::MAX;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bootstrap().as_bytes()).expect("room for it");
    config.server.bootstrap = Some(file.path().into());
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let store = Arc::new(NoPoints::default());
    App::open(config, store, &names, Some(Arc::new(NOW))).expect("the bootstrap file is right")
}

/// The organisations, their tokens, and the demo's role of devices.
fn bootstrap() -> String {
    let mut text = String::new();
    for org in 0..ORGS {
        let parent = if org == 0 { "" } else { "parent = \"ORG-0\"\n" };
        write!(
            text,
            "[[org]]\nid = \"{org:024x}\"\nkey = \"ORG-{org}\"\nslug = \"org-{org}\"\n{parent}\
             [[application]]\nid = \"a{org:023x}\"\nname = \"mower\"\norg = \"ORG-{org}\"\n\
             token = \"the-token-of-org-{org}\"\ntoken_id = \"b{org:023x}\"\ntoken_name = \"fleet\"\n\
             roles = [\"device\"]\nauto_register = true\n"
        )
        .expect("a string takes it");
    }
    write!(
        text,
        "[[application]]\nname = \"desk\"\norg = \"ORG-0\"\ntoken = \"{DESK}-of-org-0\"\n\
         token_name = \"desk\"\nauto_register = true\norg_admin = true\n"
    )
    .expect("a string takes it");
    let demo: toml::Table = crate::bootstrap::DEMO.parse().expect("the demo");
    let role = demo["role"].as_array().and_then(|roles| roles.first()).expect("it has one role");
    let mut role = role.as_table().expect("a table").clone();
    role.insert("org".to_owned(), "ORG-0".into());
    text + "[[role]]\n" + &role.to_string()
}

/// Logs a device in over MQTT.
async fn login(app: &App, org: usize, thing_key: &str) -> Arc<Session> {
    login_with(app, format!("the-token-of-org-{org}"), org, thing_key).await
}

async fn login_with(app: &App, token: String, org: usize, thing_key: &str) -> Arc<Session> {
    let thing_key = thing_key.into();
    let credentials = Credentials::Application { thing_key, token, app_id: String::new() };
    let arrival = Arrival {
        conn: conn(org),
        client_id: "device-cloud".into(),
        takes_over: true,
        has_place: false,
        link: rules::directory::Link::default(),
        outbox: nowhere(),
    };
    app.login_bound(credentials, arrival, NOW).await.expect("the token is right").0
}

/// Starts the session of another device, as its login would.
fn start_like(app: &App, like: &Session, number: usize) {
    let Who::Application { application, .. } = like.who() else {
        unreachable!("devices are applications")
    };
    let mut id = [0; 12];
    id[4..].copy_from_slice(&(number as u64).to_be_bytes());
    let start = Start {
        id: SessionId::from_random(id),
        token: None,
        who: Who::Application {
            application: application.clone(),
            thing_id: ThingId::from_bytes(id),
            thing_key: ThingKey::parse(&format!("mower-{number}")).expect("a key"),
        },
        client_id: "device-cloud".into(),
        // Logins of one application share theirs.
        access: like.access(),
        conn: conn(number),
        link: rules::directory::Link::default(),
        user_agent: None,
        definition: None,
        lifetime: like.lifetime(),
        outbox: Some(nowhere()),
    };
    // A hundred start in the same millisecond.
    let now = NOW.plus_millis(number as i64 / 100);
    assert!(app.start(start, true, now).is_ok(), "there is room");
    // The writer's queue is shorter.
    while app.store_queue() >= 1000 {
        std::thread::yield_now();
    }
}

/// Where a device connects from.
pub(crate) fn conn(number: usize) -> ConnInfo {
    let ip = Ipv4Addr::from(0x0a00_0000 + number as u32);
    let remote_addr = SocketAddr::new(IpAddr::V4(ip), 50_000);
    ConnInfo::new(Protocol::Mqtt, remote_addr)
}

/// A connection that nothing is sent to.
fn nowhere() -> Arc<Outbox> {
    Arc::new(Outbox::new(false))
}

/// A store in memory that drops the points of telemetry: a bench makes them for seconds.
#[derive(Default)]
struct NoPoints(MemoryStore);

impl Store for NoPoints {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.0.scan(table, from, to, limit)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.0.scan_back(table, from, to, limit)
    }

    fn months(&self) -> Vec<Table> {
        self.0.months()
    }

    fn drop_month(&self, partition: Table) -> Result<(), StoreError> {
        self.0.drop_month(partition)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let point = |change: &&Change| matches!(change, Change::Put(Table::Telemetry(_), ..));
        let kept = |batch: &Batch| Batch(batch.0.iter().filter(|c| !point(c)).cloned().collect());
        self.0.commit(&batches.iter().map(kept).collect::<Vec<_>>())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }

    fn room(&self) -> &Arc<Room> {
        self.0.room()
    }
}
