//! What a bearer token over HTTP stands for (RFC 6750): a session's id, an application's token, or a
//! user's API token.

use std::sync::Arc;

use base::{ConnInfo, SessionId, Timestamp};
use rules::directory::Session;
use rules::identity::model::{Application, User};
use rules::identity::{Access, Refusal, Token};

use super::{App, LoginError};

/// Who shows a bearer token.
pub enum Bearer {
    /// Whoever has this session.
    Session(Arc<Session>),
    /// An application, without a session; and its token unless that is the first.
    Application(Arc<Application>, Option<Arc<Token>>),
    /// A user by an API token, without a session.
    User(Arc<User>, Arc<Token>),
}

impl App {
    /// Finds out who shows a bearer token.
    ///
    /// # Errors
    ///
    /// There is nobody who may come so, or too many wrong tokens came from the same network.
    pub fn bearer(
        &self,
        token: &str,
        conn: ConnInfo,
        now: Timestamp,
    ) -> Result<Bearer, LoginError> {
        let id = SessionId::parse(token);
        if let Some(session) = id.as_ref().and_then(|id| self.session(id, conn)) {
            return Ok(Bearer::Session(session));
        }
        // Whoever goes on with a session that has ended guesses no tokens.
        let identity = self.identity();
        let is_token = || {
            identity.application_by_token(token).is_some()
                || identity.token_of_user(token).is_some()
        };
        if id.is_some() && !is_token() {
            self.note_unknown_session(conn, now);
            return Err(Refusal::BadCredentials.into());
        }
        self.by_token(token, conn, now)
    }

    /// What who shows it may do: an application in its organisation, a user at home.
    pub fn access_of(&self, shown: &Bearer) -> Option<Arc<Access>> {
        let identity = self.identity();
        match shown {
            Bearer::Session(session) => Some(session.access()),
            Bearer::Application(found, _) => identity.application_access(found).map(Arc::new),
            Bearer::User(user, token) => identity.home_access(user, Some(token)).map(Arc::new),
        }
    }
}
