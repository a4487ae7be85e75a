//! A session: who is connected, from where, since when, in which organisation, until when.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use base::{
    Code, ConnInfo, OrgId, PrincipalId, SessionId, SessionRef, SessionUuid, ThingDefId, ThingId,
    ThingKey, Timestamp, UserAgent, UserId, limits,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::facets::Facets;
use super::failures::Failures;
use super::hot::{Hot, Place};
use super::outbox::{Outbox, Traffic};
use super::siblings::Mark;
use super::window::Window;
use crate::identity::model::{Application, User};
use crate::identity::permission::{Permission, PermissionSet, SharedPermissions};
use crate::identity::{Access, Token};

/// Who a session belongs to.
#[derive(Clone, Debug)]
pub enum Who {
    /// A person.
    User(Arc<User>),
    /// An application on a thing.
    Application {
        /// The definition whose token was used.
        application: Arc<Application>,
        /// The thing's id.
        thing_id: ThingId,
        /// The thing's key.
        thing_key: ThingKey,
    },
}

impl Who {
    /// The principal, by which sessions of one login are found.
    pub fn principal(&self) -> Principal {
        match self {
            Self::User(user) => Principal::User(user.id),
            Self::Application { application, thing_key, .. } => {
                Principal::Thing(application.org, thing_key.clone())
            }
        }
    }

    /// Who acts, whatever the thing.
    pub fn principal_id(&self) -> PrincipalId {
        match self {
            Self::User(user) => PrincipalId::User(user.id),
            Self::Application { application, .. } => PrincipalId::Application(application.id),
        }
    }

    /// The key of the session's own thing.
    pub fn own_key(&self) -> Option<&str> {
        match self {
            Self::User(_) => None,
            Self::Application { thing_key, .. } => Some(thing_key.as_str()),
        }
    }

    /// The name for people: e-mail address or thing key.
    pub fn name(&self) -> &str {
        match self {
            Self::User(user) => &user.email,
            Self::Application { thing_key, .. } => thing_key.as_str(),
        }
    }
}

/// What a login identifies: a user, or a thing of an organisation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Principal {
    /// A user.
    User(UserId),
    /// A thing.
    Thing(OrgId, ThingKey),
}

impl Principal {
    /// The key of the thing, if it is one.
    pub fn own_key(&self) -> Option<&str> {
        match self {
            Self::User(_) => None,
            Self::Thing(_, key) => Some(key.as_str()),
        }
    }
}

/// The two kinds of session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A person's.
    User,
    /// A device's.
    Application,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::Application];

    /// The name on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Application => "application",
        }
    }
}

/// How long a session may live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lifetime {
    /// As long as its connection.
    Connection,
    /// Until it is idle for its TTL, at the latest until this time. It survives a restart.
    Until(Timestamp),
}

/// The status of a session.
//
// The words are Cognite's (`docs/protocol/cognite.md` A2).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = LoginStatus)]
pub enum Status {
    /// It lives.
    Active,
    /// Its owner ended it, or its connection is gone.
    LoggedOut,
    /// It was idle, or lived, too long.
    Expired,
    /// Somebody else ended it.
    Revoked,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 4] = [Self::Active, Self::LoggedOut, Self::Expired, Self::Revoked];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::LoggedOut => "LOGGED_OUT",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `session.end` or MQTT DISCONNECT by its owner.
    LoggedOut,
    /// The connection was closed by the peer or the network.
    ConnectionLost,
    /// No packet for too long a part of the keep-alive time.
    KeepAlive,
    /// A newer connection with the same login and client id took over, or the login had as many
    /// sessions as it may.
    Replaced,
    /// Idle for longer than its TTL.
    Idle,
    /// Older than the longest age.
    MaxAge,
    /// Somebody with the right to do so ended it.
    Revoked,
    /// The peer broke the protocol.
    ProtocolError,
    /// The server stopped.
    ServerStopped,
    /// Its connection closed to make room for others.
    MadeWay,
    /// Its user, application or thing was disabled.
    Banned,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::LoggedOut,
        Self::ConnectionLost,
        Self::KeepAlive,
        Self::Replaced,
        Self::Idle,
        Self::MaxAge,
        Self::Revoked,
        Self::ProtocolError,
        Self::ServerStopped,
        Self::MadeWay,
        Self::Banned,
    ];

    /// The name on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::ConnectionLost => "connection_lost",
            Self::KeepAlive => "keep_alive",
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::Revoked => "revoked",
            Self::ProtocolError => "protocol_error",
            Self::ServerStopped => "server_stopped",
            Self::MadeWay => "made_way",
            Self::Banned => "banned",
        }
    }

    /// Whether somebody took away the right to the session: what hangs on the right ends with it.
    pub const fn is_revocation(self) -> bool {
        matches!(self, Self::Revoked | Self::Banned)
    }

    /// The status of a session that ended so.
    pub const fn status(self) -> Status {
        match self {
            Self::Idle | Self::MaxAge | Self::KeepAlive => Status::Expired,
            Self::Revoked | Self::Banned => Status::Revoked,
            _ => Status::LoggedOut,
        }
    }
}

