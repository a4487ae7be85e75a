//! Who has the places of connections: those that are logged in count for who has logged in.

use std::sync::Arc;

use base::{ConnInfo, ConnectionId};
use rules::directory::{Lifetime, Outbox, Principal, PrincipalId, Reason, Session, Who};

use super::App;
use super::connections::{Home, Lost, NoPlace, Place};

impl App {
    /// The organisation that pays for what somebody does, wherever its sessions are, and the
    /// principal there.
    pub(super) fn home_of(who: &Who) -> Home {
        let org = match who {
            Who::User(user) => user.home,
            Who::Application { application, .. } => application.org,
        };
        (org, who.principal_id())
    }

    /// A place for a connection on which somebody has logged in; none if it is none of a listener's.
    ///
    /// # Errors
    ///
    /// All are taken, and nobody makes way.
    pub(super) fn take_place(
        &self,
        conn: &ConnInfo,
        who: &Who,
        replaces: impl FnOnce() -> bool,
    ) -> Result<Option<Place>, NoPlace> {
        if conn.connection == ConnectionId::NONE {
            return Ok(None);
        }
        let asked = (conn.connection, Self::home_of(who));
        let taken = self.connections.take(asked, replaces, |home, lost| self.idlest(home, lost));
        let taken = taken.or_else(|full| {
            let administers = self.is_administrator(asked.1);
            let reserved = administers.then(|| self.connections.take_reserved(asked, full));
            reserved.unwrap_or(Err(full)).map(|place| (place, Vec::new()))
        });
        let (place, victims) = taken.inspect_err(|_| self.metrics.connection_refused("full"))?;
        self.close(victims);
        Ok(Some(place))
    }

    /// The same for a connection that goes on in a session of which it is not a part.
    ///
    /// # Errors
    ///
    /// As `App::take_place`.
    pub fn host(
        &self,
        conn: &ConnInfo,
        session: &Session,
        outbox: &Arc<Outbox>,
    ) -> Result<Option<Place>, NoPlace> {
        let place = self.take_place(conn, session.who(), || false)?;
        if place.is_some() {
            self.connections.host(conn.connection, Self::home_of(session.who()), outbox.clone());
        }
        Ok(place)
    }

    /// Counts a connection over HTTP, and the memory that it takes, for who asks on it.
    ///
    /// # Errors
    ///
    /// As `App::take_place`.
    pub fn count_asker(&self, conn: &ConnInfo, home: Home, name: &str) -> Result<(), NoPlace> {
        let asked = (conn.connection, home);
        let counted = self.connections.ask(asked, |home, lost| self.idlest(home, lost));
        let counted = counted.or_else(|full| {
            let administers = self.is_administrator(home);
            let reserved = administers.then(|| self.connections.ask_reserved(asked, full));
            reserved.unwrap_or(Err(full)).map(|account| (account, Vec::new()))
        });
        let (account, victims) =
            counted.inspect_err(|_| self.metrics.connection_refused("full"))?;
        if let Some(account) = account {
            account.set_payer(self.payer(home, name, conn));
        }
        self.close(victims);
        Ok(())
    }

    /// Whether a principal administers the server or an organisation.
    fn is_administrator(&self, (_, principal): Home) -> bool {
        let authority = match principal {
            PrincipalId::User(id) => self.records.user(id).map(|user| user.authority()),
            PrincipalId::Application(id) => self.records.application(id).map(|app| app.authority()),
        };
        authority.is_some_and(|held| held.sees_all() || held.administers_any())
    }

    /// The same for who asks in a session.
    ///
    /// # Errors
    ///
    /// As `App::take_place`.
    pub fn count_session(&self, conn: &ConnInfo, session: &Session) -> Result<(), NoPlace> {
        self.count_asker(conn, Self::home_of(session.who()), session.who().name())
    }

    /// The session of a principal's connection on which nothing has come for longest.
    fn idlest(&self, (org, who): Home, lost: Lost<'_>) -> Option<(ConnectionId, Arc<Session>)> {
        let fits = |session: &Session| {
            session.lifetime() == Lifetime::Connection
                && session.who().principal_id() == who
                && session.conn().connection != ConnectionId::NONE
                && !lost(session.conn().connection)
        };
        let found = match who {
            PrincipalId::User(user) => {
                let sessions = self.sessions.of_principal(&Principal::User(user));
                let fitting = sessions.into_iter().filter(|session| fits(session));
                fitting.min_by_key(|session| session.last_active())
            }
            PrincipalId::Application(_) => self.sessions.idlest_in_org(org, fits),
        };
        found.map(|session| (session.conn().connection, session))
    }

    fn close(&self, victims: Vec<Arc<Session>>) {
        for session in victims {
            let (org, _) = Self::home_of(session.who());
            let org = self.records.org(org);
            tracing::warn!(
                org = org.as_ref().map_or("", |org| org.key.as_str()),
                who = session.who().name(),
                peer = %session.conn().remote_addr,
                "a connection closes of who has most of limits.connections, to make room"
            );
            self.end(&session, Reason::MadeWay, self.clock.now());
        }
    }
}
