//! The shell around the rules: it owns identity, directory and store, gives them time and chance,
//! and tells every listener of the events.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::directory::event::Event;
use crate::directory::{Changes, Directory, Lifetime, Reason, Session, Terms};
use crate::id::ApplicationId;
use crate::identity::password::Passwords;
use crate::identity::{Identity, Standing};
use crate::journal;
use crate::limits;
use crate::metrics::Metrics;
use crate::store::writer::{Durability, Receipt};
use crate::store::{Batch, StoreError, Tables};
use crate::things::feed::Feed;
use crate::things::files::transfer::Stored;
use crate::things::files::{FileTerms, Files};
use crate::things::mailbox::{self, Mailbox};
use crate::things::telemetry::point::{Entry, Kind, Value};
use crate::things::telemetry::{NewPoint, Telemetry};
use crate::timestamp::Timestamp;
use crate::tr50::error::{Code, Failure};

mod housekeeping;
mod idle;
mod login;
mod rights;
mod secret;

pub use idle::stored_ttl_s;
pub use login::{Arrival, LoginError, login_failure};
pub use rights::Affected;
pub use secret::SecretError;

/// Everything that handlers and transports share.
pub struct Core {
    /// The configuration in force.
    pub config: Config,
    /// Who there is.
    pub identity: Identity,
    /// Who is connected.
    pub directory: Directory,
    /// What is counted.
    pub metrics: Metrics,
    /// What things have measured.
    pub telemetry: Telemetry,
    /// What waits for things.
    pub mailbox: Mailbox,
    /// What things have stored.
    pub files: Arc<Files>,
    /// Who wants to know of changes of things.
    pub feed: Arc<Feed>,
    /// The name of this server in `session.info`.
    pub server_id: Arc<str>,
    tables: Tables,
    passwords: Passwords,
    page_secret: secret::PageSecret,
    /// What sessions of an application got last: those of a fleet share it.
    standings: DashMap<ApplicationId, Arc<Standing>>,
    /// Sessions that survive a restart and whose counters have changed since they were stored.
    stale: Mutex<Vec<Arc<Session>>>,
    /// Held from the making of a record to its place in the writer's queue: otherwise the record
    /// of a live session could come after that of its end, and bring it back after a restart.
    journal: Mutex<()>,
    /// Whose turn it is to tell of a thing's connection.
    pub(crate) telling: Mutex<()>,
    /// Turns of [`Core::apart`].
    heavy: Arc<Semaphore>,
}

impl Core {
    /// Puts the parts together.
    pub fn new(
        config: Config,
        tables: Tables,
        identity: Identity,
        directory: Directory,
        passwords: Passwords,
        metrics: Metrics,
        server_id: Arc<str>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let files = Arc::new(Files::new(tables.clone(), file_terms(&config)));
        // Grows from start to start, unless more than a thousand points a second were recorded.
        let arrival = Timestamp::now().as_millis() as u32;
        let retention_months = config.telemetry.retention_months;
        let mail_rules = mailbox::Rules {
            waiting_max: config.mailbox.waiting_max,
            keep_s: config.mailbox.keep_s,
        };
        Self {
            config,
            identity,
            directory,
            metrics,
            telemetry: Telemetry::new(tables.clone(), arrival, retention_months),
            mailbox: Mailbox::new(tables.clone(), mail_rules),
            files,
            feed: Arc::default(),
            server_id,
            tables,
            passwords,
            page_secret: secret::PageSecret::default(),
            standings: DashMap::new(),
            stale: Mutex::default(),
            journal: Mutex::default(),
            telling: Mutex::default(),
            heavy: Arc::new(Semaphore::new(cores)),
        }
    }

    /// The directory's rules, from the configuration.
    pub fn terms(config: &Config) -> Terms {
        let sessions = &config.sessions;
        Terms {
            ttl_s: sessions.ttl_s,
            max_age_s: sessions.max_age_s,
            sessions_max: config.limits.sessions,
            per_principal_max: config.limits.sessions_per_principal,
            history_max: sessions.history_max,
            history_age_s: sessions.history_age_s,
        }
    }

    /// Notes commands of a session.
    pub fn touch(&self, session: &Arc<Session>, now: Timestamp, commands: u64) {
        session.touch(now, commands);
        if session.lifetime() != Lifetime::Connection && session.mark_stale() {
            self.stale.lock().push(session.clone());
        }
    }

