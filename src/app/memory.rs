//! The memory that peers can make grow: what they have not read, what is worked on for them, and what
//! came and is not complete. One budget has all of it, shared as every pool is; before it is used
//! up, the connection that holds most of whoever holds most closes.
//!
//! A connection that holds little counts nothing here, and one that holds more counts in steps: the
//! budget's lock is nobody's on the way of a small reply.

mod machine;
mod shared;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use base::pool::{Pool, Pools};
use base::shares::Shares;
use base::{ConnInfo, Holder, OrgId, limits};
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use rules::directory::Session;
use tokio_util::sync::CancellationToken;

use super::App;
use super::connections::Home;
use super::holder::stranger;
use crate::logging::PeerLog;

pub use shared::{Part, SharedAccount};

/// For whom a connection holds memory: the principal's own organisation pays, wherever its sessions
/// are.
#[derive(Clone, Debug)]
pub struct Payer {
    org: OrgId,
    holder: Holder,
    /// For the log: the organisation's key, and who it is.
    org_key: Box<str>,
    name: Box<str>,
    peer: SocketAddr,
}

impl Payer {
    /// Somebody who has not logged in.
    pub fn stranger(conn: &ConnInfo) -> Self {
        let (org, holder) = stranger(conn);
        Self { org, holder, org_key: Box::default(), name: Box::default(), peer: conn.remote_addr }
    }
}

impl App {
    /// An account of a connection on which this session is.
    pub fn open_account(&self, session: &Session, conn: &ConnInfo) -> Account {
        let who = session.who();
        self.memory.open(self.payer(Self::home_of(who), who.name(), conn))
    }

    pub(super) fn payer(&self, (org, principal): Home, name: &str, conn: &ConnInfo) -> Payer {
        let key = self.records.org(org).map(|org| org.key.as_str().into());
        Payer {
            org,
            holder: Holder::Principal(principal),
            org_key: key.unwrap_or_default(),
            name: name.into(),
            peer: conn.remote_addr,
        }
    }
}

/// The budget.
pub struct Memory {
    /// What may be held; 0 is no limit.
    max: u64,
    pools: Arc<Pools>,
    /// Whether more is held than may be, until those have gone that are closing.
    short: AtomicBool,
    state: Mutex<State>,
}

struct State {
    shares: Shares<Holder>,
    /// The accounts of each, by what they hold.
    of: HashMap<(OrgId, Holder), BTreeSet<(u64, u64)>>,
    accounts: HashMap<u64, Arc<Connection>>,
    next: u64,
    /// What is held still by connections that are closing.
    leaving: u64,
}

/// The connection of an account.
struct Connection {
    payer: Payer,
    /// Whether it has to close.
    over: AtomicBool,
    close: Close,
}

/// How a connection is told to close.
enum Close {
    /// Its task is woken, and sees it.
    Task(AtomicWaker),
    Token(CancellationToken),
}

impl Connection {
    fn wake(&self) {
        match &self.close {
            Close::Task(waker) => waker.wake(),
            Close::Token(token) if self.over.load(Ordering::Acquire) => token.cancel(),
            Close::Token(_) => {}
        }
    }
}

/// A connection that closes, and what it held.
type Closing = (Arc<Connection>, u64);

impl Memory {
    /// A budget of so many bytes; none: a part of what the machine has. 0 is no limit.
    pub fn new(bytes: Option<u64>, pools: &Arc<Pools>) -> Arc<Self> {
        let max = bytes.unwrap_or_else(|| machine::memory() / limits::MEMORY_PART);
        if bytes.is_none() {
            tracing::info!(bytes = max, "memory that clients may have the server use");
        }
        pools.set_memory_bytes(max);
        let shares = Shares::new(Pool::Memory, max, pools);
        let state =
            State { shares, of: HashMap::new(), accounts: HashMap::new(), next: 0, leaving: 0 };
        let (pools, short) = (pools.clone(), AtomicBool::new(false));
        Arc::new(Self { max, pools, short, state: Mutex::new(state) })
    }

    /// What connections may hold: what no pool has taken, nor connections on which nothing waits.
    fn left(&self) -> u64 {
        let connections = self.pools.usage(Pool::Connections).used() * limits::CONNECTION_BYTES;
        let taken = self.pools.memory_taken().saturating_add(connections);
        // However many there are, those that hold something may have this.
        self.max.saturating_sub(taken).max(self.max / 8 * 3)
    }

    /// Looks whether what others have taken, or given back, leaves connections less, or more.
    pub fn look(&self) {
        self.make_room(self.state.lock());
    }

    /// An account of a connection, which closes when its task is woken and finds it over.
    pub fn open(self: &Arc<Self>, payer: Payer) -> Account {
        self.open_for(payer, Close::Task(AtomicWaker::new()))
    }

