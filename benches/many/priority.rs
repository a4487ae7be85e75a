//! Whom the scheduler lets work first on the load's core: what measures must not wait there for what
//! floods, or for what another process reads, or it would measure that.

use std::process::{Command, Stdio};

/// This process comes before all others, if it may.
pub(crate) fn first() {
    set(&["--fifo", "1"]);
}

/// This process works while no other wants to.
pub(crate) fn last() {
    set(&["--idle", "0"]);
}

/// Without `chrt`, or without the right, it stays as it is.
fn set([policy, priority]: &[&str; 2]) {
    let mut command = Command::new("chrt");
    command.args(["--all-tasks", policy, "--pid", priority]).arg(std::process::id().to_string());
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}
