//! Backups: copies of a data directory, made while the server runs, and their restoration.
//!
//! A backup is a directory with `store/` (a store of its own with the rows of one moment), `files/`
//! (the bytes of the files that these rows name) and `backup.json`, which is written last. Bytes of
//! files never change, so they are linked where the file system can, and copied elsewhere.
//!
//! What is put back is what was saved, byte for byte, or nothing: `backup.json` has a digest of each
//! file of the store, and the rows have a checksum of each file's bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base::Timestamp;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::{Row, SCHEMA_VERSION, StoreError, Table, disk::DiskStore, rows::decode};

use crate::things::files::FileRecord;
use crate::things::files::blobs::{Blobs, make_private, relative_path};

/// The directory of files' bytes, in a data directory and in a backup.
pub const FILES: &str = "files";

const STORE: &str = "store";
const MANIFEST: &str = "backup.json";

/// Stands in a backup that is not complete.
const INCOMPLETE: &str = "INCOMPLETE";

/// Stands in a data directory that is not completely restored.
const RESTORING: &str = "RESTORE_INCOMPLETE";

/// The form of the directory.
const FORMAT: u32 = 1;

/// The oldest schema version of which there are backups: older programs made none.
const OLDEST_SCHEMA: u32 = 2;

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Rows of the store.
    pub rows: u64,
    /// Files of things and organisations.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files among them whose bytes were lost before.
    pub lost: u64,
}

/// `backup.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: u32,
    schema: u32,
    program: String,
    made: Timestamp,
    #[serde(flatten)]
    contents: Contents,
    /// SHA-256 of the store's files, by their paths below it; earlier programs wrote none.
    #[serde(default)]
    store_sha256: Option<BTreeMap<String, String>>,
}

/// Why a backup is not made or not put back. Each is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something where the copy should go.
    #[error("{0} is not an empty directory")]
    NotEmpty(PathBuf),
    /// The copy would contain itself.
    #[error("{0} is inside the data directory, which would then hold its own backup")]
    Inside(PathBuf),
    /// It depends on who reads it.
    #[error("the path \"{0}\" does not begin with /")]
    NotAbsolute(PathBuf),
    /// There is nothing to copy.
    #[error("there is no store in {0}")]
    NoStore(PathBuf),
    /// Somebody asked to stop.
    #[error("the backup was cancelled")]
    Cancelled,
    /// There is another one.
    #[error("another backup is being made")]
    Busy,
    /// The directory holds something else.
    #[error("there is no backup in {0}")]
    NotABackup(PathBuf),
    /// It was never finished.
    #[error("the backup in {0} was not completed; make a new one")]
    Incomplete(PathBuf),
    /// The restoring was never finished.
    #[error("{0} was not completely restored; empty it and restore again")]
    HalfRestored(PathBuf),
    /// It is not what it should be.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// An older program made it.
    #[error(
        "the backup has schema version {found}, this program restores version {OLDEST_SCHEMA} and later"
    )]
    Older {
        /// The backup's version.
        found: u32,
    },
    /// A newer program made it.
    #[error(
        "the backup has schema version {found}, this program knows versions up to {SCHEMA_VERSION}"
    )]
    Newer {
        /// The backup's version.
        found: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system failed.
    #[error("can't {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { doing, path, source }
}

/// A directory that is being filled, with a mark in it that says so. Unless it is completed, all of
/// it goes again.
struct Filling<'a> {
    dir: &'a Path,
    mark: &'static str,
    was_there: bool,
    complete: bool,
}

impl<'a> Filling<'a> {
    fn begin(dir: &'a Path, mark: &'static str) -> Result<Self, BackupError> {
        let was_there = dir.exists();
        if was_there {
            let mut entries = fs::read_dir(dir).map_err(failed("look into", dir))?;
            if entries.next().is_some() {
                return Err(BackupError::NotEmpty(dir.to_owned()));
            }
        }
        make_private(dir).map_err(failed("make", dir))?;
        let filling = Self { dir, mark, was_there, complete: false };
        let mark = dir.join(mark);
        File::create(&mark).map_err(failed("write", &mark))?;
        Ok(filling)
    }

