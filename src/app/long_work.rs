//! The threads of work that takes long. Where cores are full, the scheduler of the system gives them
//! less than those that serve connections: on one core, a list of thousands is else as much as all
//! commands of others together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvError, Sender};

use base::{limits, yield_point};
use parking_lot::Mutex;
use tokio::runtime::Handle;

type Job = Box<dyn FnOnce() + Send>;

/// Has work done by threads that wait for it, in the order in which it comes.
#[derive(Clone)]
pub(super) struct LongWork(Sender<Job>);

impl LongWork {
    /// Starts that many threads, which end with the last who can give them work.
    pub(super) fn new(threads: usize) -> Self {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let (waiting, runtime) = (waiting.clone(), Handle::try_current());
            std::thread::Builder::new()
                .name("long-work".into())
                .spawn(move || {
                    // The work may wait for what the runtime does.
                    let _inside = runtime.as_ref().ok().map(Handle::enter);
                    give_way();
                    yield_point::enable();
                    work_off(&waiting);
                })
                .expect("the system has a thread left when the program starts");
        }
        Self(jobs)
    }

    /// Waits for what comes of the work, on a thread that may block: a stop of the server waits for
    /// those. The error says that it failed in a way that is a mistake of this program.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RecvError> {
        let (done, wait) = mpsc::sync_channel(1);
        // There are threads as long as somebody can ask.
        let _ = self.0.send(Box::new(move || drop(done.send(work()))));
        wait.recv()
    }
}

fn work_off(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = waiting.lock().recv() else { return };
        // What it panics with is in the log; who waits for it hears that there is no result.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Lets threads that serve connections come before this one.
pub(super) fn give_way() {
    // Elsewhere, it is the whole process that would give way.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(limits::LONG_WORK_NICE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_ends_no_thread() {
        let threads = LongWork::new(1);
        assert!(threads.run(|| panic!("on purpose")).is_err());
        assert_eq!(threads.run(|| 5), Ok(5));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_threads_give_way_and_others_do_not() {
        let nice = || rustix::process::nice(0).ok();
        let of_work = LongWork::new(1).run(nice).expect("it is done");
        let more = nice().map(|nice| (nice + limits::LONG_WORK_NICE).min(19));
        assert_eq!(of_work, more);
    }

    #[test]
    fn work_can_wait_for_what_the_runtime_does() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
        let threads = {
            let _inside = runtime.enter();
            LongWork::new(1)
        };
        let work = || Handle::current().block_on(async { tokio::task::yield_now().await });
        assert_eq!(threads.run(work), Ok(()));
    }
}
