//! Sessions as they are stored.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use base::{
    ApplicationId, ConnInfo, OrgId, SessionId, SessionRef, ThingDefId, ThingId, ThingKey,
    Timestamp, TokenId, UserAgent, UserId,
};
use serde::{Deserialize, Serialize};

use super::outbox::Traffic;
use super::session::{End, Lifetime, Link, OrgSwitch, Session, Start, Stay, Unbound, Who};
use crate::identity::model::{Application, Org, User};
use crate::identity::{Access, Identity, Token};

/// A session as it is stored. The secret id is not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    reference: SessionRef,
    who: WhoRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenId>,
    client_id: String,
    conn: ConnInfo,
    lifetime: Lifetime,
    ttl_s: u64,
    started: Timestamp,
    last_accessed: Timestamp,
    command_count: u64,
    org: OrgId,
    switches: Vec<OrgSwitch>,
    /// When it came into its organisation, if that was not with its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    end: Option<End>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<UserAgent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<ThingDefId>,
    /// Once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    /// Once it has ended: the name of user or application, for when that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum WhoRecord {
    User(UserId),
    Application { application: ApplicationId, thing_id: ThingId, thing_key: ThingKey },
}

impl SessionRecord {
    /// What is to be stored of a session now.
    pub fn of(session: &Session) -> Self {
        let context = session.context();
        Self {
            reference: session.reference,
            who: match &session.who {
                Who::User(user) => WhoRecord::User(user.id),
                Who::Application { application, thing_id, thing_key } => WhoRecord::Application {
                    application: application.id,
                    thing_id: *thing_id,
                    thing_key: thing_key.clone(),
                },
            },
            token: session.token.as_ref().map(|token| token.id),
            client_id: session.client_id.to_string(),
            conn: session.conn,
            lifetime: session.lifetime,
            ttl_s: session.ttl_s,
            started: session.started,
            last_accessed: session.last_accessed(),
            command_count: session.command_count(),
            org: context.access.org.id,
            switches: context.switches,
            since: Some(context.since).filter(|since| *since != session.started),
            end: session.end(),
            link: Some(session.link).filter(|link| *link != Link::default()),
            user_agent: session.user_agent().cloned(),
            definition: context.definition,
            traffic: session.end().and_then(|_| session.traffic()),
            name: session.end().map(|_| name_of(&session.who)),
        }
    }

    /// What is to be stored of its time in an organisation that it has left.
    pub fn of_stay(session: &Session, stay: Stay) -> Self {
        let mut record = Self::of(session);
        record.org = stay.org;
        record.since = Some(stay.since).filter(|since| *since != session.started);
        record.switches.retain(|switch| switch.ts < stay.until);
        (record.end, record.traffic) = (None, session.traffic());
        record.name = Some(name_of(&session.who));
        record
    }

    /// How it ended.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// The session, with the rights that its principal has now; none when the principal, or its
    /// right to be in that organisation, is gone. It gets its number where it is put.
    pub fn restore(self, principals: &mut Principals<'_>) -> Option<Session> {
        let (who, access) = principals.of(&self)?;
        let (token, access) = with_token(&who, self.token, access)?;
        Some(self.restore_as(who, token, access))
    }

    /// The session, as a record of what was in this organisation: its principal may be gone, and has
    /// no rights then.
    pub fn restore_kept(self, principals: &mut Principals<'_>, org: &Arc<Org>) -> Session {
        let (who, access) = principals.of(&self).unwrap_or_else(|| self.of_gone(org));
        let token = with_token(&who, self.token, access.clone()).and_then(|(token, _)| token);
        self.restore_as(who, token, access)
    }

    fn of_gone(&self, org: &Arc<Org>) -> (Who, Arc<Access>) {
        let name = || self.name.clone().unwrap_or_default();
        let who = match &self.who {
            WhoRecord::User(id) => Who::User(Arc::new(User::bare(*id, name(), org.id))),
            WhoRecord::Application { application, thing_id, thing_key } => Who::Application {
                application: Arc::new(Application::bare(*application, name(), org.id)),
                thing_id: *thing_id,
                thing_key: thing_key.clone(),
            },
        };
        (who, Arc::new(Access::nothing(org.clone())))
    }

