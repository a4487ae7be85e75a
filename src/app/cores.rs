//! The fair share of the cores: while they are full, tenants that use more than their share wait for
//! their turn, in them the principals that use most, and nobody else does.
//!
//! What waits is reading: nothing is refused, nothing is lost, and the peer is held back by its own
//! connection. As many of those above the share work at once as there are threads, each on a few
//! commands; whoever is below it finds a short queue. While the cores are not full, all of this is
//! a look at a flag, and now and then one at the clock (`rests.rs`). The threads never rest for it: with nobody else there, a turn comes at once.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use base::pool::Pools;
use base::shares::level;
use base::{Asker, Holder, OrgId, STRANGERS, limits, working_for};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::rests;

/// Who may use the cores now.
pub struct Cores {
    full: AtomicBool,
    pools: Arc<Pools>,
    /// How often somebody waited.
    waits: Counter,
    /// Password checks, on threads of their own, for which strangers above the share wait.
    checks: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it was found that no thread rests.
    filled: Option<Instant>,
    /// When it is found out next who is above the share, if that is before the next look.
    due: Option<Instant>,
    /// Turns that nobody has.
    free: usize,
    tenants: HashMap<OrgId, Tenant>,
}

#[derive(Default)]
struct Tenant {
    uses: Uses,
    members: HashMap<Holder, Member>,
}

#[derive(Default)]
struct Member {
    uses: Uses,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// For how long somebody used the cores.
#[derive(Default)]
struct Uses {
    /// Since the last look.
    used: Duration,
    /// In all, what was used long ago counting less.
    lately: Duration,
    is_above: bool,
}

/// What somebody has who wants to work.
enum Place {
    /// No need of a turn.
    None,
    Turn,
    Queue(oneshot::Receiver<Turn>),
}

/// The right to work, which goes to the next when this is dropped; of whoever needs none, nothing.
#[derive(Default)]
pub struct Turn(Option<Arc<Cores>>);

/// Work that goes on until others are to have their turn.
pub struct Stretch(Instant);

impl Stretch {
    /// It begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether others are to have their turn.
    pub fn is_over(&self) -> bool {
        self.0.elapsed() >= limits::PASS_TIME
    }
}

/// A password is checked, for which strangers above the share wait, until this is dropped.
pub(super) struct Checking(Arc<Cores>);

impl Cores {
    /// For a runtime of so many threads.
    pub(super) fn new(threads: usize, pools: &Arc<Pools>, waits: Counter) -> Arc<Self> {
        let state = State { free: threads.max(1), ..State::default() };
        let (full, pools) = (AtomicBool::new(false), pools.clone());
        let checks = AtomicUsize::new(0);
        Arc::new(Self { full, pools, waits, checks, state: Mutex::new(state) })
    }

    /// Has strangers above the share wait for the check of a password of somebody who is none: on
    /// few cores its thread would get a quarter of one beside them, whose thousands of wrong passwords
    /// are refused without a check.
    pub(super) fn checking(self: &Arc<Self>) -> Checking {
        self.checks.fetch_add(1, Ordering::Relaxed);
        Checking(self.clone())
    }

    fn admits_strangers(&self) -> bool {
        self.checks.load(Ordering::Relaxed) == 0
    }

    /// Whether the cores are full.
    pub fn are_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether the cores are full, asked by a thread that begins a piece of work: they are also when no
    /// thread rests any more.
    pub fn are_full_now(&self) -> bool {
        if !self.are_full() && rests::nobody_rests() {
            self.fill();
        }
        self.are_full()
    }

    /// The cores are full from now on.
    fn fill(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        (state.filled, state.due) = (Some(now), Some(now + limits::WITHOUT_REST));
        self.full.store(true, Ordering::Relaxed);
    }

    /// Whether somebody waits for turns now.
    pub fn is_above(&self, (org, holder): Asker) -> bool {
        self.are_full() && {
            let tenant = self.pools.tenant_of(org);
            self.state.lock().above(tenant, holder).is_some()
        }
    }

