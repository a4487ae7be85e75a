//! What commands and logins took.

use std::cell::Cell;
use std::time::Instant;

use base::Timestamp;
use base::histogram::{Histogram, Times};

/// Commands that are answered at once, of each thread and millisecond, which are all timed. Reading
/// the clock twice takes a tenth of the time of the smallest command, so of a flood only a part is.
const TIMED_PER_MS: u32 = 4;

/// Of the others every one of so many is timed, and counts as so many.
const TIMED_ONE_IN: u32 = 16;

thread_local! {
    /// The last millisecond in which a command began, and how many have begun in it.
    static RECENT: Cell<(i64, u32)> = const { Cell::new((0, 0)) };
}

/// A command that began.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    since: Instant,
    /// As how many it counts.
    weight: u32,
}

impl Timer {
    /// A command begins; none if it is one of many that are not timed. `at_once`: whether its reply
    /// needs nothing that takes time.
    #[inline]
    pub fn begin(at_once: bool, now: Timestamp) -> Option<Self> {
        let weight = if at_once { weight_of_next(now.as_millis()) } else { 1 };
        (weight > 0).then(|| Self { since: Instant::now(), weight })
    }

    /// One of a command that takes time after all: those are all timed.
    pub fn lasting(begun: Option<Self>) -> Self {
        Self { since: begun.map_or_else(Instant::now, |timer| timer.since), weight: 1 }
    }
}

#[inline]
fn weight_of_next(now_ms: i64) -> u32 {
    RECENT.with(|recent| {
        let (last_ms, count) = recent.get();
        let count = if last_ms == now_ms { count.wrapping_add(1) } else { 0 };
        recent.set((now_ms, count));
        match count {
            0..TIMED_PER_MS => 1,
            _ if (count - TIMED_PER_MS) % TIMED_ONE_IN == TIMED_ONE_IN / 2 => TIMED_ONE_IN,
            _ => 0,
        }
    })
}

/// What commands and logins took since the start.
pub(super) struct CommandTimes {
    /// Names of families.
    families: Vec<&'static str>,
    /// The family of each command.
    of: Box<[u8]>,
    times: Vec<Histogram>,
    /// Those of all commands that wait for no device.
    own: Histogram,
    logins: Histogram,
}

/// A login; it ends when this is dropped.
pub struct LoginTimer<'a> {
    times: &'a CommandTimes,
    since: Instant,
}

impl Drop for LoginTimer<'_> {
    fn drop(&mut self) {
        self.times.logins.note(self.since.elapsed());
    }
}

impl CommandTimes {
    pub(super) fn new(command_names: &[&'static str]) -> Self {
        let mut families: Vec<&'static str> = Vec::new();
        let family = |name: &&'static str| {
            let name = name.split_once('.').map_or(*name, |(family, _)| family);
            let found = families.iter().position(|known| *known == name);
            let index = found.unwrap_or_else(|| {
                families.push(name);
                families.len() - 1
            });
            u8::try_from(index).expect("some dozens of families")
        };
        let of = command_names.iter().map(family).collect();
        let times = families.iter().map(|_| Histogram::default()).collect();
        let (own, logins) = (Histogram::default(), Histogram::default());
        Self { families, of, times, own, logins }
    }

    /// The command with this index is done; `for_device`: whether it may have waited for one.
    pub(super) fn command(&self, index: usize, timer: Timer, for_device: bool) {
        let Some(times) =
            self.of.get(index).and_then(|family| self.times.get(usize::from(*family)))
        else {
            return;
        };
        let (time, weight) = (timer.since.elapsed(), timer.weight.into());
        times.note_many(time, weight);
        if !for_device {
            self.own.note_many(time, weight);
        }
    }

    /// A login begins.
    pub(super) fn login(&self) -> LoginTimer<'_> {
        LoginTimer { times: self, since: Instant::now() }
    }

    /// By family.
    pub(super) fn by_family(&self) -> impl Iterator<Item = (&'static str, Times)> {
        self.families.iter().copied().zip(self.times.iter().map(Histogram::times))
    }

    /// Of logins.
    pub(super) fn logins(&self) -> Times {
        self.logins.times()
    }

    /// Of all commands that wait for no device.
    pub(super) fn own(&self) -> Times {
        self.own.times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_a_part_is_timed_and_stands_for_all() {
        let flood: Vec<u32> =
            (0..TIMED_PER_MS + 10 * TIMED_ONE_IN).map(|_| weight_of_next(7)).collect();
        let count = TIMED_PER_MS + 10 * TIMED_ONE_IN;
        assert_eq!(flood.iter().sum::<u32>(), count);
        assert_eq!(flood.iter().filter(|weight| **weight > 0).count(), 14);
        assert_eq!(weight_of_next(8), 1, "the next millisecond begins anew");
    }

    #[test]
    fn times_go_to_the_family_of_the_command() {
        let times = CommandTimes::new(&["diag.echo", "diag.ping", "thing.list", "thing_def.list"]);
        let now = Timestamp::from_millis(1);
        times.command(1, Timer::lasting(None), false);
        times.command(3, Timer::begin(false, now).expect("always"), true);
        times.command(9, Timer::lasting(None), false);
        drop(times.login());
        let counts: Vec<_> = times.by_family().map(|(name, times)| (name, times.count())).collect();
        assert_eq!(counts, [("diag", 1), ("thing", 0), ("thing_def", 1)]);
        assert_eq!(times.own().count(), 1, "a device may take as long as it likes");
        assert_eq!(times.logins().count(), 1);
    }
}