    fn complete(mut self) -> Result<(), BackupError> {
        sync(self.dir)?;
        let mark = self.dir.join(self.mark);
        fs::remove_file(&mark).map_err(failed("remove", &mark))?;
        self.complete = true;
        sync(self.dir)
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        // The mark last: what can't be removed stays marked.
        for entry in fs::read_dir(self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() != self.mark {
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        if fs::read_dir(self.dir).is_ok_and(|entries| entries.count() == 1) {
            let _ = fs::remove_file(self.dir.join(self.mark));
        }
        if !self.was_there {
            let _ = fs::remove_dir(self.dir);
        }
    }
}

/// Brings everything on the directory's file system to the disk.
fn sync(dir: &Path) -> Result<(), BackupError> {
    let opened = File::open(dir).map_err(failed("open", dir))?;
    rustix::fs::syncfs(&opened).map_err(|error| failed("sync", dir)(error.into()))
}

/// Copies the store, as it is now, and the bytes of its files to `dir`, which is empty or not there.
///
/// What was committed before is in it. It blocks for as long as the copying takes.
///
/// # Errors
/// Whatever is in the way; then nothing stays in `dir`.
pub fn make(
    (store, blobs): (&DiskStore, &Blobs),
    data_dir: &Path,
    dir: &Path,
    now: Timestamp,
    cancelled: &AtomicBool,
) -> Result<Contents, BackupError> {
    if !dir.is_absolute() {
        return Err(BackupError::NotAbsolute(dir.to_owned()));
    }
    let inside = || BackupError::Inside(dir.to_owned());
    if is_inside(dir, data_dir) {
        return Err(inside());
    }
    let filling = Filling::begin(dir, INCOMPLETE)?;
    // Again: `..` behind what was not there leads anywhere.
    if is_inside(dir, data_dir) {
        return Err(inside());
    }
    // From before the moment on: what its rows name must not go.
    let _kept = blobs.keep_all();
    let moment = store.moment()?;
    let mut contents = Contents::default();
    let copy = DiskStore::open(&dir.join(STORE))?;
    for table in moment.tables() {
        let mut broken = None;
        let rows = moment.rows(table).map_while(|row| {
            let checked = row.map_err(BackupError::from).and_then(|row| {
                contents.rows += 1;
                if table == Table::Files {
                    copy_bytes(blobs, &row, dir, &mut contents)?;
                }
                if cancelled.load(Ordering::Relaxed) {
                    Err(BackupError::Cancelled)
                } else {
                    Ok(row)
                }
            });
            match checked {
                Ok(row) => Some(Ok(row)),
                Err(error) => {
                    broken = Some(error);
                    None
                }
            }
        });
        match table {
            // A new store has one of its own.
            Table::Meta => copy.put_all(table, rows)?,
            _ => copy.fill(table, rows)?,
        }
        if let Some(error) = broken {
            return Err(error);
        }
    }
    drop(copy);
    let manifest = Manifest {
        format: FORMAT,
        schema: SCHEMA_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made: now,
        contents,
        store_sha256: Some(digests(&dir.join(STORE))?),
    };
    let path = dir.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from);
    text.and_then(|text| fs::write(&path, text)).map_err(failed("write", &path))?;
    filling.complete()?;
    Ok(contents)
}

/// Whether the directory is in the other one, as far as they exist.
fn is_inside(dir: &Path, data_dir: &Path) -> bool {
    let Ok(data_dir) = data_dir.canonicalize() else { return false };
    let mut there = dir.ancestors().filter_map(|above| above.canonicalize().ok());
    there.next().is_some_and(|above| above.starts_with(data_dir))
}

/// Copies the bytes of the file in a row of [`Table::Files`].
fn copy_bytes(
    blobs: &Blobs,
    (key, value): &Row,
    dir: &Path,
    contents: &mut Contents,
) -> Result<(), BackupError> {
    let record: FileRecord = decode(Table::Files, key, value)?;
    let (from, to) = (blobs.path(record.id), dir.join(FILES).join(relative_path(record.id)));
    if !is_whole(&from, &record) {
        contents.lost += 1;
        return Ok(());
    }
    let folder = to.parent().unwrap_or(dir);
    make_private(folder).map_err(failed("make", folder))?;
    let copied = fs::hard_link(&from, &to).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::StorageFull => Err(error),
        // Another file system, or one without links.
        _ => fs::copy(&from, &to).map(drop),
    });
    match copied {
        Ok(()) => {
            contents.files += 1;
            contents.bytes += record.length;
            Ok(())
        }
        Err(error) => Err(failed("copy", &from)(error)),
    }
}

