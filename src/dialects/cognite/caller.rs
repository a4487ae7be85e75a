//! Authentication and authorisation of Cognite's requests.
//!
//! The bearer token is a session's secret id, or an application's token, which has no session. What
//! the caller may do is taken from the records as they are now, not from the session's copy.
//!
//! There are two rules, made of the words of [`Authority`], and the second is narrower
//! (`docs/protocol/cognite.md` A2, A4):
//!
//! * Principals, and what is shown of organisations: the caller is logged into the organisation,
//!   administers it, or sees all.
//! * Login sessions: the caller administers **that very** organisation directly, or is a super
//!   administrator whose session is in it now. Super operators whose session is in it may read
//!   them. The right of an administrator above does not come down.
//!
//! An application that is restricted to itself is shown itself, and no other principal.

use std::sync::Arc;

use base::{ConnInfo, Failure, OrgId, Timestamp, UserId};
use hyper::HeaderMap;
use rules::directory::{Principal, PrincipalId, Session, Who};
use rules::identity::model::{Application, Org, User};
use rules::identity::{Authority, Identity, Limit, Refusal};

use super::error::Error;
use crate::app::{App, Asker, Bearer, Deed, Holder, LoginError};
use crate::dialects::credentials;
use crate::events::{Actor, Known};

/// A principal as it is known now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Account {
    /// A person.
    User(Arc<User>),
    /// An application, which this dialect calls a service account.
    Application(Arc<Application>),
}

impl Account {
    /// The principal's id.
    pub fn id(&self) -> String {
        match self {
            Self::User(user) => user.id.to_string(),
            Self::Application(application) => application.id.to_string(),
        }
    }
}

/// Who asks.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub account: Account,
    /// The organisation that the caller is logged into.
    pub org: Arc<Org>,
    authority: Authority,
    /// Whether it is an application that is restricted to itself.
    restricted: bool,
    session: Option<Arc<Session>>,
}

impl Caller {
    /// Finds out who sent the bearer token. For its session, this is a command.
    ///
    /// # Errors
    ///
    /// There is no such session or application, or it has sent too much.
    pub fn recognise(
        app: &App,
        headers: &HeaderMap,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let token = credentials::bearer(headers).ok_or_else(Error::unauthorized)?;
        let found = app.bearer(token, conn, now).map_err(|error| match error {
            LoginError::Refused(Refusal::Locked { .. }) => Error::locked(),
            _ => Error::unauthorized(),
        })?;
        let (mut session, identity) = (None, app.identity());
        let (caller, counted) = match found {
            Bearer::Session(found) => {
                let counted = app.count_session(&conn, &found);
                let caller = Self::of_session(identity, &found);
                session = Some(found);
                (caller, counted)
            }
            Bearer::Application(found, _) => {
                let home = (found.org, PrincipalId::Application(found.id));
                let counted = app.count_asker(&conn, home, &found.name);
                (Self::of_application(identity, Some(found)), counted)
            }
            Bearer::User(user, token) => {
                let home = (user.home, PrincipalId::User(user.id));
                let counted = app.count_asker(&conn, home, &user.email);
                let is_narrow = token.permissions.is_some();
                let org = identity.org(user.home);
                (org.map(|org| Self::of_user(user, org, is_narrow)), counted)
            }
        };
        let mut caller = caller.ok_or_else(Error::unauthorized)?;
        counted.map_err(|full| Error::unavailable(Failure::from(full).message))?;
        if let Some(session) = session {
            app.charge(&session, now).map_err(|over| Error::too_many_requests(&over))?;
            app.touch(&session, now, 1);
            caller.session = Some(session);
        } else {
            let charged = app.charge_login(caller.principal_id(), caller.org.id, now);
            charged.map_err(|over| Error::too_many_requests(&over))?;
        }
        Ok(caller)
    }

    fn of_session(identity: &Identity, session: &Session) -> Option<Self> {
        match session.who() {
            Who::User(user) => {
                let user = identity.user(user.id)?;
                let limit = session.access().limit;
                // Who has to set up a second factor does that elsewhere.
                if limit == Some(Limit::Enrolment) {
                    return None;
                }
                let org = identity.org(session.org_id())?;
                Some(Self::of_user(user, org, limit == Some(Limit::NarrowToken)))
            }
            Who::Application { application, .. } => {
                Self::of_application(identity, identity.application(application.id))
            }
        }
    }

    /// A user; `is_narrow`: by an API token that gives some permissions of TR50 only, of which none
    /// is one here.
    fn of_user(user: Arc<User>, org: Arc<Org>, is_narrow: bool) -> Self {
        let authority = if is_narrow { Authority::default() } else { user.authority() };
        let account = Account::User(user);
        Self { account, org, authority, restricted: is_narrow, session: None }
    }

    fn of_application(identity: &Identity, found: Option<Arc<Application>>) -> Option<Self> {
        let application = found?;
        let access = identity.application_access(&application)?;
        Some(Self {
            authority: application.authority(),
            account: Account::Application(application),
            org: access.org,
            restricted: access.restricted_to_self,
            session: None,
        })
    }

    /// The session whose id the bearer token is; none for an application's token.
    pub const fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// The caller as one who does something.
    pub fn deed(&self, command: &'static str, conn: ConnInfo) -> Deed {
        let actor = match (&self.session, &self.account) {
            (Some(session), _) => Actor::of_session(session, conn),
            (None, Account::User(user)) => Actor::of(&Known::User(user), conn),
            (None, Account::Application(found)) => Actor::of(&Known::Application(found), conn),
        };
        Deed { actor, command }
    }

    /// The login of the caller's sessions; of a token alone, of all that use it.
    pub fn principal(&self) -> Principal {
        match (&self.session, &self.account) {
            (Some(session), _) => session.who().principal(),
            (None, Account::User(user)) => Principal::User(user.id),
            // No thing's: its id is no user's.
            (None, Account::Application(found)) => {
                Principal::User(UserId::from_bytes(*found.id.as_bytes()))
            }
        }
    }

    /// Whose work it is while the cores are full.
    pub fn asker(&self) -> Asker {
        (self.org.id, Holder::Principal(self.principal_id()))
    }

    fn principal_id(&self) -> PrincipalId {
        match &self.account {
            Account::User(user) => PrincipalId::User(user.id),
            Account::Application(application) => PrincipalId::Application(application.id),
        }
    }

    /// Whether the caller may see the organisation and its principals.
    pub fn sees(&self, identity: &Identity, org: OrgId) -> bool {
        let authority = &self.authority;
        let here = self.org.id == org;
        !self.restricted && (here || authority.sees_all() || authority.administers(identity, org))
    }

    /// Whether the caller may know that the organisation is the own one, if no more than that.
    pub fn is_logged_into(&self, org: OrgId) -> bool {
        self.org.id == org
    }

    /// Whether the caller may revoke sessions of the organisation's users.
    pub fn may_revoke_in(&self, org: OrgId) -> bool {
        let authority = &self.authority;
        authority.super_admin && self.org.id == org || authority.administers_directly(org)
    }

    /// Whether the caller may list sessions of the organisation's users.
    pub fn may_list_in(&self, org: OrgId) -> bool {
        let reads = self.authority.super_ops && !self.restricted && self.org.id == org;
        self.may_revoke_in(org) || reads
    }
}
