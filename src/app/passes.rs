//! Passes over much, and writes, that several ask for at once. Who asks while one is going on may know of what it has
//! gone by, and waits for the next, which is for all who ask until it begins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::shared_looks::tell;

/// Who waits for the next pass, by what it is over. What is here is being worked on.
pub(super) struct Passes<K: Copy + Eq + Hash, T>(Mutex<HashMap<K, Vec<oneshot::Sender<T>>>>);

impl<K: Copy + Eq + Hash, T> Default for Passes<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, T> Passes<K, T>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// What comes of a pass that begins from now on: one that waits already, or `pass`.
    pub(super) fn ask<F: Future<Output = T> + Send + 'static>(
        self: &Arc<Self>,
        key: K,
        pass: impl Fn() -> F + Send + Sync + 'static,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        match self.0.lock().entry(key) {
            Entry::Occupied(mut asking) => asking.get_mut().push(tell),
            Entry::Vacant(free) => {
                free.insert(vec![tell]);
                let passes = self.clone();
                tokio::spawn(async move { passes.work_off(key, pass).await });
            }
        }
        told
    }

    async fn work_off<F: Future<Output = T> + Send + 'static>(&self, key: K, pass: impl Fn() -> F) {
        while let Some(asking) = self.next(key) {
            // If it fails, nobody is told anything, and the next begins all the same.
            if let Ok(found) = tokio::spawn(pass()).await {
                tell(asking, found).await;
            }
        }
    }

    /// Who asked for the pass that begins now; with nobody, none goes on.
    fn next(&self, key: K) -> Option<Vec<oneshot::Sender<T>>> {
        let mut all = self.0.lock();
        let asking = std::mem::take(all.get_mut(&key)?);
        if asking.is_empty() {
            all.remove(&key);
            return None;
        }
        Some(asking)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_pass_shares_one_that_begins_later() {
        let passes = Arc::<Passes<&str, usize>>::default();
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, closed) = (begun.clone(), gate.clone());
        let pass = move || {
            let (counted, closed) = (counted.clone(), closed.clone());
            async move {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                closed.acquire().await.expect("it opens").forget();
                number
            }
        };
        let begins = async |number| {
            while begun.load(Ordering::Relaxed) < number {
                yield_now().await;
            }
        };
        let first = passes.ask("a", pass.clone());
        begins(1).await;
        let joined: Vec<_> = (0..100).map(|_| passes.ask("a", pass.clone())).collect();
        let other = passes.ask("b", pass);
        begins(2).await;
        gate.add_permits(2);
        assert_eq!((first.await, other.await), (Ok(0), Ok(1)));
        gate.add_permits(1);
        for joined in joined {
            assert_eq!(joined.await, Ok(2));
        }
        while !passes.0.lock().is_empty() {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn behind_a_pass_that_fails_the_next_begins() {
        let passes = Arc::<Passes<&str, usize>>::default();
        let tries = AtomicUsize::new(0);
        let pass = move || {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                assert_ne!(number, 0, "on purpose");
                number
            }
        };
        let failing = passes.ask("a", pass);
        yield_now().await;
        let next = passes.ask("a", || async { 5 });
        assert!(failing.await.is_err());
        assert!(next.await.is_ok());
    }
}