/// Whether a file's bytes are there, and those that came.
fn is_whole(path: &Path, record: &FileRecord) -> bool {
    let mut sum = crc32fast::Hasher::new();
    let read = each_part(path, |part| sum.update(part));
    read.is_ok_and(|length| length == record.length) && sum.finalize() == record.crc32
}

/// SHA-256 of each file below `dir`, by its path from there.
fn digests(dir: &Path) -> Result<BTreeMap<String, String>, BackupError> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("look into", &folder))? {
            let path = entry.map_err(failed("look into", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut digest = Sha256::new();
            each_part(&path, |part| digest.update(part)).map_err(failed("read", &path))?;
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            digests.insert(name, HEXLOWER.encode(&digest.finalize()));
        }
    }
    Ok(digests)
}

/// Reads a file, of whatever size, part by part; how many bytes it has.
fn each_part(path: &Path, mut part: impl FnMut(&[u8])) -> io::Result<u64> {
    let (mut file, mut length) = (File::open(path)?, 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                part(buffer.get(..count).unwrap_or_default());
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts a backup into a data directory, which is empty or not there.
///
/// # Errors
/// Whatever is in the way; then nothing stays in the data directory.
pub fn restore(dir: &Path, data_dir: &Path) -> Result<Contents, BackupError> {
    let manifest = read_manifest(dir)?;
    let filling = Filling::begin(data_dir, RESTORING)?;
    let store = dir.join(STORE);
    if !store.is_dir() {
        return Err(BackupError::Damaged(format!("{} is missing", store.display())));
    }
    copy_tree(&store, data_dir)?;
    check_digests(&manifest, data_dir)?;
    let files = dir.join(FILES);
    if files.exists() {
        copy_tree(&files, &data_dir.join(FILES))?;
    }
    let found = look_through(data_dir)?;
    if found != manifest.contents {
        let (found, wanted) = (found.rows, manifest.contents.rows);
        let sentence =
            format!("it has {found} rows of {wanted}, or bytes of files are missing or wrong");
        return Err(BackupError::Damaged(sentence));
    }
    filling.complete()?;
    Ok(found)
}

/// Refuses a store that is not what was saved, before its engine reads it.
fn check_digests(manifest: &Manifest, store: &Path) -> Result<(), BackupError> {
    let Some(saved) = &manifest.store_sha256 else { return Ok(()) };
    let mut found = digests(store)?;
    // Of the restoring itself.
    found.remove(RESTORING);
    let names = saved.keys().chain(found.keys());
    match names.into_iter().find(|name| saved.get(*name) != found.get(*name)) {
        None => Ok(()),
        Some(name) => Err(BackupError::Damaged(format!("{STORE}/{name} is not what was saved"))),
    }
}

fn read_manifest(dir: &Path) -> Result<Manifest, BackupError> {
    if dir.join(INCOMPLETE).exists() {
        return Err(BackupError::Incomplete(dir.to_owned()));
    }
    let path = dir.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BackupError::NotABackup(dir.to_owned())
        }
        _ => failed("read", &path)(error),
    })?;
    let damaged = |error| BackupError::Damaged(format!("{}: {error}", path.display()));
    let manifest: Manifest = serde_json::from_slice(&text).map_err(damaged)?;
    match manifest.schema {
        _ if manifest.format != FORMAT => {
            let sentence = format!("{} has format {}", path.display(), manifest.format);
            Err(BackupError::Damaged(sentence))
        }
        found if found < OLDEST_SCHEMA => Err(BackupError::Older { found }),
        found if found > SCHEMA_VERSION => Err(BackupError::Newer { found }),
        _ => Ok(manifest),
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), BackupError> {
    make_private(to).map_err(failed("make", to))?;
    for entry in fs::read_dir(from).map_err(failed("look into", from))? {
        let entry = entry.map_err(failed("look into", from))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(failed("look at", &path))?.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).map_err(failed("copy", &path))?;
        }
    }
    Ok(())
}

