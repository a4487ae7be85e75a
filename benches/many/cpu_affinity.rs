//! Cores: one for the server, the others for the load.

use std::process::{Command, Stdio};

/// Which cores there are.
pub(crate) struct Cores {
    server: String,
    load: String,
}

impl Cores {
    /// The program, to be run on the server's core, or on all.
    pub(crate) fn command(cores: Option<&Self>, program: &str) -> Command {
        match cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &cores.server, program]);
                command
            }
            None => Command::new(program),
        }
    }

    /// The same cores, all of them for the server.
    pub(crate) fn all(&self) -> Self {
        Self { server: format!("{},{}", self.server, self.load), load: self.load.clone() }
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server on core {}, load on {}", self.server, self.load)
    }
}

/// Moves this process, which has one thread yet, off the server's core; none if there is but one
/// core, or no `taskset`.
pub(crate) fn pin_load() -> Option<Cores> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count < 2 {
        return None;
    }
    let load = if count == 2 { "1".to_owned() } else { format!("1-{}", count - 1) };
    let mut pin = Command::new("taskset");
    pin.args(["--all-tasks", "--pid", "--cpu-list", &load]).arg(std::process::id().to_string());
    let pinned = pin.stdout(Stdio::null()).stderr(Stdio::null()).status();
    pinned.is_ok_and(|status| status.success()).then(|| Cores { server: "0".to_owned(), load })
}
