//! Who follows the stream of events for long: what it sees is asked again and again.

use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{ApplicationId, Code, ConnInfo, Failure, OrgId, limits};
use parking_lot::Mutex;
use rules::directory::{PrincipalId, Session};
use rules::identity::Token;
use rules::identity::model::{Application, User};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::second_factor::same_login;
use super::{App, Sight, Worker};

/// Who follows the stream.
pub enum Viewer {
    /// Somebody with a session, until that ends.
    Session(Arc<Session>),
    /// A user who has shown the password, until logins ask for something else; or an API token,
    /// until that ends.
    User(Arc<User>, Option<Arc<Token>>),
    /// An application by a token, until that ends; the hash is that of its first one.
    Application(ApplicationId, [u8; 32], Option<Arc<Token>>),
}

impl Viewer {
    /// An application, with this token; none: its first one.
    pub fn application(application: &Application, token: Option<Arc<Token>>) -> Self {
        Self::Application(application.id, application.token_hash, token)
    }

    fn principal(&self) -> PrincipalId {
        match self {
            Self::Session(session) => session.who().principal_id(),
            Self::User(user, _) => PrincipalId::User(user.id),
            Self::Application(id, ..) => PrincipalId::Application(*id),
        }
    }

    /// Counts a request in this organisation, as a command.
    ///
    /// # Errors
    ///
    /// As [`App::charge`].
    pub fn charge(&self, app: &App, org: OrgId) -> Result<(), Failure> {
        let now = app.clock.now();
        if let Self::Session(session) = self {
            return app.charge(session, now);
        }
        app.charge_login(self.principal(), org, now)
    }

    /// For whom its pieces are read.
    pub fn worker(&self, org: OrgId) -> Worker {
        Worker::Principal(org, self.principal())
    }
}

/// The places of those who follow the stream over HTTP, and who has them.
pub struct EventReaders {
    shares: Mutex<Shares<PrincipalId>>,
    /// How often readers were asked for a sign of life, because there was no place.
    asked: Mutex<Asked>,
    /// Wakes them.
    ask: Notify,
}

/// How often readers were asked since the first time, and when last.
struct Asked {
    since: Instant,
    last: Instant,
    times: usize,
}

/// A place; it is free again when this is dropped.
pub struct EventReaderPlace {
    places: Arc<EventReaders>,
    payer: (OrgId, PrincipalId),
}

impl EventReaderPlace {
    /// Where the reader is.
    pub(super) const fn org(&self) -> OrgId {
        self.payer.0
    }
}

impl EventReaders {
    pub(super) fn new(pools: &Arc<Pools>) -> Arc<Self> {
        let most = limits::EVENT_READERS_MAX;
        let shares = Mutex::new(Shares::new(Pool::EventReaders, most, pools));
        let now = Instant::now();
        let asked = Mutex::new(Asked { since: now, last: now, times: 0 });
        Arc::new(Self { shares, asked, ask: Notify::new() })
    }

    /// Takes a place. Where there is none, it waits a little for those of readers that have gone: a
    /// connection shows that only when something is written to it, and again.
    ///
    /// # Errors
    ///
    /// There is none for it.
    pub async fn take(
        self: &Arc<Self>,
        org: OrgId,
        viewer: &Viewer,
    ) -> Result<EventReaderPlace, Failure> {
        let principal = viewer.principal();
        for wait in limits::EVENT_READER_ASKS {
            if self.shares.lock().has_room(org, principal, 1).is_ok() {
                break;
            }
            self.ask_readers();
            sleep(wait).await;
        }
        let taken = self.shares.lock().take(org, principal, 1);
        taken.map_err(|over| {
            Failure::new(Code::BUSY, format!("There is no place: {over}; try again."))
        })?;
        Ok(EventReaderPlace { places: self.clone(), payer: (org, principal) })
    }

    /// Asks all readers for a sign of life, unless they were asked so often just now.
    fn ask_readers(&self) {
        let (now, (most, within)) = (Instant::now(), limits::EVENT_READERS_ASKED);
        let mut asked = self.asked.lock();
        if now - asked.since >= within {
            *asked = Asked { since: now, last: now, times: 0 };
        }
        let is_early = asked.times > 0 && now - asked.last < limits::EVENT_READER_ASKS[0] / 2;
        if !is_early && asked.times < most {
            (asked.last, asked.times) = (now, asked.times + 1);
            drop(asked);
            self.ask.notify_waiters();
        }
    }
}

impl EventReaderPlace {
    /// Waits until somebody wants to know whether the reader is there.
    pub async fn asked(&self) {
        self.places.ask.notified().await;
    }
}

/// What is sent to a reader to see whether it is there: a comment.
pub const SIGN_OF_LIFE: &str = ":\n\n";

impl Drop for EventReaderPlace {
    fn drop(&mut self) {
        self.places.shares.lock().give_back(self.payer.0, self.payer.1, 1);
    }
}

impl App {
    /// What somebody sees of the stream now over this connection; none if it is nobody any more.
    pub fn sight_of(&self, viewer: &Viewer, conn: ConnInfo) -> Option<Sight> {
        let (identity, now) = (self.identity(), self.clock.now());
        let (sight, access) = match viewer {
            Viewer::Session(session) => {
                if session.end().is_some() {
                    return None;
                }
                (Sight::of(session), session.access())
            }
            Viewer::User(then, token) => {
                let user = identity.user(then.id).filter(|user| !user.ban.is_banned(now))?;
                match token {
                    Some(token) => user.check_token(token, now).ok()?,
                    None if same_login(&user, then) => {}
                    None => return None,
                }
                let access = Arc::new(identity.home_access(&user, token.as_deref())?);
                (Sight::of_access(access.clone()), access)
            }
            Viewer::Application(id, first, token) => {
                let found = identity.application(*id);
                let application = found.filter(|found| !found.ban.is_banned(now))?;
                application.check_token(token.as_deref(), first, now).ok()?;
                let access = Arc::new(identity.application_access(&application)?);
                (Sight::of_access(access.clone()), access)
            }
        };
        self.may_enter(&access, conn).then_some(sight)
    }
}
