//! Webhooks at work: what of the stream each has sent, and deliveries in turn.
//!
//! A webhook has no queue: it has a number, up to which it has sent the stream of events, and reads
//! on from there. One delivery at a time, in the order of the numbers, which is tried again as a
//! whole: so events come in order, and a receiver that fails or is slow holds nothing but its own
//! place (`docs/decisions/0015-webhooks.md`).

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use base::histogram::{Histogram, Times};
use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{OrgId, WebhookId, limits};
use parking_lot::Mutex;
use rules::directory::PrincipalId;
use rules::identity::{Record, RecordChange, RecordChanges, Webhook, WebhookOwner};
use store::{Batch, StoreError, Table, Tables};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::App;
use super::sight::Sight;
use crate::events::Class;
use crate::webhooks::{Sender, Target};

mod delivery;
mod progress;

pub use progress::{LastFailure, Progress};

/// All webhooks, and their deliveries.
pub(super) struct Webhooks {
    sender: Sender,
    state: Mutex<State>,
    /// Something else than the stream has changed.
    changed: Notify,
    times: Histogram,
}

struct State {
    hooks: HashMap<WebhookId, Hook>,
    /// How many webhooks there are.
    count: Shares<PrincipalId>,
    /// Places of deliveries under way.
    places: Shares<PrincipalId>,
    /// Grows with each delivery that begins: who has waited longest is next.
    turn: u64,
}

/// One webhook.
struct Hook {
    webhook: Arc<Webhook>,
    progress: Progress,
    /// Not before then.
    not_before: Option<Instant>,
    running: Option<AbortHandle>,
    /// How far the stream had got when there was nothing more for it: some numbers are no event's.
    looked_at: u64,
    /// When it had its last turn.
    turn: u64,
    /// The number that is stored.
    stored: u64,
}

/// A delivery that begins. Its place is free again when it is dropped.
struct Job {
    app: Arc<App>,
    webhook: Arc<Webhook>,
    progress: Progress,
    /// How far the stream had got.
    last: u64,
    place: Arc<DeliveryPlace>,
}

/// The place of a delivery. A look-up of a name that goes on without it has it, too: nothing ends one.
struct DeliveryPlace {
    app: Arc<App>,
    payer: (OrgId, PrincipalId),
}

/// For whom a webhook and its deliveries count.
fn payer(webhook: &Webhook) -> (OrgId, PrincipalId) {
    let owner = match webhook.owner {
        WebhookOwner::User(id) => PrincipalId::User(id),
        WebhookOwner::Application(id) => PrincipalId::Application(id),
    };
    (webhook.org, owner)
}

/// What a webhook does next. What `matters` is stored at once.
enum Then {
    /// Waits for more events.
    Wait,
    /// Looks for more.
    GoOn { matters: bool },
    /// Tries again.
    Retry { after: Duration, matters: bool },
}

impl Drop for DeliveryPlace {
    fn drop(&mut self) {
        let (webhooks, (org, owner)) = (&self.app.webhooks, self.payer);
        webhooks.state.lock().places.give_back(org, owner, 1);
        webhooks.changed.notify_one();
    }
}

/// How webhooks are, for metrics.
#[derive(Default, Debug)]
pub struct WebhookLoad {
    /// Numbers of the stream that the one that is furthest behind has before it.
    pub lag: u64,
    /// Those whose last delivery failed, and which try again.
    pub failing: u64,
    /// Those that the server has switched off.
    pub switched_off: u64,
    /// What deliveries took.
    pub times: Times,
}

/// How a webhook is, for lists.
#[derive(Default, Debug)]
pub struct WebhookState {
    /// What it has done.
    pub progress: Progress,
    /// Numbers of the stream that are before it.
    pub lag: u64,
    /// Whether a delivery is under way.
    pub is_sending: bool,
}

impl Hook {
    fn new(webhook: Arc<Webhook>, progress: Progress) -> Self {
        let stored = progress.cursor;
        let progress = progress.begun_at(webhook.start);
        Self { webhook, progress, not_before: None, running: None, looked_at: 0, turn: 0, stored }
    }

    /// Whether there may be something to do when the stream has got so far.
    fn is_behind(&self, last: u64) -> bool {
        self.webhook.enabled && self.running.is_none() && self.lag(last) > 0
    }

