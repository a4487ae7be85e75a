//! Who has how much of the disk on which the store is.
//!
//! How much there is follows from the disk: what is held, and what may still be added. So who fills
//! it stops before it is full, and the others find the rest. What is removed counts a while longer: it is
//! still on the disk.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, mem};

use base::pool::{OverShare, Pool, Pools};
use base::shares::{Shares, Whole};
use base::{OrgId, limits};
use parking_lot::Mutex;

use super::Room;

/// The shares of a disk; several pools are parts of it.
#[derive(Debug)]
pub struct DiskShares<P> {
    state: Mutex<State<P>>,
    room: Arc<Room>,
    pools: Arc<Pools>,
}

#[derive(Debug)]
struct State<P> {
    shares: Shares<P>,
    /// What was given back since this time, and before: it is held still.
    going: [HashMap<(OrgId, P), u64>; 2],
    since: Instant,
}

impl<P: Copy + Ord + Hash> DiskShares<P> {
    /// Nobody holds anything of the disk with this room.
    pub fn new(room: &Arc<Room>, pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::Disk, room.left(), pools).with_reserve(room.reserve());
        let going = [HashMap::new(), HashMap::new()];
        let state = Mutex::new(State { shares, going, since: Instant::now() });
        Self { state, room: room.clone(), pools: pools.clone() }
    }

    /// All pools.
    pub const fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// Whether so much could be written now.
    ///
    /// # Errors
    ///
    /// It is above the share.
    pub fn check(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        // Of a full disk the store says so to everybody.
        if self.room.is_full() {
            return Ok(());
        }
        let shares = &mut self.state.lock().shares;
        shares.set_max(shares.held().saturating_add(self.room.left()));
        shares.has_room(org, who, amount)
    }

    /// Notes that so much more is on the disk.
    pub fn hold(&self, org: OrgId, who: P, amount: u64) {
        self.state.lock().shares.hold(org, who, amount);
    }

    /// Notes that so much will go from the disk.
    pub fn give_back(&self, org: OrgId, who: P, amount: u64) {
        if amount > 0 {
            *self.state.lock().going[0].entry((org, who)).or_default() += amount;
        }
    }

    /// Lets go of what has gone; to be called every few seconds.
    pub fn keep(&self, now: Instant) {
        let State { shares, going: [new, old], since } = &mut *self.state.lock();
        if now.saturating_duration_since(*since) >= limits::DISK_GOING_WAIT {
            *since = now;
            let gone = mem::replace(old, mem::take(new));
            gone.into_iter().for_each(|((org, who), amount)| shares.give_back(org, who, amount));
        }
    }
}

impl<P, Q> Whole<Q> for DiskShares<P>
where
    P: Copy + Ord + Hash + fmt::Debug + Send + Sync,
    Q: Into<P>,
{
    fn check(&self, org: OrgId, who: Q, amount: u64) -> Result<(), OverShare> {
        Self::check(self, org, who.into(), amount)
    }

    fn hold(&self, org: OrgId, who: Q, amount: u64) {
        Self::hold(self, org, who.into(), amount);
    }

    fn give_back(&self, org: OrgId, who: Q, amount: u64) {
        Self::give_back(self, org, who.into(), amount);
    }
}

