//! Authentication: HTTP Basic with a user's e-mail address and password on every request
//! (`docs/protocol/element.md` B1). No session starts, and none is shown for the call.

use std::collections::HashSet;
use std::sync::Arc;

use base::{ConnInfo, Failure, OrgId, Timestamp};
use hyper::HeaderMap;
use rules::directory::{Principal, PrincipalId, Session};
use rules::identity::Authority;
use rules::identity::model::User;

use crate::app::{App, Deed, LoginError, Worker};
use crate::dialects::credentials;
use crate::events::{Actor, Known};

/// A user who calls, and what they may see: super administrators and super operators everything,
/// administrators of organisations what is in these or below, everybody what is their own. Super
/// operators end nothing but their own sessions.
#[derive(Debug)]
pub(super) struct Caller {
    user: Arc<User>,
    authority: Authority,
    /// The organisations that the user administers, for a listing that asks for each session; not
    /// filled for super administrators.
    administered: HashSet<OrgId>,
}

/// Why nobody is known to call.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// There are no credentials of this kind.
    #[error("the request has no credentials")]
    Missing,
    /// They are refused, or can't be checked now.
    #[error(transparent)]
    Refused(#[from] LoginError),
    /// It is known who calls, and has called too often.
    #[error("{}", .0.message)]
    TooManyRequests(Failure),
    /// The peer's address has as many connections as it may.
    #[error("there are too many connections of this address")]
    AddressFull,
}

/// Finds out who calls.
///
/// # Errors
///
/// The credentials are missing, wrong, or can't be checked now; or this is one request too many.
pub(super) async fn caller(
    app: &App,
    headers: &HeaderMap,
    conn: ConnInfo,
    now: Timestamp,
) -> Result<Caller, Unknown> {
    let (name, password) = credentials::basic(headers).ok_or(Unknown::Missing)?;
    let (user, token) = app.recognise(&name, password, conn, now).await?;
    let charged = app.charge_login(PrincipalId::User(user.id), user.home, now);
    charged.map_err(Unknown::TooManyRequests)?;
    let is_narrow = token.is_some_and(|token| token.permissions.is_some());
    Ok(if is_narrow { Caller::without_authority(user) } else { Caller::new(app, user) })
}

impl Caller {
    /// What this user may see.
    pub(super) fn new(app: &App, user: Arc<User>) -> Self {
        let identity = app.identity();
        let authority = user.authority();
        let mut administered = HashSet::new();
        if authority.administers_any() && !authority.super_admin {
            let orgs = identity.orgs().into_iter().map(|org| org.id);
            administered = orgs.filter(|org| authority.administers(identity, *org)).collect();
        }
        Self { user, authority, administered }
    }

    /// The user by an API token that gives some permissions of TR50 only, of which none is one here:
    /// they see what is their own.
    fn without_authority(user: Arc<User>) -> Self {
        Self { user, authority: Authority::default(), administered: HashSet::new() }
    }

    /// The user.
    pub(super) const fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// For whom a long listing is written.
    pub(super) fn worker(&self) -> Worker {
        let (org, principal) = self.payer();
        Worker::Principal(org, principal)
    }

    /// Whose share the answers are.
    pub(super) fn payer(&self) -> (OrgId, PrincipalId) {
        (self.user.home, PrincipalId::User(self.user.id))
    }

    /// The user as one who does something.
    pub(super) fn deed(&self, method: &'static str, conn: ConnInfo) -> Deed {
        Deed { actor: Actor::of(&Known::User(&self.user), conn), command: method }
    }

    /// The login of the user's sessions.
    pub(super) fn principal(&self) -> Principal {
        Principal::User(self.user.id)
    }

    /// Whether the user is an administrator of everything.
    pub(super) fn is_super_admin(&self) -> bool {
        self.authority.super_admin
    }

    /// Whether the user sees everything.
    pub(super) fn sees_all(&self) -> bool {
        self.authority.sees_all()
    }

    /// Whether the user may end sessions of others, somewhere.
    pub(super) fn ends_others(&self) -> bool {
        self.authority.administers_any()
    }

    /// Whether the user sees sessions of others, somewhere.
    pub(super) fn sees_others(&self) -> bool {
        self.authority.super_ops || self.ends_others()
    }

    /// The organisations whose sessions the user sees.
    pub(super) fn orgs(&self, app: &App) -> Vec<OrgId> {
        match self.sees_all() {
            true => app.identity().orgs().iter().map(|org| org.id).collect(),
            false => self.administered.iter().copied().collect(),
        }
    }

    /// Whether the user sees this session in this organisation.
    pub(super) fn sees_in(&self, session: &Session, org: OrgId) -> bool {
        self.sees_all() || self.administered.contains(&org) || self.owns(session)
    }

    /// Whether the user sees this session where it is now.
    pub(super) fn sees(&self, session: &Session) -> bool {
        self.sees_in(session, session.org_id())
    }

    /// Whether the user may end this session.
    pub(super) fn may_end(&self, session: &Session) -> bool {
        self.owns(session)
            || self.authority.super_admin
            || self.administered.contains(&session.org_id())
    }

    fn owns(&self, session: &Session) -> bool {
        session.who().principal() == self.principal()
    }
}
