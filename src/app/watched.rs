//! Things and addresses of which the server's log tells everything for a while: what an operator
//! turns on to see why one device does what it does, without a flood of lines about all others.
//!
//! As long as nobody is watched, each command costs one look at a flag.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{ConnInfo, Timestamp, limits};
use parking_lot::RwLock;
use rules::directory::Session;

/// Whom the log is to tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Who has this name: a thing's key or an e-mail address, in any case.
    Name(String),
    /// Who comes from this address.
    Address(IpAddr),
}

/// One that is watched.
#[derive(Clone, Debug)]
pub struct Watching {
    /// Whom.
    pub watch: Watch,
    /// Until when.
    pub until: Timestamp,
    /// Who asked for it.
    pub by: String,
}

/// All that are watched.
#[derive(Default)]
pub struct Watched {
    any: AtomicBool,
    list: RwLock<Vec<Watching>>,
}

impl Watch {
    fn is(&self, name: &str, address: IpAddr) -> bool {
        match self {
            Self::Name(watched) => watched.eq_ignore_ascii_case(name) || *watched == name,
            Self::Address(watched) => *watched == address.to_canonical(),
        }
    }
}

impl Watched {
    /// Whether anybody is.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether one of this name, or from this address, is.
    pub fn has(&self, name: &str, address: IpAddr) -> bool {
        self.any() && self.list.read().iter().any(|one| one.watch.is(name, address))
    }

    /// Whether who has this session, or the connection, is.
    pub fn has_session(&self, session: Option<&Session>, conn: &ConnInfo) -> bool {
        self.has(session.map_or("", |session| session.who().name()), conn.remote_addr.ip())
    }

    /// Watches one until then, in place of an earlier time; false if too many are watched.
    pub fn set(&self, watching: Watching) -> bool {
        let mut list = self.list.write();
        list.retain(|one| one.watch != watching.watch);
        let room = list.len() < limits::WATCHED_MAX;
        if room {
            list.push(watching);
        }
        self.any.store(!list.is_empty(), Ordering::Relaxed);
        room
    }

    /// Watches one no longer.
    pub fn clear(&self, watch: &Watch) {
        self.retain(|one| one.watch != *watch);
    }

    /// Forgets those whose time is over.
    pub fn prune(&self, now: Timestamp) {
        if self.any() {
            self.retain(|one| one.until > now);
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<Watching> {
        self.list.read().clone()
    }

    fn retain(&self, keep: impl Fn(&Watching) -> bool) {
        let mut list = self.list.write();
        list.retain(keep);
        self.any.store(!list.is_empty(), Ordering::Relaxed);
    }
}

/// Logs what one does that is watched: `watched_log!(app, session, conn, topic, "published")`. Nothing
/// is evaluated as long as nobody is.
#[macro_export]
macro_rules! watched_log {
    ($app:expr, $session:expr, $conn:expr, $($line:tt)+) => {
        if $app.watched.any() {
            let (session, conn): (Option<&::rules::directory::Session>, &::base::ConnInfo) =
                ($session, $conn);
            if $app.watched.has_session(session, conn) {
                let who = session.map(|session| session.who().name());
                let (peer, door) = (conn.remote_addr, conn.protocol.as_str());
                ::tracing::debug!(target: $crate::logging::WATCHED, who, %peer, door, $($line)+);
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching(watch: Watch, until: i64) -> Watching {
        Watching { watch, until: Timestamp::from_millis(until), by: "x".into() }
    }

    #[test]
    fn who_is_watched_is_for_a_time() {
        let watched = Watched::default();
        let (here, there): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().expect("one"), "192.0.2.2".parse().expect("one"));
        assert!(!watched.has("mower-1", here));
        assert!(watched.set(watching(Watch::Name("Mower-1".into()), 10)));
        assert!(watched.set(watching(Watch::Address(there), 20)));
        assert!(watched.has("mower-1", here) && watched.has("", there));
        assert!(!watched.has("mower-2", here));
        assert!(watched.has("", "::ffff:192.0.2.2".parse().expect("one")));
        watched.prune(Timestamp::from_millis(10));
        assert!(!watched.has("mower-1", here) && watched.has("", there));
        watched.clear(&Watch::Address(there));
        assert!(!watched.any());
        for number in 0..limits::WATCHED_MAX {
            assert!(watched.set(watching(Watch::Name(number.to_string()), 1)));
        }
        assert!(!watched.set(watching(Watch::Name("one more".into()), 1)));
        assert!(watched.set(watching(Watch::Name("0".into()), 2)), "it has its place");
    }
}
