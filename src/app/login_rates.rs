//! Logins a second of one principal: a user, or an application with its token, because whoever has
//! a token can name things as they like.
//!
//! A login that brings the principal more devices than it has had at once lately is not counted: a
//! fleet that connects for the first time, or after the server was away. A device is a connection
//! over MQTT or TCP; over HTTP, a user or thing that has a session. All other logins are counted:
//! those that take the place of devices that are gone, and sessions over HTTP that pile up. How many
//! of these may come at once grows with the devices that the principal had at once, so that a fleet
//! comes back after an outage.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::PrincipalId;

/// Counts logins.
pub(super) struct LoginRates {
    /// 0 is no limit.
    per_s: u32,
    buckets: Mutex<HashMap<PrincipalId, Bucket>>,
}

/// A principal has logged in too often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this {} has logged in too often for limits.logins_per_s; the next may come in {seconds} s",
    match .who { PrincipalId::User(_) => "user", PrincipalId::Application(_) => "token" }
)]
pub struct TooManyLogins {
    /// Who.
    pub who: PrincipalId,
    /// Seconds until the next may come.
    pub seconds: u64,
}

struct Bucket {
    at: Timestamp,
    /// Logins that were counted, less those that time has given back.
    spent: f64,
    /// Devices at once, lately.
    peak: f64,
    /// Devices now.
    live: usize,
    /// Logins under way.
    begun: usize,
}

/// A login under way.
pub(super) struct LoginBegun {
    rates: Arc<LoginRates>,
    who: PrincipalId,
    is_counted: bool,
}

impl LoginRates {
    pub(super) fn new(per_s: u32) -> Arc<Self> {
        Arc::new(Self { per_s, buckets: Mutex::default() })
    }

    /// Whether a principal may log in; `is_device`: as one more device.
    ///
    /// # Errors
    ///
    /// It has logged in too often.
    pub(super) fn check(
        &self,
        who: PrincipalId,
        is_device: bool,
        now: Timestamp,
    ) -> Result<(), TooManyLogins> {
        if self.per_s == 0 {
            return Ok(());
        }
        match self.buckets.lock().get_mut(&who) {
            Some(bucket) => bucket.try_count(who, is_device, self.per_s, now).map(drop),
            None => Ok(()),
        }
    }

    /// Begins the login of a principal that has proved who it is; none if nothing is counted.
    ///
    /// # Errors
    ///
    /// It has logged in too often.
    pub(super) fn begin(
        self: &Arc<Self>,
        who: PrincipalId,
        is_device: bool,
        now: Timestamp,
    ) -> Result<Option<LoginBegun>, TooManyLogins> {
        if self.per_s == 0 {
            return Ok(None);
        }
        let mut buckets = self.buckets.lock();
        let bucket = bucket_of(&mut buckets, who, self.per_s, now);
        let is_counted = bucket.try_count(who, is_device, self.per_s, now)?;
        bucket.spent += f64::from(u8::from(is_counted));
        bucket.begun += 1;
        Ok(Some(LoginBegun { rates: self.clone(), who, is_counted }))
    }

    /// There is one more device.
    pub(super) fn started(&self, who: PrincipalId, now: Timestamp) {
        if self.per_s == 0 {
            return;
        }
        let mut buckets = self.buckets.lock();
        let bucket = bucket_of(&mut buckets, who, self.per_s, now);
        bucket.pass(self.per_s, now);
        bucket.live += 1;
        bucket.peak = bucket.peak.max(bucket.live as f64);
    }

    /// One is gone.
    pub(super) fn ended(&self, who: PrincipalId, now: Timestamp) {
        if self.per_s == 0 {
            return;
        }
        if let Some(bucket) = self.buckets.lock().get_mut(&who) {
            bucket.pass(self.per_s, now);
            bucket.live = bucket.live.saturating_sub(1);
        }
    }
}

impl LoginBegun {
    /// The session lives.
    pub(super) fn done(mut self) {
        self.is_counted = true;
    }
}

