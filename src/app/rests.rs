//! When the threads of the runtime rest, which each does when nothing is left to do: while none of them
//! does, others stand in a queue.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base::limits;
use tokio::runtime::Builder;

/// How many threads of the program's runtime rest now.
static RESTING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of one of these threads: what it has done since its last rest.
    static WORKED: Cell<Option<Worked>> = const { Cell::new(None) };
}

/// What a thread has done since its last rest.
#[derive(Clone, Copy, Default)]
struct Worked {
    pieces: usize,
    /// When the clock was looked at first.
    seen: Option<Instant>,
}

/// Has the threads of this runtime tell when they rest.
pub fn watch(runtime: &mut Builder) {
    runtime
        .on_thread_park(|| {
            RESTING.fetch_add(1, Ordering::Relaxed);
        })
        .on_thread_unpark(|| {
            RESTING.fetch_sub(1, Ordering::Relaxed);
            WORKED.set(Some(Worked::default()));
        });
}

/// Counts a piece of work on this thread. True if it has not rested for a while and no other rests now;
/// looked at now and then, for the clock is dearer than most pieces.
pub(super) fn nobody_rests() -> bool {
    let Some(mut worked) = WORKED.get() else { return false };
    worked.pieces += 1;
    let looks = worked.pieces % limits::PIECES_BETWEEN_LOOKS == 0;
    let nobody_rests = looks && {
        let seen = worked.seen.get_or_insert_with(Instant::now);
        seen.elapsed() >= limits::WITHOUT_REST && RESTING.load(Ordering::Relaxed) == 0
    };
    WORKED.set(Some(worked));
    nobody_rests
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;

    /// Pieces until the next look at the clock, and what that says.
    fn look() -> bool {
        (0..limits::PIECES_BETWEEN_LOOKS).any(|_| nobody_rests())
    }

    /// Works for longer than anybody should without a rest, and then until a look says this.
    async fn until_it_says(nobody: bool) {
        let begun = Instant::now();
        while look() != nobody || begun.elapsed() <= limits::WITHOUT_REST {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never says so");
        }
    }

    fn on_threads(threads: usize, work: impl Future<Output = ()> + Send + 'static) {
        let mut runtime = Builder::new_multi_thread();
        watch(&mut runtime);
        let runtime = runtime.worker_threads(threads).enable_time().build().expect("a runtime");
        let done = runtime.block_on(async {
            // All have rested once, and those that have nothing to do rest.
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::spawn(work).await
        });
        done.expect("no panic");
    }

    #[test]
    fn nobody_rests_while_every_thread_works_for_long() {
        on_threads(1, until_it_says(true));
        // The other has nothing to do.
        on_threads(2, until_it_says(false));
        on_threads(1, async {
            for _ in 0..60 {
                let pieces = 1..limits::PIECES_BETWEEN_LOOKS;
                assert!(!pieces.into_iter().any(|_| nobody_rests()), "it has rested");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(!look(), "threads that are not of the runtime do not count");
    }
}
