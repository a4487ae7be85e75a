//! The application: all parts of the server, and [`App::apply`], through which they change.
//!
//! The rules know no clock, no randomness and no disk; this is where they get time and random
//! numbers, where their changes are stored, and where everybody concerned is notified.
//!
//! A function here that returns a `StoreError`, and says nothing of errors, fails only when the
//! store does.

use std::sync::{Arc, OnceLock, Weak};

use base::pool::Pools;
use base::{Clock, Code, Failure, Timestamp, working_for};
use dashmap::DashMap;
use parking_lot::Mutex;
use rules::directory::{Directory, DirectoryWriter, Lifetime, PrincipalId, Session};
use rules::identity::{Access, Identity, IdentityWriter};
use store::Tables;

use crate::broker::Broker;
use crate::config::Config;
use crate::events::Events;
use crate::logging::LogLevel;
use crate::metrics::Metrics;
use crate::things::feed::Feed;
use crate::things::files::Files;
use crate::things::mailbox::Mailbox;
use crate::things::registry::Things;
use crate::things::stored_bytes::StoredBytes;
use crate::things::telemetry::Telemetry;

mod access;
mod apply;
mod audit;
mod bearer;
mod certificates;
mod connection_details;
mod connection_history;
mod connections;
mod cores;
mod crowds;
mod delivery;
mod effects;
mod event_pieces;
mod event_topics;
mod following;
mod gzip;
mod happened;
mod holder;
mod housekeeping;
mod idle;
mod journal;
mod known_networks;
mod large_replies;
mod login;
mod login_rates;
mod long_answers;
mod long_work;
mod made_tokens;
mod memory;
mod open;
mod pace;
mod passes;
mod passwords;
mod places;
mod presence;
mod rates;
mod record_space;
mod recorder;
mod records;
mod refused;
mod rests;
mod scrape;
mod second_factor;
mod secret;
mod session_log;
mod shared_looks;
mod sight;
mod taken_names;
mod token_guesses;
mod token_uses;
mod turns;
mod unauthenticated;
mod uploads;
mod viewer;
mod watched;
mod webhooks;

pub use crate::broker::KeptState;
pub use crate::events::LoginCause;
pub use access::DelayedWills;
pub use audit::Deed;
pub use base::{Asker, Holder};
pub use bearer::Bearer;
pub use certificates::{Certificates, ClientNames, Shown};
pub use connection_history::{AsOf, Series, Then, Unit, UsageQuery};
pub use connections::{Connections, Counted, NoPlace, Place};
pub use cores::{Cores, Stretch, Turn};
pub use delivery::notice_to;
pub use effects::{Affected, AfterReply, Applied, Effects, Goodbyes, Outcome, SessionChange};
pub use event_topics::{EventSubscription, EventTopics, is_event_filter};
pub use following::Following;
pub use gzip::deflated;
pub use holder::{asker, stranger};
pub use large_replies::LargeReplies;
pub use login::{
    ADDRESS_FULL, Arrival, Credentials, LoginError, LoginFrom, address_full, login_failure,
};
pub use login_rates::TooManyLogins;
pub use long_answers::{LongAnswerPlace, LongAnswers};
pub use memory::{Account, Memory, Part, Payer, SharedAccount};
pub use open::OpenError;
pub use pace::Pace;
pub use rates::Rate;
pub use recorder::{Frame, Masker, Recorder, Tap, TraceEnd, TraceState, What};
pub use records::{IdentityError, check_bootstrap};
pub use refused::{LOGIN, LoginPeer};
pub use rests::watch as watch_rests;
pub use secret::SecretError;
pub use sight::{News, Sight};
pub use token_uses::TokenUse;
pub use turns::Worker;

pub use crate::metrics::{ByCause, FIGURES, Form, Second, Timer};
pub use unauthenticated::{CutOff, Lease, Unauthenticated};
pub use viewer::{EventReaderPlace, EventReaders, SIGN_OF_LIFE, Viewer};
pub use watched::{Watch, Watched, Watching};
pub use webhooks::{LastFailure, Progress, WebhookLoad, WebhookState};

use access::Followed;
use connection_history::ConnectionHistory;
use passes::Passes;
use passwords::Passwords;
use shared_looks::{Asked, Found, SharedLooks};

