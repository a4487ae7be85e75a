//! The callers that wait for the outcome of a mail. None of them holds a thread: each is a future
//! with a channel.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use base::{MailId, limits};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::State;
use super::mail::Outcome;

/// The outcome of a mail, for its sender.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The thing has completed it.
    Completed(Arc<Outcome>),
    /// It expired.
    Expired,
    /// It was taken back.
    Purged,
    /// It was completed, but that could not be stored.
    NotStored,
    /// Nothing yet, in the time that the sender waits.
    NotInTime,
    /// Nothing: the sender's connection has ended.
    HungUp,
    /// Nothing: the server stops.
    Stopped,
}

/// All who wait.
#[derive(Default)]
pub(super) struct Callers {
    by_mail: HashMap<MailId, SmallVec<[Caller; 1]>>,
    by_session: HashMap<u64, BTreeSet<(MailId, u64)>>,
    count: usize,
    next: u64,
    stopped: bool,
}

/// One who waits.
struct Caller {
    number: u64,
    session: u64,
    answer: oneshot::Sender<Answer>,
}

/// A caller's own end: it waits as long as this lives.
pub struct Waiter {
    mail: MailId,
    number: u64,
    deadline: Instant,
    answer: oneshot::Receiver<Answer>,
    state: Arc<Mutex<State>>,
}

impl Callers {
    /// Whether one more may wait.
    pub(super) const fn has_room(&self) -> bool {
        self.count < limits::WAITING_CALLS_MAX && !self.stopped
    }

    /// How many wait.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Adds one who waits for a mail until the deadline.
    pub(super) fn add(
        &mut self,
        mail: MailId,
        session: u64,
        deadline: Instant,
        state: Arc<Mutex<State>>,
    ) -> Waiter {
        let (sender, answer) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.count += 1;
        let caller = Caller { number, session, answer: sender };
        self.by_mail.entry(mail).or_default().push(caller);
        self.by_session.entry(session).or_default().insert((mail, number));
        Waiter { mail, number, deadline, answer, state }
    }

    /// Takes out all who wait for a mail; the outcome is to be sent to them.
    pub(super) fn take(&mut self, mail: MailId) -> Released {
        let callers = self.by_mail.remove(&mail).unwrap_or_default();
        for caller in &callers {
            self.forget(mail, caller.session, caller.number);
        }
        Released(callers)
    }

    /// Ends the waiting of all who called from a session that has no connection any more.
    pub(super) fn hang_up(&mut self, session: u64) {
        for (mail, number) in self.by_session.get(&session).cloned().unwrap_or_default() {
            self.remove(mail, number, Answer::HungUp);
        }
    }

    /// Ends all waiting because the server stops; nobody waits any more from now on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        for mail in self.by_mail.keys().copied().collect::<Vec<_>>() {
            self.take(mail).send(&Answer::Stopped);
        }
    }

    fn remove(&mut self, mail: MailId, number: u64, answer: Answer) {
        let Some(callers) = self.by_mail.get_mut(&mail) else { return };
        let Some(index) = callers.iter().position(|caller| caller.number == number) else { return };
        let caller = callers.swap_remove(index);
        if callers.is_empty() {
            self.by_mail.remove(&mail);
        }
        self.forget(mail, caller.session, number);
        // Who does not listen any more needs no answer.
        let _ = caller.answer.send(answer);
    }

    fn forget(&mut self, mail: MailId, session: u64, number: u64) {
        self.count -= 1;
        if let Some(calls) = self.by_session.get_mut(&session) {
            calls.remove(&(mail, number));
            if calls.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }
}

/// Callers that wait no more and are to get the reason.
#[must_use]
pub(super) struct Released(SmallVec<[Caller; 1]>);

impl Released {
    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends it to them.
    pub(super) fn send(self, answer: &Answer) {
        for caller in self.0 {
            // Who does not listen any more needs no answer.
            let _ = caller.answer.send(answer.clone());
        }
    }
}

impl Waiter {
    /// What became of the mail.
    pub async fn answered(mut self) -> Answer {
        match timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            // The sender is gone without an answer: only when the server stops.
            Ok(Err(_)) => Answer::Stopped,
            Err(_) => Answer::NotInTime,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.state.lock().callers.remove(self.mail, self.number, Answer::HungUp);
    }
}
