//! The sessions that outlive their connections, by owner.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::{OrgId, Timestamp};
use rules::directory::Principal;

use super::limits;
use super::session::{Owner, Session};

/// All of them, connected or away.
#[derive(Default)]
pub(super) struct KeptSessions {
    by_owner: BTreeMap<Owner, Arc<Session>>,
    /// By organisation and number.
    by_org: BTreeMap<(OrgId, u64), Arc<Session>>,
    /// Those whose clients are away and that have an end, by it.
    due: BTreeMap<(Timestamp, u64), Arc<Session>>,
}

/// The login has as many as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl KeptSessions {
    pub(super) fn len(&self) -> usize {
        self.by_owner.len()
    }

    pub(super) fn get(&self, owner: &Owner) -> Option<&Arc<Session>> {
        self.by_owner.get(owner)
    }

    /// Adds a session, unless its login has as many as it may: what is kept is not taken away for what
    /// comes.
    pub(super) fn insert(&mut self, session: Arc<Session>) -> Result<(), Full> {
        if self.is_full(&session.owner().principal) {
            return Err(Full);
        }
        self.restore(session);
        Ok(())
    }

    /// Whether a login has as many as it may.
    pub(super) fn is_full(&self, principal: &Principal) -> bool {
        self.of_login(principal).count() >= limits::LOGIN_KEPT_SESSIONS_MAX
    }

    /// Adds one that was there before the program started.
    pub(super) fn restore(&mut self, session: Arc<Session>) {
        self.by_org.insert((session.org(), session.number()), session.clone());
        self.by_owner.insert(session.owner().clone(), session);
    }

    fn of_login(&self, principal: &Principal) -> impl Iterator<Item = &Arc<Session>> {
        let from = Owner { principal: principal.clone(), client_id: "".into() };
        let login = principal.clone();
        let of = move |(owner, _): &(&Owner, _)| owner.principal == login;
        self.by_owner.range(from..).take_while(of).map(|(_, session)| session)
    }

    /// Those of a login.
    pub(super) fn of(&self, principal: &Principal) -> Vec<Arc<Session>> {
        self.of_login(principal).cloned().collect()
    }

    /// At most so many of those in an organisation, by number from behind one on.
    pub(super) fn page(&self, org: OrgId, after: u64, max: usize) -> Vec<Arc<Session>> {
        let behind = (Bound::Excluded((org, after)), Bound::Included((org, u64::MAX)));
        self.by_org.range(behind).take(max).map(|(_, session)| session.clone()).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.by_owner.values().cloned().collect()
    }

    /// Takes a session out; whether it was there.
    pub(super) fn remove(&mut self, session: &Arc<Session>) -> bool {
        let is = self.get(session.owner()).is_some_and(|held| Arc::ptr_eq(held, session));
        if is {
            self.by_owner.remove(session.owner());
            self.by_org.remove(&(session.org(), session.number()));
            self.came(session);
        }
        is
    }

    /// The client has come.
    pub(super) fn came(&mut self, session: &Arc<Session>) {
        let inner = session.lock();
        let Some(kept) = &inner.kept else { return };
        if let Some(until) = kept.until() {
            self.due.remove(&(until, session.number()));
        }
    }

    /// The client has gone, at the time that its session says.
    pub(super) fn left(&mut self, session: &Arc<Session>) {
        if !self.get(session.owner()).is_some_and(|held| Arc::ptr_eq(held, session)) {
            // It has been taken out, and ends.
            return;
        }
        let inner = session.lock();
        let Some(kept) = &inner.kept else { return };
        if let Some(until) = kept.until() {
            self.due.insert((until, session.number()), session.clone());
        }
    }

    /// Whether the time of one is over.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.due.first_key_value().is_some_and(|((until, _), _)| *until <= now)
    }

    /// Takes out one whose time is over.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Arc<Session>> {
        let (_, session) = self.due.first_key_value().filter(|((until, _), _)| *until <= now)?;
        let session = session.clone();
        self.remove(&session);
        Some(session)
    }

    /// Takes out one of a login whose time is over.
    pub(super) fn take_due_of(
        &mut self,
        principal: &Principal,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let is_due = |session: &&Arc<Session>| {
            let inner = session.lock();
            inner.kept.as_ref().and_then(|kept| kept.until()).is_some_and(|until| until <= now)
        };
        let session = self.of_login(principal).find(is_due)?.clone();
        self.remove(&session);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::super::session::{Identity, Kept};
    use super::*;

    const ORG: OrgId = OrgId::from_bytes([1; 12]);

    fn session(user: u8, number: u64) -> Arc<Session> {
        let principal = Principal::User(UserId::from_bytes([user; 12]));
        let owner = Owner { principal, client_id: number.to_string().into() };
        let identity = Identity { thing: None, application: None, token: None };
        let kept = Kept::new(identity, 10);
        Arc::new(Session::new(number, (ORG, owner), identity, Some(kept), &Arc::default()))
    }

    fn leave(sessions: &mut KeptSessions, session: &Arc<Session>, at: i64) {
        session.lock().kept.as_mut().expect("kept").away = Some(Timestamp::from_millis(at));
        sessions.left(session);
    }

    #[test]
    fn nobody_makes_room_for_a_login_that_has_its_hundred() {
        let mut sessions = KeptSessions::default();
        let max = limits::LOGIN_KEPT_SESSIONS_MAX as u64;
        let own: Vec<_> = (0..max).map(|number| session(1, number)).collect();
        for (at, session) in own.iter().enumerate() {
            assert_eq!(sessions.insert(session.clone()), Ok(()));
            leave(&mut sessions, session, at as i64);
        }
        assert_eq!(sessions.insert(session(1, 500)), Err(Full));
        assert_eq!(sessions.insert(session(2, 501)), Ok(()), "another login");
        assert_eq!(sessions.len(), own.len() + 1);
        assert!(sessions.remove(&own[3]));
        assert_eq!(sessions.insert(session(1, 500)), Ok(()));
    }

    #[test]
    fn sessions_end_when_their_time_is_over() {
        let mut sessions = KeptSessions::default();
        let (first, second) = (session(1, 1), session(1, 2));
        for session in [&first, &second] {
            assert!(sessions.insert(session.clone()).is_ok());
        }
        leave(&mut sessions, &first, 5);
        leave(&mut sessions, &second, 0);
        sessions.came(&second);
        second.lock().kept.as_mut().expect("kept").away = None;
        assert!(sessions.take_due(Timestamp::from_millis(10_004)).is_none());
        let due = sessions.take_due(Timestamp::from_millis(10_005)).expect("the first");
        assert_eq!((due.number(), sessions.len()), (1, 1));
        assert!(sessions.take_due(Timestamp::NEVER).is_none() && sessions.due.is_empty());
    }

    #[test]
    fn what_was_taken_out_does_not_come_back_when_its_client_leaves() {
        let mut sessions = KeptSessions::default();
        let session = session(1, 1);
        assert!(sessions.insert(session.clone()).is_ok());
        assert!(sessions.remove(&session));
        leave(&mut sessions, &session, 5);
        assert!(sessions.take_due(Timestamp::NEVER).is_none() && sessions.due.is_empty());
    }
}
