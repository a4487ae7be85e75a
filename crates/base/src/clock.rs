//! The server's clock: time that passes evenly, whatever happens to the wall clock.
//!
//! [`Clock::now`] is the server's time. It goes by the time since the machine was started, suspension
//! included, so a wall clock that jumps moves nothing that is due: sessions, tickets, locks, expiry.
//! [`Clock::shown`] turns such a time into what the wall clock says, for people and for records of
//! what happened. The two are the same until the wall clock jumps. See
//! `docs/decisions/0011-two-times.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Timestamp;

/// Where a clock reads. All times are milliseconds.
pub trait TimeSource: Send + Sync {
    /// Since the machine was started, the time in which it was suspended included.
    fn boot_ms(&self) -> i64;

    /// The wall clock: since 1970 in UTC.
    fn wall_ms(&self) -> i64;
}

/// A clock that stands still.
impl TimeSource for Timestamp {
    fn boot_ms(&self) -> i64 {
        0
    }

    fn wall_ms(&self) -> i64 {
        self.as_millis()
    }
}

/// A wall clock that differs less than this from what was expected was set a little; anything else
/// is a jump.
const JUMP_MS: i64 = 60_000;

/// Differences that two readings one after the other may have.
const NOISE_MS: i64 = 10;

/// The server's clock. A clone is a second handle of the same one.
#[derive(Clone)]
pub struct Clock(Arc<State>);

struct State {
    /// None: the system's.
    source: Option<Arc<dyn TimeSource>>,
    /// Server time less time since boot. Never changes.
    anchor_ms: i64,
    /// What is shown less server time.
    ahead_ms: AtomicI64,
    /// The same when the clock was started.
    ahead_at_start_ms: i64,
    /// The wall clock less time since boot, when it was last looked at.
    wall_ms: AtomicI64,
    /// What the wall clock was behind the last run when the clock was started, until it is set anew.
    behind_ms: AtomicI64,
}

/// What outlives the process, 16 bytes: the server's time, and how far what is shown was ahead of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastTime {
    now_ms: i64,
    ahead_ms: i64,
}

/// A wall clock that was set by more than a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    /// How far, in milliseconds; negative: back.
    pub by_ms: i64,
}

impl Clock {
    /// A clock that goes on from the end of the last run, if there was one: by as much as the wall
    /// clock has gone on meanwhile, and never back.
    pub fn start(source: Option<Arc<dyn TimeSource>>, last: Option<LastTime>) -> Self {
        let (boot_ms, wall_ms) = read(source.as_deref());
        let last = last.unwrap_or(LastTime { now_ms: wall_ms, ahead_ms: 0 });
        let ahead_ms = last.ahead_when(wall_ms);
        let behind_ms = (last.now_ms + ahead_ms - wall_ms).max(0);
        let now_ms = (wall_ms + behind_ms - ahead_ms).max(last.now_ms);
        Self(Arc::new(State {
            source,
            anchor_ms: now_ms - boot_ms,
            ahead_ms: AtomicI64::new(ahead_ms),
            ahead_at_start_ms: ahead_ms,
            wall_ms: AtomicI64::new(wall_ms - boot_ms),
            behind_ms: AtomicI64::new(behind_ms),
        }))
    }

    /// The server's time, which everything that is due goes by.
    #[inline]
    pub fn now(&self) -> Timestamp {
        let boot_ms = self.0.source.as_ref().map_or_else(boot_ms, |source| source.boot_ms());
        Timestamp::from_millis(self.0.anchor_ms + boot_ms)
    }

    /// What the wall clock says at a time of the server: for people, and for records of what has
    /// happened. [`Timestamp::NEVER`] stays what it is.
    #[inline]
    pub fn shown(&self, time: Timestamp) -> Timestamp {
        moved(time, self.0.ahead_ms.load(Ordering::Relaxed))
    }

    /// The server's time when the wall clock says this.
    pub fn of_shown(&self, shown: Timestamp) -> Timestamp {
        moved(shown, -self.0.ahead_ms.load(Ordering::Relaxed))
    }

    /// What the wall clock says now, as far as it was believed when the server started: what is
    /// removed by its date goes by this, for a jump could remove all of it.
    pub fn settled(&self, now: Timestamp) -> Timestamp {
        moved(now, self.0.ahead_at_start_ms)
    }