    /// Notes for how long a thread worked for somebody.
    pub fn note(&self, (org, holder): Asker, used: Duration) {
        let tenant = self.pools.tenant_of(org);
        let mut state = self.state.lock();
        let tenant = state.tenants.entry(tenant).or_default();
        tenant.uses.used += used;
        tenant.members.entry(holder).or_default().uses.used += used;
        if let Some(due) = state.due
            && let now = Instant::now()
            && now >= due
        {
            state.judge();
            state.due = Some(now + limits::WITHOUT_REST);
        }
    }

    /// Waits for a turn, if the asker is above its share. Others that are ready come first: those
    /// above the share are in the queue here, and not before them in that of the threads.
    pub async fn turn(self: Arc<Self>, asker: Asker) -> Turn {
        let turn = match self.enter(asker) {
            Place::None => return Turn(None),
            Place::Turn => Turn(Some(self)),
            Place::Queue(turn) => {
                self.waits.inc();
                // The sender is dropped only with the server.
                turn.await.unwrap_or_default()
            }
        };
        yield_now().await;
        turn
    }

    fn enter(&self, (org, holder): Asker) -> Place {
        if !self.are_full() {
            return Place::None;
        }
        let tenant = self.pools.tenant_of(org);
        let mut state = self.state.lock();
        let is_free = state.free > 0 && (org != STRANGERS || self.admits_strangers());
        let Some(member) = state.above(tenant, holder) else { return Place::None };
        if is_free {
            state.free -= 1;
            return Place::Turn;
        }
        let (turn, waiting) = oneshot::channel();
        member.waiting.push_back(turn);
        Place::Queue(waiting)
    }

    /// Does work for somebody, in its turn: the first piece, which is all of most.
    pub async fn work<F: Future>(self: &Arc<Self>, asker: Option<Asker>, work: F) -> F::Output {
        let Some(asker) = asker else { return work.await };
        let mut turn = Turn(None);
        if self.are_full() {
            turn = self.clone().turn(asker).await;
        }
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = self.noted(asker, || work.as_mut().poll(cx));
            turn = Turn(None);
            polled
        })
        .await
    }

    /// Lets others have their turn, and waits for that of the asker, if work is to go on in turns.
    pub async fn pause(self: &Arc<Self>, asker: Option<Asker>) -> Turn {
        yield_now().await;
        match asker {
            Some(asker) => self.clone().turn(asker).await,
            None => Turn(None),
        }
    }

    /// Does work for somebody in turns: each time that it is woken it waits for one, if the asker is
    /// above its share. The work must not wait for turns itself.
    pub async fn pieces<F: Future>(self: &Arc<Self>, asker: Asker, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut waiting: Option<Pin<Box<dyn Future<Output = Turn> + Send>>> = None;
        poll_fn(|cx| {
            if waiting.is_none() && self.is_above(asker) {
                waiting = Some(Box::pin(self.clone().turn(asker)));
            }
            let _turn = match &mut waiting {
                Some(turn) => Some(ready!(turn.as_mut().poll(cx))),
                None => None,
            };
            waiting = None;
            self.noted(asker, || work.as_mut().poll(cx))
        })
        .await
    }

    /// Works for somebody, and notes what that takes, if it matters now.
    pub fn noted<T>(&self, asker: Asker, work: impl FnOnce() -> T) -> T {
        let work = || working_for(Some(asker), work);
        if !self.are_full_now() {
            return work();
        }
        let begun = Instant::now();
        let done = work();
        self.note(asker, begun.elapsed());
        done
    }

    /// Gives the turns that nobody has to those who wait.
    fn give_turns(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.free == 0 {
                return;
            }
            let Some(next) = state.next(true) else { return };
            state.free -= 1;
            drop(state);
            if let Err(mut unused) = next.send(Turn(Some(self.clone()))) {
                drop(unused.0.take());
                self.state.lock().free += 1;
            }
        }
    }

    /// Looks from time to time whether the cores are full, and who is above the share.
    pub async fn watch(self: &Arc<Self>) {
        let runtime = Handle::current().metrics();
        let (mut busy, mut looked) = (busy_of(&runtime), Instant::now());
        loop {
            tokio::time::sleep(limits::CORES_LOOK).await;
            let (now_busy, now) = (busy_of(&runtime), Instant::now());
            let all = (now - looked) * runtime.num_workers() as u32;
            self.look(now_busy.saturating_sub(busy), all);
            (busy, looked) = (now_busy, now);
        }
    }

    /// The threads were busy for so much of all the time that passed.
    fn look(self: &Arc<Self>, busy: Duration, all: Duration) {
        let was_full = self.are_full();
        let percent =
            if was_full { limits::CORES_FREE_PERCENT } else { limits::CORES_FULL_PERCENT };
        let mut state = self.state.lock();
        // While strangers wait for checks, the threads may have little to do.
        let is_held = was_full && !self.admits_strangers() && state.strangers_wait();
        let is_new = state.filled.is_some_and(|since| since.elapsed() < limits::CORES_LOOK);
        let full = busy * 100 >= all * percent || is_held || is_new;
        self.full.store(full, Ordering::Relaxed);
        state.due = None;
        if full {
            state.judge();
            drop(state);
            // Some of them get on, however many checks there are.
            return self.give_turns();
        }
        let tenants = std::mem::take(&mut state.tenants);
        drop(state);
        let members = tenants.into_values().flat_map(|tenant| tenant.members.into_values());
        for waiting in members.flat_map(|member| member.waiting) {
            let _ = waiting.send(Turn(None));
        }
    }
}

