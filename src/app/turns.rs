//! Turns of work that takes long: as many at once as there are cores, shared by time between
//! organisations, and in each between its principals.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::pool::{OverShare, Pool, Pools, Whose};
use base::shares::Shares;
use base::{Asker, Failure, Holder, OrgId, limits};
use parking_lot::Mutex;
use rules::directory::{PrincipalId, Session};
use tokio::sync::oneshot;

/// For whom work is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Worker {
    /// The server's own, which is never refused.
    #[default]
    Server,
    /// A principal's, in the organisation where it is.
    Principal(OrgId, PrincipalId),
    /// The rest of what a principal has begun: it takes turns as the other, and is never refused.
    Begun(OrgId, PrincipalId),
}

impl Worker {
    /// Who has this session.
    pub fn of(session: &Session) -> Self {
        Self::Principal(session.org_id(), session.who().principal_id())
    }

    /// For whom the rest is of what was begun.
    pub(crate) const fn for_the_rest(self) -> Self {
        match self {
            Self::Principal(org, principal) => Self::Begun(org, principal),
            other => other,
        }
    }

    /// Who asked for it; none: nobody did.
    pub(super) fn asker(self) -> Option<Asker> {
        match self {
            Self::Server => None,
            Self::Principal(org, id) | Self::Begun(org, id) => Some((org, Holder::Principal(id))),
        }
    }
}

/// The turns, and who waits for one.
pub(super) struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// By the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// How many of them there are of each.
    shares: Shares<PrincipalId>,
    orgs: Flows<Option<OrgId>>,
    principals: HashMap<OrgId, Flows<PrincipalId>>,
}

struct Waiting {
    worker: Worker,
    /// Dropped when it makes way for others.
    begin: oneshot::Sender<()>,
}

/// A turn, which goes to the next when this is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    worker: Worker,
    begun: Instant,
}