    /// How far the wall clock was behind the end of the last run at the start, in milliseconds.
    pub fn behind_ms(&self) -> i64 {
        self.0.behind_ms.load(Ordering::Relaxed)
    }

    /// Looks at the wall clock, from time to time: from now on what is shown follows it. Tells of a
    /// jump once.
    pub fn look(&self) -> Option<Jump> {
        let (boot_ms, wall_ms) = read(self.0.source.as_deref());
        let by_ms = wall_ms - boot_ms - self.0.wall_ms.load(Ordering::Relaxed);
        if by_ms.abs() <= NOISE_MS {
            return None;
        }
        self.0.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        let jumped = by_ms.abs() > JUMP_MS;
        if jumped {
            // It was set on purpose: what it says now is what is right.
            self.0.behind_ms.store(0, Ordering::Relaxed);
        }
        let shown_ms = wall_ms + self.0.behind_ms.load(Ordering::Relaxed);
        self.0.ahead_ms.store(shown_ms - boot_ms - self.0.anchor_ms, Ordering::Relaxed);
        jumped.then_some(Jump { by_ms })
    }

    /// What is to be stored, for the next run to go on from.
    pub fn last_time(&self) -> LastTime {
        let ahead_ms = self.0.ahead_ms.load(Ordering::Relaxed);
        LastTime { now_ms: self.now().as_millis(), ahead_ms }
    }
}

impl LastTime {
    /// How far what is shown is ahead in a run that starts now.
    fn ahead_when(self, wall_ms: i64) -> i64 {
        let Self { now_ms, ahead_ms } = self;
        // What was set a little need not be kept apart for ever.
        if ahead_ms.abs() < JUMP_MS {
            return (wall_ms - now_ms).clamp(ahead_ms.min(0), 0);
        }
        // The wall clock goes on from before the jump: somebody has set it right meanwhile.
        let undone = if ahead_ms > 0 { wall_ms < now_ms + ahead_ms } else { wall_ms >= now_ms };
        if undone { 0 } else { ahead_ms }
    }

    /// The server's time.
    pub const fn now(self) -> Timestamp {
        Timestamp::from_millis(self.now_ms)
    }

    /// The form in the store.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.now_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.ahead_ms.to_be_bytes());
        bytes
    }

    /// From the form in the store.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (now_ms, rest) = bytes.split_first_chunk::<8>()?;
        let ahead_ms = i64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { now_ms: i64::from_be_bytes(*now_ms), ahead_ms })
    }
}

fn moved(time: Timestamp, by_ms: i64) -> Timestamp {
    if time == Timestamp::NEVER { time } else { time.plus_millis(by_ms) }
}

/// Time since boot and the wall clock at one moment: between two readings the thread may have had to
/// wait, which is no jump.
fn read(source: Option<&dyn TimeSource>) -> (i64, i64) {
    if let Some(source) = source {
        return (source.boot_ms(), source.wall_ms());
    }
    loop {
        let (before_ms, wall_ms, after_ms) = (boot_ms(), Timestamp::now().as_millis(), boot_ms());
        if after_ms - before_ms < NOISE_MS / 2 {
            return (before_ms, wall_ms);
        }
    }
}