    fn restore_as(self, who: Who, token: Option<Arc<Token>>, access: Arc<Access>) -> Session {
        let since = self.since();
        let context = Start {
            // Not on disk, and not looked at.
            id: SessionId::from_random([0; 12]),
            who,
            token,
            client_id: self.client_id.into(),
            access,
            conn: self.conn,
            link: self.link.unwrap_or_default(),
            user_agent: None,
            definition: self.definition,
            lifetime: self.lifetime,
            outbox: None,
        };
        let mut session = Session::known(self.reference, context, self.ttl_s, self.started);
        let context = session.context.get_mut();
        (context.switches, context.since) = (self.switches, since);
        session.unbound = Unbound::of(self.traffic, self.user_agent);
        let hot = session.hot.hot();
        hot.last_accessed.store(self.last_accessed.as_millis(), Ordering::Relaxed);
        hot.last_active.store(self.last_accessed.as_millis(), Ordering::Relaxed);
        hot.command_count.store(self.command_count, Ordering::Relaxed);
        if let Some(end) = self.end {
            session.end = OnceLock::from(end);
        }
        session
    }

    /// When it came into its organisation. Older programs did not note it; then no switch can have
    /// gone to where it was.
    fn since(&self) -> Timestamp {
        self.since.or(self.switches.last().map(|switch| switch.ts)).unwrap_or(self.started)
    }
}

fn name_of(who: &Who) -> String {
    match who {
        Who::User(user) => user.email.clone(),
        Who::Application { application, .. } => application.name.clone(),
    }
}

/// The token of a restored session, and what it leaves of the rights of whose it is; none when the
/// token is gone.
fn with_token(
    who: &Who,
    id: Option<TokenId>,
    access: Arc<Access>,
) -> Option<(Option<Arc<Token>>, Arc<Access>)> {
    let Some(id) = id else { return Some((None, access)) };
    let find = |tokens: &[Token]| tokens.iter().find(|token| token.id == id).cloned().map(Arc::new);
    match who {
        Who::User(user) => {
            let token = find(&user.tokens)?;
            let access = Arc::new(Access::clone(&access).by_token(&token));
            Some((Some(token), access))
        }
        // One that is the first by now.
        Who::Application { application, .. } if application.token_id == id => {
            Some((Some(Arc::new(application.first_token())), access))
        }
        Who::Application { application, .. } => Some((Some(find(&application.tokens)?), access)),
    }
}

/// Whose restored sessions are, and what they may do: looked up once, and shared by all of one
/// application, or of one user in one organisation.
pub struct Principals<'a> {
    identity: &'a Identity,
    users: HashMap<(UserId, OrgId), Known<User>>,
    applications: HashMap<ApplicationId, Known<Application>>,
}

/// A record and what its holder may do; none if that is nothing.
type Known<T> = Option<(Arc<T>, Arc<Access>)>;

impl<'a> Principals<'a> {
    /// Those of a directory that is filled; nobody changes records meanwhile.
    pub fn new(identity: &'a Identity) -> Self {
        Self { identity, users: HashMap::new(), applications: HashMap::new() }
    }

    fn of(&mut self, record: &SessionRecord) -> Option<(Who, Arc<Access>)> {
        let identity = self.identity;
        match &record.who {
            WhoRecord::User(id) => {
                let found = self.users.entry((*id, record.org)).or_insert_with(|| {
                    let user = identity.user(*id)?;
                    let access = identity.user_access(&user, &identity.org(record.org)?)?;
                    Some((user, Arc::new(access)))
                });
                let (user, access) = found.clone()?;
                Some((Who::User(user), access))
            }
            WhoRecord::Application { application, thing_id, thing_key } => {
                let found = self.applications.entry(*application).or_insert_with(|| {
                    let application = identity.application(*application)?;
                    let access = identity.application_access(&application)?;
                    Some((application, Arc::new(access)))
                });
                let (application, access) = found.clone()?;
                let (thing_id, thing_key) = (*thing_id, thing_key.clone());
                Some((Who::Application { application, thing_id, thing_key }, access))
            }
        }
    }
}