    fn open_for(self: &Arc<Self>, payer: Payer, close: Close) -> Account {
        let connection = Arc::new(Connection { payer, over: AtomicBool::new(false), close });
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.accounts.insert(number, connection.clone());
        drop(state);
        Account { memory: self.clone(), connection, number, bytes: 0 }
    }

    /// Whether more is held than may be: who holds something waits with more.
    fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Notes that an account holds `now` instead of `before`, and closes others, or this one, if
    /// that is too much.
    fn change(&self, number: u64, connection: &Arc<Connection>, before: u64, now: u64) {
        let mut state = self.state.lock();
        if connection.over.load(Ordering::Acquire) {
            state.leaving = state.leaving + now - before;
        } else {
            state.set(number, &connection.payer, before, now);
        }
        self.make_room(state);
    }

    /// Closes as many connections as hold too much.
    fn make_room(&self, mut state: MutexGuard<'_, State>) {
        let mut closing = Vec::new();
        if self.max > 0 {
            let left = self.left();
            while state.shares.held() > left - left / 8 {
                let Some(gone) = state.close_greediest() else { break };
                closing.push(gone);
            }
            let short = state.shares.held() + state.leaving > left;
            if self.short.swap(short, Ordering::Relaxed) && !short {
                state.accounts.values().for_each(|connection| connection.wake());
            }
        }
        drop(state);
        for (connection, bytes) in closing {
            connection.wake();
            log(&connection.payer, bytes);
        }
    }
}

fn log(payer: &Payer, bytes: u64) {
    static LOG: PeerLog = PeerLog::new(20);
    if let Some(suppressed) = LOG.admit() {
        let Payer { org_key, name, peer, .. } = payer;
        tracing::warn!(
            org = %org_key,
            who = %name,
            %peer,
            bytes,
            suppressed,
            "a connection closes that holds most of limits.memory_bytes, to make room"
        );
    }
}

impl State {
    fn set(&mut self, number: u64, payer: &Payer, before: u64, now: u64) {
        let key = (payer.org, payer.holder);
        let accounts = self.of.entry(key).or_default();
        accounts.remove(&(before, number));
        if now > 0 {
            accounts.insert((now, number));
        } else if accounts.is_empty() {
            self.of.remove(&key);
        }
        match now.checked_sub(before) {
            Some(more) => self.shares.hold(payer.org, payer.holder, more),
            None => self.shares.give_back(payer.org, payer.holder, before - now),
        }
    }

    /// Has the largest connection of who holds most close.
    fn close_greediest(&mut self) -> Option<Closing> {
        let key = self.shares.most()?;
        let accounts = self.of.get_mut(&key)?;
        let (bytes, number) = accounts.pop_last()?;
        if accounts.is_empty() {
            self.of.remove(&key);
        }
        self.shares.evict(key.0, key.1, bytes);
        self.leaving += bytes;
        let connection = self.accounts.get(&number)?.clone();
        connection.over.store(true, Ordering::Release);
        Some((connection, bytes))
    }
}

/// What one connection holds; given back when this is dropped.
pub struct Account {
    memory: Arc<Memory>,
    connection: Arc<Connection>,
    number: u64,
    /// As it counts in the budget.
    bytes: u64,
}

impl Account {
    /// Whether an account of so many bytes is worth a change: what is held changes with every byte.
    pub fn is_worth(account: Option<&Self>, held: usize) -> bool {
        let counted = account.map_or(0, |account| account.bytes as usize);
        held.abs_diff(counted) >= limits::MEMORY_STEP_BYTES + counted / 16
            || (held == 0 && counted > 0)
    }

    /// Holds so many bytes in all.
    pub fn set(&mut self, held: usize) {
        let before = std::mem::replace(&mut self.bytes, held as u64);
        self.memory.change(self.number, &self.connection, before, self.bytes);
    }

    /// Has the task woken when the connection has to close, or may go on.
    pub fn set_waker(&self, waker: &Waker) {
        if let Close::Task(of_task) = &self.connection.close {
            of_task.register(waker);
        }
    }

    /// Whether the connection has to close.
    pub fn is_over(&self) -> bool {
        self.connection.over.load(Ordering::Acquire)
    }