/// The end of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: Timestamp,
}

/// One entry of `orgSwitches`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrgSwitch {
    /// The organisation switched to.
    pub org_id: OrgId,
    /// Its key at that time.
    pub org_key: String,
    /// When.
    pub ts: Timestamp,
}

/// The time of a session in an organisation that it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stay {
    /// The organisation.
    pub org: OrgId,
    /// When it came.
    pub since: Timestamp,
    /// When it went.
    pub until: Timestamp,
}

/// Where a session is and what it may do there.
#[derive(Clone, Debug)]
pub struct OrgContext {
    /// The current organisation and the rights in it.
    pub access: Arc<Access>,
    /// When it came here.
    pub since: Timestamp,
    /// The switches so far, oldest first.
    pub switches: Vec<OrgSwitch>,
    /// The definition of its thing.
    pub definition: Option<ThingDefId>,
}

/// What a client said of its connection when it came.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Link {
    /// The level of MQTT in its CONNECT: 3, 4 or 5; 0: it does not speak MQTT.
    pub mqtt_level: u8,
    /// Seconds of its keep-alive; 0: none.
    pub keep_alive_s: u16,
}

impl Link {
    /// The version of MQTT as people write it, if it speaks MQTT.
    pub const fn mqtt_version(self) -> Option<&'static str> {
        match self.mqtt_level {
            3 => Some("3.1"),
            4 => Some("3.1.1"),
            5 => Some("5"),
            _ => None,
        }
    }
}

/// Everything that a new session is made of.
pub struct Start {
    /// The secret id.
    pub id: SessionId,
    /// Whose it is.
    pub who: Who,
    /// MQTT client id, or the application id of a login over TCP or HTTP.
    pub client_id: Box<str>,
    /// The token with which it began, unless it is an application's first.
    pub token: Option<Arc<Token>>,
    /// The organisation it starts in, and the rights there.
    pub access: Arc<Access>,
    /// How it is connected.
    pub conn: ConnInfo,
    /// What its client said when it connected.
    pub link: Link,
    /// What its client over HTTP calls itself.
    pub user_agent: Option<UserAgent>,
    /// The definition of its thing.
    pub definition: Option<ThingDefId>,
    /// How long it may live.
    pub lifetime: Lifetime,
    /// The live connection, for a session that is bound to one.
    pub outbox: Option<Arc<Outbox>>,
}

/// What is known of a session that no connection holds, or none any more: kept apart, so that those
/// of devices need no room for it.
pub(super) struct Unbound {
    /// What had come and gone when it was stored.
    pub(super) traffic: Option<Traffic>,
    pub(super) user_agent: Option<UserAgent>,
}

impl Unbound {
    pub(super) fn of(traffic: Option<Traffic>, user_agent: Option<UserAgent>) -> Option<Box<Self>> {
        let is_known = traffic.is_some() || user_agent.is_some();
        is_known.then(|| Box::new(Self { traffic, user_agent }))
    }
}

/// A session. Only the counters change by themselves; everything else changes through the
/// [`Directory`](super::Directory).
pub struct Session {
    pub(super) reference: SessionRef,
    /// The secret id, as soon as its owner has shown it to this process: it is never on disk.
    pub(super) id: OnceLock<SessionId>,
    /// Tells sessions that started in the same millisecond apart.
    pub(super) serial: u64,
    pub(super) who: Who,
    pub(super) token: Option<Arc<Token>>,
    /// Shared with others of its application that have the same.
    pub(super) client_id: Arc<str>,
    pub(super) conn: ConnInfo,
    pub(super) link: Link,
    pub(super) lifetime: Lifetime,
    pub(super) ttl_s: u64,
    pub(super) started: Timestamp,
    pub(super) context: RwLock<OrgContext>,
    /// Those of `context`, where every command can ask for its own without the lock.
    permissions: SharedPermissions,
    pub(super) end: OnceLock<End>,
    /// Whether it goes on without a second factor that its user has to have.
    pub(super) spared_enrolment: AtomicBool,
    /// Whether it was revoked after it had ended otherwise.
    pub(super) revoked: AtomicBool,
    pub(super) outbox: Option<Arc<Outbox>>,
    /// What only sessions have that no connection holds.
    pub(super) unbound: Option<Box<Unbound>>,
    /// What listings ask first ([`Facets`]).
    pub(super) facets: AtomicU64,
    /// Its entry in the timing wheel.
    pub(super) timer: AtomicU32,
    /// Whether the counters have changed since they were last stored.
    pub(super) stale: AtomicBool,
    /// Whether its place is one of those that are kept for administrators.
    pub(super) reserved: bool,
    /// Whether it is in no directory.
    pub(super) detached: bool,
    /// The session of the directory for which this one asks in another organisation.
    original: Option<Arc<Self>>,
    pub(super) hot: Place,
    window: Window,
    /// That of all sessions of the login, while it is one of them.
    pub(super) login_window: OnceLock<Arc<Window>>,
    /// What failed; nothing is kept as long as nothing has.
    failures: OnceLock<Box<Failures>>,
}