impl Drop for LoginBegun {
    fn drop(&mut self) {
        if let Some(bucket) = self.rates.buckets.lock().get_mut(&self.who) {
            bucket.begun = bucket.begun.saturating_sub(1);
            // What has come to nothing brought no device.
            bucket.spent += f64::from(u8::from(!self.is_counted));
        }
    }
}

impl Bucket {
    /// Whether a login is to be counted; fails if it is, and there is no room.
    fn try_count(
        &mut self,
        who: PrincipalId,
        is_device: bool,
        per_s: u32,
        now: Timestamp,
    ) -> Result<bool, TooManyLogins> {
        self.pass(per_s, now);
        if is_device && (self.live + self.begun + 1) as f64 > self.peak.ceil() {
            return Ok(false);
        }
        let burst = f64::from(per_s.saturating_mul(limits::LOGIN_BURST_S)) + self.peak.ceil();
        let over = self.spent + 1.0 - burst;
        if over <= 0.0 {
            return Ok(true);
        }
        let seconds = (over / self.rate(per_s)).ceil().max(1.0) as u64;
        Err(TooManyLogins { who, seconds })
    }

    /// Lets the time pass. What lives counts as long as it does.
    fn pass(&mut self, per_s: u32, now: Timestamp) {
        let seconds = now.millis_since(self.at) as f64 / 1000.0;
        self.at = self.at.max(now);
        self.spent = (self.spent - seconds * self.rate(per_s)).max(0.0);
        self.peak *= (-seconds / limits::LOGIN_PEAK_HALVES_S).exp2();
        self.peak = self.peak.max(self.live as f64);
    }

    /// Logins a second that time gives back.
    fn rate(&self, per_s: u32) -> f64 {
        f64::from(per_s).max(self.peak / limits::LOGIN_FLEET_S)
    }
}

fn bucket_of(
    buckets: &mut HashMap<PrincipalId, Bucket>,
    who: PrincipalId,
    per_s: u32,
    now: Timestamp,
) -> &mut Bucket {
    if buckets.len() >= limits::LOGIN_BUCKETS_MAX && !buckets.contains_key(&who) {
        make_room(buckets, per_s, now);
    }
    let fresh = || Bucket { at: now, spent: 0.0, peak: 0.0, live: 0, begun: 0 };
    buckets.entry(who).or_insert_with(fresh)
}

/// Forgets half of the principals, those that logged in least: they may begin anew. Not those that
/// have devices, of which there are no more than sessions.
fn make_room(buckets: &mut HashMap<PrincipalId, Bucket>, per_s: u32, now: Timestamp) {
    let mut spent = Vec::with_capacity(buckets.len());
    for bucket in buckets.values_mut() {
        bucket.pass(per_s, now);
        if bucket.live + bucket.begun == 0 {
            spent.push(bucket.spent);
        }
    }
    let middle = spent.len() / 2;
    if middle < spent.len() {
        let median = *spent.select_nth_unstable_by(middle, f64::total_cmp).1;
        buckets.retain(|_, bucket| bucket.live + bucket.begun > 0 || bucket.spent > median);
    }
}

#[cfg(test)]
mod tests {
    use base::{ApplicationId, UserId};

    use super::super::tests::NOW;
    use super::*;

    const PER_S: u32 = 20;
    const BURST: usize = (PER_S * limits::LOGIN_BURST_S) as usize;
    const FLEET: usize = 10_000;

    /// The devices of one application.
    struct Devices {
        rates: Arc<LoginRates>,
        who: PrincipalId,
        now: Timestamp,
    }

    impl Devices {
        fn new() -> Self {
            let who = PrincipalId::Application(ApplicationId::from_bytes([1; 12]));
            Self { rates: LoginRates::new(PER_S), who, now: NOW }
        }

        /// Logs in; whether it may.
        fn log_in(&self, is_device: bool) -> bool {
            let checked = self.rates.check(self.who, is_device, self.now);
            let begun = self.rates.begin(self.who, is_device, self.now);
            assert_eq!(checked.err(), begun.as_ref().err().copied());
            let Ok(Some(begun)) = begun else { return false };
            if is_device {
                self.rates.started(self.who, self.now);
            }
            begun.done();
            true
        }

