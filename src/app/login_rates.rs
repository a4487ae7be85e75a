//! Logins a second of one login: a user, or a thing of an application. What a token can do with ever
//! new names is bounded by the pools of things and sessions, and by turns when the cores are full; a
//! rate of the token would let one thing out of order take the logins of all the others.
//!
//! A login over MQTT or TCP that brings more sessions at once than there were lately is not counted,
//! nor is the first over HTTP: a gateway that opens many connections, anew after the server was away.
//! All others are counted: those that take the place of what is gone, or of one that is still there, and
//! sessions over HTTP that pile up. Who has spent all of its own waits with any login. How many of these may come at once grows with the sessions that there were at once.

use std::collections::HashMap;
use std::sync::Arc;

use base::{Timestamp, limits};
use parking_lot::Mutex;
use rules::directory::Principal;

/// Counts logins.
pub(super) struct LoginRates {
    /// 0 is no limit.
    per_s: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    buckets: HashMap<Principal, Bucket>,
    /// How many there may be until those are forgotten that say nothing any more.
    room: usize,
}

/// Somebody has logged in too often.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this {} has logged in too often for limits.logins_per_s; the next may come in {seconds} s",
    match .who { Principal::User(_) => "user", Principal::Thing(..) => "thing" }
)]
pub struct TooManyLogins {
    /// Who.
    pub who: Principal,
    /// Seconds until the next may come.
    pub seconds: u64,
}

struct Bucket {
    at: Timestamp,
    /// Logins that were counted, less those that time has given back.
    spent: f64,
    /// Sessions at once, lately.
    peak: f64,
    /// Logins under way.
    begun: usize,
}

/// A login under way.
pub(super) struct LoginBegun {
    rates: Arc<LoginRates>,
    who: Principal,
    /// How many connections were logged in so when it began.
    live: usize,
    is_counted: bool,
}

/// How somebody wants to log in who has so many sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Connections that are logged in so.
    pub live: usize,
    /// Whether it is to be one more connection, or the first session.
    pub is_more: bool,
}

impl LoginRates {
    pub(super) fn new(per_s: u32) -> Arc<Self> {
        Arc::new(Self { per_s, state: Mutex::default() })
    }

    /// Whether somebody may log in.
    ///
    /// # Errors
    ///
    /// Who has logged in too often.
    pub(super) fn check(
        &self,
        who: &Principal,
        wish: Wish,
        now: Timestamp,
    ) -> Result<(), TooManyLogins> {
        if self.per_s == 0 {
            return Ok(());
        }
        match self.state.lock().buckets.get_mut(who) {
            Some(bucket) => bucket.try_count(who, wish, self.per_s, now).map(drop),
            None => Ok(()),
        }
    }

    /// Begins the login of somebody who has proved who it is; none if nothing is counted.
    ///
    /// # Errors
    ///
    /// Who has logged in too often.
    pub(super) fn begin(
        self: &Arc<Self>,
        who: Principal,
        wish: Wish,
        now: Timestamp,
    ) -> Result<Option<LoginBegun>, TooManyLogins> {
        if self.per_s == 0 {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let bucket = state.bucket_of(&who, self.per_s, now);
        let is_counted = bucket.try_count(&who, wish, self.per_s, now)?;
        bucket.spent += f64::from(u8::from(is_counted));
        bucket.begun += 1;
        Ok(Some(LoginBegun { rates: self.clone(), who, live: wish.live, is_counted }))
    }

    /// A session has begun: there are so many of this login.
    pub(super) fn started(&self, who: &Principal, live: usize, now: Timestamp) {
        if self.per_s == 0 || live <= 1 {
            return;
        }
        let mut state = self.state.lock();
        let bucket = state.bucket_of(who, self.per_s, now);
        bucket.pass(live, self.per_s, now);
    }
}

impl LoginBegun {
    /// It goes on as another one, which counts.
    pub(super) fn forget(mut self) {
        let rates = self.rates.clone();
        let mut state = rates.state.lock();
        if let (Some(bucket), true) = (state.buckets.get_mut(&self.who), self.is_counted) {
            bucket.spent -= 1.0;
        }
        self.is_counted = true;
    }

    /// The session lives; `live`: how many connections are logged in so with this one. One that has
    /// taken the place of another brought none more, and is counted now.
    pub(super) fn connected(mut self, live: usize) {
        self.is_counted |= live > self.live;
    }

