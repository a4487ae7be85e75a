//! Points that are taken once: a client that does not know whether its point has arrived sends it
//! again, with the same time and the same `corrId`.
//!
//! Such a point has its place in the series by that word, and not by its arrival, so that the second is
//! found there by one read, also after a restart and before the first is committed
//! (`docs/decisions/0017-points-once.md`). A point without a time of its own or without a word costs
//! nothing more.

use std::collections::HashMap;

use base::Timestamp;
use sha2::{Digest, Sha256};
use store::{Batch, Month, StoreError, Table, Tables};

use super::partition;
use super::point::{self, Kind, Value};
use super::series::{POINT_KEY_BYTES, point_key};
use super::{NewPoint, kind_of};

/// The highest bit of the last part of a key, which says that it comes from a word. Counted arrivals do
/// not have it.
const BY_WORD: u32 = 0x8000_0000;

/// Places that are looked at for one word, should others have the same number.
const PROBES_MAX: u32 = 8;

/// For how long a point is certain to be found, whatever its time: 24 hours.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

type Key = [u8; POINT_KEY_BYTES];

/// Where a point belongs.
pub(super) enum Place {
    /// At its turn.
    Arrival,
    /// Under this key.
    Word(Key),
    /// It is there.
    Taken,
}

/// The last part of the key of a point that arrives at its turn.
pub(super) const fn arrival(count: u32) -> u32 {
    count & !BY_WORD
}

/// The points of one batch.
#[derive(Default)]
pub(super) struct Once {
    /// Where in the batch those are that have their place by a word.
    placed: HashMap<Key, usize>,
}

impl Once {
    /// Where a point of the series with this number belongs.
    pub(super) fn place(
        &mut self,
        tables: &Tables,
        batch: &Batch,
        number: u64,
        point: &NewPoint,
        now: Timestamp,
    ) -> Result<Place, StoreError> {
        let (Some(ts), Some(word)) = (point.ts, point.corr_id.as_deref()) else {
            return Ok(Place::Arrival);
        };
        if word.is_empty() {
            return Ok(Place::Arrival);
        }
        // A month that begins meanwhile can change what is far away.
        let (month, earlier) =
            (partition::of(ts, now), partition::of(ts, now.plus_millis(-DAY_MS)));
        let months = [Some(month), Some(earlier).filter(|earlier| *earlier != month)];
        let first = hash(word, &point.value);
        let mut free = None;
        for probe in 0..PROBES_MAX {
            let key = point_key(number, ts, first.wrapping_add(probe) | BY_WORD);
            let mut is_free = true;
            for month in months.into_iter().flatten() {
                let Some(row) = self.row(tables, batch, month, &key)? else { continue };
                if is_same(&row, word, &point.value) {
                    return Ok(Place::Taken);
                }
                is_free = false;
            }
            if is_free {
                free = Some(key);
                break;
            }
        }
        let Some(key) = free else { return Ok(Place::Arrival) };
        self.placed.insert(key, batch.0.len());
        Ok(Place::Word(key))
    }

    fn row(
        &self,
        tables: &Tables,
        batch: &Batch,
        month: Month,
        key: &Key,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.placed.get(key) {
            Some(at) => Ok(batch.value_at(*at).map(<[u8]>::to_vec)),
            None => tables.read(Table::Telemetry(month), key),
        }
    }
}

/// Whether a row is of this word. Entries of a log have no names: there several may be of one word and
/// one moment, and say different things.
fn is_same(row: &[u8], word: &str, value: &Value<'_>) -> bool {
    let Some((stored, stored_word)) = point::decode(kind_of(value), row) else { return false };
    stored_word.as_deref() == Some(word) && (kind_of(value) != Kind::Log || stored == *value)
}

/// A number of a word that is the same after every start and with every version.
fn hash(word: &str, value: &Value<'_>) -> u32 {
    let mut sha = Sha256::new_with_prefix(word);
    if let Value::Log(_) = value {
        sha.update(point::encode(value, None));
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(sha.finalize());
    u32::from_be_bytes([a, b, c, d])
}
