//! What was refused: logins, which are counted and in the trail, and commands, which are counted.
//! The server's log has a line for each who was refused something for a new cause.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, Timestamp};
use rules::directory::{Link, Session, Who};
use rules::identity::{Lapsed, Refusal};
use serde_json::{Map, Value};

use super::App;
use super::login::{LoginError, login_failure};
use crate::events::{Attempt, LoginCause, Refused, SERVER};
use crate::logging::PeerLog;
use crate::peer_log;
use crate::watched_log;

/// Where a login comes from.
#[derive(Clone, Copy)]
pub struct LoginPeer<'a> {
    /// The connection.
    pub conn: ConnInfo,
    /// MQTT client id, or application id; empty if nothing is known.
    pub client_id: &'a str,
    /// What the client said of its connection.
    pub link: Link,
}

impl From<ConnInfo> for LoginPeer<'_> {
    fn from(conn: ConnInfo) -> Self {
        Self { conn, client_id: "", link: Link::default() }
    }
}

/// Whom a login that was refused claimed to be.
#[derive(Clone, Copy)]
pub(super) enum Claim<'a> {
    /// A user of this name.
    User(&'a str),
    /// A thing of this key, with an application's token.
    Thing { key: &'a str, token: &'a str },
    /// An application with this token alone.
    Token(&'a str),
    /// Somebody who has proved who it is.
    Who(&'a Who),
    /// Whoever had the session with an id that is unknown.
    Session,
    /// Another than the client's certificate says.
    Uncertified(&'a str),
}

/// A login that was refused, as it is told of.
struct RefusedLogin<'a> {
    /// What logs in.
    kind: &'static str,
    /// Its name as it was claimed.
    name: &'a str,
    org: Option<base::OrgId>,
    app: Option<&'a str>,
    cause: LoginCause,
    failure: Failure,
}

impl App {
    /// Counts a login that was refused.
    pub(super) fn note_login(
        &self,
        claim: Claim<'_>,
        peer: LoginPeer<'_>,
        error: &LoginError,
        now: Timestamp,
    ) {
        let (kind, name) = match claim {
            Claim::User(name) | Claim::Uncertified(name) => ("user", name),
            Claim::Thing { key, .. } => ("thing", key),
            Claim::Token(_) => ("token", ""),
            Claim::Session => ("session", ""),
            Claim::Who(Who::User(user)) => ("user", &*user.email),
            Claim::Who(Who::Application { thing_key, .. }) => ("thing", thing_key.as_str()),
        };
        let application = match claim {
            Claim::Thing { token, .. } | Claim::Token(token) => {
                self.records.application_by_token(token)
            }
            Claim::Who(Who::Application { application, .. }) => Some(application.clone()),
            _ => None,
        };
        let user = match claim {
            Claim::User(name) | Claim::Uncertified(name) => self.records.user_by_email(name),
            Claim::Token(token) => self.records.token_of_user(token).map(|(user, _)| user),
            Claim::Who(Who::User(user)) => Some(user.clone()),
            _ => None,
        };
        let org = user.as_ref().map(|user| user.owner());
        let failure = match claim {
            Claim::Session => Failure::session_invalid("is unknown, has ended or has expired."),
            _ => failure_of(error),
        };
        let refused = RefusedLogin {
            kind,
            name,
            org: org.or(application.as_ref().map(|found| found.org)),
            app: application.as_ref().map(|found| &*found.name),
            cause: cause(claim, error, user.is_some()),
            failure,
        };
        self.note_refused_login(refused, peer, now);
    }

    /// Counts a request with the id of a session that there is not.
    pub fn note_unknown_session(&self, conn: ConnInfo, now: Timestamp) {
        self.note_login(Claim::Session, conn.into(), &Refusal::BadCredentials.into(), now);
    }

    /// Counts a login that was refused before anybody looked at its credentials. `name`: whom it
    /// claimed to be, if it said so.
    pub fn note_bad_login(
        &self,
        name: &str,
        peer: LoginPeer<'_>,
        cause: LoginCause,
        now: Timestamp,
    ) {
        let kind = match name {
            "" => "unknown",
            name if name.contains('@') => "user",
            _ => "thing",
        };
        let user = self.records.user_by_email(name);
        let failure = match cause {
            LoginCause::Full => Failure::new(Code::BUSY, "The server is full; try again."),
            cause => {
                let sentence = format!("Login refused: {}.", cause.meaning());
                Failure::new(Code::LOGIN_REFUSED, sentence)
            }
        };
        let org = user.map(|user| user.owner());
        let refused = RefusedLogin { kind, name, org, app: None, cause, failure };
        self.note_refused_login(refused, peer, now);
    }

    fn note_refused_login(&self, refused: RefusedLogin<'_>, peer: LoginPeer<'_>, now: Timestamp) {
        static LOG: PeerLog = PeerLog::new(20);
        let RefusedLogin { kind, name, org, app, cause, failure } = refused;
        let LoginPeer { conn, client_id, link } = peer;
        let version = link.mqtt_version();
        self.metrics.login_refused(conn.protocol, cause);
        let (now, org) = (self.clock.shown(now), org.unwrap_or(SERVER));
        let (name, client_id) = (self.shown(name), self.shown(client_id));
        let mut row = Map::new();
        let mut set = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        set("kind", kind.into());
        set("cause", cause.as_str().into());
        set("protocol", conn.protocol.as_str().into());
        if !name.is_empty() {
            set("whoAmI", name.clone().into());
        }
        let client_id = Some(client_id).filter(|id| !id.is_empty());
        for (member, value) in
            [("appName", app), ("clientId", client_id.as_deref()), ("protocolVersion", version)]
        {
            if let Some(value) = value {
                set(member, value.into());
            }
        }
        let code = failure.code.0;
        let row = self.refusal(row, org, LOGIN, code.into(), &failure.message);
        let attempt = Attempt::Login {
            name: name.to_lowercase().into(),
            cause,
            door: conn.protocol,
            mqtt_level: link.mqtt_level,
        };
        let is_news = self.events.refuse(Refused { org, attempt, from: conn, row }, now);
        let is_watched = self.watched.has(&name, conn.remote_addr.ip());
        if is_news || is_watched {
            let (peer, door, cause) = (conn.remote_addr, conn.protocol.as_str(), cause.as_str());
            let (who, client_id) =
                (Some(&*name).filter(|who| !who.is_empty()), client_id.as_deref());
            peer_log!(
                LOG, who, kind, app, client_id, %peer, door, version, cause, code,
                "a login was refused"
            );
        }
    }

    /// Counts what failed of somebody who has no session: a user, by each request's credentials.
    pub fn note_failure_of(&self, who: &str, conn: &ConnInfo, command: &str, failure: &Failure) {
        static LOG: PeerLog = PeerLog::new(5);
        self.metrics.command_failed(failure.code);
        let asked = Asked { who: Some(who), ..Asked::default() };
        self.say_failure(&LOG, asked, conn, command, failure);
    }

    /// Counts a command that failed, or a request of which nothing was executed: then the command
    /// is empty.
    pub fn note_failure(
        &self,
        session: Option<&Arc<Session>>,
        conn: &ConnInfo,
        command: &str,
        failure: &Failure,
        now: Timestamp,
    ) {
        static LOG: PeerLog = PeerLog::new(20);
        static STRANGERS: PeerLog = PeerLog::new(5);
        self.metrics.command_failed(failure.code);
        let Some(session) = session else {
            // What a login was refused for has a line of its own.
            if !matches!(
                failure.code,
                Code::LOGIN_REFUSED
                    | Code::LOGIN_LOCKED
                    | Code::SECOND_FACTOR_WANTED
                    | Code::SESSION_INVALID
            ) {
                self.say_failure(&STRANGERS, Asked::default(), conn, command, failure);
            }
            return;
        };
        let failures = session.note_failure(failure.code, now);
        let code = failure.code.0;
        watched_log!(
            self,
            Some(&**session),
            conn,
            command = self.shown(command),
            code,
            "a command failed"
        );
        if failures.is_news(failure.code)
            && self.say_failure(&LOG, Asked::of(session), conn, command, failure)
        {
            failures.told(failure.code);
        }
    }

    /// Writes a line on a command that failed, if there is room for one more in this second.
    fn say_failure(
        &self,
        log: &PeerLog,
        asked: Asked<'_>,
        conn: &ConnInfo,
        command: &str,
        failure: &Failure,
    ) -> bool {
        if !tracing::enabled!(tracing::Level::INFO) {
            return false;
        }
        let Some(suppressed) = log.admit() else { return false };
        let Asked { who, org, app, client_id } = asked;
        let command = Some(self.shown(command)).filter(|name| !name.is_empty());
        let client_id = client_id.map(|id| self.shown(id));
        let (peer, door) = (conn.remote_addr, conn.protocol.as_str());
        let (code, reason) = (failure.code.0, self.shown(&failure.message));
        tracing::info!(
            suppressed,
            who,
            org,
            app,
            client_id,
            %peer,
            door,
            command,
            code,
            reason,
            "a command failed"
        );
        true
    }
}

/// Who asked for what failed, as far as it is known.
#[derive(Default)]
struct Asked<'a> {
    who: Option<&'a str>,
    org: Option<String>,
    app: Option<&'a str>,
    client_id: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(session: &'a Session) -> Self {
        let app = match session.who() {
            Who::Application { application, .. } => Some(&*application.name),
            Who::User(_) => None,
        };
        let client_id = Some(session.client_id()).filter(|id| !id.is_empty());
        Self {
            who: Some(session.who().name()),
            org: Some(session.access().org.key.clone()),
            app,
            client_id,
        }
    }
}

/// What a login is called where commands stand.
pub const LOGIN: &str = "login";

/// What is said of a login that failed, without a line in the log of the server: who waits for the
/// answer has one.
fn failure_of(error: &LoginError) -> Failure {
    match error {
        LoginError::Store(_) | LoginError::Random(_) => {
            Failure::new(Code::INTERNAL, "The server could not start a session.")
        }
        error => login_failure(error),
    }
}

/// Why a login was refused.
const fn cause(claim: Claim<'_>, error: &LoginError, known: bool) -> LoginCause {
    match (claim, error) {
        (Claim::Session, _) => LoginCause::UnknownSession,
        (Claim::Uncertified(_), _) => LoginCause::Certificate,
        (Claim::User(_), LoginError::Refused(Refusal::BadCredentials)) if known => {
            LoginCause::WrongPassword
        }
        (Claim::User(_), LoginError::Refused(Refusal::BadCredentials)) => LoginCause::UnknownUser,
        (_, LoginError::Refused(refusal)) => match refusal {
            Refusal::BadCredentials => LoginCause::UnknownToken,
            Refusal::UnknownThing => LoginCause::UnknownThing,
            Refusal::BadThingKey => LoginCause::BadThingKey,
            Refusal::NoAccess => LoginCause::NoAccess,
            Refusal::CodeWanted | Refusal::CodeMissing => LoginCause::SecondFactor,
            Refusal::BadCode => LoginCause::WrongCode,
            Refusal::Lapsed(Lapsed::Expired) => LoginCause::TokenExpired,
            Refusal::Lapsed(Lapsed::Disabled) => LoginCause::TokenDisabled,
            Refusal::Busy => LoginCause::Busy,
            Refusal::Locked { .. } => LoginCause::Locked,
        },
        (_, LoginError::Banned(_)) => LoginCause::Banned,
        (_, LoginError::TooMany(_)) => LoginCause::Rate,
        (_, LoginError::Full(_) | LoginError::NoPlace(_) | LoginError::NoThing(_)) => {
            LoginCause::Full
        }
        (_, LoginError::Store(_) | LoginError::Random(_)) => LoginCause::Failed,
    }
}
