//! Signals to a server that runs.

use std::io;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// SIGTERM or SIGINT: the stop.
    Stop,
    /// SIGHUP: certificates and the log level are to be read again.
    Reload,
}

/// The signals that came and were not looked at.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Nobody waits for it: that it is listened to makes a write beyond the limit of a file's size
    /// (`ulimit -f`) an error of that write, and not the end of the process.
    _file_size: Signal,
}

/// SIGXFSZ, which has no name in tokio.
const FILE_SIZE: i32 = 25;

impl Signals {
    /// From now on these signals end nothing by themselves.
    ///
    /// # Errors
    ///
    /// The system does not let the program have them.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(FILE_SIZE))?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Whether the stop was asked for already.
    pub fn has_stop(&mut self) -> bool {
        let came = |signal: &mut Signal| signal.recv().now_or_never().is_some();
        came(&mut self.terminate) || came(&mut self.interrupt)
    }
}
