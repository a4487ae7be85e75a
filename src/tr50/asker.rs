//! Commands of somebody whose session is known by other means than an envelope: the console's.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, OrgId, SessionId};
use rules::directory::Session;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::dispatch::{Caller, execute_one, note_failed};
use super::envelope::{Body, RawParams};
use super::exchange::session_of;
use crate::app::{self, App};

/// Somebody who asks in an organisation.
#[derive(Clone)]
pub struct Asker {
    app: Arc<App>,
    /// That of the directory.
    session: Arc<Session>,
    /// The same where the commands are to be carried out.
    placed: Arc<Session>,
    conn: ConnInfo,
    /// Whether commands count for the session's rate and its last access.
    counts: bool,
}

/// The reply object of a command that succeeded.
#[derive(serde::Deserialize)]
struct Success {
    params: Option<Box<RawValue>>,
}

impl Asker {
    /// Who has a session.
    ///
    /// # Errors
    ///
    /// There is no such session, or no place for its connection.
    pub fn of_session(app: &Arc<App>, id: &str, conn: ConnInfo) -> Result<Self, Failure> {
        let session = session_of(app, SessionId::parse(id), conn, app.clock.now())?;
        let placed = session.clone();
        Ok(Self { app: app.clone(), session, placed, conn, counts: true })
    }

    /// The same in another organisation, where the session itself does not go; none without a right
    /// there.
    pub fn in_org(&self, org: OrgId) -> Option<Self> {
        if self.session.end().is_some() {
            return None;
        }
        let placed = match self.session.org_id() == org {
            true => self.session.clone(),
            false => self.app.session_seen_in(&self.session, org, self.app.clock.now())?,
        };
        // Who administers there may have to come by another listener.
        let may_enter = self.app.may_enter(&placed.access(), self.conn);
        may_enter.then(|| Self { placed, ..self.clone() })
    }

    /// The same for one who looks on again and again: that neither uses up the session's rate nor
    /// keeps it from idling.
    #[must_use]
    pub fn watching(self) -> Self {
        Self { counts: false, ..self }
    }

    /// The parts of the server.
    pub const fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The session of the directory.
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The session as it is in the organisation of the commands.
    pub const fn placed(&self) -> &Arc<Session> {
        &self.placed
    }

    /// Whether the permission of this name is there.
    pub fn may(&self, permission: &str) -> bool {
        self.placed.access().allows(permission)
    }

    /// Carries out one command, and returns the `params` of its reply.
    ///
    /// # Errors
    ///
    /// The command's failure.
    pub async fn ask<R: DeserializeOwned>(
        &self,
        command: &'static str,
        params: &impl Serialize,
    ) -> Result<R, Failure> {
        let now = self.app.clock.now();
        let caller = Caller::new(Some(self.placed.clone()), self.conn).counted();
        let asked = async {
            if self.session.end().is_some() {
                return Err(Failure::session_invalid("has ended."));
            }
            if self.counts {
                self.app.touch(&self.session, now, 1);
                self.app.charge(&self.session, now)?;
            }
            let params = to_raw_value(params).map_err(|error| unread(command, &error))?;
            let params = RawParams::Json(Some(&params));
            let body = Body { command: command.into(), params };
            let executed = async {
                let mut out = Vec::with_capacity(1024);
                match execute_one(&self.app, &caller, &body, now, &mut out)? {
                    None => Ok(out),
                    Some(pending) => {
                        let mut reply = pending.await;
                        match reply.failure.take() {
                            Some(failure) => Err(failure),
                            None => Ok(reply.send(|text| text)),
                        }
                    }
                }
            };
            let for_whom = Some(app::asker(&self.placed));
            let text: Vec<u8> = self.app.cores.work(for_whom, executed).await?;
            let read = serde_json::from_slice::<Success>(&text).and_then(|success| {
                let params = success.params.as_deref().map_or("null", RawValue::get);
                serde_json::from_str(params)
            });
            read.map_err(|error| unread(command, &error))
        };
        let asked: Result<R, Failure> = asked.await;
        asked.inspect_err(|failure| note_failed(&self.app, &caller, command, failure, now))
    }
}

/// A page and a command do not fit together, which no peer can cause.
fn unread(command: &str, error: &serde_json::Error) -> Failure {
    tracing::error!(command, %error, "a reply could not be read");
    Failure::new(Code::INTERNAL, format!("The reply of {command} could not be read: {error}."))
}