        fn leave(&self, count: usize) {
            (0..count).for_each(|_| self.rates.ended(self.who, self.now));
        }

        /// How many of so many logins are let in.
        fn count(&self, count: usize, log_in: impl Fn(&Self) -> bool) -> usize {
            (0..count).filter(|_| log_in(self)).count()
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now.plus_seconds(seconds);
        }
    }

    #[test]
    fn a_fleet_connects_and_comes_back_at_once() {
        let mut fleet = Devices::new();
        let connect = |fleet: &Devices| fleet.log_in(true);
        assert_eq!(fleet.count(FLEET, connect), FLEET);
        fleet.pass(100_000);
        // Its connections are noticed to be lost when the new ones come, or before.
        for lost_before in [true, false] {
            fleet.leave(if lost_before { FLEET } else { 0 });
            assert_eq!(fleet.count(FLEET, connect), FLEET, "{lost_before}");
            fleet.leave(if lost_before { 0 } else { FLEET });
            fleet.pass(60);
        }
        // Some minutes of flapping.
        for _ in 0..10 {
            fleet.leave(FLEET);
            assert_eq!(fleet.count(FLEET, connect), FLEET);
            fleet.pass(20);
        }
    }

    #[test]
    fn logins_side_by_side_are_as_many_connections() {
        let fleet = Devices::new();
        let begin = || fleet.rates.begin(fleet.who, true, fleet.now);
        let begun: Vec<_> = (0..1000).map(|_| begin().expect("a new device")).collect();
        assert!(begun.iter().flatten().all(|begun| !begun.is_counted));
        drop(begun);
        assert!(begin().is_ok(), "it is more than ever");
        assert_eq!(fleet.count(1, |fleet| fleet.log_in(false)), 0, "a thousand came to nothing");
    }

    #[test]
    fn who_comes_and_goes_is_slowed() {
        let mut device = Devices::new();
        let again = |device: &Devices| {
            let welcome = device.log_in(true);
            device.leave(usize::from(welcome));
            welcome
        };
        // The first is new; one is its peak.
        assert_eq!(device.count(1000, again), 1 + BURST + 1);
        let refused = device.rates.check(device.who, true, device.now).expect_err("too many");
        assert_eq!(refused.seconds, 1);
        let sentence = "this token has logged in too often for limits.logins_per_s; the next may \
                        come in 1 s";
        assert_eq!(refused.to_string(), sentence);
        device.pass(2);
        assert_eq!(device.count(1000, again), 2 * PER_S as usize);
        let other = PrincipalId::User(UserId::from_bytes([1; 12]));
        assert!(device.rates.begin(other, false, device.now).is_ok());
        device.pass(3600);
        assert_eq!(device.count(1000, again), BURST + 1);
    }

    #[test]
    fn what_piles_up_over_http_is_slowed() {
        let user = Devices::new();
        let log_in = |user: &Devices| user.log_in(false);
        assert_eq!(user.count(1000, log_in), BURST);
        assert!(user.log_in(true), "a device more than it had");
        let free = Devices { rates: LoginRates::new(0), ..user };
        assert!((0..1000).all(|_| free.rates.begin(free.who, false, NOW).is_ok()));
        assert!(free.rates.buckets.lock().is_empty());
    }

    #[test]
    fn the_memory_for_principals_has_a_bound() {
        let user = |number: u32| {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&number.to_be_bytes());
            PrincipalId::User(UserId::from_bytes(id))
        };
        let rates = LoginRates::new(PER_S);
        let log_in = |number: u32| drop(rates.begin(user(number), false, NOW));
        (0..3).for_each(|_| log_in(0));
        rates.started(user(1), NOW);
        for number in 2..3 * limits::LOGIN_BUCKETS_MAX as u32 {
            log_in(number);
            assert!(rates.buckets.lock().len() <= limits::LOGIN_BUCKETS_MAX);
        }
        let buckets = rates.buckets.lock();
        assert_eq!(buckets.get(&user(0)).map(|bucket| bucket.spent), Some(3.0));
        assert_eq!(buckets.get(&user(1)).map(|bucket| bucket.live), Some(1));
    }
}
