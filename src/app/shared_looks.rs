//! Long looks that are asked for several times at once: who asks what waits already to be looked for gets
//! the same answer. One that has begun is not joined, for it may have missed what its asker knows of. Nor is
//! that of another principal, which waits for a turn of that one: behind all that it has asked for.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Failure, limits};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::turns::Worker;

/// What came of a look: a reply object, or why there is none.
pub(crate) type Found = Result<Bytes, Failure>;

/// For whom is looked, and for what.
type Key = (Worker, Arc<str>);

/// The looks that have not begun, and who has joined each.
#[derive(Default)]
pub(super) struct SharedLooks {
    waiting: Mutex<HashMap<Key, Vec<oneshot::Sender<Found>>>>,
}

/// A look that is to begin: whoever asks the same until then has joined it.
pub(super) struct Look {
    key: Key,
    looks: Arc<SharedLooks>,
    has_begun: bool,
}

/// What somebody has who asks.
pub(super) enum Asked {
    /// Nobody asks the same: this one looks.
    First(Look),
    /// Somebody is about to look.
    Joined(oneshot::Receiver<Found>),
}

impl SharedLooks {
    /// Asks for what `key` says.
    pub(super) fn ask(self: &Arc<Self>, worker: Worker, key: String) -> Asked {
        let mut waiting = self.waiting.lock();
        let key = (worker, key.into());
        if let Some(joined) = waiting.get_mut(&key) {
            let (tell, told) = oneshot::channel();
            joined.push(tell);
            return Asked::Joined(told);
        }
        waiting.insert(key.clone(), Vec::new());
        Asked::First(Look { key, looks: self.clone(), has_begun: false })
    }
}

impl Look {
    /// Looks; nobody joins any more.
    pub(super) fn look(mut self, look: impl FnOnce() -> Found) -> Found {
        self.has_begun = true;
        let joined = self.looks.waiting.lock().remove(&self.key).unwrap_or_default();
        let found = look();
        if !joined.is_empty() {
            tokio::spawn(tell(joined, found.clone()));
        }
        found
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // If it never began, the next who asks is the first again.
        if !self.has_begun {
            self.looks.waiting.lock().remove(&self.key);
        }
    }
}

/// Tells those who have joined, a few at once: of thousands who are woken together, each is a piece of
/// work for which others would wait.
pub(super) async fn tell<T: Clone>(joined: Vec<oneshot::Sender<T>>, found: T) {
    for (number, joined) in joined.into_iter().enumerate() {
        // Who has gone meanwhile need not hear of it.
        let _ = joined.send(found.clone());
        if number % limits::TOLD_AT_ONCE == limits::TOLD_AT_ONCE - 1 {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base::{OrgId, PrincipalId, UserId};

    use super::*;

    fn first(asked: Asked) -> Look {
        match asked {
            Asked::First(look) => look,
            Asked::Joined(_) => panic!("nobody waits for it"),
        }
    }

    fn ask(looks: &Arc<SharedLooks>, key: &str) -> Asked {
        looks.ask(Worker::Server, key.into())
    }

    #[tokio::test]
    async fn who_asks_before_it_begins_gets_the_same() {
        let looks = Arc::<SharedLooks>::default();
        let look = first(ask(&looks, "a"));
        let Asked::Joined(joined) = ask(&looks, "a") else { panic!("it waits") };
        let other = first(ask(&looks, "b"));
        let principal = PrincipalId::User(UserId::from_bytes([1; 12]));
        let worker = Worker::Principal(OrgId::from_bytes([1; 12]), principal);
        drop(first(looks.ask(worker, "a".into())));
        let found = look.look(|| {
            // Who asks now may know of what this look has passed by.
            drop(first(ask(&looks, "a")));
            Ok(Bytes::from_static(b"text"))
        });
        let got = joined.await.expect("it was looked for");
        assert_eq!((got, found.expect("found")), (Ok(Bytes::from("text")), "text".into()));
        let Asked::Joined(joined) = ask(&looks, "b") else { panic!("it waits") };
        drop(other);
        assert!(joined.await.is_err(), "its turn was refused");
        drop(first(ask(&looks, "b")));
        assert!(looks.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn others_work_while_thousands_hear_of_it() {
        let looks = Arc::<SharedLooks>::default();
        let look = first(ask(&looks, "a"));
        let told = Arc::new(AtomicUsize::new(0));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let Asked::Joined(joined) = ask(&looks, "a") else { panic!("it waits") };
            let told = told.clone();
            asking.spawn(async move {
                joined.await.expect("told").expect("found");
                told.fetch_add(1, Ordering::Relaxed);
            });
        }
        yield_now().await;
        look.look(|| Ok(Bytes::from_static(b"text"))).expect("found");
        let mut most = 0;
        while let before = told.load(Ordering::Relaxed)
            && before < 1000
        {
            yield_now().await;
            most = most.max(told.load(Ordering::Relaxed) - before);
        }
        assert!(most <= 4 * limits::TOLD_AT_ONCE, "{most} between two turns of another task");
        while asking.join_next().await.is_some() {}
    }
}