impl Session {
    pub(super) fn new(start: Start, serial: u64, ttl_s: u64, now: Timestamp) -> Self {
        let (reference, id) = (SessionRef::of(&start.id), OnceLock::from(start.id));
        Self { id, serial, ..Self::known(reference, start, ttl_s, now) }
    }

    /// A session that is in no directory: of who asks without a login. Nobody finds it, it has no
    /// place and no end.
    pub fn detached(start: Start, now: Timestamp) -> Self {
        Self { detached: true, ..Self::new(start, 0, 0, now) }
    }

    /// The same session as it would be with this access, for somebody who looks at an organisation
    /// without going there: it is in no directory, and ends with the original.
    #[must_use]
    pub fn seen_with(self: &Arc<Self>, access: Arc<Access>, now: Timestamp) -> Self {
        let start = Start {
            // Not looked at.
            id: SessionId::from_random([0; 12]),
            who: self.who.clone(),
            client_id: Box::default(),
            token: self.token.clone(),
            access,
            conn: self.conn,
            link: self.link,
            user_agent: None,
            definition: None,
            lifetime: self.lifetime,
            outbox: None,
        };
        let known = Self::known(self.reference, start, self.ttl_s, now);
        Self { original: Some(self.clone()), serial: self.serial, ..known }
    }

    /// A session with this handle, whose secret id and number are not known.
    pub(super) fn known(reference: SessionRef, start: Start, ttl_s: u64, now: Timestamp) -> Self {
        Self {
            reference,
            id: OnceLock::new(),
            serial: 0,
            who: start.who,
            token: start.token,
            client_id: start.client_id.into(),
            conn: start.conn,
            link: start.link,
            lifetime: start.lifetime,
            ttl_s,
            started: now,
            permissions: start.access.permissions.into(),
            context: RwLock::new(OrgContext {
                access: start.access,
                since: now,
                switches: Vec::new(),
                definition: start.definition,
            }),
            end: OnceLock::new(),
            spared_enrolment: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            outbox: start.outbox,
            unbound: Unbound::of(None, start.user_agent),
            facets: AtomicU64::new(0),
            timer: AtomicU32::new(super::wheel::NO_TIMER),
            stale: AtomicBool::new(false),
            reserved: false,
            detached: false,
            original: None,
            hot: Place::Own(Box::new(Hot::new(now))),
            window: Window::default(),
            login_window: OnceLock::new(),
            failures: OnceLock::new(),
        }
    }

    /// The public handle.
    pub const fn reference(&self) -> SessionRef {
        self.reference
    }

    /// The secret id; none for a session from before a restart whose owner has not come back.
    pub fn id(&self) -> Option<&SessionId> {
        self.id.get()
    }

    /// Whether it goes on without a second factor that its user has to have.
    pub fn is_spared_enrolment(&self) -> bool {
        self.spared_enrolment.load(Ordering::Relaxed)
    }

    /// The public handle as Element and Cognite have it.
    pub fn uuid(&self) -> SessionUuid {
        self.reference.uuid()
    }

    /// Its place among the sessions of its login.
    pub fn mark(&self) -> Mark {
        Mark { started: self.started, uuid: self.uuid() }
    }

    /// Whether it is in no directory: it is that of one request on the server's machine.
    pub const fn is_detached(&self) -> bool {
        self.detached
    }

    /// Why it may not go on, as far as the records of its principal tell that it was restored with.
    pub fn unwelcome(&self, now: Timestamp) -> Option<Reason> {
        let ban = match &self.who {
            Who::User(user) => &user.ban,
            Who::Application { application, .. } => &application.ban,
        };
        let lapsed = || self.token.as_ref().is_some_and(|token| token.terms.check(now).is_err());
        match ban.is_banned(now) {
            true => Some(Reason::Banned),
            false => lapsed().then_some(Reason::Revoked),
        }
    }