/// For how long the threads of the runtime were busy since it began. One that has always work counts,
/// whatever else the machine does.
fn busy_of(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|thread| runtime.worker_total_busy_duration(thread)).sum()
}

impl State {
    /// Who waits for turns: of a tenant above its share the members that use most of it.
    fn above(&mut self, tenant: OrgId, holder: Holder) -> Option<&mut Member> {
        let tenant = self.tenants.get_mut(&tenant).filter(|tenant| tenant.uses.is_above)?;
        tenant.members.get_mut(&holder).filter(|member| member.uses.is_above)
    }

    fn strangers_wait(&self) -> bool {
        self.tenants.get(&STRANGERS).is_some_and(Tenant::waits)
    }

    /// Finds out who is above the share.
    fn judge(&mut self) {
        for tenant in self.tenants.values_mut() {
            tenant.uses.halve();
            tenant.members.values_mut().for_each(|member| member.uses.halve());
            // A moment more or less makes nobody greedy.
            let matters = |member: &Member| member.uses.matters() || !member.waiting.is_empty();
            tenant.members.retain(|_, member| matters(member));
        }
        self.tenants.retain(|_, tenant| tenant.uses.matters() || !tenant.members.is_empty());
        // Who is alone but for a few strangers is alone.
        let [all, logged_in] = [true, false].map(|strangers| {
            let counts = |org: &OrgId| strangers || *org != STRANGERS;
            let counted = self.tenants.iter().filter(|(org, _)| counts(org));
            level_above(&counted.map(|(_, tenant)| tenant.uses.nanos()).collect::<Vec<_>>())
        });
        for (org, tenant) in &mut self.tenants {
            let above = if *org == STRANGERS { all } else { logged_in };
            tenant.uses.is_above = tenant.uses.nanos() > above;
            let used: Vec<_> = tenant.members.values().map(|one| one.uses.nanos()).collect();
            // All of a tenant, if all use the same: or many principals were no tenant above its share.
            let most = level(&used, most_of(used.iter().sum()));
            for member in tenant.members.values_mut() {
                member.uses.is_above = member.uses.nanos() > most;
            }
        }
    }

    /// Of those who wait, the first of the principal that used least lately, in the tenant that did.
    fn next(&mut self, strangers: bool) -> Option<oneshot::Sender<Turn>> {
        let waits = |org: OrgId, tenant: &Tenant| (strangers || org != STRANGERS) && tenant.waits();
        let waiting = self.tenants.iter_mut().filter(|(org, tenant)| waits(**org, tenant));
        let (_, tenant) = waiting.min_by_key(|(_, tenant)| tenant.uses.all())?;
        let waiting = tenant.members.values_mut().filter(|member| member.waits());
        waiting.min_by_key(|member| member.uses.all())?.waiting.pop_front()
    }
}

