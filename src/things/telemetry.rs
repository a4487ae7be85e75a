//! Properties, alarms, attributes, locations and logs of things, over time.

use crate::store::Tables;

/// The telemetry of all things.
pub struct Telemetry {
    _tables: Tables,
}

impl Telemetry {
    /// The telemetry in these tables.
    pub const fn new(tables: Tables) -> Self {
        Self { _tables: tables }
    }
}
