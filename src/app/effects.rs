//! The effects of a command: everything that it changes, as one value.
//! [`App::apply`](super::App::apply) carries them out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::pool::Pools;
use base::{Code, Failure, OrgId, ThingDefId, UserId, carried_on, limits};
use rules::directory::{Event, Events, Principal, PrincipalId, Reason, Session};
use rules::identity::{Access, RecordChanges};
use serde_json::{Map, Value};
use store::{Receipt, StoreError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::audit::Deed;
use super::pace::Pace;
use super::turns::Worker;

/// All that a command did beside its reply. The reply waits until it is durable.
#[derive(Default)]
#[must_use = "nothing has changed and nobody knows of it until this is applied"]
pub struct Effects {
    /// For what is in the store's queue already: rows of things.
    pub(super) receipt: Receipt,
    /// Records of identity.
    pub(super) records: Option<RecordChanges>,
    /// Whose sessions follow the change of records.
    pub(super) affected: Option<Affected>,
    /// For whom that is done.
    pub(super) worker: Worker,
    /// A login whose object is gone: what it left ends.
    pub(super) gone: Option<Principal>,
    /// Changes of sessions, in order.
    pub(super) sessions: Vec<SessionChange>,
    /// Who does it by which command, if that is in the trail.
    pub(super) deed: Option<Box<Deed>>,
    /// By what the sessions were found that end, if all of that is one event.
    pub(super) found_by: Option<Map<String, Value>>,
    /// What is done behind the reply.
    pub(crate) after_reply: Option<AfterReply>,
    /// Whether the connections of ended sessions close as soon as that holds.
    pub(super) closes_at_once: bool,
}

/// Something that is done when a reply is on its way, such as sending a message behind it.
pub type AfterReply = Box<dyn FnOnce() + Send>;

/// Whose rights have changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Affected {
    /// A user's.
    User(UserId),
    /// Those of principals that may have a session in this organisation.
    Org(OrgId),
    /// The same, for the organisation and all below it.
    Within(OrgId),
    /// The same, and of who is at home or a member there, wherever else.
    Members(OrgId),
}

/// A change of sessions.
#[derive(Clone)]
pub enum SessionChange {
    /// It ends.
    End(Arc<Session>, Reason),
    /// Somebody ends it: one of their own as logged out, any other as revoked.
    EndFor(Arc<Session>, Principal),
    /// It is revoked, even if it has ended otherwise.
    Revoke(Arc<Session>),
    /// It goes to another organisation, with the rights it has there.
    Switch(Arc<Session>, Arc<Access>),
    /// It gets the rights that its principal has now.
    Refresh(Arc<Session>),
    /// The thing of these sessions has another definition.
    Redefine(Principal, Option<ThingDefId>),
    /// All sessions of a login but this one end as revoked.
    EndOthers(Principal, Arc<Session>),
}

impl Effects {
    /// Changes of these sessions.
    pub fn on_sessions(changes: impl IntoIterator<Item = SessionChange>) -> Self {
        Self { sessions: changes.into_iter().collect(), ..Self::default() }
    }

    /// The same, and changes of these sessions after all else.
    pub fn and_sessions(mut self, changes: impl IntoIterator<Item = SessionChange>) -> Self {
        self.sessions.extend(changes);
        self
    }

    /// The same, with a login that ends with what the command removed.
    pub fn without(mut self, principal: Principal) -> Self {
        self.gone = Some(principal);
        self
    }

    /// The same, with a change of rights that live sessions follow.
    pub fn followed_by(mut self, affected: Affected) -> Self {
        self.affected = Some(affected);
        self
    }

    /// The same, as work of a principal in the organisation where it is.
    pub fn caused_by(mut self, (org, principal): (OrgId, PrincipalId)) -> Self {
        self.worker = Worker::Begun(org, principal);
        self
    }

    /// The same, as an act of an administrator, which is in the trail.
    pub fn by(mut self, deed: Deed) -> Self {
        self.deed = Some(Box::new(deed));
        self
    }

    /// The same, as one event, which says by what the sessions were found.
    pub fn as_one(mut self, found_by: Map<String, Value>) -> Self {
        self.found_by = Some(found_by);
        self
    }

    /// The same, when the answer does not go over a connection that closes with it: then all close
    /// as soon as their sessions have ended.
    pub fn closing_at_once(mut self) -> Self {
        self.closes_at_once = true;
        self
    }

    /// The same, with something to do behind the reply.
    pub fn and_then(mut self, after_reply: Option<AfterReply>) -> Self {
        self.after_reply = after_reply;
        self
    }
}

impl From<Receipt> for Effects {
    fn from(receipt: Receipt) -> Self {
        Self { receipt, ..Self::default() }
    }
}

impl From<RecordChanges> for Effects {
    fn from(records: RecordChanges) -> Self {
        Self { records: Some(records), ..Self::default() }
    }
}

impl From<SessionChange> for Effects {
    fn from(change: SessionChange) -> Self {
        Self { sessions: vec![change], ..Self::default() }
    }
}

/// Connections whose sessions have ended. They close when this is dropped: behind a reply if it
/// goes with the reply, at once otherwise.
#[derive(Default)]
pub struct Goodbyes {
    ended: Vec<(Arc<Session>, Reason)>,
    /// And which organisations belong together.
    pace: Option<(Arc<Pace>, Arc<Pools>)>,
    closed: bool,
    /// Those that go with the replies of others, too: they close with the last of them.
    shared: Vec<Arc<Self>>,
}

