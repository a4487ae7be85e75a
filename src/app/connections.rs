//! The places of open connections. Those of one address are bounded, and when all are taken, who
//! has not logged in makes room for others: of the address with most such connections the oldest, and
//! so does who has most over HTTP on which nothing is worked on. When there is nobody left of those,
//! places are shared: who logs in gets one if somebody has more, whose idlest connection closes.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::pool::{OverShare, Pool, Pools, Usage, Whose};
use base::shares::Shares;
use base::{Code, ConnectionId, Failure, OrgId, limits, network_of};
use parking_lot::Mutex;
use rules::directory::{Outbox, PrincipalId, Reason};
use tokio_util::sync::CancellationToken;

use super::crowds::Crowds;
use super::memory::SharedAccount;

/// Whose connection it is: an organisation, and a principal there.
pub(super) type Home = (OrgId, PrincipalId);

/// Whether a connection has lost its place already.
pub(super) type Lost<'a> = &'a dyn Fn(ConnectionId) -> bool;

/// Somebody's connection on which nothing has come for longest.
pub(super) enum Idlest<V> {
    Found(ConnectionId, V),
    /// It has none but those on which requests are worked on.
    Nobody,
    /// Somebody has to look at all of them.
    Unknown,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotTaken {
    Full(NoPlace),
    /// Not before somebody has looked for the idlest connection of this one, whose it is; without the
    /// lock, for there may be a hundred thousand.
    Look(Home, NoPlace),
}

/// All open connections.
pub struct Connections {
    usage: Arc<Usage>,
    state: Mutex<State>,
}

struct State {
    open: usize,
    /// Of those that are logged in.
    shares: Shares<PrincipalId>,
    /// Those of administrators for which there was no other place.
    reserve: Shares<PrincipalId>,
    /// Whose they are.
    reserved: HashMap<ConnectionId, Home>,
    /// Connections that are logged in without a session of their own.
    guests: HashMap<ConnectionId, Guest>,
    /// Those that made way and have not left yet: their places are others'.
    made_way: HashSet<ConnectionId>,
    window: Window,
    of: HashMap<Counted, Share>,
    last: u32,
    /// Those that have not logged in, by their age.
    strangers: HashMap<u64, Stranger>,
    /// By whose they are.
    crowds: Crowds<Crowd>,
    /// Where they are there.
    ages: HashMap<ConnectionId, u64>,
    age: u64,
    /// Those that were told to close, and have not yet; they count for no address.
    leaving: HashSet<ConnectionId>,
}

/// What an address has.
#[derive(Default)]
struct Share {
    open: usize,
    /// Of these, those that have not logged in.
    strangers: BTreeSet<u64>,
}

/// For whom a connection counts on which nobody is logged in now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Crowd {
    /// Those that are told that there is no room: they go before all others.
    Refused,
    /// Where nobody knows yet from where they come, behind a proxy, and administrators' listener.
    Unknown,
    Address(Counted),
    /// Who asked last on one over HTTP, and may ask again.
    Principal(Home),
}

/// More than any other crowd has.
const OF_REFUSED: usize = usize::MAX >> 24;

impl Crowd {
    fn at(address: Option<Counted>) -> Self {
        address.map_or(Self::Unknown, Self::Address)
    }

    /// What each of its connections counts.
    const fn weight(self) -> usize {
        match self {
            Self::Refused => OF_REFUSED,
            _ => 1,
        }
    }
}

/// A connection that has not logged in.
struct Stranger {
    id: ConnectionId,
    /// The address for which it counts.
    address: Option<Counted>,
    crowd: Crowd,
    /// Closes it.
    stop: CancellationToken,
}

/// A connection that is logged in without a session of its own.
struct Guest {
    close: CloseGuest,
    /// Of one over HTTP.
    account: Option<SharedAccount>,
    /// Who asks, if that is known.
    home: Option<Home>,
}

/// How it is told to close.
enum CloseGuest {
    Token(CancellationToken),
    Outbox(Arc<Outbox>),
}

/// How many have made way in the last second.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

impl Window {
    fn admits(&mut self, now: Instant) -> bool {
        let is_over = |since| now.duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count < limits::CONNECTIONS_MADE_WAY_PER_S
    }
}

/// All places are taken, and nobody who has more makes way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server is full: {0}")]
pub struct NoPlace(OverShare);

