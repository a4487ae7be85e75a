//! Building an [`App`] from the store and the configuration.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use base::pool::{POOLS, Pools};
use base::{Clock, LastTime, TimeSource, Timestamp, chain, limits};
use dashmap::DashMap;
use parking_lot::Mutex;
use rules::directory::{DirectoryConfig, DirectoryWriter, Who};
use rules::identity::IdentityWriter;
use store::{DiskShares, Durability, Store, StoreError, Tables};
use tokio::runtime::Handle;

use super::connection_history::ConnectionHistory;
use super::connections::Connections;
use super::cores::Cores;
use super::happened::MethodEvents;
use super::large_replies::LargeReplies;
use super::login_rates::LoginRates;
use super::long_answers::LongAnswers;
use super::long_work::LongWork;
use super::memory::Memory;
use super::pace::Pace;
use super::passwords::Passwords;
use super::record_space::RecordSpace;
use super::recorder::Recorder;
use super::session_log::SessionLog;
use super::token_uses::TokenUses;
use super::turns::Turns;
use super::unauthenticated::Unauthenticated;
use super::viewer::EventReaders;
use super::watched::Watched;
use super::webhooks::Webhooks;
use super::{
    App, IdentityError, housekeeping, idle, journal, made_tokens, records, secret, taken_names,
    token_guesses,
};
use crate::broker::{Broker, BrokerConfig};
use crate::config::Config;
use crate::events::{Events, EventsConfig, EventsError};
use crate::metrics::Metrics;
use crate::things::feed::Feed;
use crate::things::files::transfer::TransferError;
use crate::things::files::{Files, FilesConfig};
use crate::things::mailbox::{Mailbox, MailboxConfig};
use crate::things::registry::Things;
use crate::things::stored_bytes::StoredBytes;
use crate::things::telemetry::Telemetry;

