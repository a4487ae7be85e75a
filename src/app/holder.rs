//! Who asks with a session, or without one.

use base::{Asker, ConnInfo, Holder, STRANGERS};
use rules::directory::Session;

/// The asker with this session.
pub fn asker(session: &Session) -> Asker {
    (session.org_id(), Holder::Principal(session.who().principal_id()))
}

/// Those who have not logged in, of the network of this connection.
pub fn stranger(conn: &ConnInfo) -> Asker {
    (STRANGERS, Holder::Network(conn.network()))
}
