//! Long looks that several ask for at once: who asks what waits already to be looked for gets the
//! same answer. One that has begun is not joined, for it may have missed what its asker knows of.

use std::collections::HashMap;
use std::sync::Arc;

use base::Failure;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What came of a look: a reply object, or why there is none.
pub(crate) type Found = Result<Bytes, Failure>;

/// The looks that have not begun, by what they look for.
#[derive(Default)]
pub(super) struct SharedLooks {
    waiting: Mutex<HashMap<Arc<str>, watch::Receiver<Option<Found>>>>,
}

/// A look that is to begin: whoever asks the same until then has joined it.
pub(super) struct Look {
    key: Arc<str>,
    looks: Arc<SharedLooks>,
    done: watch::Sender<Option<Found>>,
}

/// What somebody has who asks.
pub(super) enum Asked {
    /// Nobody asks the same: this one looks.
    First(Look),
    /// Somebody is about to look.
    Joined(watch::Receiver<Option<Found>>),
}

impl SharedLooks {
    /// Asks for what `key` says.
    pub(super) fn ask(self: &Arc<Self>, key: String) -> Asked {
        let mut waiting = self.waiting.lock();
        if let Some(found) = waiting.get(key.as_str()) {
            return Asked::Joined(found.clone());
        }
        let (done, found) = watch::channel(None);
        let key: Arc<str> = key.into();
        waiting.insert(key.clone(), found);
        Asked::First(Look { key, looks: self.clone(), done })
    }
}

impl Look {
    /// Looks; nobody joins any more.
    pub(super) fn look(self, look: impl FnOnce() -> Found) -> Found {
        self.looks.waiting.lock().remove(&self.key);
        let found = look();
        self.done.send_replace(Some(found.clone()));
        found
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // If it never began, the next who asks is the first again.
        let mut waiting = self.looks.waiting.lock();
        if waiting.get(&self.key).is_some_and(|found| self.done.subscribe().same_channel(found)) {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(asked: Asked) -> Look {
        match asked {
            Asked::First(look) => look,
            Asked::Joined(_) => panic!("nobody waits for it"),
        }
    }

    #[tokio::test]
    async fn who_asks_before_it_begins_gets_the_same() {
        let looks = Arc::<SharedLooks>::default();
        let look = first(looks.ask("a".into()));
        let Asked::Joined(mut joined) = looks.ask("a".into()) else { panic!("it waits") };
        let other = first(looks.ask("b".into()));
        let found = look.look(|| {
            // Who asks now may know of what this look has passed by.
            drop(first(looks.ask("a".into())));
            Ok(Bytes::from_static(b"text"))
        });
        let got = joined.wait_for(Option::is_some).await.expect("it was looked for").clone();
        assert_eq!((got, found.expect("found")), (Some(Ok(Bytes::from("text"))), "text".into()));
        let Asked::Joined(mut joined) = looks.ask("b".into()) else { panic!("it waits") };
        drop(other);
        assert!(joined.wait_for(Option::is_some).await.is_err(), "its turn was refused");
        drop(first(looks.ask("b".into())));
        assert!(looks.waiting.lock().is_empty());
    }
}
