//! Yield points of long work: the system lets a thread that works go on for some milliseconds, however
//! little it may have of the core, and on few cores those that serve connections wait for the end of
//! that. Threads of long work yield more often by themselves.

use std::cell::Cell;
use std::marker::PhantomData;
use std::thread;
use std::time::Instant;

use crate::limits;

thread_local! {
    /// When this thread yielded last; none if it does no long work.
    static YIELDED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on this thread yields when it passes a yield point.
pub fn enable() {
    YIELDED.set(Some(Instant::now()));
}

/// Lets other threads go on, if this one does long work and has worked for a while. Who holds a lock
/// that others need while it passes one has it [paused](pause).
#[inline]
pub fn pass() {
    if let Some(yielded) = YIELDED.get() {
        pass_since(yielded);
    }
}

/// Until this is dropped, this thread yields nowhere: it holds a lock that others need.
pub struct Paused {
    yielded: Option<Instant>,
    /// It is this thread's.
    _stays: PhantomData<*const ()>,
}

/// Keeps this thread from yielding. Of several, the last is to be dropped first.
pub fn pause() -> Paused {
    Paused { yielded: YIELDED.take(), _stays: PhantomData }
}

impl Drop for Paused {
    fn drop(&mut self) {
        YIELDED.set(self.yielded);
    }
}

#[cold]
fn pass_since(yielded: Instant) {
    if yielded.elapsed() >= limits::YIELD_AFTER {
        thread::yield_now();
        YIELDED.set(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_of_long_work_yield_and_only_after_a_while() {
        pass();
        assert_eq!(YIELDED.get(), None);
        enable();
        let begun = Instant::now();
        let enabled = YIELDED.get();
        while begun.elapsed() < limits::YIELD_AFTER {
            pass();
        }
        pass();
        assert!(YIELDED.get() > enabled);
        {
            let _held = pause();
            let _within = pause();
            assert_eq!(YIELDED.get(), None);
        }
        assert!(YIELDED.get() > enabled);
        let soon = Instant::now() + limits::YIELD_AFTER;
        YIELDED.set(Some(soon));
        pass();
        assert_eq!(YIELDED.get(), Some(soon));
    }
}
