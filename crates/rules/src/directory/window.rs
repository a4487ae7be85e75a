//! Commands counted by the second: of a session, and of all sessions of a login.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Timestamp, limits};
use parking_lot::Mutex;

/// How many commands came in the current second.
#[derive(Default, Debug)]
pub struct Window(
    /// The second (upper half) for which commands are counted (lower half).
    AtomicU64,
);

impl Window {
    /// Whether one more fits into the current second, of which at most `limit` are allowed (0: any
    /// number). It is counted if it does.
    pub fn admit(&self, now: Timestamp, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        let second = second(now);
        let count = |window: u64| if window >> 32 == second { window & 0xffff_ffff } else { 0 };
        let step = |window| {
            let counted = count(window);
            (counted < u64::from(limit)).then_some(second << 32 | (counted + 1))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// How many more fit into the current second, of which at most `limit` are allowed.
    pub fn left(&self, now: Timestamp, limit: u32) -> u32 {
        let window = self.0.load(Ordering::Relaxed);
        let counted = if window >> 32 == second(now) { window as u32 } else { 0 };
        limit.saturating_sub(counted)
    }

    /// Whether something is counted in the current second: before and after it, it is as a new one.
    pub fn is_used(&self, now: Timestamp) -> bool {
        let window = self.0.load(Ordering::Relaxed);
        window >> 32 == second(now) && window & 0xffff_ffff > 0
    }
}

const fn second(now: Timestamp) -> u64 {
    (now.as_millis() / 1000) as u64 & 0xffff_ffff
}

/// The windows of those that have no session: logins whose last one ended in the current second, lest
/// whoever logs in again at once begins anew, and those that ask without one.
pub(super) struct Windows<K>(Mutex<State<K>>);

struct State<K> {
    second: u64,
    of: HashMap<K, Arc<Window>>,
}

impl<K> Default for Windows<K> {
    fn default() -> Self {
        Self(Mutex::new(State { second: 0, of: HashMap::new() }))
    }
}

impl<K: Eq + Hash> Windows<K> {
    /// Keeps the window of a login whose last session ended.
    pub(super) fn keep(&self, principal: K, window: Arc<Window>, now: Timestamp) {
        if window.is_used(now) {
            self.0.lock().insert(principal, window, now);
        }
    }

    /// The window of a login whose first session starts.
    pub(super) fn take(&self, principal: &K, now: Timestamp) -> Arc<Window> {
        let mut state = self.0.lock();
        state.begin(now);
        state.of.remove(principal).unwrap_or_default()
    }

    /// The window of a login that asks without a session.
    pub(super) fn of(&self, principal: K, now: Timestamp) -> Arc<Window> {
        let mut state = self.0.lock();
        state.begin(now);
        match state.of.get(&principal) {
            Some(window) => window.clone(),
            None => {
                let window = Arc::<Window>::default();
                state.insert(principal, window.clone(), now);
                window
            }
        }
    }
}

impl<K: Eq + Hash> State<K> {
    /// Forgets all when another second has begun.
    fn begin(&mut self, now: Timestamp) {
        let second = second(now);
        if self.second != second {
            *self = Self { second, of: HashMap::new() };
        }
    }

    fn insert(&mut self, principal: K, window: Arc<Window>, now: Timestamp) {
        self.begin(now);
        if self.of.len() < limits::WINDOWS_KEPT_MAX {
            self.of.insert(principal, window);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::super::session::Principal;
    use super::*;

    #[test]
    fn each_second_has_room_for_as_many() {
        let window = Window::default();
        let now = Timestamp::from_millis(1_999_000);
        assert!(!window.is_used(now));
        let admitted = (0..10).filter(|_| window.admit(now, 3)).count();
        assert_eq!((admitted, window.is_used(now)), (3, true));
        assert_eq!((window.left(now, 3), window.left(now, 5), window.left(now, 2)), (0, 2, 0));
        assert_eq!(window.left(now.plus_seconds(1), 3), 3);
        assert!(window.admit(now, 0) && window.admit(now.plus_seconds(1), 3));
        assert!(!window.is_used(now));
    }

    #[test]
    fn the_memory_of_a_second_goes_with_it_and_has_a_bound() {
        let user = |number: u32| {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&number.to_be_bytes());
            Principal::User(UserId::from_bytes(id))
        };
        let (windows, now) = (Windows::default(), Timestamp::from_millis(5000));
        assert!(windows.of(user(1), now).admit(now, 1));
        assert!(!windows.of(user(1), now).admit(now, 1));
        assert!(!windows.take(&user(1), now).admit(now, 1));
        for number in 0..limits::WINDOWS_KEPT_MAX as u32 + 10 {
            windows.of(user(number), now);
        }
        assert_eq!(windows.0.lock().of.len(), limits::WINDOWS_KEPT_MAX);
        let later = now.plus_seconds(1);
        windows.keep(user(1), Arc::default(), later);
        assert!(windows.take(&user(2), later).admit(later, 1));
        assert!(windows.0.lock().of.is_empty());
    }
}
