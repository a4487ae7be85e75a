//! The callers that wait for the outcome of a mail. None of them holds a thread: each is a future
//! with a channel.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{MailId, OrgId, limits};
use parking_lot::Mutex;
use rules::directory::PrincipalId;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::mail::Outcome;
use super::{SendError, State};

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
pub(super) struct Callers {
    by_mail: HashMap<MailId, SmallVec<[Waits; 1]>>,
    by_session: HashMap<u64, BTreeSet<(MailId, u64)>>,
    shares: Shares<PrincipalId>,
    next: u64,
    stopped: bool,
}

/// Who wants to wait.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub session: u64,
    /// Whose share it is.
    pub payer: (OrgId, PrincipalId),
}

/// One who waits.
struct Waits {
    number: u64,
    caller: Caller,
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
    /// Nobody.
    pub(super) fn new(pools: &Arc<Pools>) -> Self {
        Self {
            by_mail: HashMap::new(),
            by_session: HashMap::new(),
            shares: Shares::new(Pool::Callers, limits::WAITING_CALLS_MAX, pools),
            next: 0,
            stopped: false,
        }
    }

    /// Whether one more may wait.
    ///
    /// # Errors
    /// There is no room, or the server stops.
    pub(super) fn check(&mut self, caller: Caller) -> Result<(), SendError> {
        if self.stopped {
            return Err(SendError::Busy);
        }
        let (org, principal) = caller.payer;
        self.shares.take(org, principal, 1)?;
        self.shares.give_back(org, principal, 1);
        Ok(())
    }

    /// How many wait.
    pub(super) const fn len(&self) -> u64 {
        self.shares.held()
    }

    /// Adds one who waits for a mail until the deadline.
    pub(super) fn add(
        &mut self,
        mail: MailId,
        caller: Caller,
        deadline: Instant,
        state: Arc<Mutex<State>>,
    ) -> Waiter {
        let (sender, answer) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.shares.hold(caller.payer.0, caller.payer.1, 1);
        self.by_session.entry(caller.session).or_default().insert((mail, number));
        let waits = Waits { number, caller, answer: sender };
        self.by_mail.entry(mail).or_default().push(waits);
        Waiter { mail, number, deadline, answer, state }
    }

    /// Takes out all who wait for a mail; the outcome is to be sent to them.
    pub(super) fn take(&mut self, mail: MailId) -> Released {
        let all = self.by_mail.remove(&mail).unwrap_or_default();
        for waits in &all {
            self.forget(mail, waits);
        }
        Released(all)
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
        let Some(all) = self.by_mail.get_mut(&mail) else { return };
        let Some(index) = all.iter().position(|waits| waits.number == number) else { return };
        let waits = all.swap_remove(index);
        if all.is_empty() {
            self.by_mail.remove(&mail);
        }
        self.forget(mail, &waits);
        // Who does not listen any more needs no answer.
        let _ = waits.answer.send(answer);
    }

    fn forget(&mut self, mail: MailId, waits: &Waits) {
        let Caller { session, payer } = waits.caller;
        self.shares.give_back(payer.0, payer.1, 1);
        if let Some(calls) = self.by_session.get_mut(&session) {
            calls.remove(&(mail, waits.number));
            if calls.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }
}

/// Callers that wait no more and are to get the reason.
#[must_use]
pub(super) struct Released(SmallVec<[Waits; 1]>);

impl Released {
    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends it to them.
    pub(super) fn send(self, answer: &Answer) {
        for waits in self.0 {
            // Who does not listen any more needs no answer.
            let _ = waits.answer.send(answer.clone());
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
