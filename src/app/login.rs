//! Logins: credentials become a session. Also the password check for requests without a session.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base::pool::OverShare;
use base::{
    Code, ConnInfo, Door, Failure, Protocol, SessionId, ThingDefId, ThingId, ThingKey, Timestamp,
    UserAgent, beginning, limits, working_for,
};
use rules::directory::{
    End, Full, Lifetime, Link, Outbox, Principal, PrincipalId, Reason, Session, Start, Who,
};
use rules::identity::model::{Application, User};
use rules::identity::{Access, Ban, Limit, Refusal, Token};
use store::{Batch, Receipt, StoreError};

use super::App;
use super::bearer::Bearer;
use super::certificates::Proof;
use super::connections::{NoPlace, Place};
use super::holder::at_home;
use super::login_rates::{LoginBegun, TooManyLogins, Wish};
use super::refused::{Claim, LoginPeer};
use super::second_factor::{CodeBy, same_login};
use crate::events::Kind;
use crate::random::{NoRandom, random};
use crate::things::registry::{Found, NotAdded, Thing};

/// Who somebody claims to be, and the proof. Never printed: it has no `Debug`.
pub enum Credentials {
    /// A person.
    User {
        /// E-mail address.
        name: String,
        /// Password; or the code of the second factor, in a second call.
        password: String,
        /// The code of the second factor, if it comes with the password.
        code: Option<String>,
    },
    /// An application on a thing.
    Application {
        /// The thing's key.
        thing_key: String,
        /// The application's token.
        token: String,
        /// What the application calls itself.
        app_id: String,
    },
}

impl Credentials {
    /// The name that is claimed.
    fn name(&self) -> &str {
        match self {
            Self::User { name, .. } => name,
            Self::Application { thing_key, .. } => thing_key,
        }
    }
}

/// How a login arrives on a connection.
pub struct Arrival {
    /// From where.
    pub conn: ConnInfo,
    /// MQTT client id, or application id.
    pub client_id: Box<str>,
    /// What the client said of its connection.
    pub link: Link,
    /// Whether it replaces a connection with the same login and client id.
    pub takes_over: bool,
    /// Whether an earlier login on the connection has taken a place for it.
    pub has_place: bool,
    /// The connection that the session is bound to.
    pub outbox: Arc<Outbox>,
}

/// Where a login comes from that no connection is to hold.
pub struct LoginFrom {
    /// The connection.
    pub conn: ConnInfo,
    /// What its client over HTTP calls itself.
    pub user_agent: Option<UserAgent>,
}

