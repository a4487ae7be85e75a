//! Whether the frames of a connection are kept, because its thing is traced.

use base::{ConnInfo, Timestamp};
use rules::directory::Session;

use crate::app::{App, Masker, Tap, What};

/// The part of a connection that knows it. As long as no trace begins or ends anywhere, it costs a
/// look at one number.
#[derive(Default)]
pub(super) struct Traced {
    epoch: u32,
    tap: Option<Box<Tap>>,
    /// A login of whom nothing is known yet, if something is traced somewhere.
    first: Option<Box<(Timestamp, Vec<u8>)>>,
}

impl Traced {
    /// Whether frames are kept now.
    #[inline]
    pub(super) fn check(&mut self, app: &App, session: Option<&Session>, conn: &ConnInfo) -> bool {
        if app.recorder.epoch() != self.epoch {
            self.follow(app, session, conn);
        }
        self.tap.is_some()
    }

    /// Looks whose frames they are: somebody has logged in, or traces have begun or ended.
    pub(super) fn follow(&mut self, app: &App, session: Option<&Session>, conn: &ConnInfo) {
        self.epoch = app.recorder.epoch();
        let Some(session) = session else {
            self.tap.take_if(|tap| !tap.is_open());
            return;
        };
        let found = app.tap_of(session, conn);
        match (&mut self.tap, found) {
            // What it has learned of secrets stays.
            (Some(tap), Some(found)) if tap.is_of(&found) => tap.learn(*found),
            (tap, found) => *tap = found,
        }
    }

    /// Has the frames kept of who is logging in with this token, if they are to be kept; and of
    /// nobody else.
    pub(super) fn begin(&mut self, app: &App, (key, token): (&str, &str), conn: &ConnInfo) {
        self.tap = app.tap_at_login(key, token, conn);
    }

    /// Has no frames kept until somebody is known to be logged in.
    pub(super) fn end(&mut self) {
        self.tap = None;
    }

    /// Keeps the frame of a login until it is known whose it is.
    pub(super) fn hold(&mut self, app: &App, bytes: &[u8]) {
        if self.tap.is_none() && app.recorder.is_on() {
            let now = app.clock.shown(app.clock.now());
            self.first = Some(Box::new((now, bytes.to_vec())));
        }
    }

    /// The login was accepted: keeps the frame that was held, if frames are kept.
    pub(super) fn logged_in(
        &mut self,
        app: &App,
        session: &Session,
        conn: &ConnInfo,
        mask: impl FnOnce(&mut Masker<'_>, &mut Vec<u8>) -> What,
    ) {
        self.follow(app, Some(session), conn);
        if let (Some(first), Some(tap)) = (self.first.take(), &mut self.tap) {
            let (ts, bytes) = *first;
            tap.record_at(app, ts, false, &bytes, mask);
        }
    }

    /// Keeps a frame, if frames are kept.
    pub(super) fn record(
        &mut self,
        app: &App,
        outgoing: bool,
        bytes: &[u8],
        mask: impl FnOnce(&mut Masker<'_>, &mut Vec<u8>) -> What,
    ) {
        if let Some(tap) = &mut self.tap {
            tap.record(app, outgoing, bytes, mask);
        }
    }
}
