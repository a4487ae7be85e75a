//! Files that are made together, or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// New files in a directory: they go when this is dropped, and the directory if it is new, unless
/// they are to be kept.
pub(super) struct NewFiles {
    dir: PathBuf,
    is_new: bool,
    made: Vec<PathBuf>,
}

impl NewFiles {
    /// Whether files of these names can be made in the directory, or in a new one: none of them may
    /// be there. Changes nothing.
    ///
    /// # Errors
    /// Why they can't, in one sentence.
    pub(super) fn check(dir: &Path, names: &[&str]) -> Result<(), String> {
        let paths = names.iter().map(|name| dir.join(name));
        if let Some(path) = paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
            return Err(format!("{} exists already; nothing was changed", path.display()));
        }
        let is_there = dir.exists();
        if is_there && !dir.is_dir() {
            return Err(format!("{} is not a directory", dir.display()));
        }
        let parent = dir.parent().unwrap_or(dir);
        let place = if is_there { dir } else { parent };
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        access(place, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| format!("can't write to {}: {error}", place.display()))
    }

    /// Begins in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// Why it can't be used, in one sentence.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, String> {
        let failed = |error| format!("can't make the directory {}: {error}", dir.display());
        let is_new = match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => false,
            Err(error) => return Err(failed(error)),
        };
        let mut files = Self { dir: dir.to_owned(), is_new, made: Vec::new() };
        // The configuration names it from wherever the server starts.
        files.dir = dir.canonicalize().map_err(failed)?;
        Ok(files)
    }

    /// The directory's absolute path.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a file that only its owner reads.
    ///
    /// # Errors
    /// Why it can't be made, in one sentence.
    pub(super) fn write(&mut self, name: &str, text: &str) -> Result<(), String> {
        let path = self.dir.join(name);
        let failed = |error| format!("can't write {}: {error}", path.display());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.map_err(failed)?;
        self.made.push(path.clone());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Everything is made: it stays.
    pub(super) fn keep(mut self) {
        self.made.clear();
        self.is_new = false;
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = fs::remove_file(path);
        }
        if self.is_new {
            // Not what somebody else may have put there meanwhile.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
