//! What a bearer token over HTTP stands for (RFC 6750): a session's id, or an application's token.

use std::sync::Arc;

use base::{ConnInfo, SessionId, Timestamp};
use rules::directory::Session;
use rules::identity::Refusal;
use rules::identity::model::Application;

use super::{App, LoginError};

/// Who shows a bearer token.
pub enum Bearer {
    /// Whoever has this session.
    Session(Arc<Session>),
    /// An application, without a session.
    Application(Arc<Application>),
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
        if id.is_some() && self.identity().application_by_token(token).is_none() {
            self.note_unknown_session(conn, now);
            return Err(Refusal::BadCredentials.into());
        }
        self.application_by_token(token, conn, now).map(Bearer::Application)
    }
}
