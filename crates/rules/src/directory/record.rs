//! Sessions as they are stored.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use base::{
    ApplicationId, ConnInfo, OrgId, SessionId, SessionRef, ThingId, ThingKey, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};

use super::session::{End, Lifetime, OrgSwitch, Session, Start, Who};
use crate::identity::{Access, Identity};

/// A session as it is stored. The secret id is not part of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    reference: SessionRef,
    who: WhoRecord,
    client_id: String,
    conn: ConnInfo,
    lifetime: Lifetime,
    ttl_s: u64,
    started: Timestamp,
    last_accessed: Timestamp,
    command_count: u64,
    org: OrgId,
    switches: Vec<OrgSwitch>,
    end: Option<End>,
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
            client_id: session.client_id.to_string(),
            conn: session.conn,
            lifetime: session.lifetime,
            ttl_s: session.ttl_s,
            started: session.started,
            last_accessed: session.last_accessed(),
            command_count: session.command_count(),
            org: context.access.org.id,
            switches: context.switches,
            end: session.end(),
        }
    }

    /// The session, with the rights that its principal has now; none when the principal, or its
    /// right to be in that organisation, is gone.
    pub fn restore(self, identity: &Identity, serial: u64) -> Option<Session> {
        let (who, access) = self.principal(identity)?;
        let context = Start {
            // Replaced below: the secret is not on disk.
            id: SessionId::from_random([0; 12]),
            who,
            client_id: self.client_id.into(),
            access,
            conn: self.conn,
            lifetime: self.lifetime,
            outbox: None,
        };
        let mut session = Session::new(context, serial, self.ttl_s, self.started);
        session.reference = self.reference;
        session.id = OnceLock::new();
        session.context.get_mut().switches = self.switches;
        session.last_accessed.store(self.last_accessed.as_millis(), Ordering::Relaxed);
        session.last_active.store(self.last_accessed.as_millis(), Ordering::Relaxed);
        session.command_count.store(self.command_count, Ordering::Relaxed);
        if let Some(end) = self.end {
            session.end = OnceLock::from(end);
        }
        Some(session)
    }

    fn principal(&self, identity: &Identity) -> Option<(Who, Arc<Access>)> {
        match &self.who {
            WhoRecord::User(id) => {
                let user = identity.user(*id)?;
                let org = identity.org(self.org)?;
                let access = identity.user_access(&user, &org)?;
                Some((Who::User(user), Arc::new(access)))
            }
            WhoRecord::Application { application, thing_id, thing_key } => {
                let application = identity.application(*application)?;
                let access = identity.application_access(&application)?;
                let (thing_id, thing_key) = (*thing_id, thing_key.clone());
                let who = Who::Application { application, thing_id, thing_key };
                Some((who, Arc::new(access)))
            }
        }
    }
}
