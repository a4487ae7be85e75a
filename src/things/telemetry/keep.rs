//! Retention: months that are too old are dropped, and what deleted things have left is removed bit
//! by bit.

use base::{Timestamp, limits};
use store::{Batch, Receipt, StoreError, Table};

use super::head::Head;
use super::partition::OUTLIERS;
use super::series::{Owner, POINT_KEY_BYTES, Series, kind_and_name};
use super::{Difference, Telemetry, head};

/// The beginning of the keys, in [`Table::Meta`], that name owners whose telemetry is to go.
const FORGOTTEN: &[u8] = b"forgotten/";

impl Telemetry {
    /// Adds to the batch that all telemetry of an owner goes. With the batch the owner itself is
    /// gone and nobody can name it; its series and points are removed by [`Telemetry::sweep`], in
    /// steps, also after a restart. What a connection of a thing still publishes in that moment
    /// goes with it.
    pub fn forget(&self, batch: &mut Batch, owner: Owner) {
        batch.put(Table::Meta, forgotten_key(owner), "");
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
            self.tables.store().drop_month(Table::Telemetry(month))?;
            self.bytes.drop_month(month);
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Removes some of what is to go: at most [`limits::SWEEP_POINTS`] points. None when there is
    /// nothing.
    pub fn sweep(&self) -> Result<Option<Receipt>, StoreError> {
        let marks = self.tables.scan_prefix(Table::Meta, FORGOTTEN, None, 1)?;
        let Some((mark, _)) = marks.into_iter().next() else { return Ok(None) };
        let owner = &mark.get(FORGOTTEN.len()..).unwrap_or_default().to_vec();
        let head = head::row_key(owner);
        let (mut batch, mut gone_bytes) = (Batch::default(), Difference::default());
        let (step, after) = (limits::SWEEP_SERIES, Some(&head[..]));
        let rows = self.tables.scan_prefix(Table::Series, owner, after, step)?;
        let mut gone = Vec::new();
        for (key, row) in rows {
            let series = kind_and_name(&key).and_then(|(kind, _)| Series::from_row(kind, &row));
            if let Some(series) = series
                && !self.sweep_series(&series, &mut batch, &mut gone_bytes)?
            {
                break;
            }
            gone.push(key);
        }
        // What is published meanwhile comes before or behind it as a whole.
        let _order = self.tables.exclusive(owner);
        self.sweep_rows(owner, gone, (batch, gone_bytes), mark).map(Some)
    }

    /// Removes these series, beside points of them, and gives back their room; when there are none
    /// left, also the head and the mark.
    fn sweep_rows(
        &self,
        owner: &[u8],
        gone: Vec<Vec<u8>>,
        (mut batch, mut gone_bytes): (Batch, Difference),
        mark: Vec<u8>,
    ) -> Result<Receipt, StoreError> {
        let key = head::row_key(owner);
        let head = self.tables.read(Table::Series, &key)?.and_then(|row| Head::from_row(&row));
        let mut count = 0;
        for series in gone {
            if let Some(row) = self.tables.read(Table::Series, &series)? {
                count += 1;
                gone_bytes.note(series.len() + row.len(), 0);
            }
            batch.delete(Table::Series, series);
        }
        let Some(head) = head else {
            if batch.0.is_empty() {
                batch.delete(Table::Meta, mark);
            }
            return self.tables.submit(batch);
        };
        if batch.0.is_empty() {
            batch.delete(Table::Series, key);
        }
        let receipt = match count {
            0 => self.tables.submit(batch),
            count => self.tally.remove(head.payer, count, &self.tables, batch),
        }?;
        self.bytes.note(head.payer, &gone_bytes);
        Ok(receipt)
    }

    /// Adds the removal of a series' points. False when there are more than there is room for.
    fn sweep_series(
        &self,
        series: &Series,
        batch: &mut Batch,
        gone_bytes: &mut Difference,
    ) -> Result<bool, StoreError> {
        for month in self.months().into_iter().chain([OUTLIERS]) {
            let table = Table::Telemetry(month);
            let room = limits::SWEEP_POINTS.saturating_sub(batch.0.len());
            let prefix = series.number.to_be_bytes();
            let points = self.tables.scan_prefix(table, &prefix, None, room)?;
            let full = points.len() == room;
            for (key, value) in points {
                debug_assert_eq!(key.len(), POINT_KEY_BYTES, "a key of telemetry");
                gone_bytes.remove_point(month, key.len() + value.len());
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