    /// The session lives, without a connection.
    pub(super) fn done(mut self) {
        self.is_counted = true;
    }
}

impl Drop for LoginBegun {
    fn drop(&mut self) {
        if let Some(bucket) = self.rates.state.lock().buckets.get_mut(&self.who) {
            bucket.begun = bucket.begun.saturating_sub(1);
            // What has come to nothing brought no session.
            bucket.spent += f64::from(u8::from(!self.is_counted));
        }
    }
}

impl Bucket {
    /// Whether a login is to be counted; fails if it is, and there is no room.
    fn try_count(
        &mut self,
        who: &Principal,
        wish: Wish,
        per_s: u32,
        now: Timestamp,
    ) -> Result<bool, TooManyLogins> {
        self.pass(wish.live, per_s, now);
        let burst = f64::from(per_s.saturating_mul(limits::LOGIN_BURST_S)) + self.peak.ceil();
        let over = self.spent + 1.0 - burst;
        if over <= 0.0 {
            let is_more = (wish.live + self.begun + 1) as f64 > self.peak.ceil();
            return Ok(!(wish.is_more && is_more));
        }
        let seconds = (over / self.rate(per_s)).ceil().max(1.0) as u64;
        Err(TooManyLogins { who: who.clone(), seconds })
    }

    /// Lets the time pass. What lives counts as long as it does.
    fn pass(&mut self, live: usize, per_s: u32, now: Timestamp) {
        let seconds = now.millis_since(self.at) as f64 / 1000.0;
        self.at = self.at.max(now);
        self.spent = (self.spent - seconds * self.rate(per_s)).max(0.0);
        self.peak *= (-seconds / limits::LOGIN_PEAK_HALVES_S).exp2();
        self.peak = self.peak.max(live.max(1) as f64);
    }

    /// Logins a second that time gives back.
    fn rate(&self, per_s: u32) -> f64 {
        f64::from(per_s).max(self.peak / limits::LOGIN_FLEET_S)
    }

    /// Whether a new one would say the same.
    fn is_fresh(&self) -> bool {
        self.spent == 0.0 && self.begun == 0 && self.peak < 2.0
    }
}

impl State {
    fn bucket_of(&mut self, who: &Principal, per_s: u32, now: Timestamp) -> &mut Bucket {
        if self.buckets.len() >= self.room && !self.buckets.contains_key(who) {
            self.make_room(per_s, now);
        }
        let fresh = || Bucket { at: now, spent: 0.0, peak: 1.0, begun: 0 };
        self.buckets.entry(who.clone()).or_insert_with(fresh)
    }

