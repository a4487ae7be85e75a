//! Building an [`App`] from the store and the configuration.

use std::sync::Arc;

use base::{Timestamp, chain, limits};
use dashmap::DashMap;
use parking_lot::Mutex;
use rules::directory::{DirectoryConfig, DirectoryWriter, Who};
use rules::identity::IdentityWriter;
use store::{Durability, Store, StoreError, Tables};
use tokio::sync::Semaphore;

use super::connections::Connections;
use super::passwords::Passwords;
use super::turns::Turns;
use super::unauthenticated::Unauthenticated;
use super::{App, IdentityError, idle, journal, records, secret};
use crate::broker::{Broker, BrokerConfig, Scope};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::things::feed::Feed;
use crate::things::files::transfer::TransferError;
use crate::things::files::{Files, FilesConfig};
use crate::things::mailbox::{Mailbox, MailboxConfig};
use crate::things::registry::Things;
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
    /// The files can't be put in order.
    #[error("can't put the stored files in order: {}", chain(.0))]
    Files(#[from] TransferError),
}

impl App {
    /// Loads who there is, recovers the sessions that survive a restart, and puts files and mails
    /// in order. `commands` are the names under which commands are counted.
    ///
    /// # Errors
    ///
    /// The store failed, or there is nobody to log in.
    pub fn open(
        config: Config,
        store: Arc<dyn Store>,
        commands: &[&'static str],
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let tables = Tables::new(store, config.server.durability);
        let store = tables.store();
        let bootstrap = config.server.bootstrap.as_deref();
        let records = records::load(store, bootstrap, now, &mut |bytes| {
            // Ids of a few records in a file that is read once, when the program starts.
            getrandom::fill(bytes).expect("the system has random numbers when the program starts");
        })?;
        let records = IdentityWriter::new(records);
        let sessions = DirectoryWriter::new(directory_config(&config), now);
        if let Some(ttl_s) = idle::stored_ttl_s(store, config.sessions.max_age_s)? {
            sessions.set_ttl_s(ttl_s);
        }
        let files = Arc::new(Files::new(tables.clone(), files_config(&config)));
        // Grows from start to start, unless more than a thousand points a second were recorded.
        let arrival = now.as_millis() as u32;
        let mailbox_config = MailboxConfig {
            waiting_max: config.mailbox.waiting_max,
            keep_s: config.mailbox.keep_s,
        };
        let broker_config = BrokerConfig {
            filters_max: config.limits.broker_filters,
            sessions_max: config.limits.broker_links,
        };
        // Half the cores: a flood of logins leaves the others to those who are in.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let metrics = Metrics::new(commands);
        let app = Self {
            unauthenticated: Arc::new(Unauthenticated::new(
                config.limits.unauthenticated_bytes,
                config.limits.max_frame_bytes,
                metrics.refusals("half_request"),
            )),
            telemetry: Telemetry::new(tables.clone(), arrival, config.telemetry.retention_months),
            mailbox: Mailbox::new(tables.clone(), mailbox_config),
            config,
            metrics,
            things: Things::open(tables.clone())?,
            files,
            feed: Arc::<Feed>::default(),
            broker: Broker::open(tables.clone(), broker_config, now)?,
            long_answers: Arc::new(Semaphore::new(limits::ELEMENT_LONG_ANSWERS_MAX)),
            certificates: Arc::default(),
            connections: Connections::default(),
            server_id: host_name(),
            made_tokens: Default::default(),
            records,
            sessions,
            tables,
            passwords: Passwords::new(cores / 2),
            token_guesses: Default::default(),
            taken_names: Default::default(),
            page_secret: secret::PageSecret::default(),
            accesses: DashMap::new(),
            stale: Mutex::default(),
            journal: Mutex::default(),
            presence_turn: Mutex::default(),
            turns: Turns::new(cores),
        };
        app.recover(now)?;
        Ok(app)
    }

    fn recover(&self, now: Timestamp) -> Result<(), OpenError> {
        let live = journal::recover(
            self.tables.store(),
            &self.records,
            &self.things,
            &self.sessions,
            now,
        )?;
        for session in self.sessions.all() {
            self.metrics.session_started(session.kind().as_str());
            if let Who::User(user) = session.who() {
                self.passwords.note_known(&user.email, session.conn().remote_addr.ip());
            }
        }
        tracing::info!(live, "sessions recovered");
        self.follow_kept_sessions(&Scope::All);
        self.files.recover()?;
        let waiting = self.mailbox.load()?;
        tracing::info!(waiting, "mails loaded");
        Ok(())
    }
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
        org_bytes_max: config.files.org_max_bytes,
    }
}

/// The name of this machine, as `session.info` shows it in `serverId`.
fn host_name() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "tr50d".into(),
        name => name.into(),
    }
}
