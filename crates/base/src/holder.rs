//! For whom something is done or held: a principal, or, before a login, a network.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::pin;

use serde::{Deserialize, Serialize};

use crate::{ApplicationId, OrgId, UserId};

/// The organisation of those who have not logged in: a tenant beside the others.
pub const STRANGERS: OrgId = OrgId::from_bytes([0; 12]);

/// A principal: a user, or an application with its token, for whatever things it speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalId {
    /// A user.
    User(UserId),
    /// An application.
    Application(ApplicationId),
}

/// Who it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holder {
    /// Somebody who has logged in.
    Principal(PrincipalId),
    /// Those of this network who have not.
    Network(IpAddr),
}

/// Who wants to work, and in which organisation.
pub type Asker = (OrgId, Holder);

thread_local! {
    /// For whom this thread works now; none if that is the server itself.
    static ASKER: Cell<Option<Asker>> = const { Cell::new(None) };
}

/// For whom this thread works now; none if that is the server itself.
pub fn current_asker() -> Option<Asker> {
    ASKER.get()
}

/// Does work for somebody: what it holds on its way is of that one's share.
pub fn working_for<T>(asker: Option<Asker>, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Asker>);
    impl Drop for Before {
        fn drop(&mut self) {
            ASKER.set(self.0);
        }
    }
    let _before = Before(ASKER.replace(asker));
    work()
}

/// The same work, whoever polls it, for whom this thread works now.
pub fn carried_on<F: Future>(work: F) -> impl Future<Output = F::Output> {
    done_for(current_asker(), work)
}

/// Work for somebody, whoever polls it.
pub async fn done_for<F: Future>(asker: Option<Asker>, work: F) -> F::Output {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| working_for(asker, || work.as_mut().poll(cx))).await
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn work_is_for_somebody_until_it_ends() {
        let asker = |id| (STRANGERS, Holder::Network(IpAddr::from([id; 4])));
        let (one, other) = (Some(asker(1)), Some(asker(2)));
        let task = working_for(one, || {
            working_for(other, || assert_eq!(current_asker(), other));
            assert!(catch_unwind(|| working_for(None, || panic!("on purpose"))).is_err());
            assert_eq!(current_asker(), one);
            carried_on(async { current_asker() })
        });
        assert_eq!(current_asker(), None);
        let polled = pin!(task).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(one));
        assert_eq!(current_asker(), None);
    }
}