    /// Forgets those that say nothing any more. If all memory is taken, also half of the others, those
    /// that logged in least: they may begin anew.
    fn make_room(&mut self, per_s: u32, now: Timestamp) {
        self.buckets.retain(|_, bucket| {
            bucket.pass(0, per_s, now);
            !bucket.is_fresh()
        });
        if self.buckets.len() >= limits::LOGIN_BUCKETS_MAX {
            let mut spent: Vec<_> = self.buckets.values().map(|bucket| bucket.spent).collect();
            let middle = spent.len() / 2;
            let median = *spent.select_nth_unstable_by(middle, f64::total_cmp).1;
            self.buckets.retain(|_, bucket| bucket.begun > 0 || bucket.spent > median);
        }
        self.buckets.shrink_to(2 * self.buckets.len());
        self.room = (2 * self.buckets.len()).clamp(1024, limits::LOGIN_BUCKETS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use base::UserId;

    use super::super::tests::NOW;
    use super::*;

    const PER_S: u32 = 20;
    const BURST: usize = (PER_S * limits::LOGIN_BURST_S) as usize;
    const MANY: usize = 5000;

    fn user(number: u32) -> Principal {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Principal::User(UserId::from_bytes(id))
    }

    /// A login with its sessions.
    struct Login {
        rates: Arc<LoginRates>,
        who: Principal,
        live: usize,
        now: Timestamp,
    }

    impl Login {
        fn new() -> Self {
            Self { rates: LoginRates::new(PER_S), who: user(1), live: 0, now: NOW }
        }

        /// Logs in; whether it may.
        fn log_in(&mut self, is_more: bool) -> bool {
            let wish = Wish { live: self.live, is_more };
            let checked = self.rates.check(&self.who, wish, self.now);
            let begun = self.rates.begin(self.who.clone(), wish, self.now);
            if self.rates.state.lock().buckets.contains_key(&self.who) {
                assert_eq!(checked.is_err(), begun.is_err());
            }
            let Ok(Some(begun)) = begun else { return false };
            self.live += 1;
            self.rates.started(&self.who, self.live, self.now);
            begun.connected(self.live);
            true
        }

        /// Logs in with the client id of a connection that ends with that.
        fn take_over(&mut self) -> bool {
            let wish = Wish { live: self.live, is_more: true };
            let Ok(Some(begun)) = self.rates.begin(self.who.clone(), wish, self.now) else {
                return false;
            };
            self.rates.started(&self.who, self.live, self.now);
            begun.connected(self.live);
            true
        }

        /// How many of so many logins are let in.
        fn count(&mut self, count: usize, mut log_in: impl FnMut(&mut Self) -> bool) -> usize {
            (0..count).filter(|_| log_in(self)).count()
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now.plus_seconds(seconds);
        }
    }

    #[test]
    fn who_opens_many_comes_back_with_all_at_once() {
        let mut gateway = Login::new();
        let connect = |gateway: &mut Login| gateway.log_in(true);
        assert_eq!(gateway.count(MANY, connect), MANY);
        gateway.pass(600);
        // What is lost is noticed when the new ones come, or before.
        for lost_before in [true, false] {
            gateway.live -= if lost_before { MANY } else { 0 };
            assert_eq!(gateway.count(MANY, connect), MANY, "{lost_before}");
            gateway.live -= if lost_before { 0 } else { MANY };
            gateway.pass(60);
        }
    }

    #[test]
    fn logins_side_by_side_are_as_many_connections() {
        let gateway = Login::new();
        let wish = Wish { live: 0, is_more: true };
        let begin = || gateway.rates.begin(gateway.who.clone(), wish, gateway.now);
        let begun: Vec<_> = (0..1000).map(|_| begin().expect("one more")).collect();
        assert_eq!(begun.iter().flatten().filter(|begun| begun.is_counted).count(), 1);
        drop(begun);
        let spent = gateway.rates.state.lock().buckets[&gateway.who].spent;
        assert_eq!(spent, 1000.0, "a thousand came to nothing");
    }

    #[test]
    fn who_comes_and_goes_is_slowed() {
        let mut device = Login::new();
        let again = |device: &mut Login| {
            let welcome = device.log_in(true);
            device.live -= usize::from(welcome);
            welcome
        };
        assert_eq!(device.count(1000, again), BURST + 1);
        let wish = Wish { live: 0, is_more: true };
        let refused = device.rates.check(&device.who, wish, device.now).expect_err("too many");
        assert_eq!(refused.seconds, 1);
        let sentence = "this user has logged in too often for limits.logins_per_s; the next may \
                        come in 1 s";
        assert_eq!(refused.to_string(), sentence);
        device.pass(2);
        assert_eq!(device.count(1000, again), 2 * PER_S as usize);
        assert!(device.rates.begin(user(2), wish, device.now).is_ok(), "another does not pay");
        device.pass(3600);
        assert_eq!(device.count(1000, again), BURST + 1);
    }

    #[test]
    fn who_takes_over_from_itself_is_slowed() {
        for others in [0, 3] {
            let mut device = Login::new();
            assert_eq!(device.count(1 + others, |device| device.log_in(true)), 1 + others);
            assert_eq!(device.count(1000, Login::take_over), BURST + others);
            assert!(!device.log_in(true), "it has spent all of its own");
            device.pass(2);
            assert_eq!(device.count(1000, Login::take_over), 2 * PER_S as usize);
        }
        // All of a gateway's, whose network was away.
        let mut gateway = Login::new();
        assert_eq!(gateway.count(MANY, |gateway| gateway.log_in(true)), MANY);
        assert_eq!(gateway.count(MANY, Login::take_over), MANY);
    }

    #[test]
    fn what_piles_up_over_http_is_slowed() {
        let mut login = Login::new();
        assert!(login.log_in(true));
        let pile_up = |login: &mut Login| {
            let welcome = login.log_in(false);
            login.live = 1;
            welcome
        };
        assert_eq!(login.count(1000, pile_up), BURST + 1);
        let mut free = Login { rates: LoginRates::new(0), ..Login::new() };
        let wish = Wish { live: 0, is_more: false };
        assert!((0..1000).all(|_| free.rates.begin(free.who.clone(), wish, NOW).is_ok()));
        free.pass(1);
        assert!(free.rates.state.lock().buckets.is_empty());
    }

    #[test]
    fn only_those_are_remembered_that_say_something() {
        let rates = LoginRates::new(PER_S);
        let wish = Wish { live: 0, is_more: true };
        let log_in = |number: u32, now| drop(rates.begin(user(number), wish, now));
        // A fleet, a second apart.
        for number in 0..10_000 {
            log_in(number, NOW.plus_seconds(u64::from(number / 100)));
        }
        assert!(rates.state.lock().buckets.len() <= 1024);
        (0..3).for_each(|_| log_in(20_000, NOW.plus_seconds(1000)));
        for number in 30_000..30_000 + 3 * limits::LOGIN_BUCKETS_MAX as u32 {
            log_in(number, NOW.plus_seconds(1000));
            assert!(rates.state.lock().buckets.len() <= limits::LOGIN_BUCKETS_MAX);
        }
        let state = rates.state.lock();
        assert_eq!(state.buckets.get(&user(20_000)).map(|bucket| bucket.spent), Some(3.0));
    }
}
