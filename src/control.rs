//! The control socket in the data directory, by which the command line reaches a running server:
//! whoever may open it may use it, without a password. It makes backups, opens locks of logins, and
//! carries out any command as a super administrator: the door that is never full.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Timestamp, chain, limits};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use serde_json::value::RawValue;
use store::disk::DiskStore;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Deed};
use crate::backup::{self, BackupError, Contents};
use crate::events::{Actor, SERVER, Target};
use crate::tr50::exchange;

const SOCKET: &str = "control";

/// What the server is to do.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Order {
    /// To copy its state to this directory.
    Backup(PathBuf),
    /// To carry out a request.
    Call(Box<CallOrder>),
    /// To forget the failed logins of this name, or from this address.
    Unlock(String),
}

/// A request, and where.
#[derive(Serialize, Deserialize)]
struct CallOrder {
    /// The key of the organisation; none: the one above all.
    org: Option<String>,
    request: Box<RawValue>,
}

/// How it went.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Done(Contents),
    /// The reply to a request, with the failures of commands in it.
    Reply(Box<RawValue>),
    /// How many locks were opened.
    Unlocked(usize),
    /// Why not, in one sentence.
    Failed(String),
}

/// Calls `work` with a path for the socket of this data directory. A socket's address has room for
/// about a hundred bytes; a longer one is reached through the open directory.
fn with_address<T>(data_dir: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const BYTES_MAX: usize = 100;
    let path = data_dir.join(SOCKET);
    if path.as_os_str().len() <= BYTES_MAX {
        return work(&path);
    }
    let dir = File::open(data_dir)?;
    work(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())))
}

/// The socket of a server; its file goes when this is dropped.
pub struct Control {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket in a data directory whose store this process has opened, so that no other
    /// server can be using it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_address(data_dir, |address| UnixListener::bind(address))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, path })
    }

    /// Takes orders until the server stops.
    pub async fn serve(
        self,
        app: Arc<App>,
        store: Arc<DiskStore>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let turn = Arc::new(Semaphore::new(1));
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely.
                sleep(limits::CONTROL_PAUSE).await;
                continue;
            };
            let (app, store) = (app.clone(), store.clone());
            let (stop, turn) = (stop.clone(), turn.clone());
            tasks.spawn(async move {
                if let Err(error) = take_order(stream, &app, store, &stop, &turn).await {
                    tracing::info!(%error, "an order through the control socket broke off");
                }
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn take_order(
    mut stream: tokio::net::UnixStream,
    app: &Arc<App>,
    store: Arc<DiskStore>,
    stop: &CancellationToken,
    turn: &Semaphore,
) -> io::Result<()> {
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    // The permissions of the socket say so, too; root may do everything anyway.
    if !uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.split();
    let mut reading = tokio::io::BufReader::new(reading.take(limits::CONTROL_ORDER_BYTES_MAX));
    let mut line = Vec::new();
    // Who says nothing does not hold up the end.
    let Some(read) = stop.run_until_cancelled(reading.read_until(b'\n', &mut line)).await else {
        return Ok(());
    };
    read?;
    let outcome = match serde_json::from_slice(&line) {
        Ok(Order::Call(order)) => {
            let called = stop.run_until_cancelled(call(app, *order, uid)).await;
            called.unwrap_or_else(|| Outcome::Failed("the server stops".to_owned()))
        }
        Ok(Order::Unlock(name)) => unlock(app, uid, &name),
        Ok(Order::Backup(dir)) => match turn.try_acquire() {
            Ok(_turn) => {
                let mut rest = [0];
                let gone = async {
                    // It says nothing more: the end is all that can come.
                    let _ = reading.read(&mut rest).await;
                };
                let made = back_up(app, store, dir.clone(), gone, stop).await;
                note_backup(app, uid, &dir, &made);
                made
            }
            Err(_) => Err(BackupError::Busy),
        }
        .map_or_else(|error| Outcome::Failed(chain(&error)), Outcome::Done),
        Err(error) => Outcome::Failed(format!("the server does not know this order: {error}")),
    };
    let mut answer = serde_json::to_vec(&outcome)?;
    answer.push(b'\n');
    // Nor does who reads nothing.
    tokio::select! {
        written = writing.write_all(&answer) => written,
        () = async { stop.cancelled().await; sleep(limits::LAST_WORDS_WAIT).await } => Ok(()),
    }
}

/// Carries a request out.
async fn call(app: &Arc<App>, order: CallOrder, uid: Option<u32>) -> Outcome {
    let CallOrder { org, request } = order;
    let who = (org.as_deref(), Actor::name_on_machine(uid));
    let reply = exchange::on_machine(app, who, request.get().as_bytes(), app.clock.now()).await;
    let text = reply.send(|text| text);
    match serde_json::from_slice(&text) {
        Ok(reply) => Outcome::Reply(reply),
        Err(error) => Outcome::Failed(format!("the reply is no JSON: {error}")),
    }
}

/// Opens locks of logins, which is in the trail.
fn unlock(app: &App, uid: Option<u32>, name: &str) -> Outcome {
    let count = app.unlock(name, app.clock.now());
    let deed = Deed { actor: Actor::on_machine(uid), command: "unlock" };
    let target = Target { kind: "login", id: String::new(), name: base::excerpt(name) };
    let after = Map::from_iter([("locks".to_owned(), count.into())]);
    let now = app.clock.shown(app.clock.now());
    let event = app.act(&deed, SERVER, target, (Map::new(), after), now);
    // On a full disk it is done all the same.
    if let Err(error) = app.note_event(event) {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "that a lock was opened is not in the trail");
    }
    Outcome::Unlocked(count)
}

/// That somebody copied everything is in the trail.
fn note_backup(app: &App, uid: Option<u32>, dir: &Path, made: &Result<Contents, BackupError>) {
    let deed = Deed { actor: Actor::on_machine(uid), command: "backup" };
    let name = dir.display().to_string();
    let target = Target { kind: "server", id: String::new(), name };
    let contents = made.as_ref().ok().map(|contents| serde_json::json!(contents));
    let after = contents.and_then(|contents| contents.as_object().cloned()).unwrap_or_default();
    let now = app.clock.shown(app.clock.now());
    let mut event = app.act(&deed, SERVER, target, (Map::new(), after), now);
    if let Err(error) = made {
        for (_, row) in &mut event.rows {
            row.insert("outcome".to_owned(), "failure".into());
            row.insert("message".to_owned(), chain(error).into());
        }
    }
    if let Err(error) = app.note_event(event) {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "the backup is not in the trail");
    }
}

