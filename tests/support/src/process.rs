//! A server in a process of its own, and other programs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::endpoints::{Endpoints, fresh_dir, settings};
use crate::{SOON, bootstrap};

/// The server's program. Cargo tells where it is only to tests and benches of its own package:
/// `Program(env!("CARGO_BIN_EXE_tr50d"))`.
#[derive(Clone, Copy, Debug)]
pub struct Program(pub &'static str);

impl Program {
    /// The command that serves the demo from this directory, with free ports and more settings.
    pub fn command(self, data_dir: &Path, more: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.0);
        serve_demo(&mut command, data_dir, more);
        command
    }

    /// Serves the demo from this directory, which stays.
    pub fn serve(self, data_dir: &Path, more: &[(&str, &str)]) -> ServerProcess {
        self.serve_with(data_dir, Stdio::null(), more)
    }

    fn serve_with(self, data_dir: &Path, log: Stdio, more: &[(&str, &str)]) -> ServerProcess {
        // Read once, before the server is ready.
        let bootstrap = bootstrap::cheap_copy(more);
        let mut command =
            self.command(data_dir, &[more, &[bootstrap::setting(&bootstrap)]].concat());
        command.stderr(log);
        let mut server = ServerProcess::spawn(command);
        data_dir.clone_into(&mut server.endpoints.data_dir);
        server
    }

    /// Serves the demo from a fresh directory, and writes its log to this file.
    ///
    /// # Panics
    ///
    /// If the file can't be made.
    pub fn serve_logging(self, log: &Path, more: &[(&str, &str)]) -> ServerProcess {
        let dir = fresh_dir();
        let log = std::fs::File::create(log).expect("a file");
        let mut server = self.serve_with(&dir.path().join("data"), log.into(), more);
        server._dir = Some(dir);
        server
    }

    /// Serves the demo from a fresh directory.
    pub fn start(self, more: &[(&str, &str)]) -> ServerProcess {
        self.serve_logging(Path::new("/dev/null"), more)
    }
}

/// Has a command of the server's program serve the demo from this directory, with free ports,
/// without a limit of commands a second, and with more settings.
pub fn serve_demo(command: &mut Command, data_dir: &Path, more: &[(&str, &str)]) {
    command.args(["serve", "--demo"]).envs(settings(data_dir, more));
}

/// A running server in a process of its own. It is killed when this is dropped.
pub struct ServerProcess {
    child: Child,
    endpoints: Endpoints,
    lines: Vec<String>,
    _dir: Option<TempDir>,
}

impl ServerProcess {
    /// What a command serves; its data directory is the caller's to know.
    ///
    /// # Panics
    ///
    /// If the server does not start.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server's program");
        let announced = Announced::read(child.stdout.take().expect("its output"));
        let Announced { addresses, lines } = announced.unwrap_or_else(|why| {
            panic!("the server {why}: {:?}", child.wait());
        });
        let endpoints = Endpoints { addresses, data_dir: PathBuf::new() };
        Self { child, endpoints, lines, _dir: None }
    }

    /// What it wrote to standard output, `ready` included.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process");
    }

    /// Waits for the end of the process; the test's own tasks go on meanwhile.
    ///
    /// # Panics
    ///
    /// If it does not end [`SOON`].
    pub async fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(start.elapsed() < SOON, "the server does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a signal and waits for the end.
    pub async fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait().await
    }
}

impl Deref for ServerProcess {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        &self.endpoints
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server says at its start.
#[derive(Debug)]
pub struct Announced {
    /// Its listeners, by their names.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// All lines, `ready` included.
    pub lines: Vec<String>,
}

impl Announced {
    /// Reads until the server is ready.
    ///
    /// # Errors
    ///
    /// What the server did instead.
    pub fn read(output: ChildStdout) -> Result<Self, String> {
        let mut announced = Self { addresses: BTreeMap::new(), lines: Vec::new() };
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("says what can't be read: {error}"))?;
            announced.lines.push(line.clone());
            if line == "ready" {
                return Ok(announced);
            }
            let listening = line.strip_prefix("listening ").and_then(|rest| rest.split_once(' '));
            if let Some((name, address)) = listening {
                let address = address.parse().map_err(|_| format!("says {line:?}"))?;
                announced.addresses.insert(name.to_owned(), address);
            }
        }
        Err("ended before it was ready".to_owned())
    }
}

/// CPU time that a process has used, in user mode and in the system; its id may be `self`.
///
/// # Errors
///
/// If there is no such process.
pub fn cpu_of(pid: &str) -> Result<Duration, String> {
    let stat = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&stat).map_err(|error| format!("{stat}: {error}"))?;
    // The second field is the program's name in parentheses, which may hold anything; the times
    // are fields 14 and 15 of all.
    let (_, fields) = text.rsplit_once(") ").ok_or("no fields in stat")?;
    let ticks: Result<Vec<u64>, _> = fields.split(' ').skip(11).take(2).map(str::parse).collect();
    let ticks: u64 = ticks.map_err(|_| "no times in stat")?.iter().sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Bytes of a process's memory that are in use; its id may be `self`.
///
/// # Errors
///
/// If there is no such process.
pub fn resident_of(pid: &str) -> Result<usize, String> {
    let status = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&status).map_err(|error| format!("{status}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes = kibibytes.and_then(|number| number.parse::<usize>().ok());
    Ok(1024 * kibibytes.ok_or("no VmRSS in status")?)
}

/// Runs a program to its end; its status, standard output and standard error.
///
/// # Panics
///
/// If it does not start, or writes what is no text.
#[expect(clippy::disallowed_methods, reason = "a process does not say when it ends")]
pub fn run(mut command: Command) -> (ExitStatus, String, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let mut stream = stream.expect("piped");
            stream.read_to_string(&mut text).map(|_| text).expect("UTF-8")
        })
    };
    let out = read(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if start.elapsed() > SOON {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status, out.join().expect("read"), err.join().expect("read"))
}