impl Turns {
    /// That many at once.
    pub(super) fn new(free: usize, pools: &Arc<Pools>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free,
                waiting: BTreeMap::new(),
                next: 0,
                shares: Shares::new(Pool::LongWork, limits::LONG_WORK_WAITING_MAX, pools),
                orgs: Flows::default(),
                principals: HashMap::new(),
            }),
        })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// Too much work waits, of this principal more than of others.
    pub(super) async fn take(self: &Arc<Self>, worker: Worker) -> Result<Turn, Failure> {
        let turn = {
            let mut state = self.state.lock();
            state.enter(worker)?
        };
        // The sender is dropped only when the work makes way.
        turn.await.map_err(|_| made_way())?;
        Ok(Turn { turns: self.clone(), worker, begun: Instant::now() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        state.leave(self.worker, self.begun.elapsed());
        state.go_on();
    }
}

/// What is told to whom whose work made way for others'.
fn made_way() -> Failure {
    OverShare { pool: Pool::LongWork, whose: Whose::Principal }.into()
}

/// The work of somebody that came last makes way: it would wait longest.
fn drop_newest(waiting: &mut BTreeMap<u64, Waiting>, loser: Worker) -> bool {
    let newest = waiting.iter().rev().find(|(_, waiting)| waiting.worker == loser);
    let number = newest.map(|(number, _)| *number);
    number.is_some_and(|number| waiting.remove(&number).is_some())
}

impl State {
    fn enter(&mut self, worker: Worker) -> Result<oneshot::Receiver<()>, Failure> {
        if let Worker::Principal(org, principal) = worker {
            let Self { shares, waiting, .. } = self;
            let mut gone = Vec::new();
            let taken = shares.take_from_most((org, principal), 1, |org, principal| {
                let loser = Worker::Principal(org, principal);
                let has_gone = drop_newest(waiting, loser);
                gone.extend(has_gone.then_some(loser));
                u64::from(has_gone)
            });
            gone.into_iter().for_each(|loser| self.flows(loser, |flow| flow.present -= 1));
            taken?;
        }
        let (begin, begun) = oneshot::channel();
        self.orgs.enter(worker.org());
        if let Some((org, principal)) = worker.principal() {
            self.principals.entry(org).or_default().enter(principal);
        }
        self.waiting.insert(self.next, Waiting { worker, begin });
        self.next += 1;
        self.go_on();
        Ok(begun)
    }

    /// Begins as much as there are turns for.
    fn go_on(&mut self) {
        while self.free > 0
            && let Some(next) = self.next_number()
            && let Some(Waiting { worker, begin }) = self.waiting.remove(&next)
        {
            self.free -= 1;
            self.orgs.begin(worker.org());
            if let Worker::Principal(org, principal) = worker {
                self.shares.give_back(org, principal, 1);
            }
            if let Some((org, principal)) = worker.principal() {
                self.principals.entry(org).or_default().begin(principal);
            }
            // Nobody waits any more for what was dropped while it waited: the next.
            if begin.send(()).is_err() {
                self.leave(worker, Duration::ZERO);
            }
        }
    }

    /// Of the organisation, and there of the principal, for which least is and was done; of equals
    /// what came first, but before it the rest of what has begun, whose results are in memory.
    fn next_number(&self) -> Option<u64> {
        let weight = |worker: &Worker| {
            let principal = worker.principal();
            let of_principal = principal
                .and_then(|(org, principal)| Some(self.principals.get(&org)?.weight(&principal)))
                .unwrap_or_default();
            let is_new = !matches!(worker, Worker::Begun(..));
            (self.orgs.weight(&worker.org()), of_principal, is_new)
        };
        let least = self.waiting.iter().min_by_key(|(_, waiting)| weight(&waiting.worker));
        least.map(|(number, _)| *number)
    }

    fn leave(&mut self, worker: Worker, used: Duration) {
        self.free += 1;
        self.flows(worker, |flow| {
            flow.running -= 1;
            flow.present -= 1;
            flow.used += used;
        });
    }

    fn flows(&mut self, worker: Worker, change: impl Fn(&mut Flow)) {
        self.orgs.change(worker.org(), &change);
        if let Some((org, principal)) = worker.principal()
            && let Some(flows) = self.principals.get_mut(&org)
        {
            flows.change(principal, &change);
            if flows.of.is_empty() {
                self.principals.remove(&org);
            }
        }
    }
}

impl Worker {
    fn org(self) -> Option<OrgId> {
        self.principal().map(|(org, _)| org)
    }

    const fn principal(self) -> Option<(OrgId, PrincipalId)> {
        match self {
            Self::Server => None,
            Self::Principal(org, principal) | Self::Begun(org, principal) => Some((org, principal)),
        }
    }
}

/// Those who share turns by time, and the time at which whoever comes now begins.
struct Flows<K> {
    of: HashMap<K, Flow>,
    now: Duration,
}

#[derive(Default)]
struct Flow {
    /// Work that waits and that is being done.
    present: usize,
    /// Of this, what is being done.
    running: usize,
    /// The time that was used, counted from that of the others when it came.
    used: Duration,
}

impl<K> Default for Flows<K> {
    fn default() -> Self {
        Self { of: HashMap::new(), now: Duration::ZERO }
    }
}

impl<K: Copy + Eq + Hash> Flows<K> {
    /// More work of one. Who comes anew has used as much as who had the last turn: not less, or it
    /// would have all turns for as long as the others have worked.
    fn enter(&mut self, key: K) {
        let flow = self.of.entry(key).or_default();
        if flow.present == 0 {
            flow.used = flow.used.max(self.now);
        }
        flow.present += 1;
    }

    fn begin(&mut self, key: K) {
        if let Some(flow) = self.of.get_mut(&key) {
            flow.running += 1;
            self.now = self.now.max(flow.used);
        }
    }

    fn weight(&self, key: &K) -> (usize, Duration) {
        self.of.get(key).map_or_else(Default::default, |flow| (flow.running, flow.used))
    }

    fn change(&mut self, key: K, change: impl Fn(&mut Flow)) {
        if let Some(flow) = self.of.get_mut(&key) {
            change(flow);
        }
        // Who has nothing to do is remembered as long as it has used more than the others.
        let now = self.now;
        self.of.retain(|_, flow| flow.present > 0 || flow.used > now);
        if self.of.values().all(|flow| flow.present == 0) {
            self.of.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::*;

    fn worker(org: u8, principal: u8) -> Worker {
        let principal = PrincipalId::User(UserId::from_bytes([principal; 12]));
        Worker::Principal(OrgId::from_bytes([org; 12]), principal)
    }

    /// Work that waits, by name.
    struct Jobs {
        state: Mutex<State>,
        waiting: Vec<(&'static str, Worker, oneshot::Receiver<()>)>,
    }

    impl Jobs {
        fn new() -> Self {
            let turns = Turns::new(0, &Arc::default());
            let turns = Arc::into_inner(turns).expect("the only one");
            Self { state: turns.state, waiting: Vec::new() }
        }

        fn add(&mut self, name: &'static str, worker: Worker) {
            let begun = self.state.lock().enter(worker).expect("room");
            self.waiting.push((name, worker, begun));
        }

        /// Gives one more turn, and says who has begun.
        fn turn(&mut self) -> (&'static str, Worker) {
            let mut state = self.state.lock();
            state.free += 1;
            state.go_on();
            let begun =
                |(_, _, begun): &mut (_, _, oneshot::Receiver<()>)| begun.try_recv() == Ok(());
            let index = self.waiting.iter_mut().position(begun).expect("somebody begins");
            let (name, worker, _) = self.waiting.remove(index);
            (name, worker)
        }

        /// Works off one after the other, each in its time, and says in which order.
        fn order(&mut self, takes: impl Fn(&str) -> u64) -> Vec<&'static str> {
            let mut order = Vec::new();
            while !self.waiting.is_empty() {
                let (name, worker) = self.turn();
                let mut state = self.state.lock();
                state.leave(worker, Duration::from_millis(takes(name)));
                state.free -= 1;
                order.push(name);
            }
            order
        }
    }

    #[test]
    fn organisations_and_principals_take_turns_by_time() {
        let mut jobs = Jobs::new();
        for name in ["a1", "a2", "a3", "a4"] {
            jobs.add(name, worker(1, 1));
        }
        jobs.add("b1", worker(1, 2));
        jobs.add("c1", worker(2, 1));
        jobs.add("c2", worker(2, 1));
        jobs.add("c3", worker(2, 1));
        // Each of the first organisation's takes as long as two of the second's.
        let order = jobs.order(|name| if name.starts_with('c') { 10 } else { 20 });
        assert_eq!(order, ["a1", "c1", "c2", "b1", "c3", "a2", "a3", "a4"]);
    }

    #[test]
    fn what_has_begun_comes_before_more_of_the_same_principal_and_not_of_others() {
        let mut jobs = Jobs::new();
        let Worker::Principal(org, principal) = worker(1, 1) else { panic!("a principal") };
        jobs.add("a1", worker(1, 1));
        jobs.add("a2", worker(1, 1));
        jobs.add("b1", worker(2, 1));
        jobs.add("rest of a1", Worker::Begun(org, principal));
        assert_eq!(jobs.order(|_| 10), ["rest of a1", "b1", "a1", "a2"]);
    }

    #[test]
    fn who_has_a_turn_leaves_the_next_to_others() {
        let mut jobs = Jobs::new();
        jobs.add("a1", worker(1, 1));
        jobs.add("a2", worker(1, 1));
        jobs.add("b1", worker(2, 1));
        jobs.add("server", Worker::Server);
        assert_eq!([jobs.turn().0, jobs.turn().0, jobs.turn().0], ["a1", "b1", "server"]);
    }

    #[test]
    fn who_comes_late_does_not_make_up_for_it() {
        let mut jobs = Jobs::new();
        jobs.add("a1", worker(1, 1));
        jobs.add("a2", worker(1, 1));
        jobs.add("a3", worker(1, 1));
        let (_, first) = jobs.turn();
        jobs.state.lock().leave(first, Duration::from_secs(1000));
        jobs.state.lock().free = 0;
        let (_, second) = jobs.turn();
        jobs.add("b1", worker(2, 1));
        jobs.add("b2", worker(2, 1));
        jobs.state.lock().leave(second, Duration::from_millis(1));
        jobs.state.lock().free = 0;
        assert_eq!(jobs.order(|_| 10), ["b1", "a3", "b2"]);
    }

    #[test]
    fn when_too_much_waits_who_has_most_loses_his_last() {
        let mut jobs = Jobs::new();
        for _ in 0..limits::LONG_WORK_WAITING_MAX {
            jobs.add("a", worker(1, 1));
        }
        assert!(jobs.state.lock().enter(worker(1, 1)).is_err());
        jobs.add("b", worker(2, 1));
        let lost = jobs.waiting.iter_mut().map(|(_, _, begun)| begun.try_recv());
        let lost: Vec<_> = lost.map(|r| r == Err(oneshot::error::TryRecvError::Closed)).collect();
        let at = limits::LONG_WORK_WAITING_MAX as usize - 1;
        assert_eq!(lost.iter().position(|lost| *lost), Some(at));
        assert_eq!(lost.iter().filter(|lost| **lost).count(), 1);
        jobs.add("server", Worker::Server);
    }

    #[tokio::test]
    async fn a_turn_that_is_given_back_goes_to_the_other_organisation() {
        let turns = Turns::new(1, &Arc::default());
        let first = turns.take(worker(1, 1)).await.expect("a turn");
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut working = tokio::task::JoinSet::new();
        for (name, asker) in [("a2", worker(1, 1)), ("a3", worker(1, 1)), ("b1", worker(2, 1))] {
            let (taken_from, order) = (turns.clone(), order.clone());
            working.spawn(async move {
                let turn = taken_from.take(asker).await.expect("a turn");
                order.lock().push(name);
                drop(turn);
            });
            while turns.state.lock().next == working.len() as u64 {
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        while working.join_next().await.is_some() {}
        assert_eq!(order.lock().first(), Some(&"b1"));
        let state = turns.state.lock();
        assert_eq!((state.free, state.waiting.len(), state.shares.held()), (1, 0, 0));
    }
}