    /// Ends a session whose connection is gone.
    pub fn end(&self, session: &Arc<Session>, reason: Reason, now: Timestamp) {
        self.publish(&self.directory.end(session, reason, now));
    }

    /// Revokes sessions: their connections close at once. When it returns, that is durable.
    ///
    /// # Errors
    ///
    /// The store failed; the sessions have ended all the same.
    pub async fn revoke(
        &self,
        sessions: &[Arc<Session>],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        for session in sessions {
            changes.append(self.directory.revoke(session, now));
        }
        self.close_ended(&changes);
        self.commit(&changes).await
    }

    /// Tells everybody of changes and returns when they are durable. Connections are not closed:
    /// the caller has a reply to send first.
    ///
    /// # Errors
    ///
    /// The store failed; the changes hold in memory.
    pub async fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        self.hand_over(changes)?.durable().await
    }

    /// As [`Core::commit`]; the receipt says when it is durable.
    fn hand_over(&self, changes: &Changes) -> Result<Receipt, StoreError> {
        self.count(&changes.events);
        self.return_mail(&changes.events);
        self.tell_connections(&changes.events);
        let _order = self.journal.lock();
        self.tables.hand_over(self.records_of(changes)?)
    }

    /// What is stored of changes; the journal's lock is held.
    fn records_of(&self, changes: &Changes) -> Result<Batch, StoreError> {
        let mut batch = journal::batch_of(changes)?;
        self.keep_seen(&mut batch, &changes.events)?;
        Ok(batch)
    }

    /// Tells everybody of changes: connections close now, the journal follows.
    pub fn publish(&self, changes: &Changes) {
        self.close_ended(changes);
        if let Err(error) = self.hand_over(changes) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a change of the directory was not stored");
        }
    }

    /// Closes the connections whose sessions ended with these changes.
    pub fn close_ended(&self, changes: &Changes) {
        for event in &changes.events {
            if let Event::Ended(session, reason) = event
                && let Some(outlet) = session.outlet()
            {
                outlet.close(*reason);
            }
        }
    }

    fn count(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Started(session) => self.metrics.session_started(session.kind().as_str()),
                Event::Ended(session, reason) => {
                    self.metrics.session_ended(session.kind().as_str(), reason.as_str());
                }
                Event::Switched(..) | Event::RightsChanged(_) | Event::Revoked(_) => {}
            }
        }
    }

    /// Ends every session that is bound to a connection; the connections close.
    pub fn end_bound(&self, now: Timestamp) {
        let mut sessions = self.directory.all();
        sessions.retain(|session| session.lifetime() == Lifetime::Connection);
        // Many in one batch: the writer's queue is shorter than a fleet is large.
        for step in sessions.chunks(limits::EXPIRY_STEP) {
            let mut changes = Changes::default();
            for session in step {
                changes.append(self.directory.end(session, Reason::ServerStopped, now));
            }
            self.publish(&changes);
        }
    }

    /// Stores everything and closes the store.
    pub async fn stop(&self) {
        let stored = self.store_counters().await;
        for result in [stored, self.tables.writer().stop().await] {
            if let Err(error) = result {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the last changes were not stored");
            }
        }
    }

    /// Adds to its owner's log that a file has come, if that is wanted (`logComplete`).
    pub fn note_stored(&self, stored: &Stored, now: Timestamp) {
        if !stored.put.log_complete {
            return;
        }
        let owner = stored.owner.thing.map_or_else(|| stored.owner.org.into(), Into::into);
        let msg = format!("File {} was uploaded.", stored.put.name.as_str()).into();
        let point = NewPoint {
            name: String::new(),
            ts: None,
            value: Value::Log(Entry { level: 2, msg }),
            corr_id: None,
            republish: false,
        };
        // The file is stored in any case; the writer says when it loses something.
        if let Err(error) = self.telemetry.publish(owner, Kind::Log, &[point], now) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the end of an upload was not logged");
        }
    }

    /// Runs work that takes long on a thread that serves no connection. At most as much as there
    /// are cores runs at once, for each holds what it reads in memory; the rest waits.
    ///
    /// # Errors
    ///
    /// The work failed in a way that is a mistake of this program.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(error, "a command failed");
            Failure::new(Code::INTERNAL, "The server failed.")
        };
        let turn = self.heavy.clone().acquire_owned().await.map_err(|error| failed(&error))?;
        let done = tokio::task::spawn_blocking(move || {
            // Given back when the work is done, whether or not somebody still waits for it.
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| failed(&error))
    }

    /// Changes that wait for the store.
    pub fn store_queue(&self) -> usize {
        self.tables.writer().waiting()
    }
}

