//! Live sessions follow what their principals may do.

use std::sync::Arc;

use super::Core;
use crate::directory::event::Event;
use crate::directory::{Changes, Principal, Reason, Session, Who};
use crate::id::{OrgId, UserId};
use crate::identity::Standing;
use crate::limits;
use crate::store::StoreError;
use crate::store::writer::Receipt;
use crate::timestamp::Timestamp;
use crate::tr50::error::Failure;

/// Whose rights have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affected {
    /// A user's.
    User(UserId),
    /// Those of principals that may have a session in this organisation.
    Org(OrgId),
    /// The same, for the organisation and all below it.
    Within(OrgId),
}

impl Core {
    /// Gives a session the rights that its principal has now; the changes are to be committed.
    pub fn refresh(&self, session: &Arc<Session>, now: Timestamp) -> Changes {
        self.directory.refresh(session, now, |who, org| self.standing_now(who, org))
    }

    /// What a principal is in an organisation now; none if it may not be there.
    fn standing_now(&self, who: &Who, org: OrgId) -> Option<Standing> {
        let identity = &self.identity;
        match who {
            Who::User(user) => {
                identity.user_standing(&*identity.user(user.id)?, &identity.org(org)?)
            }
            Who::Application { application: before, .. } => {
                let now = identity.application(before.id)?;
                // Another token: who has the old one is not welcome any more.
                let same = now.token_hash == before.token_hash;
                same.then(|| identity.application_standing(&now))?
            }
        }
    }

    /// Whether who had a session, which may have ended long ago, still has the rights of then: the
    /// standing of a session that has ended follows no change.
    ///
    /// # Errors
    ///
    /// What the store reports, which is asked for an application's thing.
    pub fn stands_as_then(&self, session: &Session) -> Result<bool, StoreError> {
        let then = session.standing();
        if self.standing_now(session.who(), then.org.id).is_none_or(|now| now != *then) {
            return Ok(false);
        }
        match session.who() {
            Who::User(_) => Ok(true),
            Who::Application { thing_id, .. } => self.identity.has_thing(then.org.id, *thing_id),
        }
    }

    /// Lets live sessions follow a change of what their principals may do: they have their new
    /// rights, or have ended, when this returns. Connections are not closed: the caller has a reply
    /// to send first.
    ///
    /// # Errors
    ///
    /// The store failed; the changes hold in memory, and connections are closed.
    pub async fn follow(
        self: &Arc<Self>,
        affected: Affected,
        now: Timestamp,
    ) -> Result<Changes, Failure> {
        if !matches!(affected, Affected::User(_)) {
            // Out of date, or of applications that are gone.
            self.standings.clear();
        }
        let sessions = self.sessions_of(affected);
        let changes = if sessions.len() <= limits::EXPIRY_STEP {
            self.refresh_all(&sessions, now)
        } else {
            let core = self.clone();
            self.apart(move || core.refresh_all(&sessions, now)).await?
        };
        if let Err(error) = self.commit(&changes).await {
            // Nobody else would: these are known here only.
            self.close_ended(&changes);
            return Err(error.into());
        }
        Ok(changes)
    }

    /// Ends all other sessions of the caller's login as revoked; their connections close.
    ///
    /// # Errors
    ///
    /// The store failed; the changes hold in memory.
    pub async fn end_others(
        &self,
        principal: &Principal,
        caller: &Arc<Session>,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let mut changes = Changes::default();
        for session in self.directory.of_principal(principal) {
            if !Arc::ptr_eq(&session, caller) {
                changes.append(self.directory.end(&session, Reason::Revoked, now));
            }
        }
        let stored = self.commit(&changes).await;
        self.close_ended(&changes);
        Ok(stored?)
    }

    /// Ends sessions for somebody, as [`Directory::end_for`] says; their connections close at once.
    /// Returns those that it ended, when that is durable.
    ///
    /// [`Directory::end_for`]: crate::directory::Directory::end_for
    ///
    /// # Errors
    ///
    /// The store failed; the sessions have ended all the same.
    pub async fn end_for(
        self: &Arc<Self>,
        sessions: Vec<Arc<Session>>,
        by: &Principal,
        now: Timestamp,
    ) -> Result<Vec<Arc<Session>>, Failure> {
        let (changes, receipt) = if sessions.len() <= limits::EXPIRY_STEP {
            self.end_all_for(&sessions, by, now)
        } else {
            let (core, by) = (self.clone(), by.clone());
            self.apart(move || core.end_all_for(&sessions, &by, now)).await?
        };
        receipt?.durable().await?;
        let ended = changes.events.into_iter().filter_map(|event| match event {
            Event::Ended(session, _) => Some(session),
            _ => None,
        });
        Ok(ended.collect())
    }

    /// All that must happen even if nobody waits for it any more.
    fn end_all_for(
        &self,
        sessions: &[Arc<Session>],
        by: &Principal,
        now: Timestamp,
    ) -> (Changes, Result<Receipt, StoreError>) {
        let mut changes = Changes::default();
        for session in sessions {
            changes.append(self.directory.end_for(session, by, now));
        }
        self.close_ended(&changes);
        let receipt = self.hand_over(&changes);
        (changes, receipt)
    }

    /// Every session whose rights may have changed. Those that begin later, or go to another
    /// organisation, find the change themselves.
    fn sessions_of(&self, affected: Affected) -> Vec<Arc<Session>> {
        match affected {
            Affected::User(id) => self.directory.of_principal(&Principal::User(id)),
            Affected::Org(org) => self.directory.in_org(org),
            Affected::Within(top) => {
                let orgs = self.identity.orgs();
                let within = orgs.iter().filter(|org| self.identity.is_within(org.id, top));
                within.flat_map(|org| self.directory.in_org(org.id)).collect()
            }
        }
    }

    fn refresh_all(&self, sessions: &[Arc<Session>], now: Timestamp) -> Changes {
        let mut changes = Changes::default();
        for session in sessions {
            changes.append(self.refresh(session, now));
        }
        changes
    }
}
