//! `tr50d backup` and `tr50d restore`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base::{Timestamp, chain};
use clap::Args;
use store::disk::DiskStore;

use crate::backup::{self, BackupError, Contents, FILES};
use crate::config::Config;
use crate::control;
use crate::things::files::blobs::Blobs;

/// Copies the state of a server to a directory, while it runs or when it does not.
///
/// What the server had answered before is in the copy, all of one moment. The server makes it and
/// goes on serving; it stops when this command is interrupted. Without a running server, the command
/// reads the data directory itself.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where the backup goes; an empty directory, or none yet
    dir: PathBuf,
    /// Configuration file of the server: its server.data_dir is copied
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Puts a backup into an empty data directory, from which `serve` can start then.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The backup
    dir: PathBuf,
    /// Configuration file of the server: its server.data_dir is filled, which must be empty or absent
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs `tr50d backup`.
///
/// # Errors
/// Why it is not made, in one sentence.
pub fn back_up(args: &BackupArgs, config: &Config) -> Result<(), String> {
    let data_dir = &config.server.data_dir;
    // The server may have another working directory.
    let dir = std::path::absolute(&args.dir)
        .map_err(|error| format!("can't find {}: {error}", args.dir.display()))?;
    let contents = match control::ask_for_backup(data_dir, &dir)? {
        Some(contents) => contents,
        None => read_store(data_dir, &dir).map_err(|error| chain(&error))?,
    };
    report("backed up", contents, &dir);
    Ok(())
}

fn read_store(data_dir: &Path, dir: &Path) -> Result<Contents, BackupError> {
    // Opening a store makes one where there is none.
    if !DiskStore::is_in(data_dir) {
        return Err(BackupError::NoStore(data_dir.to_owned()));
    }
    backup::check_restored(data_dir)?;
    let store = DiskStore::open(data_dir)?;
    let blobs = Blobs::new(data_dir.join(FILES), false);
    backup::make((&store, &blobs), data_dir, dir, Timestamp::now(), &AtomicBool::new(false))
}

/// Runs `tr50d restore`.
///
/// # Errors
/// Why it is not put back, in one sentence.
pub fn restore(args: &RestoreArgs, config: &Config) -> Result<(), String> {
    let data_dir = &config.server.data_dir;
    let contents = backup::restore(&args.dir, data_dir).map_err(|error| chain(&error))?;
    report("restored", contents, data_dir);
    Ok(())
}

fn report(done: &str, contents: Contents, dir: &Path) {
    let Contents { rows, files, bytes, lost } = contents;
    println!("{done} {rows} rows and {files} files with {bytes} bytes: {}", dir.display());
    if lost > 0 {
        eprintln!("tr50d: {lost} files had lost their bytes before; only their names are kept");
    }
}
