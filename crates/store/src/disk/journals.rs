//! What the engine's journals hold, looked at from outside before the engine reads them.
//!
//! The engine drops what does not read back at the end of a journal without a word: that is how a
//! change ends over which the process was killed. The same happens to whatever stands behind a bit
//! that was flipped, and to what somebody has cut off. So the journals are read once before; what
//! can't come from a kill is damage, and what is shorter than it was is said. How long they were is
//! kept beside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base::Timestamp;
use rustix::fs::{SeekFrom, seek};
use xxhash_rust::xxh3::xxh3_64;

use super::failed;
use crate::{LOG_TARGET, StoreError};

/// What every change of a journal ends with.
const MAGIC: &[u8; 4] = b"FJL\x03";

/// Where the lengths are kept: lines of journal, bytes and time, in one block, written in place so
/// that a full disk has room for it.
const MARKS_FILE: &str = "journal-marks";

const MARKS_BYTES: usize = 4096;

/// Lengths that are kept; the further back, the fewer.
const MARKS_MAX: usize = 64;

/// Bytes looked through at once for the end of what is written.
const CHUNK: usize = 64 * 1024;

/// So many zeros where something should be are something that never got to the disk.
const HOLE_BYTES: usize = 64;

/// How long a journal was, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    journal: u64,
    end: u64,
    at: i64,
}

/// The journals of a store, and how long they were.
pub(super) struct Journals {
    dir: PathBuf,
    marks: Vec<Mark>,
    /// Where what is written ends, as far as it was looked at; and when the file was changed then.
    ends: BTreeMap<u64, (u64, Option<SystemTime>)>,
}

impl Journals {
    /// Reads the journals in a directory, and says in the log what of them is gone.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], and [`StoreError::Engine`] if they can't be read.
    pub(super) fn inspect(dir: &Path) -> Result<Self, StoreError> {
        let unread = |source| failed("read its journals", source);
        let marks = read_marks(dir);
        let (mut ends, mut torn) = (BTreeMap::new(), BTreeMap::new());
        for (journal, path) in list(dir).map_err(unread)? {
            let bytes = read_written(&path).map_err(unread)?;
            let found = parse(&bytes).map_err(|at| StoreError::Damaged {
                what: format!("{} does not read back at byte {at}", path.display()),
            })?;
            ends.insert(journal, (found.end as u64, None));
            torn.insert(journal, found.torn as u64);
        }
        let journals = Self { dir: dir.to_owned(), marks, ends };
        for lost in journals.lost() {
            tracing::error!(
                target: LOG_TARGET,
                bytes = lost.bytes,
                "journal {}.jnl is shorter than it was: what was stored after {} is lost",
                lost.journal,
                lost.since
            );
            torn.remove(&lost.journal);
        }
        for (journal, bytes) in torn.into_iter().filter(|(_, bytes)| *bytes > 0) {
            tracing::warn!(
                target: LOG_TARGET,
                bytes,
                "a change that was not finished is dropped from the end of journal {journal}.jnl"
            );
        }
        Ok(journals)
    }

    /// What there was and is not any more.
    pub(super) fn lost(&self) -> Vec<Lost> {
        let newest = self.ends.last_key_value().map(|(journal, _)| *journal);
        let mut last = BTreeMap::new();
        for mark in &self.marks {
            last.insert(mark.journal, *mark);
        }
        let lost = last.into_values().filter_map(|mark| {
            let left = match self.ends.get(&mark.journal) {
                Some((end, _)) => *end,
                // The engine removes the oldest ones when it has written their changes to tables.
                None if newest.is_some_and(|newest| newest > mark.journal) => return None,
                None => 0,
            };
            let bytes = mark.end.checked_sub(left).filter(|bytes| *bytes > 0)?;
            let of_it = self.marks.iter().filter(|other| other.journal == mark.journal);
            let kept = of_it.clone().rfind(|other| other.end <= left).or(of_it.clone().next());
            let since = Timestamp::from_millis(kept.unwrap_or(&mark).at);
            Some(Lost { journal: mark.journal, bytes, since })
        });
        lost.collect()
    }

    /// Notes how long the journals are now. A failure costs only the words about a later loss.
    pub(super) fn mark(&mut self) {
        let Ok(listed) = list(&self.dir) else { return };
        self.ends.retain(|journal, _| listed.iter().any(|(listed, _)| listed == journal));
        let now = Timestamp::now().as_millis();
        let mut changed = false;
        for (journal, path) in listed {
            let known = self.ends.entry(journal).or_insert((0, None));
            let Ok((end, modified)) = end_of(&path, *known) else { continue };
            let grown = end > known.0 || !self.marks.iter().any(|mark| mark.journal == journal);
            *known = (end, modified);
            if grown {
                self.marks.push(Mark { journal, end, at: now });
                changed = true;
            }
        }
        if changed {
            self.marks.retain(|mark| self.ends.contains_key(&mark.journal));
            thin_out(&mut self.marks);
            let _ = self.write_marks();
        }
    }

