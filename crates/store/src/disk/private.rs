//! What holds password hashes and sessions is for one user alone: directories and files that others
//! can read are mended.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::{LOG_TARGET, StoreError};

/// What group and others may.
const OTHERS: u32 = 0o077;

/// Makes the directory, if need be, for this user only.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Takes from all others what they may do with a directory and with what is in it; how many
/// directories and files that were is said in the log. Below a directory that was closed to others,
/// files of `deep` ones are not looked at one by one: nobody could reach them.
///
/// # Errors
/// [`StoreError::NotPrivate`]: something belongs to another user, or can't be changed.
pub fn make_private(dir: &Path, deep: &[&str]) -> Result<(), StoreError> {
    let mut mended = 0;
    let open = mend(dir, &mut mended)?;
    below(dir, &|name| !open && deep.contains(&name), &mut mended)?;
    if mended > 0 {
        tracing::warn!(
            target: LOG_TARGET,
            mended,
            "others could read {} or what is in it; now only this user can",
            dir.display()
        );
    }
    Ok(())
}

fn below(dir: &Path, skips: &dyn Fn(&str) -> bool, mended: &mut usize) -> Result<(), StoreError> {
    let unread = |error: io::Error| not_private(dir, error.to_string());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unread)?,
    };
    for entry in entries {
        let entry = entry.map_err(unread)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_symlink() {
            continue;
        }
        mend(&path, mended)?;
        if kind.is_dir() && !entry.file_name().to_str().is_some_and(skips) {
            below(&path, &|_| false, mended)?;
        }
    }
    Ok(())
}

/// Whether others could do something with it. What goes meanwhile, as files of the engine do, needs
/// no mending.
fn mend(path: &Path, mended: &mut usize) -> Result<bool, StoreError> {
    let is_there = |done: io::Result<_>| match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(not_private(path, error.to_string())),
    };
    let Some(found) = is_there(fs::metadata(path))? else { return Ok(false) };
    check_owner(path, &found)?;
    let mode = found.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(false);
    }
    let closed = Permissions::from_mode(mode & 0o7777 & !OTHERS);
    let closed = fs::set_permissions(path, closed).and_then(|()| fs::metadata(path));
    let Some(after) = is_there(closed)? else { return Ok(false) };
    // Some file systems take it and do nothing.
    if after.permissions().mode() & OTHERS != 0 {
        return Err(not_private(path, "the file system keeps no permissions".to_owned()));
    }
    *mended += 1;
    Ok(true)
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == us {
        return Ok(());
    }
    Err(not_private(path, format!("it belongs to user {owner}, and this is user {us}")))
}

fn not_private(path: &Path, why: String) -> StoreError {
    StoreError::NotPrivate { path: path.to_owned(), why }
}
