//! For whom something is done or held: a principal, or, before a login, a network.

use std::net::IpAddr;

use base::{ConnInfo, OrgId};
use rules::directory::{PrincipalId, Session};

/// The organisation of those who have not logged in: a tenant beside the others.
pub(super) const STRANGERS: OrgId = OrgId::from_bytes([0; 12]);

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

/// The asker with this session.
pub fn asker(session: &Session) -> Asker {
    (session.org_id(), Holder::Principal(session.who().principal_id()))
}

/// Those who have not logged in, of the network of this connection.
pub fn stranger(conn: &ConnInfo) -> Asker {
    (STRANGERS, Holder::Network(conn.network()))
}
