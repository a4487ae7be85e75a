//! Who has the places of connections: those that are logged in count for who has logged in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ConnInfo, ConnectionId, Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::{Lifetime, Outbox, Principal, PrincipalId, Reason, Session, Who};

use super::App;
use super::connections::{Home, Idlest, Lost, NoPlace, NotTaken, Place};

/// As many are found in one look as make way in a second.
const FOUND: usize = limits::CONNECTIONS_MADE_WAY_PER_S as usize;

/// What the last looks for idle connections have found, by whose they are.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<HashMap<Home, Idle>>);

struct Idle {
    /// Since when each is idle, the idlest first: as long as nothing comes on one, none is idler.
    found: VecDeque<(Timestamp, Arc<Session>)>,
    /// Whether there was none.
    is_none: bool,
    looked: Instant,
}

impl Idle {
    fn is_new(&self) -> bool {
        self.looked.elapsed() < Duration::from_secs(1)
    }
}

impl IdleConnections {
    fn note(&self, home: Home, found: Vec<(Timestamp, Arc<Session>)>) {
        let is_none = found.is_empty();
        let mut known = self.0.lock();
        // Those of who had most before: their sessions may be over.
        known.retain(|_, idle| idle.is_new());
        known.insert(home, Idle { found: found.into(), is_none, looked: Instant::now() });
    }

    /// The next that is still there, and idle.
    pub(super) fn next(&self, home: Home, lost: Lost<'_>) -> Idlest<Arc<Session>> {
        let mut known = self.0.lock();
        let Some(idle) = known.get_mut(&home) else { return Idlest::Unknown };
        while let Some((since, session)) = idle.found.pop_front() {
            let id = session.conn().connection;
            if session.end().is_none() && session.last_active() == since && !lost(id) {
                return Idlest::Found(id, session);
            }
        }
        // Those that were not idle any more may be the idlest that are left.
        if idle.is_none && idle.is_new() { Idlest::Nobody } else { Idlest::Unknown }
    }
}

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
        replaces: impl Fn() -> bool,
    ) -> Result<Option<Place>, NoPlace> {
        if conn.connection == ConnectionId::NONE {
            return Ok(None);
        }
        let asked = (conn.connection, Self::home_of(who));
        let idlest = |home, lost: Lost<'_>| self.idle_connections.next(home, lost);
        let taken = self.with_idlest(|| self.connections.take(asked, &replaces, idlest));
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
        let idlest = |home, lost: Lost<'_>| self.idle_connections.next(home, lost);
        let counted = self.with_idlest(|| self.connections.ask(asked, idlest));
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

    /// Takes a place, at the cost of an idle connection if need be.
    fn with_idlest<T>(&self, take: impl Fn() -> Result<T, NotTaken>) -> Result<T, NoPlace> {
        // Others may get what one has found.
        const LOOKS: usize = 3;
        let mut looks = 0;
        loop {
            match take() {
                Ok(taken) => return Ok(taken),
                Err(NotTaken::Look(home, _)) if looks < LOOKS => {
                    self.look_for_idle(home);
                    looks += 1;
                }
                Err(NotTaken::Look(_, full) | NotTaken::Full(full)) => return Err(full),
            }
        }
    }

    /// Looks for the connections of a principal on which nothing has come for longest.
    pub(super) fn look_for_idle(&self, home: Home) {
        let (org, who) = home;
        let staying = self.connections.staying();
        let fits = |session: &Session| {
            session.lifetime() == Lifetime::Connection
                && session.who().principal_id() == who
                && session.conn().connection != ConnectionId::NONE
                && !staying.contains(&session.conn().connection)
        };
        let found = match who {
            PrincipalId::User(user) => self.sessions.idlest_of(&Principal::User(user), FOUND, fits),
            PrincipalId::Application(_) => self.sessions.idlest_in_org(org, FOUND, fits),
        };
        self.idle_connections.note(home, found);
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
