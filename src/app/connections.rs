//! The places of open connections. Those of one address are bounded, and when all are taken, who
//! has not logged in makes room for others, the oldest first.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use base::{ConnectionId, network_of};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All open connections.
#[derive(Default)]
pub struct Connections {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: usize,
    of: HashMap<Counted, Share>,
    last: u32,
    /// Those that have not logged in, the oldest first.
    strangers: BTreeMap<u64, Stranger>,
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

/// A connection that has not logged in.
struct Stranger {
    id: ConnectionId,
    address: Option<Counted>,
    /// Closes it.
    stop: CancellationToken,
}

/// Whether there is room for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// There is.
    Free,
    /// There is none, which it may be told.
    Full,
    /// So many are told already that it is just closed.
    Crowded,
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
    /// Takes a place of `max`, at the cost of who has not logged in if need be; `told` more are
    /// told that there is none. `stop` closes the connection as long as it has not logged in. The
    /// place is taken until [`Connections::leave`], whatever the answer.
    pub fn enter(&self, max: usize, told: usize, stop: &CancellationToken) -> (ConnectionId, Room) {
        let mut state = self.state.lock();
        let id = state.next_id();
        let mut room = match state.open {
            open if open < max => Room::Free,
            open if open < max.saturating_add(told) => Room::Full,
            _ => Room::Crowded,
        };
        if room == Room::Full && state.close_oldest(None) {
            room = Room::Free;
        }
        state.open += 1;
        if room == Room::Free {
            state.add_stranger(id, None, stop.clone());
        }
        (id, room)
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
        let fits = open < max || state.close_oldest(Some(address));
        let stop = state.remove_stranger(id).map(|stranger| stranger.stop);
        state.of.entry(address).or_default().open += 1;
        if fits && let Some(stop) = stop {
            state.add_stranger(id, Some(address), stop);
        }
        fits
    }

    /// Gives the place back, and what it counted for.
    pub fn leave(&self, id: ConnectionId, address: Option<Counted>) {
        let mut state = self.state.lock();
        state.open -= 1;
        state.remove_stranger(id);
        if !state.leaving.remove(&id) {
            state.discount(address);
        }
    }

    /// Notes that a connection has logged in, or that somebody works on its request: it does not
    /// make room for others.
    pub fn settle(&self, id: ConnectionId) {
        self.state.lock().remove_stranger(id);
    }

    /// Notes that a connection has nothing to do any more: as if it were new.
    pub fn release(&self, id: ConnectionId, address: Option<Counted>, stop: CancellationToken) {
        let mut state = self.state.lock();
        if !state.leaving.contains(&id) {
            state.add_stranger(id, address, stop);
        }
    }
}

impl State {
    fn next_id(&mut self) -> ConnectionId {
        self.last = self.last.wrapping_add(1);
        ConnectionId::new(self.last)
    }

    fn add_stranger(
        &mut self,
        id: ConnectionId,
        address: Option<Counted>,
        stop: CancellationToken,
    ) {
        self.age += 1;
        self.ages.insert(id, self.age);
        self.strangers.insert(self.age, Stranger { id, address, stop });
        if let Some(share) = address.and_then(|address| self.of.get_mut(&address)) {
            share.strangers.insert(self.age);
        }
    }

    fn remove_stranger(&mut self, id: ConnectionId) -> Option<Stranger> {
        let age = self.ages.remove(&id)?;
        let stranger = self.strangers.remove(&age)?;
        if let Some(share) = stranger.address.and_then(|address| self.of.get_mut(&address)) {
            share.strangers.remove(&age);
        }
        Some(stranger)
    }

    /// Closes the oldest of those that have not logged in, of one address or of all. Whether there
    /// is one.
    fn close_oldest(&mut self, address: Option<Counted>) -> bool {
        let oldest = match address {
            None => self.strangers.first_key_value().map(|(age, _)| *age),
            Some(address) => {
                self.of.get(&address).and_then(|share| share.strangers.first().copied())
            }
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_room_in_the_order_of_their_age_and_others_do_not() {
        let connections = Connections::default();
        let enter = || {
            let stop = CancellationToken::new();
            let (id, room) = connections.enter(3, 2, &stop);
            (id, room, stop)
        };
        let (first, second, third) = (enter(), enter(), enter());
        assert!([&first, &second, &third].iter().all(|(_, room, _)| *room == Room::Free));
        connections.settle(first.0);
        let fourth = enter();
        assert_eq!(fourth.1, Room::Free);
        let gone = |one: &(ConnectionId, Room, CancellationToken)| one.2.is_cancelled();
        assert_eq!([&first, &second, &third, &fourth].map(gone), [false, true, false, false]);
        connections.leave(second.0, None);
        // Who has become idle again is the youngest.
        connections.settle(third.0);
        connections.release(third.0, None, third.2.clone());
        let fifth = enter();
        assert_eq!((gone(&third), gone(&fourth), fifth.1), (false, true, Room::Free));
        connections.leave(fourth.0, None);
        connections.settle(third.0);
        connections.settle(fifth.0);
        let (sixth, seventh, eighth) = (enter(), enter(), enter());
        assert_eq!((sixth.1, seventh.1, eighth.1), (Room::Full, Room::Full, Room::Crowded));
        for (id, ..) in [first, third, fifth, sixth, seventh, eighth] {
            connections.leave(id, None);
        }
        let state = connections.state.lock();
        assert_eq!((state.open, state.strangers.len(), state.ages.len()), (0, 0, 0));
    }

    #[test]
    fn an_address_has_its_bound() {
        let connections = Connections::default();
        let address = |text: &str| Counted::from(text.parse::<IpAddr>().expect("an address"));
        let enter = |text: &str| {
            let stop = CancellationToken::new();
            let (id, room) = connections.enter(20, 2, &stop);
            assert_eq!(room, Room::Free);
            let fits = connections.count_for(id, address(text), 2);
            (id, fits, stop)
        };
        // Those who are logged in keep their places.
        let login = |text: &str| {
            let (id, fits, _) = enter(text);
            connections.settle(id);
            (id, fits)
        };
        let here = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"].map(login);
        assert_eq!(here.map(|(_, fits)| fits), [true, true, false]);
        let net = ["2001:db8::1", "2001:db8::2:0:0:1", "2001:db8::3", "2001:db8:0:1::1"];
        assert_eq!(net.map(|text| login(text).1), [true, true, false, true]);
        assert!(login("192.0.2.2").1);
        for (id, _) in here {
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
