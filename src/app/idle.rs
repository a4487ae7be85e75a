//! The idle time of sessions, which an administrator can change while the server runs.
//!
//! What was set is stored, and wins over `sessions.ttl_s` of the configuration from then on; only
//! `sessions.max_age_s` bounds it.

use base::Timestamp;
use serde_json::Map;
use store::{Batch, Store, StoreError, Table};

use super::App;
use crate::app::Deed;
use crate::events::{SERVER, Target};

/// Where it is in [`Table::Meta`]: seconds as a decimal number, 0 for never.
const KEY: &[u8] = b"sessions_ttl_s";

impl App {
    /// Sets the idle time of sessions that start from now on, in seconds, 0 for never. When it
    /// returns, that survives a crash of the server.
    ///
    /// # Errors
    ///
    /// The store failed. What can't be submitted does not hold.
    pub async fn set_ttl_s(
        &self,
        ttl_s: u64,
        deed: &Deed,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let now = self.clock.shown(now);
        let mut batch = Batch::default();
        batch.put(Table::Meta, KEY, ttl_s.to_string());
        let name = "sessions.ttl_s".to_owned();
        let target = Target { kind: "server", id: String::new(), name: name.clone() };
        let value = |ttl_s: u64| Map::from_iter([(name.clone(), ttl_s.into())]);
        let receipt = {
            let _turn = self.tables.exclusive(KEY);
            let changed = (value(self.sessions.ttl_s()), value(ttl_s));
            let numbered = self.add_event(&mut batch, self.act(deed, SERVER, target, changed, now));
            let receipt = numbered.settle(self.tables.submit(batch))?;
            self.sessions.set_ttl_s(ttl_s);
            receipt
        };
        receipt.await
    }
}

/// The idle time that was set, if one was. It is never longer than what the configuration says now
/// about the age of sessions.
pub(super) fn stored_ttl_s(store: &dyn Store, max_age_s: u64) -> Result<Option<u64>, StoreError> {
    let Some(row) = store.read(Table::Meta, KEY)? else { return Ok(None) };
    let ttl_s: u64 = serde_json::from_slice(&row).map_err(|source| StoreError::Record {
        table: Table::Meta.name(),
        key: String::from_utf8_lossy(KEY).into_owned(),
        source,
    })?;
    if ttl_s > max_age_s {
        tracing::warn!(ttl_s, max_age_s, "the idle time that was set is longer than sessions live");
    }
    Ok(Some(ttl_s.min(max_age_s)))
}
