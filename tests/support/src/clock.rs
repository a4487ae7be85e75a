//! A clock that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base::TimeSource;

/// Time since boot and the wall clock, which stand still until the test moves them.
pub struct Hands {
    boot_ms: AtomicI64,
    wall_ms: AtomicI64,
}

impl Hands {
    /// A machine that has just started, with this on its wall clock.
    pub fn at(wall_ms: i64) -> Arc<Self> {
        Arc::new(Self { boot_ms: AtomicI64::new(1000), wall_ms: AtomicI64::new(wall_ms) })
    }

    /// Time passes.
    pub fn pass(&self, seconds: i64) {
        self.set_wall(seconds * 1000);
        self.boot_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// The wall clock is set, forward or back; no time passes.
    pub fn set_wall(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl TimeSource for Hands {
    fn boot_ms(&self) -> i64 {
        self.boot_ms.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
}