    /// Whose it is.
    pub const fn who(&self) -> &Who {
        &self.who
    }

    /// The token with which it began, as it was then; none: an application's first, or a user's
    /// password.
    pub const fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }

    /// A number that no other session of this process has.
    pub const fn number(&self) -> u64 {
        self.serial
    }

    /// User or application.
    pub const fn kind(&self) -> Kind {
        match self.who {
            Who::User(_) => Kind::User,
            Who::Application { .. } => Kind::Application,
        }
    }

    /// MQTT client id or application id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// How it is connected.
    pub const fn conn(&self) -> &ConnInfo {
        &self.conn
    }

    /// What its client said when it connected.
    pub const fn link(&self) -> Link {
        self.link
    }

    /// What has come and gone on its connection; none if it is bound to none.
    pub fn traffic(&self) -> Option<Traffic> {
        match &self.outbox {
            Some(outbox) => Some(outbox.counters().read()),
            None => self.unbound.as_ref()?.traffic,
        }
    }

    /// Whether that is known: for ever, or never.
    pub fn has_traffic(&self) -> bool {
        self.outbox.is_some() || self.unbound.as_ref().is_some_and(|it| it.traffic.is_some())
    }

    /// Reads something from each part of the memory that a row of it needs; the result says
    /// nothing. Who calls this for several, one after the other, waits for the memory of all of
    /// them at the same time, and then writes their rows.
    pub fn fetch(&self) -> u64 {
        let name = self.who.name().as_bytes().first().copied().unwrap_or_default();
        let counters = self.outbox.as_ref().map_or(0, |outbox| outbox.counters().read().bytes_in);
        let parts = [
            name.into(),
            counters,
            self.hot.hot().command_count.load(Ordering::Relaxed),
            self.reference.as_bytes()[0].into(),
            self.conn.remote_addr.port().into(),
            self.context.is_locked().into(),
            self.end.get().is_some().into(),
            self.unbound.as_ref().is_some_and(|unbound| unbound.traffic.is_some()).into(),
            self.client_id.len() as u64,
            self.link.keep_alive_s.into(),
            self.serial,
            self.ttl_s,
            self.started.as_millis() as u64,
            self.token.is_some().into(),
            self.outbox.is_some().into(),
        ];
        parts.into_iter().fold(0, |all, part| all ^ part)
    }

    /// What its client over HTTP calls itself.
    pub fn user_agent(&self) -> Option<&UserAgent> {
        self.unbound.as_ref()?.user_agent.as_ref()
    }

    /// Bound to its connection or not.
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Idle time in seconds after which it expires; 0: never.
    pub const fn ttl_s(&self) -> u64 {
        self.ttl_s
    }

    /// When it started.
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// When its last command came.
    pub fn last_accessed(&self) -> Timestamp {
        self.hot.hot().last_accessed()
    }

    /// When its last sign of life came, be it a command or not.
    pub fn last_active(&self) -> Timestamp {
        self.hot.hot().last_active()
    }

    /// How many commands came.
    pub fn command_count(&self) -> u64 {
        self.hot.hot().command_count.load(Ordering::Relaxed)
    }

    /// Its current organisation and rights.
    pub fn access(&self) -> Arc<Access> {
        self.context.read().access.clone()
    }

    /// Its current organisation, rights, and the switches so far.
    pub fn context(&self) -> OrgContext {
        self.context.read().clone()
    }

    /// As [`Session::context`], without a copy; `look` must be short, for nobody can end or move
    /// the session meanwhile.
    pub fn with_context<T>(&self, look: impl FnOnce(&OrgContext) -> T) -> T {
        look(&self.context.read())
    }

    /// Whether it may use a command now.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.allows(permission)
    }

    /// Everything that it may use now.
    pub fn permissions(&self) -> PermissionSet {
        self.context.read().access.permissions
    }

    /// The current organisation's id.
    pub fn org_id(&self) -> OrgId {
        self.context.read().access.org.id
    }

    /// Whether it may publish to an ordinary topic now.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.context.read().access.topic_publish.allows(topic, self.who.own_key())
    }

    /// Lets go of the topics that it might publish and subscribe to: nothing more comes of it. What is
    /// known of it is kept long, and what its roles were then may be large.
    pub fn forget_topics(&self) {
        self.context.write().forget_topics();
    }

    /// How it ended; none while it lives.
    pub fn end(&self) -> Option<End> {
        if let Some(original) = &self.original {
            return original.end();
        }
        let end = *self.end.get()?;
        let revoked = self.revoked.load(Ordering::Relaxed);
        Some(if revoked { End { reason: Reason::Revoked, ..end } } else { end })
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.end().map_or(Status::Active, |end| end.reason.status())
    }

    /// The live connection.
    pub fn outbox(&self) -> Option<&Arc<Outbox>> {
        self.outbox.as_ref()
    }

    /// Notes that `commands` commands have come.
    pub fn touch(&self, now: Timestamp, commands: u64) {
        let hot = self.hot.hot();
        hot.last_accessed.store(now.as_millis(), Ordering::Relaxed);
        hot.last_active.store(now.as_millis(), Ordering::Relaxed);
        hot.command_count.fetch_add(commands, Ordering::Relaxed);
    }

    /// Notes that the connection gave a sign of life that is no command.
    pub fn keep_alive(&self, now: Timestamp) {
        self.hot.hot().last_active.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Whether one more command fits into the current second, of which at most `limit` are allowed
    /// (0: any number).
    pub fn admit(&self, now: Timestamp, limit: u32) -> bool {
        self.window.admit(now, limit)
    }

    /// The same for all sessions of its login together.
    pub fn admit_login(&self, now: Timestamp, limit: u32) -> bool {
        self.login_window.get().is_none_or(|window| window.admit(now, limit))
    }

    /// How many more commands fit into the current second, if at most `limit` are allowed.
    pub fn left(&self, now: Timestamp, limit: u32) -> u32 {
        self.window.left(now, limit)
    }

    /// The same for all sessions of its login together.
    pub fn left_of_login(&self, now: Timestamp, limit: u32) -> u32 {
        self.login_window.get().map_or(limit, |window| window.left(now, limit))
    }

    /// Notes that a command failed so; what failed so far.
    pub fn note_failure(&self, code: Code, now: Timestamp) -> &Failures {
        let failures = self.failures_kept();
        failures.note(code, now);
        failures
    }

    /// What failed so far; kept from now on.
    pub fn failures_kept(&self) -> &Failures {
        self.failures.get_or_init(Box::default)
    }

    /// What failed so far; none if nothing has.
    pub fn failures(&self) -> Option<&Failures> {
        self.failures.get().map(|failures| &**failures)
    }

    /// When it expires if nothing more comes, and why.
    pub fn deadline(&self) -> (Timestamp, Reason) {
        let idle = match self.ttl_s {
            0 => Timestamp::NEVER,
            ttl_s => self.last_active().plus_seconds(ttl_s),
        };
        match self.lifetime {
            Lifetime::Until(end) if end < idle => (end, Reason::MaxAge),
            _ => (idle, Reason::Idle),
        }
    }

    /// Ends a session that came from the store and is in no directory.
    pub fn end_unseen(&mut self, end: End) {
        self.end = OnceLock::from(end);
    }

    /// The same session with its end, which was not known where it was read.
    #[must_use]
    pub fn with_end(mut self, end: End) -> Self {
        self.end_unseen(end);
        self
    }

    /// Notes that the counters have to be stored; false when that was noted already.
    pub fn mark_stale(&self) -> bool {
        !self.stale.swap(true, Ordering::Relaxed)
    }

    /// Notes that the counters are about to be stored as they are now.
    pub fn clear_stale(&self) {
        self.stale.store(false, Ordering::Relaxed);
    }

    pub(super) fn facets(&self) -> Facets {
        Facets(self.facets.load(Ordering::Relaxed))
    }

    pub(super) fn set_facets(&self, facets: Facets) {
        self.facets.store(facets.0, Ordering::Relaxed);
    }

    /// The key by which sessions are ordered: start, then serial number.
    pub(super) const fn order(&self) -> (Timestamp, u64) {
        (self.started, self.serial)
    }
}

impl Session {
    /// Gives the session other rights, maybe elsewhere; `context` is its own, which is locked.
    pub(super) fn set_access(&self, context: &mut OrgContext, access: Arc<Access>) {
        self.permissions.set(access.permissions);
        context.access = access;
    }
}

impl OrgContext {
    pub(super) fn forget_topics(&mut self) {
        if self.access.has_filters() {
            self.access = Arc::new(self.access.without_topics());
        }
    }

    pub(super) fn push_switch(&mut self, switch: OrgSwitch) {
        if self.switches.len() >= limits::ORG_SWITCHES_MAX {
            self.switches.remove(0);
        }
        self.switches.push(switch);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("ref", &self.reference)
            .field("who", &self.who.name())
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
