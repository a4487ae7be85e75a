//! The points of a series, in the order of their times.

use std::cmp::Ordering;
use std::ops::Bound;

use base::{Timestamp, limits};
use store::{Month, Row, StoreError, Table, Tables};

use super::partition::{OUTLIERS, overlaps};
use super::point::{self, Kind, Point};
use super::series::{POINT_KEY_BYTES, Series, point_key, point_time};
use super::{Damaged, Telemetry};

/// A span of time and the order in which its points are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first time in it.
    pub from: Timestamp,
    /// The last time in it.
    pub to: Timestamp,
    /// Whether the newest points come first.
    pub backwards: bool,
}

impl Telemetry {
    /// The committed points of a series in a span, read in pages of at most `page` rows as they
    /// are asked for.
    pub fn points(&self, series: &Series, span: Span, page: usize) -> Points<'_> {
        let near = |month: &Month| overlaps(*month, span.from, span.to);
        let mut months: Vec<_> = self.months().into_iter().filter(near).collect();
        // Taken from the end.
        if !span.backwards {
            months.reverse();
        }
        let cursor = |partitions| Cursor {
            tables: &self.tables,
            partitions,
            from: point_key(series.number, span.from, 0),
            to: point_key(series.number, span.to, u32::MAX),
            backwards: span.backwards,
            page: page.clamp(1, limits::POINTS_PAGE),
            rows: Vec::new().into_iter(),
            after: None,
        };
        let has_outliers = self.tables.months().contains(&OUTLIERS);
        let outliers = if has_outliers { vec![OUTLIERS] } else { Vec::new() };
        Points {
            kind: series.kind,
            near: Merged { cursor: cursor(months), head: None },
            far: Merged { cursor: cursor(outliers), head: None },
        }
    }

    /// The point that a series had at this time: its last one then or before.
    pub fn point_at(&self, series: &Series, at: Timestamp) -> Result<Option<Row>, StoreError> {
        let span = Span { from: Timestamp::from_millis(i64::MIN), to: at, backwards: true };
        self.points(series, span, 1).next().transpose()
    }
}

/// The points of a series, one after the other; those that are far away in time are merged in.
pub struct Points<'t> {
    kind: Kind,
    near: Merged<'t>,
    far: Merged<'t>,
}

impl Points<'_> {
    /// Reads a row that this returned.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn decode(kind: Kind, row: &Row) -> Result<Point<'_>, StoreError> {
        let (key, value) = row;
        let point = point::decode(kind, value).zip(point_time(key));
        let ((value, corr_id), ts) = point.ok_or_else(|| Damaged::error(number_of(key)))?;
        Ok(Point { ts, value, corr_id })
    }

    /// The kind of the series.
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

impl Iterator for Points<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.near.fill().and_then(|()| self.far.fill()) {
            return Some(Err(error));
        }
        let order = match (&self.near.head, &self.far.head) {
            (Some((near, _)), Some((far, _))) => near.cmp(far),
            (_, None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let both = self.near.head.is_some() && self.far.head.is_some();
        let near_first = (order == Ordering::Less) != (both && self.near.cursor.backwards);
        let first = if near_first { &mut self.near } else { &mut self.far };
        first.head.take().map(Ok)
    }
}

/// A cursor and its next row.
struct Merged<'t> {
    cursor: Cursor<'t>,
    head: Option<Row>,
}

impl Merged<'_> {
    fn fill(&mut self) -> Result<(), StoreError> {
        if self.head.is_none() {
            self.head = self.cursor.next()?;
        }
        Ok(())
    }
}

/// Goes through partitions of which each is behind the one before.
struct Cursor<'t> {
    tables: &'t Tables,
    partitions: Vec<Month>,
    from: [u8; POINT_KEY_BYTES],
    to: [u8; POINT_KEY_BYTES],
    backwards: bool,
    page: usize,
    rows: std::vec::IntoIter<Row>,
    /// The last row of the last page, if there can be more behind it in its partition.
    after: Option<Vec<u8>>,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<Option<Row>, StoreError> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let Some(partition) = self.partitions.last() else { return Ok(None) };
            let table = Table::Telemetry(*partition);
            let (mut from, mut to) =
                (Bound::Included(&self.from[..]), Bound::Included(&self.to[..]));
            let rows = if self.backwards {
                if let Some(after) = &self.after {
                    to = Bound::Excluded(after);
                }
                self.tables.scan_back(table, from, to, self.page)?
            } else {
                if let Some(after) = &self.after {
                    from = Bound::Excluded(after);
                }
                self.tables.scan(table, from, to, self.page)?
            };
            self.after = match rows.last() {
                Some((key, _)) if rows.len() == self.page => Some(key.clone()),
                _ => None,
            };
            if self.after.is_none() {
                self.partitions.pop();
            }
            self.rows = rows.into_iter();
        }
    }
}

fn number_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}
