//! Who asks with a session, or without one.

use base::{Asker, ConnInfo, Holder, STRANGERS};
use rules::directory::Session;

use super::connections::Home;

/// A principal in its own organisation.
pub(super) const fn at_home((org, principal): Home) -> Asker {
    (org, Holder::Principal(principal))
}

/// The asker with this session.
pub fn asker(session: &Session) -> Asker {
    (session.org_id(), Holder::Principal(session.who().principal_id()))
}

/// Those who have not logged in, of the network of this connection.
pub fn stranger(conn: &ConnInfo) -> Asker {
    (STRANGERS, Holder::Network(conn.network()))
}
