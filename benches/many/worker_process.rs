//! Processes of this program that are told in lines what to do, and answer in lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::Outcome;

/// Longer than any order takes.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A process. It is killed when this is dropped.
pub(crate) struct WorkerProcess {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl WorkerProcess {
    /// Starts this program with these arguments.
    pub(crate) fn spawn(args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no way to the process")?;
        let answers = read_lines(child.stdout.take().ok_or("no way from the process")?);
        Ok(Self { child, orders, answers })
    }

    /// Tells it to do something.
    pub(crate) fn order(&mut self, order: &impl Serialize) -> Outcome<()> {
        Ok(writeln!(self.orders, "{}", serde_json::to_string(order)?)?)
    }

    /// Its next answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> Outcome<T> {
        let line = tokio::time::timeout(ANSWER_MAX, self.answers.recv()).await?;
        Ok(serde_json::from_str(&line.ok_or("a process of this program ended")?)?)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The orders to this process, until there are no more.
pub(crate) fn orders() -> mpsc::Receiver<String> {
    read_lines(std::io::stdin())
}

/// Answers an order.
pub(crate) fn answer(answer: &impl Serialize) -> Outcome<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

/// The lines of a stream, read on a thread of their own.
fn read_lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