    /// Under the lock, so that an older row does not follow a newer one, nor its webhook's end.
    fn store(&mut self, tables: &Tables) {
        self.progress.store(tables, self.webhook.id);
        self.stored = self.progress.cursor;
    }

    fn lag(&self, last: u64) -> u64 {
        let has_more = self.webhook.enabled && self.looked_at < last;
        if has_more { last.saturating_sub(self.progress.cursor) } else { 0 }
    }
}

impl Webhooks {
    /// Those of the store.
    pub(super) fn open(
        webhooks: Vec<Arc<Webhook>>,
        tables: &Tables,
        allow_private: bool,
        pools: &Arc<Pools>,
    ) -> Result<Self, StoreError> {
        let mut count = Shares::new(Pool::Webhooks, limits::WEBHOOKS_MAX, pools);
        let mut hooks = HashMap::new();
        for webhook in webhooks {
            let (org, owner) = payer(&webhook);
            count.hold(org, owner, 1);
            let progress = Progress::read(tables, webhook.id)?.unwrap_or_default();
            hooks.insert(webhook.id, Hook::new(webhook, progress));
        }
        let places = Shares::new(Pool::WebhookDeliveries, limits::WEBHOOK_DELIVERIES_MAX, pools);
        Ok(Self {
            sender: Sender::new(allow_private),
            state: Mutex::new(State { hooks, count, places, turn: 0 }),
            changed: Notify::new(),
            times: Histogram::default(),
        })
    }