impl From<ConnInfo> for LoginFrom {
    fn from(conn: ConnInfo) -> Self {
        Self { conn, user_agent: None }
    }
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Identity says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is disabled.
    #[error(transparent)]
    Banned(#[from] Banned),
    /// The principal has logged in too often.
    #[error(transparent)]
    TooMany(#[from] TooManyLogins),
    /// The directory has no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// There is no place for its connection.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// There is no room for the thing that would register itself.
    #[error(transparent)]
    NoThing(#[from] OverShare),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// Why somebody who has proved who it is may not log in: it is disabled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this {what} is disabled{}", why(.reason))]
pub struct Banned {
    what: &'static str,
    /// For users; a device has nobody to read it.
    reason: String,
}

fn why(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl Banned {
    /// Fails if the ban holds.
    fn check(what: &'static str, ban: &Ban, now: Timestamp) -> Result<(), Self> {
        if !ban.is_banned(now) {
            return Ok(());
        }
        let reason = if what == USER { ban.reason.clone() } else { String::new() };
        Err(Self { what, reason })
    }
}

const USER: &str = "user";
const THING: &str = "thing";
const APPLICATION: &str = "application";

impl From<NotAdded> for LoginError {
    fn from(error: NotAdded) -> Self {
        match error {
            NotAdded::Full(over) => Self::NoThing(over),
            NotAdded::Store(error) => Self::Store(error),
        }
    }
}

/// A user who has shown an API token.
type UserByToken = (Arc<User>, Arc<Token>);

/// A principal that has proved who it is.
struct Admitted {
    who: Who,
    /// The token it has shown, unless it is an application's first.
    token: Option<Arc<Token>>,
    access: Arc<Access>,
    /// For the registration of its thing.
    registration: Receipt,
    client_id: Option<Box<str>>,
    /// Counts it as a login under way.
    begun: Option<LoginBegun>,
    /// The definition of its thing.
    definition: Option<ThingDefId>,
}

impl App {
    /// Logs in and starts a session that lives as long as its connection, which gets a place unless
    /// it has one, or is none of a listener's.
    ///
    /// # Errors
    ///
    /// The credentials are refused, or there is no room.
    pub async fn login_bound(
        &self,
        credentials: Credentials,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(Arc<Session>, Option<Place>), LoginError> {
        let Arrival { conn, client_id, link, takes_over, has_place, outbox } = arrival;
        let peer = LoginPeer { conn, client_id: &client_id, link };
        let admitted = self.admit(credentials, peer, true, now).await?;
        let begun = admitted.begun;
        let who = admitted.who.clone();
        let named = admitted.client_id.unwrap_or_else(|| client_id.clone());
        let replaces = || takes_over && self.takes_over(&who, &named);
        let place = match has_place {
            true => Ok(None),
            false => self.take_place(&conn, &who, replaces).map_err(LoginError::from),
        };
        let place =
            place.inspect_err(|error| self.note_login(Claim::Who(&who), peer, error, now))?;
        let start = Start {
            id: SessionId::from_random(random()?),
            who: admitted.who,
            token: admitted.token,
            client_id: named,
            access: admitted.access,
            conn,
            link,
            user_agent: None,
            definition: admitted.definition,
            lifetime: Lifetime::Connection,
            outbox: Some(outbox),
        };
        let registered = admitted.registration.await.map_err(LoginError::from);
        let start = |()| {
            let session = self.start(start, takes_over, now)?;
            if let Some(begun) = begun {
                begun.connected(self.sessions.bound_of(&who.principal()).unwrap_or_default());
            }
            self.follow_start(&session, now)?;
            Ok((session, place))
        };
        let asker = at_home(Self::home_of(&who));
        let started = registered.and_then(|done| working_for(Some(asker), || start(done)));
        self.note_outcome(started.as_ref().map(|_| ()), &who, peer, now);
        started
    }

    /// Counts a login of who has proved who it is.
    fn note_outcome(
        &self,
        started: Result<(), &LoginError>,
        who: &Who,
        peer: LoginPeer<'_>,
        now: Timestamp,
    ) {
        match started {
            Ok(()) => self.metrics.login(peer.conn.protocol),
            Err(error) => self.note_login(Claim::Who(who), peer, error, now),
        }
    }

    /// Whether a login with this client id takes over from a connection.
    fn takes_over(&self, who: &Who, client_id: &str) -> bool {
        let others = self.sessions.of_principal(&who.principal());
        let is_bound = |other: &Session| other.lifetime() == Lifetime::Connection;
        others.iter().any(|other| is_bound(other) && other.client_id() == client_id)
    }

    /// Logs in and starts a session that is bound to no connection. When it returns, the session
    /// survives a crash of the server, unless the store takes nothing at the moment.
    ///
    /// # Errors
    ///
    /// As [`App::login_bound`].
    pub async fn login_unbound(
        &self,
        credentials: Credentials,
        from: impl Into<LoginFrom>,
        now: Timestamp,
    ) -> Result<Arc<Session>, LoginError> {
        let from = from.into();
        let conn = from.conn;
        let client_id = match &credentials {
            Credentials::Application { app_id, .. } => app_id.clone(),
            Credentials::User { .. } => String::new(),
        };
        let peer = LoginPeer { conn, client_id: &client_id, link: Link::default() };
        let admitted = self.admit(credentials, peer, false, now).await?;
        let who = admitted.who.clone();
        let home = Self::home_of(&who);
        let start = async {
            self.count_asker(&conn, home, who.name())?;
            self.start_admitted(admitted, from, now).await
        };
        let started = self.cores.work(Some(at_home(home)), start).await;
        self.note_outcome(started.as_ref().map(|_| ()), &who, peer, now);
        started
    }

    async fn start_admitted(
        &self,
        admitted: Admitted,
        LoginFrom { conn, user_agent }: LoginFrom,
        now: Timestamp,
    ) -> Result<Arc<Session>, LoginError> {
        let start = Start {
            id: SessionId::from_random(random()?),
            who: admitted.who,
            token: admitted.token,
            client_id: admitted.client_id.unwrap_or_default(),
            access: admitted.access,
            conn,
            link: Link::default(),
            user_agent,
            definition: admitted.definition,
            lifetime: Lifetime::Until(now.plus_seconds(self.sessions.config().max_age_s)),
            outbox: None,
        };
        admitted.registration.await?;
        let (session, events) = self.sessions.start(start, false, now)?;
        if let Some(begun) = admitted.begun {
            begun.done();
        }
        let stored = match self.record(&events) {
            Ok(receipt) => receipt.await,
            // Whoever deletes something has to get in: it lasts until the server ends, and is stored
            // as soon as the store takes something again.
            Err(StoreError::NoRoom | StoreError::Unavailable) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            // Nobody gets its id.
            self.end(&session, Reason::LoggedOut, now);
            return Err(error.into());
        }
        self.follow_start(&session, now)?;
        Ok(session)
    }

    /// Looks again at who has just got a session: what an administrator changed since the
    /// credentials were checked did not find it.
    pub(super) fn follow_start(
        &self,
        session: &Arc<Session>,
        now: Timestamp,
    ) -> Result<(), LoginError> {
        self.notify(&self.refresh_access(session, now));
        if let Who::User(before) = session.who()
            && session.token().is_none()
            && self.records.user(before.id).is_some_and(|user| !same_login(&user, before))
        {
            self.end(session, Reason::Revoked, now);
        }
        if let Some(reason) = self.things.unwelcome(session.who(), self.clock.now())? {
            self.end(session, reason, now);
        }
        match session.end() {
            Some(End { reason: Reason::Revoked, .. }) => Err(Refusal::NoAccess.into()),
            Some(End { reason: Reason::Banned, .. }) => {
                let what = if matches!(session.who(), Who::User(_)) { USER } else { THING };
                Err(Banned { what, reason: String::new() }.into())
            }
            _ => Ok(()),
        }
    }

    /// Who a user is that shows e-mail address and password with every request, or an API token in
    /// place of the password, which comes along; no session starts. It counts as a login does.
    ///
    /// # Errors
    ///
    /// The credentials are refused, or can't be checked now.
    pub async fn recognise(
        &self,
        name: &str,
        password: String,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<(Arc<User>, Option<Arc<Token>>), LoginError> {
        let _timed = self.metrics.login_begins();
        let claim = match conn.certified {
            true => Claim::Uncertified(name),
            false => Claim::User(name),
        };
        let credentials = Credentials::User { name: name.to_owned(), password, code: None };
        let user = match self.behind_certificate(credentials, conn) {
            Ok(Proof::Credentials(Credentials::User { name, password, .. })) => {
                self.prove_user(&name, (password, CodeBy::Nothing), None, conn, now).await
            }
            Ok(Proof::User(name)) => {
                self.certified(&name).map(|user| (user, None)).map_err(LoginError::from)
            }
            Ok(Proof::Credentials(_)) => Err(Refusal::BadCredentials.into()),
            Err(refusal) => Err(refusal.into()),
        };
        let user = user.and_then(|(checked, token)| {
            self.begin_login(Principal::User(checked.id), None, now)?;
            let user = if token.is_some() { checked } else { self.as_now(&checked)? };
            Banned::check(USER, &user.ban, now)?;
            Ok((user, token))
        });
        let user = user.and_then(|(user, token)| {
            match self.records.home_access(&user, token.as_deref()) {
                // Nothing can be set up by this door.
                Some(access) if access.limit == Some(Limit::Enrolment) => {
                    Err(Refusal::CodeMissing.into())
                }
                Some(access) if !self.may_enter(&access, conn) => Err(Refusal::NoAccess.into()),
                _ => Ok((user, token)),
            }
        });
        let user = user.and_then(|(user, token)| {
            self.count_asker(&conn, (user.home, PrincipalId::User(user.id)), &user.email)?;
            Ok((user, token))
        });
        match &user {
            Ok(_) => self.metrics.login(conn.protocol),
            Err(error) => self.note_login(claim, conn.into(), error, now),
        }
        user
    }

    /// The record of a user whose password was right, as it is now: checks wait for their turn, and
    /// an administrator may have changed it meanwhile.
    fn as_now(&self, checked: &User) -> Result<Arc<User>, Refusal> {
        let now = self.records.user(checked.id);
        let same = now.filter(|now| same_login(now, checked));
        same.ok_or(Refusal::NoAccess)
    }

    /// Checks the password of the session's user, which came as this parameter, as a login does; the
    /// failures count with those of logins.
    ///
    /// # Errors
    ///
    /// It is wrong, or can't be checked now.
    pub async fn verify_password(
        &self,
        user: &Arc<User>,
        (parameter, password): (&str, String),
        session: &Session,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let changer = (session.org_id(), session.who().principal());
        let (user, from) = (user.clone(), session.conn().remote_addr.ip());
        match self.passwords.verify_to_change(user, password, changer, from, now).await {
            Ok(_) => Ok(()),
            Err(Refusal::BadCredentials) => {
                let sentence = format!("Parameter \"{parameter}\" is not the user's password.");
                Err(Failure::new(Code::LOGIN_REFUSED, sentence))
            }
            Err(refusal) => Err(change_failure(refusal)),
        }
    }

    /// Forgets the failed logins of a name, or those from an address: how many locks that opens.
    pub fn unlock(&self, name_or_address: &str, now: Timestamp) -> usize {
        let network = name_or_address.trim().parse().ok().map(base::network_of);
        let names = self.passwords.unlock(name_or_address.trim(), network, now);
        names + network.map_or(0, |network| usize::from(self.token_guesses.unlock(network, now)))
    }

    /// Makes the hash of a new password for the session.
    ///
    /// # Errors
    ///
    /// Too many changes of passwords wait.
    pub async fn hash_password(
        &self,
        password: String,
        session: &Session,
    ) -> Result<String, Failure> {
        let changer = (session.org_id(), session.who().principal());
        let hash = self.passwords.hash(password, random()?, changer).await;
        hash.map_err(change_failure)
    }

    /// A session of who has the data directory, and so may do everything: in the organisation of this
    /// key, or in the one above all. It is in no list, needs no room and ends with its request.
    ///
    /// # Errors
    ///
    /// There is no such organisation, or the system has no random numbers.
    pub fn session_on_machine(
        &self,
        org_key: Option<&str>,
        name: String,
        now: Timestamp,
    ) -> Result<Arc<Session>, Failure> {
        let org = match org_key {
            Some(key) => self.records.org_by_key(key),
            None => self.records.orgs().into_iter().find(|org| org.parent.is_none()),
        };
        let named = org_key.unwrap_or_default();
        let org = org.ok_or_else(|| Failure::not_found(format!("Organisation \"{named}\"")))?;
        let user = User::on_machine(name, org.id, self.clock.shown(now));
        let access = self.records.user_access(&user, &org);
        let access = access.ok_or_else(|| Failure::not_found("The organisation"))?;
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let start = Start {
            id: SessionId::from_random(random()?),
            token: None,
            who: Who::User(Arc::new(user)),
            client_id: Box::default(),
            access: Arc::new(access),
            conn: ConnInfo { door: Door::Control, ..ConnInfo::new(Protocol::Tcp, here) },
            link: Link::default(),
            user_agent: None,
            definition: None,
            lifetime: Lifetime::Connection,
            outbox: None,
        };
        Ok(Arc::new(Session::detached(start, now)))
    }

    /// The session with this id, if it may be used over this connection.
    pub fn session(&self, id: &SessionId, conn: ConnInfo) -> Option<Arc<Session>> {
        let session = self.sessions.by_id(id)?;
        self.may_enter(&session.access(), conn).then_some(session)
    }

    /// Whether who has this access may use this connection: administrators have a listener of their
    /// own over HTTP where `http.admin_listen` says so.
    pub fn may_enter(&self, access: &Access, conn: ConnInfo) -> bool {
        let is_http = matches!(
            conn.protocol,
            Protocol::Http | Protocol::Https | Protocol::Ws | Protocol::Wss
        );
        let is_bound = is_http && conn.door != Door::Admin;
        self.config.http.admin_listen.is_none() || !is_bound || !access.is_administrators()
    }

    /// Checks who logs in; `client_id`: of a connection to which the session is to be bound.
    async fn admit(
        &self,
        credentials: Credentials,
        mut peer: LoginPeer<'_>,
        is_bound: bool,
        now: Timestamp,
    ) -> Result<Admitted, LoginError> {
        let _timed = self.metrics.login_begins();
        let conn = peer.conn;
        // What an application calls itself, where no client id tells.
        let named = match &credentials {
            Credentials::Application { app_id, .. } if peer.client_id.is_empty() => app_id.clone(),
            _ => String::new(),
        };
        if peer.client_id.is_empty() {
            peer.client_id = &named;
        }
        let note = |claim: Claim<'_>, error: &LoginError| self.note_login(claim, peer, error, now);
        let admit_user = |(user, token): (Arc<User>, Option<Arc<Token>>)| {
            let begun = self.begin_login(Principal::User(user.id), Some(is_bound), now)?;
            Banned::check(USER, &user.ban, now)?;
            Ok(Admitted { begun, ..self.admit_user(user, token)? })
        };
        let claimed = match conn.certified {
            true => credentials.name().to_owned(),
            false => String::new(),
        };
        let admitted = match self.behind_certificate(credentials, conn) {
            Err(refusal) => {
                Err(refusal.into()).inspect_err(|error| note(Claim::Uncertified(&claimed), error))
            }
            Ok(Proof::User(name)) => {
                let user = self.certified(&name).map(|user| (user, None));
                let admitted = user.map_err(LoginError::from).and_then(admit_user);
                admitted.inspect_err(|error| note(Claim::Uncertified(&name), error))
            }
            Ok(Proof::Credentials(Credentials::User { name, password, code })) => {
                let code = match code {
                    Some(code) => CodeBy::Given(code),
                    None if peer.link.mqtt_level > 0 => CodeBy::Nothing,
                    None => CodeBy::Call,
                };
                let secret = (password, code);
                let proved = self.prove_user(&name, secret, Some(is_bound), conn, now).await;
                let admitted = proved.and_then(admit_user);
                admitted.inspect_err(|error| note(Claim::User(&name), error))
            }
            Ok(Proof::Credentials(Credentials::Application { thing_key, token, app_id })) => {
                // A session keeps it; client ids have a bound of their own.
                let app_id = match app_id.is_empty() {
                    true => peer.client_id,
                    false => beginning(&app_id, limits::APP_ID_BYTES_MAX),
                };
                let claim = Claim::Thing { key: &thing_key, token: &token };
                if self.cores.are_full() {
                    Box::pin(self.wait_in_turn(&token)).await;
                }
                self.admit_application(&thing_key, &token, app_id, is_bound, conn, now)
                    .inspect_err(|error| note(claim, error))
            }
        };
        match admitted {
            Ok(admitted) if !self.may_enter(&admitted.access, conn) => {
                let error = Refusal::NoAccess.into();
                note(Claim::Who(&admitted.who), &error);
                Err(error)
            }
            admitted => admitted,
        }
    }

    /// The user whom a certificate names.
    fn certified(&self, name: &str) -> Result<Arc<User>, Refusal> {
        self.records.user_by_email(name).ok_or(Refusal::BadCredentials)
    }

    /// The user of this name who shows a password, and a code where it needs one, or in place of the
    /// password an API token, which comes along. `is_bound`: as for [`App::check_password`].
    async fn prove_user(
        &self,
        name: &str,
        (password, code): (String, CodeBy),
        is_bound: Option<bool>,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<(Arc<User>, Option<Arc<Token>>), LoginError> {
        if let Some(found) = self.user_by_token(name, &password, conn, now) {
            return found.map(|(user, token)| (user, Some(token)));
        }
        let checked = self.check_password(name, (password, code), is_bound, conn, now).await;
        checked.map(|user| (user, None))
    }

    /// The user of this name with the API token that came as the password, if it is one.
    fn user_by_token(
        &self,
        name: &str,
        token: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Option<Result<UserByToken, LoginError>> {
        let (user, token) = self.records.token_of_user(token)?;
        let is_its = user.email.to_lowercase() == name.to_lowercase();
        is_its.then(|| self.use_token(user, token, conn, now))
    }

    /// Lets a user in who has shown an API token.
    fn use_token(
        &self,
        user: Arc<User>,
        token: Arc<Token>,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<UserByToken, LoginError> {
        token.terms.check(now).map_err(Refusal::Lapsed)?;
        Banned::check(USER, &user.ban, now)?;
        // A token sets nothing up.
        if self.records.must_enrol(&user) {
            return Err(Refusal::CodeMissing.into());
        }
        self.note_token_use(token.id, conn, now);
        Ok((user, token))
    }

    fn admit_user(&self, user: Arc<User>, token: Option<Arc<Token>>) -> Result<Admitted, Refusal> {
        let access = self.records.home_access(&user, token.as_deref());
        let access = access.ok_or(Refusal::NoAccess)?;
        Ok(Admitted {
            who: Who::User(self.records.user_of_sessions(&user)),
            token,
            access: self.share_access(PrincipalId::User(user.id), access),
            registration: Receipt::nothing(),
            client_id: None,
            begun: None,
            definition: None,
        })
    }

    /// Checks a password, and the second factor of who has one, unless the user has logged in too
    /// often. That is looked at before, for a check takes long, and counted when it is right: nobody's
    /// guesses keep the user out.
    /// `is_bound`: whether the session is to be bound to a connection; none if there is to be none.
    async fn check_password(
        &self,
        name: &str,
        (password, code): (String, CodeBy),
        is_bound: Option<bool>,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Arc<User>, LoginError> {
        let user = self.records.user_by_email(name);
        if let Some(user) = &user {
            let principal = Principal::User(user.id);
            self.login_rates.check(&principal, self.wish(&principal, is_bound), now)?;
            if matches!(code, CodeBy::Call) && self.is_second_call(user, &password, conn, now) {
                return self.check_code(user, &password, conn, now).await;
            }
        }
        let from = conn.remote_addr.ip();
        let user = self.passwords.verify(user, name, password, from, now).await?;
        if !user.second_factor.is_active() {
            return Ok(user);
        }
        // What comes to nothing is counted, too.
        let begun = self.begin_login(Principal::User(user.id), is_bound, now)?;
        let user = self.ask_for_code(&user, code, conn, now).await?;
        if let Some(begun) = begun {
            begun.forget();
        }
        Ok(user)
    }

    /// Counts a login of somebody who has proved who it is.
    fn begin_login(
        &self,
        who: Principal,
        is_bound: Option<bool>,
        now: Timestamp,
    ) -> Result<Option<LoginBegun>, LoginError> {
        let wish = self.wish(&who, is_bound);
        Ok(self.login_rates.begin(who, wish, now)?)
    }

    /// `is_bound`: whether the session is to be bound to a connection; none if there is to be none.
    fn wish(&self, who: &Principal, is_bound: Option<bool>) -> Wish {
        let live = self.sessions.bound_of(who);
        let is_more = is_bound.is_some_and(|is_bound| is_bound || live.is_none());
        Wish { live: live.unwrap_or_default(), is_more }
    }

    /// Whose this token is, if they may come by this connection, and unless too many wrong ones came
    /// from the same network.
    ///
    /// # Errors
    ///
    /// It is wrong, may not come so, or can't be tried now.
    pub fn by_token(
        &self,
        token: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Bearer, LoginError> {
        let found = match self.records.token_of_user(token) {
            Some((user, token)) => self
                .use_token(user, token, conn, now)
                .map(|(user, token)| Bearer::User(user, token)),
            None => self
                .find_application(token, conn, now)
                .map(|(found, token)| Bearer::Application(found, token)),
        };
        let found = found.and_then(|found| {
            let access = self.access_of(&found);
            let may = access.is_some_and(|access| self.may_enter(&access, conn));
            if may { Ok(found) } else { Err(Refusal::NoAccess.into()) }
        });
        match &found {
            Ok(_) => self.metrics.login(conn.protocol),
            Err(error) => self.note_login(Claim::Token(token), conn.into(), error, now),
        }
        found
    }

    /// The application with this token, for who says what was refused; and the token, unless it is
    /// the first.
    fn find_application(
        &self,
        token: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<(Arc<Application>, Option<Arc<Token>>), LoginError> {
        let found = self.records.token_of_application(token);
        let payer = found.as_ref().map(|(found, _)| (found.org, found.id));
        self.token_guesses.note(payer, conn.network(), now)?;
        let (found, token) = found.ok_or(Refusal::BadCredentials)?;
        Banned::check(APPLICATION, &found.ban, now)?;
        let terms = token.as_ref().map_or(&found.first_terms, |token| &token.terms);
        terms.check(now).map_err(Refusal::Lapsed)?;
        let id = token.as_ref().map_or(found.token_id, |token| token.id);
        self.note_token_use(id, conn, now);
        Ok((found, token))
    }

    /// Waits for a turn, if whose token it is is above its share of full cores. It counts whatever
    /// comes of it: a login that is refused is work, too.
    async fn wait_in_turn(&self, token: &str) {
        let Some(application) = self.records.application_by_token(token) else { return };
        let asker = at_home((application.org, PrincipalId::Application(application.id)));
        self.cores.note(asker, limits::LOGIN_WORK);
        drop(self.cores.clone().turn(asker).await);
    }

    fn admit_application(
        &self,
        thing_key: &str,
        token: &str,
        app_id: &str,
        is_bound: bool,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Admitted, LoginError> {
        let (application, token) = self.find_application(token, conn, now)?;
        let access = self.records.application_access(&application).ok_or(Refusal::NoAccess)?;
        let key = ThingKey::parse(thing_key).map_err(|_| Refusal::BadThingKey)?;
        let thing = Principal::Thing(application.org, key.clone());
        let begun = self.begin_login(thing, Some(is_bound), now)?;
        let fresh = ThingId::from_bytes(random()?);
        let (shown, mut numbered) = (self.clock.shown(now), None);
        let registers = |thing: &Thing, batch: &mut Batch| {
            let made = (Kind::ThingCreated, thing);
            numbered = Some(self.add_thing_event(batch, made, &application.name, shown));
        };
        let asker = at_home((application.org, PrincipalId::Application(application.id)));
        let found = working_for(Some(asker), || {
            self.things.log_in(&application, key, app_id, (now, shown), fresh, registers)
        });
        let found = match numbered {
            Some(numbered) => numbered.settle(found)?,
            None => found?,
        };
        let (thing, registration) = match found {
            Found::Thing(thing, registration) => (*thing, registration),
            Found::Banned => return Err(Banned { what: THING, reason: String::new() }.into()),
            Found::Nothing => return Err(Refusal::UnknownThing.into()),
        };
        let access = self.share_access(PrincipalId::Application(application.id), access);
        let application = self.records.application_of_sessions(&application);
        let (client_id, definition) = (Some(app_id.into()), thing.def);
        let who = Who::Application { application, thing_id: thing.id, thing_key: thing.key };
        Ok(Admitted { who, token, access, registration, client_id, begun, definition })
    }

    /// The same value for all sessions of a principal, as long as it does not change.
    fn share_access(&self, principal: PrincipalId, access: Access) -> Arc<Access> {
        let known = self.accesses.get(&principal).map(|entry| entry.value().clone());
        known.filter(|known| **known == access).unwrap_or_else(|| {
            let access = Arc::new(access);
            self.accesses.insert(principal, access.clone());
            access
        })
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        login_failure(&error)
    }
}

/// What TR50 says to a failed login.
pub fn login_failure(error: &LoginError) -> Failure {
    match error {
        LoginError::Refused(Refusal::Locked { seconds }) => {
            let sentence = format!("Too many failed logins; try again in {seconds} seconds.");
            Failure::new(Code::LOGIN_LOCKED, sentence).after(*seconds)
        }
        LoginError::TooMany(too_many) => {
            let sentence = format!("Login refused: {too_many}.");
            Failure::new(Code::RATE_LIMITED, sentence).after(too_many.seconds)
        }
        LoginError::Full(full) => {
            let sentence = format!("The server can't take another login now: {full}; try again.");
            Failure::new(Code::BUSY, sentence)
        }
        LoginError::NoPlace(full) => (*full).into(),
        LoginError::Banned(banned) => {
            Failure::new(Code::LOGIN_REFUSED, format!("Login refused: {banned}."))
        }
        LoginError::NoThing(over) => {
            let sentence = format!("The thing can't be registered: {over}.");
            Failure::new(Code::BUSY, sentence)
        }
        LoginError::Refused(Refusal::CodeWanted) => {
            let sentence = "User name and password are right; log in again with the code of the \
                            second factor as the password.";
            Failure::new(Code::SECOND_FACTOR_WANTED, sentence)
        }
        LoginError::Refused(Refusal::Busy) => {
            let sentence = "The server can't take another login now: too many passwords wait to be \
                            checked (password_checks); try again.";
            Failure::new(Code::BUSY, sentence)
        }
        LoginError::Store(error) if error.is_temporary() => error.as_failure(),
        LoginError::Store(_) | LoginError::Random(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "a login failed");
            Failure::new(Code::INTERNAL, "The server could not start a session.")
        }
        LoginError::Refused(_) => {
            let sentence = "Login refused: user name, password, thing key or token is not right.";
            Failure::new(Code::LOGIN_REFUSED, sentence)
        }
    }
}

/// What a peer is told whose address has as many connections as it may.
pub const ADDRESS_FULL: &str = "The server is full for your address: limits.connections_per_address, or \
                                nine tenths of limits.connections, is reached; try again.";

/// The failure of any request of such a peer.
pub fn address_full() -> Failure {
    Failure::new(Code::BUSY, ADDRESS_FULL)
}

/// What a change of a password says when it can't be made now.
fn change_failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Busy => {
            let sentence = "The server can't take another change of a password now: too many wait, \
                            and of yours or your organisation's more than of others; try again.";
            Failure::new(Code::BUSY, sentence)
        }
        refusal => login_failure(&refusal.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::demo;
    use super::*;

    #[tokio::test]
    async fn refusals_say_the_token_first() {
        let (app, _) = demo();
        let remote_addr = "192.0.2.1:5".parse().expect("an address");
        let conn = ConnInfo::new(base::Protocol::Tcp, remote_addr);
        let refused = |key: &str, token: &str| {
            let admitted =
                app.admit_application(key, token, "app", true, conn, Timestamp::from_millis(0));
            admitted.map(|_| "admitted").expect_err("refused")
        };
        let token = "demo-token-basicorg";
        for (key, token) in
            [("mower-1", "no such token"), ("mower-1", ""), ("a/b", "no such token")]
        {
            let error = refused(key, token);
            assert!(matches!(error, LoginError::Refused(Refusal::BadCredentials)), "{key} {token}");
        }
        let error = refused("a/b", token);
        assert!(matches!(error, LoginError::Refused(Refusal::BadThingKey)));
        let application = app.identity().application_by_token(token).expect("of the demo");
        let strict = Application { auto_register: false, ..Application::clone(&application) };
        app.records.apply(app.records.turn().put(strict));
        let error = refused("mower-1", token);
        assert!(matches!(error, LoginError::Refused(Refusal::UnknownThing)));
        assert_eq!(app.things.count(application.org), 0);
    }
}
