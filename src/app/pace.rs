//! Turns for what comes all at once and nobody waits for: ends of sessions that expire together,
//! connections that are lost together, the connections that one command closes.
//!
//! Each is little work, and a hundred thousand of them are seconds, in which commands of others
//! would stand behind them in the queues of the threads. So they have a part of the machine, in
//! pieces of less than a millisecond, and others the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::limits;
use tokio::time::Instant;

/// Hands out turns.
pub struct Pace {
    since: Instant,
    /// When what has a turn already is done, in nanoseconds since then.
    busy_until: AtomicU64,
    /// By how much longer a piece of work keeps others waiting than it takes of a core.
    stretch: f64,
    /// Whether the server stops: what is left has its turn at once.
    stopping: AtomicBool,
}

impl Pace {
    /// On a machine with so many cores.
    pub(super) fn new(cores: usize) -> Self {
        let stretch = limits::PACED_STRETCH / cores.max(1) as f64;
        Self {
            since: Instant::now(),
            busy_until: AtomicU64::new(0),
            stretch,
            stopping: AtomicBool::new(false),
        }
    }

    /// Nobody waits for a turn any more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// A turn for work that takes so much of a core; none if it may begin now.
    pub fn turn(&self, work: Duration) -> Option<Instant> {
        if self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        let begin = self.turn_at(self.since.elapsed(), work)?;
        Some(self.since + begin)
    }

    fn turn_at(&self, now: Duration, work: Duration) -> Option<Duration> {
        let now = nanoseconds(now);
        let length = nanoseconds(work.mul_f64(self.stretch));
        // What nobody has used for long is not saved up.
        let begin = |busy_until: u64| busy_until.max(now);
        let taken = self.busy_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            Some(begin(until).saturating_add(length))
        });
        let begin = begin(taken.unwrap_or_else(|until| until));
        let early = nanoseconds(limits::PACED_AT_ONCE);
        (begin > now + early).then(|| Duration::from_nanos(begin))
    }

    /// Waits for a turn. Others that are ready come first in any case: work that takes longer than
    /// it was thought to never gets ahead of its turns.
    pub async fn wait(&self, work: Duration) {
        match self.turn(work) {
            Some(turn) => tokio::time::sleep_until(turn).await,
            None => tokio::task::yield_now().await,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_micros(50);

    #[tokio::test]
    async fn others_that_are_ready_come_before_a_turn_that_begins_at_once() {
        let pace = Pace::new(1);
        assert!(futures_util::poll!(std::pin::pin!(pace.wait(Duration::ZERO))).is_pending());
    }

    #[test]
    fn few_begin_at_once_and_many_one_after_the_other() {
        let pace = Pace::new(2);
        let turns: Vec<_> = (0..1000).map(|_| pace.turn_at(WORK, WORK)).collect();
        let at_once = turns.iter().take_while(|turn| turn.is_none()).count();
        let length = WORK.mul_f64(pace.stretch);
        let room = limits::PACED_AT_ONCE.as_nanos() / length.as_nanos();
        assert_eq!(at_once, room as usize + 1);
        assert!(turns[at_once..].is_sorted() && turns[at_once..].iter().all(Option::is_some));
        assert_eq!(turns[999], Some(WORK + 999 * length));
        // When all of them have had their turns, the next begins at once.
        assert_eq!(pace.turn_at(WORK + 1000 * length, WORK), None);
        assert!(Pace::new(1).stretch > Pace::new(8).stretch);
    }
}
