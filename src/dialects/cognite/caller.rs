//! Authentication and authorisation of Cognite's requests.
//!
//! The bearer token is a session's secret id, or an application's token, which has no session. What
//! the caller may do is taken from the records as they are now, not from the session's copy.
//!
//! There are two rules, and the second is narrower (`docs/protocol/cognite.md` A2, A4):
//!
//! * Principals, and what is shown of organisations: the caller is logged into the organisation, or
//!   is an administrator of it or of one above. Super administrators and super operators are
//!   administrators of all that.
//! * Login sessions: the caller is an administrator of **that very** organisation: by a membership
//!   in it, or as a super administrator whose session is in it now. Super operators whose session
//!   is in it may read them. The right of an administrator above does not come down.
//!
//! An application that is restricted to itself is shown itself, and no other principal.

use std::sync::Arc;

use base::{OrgId, SessionId, Timestamp};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rules::directory::{Session, Who};
use rules::identity::Identity;
use rules::identity::model::{Application, Org, User};

use super::error::Error;
use crate::app::App;

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
    /// Whether it is an application that is restricted to itself.
    restricted: bool,
}

impl Caller {
    /// Finds out who sent the bearer token. For its session, this is a command.
    ///
    /// # Errors
    ///
    /// There is no such session or application, or the session has sent too much.
    pub fn recognise(app: &App, headers: &HeaderMap, now: Timestamp) -> Result<Self, Error> {
        let token = bearer(headers).ok_or_else(Error::unauthorized)?;
        let session = SessionId::parse(token).and_then(|id| app.directory().by_id(&id));
        let caller = match &session {
            Some(session) => Self::of_session(app.identity(), session),
            None => {
                Self::of_application(app.identity(), app.identity().application_by_token(token))
            }
        };
        let caller = caller.ok_or_else(Error::unauthorized)?;
        if let Some(session) = session {
            if !session.admit(now, app.config.limits.commands_per_s) {
                return Err(Error::too_many_requests());
            }
            app.touch(&session, now, 1);
        }
        Ok(caller)
    }

    fn of_session(identity: &Identity, session: &Session) -> Option<Self> {
        match session.who() {
            Who::User(user) => Some(Self {
                account: Account::User(identity.user(user.id)?),
                org: identity.org(session.org_id())?,
                restricted: false,
            }),
            Who::Application { application, .. } => {
                Self::of_application(identity, identity.application(application.id))
            }
        }
    }

    fn of_application(identity: &Identity, found: Option<Arc<Application>>) -> Option<Self> {
        let application = found?;
        let access = identity.application_access(&application)?;
        Some(Self {
            account: Account::Application(application),
            org: access.org,
            restricted: access.restricted_to_self,
        })
    }

    /// Whether the caller is logged into the organisation, or an administrator of it or of one
    /// above.
    pub fn sees(&self, identity: &Identity, org: OrgId) -> bool {
        !self.restricted && (self.org.id == org || self.administers_within(identity, org))
    }

    /// Whether the caller may know that the organisation is the own one, if no more than that.
    pub fn is_logged_into(&self, org: OrgId) -> bool {
        self.org.id == org
    }

    /// Whether the caller may revoke sessions of the organisation's users.
    pub fn administers(&self, org: OrgId) -> bool {
        let here = self.org.id == org;
        match &self.account {
            Account::User(user) => {
                let mut held = user.memberships.iter().filter(|held| held.org == org);
                user.super_admin && here || held.any(|held| held.org_admin)
            }
            Account::Application(held) => here && (held.org_admin || held.super_admin),
        }
    }

    /// Whether the caller may list sessions of the organisation's users.
    pub fn reads_sessions(&self, org: OrgId) -> bool {
        let super_ops = match &self.account {
            Account::User(user) => user.super_ops,
            Account::Application(application) => application.super_ops,
        };
        self.administers(org) || super_ops && !self.restricted && self.org.id == org
    }

    /// Whether the caller is an administrator of the organisation or of one above.
    fn administers_within(&self, identity: &Identity, org: OrgId) -> bool {
        match &self.account {
            Account::User(user) => {
                let mut held = user.memberships.iter().filter(|held| held.org_admin);
                user.super_admin
                    || user.super_ops
                    || held.any(|held| identity.is_within(org, held.org))
            }
            Account::Application(held) => {
                held.super_admin
                    || held.super_ops
                    || held.org_admin && identity.is_within(org, held.org)
            }
        }
    }
}

/// The token of HTTP's bearer authentication (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
