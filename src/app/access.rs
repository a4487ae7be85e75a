//! Changes of rights: live sessions get the access that their principals have now.

use std::sync::Arc;

use base::{OrgId, Timestamp};
use rules::directory::{Events, Principal, Session, Who};
use rules::identity::Access;
use store::StoreError;

use super::App;
use super::effects::Affected;

impl App {
    /// Gives a session the rights that its principal has now.
    pub(super) fn refresh_access(&self, session: &Arc<Session>, now: Timestamp) -> Events {
        self.sessions.refresh(session, now, |who, org| self.access_now(who, org))
    }

    /// What a principal is in an organisation now; none if it may not be there.
    fn access_now(&self, who: &Who, org: OrgId) -> Option<Access> {
        let identity = &self.records;
        match who {
            Who::User(user) => identity.user_access(&*identity.user(user.id)?, &identity.org(org)?),
            Who::Application { application: before, .. } => {
                let now = identity.application(before.id)?;
                // Another token: who has the old one is not welcome any more.
                let same = now.token_hash == before.token_hash;
                same.then(|| identity.application_access(&now))?
            }
        }
    }

    /// Whether who had a session, which may have ended long ago, still has the rights of then: the
    /// access of a session that has ended follows no change.
    ///
    /// # Errors
    ///
    /// What the store reports, which is asked for an application's thing.
    pub fn has_access_of_then(&self, session: &Session) -> Result<bool, StoreError> {
        let then = session.access();
        if self.access_now(session.who(), then.org.id).is_none_or(|now| now != *then) {
            return Ok(false);
        }
        match session.who() {
            Who::User(_) => Ok(true),
            Who::Application { thing_id, .. } => self.things.has(then.org.id, *thing_id),
        }
    }

    /// Every live session of those whose rights have changed.
    pub(super) fn sessions_of(&self, affected: Affected) -> Vec<Arc<Session>> {
        match affected {
            Affected::User(id) => self.sessions.of_principal(&Principal::User(id)),
            Affected::Org(org) => self.sessions.in_org(org),
            Affected::Within(top) => {
                let orgs = self.records.orgs();
                let within = orgs.iter().filter(|org| self.records.is_within(org.id, top));
                within.flat_map(|org| self.sessions.in_org(org.id)).collect()
            }
        }
    }
}