/// Everything that handlers and edges share.
pub struct App {
    /// Itself, for work that goes on when what began it has returned.
    this: OnceLock<Weak<Self>>,
    /// The configuration in force.
    pub config: Config,
    /// The time that the server goes by.
    pub clock: Clock,
    /// The things themselves.
    pub things: Things,
    /// What is counted.
    pub metrics: Metrics,
    /// What things have measured.
    pub telemetry: Telemetry,
    /// What of it, of mails and of things is on the disk.
    stored_bytes: Arc<StoredBytes>,
    /// What waits for things.
    pub mailbox: Mailbox,
    /// What things have stored.
    pub files: Arc<Files>,
    /// Who wants to know of changes of things.
    pub feed: Arc<Feed>,
    /// Ordinary MQTT topics.
    pub broker: Broker,
    /// Places for long answers in Element's words, which are made or on their way.
    pub long_answers: Arc<LongAnswers>,
    /// Who has subscribed to topics of events.
    pub event_topics: Arc<EventTopics>,
    /// Places of those who follow the stream of events over HTTP.
    pub event_readers: Arc<EventReaders>,
    /// The certificates of clients whose connections are open.
    pub certificates: Arc<Certificates>,
    /// The places of open connections.
    pub connections: Arc<Connections>,
    /// The shares of the cores.
    pub cores: Arc<Cores>,
    /// What connections hold.
    pub memory: Arc<Memory>,
    /// Room for half requests of those who have not logged in.
    pub unauthenticated: Arc<Unauthenticated>,
    /// The name of this server in `session.info`.
    pub server_id: Arc<str>,
    /// Tokens that the server made, for those who had them made.
    made_tokens: made_tokens::MadeTokens,
    /// When tokens were used.
    token_uses: token_uses::TokenUses,
    /// Who may send a code of a second factor.
    second_factors: second_factor::SecondFactors,
    /// Who there is.
    records: IdentityWriter,
    /// The room that the records take.
    record_space: record_space::RecordSpace,
    /// Who is connected.
    sessions: DirectoryWriter,
    /// Who was.
    connection_history: ConnectionHistory,
    tables: Tables,
    /// What happened.
    events: Arc<Events>,
    /// Those who wait until what was refused is written, to read events.
    settling: Arc<Passes<(), ()>>,
    event_pieces: event_pieces::EventPieces,
    passwords: Passwords,
    token_guesses: token_guesses::TokenGuesses,
    login_rates: Arc<login_rates::LoginRates>,
    org_rates: rates::OrgRates,
    taken_names: taken_names::TakenNames,
    limits_reached: Mutex<happened::Reached>,
    webhooks: webhooks::Webhooks,
    page_secret: secret::PageSecret,
    /// Wills that wait, which the MQTT edge has.
    delayed_wills: OnceLock<Arc<dyn DelayedWills>>,
    /// What sessions of a principal got last: those of a fleet share it.
    accesses: DashMap<PrincipalId, Arc<Access>>,
    /// Sessions that survive a restart and whose counters have changed since they were stored.
    stale: Mutex<Vec<Arc<Session>>>,
    /// Held from the making of a record to its place in the writer's queue: otherwise the record
    /// of a live session could come after that of its end, and bring it back after a restart. In it
    /// is what the store did not take.
    journal: Mutex<journal::Unsaved>,
    presence_turns: presence::Turns,
    /// The level of the log, if it is this server's: not in a program that has it for itself.
    log_level: OnceLock<Arc<LogLevel>>,
    /// Of whom the log tells everything.
    pub watched: Watched,
    /// What of things is traced.
    pub recorder: Recorder,
    session_log: session_log::SessionLog,
    /// How much is used of each pool.
    pub pools: Arc<Pools>,
    /// Turns of what comes all at once and nobody waits for.
    pub pace: Arc<Pace>,
    /// The same for those who read events, who do not wait behind ends.
    readers_pace: Pace,
    /// Places for long answers that are compressed.
    gzips: gzip::Gzips,
    /// Turns of [`App::offload`].
    turns: Arc<turns::Turns>,
    long_work: long_work::LongWork,
    /// Turns to send what that came to.
    pub large_replies: LargeReplies,
    /// Long looks that wait for their turn.
    shared_looks: Arc<SharedLooks>,
    idle_connections: places::IdleConnections,
    followed: Arc<Passes<(Affected, Worker), Followed>>,
}

