//! Writes that several wait for at once: one serves all who came before it began. Nobody waits behind
//! the writes of others, and who comes while one is made waits for the next, for it may miss what that
//! one knows of.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::shared_looks::tell;

/// Those who wait.
#[derive(Default)]
pub(super) struct Settling(Mutex<State>);

#[derive(Default)]
struct State {
    /// For the next write.
    waiting: Vec<oneshot::Sender<()>>,
    /// Whether there is somebody who writes until nobody waits.
    is_writing: bool,
}

impl Settling {
    /// Waits for a write that begins after this.
    pub(super) async fn written<W: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        write: impl Fn() -> W + Send + 'static,
    ) {
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut state = self.0.lock();
            state.waiting.push(tell);
            !std::mem::replace(&mut state.is_writing, true)
        };
        if is_first {
            // A task of its own: others wait for it when this one has gone.
            tokio::spawn(self.clone().write_for_all(write));
        }
        // Nobody tells it if the server ends meanwhile.
        let _ = told.await;
    }

    async fn write_for_all<W: Future<Output = ()>>(self: Arc<Self>, write: impl Fn() -> W) {
        while let Some(waiting) = self.next() {
            write().await;
            tokio::spawn(tell(waiting, ()));
        }
    }

    /// Those for whom the next write is; none if nobody waits, and so nobody writes any more.
    fn next(&self) -> Option<Vec<oneshot::Sender<()>>> {
        let mut state = self.0.lock();
        state.is_writing = !state.waiting.is_empty();
        state.is_writing.then(|| std::mem::take(&mut state.waiting))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn one_write_serves_all_who_came_before_it_began() {
        let settling = Arc::<Settling>::default();
        // How many writes have begun, and how many may end.
        let (begun, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let written = || {
            let (begun, may_end) = (begun.clone(), may_end.clone());
            settling.written(move || {
                let (begun, may_end) = (begun.clone(), may_end.clone());
                async move {
                    begun.add_permits(1);
                    may_end.acquire().await.expect("it is not closed").forget();
                }
            })
        };
        let mut first = Box::pin(written());
        assert!(first.as_mut().now_or_never().is_none());
        begun.acquire().await.expect("it begins").forget();
        let mut late = Box::pin(join_all((0..1000).map(|_| written())));
        assert!(late.as_mut().now_or_never().is_none());
        // Who has gone is no trouble to the others.
        assert!(Box::pin(written()).now_or_never().is_none());
        may_end.add_permits(1);
        first.await;
        begun.acquire().await.expect("the second begins").forget();
        assert!(late.as_mut().now_or_never().is_none(), "what ended had begun before they came");
        may_end.add_permits(1);
        late.await;
        assert_eq!(begun.available_permits(), 0, "it was the last");
        assert!(!settling.0.lock().is_writing);
        may_end.add_permits(1);
        written().await;
    }
}
