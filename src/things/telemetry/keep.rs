//! Retention: months that are too old are dropped, and what deleted things have left is removed bit
//! by bit.

use base::{ThingId, Timestamp, limits};
use store::{Batch, Receipt, StoreError, Table};

use super::Telemetry;
use super::partition::OUTLIERS;
use super::series::{Owner, POINT_KEY_BYTES, Series, kind_and_name};

/// The beginning of the keys, in [`Table::Meta`], that name owners whose telemetry is to go.
const FORGOTTEN: &[u8] = b"forgotten/";

impl Telemetry {
    /// Adds to the batch that all telemetry of a thing goes. With the batch the thing itself is
    /// gone and nobody can name it; its series and points are removed by [`Telemetry::sweep`], in
    /// steps, also after a restart. What a connection of the thing still publishes in that moment
    /// goes with it.
    pub fn forget(&self, batch: &mut Batch, thing: ThingId) {
        batch.put(Table::Meta, forgotten_key(thing.into()), "");
    }

    /// Drops the months that are older than telemetry is kept. Returns how many.
    ///
    /// Points in the partition of those that are far away stay.
    pub fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        if self.retention_months == 0 {
            return Ok(0);
        }
        let oldest = now.month() - i64::from(self.retention_months);
        let mut dropped = 0;
        for month in self.months().into_iter().filter(|month| i64::from(month.0) < oldest) {
            self.tables.store().drop_month(month)?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Removes some of what is to go: at most [`limits::SWEEP_POINTS`] points. None when there is
    /// nothing.
    pub fn sweep(&self) -> Result<Option<Receipt>, StoreError> {
        let marks = self.tables.scan_prefix(Table::Meta, FORGOTTEN, None, 1)?;
        let Some((mark, _)) = marks.into_iter().next() else { return Ok(None) };
        let owner = mark.get(FORGOTTEN.len()..).unwrap_or_default();
        let mut batch = Batch::default();
        let rows = self.tables.scan_prefix(Table::Series, owner, None, limits::SWEEP_SERIES)?;
        if rows.is_empty() {
            batch.delete(Table::Meta, mark);
        }
        for (key, row) in rows {
            let series = kind_and_name(&key).and_then(|(kind, _)| Series::from_row(kind, &row));
            if let Some(series) = series
                && !self.sweep_series(&series, &mut batch)?
            {
                break;
            }
            batch.delete(Table::Series, key);
        }
        self.tables.submit(batch).map(Some)
    }

    /// Adds the removal of a series' points. False when there are more than there is room for.
    fn sweep_series(&self, series: &Series, batch: &mut Batch) -> Result<bool, StoreError> {
        for month in self.months().into_iter().chain([OUTLIERS]) {
            let table = Table::Telemetry(month);
            let room = limits::SWEEP_POINTS.saturating_sub(batch.0.len());
            let prefix = series.number.to_be_bytes();
            let points = self.tables.scan_prefix(table, &prefix, None, room)?;
            let full = points.len() == room;
            for (key, _) in points {
                debug_assert_eq!(key.len(), POINT_KEY_BYTES, "a key of telemetry");
                batch.delete(table, key);
            }
            if full {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn forgotten_key(owner: Owner) -> Vec<u8> {
    [FORGOTTEN, owner.as_bytes()].concat()
}