impl Tenant {
    fn waits(&self) -> bool {
        self.members.values().any(Member::waits)
    }
}

impl Member {
    fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Uses {
    fn all(&self) -> Duration {
        self.lately + self.used
    }

    fn halve(&mut self) {
        self.lately = self.lately / 2 + std::mem::take(&mut self.used);
    }

    fn matters(&self) -> bool {
        self.lately > NOTHING
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.lately.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Less than that is as nothing: what a tenant used who has gone.
const NOTHING: Duration = Duration::from_micros(10);

/// The level above which somebody uses more than a share: that to which a part of what all use is
/// shared max-min, and no less than an equal part. Who is alone is never above it.
fn level_above(used: &[u64]) -> u64 {
    let all: u64 = used.iter().sum();
    let equal = all / used.len().max(1) as u64;
    level(used, most_of(all)).max(equal)
}

/// The part of what all use that is shared to find out who uses more than a share.
const fn most_of(all: u64) -> u64 {
    all / 100 * limits::CORES_SHARED_PERCENT
}

impl Drop for Checking {
    fn drop(&mut self) {
        if self.0.checks.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.give_turns();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(cores) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = cores.state.lock();
                let next = state.next(cores.admits_strangers());
                state.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(cores.clone()))) {
                Ok(()) => return,
                // Its connection has closed meanwhile: the next.
                Err(mut unused) => drop(unused.0.take()),
            }
        }
    }
}

#[cfg(test)]
impl Cores {
    /// Full cores, of which each has used so much.
    pub(crate) fn full(threads: usize, used: &[(Asker, Duration)]) -> Arc<Self> {
        let (cores, moment) =
            (Self::new(threads, &Arc::default(), Counter::default()), Duration::from_millis(1));
        cores.look(moment, moment);
        used.iter().for_each(|(asker, used)| cores.note(*asker, *used));
        cores.look(moment, moment);
        cores
    }
}

#[cfg(test)]
mod tests {
    use base::{UserId, current_asker};
    use proptest::prelude::*;
    use rules::directory::PrincipalId;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A principal of the organisation with this number.
    fn of(org: u8, number: u8) -> Asker {
        let principal = PrincipalId::User(UserId::from_bytes([number; 12]));
        (OrgId::from_bytes([org; 12]), Holder::Principal(principal))
    }

    fn org(number: u8) -> Asker {
        of(number, 1)
    }

    /// Full cores, of which each tenant has used so much.
    fn full(threads: usize, used: &[(u8, u32)]) -> Arc<Cores> {
        let used: Vec<_> = used.iter().map(|(tenant, ms)| (org(*tenant), MS * *ms)).collect();
        Cores::full(threads, &used)
    }

    #[test]
    fn who_uses_more_than_a_share_is_above_it() {
        let check = |used: &[(u8, u32)], above: &[u8]| {
            let cores = full(2, used);
            let found = used.iter().map(|(tenant, _)| *tenant).filter(|t| cores.is_above(org(*t)));
            assert_eq!(found.collect::<Vec<_>>(), above, "{used:?}");
        };
        check(&[], &[]);
        check(&[(1, 100)], &[]);
        check(&[(1, 99), (2, 1)], &[1]);
        check(&[(1, 45), (2, 45), (3, 10)], &[1, 2]);
        check(&[(1, 45), (2, 40), (3, 1), (4, 2), (5, 3), (6, 4)], &[1, 2]);
        check(&[(1, 50), (2, 50)], &[]);
    }

    #[test]
    fn the_cores_are_full_until_half_of_the_time_is_idle() {
        let cores = Cores::new(2, &Arc::default(), Counter::default());
        for (busy, full) in [(74, false), (75, true), (50, true), (49, false), (74, false)] {
            cores.look(MS * busy, MS * 100);
            assert_eq!(cores.are_full(), full, "{busy}");
        }
    }