    fn write_marks(&self) -> io::Result<()> {
        let mut text = String::new();
        for Mark { journal, end, at } in &self.marks {
            text.push_str(&format!("{journal} {end} {at}\n"));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(MARKS_BYTES, b'\n');
        let path = self.dir.join(MARKS_FILE);
        // Not made anew: whoever deletes the directory would find it there again.
        File::options().write(true).open(path)?.write_all_at(&bytes, 0)
    }

    /// Makes the file of the lengths, if need be.
    pub(super) fn make_file(&self) -> io::Result<()> {
        let path = self.dir.join(MARKS_FILE);
        File::options().append(true).create(true).mode(0o600).open(path).map(drop)
    }
}

/// Leaves out every second one of the older half, but the first and last of each journal.
fn thin_out(marks: &mut Vec<Mark>) {
    if marks.len() <= MARKS_MAX {
        return;
    }
    let is_inner = |index: usize| {
        let journal = |index: usize| marks.get(index).map(|mark| mark.journal);
        index > 0 && journal(index - 1) == journal(index) && journal(index + 1) == journal(index)
    };
    let kept =
        |index: &usize| *index >= MARKS_MAX / 2 || index.is_multiple_of(2) || !is_inner(*index);
    let mut thinned: Vec<_> = (0..marks.len()).filter(kept).map(|index| marks[index]).collect();
    // Of very many journals, the newest.
    let surplus = thinned.len().saturating_sub(MARKS_MAX);
    thinned.drain(..surplus);
    *marks = thinned;
}

/// What is gone of a journal.
#[derive(Debug, PartialEq)]
pub(super) struct Lost {
    journal: u64,
    pub(super) bytes: u64,
    pub(super) since: Timestamp,
}

fn read_marks(dir: &Path) -> Vec<Mark> {
    let text = fs::read_to_string(dir.join(MARKS_FILE)).unwrap_or_default();
    let mark = |line: &str| {
        let mut numbers = line.split(' ');
        let journal = numbers.next()?.parse().ok()?;
        let end = numbers.next()?.parse().ok()?;
        Some(Mark { journal, end, at: numbers.next()?.parse().ok()? })
    };
    text.lines().filter_map(mark).collect()
}

/// The journals in a directory, in order.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What is written of a journal: the engine makes it 64 MB long at once, most of which are no bytes on
/// the disk.
fn read_written(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    if let Ok(mut hole) = seek(&file, SeekFrom::Hole(0)) {
        while let Ok(data) = seek(&file, SeekFrom::Data(hole))
            && let Ok(next) = seek(&file, SeekFrom::Hole(data))
        {
            hole = next;
        }
        end = end.min(hole);
    }
    seek(&file, SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    (&mut file).take(end).read_to_end(&mut bytes)?;
    let zeros = [0; 4096];
    while bytes.ends_with(&zeros) {
        bytes.truncate(bytes.len() - zeros.len());
    }
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(written);
    Ok(bytes)
}

/// Where the changes in a journal end of which `known` was read already. A change that is being
/// written does not count.
fn end_of(path: &Path, known: (u64, Option<SystemTime>)) -> io::Result<(u64, Option<SystemTime>)> {
    let modified = fs::metadata(path)?.modified().ok();
    if modified.is_some() && modified == known.1 {
        return Ok(known);
    }
    let (file, mut chunk) = (File::open(path)?, vec![0; CHUNK]);
    let (mut at, mut end) = (known.0, known.0);
    loop {
        let count = file.read_at(&mut chunk, at)?;
        let read = chunk.get(..count).unwrap_or_default();
        let Some(last) = read.iter().rposition(|byte| *byte != 0) else { break };
        end = at + last as u64 + 1;
        at += count as u64;
    }
    let mut magic = [0; MAGIC.len()];
    let whole = end == known.0
        || (file.read_exact_at(&mut magic, end - MAGIC.len() as u64).is_ok() && magic == *MAGIC);
    if whole { Ok((end, modified)) } else { Ok(known) }
}

/// What was found in a journal.
#[derive(Debug, PartialEq)]
struct Found {
    /// Where the last whole change ends.
    end: usize,
    /// Bytes behind that.
    torn: usize,
}

/// Why a change does not read.
enum Broken {
    /// The bytes are at an end.
    Ended,
    /// This byte is none that can be there.
    At(usize),
}

/// Reads what is written of a journal. The engine takes some of what does not read for its end.
///
/// # Errors
/// The byte at which it is damaged.
fn parse(bytes: &[u8]) -> Result<Found, usize> {
    let (mut end, mut before) = (0, [None::<u64>; 2]);
    while end < bytes.len() {
        let (next, number) = match change(bytes, end) {
            Ok(read) => read,
            Err(broken) => {
                let torn = bytes.len() - end;
                return match broken {
                    Broken::At(at) if !is_hole(bytes, at) => Err(at),
                    // A change that has its end was not cut off by a kill.
                    Broken::Ended if bytes.ends_with(MAGIC) => Err(end),
                    _ => Ok(Found { end, torn }),
                };
            }
        };
        if let [Some(first), Some(second)] = before
            && is_flipped(first, second, number)
        {
            return Err(end);
        }
        before = [before[1], Some(number)];
        if next == bytes.len()
            && let [Some(first), Some(last)] = before
            && is_flipped_at_end(first, last)
        {
            return Err(end);
        }
        end = next;
    }
    Ok(Found { end, torn: 0 })
}

/// Whether the number of a change between two others is only there because of a bit: it should lie
/// between them.
fn is_flipped(before: u64, number: u64, after: u64) -> bool {
    let between = |number: u64| before < number && number < after;
    !between(number) && (0..u64::BITS).any(|bit| between(number ^ (1 << bit)))
}

/// The same of the last change. A higher number does no harm unless it is beyond all bounds; by a lower
/// one, the change would not hold.
fn is_flipped_at_end(before: u64, number: u64) -> bool {
    const NEAR: u64 = 4096;
    const FAR: u64 = 1 << 40;
    let near = |number: u64| number.checked_sub(before).is_some_and(|by| (1..=NEAR).contains(&by));
    match number.checked_sub(before) {
        Some(1..) => number - before > FAR,
        _ => (0..u64::BITS).any(|bit| near(number ^ (1 << bit))),
    }
}

/// Whether nothing was written here.
fn is_hole(bytes: &[u8], at: usize) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take(HOLE_BYTES).all(|byte| *byte == 0)
}

/// One change: where it ends, and its number.
fn change(bytes: &[u8], start: usize) -> Result<(usize, u64), Broken> {
    const START: u8 = 1;
    const ITEM: u8 = 2;
    const END: u8 = 3;
    const CLEAR: u8 = 4;
    let mut at = start;
    if take::<1>(bytes, &mut at)? != [START] {
        return Err(Broken::At(start));
    }
    let items = u32::from_le_bytes(take(bytes, &mut at)?);
    let number = u64::from_le_bytes(take(bytes, &mut at)?);
    let items_start = at;
    for _ in 0..items {
        let tag = at;
        match take(bytes, &mut at)? {
            [ITEM] => {
                let [kind, compression] = take(bytes, &mut at)?;
                if !matches!((kind, compression), (0 | 1 | 2 | 4, 0 | 1)) {
                    return Err(Broken::At(tag + 1));
                }
                let _table: [u8; 8] = take(bytes, &mut at)?;
                let key = u16::from_le_bytes(take(bytes, &mut at)?);
                let whole = u32::from_le_bytes(take(bytes, &mut at)?);
                let value = u32::from_le_bytes(take(bytes, &mut at)?);
                if compression == 0 && whole != value {
                    return Err(Broken::At(tag + 1));
                }
                at = at.saturating_add(usize::from(key)).saturating_add(value as usize);
                if at > bytes.len() {
                    return Err(Broken::Ended);
                }
            }
            [CLEAR] => {
                let _table: [u8; 8] = take(bytes, &mut at)?;
            }
            _ => return Err(Broken::At(tag)),
        }
    }
    let tag = at;
    if take::<1>(bytes, &mut at)? != [END] {
        return Err(Broken::At(tag));
    }
    let checksum = u64::from_le_bytes(take(bytes, &mut at)?);
    let magic = at;
    let found: [u8; MAGIC.len()] = take(bytes, &mut at)?;
    match found.iter().zip(MAGIC).position(|(found, expected)| found != expected) {
        None if xxh3_64(bytes.get(items_start..tag).unwrap_or_default()) != checksum => {
            Err(Broken::At(start))
        }
        None => Ok((at, number)),
        Some(wrong) => Err(Broken::At(magic + wrong)),
    }
}

fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Result<[u8; N], Broken> {
    let taken = bytes.get(*at..).and_then(|rest| rest.first_chunk::<N>()).ok_or(Broken::Ended)?;
    *at += N;
    Ok(*taken)
}