/// Why the parts can't be put together. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store can't be used.
    #[error("{}", chain(.0))]
    Store(#[from] StoreError),
    /// The organisations and users can't be loaded.
    #[error("{}", chain(.0))]
    Identity(#[from] IdentityError),
    /// The stream of events can't be opened.
    #[error("{}", chain(.0))]
    Events(#[from] EventsError),
    /// The files can't be put in order.
    #[error("can't put the stored files in order: {}", chain(.0))]
    Files(#[from] TransferError),
}

impl App {
    /// Loads who there is, recovers the sessions that survive a restart, and puts files and mails
    /// in order. `commands` are the names under which commands are counted; `clock`: what
    /// to read the time from, none for the system.
    ///
    /// # Errors
    ///
    /// The store failed, or there is nobody to log in.
    pub fn open(
        config: Config,
        store: Arc<dyn Store>,
        commands: &[&'static str],
        clock: Option<Arc<dyn TimeSource>>,
    ) -> Result<Self, OpenError> {
        let mut loading = Loading::begin();
        let pools = Arc::<Pools>::default();
        // Before there is any pool that is bounded by it.
        let memory = Memory::new(config.limits.memory_bytes, &pools);
        let tables = Tables::new(store, config.server.durability, &pools);
        let store = tables.store();
        let stopped_at = housekeeping::last_time(store)?.map(LastTime::now);
        let clock = start_clock(store, clock)?;
        let now = clock.now();
        let bootstrap = config.server.bootstrap.as_deref();
        let records = records::load(store, bootstrap, clock.shown(now), &mut |bytes| {
            // Ids of a few records in a file that is read once, when the program starts.
            getrandom::fill(bytes).expect("the system has random numbers when the program starts");
        })?;
        records.orgs.iter().for_each(|org| pools.add_org(org.id, org.parent));
        let record_space = RecordSpace::new(&records, &pools);
        let records = IdentityWriter::new(records);
        let token_uses = TokenUses::open(store, &records)?;
        loading.done("records");
        let sessions = DirectoryWriter::new(directory_config(&config), &pools, now);
        if let Some(ttl_s) = idle::stored_ttl_s(store, config.sessions.max_age_s)? {
            sessions.set_ttl_s(ttl_s);
        }
        let disk = Arc::new(DiskShares::new(store.room(), &pools));
        let files = Files::new(tables.clone(), files_config(&config), clock.clone(), &disk);
        let files = Arc::new(files);
        // Grows from start to start, unless more than a thousand points a second were recorded.
        let arrival = now.as_millis() as u32;
        let mailbox_config = MailboxConfig {
            waiting_max: config.mailbox.waiting_max,
            keep_s: config.mailbox.keep_s,
            bytes_max: limits::MAILS_BYTES_MAX,
        };
        let broker_config = BrokerConfig {
            filters_max: config.limits.broker_filters,
            sessions_max: config.limits.broker_links,
            subscriptions_max: config.limits.subscriptions,
            waiting_bytes_max: config.limits.kept_bytes,
            retained_max: config.limits.retained_messages,
            retained_bytes_max: config.limits.retained_bytes,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let metrics = Metrics::new(commands);
        let bytes = Arc::new(StoredBytes::open(&tables, disk.clone())?);
        let things = Things::open(tables.clone(), config.limits.things, &bytes)?;
        let (months, series_max) = (config.telemetry.retention_months, config.limits.series);
        let telemetry = Telemetry::open(tables.clone(), arrival, months, (series_max, &bytes))?;
        loading.done("things");
        let broker = Broker::open(tables.clone(), &broker_config, &disk, now)?;
        loading.done("MQTT sessions");
        let events = EventsConfig {
            keep_days: config.events.keep_days,
            max_bytes: config.events.max_bytes,
            log: config.events.log.clone(),
        };
        let events = Arc::new(Events::open(tables.clone(), events, &pools)?);
        records.orgs().iter().for_each(|org| events.name_org(org.id, &org.key));
        loading.done("events");
        let kept =
            (config.sessions.connection_history_days, config.sessions.connection_history_max);
        let connection_history = ConnectionHistory::open(tables.clone(), kept, &pools, now)?;
        let mailbox = Mailbox::new(tables.clone(), mailbox_config, &bytes);
        mailbox.record_in(Box::new(MethodEvents {
            events: events.clone(),
            tables: tables.clone(),
            clock: clock.clone(),
        }));
        let allow_private = config.webhooks.allow_private;
        let webhooks = Webhooks::open(records.webhooks(), &tables, allow_private, &pools)?;
        let turns_of_cores = Cores::new(threads(cores), &pools, metrics.turns_waited());
        let connections_max = config.limits.connections;
        let app = Self {
            this: OnceLock::new(),
            unauthenticated: Arc::new(Unauthenticated::new(
                config.limits.unauthenticated_bytes,
                config.limits.max_frame_bytes,
                metrics.refusals("half_request"),
                &pools,
            )),
            cores: turns_of_cores.clone(),
            login_rates: LoginRates::new(config.limits.logins_per_s()),
            org_rates: Default::default(),
            stored_bytes: bytes,
            telemetry,
            mailbox,
            config,
            clock,
            metrics,
            things,
            files,
            feed: Arc::<Feed>::default(),
            broker,
            long_answers: LongAnswers::new(&pools),
            event_readers: EventReaders::new(&pools),
            event_topics: Arc::default(),
            event_pieces: Default::default(),
            certificates: Arc::default(),
            connections: Connections::new(connections_max, &pools),
            memory,
            server_id: host_name(),
            made_tokens: made_tokens::MadeTokens::new(&pools),
            token_uses,
            second_factors: Default::default(),
            records,
            record_space,
            sessions,
            connection_history,
            tables,
            events,
            settling: Arc::default(),
            // Half the cores: a flood of logins leaves the others to those who are in.
            passwords: Passwords::new(cores / 2, &pools, &turns_of_cores),
            token_guesses: token_guesses::TokenGuesses::new(&pools),
            taken_names: taken_names::TakenNames::new(&pools),
            limits_reached: Mutex::default(),
            webhooks,
            page_secret: secret::PageSecret::default(),
            delayed_wills: OnceLock::new(),
            accesses: DashMap::new(),
            stale: Mutex::default(),
            journal: Mutex::default(),
            presence_turns: super::presence::Turns::default(),
            gzips: super::gzip::Gzips::new(cores),
            turns: Turns::new(cores, &pools),
            long_work: LongWork::new(cores),
            large_replies: LargeReplies::new(threads(cores)),
            log_level: OnceLock::new(),
            watched: Watched::default(),
            recorder: Recorder::new(&pools),
            session_log: SessionLog::default(),
            shared_looks: Arc::default(),
            idle_connections: super::places::IdleConnections::default(),
            followed: Arc::default(),
            pools,
            pace: Arc::new(Pace::new(cores)),
            readers_pace: Pace::new(cores),
        };
        app.recover((stopped_at.unwrap_or(now), now), &mut loading)?;
        loading.log();
        let bounded = POOLS.iter().filter_map(|(pool, info)| {
            let most = app.pools.bound_by_memory(*pool)?;
            (app.pools.usage(*pool).max() == most).then(|| format!("{} {}", most, info.unit))
        });
        let bounded = bounded.collect::<Vec<_>>().join(", ");
        if !bounded.is_empty() {
            tracing::info!(
                bounded,
                "no more of these fit into their parts of the memory (docs/limits.md)"
            );
        }
        Ok(app)
    }

    fn recover(
        &self,
        (stopped_at, now): (Timestamp, Timestamp),
        loading: &mut Loading,
    ) -> Result<(), OpenError> {
        let (live, stopped) = journal::recover(
            self.tables.store(),
            &self.records,
            &self.things,
            &self.sessions,
            &self.connection_history,
            (stopped_at, now),
        )?;
        self.recover_usage(now)?;
        for session in self.sessions.all() {
            self.metrics.session_started(session.kind().as_str());
            if let Who::User(user) = session.who() {
                self.passwords.note_known(user, session.conn().remote_addr.ip());
            }
        }
        self.note_stop(stopped.into_iter(), now);
        tracing::info!(live, "sessions recovered");
        loading.done("sessions");
        self.follow_kept_sessions(self.broker.all_kept());
        loading.done("owners of MQTT sessions");
        self.files.recover()?;
        loading.done("files");
        let waiting = self.mailbox.load()?;
        loading.done("mails");
        tracing::info!(waiting, "mails loaded");
        Ok(())
    }
}

/// What the parts of a start took, for those who wait for one.
struct Loading {
    since: Instant,
    parts: String,
}

impl Loading {
    fn begin() -> Self {
        Self { since: Instant::now(), parts: String::new() }
    }

    fn done(&mut self, part: &str) {
        let comma = if self.parts.is_empty() { "" } else { ", " };
        // Writing to a String can't fail.
        let _ = write!(self.parts, "{comma}{part} {} ms", self.since.elapsed().as_millis());
        self.since = Instant::now();
    }

    fn log(&self) {
        tracing::info!(parts = self.parts, "loaded what is stored");
    }
}

/// The clock, which goes on from the last run.
fn start_clock(
    store: &dyn Store,
    source: Option<Arc<dyn TimeSource>>,
) -> Result<Clock, StoreError> {
    let clock = Clock::start(source, housekeeping::last_time(store)?);
    match clock.behind_ms() {
        0 => {}
        behind_ms => tracing::warn!(
            behind_ms,
            "the wall clock is behind the end of the last run; time goes on from there"
        ),
    }
    Ok(clock)
}

/// What the configuration says about sessions.
fn directory_config(config: &Config) -> DirectoryConfig {
    let sessions = &config.sessions;
    DirectoryConfig {
        ttl_s: sessions.ttl_s,
        max_age_s: sessions.max_age_s,
        sessions_max: config.limits.sessions,
        per_principal_max: config.limits.sessions_per_principal,
        history_max: sessions.history_max,
        history_age_s: sessions.history_age_s,
    }
}

/// What the configuration says about files.
fn files_config(config: &Config) -> FilesConfig {
    FilesConfig {
        dir: config.server.data_dir.join("files"),
        sync: config.server.durability == Durability::Disk,
        bytes_max: config.files.max_bytes,
        total_bytes_max: config
            .files
            .total_max_bytes
            .unwrap_or_else(|| half_of_disk(&config.server.data_dir)),
        org_bytes_max: config.files.org_max_bytes,
    }
}

/// The threads that serve connections.
fn threads(cores: usize) -> usize {
    Handle::try_current().map_or(cores, |runtime| runtime.metrics().num_workers())
}

/// Half of the disk of this directory; without end if that is not known.
fn half_of_disk(dir: &Path) -> u64 {
    let disk = rustix::fs::statvfs(dir);
    disk.map_or(i64::MAX as u64, |disk| disk.f_blocks.saturating_mul(disk.f_frsize) / 2)
}

/// The name of this machine, as `session.info` shows it in `serverId`.
fn host_name() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "tr50d".into(),
        name => name.into(),
    }
}
