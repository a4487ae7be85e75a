//! Lines in the server's log on sessions that start and end: who, from where, why and how long. At
//! most a hundred a second; of the rest, one line a second has the counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rules::directory::{Event, Reason, Session, Who};
use tracing::{Level, enabled, info};

use super::App;
use crate::logging::PeerLog;

/// Lines on sessions in a second.
const LINES_PER_S: u32 = 100;

/// What the log has no lines on yet.
pub(super) struct SessionLog {
    lines: PeerLog,
    started: AtomicU64,
    ended: AtomicU64,
}

impl Default for SessionLog {
    fn default() -> Self {
        let (started, ended) = Default::default();
        Self { lines: PeerLog::new(LINES_PER_S), started, ended }
    }
}

impl App {
    /// Logs that sessions started and ended.
    pub(super) fn log_sessions(&self, events: &[Event]) {
        if !enabled!(Level::INFO) {
            return;
        }
        let log = &self.session_log;
        for event in events {
            let (session, end, counter) = match event {
                Event::Started(session) => (session, None, &log.started),
                Event::Ended(session, reason) => (session, Some(*reason), &log.ended),
                _ => continue,
            };
            let is_watched = || self.watched.has_session(Some(session), session.conn());
            if log.lines.admit().is_some() || is_watched() {
                self.say(session, end);
            } else {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Logs how many sessions started and ended for which there was no line; once a second.
    pub fn log_session_counts(&self) {
        let log = &self.session_log;
        let take = |counter: &AtomicU64| match counter.load(Ordering::Relaxed) {
            0 => 0,
            _ => counter.swap(0, Ordering::Relaxed),
        };
        let (started, ended) = (take(&log.started), take(&log.ended));
        if started + ended > 0 {
            info!(started, ended, "more sessions started and ended");
        }
    }

    fn say(&self, session: &Arc<Session>, end: Option<Reason>) {
        let conn = session.conn();
        let (who, kind) = (session.who().name(), session.kind().as_str());
        let (org, client_id) = (session.access().org.key.clone(), session.client_id());
        let client_id = Some(client_id).filter(|id| !id.is_empty()).map(|id| self.shown(id));
        let app = match session.who() {
            Who::Application { application, .. } => Some(&*application.name),
            Who::User(_) => None,
        };
        let (peer, door) = (conn.remote_addr, conn.protocol.as_str());
        let Some(reason) = end.map(Reason::as_str) else {
            info!(who, kind, org, app, client_id, %peer, door, "a session started");
            return;
        };
        let at = session.end().map_or(session.started(), |end| end.at);
        let (seconds, commands) =
            (at.millis_since(session.started()) / 1000, session.command_count());
        info!(
            who, kind, org, app, client_id, %peer, door, reason, seconds, commands,
            "a session ended"
        );
    }
}
