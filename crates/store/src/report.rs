//! Failures of the store in the log: a few lines a second, however many callers meet one.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{LOG_TARGET, StoreError};

/// Logs that something was not done, unless the condition of the store says so already: at most one
/// line a second, which says how many were left out before it.
pub fn report(error: &StoreError, what: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
    if error.is_temporary() {
        return;
    }
    let (second, next) = (START.elapsed().as_secs(), NEXT.load(Ordering::Relaxed));
    let order = Ordering::Relaxed;
    if second < next || NEXT.compare_exchange(next, second + 1, order, order).is_err() {
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let suppressed = SUPPRESSED.swap(0, Ordering::Relaxed);
    let error = error as &dyn std::error::Error;
    tracing::error!(target: LOG_TARGET, error, suppressed, "{what}");
}
