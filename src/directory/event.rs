//! What happens to sessions. Journal, history, connections, metrics and live views all follow
//! these events; there is no other way to learn of a change.

use std::sync::Arc;

use super::session::{OrgSwitch, Reason, Session};

/// A change of the directory.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session started.
    Started(Arc<Session>),
    /// A session went to another organisation.
    Switched(Arc<Session>, OrgSwitch),
    /// The rights of a session changed where it is.
    RightsChanged(Arc<Session>),
    /// A session ended.
    Ended(Arc<Session>, Reason),
    /// A session was revoked that had ended already, maybe in the same way.
    Revoked(Arc<Session>),
}