    #[tokio::test]
    async fn when_nobody_rests_the_cores_are_full_at_once_and_who_uses_them_is_soon_known() {
        let cores = Cores::new(1, &Arc::default(), Counter::default());
        cores.fill();
        assert!(cores.are_full());
        [(1, 60), (2, 1)].into_iter().for_each(|(who, ms)| cores.note(org(who), MS * ms));
        tokio::time::sleep(limits::WITHOUT_REST).await;
        cores.note(org(2), MS);
        assert!(cores.is_above(org(1)) && !cores.is_above(org(2)));
        // A look back at a time of which most was idle would say no; this one is later.
        tokio::time::sleep(limits::CORES_LOOK).await;
        cores.look(Duration::ZERO, MS);
        assert!(!cores.are_full());
    }

    #[tokio::test]
    async fn turns_go_to_who_used_least_and_in_order() {
        let cores = full(1, &[(1, 60), (2, 40), (3, 1)]);
        assert!(cores.clone().turn(org(3)).await.0.is_none(), "it is below the share");
        let first = cores.clone().turn(org(1)).await;
        assert!(first.0.is_some());
        let mut waiting = Vec::new();
        for tenant in [1, 1, 2, 2] {
            let mut turn = Box::pin(cores.clone().turn(org(tenant)));
            assert!(futures_util::poll!(&mut turn).is_pending());
            waiting.push(turn);
        }
        // One that has closed meanwhile is passed over.
        drop(waiting.remove(2));
        drop(first);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            for index in 0..waiting.len() {
                // Once to get it, and once for the others.
                let _ = futures_util::poll!(&mut waiting[index]);
                if let std::task::Poll::Ready(turn) = futures_util::poll!(&mut waiting[index]) {
                    drop((turn, waiting.remove(index)));
                    order.push(index);
                    break;
                }
            }
        }
        assert_eq!(order, [2, 0, 0]);
        assert_eq!((cores.state.lock().free, cores.waits.get()), (1, 4));
    }

    #[tokio::test]
    async fn nobody_waits_any_more_when_the_cores_are_free_again() {
        let cores = full(1, &[(1, 60), (2, 40)]);
        let held = cores.clone().turn(org(1)).await;
        let mut waiting = Box::pin(cores.clone().turn(org(1)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        cores.look(Duration::ZERO, MS);
        assert!(waiting.await.0.is_none());
        assert!(cores.clone().turn(org(1)).await.0.is_none());
        drop(held);
        assert_eq!(cores.state.lock().free, 1);
        assert!(cores.state.lock().tenants.is_empty(), "nothing is left of them");
    }

    #[tokio::test]
    async fn work_is_done_in_turn_and_counts() {
        let cores = full(1, &[(1, 60), (2, 40)]);
        let held = cores.clone().turn(org(1)).await;
        let mut work = Box::pin(cores.work(Some(org(1)), async { 5 }));
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(held);
        assert_eq!(work.await, 5);
        let state = cores.state.lock();
        assert!(state.free == 1 && !state.tenants[&org(1).0].uses.used.is_zero());
    }

    #[test]
    fn of_a_tenant_above_its_share_those_wait_who_use_most_of_it() {
        let check = |used: &[(u8, u32)], above: &[u8]| {
            let cores = full(1, &[(2, 1)]);
            used.iter().for_each(|(who, ms)| cores.note(of(1, *who), MS * *ms));
            cores.look(MS, MS);
            let found = used.iter().map(|(who, _)| *who).filter(|who| cores.is_above(of(1, *who)));
            assert_eq!(found.collect::<Vec<_>>(), above, "{used:?}");
            assert!(!cores.is_above(of(2, 1)), "{used:?}");
        };
        check(&[(1, 100)], &[1]);
        check(&[(1, 90), (2, 10)], &[1]);
        check(&[(1, 10), (2, 50), (3, 60)], &[2, 3]);
        // Many principals are not below the share because none is greedier than the others.
        check(&[(1, 50), (2, 51), (3, 50)], &[1, 2, 3]);
    }

    #[tokio::test]
    async fn among_those_who_wait_principals_take_turns() {
        let cores = full(1, &[(2, 1)]);
        [(1, 60), (2, 40)].into_iter().for_each(|(who, ms)| cores.note(of(1, who), MS * ms));
        cores.look(MS, MS);
        let held = cores.clone().turn(of(1, 1)).await;
        let mut waiting = Vec::new();
        for who in [1, 1, 2] {
            let mut turn = Box::pin(cores.clone().turn(of(1, who)));
            assert!(futures_util::poll!(&mut turn).is_pending());
            waiting.push(turn);
        }
        drop(held);
        assert!(waiting.remove(2).await.0.is_some(), "it came last, and used less");
    }

    #[tokio::test]
    async fn strangers_above_the_share_wait_while_passwords_are_checked() {
        let stranger = (STRANGERS, of(1, 9).1);
        let cores = full(1, &[(1, 10)]);
        cores.note(stranger, MS * 500);
        cores.look(MS, MS);
        let [early, late] = [cores.checking(), cores.checking()];
        let mut first = Box::pin(cores.clone().turn(stranger));
        let mut second = Box::pin(cores.clone().turn(stranger));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        // Nobody waits for ever: with each look, one goes on.
        cores.look(Duration::ZERO, MS);
        assert!(first.await.0.is_some());
        drop(early);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(late);
        assert!(second.await.0.is_some());
        assert_eq!(cores.state.lock().free, 1);
        cores.look(Duration::ZERO, MS);
        assert!(!cores.are_full());
    }

    #[tokio::test]
    async fn work_is_for_whoever_asks_for_it() {
        let work = || async {
            yield_now().await;
            current_asker()
        };
        let idle = Cores::new(1, &Arc::default(), Counter::default());
        for cores in [idle, full(1, &[(1, 100), (2, 1)])] {
            for asker in [Some(org(1)), Some(org(2)), None] {
                assert_eq!(cores.work(asker, work()).await, asker);
            }
            assert_eq!(cores.pieces(org(1), work()).await, Some(org(1)));
        }
    }

    #[test]
    fn strangers_wait_and_make_nobody_wait() {
        let cores = Cores::new(2, &Arc::default(), Counter::default());
        cores.look(MS, MS);
        let stranger = (STRANGERS, of(1, 9).1);
        [(stranger, 10), (org(1), 100)].into_iter().for_each(|(who, ms)| cores.note(who, MS * ms));
        cores.look(MS, MS);
        assert!(!cores.is_above(org(1)) && !cores.is_above(stranger));
        cores.note(stranger, MS * 500);
        cores.look(MS, MS);
        assert!(!cores.is_above(org(1)) && cores.is_above(stranger));
    }

    #[tokio::test]
    async fn pieces_wait_each_time_that_they_are_woken() {
        let cores = full(1, &[(1, 100), (2, 1)]);
        let held = cores.clone().turn(org(1)).await;
        let (wake, woken) = oneshot::channel::<()>();
        let mut pieces = pin!(cores.pieces(org(1), woken));
        assert!(futures_util::poll!(&mut pieces).is_pending());
        wake.send(()).expect("somebody waits");
        assert!(futures_util::poll!(&mut pieces).is_pending(), "its turn has not come");
        drop(held);
        assert_eq!(pieces.await, Ok(()));
        assert!(cores.state.lock().free == 1);
        // Whoever is below the share waits for nothing.
        let _held = cores.clone().turn(org(1)).await;
        assert!(futures_util::poll!(pin!(cores.pieces(org(2), async {}))).is_ready());
    }

    proptest! {
        /// Who uses most is above the share, and nobody is who uses no more than an equal part.
        #[test]
        fn who_uses_less_than_others_is_not_above(
            used in proptest::collection::vec(100u64..1_000_000, 1..20),
        ) {
            let level = level_above(&used);
            let (least, most) = (used.iter().min(), used.iter().max());
            prop_assert_eq!(most.is_some_and(|most| *most > level), least != most);
            let equal = used.iter().sum::<u64>() / used.len() as u64;
            prop_assert!(level >= equal);
        }
    }
}