    /// Whether the connection has to wait with more, until others have closed.
    pub fn waits(&self) -> bool {
        self.memory.is_short()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
        self.memory.state.lock().accounts.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1024 * 1024;

    fn payer(org: u8, who: u8) -> Payer {
        use rules::directory::PrincipalId;
        let holder = Holder::Principal(PrincipalId::User(base::UserId::from_bytes([who; 12])));
        let peer = "192.0.2.1:5".parse().expect("an address");
        let org = OrgId::from_bytes([org; 12]);
        Payer { org, holder, org_key: Box::default(), name: Box::default(), peer }
    }

    fn memory(bytes: usize) -> (Arc<Memory>, Arc<Pools>) {
        let pools = Arc::default();
        (Memory::new(Some(bytes as u64), &pools), pools)
    }

    fn open(memory: &Arc<Memory>, (org, who): (u8, u8), bytes: usize) -> Account {
        let mut account = memory.open(payer(org, who));
        account.set(bytes);
        account
    }

    #[test]
    fn the_largest_connection_of_who_holds_most_closes() {
        let (memory, pools) = memory(64 * MEBIBYTE);
        let used = || pools.usage(Pool::Memory).used() as usize;
        let other = open(&memory, (2, 1), 20 * MEBIBYTE);
        let small: Vec<_> = (0..4).map(|_| open(&memory, (1, 1), 3 * MEBIBYTE)).collect();
        let neighbour = open(&memory, (1, 2), 9 * MEBIBYTE);
        assert_eq!(used(), 41 * MEBIBYTE);
        let mut large = open(&memory, (1, 1), 10 * MEBIBYTE);
        assert!(!large.is_over());
        large.set(16 * MEBIBYTE);
        assert!(large.is_over(), "its organisation holds 37 of 57, and its principal 28 of them");
        assert!(![&other, &neighbour].into_iter().chain(&small).any(Account::is_over));
        assert_eq!(used(), 41 * MEBIBYTE);
        // It grows while it closes, and all others wait.
        assert!(!other.waits());
        large.set(24 * MEBIBYTE);
        assert!(other.waits());
        drop(large);
        assert!(!other.waits());
        drop((other, small, neighbour));
        let state = memory.state.lock();
        assert_eq!((state.shares.held(), state.leaving, used()), (0, 0, 0));
        assert!(state.of.is_empty() && state.accounts.is_empty());
    }

    #[test]
    fn as_many_close_as_are_needed() {
        let (memory, pools) = memory(8 * MEBIBYTE);
        let accounts: Vec<_> = (0..60).map(|who| open(&memory, (1, who), MEBIBYTE)).collect();
        assert_eq!(accounts.iter().filter(|account| !account.is_over()).count(), 7);
        assert_eq!(pools.usage(Pool::Memory).evicted(), 53);
        let one = open(&memory, (2, 1), MEBIBYTE);
        assert!(!one.is_over() && accounts.iter().filter(|one| !one.is_over()).count() == 6);
    }

    #[test]
    fn what_is_kept_leaves_connections_less() {
        let (memory, pools) = memory(64 * MEBIBYTE);
        let mut mails = Shares::new(Pool::MailBytes, u64::MAX, &pools);
        let Payer { org, holder, .. } = payer(2, 1);
        let first = open(&memory, (1, 1), 30 * MEBIBYTE);
        let mut second = open(&memory, (2, 1), 2 * MEBIBYTE);
        mails.hold(org, holder, 20 * MEBIBYTE as u64);
        second.set(3 * MEBIBYTE);
        assert!(!first.is_over() && !second.is_over());
        // Nobody adds anything, and somebody gives back.
        mails.hold(org, holder, 10 * MEBIBYTE as u64);
        second.set(2 * MEBIBYTE);
        assert!(first.is_over() && !second.is_over());
        mails.hold(org, holder, 4 * MEBIBYTE as u64);
        memory.look();
        assert!(second.waits(), "the first has not gone");
        mails.give_back(org, holder, 4 * MEBIBYTE as u64);
        memory.look();
        assert!(!second.waits(), "there is more again");
        drop(first);
        // However much there is, not all of it is others'.
        mails.hold(org, holder, 1000 * MEBIBYTE as u64);
        let accounts: Vec<_> = (10..30).map(|who| open(&memory, (4, who), MEBIBYTE)).collect();
        assert_eq!(accounts.iter().filter(|account| !account.is_over()).count(), 19);
    }

    #[test]
    fn without_a_limit_nothing_closes() {
        let (memory, _) = memory(0);
        let account = open(&memory, (1, 1), usize::MAX / 4);
        assert!(!account.is_over() && !account.waits());
    }

    #[test]
    fn little_and_small_changes_do_not_count() {
        let (memory, _) = memory(MEBIBYTE);
        assert!(!Account::is_worth(None, limits::MEMORY_STEP_BYTES - 1));
        assert!(Account::is_worth(None, limits::MEMORY_STEP_BYTES));
        let account = open(&memory, (1, 1), MEBIBYTE / 2);
        let more = MEBIBYTE / 2 + limits::MEMORY_STEP_BYTES;
        assert!(!Account::is_worth(Some(&account), more));
        assert!(Account::is_worth(Some(&account), more + MEBIBYTE / 32));
        assert!(Account::is_worth(Some(&account), 0));
    }
}