/// Where no clock counts suspension, the one that at least never jumps: then the wall clock jumps
/// when the machine wakes up, and what is due comes later by as much.
#[inline]
fn boot_ms() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS_40_MS: i64 = 40 * 86_400_000;
    const START_MS: i64 = 1_800_000_000_000;

    #[derive(Default)]
    struct Hands {
        boot_ms: AtomicI64,
        wall_ms: AtomicI64,
    }

    impl TimeSource for Hands {
        fn boot_ms(&self) -> i64 {
            self.boot_ms.load(Ordering::Relaxed)
        }

        fn wall_ms(&self) -> i64 {
            self.wall_ms.load(Ordering::Relaxed)
        }
    }

    impl Hands {
        fn at(wall_ms: i64) -> Arc<Self> {
            Arc::new(Self { boot_ms: AtomicI64::new(5000), wall_ms: AtomicI64::new(wall_ms) })
        }

        fn pass(&self, ms: i64) {
            self.boot_ms.fetch_add(ms, Ordering::Relaxed);
            self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        }

        fn set_wall(&self, by_ms: i64) {
            self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        }

        fn start(self: &Arc<Self>, last: Option<LastTime>) -> Clock {
            Clock::start(Some(self.clone()), last)
        }
    }

    /// Server time and what is shown, from the start.
    fn times(clock: &Clock) -> (i64, i64) {
        let now = clock.now();
        (now.as_millis() - START_MS, clock.shown(now).as_millis() - START_MS)
    }

    #[test]
    fn a_jump_moves_what_is_shown_and_nothing_that_is_due() {
        for by_ms in [DAYS_40_MS, -DAYS_40_MS, 61_000, -61_000] {
            let hands = Hands::at(START_MS);
            let clock = hands.start(None);
            hands.pass(1000);
            hands.set_wall(by_ms);
            assert_eq!(times(&clock), (1000, 1000));
            assert_eq!(clock.look(), Some(Jump { by_ms }));
            assert_eq!(clock.look(), None, "it is told once");
            hands.pass(1000);
            assert_eq!(clock.look(), None);
            assert_eq!(times(&clock), (2000, 2000 + by_ms));
            let now = clock.now();
            assert_eq!(clock.of_shown(clock.shown(now)), now);
            assert_eq!(clock.settled(now), now);
            assert_eq!(clock.shown(Timestamp::NEVER), Timestamp::NEVER);
        }
    }

    #[test]
    fn small_corrections_are_followed_without_a_word() {
        let hands = Hands::at(START_MS);
        let clock = hands.start(None);
        for by_ms in [200, -59_000, 30_000] {
            hands.set_wall(by_ms);
            assert_eq!(clock.look(), None);
        }
        assert_eq!(times(&clock), (0, 200 - 59_000 + 30_000));
        hands.set_wall(3);
        assert_eq!(clock.look(), None);
        assert_eq!(times(&clock).1, 200 - 59_000 + 30_000, "that is noise");
    }

    #[test]
    fn a_restart_goes_by_the_wall_clock() {
        let hands = Hands::at(START_MS);
        let last = hands.start(None).last_time();
        let hands = Hands::at(START_MS + DAYS_40_MS);
        let clock = hands.start(Some(last));
        assert_eq!((times(&clock), clock.behind_ms()), ((DAYS_40_MS, DAYS_40_MS), 0));
    }

    #[test]
    fn a_restart_never_goes_back() {
        let hands = Hands::at(START_MS);
        let last = hands.start(None).last_time();
        let hands = Hands::at(START_MS - DAYS_40_MS);
        let clock = hands.start(Some(last));
        assert_eq!((times(&clock), clock.behind_ms()), ((0, 0), DAYS_40_MS));
        hands.pass(7000);
        hands.set_wall(-500);
        assert_eq!(clock.look(), None);
        assert_eq!(times(&clock), (7000, 6500), "a small correction does not bring it back");
        hands.set_wall(DAYS_40_MS);
        assert_eq!(clock.look(), Some(Jump { by_ms: DAYS_40_MS }));
        assert_eq!(times(&clock), (7000, 6500));
    }

    #[test]
    fn what_jumped_in_one_run_is_no_time_between_two() {
        for by_ms in [DAYS_40_MS, -DAYS_40_MS] {
            let hands = Hands::at(START_MS);
            let clock = hands.start(None);
            hands.set_wall(by_ms);
            assert!(clock.look().is_some());
            let last = LastTime::from_bytes(&clock.last_time().to_bytes()).expect("16 bytes");
            let later = Hands::at(START_MS + by_ms + 1000).start(Some(last));
            assert_eq!((times(&later), later.behind_ms()), ((1000, 1000 + by_ms), 0));
            assert_eq!(later.settled(later.now()), later.shown(later.now()));
            // Set right while nothing ran.
            let later = Hands::at(START_MS + 1000).start(Some(last));
            assert_eq!((times(&later), later.behind_ms()), ((1000, 1000), 0));
        }
    }

    #[test]
    fn what_was_corrected_a_little_is_forgotten_by_the_next_start() {
        let hands = Hands::at(START_MS);
        let clock = hands.start(None);
        hands.set_wall(-2000);
        assert_eq!(clock.look(), None);
        hands.pass(5000);
        let last = clock.last_time();
        let hands = Hands::at(START_MS + 4000);
        assert_eq!(times(&hands.start(Some(last))), (5000, 4000));
        let hands = Hands::at(START_MS + 10_000);
        assert_eq!(times(&hands.start(Some(last))), (10_000, 10_000));
    }
}
