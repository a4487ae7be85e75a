//! The lines of things that are traced.

use base::Failure;

use super::Client;
use crate::app::{App, Credentials, What};
use crate::edge::traced::Traced;
use crate::tr50::exchange::TcpAuth;

impl Client {
    /// Whether the lines of this connection are kept.
    #[inline]
    pub(super) fn is_traced(&mut self) -> bool {
        let session = self.caller.session.as_deref();
        self.traced.check(&self.app, session, &self.caller.conn)
    }

    /// Keeps what came, if it is to be kept.
    pub(super) fn note_in(&mut self, text: &[u8], packet: &'static str) {
        if self.is_traced() {
            record(&mut self.traced, &self.app, (false, packet), text);
        }
    }

    /// The same of a request: for whom it is made says its `auth`, so that nobody's words are in
    /// the trace of another.
    pub(super) fn note_request(
        &mut self,
        text: &[u8],
        auth: &Result<TcpAuth, Failure>,
        out: &[u8],
    ) {
        if self.app.recorder.is_on() {
            let (app, conn) = (self.app.clone(), self.caller.conn);
            match auth {
                Ok(TcpAuth::Login { credentials, .. }) => {
                    self.flush_noted(out);
                    match credentials {
                        Credentials::Application { thing_key, token, .. } => {
                            self.traced.begin(&app, (thing_key, token), &conn);
                        }
                        Credentials::User { .. } => self.traced.end(),
                    }
                    return record(&mut self.traced, &app, (false, "request"), text);
                }
                Ok(TcpAuth::Session(session)) => {
                    self.flush_noted(out);
                    self.traced.follow(&app, Some(session), &conn);
                    return record(&mut self.traced, &app, (false, "request"), text);
                }
                _ => {}
            }
        }
        self.note_in(text, "request");
    }

    /// Looks whose lines they are from now on.
    pub(super) fn follow_traces(&mut self, out: &[u8]) {
        if self.app.recorder.is_on() {
            self.flush_noted(out);
            let (session, conn) = (self.caller.session.as_deref(), &self.caller.conn);
            self.traced.follow(&self.app, session, conn);
        }
    }

    /// Keeps the lines that are to be written, before somebody else is at the other end.
    fn flush_noted(&mut self, out: &[u8]) {
        lines(&mut self.traced, &self.app, out.get(self.noted..).unwrap_or_default());
        self.noted = out.len();
    }
}

/// Keeps lines that the server sends.
pub(super) fn lines(traced: &mut Traced, app: &App, bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let is_notice = line.starts_with(br#"{"notify":"#);
        let packet = if is_notice { "notify" } else { "reply" };
        record(traced, app, (true, packet), line);
    }
}

fn record(traced: &mut Traced, app: &App, (out, packet): (bool, &'static str), text: &[u8]) {
    traced.record(app, out, text, |masker, bytes| {
        masker.payload(bytes);
        What { packet: packet.into(), ..What::default() }
    });
}