/// Reads all of a restored store, and the bytes of its files.
fn look_through(data_dir: &Path) -> Result<Contents, BackupError> {
    let store = DiskStore::open(data_dir)?;
    let blobs = Blobs::new(data_dir.join(FILES), false);
    let moment = store.moment()?;
    let mut contents = Contents::default();
    for table in moment.tables() {
        for row in moment.rows(table) {
            let (key, value) = row?;
            contents.rows += 1;
            if table != Table::Files {
                continue;
            }
            let record: FileRecord = decode(table, &key, &value)?;
            if is_whole(&blobs.path(record.id), &record) {
                contents.files += 1;
                contents.bytes += record.length;
            } else {
                contents.lost += 1;
            }
        }
    }
    Ok(contents)
}

/// Refuses a data directory that a restore left half filled.
///
/// # Errors
/// [`BackupError::HalfRestored`].
pub fn check_restored(data_dir: &Path) -> Result<(), BackupError> {
    match data_dir.join(RESTORING).exists() {
        true => Err(BackupError::HalfRestored(data_dir.to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use store::{Batch, Month, Store};

    use super::*;

    fn filled(dir: &Path) -> DiskStore {
        let store = DiskStore::open(dir).expect("a new store");
        let mut batch = Batch::default();
        for number in 0..500_u32 {
            batch.put(Table::Things, number.to_be_bytes(), "thing");
            batch.put(Table::Telemetry(Month(600)), number.to_be_bytes(), "point");
        }
        store.commit(&[batch]).expect("commit");
        store
    }

    #[test]
    fn a_backup_is_of_one_moment_and_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let [data, copy, back] = ["data", "copy", "back"].map(|name| dir.path().join(name));
        let store = filled(&data);
        let blobs = Blobs::new(data.join(FILES), false);
        let now = Timestamp::from_millis(1_628_604_970_976);
        let contents =
            make((&store, &blobs), &data, &copy, now, &AtomicBool::new(false)).expect("made");
        assert_eq!((contents.rows, contents.files), (1001, 0));
        store.drop_month(Table::Telemetry(Month(600))).expect("dropped");
        drop(store);
        assert_eq!(restore(&copy, &back).expect("restored"), contents);
        let store = DiskStore::open(&back).expect("a store");
        assert_eq!(store.months(), [Table::Telemetry(Month(600))]);
        let points = store.moment().expect("open").rows(Table::Telemetry(Month(600))).count();
        assert_eq!(points, 500);
    }

    #[test]
    fn a_wrong_byte_anywhere_in_the_store_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let [data, copy, back] = ["data", "copy", "back"].map(|name| dir.path().join(name));
        let store = filled(&data);
        let blobs = Blobs::new(data.join(FILES), false);
        make((&store, &blobs), &data, &copy, Timestamp::default(), &AtomicBool::new(false))
            .expect("made");
        let names: Vec<_> = digests(&copy.join(STORE)).expect("read").into_keys().collect();
        assert!(names.len() > 3, "{names:?}");
        for name in names {
            let path = copy.join(STORE).join(&name);
            let whole = fs::read(&path).expect("a file");
            let mut wrong = whole.clone();
            match wrong.last_mut() {
                Some(last) => *last ^= 1,
                None => wrong.push(0),
            }
            for wrong in [Some(wrong), None] {
                match wrong {
                    Some(wrong) => fs::write(&path, wrong).expect("written"),
                    None => fs::remove_file(&path).expect("removed"),
                }
                let refused = restore(&copy, &back).expect_err("it is damaged").to_string();
                assert!(refused.contains(&name), "{refused} about {name}");
                assert!(!back.exists());
            }
            fs::write(&path, whole).expect("written");
        }
        restore(&copy, &back).expect("it is whole again");
    }

    #[test]
    fn a_cancelled_backup_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let [data, copy] = ["data", "copy"].map(|name| dir.path().join(name));
        let store = filled(&data);
        let blobs = Blobs::new(data.join(FILES), false);
        let made =
            make((&store, &blobs), &data, &copy, Timestamp::default(), &AtomicBool::new(true));
        assert!(matches!(made, Err(BackupError::Cancelled)));
        assert!(!copy.exists());
        fs::create_dir(&copy).expect("made");
        let made =
            make((&store, &blobs), &data, &copy, Timestamp::default(), &AtomicBool::new(true));
        assert!(matches!(made, Err(BackupError::Cancelled)));
        assert_eq!(fs::read_dir(&copy).expect("still there").count(), 0);
    }
}