impl Goodbyes {
    pub(super) fn of(events: &Events, (pace, pools): (&Arc<Pace>, &Arc<Pools>)) -> Self {
        let ended = |event: &Event| match event {
            Event::Ended(session, reason) => Some((session.clone(), *reason)),
            _ => None,
        };
        let ended: Vec<_> = events.iter().filter_map(ended).collect();
        // Most ends close no connection of others.
        let pace = (!ended.is_empty()).then(|| (pace.clone(), pools.clone()));
        Self { ended, pace, closed: false, shared: Vec::new() }
    }

    /// Those of a change that is others', too.
    pub(super) fn shared(with_others: Arc<Self>) -> Self {
        let mut goodbyes = Self::default();
        goodbyes.shared.push(with_others);
        goodbyes
    }

    /// Those of both.
    pub fn append(&mut self, mut other: Self) {
        self.ended.append(&mut other.ended);
        self.shared.append(&mut other.shared);
        self.pace = self.pace.take().or(other.pace.take());
        self.closed &= other.closed;
    }

    /// Closes the connections before it is dropped: of many, one after the other.
    pub(super) fn close(&mut self) {
        self.shared.clear();
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let close = |(session, reason): &(Arc<Session>, Reason)| {
            if let Some(outbox) = session.outbox() {
                outbox.close(*reason);
            }
        };
        let bound = |(session, _): &&(Arc<Session>, Reason)| session.outbox().is_some();
        let later = (self.pace.clone(), tokio::runtime::Handle::try_current());
        match later {
            (Some((pace, pools)), Ok(runtime)) if self.ended.len() > limits::ENDED_STEP => {
                let ended: Vec<_> = self.ended.iter().filter(bound).cloned().collect();
                runtime.spawn(async move {
                    for ended in &ended {
                        let tenant = pools.tenant_of(ended.0.org_id());
                        pace.wait(tenant, limits::CLOSE_WORK).await;
                        close(ended);
                    }
                });
            }
            _ => self.ended.iter().for_each(close),
        }
    }

    /// Waits until the connections are closed, as long as that goes on; how many are not: their peers
    /// do not read the last words.
    pub async fn gone(mut self) -> usize {
        const LOOK: Duration = Duration::from_millis(10);
        self.close();
        let mut ended = std::mem::take(&mut self.ended);
        let mut progress = Instant::now();
        loop {
            let before = ended.len();
            ended.retain(|(session, _)| session.outbox().is_some_and(|outbox| !outbox.is_gone()));
            if ended.len() < before {
                progress = Instant::now();
            }
            if ended.is_empty() || progress.elapsed() > limits::LAST_CLOSE_WAIT {
                return ended.len();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The sessions that have ended.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.ended.iter().map(|(session, _)| session)
    }

    /// Whether no session has ended.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.shared.is_empty()
    }
}

impl Drop for Goodbyes {
    fn drop(&mut self) {
        self.close();
    }
}

/// Effects that hold. Resolves when they are durable. Who does not wait drops it: then connections
/// whose sessions ended close now.
#[must_use = "the connections of ended sessions close when this is dropped"]
pub struct Applied(Work);

/// What became of effects.
pub struct Outcome {
    /// Whether they are durable. They hold in memory either way, unless the records were refused.
    pub stored: Result<(), Failure>,
    /// The connections that they close.
    pub goodbyes: Goodbyes,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self { stored: Err(failure), goodbyes: Goodbyes::default() }
    }
}

enum Work {
    /// Everything is in the store's queue.
    Queued { receipt: Receipt, goodbyes: Goodbyes },
    /// The store took no more.
    Refused(Option<StoreError>, Goodbyes),
    /// Many sessions change on a thread that serves no connection.
    Offloaded(JoinHandle<Outcome>),
}

impl Applied {
    pub(super) fn new(queued: Result<Receipt, StoreError>, goodbyes: Goodbyes) -> Self {
        Self(match queued {
            Ok(receipt) => Work::Queued { receipt, goodbyes },
            Err(error) => Work::Refused(Some(error), goodbyes),
        })
    }

    /// It is done whether or not somebody waits for it.
    pub(super) fn offloaded(work: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self(Work::Offloaded(tokio::spawn(carried_on(work))))
    }

    /// Whether it is done on another thread, and so in no order with others.
    pub const fn is_offloaded(&self) -> bool {
        matches!(self.0, Work::Offloaded(_))
    }

    /// Whether there is nothing to wait for and no connection to close.
    pub fn is_nothing(&self) -> bool {
        match &self.0 {
            Work::Queued { receipt, goodbyes } => receipt.is_nothing() && goodbyes.is_empty(),
            Work::Refused(..) | Work::Offloaded(_) => false,
        }
    }

    /// Waits for nothing; a failure is in the log.
    pub fn detach(self) {
        if let Work::Refused(Some(error), _) = &self.0 {
            store::report(error, "a change of the directory was not stored");
        }
    }
}

impl Future for Applied {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let (stored, goodbyes) = match &mut self.0 {
            Work::Queued { receipt, goodbyes } => match Pin::new(receipt).poll(cx) {
                Poll::Ready(stored) => (stored.map_err(Failure::from), goodbyes),
                Poll::Pending => return Poll::Pending,
            },
            Work::Refused(error, goodbyes) => {
                (error.take().map_or(Ok(()), |error| Err(error.into())), goodbyes)
            }
            Work::Offloaded(work) => {
                return Pin::new(work).poll(cx).map(|done| {
                    done.unwrap_or_else(|error| {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "a change of many sessions failed");
                        Failure::new(Code::INTERNAL, "The server failed.").into()
                    })
                });
            }
        };
        Poll::Ready(Outcome { stored, goodbyes: std::mem::take(goodbyes) })
    }
}