/// What the configuration says about files.
fn file_terms(config: &Config) -> FileTerms {
    FileTerms {
        dir: config.server.data_dir.join("files"),
        sync: config.server.durability == Durability::Disk,
        bytes_max: config.files.max_bytes,
        org_bytes_max: config.files.org_max_bytes,
    }
}

/// Random bytes for a command: for an id, a salt, a token.
///
/// # Errors
///
/// The system has none.
pub fn chance<const N: usize>() -> Result<[u8; N], Failure> {
    random().map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a command failed");
        Failure::new(Code::INTERNAL, "The server has no random numbers.")
    })
}

/// Random bytes from the system.
///
/// # Errors
///
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::directory::{Outlet, Start, Who};
    use crate::id::{OrgId, SessionId, ThingId, ThingKey};
    use crate::identity::model::{Thing, User};
    use crate::store::watched::Watched;
    use crate::store::{Row, Store, Table};
    use crate::tr50::authenticate::Credentials;
    use crate::tr50::commands::COMMANDS;
    use crate::tr50::dispatch::{Caller, Execution, execute};
    use crate::tr50::envelope::Request;
    use crate::transport::{ConnInfo, Protocol};

    const NOW: Timestamp = Timestamp::from_millis(1_628_604_970_976);

    fn core() -> (Core, Arc<Watched>) {
        core_with(Config::default())
    }

    fn core_with(config: Config) -> (Core, Arc<Watched>) {
        let store = Arc::new(Watched::default());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo.toml");
        let tables = Tables::new(store.clone(), Durability::Os);
        let identity = Identity::open(tables.clone(), Some(&path), NOW, &mut |bytes| bytes.fill(7));
        let identity = identity.expect("the demo's file is right");
        let directory = Directory::new(Core::terms(&config), NOW);
        let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        let (metrics, passwords) = (Metrics::new(&names), Passwords::new(1));
        store.largest.store(0, Ordering::Relaxed);
        (Core::new(config, tables, identity, directory, passwords, metrics, "x".into()), store)
    }

    async fn login(core: &Core) -> Result<Arc<Session>, Failure> {
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let conn = ConnInfo { protocol: Protocol::Http, remote_addr };
        let credentials = Credentials::Application {
            thing_key: "mower-1".into(),
            token: "demo-token-basicorg".into(),
            app_id: String::new(),
        };
        core.login_unbound(credentials, conn, NOW).await
    }

    #[tokio::test]
    async fn counters_are_stored_in_steps() {
        let (core, store) = core();
        let count = limits::EXPIRY_STEP * 2 + 1;
        for _ in 0..count {
            let session = login(&core).await.expect("welcome");
            core.touch(&session, NOW, 7);
        }
        core.store_counters().await.expect("stored");
        assert_eq!(store.largest.load(Ordering::Relaxed), limits::EXPIRY_STEP);
        let rows = store.scan(Table::Sessions, Bound::Unbounded, Bound::Unbounded, usize::MAX);
        let rows = rows.expect("read");
        let counted = |row: &&Row| String::from_utf8_lossy(&row.1).contains(":7");
        assert_eq!((rows.len(), rows.iter().filter(counted).count()), (count, count));
    }

    #[tokio::test]
    async fn only_long_listings_run_apart() {
        let mut config = Config::default();
        config.limits.sessions_per_principal = usize::MAX;
        config.limits.commands_per_s = 0;
        let (core, _) = core_with(config);
        let core = Arc::new(core);
        let session = login(&core).await.expect("welcome");
        let caller = Caller { session: Some(session.clone()), conn: *session.conn() };
        let check = async |command: &str, apart: bool| {
            let request = format!(r#"{{"l":{{"command":{command}}}}}"#);
            let request = Request::parse(request.as_bytes()).expect("a request");
            let mut out = Vec::new();
            let execution = execute(&core, &caller, &request.commands, b"", NOW, &mut out);
            assert_eq!(matches!(execution, Execution::Pending(_)), apart, "{command}");
            if let Execution::Pending(pending) = execution {
                out = pending.await.bytes;
            }
            String::from_utf8(out).expect("text")
        };
        let sorted = r#""session.list","params":{"sort":"whoAmI","limit":1}"#;
        check(sorted, false).await;
        for number in 0..limits::LISTED_AT_ONCE_MAX as u64 {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let start = Start {
                id: SessionId::from_random(id),
                who: session.who().clone(),
                client_id: "".into(),
                standing: session.standing(),
                conn: *session.conn(),
                lifetime: session.lifetime(),
                outlet: None,
            };
            core.directory.start(start, false, NOW).expect("room");
        }
        let reply = check(sorted, true).await;
        assert!(reply.contains(r#""count":10001,"result":[{"#), "{reply}");
        check(r#""session.list","params":{"remoteAddr":"192.","limit":1}"#, true).await;
        check(r#""session.list","params":{"limit":1}"#, false).await;
        check(r#""session.list","params":{"sort":"colour"}"#, false).await;
        check(r#""thing.list""#, true).await;
    }

    #[tokio::test]
    async fn many_named_things_are_changed_apart() {
        let (core, _) = core();
        let core = Arc::new(core);
        let session = login(&core).await.expect("welcome");
        permit_all(&core, &session);
        let caller = Caller { session: Some(session.clone()), conn: *session.conn() };
        let apart = async |count: usize, tag: &str| {
            let keys = vec![r#""mower-1""#; count].join(",");
            let params = format!(r#"{{"thingKey":[{keys}],"tags":["{tag}"]}}"#);
            let request = format!(r#"{{"t":{{"command":"thing.tag.add","params":{params}}}}}"#);
            let request = Request::parse(request.as_bytes()).expect("a request");
            let mut out = Vec::new();
            let execution = execute(&core, &caller, &request.commands, b"", NOW, &mut out);
            let Execution::Pending(mut pending) = execution else { panic!("it takes time") };
            let turns = core.heavy.available_permits() as u32;
            let turns = core.heavy.clone().acquire_many_owned(turns).await.expect("turns");
            let waker = std::task::Waker::noop();
            let polled = pending.as_mut().poll(&mut std::task::Context::from_waker(waker));
            let key = crate::id::ThingKey::parse("mower-1").expect("a key");
            let thing = core.identity.thing(session.org_id(), &key).expect("read");
            let changed = thing.expect("it is there").tags.iter().any(|held| held == tag);
            drop(turns);
            let answer = match polled {
                std::task::Poll::Ready(answer) => answer,
                std::task::Poll::Pending => pending.await,
            };
            let reply = String::from_utf8(answer.bytes).expect("text");
            assert_eq!(reply, r#"{"t":{"success":true}}"#);
            !changed
        };
        assert!(!apart(limits::THINGS_AT_ONCE_MAX, "few").await);
        assert!(apart(limits::THINGS_AT_ONCE_MAX + 1, "many").await);
    }

    /// A connection that notes when it is closed.
    #[derive(Default)]
    struct Noted(AtomicBool);

    impl Outlet for Noted {
        fn close(&self, _: Reason) {
            self.0.store(true, Ordering::Relaxed);
        }

        fn push(&self, _: crate::directory::Pushed) {}
    }

    /// A connection of the thing, as the directory has it; nobody was told.
    fn connect(core: &Core, session: &Arc<Session>, number: u8) -> (Arc<Session>, Arc<Noted>) {
        connect_as(core, session, session.who().clone(), number)
    }

    fn connect_as(
        core: &Core,
        session: &Arc<Session>,
        who: Who,
        number: u8,
    ) -> (Arc<Session>, Arc<Noted>) {
        let outlet = Arc::new(Noted::default());
        let start = Start {
            id: SessionId::from_random([number; 12]),
            who,
            client_id: number.to_string().into(),
            standing: session.standing(),
            conn: *session.conn(),
            lifetime: Lifetime::Connection,
            outlet: Some(outlet.clone()),
        };
        (core.directory.start(start, false, NOW).expect("room").0, outlet)
    }

    #[tokio::test]
    async fn who_lost_all_rights_is_out_even_if_that_is_not_stored() {
        let (core, store) = core();
        let core = Arc::new(core);
        let session = login(&core).await.expect("welcome");
        let (_, first) = connect(&core, &session, 1);
        let Who::Application { application, .. } = session.who() else { panic!("a thing") };
        let gone = core.identity.changing().delete(&[(**application).clone().into()]);
        gone.expect("room").durable().await.expect("stored");
        store.failing.store(true, Ordering::Relaxed);
        assert_eq!(core.standings.len(), 1);
        assert!(core.follow(Affected::Org(application.org), NOW).await.is_err());
        assert!(first.0.load(Ordering::Relaxed));
        assert!(core.standings.is_empty(), "what is gone is not kept");
    }

    /// Gives a session every permission.
    fn permit_all(core: &Core, session: &Arc<Session>) {
        let permissions = crate::identity::permission::PermissionSet::ALL;
        let standing = Standing { permissions, ..Standing::clone(&session.standing()) };
        core.directory.refresh(session, NOW, |_, _| Some(standing));
    }

    #[tokio::test]
    async fn a_deleted_thing_leaves_no_session_and_takes_no_other() {
        let (core, _) = core();
        let core = Arc::new(core);
        let session = login(&core).await.expect("welcome");
        permit_all(&core, &session);
        let Who::Application { application, thing_key, .. } = session.who() else {
            panic!("a thing");
        };
        // One that has just registered anew under the same key.
        let who = Who::Application {
            application: application.clone(),
            thing_id: ThingId::from_bytes([9; 12]),
            thing_key: thing_key.clone(),
        };
        let (newer, _) = connect_as(&core, &session, who, 1);
        let caller = Caller { session: Some(session.clone()), conn: *session.conn() };
        let request = Request::parse(br#"{"d":{"command":"thing.delete"}}"#).expect("a request");
        let mut out = Vec::new();
        let execution = execute(&core, &caller, &request.commands, b"", NOW, &mut out);
        let Execution::Pending(pending) = execution else { panic!("it takes time") };
        assert_eq!(pending.await.bytes, br#"{"d":{"success":true}}"#);
        assert_eq!(session.end().map(|end| end.reason), Some(Reason::Revoked));
        assert_eq!(newer.end(), None);
        // One whose login was let in before, and whose session begins only now.
        let (late, _) = connect(&core, &session, 2);
        assert!(core.follow_start(&late, NOW).is_err());
        assert_eq!(late.end().map(|end| end.reason), Some(Reason::Revoked));
    }

    #[tokio::test]
    async fn a_list_of_very_large_things_is_refused() {
        let (core, _) = core();
        let core = Arc::new(core);
        let session = login(&core).await.expect("welcome");
        permit_all(&core, &session);
        let value = "x".repeat(limits::ATTRIBUTE_BYTES_MAX);
        let point = |number: usize| NewPoint {
            name: number.to_string(),
            ts: None,
            value: Value::Attribute(Some(value.clone().into())),
            corr_id: None,
            republish: false,
        };
        let points: Vec<_> = (0..=limits::CURRENTS_BYTES_MAX / value.len()).map(point).collect();
        let things = limits::LISTED_VALUES_BYTES_MAX / limits::CURRENTS_BYTES_MAX + 2;
        for number in 0..things {
            let id = ThingId::from_bytes([number as u8; 12]);
            let key = ThingKey::parse(&format!("large-{number}")).expect("a key");
            let thing = Thing::new(id, session.org_id(), key, "", NOW);
            drop(core.identity.create_thing(&thing).expect("made"));
            let stored = core.telemetry.publish(id.into(), Kind::Attribute, &points, NOW);
            stored.expect("room").receipt.durable().await.expect("stored");
        }
        let caller = Caller { session: Some(session.clone()), conn: *session.conn() };
        let list = async |params: &str| {
            let request = format!(r#"{{"l":{{"command":"thing.list","params":{params}}}}}"#);
            let request = Request::parse(request.as_bytes()).expect("a request");
            let mut out = Vec::new();
            match execute(&core, &caller, &request.commands, b"", NOW, &mut out) {
                Execution::Pending(pending) => pending.await.bytes,
                _ => out,
            }
        };
        let refused = String::from_utf8(list("{}").await).expect("text");
        let code = Code::REPLY_TOO_LARGE.0;
        assert!(refused.contains(&format!(r#""errorCodes":[{code}]"#)), "{:.200}", refused);
        let keys = list(r#"{"show":["key"],"keys":["mower-1"],"hideFields":true}"#).await;
        let expected =
            r#"{"l":{"success":true,"params":{"count":1,"result":[{"key":"mower-1"}]}}}"#;
        assert_eq!(String::from_utf8(keys).expect("text"), expected);
    }

    #[tokio::test]
    async fn of_two_first_connections_one_tells() {
        struct Heard(Mutex<Vec<String>>);

        impl crate::things::feed::Wildcards for Arc<Heard> {
            fn publish(&self, _: OrgId, topic: &str, payload: &str) {
                self.0.lock().push(format!("{topic} {payload}"));
            }
        }

        let (core, _) = core();
        let session = login(&core).await.expect("welcome");
        let heard = Arc::new(Heard(Mutex::default()));
        core.feed.forward_to(Box::new(heard.clone()));
        let _watch = core.feed.subscribe_wild(session.org_id(), "#").expect("room");
        // Both are there before anybody is told of one.
        let (first, second) = (connect(&core, &session, 1).0, connect(&core, &session, 2).0);
        core.tell_connections(&[Event::Started(second.clone())]);
        core.tell_connections(&[Event::Started(first.clone())]);
        core.end(&first, Reason::LoggedOut, NOW);
        core.end(&second, Reason::LoggedOut, NOW);
        let told = ["thing/mower-1/connected true", "thing/mower-1/connected false"];
        assert_eq!(*heard.0.lock(), told);
    }

    #[tokio::test]
    async fn rights_are_those_after_the_check_of_the_password() {
        let (core, _) = core();
        let conn = ConnInfo {
            protocol: Protocol::Http,
            remote_addr: "192.0.2.1:5".parse().expect("an address"),
        };
        let user = |email: &str| core.identity.user_by_email(email).expect("a user of the demo");
        let put = |user: User| drop(core.identity.changing().put(user).expect("room"));
        let (admin, viewer) = (user("admin@devicewise.com"), user("viewer@basicorg.example"));
        let recognise = async |email: &str, password: &str, change: &dyn Fn()| {
            let checked = core.recognise(email, password.into(), conn, NOW);
            let mut checked = Box::pin(checked);
            let waker = std::task::Waker::noop();
            let polled = checked.as_mut().poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_pending(), "it waits for the check");
            change();
            checked.await
        };
        let demote = || put(User { super_admin: false, ..User::clone(&admin) });
        let found = recognise("admin@devicewise.com", "demo-admin-password", &demote).await;
        assert!(!found.expect("welcome").super_admin);
        let lock_out = || put(User { password_hash: String::new(), ..User::clone(&viewer) });
        let refused = recognise("viewer@basicorg.example", "demo-viewer-password", &lock_out).await;
        assert!(refused.is_err());
    }

    /// Clients try again what failed: then the promise of the answer has to hold.
    #[tokio::test]
    async fn a_revocation_that_was_lost_is_stored_with_the_next_try() {
        let (core, store) = core();
        let session = login(&core).await.expect("welcome");
        let rows = |table| {
            let rows = store.scan(table, Bound::Unbounded, Bound::Unbounded, usize::MAX);
            rows.expect("read").len()
        };
        store.failing.store(true, Ordering::Relaxed);
        let sessions = [session.clone()];
        assert!(core.revoke(&sessions, NOW).await.is_err());
        assert_eq!((session.end().is_some(), rows(Table::Sessions)), (true, 1));
        store.failing.store(false, Ordering::Relaxed);
        core.revoke(&sessions, NOW.plus_seconds(1)).await.expect("stored");
        assert_eq!((rows(Table::Sessions), rows(Table::History)), (0, 1));
        assert_eq!(session.end().map(|end| end.at), Some(NOW));
    }

    #[tokio::test]
    async fn a_session_that_is_not_stored_does_not_live() {
        let (core, store) = core();
        let session = login(&core).await.expect("welcome");
        store.failing.store(true, Ordering::Relaxed);
        let failure = login(&core).await.expect_err("not stored");
        assert_eq!(failure.code, Code::INTERNAL);
        assert_eq!(core.directory.of_principal(&session.who().principal()).len(), 1);
    }
}