impl<P: Copy + Ord + Hash> Default for DiskShares<P> {
    /// Those of a disk without end.
    fn default() -> Self {
        Self::new(&Arc::default(), &Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use base::pool::Whose;

    use super::*;
    use crate::Condition;

    const ONE: OrgId = OrgId::from_bytes([1; 12]);
    const OTHER: OrgId = OrgId::from_bytes([2; 12]);

    /// Shares of a disk on which there is so much room, which is measured at once.
    struct Disk {
        shares: DiskShares<u8>,
        room: Arc<Room>,
        left: i64,
    }

    impl Disk {
        fn new(left: i64, reserve: u64) -> Self {
            let room = Arc::<Room>::default();
            room.set_reserve(reserve);
            let disk = Self { shares: DiskShares::new(&room, &Arc::default()), room, left };
            disk.measure();
            disk
        }

        fn measure(&self) {
            let condition = match self.left {
                ..0 => Condition::Full { free: 1, unwritten: 0, mark: 2 },
                _ => Condition::Good,
            };
            self.room.note(condition, self.left.unsigned_abs(), self.left);
        }

        fn write(&mut self, org: OrgId, bytes: u64) -> Result<(), OverShare> {
            self.shares.check(org, 1, bytes)?;
            self.shares.hold(org, 1, bytes);
            self.left -= bytes as i64;
            self.measure();
            Ok(())
        }
    }

    #[test]
    fn who_fills_the_disk_leaves_room_for_others() {
        let mut disk = Disk::new(16_000, 1000);
        let mut written = 0;
        let over = loop {
            match disk.write(ONE, 10) {
                Ok(()) => written += 10,
                Err(over) => break over,
            }
        };
        assert_eq!((over.pool, over.whose), (Pool::Disk, Whose::Principal));
        assert_eq!(written, 13_000, "for tenants, organisations and principals a reserve is left");
        for _ in 0..200 {
            disk.write(OTHER, 10).expect("it is below its share");
        }
        assert_eq!(disk.write(ONE, 10).expect_err("above").whose, Whose::Org);
        // What others than the server write is nobody's.
        disk.left = 100;
        disk.measure();
        disk.write(OTHER, 10).expect("below its share");
        assert!(disk.write(ONE, 10).is_err());
        // When something has gone from the disk, all may add again.
        disk.left += 12_000;
        disk.measure();
        disk.write(ONE, 10).expect("room");
    }

    #[test]
    fn what_is_removed_counts_until_it_has_gone_from_the_disk() {
        let mut disk = Disk::new(16_000, 1000);
        while disk.write(ONE, 10).is_ok() {}
        disk.shares.give_back(ONE, 1, 13_000);
        let begun = Instant::now();
        let later = |waits| begun + limits::DISK_GOING_WAIT * waits;
        for at in [begun, later(1)] {
            disk.shares.keep(at);
            assert!(disk.write(ONE, 10).is_err(), "nothing has gone");
            disk.write(OTHER, 10).expect("below its share");
        }
        disk.shares.keep(later(2));
        disk.write(ONE, 10).expect("below its share");
        assert_eq!(disk.shares.state.lock().shares.held(), 30);
    }

    #[test]
    fn a_full_disk_is_not_a_matter_of_shares() {
        let mut disk = Disk::new(1000, 60);
        disk.write(ONE, 800).expect("room");
        assert!(disk.write(ONE, 50).is_err());
        disk.left = -1;
        disk.measure();
        assert_eq!(disk.shares.check(ONE, 1, 50), Ok(()), "the store refuses it");
    }

    #[test]
    fn what_is_a_part_is_held_of_both() {
        let pools = Arc::<Pools>::default();
        let room = Arc::<Room>::default();
        room.set_reserve(10);
        let disk = Arc::new(DiskShares::<Option<u8>>::new(&room, &pools));
        let mut files = Shares::<u8>::new(Pool::FileBytes, 1000, &pools).within(disk.clone());
        let used = |pool| pools.usage(pool).used();
        files.take(ONE, 1, 500).expect("room");
        files.hold(ONE, 2, 100);
        assert_eq!((used(Pool::FileBytes), used(Pool::Disk)), (600, 600));
        room.note(Condition::Good, 40, 40);
        let over = files.take(ONE, 1, 30).expect_err("the disk has no room");
        assert_eq!(over.pool, Pool::Disk);
        let refused = |pool| pools.usage(pool).refused();
        assert_eq!((refused(Pool::FileBytes), refused(Pool::Disk)), (0, 1));
        files.give_back(ONE, 1, 9999);
        files.evict(ONE, 2, 50);
        (1..=2).for_each(|waits| disk.keep(Instant::now() + limits::DISK_GOING_WAIT * waits));
        assert_eq!((used(Pool::FileBytes), used(Pool::Disk)), (50, 50));
        files.take(ONE, 1, 10).expect("room");
    }
}
