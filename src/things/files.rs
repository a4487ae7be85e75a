//! Files of things and organisations (`tr50.md` 4.3).

use crate::store::Tables;

/// The files of all things.
pub struct Files {
    _tables: Tables,
}

impl Files {
    /// The files in these tables.
    pub const fn new(tables: Tables) -> Self {
        Self { _tables: tables }
    }
}
