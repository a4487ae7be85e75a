//! Notices of mail: which connection gets one, and when (`docs/protocol/tr50.md` 4.2 and 5).

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use base::{ThingId, ThingKey, Timestamp, limits};
use rules::directory::event::Event;
use rules::directory::{Lifetime, Outbox, Principal, Push, Session, Who};
use serde::Serialize;
use store::StoreError;

use super::App;
use crate::random::random;
use crate::things::mailbox::mail::Message;
use crate::things::mailbox::{NewMessage, SendError, Sent};

/// The topic of the notice.
static TOPIC: LazyLock<Arc<str>> = LazyLock::new(|| "notify/mailbox_activity".into());

/// The notice that mail waits (`docs/protocol/tr50.md` 0, fact 17): the session that is told, and
/// the thing that the mail is for, which may be one that is bound to the session's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    session_id: &'a str,
    thing_key: &'a ThingKey,
}

/// A notice for a session that is bound to a connection.
pub(super) fn notice(session: &Session, message: &Message) -> Push {
    let session_id = session.id().map_or("", |id| id.secret());
    let notice = Notice { session_id, thing_key: &message.thing_key };
    let payload = serde_json::to_vec(&notice).expect("two texts");
    Push::message(TOPIC.clone(), payload.into())
}

/// The connection of a session that is bound to one, with a notice for it.
pub fn notice_to(session: &Session, message: &Message) -> Option<(Arc<Outbox>, Push)> {
    let outbox = session.outbox().filter(|_| session.lifetime() == Lifetime::Connection)?;
    Some((outbox.clone(), notice(session, message)))
}

impl App {
    /// Makes a mail and notifies the connections that serve the thing at once, without waiting for
    /// the store.
    ///
    /// # Errors
    /// As [`Mailbox::send`], or the system has no random numbers.
    ///
    /// [`Mailbox::send`]: crate::things::mailbox::Mailbox::send
    pub fn send_mail(
        &self,
        new: NewMessage,
        caller: &Session,
        now: Timestamp,
    ) -> Result<Sent, SendError> {
        let random = random().map_err(|_| SendError::Busy)?;
        let sent = self.mailbox.send(new, random, caller.number(), now)?;
        if sent.is_new {
            self.notify_mail(&sent.message);
        }
        Ok(sent)
    }

    /// The notice for a session that begins, if mail waits for it.
    pub fn waiting_mail(&self, session: &Session) -> Option<Push> {
        if self.mailbox.counts().0 == 0 {
            return None;
        }
        let things = match self.served_by(session) {
            Ok(things) => things,
            Err(error) => {
                log_unread(&error);
                return None;
            }
        };
        self.mailbox.new_for(&things).map(|message| notice(session, &message))
    }

    /// The things that a session serves: its own, and those bound to it.
    fn served_by(&self, session: &Session) -> Result<Vec<ThingId>, StoreError> {
        let Who::Application { thing_id, .. } = session.who() else { return Ok(Vec::new()) };
        let children = self.things.children(*thing_id, limits::CHILDREN_MAX)?;
        Ok(std::iter::once(*thing_id).chain(children.into_iter().map(|(id, _)| id)).collect())
    }

    /// Makes new again what ended sessions have in flight, and tells the other connections that
    /// serve those things.
    pub fn return_mail(&self, events: &[Event]) {
        for event in events {
            if let Event::Ended(session, _) = event
                && let Some(end) = session.end()
            {
                self.return_mail_of(session, end.at);
            }
        }
    }

    /// As [`App::return_mail`], for one ended session. A notice says of which thing there is mail,
    /// not how much: one is enough.
    pub fn return_mail_of(&self, session: &Session, now: Timestamp) {
        let mut told = HashSet::new();
        loop {
            let returned = self.mailbox.session_ended(session.number(), now);
            if returned.is_empty() {
                return;
            }
            for message in returned.iter().filter(|message| told.insert(message.thing)) {
                self.notify_mail(message);
            }
        }
    }

    /// Notifies those who serve a thing of mail that waits for it, for they have changed.
    pub fn announce_mail(&self, thing: ThingId) {
        if let Some(message) = self.mailbox.new_for(&[thing]) {
            self.notify_mail(&message);
        }
    }

    /// Notifies every connection that serves the mail's thing: its own, and that of the thing which
    /// it is bound to.
    fn notify_mail(&self, message: &Message) {
        let org = message.org;
        self.push_notices(message, Principal::Thing(org, message.thing_key.clone()));
        let parent = self.things.get(org, &message.thing_key).and_then(|thing| {
            match thing.and_then(|thing| thing.bound_to) {
                Some(parent) => self.things.by_id(org, parent),
                None => Ok(None),
            }
        });
        match parent {
            Ok(Some(parent)) => self.push_notices(message, Principal::Thing(org, parent.key)),
            Ok(None) => {}
            Err(error) => log_unread(&error),
        }
    }

    fn push_notices(&self, message: &Message, principal: Principal) {
        for session in self.sessions.of_principal(&principal) {
            if let Some((outbox, notice)) = notice_to(&session, message) {
                outbox.push(notice);
            }
        }
    }
}

fn log_unread(error: &StoreError) {
    store::report(error, "who serves a thing could not be read");
}
