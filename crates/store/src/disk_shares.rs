//! Who has how much of the disk on which the store is.
//!
//! How much there is follows from the disk: what is held, and what may still be added. So who fills
//! it stops before it is full, and the others find the rest. Nobody gives back what is still on the
//! disk, not for a moment: it would be missing in the sum.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use base::pool::{OverShare, Pool, Pools};
use base::shares::{Shares, Whole};
use base::{OrgId, limits};
use parking_lot::Mutex;

use super::Room;

/// The shares of a disk; several pools are parts of it.
#[derive(Debug)]
pub struct DiskShares<P> {
    shares: Mutex<Shares<P>>,
    room: Arc<Room>,
    pools: Arc<Pools>,
}

impl<P: Copy + Ord + Hash> DiskShares<P> {
    /// Nobody holds anything of the disk with this room.
    pub fn new(room: &Arc<Room>, pools: &Arc<Pools>) -> Self {
        let shares = Shares::new(Pool::Disk, room.left(), pools);
        let shares = Mutex::new(shares.with_reserve_max(limits::DISK_RESERVE_BYTES_MAX));
        Self { shares, room: room.clone(), pools: pools.clone() }
    }

    /// All pools.
    pub const fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// Whether so much could be taken now.
    pub fn has_room(&self, org: OrgId, who: P, amount: u64) -> bool {
        let mut shares = self.shares.lock();
        self.measure(&mut shares) && shares.has_room(org, who, amount).is_ok()
    }

    /// Takes so much.
    ///
    /// # Errors
    ///
    /// It is above the share; nothing was taken.
    pub fn take(&self, org: OrgId, who: P, amount: u64) -> Result<(), OverShare> {
        let mut shares = self.shares.lock();
        if !self.measure(&mut shares) {
            shares.hold(org, who, amount);
            return Ok(());
        }
        shares.take(org, who, amount)
    }

    /// Notes what is held already, whatever the bound.
    pub fn hold(&self, org: OrgId, who: P, amount: u64) {
        self.shares.lock().hold(org, who, amount);
    }

    /// Gives so much back.
    pub fn give_back(&self, org: OrgId, who: P, amount: u64) {
        self.shares.lock().give_back(org, who, amount);
    }

    /// Looks how much there is. False: the disk is full, which the store says to everybody.
    fn measure(&self, shares: &mut Shares<P>) -> bool {
        shares.set_max(shares.held().saturating_add(self.room.left()));
        !self.room.is_full()
    }
}

impl<P, Q> Whole<Q> for DiskShares<P>
where
    P: Copy + Ord + Hash + fmt::Debug + Send + Sync,
    Q: Into<P>,
{
    fn check(&self, org: OrgId, who: Q, amount: u64) -> Result<(), OverShare> {
        let mut shares = self.shares.lock();
        if self.measure(&mut shares) { shares.has_room(org, who.into(), amount) } else { Ok(()) }
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
        fn new(left: i64) -> Self {
            let room = Arc::<Room>::default();
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
            self.shares.take(org, 1, bytes)?;
            self.left -= bytes as i64;
            self.measure();
            Ok(())
        }
    }

    #[test]
    fn who_fills_the_disk_leaves_room_for_others() {
        let mut disk = Disk::new(16_000);
        let mut written = 0;
        let over = loop {
            match disk.write(ONE, 10) {
                Ok(()) => written += 10,
                Err(over) => break over,
            }
        };
        assert_eq!((over.pool, over.whose), (Pool::Disk, Whose::Principal));
        assert!((13_000..14_000).contains(&written), "{written}");
        for _ in 0..200 {
            disk.write(OTHER, 10).expect("it is below its share");
        }
        assert_eq!(disk.write(ONE, 10).expect_err("above").whose, Whose::Org);
        // What others than the server write is nobody's.
        disk.left = 100;
        disk.measure();
        disk.write(OTHER, 10).expect("below its share");
        assert!(disk.write(ONE, 10).is_err());
        // Who has removed something may add again.
        Whole::<u8>::give_back(&disk.shares, ONE, 1, 12_000);
        disk.left += 12_000;
        disk.measure();
        disk.write(ONE, 10).expect("room");
    }

    #[test]
    fn a_full_disk_is_not_a_matter_of_shares() {
        let mut disk = Disk::new(1000);
        disk.write(ONE, 800).expect("room");
        assert!(disk.write(ONE, 50).is_err());
        disk.left = -1;
        disk.measure();
        assert_eq!(Whole::<u8>::check(&disk.shares, ONE, 1, 50), Ok(()));
        assert_eq!(disk.shares.take(ONE, 1, 50), Ok(()), "the store refuses it");
    }

    #[test]
    fn little_is_left_of_a_large_disk() {
        let mut disk = Disk::new(1 << 50);
        let reserve = limits::DISK_RESERVE_BYTES_MAX;
        assert!(disk.write(ONE, (1 << 50) - 2 * reserve).is_err());
        disk.write(ONE, (1 << 50) - 3 * reserve).expect("of each level a gigabyte is left");
    }

    #[test]
    fn what_is_a_part_is_held_of_both() {
        let pools = Arc::<Pools>::default();
        let room = Arc::<Room>::default();
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
        assert_eq!((used(Pool::FileBytes), used(Pool::Disk)), (50, 50));
        files.take(ONE, 1, 10).expect("room");
    }
}
