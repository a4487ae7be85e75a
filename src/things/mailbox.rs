//! Messages to things, and their way there and back (`tr50.md` 4.2).

use crate::store::Tables;

/// The mailboxes of all things.
pub struct Mailbox {
    _tables: Tables,
}

impl Mailbox {
    /// The mailboxes in these tables.
    pub const fn new(tables: Tables) -> Self {
        Self { _tables: tables }
    }
}
