//! Turns for what comes all at once and nobody waits for: ends of sessions that expire together,
//! connections that are lost together, the connections that one command closes.
//!
//! Each is little work, and a hundred thousand of them are seconds, in which commands of others
//! would stand behind them in the queues of the threads. So they have a part of the machine, in
//! pieces of less than a millisecond, and others the rest.

//!
//! Whoever has little of it does not wait behind who has much: what a tenant has in a moment beyond a
//! few milliseconds goes behind what all others have below that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{OrgId, limits};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Hands out turns.
pub struct Pace {
    since: Instant,
    state: Mutex<State>,
    /// By how much longer a piece of work keeps others waiting than it takes of a core.
    stretch: f64,
    /// Whether the server stops: what is left has its turn at once.
    stopping: AtomicBool,
}

/// When what has a turn already is done, in nanoseconds since the beginning.
#[derive(Default)]
struct State {
    /// That of tenants which have little.
    little: u64,
    /// All.
    all: u64,
    /// That of each tenant, were it alone.
    of: HashMap<OrgId, u64>,
}

impl Pace {
    /// On a machine with so many cores.
    pub(super) fn new(cores: usize) -> Self {
        let stretch = limits::PACED_STRETCH / cores.max(1) as f64;
        let (since, stopping) = (Instant::now(), AtomicBool::new(false));
        Self { since, state: Mutex::default(), stretch, stopping }
    }

    /// Nobody waits for a turn any more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A turn for work of a tenant that takes so much of a core; none if it may begin now.
    pub fn turn(&self, tenant: OrgId, work: Duration) -> Option<Instant> {
        if self.is_stopping() {
            return None;
        }
        let begin = self.turn_at(self.since.elapsed(), tenant, work)?;
        Some(self.since + begin)
    }

    fn turn_at(&self, now: Duration, tenant: OrgId, work: Duration) -> Option<Duration> {
        let now = nanoseconds(now);
        let length = nanoseconds(work.mul_f64(self.stretch));
        // What nobody has used for long is not saved up.
        let take = |busy_until: &mut u64| {
            let begin = now.max(*busy_until);
            *busy_until = begin.saturating_add(length);
            begin
        };
        let mut state = self.state.lock();
        if state.of.len() >= limits::PACED_TENANTS {
            state.of.retain(|_, busy_until| *busy_until > now);
        }
        let before = take(state.of.entry(tenant).or_default()) - now;
        let mut begin = take(&mut state.all);
        if before < nanoseconds(limits::PACED_LITTLE) {
            begin = take(&mut state.little);
        }
        let early = nanoseconds(limits::PACED_AT_ONCE);
        (begin > now + early).then(|| Duration::from_nanos(begin))
    }

    /// Waits for a turn. Others that are ready come first in any case: work that takes longer than
    /// it was thought to never gets ahead of its turns.
    pub async fn wait(&self, tenant: OrgId, work: Duration) {
        match self.turn(tenant, work) {
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

    fn tenant(number: u8) -> OrgId {
        OrgId::from_bytes([number; 12])
    }

    #[tokio::test]
    async fn others_that_are_ready_come_before_a_turn_that_begins_at_once() {
        let pace = Pace::new(1);
        let wait = pace.wait(tenant(1), Duration::ZERO);
        assert!(futures_util::poll!(std::pin::pin!(wait)).is_pending());
    }

    #[test]
    fn few_begin_at_once_and_many_one_after_the_other() {
        let pace = Pace::new(2);
        let turn_at = |now| pace.turn_at(now, tenant(1), WORK);
        let turns: Vec<_> = (0..1000).map(|_| turn_at(WORK)).collect();
        let at_once = turns.iter().take_while(|turn| turn.is_none()).count();
        let length = WORK.mul_f64(pace.stretch);
        let room = limits::PACED_AT_ONCE.as_nanos() / length.as_nanos();
        assert_eq!(at_once, room as usize + 1);
        assert!(turns[at_once..].is_sorted() && turns[at_once..].iter().all(Option::is_some));
        assert_eq!(turns[999], Some(WORK + 999 * length));
        // When all of them have had their turns, the next begins at once.
        assert_eq!(turn_at(WORK + 1000 * length), None);
        assert!(Pace::new(1).stretch > Pace::new(8).stretch);
    }

    #[test]
    fn who_has_little_does_not_wait_behind_who_has_much() {
        let pace = Pace::new(2);
        let last = (0..20_000).map(|_| pace.turn_at(WORK, tenant(1), WORK)).last().flatten();
        let length = WORK.mul_f64(pace.stretch);
        assert_eq!(last, Some(WORK + 19_999 * length));
        // Behind no more than what the other may have as little.
        let theirs = pace.turn_at(WORK, tenant(2), WORK).expect("not at once");
        assert!(theirs <= WORK + limits::PACED_LITTLE + length, "{theirs:?}");
        // Of many with little each, all go one after the other.
        let few = (0..10_000u32).map(|number| {
            let mut bytes = [9; 12];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            pace.turn_at(WORK, OrgId::from_bytes(bytes), WORK)
        });
        let few = few.last().flatten().expect("not at once");
        assert!(few > WORK + 10_000 * length, "{few:?}");
        // What they have had makes who has much wait.
        let next = pace.turn_at(WORK, tenant(1), WORK);
        assert_eq!(next, Some(WORK + 30_001 * length));
    }

    #[test]
    fn tenants_that_have_had_their_turns_are_forgotten() {
        let pace = Pace::new(2);
        for number in 0..2 * limits::PACED_TENANTS as u32 {
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            pace.turn_at(WORK * number, OrgId::from_bytes(bytes), WORK);
        }
        assert!(pace.state.lock().of.len() <= limits::PACED_TENANTS);
    }
}
