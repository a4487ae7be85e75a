//! The queue of password checks: fair by asker and by account, with those first who have logged in
//! from the same address before; and of what those who are logged in want, first by tenant.
//!
//! This is not [`base::shares::Shares`]: who logs in belongs to no organisation yet, and a guess
//! counts both for its network and for the account that it is about.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use base::pool::Usage;
use parking_lot::{Condvar, Mutex};
use rules::identity::Refusal;

use crate::app::long_work::give_way;

/// For whom work is done, by which it is shared: a hash of an address, a principal or an account.
pub(super) type Key = [u8; 32];

/// For how many keys is known what was done, beside those that wait.
const DONE_MAX: usize = 1024;

/// Who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    /// From where, or who is logged in.
    pub from: Key,
    /// Whose password it is about.
    pub account: Key,
    /// The tenant of who is logged in.
    pub tenant: Option<Key>,
    /// Whether the account has logged in from there before.
    pub known: bool,
}

impl Asker {
    /// The keys for which it counts, each once: it may be its own account.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let account = Some(self.account).filter(|account| *account != self.from);
        std::iter::once(self.from).chain(account).chain(self.tenant)
    }
}

/// What waits for one group of threads, which end with it.
pub(super) struct Queue<W> {
    shared: Arc<Shared<W>>,
    room: usize,
    /// How much may wait from one place.
    per_asker_max: usize,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    filled: Condvar,
    usage: Arc<Usage>,
}

struct State<W> {
    waiting: VecDeque<(Asker, W)>,
    /// What waits and is being done for each key.
    held: HashMap<Key, usize>,
    /// What was done for each key since the queue was last empty.
    done: HashMap<Key, usize>,
    closed: bool,
}

impl<W: Send + 'static> Queue<W> {
    /// Starts that many threads; each does one thing at a time.
    pub(super) fn new(
        threads: usize,
        (room, per_asker_max): (usize, usize),
        usage: Arc<Usage>,
        work: fn(W, &dyn Fn()),
    ) -> Self {
        usage.set_max(room as u64);
        let state = State {
            waiting: VecDeque::new(),
            held: HashMap::new(),
            done: HashMap::new(),
            closed: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), usage });
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("password".into())
                .spawn(move || {
                    give_way();
                    shared.work_off(work);
                })
                .expect("the system has a thread left when the program starts");
        }
        Self { shared, room, per_asker_max }
    }

    /// Puts work into the queue. When there is no room, it takes the place of somebody who has more
    /// there, whose work is dropped, or of somebody unknown if it is for somebody known.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when there is nobody of that kind, or so much waits from one place.
    pub(super) fn submit(&self, asker: Asker, work: W) -> Result<(), Refusal> {
        let (mut state, usage) = (self.shared.state.lock(), &self.shared.usage);
        if state.held.get(&asker.from).is_some_and(|held| *held >= self.per_asker_max) {
            usage.count_refused();
            return Err(Refusal::Busy);
        }
        if state.waiting.len() >= self.room {
            let loser = state.loser(&asker).ok_or(Refusal::Busy);
            let loser = loser.inspect_err(|_| usage.count_refused())?;
            if let Some((other, _)) = state.waiting.remove(loser) {
                state.give_back(&other);
                usage.count_evicted();
            }
        }
        state.hold(&asker);
        state.waiting.push_back((asker, work));
        usage.set_used(state.waiting.len() as u64);
        drop(state);
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Whether nothing waits and nothing is being done.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.waiting.is_empty() && state.held.is_empty()
    }
}

impl<W> Drop for Queue<W> {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.filled.notify_all();
    }
}

impl<W> Shared<W> {
    /// A thread: does what waits until the queue is gone. The second argument of `work` gives the
    /// place back, which belongs to the work and not to who asked for it: hanging up gives nobody a
    /// second one.
    fn work_off(&self, work: fn(W, &dyn Fn())) {
        loop {
            let mut state = self.state.lock();
            let (asker, next) = loop {
                if state.closed {
                    return;
                }
                match state.next() {
                    Some(next) => break next,
                    None => self.filled.wait(&mut state),
                }
            };
            self.usage.set_used(state.waiting.len() as u64);
            drop(state);
            let given_back = std::cell::Cell::new(false);
            let give_back = || {
                if !given_back.replace(true) {
                    self.state.lock().give_back(&asker);
                }
            };
            work(next, &give_back);
            give_back();
        }
    }
}

impl<W> State<W> {
    /// The next of those for whom least was done, of these the one that has waited longest; who is
    /// known comes before all who are not.
    fn next(&mut self) -> Option<(Asker, W)> {
        let done = |key: &Key| self.done.get(key).copied().unwrap_or(0);
        let waiting = self.waiting.iter().enumerate();
        let weight = |asker: &Asker| {
            let of_tenant = asker.tenant.as_ref().map_or(0, done);
            (!asker.known, of_tenant, done(&asker.from).max(done(&asker.account)))
        };
        let (index, _) = waiting.min_by_key(|(_, (asker, _))| weight(asker))?;
        let (asker, work) = self.waiting.remove(index)?;
        for key in asker.keys() {
            *self.done.entry(key).or_default() += 1;
        }
        if self.waiting.is_empty() {
            self.done.clear();
        } else if self.done.len() > DONE_MAX {
            // With somebody who waits all the time, it would never be.
            self.done.retain(|key, _| self.held.contains_key(key));
        }
        Some((asker, work))
    }

