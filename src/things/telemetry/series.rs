//! Series and their rows: one for each property, alarm and attribute of a thing, one for its
//! location and one for its log, with the newest point in it.

use base::{OrgId, ThingId, Timestamp};
use parking_lot::Mutex;
use store::{Batch, Row, StoreError, Table, Tables};

use super::point::{self, Kind, Point};
use super::{Damaged, partition};

/// Whose series: a thing's, or, for logs that belong to no thing, an organisation's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner([u8; 12]);

impl From<ThingId> for Owner {
    fn from(id: ThingId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<OrgId> for Owner {
    fn from(id: OrgId) -> Self {
        Self(*id.as_bytes())
    }
}

impl Owner {
    /// The 12 bytes with which the keys of all its series begin.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

/// The key of a series' row in [`Table::Series`].
pub(super) fn row_key(owner: Owner, kind: Kind, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(13 + name.len());
    key.extend_from_slice(owner.as_bytes());
    key.push(kind as u8);
    key.extend_from_slice(name.as_bytes());
    key
}

/// Kind and name of a series, from the key of its row.
pub(super) fn kind_and_name(key: &[u8]) -> Option<(Kind, &str)> {
    let (kind, name) = key.get(12..)?.split_first()?;
    Some((Kind::from_byte(*kind)?, std::str::from_utf8(name).ok()?))
}

/// A series: the number with which the keys of its points begin, and the newest of them by time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    /// Its number, never used again.
    pub number: u64,
    /// Its kind.
    pub kind: Kind,
    /// Since when the newest value holds: an alarm's state and an attribute's value may have been
    /// published again.
    pub since: Timestamp,
    /// The time of the newest point.
    pub ts: Timestamp,
    /// The newest point's bytes.
    pub newest: Vec<u8>,
}

impl Series {
    /// Reads a row.
    pub fn from_row(kind: Kind, row: &[u8]) -> Option<Self> {
        let (number, rest) = row.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        let (ts, newest) = rest.split_first_chunk()?;
        let time = |bytes: &[u8; 8]| Timestamp::from_millis(i64::from_be_bytes(*bytes));
        Some(Self {
            number: u64::from_be_bytes(*number),
            kind,
            since: time(since),
            ts: time(ts),
            newest: newest.to_vec(),
        })
    }

    /// The row of a series with this newest point.
    pub fn row(number: u64, since: Timestamp, ts: Timestamp, newest: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(24 + newest.len());
        row.extend_from_slice(&number.to_be_bytes());
        row.extend_from_slice(&since.as_millis().to_be_bytes());
        row.extend_from_slice(&ts.as_millis().to_be_bytes());
        row.extend_from_slice(newest);
        row
    }

    /// The newest point as a row of telemetry; its arrival is not known any more.
    pub fn into_newest_row(self) -> Row {
        (point_key(self.number, self.ts, 0).to_vec(), self.newest)
    }

    /// The newest point.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn newest_point(&self) -> Result<Point<'_>, StoreError> {
        let decoded = point::decode(self.kind, &self.newest);
        let (value, corr_id) = decoded.ok_or_else(|| Damaged::error(self.number))?;
        Ok(Point { ts: self.ts, value, corr_id })
    }
}

/// The length of a point's key.
pub(super) const POINT_KEY_BYTES: usize = 20;

/// The key of a point in [`Table::Telemetry`]: series number, time, arrival. Two points with one
/// time are both kept. With its 20 bytes the engine keeps it in place.
pub(super) fn point_key(number: u64, ts: Timestamp, arrival: u32) -> [u8; POINT_KEY_BYTES] {
    let mut key = [0; POINT_KEY_BYTES];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..16].copy_from_slice(&partition::ordered(ts));
    key[16..].copy_from_slice(&arrival.to_be_bytes());
    key
}

/// The time of a point, from its key.
pub fn point_time(key: &[u8]) -> Option<Timestamp> {
    key.get(8..)?.first_chunk().map(|time| partition::unordered(*time))
}

/// Gives out the numbers of series.
#[derive(Default)]
pub(super) struct Numbers(Mutex<Option<Block>>);

/// Numbers that no other start of the program will use.
struct Block {
    next: u64,
    end: u64,
}

/// The end of the last reserved block, in [`Table::Meta`]: 8 bytes, big-endian.
const NUMBERS_KEY: &[u8] = b"series_numbers";

/// Numbers reserved with one row. What a stop leaves of them is lost, which 64 bits can bear.
const BLOCK: u64 = 1024;

impl Numbers {
    /// A number that no series has. A block of numbers is reserved in a batch of its own, handed
    /// over before any that uses them: batches are committed in the order in which they are handed
    /// over, so that no number can be on disk without its reservation.
    pub(super) fn next(&self, tables: &Tables) -> Result<u64, StoreError> {
        let mut block = self.0.lock();
        if block.as_ref().is_none_or(|block| block.next == block.end) {
            let next = match block.as_ref() {
                Some(block) => block.end,
                None => reserved(tables)?,
            };
            let end = next + BLOCK;
            let mut batch = Batch::default();
            batch.put(Table::Meta, NUMBERS_KEY, end.to_be_bytes());
            drop(tables.submit(batch)?);
            *block = Some(Block { next, end });
        }
        match block.as_mut() {
            Some(block) => {
                block.next += 1;
                Ok(block.next - 1)
            }
            None => Err(StoreError::Closed),
        }
    }
}

fn reserved(tables: &Tables) -> Result<u64, StoreError> {
    match tables.read(Table::Meta, NUMBERS_KEY)? {
        Some(end) => {
            end.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| Damaged::error(0))
        }
        None => Ok(0),
    }
}