impl From<NoPlace> for Failure {
    fn from(full: NoPlace) -> Self {
        let NoPlace(over) = full;
        Self::new(Code::BUSY, format!("The server is full: {over}; try again."))
    }
}

/// The place of a connection that is logged in; given back when this is dropped.
pub struct Place {
    connections: Arc<Connections>,
    id: ConnectionId,
    home: Home,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.state.lock().give_back(self.id, self.home);
    }
}

/// An address for which connections are counted, or a /64 of IPv6; small, for every connection has
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Counted(u64);

impl From<IpAddr> for Counted {
    fn from(address: IpAddr) -> Self {
        Self(match network_of(address) {
            // No network of IPv6 begins with so many zeros.
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

impl Connections {
    /// Nobody is connected.
    pub fn new(max: usize, pools: &Arc<Pools>) -> Arc<Self> {
        let state = State {
            open: 0,
            shares: Shares::new(Pool::Connections, max as u64, pools).of_a_part(),
            reserve: Shares::new(Pool::AdminConnections, limits::ADMIN_CONNECTIONS, pools),
            reserved: HashMap::new(),
            guests: HashMap::new(),
            made_way: HashSet::new(),
            window: Window::default(),
            of: HashMap::new(),
            last: 0,
            strangers: HashMap::new(),
            crowds: Crowds::default(),
            ages: HashMap::new(),
            age: 0,
            leaving: HashSet::new(),
        };
        let usage = pools.usage(Pool::Connections).clone();
        Arc::new(Self { usage, state: Mutex::new(state) })
    }

    /// There are so many places.
    pub fn set_max(&self, max: usize) {
        self.state.lock().shares.set_max(max as u64);
    }

    /// Takes a place of `max`, at the cost of who has not logged in if need be; `more` can get as
    /// far as their login without. Whether there is room. `from`: the address from which it comes, if
    /// that is known. `stop` closes the connection as long as it has not logged in. The place is taken
    /// until [`Connections::leave`], whatever the answer.
    pub fn enter(
        &self,
        (max, more): (usize, usize),
        from: Option<Counted>,
        stop: &CancellationToken,
    ) -> (ConnectionId, bool) {
        let mut state = self.state.lock();
        let id = state.next_id();
        let fits = state.open < max.saturating_add(more);
        // Who was told to leave has made room for one already.
        if fits && state.open - state.leaving.len() >= max && state.close_first() {
            self.usage.count_evicted();
        }
        state.open += 1;
        self.usage.set_used(state.open as u64);
        if fits {
            state.add_stranger(id, None, Crowd::at(from), stop.clone());
        }
        (id, fits)
    }

    /// Whether some that were told to leave have not yet.
    pub fn are_leaving(&self) -> bool {
        !self.state.lock().leaving.is_empty()
    }

    /// Counts a connection for who has logged in on it: it does not make room for strangers any
    /// more. When all places are taken, who has most loses its idlest connection, which `idlest`
    /// knows among those that have not lost theirs: the caller closes it. `replaces` says whether the
    /// login takes over from another connection, whose place it gets.
    ///
    /// # Errors
    ///
    /// Nobody has more, or too many have just made way; or the idlest is not known.
    pub(super) fn take<V>(
        self: &Arc<Self>,
        (id, home): (ConnectionId, Home),
        replaces: impl FnOnce() -> bool,
        idlest: impl Fn(Home, Lost<'_>) -> Idlest<V>,
    ) -> Result<(Place, Vec<V>), NotTaken> {
        let mut state = self.state.lock();
        let victims = state.take(home, replaces, idlest)?;
        state.remove_stranger(id);
        Ok((Place { connections: self.clone(), id, home }, victims))
    }

    /// Those that make way for nobody: they have lost their places, or have some that are kept for
    /// administrators.
    pub(super) fn staying(&self) -> HashSet<ConnectionId> {
        let state = self.state.lock();
        state.made_way.iter().chain(state.reserved.keys()).copied().collect()
    }

    /// A place for an administrator to whom [`Connections::take`] gives none.
    ///
    /// # Errors
    ///
    /// Administrators have all that are kept for them: the same as before.
    pub(super) fn take_reserved(
        self: &Arc<Self>,
        (id, home): (ConnectionId, Home),
        full: NoPlace,
    ) -> Result<Place, NoPlace> {
        let mut state = self.state.lock();
        state.take_reserved(id, home, full)?;
        state.remove_stranger(id);
        Ok(Place { connections: self.clone(), id, home })
    }

    /// The same where [`Connections::ask`] gives none.
    ///
    /// # Errors
    ///
    /// As [`Connections::take_reserved`].
    pub(super) fn ask_reserved(
        &self,
        (id, home): (ConnectionId, Home),
        full: NoPlace,
    ) -> Result<Option<SharedAccount>, NoPlace> {
        let mut state = self.state.lock();
        if state.made_way.contains(&id) {
            return Err(full);
        }
        state.take_reserved(id, home, full)?;
        let Some(guest) = state.guests.get_mut(&id) else { return Ok(None) };
        guest.home = Some(home);
        Ok(guest.account.clone())
    }

    /// The same for a connection without a session of its own, which `outbox` closes.
    pub fn host(&self, id: ConnectionId, home: Home, outbox: Arc<Outbox>) {
        let close = CloseGuest::Outbox(outbox);
        let guest = Guest { close, account: None, home: Some(home) };
        self.state.lock().guests.insert(id, guest);
    }

    /// Counts a connection over HTTP, on which somebody works, for who asks.
    ///
    /// # Errors
    ///
    /// As [`Connections::take`].
    pub(super) fn ask<V>(
        &self,
        (id, home): (ConnectionId, Home),
        idlest: impl Fn(Home, Lost<'_>) -> Idlest<V>,
    ) -> Result<(Option<SharedAccount>, Vec<V>), NotTaken> {
        let mut state = self.state.lock();
        let none = Ok((None, Vec::new()));
        let Some(guest) = state.guests.get(&id) else { return none };
        let Some(account) = guest.account.clone().filter(|_| guest.home != Some(home)) else {
            return none;
        };
        if state.made_way.contains(&id) {
            // It was that of who has most.
            let full = NoPlace(OverShare { pool: Pool::Connections, whose: Whose::Org });
            return Err(NotTaken::Full(full));
        }
        if let Some((org, principal)) = guest.home
            && !state.end_reserved(id)
        {
            state.shares.give_back(org, principal, 1);
        }
        let taken = state.take(home, || false, idlest);
        if let Some(guest) = state.guests.get_mut(&id) {
            guest.home = taken.is_ok().then_some(home);
        }
        taken.map(|victims| (Some(account), victims))
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.state.lock().open
    }

    /// Counts a connection for an address, which may have `max`. Whether that has room, which who
    /// has not logged in makes for it.
    pub fn count_for(&self, id: ConnectionId, address: Counted, max: usize) -> bool {
        let mut state = self.state.lock();
        // Others have its place already.
        if state.leaving.contains(&id) {
            return true;
        }
        let open = state.of.get(&address).map_or(0, |share| share.open);
        let fits = open < max || state.close_oldest(address);
        let stop = state.remove_stranger(id).map(|stranger| stranger.stop);
        state.of.entry(address).or_default().open += 1;
        if let Some(stop) = stop {
            let crowd = if fits { Crowd::Address(address) } else { Crowd::Refused };
            state.add_stranger(id, Some(address), crowd, stop);
        }
        fits
    }

    /// Gives the place back, and what it counted for.
    pub fn leave(&self, id: ConnectionId, address: Option<Counted>) {
        let mut state = self.state.lock();
        state.open -= 1;
        self.usage.set_used(state.open as u64);
        state.remove_stranger(id);
        state.end_guest(id);
        state.made_way.remove(&id);
        if !state.leaving.remove(&id) {
            state.discount(address);
        }
    }

    /// Notes that somebody works on a request over HTTP: the connection makes room for others only
    /// as those do that have logged in, by `stop`.
    pub fn begin(&self, id: ConnectionId, stop: CancellationToken, account: SharedAccount) {
        let mut state = self.state.lock();
        state.remove_stranger(id);
        let close = CloseGuest::Token(stop);
        state.guests.insert(id, Guest { close, account: Some(account), home: None });
    }

    /// Notes that a connection has nothing to do any more: it is as if it were new, and counts for
    /// who asked on it, if somebody did. `full`: all that it was told is that there is no room.
    pub fn release(
        &self,
        (id, full): (ConnectionId, bool),
        address: Option<Counted>,
        stop: CancellationToken,
    ) {
        let mut state = self.state.lock();
        let home = state.guests.get(&id).and_then(|guest| guest.home);
        state.end_guest(id);
        if !state.leaving.contains(&id) && !state.made_way.contains(&id) {
            let crowd = home.map_or(Crowd::at(address), Crowd::Principal);
            let crowd = if full { Crowd::Refused } else { crowd };
            state.add_stranger(id, address, crowd, stop);
        }
    }
}

impl State {
    fn take<V>(
        &mut self,
        home: Home,
        replaces: impl FnOnce() -> bool,
        idlest: impl Fn(Home, Lost<'_>) -> Idlest<V>,
    ) -> Result<Vec<V>, NotTaken> {
        if self.shares.held() >= self.shares.max() && replaces() {
            self.shares.hold(home.0, home.1, 1);
            return Ok(Vec::new());
        }
        let Self { shares, guests, made_way, reserved, window, .. } = self;
        let mut victims = Vec::new();
        let now = Instant::now();
        let stays =
            |made_way: &HashSet<_>, id| made_way.contains(&id) || reserved.contains_key(&id);
        // Asked for before anything is taken, or counted as refused.
        let mut first = None;
        if window.admits(now)
            && let Err(over) = shares.has_room(home.0, home.1, 1)
            && let Some(loser) = shares.makes_way(home.0, home.1, 1)
        {
            first = match idlest(loser, &|id| stays(made_way, id)) {
                Idlest::Unknown => return Err(NotTaken::Look(loser, NoPlace(over))),
                found => Some((loser, found)),
            };
        }
        let evict = |org, principal| {
            if !window.admits(now) {
                return 0;
            }
            let loser = (org, principal);
            let stays = |id| stays(made_way, id);
            let found = match first.take() {
                Some((of, found)) if of == loser => found,
                _ => idlest(loser, &stays),
            };
            let id = match found {
                Idlest::Found(id, victim) => {
                    victims.push(victim);
                    id
                }
                // All that it has are requests that are worked on: the oldest.
                Idlest::Nobody => match oldest_guest(guests, loser, &stays) {
                    Some(id) => id,
                    None => return 0,
                },
                Idlest::Unknown => return 0,
            };
            window.count += 1;
            made_way.insert(id);
            1
        };
        let taken = shares.take_from_most(home, 1, evict);
        taken.map(|()| victims).map_err(|over| NotTaken::Full(NoPlace(over)))
    }

    fn give_back(&mut self, id: ConnectionId, home: Home) {
        self.guests.remove(&id);
        if self.end_reserved(id) {
            return;
        }
        if !self.made_way.remove(&id) {
            self.shares.give_back(home.0, home.1, 1);
        }
    }

    fn take_reserved(
        &mut self,
        id: ConnectionId,
        home: Home,
        full: NoPlace,
    ) -> Result<(), NoPlace> {
        self.reserve.take(home.0, home.1, 1).map_err(|_| full)?;
        self.reserved.insert(id, home);
        Ok(())
    }

    /// Gives back a place that was kept for administrators; whether it was one.
    fn end_reserved(&mut self, id: ConnectionId) -> bool {
        let found = self.reserved.remove(&id);
        if let Some((org, principal)) = found {
            self.reserve.give_back(org, principal, 1);
        }
        found.is_some()
    }

    /// Nobody works on the request of a connection over HTTP any more.
    fn end_guest(&mut self, id: ConnectionId) {
        if self.end_reserved(id) {
            self.guests.remove(&id);
            return;
        }
        if let Some(Guest { home: Some((org, principal)), .. }) = self.guests.remove(&id)
            && !self.made_way.contains(&id)
        {
            self.shares.give_back(org, principal, 1);
        }
    }

    fn next_id(&mut self) -> ConnectionId {
        self.last = self.last.wrapping_add(1);
        ConnectionId::new(self.last)
    }

    fn add_stranger(
        &mut self,
        id: ConnectionId,
        address: Option<Counted>,
        crowd: Crowd,
        stop: CancellationToken,
    ) {
        self.age += 1;
        self.ages.insert(id, self.age);
        self.strangers.insert(self.age, Stranger { id, address, crowd, stop });
        self.crowds.change(crowd, self.age, 0, crowd.weight());
        // Who is told that there is no room makes none for the next of its address.
        let address = address.filter(|_| crowd != Crowd::Refused);
        if let Some(share) = address.and_then(|address| self.of.get_mut(&address)) {
            share.strangers.insert(self.age);
        }
    }

    fn remove_stranger(&mut self, id: ConnectionId) -> Option<Stranger> {
        let age = self.ages.remove(&id)?;
        let stranger = self.strangers.remove(&age)?;
        self.crowds.change(stranger.crowd, age, stranger.crowd.weight(), 0);
        if let Some(share) = stranger.address.and_then(|address| self.of.get_mut(&address)) {
            share.strangers.remove(&age);
        }
        Some(stranger)
    }

    /// Closes the oldest of those that have not logged in, of whoever has most of them. Whether there
    /// is one.
    fn close_first(&mut self) -> bool {
        let first = self.crowds.first();
        self.close_stranger(first)
    }

    /// The same of one address.
    fn close_oldest(&mut self, address: Counted) -> bool {
        let oldest = self.of.get(&address).and_then(|share| share.strangers.first().copied());
        self.close_stranger(oldest)
    }

    fn close_stranger(&mut self, oldest: Option<u64>) -> bool {
        let id = oldest.and_then(|age| self.strangers.get(&age)).map(|stranger| stranger.id);
        let Some(stranger) = id.and_then(|id| self.remove_stranger(id)) else { return false };
        stranger.stop.cancel();
        self.leaving.insert(stranger.id);
        self.discount(stranger.address);
        true
    }

    fn discount(&mut self, address: Option<Counted>) {
        let Some(address) = address else { return };
        if let Entry::Occupied(mut share) = self.of.entry(address) {
            share.get_mut().open -= 1;
            if share.get().open == 0 {
                share.remove();
            }
        }
    }
}

/// Has the oldest of somebody's connections without a session close; which that is.
fn oldest_guest(
    guests: &HashMap<ConnectionId, Guest>,
    home: Home,
    stays: Lost<'_>,
) -> Option<ConnectionId> {
    let of_home = |(id, guest): &(&ConnectionId, &Guest)| guest.home == Some(home) && !stays(**id);
    let (id, guest) = guests.iter().filter(of_home).min_by_key(|(id, _)| **id)?;
    match &guest.close {
        CloseGuest::Token(token) => token.cancel(),
        CloseGuest::Outbox(outbox) => outbox.close(Reason::MadeWay),
    }
    Some(*id)
}

#[cfg(test)]
mod tests {
    use base::{ApplicationId, UserId};

    use super::*;

    fn connections(max: usize) -> Arc<Connections> {
        Connections::new(max, &Arc::default())
    }

    fn home(org: u8, who: u8) -> Home {
        (OrgId::from_bytes([org; 12]), PrincipalId::User(UserId::from_bytes([who; 12])))
    }

    /// Of a connection over HTTP.
    fn account() -> SharedAccount {
        let memory = crate::app::Memory::new(Some(0), &Arc::default());
        let peer = "192.0.2.1:5".parse().expect("an address");
        let info = base::ConnInfo::new(base::Protocol::Http, peer);
        let payer = crate::app::Payer::stranger(&info);
        SharedAccount::new(&memory, payer, CancellationToken::new())
    }

    /// Logs in; nobody makes way.
    fn log_in(connections: &Arc<Connections>, id: ConnectionId, home: Home) -> Option<Place> {
        let idlest = |_, _: Lost<'_>| Idlest::<()>::Nobody;
        connections.take((id, home), || false, idlest).ok().map(|(place, _)| place)
    }

    #[test]
    fn strangers_make_room_in_the_order_of_their_age_and_others_do_not() {
        let connections = connections(3);
        let enter = || {
            let stop = CancellationToken::new();
            let (id, fits) = connections.enter((3, 2), None, &stop);
            (id, fits, stop)
        };
        let (first, second, third) = (enter(), enter(), enter());
        assert!([&first, &second, &third].iter().all(|(_, fits, _)| *fits));
        let first_place = log_in(&connections, first.0, home(1, 1));
        let fourth = enter();
        assert!(fourth.1);
        let gone = |one: &(ConnectionId, bool, CancellationToken)| one.2.is_cancelled();
        assert_eq!([&first, &second, &third, &fourth].map(gone), [false, true, false, false]);
        connections.leave(second.0, None);
        // Who has become idle again is the youngest.
        connections.begin(third.0, third.2.clone(), account());
        connections.release((third.0, false), None, third.2.clone());
        let fifth = enter();
        assert_eq!((gone(&third), gone(&fourth), fifth.1), (false, true, true));
        connections.leave(fourth.0, None);
        let places = [third.0, fifth.0].map(|id| log_in(&connections, id, home(1, 1)));
        // Two more get as far as their login.
        let (sixth, seventh, eighth) = (enter(), enter(), enter());
        assert_eq!((sixth.1, seventh.1, eighth.1), (true, true, false));
        assert!(log_in(&connections, seventh.0, home(1, 2)).is_none());
        drop((first_place, places));
        for (id, ..) in [first, third, fifth, sixth, seventh, eighth] {
            connections.leave(id, None);
        }
        let state = connections.state.lock();
        assert_eq!((state.open, state.strangers.len(), state.ages.len()), (0, 0, 0));
        assert!(state.crowds.is_empty());
        assert_eq!((state.shares.held(), state.guests.len(), state.made_way.len()), (0, 0, 0));
    }

    #[test]
    fn who_has_most_makes_way_for_who_has_less_and_not_all_at_once() {
        let connections = connections(40);
        let mut next = 0;
        let mut id = || {
            next += 1;
            ConnectionId::new(next)
        };
        let greedy: Vec<_> = (0..40).map(|_| id()).collect();
        let places: Vec<_> =
            greedy.iter().map(|id| log_in(&connections, *id, home(1, 1)).expect("room")).collect();
        // Those of the first that have not made way, the oldest first.
        let idlest = |loser: Home, lost: Lost<'_>| {
            assert_eq!(loser, home(1, 1));
            let found = greedy.iter().find(|id| !lost(**id));
            found.map_or(Idlest::Nobody, |id| Idlest::Found(*id, *id))
        };
        let mut take = |of| connections.take((id(), of), || false, idlest);
        assert!(take(home(1, 1)).is_err(), "nobody makes way for himself");
        let mut others = Vec::new();
        for (number, of) in (0..10).map(|number| (number, home(2 - number % 2, 2))) {
            let (place, gone) = take(of).expect("a place");
            assert_eq!(gone, [greedy[usize::from(number)]]);
            others.push(place);
        }
        assert!(take(home(2, 2)).is_err(), "too many in one second");
        // Who comes again takes its own place.
        let again = connections.take((id(), home(1, 1)), || true, idlest).expect("its own");
        assert!(again.1.is_empty());
        drop((again, places, others));
        let state = connections.state.lock();
        assert_eq!((state.shares.held(), state.made_way.len()), (0, 0));
    }

    #[test]
    fn the_idlest_connection_is_looked_for_without_the_lock() {
        let pools = Arc::<Pools>::default();
        let connections = Connections::new(2, &pools);
        let [first, second, third] = [1, 2, 3].map(ConnectionId::new);
        let places = [first, second].map(|id| log_in(&connections, id, home(1, 1)));
        let known = std::cell::Cell::new(false);
        let idlest = |_, _: Lost<'_>| match known.get() {
            true => Idlest::Found(first, ()),
            false => Idlest::Unknown,
        };
        let refused = connections.take((third, home(2, 1)), || false, idlest).err();
        let Some(NotTaken::Look(loser, _)) = refused else { panic!("{refused:?}") };
        assert!(loser == home(1, 1) && connections.state.try_lock().is_some());
        known.set(true);
        let taken = connections.take((third, home(2, 1)), || false, idlest);
        assert!(taken.is_ok_and(|(_, victims)| victims.len() == 1));
        assert_eq!(pools.usage(Pool::Connections).refused(), 0);
        drop(places);
    }

    #[test]
    fn who_only_asks_counts_while_it_is_answered_and_makes_way_last() {
        let connections = connections(2);
        let application = PrincipalId::Application(ApplicationId::from_bytes([1; 12]));
        let guest = (OrgId::from_bytes([1; 12]), application);
        let idlest = |_, _: Lost<'_>| Idlest::<()>::Nobody;
        let outboxes = [1, 2].map(|number| {
            let (id, outbox) = (ConnectionId::new(number), Arc::new(Outbox::new(false)));
            let place = log_in(&connections, id, guest).expect("a place");
            connections.host(id, guest, outbox.clone());
            (place, outbox)
        });
        let other = connections.take((ConnectionId::new(3), home(2, 1)), || false, idlest);
        assert!(other.is_ok());
        let closed = outboxes.each_ref().map(|(_, outbox)| outbox.take(true).1);
        assert_eq!(closed, [Some(Reason::MadeWay), None]);
        drop((outboxes, other));
        assert_eq!(connections.state.lock().shares.held(), 0);
    }

    #[test]
    fn of_strangers_those_of_the_address_with_most_make_room() {
        let connections = connections(6);
        let at = |number: u8| Counted::from(IpAddr::from([192, 0, 2, number]));
        let enter = |number: u8| {
            let stop = CancellationToken::new();
            let (id, fits) = connections.enter((6, 2), Some(at(number)), &stop);
            assert!(fits && connections.count_for(id, at(number), 4));
            (id, stop)
        };
        let gone = |strangers: &[(ConnectionId, CancellationToken)]| {
            strangers.iter().map(|(_, stop)| stop.is_cancelled()).collect::<Vec<_>>()
        };
        let first = enter(1);
        // On one, somebody has asked something, and may ask again.
        let asked = enter(2);
        let account = account();
        connections.begin(asked.0, asked.1.clone(), account);
        let idlest = |_, _: Lost<'_>| Idlest::<()>::Nobody;
        assert!(connections.ask((asked.0, home(1, 1)), idlest).is_ok());
        connections.release((asked.0, false), Some(at(2)), asked.1.clone());
        let same_address = [(); 2].map(|()| enter(2));
        let flood = [(); 2].map(|()| enter(3));
        let more = [(); 2].map(|()| enter(3));
        assert_eq!(gone(&[first, asked]), [false; 2], "each is one of one");
        assert_eq!((gone(&same_address), gone(&flood)), (vec![true, false], vec![true, false]));
        assert_eq!(gone(&more), [false; 2]);
        // Who leaves has made room for one, and only for one.
        let state = connections.state.lock();
        assert_eq!((state.open, state.leaving.len()), (8, 2));
    }

    #[test]
    fn who_is_told_that_there_is_no_room_goes_before_all_others() {
        let connections = connections(4);
        let at = |number: u8| Counted::from(IpAddr::from([192, 0, 2, number]));
        let enter = |number: u8| {
            let stop = CancellationToken::new();
            let (id, room) = connections.enter((4, 2), Some(at(number)), &stop);
            assert!(room);
            (id, connections.count_for(id, at(number), 2), stop)
        };
        let places = [(); 2].map(|()| log_in(&connections, enter(1).0, home(1, 1)));
        let others = [(); 2].map(|()| enter(2));
        let refused = enter(1);
        assert!(!refused.1 && others[0].2.is_cancelled());
        connections.leave(others[0].0, Some(at(2)));
        let late = enter(3);
        assert!(late.1 && refused.2.is_cancelled() && !others[1].2.is_cancelled());
        connections.leave(refused.0, Some(at(1)));
        assert_eq!(connections.state.lock().of[&at(1)].open, 2);
        drop(places);
    }

    #[test]
    fn an_address_has_its_bound() {
        let connections = connections(20);
        let address = |text: &str| Counted::from(text.parse::<IpAddr>().expect("an address"));
        let enter = |text: &str| {
            let stop = CancellationToken::new();
            let from = address(text);
            let (id, room) = connections.enter((20, 2), Some(from), &stop);
            assert!(room);
            let fits = connections.count_for(id, from, 2);
            (id, fits, stop)
        };
        // Those who are logged in keep their places.
        let login = |text: &str| {
            let (id, fits, _) = enter(text);
            (log_in(&connections, id, home(1, 1)).expect("a place"), fits, id)
        };
        let here = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"].map(login);
        assert_eq!(here.each_ref().map(|(_, fits, _)| *fits), [true, true, false]);
        let net = ["2001:db8::1", "2001:db8::2:0:0:1", "2001:db8::3", "2001:db8:0:1::1"];
        assert_eq!(net.map(|text| login(text).1), [true, true, false, true]);
        assert!(login("192.0.2.2").1);
        for (.., id) in here {
            connections.leave(id, Some(address("192.0.2.1")));
        }
        assert!(!connections.state.lock().of.contains_key(&address("192.0.2.1")));
        // Strangers make room.
        let other = enter("192.0.2.2");
        let strangers = [(); 5].map(|()| enter("192.0.2.1"));
        let closed = strangers.each_ref().map(|(.., stop)| stop.is_cancelled());
        assert_eq!(closed, [true, true, true, false, false]);
        assert!(strangers.iter().all(|(_, fits, _)| *fits) && !other.2.is_cancelled());
        for (id, ..) in strangers {
            connections.leave(id, Some(address("192.0.2.1")));
        }
        let state = connections.state.lock();
        assert!(!state.of.contains_key(&address("192.0.2.1")) && state.leaving.is_empty());
    }
}