    /// Whether there is room for those that changes of records add; the batch of the changes also
    /// removes what is known of those that go.
    pub(super) fn prepare(
        &self,
        changes: &RecordChanges,
        batch: &mut Batch,
        tables: &Tables,
    ) -> Result<(), StoreError> {
        for change in changes.iter() {
            match change {
                RecordChange::Put(Record::Webhook(webhook)) => {
                    // Their table takes rows on a full disk.
                    tables.writer().check()?;
                    let state = self.state.lock();
                    if !state.hooks.contains_key(&webhook.id) {
                        let (org, owner) = payer(webhook);
                        let room = state.count.has_room(org, owner, 1);
                        room.inspect_err(|_| state.count.count_refused(org))
                            .map_err(StoreError::OverShare)?;
                    }
                }
                RecordChange::Delete(Record::Webhook(webhook)) => {
                    batch.delete(Table::Meta, progress::key(webhook.id));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Follows changes of records that hold: what changed begins anew, what is gone is sent no more.
    pub(super) fn follow(&self, changes: &RecordChanges) {
        for change in changes.iter() {
            let state = &mut *self.state.lock();
            let (webhook, stays) = match change {
                RecordChange::Put(Record::Webhook(webhook)) => (webhook, true),
                RecordChange::Delete(Record::Webhook(webhook)) => (webhook, false),
                _ => continue,
            };
            let before = state.hooks.remove(&webhook.id);
            if let Some(hook) = &before {
                hook.running.as_ref().inspect(|running| running.abort());
                let (org, owner) = payer(&hook.webhook);
                state.count.give_back(org, owner, 1);
            }
            if stays {
                let (org, owner) = payer(webhook);
                state.count.hold(org, owner, 1);
                let progress = before.map(|hook| hook.progress).unwrap_or_default();
                let hook = Hook::new(Arc::new(webhook.clone()), progress);
                state.hooks.insert(webhook.id, hook);
            }
            self.changed.notify_one();
        }
    }

    fn any_enabled(&self) -> bool {
        self.state.lock().hooks.values().any(|hook| hook.webhook.enabled)
    }

    /// Begins the deliveries that are due and have a place, who has waited longest first; when the
    /// next one is due that fails.
    fn begin(&self, app: &Arc<App>, last: u64, running: &mut JoinSet<()>) -> Option<Instant> {
        let now = Instant::now();
        let state = &mut *self.state.lock();
        let mut due = Vec::new();
        let mut next = None;
        for (id, hook) in state.hooks.iter().filter(|(_, hook)| hook.is_behind(last)) {
            match hook.not_before.filter(|at| *at > now) {
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                None => due.push((hook.turn, *id)),
            }
        }
        due.sort_unstable();
        for (_, id) in due {
            let Some(hook) = state.hooks.get_mut(&id) else { continue };
            let (org, owner) = payer(&hook.webhook);
            if state.places.has_room(org, owner, 1).is_err() {
                continue;
            }
            state.places.hold(org, owner, 1);
            state.turn += 1;
            hook.turn = state.turn;
            let (webhook, progress) = (hook.webhook.clone(), hook.progress.clone());
            let place = Arc::new(DeliveryPlace { app: app.clone(), payer: (org, owner) });
            let job = Job { app: app.clone(), webhook, progress, last, place };
            hook.running = Some(running.spawn(job.deliver()));
        }
        next
    }

    /// A delivery is over: its webhook goes on from there, at once or after some time. Whether it
    /// does: not if it was changed meanwhile.
    fn go_on(&self, job: &Job, progress: Progress, then: Then) -> bool {
        let mut state = self.state.lock();
        let hook = state.hooks.get_mut(&job.webhook.id);
        let Some(hook) = hook.filter(|hook| hook.progress.epoch == job.progress.epoch) else {
            return false;
        };
        hook.progress = progress;
        hook.running = None;
        let (looked_at, wait, matters) = match then {
            Then::Wait => (job.last, None, false),
            Then::GoOn { matters } => (0, None, matters),
            Then::Retry { after, matters } => (0, Some(after), matters),
        };
        hook.looked_at = looked_at;
        hook.not_before = wait.map(|wait| Instant::now() + wait);
        let passed_over = hook.progress.cursor.saturating_sub(hook.stored);
        if matters || passed_over >= limits::WEBHOOK_PASSED_OVER_MAX {
            hook.store(&job.app.tables);
        }
        true
    }

    /// Stores how far all have got.
    pub(super) fn store(&self, tables: &Tables) {
        let mut state = self.state.lock();
        let behind = |hook: &&mut Hook| hook.stored != hook.progress.cursor;
        state.hooks.values_mut().filter(behind).for_each(|hook| hook.store(tables));
    }
}

impl App {
    /// Sends to webhooks what they wait for, until it is dropped: then deliveries end, and go on
    /// with the next start.
    pub async fn run_webhooks(self: Arc<Self>) {
        let mut running = JoinSet::new();
        let mut heard = None;
        loop {
            // Listening costs whatever happens.
            match self.webhooks.any_enabled() {
                true if heard.is_none() => heard = Some(self.events.listen()),
                true => {}
                false => heard = None,
            }
            let next = self.webhooks.begin(&self, self.events.last(), &mut running);
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let happens = async {
                match &mut heard {
                    Some(heard) => heard.changed().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = happens => sleep(limits::WEBHOOK_COLLECT).await,
                () = self.webhooks.changed.notified() => {}
                () = due => {}
                Some(_) = running.join_next() => {}
            }
        }
    }

    /// Whether a webhook may be sent there, as far as that can be said before its name is resolved.
    pub fn webhook_may_reach(&self, target: &Target) -> bool {
        self.webhooks.sender.may_send_to(target)
    }

    /// Whether webhooks may reach this machine and private networks.
    pub fn webhooks_allow_private(&self) -> bool {
        self.webhooks.sender.allows_private()
    }

    /// Whether the rights count by which a webhook's events are sent.
    pub fn webhook_may_read(&self, webhook: &Webhook) -> bool {
        let access = self.identity().webhook_access(webhook, self.clock.now());
        access.is_some_and(|access| {
            let sight = Sight::of_access(access.into());
            Class::ALL.into_iter().any(|class| sight.sees_class(class))
        })
    }

    /// How a webhook is.
    pub fn webhook_state(&self, id: WebhookId) -> WebhookState {
        let last = self.events.last();
        let state = self.webhooks.state.lock();
        let Some(hook) = state.hooks.get(&id) else { return WebhookState::default() };
        WebhookState {
            progress: hook.progress.clone(),
            lag: hook.lag(last),
            is_sending: hook.running.is_some(),
        }
    }

    /// How all webhooks are.
    pub fn webhook_load(&self) -> WebhookLoad {
        let last = self.events.last();
        let state = self.webhooks.state.lock();
        let mut load = WebhookLoad { times: self.webhooks.times.times(), ..Default::default() };
        for hook in state.hooks.values() {
            load.lag = load.lag.max(hook.lag(last));
            load.failing += u64::from(hook.webhook.enabled && hook.progress.failures > 0);
            load.switched_off += u64::from(hook.webhook.switched_off.is_some());
        }
        load
    }
}