/// Makes a backup on a thread of its own, until the one who wants it is gone or the server stops.
async fn back_up(
    app: &App,
    store: Arc<DiskStore>,
    dir: PathBuf,
    gone: impl Future<Output = ()>,
    stop: &CancellationToken,
) -> Result<Contents, BackupError> {
    tracing::info!(dir = %dir.display(), "a backup begins");
    let cancelled = Arc::new(AtomicBool::new(false));
    let watched = cancelled.clone();
    let (files, to) = (app.files.clone(), dir.clone());
    let data_dir = app.config.server.data_dir.clone();
    let mut work = tokio::task::spawn_blocking(move || {
        backup::make((&store, files.blobs()), &data_dir, &to, Timestamp::now(), &watched)
    });
    let done = tokio::select! {
        done = &mut work => done,
        () = async { tokio::select! { () = gone => {}, () = stop.cancelled() => {} } } => {
            cancelled.store(true, Ordering::Relaxed);
            work.await
        }
    };
    let made = done.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        Err(BackupError::Io { doing: "make the backup in", path: dir, source })
    });
    match &made {
        Ok(contents) => tracing::info!(?contents, "the backup is complete"),
        Err(error) => tracing::warn!(error = chain(error), "the backup failed"),
    }
    made
}

/// Asks the server that works on this data directory for a backup, and waits for it; none when no
/// server does.
///
/// # Errors
/// Why it was not made, in one sentence.
pub fn ask_for_backup(data_dir: &Path, dir: &Path) -> Result<Option<Contents>, String> {
    match ask(data_dir, &Order::Backup(dir.to_owned()))? {
        None => Ok(None),
        Some(Outcome::Done(contents)) => Ok(Some(contents)),
        Some(Outcome::Failed(sentence)) => Err(sentence),
        Some(_) => Err("the server ended before the backup was complete".to_owned()),
    }
}

/// Has the server that works on this data directory carry out a request, in the organisation of
/// this key or in the one above all; the text of the reply.
///
/// # Errors
/// No server does, or it gave no reply; in one sentence.
pub fn ask_for_call(data_dir: &Path, org: Option<&str>, request: &str) -> Result<String, String> {
    let request = RawValue::from_string(request.to_owned()).map_err(|error| error.to_string())?;
    let order = Order::Call(Box::new(CallOrder { org: org.map(str::to_owned), request }));
    match ask(data_dir, &order)?.ok_or_else(|| no_server(data_dir))? {
        Outcome::Reply(reply) => Ok(reply.get().to_owned()),
        Outcome::Failed(sentence) => Err(sentence),
        _ => Err("the server answered something else".to_owned()),
    }
}

/// Has the server that works on this data directory forget failed logins; how many locks that
/// opened.
///
/// # Errors
/// As [`ask_for_call`].
pub fn ask_to_unlock(data_dir: &Path, name: &str) -> Result<usize, String> {
    let order = Order::Unlock(name.to_owned());
    match ask(data_dir, &order)?.ok_or_else(|| no_server(data_dir))? {
        Outcome::Unlocked(count) => Ok(count),
        Outcome::Failed(sentence) => Err(sentence),
        _ => Err("the server answered something else".to_owned()),
    }
}

fn no_server(data_dir: &Path) -> String {
    format!(
        "no server runs with the data directory {}; `tr50d serve` with the same configuration starts \
         one",
        data_dir.display()
    )
}

/// What the server answers to an order; none when no server works on this data directory.
fn ask(data_dir: &Path, order: &Order) -> Result<Option<Outcome>, String> {
    let stream = match with_address(data_dir, |address| UnixStream::connect(address)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(format!("can't reach the server of {data_dir:?}: {error}")),
    };
    let mut line = String::new();
    let asked = serde_json::to_string(order)
        .map_err(io::Error::from)
        .and_then(|order| writeln!(&stream, "{order}"))
        .and_then(|()| BufReader::new(&stream).read_line(&mut line));
    asked.map_err(|error| format!("the server did not answer: {error}"))?;
    let ended = || "the server ended before it had answered".to_owned();
    serde_json::from_str(&line).map(Some).map_err(|_| ended())
}
