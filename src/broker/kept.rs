//! The sessions that outlive their connections, by owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{OrgId, Timestamp};
use rules::directory::Principal;

use super::limits;
use super::session::{Owner, Session};

/// All of them, connected or away.
#[derive(Default)]
pub(super) struct KeptSessions {
    by_owner: BTreeMap<Owner, Arc<Session>>,
    /// Those whose clients are away, the longest away first.
    away: BTreeMap<(Timestamp, u64), Arc<Session>>,
    /// Those of them that have an end, by it.
    due: BTreeMap<(Timestamp, u64), Arc<Session>>,
}

/// All places are taken, and nobody is away who could make room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl KeptSessions {
    pub(super) fn len(&self) -> usize {
        self.by_owner.len()
    }

    pub(super) fn get(&self, owner: &Owner) -> Option<&Arc<Session>> {
        self.by_owner.get(owner)
    }

    /// Adds a session. Returns the one that makes room for it: the longest away, of the same login
    /// if that has its share already.
    pub(super) fn insert(&mut self, session: Arc<Session>) -> Result<Option<Arc<Session>>, Full> {
        let principal = &session.owner().principal;
        let own = self.of(principal);
        let leaver = if own.len() >= limits::PRINCIPAL_KEPT_SESSIONS_MAX {
            let away =
                |session: &Arc<Session>| session.lock().kept.as_ref().and_then(|kept| kept.away);
            let away = own.iter().filter_map(|session| Some((away(session)?, session.number())));
            let oldest = away.min().ok_or(Full)?;
            self.away.get(&oldest).cloned()
        } else if self.len() >= limits::KEPT_SESSIONS_MAX {
            Some(self.away.values().next().ok_or(Full)?.clone())
        } else {
            None
        };
        if let Some(leaver) = &leaver {
            self.remove(leaver);
        }
        self.by_owner.insert(session.owner().clone(), session);
        Ok(leaver)
    }

    /// Those of a login.
    pub(super) fn of(&self, principal: &Principal) -> Vec<Arc<Session>> {
        let from = Owner { principal: principal.clone(), client_id: "".into() };
        let of = |(owner, _): &(&Owner, _)| owner.principal == *principal;
        self.by_owner.range(from..).take_while(of).map(|(_, session)| session.clone()).collect()
    }

    /// Those in an organisation; all without one.
    pub(super) fn within(&self, org: Option<OrgId>) -> Vec<Arc<Session>> {
        let within = |session: &&Arc<Session>| org.is_none_or(|org| session.org() == org);
        self.by_owner.values().filter(within).cloned().collect()
    }

    /// Takes a session out; whether it was there.
    pub(super) fn remove(&mut self, session: &Arc<Session>) -> bool {
        let is = self.get(session.owner()).is_some_and(|held| Arc::ptr_eq(held, session));
        if is {
            self.by_owner.remove(session.owner());
            self.came(session);
        }
        is
    }

    /// The client has come.
    pub(super) fn came(&mut self, session: &Arc<Session>) {
        let inner = session.lock();
        let Some(kept) = &inner.kept else { return };
        if let Some(away) = kept.away {
            self.away.remove(&(away, session.number()));
        }
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
        if let Some(away) = kept.away {
            self.away.insert((away, session.number()), session.clone());
        }
        if let Some(until) = kept.until() {
            self.due.insert((until, session.number()), session.clone());
        }
    }

    /// Takes out one whose time is over.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Arc<Session>> {
        let (_, session) = self.due.first_key_value().filter(|((until, _), _)| *until <= now)?;
        let session = session.clone();
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
        let kept = Kept::new(Identity { thing: None, application: None }, 10);
        Arc::new(Session::new(number, ORG, owner, Some(kept)))
    }

    fn leave(sessions: &mut KeptSessions, session: &Arc<Session>, at: i64) {
        session.lock().kept.as_mut().expect("kept").away = Some(Timestamp::from_millis(at));
        sessions.left(session);
    }

    #[test]
    fn the_longest_away_of_a_login_makes_room() {
        let mut sessions = KeptSessions::default();
        let other = session(2, 1000);
        assert_eq!(sessions.insert(other.clone()).map(|leaver| leaver.is_some()), Ok(false));
        leave(&mut sessions, &other, 0);
        let own: Vec<_> =
            (0..limits::PRINCIPAL_KEPT_SESSIONS_MAX as u64).map(|n| session(1, n)).collect();
        for session in &own {
            assert!(sessions.insert(session.clone()).is_ok_and(|leaver| leaver.is_none()));
        }
        assert_eq!(sessions.insert(session(1, 500)).err(), Some(Full), "all are connected");
        leave(&mut sessions, &own[7], 2);
        leave(&mut sessions, &own[3], 1);
        let leaver = sessions.insert(session(1, 500)).expect("room").expect("somebody");
        assert_eq!(leaver.number(), 3);
        assert!(sessions.get(other.owner()).is_some() && sessions.get(own[3].owner()).is_none());
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
        assert!(sessions.take_due(Timestamp::NEVER).is_none() && sessions.away.is_empty());
    }

    #[test]
    fn what_was_taken_out_does_not_come_back_when_its_client_leaves() {
        let mut sessions = KeptSessions::default();
        let session = session(1, 1);
        assert!(sessions.insert(session.clone()).is_ok());
        assert!(sessions.remove(&session));
        leave(&mut sessions, &session, 5);
        assert!(sessions.take_due(Timestamp::NEVER).is_none() && sessions.away.is_empty());
    }
}