impl App {
    /// Has it shared by who needs it.
    pub fn share(self) -> Arc<Self> {
        let app = Arc::new(self);
        let _ = app.this.set(Arc::downgrade(&app));
        app
    }

    /// Has the level of the log be this one's.
    pub fn set_log_level(&self, level: Arc<LogLevel>) {
        let _ = self.log_level.set(level);
    }

    /// The level of the log; none in a program that has it for itself.
    pub fn log_level(&self) -> Option<&LogLevel> {
        self.log_level.get().map(|level| &**level)
    }

    /// Who there is.
    pub fn identity(&self) -> &Identity {
        &self.records
    }

    /// Who is connected.
    pub fn directory(&self) -> &Directory {
        &self.sessions
    }

    /// Notes commands of a session.
    pub fn touch(&self, session: &Arc<Session>, now: Timestamp, commands: u64) {
        session.touch(now, commands);
        if session.lifetime() != Lifetime::Connection {
            self.note_stale(session);
        }
    }

    /// Has the store get a session as it is then with the next counters.
    fn note_stale(&self, session: &Arc<Session>) {
        if session.mark_stale() {
            self.stale.lock().push(session.clone());
        }
    }

    /// Stores everything and closes the store; whether it took all that had been acknowledged or
    /// was waiting.
    pub async fn stop(&self) -> bool {
        let stored = self.store_counters().await;
        let events = self.events.write_refusals(self.clock.shown(self.clock.now())).map(drop);
        let events = events.and_then(|()| self.events.close());
        self.events.flush_log();
        self.keep_figures(self.clock.now());
        let connections = self.connection_history.store_counts();
        self.webhooks.store(&self.tables);
        self.store_time();
        let closed = self.tables.writer().stop().await;
        let all = closed.is_ok();
        for result in [stored, events, connections, closed] {
            if let Err(error) = result {
                store::report(&error, "the last changes were not stored");
            }
        }
        all
    }

    /// Runs work that takes long on a thread that serves no connection. At most as much as there
    /// are cores runs at once, for each holds what it reads in memory; the rest waits, and
    /// organisations take turns.
    ///
    /// # Errors
    ///
    /// There is too much of it, of this principal more than of others; the work was not begun. Or
    /// it failed in a way that is a mistake of this program.
    pub async fn offload<T: Send + 'static>(
        &self,
        worker: Worker,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(error, "a command failed");
            Failure::new(Code::INTERNAL, "The server failed.")
        };
        // A task of its own: a turn that comes is used, whether or not somebody still waits for it.
        let (turns, threads) = (self.turns.clone(), self.long_work.clone());
        let asker = worker.asker();
        let done = tokio::spawn(async move {
            let turn = turns.take(worker).await?;
            let work = move || {
                let _turn = turn;
                working_for(asker, work)
            };
            Ok::<_, Failure>(tokio::task::spawn_blocking(move || threads.run(work)).await)
        });
        let done = done.await.map_err(|error| failed(&error))??.map_err(|error| failed(&error))?;
        done.map_err(|error| failed(&error))
    }

    /// As [`App::offload`], if nobody waits for what comes of it.
    pub fn offload_detached(self: Arc<Self>, worker: Worker, work: impl FnOnce() + Send + 'static) {
        tokio::spawn(async move { self.offload(worker, work).await });
    }

    /// Looks for what `key` says, as [`App::offload`] does other work: once for all that this worker asks
    /// of it before that begins.
    ///
    /// # Errors
    ///
    /// As [`App::offload`], or what comes of the look.
    pub(crate) async fn look_shared(
        &self,
        worker: Worker,
        key: String,
        look: impl FnOnce() -> Found + Send + 'static,
    ) -> Found {
        match self.shared_looks.ask(worker, key) {
            Asked::First(first) => self.offload(worker, move || first.look(look)).await?,
            Asked::Joined(found) => match found.await {
                Ok(found) => found,
                // Who came first was refused.
                Err(_) => self.offload(worker, look).await?,
            },
        }
    }

    /// The room of the store, and how it is.
    pub fn store_room(&self) -> &store::Room {
        self.tables.store().room()
    }

    /// Changes that wait for the store.
    pub fn store_queue(&self) -> usize {
        self.tables.writer().waiting()
    }
}

#[cfg(test)]
pub(crate) mod tests;
