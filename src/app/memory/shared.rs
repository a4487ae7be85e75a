//! The account of a connection whose parts are held in several places: one over HTTP.

use std::sync::Arc;

use base::limits;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Account, Close, Memory, Payer};

/// An account that many can hold a part of.
#[derive(Clone)]
pub struct SharedAccount(Arc<Inner>);

struct Inner {
    memory: Arc<Memory>,
    /// Closes the connection.
    stop: CancellationToken,
    state: Mutex<State>,
}

struct State {
    payer: Payer,
    held: usize,
    /// None while it holds little.
    account: Option<Account>,
}

/// Bytes that count until the last that holds them drops them.
struct Counted {
    bytes: Bytes,
    account: SharedAccount,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let bytes = self.bytes.len();
        self.account.0.change(|state| state.held -= bytes);
    }
}

/// A part of an account; given back when this is dropped.
pub struct Part {
    account: SharedAccount,
    held: usize,
}

impl Part {
    /// Holds so many bytes in all.
    pub fn set(&mut self, held: usize) {
        let before = std::mem::replace(&mut self.held, held);
        self.account.0.change(|state| state.held = state.held - before + held);
    }

    /// Holds so many at least.
    pub fn raise(&mut self, held: usize) {
        if held > self.held {
            self.set(held);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl SharedAccount {
    /// The account of a connection that `stop` closes.
    pub fn new(memory: &Arc<Memory>, payer: Payer, stop: CancellationToken) -> Self {
        let state = Mutex::new(State { payer, held: 0, account: None });
        Self(Arc::new(Inner { memory: memory.clone(), stop, state }))
    }

    /// A part of it, of which nothing is held yet.
    pub fn part(&self) -> Part {
        Part { account: self.clone(), held: 0 }
    }

    /// Somebody else pays from now on.
    pub fn set_payer(&self, payer: Payer) {
        self.0.change(|state| {
            if state.payer.holder != payer.holder || state.payer.org != payer.org {
                state.account = None;
            }
            state.payer = payer;
        });
    }

    /// Has bytes count for as long as somebody holds them, unless they are few.
    pub fn count(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < limits::MEMORY_STEP_BYTES {
            return bytes;
        }
        self.0.change(|state| state.held += bytes.len());
        Bytes::from_owner(Counted { bytes, account: self.clone() })
    }
}

impl Inner {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let State { payer, held, account } = &mut *state;
        if *held == 0 {
            *account = None;
        } else if Account::is_worth(account.as_ref(), *held) {
            let open = || self.memory.open_for(payer.clone(), Close::Token(self.stop.clone()));
            account.get_or_insert_with(open).set(*held);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::pool::{Pool, Pools};
    use base::{ConnInfo, Protocol};

    use super::*;

    #[test]
    fn bytes_count_until_nobody_holds_them() {
        let pools = Arc::<Pools>::default();
        let memory = Memory::new(Some(1 << 20), &pools);
        let peer = "192.0.2.1:5".parse().expect("an address");
        let payer = Payer::stranger(&ConnInfo::new(Protocol::Http, peer));
        let stop = CancellationToken::new();
        let account = SharedAccount::new(&memory, payer.clone(), stop.clone());
        let used = || pools.usage(Pool::Memory).used();
        let few = account.count(Bytes::from_static(b"few"));
        let many = account.count(vec![0; 100_000].into());
        assert_eq!((used(), few.len(), many.len()), (100_000, 3, 100_000));
        let part = many.slice(..10);
        drop(many);
        assert_eq!(used(), 100_000);
        let other = Payer { name: "other".into(), ..payer };
        account.set_payer(other);
        assert_eq!(used(), 100_000);
        drop(part);
        assert_eq!(used(), 0);
        let most = account.count(vec![0; 1 << 20].into());
        assert!(stop.is_cancelled());
        drop((most, account));
        assert_eq!(memory.state.lock().accounts.len(), 0);
    }
}