    /// Where somebody is in the queue who has more than this one would have: first of another
    /// tenant's, then of those of its own.
    fn loser(&self, asker: &Asker) -> Option<usize> {
        let of_tenant = |asker: &Asker| asker.tenant.map_or(0, |tenant| self.held_by(&tenant));
        let weight = |other: &Asker| (!other.known, of_tenant(other), self.share(other));
        let most = |own: bool| {
            let waiting = self.waiting.iter().map(|(other, _)| other).enumerate();
            let waiting = waiting.filter(|(_, other)| (other.tenant == asker.tenant) == own);
            waiting.max_by_key(|(_, other)| weight(other))
        };
        let of_others = most(false).filter(|(_, other)| {
            (!other.known, of_tenant(other)) > (!asker.known, of_tenant(asker) + 1)
        });
        let own = || {
            let has_more = |other: &Asker| {
                (!other.known, self.share(other)) > (!asker.known, self.share(asker) + 1)
            };
            most(true).filter(|(_, other)| has_more(other))
        };
        of_others.or_else(own).map(|(index, _)| index)
    }

    fn held_by(&self, key: &Key) -> usize {
        self.held.get(key).copied().unwrap_or(0)
    }

    /// The larger of what an asker's place and account have.
    fn share(&self, asker: &Asker) -> usize {
        self.held_by(&asker.from).max(self.held_by(&asker.account))
    }

    fn hold(&mut self, asker: &Asker) {
        for key in asker.keys() {
            *self.held.entry(key).or_default() += 1;
        }
    }

    fn give_back(&mut self, asker: &Asker) {
        for key in asker.keys() {
            if let Entry::Occupied(mut held) = self.held.entry(key) {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says who it is when it is done, or dropped.
    struct Job(u8, mpsc::Sender<(u8, bool)>, bool);

    impl Drop for Job {
        fn drop(&mut self) {
            let _ = self.1.send((self.0, self.2));
        }
    }

    fn asker(from: u8, account: u8, known: bool) -> Asker {
        Asker { from: [from; 32], account: [account; 32], tenant: None, known }
    }

    /// A principal that changes passwords.
    fn changer(tenant: u8, from: u8) -> Asker {
        Asker { tenant: Some([tenant; 32]), ..asker(from, from, true) }
    }

    /// A queue without threads, which a test works off.
    fn queue(room: usize) -> Queue<Job> {
        Queue::new(0, (room, 4), Arc::default(), |_, _| ())
    }

    fn order(queue: &Queue<Job>, told: &mpsc::Receiver<(u8, bool)>) -> Vec<u8> {
        while let Some((asker, mut job)) = { queue.shared.state.lock().next() } {
            job.2 = true;
            queue.shared.state.lock().give_back(&asker);
        }
        assert!(queue.is_idle());
        told.try_iter().filter(|(_, done)| *done).map(|(number, _)| number).collect()
    }

    #[test]
    fn places_and_accounts_take_turns_and_who_is_known_comes_first() {
        let queue = queue(100);
        let (tell, told) = mpsc::channel();
        let submit = |number, asker| {
            queue.submit(asker, Job(number, tell.clone(), false)).expect("room");
        };
        // Guesses from one place, at one account from several, and two who mean it.
        for number in 0..3 {
            submit(number, asker(1, 100 + number, false));
        }
        for number in 10..13 {
            submit(number, asker(number, 200, false));
        }
        submit(20, asker(20, 220, false));
        submit(21, asker(21, 200, true));
        assert_eq!(order(&queue, &told), [21, 0, 20, 1, 10, 2, 11, 12]);
    }

    #[test]
    fn tenants_come_before_their_principals() {
        let queue = queue(6);
        let (tell, told) = mpsc::channel();
        let submit = |number, asker| queue.submit(asker, Job(number, tell.clone(), false)).is_ok();
        for number in 0..6 {
            assert!(submit(number, changer(200, 100 + number)));
        }
        assert!(!submit(6, changer(200, 110)), "all of its tenant's have one each");
        for number in 10..13 {
            assert!(submit(number, changer(201, 120)), "at the cost of the other tenant");
        }
        assert!(submit(13, changer(201, 121)), "the other has no more now, but her colleague");
        let done = order(&queue, &told);
        let of_second = done.iter().take(4).filter(|number| **number >= 10).count();
        assert_eq!((done.len(), of_second), (6, 2), "in turn: {done:?}");
    }

    #[test]
    fn a_full_queue_takes_from_who_has_most() {
        let queue = queue(6);
        let (tell, told) = mpsc::channel();
        let submit = |number, asker| queue.submit(asker, Job(number, tell.clone(), false)).is_ok();
        for number in 0..4 {
            assert!(submit(number, asker(1, 100 + number, false)));
        }
        assert!(!submit(4, asker(1, 110, false)), "one place has its bound");
        for number in 10..12 {
            assert!(submit(number, asker(number, number, false)));
        }
        assert!(submit(20, asker(20, 20, false)), "at the cost of the first place");
        assert!(submit(21, asker(21, 21, false)));
        assert!(submit(22, asker(22, 22, false)));
        assert!(!submit(23, asker(23, 23, false)), "all have one each");
        assert!(submit(24, asker(24, 24, true)), "who is known has a place");
        let dropped: Vec<_> = told.try_iter().map(|(number, _)| number).collect();
        assert_eq!(dropped.len(), 6, "{dropped:?}");
        let done = order(&queue, &told);
        assert_eq!((done.len(), done[0]), (6, 24), "{done:?}");
    }
}
